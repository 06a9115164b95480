"""Charts as SVG inside the page: drawn in its own ink, so that they are sharp on paper and follow light and dark.

Every chart is `WIDE` units wide and stands in a column of about as many pixels: text in it is as large as text beside
it. Colours are the page's classes, never numbers. Words that come from outside are escaped here, by `_tag`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from waferlens.report import words

WIDE = 380
_VERDICTS = ("OK", "", "review", "NG")
"""In the order they are stacked, from the ground up."""


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


def histogram(
    edges: np.ndarray,
    by_verdict: Mapping[str, np.ndarray],
    lower: float | None,
    upper: float | None,
    median: float | None,
    half_width: float | None,
    symbol: str,
) -> Markup:
    """Bars stacked by verdict; limits as lines, what lies outside them shaded; the typical interval above.

    Args:
        edges: of the bars, one more than there are bars [symbol]
        by_verdict: images a bar.
        lower: lower limit [symbol]
        upper: upper limit [symbol]
        median: where the typical interval is drawn [symbol]
        half_width: of the typical interval [symbol]
        symbol: the unit.
    """
    high, top, ground = 154, 36.0, 128.0
    x = Axis(float(edges[0]), float(edges[-1]), 12.0, WIDE - 12.0)
    tallest = float(max(1, sum(by_verdict.values(), np.zeros(len(edges) - 1)).max()))
    y = Axis(0.0, tallest, ground, top)
    parts = []
    for limit, from_, to in ((lower, x.low, lower), (upper, upper, x.high)):
        if limit is not None:
            left, right = x(from_), x(to)
            parts.append(
                _tag("rect", x=left, y=top - 12, width=max(0.0, right - left), height=ground - top + 12, c="out")
            )
    level = nice_step(tallest / 2.5)
    parts += [
        _line(12, y(level), WIDE - 12, y(level), "grid"),
        _text(12, y(level) - 3, words.count(round(level)), "tick"),
    ]
    below = np.zeros(len(edges) - 1)
    for verdict in _VERDICTS:
        counts = by_verdict.get(verdict)
        if counts is None:
            continue
        for index in np.flatnonzero(counts):
            left, right = x(edges[index]), x(edges[index + 1])
            foot, head = y(below[index]), y(below[index] + counts[index])
            parts.append(
                _tag("rect", x=left + 0.4, y=head, width=max(0.6, right - left - 0.8), height=foot - head,
                     c=f"bar {verdict_class(verdict)}")
            )  # fmt: skip
        below += counts
    parts.append(_line(12, ground, WIDE - 12, ground, "axis"))
    parts += _ticks_below(x, ground, symbol)
    for limit, sign, anchor in ((lower, "≥", "start"), (upper, "≤", "end")):
        if limit is not None:
            at = x(limit)
            parts += [_line(at, top - 14, at, ground, "limit"), _limit_word(at, f"{sign} {words.exact(limit)}", anchor)]
    if median is not None and half_width:
        parts += _whisker(x, median - half_width, median + half_width, median, top - 8, 4)
    return _svg(WIDE, high, parts, "histogram")


def glyph(value: float | None, low: float | None, high: float | None, lower: float | None, upper: float | None,
          ends: tuple[float, float], verdict: str) -> Markup:  # fmt: skip
    """One interval against its limits: the rule of the verdict, seen.

    Args:
        value: the measured value; nothing is drawn for None.
        low: lower end of its interval.
        high: upper end.
        lower: lower limit.
        upper: upper limit.
        ends: of the scale, the same for all images of a page.
        verdict: colours the interval.
    """
    x = Axis(*ends, 3.0, WIDE - 3.0)
    parts = [_line(3, 11, WIDE - 3, 11, "grid")]
    if lower is not None or upper is not None:
        left, right = (3.0 if lower is None else x(lower)), (WIDE - 3.0 if upper is None else x(upper))
        parts.append(_tag("rect", x=left, y=4, width=max(0.0, right - left), height=14, c="inside"))
        parts += [_line(x(limit), 1, x(limit), 21, "limit") for limit in (lower, upper) if limit is not None]
    if value is not None:
        ends_known = low is not None and high is not None
        parts += _whisker(x, low if ends_known else value, high if ends_known else value, value, 11, 6, verdict)
    return _svg(WIDE, 22, parts, "interval and limits")


def rule() -> Markup:
    """The decision rule of ISO 14253-1 as a drawing of four cases."""
    x = Axis(0, 100, 8, WIDE - 8)
    parts = [_tag("rect", x=x(30), y=8, width=x(70) - x(30), height=104, c="inside")]
    parts += [_line(x(at), 2, x(at), 112, "limit") for at in (30, 70)]
    parts += [
        _text(x(30), 128, "lower limit", "tick", "middle"),
        _text(x(70), 128, "upper limit", "tick", "middle"),
    ]
    for row, (low, high, verdict) in enumerate(
        ((41, 57, "OK"), (60, 78, "review"), (22, 34, "review"), (79, 91, "NG"))
    ):
        y = 22 + 25 * row
        parts += _whisker(x, low, high, (low + high) / 2, y, 6, verdict)
        parts.append(_text(x(high) + 7, y + 4, verdict, f"word {verdict_class(verdict)}"))
    return _svg(WIDE, 134, parts, "interval inside: OK; across a limit: review; outside: NG")


def means(values: Sequence[float], spreads: Sequence[float | None], lower: float | None, upper: float | None,
          symbol: str) -> Markup:  # fmt: skip
    """The mean of each site, in order, with three standard deviations of its holes.

    Args:
        values: means [symbol]
        spreads: three standard deviations within each site, None where it has one image [symbol]
        lower: lower limit, drawn where it is near [symbol]
        upper: upper limit [symbol]
        symbol: the unit.
    """
    left, right, top, ground = 46.0, WIDE - 8.0, 10.0, 148.0
    reaches = [spread or 0.0 for spread in spreads]
    low = min(value - reach for value, reach in zip(values, reaches, strict=True))
    high = max(value + reach for value, reach in zip(values, reaches, strict=True))
    margin = 0.06 * (high - low) or 0.5
    y = Axis(low - margin, high + margin, ground, top)
    x = Axis(-0.5, len(values) - 0.5, left, right)
    parts = _ticks_beside(y, left, right, symbol)
    parts += [
        _line(left, y(limit), right, y(limit), "limit") for limit in (lower, upper) if limit and y.low < limit < y.high
    ]
    for index, (value, reach) in enumerate(zip(values, reaches, strict=True)):
        parts += [
            _line(x(index), y(value - reach), x(index), y(value + reach), "reach"),
            _tag("circle", cx=x(index), cy=y(value), r=2.6, c="dot"),
        ]
    parts.append(_text((left + right) / 2, 164, f"{len(values)} sites, in the order of their names", "tick", "middle"))
    return _svg(WIDE, 170, parts, "mean of each site")


def coverage(series: Sequence[tuple[str, Sequence[float], Sequence[float]]], level: float, symbol: str) -> Markup:
    """Measured coverage by depth, against what was promised.

    Args:
        series: name, centres of the depth bins [symbol], measured coverage in each.
        level: the promised coverage.
        symbol: the unit of depth.
    """
    left, right, top, ground = 46.0, WIDE - 8.0, 12.0, 138.0
    at = [centre for _, centres, _ in series for centre in centres]
    shares = [share for _, _, found in series for share in found]
    y = Axis(min(0.8, *shares) - 0.01, 1.0, ground, top)
    reach = (max(at) - min(at)) or 1.0
    x = Axis(min(at) - 0.06 * reach, max(at) + 0.06 * reach, left, right)
    band = (y(level + 0.05), y(level - 0.05))
    parts = [_tag("rect", x=left, y=band[0], width=right - left, height=band[1] - band[0], c="inside")]
    for tick in y.ticks(4):
        parts += [
            _line(left, y(tick), right, y(tick), "grid"),
            _text(left - 6, y(tick) + 4, f"{100 * tick:.0f}{words.THIN}%", "tick", "end"),
        ]
    parts.append(_line(left, y(level), right, y(level), "limit"))
    for number, (_, centres, found) in enumerate(series):
        points = list(zip(centres, found, strict=True))
        parts.append(_tag("polyline", points=_points((x(c), y(s)) for c, s in points), c=f"trace s{number}"))
        parts += [_tag("circle", cx=x(c), cy=y(s), r=3, c=f"point s{number}") for c, s in points]
    parts += _ticks_below(x, ground, symbol)
    return _svg(WIDE, 164, parts, "coverage by depth")


def profile(place: np.ndarray, heights: np.ndarray, ends: tuple[float, float], symbol: str, length: str,
            number: int) -> Markup:  # fmt: skip
    """Heights along a line, broken where points are not valid.

    Args:
        place: along the line [length]
        heights: NaN where not valid [symbol]
        ends: of the scale of heights [symbol]
        symbol: unit of the heights.
        length: unit along the line.
        number: which of the page's line colours.
    """
    left, right, top, ground = 46.0, WIDE - 8.0, 10.0, 166.0
    x, y = Axis(float(place[0]), float(place[-1]), left, right), Axis(*ends, ground, top)
    parts = _ticks_beside(y, left, right, symbol)
    by = max(1, len(place) // (2 * WIDE))  # two points a unit are more than an eye can part
    known = np.isfinite(heights)
    for piece in np.split(np.arange(len(place)), np.flatnonzero(np.diff(known)) + 1):
        if known[piece[0]]:
            line = ((x(place[index]), y(heights[index])) for index in piece[::by])
            parts.append(_tag("polyline", points=_points(line), c=f"trace thin s{number}"))
    parts += _ticks_below(x, ground, length)
    return _svg(WIDE, 190, parts, "profile")


def map_frame(picture: str, width: float, height: float, length: str, hard: bool) -> Markup:
    """A map in its frame, with lengths along both sides and the two lines of its profiles.

    Args:
        picture: its inline address.
        width: [length]
        height: [length]
        length: the unit.
        hard: show its pixels with hard edges.
    """
    left, top, inner = 46.0, 6.0, WIDE - 54.0
    tall = min(inner * height / width, 1.4 * inner)
    inner = tall * width / height
    x, y = Axis(0, width, left, left + inner), Axis(0, height, top + tall, top)
    parts = [
        _tag("rect", x=left, y=top, width=inner, height=tall, c="empty"),
        _tag("image", href=picture, x=left, y=top, width=inner, height=tall, preserveAspectRatio="none",
             c="hard" if hard else "soft"),
        _line(left, y(height / 2), left + inner, y(height / 2), "cut s0"),
        _line(x(width / 2), top, x(width / 2), top + tall, "cut s1"),
        _tag("rect", x=left, y=top, width=inner, height=tall, c="frame"),
    ]  # fmt: skip
    ticks = y.ticks(4)
    parts += [
        _text(left - 6, y(tick) + 4, word, "tick", "end")
        for tick, word in zip(ticks, _tick_words(ticks, ""), strict=True)
    ]
    parts += _ticks_below(x, top + tall, length)
    return _svg(WIDE, round(top + tall + 28), parts, "height map")


def verdict_class(verdict: str) -> str:
    """The page's class for a verdict."""
    return {"OK": "ok", "NG": "ng", "review": "rv", "quarantined": "qu"}.get(verdict, "no")


