"""The four depth networks of S3, side by side: a plain encoder or ResNet-50, and one of three heads.

All take 256x320 px and tell 62x78 depths, so that they differ in what S3 compares and in nothing else.

S3 shows the layers of one of them, CNN + residual: a frozen ResNet-50, a 1x1 convolution with batch norm, three
up-projections that join their branches by concatenation, and a 3x3 convolution without padding. Of the others it tells
the names alone, and that dropout belongs to CNN + FC. What it leaves open is decided here:

- the plain encoder has five stages of a 3x3 convolution, batch norm, ReLU and 2x2 maximum, and doubles its channels at
  each, so that its features have the size of ResNet's;
- the convolutional head narrows the features, enlarges them three times by 2 (bilinear) with a 3x3 convolution, batch
  norm and ReLU after each, and ends like the up-projection head;
- the fully connected head narrows the features to a 16th of the bottleneck, flattens them, and has one hidden layer as
  wide as the bottleneck, dropout, and a layer with one unit for each pixel of the map, as the coarse network of Eigen
  et al. has;
- all end in ReLU: S3's printed outputs all begin at exactly 0;
- CNN + transfer keeps its ResNet-50 frozen, as CNN + residual does.

Source: S3; Eigen, Puhrsch, Fergus, NeurIPS 2014 (arXiv:1406.2283); Laina et al. 2016 (arXiv:1606.00373).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from waferlens.models.resnet import ResNet, begin_alive, he_normal

Head = Literal["fully-connected", "convolution", "up-projection"]
STAGES, GROWTHS = 5, 3
"""Halvings of the encoders, doublings of the heads."""


class UnpoolingConvolution(nn.Conv2d):
    """Zeros behind and below each pixel, then a 5x5 convolution: a map of twice the size.

    It is computed as the transposed convolution that it is equal to, which never multiplies by those zeros.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 5, padding=2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k p q"]:
        return nn.functional.conv_transpose2d(x, self._turned(), self.bias, stride=2, padding=2, output_padding=1)

    def fused(self) -> nn.ConvTranspose2d:
        """The transposed convolution itself, its weights turned for good."""
        plain = nn.ConvTranspose2d(
            self.in_channels, self.out_channels, 5, stride=2, padding=2, output_padding=1, bias=self.bias is not None
        )
        plain.weight.data.copy_(self._turned().data)
        if self.bias is not None:
            plain.bias.data.copy_(self.bias.data)  # type: ignore[union-attr]
        return plain

    def _turned(self) -> Tensor:
        return self.weight.flip(2, 3).transpose(0, 1)


class JoinedUpProjection(nn.Module):
    """S3's up-projection: 5x5 + ReLU + 3x3 beside 5x5, both on the unpooled map, concatenated.

    Args:
        inputs: Channels that come in; half as many go out, at twice the size.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            UnpoolingConvolution(inputs, inputs // 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(inputs // 2, inputs // 4, 3, padding=1),
        )
        self.beside = UnpoolingConvolution(inputs, inputs // 4)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k p q"]:
        return torch.cat([self.path(x), self.beside(x)], dim=1)


class PlainEncoder(nn.Sequential):
    """Five stages of convolution and maximum, to a 32nd of the size.

    Args:
        channels: Channels of the image.
        outputs: Channels of the features.
    """

    def __init__(self, channels: int, outputs: int) -> None:
        widths = [channels, *(max(1, outputs // 2**place) for place in range(STAGES - 1, -1, -1))]
        super().__init__()
        for before, after in pairwise(widths):
            self.append(_convolution(before, after))
            self.append(nn.MaxPool2d(2, ceil_mode=True))  # rounds up, as the strides of ResNet do
        self.outputs = outputs
        he_normal(self)


class DepthCnnNet(nn.Module):
    """An encoder and a head.

    Args:
        encoder: From an image to features at a 32nd of its size.
        head: From features to a map of depths that are not below 0.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        he_normal(head)
        begin_alive([part for part in head.modules() if isinstance(part, nn.Conv2d | nn.Linear)][-1])
        self.encoder, self.head = encoder, head

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 p q"]:
        return self.head(self.encoder(x))


def build_depth_cnn(
    head: Head,
    encoder_blocks: tuple[int, ...] | None,
    base_channels: int,
    bottleneck_channels: int,
    dropout: float,
    channels: int,
    height_px: int,
    width_px: int,
    *,
    frozen: bool = False,
) -> DepthCnnNet:
    """A depth network; up-projection, (3, 4, 6, 3), 64, 1024 on 3 channels is S3's, of 52,964,289 parameters.

    Args:
        head: What stands on the encoder.
        encoder_blocks: Bottleneck blocks of each stage of a ResNet; None takes the plain encoder.
        base_channels: Channels of the ResNet's stem.
        bottleneck_channels: Width of the head, and of the plain encoder's last layer; a multiple of 16.
        dropout: Share of the units dropped in front of the last fully connected layer.
        channels: Channels of the image.
        height_px: Rows of the image [px]
        width_px: Columns of the image [px]
        frozen: Keep the ResNet as it was loaded.

    Raises:
        ValueError: `bottleneck_channels` is no multiple of 16, or a plain encoder, which nothing was loaded into, is to
            be frozen.
    """
    if bottleneck_channels % 16:
        raise ValueError(f"bottleneck_channels = {bottleneck_channels}: should be a multiple of 16")
    encoder: ResNet | PlainEncoder
    if encoder_blocks is None:
        if frozen:
            raise ValueError("a plain encoder has no weights from elsewhere; it cannot be frozen")
        encoder = PlainEncoder(channels, bottleneck_channels)
    else:
        encoder = ResNet(channels, encoder_blocks, base_channels, frozen)
    features, wide = encoder.outputs, bottleneck_channels
    coarse = (-(-height_px // 2**STAGES), -(-width_px // 2**STAGES))
    match head:
        case "up-projection":
            return DepthCnnNet(encoder, _up_projection_head(features, wide))
        case "convolution":
            return DepthCnnNet(encoder, _convolution_head(features, wide))
        case "fully-connected":
            return DepthCnnNet(encoder, _fully_connected_head(features, wide, dropout, coarse))


def map_size(height_px: int, width_px: int) -> tuple[int, int]:
    """Rows and columns of the map that these networks tell of an image: 62x78 of 256x320 [px]"""
    rows, columns = (-(-side // 2**STAGES) * 2**GROWTHS - 2 for side in (height_px, width_px))
    return rows, columns


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def _up_projection_head(features: int, wide: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(features, wide, 1),
        nn.BatchNorm2d(wide),
        *(JoinedUpProjection(wide // 2**place) for place in range(GROWTHS)),
        nn.Conv2d(wide // 2**GROWTHS, 1, 3),
        nn.ReLU(),
    )


def _convolution_head(features: int, wide: int) -> nn.Sequential:
    head = nn.Sequential(_convolution(features, wide // 2))
    for place in range(1, GROWTHS + 1):
        head.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
        head.append(_convolution(wide // 2**place, wide // 2 ** (place + 1)))
    return head.append(nn.Conv2d(wide // 2 ** (GROWTHS + 1), 1, 3)).append(nn.ReLU())


def _fully_connected_head(features: int, wide: int, dropout: float, coarse: tuple[int, int]) -> nn.Sequential:
    rows, columns = (side * 2**GROWTHS - 2 for side in coarse)
    return nn.Sequential(
        nn.Conv2d(features, wide // 16, 1),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(wide // 16 * coarse[0] * coarse[1], wide),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(wide, rows * columns),
        nn.Unflatten(1, (1, rows, columns)),
        nn.ReLU(),
    )
