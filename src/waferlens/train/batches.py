"""Batches of images and depth maps out of memory, augmented; the order is a function of seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from waferlens.prepare.geometry import batch_input
from waferlens.recipe.sections import Augment


class Batches:
    """One epoch. A resumed run meets the same batches as one that was never interrupted.

    Args:
        sem: Images [grey]
        depth: Their depth maps [grey]
        batch: Images a step; the last, smaller batch of a shuffled epoch is left out.
        augment: What is varied; None for validation, which is neither shuffled nor varied.
        seed: Seed of the run.
        epoch: Which epoch.
    """

    def __init__(
        self,
        sem: UInt8[np.ndarray, "n h w"],
        depth: UInt8[np.ndarray, "n h w"],
        batch: int,
        augment: Augment | None = None,
        seed: int = 0,
        epoch: int = 0,
    ) -> None:
        self.sem, self.depth = sem, depth
        self.batch = min(batch, len(sem))
        self.augment = augment
        self.seed, self.epoch = seed, epoch

    def __len__(self) -> int:
        count = len(self.sem)
        return count // self.batch if self.augment is not None else -(-count // self.batch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        count = len(self.sem)
        order = rng.permutation(count) if self.augment is not None else np.arange(count)
        for step in range(len(self)):
            chosen = np.sort(order[step * self.batch : (step + 1) * self.batch])
            grey = batch_input(self.sem[chosen])
            truth = self.depth[chosen].astype(np.float32)[:, np.newaxis]
            if self.augment is not None:
                grey, truth = varied(grey, truth, self.augment, rng)
            yield torch.from_numpy(np.ascontiguousarray(grey)), torch.from_numpy(np.ascontiguousarray(truth))


def varied(
    grey: np.ndarray, truth: np.ndarray, augment: Augment, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A batch with its geometry moved (image and truth alike) and its grey changed (image only).

    Mirroring and shifting are drawn per batch: at inspection speed a draw per image would cost as much as a step.
    """
    if augment.flip:
        for axis in (2, 3):
            if rng.random() < 0.5:
                grey, truth = np.flip(grey, axis), np.flip(truth, axis)
    if augment.roll_px:
        shift = tuple(rng.integers(-augment.roll_px, augment.roll_px + 1, 2))
        grey, truth = np.roll(grey, shift, (2, 3)), np.roll(truth, shift, (2, 3))
    shape = (len(grey), 1, 1, 1)
    if augment.gain:
        grey = grey * (1.0 + augment.gain * rng.uniform(-1, 1, shape)).astype(np.float32)
    if augment.offset_grey:
        grey = grey + (augment.offset_grey * rng.uniform(-1, 1, shape)).astype(np.float32)
    return grey, truth
