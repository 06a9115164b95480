"""What a run of the package station is made of: images in memory, batches of them varied, a task, a figure of merit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import lightning
import numpy as np
import torch
from torch import Tensor

from waferlens.errors import InputError
from waferlens.load.package import facts_of
from waferlens.models import build_detector
from waferlens.models.anchor_head import AnchorHead
from waferlens.prepare.package_geometry import Placement, network_input, placed
from waferlens.prepare.package_sides import refuse_leaks
from waferlens.recipe.package import PackageRecipe
from waferlens.recipe.package_models import PackageFast
from waferlens.train.ahead import made_ahead
from waferlens.train.anchors import FittedAnchors
from waferlens.train.detection_augment import Sample, Source, plain, varied
from waferlens.train.detection_mixing import mixed, pasted
from waferlens.train.package_sources import anchors_for, read_sources
from waferlens.train.package_task import DetectionTask
from waferlens.train.setup import Metric, Setup

SIDES: tuple[Literal["train"], Literal["validation"]] = ("train", "validation")
MASK_STRIDE_PX = 4
"""Side of a pixel of the masks [px]"""
ERROR = Metric("map50_error", "1 - mAP50", "of 1", ("map50_95",))


def package_setup(recipe: PackageRecipe, data: Path, workers: int = 0) -> Setup:
    """Reads the data of a run and makes its task; the seed is the caller's.

    Args:
        recipe: The recipe.
        data: Folder with truth.
        workers: Processes that make batches; 0 makes them between the steps.

    Raises:
        InputError: the data cannot be used.
        UsageError: the data does not have what the recipe asks for.
    """
    refuse_leaks(recipe, data)
    read = {side: read_sources(recipe, data, side) for side in SIDES}
    sides = {side: sources for side, (sources, _) in read.items()}
    problems = [one for _, left_out in read.values() for one in left_out]
    found = {side: Counter(kind for source in sources for kind in source.kinds) for side, sources in sides.items()}
    for side in SIDES:
        if not found[side]:
            raise InputError(
                data, f"none of the {len(sides[side])} images on the {side} side shows {_or(recipe.target.classes)}"
            )
    facts = facts_of(data)
    facts |= {"images": sum(map(len, sides.values())), "left_out": len(problems)}
    facts["objects"] = {
        kind: sum(count[number] for count in found.values()) for number, kind in enumerate(recipe.target.classes)
    }
    anchors = None
    if recipe.model.kind != "package-fast" and recipe.model.anchors is None:
        anchors = anchors_for(recipe, sides["train"])
        facts["anchors"] = {
            "px": anchors.anchors_px.round(2).tolist(),
            "best_possible_recall": round(anchors.recall, 4),
        }
    module = _Packages(recipe, sides, workers)
    return Setup(
        task=lambda: _task(recipe, module, anchors),
        module=module,
        counts=(len(sides["train"]), len(sides["validation"])),
        facts=facts,
        problems=problems,
        metric=ERROR,
    )


class DetectionBatches:
    """One epoch. A resumed run meets the same batches as one that was never interrupted.

    Args:
        sources: Of one side of the split.
        recipe: Its input and `train` sections are read.
        epoch: Which epoch; None for validation, which is neither shuffled nor varied.
    """

    def __init__(self, sources: Sequence[Source], recipe: PackageRecipe, epoch: int | None) -> None:
        self.sources, self.recipe, self.epoch = sources, recipe, epoch
        self.batch = min(recipe.train.batch, len(sources))
        count = len(sources)
        drawn = None if epoch is None else np.random.default_rng([recipe.train.seed, epoch])
        self.order = np.arange(count) if drawn is None else drawn.permutation(count)
        lights = [source.light for source in sources]
        self.alike = {light: [place for place, one in enumerate(lights) if one == light] for light in set(lights)}

    def __len__(self) -> int:
        """Steps; the last, smaller batch of a shuffled epoch is left out."""
        count = len(self.sources)
        return -(-count // self.batch) if self.epoch is None else count // self.batch

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return (self.batch_of(step) for step in range(len(self)))

    def batch_of(self, step: int) -> dict[str, Tensor]:
        """The batch of a step, whichever were made before it."""
        chosen = self.order[step * self.batch : (step + 1) * self.batch]
        samples = [self.sample(int(number)) for number in chosen]
        return as_batch(samples, self.recipe.input.channels, touched_px=touched_px(self.recipe))

    def sample(self, number: int) -> Sample:
        """What the network is shown of an image: a function of seed, epoch and its number alone."""
        source = self.sources[number]
        if self.epoch is None:
            return plain(source, self._placed(source))
        spec = self.recipe.train.augment
        rng = np.random.default_rng([self.recipe.train.seed, self.epoch, number])
        made = self._varied(source, rng)
        for share, join in ((spec.paste_in, pasted), (spec.mixup, mixed)):
            if share and rng.random() < share:
                alike = self.alike[source.light]
                made = join(made, self._varied(self.sources[alike[rng.integers(len(alike))]], rng), rng)
        return made

    def _varied(self, source: Source, rng: np.random.Generator) -> Sample:
        spec = self.recipe.train.augment
        missed = spec.corner_px * rng.uniform(-1, 1, (4, 2)) if spec.corner_px else 0.0
        placement = self._placed(replace(source, quad=source.quad + missed))
        return varied(source, placement, spec, rng, self.recipe.train.crop_px)

    def _placed(self, source: Source) -> Placement:
        return placed(source.quad, self.recipe.input.height_px, self.recipe.input.width_px)


def touched_px(recipe: PackageRecipe) -> int | None:
    """Side of the cells of which it is learned whether an object touches them; None where that is not learned [px]"""
    return recipe.model.unshuffle if isinstance(recipe.model, PackageFast) and recipe.model.traces else None


def as_batch(samples: Sequence[Sample], channels: int, touched_px: int | None = None) -> dict[str, Tensor]:
    """Samples as a network and its loss take them; images have the channel fastest in memory.

    Args:
        samples: Of one size.
        channels: Of the network.
        touched_px: Side of the cells that are told the last object that touches them; None where masks are told at the
            middles of coarse pixels [px]
    """
    if all(sample.pixels.dtype == np.uint8 for sample in samples):  # a quarter of the memory, and no rounding
        stacked = torch.from_numpy(np.stack([sample.pixels for sample in samples]))
        stacked = stacked.unsqueeze(-1) if stacked.ndim == 3 else stacked
        image = stacked.permute(0, 3, 1, 2).expand(-1, channels, -1, -1)
    else:
        image = torch.from_numpy(np.stack([network_input(sample.pixels, channels) for sample in samples]))
    most = max(1, *(len(sample.boxes) for sample in samples))
    boxes = torch.zeros(len(samples), most, 4)
    classes, present = (
        torch.zeros(len(samples), most, dtype=torch.long),
        torch.zeros(len(samples), most, dtype=torch.bool),
    )
    for row, sample in enumerate(samples):
        count = len(sample.boxes)
        boxes[row, :count] = torch.from_numpy(sample.boxes)
        classes[row, :count] = torch.from_numpy(sample.kinds)
        present[row, :count] = True
    batch = {"image": image, "boxes": boxes, "classes": classes, "present": present}
    if samples[0].numbers is not None and touched_px is not None:
        numbers = np.stack([sample.numbers for sample in samples])  # type: ignore[arg-type]
        b, h, w = numbers.shape
        cells = numbers.reshape(b, h // touched_px, touched_px, w // touched_px, touched_px)
        batch["numbers"] = torch.from_numpy(cells.max(axis=(2, 4)))
    elif samples[0].numbers is not None:
        half = MASK_STRIDE_PX // 2  # the middle of a coarse pixel
        coarse = [sample.numbers[half::MASK_STRIDE_PX, half::MASK_STRIDE_PX] for sample in samples]  # type: ignore[index]
        batch["numbers"] = torch.from_numpy(np.stack(coarse))
    return batch


class _Packages(lightning.LightningDataModule):
    """Thin: images in, one `DetectionBatches` an epoch out."""

    def __init__(self, recipe: PackageRecipe, sides: dict[str, list[Source]], workers: int) -> None:
        super().__init__()
        self.recipe, self.sides, self.workers = recipe, sides, workers

    def train_dataloader(self) -> Iterable[dict[str, Tensor]]:
        epoch = self.trainer.current_epoch if self.trainer else 0
        return self._made(DetectionBatches(self.sides["train"], self.recipe, epoch))

    def val_dataloader(self) -> Iterable[dict[str, Tensor]]:
        return self._made(DetectionBatches(self.sides["validation"], self.recipe, None))

    def _made(self, epoch: DetectionBatches) -> Iterable[dict[str, Tensor]]:
        return made_ahead(epoch, self.workers) if self.workers else epoch


def _task(recipe: PackageRecipe, module: _Packages, anchors: FittedAnchors | None) -> DetectionTask:
    network = build_detector(recipe)
    if anchors is not None:
        assert isinstance(network.head, AnchorHead)
        network.head.set_anchors(torch.from_numpy(anchors.anchors_px).float())
    return DetectionTask(network, recipe, len(DetectionBatches(module.sides["train"], recipe, 0)))


def _or(words: Sequence[str]) -> str:
    return " or ".join(words)
