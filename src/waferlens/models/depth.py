"""A depth network as it is exported: grey in, depth and sigma in the map's own units out, nothing left outside."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

GREY_MEAN, GREY_SCALE = 100.0, 60.0
DEPTH_MEAN, DEPTH_SCALE = 105.0, 60.0
LOG_SIGMA_LOW, LOG_SIGMA_HIGH = -4.0, 5.0


class DepthNet(nn.Module):
    """A body between the normalisation of the image and that of the map.

    Args:
        body: Network from a normalised image to one channel (depth) or two (depth, log sigma).
        sigma: Whether the second channel is there.
        bounded: Whether the body ends in tanh; then -1..1 stands for 0..255, as in S1.
    """

    def __init__(self, body: nn.Module, *, sigma: bool, bounded: bool = False) -> None:
        super().__init__()
        self.body = body
        self.sigma = sigma
        self.mean, self.scale = (127.5, 127.5) if bounded else (DEPTH_MEAN, DEPTH_SCALE)

    def forward(self, grey: Float[Tensor, "b 1 h w"]) -> tuple[Float[Tensor, "b 1 h w"], ...]:
        """Depth map, and its standard deviation if the network tells one; both in grey levels of the depth map.

        Args:
            grey: Image in 0..255, not normalised [grey]
        """
        out = self.body((grey - GREY_MEAN) * (1.0 / GREY_SCALE)).float()
        depth = out[:, :1] * self.scale + self.mean
        if not self.sigma:
            return (depth,)
        # The bounds keep the exponential finite early in training; a trained network stays far inside them.
        return depth, torch.exp(out[:, 1:2].clamp(LOG_SIGMA_LOW, LOG_SIGMA_HIGH))

    @torch.no_grad()
    def predict(self, grey: Float[Tensor, "b 1 h w"]) -> tuple[Float[Tensor, "b 1 h w"], ...]:
        """`forward` in evaluation mode, without gradients."""
        was_training = self.training
        self.eval()
        result = self(grey)
        self.train(was_training)
        return result
