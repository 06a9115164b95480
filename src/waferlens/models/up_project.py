"""Up-projection: a residual block that doubles the size of a map.

Doubling a map by putting zeros between its pixels and looking at it with a 5x5 convolution multiplies by zero three
times out of four. Which of the 25 weights meet a pixel depends on the place alone: 3x3 of them where row and column are
even, 2x3, 3x2 and 2x2 elsewhere. Four small convolutions of the small map, interleaved, therefore say the same.

Source: Laina, Rupprecht, Belagiannis, Tombari, Navab, "Deeper depth prediction with fully convolutional residual
networks", 3DV 2016 (arXiv:1606.00373), section 3.2 and figure 3.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad, pixel_shuffle


class InterleavedConvolution(nn.Module):
    """Unpooling by 2 and a 5x5 convolution, as four convolutions whose results are interleaved.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        pad_before: Where the sides of two weights take the pixel beyond the map: before it, as the code and the weights
            that the authors released have it, or behind it. Only behind it is the block what the paper says it is.
    """

    def __init__(self, inputs: int, outputs: int, *, pad_before: bool = False) -> None:
        super().__init__()
        self.even_even = nn.Conv2d(inputs, outputs, (3, 3))
        self.odd_even = nn.Conv2d(inputs, outputs, (2, 3))
        self.even_odd = nn.Conv2d(inputs, outputs, (3, 2))
        self.odd_odd = nn.Conv2d(inputs, outputs, (2, 2))
        self.pad_before = pad_before

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k p q"]:
        two, three = (1, 0) if self.pad_before else (0, 1), (1, 1)
        a = self.even_even(pad(x, (*three, *three)))
        b = self.odd_even(pad(x, (*three, *two)))
        c = self.even_odd(pad(x, (*two, *three)))
        d = self.odd_odd(pad(x, (*two, *two)))
        # pixel_shuffle takes the four of a channel one after the other: row by row within each 2x2 cell
        return pixel_shuffle(torch.stack([a, c, b, d], dim=2).flatten(1, 2), 2)

    @torch.no_grad()
    def as_kernel(self) -> Float[Tensor, "k c 5 5"]:
        """The 5x5 weights that the four are parts of, for a map with zeros behind and below each of its pixels."""
        outputs, inputs = self.even_even.weight.shape[:2]
        kernel = self.even_even.weight.new_zeros(outputs, inputs, 5, 5)
        kernel[..., 0::2, 0::2] = self.even_even.weight
        kernel[..., 1::2, 0::2] = self.odd_even.weight
        kernel[..., 0::2, 1::2] = self.even_odd.weight
        kernel[..., 1::2, 1::2] = self.odd_odd.weight
        return kernel


class UpProject(nn.Module):
    """Two unpooling branches, one with a further 3x3 convolution, added.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out, at twice the size.
        pad_before: As of `InterleavedConvolution`.
    """

    def __init__(self, inputs: int, outputs: int, *, pad_before: bool = False) -> None:
        super().__init__()
        self.unpool = InterleavedConvolution(inputs, outputs, pad_before=pad_before)
        self.unpool_beside = InterleavedConvolution(inputs, outputs, pad_before=pad_before)
        self.path = nn.Sequential(
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
        )
        self.norm_beside = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k p q"]:
        grown, beside = self.unpool(x), self.unpool_beside(x)
        return self.relu(self.path(grown) + self.norm_beside(beside))
