"""The network for the wafer line: context at low resolution, sharpness at the image's own, and what the line knows.

Down-sampling an image destroys the defocus that tells its height, so the image is folded, not shrunk: blocks of pixels
become channels, and the map is unfolded at the end. In between, scales of plain convolutions give context. What a line
knows beside the image enters where it is true:

* the auto-focus track and the height of focus belong to a **column** of the image. Column by column, softmax means over
  the rows say what stands there; together with the column's reading they are mixed along x (the sensor lags) and given
  back to every row;
* the product's nominal stack belongs to the whole image.

A plain block of a die looks like a bare carrier, and only what else lies in the field tells them apart: which grey the
carrier has, and where its edges run. So softmax means over the whole map say what kinds of surface there are, and every
pixel asks them at each scale.

A height is rarely arbitrary: a pixel shows the carrier, a level of the stack, or what the track has read. The head
therefore chooses between these candidates and one free height, and adds a small correction. What is not known is no
candidate.

Source: pixel shuffle: Shi et al., CVPR 2016 (arXiv:1609.05158); residual blocks: He et al., CVPR 2016
(arXiv:1512.03385); softmax means: Cao et al., GCNet, 2019 (arXiv:1904.11492), here over columns; regions that pixels
ask: Yuan et al., OCR, ECCV 2020 (arXiv:1909.11065).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

MOMENTUM = 0.05
"""Of the batch norms' statistics: fields differ much (dark and bright carriers), batches are small."""
COLUMN_FACTS = 4
"""Objective's height, whether it is known, the track's height, and the scan's direction (1 or -1), 0 where unknown."""
PRODUCT_FACTS = 6
"""Whether it is known, thickness of the lowest die, tops of four levels."""
LEVELS = PRODUCT_FACTS - 2
CANDIDATES = 3 + LEVELS
"""The carrier, the levels of the stack, the track's reading, a free height."""
CLASSES = 3
"""Die, street, site of a missing die."""
FAR = 30.0
"""What is not known is this far below in the logits: never chosen, and finite in every arithmetic."""
CORRECTION = 0.12
"""Greatest correction of a candidate, in units of the full scale: bumps, tilt, warp of a die, bow of the carrier."""


