"""The wavelet method (R2): what is kept of a good part, and how far an image exceeds it.

numba comes with `ops.wavelet`, which is therefore loaded only when a recipe asks for this method.

Source: S2, 2.3.1.2, after Yeh, Wu, Ji, Huang (2010).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32

from waferlens.ops.registration import Registration, warped
from waferlens.recipe.golden import Wavelet

SENSE_PX = 5
"""Side of the square over which it is decided whether a place is lighter or darker than the good part: the modulus has
no sign of its own [px]"""
LEAST_SD = 1e-3
"""Least standard deviation of a population, as a share of the reference's range; a part without noise has none."""


@dataclass(frozen=True, slots=True, eq=False)
class GoldenWavelet:
    """What the method keeps of good parts, on the reference's grid."""

    mean: Float[np.ndarray, "n j"]
    """Mean of the modulus in every sub-image, at every scale [grey]"""
    sd: Float[np.ndarray, "n j"]
    """Its standard deviation [grey]"""
    known: Float32[np.ndarray, "k h w"]
    """The modulus that good parts have near each pixel, at every scale but the coarsest: the median over the parts of
    the strongest within reach; the strongest of many parts would hide nearly everything [grey]"""


def learned(method: Wavelet, images: Iterable[Float32[np.ndarray, "h w"]], range_grey: float) -> GoldenWavelet:
    """What the method keeps of good images that lie on one grid.

    Each image has a population of its own; a smooth mean image would have none of their noise, and every image would
    exceed it.

    Args:
        method: of the recipe.
        images: one or more, of one brightness.
        range_grey: from dark to bright of the good part [grey]
    """
    from waferlens.ops.wavelet import known_modulus, suspects

    means, squares, known = [], [], []
    for image in images:
        found = _features(method, image)
        means.append(found.mean)
        squares.append(np.square(found.sd) + np.square(found.mean))
        near = known_modulus(found, suspects(found, found.mean, found.sd, above_sd=method.sigmas), method.reach_px)
        known.append(near)
    mean = np.mean(means, axis=0)
    sd = np.sqrt(np.maximum(np.mean(squares, axis=0) - np.square(mean), 0.0))
    return GoldenWavelet(mean, np.maximum(sd, LEAST_SD * range_grey), np.median(known, axis=0).astype(np.float32))


def wavelet_deviation(
    method: Wavelet,
    image: Float32[np.ndarray, "h w"],
    laid: Float32[np.ndarray, "h w"],
    golden: GoldenWavelet,
    registration: Registration,
) -> Float32[np.ndarray, "h w"]:
    """How far an image's modulus exceeds that of good parts, in standard deviations; signed by its brightness.

    Args:
        method: of the recipe.
        image: in the brightness of the reference [grey]
        laid: the reference on the image's grid [grey]
        golden: what is kept of good parts.
        registration: of the image.
    """
    from waferlens.ops.wavelet import excess

    known = np.stack([warped(scale, registration, image.shape)[0] for scale in golden.known])
    found = excess(_features(method, image), golden.mean, golden.sd, known, above_sd=method.sigmas)
    darker = cv2.blur(image - laid, (SENSE_PX, SENSE_PX), borderType=cv2.BORDER_REPLICATE) < 0
    return np.where(darker, -found, found)


def _features(method: Wavelet, image: Float32[np.ndarray, "h w"]):  # type: ignore[no-untyped-def]
    from waferlens.ops.wavelet import features

    return features(
        image,
        scales=method.levels,
        grid=method.sub_images,
        median_px=method.median_px,
        sobel=method.sobel,
        radius_px=method.cluster_px // 2,
    )
