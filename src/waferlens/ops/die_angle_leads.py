"""Leads as a datum: the ends of the landings in the two rows beside a die, which lie on one line each.

A row is found along the wall of the cavity: landings of gold stand out of the floor, bright in brightfield and dark
in darkfield. Their inner ends are one profile, and how far each end lies from the common line follows from it as for
the pieces of a border (`border_lines`), the middle of each left out, for there the wire leaves. A line through the
ends of each row, both rows with one slope, tells the angle; the spread of the ends tells its interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from waferlens.ops.border_lines import Band, collapse, sample_band
from waferlens.ops.roi_rectangle import linear

WALL_PX = (6.0, 18.0)
"""How far from the cavity's wall landings are looked for: before the bond [px]"""
WIDTH_PX = (16.0, 50.0)
"""Narrowest and widest landing [px]"""
WIRE_PX = 2.5
"""Half of what is left out in the middle of a landing, where the wire leaves [px]"""
STRIP_PX = 3.0
"""Width of the strips a landing's end is looked at in [px]"""
REACH_PX = 6.0
"""How far to either side of an end is looked [px]"""
_LEAST_ENDS = 3  # of a row
_LEAST_ALL = 5
_FAR = 6.0  # robust deviations of an end from its line


@dataclass(frozen=True, slots=True, eq=False)
class FittedLeads:
    """The two rows of landings."""

    quad: Float[np.ndarray, "4 2"]
    """Ends of both rows' lines: upper left, upper right, lower right, lower left [px]"""
    angle_deg: float
    """Of the rows, counter-clockwise as seen [deg]"""
    sigma_deg: float
    """Standard deviation [deg]"""
    freedom: float
    ends: int
    """How many ends were used"""


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """Ends of one row, along and beyond a line."""

    start: Float[np.ndarray, "2"]
    stop: Float[np.ndarray, "2"]
    at_px: Float[np.ndarray, " n"]
    """Along the line from its middle [px]"""
    moved_px: Float[np.ndarray, " n"]
    """Beyond it, away from the wall [px]"""


def fit_leads(
    image: np.ndarray, cavity: Float[np.ndarray, "4 2"], die: Float[np.ndarray, "4 2"], bright: int
) -> FittedLeads | None:
    """The angle of the leads; None where fewer than five landings show their ends.

    Args:
        image: `h w 3` [grey]
        cavity: its corners, clockwise from the upper left [px]
        die: its corners [px]
        bright: 1 in brightfield, where landings are brighter than the floor; -1 in darkfield.
    """
    rows = []
    for first, second in ((cavity[0], cavity[1]), (cavity[2], cavity[3])):
        row = _row(image, first, second, die, bright)
        if row is not None:
            rows.append(row)
    if sum(len(row.at_px) for row in rows) < _LEAST_ALL:
        return None
    return _line_through(rows, cavity)


def _row(image: np.ndarray, first: np.ndarray, second: np.ndarray, die: np.ndarray, bright: int) -> _Row | None:
    """The ends along one wall."""
    way = second - first
    length = float(np.hypot(*way))
    way = way / length
    inward = np.array([-way[1], way[0]])  # y down, corners clockwise
    room = float(np.min((die - first) @ inward))  # from the wall to the die
    if room < WALL_PX[1] + 3 * REACH_PX:
        return None
    start, stop = first + 14.0 * way, second - 14.0 * way
    table = linear(image)
    # outwards of the band is away from the die: landings lie between its line and the wall
    middle = 0.5 * sum(WALL_PX)
    band = sample_band(image, start + middle * inward, stop + middle * inward, 0.5 * (WALL_PX[1] - WALL_PX[0]))
    landings = _landings(collapse(band, table), band, bright)
    if len(landings) < _LEAST_ENDS:
        return None
    end = _end(image, start, stop, inward, room, landings, bright, table)
    if end is None:
        return None
    a, b = start + end * inward, stop + end * inward
    at, moved = [], []
    for _ in range(2):
        band = sample_band(image, a, b, REACH_PX, REACH_PX)
        at, moved = _ends(collapse(band, table), band, landings)
        if len(at) < _LEAST_ENDS:
            return None
        shift = float(np.median(moved))
        if abs(shift) < 0.3:
            break
        a, b = a - shift * inward, b - shift * inward  # outwards of the band is towards the wall
    return _Row(a, b, np.array(at), np.array(moved))


