"""Packages found and turned upright: rules by hand, rectangles by formulas, failures answered."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from make_package import cover, package_picture, rectangle
from waferlens.errors import RecipeError, UsageError
from waferlens.ops.illumination import sort_light
from waferlens.ops.roi_edges import EdgesSettings, locate_package, roi_edges
from waferlens.ops.roi_opencv import roi_opencv
from waferlens.ops.roi_record import angle_of, homography_of, mapped, ordered
from waferlens.prepare.roi_finders import finder

SIZE = (290, 545)
SHAPE, CENTRE = (800, 800), (400.3, 399.6)


def flat(red: float, green: float, blue: float) -> np.ndarray:
    return np.broadcast_to(np.array([red, green, blue], np.float32), (4, 4, 3))


@pytest.mark.parametrize(
    ("means", "light"),
    [((60, 90, 70), "bf"), ((16, 16, 16), "bf"), ((31, 25, 13), "dfw"), ((6, 16, 35), "dfb"), ((14, 200, 14.6), "dfb")],
)
def test_lights_are_sorted_by_the_rule(means, light) -> None:
    told = sort_light(flat(*means))
    assert (told.light, told.nearest, told.reason) == (light, light, "")


@pytest.mark.parametrize(
    ("means", "nearest", "word"),
    [((40, 40, 15.2), "bf", "least colour"), ((40, 40, 14.8), "dfw", "least colour"), ((10, 3, 10.3), "dfb", "red")],
)
def test_near_a_limit_nobody_guesses(means, nearest, word) -> None:
    told = sort_light(flat(*means))
    assert told.light is None
    assert told.nearest == nearest
    assert word in told.reason
    assert sort_light(flat(*means), margin_grey=0.0).light == nearest


def test_sixteen_bits_have_the_same_light() -> None:
    assert sort_light(flat(31 * 257, 25 * 257, 13 * 257), full_scale=65535.0).light == "dfw"
    with pytest.raises(UsageError, match="three colours"):
        sort_light(np.zeros((4, 4)))


@pytest.mark.parametrize("angle", [-170.0, -89.0, -30.0, 0.0, 12.0, 90.0, 179.0])
def test_angles_are_counter_clockwise_as_seen(angle) -> None:
    assert math.remainder(angle_of(rectangle((300, 200), 80, 150, angle)) - angle, 360) == pytest.approx(0, abs=1e-9)


def test_the_top_right_corner_rises_with_a_positive_angle() -> None:
    quad = rectangle((0, 0), 100, 200, 5.0)
    assert quad[1, 1] < quad[0, 1]


def test_corners_are_ordered_whatever_order_they_come_in() -> None:
    quad = rectangle((300, 200), 80, 150, 7.0)
    for order in ([2, 0, 3, 1], [3, 2, 1, 0], [1, 2, 3, 0]):
        assert ordered(quad[order], (80, 150)) == pytest.approx(quad)


def test_the_homography_takes_the_outline_to_the_edges_of_the_crop() -> None:
    quad = rectangle((300, 200), 80, 150, 33.0)
    there = homography_of(quad, (80, 150))
    assert mapped(there, quad) == pytest.approx(np.array([(-0.5, -0.5), (79.5, -0.5), (79.5, 149.5), (-0.5, 149.5)]))


@pytest.mark.parametrize(("light", "most_px"), [("bf", 0.4), ("dfw", 4.0), ("dfb", 4.0)])
@pytest.mark.parametrize("angle", [0.0, 133.0, -110.0])
def test_edges_find_the_outline_at_any_angle(light, most_px, angle) -> None:
    image, truth = package_picture(SHAPE, CENTRE, angle_deg=angle, die_deg=1.0, light=light)
    roi = roi_edges(image, size_px=SIZE)
    assert roi.found
    assert roi.upright == "opening"
    assert np.abs(roi.quad - truth["ic"]).max() < most_px
    assert abs(math.remainder(roi.angle_deg - angle, 360)) < 4 * roi.angle_sigma_deg + 0.002


def test_the_crop_stands_upright() -> None:
    image, _ = package_picture(SHAPE, CENTRE, angle_deg=133.0, die_deg=0.0, noise=None)
    straight, _ = package_picture(SHAPE, CENTRE, angle_deg=0.0, die_deg=0.0, noise=None)
    crops = [roi_edges(one, size_px=SIZE).crop(one).astype(int) for one in (image, straight)]
    assert crops[0].shape == (545, 290, 3)
    assert np.percentile(np.abs(crops[0] - crops[1]), 97) <= 6


def test_a_mask_of_another_method_is_refined_to_the_same_corners() -> None:
    image, truth = package_picture(SHAPE, CENTRE, angle_deg=21.0)
    mask = np.zeros(SHAPE, np.uint8)
    cv2.fillConvexPoly(mask, np.rint(truth["ic"] + 3.0).astype(np.int32), 1)
    # it zig-zags as networks do
    mask = cv2.resize(
        cv2.resize(mask, None, fx=1 / 16, fy=1 / 16, interpolation=cv2.INTER_AREA),
        SHAPE[::-1],
        interpolation=cv2.INTER_NEAREST,
    )
    roi = roi_edges(image, mask=mask > 0, size_px=SIZE)
    assert np.abs(roi.quad - truth["ic"]).max() < 0.4


def test_thresholds_find_the_package_roughly() -> None:
    image, truth = package_picture(SHAPE, CENTRE, angle_deg=12.0)
    roi = roi_opencv(image, size_px=SIZE)
    assert roi.found
    assert 0.3 < np.abs(roi.quad - truth["ic"]).max() < 12


def blank() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.clip(np.array([60, 110, 70]) + rng.normal(0, 2, (*SHAPE, 3)), 0, 255).astype(np.uint8)


def two() -> np.ndarray:
    image = blank()
    for x in (220, 580):
        share = cover(SHAPE, (x, 400), 280, 600, 0, 8)[..., np.newaxis]
        image = (image * (1 - share) + 25 * share).astype(np.uint8)
    return image


CASES = {
    "no chip": (blank, None, "no chip"),
    "two chips": (two, None, "2 chips"),
    "cut": (lambda: package_picture(SHAPE, (110.0, 400.0))[0], None, "cut by the left edge"),
    "dark": (lambda: (blank() // 30).astype(np.uint8), None, "dark image"),
    "darkfield": (lambda: package_picture(SHAPE, CENTRE, light="dfw")[0], "bf", "brightfield is said"),
}


@pytest.mark.parametrize("method", ["opencv", "edges"])
@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_used_is_answered(method, case) -> None:
    make, light, word = CASES[case]
    roi = finder(method).find(make(), light=light, size_px=SIZE)
    assert not roi.found
    assert word in roi.reason
    if roi.quad is None:
        with pytest.raises(UsageError, match="no package to cut out"):
            roi.crop(make())


def test_nothing_tells_the_top_of_a_plain_body() -> None:
    share = cover(SHAPE, CENTRE, 290, 545, 0, 8)[..., np.newaxis]
    roi = roi_edges((blank() * (1 - share) + 25 * share).astype(np.uint8), size_px=SIZE)
    assert roi.upright == "ambiguous"
    assert "top from bottom" in roi.notes[0]


def test_the_soft_border_tells_its_width() -> None:
    image, _ = package_picture(SHAPE, CENTRE, border_px=14.0)
    assert locate_package(image, size_px=SIZE).border_px == pytest.approx(14.0, rel=0.1)


def test_methods_that_are_not_there_are_named() -> None:
    with pytest.raises(RecipeError, match="'magic' is no file and no name in recipes"):
        finder("magic")
    with pytest.raises(UsageError, match="package-fast finds no packages; methods are opencv, edges"):
        finder("package-fast")


def test_near_a_limit_the_light_that_is_said_is_believed() -> None:
    image = np.broadcast_to(np.array([34, 27, 15], np.uint8), (64, 64, 3)).copy()
    image[::2, ::2, 2] = 16  # mean blue 15.25: not sorted
    assert sort_light(image).light is None
    assert "is said" not in roi_opencv(image, light="dfw").reason
    assert "brightfield is said" in roi_opencv(image - 10, light="bf").reason


def sloping(angle: float, steep: float, width: float = 14.0, corner: float = 0.0, noise: int = 0) -> np.ndarray:
    """A body whose border slopes and sends light past the lens, by the formula; its corners are round."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    dx, dy = x - CENTRE[0], y - CENTRE[1]
    u, v = np.abs(dx * cos - dy * sin) - 145 + corner, np.abs(dx * sin + dy * cos) - 272.5 + corner
    away = np.hypot(np.maximum(u, 0), np.maximum(v, 0)) + np.minimum(np.maximum(u, v), 0) - corner
    share = 1 / (1 + np.exp(np.clip(4 * away / width, -40, 40)))
    back = 1 / (1 + np.square(steep * 4 * share * (1 - share) / width))
    light = (0.12 * (1 - share) + 0.012 * share) * back
    light = cv2.GaussianBlur(light, (0, 0), 1.0)
    grain = np.random.default_rng(noise).normal(0, 0.002, (*SHAPE, 3))
    grey = 255 * np.clip(light[..., np.newaxis] * (0.6, 1.0, 0.7) + grain, 0, 1) ** (1 / 2.2)
    return np.rint(grey).astype(np.uint8)


