"""A package found by its body and measured by its borders: corners to a fraction of a pixel, at any angle, in any
light.

Three steps. *Body*: what is darker than the board it lies on, in the colours that show it, on an image made eight
times smaller; or any mask that is handed in. *Borders*: straight lines along all of each side (`roi_rectangle`), so
that neither a zig-zag of the mask nor the roughness of the border is taken into the corners. *Place on the border*:
the border is soft and slopes down to the board. In brightfield a slope sends light past the lens, so half of the
brightness lies far outside of half of the slope; in darkfield the slope itself shines. The profile of a slope is
fitted, with its width and its steepness:

    cover(d) = 1 / (1 + exp(4 d / w))      brightfield:  (board (1 - cover) + body cover) / (1 + (s |cover'|)²)
                                           darkfield:     board (1 - cover) + body cover + s |cover'|

and the outline is where the cover is one half.

The top is the end where the opening with the die lies; a mark of pin 1 can say so instead.

Source: ours; roughness of a line by its spectrum, C. A. Mack (2013); bevels in bright and dark field, S2's images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from waferlens.ops.border_lines import Profile
from waferlens.ops.illumination import sort_light
from waferlens.ops.roi_opencv import LEAST_CONTOUR_PX, LEAST_RECTANGLE_PX, wrong_light
from waferlens.ops.roi_record import CROP_PX, Roi, cut_sides, homography_of, no_roi, ordered, turned_over
from waferlens.ops.roi_rectangle import FittedRectangle, Look, fit_rectangle, moved_quad, side_profiles

COARSE = 8
"""How many times smaller the image is in which the body is looked for"""
BORDER = Look(14.0, 24.0, trim_px=40.0, coarse_px=30.0, coarse_every=4, brighter=-1, knot_px=2.0, match=False)
"""How a package's borders are looked at: on the body's side, for the board has patterns of its own"""
SLOPE = Look(24.0, 40.0, trim_px=40.0, coarse_px=0.0, coarse_every=3, knot_px=2.0, match=False)
"""How much of the profile is taken to place the outline on the border's slope"""
_BODY_LEVEL = 0.75  # between the darkest (0) and the board (1): below it is what is no board
_SECOND = 0.35  # of the largest body's area: then there are two chips
_LEAST_CONTRAST = 4.0  # of board and body over the noise of the small image
_LEAST_FILL = 0.80  # of its rectangle that a body fills
_LEAST_CUT = 0.03  # of a body's diagonal that lies along an edge of the image: then the edge cuts it
_LEAST_LEAN = 0.04  # of the height: how far the openings must lie from the middle to tell the top
_STEEP = (8.0, 45.0)  # of a slope in brightfield: 18 to 100 px of height over an objective that accepts slopes of 2.2
_PLAINER = 0.8  # bodies are higher than the board: a plain border has to leave that much less unexplained
_UNEXPLAINED = 0.01  # of a profile's height, that no model of a border explains
_LENS_PX, _ROUGH = 1.1, 0.08  # what smooths a border's mean profile: the lens [px], and its roughness as a share of w
_LEAST_USED = 0.5  # share of the borders that has to fit


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """A package with its fit: what a die's angle is measured against."""

    roi: Roi
    rectangle: FittedRectangle | None
    border_px: float = math.nan
    """w of the soft border, as fitted [px]"""


def roi_edges(
    image: UInt8[np.ndarray, "h w 3"],
    *,
    light: str | None = None,
    mask: Bool[np.ndarray, "h w"] | None = None,
    size_px: tuple[int, int] = CROP_PX,
) -> Roi:
    """The package in an image, by lines along its borders.

    Args:
        image: red, green, blue [grey]
        light: `bf`, `dfw` or `dfb` if it is known; an image of another light is refused.
        mask: pixels of the package from elsewhere, such as a network; the image's own levels if None.
        size_px: width and height of the upright crop; tells which sides are the long ones [px]
    """
    return locate_package(image, light=light, mask=mask, size_px=size_px).roi


