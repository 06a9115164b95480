"""Find where to start a registration: halved images, and their correlation over all shifts and a fan of angles.

Level k of a pyramid is the image averaged over blocks of 2^k x 2^k pixels. The centre of the first pixel is (0, 0) on
every level, so a point x of the image lies at (x - c) / 2^k on level k, with c = (2^k - 1) / 2.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import scipy.fft
from jaxtyping import Float

_LEAST_OVERLAP = 0.25  # of the smaller image: what overlaps less is not looked at


class Pyramid:
    """The levels of an image, each made when first asked for."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._levels = {0: pixels}

    def level(self, k: int) -> Float[np.ndarray, "h w"]:
        """Level k as float32, blocks of 2^k pixels averaged; a row or column that fills no block is left out."""
        if k not in self._levels or self._levels[k].dtype != np.float32:
            self._levels[k] = self._make(k)
        return self._levels[k]

    def _make(self, k: int) -> np.ndarray:
        if k == 0:
            return self._levels[0].astype(np.float32)
        finer = self._levels[0] if k == 1 else self.level(k - 1)
        h, w = finer.shape[0] // 2, finer.shape[1] // 2
        finer = finer[: 2 * h, : 2 * w]
        if finer.dtype != np.float32:
            finer = finer.astype(np.float32)
        return cv2.resize(finer, (w, h), interpolation=cv2.INTER_AREA)


def onto_level(matrix: Float[np.ndarray, "2 3"], k: int) -> Float[np.ndarray, "2 3"]:
    """A matrix of full-size points as one of points on level k."""
    size, c = float(1 << k), 0.5 * ((1 << k) - 1)
    out = np.array(matrix, np.float64)
    out[:, 2] = (out[:, :2].sum(axis=1) * c + out[:, 2] - c) / size
    return out


def from_level(matrix: Float[np.ndarray, "2 3"], k: int) -> Float[np.ndarray, "2 3"]:
    """A matrix of points on level k as one of full-size points."""
    size, c = float(1 << k), 0.5 * ((1 << k) - 1)
    out = np.array(matrix, np.float64)
    out[:, 2] = size * out[:, 2] + c - out[:, :2].sum(axis=1) * c
    return out


def candidates(
    image: Float[np.ndarray, "h w"],
    reference: Float[np.ndarray, "hr wr"],
    weight: Float[np.ndarray, "h w"],
    *,
    angles: list[float],
    max_shift: float,
    most: int,
) -> list[tuple[float, Float[np.ndarray, "2 3"]]]:
    """The best starts among all shifts and the given angles, best first: correlation and matrix.

    Args:
        image: float32 [grey]
        reference: float32 [grey]
        weight: 1 where a pixel of the image takes part, else 0
        angles: turns of the image against the reference to try, counter-clockwise [deg]
        max_shift: how far the centre may be off, in x and in y [px]
        most: how many to give
    """
    (h, w), (hr, wr) = image.shape, reference.shape
    size = tuple(scipy.fft.next_fast_len(a + b - 1, real=True) for a, b in zip((h, w), (hr, wr), strict=True))
    template = _flattened(image) * weight
    turned, matrices = [], []
    flat = _flattened(reference)
    for angle in angles:
        matrix = turn(angle, (h, w), (hr, wr))
        matrices.append(matrix)
        if angle == 0:
            turned.append(flat)
            continue
        # about the centre of the reference, so that a shift is all that is left
        back = turn(angle, (hr, wr), (hr, wr))
        turned.append(cv2.warpAffine(flat, back, (wr, hr), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP))
    spectrum = scipy.fft.rfft2(np.stack(turned), size) * np.conj(scipy.fft.rfft2(template, size))
    surface = scipy.fft.irfft2(spectrum, size)

    # shifts d with reference = image + d, in the order of the transform: 0 .. wr-1, then -(w-1) .. -1
    dy, dx = (_shifts(size[i], (h, w)[i], (hr, wr)[i]) for i in range(2))
    y0, x0 = 0.5 * (hr - h), 0.5 * (wr - w)  # at this shift the centres agree
    energy = np.sqrt(_energy(template, dy, dx, (hr, wr), image=True) * _energy(flat, dy, dx, (h, w), image=False))
    rows = np.clip(np.minimum(h, hr - dy) - np.maximum(0, -dy), 0, None)
    columns = np.clip(np.minimum(w, wr - dx) - np.maximum(0, -dx), 0, None)
    seen = rows[:, None] * columns[None, :] >= _LEAST_OVERLAP * min(h, hr) * min(w, wr)
    reach = (np.abs(dy - y0) <= max_shift + 1)[:, None] & (np.abs(dx - x0) <= max_shift + 1)[None, :]
    good = seen & reach & (energy > 1e-6 * max(float(energy.max()), 1e-30))
    surface = np.where(good, surface / np.where(good, energy, 1), -1.0)

    out = []
    for _ in range(most):
        at = np.unravel_index(int(np.argmax(surface)), surface.shape)
        height = float(surface[at])
        if height <= 0:
            break
        turn_by, row, column = (int(i) for i in at)
        matrix = matrices[turn_by].copy()
        # the turned reference shows at p what the reference shows at back(p): M = back o shift
        angle = angles[turn_by]
        back = turn(angle, (hr, wr), (hr, wr))
        shift = np.array([[1, 0, dx[column]], [0, 1, dy[row]], [0, 0, 1]], np.float64)
        matrix = back @ shift
        out.append((height, matrix))
        # neighbours of a peak are the same peak
        for r in range(row - 2, row + 3):
            for c in range(column - 2, column + 3):
                surface[:, r % size[0], c % size[1]] = -1.0
    return out


