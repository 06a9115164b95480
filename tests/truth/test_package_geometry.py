"""How a region comes to lie in a detector's input: worked out by hand, and found again in the pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waferlens.prepare.package_geometry import box_around, clipped, network_input, placed, placed_whole, shown


def turned_quad(centre: tuple[float, float], w: float, h: float, angle_deg: float) -> np.ndarray:
    """Corners of a part turned counter-clockwise as seen."""
    turn = math.radians(-angle_deg)  # y points down
    across = np.array([math.cos(turn), math.sin(turn)])
    down = np.array([-math.sin(turn), math.cos(turn)])
    corners = [(-w, -h), (w, -h), (w, h), (-w, h)]
    return np.array([centre + 0.5 * x * across + 0.5 * y * down for x, y in corners])


def test_an_image_of_the_inputs_size_is_shown_as_it_is() -> None:
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8)
    placement = placed_whole(64, 96, 64, 96)
    assert placement.inner == (0, 0, 96, 64)
    assert placement.scale == pytest.approx(1.0)
    assert np.array_equal(shown(image, placement), image)


def test_half_the_size_is_the_mean_of_four_pixels_and_the_rest_is_grey() -> None:
    image = np.random.default_rng(2).integers(0, 256, (64, 128), np.uint8)
    placement = placed_whole(64, 128, 96, 64)
    assert placement.inner == (0, 32, 64, 64)
    seen = shown(image, placement)
    mean = image.reshape(32, 2, 64, 2).astype(float).mean(axis=(1, 3))
    assert np.abs(seen[32:64].astype(float) - mean).max() <= 0.5
    assert np.all(seen[:32] == 114)
    assert np.all(seen[64:] == 114)
    # the image's own outer corner is that of what is shown
    assert placement.boxes_to_input(np.array([[-0.5, -0.5, 127.5, 63.5]])) == pytest.approx(
        np.array([[-0.5, 31.5, 63.5, 63.5]])
    )
    # pixels 10..13 of the image are pixels 5 and 6 of the input
    assert placement.boxes_to_input(np.array([[9.5, 9.5, 13.5, 13.5]])) == pytest.approx(
        np.array([[4.5, 36.5, 6.5, 38.5]])
    )


def test_a_package_lies_upright_in_the_middle() -> None:
    quad = np.array([(9.5, 19.5), (59.5, 19.5), (59.5, 119.5), (9.5, 119.5)])
    placement = placed(quad, 64, 64)
    assert placement.inner == (16, 0, 48, 64)
    assert placement.scale == pytest.approx(0.64)
    assert placement.to_input(quad) == pytest.approx(np.array([(15.5, -0.5), (47.5, -0.5), (47.5, 63.5), (15.5, 63.5)]))


@pytest.mark.parametrize("angle_deg", [0.0, 7.0, -33.0, 90.0, 179.0])
@pytest.mark.parametrize("size", [(160, 96), (400, 240)])
def test_what_is_painted_on_a_turned_part_is_found_where_it_should_be(angle_deg: float, size: tuple[int, int]) -> None:
    quad = turned_quad((200.0, 180.0), 120.0, 200.0, angle_deg)
    placement = placed(quad, *size)
    scale = size[0] / 200
    # a mark in the upright part: 30 px from its left side, 40 px from its upper one, 20 wide and 16 high
    mark = quad[0] + np.array([[30, 40], [50, 40], [50, 56], [30, 56]]) @ np.array(
        [(quad[1] - quad[0]) / 120, (quad[3] - quad[0]) / 200]
    )
    y, x = np.mgrid[:360, :400]
    image = np.zeros((360, 400), np.float32)
    edges = np.roll(mark, -1, axis=0) - mark
    outside = [
        (edge[0] * (y - corner[1]) - edge[1] * (x - corner[0])) / np.hypot(*edge)
        for edge, corner in zip(edges, mark, strict=True)
    ]
    image[:] = np.clip(0.5 + np.min(outside, axis=0), 0, 1)  # soft by half a pixel
    seen = shown(image, placement, 1.0)
    x0, y0 = placement.inner[:2]
    inner = seen[y0 : placement.inner[3], x0 : placement.inner[2]]
    rows, columns = np.flatnonzero(inner.max(axis=1) > 0.5), np.flatnonzero(inner.max(axis=0) > 0.5)
    found = [columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5]
    wanted = scale * np.array([30, 40, 50, 56]) - 0.5
    assert found == pytest.approx(wanted, abs=0.75)
    assert inner.sum() == pytest.approx(320 * scale**2, rel=0.03)
    assert box_around(placement.to_input(mark)) == pytest.approx(wanted + np.array([x0, y0, x0, y0]), abs=0.5)


@settings(max_examples=60, deadline=None)
@given(st.floats(-180, 180), st.floats(40, 300), st.floats(40, 300), st.integers(0, 2**31))
def test_there_and_back(angle_deg: float, w: float, h: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    quad = turned_quad((150.0, 160.0), w, h, angle_deg) + rng.uniform(-3, 3, (4, 2))
    placement = placed(quad, 96, 128)
    points = rng.uniform(0, 300, (20, 2))
    assert placement.to_image(placement.to_input(points)) == pytest.approx(points, abs=1e-6)
    box = np.array([[20.0, 30.0, 44.0, 50.0]])
    corners = placement.quads_to_image(box)[0]
    assert placement.to_input(corners) == pytest.approx(np.array([(20, 30), (44, 30), (44, 50), (20, 50)]), abs=1e-6)
    around = placement.boxes_to_image(box)[0]
    assert around[:2] == pytest.approx(corners.min(axis=0))
    assert around[2:] == pytest.approx(corners.max(axis=0))


def test_a_thin_crack_pales_and_never_falls_out() -> None:
    """One dark column in forty, at a fifth of the size: wherever it lies it darkens one or two columns alike."""
    totals = []
    for column in range(100, 110):
        image = np.full((200, 200), 200, np.uint8)
        image[:, column] = 0
        seen = shown(image, placed_whole(200, 200, 40, 40)).astype(float)
        totals.append((200 - seen[20]).sum())
    assert totals == pytest.approx([40.0] * 10, abs=1.5)


def test_a_motion_moves_what_is_shown_and_not_the_frame() -> None:
    placement = placed_whole(40, 40, 40, 40)
    image = np.zeros((40, 40), np.uint8)
    image[10:14, 20:25] = 255
    moved = placement.moved(np.array([[1, 0, 5], [0, 1, -3], [0, 0, 1.0]]))
    seen = shown(image, moved)
    assert np.array_equal(np.argwhere(seen == 255).min(axis=0), [7, 25])
    assert moved.boxes_to_input(np.array([[19.5, 9.5, 24.5, 13.5]])).tolist() == [[24.5, 6.5, 29.5, 10.5]]
    assert np.all(seen[:, :5] == 114)


@pytest.mark.parametrize("samples", [1, 3])
def test_a_displacement_shows_what_lies_there(samples: int) -> None:
    side = 40 * samples
    image = np.random.default_rng(4).integers(0, 256, (side, side), np.uint8)
    placement = placed_whole(side, side, 40, 40)
    away = np.zeros((40, 40, 2), np.float32)
    plain = shown(image, placement)
    assert np.array_equal(shown(image, placement, displacement=away), plain)
    away[..., 0], away[..., 1] = 2.0, -1.0
    assert np.array_equal(shown(image, placement, displacement=away)[1:, :-2], plain[:-1, 2:])


def test_numbers_are_not_averaged() -> None:
    image = np.zeros((80, 80), np.uint8)
    image[20:40, 20:40], image[40:60, 20:40] = 7, 200
    seen = shown(image, placed_whole(80, 80, 33, 33), nearest=True)
    assert set(np.unique(seen)) == {0, 7, 200}


@pytest.mark.parametrize(("kind", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1.0)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("colours", [(), (3,)])
def test_white_is_255_whatever_the_type(kind: type, white: float, channels: int, colours: tuple[int, ...]) -> None:
    image = np.full((20, 10, *colours), white, kind)
    seen = network_input(shown(image, placed_whole(20, 10, 20, 20), white), channels, white)
    assert seen.shape == (channels, 20, 20)
    assert seen.dtype == np.float32
    assert np.all(seen[:, :, 5:15] == 255)
    assert seen[:, :, :5] == pytest.approx(114, abs=0.01)


def test_boxes_are_cut_at_the_edge_of_what_is_shown() -> None:
    placement = placed_whole(20, 10, 20, 20)
    cut, left = clipped(np.array([[0.0, 0, 10, 10], [-10, 0, 3, 10], [15, 0, 18, 4], [5, 5, 5, 9]]), placement)
    assert cut[0].tolist() == [4.5, 0, 10, 10]
    assert left == pytest.approx([0.55, 0.0, 0.0, 0.0])