def _landings(light: Float[np.ndarray, "n k"], band: Band, bright: int) -> list[tuple[float, float]]:
    """Where landings begin and end along the wall [px]"""
    place = np.rint(band.along).astype(np.intp)
    low = int(place[band.inside].min())
    count = int(place[band.inside].max()) - low + 1
    held = np.bincount(place[band.inside] - low, minlength=count)
    mean = bright * np.bincount(place[band.inside] - low, light[band.inside], count) / np.maximum(held, 1)
    mean = np.convolve(mean, np.full(5, 0.2), "same")
    floor, top = float(np.median(mean)), float(np.percentile(mean, 92))
    over = (mean > 0.5 * (floor + top)) & (held > 0)
    change = np.diff(np.concatenate([[0], over.astype(np.int8), [0]]))
    runs = zip(np.flatnonzero(change == 1) + low, np.flatnonzero(change == -1) + low - 1, strict=True)
    return [(float(a), float(b)) for a, b in runs if WIDTH_PX[0] <= b - a + 1 <= WIDTH_PX[1]]


def _clear(along: np.ndarray, landing: tuple[float, float]) -> Bool[np.ndarray, "*n"]:
    """Pixels on a landing, clear of its flanks and of its wire."""
    centre, half = 0.5 * (landing[0] + landing[1]), 0.5 * (landing[1] - landing[0])
    away = np.abs(along - centre)
    return (away >= WIRE_PX) & (away <= half - 2.0)


def _end(
    image: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
    inward: np.ndarray,
    room: float,
    landings: list[tuple[float, float]],
    bright: int,
    table: np.ndarray | None,
) -> float | None:
    """How far from the wall landings end, from all of them together [px]"""
    low, high = WALL_PX[1] + 4.0, room - 5.0
    if high - low < 2 * REACH_PX:
        return None
    middle = 0.5 * (low + high)
    band = sample_band(image, start + middle * inward, stop + middle * inward, middle - low)
    light = collapse(band, table)
    on, off = np.zeros(band.away.shape, bool), band.inside.copy()
    for landing in landings:
        on |= _clear(band.along, landing)
        off &= (band.along < landing[0] - 5.0) | (band.along > landing[1] + 5.0)
    on &= band.inside
    if on.sum() < 100 or off.sum() < 100:
        return None
    # what the floor between landings shows at the same distance, the seam around the die above all, is taken off
    place = np.floor(band.away).astype(np.intp)
    first, count = int(place[band.inside].min()), int(np.ptp(place[band.inside])) + 1
    means = [
        np.bincount(place[mask] - first, light[mask], count)
        / np.maximum(np.bincount(place[mask] - first, minlength=count), 1)
        for mask in (on, off)
    ]
    # from the wall inwards is from positive to negative distances
    slope = np.convolve(bright * np.gradient(means[0] - means[1]), np.array([0.2, 0.2, 0.2, 0.2, 0.2]), "same")[3:-3]
    if len(slope) < 3:
        return None
    return middle - (float(slope.argmax()) + 3 + first + 0.5)


