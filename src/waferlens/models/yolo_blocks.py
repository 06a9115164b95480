"""Blocks that the YOLO networks of the package station are made of.

Source: cross stage partial blocks: Wang et al., CSPNet, CVPR Workshops 2020 (arXiv:1911.11929); spatial pyramid: He et
al., ECCV 2014 (arXiv:1406.4729), one pool after another as S2 describes SPPF; ELAN: Wang, Bochkovskiy, Liao, YOLOv7,
CVPR 2023 (arXiv:2207.02696), and the layer tables of S2's appendix H.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

NORM_EPSILON, NORM_MOMENTUM = 1e-3, 0.03
"""Of the batch norms of both families, as in their published weights."""
LEAK = 0.1
"""Slope of YOLOv7-tiny's activation below zero."""
CHANNEL_MULTIPLE = 8
"""What numbers of channels are rounded up to a multiple of."""


def leaky() -> nn.Module:
    """The activation of YOLOv7-tiny."""
    return nn.LeakyReLU(LEAK)


def scaled(channels: int, width: float) -> int:
    """A share of the channels of the full network, rounded up to a multiple of eight."""
    return CHANNEL_MULTIPLE * math.ceil(channels * width / CHANNEL_MULTIPLE)


class ConvNorm(nn.Sequential):
    """Convolution, batch norm, activation; rows and columns are kept, or divided by the stride.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        kernel: Side of the kernel [px]
        stride: Step of the kernel [px]
        groups: Groups of channels that do not see each other.
        activation: Makes what follows the norm; `nn.Identity` leaves it out.
        padding: Zeros around the image; half of the kernel if None [px]
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        activation: Callable[[], nn.Module] = nn.SiLU,
        padding: int | None = None,
    ) -> None:
        around = kernel // 2 if padding is None else padding
        super().__init__(
            OrderedDict(
                conv=nn.Conv2d(inputs, outputs, kernel, stride, around, groups=groups, bias=False),
                norm=nn.BatchNorm2d(outputs, eps=NORM_EPSILON, momentum=NORM_MOMENTUM),
                activation=activation(),
            )
        )


class Bottleneck(nn.Module):
    """1x1 and 3x3 convolution, and the input added if asked."""

    def __init__(self, channels: int, *, shortcut: bool) -> None:
        super().__init__()
        self.narrow = ConvNorm(channels, channels)
        self.wide = ConvNorm(channels, channels, 3)
        self.shortcut = shortcut

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        y = self.wide(self.narrow(x))
        return x + y if self.shortcut else y


class CspBlock(nn.Module):
    """C3: half of the channels go through bottlenecks, half go past them (YOLOv5)."""

    def __init__(self, inputs: int, outputs: int, blocks: int, *, shortcut: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.through = ConvNorm(inputs, half)
        self.past = ConvNorm(inputs, half)
        self.blocks = nn.Sequential(*(Bottleneck(half, shortcut=shortcut) for _ in range(blocks)))
        self.join = ConvNorm(2 * half, outputs)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        return self.join(torch.cat([self.blocks(self.through(x)), self.past(x)], dim=1))


class ChainedPyramid(nn.Module):
    """SPPF: three 5x5 maxima in a row see 5, 9 and 13 positions, as parallel ones would (YOLOv5)."""

    def __init__(self, channels: int, side: int = 5) -> None:
        super().__init__()
        half = channels // 2
        self.narrow = ConvNorm(channels, half)
        self.pool = nn.MaxPool2d(side, stride=1, padding=side // 2)
        self.join = ConvNorm(4 * half, channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        seen = [self.narrow(x)]
        for _ in range(3):
            seen.append(self.pool(seen[-1]))
        return self.join(torch.cat(seen, dim=1))


class Elan(nn.Module):
    """Short and long paths side by side: two 1x1 convolutions, two 3x3 behind the second, all four joined (YOLOv7)."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.past = ConvNorm(inputs, hidden, activation=leaky)
        self.through = ConvNorm(inputs, hidden, activation=leaky)
        self.first = ConvNorm(hidden, hidden, 3, activation=leaky)
        self.second = ConvNorm(hidden, hidden, 3, activation=leaky)
        self.join = ConvNorm(4 * hidden, outputs, activation=leaky)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        through = self.through(x)
        first = self.first(through)
        return self.join(torch.cat([self.second(first), first, through, self.past(x)], dim=1))


class ParallelPyramid(nn.Module):
    """Maxima over 5, 9 and 13 positions side by side, and a way past them (YOLOv7-tiny, layers 29 to 37)."""

    def __init__(self, inputs: int, outputs: int, sides: tuple[int, ...] = (5, 9, 13)) -> None:
        super().__init__()
        self.past = ConvNorm(inputs, outputs, activation=leaky)
        self.narrow = ConvNorm(inputs, outputs, activation=leaky)
        self.pools = nn.ModuleList(nn.MaxPool2d(side, stride=1, padding=side // 2) for side in sides)
        self.merge = ConvNorm((1 + len(sides)) * outputs, outputs, activation=leaky)
        self.join = ConvNorm(2 * outputs, outputs, activation=leaky)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        y = self.narrow(x)
        pooled = [pool(y) for pool in reversed(self.pools)]
        return self.join(torch.cat([self.merge(torch.cat([*pooled, y], dim=1)), self.past(x)], dim=1))


def enlarged(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 2*h 2*w"]:
    """Each position as four."""
    return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
