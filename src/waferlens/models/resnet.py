"""ResNet with bottleneck blocks, without its mean over the image and its last layer: an encoder to a 32nd of the size.

The stride of a stage lies in its first 3x3 convolution, as in S0's table of layers and in torchvision; the ResNet-50 of
the paper, and of the weights that Laina et al. released, has it in the 1x1 convolution before.

Source: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016 (arXiv:1512.03385).
"""

from __future__ import annotations

from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

EXPANSION = 4
"""A block ends in so many times the channels that it works in."""
FIRST_VALUE, FIRST_SPREAD = 0.3, 0.05
"""What a network with a ReLU at its end tells before it has learned, and its weights' share of He's."""


def he_normal(network: nn.Module) -> None:
    """Fresh weights that keep the variance of the signal through ReLUs; biases 0.

    Source: He, Zhang, Ren, Sun, ICCV 2015 (arXiv:1502.01852).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@torch.no_grad()
def begin_alive(last: nn.Conv2d | nn.Linear) -> None:
    """Fresh weights of a last layer in front of a ReLU, for maps of 0..1: it tells about `FIRST_VALUE` everywhere.

    Where such a layer tells less than 0 it is not taught any more. As wide as He's, it would tell several times the
    full scale at first, and the steps that bring it down take it below 0 for good.
    """
    last.weight.mul_(FIRST_SPREAD)
    if last.bias is not None:
        last.bias.fill_(FIRST_VALUE)


class Bottleneck(nn.Module):
    """Narrow by 1x1, look by 3x3, widen by 1x1, and add what came in.

    Args:
        inputs: Channels that come in.
        width: Channels inside.
        stride: Of the 3x3 convolution, and of the shortcut beside it.
    """

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.path = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k p q"]:
        return self.relu(self.path(x) + self.shortcut(x))


class ResNet(nn.Module):
    """The contracting half of a network.

    Args:
        channels: Channels of the image.
        blocks: Bottleneck blocks of each stage; 3, 4, 6, 3 in ResNet-50.
        base_channels: Channels of the stem; 64 in ResNet-50.
        frozen: Keep weights, and statistics of batch norms, as they were loaded.
    """

    def __init__(self, channels: int, blocks: tuple[int, ...], base_channels: int, frozen: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, base_channels, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(base_channels),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.stages = nn.ModuleList()
        inputs = base_channels
        for place, count in enumerate(blocks):
            width = base_channels * 2**place
            stage = nn.Sequential()
            for block in range(count):
                stage.append(Bottleneck(inputs, width, stride=2 if block == 0 and place > 0 else 1))
                inputs = EXPANSION * width
            self.stages.append(stage)
        self.outputs = inputs
        """Channels of the features."""
        self.frozen = frozen
        he_normal(self)
        if frozen:
            self.requires_grad_(False)
            self.eval()

    def train(self, mode: bool = True) -> Self:
        """As of any module, but a frozen encoder stays in evaluation: training would move its batch norms."""
        return super().train(mode and not self.frozen)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k p q"]:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return x
