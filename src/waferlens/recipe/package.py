"""Recipes of the package station: a micrograph of an IC package in; its place, findings and the die's angle out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from waferlens.errors import UsageError
from waferlens.recipe.faults import disagreement
from waferlens.recipe.package_models import PackageModel
from waferlens.recipe.pairing import forms_of
from waferlens.recipe.sections import (
    Augment,
    Calibration,
    Fraction,
    Line,
    Name,
    Probability,
    Recipe,
    Section,
    Train,
    Weight,
)

STRIDE_PX = 32
"""What the sides of the image a detector is shown are multiples of [px]"""
Light = Literal["bf", "dfw", "dfb"]
"""Brightfield, darkfield white, darkfield blue."""


class PackageInput(Section):
    """What the network is shown."""

    scene: Literal["packages", "labels"] = "packages"
    """Devices of a package set, or any folder of images with labels (COCO, YOLO, Label Studio)."""
    region: Literal["roi", "image"] = "roi"
    """The upright package cut out of the image, or the whole image."""
    height_px: Annotated[int, Field(ge=STRIDE_PX, multiple_of=STRIDE_PX)] = 640
    """Rows [px]"""
    width_px: Annotated[int, Field(ge=STRIDE_PX, multiple_of=STRIDE_PX)] = 640
    """Columns; the image keeps its ratio and is filled up with grey [px]"""
    channels: Literal[1, 3] = 3
    """Channels of the image."""
    lights: tuple[Light, ...] = Field(default=("bf",), min_length=1)
    """Lights it is trained on, each image by itself."""
    reference: Line | None = None
    """How the name of an image gives that of a good part, as `{}_test.jpg:{}_temp.jpg`: the good part, registered, is
    shown in the second channel and their difference in the third. null shows the image alone."""


class PackageTarget(Section):
    """What the network predicts."""

    classes: tuple[Name, ...] = Field(default=("crack", "rotate"), min_length=1)
    """Names of the classes in the order of their numbers."""


class DetectionLoss(Section):
    """What training makes small."""

    box: Literal["ciou", "ciou-nwd"] = "ciou"
    """Error of a box: complete IoU, or half of it with half of the normalised Wasserstein distance (NWD)."""
    nwd_px: Annotated[float, Field(gt=0.0)] = 12.8
    """Constant C of NWD = exp(-W / C) [px]"""
    assign: Literal["ota", "anchor", "aligned"] = "ota"
    """Which predictions learn which box: simOTA over anchors, the ratio of sides to anchors, or task alignment where
    there are no anchors."""
    class_kind: Literal["bce", "quality-focal"] = "bce"
    """Error of the scores where there are no anchors: cross-entropy, or that times the square of how wrong they are."""
    box_weight: Weight = 0.05
    """Weight of the boxes' error."""
    class_weight: Weight = 0.5
    """Weight of the classes' cross-entropy."""
    object_weight: Weight = 1.0
    """Weight of the objectness' cross-entropy."""
    mask_weight: Weight = 0.05
    """Weight of the masks' error, where the network predicts masks or learns their traces."""


class PackageAugment(Augment):
    """What is varied from epoch to epoch; boxes and masks follow."""

    corner_px: Annotated[float, Field(ge=0.0)] = 0.0
    """Greatest displacement along x and y of each corner of the package, as a method that finds it may err [px]"""
    rotate_deg: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    """Greatest rotation; 0 where the angle is what is looked for [deg]"""
    quarter_turns: bool = False
    """Turn by a multiple of 90 deg besides, for what may lie either way."""
    scale: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Greatest relative change of size."""
    shift: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Greatest shift as a share of the side."""
    blur_px: Annotated[float, Field(ge=0.0)] = 0.0
    """Greatest standard deviation of a Gaussian blur [px]"""
    noise_grey: Annotated[float, Field(ge=0.0)] = 0.0
    """Greatest standard deviation of added noise [grey]"""
    hue: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Greatest relative change of each channel's gain."""
    clahe: Fraction = 0.0
    """Share of the images whose contrast is equalised locally."""
    warp_px: Annotated[float, Field(ge=0.0)] = 0.0
    """Greatest displacement of an elastic warp [px]"""
    mixup: Fraction = 0.0
    """Share of the images mixed with another."""
    paste_in: Fraction = 0.0
    """Share of the images into which objects of others are pasted."""


