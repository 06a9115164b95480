"""What is measured on the height map of one etched hole: the definitions, and their computation for many maps at once.

Heights z grow upwards: the plateau is high, the floor low. Everything is told in the map's own units, pixels [px] and
height units [grey]; `waferlens.inspect` turns them into nm where the scales are known. `docs/measurands.md` explains
the same definitions.

Levels
    The mid-height lies half-way between the 0.5 % lowest and highest pixels. p0 and f0 are the medians of the pixels
    above and below it; then, twice, the medians of the pixels above p0 and below f0 or within a tenth of the step
    p0 - f0 of it, so that the wall drops out. With s = (p0 - z) / (p0 - f0), 0 on the plateau and 1 on the floor:
plateau, floor [grey]
    Mean of z where s < 0.02, and where s > 0.98.
depth [grey]
    plateau - floor, positive. A pointed hole has no floor: what is told then is the mean around its tip (a cone: 0.8 of
    the way to the very tip).
cd10_area, cd50_area, cd90_area [px]
    2 sqrt(A / pi), where A is the area inside the contour at 10, 50, 90 % of the depth below the plateau. The contour
    runs linearly between pixel centres.
cd10_x ... cd90_y [px]
    Mean chord along x (y) inside that contour, over the rows (columns) within ±10 % of the contour's extent about its
    centroid; the ends of the band are not rounded to whole rows. An ellipse gives 0.9933 of its axis.
ellipticity [1], orientation_deg [deg]
    From the second moments of the area inside the 50 % contour: ratio of the major to the minor axis, >= 1; direction
    of the major axis from +x, counter-clockwise as seen from above (y of the array grows downwards), in [0, 180).
wall_angle_deg [deg]
    atan(0.8 depth / (r10 - r90)) with area-equivalent radii, from the horizontal: 90 is vertical. Its value here takes
    one height unit for as long as one pixel; `rescaled_angle` corrects for other scales. A map from above has one
    height a pixel: a re-entrant (undercut) wall cannot be observed and reads as 90 at most.
opening_area [px²]
    Area inside the 50 % contour.
volume [grey px²]
    Sum of plateau - z over the pixels with more than 2 % of the depth below the plateau.

Not measured, NaN: everything where there is no hole; what needs a contour that touches the border, or where there is
more than one opening. `reason` holds the cause.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Bool, Float

from waferlens.ops.contours import Contours, contours_below

MEASURED, NO_HOLE, TOUCHES_BORDER, SEVERAL_OPENINGS = 0, 1, 2, 3
REASONS: Mapping[int, str] = {
    MEASURED: "",
    NO_HOLE: "no hole: the depth does not stand out of the plateau's own spread",
    TOUCHES_BORDER: "the opening touches the border of the image",
    SEVERAL_OPENINGS: "more than one opening",
}

UNITS: Mapping[str, str] = {
    "depth": "grey",
    **{f"cd{level}_{way}": "px" for way in ("x", "y", "area") for level in (10, 50, 90)},
    "ellipticity": "1",
    "orientation_deg": "deg",
    "wall_angle_deg": "deg",
    "opening_area": "px2",
    "volume": "grey px2",
    "plateau": "grey",
    "floor": "grey",
}
"""The measurands, in the order they are told, with the units they have here."""
PERIODS: Mapping[str, float] = {"orientation_deg": 180.0}
"""Measurands that come back to themselves after a turn [deg]"""

_TILE = 32
"""Maps handled at a time: their pixels and masks then fit into a core's own cache."""
_STRAY_SHARE = 0.05
"""A second piece below this share of the first is a speck and left out, above it is a second opening."""


def measure_holes(
    z: Float[np.ndarray, "b h w"], smallest_depth: float | Float[np.ndarray, " b"] = 0.0
) -> dict[str, np.ndarray]:
    """Measures every map; the definitions stand at the top of this file.

    Args:
        z: heights, larger is higher; float32 is enough [grey]
        smallest_depth: what is less deep is no hole; for example three times the map's standard deviation [grey]

    Returns:
        The measurands of `UNITS` as float64 arrays of length b, NaN where not measured, and with them: `reason` (uint8,
        see `REASONS`), `top` and `bottom`, the levels p0 and f0 that s refers to [grey]
    """
    smallest = np.broadcast_to(np.asarray(smallest_depth, np.float64), len(z))
    tiles = [_measure(z[at : at + _TILE], smallest[at : at + _TILE]) for at in range(0, len(z), _TILE)]
    if not tiles:
        tiles = [_measure(np.empty((0, 3, 3), np.float32), smallest)]
    return {name: np.concatenate([tile[name] for tile in tiles]) for name in tiles[0]}


