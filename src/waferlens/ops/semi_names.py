"""Names of SEMI for flatness and shape, and the conditions under which a number may bear them.

A surface alone does not tell what it is: the front of a wafer held flat by vacuum, of a free wafer, or a thickness. The
names say which, so they are given only where it was declared. The definitions are in words of our own after SEMI M1
(flatness of held wafers, sites), MF1390 (warp), MF534 (bow), MF1451 (sori) and MF1530 (thickness, its variation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from waferlens.errors import UsageError

Chuck = Literal["free", "vacuum"]

WHY_NO_NAMES = (
    "plain names: whether a map shows a free wafer, one held by vacuum or a thickness, and so whether a number is BOW, "
    "GFLR or TTV, no map tells; declare --chuck free, --chuck vacuum or --thickness-map"
)
"""Said where no condition was declared."""
FREE = (
    "a free, unclamped wafer, its sag by gravity negligible or taken off; of its two surfaces the map shows the front "
    "one. BOW and WARP are of the median surface, which is taken as parallel to the front: the thickness is assumed "
    "uniform. A variation of thickness moves BOW by at most half of TTV and WARP by at most half of the range of the "
    "levelled thickness; SORI is of the front surface and assumes nothing"
)
"""What `--chuck free` declares."""
VACUUM = "a wafer held by vacuum so that its back is ideally flat; the map shows its front surface"
"""What `--chuck vacuum` declares."""
THICKNESS = (
    "a map of thickness, both surfaces measured; over an ideally flat back the thickness is the front surface, so the "
    "names of a held wafer hold as well"
)
"""What `--thickness-map` declares."""


@dataclass(frozen=True, slots=True)
class SemiName:
    """One name, the plain number it names, and its definition."""

    name: str
    plain: str
    definition: str


_HELD = (
    SemiName("GFLR", "range_least_squares", "highest minus lowest point from the least-squares plane of the front"),
    SemiName("GFLD", "deviation_least_squares", "farthest point from the least-squares plane of the front"),
    SemiName("GF3R", "range_three_points", "highest minus lowest point from a plane through three points of the front"),
    SemiName("GF3D", "deviation_three_points", "farthest point from the plane through three points of the front"),
    SemiName("SFQR", "site_range", "greatest over the sites of the range from the site's own least-squares plane"),
    SemiName("SFQD", "site_deviation", "greatest over the sites of the deviation from the site's own plane"),
    SemiName("SFLR", "site_range_global", "greatest over the sites of the range from the least-squares plane of all"),
)
_FREE = (
    SemiName("BOW", "centre_deviation", "the centre of the median surface above the plane through three points"),
    SemiName("WARP", "range_least_squares", "highest minus lowest point of the median surface from its best-fit plane"),
    SemiName("SORI", "range_least_squares", "highest minus lowest point of the front from its least-squares plane"),
)
_THICKNESS = (
    SemiName("TTV", "range_raw", "greatest minus least thickness"),
    SemiName("GBIR", "range_raw", "range of the front over an ideally flat back"),
    SemiName("SBIR", "site_range_raw", "greatest over the sites of the range over an ideally flat back"),
)


def semi_names(chuck: Chuck | None, thickness_map: bool) -> tuple[tuple[SemiName, ...], str]:
    """The names that the declared conditions allow, and the conditions in words, or why there are none.

    Raises:
        UsageError: the conditions exclude each other, or one is unknown.
    """
    if chuck not in (None, "free", "vacuum"):
        raise UsageError(f"chuck '{chuck}' is unknown; one of free, vacuum")
    if thickness_map and chuck == "free":
        raise UsageError(
            "a map of thickness tells nothing of the shape of a free wafer: leave out --chuck free or --thickness-map"
        )
    if thickness_map:
        return _THICKNESS + _HELD, THICKNESS
    if chuck == "free":
        return _FREE, FREE
    if chuck == "vacuum":
        return _HELD, VACUUM
    return (), WHY_NO_NAMES
