"""Networks of the package station: sections of a recipe, told apart by `kind`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from waferlens.recipe.sections import Fraction, Section

Channels = Annotated[int, Field(ge=1)]
"""Number of channels."""
Blocks = Annotated[int, Field(ge=1)]
"""Number of blocks."""
Anchor = tuple[Annotated[float, Field(gt=0.0)], Annotated[float, Field(gt=0.0)]]
"""Width and height of an anchor box [px]"""


class YoloV5(Section):
    """YOLOv5: CSP backbone, spatial pyramid, path aggregation, three anchored heads; with masks when asked (S2)."""

    kind: Literal["yolov5"]
    """Which network."""
    depth: Fraction = 0.33
    """Share of the blocks of the large network; 0.33 for n and s."""
    width: Fraction = 0.25
    """Share of the channels of the large network; 0.25 for n, 0.5 for s."""
    masks: bool = False
    """Predict a mask of each object from prototypes."""
    mask_channels: Channels = 32
    """Prototypes of masks."""
    anchors: tuple[tuple[Anchor, ...], ...] | None = None
    """Anchors of strides 8, 16, 32 at the input's size; null fits them to the training boxes [px]"""


class YoloV7Tiny(Section):
    """YOLOv7-tiny with implicit head vectors; its neck may have CoordConv or Slim-neck blocks (S2)."""

    kind: Literal["yolov7-tiny"]
    """Which network."""
    neck: Literal["plain", "coord", "slim"] = "plain"
    """Plain, CoordConv at layers 38, 40, 48, 50, 74, 75, 76, or VoV-GSCSP and GSConv in the neck."""
    width: Fraction = 1.0
    """Share of its channels; below 1 for tests and short budgets only."""
    anchors: tuple[tuple[Anchor, ...], ...] | None = None
    """Anchors of strides 8, 16, 32 at the input's size; null fits them to the training boxes [px]"""


class PackageFast(Section):
    """Folded pixels, scales of plain convolutions, and one head without anchors at a fine stride (waferlens)."""

    kind: Literal["package-fast"]
    """Which network."""
    unshuffle: Literal[2, 4, 8] = 4
    """Side of the block of pixels folded into channels at the entrance [px]"""
    widths: tuple[Channels, ...] = Field(default=(32, 48, 64, 96), min_length=2)
    """Channels at each scale, each at half the resolution of the one before; multiples of 16 run fastest."""
    blocks: tuple[Blocks, ...] = Field(default=(1, 2, 2, 2), min_length=2)
    """Blocks at each scale."""


PackageModel = Annotated[YoloV5 | YoloV7Tiny | PackageFast, Field(discriminator="kind")]
"""The networks of this station."""
