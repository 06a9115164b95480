"""A training step of the package station: boxes, classes and masks, and a running mean of the weights beside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from waferlens.evaluate.average_precision import SIZES_PX2, joined_found, joined_truth, match
from waferlens.models.anchor_head import AnchorHead
from waferlens.models.detector import DetectorNet, Told
from waferlens.ops.nms import suppressed
from waferlens.recipe.package import PackageRecipe
from waferlens.train.average import copy_of, follow, take
from waferlens.train.detection_assign import Truth
from waferlens.train.detection_losses import anchored_loss, free_loss
from waferlens.train.muon import Muon
from waferlens.train.tasks import TimedTask, rate_schedule

FIRST_MOMENTUM = 0.8
"""Momentum of sgd at the first step."""
LEAST_SCORE = 0.001
"""Scores from which boxes count for the average precision."""
SECOND = 1e-6
"""Weight of what is missing of mAP50:95: a small validation side often gives equal mAP50."""
MOST_WARMUP = 0.5
"""Share of the steps in which the rate may rise, however long the warm-up of a short run is meant to be."""


class DetectionTask(TimedTask):
    """Learns boxes.

    Args:
        network: The network of the recipe.
        recipe: The recipe; its `loss`, `findings` and `train` sections are read.
        epoch_steps: Optimisation steps of an epoch, for the schedule.
    """

    def __init__(self, network: DetectorNet, recipe: PackageRecipe, epoch_steps: int) -> None:
        if recipe.train.channels_last:
            network = network.to(memory_format=torch.channels_last)
        super().__init__(network, recipe)
        self.average = copy_of(network) if recipe.train.ema else None
        self.steps = epoch_steps * recipe.train.epochs
        spec = recipe.train
        warmup = spec.warmup_epochs * epoch_steps if spec.schedule == "cosine" else spec.warmup_fraction * self.steps
        self.warmup = min(warmup, MOST_WARMUP * self.steps)
        self._resumed = False
        self._told: list[Any] = []

    @property
    def saved(self) -> str:
        """Whose weights a run keeps: the mean's, where there is one."""
        return "network." if self.average is None else "average."

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.average is not None and not self._resumed:
            take(self.average, self.network)  # which may have begun with others' weights

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._resumed = True

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        told = self.network(*self.inputs(batch))
        loss, terms = self.loss_of(told, batch)
        self.log_dict({"loss": loss.detach(), **terms}, on_step=False, on_epoch=True, batch_size=len(batch["image"]))
        return loss

    def loss_of(self, told: Told, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of what the heads say, and its terms."""
        spec, head = self.recipe.loss, self.network.head
        truth = Truth(batch["boxes"], batch["classes"], batch["present"])
        if isinstance(head, AnchorHead):
            masks = None if told.prototypes is None else (told.prototypes, batch["numbers"])
            return anchored_loss(spec, told.maps, truth, head.strides_px, head.anchors_px, head.classes, masks)
        traces = None if told.traces is None else (told.traces, batch["numbers"])
        return free_loss(spec, told.maps, truth, head.strides_px, head.classes, traces)

    def inputs(self, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """The images of a batch."""
        layout = torch.channels_last if self.recipe.train.channels_last else torch.contiguous_format
        return (batch["image"].contiguous(memory_format=layout),)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.recipe.train.optimizer == "sgd":
            risen = min(1.0, self.global_step / self.warmup) if self.warmup else 1.0
            momentum = FIRST_MOMENTUM + (self.recipe.train.momentum - FIRST_MOMENTUM) * risen
            for group in optimizer.param_groups:
                group["momentum"] = min(momentum, self.recipe.train.momentum)

    def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
        if self.average is not None:
            follow(self.average, self.network, self.recipe.train.ema, self.global_step)

    def on_validation_epoch_start(self) -> None:
        self._told = []

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        judged = self.network if self.average is None else self.average
        with torch.autocast(batch["image"].device.type, enabled=False):  # as it will be exported
            decoded = judged.decoded(*self.inputs(batch))
        spec = self.recipe.findings
        for row in range(len(batch["image"])):
            kept = suppressed(
                decoded.boxes[row].cpu().numpy(), decoded.scores[row].cpu().numpy(),
                least=LEAST_SCORE, overlap=spec.nms_iou, most=spec.most,
            )  # fmt: skip
            there = batch["present"][row]
            true = batch["boxes"][row][there].double().cpu().numpy(), batch["classes"][row][there].cpu().numpy()
            self._told.append((kept, *true))

    def on_validation_epoch_end(self) -> None:
        """What is missing of mAP50; between epochs that are equal in it, mAP50:95 decides."""
        kept, boxes, kinds = zip(*self._told, strict=True)
        found = joined_found([one.boxes for one in kept], [one.scores for one in kept], [one.kinds for one in kept])
        told = match(
            found, joined_truth(boxes, kinds), len(self.recipe.target.classes),
            sizes_px2={"all": SIZES_PX2["all"]}, most=(self.recipe.findings.most,),
        ).average_precision()  # fmt: skip
        missing = 1 - (1 - SECOND) * told.ap(0.5) - SECOND * told.ap()
        self.log_dict({"map50_error": max(0.0, missing), "map50_95": told.ap()})

    def configure_optimizers(self) -> Any:
        spec = self.recipe.train
        optimizer: torch.optim.Optimizer
        if spec.optimizer == "muon":
            apart = outputs_of(self.network)
            optimizer = Muon(self.network, spec.lr, spec.muon_lr, weight_decay=spec.weight_decay, apart=apart)
            for group in optimizer.param_groups:
                if not group["orthogonal"]:
                    group["weight_decay"] = 0.0
        else:
            groups = grouped(self.network, spec.weight_decay)
            if spec.optimizer == "sgd":
                optimizer = torch.optim.SGD(groups, spec.lr, momentum=spec.momentum, nesterov=spec.momentum > 0)
            else:
                optimizer = torch.optim.AdamW(groups, lr=spec.lr)
        share = self.warmup / max(1, self.steps)
        course = rate_schedule(spec.model_copy(update={"warmup_fraction": share}), self.steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, course)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def outputs_of(network: DetectorNet) -> list[nn.Module]:
    """The modules that put out logits: they learn apart, as outputs do."""
    if isinstance(network.head, AnchorHead):
        return list(network.head.modules())
    return [head[-1] for head in network.body.heads]  # type: ignore[union-attr, index]


def grouped(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights that decay, those of convolutions and linear layers, and what does not: norms, biases, vectors."""
    decaying = [
        module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear | nn.ConvTranspose2d)
    ]
    known = {id(weight) for weight in decaying}
    rest = [weight for weight in network.parameters() if weight.requires_grad and id(weight) not in known]
    return [
        {"params": [weight for weight in decaying if weight.requires_grad], "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
