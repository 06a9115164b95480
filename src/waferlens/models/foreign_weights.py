"""Weights that others trained, for the parts of our networks that have the same shape.

Two kinds of files are known: `NYU_ResNet-UpProj.npy` (FCRN as released by Laina et al., arrays `h w in out`), and state
dicts of a ResNet in torchvision's names (.pth, .safetensors). What does not fit is left out and named with its reason.

The released FCRN computes a little differently from S0's: its ResNet has the stride of a stage in the first 1x1
convolution, and its up-projections pad before the map (`pad_before` of `models.up_project`). Weights are taken all the
same, as S0 took them, and trained on. Two differences are undone exactly: a bias in front of a batch norm, which ours
do not have, is taken off its mean, and its 1e-4 beside the variance becomes our 1e-5.

Source: S0; Laina et al. 2016, github.com/iro-laina/FCRN-DepthPrediction; names of torchvision.models.resnet.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from waferlens.errors import FormatError, InputError, UsageError
from waferlens.formats.weights_npy import MAGIC, read_weights_npy
from waferlens.models.fcrn import FcrnNet
from waferlens.models.resnet import ResNet

EPSILON = 1e-4
"""What stands beside the variance in the batch norms of the released FCRN."""
NORM = {"scale": "weight", "offset": "bias", "mean": "running_mean", "variance": "running_var"}
"""Names of the released arrays of a batch norm, and torch's."""
COUNTER = "num_batches_tracked"
"""How many batches a batch norm has seen: torch keeps it, evaluation does not need it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of a file of weights."""

    taken: tuple[str, ...]
    """Names in the file, in its order."""
    left_out: dict[str, str]
    """Names in the file, and why each was not taken."""
    fresh: tuple[str, ...]
    """Names of the network's own tensors that the file did not fill."""

    def __str__(self) -> str:
        said = f"{len(self.taken)} arrays taken, {len(self.left_out)} left out, {len(self.fresh)} tensors stay fresh"
        return "\n".join([said, *(f"left out {name}: {why}" for name, why in self.left_out.items())])


@dataclass(frozen=True, slots=True)
class _Layer:
    """A convolution under its foreign name, and the batch norm that follows it directly, if one does."""

    ours: str
    theirs: str
    norm: str | None = None
    their_norm: str | None = None


def load_foreign(network: nn.Module, path: str | Path) -> Loaded:
    """Fills what fits of a network with the weights of a file. A network that nothing fits is left as it was.

    Args:
        network: Holds one `ResNet`, or is or holds an `FcrnNet`.
        path: .npy in the layout of NYU_ResNet-UpProj, .pth or .safetensors of a ResNet.

    Raises:
        InputError: the file cannot be read, or nothing in it fits.
        FormatError: it is none of these, it is damaged, it holds NaN, or it is more than weights and was not run.
        UsageError: the network has no ResNet.
    """
    path = Path(path)
    prefix, resnet = _encoder_of(network)
    arrays, released = _read(path)
    for name, array in arrays.items():
        if array.is_floating_point() and not torch.isfinite(array).all():
            raise FormatError(path, f"{name} holds NaN or infinite weights")
    layers = list(_released_layers(network, prefix, resnet) if released else _torchvision_layers(prefix, resnet))
    own = dict(network.state_dict())
    found, left_out = _matched(layers, arrays, own, released)
    if not found:
        raise InputError(path, f"none of its {len(arrays)} arrays fits this network; expected weights of a ResNet")
    with torch.no_grad():
        for name, value in found.items():
            own[name].copy_(value)
    taken = tuple(name for name in arrays if name not in left_out)
    fresh = tuple(name for name in own if name not in found and not name.endswith(COUNTER))
    return Loaded(taken, left_out, fresh)


def _encoder_of(network: nn.Module) -> tuple[str, ResNet]:
    found = [(name, part) for name, part in network.named_modules() if isinstance(part, ResNet)]
    if len(found) != 1:
        raise UsageError(
            f"a {type(network).__name__} has {len(found)} ResNets; weights of others fit networks with one"
        )
    return found[0]


