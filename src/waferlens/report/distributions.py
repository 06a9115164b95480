"""How the measurands of a lot are spread: their quantiles, their limits, and the chart of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from waferlens import units
from waferlens.inspect.limits import Limit
from waferlens.ops.hole import PERIODS, UNITS
from waferlens.report import charts
from waferlens.report.queries import BINS, Bounds, Counted, Results, Spread

FIRST = (
    "depth",
    "cd50_area",
    "cd50_x",
    "cd50_y",
    "ellipticity",
    "wall_angle_deg",
    "opening_area",
    "volume",
    "orientation_deg",
)
"""What comes first of what has no limits, and is drawn; the others stand in the table."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """One measurand over the lot."""

    name: str
    unit: str
    measured: int
    rows: int
    mean: float | None
    sd: float | None
    low: float | None
    """1 % of the values lie below [unit]"""
    median: float | None
    high: float | None
    """1 % lie above [unit]"""
    half_width: float | None
    """Mean half-width of the intervals [unit]"""
    lower: float | None
    """Lower limit [unit]"""
    upper: float | None
    ends: tuple[float, float]
    """What a chart of it spans [unit]"""
    beyond: int = 0
    """Images beyond the chart's ends."""
    chart: Markup | None = None


def read_distributions(results: Results, limits: list[Limit]) -> list[Distribution]:
    """All measurands of a run, those with limits first.

    Args:
        results: of the run.
        limits: the run's own.

    Raises:
        InputError: the results cannot be read.
    """
    order = {name: place for place, name in enumerate([*(limit.name for limit in limits), *FIRST, *UNITS][::-1])}
    spreads = sorted(results.spreads(), key=lambda spread: (-order.get(spread.name, -1), spread.name, spread.unit))
    bounds = [_limit_of(limits, spread) for spread in spreads]
    ends = [_ends(spread, *bound) for spread, bound in zip(spreads, bounds, strict=True)]
    # a direction comes back after half a turn, which a comparison of numbers does not know: its bars have no verdict
    judged = [(None, None) if spread.name in PERIODS else bound for spread, bound in zip(spreads, bounds, strict=True)]
    counted = results.distributions(spreads, judged, ends)
    # a few wild values would leave all others in one bar: those are counted again, closer
    again = [
        (spread, told, narrow)
        for spread, bound, told in zip(spreads, bounds, judged, strict=True)
        if spread.measured and (narrow := _closer(counted[spread.name, spread.unit], bound)) is not None
    ]
    if again:
        counted |= results.distributions(*zip(*again, strict=True))
    return [
        _distribution(spread, bound, counted.get((spread.name, spread.unit)))
        for spread, bound in zip(spreads, bounds, strict=True)
    ]


def _limit_of(limits: list[Limit], spread: Spread) -> Bounds:
    for limit in limits:
        if limit.name == spread.name and _convertible(limit.unit, spread.unit):
            lower, upper = (
                None if end is None else units.convert(end, limit.unit, spread.unit) for end in (limit.low, limit.high)
            )
            return lower, upper
    return None, None


def _convertible(one: str, other: str) -> bool:
    return one in units.UNITS and other in units.UNITS and units.dimension(one) == units.dimension(other)


def _ends(spread: Spread, lower: float | None, upper: float | None) -> tuple[float, float]:
    """From the least to the greatest value, and to limits that are not farther than the values themselves reach."""
    if not spread.measured or spread.least is None or spread.greatest is None:
        return 0.0, 1.0
    low, high = spread.least, spread.greatest
    reach = high - low
    near = [limit for limit in (lower, upper) if limit is not None and low - 2 * reach <= limit <= high + 2 * reach]
    low, high = min([low, *near]), max([high, *near])
    margin = 0.04 * (high - low) or 0.5 * abs(high) or 0.5
    return low - margin, high + margin


def _closer(counted: Counted, bound: Bounds) -> tuple[float, float] | None:
    """Narrower ends, where the middle 99 % of the values need less than a quarter of the chart."""
    low, high = _quantile(counted, 0.005), _quantile(counted, 0.995)
    if low is None or high is None:
        return None
    step = (counted.high - counted.low) / BINS
    reach = max(high - low, 2 * step)
    near = [limit for limit in bound if limit is not None and low - 2 * reach <= limit <= high + 2 * reach]
    low, high = min([low, *near]), max([high, *near])
    low, high = low - 0.15 * reach, high + 0.15 * reach
    return (low, high) if high - low < (counted.high - counted.low) / 4 else None


def _quantile(counted: Counted, share: float) -> float | None:
    total = sum(counted.by_verdict.values(), np.zeros(BINS))
    if not total.sum():
        return None
    below = np.concatenate([[0.0], np.cumsum(total)])
    edges = np.linspace(counted.low, counted.high, BINS + 1)
    return float(np.interp(share * below[-1], below, edges))


def _distribution(spread: Spread, bound: Bounds, counted: Counted | None) -> Distribution:
    lower, upper = bound
    if counted is None:
        return Distribution(
            spread.name, spread.unit, 0, spread.rows, None, None, None, None, None, None, lower, upper, (0.0, 1.0)
        )
    inside = int(sum(bins.sum() for bins in counted.by_verdict.values()))
    bars = 16 if inside < 100 else 32 if inside < 2000 else 64
    edges = np.linspace(counted.low, counted.high, bars + 1)
    by_verdict = {verdict: bins.reshape(bars, -1).sum(axis=1) for verdict, bins in counted.by_verdict.items()}
    median = _quantile(counted, 0.5)
    chart = charts.histogram(
        edges,
        by_verdict,
        lower if lower is not None and counted.low <= lower <= counted.high else None,
        upper if upper is not None and counted.low <= upper <= counted.high else None,
        median,
        spread.half_width,
        spread.unit,
    )
    return Distribution(
        name=spread.name,
        unit=spread.unit,
        measured=spread.measured,
        rows=spread.rows,
        mean=spread.mean,
        sd=float(np.sqrt(counted.squares / (spread.measured - 1))) if spread.measured > 1 else None,
        low=_quantile(counted, 0.01),
        median=median,
        high=_quantile(counted, 0.99),
        half_width=spread.half_width,
        lower=lower,
        upper=upper,
        ends=(counted.low, counted.high),
        beyond=spread.measured - inside,
        chart=chart,
    )
