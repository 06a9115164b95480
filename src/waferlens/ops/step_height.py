"""How high dies stand above the street beside them.

A plane is laid through the street round a die; step is the median of the die's plateau minus the median of that street,
both above this plane. So neither tilt nor bow of the wafer, nor a drift of the height's zero, is in it. Pixels within a
clear distance of an edge are left out: they see both sides.

The standard error joins two: leaving out parts of the street in turn tells how far the plane carries to the die, and
medians of tiles tell how sure the plateau is. Errors that a network or a sensor shares over a part or a tile are in it;
those it shares over a whole die and its street are not, and cancel or stay unknown.

Source: standard errors by leaving out parts, B. Efron, R. J. Tibshirani, "An Introduction to the Bootstrap" (1993).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from waferlens.errors import UsageError
from waferlens.ops.die_levels import CLEAR_UM, inner_pixels
from waferlens.ops.flatness import LEAST_KNOWN
from waferlens.ops.plane_sums import FittedPlane, Sums
from waferlens.records import Die

STREET_UM = 250.0
"""Width of the band about a die whose street is looked at [um]"""
_SECTORS = 16  # of the street round a die, left out in turn
_TILES = 4  # on a side of a plateau
_LEAST_PX = 30  # of street, and of a plateau
_LEAST_TILE_PX = 4
_LEAST_SIDE_PX = 10  # of street on a side
_LEAST_SECTORS = 4
_SAMPLES = 40_000  # pixels of a plateau, or of a side of the street, that are looked at

Box = tuple[float, float, float, float]
Points = tuple[np.ndarray, np.ndarray, np.ndarray]  # x [mm], y [mm], z [um]


@dataclass(frozen=True, slots=True)
class StepHeight:
    """The step between a level of a die and the street beside it."""

    die: int
    """Number of the die in what was handed in"""
    level: int
    """0 for its lowest"""
    box_um: Box
    """x0 y0 x1 y1 of the level [um]"""
    step_um: float | None
    """None where it is not known [um]"""
    sigma_um: float | None
    """Standard error [um]"""
    street_share: float
    """How much of the street beside the die is known; 0 where there is none"""
    known_share: float
    """How much of the plateau is known"""
    reason: str = ""
    """Why it is not known."""

    def row(self) -> dict[str, Any]:
        """One flat row, as a table holds it."""
        row: dict[str, Any] = {"die": self.die, "level": self.level}
        row |= dict(zip(("x0_um", "y0_um", "x1_um", "y1_um"), self.box_um, strict=True))
        row |= {"step_um": self.step_um, "sigma_um": self.sigma_um}
        return row | {"street_share": self.street_share, "known_share": self.known_share, "reason": self.reason}


def step_heights(
    height_um: Float[np.ndarray, "h w"],
    pitch_um: float,
    dies: Sequence[Die],
    valid: Bool[np.ndarray, "h w"] | None = None,
    *,
    street_um: float = STREET_UM,
    clear_um: float = CLEAR_UM,
    least_known: float = LEAST_KNOWN,
) -> tuple[StepHeight, ...]:
    """Measures the step of every level of every present die.

    Args:
        height_um: positive up, NaN where not known [um]
        pitch_um: distance of neighbouring pixels [um]
        dies: sites as `die_map` finds them, with their edges to a fraction of a pixel; street is what lies in none that
            is present or unsure.
        valid: which heights may be used.
        street_um: how far from a die its street is looked at [um]
        clear_um: left out along every edge [um]
        least_known: share of the street, and of a plateau, that has to be known.

    Raises:
        UsageError: shapes differ, or a number is out of range.
    """
    if height_um.ndim != 2 or 0 in height_um.shape:
        raise UsageError(f"height_um has shape {height_um.shape}; a map has rows and columns")
    if valid is not None and valid.shape != height_um.shape:
        raise UsageError(f"valid has shape {valid.shape}, height_um {height_um.shape}; they must be of one grid")
    for name, value in (("pitch_um", pitch_um), ("street_um", street_um)):
        if not (math.isfinite(value) and value > 0):
            raise UsageError(f"{name} = {value:g} must be positive")
    if not (math.isfinite(clear_um) and 0 <= clear_um < street_um):
        raise UsageError(f"clear_um = {clear_um:g} must be at least 0 and less than street_um = {street_um:g}")
    if not 0 < least_known <= 1:
        raise UsageError(f"least_known = {least_known:g} must be more than 0 and at most 1")
    taken = np.array([die.box_um for die in dies if die.state != "missing"], np.float64).reshape(-1, 4)
    steps: list[StepHeight] = []
    for number, die in enumerate(dies):
        if die.state == "present":
            steps += _of_die(height_um, pitch_um, valid, number, die, taken, (street_um, clear_um, least_known))
    return tuple(steps)


def _of_die(
    height_um: np.ndarray,
    pitch_um: float,
    valid: np.ndarray | None,
    number: int,
    die: Die,
    taken: np.ndarray,
    limits: tuple[float, float, float],
) -> list[StepHeight]:
    street_um, clear_um, least = limits
    if not die.levels:
        return [StepHeight(number, 0, die.box_um, None, None, 0.0, 0.0, "its levels are not known")]
    street, share, seen, sides = _street(height_um, pitch_um, valid, die.box_um, taken, street_um, clear_um)
    why = ""
    if seen < _LEAST_PX:
        why = f"{seen} px of street lie beside it in the map; {_LEAST_PX} are needed"
    elif share < least:
        why = f"{100 * share:.3g} % of the street beside it known; {100 * least:.3g} % are needed"
    elif sides < 2:
        why = "the street lies on one side of it only, and no plane can be laid through it"
    steps = []
    for level, (x0, y0, x1, y1, _) in enumerate(die.levels):
        box = (x0, y0, x1, y1)
        upper = die.levels[level + 1][:4] if level + 1 < len(die.levels) else None
        plateau, known, count = _plateau(height_um, pitch_um, valid, box, upper, clear_um)
        reason = why
        if not reason and count < _LEAST_PX:
            reason = f"{count} px of its plateau lie in the map; {_LEAST_PX} are needed"
        if not reason and known < least:
            reason = f"{100 * known:.3g} % of its plateau known; {100 * least:.3g} % are needed"
        step = sigma = None
        if not reason:
            step, sigma, reason = _step(plateau, street)
        steps.append(StepHeight(number, level, box, step, sigma, share, known, reason))
    return steps


def _street(
    height_um: np.ndarray,
    pitch_um: float,
    valid: np.ndarray | None,
    box: Box,
    taken: np.ndarray,
    street_um: float,
    clear_um: float,
) -> tuple[Points, float, int, int]:
    """Known pixels of the street round a die, their share, how many with those not known, and on how many sides."""
    outer = (box[0] - street_um, box[1] - street_um, box[2] + street_um, box[3] + street_um)
    low_x, low_y, high_x, high_y = (
        box[0] - clear_um, box[1] - clear_um, box[2] + clear_um, box[3] + clear_um,
    )  # fmt: skip
    sides = (
        (outer[0], outer[1], outer[2], low_y),
        (outer[0], high_y, outer[2], outer[3]),
        (outer[0], low_y, low_x, high_y),
        (high_x, low_y, outer[2], high_y),
    )
    near = taken[
        (taken[:, 0] - clear_um < outer[2])
        & (taken[:, 2] + clear_um > outer[0])
        & (taken[:, 1] - clear_um < outer[3])
        & (taken[:, 3] + clear_um > outer[1])
    ]
    parts, count = [], 0
    for side in sides:
        x, y, z = _pixels(height_um, pitch_um, valid, side)
        free = np.ones(z.shape, bool)
        for x0, y0, x1, y1 in 1e-3 * near:
            clear = 1e-3 * clear_um
            free &= ~(((x > x0 - clear) & (x < x1 + clear))[None, :] & ((y > y0 - clear) & (y < y1 + clear))[:, None])
        count += int(free.sum())
        rows, columns = np.nonzero(free & np.isfinite(z))
        parts.append((x[columns], y[rows], z[rows, columns]))
    points = (
        np.concatenate([part[0] for part in parts]),
        np.concatenate([part[1] for part in parts]),
        np.concatenate([part[2] for part in parts]),
    )
    beside = sum(len(part[2]) >= _LEAST_SIDE_PX for part in parts)
    return points, len(points[2]) / count if count else 0.0, count, beside


def _plateau(
    height_um: np.ndarray, pitch_um: float, valid: np.ndarray | None, box: Box, upper: Box | None, clear_um: float
) -> tuple[Points, float, int]:
    """Known pixels of a level that no upper one covers, their share, and how many there are."""
    inner = (box[0] + clear_um, box[1] + clear_um, box[2] - clear_um, box[3] - clear_um)
    x, y, z = _pixels(height_um, pitch_um, valid, inner)
    own = np.ones(z.shape, bool)
    if upper is not None:
        x0, y0, x1, y1 = (1e-3 * edge for edge in upper)
        clear = 1e-3 * clear_um
        own &= ~(((x > x0 - clear) & (x < x1 + clear))[None, :] & ((y > y0 - clear) & (y < y1 + clear))[:, None])
    count = int(own.sum())
    rows, columns = np.nonzero(own & np.isfinite(z))
    return (x[columns], y[rows], z[rows, columns]), len(rows) / count if count else 0.0, count


def _pixels(
    height_um: np.ndarray, pitch_um: float, valid: np.ndarray | None, box: Box
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pixels wholly in a rectangle, every n-th of large ones: x and y of their centres [mm], heights [um]"""
    x0, y0, x1, y1 = inner_pixels(box, pitch_um, height_um.shape, 0.0)
    if x0 >= x1 or y0 >= y1:
        return np.empty(0), np.empty(0), np.empty((0, 0))
    # a narrow side keeps its few pixels across
    wide, high = x1 - x0, y1 - y0
    every = max(1, round(math.sqrt(wide * high / _SAMPLES)))
    step_x, step_y = min(every, max(1, wide // 8)), min(every, max(1, high // 8))
    window = (slice(y0, y1, step_y), slice(x0, x1, step_x))
    z = height_um[window].astype(np.float64)
    if valid is not None:
        z[~valid[window]] = math.nan
    x = 1e-3 * pitch_um * (np.arange(x0, x1, step_x) + 0.5)
    y = 1e-3 * pitch_um * (np.arange(y0, y1, step_y) + 0.5)
    return x, y, z


def _step(plateau: Points, street: Points) -> tuple[float | None, float | None, str]:
    """Step and its standard error, or why there is none."""
    x, y, _ = plateau
    middle = (float(x.mean()), float(y.mean()))
    origin = float(np.median(street[2]))
    sector = _sector(street[0] - middle[0], street[1] - middle[1], x, y)
    present = np.unique(sector)
    if len(present) < _LEAST_SECTORS:
        return None, None, "the street beside it is too short to lay a plane through it"
    parts = [_sums(street, sector == number, middle, origin) for number in present]
    total = Sums(*middle, np.sum([part.moments for part in parts], axis=0))
    plane = total.plane()
    others = [Sums(*middle, total.moments - part.moments).plane() for part in parts]
    if plane is None or None in others:
        return None, None, "the street beside it determines no plane"
    step = _median(plateau, plane) - _median(street, plane)
    left_out = []
    for number, other in zip(present, others, strict=True):
        assert other is not None  # seen to above
        keep = sector != number
        rest = (street[0][keep], street[1][keep], street[2][keep])
        # another plane moves all of the plateau by about what it moves its middle
        left_out.append(_median(rest, other) + other.at_um - plane.at_um)
    count = len(left_out)
    variance = (count - 1) * float(np.var(left_out)) + _plateau_variance(plateau, plane)
    return step, math.sqrt(variance), ""


def _sector(dx: np.ndarray, dy: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which part of the street round a plateau each pixel lies in."""
    half_x, half_y = max(1e-6, 0.5 * float(np.ptp(x))), max(1e-6, 0.5 * float(np.ptp(y)))
    turn = np.arctan2(dy / half_y, dx / half_x) / (2 * math.pi) + 0.5
    sector: np.ndarray = np.minimum((turn * _SECTORS).astype(int), _SECTORS - 1)
    return sector


def _sums(street: Points, own: np.ndarray, middle: tuple[float, float], origin: float) -> Sums:
    x, y, z = street[0][own] - middle[0], street[1][own] - middle[1], street[2][own] - origin
    moments = [len(z), x.sum(), y.sum(), x @ x, x @ y, y @ y, z.sum(), x @ z, y @ z]
    return Sums(*middle, np.array(moments, np.float64))


def _median(points: Points, plane: FittedPlane) -> float:
    """Median height above a plane; what the heights are counted from is in it."""
    x, y, z = points
    rise = plane.slope_x * (x - plane.x_mm) + plane.slope_y * (y - plane.y_mm)
    return float(np.median(z - rise)) - plane.at_um


def _plateau_variance(plateau: Points, plane: FittedPlane) -> float:
    """Of the median of a plateau, from the medians of its tiles about their own plane [um²]"""
    x, y, z = plateau
    left = z - plane.slope_x * (x - plane.x_mm) - plane.slope_y * (y - plane.y_mm)
    span_x, span_y = max(1e-9, float(np.ptp(x))), max(1e-9, float(np.ptp(y)))
    column = np.minimum(_TILES - 1, (_TILES * (x - x.min()) / span_x).astype(int))
    row = np.minimum(_TILES - 1, (_TILES * (y - y.min()) / span_y).astype(int))
    tile = (row * _TILES + column).astype(np.uint8)
    count = np.bincount(tile, minlength=_TILES**2)
    order = np.argsort(tile, kind="stable")
    apart = np.split(left[order], np.cumsum(count)[:-1])
    full = np.flatnonzero(count >= _LEAST_TILE_PX)
    mean_x, mean_y = (np.bincount(tile, one, _TILES**2)[full] / count[full] for one in (x, y))
    told = np.column_stack((mean_x, mean_y, [float(np.median(apart[number])) for number in full]))
    if len(told) < 5:
        return float(np.var(left)) / max(1, len(told))
    design = np.column_stack((np.ones(len(told)), told[:, :2] - told[:, :2].mean(axis=0)))
    rest = told[:, 2] - design @ np.linalg.lstsq(design, told[:, 2], rcond=None)[0]
    return float(rest @ rest) / (len(told) - 3) / len(told)
