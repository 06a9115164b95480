"""A run of the hole station as the page tells it: limits, distributions, cards of images, repeatability.

Nothing here grows with the lot but two numbers an image while repeated images are compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from waferlens.inspect.folder import DATABASE
from waferlens.inspect.limits import Limit, parse_limit
from waferlens.ops.hole import PERIODS
from waferlens.report.cards import Card, Scales, make_cards
from waferlens.report.distributions import FIRST, Distribution, read_distributions
from waferlens.report.groups import Groups, compare
from waferlens.report.inspected import REASONS, Inspected, told_by
from waferlens.report.queries import Results

MOST_CHARTS = 9
TYPICAL = (0.02, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 0.98)
"""Quantiles of the first measurand that the examples are taken from."""
CARDS = 4
"""Images of each kind of worst case."""


@dataclass(frozen=True, slots=True)
class LimitLine:
    """One limit, and what it alone makes of the lot."""

    name: str
    lower: float | None
    upper: float | None
    unit: str
    verdicts: dict[str, int]


@dataclass(slots=True, kw_only=True)
class Lot(Inspected):
    """Everything the page says about one run of the hole station."""

    outside: int
    """Images out of the bundle's domain."""
    limits: list[LimitLine]
    charts: list[Distribution]
    table: list[Distribution]
    scales: Scales | None = None
    typical: list[Card] = field(default_factory=list)
    worst: list[tuple[str, str, list[Card]]] = field(default_factory=list)
    """Title, what it shows, and the cards."""
    unmeasured: list[tuple[str, int]] = field(default_factory=list)
    groups: Groups | None = None


def read_lot(folder: Path, card: dict[str, Any], store: str | None) -> Lot:
    """Everything the page says about a run.

    Args:
        folder: of the run.
        card: its run card.
        store: URL of the database with its results, where they are not in the folder.

    Raises:
        InputError: the results cannot be read.
    """
    told = card["data"]
    with Results(store if store is not None else folder / DATABASE, told["run"]) as results:
        limits = [parse_limit(text) for text in told["options"].get("limits", [])]
        table = read_distributions(results, limits)
        lot = Lot(
            **told_by(results, folder, card),
            outside=results.outside(),
            limits=[_limit_line(results, limit, table) for limit in limits],
            charts=_drawn(table),
            table=table,
            unmeasured=results.unmeasured(REASONS),
        )
        _add_cards(lot, results, folder)
        lot.groups = compare(results, lot.root, table, max(lot.images, lot.planned))
    return lot


def _drawn(table: list[Distribution]) -> list[Distribution]:
    limited = [one for one in table if one.lower is not None or one.upper is not None]
    rest = [one for one in table if one not in limited and one.name in FIRST]
    return [one for one in [*limited, *rest] if one.measured][:MOST_CHARTS]


def _limit_line(results: Results, limit: Limit, table: list[Distribution]) -> LimitLine:
    of_it = [one for one in table if one.name == limit.name and (one.lower is not None or one.upper is not None)]
    if not of_it:
        return LimitLine(limit.name, limit.low, limit.high, limit.unit, {})
    # where files of two scales are in one lot, the limit's own unit is the one that counts
    one = next((one for one in of_it if one.unit == limit.unit), of_it[0])
    # a direction comes back after half a turn, which a comparison of numbers does not know
    judged = {} if limit.name in PERIODS else results.judged(one.name, one.unit, one.lower, one.upper)
    return LimitLine(one.name, one.lower, one.upper, one.unit, judged)


def _add_cards(lot: Lot, results: Results, folder: Path) -> None:
    first = lot.charts[0] if lot.charts else None
    picked: list[tuple[str, str, list[int]]] = []
    if first is not None:
        limited = [one for one in lot.charts if one.lower is not None or one.upper is not None]
        beyond = [
            item for one in limited for item in results.outermost(one.name, one.unit, one.lower, one.upper, CARDS)
        ]
        picked.append(("Farthest outside a limit", "NG with the most certainty", beyond))
        picked.append(
            ("Nearest to a limit", "where a little more uncertainty turns the verdict", _at_limits(results, limited))
        )
        picked.append(
            (
                "Widest interval",
                f"of {first.name.replace('_', ' ')}, among images of the bundle's domain",
                results.widest(first.name, first.unit, CARDS) if first.half_width is not None else [],
            )
        )
    what = "unlike the images the bundle was calibrated on; no interval is promised, so the verdict is review"
    picked.append(("Out of domain", what, results.strangest(CARDS)))
    typical = [] if first is None else _typical(results, first)
    wanted = [*typical, *(item for _, _, items in picked for item in items[:CARDS])]
    cards, lot.scales = make_cards(results.rows(sorted(set(wanted))), folder, lot.root, lot.charts)
    lot.typical = [cards[item] for item in typical if item in cards]
    lot.worst = [
        (title, what, [cards[item] for item in dict.fromkeys(items) if item in cards][:CARDS])
        for title, what, items in picked
    ]


def _typical(results: Results, first: Distribution) -> list[int]:
    picked: list[int] = []
    reach = first.ends[1] - first.ends[0]
    for share in TYPICAL:
        # between the quantiles the values lie close together: a straight line between three of them is near enough
        value = float(np.interp(share, (0.01, 0.5, 0.99), (first.low, first.median, first.high)))
        found = results.nearest(first.name, first.unit, value, len(TYPICAL)) if reach else []
        picked += [item for item in found if item not in picked][:1]
    return picked


def _at_limits(results: Results, limited: list[Distribution]) -> list[int]:
    """Images nearest to any limit, by their distance in half-widths of their intervals."""
    near: list[tuple[float, int]] = []
    for one in limited:
        for limit in (one.lower, one.upper):
            if limit is None:
                continue
            items = results.nearest(one.name, one.unit, limit, CARDS)
            for item, row in results.rows(items).items():
                value, _, low, high = row.numbers[one.name]
                if value is not None and low is not None and high is not None and high > low:
                    near.append((abs(value - limit) / (high - low), item))
    return list(dict.fromkeys(item for _, item in sorted(near)))[:CARDS]
