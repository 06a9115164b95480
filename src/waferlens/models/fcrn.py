"""FCRN: a ResNet-50 that contracts, four up-projections that expand.

Source: S0, appendix "Network details"; Laina et al. 2016 (arXiv:1606.00373).
"""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from waferlens.models.resnet import ResNet, begin_alive, he_normal
from waferlens.models.up_project import UpProject

UP_BLOCKS = 4
"""Up-projections: from a 32nd of the image to half of it."""


class FcrnNet(nn.Module):
    """Fully convolutional residual network from an image to a map of heights that are not below 0.

    Args:
        encoder: The contracting half.
        bottleneck_channels: Channels after the 1x1 convolution; each up-projection halves them.
        dropout: Share of the channels dropped in front of the last convolution, in training.
        size_px: Rows and columns of the map [px]
        pad_before: As of `up_project.InterleavedConvolution`.
    """

    def __init__(
        self, encoder: ResNet, bottleneck_channels: int, dropout: float, size_px: tuple[int, int], pad_before: bool
    ) -> None:
        super().__init__()
        widths = [bottleneck_channels // 2**place for place in range(UP_BLOCKS + 1)]
        self.bridge = nn.Sequential(
            nn.Conv2d(encoder.outputs, bottleneck_channels, 1, bias=False), nn.BatchNorm2d(bottleneck_channels)
        )
        self.up = nn.Sequential(*(UpProject(i, o, pad_before=pad_before) for i, o in pairwise(widths)))
        self.head = nn.Sequential(
            nn.Dropout2d(dropout),
            nn.Conv2d(widths[-1], 1, 3, padding=1),
            nn.ReLU(),
            # Pixel centres of both grids over the same area: with corners over corners the map would be stretched.
            nn.Upsample(size=size_px, mode="bilinear", align_corners=False),
        )
        he_normal(self)
        begin_alive(self.head[1])
        self.encoder = encoder

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 p q"]:
        return self.head(self.up(self.bridge(self.encoder(x))))


def build_fcrn(
    encoder_blocks: tuple[int, ...],
    base_channels: int,
    bottleneck_channels: int,
    dropout: float,
    channels: int,
    height_px: int,
    width_px: int,
    *,
    frozen: bool = False,
    pad_before: bool = False,
) -> FcrnNet:
    """FCRN; with (3, 4, 6, 3), 64, 1024, 0.5, 1, 228, 228 it is that of S0, of 63,565,377 parameters.

    Args:
        encoder_blocks: Bottleneck blocks of each stage of the encoder.
        base_channels: Channels of the encoder's stem.
        bottleneck_channels: Channels after the 1x1 convolution; a multiple of 16.
        dropout: Share of the channels dropped in front of the last convolution.
        channels: Channels of the image.
        height_px: Rows of image and map [px]
        width_px: Columns of image and map [px]
        frozen: Keep the encoder as it was loaded.
        pad_before: Pad as the weights do that Laina et al. released; see `up_project`.

    Raises:
        ValueError: `bottleneck_channels` cannot be halved four times.
    """
    if bottleneck_channels % 2**UP_BLOCKS:
        raise ValueError(f"bottleneck_channels = {bottleneck_channels}: should be a multiple of {2**UP_BLOCKS}")
    encoder = ResNet(channels, encoder_blocks, base_channels, frozen)
    return FcrnNet(encoder, bottleneck_channels, dropout, (height_px, width_px), pad_before)
