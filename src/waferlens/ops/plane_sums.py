"""Planes of parts of a map, from one pass over it, and what is left of the parts over planes, from a second.

A part is read in blocks of rows that stay in the cache, so a map larger than the memory that is free can be mapped and
not loaded. Sums of parts add up to those of the whole. Heights are counted from a height of the map and places from
the middle of the part, in mm: neither an offset of the map nor its size costs digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from waferlens.ops.quality_area import Cell, QualityArea

_BLOCK_PX = 2**16
_SAME_LINE = 1e-9  # of the points' extent: what lies nearer to one line determines no plane


@dataclass(frozen=True, slots=True, eq=False)
class MapPart:
    """A map of which only an area counts."""

    height_um: Float[np.ndarray, "h w"]
    """NaN where not known [um]"""
    valid: Bool[np.ndarray, "h w"] | None
    """Where heights may be used; None for everywhere."""
    area: QualityArea
    origin_um: float
    """Heights are summed from it [um]"""

    def blocks(
        self, cell: Cell
    ) -> Iterator[tuple[Float[np.ndarray, "n m"], Float[np.ndarray, " m"], Float[np.ndarray, " n"], bool]]:
        """Heights above the origin, NaN where they do not count; x and y from the cell's middle; whether all count."""
        h, w = self.height_um.shape
        x0, y0, x1, y1 = cell.box_px
        x0, y0, x1, y1 = max(0, x0), max(0, y0), min(w, x1), min(h, y1)
        if x0 >= x1 or y0 >= y1:
            return
        low, high = self.area.columns(np.arange(y0, y1))
        low, high = np.maximum(low, x0), np.minimum(high, x1)
        x_mm, y_mm = (0.5 * (cell.box_mm[axis] + cell.box_mm[axis + 2]) for axis in (0, 1))
        step = max(1, _BLOCK_PX // (x1 - x0))
        for top in range(y0, y1, step):
            bottom = min(y1, top + step)
            own = slice(top - y0, bottom - y0)
            left, right = int(low[own].min()), int(high[own].max())
            if left >= right:
                continue
            z = self.height_um[top:bottom, left:right].astype(np.float64)
            z -= self.origin_um
            if self.valid is not None:
                z[~self.valid[top:bottom, left:right]] = math.nan
            if low[own].max() > left or high[own].min() < right:
                columns = np.arange(left, right)
                z[(columns < low[own, None]) | (columns >= high[own, None])] = math.nan
            complete = bool(np.isfinite(z.sum()))
            if not complete:
                z[np.isinf(z)] = math.nan
                complete = not np.isnan(z).any()
            x = (np.arange(left, right) + 0.5) * self.area.pitch_mm[0] - x_mm
            y = (np.arange(top, bottom) + 0.5) * self.area.pitch_mm[1] - y_mm
            yield z, x, y, complete


@dataclass(slots=True)
class Sums:
    """Moments of the known pixels about a place."""

    x_mm: float
    """The place the moments are about [mm]"""
    y_mm: float
    """[mm]"""
    moments: Float[np.ndarray, " nine"] = field(default_factory=lambda: np.zeros(9))
    """n, x, y, xx, xy, yy, z, xz, yz"""

    @property
    def points(self) -> int:
        """How many pixels are known."""
        return int(self.moments[0])

    def about(self, x_mm: float, y_mm: float) -> Sums:
        """The same pixels, about another place."""
        dx, dy = self.x_mm - x_mm, self.y_mm - y_mm
        n, x, y, xx, xy, yy, z, xz, yz = self.moments
        moved = [
            n,
            x + n * dx,
            y + n * dy,
            xx + 2 * dx * x + n * dx * dx,
            xy + dx * y + dy * x + n * dx * dy,
            yy + 2 * dy * y + n * dy * dy,
            z,
            xz + dx * z,
            yz + dy * z,
        ]
        return Sums(x_mm, y_mm, np.array(moved))

    def plane(self) -> FittedPlane | None:
        """The least-squares plane; None where the pixels lie on one line, or are fewer than three."""
        n, x, y, xx, xy, yy, z, xz, yz = (float(moment) for moment in self.moments)
        if n < 3:
            return None
        cxx, cxy, cyy = xx - x * x / n, xy - x * y / n, yy - y * y / n
        cxz, cyz = xz - x * z / n, yz - y * z / n
        least = _SAME_LINE * max(cxx, cyy)
        if min(cxx, cyy) <= least or cxx * cyy - cxy * cxy <= least * max(cxx, cyy):
            return None
        det = cxx * cyy - cxy * cxy
        slope_x, slope_y = (cyy * cxz - cxy * cyz) / det, (cxx * cyz - cxy * cxz) / det
        return FittedPlane(self.x_mm, self.y_mm, (z - slope_x * x - slope_y * y) / n, slope_x, slope_y)


@dataclass(frozen=True, slots=True)
class FittedPlane:
    """z = at_um + slope_x (x - x_mm) + slope_y (y - y_mm), above the origin of the heights."""

    x_mm: float
    """[mm]"""
    y_mm: float
    """[mm]"""
    at_um: float
    """Its height there [um]"""
    slope_x: float
    """Rise to the right [um/mm]"""
    slope_y: float
    """Rise down the rows [um/mm]"""

    def over(self, x_mm: float, y_mm: float) -> float:
        """Its height at a place [um]"""
        return self.at_um + self.slope_x * (x_mm - self.x_mm) + self.slope_y * (y_mm - self.y_mm)


@dataclass(slots=True)
class Rest:
    """What is left over a plane."""

    points: int = 0
    lowest_um: float = math.inf
    """[um]"""
    highest_um: float = -math.inf
    """[um]"""
    squares: float = 0.0
    """Sum of the squares [um²]"""

    def add(self, other: Rest) -> None:
        """Takes in what is left of another part."""
        self.points += other.points
        self.lowest_um = min(self.lowest_um, other.lowest_um)
        self.highest_um = max(self.highest_um, other.highest_um)
        self.squares += other.squares


def sums(part: MapPart, cell: Cell) -> Sums:
    """Moments of the known pixels of a cell, about its middle."""
    found = Sums(0.5 * (cell.box_mm[0] + cell.box_mm[2]), 0.5 * (cell.box_mm[1] + cell.box_mm[3]))
    total = found.moments
    for z, x, y, complete in part.blocks(cell):
        if complete:
            n = np.full(len(y), float(len(x)))
            nx, nxx = n * x.mean(), n * (x @ x) / len(x)
        else:
            known = np.isfinite(z).astype(np.float64)
            z[known == 0] = 0.0
            n, nx, nxx = known.sum(axis=1), known @ x, known @ (x * x)
        zn, zx = z.sum(axis=1), z @ x
        total += [n.sum(), nx.sum(), n @ y, nxx.sum(), nx @ y, n @ (y * y), zn.sum(), zx.sum(), zn @ y]
    return found


def rests(part: MapPart, cell: Cell, planes: Iterable[FittedPlane | None]) -> list[Rest | None]:
    """What is left of a cell over each of some planes; None where there is no plane."""
    x_mm, y_mm = (0.5 * (cell.box_mm[axis] + cell.box_mm[axis + 2]) for axis in (0, 1))
    planes = list(planes)
    found = [None if plane is None else Rest() for plane in planes]
    for z, x, y, complete in part.blocks(cell):
        points = z.size if complete else int(np.count_nonzero(np.isfinite(z)))
        if not points:
            continue
        for plane, rest in zip(planes, found, strict=True):
            if plane is None or rest is None:
                continue
            left = z - (plane.over(x_mm, y_mm) + plane.slope_y * y)[:, None]
            left -= plane.slope_x * x
            # fmin and fmax pass over what is not known
            low, high = float(np.fmin.reduce(left, axis=None)), float(np.fmax.reduce(left, axis=None))
            if not complete:
                left[np.isnan(left)] = 0.0
            flat = left.ravel()
            rest.add(Rest(points, low, high, float(flat @ flat)))
    return found
