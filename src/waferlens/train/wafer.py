"""What a run of the wafer station is made of: fields or indoor views as arrays, batches, a task, a figure of merit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning
import numpy as np
import torch
from jaxtyping import Float32, Int8, UInt8, UInt16
from torch import Tensor

from waferlens.bundle.wafer import MULTIPLE_PX, column_facts, product_facts
from waferlens.errors import InputError
from waferlens.formats.nyu import entries, read_views
from waferlens.load.nyu import Side, split
from waferlens.load.wafer import count_fields, manifest, read_fields
from waferlens.models import build_wafer
from waferlens.prepare.splits import WAFER_FRACTIONS, split_of
from waferlens.prepare.views import colours_on_grid, depths_on_grid
from waferlens.prepare.wafer_input import class_map, require_whole_field, shown
from waferlens.recipe.wafer import WaferRecipe
from waferlens.train.setup import Metric, Setup
from waferlens.train.wafer_task import HeightTask

SIDES: tuple[Literal["train"], Literal["validation"]] = ("train", "validation")
RUN_IN_LAGS = 3
"""Lags after which a reading has forgotten what lay before: 5 % are left."""
CLASS_FOLD = 4
"""Pixels along each side that share one class."""


@dataclass(frozen=True, slots=True, eq=False)
class FieldArrays:
    """Fields on the network's grid, filled up to a multiple of `MULTIPLE_PX` where the network takes any size."""

    image: UInt8[np.ndarray, "n c h w"] | UInt16[np.ndarray, "n c h w"]
    """White is the greatest number of the type."""
    truth: Float32[np.ndarray, "n h w"]
    """NaN where there is none [unit]"""
    kinds: Int8[np.ndarray, "n p q"]
    """Classes, -1 where there is none."""
    columns: Float32[np.ndarray, "n 4 w"]
    product: Float32[np.ndarray, "n 6"]
    dense: np.ndarray
    """Whether the dense truth of a field may be used."""
    size_px: tuple[int, int]
    """Rows and columns before they were filled up [px]"""
    pitch_um: float

    def __len__(self) -> int:
        return len(self.image)


