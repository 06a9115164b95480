"""A rectangle of four straight borders, fitted to an image: its corners, its angle and how sure that is.

Two passes bring the lines near by robust means; the last one weighs each piece of the borders against the covariance
of all, and fits four offsets and one turn (`border_lines`). Where the four borders contradict one turn, as under a
lens that distorts, the corners are those of the four lines by themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from waferlens.ops.border_lines import (
    Pieces,
    Profile,
    collapse,
    match_pieces,
    measure_pieces,
    no_pieces,
    robust_lines,
    sample_band,
)
from waferlens.ops.roi_lines import FittedLines, fit_lines
from waferlens.ops.roi_record import angle_of

_SMOOTH = np.exp(-0.5 * np.square(np.arange(-8, 9) / 3.0)) / 7.5
GAMMA = 2.2
"""Of the camera: grey is light to the power of one over it"""
_LIGHT = {bits: ((np.arange(2**bits) / (2**bits - 1)) ** GAMMA).astype(np.float32) for bits in (8,)}


@dataclass(frozen=True, slots=True)
class Look:
    """How borders are looked at."""

    out_px: float
    """How far outwards [px]"""
    in_px: float
    """How far inwards [px]"""
    trim_px: float
    """What is left out at both ends of each border, for corners are round [px]"""
    coarse_px: float
    """How far to either side the first passes look [px]"""
    strip_px: float = 1.0
    """Width of the strips the covariance is told in [px]"""
    coarse_every: int = 3
    """The first passes take every so manieth row across a border"""
    knot_px: float = 1.0
    """Distance of the knots of the mean profile [px]"""
    piece_px: float = 8.0
    """Length of the pieces [px]"""
    brighter: int = 0
    """1 where the inside of the border is brighter, -1 where it is darker: lines are set on the steepest such place; 0
    leaves them where they are"""
    match: bool = True
    """Weigh pieces against their covariance; not where the border itself is rougher than what is beside it."""


@dataclass(frozen=True, slots=True, eq=False)
class FittedRectangle:
    """Where a rectangle is."""

    quad: Float[np.ndarray, "4 2"]
    """Corners in the order they were handed in [px]"""
    angle_deg: float
    """Of the side from the first corner to the second, counter-clockwise as seen [deg]"""
    sigma_deg: float
    """Its standard deviation [deg]"""
    freedom: float
    """Degrees of freedom of Student's distribution that tells its interval"""
    lines: FittedLines
    sides: tuple[Pieces, ...]
    used_share: float
    """Share of the borders that was used"""
    agree: float
    """How well the four borders agree in one turn: mean square of their own turns over their variances; about 0.75"""


def linear(image: np.ndarray) -> np.ndarray | None:
    """Light of each grey of an image of 8 bits; None for others, which are taken as they are."""
    return _LIGHT[8] if image.dtype == np.uint8 else None


def fit_rectangle(image: np.ndarray, quad: Float[np.ndarray, "4 2"], look: Look) -> FittedRectangle | None:
    """Fits the four borders of a rectangle; None where one of them is not in the image.

    Args:
        image: `h w` or `h w c` [grey]
        quad: corners clockwise as seen, within the coarse reach of the true ones [px]
        look: how borders are looked at.
    """
    table = linear(image)
    quad = np.asarray(quad, np.float64).copy()
    for reach in (look.coarse_px, 0.6 * look.coarse_px):
        sides = _sides(image, quad, look, table, reach, reach, look.coarse_every)
        if sides is None:
            return None
        offsets, turn = robust_lines(sides)
        quad = moved_quad(quad, offsets + _anchors(sides, look), turn)
    sides = _sides(image, quad, look, table, look.out_px, look.in_px, 1, 2, look.strip_px if look.match else None)
    if sides is None:
        return None
    if look.match:
        sides = match_pieces(sides)
    lines = fit_lines(sides)
    if lines is None:
        return None
    agree = float(np.mean(np.square(lines.own_turn_rad / lines.own_sigma_rad)))
    quad = moved_quad(quad, lines.offset_px + _anchors(sides, look), lines.turn_rad)
    total = sum(len(one) for one in lines.used)
    return FittedRectangle(
        quad,
        angle_of(quad),
        math.degrees(lines.turn_sigma_rad),
        lines.freedom,
        lines,
        tuple(sides),
        float(sum(one.sum() for one in lines.used)) / total,
        agree,
    )


