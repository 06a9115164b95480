"""Averages over areas: an image on a coarser grid, each new pixel the mean of all it covers, at any phase.

The sums of a row up to each place are interpolated linearly, which is the exact integral of the image as steps. A tile
and the whole image therefore give the same pixels, wherever the tile begins.
"""

from __future__ import annotations

import numba
import numpy as np
from jaxtyping import Float32, Float64


def area_weights(count: int, edges: Float64[np.ndarray, " m"]) -> tuple[np.ndarray, np.ndarray]:
    """Place and fraction at which each edge cuts the running sums of `count` pixels.

    Args:
        count: Pixels.
        edges: Rising, in pixels from the outer edge of the first; what lies beyond the image counts as its end.
    """
    inside = np.clip(edges, 0.0, count)
    place = np.minimum(inside.astype(np.int64), count - 1)
    return place, inside - place


def area_mean(
    image: np.ndarray, row_edges: Float64[np.ndarray, " p"], column_edges: Float64[np.ndarray, " q"]
) -> Float32[np.ndarray, "h w"]:
    """Means over the rectangles between neighbouring edges.

    Args:
        image: `h w`, any number type.
        row_edges: Rising [px]
        column_edges: Rising [px]

    Returns:
        One row less than there are row edges, one column less than there are column edges; what covers no pixel takes
        the nearest.
    """
    rows = _along_rows(image, row_edges)
    return np.ascontiguousarray(_along_rows(rows.T, column_edges).T)


def _along_rows(image: np.ndarray, edges: Float64[np.ndarray, " m"]) -> Float32[np.ndarray, "n w"]:
    """Means of rows between neighbouring edges: sums over the whole ones, and the cut ones by their share."""
    count = len(image)
    place, share = area_weights(count, edges)
    first, last, start, stop = place[:-1], place[1:], share[:-1], share[1:]
    length = np.maximum((last + stop) - (first + start), 1e-9)
    # sums of the rows first + 1 .. last - 1; reduceat takes the odd intervals as well, and one row where there is none
    cuts = np.stack([np.minimum(first + 1, count - 1), np.minimum(last, count - 1)], axis=1).ravel()
    total = np.add.reduceat(image, cuts, axis=0, dtype=np.float32)[::2]
    total[last <= first + 1] = 0.0
    same = first == last
    head = np.where(same, stop - start, 1.0 - start)
    total += image[first] * head[:, np.newaxis].astype(np.float32)
    total += image[last] * np.where(same, 0.0, stop)[:, np.newaxis].astype(np.float32)
    total *= (1.0 / length)[:, np.newaxis].astype(np.float32)
    beyond = (last + stop) - (first + start) <= 1e-9
    total[beyond] = image[first[beyond]]
    return total


class AreaSums:
    """Means over the areas of a coarser grid of an image that comes part by part, in any order.

    Args:
        shape: Rows and columns of the image [px]
        ratio: Pixels of the image to one of the grid, 1 or more.
        first: Row and column of the image, fractions included, at which the grid begins; 0 is its outer edge [px]
        size: Rows and columns of the grid.

    Raises:
        ValueError: the grid is finer than the image.
    """

    def __init__(self, shape: tuple[int, int], ratio: float, first: tuple[float, float], size: tuple[int, int]) -> None:
        if ratio < 1:
            raise ValueError(f"the grid must not be finer than the image, got {ratio:g} pixels to one of it")
        self._shape = shape
        self._rows, self._columns = (
            _places(count, ratio, start, cells) for count, start, cells in zip(shape, first, size, strict=True)
        )
        # two more rows and columns on each side take what lies beyond the grid
        self._sums = np.zeros((size[0] + 4, size[1] + 4), np.float32)
        self._line = np.zeros(size[1] + 4, np.float32)

    def add(self, part: np.ndarray, row: int, column: int) -> None:
        """Adds a part whose first pixel is that of a row and column of the image; each pixel is added once."""
        part = part[: self._shape[0] - row, : self._shape[1] - column]
        h, w = part.shape
        rows, columns = slice(row, row + h), slice(column, column + w)
        if part.dtype.byteorder not in ("=", "|"):
            part = part.astype(part.dtype.newbyteorder("="))
        _add(
            self._sums,
            self._line,
            np.ascontiguousarray(part),
            self._rows[0][rows],
            self._rows[1][rows],
            self._columns[0][columns],
            self._columns[1][columns],
        )

    def mean(self) -> Float32[np.ndarray, "h w"]:
        """The grid; NaN where the image does not reach."""
        covered = [
            np.bincount(place, share, length) + np.bincount(place + 1, 1 - share, length)
            for (place, share), length in zip((self._rows, self._columns), self._sums.shape, strict=True)
        ]
        area = covered[0][2:-2, np.newaxis] * covered[1][2:-2]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(area > 1e-6, self._sums[2:-2, 2:-2] / area, np.nan).astype(np.float32)


def _places(count: int, ratio: float, start: float, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each pixel the cell its lower end lies in, counted from two before the grid, and its share in that cell."""
    low = (np.arange(count) - start) / ratio
    place = np.floor(low)
    share = np.minimum((place + 1 - low) * ratio, 1.0)
    # within rounding of a whole pixel: a pixel must not leave a billionth of itself in the next cell
    share[share > 1 - 1e-9] = 1.0
    place = np.clip(place + 2, 0, cells + 2)
    return place.astype(np.int64), share.astype(np.float32)


@numba.njit(cache=True, nogil=True)
def _add(
    sums: np.ndarray,
    line: np.ndarray,
    part: np.ndarray,
    rows: np.ndarray,
    row_shares: np.ndarray,
    columns: np.ndarray,
    column_shares: np.ndarray,
) -> None:
    low, high = columns[0], columns[-1] + 2
    for y in range(part.shape[0]):
        line[low:high] = 0
        for x in range(part.shape[1]):
            value = np.float32(part[y, x])
            own = value * column_shares[x]
            line[columns[x]] += own
            line[columns[x] + 1] += value - own
        row, share = rows[y], row_shares[y]
        for j in range(low, high):
            own = line[j] * share
            sums[row, j] += own
            sums[row + 1, j] += line[j] - own
