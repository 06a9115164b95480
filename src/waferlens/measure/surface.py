"""Measures a height map: how much of it is valid, how it is tilted, and how rough it is.

The chain is that of ISO 25178-2: outliers out, S-filter (what is finer than its cutoff goes), levelling and form (the
F-operation), L-filter (what is coarser than its cutoff goes); every number says in `method` what was done before it.
Heights are reported in nm where the file counts in nm and in um otherwise; tilts in um/mm. x points right along the
rows and y **up** the picture, towards row 0, so that x, y and the heights are right-handed.

Nothing is invented: a number that the valid points do not determine is null, and `method` says why. `low` and `high`
are null, for files of instruments carry no uncertainty.

Sources: ISO 25178-2:2021; ISO 25178-3:2012 (default operators).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from waferlens import units
from waferlens.errors import InputError, UsageError
from waferlens.ops import surface
from waferlens.ops.filters import gaussian_areal
from waferlens.ops.roughness import height_parameters
from waferlens.ops.surface import OUTLIER_SIGMA, Plane
from waferlens.records import HeightMap, Measurement

Level = Literal["least-squares", "three-points", "robust", "none"]
Form = Literal["none", "polynomial-2"]
LEVELS: tuple[str, ...] = get_args(Level)
FORMS: tuple[str, ...] = get_args(Form)

_FAST_FROM = 2**20
_NO_PLANE = "the valid points determine no plane"
_NO_POINT = "no valid point"


@dataclass(frozen=True, slots=True, eq=False)
class Levelling:
    """What was done to a map before its roughness was measured, and what is left of it."""

    heights: np.ndarray
    """The surface after all steps, NaN where no point takes part [unit]"""
    unit: str
    raw: np.ndarray
    """The heights as the file has them, NaN where not valid [unit]"""
    plane: Plane
    """What levelling took off; unknown where nothing was"""
    robust: surface.RobustPlane
    steps: str
    """All steps in words, as they stand in `method`"""
    steps_to_level: str
    """The steps up to and with levelling"""
    levelled: np.ndarray | None = None
    """The surface after levelling and before form and L-filter; None where it was not levelled [unit]"""
    points: list[tuple[float, float]] = field(default_factory=list)
    """The three points of `three-points` [px]"""


def report_unit(unit: str) -> str:
    """The unit heights are reported in: the file's own nm, um where it counts in um or m, grey where in nothing."""
    return unit if unit in ("nm", "grey") else "um"


def measure_surface(
    height_map: HeightMap,
    *,
    level: Level = "least-squares",
    form: Form = "none",
    s_filter: float | None = None,
    l_filter: float | None = None,
    outliers: bool = False,
    trim_percent: float | None = None,
    points: list[tuple[float, float]] | None = None,
) -> list[Measurement]:
    """Measure a height map.

    Args:
        height_map: the map.
        level: which plane is taken off.
        form: which form is taken off after it.
        s_filter: cutoff of the S-filter, None for none [um]
        l_filter: cutoff of the L-filter, None for none [um]
        outliers: leave out points farther than `OUTLIER_SIGMA` robust standard deviations from the robust plane.
        trim_percent: leave out points outside the percentiles p and 100 - p of the heights, None for none [%]
        points: places (x, y) for `three-points`; chosen in the valid area where it is None [px]

    Returns:
        One record a quantity, always the same names in the same order.

    Raises:
        UsageError: an option has no such value.
        InputError: a filter or a point does not fit this map.
    """
    return measurements(
        height_map,
        prepare_surface(
            height_map,
            level=level,
            form=form,
            s_filter=s_filter,
            l_filter=l_filter,
            outliers=outliers,
            trim_percent=trim_percent,
            points=points,
        ),
    )


