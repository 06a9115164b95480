"""Networks: one file is one box of a figure; one visible `match` builds them from a recipe.

`torch` lives here, in `train`, in `compress` and in `export`, and nowhere below them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from waferlens.models.autoencoder import Autoencoder as AutoencoderNet
from waferlens.models.depth import DepthNet
from waferlens.models.fusion import fuse
from waferlens.models.patchgan import PatchGAN
from waferlens.models.strided import StridedNet
from waferlens.models.unet import UNet
from waferlens.recipe.hole import Autoencoder, HoleRecipe, Pix2Pix, StridedUnet, Unet

__all__ = ["DepthNet", "PatchGAN", "build", "build_discriminator", "describe", "fuse"]


def build(recipe: HoleRecipe) -> DepthNet:
    """The network of a recipe, with fresh weights."""
    match recipe.model:
        case StridedUnet(unshuffle=unshuffle, widths=widths, blocks=blocks, sigma=sigma):
            return DepthNet(StridedNet(2 if sigma else 1, unshuffle, widths, blocks), sigma=sigma)
        case Unet(levels=levels, base_channels=base, sigma=sigma):
            return DepthNet(UNet(1, 2 if sigma else 1, levels, base), sigma=sigma)
        case Pix2Pix(levels=levels, base_channels=base):
            return DepthNet(UNet(1, 1, levels, base, tanh=True), sigma=False, bounded=True)
        case Autoencoder(hidden=hidden):
            return DepthNet(AutoencoderNet(recipe.input.height_px, recipe.input.width_px, hidden), sigma=False)


def build_discriminator(recipe: HoleRecipe) -> PatchGAN:
    """The network a pix2pix recipe is trained against.

    Raises:
        TypeError: the recipe has no discriminator.
    """
    if not isinstance(recipe.model, Pix2Pix):
        raise TypeError(f"recipe {recipe.name}: {recipe.model.kind} has no discriminator")
    spec = recipe.model.discriminator
    return PatchGAN(2, spec.ndf, spec.layers, spec.deeper)


def describe(recipe: HoleRecipe) -> dict[str, Any]:
    """What the built network costs, counted from the network itself.

    Returns:
        `parameters`, `trainable`, `parameters_fused` (as exported: batch norms and branches folded) and `gflops` of
        one image as exported (a multiplication and an addition are two operations).
    """
    network = build(recipe).eval()
    exported = fuse(network)
    image = torch.zeros(1, 1, recipe.input.height_px, recipe.input.width_px)
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        exported(image)
    return {
        "parameters": _count(network),
        "trainable": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "parameters_fused": _count(exported),
        "gflops": flops.get_total_flops() / 1e9,
    }


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
