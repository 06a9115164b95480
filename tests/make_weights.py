"""Small twins of the files of weights that others released, written from their published names and shapes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

BLOCKS, BASE, WIDE = (1, 2, 1, 1), 8, 32
"""Blocks of each stage and channels of the stem of a small ResNet, and of a bottleneck on it."""
Layers = dict[str, dict[str, np.ndarray]]


def released_layers() -> Layers:
    """A small twin of NYU_ResNet-UpProj.npy, written from the published layer names and shapes."""
    rng = np.random.default_rng(3)
    layers: Layers = {}

    def convolution(name: str, h: int, w: int, i: int, o: int, biased: bool = False) -> None:
        layers[name] = {"weights": rng.normal(0, 0.1, (h, w, i, o)).astype("f4")}
        if biased:
            layers[name]["biases"] = rng.normal(0, 0.1, o).astype("f4")

    def norm(name: str, c: int) -> None:
        layers[name] = {key: rng.uniform(0.5, 1.5, c).astype("f4") for key in ("scale", "offset", "mean", "variance")}

    convolution("conv1", 7, 7, 3, BASE, biased=True)
    norm("bn_conv1", BASE)
    inputs = BASE
    for s, blocks in enumerate(BLOCKS):
        width = BASE * 2**s
        for b in range(blocks):
            at = f"{s + 2}{'abc'[b]}_branch"
            if b == 0:
                convolution(f"res{at}1", 1, 1, inputs, 4 * width)
                norm(f"bn{at}1", 4 * width)
            for letter, side, i, o in (("a", 1, inputs, width), ("b", 3, width, width), ("c", 1, width, 4 * width)):
                convolution(f"res{at}2{letter}", side, side, i, o)
                norm(f"bn{at}2{letter}", o)
            inputs = 4 * width
    convolution("layer1", 1, 1, inputs, WIDE, biased=True)
    norm("layer1_BN", WIDE)
    for place in range(4):
        at, i, o = f"layer{2 ** (place + 1)}x", WIDE // 2**place, WIDE // 2 ** (place + 1)
        for branch in ("_br1", "_br2"):
            for letter, h, w in (("A", 3, 3), ("B", 2, 3), ("C", 3, 2), ("D", 2, 2)):
                convolution(f"{at}{branch}_Conv{letter}", h, w, i, o, biased=True)
            norm(f"{at}{branch}_BN", o)
        convolution(f"{at}_Conv", 3, 3, o, o, biased=True)
        norm(f"{at}_BN", o)
    convolution("ConvPred", 3, 3, WIDE // 16, 1, biased=True)
    return layers


def saved(path: Path, content: Any, protocol: int | None = None) -> Path:
    wrapped = np.empty((), dtype=object)
    wrapped[()] = content
    if protocol is None:
        np.save(path, wrapped, allow_pickle=True)
    else:
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
            pickle.dump(wrapped, file, protocol=protocol)
    return path


def torchvision_state() -> dict[str, torch.Tensor]:
    """A small ResNet's state dict in torchvision's names."""
    generator = torch.Generator().manual_seed(4)
    state: dict[str, torch.Tensor] = {}

    def convolution(name: str, o: int, i: int, side: int) -> None:
        spread = (2 / (i * side**2)) ** 0.5  # keeps the signal's size, as trained weights do
        state[f"{name}.weight"] = spread * torch.randn(o, i, side, side, generator=generator)

    def norm(name: str, c: int) -> None:
        for key in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{key}"] = 0.5 + torch.rand(c, generator=generator)
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    convolution("conv1", BASE, 3, 7)
    norm("bn1", BASE)
    inputs = BASE
    for s, blocks in enumerate(BLOCKS):
        width = BASE * 2**s
        for b in range(blocks):
            for place, (o, i, side) in enumerate(((width, inputs, 1), (width, width, 3), (4 * width, width, 1)), 1):
                convolution(f"layer{s + 1}.{b}.conv{place}", o, i, side)
                norm(f"layer{s + 1}.{b}.bn{place}", o)
            if b == 0:
                convolution(f"layer{s + 1}.{b}.downsample.0", 4 * width, inputs, 1)
                norm(f"layer{s + 1}.{b}.downsample.1", 4 * width)
            inputs = 4 * width
    state["fc.weight"], state["fc.bias"] = torch.randn(10, inputs), torch.randn(10)
    return state
