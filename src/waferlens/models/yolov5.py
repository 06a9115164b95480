"""YOLOv5: backbone of cross stage partial blocks, spatial pyramid, and path aggregation up and down.

Layers are numbered 0 to 23 in the published table; `LAYERS` of `foreign_yolo` names them.

Source: S2; Jocher et al., YOLOv5 release 6 (architecture summary); path aggregation: Liu et al., PANet, CVPR 2018
(arXiv:1803.01534). Written from the figure and the table of layers.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from waferlens.models.yolo_blocks import ChainedPyramid, ConvNorm, CspBlock, enlarged, scaled

STRIDES_PX = (8, 16, 32)
"""Pixels between positions of the three maps."""
WIDTHS = (64, 128, 256, 512, 1024)
"""Channels of the large network at strides 2, 4, 8, 16, 32."""
BLOCKS = (3, 6, 9, 3)
"""Bottlenecks of the large network in each stage of its backbone; the neck has the first number everywhere."""


class YoloV5Net(nn.Module):
    """Features at strides 8, 16 and 32.

    Args:
        width: Share of the channels of the large network.
        depth: Share of its bottlenecks.
        channels: Channels of the image.
    """

    def __init__(self, width: float, depth: float, channels: int = 3) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = (scaled(one, width) for one in WIDTHS)
        n2, n3, n4, n5 = (max(round(one * depth), 1) for one in BLOCKS)
        self.widths = (c3, c4, c5)
        # On the way down: the stem sees 6x6 pixels at once, then each stage halves rows and columns.
        self.stem = ConvNorm(channels, c1, 6, 2, padding=2)
        self.stage_2 = nn.Sequential(ConvNorm(c1, c2, 3, 2), CspBlock(c2, c2, n2))
        self.stage_3 = nn.Sequential(ConvNorm(c2, c3, 3, 2), CspBlock(c3, c3, n3))
        self.stage_4 = nn.Sequential(ConvNorm(c3, c4, 3, 2), CspBlock(c4, c4, n4))
        self.stage_5 = nn.Sequential(ConvNorm(c4, c5, 3, 2), CspBlock(c5, c5, n5))
        self.pyramid = ChainedPyramid(c5)
        # Up again: what the coarse scales mean, to the fine ones.
        self.narrow_5 = ConvNorm(c5, c4)
        self.up_4 = CspBlock(2 * c4, c4, n2, shortcut=False)
        self.narrow_4 = ConvNorm(c4, c3)
        self.up_3 = CspBlock(2 * c3, c3, n2, shortcut=False)
        # And down once more: where things are, to the coarse ones.
        self.down_3 = ConvNorm(c3, c3, 3, 2)
        self.out_4 = CspBlock(2 * c3, c4, n2, shortcut=False)
        self.down_4 = ConvNorm(c4, c4, 3, 2)
        self.out_5 = CspBlock(2 * c4, c5, n2, shortcut=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Features `b k p q`, finest first."""
        seen_3 = self.stage_3(self.stage_2(self.stem(x)))
        seen_4 = self.stage_4(seen_3)
        coarse = self.narrow_5(self.pyramid(self.stage_5(seen_4)))
        middle = self.narrow_4(self.up_4(torch.cat([enlarged(coarse), seen_4], dim=1)))
        fine = self.up_3(torch.cat([enlarged(middle), seen_3], dim=1))
        out_4 = self.out_4(torch.cat([self.down_3(fine), middle], dim=1))
        out_5 = self.out_5(torch.cat([self.down_4(out_4), coarse], dim=1))
        return [fine, out_4, out_5]


class Prototypes(nn.Module):
    """Masks from which every object mixes its own, at a quarter of the image's resolution.

    Source: Bolya et al., YOLACT, ICCV 2019 (arXiv:1904.02689); widths of YOLOv5-seg.
    """

    def __init__(self, inputs: int, hidden: int, masks: int) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, hidden, 3)
        self.second = ConvNorm(hidden, hidden, 3)
        self.last = ConvNorm(hidden, masks)

    def forward(self, fine: Float[Tensor, "b c h w"]) -> Float[Tensor, "b m 2*h 2*w"]:
        return self.last(self.second(enlarged(self.first(fine))))
