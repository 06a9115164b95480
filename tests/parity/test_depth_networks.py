"""The published depth networks: every layer of S0's table and of S3's, and Laina's identity.

`fcrn_layers.csv` holds the 238 lines of S0's table: kind of the layer, size of its output, its parameters.
"""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from waferlens.models import build_wafer, describe, fuse
from waferlens.models.depth_cnn import (
    JoinedUpProjection,
    PlainEncoder,
    UnpoolingConvolution,
    build_depth_cnn,
    map_size,
)
from waferlens.models.fcrn import build_fcrn
from waferlens.models.resnet import Bottleneck, ResNet
from waferlens.models.up_project import InterleavedConvolution, UpProject
from waferlens.recipe import WaferRecipe, load_recipe

Row = tuple[str, int, int, int, int]


def layers_of(network: nn.Module, image: Tensor, listed: tuple[type[nn.Module], ...]) -> list[Row]:
    """Kind, output and own parameters of each layer, in the order in which they finish."""
    rows: list[Row] = []

    def note(module: nn.Module, _: object, output: Tensor) -> None:
        own = sum(p.numel() for p in module.parameters(recurse=False))
        rows.append((type(module).__name__, *output.shape[1:], own))

    hooks = [part.register_forward_hook(note) for part in network.modules() if isinstance(part, listed)]
    with torch.no_grad():
        network.eval()(image)
    for hook in hooks:
        hook.remove()
    return rows


def count(network: nn.Module, trainable: bool = False) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad or not trainable)


def recipe_of(name: str, *overrides: str) -> WaferRecipe:
    recipe = load_recipe(name, overrides)
    assert isinstance(recipe, WaferRecipe)
    return recipe


def body_of(name: str) -> nn.Module:
    """The network of a shipped recipe, without the normalisation around it."""
    return build_wafer(recipe_of(name)).body


def test_every_line_of_the_table_of_s0() -> None:
    with (Path(__file__).parent / "fcrn_layers.csv").open() as file:
        table = [(row.pop("layer"), *map(int, row.values())) for row in csv.DictReader(file)]
    network = body_of("wafer-fcrn")
    listed = (
        nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.Dropout2d, nn.Upsample, Bottleneck, UpProject,
    )  # fmt: skip
    ours = layers_of(network, torch.zeros(1, 1, 228, 228), listed)
    assert len(table) == 238
    for place, (told, made) in enumerate(zip(table, ours, strict=True), 1):
        assert made == told, f"line {place}"
    assert count(network) == count(network, trainable=True) == sum(row[4] for row in table) == 63_565_377


def test_settings_of_s0() -> None:
    recipe = recipe_of("wafer-fcrn")
    train = recipe.train
    assert (train.batch, train.epochs, train.optimizer) == (35, 10, "sgd")
    assert (train.lr, train.momentum, train.weight_decay) == (1e-5, 0.9, 5e-4)
    # 25,000 counts at 32 counts a micrometre
    assert recipe.target.full_scale == 25_000 / 32


