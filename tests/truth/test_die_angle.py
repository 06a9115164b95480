"""Angles of dies: against formulas, with their intervals; what cannot be measured is told."""

from __future__ import annotations

import math

import numpy as np
import pytest

from make_package import package_picture
from waferlens.errors import UsageError
from waferlens.ops.border_lines import Pieces, Profile
from waferlens.ops.die_angle import DieAngle, PinOne, die_angle, half_interval, upside_down
from waferlens.ops.die_angle_bound import (
    light_density,
    light_turn_sigma_deg,
    rough_corner_px,
    rough_turn_sigma_deg,
)
from waferlens.ops.roi_lines import fit_lines

SIZE = (290, 545)
SHAPE, CENTRE = (800, 800), (400.3, 399.6)


@pytest.mark.parametrize("datum", ["package", "cavity"])
@pytest.mark.parametrize(("light", "angle", "die"), [("bf", 40.0, 2.3), ("dfw", -75.0, -4.6), ("dfb", 3.0, 0.4)])
def test_the_angle_is_found_against_each_datum(datum, light, angle, die) -> None:
    image, _ = package_picture(SHAPE, CENTRE, angle_deg=angle, die_deg=die, die_shift=(2.0, -3.0), light=light)
    told = die_angle(image, datum=datum, pixel_um=2.0, size_px=SIZE)
    assert told.reason == ""
    assert told.datum == datum
    assert abs(told.angle_deg - die) < 4 * told.sigma_deg + 0.002
    assert told.sigma_deg < 0.03
    assert told.low < told.angle_deg < told.high
    assert told.offset_um == pytest.approx((4.0, -6.0), abs=0.3)
    assert told.orientation == "ambiguous"


def test_a_missing_die_is_told() -> None:
    image, _ = package_picture(SHAPE, CENTRE, die_deg=None)
    told = die_angle(image, size_px=SIZE)
    assert told.angle_deg is None
    assert "no die in the cavity" in told.reason
    assert told.verdict() == "review"


def test_no_package_is_told() -> None:
    told = die_angle(np.full((400, 400, 3), 90, np.uint8), light="bf")
    assert told.angle_deg is None
    assert "no chip" in told.reason


def marked(die_deg: float, mark_at: float) -> tuple[np.ndarray, PinOne]:
    """A die with a dark mark near its upper edge (or, at 180, its lower one), and where it should be."""
    image, truth = package_picture(SHAPE, CENTRE, angle_deg=20.0, die_deg=die_deg)
    quad = truth["die"]
    at = 0.2 if mark_at == 0 else 0.8
    centre = quad[0] + at * (quad[1] - quad[0]) + at * (quad[3] - quad[0])
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image[np.hypot(x - centre[0], y - centre[1]) < 14] = (80, 80, 80)
    return image, PinOne((0.15, 0.15, 0.25, 0.25), brighter=False)


def test_pin_one_tells_which_end_is_up() -> None:
    for mark_at, expected in ((0, 1.5), (180, 1.5 - 180)):
        image, pin = marked(1.5, mark_at)
        told = die_angle(image, datum="cavity", pin_one=pin, size_px=SIZE)
        assert told.orientation == "known"
        assert told.angle_deg == pytest.approx(expected, abs=0.02)


def test_without_a_mark_both_ends_are_alike() -> None:
    image, truth = package_picture(SHAPE, CENTRE, die_deg=1.0)
    assert upside_down(image, truth["die"], PinOne((0.1, 0.1, 0.2, 0.2))) is None
    told = die_angle(image, pin_one=PinOne((0.1, 0.1, 0.2, 0.2)), size_px=SIZE)
    assert told.orientation == "ambiguous"
    assert any("pin 1" in note for note in told.notes)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.4, "OK"),
        (-0.5, 0.5, "OK"),
        (0.51, 0.6, "NG"),
        (-0.9, -0.6, "NG"),
        (0.4, 0.6, "review"),
        (-0.6, 0.0, "review"),
    ],
)
def test_verdicts_go_by_the_whole_interval(low, high, verdict) -> None:
    assert DieAngle("package", 0.5 * (low + high), low, high).verdict(0.5) == verdict


