"""Contours of many small maps at once, to a fraction of a pixel, and what follows from them.

A contour is the boundary of {z < level}, linear between pixel centres. All cells of all maps that it crosses are
handled as one flat list, so the cost goes with the length of the contours and not with the number of pixels. Areas and
moments are line integrals over the contour (Green's theorem); they need no loop to be traced and subtract islands by
themselves.

Source: marching squares; moments of polygons after C. Steger, "On the calculation of arbitrary moments of polygons"
(1996); Euler number from the codes of the cells after S. B. Gray, "Local properties of binary images" (1971).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

# Corners of a cell: a (x, y), b (x+1, y), c (x+1, y+1), d (x, y+1); its code is a + 2b + 4c + 8d of "inside".
# Edges: 0 top a-b, 1 right b-c, 2 bottom d-c, 3 left a-d. A segment runs so that the inside lies towards +y of its +x
# direction, which makes areas positive. Codes 16 and 17 are the saddles 5 and 10 whose middle is inside.
_FROM = np.array([0, 0, 1, 1, 2, 0, 2, 2, 3, 0, 1, 1, 3, 0, 3, 0, 0, 3])
_TO = np.array([0, 3, 0, 3, 1, 3, 0, 3, 2, 2, 0, 2, 1, 1, 0, 0, 1, 0])
_SECOND_FROM = np.zeros(18, np.intp)
_SECOND_TO = np.zeros(18, np.intp)
_SECOND_FROM[[5, 10, 16, 17]] = 2, 3, 2, 1
_SECOND_TO[[5, 10, 16, 17]] = 1, 2, 3, 2
_HAS_SECOND = np.zeros(18, bool)
_HAS_SECOND[[5, 10, 16, 17]] = True
# Quarter turns of the boundary: one inside corner +1, three -1, a saddle +2 when split and -2 when joined (Gray 1971)
_TURN = np.array([0, 1, 1, 0, 1, 2, 0, -1, 1, 0, 2, -1, 0, -1, -1, 0, -2, -2], float)


@dataclass(frozen=True, slots=True)
class Contours:
    """What one level cuts out of each map; lengths in pixels, the centre of the first pixel at (0, 0)."""

    area: Float[np.ndarray, " b"]
    """Area inside the contour; 0 where nothing is inside [px²]"""
    x: Float[np.ndarray, " b"]
    """Centroid; NaN where nothing is inside [px]"""
    y: Float[np.ndarray, " b"]
    xx: Float[np.ndarray, " b"]
    """Central second moments divided by the area [px²]"""
    yy: Float[np.ndarray, " b"]
    xy: Float[np.ndarray, " b"]
    chord_x: Float[np.ndarray, " b"]
    """Mean length along x over the rows within ±10 % of the extent in y about the centroid [px]"""
    chord_y: Float[np.ndarray, " b"]
    """Mean length along y over the columns within ±10 % of the extent in x about the centroid [px]"""
    pieces: Int[np.ndarray, " b"]
    """Number of pieces minus number of islands in them (Euler number)."""
    touches: Bool[np.ndarray, " b"]
    """Whether the inside reaches the border; nothing above is meaningful then."""


def contours_below(z: Float[np.ndarray, "b h w"], level: Float[np.ndarray, " b"], band: float = 0.1) -> Contours:
    """The contours of {z < level}.

    Args:
        z: maps; computed in float64 where the contour runs.
        level: one level a map; NaN has no contour.
        band: half-width of the band the chords are averaged over, as a share of the extent.
    """
    b, h, w = z.shape
    inside = z < level.astype(z.dtype)[:, np.newaxis, np.newaxis]
    touches = inside[:, 0].any(1) | inside[:, -1].any(1) | inside[:, :, 0].any(1) | inside[:, :, -1].any(1)
    image, y, x, code, corners = _cells(z, level, inside)
    at_a, at_b, at_c, at_d = corners
    with np.errstate(divide="ignore", invalid="ignore"):  # edges that are not crossed are computed and never looked at
        cross_x = np.stack([x + at_a / (at_a - at_b), x + 1.0, x + at_d / (at_d - at_c), x + 0.0])
        cross_y = np.stack([y + 0.0, y + at_b / (at_b - at_c), y + 1.0, y + at_a / (at_a - at_d)])

    code = np.where(_HAS_SECOND[code] & (at_a + at_b + at_c + at_d < 0), np.where(code == 5, 16, 17), code)
    cell = np.arange(len(code))
    second = np.flatnonzero(_HAS_SECOND[code])
    start = np.concatenate([_FROM[code], _SECOND_FROM[code[second]]])
    stop = np.concatenate([_TO[code], _SECOND_TO[code[second]]])
    cell = np.concatenate([cell, second])
    moments = _moments(
        cross_x[start, cell], cross_y[start, cell], cross_x[stop, cell], cross_y[stop, cell], image[cell], b
    )
    area, centre_x, centre_y, xx, yy, xy = moments

    # crossings of rows and columns of pixel centres: each is the top or left edge of exactly one cell
    across_row = np.flatnonzero((at_a < 0) != (at_b < 0))
    across_column = np.flatnonzero((at_a < 0) != (at_d < 0))
    chord_x = _chords(cross_x[0, across_row], at_a[across_row] < 0, image[across_row], y[across_row], b, h)
    chord_y = _chords(cross_y[3, across_column], at_a[across_column] < 0, image[across_column], x[across_column], b, w)
    low_x, high_x = _extent(cross_x[0, across_row], image[across_row], b)
    low_y, high_y = _extent(cross_y[3, across_column], image[across_column], b)
    return Contours(
        area,
        centre_x,
        centre_y,
        xx,
        yy,
        xy,
        _band_mean(chord_x, centre_y, band * (high_y - low_y)),
        _band_mean(chord_y, centre_x, band * (high_x - low_x)),
        np.rint(np.bincount(image, _TURN[code], b) / 4).astype(np.int64),
        touches,
    )


def _cells(
    z: np.ndarray, level: np.ndarray, inside: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
    """The cells a contour crosses: map, row, column, code, and the four corners' heights above the level."""
    _, h, w = z.shape
    bits = inside.view(np.uint8)
    code = bits[:, 1:, 1:] << 2
    code += bits[:, :-1, :-1]
    code += bits[:, :-1, 1:] << 1
    code += bits[:, 1:, :-1] << 3
    flat = code.reshape(-1)
    cells = np.flatnonzero((flat - np.uint8(1)) < 14)  # wraps round at 0: neither 0 nor 15
    row, x = np.divmod(cells, w - 1)
    image, y = np.divmod(row, h - 1)
    corner = (image * h + y) * w + x
    heights = z.reshape(-1)
    # the level in the maps' own type, as above: else a corner could be inside by one and outside by the other
    of = level.astype(z.dtype)[image].astype(np.float64)
    corners = tuple(heights[corner + step] - of for step in (0, 1, w + 1, w))
    return image, y, x, flat[cells], corners


