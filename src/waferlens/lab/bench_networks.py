"""What `bench` times: the network of a bundle, of a recipe with fresh weights, or of any ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from waferlens.bundle.files import open_bundle, shipped
from waferlens.bundle.wafer import MULTIPLE_PX
from waferlens.errors import FormatError, InputError, UsageError
from waferlens.extras import require
from waferlens.recipe import Recipe, load_recipe, recipe_names
from waferlens.recipe.hole import HoleRecipe
from waferlens.recipe.package import PackageRecipe
from waferlens.recipe.wafer import WaferRecipe

IMAGES = ("grey", "image")
"""Names of the inputs that are images; whatever else a network takes is told beside them."""
FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
"""Types of inputs that can be filled."""


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a graph; a side that may have any length is None."""

    name: str
    sides: tuple[int | None, ...]
    kind: type[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """One network, in the forms that engines take."""

    name: str
    source: str
    """`bundle`, `recipe` for one with fresh weights (as fast as a trained one), or `file`."""
    model: bytes = field(repr=False)
    """As an ONNX model, batch norms folded, decoding of its outputs inside."""
    module: Callable[..., Any] | None = field(repr=False)
    """The same in torch; None where only the graph is known."""
    inputs: tuple[Input, ...]
    height_px: int
    """Rows of the image it is timed on [px]"""
    width_px: int
    """Columns [px]"""
    parameters_fused: int | None
    """As exported; None where it is not told."""
    gflops: float | None
    """Of one image as exported; None where it is not told."""

    def fed(self, batch: int) -> dict[str, np.ndarray]:
        """Something for each input, the same at every call: noise for images, zeros for what is told beside them.

        Args:
            batch: Images.

        Raises:
            UsageError: the graph takes another number of images.
        """
        rng = np.random.default_rng(0)
        made = {}
        for one in self.inputs:
            if one.sides[0] not in (None, batch):
                raise UsageError(f"{self.name} takes {one.sides[0]} images at a time; set --batch {one.sides[0]}")
            if len(one.sides) == 4:
                white = 255.0 if one.name in IMAGES and self.source != "file" else 1.0
                shape = (batch, one.sides[1] or 1, self.height_px, self.width_px)
                made[one.name] = rng.uniform(0, white, shape).astype(one.kind)
            else:  # what a line knows beside the image: of each column, or of the whole
                rest = [self.width_px if side is None else side for side in one.sides[1:]]
                made[one.name] = np.zeros((batch, *rest), one.kind)
        return made


def open_networks(names: Sequence[str], size_px: tuple[int, int] | None = None) -> list[Network]:
    """The networks of bundles, recipes and ONNX files.

    Args:
        names: Bundles (paths or shipped names), recipes (shipped names or YAML files), or files `.onnx`; a recipe needs
            the extra `train` to be built.
        size_px: Rows and columns of the image for all of them; None takes each at its own size. A shipped bundle of
            another size is built from the recipe of its name [px]

    Raises:
        UsageError: a name is none of these, is named twice, has no network, or takes no images of that size.
    """
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise UsageError(f"{twice[0]} is named twice; name each network once")
    return [_open(name, size_px) for name in names]


def _open(name: str, size_px: tuple[int, int] | None) -> Network:
    path = Path(name)
    if path.suffix == ".onnx":
        return _of_file(path, size_px)
    if path.suffix in (".yaml", ".yml"):
        return _of_recipe(name, size_px)
    if name in shipped() or path.exists():
        if size_px is not None and name in recipe_names() and not _takes(name, size_px):
            return _of_recipe(name, size_px)  # the same network at another size; fresh weights are as fast
        return _of_bundle(name, size_px)
    if name not in recipe_names():
        known = ", ".join([*shipped(), *recipe_names()])
        raise UsageError(f"{name}: neither a bundle nor a recipe, nor a file .onnx; known: {known}")
    return _of_recipe(name, size_px)


def _takes(name: str, size_px: tuple[int, int]) -> bool:
    """Whether the graph of a bundle takes images of a size."""
    bundle = open_bundle(name)
    images = [one.sides[2:] for one in _inputs(bundle.model, bundle.path) if len(one.sides) == 4]
    return all(own in (None, asked) for own, asked in zip(images[0] if images else size_px, size_px, strict=True))


def _of_bundle(name: str, size_px: tuple[int, int] | None) -> Network:
    bundle = open_bundle(name)
    told = bundle.runcard.get("results", {}).get("network", {})
    own = bundle.recipe["input"]
    inputs = _inputs(bundle.model, bundle.path)
    h, w = _size(name, inputs, (own["height_px"], own["width_px"]), size_px)
    at_own_size = (h, w) == (own["height_px"], own["width_px"])
    gflops = told.get("gflops") if at_own_size else None
    return Network(name, "bundle", bundle.model, None, inputs, h, w, told.get("parameters_fused"), gflops)


def _of_recipe(name: str, size_px: tuple[int, int] | None) -> Network:
    recipe = load_recipe(name)
    if size_px is not None:
        size = [f"input.height_px={size_px[0]}", f"input.width_px={size_px[1]}"]
        if isinstance(recipe, PackageRecipe) and getattr(recipe.train, "crop_px", None) is not None:
            size.append("train.crop_px=null")  # nothing is trained here, and the window may not fit
        recipe = load_recipe(name, size)
    if not isinstance(recipe, HoleRecipe | WaferRecipe | PackageRecipe):
        raise UsageError(f"{name}: recipes of station {recipe.station} have no network to time")
    require("train", "torch")
    from waferlens.models import describe

    told = describe(recipe)
    model, module = _built(recipe)
    inputs = _inputs(model, Path(name))
    h, w = _size(name, inputs, (recipe.input.height_px, recipe.input.width_px), None)
    return Network(name, "recipe", model, module, inputs, h, w, told["parameters_fused"], told["gflops"])


def _of_file(path: Path, size_px: tuple[int, int] | None) -> Network:
    try:
        model = path.read_bytes()
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror}") from wrong
    inputs = _inputs(model, path)
    h, w = _size(str(path), inputs, None, size_px)
    return Network(str(path), "file", model, None, inputs, h, w, None, None)


