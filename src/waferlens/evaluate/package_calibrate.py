"""Fits from which scores a package bundle says NG and review, and what its scores mean, on devices it never saw.

**NG.** A good device's score of a class is the highest on any of its images. The limit is such a score: as many good
devices lie above it as leave the upper bound of the false alarm rate (95 %, after Clopper and Pearson) at or below what
is stated; 748 good devices bear 4 in 1,000 if none of them is above. Where they are too few for that, the limit is the
highest score of a good device, but not less than the least score of the recipe, and the bound that it reaches is told.

**Lift.** Before that, scores of large boxes are lifted by what they lose on average: the slope of the log-odds that
true defects are found with, over the doublings of their longer side. Limits are those of lifted scores, so that what is
promised of good devices holds with it.

**Review.** The lowest limit that sends at most the stated share of good devices to review, by rank and on average over
calibrations: capture by NG or review is then as high as that share allows.

Turned dies whose angle is measured have no limit here: their interval decides.

Sources: as `ops.conformal`; `detection_probability`; `detection_capture`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Float64
from scipy.special import logit

from waferlens.bundle.files import Bundle
from waferlens.bundle.package import PackageSession
from waferlens.bundle.package_calibration import PackageCalibration, ScoreLimits, Sigmoid, doublings, lifted
from waferlens.errors import UsageError
from waferlens.evaluate.average_precision import joined_found
from waferlens.evaluate.curves import clopper_pearson
from waferlens.evaluate.detection_capture import chosen_beyond
from waferlens.evaluate.detection_probability import ON_DEFECT, fit_sigmoid, on_defects
from waferlens.evaluate.detections import FoundHere, hits_of
from waferlens.evaluate.package_seen import LEAST_SCORE, Seen, look_at
from waferlens.evaluate.package_truth import Judged
from waferlens.ops.boxes import iou
from waferlens.ops.conformal import conformal_threshold
from waferlens.prepare.package_part import ROTATE, asked_angle, measures_angle
from waferlens.prepare.package_verdict import alarms_above, reviews_above

FALSE_ALARMS = 0.004
"""Share of good devices that may alarm, at the most."""
REVIEW = 0.02
"""Share of good devices that may be sent to review by their findings."""
LEAST_FOUND = 30
"""Defects found, of which at least so many tell how scores fall with size; one doubling must lie between them."""
NEAREST = 1e-6
"""How near to 0 and 1 a score is taken at the most where its log-odds are fitted: those of exactly 1, which a
float32 may be, are infinite, and would be the whole fit. Float32 tells scores just below 1 apart by 6e-8."""
CONFIDENCE = 0.95
"""Of the upper bound on false alarms."""


def fit_package_calibration(
    session: PackageSession,
    bundle: Bundle,
    judged: Judged,
    data: Mapping[str, Any],
    advance: Callable[[int], None] = lambda steps: None,
    *,
    false_alarms: float = FALSE_ALARMS,
    review: float = REVIEW,
) -> PackageCalibration | str:
    """Calibrates what was exported; tells why if it cannot.

    Args:
        session: Of a bundle without calibration; nothing but the exported network is ever calibrated.
        bundle: The same; its recipe says whether the die's angle is measured.
        judged: Images of devices that trained and chose nothing, good ones among them.
        data: Where they come from; stored.
        advance: Told of each finished image.
        false_alarms: Share of good devices that may be NG.
        review: Share of good devices that may be review by their findings.

    Raises:
        InputError: there is no image, or one cannot be read.
    """
    seen = look_at(session, bundle, judged.images(), advance)
    good = sorted(seen.good & seen.looked_at)
    if not good:
        return f"of {len(set(seen.parts))} devices none is good and found in its images, and good ones set the limits"
    angle = asked_angle(bundle)
    kinds = [kind for kind in session.classes if not (kind == ROTATE and measures_angle(session, angle))]
    limits, promises = {}, {}
    for kind in kinds:
        lift = size_lift(seen, kind)
        seen.found = [_lifted(one, seen.classes.index(kind), lift) for one in seen.found]
        scores = device_scores_of(seen, kind, good)
        least = float(session.score_ng[session.classes.index(kind)])
        # classes share what is allowed: a device alarms by any of them
        told, promises[kind] = score_limits(scores, least, false_alarms / len(kinds), review / len(kinds))
        limits[kind] = replace(told, lift=lift)
    beyond = _beyond(seen, alarms_above(session, angle), {kind: one.score_ng for kind, one in limits.items()})
    either = _beyond(seen, reviews_above(session, angle), {kind: one.score_review for kind, one in limits.items()})
    grounds = {
        **data,
        "images": len(seen.truth),
        "devices": len(set(seen.parts)),
        "good": len(good),
        "defective": len(seen.defective),
        "missing": len(seen.missing),
        "not_found": sum(seen.reasons.values()),
    }
    return PackageCalibration(limits, _probabilities(seen, kinds), promises, beyond, either, grounds)


def _beyond(seen: Seen, above: Float64[np.ndarray, " k"], least: Mapping[str, float]) -> dict[str, Any] | None:
    """The size and contrast from which these devices' defects score above limits, as JSON holds it.

    Args:
        seen: With scores as the limits are of.
        above: Limit of each class told, of the uncalibrated session.
        least: Least score by class, as it was just fitted.
    """
    limits = dict(zip(seen.classes, above.tolist(), strict=True))
    limits |= {kind: float(np.nextafter(score, 0.0)) for kind, score in least.items()}
    chosen = chosen_beyond(hits_of(seen.found, seen.truth, seen.parts, [limits[kind] for kind in seen.classes]))
    return None if chosen is None else chosen.as_json()


def size_lift(seen: Seen, kind: str) -> float:
    """What the log-odds of a class lose at each doubling of a defect's longer side; 0 where they lose nothing.

    Args:
        seen: With scores as the network tells them; of each true defect its surest finding counts.
        kind: The class.
    """
    number = seen.classes.index(kind)
    scores, size = [], []
    for found, true in zip(seen.found, seen.truth, strict=True):
        mine = np.flatnonzero(found.kinds == number)
        counts = true.kinds == number
        if true.ignore is not None:
            counts &= ~np.asarray(true.ignore, bool)
        if not len(mine) or not counts.any():
            continue
        near = iou(found.boxes[mine], true.boxes[counts]) >= ON_DEFECT
        for column, doubled in zip(near.T, doublings(true.boxes[counts]), strict=True):
            if column.any():
                scores.append(float(found.scores[mine[column]].max()))
                size.append(float(doubled))
    if len(scores) < LEAST_FOUND or np.ptp(size) < 1:
        return 0.0
    odds = logit(np.clip(scores, NEAREST, 1 - NEAREST))
    return max(0.0, -float(np.polyfit(size, odds, 1)[0]))


def _lifted(found: FoundHere, number: int, lift: float) -> FoundHere:
    """Findings with the scores of one class lifted, by falling score."""
    mine = found.kinds == number
    scores = np.asarray(found.scores, np.float64).copy()
    if lift > 0:
        scores[mine] = lifted(scores[mine], found.boxes[mine], lift)
    order = np.argsort(-scores, kind="stable")
    return FoundHere(found.boxes[order], scores[order], found.kinds[order])


def score_limits(
    scores: Float[np.ndarray, " d"], least: float, false_alarms: float, review: float
) -> tuple[ScoreLimits, dict[str, Any]]:
    """Limits of a class by the scores of good devices, and what they promise.

    Args:
        scores: Highest score of each good device.
        least: Of the recipe: the limit is not lower where the devices are too few for the promise.
        false_alarms: Share of good devices that may be NG.
        review: Share that may be review.
    """
    count = len(scores)
    allowed = np.arange(count + 1)
    borne = np.asarray(clopper_pearson(allowed, count, 2 * CONFIDENCE - 1)[1]) <= false_alarms
    most = int(allowed[borne].max()) if borne.any() else 0
    highest = float(np.sort(scores)[::-1][most]) if most < count else LEAST_SCORE
    ng = _just_above(highest)
    if not borne.any():
        ng = max(ng, least)
    alarmed = int(np.sum(scores >= ng))
    try:
        threshold, promise = conformal_threshold(scores, review)
        low, sent = _just_above(threshold), promise.mean
    except UsageError:  # fewer good devices than bear so small a share: the highest of them sets the limit
        low, sent = _just_above(float(scores.max())), 1 / (count + 1)
    low = min(low, ng)
    upper = float(clopper_pearson(alarmed, count, 2 * CONFIDENCE - 1)[1])
    return ScoreLimits(ng, low), {
        "good": count,
        "false_alarms": {
            "stated": false_alarms, "alarmed": alarmed, "upper": upper, "confidence": CONFIDENCE,
            "kept": bool(borne.any()),
        },
        "review": {
            "stated": review, "sent": int(np.sum((scores >= low) & (scores < ng))), "expected": float(sent),
            "kept": bool(sent <= review),
        },
    }  # fmt: skip


def device_scores_of(seen: Seen, kind: str, devices: Sequence[str]) -> Float64[np.ndarray, " d"]:
    """The highest score of a class on any image of each device; the least that is looked at where there is none."""
    number, index = seen.classes.index(kind), {name: place for place, name in enumerate(devices)}
    out = np.full(len(devices), LEAST_SCORE)
    for part, found in zip(seen.parts, seen.found, strict=True):
        mine = found.scores[found.kinds == number]
        if part in index and len(mine):
            out[index[part]] = max(out[index[part]], float(mine.max()))
    return out


def _just_above(score: float) -> float:
    """The next number that a score of the network, a float32, can have: findings of at least it lie above."""
    return min(1.0, float(np.nextafter(np.float32(score), np.float32(2.0))))


def _probabilities(seen: Seen, kinds: Sequence[str]) -> dict[str, Sigmoid]:
    scores = joined_found(
        [one.boxes for one in seen.found], [one.scores for one in seen.found], [one.kinds for one in seen.found]
    )
    defects = np.concatenate([on_defects(*pair) for pair in zip(seen.found, seen.truth, strict=True)])
    fitted = {}
    for kind in kinds:
        mine = scores.kinds == seen.classes.index(kind)
        one = fit_sigmoid(scores.scores[mine], defects[mine])
        if one is not None:
            fitted[kind] = one
    return fitted
