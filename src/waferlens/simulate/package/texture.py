"""Random fields: what surfaces look like between the drawn lines."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import scipy.fft
from jaxtyping import Float32

STEP = 4
"""Fields longer than a few pixels are made on a grid this much coarser."""


def smooth_field(
    rng: np.random.Generator, h: int, w: int, length_px: float, hurst: float = 0.5
) -> Float32[np.ndarray, "h w"]:
    """A Gaussian field of mean 0 and standard deviation 1 with a von Karman spectrum.

    Args:
        rng: Draws it.
        h: Rows [px]
        w: Columns [px]
        length_px: Correlation length [px]
        hurst: Exponent of its roughness, 0 .. 1.
    """
    rows, columns = (scipy.fft.next_fast_len(-(-side // STEP) + 4) for side in (h, w))
    shape = _transfer(rows, columns, length_px / STEP, hurst)
    noise = rng.standard_normal((rows, columns), np.float32)
    coarse = scipy.fft.irfft2(scipy.fft.rfft2(noise) * shape, s=(rows, columns))
    return cv2.resize(coarse[: -(-h // STEP) + 2], None, fx=STEP, fy=STEP, interpolation=cv2.INTER_CUBIC)[:h, :w]


def grain(rng: np.random.Generator, h: int, w: int) -> Float32[np.ndarray, "h w"]:
    """The finest grain a picture shows: mean 0, standard deviation 1, correlated over a pixel or two."""
    return cv2.GaussianBlur(rng.standard_normal((h, w), np.float32), (5, 5), 0.8) * np.float32(_GRAIN)


@lru_cache(maxsize=16)
def _transfer(rows: int, columns: int, length: float, hurst: float) -> Float32[np.ndarray, "h k"]:
    ky, kx = scipy.fft.fftfreq(rows)[:, np.newaxis], scipy.fft.fftfreq(columns)
    power = (1.0 + (2 * np.pi * length) ** 2 * (kx**2 + ky**2)) ** -(hurst + 1.0)
    power[0, 0] = 0.0
    # the discrete spectrum is normalised, so that the standard deviation is exactly 1 before interpolation
    return np.sqrt(power / power.mean())[:, : columns // 2 + 1].astype(np.float32)


_KERNEL = cv2.getGaussianKernel(5, 0.8)
_GRAIN = 1.0 / float((_KERNEL @ _KERNEL.T).__pow__(2).sum()) ** 0.5
