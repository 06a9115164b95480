"""The body of a package in an image, roughly: what is darker than the board it lies on, and the rectangle about it.

On an image made several times smaller, in the colours that tell body and board apart. A network's box says where to
look, and a network's mask may stand in for the body.

Source: ours.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from waferlens.ops.roi_opencv import LEAST_RECTANGLE_PX
from waferlens.ops.roi_record import cut_sides, ordered, turned_over

COARSE = 8
"""How many times smaller the image is in which the body is looked for"""
SECOND_SHARE = 0.35
"""Of the largest body's area: another one of that size is a second chip"""
LEAST_FILL = 0.80
"""Share of its rectangle that a body fills"""
_BODY_LEVEL = 0.75  # between the darkest (0) and the board (1): below it is what is no board
_LEAST_CONTRAST = 4.0  # of board and body over the noise of the small image
_LEAST_CUT = 0.03  # of a body's diagonal that lies along an edge of the image: then the edge cuts it
_LEAST_LEAN = 0.04  # of the height: how far the openings must lie from the middle to tell the top
_LEAST_SMALL = 8  # rows and columns of the small image in which a body can be told from the board
_PART = 0.35  # of the least area: a body of that size at an edge of the image is a part of a chip


def body_mask(
    image: UInt8[np.ndarray, "h w 3"], coarse: int = COARSE, box: Float[np.ndarray, "4"] | None = None
) -> tuple[UInt8[np.ndarray, "p q"], Float32[np.ndarray, "p q"], str]:
    """The body and its openings, on an image `coarse` times smaller.

    Args:
        image: red, green, blue [grey]
        coarse: how many times smaller.
        box: x0 y0 x1 y1 in which it lies, with some of the board around it; all of the image if None [px]

    Returns:
        The body with all that lies within it; how bright each pixel is between body (0) and board (1), in the colours
        that tell them apart, 1 outside of the box; and why there is no body.
    """
    h, w = image.shape[0] // coarse, image.shape[1] // coarse
    small = cv2.resize(image[: h * coarse, : w * coarse], (w, h), interpolation=cv2.INTER_AREA).astype(np.float32)
    filled, level = np.zeros((h, w), np.uint8), np.ones((h, w), np.float32)
    rows, columns = slice(0, h), slice(0, w)
    if box is not None:
        x0, y0, x1, y1 = (np.asarray(box, np.float64) + 0.5) / coarse
        rows = slice(max(0, math.floor(y0)), min(h, math.ceil(y1)))
        columns = slice(max(0, math.floor(x0)), min(w, math.ceil(x1)))
        small = small[rows, columns]
        if min(small.shape[:2]) < _LEAST_SMALL:
            return filled, level, f"no chip: the box of the network has {x1 - x0:.0f} x {y1 - y0:.0f} px"
    filled[rows, columns], level[rows, columns], reason = _darker(small)
    return filled, level, reason


def _darker(
    small: Float32[np.ndarray, "p q 3"],
) -> tuple[UInt8[np.ndarray, "p q"], Float32[np.ndarray, "p q"], str]:
    """What is darker than the rim of a small image, with all that lies within it; its level; why there is none."""
    h, w = small.shape[:2]
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
    body: UInt8[np.ndarray, "p q"],
    scale: int,
    size_px: tuple[int, int],
    *,
    least_area_px: float = LEAST_RECTANGLE_PX,
    second_share: float = SECOND_SHARE,
    least_fill: float = LEAST_FILL,
    what: str = "dark body",
) -> tuple[Float[np.ndarray, "4 2"] | None, float, str]:
    """The rectangle about the one body of a mask.

    Args:
        body: 1 in it, else 0.
        scale: pixels of the image a pixel of the mask.
        size_px: width and height of the upright crop: tells which sides are the long ones [px]
        least_area_px: of a package [px²]
        second_share: of the largest body's area, from which another is a second chip.
        least_fill: share of its rectangle that a package fills.
        what: the body is called where it is none.

    Returns:
        Its corners in pixels of the image, the share of it that the body fills, and why it is not to be used.
    """
    contours, _ = cv2.findContours(body, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    areas = sorted(((cv2.contourArea(one), place) for place, one in enumerate(contours)), reverse=True)
    least = least_area_px / scale**2
    if areas and _PART * least <= areas[0][0] < least:
        x, y, w, h = cv2.boundingRect(contours[areas[0][1]])
        quad = np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)]) * scale - 0.5
        cut = cut_sides(quad, (body.shape[0] * scale, body.shape[1] * scale), margin_px=2.0)
        if cut:
            return None, 0.0, f"no whole chip: a {what} is cut by the {' and '.join(cut)} edge of the image"
    if not areas or areas[0][0] < least:
        most = areas[0][0] * scale**2 if areas else 0.0
        return None, 0.0, f"no chip: the largest {what} has {most:,.0f} px², less than {least_area_px:,.0f}"
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
        if one > max(second_share * area, least)
        and cv2.pointPolygonTest(hull, [float(at) for at in contours[other].mean(axis=(0, 1))], False) < 0
    ]
    if second:
        told = ", ".join(f"{one * scale**2:,.0f}" for one in (area, *second))
        return quad, fill, f"{1 + len(second)} chips: bodies of {told} px²; show one"
    cut = touched_sides(contours[place][:, 0], body.shape)
    if cut:
        return quad, fill, f"the chip is cut by the {' and '.join(cut)} edge of the image"
    if fill < least_fill:
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
