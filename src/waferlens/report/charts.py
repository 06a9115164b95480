"""Charts of measurands: their distribution against limits, single intervals, sites, coverage, profiles and maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from waferlens.report import svg, words

_VERDICTS = ("OK", "", "review", "NG")
"""In the order they are stacked, from the ground up."""


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
    x = svg.Axis(float(edges[0]), float(edges[-1]), 12.0, svg.WIDE - 12.0)
    tallest = float(max(1, sum(by_verdict.values(), np.zeros(len(edges) - 1)).max()))
    y = svg.Axis(0.0, tallest, ground, top)
    parts = []
    for limit, from_, to in ((lower, x.low, lower), (upper, upper, x.high)):
        if limit is not None:
            left, right = x(from_), x(to)
            parts.append(
                svg.tag("rect", x=left, y=top - 12, width=max(0.0, right - left), height=ground - top + 12, c="out")
            )
    level = max(1.0, svg.nice_step(tallest / 2.5))  # whole images
    parts += [
        svg.line(12, y(level), svg.WIDE - 12, y(level), "grid"),
        svg.text(12, y(level) - 3, words.count(round(level)), "tick"),
    ]
    parts += stacked(x, y, edges, by_verdict)
    parts.append(svg.line(12, ground, svg.WIDE - 12, ground, "axis"))
    parts += svg.ticks_below(x, ground, symbol)
    for limit, sign, anchor in ((lower, "≥", "start"), (upper, "≤", "end")):
        if limit is not None:
            at = x(limit)
            parts += [
                svg.line(at, top - 14, at, ground, "limit"),
                _limit_word(at, f"{sign} {words.exact(limit)}", anchor),
            ]
    if median is not None and half_width:
        parts += _whisker(x, median - half_width, median + half_width, median, top - 8, 4)
    return svg.whole(svg.WIDE, high, parts, "histogram")


def stacked(
    x: svg.Axis | svg.LogAxis, y: svg.Axis, edges: np.ndarray, by_verdict: Mapping[str, np.ndarray]
) -> list[str]:
    """The bars of a histogram, stacked by verdict."""
    parts = []
    below = np.zeros(len(edges) - 1)
    for verdict in _VERDICTS:
        counts = by_verdict.get(verdict)
        if counts is None:
            continue
        for index in np.flatnonzero(counts):
            left, right = x(edges[index]), x(edges[index + 1])
            foot, head = y(below[index]), y(below[index] + counts[index])
            parts.append(
                svg.tag("rect", x=left + 0.4, y=head, width=max(0.6, right - left - 0.8), height=foot - head,
                     c=f"bar {verdict_class(verdict)}")
            )  # fmt: skip
        below += counts
    return parts


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
    x = svg.Axis(*ends, 3.0, svg.WIDE - 3.0)
    parts = [svg.line(3, 11, svg.WIDE - 3, 11, "grid")]
    if lower is not None or upper is not None:
        left, right = (3.0 if lower is None else x(lower)), (svg.WIDE - 3.0 if upper is None else x(upper))
        parts.append(svg.tag("rect", x=left, y=4, width=max(0.0, right - left), height=14, c="inside"))
        parts += [svg.line(x(limit), 1, x(limit), 21, "limit") for limit in (lower, upper) if limit is not None]
    if value is not None:
        ends_known = low is not None and high is not None
        parts += _whisker(x, low if ends_known else value, high if ends_known else value, value, 11, 6, verdict)
    return svg.whole(svg.WIDE, 22, parts, "interval and limits")


def rule() -> Markup:
    """The decision rule of ISO 14253-1 as a drawing of four cases."""
    x = svg.Axis(0, 100, 8, svg.WIDE - 8)
    parts = [svg.tag("rect", x=x(30), y=8, width=x(70) - x(30), height=104, c="inside")]
    parts += [svg.line(x(at), 2, x(at), 112, "limit") for at in (30, 70)]
    parts += [
        svg.text(x(30), 128, "lower limit", "tick", "middle"),
        svg.text(x(70), 128, "upper limit", "tick", "middle"),
    ]
    for row, (low, high, verdict) in enumerate(
        ((41, 57, "OK"), (60, 78, "review"), (22, 34, "review"), (79, 91, "NG"))
    ):
        y = 22 + 25 * row
        parts += _whisker(x, low, high, (low + high) / 2, y, 6, verdict)
        parts.append(svg.text(x(high) + 7, y + 4, verdict, f"word {verdict_class(verdict)}"))
    return svg.whole(svg.WIDE, 134, parts, "interval inside: OK; across a limit: review; outside: NG")


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
    left, right, top, ground = 46.0, svg.WIDE - 8.0, 10.0, 148.0
    reaches = [spread or 0.0 for spread in spreads]
    low = min(value - reach for value, reach in zip(values, reaches, strict=True))
    high = max(value + reach for value, reach in zip(values, reaches, strict=True))
    margin = 0.06 * (high - low) or 0.5
    y = svg.Axis(low - margin, high + margin, ground, top)
    x = svg.Axis(-0.5, len(values) - 0.5, left, right)
    parts = svg.ticks_beside(y, left, right, symbol)
    parts += [
        svg.line(left, y(limit), right, y(limit), "limit")
        for limit in (lower, upper)
        if limit and y.low < limit < y.high
    ]
    for index, (value, reach) in enumerate(zip(values, reaches, strict=True)):
        parts += [
            svg.line(x(index), y(value - reach), x(index), y(value + reach), "reach"),
            svg.tag("circle", cx=x(index), cy=y(value), r=2.6, c="dot"),
        ]
    parts.append(
        svg.text((left + right) / 2, 164, f"{len(values)} sites, in the order of their names", "tick", "middle")
    )
    return svg.whole(svg.WIDE, 170, parts, "mean of each site")


def coverage(series: Sequence[tuple[str, Sequence[float], Sequence[float]]], level: float, symbol: str) -> Markup:
    """Measured coverage by depth, against what was promised.

    Args:
        series: name, centres of the depth bins [symbol], measured coverage in each.
        level: the promised coverage.
        symbol: the unit of depth.
    """
    left, right, top, ground = 46.0, svg.WIDE - 8.0, 12.0, 138.0
    at = [centre for _, centres, _ in series for centre in centres]
    shares = [share for _, _, found in series for share in found]
    y = svg.Axis(min(0.8, *shares) - 0.01, 1.0, ground, top)
    reach = (max(at) - min(at)) or 1.0
    x = svg.Axis(min(at) - 0.06 * reach, max(at) + 0.06 * reach, left, right)
    band = (y(level + 0.05), y(level - 0.05))
    parts = [svg.tag("rect", x=left, y=band[0], width=right - left, height=band[1] - band[0], c="inside")]
    for tick in y.ticks(4):
        parts += [
            svg.line(left, y(tick), right, y(tick), "grid"),
            svg.text(left - 6, y(tick) + 4, f"{100 * tick:.0f}{words.THIN}%", "tick", "end"),
        ]
    parts.append(svg.line(left, y(level), right, y(level), "limit"))
    for number, (_, centres, found) in enumerate(series):
        points = list(zip(centres, found, strict=True))
        parts.append(svg.tag("polyline", points=svg.points((x(c), y(s)) for c, s in points), c=f"trace s{number}"))
        parts += [svg.tag("circle", cx=x(c), cy=y(s), r=3, c=f"point s{number}") for c, s in points]
    parts += svg.ticks_below(x, ground, symbol)
    return svg.whole(svg.WIDE, 164, parts, "coverage by depth")


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
    left, right, top, ground = 46.0, svg.WIDE - 8.0, 10.0, 166.0
    x, y = svg.Axis(float(place[0]), float(place[-1]), left, right), svg.Axis(*ends, ground, top)
    parts = svg.ticks_beside(y, left, right, symbol)
    by = max(1, len(place) // (2 * svg.WIDE))  # two points a unit are more than an eye can part
    known = np.isfinite(heights)
    for piece in np.split(np.arange(len(place)), np.flatnonzero(np.diff(known)) + 1):
        if known[piece[0]]:
            line = ((x(place[index]), y(heights[index])) for index in piece[::by])
            parts.append(svg.tag("polyline", points=svg.points(line), c=f"trace thin s{number}"))
    parts += svg.ticks_below(x, ground, length)
    return svg.whole(svg.WIDE, 190, parts, "profile")


def map_frame(picture: str, width: float, height: float, length: str, hard: bool) -> Markup:
    """A map in its frame, with lengths along both sides and the two lines of its profiles.

    Args:
        picture: its inline address.
        width: [length]
        height: [length]
        length: the unit.
        hard: show its pixels with hard edges.
    """
    left, top, inner = 46.0, 6.0, svg.WIDE - 54.0
    tall = min(inner * height / width, 1.4 * inner)
    inner = tall * width / height
    x, y = svg.Axis(0, width, left, left + inner), svg.Axis(0, height, top + tall, top)
    parts = [
        svg.tag("rect", x=left, y=top, width=inner, height=tall, c="empty"),
        svg.tag("image", href=picture, x=left, y=top, width=inner, height=tall, preserveAspectRatio="none",
             c="hard" if hard else "soft"),
        svg.line(left, y(height / 2), left + inner, y(height / 2), "cut s0"),
        svg.line(x(width / 2), top, x(width / 2), top + tall, "cut s1"),
        svg.tag("rect", x=left, y=top, width=inner, height=tall, c="frame"),
    ]  # fmt: skip
    ticks = y.ticks(4)
    parts += [
        svg.text(left - 6, y(tick) + 4, word, "tick", "end")
        for tick, word in zip(ticks, svg.tick_words(ticks, ""), strict=True)
    ]
    parts += svg.ticks_below(x, top + tall, length)
    return svg.whole(svg.WIDE, round(top + tall + 28), parts, "height map")


def verdict_class(verdict: str) -> str:
    """The page's class for a verdict."""
    return {"OK": "ok", "NG": "ng", "review": "rv", "quarantined": "qu"}.get(verdict, "no")


def _whisker(
    x: svg.Axis, low: float, high: float, value: float, at: float, half: float, verdict: str | None = None
) -> list[str]:
    colour = "" if verdict is None else f" {verdict_class(verdict)}"
    return [
        svg.line(x(low), at, x(high), at, f"whisker{colour}"),
        *(svg.line(x(end), at - half, x(end), at + half, f"whisker{colour}") for end in (low, high)),
        svg.tag("circle", cx=x(value), cy=at, r=2.6, c=f"middle{colour}"),
    ]


def _limit_word(at: float, word: str, anchor: str) -> str:
    inward = 5 if anchor == "start" else -5
    if at + inward > svg.WIDE - 60 and anchor == "start":
        anchor, inward = "end", -5
    elif at + inward < 60 and anchor == "end":
        anchor, inward = "start", 5
    return svg.text(at + inward, 15, word, "word", anchor)
