"""Baselines on data whose best prediction is known."""

from __future__ import annotations

import numpy as np
import pytest

from waferlens.ops.baselines import (
    LINEAR_STATISTICS,
    GreyLookup,
    LinearOnStatistics,
    MeanMap,
    NearestNeighbour,
    baselines,
    linear_statistics,
    rmse,
)

rng = np.random.default_rng(5)
IMAGES = rng.integers(0, 256, (300, 24, 16)).astype(np.uint8)
DEPTH = rng.integers(0, 256, (300, 24, 16)).astype(np.uint8)


def test_mean_map_is_off_by_the_spread_of_every_pixel() -> None:
    assert rmse(MeanMap().fit(IMAGES, DEPTH), IMAGES, DEPTH) == pytest.approx(np.sqrt(DEPTH.var(0).mean()), rel=1e-6)


def test_lookup_inverts_a_curve_and_fills_the_greys_it_never_saw() -> None:
    even = IMAGES // 2 * 2
    lookup = GreyLookup().fit(even, 300.0 - 1.5 * even)
    assert rmse(lookup, even, 300.0 - 1.5 * even) < 1e-4
    odd = np.full((1, 24, 16), 101, np.uint8)
    assert lookup.predict(odd) == pytest.approx(300.0 - 1.5 * 101)


def test_a_blurred_lookup_sees_through_noise() -> None:
    flat = np.repeat(np.arange(40, 200, 4, dtype=np.uint8), 24 * 16).reshape(-1, 24, 16)
    noisy = np.clip(flat + rng.normal(0, 12, flat.shape), 0, 255).astype(np.uint8)
    raw, blurred = (rmse(GreyLookup(blur).fit(noisy, flat), noisy, flat) for blur in (0.0, 1.5))
    assert blurred < 0.5 * raw


def test_linear_regression_finds_a_linear_law() -> None:
    images = (IMAGES // 2 + rng.integers(0, 100, (300, 1, 1))).astype(np.uint8)
    statistics = linear_statistics(images)
    assert statistics.shape == (300, 12) == (300, len(LINEAR_STATISTICS))
    per_pixel = rng.normal(size=(24, 16))
    depth = 100 + statistics[:, 0, None, None] * per_pixel + statistics[:, 1, None, None]
    fitted = LinearOnStatistics().fit(images[:200], depth[:200])
    assert rmse(fitted, images[200:], depth[200:]) < 0.01 * depth.std()


def test_linear_regression_survives_statistics_that_say_nothing() -> None:
    same = np.full((20, 24, 16), 90, np.uint8)
    assert LinearOnStatistics().fit(same, DEPTH[:20]).predict(same)[0] == pytest.approx(DEPTH[:20].mean(0), abs=1e-3)


def test_nearest_neighbour_knows_what_it_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NearestNeighbour, "COMPARED_AT_ONCE", 1000)
    known = NearestNeighbour().fit(IMAGES, DEPTH)
    nudged = np.clip(IMAGES.astype(int) + 1, 0, 255).astype(np.uint8)
    assert (known.predict(nudged) == DEPTH).all()


def test_the_names_are_those_of_the_report() -> None:
    assert list(baselines()) == [
        "mean_map",
        "grey_lookup",
        "grey_lookup_blurred",
        "linear_on_statistics",
        "nearest_neighbour",
    ]


@pytest.mark.parametrize("baseline", baselines().values(), ids=list(baselines()))
def test_unfit_input_is_named(baseline: MeanMap) -> None:
    with pytest.raises(TypeError, match="uint8, got float64"):
        baseline.fit(IMAGES / 1.0, DEPTH)
    with pytest.raises(ValueError, match="same shape"):
        baseline.fit(IMAGES, DEPTH[:1])
