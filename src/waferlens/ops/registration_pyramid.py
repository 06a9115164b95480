"""Halved images, and the points that are the same on all of them.

Each level of a pyramid is the one before smoothed by (1 3 3 1) / 8 along both axes, and every other pixel of it; means
of 2 x 2 pixels would alias more. A pixel of level k stands for 2^k x 2^k. The centre of the first pixel is (0, 0) on
every level, so a point x of the image lies at (x - c) / 2^k on level k, with c = (2^k - 1) / 2.

numba is imported with this file: import it where it is used, not at start-up.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64
from numba import njit

_FAST = {"reassoc", "contract", "arcp", "nsz"}

_CELL_PX = 16  # grid on which lively patches are looked for


class Pyramid:
    """The levels of an image as float32 about zero mean, each made when first asked for."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels
        self._mean = float(pixels[:: max(1, len(pixels) // 64)].mean(dtype=np.float64))
        self._levels: dict[int, np.ndarray] = {}
        self._smooth: dict[int, np.ndarray] = {}
        self._variance: dict[int, float] = {}

    def level(self, k: int) -> Float32[np.ndarray, "h w"]:
        """Pixels of 2^k x 2^k; a row or column that fills none is left out."""
        if k not in self._levels:
            finer, less = (self._pixels, self._mean) if k <= 1 else (self.level(k - 1), 0.0)
            if k == 0:
                made = np.subtract(finer, np.float32(less), dtype=np.float32)
            else:
                made = np.empty((finer.shape[0] // 2, finer.shape[1] // 2), np.float32)
                halve = _halve_bytes if finer.dtype == np.uint8 else _halve
                halve(finer, made, less)
            self._levels[k] = made
        return self._levels[k]

    def smooth(self, k: int) -> Float32[np.ndarray, "h w"]:
        """Level k after a binomial filter (1 2 1): differences of neighbours are then slopes."""
        if k not in self._smooth:
            level = self.level(k)
            self._smooth[k] = np.empty_like(level)
            _binomial(level, self._smooth[k])
        return self._smooth[k]

    def variance(self, k: int) -> float:
        """Of the smooth level, from some 64 of its rows [grey²]"""
        if k not in self._variance:
            some = self.smooth(k)
            some = some[:: max(1, len(some) // 64)].ravel()
            self._variance[k] = float(some @ some) / some.size - float(some.mean()) ** 2
        return self._variance[k]


class Weights:
    """How much the pixels count, on each level: 1 where a whole block counts, else 0."""

    def __init__(self, care: np.ndarray | None, shape: tuple[int, int]) -> None:
        self._shape = shape
        self._levels = {} if care is None else {0: care.astype(np.float32)}
        self._all = care is None

    def level(self, k: int) -> Float32[np.ndarray, "h w"]:
        """Weights of level k; shares of blocks where hardly any block counts as a whole."""
        share = self._share(k)
        if self._all:
            return share
        whole = (share > 0.999).astype(np.float32)
        return whole if whole.sum() > 0.25 * share.sum() else share

    def _share(self, k: int) -> np.ndarray:
        if k not in self._levels:
            shape = (self._shape[0] >> k, self._shape[1] >> k)
            if self._all:
                made = np.ones(shape, np.float32)
            else:
                h, w = shape
                made = cv2.resize(self._share(k - 1)[: 2 * h, : 2 * w], (w, h), interpolation=cv2.INTER_AREA)
            self._levels[k] = made
        return self._levels[k]


def onto_level(matrix: Float[np.ndarray, "2 3"], k: int) -> Float64[np.ndarray, "2 3"]:
    """A matrix of full-size points as one of points on level k."""
    size, c = float(1 << k), 0.5 * ((1 << k) - 1)
    out = np.array(matrix, np.float64)
    out[:, 2] = (out[:, :2].sum(axis=1) * c + out[:, 2] - c) / size
    return out


def from_level(matrix: Float[np.ndarray, "2 3"], k: int) -> Float64[np.ndarray, "2 3"]:
    """A matrix of points on level k as one of full-size points."""
    size, c = float(1 << k), 0.5 * ((1 << k) - 1)
    out = np.array(matrix, np.float64)
    out[:, 2] = size * out[:, 2] + c - out[:, :2].sum(axis=1) * c
    return out


def turn(angle_deg: float, shape: tuple[int, int], onto: tuple[int, int]) -> Float64[np.ndarray, "2 3"]:
    """Matrix of an image that is turned about its centre, which lies on the centre of the reference.

    Args:
        angle_deg: counter-clockwise as seen from above [deg]
        shape: of the image
        onto: shape of the reference
    """
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    xc, yc = 0.5 * (shape[1] - 1), 0.5 * (shape[0] - 1)
    xr, yr = 0.5 * (onto[1] - 1), 0.5 * (onto[0] - 1)
    return np.array([[c, -s, xr - c * xc + s * yc], [s, c, yr - s * xc - c * yc]])


def lively(
    image: Float32[np.ndarray, "h w"], weight: Float32[np.ndarray, "h w"], size: tuple[int, int]
) -> tuple[int, int]:
    """Corner (y, x) of the patch of a size that has the most slopes in it; no single edge counts for much."""
    h, w = image.shape
    cells = np.zeros((h // _CELL_PX, w // _CELL_PX))
    some = image[:: max(1, h // 32)]
    _steepness(image, weight, 3 * float(np.abs(np.diff(some, axis=1)).mean()), cells)
    rows, columns = (min(n, max(1, length // _CELL_PX)) for n, length in zip(cells.shape, size, strict=True))
    table = cv2.integral(cells)
    sums = table[rows:, columns:] - table[:-rows, columns:] - table[rows:, :-columns] + table[:-rows, :-columns]
    # of places that are nearly as lively the middle one: less of it can have left the reference
    y, x = np.ogrid[: sums.shape[0], : sums.shape[1]]
    off = np.hypot(y / max(sums.shape[0] - 1, 1) - 0.5, x / max(sums.shape[1] - 1, 1) - 0.5)
    row, column = np.unravel_index(int(np.argmax(sums * (1 - 0.5 * off))), sums.shape)
    return min(int(row) * _CELL_PX, h - size[0]), min(int(column) * _CELL_PX, w - size[1])


@njit(nogil=True, cache=True, fastmath=_FAST)
def _steepness(image, weight, most, cells):
    """Sum of the slopes in each cell, none of them counted beyond `most`."""
    zero, most = np.float32(0), np.float32(most)
    for row in range(cells.shape[0]):
        for y in range(max(1, row * _CELL_PX), min(image.shape[0] - 1, (row + 1) * _CELL_PX)):
            for column in range(cells.shape[1]):
                first, last = max(1, column * _CELL_PX), min(image.shape[1] - 1, (column + 1) * _CELL_PX)
                here, lower, counts = image[y, first : last + 1], image[y + 1, first:last], weight[y, first:last]
                total = zero
                for x in range(counts.size):
                    slope = abs(here[x + 1] - here[x]) + abs(lower[x] - here[x])
                    total += counts[x] * min(slope, most)
                cells[row, column] += total


@njit(nogil=True, cache=True, fastmath=_FAST)
def _halve(pixels, out, less):
    """Every other pixel after the filter (1 3 3 1) / 8 along both axes, less a number; the border is continued."""
    h, w = out.shape
    last = pixels.shape[0] - 1
    three, part, less = np.float32(3), np.float32(1 / 64), np.float32(less)
    sums = np.empty(2 * w + 2, np.float32)
    for y in range(h):
        a, b, c, d = pixels[max(2 * y - 1, 0)], pixels[2 * y], pixels[2 * y + 1], pixels[min(2 * y + 2, last)]
        for x in range(2 * w):
            sums[x + 1] = three * (np.float32(b[x]) + np.float32(c[x])) + (np.float32(a[x]) + np.float32(d[x]))
        sums[0], sums[2 * w + 1] = sums[1], sums[2 * w]
        means = out[y]
        for x in range(w):
            outer, inner = sums[2 * x] + sums[2 * x + 3], sums[2 * x + 1] + sums[2 * x + 2]
            means[x] = part * (three * inner + outer) - less


@njit(nogil=True, cache=True, fastmath=_FAST)
def _halve_bytes(pixels, out, less):
    """The same for uint8: sums of 16 bits, parted into even and odd columns, are a third faster."""
    h, w = out.shape
    last = pixels.shape[0] - 1
    three, part, less = np.float32(3), np.float32(1 / 64), np.float32(less)
    sums = np.empty(2 * w, np.uint16)
    even, odd = np.empty(w + 1, np.float32), np.empty(w + 1, np.float32)
    for y in range(h):
        a, b, c, d = pixels[max(2 * y - 1, 0)], pixels[2 * y], pixels[2 * y + 1], pixels[min(2 * y + 2, last)]
        for x in range(2 * w):
            sums[x] = 3 * (b[x] + c[x]) + (a[x] + d[x])
        for x in range(w):
            even[x], odd[x + 1] = np.float32(sums[2 * x]), np.float32(sums[2 * x + 1])
        odd[0], even[w] = even[0], odd[w]
        means = out[y]
        for x in range(w):
            means[x] = part * (three * (even[x] + odd[x + 1]) + (odd[x] + even[x + 1])) - less


@njit(nogil=True, cache=True, fastmath=_FAST)
def _binomial(pixels, out):
    """The filter (1 2 1) / 4 along both axes; the border is continued."""
    h, w = pixels.shape
    half, quarter = np.float32(0.5), np.float32(0.25)
    row = np.empty(w + 2, np.float32)
    for y in range(h):
        upper, here, lower = pixels[max(y - 1, 0)], pixels[y], pixels[min(y + 1, h - 1)]
        for x in range(w):
            row[x + 1] = half * here[x] + quarter * (upper[x] + lower[x])
        row[0], row[w + 1] = row[1], row[w]
        means = out[y]
        for x in range(w):
            means[x] = half * row[x + 1] + quarter * (row[x] + row[x + 2])
