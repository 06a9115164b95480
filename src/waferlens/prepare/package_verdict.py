"""The verdict on an image of a package: what it finds against the limits of its bundle, its angle against its own.

Inspection and evaluation both ask here, so that what is judged is what a line will hear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from waferlens.bundle.package import PackageSession
from waferlens.bundle.verdict import NG, OK, REVIEW
from waferlens.ops.die_angle import DieAngle
from waferlens.prepare.package_part import ROTATE, TURNED, PackagePart, measures_angle, told_classes
from waferlens.recipe.package import DieAngleSpec

ANGLES = {"OK": OK, "review": REVIEW, "NG": NG}
"""What an angle is called, as verdicts are numbered."""


@dataclass(frozen=True, slots=True)
class PartVerdict:
    """What an image says of its part."""

    verdict: int
    """Of `bundle.verdict`: the worst of what follows; review where nothing could be looked for."""
    findings: tuple[int, ...]
    """Of each finding of the part, in its order; OK for one that is below every limit."""
    angle: int
    """Of the die's angle; OK where it is not asked for."""
    defects: int
    """The worst of the findings but for the turned die; review where nothing could be looked for."""


def verdict_of(part: PackagePart, session: PackageSession, angle: DieAngleSpec | None) -> PartVerdict:
    """The verdict on an image; of its device, all images have a say, and of the angle `package_device`.

    Args:
        part: As `examined` tells it, with findings down to the score of review or below.
        session: Of the bundle that found it; its limits count.
        angle: Whether and how the die's angle is measured.
    """
    turned = angle_verdict(part.angle, angle)
    if part.reason:
        return PartVerdict(max(REVIEW, turned), tuple(REVIEW for _ in part.kinds), turned, REVIEW)
    ng = dict(zip(session.classes, session.score_ng.tolist(), strict=True))
    review = dict(zip(session.classes, session.score_review.tolist(), strict=True))
    each, defects = [], OK
    for kind, score in zip(part.kinds, part.scores.tolist(), strict=True):
        if kind == ROTATE and part.angle is not None:
            each.append(turned)  # the interval decides, and says the same of the one die there is
        else:
            each.append(NG if score >= ng[kind] else REVIEW if score >= review[kind] else OK)
            defects = max(defects, each[-1])
    return PartVerdict(max(turned, defects), tuple(each), turned, defects)


def angle_verdict(turned: DieAngle | None, angle: DieAngleSpec | None) -> int:
    """OK, review or NG by a die's angle: review where it could not be measured, OK where it is not asked for."""
    return OK if turned is None or angle is None else ANGLES[turned.verdict(angle.limit_deg)]


def alarms_above(session: PackageSession, angle: DieAngleSpec | None) -> Float64[np.ndarray, " k"]:
    """Of each class told, the score above which a finding makes its part NG.

    Args:
        session: Of the bundle.
        angle: Whether and how the die's angle is measured.
    """
    return _above(session, session.score_ng, angle, TURNED)


def reviews_above(session: PackageSession, angle: DieAngleSpec | None) -> Float64[np.ndarray, " k"]:
    """Of each class told, the score above which a finding makes its part NG or review; arguments as above."""
    return _above(session, session.score_review, angle, 1 - TURNED)


def _above(
    session: PackageSession, least: Float64[np.ndarray, " c"], angle: DieAngleSpec | None, turned: float
) -> Float64[np.ndarray, " k"]:
    above = dict(zip(session.classes, np.nextafter(least, 0.0).tolist(), strict=True))
    classes = told_classes(session, angle)
    if measures_angle(session, angle):
        above[ROTATE] = turned
    return np.array([above[kind] for kind in classes])
