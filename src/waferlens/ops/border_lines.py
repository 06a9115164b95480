"""Straight borders in an image, to a small fraction of a pixel: where they run, and how sure that is.

A border need not look like anything in particular: dark to bright, a ridge of light, an edge with a rim. What it
looks like is taken from the image itself. All pixels of a band along the border, each at its exact distance from the
line, give the mean profile T, finer than the pixels because the line crosses them at all phases. A short piece of
the border that is moved outwards by e then shows

    a + b T(d - e) = a + b T(d) - b e T'(d)

with a brightness a and a contrast b of its own, so one linear fit a piece gives e. Distances are weighted by what the
pieces leave of the profile there: patterns beside the border, which are not the border's own, count little.

Pieces that lie far off, where a wire crosses or a corner is chipped away, are left out. How the lines through the
others are fitted, `roi_lines` tells. numba is imported with this file.

Sources: the slanted edge, ISO 12233; weights against a covariance that is learned, I. S. Reed, J. D. Mallett, L. E.
Brennan, "Rapid convergence rate in adaptive arrays" (1974).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from waferlens.ops.roi_kernels import bin_sums, left_squares, piece_sums, strip_sums

PIECE_PX = 8.0
"""Length of the pieces a border is cut into [px]"""
_BIN_PX = 0.25  # of the mean profile
_FAR = 4.5  # robust standard deviations from the line, beyond which a piece is left out
LEAST_PIECES = 6
_LEAST_SHARE = 0.6  # of the pixels of the fullest piece: others are cut by the image
_DIAGONAL = 0.5
_STRANGE = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """Pixels along a line: in every row across it those nearest to it."""

    values: np.ndarray
    """`n k c`, rows along the line, pixels across it [grey]"""
    away: Float[np.ndarray, "n k"]
    """Distance of each from the line, positive to the left of the way in axes with y down: outwards of a quad that is
    told clockwise [px]"""
    along: Float[np.ndarray, "n k"]
    """Distance along the line from its middle [px]"""
    inside: Bool[np.ndarray, "n k"]
    """Whether the pixel is in the image and within the band"""


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """The mean profile across a border."""

    away_px: Float[np.ndarray, " j"]
    """Distances, equally spaced [px]"""
    level: Float[np.ndarray, " j"]
    """[light]"""
    slope: Float[np.ndarray, " j"]
    """[light/px]"""
    spread: Float[np.ndarray, " j"]
    """Standard deviation of single pixels about what their piece makes of the profile [light]"""


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """How far each piece of a border is from its line."""

    along_px: Float[np.ndarray, " m"]
    """[px]"""
    moved_px: Float[np.ndarray, " m"]
    """Outwards [px]"""
    weight: Float[np.ndarray, " m"]
    """Its information on the displacement, from the noise of its pixels; 0 where it tells nothing [1/px²]"""
    contrast: Float[np.ndarray, " m"]
    """Its share of the profile's contrast"""
    profile: Profile
    left: Float[np.ndarray, "m j"] | None = None
    """What each piece differs from the profile, means over pixel-wide strips along the border; NaN where there is none
    [light]"""
    steep: Float[np.ndarray, "m j"] | None = None
    """What a move outwards by a pixel would add there [light/px]"""


