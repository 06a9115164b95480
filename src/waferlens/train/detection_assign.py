"""Which predictions learn which true box. Rules work on pairs of a true box and a prediction, all images at once.

* Heads with anchors: a box may be learned by the cell of its middle and the two nearest beside it, at every anchor
  whose sides are within a factor of its own (`anchor`); of these, simOTA keeps the cheapest, as many as their overlaps
  add up to (`ota`).
* Heads without: a box may be learned by every cell whose middle lies in it, and of those learn the ones whose score
  and box agree best with it (`aligned`).

Sources: simOTA: Ge et al., "YOLOX" (arXiv:2107.08430), over anchors as Wang et al., "YOLOv7" (arXiv:2207.02696); task
alignment: Feng et al., "TOOD", ICCV 2021 (arXiv:2108.07755).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from waferlens.models.detection_decode import EDGE_PX, Cells, anchored_boxes, free_boxes

MOST_RATIO = 4.0
"""An anchor's sides may differ from those of a box by less than this factor: the sigmoid reaches no further."""
OTA_OVERLAPS = 10
"""Best overlaps that are added up to the number of predictions a box gets."""
OTA_BOX = 3.0
"""Weight of the box beside the class in the cost of simOTA."""
ALIGNED_MOST = 13
"""Most predictions that learn one box."""
SCORE_POWER, BOX_POWER = 1.0, 6.0
"""Of score and overlap in the alignment."""
LEAST = 1e-9
"""Overlaps below it are taken for this much: what has none is ranked by its score."""

Likeness = Callable[[Tensor, Tensor], Tensor]
"""How good predicted boxes are against true ones, 0 to 1."""


class Truth(NamedTuple):
    """The true boxes of a batch, filled up to the greatest number."""

    boxes: Float[Tensor, "b n 4"]
    """[px]"""
    classes: Int64[Tensor, "b n"]
    present: Bool[Tensor, "b n"]
    """Which of them there are."""


class Pairs(NamedTuple):
    """Pairs of a true box and a prediction."""

    image: Int64[Tensor, " m"]
    object: Int64[Tensor, " m"]
    """Number of the true box in its image."""
    place: Int64[Tensor, " m"]
    """Number of the prediction in its image, as `models.detection_decode` counts them."""

    def __getitem__(self, chosen: Tensor) -> Pairs:  # type: ignore[override]
        return Pairs(self.image[chosen], self.object[chosen], self.place[chosen])

    def boxes(self, truth: Truth) -> Float[Tensor, "m 4"]:
        """The true box of each pair [px]"""
        return truth.boxes[self.image, self.object]

    def classes(self, truth: Truth) -> Int64[Tensor, " m"]:
        """The class of each pair."""
        return truth.classes[self.image, self.object]


def anchor_pairs(
    truth: Truth, shapes: Sequence[tuple[int, int]], strides: Sequence[int], anchors: Float[Tensor, "l a 2"]
) -> Pairs:
    """Every pair of a box with an anchor of like sides, in the cell of its middle and the two nearest beside it.

    Args:
        truth: Of the batch.
        shapes: Rows and columns of each head.
        strides: Of each head [px]
        anchors: Of each head [px]
    """
    middle = (truth.boxes[..., :2] + truth.boxes[..., 2:]) / 2 + EDGE_PX
    sides = (truth.boxes[..., 2:] - truth.boxes[..., :2]).clamp(min=LEAST)
    found, before = [], 0
    for (h, w), stride, shape in zip(shapes, strides, anchors, strict=True):
        ratio = sides[:, :, None] / shape
        alike = torch.maximum(ratio, 1 / ratio).amax(dim=-1) < MOST_RATIO
        place = middle / stride
        cell = place.floor()
        toward = torch.where(place - cell < 0.5, -1.0, 1.0)
        own, aside = torch.zeros_like(toward), torch.zeros_like(toward)
        aside[..., 0] = 1.0
        steps = torch.stack([own, aside * toward, (1 - aside) * toward], dim=2)
        cells = (cell[:, :, None] + steps).long()  # b n 3 2
        x, y = cells[..., 0], cells[..., 1]
        inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
        both = truth.present[:, :, None, None] & alike[..., None] & inside[:, :, None]
        image, number, anchor, step = both.nonzero(as_tuple=True)
        at = before + anchor * h * w + y[image, number, step] * w + x[image, number, step]
        found.append((image, number, at))
        before += len(shape) * h * w
    return Pairs(*(torch.cat(parts) for parts in zip(*found, strict=True)))


