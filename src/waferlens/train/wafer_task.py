"""A training step of the wafer station: heights, their spread and classes of pixels, from dense truth or the track."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from waferlens.models.height import HeightNet
from waferlens.recipe.wafer import WaferRecipe
from waferlens.train.muon import Muon
from waferlens.train.tasks import TimedTask, rate_schedule
from waferlens.train.wafer_losses import track_error, wafer_loss


class HeightTask(TimedTask):
    """Learns height maps.

    Args:
        network: The network of the recipe.
        recipe: The recipe; its `loss`, `target` and `train` sections are read.
        steps: Optimisation steps of the whole run, for the schedule.
        pitch_um: Of the network's columns [um]
    """

    def __init__(self, network: HeightNet, recipe: WaferRecipe, steps: int, pitch_um: float) -> None:
        if recipe.train.channels_last:
            network = network.to(memory_format=torch.channels_last)
        super().__init__(network, recipe)
        self.steps, self.pitch_um = steps, pitch_um
        self._errors = self._pixels = self._track_errors = self._columns = 0.0

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        told = self.network.scaled(*self.inputs(batch))
        loss, terms = wafer_loss(self.recipe.loss, told, batch, self.recipe.target.full_scale, self.pitch_um)
        self.log_dict({"loss": loss.detach(), **terms}, on_step=False, on_epoch=True, batch_size=len(batch["image"]))
        return loss

    def inputs(self, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """What the network takes of a batch."""
        image = batch["image"]
        if self.recipe.train.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        return (image, batch["columns"], batch["product"]) if self.network.facts else (image,)

    def on_validation_epoch_start(self) -> None:
        self._errors = self._pixels = self._track_errors = self._columns = 0.0

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        with torch.autocast(batch["image"].device.type, enabled=False):  # as it will be exported
            height = self.network.scaled(*self.inputs(batch))[0]
        where = torch.isfinite(batch["truth"])
        if self.recipe.loss.mask_zero:
            where &= batch["truth"] > 0
        self._errors += float((height - batch["truth"])[where].double().abs().sum())
        self._pixels += int(where.sum())
        if self.recipe.loss.supervision != "dense" and not self._pixels:
            scale = self.recipe.target.full_scale
            error = track_error(self.recipe.loss.sensor, height, batch, scale, self.pitch_um)
            self._track_errors += float(error.double().sum())
            self._columns += error.numel()

    def on_validation_epoch_end(self) -> None:
        """The error of the heights; where no truth is told, that of what the sensor would have read."""
        errors, count = (self._errors, self._pixels) if self._pixels else (self._track_errors, self._columns)
        self.log("mae_validation", self.recipe.target.full_scale * errors / max(1, count))

    def configure_optimizers(self) -> Any:
        spec = self.recipe.train
        trained = [weight for weight in self.network.parameters() if weight.requires_grad]
        optimizer: torch.optim.Optimizer
        match spec.optimizer:
            case "muon":
                optimizer = Muon(self.network, spec.lr, spec.muon_lr, weight_decay=spec.weight_decay)
            case "sgd":
                optimizer = torch.optim.SGD(trained, spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay)
            case _:
                optimizer = torch.optim.AdamW(trained, lr=spec.lr, weight_decay=spec.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_schedule(spec, self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
