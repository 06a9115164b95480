"""Networks: one file is one box of a figure; one visible `match` builds them from a recipe.

`torch` lives here, in `train`, in `compress` and in `export`, and nowhere below them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from waferlens.bundle.wafer import MULTIPLE_PX
from waferlens.models.autoencoder import Autoencoder as AutoencoderNet
from waferlens.models.depth import DepthNet
from waferlens.models.depth_cnn import build_depth_cnn
from waferlens.models.detector import DetectorNet, build_detector
from waferlens.models.fcrn import build_fcrn
from waferlens.models.fusion import fuse
from waferlens.models.height import HeightNet
from waferlens.models.patchgan import PatchGAN
from waferlens.models.strided import StridedNet
from waferlens.models.unet import UNet
from waferlens.models.wafer_fast import WaferFastNet
from waferlens.recipe.hole import Autoencoder, HoleRecipe, Pix2Pix, StridedUnet, Unet
from waferlens.recipe.package import PackageRecipe
from waferlens.recipe.wafer import WaferRecipe
from waferlens.recipe.wafer_models import DepthCnn, Fcrn, WaferFast, WaferUnet

__all__ = [
    "DepthNet",
    "DetectorNet",
    "HeightNet",
    "PatchGAN",
    "build",
    "build_detector",
    "build_discriminator",
    "build_wafer",
    "describe",
    "fuse",
]


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


def build_wafer(recipe: WaferRecipe) -> HeightNet:
    """The network of a recipe of the wafer station, with fresh weights."""
    spec, target = recipe.input, recipe.target
    outputs = 2 if target.sigma else 1
    body: nn.Module
    match recipe.model:
        case WaferFast(unshuffle=unshuffle, widths=widths, blocks=blocks):
            body = WaferFastNet(
                unshuffle, widths, blocks, sigma=target.sigma, classes=target.classes, channels=spec.channels
            )
        case WaferUnet(levels=levels, base_channels=base):
            body = UNet(spec.channels, outputs, levels, base)
        case Fcrn(encoder=encoder, bottleneck_channels=wide, dropout=dropout, padding=padding):
            body = build_fcrn(
                encoder.blocks, encoder.base_channels, wide, dropout, spec.channels, spec.height_px, spec.width_px,
                frozen=encoder.frozen, pad_before=padding == "before",
            )  # fmt: skip
        case DepthCnn(head=head, encoder=encoder, bottleneck_channels=wide, dropout=dropout):
            blocks, base = (encoder.blocks, encoder.base_channels) if encoder else (None, 0)
            body = build_depth_cnn(
                head, blocks, base, wide, dropout, spec.channels, spec.height_px, spec.width_px,
                frozen=encoder is not None and encoder.frozen,
            )  # fmt: skip
    return HeightNet(
        body,
        full_scale=target.full_scale,
        channels=spec.channels,
        sigma=target.sigma,
        normalise=spec.normalise,
        enlarged_px=(spec.height_px, spec.width_px) if isinstance(recipe.model, DepthCnn) else None,
    )


def describe(recipe: HoleRecipe | WaferRecipe | PackageRecipe) -> dict[str, Any]:
    """What the built network costs, counted from the network itself.

    Returns:
        `parameters`, `trainable`, `parameters_fused` (as exported: batch norms and branches folded) and `gflops` of
        one image as exported (a multiplication and an addition are two operations).
    """
    inputs: tuple[torch.Tensor, ...]
    network: nn.Module
    h, w = recipe.input.height_px, recipe.input.width_px
    if isinstance(recipe, PackageRecipe):
        network, inputs = build_detector(recipe), (torch.zeros(1, recipe.input.channels, h, w),)
    elif isinstance(recipe, WaferRecipe):
        network = build_wafer(recipe)
        if network.facts:  # it takes multiples of its coarsest fold
            h, w = h + (-h) % MULTIPLE_PX, w + (-w) % MULTIPLE_PX
            inputs = (torch.zeros(1, recipe.input.channels, h, w), torch.zeros(1, 4, w), torch.zeros(1, 6))
        else:
            inputs = (torch.zeros(1, recipe.input.channels, h, w),)
    else:
        network, inputs = build(recipe), (torch.zeros(1, 1, h, w),)
    exported = fuse(network.eval())
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        exported(*inputs)
    return {
        "parameters": _count(network),
        "trainable": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "parameters_fused": _count(exported),
        "gflops": flops.get_total_flops() / 1e9,
    }


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
