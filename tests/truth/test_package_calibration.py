"""Limits of scores from good devices, probabilities from findings, and how a verdict follows from them."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import beta

from waferlens.bundle.package_calibration import PackageCalibration, ScoreLimits, Sigmoid, doublings, lifted
from waferlens.bundle.verdict import NG, OK, REVIEW
from waferlens.evaluate.detection_probability import fit_sigmoid, on_defects, reliability
from waferlens.evaluate.detections import ANY, FoundHere, TrueHere
from waferlens.evaluate.package_calibrate import NEAREST, score_limits, size_lift
from waferlens.evaluate.package_seen import Seen
from waferlens.ops.die_angle import DieAngle
from waferlens.prepare.package_part import TURNED, beyond
from waferlens.prepare.package_verdict import angle_verdict, verdict_of
from waferlens.recipe.package import DieAngleSpec

SPEC = DieAngleSpec()


@pytest.mark.parametrize(("good", "allowed"), [(748, 0), (1000, 0), (2000, 3), (10_000, 29)])
def test_as_many_good_devices_alarm_as_the_bound_leaves_room_for(good: int, allowed: int) -> None:
    """The bounds of Clopper and Pearson are quantiles of beta distributions."""
    scores = np.random.default_rng(1).uniform(0.01, 0.6, good).astype(np.float32).astype(np.float64)
    limits, promise = score_limits(scores, 0.25, 0.004, 0.02)
    told = promise["false_alarms"]
    assert told["alarmed"] == np.sum(scores >= limits.score_ng) == allowed
    assert told["upper"] == pytest.approx(beta.ppf(0.95, allowed + 1, good - allowed))
    assert told["upper"] <= 0.004
    assert beta.ppf(0.95, allowed + 2, good - allowed - 1) > 0.004, "one more would be too many"
    assert told["kept"]
    assert promise["review"]["kept"]
    flagged = np.sum(scores >= limits.score_review)
    assert flagged <= 0.02 * (good + 1)
    assert flagged + 1 > 0.02 * (good + 1) - 1, "and no more than needed are left unseen"


def test_few_good_devices_promise_little_and_say_so() -> None:
    limits, promise = score_limits(np.linspace(0.01, 0.1, 20), 0.25, 0.004, 0.02)
    assert limits.score_ng == 0.25, "the recipe's own"
    assert 0.1 < limits.score_review < 0.1 + 1e-6
    assert not promise["false_alarms"]["kept"]
    assert not promise["review"]["kept"]
    assert promise["false_alarms"]["upper"] == pytest.approx(1 - 0.05 ** (1 / 20))
    loud, _ = score_limits(np.linspace(0.01, 0.8, 20), 0.25, 0.004, 0.02)
    assert loud.score_ng > 0.8, "no good device of these alarms"
    assert loud.score_review == loud.score_ng


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3000))
def test_limits_are_in_order_and_keep_what_they_say(seed: int, good: int) -> None:
    rng = np.random.default_rng(seed)
    scores = np.round(expit(rng.normal(-4, 2, good)), 2)  # with ties
    limits, promise = score_limits(scores, 0.25, 0.004, 0.02)
    assert 0 < limits.score_review <= limits.score_ng <= 1
    assert promise["false_alarms"]["alarmed"] == np.sum(scores >= limits.score_ng)
    if promise["false_alarms"]["kept"]:
        assert promise["false_alarms"]["upper"] <= 0.004


def test_a_known_sigmoid_comes_back() -> None:
    rng = np.random.default_rng(2)
    scores = rng.uniform(0.001, 0.999, 40_000)
    defects = rng.random(40_000) < expit(1.7 * logit(scores) - 0.8)
    told = fit_sigmoid(scores, defects)
    assert told is not None
    assert (told.slope, told.offset) == (pytest.approx(1.7, rel=0.05), pytest.approx(-0.8, abs=0.06))
    assert (told.findings, told.defects) == (40_000, int(defects.sum()))
    assert np.all(np.diff(told(np.linspace(0, 1, 50))) >= 0)
    apart = fit_sigmoid(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1], bool))
    assert apart is not None
    assert np.isfinite([apart.slope, apart.offset]).all(), "parted scores have a finite slope"
    assert fit_sigmoid(scores[:5], np.ones(5, bool)) is None
    assert fit_sigmoid(np.array([0.1, 0.9]), np.array([True, False])).slope == 0.0, "no slope the wrong way"  # type: ignore[union-attr]


def test_findings_are_defects_where_they_lie_on_one_of_their_class() -> None:
    box, mark, far = (0.0, 0.0, 10.0, 10.0), (40.0, 0.0, 50.0, 10.0), (80.0, 0.0, 90.0, 10.0)
    true = TrueHere(np.array([box, mark]), np.array([0, ANY]), np.array([False, True]))
    found = FoundHere(np.array([box, box, mark, far]), np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 1, 0, 0]))
    assert on_defects(found, true).tolist() == [True, False, False, False]
    same = Sigmoid(1.0, 0.0, 4, 1)
    told = reliability([found], [true], ("crack", "rotate"), {"crack": same})
    assert told is not None
    assert (told["findings"], told["defects"]) == (3, pytest.approx(1 / 3)), "of the other class nothing is said"
    assert told["brier"] == pytest.approx((0.1**2 + 0.7**2 + 0.6**2) / 3)
    assert reliability([found], [true], ("crack", "rotate"), {}) is None


def part(
    kinds: tuple[str, ...], scores: list[float], angle: DieAngle | None = None, reason: str = ""
) -> SimpleNamespace:
    return SimpleNamespace(kinds=kinds, scores=np.array(scores), angle=angle, reason=reason)


def turned(low: float, high: float) -> DieAngle:
    return DieAngle("package", (low + high) / 2, low, high, (high - low) / 3.29, die_quad=np.zeros((4, 2)))


@pytest.mark.parametrize(
    ("kinds", "scores", "angle", "wanted", "each"),
    [
        ((), [], turned(-0.1, 0.1), OK, ()),
        (("crack",), [0.39], turned(-0.1, 0.1), OK, (OK,)),
        (("crack",), [0.4], turned(-0.1, 0.1), REVIEW, (REVIEW,)),
        (("crack", "crack"), [0.7, 0.5], turned(-0.1, 0.1), NG, (NG, REVIEW)),
        (("crack", "rotate"), [0.5, 0.3], turned(0.4, 0.6), REVIEW, (REVIEW, REVIEW)),
        (("rotate",), [0.99], turned(0.51, 0.7), NG, (NG,)),
        ((), [], DieAngle("package", None, reason="no clear die"), REVIEW, ()),
        (("crack",), [0.7], None, NG, (NG,)),
    ],
)
def test_verdicts_by_hand(
    kinds: tuple[str, ...], scores: list[float], angle: DieAngle | None, wanted: int, each: tuple[int, ...]
) -> None:
    session = SimpleNamespace(classes=("crack",), score_ng=np.array([0.7]), score_review=np.array([0.4]))
    told = verdict_of(part(kinds, scores, angle), session, None if angle is None else SPEC)  # type: ignore[arg-type]
    assert (told.verdict, told.findings) == (wanted, each)
    lost = verdict_of(part((), [], None, "no package"), session, SPEC)  # type: ignore[arg-type]
    assert (lost.verdict, lost.defects) == (REVIEW, REVIEW)
    for one, verdict in ((turned(0.51, 0.7), NG), (turned(-0.1, 0.1), REVIEW), (turned(0.4, 0.6), REVIEW)):
        other = verdict_of(part((), [], one, "taken in light bf"), session, SPEC)  # type: ignore[arg-type]
        assert (other.verdict, other.defects) == (verdict, REVIEW), "of defects nothing is known"


def test_a_verdict_on_defects_knows_nothing_of_the_angle() -> None:
    session = SimpleNamespace(classes=("crack",), score_ng=np.array([0.7]), score_review=np.array([0.4]))
    for scores, defects in (([0.3, 0.9], OK), ([0.5, 0.9], REVIEW), ([0.8, 0.9], NG)):
        told = verdict_of(part(("crack", "rotate"), scores, turned(0.51, 0.7)), session, SPEC)  # type: ignore[arg-type]
        assert (told.verdict, told.angle, told.defects) == (NG, NG, defects)


@settings(max_examples=200, deadline=None)
@given(st.floats(-2, 2), st.floats(0.01, 0.8))
def test_the_score_of_a_turned_die_says_what_its_interval_says(angle_deg: float, half: float) -> None:
    one = turned(angle_deg - half, angle_deg + half)
    score = beyond(angle_deg, half / 1.6448536269514722, 0.5)
    if min(abs(abs(angle_deg) - half - 0.5), abs(abs(angle_deg) + half - 0.5)) < 1e-6:
        return  # on the edge
    if half < 0.3:  # an interval far narrower than the limits: no chance to be beyond both
        assert (score > TURNED) == (angle_verdict(one, SPEC) == NG)


def test_a_calibration_reads_back() -> None:
    one = PackageCalibration(
        {"crack": ScoreLimits(0.5, 0.2, 0.7)},
        {"crack": Sigmoid(1.0, -0.5, 10, 5)},
        {"crack": {"good": 3}},
        {"size_px": 30.0, "contrast_grey": 10.0, "by": "count", "devices": 5, "captured": 5, "of": 6},
        {"size_px": 8.0, "contrast_grey": 5.0, "by": "model", "devices": 25, "captured": 25, "of": 26},
        {"folder": "good"},
    )
    assert PackageCalibration.from_json(json.loads(json.dumps(one.to_json()))) == one
    older = one.to_json()
    del older["capture_or_review"]
    assert PackageCalibration.from_json(older).capture_or_review is None
    with pytest.raises(ValueError, match="kind wafer; expected 2, package"):
        PackageCalibration.from_json({"version": 2, "kind": "wafer"})
    with pytest.raises(ValueError, match="in this order"):
        ScoreLimits(0.2, 0.5)


def test_scores_are_lifted_by_hand() -> None:
    boxes = np.array([(0.0, 0, 16, 9), (0.0, 0, 3, 32), (10.0, 10, 74, 20)])  # longer sides of 16, 32, 64 px
    assert doublings(boxes) == pytest.approx([0, 1, 2])
    assert lifted(np.full(3, 0.5), boxes, math.log(3)) == pytest.approx([0.5, 0.75, 0.9])
    assert lifted(np.array([0.2, 0.3, 0.4]), boxes, 0.0) == pytest.approx([0.2, 0.3, 0.4])
    assert doublings(np.zeros((0, 4))).shape == (0,)


@pytest.mark.parametrize("loss", [0.8, 0.0, -0.5])
def test_what_scores_lose_by_size_is_found(loss: float) -> None:
    """Defects whose log-odds fall with each doubling of their side, beside duplicates and marks that say nothing."""
    rng = np.random.default_rng(5)
    found, truth = [], []
    for _ in range(200):
        side = 16 * 2 ** rng.uniform(0, 4)
        box = np.array([[50.0, 50.0, 50 + side, 60.0]])
        odds = 1.0 - loss * math.log2(side / 16) + 0.3 * rng.standard_normal()
        others = np.array([[55.0, 50.0, 50 + side, 60.0], [400.0, 400.0, 420.0, 420.0]])
        scores = np.array([expit(odds), expit(odds - 1), 0.9])
        found.append(FoundHere(np.concatenate([box, others]), scores, np.zeros(3, np.int64)))
        truth.append(TrueHere(box, np.zeros(1, np.int64)))
    seen = Seen(("crack",), found, truth, [str(n) for n in range(200)], [str(n) for n in range(200)])
    assert size_lift(seen, "crack") == pytest.approx(max(0.0, loss), abs=0.06)
    assert size_lift(Seen(("crack",), found[:10], truth[:10]), "crack") == 0.0


def test_scores_of_exactly_one_have_a_slope_too() -> None:
    """Boxes of 16 px with a score of 1, of 64 px with one of 1/2: the log-odds of 1 - NEAREST over two doublings."""
    found, truth = [], []
    for n in range(30):
        side = 16.0 if n < 15 else 64.0
        box = np.array([[0.0, 0.0, side, side]])
        found.append(FoundHere(box, np.array([1.0 if n < 15 else 0.5]), np.zeros(1, np.int64)))
        truth.append(TrueHere(box, np.zeros(1, np.int64)))
    assert size_lift(Seen(("crack",), found, truth), "crack") == pytest.approx(np.log(1 / NEAREST - 1) / 2)
