"""Recipes of the hole station: a top-down SEM crop of an etched hole in, a depth map out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from waferlens.recipe.faults import disagreement
from waferlens.recipe.sections import Calibration, Limit, Recipe, Section, Train, Weight

Channels = Annotated[int, Field(ge=1)]
"""Number of channels."""


class HoleInput(Section):
    """The image as it comes in."""

    height_px: Annotated[int, Field(ge=8)] = 72
    """Rows [px]"""
    width_px: Annotated[int, Field(ge=8)] = 48
    """Columns [px]"""
    full_scale_grey: Annotated[float, Field(gt=0.0)] = 255.0
    """Grey value of white in the images it is trained on; others are scaled to it, never cut [grey]"""
    pixel_nm: Annotated[float, Field(gt=0.0)] | None = None
    """Pixel size where neither the file nor the user says one; null leaves lengths in px [nm]"""


class DepthScale(Section):
    """What a grey value of the depth map means."""

    nm_per_grey: Annotated[float, Field(gt=0.0)] | None = None
    """Depth a grey value; 1 for the simulator; null leaves depths in grey [nm]"""


class StridedUnet(Section):
    """Two scales of plain convolutions on folded pixels: no layer runs at full resolution."""

    kind: Literal["strided-unet"]
    """Which network."""
    unshuffle: Literal[1, 2, 4, 8] = 4
    """Side of the block of pixels folded into channels at the entrance [px]"""
    widths: tuple[Channels, Channels]
    """Channels at the fine and at the coarse scale; multiples of 16 run fastest."""
    blocks: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    """Convolutions before the coarse scale, in it, and after it."""
    sigma: bool = True
    """Predict one standard deviation a pixel beside the depth."""


class Unet(Section):
    """U-Net: contracting path, expanding path, skip connections at each level."""

    kind: Literal["unet"]
    """Which network."""
    levels: Literal[2, 3, 4]
    """Number of resolutions: the full one, and each further one at half the one before."""
    base_channels: Channels = 32
    """Channels at full resolution; they double at each level."""
    sigma: bool = False
    """Predict one standard deviation a pixel beside the depth."""


class Discriminator(Section):
    """PatchGAN: tells true depth maps from generated ones, patch by patch."""

    ndf: Channels = 64
    """Channels of its first layer."""
    layers: Annotated[int, Field(ge=1, le=4)] = 3
    """Layers that halve the resolution."""
    deeper: bool = False
    """Add a convolution without stride after each of them."""


class Pix2Pix(Section):
    """U-Net generator trained against a PatchGAN discriminator."""

    kind: Literal["pix2pix"]
    """Which network."""
    levels: Literal[2, 3, 4]
    """Number of resolutions of the generator."""
    base_channels: Channels = 32
    """Channels of the generator at full resolution; they double at each level."""
    discriminator: Discriminator = Discriminator()
    """The network it is trained against; it is not exported."""


class Autoencoder(Section):
    """Fully connected network through a bottleneck: the plainest baseline."""

    kind: Literal["autoencoder"]
    """Which network."""
    hidden: tuple[Channels, ...] = Field(min_length=1)
    """Units of the encoder's layers; the decoder mirrors them."""


HoleModel = Annotated[StridedUnet | Unet | Pix2Pix | Autoencoder, Field(discriminator="kind")]
"""The networks of this station, told apart by `kind`."""


class HoleLoss(Section):
    """What training makes small: the weighted sum of the terms whose weight is not 0."""

    pixel: Literal["l1", "mse", "nll", "rmse"] | None = "l1"
    """Error of a pixel; `nll` is the likelihood of depth and sigma; null leaves it to the other terms."""
    pixel_weight: Weight = 1.0
    """Weight of the error of a pixel, in grey (l1, rmse) or grey² (mse)."""
    sigma_weight: Weight = 0.0
    """Weight of sigma's likelihood given the error; the depth gets no gradient from it."""
    l1_weight: Weight = 0.0
    """Weight of the mean absolute error with 0..255 told as -1..1: lambda of pix2pix."""
    rmse_weight: Weight = 0.0
    """Weight of the root mean square error, with its gradient."""
    bias_weight: Weight = 0.0
    """Weight of the squared mean error of each image: keeps the level right [grey²]"""
    gan: Literal["bce", "mse"] | None = None
    """Adversarial term; null trains without discriminator."""
    gan_weight: Weight = 1.0
    """Weight of the adversarial term."""
    discriminator_interval: Annotated[int, Field(ge=1)] = 1
    """The discriminator learns at every so many steps."""


class HoleRecipe(Recipe):
    """One system of the hole station."""

    station: Literal["hole"]
    """The station it belongs to."""
    input: HoleInput = HoleInput()
    """The image as it comes in."""
    depth: DepthScale = DepthScale()
    """What a grey value of the depth map means."""
    model: HoleModel
    """The network."""
    loss: HoleLoss = HoleLoss()
    """What training makes small."""
    train: Train = Train()
    """How the network is trained."""
    calibration: Calibration = Calibration()
    """How its intervals are calibrated."""
    limits: dict[str, Limit] = Field(default={})
    """Specification limits by measurand, for verdicts; empty gives no verdicts."""

    @model_validator(mode="after")
    def _parts_fit(self) -> HoleRecipe:
        faults: list[tuple[str, str]] = []
        if self.loss.pixel == "nll" and not getattr(self.model, "sigma", False):
            faults.append(("loss.pixel", f"needs a network with sigma: true; {self.model.kind} here has none"))
        if self.loss.sigma_weight and not getattr(self.model, "sigma", False):
            faults.append(("loss.sigma_weight", f"needs a network with sigma: true; {self.model.kind} here has none"))
        if self.loss.gan is not None and self.model.kind != "pix2pix":
            faults.append(("loss.gan", f"needs a discriminator: model.kind = pix2pix, not {self.model.kind}"))
        if self.loss.gan is None and self.model.kind == "pix2pix":
            faults.append(("loss.gan", "pix2pix needs an adversarial term, bce or mse; without one it is a unet"))
        if self.loss.pixel is None and self.loss.l1_weight == 0 and self.loss.rmse_weight == 0:
            faults.append(("loss.pixel", "nothing compares depth with truth; set pixel, l1_weight or rmse_weight"))
        if faults:
            raise disagreement(faults)
        return self
