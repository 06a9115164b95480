"""U-Net: contracting path, expanding path, skip connections at every level.

Source: Ronneberger, Fischer, Brox, MICCAI 2015 (arXiv:1505.04597); made shallow (2 to 4 levels) for 72x48 px by S1.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


def double_convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions, each with batch norm and ReLU; padded, so that maps keep their size."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """U-Net with `levels` resolutions, the first at full size, each further one at half the one before.

    Args:
        inputs: Channels of the image.
        outputs: Channels of the map.
        levels: Number of resolutions; 5 in the paper, 2 to 4 in S1.
        base_channels: Channels at full size; doubled at every level.
        tanh: Bound the output to -1..1, as the generator of pix2pix does.
    """

    def __init__(self, inputs: int, outputs: int, levels: int, base_channels: int, tanh: bool = False) -> None:
        super().__init__()
        widths = [base_channels * 2**level for level in range(levels)]
        self.down = nn.ModuleList(
            double_convolution(before, after) for before, after in zip([inputs, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:-1]))
        self.merge = nn.ModuleList(double_convolution(2 * w, w) for w in reversed(widths[:-1]))
        self.head = nn.Conv2d(base_channels, outputs, 1)
        self.tanh = tanh
        self.divisor = 2 ** (levels - 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        skips = []
        for level, stage in enumerate(self.down):
            x = stage(nn.functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for grow, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skips.pop(), grow(x)], dim=1))
        x = self.head(x)
        return torch.tanh(x) if self.tanh else x