def _ticks_below(x: Axis, ground: float, symbol: str) -> list[str]:
    ticks = x.ticks(5)
    parts = []
    for tick, word in zip(ticks, _tick_words(ticks, symbol), strict=True):
        at = x(tick)
        anchor = "end" if at > WIDE - 26 else "start" if at < 14 else "middle"
        parts += [_line(at, ground, at, ground + 4, "axis"), _text(at, ground + 17, word, "tick", anchor)]
    return parts


def _ticks_beside(y: Axis, left: float, right: float, symbol: str) -> list[str]:
    ticks = y.ticks(4)
    parts = []
    for tick, word in zip(ticks, _tick_words(ticks, symbol), strict=True):
        parts += [_line(left, y(tick), right, y(tick), "grid"), _text(left - 6, y(tick) + 4, word, "tick", "end")]
    return parts


def _tick_words(ticks: Sequence[float], symbol: str) -> list[str]:
    """All to the same number of decimals; the unit stands at the last."""
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 0.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 1
    told = [words.fixed(tick, decimals) for tick in ticks]
    after = words.unit(symbol)
    if told and after:
        told[-1] += after if symbol == "deg" else f"{words.THIN}{after}"
    return told


def _whisker(
    x: Axis, low: float, high: float, value: float, at: float, half: float, verdict: str | None = None
) -> list[str]:
    colour = "" if verdict is None else f" {verdict_class(verdict)}"
    return [
        _line(x(low), at, x(high), at, f"whisker{colour}"),
        *(_line(x(end), at - half, x(end), at + half, f"whisker{colour}") for end in (low, high)),
        _tag("circle", cx=x(value), cy=at, r=2.6, c=f"middle{colour}"),
    ]