def test_intervals_join_by_welch() -> None:
    # many degrees of freedom: normal, 1.645 standard deviations
    assert half_interval((3.0, 1e6), (4.0, 1e6)) == pytest.approx(5 * 1.6449, rel=1e-3)
    # one of 5 degrees alone: Student's 2.015 scales, a scale being the deviation times sqrt(3 / 5)
    assert half_interval((1.0, 5.0), (0.0, 1e6)) == pytest.approx(2.015 * math.sqrt(0.6), rel=1e-3)


def rough_sides(rng, sigma: float, length_px: float, white: float, counts: tuple[int, ...]) -> list[Pieces]:
    """Borders whose pieces err as a first-order process and by white noise."""
    blank = Profile(np.zeros(3), np.zeros(3), np.zeros(3), np.ones(3))
    decay, sides = math.exp(-8.0 / length_px), []
    for count in counts:
        shared = np.empty(count)
        shared[0] = rng.normal()
        for k in range(1, count):
            shared[k] = decay * shared[k - 1] + math.sqrt(1 - decay**2) * rng.normal()
        along = (np.arange(count) - 0.5 * (count - 1)) * 8.0
        moved = sigma * shared + white * rng.normal(size=count)
        sides.append(Pieces(along, moved, np.full(count, white**-2), np.ones(count), blank))
    return sides


def test_intervals_know_that_neighbours_err_alike() -> None:
    """Of 250 rectangles with rough borders 86 to 95 % of the 90 % intervals hold the turn, and it is near the bound."""
    rng = np.random.default_rng(3)
    sigma, length, white, counts = 1.2, 25.0, 0.1, (60, 125, 60, 125)
    information = 0.0
    for count in counts:
        along = (np.arange(count) - 0.5 * (count - 1)) * 8.0
        covariance = sigma**2 * np.exp(-np.abs(along[:, None] - along) / length) + white**2 * np.eye(count)
        information += along @ np.linalg.solve(covariance, along)  # odd and even shapes do not mix
    turns, held = [], []
    for _ in range(250):
        fit = fit_lines(rough_sides(rng, sigma, length, white, counts))
        turns.append(fit.turn_rad)
        held.append(abs(fit.turn_rad) <= half_interval((fit.turn_sigma_rad, fit.freedom)))
    assert np.std(turns) * math.sqrt(information) < 1.12  # of the least that Cramer and Rao permit
    assert 0.86 <= np.mean(held) <= 0.95


def test_a_wrong_datum_is_named() -> None:
    with pytest.raises(UsageError, match="package, cavity, leads"):
        die_angle(np.zeros((10, 10, 3), np.uint8), datum="nose")
    with pytest.raises(UsageError, match="pixel_um"):
        die_angle(np.zeros((10, 10, 3), np.uint8), pixel_um=-1)


def test_bounds_of_rough_sides_are_those_of_their_covariance() -> None:
    sigma, length, side = 1.2, 25.0, 800.0
    x = np.linspace(-side / 2, side / 2, 1601)
    covariance = sigma**2 * np.exp(-np.abs(x[:, None] - x) / length)
    slope = 1 / math.sqrt(x @ np.linalg.solve(covariance, x))
    one = np.ones_like(x)
    offset = 1 / math.sqrt(one @ np.linalg.solve(covariance, one))
    assert rough_turn_sigma_deg([side], sigma, length) == pytest.approx(math.degrees(slope), rel=1e-3)
    # a square: two offsets, and the turn that all four sides tell, at the corner's distance
    expected = math.sqrt(2 * offset**2 + 2 * (side / 2) ** 2 * slope**2 / 4)
    assert rough_corner_px(side, side, sigma, length) == pytest.approx(expected, rel=1e-3)


def test_the_bound_of_light_is_that_of_an_error_function() -> None:
    """An edge of D electrons on a flat noise of s, blurred by b: D² / (2 sqrt(pi) b s²) a pixel of length."""
    away = np.arange(-12, 12, 0.05)
    edge = 0.5 + 0.01 * np.array([0.5 * (1 + math.erf(one / (1.1 * math.sqrt(2)))) for one in away])
    told = light_density(edge, 0.05, 1e5, 800.0, grey_levels=10**9)
    variance = 0.505 * 1e5 + 800.0**2
    assert told == pytest.approx(1000.0**2 / (2 * math.sqrt(math.pi) * 1.1 * variance), rel=2e-3)
    assert light_turn_sigma_deg([300.0] * 4, [told] * 4) == pytest.approx(
        math.degrees(math.sqrt(3 / (told * 300.0**3)))
    )
