"""Which arrays of a file fill which tensors of ours, and why the others do not.

Layers are matched by name and shape. A batch norm belongs to the convolution in front of it: where that was left out,
so is the norm, for it describes what that convolution gave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

EPSILON = 1e-4
"""What stands beside the variance in the batch norms of the released FCRN."""
NORM = {"scale": "weight", "offset": "bias", "mean": "running_mean", "variance": "running_var"}
"""Names of the released arrays of a batch norm, and torch's."""
COUNTER = "num_batches_tracked"
"""How many batches a batch norm has seen: torch keeps it, evaluation does not need it."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution under its foreign name, and the batch norm that follows it directly, if one does."""

    ours: str
    theirs: str
    norm: str | None = None
    their_norm: str | None = None


@dataclass(frozen=True, slots=True)
class Alone:
    """A tensor beside a convolution, under its foreign name; it means nothing without that convolution."""

    ours: str
    theirs: str
    beside: str
    """The convolution's weights in the file."""
    factor: Tensor | None = None
    """What it is multiplied by: theirs may have another unit."""


def matched(
    layers: Sequence[Layer],
    arrays: dict[str, Tensor],
    own: dict[str, Tensor],
    released: bool = False,
    alone: Sequence[Alone] = (),
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Our tensors by name with their new values, and what was left out of the file, with reasons.

    Args:
        layers: Convolutions with their norms.
        arrays: Of the file, by name.
        own: Tensors of the network, by name.
        released: Whether names are those of the released FCRN; else torch's.
        alone: Tensors beside them.
    """
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
    for single in alone:
        if single.theirs not in arrays:
            continue
        if single.beside in left_out or single.beside not in arrays:
            left_out[single.theirs] = f"belongs to {single.beside}"
            continue
        value = arrays[single.theirs]
        if not _take(single.theirs, value, single.ours, own, found, left_out) or single.factor is None:
            continue
        found[single.ours] = value.float() * single.factor
    known = {name for layer in layers for name in _all_names(layer, released, between)}
    known |= {single.theirs for single in alone}
    left_out |= {name: "no layer of this name here" for name in arrays if name not in known}
    return found, left_out


def _norm_names(layer: Layer, released: bool) -> dict[str, str]:
    """Names of the batch norm's arrays in the file, and ours."""
    if layer.norm is None:
        return {}
    if released:
        return {f"{layer.their_norm}/{theirs}": f"{layer.norm}.{ours}" for theirs, ours in NORM.items()}
    return {f"{layer.their_norm}.{name}": f"{layer.norm}.{name}" for name in (*NORM.values(), COUNTER)}


def _all_names(layer: Layer, released: bool, between: str) -> list[str]:
    own = ("weights", "biases") if released else ("weight", "bias")
    return [*(f"{layer.theirs}{between}{name}" for name in own), *_norm_names(layer, released)]


def _take(
    theirs: str, value: Tensor, ours: str, own: dict[str, Tensor], found: dict[str, Tensor], left_out: dict[str, str]
) -> bool:
    """Whether it fits; either way it is noted."""
    if why := _misfit(value, own[ours]):
        left_out[theirs] = why
        return False
    found[ours] = value
    return True


def _misfit(theirs: Tensor, ours: Tensor) -> str | None:
    if theirs.shape == ours.shape:
        return None
    return f"is {_shape(theirs)} there and {_shape(ours)} here"


def _shape(values: Tensor) -> str:
    return "x".join(map(str, values.shape)) or "one number"
