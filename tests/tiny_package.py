"""The package station at a size a test can train."""

from __future__ import annotations

from pathlib import Path

from waferlens.recipe import load_recipe
from waferlens.recipe.package import PackageRecipe
from waferlens.simulate.package.dataset import package_world, write_devices

SCALE = 0.25
"""Pixels of the tiny images a pixel of the station's own."""
DEVICES = 24
"""With seed 3 there are objects of both classes on the training side, and some on every side of the split."""


def tiny_packages(folder: Path, domain: str = "sim", devices: int = DEVICES, seed: int = 3) -> Path:
    """Whole devices at a quarter of the size."""
    world = package_world(domain)
    frame = {
        "width_px": 196,
        "height_px": 324,
        "scale": (SCALE, SCALE),
        "place_px": (7.5, -9.0),
        "scatter_px": (3.0, 3.5),
    }
    world = world.model_copy(update={"frame": world.frame.model_copy(update=frame)})
    write_devices(folder, world, devices, seed)
    return folder


def tiny_package(name: str, *more: str) -> PackageRecipe:
    """A shipped recipe of the package station with a small network, image and training, and further settings."""
    told = load_recipe(name)
    assert isinstance(told, PackageRecipe)
    network = {
        "package-fast": [
            *("model.widths=[16, 16, 16]", "model.blocks=[1, 1, 1]", "train.crop_px=null"),
            *("target.classes=[crack, rotate]", "input.lights=[bf]"),
        ],
        "yolov7-tiny": ["model.width=0.125"],
        "yolov5": ["model.width=0.0625"],
    }[told.model.kind]
    size = [
        "input.height_px=160",
        "input.width_px=96",
        f"train.augment.corner_px={SCALE * told.train.augment.corner_px}",
    ]
    training = ["train.epochs=2", "train.batch=4", "train.precision=f32", "train.budget_cpu_minutes=30"]
    recipe = load_recipe(name, [*network, *size, *training, *more])
    assert isinstance(recipe, PackageRecipe)
    return recipe
