"""Networks of the wafer station: sections of a recipe, told apart by `kind`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from waferlens.recipe.sections import Fraction, Section

Channels = Annotated[int, Field(ge=1)]
"""Number of channels."""
Blocks = Annotated[int, Field(ge=1)]
"""Number of blocks."""


class WaferFast(Section):
    """Folded pixels, scales of plain convolutions, and softmax means over columns: what the track tells, per column."""

    kind: Literal["wafer-fast"]
    """Which network."""
    unshuffle: Literal[2, 4, 8] = 4
    """Side of the block of pixels folded into channels at the entrance [px]"""
    widths: tuple[Channels, ...] = Field(default=(32, 48, 64, 80, 96), min_length=2)
    """Channels at each scale, each at half the resolution of the one before; multiples of 16 run fastest."""
    blocks: tuple[Blocks, ...] = Field(default=(1, 1, 2, 2, 2), min_length=2)
    """Convolutions at each scale on the way down; the way up has the same."""


class WaferUnet(Section):
    """Plain U-Net beside which the others are judged."""

    kind: Literal["unet"]
    """Which network."""
    levels: Literal[2, 3, 4] = 4
    """Number of resolutions."""
    base_channels: Channels = 16
    """Channels at full resolution; they double at each level."""


class ResNetEncoder(Section):
    """ResNet with bottleneck blocks; the numbers are those of ResNet-50."""

    blocks: tuple[Blocks, Blocks, Blocks, Blocks] = (3, 4, 6, 3)
    """Bottleneck blocks of each stage."""
    base_channels: Channels = 64
    """Channels of its stem; the stages end in 4, 8, 16, 32 times as many."""
    frozen: bool = False
    """Keep its weights and statistics as they were loaded."""


class Fcrn(Section):
    """ResNet-50 and four UpProject blocks of interleaved convolutions (S0; Laina et al. 2016)."""

    kind: Literal["fcrn"]
    """Which network."""
    encoder: ResNetEncoder = ResNetEncoder()
    """The contracting half."""
    bottleneck_channels: Channels = 1024
    """Channels after the 1x1 convolution; each UpProject block halves them."""
    dropout: Fraction = 0.5
    """Share of the channels that Dropout2d drops before the last convolution."""
    padding: Literal["behind", "before"] = "behind"
    """Where convolutions of two rows or columns look beyond the map; behind it, up-projection is unpooling and a 5x5
    convolution, as Laina et al. write; the weights they released were made for before it."""


class DepthCnn(Section):
    """Depth networks of S3: which head stands on which encoder."""

    kind: Literal["depth-cnn"]
    """Which network."""
    head: Literal["fully-connected", "convolution", "up-projection"]
    """Fully connected with dropout, plain convolutions, or three up-projection blocks."""
    encoder: ResNetEncoder | None = None
    """ResNet-50 under the head; null is the plain convolutional encoder of CNN and CNN+FC."""
    bottleneck_channels: Channels = 1024
    """Channels after the 1x1 convolution of the up-projection head; of the plain encoder's last layer elsewhere."""
    dropout: Fraction = 0.5
    """Share of the units dropped in front of the last fully connected layer."""


WaferModel = Annotated[WaferFast | WaferUnet | Fcrn | DepthCnn, Field(discriminator="kind")]
"""The networks of this station."""
