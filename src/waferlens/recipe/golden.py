"""Recipes that compare with a good part: nothing is learned by a network, so nothing here needs torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from waferlens.recipe.faults import disagreement
from waferlens.recipe.sections import Fraction, Line, Probability, Recipe, Section

Pixels = Annotated[float, Field(ge=0.0)]
"""A length [px]"""
Area = Annotated[float, Field(ge=0.0)]
"""An area [px²]"""
Positive = Annotated[float, Field(gt=0.0)]
"""A number above 0."""


def _rising(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    if not (x0 < x1 and y0 < y1):
        raise ValueError("should be x0, y0, x1, y1 with x0 < x1 and y0 < y1")
    return box


Box = Annotated[tuple[float, float, float, float], AfterValidator(_rising)]
"""x0, y0, x1, y1 on the reference; the centre of the first pixel is (0, 0) [px]"""


class GoldenInput(Section):
    """The image as it comes in; any size, 8 bits, 16 bits or float, one channel."""

    pixel_um: Positive | None = None
    """Pixel size where neither the file nor the user says one; null leaves lengths in px [µm]"""


class RegistrationSpec(Section):
    """How an image is brought onto its reference."""

    motion: Literal["none", "shift", "rigid", "similarity", "affine"] = "rigid"
    """What may lie between the two: the fewer, the faster and the harder to mislead."""
    max_shift_px: Positive | None = None
    """Greatest shift that is looked for; null for a quarter of its shorter side. Where a pattern repeats, state
    less than half its pitch [px]"""
    max_angle_deg: Annotated[float, Field(ge=0.0, le=45.0)] = 5.0
    """Greatest rotation that is looked for [deg]"""
    min_score: Fraction = 0.5
    """Correlation of image and reference below which they are not taken for the same thing; the image is `review`."""
    min_overlap: Fraction = 0.5
    """Share of the image that the reference must cover, below which it is `review`."""
    local_px: Annotated[float, Field(ge=16.0)] | None = None
    """Distance of the nodes of a displacement field that is fitted after the motion, for film, etching and scanners
    that move parts of the image by themselves: defects should be smaller than it, and parts larger; null for none [px]
    """


class PhotometrySpec(Section):
    """How brightness is brought onto that of the reference."""

    gain_offset: bool = True
    """Fit one gain and one offset for each image over all that is not ignored, so that lamp and detector drift are no
    defects."""


class Areas(Section):
    """Where to look. Boxes stand on the reference and move with the image's registration."""

    care: tuple[Box, ...] = ()
    """Look in these only; empty looks everywhere."""
    ignore: tuple[Box, ...] = ()
    """Never look in these: LED marks, labels, what differs from part to part."""
    border_px: Pixels = 2.0
    """Width of the image's rim that is never judged: the reference may not reach it [px]"""


class Template(Section):
    """Golden template: a reference and what deviation from it is tolerated, pixel by pixel.

    tolerance = max(sigmas * spread, contrast_fraction * range of the reference) + position_px * its gradient

    What lies along an edge is more often a displaced edge than a defect, and a gradient cannot tell them apart; width
    can: with `compact_px` a deviation at an edge is tolerated as long as it is a ribbon, and found as soon as it is a
    blob.
    """

    kind: Literal["template"]
    """Which method."""
    centre: Literal["mean", "median"] = "median"
    """What of the good images becomes the reference."""
    spread: Literal["sd", "mad"] = "mad"
    """Their spread: standard deviation, or the median absolute deviation scaled to one, which a bad image among the
    good ones cannot raise."""
    sigmas_light: Positive = 4.0
    """Tolerated spreads where the image is brighter."""
    sigmas_dark: Positive = 4.0
    """Tolerated spreads where the image is darker."""
    contrast_fraction: Fraction = 0.05
    """Least tolerance, as a share of the reference's range (1 % to 99 % of its grey values)."""
    smoothing_px: Pixels = 0.0
    """Standard deviation of the Gaussian that image and reference are smoothed with before they are compared: noise
    falls, and defects of about this size stand out; 0 for none [px]"""
    position_px: Pixels = 0.0
    """Tolerated displacement of an edge, which becomes a tolerance in grey by the reference's gradient [px]"""
    compact_px: Annotated[int, Field(ge=2, le=15)] | None = None
    """Side of a square that is too wide for a displaced edge: where it fits into a deviation, position_px tolerates
    nothing; null for none [px]"""

    @model_validator(mode="after")
    def _in_order(self) -> Template:
        if self.compact_px is not None and self.position_px == 0:
            raise disagreement(
                [("compact_px", "position_px = 0 tolerates nothing at edges; raise it, or set this to null")]
            )
        return self


class Wavelet(Section):
    """Two-dimensional wavelets: energy of a scale that a good part does not have (R2 of S2)."""

    kind: Literal["wavelet"]
    """Which method."""
    levels: Annotated[int, Field(ge=2, le=7)] = 3
    """Scales of the transform; the coarsest serves the ratio of the next finer one only."""
    median_px: Literal[1, 3, 5] = 3
    """Side of the median filter before it; 1 for none [px]"""
    sobel: bool = True
    """Take the gradient magnitude first, as the source does."""
    sub_images: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (4, 5)
    """Rows and columns of sub-images; each has statistics of its own."""
    sigmas: Positive = 1.0
    """A pixel is looked at when its modulus exceeds mean + sigmas * standard deviation of the good part's."""
    cluster_px: Literal[1, 3, 5, 7, 9] = 3
    """Side of the square over which a pixel's wavelet energy is gathered [px]"""
    reach_px: Annotated[int, Field(ge=0, le=32)] = 2
    """How near the good part must have as much for a pixel to pass as not defective [px]"""


