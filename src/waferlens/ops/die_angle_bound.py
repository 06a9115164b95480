"""The least error of an angle, and of a corner, that borders permit: after H. Cramer and C. R. Rao.

Two things limit where a straight border is. Its light is counted in electrons: what a border of profile I(d) tells
of its place is the sum of I'(d)² / V(d) a pixel of length, V being the variance of a pixel. And it may be rough:
displaced by a process of standard deviation s whose correlation falls off as exp(-x / l). Over a length T such a
process leaves on a constant and on a slope the information

    (T + 2 l) / (2 s² l)          (T³ / 12 + l T² / 2 + l² T) / (2 s² l)

which is the squared norm of the two shapes in the space that belongs to the process. Sides of one rectangle add theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def light_density(
    level: Float[np.ndarray, " j"],
    step_px: float,
    full_well_e: float,
    read_e: float,
    *,
    gamma: float = 2.2,
    grey_levels: int = 255,
) -> float:
    """What a profile tells of its place, a pixel of the border's length [1/px³]

    Args:
        level: light across the border, without noise; 1 fills the wells.
        step_px: distance of its points [px]
        full_well_e: electrons at white [e]
        read_e: read noise [e]
        gamma: of the camera; 8 bits after it add the variance of rounding.
        grey_levels: greatest grey.
    """
    light = np.maximum(np.asarray(level, np.float64), 1e-9)
    slope = np.gradient(light, step_px) * full_well_e
    grey = gamma * light ** (1.0 - 1.0 / gamma) / grey_levels * full_well_e
    variance = light * full_well_e + read_e**2 + np.square(grey) / 12.0
    return float((np.square(slope) / variance).sum() * step_px)


def light_turn_sigma_deg(lengths_px: Sequence[float], densities: Sequence[float]) -> float:
    """Least standard deviation of the turn of a rectangle whose sides are told by their light alone [deg]

    Args:
        lengths_px: of its sides [px]
        densities: what each tells, a pixel of length, from `light_density` [1/px³]
    """
    information = sum(density * length**3 / 12.0 for length, density in zip(lengths_px, densities, strict=True))
    return math.degrees(1.0 / math.sqrt(information)) if information > 0 else math.inf


def rough_turn_sigma_deg(lengths_px: Sequence[float], rough_px: float, length_px: float) -> float:
    """Least standard deviation of the turn of a rectangle whose sides are rough [deg]

    Args:
        lengths_px: of its sides [px]
        rough_px: standard deviation of the roughness [px]
        length_px: its correlation length [px]
    """
    return math.degrees(1.0 / math.sqrt(sum(_rough_slope(one, rough_px, length_px) for one in lengths_px)))


def rough_corner_px(width_px: float, height_px: float, rough_px: float, length_px: float) -> float:
    """Least root mean square distance of a rectangle's corners from where they are, where its sides are rough [px]

    A corner moves with the offsets of the two sides that meet in it, and with the turn by its distance from the centre.

    Args:
        width_px: of the rectangle [px]
        height_px: of the rectangle [px]
        rough_px: standard deviation of the roughness [px]
        length_px: its correlation length [px]
    """
    offsets = sum(2 * rough_px**2 * length_px / (one + 2 * length_px) for one in (width_px, height_px))
    turn = sum(2 * _rough_slope(one, rough_px, length_px) for one in (width_px, height_px))
    return math.sqrt(offsets + (width_px**2 + height_px**2) / 4.0 / turn)


def _rough_slope(side_px: float, rough_px: float, length_px: float) -> float:
    shape = side_px**3 / 12.0 + length_px * side_px**2 / 2.0 + length_px**2 * side_px
    return shape / (2 * rough_px**2 * length_px)
