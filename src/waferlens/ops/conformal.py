"""Thresholds from good parts only, that keep a stated rate of false alarms whatever the scores look like.

Nothing is assumed of the scores but that good images are exchangeable: those of the calibration and those to come are
drawn alike. Images that belong together (several of one device, one after the other on a drifting tool) are not; hand
in one of each then. What is scored must be above the threshold to alarm, so that ties alarm less often than stated and
never more often.

Sources: Vovk, Gammerman, Shafer, "Algorithmic learning in a random world" (2005); Lei et al., J. Am. Stat. Assoc. 113
(2018) 1094; Vovk, ACML 2012 (the rate given the calibration is a Beta variable); Angelopoulos et al., "Conformal risk
control", ICLR 2024, arXiv:2208.02814, theorem 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float
from scipy.special import betaincinv, gammaincinv

from waferlens.errors import UsageError

INTERVAL = 0.9
"""Coverage of the intervals on the true rate."""


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What a threshold on the score of an image promises."""

    rate: float
    """Stated: at most this share of good images alarms, on average over calibrations."""
    images: int
    """Good images it rests on."""
    rank: int
    """The threshold is the score of this rank among them, 1 for the smallest."""
    mean: float
    """Expected true rate; a little below `rate`, because ranks are whole."""
    low: float
    """Lower end of the 90 % interval of the true rate of this very threshold."""
    high: float
    """Upper end of it."""
    tied: int
    """Scores equal to the threshold; where it is above 1, the true rate is below what `low`, `mean` and `high` say."""

    def __str__(self) -> str:
        return (
            f"at most {_percent(self.rate)} of good images alarm, by {self.images} good images; "
            f"{_percent(INTERVAL)} interval of the true rate: {_percent(self.low)} to {_percent(self.high)}"
        )


@dataclass(frozen=True, slots=True)
class RiskGuarantee:
    """What a threshold on the score of a finding promises."""

    rate: float
    """Stated: at most so many false findings on a good area, on average over calibrations [1/mm²]"""
    images: int
    """Good images it rests on."""
    area_mm2: float
    """Their area together [mm²]"""
    bound: int
    """Findings of one image beyond this number are not counted: such an image is told as a whole."""
    observed: float
    """False findings of these images above the threshold [1/mm²]"""
    low: float
    """Lower end of the 90 % interval of the true rate of this very threshold [1/mm²]"""
    high: float
    """Upper end of it [1/mm²]"""

    def __str__(self) -> str:
        return (
            f"at most {self.rate:g} false findings per mm², by {self.images} good images of {self.area_mm2:g} mm²; "
            f"{_percent(INTERVAL)} interval of the true rate: {self.low:.2g} to {self.high:.2g} per mm²"
        )


def needed_images(rate: float) -> int:
    """The fewest good images that support a rate of false alarms: 99 for 1 %.

    Raises:
        UsageError: the rate is not between 0 and 1.
    """
    return math.ceil(1 / _rate(rate)) - 1


def conformal_threshold(scores: Float[np.ndarray, " n"], rate: float) -> tuple[float, Guarantee]:
    """The threshold above which at most a stated share of good images comes to lie.

    Of n + 1 exchangeable scores each is as likely as any other to be the one that comes last, so the new one lies above
    the k-th smallest of the others with a chance of at most 1 - k / (n + 1). Given these n images, the true rate is a
    Beta(n + 1 - k, k) variable if scores do not tie, and below one if they do.

    Args:
        scores: One a good image; the images fitted nothing that the scores come from. Infinite where an image cannot
            be scored and alarms for that.
        rate: Share of good images that may alarm, as 0.01.

    Returns:
        The threshold, and what it promises. An image alarms when its score is greater.

    Raises:
        UsageError: the rate is not between 0 and 1, a score is NaN, or there are too few good images for this rate.
    """
    exact = _rate(rate)
    scores = np.asarray(scores, np.float64).ravel()
    _refuse_nan(scores)
    count = len(scores)
    rank = count + 1 - math.floor((count + 1) * exact)  # ceil((n + 1) (1 - rate)), without the rounding of floats
    if rank > count:
        raise UsageError(
            f"{count} good images cannot support a false-alarm rate of {_percent(rate)}, it takes "
            f"{needed_images(rate)}; add good images, or state a rate of at least {_percent(1 / (count + 1), up=True)}"
        )
    threshold = float(np.partition(scores, rank - 1)[rank - 1])
    if threshold == math.inf:
        raise UsageError(
            f"{int(np.isinf(scores).sum())} of {count} good images cannot be scored, more than a false-alarm rate of "
            f"{_percent(rate)} leaves room for; remove them, or mend what keeps them from being scored"
        )
    alarms, quiet = count + 1 - rank, rank
    tail = (1 - INTERVAL) / 2
    low, high = betaincinv(alarms, quiet, [tail, 1 - tail])
    tied = int(np.count_nonzero(scores == threshold))
    return threshold, Guarantee(rate, count, rank, alarms / (count + 1), float(low), float(high), tied)


