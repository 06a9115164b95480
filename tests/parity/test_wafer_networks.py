"""Networks of the wafer station against what they are said to be: the one for the line, and what stands around all."""

from __future__ import annotations

import math

import pytest
import torch
from test_models import unsettled

from waferlens.models import HeightNet, UNet, build_wafer, describe, fuse
from waferlens.models.wafer_fast import CANDIDATES, CORRECTION, FieldContext, WaferFastNet, _chosen
from waferlens.recipe import WaferRecipe, load_recipe


def recipe_of(name: str, *overrides: str) -> WaferRecipe:
    recipe = load_recipe(name, overrides)
    assert isinstance(recipe, WaferRecipe)
    return recipe


def told(b: int = 2, h: int = 64, w: int = 128, channels: int = 1) -> tuple[torch.Tensor, ...]:
    """An image, columns with focus and track, and a product of two levels."""
    draw = torch.Generator().manual_seed(1)
    columns = torch.rand(b, 4, w, generator=draw) * torch.tensor([700.0, 0, 700, 0])[:, None]
    columns[:, 1] = columns[:, 3] = 1
    product = torch.tensor([[1.0, 300, 310, 640, 640, 640]]).expand(b, -1)
    return torch.rand(b, channels, h, w, generator=draw), columns, product


def fast(channels: int = 1, first: int = 8, **flags: bool) -> HeightNet:
    torch.manual_seed(0)
    options = {"sigma": True, "classes": True, **flags}
    body = WaferFastNet(4, (first, 8, 16), (1, 2, 1), channels=channels, **options)
    network = HeightNet(body, full_scale=781.25, channels=channels, sigma=options["sigma"])
    unsettled(network)
    return network.eval()


@pytest.mark.parametrize(("channels", "first"), [(1, 8), (3, 8), (1, 16)])  # 16: as wide as 4x4 folded pixels
def test_fused_says_the_same(channels: int, first: int) -> None:
    network, inputs = fast(channels, first), told(channels=channels)
    with torch.no_grad():
        ours, fused = network(*inputs), fuse(network)(*inputs)
    assert [tuple(part.shape) for part in ours] == [(2, 1, 64, 128), (2, 1, 64, 128), (2, 3, 16, 32)]
    for a, b in zip(ours, fused, strict=True):
        assert torch.allclose(a, b, atol=1e-4 * float(a.abs().max()))
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in fuse(network).modules())


def test_parts_that_are_not_asked_for_are_not_there() -> None:
    network = fast(sigma=False, classes=False)
    assert network.outputs == ["height"]
    assert len(network(*told())) == 1


@pytest.mark.parametrize("which", range(CANDIDATES))
def test_a_height_is_one_of_the_candidates_and_a_small_correction(which: int) -> None:
    logits = torch.zeros(1, CANDIDATES, 2, 3)
    logits[:, which] = 60.0
    free = torch.zeros(1, 2, 2, 3)
    free[:, 0], free[:, 1] = 0.9, 50.0
    product = torch.tensor([[1.0, 0.4, 0.41, 0.5, 0.6, 0.7]])
    reading = torch.tensor([[[0.1, 0.2, 0.3], [1.0, 1.0, 1.0]]])
    height = _chosen(logits, free, reading, product)
    expected = [torch.zeros(3), *(torch.full((3,), top) for top in (0.41, 0.5, 0.6, 0.7)), reading[0, 0],
                torch.full((3,), 0.9)][which]  # fmt: skip
    assert torch.allclose(height[0, 0], (expected + CORRECTION).expand(2, 3))