def sample_band(
    image: np.ndarray,
    start: tuple[float, float] | np.ndarray,
    stop: tuple[float, float] | np.ndarray,
    half_px: float,
    half_in_px: float | None = None,
    every: int = 1,
) -> Band:
    """The pixels along a line from one point to another; none is interpolated.

    Args:
        image: `h w` or `h w c`.
        start: x, y of its beginning [px]
        stop: of its end [px]
        half_px: how far the band reaches outwards, to the left of the way [px]
        half_in_px: how far it reaches inwards; as far if None [px]
        every: take every so manieth row.
    """
    planes = image if image.ndim == 3 else image[..., np.newaxis]
    h, w = planes.shape[:2]
    (x0, y0), (x1, y1) = (float(start[0]), float(start[1])), (float(stop[0]), float(stop[1]))
    length = math.hypot(x1 - x0, y1 - y0)
    tx, ty = (x1 - x0) / length, (y1 - y0) / length
    inner = half_px if half_in_px is None else half_in_px
    steep = abs(ty) >= abs(tx)
    # rows of the band run along the axis that is nearer to the line's normal
    low, high = sorted((y0, y1) if steep else (x0, x1))
    major = np.arange(math.ceil(low), math.floor(high) + 1, every)
    ratio = tx / ty if steep else ty / tx
    minor = (x0 + (major - y0) * ratio) if steep else (y0 + (major - x0) * ratio)
    reach = math.ceil(max(half_px, inner) * math.hypot(1.0, ratio)) + 1
    centre = np.rint(minor).astype(np.intp)
    other = centre[:, np.newaxis] + np.arange(-reach, reach + 1)
    x, y = (other, major[:, np.newaxis]) if steep else (major[:, np.newaxis], other)
    dx, dy = x - 0.5 * (x0 + x1), y - 0.5 * (y0 + y1)
    away = dx * ty - dy * tx
    along = dx * tx + dy * ty
    inside = (away <= half_px) & (away >= -inner) & (other >= 0) & (other < (w if steep else h))
    inside &= ((major >= 0) & (major < (h if steep else w)))[:, np.newaxis]
    values = planes[np.clip(y, 0, h - 1), np.clip(x, 0, w - 1)]
    return Band(values, away, along, inside)


def collapse(band: Band, table: Float[np.ndarray, "g"] | None) -> Float[np.ndarray, "n k"]:
    """One value a pixel: the colours added so that what changes across the border stands out best from the noise.

    Args:
        band: the pixels.
        table: light of each grey, for images of whole numbers; None leaves them as they are.
    """
    if not band.inside.any():
        return np.zeros(band.away.shape, np.float32)
    light = band.values if table is None else table[band.values]
    light = light.astype(np.float32, copy=False)
    if light.shape[2] == 1:
        return light[..., 0]
    weights = np.empty(light.shape[2], np.float32)
    for channel in range(light.shape[2]):
        plane = light[..., channel]
        level, _ = _binned(plane, band.away, band.inside)
        change = float(np.abs(np.diff(level)).sum())
        rough = np.diff(plane, axis=0)[band.inside[1:] & band.inside[:-1]]
        weights[channel] = change / max(float(np.square(rough).mean()), 1e-20)
    return light @ (weights / max(float(weights.sum()), 1e-30))


