"""Recipes that find a package in an image and learn nothing, or put two networks together that are trained elsewhere.

What `roi-yolov5n` and its kin are trained by is a recipe like that of any detector (`recipe.package`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from waferlens.recipe.sections import Fraction, Name, Recipe, Section, Weight

Area = Annotated[float, Field(gt=0.0)]
"""An area [px²]"""


def _odd(number: int) -> int:
    if number % 2 == 0:
        raise ValueError("should be odd: it has a middle")
    return number


class OpencvRoi(Section):
    """Adaptive threshold, contours, the smallest rectangle (S2)."""

    kind: Literal["opencv-roi"]
    """Which method."""
    block_px: Annotated[int, Field(ge=3), AfterValidator(_odd)] = 151
    """Side of the neighbourhood that a pixel's grey is compared with [px]"""
    constant_grey: float = 3.0
    """How much darker than its neighbourhood a package is [grey]"""
    least_contour_px: Area = 35_000.0
    """Least area of a contour of a package [px²]"""
    least_rectangle_px: Area = 100_000.0
    """Least area of the rectangle about it [px²]"""
    smoothing: Fraction = 0.01
    """How far a polygon may leave its contour, as a share of the contour's length."""


class EdgesRoi(Section):
    """The dark body, straight lines along its borders, and the place of the outline on their slopes (waferlens)."""

    kind: Literal["edges-roi"]
    """Which method."""
    coarse: Annotated[int, Field(ge=1, le=16)] = 8
    """How many times smaller the image is in which the body is looked for."""
    least_area_px: Area = 100_000.0
    """Least area of a package [px²]"""
    second_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.35
    """Share of the largest body's area from which another one is a second chip."""
    least_fill: Fraction = 0.8
    """Share of its rectangle that a package fills."""
    out_px: Annotated[float, Field(ge=4.0)] = 14.0
    """How far outwards borders are looked at, on a package of the usual size; less on smaller ones [px]"""
    in_px: Annotated[float, Field(ge=4.0)] = 24.0
    """How far inwards [px]"""
    trim_px: Annotated[float, Field(ge=0.0)] = 24.0
    """What is left out at both ends of each border, for corners are round and the next side's slope begins [px]"""
    steep_px: Annotated[float, Field(gt=0.0)] | None = None
    """Steepness of the border's slope in brightfield: the height of the body over the slope at which the objective
    loses half of the light; null fits it to each image [px]"""
    least_used: Fraction = 0.5
    """Share of the borders that has to fit straight lines."""


class BoxSam(Section):
    """The box of a detector prompts a Segment Anything network for the mask (S2)."""

    kind: Literal["box-sam"]
    """Which method."""
    boxes: Name = "roi-yolov5n"
    """Recipe of the detector that draws the boxes."""
    family: Literal["sam", "sam2"] = "sam"
    """Which network: Segment Anything, or the second of that name."""
    side_px: Annotated[int, Field(ge=16)] = 1024
    """Side of the square that it is shown [px]"""
    margin: Weight = 0.0
    """By how much the prompt is wider than the detector's box on each side, as a share of the box."""


RoiModel = Annotated[OpencvRoi | EdgesRoi | BoxSam, Field(discriminator="kind")]
"""The methods, told apart by `kind`."""
KINDS = ("opencv-roi", "edges-roi", "box-sam")
"""Of these, `model.kind` says that a recipe of the package station is one of `RoiRecipe`."""


TRAINED = ("yolov5", "yolov7-tiny", "package-fast")
"""The other kinds of that station, which are trained."""


class RoiRecipe(Recipe):
    """A way to find the package that is not trained as one network."""

    station: Literal["package"]
    """The station it belongs to."""
    model: RoiModel
    """The method."""
