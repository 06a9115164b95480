"""A running mean of a network's weights beside it: what is judged and exported, while the weights themselves go on.

Source: Polyak, Juditsky, SIAM J. Control Optim. 30 (1992) 838; the rising decay keeps the mean close while weights
still move fast.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

RISE = 10.0
"""After n steps the decay is (1 + n) / (10 + n) at the most: the mean spans about a tenth of the way."""


def copy_of(network: nn.Module) -> nn.Module:
    """The network as it is, without gradients."""
    return copy.deepcopy(network).requires_grad_(False).eval()


@torch.no_grad()
def take(average: nn.Module, network: nn.Module) -> None:
    """Makes the mean the network's present weights."""
    average.load_state_dict(network.state_dict())


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float, steps: int) -> None:
    """Moves the mean towards the network.

    Args:
        average: Is changed; batch norms' statistics are averaged like weights, counters are taken over.
        network: As it is after the step.
        decay: Greatest share of the mean that is kept.
        steps: Steps that were taken.
    """
    share = 1 - min(decay, (1 + steps) / (RISE + steps))
    means: list[Tensor] = []
    values: list[Tensor] = []
    for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            means.append(mean)
            values.append(value)
        else:
            mean.copy_(value)
    torch._foreach_lerp_(means, values, share)
