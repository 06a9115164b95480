"""YOLOv7-tiny: ELAN backbone, spatial pyramid, path aggregation; the parts of its neck are handed in.

Numbers in comments are those of the layers in S2's appendices H to J: 0 to 28 the backbone, 29 to 76 the neck, 77 the
head. In the Slim-neck a VoV-GSCSP stands for the six layers of an ELAN block, so what follows has smaller numbers.

Source: Wang, Bochkovskiy, Liao, YOLOv7, CVPR 2023 (arXiv:2207.02696); S2, appendices H to J.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from waferlens.models.coord_conv import CoordConv
from waferlens.models.slim_neck import GSConvMixed, VoVGSCSP
from waferlens.models.yolo_blocks import ConvNorm, Elan, ParallelPyramid, enlarged, leaky, scaled

Part = Callable[[int, int], nn.Module]
"""Makes a layer from its channels in and out."""
_convolution = partial(ConvNorm, activation=leaky)


def _elan(inputs: int, outputs: int) -> nn.Module:
    return Elan(inputs, outputs // 2, outputs)


@dataclass(frozen=True, slots=True)
class NeckParts:
    """What the neck is made of where its variants differ."""

    route: Part
    """1x1, before two scales meet: layers 38, 40, 48, 50."""
    merge: Part
    """Where two scales have met: layers 42 to 47, 52 to 57, 60 to 65, 68 to 73."""
    down: Part
    """3x3 to half of the rows and columns: layers 58, 66."""
    last: Part
    """3x3 in front of the head: layers 74, 75, 76."""


PLAIN = NeckParts(
    route=_convolution,
    merge=_elan,
    down=partial(_convolution, kernel=3, stride=2),
    last=partial(_convolution, kernel=3),
)
COORD = NeckParts(route=CoordConv, merge=_elan, down=PLAIN.down, last=partial(CoordConv, kernel=3))
SLIM = NeckParts(route=GSConvMixed, merge=VoVGSCSP, down=partial(GSConvMixed, kernel=3, stride=2), last=PLAIN.last)


class YoloV7TinyNet(nn.Module):
    """Features at strides 8, 16 and 32.

    Args:
        parts: Of the neck.
        width: Share of its channels.
        channels: Channels of the image.
    """

    def __init__(self, parts: NeckParts = PLAIN, width: float = 1.0, channels: int = 3) -> None:
        super().__init__()
        c32, c64, c128, c256, c512 = (scaled(one, width) for one in (32, 64, 128, 256, 512))
        self.widths = (c128, c256, c512)
        self.stem = nn.Sequential(
            ConvNorm(channels, c32, 3, 2, activation=leaky), ConvNorm(c32, c64, 3, 2, activation=leaky)
        )  # 0, 1
        self.shrink = nn.MaxPool2d(2)
        self.stage_2 = Elan(c64, c32, c64)  # 2 to 7
        self.stage_3 = Elan(c64, c64, c128)  # 9 to 14
        self.stage_4 = Elan(c128, c128, c256)  # 16 to 21
        self.stage_5 = Elan(c256, c256, c512)  # 23 to 28
        self.pyramid = ParallelPyramid(c512, c256)  # 29 to 37
        self.narrow_5 = parts.route(c256, c128)  # 38
        self.route_4 = parts.route(c256, c128)  # 40
        self.up_4 = parts.merge(2 * c128, c128)  # 42 to 47
        self.narrow_4 = parts.route(c128, c64)  # 48
        self.route_3 = parts.route(c128, c64)  # 50
        self.up_3 = parts.merge(2 * c64, c64)  # 52 to 57
        self.down_3 = parts.down(c64, c128)  # 58
        self.out_4 = parts.merge(2 * c128, c128)  # 60 to 65
        self.down_4 = parts.down(c128, c256)  # 66
        self.out_5 = parts.merge(2 * c256, c256)  # 68 to 73
        self.last_3 = parts.last(c64, c128)  # 74
        self.last_4 = parts.last(c128, c256)  # 75
        self.last_5 = parts.last(c256, c512)  # 76

    def forward(self, x: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Features `b k p q`, finest first."""
        seen_3 = self.stage_3(self.shrink(self.stage_2(self.stem(x))))
        seen_4 = self.stage_4(self.shrink(seen_3))
        coarse = self.pyramid(self.stage_5(self.shrink(seen_4)))
        middle = self.up_4(torch.cat([self.route_4(seen_4), enlarged(self.narrow_5(coarse))], dim=1))
        fine = self.up_3(torch.cat([self.route_3(seen_3), enlarged(self.narrow_4(middle))], dim=1))
        out_4 = self.out_4(torch.cat([self.down_3(fine), middle], dim=1))
        out_5 = self.out_5(torch.cat([self.down_4(out_4), coarse], dim=1))
        return [self.last_3(fine), self.last_4(out_4), self.last_5(out_5)]
