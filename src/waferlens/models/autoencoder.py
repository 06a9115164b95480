"""The challenge's starting point: a dense autoencoder from image to depth map.

Source: S4 names an autoencoder as the organisers' baseline and gives no layers; a dense bottleneck is our reading.
"""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn


class Autoencoder(nn.Module):
    """Dense layers down to a bottleneck and up again.

    Args:
        height_px: Rows of the image [px]
        width_px: Columns of the image [px]
        hidden: Widths of the dense layers from the image to the bottleneck; mirrored on the way back.
    """

    def __init__(self, height_px: int, width_px: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = (height_px, width_px)
        pixels = height_px * width_px
        widths = [pixels, *hidden, *reversed(hidden[:-1]), pixels]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        return self.layers(x.flatten(1)).unflatten(1, (1, *self.shape))