def _read(path: Path) -> tuple[dict[str, Tensor], bool]:
    """The arrays of a file, and whether it is of the released layout."""
    try:
        with path.open("rb") as file:
            first = file.read(8)
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}") from wrong
    if first.startswith(MAGIC):
        arrays = read_weights_npy(path)
        return {name: _as_torch(array) for name, array in arrays.items()}, True
    if path.suffix == ".safetensors":
        import safetensors
        import safetensors.torch  # brought by the same extra; needed for this layout only

        try:
            return safetensors.torch.load_file(path), False
        except safetensors.SafetensorError as wrong:
            raise FormatError(path, f"a damaged .safetensors file: {wrong}") from wrong
    return _state_dict(path), False


def _as_torch(array: np.ndarray) -> Tensor:
    """Kernels `h w in out` as torch has them, `out in h w`."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array))


def _state_dict(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as wrong:
        asked = re.search(r"GLOBAL (\S+)", str(wrong))  # torch's own advice is to run it after all
        what = f"its pickle asks for {asked[1]}" if asked else "not a file of weights alone"
        raise FormatError(path, f"{what}; it was not run") from wrong
    except Exception as wrong:  # a damaged archive fails with anything: passed on
        raise FormatError(path, f"not a file of weights: {type(wrong).__name__}: {wrong}") from wrong
    for wrapping in ("state_dict", "model"):  # what training scripts put around it
        if isinstance(content, dict) and isinstance(content.get(wrapping), dict):
            content = content[wrapping]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise FormatError(path, "holds no state dict: expected tensors by name")
    if all(name.startswith("module.") for name in content):  # saved from a network on several devices
        content = {name.removeprefix("module."): value for name, value in content.items()}
    return content


def _blocks(prefix: str, resnet: ResNet) -> Iterator[tuple[int, int, str, bool]]:
    """Stage, block, our name of the block, and whether it has a convolution in its shortcut."""
    for s, stage in enumerate(resnet.stages):
        for b, block in enumerate(stage.children()):
            yield s, b, f"{prefix}.stages.{s}.{b}".lstrip("."), isinstance(block.shortcut, nn.Sequential)


def _torchvision_layers(prefix: str, resnet: ResNet) -> Iterator[_Layer]:
    stem = f"{prefix}.stem".lstrip(".")
    yield _Layer(f"{stem}.0", "conv1", f"{stem}.1", "bn1")
    for s, b, ours, shortcut in _blocks(prefix, resnet):
        theirs = f"layer{s + 1}.{b}"
        for place in range(3):
            yield _Layer(
                f"{ours}.path.{3 * place}",
                f"{theirs}.conv{place + 1}",
                f"{ours}.path.{3 * place + 1}",
                f"{theirs}.bn{place + 1}",
            )
        if shortcut:
            yield _Layer(f"{ours}.shortcut.0", f"{theirs}.downsample.0", f"{ours}.shortcut.1", f"{theirs}.downsample.1")


def _released_layers(network: nn.Module, prefix: str, resnet: ResNet) -> Iterator[_Layer]:
    stem = f"{prefix}.stem".lstrip(".")
    yield _Layer(f"{stem}.0", "conv1", f"{stem}.1", "bn_conv1")
    for s, b, ours, shortcut in _blocks(prefix, resnet):
        theirs = f"{s + 2}{chr(ord('a') + b)}_branch"
        for place, letter in enumerate("abc"):
            yield _Layer(
                f"{ours}.path.{3 * place}",
                f"res{theirs}2{letter}",
                f"{ours}.path.{3 * place + 1}",
                f"bn{theirs}2{letter}",
            )
        if shortcut:
            yield _Layer(f"{ours}.shortcut.0", f"res{theirs}1", f"{ours}.shortcut.1", f"bn{theirs}1")
    for at, part in network.named_modules():
        if isinstance(part, FcrnNet):
            yield from _expanding_layers(f"{at}." if at else "", len(part.up))


def _expanding_layers(at: str, count: int) -> Iterator[_Layer]:
    yield _Layer(f"{at}bridge.0", "layer1", f"{at}bridge.1", "layer1_BN")
    for place in range(count):
        ours, theirs = f"{at}up.{place}", f"layer{2 ** (place + 1)}x"
        for branch, unpool, norm in ((1, "unpool", "path.0"), (2, "unpool_beside", "norm_beside")):
            for letter, part in zip("ABCD", ("even_even", "odd_even", "even_odd", "odd_odd"), strict=True):
                last = letter == "D"  # the norm follows all four; it is named with the last
                yield _Layer(
                    f"{ours}.{unpool}.{part}",
                    f"{theirs}_br{branch}_Conv{letter}",
                    f"{ours}.{norm}" if last else None,
                    f"{theirs}_br{branch}_BN" if last else None,
                )
        yield _Layer(f"{ours}.path.2", f"{theirs}_Conv", f"{ours}.path.3", f"{theirs}_BN")
    yield _Layer(f"{at}head.1", "ConvPred")


def _matched(
    layers: list[_Layer], arrays: dict[str, Tensor], own: dict[str, Tensor], released: bool
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Our tensors by name with their new values, and what was left out of the file, with reasons."""
    between = "/" if released else "."
    found: dict[str, Tensor] = {}
    left_out: dict[str, str] = {}
    for layer in layers:
        weights = f"{layer.theirs}{between}{'weights' if released else 'weight'}"
        bias = f"{layer.theirs}{between}{'biases' if released else 'bias'}"
        norms = _norm_names(layer, released)
        if weights in arrays and (why := _misfit(arrays[weights], own[f"{layer.ours}.weight"])):
            left_out[weights] = why
            # its bias and its batch norm describe what that convolution gave, and nothing else
            left_out |= {name: f"belongs to {weights}" for name in (bias, *norms) if name in arrays}
            continue
        if weights in arrays:
            found[f"{layer.ours}.weight"] = arrays[weights]
        for theirs, ours in norms.items():
            if theirs in arrays:
                _take(theirs, arrays[theirs], ours, own, found, left_out)
        if released and f"{layer.norm}.running_var" in found:
            found[f"{layer.norm}.running_var"] = found[f"{layer.norm}.running_var"] + (EPSILON - 1e-5)
        if bias in arrays:
            mean = f"{layer.norm}.running_mean"
            if f"{layer.ours}.bias" in own:
                _take(bias, arrays[bias], f"{layer.ours}.bias", own, found, left_out)
            elif mean in found and arrays[bias].shape == found[mean].shape:
                found[mean] = found[mean] - arrays[bias]
            else:
                left_out[bias] = "the layer here has no bias, and no statistics of a batch norm that could take it"
    known = {name for layer in layers for name in _all_names(layer, released, between)}
    left_out |= {name: "no layer of this name here" for name in arrays if name not in known}
    return found, left_out


def _norm_names(layer: _Layer, released: bool) -> dict[str, str]:
    """Names of the batch norm's arrays in the file, and ours."""
    if layer.norm is None:
        return {}
    if released:
        return {f"{layer.their_norm}/{theirs}": f"{layer.norm}.{ours}" for theirs, ours in NORM.items()}
    return {f"{layer.their_norm}.{name}": f"{layer.norm}.{name}" for name in (*NORM.values(), COUNTER)}


def _all_names(layer: _Layer, released: bool, between: str) -> list[str]:
    own = ("weights", "biases") if released else ("weight", "bias")
    return [*(f"{layer.theirs}{between}{name}" for name in own), *_norm_names(layer, released)]


def _take(
    theirs: str, value: Tensor, ours: str, own: dict[str, Tensor], found: dict[str, Tensor], left_out: dict[str, str]
) -> None:
    if why := _misfit(value, own[ours]):
        left_out[theirs] = why
    else:
        found[ours] = value


def _misfit(theirs: Tensor, ours: Tensor) -> str | None:
    if theirs.shape == ours.shape:
        return None
    return f"is {_shape(theirs)} there and {_shape(ours)} here"


def _shape(values: Tensor) -> str:
    return "x".join(map(str, values.shape)) or "one number"
