"""How findings are spread: their deviations, sizes and contrasts, where on the image they lie, and where they crowd.

Few findings are marks, many are counted in cells while they stream by: neither memory nor page grows with the lot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int
from markupsafe import Markup
from scipy.special import pdtrc

from waferlens.report import finding_charts, pictures
from waferlens.report.finding_queries import FindingResults, Kind, Piece
from waferlens.report.queries import Spread

MOST_MARKS = 2500
"""More findings, or images, than these are a density."""
LIGHT, DARK, INK = (200, 101, 61), (43, 122, 152), (90, 110, 128)
CELLS = 90
"""Cells along the longer side of the density of places."""
SPOT_CELLS = 24
"""Cells along the longer side in which crowding is looked for."""
MOST_SPOTS = 5
_LEAST_IMAGES = 4  # fewer are no crowd
_TIMES = 2.0  # as many as there is to expect
_CHANCE = 1e-3  # of any spot at all, were findings as likely in one place as in another
_SIZE_CELLS = (110, 72)
_LEAST_LEVEL = 0.02  # deviations below are as good as none
NEAR = 1.25
"""Images this near to the threshold by ratio are told as such."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A place where findings crowd."""

    box: finding_charts.Box
    """[px]"""
    images: int


@dataclass(frozen=True, slots=True)
class Levels:
    """The images' greatest deviations."""

    chart: Markup
    images: int
    near: int
    """Images within `NEAR` of the threshold, on either side."""
    below: int
    """Images left of the chart, which deviate nowhere to speak of."""


@dataclass(slots=True)
class Places:
    """The findings of a lot, drawn."""

    sizes: Markup | None
    map: Markup
    counted: bool
    """Whether the charts are densities."""
    without_contrast: int
    spots: list[Spot] = field(default_factory=list)


def read_levels(results: FindingResults, spread: Spread | None) -> Levels | None:
    """The distribution of the greatest deviations; None where no image was compared.

    Args:
        results: of the run.
        spread: of the measurand `deviation`.
    """
    if spread is None or not spread.measured or spread.least is None or spread.greatest is None:
        return None
    low = min(0.5, max(spread.least / 1.1, _LEAST_LEVEL))
    high = max(2.0, spread.greatest * 1.1)
    bars = 24 if spread.measured < 500 else 48
    edges = np.geomspace(low, high, bars + 1)
    by_verdict: dict[str, np.ndarray] = {}
    near = below = 0
    for verdict, values in results.by_verdict("deviation"):
        near += int(((values >= 1 / NEAR) & (values <= NEAR)).sum())
        below += int((values < low).sum())
        counts, _ = np.histogram(values, edges)
        by_verdict[verdict] = by_verdict.get(verdict, np.zeros(bars, np.int64)) + counts
    return Levels(finding_charts.deviations(edges, by_verdict), spread.measured, near, below)


def read_places(
    results: FindingResults, kinds: Sequence[Kind], size: tuple[int, int] | None, ground: str | None
) -> Places | None:
    """Sizes, contrasts and places of the findings; None where there are none.

    Args:
        results: of the run.
        kinds: what it found, by kind.
        size: width and height of an image of the lot, None where none is there any more [px]
        ground: a picture to lie beneath the map.
    """
    total = sum(kind.findings for kind in kinds)
    if not total:
        return None
    # images may differ in size: the map reaches as far as any finding does
    width = max([size[0] if size else 1, *(kind.right + 0.5 for kind in kinds)])
    height = max([size[1] if size else 1, *(kind.bottom + 0.5 for kind in kinds)])
    seen = _Seen(width, height, kinds, total > MOST_MARKS)
    for piece in results.pieces():
        seen.add(piece)
    spots = [_centred(results, box) for box in seen.spots()]
    sizes = None
    if seen.without_contrast < total:
        sizes = finding_charts.sizes(seen.area, seen.contrast, seen.marked(seen.size_marks), seen.size_pictures())
    picture = pictures.shaded(seen.density, INK) if seen.counted else None
    boxes = [spot.box for spot in spots]
    drawn = finding_charts.places(width, height, seen.marked(seen.place_marks), picture, ground, boxes)
    return Places(sizes, drawn, seen.counted, seen.without_contrast, spots)


def read_shifts(results: FindingResults, x: Spread | None, y: Spread | None) -> Markup | None:
    """How far the images lie from their references; None where none was registered.

    Args:
        results: of the run.
        x: the spread of `shift_x`.
        y: of `shift_y`.
    """
    if x is None or y is None or not (x.measured and y.measured):
        return None
    reach = 1.1 * max(abs(end) for one in (x, y) for end in (one.least, one.greatest) if end is not None) or 0.5
    counted = x.measured > MOST_MARKS
    cells = np.zeros((60, 60), np.int64)
    points: list[np.ndarray] = []
    for piece in results.pairs("shift_x", "shift_y"):
        if counted:
            # rows of a picture go down, as y does
            found, _, _ = np.histogram2d(piece[:, 1], piece[:, 0], 60, [[-reach, reach], [-reach, reach]])
            cells += found.astype(np.int64)
        else:
            points.append(piece)
    if counted:
        return finding_charts.shifts(reach, None, pictures.shaded(cells, DARK))
    return finding_charts.shifts(reach, np.concatenate(points), None)


def _centred(results: FindingResults, box: finding_charts.Box) -> Spot:
    """A box of cells moved onto the crowd, which cells may have cut."""
    half_x, half_y = (box[2] - box[0]) / 2, (box[3] - box[1]) / 2
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    for reach in (1.5, 1.0):
        _, mean_x, mean_y = results.inside(_around(x, y, reach * half_x, reach * half_y))
        x, y = x if mean_x is None else mean_x, y if mean_y is None else mean_y
    box = _around(x, y, half_x, half_y)
    return Spot(box, results.inside(box)[0])


