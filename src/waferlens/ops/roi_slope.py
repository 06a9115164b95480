"""Where on its soft slope a package's outline lies: half of the cover, from the profiles across its borders.

The border is soft and slopes down to the board. In brightfield a slope sends light past the lens, so half of the
brightness lies far outside of half of the slope; in darkfield the slope itself shines. The profile of a slope is
fitted, with its width and its steepness:

    cover(d) = 1 / (1 + exp(4 d / w))      brightfield:  (board (1 - cover) + body cover) / (1 + (s |cover'|)²)
                                           darkfield:     board (1 - cover) + body cover + s |cover'|

and the outline is where the cover is one half.

Source: ours; bevels in bright and dark field, S2's images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from waferlens.ops.border_lines import Profile
from waferlens.ops.roi_rectangle import Look, side_profiles

_STEEP = (8.0, 45.0)  # of a slope in brightfield: 18 to 100 px of height over an objective that accepts slopes of 2.2
_PLAINER = 0.8  # bodies are higher than the board: a plain border has to leave that much less unexplained
_UNEXPLAINED = 0.01  # of a profile's height, that no model of a border explains
_LENS_PX, _ROUGH = 1.1, 0.08  # what smooths a border's mean profile: the lens [px], and its roughness as a share of w


def border_place(
    image: np.ndarray, quad: Float[np.ndarray, "4 2"], look: Look, is_bright: bool, steep_px: float | None = None
) -> tuple[Float[np.ndarray, "4"], float, float]:
    """Where half of the slopes lies.

    Args:
        image: red, green, blue [grey]
        quad: within some pixels of the outline [px]
        look: how much of the profiles is taken.
        is_bright: whether it was taken in brightfield.
        steep_px: s in brightfield, where it is known; fitted if None. One image tells it to some 15 %, and half a pixel
            of the place goes with that: the mean of many images of one product under one objective is better [px]

    Returns:
        How far outwards of each side half of its slope lies, and the width w and the steepness s that all slopes share;
        s is NaN in darkfield, and where the border is plain [px]
    """
    told = side_profiles(image, quad, look)
    seen = np.array([one is not None for one in told])
    profiles = [one for one in told if one is not None]
    if not profiles:
        return np.zeros(4), math.nan, math.nan
    grid = _on_one_grid(profiles)
    if is_bright:
        # a slope is dark, so its middle lies within the place that is half as bright as the board
        half = np.array([_half_way(one) for one in profiles])
        starts = ((0.0, 0.3), (3.0, steep_px or 18.0), (8.0, steep_px or 18.0))
        tried = [
            _slope_fit(grid, half - inwards, half + 1.0, steep, is_bright, steep_px is not None)
            for inwards, steep in starts
        ]
    else:
        count = len(profiles)
        tried = [_slope_fit(grid, np.full(count, start), np.full(count, 20.0), 1.0, is_bright) for start in (0.0, 6.0)]
    # the first is plain, the others are slopes, within what slopes there are; a told slope is one
    plain, *others = tried
    if steep_px is None:
        others = [one for one in others if one[1][1] < math.log(0.95 * _STEEP[1])]
        choice = [plain, *((square * _PLAINER, told) for square, told in others)]
    else:
        choice = others if is_bright else tried
    _, best = min(choice, key=lambda one: one[0])
    outwards = np.full(4, float(best[2:].mean()))
    outwards[seen] = best[2:]
    is_slope = is_bright and best is not plain[1]
    return outwards, math.exp(float(best[0])), math.exp(float(best[1])) if is_slope else math.nan


def _slope_fit(
    profiles: _Profiles,
    start: np.ndarray,
    most_place: np.ndarray,
    steep: float,
    is_bright: bool,
    is_known: bool = False,
) -> tuple[float, np.ndarray]:
    """Width and steepness of all slopes, the place of each, by damped Gauss-Newton steps; levels are eliminated."""
    sides = len(start)
    told = np.concatenate([[math.log(12.0), math.log(steep)], start])
    # a border is plain, or a slope as high as bodies are
    steeps = (steep, steep) if is_known or steep < _STEEP[0] else _STEEP
    low = np.concatenate([[math.log(2.0), math.log(steeps[0])], np.full(sides, -24.0)])
    high = np.concatenate([[math.log(60.0), math.log(steeps[1])], most_place])
    most = np.concatenate([[0.5, 0.6], np.full(sides, 3.0)])
    left = _left_over(profiles, told[0], told[1], told[2:], is_bright)
    square, damping = float(np.square(left).sum()), 1e-3
    for _ in range(20):
        slopes = [
            (_left_over(profiles, told[0] + 0.01, told[1], told[2:], is_bright) - left) / 0.01,
            (_left_over(profiles, told[0], told[1] + 0.02, told[2:], is_bright) - left) / 0.02,
            (_left_over(profiles, told[0], told[1], told[2:] + 0.05, is_bright) - left) / 0.05,
        ]
        normal, right = np.zeros((2 + sides, 2 + sides)), np.zeros(2 + sides)
        alone = range(2, 2 + sides)
        for i in range(2):
            right[i] = -(slopes[i] * left).sum()
            normal[i, 2:] = normal[2:, i] = (slopes[i] * slopes[2]).sum(axis=1)
            for j in range(2):
                normal[i, j] = (slopes[i] * slopes[j]).sum()
        normal[alone, alone] = np.square(slopes[2]).sum(axis=1)
        right[2:] = -(slopes[2] * left).sum(axis=1)
        move = np.linalg.solve(normal + np.diag(damping * np.diag(normal) + 1e-12), right)
        trial = np.clip(told + np.clip(move, -most, most), low, high)
        fresh = _left_over(profiles, trial[0], trial[1], trial[2:], is_bright)
        after = float(np.square(fresh).sum())
        if after < square:
            gain = 1.0 - after / max(square, 1e-30)
            told, left, square, damping = trial, fresh, after, max(damping / 4, 1e-7)
            if gain < 1e-4:
                break
        else:
            damping *= 8
            if damping > 1e5:
                break
    return square, told


@dataclass(frozen=True, slots=True, eq=False)
class _Profiles:
    """Profiles of some sides on one grid."""

    away: Float[np.ndarray, " j"]
    level: Float[np.ndarray, "n j"]
    """Of height 1, weighted"""
    weight: Float[np.ndarray, "n j"]


def _on_one_grid(profiles: list[Profile]) -> _Profiles:
    """Profiles at whole pixels; the board has patterns of its own, the body hardly any, so its side weighs more."""
    low = math.ceil(max(float(one.away_px[0]) for one in profiles))
    high = math.floor(min(float(one.away_px[-1]) for one in profiles))
    away = np.arange(low, high + 1, dtype=float)
    level, weight = np.empty((len(profiles), len(away))), np.empty((len(profiles), len(away)))
    for number, one in enumerate(profiles):
        height = float(np.ptp(one.level))
        seen = np.isfinite(one.spread)
        spread = np.interp(away, one.away_px[seen], one.spread[seen]) / height
        weight[number] = _UNEXPLAINED / np.hypot(_UNEXPLAINED, spread)
        level[number] = weight[number] * np.interp(away, one.away_px, one.level) / height
    return _Profiles(away, level, weight)


def _left_over(
    profiles: _Profiles, log_width: float, log_steep: float, places: Float[np.ndarray, " n"], is_bright: bool
) -> Float[np.ndarray, "n j"]:
    """What the best levels leave of the profiles of slopes at some places, with one width and steepness.

    A profile is a mean over a border that is rough and over a lens: both smooth it.
    """
    width = math.exp(log_width)
    sigma, half = math.hypot(_LENS_PX, _ROUGH * width), 6
    kernel = np.exp(-0.5 * np.square(np.arange(-half, half + 1) / sigma))
    kernel /= kernel.sum()
    wide = np.arange(profiles.away[0] - half, profiles.away[-1] + half + 1)
    cover = 1.0 / (1.0 + np.exp(np.clip(4.0 * (wide - places[:, np.newaxis]) / width, -40, 40)))
    steep = 4.0 * cover * (1.0 - cover) / width
    if is_bright:
        back = 1.0 / (1.0 + np.square(math.exp(log_steep) * steep))
        shapes = ((1.0 - cover) * back, cover * back)
    else:
        shapes = (1.0 - cover, steep)
    count = len(profiles.away)
    columns = np.ones((len(places), count, 3))
    for number, one in enumerate(shapes):
        smooth = kernel[half] * one[:, half : half + count]
        for k in range(1, half + 1):
            smooth += kernel[half + k] * (one[:, half + k : half + k + count] + one[:, half - k : half - k + count])
        columns[..., number] = smooth
    columns *= profiles.weight[..., np.newaxis]
    across = np.swapaxes(columns, 1, 2)
    held = np.linalg.solve(across @ columns + 1e-9 * np.eye(3), across @ profiles.level[..., np.newaxis])
    return profiles.level - (columns @ held)[..., 0]


def _half_way(profile: Profile) -> float:
    """Where a profile is half as bright as between its ends [px]"""
    level, away = profile.level, profile.away_px
    count = max(3, len(level) // 8)
    middle = 0.5 * (float(level[:count].mean()) + float(level[-count:].mean()))
    crossed = np.flatnonzero((level[:-1] - middle) * (level[1:] - middle) <= 0)
    return float(away[crossed[np.abs(away[crossed]).argmin()]]) if len(crossed) else 0.0