def _sides(
    image: np.ndarray,
    quad: np.ndarray,
    look: Look,
    table: np.ndarray | None,
    out_px: float,
    in_px: float,
    every: int,
    rounds: int = 1,
    strip_px: float | None = None,
) -> list[Pieces] | None:
    sides = []
    for number in range(4):
        first, second = quad[number], quad[(number + 1) % 4]
        way = second - first
        length = float(np.hypot(*way))
        if length < 2 * look.trim_px + 6 * look.piece_px:
            return None
        way = way / length
        start, stop = first + look.trim_px * way, second - look.trim_px * way
        band = sample_band(image, start, stop, out_px, in_px, every)
        half = 0.5 * (length - 2 * look.trim_px)
        side = measure_pieces(collapse(band, table), band, half, look.piece_px, strip_px, look.knot_px, rounds)
        sides.append(no_pieces(half, look.piece_px) if side is None else side)
    return sides if sum(side.weight.any() for side in sides) >= 3 else None


def side_profiles(image: np.ndarray, quad: Float[np.ndarray, "4 2"], look: Look) -> list[Profile | None]:
    """The mean profile across each side of a quad; None of a side that is not in the image."""
    sides = _sides(image, quad, look, linear(image), look.out_px, look.in_px, look.coarse_every, 2)
    if sides is None:
        return [None] * 4
    return [side.profile if side.weight.any() else None for side in sides]


def _anchors(sides: list[Pieces], look: Look) -> Float[np.ndarray, "4"]:
    """How far outwards of the lines each side is steepest, in the sense that is looked for [px]"""
    if look.brighter == 0:
        return np.zeros(len(sides))
    return np.array([_steepest(side.profile, look.brighter) if side.weight.any() else 0.0 for side in sides])


def _steepest(profile: Profile, brighter: int) -> float:
    """Where a profile is steepest, by a parabola through the greatest slope [px]"""
    # in grey, as the eye sees it: a dark seam beside a bright field is an edge, the field's own steps are less
    grey = (
        np.maximum(profile.level - profile.level.min(), 0) ** (1 / GAMMA)
        if profile.level.min() < 0
        else (profile.level ** (1 / GAMMA))
    )
    slope = -brighter * np.convolve(np.gradient(grey), _SMOOTH, "same")
    edge = len(_SMOOTH) // 2
    slope[:edge] = slope[-edge:] = -np.inf
    place = int(slope.argmax())
    offset = 0.0
    if 0 < place < len(slope) - 1 and np.isfinite(slope[place - 1 : place + 2]).all():
        bend = slope[place - 1] - 2 * slope[place] + slope[place + 1]
        offset = 0.5 * (slope[place - 1] - slope[place + 1]) / bend if bend < 0 else 0.0
    step = float(profile.away_px[1] - profile.away_px[0])
    return float(profile.away_px[place]) + step * float(offset)


def moved_quad(
    quad: Float[np.ndarray, "4 2"], offsets_px: Float[np.ndarray, "4"], turns_rad: Float[np.ndarray, "4"] | float
) -> Float[np.ndarray, "4 2"]:
    """A quad whose sides were moved outwards and turned, counter-clockwise as seen, about their middles."""
    turns = np.broadcast_to(turns_rad, 4)
    places, ways = np.empty((4, 2)), np.empty((4, 2))
    for number in range(4):
        first, second = quad[number], quad[(number + 1) % 4]
        way = (second - first) / np.hypot(*(second - first))
        places[number] = 0.5 * (first + second) + offsets_px[number] * np.array([way[1], -way[0]])
        cos, sin = math.cos(turns[number]), math.sin(turns[number])
        ways[number] = way[0] * cos + way[1] * sin, way[1] * cos - way[0] * sin
    corners = np.empty((4, 2))
    for number in range(4):
        before = number - 1
        step = np.linalg.solve(np.column_stack([ways[before], -ways[number]]), places[number] - places[before])
        corners[number] = places[before] + step[0] * ways[before]
    return corners
