"""Weights that others trained, for the parts of our networks that have the same shape.

Three kinds of files are known: `NYU_ResNet-UpProj.npy` (FCRN as released by Laina et al., arrays `h w in out`), state
dicts of a ResNet in torchvision's names (.pth, .safetensors), and YOLOv5 or YOLOv7 as they are published, state dicts
or whole pickled modules (.pt; `foreign_pickle` reads them and runs nothing). What does not fit is left out and named
with its reason.

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
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from waferlens.errors import FormatError, InputError, UsageError
from waferlens.formats.weights_npy import MAGIC, read_weights_npy
from waferlens.models.detector import DetectorNet
from waferlens.models.fcrn import FcrnNet
from waferlens.models.foreign_match import COUNTER, Alone, Layer, matched
from waferlens.models.foreign_pickle import read_foreign_pickle, state_dict_of
from waferlens.models.foreign_yolo import yolo_layers, yolo_name
from waferlens.models.resnet import ResNet

ZIP = b"PK\x03\x04"
"""First bytes of what `torch.save` writes since version 1.6."""


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


def load_foreign(network: nn.Module, path: str | Path) -> Loaded:
    """Fills what fits of a network with the weights of a file. A network that nothing fits is left as it was.

    Args:
        network: Holds one `ResNet`, is or holds an `FcrnNet`, or is a YOLO of the package station.
        path: .npy in the layout of NYU_ResNet-UpProj, .pth or .safetensors of a ResNet, .pt or .safetensors of a YOLO.

    Raises:
        InputError: the file cannot be read, or nothing in it fits.
        FormatError: it is none of these, it is damaged, it holds NaN, or it is more than weights and was not run.
        UsageError: the network is none that weights of others fit.
    """
    path = Path(path)
    expected = _expected(network)
    arrays, released = _read(path)
    for name, array in arrays.items():
        if array.is_floating_point() and not torch.isfinite(array).all():
            raise FormatError(path, f"{name} holds NaN or infinite weights")
    layers, alone = _layers(network, released)
    own = dict(network.state_dict())
    found, left_out = matched(layers, arrays, own, released, alone)
    if not found:
        raise InputError(path, f"none of its {len(arrays)} arrays fits this network; expected weights of {expected}")
    with torch.no_grad():
        for name, value in found.items():
            own[name].copy_(value)
    taken = tuple(name for name in arrays if name not in left_out)
    fresh = tuple(name for name in own if name not in found and not name.endswith(COUNTER))
    return Loaded(taken, left_out, fresh)


def _expected(network: nn.Module) -> str:
    """What weights fit a network.

    Raises:
        UsageError: none do.
    """
    if isinstance(network, DetectorNet):
        return yolo_name(network)
    _encoder_of(network)
    return "a ResNet"


def _layers(network: nn.Module, released: bool) -> tuple[list[Layer], list[Alone]]:
    if isinstance(network, DetectorNet):
        return yolo_layers(network)
    prefix, resnet = _encoder_of(network)
    if released:
        return list(_released_layers(network, prefix, resnet)), []
    return list(_torchvision_layers(prefix, resnet)), []


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
    content = read_foreign_pickle(path) if first.startswith(ZIP) else _read_old(path)
    return _without_device(state_dict_of(content, path)), False


def _without_device(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as they are on one device."""
    if all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): value for name, value in state.items()}
    return state


def _as_torch(array: np.ndarray) -> Tensor:
    """Kernels `h w in out` as torch has them, `out in h w`."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array))


def _read_old(path: Path) -> Any:
    """What torch wrote before version 1.6: pickles in a row, which torch itself reads without running them."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as wrong:
        asked = re.search(r"GLOBAL (\S+)", str(wrong))  # torch's own advice is to run it after all
        what = f"its pickle asks for {asked[1]}" if asked else "not a file of weights alone"
        raise FormatError(path, f"{what}; it was not run") from wrong
    except Exception as wrong:  # a damaged archive fails with anything: passed on
        raise FormatError(path, f"not a file of weights: {type(wrong).__name__}: {wrong}") from wrong


def _blocks(prefix: str, resnet: ResNet) -> Iterator[tuple[int, int, str, bool]]:
    """Stage, block, our name of the block, and whether it has a convolution in its shortcut."""
    for s, stage in enumerate(resnet.stages):
        for b, block in enumerate(stage.children()):
            yield s, b, f"{prefix}.stages.{s}.{b}".lstrip("."), isinstance(block.shortcut, nn.Sequential)


def _torchvision_layers(prefix: str, resnet: ResNet) -> Iterator[Layer]:
    stem = f"{prefix}.stem".lstrip(".")
    yield Layer(f"{stem}.0", "conv1", f"{stem}.1", "bn1")
    for s, b, ours, shortcut in _blocks(prefix, resnet):
        theirs = f"layer{s + 1}.{b}"
        for place in range(3):
            yield Layer(
                f"{ours}.path.{3 * place}",
                f"{theirs}.conv{place + 1}",
                f"{ours}.path.{3 * place + 1}",
                f"{theirs}.bn{place + 1}",
            )
        if shortcut:
            yield Layer(f"{ours}.shortcut.0", f"{theirs}.downsample.0", f"{ours}.shortcut.1", f"{theirs}.downsample.1")


def _released_layers(network: nn.Module, prefix: str, resnet: ResNet) -> Iterator[Layer]:
    stem = f"{prefix}.stem".lstrip(".")
    yield Layer(f"{stem}.0", "conv1", f"{stem}.1", "bn_conv1")
    for s, b, ours, shortcut in _blocks(prefix, resnet):
        theirs = f"{s + 2}{chr(ord('a') + b)}_branch"
        for place, letter in enumerate("abc"):
            yield Layer(
                f"{ours}.path.{3 * place}",
                f"res{theirs}2{letter}",
                f"{ours}.path.{3 * place + 1}",
                f"bn{theirs}2{letter}",
            )
        if shortcut:
            yield Layer(f"{ours}.shortcut.0", f"res{theirs}1", f"{ours}.shortcut.1", f"bn{theirs}1")
    for at, part in network.named_modules():
        if isinstance(part, FcrnNet):
            yield from _expanding_layers(f"{at}." if at else "", len(part.up))


def _expanding_layers(at: str, count: int) -> Iterator[Layer]:
    yield Layer(f"{at}bridge.0", "layer1", f"{at}bridge.1", "layer1_BN")
    for place in range(count):
        ours, theirs = f"{at}up.{place}", f"layer{2 ** (place + 1)}x"
        for branch, unpool, norm in ((1, "unpool", "path.0"), (2, "unpool_beside", "norm_beside")):
            for letter, part in zip("ABCD", ("even_even", "odd_even", "even_odd", "odd_odd"), strict=True):
                last = letter == "D"  # the norm follows all four; it is named with the last
                yield Layer(
                    f"{ours}.{unpool}.{part}",
                    f"{theirs}_br{branch}_Conv{letter}",
                    f"{ours}.{norm}" if last else None,
                    f"{theirs}_br{branch}_BN" if last else None,
                )
        yield Layer(f"{ours}.path.2", f"{theirs}_Conv", f"{ours}.path.3", f"{theirs}_BN")
    yield Layer(f"{at}head.1", "ConvPred")