def turn(angle: float, shape: tuple[int, int], onto: tuple[int, int]) -> Float[np.ndarray, "2 3"]:
    """Matrix of an image that is turned by `angle` about its centre, which lies on the centre of the other.

    Args:
        angle: counter-clockwise as seen from above [deg]
        shape: of the image
        onto: shape of the reference
    """
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    xc, yc = 0.5 * (shape[1] - 1), 0.5 * (shape[0] - 1)
    xr, yr = 0.5 * (onto[1] - 1), 0.5 * (onto[0] - 1)
    return np.array([[c, -s, xr - c * xc + s * yc], [s, c, yr - s * xc - c * yc]])


def _flattened(pixels: np.ndarray) -> np.ndarray:
    """Without its slow shading, which would draw the correlation to where bright lies on bright."""
    sigma = max(2.0, 0.125 * min(pixels.shape))
    return pixels - cv2.GaussianBlur(pixels, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)


def _shifts(size: int, n: int, m: int) -> np.ndarray:
    d = np.arange(size)
    d[d >= m] -= size
    d[d <= -n] = m  # room that was only added for the transform: no overlap
    return d


def _energy(pixels: np.ndarray, dy: np.ndarray, dx: np.ndarray, other: tuple[int, int], *, image: bool) -> np.ndarray:
    """Sum of squares over the part of one image that overlaps the other, for all shifts: from one integral image."""
    h, w = pixels.shape
    table = np.zeros((h + 1, w + 1))
    np.cumsum(np.cumsum(np.square(pixels, dtype=np.float64), axis=0), axis=1, out=table[1:, 1:])
    if image:
        top, bottom = np.clip(-dy, 0, h), np.clip(other[0] - dy, 0, h)
        left, right = np.clip(-dx, 0, w), np.clip(other[1] - dx, 0, w)
    else:
        top, bottom = np.clip(dy, 0, h), np.clip(other[0] + dy, 0, h)
        left, right = np.clip(dx, 0, w), np.clip(other[1] + dx, 0, w)
    corner = table[np.ix_(bottom, right)] - table[np.ix_(top, right)]
    return np.maximum(corner - table[np.ix_(bottom, left)] + table[np.ix_(top, left)], 0)
