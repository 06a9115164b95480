"""Cards of single images: what was seen, what was made of it, how sure that is, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from waferlens.errors import InputError
from waferlens.formats import images
from waferlens.formats.map_stack import read_map_stack
from waferlens.report import charts, pictures, words
from waferlens.report.distributions import Distribution
from waferlens.report.queries import Row

NUMBERS = 3
"""Measurands told on a card."""
_MID = 0.5  # of the depth: where the opening's contour is drawn


@dataclass(frozen=True, slots=True)
class Scales:
    """The colour scales that all cards of a lot share, so that two of them can be compared."""

    height: pictures.Scale | None
    sigma: pictures.Scale | None
    grey: tuple[float, float]
    """The widest stretch of grey values that a card's image was given [grey]"""


@dataclass(frozen=True, slots=True)
class Card:
    """One image of the lot."""

    item: int
    file: str
    folders: list[str]
    """Where it lies, seen from the folder of the lot."""
    page: int
    verdict: str
    why: str
    novelty: float | None
    image: str | None
    """Inline picture; None where the image is no longer there."""
    size: tuple[int, int]
    """Width and height of the pictures [px]"""
    contour: str
    """Of the opening at half depth, as the path of an SVG [px]"""
    height: str | None
    sigma: str | None
    missing: str
    """Why a picture is missing."""
    numbers: list[tuple[str, str]]
    """Name and value as they are printed."""
    glyph: Markup | None


@dataclass(frozen=True, slots=True)
class _Seen:
    image: np.ndarray | None
    heights: np.ndarray | None
    sigma: np.ndarray | None
    unit: str
    missing: str


def make_cards(
    rows: Mapping[int, Row], folder: Path, root: str, told: Sequence[Distribution]
) -> tuple[dict[int, Card], Scales | None]:
    """Cards of some images, and the scales of their colours.

    Args:
        rows: the images with their numbers.
        folder: of the run, where the maps lie.
        root: what all paths of the lot begin with.
        told: the measurands in the order they matter; the first is drawn against its limits.
    """
    seen = {item: _see(row, folder) for item, row in rows.items()}
    scales = _scales(rows, seen) if seen else None
    return {item: _card(rows[item], seen[item], scales, root, told) for item in rows}, scales


def _see(row: Row, folder: Path) -> _Seen:
    """The image and its map, as far as they are still there."""
    image = heights = sigma = None
    unit, missing = "", []
    try:
        found = next(iter(images.read_pages(row.path, range(row.page, row.page + 1))), None)
        if found is None or isinstance(found, InputError):
            missing.append("the image can no longer be read")
        else:
            image = found.pixels
    except InputError as wrong:
        missing.append(f"the image is no longer there: {wrong.reason}")
    if row.map_file is None or row.map_index is None:
        missing.append("no map was written")
    else:
        try:
            stack = read_map_stack(folder / row.map_file, range(row.map_index, row.map_index + 1))
            heights, unit = stack.heights[0], stack.unit
            sigma = None if stack.sigma is None else stack.sigma[0]
        except InputError as wrong:
            missing.append(f"its map cannot be read: {wrong.reason}")
    return _Seen(image, heights, sigma, unit, "; ".join(missing))


def _scales(rows: Mapping[int, Row], seen: Mapping[int, _Seen]) -> Scales:
    """From the images of the domain: one that is out of it must not take the colours of all others."""
    inside = [one for item, one in seen.items() if (rows[item].novelty or 0) <= 1] or list(seen.values())
    heights = [one.heights.ravel() for one in inside if one.heights is not None]
    sigmas = [one.sigma.ravel() for one in inside if one.sigma is not None]
    unit = next((one.unit for one in inside if one.heights is not None), "")
    height = sigma = None
    if heights:
        height = pictures.Scale("height", *pictures.span(np.concatenate(heights), 0.5), unit, "height")
    if sigmas:
        sigma = pictures.Scale("sigma", 0.0, pictures.span(np.concatenate(sigmas), 1.0)[1], unit, "sigma")
    stretches = [pictures.span(one.image.astype(np.float64), 0.5) for one in seen.values() if one.image is not None]
    grey = (min(low for low, _ in stretches), max(high for _, high in stretches)) if stretches else (0.0, 255.0)
    return Scales(height, sigma, grey)


def _card(row: Row, seen: _Seen, scales: Scales | None, root: str, told: Sequence[Distribution]) -> Card:
    shape = next((part.shape for part in (seen.heights, seen.image) if part is not None), (1, 1))
    height = sigma = None
    if scales is not None and seen.heights is not None and scales.height is not None:
        height = pictures.coloured(seen.heights, scales.height)
    if scales is not None and seen.sigma is not None and scales.sigma is not None:
        sigma = pictures.coloured(seen.sigma, scales.sigma)
    *folders, file = words.plain(words.within(row.path, root)).split("/")
    lines = [(words.short_name(one.name), words.told(*_told(row, one))) for one in told if one.name in row.numbers]
    return Card(
        row.item,
        file,
        folders,
        row.page,
        row.verdict,
        words.plain(row.verdict_reason or row.reason),
        row.novelty,
        None if seen.image is None else pictures.grey(seen.image)[0],
        (shape[1], shape[0]),
        _contour(seen.heights),
        height,
        sigma,
        words.plain(seen.missing),
        lines[:NUMBERS],
        _glyph(row, told[0]) if told else None,
    )


def _told(row: Row, one: Distribution) -> tuple[float | None, float | None, float | None, str]:
    value, unit, low, high = row.numbers[one.name]
    return value, low, high, unit


def _glyph(row: Row, first: Distribution) -> Markup | None:
    if first.name not in row.numbers:
        return None
    value, unit, low, high = row.numbers[first.name]
    if unit != first.unit or value is None:
        return None
    margin = 1.5 * (first.half_width or 0.0)  # room for the intervals of the outermost values
    ends = (first.ends[0] - margin, first.ends[1] + margin)
    return charts.glyph(value, low, high, first.lower, first.upper, ends, row.verdict)


def _contour(heights: np.ndarray | None) -> str:
    if heights is None or not np.isfinite(heights).any():
        return ""
    low, high = pictures.span(heights, 0.5)
    lines = pictures.contour(heights, high + _MID * (low - high))
    return " ".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in line) + "Z" for line in lines)
