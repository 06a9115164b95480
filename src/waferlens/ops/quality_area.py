"""Where flatness counts: the area of a map inside its edge exclusion, and the grid of sites over it.

The area is a disc where a wafer is stated, and else the map itself; the edge exclusion is taken off all round. A pixel
belongs to it if its centre lies within, not on its border. A wafer may reach beyond the map: what is not in the map
counts as not known.

Lengths are in mm from the outer edge of the first pixel, x to the right and y down the rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int64

from waferlens.errors import UsageError

MOST_SITES = 40_000
"""More sites than this are refused: it is a slip of the unit"""
LEAST_SITE_PX = 3
"""A site with fewer pixels on a side has no plane of its own [px]"""
_SAME = 1e-9  # lengths that differ by less, of a pixel, are equal
_ROUND = 0.01  # of the diameter: how far width and height of a disc may differ
_FILLED, _BARE = 0.97, 0.02  # shares known inside and outside of what is taken for a wafer


@dataclass(frozen=True, slots=True)
class Wafer:
    """A wafer's disc in the frame of a map."""

    diameter_mm: float
    """[mm]"""
    x_mm: float
    """Its centre, from the outer edge of the first pixel [mm]"""
    y_mm: float
    """Down the rows [mm]"""


@dataclass(frozen=True, slots=True)
class QualityArea:
    """A disc or a rectangle, the edge exclusion taken off."""

    box_mm: tuple[float, float, float, float]
    """x0 y0 x1 y1 of the area, or round its disc [mm]"""
    disc: bool
    pitch_mm: tuple[float, float]
    """Distance of neighbouring columns, and of neighbouring rows [mm]"""

    @property
    def middle_mm(self) -> tuple[float, float]:
        """[mm]"""
        return 0.5 * (self.box_mm[0] + self.box_mm[2]), 0.5 * (self.box_mm[1] + self.box_mm[3])

    @property
    def half_mm(self) -> tuple[float, float]:
        """Half of its width and of its height [mm]"""
        return 0.5 * (self.box_mm[2] - self.box_mm[0]), 0.5 * (self.box_mm[3] - self.box_mm[1])

    def rows(self) -> tuple[int, int]:
        """First row, and the row after the last; they may lie beyond the map [px]"""
        low = math.floor(self.box_mm[1] / self.pitch_mm[1] - 0.5 + _SAME) + 1
        return low, _first(self.box_mm[3], self.pitch_mm[1])

    def columns(self, rows: Int64[np.ndarray, " n"]) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Of each row its first column in the area, and the column after its last [px]"""
        x, y = self.middle_mm
        half = np.full(len(rows), self.half_mm[0])
        if self.disc:
            away = (rows + 0.5) * self.pitch_mm[1] - y
            half = np.sqrt(np.maximum(0.0, half**2 - away**2))
        low = np.floor((x - half) / self.pitch_mm[0] - 0.5 + _SAME).astype(np.int64) + 1
        high = np.ceil((x + half) / self.pitch_mm[0] - 0.5 - _SAME).astype(np.int64)
        first, last = self.rows()
        high = np.where((rows >= first) & (rows < last), high, low)
        return low, np.maximum(low, high)

    def holds(self, box_mm: tuple[float, float, float, float]) -> bool:
        """Whether a rectangle lies wholly in it."""
        reach = [_SAME * pitch for pitch in self.pitch_mm]
        x0, y0, x1, y1 = box_mm
        low_x, low_y, high_x, high_y = self.box_mm
        if not self.disc:
            across = x0 >= low_x - reach[0] and x1 <= high_x + reach[0]
            return across and y0 >= low_y - reach[1] and y1 <= high_y + reach[1]
        x, y = self.middle_mm
        farthest = math.hypot(max(abs(x0 - x), abs(x1 - x)), max(abs(y0 - y), abs(y1 - y)))
        return farthest <= self.half_mm[0] + max(reach)


@dataclass(frozen=True, slots=True)
class Cell:
    """A rectangle of the map that is worked on at once."""

    row: int
    """Counted from the top of the grid"""
    column: int
    box_mm: tuple[float, float, float, float]
    """x0 y0 x1 y1 [mm]"""
    box_px: tuple[int, int, int, int]
    """First column and row, and those after the last; they may lie beyond the map [px]"""
    whole: bool
    """Whether it lies wholly in the area."""
    inside_px: int
    """How many of its pixels lie in the area, those beyond the map counted [px]"""


def quality_area(
    shape: tuple[int, int], pitch_mm: tuple[float, float], wafer: Wafer | None, edge_exclusion_mm: float
) -> QualityArea:
    """The area of a wafer, or of a map, inside its edge exclusion.

    Raises:
        UsageError: a length is out of range, the exclusion leaves nothing, or the wafer lies beside the map.
    """
    h, w = shape
    if not (math.isfinite(edge_exclusion_mm) and edge_exclusion_mm >= 0):
        raise UsageError(f"edge exclusion = {edge_exclusion_mm:g} mm: must be 0 or positive")
    width, height = w * pitch_mm[0], h * pitch_mm[1]
    if wafer is None:
        box = (0.0, 0.0, width, height)
        what = f"map of {width:g} x {height:g} mm"
    else:
        if not (math.isfinite(wafer.diameter_mm) and wafer.diameter_mm > 0):
            raise UsageError(f"wafer diameter = {wafer.diameter_mm:g} mm: must be positive")
        radius = 0.5 * wafer.diameter_mm
        box = (wafer.x_mm - radius, wafer.y_mm - radius, wafer.x_mm + radius, wafer.y_mm + radius)
        what = f"wafer of {wafer.diameter_mm:g} mm"
        if not (box[0] < width and box[2] > 0 and box[1] < height and box[3] > 0):
            raise UsageError(
                f"the wafer about ({wafer.x_mm:g}, {wafer.y_mm:g}) mm lies beside the map of {width:g} x {height:g} mm"
            )
    e = edge_exclusion_mm
    inner = (box[0] + e, box[1] + e, box[2] - e, box[3] - e)
    if min(inner[2] - inner[0] - pitch_mm[0], inner[3] - inner[1] - pitch_mm[1]) < 0:
        raise UsageError(f"an edge exclusion of {e:g} mm leaves nothing of a {what}; state a smaller one")
    return QualityArea(inner, wafer is not None, pitch_mm)


def find_wafer(
    height_um: Float[np.ndarray, "h w"],
    pitch_um: float | tuple[float, float],
    valid: Bool[np.ndarray, "h w"] | None = None,
) -> Wafer | None:
    """The wafer whose disc the known pixels fill; None where they fill anything else."""
    pitch_x, pitch_y = (1e-3 * pitch for pitch in _both(pitch_um))
    h, w = height_um.shape
    corners = height_um[[0, 0, -1, -1], [0, -1, 0, -1]]
    if np.isfinite(corners).any() and valid is None:
        return None
    known = np.isfinite(height_um) if valid is None else np.isfinite(height_um) & valid
    rows, columns = np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.any(axis=0))
    if len(rows) < 8 or len(columns) < 8:
        return None
    width = (columns[-1] + 1 - columns[0]) * pitch_x
    height = (rows[-1] + 1 - rows[0]) * pitch_y
    if abs(width - height) > _ROUND * max(width, height) + 2 * max(pitch_x, pitch_y):
        return None
    x, y = 0.5 * pitch_x * (columns[0] + columns[-1] + 1), 0.5 * pitch_y * (rows[0] + rows[-1] + 1)
    wafer = Wafer(float(max(width, height)), float(x), float(y))
    area = quality_area((h, w), (pitch_x, pitch_y), wafer, 0.0)
    first, last = area.rows()
    inside, told = 0, 0
    for row in range(max(0, first), min(h, last)):
        low, high = (int(edge[0]) for edge in area.columns(np.array([row])))
        low, high = max(0, low), min(w, high)
        inside += max(0, high - low)
        told += int(np.count_nonzero(known[row, low:high]))
    outside = h * w - inside
    rest = int(np.count_nonzero(known)) - told
    if inside == 0 or outside < 0.1 * h * w or told < _FILLED * inside or rest > _BARE * outside:
        return None
    return wafer


def sites(area: QualityArea, site_mm: tuple[float, float], offset_mm: tuple[float, float] = (0.0, 0.0)) -> list[Cell]:
    """The grid of sites that meet the area, in rows from the top and from the left.

    As many whole sites as fit side by side lie symmetrically about its middle: an odd number puts a site there, an
    even number a corner. An offset moves them all.

    Raises:
        UsageError: a site is larger than the area or of hardly a pixel, or there are far too many.
    """
    size = (area.box_mm[2] - area.box_mm[0], area.box_mm[3] - area.box_mm[1])
    named = f"a site of {site_mm[0]:g} x {site_mm[1]:g} mm"
    lines = []
    for axis in (0, 1):
        if not (math.isfinite(site_mm[axis]) and site_mm[axis] > 0):
            raise UsageError(f"{named}: both sides must be positive")
        if site_mm[axis] > size[axis] * (1 + _SAME):
            raise UsageError(
                f"{named} is larger than the area of {size[0]:g} x {size[1]:g} mm that the edge exclusion leaves; "
                "state smaller sites"
            )
        if site_mm[axis] < LEAST_SITE_PX * area.pitch_mm[axis] * (1 - _SAME):
            raise UsageError(
                f"{named} has fewer than {LEAST_SITE_PX} px of {area.pitch_mm[axis]:g} mm on a side; sites are in mm"
            )
        if not math.isfinite(offset_mm[axis]):
            raise UsageError(f"the offset of the sites is {offset_mm[axis]:g} mm; it must be a number")
        fit = math.floor(size[axis] / site_mm[axis] * (1 + _SAME))
        start = area.middle_mm[axis] - 0.5 * fit * site_mm[axis] + offset_mm[axis]
        first = math.floor((area.box_mm[axis] - start) / site_mm[axis] + _SAME)
        last = math.ceil((area.box_mm[axis + 2] - start) / site_mm[axis] - _SAME)
        lines.append([start + number * site_mm[axis] for number in range(first, last + 1)])
    across, down = lines
    count = (len(across) - 1) * (len(down) - 1)
    if count > MOST_SITES:
        raise UsageError(f"{named} makes {count} sites of the area, and more than {MOST_SITES} are refused; in mm")
    found = []
    for row in range(len(down) - 1):
        for column in range(len(across) - 1):
            box = (across[column], down[row], across[column + 1], down[row + 1])
            cell = _cell(area, row, column, box)
            if cell.inside_px:
                found.append(cell)
    # a strip at the border that holds no centre of a pixel is no row and no column
    row, column = min((cell.row for cell in found), default=0), min((cell.column for cell in found), default=0)
    return [replace(cell, row=cell.row - row, column=cell.column - column) for cell in found]


def whole(area: QualityArea) -> Cell:
    """The area as one cell."""
    return _cell(area, 0, 0, area.box_mm)


def _cell(area: QualityArea, row: int, column: int, box: tuple[float, float, float, float]) -> Cell:
    pitch_x, pitch_y = area.pitch_mm
    # a pixel whose centre lies on a line belongs to the site after it
    x0, x1 = _first(box[0], pitch_x), _first(box[2], pitch_x)
    y0, y1 = _first(box[1], pitch_y), _first(box[3], pitch_y)
    first, last = area.rows()
    low, high = area.columns(np.arange(max(y0, first), max(y0, first, min(y1, last))))
    inside = np.maximum(0, np.minimum(high, x1) - np.maximum(low, x0)).sum()
    return Cell(row, column, box, (x0, y0, x1, y1), area.holds(box), int(inside))


def _first(edge: float, pitch: float) -> int:
    """The first pixel whose centre is not before an edge."""
    return math.ceil(edge / pitch - 0.5 - _SAME)


def _both(pitch: float | tuple[float, float]) -> tuple[float, float]:
    return pitch if isinstance(pitch, tuple) else (pitch, pitch)
