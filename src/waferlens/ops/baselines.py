"""Predictors of a depth map that know no physics: what a network has to beat, and what a simulator must not reward.

If one of them came close to the truth, grey values or an image's mean would give the depth away and a good score would
mean nothing. Every predictor has `fit(images, depth)` and `predict(images)`; images are uint8, depth is in whatever
unit it was given in. Intermediate arrays are made for `BATCH` images at a time.
"""

from __future__ import annotations

from typing import Protocol, Self

import cv2
import numpy as np
from jaxtyping import Float, Num, UInt8

from waferlens.ops.image_statistics import STATISTICS, image_statistics

BATCH = 256
BLUR_PX = 1.5
"""Standard deviation of the blur of the second grey lookup [px]"""
LINEAR_STATISTICS = (*STATISTICS, "mean_middle", "mean_border")
"""The twelve numbers a linear regression may use: those of `image_statistics`, the mean of the middle quarter of the
image and the mean of its outermost ring."""


class Baseline(Protocol):
    """A predictor of depth maps."""

    def fit(self, images: UInt8[np.ndarray, "n h w"], depth: Num[np.ndarray, "n h w"]) -> Self:
        """Learns from images and their depth maps."""
        ...

    def predict(self, images: UInt8[np.ndarray, "n h w"]) -> Float[np.ndarray, "n h w"]:
        """Depth maps of images, in the unit of `fit`."""
        ...


def baselines() -> dict[str, Baseline]:
    """Every baseline under the name it is reported by, not yet fitted."""
    return {
        "mean_map": MeanMap(),
        "grey_lookup": GreyLookup(),
        "grey_lookup_blurred": GreyLookup(BLUR_PX),
        "linear_on_statistics": LinearOnStatistics(),
        "nearest_neighbour": NearestNeighbour(),
    }


def rmse(baseline: Baseline, images: UInt8[np.ndarray, "n h w"], depth: Num[np.ndarray, "n h w"]) -> float:
    """Root mean square error of a fitted baseline over all pixels [unit of depth]"""
    total = 0.0
    for at in range(0, len(images), BATCH):
        miss = baseline.predict(images[at : at + BATCH]) - depth[at : at + BATCH]
        total += float(np.square(miss, dtype=np.float64).sum())
    return float(np.sqrt(total / depth.size))


class MeanMap:
    """The mean of all depth maps, whatever the image."""

    def fit(self, images: UInt8[np.ndarray, "n h w"], depth: Num[np.ndarray, "n h w"]) -> Self:
        _check(images, depth)
        self.mean = depth.mean(0, dtype=np.float64).astype(np.float32)
        return self

    def predict(self, images: UInt8[np.ndarray, "n h w"]) -> Float[np.ndarray, "n h w"]:
        return np.repeat(self.mean[np.newaxis], len(images), axis=0)


class GreyLookup:
    """For each grey value the mean depth under it: all that a single pixel can tell.

    Args:
        blur_px: Standard deviation of a blur before the lookup, which takes noise away [px]
    """

    def __init__(self, blur_px: float = 0.0) -> None:
        self.blur_px = blur_px

    def fit(self, images: UInt8[np.ndarray, "n h w"], depth: Num[np.ndarray, "n h w"]) -> Self:
        _check(images, depth)
        count, total = np.zeros(256), np.zeros(256)
        for at in range(0, len(images), BATCH):
            grey = self._grey(images[at : at + BATCH]).reshape(-1)
            count += np.bincount(grey, minlength=256)
            total += np.bincount(grey, depth[at : at + BATCH].reshape(-1), minlength=256)
        seen = np.flatnonzero(count)
        # a grey that training never saw takes what its neighbours say
        self.table = np.interp(np.arange(256), seen, total[seen] / count[seen]).astype(np.float32)
        return self

    def predict(self, images: UInt8[np.ndarray, "n h w"]) -> Float[np.ndarray, "n h w"]:
        out = np.empty(images.shape, np.float32)
        for at in range(0, len(images), BATCH):
            out[at : at + BATCH] = self.table[self._grey(images[at : at + BATCH])]
        return out

    def _grey(self, images: UInt8[np.ndarray, "n h w"]) -> UInt8[np.ndarray, "n h w"]:
        if not self.blur_px:
            return images
        return np.stack([cv2.GaussianBlur(image, (0, 0), self.blur_px) for image in images])


