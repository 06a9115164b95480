"""A package found by its body and measured by its borders: corners to a fraction of a pixel, at any angle, in any
light.

Three steps. *Body*: what is darker than the board it lies on (`roi_body`), in the whole image or in a network's box;
or a network's mask. *Borders*: straight lines along all of each side (`roi_rectangle`), so that neither a zig-zag of
the mask nor the roughness of the border is taken into the corners. *Place on the border*: the border is soft, and the
outline is where half of its slope lies (`roi_slope`).

The top is the end where the opening with the die lies; a mark of pin 1 can say so instead.

Source: ours; roughness of a line by its spectrum, C. A. Mack (2013); bevels in bright and dark field, S2's images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, UInt8

from waferlens.ops.illumination import sort_light
from waferlens.ops.roi_body import COARSE, LEAST_FILL, SECOND_SHARE, body_mask, coarse_quad, stand_up
from waferlens.ops.roi_opencv import LEAST_RECTANGLE_PX, wrong_light
from waferlens.ops.roi_record import CROP_PX, Roi, angle_of, cut_sides, homography_of, no_roi
from waferlens.ops.roi_rectangle import FittedRectangle, Look, fit_rectangle, moved_quad
from waferlens.ops.roi_slope import border_place

BORDER = Look(14.0, 24.0, trim_px=24.0, coarse_px=30.0, coarse_every=4, brighter=-1, knot_px=2.0, match=False)
"""How a package's borders are looked at: on the body's side, for the board has patterns of its own"""
SLOPE = Look(24.0, 40.0, trim_px=24.0, coarse_px=0.0, coarse_every=3, knot_px=2.0, match=False)
"""How much of the profile is taken to place the outline on the border's slope"""
AMBIGUOUS = "nothing tells top from bottom: the smaller turn is told"


@dataclass(frozen=True, slots=True)
class EdgesSettings:
    """What the method can be told; the recipe `roi-edges` says the same."""

    coarse: int = COARSE
    """How many times smaller the image is in which the body is looked for"""
    least_area_px: float = LEAST_RECTANGLE_PX
    """Of a package [px²]"""
    second_share: float = SECOND_SHARE
    """Of the largest body's area, from which another is a second chip"""
    least_fill: float = LEAST_FILL
    """Share of its rectangle that a package fills"""
    out_px: float = BORDER.out_px
    """How far outwards borders are looked at [px]"""
    in_px: float = BORDER.in_px
    """How far inwards [px]"""
    trim_px: float = BORDER.trim_px
    """What is left out at both ends of each border, for corners are round and the next side's slope begins [px]"""
    steep_px: float | None = None
    """Steepness s of the slope in brightfield, where it is known; fitted to each image if None [px]"""
    least_used: float = 0.5
    """Share of the borders that has to fit straight lines"""


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """A package with its fit: what a die's angle is measured against."""

    roi: Roi
    rectangle: FittedRectangle | None
    border_px: float = math.nan
    """w of the soft border, as fitted [px]"""
    steep_px: float = math.nan
    """s of its slope in brightfield, as fitted or told [px]"""


def roi_edges(
    image: UInt8[np.ndarray, "h w 3"],
    *,
    light: str | None = None,
    mask: Bool[np.ndarray, "h w"] | None = None,
    box: Float[np.ndarray, "4"] | None = None,
    size_px: tuple[int, int] = CROP_PX,
    settings: EdgesSettings | None = None,
) -> Roi:
    """The package in an image, by lines along its borders.

    Args:
        image: red, green, blue [grey]
        light: `bf`, `dfw` or `dfb` if it is known; an image of another light is refused.
        mask: pixels of the package from elsewhere, such as a network; the image's own levels if None.
        box: x0 y0 x1 y1 from elsewhere in which the body is looked for, with some of the board around it [px]
        size_px: width and height of the upright crop; tells which sides are the long ones [px]
        settings: what else the method can be told.
    """
    return locate_package(image, light=light, mask=mask, box=box, size_px=size_px, settings=settings).roi


def locate_package(
    image: UInt8[np.ndarray, "h w 3"],
    *,
    light: str | None = None,
    mask: Bool[np.ndarray, "h w"] | None = None,
    box: Float[np.ndarray, "4"] | None = None,
    size_px: tuple[int, int] = CROP_PX,
    settings: EdgesSettings | None = None,
) -> Located:
    """As `roi_edges`, with the fit of the borders."""
    told = settings or EdgesSettings()
    rough = roi_body(image, light=light, mask=mask, box=box, size_px=size_px, settings=told)
    if not rough.found or rough.quad is None:
        return Located(rough, None)
    return refined(image, rough, light=light, settings=told)


