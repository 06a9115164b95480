"""Anchors that fit the boxes of a training set: k-means on widths and heights, then a genetic search.

A box can be learned where both its sides are within a factor of an anchor's (`detection_assign.MOST_RATIO`). The share
of boxes for which there is such an anchor is the best possible recall; the search raises how near the nearest anchor
comes, counting only boxes within reach.

Source: k-means for anchors: Redmon, Farhadi, "YOLO9000", CVPR 2017 (arXiv:1612.08242); the search: S2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from waferlens.errors import UsageError
from waferlens.train.detection_assign import MOST_RATIO

GENERATIONS = 1000
MUTATED, SPREAD = 0.9, 0.1
"""Share of the numbers that a child changes, and the spread of their factor."""
ROUNDS, STARTS = 50, 4
"""Of k-means."""
SMALLEST_PX = 2.0
"""Smaller sides fit no anchors: what is thinner is learned by what fits 2 px [px]"""


@dataclass(frozen=True, slots=True, eq=False)
class FittedAnchors:
    """Anchors and how well they fit."""

    anchors_px: Float64[np.ndarray, "l a 2"]
    """Widths and heights of each head, the smallest on the finest [px]"""
    recall: float
    """Best possible recall: share of the boxes within reach of an anchor."""
    fitness: float
    """Mean nearness of the best anchor, 1 where all fit exactly."""


def fit_anchors(sides_px: Float[np.ndarray, "n 2"], heads: int, each: int, seed: int = 0) -> FittedAnchors:
    """Fits anchors to boxes; the same boxes give the same anchors.

    Args:
        sides_px: Widths and heights of the training boxes at the input's size [px]
        heads: Number of heads.
        each: Anchors of each head.
        seed: Of k-means and the search.

    Raises:
        UsageError: there are no boxes.
    """
    sides = np.asarray(sides_px, np.float64).reshape(-1, 2)
    if not len(sides):
        raise UsageError("there is no box to fit anchors to; label some, or set model.anchors")
    sides = np.maximum(sides, SMALLEST_PX)
    rng = np.random.default_rng(seed)
    anchors = _by_generations(_by_means(sides, heads * each, rng), sides, rng)
    anchors = anchors[np.argsort(anchors.prod(axis=1), kind="stable")]
    return FittedAnchors(anchors.reshape(heads, each, 2), recall(anchors, sides), fitness(anchors, sides))


def recall(anchors: Float[np.ndarray, "a 2"], sides: Float[np.ndarray, "n 2"]) -> float:
    """Share of the boxes within reach of an anchor."""
    return float((_nearness(anchors, sides) > 1 / MOST_RATIO).mean())


def fitness(anchors: Float[np.ndarray, "a 2"], sides: Float[np.ndarray, "n 2"]) -> float:
    """Mean nearness of the best anchor; a box out of reach counts 0."""
    near = _nearness(anchors, sides)
    return float(np.where(near > 1 / MOST_RATIO, near, 0.0).mean())


def _nearness(anchors: np.ndarray, sides: np.ndarray) -> Float64[np.ndarray, " n"]:
    """Of the best anchor of each box the smaller over the larger of two sides, along the worse axis."""
    ratio = sides[:, None] / anchors[None]
    return np.minimum(ratio, 1 / ratio).min(axis=2).max(axis=1)


def _by_means(sides: np.ndarray, count: int, rng: np.random.Generator) -> Float64[np.ndarray, "a 2"]:
    """k-means on the logarithms of the sides, where a factor is a distance; the best of several starts."""
    points = np.log(sides)
    best, least = points[:1], np.inf
    for _ in range(STARTS):
        middle = points[[rng.integers(len(points))]]
        while len(middle) < count:  # far ones are likelier (k-means++)
            far = ((points[:, None] - middle) ** 2).sum(axis=2).min(axis=1)
            weight = far + 1e-12
            middle = np.concatenate([middle, points[[rng.choice(len(points), p=weight / weight.sum())]]])
        for _ in range(ROUNDS):
            nearest = ((points[:, None] - middle) ** 2).sum(axis=2).argmin(axis=1)
            sums = np.stack([np.bincount(nearest, points[:, axis], count) for axis in (0, 1)], axis=1)
            members = np.bincount(nearest, minlength=count)[:, None]
            moved = np.where(members > 0, sums / np.maximum(members, 1), middle)
            if np.array_equal(moved, middle):
                break
            middle = moved
        spread = float(((points[:, None] - middle) ** 2).sum(axis=2).min(axis=1).sum())
        if spread < least:
            best, least = middle, spread
    return np.exp(best)


def _by_generations(anchors: np.ndarray, sides: np.ndarray, rng: np.random.Generator) -> Float64[np.ndarray, "a 2"]:
    """Children differ from their parent by random factors; only a better one takes its place."""
    if len(sides) > 2000:  # enough to tell which is better, and seconds instead of minutes
        sides = sides[np.sort(rng.permutation(len(sides))[:2000])]
    best = fitness(anchors, sides)
    for _ in range(GENERATIONS):
        changed = rng.random(anchors.shape) < MUTATED
        factor = np.where(changed, 1 + SPREAD * rng.random() * rng.standard_normal(anchors.shape), 1.0)
        child = np.maximum(anchors * np.clip(factor, 0.3, 3.0), SMALLEST_PX)
        told = fitness(child, sides)
        if told > best:
            anchors, best = child, told
    return anchors