@pytest.mark.parametrize("angle", [0.0, 31.0])
@pytest.mark.parametrize("steep", [12.0, 20.0])
def test_the_outline_is_where_half_of_the_slope_lies(angle, steep) -> None:
    image, truth = sloping(angle, steep), rectangle(CENTRE, 290, 545, angle)
    fitted = roi_edges(image, light="bf", size_px=SIZE)
    assert fitted.steep_px == pytest.approx(steep, rel=0.2)
    assert np.abs(fitted.quad - truth).max() < 0.5
    known = roi_edges(image, light="bf", size_px=SIZE, settings=EdgesSettings(steep_px=steep))
    assert known.steep_px == pytest.approx(steep)
    assert np.abs(known.quad - truth).max() < 0.3  # borders are taken for rough, and this one is not
    # the brightness alone lies far outside of it
    assert np.abs(roi_opencv(image, size_px=SIZE).quad - truth).max() > 2


@pytest.mark.parametrize("corner", [10.0, 25.0])
def test_round_corners_are_left_out(corner) -> None:
    truth = rectangle(CENTRE, 290, 545, 8.0)
    roi = roi_edges(sloping(8.0, 15.0, 10.0, corner), light="bf", size_px=SIZE, settings=EdgesSettings(steep_px=15.0))
    assert np.abs(roi.quad - truth).max() < 0.25
