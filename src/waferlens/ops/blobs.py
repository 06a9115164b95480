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
    Deviation,
    bands,
    greatest,
    opened_rows,
    plane,
    same_grid,
    side,
    whole,
    with_neighbours,
)

# Columns of the tables of pieces
_AREA, _X0, _Y0, _X1, _Y1, _SIGN = range(6)
_PEAK, _TOTAL, _DIFFERENCE = range(3)
_DONE, _ROW, _BEGUN = range(3)  # of the state: rows given that are done, last row of the map, pieces begun


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
    if image is not None and reference is not None:
        image, reference = plane("image", image, IMAGE_TYPES), plane("reference", reference, (np.float32,))
        same_grid("image", image, deviation)
        same_grid("reference", reference, deviation)
    pieces = _Pieces(deviation.shape, threshold, merge_px, min_area_px, image, reference, gain, offset)
    strongest = 0.0
    for top, bottom in bands(deviation.shape):
        pieces.take(top, deviation[top:bottom])
        strongest = max(strongest, greatest(deviation[top:bottom]))
    return pieces.found(strongest)


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
    made = Deviation(image, reference, light, dark, gain, offset, care)
    pieces = _Pieces(image.shape, threshold, merge_px, min_area_px, image, reference, gain, offset)
    h, w = image.shape
    strongest = 0.0
    for top, bottom in bands(image.shape, size):
        first, stop = with_neighbours(top, bottom, size, h)
        units: np.ndarray | None = np.empty((stop - first, w), np.float32)
        made.rows(first, units)
        if size == 1:
            most = greatest(units)
        else:
            units, most = opened_rows(units, first, top, bottom, h, size, limit=threshold)
        strongest = max(strongest, most)
        if units is not None and most > threshold:
            pieces.take(top, units)
    return pieces.found(strongest)