def roi_body(
    image: UInt8[np.ndarray, "h w 3"],
    *,
    light: str | None = None,
    mask: Bool[np.ndarray, "h w"] | None = None,
    box: Float[np.ndarray, "4"] | None = None,
    size_px: tuple[int, int] = CROP_PX,
    settings: EdgesSettings | None = None,
) -> Roi:
    """The smallest rectangle about the body of a package or about its mask, upright: where lines are looked for.

    Args: as of `roi_edges`. The score is the share of the rectangle that is filled.
    """
    told = settings or EdgesSettings()
    wrong = wrong_light(image, light)
    if wrong:
        return no_roi("edges", wrong, size_px)
    if mask is None:
        body, openings, reason = body_mask(image, told.coarse, box)
        scale = told.coarse
    else:
        body, openings, reason, scale = mask.astype(np.uint8), None, "", 1
    if reason:
        return no_roi("edges", reason, size_px)
    quad, fill, reason = coarse_quad(
        body,
        scale,
        size_px,
        least_area_px=told.least_area_px,
        second_share=told.second_share,
        least_fill=told.least_fill,
        what="dark body" if mask is None else "mask",
    )
    if quad is None:
        return no_roi("edges", reason, size_px)
    if reason:
        return Roi("edges", quad, homography_of(quad, size_px), size_px, fill, reason)
    return upright_roi(image, quad, fill, size_px, openings, told.coarse)


def upright_roi(
    image: UInt8[np.ndarray, "h w 3"],
    quad: Float[np.ndarray, "4 2"],
    score: float,
    size_px: tuple[int, int],
    openings: Float[np.ndarray, "p q"] | None = None,
    coarse: int = COARSE,
) -> Roi:
    """A rough outline, turned so that the end with the larger opening is the top.

    Args:
        image: red, green, blue [grey]
        quad: corners of the outline [px]
        score: how well it fits.
        size_px: width and height of the upright crop [px]
        openings: levels of `body_mask` if they are known.
        coarse: how many times smaller they are.
    """
    if openings is None:
        _, openings, _ = body_mask(image, coarse)
    quad, upright = stand_up(quad, openings, coarse)
    return Roi(
        "edges",
        quad,
        homography_of(quad, size_px),
        size_px,
        score,
        "",
        angle_of(quad),
        upright=upright,
        notes=(AMBIGUOUS,) if upright == "ambiguous" else (),
    )


def refined(
    image: UInt8[np.ndarray, "h w 3"],
    rough: Roi,
    *,
    light: str | None = None,
    settings: EdgesSettings | None = None,
) -> Located:
    """The same package with straight lines along its borders in place of a rough outline.

    Args:
        image: red, green, blue [grey]
        rough: upright, its sides within some 30 px of the borders.
        light: `bf`, `dfw` or `dfb`; sorted by colour if None.
        settings: what else the method can be told.
    """
    told = settings or EdgesSettings()
    quad, size_px = rough.quad, rough.size_px
    assert quad is not None
    is_bright = (light or sort_light(image).nearest) == "bf"
    share = min(1.0, float(np.hypot(*(quad[1] - quad[0]))) / CROP_PX[0])
    border = replace(BORDER, out_px=told.out_px, in_px=told.in_px, trim_px=told.trim_px)
    fitted = fit_rectangle(image, quad, _smaller(border, share))
    if fitted is None or fitted.used_share < told.least_used:
        used = 0.0 if fitted is None else fitted.used_share
        reason = f"no straight borders: lines fit {100 * used:.0f} % of the sides of what looks like a chip"
        return Located(replace(rough, score=0.0, reason=reason, angle_deg=None), None)
    slope = _smaller(replace(SLOPE, trim_px=told.trim_px), share)
    outwards, width, steep = border_place(image, fitted.quad, slope, is_bright, told.steep_px)
    quad = moved_quad(fitted.quad, outwards, 0.0)
    fitted = replace(fitted, quad=quad)
    cut = cut_sides(quad, image.shape)
    roi = replace(
        rough,
        quad=quad,
        homography=homography_of(quad, size_px),
        score=fitted.used_share,
        reason=f"the chip is cut by the {' and '.join(cut)} edge of the image" if cut else "",
        angle_deg=fitted.angle_deg,
        angle_sigma_deg=fitted.sigma_deg,
        corner_sigma_px=corner_sigma(fitted),
        steep_px=None if math.isnan(steep) else steep,
    )
    return Located(roi, fitted, width, steep)


def _smaller(look: Look, share: float) -> Look:
    """Of a small package less is looked at, so that what lies in it stays out."""
    return replace(
        look,
        out_px=max(8.0, share * look.out_px),
        in_px=max(8.0, share * look.in_px),
        trim_px=max(10.0, share * look.trim_px),
        coarse_px=max(10.0, share * look.coarse_px),
    )


def corner_sigma(fitted: FittedRectangle) -> float:
    """Root mean square distance of a corner from its place, from the fit of the borders [px]"""
    lines = fitted.lines
    quad = fitted.quad
    reach = 0.5 * np.hypot(*(quad - quad.mean(axis=0)).T).mean() * 2
    return math.sqrt(
        2 * float(np.mean(lines.offset_sigma_px[np.isfinite(lines.offset_sigma_px)] ** 2))
        + (reach * lines.turn_sigma_rad) ** 2
    )
