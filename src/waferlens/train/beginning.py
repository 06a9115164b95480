"""What a run begins with instead of fresh weights: a finished run of ours, or weights that others trained."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from waferlens.errors import InputError, UsageError
from waferlens.models.foreign_weights import load_foreign
from waferlens.train.setup import Metric, Task, Trainable

WEIGHTS = "weights.safetensors"
"""The best weights, in the folder of a finished run."""


def begin_with(task: Task, recipe: Trainable, metric: Metric, start: Path) -> dict[str, Any]:
    """Loads the weights of a finished run, and tells what that run was.

    Raises:
        InputError: the folder holds no finished run.
        UsageError: its network is another.
    """
    if not (start / WEIGHTS).exists():
        raise InputError(start, f"holds no finished training run (no {WEIGHTS})")
    card = json.loads((start / "runcard.json").read_text())
    ours, theirs = (_network_of(told) for told in (recipe.model_dump(mode="json"), card["recipe"]))
    different = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if different:
        raise UsageError(f"{start}: its network differs in {', '.join(different)}")
    task.network.load_state_dict(load_file(start / WEIGHTS))
    told = {key: card["results"][key] for key in ("epochs", metric.name, "cpu_seconds")}
    return {"recipe": card["recipe"]["name"], "data": card["data"], **told}


def fill_with(task: Task, path: Path, log: logging.Logger) -> dict[str, Any]:
    """Fills what fits with weights of others, and tells what was taken and what was left out.

    Raises:
        InputError: the file cannot be read, nothing in it fits, or a part that does not learn stays as it was drawn.
        FormatError: it is damaged, or more than weights.
        UsageError: the network has no part that weights of others fit.
    """
    loaded = load_foreign(task.network, path)
    log.info("weights of %s: %s", path.name, loaded)
    kept = {name for name, weight in task.network.named_parameters() if not weight.requires_grad}
    drawn = [name for name in loaded.fresh if name in kept]
    if drawn:
        why = next(iter(loaded.left_out.items()), None)
        said = f" ({why[0]} {why[1]})" if why else ""
        raise InputError(
            path,
            f"leaves {len(drawn)} tensors of the frozen encoder as they were drawn, {drawn[0]} first{said}; "
            "take weights of the same shape, or set model.encoder.frozen=false",
        )
    return {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "taken": len(loaded.taken),
        "left_out": loaded.left_out,
        "fresh": list(loaded.fresh),
    }


def _network_of(recipe: dict[str, Any]) -> dict[str, Any]:
    """Of a recipe as plain data, what decides whether weights fit and mean the same, by dotted name."""
    parts = {f"model.{key}": value for key, value in recipe["model"].items()}
    if recipe["station"] == "package":
        parts.pop("model.anchors", None)  # they come with the weights
        parts |= {"target.classes": recipe["target"]["classes"], "input.channels": recipe["input"]["channels"]}
    if recipe["station"] == "wafer":
        parts |= {f"target.{key}": value for key, value in recipe["target"].items()}
        parts |= {f"input.{key}": recipe["input"].get(key) for key in ("channels", "pitch_um")}
        parts["input.normalise"] = recipe["input"].get("normalise", "half")  # runs of before it was a setting
        if recipe["model"]["kind"] != "wafer-fast":
            parts |= {f"input.{key}": recipe["input"][key] for key in ("height_px", "width_px")}
    return parts