class _Pieces:
    """Pieces of a map that comes some rows at a time."""

    def __init__(
        self,
        shape: tuple[int, int],
        threshold: float,
        merge_px: int,
        min_area_px: int,
        image: np.ndarray | None,
        reference: np.ndarray | None,
        gain: float,
        offset: float,
    ) -> None:
        if not (math.isfinite(threshold) and threshold >= 0):
            raise UsageError(f"threshold must be 0 or a positive number, got {threshold}")
        # Beyond the larger side nothing changes any more, and the rows in memory stay few.
        merge = min(whole("merge_px", merge_px, 0), max(shape))
        self._least_area = whole("min_area_px", min_area_px, 1)
        self._threshold = np.float32(threshold)
        self._image, self._reference, self._light = image, reference, (np.float32(gain), np.float32(offset))
        w = shape[1]
        self._runs, self._numbers = (
            np.zeros((2, merge + 2, (w + 1) // 2, 3), np.int32),
            np.zeros((2, merge + 2), np.int64),
        )
        self._passed = np.zeros_like(self._numbers)
        self._tables = _tables(max(1024, w))
        self._state = np.array([0, -1, 0], np.int64)

    def take(self, top: int, units: np.ndarray) -> None:
        """Take rows of the map, of which the first is row `top`; rows between these and the last ones are empty."""
        # most rows hold nothing; one that holds what is no number has to be looked at
        some = np.flatnonzero(~((units.max(axis=1) <= self._threshold) & (units.min(axis=1) >= -self._threshold)))
        if some.size == 0:
            return
        h, w = len(units), units.shape[1]
        units = units[some]
        # A byte a pixel, eight to a word: 1 where it is light, 2 where it is dark. There is at least one mark more than
        # there are pixels: it ends the last run.
        marks = np.zeros((some.size, 8 * (w // 8 + 1)), np.uint8)
        np.less(units, -self._threshold, out=marks[:, :w].view(np.bool_))
        marks += marks
        marks[:, :w] |= (units > self._threshold).view(np.uint8)
        difference = units
        if self._image is not None and self._reference is not None:
            gain, offset = self._light
            difference = self._reference[top : top + h][some]
            difference *= gain
            difference += offset
            np.subtract(self._image[top : top + h][some], difference, out=difference)
        self._state[_DONE] = 0
        while True:
            _join(
                some + top, units, marks, marks.view(np.uint64), difference,
                self._runs, self._numbers, self._passed, *self._tables, self._state,
            )  # fmt: skip
            if self._state[_DONE] == some.size:
                return
            begun = self._state[_BEGUN]
            more = _tables(max(2 * len(self._tables[0]), begun + w))
            for table, old in zip(more, self._tables, strict=True):
                table[:begun] = old[:begun]
            self._tables = more

    def found(self, score: float) -> Blobs:
        """All pieces, once all rows have been taken."""
        parent, counts, sums = (table[: self._state[_BEGUN]] for table in self._tables)
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
            contrast=np.full(len(area), math.nan) if self._image is None else sums[:, _DIFFERENCE] / area,
            light=counts[:, _SIGN] == 0,
            score=score,
        )


def _tables(size: int) -> tuple[np.ndarray, ...]:
    """Of every piece begun so far its parent, its counts and its sums."""
    return np.empty(size, np.int32), np.empty((size, 6), np.int64), np.empty((size, 3), np.float64)


# --------------------------------------------------------------------------------------------------- the kernel
# What is known while rows go by: the runs of this row and of the merge + 1 rows before it, in a ring, of light (0) and
# dark (1) apart, each with its piece (first, last, piece); and the tables. It calls no other kernel, which would be
# compiled anew with it, and tests take the place of min and max, which are compiled for every pair of types.


@njit(nogil=True, cache=True)
def _join(rows, units, marks, words, difference, runs, number, passed, parent, counts, sums, state):
    """Give every run of some rows to the piece it is near, or begin one, until rows or tables are at their end.

    `passed`: how many runs, a row before, no later run of this row can be near.
    """
    ring, w = number.shape[1], units.shape[1]
    reach = ring - 1
    pieces = state[_BEGUN]
    for at in range(state[_DONE], len(rows)):
        if len(parent) < pieces + w:
            state[_BEGUN] = pieces
            return
        y = rows[at]
        for gone in range(state[_ROW] + 1 if state[_ROW] > y - ring else y - reach, y + 1):
            number[0, gone % ring] = number[1, gone % ring] = 0
        for before in range(ring):
            passed[0, before] = passed[1, before] = 0
        row = y % ring
        x = 0
        for word in range(words.shape[1]):
            if words[at, word] == 0:
                continue
            if x < 8 * word:
                x = 8 * word
            while x < 8 * word + 8:
                mark = marks[at, x]
                if mark == 0:
                    x += 1
                    continue
                start, peak, total, contrast = x, np.float32(0), 0.0, 0.0
                while marks[at, x] == mark:
                    strength = abs(units[at, x])
                    if strength > peak:
                        peak = strength
                    total += strength
                    contrast += difference[at, x]
                    x += 1
                sign = np.int64(mark) - 1
                piece = np.int64(-1)
                # Runs of one row and sign have a pixel between them: without merging they are never near.
                for before in range(0 if reach > 1 else 1, ring):
                    if before > y:
                        break
                    upper = (y - before) % ring
                    there, count = passed[sign, before], number[sign, upper]
                    while there < count and runs[sign, upper, there, 1] < start - reach:
                        there += 1
                    # The last one that is near may be near the next run too; those before it are then reached
                    # through it.
                    last = there
                    while there < count and runs[sign, upper, there, 0] < x + reach:
                        last = there
                        other = np.int64(runs[sign, upper, there, 2])
                        while parent[other] != other:
                            parent[other] = parent[parent[other]]
                            other = np.int64(parent[other])
                        there += 1
                        if piece < 0 or piece == other:
                            piece = other
                            continue
                        # one of two: the older takes the numbers of the younger
                        if other < piece:
                            piece, other = other, piece
                        parent[other] = piece
                        counts[piece, _AREA] += counts[other, _AREA]
                        for low in range(_X0, _X1):
                            if counts[other, low] < counts[piece, low]:
                                counts[piece, low] = counts[other, low]
                            if counts[other, low + 2] > counts[piece, low + 2]:
                                counts[piece, low + 2] = counts[other, low + 2]
                        if sums[other, _PEAK] > sums[piece, _PEAK]:
                            sums[piece, _PEAK] = sums[other, _PEAK]
                        sums[piece, _TOTAL] += sums[other, _TOTAL]
                        sums[piece, _DIFFERENCE] += sums[other, _DIFFERENCE]
                    passed[sign, before] = last
                if piece < 0:
                    piece = pieces
                    pieces += 1
                    parent[piece] = piece
                    counts[piece, _AREA], counts[piece, _SIGN] = 0, sign
                    counts[piece, _X0], counts[piece, _Y0], counts[piece, _X1] = start, y, start
                    sums[piece, _PEAK], sums[piece, _TOTAL], sums[piece, _DIFFERENCE] = 0, 0, 0
                counts[piece, _AREA] += x - start
                if start < counts[piece, _X0]:
                    counts[piece, _X0] = start
                if x - 1 > counts[piece, _X1]:
                    counts[piece, _X1] = x - 1
                counts[piece, _Y1] = y
                if peak > sums[piece, _PEAK]:
                    sums[piece, _PEAK] = peak
                sums[piece, _TOTAL] += total
                sums[piece, _DIFFERENCE] += contrast
                run = number[sign, row]
                runs[sign, row, run, 0], runs[sign, row, run, 1], runs[sign, row, run, 2] = start, x - 1, piece
                number[sign, row] += 1
        state[_ROW], state[_DONE] = y, at + 1
    state[_BEGUN] = pieces
