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

from waferlens.ops.registration_kernels import halve

_BINOMIAL = np.array([0.25, 0.5, 0.25], np.float32)
_LARGE_PIXELS = 2**20  # from here on halving has a kernel of its own
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
            if k == 0:
                made = np.subtract(self._pixels, np.float32(self._mean), dtype=np.float32)
            elif k == 1:  # from the pixels as they are, of which the smooth ones may never be needed
                made = _halved(self._pixels)
                made -= np.float32(self._mean)
            elif self.level(k - 1).size <= _LARGE_PIXELS:
                made = _paired(self.smooth(k - 1))  # which is mostly needed as well
            else:
                made = _halved(self.level(k - 1))
            self._levels[k] = made
        return self._levels[k]

    def smooth(self, k: int) -> Float32[np.ndarray, "h w"]:
        """Level k after a binomial filter (1 2 1): differences of neighbours are then slopes."""
        if k not in self._smooth:
            self._smooth[k] = _binomial(self.level(k))
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
        self._levels = {} if care is None else {0: care.astype(np.float32, order="C")}
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
    some = image[:: max(1, h // 32)]
    cells = _steepness(image, weight, 3 * float(np.abs(np.diff(some, axis=1)).mean()))
    rows, columns = (min(n, max(1, length // _CELL_PX)) for n, length in zip(cells.shape, size, strict=True))
    table = cv2.integral(cells)
    sums = table[rows:, columns:] - table[:-rows, columns:] - table[rows:, :-columns] + table[:-rows, :-columns]
    # of places that are nearly as lively the middle one: less of it can have left the reference
    y, x = np.ogrid[: sums.shape[0], : sums.shape[1]]
    off = np.hypot(y / max(sums.shape[0] - 1, 1) - 0.5, x / max(sums.shape[1] - 1, 1) - 0.5)
    row, column = np.unravel_index(int(np.argmax(sums * (1 - 0.5 * off))), sums.shape)
    return min(int(row) * _CELL_PX, h - size[0]), min(int(column) * _CELL_PX, w - size[1])


def _steepness(image: np.ndarray, weight: np.ndarray, most: float) -> np.ndarray:
    """Sum of the slopes in each cell, none of them counted beyond `most`; the image's outermost pixels have none."""
    rows, columns = image.shape[0] // _CELL_PX, image.shape[1] // _CELL_PX
    steep = np.zeros((rows * _CELL_PX, columns * _CELL_PX), np.float32)
    h, w = (min(cut, n - 1) for cut, n in zip(steep.shape, image.shape, strict=True))
    here, inner = image[1:h, 1:w], steep[1:h, 1:w]
    inner[:] = cv2.absdiff(image[1:h, 2 : w + 1], here)
    inner += cv2.absdiff(image[2 : h + 1, 1:w], here)
    np.minimum(inner, np.float32(most), out=inner)
    inner *= weight[1:h, 1:w]
    means = cv2.resize(steep, (columns, rows), interpolation=cv2.INTER_AREA)
    return means.astype(np.float64) * _CELL_PX**2


def _binomial(pixels: np.ndarray) -> np.ndarray:
    """The filter (1 2 1) / 4 along both axes, float32; the border is continued."""
    return cv2.sepFilter2D(pixels, cv2.CV_32F, _BINOMIAL, _BINOMIAL, borderType=cv2.BORDER_REPLICATE)


def _halved(pixels: np.ndarray) -> np.ndarray:
    """Every other pixel after the filter (1 3 3 1) / 8 along both axes, float32; the border is continued.

    Up to a megapixel OpenCV does it in less time than a kernel takes to compile for a hundred images.
    """
    if pixels.size <= _LARGE_PIXELS:
        return _paired(_binomial(pixels))
    out = np.empty((pixels.shape[0] // 2, pixels.shape[1] // 2), np.float32)
    halve(pixels, out)
    return out


def _paired(smooth: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels: after (1 2 1) / 4 that makes (1 3 3 1) / 8."""
    h, w = smooth.shape[0] // 2, smooth.shape[1] // 2
    return cv2.resize(smooth[: 2 * h, : 2 * w], (w, h), interpolation=cv2.INTER_AREA)
