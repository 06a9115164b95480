"""Whether two images are the same picture: as a smaller file, brighter, blurred, mirrored or turned by quarters.

A binary perceptual hash tells pictures of different things apart. Devices of one product are not different things:
their hashes are equal. So here the picture itself is compared, small and without its slow changes: 64 x 64 means of its
areas, less their blur, of length 1. The product of two of them is their correlation.

Measured on 48 simulated devices of both domains in three lights: no two different ones of one light correlate by more
than 0.928. Their copies correlate by 0.992 and more as JPEG of quality 50, at 0.7 or 1.15 of the brightness with noise
of 4 grey values, at 0.6 of the size, blurred by 2 px, mirrored or turned by quarters. A copy that is shifted by one
hundredth of its width or turned by 2 degrees correlates by 0.73 to 0.88, one of which 2 % are cut off at each side by
0.54 to 0.76: those are not told from another device.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Float32

SIDE = 64
"""Rows and columns of a fingerprint"""
ALIKE = 0.96
"""From this correlation on two images are the same picture: midway between those of devices and of copies"""
_BLUR = 3.0
_FLAT = 1e-3


def fingerprint(grey: Float[np.ndarray, "h w"]) -> Float32[np.ndarray, " d"]:
    """What is compared of an image; zeros where it is flat, which is like nothing.

    Args:
        grey: of any size and brightness [grey]
    """
    small = cv2.resize(np.asarray(grey, np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    detail = small - cv2.GaussianBlur(small, (0, 0), _BLUR)
    detail -= detail.mean()
    length = float(np.sqrt(np.sum(detail * detail)))
    if length <= _FLAT * SIDE * max(1.0, float(np.abs(small).max())):
        return np.zeros(SIDE * SIDE, np.float32)
    return (detail / length).ravel()


def alike(
    one: Float32[np.ndarray, "n d"], other: Float32[np.ndarray, "m d"], least: float = ALIKE
) -> list[tuple[int, int, float]]:
    """The pairs that are the same picture, mirrored and turned by quarters as well.

    Args:
        one: fingerprints.
        other: fingerprints.
        least: correlation from which on two are alike.

    Returns:
        Index in `one`, index in `other`, and their correlation, the highest first.
    """
    best = np.full((len(one), len(other)), -1.0, np.float32)
    turned = other.reshape(-1, SIDE, SIDE)
    for mirrored in (turned, turned[:, :, ::-1]):
        for quarters in range(4):
            seen = np.rot90(mirrored, quarters, axes=(1, 2)).reshape(len(other), -1)
            np.maximum(best, one @ seen.T, out=best)
    rows, columns = np.nonzero(best >= least)
    pairs = [(int(row), int(column), float(best[row, column])) for row, column in zip(rows, columns, strict=True)]
    return sorted(pairs, key=lambda pair: -pair[2])
