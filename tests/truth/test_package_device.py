"""The die's angle of a device: by hand, and what holds whatever its images tell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waferlens.bundle.verdict import NG, OK, REVIEW
from waferlens.ops.die_angle import interval_verdict
from waferlens.prepare.package_device import WIDENED, SeenAngle, device_angle

LIMIT_DEG = 0.5
Z90 = 1.6448536269514722
"""Half of a 90 % interval of a normal distribution, in standard deviations."""


def seen(*told: tuple[float, float], lights: tuple[str, ...] = ("bf", "dfw", "dfb")) -> list[SeenAngle]:
    """Angles and halves of their intervals."""
    return [
        SeenAngle(light, value, value - half, value + half) for light, (value, half) in zip(lights, told, strict=False)
    ]


def test_one_image_tells_what_it_tells() -> None:
    for value, half, verdict in ((0.4, 0.05, OK), (0.48, 0.05, REVIEW), (-0.6, 0.05, NG)):
        told = device_angle(seen((value, half)), LIMIT_DEG)
        assert told.angle == pytest.approx((value, value - half, value + half))
        assert (told.verdict, told.lights, told.doubt) == (verdict, "bf", "")
    nothing = device_angle([], LIMIT_DEG)
    assert (nothing.verdict, nothing.angle, nothing.lights) == (REVIEW, None, "")
    assert device_angle([], None).verdict == device_angle(seen((3.0, 0.1)), None).verdict == OK, "not judged"


def test_a_mean_by_hand() -> None:
    # halves of 0.1, 0.05, 0.05: weights 1/9, 4/9, 4/9; the darkfields err wholly alike, brightfield half as they do
    told = device_angle(seen((0.27, 0.1), (0.18, 0.05), (0.18, 0.05)), LIMIT_DEG)
    bright, dark = 0.1 / 9, 0.05 * 8 / 9
    half = np.sqrt(bright**2 + dark**2 + 2 * 0.5 * bright * dark)
    assert told.angle == pytest.approx((0.19, 0.19 - half, 0.19 + half))
    both = device_angle(seen((0.27, 0.1), (0.18, 0.05), lights=("dfw", "dfb")), LIMIT_DEG).angle
    assert both == pytest.approx((0.198, 0.198 - 0.06, 0.198 + 0.06)), "the mean of theirs"
    assert told.lights == "bf+dfw+dfb"
    assert device_angle(seen((0.2, 0.0), (0.3, 0.1)), LIMIT_DEG).angle == pytest.approx((0.2, 0.2, 0.2), abs=1e-6)


def test_half_a_turn_is_no_turn() -> None:
    value, low, high = device_angle(seen((89.9, 0.1), (-89.9, 0.1)), LIMIT_DEG).angle or ()
    assert (abs(value), high - low) == pytest.approx((90.0, 0.2 * np.sqrt(0.75)))


def test_doubts_on_opposite_sides_can_settle_it() -> None:
    """One image may be turned too far one way, the other the other way: together they say that it is neither."""
    told = device_angle(seen((0.25, 0.375), (-0.5, 0.5)), LIMIT_DEG)
    assert [interval_verdict(-0.125, 0.625, LIMIT_DEG), interval_verdict(-1.0, 0.0, LIMIT_DEG)] == ["review", "review"]
    # weights 16/25 and 9/25
    bright, dark = 0.375 * 0.64, 0.5 * 0.36
    half = np.sqrt(bright**2 + dark**2 + bright * dark)
    assert told.angle == pytest.approx((-0.02, -0.02 - half, -0.02 + half))
    assert (told.verdict, told.doubt) == (OK, "")


def test_no_die_is_turned_that_no_image_shows_turned() -> None:
    told = device_angle(seen((0.62, 0.13), (0.62, 0.13)), LIMIT_DEG)
    assert told.angle is not None
    assert told.angle[1] > LIMIT_DEG
    assert (told.verdict, told.doubt) == (REVIEW, ""), "both intervals reach from 0.49 to 0.75"
    assert device_angle(seen((0.62, 0.13), (0.64, 0.13)), LIMIT_DEG).verdict == NG


def test_contradicting_lights_are_for_review() -> None:
    """Of a normal distribution 99 % lie within 2.576 standard deviations, 90 % within 1.645."""
    assert pytest.approx(2.5758293035489004 / Z90) == WIDENED
    near, far = (device_angle(seen((0.0, 0.05), (gap, 0.04)), LIMIT_DEG) for gap in (0.140, 0.142))
    assert (near.verdict, near.doubt) == (OK, "")
    assert far.verdict == REVIEW
    assert far.doubt == (
        "die angles contradict each other: 0.00 deg (-0.05 to 0.05) in bf, 0.14 deg (0.10 to 0.18) in dfw"
    )
    assert device_angle(seen((2.0, 0.05), (3.0, 0.05)), LIMIT_DEG).verdict == REVIEW, "both turned, but which is it"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(0.01, 0.5)), min_size=1, max_size=3), st.randoms())
def test_a_device_follows_from_its_images(told: list[tuple[float, float]], random) -> None:  # type: ignore[no-untyped-def]
    images = seen(*told)
    whole = device_angle(images, LIMIT_DEG)
    assert whole.angle is not None
    value, low, high = whole.angle
    halves = [half for _, half in told]
    surest = np.sqrt(0.75) if len(told) > 1 else 1.0  # of errors half alike, by as much as two of them can
    assert surest * min(halves) - 1e-9 <= (high - low) / 2 <= max(halves) + 1e-9
    assert min(one for one, _ in told) - 1e-9 <= value <= max(one for one, _ in told) + 1e-9
    own = [interval_verdict(one.low, one.high, LIMIT_DEG) for one in images]
    if whole.verdict == NG:
        assert "NG" in own, "so that a turned die has an image it is found on"
    # its interval lies inside the mean of theirs, which holds no angle that is beyond all of them
    if all(max(-one.low, one.high) < LIMIT_DEG - 1e-9 for one in images):
        assert whole.doubt or whole.verdict == OK
    if set(own) == {"NG"}:
        assert whole.doubt or whole.verdict == NG
    random.shuffle(images)
    assert device_angle(images, LIMIT_DEG).angle == pytest.approx(whole.angle)


@pytest.mark.parametrize("bright", [0.0, 0.4, 0.5], ids=["independent", "as measured", "as taken"])
def test_the_interval_holds_as_long_as_errors_are_no_more_alike_than_taken(bright: float) -> None:
    """Three lights of different precision: 90 % of intervals hold the truth, or more where errors are less alike."""
    rng, runs = np.random.default_rng(1), 4000
    sigma = np.array([0.06, 0.04, 0.03])
    darkfields = 1.0 if bright == 0.5 else 0.96
    alike = np.array([[1.0, bright, bright], [bright, 1.0, darkfields], [bright, darkfields, 1.0]])
    errors = sigma * rng.multivariate_normal(np.zeros(3), alike, runs)
    held = 0
    for row in errors:
        _, low, high = (
            device_angle(seen(*zip(row.tolist(), (Z90 * sigma).tolist(), strict=True)), LIMIT_DEG).angle or ()
        )
        held += low <= 0 <= high
    spread = 3 * np.sqrt(0.09 / runs)
    assert held / runs >= 0.9 - spread
    if bright == 0.5:
        assert held / runs == pytest.approx(0.9, abs=spread), "and no more than it says"
    if bright == 0.4:
        assert held / runs < 0.92
