"""Charts of packages: the angles of dies against their limit, and findings over the outline of the package."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from waferlens.prepare.package_part import ROTATE
from waferlens.records import Place
from waferlens.report import charts, svg, words

LEFT, RIGHT = 46.0, svg.WIDE - 10.0
_FARTHEST = 4.0  # limits from the middle to the end of the scale of angles
_LEAST_MARK = 4.0  # side of the smallest mark: a crack of two pixels is to be seen [px]
Angle = tuple[float, float, float]
"""Value and both ends of its interval [deg]"""


def reach(angles: Sequence[Angle], limit_deg: float | None) -> tuple[float, float]:
    """Ends of the scale of angles: alike on both sides, beyond the limit, and no further than it stays legible [deg]"""
    most = max([1.6 * (limit_deg or 0.0), *(1.05 * max(abs(low), abs(high)) for _, low, high in angles)], default=0.0)
    if limit_deg is not None:
        most = min(most, _FARTHEST * limit_deg)
    return (-most, most) if most > 0 else (-1.0, 1.0)


def strips(angles: Sequence[tuple[Angle, str]], limit_deg: float | None, ends: tuple[float, float]) -> Markup:
    """The angle of each device with its interval, by rising angle from left to right, against the limits.

    What lies beyond the scale stands at its edge.

    Args:
        angles: with the verdict of each, rising.
        limit_deg: what is good on either side; None where there is no limit [deg]
        ends: of the scale [deg]
    """
    top, ground = 12.0, 348.0
    y = svg.Axis(*ends, ground, top)
    x = svg.Axis(-0.5, len(angles) - 0.5, LEFT + 4, RIGHT - 4)
    parts = []
    if limit_deg is not None:
        parts.append(
            svg.tag("rect", x=LEFT, y=y(limit_deg), width=RIGHT - LEFT, height=y(-limit_deg) - y(limit_deg), c="inside")
        )
    parts += svg.ticks_beside(y, LEFT, RIGHT, "deg")
    if limit_deg is not None:
        parts += [svg.line(LEFT, y(side), RIGHT, y(side), "limit") for side in (-limit_deg, limit_deg)]
    half = min(3.0, 0.35 * (RIGHT - LEFT) / len(angles))
    for place, ((value, low, high), verdict) in enumerate(angles):
        colour, at = charts.verdict_class(verdict), x(place)
        parts.append(svg.line(at, y(low), at, y(high), f"whisker {colour}"))
        if half > 1.0:
            parts += [svg.line(at - half, y(end), at + half, y(end), f"whisker {colour}") for end in (low, high)]
        parts.append(svg.tag("circle", cx=at, cy=y(value), r=min(2.4, half + 0.7), c=f"middle {colour}"))
    parts.append(svg.text(LEFT + (RIGHT - LEFT) / 2, ground + 17, "devices, by rising angle", "tick", "middle"))
    return svg.whole(svg.WIDE, 372, parts, "angles of the dies with their intervals against the limit")


def places(outline: tuple[float, float], unit: str, found: Sequence[tuple[str, bool, Place]]) -> Markup:
    """Findings over the package's outline, to scale: x to the right and y up from its lower left corner.

    Args:
        outline: width and height of the package [unit]
        unit: `um` or `px`.
        found: class of each, whether it makes its device NG, and place in the same unit; the surest first.
    """
    width, height = outline
    # mm where numbers in um would be long
    scale, told = (1000.0, "mm") if unit == "um" and max(outline) >= 5000 else (1.0, unit)
    top, tall = 8.0, 340.0
    inner = min(tall * width / height, RIGHT - LEFT)
    tall = inner * height / width
    left = LEFT + (RIGHT - LEFT - inner) / 2
    x = svg.Axis(0.0, width / scale, left, left + inner)
    y = svg.Axis(0.0, height / scale, top + tall, top)
    parts = [svg.tag("rect", x=left, y=top, width=inner, height=tall, c="empty")]
    for kind, critical, at in reversed(found):  # the surest on top
        w, h = (max(_LEAST_MARK, side * inner / width) for side in (at.width, at.height))
        middle = left + inner * at.x / width, top + tall * (1 - at.y / height)
        # a turned die is as large as the die: its outline alone, or it would hide every crack
        colour = "spot rotated" if kind == ROTATE else "spot found" if critical else "spot found open"
        parts.append(svg.tag("rect", x=middle[0] - w / 2, y=middle[1] - h / 2, width=w, height=h, rx=1, c=colour))
    parts.append(svg.tag("rect", x=left, y=top, width=inner, height=tall, c="frame"))
    ticks = y.ticks(5)
    parts += [
        svg.text(left - 6, y(tick) + 4, word, "tick", "end")
        for tick, word in zip(ticks, svg.tick_words(ticks, ""), strict=True)
    ]
    parts += svg.ticks_below(x, top + tall, told, end=left + inner, wanted=3)
    label = f"findings over the outline of the package, {words.unit(told)}"
    return svg.whole(svg.WIDE, round(top + tall + 24), parts, label)


def sizes(found: Sequence[tuple[float, float]], least_score: float, unit: str) -> Markup:
    """How large findings are, and how sure.

    Args:
        found: longer side and score of each; sides above 0 [unit]
        least_score: from which a box is a finding.
        unit: `um` or `px`.
    """
    top, ground = 24.0, 348.0
    sides = [side for side, _ in found]
    beside = max(1.4, math.sqrt(10 * min(sides) / max(sides)))  # a decade at least
    x = svg.LogAxis(min(sides) / beside, max(sides) * beside, LEFT, RIGHT)
    y = svg.Axis(min(least_score, 0.95), 1.0, ground, top)
    parts = svg.ticks_beside(y, LEFT, RIGHT, "1")
    path = "".join(f"M{svg.short(x(side))} {svg.short(y(score))}h0" for side, score in found)
    parts += [
        svg.tag("path", d=path, c="dots"),
        svg.text(LEFT, 11, "score", "tick"),
        svg.line(LEFT, ground, RIGHT, ground, "axis"),
        *svg.ticks_below(x, ground, unit),
    ]
    return svg.whole(svg.WIDE, 372, parts, "findings: longer side against score")
