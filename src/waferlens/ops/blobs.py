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
from waferlens.ops.difference import (
    IMAGE_TYPES,
    Opening,
    all_over,
    as_float,
    grey_row,
    greys,
    plane,
    same_grid,
    side,
    strongest_bits,
    whole,
)

_BAND_PIXELS = 2**17  # of the deviation at a time: half a megabyte, which stays near the core
# Columns of the tables of pieces
_AREA, _X0, _Y0, _X1, _Y1, _SIGN = range(6)
_PEAK, _TOTAL, _DIFFERENCE = range(3)


@dataclass(frozen=True, slots=True, eq=False)
class Blobs:
    """Pieces of a deviation map, the strongest first; equally strong ones in reading order of their first pixels."""

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
    if (image is None) != (reference is None):
        raise UsageError("contrast needs both image and reference, or none of them")
    if image is None:
        image, reference = all_over(0, np.uint8)[:0], all_over(0, np.float32)[:0]
    else:
        image, reference = plane("image", image, IMAGE_TYPES), plane("reference", reference, (np.float32,))
        same_grid("image", image, deviation)
        same_grid("reference", reference, deviation)
    pieces = _Pieces(deviation.shape, threshold, merge_px, min_area_px, image, reference, gain, offset)
    pieces.take(deviation, np.ones(len(deviation), np.bool_))
    return pieces.found(pieces.strongest)


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
    image, reference = plane("image", image, IMAGE_TYPES), plane("reference", reference, (np.float32,))
    size = side("opening_px", opening_px, image)
    h, w = image.shape
    opening = Opening(image, reference, light, dark, gain, offset, care, size)
    pieces = _Pieces(image.shape, threshold, merge_px, min_area_px, image, reference, gain, offset)
    band = np.empty((min(h, max(1, _BAND_PIXELS // w)), w), np.float32)
    for top in range(0, h, len(band)):
        units = band[: h - top]
        pieces.take(units, opening.rows(units, threshold))
    return pieces.found(opening.score)


class _Pieces:
    """Pieces of a map that comes some rows at a time."""

    def __init__(
        self,
        shape: tuple[int, int],
        threshold: float,
        merge_px: int,
        min_area_px: int,
        image: np.ndarray,
        reference: np.ndarray,
        gain: float,
        offset: float,
    ) -> None:
        if not (math.isfinite(threshold) and threshold >= 0):
            raise UsageError(f"threshold must be 0 or a positive number, got {threshold}")
        # Beyond the larger side nothing changes any more, and the rows in memory stay few.
        merge = min(whole("merge_px", merge_px, 0), max(shape))
        self._least_area = whole("min_area_px", min_area_px, 1)
        self._threshold = np.float32(threshold)
        self._contrast = greys(image), reference, np.float32(gain), np.float32(offset)
        self._rows = _row_room(shape[1], merge)
        self._tables = _piece_room(1024)
        self._begun, self._next = 0, 0
        self.strongest = 0.0

    def take(self, units: np.ndarray, beyond: np.ndarray) -> None:
        """Take the next rows; those not beyond the threshold are not looked at."""
        units = plane("deviation", units, (np.float32,))
        self._tables, self._begun, strongest = _take(
            units, beyond, self._threshold, self._contrast, self._next, self._rows, self._tables, self._begun
        )
        self._next += len(units)
        self.strongest = max(self.strongest, as_float(strongest))

    def found(self, score: float) -> Blobs:
        """All pieces, once all rows have been taken."""
        parent, counts, sums = (table[: self._begun] for table in self._tables)
        # Whoever is not its own parent has been added to it.
        kept = np.flatnonzero((parent == np.arange(len(parent))) & (counts[:, _AREA] >= self._least_area))
        # They were begun in reading order, which a stable sort keeps among the equally strong.
        kept = kept[np.argsort(-sums[kept, _PEAK], kind="stable")]
        counts, sums = counts[kept], sums[kept]
        area = counts[:, _AREA]
        return Blobs(
            box=counts[:, _X0 : _Y1 + 1] + np.array([-0.5, -0.5, 0.5, 0.5]),
            area_px=area,
            peak=sums[:, _PEAK],
            total=sums[:, _TOTAL],
            contrast=sums[:, _DIFFERENCE] / area if self._contrast[1].size else np.full(len(area), math.nan),
            light=counts[:, _SIGN] == 0,
            score=score,
        )


def _row_room(w: int, merge: int) -> tuple[np.ndarray, ...]:
    """A row and its differences, its marks, runs (sign, row of the ring, run; first, last, piece), and how many.

    There is at least one mark more than there are pixels: it ends the last run.
    """
    runs, number = np.zeros((2, merge + 2, (w + 1) // 2, 3), np.int32), np.zeros((2, merge + 2), np.int64)
    return np.zeros(w, np.float32), np.zeros(w, np.float32), np.zeros(w // 8 + 1, np.uint64), runs, number


# --------------------------------------------------------------------------------------------------- the kernels
# What is known while rows go by: the runs of this row and of the merge + 1 rows before it, in a ring, of light (0) and
# dark (1) apart, each with its piece; and of every piece begun so far its parent, its counts and its sums.


@njit(nogil=True, cache=True)
def _piece_room(size):
    return np.empty(size, np.int32), np.empty((size, 6), np.int64), np.empty((size, 3), np.float64)


@njit(nogil=True, cache=True)
def _take(units, beyond, threshold, contrast, top, room, tables, pieces):
    """Take some rows, of which the first is row `top` of the map; the tables, and the bits of the strongest pixel."""
    images, reference, gain, offset = contrast
    row, difference, words, runs, number = room
    parent, counts, sums = tables
    w, ring = units.shape[1], number.shape[1]
    strongest = np.int32(0)
    for at in range(len(units)):
        y = top + at
        number[0, y % ring] = number[1, y % ring] = 0
        if not beyond[at]:
            continue
        for x in range(w):
            row[x] = units[at, x]
        strongest = max(strongest, strongest_bits(row))
        if not _mark(row, threshold, words):
            continue
        if reference.size:
            grey_row(images, y, difference)
            for x in range(w):
                difference[x] -= gain * reference[y, x] + offset
        if parent.size < pieces + w:
            parent, counts, sums = _more_room(parent, counts, sums, pieces, w)
        pieces = _take_row(y, row, difference, words, runs, number, parent, counts, sums, pieces)
    return (parent, counts, sums), pieces, strongest


@njit(nogil=True, cache=True)
def _more_room(parent, counts, sums, pieces, more):
    """The tables with twice their room, and room for at least so many more pieces."""
    parent_, counts_, sums_ = _piece_room(max(2 * parent.size, pieces + more))
    for piece in range(pieces):
        parent_[piece] = parent[piece]
        for column in range(6):
            counts_[piece, column] = counts[piece, column]
        for column in range(3):
            sums_[piece, column] = sums[piece, column]
    return parent_, counts_, sums_


@njit(nogil=True, cache=True)
def _mark(units, threshold, words):
    """A byte a pixel, eight to a word: 1 where it is light, 2 where it is dark; whether there is any."""
    marks = words.view(np.uint8)
    for x in range(units.size):
        marks[x] = (1 if units[x] > threshold else 0) + (2 if units[x] < -threshold else 0)
    some = np.uint64(0)
    for word in words:
        some |= word
    return some != 0


@njit(nogil=True, cache=True)
def _take_row(y, units, difference, words, runs, number, parent, counts, sums, pieces):
    """Give every run of a row to the piece it is near, or begin one; how many pieces have been begun."""
    marks = words.view(np.uint8)
    ring = number.shape[1]
    row = y % ring
    passed = np.zeros((2, ring), np.int64)  # how many runs, a row before, no later run of this row can be near
    x = 0
    for word in range(words.size):
        if words[word] == 0:
            continue
        x = max(x, 8 * word)
        while x < 8 * word + 8:
            mark = marks[x]
            if mark == 0:
                x += 1
                continue
            start, peak, total, contrast = x, np.float32(0), 0.0, 0.0
            while marks[x] == mark:
                strength = abs(units[x])
                peak = max(peak, strength)
                total += strength
                contrast += difference[x]
                x += 1
            sign = np.int64(mark) - 1
            piece = _near(y, sign, start, x - 1, runs, number, passed, parent, counts, sums)
            if piece < 0:
                piece = pieces
                pieces += 1
                parent[piece] = piece
                counts[piece, _AREA], counts[piece, _SIGN] = 0, sign
                counts[piece, _X0], counts[piece, _Y0], counts[piece, _X1] = start, y, start
                sums[piece, _PEAK], sums[piece, _TOTAL], sums[piece, _DIFFERENCE] = 0, 0, 0
            counts[piece, _AREA] += x - start
            counts[piece, _X0], counts[piece, _X1] = min(counts[piece, _X0], start), max(counts[piece, _X1], x - 1)
            counts[piece, _Y1] = y
            sums[piece, _PEAK] = max(sums[piece, _PEAK], peak)
            sums[piece, _TOTAL] += total
            sums[piece, _DIFFERENCE] += contrast
            run = number[sign, row]
            runs[sign, row, run, 0], runs[sign, row, run, 1], runs[sign, row, run, 2] = start, x - 1, piece
            number[sign, row] += 1
    return pieces


@njit(nogil=True, cache=True)
def _near(y, sign, start, stop, runs, number, passed, parent, counts, sums):
    """The piece that a run is near, made one of all that it is near; -1 where there is none."""
    ring = number.shape[1]
    reach = ring - 1
    piece = np.int64(-1)
    # Runs of one row and sign have a pixel between them: without merging they are never near.
    for before in range(0 if reach > 1 else 1, min(reach, y) + 1):
        row = (y - before) % ring
        there, count = passed[sign, before], number[sign, row]
        while there < count and runs[sign, row, there, 1] < start - reach:
            there += 1
        # The last one that is near may be near the next run too; those before it are then reached through it.
        last = there
        while there < count and runs[sign, row, there, 0] <= stop + reach:
            last = there
            other = np.int64(runs[sign, row, there, 2])
            while parent[other] != other:
                parent[other] = parent[parent[other]]
                other = np.int64(parent[other])
            piece = other if piece < 0 else _unite(piece, other, parent, counts, sums)
            there += 1
        passed[sign, before] = last
    return piece


@njit(nogil=True, cache=True)
def _unite(piece, other, parent, counts, sums):
    """Make one piece of two, which are their own parents: the older takes the numbers of the younger."""
    if piece == other:
        return piece
    piece, other = min(piece, other), max(piece, other)
    parent[other] = piece
    counts[piece, _AREA] += counts[other, _AREA]
    for low in (_X0, _Y0):
        counts[piece, low] = min(counts[piece, low], counts[other, low])
    for high in (_X1, _Y1):
        counts[piece, high] = max(counts[piece, high], counts[other, high])
    sums[piece, _PEAK] = max(sums[piece, _PEAK], sums[other, _PEAK])
    sums[piece, _TOTAL] += sums[other, _TOTAL]
    sums[piece, _DIFFERENCE] += sums[other, _DIFFERENCE]
    return piece
