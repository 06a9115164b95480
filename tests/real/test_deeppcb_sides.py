"""DeepPCB as a detector learns it: its boards on four sides, its boxes on the input as they are in the image."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from waferlens.formats.deeppcb import KINDS, read_truth
from waferlens.prepare.package_geometry import placed
from waferlens.prepare.package_sides import refuse_leaks, side_pictures
from waferlens.prepare.package_truth import region_quad, shown_labels
from waferlens.recipe import load_recipe
from waferlens.recipe.package import PackageRecipe


@pytest.fixture(scope="module")
def recipe() -> PackageRecipe:
    classes = f"target.classes=[{', '.join(KINDS)}]"
    told = load_recipe("package-yolov7-tiny", [classes, "input.region=image"])
    assert isinstance(told, PackageRecipe)
    return told


@pytest.mark.real_data
def test_boards_lie_on_one_side_each(recipe: PackageRecipe, real_data: Path) -> None:
    sides = {
        side: Counter(picture.group for picture in side_pictures(recipe, real_data / "deeppcb", side))
        for side in ("train", "validation", "calibration", "test")
    }
    assert {side: sum(boards.values()) for side, boards in sides.items()} == {
        "train": 689,
        "validation": 150,
        "calibration": 50,
        "test": 111,
    }
    assert sum(map(len, sides.values())) == 7
    refuse_leaks(recipe, real_data / "deeppcb")


@pytest.mark.real_data
def test_boxes_on_the_input_are_those_of_the_image(recipe: PackageRecipe, real_data: Path) -> None:
    picture = next(iter(side_pictures(recipe, real_data / "deeppcb", "validation")))
    pixels, white = picture.pixels()
    assert white == 255.0
    quad = region_quad(picture, pixels.shape, recipe.input)
    shown = shown_labels(picture.labels, KINDS, placed(quad, 640, 640))
    truth = read_truth(picture.path.parent.with_name(f"{picture.path.parent.name}_not") / f"{picture.name}.txt")
    assert shown.boxes == pytest.approx(np.array([one.box for one in truth]))
    assert [KINDS[kind] for kind in shown.kinds] == [one.kind for one in truth]
