"""From pixels and grey to nm, where that is known: per image, because a file may tell its own pixel size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from waferlens.bundle.calibration import Interval
from waferlens.ops.hole import UNITS, rescaled_angle

PLAIN = ("plateau", "floor")
"""Levels of the depth map before its plateau is set to 0: grey for good, they have no length."""
_NEEDS = {"px": "lateral", "grey": "depth", "px2": "lateral", "grey px2": "both"}
_NM = {"px": "nm", "grey": "nm", "px2": "nm2", "grey px2": "nm3"}


@dataclass(frozen=True, slots=True)
class Scales:
    """What a pixel and a grey value are, for each image; NaN where it is not known."""

    pixel_nm: Float[np.ndarray, " b"]
    nm_per_grey: Float[np.ndarray, " b"]


@dataclass(frozen=True, slots=True)
class Physical:
    """A measurand in the unit it can be told in."""

    interval: Interval
    in_nm: np.ndarray
    """Per image: whether it is in `unit_nm`, else in `unit_raw`."""
    unit_nm: str
    unit_raw: str

    def units(self) -> list[str]:
        """The unit of each image's number."""
        if self.in_nm.all():
            return [self.unit_nm] * len(self.in_nm)
        return [self.unit_nm if known else self.unit_raw for known in self.in_nm.tolist()]


def needs(name: str) -> str:
    """What a measurand needs to be told in nm: `lateral`, `depth`, `both`; or `nothing` if it has no length."""
    if name == "wall_angle_deg":
        return "both"
    return "nothing" if name in PLAIN else _NEEDS.get(UNITS[name], "nothing")


def to_physical(raw: Mapping[str, Interval], scales: Scales) -> dict[str, Physical]:
    """Every measurand in nm where the scales it needs are known, else as it was.

    The wall angle has no meaning in pixels and grey: where a scale is missing it is NaN.

    Args:
        raw: intervals in the units of `ops.hole`, by name.
        scales: of each image.
    """
    lateral, depth = scales.pixel_nm, scales.nm_per_grey
    out = {}
    for name, interval in raw.items():
        unit = UNITS[name]
        if name == "wall_angle_deg":
            # an end that calibration pushed beyond 90 or below 0 stays there: the formula is good for 0..180
            known = np.isfinite(lateral) & np.isfinite(depth)
            angles = (np.where(known, rescaled_angle(part, depth, lateral), np.nan) for part in interval)
            out[name] = Physical(Interval(*angles), np.ones(len(known), bool), unit, unit)
            continue
        factor = {
            "lateral": lateral**2 if unit == "px2" else lateral,
            "depth": depth,
            "both": lateral**2 * depth,
            "nothing": np.full(len(lateral), np.nan),
        }[needs(name)]
        known = np.isfinite(factor)
        by = np.where(known, factor, 1.0)
        out[name] = Physical(Interval(*(part * by for part in interval)), known, _NM.get(unit, unit), unit)
    return out
