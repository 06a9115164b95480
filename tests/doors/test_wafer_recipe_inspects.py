"""What was trained here inspects: the bundle of every recipe on fields goes through `inspect` and `report`."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tiny import tiny_overrides
from waferlens.cli.main import main
from waferlens.export import export
from waferlens.recipe import WaferRecipe, load_recipe
from waferlens.simulate.wafer.dataset import wafer_world, write_fields
from waferlens.simulate.wafer.scene import FIELD_UM
from waferlens.train import train

SIDE = 200
"""Pixels of the network along each side: the edges of dies are found on pixels of 30 um at the most."""


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wafers") / "fields"
    world = wafer_world("sim").model_copy(update={"fields_per_wafer": 1})
    write_fields(folder, world, 7, SIDE + 28, 3)
    return folder


@pytest.mark.parametrize("name", ["wafer-fast", "wafer-fcrn", "wafer-unet"])
def test_what_was_trained_inspects(name: str, fields: Path, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert isinstance(recipe, WaferRecipe)
    size = ["input.height_px=200", "input.width_px=200"]
    if name == "wafer-fast":
        size = [f"input.pitch_um={FIELD_UM / SIDE!r}"]
    small = load_recipe(name, [*tiny_overrides(recipe), *size, "train.epochs=1"])
    train(small, fields, tmp_path / "run", threads=1)  # type: ignore[arg-type]
    export(tmp_path / "run", tmp_path / "bundle")
    assert main(["inspect", str(fields), "--bundle", str(tmp_path / "bundle"), "--out", str(tmp_path / "out")]) == 0
    assert main(["report", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7
    for row in rows:
        maps = (tmp_path / "out" / row["map_file"]).parent
        height = tifffile.imread(maps / "height.tif")
        assert height.shape == (SIDE, SIDE)
        assert height.dtype == np.float32
        assert float(row["top_um"]) == pytest.approx(np.quantile(height, 0.98), abs=1.0)
        told_sigma = name == "wafer-fast"
        assert (maps / "sigma.tif").exists() == (maps / "classes.tif").exists() == told_sigma
        assert (row["safe_um"] != "") == told_sigma  # without an upper bound there is no safe height