def _around(x: float, y: float, half_x: float, half_y: float) -> finding_charts.Box:
    return x - half_x, y - half_y, x + half_x, y + half_y


class _Seen:
    """Adds up findings piece by piece."""

    def __init__(self, width: float, height: float, kinds: Sequence[Kind], counted: bool) -> None:
        self.width, self.height, self.counted = width, height, counted
        areas = [end for kind in kinds for end in kind.area]
        self.area = max(min(areas), 0.5) / 1.3, max(*areas, 1.0) * 1.3
        ends = [0.0, *(end for kind in kinds for end in kind.contrast if end is not None)]
        margin = 0.08 * (max(ends) - min(ends)) or 1.0
        self.contrast = min(ends) - margin, max(ends) + margin
        self.without_contrast = 0
        self.size_marks: dict[tuple[str, bool], list[np.ndarray]] = {}
        self.place_marks: dict[tuple[str, bool], list[np.ndarray]] = {}
        self.density = np.zeros(_cells(width, height, CELLS), np.int64)
        self._sizes = np.zeros((2, _SIZE_CELLS[1], _SIZE_CELLS[0]), np.int64)
        self._images = np.zeros(_cells(width, height, SPOT_CELLS), np.int64)
        self._last = -1, np.zeros(0, np.int64)

    def add(self, piece: Piece) -> None:
        known = np.isfinite(piece.contrast)
        self.without_contrast += int((~known).sum())
        if self.counted:
            np.add.at(self.density.ravel(), self._cell(piece, self.density.shape), 1)
            for sense in (False, True):
                of = known & (piece.light == sense)
                column = np.log(np.maximum(piece.area[of], self.area[0]) / self.area[0])
                column *= _SIZE_CELLS[0] / np.log(self.area[1] / self.area[0])
                row = (self.contrast[1] - piece.contrast[of]) / (self.contrast[1] - self.contrast[0]) * _SIZE_CELLS[1]
                place = _within(row, _SIZE_CELLS[1]), _within(column, _SIZE_CELLS[0])
                np.add.at(self._sizes[int(sense)], place, 1)
        else:
            for sense in (False, True):
                for critical in (False, True):
                    of = (piece.light == sense) & (piece.critical == critical)
                    key = ("light" if sense else "dark", critical)
                    self.place_marks.setdefault(key, []).append(np.stack([piece.x[of], piece.y[of]], 1))
                    of &= known
                    self.size_marks.setdefault(key, []).append(np.stack([piece.area[of], piece.contrast[of]], 1))
        self._count_images(piece)

    def marked(self, gathered: dict[tuple[str, bool], list[np.ndarray]]) -> finding_charts.Marks | None:
        """Tolerable findings first, so that critical ones lie on top."""
        if self.counted:
            return None
        return {key: np.concatenate(gathered[key]) for key in sorted(gathered, key=lambda key: key[1])}

    def size_pictures(self) -> list[str]:
        if not self.counted:
            return []
        return [
            pictures.shaded(cells, colour)
            for cells, colour in zip(self._sizes, (DARK, LIGHT), strict=True)
            if cells.any()
        ]

    def spots(self) -> list[finding_charts.Box]:
        """Boxes of neighbouring cells that more images have findings in than chance would bring there."""
        import cv2

        cells = self._images.size
        # where findings are dense over a wide area that is no spot: the cells around tell what to expect as well
        around = cv2.medianBlur(self._images.astype(np.float32), 5)
        expected = np.maximum(around, self._images.sum() / cells)
        unlikely = pdtrc(np.maximum(self._images - 1, 0), expected) * cells < _CHANCE
        crowded = (self._images >= _LEAST_IMAGES) & (self._images >= _TIMES * expected) & unlikely
        count, label, told, _ = cv2.connectedComponentsWithStats(crowded.astype(np.uint8), connectivity=8)
        rows, columns = self._images.shape
        wide, high = self.width / columns, self.height / rows
        boxes: list[tuple[int, finding_charts.Box]] = []
        for index, (left, top, w, h, _) in enumerate(told[1:count].tolist(), 1):
            box = left * wide - 0.5, top * high - 0.5, (left + w) * wide - 0.5, (top + h) * high - 0.5
            boxes.append((int(self._images[label == index].max()), box))
        return [box for _, box in sorted(boxes, reverse=True)[:MOST_SPOTS]]

    def _count_images(self, piece: Piece) -> None:
        """An image counts once in a cell, however many findings it has there, and however the pieces part it."""
        size = self._images.size
        cell = self._cell(piece, self._images.shape)
        pairs = np.unique(piece.item * size + cell)
        item, cell = pairs // size, pairs % size
        last, had = self._last
        fresh = (item != last) | ~np.isin(cell, had)
        np.add.at(self._images.ravel(), cell[fresh], 1)
        ending = int(item.max())
        cells = cell[item == ending]
        self._last = ending, np.concatenate([had, cells]) if ending == last else cells

    def _cell(self, piece: Piece, shape: tuple[int, int]) -> Int[np.ndarray, " n"]:
        row = _within((piece.y + 0.5) / self.height * shape[0], shape[0])
        return row * shape[1] + _within((piece.x + 0.5) / self.width * shape[1], shape[1])


def _within(place: Float[np.ndarray, " n"], cells: int) -> Int[np.ndarray, " n"]:
    return np.clip(place.astype(np.int64), 0, cells - 1)


def _cells(width: float, height: float, most: int) -> tuple[int, int]:
    """Rows and columns of square cells, so many along the longer side."""
    longest = max(width, height)
    return max(1, round(most * height / longest)), max(1, round(most * width / longest))