def wafer_setup(recipe: WaferRecipe, data: Path) -> Setup:
    """Reads the data of a run and makes its task; the seed is the caller's.

    Raises:
        InputError: the data cannot be used.
        UsageError: the recipe asks for what the data does not have.
    """
    facts: dict[str, Any]
    if recipe.input.scene == "nyu":
        sides, facts = {side: view_arrays(recipe, data, side) for side in SIDES}, {"folder": data.name}
    else:
        told = manifest(data)
        sides = {side: field_arrays(recipe, data, side) for side in SIDES}
        facts = {"folder": data.name, "world": told["world"]["name"], "grid": told.get("grid")}
        facts |= {key: told.get(key) for key in ("world_sha256", "pixels_sha256", "seed")}
    facts |= {"images": sum(map(len, sides.values())), "left_out": 0}
    facts["validated_on"] = "dense" if np.isfinite(sides["validation"].truth).any() else "track"
    module = _Fields(recipe, sides)
    metric = Metric("mae_validation", "MAE", recipe.target.unit)
    steps = recipe.train.epochs * -(-len(sides["train"]) // recipe.train.batch)
    return Setup(
        task=lambda: HeightTask(build_wafer(recipe), recipe, steps, sides["train"].pitch_um),
        module=module,
        counts=(len(sides["train"]), len(sides["validation"])),
        facts=facts,
        problems=[],
        metric=metric,
    )


def field_arrays(recipe: WaferRecipe, data: Path, side: str) -> FieldArrays:
    """The fields of one side of the split, as the network sees them.

    Raises:
        InputError: no wafer falls into this side, or a dense truth is needed and not there.
        UsageError: the network takes whole fields, and would see these stretched.
    """
    spec = recipe.input

    def keep(wafer: str) -> bool:
        return split_of(wafer, WAFER_FRACTIONS) == side

    count = count_fields(data, keep)
    if count == 0:
        raise InputError(data, f"no wafer falls into the {side} split; simulate more fields")
    free = recipe.model.kind == "wafer-fast"  # it takes any size; the others take one
    fixed = None if free else (spec.height_px, spec.width_px)
    made: dict[str, np.ndarray] = {}
    size, pitch = (0, 0), 0.0
    for place, field in enumerate(read_fields(data, keep)):
        if spec.pitch_um is None:
            require_whole_field(field.name, field.image.shape, fixed)
        seen = shown(
            field.image, field.pitch_um, field.trace, network_pitch_um=spec.pitch_um, size_px=fixed,
            full_scale=field.white,
        )  # fmt: skip
        h, w = seen.image.shape
        if place == 0:
            size, pitch = (h, w), seen.pitch_um
            made = _empty(count, spec.channels, h, w, MULTIPLE_PX if free else 1)
        elif (h, w) != size:
            raise InputError(data, f"field {field.name} is {w}x{h} px, the first {size[1]}x{size[0]}; use one grid")
        rows, columns = made["image"].shape[2:]
        padding = ((0, rows - h), (0, columns - w))
        made["image"][place] = np.pad(np.rint(np.clip(seen.image, 0, 1) * 65535), padding, mode="edge")
        made["columns"][place] = column_facts(columns, seen.objective_z_um, seen.track_z_um, seen.direction)
        made["product"][place] = product_facts(field.product)
        made["dense"][place] = recipe.loss.supervision == "dense" or (
            recipe.loss.supervision == "mixed"
            and split_of(field.wafer, {"dense": 0.5, "track": 0.5}, "mixed") == "dense"
        )
        if field.height_um is not None:
            truth = shown(field.height_um, field.pitch_um, None, network_pitch_um=spec.pitch_um, size_px=fixed,
                          full_scale=1.0)  # fmt: skip
            made["truth"][place, :h, :w] = truth.image
        elif recipe.loss.supervision != "track":
            raise InputError(
                data, "tells no dense truth; set loss.supervision=track to learn from the auto-focus alone"
            )
        if field.dies is not None:
            fold = CLASS_FOLD
            kinds = class_map(field.dies, seen.pitch_um * fold, h // fold, w // fold)
            made["kinds"][place, : h // fold, : w // fold] = kinds
    return FieldArrays(**made, size_px=size, pitch_um=pitch)


def _empty(count: int, channels: int, h: int, w: int, multiple: int) -> dict[str, np.ndarray]:
    rows, columns = h + (-h) % multiple, w + (-w) % multiple
    return {
        "image": np.zeros((count, channels, rows, columns), np.uint16),
        "truth": np.full((count, rows, columns), np.nan, np.float32),
        "kinds": np.full((count, rows // CLASS_FOLD, columns // CLASS_FOLD), -1, np.int8),
        "columns": np.zeros((count, 4, columns), np.float32),
        "product": np.zeros((count, 6), np.float32),
        "dense": np.ones(count, bool),
    }


def view_arrays(recipe: WaferRecipe, data: Path, side: Side) -> FieldArrays:
    """The indoor views of one side of the split, scaled to the network's input; depth 0 was not measured.

    Raises:
        InputError: no view is on this side, or the folder holds none.
    """
    spec = recipe.input
    listed = split(entries(data), data)[side]
    if not listed:
        raise InputError(data, f"no view is on the {side} side; there are too few rooms to hold some back")
    count, h, w = len(listed), spec.height_px, spec.width_px
    made = _empty(count, spec.channels, h, w, 1)
    made["image"] = np.zeros((count, spec.channels, h, w), np.uint8)
    for place, view in enumerate(read_views(listed)):
        made["image"][place] = colours_on_grid(view.rgb, h, w, spec.channels)
        made["truth"][place] = depths_on_grid(view.depth_m, h, w)
    return FieldArrays(**made, size_px=(h, w), pitch_um=1.0)


class FieldBatches:
    """One epoch. A resumed run meets the same batches as one that was never interrupted."""

    def __init__(self, arrays: FieldArrays, recipe: WaferRecipe, epoch: int | None) -> None:
        self.arrays, self.recipe, self.epoch = arrays, recipe, epoch
        self.batch = min(recipe.train.batch, len(arrays))

    def __len__(self) -> int:
        return -(-len(self.arrays) // self.batch)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        spec = self.recipe.train
        rng = np.random.default_rng([spec.seed, self.epoch or 0])
        train = self.epoch is not None
        order = rng.permutation(len(self.arrays)) if train else np.arange(len(self.arrays))
        for step in range(len(self)):
            rows = order[step * self.batch : (step + 1) * self.batch]
            yield self._batch(rows, rng) if train else self._whole(rows)

    def _whole(self, rows: np.ndarray) -> dict[str, Tensor]:
        made = self.arrays
        h, w = made.size_px
        scale = self.recipe.target.full_scale
        white = np.iinfo(made.image.dtype).max
        seen = np.zeros((len(rows), 1, *made.image.shape[2:]), bool)
        seen[:, :, :h, :w] = True
        columns = made.columns[rows]
        track = np.where(columns[:, 3] != 0, columns[:, 2] / scale, np.nan)
        return {
            "image": torch.from_numpy(made.image[rows].astype(np.float32) * np.float32(1 / white)),
            "truth": torch.from_numpy(made.truth[rows][:, None].astype(np.float32) / np.float32(scale)),
            "kinds": torch.from_numpy(made.kinds[rows].astype(np.int64)),
            "columns": torch.from_numpy(columns),
            "product": torch.from_numpy(made.product[rows]),
            "dense": torch.from_numpy(made.dense[rows]),
            "track": torch.from_numpy(track.astype(np.float32)),
            "direction": torch.from_numpy(np.where((columns[:, 3] < 0).any(axis=1), -1.0, 1.0).astype(np.float32)),
            "seen": torch.from_numpy(seen),
        }

    def _batch(self, rows: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        spec, batch = self.recipe.train, self._whole(rows)
        if spec.crop_px is not None and spec.crop_px < batch["image"].shape[3]:
            # whole folded positions of the coarsest scale, so that the classes keep their places
            whole = batch["image"].shape[3]
            at = MULTIPLE_PX * int(rng.integers(0, (whole - spec.crop_px) // MULTIPLE_PX + 1))
            for name, fold in (("image", 1), ("truth", 1), ("seen", 1), ("columns", 1), ("track", 1),
                               ("kinds", CLASS_FOLD)):  # fmt: skip
                batch[name] = batch[name][..., at // fold : (at + spec.crop_px) // fold]
            self._forget_run_in(batch, cut=(at > 0, at + spec.crop_px < whole))
        if spec.augment.flip:
            if rng.random() < 0.5:  # up and down: the track does not care
                batch |= {name: batch[name].flip(-2) for name in ("image", "truth", "seen", "kinds")}
            if rng.random() < 0.5:  # the other way along the scan: the track lags to the other side
                names = ("image", "truth", "seen", "kinds", "columns", "track")
                batch |= {name: batch[name].flip(-1) for name in names}
                batch["direction"] = -batch["direction"]
                batch["columns"][:, 3] *= -1
        if spec.augment.gain:
            gain = 1 + spec.augment.gain * rng.uniform(-1, 1, (len(rows), 1, 1, 1))
            batch["image"] = batch["image"] * torch.from_numpy(gain.astype(np.float32))
        known = self.recipe.input.known
        hidden = rng.random((3, len(rows))) < spec.forget_known
        for place, name in enumerate(("objective", "track", "product")):
            gone = torch.from_numpy(hidden[place] | (name not in known)).float()
            if name == "product":
                batch["product"] = batch["product"] * (1 - gone[:, None])
            else:
                pair = slice(2 * place, 2 * place + 2)
                batch["columns"][:, pair] = batch["columns"][:, pair] * (1 - gone[:, None, None])
        return {name: part.contiguous() for name, part in batch.items()}

    def _forget_run_in(self, batch: dict[str, Tensor], cut: tuple[bool, bool]) -> None:
        """Takes the track off the columns whose reading still holds what lies beyond a cut.

        Args:
            batch: Is changed; its track is a view of no other array.
            cut: Whether the field goes on before the first column, and behind the last.
        """
        lag = self.recipe.loss.sensor.lag_um / self.arrays.pitch_um
        run_in = math.ceil(RUN_IN_LAGS * lag)
        track = batch["track"] = batch["track"].clone()
        along = batch["direction"] > 0
        if cut[0]:
            track[along, :run_in] = math.nan
        if cut[1]:
            track[~along, track.shape[1] - run_in :] = math.nan


class _Fields(lightning.LightningDataModule):
    """Thin: arrays in, one `FieldBatches` an epoch out."""

    def __init__(self, recipe: WaferRecipe, sides: dict[str, FieldArrays]) -> None:
        super().__init__()
        self.recipe, self.sides = recipe, sides

    def train_dataloader(self) -> FieldBatches:
        epoch = self.trainer.current_epoch if self.trainer else 0
        return FieldBatches(self.sides["train"], self.recipe, epoch)

    def val_dataloader(self) -> FieldBatches:
        return FieldBatches(self.sides["validation"], self.recipe, None)
