"""Every shipped recipe at a size a test can train."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from make_weights import BASE, BLOCKS, WIDE
from waferlens.recipe import load_recipe
from waferlens.recipe.hole import Autoencoder, HoleRecipe, Pix2Pix, StridedUnet
from waferlens.recipe.wafer import WaferRecipe
from waferlens.recipe.wafer_models import DepthCnn, Fcrn, WaferUnet
from waferlens.simulate.hole.dataset import hole_world, write_pairs
from waferlens.simulate.wafer.dataset import wafer_world, write_fields
from waferlens.simulate.wafer.scene import FIELD_UM

GRID = 114
"""Rows and columns of the fields of `tiny_fields` [px]"""


def tiny_overrides(recipe: HoleRecipe | WaferRecipe) -> list[str]:
    """Settings that shrink a recipe's network and its training, and nothing else."""
    if isinstance(recipe, WaferRecipe):
        return _tiny_wafer(recipe)
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


def tiny_wafer(name: str, *more: str) -> WaferRecipe:
    """A shipped recipe of the wafer station at that size, with further settings."""
    recipe = load_recipe(name)
    assert isinstance(recipe, WaferRecipe)
    small = load_recipe(name, [*_tiny_wafer(recipe), *more])
    assert isinstance(small, WaferRecipe)
    return small


def tiny_data(folder: Path, structures: int = 40, domain: str = "sim", seed: int = 3) -> Path:
    """A small data set with truth; forty structures have members in every split but calibration."""
    write_pairs(folder, hole_world(domain), structures, seed)
    return folder


def _tiny_wafer(recipe: WaferRecipe) -> list[str]:
    encoder = [f"model.encoder.blocks={list(BLOCKS)}", f"model.encoder.base_channels={BASE}"]
    training = ["train.epochs=2", "train.batch=2", "train.lr=1e-3"]
    match recipe.model:
        case Fcrn():
            size = ["input.height_px=64", "input.width_px=64"]
            return [*size, *encoder, f"model.bottleneck_channels={WIDE}", *training]
        case DepthCnn(encoder=resnet):
            size = ["input.height_px=48", "input.width_px=64"]
            return [*size, *(encoder if resnet else []), f"model.bottleneck_channels={WIDE}", *training]
        case WaferUnet():
            return ["input.height_px=72", "input.width_px=72", "model.base_channels=4", "model.levels=3", *training]
        case _:
            small = ["model.widths=[16, 16, 16]", "model.blocks=[1, 1, 1]"]
            return [f"input.pitch_um={FIELD_UM / GRID!r}", *small, *training]


def tiny_fields(folder: Path, domain: str = "sim", fields: int = 9, seed: int = 3) -> Path:
    """Small fields, each of its own wafer: nine of them have some on every side of the split."""
    world = wafer_world(domain).model_copy(update={"fields_per_wafer": 1})
    write_fields(folder, world, fields, GRID, seed)
    return folder


def tiny_views(folder: Path, rooms: int = 6, seed: int = 5) -> Path:
    """Rooms of two views each as NYU Depth v2 has them in folders: the farther, the darker and the redder; some of the
    depths were not measured."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:60, :80]
    for room in range(rooms):
        home = folder / f"room_{room:04d}"
        home.mkdir(parents=True)
        for view in range(2):
            depth = rng.uniform(1, 4) + rng.uniform(-0.02, 0.02) * x + rng.uniform(0, 0.03) * y
            depth[20:40, 20:50] = rng.uniform(0.7, 3.0)
            rgb = np.stack([40 + 20 * depth, 220 - 40 * depth, 200 - 40 * depth], axis=2)
            rgb = np.clip(rgb + rng.normal(0, 4, rgb.shape), 0, 255).astype(np.uint8)
            depth[rng.random(depth.shape) < 0.1] = 0.0
            cv2.imwrite(str(home / f"rgb_{view:05d}.png"), rgb[..., ::-1])
            cv2.imwrite(str(home / f"sync_depth_{view:05d}.png"), np.rint(1000 * depth).astype(np.uint16))
    return folder
