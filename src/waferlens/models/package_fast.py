"""The detector for the package line: one fine map for small cracks, one coarse map for what is large, no anchors.

Most cracks are a few pixels wide and shorter than 32, so a detector that first shrinks the image to an eighth sees
them in a handful of cells. Here the image is folded, not shrunk: blocks of pixels become channels, and the first
convolutions run at a quarter of its resolution with few channels, where they are cheap. Coarser scales tell what
surrounds a place (marks of the emitter look like cracks and are none), and come back to the fine scale from above. Each
cell of two of the scales says how far the four sides of a box lie from it, and what is in it.

Nothing depends on where in the image a place lies, so that the network learns from windows around what is to be found
and looks at whole packages afterwards. In training the finest map also says which of its cells an object touches: a
few boxes an image say little of what a crack looks like, its pixels say much more.

Source: pixel shuffle: Shi et al., CVPR 2016 (arXiv:1609.05158); features from above: Lin et al., FPN, CVPR 2017
(arXiv:1612.03144); sides of a box from each cell: Tian et al., FCOS, ICCV 2019 (arXiv:1904.01355); masks beside boxes:
He et al., Mask R-CNN, ICCV 2017 (arXiv:1703.06870).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

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
        blocks: 3x3 convolutions at each scale on the way down.
        traces: Say in training which cells of the finest map an object touches.
    """

    def __init__(
        self, classes: int, channels: int, unshuffle: int, widths: Sequence[int], blocks: Sequence[int], traces: bool
    ) -> None:
        super().__init__()
        self.fold = nn.PixelUnshuffle(unshuffle)
        first, *later = ([convolution(width, width) for _ in range(n)] for width, n in zip(widths, blocks, strict=True))
        # a folded block holds whole edges: to mix its pixels a 1x1 convolution is enough, at a ninth of the cost
        self.enter = nn.Sequential(convolution(channels * unshuffle**2, widths[0], side=1), *first)
        self.down = nn.ModuleList(
            nn.Sequential(convolution(above, width, stride=2), *more[1:])
            for (above, width), more in zip(pairwise(widths), later, strict=True)
        )
        self.from_above = nn.ModuleList(nn.Conv2d(above, width, 1) for width, above in pairwise(widths))
        self.join = nn.ModuleList(convolution(width, width) for width in widths[:-1])
        self.scales = sorted({0, min(COARSE_HEAD, len(widths) - 1)})
        self.strides = tuple(unshuffle * 2**scale for scale in self.scales)
        """Pixels from cell to cell of each head."""
        self.heads = nn.ModuleList(
            nn.Sequential(convolution(widths[scale], widths[scale]), nn.Conv2d(widths[scale], BOX + classes, 1))
            for scale in self.scales
        )
        self.traces = nn.Conv2d(widths[0], classes, 1) if traces else None
        rare = math.log(PRIOR / (1 - PRIOR))
        for head, stride in zip(self.heads, self.strides, strict=True):
            bias = head[1].bias  # type: ignore[index]
            nn.init.constant_(bias[BOX:], rare)
            nn.init.constant_(bias[:BOX], 8.0 / stride)  # boxes of some 16 px
        if self.traces is not None:
            nn.init.constant_(self.traces.bias, rare)  # type: ignore[arg-type]

    def forward(self, x: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b p q k"]]:
        """Of each head and cell four distances, before `softplus` [cell], and a logit for each class.

        In training, where asked for, behind them a logit for each class that the cells of the finest map are touched.

        Args:
            x: Image, normalised; rows and columns in multiples of the fold times two for each further scale.
        """
        maps = [self.enter(self.fold(x))]
        for down in self.down:
            maps.append(down(maps[-1]))
        for scale in reversed(range(len(self.join))):
            above = nn.functional.interpolate(self.from_above[scale](maps[scale + 1]), scale_factor=2, mode="nearest")
            maps[scale] = self.join[scale](maps[scale] + above)
        features = [head[0](maps[scale]) for head, scale in zip(self.heads, self.scales, strict=True)]  # type: ignore[index]
        outputs = [head[1] for head in self.heads]  # type: ignore[index]
        if self.training and self.traces is not None:
            features.append(maps[0])
            outputs.append(self.traces)
        with torch.autocast(x.device.type, enabled=False):
            pairs = zip(outputs, features, strict=True)
            return [output(feature.float()).permute(0, 2, 3, 1) for output, feature in pairs]


def convolution(inputs: int, outputs: int, side: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU: what one convolution is at inspection."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, side, stride=stride, padding=side // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
