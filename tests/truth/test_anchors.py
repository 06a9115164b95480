"""Anchors that fit boxes: known answers, and better than what they begin with."""

from __future__ import annotations

import numpy as np
import pytest

from waferlens.errors import UsageError
from waferlens.train.anchors import fit_anchors, fitness, recall


def test_as_many_shapes_as_anchors_are_found_exactly() -> None:
    shapes = np.array(
        [[8, 8], [10, 30], [30, 12], [40, 40], [90, 20], [20, 90], [100, 120], [160, 90], [200, 260]], float
    )
    fitted = fit_anchors(np.repeat(shapes, 7, axis=0), 3, 3)
    found = fitted.anchors_px.reshape(-1, 2)
    assert fitted.recall == 1.0
    assert fitted.fitness == pytest.approx(1.0, abs=1e-9)
    assert sorted(map(tuple, found.round(6))) == sorted(map(tuple, shapes))
    assert np.all(np.diff(found.prod(axis=1)) >= 0)


def boxes(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.exp(rng.normal([2.5, 3.0], [0.8, 1.0], (count, 2)))


def test_the_search_improves_on_plain_quantiles_and_is_the_same_each_time() -> None:
    sides = boxes(400, 1)
    fitted = fit_anchors(sides, 3, 3)
    quantiles = np.quantile(sides, np.linspace(0.06, 0.94, 9), axis=0)
    assert fitted.fitness > fitness(quantiles, sides) + 0.05
    assert fitted.recall > 0.98
    assert np.array_equal(fitted.anchors_px, fit_anchors(sides, 3, 3).anchors_px)
    assert not np.array_equal(fitted.anchors_px, fit_anchors(sides, 3, 3, seed=1).anchors_px)


def test_recall_and_fitness_by_hand() -> None:
    anchors = np.array([[10.0, 10.0], [40.0, 20.0]])
    sides = np.array([[10, 10], [20, 20], [39, 10], [50, 50], [100, 2]], float)
    # nearness: 1, 1/2, 10/20, 2/5, 2/20: the last is out of reach
    assert recall(anchors, sides) == pytest.approx(0.8)
    assert fitness(anchors, sides) == pytest.approx((1 + 0.5 + 0.5 + 0.4) / 5)


def test_fewer_boxes_than_anchors() -> None:
    fitted = fit_anchors(np.array([[20.0, 30.0], [5.0, 0.5]]), 3, 3)
    assert fitted.anchors_px.shape == (3, 3, 2)
    assert np.isfinite(fitted.anchors_px).all()
    assert fitted.recall == 1.0


def test_no_boxes() -> None:
    with pytest.raises(UsageError, match="no box to fit anchors to"):
        fit_anchors(np.zeros((0, 2)), 3, 3)
