"""The head with anchors: what the features of each position say of three boxes.

What its numbers mean is said in `detection_decode`.

Source: Redmon, Farhadi, YOLOv3, 2018 (arXiv:1804.02767); implicit vectors: Wang, Yeh, Liao, YOLOR, 2021
(arXiv:2105.04206); priors of the biases: Lin et al., Focal Loss, ICCV 2017 (arXiv:1708.02002).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from waferlens.models.detection_decode import ANCHORED_NUMBERS, decode_anchored, flattened

ANCHORS_PX = (
    ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
)
"""Widths and heights with which both families were published, for COCO at 640 px; where none are told [px]"""
EXPECTED_OBJECTS, EXPECTED_SIDE_PX = 8.0, 640.0
"""Objects that an untrained head expects in an image of so many pixels a side."""


class ImplicitAdd(nn.Module):
    """Knowledge without input: a vector learned for the task, added to every position."""

    def __init__(self, channels: int, spread: float = 0.02) -> None:
        super().__init__()
        self.vector = nn.Parameter(spread * torch.randn(1, channels, 1, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.vector


class ImplicitMultiply(nn.Module):
    """The same as a factor."""

    def __init__(self, channels: int, spread: float = 0.02) -> None:
        super().__init__()
        self.vector = nn.Parameter(1.0 + spread * torch.randn(1, channels, 1, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.vector


class AnchorHead(nn.Module):
    """One 1x1 convolution a map.

    Args:
        inputs: Channels of the maps.
        classes: Number of classes.
        strides_px: Pixels between positions of the maps [px]
        anchors_px: Widths and heights, as many at every map [px]
        coefficients: Of the prototypes of masks; 0 predicts none.
        implicit: Whether a vector is added before and multiplied behind each convolution (YOLOv7).
    """

    anchors_px: Tensor
    """Widths and heights `l a 2`; they travel with the weights [px]"""

    def __init__(
        self,
        inputs: Sequence[int],
        classes: int,
        strides_px: Sequence[int],
        anchors_px: Sequence[Sequence[tuple[float, float]]],
        *,
        coefficients: int = 0,
        implicit: bool = False,
    ) -> None:
        super().__init__()
        self.classes, self.strides_px, self.coefficients = classes, tuple(strides_px), coefficients
        self.register_buffer("anchors_px", torch.tensor(anchors_px, dtype=torch.float32))
        self.anchors = self.anchors_px.shape[1]
        self.numbers = ANCHORED_NUMBERS + classes + coefficients
        outputs = self.anchors * self.numbers
        self.maps = nn.ModuleList(nn.Conv2d(one, outputs, 1) for one in inputs)
        self.add = nn.ModuleList(ImplicitAdd(one) for one in inputs) if implicit else None
        self.multiply = nn.ModuleList(ImplicitMultiply(outputs) for _ in inputs) if implicit else None
        self._expect_few()

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Logits `b a h w n` of each map: x, y, w, h, objectness, classes, coefficients of the mask."""
        told = []
        for place, (x, convolution) in enumerate(zip(features, self.maps, strict=True)):
            y = convolution(x if self.add is None else self.add[place](x))
            if self.multiply is not None:
                y = self.multiply[place](y)
            b, _, h, w = y.shape
            told.append(y.view(b, self.anchors, self.numbers, h, w).permute(0, 1, 3, 4, 2))
        return told

    def set_anchors(self, anchors_px: Float[Tensor, "l a 2"]) -> None:
        """Takes other anchors, as many at each map as before [px]

        Raises:
            ValueError: there are more or fewer.
        """
        if anchors_px.shape != self.anchors_px.shape:
            raise ValueError(f"anchors of shape {tuple(anchors_px.shape)} for {tuple(self.anchors_px.shape)}")
        self.anchors_px.copy_(anchors_px)

    def decode(self, told: list[Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Boxes `b n 4` [px], scores `b n k`, and coefficients `b n m` where there are masks; fine map first."""
        boxes, scores = decode_anchored(told, self.strides_px, self.anchors_px, self.classes)
        behind = ANCHORED_NUMBERS + self.classes
        coefficients = flattened(told)[..., behind:].float() if self.coefficients else None
        return boxes, scores, coefficients

    @torch.no_grad()
    def _expect_few(self) -> None:
        """Biases with which an untrained head says what is usual: hardly any object, any class."""
        share = 0.6 / self.classes
        for convolution, stride in zip(self.maps, self.strides_px, strict=True):
            bias = convolution.bias.view(self.anchors, self.numbers)  # type: ignore[operator]
            expected = EXPECTED_OBJECTS / (EXPECTED_SIDE_PX / stride) ** 2 / self.anchors
            bias[:, 4] = math.log(expected / (1.0 - expected))
            bias[:, ANCHORED_NUMBERS : ANCHORED_NUMBERS + self.classes] = math.log(share / (1.0 - share))
