"""Batches made by processes of their own, ahead of the step that needs them: an accelerator should not wait for warps.

What a batch shows is a function of seed, epoch and its number alone, so any number of processes makes the same ones.
"""

from __future__ import annotations

from typing import Protocol

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

AHEAD = 4
"""Batches that each process makes before the first of them is used."""


class Numbered(Protocol):
    """An epoch of batches of which each can be made alone."""

    def __len__(self) -> int: ...

    def batch_of(self, step: int) -> dict[str, Tensor]:
        """The batch of a step."""


class _Steps(Dataset[dict[str, Tensor]]):
    def __init__(self, epoch: Numbered) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.epoch)

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        return self.epoch.batch_of(step)


def made_ahead(epoch: Numbered, workers: int) -> DataLoader[dict[str, Tensor]]:
    """The batches of an epoch in their order, made by other processes.

    Args:
        epoch: Its images are shared with the processes, not copied.
        workers: Processes.
    """
    cv2.setNumThreads(1)  # ends its pool of threads: a fork has no such threads, and would wait for them for ever
    return DataLoader(
        _Steps(epoch),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD,
        multiprocessing_context="fork",
        pin_memory=torch.cuda.is_available(),
    )
