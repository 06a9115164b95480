"""Leads as a datum: the ends of the landings in the two rows beside a die, which lie on one line each.

A row is found along the wall of the cavity: landings of gold stand out of the floor, bright in brightfield and dark
in darkfield. A step is fitted to the inner end of each, strip by strip, the middle left out, for there the wire
leaves. A line through the ends of each row, both rows with one slope, tells the angle; how far the ends scatter about
it tells the interval. In darkfield the grain of the floor is as strong as the ends, and they are not measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtr

from waferlens.ops.border_lines import Band, collapse, sample_band
from waferlens.ops.roi_rectangle import linear

WALL_PX = (6.0, 18.0)
"""How far from the cavity's wall landings are looked for: before the bond [px]"""
WIDTH_PX = (16.0, 50.0)
"""Narrowest and widest landing [px]"""
WIRE_PX = 4.0
"""Half of what is left out in the middle of a landing, where the wire leaves [px]"""
STRIP_PX = 3.0
"""Width of the strips a landing's end is looked at in [px]"""
REACH_PX = 5.0
"""How far to either side of an end is looked [px]"""
LENS_PX = 1.2
"""Standard deviation of the blur of an end [px]"""
_PLACES = np.arange(-4.0, 4.01, 0.2)
_LEAST_ENDS = 3  # of a row
_LEAST_ALL = 5
_AGREE = 0.6  # how much less the others' deviation has to be for one end to be left out
_LEAST_SIGMA_PX = 0.03  # of an end


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
    """Beyond it, towards the wall [px]"""
    sure: Float[np.ndarray, " n"]
    """One over the standard deviation that strips of each end tell [1/px]"""


def fit_leads(
    image: np.ndarray, cavity: Float[np.ndarray, "4 2"], die: Float[np.ndarray, "4 2"], bright: int
) -> FittedLeads | None:
    """The angle of the leads; None where fewer than five landings show their ends, and in darkfield.

    Args:
        image: `h w 3` [grey]
        cavity: its corners, clockwise from the upper left [px]
        die: its corners [px]
        bright: 1 in brightfield, where landings are brighter than the floor; -1 in darkfield.
    """
    if bright < 0:
        return None
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
    at: list[float] = []
    moved: list[float] = []
    sure: list[float] = []
    for _ in range(3):
        band = sample_band(image, a, b, REACH_PX, REACH_PX)
        at, moved, sure = _ends(collapse(band, table), band, landings, bright)
        if len(at) < _LEAST_ENDS:
            return None
        offset = float(np.median(moved))
        if abs(offset) < 0.5:
            break
        a, b = a - offset * inward, b - offset * inward
    return _Row(a, b, np.array(at), np.array(moved), np.array(sure))


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
    light: Float[np.ndarray, "n k"], band: Band, landings: list[tuple[float, float]], bright: int
) -> tuple[list[float], list[float], list[float]]:
    """How far each landing's end lies beyond the line, by a blurred step fitted to strips of it; how sure that is."""
    at, moved, sure = [], [], []
    for landing in landings:
        mask = band.inside & _clear(band.along, landing)
        away, value, along = band.away[mask], light[mask].astype(np.float64), band.along[mask]
        if not len(away):
            continue
        told = []
        strip = np.floor((along - landing[0]) / STRIP_PX).astype(np.intp)
        for number in np.unique(strip):
            here = strip == number
            if here.sum() >= 20:
                place = _step_place(away[here], bright * value[here])
                if place is not None:
                    told.append(place)
        # a wire that leaves aslant, or epoxy that creeps up, touches some strips only
        if len(told) >= 3:
            at.append(float(along.mean()))
            middle = float(np.median(told))
            moved.append(middle)
            scatter = 1.4826 * float(np.median(np.abs(np.array(told) - middle)))
            sure.append(1.0 / math.hypot(_LEAST_SIGMA_PX, 1.25 * scatter / math.sqrt(len(told))))
    return at, moved, sure


def _step_place(away: Float[np.ndarray, " n"], value: Float[np.ndarray, " n"]) -> float | None:
    """Where a step up, outwards, fits best; None where none does."""
    shape = ndtr((away - _PLACES[:, np.newaxis]) / LENS_PX)
    shape -= shape.mean(axis=1, keepdims=True)
    level = value - value.mean()
    size = (shape * shape).sum(axis=1)
    height = (shape @ level) / np.maximum(size, 1e-9)
    gain = np.where(height > 0, height * (shape @ level), 0.0)
    place = int(gain.argmax())
    if gain[place] <= 0 or not 0 < place < len(_PLACES) - 1:
        return None
    bend = gain[place - 1] - 2 * gain[place] + gain[place + 1]
    offset = 0.5 * (gain[place - 1] - gain[place + 1]) / bend if bend < 0 else 0.0
    return float(_PLACES[place] + offset * (_PLACES[1] - _PLACES[0]))


def _least_squares(
    at: np.ndarray, moved: np.ndarray, sure: np.ndarray, which: np.ndarray, keep: Bool[np.ndarray, " n"]
) -> tuple[np.ndarray, float, int, np.ndarray]:
    """Slope and offsets, the ends' deviation over what they tell, its degrees of freedom, and the normal matrix."""
    columns = np.column_stack([at, *(which == number for number in range(int(which.max()) + 1))])[keep].astype(float)
    columns *= sure[keep, np.newaxis]
    normal = columns.T @ columns
    solved = np.linalg.solve(normal, columns.T @ (sure * moved)[keep])
    left = (sure * moved)[keep] - columns @ solved
    freedom = len(left) - columns.shape[1]
    return solved, math.sqrt(float(left @ left) / max(freedom, 1)), freedom, normal


def _line_through(rows: list[_Row], cavity: np.ndarray) -> FittedLeads | None:
    """One slope for all rows, an offset each; strange ends are left out."""
    # outwards is away from the die: of rows whose ways are opposite, turns are alike
    at = np.concatenate([row.at_px for row in rows])
    moved = np.concatenate([row.moved_px for row in rows])
    sure = np.concatenate([row.sure for row in rows])
    which = np.concatenate([np.full(len(row.at_px), number) for number, row in enumerate(rows)])
    keep = np.ones(len(at), bool)
    solved, sigma, freedom, normal = _least_squares(at, moved, sure, which, keep)
    while freedom > 2:
        # the end without which the others agree far better is left out
        trials = []
        for place in np.flatnonzero(keep):
            without = keep.copy()
            without[place] = False
            if all((without & (which == number)).sum() >= 2 for number in range(len(rows))):
                trials.append((_least_squares(at, moved, sure, which, without), without))
        best = min(trials, key=lambda one: one[0][1], default=None)
        if best is None or best[0][1] > _AGREE * sigma:
            break
        (solved, sigma, freedom, normal), keep = best
    if freedom < 2:
        return None
    sigma = max(sigma, 1.0)  # ends that agree by chance are no surer than their strips
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
