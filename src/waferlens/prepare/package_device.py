"""The die's angle of a device, of all its images: the rule that inspection and evaluation judge by.

The angle needs no network, so that each light an image was taken in tells it. Their mean is taken, weighed by the
inverse squares of their intervals. Its interval is that of correlated inputs (JCGM 100:2008, 5.2.2): the roughness of
the package's border limits them all, and both darkfields see it alike, brightfield half so. The narrowest interval
alone would be too narrow: where fits by chance look better than they are, it is taken, and holds the truth too seldom
(docs/package.md).

Two lights whose intervals lie apart even when widened to 99 % cannot both be right: the device is for review. So is one
whose die only all images together tell to be turned, and none by itself: nobody could be shown where.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import ndtri

from waferlens.bundle.verdict import NG, OK, REVIEW
from waferlens.formats.package_set import LIGHTS
from waferlens.ops.die_angle import COVERAGE, interval_verdict
from waferlens.prepare.package_verdict import ANGLES

APART = 0.99
"""Coverage to which two lights' intervals are widened before they are said to contradict each other."""
WIDENED = float(ndtri((1 + APART) / 2) / ndtri((1 + COVERAGE) / 2))
"""By how much that widens an interval, of a normal distribution."""
ALIKE, ALIKE_IN_BRIGHTFIELD = 1.0, 0.5
"""How far the errors of two images are alike, as a coefficient of correlation: of the darkfields, or of one light; and
of a darkfield beside brightfield. Measured 0.96 to 0.97, and 0.37 to 0.46 (docs/package.md); more is taken, so that the
interval is a little too wide and not too narrow."""
LEAST_HALF_DEG = 1e-6
"""Half of an interval weighs as if it were no less than this: one without width would have all the weight [deg]"""


@dataclass(frozen=True, slots=True)
class SeenAngle:
    """A die's angle as one image tells it."""

    light: str
    """`bf`, `dfw` or `dfb`."""
    angle_deg: float
    low: float
    """Lower end of the 90 % interval [deg]"""
    high: float
    """Upper end [deg]"""


@dataclass(frozen=True, slots=True)
class DeviceAngle:
    """A die's angle as all images of its device tell it."""

    verdict: int
    """Of `bundle.verdict`: OK where the whole interval lies within the limit, NG where it and that of an image lie
    outside, else review."""
    angle: tuple[float, float, float] | None
    """The angle, and both ends of its 90 % interval; None where no image tells it [deg]"""
    lights: str
    """Those that tell it, as `bf+dfw`."""
    doubt: str = ""
    """Which images contradict each other; empty where none do."""


def device_angle(told: Sequence[SeenAngle], limit_deg: float | None) -> DeviceAngle:
    """The angle of a device's die, and the verdict on it.

    Args:
        told: of its images, in whatever light, judged by the network or not; of those that tell none, nothing.
        limit_deg: greatest angle that is good; None where it is not judged, which is OK [deg]
    """
    if not told:
        return DeviceAngle(OK if limit_deg is None else REVIEW, None, "")
    first = told[0].angle_deg
    # a rectangle is the same after half a turn: 89.9 and -89.9 deg are near each other
    angle = first + np.array([math.remainder(one.angle_deg - first, 180.0) for one in told])
    half = np.array([(one.high - one.low) / 2 for one in told])
    weight = 1 / np.maximum(half, LEAST_HALF_DEG) ** 2
    weight /= weight.sum()
    bright = np.array([one.light == "bf" for one in told])
    alike = np.where(bright[:, None] == bright, ALIKE, ALIKE_IN_BRIGHTFIELD)
    share = weight * half
    value, reach = math.remainder(float(weight @ angle), 180.0), math.sqrt(float(share @ alike @ share))
    low, high = value - reach, value + reach
    lights = "+".join(light for light in LIGHTS if any(one.light == light for one in told))
    doubt = ""
    for a, b in combinations(range(len(told)), 2):
        if abs(angle[a] - angle[b]) > WIDENED * (half[a] + half[b]):
            doubt = f"die angles contradict each other: {_said(told[a])}, {_said(told[b])}"
            break
    if limit_deg is None:
        return DeviceAngle(OK, (value, low, high), lights, doubt)
    verdict = ANGLES[interval_verdict(low, high, limit_deg)]
    alone = max(ANGLES[interval_verdict(one.low, one.high, limit_deg)] for one in told)
    if doubt or (verdict == NG and alone < NG):
        verdict = REVIEW
    return DeviceAngle(verdict, (value, low, high), lights, doubt)


def _said(one: SeenAngle) -> str:
    return f"{one.angle_deg:.2f} deg ({one.low:.2f} to {one.high:.2f}) in {one.light}"
