"""The world of the hole simulator: every range a hole, a material and a microscope are drawn from.

A domain (`sim`, `real`, `stress` …) is a file in `waferlens/worlds`, never a branch in code.

Two kinds of spread:

* a range `[low, high]` is drawn uniformly; `nuisance` f shrinks the ranges of material and instrument about
  their midpoint (f = 0 is one fixed recipe, 0.2 the default, 1 the whole range);
* a normal `{mean, std}` is drawn as it stands; in the instrument its std is scaled by min(1, f / 0.2), so
  that f = 0 is a fixed recipe there too.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from waferlens.recipe.faults import disagreement
from waferlens.recipe.sections import Section


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"a range runs from low to high; got [{pair[0]:g}, {pair[1]:g}]")
    return pair


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
"""`[low, high]`, drawn uniformly."""


class Normal(Section):
    """A normal distribution."""

    mean: float
    """Mean."""
    std: NonNegativeFloat = 0.0
    """Standard deviation."""


class HoleGeometry(Section):
    """What is etched: the contour, the wall and the floor."""

    half_width_x: Normal
    """Half opening along x at super-ellipse exponent 2.6 [px]"""
    half_width_y: Normal
    """Half opening along y at super-ellipse exponent 2.6 [px]"""
    exponent: Range
    """Super-ellipse exponent; the opening's area does not depend on it."""
    offset: Normal
    """Placement error of the hole in its cell, per axis [px]"""
    rotation: Normal
    """Rotation of the hole [deg]"""
    roughness_std: NonNegativeFloat
    """Standard deviation of the contour roughness [px]"""
    roughness_length: Range
    """Correlation length of the contour roughness [px]"""
    roughness_exponent: Range
    """Hurst exponent of the contour roughness."""
    wall_width: Range
    """Width of the wall seen from above [px]"""
    corner_rounding: Range
    """Share of the smoother wall profile: 0 sharp, 1 round."""
    floor: Normal
    """Height of the floor above the reference; unused where `process` ties the floor to a depth [nm]"""
    bow: Range
    """Curvature of the floor: rim minus centre [nm]"""
    floor_roughness: Normal
    """Roughness of the floor: `mean` is its standard deviation [nm]"""
    floor_roughness_length: Range
    """Correlation length of the floor roughness [px]"""
    pit_probability: float = Field(ge=0, le=1)
    """How often the floor has a pit."""
    pit_depth: Range
    """Depth of a pit at a plateau of 155 nm; it grows with the square of the plateau [nm]"""
    top_roughness_std: NonNegativeFloat = 0.0
    """Roughness of the plateau [nm]"""
    micro_trench: NonNegativeFloat = 0.0
    """Greatest depth of a micro-trench at the foot of the wall [nm]"""
    residue: NonNegativeFloat = 0.0
    """Greatest height of residue on the floor [nm]"""
    hidden_bowing: NonNegativeFloat = 0.0
    """Widening below the rim that the picture cannot show; it only takes signal away."""


class HoleProcess(Section):
    """How depth comes about on a wafer; absent in a world whose floor is drawn freely."""

    depth_below_plateau: float
    """Plateau minus the mean depth of a site [nm]"""
    site_depth_std: NonNegativeFloat
    """Spread of the depth between sites [nm]"""
    hole_depth_std: NonNegativeFloat
    """Spread of the depth between holes of a site [nm]"""
    arde_nm_per_px: float
    """Aspect-ratio dependent etching: a larger opening is etched deeper [nm/px]"""
    site_cd_std: NonNegativeFloat = 0.0
    """Spread of the half opening between sites [px]"""


class HoleMaterial(Section):
    """What the electrons meet."""

    wall_gain: Range
    """Greatest extra yield of a steep wall."""
    field_factor: Range
    """Horizon factor kappa: 0 when the extraction field straightens every trajectory, 1 without field."""
    re_emission: Range
    """Re-emission of what the wall catches."""
    attenuation_length: Range
    """Collection along the hole falls off as exp(-h / length) [nm]"""
    charging: Range
    """Slowing of electrons by a positively charged floor."""
    bloom_gain: Range
    """Strength of the bright rim on the plateau."""
    bloom_width: Range
    """Width of the bright rim [px]"""
    bloom_saturation: PositiveFloat
    """Step height at which the rim stops growing [nm]"""
    floor_yield: Range
    """Yield of the floor's material relative to the plateau."""


class HoleInstrument(Section):
    """The microscope, its scan and its camera."""

    delocalised: Range
    """Share of electrons that come out far from the beam (SE2, BSE)."""
    delocalised_width: PositiveFloat
    """How far [px]"""
    beam: Range
    """Standard deviation of the beam [px]"""
    astigmatism: NonNegativeFloat
    """Greatest log-ratio of the beam's width along x and y to its mean."""
    video_lag: NonNegativeFloat
    """Time constant of the video amplifier [px]"""
    dose: Range
    """Primary electrons a pixel."""
    yield_plateau: PositiveFloat
    """Secondary electrons a primary electron on the plateau."""
    read_noise: NonNegativeFloat
    """Noise of the electronics [grey]"""
    streak: Range
    """Strength of the dark trail behind bright edges."""
    streak_length: PositiveFloat
    """Length of that trail [px]"""
    row_jitter: NonNegativeFloat
    """Random shift of each row along x [px]"""
    drift: NonNegativeFloat
    """Greatest drift along x from the first to the last row [px]"""
    row_gain: NonNegativeFloat
    """Relative spread of the gain between rows."""
    shading: NonNegativeFloat
    """Strength of the smooth shading over the field."""
    detector_asymmetry: Range
    """How much more one side of the detector collects."""
    gain: Normal
    """Grey per unit of signal; `std` is relative [grey]"""
    offset: Normal
    """Grey of no signal [grey]"""
    gamma: PositiveFloat
    """Exponent of the display curve."""


class HoleWorld(Section):
    """One domain of the hole simulator.

    Source: Palasantzas 1993 (roughness), Jonker 1951 (cosine emission), Reimer 1998 (yield), Frank 2005 (noise).
    """

    name: str
    """Name of the world."""
    kind: Literal["paired", "sites"] = "paired"
    """`paired`: structures with truth, in four cases of two images; `sites`: holes of sites, no truth written."""
    summary: str
    """One line."""
    extends: str | None = None
    """The world this one differs from."""
    height_px: PositiveInt = 72
    """Rows of an image [px]"""
    width_px: PositiveInt = 48
    """Columns of an image [px]"""
    pixel_nm: PositiveFloat = 1.0
    """Pixel size [nm]"""
    plateaus: Annotated[tuple[float, ...], Field(min_length=1, max_length=4)] = (140.0, 150.0, 160.0, 170.0)
    """Height of the plateau in each of the cases, at most the four of the layout [nm]"""
    plateau_range: Range | None = None
    """If set, the plateau is drawn uniformly from this range instead of the cases [nm]"""
    nuisance: float = Field(default=0.2, ge=0, le=1)
    """Share of every material and instrument range that is used."""
    geometry: HoleGeometry
    """What is etched."""
    process: HoleProcess | None = None
    """How depth comes about on a wafer."""
    material: HoleMaterial
    """What the electrons meet."""
    instrument: HoleInstrument
    """The microscope."""

    @model_validator(mode="after")
    def _sites_have_a_process(self) -> HoleWorld:
        if self.kind == "sites" and self.process is None:
            raise disagreement([("process", "is missing; a world of kind 'sites' says there how deep its holes are")])
        return self
