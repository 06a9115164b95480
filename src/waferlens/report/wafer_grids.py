"""The arrays of a map of the wafer station, read band by band: reduced for looking at, and held against the truth.

The map of a swath has 25 million points and lies in several files. A band of rows of each is held at a time, and of
each file a reduced copy; the part that is shown large and single rows are read anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from waferlens.errors import FormatError, InputError
from waferlens.formats.tiff_rows import TiffRows, open_rows
from waferlens.inspect.swath_files import HEIGHT, IMAGE, SIGMA
from waferlens.report import pictures

BAND_ROWS = 64
SAMPLED_ROWS = 24
"""Rows that tell the range of a map for the scale of its colours."""
ERROR_STEP_UM, ERROR_STEPS = 0.25, 4000
"""Bins in which errors are counted for their quantile; the last holds all beyond [um]"""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a map that is shown: rows and columns, and how many of them make one pixel of a picture."""

    row: int
    column: int
    rows: int
    columns: int
    by: int


@dataclass(frozen=True, slots=True)
class Against:
    """A map against its truth."""

    mae_um: float
    bias_um: float
    p95_um: float
    """Of the absolute error, to a bin of `ERROR_STEP_UM` [um]"""
    covered: float | None
    """Share of the points inside their interval; None where there is no sigma."""


class Grids:
    """The files of a map, opened side by side; what is not there or of another grid is None.

    Args:
        folder: of the map.
        truth: true heights on the same grid, if they are known.

    Raises:
        InputError: there is no height, or it cannot be read.
    """

    def __init__(self, folder: Path, truth: Path | None) -> None:
        self._stack = ExitStack()
        self.remarks: list[str] = []
        """Why something is not shown."""
        with ExitStack() as stack:
            self._stack = stack
            self.height: TiffRows = stack.enter_context(open_rows(folder / HEIGHT))
            self.image = self._beside(folder / IMAGE, "image")
            self.sigma = self._beside(folder / SIGMA, "sigma") if (folder / SIGMA).exists() else None
            self.truth = None if truth is None else self._beside(truth, "truth")
            self._stack = stack.pop_all()

    def __enter__(self) -> Grids:
        return self

    def __exit__(self, *ignored: object) -> None:
        self._stack.close()

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns [px]"""
        return self.height.shape

    def _beside(self, path: Path, name: str) -> TiffRows | None:
        try:
            opened = self._stack.enter_context(open_rows(path))
        except InputError as wrong:
            self.remarks.append(f"no {name}: {wrong.reason}")
            return None
        if opened.shape != self.shape:
            h, w = opened.shape
            self.remarks.append(f"no {name}: it is of another grid, {w} × {h} points")
            return None
        return opened


def whole(grid: TiffRows, by: int) -> Float32[np.ndarray, "p q"]:
    """A map reduced: means of blocks of `by` points a side."""
    h, w = grid.shape
    return reduced(grid, Part(0, 0, h, w, by))


def reduced(grid: TiffRows, part: Part) -> Float32[np.ndarray, "p q"]:
    """A part of a map, means over its blocks."""
    step = max(1, BAND_ROWS // part.by) * part.by
    made = []
    for row in range(0, part.rows, step):
        last = part.row + min(row + step, part.rows)
        band = grid.rows(part.row + row, last)[:, part.column : part.column + part.columns]
        made.append(pictures.block_means(band.astype(np.float32), part.by).astype(np.float32))
    return np.concatenate(made)


def line(grid: TiffRows, row: int, part: Part) -> Float32[np.ndarray, " n"]:
    """One row of a part, as it is."""
    return grid.rows(row, row + 1)[0, part.column : part.column + part.columns].astype(np.float32)


def samples(grid: TiffRows, less: TiffRows | None = None) -> Float32[np.ndarray, " n"]:
    """Known values of some rows, evenly spread; or by how much they exceed those of another map."""
    h = grid.shape[0]
    picked = np.unique(np.linspace(0, h - 1, min(h, SAMPLED_ROWS)).round().astype(int)).tolist()
    found = [grid.rows(row, row + 1)[0].astype(np.float32) for row in picked]
    if less is not None:
        found = [one - less.rows(row, row + 1)[0] for row, one in zip(picked, found, strict=True)]
    values = np.concatenate(found)
    return values[np.isfinite(values)]


def against_truth(grids: Grids, factor: float) -> Against | None:
    """How far a map lies from its truth; None where no point of it has one.

    Args:
        grids: of the map, with its truth.
        factor: half-width of the interval in sigma.

    Raises:
        FormatError: a file is damaged.
    """
    if grids.truth is None:
        return None
    points = inside = 0
    total = absolute = 0.0
    counts = np.zeros(ERROR_STEPS + 1, np.int64)
    for height, truth, sigma in _bands(grids):
        error = height - truth
        known = np.isfinite(error)
        error = error[known].astype(np.float64)
        away = np.abs(error)
        points += error.size
        total += float(error.sum())
        absolute += float(away.sum())
        places = np.minimum(away / ERROR_STEP_UM, ERROR_STEPS).astype(np.int64)
        counts += np.bincount(places, minlength=ERROR_STEPS + 1)
        if sigma is not None:
            inside += int(np.count_nonzero(away <= factor * sigma[known]))
    if not points:
        return None
    p95 = ERROR_STEP_UM * float(np.searchsorted(np.cumsum(counts), 0.95 * points) + 0.5)
    return Against(absolute / points, total / points, p95, None if grids.sigma is None else inside / points)


def _bands(grids: Grids) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    if grids.truth is None:
        raise FormatError(grids.height.path, "has no truth beside it")
    h = grids.shape[0]
    for row in range(0, h, BAND_ROWS):
        last = min(h, row + BAND_ROWS)
        sigma = None if grids.sigma is None else grids.sigma.rows(row, last)
        yield grids.height.rows(row, last), grids.truth.rows(row, last), sigma