class PackageTrain(Train):
    """How a network of this station is trained."""

    optimizer: Literal["adamw", "muon", "sgd"] = "sgd"  # type: ignore[assignment]
    """How weights follow their gradients."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.937
    """Of sgd."""
    warmup_epochs: Annotated[float, Field(ge=0.0)] = 3.0
    """Epochs in which rate and momentum rise, where the schedule is cosine."""
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9999
    """Decay of the running mean of the weights that is kept beside them; 0 keeps none."""
    crop_px: Annotated[int, Field(ge=STRIDE_PX, multiple_of=STRIDE_PX)] | None = None
    """Side of the window of each image that is learned from, most often around an object; null learns whole images. At
    inspection the network is shown all of it [px]"""
    device: Line | None = None
    """Regular expression that finds the device in the path of an image of one's own: devices go to one side of the
    split whole; null takes each image for a device. Package sets and DeepPCB name theirs."""
    augment: PackageAugment = PackageAugment()
    """What is varied from epoch to epoch."""


class PackageFindings(Section):
    """Which of the network's boxes become findings."""

    score: Probability = 0.25
    """Least score, until calibration sets one."""
    nms_iou: Fraction = 0.65
    """Overlap above which the weaker of two boxes of a class is dropped."""
    most: Annotated[int, Field(ge=1)] = 100
    """Most findings of an image."""


class DieAngleSpec(Section):
    """The die's angle, from its edges."""

    datum: Literal["package", "cavity", "leads"] = "package"
    """What it is measured against."""
    limit_deg: Annotated[float, Field(gt=0.0)] = 0.5
    """Greatest angle that is good [deg]"""


class PackageRecipe(Recipe):
    """One system of the package station."""

    station: Literal["package"]
    """The station it belongs to."""
    input: PackageInput = PackageInput()
    """What the network is shown."""
    target: PackageTarget = PackageTarget()
    """What the network predicts."""
    model: PackageModel
    """The network."""
    loss: DetectionLoss = DetectionLoss()
    """What training makes small."""
    train: PackageTrain = PackageTrain()
    """How the network is trained."""
    findings: PackageFindings = PackageFindings()
    """Which of its boxes become findings."""
    angle: DieAngleSpec | None = None
    """Measure the die's angle from its edges beside the network; null leaves it out."""
    calibration: Calibration = Calibration()
    """How its thresholds are calibrated."""

    @model_validator(mode="after")
    def _parts_fit(self) -> PackageRecipe:
        faults = []
        if self.model.kind == "package-fast":
            if self.loss.assign != "aligned":
                faults.append(("loss.assign", "package-fast has no anchors; set loss.assign=aligned"))
            fold = self.model.unshuffle * 2 ** (len(self.model.widths) - 1)
            faults += [
                (
                    f"input.{side}",
                    f"{len(self.model.widths)} scales over {self.model.unshuffle} px need a multiple of {fold}",
                )
                for side in ("height_px", "width_px")
                if getattr(self.input, side) % fold
            ]
            for side in ("height_px", "width_px"):
                if self.train.crop_px is not None and self.train.crop_px > getattr(self.input, side):
                    faults.append(("train.crop_px", f"is more than input.{side}; leave it out, or make it smaller"))
            if self.train.crop_px is not None and self.train.crop_px % fold:
                faults.append(
                    (
                        "train.crop_px",
                        f"{len(self.model.widths)} scales over {self.model.unshuffle} px need a multiple of {fold}",
                    )
                )
        elif self.loss.assign == "aligned":
            faults.append(("loss.assign", f"{self.model.kind} has anchors; set loss.assign=ota or anchor"))
        if self.model.kind != "package-fast" and self.train.crop_px is not None:
            faults.append(("train.crop_px", f"{self.model.kind} learns whole images; set train.crop_px=null"))
        if self.train.augment.roll_px:
            faults.append(("train.augment.roll_px", "a package is no cell of an array; set it to 0 and use shift"))
        if self.input.reference is not None:
            faults += self._reference_faults(self.input.reference)
        if self.train.augment.corner_px and self.input.region != "roi":
            faults.append(("train.augment.corner_px", "a whole image has no corners to miss; set input.region=roi"))
        if len(set(self.target.classes)) < len(self.target.classes):
            faults.append(("target.classes", "names a class twice; leave one out"))
        if faults:
            raise disagreement(faults)
        return self

    def _reference_faults(self, pattern: str) -> list[tuple[str, str]]:
        faults = []
        try:
            forms_of(pattern)
        except UsageError:
            faults.append(("input.reference", "is no pattern of two names, such as {}_test.jpg:{}_temp.jpg"))
        if self.input.region != "image" or self.input.channels != 3:
            faults.append(("input.reference", "is for whole images of 3 channels; set input.region=image"))
        if self.train.augment.hue:
            faults.append(("train.augment.hue", "the channels are image, reference and difference; set it to 0"))
        return faults
