"""A package bundle against truth, on the way inspection goes: package found, die measured, boxes of the network.

Boxes are judged in the network's input, where the package is upright: there an outline has its closest box. Alarms and
verdicts are those that inspection gives: the limits are the bundle's own, and of a turned die its interval decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from waferlens.bundle.files import Bundle
from waferlens.bundle.package import PackageSession
from waferlens.bundle.verdict import OK, REVIEW, VERDICTS
from waferlens.evaluate.curves import clopper_pearson
from waferlens.evaluate.detection_capture import Beyond, capture_told
from waferlens.evaluate.detection_probability import reliability
from waferlens.evaluate.detections import evaluate_detections, hits_of
from waferlens.evaluate.package_seen import Seen, look_at
from waferlens.evaluate.package_truth import Judged
from waferlens.formats.package_set import LIGHTS
from waferlens.prepare.package_part import asked_angle
from waferlens.prepare.package_verdict import alarms_above, reviews_above


def evaluate_package(
    session: PackageSession,
    bundle: Bundle,
    judged: Judged,
    advance: Callable[[int], None] = lambda steps: None,
    beyond: Beyond | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Judges a bundle on images whose truth is known.

    Args:
        session: Of the bundle.
        bundle: Its recipe says whether the die's angle is measured.
        judged: Images with labels of the classes the bundle tells, and of what is to be ignored.
        advance: Told of each finished image.
        beyond: Size and contrast of which capture is told; None takes those of the calibration.
        options: Of `evaluate.detections.evaluate_detections`.

    Returns:
        What `evaluate_detections` tells, and
        `verdicts`: devices by what they are and by their verdict, `review_rate` with its interval;
        `capture_or_review`: as `capture`, of devices whose defect is NG or review;
        `parts`: how many images were found, and why others were not;
        `probability`: with a calibrated bundle, whether scores are the probabilities they are said to be;
        `angle`: with the die's angle, its errors by device where the truth has one, and by light.

    Raises:
        InputError: there is no image.
    """
    seen = look_at(session, bundle, judged.images(), advance)
    calibration, angle = session.calibration, asked_angle(bundle)
    told_by = (None, None) if calibration is None else (calibration.capture, calibration.capture_or_review)
    stated = [beyond or (None if one is None else Beyond(**one)) for one in told_by]
    above = alarms_above(session, angle)
    told = evaluate_detections(
        seen.found, seen.truth, seen.parts, classes=seen.classes, threshold=above.tolist(), clusters=seen.groups,
        set_aside=seen.missing, stated=stated[0], **options,
    )  # fmt: skip
    told["threshold"] = dict(zip(seen.classes, [float(f"{value:.9g}") for value in above], strict=True))
    hits = hits_of(seen.found, seen.truth, seen.parts, reviews_above(session, angle).tolist())
    told["capture_or_review"] = capture_told(hits, list(dict.fromkeys(seen.parts)), stated[1])
    for one in (told["capture"], told["capture_or_review"]):
        if one is not None and judged.pixel_um is not None:
            one["length_um"] = one["size_px"] * judged.pixel_um
    told |= verdicts_told(seen)
    lost = dict(sorted(seen.reasons.items(), key=lambda one: -one[1]))
    told["parts"] = {"found": len(seen.truth) - sum(lost.values()), "not_found": lost}
    if calibration is not None:
        told["probability"] = reliability(seen.found, seen.truth, seen.classes, calibration.probabilities)
    if seen.true_angles:
        told["angle"] = angles_told(seen)
    return told


def verdicts_told(seen: Seen, level: float = 0.95) -> dict[str, Any]:
    """Devices by what they are and by the worst verdict on their images, and the share of good ones for review.

    A device without a die is neither good nor defective; a verdict of OK on it is an escape all the same.
    """
    kinds = {"good": seen.good, "defective": seen.defective, "missing": seen.missing}
    table = {
        kind: {name: sum(seen.verdicts[part] == number for part in parts) for number, name in VERDICTS.items()}
        for kind, parts in kinds.items()
    }
    rates: dict[str, Any] = {}
    for name, kind, number in (("review_rate", "good", REVIEW), ("passed_rate", "defective", OK)):
        total, count = len(kinds[kind]), table[kind][VERDICTS[number]]
        low, high = clopper_pearson(count, total, level)
        rates[name] = {"share": count / total if total else None, "low": float(low), "high": float(high)}
    return {"verdicts": table, **rates}


def angles_told(seen: Seen) -> dict[str, Any]:
    """Errors of the angles of devices, `contradicting` lights, and by `lights` the errors of single images."""
    known = {name: true for name, true in seen.true_angles.items() if name in seen.turned}
    devices = [(true, *seen.turned[name].angle) for name, true in known.items() if seen.turned[name].angle is not None]
    lights: dict[str, list[tuple[float, float, float, float]]] = {}
    for name, true in known.items():
        for one in seen.angles[name]:
            lights.setdefault(one.light, []).append((true, one.angle_deg, one.low, one.high))
    return angle_errors(devices) | {
        "contradicting": sum(bool(one.doubt) for one in seen.turned.values()),
        "lights": {light: angle_errors(lights[light]) for light in LIGHTS if light in lights},
    }


def angle_errors(turns: Sequence[tuple[float, float, float, float]]) -> dict[str, float | int]:
    """Errors of measured angles against the truth, and how often their 90 % intervals hold it.

    Args:
        turns: true angle, measured angle, and both ends of its interval [deg]
    """
    true, measured, low, high = np.array(turns, np.float64).T
    error = measured - true
    return {
        "dies": len(turns),
        "bias_deg": float(error.mean()),
        "rms_deg": float(np.sqrt(np.mean(error**2))),
        "p95_deg": float(np.quantile(np.abs(error), 0.95)),
        "coverage_90": float(np.mean((low <= true) & (true <= high))),
        "half_deg": float(np.mean(high - low) / 2),
    }


def package_lines(result: Mapping[str, Any]) -> list[str]:
    """What is told beside the detections, for people."""
    parts = result["parts"]
    lines = [f"  packages found: {parts['found']} of {result['images']}"]
    lines += [f"    {count} x {reason}" for reason, count in parts["not_found"].items()]
    lines.append(f"  {'devices':<26} {''.join(f'{name:>8}' for name in VERDICTS.values())}")
    for kind, row in result["verdicts"].items():
        if sum(row.values()):
            lines.append(f"  {'  ' + kind:<26} {''.join(f'{count:>8}' for count in row.values())}")
    if told := result.get("probability"):
        lines.append(
            f"  scores as probabilities: of {told['findings']} findings {100 * told['defects_told']:.1f} % are told to "
            f"be defects, {100 * told['defects']:.1f} % are; Brier {told['brier']:.4f} "
            f"(constant {told['brier_constant']:.4f}), off by {told['off_by']:.3f} on average"
        )
    if "angle" in result:
        told = result["angle"]
        lines.append(
            f"  die angle of {told['dies']}: bias {told['bias_deg']:+.4f} deg, rms {told['rms_deg']:.4f}, 95 % within "
            f"{told['p95_deg']:.4f}; 90 % intervals hold {100 * told['coverage_90']:.1f} %"
        )
        if told["contradicting"]:
            lines.append(f"    lights contradict each other on {told['contradicting']} devices: they are for review")
    return lines
