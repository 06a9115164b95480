"""The angle of a die in its package, from the edges of its four sides, with an interval; and where it lies.

The angle is that of the die's sides against a datum, counter-clockwise positive as seen:

* `package`: the outline of the moulded body. Its border is rough, and the roughness is what limits the angle.
* `cavity`: the walls of the opening the die lies in. They are sharp.
* `leads`: the ends of the landings beside the die.

Rectangles repeat after half a turn. Which end of the package is up, the opening tells (`roi_edges`); which end of
the die is up, only a feature of pin 1 tells: a place on the die that is brighter, or darker, than the place opposite
it. Where none is told, or neither place stands out, the angle is that of the nearer half turn and `orientation` is
`ambiguous`.

The interval covers 90 % of fits: both rectangles' intervals, joined after B. L. Welch (1947). What it does not know
are errors that a lens makes alike along a whole side; see docs/die-angle.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8
from scipy.special import stdtrit

from waferlens.errors import UsageError
from waferlens.ops.die_angle_leads import FittedLeads, fit_leads
from waferlens.ops.die_angle_parts import find_parts
from waferlens.ops.illumination import sort_light
from waferlens.ops.roi_edges import Located, locate_package
from waferlens.ops.roi_record import CROP_PX
from waferlens.ops.roi_rectangle import FittedRectangle, Look, fit_rectangle

COVERAGE = 0.90
"""Share of cases the interval holds the angle in"""
LIMIT_DEG = 0.5
"""Greatest angle of a good die [deg]"""
DATUMS = ("package", "cavity", "leads")
Datum = Literal["package", "cavity", "leads"]
Verdict = Literal["OK", "NG", "review"]
_LEAST_USED = 0.45  # share of the die's edges that has to fit one rectangle
_MOST_SIGMA_DEG = 0.25  # beyond it nothing was measured


@dataclass(frozen=True, slots=True)
class PinOne:
    """A place on the die that tells which end is up, by being unlike the place opposite it."""

    box: tuple[float, float, float, float]
    """x0 y0 x1 y1 as shares of the die's width and height, from its upper left corner"""
    brighter: bool = True
    """Whether it is brighter than the place opposite; else darker."""


@dataclass(frozen=True, slots=True, eq=False)
class DieAngle:
    """How a die is turned against a datum."""

    datum: str
    angle_deg: float | None
    """Counter-clockwise as seen, in -180..180 where the orientation is known, else in -90..90; None where it was not
    measured [deg]"""
    low: float | None = None
    """Lower end of the 90 % interval [deg]"""
    high: float | None = None
    """Upper end [deg]"""
    sigma_deg: float | None = None
    """Standard deviation [deg]"""
    orientation: Literal["known", "ambiguous"] = "ambiguous"
    """Whether a feature of pin 1 told which end of the die is up."""
    offset_px: tuple[float, float] | None = None
    """Of the die's centre from that of the cavity, along the package's axes, right and down while it is upright [px]"""
    offset_um: tuple[float, float] | None = None
    """The same where the pixel's size is known [um]"""
    die_quad: Float[np.ndarray, "4 2"] | None = None
    """Corners of the die in the image [px]"""
    datum_quad: Float[np.ndarray, "4 2"] | None = None
    """Corners of the datum; of leads the ends of both rows [px]"""
    light: str = ""
    reason: str = ""
    """Why it was not measured."""
    notes: tuple[str, ...] = field(default_factory=tuple)

    def verdict(self, limit_deg: float = LIMIT_DEG) -> Verdict:
        """OK where the whole interval is within the limit, NG where it is outside of it, else review."""
        if self.angle_deg is None or self.low is None or self.high is None:
            return "review"
        return interval_verdict(self.low, self.high, limit_deg)

    def as_json(self) -> dict[str, Any]:
        """The record as a dictionary that JSON can hold."""

        def corners(quad: np.ndarray | None) -> list[list[float]] | None:
            return None if quad is None else [[round(float(x), 3), round(float(y), 3)] for x, y in quad]

        return {
            "angle_deg": self.angle_deg,
            "low": self.low,
            "high": self.high,
            "sigma_deg": self.sigma_deg,
            "datum": self.datum,
            "orientation": self.orientation,
            "offset_px": None if self.offset_px is None else list(self.offset_px),
            "offset_um": None if self.offset_um is None else list(self.offset_um),
            "die_quad": corners(self.die_quad),
            "datum_quad": corners(self.datum_quad),
            "light": self.light,
            "reason": self.reason,
            "notes": list(self.notes),
        }


