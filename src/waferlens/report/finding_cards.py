"""Cards of single images with what was found on them: the image under its boxes, and the list of its findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from waferlens.errors import InputError
from waferlens.formats import images
from waferlens.inspect.folder import OVERLAYS, overlay_name
from waferlens.report import pictures, words
from waferlens.report.finding_queries import FindingResults, Listed
from waferlens.report.queries import Row

LISTED = 5
"""Findings told on a card."""
DRAWN = 150
"""Boxes drawn on its picture; the strongest."""
SIDE_PX = 460
"""Longest side of its picture [px]"""
CROP_PX = 48
"""Least side of what is shown around a finding [px]"""
_SMALL_PX = 200  # images up to this size are shown pixel by pixel, and lose nothing


@dataclass(frozen=True, slots=True)
class Mark:
    """A box on the picture."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    """Classes of the page: critical or tolerable, and whether it is listed."""
    number: str
    """As the list has it; empty where it is not listed."""


@dataclass(frozen=True, slots=True)
class Line:
    """A finding of the list."""

    number: int
    crop: str | None
    """Inline picture of what lies around it."""
    x: str
    """Left and right edge of its box, outer ones; the centre of the first pixel is 0 [px]"""
    y: str
    """Upper and lower edge [px]"""
    area: str
    contrast: str
    score: str
    light_or_dark: str
    critical: bool
    rule: str


@dataclass(frozen=True, slots=True)
class FindingCard:
    """One image of the lot."""

    item: int
    file: str
    folders: list[str]
    """Where it lies, seen from the folder of the lot."""
    page: int
    verdict: str
    why: str
    deviation: float | None
    """The greatest, in units of the threshold."""
    picture: str | None
    hard: bool
    """Whether its pixels are shown with hard edges."""
    size: tuple[int, int]
    """Width and height of the image [px]"""
    marks: list[Mark]
    stroke: float
    """Width of a line of the boxes [px of the image]"""
    lines: list[Line]
    findings: int
    missing: str
    """Why the picture is another, or none."""


def make_cards(results: FindingResults, items: Sequence[int], folder: Path, root: str) -> dict[int, FindingCard]:
    """Cards of some images.

    Args:
        results: of the run.
        items: the images.
        folder: of the run, where the overlays lie.
        root: what all paths of the lot begin with.

    Raises:
        InputError: the results cannot be read.
    """
    rows, listed = results.rows(items), results.listed(items, DRAWN)
    return {item: _card(rows[item], listed[item], folder, root) for item in dict.fromkeys(items) if item in rows}


def _card(row: Row, found: Sequence[Listed], folder: Path, root: str) -> FindingCard:
    pixels, why_not = _pixels(row.path, row.page)
    *folders, file = words.plain(words.within(row.path, root)).split("/")
    total = _number(row, "findings")
    about = {
        "item": row.item,
        "file": file,
        "folders": folders,
        "page": row.page,
        "verdict": row.verdict,
        "why": words.plain(row.verdict_reason or row.reason),
        "deviation": _number(row, "deviation"),
        "findings": len(found) if total is None else int(total),
    }
    if pixels is None:
        picture, size = _overlay(row, folder)
        told = (
            f"{why_not}; shown is the overlay of the run" if picture else f"{why_not}, and the run has no overlay of it"
        )
        lines = [_line(one, None) for one in found[:LISTED]]
        return FindingCard(
            **about, picture=picture, hard=False, size=size, marks=[], stroke=1.0, lines=lines, missing=told
        )
    h, w = pixels.shape
    stretch = pictures.span(pixels[:: max(1, h // 1000), :: max(1, w // 1000)].astype(np.float64), 0.25)
    small = max(h, w) <= _SMALL_PX
    picture = pictures.grey(pixels)[0] if small else pictures.photo(pixels, SIDE_PX, stretch)
    stroke = max(h, w) / 300
    lines = [_line(one, pictures.photo(_around(pixels, one.box), 64, stretch)) for one in found[:LISTED]]
    marks = [_mark(one, stroke) for one in reversed(found)]  # the strongest on top
    return FindingCard(
        **about, picture=picture, hard=small, size=(w, h), marks=marks, stroke=stroke, lines=lines, missing=""
    )


def _number(row: Row, name: str) -> float | None:
    return row.numbers[name][0] if name in row.numbers else None


def _pixels(path: str, page: int) -> tuple[np.ndarray | None, str]:
    """The image, or why it cannot be shown."""
    try:
        found = next(iter(images.read_pages(path, range(page, page + 1))), None)
    except InputError as wrong:
        return None, f"the image is no longer there: {words.plain(wrong.reason)}"
    if found is None or isinstance(found, InputError):
        return None, "the image can no longer be read"
    return found.pixels, ""


def _overlay(row: Row, folder: Path) -> tuple[str | None, tuple[int, int]]:
    """What the run drew of an image, as it lies in its folder."""
    import cv2

    path = folder / OVERLAYS / overlay_name(row.item, row.path)
    pixels = None
    try:
        data = np.fromfile(path, np.uint8)
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except OSError:
        pass
    if pixels is None:
        return None, (4, 3)
    h, w = pixels.shape[:2]
    by = max(h, w) / (1.5 * SIDE_PX)
    if by > 1:
        pixels = cv2.resize(pixels, (max(1, round(w / by)), max(1, round(h / by))), interpolation=cv2.INTER_AREA)
    return pictures.packed(pixels), (w, h)


def _around(pixels: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """A square around a finding, inside the image."""
    h, w = pixels.shape
    x0, y0, x1, y1 = box
    side = round(max(CROP_PX, 1.6 * max(x1 - x0, y1 - y0)))
    left = min(max(0, round((x0 + x1 - side) / 2)), max(0, w - side))
    top = min(max(0, round((y0 + y1 - side) / 2)), max(0, h - side))
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def _mark(one: Listed, stroke: float) -> Mark:
    """A box a line's width outside of what it shows; in the coordinates of the picture, whose first edge is 0."""
    x0, y0, x1, y1 = (edge + 0.5 for edge in one.box)
    listed = one.number < LISTED
    kind = f"{'critical' if one.critical else 'tolerable'}{'' if listed else ' rest'}"
    return Mark(
        x0 - stroke,
        y0 - stroke,
        x1 - x0 + 2 * stroke,
        y1 - y0 + 2 * stroke,
        kind,
        str(one.number + 1) if listed else "",
    )


def _line(one: Listed, crop: str | None) -> Line:
    x0, y0, x1, y1 = (words.exact(edge) for edge in one.box)
    sign = "+" if one.contrast is not None and one.contrast > 0 else ""
    return Line(
        one.number + 1,
        crop,
        f"{x0} to {x1}",
        f"{y0} to {y1}",
        words.exact(one.area_px),
        f"{sign}{words.number(one.contrast, 3)}",
        words.number(one.score, 3),
        one.light_or_dark,
        one.critical,
        words.plain(one.rule),
    )
