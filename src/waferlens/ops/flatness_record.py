"""What flatness tells: of a map its planes and what they leave, of each site its own, and the names allowed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from waferlens.ops.quality_area import QualityArea, Wafer
from waferlens.ops.semi_names import Chuck, SemiName, semi_names


@dataclass(frozen=True, slots=True)
class Leftover:
    """What is left of a surface over a plane; all None where it is not known."""

    range_um: float | None = None
    """Highest minus lowest [um]"""
    deviation_um: float | None = None
    """The farthest, whichever side it lies on [um]"""
    highest_um: float | None = None
    """[um]"""
    lowest_um: float | None = None
    """[um]"""
    rms_um: float | None = None
    """Root mean square [um]"""
    tilt_x_um_per_mm: float | None = None
    """Rise of the plane to the right [um/mm]"""
    tilt_y_um_per_mm: float | None = None
    """Rise of the plane **up** the picture [um/mm]"""
    reason: str = ""
    """Why it is not known."""


@dataclass(frozen=True, slots=True)
class Site:
    """One site of the grid."""

    row: int
    """Counted from the top"""
    column: int
    box_um: tuple[float, float, float, float]
    """x0 y0 x1 y1, from the outer edge of the first pixel; a partial one reaches beyond the area [um]"""
    partial: bool
    """Whether a part of it lies outside the area."""
    inside_share: float
    """How much of it lies in the area"""
    known_share: float
    """How much of that is known"""
    range_um: float | None = None
    """From its own least-squares plane [um]"""
    deviation_um: float | None = None
    """From its own least-squares plane [um]"""
    range_global_um: float | None = None
    """From the least-squares plane of the whole area [um]"""
    range_raw_um: float | None = None
    """Highest minus lowest as they are [um]"""
    tilt_x_um_per_mm: float | None = None
    """[um/mm]"""
    tilt_y_um_per_mm: float | None = None
    """Up the picture [um/mm]"""
    reason: str = ""
    """Why its numbers are null."""


@dataclass(frozen=True, slots=True)
class Flatness:
    """How flat a map is."""

    area: QualityArea
    wafer: Wafer | None
    edge_exclusion_mm: float
    """[mm]"""
    known_share: float
    """How much of the area is known"""
    range_raw_um: float | None
    """Highest minus lowest as they are [um]"""
    least_squares: Leftover
    three_points: Leftover
    points_um: tuple[tuple[float, float, float | None], ...]
    """Where the three points lie, x and y from the outer edge of the first pixel, and the height found there [um]"""
    centre_deviation_um: float | None
    """Height of the middle of the area above the plane through the three points [um]"""
    centre_reason: str
    """Why it is not known."""
    site_mm: tuple[float, float] | None
    """Size of the sites [mm]"""
    partial_sites: bool
    """Whether partial sites are measured."""
    sites: tuple[Site, ...]
    chuck: Chuck | None
    thickness_map: bool
    least_known: float

    @property
    def measured_sites(self) -> tuple[Site, ...]:
        """The sites that have numbers."""
        return tuple(site for site in self.sites if site.range_um is not None)

    @property
    def conditions(self) -> str:
        """What was declared of the wafer, or why there are no names of SEMI."""
        return semi_names(self.chuck, self.thickness_map)[1]

    def numbers(self) -> dict[str, tuple[float | None, str]]:
        """Every number of the map by its plain name [um], with the reason where it is None."""
        flat, three = self.least_squares, self.three_points
        found = {
            "range_raw": (self.range_raw_um, flat.reason),
            "range_least_squares": (flat.range_um, flat.reason),
            "deviation_least_squares": (flat.deviation_um, flat.reason),
            "rms_least_squares": (flat.rms_um, flat.reason),
            "range_three_points": (three.range_um, three.reason),
            "deviation_three_points": (three.deviation_um, three.reason),
            "centre_deviation": (self.centre_deviation_um, self.centre_reason),
        }
        none = "no sites were asked for" if self.site_mm is None else "no site has enough known pixels"
        for name, field in (
            ("site_range", "range_um"),
            ("site_deviation", "deviation_um"),
            ("site_range_global", "range_global_um"),
            ("site_range_raw", "range_raw_um"),
        ):
            told = [getattr(site, field) for site in self.measured_sites if getattr(site, field) is not None]
            found[name] = (max(told), "") if told else (None, none)
        return found

    def names(self) -> list[tuple[SemiName, float | None, str]]:
        """The names of SEMI that the declared conditions allow, with their numbers [um] and reasons."""
        numbers = self.numbers()
        allowed = semi_names(self.chuck, self.thickness_map)[0]
        return [(name, *numbers[name.plain]) for name in allowed]

    def rows(self) -> list[dict[str, Any]]:
        """One flat row a site, as a table holds it."""
        rows = []
        for number, site in enumerate(self.sites):
            row: dict[str, Any] = {"site": number, "row": site.row, "column": site.column}
            row |= dict(zip(("x0_um", "y0_um", "x1_um", "y1_um"), site.box_um, strict=True))
            rest = asdict(site)
            for name in ("row", "column", "box_um"):
                del rest[name]
            rows.append(row | rest | {"partial": int(site.partial)})
        return rows

    def as_json(self) -> dict[str, Any]:
        """All of it as a dictionary that JSON can hold."""
        numbers = self.numbers()
        return {
            "area": {
                "shape": "disc" if self.area.disc else "rectangle",
                "box_mm": list(self.area.box_mm),
                "edge_exclusion_mm": self.edge_exclusion_mm,
                "wafer": None if self.wafer is None else asdict(self.wafer),
                "known_share": self.known_share,
                "missing_share": 1 - self.known_share,
                "least_known_share": self.least_known,
            },
            "conditions": {"chuck": self.chuck, "thickness_map": self.thickness_map, "meaning": self.conditions},
            "numbers_um": {name: value for name, (value, _) in numbers.items()},
            "names_um": {name.name: value for name, value, _ in self.names()},
            "reasons": {name: reason for name, (value, reason) in numbers.items() if value is None},
            "least_squares": asdict(self.least_squares),
            "three_points": asdict(self.three_points) | {"points_um": [list(point) for point in self.points_um]},
            "sites": {
                "size_mm": None if self.site_mm is None else list(self.site_mm),
                "partial_measured": self.partial_sites,
                "whole": sum(not site.partial for site in self.sites),
                "partial": sum(site.partial for site in self.sites),
                "measured": len(self.measured_sites),
                "sites": [asdict(site) | {"box_um": list(site.box_um)} for site in self.sites],
            },
        }