def interval_verdict(low: float, high: float, limit_deg: float) -> Verdict:
    """OK where a whole interval is within the limit, NG where it is outside of it, else review (ISO 14253-1).

    Args:
        low: its lower end [deg]
        high: its upper end [deg]
        limit_deg: greatest angle that is good, on either side [deg]
    """
    if max(abs(low), abs(high)) <= limit_deg:
        return "OK"
    return "NG" if low > limit_deg or high < -limit_deg else "review"


def die_angle(
    image: UInt8[np.ndarray, "h w 3"],
    *,
    datum: Datum = "package",
    light: str | None = None,
    package: Located | None = None,
    pin_one: PinOne | None = None,
    pixel_um: float | None = None,
    size_px: tuple[int, int] = CROP_PX,
) -> DieAngle:
    """Measures how a die is turned against its package.

    Args:
        image: the whole image, red, green, blue [grey]
        datum: what it is measured against.
        light: `bf`, `dfw` or `dfb`; sorted by colour if None.
        package: where the package lies, from `locate_package` on this image or on one of the same device in another
            light; found here if None.
        pin_one: what tells which end of the die is up.
        pixel_um: size of a pixel, for the offset [um]
        size_px: width and height of an upright package; tells which sides are the long ones [px]

    Raises:
        UsageError: the datum is none, or a number is out of range.
    """
    if datum not in DATUMS:
        raise UsageError(f"datum = {datum!r}: the angle is told against {', '.join(DATUMS)}")
    if pixel_um is not None and not 0 < pixel_um < math.inf:
        raise UsageError(f"pixel_um = {pixel_um:g} must be positive")
    told = light or sort_light(image).nearest
    found = locate_package(image, light=light, size_px=size_px) if package is None else package
    if found.rectangle is None:
        return DieAngle(datum, None, light=told, reason=found.roi.reason or "the package was found without its borders")
    body = found.rectangle
    bright = 1 if told == "bf" else -1
    parts = find_parts(image, body.quad, bright)
    if parts.cavity is None or parts.die is None or parts.reason:
        return DieAngle(datum, None, datum_quad=body.quad, light=told, reason=parts.reason)
    cavity = fit_rectangle(image, parts.cavity, CAVITY)
    die = fit_rectangle(image, parts.die, DIE_BRIGHT if bright > 0 else DIE_DARK)
    if die is None or die.used_share < _LEAST_USED or die.sigma_deg > _MOST_SIGMA_DEG:
        share = 0.0 if die is None else die.used_share
        reason = f"no clear die: one rectangle fits {100 * share:.0f} % of its edges"
        return DieAngle(datum, None, datum_quad=body.quad, light=told, reason=reason)
    against: FittedRectangle | FittedLeads | None = {"package": body, "cavity": cavity}.get(datum)
    if datum == "leads":
        against = None if cavity is None else fit_leads(image, cavity.quad, die.quad, bright)
    if against is None:
        reason = f"the {datum} shows no clear borders"
        if datum == "leads":
            reason = (
                "fewer than five leads show their ends" if bright > 0 else "leads show their ends in brightfield only"
            )
        return DieAngle(datum, None, die_quad=die.quad, light=told, reason=reason)
    angle = math.remainder(die.angle_deg - against.angle_deg, 180.0)
    orientation, notes = "ambiguous", [*found.roi.notes, *([found.roi.reason] if found.roi.reason else [])]
    if pin_one is not None:
        over = upside_down(image, die.quad, pin_one)
        if over is None:
            notes.append("neither place of pin 1 stands out: the nearer half turn is told")
        elif found.roi.upright == "ambiguous":
            notes.append("the die's pin 1 is seen, but nothing tells the package's top from its bottom")
        else:
            orientation = "known"
            angle = math.remainder(angle + 180.0, 360.0) if over else angle
    else:
        notes.append("no feature of pin 1 is told: the nearer half turn is told")
    sigma = math.hypot(die.sigma_deg, against.sigma_deg)
    half = half_interval((die.sigma_deg, die.freedom), (against.sigma_deg, against.freedom))
    offset = None if cavity is None else offset_of(die.quad, cavity.quad, body.angle_deg)
    return DieAngle(
        datum,
        angle,
        angle - half,
        angle + half,
        sigma,
        orientation,  # type: ignore[arg-type]
        offset,
        None if offset is None or pixel_um is None else (offset[0] * pixel_um, offset[1] * pixel_um),
        die.quad,
        against.quad,
        told,
        "",
        tuple(notes),
    )