def locate_package(
    image: UInt8[np.ndarray, "h w 3"],
    *,
    light: str | None = None,
    mask: Bool[np.ndarray, "h w"] | None = None,
    size_px: tuple[int, int] = CROP_PX,
) -> Located:
    """As `roi_edges`, with the fit of the borders."""
    wrong = wrong_light(image, light)
    if wrong:
        return Located(no_roi("edges", wrong, size_px), None)
    if mask is None:
        body, openings, reason = body_mask(image)
        scale = COARSE
    else:
        body, openings, reason, scale = mask.astype(np.uint8), None, "", 1
    if reason:
        return Located(no_roi("edges", reason, size_px), None)
    quad, fill, reason = coarse_quad(body, scale, size_px)
    if quad is None:
        return Located(no_roi("edges", reason, size_px), None)
    if reason:
        roi = Roi("edges", quad, homography_of(quad, size_px), size_px, fill, reason)
        return Located(roi, None)
    if openings is None:
        _, openings, _ = body_mask(image)
    quad, upright = stand_up(quad, openings, COARSE)
    is_bright = (light or sort_light(image).nearest) == "bf"
    share = min(1.0, float(np.hypot(*(quad[1] - quad[0]))) / CROP_PX[0])
    fitted = fit_rectangle(image, quad, _smaller(BORDER, share))
    if fitted is None or fitted.used_share < _LEAST_USED:
        used = 0.0 if fitted is None else fitted.used_share
        reason = f"no straight borders: lines fit {100 * used:.0f} % of the sides of what looks like a chip"
        return Located(Roi("edges", quad, homography_of(quad, size_px), size_px, 0.0, reason, upright=upright), None)
    outwards, width = border_place(image, fitted.quad, _smaller(SLOPE, share), is_bright)
    quad = moved_quad(fitted.quad, outwards, 0.0)
    fitted = replace(fitted, quad=quad)
    cut = cut_sides(quad, image.shape)
    reason = f"the chip is cut by the {' and '.join(cut)} edge of the image" if cut else ""
    notes = ()
    if upright == "ambiguous":
        notes = ("nothing tells top from bottom: the smaller turn is told",)
    roi = Roi(
        "edges",
        quad,
        homography_of(quad, size_px),
        size_px,
        fitted.used_share,
        reason,
        fitted.angle_deg,
        fitted.sigma_deg,
        corner_sigma(fitted),
        upright,
        notes,
    )
    return Located(roi, fitted, width)


def _smaller(look: Look, share: float) -> Look:
    """Of a small package less is looked at, so that what lies in it stays out."""
    return replace(
        look,
        out_px=max(8.0, share * look.out_px),
        in_px=max(8.0, share * look.in_px),
        trim_px=max(10.0, share * look.trim_px),
        coarse_px=max(10.0, share * look.coarse_px),
    )


