"""Limits on what is measured of a wafer, and the verdict on a swath: OK inside for certain, NG outside for certain.

Source: ISO 14253-1; as `inspect.limits`, whose way of writing a limit it shares.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from waferlens import units
from waferlens.bundle.verdict import NG, OK, VERDICTS, judge
from waferlens.inspect.limits import Limit
from waferlens.store.rows import Number

LIMITED = {"top": "um", "dies_present": "1", "dies_missing": "1", "known_share": "1"}
"""What limits may be put on: what is told with both ends of an interval, or is known exactly."""
EXACT = ("known_share",)


def swath_verdict(limits: Sequence[Limit], numbers: Sequence[Number]) -> tuple[str, str]:
    """Verdict and reason of a swath; both empty without limits, the reason empty where it is OK.

    Args:
        limits: Checked against `LIMITED`.
        numbers: What was measured.
    """
    if not limits:
        return "", ""
    told = {name: (value, low, high) for name, value, _, low, high in numbers}
    worst, reasons = OK, []
    for limit in limits:
        value, low, high = told[limit.name]
        if limit.name in EXACT:
            low = high = value
        ends = [np.array([np.nan if end is None else float(end)]) for end in (low, high)]
        sides = [
            None if end is None else units.convert(end, limit.unit, LIMITED[limit.name])
            for end in (limit.low, limit.high)
        ]
        found = int(judge(ends[0], ends[1], *sides)[0])
        worst = max(worst, found)
        if found != OK:
            reasons.append(_why(limit, found, value, low, high))
    return VERDICTS[worst], "; ".join(reasons)


def _why(limit: Limit, found: int, value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return f"{limit.name} is not known"
    if low is None or high is None:
        return f"{limit.name} {value:.4g} has no interval, so nothing is certain"
    unit = "" if LIMITED[limit.name] == "1" else f" {LIMITED[limit.name]}"
    lies = "outside" if found == NG else "across"
    return f"{limit.name} {value:.4g} ({low:.4g} to {high:.4g}){unit} lies {lies} {limit}"
