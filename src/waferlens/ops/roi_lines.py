"""Straight lines through the pieces of borders, with intervals that know that neighbouring pieces err alike.

A border is rough, and what is beside it has texture: the displacements of its pieces are a white part and a part
that falls off exponentially along the border, both of unknown size. The restricted likelihood of each size and
length is computed on a grid, by a filter that runs once along the borders for all of them; the lines' intervals are
those of the mixture over the grid, each with Student's factor for the unknown variance.

Sources: restricted likelihood, H. D. Patterson, R. Thompson, "Recovery of inter-block information when block sizes
are unequal" (1971); the filter, R. E. Kalman, "A new approach to linear filtering and prediction problems" (1960).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import stdtr, stdtrit

from waferlens.ops.border_lines import LEAST_PIECES, Pieces, middle_of, near_pieces

_LENGTHS_PX = (10.0, 16.0, 25.0, 40.0, 63.0, 100.0)  # correlation lengths that are tried
_SHARES = (0.0, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95, 0.99)  # of the correlated part in the variance


@dataclass(frozen=True, slots=True, eq=False)
class FittedLines:
    """Borders of one rectangle, or a single one: an offset each, and one turn of all."""

    offset_px: Float[np.ndarray, " n"]
    """Outwards at the middle of each border [px]"""
    turn_rad: float
    """Counter-clockwise as seen [rad]"""
    offset_sigma_px: Float[np.ndarray, " n"]
    """Standard deviations [px]"""
    turn_sigma_rad: float
    """Standard deviation of the turn [rad]"""
    freedom: float
    """Degrees of freedom of Student's distribution that has its spread and its 90 % interval"""
    rough_px: float
    """Standard deviation of the part that neighbouring pieces share [px]"""
    white_px: float
    """Standard deviation of the rest, of a piece [px]"""
    length_px: float
    """Correlation length of the shared part [px]"""
    used: tuple[Bool[np.ndarray, " m"], ...]
    """Which pieces were used"""
    own_turn_rad: Float[np.ndarray, " n"]
    """What each border by itself says of the turn, beyond that of all [rad]"""
    own_sigma_rad: Float[np.ndarray, " n"]
    """Its standard deviation [rad]"""


def fit_lines(sides: list[Pieces]) -> FittedLines | None:
    """The offsets of borders and the turn they share, from the displacements of their pieces; None where too few fit.

    Args:
        sides: the borders; all of one rectangle. One without pieces keeps its place.
    """
    used = [keep if keep.sum() >= LEAST_PIECES else np.zeros_like(keep) for keep in near_pieces(sides)]
    if sum(keep.any() for keep in used) < min(len(sides), 2):
        return None
    step = float(np.diff(sides[0].along_px).mean())
    most = max(len(side.along_px) for side in sides)
    n = len(sides)
    y, s, r = np.zeros((n, most)), np.zeros((n, most)), np.full((n, most), np.inf)
    for i, (side, keep) in enumerate(zip(sides, used, strict=True)):
        m = len(keep)
        y[i, :m], s[i, :m] = side.moved_px, side.along_px
        relative = middle_of(side.weight[keep]) / np.maximum(side.weight, 1e-300) if keep.any() else np.ones(m)
        r[i, :m] = np.where(keep, np.clip(relative, 0.2, 25.0), np.inf)
    white = _whitened(np.stack([y, np.where(np.isfinite(r), 1.0, 0.0), s]), r, step)
    return _mixture(white, used, step, n)


@dataclass(frozen=True, slots=True, eq=False)
class _White:
    """Of each model of the grid and each side: sums of products of the whitened columns, and the log determinant."""

    products: Float[np.ndarray, "g n 3 3"]
    log_det: Float[np.ndarray, "g n"]
    lengths: Float[np.ndarray, " g"]
    shares: Float[np.ndarray, " g"]


