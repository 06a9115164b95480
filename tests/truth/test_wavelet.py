"""The Haar transform by its definition, and R2 on steps, slopes, lines and points, where everything is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from waferlens.errors import UsageError
from waferlens.ops.wavelet import (
    GRID,
    Haar,
    clustering_energy,
    excess,
    features,
    haar2d,
    interscale_ratio,
    known_modulus,
    modulus,
    population,
    preprocessed,
    sub_images,
    suspects,
)

RANDOM = np.random.default_rng(11)
MIDDLE = (20, 20)


def back(haar: Haar, shape: tuple[int, int]) -> np.ndarray:
    """The inverse transform, cut to the size each level had."""
    sizes = [shape]
    for _ in haar.details[1:]:
        sizes.append(tuple((n + 1) // 2 for n in sizes[-1]))
    smooth = haar.smooth
    for (horizontal, vertical, diagonal), (h, w) in zip(reversed(haar.details), reversed(sizes), strict=True):
        finer = np.empty((2 * smooth.shape[0], 2 * smooth.shape[1]))
        finer[::2, ::2] = smooth + horizontal + vertical + diagonal
        finer[::2, 1::2] = smooth + horizontal - vertical - diagonal
        finer[1::2, ::2] = smooth - horizontal + vertical - diagonal
        finer[1::2, 1::2] = smooth - horizontal - vertical + diagonal
        smooth = finer[:h, :w] / 2
    return smooth


def drawn(what: str, size: int = 41) -> np.ndarray:
    """What lies at the lower right corner of the pixel `MIDDLE`."""
    image = np.zeros((size, size), np.float32)
    y, x = MIDDLE
    if what == "step":
        image[:, x + 1 :] = 80
    elif what == "slope":
        image += 3 * np.arange(size)
    elif what == "line":
        image[:, x + 1] = 80
    elif what == "point":
        image[y + 1, x + 1] = 80
    return image


def test_a_cell_by_hand():
    haar = haar2d(np.array([[1, 2], [5, 10]], np.uint8), 1)
    np.testing.assert_array_equal(haar.smooth, [[9]])
    np.testing.assert_array_equal(haar.details[0][:, 0, 0], [-6, -3, 2])
    assert haar.smooth.dtype == haar.details[0].dtype == np.float32


@given(
    arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=19),
    st.sampled_from([np.uint8, np.uint16, np.float32]),
    st.integers(1, 3),
)
@settings(max_examples=80, deadline=None)
def test_it_goes_back_to_the_image(shape, dtype, levels):
    levels = min(levels, max(1, math.ceil(math.log2(max(shape)))))
    image = np.random.default_rng(0).uniform(0, 250, shape).astype(dtype)
    haar = haar2d(image, levels)
    np.testing.assert_allclose(back(haar, shape), image, atol=1e-4)
    assert haar.smooth.shape == tuple(-(-n // 2**levels) for n in shape)


def test_it_keeps_the_energy():
    image = RANDOM.normal(size=(64, 96)).astype(np.float32)
    haar = haar2d(image, 5)
    energy = (haar.smooth**2).sum() + sum((detail**2).sum() for detail in haar.details)
    assert energy == pytest.approx((image**2).sum(), rel=1e-5)


def test_a_last_row_or_column_is_paired_with_itself():
    image = RANDOM.uniform(0, 255, (5, 7)).astype(np.float32)
    even = np.pad(image, ((0, 1), (0, 1)), mode="edge")
    odd, padded = haar2d(image, 1), haar2d(even, 1)
    np.testing.assert_array_equal(odd.smooth, padded.smooth)
    np.testing.assert_array_equal(odd.details[0], padded.details[0])
    assert not odd.details[0][0, -1].any()  # no difference of a row to itself
    assert not odd.details[0][1, :, -1].any()


@pytest.mark.parametrize(("what", "first", "growth"), [("step", 40, 1), ("slope", 1.5, 2), ("line", 40, 1 / 2)])
def test_the_modulus_grows_as_the_shape_says(what, first, growth):
    at_middle = modulus(drawn(what), 4)[:, MIDDLE[0], MIDDLE[1]]
    np.testing.assert_allclose(at_middle, [first * growth**j for j in range(4)], rtol=1e-6)
    turned = modulus(np.ascontiguousarray(drawn(what).T), 4)[:, MIDDLE[0], MIDDLE[1]]
    np.testing.assert_allclose(turned, at_middle, rtol=1e-6)


def test_a_point_falls_to_a_quarter():
    found = modulus(drawn("point"), 3)
    y, x = MIDDLE
    # all three details are 80 / 4**j
    for j in (1, 2, 3):
        half = 2**j // 2
        square = found[j - 1, y + 1 - half : y + 1 + half, x + 1 - half : x + 1 + half]
        np.testing.assert_allclose(square, 80 * math.sqrt(3) / 4**j, rtol=1e-6)
        assert np.count_nonzero(found[j - 1]) == 4**j


def test_it_is_the_modulus_of_the_cells_where_they_are_centred():
    image = RANDOM.uniform(0, 255, (48, 64)).astype(np.float32)
    found = modulus(image, 3)
    for j, detail in enumerate(haar2d(image, 3).details, start=1):
        centres = found[j - 1, 2**j // 2 - 1 :: 2**j, 2**j // 2 - 1 :: 2**j]
        np.testing.assert_allclose(centres, np.sqrt((detail**2).sum(0)) / 2**j, rtol=1e-4, atol=1e-3)


def test_it_moves_with_the_image_and_does_not_see_grey():
    image = RANDOM.uniform(0, 255, (40, 50)).astype(np.float32)
    moved = np.roll(image, (3, 5), (0, 1))
    inner = (slice(None), slice(14, -14), slice(14, -14))
    np.testing.assert_allclose(
        np.roll(modulus(image, 3), (3, 5), (1, 2))[inner], modulus(moved, 3)[inner], rtol=1e-4, atol=1e-3
    )
    np.testing.assert_allclose(modulus(image + 1000, 3), modulus(image, 3), atol=1e-3)
    assert not modulus(np.full((9, 9), 77, np.uint16), 3).any()  # the border shows nothing


@pytest.mark.parametrize("radius", [0, 1, 2])
def test_clustering_energy_is_a_sum_over_a_square(radius):
    wtm = RANDOM.uniform(0, 9, (2, 9, 11)).astype(np.float32)
    around = np.pad(wtm, ((0, 0), (radius, radius), (radius, radius)), mode="edge")
    side = 2 * radius + 1
    windows = np.lib.stride_tricks.sliding_window_view(around, (side, side), (1, 2))
    np.testing.assert_allclose(clustering_energy(wtm, radius), windows.sum((-1, -2)), rtol=1e-5)


@pytest.mark.parametrize(
    ("what", "ratios"),
    [
        # sums over 3 x 3 of what the modulus is, scale by scale
        ("step", [math.log2(3 / 1.5), math.log2(3.75 / 3)]),
        ("slope", [1, 1]),
        ("line", [math.log2(3 / 4), -1]),
        ("point", [math.log2(9 / 16), -2]),
    ],
)
def test_the_ratio_tells_lines_and_points_from_steps_and_slopes(what, ratios):
    wtms = clustering_energy(modulus(drawn(what), 3))
    found = interscale_ratio(wtms)
    assert found.shape == (2, 41, 41)
    np.testing.assert_allclose(found[:, MIDDLE[0], MIDDLE[1]], ratios, rtol=1e-4)


def test_the_ratio_of_nothing_is_nothing():
    wtms = np.array([[[0, 0, 2]], [[0, 3, 0]]], np.float32)
    np.testing.assert_array_equal(interscale_ratio(wtms), [[[0, np.inf, -np.inf]]])


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_sub_images_tile_the_image(h, w, rows, columns):
    if rows > h or columns > w:
        with pytest.raises(UsageError, match="of sub-images do not go into"):
            sub_images((h, w), (rows, columns))
        return
    seen = np.zeros((h, w), int)
    places = sub_images((h, w), (rows, columns))
    for place in places:
        seen[place] += 1
    assert (seen == 1).all()
    sizes = {seen[place].shape for place in places}
    assert max(a for a, _ in sizes) - min(a for a, _ in sizes) <= 1
    assert max(b for _, b in sizes) - min(b for _, b in sizes) <= 1


def test_the_document_has_20_sub_images():
    assert len(sub_images((480, 640))) == GRID[0] * GRID[1] == 20


def test_populations_are_numpys():
    wtm = RANDOM.uniform(0, 9, (3, 43, 57)).astype(np.float32) + 1e3
    mean, sd = population(wtm)
    for n, place in enumerate(sub_images(wtm.shape[1:])):
        part = wtm[(slice(None), *place)].astype(float)
        np.testing.assert_allclose(mean[n], part.mean((1, 2)))
        np.testing.assert_allclose(sd[n], part.std((1, 2)), rtol=1e-6)


def test_the_median_takes_points_and_sobel_leaves_the_slope():
    y, x = np.mgrid[:20, :30]
    plane = (3 * x + 4 * y).astype(np.float32)
    np.testing.assert_allclose(preprocessed(plane)[2:-2, 2:-2], 5, rtol=1e-5)
    dirty = plane.copy()
    dirty[10, 10] = 1e4
    assert np.abs(preprocessed(dirty)[2:-2, 2:-2] - 5).max() < 2
    np.testing.assert_array_equal(preprocessed(dirty, median_px=1, sobel=False), dirty)
    for dtype in (np.uint8, np.uint16):
        np.testing.assert_allclose(preprocessed(plane.astype(dtype))[2:-2, 2:-2], 5, rtol=1e-5)


def die() -> np.ndarray:
    """A good die: a dark frame of conductors and pads on grey, a little noise."""
    image = np.full((120, 150), 90, np.float32)
    image[20:100, 30:34] = image[20:24, 30:120] = 160
    for x in range(40, 120, 20):
        image[60:72, x : x + 12] = 200
    return image + np.random.default_rng(2).normal(0, 1, image.shape).astype(np.float32)


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("kind", ["scratch", "spot", "point"])
def test_a_defect_is_found_and_the_pattern_is_not(kind, shift):
    image = np.roll(die(), shift, 1) + np.random.default_rng(3).normal(0, 1, (120, 150)).astype(np.float32)
    rows, columns = slice(88, 112), slice(58, 90)
    if kind == "scratch":
        for step in range(25):
            image[108 - step // 2, 60 + step : 64 + step] += 60
    else:
        side = 3 if kind == "point" else 6
        image[100 : 100 + side, 70 : 70 + side] += 60
    good, found = features(die()), features(image)
    known = known_modulus(good, suspects(good, good.mean, good.sd), reach_px=1 + shift)
    beyond = excess(found, good.mean, good.sd, known)
    assert beyond[rows, columns].max() > 40
    beyond[rows, columns] = 0
    assert beyond.max() < 12
    # the golden image explains itself
    assert not excess(good, good.mean, good.sd, known_modulus(good, suspects(good, good.mean, good.sd), 0)).any()


def test_excess_is_its_definition():
    good, found = features(die()), features(np.roll(die(), 2, 0))
    limits = {"above_sd": 0.7, "ratio_below": 0.3}
    known = known_modulus(good, suspects(good, good.mean, good.sd, **limits), 1)
    left = suspects(found, good.mean, good.sd, **limits)
    expected = np.zeros(left.shape)
    for n, place in enumerate(sub_images(left.shape[1:])):
        for j in range(2):
            limit = good.mean[n, j] + 0.7 * good.sd[n, j]
            beyond = (found.wtm[j][place] - np.maximum(known[j][place], limit)) / good.sd[n, j]
            expected[j][place] = np.where(left[j][place], np.maximum(beyond, 0), 0)
    got = excess(found, good.mean, good.sd, known, **limits)
    assert np.count_nonzero(got) > 50
    np.testing.assert_allclose(got, expected.max(0), rtol=1e-4, atol=1e-4)


def test_a_population_without_spread_makes_any_excess_infinite():
    flat = features(np.full((30, 30), 9, np.uint8), grid=(1, 1))
    spot = np.full((30, 30), 9, np.uint8)
    spot[14:18, 14:18] = 200
    nothing = np.zeros((2, 30, 30), np.float32)
    beyond = excess(features(spot, grid=(1, 1)), flat.mean, flat.sd, nothing)
    assert set(np.unique(beyond)) == {0, np.inf}


def test_suspects_are_their_definition():
    found = features(die(), scales=3, median_px=1, sobel=False)
    mean, sd = found.mean - 0.1, found.sd * 0.9
    expected = found.ratio < -0.2
    for n, place in enumerate(sub_images(expected.shape[1:])):
        for j in range(2):
            expected[j][place] &= found.wtm[j][place] > mean[n, j] + 0.7 * sd[n, j]
    got = suspects(found, mean, sd, above_sd=0.7, ratio_below=-0.2)
    assert expected.sum() > 10
    assert np.count_nonzero(got != expected) <= 2  # log2 in float32 may round to the limit


def test_a_suspect_explains_a_square():
    good = features(die(), scales=2)
    one = np.zeros((1, *good.wtm.shape[1:]), bool)
    one[0, 40, 50] = True
    known = known_modulus(good, one, 2)
    assert np.count_nonzero(known) == 25
    assert (known[0, 38:43, 48:53] == good.wtm[0, 40, 50]).all()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda image: haar2d(image, 0), "levels must be a whole number of at least 1, got 0"),
        (lambda image: haar2d(image, 6), "levels: an image of 20 x 30 pixels has 5, got 6"),
        (lambda image: haar2d(image.astype(float), 1), "image: the type is float64"),
        (lambda image: modulus(image, 0), "scales must be a whole number"),
        (lambda image: modulus(image, 6), "squares of 64 pixels are too large for an image of 20 x 30"),
        (lambda image: preprocessed(image, median_px=4), "median_px must be 1, 3 or 5, got 4"),
        (lambda image: clustering_energy(image[None], -1), "radius_px must be a whole number of at least 0"),
        (lambda image: features(image, grid=(40, 5)), "grid: 40 rows of sub-images do not go into 20 pixels"),
        (lambda image: known_modulus(features(image), image[None, 1:] > 0, 1), "suspects: 19 x 30 pixels"),
        (lambda image: excess(features(image), 0, 0, image[None, 1:]), "known: 19 x 30 pixels"),
        (lambda image: suspects(features(image, scales=1), 0, 0), "a ratio needs at least 2 scales, got 1"),
    ],
)
def test_misuse_is_told(call, told):
    with pytest.raises(UsageError, match=told):
        call(np.ones((20, 30), np.float32))
