"""Speed of networks, side by side in one run: absolute times of another day on another machine compare with nothing."""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime

from waferlens.bundle.files import Bundle, open_bundle, shipped, write_bundle
from waferlens.bundle.wafer import MULTIPLE_PX
from waferlens.errors import UsageError
from waferlens.extras import require
from waferlens.recipe import as_yaml, load_recipe, recipe_names
from waferlens.recipe.hole import HoleRecipe
from waferlens.recipe.wafer import WaferRecipe

TURN = 8
"""Batches a network runs before the next one has its turn."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One network at one batch size."""

    name: str
    source: str
    """`bundle`, or `recipe` for a network with fresh weights (as fast as a trained one)."""
    batch: int
    images_per_s: float
    """At the fastest round."""
    milliseconds: float
    """A batch, at the fastest round [ms]"""
    median_milliseconds: float
    """A batch, at the median round [ms]"""


def bench(
    names: Sequence[str], batches: Sequence[int] = (1, 16), threads: int = 2, seconds: float = 2.0
) -> list[Timing]:
    """Times the networks of bundles and recipes in ONNX Runtime, taking turns so that all meet the same disturbance.

    Args:
        names: Bundles (paths or shipped names) or recipes; a recipe needs the extra `train` to be built.
        batches: Batch sizes.
        threads: Threads of ONNX Runtime.
        seconds: Time given to each network at each batch size [s]

    Raises:
        UsageError: a name is neither a bundle nor a recipe.
    """
    with tempfile.TemporaryDirectory() as folder:
        opened = [(name, *_open(name, Path(folder))) for name in names]
        sessions = [(name, source, _session(bundle, threads), _shape(bundle)) for name, bundle, source in opened]
        timings = []
        for batch in batches:
            rounds: dict[str, list[float]] = {name: [] for name, *_ in sessions}
            runs = [(name, session, _fed(session, batch, shape)) for name, _, session, shape in sessions]
            for _, session, fed in runs:
                session.run(None, fed)
            end = time.perf_counter() + seconds * len(runs)
            while time.perf_counter() < end or len(rounds[runs[-1][0]]) < 3:
                for name, session, fed in runs:
                    # The first of a turn is left out: threads of the network before still spin on the cores.
                    rounds[name] += [_timed(session, fed) for _ in range(TURN)][1:]
            timings += [
                Timing(
                    name,
                    source,
                    batch,
                    batch / min(rounds[name]),
                    1e3 * min(rounds[name]),
                    1e3 * statistics.median(rounds[name]),
                )
                for name, source, *_ in sessions
            ]
    return timings


def machine() -> dict[str, object]:
    """What the times were measured on."""
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "onnxruntime": version("onnxruntime"),
        "numpy": version("numpy"),
    }


def _timed(session: onnxruntime.InferenceSession, fed: dict[str, np.ndarray]) -> float:
    started = time.perf_counter()
    session.run(None, fed)
    return time.perf_counter() - started


def _fed(session: onnxruntime.InferenceSession, batch: int, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Something for each input; what takes any size is given the size of the recipe, filled up as inspection does."""
    rng = np.random.default_rng(0)
    h, w = shape
    fed = {}
    for one in session.get_inputs():
        sides = one.shape
        if one.name in ("grey", "image"):
            free = not isinstance(sides[3], int)
            rows, columns = (h + (-h) % MULTIPLE_PX, w + (-w) % MULTIPLE_PX) if free else sides[2:]
            white = 255.0 if one.name == "grey" else 1.0
            fed[one.name] = rng.uniform(0, white, (batch, sides[1], rows, columns)).astype(np.float32)
            w = columns
        else:  # what a line knows beside the image: of each column, or of the whole
            known = (batch, *sides[1:]) if isinstance(sides[-1], int) else (batch, *sides[1:-1], w)
            fed[one.name] = np.zeros(known, np.float32)
    return fed


def _session(bundle: Bundle, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(bundle.model, options, providers=["CPUExecutionProvider"])


def _shape(bundle: Bundle) -> tuple[int, int]:
    told = bundle.recipe["input"]
    return told["height_px"], told["width_px"]


def _open(name: str, folder: Path) -> tuple[Bundle, str]:
    """A bundle as it is, or a recipe's network with fresh weights."""
    if name in shipped() or Path(name).exists():
        return open_bundle(name), "bundle"
    if name not in recipe_names():
        known = ", ".join([*shipped(), *recipe_names()])
        raise UsageError(f"{name}: neither a bundle nor a recipe; known: {known}")
    recipe = load_recipe(name)
    if not isinstance(recipe, HoleRecipe | WaferRecipe):
        raise UsageError(f"{name}: recipes of station {recipe.station} have no network to time here")
    require("train", "torch")
    if isinstance(recipe, WaferRecipe):
        from waferlens.export.wafer import wafer_graph
        from waferlens.models import build_wafer, fuse

        model = wafer_graph(fuse(build_wafer(recipe).eval()), recipe)  # type: ignore[arg-type]
    else:
        from waferlens.export.onnx import to_onnx
        from waferlens.models import build

        model = to_onnx(build(recipe), recipe.input.height_px, recipe.input.width_px)
    parts = {"model.onnx": model, "recipe.yaml": as_yaml(recipe), "runcard.json": {}}
    return write_bundle(folder / name, parts), "recipe"
