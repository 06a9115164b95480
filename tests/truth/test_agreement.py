"""The split of an error into level and structure, on errors made to be one or the other."""

from __future__ import annotations

import numpy as np
import pytest

from waferlens.evaluate.agreement import COLUMNS, error_sums, root_mean
from waferlens.simulate.hole.dataset import hole_world
from waferlens.simulate.hole.world import draw_pairs


def root(sums: np.ndarray, column: str) -> float:
    return float(root_mean(column)(sums.sum(axis=0)))


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return np.stack([pair.heights for pair in draw_pairs(hole_world("sim"), 1, 0)]).astype(np.float32)


def test_no_error_is_no_error(truth: np.ndarray) -> None:
    sums, figures = error_sums(truth, truth)
    assert sums[:, 1:4].max() == 0.0
    assert np.abs(figures["contour_error_px"]).max() == 0.0


def test_a_wrong_plateau_is_level(truth: np.ndarray) -> None:
    plateau, floor = truth.max((1, 2), keepdims=True), np.quantile(truth, 0.05, axis=(1, 2), keepdims=True)
    s = np.clip((plateau - truth) / (plateau - floor), 0, 1)
    sums, figures = error_sums(truth + 3.0 * (1 - s), truth)
    assert figures["level_error"] == pytest.approx(3.0, rel=0.02)
    assert root(sums, "structure_square") < 0.05 * root(sums, "level_square")


def test_a_shifted_hole_is_structure_and_contour(truth: np.ndarray) -> None:
    sums, figures = error_sums(np.roll(truth, 1, axis=2), truth)
    assert root(sums, "level_square") < 0.1 * root(sums, "structure_square")
    # a shift by 1 px along x moves a contour by |n_x| on average: more than half for a tall ellipse, less than 1
    assert np.all((figures["contour_error_px"] > 0.5) & (figures["contour_error_px"] < 1.0))


def test_parts_add_up(truth: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    sums, _ = error_sums(truth + rng.normal(0, 2, truth.shape) + 1.0, truth)
    assert root(sums, "square") == pytest.approx(np.sqrt(5), rel=0.02)
    assert COLUMNS[0] == "pixels"
    assert sums[0, 0] == truth[0].size
