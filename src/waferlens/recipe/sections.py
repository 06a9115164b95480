"""The sections every station's recipe has.

Sections are closed (an unknown field is a fault) and frozen, each field has a doc line under it, and units stand in
square brackets at the end of that line.
"""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from waferlens import units
from waferlens.errors import UsageError
from waferlens.recipe.faults import disagreement
from waferlens.sources import SOURCES

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
"""A share between 0 and 1."""
Probability = Annotated[float, Field(gt=0.0, lt=1.0)]
"""A share strictly between 0 and 1."""
Weight = Annotated[float, Field(ge=0.0)]
"""Weight of a term in a sum; 0 leaves it out."""


def _known_source(key: str) -> str:
    if key not in SOURCES:
        near = difflib.get_close_matches(key, SOURCES, n=1, cutoff=0.5)
        raise ValueError(f"unknown source, did you mean '{near[0]}'?" if near else f"one of {', '.join(SOURCES)}")
    return key


def _known_unit(unit: str) -> str:
    try:
        return units.canonical(unit)
    except UsageError as error:
        raise ValueError(str(error)) from None


def _a_name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", text):
        raise ValueError("should be lower-case words and digits joined by hyphens")
    return text


def _one_line(text: str) -> str:
    if not text.strip() or "\n" in text:
        raise ValueError("should be one line of text")
    return text


Name = Annotated[str, AfterValidator(_a_name)]
"""Lower-case words joined by hyphens: it becomes a file's name."""
Line = Annotated[str, AfterValidator(_one_line)]
"""One line of text."""
SourceKey = Annotated[str, AfterValidator(_known_source)]
"""A key of `waferlens.sources.SOURCES`."""
Unit = Annotated[str, AfterValidator(_known_unit)]
"""A unit of `waferlens.units.UNITS`, stored in the table's spelling."""


class Section(BaseModel):
    """A closed, frozen part of a recipe."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False, defer_build=True
    )


class Augment(Section):
    """What is varied from epoch to epoch. Geometry moves image and truth alike; grey changes the image only."""

    flip: bool = True
    """Mirror along x and along y, each in half of the cases."""
    roll_px: Annotated[int, Field(ge=0)] = 0
    """Greatest shift along each axis; the crop is the cell of a periodic array, so it wraps around [px]"""
    gain: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Greatest relative change of contrast."""
    offset_grey: Annotated[float, Field(ge=0.0)] = 0.0
    """Greatest change of brightness [grey]"""


class Train(Section):
    """How a network is trained."""

    epochs: Annotated[int, Field(ge=1)] = 40
    """Passes over the training images."""
    validate_every: Annotated[int, Field(ge=1)] = 1
    """Epochs from one look at the validation images to the next, of which the best is kept; divides `epochs`."""
    batch: Annotated[int, Field(ge=1)] = 64
    """Images a step."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """How weights follow their gradients; muon takes the weights that are matrices by orthogonal steps."""
    lr: Annotated[float, Field(gt=0.0)] = 1e-3
    """Greatest learning rate; with muon, that of what is no matrix."""
    muon_lr: Annotated[float, Field(gt=0.0)] = 0.02
    """Greatest learning rate of the matrices; muon only."""
    weight_decay: Weight = 0.0
    """Decoupled weight decay."""
    schedule: Literal["onecycle", "cosine", "constant"] = "onecycle"
    """Course of the learning rate over all steps."""
    warmup_fraction: Fraction = 0.1
    """Share of the steps in which the rate rises."""
    freeze_norm_fraction: Fraction = 1.0
    """Share of the epochs after which batch norms keep their statistics, taken anew from many batches at that moment. A
    batch's own mean blurs what every pixel of an image shares, such as its level; the last epochs learn it exactly."""
    gradient_clip: Annotated[float, Field(gt=0.0)] | None = None
    """Greatest norm of the gradient; null leaves it as it is."""
    precision: Literal["f32", "bf16"] = "f32"
    """Arithmetic of the forward pass; weights and sums stay float32."""
    channels_last: bool = True
    """Store images with the channel fastest, which convolutions on CPU like."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    """Seed of weights, order and augmentation."""
    early_stop_patience: Annotated[int, Field(ge=1)] | None = None
    """Epochs without a better validation error before it stops; null runs to the end."""
    augment: Augment = Augment()
    """What is varied from epoch to epoch."""
    budget_cpu_minutes: Annotated[float, Field(gt=0.0)] = 30.0
    """CPU time it is meant to train in; it stops at the end of the epoch that passes it [min]"""

    @model_validator(mode="after")
    def _ends_judged(self) -> Self:
        if self.epochs % self.validate_every:
            raise disagreement(
                [("validate_every", f"does not divide epochs = {self.epochs}: the last epochs would not be judged")]
            )
        return self


class Calibration(Section):
    """How intervals are made honest on held-out data after training."""

    levels: tuple[Probability, ...] = Field(default=(0.9, 0.95, 0.99), min_length=1)
    """Coverages for which intervals are calibrated."""
    fraction_of_validation: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the validation structures used to calibrate; the rest stays untouched by it."""
    out_of_domain_quantile: Probability = 0.999
    """Quantile of the validation images' novelty score above which an image is out of domain."""


class Limit(Section):
    """Specification limits of one measurand; an open side is null."""

    low: float | None = None
    """Lower limit [unit]"""
    high: float | None = None
    """Upper limit [unit]"""
    unit: Unit
    """Unit of the limits: nm, deg, grey, px …"""

    @model_validator(mode="after")
    def _in_order(self) -> Limit:
        if self.low is None and self.high is None:
            raise disagreement([("low", "neither low nor high is given; give at least one")])
        if self.low is not None and self.high is not None and self.low > self.high:
            raise disagreement([("low", f"is above high = {self.high:g}; exchange them")])
        return self


class Recipe(Section):
    """What the recipes of all stations share; each station adds its own sections."""

    name: Name
    """Name of the recipe: lower-case words joined by hyphens."""
    station: str
    """The station it belongs to."""
    source: SourceKey
    """Where the system comes from: a key of `waferlens.sources`."""
    builds_on: tuple[SourceKey, ...] = ()
    """Methods it stands on: keys of `waferlens.sources`."""
    summary: Line
    """One line for the list of recipes."""
