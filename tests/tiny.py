"""Every shipped recipe at a size a test can train."""

from __future__ import annotations

from pathlib import Path

from waferlens.recipe.hole import Autoencoder, HoleRecipe, Pix2Pix, StridedUnet
from waferlens.simulate.hole.dataset import hole_world, write_pairs


def tiny_overrides(recipe: HoleRecipe) -> list[str]:
    """Settings that shrink a recipe's network and its training, and nothing else."""
    training = ["train.epochs=1", "train.batch=32", "train.warmup_fraction=0.2"]
    match recipe.model:
        case StridedUnet():
            return ["model.widths=[8, 8]", "model.blocks=[1, 1, 1]", *training]
        case Pix2Pix():
            return ["model.base_channels=4", "model.discriminator.ndf=4", *training]
        case Autoencoder():
            return ["model.hidden=[16, 8]", *training]
        case _:
            return ["model.base_channels=4", *training]


def tiny_data(folder: Path, structures: int = 40, domain: str = "sim", seed: int = 3) -> Path:
    """A small data set with truth; forty structures have members in every split but calibration."""
    write_pairs(folder, hole_world(domain), structures, seed)
    return folder
