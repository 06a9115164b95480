"""Drawings of maps of the wafer station: maps with lengths, dies, fields of focus, sites, relief, and the scan line.

State is told by line and by word before it is told by colour: missing sites are crossed, unsure ones dashed. Where
there are more boxes than can be told apart they become a picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float
from markupsafe import Markup, escape

from waferlens.report import pictures, svg, words
from waferlens.report.relief import Relief
from waferlens.report.wafer_frame import Frame

MOST_BOXES = 1500
"""More boxes than these are painted into a picture."""
PROFILE_WIDE = 560
_PAINTED_PX = 1400
_COLOURS = {"present": (90, 125, 60), "missing": (47, 64, 184), "unsure": (30, 138, 192), "refused": (47, 64, 184)}
_LETTER = 6.2


@dataclass(frozen=True, slots=True)
class Mark:
    """A box on a map."""

    box_um: Sequence[float]
    """x0 y0 x1 y1 [um]"""
    kind: str
    """The class of the page that draws it, and its colour where it is painted."""
    word: str = ""
    """Told inside it where there is room."""
    strength: float = 0.0
    """0..1: how dense it is filled, where its kind is filled."""
    tip: str = ""
    """Told when it is pointed at."""


@dataclass(slots=True)
class Ground:
    """The image of a map beneath several drawings of one frame; its bytes stand on the page once."""

    addresses: Sequence[str]
    anchor: str
    _drawn: bool = False

    def parts(self, frame: Frame) -> list[str]:
        """The image the first time, afterwards what points to it."""
        if self._drawn:
            return [svg.tag("use", href=f"#{self.anchor}")]
        self._drawn = True
        return [f'<g id="{escape(self.anchor)}">', *frame.ground(self.addresses, "beneath"), "</g>"]


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """A row of a map with all that is known along it."""

    x_um: Float[np.ndarray, " n"]
    height_um: Float[np.ndarray, " n"]
    half_um: Float[np.ndarray, " n"] | None
    """Half-width of the interval [um]"""
    truth_um: Float[np.ndarray, " n"] | None
    track: tuple[np.ndarray, np.ndarray] | None
    """Place and height of the auto-focus track, NaN where it is not valid [um]"""
    objective: tuple[np.ndarray, np.ndarray] | None
    gaps_um: Sequence[tuple[float, float]]
    """Where the line runs over a gap while a die stands in the same columns [um]"""


def map_chart(frame: Frame, addresses: Sequence[str], label: str, over: Sequence[str] = ()) -> Markup:
    """A map as a picture a line, with lengths on its sides."""
    return frame.drawn([*frame.ground(addresses), *over], label)


def box_chart(frame: Frame, ground: Ground, marks: Sequence[Mark], label: str) -> Markup:
    """Boxes over a map."""
    parts = ground.parts(frame)
    if len(marks) > MOST_BOXES:
        parts += _painted(frame, marks)
    else:
        for mark in marks:
            parts += _box(frame, mark)
    return frame.drawn(parts, label)


def profile_chart(scan: Scan, ends: tuple[float, float]) -> Markup:
    """Heights along the scan with their interval, the track, and the truth where it is known.

    Args:
        scan: what is known along the row.
        ends: of the scale of heights [um]
    """
    left, right, top, ground = 50.0, PROFILE_WIDE - 8.0, 8.0, 262.0
    x = svg.Axis(float(scan.x_um[0]) / 1000, float(scan.x_um[-1]) / 1000, left, right)
    y = svg.Axis(*ends, ground, top)
    parts = []
    for first, last in scan.gaps_um:
        a, b = x(first / 1000), x(last / 1000)
        if b > a:
            parts.append(svg.tag("rect", x=a, y=top, width=b - a, height=ground - top, c="out"))
    parts += svg.ticks_beside(y, left, right, "um")
    by = max(1, len(scan.x_um) // (2 * PROFILE_WIDE))
    place = scan.x_um[::by] / 1000
    heights = scan.height_um[::by]
    if scan.half_um is not None:
        half = scan.half_um[::by]
        for run in _runs(np.isfinite(heights) & np.isfinite(half)):
            upper = [(x(place[at]), y(heights[at] + half[at])) for at in run]
            lower = [(x(place[at]), y(heights[at] - half[at])) for at in reversed(run)]
            parts.append(svg.tag("polygon", points=_points([*upper, *lower]), c="band"))
    if scan.objective is not None:
        parts += _trace(x, y, *scan.objective, "focus")
    if scan.truth_um is not None:
        parts += _trace(x, y, scan.x_um[::by], scan.truth_um[::by], "truth")
    parts += _trace(x, y, scan.x_um[::by], heights, "thin s0")
    if scan.track is not None:
        parts += _trace(x, y, *scan.track, "thin s1")
    parts += [
        svg.line(left, ground, right, ground, "axis"),
        *svg.ticks_below(x, ground, "mm", end=PROFILE_WIDE, wanted=7),
    ]
    return svg.whole(PROFILE_WIDE, 286, parts, "heights along the scan line, with the auto-focus track")


def relief_chart(made: Relief, width_um: float, height_um: float) -> Markup:
    """A relief with the lengths of its sides and a bar for the heights."""
    margin, above = 14, 10
    wide, high = made.width + 2 * margin, made.height + above + 34
    parts = [svg.picture(made.picture, margin, above, made.width, made.height, "soft")]

    def middle(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
        return margin + 0.5 * (a[0] + b[0]), above + 0.5 * (a[1] + b[1])

    x, y = middle(made.left, made.front)
    parts.append(svg.text(x - 16, y + 20, f"x {_mm(width_um)}", "tick large", "end"))
    x, y = middle(made.front, made.right)
    parts.append(svg.text(min(x + 14, wide - 74), y + 24, f"y {_mm(height_um)}", "tick large", "start"))
    bar = svg.nice_step(0.09 * made.height / made.rise_px_per_um)
    tall = bar * made.rise_px_per_um
    foot = above + 12 + tall
    told = words.quantity(bar, "um", 3)
    parts += [
        svg.line(margin + 4, foot - tall, margin + 4, foot, "whisker"),
        svg.line(margin, foot, margin + 8, foot, "whisker"),
        svg.line(margin, foot - tall, margin + 8, foot - tall, "whisker"),
        svg.text(margin + 14, foot - 0.5 * tall + 5, told, "tick large"),
    ]
    return svg.whole(wide, high, parts, f"the surface, heights {made.exaggeration} times enlarged")


def frame_mark(frame: Frame, box_um: Sequence[float]) -> list[str]:
    """Where the part that is shown large lies."""
    made = []
    for x, y, width, height in frame.pieces(box_um):
        made += [svg.tag("rect", x=x, y=y, width=width, height=height, c=kind) for kind in ("part over", "part")]
    return made


def _box(frame: Frame, mark: Mark) -> list[str]:
    pieces = frame.pieces(mark.box_um)
    if not pieces:
        return []
    made = []
    for x, y, width, height in pieces:
        more = {"fill-opacity": f"{mark.strength:.2f}"} if mark.strength else {}
        made.append(svg.tag("rect", x=x, y=y, width=width, height=height, c=f"site {mark.kind}", **more))
        if mark.kind in ("missing", "refused"):
            cross = f"M{_at(x, y)}L{_at(x + width, y + height)}M{_at(x + width, y)}L{_at(x, y + height)}"
            made.append(svg.tag("path", d=cross, c=f"cross {mark.kind}"))
    if mark.word:
        x, y, width, height = max(pieces, key=lambda piece: piece[2] * piece[3])
        if width > _LETTER * len(mark.word) + 4 and height > 13:
            made.append(svg.text(x + 0.5 * width, y + 0.5 * height + 4, mark.word, "inked", "middle"))
    if mark.tip:
        told = escape(words.plain(mark.tip))
        return [f"<g><title>{told}</title>{''.join(made)}</g>"]
    return made


def _painted(frame: Frame, marks: Sequence[Mark]) -> list[str]:
    """Boxes as a picture, cut into the lines of the frame."""
    scale = _PAINTED_PX / frame.run_um
    high = max(1, round(frame.height_um * scale))
    canvas = np.zeros((high, max(1, round(frame.width_um * scale)), 4), np.uint8)
    for mark in marks:
        x0, y0, x1, y1 = (round(float(edge) * scale) for edge in mark.box_um)
        colour = _COLOURS.get(mark.kind, (139, 111, 31))
        opaque = round(255 * (mark.strength or 0.75))
        cv2.rectangle(canvas, (x0, y0), (max(x0, x1 - 2), max(y0, y1 - 2)), (*colour, opaque), cv2.FILLED)
    made = []
    for number in range(frame.lines):
        part = np.ascontiguousarray(canvas[:, number * _PAINTED_PX : (number + 1) * _PAINTED_PX])
        first, last = frame.span(number)
        for x, y, width, height in frame.pieces((first, frame.y0_um, last, frame.y0_um + frame.height_um)):
            if part.shape[1]:
                made.append(svg.picture(pictures.packed(part, 80), x, y, width, height, "soft"))
    return made


def _trace(x: svg.Axis, y: svg.Axis, place_um: np.ndarray, heights: np.ndarray, colour: str) -> list[str]:
    within = (place_um >= 1000 * x.low - 1e-6) & (place_um <= 1000 * x.high + 1e-6)
    place, heights = place_um[within] / 1000, heights[within]
    by = max(1, len(place) // (2 * PROFILE_WIDE))
    place, heights = place[::by], heights[::by]
    return [
        svg.tag("polyline", points=_points([(x(place[at]), y(heights[at])) for at in run]), c=f"trace {colour}")
        for run in _runs(np.isfinite(heights))
    ]


def _runs(known: np.ndarray) -> Iterator[list[int]]:
    """Places that follow each other and are known."""
    if not len(known):
        return
    for piece in np.split(np.arange(len(known)), np.flatnonzero(np.diff(known)) + 1):
        if known[piece[0]]:
            yield piece.tolist()


def _points(places: Sequence[tuple[float, float]]) -> str:
    """To a tenth of a unit: hundreds of points a line make most of the page."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _at(x: float, y: float) -> str:
    return f"{x:.1f} {y:.1f}"


def _mm(length_um: float) -> str:
    return words.quantity(length_um / 1000, "mm", 3)
