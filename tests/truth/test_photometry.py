"""Gain and offset are found exactly without noise, and a fifth of the image full of defects does not move them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waferlens.ops.photometry import gain_offset

SHAPE = (96, 120)
gains = st.floats(0.2, 5)
offsets = st.floats(-100, 100)


def ground(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(20, 200, SHAPE).astype(np.float32)


@given(gains, offsets, st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_line_is_recovered(gain, offset, seed):
    reference = ground(seed)
    image = gain * reference.astype(np.float64) + offset
    found = gain_offset(image, reference, np.ones(SHAPE, bool))
    assert found == pytest.approx((gain, offset), rel=1e-6, abs=1e-4)


@given(gains, offsets, st.integers(0, 99), st.sampled_from([-1.0, 1.0]))
@settings(max_examples=40, deadline=None)
def test_a_fifth_of_defects_does_not_matter(gain, offset, seed, sign):
    rng = np.random.default_rng(seed)
    reference = ground(seed)
    image = gain * reference + offset + rng.normal(0, 2, SHAPE)
    top = rng.integers(0, SHAPE[0] * 8 // 10 + 1)
    image[top : top + SHAPE[0] // 5] += sign * 150
    found = gain_offset(image, reference, np.ones(SHAPE, bool))
    assert found[0] == pytest.approx(gain, abs=0.01)
    assert found[1] == pytest.approx(offset, abs=1)


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
@settings(max_examples=40, deadline=None)
def test_a_constant_reference_gives_the_gain_one(level, offset):
    rng = np.random.default_rng(0)
    image = level + offset + rng.normal(0, 1, SHAPE)
    found = gain_offset(image, np.full(SHAPE, level, np.float32), np.ones(SHAPE, bool))
    assert found[0] == 1
    assert found[1] == pytest.approx(offset, abs=0.2)


def test_what_is_not_seen_does_not_count():
    reference, seen = ground(0), np.zeros(SHAPE, bool)
    seen[:20] = True
    image = np.where(seen, 2 * reference + 3, 0)
    assert gain_offset(image, reference, seen) == pytest.approx((2, 3), abs=1e-4)
    assert gain_offset(image, reference, np.zeros(SHAPE, bool)) == (1.0, 0.0)


@given(
    gains,
    offsets,
    st.floats(0.005, 0.995),
    st.integers(0, 99),
    st.sampled_from([0.0, 0.5, 4.0]),
)
@settings(max_examples=60, deadline=None)
def test_a_mask_of_any_share_of_white(gain, offset, share, seed, noise):
    rng = np.random.default_rng(seed)
    reference = np.where(rng.random(SHAPE) < share, 255, 0).astype(np.float32)
    image = gain * reference + offset + rng.normal(0, noise, SHAPE)
    found = gain_offset(image, reference, np.ones(SHAPE, bool))
    least = SHAPE[0] * SHAPE[1] * min(share, 1 - share)
    assert found[0] == pytest.approx(gain, abs=1e-6 + 6 * noise / 255 / least**0.5)
    assert found[1] == pytest.approx(offset, abs=1e-3 + 6 * noise / least**0.5)


@pytest.mark.parametrize("dark", [0.02, 0.1, 0.3])
def test_a_saturated_mask_with_soft_edges_and_defects(dark):
    """White is exactly white, copper is noisy, edges are in between, and a third of the copper is gone."""
    rng = np.random.default_rng(1)
    clean = np.full((640, 640), 255.0)
    clean[:, : int(640 * dark)] = 10
    clean[:, int(640 * dark)] = 128
    image = np.where(clean < 255, clean + rng.normal(0, 4, clean.shape), 255)
    image[:200, : int(640 * dark)] = 255
    found = gain_offset(image.clip(0, 255).round().astype(np.uint8), clean.astype(np.float32), clean > -1)
    assert found == pytest.approx((1, 0), abs=0.5)
    assert found[0] == pytest.approx(1, abs=0.005)


@pytest.mark.parametrize("gain", [0.3, 1.0, 2.5])
def test_a_strongly_skewed_histogram(gain):
    """Most of it is dark and tells little of the gain; few bright ones do, and a fifth of the area is a defect."""
    rng = np.random.default_rng(2)
    reference = (rng.pareto(3.0, SHAPE) * 20).astype(np.float32).clip(0, 255)
    image = gain * reference + 7 + rng.normal(0, 0.5, SHAPE)
    image[: SHAPE[0] // 5] = 90
    found = gain_offset(image, reference, np.ones(SHAPE, bool))
    assert found == pytest.approx((gain, 7), abs=0.1)
    assert found[0] == pytest.approx(gain, abs=0.01)


def test_a_few_hot_pixels_do_not_set_the_gain():
    rng = np.random.default_rng(3)
    reference = ground(3)
    image = 1.5 * reference + 4 + rng.normal(0, 1, SHAPE)
    reference.ravel()[:: SHAPE[0] * SHAPE[1] // 5] = 4000
    found = gain_offset(image, reference, np.ones(SHAPE, bool))
    assert found == pytest.approx((1.5, 4), abs=0.5)


def test_the_noise_of_the_reference_does_not_pull_the_gain():
    rng = np.random.default_rng(4)
    clean = np.kron(rng.uniform(60, 180, (32, 32)), np.ones((16, 16)))
    reference = (clean + rng.normal(0, 20, clean.shape)).astype(np.float32)
    image = 0.8 * clean + 20 + rng.normal(0, 20, clean.shape)
    found = gain_offset(image, reference, np.ones(clean.shape, bool))
    # least squares over pixels gives 0.8 / (1 + (20 / 35)²) = 0.6
    assert found[0] == pytest.approx(0.8, abs=0.03)


def test_a_pattern_finer_than_blocks_still_tells_the_gain():
    y, x = np.mgrid[:256, :256]
    reference = (100 + 50 * ((x + y) % 2)).astype(np.float32)
    assert gain_offset(0.7 * reference + 9, reference, np.ones(x.shape, bool)) == pytest.approx((0.7, 9), abs=1e-3)


@pytest.mark.parametrize("period", [8, 16, 64])
def test_a_pattern_with_the_period_of_a_grid_is_seen_in_all_phases(period):
    x = np.arange(1024) % period
    reference = np.broadcast_to(np.where(x < period // 8, 200, 50), (1024, 1024)).astype(np.float32)
    found = gain_offset((0.5 * reference + 30).astype(np.uint8), reference, np.ones(reference.shape, bool))
    assert found == pytest.approx((0.5, 30), abs=1e-3)


def test_pixels_that_are_no_numbers_do_not_count():
    rng = np.random.default_rng(5)
    reference = np.kron(rng.uniform(60, 180, (24, 24)), np.ones((8, 8))).astype(np.float32)
    image = 2 * reference + 1
    image[50:60] = np.nan
    reference[90:95, 20:60] = np.inf
    for part in (np.s_[:], np.s_[:20, :20]):
        found = gain_offset(image[part], reference[part], np.ones(image[part].shape, bool))
        assert found == pytest.approx((2, 1), abs=1e-3)


def test_sixteen_bits_lose_no_digits():
    reference = (ground(6) + 40_000).astype(np.float32)
    image = (1.25 * (reference.astype(np.float64) - 40_000) + 20_000).astype(np.float64)
    gain, offset = gain_offset(image, reference, np.ones(SHAPE, bool))
    assert gain == pytest.approx(1.25, abs=1e-3)
    assert gain * 40_000 + offset == pytest.approx(20_000, abs=0.2)
