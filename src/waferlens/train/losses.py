"""Losses under the names of their papers; depths and errors in grey of the 0..255 depth map."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from waferlens.recipe.hole import HoleLoss

HALF_SCALE = 127.5
"""0..255 told as -1..1, the scale pix2pix weighs its L1 term on [grey]"""

Map = Float[Tensor, "b 1 h w"]


def mse(depth: Map, truth: Map) -> Float[Tensor, ""]:
    """Mean square error [grey²]."""
    return (depth - truth).square().mean()


def l1(depth: Map, truth: Map) -> Float[Tensor, ""]:
    """Mean absolute error [grey]."""
    return (depth - truth).abs().mean()


def rmse(depth: Map, truth: Map) -> Float[Tensor, ""]:
    """Root of the mean square error, with its gradient [grey].

    S1 added this term as a number taken off the graph, so that it changed the loss and not the network.
    """
    return (mse(depth, truth) + 1e-8).sqrt()


def gaussian_nll(depth: Map, sigma: Map, truth: Map) -> Float[Tensor, ""]:
    """Negative log-likelihood of the truth, up to a constant.

    Source: Kendall, Gal, NeurIPS 2017 (arXiv:1703.04977), equation 5.
    """
    return (0.5 * ((depth - truth) / sigma).square() + sigma.log()).mean()


def image_bias(depth: Map, truth: Map) -> Float[Tensor, ""]:
    """Mean over the images of the squared mean error of each: what a wrong level costs [grey²]."""
    return (depth - truth).mean(dim=(1, 2, 3)).square().mean()


def supervised(
    loss: HoleLoss, depth: Map, sigma: Map | None, truth: Map
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """The weighted sum of a recipe's terms that compare with truth, and each term by name."""
    terms: dict[str, tuple[float, Tensor]] = {}
    match loss.pixel:
        case "l1":
            terms["l1"] = (loss.pixel_weight, l1(depth, truth))
        case "mse":
            terms["mse"] = (loss.pixel_weight, mse(depth, truth))
        case "rmse":
            terms["rmse"] = (loss.pixel_weight, rmse(depth, truth))
        case "nll" if sigma is not None:
            terms["nll"] = (loss.pixel_weight, gaussian_nll(depth, sigma, truth))
    if loss.sigma_weight and sigma is not None:
        # The depth is taken off the graph: sigma learns how wrong it is and cannot trade it away.
        terms["sigma"] = (loss.sigma_weight, gaussian_nll(depth.detach(), sigma, truth))
    if loss.l1_weight:
        terms["l1_half_scale"] = (loss.l1_weight, l1(depth, truth) / HALF_SCALE)
    if loss.rmse_weight:
        terms["rmse"] = (loss.rmse_weight, rmse(depth, truth))
    if loss.bias_weight:
        terms["bias"] = (loss.bias_weight, image_bias(depth, truth))
    total = torch.stack([weight * term for weight, term in terms.values()]).sum()
    return total, {name: term.detach() for name, (_, term) in terms.items()}


def adversarial(kind: str, logits: Tensor, real: bool) -> Float[Tensor, ""]:
    """The GAN's term: cross-entropy (the original GAN) or mean square (LSGAN) of the patch logits.

    Source: Goodfellow et al. 2014 (arXiv:1406.2661); Mao et al., ICCV 2017 (arXiv:1611.04076).
    """
    wanted = torch.full_like(logits, float(real))
    if kind == "bce":
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)
    return (logits - wanted).square().mean()
