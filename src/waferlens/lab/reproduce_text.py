"""A reproduced table for people and for programs: published and ours, and what separates them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import numpy as np
from scipy.stats import t as student

from waferlens.lab.reproduce import Reproduced
from waferlens.lab.reproduce_figures import Figure
from waferlens.lab.reproduce_published import COSTS, MACHINE, SHARES, Row

NAMES = SHARES | COSTS
NOTHING = "–"
LINE = 110
"""Characters of a line of notes."""


def figure_of(done: Reproduced, row: Row, name: str) -> Figure | None:
    """Ours: of one seed with its interval over devices, of several their mean with its interval over seeds.

    Args:
        done: The table.
        row: Of it.
        name: Of a figure.

    Returns:
        None where it was not measured.
    """
    if name in COSTS:
        value = done.costs.get(row.name, {}).get(name)
        return None if value is None else Figure(value)
    every = [one.figures[name] for one in done.reached.get(row.name, []) if name in one.figures]
    if len(every) < 2:
        return every[0] if every else None
    return _mean([one.value for one in every])


def difference_of(done: Reproduced, row: Row, name: str) -> Figure | None:
    """Ours against the first row, paired by seed [%]; its interval is over seeds, and one seed tells none.

    Args:
        done: The table.
        row: Of it.
        name: Of a figure in percent.

    Returns:
        None for the first row, and where one of the two was not measured.
    """
    first = done.rows[0]
    if row is first:
        return None
    ours, theirs = (
        {one.seed: one.figures[name].value for one in done.reached.get(which.name, []) if name in one.figures}
        for which in (row, first)
    )
    pairs = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
    return _mean([None if a is None or b is None else a - b for a, b in pairs]) if pairs else None


def table_lines(done: Reproduced) -> list[str]:
    """The table, the differences between its rows, and what they are worth."""
    table = done.table
    wide = max(len(row.label) for row in done.rows)
    cells: list[list[str]] = []
    for row in done.rows:
        cells.append([row.label, "published", *(_told(row.published.get(name), name) for name in table.figures)])
        ours = [figure_of(done, row, name) for name in table.figures]
        cells.append(["", "ours", *(_cell(one, name) for one, name in zip(ours, table.figures, strict=True))])
        if any(one is not None and one.interval is not None for one in ours):
            cells.append(["", "  95 %", *(_ends(one) for one in ours)])
    lines = [*wrap(f"{table.title} ({table.where})", LINE, subsequent_indent="  "), ""]
    lines += _columns(["", "", *(NAMES[name] for name in table.figures)], cells, wide)
    if any(row.learns for row in done.rows[1:]) and table.judges == "defects":
        lines += ["", f"Against {done.rows[0].label}, in points:"]
        lines += _columns(["", "", *(NAMES[name] for name in table.shares)], _against(done), wide)
    notes = [line for note in _notes(done) for line in wrap(note, LINE, subsequent_indent="  ")]
    return [*lines, "", *notes]


def table_json(done: Reproduced) -> dict[str, Any]:
    """The same for programs."""
    rows = []
    for row in done.rows:
        ours = {name: figure_of(done, row, name) for name in done.table.figures}
        told: dict[str, Any] = {
            "row": row.name,
            "label": row.label,
            "recipe": row.recipe,
            "published": dict(row.published),
            "ours": {name: None if one is None else one.value for name, one in ours.items()},
            "intervals": {name: one.interval for name, one in ours.items() if one is not None and one.interval},
            "seeds": done.reached.get(row.name, []),
        }
        if "parameters" in row.published:
            told["parameters_equal"] = told["ours"]["parameters"] == row.published["parameters"]
        if row is not done.rows[0] and done.table.judges == "defects":
            told["against_first"] = {name: difference_of(done, row, name) for name in done.table.shares}
        rows.append(told)
    return {
        "table": done.table.name,
        "where": done.table.where,
        "rows": rows,
        "settings": done.budget.settings if done.table.shares else [],
        "data": done.data,
        "speed": done.speed,
        "published_on": MACHINE,
        "notes": _notes(done),
    }


def _against(done: Reproduced) -> list[list[str]]:
    cells = []
    first = done.rows[0]
    for row in done.rows[1:]:
        both = {name for name in done.table.shares if name in row.published and name in first.published}
        published = [
            _signed(row.published[name] - first.published[name]) if name in both else NOTHING
            for name in done.table.shares
        ]
        ours = [difference_of(done, row, name) for name in done.table.shares]
        cells.append([row.label, "published", *published])
        cells.append(
            ["", "ours", *(NOTHING if one is None or one.value is None else _signed(one.value) for one in ours)]
        )
        if any(one is not None and one.interval is not None for one in ours):
            cells.append(["", "  95 %", *(_ends(one) for one in ours)])
    return cells


def _notes(done: Reproduced) -> list[str]:
    """What the figures stand on."""
    table, budget = done.table, done.budget
    notes = []
    if table.shares:
        h, w = budget.size_px
        more = f"; {' '.join(budget.overrides)}" if budget.overrides else ""
        judged = done.data["judged"]
        side = "whole" if judged["side"] == "all" else "its test side"
        notes.append(
            f"Budget a row and seed: {budget.cpu_minutes:g} CPU-minutes or {budget.epochs} epochs, images of "
            f"{h} x {w} px, fresh weights{more}."
        )
        notes.append(
            f"Trained on {_set(done.data['train'])}; judged as bundles on {judged['groups']} devices of "
            f"{_set(judged)} ({side})."
        )
        every = [one for row in done.rows for one in done.reached[row.name]]
        trained = [one for one in every if one.stopped]
        if trained:
            spent = " ".join(f"{one.row}/{one.seed}: {one.cpu_minutes:.1f} min, {one.epochs};" for one in trained)
            notes.append(f"Spent, CPU time and epochs by row/seed: {spent.rstrip(';')}.")
        if early := [f"{one.row}/{one.seed}" for one in trained if one.stopped == "budget"]:
            notes.append(f"Ended by the budget before the learning rate had come down: {', '.join(early)}.")
        notes += [f"Not judged, {one.row}/{one.seed}: {one.refused}" for one in every if one.refused]
        seeds = max((len(done.reached[row.name]) for row in done.rows), default=0)
        notes.append(
            "Other devices, budget and size of image than S2's: levels do not compare with the published ones; only "
            "differences between rows do, "
            + (
                f"over {seeds} seeds."
                if seeds > 1
                else "and with one seed they are no more than noise: S2's gains are of 2 points. Take --seeds 3."
            )
        )
        if table.judges == "defects":
            notes.append("Precision and recall are means over classes at the one score where the mean of F1 is best.")
        else:
            notes.append(
                "S2 cites no spread; methods without a row of S2's stand for comparison, in pixels of the image."
            )
    if "parameters" in table.figures:
        same = "equal the published ones to the last" if done.exact else "DIFFER from the published ones"
        notes.append(f"Parameters, batch norms folded, {same}; GFLOPs of 640 x 640 px.")
    if done.speed:
        h, w = done.speed["size_px"]
        threads = done.speed["threads"]
        notes.append(
            f"FPS: batches a second without NMS, S2's on {MACHINE}; ours in {done.speed['engine']} on "
            f"{threads} CPU thread{'s' if threads > 1 else ''}, {h} x {w} px, in turns. Only ratios compare."
        )
    return notes


def _set(facts: dict[str, Any]) -> str:
    devices = f", {facts['devices']} devices" if facts.get("devices") else ""
    world = (
        f" of {facts['world']}, seed {facts['seed']}" if facts.get("world") and facts.get("seed") is not None else ""
    )
    return f"`{facts['folder']}`{world}{devices}"


def _mean(values: Sequence[float | None]) -> Figure:
    """Mean and its 95 % interval of a normal distribution of unknown spread."""
    known = np.array([one for one in values if one is not None], np.float64)
    if not len(known):
        return Figure(None)
    if len(known) < 2:
        return Figure(float(known[0]))
    half = float(student.ppf(0.975, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known)))
    return Figure(float(known.mean()), (float(known.mean()) - half, float(known.mean()) + half))


def _columns(head: Sequence[str], cells: Sequence[Sequence[str]], wide: int) -> list[str]:
    widths = [max(len(row[place]) for row in [head, *cells]) for place in range(len(head))]
    widths[0] = max(widths[0], wide)
    return [
        "  ".join(f"{one:<{width}}" if place < 2 else f"{one:>{width}}" for place, (one, width) in
                  enumerate(zip(row, widths, strict=True))).rstrip()
        for row in [head, *cells]
    ]  # fmt: skip


def _cell(one: Figure | None, name: str) -> str:
    return NOTHING if one is None else _told(one.value, name)


def _told(value: float | None, name: str) -> str:
    if value is None:
        return NOTHING
    if name == "parameters":
        return f"{int(value):,}"
    return f"{value:.2f}" if name.startswith("fps") and value < 10 else f"{value:.1f}"


def _ends(one: Figure | None) -> str:
    return "" if one is None or one.interval is None else f"{one.interval[0]:.1f}..{one.interval[1]:.1f}"


def _signed(value: float) -> str:
    return f"{value:+.1f}"
