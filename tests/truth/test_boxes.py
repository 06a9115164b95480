"""Boxes against boxes: overlaps by hand, and matching against slow twins."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from waferlens.ops.boxes import areas, best_match, centre_hits, greedy_match, iou

A = np.array([[0.0, 0.0, 10.0, 10.0]])


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([0, 0, 10, 10], 1.0),
        ([5, 0, 15, 10], 50 / 150),
        ([5, 5, 15, 15], 25 / 175),
        ([2, 2, 4, 4], 4 / 100),
        ([10, 0, 20, 10], 0.0),  # they touch
        ([30, 30, 40, 40], 0.0),
        ([3, 3, 3, 9], 0.0),
    ],
)
def test_overlaps_by_hand(box, expected):
    assert iou(A, np.array([box], float))[0, 0] == pytest.approx(expected, abs=1e-15)
    assert iou(np.array([box], float), A)[0, 0] == pytest.approx(expected, abs=1e-15)


def test_boxes_without_an_area_have_no_overlap_and_no_warning():
    point = np.array([[1.0, 1.0, 1.0, 1.0]])
    assert iou(point, point)[0, 0] == 0
    assert areas(np.array([[3.0, 0.0, 1.0, 4.0]]))[0] == 0  # the wrong way round
    assert iou(np.empty((0, 4)), A).shape == (0, 1)
    assert centre_hits(A, np.empty((0, 4))).shape == (1, 0)


def test_pixels_painted_give_the_same_overlap():
    rng = np.random.default_rng(0)
    low = rng.integers(0, 20, (40, 2))
    boxes = np.column_stack([low, low + rng.integers(1, 12, (40, 2))])
    painted = np.zeros((40, 40, 40), bool)
    for one, (x0, y0, x1, y1) in zip(painted, boxes, strict=True):
        one[y0:y1, x0:x1] = True
    shared = (painted[:, None] & painted[None]).sum(axis=(2, 3))
    either = (painted[:, None] | painted[None]).sum(axis=(2, 3))
    outer = boxes - 0.5  # pixels from x0 to x1 - 1 have these outer edges
    np.testing.assert_allclose(iou(outer, outer), shared / either)


def test_centres():
    found = np.array([[0, 0, 2, 2], [4, 4, 30, 30], [9, 9, 11, 11], [9, 9, 12, 11]], float)
    assert centre_hits(found, A)[:, 0].tolist() == [True, False, True, False]


def test_greedy_takes_the_highest_score_first_and_best_takes_the_most_pairs():
    # the first finding could have either, the second only the one that the first likes better
    overlap = np.array([[0.6, 0.5], [0.55, 0.0]])
    assert greedy_match(overlap, np.array([0.9, 0.8]), 0.33).tolist() == [0, -1]
    assert greedy_match(overlap, np.array([0.8, 0.9]), 0.33).tolist() == [1, 0]
    assert best_match(overlap, overlap >= 0.33).tolist() == [1, 0]


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (2, 2)])
def test_nothing_to_match(shape):
    zeros = np.zeros(shape)
    assert greedy_match(zeros, np.zeros(shape[0]), 0.5).tolist() == [-1] * shape[0]
    assert best_match(zeros, zeros > 0.5).tolist() == [-1] * shape[0]


def _greedy_as_coco_does(overlap, scores, least):
    taken, matched = [-1] * len(overlap), set()
    for row in np.argsort(-scores, kind="mergesort"):
        best, choice = least, -1
        for column in range(overlap.shape[1]):
            if column in matched or overlap[row, column] < best:
                continue
            best, choice = overlap[row, column], column
        if choice >= 0:
            taken[row] = choice
            matched.add(choice)
    return taken


tenths = st.integers(0, 10).map(lambda number: number / 10)
matrices = st.tuples(st.integers(1, 4), st.integers(1, 4)).flatmap(lambda shape: arrays(float, shape, elements=tenths))


@given(matrices, st.data())
@settings(max_examples=80, deadline=None)
def test_greedy_is_that_of_coco(overlap, data):
    scores = data.draw(arrays(float, len(overlap), elements=tenths))
    assert greedy_match(overlap, scores, 0.3).tolist() == _greedy_as_coco_does(overlap, scores, 0.3)


@given(matrices)
@settings(max_examples=80, deadline=None)
def test_best_is_the_best_of_all_assignments(overlap):
    allowed = overlap >= 0.3
    matched = best_match(overlap, allowed)
    pairs = [(row, column) for row, column in enumerate(matched) if column >= 0]
    assert all(allowed[pair] for pair in pairs)
    assert len({column for _, column in pairs}) == len(pairs)
    assert (len(pairs), sum(overlap[pair] for pair in pairs)) == pytest.approx(_best_by_trying(overlap, allowed))


def _best_by_trying(overlap, allowed):
    n, m = overlap.shape
    best = (0, 0.0)
    for columns in permutations([*range(m), *[-1] * n], n):
        pairs = [(row, column) for row, column in enumerate(columns) if column >= 0 and allowed[row, column]]
        best = max(best, (len(pairs), sum(overlap[pair] for pair in pairs)))
    return best