def _limit_word(at: float, word: str, anchor: str) -> str:
    inward = 5 if anchor == "start" else -5
    if at + inward > WIDE - 60 and anchor == "start":
        anchor, inward = "end", -5
    elif at + inward < 60 and anchor == "end":
        anchor, inward = "start", 5
    return _text(at + inward, 15, word, "word", anchor)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return _tag("line", x1=x1, y1=y1, x2=x2, y2=y2, c=colour)


def _text(x: float, y: float, text: str, colour: str, anchor: str = "start") -> str:
    inner = escape(words.plain(text))
    return f'<text x="{_short(x)}" y="{_short(y)}" class="{colour}" text-anchor="{anchor}">{inner}</text>'


def _points(points: object) -> str:
    return " ".join(f"{_short(x)},{_short(y)}" for x, y in points)  # type: ignore[attr-defined]


def _tag(name: str, /, **attributes: object) -> str:
    told = (
        f'{"class" if key == "c" else key}="{escape(_short(value) if isinstance(value, float) else str(value))}"'
        for key, value in attributes.items()
    )
    return f"<{name} {' '.join(told)}/>"


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _svg(wide: int, high: int, parts: Sequence[str], label: str) -> Markup:
    inner = "".join(parts)
    return Markup(f'<svg viewBox="0 0 {wide} {high}" role="img" aria-label="{escape(label)}">{inner}</svg>')
