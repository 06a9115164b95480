"""A finished run, as every station's export begins with it, and what an export comes to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waferlens.errors import InputError, UsageError
from waferlens.recipe import load_recipe
from waferlens.train import DATA, WEIGHTS
from waferlens.train.setup import Trainable


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export came to."""

    bundle: str
    fingerprint: str
    bytes: int
    parity: dict[str, Any]
    calibrated_on: int
    """Images."""


def load_run(run: Path, data: Path | None) -> tuple[Trainable, Path, dict[str, Any]]:
    """The recipe of a run folder, the folder to calibrate on, and the run card.

    Args:
        run: The run's folder.
        data: Folder to calibrate on; the one it was trained on if None.

    Raises:
        InputError: the folder holds no finished run.
        UsageError: the data it was trained on is not here, and none was named.
    """
    if not (run / WEIGHTS).exists():
        hint = "the run was interrupted: the same train command finishes it" if (run / "last.ckpt").exists() else ""
        raise InputError(run, f"holds no finished training run (no {WEIGHTS}){'; ' + hint if hint else ''}")
    recipe = load_recipe(run / "recipe.yaml")
    if not isinstance(recipe, Trainable):
        raise InputError(run, f"recipe {recipe.name} is of station {recipe.station}, which trains no network")
    return recipe, data if data is not None else _data_of(run), json.loads((run / "runcard.json").read_text())


def begun_lines(results: dict[str, Any]) -> list[str]:
    """What a run began with and its accelerators, as lines of a bundle's card; none for fresh weights on a CPU.

    Args:
        results: Of the run card.
    """
    lines = []
    if before := results.get("started_from"):
        minutes = before["cpu_seconds"] / 60
        lines.append(f"- begun with: {before['recipe']}, {before['epochs']} epochs in {minutes:.1f} CPU-minutes")
    if weights := results.get("weights"):
        lines.append(
            f"- begun with: weights of others, {weights['file']} (sha256 {weights['sha256'][:12]}…), of which "
            f"{weights['taken']} arrays were taken and {len(weights['left_out'])} left out"
        )
    devices = results.get("devices", [])
    if any(one["device"] != "cpu" for one in devices):
        told = ", ".join(f"{one['device']} from epoch {one['from_epoch'] + 1} on" for one in devices)
        lines.append(f"- computed on: {told}")
    return lines


def _data_of(run: Path) -> Path:
    told = json.loads((run / DATA).read_text())["folder"] if (run / DATA).exists() else None
    if told is None or not Path(told).is_dir():
        raise UsageError(
            f"{run}: the folder it was trained on ({told or 'not told'}) is not here; "
            "name one to calibrate on: --data DIR"
        )
    return Path(told)
