"""How alike two boxes are, pair by pair, with gradients: IoU, complete IoU, and the normalised Wasserstein distance.

Sources: complete IoU: Zheng et al., AAAI 2020 (arXiv:1911.08287); NWD, boxes as normal distributions with half their
sides as standard deviations: Wang et al., arXiv:2110.13389; the mixture of both: S2.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from waferlens.recipe.package import DetectionLoss

SMALL = 1e-7
"""Keeps quotients finite where both boxes have no area."""
NWD_SHARE = 0.5
"""Share of NWD in the mixture."""


def iou(a: Float[Tensor, "*n 4"], b: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Intersection over union of each pair of boxes x0 y0 x1 y1."""
    shared = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(dim=-1)
    areas = (a[..., 2:] - a[..., :2]).prod(dim=-1) + (b[..., 2:] - b[..., :2]).prod(dim=-1)
    return shared / (areas - shared + SMALL)


def complete_iou(a: Float[Tensor, "*n 4"], b: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """IoU, less the distance of the centres in the box around both, less the disagreement of the ratios of sides.

    Args:
        a: Predicted.
        b: True.
    """
    overlap = iou(a, b)
    around = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    diagonal = around.square().sum(dim=-1) + SMALL
    apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]).square().sum(dim=-1) / 4
    sides_a, sides_b = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    angle = torch.atan2(sides_b[..., 0], sides_b[..., 1]) - torch.atan2(sides_a[..., 0], sides_a[..., 1] + SMALL)
    ratio = 4 / math.pi**2 * angle.square()
    with torch.no_grad():
        trade = ratio / (1 - overlap + ratio + SMALL)
    return overlap - apart / diagonal - trade * ratio


def nwd(a: Float[Tensor, "*n 4"], b: Float[Tensor, "*n 4"], constant_px: float) -> Float[Tensor, "*n"]:
    """exp(-W / C) of the Wasserstein distance W of two boxes as normal distributions.

    Args:
        a: Predicted [px]
        b: True [px]
        constant_px: C [px]
    """
    apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]).square().sum(dim=-1) / 4
    sides = ((a[..., 2:] - a[..., :2]) - (b[..., 2:] - b[..., :2])).square().sum(dim=-1) / 4
    return torch.exp(-(apart + sides).clamp(min=SMALL).sqrt() / constant_px)


def box_error(spec: DetectionLoss, told: Float[Tensor, "*n 4"], true: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """What training makes small of a box, 0 where both are the same."""
    error = 1 - complete_iou(told, true)
    if spec.box == "ciou":
        return error
    return (1 - NWD_SHARE) * error + NWD_SHARE * (1 - nwd(told, true, spec.nwd_px))


def likeness(spec: DetectionLoss, told: Float[Tensor, "*n 4"], true: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """How good a box is, 0 to 1: what objectness and class are taught to say; mixed as the error is."""
    overlap = iou(told, true)
    if spec.box == "ciou":
        return overlap
    return (1 - NWD_SHARE) * overlap + NWD_SHARE * nwd(told, true, spec.nwd_px)
