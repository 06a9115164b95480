"""How flat a surface is: over the map and in each site, from a least-squares plane and from one through three points.

Range is the highest minus the lowest pixel after a plane is taken off, deviation the farthest from it. No height is
filtered, trimmed or filled in: pixels that are not known take part in nothing, their share is told, and what too few
known pixels tell is null with a reason.

Sources: SEMI M1 (flatness, quality area, sites); SEMI MF1390 and MF534 (warp and bow). `docs/flatness.md` has the
formulas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from waferlens.errors import UsageError
from waferlens.ops.flatness_record import Flatness, Leftover, Site
from waferlens.ops.plane_sums import FittedPlane, MapPart, Rest, Sums, rests, sums
from waferlens.ops.quality_area import Cell, Wafer, quality_area, sites, whole
from waferlens.ops.semi_names import Chuck, semi_names

LEAST_KNOWN = 0.8
"""Share of an area or site that has to be known before numbers are told of it"""
POINT_RADIUS_PX = 3
"""The height at a point comes from the pixels as near as this [px]"""
_LEVEL = FittedPlane(0.0, 0.0, 0.0, 0.0, 0.0)


def flatness(
    height_um: Float[np.ndarray, "h w"],
    pitch_um: float | tuple[float, float],
    valid: Bool[np.ndarray, "h w"] | None = None,
    *,
    site_mm: tuple[float, float] | None = None,
    site_offset_mm: tuple[float, float] = (0.0, 0.0),
    partial_sites: bool = False,
    edge_exclusion_mm: float = 0.0,
    wafer: Wafer | None = None,
    points_um: Sequence[tuple[float, float]] | None = None,
    chuck: Chuck | None = None,
    thickness_map: bool = False,
    least_known: float = LEAST_KNOWN,
) -> Flatness:
    """Measures how flat a map is; it is read in blocks and may be larger than the memory that is free.

    Args:
        height_um: positive up, NaN where not known [um]
        pitch_um: distance of neighbouring pixels, or of columns and of rows [um]
        valid: which heights may be used; leaves out dies where the carrier is asked for.
        site_mm: width and height of a site; None measures none [mm]
        site_offset_mm: moves the grid of sites from where it lies symmetrically [mm]
        partial_sites: whether sites that the area cuts are measured too; they are listed in any case.
        edge_exclusion_mm: left out along the edge of the wafer, or of the map [mm]
        wafer: the disc of a wafer (`quality_area.find_wafer`); None takes the map for the surface.
        points_um: three points x y for the plane through three points, from the outer edge of the first pixel; None
            takes three 120° apart on the ellipse inscribed in the area, the first at its top [um]
        chuck: how the wafer was held, if it is declared: `free` or `vacuum`.
        thickness_map: whether the heights are declared to be thicknesses.
        least_known: share of the area, of a site or of the pixels about a point that has to be known.

    Raises:
        UsageError: shapes differ, a number is out of range, sites or exclusion do not fit, or conditions exclude
            each other.
    """
    pitch = _require(height_um, pitch_um, valid, points_um, least_known)
    semi_names(chuck, thickness_map)
    pitch_mm = (1e-3 * pitch[0], 1e-3 * pitch[1])
    area = quality_area((height_um.shape[0], height_um.shape[1]), pitch_mm, wafer, edge_exclusion_mm)
    everything = whole(area)
    cells = [everything] if site_mm is None else sites(area, site_mm, site_offset_mm)
    part = MapPart(height_um, valid, area, _some_height(height_um))

    of_cells = [sums(part, cell) for cell in cells]
    middle = area.middle_mm
    total = Sums(*middle)
    for one in of_cells:
        total.moments += one.about(*middle).moments
    known = total.points / everything.inside_px if everything.inside_px else 0.0
    why = _too_little(known, least_known, "of the area")
    plane = None if why else total.plane()
    why = why or ("" if plane else "the known pixels determine no plane")
    points, tripod, why_not = _tripod(part, points_um, least_known)
    tripod, why_not = (None, why) if why else (tripod, why_not)

    shared = [_LEVEL, plane, tripod]
    left_over: list[Rest | None] = [None if one is None else Rest() for one in shared]
    found = []
    for cell, own in zip(cells, of_cells, strict=True):
        site, fitted = _site(cell, own, partial_sites, least_known) if site_mm is not None else (None, None)
        rest = rests(part, cell, [*shared, fitted])
        for whole_map, more in zip(left_over, rest, strict=False):
            if whole_map is not None and more is not None:
                whole_map.add(more)
        if site is not None:
            found.append(_measured(site, fitted, rest))
    raw, flat, three = left_over
    centre, why_centre = None, why_not
    if tripod is not None:
        at, why_centre = _height_at(part, *middle, least_known)
        centre = None if at is None else at - tripod.over(*middle)
    return Flatness(
        area=area,
        wafer=wafer,
        edge_exclusion_mm=edge_exclusion_mm,
        known_share=known,
        range_raw_um=None if raw is None or why else _range(raw),
        least_squares=_leftover(plane, flat, why),
        three_points=_leftover(tripod, three, why_not),
        points_um=points,
        centre_deviation_um=centre,
        centre_reason=why_centre,
        site_mm=site_mm,
        partial_sites=partial_sites,
        sites=tuple(found),
        chuck=chuck,
        thickness_map=thickness_map,
        least_known=least_known,
    )


def _require(
    height_um: np.ndarray,
    pitch_um: float | tuple[float, float],
    valid: np.ndarray | None,
    points_um: Sequence[tuple[float, float]] | None,
    least_known: float,
) -> tuple[float, float]:
    if height_um.ndim != 2 or 0 in height_um.shape:
        raise UsageError(f"height_um has shape {height_um.shape}; a map has rows and columns")
    if valid is not None and valid.shape != height_um.shape:
        raise UsageError(f"valid has shape {valid.shape}, height_um {height_um.shape}; they must be of one grid")
    pitch = pitch_um if isinstance(pitch_um, tuple) else (pitch_um, pitch_um)
    if not all(math.isfinite(one) and one > 0 for one in pitch):
        raise UsageError(f"pitch_um = {pitch[0]:g} x {pitch[1]:g} must be positive")
    if points_um is not None and len(points_um) != 3:
        raise UsageError(f"a plane through three points needs three, got {len(points_um)}")
    if not 0 < least_known <= 1:
        raise UsageError(f"least known share = {least_known:g} must be more than 0 and at most 1")
    return pitch


def _some_height(height_um: np.ndarray) -> float:
    """A height of the map to count from; 0 where none is known [um]"""
    step = max(1, math.isqrt(height_um.size // 10_000))
    sample = height_um[::step, ::step]
    sample = sample[np.isfinite(sample)]
    return float(np.median(sample)) if sample.size else 0.0


def _too_little(known: float, least: float, what: str) -> str:
    return "" if known >= least else f"{100 * known:.3g} % {what} known; {100 * least:.3g} % are needed"


def _tripod(
    part: MapPart, points_um: Sequence[tuple[float, float]] | None, least: float
) -> tuple[tuple[tuple[float, float, float | None], ...], FittedPlane | None, str]:
    """The three points with their heights, the plane through them, and why there is none."""
    if points_um is None:
        (x, y), half = part.area.middle_mm, part.area.half_mm
        reach = [max(0.0, half[axis] - (POINT_RADIUS_PX + 1) * part.area.pitch_mm[axis]) for axis in (0, 1)]
        turns = [math.radians(degrees) for degrees in (90, 210, 330)]
        places = [(x + reach[0] * math.cos(turn), y - reach[1] * math.sin(turn)) for turn in turns]
    else:
        places = [(1e-3 * x, 1e-3 * y) for x, y in points_um]
    heights, why = [], ""
    for place in places:
        height, reason = _height_at(part, *place, least)
        heights.append(height)
        why = why or reason
    points = tuple(
        (1e3 * x, 1e3 * y, None if height is None else height + part.origin_um)
        for (x, y), height in zip(places, heights, strict=True)
    )
    if why:
        return points, None, why
    (x, y), total = part.area.middle_mm, Sums(*part.area.middle_mm)
    for place, height in zip(places, heights, strict=True):
        dx, dy, z = place[0] - x, place[1] - y, float(height or 0.0)
        total.moments += [1, dx, dy, dx * dx, dx * dy, dy * dy, z, dx * z, dy * z]
    plane = total.plane()
    return points, plane, "" if plane else "the three points lie on one line"


def _height_at(part: MapPart, x_mm: float, y_mm: float, least: float) -> tuple[float | None, str]:
    """Height at a place: there, of the second-order surface through the pixels about it; or why it is not known.

    A mean or a median of the pixels would be off by what the surface bends within them.
    """
    named = f"point ({1e3 * x_mm:.6g}, {1e3 * y_mm:.6g}) um"
    h, w = part.height_um.shape
    at_x, at_y = x_mm / part.area.pitch_mm[0] - 0.5, y_mm / part.area.pitch_mm[1] - 0.5
    if not (-0.5 <= at_x <= w - 0.5 and -0.5 <= at_y <= h - 0.5):
        return None, f"{named} lies outside the map"
    middle_x, middle_y = round(at_x), round(at_y)
    rows, columns = np.mgrid[-POINT_RADIUS_PX : POINT_RADIUS_PX + 1, -POINT_RADIUS_PX : POINT_RADIUS_PX + 1]
    near = np.hypot(columns, rows) <= POINT_RADIUS_PX
    rows, columns = rows[near] + middle_y, columns[near] + middle_x
    there = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    rows, columns = rows[there], columns[there]
    z = part.height_um[rows, columns].astype(np.float64) - part.origin_um
    known = np.isfinite(z) if part.valid is None else np.isfinite(z) & part.valid[rows, columns]
    if known.sum() < least * near.sum():
        return None, f"{int(known.sum())} of {int(near.sum())} pixels at the {named} are known"
    dx, dy = (columns[known] - at_x) / POINT_RADIUS_PX, (rows[known] - at_y) / POINT_RADIUS_PX
    design = np.stack((np.ones(len(dx)), dx, dy, dx * dx, dx * dy, dy * dy), axis=1)
    solution, _, rank, _ = np.linalg.lstsq(design, z[known], rcond=None)
    if rank < 6:
        return None, f"too few pixels at the {named} are known"
    return float(solution[0]), ""


def _site(cell: Cell, own: Sums, partial_sites: bool, least: float) -> tuple[Site, FittedPlane | None]:
    """A site without its numbers, and its plane if it is to have them."""
    nominal = (cell.box_px[2] - cell.box_px[0]) * (cell.box_px[3] - cell.box_px[1])
    inside, known = cell.inside_px / nominal, own.points / cell.inside_px
    why = ""
    plane = None
    if not cell.whole and not partial_sites:
        why = f"partial: {100 * inside:.3g} % of it lie in the area"
    else:
        why = _too_little(known, least, "of it")
        plane = None if why else own.plane()
        why = why or ("" if plane else "its known pixels determine no plane")
    x0, y0, x1, y1 = (1e3 * edge for edge in cell.box_mm)
    return Site(cell.row, cell.column, (x0, y0, x1, y1), not cell.whole, inside, known, reason=why), plane


def _measured(site: Site, plane: FittedPlane | None, rest: list[Rest | None]) -> Site:
    """A site with its numbers, if it has a plane."""
    raw, over_all, _, own = rest
    if plane is None or own is None or raw is None:
        return site
    return Site(
        site.row,
        site.column,
        site.box_um,
        site.partial,
        site.inside_share,
        site.known_share,
        range_um=_range(own),
        deviation_um=_deviation(own),
        range_global_um=None if over_all is None else _range(over_all),
        range_raw_um=_range(raw),
        tilt_x_um_per_mm=plane.slope_x,
        tilt_y_um_per_mm=0.0 - plane.slope_y,
    )


def _leftover(plane: FittedPlane | None, rest: Rest | None, why: str) -> Leftover:
    if plane is None or rest is None:
        return Leftover(reason=why)
    return Leftover(
        _range(rest),
        _deviation(rest),
        rest.highest_um,
        rest.lowest_um,
        math.sqrt(rest.squares / rest.points),
        plane.slope_x,
        0.0 - plane.slope_y,
    )


def _range(rest: Rest) -> float:
    return rest.highest_um - rest.lowest_um


def _deviation(rest: Rest) -> float:
    return max(abs(rest.highest_um), abs(rest.lowest_um))
