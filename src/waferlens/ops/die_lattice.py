"""The lattice of dies: rectangles of connected pixels, and the pitch, phase and die width their edges agree on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float

Box = tuple[float, float, float, float]

SAME_EDGE_UM = 60.0
"""Edges of one kind as near as this are of one line of the lattice [um]"""
BRIDGE_UM = 30.0
"""Bridges between dies, and specks, that are thinner are taken away [um]"""


@dataclass(frozen=True, slots=True)
class Axis:
    """The lattice along one axis."""

    pitch_um: float
    """Distance of neighbouring sites [um]"""
    first_um: float
    """Low edge of the site of number 0 [um]"""
    die_um: float
    """Width of a die [um]"""
    edges: int
    """Lines of edges it was fitted to."""
    spread_um: float
    """Robust standard deviation of the edges about the lattice [um]"""

    @property
    def street_um(self) -> float:
        """Width of the streets [um]"""
        return self.pitch_um - self.die_um


@dataclass(frozen=True, slots=True)
class Piece:
    """A connected piece of one kind, as a rectangle; an edge on the border of the image is none."""

    box: Box  # [um]
    cut: tuple[bool, bool, bool, bool]  # which of its edges are the border of the image
    missing: bool


def rectangles(mask: Bool[np.ndarray, "h w"], pitch_um: float, missing: bool) -> list[Piece]:
    """Rectangles of the connected pieces; thin bridges and specks are taken away first."""
    h, w = mask.shape
    size = max(1, round(BRIDGE_UM / pitch_um)) | 1
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), size, size, size, size, cv2.BORDER_REPLICATE)
    opened = cv2.morphologyEx(padded, cv2.MORPH_OPEN, np.ones((size, size), np.uint8))[size:-size, size:-size]
    number, labels, stats, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(opened), connectivity=4)
    pieces = []
    for label in range(1, number):
        left, top, wide, high, area = (int(value) for value in stats[label])
        if area < 9:
            continue
        own = labels[top : top + high, left : left + wide] == label
        x0, x1 = half_height(own.sum(axis=0))
        y0, y1 = half_height(own.sum(axis=1))
        box = ((left + x0) * pitch_um, (top + y0) * pitch_um, (left + x1) * pitch_um, (top + y1) * pitch_um)
        cut = (left + x0 < 1.5, top + y0 < 1.5, left + x1 > w - 1.5, top + y1 > h - 1.5)
        pieces.append(Piece(box, cut, missing))
    return pieces


def half_height(profile: np.ndarray) -> tuple[float, float]:
    """Where a profile passes half of its height, first and last; outer edges of pixels [px]"""
    half = 0.5 * (float(np.percentile(profile, 80)) or float(profile.max()))
    above = np.flatnonzero(profile > half)
    first, last = int(above[0]), int(above[-1])
    low = float(first)
    if first > 0:  # the pixel before holds a part
        low -= float(profile[first - 1]) / (2 * half)
    high = float(last + 1)
    if last + 1 < len(profile):
        high += float(profile[last + 1]) / (2 * half)
    return low, high


def fit_axis(pieces: Sequence[Piece], axis: int, extent: float) -> Axis | None:
    """The lattice along an axis, from the edges of all pieces."""
    lows = _lines([(p.box[axis], p.box[3 - axis] - p.box[1 - axis]) for p in pieces if not p.cut[axis]])
    highs = _lines([(p.box[axis + 2], p.box[3 - axis] - p.box[1 - axis]) for p in pieces if not p.cut[axis + 2]])
    pitch, die = _first_guess(lows, highs)
    if pitch is None or die is None:
        return None
    start = lows[0] if len(lows) else highs[0] - die
    for _ in range(3):
        of_low, of_high = np.rint((lows - start) / pitch), np.rint((highs - die - start) / pitch)
        number = np.concatenate([of_low, of_high])
        high = np.concatenate([np.zeros(len(lows)), np.ones(len(highs))])
        at = np.concatenate([lows, highs])
        columns = [np.ones_like(at)]
        free_pitch, free_die = np.ptp(number) > 0, len(lows) > 0 and len(highs) > 0
        target = at.copy()
        if free_pitch:
            columns.append(number)
        else:
            target -= pitch * number
        if free_die:
            columns.append(high)
        else:
            target -= die * high
        solution = _least_absolute(np.stack(columns, axis=1), target)
        start = solution[0]
        if free_pitch:
            pitch = solution[1]
        if free_die:
            die = solution[-1]
    left = at - start - pitch * number - die * high
    spread = 1.4826 * float(np.median(np.abs(left)))
    if not 0 < die < pitch or spread > 0.05 * pitch:
        return None
    first = start - pitch * math.floor((start + die) / pitch)  # the first site that reaches into the image
    return Axis(float(pitch), float(first), float(die), len(at), spread)


def _lines(edges: list[tuple[float, float]]) -> Float[np.ndarray, " n"]:
    """Edges that lie on one line, as their weighted median; lines of short edges alone are left out."""
    if not edges:
        return np.empty(0)
    at, length = (np.array(values) for values in zip(*sorted(edges), strict=True))
    groups = np.concatenate([[0], np.cumsum(np.diff(at) > SAME_EDGE_UM)])
    lines = []
    longest = max(float(length[groups == group].sum()) for group in range(groups[-1] + 1))
    for group in range(groups[-1] + 1):
        own = groups == group
        total = np.cumsum(length[own])
        if total[-1] >= 0.1 * longest:
            lines.append(at[own][int(np.searchsorted(total, 0.5 * total[-1]))])
    return np.array(lines)


def _first_guess(lows: np.ndarray, highs: np.ndarray) -> tuple[float | None, float | None]:
    """Pitch and width of a die, as far as the lines tell them."""
    streets = [low - highs[highs < low].max() for low in lows if (highs < low).any()]
    widths = [highs[highs > low].min() - low for low in lows if (highs > low).any()]
    # the next high edge may be that of a farther site; a low edge between them says so
    widths = [
        width for low, width in zip([low for low in lows if (highs > low).any()], widths, strict=True)
        if not ((lows > low) & (lows < low + width)).any()
    ]  # fmt: skip
    steps = np.concatenate([np.diff(lows), np.diff(highs)])
    pitch = float(_common_step(steps)) if len(steps) else None
    die = float(np.median(widths)) if widths else None
    street = float(min(streets)) if streets else None
    if pitch is None and die is not None and street is not None:
        pitch = die + street
    if die is None and pitch is not None and street is not None and street < pitch:
        die = pitch - street
    return pitch, die


def _common_step(steps: np.ndarray) -> float:
    """The greatest step that most of the steps are multiples of."""
    best, most = float(steps.min()), -1.0
    for step in np.sort(np.unique(np.round(steps, 3)))[::-1]:
        share = float((np.abs(steps / step - np.rint(steps / step)) * step < SAME_EDGE_UM).mean())
        whole = (np.rint(steps / step) >= 1).mean()
        if share * whole > most + 1e-9:
            best, most = float(step), share * whole
    near = np.abs(steps - best) < SAME_EDGE_UM
    return float(np.median(steps[near]))


def _least_absolute(design: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least absolute deviations, by weighing anew."""
    weight = np.ones(len(target))
    solution = np.zeros(design.shape[1])
    for _ in range(30):
        root = np.sqrt(weight)[:, None]
        solution = np.linalg.lstsq(design * root, target * root[:, 0], rcond=None)[0]
        weight = 1 / np.maximum(np.abs(target - design @ solution), 1.0)
    return solution


