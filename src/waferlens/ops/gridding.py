"""Samples at any place onto a grid: mean, number and highest of each cell, the same bits with any number of threads.

Each thread owns a band of rows and passes over all samples in their order. A cell therefore meets its samples in the
same order whoever owns it, nothing is locked, and no thread needs a grid of its own.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int32
from numba import njit


@dataclass(frozen=True, slots=True, eq=False)
class Gridded:
    """What fell into each cell."""

    mean: Float32[np.ndarray, "h w"]
    """NaN where no sample fell."""
    count: Int32[np.ndarray, "h w"]
    """Samples."""
    highest: Float32[np.ndarray, "h w"] | None
    """NaN where no sample fell; None if it was not asked for."""
    left_out: int
    """Samples beyond the grid, or without a finite value."""


def grid_samples(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    z: Float[np.ndarray, " n"],
    shape: tuple[int, int],
    pitch: float,
    *,
    origin: tuple[float, float] = (0.0, 0.0),
    highest: bool = False,
    threads: int = 1,
) -> Gridded:
    """Gathers samples in the cells of a grid.

    Sums are kept in double precision. Places are reckoned in the type of `x`: of single precision, a sample within a
    2,000th of a cell of its edge may count to the neighbour.

    Args:
        x: Places along the rows.
        y: Places across them, in the unit of `x`.
        z: Values.
        shape: Rows and columns of the grid.
        pitch: Side of a cell, in the unit of `x`.
        origin: x and y of the outer corner of the first cell.
        highest: Whether the highest of each cell is wanted as well.
        threads: The result does not depend on it.

    Raises:
        ValueError: the arrays are not of one length, or the grid has no cells.
    """
    if not len(x) == len(y) == len(z):
        raise ValueError(f"x, y and z have {len(x)}, {len(y)} and {len(z)} samples; they go together")
    h, w = shape
    if h < 1 or w < 1 or not pitch > 0:
        raise ValueError(f"a grid of {h} x {w} cells of {pitch}: it needs cells")
    if threads < 1:
        raise ValueError(f"threads={threads}: it needs one")
    number = np.result_type(x, y).type
    x0, y0, scale = number(origin[0]), number(origin[1]), number(1.0 / pitch)
    total, count, mean = np.zeros(shape), np.zeros(shape, np.int32), np.empty(shape, np.float32)
    top = np.full(shape, np.nan, np.float32) if highest else None

    def gather(part: int) -> int:
        first, last = h * part // threads, h * (part + 1) // threads
        met = _add(x, y, z, x0, y0, scale, first, last, total, count)
        _divide(total[first:last], count[first:last], mean[first:last])
        if top is not None:
            _lift(x, y, z, x0, y0, scale, first, last, top)
        return int(met)

    if threads == 1:
        met = gather(0)
    else:
        with ThreadPoolExecutor(threads) as pool:  # the kernels let go of the interpreter's lock
            met = sum(pool.map(gather, range(threads)))
    return Gridded(mean, count, top, len(x) - met)


@njit(nogil=True, cache=True)
def _add(x, y, z, x0, y0, scale, first, last, total, count):  # type: ignore[no-untyped-def]
    """Adds the samples of the rows `first` to `last`, and says how many they were."""
    # one comparison does for both ends: what is below, and NaN, becomes a huge number without a sign
    span, width = np.uint64(last - first), np.uint64(total.shape[1])
    sums, counts = total.ravel(), count.ravel()
    met = 0
    for i in range(len(z)):
        row = np.uint64(np.int64(np.floor((y[i] - y0) * scale)) - first)
        column = np.uint64(np.int64(np.floor((x[i] - x0) * scale)))
        value = z[i]
        if (row < span) & (column < width) & (value - value == 0):
            cell = (row + np.uint64(first)) * width + column
            sums[cell] += value
            counts[cell] += 1
            met += 1
    return met


@njit(nogil=True, cache=True, error_model="numpy")
def _divide(total, count, mean):  # type: ignore[no-untyped-def]
    """Sums to means; 0 / 0 is NaN."""
    sums, counts, means = total.ravel(), count.ravel(), mean.ravel()
    for i in range(len(sums)):
        means[i] = np.float32(sums[i]) / np.float32(counts[i])


@njit(nogil=True, cache=True)
def _lift(x, y, z, x0, y0, scale, first, last, top):  # type: ignore[no-untyped-def]
    """The highest sample of each cell, over the rows `first` to `last`."""
    span, width = np.uint64(last - first), np.uint64(top.shape[1])
    tops = top.ravel()
    for i in range(len(z)):
        row = np.uint64(np.int64(np.floor((y[i] - y0) * scale)) - first)
        column = np.uint64(np.int64(np.floor((x[i] - x0) * scale)))
        value = z[i]
        if (row < span) & (column < width) & (value - value == 0):
            cell = (row + np.uint64(first)) * width + column
            if not value <= tops[cell]:
                tops[cell] = value
