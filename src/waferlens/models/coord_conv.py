"""A convolution that knows where it is: rows and columns of the map as two more channels.

Source: Liu et al., An Intriguing Failing of Convolutional Neural Networks and the CoordConv Solution, NeurIPS 2018
(arXiv:1807.03247); S2, appendix K.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from waferlens.models.yolo_blocks import ConvNorm, leaky


class CoordConv(nn.Module):
    """Row and column, each from -1 to 1 across the map, beside the input; then convolution, norm, activation."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = ConvNorm(inputs + 2, outputs, kernel, stride, activation=leaky)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k p q"]:
        b, _, h, w = x.shape
        rows = torch.linspace(-1.0, 1.0, h, device=x.device, dtype=x.dtype)[None, None, :, None]
        columns = torch.linspace(-1.0, 1.0, w, device=x.device, dtype=x.dtype)[None, None, None, :]
        return self.conv(torch.cat([x, rows.expand(b, 1, h, w), columns.expand(b, 1, h, w)], dim=1))
