"""One training run: a folder that explains itself, can be resumed, and can be made again."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import platform
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from safetensors.torch import save_file

from waferlens import __version__
from waferlens.errors import RecipeError, UsageError
from waferlens.models import describe
from waferlens.recipe import PackageRecipe, WaferRecipe, as_yaml, load_recipe
from waferlens.recipe.hole import Pix2Pix
from waferlens.records import RunCard
from waferlens.train.beginning import WEIGHTS, begin_with, fill_with
from waferlens.train.callbacks import CpuBudget, Curves, LossIsNumber
from waferlens.train.memory import keep_freed_memory
from waferlens.train.setup import Metric, Setup, Trainable

LAST = "last.ckpt"
CURVES = "metrics.csv"
DATA = "data.json"
"""Where the data lies on this machine; stays in the run, never enters a bundle."""
BEGUN = ("started_from", "weights")
DEVICES = "devices"
"""What it was trained on, in `DATA` and in the run card: a run may go on elsewhere."""
"""What a run began with, in `DATA` while it runs, in the run card when it has ended."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run came to."""

    run: str
    epochs: int
    metric: Metric
    validation: float
    """The metric of the best epoch, in its unit."""
    cpu_seconds: float
    stopped: str
    """Why it ended: `epochs`, `budget` or `patience`."""
    notes: tuple[str, ...] = ()
    """What was done otherwise than the recipe says, and why."""

    @property
    def reached(self) -> str:
        """The metric in words."""
        return f"{self.metric.label} {self.validation:.3f} {self.metric.unit}"

    def as_json(self) -> dict[str, Any]:
        """The result as plain data, the metric under its own name."""
        return {
            "run": self.run,
            "epochs": self.epochs,
            self.metric.name: self.validation,
            "cpu_seconds": self.cpu_seconds,
            "stopped": self.stopped,
            "notes": list(self.notes),
        }