def body_mask(image: UInt8[np.ndarray, "h w 3"]) -> tuple[UInt8[np.ndarray, "p q"], Float32[np.ndarray, "p q"], str]:
    """The body and its openings, on an image `COARSE` times smaller.

    Returns:
        The body with all that lies within it; how bright each pixel is between body (0) and board (1), in the colours
        that tell them apart; and why there is none.
    """
    h, w = image.shape[0] // COARSE, image.shape[1] // COARSE
    small = cv2.resize(image[: h * COARSE, : w * COARSE], (w, h), interpolation=cv2.INTER_AREA).astype(np.float32)
    rim = np.concatenate([small[:2].reshape(-1, 3), small[-2:].reshape(-1, 3), small[:, 0], small[:, -1]])
    board = np.median(rim, axis=0)
    # noise of the small image: differences of neighbours, robust
    noise = 0.7413 * np.median(np.abs(np.diff(small, axis=1)), axis=(0, 1)) * math.sqrt(2) + 0.15
    inner = small[h // 8 : -h // 8, w // 8 : -w // 8].reshape(-1, 3)
    dark = np.percentile(inner, 15, axis=0)
    contrast = (board - dark) / noise
    weight = np.maximum(contrast, 0) / noise
    if contrast.max() < _LEAST_CONTRAST:
        reason = f"no chip: nothing is darker than its surroundings by more than {contrast.max():.1f} times the noise"
        return np.zeros((h, w), np.uint8), np.zeros((h, w), np.float32), reason
    level = ((small - dark) @ weight) / float((board - dark) @ weight)
    # a die in darkfield is darker than the body around it: what is darker than the board first, then half way to that
    below = level[level < _BODY_LEVEL]
    own = float(np.median(below)) if below.size else 0.0
    body = (level < 0.5 * (1.0 + own)).astype(np.uint8)
    body = cv2.morphologyEx(body, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    filled = np.zeros_like(body)
    contours, _ = cv2.findContours(body, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
    return filled, level, ""


def coarse_quad(
    body: UInt8[np.ndarray, "p q"], scale: int, size_px: tuple[int, int]
) -> tuple[Float[np.ndarray, "4 2"] | None, float, str]:
    """The rectangle about the one body of a mask.

    Returns:
        Its corners in pixels of the image, the share of it that the body fills, and why it is not to be used.
    """
    contours, _ = cv2.findContours(body, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    areas = sorted(((cv2.contourArea(one), place) for place, one in enumerate(contours)), reverse=True)
    least = LEAST_RECTANGLE_PX / scale**2
    if areas and LEAST_CONTOUR_PX / scale**2 <= areas[0][0] < least:
        x, y, w, h = cv2.boundingRect(contours[areas[0][1]])
        quad = np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)]) * scale - 0.5
        cut = cut_sides(quad, (body.shape[0] * scale, body.shape[1] * scale), margin_px=2.0)
        if cut:
            return None, 0.0, f"no whole chip: a dark body is cut by the {' and '.join(cut)} edge of the image"
    if not areas or areas[0][0] < least:
        most = areas[0][0] * scale**2 if areas else 0.0
        return None, 0.0, f"no chip: the largest dark body has {most:,.0f} px², less than {LEAST_RECTANGLE_PX:,.0f}"
    area, place = areas[0]
    # contours run through the middles of pixels
    (x, y), (width, height), turn = cv2.minAreaRect(contours[place])
    box = cv2.boxPoints(((x, y), (width + 1, height + 1), turn)).astype(np.float64)
    quad = ordered(box * scale + 0.5 * (scale - 1), size_px)
    hull = cv2.convexHull(contours[place])
    fill = min(1.0, (cv2.contourArea(hull) + 0.5 * cv2.arcLength(hull, True)) / ((width + 1) * (height + 1)))
    second = [
        one
        for one, other in areas[1:]
        if one > max(_SECOND * area, least)
        and cv2.pointPolygonTest(hull, [float(at) for at in contours[other].mean(axis=(0, 1))], False) < 0
    ]
    if second:
        told = ", ".join(f"{one * scale**2:,.0f}" for one in (area, *second))
        return quad, fill, f"{1 + len(second)} chips: bodies of {told} px²; show one"
    cut = touched_sides(contours[place][:, 0], body.shape)
    if cut:
        return quad, fill, f"the chip is cut by the {' and '.join(cut)} edge of the image"
    if fill < _LEAST_FILL:
        return quad, fill, f"what looks like a chip fills {100 * fill:.0f} % of its rectangle; a package fills it"
    return quad, fill, ""


def touched_sides(contour: Int[np.ndarray, "n 2"], shape: tuple[int, ...]) -> list[str]:
    """Which edges of the image a body runs along: there it goes on outside, and its border is not in the picture.

    Args:
        contour: Of the body, x and y.
        shape: Rows and columns of its mask.
    """
    h, w = shape
    x, y = contour[:, 0], contour[:, 1]
    sides = {"left": (x == 0, y), "right": (x == w - 1, y), "upper": (y == 0, x), "lower": (y == h - 1, x)}
    least = _LEAST_CUT * float(np.hypot(*np.ptp(contour, axis=0)))
    return [name for name, (on, along) in sides.items() if len(np.unique(along[on])) > least]


def stand_up(
    quad: Float[np.ndarray, "4 2"], level: Float32[np.ndarray, "p q"], scale: int
) -> tuple[Float[np.ndarray, "4 2"], str]:
    """Turns a quad so that the end with the larger opening is the top."""
    small = (quad - 0.5 * (scale - 1)) / scale
    inside = np.zeros(level.shape, np.uint8)
    for share, value in ((0.96, 2), (0.88, 1)):
        inner = small.mean(axis=0) + share * (small - small.mean(axis=0))
        cv2.fillConvexPoly(inside, np.rint(inner).astype(np.int32), value)
    # the body is what lies along its border; an opening differs from it, and so does a die in darkfield
    body = float(np.median(level[inside == 2]))
    rows, columns = np.nonzero(inside == 1)
    away = level[rows, columns]
    open_ = np.abs(away - body) > 0.3
    if open_.sum() < 0.02 * len(away):
        return quad, "ambiguous"
    up = 0.5 * (small[0] + small[1]) - 0.5 * (small[2] + small[3])
    height = float(np.hypot(*up))
    lean = float(np.mean((columns[open_] - small[:, 0].mean()) * up[0] + (rows[open_] - small[:, 1].mean()) * up[1]))
    lean /= height**2
    if abs(lean) < _LEAST_LEAN:
        return quad, "ambiguous"
    return (quad if lean > 0 else turned_over(quad)), "opening"


def corner_sigma(fitted: FittedRectangle) -> float:
    """Root mean square distance of a corner from its place, from the fit of the borders [px]"""
    lines = fitted.lines
    quad = fitted.quad
    reach = 0.5 * np.hypot(*(quad - quad.mean(axis=0)).T).mean() * 2
    return math.sqrt(
        2 * float(np.mean(lines.offset_sigma_px[np.isfinite(lines.offset_sigma_px)] ** 2))
        + (reach * lines.turn_sigma_rad) ** 2
    )


def border_place(
    image: np.ndarray, quad: Float[np.ndarray, "4 2"], look: Look, is_bright: bool
) -> tuple[Float[np.ndarray, "4"], float]:
    """How far outwards of a quad's sides half of each slope lies, and the width w that all slopes share [px]"""
    told = side_profiles(image, quad, look)
    seen = np.array([one is not None for one in told])
    profiles = [one for one in told if one is not None]
    if not profiles:
        return np.zeros(4), math.nan
    grid = _on_one_grid(profiles)
    if is_bright:
        # a slope is dark, so its middle lies within the place that is half as bright as the board
        half = np.array([_half_way(one) for one in profiles])
        starts = ((0.0, 0.3), (3.0, 18.0), (8.0, 18.0))
        tried = [_slope_fit(grid, half - inwards, half + 1.0, steep, is_bright) for inwards, steep in starts]
    else:
        count = len(profiles)
        tried = [_slope_fit(grid, np.full(count, start), np.full(count, 20.0), 1.0, is_bright) for start in (0.0, 6.0)]
    # the first is plain, the others are slopes, within what slopes there are
    plain, *others = tried
    others = [one for one in others if one[1][1] < math.log(0.95 * _STEEP[1])]
    _, best = min([plain, *((square * _PLAINER, told) for square, told in others)], key=lambda one: one[0])
    outwards = np.full(4, float(best[2:].mean()))
    outwards[seen] = best[2:]
    return outwards, math.exp(float(best[0]))


def _slope_fit(
    profiles: _Profiles, start: np.ndarray, most_place: np.ndarray, steep: float, is_bright: bool
) -> tuple[float, np.ndarray]:
    """Width and steepness of all slopes, the place of each, by damped Gauss-Newton steps; levels are eliminated."""
    sides = len(start)
    told = np.concatenate([[math.log(12.0), math.log(steep)], start])
    # a border is plain, or a slope as high as bodies are
    steeps = (steep, steep) if steep < _STEEP[0] else _STEEP
    low = np.concatenate([[math.log(2.0), math.log(steeps[0])], np.full(sides, -24.0)])
    high = np.concatenate([[math.log(60.0), math.log(steeps[1])], most_place])
    most = np.concatenate([[0.5, 0.6], np.full(sides, 3.0)])
    left = _left_over(profiles, told[0], told[1], told[2:], is_bright)
    square, damping = float(np.square(left).sum()), 1e-3
    for _ in range(20):
        slopes = [
            (_left_over(profiles, told[0] + 0.01, told[1], told[2:], is_bright) - left) / 0.01,
            (_left_over(profiles, told[0], told[1] + 0.02, told[2:], is_bright) - left) / 0.02,
            (_left_over(profiles, told[0], told[1], told[2:] + 0.05, is_bright) - left) / 0.05,
        ]
        normal, right = np.zeros((2 + sides, 2 + sides)), np.zeros(2 + sides)
        alone = range(2, 2 + sides)
        for i in range(2):
            right[i] = -(slopes[i] * left).sum()
            normal[i, 2:] = normal[2:, i] = (slopes[i] * slopes[2]).sum(axis=1)
            for j in range(2):
                normal[i, j] = (slopes[i] * slopes[j]).sum()
        normal[alone, alone] = np.square(slopes[2]).sum(axis=1)
        right[2:] = -(slopes[2] * left).sum(axis=1)
        move = np.linalg.solve(normal + np.diag(damping * np.diag(normal) + 1e-12), right)
        trial = np.clip(told + np.clip(move, -most, most), low, high)
        fresh = _left_over(profiles, trial[0], trial[1], trial[2:], is_bright)
        after = float(np.square(fresh).sum())
        if after < square:
            gain = 1.0 - after / max(square, 1e-30)
            told, left, square, damping = trial, fresh, after, max(damping / 4, 1e-7)
            if gain < 1e-4:
                break
        else:
            damping *= 8
            if damping > 1e5:
                break
    return square, told


@dataclass(frozen=True, slots=True, eq=False)
class _Profiles:
    """Profiles of some sides on one grid."""

    away: Float[np.ndarray, " j"]
    level: Float[np.ndarray, "n j"]
    """Of height 1, weighted"""
    weight: Float[np.ndarray, "n j"]


def _on_one_grid(profiles: list[Profile]) -> _Profiles:
    """Profiles at whole pixels; the board has patterns of its own, the body hardly any, so its side weighs more."""
    low = math.ceil(max(float(one.away_px[0]) for one in profiles))
    high = math.floor(min(float(one.away_px[-1]) for one in profiles))
    away = np.arange(low, high + 1, dtype=float)
    level, weight = np.empty((len(profiles), len(away))), np.empty((len(profiles), len(away)))
    for number, one in enumerate(profiles):
        height = float(np.ptp(one.level))
        seen = np.isfinite(one.spread)
        spread = np.interp(away, one.away_px[seen], one.spread[seen]) / height
        weight[number] = _UNEXPLAINED / np.hypot(_UNEXPLAINED, spread)
        level[number] = weight[number] * np.interp(away, one.away_px, one.level) / height
    return _Profiles(away, level, weight)


def _left_over(
    profiles: _Profiles, log_width: float, log_steep: float, places: Float[np.ndarray, " n"], is_bright: bool
) -> Float[np.ndarray, "n j"]:
    """What the best levels leave of the profiles of slopes at some places, with one width and steepness.

    A profile is a mean over a border that is rough and over a lens: both smooth it.
    """
    width = math.exp(log_width)
    sigma, half = math.hypot(_LENS_PX, _ROUGH * width), 6
    kernel = np.exp(-0.5 * np.square(np.arange(-half, half + 1) / sigma))
    kernel /= kernel.sum()
    wide = np.arange(profiles.away[0] - half, profiles.away[-1] + half + 1)
    cover = 1.0 / (1.0 + np.exp(np.clip(4.0 * (wide - places[:, np.newaxis]) / width, -40, 40)))
    steep = 4.0 * cover * (1.0 - cover) / width
    if is_bright:
        back = 1.0 / (1.0 + np.square(math.exp(log_steep) * steep))
        shapes = ((1.0 - cover) * back, cover * back)
    else:
        shapes = (1.0 - cover, steep)
    count = len(profiles.away)
    columns = np.ones((len(places), count, 3))
    for number, one in enumerate(shapes):
        smooth = kernel[half] * one[:, half : half + count]
        for k in range(1, half + 1):
            smooth += kernel[half + k] * (one[:, half + k : half + k + count] + one[:, half - k : half - k + count])
        columns[..., number] = smooth
    columns *= profiles.weight[..., np.newaxis]
    across = np.swapaxes(columns, 1, 2)
    held = np.linalg.solve(across @ columns + 1e-9 * np.eye(3), across @ profiles.level[..., np.newaxis])
    return profiles.level - (columns @ held)[..., 0]


def _half_way(profile: Profile) -> float:
    """Where a profile is half as bright as between its ends [px]"""
    level, away = profile.level, profile.away_px
    count = max(3, len(level) // 8)
    middle = 0.5 * (float(level[:count].mean()) + float(level[-count:].mean()))
    crossed = np.flatnonzero((level[:-1] - middle) * (level[1:] - middle) <= 0)
    return float(away[crossed[np.abs(away[crossed]).argmin()]]) if len(crossed) else 0.0
