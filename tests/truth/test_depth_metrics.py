"""Errors of depth maps and the reverse Huber loss, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from waferlens.ops.depth_metrics import depth_metrics
from waferlens.train.berhu import berhu


def test_four_pixels_by_hand() -> None:
    truth = np.array([[1.0, 2.0], [4.0, 0.0]])
    pred = np.array([[1.1, 3.0], [2.0, 7.0]])  # the last one was not measured
    told = depth_metrics(pred, truth)
    assert told["rmse"] == pytest.approx(math.sqrt((0.01 + 1.0 + 4.0) / 3))
    assert told["mae"] == pytest.approx(3.1 / 3)
    assert told["abs_rel"] == pytest.approx((0.1 + 0.5 + 0.5) / 3)
    assert told["log10"] == pytest.approx((math.log10(1.1) + math.log10(1.5) + math.log10(2)) / 3)
    # ratios 1.1, 1.5, 2 against 1.25, 1.5625, 1.953125
    assert [told[f"delta{i}"] for i in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert (told["pixels"], told["valid"]) == (3, 0.75)


def test_what_was_not_measured_does_not_count() -> None:
    """S3 left it in: one zero, and the relative error is without bounds."""
    rng = np.random.default_rng(1)
    truth, pred = rng.uniform(0.5, 10, (20, 30)), rng.uniform(0.5, 10, (20, 30))
    part = depth_metrics(pred[:, :20], truth[:, :20])
    holes = truth.copy()
    holes[:, 20:25], holes[:, 25:] = 0.0, np.nan
    whole = depth_metrics(np.where(np.isnan(holes), np.nan, pred), holes)
    assert whole | {"valid": 0} == pytest.approx(part | {"valid": 0})


@given(st.floats(1.01, 3.0), st.floats(0.1, 100.0))
def test_a_wrong_scale(factor: float, unit: float) -> None:
    truth = np.linspace(1, 5, 24).reshape(4, 6)
    told = depth_metrics(factor * truth, truth)
    assert told["abs_rel"] == pytest.approx(factor - 1)
    assert told["log10"] == pytest.approx(math.log10(factor))
    for power in (1, 2, 3):
        if not math.isclose(factor, 1.25**power, rel_tol=1e-9):
            assert told[f"delta{power}"] == float(factor < 1.25**power)
    # in another unit of length only the errors that are lengths change
    other = depth_metrics(unit * factor * truth, unit * truth)
    assert other["rmse"] == pytest.approx(unit * told["rmse"])
    assert other["abs_rel"] == pytest.approx(told["abs_rel"])


def test_a_perfect_and_a_dead_map() -> None:
    truth = np.full((3, 3), 2.0)
    told = depth_metrics(truth, truth)
    assert (told["rmse"], told["log10"], told["delta1"]) == (0, 0, 1)
    dead = depth_metrics(np.zeros((3, 3)), truth)
    assert (dead["abs_rel"], dead["log10"], dead["delta3"]) == (1, math.inf, 0)


@pytest.mark.parametrize(
    ("pred", "truth", "said"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), "bring them to one grid"),
        (np.ones((2, 2)), np.zeros((2, 2)), "none of the 4 depths was measured"),
        (np.full((2, 2), np.nan), np.ones((2, 2)), "4 predictions on measured pixels are not finite"),
    ],
)
def test_what_cannot_be_judged_is_told(pred: np.ndarray, truth: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        depth_metrics(pred, truth)


def test_berhu_by_hand() -> None:
    """Errors 0.5, 1 and 5: the threshold is a fifth of the greatest, 1; above it (e² + c²) / 2c = 13."""
    truth = torch.zeros(3)
    pred = torch.tensor([0.5, -1.0, 5.0], requires_grad=True)
    loss = berhu(pred, truth)
    assert loss.item() == pytest.approx((0.5 + 1 + 13) / 3)
    loss.backward()
    # 1 below the threshold, e / c above it; the threshold itself has no gradient
    assert pred.grad is not None
    assert (3 * pred.grad).tolist() == pytest.approx([1, -1, 5])


def test_berhu_is_smooth_at_its_threshold_and_scales_with_its_unit() -> None:
    error = torch.tensor([1.0 - 1e-4, 1.0 + 1e-4, 5.0], dtype=torch.float64, requires_grad=True)
    berhu(error, torch.zeros(3, dtype=torch.float64)).backward()
    assert error.grad is not None
    assert (error.grad[1] - error.grad[0]).item() == pytest.approx(0, abs=1e-4)
    pred, truth = torch.randn(50), torch.randn(50)
    assert berhu(7 * pred, 7 * truth).item() == pytest.approx(7 * berhu(pred, truth).item(), rel=1e-5)
    assert berhu(truth, truth).item() == pytest.approx(0, abs=1e-9)
    # never below the absolute error
    assert berhu(pred, truth) >= (pred - truth).abs().mean()
