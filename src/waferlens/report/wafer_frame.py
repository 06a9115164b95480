"""Where places of a map stand in a drawing. A long map, a swath of 300 mm, is folded into lines as a text is.

Lengths are in mm from the outer corner of the map's first pixel, x to the right and y down, as in the tables of dies
and of fields of focus.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from waferlens.report import svg

LEFT, TOP, RIGHT = 34.0, 6.0, 8.0
BELOW = 24.0
"""Room under each line for its numbers."""
LONG = 3.0
"""Maps that are longer than so many times their height are folded."""
_LINE = 10.0  # proportion of a line of a folded map
_TALLEST = 1.3  # proportion of a map that is higher than wide
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Frame:
    """A map, or a part of one, in a drawing."""

    x0_um: float
    """Left edge of what is drawn [um]"""
    y0_um: float
    """[um]"""
    width_um: float
    """[um]"""
    height_um: float
    """[um]"""
    run_um: float
    """How much of the width stands in one line [um]"""
    wide: int
    """Of the drawing, in its own units."""

    @property
    def lines(self) -> int:
        """How many there are."""
        return max(1, math.ceil(self.width_um / self.run_um - 1e-9))

    @property
    def scale(self) -> float:
        """Units of the drawing to 1 um."""
        room = self.wide - LEFT - RIGHT
        return room / max(self.run_um, self.height_um / _TALLEST)

    @property
    def tall(self) -> float:
        """Height of one line in the drawing."""
        return self.height_um * self.scale

    @property
    def high(self) -> int:
        """Height of the drawing."""
        return round(self.lines * (TOP + self.tall + BELOW))

    def top(self, number: int) -> float:
        """Upper edge of a line."""
        return TOP + number * (TOP + self.tall + BELOW)

    def span(self, number: int) -> tuple[float, float]:
        """Where a line begins and ends in the map [um]"""
        first = self.x0_um + number * self.run_um
        return first, min(first + self.run_um, self.x0_um + self.width_um)

    def pieces(self, box_um: Sequence[float]) -> list[Box]:
        """What of a box x0 y0 x1 y1 is seen: x, y, width and height of its piece in each line it touches."""
        x0, y0, x1, y1 = box_um
        found = []
        y0, y1 = max(y0, self.y0_um) - self.y0_um, min(y1, self.y0_um + self.height_um) - self.y0_um
        for number in range(self.lines):
            first, last = self.span(number)
            left, right = max(x0, first), min(x1, last)
            if right > left and y1 > y0:
                x, y = LEFT + (left - first) * self.scale, self.top(number) + y0 * self.scale
                found.append((x, y, (right - left) * self.scale, (y1 - y0) * self.scale))
        return found

    def row(self, y_um: float, x0_um: float, x1_um: float) -> list[str]:
        """A line across the map."""
        made = []
        for x, y, width, _ in self.pieces((x0_um, y_um, x1_um, y_um + 1e-3)):
            made += [svg.line(x, y, x + width, y, "cut over"), svg.line(x, y, x + width, y, "cut scan")]
        return made

    def ground(self, pictures: Sequence[str], colour: str = "soft") -> list[str]:
        """The map itself, a picture a line, on the ground that shows where nothing is known."""
        parts = []
        for number in range(self.lines):
            first, last = self.span(number)
            (x, y, width, height), *_ = self.pieces((first, self.y0_um, last, self.y0_um + self.height_um))
            parts.append(svg.tag("rect", x=x, y=y, width=width, height=height, c="empty"))
            if pictures:
                parts.append(svg.picture(pictures[number], x, y, width, height, colour))
        return parts

    def edges(self) -> list[str]:
        """Frames and lengths."""
        parts = []
        for number in range(self.lines):
            first, last = self.span(number)
            top, ground = self.top(number), self.top(number) + self.tall
            right = LEFT + (last - first) * self.scale
            parts.append(svg.tag("rect", x=LEFT, y=top, width=right - LEFT, height=self.tall, c="frame"))
            x = svg.Axis(first / 1000, last / 1000, LEFT, right)
            y = svg.Axis(self.y0_um / 1000, (self.y0_um + self.height_um) / 1000, top, ground)
            ticks = y.ticks(4 if self.tall > 90 else 2)
            parts += [
                svg.text(LEFT - 5, y(tick) + 4, word, "tick", "end")
                for tick, word in zip(ticks, svg.tick_words(ticks, ""), strict=True)
            ]
            parts += svg.ticks_below(x, ground, "mm", end=self.wide, wanted=max(3, round((right - LEFT) / 70)))
        return parts

    def drawn(self, parts: Sequence[str], label: str) -> Markup:
        """The drawing with its frames and lengths."""
        return svg.whole(self.wide, self.high, [*parts, *self.edges()], label)

    def cut(self, picture: np.ndarray) -> list[np.ndarray]:
        """A picture of the whole map in the pieces of its lines; `run_um` is a whole number of its pixels."""
        w = picture.shape[1]
        each = round(w * self.run_um / self.width_um)
        return [picture[:, number * each : min(w, (number + 1) * each)] for number in range(self.lines)]


def frame_of(rows: int, columns: int, pitch_um: float, by: int, wide: int) -> Frame:
    """The frame of a whole map, folded if it is long.

    Args:
        rows: of the map [px]
        columns: of the map [px]
        pitch_um: of the map [um]
        by: pixels of the map to one of its picture: a line ends with a whole one.
        wide: units of the drawing.
    """
    width, height = columns * pitch_um, rows * pitch_um
    run = width
    if columns > LONG * rows:
        lines = math.ceil(columns / (_LINE * rows))
        cells = math.ceil(math.ceil(columns / by) / lines)
        run = min(width, cells * by * pitch_um)
    return Frame(0.0, 0.0, width, height, run, wide)
