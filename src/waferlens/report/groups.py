"""Repeated images and sites, as the names of the files tell them: repeatability, site means, local uniformity."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup

from waferlens.evaluate.repeatability import Repeatability, pooled_sd, repeatability, site_statistics
from waferlens.ops.hole import PERIODS
from waferlens.report import charts
from waferlens.report.distributions import Distribution
from waferlens.report.queries import Results

COMPARED = ("depth", "cd50_area", "cd50_x", "cd50_y", "ellipticity", "wall_angle_deg")
"""What is compared, besides what has limits."""
SITE_CHARTS = ("depth", "cd50_area")
MOST_SITES = 60
"""Sites in a chart; of more, so many at equal steps."""
_REPEAT = re.compile(r"(?P<hole>.+)_(?:itr|rep)\d+\.[^./]+")
_SITE = re.compile(r"(?P<site>(?:.*/)?site[-_ ]?[^/]*)/[^/]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SiteLine:
    """One measurand over the sites."""

    name: str
    unit: str
    sites: int
    holes: int
    mean: float
    """Of the site means [unit]"""
    between: float | None
    """Three standard deviations of the site means [unit]"""
    uniformity: float | None
    """Three standard deviations within sites [unit]"""
    chart: Markup | None


@dataclass(slots=True)
class Groups:
    """What repeated images and sites say."""

    repeats: list[tuple[Repeatability, str]] = field(default_factory=list)
    """With the unit of each."""
    sites: list[SiteLine] = field(default_factory=list)
    gauge_taken_out: bool = False
    """Whether the spread within sites is without the gauge's own."""


def hole_of(path: str) -> str | None:
    """What `NAME_itr0.png`, `NAME_itr1.png` … (or `_rep0` …) are images of; None for a file of another name."""
    found = _REPEAT.fullmatch(path)
    return found["hole"] if found else None


def site_of(path: str) -> str | None:
    """The folder `site…` a file lies in; None where it lies in none."""
    found = _SITE.fullmatch(path)
    return found["site"] if found else None


def compare(results: Results, root: str, table: list[Distribution], images: int) -> Groups:
    """Compares repeated images with each other, and the holes of a site.

    Args:
        results: of the run.
        root: what all paths begin with; sites are named without it.
        table: all measurands of the lot.
        images: how many images the lot has, those that are not stored yet among them.
    """
    holes, sites = np.full(images, -1, np.int32), np.full(images, -1, np.int32)
    hole_numbers: dict[str, int] = {}
    site_numbers: dict[str, int] = {}
    for item, path, page in results.paths():
        hole, site = hole_of(path), site_of(path)
        if hole is not None:
            holes[item] = hole_numbers.setdefault(f"{hole}#{page}", len(hole_numbers))
        if site is not None:
            sites[item] = site_numbers.setdefault(site.removeprefix(root), len(site_numbers))
    out = Groups()
    chosen = [
        one
        for one in table
        if one.measured and (one.name in COMPARED or one.lower is not None or one.upper is not None)
    ]
    if not (site_numbers or len(hole_numbers) < int((holes >= 0).sum())):
        return out
    order = np.array(sorted(site_numbers), dtype=object)
    ranks = np.empty(len(order), np.int32)
    ranks[[site_numbers[name] for name in order]] = np.arange(len(order))
    for one in chosen:
        values = np.full(images, np.nan)
        for item, value in results.values(one.name, one.unit):
            values[item] = value
        _add_repeats(out, one, values, holes)
        in_site = sites >= 0
        # only repeated images of the sites themselves say what the gauge adds to their spread
        repeated = in_site & (holes >= 0)
        gauge = pooled_sd(values[repeated], holes[repeated]) if repeated.any() else math.nan
        if in_site.any() and one.name not in PERIODS:
            _add_sites(out, one, values[in_site], ranks[sites[in_site]], 0.0 if math.isnan(gauge) else gauge)
    return out


def _add_repeats(out: Groups, one: Distribution, values: np.ndarray, holes: np.ndarray) -> None:
    known = holes >= 0
    if not known.any():
        return
    tolerance = {one.name: one.upper - one.lower} if one.lower is not None and one.upper is not None else None
    (line,) = repeatability({one.name: values[known]}, holes[known], tolerance)
    if line.groups:
        out.repeats.append((line, one.unit))


def _add_sites(out: Groups, one: Distribution, values: np.ndarray, site: np.ndarray, gauge_sd: float) -> None:
    found = site_statistics(values, site, gauge_sd)
    number = len(found.mean)
    if not number or int(found.holes.max()) < 2:
        return
    out.gauge_taken_out |= gauge_sd > 0
    chart = None
    if one.name in SITE_CHARTS and number > 1:
        shown = np.unique(np.linspace(0, number - 1, min(number, MOST_SITES)).round().astype(int))
        reach = [None if np.isnan(sd) else 3 * float(sd) for sd in found.sd[shown]]
        chart = charts.means(found.mean[shown].tolist(), reach, one.lower, one.upper, one.unit)
    out.sites.append(
        SiteLine(
            one.name,
            one.unit,
            number,
            int(found.holes.sum()),
            float(found.mean.mean()),
            3 * float(found.mean.std(ddof=1)) if number > 1 else None,
            None if np.isnan(found.local_uniformity) else found.local_uniformity,
            chart,
        )
    )