class DieToDie(Section):
    """Neighbours as reference: a finding only where a die differs from both, in the same sense."""

    kind: Literal["die-to-die"]
    """Which method."""
    sigmas: Positive = 6.0
    """Tolerated deviations from each neighbour, in robust standard deviations of their difference."""
    contrast_fraction: Fraction = 0.1
    """Least tolerance, as a share of the neighbour's range (1 % to 99 % of its grey values)."""
    smoothing_px: Pixels = 0.0
    """Standard deviation of the Gaussian that image and reference are smoothed with before they are compared: noise
    falls, and defects of about this size stand out; 0 for none [px]"""
    position_px: Pixels = 0.5
    """Tolerated displacement of an edge [px]"""


Method = Annotated[Template | Wavelet | DieToDie, Field(discriminator="kind")]
"""The methods, told apart by `kind`."""


class FindingRules(Section):
    """How deviating pixels become findings."""

    opening_px: Annotated[int, Field(ge=1, le=15)] = 1
    """Side of the square that must fit into a deviation; 1 takes every pixel [px]"""
    min_area_px: Annotated[int, Field(ge=1)] = 1
    """Smaller deviations are no finding [px²]"""
    merge_px: Annotated[int, Field(ge=0)] = 0
    """Deviations with at most so many pixels between them are one finding [px]"""
    margin_px: Pixels = 0.0
    """Added to each side of a finding's box: what people draw around a defect is wider than what deviates [px]"""


class Rule(Section):
    """One rule of the sheet that sorts findings; the first that fits decides. What is left out asks nothing."""

    name: Line
    """What the rule is called in results."""
    critical: bool
    """Whether a finding that fits is critical or tolerable."""
    min_area_px: Area | None = None
    """Least area [px²]"""
    max_area_px: Area | None = None
    """Greatest area [px²]"""
    min_contrast_grey: Area | None = None
    """Least mean difference, whatever its sign [grey]"""
    max_contrast_grey: Area | None = None
    """Greatest mean difference, whatever its sign [grey]"""
    light_or_dark: Literal["light", "dark"] | None = None
    """Only findings of this sense."""
    min_elongation: Annotated[float, Field(ge=1.0)] | None = None
    """Least ratio of the box's long side to its short one: scratches are long."""
    max_elongation: Annotated[float, Field(ge=1.0)] | None = None
    """Greatest ratio of the box's long side to its short one."""
    inside: tuple[Box, ...] = ()
    """Only findings whose centre lies in one of these boxes of the reference; empty is everywhere."""

    @model_validator(mode="after")
    def _in_order(self) -> Rule:
        faults = []
        for what in ("area_px", "contrast_grey", "elongation"):
            low, high = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if low is not None and high is not None and low > high:
                faults.append((f"min_{what}", f"is above max_{what} = {high:g}; exchange them"))
        if faults:
            raise disagreement(faults)
        return self


class Threshold(Section):
    """From which deviation on a pixel counts, in units of what is tolerated."""

    factor: Positive = 1.0
    """Where no rate is stated: 1 is the tolerance itself."""
    false_alarm_rate: Probability | None = None
    """Stated rate of false alarms on good parts; sets the factor from good images. Null uses `factor`, and no rate is
    claimed."""
    per: Literal["image", "mm2"] = "image"
    """What the rate is counted on: images with a critical finding, or critical findings a square millimetre."""


class Fit(Section):
    """How good images are used."""

    calibration_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.75
    """Share of the good images that set the threshold; the others make the template. They must not be the same: a
    template knows its own images too well."""
    max_template_images: Annotated[int, Field(ge=2)] = 128
    """More than these make the template no better."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    """Seed of the division."""


class GoldenRecipe(Recipe):
    """One system that compares with a good part."""

    station: Literal["golden"]
    """The station it belongs to."""
    input: GoldenInput = GoldenInput()
    """The image as it comes in."""
    registration: RegistrationSpec = RegistrationSpec()
    """How an image is brought onto its reference."""
    photometry: PhotometrySpec = PhotometrySpec()
    """How brightness is brought onto that of the reference."""
    areas: Areas = Areas()
    """Where to look."""
    method: Method
    """How image and reference are compared."""
    findings: FindingRules = FindingRules()
    """How deviating pixels become findings."""
    rules: tuple[Rule, ...] = ()
    """What sorts findings into critical and tolerable; a finding that fits none is critical."""
    threshold: Threshold = Threshold()
    """From which deviation on a pixel counts."""
    fit: Fit = Fit()
    """How good images are used."""

    @model_validator(mode="after")
    def _parts_fit(self) -> GoldenRecipe:
        faults: list[tuple[str, str]] = []
        if self.method.kind == "die-to-die" and self.threshold.false_alarm_rate is not None:
            faults.append(("threshold.false_alarm_rate", "neighbours are compared without good parts; set it to null"))
        if self.method.kind == "wavelet" and self.registration.local_px is not None:
            faults.append(("registration.local_px", "wavelets need no exact registration; set it to null"))
        if self.threshold.per == "mm2" and self.threshold.false_alarm_rate is None:
            faults.append(("threshold.per", "mm2 needs threshold.false_alarm_rate"))
        if faults:
            raise disagreement(faults)
        return self
