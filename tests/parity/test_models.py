"""Networks against counts worked out by hand and against their own slower twins."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from waferlens.models import build, build_discriminator, describe, fuse
from waferlens.models.strided import RepConvolution
from waferlens.recipe import load_recipe, recipe_names
from waferlens.recipe.hole import HoleRecipe, Pix2Pix

HOLE = [name for name in recipe_names() if isinstance(load_recipe(name), HoleRecipe)]


def recipe_of(name: str, *overrides: str) -> HoleRecipe:
    recipe = load_recipe(name, overrides)
    assert isinstance(recipe, HoleRecipe)
    return recipe


def unsettled(network: nn.Module) -> nn.Module:
    """Batch norms as after training: a fresh one is the identity, and any wrong folding of it would pass."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.3, 0.3),
            ):
                values.copy_(low + (high - low) * torch.rand(values.shape, generator=generator))
    return network


@pytest.mark.parametrize("name", HOLE)
def test_fused_says_the_same(name: str) -> None:
    network = unsettled(build(recipe_of(name))).eval()
    grey = 255 * torch.rand(3, 1, 72, 48, generator=torch.Generator().manual_seed(1))
    for ours, fused in zip(network(grey), fuse(network)(grey), strict=True):
        assert ours.shape == (3, 1, 72, 48)
        assert torch.allclose(ours, fused, atol=2e-3)
    assert not any(isinstance(module, RepConvolution | nn.BatchNorm2d) for module in fuse(network).modules())


def unet_parameters(levels: int, base: int, fused: bool = False) -> int:
    """Counted from the figure: 3x3 convolutions without bias and batch norms, transposed 2x2, a 1x1 head."""
    widths = [base * 2**level for level in range(levels)]
    norm = 1 if fused else 2  # a folded batch norm leaves one bias a channel
    double = lambda i, o: 9 * i * o + norm * o + 9 * o * o + norm * o  # noqa: E731
    down = sum(double(i, o) for i, o in zip([1, *widths[:-1]], widths, strict=True))
    up = sum(4 * 2 * w * w + w + double(2 * w, w) for w in widths[:-1])
    return down + up + base + 1


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_unet_counts(levels: int) -> None:
    told = describe(recipe_of(f"hole-unet-{levels}"))
    assert told["parameters"] == told["trainable"] == unet_parameters(levels, 32)
    assert told["parameters_fused"] == unet_parameters(levels, 32, fused=True)


def test_patchgan_counts_as_in_the_paper() -> None:
    # C64-C128-C256-C512 and a last convolution, kernel 4, batch norm in all but the first; two channels in
    widths = [64, 128, 256, 512]
    counted = 16 * 2 * 64 + 64
    counted += sum(16 * i * o + 2 * o for i, o in pairwise(widths))
    counted += 16 * 512 + 1
    discriminator = build_discriminator(recipe_of("hole-pix2pix"))
    assert sum(p.numel() for p in discriminator.parameters()) == counted
    assert discriminator(torch.zeros(1, 1, 72, 48), torch.zeros(1, 1, 72, 48)).shape == (1, 1, 7, 4)


def test_deeper_and_narrower_discriminators_differ() -> None:
    count = {
        name: sum(p.numel() for p in build_discriminator(recipe_of(name)).parameters())
        for name in HOLE
        if isinstance(recipe_of(name).model, Pix2Pix)
    }
    assert count["hole-pix2pix-ndf16"] < count["hole-pix2pix"] < count["hole-pix2pix-3-deeper"]


def test_gflops_of_a_plain_unet() -> None:
    # two operations for each weight of a convolution at each of its places
    base, pixels = 32, 72 * 48
    at_full = 9 * (base + base * base) + 9 * (2 * base * base + base * base) + base
    at_half = 9 * (base * 2 * base + 4 * base * base)
    grow = 4 * 2 * base * base  # four taps from each coarse place
    expected = 2 * (at_full * pixels + (at_half + grow) * pixels / 4) / 1e9
    assert describe(recipe_of("hole-unet-2"))["gflops"] == pytest.approx(expected, rel=1e-6)


def test_strided_network_is_blind_to_nothing() -> None:
    """Every input pixel reaches the output, the far ones through the mean over the image."""
    network = unsettled(build(recipe_of("hole-fast"))).eval()
    grey = torch.full((1, 1, 72, 48), 100.0, requires_grad=True)
    network(grey)[0][0, 0, 36, 24].backward()
    assert grey.grad is not None
    assert (grey.grad != 0).float().mean() > 0.95
