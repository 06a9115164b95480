"""Suppression of boxes that say the same: the rule read as a loop, and cases by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waferlens.ops.boxes import iou
from waferlens.ops.nms import suppressed


def slow(boxes: np.ndarray, scores: np.ndarray, least: float, overlap: float, most: int) -> list[tuple[int, int]]:
    listed = sorted(
        (
            (-scores[place, kind], place, kind)
            for place, kind in np.ndindex(*scores.shape)
            if scores[place, kind] >= least
        )
    )
    kept: list[tuple[int, int]] = []
    for _, place, kind in listed:
        others = [other for other, its in kept if its == kind]
        if len(kept) < most and not any(iou(boxes[[place]], boxes[[other]])[0, 0] > overlap for other in others):
            kept.append((place, kind))
    return kept


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 40), st.integers(1, 3), st.sampled_from([0.0, 0.3, 0.65, 1.0]))
def test_greedy_by_score_and_class(seed: int, count: int, classes: int, overlap: float) -> None:
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 12, (count, 2))
    boxes = np.concatenate([low, low + rng.integers(0, 9, (count, 2))], axis=1).astype(np.float32)
    scores = rng.integers(0, 8, (count, classes)).astype(np.float32) / 8  # many are equal
    kept = suppressed(boxes, scores, least=0.25, overlap=overlap, most=9)
    assert list(zip(kept.places.tolist(), kept.kinds.tolist(), strict=True)) == slow(boxes, scores, 0.25, overlap, 9)
    assert np.array_equal(kept.boxes, boxes[kept.places])
    assert np.array_equal(kept.scores, scores[kept.places, kept.kinds])
    assert np.all(np.diff(kept.scores) <= 0)


def test_classes_may_lie_on_each_other_or_not() -> None:
    boxes, scores = np.array([[0.0, 0, 10, 10], [1, 0, 10, 10]]), np.array([[0.9, 0.1], [0.2, 0.8]])
    apart = suppressed(boxes, scores, least=0.15, overlap=0.5, most=10)
    assert list(zip(apart.places, apart.kinds, strict=True)) == [(0, 0), (1, 1)]
    together = suppressed(boxes, scores, least=0.15, overlap=0.5, most=10, classes_apart=False)
    assert together.places.tolist() == [0]


def test_nothing_and_what_does_not_fit() -> None:
    assert len(suppressed(np.zeros((0, 4)), np.zeros((0, 2)), least=0.1, overlap=0.5, most=5).boxes) == 0
    with pytest.raises(ValueError, match="expected n 4 and n k"):
        suppressed(np.zeros((3, 4)), np.zeros((2, 2)), least=0.1, overlap=0.5, most=5)
