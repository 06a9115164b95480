"""Curves of a decision: overkill and escape over the threshold, and the probability of detection over what is detected.

Overkill is the share of good images that alarm, escape the share of defective ones that do not. The probability of
detection (POD) of a defect follows the log-odds model of MIL-HDBK-1823A,

    log(p / (1 - p)) = b0 + b1 x1 + b2 x2 ...,        x = log of the size, of the contrast, or of both,

fitted to hits and misses. `a90` is the size that is found nine times of ten; `a90/95` is larger than the true a90 with
95 % confidence, by the likelihood ratio, which needs no symmetric errors.

Sources: MIL-HDBK-1823A (2009), appendix G.3 (hit/miss data, likelihood-ratio bounds); Cheng & Iles, Technometrics 25
(1983) 77; Clopper & Pearson, Biometrika 26 (1934) 404; Wilson, J. Am. Stat. Assoc. 22 (1927) 209.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import betaincinv, expit, log_expit, ndtri

from waferlens.errors import UsageError


def clopper_pearson(
    count: Int[np.ndarray, "*n"] | int, total: Int[np.ndarray, "*n"] | int, level: float = 0.95
) -> tuple[Float[np.ndarray, "*n"], Float[np.ndarray, "*n"]]:
    """The exact interval of a share: covers with at least `level`, whatever the share; 0 to 1 without any case."""
    count, total = np.asarray(count, np.float64), np.asarray(total, np.float64)
    tail = (1 - level) / 2
    # where a parameter would be 0 the end is known; 1 there only keeps the function quiet
    low = betaincinv(np.maximum(count, 1), total - count + 1, tail)
    high = betaincinv(count + 1, np.maximum(total - count, 1), 1 - tail)
    return np.where(count > 0, low, 0.0), np.where(count < total, high, 1.0)


def wilson(
    count: Int[np.ndarray, "*n"] | int, total: Int[np.ndarray, "*n"] | int, level: float = 0.95
) -> tuple[Float[np.ndarray, "*n"], Float[np.ndarray, "*n"]]:
    """The score interval of a share: covers with `level` on average; 0 to 1 without any case."""
    count, total = np.asarray(count, np.float64), np.asarray(total, np.float64)
    z = ndtri((1 + level) / 2)
    some = np.maximum(total, 1.0)
    share = count / some
    middle = (share + z**2 / (2 * some)) / (1 + z**2 / some)
    half = z / (1 + z**2 / some) * np.sqrt(share * (1 - share) / some + z**2 / (4 * some**2))
    # at the ends the formula gives 0 and 1 but for rounding
    low = np.where(count > 0, middle - half, 0.0)
    high = np.where(count < total, middle + half, 1.0)
    return low, np.where(total > 0, high, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class OverkillEscape:
    """Overkill and escape at every threshold that makes a difference; an image alarms above the threshold."""

    threshold: Float[np.ndarray, " n"]
    """Rising; the first is minus infinity, where everything alarms."""
    overkill: Float[np.ndarray, " n"]
    """Share of good images that alarm: falls."""
    escape: Float[np.ndarray, " n"]
    """Share of defective images that do not: rises."""
    good: int
    bad: int

    def at(self, threshold: float) -> tuple[float, float]:
        """Overkill and escape at any threshold."""
        place = int(np.searchsorted(self.threshold, threshold, side="right")) - 1
        return float(self.overkill[place]), float(self.escape[place])

    def for_overkill(self, most: float) -> tuple[float, float, float]:
        """The lowest threshold with at most this overkill, and both shares there.

        These images set the threshold, so its overkill on others is not promised; `ops.conformal` promises one.
        """
        place = int(np.argmax(self.overkill <= most))
        return float(self.threshold[place]), float(self.overkill[place]), float(self.escape[place])

    def separation(self) -> float:
        """Chance that a defective image scores above a good one, ties counted half: the area under the curve."""
        found = 1 - self.escape
        return float(np.sum(-np.diff(self.overkill) * (found[1:] + found[:-1]) / 2))


def overkill_escape(good: Float[np.ndarray, " n"], bad: Float[np.ndarray, " m"]) -> OverkillEscape:
    """The curve, from the scores of images that are known to be good and of images that are known not to be.

    Raises:
        UsageError: there are no images of one of the kinds, or a score is NaN.
    """
    good, bad = np.sort(np.asarray(good, np.float64)), np.sort(np.asarray(bad, np.float64))
    if not (len(good) and len(bad)):
        raise UsageError(f"an overkill / escape curve needs good and defective images, got {len(good)} and {len(bad)}")
    if np.isnan(good).any() or np.isnan(bad).any():
        raise UsageError("a score is NaN; leave that image out, or give it infinity if it alarms")
    threshold = np.unique(np.concatenate([[-np.inf], good, bad]))
    overkill = 1 - np.searchsorted(good, threshold, side="right") / len(good)
    escape = np.searchsorted(bad, threshold, side="right") / len(bad)
    return OverkillEscape(threshold, overkill, escape, len(good), len(bad))


@dataclass(frozen=True, slots=True, eq=False)
class BinnedPod:
    """Shares found in bins, over one variable or over several."""

    edges: dict[str, Float[np.ndarray, " e"]]
    """Edges of the bins by variable; a bin holds its lower edge, the last one both."""
    hits: Int[np.ndarray, "*n"]
    total: Int[np.ndarray, "*n"]
    share: Float[np.ndarray, "*n"]
    """NaN where a bin is empty."""
    low: Float[np.ndarray, "*n"]
    high: Float[np.ndarray, "*n"]


def binned_pod(
    variables: Mapping[str, Float[np.ndarray, " n"]],
    hit: Bool[np.ndarray, " n"],
    edges: Mapping[str, Sequence[float]],
    *,
    level: float = 0.95,
    interval: Literal["wilson", "clopper-pearson"] = "wilson",
) -> BinnedPod:
    """Shares found without any model.

    Args:
        variables: One number a defect, by name: size, contrast.
        hit: Whether it was found.
        edges: Of the bins, by variable; defects outside are left out.
        level: Coverage of the intervals, each for itself.
        interval: `wilson` is near its level on average, `clopper-pearson` never below it.
    """
    known = _checked(variables, hit)
    points = np.column_stack(list(known.values()))
    bins = {name: np.asarray(edges[name], np.float64) for name in known}
    total = np.histogramdd(points, list(bins.values()))[0].astype(np.int64)
    hits = np.histogramdd(points[np.asarray(hit, bool)], list(bins.values()))[0].astype(np.int64)
    low, high = (wilson if interval == "wilson" else clopper_pearson)(hits, total, level)
    share = np.divide(hits, total, out=np.full(total.shape, np.nan), where=total > 0)
    return BinnedPod(bins, hits, total, share, low, high)


@dataclass(frozen=True, slots=True, eq=False)
class Pod:
    """A fitted log-odds model of hits and misses."""

    names: tuple[str, ...]
    coefficients: Float[np.ndarray, " k"]
    """Of 1, then of each variable (of its logarithm, where `logarithmic`)."""
    covariance: Float[np.ndarray, "k k"]
    log_likelihood: float
    logarithmic: bool
    x: Float[np.ndarray, "n k"]
    """The design: ones, then the variables."""
    hit: Float[np.ndarray, " n"]

    def share(
        self, level: float = 0.95, **values: float | Float[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, "*n"], Float[np.ndarray, "*n"], Float[np.ndarray, "*n"]]:
        """Probability of detection with its interval (normal on the log-odds), for values of all variables."""
        x = self._design(values)
        odds = x @ self.coefficients
        half = ndtri((1 + level) / 2) * np.sqrt(np.einsum("...i,ij,...j->...", x, self.covariance, x))
        return expit(odds), expit(odds - half), expit(odds + half)

    def reach(self, name: str, share: float = 0.9, confidence: float = 0.95, **others: float) -> tuple[float, float]:
        """The value of a variable at which a share is found, and the bound that is beyond the true one.

        Args:
            name: the variable, as `size`: a90 and a90/95 of it.
            share: probability of detection.
            confidence: with which the bound holds, on one side.
            others: values of the other variables.

        Returns:
            The value and its bound: larger than the value where detection rises with the variable, smaller where it
            falls. NaN where detection does not depend on it; the bound is infinite (or 0, or minus infinity) where the
            data cannot tell at this confidence that detection ever gets so good.
        """
        if set(others) | {name} != set(self.names):
            raise UsageError(f"reach of {name} needs values of all others of {', '.join(self.names)}")
        place = 1 + self.names.index(name)
        base = self._design({**others, name: 1.0})
        base[place] = 0.0
        slope = self.coefficients[place]
        if slope == 0:
            return math.nan, math.nan
        logit = math.log(share / (1 - share))
        middle = (logit - base @ self.coefficients) / slope
        way = math.copysign(1.0, slope)
        allowed = ndtri(confidence) ** 2 if confidence > 0.5 else 0.0

        def lost(x: float) -> float:
            """Twice the likelihood that is lost if detection has to be `share` at x."""
            point = base.copy()
            point[place] = x
            # seen from the point, the intercept is the log-odds there: a given number
            moved = self.x[:, 1:] - point[1:]
            return 2 * (self.log_likelihood - _fit(moved, self.hit, logit)[2])

        if not allowed:
            return self._back(middle), self._back(middle)
        # ever further away, the odds have to be level: what is left of the likelihood without the variable
        if 2 * (self.log_likelihood - _fit(np.delete(self.x, place, axis=1), self.hit, 0.0)[2]) <= allowed:
            return self._back(middle), self._back(way * math.inf)
        from scipy.optimize import brentq

        there = base.copy()
        there[place] = middle
        step = math.sqrt(float(there @ self.covariance @ there)) / abs(slope)  # one standard deviation, as a start
        near, far = middle, middle + way * step
        while lost(far) < allowed:
            near, step = far, 2 * step
            far = middle + way * step
            if not step < 1e9:  # hardly told from level
                return self._back(middle), self._back(way * math.inf)
        edge = brentq(lambda x: lost(x) - allowed, near, far, xtol=1e-9 * max(1.0, abs(far)))
        return self._back(middle), self._back(float(edge))

    def _back(self, x: float) -> float:
        if not self.logarithmic:
            return float(x)
        return math.exp(x) if x < 700 else math.inf

    def _design(self, values: Mapping[str, float | Float[np.ndarray, " n"]]) -> Float[np.ndarray, "*n k"]:
        if set(values) != set(self.names):
            raise UsageError(f"the model asks for {', '.join(self.names)}, got {', '.join(values) or 'nothing'}")
        columns = [np.asarray(values[name], np.float64) for name in self.names]
        if self.logarithmic:
            columns = [np.log(column) for column in columns]
        return np.stack(np.broadcast_arrays(1.0, *columns), axis=-1)


def fit_pod(
    variables: Mapping[str, Float[np.ndarray, " n"]], hit: Bool[np.ndarray, " n"], *, logarithmic: bool = True
) -> Pod:
    """Fits the log-odds model by maximum likelihood.

    Args:
        variables: One number a defect, by name, positive if their logarithm is taken: size, contrast without its sign.
        hit: Whether it was found.
        logarithmic: take the logarithms of the variables.

    Raises:
        UsageError: all were found, or none, or hits and misses do not overlap, or a number is not usable.
    """
    known = _checked(variables, hit)
    if logarithmic:
        for name, column in known.items():
            if not (column > 0).all():
                raise UsageError(f"{name} must be positive for its logarithm; for a contrast, hand in its size")
    columns = [np.log(column) if logarithmic else column for column in known.values()]
    found = np.asarray(hit, np.float64)
    if not 0 < found.sum() < len(found):
        raise UsageError(
            f"{found.sum():.0f} of {len(found)} defects were found: a probability of detection needs hits and misses; "
            "add defects that are harder, or easier"
        )
    x = np.column_stack([np.ones(len(found)), *columns])
    if np.linalg.matrix_rank(x - np.r_[0.0, x[:, 1:].mean(axis=0)]) < x.shape[1]:
        raise UsageError(f"{' and '.join(known)} do not vary, or not independently of each other: nothing to fit")
    if _can_be_told_apart(x, found):
        raise UsageError(
            f"hits and misses do not overlap over {' and '.join(known)}: every size is either always or never found, "
            "which has no finite slope; add defects between the largest miss and the smallest hit"
        )
    coefficients, information, value = _fit(x, found, 0.0)
    return Pod(tuple(known), coefficients, np.linalg.inv(information), value, logarithmic, x, found)


def _fit(
    x: Float[np.ndarray, "n k"], hit: Float[np.ndarray, " n"], offset: float
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "k k"], float]:
    """Coefficients, information and log-likelihood, by Newton's method with halved steps."""
    size = np.maximum(np.abs(x).max(axis=0), 1e-300)
    scaled = x / size  # columns of one size: the equations then are well conditioned
    sign = 2 * hit - 1
    b = np.zeros(x.shape[1])
    value = float(log_expit(sign * offset).sum())
    for _ in range(100):
        p = expit(scaled @ b + offset)
        information = (scaled * (p * (1 - p))[:, None]).T @ scaled
        step = np.linalg.solve(information, gradient := scaled.T @ (hit - p))
        length, tried = 1.0, -math.inf
        while (
            length > 1e-6 and (tried := float(log_expit(sign * (scaled @ (b + length * step) + offset)).sum())) < value
        ):
            length /= 2
        if tried < value:
            break
        b, value = b + length * step, tried
        if gradient @ step < 1e-8:  # each step squares what is lacking of the likelihood: now 1e-16 of it
            break
    return b / size, information * np.outer(size, size), value


def _can_be_told_apart(x: Float[np.ndarray, "n k"], hit: Float[np.ndarray, " n"]) -> bool:
    """Whether a plane has all hits on one side and all misses on the other (points on it are allowed on both)."""
    from scipy.optimize import linprog

    facing = (2 * hit - 1)[:, None] * x / np.abs(x).max(axis=0)
    found = linprog(-facing.mean(axis=0), A_ub=-facing, b_ub=np.zeros(len(hit)), bounds=(-1, 1), method="highs")
    return -found.fun > 1e-9


def _checked(variables: Mapping[str, np.ndarray], hit: np.ndarray) -> dict[str, np.ndarray]:
    known = {name: np.asarray(column, np.float64).ravel() for name, column in variables.items()}
    if not known:
        raise UsageError("a probability of detection needs a variable: size, contrast")
    for name, column in known.items():
        if len(column) != len(hit):
            raise UsageError(f"{name} has {len(column)} numbers, but there are {len(hit)} defects")
        if not np.isfinite(column).all():
            raise UsageError(f"{name} holds numbers that are not finite; leave those defects out")
    return known
