"""What training of a detector makes small: boxes, classes, objectness and masks of what was assigned.

Heads with anchors sum over strides and images as their authors do, so that their weights and rates mean the same. Heads
without divide the classes' error by what their scores should add up to, and let every box weigh alike in the boxes'.

Sources: the sum and its balance of strides: Bochkovskiy et al., arXiv:2004.10934 and S2 (settings 0 to 7); quality
focal loss: Li et al., arXiv:2006.04388; masks from prototypes: Bolya et al., YOLACT (arXiv:1904.02689).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from waferlens.models.detection_decode import ANCHORED_NUMBERS, anchored_boxes, cells_of, flattened, free_boxes
from waferlens.recipe.package import DetectionLoss
from waferlens.train.detection_assign import Pairs, Truth, aligned, anchor_pairs, of_cells, ota, ranks
from waferlens.train.detection_boxes import box_error, likeness

BALANCE = (4.0, 1.0, 0.4)
"""Weights of the objectness of strides 8, 16, 32: small objects are many, and their cells more still."""
FOCUS = 2.0
"""Power of the quality focal loss."""


def anchored_loss(
    spec: DetectionLoss,
    raw: Sequence[Float[Tensor, "b a h w c"]],
    truth: Truth,
    strides: Sequence[int],
    anchors: Float[Tensor, "l a 2"],
    classes: int,
    masks: tuple[Float[Tensor, "b m p q"], UInt8[Tensor, "b p q"]] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of heads with anchors, and its terms.

    Args:
        spec: Which terms, and how they weigh.
        raw: What the heads put out.
        truth: Of the batch.
        strides: Of each head [px]
        anchors: Of each head [px]
        classes: How many there are.
        masks: Prototypes, and number + 1 of the true object at each of their pixels; where masks are learned.
    """
    shapes = [(head.shape[2], head.shape[3]) for head in raw]
    flat, cells = flattened(raw), cells_of(raw, strides, anchors)
    pairs = anchor_pairs(truth, shapes, strides, anchors.to(truth.boxes.device))
    if spec.assign == "ota":
        pairs = ota(truth, pairs, flat, cells, classes, partial(likeness, spec))
    rows = flat[pairs.image, pairs.place].float()
    told, true = anchored_boxes(rows[:, :4], of_cells(cells, pairs.place)), pairs.boxes(truth)
    sizes = torch.tensor([head[0, ..., 0].numel() for head in raw], device=flat.device)
    of_head = torch.repeat_interleave(torch.arange(len(raw), device=flat.device), sizes)
    head = of_head[pairs.place]
    share = 1 / torch.bincount(head, minlength=len(raw)).clamp(min=1)[head]  # the mean of each stride, then their sum
    wanted = functional.one_hot(pairs.classes(truth), classes).float()
    logits = rows[:, ANCHORED_NUMBERS : ANCHORED_NUMBERS + classes]
    of_class = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=1)
    good = torch.zeros(flat.shape[:2], device=flat.device).flatten()
    at = pairs.image * flat.shape[1] + pairs.place
    good = good.scatter_reduce(0, at, likeness(spec, told.detach(), true).clamp(0, 1), "amax").view(flat.shape[:2])
    balance = torch.tensor([_balance(len(raw))], device=flat.device)[0]
    weight = (balance / sizes)[of_head] / len(flat)
    of_object = functional.binary_cross_entropy_with_logits(flat[..., 4].float(), good, weight.expand_as(good),
                                                            reduction="sum")  # fmt: skip
    terms = {
        "boxes": spec.box_weight * (share * box_error(spec, told, true)).sum(),
        "objects": spec.object_weight * of_object,
        "classes": spec.class_weight * (share * of_class).sum(),
    }
    if masks is not None:
        of_masks = mask_error(
            pairs, rows[:, ANCHORED_NUMBERS + classes :], truth, *masks, stride=_stride(raw, strides, masks)
        )
        terms["masks"] = spec.mask_weight * of_masks
    loss = len(flat) * torch.stack(list(terms.values())).sum()
    return loss, {name: term.detach() for name, term in terms.items()}