@pytest.mark.parametrize("shape", [(5, 7), (8, 8), (1, 1)])
def test_interleaving_is_unpooling_and_a_5x5_convolution(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    layer = InterleavedConvolution(3, 4)
    with torch.no_grad():
        bias = torch.randn(4)
        for part in layer.children():
            part.bias.copy_(bias)  # type: ignore[operator,union-attr]
    x = torch.randn(2, 3, *shape)
    unpooled = torch.zeros(2, 3, 2 * shape[0], 2 * shape[1])
    unpooled[..., ::2, ::2] = x
    kernel = layer.as_kernel()
    assert (kernel != 0).all()  # each of the 25 weights is one of the four's: 9 + 6 + 6 + 4
    assert torch.allclose(layer(x), conv2d(unpooled, kernel, bias, padding=2), atol=1e-5)


def test_the_released_padding_is_not_that_convolution() -> None:
    torch.manual_seed(1)
    behind, before = InterleavedConvolution(1, 1), InterleavedConvolution(1, 1, pad_before=True)
    before.load_state_dict(behind.state_dict())
    x = torch.randn(1, 1, 6, 6)
    ours, theirs = behind(x), before(x)
    assert torch.equal(ours[..., ::2, ::2], theirs[..., ::2, ::2])
    # their odd rows are ours of one pixel before
    assert torch.allclose(theirs[..., 3::2, ::2], ours[..., 1:-1:2, ::2])
    assert not torch.allclose(theirs[..., 1::2, :], ours[..., 1::2, :])


def test_unpooling_convolution_against_zeros_put_in() -> None:
    torch.manual_seed(1)
    layer = UnpoolingConvolution(3, 4)
    x = torch.randn(2, 3, 5, 6)
    unpooled = torch.zeros(2, 3, 10, 12)
    unpooled[..., ::2, ::2] = x
    assert torch.allclose(layer(x), conv2d(unpooled, layer.weight, layer.bias, padding=2), atol=1e-5)


@pytest.mark.parametrize(
    "name", ["wafer-fcrn", "depth-cnn", "depth-cnn-fc", "depth-cnn-transfer", "depth-cnn-residual"]
)
def test_a_fresh_network_begins_alive(name: str) -> None:
    """Where the ReLU at the end gives 0, nothing is ever learned; heights and depths are 0..1 of the full scale."""
    torch.manual_seed(1)
    frozen = name in ("depth-cnn-transfer", "depth-cnn-residual")  # with loaded weights: fresh ones blow it up
    recipe = recipe_of(name, *(["model.encoder.frozen=false"] if frozen else []))
    spec = recipe.input
    with torch.no_grad():
        value = build_wafer(recipe).train().scaled(torch.rand(2, spec.channels, spec.height_px, spec.width_px))[0]
    assert (value > 0).float().mean() > 0.99
    assert 0.2 < value.mean() < 0.4


def test_cnn_residual_of_s3() -> None:
    network = body_of("depth-cnn-residual")
    rows = layers_of(network, torch.zeros(1, 3, 256, 320), (nn.Conv2d, nn.ReLU, nn.BatchNorm2d, JoinedUpProjection))
    rows = [row for row in rows if row[0] != "BatchNorm2d"]
    assert rows[-19:] == [
        ("ReLU", 2048, 8, 10, 0),
        ("Conv2d", 1024, 8, 10, 2_098_176),
        ("UnpoolingConvolution", 512, 16, 20, 13_107_712),
        ("ReLU", 512, 16, 20, 0),
        ("Conv2d", 256, 16, 20, 1_179_904),
        ("UnpoolingConvolution", 256, 16, 20, 6_553_856),
        ("JoinedUpProjection", 512, 16, 20, 0),
        ("UnpoolingConvolution", 256, 32, 40, 3_277_056),
        ("ReLU", 256, 32, 40, 0),
        ("Conv2d", 128, 32, 40, 295_040),
        ("UnpoolingConvolution", 128, 32, 40, 1_638_528),
        ("JoinedUpProjection", 256, 32, 40, 0),
        ("UnpoolingConvolution", 128, 64, 80, 819_328),
        ("ReLU", 128, 64, 80, 0),
        ("Conv2d", 64, 64, 80, 73_792),
        ("UnpoolingConvolution", 64, 64, 80, 409_664),
        ("JoinedUpProjection", 128, 64, 80, 0),
        ("Conv2d", 1, 62, 78, 1_153),
        ("ReLU", 1, 62, 78, 0),
    ]
    assert (count(network), count(network, trainable=True)) == (52_964_289, 29_456_257)
    assert count(network.encoder) == 23_508_032  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "parameters", "trainable"),
    [
        ("wafer-fcrn", 63_565_377, 63_565_377),
        ("depth-cnn-residual", 52_964_289, 29_456_257),
        ("depth-cnn-transfer", 34_496_001, 10_987_969),  # head: 3x3 to 512, 256, 128, 64 with norms, and to 1
    ],
)
def test_what_is_told_of_a_shipped_recipe(name: str, parameters: int, trainable: int) -> None:
    told = describe(recipe_of(name))
    assert (told["parameters"], told["trainable"]) == (parameters, trainable)
    if name == "depth-cnn-transfer":
        widths = [2048, 512, 256, 128, 64]
        assert trainable == sum(9 * i * o + 2 * o for i, o in pairwise(widths)) + 9 * 64 + 1
        assert parameters - trainable == 23_508_032  # ResNet-50 without its last layer


