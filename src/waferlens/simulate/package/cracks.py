"""How cracks, chips and scratches run: shapes in the coordinates of the plate they are in, a die or an emitter.

Silicon cleaves along {111} and {110}; their traces on a (001) surface run along the die's edges, fewer at 45 degrees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from waferlens.recipe.package_world import CrackSpec
from waferlens.simulate.streams import uniform

Path = tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]
"""Points and half widths [px]"""
PULL, WANDER = 0.06, 0.10
"""How a crack's heading returns to its cleavage plane, and how it wanders, a pixel of length."""
JOGS = 1 / 45
"""Mean number of jogs to a parallel plane, a pixel of length."""


@dataclass(frozen=True, slots=True, eq=False)
class Crack:
    """A crack with its branches."""

    paths: tuple[Path, ...]
    length_px: float
    """Of the main line [px]"""


@dataclass(frozen=True, slots=True, eq=False)
class Chip:
    """A piece that broke away from the edge."""

    centre: tuple[float, float]
    radius_px: float
    waves: tuple[tuple[int, float, float], ...]
    """Order, amplitude and phase of its outline's waves."""
    ripple_px: float
    """Distance of the conchoidal ripples [px]"""
    phase: float


@dataclass(frozen=True, slots=True, eq=False)
class Scratch:
    """Nearly parallel arcs."""

    paths: tuple[Path, ...]
    gaps: tuple[Float[np.ndarray, " m"], ...]
    """Of each arc, how much of it is there, at equal steps along it."""
    length_px: float


def draw_crack(
    rng: np.random.Generator, spec: CrackSpec, half_u: float, half_v: float, longest_px: float = math.inf
) -> Crack:
    """A crack from the plate's edge, a corner, or its inside."""
    low, high = spec.length_range_px
    length = spec.length_px * math.exp(spec.length_spread * rng.standard_normal())
    short = low * (1.0 + 0.5 * rng.random())
    length = min(length if length > low else short, high, longest_px)  # not all of one length
    start, inward = _edge_point(rng, half_u, half_v, corner=0.12)
    inside, where = rng.random() < spec.interior, rng.uniform(-0.85, 0.85, 2)
    if inside:
        start, inward = where * (half_u, half_v), float(rng.integers(4)) * 0.5 * math.pi
    plane = inward
    turn = rng.random(2)
    if turn[0] < spec.diagonal:
        plane += 0.25 * math.pi * (1 if turn[1] < 0.5 else -1)
    width = uniform(rng, spec.half_width_px)
    paths: list[Path] = []
    _grow(rng, spec, paths, start, plane, length, width, (half_u, half_v), depth=0)
    if not paths:
        return Crack((), 0.0)
    points = paths[0][0]
    return Crack(tuple(paths), float(np.hypot(*np.diff(points, axis=0).T).sum()))


def _grow(
    rng: np.random.Generator,
    spec: CrackSpec,
    paths: list[Path],
    start: np.ndarray,
    plane: float,
    length: float,
    width: float,
    half: tuple[float, float],
    depth: int,
) -> None:
    count = max(round(length), 3)
    steps, events, sizes = rng.standard_normal(count), rng.random((count, 2)), rng.random((count, 4))
    heading = plane + 0.3 * rng.standard_normal()
    points, at, forks = [np.asarray(start, float)], np.asarray(start, float), []
    while len(points) <= count:
        n = len(points) - 1
        heading += -PULL * (heading - plane) + WANDER * steps[n]
        way = np.array([math.cos(heading), math.sin(heading)])
        if events[n, 0] < JOGS and len(points) < count - 3:
            side = 1.0 if sizes[n, 0] < 0.5 else -1.0
            jog = min(round(2 + 8 * sizes[n, 1]), count - len(points))
            way = np.array([-math.sin(plane), math.cos(plane)]) * side + 0.35 * way
            way /= np.hypot(*way)
            points += [at + way * k for k in range(1, jog + 1)]
            at = points[-1]
        else:
            at = at + way
            points.append(at)
        if depth < 2 and events[n, 1] < spec.branches:
            angle = (0.3 + 0.6 * sizes[n, 2]) * (1 if sizes[n, 0] < 0.5 else -1)
            forks.append((at, heading + angle, length * (0.1 + 0.3 * sizes[n, 3]), len(points) - 1))
        if abs(at[0]) > half[0] or abs(at[1]) > half[1]:
            break
    line = np.array(points)
    if len(line) < 3:
        return
    half_width = width * np.sqrt(np.clip(1.0 - np.arange(len(line)) / len(line), 0, 1)) + 0.25
    paths.append((line, half_width))
    for where, towards, long, index in forks:
        if long >= 3:
            _grow(rng, spec, paths, where, towards, long, 0.8 * float(half_width[index]) - 0.2, half, depth + 1)


