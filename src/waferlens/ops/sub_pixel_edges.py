"""Edges of dies in an image, to a fraction of a pixel: straight lines parallel to the axes, with their standard errors.

Across the edge of a die at e, seen from above, light comes from the carrier (C), then from the wall, which falls off
and sends little back (a dark rim of width r that keeps a share t of the die's light), then from the die (D). All of it
is blurred by the die's distance from focus, because the die covers the carrier with its own blurred outline:

    I(x) = C (1 - E(x - e)) + D (t E(x - e) + (1 - t) E(x - e - r))

with E a step after blur and after averaging over the pixel. A rim on one side moves the steepest place of the profile
into the die by up to (1 - t) r, however symmetric the blur: 2 to 10 um for rims of 3 to 12 um, more than a pixel of
8.2 um. So r is a part of the model. What tells it from e is that the carrier's light ends at e and the die's begins at
e + r, and that segments along the edge differ in D; and since the walls of one product are alike, r is shared by all
edges of an image. On a dark carrier and on pixels wider than the rim little tells them apart: then state r, which a
finer image of the product gives, and the black level, which the rim's own light is counted from.

In a sharp image a third term joins them: a step at a stated distance from the edge, where seal rings and pads begin.
For given e, r and blur the model is linear in C, D and that step, which are free in each segment along the edge: what
it leaves of a segment's profile is what lies outside the span of its shapes. So all models of a table are tried on all
segments by one matrix product. No search starts anywhere and none can run astray.

Source: elimination of the linear parameters after G. H. Golub, V. Pereyra, "The differentiation of pseudo-inverses and
nonlinear least squares problems whose variables separate" (1973); standard errors by leaving parts out after B. Efron,
R. J. Tibshirani, "An Introduction to the Bootstrap" (1993).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32
from scipy.special import ndtr

from waferlens.errors import UsageError

PITCH_UM = (2.0, 30.0)
"""Pixels on which edges are found: on finer ones its tables grow, on coarser ones rim and edge are one [um]"""
MARGIN_UM = 35.0
"""Width of the band along the edge of a die that is free of patterns: from there on seal rings may stand [um]"""
WALL_SHARE = 0.15
"""Share t of its light that a die still sends from its dark rim"""
GREATEST_RIM_UM = 14.0
_STEP_UM = 0.8  # of the places in the table; between them a parabola is laid
_SEGMENTS = 24  # along an edge
_PARTS = 8  # that are left out in turn for the standard error
_MISFIT = 0.02  # of a profile's height: what the model leaves of one that fits, by texture and gain of rows
_LEAST_PATTERN = 0.05  # of a pixel: what shows less of the pattern cannot tell its brightness
_RIM_EDGES = 48  # of one image that tell the width of the rim
_CAP = 20.0  # no edge may say more against a width of the rim
_BLUR_RATIO = 1.8  # within which a stated blur is believed
_UNMODELLED = 0.08  # of a pixel, and of the blur: what the model does not know of walls and lenses
_LEAST_EXPLAINED = 0.5


@dataclass(frozen=True, slots=True)
class EdgeLine:
    """Where an edge is expected: a straight piece parallel to an axis."""

    axis: Literal["x", "y"]
    """The axis the position is told on: `x` for an edge that runs along y."""
    at_um: float
    """Its position, from the outer edge of the first pixel [um]"""
    low_um: float
    """Where it begins, on the other axis [um]"""
    high_um: float
    """Where it ends [um]"""
    die_after: bool
    """Whether the die lies towards growing coordinates: true for left and upper edges."""
    blur_um: float | None = None
    """Standard deviation of the blur across it, if it is known: half of |height - focus| tan(asin NA) [um]"""


@dataclass(frozen=True, slots=True)
class EdgeFit:
    """Where an edge is."""

    at_um: float
    """From the outer edge of the first pixel; the expected position where it was not found [um]"""
    sigma_um: float
    """Standard error; NaN where it was not found [um]"""
    blur_um: float
    """Standard deviation of the blur across the edge, pixel left out [um]"""
    rim_um: float
    """Width of the dark rim, shared by all edges of the image [um]"""
    reason: str = ""
    """Why it was not found; empty where it was."""

    @property
    def found(self) -> bool:
        """Whether the image shows it."""
        return not self.reason


@dataclass(frozen=True, slots=True)
class _Window:
    """How far a profile reaches from the expected place, and the blurs that fit into it."""

    street_um: float
    die_um: float  # short, because rings and pads begin soon
    blurs_um: tuple[float, ...]  # standard deviations


_WINDOWS = (
    _Window(49.0, 41.0, (0.4, 0.8, 1.2, 1.7, 2.5, 3.7, 5.0, 6.5, 8.2)),
    _Window(98.0, 82.0, (6.5, 8.2, 10.0, 12.5, 16.0, 21.0, 27.0, 35.0)),
)
_SPLIT_UM = 9.0  # a stated blur beyond it takes the wide window


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """Models: the three orthogonal shapes of each, and what they are models of."""

    shapes: Float32[np.ndarray, "n three blurs rims places"]
    places_um: Float[np.ndarray, " places"]
    """From the centre of the expected pixel, growing into the die [um]"""
    rims_um: Float[np.ndarray, " rims"]
    blurs_um: Float[np.ndarray, " blurs"]


@dataclass(frozen=True, slots=True, eq=False)
class _Tried:
    """An edge with the misfit of every model."""

    each: Float32[np.ndarray, "m blurs rims places"]
    """Of each segment"""
    places_um: Float[np.ndarray, " places"]
    blurs_um: Float[np.ndarray, " blurs"]
    centre_um: float
    explained: float


def refine_edges(
    image: np.ndarray,
    lines: Sequence[EdgeLine],
    pitch_um: float,
    *,
    search_um: float = 15.0,
    rim_um: float | None = None,
    wall_share: float = WALL_SHARE,
    margin_um: float = MARGIN_UM,
    black: float = 0.0,
) -> list[EdgeFit]:
    """Finds edges near where they are expected.

    Args:
        image: `h w`, in proportion to the light [grey]
        lines: the edges; what lies outside the image is cut off.
        pitch_um: distance of neighbouring pixels, 2 to 30; average a finer image [um]
        search_um: how far from its expected place an edge may lie [um]
        rim_um: width of the dark rim if it is known; None finds it from all the edges [um]
        wall_share: share of the die's light that its rim still sends.
        margin_um: how far from the edge of a die its patterns begin [um]
        black: grey of no light, glare included; it is taken off [grey]

    Raises:
        UsageError: the image is no plane, or a number is out of range.
    """
    if image.ndim != 2:
        raise UsageError(f"image has {image.ndim} axes; edges are found in one plane, h w")
    if not PITCH_UM[0] <= pitch_um <= PITCH_UM[1]:
        raise UsageError(f"pitch_um = {pitch_um:g}: edges are found on pixels of 2 to 30 um; average a finer image")
    if not 0 <= wall_share < 1:
        raise UsageError(f"wall_share = {wall_share:g} must lie in 0..1, 1 left out")
    if rim_um is not None and not 0 <= rim_um <= GREATEST_RIM_UM:
        raise UsageError(f"rim_um = {rim_um:g} must lie in 0..{GREATEST_RIM_UM:g}")
    if not 2.0 <= search_um <= 30.0:
        raise UsageError(f"search_um = {search_um:g} must be 2 to 30 um")
    rims = [rim_um] if rim_um is not None else list(np.linspace(0, GREATEST_RIM_UM, round(GREATEST_RIM_UM) + 1))
    every = -(-len(lines) // _RIM_EDGES)
    if rim_um is None and every > 1:
        # of many edges some tell the rim; all are then tried with it and with the least and greatest that fit as well
        asked = _all_tried(image, lines[::every], pitch_um, search_um, tuple(rims), wall_share, margin_um, black)
        rim, possible = _shared_rim([one for one, _ in asked if one is not None], len(rims))
        rims = sorted({rims[possible[0]], rims[rim], rims[possible[-1]]})
    tried = _all_tried(image, lines, pitch_um, search_um, tuple(rims), wall_share, margin_um, black)
    rim, possible = _shared_rim([one for one, _ in tried if one is not None], len(rims))
    return [
        EdgeFit(line.at_um, math.nan, math.nan, float(rims[rim]), reason)
        if one is None
        else _told(line, one, rim, possible, float(rims[rim]), pitch_um)
        for line, (one, reason) in zip(lines, tried, strict=True)
    ]


def _all_tried(
    image: np.ndarray,
    lines: Sequence[EdgeLine],
    pitch_um: float,
    search_um: float,
    rims: tuple[float, ...],
    wall_share: float,
    margin_um: float,
    black: float,
) -> list[tuple[_Tried | None, str]]:
    return [_tried(image, line, pitch_um, search_um, rims, wall_share, margin_um, black) for line in lines]


def _shared_rim(tried: Sequence[_Tried], count: int) -> tuple[int, np.ndarray]:
    """The width of the rim that all edges together like best, and those that they like about as well."""
    against = np.zeros(count)
    for one in tried:
        by_rim = one.each.sum(axis=0).min(axis=(0, 2))
        against += np.minimum(by_rim - by_rim.min(), _CAP)
    return int(against.argmin()), np.flatnonzero(against - against.min() <= 4.0)


def _tried(
    image: np.ndarray,
    line: EdgeLine,
    pitch_um: float,
    search_um: float,
    rims: tuple[float, ...],
    wall_share: float,
    margin_um: float,
    black: float,
) -> tuple[_Tried | None, str]:
    """The misfit of every model on one edge, in the window that fits it best."""
    best, least, reason = None, math.inf, ""
    for window in _WINDOWS:
        if line.blur_um is not None and (line.blur_um > _SPLIT_UM) != (window is _WINDOWS[1]):
            continue
        left, right = round(window.street_um / pitch_um), round(window.die_um / pitch_um)
        cut, centre, why = _profiles(image, line, pitch_um, left, right)
        if cut is None:
            reason = why if best is None else reason
            continue
        table = _table(window, left, right, pitch_um, search_um, rims, wall_share, margin_um)
        expected = (line.at_um - (centre + 0.5) * pitch_um) * (1 if line.die_after else -1)
        near = np.abs(table.places_um - expected) <= search_um
        blurs = np.ones(len(table.blurs_um), bool)
        if line.blur_um is not None:
            away = np.abs(np.log(table.blurs_um / max(line.blur_um, table.blurs_um.min())))
            blurs = away <= max(math.log(_BLUR_RATIO), float(away.min()) + 1e-9)
        cut = cut - black
        shapes = table.shapes[:, :, blurs][..., near]
        energy = (cut**2).sum(axis=1)
        held = np.tensordot(cut.astype(np.float32), shapes, 1)  # m, three, blurs, rims, places
        left_over = np.maximum(energy[:, None, None, None] - (held**2).sum(axis=1), 0)
        floor = len(table.shapes) * (_MISFIT * np.abs(cut).max(axis=1)) ** 2 + 1e-30
        each = np.log1p(left_over / floor[:, None, None, None])  # a segment that fits badly counts little (Cauchy)
        total = float(each.sum(axis=0).min()) / len(each)
        if total < least:
            flat = ((cut - cut.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
            place = np.unravel_index(int(each.sum(axis=0).argmin()), each.shape[1:])
            share = 1 - np.median(left_over[:, *place] / np.maximum(flat, 1e-30))
            least = total
            best = _Tried(each, table.places_um[near], table.blurs_um[blurs], (centre + 0.5) * pitch_um, float(share))
    return best, reason


def _profiles(
    image: np.ndarray, line: EdgeLine, pitch_um: float, street: int, die: int
) -> tuple[Float[np.ndarray, "m n"] | None, int, str]:
    """Mean profiles of segments along an edge, the carrier first; the pixel the edge is expected in."""
    plane = image if line.axis == "x" else image.T
    along, across = plane.shape
    first, last = max(0, math.ceil(line.low_um / pitch_um)), min(along, math.floor(line.high_um / pitch_um))
    if last - first < 8:
        return None, 0, f"only {max(0, last - first)} px of it are in the image; at least 8 are needed"
    centre = math.floor(line.at_um / pitch_um)
    start, stop = (centre - street, centre + die) if line.die_after else (centre - die + 1, centre + street + 1)
    if start < 0 or stop > across:
        return None, 0, "it is too near the border of the image"
    size = max(4, (last - first) // _SEGMENTS)
    count = (last - first) // size
    cut = plane[first : first + count * size, start:stop].astype(np.float64)
    if not np.isfinite(cut).all():
        return None, 0, "the image has no values there"
    cut = cut.reshape(count, size, -1).mean(axis=1)
    return (cut if line.die_after else cut[:, ::-1]), centre, ""


def _told(line: EdgeLine, one: _Tried, rim: int, possible: np.ndarray, rim_um: float, pitch_um: float) -> EdgeFit:
    """The edge at the shared rim, with its standard error."""
    total = one.each.sum(axis=0)
    blur, place = np.unravel_index(int(total[:, rim].argmin()), (total.shape[0], total.shape[2]))
    width = float(one.blurs_um[blur])
    if one.explained < _LEAST_EXPLAINED:
        reason = f"nothing that looks like an edge: {100 * max(0.0, one.explained):.0f} % of it explained"
        return EdgeFit(line.at_um, math.nan, width, rim_um, reason)
    if place in (0, total.shape[2] - 1):
        return EdgeFit(line.at_um, math.nan, width, rim_um, "no edge within reach of where it is expected")
    at = _lowest(total[blur, rim], one.places_um)
    segments = one.each[:, blur, rim].astype(np.float64)
    parts = np.arange(len(segments)) % min(_PARTS, len(segments))
    left_out = [_lowest(segments[parts != part].sum(axis=0), one.places_um) for part in range(int(parts.max()) + 1)]
    count = len(left_out)
    variance = (count - 1) * float(np.var(left_out)) if count > 1 else math.inf
    # and by the widths of the rim, the blurs and the places that fit about as well
    others = [_lowest(total[total[:, width].min(axis=1).argmin(), width], one.places_um) for width in possible]
    close = (total[:, rim] - total[blur, rim, place] <= 1.0).any(axis=0)
    others += list(one.places_um[close])
    variance += float(np.square(np.array(others) - at).max())
    variance += (_UNMODELLED * pitch_um) ** 2 + (_UNMODELLED * width) ** 2
    sign = 1 if line.die_after else -1
    return EdgeFit(one.centre_um + sign * at, math.sqrt(variance), width, rim_um)


def _lowest(curve: np.ndarray, places_um: np.ndarray) -> float:
    """Where the parabola through the lowest value and its neighbours is lowest [um]"""
    place = int(curve.argmin())
    if not 0 < place < len(curve) - 1:
        return float(places_um[place])
    before, here, after = (float(value) for value in curve[place - 1 : place + 2])
    bend = before - 2 * here + after
    offset = 0.5 * (before - after) / bend if bend > 0 else 0.0
    return float(places_um[place]) + _STEP_UM * offset


@lru_cache(maxsize=8)
def _table(
    window: _Window,
    street: int,
    die: int,
    pitch_um: float,
    search_um: float,
    rims: tuple[float, ...],
    wall_share: float,
    margin_um: float,
) -> _Table:
    """The shapes of every model, made orthogonal, in pixels from the street into the die."""
    reach = search_um + 0.5 * pitch_um + _STEP_UM
    places = np.arange(-math.ceil(reach / _STEP_UM), math.ceil(reach / _STEP_UM) + 1) * _STEP_UM
    x = pitch_um * np.arange(-street, die)[:, None]
    kinds = [(kind, width) for kind in ("disc", "bell") for width in window.blurs_um]
    shapes = np.empty((len(x), 3, len(kinds), len(rims), len(places)), np.float32)
    for number, (kind, width) in enumerate(kinds):
        outline = _step(x - places, kind, width, pitch_um)
        first = 1 - outline
        first /= np.maximum(np.linalg.norm(first, axis=0), 1e-12)
        for place, rim in enumerate(rims):
            second = wall_share * outline + (1 - wall_share) * _step(x - places - rim, kind, width, pitch_um)
            second -= (second * first).sum(axis=0) * first
            second /= np.maximum(np.linalg.norm(second, axis=0), 1e-12)
            third = _step(x - places - margin_um, kind, width, pitch_um)
            third -= (third * first).sum(axis=0) * first
            third -= (third * second).sum(axis=0) * second
            size = np.linalg.norm(third, axis=0)
            third = np.where((size > _LEAST_PATTERN) & (window is _WINDOWS[0]), third / np.maximum(size, 1e-12), 0)
            for shape, values in enumerate((first, second, third)):
                shapes[:, shape, number, place] = values
    return _Table(shapes, places, np.array(rims), np.array([width for _, width in kinds]))


def _step(x: np.ndarray, kind: str, width: float, pitch: float) -> np.ndarray:
    """A step at 0 after blur of a standard deviation, averaged over a pixel; all in um."""
    rise = _rise(x + 0.5 * pitch, kind, width) - _rise(x - 0.5 * pitch, kind, width)
    return np.clip(rise / pitch, 0, 1)


def _rise(x: np.ndarray, kind: str, width: float) -> np.ndarray:
    """The integral of a blurred step: of a bell, or of a disc out of focus, whose chords spread by half its radius."""
    if kind == "bell":
        z = x / width
        return x * ndtr(z) + width * np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    radius = 2 * width
    u = np.clip(x / radius, -1, 1)
    root = np.sqrt(1 - u * u)
    inside = 0.5 * u + (u * np.arcsin(u) + root - root**3 / 3) / math.pi
    return radius * np.where(x > radius, x / radius, inside)
