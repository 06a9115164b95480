"""Boxes and masks follow the pixels: an object is painted, the image varied, and the object found again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waferlens.prepare.package_geometry import placed
from waferlens.recipe.package import PackageAugment
from waferlens.train.detection_augment import (
    Sample,
    Source,
    displacement,
    equalised,
    grey_varied,
    motion,
    numbered,
    plain,
    varied,
    warped,
    windowed,
)
from waferlens.train.detection_mixing import mixed, pasted

SIZE = (192, 160)
QUAD = np.array([(40.0, 30.0), (340.0, 36.0), (332.0, 424.0), (33.0, 418.0)])
BOXES = np.array([(100.0, 120.0, 160.0, 190.0), (200.0, 260.0, 290.0, 300.0)]) - 0.5


def painted(colours: int = 3) -> Source:
    """Two bright rectangles on black, whose outlines and masks are known."""
    pixels = np.zeros((460, 380, colours), np.uint8)
    masks = []
    outlines = []
    for x0, y0, x1, y1 in BOXES:
        window = slice(int(y0 + 0.5), int(y1 + 0.5)), slice(int(x0 + 0.5), int(x1 + 0.5))
        pixels[window] = 255
        masks.append(
            (
                np.ones((window[0].stop - window[0].start, window[1].stop - window[1].start), bool),
                (window[1].start, window[0].start),
            )
        )
        step = np.linspace(0, 1, 20)
        across, down = x0 + (x1 - x0) * step, y0 + (y1 - y0) * step
        outlines.append(
            np.concatenate(
                [np.stack([across, np.full(20, y)], axis=1) for y in (y0, y1)]
                + [np.stack([np.full(20, x), down], axis=1) for x in (x0, x1)]
            )
        )
    return Source(pixels, QUAD, tuple(outlines), np.array([0, 1]), numbered(masks, (460, 380)))


GEOMETRIES = [
    PackageAugment(flip=True),
    PackageAugment(flip=False, rotate_deg=40.0),
    PackageAugment(flip=False, quarter_turns=True),
    PackageAugment(flip=False, scale=0.4, shift=0.2),
    PackageAugment(flip=False, warp_px=8.0),
    PackageAugment(flip=True, rotate_deg=180.0, scale=0.3, shift=0.1, warp_px=6.0),
]


@pytest.mark.parametrize("spec", GEOMETRIES)
def test_boxes_follow_the_pixels(spec: PackageAugment) -> None:
    source, placement = painted(), placed(QUAD, *SIZE)
    compared = 0
    for draw in range(12):
        sample = varied(source, placement, spec, np.random.default_rng([draw]))
        assert sample.numbers is not None
        x0, y0, x1, y1 = sample.inner
        for number, box in enumerate(sample.boxes):
            where = np.argwhere(sample.numbers == number + 1)
            found = np.array([*(where.min(axis=0)[::-1] - 0.5), *(where.max(axis=0)[::-1] + 0.5)])
            assert found == pytest.approx(box, abs=1.01)  # a pixel belongs to a mask by its centre
            bright = sample.pixels[..., 0] > 127
            own = np.zeros_like(bright)
            low, high = np.floor(box[:2] + 0.5).astype(int), np.ceil(box[2:] + 0.5).astype(int)
            own[low[1] : high[1], low[0] : high[0]] = bright[low[1] : high[1], low[0] : high[0]]
            assert own.sum() == pytest.approx((sample.numbers == number + 1).sum(), rel=0.06)
            compared += 1
        outside = np.ones(SIZE, bool)
        outside[y0:y1, x0:x1] = False
        assert np.all(sample.pixels[outside] == 114)
    assert compared >= 8


def test_kinds_stay_with_their_boxes() -> None:
    source, placement = painted(), placed(QUAD, *SIZE)
    for draw in range(20):
        spec = PackageAugment(flip=True, shift=0.4)
        sample = varied(source, placement, spec, np.random.default_rng([draw]))
        for box, kind in zip(sample.boxes, sample.kinds, strict=True):
            sides = box[2:] - box[:2]
            cut = np.any(
                np.isclose(
                    box,
                    np.array(
                        [
                            *sample.inner,
                        ]
                    )
                    - 0.5,
                )
            )
            assert cut or (sides[1] > sides[0]) == (kind == 0)


def test_an_object_that_is_hardly_shown_is_none() -> None:
    source, placement = painted(), placed(QUAD, *SIZE)
    assert len(plain(source, placement).boxes) == 2
    gone = placement.moved(np.array([[1, 0, -60.0], [0, 1, 0], [0, 0, 1]]))
    sample = plain(source, gone)
    assert sample.kinds.tolist() == [1]
    assert sample.numbers is not None
    assert set(np.unique(sample.numbers)) == {0, 1}


def test_nothing_is_varied_unless_asked_for() -> None:
    source, placement = painted(), placed(QUAD, *SIZE)
    nothing = PackageAugment(flip=False)
    a, b = plain(source, placement), varied(source, placement, nothing, np.random.default_rng(1))
    assert np.array_equal(a.pixels, b.pixels)
    assert np.array_equal(a.boxes, b.boxes)


def test_the_same_draw_gives_the_same_image() -> None:
    source, placement = painted(), placed(QUAD, *SIZE)
    spec = PackageAugment(
        rotate_deg=10, warp_px=4, gain=0.3, hue=0.1, noise_grey=6, blur_px=1, clahe=0.5, offset_grey=9
    )
    first, second, third = (varied(source, placement, spec, np.random.default_rng([1, 2, one])) for one in (3, 3, 4))
    assert np.array_equal(first.pixels, second.pixels)
    assert not np.array_equal(first.pixels, third.pixels)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_motions_stay_inside_what_was_asked_for(seed: int) -> None:
    spec = PackageAugment(flip=True, rotate_deg=20, scale=0.3, shift=0.1)
    placement = placed(QUAD, *SIZE)
    matrix = motion(spec, placement, np.random.default_rng(seed))
    scale = np.sqrt(abs(np.linalg.det(matrix[:2, :2])))
    assert 0.7 <= scale <= 1.3
    x0, y0, x1, y1 = placement.inner_box
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    moved = matrix[:2, :2] @ middle + matrix[:2, 2] - middle
    assert np.all(np.abs(moved) <= 0.1 * np.array([x1 - x0, y1 - y0]) + 1e-9)
    plain_turn = matrix[:2, :2] / scale
    angles = [
        abs(np.degrees(np.arctan2(turn[0, 1], turn[0, 0])))
        for turn in (plain_turn * np.array([a, b]) for a in (1, -1) for b in (1, -1))
        if np.linalg.det(turn) > 0
    ]
    assert min(angles) <= 20 + 1e-9


def test_a_turn_is_counter_clockwise_as_seen() -> None:
    spec = PackageAugment(flip=False, rotate_deg=30)
    placement = placed(QUAD, *SIZE)
    rng = np.random.default_rng(3)
    wanted = 30 * np.random.default_rng(3).uniform(-1, 1)
    matrix = motion(spec, placement, rng)
    across = matrix[:2, :2] @ [1.0, 0.0]
    assert np.degrees(np.arctan2(-across[1], across[0])) == pytest.approx(wanted)


def test_a_warp_is_inverted_for_points() -> None:
    spec, placement = PackageAugment(warp_px=10.0), placed(QUAD, *SIZE)
    away = displacement(spec, placement, np.random.default_rng(5))
    assert away is not None
    assert np.abs(away).max() <= 10.0
    points = np.random.default_rng(6).uniform(10, 150, (50, 2))
    at = warped(points, away)
    x, y = np.floor(at).astype(int).T
    u, v = (at - np.floor(at)).T[..., None]
    there = (1 - v) * ((1 - u) * away[y, x] + u * away[y, x + 1]) + v * (
        (1 - u) * away[y + 1, x] + u * away[y + 1, x + 1]
    )
    assert at + there == pytest.approx(points, abs=0.02)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("colours", [(), (3,)])
def test_grey_is_varied_within_bounds(dtype: type, colours: tuple[int, ...]) -> None:
    pixels = np.full((64, 64, *colours), 100, dtype)
    gains = [grey_varied(pixels, PackageAugment(gain=0.2), np.random.default_rng(one)) for one in range(30)]
    assert all(one.dtype == dtype for one in gains)
    assert 79 <= min(one.min() for one in gains) < 90
    assert 110 < max(one.max() for one in gains) <= 121
    noisy = [grey_varied(pixels, PackageAugment(noise_grey=8), np.random.default_rng(one)) for one in range(30)]
    assert 5 < max(one.std() for one in noisy) < 9
    if colours:
        tinted = grey_varied(pixels, PackageAugment(hue=0.3), np.random.default_rng(1))
        assert len(np.unique(tinted.reshape(-1, 3), axis=0)) == 1
        assert tinted[0, 0].min() != tinted[0, 0].max()
    blurred = grey_varied(
        np.pad(pixels, [(9, 9), (9, 9), *[(0, 0)] * len(colours)]), PackageAugment(blur_px=3), np.random.default_rng(2)
    )
    assert 0 < blurred[8, 40].max() < 100


def test_local_equalisation_lifts_what_is_faint_and_keeps_the_colours() -> None:
    y, x = np.mgrid[:128, :128]
    faint = 100 + 3 * np.sin(x / 3.0) + y / 8
    image = np.stack([faint, 0.8 * faint, 0.6 * faint], axis=2).astype(np.uint8)
    made = equalised(image)
    assert made[64, :, 0].astype(float).std() > 1.5 * image[64, :, 0].astype(float).std()
    ratio = made[..., 1].astype(float) / made[..., 0]
    assert ratio == pytest.approx(np.full_like(ratio, 0.8), abs=0.02)


def spot(place: tuple[int, int], number: int = 1, grey: int = 200, ground: int = 60) -> Sample:
    pixels, numbers = np.full((100, 120), ground, np.uint8), np.zeros((100, 120), np.uint8)
    y, x = place
    pixels[y : y + 8, x : x + 12], numbers[y : y + 8, x : x + 12] = grey, number
    return Sample(pixels, np.array([[x - 0.5, y - 0.5, x + 11.5, y + 7.5]]), np.array([1]), (10, 10, 110, 90), numbers)


def test_mixing_keeps_both() -> None:
    both = mixed(spot((20, 30)), spot((60, 70)), np.random.default_rng(1))
    assert both.boxes.tolist() == [[29.5, 19.5, 41.5, 27.5], [69.5, 59.5, 81.5, 67.5]]
    assert both.numbers is not None
    assert both.numbers[24, 35] == 1
    assert both.numbers[64, 75] == 2
    first, second = int(both.pixels[24, 35]) - 60, int(both.pixels[64, 75]) - 60
    assert first + second == pytest.approx(140, abs=1)
    assert min(first, second) > 30


def test_pasting_lays_an_object_with_its_box_at_a_free_place() -> None:
    places = []
    for draw in range(20):
        sample, other = spot((20, 30)), spot((60, 70), grey=220, ground=90)
        made = pasted(sample, other, np.random.default_rng(draw))
        assert len(made.boxes) == 2
        x0, y0, x1, y1 = (made.boxes[1] + 0.5).astype(int)
        assert (x1 - x0, y1 - y0) == (12, 8)
        assert 10 <= x0 < x1 <= 110
        assert 10 <= y0 < y1 <= 90
        assert made.numbers is not None
        assert np.all(made.numbers[y0:y1, x0:x1] == 2)
        inside = made.pixels[y0:y1, x0:x1].astype(int)
        assert inside.min() >= 60 + 130 - 15  # its contrast, on this image's ground
        if not np.any((made.numbers == 1)[y0 - 4 : y1 + 4, x0 - 4 : x1 + 4]):
            assert made.pixels[y0 - 4, x0 - 4] == 60
        assert np.array_equal(sample.pixels, spot((20, 30)).pixels)
        places.append((x0, y0))
    assert len(set(places)) > 15


def test_a_die_is_not_pasted_on_a_die() -> None:
    large = Sample(np.zeros((100, 120), np.uint8), np.array([[12.0, 12, 100, 80]]), np.array([1]), (10, 10, 110, 90))
    sample = spot((20, 30))
    assert pasted(sample, large, np.random.default_rng(1)) is sample


def test_windows_tell_what_is_seen_in_them() -> None:
    """Boxes of a window are those of the painted pixels in it, whether its edge cuts the object or not."""
    source, placement = painted(), placed(QUAD, *SIZE)
    cut = whole = empty = 0
    for draw in range(60):
        sample = varied(source, placement, PackageAugment(flip=True), np.random.default_rng([4, draw]), 64)
        assert sample.pixels.shape == (64, 64, 3)
        assert sample.numbers is not None
        empty += not len(sample.boxes)
        for number, box in enumerate(sample.boxes):
            y, x = np.nonzero(sample.numbers == number + 1)
            seen = (x.min() - 0.5, y.min() - 0.5, x.max() + 0.5, y.max() + 0.5)
            assert box == pytest.approx(seen, abs=1.0)
            assert sample.pixels[y, x].mean() > 200
            touches = min(box[0], box[1]) <= -0.5 or max(box[2], box[3]) >= 63.5
            cut, whole = cut + touches, whole + (not touches)
    assert cut > 5
    assert whole > 5
    assert 0 < empty < 40


def test_windows_lie_in_the_input_and_mostly_at_objects() -> None:
    source, placement = painted(), placed(QUAD, *SIZE)
    rng = np.random.default_rng(2)
    objects, lures = source.outlines[:1], source.outlines[1:]
    drawn = [windowed(placement, objects, lures, 64, rng) for _ in range(400)]
    middles = [placement.to_input(one).mean(axis=0) for one in source.outlines]
    near = np.zeros(2)
    for one in drawn:
        corner = one.to_image(np.array([(-0.5, -0.5)]))
        x, y = placement.to_input(corner)[0] + 0.5
        assert -1e-6 <= x <= SIZE[1] - 64 + 1e-6
        assert -1e-6 <= y <= SIZE[0] - 64 + 1e-6
        assert (x, y) == pytest.approx((round(x), round(y)), abs=1e-6)
        near += [((middle > (x, y)) & (middle < (x + 64, y + 64))).all() for middle in middles]
    assert near[0] > 190
    assert 90 < near[1] < 250
    for only in ((objects, ()), ((), objects)):  # either group takes the other's share
        drawn = [windowed(placement, *only, 64, rng) for _ in range(400)]
        corners = [placement.to_input(one.to_image(np.array([(-0.5, -0.5)])))[0] for one in drawn]
        inside = [((middles[0] > corner) & (middles[0] < corner + 64)).all() for corner in corners]
        assert sum(inside) > 280