def draw_chip(rng: np.random.Generator, spec: CrackSpec, half_u: float, half_v: float) -> Chip:
    """A chip at the edge or a corner."""
    start, _ = _edge_point(rng, half_u, half_v, corner=spec.chip_corner)
    radius = float(np.clip(spec.chip_px * math.exp(spec.chip_spread * rng.standard_normal()), 4.0, 45.0))
    waves = tuple((k, a, float(rng.uniform(0, 2 * math.pi))) for k, a in ((2, 0.25), (3, 0.15), (5, 0.10)))
    return Chip(
        (float(start[0]), float(start[1])), radius, waves, float(rng.uniform(4, 8)), float(rng.uniform(0, 2 * math.pi))
    )


def draw_scratch(rng: np.random.Generator, spec: CrackSpec, half_u: float, half_v: float) -> Scratch:
    """One to three arcs across the plate."""
    low, high = spec.scratch_px
    length = low * (high / low) ** rng.random()
    heading, curve = rng.uniform(0, 2 * math.pi), 0.0015 * rng.standard_normal()
    middle = rng.uniform(-0.85, 0.85, 2) * (half_u, half_v)
    paths, gaps = [], []
    for _ in range(int(rng.choice([1, 2, 3], p=[0.55, 0.3, 0.15]))):
        own = length * rng.uniform(0.75, 1.0)
        s = np.linspace(-0.5 * own, 0.5 * own, max(int(own / 3), 4))
        turn = heading + rng.normal(0, 0.03) + curve * s
        step = np.diff(s, prepend=s[0])
        points = np.stack([np.cumsum(np.cos(turn) * step), np.cumsum(np.sin(turn) * step)], axis=1)
        points += middle - points[len(points) // 2]
        across = rng.normal(0, 5.0)
        points += across * np.array([-math.sin(heading), math.cos(heading)])
        inside = (np.abs(points[:, 0]) < half_u) & (np.abs(points[:, 1]) < half_v)
        width = rng.uniform(0.6, 1.4) * np.sqrt(np.clip(1.0 - (2 * s / own) ** 4, 0.05, 1))
        there = np.convolve(rng.random(24) > 0.15, [0.25, 0.5, 0.25], mode="same")
        if inside.sum() >= 4:
            first, last = np.flatnonzero(inside)[[0, -1]]
            paths.append((points[first : last + 1], width[first : last + 1]))
            gaps.append(np.clip(there, 0, 1))
    long = max((float(np.hypot(*np.diff(points, axis=0).T).sum()) for points, _ in paths), default=0.0)
    return Scratch(tuple(paths), tuple(gaps), long)


def _edge_point(rng: np.random.Generator, half_u: float, half_v: float, corner: float) -> tuple[np.ndarray, float]:
    """A place on the plate's edge, and the direction that points inward."""
    at_corner, signs, along, place = rng.random(), rng.random(2), rng.random(), rng.uniform(-0.94, 0.94)
    sign_u, sign_v = (1.0 if one < 0.5 else -1.0 for one in signs)
    if at_corner < corner:
        return np.array([sign_u * (half_u - 1), sign_v * (half_v - 1)]), math.atan2(-sign_v, -sign_u)
    if along < half_u / (half_u + half_v):
        return np.array([place * half_u, sign_v * half_v]), math.atan2(-sign_v, 0.0)
    return np.array([sign_u * half_u, place * half_v]), math.atan2(0.0, -sign_u)