def free_loss(
    spec: DetectionLoss,
    raw: Sequence[Float[Tensor, "b h w c"]],
    truth: Truth,
    strides: Sequence[int],
    classes: int,
    traces: tuple[Float[Tensor, "b p q k"], UInt8[Tensor, "b p q"]] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of heads without anchors, and its terms.

    Args:
        spec: Which terms, and how they weigh.
        raw: What the heads put out.
        truth: Of the batch.
        strides: Of each head [px]
        classes: How many there are.
        traces: Logits that a class touches a cell, and number + 1 of the true object there; where traces are learned.
    """
    shapes = [(head.shape[1], head.shape[2]) for head in raw]
    flat, cells = flattened(raw), cells_of(raw, strides)
    pairs, quality = aligned(truth, flat, cells, shapes, strides, partial(likeness, spec))
    logits = flat[..., 4 : 4 + classes].float()
    wanted = torch.zeros_like(logits)
    wanted[pairs.image, pairs.place, pairs.classes(truth)] = quality
    of_class = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    if spec.class_kind == "quality-focal":
        of_class = of_class * (logits.sigmoid() - wanted).abs().pow(FOCUS)
    rows = flat[pairs.image, pairs.place].float()
    told = free_boxes(rows[:, :4], of_cells(cells, pairs.place))
    # Every box weighs alike. Weighed by quality alone, as TOOD has it, a box that begins badly is never learned: of a
    # crack of 6 x 1 px the first overlap is 0.02. On 8 images learned by heart, AP50 of cracks rose from 0.71 to 0.85.
    objects = pairs.image * truth.present.shape[1] + pairs.object
    share = quality / quality.new_zeros(truth.present.numel()).scatter_add_(0, objects, quality)[objects]
    count = truth.present.sum().clamp(min=1)
    # while boxes are bad, scores that should be low add up to less than there are objects
    amount = torch.maximum(quality.sum(), count)
    terms = {
        "boxes": spec.box_weight * (share * box_error(spec, told, pairs.boxes(truth))).sum() / count,
        "classes": spec.class_weight * of_class.sum() / amount,
    }
    if traces is not None:
        terms["traces"] = spec.mask_weight * trace_error(*traces, truth)
    return torch.stack(list(terms.values())).sum(), {name: term.detach() for name, term in terms.items()}


def trace_error(logits: Float[Tensor, "b p q k"], numbers: UInt8[Tensor, "b p q"], truth: Truth) -> Float[Tensor, ""]:
    """Focal cross-entropy of which cells an object touches, by the number of cells that are touched.

    Args:
        logits: Of each cell and class.
        numbers: Number + 1 of the true object that touches each cell, 0 where there is none.
        truth: Of the batch.
    """
    kinds = functional.one_hot(truth.classes, logits.shape[-1]).float()  # b n k
    of_number = torch.cat([torch.zeros_like(kinds[:, :1]), kinds], dim=1)
    rows = torch.arange(len(numbers), device=logits.device)[:, None, None]
    wanted = of_number[rows, numbers.long()]
    error = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    error = error * (logits.sigmoid() - wanted).abs().pow(FOCUS)
    return error.sum() / wanted.sum().clamp(min=1)


def mask_error(
    pairs: Pairs,
    coefficients: Float[Tensor, "n m"],
    truth: Truth,
    prototypes: Float[Tensor, "b m p q"],
    numbers: UInt8[Tensor, "b p q"],
    stride: float,
) -> Tensor:
    """Mean cross-entropy of the pixels of each assigned mask, inside its true box.

    Args:
        pairs: What was assigned.
        coefficients: Of the prototypes, of each pair.
        truth: Of the batch.
        prototypes: Maps that masks are mixed of.
        numbers: Number + 1 of the true object at each pixel, 0 where there is none.
        stride: Side of a pixel of the prototypes [px]
    """
    if not len(pairs.image):
        return 0.0 * prototypes.sum()
    b, _, h, w = prototypes.shape
    # a row for each pair of an image, filled up: one product of matrices for all
    place = ranks(pairs.image, coefficients.new_zeros(len(pairs.image)))
    mixed = coefficients.new_zeros(b, int(place.max()) + 1, coefficients.shape[1])
    mixed = mixed.index_put((pairs.image, place), coefficients)
    logits = (mixed @ prototypes.float().flatten(2)).view(b, -1, h, w)[pairs.image, place]
    wanted = (numbers[pairs.image] == (pairs.object + 1)[:, None, None]).float()
    error = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    boxes = pairs.boxes(truth)
    y, x = (stride * (torch.arange(count, device=boxes.device) + 0.5) - 0.5 for count in (h, w))
    inside = ((x >= boxes[:, :1]) & (x < boxes[:, 2:3]))[:, None] & ((y >= boxes[:, 1:2]) & (y < boxes[:, 3:]))[
        ..., None
    ]
    return ((error * inside).sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp(min=1)).mean()


def _balance(heads: int) -> Sequence[float]:
    return BALANCE if heads == len(BALANCE) else (1.0,) * heads


def _stride(raw: Sequence[Tensor], strides: Sequence[int], masks: tuple[Tensor, Tensor]) -> float:
    """Side of a pixel of the prototypes: they cover what the heads cover."""
    return strides[0] * raw[0].shape[3] / masks[0].shape[3]
