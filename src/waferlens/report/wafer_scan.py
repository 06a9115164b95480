"""Which row of a map is drawn as a profile, and which part of a long map is shown large.

The auto-focus track tells the highest of each column. It says least where a die and a gap stand in one column, and a
map most: so the row is chosen there, if there is such a place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from waferlens.report.wafer_frame import LONG
from waferlens.report.wafer_grids import Part

WINDOW = 2.0
"""Proportion of the part of a long map that is shown large."""
PART_PX = 480
"""Longer side of its pictures, at most [px]"""
_LEAST_UM = 60.0  # a gap that is narrower is not seen in a profile
Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """The row of the profile."""

    row: int
    gaps_um: tuple[Span, ...]
    """Where it crosses a site without a die while a die stands in the same columns [um]"""
    middle_um: float | None
    """The place along it that is worth most [um]"""
    why: str


def choose_line(sites: Sequence[dict[str, Any]] | None, shape: tuple[int, int], pitch_um: float) -> Line:
    """The row of the profile.

    Args:
        sites: of the die map; None where there is none.
        shape: rows and columns of the map [px]
        pitch_um: of the map [um]
    """
    h, w = shape
    present = [one["box_um"] for one in sites or () if one["state"] == "present"]
    missing = [one["box_um"] for one in sites or () if one["state"] == "missing"]
    best: tuple[float, int, list[Span]] | None = None
    for box in missing:
        row = _middle_row(box, h, pitch_um)
        gaps = _gaps((row + 0.5) * pitch_um, missing, present, w * pitch_um)
        # among gaps of one length, the row that has dies as well
        score = sum(b - a for a, b in gaps) + 1e-3 * _crossed(row, present, shape, pitch_um)
        if gaps and (best is None or score > best[0]):
            best = (score, row, gaps)
    if best is not None:
        seen = [(box[0], box[2]) for box in present if box[1] <= (best[1] + 0.5) * pitch_um <= box[3]]
        why = "it crosses a site without a die while a die stands in the same columns (shaded): the track tells the die"
        return Line(best[1], tuple(best[2]), _between(best[2], seen), why)
    if present:
        rows = (_middle_row(box, h, pitch_um) for box in present)
        row = max(rows, key=lambda at: _crossed(at, present, shape, pitch_um))
        seen = [box for box in present if box[1] <= (row + 0.5) * pitch_um <= box[3]]
        widest = max(seen or present, key=lambda box: min(box[2], w * pitch_um) - max(box[0], 0.0))
        edge = widest[0] if widest[0] > 0 else widest[2]
        why = "it crosses the most dies; no column holds both a die and a site without one"
        return Line(row, (), min(max(edge, 0.0), w * pitch_um), why)
    return Line(h // 2, (), None, "it is the middle row; no die is known that could choose another")


def shown_part(shape: tuple[int, int], pitch_um: float, line: Line) -> Part:
    """The part of a map that is shown large: all of it, or of a long one a window about what matters on the line."""
    h, w = shape
    columns = w if w <= LONG * h else round(WINDOW * h)
    middle = w // 2 if line.middle_um is None else round(line.middle_um / pitch_um)
    first = min(max(0, middle - columns // 2), w - columns)
    return Part(0, first, h, columns, -(-max(h, columns) // PART_PX))


def _middle_row(box: Sequence[float], rows: int, pitch_um: float) -> int:
    """Of what of a box lies in the map."""
    y0, y1 = max(0.0, box[1]), min(rows * pitch_um, box[3])
    return min(rows - 1, max(0, int(0.5 * (y0 + y1) / pitch_um)))


def _gaps(
    y_um: float, missing: Sequence[Sequence[float]], present: Sequence[Sequence[float]], width_um: float
) -> list[Span]:
    """Where a row runs over a missing site, and a die stands above or below it."""
    columns = _merged([(box[0], box[2]) for box in present])
    gaps = []
    for x0, y0, x1, y1 in missing:
        if y0 <= y_um <= y1:
            gaps += [
                (max(a, x0, 0.0), min(b, x1, width_um))
                for a, b in columns
                if min(b, x1, width_um) - max(a, x0, 0.0) > _LEAST_UM
            ]
    return sorted(gaps)


def _crossed(row: int, present: Sequence[Sequence[float]], shape: tuple[int, int], pitch_um: float) -> float:
    """Length of dies that a row crosses; of rows that cross alike, the nearest to the middle has a little more [um]"""
    h, w = shape
    y_um, width_um = (row + 0.5) * pitch_um, w * pitch_um
    length = sum(max(0.0, min(x1, width_um) - max(x0, 0.0)) for x0, y0, x1, y1 in present if y0 <= y_um <= y1)
    return length * (1 - 0.05 * abs(2 * row / h - 1))


def _between(gaps: Sequence[Span], dies: Sequence[Span]) -> float:
    """Where on a row a gap and a die are nearest to each other; without a die the middle of the longest gap [um]"""
    pairs = [
        (abs(gap[end] - die[1 - end]), 0.5 * (gap[end] + die[1 - end]))
        for gap in gaps
        for die in dies
        for end in (0, 1)
    ]
    if pairs:
        return min(pairs)[1]
    longest = max(gaps, key=lambda gap: gap[1] - gap[0])
    return 0.5 * (longest[0] + longest[1])


def _merged(spans: Sequence[Span]) -> list[Span]:
    """Stretches that overlap made one."""
    merged: list[Span] = []
    for low, high in sorted(spans):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return merged
