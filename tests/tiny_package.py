"""The package station at a size a test can train."""

from __future__ import annotations

from pathlib import Path

import yaml

from waferlens.recipe import load_recipe, recipe_names
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


def tiny_package(name: str, *more: str, folder: Path | None = None) -> PackageRecipe:
    """A recipe of the package station with a small network, image and training, and further settings.

    Args:
        name: A shipped recipe; `package-fast` is made in the folder where none is shipped.
        more: Settings written over it.
        folder: Where a recipe may be written.
    """
    if name == "package-fast" and name not in recipe_names():
        assert folder is not None
        path = folder / "package-fast.yaml"
        path.write_text(yaml.safe_dump(_FAST))
        name = str(path)
    told = load_recipe(name)
    assert isinstance(told, PackageRecipe)
    network = {
        "package-fast": ["model.widths=[16, 16, 16]", "model.blocks=[1, 1, 1]"],
        "yolov7-tiny": ["model.width=0.125"],
        "yolov5": ["model.width=0.0625"],
    }[told.model.kind]
    size = ["input.height_px=160", "input.width_px=96"]
    training = ["train.epochs=2", "train.batch=4", "train.precision=f32", "train.budget_cpu_minutes=30"]
    recipe = load_recipe(name, [*network, *size, *training, *more])
    assert isinstance(recipe, PackageRecipe)
    return recipe


_FAST = {
    "name": "package-fast",
    "station": "package",
    "source": "waferlens",
    "summary": "one fine map for small cracks",
    "model": {"kind": "package-fast"},
    "loss": {"assign": "aligned", "box_weight": 2.0, "class_weight": 1.0},
    "train": {"optimizer": "adamw", "lr": 2e-3, "schedule": "cosine", "warmup_epochs": 0.5},
}
