"""PatchGAN: judges patches of an (image, map) pair.

Source: Isola, Zhu, Zhou, Efros, CVPR 2017 (arXiv:1611.07004), section 3.2.2 and appendix 6.1.2.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class PatchGAN(nn.Module):
    """Convolutional discriminator with one logit per patch.

    Args:
        inputs: Channels of image and map together.
        ndf: Channels of the first layer; S1 also tried 16.
        layers: Layers after the first; all but the last are strided, as in the paper.
        deeper: S1's deeper variant, whose layers it does not tell: one 3x3 convolution more after each.
    """

    def __init__(self, inputs: int, ndf: int, layers: int, deeper: bool = False) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Conv2d(inputs, ndf, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        width = ndf
        for layer in range(1, layers + 1):
            # The last one keeps its size, as in the paper.
            stride, wider = (2 if layer < layers else 1), min(width * 2, ndf * 8)
            blocks += [
                nn.Conv2d(width, wider, 4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(wider),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            if deeper:
                blocks += [
                    nn.Conv2d(wider, wider, 3, padding=1, bias=False),
                    nn.BatchNorm2d(wider),
                    nn.LeakyReLU(0.2, inplace=True),
                ]
            width = wider
        blocks.append(nn.Conv2d(width, 1, 4, padding=1))
        self.layers = nn.Sequential(*blocks)

    def forward(self, image: Float[Tensor, "b c h w"], depth: Float[Tensor, "b d h w"]) -> Float[Tensor, "b 1 p q"]:
        return self.layers(torch.cat([image, depth], dim=1))
