"""Worlds of the package station: what the simulator draws, every number with its unit.

Lengths are nominal pixels of the upright part: with `frame.scale` 1 they are pixels of the image. Source of the
numbers: S2 where it tells them, and the literature named in the simulator's modules; the rest is ours.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from waferlens.recipe.faults import disagreement
from waferlens.recipe.hole_world import Range
from waferlens.recipe.sections import Fraction, Name, Section

Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Colour = tuple[Fraction, Fraction, Fraction]
"""Red, green, blue: reflectance, linear."""


class Frame(Section):
    """How the part lies in the image."""

    width_px: Annotated[int, Field(ge=64)] = 785
    """Columns of the image [px]"""
    height_px: Annotated[int, Field(ge=64)] = 1295
    """Rows of the image [px]"""
    pixel_um: Positive = 2.0
    """Size of a pixel [um]"""
    place_px: tuple[float, float] = (30.0, -36.0)
    """Mean place of the part's centre from that of the image, x and y [px]"""
    scatter_px: tuple[NotNegative, NotNegative] = (12.0, 14.0)
    """Standard deviation of that place, drawn within two of them; no part is cut by the frame [px]"""
    turn_deg: NotNegative = 1.2
    """Standard deviation of the part's angle in most images, drawn within two of them [deg]"""
    wide_share: Fraction = 0.2
    """Share of images in which it is turned further."""
    wide_deg: NotNegative = 9.0
    """There its angle is uniform to either side [deg]"""
    scale: Range = (1.0, 1.0)
    """Pixels of the image a nominal pixel."""
    distortion: Range = (0.0, 0.0)
    """k1 of the radial distortion: the ideal place is that of the pixel times 1 + k1 (r / half diagonal)²."""


class Contents(Section):
    """How often devices are defective."""

    good: NotNegative = 0.34
    """Share of devices without a defect of the die."""
    crack: NotNegative = 0.43
    """Share with cracks, chips or scratches."""
    rotate: NotNegative = 0.19
    """Share with a turned die."""
    both: NotNegative = 0.04
    """Share with both."""
    missing: Fraction = 0.015
    """Share of devices without a die, whatever they would have had."""


class Rotation(Section):
    """The die's angle against the package."""

    limit_deg: Positive = 0.5
    """Smallest angle that is a defect [deg]"""
    good_deg: NotNegative = 0.12
    """Standard deviation of good dies [deg]"""
    good_most_deg: NotNegative = 0.3
    """Greatest angle of a good die [deg]"""
    shape: Positive = 1.6
    """Shape of the gamma distribution by which a defective angle exceeds the limit."""
    scale_deg: Positive = 1.3
    """Its scale [deg]"""
    most_deg: Positive = 6.0
    """Greatest angle drawn [deg]"""
    through_limit: Range | None = None
    """Where set, every die's angle is uniform in this range to either side, and the limit tells its class [deg]"""
    offset_px: NotNegative = 3.0
    """Standard deviation of the die's place along each axis [px]"""
    cavity_deg: NotNegative = 0.05
    """Standard deviation of the cavity's angle against the package [deg]"""
    leads_deg: NotNegative = 0.08
    """Standard deviation of the leads' angle against the package [deg]"""


class Products(Section):
    """The layouts: what is drawn on the dies of a world, and where."""

    seed: Annotated[int, Field(ge=0)] = 1
    """Seed of the layouts; the same in every data set of the world."""
    count: Annotated[int, Field(ge=1)] = 1
    """How many products the devices are of."""
    die_width_px: Range = (300.0, 352.0)
    """[px]"""
    die_height_px: Range = (380.0, 470.0)
    """[px]"""
    blocks: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (22, 34)
    """Fewest and most logic blocks."""
    grating_px: Range = (3.0, 7.0)
    """Pitch of the lines of a block [px]"""
    purple: Fraction = 0.4
    """Share of dies whose photodiode has a purple film; the others' is green."""


class Body(Section):
    """The moulded body and the board below it."""

    width_px: Positive = 581.0
    """[px]"""
    height_px: Positive = 1090.0
    """[px]"""
    tolerance: NotNegative = 0.008
    """Greatest relative deviation of each side."""
    border_px: Range = (7.0, 20.0)
    """w of the soft border, whose share of body is 1 / (1 + exp(4 d / w)) at the distance d [px]"""
    roughness: NotNegative = 0.35
    """Standard deviation of what is added to that exponent along the border; correlated over 25 px."""
    albedo: NotNegative = 0.0085
    """Reflectance of the body."""
    albedo_spread: Range = (0.7, 1.5)
    """Factors of it."""
    board: Colour = (0.040, 0.165, 0.058)
    """Reflectance of the board."""
    board_hue_deg: NotNegative = 0.0
    """Greatest turn of the board's hue [deg]"""
    hot_spots: NotNegative = 0.0
    """Mean number of glints on the body."""