class Residual(nn.Module):
    """Two 3x3 convolutions with batch norm beside the identity, or beside a 1x1 convolution where the width changes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs, momentum=MOMENTUM),
            nn.ReLU(),
        )
        self.second = nn.Sequential(
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs, momentum=MOMENTUM)
        )
        self.beside = (
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs, momentum=MOMENTUM)
            )
            if inputs != outputs or stride != 1
            else nn.Identity()
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k p q"]:
        return torch.relu(self.second(self.first(x)) + self.beside(x))


class ColumnContext(nn.Module):
    """Gives to every pixel what its column holds, beside what was read there.

    Args:
        channels: Of the map.
        facts: Of each column, as told from outside.
        regions: Softmax means over the rows.
        reach: Columns along which they are mixed; the sensor lags by up to 270 um.
    """

    def __init__(self, channels: int, facts: int, regions: int = 4, reach: int = 9) -> None:
        super().__init__()
        self.regions = nn.Conv2d(channels, regions, 1)
        self.mix = nn.Sequential(
            nn.Conv1d(regions * channels + facts, channels, 1),
            nn.ReLU(),
            nn.Conv1d(channels, channels, reach, padding=reach // 2),
            nn.ReLU(),
            nn.Conv1d(channels, channels, 1),
        )

    def forward(self, x: Float[Tensor, "b c h w"], facts: Float[Tensor, "b f w"]) -> Float[Tensor, "b c h w"]:
        share = self.regions(x).float().softmax(dim=2).to(x.dtype)
        # b r h w, b c h w -> b r c w: one mean of the column for each region
        means = torch.einsum("brhw,bchw->brcw", share, x)
        told = self.mix(torch.cat([means.flatten(1, 2), facts.to(means.dtype)], dim=1))
        return x + told[:, :, None]


class FieldContext(nn.Module):
    """Lets every pixel ask what kinds of surface lie in the field: softmax means over the map, and attention to them.

    It begins as the identity.

    Args:
        channels: Of the map.
        regions: Means over the map.
        asked: Channels in which pixels and regions are compared.
    """

    def __init__(self, channels: int, regions: int = 12, asked: int = 16) -> None:
        super().__init__()
        self.scale = asked**-0.5
        self.regions = nn.Conv2d(channels, regions, 1)
        self.ask = nn.Conv2d(channels, asked, 1)
        self.key = nn.Linear(channels, asked)
        self.value = nn.Linear(channels, channels)
        self.give = nn.Sequential(nn.Conv2d(2 * channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, channels, 1))
        nn.init.zeros_(self.give[2].weight)
        nn.init.zeros_(self.give[2].bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        share = self.regions(x).flatten(2).float().softmax(dim=2).to(x.dtype)
        means = torch.bmm(share, x.flatten(2).transpose(1, 2))  # b r c
        near = torch.bmm(self.key(means), self.ask(x).flatten(2)) * self.scale  # b r hw
        told = torch.bmm(self.value(means).transpose(1, 2), near.float().softmax(dim=1).to(x.dtype))
        return x + self.give(torch.cat([x, told.reshape(x.shape)], dim=1))


class WaferFastNet(nn.Module):
    """Fold, scales of residual blocks, context of columns and of the field at each, unfold.

    Args:
        unshuffle: Pixels folded into one position along each axis.
        widths: Channels at each scale; each has half the resolution of the one before.
        blocks: Residual blocks at each scale on the way down; the way up has the same, but for the last.
        sigma: Whether the spread of the error is told.
        classes: Whether die, street and missing die are told apart.
        channels: Channels of the image.
    """

    def __init__(
        self,
        unshuffle: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        *,
        sigma: bool,
        classes: bool,
        channels: int = 1,
    ) -> None:
        super().__init__()
        self.unshuffle, self.sigma, self.classes = unshuffle, sigma, classes
        self.fold = nn.PixelUnshuffle(unshuffle)
        self.product = nn.Sequential(nn.Linear(PRODUCT_FACTS, 32), nn.ReLU())
        self.track = nn.Sequential(  # the sensor's reading without its lag and noise, as far as its neighbours tell it
            nn.Conv1d(COLUMN_FACTS, 24, 9, padding=4), nn.ReLU(), nn.Conv1d(24, 1, 9, padding=4)
        )
        facts = COLUMN_FACTS + 32
        inputs = (channels * unshuffle**2, *widths[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(
                Residual(before, width, stride=1 if scale == 0 else 2),
                *(Residual(width, width) for _ in range(count - 1)),
            )
            for scale, (before, width, count) in enumerate(zip(inputs, widths, blocks, strict=True))
        )
        self.context = nn.ModuleList(ColumnContext(width, facts) for width in widths)
        self.lift = nn.ModuleList(
            nn.Sequential(nn.Conv2d(coarse, 4 * fine, 1), nn.PixelShuffle(2)) for fine, coarse in pairwise(widths)
        )
        self.up = nn.ModuleList(
            nn.Sequential(*(Residual(width, width) for _ in range(count)))
            for width, count in zip(widths[:-1], blocks[:-1], strict=True)
        )
        self.again = nn.ModuleList(ColumnContext(width, facts) for width in widths[:-1])
        self.field = nn.ModuleList(FieldContext(width) for width in widths)
        self.sort = nn.Conv2d(widths[0], CLASSES, 1) if classes else None
        # per pixel: a logit a candidate, the free height, the correction, and the logarithm of sigma
        self.head = nn.Conv2d(widths[0], (CANDIDATES + 2 + int(sigma)) * unshuffle**2, 1)
        self.unfold = nn.PixelShuffle(unshuffle)

    def forward(
        self,
        image: Float[Tensor, "b c h w"],
        columns: Float[Tensor, "b 4 w"],
        product: Float[Tensor, "b 6"],
    ) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b 1 h w"] | None, Float[Tensor, "b 3 p q"] | None]:
        """Height and log sigma in units of the full scale, and logits of the classes at the folded resolution.

        Args:
            image: Normalised image; h and w are multiples of `unshuffle` times 2 to the number of scales less one.
            columns: Objective's height, known or not, track's height, direction of the scan or 0 where there is no
                track; in units of the full scale.
            product: Known or not, thickness and tops of the levels in units of the full scale.
        """
        stack = self.product(product)
        told = nn.functional.avg_pool1d(columns, self.unshuffle)
        x = self.fold(image)
        features = []
        for scale, (step, context) in enumerate(zip(self.down, self.context, strict=True)):
            x = step(x)
            if scale:
                told = nn.functional.avg_pool1d(told, 2)
            x = context(x, _with_stack(told, stack))
            features.append((x, told))
        x = self.field[-1](x)
        for scale in reversed(range(len(self.up))):
            beside, told = features[scale]
            x = self.up[scale](beside + self.lift[scale](x))
            x = self.field[scale](self.again[scale](x, _with_stack(told, stack)))
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            maps = self.unfold(self.head(x))
            height = _chosen(maps[:, :CANDIDATES], maps[:, CANDIDATES : CANDIDATES + 2], self._read(columns), product)
            log_sigma = maps[:, CANDIDATES + 2 :] if self.sigma else None
            return height, log_sigma, self.sort(x) if self.sort is not None else None

    def _read(self, columns: Float[Tensor, "b 4 w"]) -> Float[Tensor, "b 2 w"]:
        """The track's reading, corrected for its lag, and whether there is one."""
        known = columns[:, 3:4].abs()
        return torch.cat([columns[:, 2:3] + self.track(columns.float()) * known, known], dim=1)


def _with_stack(told: Float[Tensor, "b f w"], stack: Float[Tensor, "b s"]) -> Float[Tensor, "b g w"]:
    """What is known of each column, with what is known of the product beside it."""
    return torch.cat([told, stack[:, :, None].expand(-1, -1, told.shape[2]).to(told.dtype)], dim=1)


def _chosen(
    logits: Float[Tensor, "b k h w"],
    free: Float[Tensor, "b 2 h w"],
    reading: Float[Tensor, "b 2 w"],
    product: Float[Tensor, "b 6"],
) -> Float[Tensor, "b 1 h w"]:
    """The height: a softmax mean of the candidates, with the correction added."""
    known_stack = product[:, :1, None, None]
    known_track = reading[:, 1][:, None, None]
    carrier, levels, track, other = logits.split([1, LEVELS, 1, 1], dim=1)
    levels = levels - FAR * (1.0 - known_stack)
    track = track - FAR * (1.0 - known_track)
    share = torch.cat([carrier, levels, track, other], dim=1).softmax(dim=1)
    _, on_levels, on_track, on_other = share.split([1, LEVELS, 1, 1], dim=1)
    tops = product[:, 2:, None, None]
    height = (on_levels * tops).sum(dim=1, keepdim=True)
    height = height + on_track * reading[:, 0][:, None, None] + on_other * free[:, :1]
    return height + CORRECTION * torch.tanh(free[:, 1:])
