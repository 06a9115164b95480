"""What deviates together: connected pieces of a deviation map, with their numbers, in one pass.

`blobs` cuts a signed map at a threshold, light and dark apart; `find` makes the map too, from image and reference,
and keeps no more of it than a few rows. No label image is made: runs of pixels are united row by row, and a run's
numbers are added to its piece as soon as it is seen.

numba is imported with this file: import it where it is used, not at start-up.

Source: runs and union-find after L. He, Y. Chao, K. Suzuki, "A run-based two-scan labeling algorithm" (2008); union by
path halving after R. E. Tarjan, J. van Leeuwen, "Worst-case analysis of set union algorithms" (1984).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numba import njit

from waferlens.errors import UsageError
from waferlens.ops.difference import IMAGE_TYPES, deviation, opened, plane, same_grid, whole

# Columns of the tables of pieces
_AREA, _X0, _Y0, _X1, _Y1, _LIGHT = range(6)
_PEAK, _TOTAL, _DIFFERENCE = range(3)


@dataclass(frozen=True, slots=True, eq=False)
class Blobs:
    """Pieces of a deviation map, the strongest first; equally strong ones from top to bottom, left to right."""

    box: Float[np.ndarray, "n 4"]
    """x0 y0 x1 y1, the outer edges of its pixels [px]"""
    area_px: Int[np.ndarray, " n"]
    """Pixels beyond the threshold [px²]"""
    peak: Float[np.ndarray, " n"]
    """Greatest deviation, without its sign [tolerance]"""
    total: Float[np.ndarray, " n"]
    """Sum of the deviations, without their sign [tolerance · px²]"""
    contrast: Float[np.ndarray, " n"]
    """Mean of image minus reference over the piece, NaN where no image was given [grey]"""
    light: Bool[np.ndarray, " n"]
    """Whether the image is brighter there"""
    score: float
    """Greatest deviation of the whole map, without its sign, found or not [tolerance]"""

    def __len__(self) -> int:
        return len(self.peak)


def blobs(
    deviation: Float[np.ndarray, "h w"],
    threshold: float,
    *,
    merge_px: int = 0,
    min_area_px: int = 1,
    image: np.ndarray | None = None,
    reference: Float[np.ndarray, "h w"] | None = None,
    gain: float = 1.0,
    offset: float = 0.0,
) -> Blobs:
    """Connected pieces of deviation > threshold, and of deviation < -threshold.

    Pixels belong together if they are of one sign and at most merge_px pixels lie between them, along rows and along
    columns alike: 0 is the common neighbourhood of eight. Only pixels beyond the threshold count for the numbers of a
    piece, not those that merging bridges. Light and dark never join.

    Args:
        deviation: signed, float32; NaN is beyond no threshold
        threshold: 0 or positive [tolerance]
        merge_px: how many pixels may lie between what belongs together [px]
        min_area_px: pieces of fewer pixels are left out, after merging [px²]
        image: with the reference, for the contrast: `h w`, uint8, uint16 or float32 [grey]
        reference: on the grid of the image [grey]
        gain: contrast of the image over that of the reference [1]
        offset: what is added to the reference [grey]

    Raises:
        UsageError: threshold, merge_px or min_area_px is out of range; shapes differ or a type is not known; image
            without reference or the other way round.
    """
    deviation = plane("deviation", deviation, (np.float32,))
    threshold, merge, least = _limits(threshold, merge_px, min_area_px, deviation.shape)
    if (image is None) != (reference is None):
        raise UsageError("contrast needs both image and reference, or none of them")
    if image is None:
        image = np.zeros((0, 0), np.uint8)
        reference = np.zeros((0, 0), np.float32)
        image.flags.writeable = reference.flags.writeable = False
    else:
        image, reference = plane("image", image, IMAGE_TYPES), plane("reference", reference, (np.float32,))
        same_grid("image", image, deviation)
        same_grid("reference", reference, deviation)
    found = _blobs(deviation, threshold, merge, image, reference, np.float32(gain), np.float32(offset))
    return _sorted(*found, least, contrast=image.size > 0)


def find(
    image: np.ndarray,
    reference: Float[np.ndarray, "h w"],
    light: float | Float[np.ndarray, "h w"],
    dark: float | Float[np.ndarray, "h w"],
    threshold: float,
    *,
    gain: float = 1.0,
    offset: float = 0.0,
    care: np.ndarray | None = None,
    opening_px: int = 1,
    merge_px: int = 0,
    min_area_px: int = 1,
) -> Blobs:
    """Where the image differs from its reference: `blobs` of what `opened` leaves of the `deviation`, at one go.

    Peak, total and score are those of the opened deviation: a piece is found at any threshold below its peak, and
    nothing at a threshold of score or more.

    Args:
        image: `h w`, uint8, uint16 or float32 [grey]
        reference: on the grid of the image, finite [grey]
        light: how much brighter is tolerated, positive; one number or a map [grey]
        dark: how much darker is tolerated, positive; one number or a map [grey]
        threshold: 0 or positive [tolerance]
        gain: contrast of the image over that of the reference [1]
        offset: what is added to the reference [grey]
        care: `h w`, bool or uint8: where it is 0, nothing deviates; everywhere else where it is None.
        opening_px: side of the square that has to deviate; 1 takes single pixels [px]
        merge_px: how many pixels may lie between what belongs together [px]
        min_area_px: pieces of fewer pixels are left out, after merging [px²]

    Raises:
        UsageError: as for the parts.
    """
    opening_px = whole("opening_px", opening_px, 1)
    units = opened(deviation(image, reference, light, dark, gain=gain, offset=offset, care=care), opening_px)
    return blobs(
        units,
        threshold,
        merge_px=merge_px,
        min_area_px=min_area_px,
        image=image,
        reference=reference,
        gain=gain,
        offset=offset,
    )


def _limits(threshold: float, merge_px: int, min_area_px: int, shape: tuple[int, int]) -> tuple[np.float32, int, int]:
    if not (math.isfinite(threshold) and threshold >= 0):
        raise UsageError(f"threshold must be 0 or a positive number, got {threshold}")
    # Beyond the larger side nothing changes any more, and the rows in memory stay few.
    merge = min(whole("merge_px", merge_px, 0), max(shape))
    return np.float32(threshold), merge, whole("min_area_px", min_area_px, 1)


def _sorted(counts: np.ndarray, sums: np.ndarray, score: float, least: int, *, contrast: bool) -> Blobs:
    large = counts[:, _AREA] >= least
    counts, sums = counts[large], sums[large]
    order = np.lexsort((counts[:, _X0], counts[:, _Y0], -sums[:, _PEAK]))
    counts, sums = counts[order], sums[order]
    area = counts[:, _AREA]
    return Blobs(
        box=counts[:, _X0 : _Y1 + 1] + np.array([-0.5, -0.5, 0.5, 0.5]),
        area_px=area,
        peak=sums[:, _PEAK],
        total=sums[:, _TOTAL],
        contrast=sums[:, _DIFFERENCE] / area if contrast else np.full(len(area), math.nan),
        light=counts[:, _LIGHT] == 1,
        score=float(score),
    )


# --------------------------------------------------------------------------------------------------- the kernels
# What is known while rows go by, of either sign (index 0 dark, 1 light): the runs of this row and of the merge + 1 rows
# before it, in a ring; and of every piece begun so far its parent, its counts and its sums.


@njit(nogil=True, cache=True)
def _blobs(deviation, threshold, merge, image, reference, gain, offset):
    h, w = deviation.shape
    first, last, piece, number = _ring(w, merge)
    parent, counts, sums = _tables()
    pieces = 0
    strongest = np.zeros(w, np.float32)
    difference = np.zeros(w, np.float32)
    for y in range(h):
        units = deviation[y]
        if _row_beyond(units, threshold, strongest):
            if image.size:
                _difference_row(image[y], reference[y], gain, offset, difference)
            if pieces + w + 1 > parent.size:
                parent, counts, sums = _larger(parent, counts, sums, pieces, w)
            for light in range(2):
                ring, tables = (first, last, piece, number), (parent, counts, sums)
                pieces = _runs(units, difference, threshold, light, y, *ring, *tables, pieces)
                _unite_row(y, merge, light, *ring, *tables)
        else:
            number[:, y % number.shape[1]] = 0
    roots = np.flatnonzero(parent[:pieces] == np.arange(pieces))
    return counts[roots], sums[roots], strongest.max()


@njit(nogil=True, cache=True)
def _ring(w, merge):
    """Room for the runs of merge + 2 rows: first and last column, piece; and how many there are in each."""
    room = (2, merge + 2, (w + 1) // 2)
    return np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.int32), np.zeros(room[:2], np.int32)


@njit(nogil=True, cache=True)
def _tables():
    return np.empty(1024, np.int32), np.empty((1024, 6), np.int64), np.empty((1024, 3), np.float64)


@njit(nogil=True, cache=True)
def _larger(parent, counts, sums, pieces, more):
    """The tables with twice their room, and room for at least so many more pieces."""
    size = max(2 * parent.size, pieces + more + 1)
    parent_, counts_, sums_ = np.empty(size, np.int32), np.empty((size, 6), np.int64), np.empty((size, 3), np.float64)
    parent_[:pieces], counts_[:pieces], sums_[:pieces] = parent[:pieces], counts[:pieces], sums[:pieces]
    return parent_, counts_, sums_


@njit(nogil=True, cache=True)
def _row_beyond(deviation, threshold, strongest):
    """Whether any pixel of a row is beyond the threshold; and the strongest of each column so far."""
    beyond = 0
    for x in range(deviation.size):
        strength = abs(deviation[x])
        beyond |= strength > threshold
        strongest[x] = strength if strength > strongest[x] else strongest[x]
    return beyond != 0


@njit(nogil=True, cache=True, error_model="numpy")
def _difference_row(image, reference, gain, offset, difference):
    for x in range(difference.size):
        difference[x] = np.float32(image[x]) - (gain * reference[x] + offset)


@njit(nogil=True, cache=True)
def _runs(deviation, difference, threshold, light, y, first, last, piece, number, parent, counts, sums, pieces):
    """The runs of one sign in one row, each a piece of its own with its numbers; how many pieces there are now."""
    w = deviation.size
    sign = np.float32(1 if light else -1)
    row = y % number.shape[1]
    runs = 0
    x = 0
    while x < w:
        if not sign * deviation[x] > threshold:
            x += 1
            continue
        start = x
        peak = np.float32(0)
        total, contrast = 0.0, 0.0
        while x < w and sign * deviation[x] > threshold:
            strength = sign * deviation[x]
            peak = strength if strength > peak else peak
            total += strength
            contrast += difference[x]
            x += 1
        first[light, row, runs], last[light, row, runs], piece[light, row, runs] = start, x - 1, pieces
        runs += 1
        parent[pieces] = pieces
        counts[pieces, _AREA] = x - start
        counts[pieces, _X0], counts[pieces, _X1] = start, x - 1
        counts[pieces, _Y0], counts[pieces, _Y1] = y, y
        counts[pieces, _LIGHT] = light
        sums[pieces, _PEAK], sums[pieces, _TOTAL], sums[pieces, _DIFFERENCE] = peak, total, contrast
        pieces += 1
    number[light, row] = runs
    return pieces


@njit(nogil=True, cache=True)
def _unite_row(y, merge, light, first, last, piece, number, parent, counts, sums):
    """Unite the runs of row y that are near one another, or near runs of the merge + 1 rows before it."""
    rows = number.shape[1]
    row = y % rows
    runs = number[light, row]
    reach = merge + 1
    for run in range(1, runs):
        if first[light, row, run] - last[light, row, run - 1] <= reach:
            _unite(piece[light, row, run - 1], piece[light, row, run], parent, counts, sums)
    for before in range(1, min(reach, y) + 1):
        above = (y - before) % rows
        there = 0
        for run in range(runs):
            low, high = first[light, row, run] - reach, last[light, row, run] + reach
            while there < number[light, above] and last[light, above, there] < low:
                there += 1
            # The last one that touches may touch the next run too; the ones before it are then united through it.
            while there < number[light, above] and first[light, above, there] <= high:
                _unite(piece[light, above, there], piece[light, row, run], parent, counts, sums)
                there += 1
            there = max(there - 1, 0)


@njit(nogil=True, cache=True)
def _root(one, parent):
    while parent[one] != one:
        parent[one] = parent[parent[one]]
        one = parent[one]
    return one


@njit(nogil=True, cache=True)
def _unite(one, other, parent, counts, sums):
    """Make one piece of two: the older one takes the numbers of the younger."""
    one, other = _root(one, parent), _root(other, parent)
    if one == other:
        return
    if other < one:
        one, other = other, one
    parent[other] = one
    counts[one, _AREA] += counts[other, _AREA]
    for low in (_X0, _Y0):
        counts[one, low] = min(counts[one, low], counts[other, low])
    for high in (_X1, _Y1):
        counts[one, high] = max(counts[one, high], counts[other, high])
    sums[one, _PEAK] = max(sums[one, _PEAK], sums[other, _PEAK])
    sums[one, _TOTAL] += sums[other, _TOTAL]
    sums[one, _DIFFERENCE] += sums[other, _DIFFERENCE]
