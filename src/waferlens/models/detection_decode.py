"""From what a detector's heads put out to boxes and scores: one decoding for training, export and every network.

Heads of all strides are laid one behind the other, so that a prediction has one number `n`: strides in their order, of
each stride its anchors, of each anchor its rows, of each row its columns. Boxes are x0 y0 x1 y1 as everywhere in the
house: outer edges measured from the centre of the first pixel, which therefore begins at -0.5.

Sources: anchored heads after Redmon, Farhadi (arXiv:1804.02767) with the sigmoid stretched to -0.5..1.5 of a cell and
to 4 times the anchor (Bochkovskiy et al., arXiv:2004.10934; Wang et al., arXiv:2207.02696); heads without anchors after
Tian et al., "FCOS" (arXiv:1904.01355): distances to the four edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

EDGE_PX = 0.5
"""The first pixel begins this far before its centre [px]"""
ANCHORED_NUMBERS = 5
"""x, y, width, height, objectness: what stands before the classes of a head with anchors."""
FREE_NUMBERS = 4
"""Left, top, right, bottom: what stands before the classes of a head without."""


class Cells(NamedTuple):
    """Where predictions sit and what they are measured in."""

    corner: Float[Tensor, "n 2"]
    """Upper left corner of the cell of each, outer edge [px]"""
    stride: Float[Tensor, "n 1"]
    """Side of its cell [px]"""
    anchor: Float[Tensor, "n 2"] | None
    """Width and height of its anchor; None where there are none [px]"""


def flattened(raw: Sequence[Tensor]) -> Float[Tensor, "b n c"]:
    """Heads one behind the other.

    Args:
        raw: Of each stride `b a h w c`, or `b h w c` without anchors.
    """
    return torch.cat([head.flatten(1, -2) for head in raw], dim=1)


def cells_of(raw: Sequence[Tensor], strides: Sequence[int], anchors: Float[Tensor, "l a 2"] | None = None) -> Cells:
    """The cell of each prediction, in the order of `flattened`.

    Args:
        raw: Heads; only their shapes are read.
        strides: Of each head [px]
        anchors: Width and height of each anchor of each head, where there are any [px]
    """
    corners, sides, shapes = [], [], []
    for place, (head, stride) in enumerate(zip(raw, strides, strict=True)):
        h, w = head.shape[-3], head.shape[-2]
        y, x = torch.meshgrid(
            torch.arange(h, device=head.device, dtype=torch.float32),
            torch.arange(w, device=head.device, dtype=torch.float32),
            indexing="ij",
        )
        corner = torch.stack([x, y], dim=-1).reshape(-1, 2) * stride - EDGE_PX
        if anchors is not None:
            of_head = anchors[place].to(head.device, torch.float32)
            corner, shape = corner.repeat(of_head.shape[0], 1), of_head.repeat_interleave(h * w, dim=0)
            shapes.append(shape)
        corners.append(corner)
        sides.append(torch.full_like(corner[:, :1], float(stride)))
    return Cells(torch.cat(corners), torch.cat(sides), torch.cat(shapes) if anchors is not None else None)


def anchored_boxes(numbers: Float[Tensor, "*n 4"], cells: Cells) -> Float[Tensor, "*n 4"]:
    """Boxes from tx, ty, tw, th.

    Args:
        numbers: As a head with anchors puts them out.
        cells: Of these predictions, with anchors.
    """
    assert cells.anchor is not None
    share = numbers.float().sigmoid()
    middle = cells.corner + (2.0 * share[..., :2] - 0.5) * cells.stride
    half = 0.5 * (2.0 * share[..., 2:4]).square() * cells.anchor
    return torch.cat([middle - half, middle + half], dim=-1)


def free_boxes(numbers: Float[Tensor, "*n 4"], cells: Cells) -> Float[Tensor, "*n 4"]:
    """Boxes from the distances to their edges.

    Args:
        numbers: Left, top, right, bottom as a head without anchors puts them out; a softplus makes them distances from
            the middle of the cell, in strides.
        cells: Of these predictions.
    """
    away = functional.softplus(numbers.float()) * cells.stride
    middle = cells.corner + 0.5 * cells.stride
    return torch.cat([middle - away[..., :2], middle + away[..., 2:4]], dim=-1)


def anchored_scores(logits: Float[Tensor, "*n c"]) -> Float[Tensor, "*n k"]:
    """Scores of the classes: objectness times class.

    Args:
        logits: Objectness, then the classes.
    """
    share = logits.float().sigmoid()
    return share[..., :1] * share[..., 1:]


def decode_anchored(
    raw: Sequence[Float[Tensor, "b a h w c"]], strides: Sequence[int], anchors: Float[Tensor, "l a 2"], classes: int
) -> tuple[Float[Tensor, "b n 4"], Float[Tensor, "b n k"]]:
    """Boxes [px] and scores of heads with anchors; what stands behind the classes (of masks) is not looked at."""
    flat, cells = flattened(raw), cells_of(raw, strides, anchors)
    return anchored_boxes(flat[..., :4], cells), anchored_scores(flat[..., 4 : ANCHORED_NUMBERS + classes])


def decode_free(
    raw: Sequence[Float[Tensor, "b h w c"]], strides: Sequence[int], classes: int
) -> tuple[Float[Tensor, "b n 4"], Float[Tensor, "b n k"]]:
    """Boxes [px] and scores of heads without anchors."""
    flat, cells = flattened(raw), cells_of(raw, strides)
    scores = flat[..., FREE_NUMBERS : FREE_NUMBERS + classes].float().sigmoid()
    return free_boxes(flat[..., :4], cells), scores
