"""Specification limits: read, checked against what can be measured, and applied to every image."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from waferlens import units
from waferlens.bundle.calibration import Interval
from waferlens.bundle.verdict import NG, OK, REVIEW, VERDICTS, judge
from waferlens.errors import UsageError
from waferlens.inspect.scales import Physical, needs
from waferlens.ops.hole import PERIODS, UNITS

_LIMIT = re.compile(
    r"\s*(?P<name>\w+)\s*=\s*(?P<low>[^:\s]*)\s*:\s*(?P<high>[-+.\deE]*)\s*(?P<unit>([^\d\s.+-].*?)?)\s*"
)


@dataclass(frozen=True, slots=True)
class Limit:
    """The limits of one measurand; an open side is None."""

    name: str
    low: float | None
    high: float | None
    unit: str

    def __str__(self) -> str:
        ends = ("" if end is None else f"{end:g}" for end in (self.low, self.high))
        return f"{self.name}={':'.join(ends)}{'' if self.unit == '1' else self.unit}"


def parse_limit(text: str, measured: Mapping[str, str] = UNITS) -> Limit:
    """Reads `depth=110:130nm`, `cd50_x=:32nm`, `ellipticity=1.6:2`.

    Args:
        text: of the limit.
        measured: units by measurand of the station.

    Raises:
        UsageError: the text has another form, or `checked` refuses it.
    """
    found = _LIMIT.fullmatch(text)
    if found is None:
        raise UsageError(f"limit '{text}': expected NAME=LOW:HIGHUNIT, as depth=110:130nm; a side may be left out")
    ends = []
    for side in ("low", "high"):
        try:
            ends.append(float(found[side]) if found[side] else None)
        except ValueError:
            raise UsageError(f"limit '{text}': {found[side]!r} is not a number") from None
    return checked(Limit(found["name"], ends[0], ends[1], found["unit"] or "1"), measured)


def checked(limit: Limit, measured: Mapping[str, str] = UNITS) -> Limit:
    """The limit with its unit as the tables spell it.

    Args:
        limit: as it was read.
        measured: units by measurand of the station.

    Raises:
        UsageError: there is no such measurand, the unit is not one of it, or the sides are missing or crossed.
    """
    if limit.name not in measured:
        near = difflib.get_close_matches(limit.name, measured, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(measured)}"
        raise UsageError(f"limit '{limit}': '{limit.name}' is not measured; {hint}")
    unit = units.canonical(limit.unit)
    possible = _units_of(limit.name) if measured is UNITS else [measured[limit.name]]
    if units.dimension(unit) not in {units.dimension(known) for known in possible}:
        instead = "but no unit is given" if unit == "1" else f"not in {limit.unit}"
        raise UsageError(f"limit '{limit}': {limit.name} is told in {' or '.join(possible)}, {instead}")
    if limit.low is None and limit.high is None:
        raise UsageError(f"limit '{limit}': both sides are open; give at least one")
    if limit.low is not None and limit.high is not None and limit.low > limit.high:
        raise UsageError(f"limit '{limit}': the lower limit is above the upper one")
    # a recipe may say 110 where 110.0 is meant
    low, high = (None if end is None else float(end) for end in (limit.low, limit.high))
    return Limit(limit.name, low, high, unit)


def require_scales(limits: Sequence[Limit], lateral: bool, depth: bool) -> None:
    """Refuses limits in nm where nothing says what a pixel or a grey value is.

    Args:
        limits: checked ones.
        lateral: whether a pixel size is known.
        depth: whether a depth calibration is known.

    Raises:
        UsageError: a limit needs a scale that is not known.
    """
    for limit in limits:
        if not in_nm(limit):
            continue
        missing = []
        if needs(limit.name) in ("lateral", "both") and not lateral:
            missing.append("the pixel size (no tag in the images; give --pixel-nm)")
        if needs(limit.name) in ("depth", "both") and not depth:
            missing.append("the depth calibration (give --depth-nm-per-grey)")
        if missing:
            raise UsageError(f"limit '{limit}' needs {' and '.join(missing)}, or give it in px and grey")


def in_nm(limit: Limit) -> bool:
    """Whether a limit can only be judged where the scales are known."""
    return limit.name == "wall_angle_deg" or (
        needs(limit.name) != "nothing" and units.dimension(limit.unit) != units.dimension(UNITS[limit.name])
    )


def verdicts(
    limits: Sequence[Limit],
    raw: Mapping[str, Interval],
    physical: Mapping[str, Physical],
    outside: np.ndarray,
    unmeasured: Sequence[str],
) -> tuple[list[str], list[str]]:
    """Verdict and its reason for every image.

    Args:
        limits: checked ones; without any, the verdict is empty, but for images out of domain.
        raw: intervals in px and grey, by name.
        physical: the same in nm where known, by name.
        outside: which images are out of the bundle's domain; they are `review` whatever was measured.
        unmeasured: for each image, why something on it could not be measured.

    Returns:
        Verdicts `OK`, `NG`, `review` or empty; and reasons, empty where OK. One NG makes an image NG; else one review
        makes it review.
    """
    number = len(outside)
    worst = np.full(number, OK, np.int8)
    reasons: list[list[str]] = [[] for _ in range(number)]
    for limit in limits:
        interval, unit = _of(limit, raw, physical)
        low, high = (None if end is None else units.convert(end, limit.unit, unit) for end in (limit.low, limit.high))
        found = judge(interval.low, interval.high, low, high, PERIODS.get(limit.name))
        np.maximum(worst, found, out=worst)
        codes = found.tolist()
        for index in np.flatnonzero(found != OK).tolist():
            reasons[index].append(_why(limit, unit, codes[index], interval, index, unmeasured[index]))
    told = [VERDICTS[code] for code in worst.tolist()] if limits else [""] * number
    for index in np.flatnonzero(outside).tolist():
        told[index] = VERDICTS[REVIEW]
        reasons[index].insert(0, "unlike the images the bundle was calibrated on")
    return told, ["; ".join(parts) for parts in reasons]


def _of(limit: Limit, raw: Mapping[str, Interval], physical: Mapping[str, Physical]) -> tuple[Interval, str]:
    """The intervals a limit is judged on, in one unit for all images; NaN where an image lacks the scale."""
    if not in_nm(limit):
        return raw[limit.name], UNITS[limit.name]
    told = physical[limit.name]
    return Interval(*(np.where(told.in_nm, part, np.nan) for part in told.interval)), told.unit_nm


def _why(limit: Limit, unit: str, code: int, interval: Interval, index: int, unmeasured: str) -> str:
    value, low, high = (float(part[index]) for part in interval)
    if np.isnan(value):
        return f"{limit.name} not measured: {unmeasured or 'the scale of this image is not known'}"
    if np.isnan(low):
        return f"{limit.name} has no interval: the bundle is not calibrated for it"
    lies = "outside" if code == NG else "across"
    return f"{limit.name} {value:.4g} ({low:.4g} to {high:.4g}) {'' if unit == '1' else unit + ' '}lies {lies} {limit}"


def _units_of(name: str) -> list[str]:
    """Units a measurand may be told in."""
    raw = UNITS[name]
    if needs(name) == "nothing" or name == "wall_angle_deg":
        return [raw]
    return [raw, {"px": "nm", "grey": "nm", "px2": "nm2", "grey px2": "nm3"}[raw]]