def _built(recipe: Recipe) -> tuple[bytes, Callable[..., Any]]:
    """A recipe's network with fresh weights, as a graph and in torch."""
    from waferlens.models import build, build_detector, build_wafer, fuse

    if isinstance(recipe, PackageRecipe):
        from waferlens.export.package import detector_graph
        from waferlens.models.detector import ExportedDetector

        detector = build_detector(recipe).eval()
        return detector_graph(detector, recipe), ExportedDetector(fuse(detector)).eval()  # type: ignore[arg-type]
    if isinstance(recipe, WaferRecipe):
        from waferlens.export.wafer import wafer_graph

        heights = build_wafer(recipe).eval()
        return wafer_graph(heights, recipe), fuse(heights)
    from waferlens.export.onnx import to_onnx

    assert isinstance(recipe, HoleRecipe)
    depths = build(recipe).eval()
    return to_onnx(depths, recipe.input.height_px, recipe.input.width_px), fuse(depths)


def _inputs(model: bytes, path: Path) -> tuple[Input, ...]:
    """What a graph takes.

    Raises:
        FormatError: it is no graph, or takes something else than floating numbers.
    """
    try:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    except Exception as wrong:  # onnxruntime raises classes of its own, without a common base
        raise FormatError(path, f"cannot be loaded as an ONNX model: {str(wrong).splitlines()[0]}") from wrong
    found = []
    for one in session.get_inputs():
        if one.type not in FLOATS:
            raise FormatError(path, f"takes {one.name} as {one.type}; networks are timed on {' or '.join(FLOATS)}")
        sides = tuple(side if isinstance(side, int) else None for side in one.shape)
        found.append(Input(one.name, sides, FLOATS[one.type]))
    return tuple(found)


def _size(
    name: str, inputs: Sequence[Input], own_px: tuple[int, int] | None, asked_px: tuple[int, int] | None
) -> tuple[int, int]:
    """Rows and columns to time on: as the graph fixes them, else as asked, else its own, filled up as inspection does.

    Raises:
        UsageError: there is no image, the graph fixes another size than asked, or nobody says one.
    """
    images: Mapping[str, Input] = {one.name: one for one in inputs if len(one.sides) == 4}
    if not images:
        raise UsageError(f"{name} takes no image `b c h w`; it cannot be timed here")
    h, w = next(iter(images.values())).sides[2:]
    if h is not None and w is not None:
        if asked_px not in (None, (h, w)):
            raise UsageError(
                f"{name} takes images of {h}x{w} only; name the recipe it was made from, or --input {h}x{w}"
            )
        return h, w
    chosen = asked_px or own_px
    if chosen is None:
        raise UsageError(f"{name} takes images of any size; say one with --input ROWSxCOLUMNS")
    return (chosen[0] + -chosen[0] % MULTIPLE_PX, chosen[1] + -chosen[1] % MULTIPLE_PX)
