"""What a training step is: regression, or regression against a discriminator (pix2pix)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import lightning
import torch
from torch import Tensor

from waferlens.models import DepthNet, PatchGAN
from waferlens.models.depth import GREY_MEAN, GREY_SCALE
from waferlens.recipe.hole import HoleRecipe
from waferlens.recipe.sections import Train
from waferlens.train.losses import HALF_SCALE, adversarial, supervised
from waferlens.train.muon import Muon

NORM_BATCHES = 64
"""Batches from which frozen batch norms take their statistics."""


def rate_schedule(spec: Train, steps: int) -> Callable[[int], float]:
    """Share of the greatest learning rate at each step: a rise over the warm-up, then the course of the recipe."""
    warmup = max(1, round(spec.warmup_fraction * steps))

    def share(step: int) -> float:
        if step < warmup and spec.schedule != "constant":
            start = 0.04 if spec.schedule == "onecycle" else 0.0
            rise = (step + 1) / warmup
            return start + (1 - start) * 0.5 * (1 - math.cos(math.pi * rise))
        if spec.schedule == "constant":
            return 1.0
        done = min(1.0, (step - warmup) / max(1, steps - warmup))
        return 0.5 * (1 + math.cos(math.pi * done))

    return share


def take_statistics(
    network: torch.nn.Module, norms: Sequence[torch.nn.BatchNorm2d], inputs: Iterable[tuple[Tensor, ...]]
) -> None:
    """Gives batch norms the statistics of these inputs under the present weights.

    Running statistics lag behind weights that still move; frozen as they are, they would be those of another network.

    Source: Y. Wu, J. Johnson, "Rethinking 'batch' in batch norm" (arXiv:2105.07576), section 3.
    """
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # the plain mean over the batches
        module.train()
    with torch.no_grad():
        for one in inputs:
            network(*one)
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum


class TimedTask(lightning.LightningModule):
    """What every task shares: its CPU time through interruptions, and batch norms frozen before the end.

    Args:
        network: The network of the recipe.
        recipe: The recipe; its `train` section is read.
    """

    def __init__(self, network: torch.nn.Module, recipe: Any) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe
        self._cpu_before = 0.0
        self._clock = time.process_time()

    def inputs(self, batch: Any) -> tuple[Tensor, ...]:
        """What the network takes of a batch."""
        raise TypeError(f"{type(self).__name__} does not say what its network takes")

    @property
    def saved(self) -> str:
        """What the names of the weights that a run keeps begin with."""
        return "network."

    @property
    def cpu_seconds(self) -> float:
        """CPU time of this run so far, that of interrupted parts included [s]."""
        return self._cpu_before + time.process_time() - self._clock

    def on_train_epoch_start(self) -> None:
        spec = self.recipe.train
        frozen = round(spec.freeze_norm_fraction * spec.epochs)
        if self.current_epoch < frozen:
            return
        norms = [
            module
            for module in self.network.modules()
            if isinstance(module, torch.nn.BatchNorm2d)
            and module.weight.requires_grad  # a frozen encoder keeps its own
        ]
        if self.current_epoch == frozen and norms and frozen > 0:
            # a resumed run comes here as well, with the same weights and the same batches
            batches = islice(self.trainer.datamodule.train_dataloader(), NORM_BATCHES)
            there = (self.transfer_batch_to_device(batch, self.device, 0) for batch in batches)
            take_statistics(self.network, norms, (self.inputs(batch) for batch in there))
        for module in norms:
            module.eval()

    def on_fit_start(self) -> None:
        self._clock = time.process_time()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["cpu_seconds"] = self.cpu_seconds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._cpu_before = checkpoint["cpu_seconds"]


class DepthTask(TimedTask):
    """Learns a depth map from pairs.

    Args:
        network: The network of the recipe.
        recipe: The recipe; its `loss` and `train` sections are read.
        steps: Optimisation steps of the whole run, for the schedule.
    """

    def __init__(self, network: DepthNet, recipe: HoleRecipe, steps: int) -> None:
        super().__init__(network, recipe)
        self.steps = steps
        self._squares = self._pixels = 0.0

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        grey, truth = self._laid_out(batch)
        depth, *sigma = self.network(grey)
        loss, terms = supervised(self.recipe.loss, depth, sigma[0] if sigma else None, truth)
        self.log_dict({"loss": loss.detach(), **terms}, on_step=False, on_epoch=True)
        return loss

    def _laid_out(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        grey, truth = batch
        if self.recipe.train.channels_last:
            grey = grey.contiguous(memory_format=torch.channels_last)
        return grey, truth

    def inputs(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """The image of a batch."""
        return (self._laid_out(batch)[0],)

    def on_validation_epoch_start(self) -> None:
        self._squares = self._pixels = 0.0

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        grey, truth = self._laid_out(batch)
        # Validated in float32, as it will be exported.
        with torch.autocast(grey.device.type, enabled=False):
            depth = self.network(grey)[0]
        self._squares += float((depth - truth).double().square().sum())
        self._pixels += truth.numel()

    def on_validation_epoch_end(self) -> None:
        self.log("rmse_validation", math.sqrt(self._squares / self._pixels))

    def configure_optimizers(self) -> Any:
        spec = self.recipe.train
        optimizer: torch.optim.Optimizer
        if spec.optimizer == "muon":
            optimizer = Muon(self.network, spec.lr, spec.muon_lr, weight_decay=spec.weight_decay)
        else:
            optimizer = torch.optim.AdamW(self.network.parameters(), lr=spec.lr, weight_decay=spec.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_schedule(spec, self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Pix2PixTask(DepthTask):
    """Learns a depth map from pairs and from a discriminator that tells true pairs from generated ones.

    Args:
        network: The generator.
        discriminator: Judges patches of (image, depth map).
        recipe: The recipe.
        steps: Steps of the whole run.

    Source: Isola et al., CVPR 2017; the sum of terms and the discriminator's interval after S1.
    """

    def __init__(self, network: DepthNet, discriminator: PatchGAN, recipe: HoleRecipe, steps: int) -> None:
        super().__init__(network, recipe, steps)
        self.discriminator = discriminator
        self.automatic_optimization = False

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        loss, gan = self.recipe.loss, self.recipe.loss.gan
        grey, truth = self._laid_out(batch)
        image = (grey - GREY_MEAN) / GREY_SCALE
        generator_step, discriminator_step = self.optimizers()

        depth = self.network(grey)[0]
        fooled = adversarial(gan, self.discriminator(image, depth / HALF_SCALE - 1.0), real=True)
        compared, terms = supervised(loss, depth, None, truth)
        total = compared + loss.gan_weight * fooled
        generator_step.zero_grad()
        self.manual_backward(total)
        if self.recipe.train.gradient_clip is not None:
            self.clip_gradients(generator_step, self.recipe.train.gradient_clip, "norm")
        generator_step.step()
        logged = {"loss": total.detach(), "gan": fooled.detach(), **terms}

        if index % loss.discriminator_interval == 0:
            told_fake = adversarial(gan, self.discriminator(image, depth.detach() / HALF_SCALE - 1.0), real=False)
            told_real = adversarial(gan, self.discriminator(image, truth / HALF_SCALE - 1.0), real=True)
            judged = 0.5 * (told_fake + told_real)
            discriminator_step.zero_grad()
            self.manual_backward(judged)
            discriminator_step.step()
            self.log("discriminator", judged.detach(), on_step=False, on_epoch=True)
        for schedule in self.lr_schedulers():
            schedule.step()
        self.log_dict(logged, on_step=False, on_epoch=True)

    def configure_optimizers(self) -> Any:
        spec = self.recipe.train
        optimizers = [
            torch.optim.Adam(part.parameters(), lr=spec.lr, betas=(0.5, 0.999), weight_decay=spec.weight_decay)
            for part in (self.network, self.discriminator)
        ]
        share = rate_schedule(spec, self.steps)
        return optimizers, [torch.optim.lr_scheduler.LambdaLR(optimizer, share) for optimizer in optimizers]
