"""Losses against values worked out by hand, and the gradient S1's root mean square error lacked."""

from __future__ import annotations

import math

import pytest
import torch

from waferlens.recipe.hole import HoleLoss
from waferlens.recipe.sections import Train
from waferlens.train import losses
from waferlens.train.tasks import rate_schedule


def maps(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(len(values), 1, 1, 1)


def test_errors_by_hand() -> None:
    depth, truth = maps(1.0, 3.0), maps(0.0, 1.0)
    assert losses.mse(depth, truth).item() == pytest.approx(2.5)
    assert losses.l1(depth, truth).item() == pytest.approx(1.5)
    assert losses.rmse(depth, truth).item() == pytest.approx(math.sqrt(2.5))
    assert losses.image_bias(depth, truth).item() == pytest.approx((1 + 4) / 2)


def test_rmse_carries_its_gradient() -> None:
    depth = maps(1.0, 3.0).requires_grad_()
    losses.rmse(depth, maps(0.0, 1.0)).backward()
    # d sqrt(mean e²) / d e_i = e_i / (n sqrt(mean e²))
    expected = [value / (2 * math.sqrt(2.5)) for value in (1.0, 2.0)]
    assert depth.grad is not None
    assert depth.grad.flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_likelihood_is_least_at_the_true_spread() -> None:
    errors = torch.randn(100_000, generator=torch.Generator().manual_seed(0)).reshape(-1, 1, 1, 1) * 3.0
    values = [losses.gaussian_nll(errors, torch.full_like(errors, s), torch.zeros_like(errors)) for s in (2.5, 3, 3.5)]
    assert values[1] < values[0]
    assert values[1] < values[2]


def test_sigma_term_leaves_the_depth_alone() -> None:
    depth, sigma = maps(1.0).requires_grad_(), maps(2.0).requires_grad_()
    total, terms = losses.supervised(HoleLoss(pixel="mse", pixel_weight=0.0, sigma_weight=1.0), depth, sigma, maps(0.0))
    total.backward()
    assert depth.grad is not None
    assert depth.grad.item() == 0.0
    assert sigma.grad is not None
    # d (e²/2s² + log s)/ds = -e²/s³ + 1/s
    assert sigma.grad.item() == pytest.approx(-1 / 8 + 1 / 2)
    assert set(terms) == {"mse", "sigma"}


def test_lambda_is_weighed_on_the_scale_of_pix2pix() -> None:
    total, _ = losses.supervised(HoleLoss(pixel=None, l1_weight=100.0), maps(12.75), None, maps(0.0))
    assert total.item() == pytest.approx(100 * 12.75 / 127.5)


@pytest.mark.parametrize("kind", ["bce", "mse"])
def test_adversarial_terms_prefer_the_right_answer(kind: str) -> None:
    sure = torch.full((2, 1, 3, 3), 4.0 if kind == "bce" else 1.0)
    assert losses.adversarial(kind, sure, real=True) < losses.adversarial(kind, sure, real=False)


def test_schedule_rises_and_falls() -> None:
    share = rate_schedule(Train(schedule="onecycle", warmup_fraction=0.2), 100)
    values = [share(step) for step in range(100)]
    assert max(values) == pytest.approx(1.0)
    assert values[0] < 0.1
    assert values[-1] < 0.01
    assert values.index(max(values)) in range(18, 22)
    assert rate_schedule(Train(schedule="constant"), 100)(0) == 1.0