def _whitened(columns: Float[np.ndarray, "3 n m"], relative: Float[np.ndarray, "n m"], step: float) -> _White:
    """Runs the filter along all sides for all models at once; what is not used has an infinite relative variance."""
    lengths, shares = (one.ravel() for one in np.meshgrid(_LENGTHS_PX, _SHARES, indexing="ij"))
    keep = (shares > 0) | (lengths == _LENGTHS_PX[0])  # without a correlated part all lengths are one model
    lengths, shares = lengths[keep], shares[keep]
    decay = np.exp(-step / lengths)[:, np.newaxis]
    rough, plain = shares[:, np.newaxis], 1.0 - shares[:, np.newaxis] + 1e-6
    g, (_, n, m) = len(lengths), columns.shape
    state = np.zeros((3, g, n))
    variance = np.broadcast_to(rough, (g, n)).copy()
    products, log_det = np.zeros((g, n, 3, 3)), np.zeros((g, n))
    known = np.isfinite(relative)
    scale = np.where(known, relative, 1.0)
    white = np.empty((m, 3, g, n))
    for k in range(m):
        total = variance + plain * scale[:, k]
        here = known[:, k]
        left = columns[:, np.newaxis, :, k] - state
        white[k] = np.where(here, left / np.sqrt(total), 0.0)
        log_det += np.where(here, np.log(total), 0.0)
        gain = np.where(here, variance / total, 0.0)
        state = (state + gain * left) * decay
        variance = (variance * (1.0 - gain)) * decay**2 + rough * (1.0 - decay**2)
    products = np.einsum("kign,kjgn->gnij", white, white)
    return _White(products, log_det, lengths, shares)


def _mixture(white: _White, used: list[np.ndarray], step: float, n: int) -> FittedLines:
    """Offsets and turn of each model, weighted by its restricted likelihood."""
    p = white.products
    yy, y1, ys, one, os_, ss = p[..., 0, 0], p[..., 0, 1], p[..., 0, 2], p[..., 1, 1], p[..., 1, 2], p[..., 2, 2]
    seen = np.array([keep.any() for keep in used])
    one = np.where(seen, one, 1.0)
    left_yy, left_ys, left_ss = yy - y1**2 / one, ys - y1 * os_ / one, np.where(seen, ss - os_**2 / one, 1e-12)
    information = left_ss.sum(axis=1)
    turn = left_ys.sum(axis=1) / information
    points = int(sum(keep.sum() for keep in used))
    freedom = points - int(seen.sum()) - 1
    square = np.maximum((left_yy.sum(axis=1) - turn * left_ys.sum(axis=1)) / freedom, 1e-30)
    # one model is white: beforehand it is taken to be as likely as all lengths of another share together
    log = np.where(white.shares == 0, math.log(len(_LENGTHS_PX)), 0.0) - 0.5 * (
        freedom * np.log(square) + white.log_det.sum(axis=1) + np.log(one).sum(axis=1) + np.log(information)
    )
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    best = float((weight * turn).sum())
    spread = square / information
    variance = float((weight * (spread + (turn - best) ** 2)).sum())
    high = _quantile(0.95, turn, np.sqrt(spread), weight, freedom)
    low = _quantile(0.05, turn, np.sqrt(spread), weight, freedom)
    each = (y1 - turn[:, np.newaxis] * os_) / one
    offset = (weight[:, np.newaxis] * each).sum(axis=0)
    offset_variance = square[:, np.newaxis] * (1 / one + (os_ / one) ** 2 / information[:, np.newaxis])
    offset_sigma = np.sqrt((weight[:, np.newaxis] * (offset_variance + (each - offset) ** 2)).sum(axis=0))
    own = left_ys / left_ss - turn[:, np.newaxis]
    rough = float((weight * square * white.shares).sum())
    return FittedLines(
        np.where(seen, offset, 0.0),
        best,
        np.where(seen, offset_sigma, np.inf),
        math.sqrt(variance),
        _freedom_of(0.5 * (high - low) / math.sqrt(variance)),
        math.sqrt(rough),
        math.sqrt(float((weight * square * (1 - white.shares)).sum())),
        float((weight * white.lengths).sum()),
        tuple(used),
        np.where(seen, (weight[:, np.newaxis] * own).sum(axis=0), 0.0),
        np.sqrt((weight[:, np.newaxis] * square[:, np.newaxis] / left_ss).sum(axis=0)),
    )


def _quantile(share: float, centre: np.ndarray, sigma: np.ndarray, weight: np.ndarray, freedom: float) -> float:
    """Quantile of a mixture of Student distributions, by bisection."""
    reach = 40 * float(sigma.max())
    low, high = float(centre.min()) - reach, float(centre.max()) + reach
    for _ in range(60):
        middle = 0.5 * (low + high)
        if float((weight * stdtr(freedom, (middle - centre) / sigma)).sum()) < share:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


_FREEDOMS = np.concatenate([np.arange(3.0, 30.0), [40.0, 60.0, 100.0, 200.0, 1000.0]])
_FACTORS = stdtrit(_FREEDOMS, 0.95) / np.sqrt(_FREEDOMS / (_FREEDOMS - 2.0))


def _freedom_of(factor: float) -> float:
    """Degrees of freedom whose 90 % interval is so many standard deviations to either side, or the nearest."""
    return float(_FREEDOMS[np.abs(_FACTORS - factor).argmin()])
