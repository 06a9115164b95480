"""The Gaussian filters pass what the standard says they pass, along any direction, and with points missing."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waferlens.ops import filters


def wave(n: int, wavelength: float, direction: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[:n, :n].astype(float)
    along = x * math.cos(direction) + y * math.sin(direction)
    return np.cos(2 * math.pi * along / wavelength)


def amplitude(surface: np.ndarray, pattern: np.ndarray, margin: int) -> float:
    inner = (slice(margin, -margin),) * 2
    return float((surface[inner] * pattern[inner]).sum() / (pattern[inner] ** 2).sum())


def test_half_of_the_amplitude_passes_at_the_cutoff():
    assert filters.transmission(0.8, 0.8) == pytest.approx(0.5, rel=1e-15)
    assert filters.transmission(8.0, 0.8) == pytest.approx(0.993, abs=1e-3)
    assert filters.transmission(0.08, 0.8) < 1e-29


@pytest.mark.parametrize("direction", [0.0, math.pi / 4, 1.1])
@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_waves_pass_as_the_standard_says(direction, ratio):
    cutoff = 40.0
    pattern = wave(400, cutoff * ratio, direction)
    passed = filters.gaussian_areal(pattern, cutoff, 1.0, 1.0)
    assert amplitude(passed, pattern, 80) == pytest.approx(filters.transmission(ratio, 1.0), abs=2e-3)


def test_the_short_and_the_long_way_agree():
    rough = np.random.default_rng(0).normal(size=(260, 300))
    rough[rough > 2] = math.nan
    weights = filters.gaussian_weights(100.0, 1.0)
    assert weights.size > filters._LONGEST_DIRECT
    known = np.isfinite(rough)
    filled = np.where(known, rough, 0.0)
    for axis in (0, 1):
        direct = np.apply_along_axis(lambda line: np.convolve(line, weights, "full")[100:-100], axis, filled)
        np.testing.assert_allclose(filters._convolve(filled, weights, axis), direct, atol=1e-12)


@given(st.floats(-5, 5), st.floats(-5, 5), st.sampled_from([0.0, 0.3]))
@settings(max_examples=20, deadline=None)
def test_a_plane_passes_unchanged_up_to_its_edges(slope_x, slope_y, missing):
    y, x = np.mgrid[:50, :60].astype(float)
    plane = 3 + slope_x * x + slope_y * y
    plane[np.random.default_rng(1).random(plane.shape) < missing] = math.nan
    np.testing.assert_allclose(filters.gaussian_areal(plane, 12.0, 1.0, 1.0), plane, atol=1e-9)


def test_missing_points_stay_missing_and_pull_nobody():
    pattern = wave(200, 80.0)
    valid = np.ones(pattern.shape, bool)
    valid[90:110, 60:150] = False
    damaged = np.where(valid, pattern, 1e6)
    passed = filters.gaussian_areal(damaged, 20.0, 1.0, 1.0, valid)
    np.testing.assert_array_equal(np.isnan(passed), ~valid)
    whole = filters.gaussian_areal(pattern, 20.0, 1.0, 1.0)
    # Beside the hole only one side is left to average over.
    assert np.abs(passed - whole)[valid].max() < 0.25
    far = np.zeros_like(valid)
    far[:60] = far[140:] = True
    # The plane that is set aside differs by the hole, and only by as much as the filter lets it.
    np.testing.assert_allclose(passed[far], whole[far], atol=2e-2)


def test_pitches_may_differ():
    square = filters.gaussian_areal(wave(240, 60.0), 60.0, 1.0, 1.0)
    wide = filters.gaussian_areal(wave(240, 60.0)[:, ::2], 60.0, 2.0, 1.0)
    # Away from the edges, whose last sample stands for a wider strip.
    np.testing.assert_allclose(wide[:, 20:-20], square[:, 40:-40:2], atol=2e-3)


def test_a_profile_is_filtered_along_its_line():
    x = np.arange(600.0)
    profile = np.cos(2 * math.pi * x / 50) + 0.01 * x
    mean_line = filters.gaussian_profile(profile, 50.0, 1.0)
    inner = slice(100, 500)
    expected = 0.01 * x + 0.5 * np.cos(2 * math.pi * x / 50)
    np.testing.assert_allclose(mean_line[inner], expected[inner], atol=2e-3)
    profile[250:260] = math.nan
    assert np.isnan(filters.gaussian_profile(profile, 50.0, 1.0)).sum() == 10


def test_a_cutoff_that_sampling_would_spoil_is_refused():
    with pytest.raises(ValueError, match=r"a cutoff of 3 needs a pitch of at most 0\.75, got 1"):
        filters.gaussian_weights(3.0, 1.0)
    weights = filters.gaussian_weights(filters.SHORTEST_CUTOFF, 1.0)
    passed = float((weights * np.cos(2 * math.pi * np.arange(-4, 5) / 4)).sum())
    assert passed == pytest.approx(0.5, abs=0.003)


def test_no_point_gives_no_surface():
    assert np.isnan(filters.gaussian_areal(np.full((9, 9), math.nan), 5.0, 1.0, 1.0)).all()