def find_levels(
    z: Float[np.ndarray, "b h w"],
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"], Bool[np.ndarray, " b"], Float[np.ndarray, "b n"]]:
    """The robust levels p0 and f0, whether the step between them stands out, and the sorted heights they came from.

    Args:
        z: heights, larger is higher [grey]

    Returns:
        p0 and f0 [grey]; whether the step from one to the other is more than three interquartile ranges of the pixels
        above mid-height; and z sorted within each map.
    """
    b, n = len(z), z.shape[1] * z.shape[2]
    # sorted once, every median and every mean over a range of heights is a look-up
    heights = np.sort(z.reshape(b, n), axis=1)
    trim = n // 200
    middle = (heights[:, trim].astype(np.float64) + heights[:, n - 1 - trim]) / 2
    below = _count_below(heights, middle)
    top, bottom = _median(heights, below, n), _median(heights, 0, below)
    spread = _quantile(heights, below, n, 0.75) - _quantile(heights, below, n, 0.25)
    # flat noise has a step of 1.6 of these spreads, a ramp without a plateau 2; a cone filling half the image has 6
    stands_out = top - bottom > 3 * spread
    for _ in range(2):
        step = top - bottom
        top, bottom = (
            _median(heights, _count_below(heights, top - 0.1 * step), n),
            _median(heights, 0, _count_below(heights, bottom + 0.1 * step)),
        )
    return top, bottom, stands_out, heights


def mean_sigma(
    z: Float[np.ndarray, "b h w"],
    sigma: Float[np.ndarray, "b h w"],
    top: Float[np.ndarray, " b"],
    bottom: Float[np.ndarray, " b"],
) -> dict[str, Float[np.ndarray, " b"]]:
    """Mean pixel sigma where it matters: what the width of a measurand's interval may depend on.

    Args:
        z: heights, larger is higher [grey]
        sigma: standard deviation of each height [grey]
        top: p0 of `measure_holes` [grey]
        bottom: f0 of `measure_holes` [grey]

    Returns:
        `sigma_plateau` (s < 0.02), `sigma_floor` (s > 0.98), `sigma_wall` (0.1 < s < 0.9); the mean over the whole map
        where there are no such pixels [grey]
    """
    step = top - bottom
    whole = sigma.mean((1, 2), dtype=np.float64)

    def mean(mask: Bool[np.ndarray, "b h w"]) -> Float[np.ndarray, " b"]:
        count = mask.sum((1, 2))
        total = np.einsum("bhw,bhw->b", sigma, mask.astype(sigma.dtype))
        return np.where(count > 0, total / np.maximum(count, 1), whole)

    def at(s: float) -> Float[np.ndarray, "b 1 1"]:
        return (top - s * step).astype(z.dtype)[:, np.newaxis, np.newaxis]

    return {
        "sigma_plateau": mean(z > at(0.02)),
        "sigma_floor": mean(z < at(0.98)),
        "sigma_wall": mean((z < at(0.1)) & (z > at(0.9))),
    }


def rescaled_angle(
    angle_deg: np.ndarray | float, height_per_grey: np.ndarray | float, length_per_px: np.ndarray | float
) -> np.ndarray | float:
    """The wall angle for other scales than one height unit a pixel; monotone, so that the ends of an interval follow.

    Args:
        angle_deg: as `measure_holes` tells it, in 0..180 [deg]
        height_per_grey: true height of one height unit [nm]
        length_per_px: true length of one pixel [nm]
    """
    angle = np.deg2rad(angle_deg)
    return np.rad2deg(np.arctan2(np.sin(angle) * height_per_grey, np.cos(angle) * length_per_px))


def _measure(z: np.ndarray, smallest_depth: np.ndarray) -> dict[str, np.ndarray]:
    top, bottom, stands_out, heights = find_levels(z)
    step = top - bottom
    plateau = _mean(heights, _count_below(heights, top - 0.02 * step, inclusive=True), heights.shape[1])
    floor = _mean(heights, 0, _count_below(heights, bottom + 0.02 * step))
    depth = plateau - floor
    is_hole = stands_out & (depth > smallest_depth) & (depth > 0)
    reason = np.where(is_hole, MEASURED, NO_HOLE).astype(np.uint8)
    plateau, floor, depth = (np.where(is_hole, level, np.nan) for level in (plateau, floor, depth))

    levels = {percent: plateau - percent / 100 * depth for percent in (10, 50, 90)}
    found = {percent: contours_below(z, level) for percent, level in levels.items()}
    in_pieces = is_hole & ~found[10].touches & ((found[10].pieces != 1) | (found[50].pieces != 1))
    if in_pieces.any():
        cleaned, several = _without_specks(z, np.flatnonzero(in_pieces), levels[10], plateau)
        reason[several] = SEVERAL_OPENINGS
        if cleaned is not z:
            z = cleaned
            found = {percent: contours_below(z, level) for percent, level in levels.items()}
    reason[is_hole & (found[10].touches | found[50].touches | found[90].touches)] = TOUCHES_BORDER

    several = reason == SEVERAL_OPENINGS
    whole = {percent: is_hole & ~contour.touches & ~several for percent, contour in found.items()}
    out = {name: np.full(len(z), np.nan) for name in UNITS}
    out.update(depth=depth, plateau=plateau, floor=floor)
    for percent, contour in found.items():
        fine = whole[percent] & (contour.area > 0)
        out[f"cd{percent}_x"] = np.where(fine, contour.chord_x, np.nan)
        out[f"cd{percent}_y"] = np.where(fine, contour.chord_y, np.nan)
        out[f"cd{percent}_area"] = np.where(fine, 2 * np.sqrt(np.maximum(contour.area, 0) / np.pi), np.nan)
    out["opening_area"] = np.where(whole[50], found[50].area, np.nan)
    out["ellipticity"], out["orientation_deg"] = _ellipse(found[50], whole[50])
    out["wall_angle_deg"] = np.rad2deg(np.arctan2(0.8 * depth, (out["cd10_area"] - out["cd90_area"]) / 2))
    out["volume"] = np.where(whole[10], _volume(z, plateau, depth), np.nan)
    return out | {"reason": reason, "top": top, "bottom": bottom}


def _without_specks(
    z: np.ndarray, which: np.ndarray, level_10: np.ndarray, plateau: np.ndarray
) -> tuple[np.ndarray, list[int]]:
    """Small pieces apart from the opening raised to the plateau, in a copy; and the maps with a second large piece.

    A piece is what lies below the 10 % level and hangs together, corners included. An island inside the opening is
    no piece: it stays, and is not counted to the area.
    """
    cleaned = z
    several = []
    for index in which:
        count, labels = cv2.connectedComponents((z[index] < level_10[index]).astype(np.uint8), connectivity=8)
        sizes = np.bincount(labels.reshape(-1), minlength=count)
        sizes[0] = 0
        others = np.arange(count) != sizes.argmax()
        others[0] = False
        if (sizes[others] > _STRAY_SHARE * sizes.max()).any():
            several.append(int(index))
        elif others.any():
            if cleaned is z:
                cleaned = z.copy()
            cleaned[index][others[labels]] = plateau[index]
    return cleaned, several


def _ellipse(contour: Contours, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    half_sum, half_difference = (contour.xx + contour.yy) / 2, (contour.xx - contour.yy) / 2
    radius = np.hypot(half_difference, contour.xy)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.sqrt((half_sum + radius) / (half_sum - radius))
    # minus: y of the array grows downwards, the angle is told as seen from above
    angle = np.rad2deg(np.arctan2(-contour.xy, half_difference)) / 2 % 180
    angle[angle == 180] = 0  # what % makes of a tiny negative angle
    return np.where(whole, ratio, np.nan), np.where(whole, angle, np.nan)


def _volume(z: np.ndarray, plateau: np.ndarray, depth: np.ndarray) -> np.ndarray:
    below = plateau.astype(z.dtype)[:, np.newaxis, np.newaxis] - z
    below *= below > (0.02 * depth).astype(z.dtype)[:, np.newaxis, np.newaxis]
    return below.sum((1, 2), dtype=np.float64)


def _count_below(heights: np.ndarray, level: np.ndarray, inclusive: bool = False) -> np.ndarray:
    """How many of the sorted heights are below (or at, if inclusive) the level of their map."""
    side = "right" if inclusive else "left"
    # a bisection a map: a dozen steps, where a comparison of all pixels would be thousands
    return np.array(
        [row.searchsorted(value, side) for row, value in zip(heights, level.astype(heights.dtype), strict=True)],
        np.intp,
    )


def _mean(heights: np.ndarray, start: np.ndarray | int, stop: np.ndarray | int) -> np.ndarray:
    start, stop = np.broadcast_to(start, len(heights)), np.broadcast_to(stop, len(heights))
    means = [
        row[first:last].mean(dtype=np.float64) if last > first else np.nan
        for row, first, last in zip(heights, start.tolist(), stop.tolist(), strict=True)
    ]
    return np.array(means, np.float64)


def _median(heights: np.ndarray, start: np.ndarray | int, stop: np.ndarray | int) -> np.ndarray:
    return _quantile(heights, start, stop, 0.5)


def _quantile(heights: np.ndarray, start: np.ndarray | int, stop: np.ndarray | int, share: float) -> np.ndarray:
    """Quantile of the sorted heights from start to stop, linear between neighbours; NaN if there are none."""
    start, stop = np.broadcast_to(start, len(heights)), np.broadcast_to(stop, len(heights))
    place = start + share * (stop - 1 - start)
    low = np.clip(np.floor(place).astype(np.intp), 0, heights.shape[1] - 1)
    high = np.clip(low + 1, 0, np.maximum(stop - 1, 0))
    rows = np.arange(len(heights))
    lower, upper = heights[rows, low].astype(np.float64), heights[rows, high].astype(np.float64)
    return np.where(stop > start, lower + (place - low) * (upper - lower), np.nan)
