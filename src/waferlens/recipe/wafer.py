"""Recipes of the wafer station: an optical scan of a high-topology wafer in, a height map out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from waferlens.recipe.faults import disagreement
from waferlens.recipe.sections import Calibration, Fraction, Recipe, Section, Train, Weight
from waferlens.recipe.wafer_models import DepthCnn, Fcrn, WaferModel

Known = Literal["objective", "product", "track"]
"""What a line may know beside the image: height of focus a column, nominal stack, auto-focus track."""


HALVINGS = 16
"""What the bottlenecks of fcrn and depth-cnn are divided by on the way up."""
MOST_FOLD_PX = 64
"""Pixels that the coarsest scale of a network may fold along each side; images are filled up to a multiple of it."""


class WaferInput(Section):
    """What the network is shown."""

    scene: Literal["fields", "nyu"] = "fields"
    """Fields of a wafer, or the indoor views of NYU Depth v2 that S3 trains on."""
    height_px: Annotated[int, Field(ge=16)] = 684
    """Rows [px]"""
    width_px: Annotated[int, Field(ge=16)] = 684
    """Columns [px]"""
    pitch_um: Annotated[float, Field(gt=0.0)] | None = 8.197
    """Distance of neighbouring pixels; images of another pitch are averaged over areas of this size; null scales the
    whole image to height_px x width_px, whatever it shows [um]"""
    channels: Literal[1, 3] = 1
    """Channels of the image; a grey image is repeated, the colours of a view are averaged."""
    normalise: Literal["half", "imagenet"] = "half"
    """What the network computes with: half is black to half of white as -1..1 (wafer-fast takes a square root, which
    makes shot noise alike at every brightness); imagenet is each channel as weights learned on ImageNet expect it."""
    known: tuple[Known, ...] = ()
    """What it is told beside the image; each may be missing at inspection."""


class WaferTarget(Section):
    """What the network predicts."""

    unit: Literal["um", "m"] = "um"
    """Unit of the map."""
    full_scale: Annotated[float, Field(gt=0.0)] = 781.25
    """The height, or depth, that stands for 1 [unit]; 781.25 um are the 25,000 counts of S0's sensor"""
    sigma: bool = False
    """Predict the spread of the error of each pixel."""
    classes: bool = False
    """Predict for each pixel whether it shows a die, a street, or the site of a missing die."""


class AfSensor(Section):
    """The auto-focus sensor as the track's term in the loss has it: the soft maximum over a column, with its lag."""

    softness_um: Annotated[float, Field(gt=0.0)] = 12.0
    """What lies this far below the highest of its column weighs e times less [um]"""
    mean_share: Fraction = 0.15
    """Share of the plain mean of the column in the reading."""
    lag_um: Annotated[float, Field(ge=0.0)] = 73.0
    """Length of its low-pass along the scan: speed times time constant [um]"""


class WaferLoss(Section):
    """What training makes small."""

    supervision: Literal["dense", "track", "mixed"] = "dense"
    """Dense height maps, the auto-focus track alone (the soft maximum of the prediction over y, lag and pooling as the
    sensor has them), or both: dense maps for some wafers and the track for all."""
    pixel: Literal["l1", "mse", "berhu"] = "l1"
    """Error of a pixel, in units of the full scale; berhu is that of Laina et al. 2016."""
    sigma_weight: Weight = 0.0
    """Weight of the likelihood of sigma given the error; the height gets no gradient from it."""
    class_weight: Weight = 0.0
    """Weight of the cross-entropy of the classes."""
    track_weight: Weight = 1.0
    """Weight of the track's term, where the track supervises."""
    bound_weight: Weight = 0.0
    """Weight of how far heights lie above what was read of their columns, where the track supervises, and, weighing
    less, how far below. The soft maximum teaches the highest pixels of a column; this teaches all of them."""
    short_share: Fraction = 0.3
    """Weight of what lies below a reading beside that of what lies above. Pixels that look alike are given the height
    that so large a share of their columns' readings lies below as this is of this and 1."""
    sensor: AfSensor = AfSensor()
    """The sensor, where the track supervises."""
    mask_zero: bool = False
    """Leave pixels of depth 0 out: in NYU Depth v2 they were not measured."""


