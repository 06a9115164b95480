"""Intervals and their scores on distributions whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from waferlens.bundle.calibration import Calibration, corrected_value, intervals, scale_of
from waferlens.errors import UsageError
from waferlens.evaluate.calibrate import fit_domain, fit_measurand, fit_scale
from waferlens.evaluate.intervals import (
    bootstrap_interval,
    cluster_sums,
    conformal_quantile,
    constant_width_score,
    coverage,
    interval_score,
)


def test_conformal_quantile_is_an_order_statistic() -> None:
    scores = np.arange(1.0, 100.0)
    # ceil(100 * 0.9) = 90th smallest of 99
    assert conformal_quantile(scores, 0.9) == 90.0
    with pytest.raises(UsageError, match=r"calibration cases .* 99"):
        conformal_quantile(np.ones(98), 0.99)
    assert conformal_quantile(np.ones(99), 0.99) == 1.0


def test_interval_score_by_hand() -> None:
    low, high = np.array([0.0, 0.0]), np.array([1.0, 1.0])
    assert interval_score(low, high, np.array([0.5, 1.5]), 0.9) == pytest.approx((1 + 1 + 20 * 0.5) / 2)
    assert coverage(low, high, np.array([0.5, 1.5])) == 0.5


@given(st.integers(0, 10_000), st.floats(0.3, 0.95))
def test_score_is_least_at_the_true_quantiles(seed: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(-1, 1, 4000)
    right = np.full(4000, level)
    scores = [interval_score(-right * f, right * f, truth, level) for f in (0.7, 1.0, 1.3)]
    assert scores[1] <= min(scores[0], scores[2]) + 0.02


def test_scale_is_found_again() -> None:
    rng = np.random.default_rng(1)
    feature = rng.normal(size=40_000)
    error = np.abs(rng.laplace(size=40_000)) * np.exp(0.4 + 0.5 * feature)
    found = fit_scale(np.column_stack([np.ones(40_000), feature]), error)
    assert found == pytest.approx([0.4, 0.5], abs=0.03)


def test_fitted_measurand_covers_and_beats_one_width() -> None:
    rng = np.random.default_rng(2)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        truth = rng.uniform(100, 150, n)
        spread = rng.uniform(0.5, 3.0, n)
        return truth + 0.02 * (truth - 120) - 1.5 + spread * rng.normal(size=n), truth, {"sigma_floor": spread}

    value, truth, features = draw(20_000)
    part = fit_measurand(value, truth, features, (0.9, 0.95))
    assert part is not None
    value, truth, features = draw(20_000)
    calibration = Calibration(measurands={"depth": part})
    for level in (0.9, 0.95):
        found = intervals(calibration, {"depth": value}, features, level)["depth"]
        assert coverage(found.low, found.high, truth) == pytest.approx(level, abs=0.01)
        for lower in (100, 110, 120, 130, 140):
            rows = (truth >= lower) & (truth < lower + 10)
            assert abs(np.mean(found.value[rows] - truth[rows])) < 0.12
    ours = interval_score(found.low, found.high, truth, 0.95)
    assert ours < constant_width_score(corrected_value(part, value) - truth, 0.95)
    assert np.corrcoef(np.log(scale_of(part, value, features)), np.log(features["sigma_floor"]))[0, 1] > 0.95


def test_a_measurand_blurred_by_noise_gets_one_offset() -> None:
    rng = np.random.default_rng(3)
    truth = rng.normal(40, 0.3, 5000)
    part = fit_measurand(truth + 0.2 + rng.normal(0, 0.3, 5000), truth, {}, (0.9,))
    assert part is not None
    # truth 0.3, noise 0.3: the slope of the value on the truth is 1, so a by-value correction is allowed …
    shrunk = fit_measurand(40 + 0.5 * (truth - 40) + 0.2, truth, {}, (0.9,))
    assert shrunk is not None
    # … and here it is 0.5: stretching would double the noise of every later value
    assert len(shrunk.bias_knots) == 1
    assert shrunk.bias_corrections[0] == pytest.approx(-0.2, abs=0.01)


def test_directions_are_compared_around_the_circle() -> None:
    rng = np.random.default_rng(4)
    truth = rng.normal(0.0, 0.5, 3000) % 180.0
    part = fit_measurand((truth + rng.normal(0, 0.2, 3000)) % 180.0, truth, {}, (0.9,), "orientation_deg")
    assert part is not None
    assert part.quantiles["0.9"] * np.exp(part.scale_coefficients[0]) < 1.0


def test_too_few_images_claim_nothing() -> None:
    assert fit_measurand(np.arange(10.0), np.arange(10.0), {}, (0.9,)) is None


def test_domain_border_lets_its_quantile_in() -> None:
    rng = np.random.default_rng(5)
    features = {name: rng.normal(size=5000) for name in ("a", "b", "c")} | {"still": np.zeros(5000)}
    domain = fit_domain(features, 0.99)
    # squared distance of three normals is chi² with 3 degrees: 99 % lies below 11.34
    assert domain.threshold == pytest.approx(11.34, rel=0.1)


def test_bootstrap_of_a_mean_has_its_standard_error() -> None:
    rng = np.random.default_rng(6)
    cluster = np.repeat(np.arange(400), 5)
    values = np.repeat(rng.normal(size=400), 5)
    sums = cluster_sums(np.column_stack([values, np.ones(2000)]), cluster)
    low, high = bootstrap_interval(sums, lambda s: s[:, 0] / s[:, 1])
    # five copies of each value: the clusters, not the copies, set the standard error 1 / sqrt(400)
    assert (high - low) / (2 * 1.96) == pytest.approx(1 / 20, rel=0.15)
