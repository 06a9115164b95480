"""One training run: a folder that explains itself, can be resumed, and can be made again."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import logging
import os
import platform
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from safetensors.torch import load_file, save_file

from waferlens import __version__
from waferlens.errors import InputError, UsageError
from waferlens.formats import challenge
from waferlens.load.challenge import SimArrays, load_sim, scan
from waferlens.models import build, build_discriminator, describe
from waferlens.prepare.splits import split_all, split_of
from waferlens.recipe import as_yaml
from waferlens.recipe.hole import HoleRecipe, Pix2Pix
from waferlens.records import RunCard
from waferlens.train.batches import Batches
from waferlens.train.tasks import DepthTask, Pix2PixTask

WEIGHTS = "weights.safetensors"
LAST = "last.ckpt"
CURVES = "metrics.csv"
DATA = "data.json"
"""Where the data lies on this machine; stays in the run, never enters a bundle."""
EVALUATION_BATCH = 256


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run came to."""

    run: str
    epochs: int
    rmse_validation: float
    """[grey]"""
    cpu_seconds: float
    stopped: str
    """Why it ended: `epochs`, `budget` or `patience`."""


def train(
    recipe: HoleRecipe,
    data: Path,
    out: Path,
    *,
    start: Path | None = None,
    threads: int | None = None,
    quiet: bool = True,
) -> Trained:
    """Trains the network of a recipe, or goes on where a run was interrupted.

    Args:
        recipe: The recipe.
        data: Folder in the challenge's layout with depth maps; split by structure.
        out: The run's folder. If it holds an interrupted run of the same recipe, that run goes on from its last epoch.
        start: A finished run whose weights it begins with, such as one on simulated data before the user's own; its
            network must be the same. None begins with fresh weights.
        threads: CPU threads; the losses of a resumed run are the same only with the same number. None for torch's own.
        quiet: Draw no progress bar.

    Raises:
        InputError: the data cannot be used, or `start` holds no finished run.
        UsageError: the folder holds a run of another recipe, or a finished one; the data or `start` are of another
            size or network than the recipe's.
    """
    started, wall = time.strftime("%Y-%m-%dT%H:%M:%S%z"), time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    resolved = as_yaml(recipe)
    _same_run(out, resolved)
    if threads is not None:
        torch.set_num_threads(threads)
    log = _log(out)
    arrays = load_sim(scan(data), keep=lambda hole: split_of(hole.structure) in {"train", "validation"})
    _require_size(recipe, arrays, data)
    sides = split_all(arrays.structure)
    for side in ("train", "validation"):
        if not (sides == side).any():
            raise InputError(data, f"no structure falls into the {side} split; simulate more structures")
    module = _Data(recipe, arrays, sides)
    log.info("%d images to train on, %d to validate, from %s", *module.counts(), data)
    for problem in arrays.problems:
        log.warning("left out: %s", problem)

    lightning.seed_everything(recipe.train.seed, workers=False, verbose=False)
    task = _task(recipe, module)
    resume = out / LAST
    if resume.exists():  # its weights come from the checkpoint, whatever `start` says now
        before = json.loads((out / DATA).read_text()).get("started_from")
    else:
        before = None if start is None else _begin_with(task, recipe, start)
    (out / DATA).write_text(json.dumps({"folder": str(data.resolve()), "started_from": before}) + "\n")
    best = ModelCheckpoint(out, filename="best", monitor="rmse_validation", enable_version_counter=False)
    last = ModelCheckpoint(out, filename="last", enable_version_counter=False)
    curves = Curves(out / CURVES)
    budget = CpuBudget(recipe.train.budget_cpu_minutes)
    callbacks: list[Callback] = [curves, best, last, budget]
    if recipe.train.early_stop_patience is not None:
        callbacks.append(EarlyStopping("rmse_validation", patience=recipe.train.early_stop_patience))
    with warnings.catch_warnings():
        # Lightning advises worker processes and log intervals; the data is in memory and the log is our own.
        warnings.filterwarnings("ignore", module="lightning")
        trainer = _trainer(recipe, out, callbacks, quiet)
        # weights_only: a checkpoint of a run folder may come from anywhere
        trainer.fit(task, module, ckpt_path=resume if resume.exists() else None, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    stopped = _why(trainer, budget)
    weights = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
    prefix = "network."
    save_file(
        {name.removeprefix(prefix): value.contiguous() for name, value in weights.items() if name.startswith(prefix)},
        out / WEIGHTS,
    )
    result = Trained(str(out), trainer.current_epoch, float(best.best_model_score), round(task.cpu_seconds, 1), stopped)
    card = _card(recipe, data, arrays, result, started, time.perf_counter() - wall)
    if before is not None:
        card.results["started_from"] = before
    (out / "runcard.json").write_text(json.dumps(asdict(card), indent=2) + "\n")
    curves.draw(out / "curves.png")
    log.info("ended (%s) after %d epochs: rmse %.3f grey on validation", stopped, result.epochs, result.rmse_validation)
    return result


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


class Curves(Callback):
    """Learning curves as a table, one row an epoch; a resumed run goes on with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: lightning.Trainer, task: DepthTask) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {
            "epoch": trainer.current_epoch,
            "rmse_validation": values.pop("rmse_validation", float("nan")),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "cpu_seconds": round(task.cpu_seconds, 2),
            **dict(sorted(values.items())),
        }
        known = self.read()
        rows = [line for line in known if int(line["epoch"]) < trainer.current_epoch]
        rows.append({name: repr(value) for name, value in row.items()})
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, row.keys(), lineterminator="\n", extrasaction="ignore", restval="")
            writer.writeheader()
            writer.writerows(rows)

    def read(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def draw(self, path: Path) -> None:
        """Draws validation error and training loss over the epochs."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        rows = self.read()
        epochs = [int(row["epoch"]) + 1 for row in rows]
        figure, left = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
        right = left.twinx()
        left.plot(epochs, [float(row["rmse_validation"]) for row in rows], "o-", color="#1f5fa8", ms=3)
        right.plot(epochs, [float(row["loss"]) for row in rows], color="#b0b0b0")
        left.set(xlabel="epoch", ylabel="validation RMSE [grey]", yscale="log")
        right.set(ylabel="training loss", yscale="symlog")
        figure.savefig(path, dpi=120)
        pyplot.close(figure)


class CpuBudget(Callback):
    """Ends a run at the end of the epoch that passes its CPU time."""

    def __init__(self, minutes: float) -> None:
        self.seconds = 60 * minutes
        self.spent = False

    def on_train_epoch_end(self, trainer: lightning.Trainer, task: DepthTask) -> None:
        if task.cpu_seconds > self.seconds and trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            self.spent = True
            trainer.should_stop = True


def _task(recipe: HoleRecipe, module: _Data) -> DepthTask:
    network = build(recipe)
    if recipe.train.channels_last:
        network = network.to(memory_format=torch.channels_last)
    steps = recipe.train.epochs * len(Batches(*module._train, recipe.train.batch, recipe.train.augment))
    if isinstance(recipe.model, Pix2Pix):
        return Pix2PixTask(network, build_discriminator(recipe), recipe, steps)
    return DepthTask(network, recipe, steps)


def _begin_with(task: DepthTask, recipe: HoleRecipe, start: Path) -> dict[str, Any]:
    """Loads the weights of a finished run, and tells what that run was."""
    if not (start / WEIGHTS).exists():
        raise InputError(start, f"holds no finished training run (no {WEIGHTS})")
    card = json.loads((start / "runcard.json").read_text())
    ours, theirs = recipe.model.model_dump(mode="json"), card["recipe"]["model"]
    if ours != theirs:
        different = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
        raise UsageError(f"{start}: its network differs in {', '.join(f'model.{key}' for key in different)}")
    task.network.load_state_dict(load_file(start / WEIGHTS))
    told = {key: card["results"][key] for key in ("epochs", "rmse_validation", "cpu_seconds")}
    return {"recipe": card["recipe"]["name"], "data": card["data"], **told}


def _trainer(recipe: HoleRecipe, out: Path, callbacks: list[Callback], quiet: bool) -> lightning.Trainer:
    spec = recipe.train
    manual = isinstance(recipe.model, Pix2Pix)
    return lightning.Trainer(
        max_epochs=spec.epochs,
        precision="bf16-mixed" if spec.precision == "bf16" else "32-true",
        gradient_clip_val=None if manual else spec.gradient_clip,
        callbacks=callbacks,
        logger=False,
        default_root_dir=out,
        reload_dataloaders_every_n_epochs=1,
        enable_progress_bar=not quiet,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def _same_run(out: Path, resolved: str) -> None:
    """A folder belongs to one recipe: refuses another one, and a run that is done."""
    path = out / "recipe.yaml"
    if (out / WEIGHTS).exists():
        raise UsageError(f"{out}: holds a finished run; name another --out, or remove this one first")
    if (out / LAST).exists() and path.exists() and path.read_text() != resolved:
        raise UsageError(
            f"{out}: holds an interrupted run of another recipe ({path}); name another --out, or give the same recipe"
        )
    path.write_text(resolved)


def _require_size(recipe: HoleRecipe, arrays: SimArrays, data: Path) -> None:
    """Refuses images that the exported network would not take."""
    h, w = arrays.sem.shape[1:]
    if (h, w) != (recipe.input.height_px, recipe.input.width_px):
        raise UsageError(
            f"{data}: holds images of {w}x{h} px (width x height), recipe {recipe.name} is for "
            f"{recipe.input.width_px}x{recipe.input.height_px} px; set input.width_px={w} input.height_px={h}"
        )


def _why(trainer: lightning.Trainer, budget: CpuBudget) -> str:
    if budget.spent:
        return "budget"
    return "epochs" if trainer.current_epoch >= (trainer.max_epochs or 0) else "patience"


def _card(recipe: HoleRecipe, data: Path, arrays: SimArrays, result: Trained, started: str, seconds: float) -> RunCard:
    manifest = challenge.manifest_path(data)
    facts: dict[str, Any] = {"folder": data.name, "images": len(arrays.sem), "left_out": len(arrays.problems)}
    if manifest.exists():
        told = json.loads(manifest.read_text())
        facts |= {key: told.get(key) for key in ("world_sha256", "pixels_sha256", "seed", "structures")}
        facts["world"] = told["world"]["name"]
    return RunCard(
        kind="train",
        recipe=recipe.model_dump(mode="json"),
        seeds={"train": recipe.train.seed},
        versions={
            "waferlens": __version__,
            **{name: importlib.metadata.version(name) for name in ("torch", "lightning", "numpy")},
            "python": platform.python_version(),
        },
        data=facts,
        sources=[recipe.source, *recipe.builds_on],
        results={**asdict(result), "run": Path(result.run).name, "network": describe(recipe)},
        machine={"cpu_threads": torch.get_num_threads(), "cores": os.cpu_count(), "machine": platform.machine()},
        started=started,
        seconds=round(seconds, 1),
    )


def _log(out: Path) -> logging.Logger:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    log = logging.getLogger("waferlens.train")
    log.setLevel(logging.INFO)
    for old in list(log.handlers):
        log.removeHandler(old)
        old.close()
    handler = logging.FileHandler(out / "log.txt")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    return log