def prepare_surface(
    height_map: HeightMap,
    *,
    level: Level = "least-squares",
    form: Form = "none",
    s_filter: float | None = None,
    l_filter: float | None = None,
    outliers: bool = False,
    trim_percent: float | None = None,
    points: list[tuple[float, float]] | None = None,
) -> Levelling:
    """The map after outliers, S-filter, levelling, form and L-filter; arguments as for `measure_surface`.

    Raises:
        UsageError: an option has no such value.
        InputError: a filter or a point does not fit this map.
    """
    if level not in LEVELS:
        raise UsageError(f"level '{level}' is unknown; one of {', '.join(LEVELS)}")
    if form not in FORMS:
        raise UsageError(f"form '{form}' is unknown; one of {', '.join(FORMS)}")
    if trim_percent is not None and not 0 < trim_percent < 50:
        raise UsageError(f"trim between 0 and 50 %, got {trim_percent:g}")
    if points is not None and level != "three-points":
        raise UsageError(f"points are for levelling by three points, not for '{level}'")
    unit = report_unit(height_map.unit)
    raw = np.where(height_map.valid, _converted(height_map, unit), math.nan)
    robust = surface.fit_plane_robust(raw)
    taking_part = surface.known_points(raw)
    left_out = []
    if outliers and robust.plane.known:
        taking_part &= robust.inliers
        left_out.append(f"points beyond {OUTLIER_SIGMA:g} robust sigma of the robust plane")
    if trim_percent is not None:
        taking_part &= surface.within_percentiles(raw, percent=trim_percent)
        left_out.append(f"heights outside the percentiles {trim_percent:g} and {100 - trim_percent:g}")
    heights = np.where(taking_part, raw, math.nan)
    steps = [f"without {' and '.join(left_out)} ({int(taking_part.sum())} points left)"] if left_out else []

    heights = _filtered(height_map, heights, s_filter, steps, "S")
    places = points or (surface.three_points(surface.known_points(heights)) if level == "three-points" else [])
    plane = _plane(height_map, heights, level, places, robust)
    steps.append(_said(level, places))
    levelled = None
    if level != "none":
        levelled = heights = heights - plane.over(heights.shape)
    to_level = "; ".join(steps)
    if form == "polynomial-2":
        heights = heights - surface.polynomial_form(heights, order=2)
        steps.append("second-order polynomial taken off")
    heights = _filtered(height_map, heights, l_filter, steps, "L")
    absent = [f"no {kind}-filter" for kind, cutoff in (("S", s_filter), ("L", l_filter)) if cutoff is None]
    return Levelling(
        heights, unit, raw, plane, robust, "; ".join(steps + absent), to_level, levelled=levelled, points=places
    )


def measurements(height_map: HeightMap, done: Levelling) -> list[Measurement]:
    """The numbers of a map that was prepared by `prepare_surface`."""
    unit, raw, rest, robust = done.unit, done.raw, done.levelled, done.robust
    known = surface.known_points(raw)
    count = int(known.sum())
    outside = count - int(robust.inliers.sum())
    near = f"points within {OUTLIER_SIGMA:g} robust sigma of the robust plane"
    tilt_x, tilt_y, tilt_unit = _tilt(height_map, done.plane, unit)
    robust_x, robust_y, _ = _tilt(height_map, robust.plane, unit)
    robust_rest = (raw - robust.plane.over(raw.shape))[robust.inliers] if robust.plane.known else np.empty(0)
    found = height_parameters(done.heights)
    no_points = _NO_PLANE if count else _NO_POINT
    no_level = "not levelled" if rest is None else no_points
    to_level = done.steps_to_level
    table = [
        ("valid_fraction", count / raw.size, "1", f"{count} of {raw.size} points are valid", ""),
        (
            "outlier_fraction",
            outside / count if robust.plane.known else math.nan,
            "1",
            f"{outside} valid points lie beyond {OUTLIER_SIGMA:g} robust sigma of the robust plane",
            no_points,
        ),
        ("range_raw", _range(raw), unit, "highest minus lowest valid point, as the file has them", _NO_POINT),
        ("tilt_x", tilt_x, tilt_unit, f"rise of the plane to the right; {to_level}", no_level),
        ("tilt_y", tilt_y, tilt_unit, f"rise of the plane up the picture; {to_level}", no_level),
        ("range_levelled", _range(rest), unit, f"highest minus lowest point; {to_level}", no_level),
        ("rms_levelled", _rms(rest), unit, f"root mean square about the mean; {to_level}", no_level),
        ("tilt_x_robust", robust_x, tilt_unit, f"rise to the right; {near}", no_points),
        ("tilt_y_robust", robust_y, tilt_unit, f"rise up the picture; {near}", no_points),
        ("rms_robust", _rms(robust_rest), unit, f"root mean square about the mean; {near}", no_points),
    ]
    table += [
        (name, getattr(found, name), unit, f"ISO 25178-2; {done.steps}", no_points)
        for name in ("Sa", "Sq", "Sp", "Sv", "Sz")
    ]
    no_shape = "the surface is flat" if found.points else no_points
    table += [(name, getattr(found, name), "1", f"ISO 25178-2; {done.steps}", no_shape) for name in ("Ssk", "Sku")]
    return [_row(*row) for row in table]


def outlier_note(rows: Sequence[Measurement]) -> str:
    """What a metrologist would ask next: a sentence where a few points make the rms; empty where they do not."""
    found = {row.name: row.value for row in rows}
    share, rms, robust = (found.get(name) for name in ("outlier_fraction", "rms_levelled", "rms_robust"))
    if not share or not rms or robust is None or rms <= 1.5 * robust:
        return ""
    what = (
        f"make the rms {rms / robust:.3g} times that of the others"
        if robust
        else "lie off a plane that all others meet exactly"
    )
    return (
        f"{100 * share:.2g} % of the points {what} (spikes, or features on a flat ground); "
        "`waferlens measure --outliers` leaves them out"
    )


