"""Of many boxes that say the same, the one with the highest score: suppression class by class.

Scores are met in falling order, of equal ones the first comes first; a box is dropped where a kept one of its class
overlaps it by more than is allowed. Nothing depends on what stands below the last one kept.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64
from numba import njit

MOST_MET = 30_000
"""Candidates that are looked at, the highest scores first: an untrained network says something everywhere."""


class Kept(NamedTuple):
    """What is left, by falling score."""

    boxes: Float64[np.ndarray, "m 4"]
    """[px]"""
    scores: Float64[np.ndarray, " m"]
    kinds: Int64[np.ndarray, " m"]
    """Numbers of the classes."""
    places: Int64[np.ndarray, " m"]
    """Which of the boxes each was."""


def suppressed(
    boxes: Float[np.ndarray, "n 4"],
    scores: Float[np.ndarray, "n k"],
    *,
    least: float | Float[np.ndarray, " k"],
    overlap: float,
    most: int,
    classes_apart: bool = True,
) -> Kept:
    """Drops what a better box of the same class already says.

    Args:
        boxes: x0 y0 x1 y1, edges [px]
        scores: Of each class; a box may be kept for several.
        least: Score from which a box is looked at, or one a class.
        overlap: Intersection over union above which the weaker of two boxes of a class is dropped.
        most: Most boxes that are kept, of all classes together.
        classes_apart: Whether boxes of different classes may lie on each other.

    Raises:
        ValueError: the arrays do not fit together.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.ndim != 2 or len(scores) != len(boxes):
        raise ValueError(f"boxes of shape {boxes.shape} with scores of shape {scores.shape}; expected n 4 and n k")
    places, kinds = np.nonzero(scores >= least)
    told = scores[places, kinds].astype(np.float64)
    order = np.argsort(-told, kind="stable")[:MOST_MET]
    places, kinds, told = places[order], kinds[order], told[order]
    met = np.ascontiguousarray(boxes[places], np.float64)
    groups = kinds if classes_apart else np.zeros_like(kinds)
    kept = _greedy(met, groups, float(overlap), int(most))
    return Kept(met[kept], told[kept], kinds[kept], places[kept])


@njit(nogil=True, cache=True, error_model="numpy")
def _greedy(boxes, kinds, overlap, most):  # type: ignore[no-untyped-def]
    kept = np.empty(min(most, len(boxes)), np.int64)
    count = 0
    for one in range(len(boxes)):
        if count == most:
            break
        x0, y0, x1, y1 = boxes[one]
        area = max(x1 - x0, 0.0) * max(y1 - y0, 0.0)
        free = True
        for place in range(count):
            other = kept[place]
            if kinds[other] != kinds[one]:
                continue
            a0, b0, a1, b1 = boxes[other]
            shared = max(min(x1, a1) - max(x0, a0), 0.0) * max(min(y1, b1) - max(y0, b0), 0.0)
            union = area + max(a1 - a0, 0.0) * max(b1 - b0, 0.0) - shared
            if shared > overlap * union:
                free = False
                break
        if free:
            kept[count] = one
            count += 1
    return kept[:count]
