"""The nouns that travel between the rooms. They know no vendor, no file format and no framework.

Conventions, said once here and followed everywhere:

* arrays are `h w` (row y, column x), batches `b h w` or `b c h w`; points are (x, y); boxes are x0 y0 x1 y1;
* the centre of the first pixel is (0, 0); x grows to the right, y grows downwards in the array;
* angles are in degrees, counter-clockwise as seen from above, from the +x axis;
* heights are positive up. A depth is a positive number: plateau minus floor;
* a length carries its unit: nm and µm only where a calibration is known, else `px` and `grey`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

COUNTS_PER_UM = 32.0
"""Counts of the stage's encoders, and of the auto-focus sensor, in one µm (S0)."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """A number with its unit, its interval and how it came about."""

    name: str
    value: float | None
    """None where the thing cannot be measured on this input; `method` says why."""
    unit: str
    low: float | None = None
    """Lower end of the coverage interval; None unless an uncertainty is known."""
    high: float | None = None
    method: str = ""
    file: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The record as a dictionary that JSON can hold: a number that is not finite becomes null."""
        record = asdict(self)
        for key in ("value", "low", "high"):
            number = record[key]
            if number is not None and not math.isfinite(number):
                record[key] = None
        return record


@dataclass(frozen=True, slots=True)
class Finding:
    """Something found at a place of an image."""

    kind: str
    """Its class: `deviation` where nothing was learned that would tell classes apart."""
    box: tuple[float, float, float, float]
    """x0 y0 x1 y1, the outer edges of its pixels: a finding of the first pixel alone is -0.5 -0.5 0.5 0.5 [px]"""
    score: float
    """How sure or how strong: a share for networks; for comparisons with a good part, the greatest deviation in units
    of what is tolerated there, so that above 1 is beyond it."""
    area_px: float
    """Pixels that deviate [px²]"""
    contrast: float
    """Mean difference from the reference over those pixels, positive where the image is brighter [grey]"""
    light_or_dark: Literal["light", "dark"]
    critical: bool
    """Whether the rules call it critical; what is not is tolerable and only listed."""
    rule: str = ""
    """The rule that said so."""


@dataclass(frozen=True, slots=True, eq=False)
class HeightMap:
    """A height map: heights, where they are known, and in what units they are told."""

    heights: Float[np.ndarray, "h w"]
    """Positive up, NaN where not valid [unit]"""
    valid: Bool[np.ndarray, "h w"]
    unit: str
    """Unit of the heights: `nm`, `um`, `m`, or `grey` when uncalibrated."""
    pitch_x: float
    """Distance of neighbouring columns [pitch_unit]"""
    pitch_y: float
    """Distance of neighbouring rows [pitch_unit]"""
    pitch_unit: str
    """`nm`, `um`, `mm`, `m`, or `px` when unknown."""
    sigma: Float[np.ndarray, "h w"] | None = None
    """One standard deviation of each height [unit]"""
    origin: dict[str, Any] = field(default_factory=dict)
    """Where it came from: file, channel, instrument, remarks of the reader."""


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """Pixels as they were taken: never scaled, never cut to 8 bits."""

    pixels: np.ndarray
    """`h w` grey, in the file's own type (uint8, uint16 or float32) [grey]"""
    full_scale: float
    """Grey value of white: 255 for 8 bits, 65535 for 16, 1.0 for float images in 0..1 [grey]"""
    pixel_nm: float | None = None
    """Pixel size, if a tag of the file says it [nm]"""
    path: str = ""
    page: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class StageTrace:
    """What a scanning stage and its auto-focus sensor wrote down, sample by sample, in the raw units of the machine."""

    x_counts: Int64[np.ndarray, " m"]
    """Encoder of the scan axis; `COUNTS_PER_UM` counts are one µm [count]"""
    y_counts: Int64[np.ndarray, " m"]
    """Encoder of the axis across the scan [count]"""
    z_counts: Int64[np.ndarray, " m"]
    """Auto-focus reading as it came: it grows **downwards**, 0 at `z_ref_um` above the carrier [count]"""
    valid: Bool[np.ndarray, " m"]
    """The machine's own flag."""
    objective_z_um: Float64[np.ndarray, " m"] | None = None
    """Height of the plane of focus above the carrier, positive up, if the trace tells it [um]"""
    z_ref_um: float = 775.0
    """Height above the carrier at which the raw reading is 0; a constant of the machine [um]"""
    rate_hz: float = 8000.0
    """Samples a second [Hz]"""
    further: dict[int, np.ndarray] = field(default_factory=dict)
    """Every other column of the file by its number from 0, kept as it came."""
    header: tuple[str, ...] = ()
    """The header rows as they came."""

    @property
    def z_um(self) -> Float64[np.ndarray, " m"]:
        """Heights above the carrier, positive up; readings that are not valid included [um]"""
        return self.z_ref_um - self.z_counts / COUNTS_PER_UM


@dataclass(frozen=True, slots=True)
class Product:
    """What is known of a product before it is looked at: its nominal stack."""

    die_thickness_um: float
    """Nominal thickness of its lowest die [um]"""
    level_tops_um: tuple[float, ...]
    """Nominal height of the top of each level above the carrier, rising; the last is the top of the stack [um]"""


@dataclass(frozen=True, slots=True)
class Die:
    """A site of the die lattice in a field or swath."""

    box_um: tuple[float, float, float, float]
    """x0 y0 x1 y1 in the frame of the image, from the outer edge of its first pixel; may reach beyond it [um]"""
    state: Literal["present", "missing", "unsure"]
    top_um: float | None = None
    """Height of its top level above the carrier; None where it is missing or unknown [um]"""
    levels: tuple[tuple[float, float, float, float, float], ...] = ()
    """Of each level x0 y0 x1 y1 and its top, the lowest first [um]"""


@dataclass(slots=True)
class RunCard:
    """What a run was: enough to make it again."""

    kind: str
    recipe: dict[str, Any]
    seeds: dict[str, int]
    versions: dict[str, str]
    data: dict[str, Any]
    """Fingerprints of the data: folder name, number of files, sha256 over the manifest."""
    sources: list[str] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    started: str = ""
    seconds: float | None = None
