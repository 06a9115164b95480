"""Networks of the package station: sections of a recipe, told apart by `kind`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from waferlens.recipe.faults import disagreement
from waferlens.recipe.sections import Section

Channels = Annotated[int, Field(ge=1)]
"""Number of channels."""
Blocks = Annotated[int, Field(ge=1)]
"""Number of blocks."""
Share = Annotated[float, Field(gt=0.0, le=1.0)]
"""A share that leaves something."""
Anchor = tuple[Annotated[float, Field(gt=0.0)], Annotated[float, Field(gt=0.0)]]
"""Width and height of an anchor box [px]"""
SCALES = 3
"""Maps at strides 8, 16 and 32, on which anchors stand."""


def _on_three_maps(anchors: tuple[tuple[Anchor, ...], ...]) -> tuple[tuple[Anchor, ...], ...]:
    if len(anchors) != SCALES or len({len(one) for one in anchors}) != 1 or not anchors[0]:
        raise ValueError("should be as many at each of the strides 8, 16 and 32")
    return anchors


Anchors = Annotated[tuple[tuple[Anchor, ...], ...], AfterValidator(_on_three_maps)]
"""Anchor boxes at strides 8, 16 and 32, as many at each [px]"""


class YoloV5(Section):
    """YOLOv5: CSP backbone, spatial pyramid, path aggregation, three anchored heads; with masks when asked (S2)."""

    kind: Literal["yolov5"]
    """Which network."""
    depth: Share = 0.33
    """Share of the blocks of the large network; 0.33 for n and s."""
    width: Share = 0.25
    """Share of the channels of the large network; 0.25 for n, 0.5 for s."""
    masks: bool = False
    """Predict a mask of each object from prototypes."""
    mask_channels: Channels = 32
    """Prototypes of masks."""
    anchors: Anchors | None = None
    """Anchors of strides 8, 16, 32 at the input's size; null fits them to the training boxes [px]"""


class YoloV7Tiny(Section):
    """YOLOv7-tiny with implicit head vectors; its neck may have CoordConv or Slim-neck blocks (S2)."""

    kind: Literal["yolov7-tiny"]
    """Which network."""
    neck: Literal["plain", "coord", "slim"] = "plain"
    """Plain, CoordConv at layers 38, 40, 48, 50, 74, 75, 76, or VoV-GSCSP and GSConv in the neck."""
    width: Share = 1.0
    """Share of its channels; below 1 for tests and short budgets only."""
    anchors: Anchors | None = None
    """Anchors of strides 8, 16, 32 at the input's size; null fits them to the training boxes [px]"""


class PackageFast(Section):
    """Folded pixels, scales of plain convolutions, and heads without anchors at a fine and a coarse one (waferlens)."""

    kind: Literal["package-fast"]
    """Which network."""
    unshuffle: Literal[2, 4, 8] = 4
    """Side of the block of pixels folded into channels at the entrance [px]"""
    widths: tuple[Channels, ...] = Field(default=(32, 48, 64, 96), min_length=2)
    """Channels at each scale, each at half the resolution of the one before; multiples of 16 run fastest."""
    blocks: tuple[Blocks, ...] = Field(default=(1, 2, 2, 2), min_length=2)
    """3x3 convolutions at each scale on the way down."""
    traces: bool = False
    """Learn beside the boxes which cells of the finest map an object's mask touches; needs masks, or outlines."""

    @model_validator(mode="after")
    def _parts_fit(self) -> PackageFast:
        if len(self.blocks) != len(self.widths):
            raise disagreement(
                [("blocks", f"tells {len(self.blocks)} scales, widths {len(self.widths)}; give as many of both")]
            )
        return self


PackageModel = Annotated[YoloV5 | YoloV7Tiny | PackageFast, Field(discriminator="kind")]
"""The networks of this station."""
