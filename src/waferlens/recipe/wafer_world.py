"""Worlds of the wafer station: what the simulator draws, every number with its unit.

Source of the numbers: S0, its public scripts, and the literature named in the simulator's modules; the rest is ours.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from waferlens.recipe.faults import disagreement
from waferlens.recipe.hole_world import Range
from waferlens.recipe.sections import Fraction, Name, Section

Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]


class Carriers(Section):
    """What the dies lie on: how often each, and how bright."""

    tape: NotNegative = 0.5
    """Share of wafers on tape."""
    glass: NotNegative = 0.2
    """Share of wafers on glass."""
    silicon: NotNegative = 0.2
    """Share of wafers on silicon."""
    metal: NotNegative = 0.1
    """Share of wafers on metal."""
    tape_reflectance: Range = (0.02, 0.06)
    """Reflectance of tape."""
    glass_reflectance: Range = (0.04, 0.08)
    """Reflectance of glass."""
    silicon_reflectance: Range = (0.30, 0.38)
    """Reflectance of silicon."""
    metal_reflectance: Range = (0.35, 0.60)
    """Reflectance of metal."""
    bow_um: NotNegative = 40.0
    """Standard deviation of the bow over 300 mm, free [um]"""
    warp_um: NotNegative = 12.0
    """Standard deviation of each astigmatic term over 300 mm, free [um]"""
    tape_texture_um: NotNegative = 2.7
    """Standard deviation of the surface of tape [um]"""
    hard_texture_um: NotNegative = 0.2
    """Standard deviation of the surface of the others [um]"""


class Lattice(Section):
    """How dies lie."""

    pitch_x_um: Range = (4500.0, 14000.0)
    """Along the scan [um]"""
    pitch_y_um: Range = (3000.0, 12000.0)
    """Across the scan [um]"""
    street_um: Range = (80.0, 700.0)
    """Width of the streets [um]"""
    jitter_um: NotNegative = 8.0
    """Standard deviation of a die's place along each axis [um]"""
    missing: Range = (0.15, 0.6)
    """Share of missing dies of a wafer."""


class Stack(Section):
    """What stands at each site."""

    thicknesses_um: tuple[Positive, ...] = Field(
        default=(50, 75, 100, 150, 166, 250, 310, 375, 550, 750, 775), min_length=1
    )
    """Thicknesses of dies [um]"""
    levels: tuple[NotNegative, NotNegative, NotNegative, NotNegative] = (0.5, 0.3, 0.15, 0.05)
    """How often 1, 2, 3 and 4 levels occur."""
    inset_um: Range = (60.0, 420.0)
    """How far a level lies inside the one below, at each side [um]"""
    bond_um: Range = (3.0, 12.0)
    """Bond line under each die [um]"""
    thickness_std: NotNegative = 0.005
    """Relative standard deviation of a die's thickness."""
    tilt_mrad: NotNegative = 0.6
    """Standard deviation of a die's tilt along each axis [mrad]"""
    warp_thick_um: NotNegative = 6.0
    """Greatest warp of a die of 200 um or more, to either side [um]"""
    warp_thin_um: NotNegative = 14.0
    """Greatest warp of a thinner die [um]"""
    total_um: Positive = 800.0
    """Greatest height of a stack; levels that would exceed it are left out [um]"""


class Interconnect(Section):
    """Pillars, bumps and pads on the top level."""

    pillar_share: Fraction = 0.45
    """Share of the products without pad rows that have an array of copper pillars."""
    solder_share: Fraction = 0.25
    """Share of the products without pad rows that have an array of solder domes."""
    pad_row_share: Fraction = 0.6
    """Share of products with rows of pads, each with a bump."""
    pillar_diameter_um: Range = (20.0, 32.0)
    """[um]"""
    solder_diameter_um: Range = (70.0, 100.0)
    """[um]"""
    pitch_of_diameter: Range = (1.8, 2.4)
    """Pitch of an array in diameters."""
    height_of_diameter: Range = (0.35, 0.75)
    """Height in diameters."""
    missing: Fraction = 0.015
    """Share of missing bumps."""
    height_std: NotNegative = 0.02
    """Relative standard deviation of their heights."""


