"""From which size and contrast defects are captured as good as always: chosen on some devices, told of others.

A size and a contrast are chosen where the devices whose strongest defect exceeds both are as many as can be, while the
lower bound of the share of them that is captured is at least the goal. The bound is that of Clopper and Pearson on what
was counted; a goal of 99 % at 95 % confidence takes 299 devices without a miss. Where there are fewer, the size is that
at which the log-odds model of the probability of capture reaches the goal with that confidence. The model is asked only
where capture rises with size and contrast, and believed only where what was counted beyond does not speak against it.

What was chosen on some devices says nothing about those: it is told of devices that had no part in the choice.

Source: MIL-HDBK-1823A (2009), appendix G.3; C. J. Clopper and E. S. Pearson, Biometrika 26 (1934) 404.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from waferlens.errors import UsageError
from waferlens.evaluate.curves import clopper_pearson
from waferlens.evaluate.detection_pod import DeviceHits
from waferlens.prepare.splits import position

GOAL, CONFIDENCE = 0.99, 0.95
"""Share of devices that are to be captured, and the confidence of its lower bound."""
CANDIDATES = 60
"""Sizes, and contrasts, that are looked at."""
LEAST_BEYOND = 20
"""Devices beyond what the model says, without which it is not believed."""
HALF = "choose-capture"
"""Salt of the halves of the devices: on one the size and contrast are chosen, of the other it is told what they do."""


@dataclass(frozen=True, slots=True)
class Beyond:
    """A size and a contrast beyond which devices are taken to be captured."""

    size_px: float
    """Least size of the strongest defect [px]"""
    contrast_grey: float
    """Least contrast of the same [grey]"""
    by: Literal["count", "model", "statement"]
    """How it was chosen: the bound of what was counted, that of the model, or somebody said so."""
    devices: int = 0
    """Devices beyond, among those it was chosen on."""
    captured: int = 0
    """Of these, how many were captured."""
    of: int = 0
    """Devices it was chosen on."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def chosen_beyond(hits: DeviceHits, goal: float = GOAL, confidence: float = CONFIDENCE) -> Beyond | None:
    """The size and contrast that the most devices exceed, while as good as all of these are captured.

    Args:
        hits: One row a defective device; none of them may be told of afterwards.
        goal: Share that is to be captured.
        confidence: Of its lower bound.

    Returns:
        None where neither counts nor model bear the goal anywhere.
    """
    if not len(hits.captured):
        return None
    pairs = list(_pairs(hits))
    total = np.array([int(_exceed(hits, *pair).sum()) for pair in pairs])
    count = np.array([int(hits.captured[_exceed(hits, *pair)].sum()) for pair in pairs])
    borne = np.asarray(clopper_pearson(count, total, 2 * confidence - 1)[0]) >= goal
    if borne.any():
        best = int(np.argmax(np.where(borne, total, -1)))
        return Beyond(*pairs[best], "count", int(total[best]), int(count[best]), len(hits.captured))
    return _by_model(hits, goal, confidence)


def _by_model(hits: DeviceHits, goal: float, confidence: float) -> Beyond | None:
    try:
        model = hits.model()
    except UsageError:
        return None  # all captured, or none: too few devices for a bound by counts, and no slope for one by the model
    if not (model.coefficients[1:] > 0).all():
        return None
    best: Beyond | None = None
    for contrast in _values(hits.contrast_grey)[:: CANDIDATES // 20]:
        size = model.reach("size", goal, confidence, contrast=float(contrast))[1]
        if not math.isfinite(size):
            continue
        exceed = _exceed(hits, size, float(contrast))
        devices = int(exceed.sum())
        captured = int(hits.captured[exceed].sum())
        borne = float(clopper_pearson(captured, devices, 2 * confidence - 1)[1]) >= goal
        if borne and devices >= LEAST_BEYOND and (best is None or devices > best.devices):
            best = Beyond(float(size), float(contrast), "model", devices, captured, len(hits.captured))
    return best


def capture_told(
    hits: DeviceHits, names: Sequence[Hashable], stated: Beyond | None = None, level: float = 0.95
) -> dict[str, Any] | None:
    """The share captured of devices beyond a size and contrast, and of those below them, as JSON holds it.

    Args:
        hits: One row a defective device.
        names: Of the devices, by number.
        stated: Size and contrast, chosen on other devices. Where None is given, they are chosen on one half of these,
            and the other half is told of.
        level: Coverage of the intervals.

    Returns:
        None where no size and contrast bear the goal.
    """
    chosen_on, told_of = "other devices", hits
    if stated is not None and stated.by == "statement":
        chosen_on = "no devices"
    if stated is None:
        first = np.array([position(str(names[number]), HALF) < 0.5 for number in hits.device], bool)
        stated, chosen_on, told_of = chosen_beyond(hits.of(first)), "one half of the devices", hits.of(~first)
    if stated is None:
        return None
    exceed = _exceed(told_of, stated.size_px, stated.contrast_grey)
    return {
        **_share(told_of, exceed, level),
        "size_px": stated.size_px,
        "contrast_grey": stated.contrast_grey,
        "goal": GOAL,
        "chosen_on": chosen_on,
        "chosen_by": stated.as_json(),
        "below": _share(told_of, ~exceed, level),
    }


def _share(hits: DeviceHits, which: np.ndarray, level: float) -> dict[str, Any]:
    total, count = int(which.sum()), int(hits.captured[which].sum())
    low, high = clopper_pearson(count, total, level)
    share = count / total if total else None
    return {"share": share, "low": float(low), "high": float(high), "captured": count, "devices": total}


def _exceed(hits: DeviceHits, size_px: float, contrast_grey: float) -> np.ndarray:
    return (hits.size_px >= size_px) & (hits.contrast_grey >= contrast_grey)


def _pairs(hits: DeviceHits) -> Iterable[tuple[float, float]]:
    """Sizes with contrasts, the smallest first."""
    for size in _values(hits.size_px):
        for contrast in _values(hits.contrast_grey):
            yield float(size), float(contrast)


def _values(column: Float64[np.ndarray, " d"]) -> Float64[np.ndarray, " v"]:
    return np.unique(np.quantile(column, np.linspace(0, 1, CANDIDATES), method="lower"))