CAVITY = Look(out_px=10.0, in_px=10.0, trim_px=20.0, coarse_px=12.0, brighter=1)
"""How a cavity's walls are looked at"""
DIE_BRIGHT = Look(out_px=3.0, in_px=16.0, trim_px=16.0, coarse_px=10.0, brighter=1)
"""How a die's edges are looked at in brightfield: inwards, for the seam of epoxy around it is ragged"""
DIE_DARK = Look(out_px=3.0, in_px=16.0, trim_px=16.0, coarse_px=10.0, brighter=-1)
"""And in darkfield"""


def half_interval(*parts: tuple[float, float], coverage: float = COVERAGE) -> float:
    """Half of the interval of a sum of independent errors.

    Args:
        parts: standard deviation and degrees of freedom of each, the deviation being that of Student's distribution.
        coverage: share of cases it holds.
    """
    variance = sum(sigma**2 for sigma, _ in parts)
    # a deviation of Student's distribution is its scale times sqrt(f / (f - 2))
    scales = [(sigma**2 * (freedom - 2) / freedom, freedom) for sigma, freedom in parts]
    total = sum(one for one, _ in scales)
    if total <= 0:
        return 0.0
    freedom = total**2 / sum(one**2 / f for one, f in scales)
    freedom = max(freedom, 2.5)
    return float(stdtrit(freedom, 0.5 + 0.5 * coverage)) * math.sqrt(variance * (freedom - 2) / freedom)


def offset_of(die: Float[np.ndarray, "4 2"], cavity: Float[np.ndarray, "4 2"], angle_deg: float) -> tuple[float, float]:
    """Of the die's centre from the cavity's, along axes turned by an angle: right and down while upright [px]"""
    way = die.mean(axis=0) - cavity.mean(axis=0)
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    return float(way[0] * cos - way[1] * sin), float(way[0] * sin + way[1] * cos)


def upside_down(image: np.ndarray, die: Float[np.ndarray, "4 2"], pin_one: PinOne) -> bool | None:
    """Whether the die stands on its head; None where the place of pin 1 and the one opposite are alike."""
    x0, y0, x1, y1 = pin_one.box
    places = np.linspace(0.1, 0.9, 9)
    u, v = np.meshgrid(x0 + places * (x1 - x0), y0 + places * (y1 - y0))
    means, spreads = [], []
    for a, b in ((u, v), (1 - u, 1 - v)):
        upper = die[0] + a[..., np.newaxis] * (die[1] - die[0])
        lower = die[3] + a[..., np.newaxis] * (die[2] - die[3])
        at = np.rint(upper + b[..., np.newaxis] * (lower - upper)).astype(int).reshape(-1, 2)
        inside = (at >= 0).all(axis=1) & (at[:, 0] < image.shape[1]) & (at[:, 1] < image.shape[0])
        if not inside.any():
            return None
        seen = image[at[inside, 1], at[inside, 0]].astype(float).sum(axis=1)
        means.append(float(np.median(seen)))
        spreads.append(1.4826 * float(np.median(np.abs(seen - np.median(seen)))) / math.sqrt(len(seen)))
    difference = (means[0] - means[1]) * (1 if pin_one.brighter else -1)
    if abs(difference) < 4 * math.hypot(*spreads) + 0.05 * max(means):
        return None
    return difference < 0