def _ends(
    light: Float[np.ndarray, "n k"], band: Band, landings: list[tuple[float, float]]
) -> tuple[list[float], list[float]]:
    """How far each landing's end lies beyond the line, from the profile they share."""
    masks = [band.inside & _clear(band.along, landing) for landing in landings]
    masks = [one for one in masks if one.sum() > 40]
    if len(masks) < _LEAST_ENDS:
        return [], []
    places = np.arange(-REACH_PX, REACH_PX + 0.01, 0.5)
    each = []
    for mask in masks:
        away, value = band.away[mask], light[mask].astype(np.float64)
        cell = np.rint((away + REACH_PX) / 0.5).astype(np.intp)
        held = np.bincount(cell, minlength=len(places))
        told = np.bincount(cell, value, len(places)) / np.maximum(held, 1)
        where = np.bincount(cell, away, len(places)) / np.maximum(held, 1)
        some = held > 0
        each.append(np.interp(places, where[some], told[some]))
    shape = np.median(np.array(each), axis=0)
    shape[1:-1] = 0.25 * shape[:-2] + 0.5 * shape[1:-1] + 0.25 * shape[2:]
    slope = np.gradient(shape, places)
    at, moved = [], []
    for mask in masks:
        away, value, along = band.away[mask], light[mask].astype(np.float64), band.along[mask]
        columns = np.column_stack([np.ones_like(away), np.interp(away, places, shape), -np.interp(away, places, slope)])
        held, *_ = np.linalg.lstsq(columns, value, rcond=None)
        if held[1] < 0.3:
            continue
        # strips of a landing by themselves, and the middle one: a wire that leaves aslant touches some of them only
        strip = np.floor((along - along.min()) / STRIP_PX).astype(np.intp)
        told = []
        for number in range(int(strip.max()) + 1):
            here = strip == number
            if here.sum() < 20:
                continue
            seen = columns[here]
            normal = seen.T @ seen
            one = np.linalg.solve(normal + 1e-6 * np.trace(normal) * np.eye(3), seen.T @ value[here])
            told.append(one[2] / held[1])
        if len(told) >= 3 and abs(float(np.median(told))) < REACH_PX:
            at.append(float(along.mean()))
            moved.append(float(np.median(told)))
    return at, moved


def _line_through(rows: list[_Row], cavity: np.ndarray) -> FittedLeads | None:
    """One slope for all rows, an offset each; strange ends are left out."""
    # outwards is away from the die: of rows whose ways are opposite, turns are alike
    at = np.concatenate([row.at_px for row in rows])
    moved = np.concatenate([row.moved_px for row in rows])
    which = np.concatenate([np.full(len(row.at_px), number) for number, row in enumerate(rows)])
    keep = np.ones(len(at), bool)
    solved, sigma, freedom, normal = np.zeros(len(rows) + 1), math.nan, 0, np.eye(len(rows) + 1)
    for _ in range(3):
        columns = np.column_stack([at, *(which == number for number in range(len(rows)))])[keep].astype(float)
        freedom = int(keep.sum()) - columns.shape[1]
        if freedom < 2 or any(not (keep & (which == number)).any() for number in range(len(rows))):
            return None
        normal = columns.T @ columns
        solved = np.linalg.solve(normal, columns.T @ moved[keep])
        left = moved - solved[0] * at - solved[1:][which]
        sigma = math.sqrt(float(left[keep] @ left[keep]) / freedom)
        robust = 1.4826 * float(np.median(np.abs(left[keep]))) + 0.01
        fresh = np.abs(left) <= _FAR * robust
        if (fresh == keep).all():
            break
        keep = fresh
    spread = sigma * math.sqrt(float(np.linalg.inv(normal)[0, 0])) + 1e-6
    corners = []
    for number, row in enumerate(rows):
        way = (row.stop - row.start) / np.hypot(*(row.stop - row.start))
        out = np.array([way[1], -way[0]])
        half = 0.5 * float(np.hypot(*(row.stop - row.start)))
        middle = 0.5 * (row.start + row.stop)
        for side in (-half, half):
            corners.append(middle + side * way + (solved[1 + number] + solved[0] * side) * out)
    first = rows[0]
    way = first.stop - first.start
    base = math.degrees(math.atan2(-way[1], way[0]))
    top = cavity[1] - cavity[0]
    if way @ top < 0:
        base = math.degrees(math.atan2(way[1], -way[0]))
    if len(corners) == 2:
        corners = corners + corners[::-1]
    deviation = math.degrees(spread) * math.sqrt(freedom / max(freedom - 2, 1))
    return FittedLeads(np.array(corners), base + math.degrees(solved[0]), deviation, float(freedom), int(keep.sum()))
