"""Weights of others: what is taken, what is left out and why, and what is never run."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import conv2d

from make_weights import BASE, BLOCKS, WIDE, released_layers, saved, torchvision_state
from waferlens.errors import FormatError, InputError, UsageError
from waferlens.formats.weights_npy import read_weights_npy
from waferlens.models.depth_cnn import DepthCnnNet, build_depth_cnn
from waferlens.models.fcrn import FcrnNet, build_fcrn
from waferlens.models.foreign_weights import load_foreign


def fcrn(channels: int = 1) -> FcrnNet:
    torch.manual_seed(0)
    return build_fcrn(BLOCKS, BASE, WIDE, 0.5, channels, 64, 64)


def residual() -> DepthCnnNet:
    torch.manual_seed(0)
    return build_depth_cnn("up-projection", BLOCKS, BASE, WIDE, 0.5, 3, 64, 64, frozen=True)


def test_the_released_fcrn_fills_a_colour_fcrn_whole(tmp_path: Path) -> None:
    layers = released_layers()
    network = fcrn(channels=3)
    loaded = load_foreign(network, saved(tmp_path / "w.npy", layers))
    assert loaded.left_out == {}
    assert loaded.fresh == ()
    assert len(loaded.taken) == sum(map(len, layers.values()))
    own = network.state_dict()
    assert np.array_equal(
        own["encoder.stages.1.1.path.3.weight"].numpy(), layers["res3b_branch2b"]["weights"].transpose(3, 2, 0, 1)
    )
    b = own["up.2.unpool_beside.odd_even.weight"]
    assert b.shape[2:] == (2, 3)
    assert np.array_equal(b.numpy(), layers["layer8x_br2_ConvB"]["weights"].transpose(3, 2, 0, 1))
    assert np.array_equal(own["up.3.path.3.weight"].numpy(), layers["layer16x_BN"]["scale"])


@pytest.mark.parametrize(
    ("conv", "norm", "ours"), [("conv1", "bn_conv1", "encoder.stem"), ("layer1", "layer1_BN", "bridge")]
)
def test_a_layer_with_bias_and_norm_computes_as_there(tmp_path: Path, conv: str, norm: str, ours: str) -> None:
    layers, network = released_layers(), fcrn(channels=3)
    load_foreign(network, saved(tmp_path / "w.npy", layers))
    weights = torch.from_numpy(layers[conv]["weights"].transpose(3, 2, 0, 1).copy())
    x = torch.randn(2, weights.shape[1], 9, 9)
    part = network.get_submodule(ours)
    convolution, batch_norm = part[0], part[1].eval()
    given = conv2d(x, weights, torch.from_numpy(layers[conv]["biases"]), convolution.stride, convolution.padding)
    told = {key: torch.from_numpy(value)[:, None, None] for key, value in layers[norm].items()}
    expected = (given - told["mean"]) / (told["variance"] + 1e-4).sqrt() * told["scale"] + told["offset"]
    assert torch.allclose(batch_norm(convolution(x)), expected, atol=1e-4)


def test_a_changed_stem_is_left_out_and_named(tmp_path: Path) -> None:
    network = fcrn(channels=1)
    loaded = load_foreign(network, saved(tmp_path / "w.npy", released_layers() | {"fc1000": {"weights": np.ones(3)}}))
    assert loaded.left_out == {
        "conv1/weights": "is 8x3x7x7 there and 8x1x7x7 here",
        "conv1/biases": "belongs to conv1/weights",
        **{f"bn_conv1/{key}": "belongs to conv1/weights" for key in ("scale", "offset", "mean", "variance")},
        "fc1000/weights": "no layer of this name here",
    }
    assert loaded.fresh == (
        "encoder.stem.0.weight",
        *(f"encoder.stem.1.{name}" for name in ("weight", "bias", "running_mean", "running_var")),
    )
    assert "left out conv1/weights: is 8x3x7x7 there and 8x1x7x7 here" in str(loaded)


def test_the_released_encoder_fills_that_of_s3(tmp_path: Path) -> None:
    loaded = load_foreign(residual(), saved(tmp_path / "w.npy", released_layers()))
    assert set(loaded.left_out.values()) == {"no layer of this name here"}
    assert all(name.startswith(("layer", "ConvPred")) for name in loaded.left_out)
    assert all(name.startswith("head.") for name in loaded.fresh)


@pytest.mark.parametrize("wrapped", ["plain", "state_dict", "several devices", "safetensors"])
def test_a_resnet_of_torchvision(tmp_path: Path, wrapped: str) -> None:
    state, path = torchvision_state(), tmp_path / "resnet.pth"
    match wrapped:
        case "safetensors":
            path = tmp_path / "resnet.safetensors"
            save_file(state, path)
        case "state_dict":
            torch.save({"epoch": 3, "state_dict": state}, path)
        case "several devices":
            torch.save({f"module.{name}": value for name, value in state.items()}, path)
        case _:
            torch.save(state, path)
    network = residual()
    loaded = load_foreign(network, path)
    assert loaded.left_out == dict.fromkeys(("fc.weight", "fc.bias"), "no layer of this name here")
    assert all(name.startswith("head.") for name in loaded.fresh)
    own = network.state_dict()
    assert torch.equal(own["encoder.stages.3.0.path.6.weight"], state["layer4.0.conv3.weight"])
    assert torch.equal(own["encoder.stages.0.0.shortcut.1.running_var"], state["layer1.0.downsample.1.running_var"])
    assert own["encoder.stem.1.num_batches_tracked"] == 7
    assert all(not p.requires_grad for p in network.encoder.parameters())


def test_numbers_of_torchvision_are_computed_as_there(tmp_path: Path) -> None:
    """A block written out from the state dict alone."""
    state, network = torchvision_state(), residual()
    torch.save(state, tmp_path / "resnet.pth")
    load_foreign(network, tmp_path / "resnet.pth")

    def after(x: torch.Tensor, conv: str, norm: str, stride: int = 1) -> torch.Tensor:
        weight = state[f"{conv}.weight"]
        x = conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2)
        return nn.functional.batch_norm(
            x, state[f"{norm}.running_mean"], state[f"{norm}.running_var"], state[f"{norm}.weight"],
            state[f"{norm}.bias"],
        )  # fmt: skip

    x = torch.randn(1, 32, 9, 9)
    at = "layer2.0"
    inner = after(x, f"{at}.conv1", f"{at}.bn1").relu()
    inner = after(inner, f"{at}.conv2", f"{at}.bn2", stride=2).relu()
    inner = after(inner, f"{at}.conv3", f"{at}.bn3")
    expected = (inner + after(x, f"{at}.downsample.0", f"{at}.downsample.1", stride=2)).relu()
    block = network.get_submodule("encoder.stages.1.0").eval()
    assert torch.allclose(block(x), expected, rtol=1e-4, atol=1e-3)


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("name", ["w.npy", "w.pth"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path, name: str) -> None:
    marker, path = tmp_path / "was-run", tmp_path / name
    content = {"conv1": {"weights": Hostile(marker)}}
    if name == "w.npy":
        saved(path, content)
    else:
        torch.save(content, path)
    with pytest.raises(FormatError, match=re.escape(f"asks for {os.system.__module__}.system; it was not run")):
        load_foreign(residual(), path)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [1, 2, 3, 4])
def test_every_protocol_of_pickles(tmp_path: Path, protocol: int) -> None:
    layers = {"a": {"x": np.arange(6, dtype=">f4").reshape(2, 3), "y": np.asfortranarray(np.eye(3)[:, :2])}}
    read = read_weights_npy(saved(tmp_path / "w.npy", layers, protocol))
    assert list(read) == ["a/x", "a/y"]
    assert np.array_equal(read["a/x"], layers["a"]["x"])
    assert np.array_equal(read["a/y"], layers["a"]["y"])


def test_a_pickle_of_python_2(tmp_path: Path) -> None:
    """Python 2 wrote text and bytes alike; the released file is one of those. Written here opcode by opcode."""
    raw = np.array([1.5, -2.0], "<f4").tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01K\x02\x85cnumpy\ndtype\n(U\x02f4K\x00K\x01tR"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08" + raw + b"tb"
    )
    program = b"\x80\x02}U\x05conv1}U\x07weights" + array + b"ss."
    with (tmp_path / "w.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(program)
    read = read_weights_npy(tmp_path / "w.npy")
    assert read["conv1/weights"].tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "holds a list where a dict of layers is expected"),
        ({"a": {"x": 3}}, "holds a int as a/x; expected an array"),
        ({"a": {"x": np.array([{}], dtype=object)}}, "an array of objects among the weights"),
        ({"a": {"x": np.array(["text"])}}, "holds an array of type 'U4'"),
        ({3: {}}, "names a layer by a int"),
        ({"a": {"x": np.float32}}, "asks for numpy.float32"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(FormatError, match=re.escape(said)):
        read_weights_npy(saved(tmp_path / "w.npy", content))


def test_damaged_and_other_files(tmp_path: Path) -> None:
    whole = saved(tmp_path / "w.npy", released_layers()).read_bytes()
    for name, data, said in (
        ("short.npy", whole[: len(whole) // 2], "a damaged pickle"),
        ("header.npy", whole[:9], "not a .npy file"),
        ("text.pth", b"no weights at all", "not a file of weights alone"),
        ("damaged.safetensors", b"\x08\0\0\0\0\0\0\0nonsense", "a damaged .safetensors file"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FormatError, match=re.escape(said)):
            load_foreign(residual(), tmp_path / name)
    np.save(tmp_path / "plain.npy", np.zeros(3))
    with pytest.raises(FormatError, match="expected one pickled dict of layers"):
        load_foreign(residual(), tmp_path / "plain.npy")
    with pytest.raises(InputError, match="cannot be read"):
        load_foreign(residual(), tmp_path / "absent.npy")


def test_nothing_fits_or_is_not_a_number(tmp_path: Path) -> None:
    network = residual()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError, match="none of its 1 arrays fits"):
        load_foreign(network, saved(tmp_path / "w.npy", {"other": {"weights": np.ones((1, 1, 2, 3))}}))
    layers = released_layers()
    layers["res2a_branch1"]["weights"][0, 0, 0, 0] = np.nan
    with pytest.raises(FormatError, match="res2a_branch1/weights holds NaN"):
        load_foreign(network, saved(tmp_path / "w.npy", layers))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(UsageError, match="has 0 ResNets"):
        load_foreign(nn.Linear(1, 1), saved(tmp_path / "w.npy", layers))