def risk_threshold(
    scores: Sequence[Float[np.ndarray, " n"]],
    area_mm2: float | Float[np.ndarray, " b"],
    rate: float,
    *,
    bound: int,
    floor: float = 0.0,
) -> tuple[float, RiskGuarantee]:
    """The threshold that leaves at most a stated number of false findings per area: conformal risk control.

    The loss of an image is its number of findings above the threshold, at most `bound`, minus what its area is allowed;
    it does not grow with the threshold. With B the bound, the smallest threshold is taken for which

        findings of the n good images + B <= rate * (their area + the area of one more image)

    and then the expected number of findings of the next good image is at most the rate times its expected area.

    The interval of the true rate asks for more: that findings, or clusters of them, fall independently on the area.
    What lies above the m-th highest score has then a Gamma(m) distributed expectation; clusters widen it by their
    mean size as seen from a finding (compound Poisson).

    Args:
        scores: One array a good image, of the scores of everything listed on it, possibly empty.
        area_mm2: Area that was looked at: of every image, or one number an image. An image to come is taken to be at
            least as large as the smallest of these [mm²]
        rate: False findings that are accepted [1/mm²]
        bound: The most findings of an image that are counted.
        floor: The score down to which candidates were listed at all; the threshold is never lower.

    Returns:
        The threshold, and what it promises. A finding counts when its score is greater.

    Raises:
        UsageError: the rate, the bound or an area is not positive, a score is NaN, or there is too little good area.
    """
    count = len(scores)
    areas = np.broadcast_to(np.asarray(area_mm2, np.float64), (count,))
    if not (rate > 0 and math.isfinite(rate)) or bound < 1 or not (np.isfinite(areas) & (areas > 0)).all():
        raise UsageError(f"rate, bound and areas must be positive numbers, got rate {rate:g} per mm², bound {bound}")
    exact = [_exact(area) for area in areas]
    looked_at = sum(exact, Fraction(0))
    allowed = _exact(rate) * (looked_at + min(exact, default=Fraction(0))) - bound
    if allowed < 0:
        raise UsageError(
            f"{count} good images of {float(looked_at):g} mm² cannot support {rate:g} false findings per mm² with at "
            f"most {bound} an image; it takes {float(bound / _exact(rate)):g} mm², the next image included: add good "
            "images, accept a higher rate, or count fewer findings an image"
        )
    # the highest `bound` of an image are those that are counted, at any threshold
    counted = [np.sort(np.asarray(one, np.float64).ravel())[::-1][:bound] for one in scores]
    for one in scores:
        _refuse_nan(np.asarray(one, np.float64))
    pooled = np.sort(np.concatenate(counted))[::-1]
    pooled = pooled[pooled > floor]
    above = math.floor(allowed)
    threshold = float(pooled[above]) if above < len(pooled) else float(floor)
    if threshold == math.inf:
        raise UsageError(
            f"more findings of good images have an infinite score than {rate:g} per mm² leaves room for; "
            "remove those images, or mend what keeps them from being scored"
        )
    each = np.array([np.count_nonzero(one > threshold) for one in counted], np.float64)
    low, high = _rate_interval(each, min(above, len(pooled)), above < len(pooled))
    area = float(looked_at)
    return threshold, RiskGuarantee(
        float(rate), count, area, int(bound), float(each.sum()) / area, low / area, high / area
    )


def _rate_interval(each: np.ndarray, above: int, at_score: bool) -> tuple[float, float]:
    """Interval of the expected findings of the whole area, from those of each image."""
    size = float(np.square(each).sum() / each.sum()) if each.any() else 1.0
    tail = (1 - INTERVAL) / 2
    # a threshold that is itself a score lies on the first finding that it silences; one that was given does not
    first = above + 1 if at_score else above
    low = float(gammaincinv(first / size, tail)) * size if first else 0.0
    return low, float(gammaincinv((above + 1) / size, 1 - tail)) * size


def _rate(rate: float) -> Fraction:
    if not 0 < rate < 1:
        raise UsageError(f"a rate of false alarms lies between 0 and 1, got {rate:g}; 1 % is 0.01")
    return _exact(rate)


def _exact(number: float) -> Fraction:
    """The number as it is written: 0.01 is one hundredth, and 100 good images and a new one make 1.01 of it."""
    return Fraction(repr(float(number)))


def _percent(share: float, up: bool = False) -> str:
    if up:  # never below what is said
        digits = 10.0 ** (1 - math.floor(math.log10(share * 100)))
        return f"{math.ceil(share * 100 * digits - 1e-9) / digits:g} %"
    return f"{share * 100:.3g} %"


def _refuse_nan(scores: np.ndarray) -> None:
    unknown = int(np.isnan(scores).sum())
    if unknown:
        raise UsageError(f"{unknown} of {scores.size} scores are NaN; leave those images out, or give them infinity")