@torch.no_grad()
def ota(
    truth: Truth, pairs: Pairs, flat: Float[Tensor, "b p c"], cells: Cells, classes: int, likeness: Likeness
) -> Pairs:
    """Of pairs with anchors the cheapest of each box; a prediction learns one box only.

    Args:
        truth: Of the batch.
        pairs: As `anchor_pairs` finds them.
        flat: What the heads put out, one behind the other.
        cells: Of all predictions.
        classes: How many there are.
        likeness: Of boxes.
    """
    rows = flat[pairs.image, pairs.place].float()
    good = likeness(anchored_boxes(rows[:, :4], of_cells(cells, pairs.place)), pairs.boxes(truth))
    sure = (rows[:, 4:5].sigmoid() * rows[:, 5 : 5 + classes].sigmoid()).sqrt()
    wanted = functional.one_hot(pairs.classes(truth), classes).float()
    with torch.autocast(sure.device.type, enabled=False):  # in lower precision the logarithm of a share is refused
        of_class = functional.binary_cross_entropy(sure, wanted, reduction="none").sum(dim=1)
    cost = of_class - OTA_BOX * torch.log(good.clamp(min=LEAST))
    groups = pairs.image * truth.present.shape[1] + pairs.object
    best = torch.where(ranks(groups, -good) < OTA_OVERLAPS, good, 0.0)
    counts = torch.zeros(truth.present.numel(), device=good.device).scatter_add_(0, groups, best)
    wanted_of = counts.long().clamp(min=1)[groups]
    kept = ranks(groups, cost) < wanted_of
    return pairs[kept][first_of(pairs[kept], flat.shape[1], cost[kept])]


@torch.no_grad()
def aligned(
    truth: Truth,
    flat: Float[Tensor, "b p c"],
    cells: Cells,
    shapes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    likeness: Likeness,
) -> tuple[Pairs, Float[Tensor, " m"]]:
    """The predictions that agree best with each box, of those whose cell lies in it; each learns one box only.

    A box so thin that cells may miss it is learned by the cells next to its middle line, at the finest head.

    Args:
        truth: Of the batch.
        flat: What the heads put out, one behind the other.
        cells: Of all predictions.
        shapes: Rows and columns of each head.
        strides: Of each head [px]
        likeness: Of boxes.

    Returns:
        Pairs, and what the score of each should be: its alignment, scaled so that the best of a box has its overlap.
    """
    pairs = inside_pairs(truth, shapes, strides)
    rows = flat[pairs.image, pairs.place].float()
    good = likeness(free_boxes(rows[:, :4], of_cells(cells, pairs.place)), pairs.boxes(truth)).clamp(min=LEAST)
    logit = rows[:, 4:].gather(1, pairs.classes(truth)[:, None])[:, 0]
    # logarithms: the sixth power of a small overlap is below what float32 holds
    alignment = SCORE_POWER * functional.logsigmoid(logit) + BOX_POWER * good.log()
    groups = pairs.image * truth.present.shape[1] + pairs.object
    kept = ranks(groups, -alignment) < ALIGNED_MOST
    pairs, groups, good, alignment = pairs[kept], groups[kept], good[kept], alignment[kept]
    first = first_of(pairs, flat.shape[1], -good)
    pairs, groups, good, alignment = pairs[first], groups[first], good[first], alignment[first]
    count = truth.present.numel()
    most = torch.full((count,), -torch.inf, device=good.device).scatter_reduce(0, groups, alignment, "amax")
    top = torch.zeros(count, device=good.device).scatter_reduce(0, groups, good, "amax")
    return pairs, (alignment - most[groups]).exp() * top[groups]


def inside_pairs(truth: Truth, shapes: Sequence[tuple[int, int]], strides: Sequence[int]) -> Pairs:
    """Every pair of a box with a cell whose middle lies in it; of the finest head also those nearest to a thin one."""
    low, high = truth.boxes[..., :2], truth.boxes[..., 2:]
    finest = min(strides)
    found, before = [], 0
    for (h, w), stride in zip(shapes, strides, strict=True):
        least = stride if stride == finest else 0.0
        half = ((high - low) / 2).clamp(min=least)
        middle = (low + high) / 2
        columns, rows = (
            (stride * (torch.arange(count, device=low.device) + 0.5) - EDGE_PX)[None, None] for count in (w, h)
        )
        across = (columns - middle[..., :1]).abs() < half[..., :1]
        down = (rows - middle[..., 1:]).abs() < half[..., 1:]
        both = down[..., :, None] & across[..., None, :] & truth.present[..., None, None]
        image, number, y, x = both.nonzero(as_tuple=True)
        found.append((image, number, before + y * w + x))
        before += h * w
    return Pairs(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def ranks(groups: Int64[Tensor, " m"], values: Float[Tensor, " m"]) -> Int64[Tensor, " m"]:
    """Rank of each value in its group, the smallest being 0; of equal ones the first comes first."""
    order = values.argsort(stable=True)
    order = order[groups[order].argsort(stable=True)]
    sorted_groups = groups[order]
    place = torch.arange(len(groups), device=groups.device) - torch.searchsorted(sorted_groups, sorted_groups)
    return torch.empty_like(place).scatter_(0, order, place)


def first_of(pairs: Pairs, predictions: int, cost: Float[Tensor, " m"]) -> Bool[Tensor, " m"]:
    """Which pair is the cheapest of its prediction.

    Args:
        pairs: Any.
        predictions: Of an image.
        cost: Of each pair.
    """
    return ranks(pairs.image * predictions + pairs.place, cost) == 0


def of_cells(cells: Cells, place: Int64[Tensor, " m"]) -> Cells:
    """The cells of some predictions."""
    anchor = None if cells.anchor is None else cells.anchor[place]
    return Cells(cells.corner[place], cells.stride[place], anchor)