class WaferTrain(Train):
    """How a network of this station is trained."""

    optimizer: Literal["adamw", "muon", "sgd"] = "adamw"  # type: ignore[assignment]
    """How weights follow their gradients."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Of sgd."""
    crop_px: Annotated[int, Field(ge=64, multiple_of=64)] | None = None
    """Columns cut from each field in training; rows are kept, for the track saw them all; null takes all of it [px]"""
    forget_known: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.3
    """Share of the fields for which each of `input.known` is hidden, one by one, so that each may be missing."""


class WaferRecipe(Recipe):
    """One system of the wafer station."""

    station: Literal["wafer"]
    """The station it belongs to."""
    input: WaferInput = WaferInput()
    """What the network is shown."""
    target: WaferTarget = WaferTarget()
    """What the network predicts."""
    model: WaferModel
    """The network."""
    loss: WaferLoss = WaferLoss()
    """What training makes small."""
    train: WaferTrain = WaferTrain()
    """How the network is trained."""
    calibration: Calibration = Calibration()
    """How its intervals are calibrated."""

    @model_validator(mode="after")
    def _parts_fit(self) -> WaferRecipe:
        faults = [*self._network_faults(), *self._loss_faults()]
        if faults:
            raise disagreement(faults)
        return self

    def _network_faults(self) -> Iterator[tuple[str, str]]:
        """What the network cannot be shown, or cannot tell."""
        kind = self.model.kind
        if kind != "wafer-fast":
            if self.input.known:
                yield "input.known", f"{kind} is shown the image alone; set input.known=[]"
            if self.target.classes:
                yield "target.classes", f"{kind} tells heights only; set target.classes=false"
        if isinstance(self.model, Fcrn | DepthCnn):
            if self.target.sigma:
                yield "target.sigma", f"{kind} tells no spread; set target.sigma=false, or take unet or wafer-fast"
            if self.model.bottleneck_channels % HALVINGS:
                yield "model.bottleneck_channels", f"should be a multiple of {HALVINGS}"
            if self.train.crop_px is not None:
                yield "train.crop_px", f"{kind} takes images of one size; set train.crop_px=null"
        if self.model.kind == "unet":
            fold = 2 ** (self.model.levels - 1)
            for side in ("height_px", "width_px"):
                if getattr(self.input, side) % fold:
                    yield f"input.{side}", f"{self.model.levels} levels need a multiple of {fold}"
        if self.model.kind == "wafer-fast":
            if self.input.normalise != "half":
                yield "input.normalise", "wafer-fast has no weights of others; set input.normalise=half"
            if self.input.pitch_um is None:
                yield "input.pitch_um", "wafer-fast takes images of any size, at one pitch; set it, as 8.197"
            if len(self.model.widths) != len(self.model.blocks):
                yield "model.blocks", f"{len(self.model.widths)} widths need as many blocks"
            if self.model.unshuffle * 2 ** (len(self.model.widths) - 1) > MOST_FOLD_PX:
                yield "model.widths", f"unshuffle and scales may fold {MOST_FOLD_PX} px at the most; leave one out"

    def _loss_faults(self) -> Iterator[tuple[str, str]]:
        """What is asked of the loss and not there."""
        if self.loss.sigma_weight and not self.target.sigma:
            yield "loss.sigma_weight", "needs target.sigma: true"
        if self.loss.class_weight and not self.target.classes:
            yield "loss.class_weight", "needs target.classes: true"
        if self.input.scene == "nyu":
            if self.loss.supervision != "dense":
                yield "loss.supervision", "NYU Depth v2 has no auto-focus track; set dense"
            if not self.loss.mask_zero:
                yield "loss.mask_zero", "depth 0 of NYU Depth v2 was not measured; set loss.mask_zero=true"
