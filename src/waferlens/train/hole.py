"""What a run of the hole station is made of: arrays out of the challenge's layout, a task, a figure of merit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

from waferlens.errors import InputError, UsageError
from waferlens.formats import challenge
from waferlens.load.challenge import SimArrays, load_sim, scan
from waferlens.models import build, build_discriminator
from waferlens.prepare.splits import split_all, split_of
from waferlens.recipe.hole import HoleRecipe, Pix2Pix
from waferlens.train.batches import Batches
from waferlens.train.setup import Metric, Setup
from waferlens.train.tasks import DepthTask, Pix2PixTask

RMSE = Metric("rmse_validation", "RMSE", "grey")
EVALUATION_BATCH = 256


def hole_setup(recipe: HoleRecipe, data: Path) -> Setup:
    """Reads the data of a run and makes its task; the seed is the caller's.

    Raises:
        InputError: the data cannot be used.
        UsageError: the images are of another size than the recipe's.
    """
    arrays = load_sim(scan(data), keep=lambda hole: split_of(hole.structure) in {"train", "validation"})
    _require_size(recipe, arrays, data)
    sides = split_all(arrays.structure)
    for side in ("train", "validation"):
        if not (sides == side).any():
            raise InputError(data, f"no structure falls into the {side} split; simulate more structures")
    module = _Data(recipe, arrays, sides)
    return Setup(
        task=lambda: _task(recipe, module),
        module=module,
        counts=module.counts(),
        facts=_facts(data, arrays),
        problems=[str(problem) for problem in arrays.problems],
        metric=RMSE,
    )


def _facts(data: Path, arrays: SimArrays) -> dict[str, Any]:
    """What the run card says of the data."""
    manifest = challenge.manifest_path(data)
    facts: dict[str, Any] = {"folder": data.name, "images": len(arrays.sem), "left_out": len(arrays.problems)}
    if manifest.exists():
        told = json.loads(manifest.read_text())
        facts |= {key: told.get(key) for key in ("world_sha256", "pixels_sha256", "seed", "structures")}
        facts["world"] = told["world"]["name"]
    return facts


class _Data(lightning.LightningDataModule):
    """Thin: arrays in, one `Batches` an epoch out."""

    def __init__(self, recipe: HoleRecipe, arrays: SimArrays, sides: np.ndarray) -> None:
        super().__init__()
        self.recipe, self.arrays = recipe, arrays
        self.train_rows = np.flatnonzero(sides == "train")
        self.validation_rows = np.flatnonzero(sides == "validation")
        self._train = (arrays.sem[self.train_rows], arrays.depth[self.train_rows])
        self._validation = (arrays.sem[self.validation_rows], arrays.depth[self.validation_rows])

    def counts(self) -> tuple[int, int]:
        return len(self.train_rows), len(self.validation_rows)

    def train_dataloader(self) -> Batches:
        spec, epoch = self.recipe.train, self.trainer.current_epoch if self.trainer else 0
        return Batches(*self._train, spec.batch, spec.augment, spec.seed, epoch)

    def val_dataloader(self) -> Batches:
        return Batches(*self._validation, EVALUATION_BATCH)


def _task(recipe: HoleRecipe, module: _Data) -> DepthTask:
    network = build(recipe)
    if recipe.train.channels_last:
        network = network.to(memory_format=torch.channels_last)
    steps = recipe.train.epochs * len(Batches(*module._train, recipe.train.batch, recipe.train.augment))
    if isinstance(recipe.model, Pix2Pix):
        return Pix2PixTask(network, build_discriminator(recipe), recipe, steps)
    return DepthTask(network, recipe, steps)


def _require_size(recipe: HoleRecipe, arrays: SimArrays, data: Path) -> None:
    """Refuses images that the exported network would not take."""
    h, w = arrays.sem.shape[1:]
    if (h, w) != (recipe.input.height_px, recipe.input.width_px):
        raise UsageError(
            f"{data}: holds images of {w}x{h} px (width x height), recipe {recipe.name} is for "
            f"{recipe.input.width_px}x{recipe.input.height_px} px; set input.width_px={w} input.height_px={h}"
        )
