"""Pieces and their numbers: by hand, against OpenCV, and at the worst inputs."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from waferlens.errors import UsageError
from waferlens.ops.blobs import Blobs, blobs, find
from waferlens.ops.difference import BAND_PIXELS, deviation, opened

RANDOM = np.random.default_rng(6)
FIELDS = ("box", "area_px", "peak", "total", "contrast", "light")
shapes = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14)
signed_maps = arrays.arrays(np.float32, shapes, elements=st.sampled_from([-3.0, -1.5, 0.0, 0.0, 0.0, 1.5, 4.0]))


def expected(units: np.ndarray, threshold: float, merge: int, difference: np.ndarray) -> list[tuple]:
    """What OpenCV finds: pixels with at most `merge` between them meet once each is made a square of merge + 1."""
    rows = []
    for light in (True, False):
        mask = (units > threshold if light else units < -threshold).astype(np.uint8)
        h, w = mask.shape
        grown = np.zeros((h + merge, w + merge), np.uint8)
        for y, x in np.argwhere(mask):
            grown[y : y + merge + 1, x : x + merge + 1] = 1
        number, labels, _, _ = cv2.connectedComponentsWithStats(grown, connectivity=8)
        labels = labels[:h, :w] * mask
        for label in range(1, number):
            y, x = np.nonzero(labels == label)
            values = np.abs(units[y, x])
            box = (x.min() - 0.5, y.min() - 0.5, x.max() + 0.5, y.max() + 0.5)
            rows.append((*box, len(x), values.max(), values.sum(), difference[y, x].mean(), light))
    return sorted(rows)


def as_rows(found: Blobs) -> list[tuple]:
    columns = (*found.box.T, found.area_px, found.peak, found.total, found.contrast, found.light)
    return sorted(zip(*columns, strict=True))


def same(one: Blobs, other: Blobs) -> None:
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.score == other.score


def test_two_pieces_by_hand():
    units = np.zeros((6, 8), np.float32)
    units[1, 1:3] = 2, 5
    units[2, 3] = 3  # meets at a corner
    units[4:6, 6:8] = -4
    units[0, 7] = 1
    image = (units * 10 + 100).astype(np.uint8)
    found = blobs(units, 1.0, image=image, reference=np.full(units.shape, 50, np.float32), gain=2)
    assert len(found) == 2
    np.testing.assert_array_equal(found.box, [[0.5, 0.5, 3.5, 2.5], [5.5, 3.5, 7.5, 5.5]])
    np.testing.assert_array_equal(found.area_px, [3, 4])
    np.testing.assert_array_equal(found.peak, [5, 4])
    np.testing.assert_array_equal(found.total, [10, 16])
    np.testing.assert_allclose(found.contrast, [100 / 3, -40])
    np.testing.assert_array_equal(found.light, [True, False])
    assert found.score == 5
    large = blobs(units, 1.0, min_area_px=4)
    np.testing.assert_array_equal(large.area_px, [4])
    assert np.isnan(large.contrast).all()
    assert large.score == 5  # of the map, not of what is left


@given(signed_maps, st.sampled_from([0.0, 1.0, 1.5, 9.0]), st.integers(0, 4))
@settings(max_examples=150, deadline=None)
def test_pieces_are_opencvs(units, threshold, merge):
    image = np.random.default_rng(0).integers(0, 255, units.shape).astype(np.uint8)
    reference = np.full(units.shape, 17, np.float32)
    found = blobs(units, threshold, merge_px=merge, image=image, reference=reference)
    rows = expected(units, threshold, merge, image - reference)
    assert len(found) == len(rows)
    np.testing.assert_allclose(np.array(as_rows(found), float), np.array(rows, float), rtol=1e-6)
    assert (np.diff(found.peak) <= 0).all()
    assert found.score == np.abs(units).max()


@pytest.mark.parametrize("merge", [0, 1, 3])
def test_a_dense_map_is_opencvs(merge):
    units = cv2.GaussianBlur(RANDOM.normal(size=(200, 260)).astype(np.float32), None, 1.2) * 9
    found = blobs(units, 1.3, merge_px=merge, image=units, reference=np.zeros_like(units))
    rows = expected(units, 1.3, merge, units)
    assert len(rows) > 20
    np.testing.assert_allclose(np.array(as_rows(found), float), np.array(rows, float), rtol=1e-5)


def test_merging_bridges_as_many_pixels_as_it_says():
    units = np.zeros((9, 12), np.float32)
    units[1, 1] = units[1, 4] = 2  # two pixels between them
    units[4, 4] = 2  # two rows below
    units[1, 2] = -2  # of the other sign: no bridge
    assert [len(blobs(units, 1, merge_px=merge)) for merge in range(4)] == [4, 4, 2, 2]
    joined = blobs(units, 1, merge_px=2)
    np.testing.assert_array_equal(joined.area_px, [3, 1])
    np.testing.assert_array_equal(joined.box[0], [0.5, 0.5, 4.5, 4.5])
    assert len(blobs(units, 1, merge_px=10**6)) == 2


def test_nothing_and_everything():
    none = blobs(np.zeros((5, 7), np.float32), 0)
    assert len(none) == 0
    assert none.box.shape == (0, 4)
    assert none.score == 0
    assert len(blobs(np.full((5, 7), np.nan, np.float32), 0)) == 0
    part = np.array([[np.nan, 3, 0, -2], [np.nan, np.nan, 0, 0]], np.float32)
    np.testing.assert_array_equal(blobs(part, 1).peak, [3, 2])
    assert blobs(part, 1).score == 3
    one = blobs(np.full((1, 1), -2, np.float32), 1)
    np.testing.assert_array_equal(one.box, [[-0.5, -0.5, 0.5, 0.5]])
    assert not one.light[0]
    whole = blobs(np.full((300, 400), 2, np.float32), 1)
    np.testing.assert_array_equal(whole.box, [[-0.5, -0.5, 399.5, 299.5]])
    assert whole.area_px[0] == 120_000
    assert whole.total[0] == 240_000


def test_chequerboards():
    board = np.indices((301, 402)).sum(0) % 2
    one = blobs(board.astype(np.float32) * 2, 1)
    np.testing.assert_array_equal(one.area_px, [board.sum()])
    both = blobs(board.astype(np.float32) * 4 - 2, 1)
    np.testing.assert_array_equal(sorted(both.area_px), sorted([board.sum(), board.size - board.sum()]))
    # every second pixel of every second row: as many pieces as there can be
    units = np.zeros((301, 402), np.float32)
    units[::2, ::2] = 2
    alone = blobs(units, 1)
    assert len(alone) == 151 * 201
    np.testing.assert_array_equal(alone.box[:2, 0], [-0.5, 1.5])  # equally strong ones in reading order
    assert len(blobs(units, 1, merge_px=1)) == 1


def test_pieces_that_meet_late():
    comb = np.zeros((60, 99), np.float32)
    comb[:, ::2] = 2
    assert len(blobs(comb, 1)) == 50
    comb[-1] = 2
    np.testing.assert_array_equal(blobs(comb, 1).area_px, [50 * 60 + 49])
    spiral = np.zeros((41, 41), np.float32)
    for ring in range(0, 20, 2):
        spiral[ring, ring : 41 - ring] = spiral[ring : 41 - ring, 40 - ring] = 2
        spiral[40 - ring, ring : 41 - ring] = spiral[ring + 2 : 41 - ring, ring] = 2
        spiral[ring + 2, ring : ring + 3] = 2
    np.testing.assert_array_equal(blobs(spiral, 1).area_px, [(spiral > 0).sum()])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"threshold": -1.0}, "threshold must be 0 or a positive number, got -1"),
        ({"threshold": float("nan")}, "threshold must be 0"),
        ({"merge_px": -1}, "merge_px must be a whole number of at least 0, got -1"),
        ({"min_area_px": 0}, "min_area_px must be a whole number of at least 1, got 0"),
        ({"deviation": np.zeros((2, 3))}, "deviation: the type is float64"),
        ({"image": np.zeros((2, 3), np.uint8)}, "contrast needs both image and reference"),
    ],
)
def test_misuse_is_told(change, told):
    right = {"deviation": np.zeros((2, 3), np.float32), "threshold": 1.0}
    with pytest.raises(UsageError, match=told):
        blobs(**{**right, **change})


def test_misuse_of_find_is_told():
    image, reference = np.zeros((3, 4), np.uint8), np.zeros((3, 4), np.float32)
    with pytest.raises(UsageError, match="a tolerance must be a positive"):
        find(image, reference, 1, 0, 1)
    with pytest.raises(UsageError, match="opening_px must be a whole number of at least 1, got 0"):
        find(image, reference, 1, 1, 1, opening_px=0)
    with pytest.raises(UsageError, match="reference: 2 x 4 pixels, but the image has 3 x 4"):
        find(image, reference[:2], 1, 1, 1)


@given(
    shapes,
    st.integers(0, 2**32 - 1),
    st.sampled_from([np.uint8, np.uint16, np.float32]),
    st.integers(1, 6),
    st.integers(0, 2),
    st.sampled_from([0.0, 0.7, 1.5]),
)
@settings(max_examples=150, deadline=None)
def test_at_one_go_and_by_parts_are_the_same(shape, seed, dtype, opening, merge, threshold):
    random = np.random.default_rng(seed)
    image = random.integers(0, 40, shape).astype(dtype)
    reference = (random.integers(0, 40, shape) * random.choice([0, 1])).astype(np.float32)
    light = random.uniform(5, 15, shape).astype(np.float32) if random.random() < 0.5 else 9.0
    care = random.random(shape) > 0.1 if random.random() < 0.5 else None
    photometry = {"gain": 1.25, "offset": 0.5}
    limits = {"merge_px": merge, "min_area_px": 2}
    units = opened(deviation(image, reference, light, 7.0, care=care, **photometry), opening)
    parts = blobs(units, threshold, image=image, reference=reference, **photometry, **limits)
    at_one_go = find(image, reference, light, 7.0, threshold, care=care, opening_px=opening, **photometry, **limits)
    same(at_one_go, parts)


@pytest.mark.parametrize("opening", [1, 3, 4])
@pytest.mark.parametrize("threshold", [0.5, 1.9])
def test_they_are_the_same_where_the_map_is_made_in_several_bands(opening, threshold):
    image = cv2.GaussianBlur(RANDOM.normal(size=(500, 700)).astype(np.float32), None, 3) * 12
    image[180:200, 100:600] = 4  # across the first band's end, 187 rows down
    assert 180 < BAND_PIXELS // 700 < 200
    reference = np.zeros_like(image)
    units = opened(deviation(image, reference, 1, 0.8), opening)
    parts = blobs(units, threshold, merge_px=2, image=image, reference=reference)
    assert len(parts) > 3
    same(find(image, reference, 1, 0.8, threshold, opening_px=opening, merge_px=2), parts)
