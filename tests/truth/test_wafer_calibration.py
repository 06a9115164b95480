"""Intervals of wafer bundles on made data, where every group errs in its own way: do they hold what they promise?"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from waferlens.bundle.wafer_calibration import KINDS, TOLD, WaferCalibration, group_of, told_of
from waferlens.errors import UsageError
from waferlens.evaluate.wafer_calibrate import BINS, LEAST_PIXELS, _fitted

LEVELS = (0.9, 0.95, 0.99)


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors, sigmas and groups: the truth of each group, and of each size of sigma, is another multiple of sigma."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, KINDS * TOLD, count)
    sigma = np.exp(rng.uniform(0, 4, count)).astype(np.float32)
    factor = 0.3 + 0.5 * group + np.where(sigma > 10, 2.0, 0.0)
    error = (factor * sigma * rng.exponential(size=count)).astype(np.float32)
    return error, sigma, group


def within(covered: np.ndarray, level: float, calibrated_on: int) -> bool:
    """Whether a coverage is what chance leaves of a level: four standard deviations of drawing both sets."""
    spread = math.sqrt(level * (1 - level) * (1 / len(covered) + 1 / calibrated_on))
    return abs(covered.mean() - level) < 4 * spread + 1 / calibrated_on


def test_every_group_and_every_bin_is_covered_as_often_as_promised() -> None:
    error, sigma, group = drawn(240_000, 1)
    calibration = _fitted(error, sigma, group, LEVELS, {})
    new_error, new_sigma, new_group = drawn(240_000, 2)
    places = calibration.groups(new_sigma, new_group)[1]
    assert {len(row) for row in calibration.sigma_edges_um} == {BINS - 1}
    for level in LEVELS:
        half = calibration.half_width_um(new_sigma[None], new_group[None], level)[0]
        inside = new_error <= half
        assert within(inside, level, len(error))
        for one in range(KINDS * TOLD):
            here = new_group == one
            assert within(inside[here], level, int((group == one).sum()))
            for place in range(BINS):
                part = inside[here & (places == place)]
                assert within(part, level, int((group == one).sum()) // BINS), (one, place)


def test_one_factor_for_all_would_not_do() -> None:
    error, sigma, group = drawn(60_000, 1)
    calibration = _fitted(error, sigma, np.zeros_like(group), (0.9,), {})
    assert len(calibration.sigma_edges_um) == 1
    new_error, new_sigma, new_group = drawn(60_000, 2)
    inside = new_error <= calibration.half_width_um(new_sigma[None], None, 0.9)[0]
    assert inside.mean() == pytest.approx(0.9, abs=0.01)
    assert inside[new_group == 0].mean() > 0.97
    assert inside[new_group == KINDS * TOLD - 1].mean() < 0.85


def test_a_group_that_hardly_came_takes_the_factor_of_all() -> None:
    error, sigma, group = drawn(20_000, 3)
    rare = group == 5
    error, sigma, group = (np.concatenate([part[~rare], part[rare][:20]]) for part in (error, sigma, group))
    gone = group == 7
    error, sigma, group = (part[~gone] for part in (error, sigma, group))
    calibration = _fitted(error, sigma, group, (0.9,), {})
    overall = np.sort(error / sigma)[math.ceil(0.9 * (len(error) + 1)) - 1]
    for one in (5, 7):
        assert list(calibration.sigma_edges_um[one]) == []
        assert calibration.quantiles["0.9"][one] == [pytest.approx(overall)]
        half = calibration.half_width_um(np.full((1, 3), 2.0, np.float32), np.full((1, 3), one), 0.9)
        assert half == pytest.approx(2.0 * overall, rel=1e-5)
    common = np.flatnonzero(np.bincount(group, minlength=12) >= 2 * LEAST_PIXELS)
    assert all(len(calibration.sigma_edges_um[one]) > 0 for one in common)


def test_the_best_constant_width_covers_as_often() -> None:
    error, sigma, group = drawn(50_000, 4)
    calibration = _fitted(error, sigma, group, LEVELS, {})
    for level in LEVELS:
        assert (error <= calibration.constant_um[f"{level:g}"]).mean() == pytest.approx(level, abs=1e-3)


def test_it_reads_back_as_it_was_written() -> None:
    calibration = _fitted(*drawn(20_000, 5), LEVELS, {"folder": "made"})
    again = WaferCalibration.from_json(json.loads(json.dumps(calibration.to_json())))
    _, sigma, group = drawn(1000, 6)
    for level in LEVELS:
        ours, theirs = (one.half_width_um(sigma[None], group[None], level) for one in (calibration, again))
        assert np.array_equal(ours, theirs)
    with pytest.raises(UsageError, match=r"no intervals of level 0.8 in this bundle; calibrated: 0.9, 0.95, 0.99"):
        again.half_width_um(sigma[None], group[None], 0.8)


def test_other_groups_are_refused() -> None:
    told = _fitted(*drawn(20_000, 5), LEVELS, {}).to_json()
    told["sigma_edges_um"] = told["sigma_edges_um"][:3]
    with pytest.raises(ValueError, match="3/12 groups of pixels; expected 1 or 12"):
        WaferCalibration.from_json(told)


def test_groups_are_told_apart_by_class_and_by_what_was_told() -> None:
    kind = np.array([[0, 1, 2]])
    seen = {
        int(number)
        for product in (False, True)
        for track in (False, True)
        for number in group_of(kind, told_of(product=product, track=track)).ravel()  # type: ignore[union-attr]
    }
    assert seen == set(range(KINDS * TOLD))
    assert group_of(None, 3) is None
