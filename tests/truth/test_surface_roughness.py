"""Height parameters against surfaces whose parameters are known from a formula."""

import math

import numpy as np
import pytest

from waferlens.ops.roughness import height_parameters

AMPLITUDE = 3.0


def sine(periods: int = 8, n: int = 4096) -> np.ndarray:
    phase = 2 * math.pi * periods * (np.arange(n) + 0.5) / n
    return np.broadcast_to(AMPLITUDE * np.sin(phase), (4, n)).copy()


def test_a_sine_has_the_parameters_of_the_textbook():
    found = height_parameters(sine() + 100.0)
    assert found.Sq == pytest.approx(AMPLITUDE / math.sqrt(2), rel=1e-12)
    assert found.Sa == pytest.approx(2 * AMPLITUDE / math.pi, rel=1e-5)
    assert found.Ssk == pytest.approx(0.0, abs=1e-10)
    assert found.Sku == pytest.approx(1.5, rel=1e-10)
    assert (found.Sp, found.Sv) == pytest.approx((AMPLITUDE, AMPLITUDE), rel=1e-4)
    assert found.Sz == found.Sp + found.Sv


def test_gaussian_noise_has_a_kurtosis_of_three():
    found = height_parameters(np.random.default_rng(0).normal(scale=0.2, size=(1000, 1000)))
    assert found.Sq == pytest.approx(0.2, rel=5e-3)
    assert found.Sa == pytest.approx(0.2 * math.sqrt(2 / math.pi), rel=5e-3)
    assert found.Ssk == pytest.approx(0.0, abs=0.01)
    assert found.Sku == pytest.approx(3.0, abs=0.03)


def test_a_plateau_with_pits_is_skewed_down():
    # Two levels, a share p of them d deep: Ssk = (2p - 1) / sqrt(p (1 - p)), Sku = (1 - 3 p (1 - p)) / (p (1 - p)).
    p, depth = 0.1, 5.0
    heights = np.zeros((10, 100))
    heights[:, :10] = -depth
    found = height_parameters(heights)
    q = p * (1 - p)
    assert found.Sq == pytest.approx(depth * math.sqrt(q), rel=1e-12)
    assert found.Ssk == pytest.approx((2 * p - 1) / math.sqrt(q), rel=1e-12)
    assert found.Sku == pytest.approx((1 - 3 * q) / q, rel=1e-12)
    assert (found.Sp, found.Sv, found.Sz) == pytest.approx((p * depth, (1 - p) * depth, depth), rel=1e-12)


def test_invalid_points_never_take_part():
    heights = sine()
    valid = np.ones(heights.shape, bool)
    wide = np.concatenate((heights, np.full((3, heights.shape[1]), 1e9), np.full((1, heights.shape[1]), math.nan)))
    mask = np.concatenate((valid, np.zeros((3, heights.shape[1]), bool), np.ones((1, heights.shape[1]), bool)))
    assert height_parameters(wide, mask) == height_parameters(heights)


def test_an_offset_a_million_times_the_relief_is_no_matter():
    rough = np.random.default_rng(1).normal(scale=1e-9, size=(200, 200))
    near, far = height_parameters(rough), height_parameters(rough + 1e-3)
    assert far.Sq == pytest.approx(near.Sq, rel=1e-8)
    assert far.Sku == pytest.approx(near.Sku, rel=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9])
def test_a_flat_surface_has_no_shape(value):
    found = height_parameters(np.full((30, 30), value))
    assert (found.Sa, found.Sq, found.Sz) == pytest.approx((0, 0, 0), abs=1e-7)
    assert math.isnan(found.Ssk)
    assert math.isnan(found.Sku)


def test_no_point_gives_no_number():
    found = height_parameters(np.full((3, 3), math.nan))
    assert found.points == 0
    assert all(math.isnan(getattr(found, name)) for name in ("Sa", "Sq", "Sp", "Sv", "Sz", "Ssk", "Sku"))
