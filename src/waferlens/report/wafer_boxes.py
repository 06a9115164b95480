"""Dies, fields of focus and sites of flatness of a map as the page tells them: boxes to draw, and rows of tables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from waferlens.report import words
from waferlens.report.wafer_charts import Ground, Mark, box_chart
from waferlens.report.wafer_frame import Frame

ROWS = 24
"""Rows of a table on the page; all of them stand in the files of the map."""
_REASONS = 8
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_WORST = {"missing": 0, "unsure": 1, "present": 2}


@dataclass(slots=True)
class Boxes:
    """One drawing of boxes with its table."""

    chart: Markup
    counts: list[tuple[str, str, int]]
    """Class, word and number of what is drawn."""
    head: list[str]
    rows: list[list[str]]
    """As they are printed; the last cell may be long."""
    total: int
    """Boxes in all."""
    reasons: list[tuple[str, int]] = field(default_factory=list)
    """What stands against something, and how often."""
    notes: list[str] = field(default_factory=list)
    numbers: list[tuple[str, str, str]] = field(default_factory=list)
    """Name, value, and the reason where there is none."""
    foremost: tuple[str, ...] = ()
    """The numbers that stand beside the drawing."""
    meaning: str = ""
    """What the names of the numbers mean."""


def die_boxes(sites: Sequence[dict[str, Any]], frame: Frame, ground: Ground) -> Boxes:
    """The die map: a box a site, the worst first in the table.

    Args:
        sites: of `dies.json`.
        frame: of the drawing.
        ground: the image, to lie beneath.
    """
    marks = []
    for number, site in enumerate(sites):
        levels = site.get("levels") or []
        tops = " / ".join(words.fixed(level[4], 0) for level in levels)
        told = tops or (words.fixed(site["top_um"], 0) if site.get("top_um") is not None else "")
        marks.append(Mark(site["box_um"], site["state"], told, tip=f"site {number}: {_told_site(site)}"))
        # the lowest level is the die itself
        marks += [Mark(level[:4], "level") for level in levels[1:]]
    counts = Counter(str(site["state"]) for site in sites)
    ordered = sorted(
        range(len(sites)),
        key=lambda at: (_WORST.get(sites[at]["state"], 3), -(sites[at].get("top_um") or 0.0), at),
    )
    rows = [
        [
            str(number), str(site["state"]), _place(site["box_um"]), words.fixed(site.get("top_um"), 1),
            " · ".join(words.fixed(level[4], 1) for level in site.get("levels") or []) or words.NOTHING,
            words.plain(site.get("reason") or ""),
        ]
        for number, site in ((at, sites[at]) for at in ordered[:ROWS])
    ]  # fmt: skip
    reasons = Counter(_NUMBER.sub("…", str(site.get("reason"))) for site in sites if site["state"] == "unsure")
    return Boxes(
        box_chart(frame, ground, marks, "map of the dies"),
        [(kind, kind, counts.get(kind, 0)) for kind in ("present", "missing", "unsure")],
        ["site", "state", "x, y of its box / mm", "top / µm", "levels / µm", "why"],
        rows,
        len(sites),
        reasons.most_common(_REASONS),
    )


def focus_boxes(plan: dict[str, Any], frame: Frame, ground: Ground) -> Boxes:
    """The plan of focus: a box a field, the denser the more positions it takes.

    Args:
        plan: of `focus.json`.
        frame: of the drawing.
        ground: the image, to lie beneath.
    """
    fields = plan["fields"]
    most = max((len(one["slices_um"]) for one in fields), default=1) or 1
    marks, counts = [], Counter[str]()
    for number, one in enumerate(fields):
        slices, refused = len(one["slices_um"]), _refused(one)
        kind = "refused" if refused else "focus" if slices else "nolayer" if one["state"] == "no layer" else "nothing"
        counts["refused" if refused else one["state"]] += 1
        strength = 0.12 + 0.6 * slices / most if slices else 0.0
        safe = "no safe height" if one["safe_um"] is None else f"safe at {words.quantity(one['safe_um'], 'um')}"
        tip = f"field {number}: {one['state']}, {slices} positions, {safe}"
        marks.append(Mark(one["box_um"], kind, str(slices) if slices else "", strength, tip))
    ordered = sorted(range(len(fields)), key=lambda at: (not _refused(fields[at]), -len(fields[at]["slices_um"]), at))
    rows = [
        [
            str(number), "refused" if _refused(one) else str(one["state"]), _place(one["box_um"]),
            _span(one["low_um"], one["high_um"]), str(len(one["slices_um"])),
            _span(*(one["slices_um"][0], one["slices_um"][-1])) if one["slices_um"] else words.NOTHING,
            words.fixed(one["safe_um"], 0), words.plain("; ".join(one["flags"])),
        ]
        for number, one in ((at, fields[at]) for at in ordered[:ROWS])
    ]  # fmt: skip
    flags = Counter(_NUMBER.sub("…", flag) for one in fields for flag in one["flags"])
    depth, (wide, high) = plan["depth_of_focus_um"], plan["field_um"]
    layer = plan["layer"]
    told = {"top": "the top of each die", "carrier": "what lies between dies", "all": "every height"}
    notes = [
        f"{words.exact(plan['magnification'])}× / {words.exact(plan['na'])}, fields of {words.fixed(wide / 1000, 2)} × "
        f"{words.quantity(high / 1000, 'mm', 3)}, depth of focus {words.quantity(depth, 'um', 3)}, "
        f"in focus {told.get(str(layer), f'level {layer}')}"
    ]
    kinds = {"single": "focus", "stack": "focus", "no layer": "nolayer", "no data": "nothing", "refused": "refused"}
    names = {"single": "one position", "stack": "a stack", "refused": "refused: no safe height"}
    return Boxes(
        box_chart(frame, ground, marks, "fields of the objective with their positions of focus"),
        [(kind, names.get(state, state), counts[state]) for state, kind in kinds.items() if counts[state]],
        ["field", "state", "x, y of its box / mm", "layer / µm", "positions", "from, to / µm", "safe / µm", "note"],
        rows,
        len(fields),
        flags.most_common(_REASONS),
        notes,
    )


def site_boxes(flat: dict[str, Any], frame: Frame, ground: Ground) -> Boxes | None:
    """Flatness: its numbers, and a box a site, the denser the larger its range; None where it has another form.

    Args:
        flat: of `flatness.json`.
        frame: of the drawing.
        ground: the image, to lie beneath.
    """
    try:
        sites, numbers = flat["sites"]["sites"], flat["numbers_um"]
        reasons, meaning, size = flat["reasons"], flat["conditions"]["meaning"], flat["sites"]["size_mm"]
        ranges = [one["range_um"] for one in sites]
    except (KeyError, TypeError):
        return None
    least, most = min((r for r in ranges if r is not None), default=0.0), max((r for r in ranges if r), default=0.0)
    marks, counts = [], Counter[str]()
    for number, (site, told) in enumerate(zip(sites, ranges, strict=True)):
        kind = "nothing" if told is None else "partial" if site["partial"] else "flat"
        counts["not measured" if told is None else kind] += 1
        strength = 0.0 if told is None else 0.1 + 0.6 * (told - least) / ((most - least) or 1.0)
        word = "" if told is None else words.number(told, 3)
        why = site["reason"] if told is None else f"range {words.quantity(told, 'um', 4)}"
        marks.append(Mark(site["box_um"], kind, word, strength, f"site {number}: {why}"))
    ordered = sorted(range(len(sites)), key=lambda at: (ranges[at] is not None, -(ranges[at] or 0.0), at))
    rows = [
        [
            str(number), _place(one["box_um"]), words.number(one["range_um"]), words.number(one["deviation_um"]),
            words.number(one["range_global_um"]), words.percent(one["known_share"]), words.plain(one["reason"]),
        ]
        for number, one in ((at, sites[at]) for at in ordered[:ROWS])
    ]  # fmt: skip
    notes = []
    if size:
        notes.append(f"sites of {words.exact(size[0])} × {words.exact(size[1])}{words.THIN}mm")
    named = {"flat": "whole", "partial": "partial", "not measured": "not measured"}
    kinds = {"flat": "flat", "partial": "partial", "not measured": "nothing"}
    return Boxes(
        box_chart(frame, ground, marks, "sites with their range of heights"),
        [(kinds[state], named[state], counts[state]) for state in named if counts[state]],
        ["site", "x, y of its box / mm", "range / µm", "deviation / µm", "from the whole's plane / µm", "known", "why"],
        rows,
        len(sites),
        [],
        notes,
        [(words.name(name), words.quantity(z, "um"), words.plain(reasons.get(name, ""))) for name, z in numbers.items()]
        + [(words.plain(name), words.quantity(z, "um"), "") for name, z in flat.get("names_um", {}).items()],
        ("range raw", "range least squares", "rms least squares", "site range"),
        words.plain(meaning),
    )


def _refused(one: dict[str, Any]) -> bool:
    return any(flag.startswith("refused") for flag in one["flags"])


def _told_site(site: dict[str, Any]) -> str:
    top = site.get("top_um")
    after = f", top {words.quantity(top, 'um')}" if top is not None else ""
    return f"{site['state']}{after}{'; ' + str(site['reason']) if site.get('reason') else ''}"


def _place(box_um: Sequence[float]) -> str:
    x0, y0, x1, y1 = (words.fixed(edge / 1000, 2) for edge in box_um)
    return f"{x0} to {x1}, {y0} to {y1}"


def _span(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return words.NOTHING
    return words.fixed(low, 1) if high - low < 0.05 else f"{words.fixed(low, 1)} to {words.fixed(high, 1)}"
