"""The decision rule: what lies inside its limits for certain is OK, what lies outside for certain is NG.

Source: ISO 14253-1, decision rules for verifying conformity with specifications, uncertainty on both sides.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int8

OK, REVIEW, NG = 0, 1, 2
VERDICTS = {OK: "OK", REVIEW: "review", NG: "NG"}


def judge(
    low: Float[np.ndarray, " b"],
    high: Float[np.ndarray, " b"],
    lower_limit: float | None,
    upper_limit: float | None,
    period: float | None = None,
) -> Int8[np.ndarray, " b"]:
    """OK where the whole interval lies inside the limits, NG where it lies wholly outside, else review.

    Args:
        low: lower ends of the intervals; NaN, for what was not measured or has no interval, gives review.
        high: upper ends.
        lower_limit: in the same unit; None where that side is open. On the limit is inside.
        upper_limit: as `lower_limit`.
        period: 180 for a direction [deg]: an interval is then judged wherever it lies on the circle.
    """
    below = -np.inf if lower_limit is None else lower_limit
    above = np.inf if upper_limit is None else upper_limit
    inside = np.zeros(len(low), bool)
    outside = np.ones(len(low), bool)
    for turn in (0.0,) if period is None else (-period, 0.0, period):
        inside |= (low + turn >= below) & (high + turn <= above)
        outside &= (high + turn < below) | (low + turn > above)
    return np.where(inside, OK, np.where(outside, NG, REVIEW)).astype(np.int8)