def train(
    recipe: Trainable,
    data: Path,
    out: Path,
    *,
    start: Path | None = None,
    weights: Path | None = None,
    threads: int | None = None,
    workers: int = 0,
    quiet: bool = True,
) -> Trained:
    """Trains the network of a recipe, or goes on where a run was interrupted.

    Args:
        recipe: The recipe.
        data: Folder with truth, as the recipe's station has it; split by structure, wafer or device.
        out: The run's folder. If it holds an interrupted run of the same recipe, that run goes on from its last epoch.
        start: A finished run whose weights it begins with, such as one on simulated data before the user's own; its
            network must be the same. None begins with fresh weights.
        weights: A file of weights that others trained, for the parts that have the same shape; see
            `models.foreign_weights`. What is left out of it stands in the log and in the run card.
        threads: CPU threads; the losses of a resumed run are the same only with the same number. None for torch's own.
        workers: Processes that make the batches of a detector ahead of the steps; the batches are the same with any
            number. 0 makes them between the steps.
        quiet: Draw no progress bar.

    Raises:
        InputError: the data cannot be used, `start` holds no finished run, or `weights` nothing that fits, or not all
            of an encoder that stays frozen.
        FormatError: `weights` is damaged, or more than weights.
        UsageError: the folder holds a run of another recipe, or a finished one; the data or `start` are of another
            size or network than the recipe's; a frozen encoder would stay as it was drawn; the loss becomes no number.
    """
    _require_a_beginning(recipe, start, weights, out)
    started, wall = time.strftime("%Y-%m-%dT%H:%M:%S%z"), time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    resolved = as_yaml(recipe)
    _same_run(out, resolved)
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    log = _log(out)
    made = _setup(recipe, data, workers)
    metric = made.metric
    log.info("%d images to train on, %d to validate, from %s", *made.counts, data)
    for problem in made.problems:
        log.warning("left out: %s", problem)

    lightning.seed_everything(recipe.train.seed, workers=False, verbose=False)
    task = made.task()
    resume = out / LAST
    if resume.exists():  # its weights come from the checkpoint, whatever `start` and `weights` say now
        known = json.loads((out / DATA).read_text())
        begun, devices = {key: value for key, value in known.items() if key in BEGUN}, known.get(DEVICES, [])
    else:
        begun, devices = {}, []
        if start is not None:
            begun["started_from"] = begin_with(task, recipe, metric, start)
        if weights is not None:
            begun["weights"] = fill_with(task, weights, log)
    curves = Curves(out / CURVES, metric)
    devices = [*devices, {"device": _device(), "from_epoch": len(curves.read()) if devices else 0}]
    (out / DATA).write_text(json.dumps({"folder": str(data.resolve()), **begun, DEVICES: devices}) + "\n")
    best = ModelCheckpoint(out, filename="best", monitor=metric.name, enable_version_counter=False)
    last = ModelCheckpoint(out, filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
    budget = CpuBudget(recipe.train.budget_cpu_minutes)
    callbacks: list[Callback] = [curves, best, last, budget, LossIsNumber()]
    if recipe.train.early_stop_patience is not None:
        callbacks.append(EarlyStopping(metric.name, patience=recipe.train.early_stop_patience))
    with warnings.catch_warnings():
        # Lightning advises worker processes and log intervals; the data is in memory and the log is our own.
        warnings.filterwarnings("ignore", module="lightning")
        precision, fallback = _precision(recipe)
        if fallback:
            log.warning(fallback)
        trainer = _trainer(recipe, out, callbacks, quiet, precision)
        # weights_only: a checkpoint of a run folder may come from anywhere
        trainer.fit(task, made.module, ckpt_path=resume if resume.exists() else None, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    stopped = _why(trainer, budget)
    learned = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
    prefix = task.saved
    save_file(
        {name.removeprefix(prefix): value.contiguous() for name, value in learned.items() if name.startswith(prefix)},
        out / WEIGHTS,
    )
    result = Trained(
        str(out),
        trainer.current_epoch,
        metric,
        float(best.best_model_score),
        round(task.cpu_seconds, 1),
        stopped,
        (fallback,) if fallback else (),
    )
    card = _card(recipe, made.facts, result, started, time.perf_counter() - wall, precision)
    card.results.update({**begun, DEVICES: devices})
    (out / "runcard.json").write_text(json.dumps(asdict(card), indent=2) + "\n")
    curves.draw(out / "curves.png")
    log.info("ended (%s) after %d epochs: %s on validation", stopped, result.epochs, result.reached)
    return result


def _setup(recipe: Trainable, data: Path, workers: int) -> Setup:
    """Data and task of the recipe's station."""
    if workers and not isinstance(recipe, PackageRecipe):
        raise UsageError(
            f"{recipe.name}: its batches take less time than handing them over would; --workers is for detectors"
        )
    if isinstance(recipe, WaferRecipe):
        from waferlens.train.wafer import wafer_setup  # only where spoken: the stations do not need each other

        return wafer_setup(recipe, data)
    if isinstance(recipe, PackageRecipe):
        from waferlens.train.package import package_setup

        return package_setup(recipe, data, workers)
    from waferlens.train.hole import hole_setup

    return hole_setup(recipe, data)


def _precision(recipe: Trainable) -> tuple[Literal["bf16-mixed", "32-true"], str]:
    """The recipe's arithmetic, or float32 where this machine would only imitate bfloat16, many times slower.

    Returns:
        The arithmetic, and why it is not the recipe's; empty where it is.
    """
    if recipe.train.precision == "f32":
        return "32-true", ""
    if torch.cuda.is_available() or torch.backends.mps.is_available() or torch.cpu._is_avx512_bf16_supported():
        return "bf16-mixed", ""
    return "32-true", (
        "train.precision=bf16, but this processor does not compute in bfloat16 (no AVX512-BF16): trains in float32, "
        "which is faster here"
    )


def _trainer(
    recipe: Trainable, out: Path, callbacks: list[Callback], quiet: bool, precision: Literal["bf16-mixed", "32-true"]
) -> lightning.Trainer:
    spec = recipe.train
    manual = isinstance(recipe.model, Pix2Pix)
    return lightning.Trainer(
        max_epochs=spec.epochs,
        devices=1,  # batches are made for one
        check_val_every_n_epoch=spec.validate_every,
        precision=precision,
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
    if (out / LAST).exists() and path.exists() and not _reads_as(path, resolved):
        raise UsageError(
            f"{out}: holds an interrupted run of another recipe ({path}); name another --out, or give the same recipe"
        )
    path.write_text(resolved)


def _reads_as(path: Path, resolved: str) -> bool:
    """Whether a recipe is this one: word for word, or, written before a setting was there, with that at its default."""
    try:
        return path.read_text() == resolved or as_yaml(load_recipe(str(path))) == resolved
    except RecipeError:
        return False


def _require_a_beginning(recipe: Trainable, start: Path | None, weights: Path | None, out: Path) -> None:
    """Refuses two beginnings, and none for what is not going to learn."""
    if start is not None and weights is not None:
        raise UsageError("--from and --weights are two beginnings; name one")
    encoder = getattr(recipe.model, "encoder", None)
    begins = start is not None or weights is not None or (out / LAST).exists()
    if encoder is not None and encoder.frozen and not begins:
        raise UsageError(
            f"{recipe.name} keeps its encoder frozen, and fresh weights are of no use there: name a file of weights of "
            "a ResNet with --weights, or let it learn with model.encoder.frozen=false"
        )


def _why(trainer: lightning.Trainer, budget: CpuBudget) -> str:
    if budget.spent:
        return "budget"
    return "epochs" if trainer.current_epoch >= (trainer.max_epochs or 0) else "patience"


def _card(
    recipe: Trainable,
    facts: dict[str, Any],
    result: Trained,
    started: str,
    seconds: float,
    precision: str,
) -> RunCard:
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
        results={**result.as_json(), "run": Path(result.run).name, "network": describe(recipe)},
        machine={
            "cpu_threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "precision": "f32" if precision == "32-true" else "bf16",
        },
        started=started,
        seconds=round(seconds, 1),
    )


def _device() -> str:
    """What networks are trained on here, as lightning chooses."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


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