def bands(
    pieces: Sequence[Piece], lattice: Axis | None, axis: int, extent: float
) -> list[tuple[int, tuple[float, float]]]:
    """The sites along an axis, numbered: all of the lattice that reach into the image, or what the pieces show."""
    if not pieces:
        return []
    if lattice is not None:
        count = math.ceil((extent - lattice.first_um) / lattice.pitch_um)
        starts = [lattice.first_um + number * lattice.pitch_um for number in range(count)]
        return [
            (number, (start, start + lattice.die_um))
            for number, start in enumerate(starts)
            if start < extent and start + lattice.die_um > 0
        ]
    spans = sorted((piece.box[axis], piece.box[axis + 2]) for piece in pieces)
    merged = [list(spans[0])]
    for low, high in spans[1:]:
        if low < merged[-1][1] - SAME_EDGE_UM:
            merged[-1][1] = max(merged[-1][1], high)
        else:
            merged.append([low, high])
    found = []
    for number, (low, high) in enumerate(merged):
        # the median of the edges that the pieces of one band show; jitter parts them
        ends = _lines([(p.box[axis], 1.0) for p in pieces if not p.cut[axis] and low <= p.box[axis] <= high])
        stops = _lines(
            [(p.box[axis + 2], 1.0) for p in pieces if not p.cut[axis + 2] and low <= p.box[axis + 2] <= high]
        )
        start = float(ends[0]) if len(ends) and low > 0 else low
        stop = float(stops[-1]) if len(stops) and high < extent else high
        found.append((number, (start, stop)))
    return found