def _moments(
    x1: np.ndarray, y1: np.ndarray, x2: np.ndarray, y2: np.ndarray, image: np.ndarray, b: int
) -> tuple[np.ndarray, ...]:
    cross = x1 * y2 - x2 * y1
    area = np.bincount(image, cross, b) / 2
    sums = (
        np.bincount(image, cross * (x1 + x2), b) / 6,
        np.bincount(image, cross * (y1 + y2), b) / 6,
        np.bincount(image, cross * (x1 * x1 + x1 * x2 + x2 * x2), b) / 12,
        np.bincount(image, cross * (y1 * y1 + y1 * y2 + y2 * y2), b) / 12,
        np.bincount(image, cross * (x1 * (2 * y1 + y2) + x2 * (y1 + 2 * y2)), b) / 24,
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y, xx, yy, xy = (np.where(area > 0, total / area, np.nan) for total in sums)
    return area, x, y, xx - x * x, yy - y * y, xy - x * y


def _chords(
    place: np.ndarray, leaves: np.ndarray, image: np.ndarray, line: np.ndarray, b: int, lines: int
) -> np.ndarray:
    """Length inside on each line of pixel centres: where it is left minus where it is entered."""
    return np.bincount(image * lines + line, np.where(leaves, place, -place), b * lines).reshape(b, lines)


def _extent(place: np.ndarray, image: np.ndarray, b: int) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.full(b, np.nan), np.full(b, np.nan)
    if len(image):
        starts = np.flatnonzero(np.diff(image, prepend=-1))  # the list is in the order of the maps
        low[image[starts]] = np.minimum.reduceat(place, starts)
        high[image[starts]] = np.maximum.reduceat(place, starts)
    return low, high


def _band_mean(chord: np.ndarray, centre: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Mean over a band whose ends fall between lines: each line counts by the share of its pixel in the band."""
    line = np.arange(chord.shape[1], dtype=np.float64)
    centre, half = centre[:, np.newaxis], half[:, np.newaxis]
    weight = np.minimum(centre + half, line + 0.5) - np.maximum(centre - half, line - 0.5)
    weight = np.maximum(weight, 0)  # NaN stays NaN
    with np.errstate(invalid="ignore"):
        return (chord * weight).sum(1) / weight.sum(1)
