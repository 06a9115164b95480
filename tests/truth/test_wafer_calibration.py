"""Intervals of wafer bundles on made data, where every group errs in its own way: do they hold what they promise?"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from waferlens.bundle.wafer_calibration import KINDS, SHADES, TOLD, WaferCalibration, group_of, told_of
from waferlens.errors import UsageError
from waferlens.evaluate.wafer_calibrate import BINS, LEAST_PIXELS, _fitted

LEVELS = (0.9, 0.95, 0.99)


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Errors, sigmas, groups and brightness: the truth of each group, of dark and bright pixels, and of each size of
    sigma is another multiple of sigma."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, KINDS * TOLD, count)
    sigma = np.exp(rng.uniform(0, 4, count)).astype(np.float32)
    brightness = (rng.uniform(0, 0.4, count) + 0.2 * (group % KINDS)).astype(np.float32)
    factor = 0.3 + 0.5 * group + np.where(sigma > 10, 2.0, 0.0)
    factor *= np.where(brightness - 0.2 * (group % KINDS) < 0.1, 3.0, 1.0)
    error = (factor * sigma * rng.exponential(size=count)).astype(np.float32)
    return error, sigma, group, brightness


def within(covered: np.ndarray, level: float, calibrated_on: int) -> bool:
    """Whether a coverage is what chance leaves of a level: four standard deviations of drawing both sets."""
    spread = math.sqrt(level * (1 - level) * (1 / len(covered) + 1 / calibrated_on))
    return abs(covered.mean() - level) < 4 * spread + 1 / calibrated_on


def test_every_group_and_every_shade_and_every_bin_is_covered_as_often_as_promised() -> None:
    count = 600_000
    calibration = _fitted(*drawn(count, 1), LEVELS, {})
    error, sigma, group, brightness = drawn(count, 2)
    rows, places = calibration.groups(sigma, group, brightness)
    assert {len(row) for row in calibration.sigma_edges_um} == {BINS - 1}
    assert np.array_equal(rows // SHADES, group)
    assert np.bincount(rows, minlength=KINDS * TOLD * SHADES).min() > 0.9 * count / (KINDS * TOLD * SHADES)
    of_a_row = count // (KINDS * TOLD * SHADES)
    for level in LEVELS:
        half = calibration.half_width_um(sigma[None], group[None], brightness[None], level)[0]
        inside = error <= half
        assert within(inside, level, count)
        for one in range(KINDS * TOLD * SHADES):
            here = rows == one
            assert within(inside[here], level, of_a_row)
            for place in range(BINS):
                assert within(inside[here & (places == place)], level, of_a_row // BINS), (one, place)


def test_one_factor_for_all_would_not_do() -> None:
    error, sigma, group, brightness = drawn(60_000, 1)
    calibration = _fitted(error, sigma, np.zeros_like(group), brightness, (0.9,), {})
    assert len(calibration.sigma_edges_um) == 1
    error, sigma, group, brightness = drawn(60_000, 2)
    inside = error <= calibration.half_width_um(sigma[None], None, brightness[None], 0.9)[0]
    assert inside.mean() == pytest.approx(0.9, abs=0.01)
    assert inside[group == 0].mean() > 0.97
    assert inside[group == KINDS * TOLD - 1].mean() < 0.85


def test_a_group_that_hardly_came_takes_the_factor_of_all() -> None:
    parts = drawn(80_000, 3)
    group = parts[2]
    kept = (group != 7) & ((group != 5) | (np.cumsum(group == 5) <= 20))
    error, sigma, group, brightness = (part[kept] for part in parts)
    calibration = _fitted(error, sigma, group, brightness, (0.9,), {})
    overall = np.sort(error / sigma)[math.ceil(0.9 * (len(error) + 1)) - 1]
    for one in (5, 7):
        for row in range(SHADES * one, SHADES * (one + 1)):
            assert list(calibration.sigma_edges_um[row]) == []
            assert calibration.quantiles["0.9"][row] == [pytest.approx(overall)]
        asked = np.full((1, 3), 2.0, np.float32), np.full((1, 3), one), np.array([[0.0, 0.4, 1.0]], np.float32)
        assert calibration.half_width_um(*asked, 0.9) == pytest.approx(2.0 * overall, rel=1e-5)
    common = np.flatnonzero(np.bincount(group, minlength=12) >= 3 * SHADES * LEAST_PIXELS)
    assert len(common) == 10
    assert all(len(calibration.sigma_edges_um[SHADES * one]) > 0 for one in common)


def test_the_best_constant_width_covers_as_often() -> None:
    parts = drawn(50_000, 4)
    calibration = _fitted(*parts, LEVELS, {})
    for level in LEVELS:
        assert (parts[0] <= calibration.constant_um[f"{level:g}"]).mean() == pytest.approx(level, abs=1e-3)


def test_it_reads_back_as_it_was_written() -> None:
    calibration = _fitted(*drawn(20_000, 5), LEVELS, {"folder": "made"})
    again = WaferCalibration.from_json(json.loads(json.dumps(calibration.to_json())))
    asked = tuple(part[None] for part in drawn(1000, 6)[1:])
    for level in LEVELS:
        ours, theirs = (one.half_width_um(*asked, level) for one in (calibration, again))
        assert np.array_equal(ours, theirs)
    with pytest.raises(UsageError, match=r"no intervals of level 0.8 in this bundle; calibrated: 0.9, 0.95, 0.99"):
        again.half_width_um(*asked, 0.8)


def test_other_groups_and_shades_are_refused() -> None:
    told = _fitted(*drawn(20_000, 5), LEVELS, {}).to_json()
    with pytest.raises(ValueError, match="3/48 groups of pixels; expected 1 or 48"):
        WaferCalibration.from_json({**told, "sigma_edges_um": told["sigma_edges_um"][:3]})
    edges = [told["brightness_edges"][0][:2], *told["brightness_edges"][1:]]
    with pytest.raises(ValueError, match=r"\[2, 3, 3\] edges of brightness; expected 3 for each of 3 classes"):
        WaferCalibration.from_json({**told, "brightness_edges": edges})


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
