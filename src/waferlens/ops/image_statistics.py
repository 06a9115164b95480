"""A few numbers that say how an image was taken, for many images at once.

They are compared with those of the images a bundle was calibrated on: an image that differs in brightness, contrast,
sharpness or noise is outside what the bundle knows, whatever its depth map looks like.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

PERCENTILES = (5, 25, 50, 75, 95)
STATISTICS = (
    "mean",
    "sd",
    *(f"p{percent}" for percent in PERCENTILES),
    "mean_abs_dx",
    "mean_abs_dy",
    "lag1",
)
"""Names of the columns of `image_statistics`."""

_TILE = 32  # images handled at a time: what fits into a core's own cache
_STEPS = 257  # steps a grey value is sorted by: 0..255 grey fill 16 bits, and grey of 8 and 16 bits stays exact


def image_statistics(images: Float[np.ndarray, "b h w"]) -> Float[np.ndarray, "b k"]:
    """The columns `STATISTICS` of every image.

    Args:
        images: as the network sees them, 0..255 [grey]

    Returns:
        Mean, standard deviation, percentiles (linear between sorted pixels; float grey is rounded to 1/257 for them),
        mean absolute difference of neighbours along x and along y [grey], and the correlation of neighbours along x,
        1 for an image without contrast [1]
    """
    out = np.empty((len(images), len(STATISTICS)))
    for at in range(0, len(images), _TILE):
        _fill(out[at : at + _TILE], np.asarray(images[at : at + _TILE], np.float32))
    return out


def _fill(out: np.ndarray, images: np.ndarray) -> None:
    b, h, w = images.shape
    n = h * w
    mean = images.mean((1, 2), dtype=np.float64)
    centred = images - mean.astype(np.float32)[:, np.newaxis, np.newaxis]
    variance = np.einsum("bhw,bhw->b", centred, centred) / n
    out[:, 0], out[:, 1] = mean, np.sqrt(variance)

    # whole numbers of 16 bits are sorted by radix, four times as fast as floats
    steps = np.clip(np.rint(images.reshape(b, n) * _STEPS), 0, 65535).astype(np.uint16)
    grey = np.sort(steps, axis=1, kind="stable")
    for column, percent in enumerate(PERCENTILES, start=2):
        place = percent / 100 * (n - 1)
        low = int(place)
        lower, upper = grey[:, low] / _STEPS, grey[:, min(low + 1, n - 1)] / _STEPS
        out[:, column] = lower + (place - low) * (upper - lower)

    # differences in one buffer: allocating anew costs more than subtracting
    step = np.empty((b, h, w), np.float32)
    along_x = np.subtract(images[:, :, 1:], images[:, :, :-1], out=step[:, :, 1:])
    out[:, 7] = np.abs(along_x, out=along_x).mean((1, 2))
    along_y = np.subtract(images[:, 1:], images[:, :-1], out=step[:, 1:])
    out[:, 8] = np.abs(along_y, out=along_y).mean((1, 2))
    together = np.einsum("bhw,bhw->b", centred[:, :, 1:], centred[:, :, :-1]) / (h * (w - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        out[:, 9] = np.where(variance > 0, together / variance, 1.0)
