"""The reverse Huber loss: absolute for small errors, square for large ones.

Source: Laina et al., "Deeper depth prediction with fully convolutional residual networks", 3DV 2016 (arXiv:1606.00373),
equation 1; Owen 2007; Zwald, Lambert-Lacroix 2012.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

THRESHOLD = 0.2
"""Share of the greatest error of the batch at which the loss turns from absolute to square."""


def berhu(value: Float[Tensor, "*s"], truth: Float[Tensor, "*s"]) -> Float[Tensor, ""]:
    """Mean reverse Huber loss, its threshold a fifth of the greatest error of the batch."""
    error = (value - truth).abs()
    threshold = (THRESHOLD * error.detach().max()).clamp(min=1e-12)
    square = (error.square() + threshold.square()) / (2 * threshold)
    return torch.where(error <= threshold, error, square).mean()
