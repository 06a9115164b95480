"""Measures how flat a height map is: planes, sites, names of SEMI where their conditions are declared, steps of dies.

Everything is told in um. What `ops.flatness` computes becomes records with their unit and, in `method`, what they are
and of which area; a number that the known pixels do not tell is null, and `method` says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from waferlens import units
from waferlens.errors import InputError, UsageError
from waferlens.ops.die_map import DieMap, die_map
from waferlens.ops.flatness import LEAST_KNOWN, flatness
from waferlens.ops.flatness_record import Flatness
from waferlens.ops.quality_area import Wafer, find_wafer
from waferlens.ops.semi_names import Chuck, semi_names
from waferlens.ops.step_height import StepHeight, step_heights
from waferlens.records import HeightMap, Measurement, Product

PLAIN = {
    "range_raw": "highest minus lowest pixel, nothing taken off",
    "range_least_squares": "highest minus lowest pixel from the least-squares plane",
    "deviation_least_squares": "farthest pixel from the least-squares plane",
    "rms_least_squares": "root mean square from the least-squares plane",
    "range_three_points": "highest minus lowest pixel from the plane through three points",
    "deviation_three_points": "farthest pixel from the plane through three points",
    "centre_deviation": "the middle of the area above the plane through three points; positive where it bulges up",
    "site_range": "greatest over the sites of the range from the site's own least-squares plane",
    "site_deviation": "greatest over the sites of the deviation from the site's own least-squares plane",
    "site_range_global": "greatest over the sites of the range from the least-squares plane of the whole area",
    "site_range_raw": "greatest over the sites of the range, nothing taken off",
}
"""Every number that is measured in um and needs no condition, and what it is."""


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredFlatness:
    """How flat a map of a file is."""

    flat: Flatness
    rows: list[Measurement]
    dies: DieMap | None
    """None where no product was told."""
    steps: tuple[StepHeight, ...]
    remarks: list[str]
    """What a reader has to know of these numbers."""
    heights_um: np.ndarray
    """The surface that was measured [um]"""
    pitch_um: tuple[float, float]
    """[um]"""

    def as_json(self) -> dict[str, Any]:
        """All of it as a dictionary that JSON can hold."""
        return {
            "measurements": [row.as_json() for row in self.rows],
            **self.flat.as_json(),
            "steps": [step.row() for step in self.steps],
            "remarks": self.remarks,
        }


def measure_flatness(
    height_map: HeightMap,
    *,
    site_mm: tuple[float, float] | None = None,
    site_offset_mm: tuple[float, float] = (0.0, 0.0),
    partial_sites: bool = False,
    edge_exclusion_mm: float = 0.0,
    wafer_mm: float | None = None,
    wafer_centre_mm: tuple[float, float] | None = None,
    points: Sequence[tuple[float, float]] | None = None,
    chuck: Chuck | None = None,
    thickness_map: bool = False,
    least_known: float = LEAST_KNOWN,
    product: Product | None = None,
    image: np.ndarray | None = None,
) -> MeasuredFlatness:
    """Measures flatness, and the steps of dies where a product is told.

    Args:
        height_map: the map; its heights and its pitch have to be lengths.
        site_mm: width and height of a site; None measures none [mm]
        site_offset_mm: moves the grid of sites [mm]
        partial_sites: whether sites that the area cuts are measured too.
        edge_exclusion_mm: left out along the edge of the wafer, or of the map [mm]
        wafer_mm: diameter of the wafer; None looks whether the known pixels fill a disc, and else takes the map [mm]
        wafer_centre_mm: its centre from the outer edge of the first pixel; None is the middle of the map [mm]
        points: three places x, y for the plane through three points; chosen where it is None [px]
        chuck: how the wafer was held, if it is declared.
        thickness_map: whether the heights are declared to be thicknesses.
        least_known: share of an area or site that has to be known.
        product: the nominal stack: dies are mapped and their steps measured; heights have to be above the carrier.
        image: of the same grid, in proportion to the light; refines the edges of the dies [grey]

    Raises:
        UsageError: an option has no such value, or options exclude each other.
        InputError: the map has no unit or pitch, or an area, site or image does not fit it.
    """
    where = height_map.origin.get("file", "the map")
    semi_names(chuck, thickness_map)
    if image is not None and product is None:
        raise UsageError("an image refines the edges of dies, and dies need the product: give --product as well")
    if wafer_centre_mm is not None and wafer_mm is None:
        raise UsageError("the centre of a wafer needs its diameter: give --wafer-mm as well")
    heights, pitch = _in_um(height_map, where)
    valid = None if bool(height_map.valid.all()) else height_map.valid
    h, w = heights.shape
    wafer, found = None, False
    if wafer_mm is not None:
        x, y = wafer_centre_mm or (0.5e-3 * w * pitch[0], 0.5e-3 * h * pitch[1])
        wafer = Wafer(wafer_mm, x, y)
    else:
        wafer = find_wafer(heights, pitch, valid)
        found = wafer is not None
    try:
        flat = flatness(
            heights,
            pitch,
            valid,
            site_mm=site_mm,
            site_offset_mm=site_offset_mm,
            partial_sites=partial_sites,
            edge_exclusion_mm=edge_exclusion_mm,
            wafer=wafer,
            points_um=None if points is None else [((x + 0.5) * pitch[0], (y + 0.5) * pitch[1]) for x, y in points],
            chuck=chuck,
            thickness_map=thickness_map,
            least_known=least_known,
        )
        dies, steps = _steps(heights, pitch, valid, product, image, least_known)
    except UsageError as wrong:
        # what does not fit this map may fit the next one
        raise InputError(where, str(wrong)) from wrong
    rows = _rows(flat, steps, product is not None)
    return MeasuredFlatness(flat, rows, dies, steps, _remarks(flat, found), heights, pitch)


def _in_um(height_map: HeightMap, where: str) -> tuple[np.ndarray, tuple[float, float]]:
    """Heights and pitch in um; as they are where they count in um."""
    if height_map.unit == "grey":
        raise InputError(where, "flatness needs heights, and the file names no unit; give it with --height-unit")
    if height_map.pitch_unit == "px":
        raise InputError(where, "flatness needs a lateral scale, and the file says no pitch; give it with --pitch-um")
    heights = height_map.heights
    if height_map.unit != "um":
        heights = units.convert(heights, height_map.unit, "um")
    x, y = (
        float(units.convert(pitch, height_map.pitch_unit, "um")) for pitch in (height_map.pitch_x, height_map.pitch_y)
    )
    return heights, (x, y)


def _steps(
    heights: np.ndarray,
    pitch: tuple[float, float],
    valid: np.ndarray | None,
    product: Product | None,
    image: np.ndarray | None,
    least_known: float,
) -> tuple[DieMap | None, tuple[StepHeight, ...]]:
    if product is None:
        return None, ()
    if abs(pitch[0] - pitch[1]) > 1e-3 * pitch[0]:
        raise UsageError(f"dies are mapped on square pixels, and these are {pitch[0]:g} x {pitch[1]:g} um")
    if image is not None and image.shape != heights.shape:
        raise UsageError(
            f"the image of {image.shape[1]} x {image.shape[0]} px is not of the grid of the map, "
            f"{heights.shape[1]} x {heights.shape[0]} px"
        )
    known = heights if valid is None else np.where(valid, heights, np.nan)
    found = die_map(known, None, image, pitch[0], product=product)
    return found, step_heights(known, pitch[0], found.dies, least_known=least_known)


def _rows(flat: Flatness, steps: Sequence[StepHeight], stepped: bool) -> list[Measurement]:
    """One record a number: the plain names always, the names of SEMI where their conditions are declared."""
    where = area_in_words(flat)
    plane = flat.least_squares
    rows = [
        Measurement("known_share", flat.known_share, "1", method=f"known pixels / all pixels; {where}"),
        Measurement("missing_share", 1 - flat.known_share, "1", method=f"pixels not known / all pixels; {where}"),
        _row("tilt_x", plane.tilt_x_um_per_mm, "um/mm", "rise of the least-squares plane to the right", plane.reason),
        _row("tilt_y", plane.tilt_y_um_per_mm, "um/mm", "rise of the plane up the picture", plane.reason),
    ]
    numbers = flat.numbers()
    for name, (value, why) in numbers.items():
        if name.startswith("site_") and flat.site_mm is None:
            continue
        rows.append(_row(name, value, "um", f"{PLAIN[name]}; {where}", why))
    if flat.site_mm is not None:
        count, partial = len(flat.sites), sum(site.partial for site in flat.sites)
        told = f"of {count} sites of {flat.site_mm[0]:g} x {flat.site_mm[1]:g} mm, {partial} of them partial"
        rows.append(Measurement("sites_measured", float(len(flat.measured_sites)), "1", method=told))
    if stepped:
        lowest = [step.step_um for step in steps if step.level == 0 and step.step_um is not None]
        told = f"median over {len(lowest)} dies of plateau minus street, levelled to the street"
        middle = float(np.median(lowest)) if lowest else None
        rows.append(_row("step_height", middle, "um", told, "no die has enough known street and plateau"))
    for semi, value, why in flat.names():
        if semi.name.startswith("S") and semi.name != "SORI" and flat.site_mm is None:
            continue
        rows.append(_row(semi.name, value, "um", f"{semi.definition}; {where}", why))
    return rows


def _row(name: str, value: float | None, unit: str, method: str, why: str) -> Measurement:
    if value is None:
        return Measurement(name, None, unit, method=f"not measured: {why}")
    return Measurement(name, value, unit, method=method)


def area_in_words(flat: Flatness) -> str:
    """What the numbers are of: wafer or map, its edge exclusion, and how much is missing."""
    if flat.wafer is not None:
        what = f"a wafer of {flat.wafer.diameter_mm:g} mm"
    else:
        wide, high = (
            edge + 2 * flat.edge_exclusion_mm
            for edge in (flat.area.box_mm[2] - flat.area.box_mm[0], flat.area.box_mm[3] - flat.area.box_mm[1])
        )
        what = f"the map of {wide:.6g} x {high:.6g} mm"
    return f"{what}, edge exclusion {flat.edge_exclusion_mm:g} mm, {100 * (1 - flat.known_share):.3g} % missing"


def _remarks(flat: Flatness, found: bool) -> list[str]:
    said = [flat.conditions]
    if found and flat.wafer is not None:
        said.append(
            f"the known pixels fill a disc of {flat.wafer.diameter_mm:.6g} mm, which is taken for the wafer; "
            "--wafer-mm states another"
        )
    elif flat.wafer is None and flat.names():
        said.append(
            "no wafer was stated and the known pixels fill no disc: the names of SEMI hold if the map is a whole wafer"
        )
    if flat.known_share < 1:
        said.append(f"{100 * (1 - flat.known_share):.3g} % of the area are missing; what they hide is in no number")
    cut = sum(site.partial for site in flat.sites)
    if cut:
        said.append(f"{cut} sites are partial and {'measured all the same' if flat.partial_sites else 'not measured'}")
    bare = sum(bool(site.reason) and not site.reason.startswith("partial") for site in flat.sites)
    if bare:
        said.append(f"{bare} sites are null: less than {100 * flat.least_known:g} % of them known")
    return said
