"""What a station hands to the run that trains its network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import lightning
from torch import nn

from waferlens.recipe import HoleRecipe, PackageRecipe, WaferRecipe

Trainable = HoleRecipe | WaferRecipe | PackageRecipe
"""Recipes of networks."""


class Metric(NamedTuple):
    """The figure by which the best epoch is chosen: the smaller, the better."""

    name: str
    """As it is logged and written."""
    label: str
    unit: str
    beside: tuple[str, ...] = ()
    """Names of what is logged with it, when the validation images are looked at."""


class Task(Protocol):
    """What a run needs of a lightning module, beside being one."""

    network: nn.Module

    @property
    def saved(self) -> str:
        """What the names of the weights that are kept begin with in its state."""

    @property
    def cpu_seconds(self) -> float:
        """CPU time of this run so far, that of interrupted parts included [s]."""


@dataclass(frozen=True, slots=True)
class Setup:
    """Data and task of a run."""

    task: Callable[[], Any]
    """Makes the lightning module; called once the seed is set."""
    module: lightning.LightningDataModule
    counts: tuple[int, int]
    """Images to train on and to validate."""
    facts: dict[str, Any]
    """What the run card says of the data."""
    problems: list[str]
    """What of the data was left out, and why."""
    metric: Metric
