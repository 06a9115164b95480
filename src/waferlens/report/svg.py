"""What charts are drawn with: axes and marks as SVG, in the page's own ink.

Every chart is `WIDE` units wide and stands in a column of about as many pixels: text in it is as large as text beside
it. Colours are the page's classes, never numbers, so that charts are sharp on paper and follow light and dark. Words
that come from outside are escaped here, by `tag` and `text`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from waferlens.report import words

WIDE = 380
_LETTER = 6.2  # width of a digit


@dataclass(frozen=True, slots=True)
class Axis:
    """Values along one side of a chart."""

    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a value stands; beyond the ends it stands at the end."""
        share = (value - self.low) / (self.high - self.low or 1.0)
        return self.begin + min(1.0, max(0.0, share)) * (self.end - self.begin)

    def ticks(self, wanted: int) -> list[float]:
        """Round numbers between the ends, about as many as wanted."""
        step = nice_step((self.high - self.low) / max(1, wanted))
        first = math.ceil(self.low / step - 1e-9)
        # rounded: 3 times 0.1 is not what a reader calls 0.3
        decimals = max(0, 1 - math.floor(math.log10(step)))
        return [round(step * index, decimals) for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def nice_step(rough: float) -> float:
    """The round number (1, 2 or 5 times a power of ten) at or above one."""
    if not rough > 0 or not math.isfinite(rough):
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


@dataclass(frozen=True, slots=True)
class LogAxis:
    """Values above 0 along one side of a chart, by their logarithm."""

    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a value stands; beyond the ends, and at 0, it stands at the end."""
        if not value > self.low:
            return self.begin
        share = math.log(value / self.low) / (math.log(self.high / self.low) or 1.0)
        return self.begin + min(1.0, share) * (self.end - self.begin)

    def ticks(self, wanted: int) -> list[float]:
        """1, 2 and 5 times powers of ten between the ends, of many decades fewer."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for factors in ((1, 2, 5), (1, 3), (1,)):
            found = [
                factor * 10.0**power
                for power in range(first, last + 1)
                for factor in factors
                if self.low * (1 - 1e-9) <= factor * 10.0**power <= self.high * (1 + 1e-9)
            ]
            if len(found) <= wanted + 2:
                return found
        return found[:: -(-len(found) // wanted)]


def ticks_below(x: Axis | LogAxis, ground: float, symbol: str, *, end: float = WIDE, wanted: int = 5) -> list[str]:
    """Marks and numbers under a chart that ends there; the unit stands at the last."""
    ticks = x.ticks(wanted)
    parts = []
    free = float(end)  # left of what is written already; the last number bears the unit and comes first
    for tick, word in reversed(list(zip(ticks, _words_of(x, ticks, symbol), strict=True))):
        at = x(tick)
        anchor = "end" if at > end - 26 else "start" if at < 14 else "middle"
        parts.append(line(at, ground, at, ground + 4, "axis"))
        wide = _LETTER * len(word)
        left = at - {"end": wide, "middle": wide / 2, "start": 0.0}[anchor]
        if left + wide <= free:
            parts.append(text(at, ground + 17, word, "tick", anchor))
            free = left - _LETTER / 2
    return parts


def ticks_beside(y: Axis | LogAxis, left: float, right: float, symbol: str) -> list[str]:
    """Lines across a chart and their numbers on its left; the unit stands at the last."""
    ticks = y.ticks(4)
    parts = []
    for tick, word in zip(ticks, _words_of(y, ticks, symbol), strict=True):
        parts += [line(left, y(tick), right, y(tick), "grid"), text(left - 6, y(tick) + 4, word, "tick", "end")]
    return parts


def tick_words(ticks: Sequence[float], symbol: str) -> list[str]:
    """All to the same number of decimals; the unit stands at the last."""
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 0.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 1
    return _with_unit([words.fixed(tick, decimals) for tick in ticks], symbol)


def _words_of(axis: Axis | LogAxis, ticks: Sequence[float], symbol: str) -> list[str]:
    if isinstance(axis, Axis):
        return tick_words(ticks, symbol)
    return _with_unit([words.exact(tick) for tick in ticks], symbol)


def _with_unit(told: list[str], symbol: str) -> list[str]:
    after = words.unit(symbol)
    if told and after:
        told[-1] += after if symbol == "deg" else f"{words.THIN}{after}"
    return told


def line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, c=colour)


def text(x: float, y: float, told: str, colour: str, anchor: str = "start") -> str:
    inner = escape(words.plain(told))
    return f'<text x="{short(x)}" y="{short(y)}" class="{colour}" text-anchor="{anchor}">{inner}</text>'


def points(places: Iterable[tuple[float, float]]) -> str:
    """Places as the points of a polyline."""
    return " ".join(f"{short(x)},{short(y)}" for x, y in places)


def tag(name: str, /, **attributes: object) -> str:
    """One mark; `c` is its class, or classes."""
    told = (
        f'{"class" if key == "c" else key}="{escape(short(value) if isinstance(value, float) else str(value))}"'
        for key, value in attributes.items()
    )
    return f"<{name} {' '.join(told)}/>"


def short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def picture(address: str, x: float, y: float, width: float, height: float, colour: str) -> str:
    """A picture that fills a box, whatever its own proportions."""
    return tag("image", href=address, x=x, y=y, width=width, height=height, preserveAspectRatio="none", c=colour)


def whole(wide: int, high: int, parts: Sequence[str], label: str) -> Markup:
    """The chart, with what it is for those who do not see it."""
    inner = "".join(parts)
    return Markup(f'<svg viewBox="0 0 {wide} {high}" role="img" aria-label="{escape(label)}">{inner}</svg>')
