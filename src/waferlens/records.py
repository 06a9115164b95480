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
class Place:
    """Where something lies on an upright part, and how large it is: x to the right, y up from its lower left corner."""

    x: float
    """Of its middle [unit]"""
    y: float
    """Of its middle [unit]"""
    width: float
    """[unit]"""
    height: float
    """[unit]"""
    unit: Literal["um", "px"]
    """`px` where the size of a pixel is not known."""


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
    place: Place | None = None
    """Where it lies on its part; None where no part is found in the image."""


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    """What somebody, or a simulator, says is at a place of an image: its class and its outline, as exactly as told.

    An outline is polygons, or a mask, or neither, where the box is all that is known; an oriented box has a quad.
    """

    kind: str
    """Its class."""
    box: tuple[float, float, float, float]
    """x0 y0 x1 y1, outer edges: the first pixel alone is -0.5 -0.5 0.5 0.5 [px]"""
    polygons: tuple[tuple[tuple[float, float], ...], ...] = ()
    """Rings of (x, y), each of three corners or more, closed without repeating the first; several are parts of one
    thing. The image's own outer corner is (-0.5, -0.5) [px]"""
    mask: Bool[np.ndarray, "h w"] | None = None
    """Its pixels; what lies outside of the array is not part of it."""
    mask_corner: tuple[int, int] = (0, 0)
    """(x, y) of the first pixel of the mask in the image [px]"""
    quad: tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]] | None = None
    """Corners of an oriented box: the upper left, upper right, lower right and lower left of it when upright [px]"""
    angle_deg: float | None = None
    """How far the quad is turned from upright, anticlockwise as seen, above -180 and up to 180 [deg]"""
    ignore: bool = False
    """Whether it counts neither as found nor as missed: a mark that is no defect, a crowd."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Label):
            return NotImplemented
        if self._without_mask() != other._without_mask() or (self.mask is None) != (other.mask is None):
            return False
        if self.mask is None or other.mask is None:
            return True
        (mine, corner), (its, its_corner) = tight(self.mask, self.mask_corner), tight(other.mask, other.mask_corner)
        return corner == its_corner and np.array_equal(mine, its)

    __hash__ = None  # type: ignore[assignment]  # a mask cannot be hashed

    def _without_mask(self) -> tuple[Any, ...]:
        return (self.kind, self.box, self.polygons, self.quad, self.angle_deg, self.ignore)


def tight(
    mask: Bool[np.ndarray, "h w"], corner: tuple[int, int] = (0, 0)
) -> tuple[Bool[np.ndarray, "h2 w2"], tuple[int, int]]:
    """A mask without its empty rows and columns at the border, and where its first pixel is then; empty if it is."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return mask[:0, :0], (0, 0)
    inner = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.ascontiguousarray(inner), (int(corner[0] + columns[0]), int(corner[1] + rows[0]))


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