def test_what_is_not_known_is_no_candidate() -> None:
    logits = torch.zeros(1, CANDIDATES, 1, 2)  # all alike: the mean of those there are
    free = torch.zeros(1, 2, 1, 2)
    free[:, 0] = 0.8
    nothing = _chosen(logits, free, torch.tensor([[[0.7, 0.7], [0.0, 0.0]]]), torch.zeros(1, 6))
    assert torch.allclose(nothing, torch.full((1, 1, 1, 2), 0.8 / 2))  # carrier and free height
    one = _chosen(logits, free, torch.tensor([[[0.7, 0.7], [0.0, 1.0]]]), torch.zeros(1, 6))
    assert torch.allclose(one[0, 0, 0], torch.tensor([0.8 / 2, (0.8 + 0.7) / 3]))


def test_a_column_is_told_to_all_its_rows_and_every_pixel_counts() -> None:
    network = fast()
    image, columns, product = told(b=1)
    image.requires_grad_(True)
    columns.requires_grad_(True)
    network(image, columns, product)[0][0, 0, 40, 70].backward()
    assert image.grad is not None
    assert columns.grad is not None
    assert (image.grad[0, 0, :, 66:74] != 0).float().mean() > 0.95  # rows far away, through the means of the column
    assert (columns.grad[0, 2, 60:80] != 0).all()


def test_every_pixel_asks_the_whole_field() -> None:
    context = FieldContext(4, regions=3, asked=2)
    x = torch.rand(2, 4, 6, 9)
    assert torch.equal(context(x), x)  # it begins as the identity
    torch.nn.init.ones_(context.give[2].weight)
    x.requires_grad_(True)
    context(x)[0, 0, 0, 0].backward()
    assert x.grad is not None
    assert (x.grad[0].abs().amax(dim=0) > 0).all()  # the farthest pixel counts
    assert (x.grad[1] == 0).all()  # and no other field
    # where pixels stand does not matter, only which there are
    order = torch.randperm(54)
    moved = x.detach().flatten(2)[:, :, order].reshape(x.shape)
    assert torch.allclose(context(moved).flatten(2), context(x.detach()).flatten(2)[:, :, order], atol=1e-6)


def test_the_shipped_recipe_at_its_size() -> None:
    assert describe(recipe_of("wafer-fast"))["parameters"] == 1_907_668


def test_every_normalisation_is_what_it_is_said_to_be() -> None:
    seen: list[torch.Tensor] = []

    class Seer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x[:, :1, ::2, ::2]

    image = torch.rand(1, 3, 8, 8)
    height = HeightNet(Seer(), full_scale=10.0, channels=3, enlarged_px=(8, 8))(image)[0]
    assert torch.allclose(seen.pop(), 4 * image - 1)
    assert height.shape == (1, 1, 8, 8)  # a smaller map is enlarged
    HeightNet(Seer(), full_scale=10.0, channels=3, normalise="imagenet")(image)
    for channel, (mean, scale) in enumerate(((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))):
        assert torch.allclose(seen[0][:, channel], (image[:, channel] - mean) / scale, atol=1e-6)
    HeightNet(Seer(), full_scale=10.0, normalise="imagenet")(image[:, :1])
    assert torch.allclose(seen[1], (image[:, :1] - 0.449) / 0.226, atol=1e-6)  # grey: the means over the channels


def test_sigma_stays_within_its_bounds() -> None:
    network = HeightNet(UNet(1, 2, 2, 4), full_scale=781.25, sigma=True).eval()
    with torch.no_grad():
        network.body.head.bias[1] = 100.0
        assert torch.allclose(network(torch.rand(1, 1, 16, 16))[1], torch.tensor(781.25 * math.exp(0.5)))
        network.body.head.bias[1] = -100.0
        assert torch.allclose(network(torch.rand(1, 1, 16, 16))[1], torch.tensor(781.25 * math.exp(-7.0)))


def test_recipes_say_how_the_image_is_normalised() -> None:
    transfer = build_wafer(recipe_of("depth-cnn-transfer", "model.encoder.base_channels=4"))
    assert transfer.normalise == "imagenet"
    assert build_wafer(recipe_of("wafer-unet")).normalise == "half"
