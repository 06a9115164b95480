"""Charts of findings: deviations against the threshold, sizes and contrasts, places, shifts, a rate and its interval.

Light and dark are told apart by the shape of their marks, pointing up and down, and only then by colour; tolerable
findings are hollow. Where there are too many for marks, a picture of their density takes their place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from waferlens.report import charts, svg, words

LEFT, RIGHT = 48.0, svg.WIDE - 10.0
Box = tuple[float, float, float, float]
Marks = Mapping[tuple[str, bool], Float[np.ndarray, "n 2"]]
"""Places by light or dark and whether critical."""


def deviations(edges: np.ndarray, by_verdict: Mapping[str, np.ndarray]) -> Markup:
    """Images by their greatest deviation, on a logarithmic scale, with the threshold at 1.

    Args:
        edges: of the bars, in units of the threshold, rising and above 0.
        by_verdict: images a bar.
    """
    high, top, ground = 256, 34.0, 232.0
    x = svg.LogAxis(float(edges[0]), float(edges[-1]), 12.0, svg.WIDE - 12.0)
    tallest = float(max(1, sum(by_verdict.values(), np.zeros(len(edges) - 1)).max()))
    y = svg.Axis(0.0, tallest, ground, top)
    at = x(1.0)
    level = max(1.0, svg.nice_step(tallest / 2.5))
    parts = [
        svg.tag("rect", x=at, y=top - 12, width=max(0.0, svg.WIDE - 12.0 - at), height=ground - top + 12, c="out"),
        svg.line(12, y(level), svg.WIDE - 12, y(level), "grid"),
        svg.text(12, y(level) - 3, words.count(round(level)), "tick"),
        *charts.stacked(x, y, edges, by_verdict),
        svg.line(12, ground, svg.WIDE - 12, ground, "axis"),
        *svg.ticks_below(x, ground, "×"),
        svg.line(at, top - 14, at, ground, "limit"),
        svg.text(*((at + 5, 15) if at < svg.WIDE - 80 else (at - 5, 15)), "threshold", "word",
                 "start" if at < svg.WIDE - 80 else "end"),
    ]  # fmt: skip
    return svg.whole(svg.WIDE, high, parts, "images by their greatest deviation in units of the threshold")


def sizes(
    area: tuple[float, float], contrast: tuple[float, float], marks: Marks | None, pictures: Sequence[str] = ()
) -> Markup:
    """Size against contrast: light findings above zero, dark ones below.

    Args:
        area: ends of the scale, above 0 [px²]
        contrast: ends of the scale [grey]
        marks: (area, contrast) of each finding; None where there are too many.
        pictures: densities in their stead, as inline addresses that fill the chart.
    """
    top, ground = 20.0, 232.0
    x, y = svg.LogAxis(*area, LEFT, RIGHT), svg.Axis(*contrast, ground, top)
    parts = svg.ticks_beside(y, LEFT, RIGHT, "")
    parts += [_picture(address, LEFT, top, RIGHT - LEFT, ground - top) for address in pictures]
    if contrast[0] < 0 < contrast[1]:
        parts += [
            svg.line(LEFT, y(0), RIGHT, y(0), "axis"),
            svg.text(RIGHT, y(0) - 5, "light ↑", "tick", "end"),
            svg.text(RIGHT, y(0) + 13, "dark ↓", "tick", "end"),
        ]
    if marks is not None:
        for (sense, critical), points in marks.items():
            parts += _marked([(x(a), y(c)) for a, c in points], sense, critical)
    parts += [
        svg.text(LEFT, 11, "contrast [grey]", "tick", "start"),
        *svg.ticks_below(x, ground, "px2"),
        svg.line(LEFT, ground, RIGHT, ground, "axis"),
    ]
    return svg.whole(svg.WIDE, 256, parts, "findings: area against contrast")


def places(
    width: float, height: float, marks: Marks | None, picture: str | None, ground: str | None, spots: Sequence[Box]
) -> Markup:
    """Where on the image the findings lie, all images over one another.

    Args:
        width: of the images [px]
        height: of the images [px]
        marks: (x, y) of each finding; None where there are too many.
        picture: density in their stead.
        ground: an image of the lot to lie beneath, if all show the same.
        spots: boxes in which findings crowd, numbered from 1 [px]
    """
    inner = RIGHT - LEFT
    tall = min(inner * height / width, 1.25 * inner)
    inner = tall * width / height
    top = 8.0
    # the first pixel's outer edge is at -0.5
    x, y = svg.Axis(-0.5, width - 0.5, LEFT, LEFT + inner), svg.Axis(-0.5, height - 0.5, top, top + tall)
    parts = [svg.tag("rect", x=LEFT, y=top, width=inner, height=tall, c="empty")]
    if ground is not None:
        parts.append(_picture(ground, LEFT, top, inner, tall, "beneath"))
    if picture is not None:
        parts.append(_picture(picture, LEFT, top, inner, tall))
    if marks is not None:
        for (sense, critical), points in marks.items():
            parts += _marked([(x(a), y(b)) for a, b in points], sense, critical)
    for number, (x0, y0, x1, y1) in enumerate(spots, 1):
        parts += [
            svg.tag("rect", x=x(x0), y=y(y0), width=x(x1) - x(x0), height=y(y1) - y(y0), rx=3, c="spot"),
            svg.text(min(x(x1) + 3, LEFT + inner - 8), max(y(y0) + 4, top + 10), str(number), "word number"),
        ]
    parts.append(svg.tag("rect", x=LEFT, y=top, width=inner, height=tall, c="frame"))
    ticks = y.ticks(4)
    parts += [
        svg.text(LEFT - 6, y(tick) + 4, word, "tick", "end")
        for tick, word in zip(ticks, svg.tick_words(ticks, ""), strict=True)
    ]
    parts += svg.ticks_below(x, top + tall, "px")
    return svg.whole(svg.WIDE, round(top + tall + 24), parts, "places of the findings on the image")


def shifts(reach: float, points: Float[np.ndarray, "n 2"] | None, picture: str | None) -> Markup:
    """How far images lie from their reference, each a dot.

    Args:
        reach: ends of both scales, on either side of 0 [px]
        points: (x, y) of each image; None where there are too many [px]
        picture: density in their stead.
    """
    side, top = 210.0, 8.0
    left = LEFT + (RIGHT - LEFT - side) / 2
    x, y = svg.Axis(-reach, reach, left, left + side), svg.Axis(-reach, reach, top, top + side)
    ticks = y.ticks(5)
    parts = [
        svg.text(left - 6, y(tick) + 4, word, "tick", "end")
        for tick, word in zip(ticks, svg.tick_words(ticks, ""), strict=True)
    ]
    parts += [
        svg.line(x(0), top, x(0), top + side, "axis"),
        svg.line(left, y(0), left + side, y(0), "axis"),
    ]
    if picture is not None:
        parts.append(_picture(picture, left, top, side, side))
    if points is not None:
        path = "".join(f"M{svg.short(x(a))} {svg.short(y(b))}h0" for a, b in points)
        parts.append(svg.tag("path", d=path, c="dots"))
    parts.append(svg.tag("rect", x=left, y=top, width=side, height=side, c="frame"))
    parts += svg.ticks_below(x, top + side, "px")
    return svg.whole(svg.WIDE, 244, parts, "shift of each image against its reference")


def rate(stated: float, expected: float, low: float, high: float, symbol: str) -> Markup:
    """A stated rate with the interval of the true one, on a logarithmic scale.

    Args:
        stated: the promise [symbol]
        expected: mean of the true rate [symbol]
        low: lower end of its interval [symbol]
        high: upper end [symbol]
        symbol: the unit.
    """
    ends = max(min(low, stated) / 3, max(high, stated) / 1000), 3 * max(high, stated)
    x = svg.LogAxis(*ends, 12.0, svg.WIDE - 12.0)
    right = x(stated) < svg.WIDE - 110
    parts = [
        svg.tag("rect", x=x(stated), y=20, width=svg.WIDE - 12 - x(stated), height=28, c="out"),
        svg.line(12, 48, svg.WIDE - 12, 48, "axis"),
        *svg.ticks_below(x, 48, symbol),
        svg.line(x(stated), 6, x(stated), 48, "limit"),
        svg.text(x(stated) + (5 if right else -5), 15, "stated at most", "word", "start" if right else "end"),
        svg.line(x(low), 35, x(high), 35, "whisker"),
        *(svg.line(x(end), 30, x(end), 40, "whisker") for end in (low, high)),
        svg.tag("circle", cx=x(expected), cy=35, r=3, c="middle"),
    ]
    return svg.whole(svg.WIDE, 70, parts, "stated rate of false alarms and the interval of the true one")


def _marked(points: Iterable[tuple[float, float]], sense: str, critical: bool) -> list[str]:
    """Marks of one kind as a single path: a tag for each would be four times as long."""
    shape = "l3 5.2h-6z" if sense == "light" else "l3-5.2h-6z"
    up = -3.2 if sense == "light" else 3.2
    path = "".join(f"M{x:.1f} {y + up:.1f}{shape}" for x, y in points)
    return [svg.tag("path", d=path, c=f"mark {sense}{'' if critical else ' open'}")] if path else []


def _picture(address: str, x: float, y: float, width: float, height: float, more: str = "") -> str:
    return svg.tag(
        "image", href=address, x=x, y=y, width=width, height=height, preserveAspectRatio="none",
        c=more or "hard",
    )  # fmt: skip
