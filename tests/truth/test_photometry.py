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
