"""How well repeated images of the same hole agree, and how much holes of one site differ.

Repeatability is what remains when nothing but the image is taken anew: the pooled standard deviation within groups of
images of the same structure. Local uniformity is the same within a site, where the holes themselves differ; what the
gauge adds to it can be taken out. Both are told as three standard deviations, as the trade does.

Source: repeatability as pooled within-group variance, ISO 5725-2; precision-to-tolerance ratio 6 s / T, AIAG
"Measurement systems analysis". Local CD uniformity (LCDU) is told as lithography tells it: three sigma within a site.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from waferlens.ops.hole import PERIODS


@dataclass(frozen=True, slots=True)
class Repeatability:
    """Agreement of repeated images for one measurand, in the measurand's unit."""

    name: str
    three_sigma: float
    """Three pooled standard deviations within groups; NaN if no group has two measured images."""
    low: float
    """Ends of the 95 % interval of `three_sigma`, for errors that are normal."""
    high: float
    precision_to_tolerance: float | None
    """Six standard deviations over the distance of the limits; None without two limits. 0.1 is good, 0.3 the most."""
    groups: int
    """Groups with at least two measured images."""
    images: int
    """Measured images in them."""
    degrees_of_freedom: int


@dataclass(frozen=True, slots=True)
class SiteStatistics:
    """One measurand over sites, in its unit; one entry a site, sorted by name."""

    site: np.ndarray
    mean: Float[np.ndarray, " n"]
    standard_error: Float[np.ndarray, " n"]
    """Of the mean, from the spread within the site; NaN for a single hole."""
    sd: Float[np.ndarray, " n"]
    """Within the site; NaN for a single hole."""
    holes: Int[np.ndarray, " n"]
    """Measured holes."""
    local_uniformity: float
    """Three pooled standard deviations within sites, the gauge taken out if it was given."""


def repeatability(
    values: Mapping[str, Float[np.ndarray, " n"]],
    group: np.ndarray,
    tolerances: Mapping[str, float] | None = None,
) -> list[Repeatability]:
    """Repeatability of every measurand.

    Args:
        values: one number an image, by measurand; NaN where not measured.
        group: name of what each image shows: images with equal names show the same hole. In a simulated set that is
            structure and case together.
        tolerances: upper minus lower limit, by measurand, in its unit.

    Returns:
        One entry a measurand, in the order given.
    """
    out = []
    for name, numbers in values.items():
        squares, freedom, groups, images = _within(numbers, group, PERIODS.get(name))
        sd = float(np.sqrt(squares / freedom)) if freedom else float("nan")
        low, high = _interval(sd, freedom)
        tolerance = (tolerances or {}).get(name)
        ratio = 6 * sd / tolerance if tolerance else None
        out.append(Repeatability(name, 3 * sd, 3 * low, 3 * high, ratio, groups, images, freedom))
    return out


def pooled_sd(values: Float[np.ndarray, " n"], group: np.ndarray, period: float | None = None) -> float:
    """Standard deviation within groups, pooled over all of them; NaN if no group has two numbers.

    Args:
        values: NaN is left out.
        group: name of each number's group.
        period: of a direction; deviations are then taken the short way round.
    """
    squares, freedom, _, _ = _within(values, group, period)
    return float(np.sqrt(squares / freedom)) if freedom else float("nan")


def site_statistics(values: Float[np.ndarray, " n"], site: np.ndarray, gauge_sd: float = 0.0) -> SiteStatistics:
    """Mean and spread of one measurand in every site.

    Args:
        values: one number a hole, NaN where not measured; not for directions.
        site: name of each hole's site.
        gauge_sd: standard deviation of the gauge, from `pooled_sd` of repeated images; 0 leaves it in.

    Returns:
        The sites that have a measured hole.
    """
    known = np.isfinite(values)
    names, index = np.unique(np.asarray(site)[known], return_inverse=True)
    numbers = np.asarray(values, np.float64)[known]
    holes = np.bincount(index, minlength=len(names))
    mean = np.bincount(index, numbers, len(names)) / holes
    squares = np.bincount(index, (numbers - mean[index]) ** 2, len(names))
    freedom = holes - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        sd = np.where(freedom > 0, np.sqrt(squares / freedom), np.nan)
        pooled = squares.sum() / freedom.sum() if freedom.sum() > 0 else np.nan
    # a spread that is less than the gauge's own has nothing left: 0, and not the root of a negative number
    uniformity = 3 * float(np.sqrt(max(pooled - gauge_sd**2, 0.0))) if np.isfinite(pooled) else float("nan")
    return SiteStatistics(names, mean, sd / np.sqrt(holes), sd, holes, uniformity)


def _within(values: np.ndarray, group: np.ndarray, period: float | None) -> tuple[float, int, int, int]:
    """Sum of squares within groups, degrees of freedom, groups of two or more, and numbers in them."""
    known = np.isfinite(values)
    names, first, index, counts = np.unique(
        np.asarray(group)[known], return_index=True, return_inverse=True, return_counts=True
    )
    numbers = np.asarray(values, np.float64)[known]
    # away from the first of the group: a direction of 179.5 is then close to one of 0.5, and high levels lose no digits
    away = numbers - numbers[first][index]
    if period is not None:
        away = (away + period / 2) % period - period / 2
    mean = np.bincount(index, away, len(names)) / counts
    several = counts > 1
    squares = np.bincount(index, (away - mean[index]) ** 2, len(names))[several].sum()
    return float(squares), int((counts - 1).sum()), int(several.sum()), int(counts[several].sum())


def _interval(sd: float, freedom: int, coverage: float = 0.95) -> tuple[float, float]:
    if not freedom:
        return float("nan"), float("nan")
    from scipy.stats import chi2  # takes longer to import than everything else here takes to run

    tail = (1 - coverage) / 2
    low, high = (sd * float(np.sqrt(freedom / chi2.ppf(share, freedom))) for share in (1 - tail, tail))
    return low, high
