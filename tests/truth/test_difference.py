"""Deviations by hand, openings against masks, and what edges may differ by."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from waferlens.errors import UsageError
from waferlens.ops.difference import deviation, edge_tolerance, opened

RANDOM = np.random.default_rng(5)
signed_maps = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    elements=st.integers(-4, 4).map(float),
)


def flat(grey: float, shape: tuple[int, int] = (3, 4)) -> np.ndarray:
    return np.full(shape, grey, np.float32)


def opened_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """The union of all squares that lie in the mask, a square reaching past the border by at most half of a side."""
    h, w = mask.shape
    out = np.zeros_like(mask)
    half = size // 2
    for y in range(-half, h - (size - half) + 1):
        for x in range(-half, w - (size - half) + 1):
            square = (slice(max(y, 0), y + size), slice(max(x, 0), x + size))
            if mask[square].all():
                out[square] = True
    return out


def test_a_difference_is_told_in_units_of_its_tolerance():
    image = np.array([[100, 130, 60, 255, 0]], np.uint8)
    reference = np.array([[40, 40, 40, 40, 40]], np.float32)
    found = deviation(image, reference, 10, 20, gain=2, offset=20)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[0, 3, -2, 15.5, -5]])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_it_is_the_formula_to_the_last_bit(dtype):
    shape = (37, 61)
    image = RANDOM.integers(0, np.iinfo(dtype).max if dtype != np.float32 else 1000, shape).astype(dtype)
    reference = RANDOM.uniform(0, 4 * image.mean(), shape).astype(np.float32)
    light, dark = (RANDOM.uniform(1, 9, shape).astype(np.float32) for _ in range(2))
    care = RANDOM.random(shape) > 0.3
    gain, offset = np.float32(1.1), np.float32(-7.3)
    difference = image.astype(np.float32) - (gain * reference + offset)
    expected = np.where(care, difference / np.where(difference > 0, light, dark), 0)
    options = {"gain": 1.1, "offset": -7.3}
    np.testing.assert_array_equal(deviation(image, reference, light, dark, care=care, **options), expected)
    as_bytes = care.astype(np.uint8) * 255
    np.testing.assert_array_equal(deviation(image, reference, light, dark, care=as_bytes, **options), expected)
    # neither gaps nor the order of axes nor a read-only file matter
    image.flags.writeable = False
    part = deviation(image[::2, ::3], reference[::2, ::3], light[::2, ::3], 4.0, **options)
    np.testing.assert_array_equal(
        part, np.where(difference > 0, difference / light, difference / np.float32(4))[::2, ::3]
    )


def test_what_nobody_cares_for_and_what_is_no_number_deviates_by_nothing():
    image = np.array([[np.nan, np.inf, 9, 9]], np.float32)
    care = np.array([[1, 0, 0, 1]], np.uint8)
    np.testing.assert_array_equal(deviation(image, flat(0, (1, 4)), 1, 1, care=care), [[0, 0, 0, 9]])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"reference": flat(0, (4, 3))}, "reference: 4 x 3 pixels, but the image has 3 x 4"),
        ({"reference": flat(0).astype(float)}, "reference: the type is float64, and must be one of float32"),
        ({"image": flat(0).astype(np.int16)}, "image: the type is int16, and must be one of uint8, uint16, float32"),
        ({"image": np.zeros((0, 4), np.uint8)}, r"image: .* at least one pixel .* \(0, 4\)"),
        ({"image": np.zeros((3, 4, 3), np.uint8)}, "image: rows and columns"),
        ({"light": flat(1, (3, 5))}, "light: 3 x 5 pixels"),
        ({"light": 0.0}, "a tolerance must be a positive"),
        ({"dark": flat(-1)}, "a tolerance must be a positive"),
        ({"dark": float("nan")}, "a tolerance must be a positive"),
        ({"care": np.ones(4, bool)}, "care: 4 pixels"),
        ({"care": flat(1)}, "care: the type is float32, and must be one of bool, uint8"),
    ],
)
def test_misuse_is_told(change, told):
    right = {"image": np.zeros((3, 4), np.uint8), "reference": flat(0), "light": 1.0, "dark": 1.0, "care": None}
    with pytest.raises(UsageError, match=told):
        deviation(**{**right, **change})


def test_what_is_smaller_than_the_square_goes():
    units = np.zeros((9, 12), np.float32)
    units[1:4, 1:4] = 5
    units[2, 2] = 9  # a peak no square reaches
    units[6:8, 5:9] = -4
    units[5, 10] = 7
    at_three = opened(units, 3)
    expected = np.zeros_like(units)
    expected[1:4, 1:4] = 5
    np.testing.assert_array_equal(at_three, expected)
    expected[6:8, 5:9] = -4
    np.testing.assert_array_equal(opened(units, 2), expected)
    alone = opened(units, 1)
    np.testing.assert_array_equal(alone, units)
    assert not np.shares_memory(alone, units)


@given(signed_maps, st.integers(1, 5), st.sampled_from([0.0, 0.5, 1.0, 2.5]))
@settings(max_examples=120, deadline=None)
def test_cutting_commutes_with_opening(units, size, threshold):
    found = opened(units, size)
    np.testing.assert_array_equal(found > threshold, opened_mask(units > threshold, size))
    np.testing.assert_array_equal(found < -threshold, opened_mask(units < -threshold, size))


@given(signed_maps, st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_opening_never_adds_and_a_second_one_changes_nothing(units, size):
    found = opened(units, size)
    assert (np.abs(found) <= np.abs(units)).all()
    assert (found * units >= 0).all()
    np.testing.assert_array_equal(opened(found, size), found)
    for turned in (np.flipud, np.fliplr, np.transpose, np.negative):
        np.testing.assert_array_equal(opened(turned(units), size), turned(found))


@pytest.mark.parametrize("size", [3, 5, 9, 16, 17])
def test_large_maps_open_as_opencv_says(size):
    units = cv2.GaussianBlur(RANDOM.normal(size=(150, 170)).astype(np.float32), None, 5) * 20
    found = opened(units, size)
    square = np.ones((size, size), np.uint8)
    if size % 2:
        expected = cv2.morphologyEx(np.maximum(units, 0), cv2.MORPH_OPEN, square)
        expected -= cv2.morphologyEx(np.maximum(-units, 0), cv2.MORPH_OPEN, square)
        np.testing.assert_array_equal(found, expected)
    assert np.abs(found).max() > 1
    np.testing.assert_array_equal(found > 1, opened_mask(units > 1, size))


@pytest.mark.parametrize("size", [0, -3, 2.5])
def test_a_square_needs_a_side(size):
    with pytest.raises(UsageError, match=f"size_px must be a whole number of at least 1, got {size}"):
        opened(flat(0), size)


def test_a_step_is_tolerated_where_it_may_lie():
    step = np.zeros((5, 12), np.float32)
    step[:, 6:] = 80
    found = edge_tolerance(step, 0.5)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.tile(np.array([0] * 5 + [40] * 2 + [0] * 5, np.float32), (5, 1)))
    np.testing.assert_array_equal(edge_tolerance(step.T, 0.5), found.T)
    np.testing.assert_array_equal(edge_tolerance(step, 2)[2], [0] * 4 + [160] * 4 + [0] * 4)
    assert not edge_tolerance(step, 0).any()
    assert not edge_tolerance(flat(7), 3).any()


@given(st.floats(0, 2.5), st.floats(0, 2 * np.pi), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_no_shift_within_the_tolerance_deviates_by_more(position, direction, share):
    reference = np.random.default_rng(3).uniform(0, 255, (20, 22)).astype(np.float32)
    dx, dy = share * position * np.cos(direction), share * position * np.sin(direction)
    y, x = np.mgrid[:20, :22].astype(np.float64)
    x, y = np.clip(x + dx, 0, 21), np.clip(y + dy, 0, 19)
    left, top = np.minimum(x.astype(int), 20), np.minimum(y.astype(int), 18)
    fx, fy = x - left, y - top
    upper = (1 - fx) * reference[top, left] + fx * reference[top, left + 1]
    lower = (1 - fx) * reference[top + 1, left] + fx * reference[top + 1, left + 1]
    moved = (1 - fy) * upper + fy * lower
    assert (np.abs(moved - reference) <= edge_tolerance(reference, position) + 1e-3).all()


@pytest.mark.parametrize("position", [-1.0, float("nan"), float("inf")])
def test_a_position_tolerance_is_a_length(position):
    with pytest.raises(UsageError, match="position_px must be 0 or a positive number"):
        edge_tolerance(flat(0), position)