class Surface(Section):
    """How bright dies are, and what is drawn on them."""

    palette: Range = (0.07, 0.68)
    """Reflectances a product's colours are drawn from."""
    colours: Annotated[int, Field(ge=2)] = 7
    """Colours of a product."""
    blocks: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (6, 26)
    """Fewest and most blocks of a die."""
    grating_pitch_um: Range = (5.0, 26.0)
    """[um]"""
    texture_contrast: Range = (0.05, 0.35)
    """Relative amplitude of gratings, logic and memory."""
    logic_cell_um: Positive = 9.0
    """Size of a cell of random logic [um]"""
    rim_um: Range = (3.0, 12.0)
    """Width of the dark rim where a wall falls off [um]"""
    particles: NotNegative = 5.0
    """Mean number of particles in a field."""
    fillet: Fraction = 0.0
    """Share of products with an underfill fillet around their dies."""
    chipped: Fraction = 0.0
    """Share of dies with a chipped edge."""


class Microscope(Section):
    """Objective, focus and camera."""

    magnification: Positive = 5.0
    """Of the objective."""
    na: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.14
    """Numerical aperture."""
    wavelength_um: Positive = 0.55
    """[um]"""
    focus_error_um: NotNegative = 6.0
    """Standard deviation of the height of focus [um]"""
    track_share: Fraction = 0.25
    """Share of wafers scanned with the focus following the auto-focus."""
    track_cutoff_hz: Range = (20.0, 50.0)
    """Bandwidth with which it follows [Hz]"""
    shading: NotNegative = 0.06
    """Greatest shading across the line."""
    tdi_row_noise: NotNegative = 0.006
    """Relative standard deviation of the gain of a row."""
    glare: Fraction = 0.03
    """Share of the field's mean that veils it."""
    smear_um: NotNegative = 1.5
    """Smear along the scan [um]"""
    full_well_e: Positive = 25000.0
    """Electrons of a native pixel at white [e]"""
    read_e: NotNegative = 12.0
    """Read noise [e]"""
    gamma: Positive = 1.0
    """Of the camera."""


class AutoFocus(Section):
    """The sensor that gives one height a scan position."""

    softness_um: Positive = 12.0
    """T: what lies this far below the highest weighs e times less [um]"""
    mean_share: Fraction = 0.15
    """m: share of the plain mean in the reading."""
    lag_ms: Range = (0.4, 0.4)
    """Time constant of its low-pass [ms]"""
    noise_counts: NotNegative = 90.0
    """Standard deviation at full signal [count]"""
    dropout: Fraction = 0.004
    """Chance of a dropout at a sample; eight times at steps, twice at low signal."""
    velocity_ripple: Fraction = 0.006
    """Relative amplitude of the stage's speed."""
    latency_samples: Range = (0.0, 0.0)
    """Samples by which readings come late; a whole number is drawn."""
    footprint_um: tuple[Positive, Positive] = (20.0, 40.0)
    """Of the sensor, along and across the scan [um]"""
    z_ref_um: Positive = 775.0
    """Height above the carrier at which the reading is 0 [um]"""
    rate_hz: Positive = 8000.0
    """[Hz]"""
    speed_mm_s: Positive = 182.0
    """[mm/s]"""


class WaferWorld(Section):
    """One domain of the wafer station."""

    name: Name
    """Name of the world."""
    hidden_truth: bool = False
    """Write images and tracks only; the truth comes back from the evaluation seed."""
    fields_per_wafer: Annotated[int, Field(ge=1)] = 3
    """Fields of each wafer."""
    nuisance: Fraction = 1.0
    """Share of the instrument's ranges that is drawn from."""
    carriers: Carriers = Carriers()
    """What the dies lie on."""
    lattice: Lattice = Lattice()
    """How dies lie."""
    stack: Stack = Stack()
    """What stands at each site."""
    interconnect: Interconnect = Interconnect()
    """Bumps and pads."""
    surface: Surface = Surface()
    """How bright, and what is drawn on it."""
    microscope: Microscope = Microscope()
    """Objective, focus, camera."""
    af: AutoFocus = AutoFocus()
    """The auto-focus sensor."""

    @model_validator(mode="after")
    def _some_carrier(self) -> WaferWorld:
        mix = self.carriers
        if mix.tape + mix.glass + mix.silicon + mix.metal <= 0:
            raise disagreement([("carriers", "every share is 0; give at least one carrier a share")])
        if sum(self.stack.levels) <= 0:
            raise disagreement([("stack.levels", "every share is 0; give at least one number of levels a share")])
        return self


Domain = Literal["sim", "real", "stress", "hard"]
"""The worlds that are shipped."""
