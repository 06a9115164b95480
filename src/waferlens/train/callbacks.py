"""What is done beside every run: the learning curves are written, the CPU budget is watched, and so is the loss."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from waferlens.errors import UsageError
from waferlens.train.setup import Metric, Task


class Curves(Callback):
    """Learning curves as a table, one row an epoch; a resumed run goes on with it."""

    def __init__(self, path: Path, metric: Metric) -> None:
        self.path, self.metric = path, metric

    def on_train_epoch_end(self, trainer: lightning.Trainer, task: Task) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1):  # they are an earlier epoch's
            values |= dict.fromkeys((self.metric.name, *self.metric.beside), float("nan"))
        row = {
            "epoch": trainer.current_epoch,
            self.metric.name: values.pop(self.metric.name, float("nan")),
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
        judged = {epoch: float(row[self.metric.name]) for epoch, row in zip(epochs, rows, strict=True)}
        judged = {epoch: value for epoch, value in judged.items() if math.isfinite(value)}
        left.plot(list(judged), list(judged.values()), "o-", color="#1f5fa8", ms=3)
        right.plot(epochs, [float(row["loss"]) for row in rows], color="#b0b0b0")
        left.set(xlabel="epoch", ylabel=f"validation {self.metric.label} [{self.metric.unit}]", yscale="log")
        right.set(ylabel="training loss", yscale="symlog")
        figure.savefig(path, dpi=120)
        pyplot.close(figure)


class CpuBudget(Callback):
    """Ends a run at the end of the epoch that passes its CPU time, or of the next one that is validated."""

    def __init__(self, minutes: float) -> None:
        self.seconds = 60 * minutes
        self.spent = False

    def on_train_epoch_end(self, trainer: lightning.Trainer, task: Task) -> None:
        if (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1):
            return  # its weights are not judged, and could not be kept
        if task.cpu_seconds > self.seconds and trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            self.spent = True
            trainer.should_stop = True


class LossIsNumber(Callback):
    """Ends a run at the step whose loss is no number: no later one is better, and hours would be spent on nothing."""

    def on_train_batch_end(self, trainer: lightning.Trainer, task: Task, outputs: Any, batch: Any, index: int) -> None:
        """Looks at what the step returned; steps that optimise by themselves may return nothing.

        Raises:
            UsageError: the loss is not finite.
        """
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, torch.Tensor) and not torch.isfinite(loss):
            raise UsageError(
                f"the loss is {float(loss)} at step {index + 1} of epoch {trainer.current_epoch + 1}: lower train.lr "
                "(with muon also train.muon_lr), set train.gradient_clip, or try train.precision=f32; the run's folder "
                "holds the last whole epoch"
            )
