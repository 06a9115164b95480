"""Repeatability and local uniformity against formulas and drawn numbers of known spread."""

import numpy as np
import pytest

from waferlens.evaluate.repeatability import pooled_sd, repeatability, site_statistics


def test_pairs_give_the_root_mean_square_of_half_differences():
    # for pairs the pooled variance is the mean of d²/2
    first = np.array([10.0, 20.0, 30.0])
    second = first + np.array([0.1, -0.3, 0.2])
    values = np.concatenate([first, second])
    group = np.array(["a", "b", "c"] * 2)
    expected = np.sqrt(np.mean(np.array([0.1, 0.3, 0.2]) ** 2) / 2)
    assert pooled_sd(values, group) == pytest.approx(expected)
    (found,) = repeatability({"depth": values}, group, {"depth": 2.0})
    assert found.three_sigma == pytest.approx(3 * expected)
    assert found.precision_to_tolerance == pytest.approx(6 * expected / 2.0)
    assert (found.groups, found.images, found.degrees_of_freedom) == (3, 6, 3)
    # chi-squared with 3 degrees of freedom: 9.348404 and 0.215795 hold 95 % between them
    assert found.low == pytest.approx(3 * expected * np.sqrt(3 / 9.348404), rel=1e-5)
    assert found.high == pytest.approx(3 * expected * np.sqrt(3 / 0.215795), rel=1e-5)


def test_groups_of_any_size_and_single_images():
    values = np.array([1.0, 2.0, 3.0, 100.0, 7.0, 9.0, np.nan, 50.0])
    group = np.array(["a", "a", "a", "alone", "b", "b", "b", "alone too"])
    (found,) = repeatability({"cd50_x": values}, group)
    assert found.three_sigma == pytest.approx(3 * np.sqrt((2.0 + 2.0) / (2 + 1)))
    assert (found.groups, found.images, found.degrees_of_freedom) == (2, 5, 3)
    assert found.precision_to_tolerance is None


def test_nothing_repeated_is_not_zero():
    (found,) = repeatability({"depth": np.array([1.0, 2.0])}, np.array(["a", "b"]))
    assert np.isnan([found.three_sigma, found.low, found.high]).all()
    assert np.isnan(pooled_sd(np.array([np.nan, np.nan]), np.array(["a", "a"])))


def test_the_true_spread_is_found_whatever_the_levels():
    random = np.random.default_rng(4)
    level = np.repeat(random.uniform(0, 1e6, 4000), 3)
    values = level + random.normal(0, 0.25, level.size)
    (found,) = repeatability({"depth": values}, np.repeat(np.arange(4000), 3))
    assert found.three_sigma == pytest.approx(0.75, rel=0.03)
    assert found.low < 0.75 < found.high


def test_directions_are_compared_the_short_way_round():
    values = np.array([179.5, 0.5, 90.0, 91.0])
    group = np.array(["a", "a", "b", "b"])
    assert pooled_sd(values, group, 180.0) == pytest.approx(np.sqrt(0.5))
    (found,) = repeatability({"orientation_deg": values}, group)
    assert found.three_sigma == pytest.approx(3 * np.sqrt(0.5))


def test_sites_have_means_and_a_common_spread():
    values = np.array([10.0, 12.0, 20.0, 24.0, 5.0, np.nan])
    site = np.array(["s2", "s2", "s1", "s1", "s3", "s4"])
    found = site_statistics(values, site)
    assert found.site.tolist() == ["s1", "s2", "s3"]
    np.testing.assert_allclose(found.mean, [22.0, 11.0, 5.0])
    np.testing.assert_allclose(found.sd, [np.sqrt(8), np.sqrt(2), np.nan])
    np.testing.assert_allclose(found.standard_error, [2.0, 1.0, np.nan])
    assert found.holes.tolist() == [2, 2, 1]
    assert found.local_uniformity == pytest.approx(3 * np.sqrt((8 + 2) / 2))
    assert site_statistics(values, site, gauge_sd=1.0).local_uniformity == pytest.approx(3 * np.sqrt(5 - 1))
    assert site_statistics(values, site, gauge_sd=9.0).local_uniformity == 0
    assert np.isnan(site_statistics(values[4:], site[4:]).local_uniformity)


def test_the_gauge_is_taken_out_of_drawn_sites():
    random = np.random.default_rng(5)
    site = np.repeat(np.arange(500), 30)
    values = np.repeat(random.normal(120, 2, 500), 30) + random.normal(0, 0.8, 15000) + random.normal(0, 0.6, 15000)
    assert site_statistics(values, site).local_uniformity == pytest.approx(3.0, rel=0.02)
    assert site_statistics(values, site, gauge_sd=0.6).local_uniformity == pytest.approx(2.4, rel=0.02)
