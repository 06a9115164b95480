"""Indoor views on the grid of a depth network: one function each for colours and depths, in training and evaluation."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, UInt8


def colours_on_grid(
    rgb: UInt8[np.ndarray, "h w 3"], height_px: int, width_px: int, channels: int = 3
) -> UInt8[np.ndarray, "c p q"]:
    """A view scaled as a whole to the network's size, whatever its own sides are.

    Args:
        rgb: Red first.
        height_px: Rows [px]
        width_px: Columns [px]
        channels: 3, or 1 for the mean of the colours.
    """
    scaled = cv2.resize(rgb, (width_px, height_px), interpolation=cv2.INTER_AREA)
    if channels == 1:
        return np.rint(scaled.mean(axis=2, dtype=np.float32)).astype(np.uint8)[np.newaxis]
    return np.ascontiguousarray(np.moveaxis(scaled, 2, 0))


def depths_on_grid(depth_m: Float32[np.ndarray, "h w"], height_px: int, width_px: int) -> Float32[np.ndarray, "p q"]:
    """Depths at the network's pixels: picked, never averaged, for a mean with a pixel of depth 0 is no depth.

    Args:
        depth_m: 0 where not measured [m]
        height_px: Rows [px]
        width_px: Columns [px]
    """
    return cv2.resize(depth_m, (width_px, height_px), interpolation=cv2.INTER_NEAREST_EXACT)