class LinearOnStatistics:
    """Every pixel as its own linear function of twelve numbers of the image (`LINEAR_STATISTICS`).

    Least squares through the normal equations with the statistics standardised. A ridge of 1e-6 of the number of images
    keeps statistics that say the same (or nothing) from spoiling the rest; it changes no prediction that matters.
    """

    def fit(self, images: UInt8[np.ndarray, "n h w"], depth: Num[np.ndarray, "n h w"]) -> Self:
        _check(images, depth)
        features = linear_statistics(images)
        self.centre, spread = features.mean(0), features.std(0)
        self.scale = np.where(spread > 1e-9, spread, 1.0)
        design = self._design(features)
        right = np.zeros((design.shape[1], depth[0].size))
        for at in range(0, len(images), BATCH):
            part = depth[at : at + BATCH].reshape(-1, depth[0].size).astype(np.float64)
            right += design[at : at + BATCH].T @ part
        normal = design.T @ design
        normal[np.arange(1, len(normal)), np.arange(1, len(normal))] += 1e-6 * len(images)
        self.weights = np.linalg.solve(normal, right).astype(np.float32)
        return self

    def predict(self, images: UInt8[np.ndarray, "n h w"]) -> Float[np.ndarray, "n h w"]:
        design = self._design(linear_statistics(images)).astype(np.float32)
        return (design @ self.weights).reshape(images.shape)

    def _design(self, features: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k1"]:
        return np.concatenate([np.ones((len(features), 1)), (features - self.centre) / self.scale], axis=1)


class NearestNeighbour:
    """The depth map of the most alike training image: Euclidean distance of images reduced by `reduce` along each axis.

    The training depth maps are kept as they were handed in, not copied.

    Args:
        reduce: How many pixels are averaged into one, along each axis.
    """

    COMPARED_AT_ONCE = 4_000_000

    def __init__(self, reduce: int = 4) -> None:
        self.reduce = reduce

    def fit(self, images: UInt8[np.ndarray, "n h w"], depth: Num[np.ndarray, "n h w"]) -> Self:
        _check(images, depth)
        self.known = self._small(images)
        self.half_square = 0.5 * np.einsum("nk,nk->n", self.known, self.known)
        self.depth = depth
        return self

    def predict(self, images: UInt8[np.ndarray, "n h w"]) -> Float[np.ndarray, "n h w"]:
        asked = self._small(images)
        step = max(1, self.COMPARED_AT_ONCE // len(self.known))
        nearest = [
            # |a - b|² without |a|², which is the same for every b: one matrix product for all
            np.argmin(self.half_square - asked[at : at + step] @ self.known.T, axis=1)
            for at in range(0, len(asked), step)
        ]
        return self.depth[np.concatenate(nearest)].astype(np.float32)

    def _small(self, images: UInt8[np.ndarray, "n h w"]) -> Float[np.ndarray, "n k"]:
        size = (max(1, images.shape[2] // self.reduce), max(1, images.shape[1] // self.reduce))
        small = [
            cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_AREA).reshape(-1) for image in images
        ]
        # centred, so that products of float32 stay exact enough to tell neighbours apart
        return np.stack(small) - np.float32(128)


def linear_statistics(images: UInt8[np.ndarray, "n h w"]) -> Float[np.ndarray, "n k"]:
    """The columns `LINEAR_STATISTICS` of every image [grey, 1]"""
    h, w = images.shape[1:]
    middle = images[:, h // 4 : h - h // 4, w // 4 : w - w // 4].mean((1, 2))
    ring = np.concatenate([images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1]], axis=1).mean(1)
    return np.column_stack([image_statistics(images), middle, ring])


def _check(images: np.ndarray, depth: np.ndarray) -> None:
    if images.dtype != np.uint8:
        raise TypeError(f"images: expected uint8, got {images.dtype}; scale them to 0..255 before")
    if images.shape != depth.shape or not len(images):
        raise ValueError(
            f"images and depth: expected the same shape n h w with n > 0, got {images.shape} and {depth.shape}"
        )