@pytest.mark.parametrize("name", ["depth-cnn", "depth-cnn-fc", "depth-cnn-transfer", "depth-cnn-residual"])
def test_depth_networks_of_s3_tell_maps_of_one_size(name: str) -> None:
    network = body_of(name).eval()
    with torch.no_grad():
        depth = network(torch.randn(1, 3, 256, 320))
    assert depth.shape == (1, 1, *map_size(256, 320)) == (1, 1, 62, 78)
    assert depth.min() >= 0  # ends in ReLU


def test_a_frozen_encoder_keeps_its_statistics() -> None:
    frozen, free = (
        build_depth_cnn("convolution", (1, 1, 1, 1), 8, 16, 0.5, 3, 64, 64, frozen=kept) for kept in (True, False)
    )
    for network, kept in ((frozen, True), (free, False)):
        before = {name: value.clone() for name, value in network.state_dict().items()}
        network.train()(torch.randn(2, 3, 64, 64)).sum().backward()
        moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
        assert any(name.startswith("head.") for name in moved)
        assert any(name.startswith("encoder.") for name in moved) is not kept
        assert all((p.grad is None) is kept for p in network.encoder.parameters())


@pytest.mark.parametrize("size", [(64, 96), (50, 70), (33, 65)])
@pytest.mark.parametrize("head", ["fully-connected", "convolution", "up-projection"])
@pytest.mark.parametrize("blocks", [None, (1, 1, 1, 1)])
def test_tiny_depth_networks(head: str, blocks: tuple[int, ...] | None, size: tuple[int, int]) -> None:
    network = build_depth_cnn(head, blocks, 8, 16, 0.5, 1, *size)  # type: ignore[arg-type]
    assert network(torch.randn(2, 1, *size)).shape == (2, 1, *map_size(*size))


def test_tiny_fcrn_learns() -> None:
    torch.manual_seed(1)
    network = build_fcrn((1, 1, 1, 1), 8, 32, 0.0, 1, 50, 70)
    image = torch.randn(4, 1, 50, 70)
    truth = 0.5 + 0.3 * image.mean(dim=(2, 3), keepdim=True).sign().expand_as(image)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    errors = []
    for _ in range(60):
        error = (network(image) - truth).abs().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert network(image).shape == (4, 1, 50, 70)
    assert errors[-1] < 0.3 * errors[0]


@pytest.mark.parametrize("which", ["fcrn", "fully-connected", "convolution", "up-projection"])
def test_fused_says_the_same(which: str) -> None:
    torch.manual_seed(2)
    network: nn.Module
    if which == "fcrn":
        network = build_fcrn((1, 2, 1, 1), 8, 32, 0.5, 1, 64, 64)
    else:
        network = build_depth_cnn(which, (1, 2, 1, 1), 8, 32, 0.5, 1, 64, 64, frozen=True)  # type: ignore[arg-type]
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # fresh ones are the identity, and any folding of them would pass
            module.running_mean.uniform_(-0.3, 0.3)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    image = torch.randn(2, 1, 64, 64)
    fused = fuse(network)
    with torch.no_grad():
        expected = network.eval()(image)
        assert torch.allclose(fused(image), expected, atol=1e-4 * float(expected.max()))
    folded = [part for part in fused.modules() if isinstance(part, nn.BatchNorm2d)]
    # those behind interleaved convolutions stay: they stand behind four at once
    assert len(folded) == (8 if which == "fcrn" else 0)


def test_encoders_agree_on_the_size_of_features() -> None:
    for size in ((228, 228), (256, 320), (33, 1)):
        x = torch.zeros(1, 1, *size)
        plain, resnet = PlainEncoder(1, 16).eval()(x), ResNet(1, (1, 1, 1, 1), 8).eval()(x)
        assert plain.shape[2:] == resnet.shape[2:] == (-(-size[0] // 32), -(-size[1] // 32))


def test_wrong_widths_are_told() -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        build_fcrn((1, 1, 1, 1), 8, 24, 0.5, 1, 64, 64)
    with pytest.raises(ValueError, match="multiple of 16"):
        build_depth_cnn("convolution", None, 8, 24, 0.5, 1, 64, 64)
    with pytest.raises(ValueError, match="cannot be frozen"):
        build_depth_cnn("convolution", None, 8, 32, 0.5, 1, 64, 64, frozen=True)