def measure_pieces(
    light: Float[np.ndarray, "n k"],
    band: Band,
    half_length_px: float,
    piece_px: float = PIECE_PX,
    strip_px: float | None = None,
    knot_px: float = 1.0,
    rounds: int = 2,
) -> Pieces | None:
    """How far each piece of a border lies off its line; None where there are too few.

    Args:
        light: of the band's pixels [light]
        band: where they are.
        half_length_px: half of the line's length [px]
        piece_px: length of a piece [px]
        strip_px: width of the strips in which a piece is told for `match_pieces`; None tells it in none [px]
        knot_px: distance of the knots of the mean profile; half of a border's width at most [px]
        rounds: 1 weighs all distances alike, 2 by what the first round leaves of them.
    """
    count = int(2 * half_length_px // piece_px)
    if count < LEAST_PIECES or len(light) < 2 * LEAST_PIECES:
        return None
    number = np.floor((band.along + half_length_px) * (count / (2 * half_length_px))).astype(np.intp)
    keep = band.inside & (number >= 0) & (number < count)
    held = np.bincount(number[keep], minlength=count)
    whole = held >= _LEAST_SHARE * held.max() if keep.any() else np.zeros(count, bool)
    if whole.sum() < LEAST_PIECES:
        return None
    keep &= whole[np.clip(number, 0, count - 1)]
    away, value, number = band.away[keep], light[keep].astype(np.float64), number[keep]
    level, slope, places = _profile(value, away, number, count, knot_px)
    low, step = float(places[0]), float(places[1] - places[0])
    weight = np.ones(len(places))
    for _ in range(rounds):
        normal, right = piece_sums(number, away, value, weight, level, slope, low, step, count)
        scale = np.sqrt(np.maximum(normal[:, range(3), range(3)], 1e-300))
        scale[~whole] = 1.0
        scaled = normal / (scale[:, :, None] * scale[:, None, :]) + 1e-9 * np.eye(3)
        scaled[~whole] = np.eye(3)
        inverse = np.linalg.inv(scaled) / (scale[:, :, None] * scale[:, None, :])
        solved = np.einsum("mij,mj->mi", inverse, right)
        square, many = left_squares(number, away, value, solved, level, slope, low, step)
        some = many > 0
        variance = square / np.maximum(many, 1)
        variance = np.maximum(variance, 0.02 * middle_of(variance[some]) + 1e-30)
        weight = np.where(some, 1.0 / variance, 0.0)
    information = 1.0 / inverse[:, 2, 2]
    spread = np.sqrt(np.where(some, variance, np.inf))
    if rounds == 1:
        information = information / middle_of(variance[some])  # its weights were all 1
    gain = solved[:, 1]
    middle = middle_of(gain[whole])
    plain = whole & np.isfinite(gain) & (gain > 0.2 * middle) & (middle > 0)
    moved = np.where(plain, solved[:, 2] / np.where(plain, gain, 1.0), 0.0)
    weight = np.where(plain, information * np.square(gain), 0.0)
    centre = (np.arange(count) + 0.5) * (2 * half_length_px / count) - half_length_px
    profile = Profile(places, level, slope, spread)
    if strip_px is None:
        return Pieces(centre, moved, weight, gain, profile)
    first, last = float(away.min()), float(away.max())
    strips = max(3, int((last - first) / strip_px))
    held, left, drop = strip_sums(
        number, away, value, level, slope, low, step, count, first, (last - first) / strips, strips
    )
    held[held == 0] = np.nan
    return Pieces(centre, moved, weight, gain, profile, left / held, drop / held)


def no_pieces(half_length_px: float, piece_px: float = PIECE_PX) -> Pieces:
    """The pieces of a border that cannot be seen."""
    count = max(1, int(2 * half_length_px // piece_px))
    nothing, empty = np.zeros(count), np.empty((count, 0))
    centre = (np.arange(count) + 0.5) * (2 * half_length_px / count) - half_length_px
    blank = Profile(np.array([-1.0, 0.0, 1.0]), np.zeros(3), np.zeros(3), np.ones(3))
    return Pieces(centre, nothing, nothing, nothing, blank, empty, empty)


def match_pieces(sides: list[Pieces]) -> list[Pieces]:
    """The displacements again, each piece weighed against the covariance that all pieces show across the border.

    What varies along a border beside its place, such as the light on either side, the width of a seam, the grain of a
    surface, is a direction in the space of profiles; the covariance knows them all, and the weights turn away from
    them (I. S. Reed, J. D. Mallett, L. E. Brennan 1974).

    Args:
        sides: borders of one kind.
    """
    if len({side.left.shape[1] for side in sides if side.weight.any()}) != 1:
        return sides  # cut by the image, their profiles are not alike
    clear = [keep & np.isfinite(side.left).all(axis=1) for side, keep in zip(sides, near_pieces(sides), strict=True)]
    inverses: list[np.ndarray | None] = []
    for _ in range(2):
        inverses = [
            _inverse([n for n in range(len(sides)) if n != own] or [own], sides, clear) for own in range(len(sides))
        ]
        if any(one is None for one in inverses):
            return sides
        clear = [_alike(side, inverse, keep) for side, inverse, keep in zip(sides, inverses, clear, strict=True)]
    out = []
    for side, inverse, keep in zip(sides, inverses, clear, strict=True):
        if not side.weight.any():
            out.append(side)
            continue
        left, steep = (np.where(keep[:, np.newaxis], one, 0.0) for one in (side.left, side.steep))
        turned = steep @ inverse
        information = (turned * steep).sum(axis=1)
        moved = np.where(information > 0, (turned * left).sum(axis=1) / np.maximum(information, 1e-300), 0.0)
        out.append(replace(side, moved_px=moved, weight=np.where(keep, information, 0.0)))
    return out


def _inverse(others: list[int], sides: list[Pieces], clear: list[np.ndarray]) -> Float[np.ndarray, "j j"] | None:
    """Inverse covariance across the border of the pieces of some sides; None of too few."""
    sample = np.concatenate([sides[n].left[clear[n]] for n in others if sides[n].weight.any()])
    count, strips = sample.shape
    if count < 2 * strips:
        return None
    covariance = sample.T @ sample / count
    diagonal = np.diag(covariance)
    # of few pieces the covariance is uncertain; a share of its diagonal keeps it from promising too much
    covariance = covariance + np.diag(diagonal) * (_DIAGONAL * strips / count) + np.eye(strips) * 1e-6 * diagonal.mean()
    return np.linalg.inv(covariance)


def _alike(side: Pieces, inverse: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Pieces that are no stranger than others of their side."""
    if not side.weight.any():
        return keep
    left = np.nan_to_num(side.left)
    strange = np.einsum("mi,ij,mj->m", left, inverse, left)
    usual = max(left.shape[1], middle_of(strange[keep])) if keep.any() else math.inf
    return np.isfinite(side.left).all(axis=1) & (strange < _STRANGE * usual)


def _binned(
    plane: Float[np.ndarray, "n k"], away: np.ndarray, inside: np.ndarray
) -> tuple[Float[np.ndarray, " j"], Float[np.ndarray, " j"]]:
    """Means over distance in bins of a pixel."""
    place = np.rint(away[inside]).astype(np.intp)
    place -= place.min()
    held = np.bincount(place)
    return np.bincount(place, plane[inside])[held > 0] / held[held > 0], held


def _profile(
    value: Float[np.ndarray, " n"], away: Float[np.ndarray, " n"], number: np.ndarray, count: int, knot_px: float
) -> tuple[Float[np.ndarray, " j"], Float[np.ndarray, " j"], Float[np.ndarray, " j"]]:
    """The mean profile: of each bin the middle half of the stretches, so that what crosses the border counts little."""
    low = math.floor(away.min() / _BIN_PX) * _BIN_PX
    bins = math.ceil((away.max() - low) / _BIN_PX) + 1
    # stretches; each is averaged in itself, and the middle ones of each bin are taken
    stretches = min(12, count)
    held, total, where = bin_sums(number, away, value, count, stretches, low, _BIN_PX, bins)
    some = held > 0
    order = np.sort(np.where(some, total / np.maximum(held, 1), np.nan), axis=0)  # NaN last
    known = some.sum(axis=0)
    cut = known // 4
    rank = np.arange(stretches)[:, np.newaxis]
    chosen = (rank >= cut) & (rank < known - cut)
    level = np.where(chosen, order, 0.0).sum(axis=0) / np.maximum(chosen.sum(axis=0), 1)
    some = held.sum(axis=0) > 0
    weight = held.sum(axis=0)[some]
    where = where[some] / weight
    places = low + _BIN_PX * np.arange(bins + 1)
    return (*_spline(where, level[some], weight, places, knot_px), places)


def _spline(
    where: Float[np.ndarray, " n"],
    value: Float[np.ndarray, " n"],
    weight: Float[np.ndarray, " n"],
    places: Float[np.ndarray, " j"],
    knot_px: float,
) -> tuple[Float[np.ndarray, " j"], Float[np.ndarray, " j"]]:
    """Values and slopes of the cubic spline nearest to some points.

    Its knots are no nearer than pixels. Along an axis of the image all pixels of a piece lie at the same distances but
    for whole pixels, and where the phase drifts slowly along the border, a finer profile would take the drift of the
    line for its own shape and hide it.
    """
    count = max(2, math.ceil((places[-1] - places[0]) / knot_px))
    step = (places[-1] - places[0]) / count
    normal, right = np.zeros((count + 3, count + 3)), np.zeros(count + 3)
    first, shares, _ = _shares((where - places[0]) / step, count)
    for i in range(4):
        np.add.at(right, first + i, weight * shares[i] * value)
        for j in range(4):
            np.add.at(normal, (first + i, first + j), weight * shares[i] * shares[j])
    third = np.diff(np.eye(count + 3), 3, axis=0)  # where points are few, curvature changes as little as can be
    normal += 1e-4 * float(np.trace(normal)) / (count + 3) * (third.T @ third) + 1e-12 * np.eye(count + 3)
    held = np.linalg.solve(normal, right)
    first, shares, slopes = _shares((places - places[0]) / step, count)
    level = sum(shares[i] * held[first + i] for i in range(4))
    slope = sum(slopes[i] * held[first + i] for i in range(4)) / step
    return level, slope  # type: ignore[return-value]


def _shares(
    at: Float[np.ndarray, " n"], count: int
) -> tuple[np.ndarray, tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """The four cubic B-splines at each place with their slopes, and the number of the first."""
    first = np.clip(at.astype(np.intp), 0, count - 1)
    t = at - first
    back = 1.0 - t
    values = (back**3 / 6, (4 - 6 * t**2 + 3 * t**3) / 6, (4 - 6 * back**2 + 3 * back**3) / 6, t**3 / 6)
    slopes = (-(back**2) / 2, (-12 * t + 9 * t**2) / 6, (12 * back - 9 * back**2) / 6, t**2 / 2)
    return first, values, slopes


def robust_lines(sides: list[Pieces]) -> tuple[Float[np.ndarray, " n"], float]:
    """Offsets of borders and the turn they share, by medians: for bringing lines near, without a word on how sure.

    Args:
        sides: the borders; all of one rectangle.
    """
    turns, weights, offsets = [], [], np.zeros(len(sides))
    for number, (side, keep) in enumerate(zip(sides, near_pieces(sides), strict=True)):
        if keep.sum() < LEAST_PIECES:
            continue
        x, y = side.along_px[keep], side.moved_px[keep]
        slope = median_slope(x, y)
        offsets[number] = middle_of(y - slope * x)
        spread = middle_of(np.abs(y - slope * x - offsets[number])) + 0.02
        turns.append(slope)
        weights.append(len(x) * float(np.ptp(x)) ** 2 / spread**2)
    if not turns:
        return offsets, 0.0
    order = np.argsort(turns)
    share = np.cumsum(np.array(weights)[order]) / sum(weights)
    return offsets, float(np.array(turns)[order][np.searchsorted(share, 0.5)])


def near_pieces(sides: list[Pieces]) -> list[np.ndarray]:
    """Which pieces lie near their own robust line: slopes by medians, spread by the median deviation."""
    used = []
    for side in sides:
        keep = side.weight > 0
        for _ in range(3):
            if keep.sum() < LEAST_PIECES:
                break
            x, y = side.along_px[keep], side.moved_px[keep]
            slope = median_slope(x, y)
            left = side.moved_px - slope * side.along_px
            left = left - middle_of(left[keep])
            sigma = 1.4826 * middle_of(np.abs(left[keep])) + 1e-4
            # noise of the pixels alone may explain a faint piece
            allowed = _FAR * np.sqrt(sigma**2 + np.where(side.weight > 0, 1.0 / np.maximum(side.weight, 1e-12), 0.0))
            fresh = (side.weight > 0) & (np.abs(left) <= allowed)
            if (fresh == keep).all():
                break
            keep = fresh
        used.append(keep)
    return used


def middle_of(values: Float[np.ndarray, " n"]) -> float:
    """The median; of few numbers sorting is faster than NumPy's own."""
    order = np.sort(values, axis=None)
    half = len(order) // 2
    return float(order[half]) if len(order) % 2 else 0.5 * float(order[half - 1] + order[half])


def median_slope(x: np.ndarray, y: np.ndarray) -> float:
    """Median of the slopes between points half of the line apart: robust, and none is short."""
    half = len(x) // 2
    return middle_of((y[half:] - y[: len(y) - half]) / (x[half:] - x[: len(x) - half]))