def _row(name: str, value: float, unit: str, method: str, why_not: str) -> Measurement:
    """A measurement; where the number is none, its method is the reason."""
    if not math.isfinite(value):
        return Measurement(name, None, unit, method=f"not measured: {why_not}")
    return Measurement(name, float(value), unit, method=method)


def _converted(height_map: HeightMap, unit: str) -> np.ndarray:
    heights = height_map.heights.astype(np.float64)
    return heights if height_map.unit == unit else units.convert(heights, height_map.unit, unit)


def _filtered(
    height_map: HeightMap, heights: np.ndarray, cutoff: float | None, steps: list[str], kind: Literal["S", "L"]
) -> np.ndarray:
    """The map after an areal Gaussian S- or L-filter; as it is where there is no cutoff."""
    if cutoff is None:
        return heights
    where = height_map.origin.get("file", "the map")
    if not 0 < cutoff < math.inf:
        raise UsageError(f"the cutoff of the {kind}-filter must be a positive number of um, got {cutoff:g}")
    if height_map.pitch_unit == "px":
        raise InputError(where, f"the {kind}-filter needs a pitch, and the file says none; give it with --pitch-um")
    pitch_x = units.convert(height_map.pitch_x, height_map.pitch_unit, "um")
    pitch_y = units.convert(height_map.pitch_y, height_map.pitch_unit, "um")
    h, w = heights.shape
    if kind == "L" and cutoff > min(h * pitch_y, w * pitch_x):
        raise InputError(
            where,
            f"the L-filter's cutoff of {cutoff:g} um is longer than the map ({w * pitch_x:g} x {h * pitch_y:g} um)",
        )
    try:
        mean = gaussian_areal(heights, cutoff, pitch_x, pitch_y)
    except ValueError as error:
        raise InputError(where, f"{kind}-filter: {error} [um]") from error
    steps.append(f"{kind}-filter: areal Gaussian (ISO 16610-61), cutoff {cutoff:g} um")
    return mean if kind == "S" else heights - mean


def _plane(
    height_map: HeightMap,
    heights: np.ndarray,
    level: str,
    points: list[tuple[float, float]],
    robust: surface.RobustPlane,
) -> Plane:
    if level == "least-squares":
        return _least_squares(heights)
    if level == "robust":
        # The filter moves the heights a little: the plane is fitted to what it left.
        known = surface.known_points(heights) & robust.inliers
        return _least_squares(np.where(known, heights, math.nan)) if robust.plane.known else surface.UNKNOWN
    if level == "three-points":
        if len(points) < 3:
            return surface.UNKNOWN  # chosen here, and the valid area was too small for three
        try:
            return surface.fit_plane_through(heights, points)
        except ValueError as error:
            raise InputError(height_map.origin.get("file", "the map"), f"levelling by three points: {error}") from error
    return surface.UNKNOWN


def _least_squares(heights: np.ndarray) -> Plane:
    """The plane, by the fused kernel where the map is large enough to pay for loading its compiler."""
    if heights.size < _FAST_FROM:
        return surface.fit_plane(heights)
    from waferlens.ops.level_range_rms import level_range_rms

    return level_range_rms(heights).plane


def _said(level: str, points: list[tuple[float, float]]) -> str:
    if level == "three-points":
        return "levelled by the plane through " + ", ".join(f"({x:g}, {y:g})" for x, y in points) + " px"
    words = {
        "least-squares": "levelled by the least-squares plane",
        "robust": f"levelled by the robust plane (least squares over points within {OUTLIER_SIGMA:g} robust sigma)",
        "none": "not levelled",
    }
    return words[level]


def _tilt(height_map: HeightMap, plane: Plane, unit: str) -> tuple[float, float, str]:
    """Rise along x and along y (up the picture), and its unit."""
    if unit == "grey" or height_map.pitch_unit == "px":
        # 0 minus, not minus: a level plane rises by 0, never by -0.
        return (
            plane.slope_x / height_map.pitch_x,
            0.0 - plane.slope_y / height_map.pitch_y,
            f"{unit}/{height_map.pitch_unit}",
        )
    pitch_x = units.convert(height_map.pitch_x, height_map.pitch_unit, "mm")
    pitch_y = units.convert(height_map.pitch_y, height_map.pitch_unit, "mm")
    rise_x, rise_y = (units.convert(slope, unit, "um") for slope in (plane.slope_x, plane.slope_y))
    return rise_x / pitch_x, 0.0 - rise_y / pitch_y, "um/mm"


def _range(heights: np.ndarray | None) -> float:
    known = np.empty(0) if heights is None else heights[np.isfinite(heights)]
    return float(np.ptp(known)) if known.size else math.nan


def _rms(heights: np.ndarray | None) -> float:
    known = np.empty(0) if heights is None else heights[np.isfinite(heights)]
    return float(known.std()) if known.size else math.nan
