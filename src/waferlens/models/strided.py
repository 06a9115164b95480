"""The network for the line: every convolution runs at a quarter of the image's resolution or below.

A plain U-Net spends nearly all its time on full-size maps with few channels. Here the image is folded 4x4 pixels to
one position first (no information is lost), two scales of plain 3x3 convolutions follow, and the map is unfolded at
the end. Every position also sees means over regions of the whole image.

Training uses three parallel branches per convolution, which are one 3x3 convolution at inspection.

Source: pixel shuffle: Shi et al., CVPR 2016 (arXiv:1609.05158); parallel branches: Ding et al., RepVGG, CVPR 2021
(arXiv:2101.03697).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

MOMENTUM = 0.02
"""Of the batch norms' statistics: slower than usual, for they are frozen before the end of training."""


class RepConvolution(nn.Module):
    """3x3 convolution + 1x1 convolution + identity, each with its batch norm, added, then ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.wide = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs, momentum=MOMENTUM),
        )
        self.point = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs, momentum=MOMENTUM)
        )
        self.keep = nn.BatchNorm2d(inputs, momentum=MOMENTUM) if inputs == outputs and stride == 1 else None

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k p q"]:
        y = self.wide(x) + self.point(x)
        if self.keep is not None:
            y = y + self.keep(x)
        return torch.relu(y)

    def fused(self) -> nn.Sequential:
        """The same function as one convolution and a ReLU."""
        weight, bias = _folded(self.wide[0].weight, self.wide[1])
        point, point_bias = _folded(nn.functional.pad(self.point[0].weight, (1, 1, 1, 1)), self.point[1])
        weight, bias = weight + point, bias + point_bias
        if self.keep is not None:
            identity = torch.zeros_like(weight)
            channels = torch.arange(weight.shape[0])
            identity[channels, channels, 1, 1] = 1.0
            keep, keep_bias = _folded(identity, self.keep)
            weight, bias = weight + keep, bias + keep_bias
        plain = nn.Conv2d(weight.shape[1], weight.shape[0], 3, stride=self.stride, padding=1)
        plain.weight.data.copy_(weight)
        plain.bias.data.copy_(bias)  # type: ignore[union-attr]
        return nn.Sequential(plain, nn.ReLU())


def _folded(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A convolution's weight and the bias that include the batch norm behind it."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)  # type: ignore[operator]
    return (weight * scale[:, None, None, None]).detach(), (norm.bias - norm.running_mean * scale).detach()


class GlobalContext(nn.Module):
    """Adds to every position what the whole image says: means over regions that the network chooses itself.

    How bright the floor is tells how high the plateau is, and that is nowhere near the plateau. A softmax over the
    positions averages one region (floor, rim, plateau …) whatever its size, where a plain mean would mix area and
    brightness.

    Source: Cao, Xu, Lin, Wei, Hu, GCNet, ICCV Workshops 2019 (arXiv:1904.11492); several regions instead of one.
    """

    def __init__(self, channels: int, regions: int = 4) -> None:
        super().__init__()
        self.regions = nn.Conv2d(channels, regions, 1)
        self.mix = nn.Sequential(nn.Linear(regions * channels, channels), nn.ReLU(), nn.Linear(channels, channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        # Float32 whatever the rest trains in: a nanometre of plateau is a few thousandths of these means.
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            share = self.regions(x).flatten(2).softmax(dim=2)
            means = share @ x.flatten(2).transpose(1, 2)
            return x + self.mix(means.flatten(1))[:, :, None, None]


class StridedNet(nn.Module):
    """Fold, two scales of plain convolutions, unfold.

    Args:
        outputs: Channels of the map: depth, and the logarithm of sigma if wanted.
        unshuffle: Pixels folded into one position along each axis.
        widths: Channels at the first and the second scale.
        blocks: Convolutions before the second scale, in it, and after it.
    """

    def __init__(self, outputs: int, unshuffle: int, widths: tuple[int, int], blocks: tuple[int, int, int]) -> None:
        super().__init__()
        fine, coarse = widths
        self.fold = nn.PixelUnshuffle(unshuffle)
        self.enter = nn.Sequential(
            RepConvolution(unshuffle**2, fine), *(RepConvolution(fine, fine) for _ in range(blocks[0] - 1))
        )
        self.down = nn.Sequential(
            RepConvolution(fine, coarse, stride=2),
            *(RepConvolution(coarse, coarse) for _ in range(blocks[1] - 1)),
            GlobalContext(coarse),
        )
        # A 1x1 convolution and a pixel shuffle: cheaper than a transposed convolution, without its chequerboard.
        self.up = nn.Sequential(nn.Conv2d(coarse, 4 * fine, 1), nn.PixelShuffle(2))
        self.leave = nn.Sequential(*(RepConvolution(fine, fine) for _ in range(blocks[2])))
        self.head = nn.Conv2d(fine, outputs * unshuffle**2, 3, padding=1)
        self.unfold = nn.PixelShuffle(unshuffle)

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b k h w"]:
        fine = self.enter(self.fold(x))
        features = self.leave(fine + self.up(self.down(fine)))
        with torch.autocast(x.device.type, enabled=False):
            return self.unfold(self.head(features.float()))
