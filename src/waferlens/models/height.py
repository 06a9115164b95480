"""A network of the wafer station as it is exported: a picture and what a line knows in, heights in their unit out."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from waferlens.models.wafer_fast import WaferFastNet

LOG_SIGMA_LOW, LOG_SIGMA_HIGH = -7.0, 0.5
"""Bounds of the logarithm of sigma in units of the full scale: 0.7 um to far beyond it for 781 um. They keep the
exponential finite early in training; a trained network stays inside."""
TILT = 0.02
"""Brightness at which the square root of the image bends into a straight line, as a share of white."""
IMAGENET_MEAN, IMAGENET_SCALE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Red, green, blue of the images that the weights of others were trained on; a grey image has their means.

Source: torchvision.models, "Inference on pre-trained models".
"""
SCALE_COLUMNS = (1, 0, 1, 0)
SCALE_PRODUCT = (0, 1, 1, 1, 1, 1)
"""Which of the facts are heights and which are yes or no."""


class HeightNet(nn.Module):
    """A body between the normalisation of the image and that of the map.

    Args:
        body: `WaferFastNet`, or a network from a normalised image `b c h w` to one channel, or two with sigma, in
            units of the full scale.
        full_scale: Height that stands for 1 [unit]
        channels: Channels of the image.
        sigma: Whether the spread of the error is told.
        normalise: `half`, black to half of white as -1..1 (`WaferFastNet`: a square root that makes shot noise alike
            at every brightness), or `imagenet`, each channel as weights that others trained on ImageNet expect it.
        enlarged_px: Rows and columns to which a map that is smaller than the image is enlarged [px]
    """

    def __init__(
        self,
        body: nn.Module,
        *,
        full_scale: float,
        channels: int = 1,
        sigma: bool = False,
        normalise: Literal["half", "imagenet"] = "half",
        enlarged_px: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.body, self.full_scale, self.channels, self.sigma = body, full_scale, channels, sigma
        self.normalise, self.enlarged_px = normalise, enlarged_px
        mean, scale = _imagenet(channels) if normalise == "imagenet" else ((0.25,) * channels, (0.25,) * channels)
        self.register_buffer("mean", torch.tensor(mean)[None, :, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(scale)[None, :, None, None], persistent=False)
        self.register_buffer("column_scale", _scales(SCALE_COLUMNS, full_scale)[None, :, None], persistent=False)
        self.register_buffer("product_scale", _scales(SCALE_PRODUCT, full_scale)[None], persistent=False)

    @property
    def facts(self) -> bool:
        """Whether it is told more than the image."""
        return isinstance(self.body, WaferFastNet)

    @property
    def outputs(self) -> list[str]:
        """Names of what `forward` returns."""
        classes = self.facts and self.body.classes
        return ["height", *(["sigma"] if self.sigma else []), *(["classes"] if classes else [])]

    def forward(
        self,
        image: Float[Tensor, "b c h w"],
        columns: Float[Tensor, "b 4 w"] | None = None,
        product: Float[Tensor, "b 6"] | None = None,
    ) -> tuple[Tensor, ...]:
        """Height `b 1 h w` [unit]; then sigma `b 1 h w` [unit] and shares of the classes `b 3 p q`, if told.

        Args:
            image: 0..1, not normalised.
            columns: Height of focus [unit], known or not, height of the track [unit], direction of the scan or 0.
            product: Known or not, thickness and tops of the levels [unit]
        """
        height, log_sigma, logits = self.scaled(image, columns, product)
        told = [height * self.full_scale]
        if log_sigma is not None:
            told.append(torch.exp(log_sigma) * self.full_scale)
        if logits is not None:
            told.append(logits.softmax(dim=1))
        return tuple(told)

    def scaled(
        self, image: Tensor, columns: Tensor | None = None, product: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Height and log sigma in units of the full scale, logits of the classes: what losses compare."""
        if self.facts:
            seen = 2.0 * torch.sqrt(image.clamp(min=0.0) + TILT) - 1.0
            height, log_sigma, logits = self.body(seen, columns * self.column_scale, product * self.product_scale)
        else:
            out = self.body((image - self.mean) / self.scale).float()
            if self.enlarged_px is not None:
                out = nn.functional.interpolate(out, size=self.enlarged_px, mode="bilinear", align_corners=False)
            height, log_sigma, logits = out[:, :1], out[:, 1:2] if self.sigma else None, None
        if log_sigma is not None:
            log_sigma = log_sigma.clamp(LOG_SIGMA_LOW, LOG_SIGMA_HIGH)
        return height, log_sigma, logits

    @torch.no_grad()
    def predict(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """`forward` in evaluation mode, without gradients."""
        was_training = self.training
        self.eval()
        result = self(*inputs)
        self.train(was_training)
        return result


def _scales(heights: tuple[int, ...], full_scale: float) -> Tensor:
    return torch.tensor([1.0 / full_scale if height else 1.0 for height in heights])


def _imagenet(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if channels == len(IMAGENET_MEAN):
        return IMAGENET_MEAN, IMAGENET_SCALE
    mean, scale = (sum(values) / len(values) for values in (IMAGENET_MEAN, IMAGENET_SCALE))
    return (mean,) * channels, (scale,) * channels
