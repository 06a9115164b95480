"""Gain and offset between an image and its registered reference, whatever defects the image has."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

_SAMPLES = 16_384  # pixels looked at: the error of the gain is then below a hundredth of the noise over the contrast
_ROUNDS = 12  # of trimming at most
_TRIM = 2.5  # residuals beyond this many robust standard deviations are left out
_MAD = 1.4826  # standard deviation of a normal distribution over its median absolute deviation


def gain_offset(
    image: np.ndarray, warped_reference: Float[np.ndarray, "h w"], seen: Bool[np.ndarray, "h w"]
) -> tuple[float, float]:
    """Gain and offset with image = gain * reference + offset, by least trimmed residuals.

    Args:
        image: any grey type [grey]
        warped_reference: the reference on the image's grid [grey]
        seen: pixels that count

    Returns:
        The gain [1] and the offset [grey]. A constant reference gives the gain 1 and the difference of the medians;
        where no pixel counts it is 1 and 0.
    """
    y, x = _sample(image, warped_reference, seen)
    if y.size == 0:
        return 1.0, 0.0
    middle_x, middle_y = float(np.median(x)), float(np.median(y))
    shift_only = 1.0, middle_y - middle_x
    x, y = x - middle_x, y - middle_y
    spread = float(np.abs(x).max())
    if not spread > 1e-6 * max(abs(middle_x), 1e-30):
        return shift_only
    gain, offset = _start(x, y)
    kept = np.zeros(0, bool)
    for _ in range(_ROUNDS):
        rest = y - gain * x - offset
        size = np.abs(rest)
        limit = max(_TRIM * _MAD * float(np.median(size)), 1e-6 * float(np.abs(y).max()))
        now = size <= limit
        if np.array_equal(now, kept):
            break
        kept = now
        xs, ys = x[kept], y[kept]
        mean_x, mean_y = xs.mean(), ys.mean()
        variance = float(np.square(xs - mean_x).sum())
        if not variance > 1e-9 * spread * spread:
            break
        gain = float(((xs - mean_x) * (ys - mean_y)).sum()) / variance
        offset = float(mean_y - gain * mean_x)
    return gain, offset + middle_y - gain * middle_x


def _start(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """A first line through medians: of the lowest and of the highest third of the reference."""
    order = np.argsort(x, kind="stable")
    third = max(1, x.size // 3)
    low, high = order[:third], order[-third:]
    x0, x1 = np.median(x[low]), np.median(x[high])
    if x1 <= x0:
        x0, x1 = x[low].mean(), x[high].mean()
    if x1 <= x0:
        return 1.0, 0.0
    y0, y1 = np.median(y[low]), np.median(y[high])
    gain = float((y1 - y0) / (x1 - x0))
    return gain, float(y0 - gain * x0)


def _sample(image: np.ndarray, reference: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Some 16,384 pairs of pixels on a regular grid, float64."""
    step = max(1, int((image.size / _SAMPLES) ** 0.5))
    part = np.s_[step // 2 :: step, step // 2 :: step]
    counted = seen[part]
    y, x = image[part][counted].astype(np.float64), reference[part][counted].astype(np.float64)
    if y.size < _SAMPLES // 16:  # little is seen: look at all of it
        y, x = image[seen].astype(np.float64), reference[seen].astype(np.float64)
    known = np.isfinite(x) & np.isfinite(y)
    return y[known], x[known]
