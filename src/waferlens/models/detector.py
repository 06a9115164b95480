"""A detector of the package station as it is exported: a picture in, boxes and scores in its pixels out."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, UInt8
from torch import Tensor, nn

from waferlens.models.anchor_head import ANCHORS_PX, AnchorHead
from waferlens.models.detection_decode import decode_free
from waferlens.models.package_fast import PackageFastNet
from waferlens.models.yolo_blocks import scaled
from waferlens.models.yolov5 import STRIDES_PX, Prototypes, YoloV5Net
from waferlens.models.yolov7_tiny import COORD, PLAIN, SLIM, YoloV7TinyNet
from waferlens.recipe.package import PackageRecipe
from waferlens.recipe.package_models import PackageFast, YoloV5, YoloV7Tiny

WHITE_GREY = 255.0
"""Grey of white in the image [grey]"""
PROTOTYPE_WIDTH = 256
"""Channels of the large YOLOv5's prototypes before the last convolution."""


class Told(NamedTuple):
    """What the heads say, as losses compare it."""

    maps: list[Tensor]
    """Logits of each map, finest first. With anchors `b a h w n`: x, y, w, h, objectness, classes, coefficients of the
    mask. Without `b h w n`: left, top, right, bottom, classes."""
    prototypes: Tensor | None
    """Masks `b m h/4 w/4` that the coefficients mix, where masks are predicted."""
    traces: Tensor | None = None
    """Logits `b p q k` of what touches the cells of the finest map; in training only, where they are learned."""


class Decoded(NamedTuple):
    """What they mean."""

    boxes: Float[Tensor, "b n 4"]
    """x0 y0 x1 y1, outer edges, in pixels of the image that was shown [px]"""
    scores: Float[Tensor, "b n k"]
    """Of each class, 0..1; with anchors times the objectness."""
    coefficients: Float[Tensor, "b n m"] | None = None
    """Of the mask of each box."""
    prototypes: Float[Tensor, "b m p q"] | None = None
    """A mask is the sigmoid of their sum weighted by its coefficients, at a quarter of the image's resolution."""


class FreeHead(nn.Module):
    """The head of a body that puts out logits without anchors itself: it says what they mean."""

    def __init__(self, strides_px: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.strides_px, self.classes = strides_px, classes

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return features

    def decode(self, told: list[Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Boxes `b n 4` [px] and scores `b n k`."""
        return *decode_free(told, self.strides_px, self.classes), None


class DetectorNet(nn.Module):
    """Normalisation of the image, a body, a head, and prototypes of masks if asked.

    Args:
        body: From a normalised image to features, finest first.
        head: From features to logits, and from logits to boxes.
        prototypes: From the finest features to the masks that objects mix.
    """

    def __init__(self, body: nn.Module, head: AnchorHead | FreeHead, prototypes: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.head: AnchorHead | FreeHead = head
        self.prototypes = prototypes

    def forward(self, image: Float[Tensor, "b c h w"] | UInt8[Tensor, "b c h w"]) -> Told:
        """Logits, in training and in evaluation alike.

        Args:
            image: 0..255, red green blue or grey; rows and columns in multiples of the coarsest stride [grey]
        """
        kind = next(self.parameters()).dtype
        features = self.body(image.to(kind) * (1.0 / WHITE_GREY))
        if isinstance(self.head, FreeHead):
            heads = len(self.head.strides_px)
            return Told(self.head(features[:heads]), None, *features[heads:])
        return Told(self.head(features), None if self.prototypes is None else self.prototypes(features[0]))

    def decoded(self, image: Float[Tensor, "b c h w"] | UInt8[Tensor, "b c h w"]) -> Decoded:
        """Every box of every position, before any is dropped."""
        told = self(image)
        boxes, scores, coefficients = self.head.decode(told.maps)
        return Decoded(boxes, scores, coefficients, told.prototypes)

    @property
    def outputs(self) -> list[str]:
        """Names of what `ExportedDetector` returns."""
        return ["boxes", "scores", *(["coefficients", "prototypes"] if self.prototypes is not None else [])]


class ExportedDetector(nn.Module):
    """The network with `decoded` as its forward pass: what a graph is written of."""

    def __init__(self, network: DetectorNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Float[Tensor, "b c h w"]) -> tuple[Tensor, ...]:
        return tuple(part for part in self.network.decoded(image) if part is not None)


def build_detector(recipe: PackageRecipe) -> DetectorNet:
    """The network of a recipe of the package station, with fresh weights."""
    classes, channels = len(recipe.target.classes), recipe.input.channels
    match recipe.model:
        case YoloV5(width=width, depth=depth, masks=masks, mask_channels=m, anchors=anchors):
            body = YoloV5Net(width, depth, channels)
            head = AnchorHead(body.widths, classes, STRIDES_PX, anchors or ANCHORS_PX, coefficients=m if masks else 0)
            hidden = scaled(PROTOTYPE_WIDTH, width)
            return DetectorNet(body, head, Prototypes(body.widths[0], hidden, m) if masks else None)
        case YoloV7Tiny(neck=neck, width=width, anchors=anchors):
            parts = {"plain": PLAIN, "coord": COORD, "slim": SLIM}[neck]
            tiny = YoloV7TinyNet(parts, width, channels)
            head = AnchorHead(tiny.widths, classes, STRIDES_PX, anchors or ANCHORS_PX, implicit=True)
            return DetectorNet(tiny, head)
        case PackageFast(unshuffle=unshuffle, widths=widths, blocks=blocks, traces=traces):
            fast = PackageFastNet(classes, channels, unshuffle, widths, blocks, traces)
            return DetectorNet(fast, FreeHead(fast.strides, classes))
