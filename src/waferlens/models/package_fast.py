"""The detector for the package line: one fine map for small cracks, one coarse map for what is large, no anchors.

Most cracks are a few pixels wide and shorter than 32, so a detector that first shrinks the image to an eighth sees
them in a handful of cells. Here the image is folded, not shrunk: blocks of pixels become channels, and the first
convolutions run at a quarter of its resolution with few channels, where they are cheap. Coarser scales tell where on
the package a place lies (marks of the emitter look like cracks and are none), and come back to the fine scale from
above. Each cell of two of the scales says how far the four sides of a box lie from it, and what is in it.

Training uses three parallel branches per convolution, which are one 3x3 convolution at inspection.

Source: pixel shuffle: Shi et al., CVPR 2016 (arXiv:1609.05158); parallel branches: Ding et al., RepVGG, CVPR 2021
(arXiv:2101.03697); features from above: Lin et al., FPN, CVPR 2017 (arXiv:1612.03144); sides of a box from each cell:
Tian et al., FCOS, ICCV 2019 (arXiv:1904.01355); coordinates: Liu et al., CoordConv, NeurIPS 2018 (arXiv:1807.03247).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from waferlens.models.strided import GlobalContext, RepConvolution

BOX = 4
"""Distances of a cell's centre to the left, upper, right and lower side of its box."""
PRIOR = 0.01
"""Share of cells that hold something, before anything is learned (Lin et al., RetinaNet, arXiv:1708.02002)."""
COARSE_HEAD = 2
"""Scale of the second head; the first stands at the finest."""


class PackageFastNet(nn.Module):
    """Fold, scales of plain convolutions, features from above, heads at two scales.

    Args:
        classes: Number of classes.
        channels: Of the image.
        unshuffle: Pixels folded into one position along each axis.
        widths: Channels at each scale; each has half the resolution of the one before.
        blocks: Convolutions at each scale on the way down.
    """

    def __init__(
        self, classes: int, channels: int, unshuffle: int, widths: Sequence[int], blocks: Sequence[int]
    ) -> None:
        super().__init__()
        self.fold = nn.PixelUnshuffle(unshuffle)
        first, *later = (
            [RepConvolution(width, width) for _ in range(count - 1)]
            for width, count in zip(widths, blocks, strict=True)
        )
        self.enter = nn.Sequential(RepConvolution(channels * unshuffle**2, widths[0]), *first)
        last = len(widths) - 2
        self.down = nn.ModuleList(
            nn.Sequential(RepConvolution(above + 2 * (number == last), width, stride=2), *more)
            for number, ((above, width), more) in enumerate(zip(pairwise(widths), later, strict=True))
        )
        self.context = GlobalContext(widths[-1])
        self.from_above = nn.ModuleList(nn.Conv2d(above, width, 1) for width, above in pairwise(widths))
        self.join = nn.ModuleList(RepConvolution(width, width) for width in widths[:-1])
        scales = sorted({0, min(COARSE_HEAD, len(widths) - 1)})
        self.strides = tuple(unshuffle * 2**scale for scale in scales)
        """Pixels from cell to cell of each head."""
        self.scales = scales
        self.heads = nn.ModuleList(
            nn.Sequential(RepConvolution(widths[scale], widths[scale]), nn.Conv2d(widths[scale], BOX + classes, 1))
            for scale in scales
        )
        for head, stride in zip(self.heads, self.strides, strict=True):
            bias = head[1].bias  # type: ignore[index]
            nn.init.zeros_(bias)
            nn.init.constant_(bias[BOX:], math.log(PRIOR / (1 - PRIOR)))
            nn.init.constant_(bias[:BOX], 8.0 / stride)  # boxes of some 16 px

    def forward(self, x: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b p q k"]]:
        """Of each head and cell four distances, before `softplus` [cell], and a logit for each class.

        Args:
            x: Image, normalised; rows and columns in multiples of the fold times two for each further scale.
        """
        maps = [self.enter(self.fold(x))]
        for number, down in enumerate(self.down):
            here = maps[-1]
            maps.append(down(with_place(here) if number == len(self.down) - 1 else here))
        maps[-1] = self.context(maps[-1])
        for scale in reversed(range(len(self.join))):
            above = nn.functional.interpolate(self.from_above[scale](maps[scale + 1]), scale_factor=2, mode="nearest")
            maps[scale] = self.join[scale](maps[scale] + above)
        features = [head[0](maps[scale]) for head, scale in zip(self.heads, self.scales, strict=True)]  # type: ignore[index]
        with torch.autocast(x.device.type, enabled=False):
            pairs = zip(self.heads, features, strict=True)
            return [head[1](feature.float()).permute(0, 2, 3, 1) for head, feature in pairs]  # type: ignore[index]


def with_place(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
    """The map with two more channels: how far right and how far down each cell lies, -1 to 1."""
    b, _, h, w = x.shape
    across = torch.linspace(-1, 1, w, dtype=x.dtype, device=x.device).expand(b, 1, h, w)
    down = torch.linspace(-1, 1, h, dtype=x.dtype, device=x.device)[:, None].expand(b, 1, h, w)
    return torch.cat([x, across, down], dim=1)