class CrackSpec(Section):
    """Cracks, chips and scratches of the die."""

    kinds: tuple[NotNegative, NotNegative, NotNegative] = (0.66, 0.28, 0.06)
    """How often a defect is a crack, a chip, a scratch."""
    more: NotNegative = 0.23
    """Mean number of further defects on a die that has one."""
    length_px: Positive = 22.0
    """Median length of cracks [px]"""
    length_spread: NotNegative = 1.15
    """Standard deviation of its logarithm."""
    length_range_px: Range = (14.0, 420.0)
    """Shortest and longest crack [px]"""
    half_width_px: Range = (0.6, 1.8)
    """At its start [px]"""
    branches: NotNegative = 0.010
    """Mean number a pixel of length."""
    diagonal: Fraction = 0.25
    """Share of cracks that run at 45 deg to the edge."""
    interior: Fraction = 0.0
    """Share of cracks that begin inside the die."""
    shift_px: Range = (0.0, 1.0)
    """How far the texture is offset across a crack [px]"""
    chip_px: Positive = 11.0
    """Median radius of chips [px]"""
    chip_spread: NotNegative = 0.5
    """Standard deviation of its logarithm."""
    chip_corner: Fraction = 0.35
    """Share of chips at corners."""
    scratch_px: Range = (40.0, 260.0)
    """Length of scratches [px]"""
    strength: Range = (0.45, 1.0)
    """How strongly a defect shows; 0 is not at all, 1 is black."""
    scatter: Range = (0.10, 0.55)
    """Dark-field scatter of a crack."""
    least_px: Annotated[int, Field(ge=1)] = 12
    """A defect with fewer visible pixels is not drawn."""


class Clutter(Section):
    """What is no defect of the die and may look like one."""

    led_mark: Fraction = 0.45
    """Share of devices with a crack-like mark on the emitter."""
    dust: NotNegative = 1.2
    """Mean number of grains of dust."""
    fibres: NotNegative = 0.12
    """Mean number of fibres."""
    probe_marks: Fraction = 0.8
    """Share of pads that show the mark of a probe."""


class Microscope(Section):
    """Light and camera."""

    blur_px: Range = (0.7, 1.3)
    """Standard deviation of the point spread [px]"""
    shading: Range = (0.03, 0.15)
    """Relative fall of the light towards the edge."""
    exposure_ev: Range = (0.0, 0.0)
    """Exposure of an image, powers of two."""
    white_balance: NotNegative = 0.0
    """Greatest relative error of a channel's gain."""
    full_well_e: Positive = 6000.0
    """Electrons at white [e]"""
    read_e: NotNegative = 3.0
    """Read noise [e]"""
    bayer: bool = False
    """Whether the camera has one chip with a mosaic of colours."""
    jpeg: tuple[Annotated[int, Field(ge=1, le=100)], Annotated[int, Field(ge=1, le=100)]] | None = None
    """Lowest and highest quality with which images were compressed before they came."""


class PackageWorld(Section):
    """One domain of the package station."""

    name: Name
    """Name of the world."""
    hidden_truth: bool = False
    """Write images and their verdicts only; the truth comes back from the evaluation seed."""
    frame: Frame = Frame()
    """How the part lies in the image."""
    contents: Contents = Contents()
    """How often devices are defective."""
    rotation: Rotation = Rotation()
    """The die's angle."""
    products: Products = Products()
    """What is drawn on the dies."""
    body: Body = Body()
    """Body and board."""
    cracks: CrackSpec = CrackSpec()
    """Defects of the die."""
    clutter: Clutter = Clutter()
    """What only looks like defects."""
    microscope: Microscope = Microscope()
    """Light and camera."""

    @model_validator(mode="after")
    def _parts_fit(self) -> PackageWorld:
        faults = []
        mix = self.contents
        if mix.good + mix.crack + mix.rotate + mix.both <= 0:
            faults.append(("contents", "every share is 0; give good, crack, rotate or both a share"))
        if sum(self.cracks.kinds) <= 0:
            faults.append(("cracks.kinds", "every share is 0; give cracks, chips or scratches a share"))
        if self.rotation.good_most_deg >= self.rotation.limit_deg:
            faults.append(("rotation.good_most_deg", "a good die must lie within rotation.limit_deg"))
        if self.rotation.most_deg <= self.rotation.limit_deg:
            faults.append(("rotation.most_deg", "must exceed rotation.limit_deg"))
        if self.microscope.jpeg is not None and self.microscope.jpeg[0] > self.microscope.jpeg[1]:
            faults.append(("microscope.jpeg", "runs from the lowest quality to the highest"))
        if faults:
            raise disagreement(faults)
        return self
