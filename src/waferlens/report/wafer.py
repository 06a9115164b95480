"""A run of the wafer station as the page tells it: how high, what is missing, where to look first.

Numbers of all fields are counted in the database. The worst are listed, and the worst of those are drawn, one map at a
time: neither memory nor page grows with the lot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from waferlens import units
from waferlens.inspect.folder import DATABASE, STITCHED
from waferlens.inspect.limits import parse_limit
from waferlens.inspect.wafer_limits import EXACT, LIMITED
from waferlens.report import words
from waferlens.report.inspected import Inspected, told_by
from waferlens.report.lot import LimitLine
from waferlens.report.queries import Row
from waferlens.report.wafer_field import ERROR, FieldPage, Scales, make_field, scales_of
from waferlens.report.wafer_queries import WaferResults

STATION = "wafer"
LISTED, DRAWN = 100, 24
"""Fields in the table of the page, and with drawings; `results.csv` has all of them."""


@dataclass(frozen=True, slots=True)
class FieldLine:
    """One field in the table."""

    name: str
    folders: str
    verdict: str
    anchor: str | None
    """Of its drawings; None where it has none."""
    cells: list[str]
    worst: list[bool]
    """Which cells stand out."""


@dataclass(slots=True, kw_only=True)
class WaferLot(Inspected):
    """Everything the page says about one run of the wafer station."""

    key: list[tuple[str, str, str]]
    """Label, number and what is said small behind it, of all fields together."""
    about: list[tuple[str, str]]
    """How it was inspected."""
    limits: list[LimitLine]
    scales: Scales
    lines: list[FieldLine]
    fields: list[FieldPage] = field(default_factory=list)
    stitched: FieldPage | None = None

    @property
    def measured(self) -> int:
        """Fields that have numbers."""
        return self.images - self.counts.get("quarantined", 0)


def read_wafer(folder: Path, card: dict[str, Any], store: str | None) -> WaferLot:
    """Everything the page says about a run of the wafer station.

    Args:
        folder: of the run.
        card: its run card.
        store: URL of the database with its results, where they are not in the folder.

    Raises:
        InputError: the results cannot be read.
    """
    with WaferResults(store if store is not None else folder / DATABASE, card["data"]["run"]) as results:
        told = told_by(results, folder, card)
        items = results.worst(LISTED)
        rows = results.rows(items)
        drawn = [item for item in items if rows[item].map_file][:DRAWN]
        places = {item: (folder / str(rows[item].map_file)).parent for item in drawn}
        stitched = folder / STITCHED
        tallest, _ = results.highest()
        scales = scales_of(
            [*places.values(), *([stitched] if stitched.is_dir() else [])], _lowest(rows, drawn), tallest
        )
        limits = [_limit_line(results, text) for text in card["data"]["options"].get("limits", [])]
        key = _key(results, told["images"] - told["counts"].get("quarantined", 0), stitched.is_dir())
    anchors = {item: f"field-{card['data']['run'][:8]}-{item}" for item in drawn}
    lot = WaferLot(
        **told,
        key=key,
        about=_about(card),
        limits=limits,
        scales=scales,
        lines=[_line(rows[item], told["root"], anchors.get(item)) for item in items],
    )
    for item in drawn:
        page = make_field(places[item], anchors[item], rows[item].path, rows[item].numbers, scales)
        page.verdict, page.why = rows[item].verdict, words.plain(rows[item].verdict_reason)
        lot.fields.append(page)
    if stitched.is_dir():
        lot.stitched = make_field(stitched, f"stitched-{card['data']['run'][:8]}", STITCHED, {}, scales)
    if len(lot.lines) == 1:  # the numbers of the one map stand on top, and not twice
        lot.key += [one for page in lot.fields for one in page.key if one[0] == ERROR]
    rates = [page.mpx_per_s for page in lot.fields if page.mpx_per_s]
    if rates:
        lot.key.append(("Mpx/s", words.number(float(np.median(rates)), 3), "median of the maps"))
    return lot


def _lowest(rows: Mapping[int, Row], items: list[int]) -> float | None:
    """The height that all but 2 % of every drawn map exceed [um]"""
    lows = []
    for item in items:
        top, reach = (rows[item].numbers.get(name, (None,))[0] for name in ("top", "range"))
        if top is not None and reach is not None:
            lows.append(top - reach)
    return min(lows, default=None)


def _key(results: WaferResults, measured: int, stitched: bool) -> list[tuple[str, str, str]]:
    top, bound = results.highest()
    _, safe = results.reach("safe")
    least, _ = results.reach("known_share")
    unbounded = results.without("safe")
    told = [
        ("tallest top", words.quantity(top, "um"), "" if bound is None else f"at most {words.quantity(bound, 'um')}"),
        ("safe height", words.quantity(safe, "um"),
         f"not known of {words.count(unbounded)}" if unbounded and measured > unbounded else ""),
    ]  # fmt: skip
    counts = {name: results.total(f"dies_{name}") for name in ("present", "missing", "unsure")}
    sites = sum(int(count) for count in counts.values() if count is not None)
    twice = ", those of overlaps twice" if stitched else ""
    for name in ("missing", "unsure"):
        count = counts[name]
        told.append(
            (f"dies {name}", words.NOTHING, "no die map")
            if count is None
            else (f"dies {name}", words.count(int(count)), f"of {words.count(sites)} sites{twice}")
        )
    told.append(("of the least known map known" if measured > 1 else "of the map known", words.percent(least, 4), ""))
    positions = results.total("focus_positions")
    told.append(("positions of focus", words.NOTHING if positions is None else words.count(int(positions)), ""))
    return told


def _line(row: Row, root: str, anchor: str | None) -> FieldLine:
    numbers = row.numbers

    def value(name: str) -> float | None:
        return numbers.get(name, (None,))[0]

    def whole(name: str) -> str:
        count = value(name)
        return words.NOTHING if count is None else words.count(int(count))

    top, _, _, high = numbers.get("top", (None, "um", None, None))
    *folders, file = words.plain(words.within(row.path, root)).split("/")
    cells = [
        words.fixed(top, 1), words.fixed(high, 1), words.fixed(value("safe"), 1), words.fixed(value("die_top"), 1),
        whole("dies_present"), whole("dies_missing"), whole("dies_unsure"), whole("focus_positions"),
        words.percent(value("known_share"), 4),
    ]  # fmt: skip
    known = value("known_share")
    bad = [False] * len(cells)
    bad[0], bad[2] = top is None, value("safe") is None
    bad[5], bad[6] = bool(value("dies_missing")), bool(value("dies_unsure"))
    bad[8] = known is not None and known < 1
    return FieldLine(file, "/".join(folders), row.verdict, anchor, cells, bad)


def _limit_line(results: WaferResults, text: str) -> LimitLine:
    limit = parse_limit(text, LIMITED)
    unit = LIMITED[limit.name]
    low, high = (None if end is None else units.convert(end, limit.unit, unit) for end in (limit.low, limit.high))
    judged = (results.judged_exactly if limit.name in EXACT else results.judged)(limit.name, unit, low, high)
    return LimitLine(limit.name, low, high, unit, judged)


def _about(card: dict[str, Any]) -> list[tuple[str, str]]:
    options = card["data"]["options"]
    about = []
    if options.get("objective"):
        layer = {"top": "the top of each die", "carrier": "what lies between dies", "all": "every height"}
        said = str(options.get("layer", "top"))
        about.append(("focus planned for", f"{options['objective']}, {layer.get(said, f'level {said}')} in focus"))
    if options.get("clearance_um") is not None:
        about.append(("clearance", f"{words.quantity(options['clearance_um'], 'um')} above the highest upper bound"))
    if options.get("product"):
        about.append(("product", f"{words.plain(options['product'])}{words.THIN}µm, given for all"))
    if options.get("pitch_um"):
        about.append(("pitch of the images", words.quantity(options["pitch_um"], "um")))
    if options.get("layout"):
        about.append(("places on the stage", words.file_name(str(options["layout"]))))
    return about
