"""Slim-neck: half of each convolution's channels by a cheap depthwise one, and aggregation of such blocks.

Every VoV-GSCSP holds a 3x3 convolution that its forward pass does not use. S2's count includes it, so it is built; it
costs no time, and no gradient reaches it.

Source: Li et al., Slim-neck by GSConv, 2022 (arXiv:2206.02424); S2, appendices J and L.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from waferlens.models.yolo_blocks import ConvNorm, leaky

DEPTHWISE = 5
"""Side of the depthwise kernel [px]"""


class GSConv(nn.Module):
    """A convolution to half of the channels, a depthwise one of those beside it, and both shuffled together."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        activation: Callable[[], nn.Module] = leaky,
    ) -> None:
        super().__init__()
        half = outputs // 2
        self.dense = ConvNorm(inputs, half, kernel, stride, activation=activation)
        self.depthwise = ConvNorm(half, half, DEPTHWISE, groups=half, activation=activation)

    def both(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k p q"]:
        """The dense half, then the depthwise half."""
        dense = self.dense(x)
        return torch.cat([dense, self.depthwise(dense)], dim=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k p q"]:
        halves = self.both(x)
        return torch.cat([halves[:, 0::2], halves[:, 1::2]], dim=1)  # even channels, then odd


class GSConvMixed(GSConv):
    """A 1x1 convolution in place of the shuffle, because a shuffle cannot be pruned (S2: GSConvs)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride)
        self.mix = nn.Conv2d(2 * (outputs // 2), outputs, 1, bias=False)
        self.activation = leaky()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k p q"]:
        return self.activation(self.mix(self.both(x)))


class GSBottleneck(nn.Module):
    """Two GSConvs, 1x1 and 3x3, and a 1x1 convolution beside them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.path = nn.Sequential(GSConv(channels, channels), GSConv(channels, channels, 3, activation=nn.Identity))
        self.beside = ConvNorm(channels, channels, activation=nn.Identity)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.path(x) + self.beside(x)


class VoVGSCSP(nn.Module):
    """Half of the channels through a GSBottleneck, half past it, and both joined."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.through = ConvNorm(inputs, half, activation=leaky)
        self.past = ConvNorm(inputs, half, activation=leaky)
        self.bottleneck = GSBottleneck(half)
        self.unused = ConvNorm(half, half, 3, activation=nn.Identity)
        self.join = ConvNorm(2 * half, outputs, activation=leaky)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        return self.join(torch.cat([self.past(x), self.bottleneck(self.through(x))], dim=1))
