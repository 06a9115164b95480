"""A tested die under a scanning electron microscope and its reference: direct mode on real noise."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from waferlens.inspect import inspect_paths

RECIPE = """
name: sem-pair
extends: golden-template
method: {position_px: 1}
"""

PARTICLE, DARK_SPOT, FAINT_SPOT = (148, 334), (95, 81), (80, 244)
"""(x, y) of what can be seen by eye [px]"""


@pytest.mark.real_data
@pytest.mark.parametrize("mode", ["image", "pair"])
def test_the_particle_and_the_spots_are_found_and_hardly_anything_else(tmp_path, real_data, mode):
    folder = real_data / "sem_pairs"
    if not (folder / "case1_inspected_image.tif").is_file():
        pytest.skip(f"{folder} holds no case1_inspected_image.tif")
    (tmp_path / "sem-pair.yaml").write_text(RECIPE)
    if mode == "image":
        image, named = folder / "case1_inspected_image.tif", {"reference": folder / "case1_reference_image.tif"}
    else:
        image, named = folder, {"pair_by": "{}_inspected_image.tif:{}_reference_image.tif"}
    result = inspect_paths([image], tmp_path / "sem-pair.yaml", tmp_path / "out", **named)
    assert (result.quarantined, result.verdicts["NG"]) == (0, result.images)
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if Path(row["path"]).name.startswith("case1")]
    (row,) = rows
    assert float(row["shift_y_px"]) == pytest.approx(4, abs=0.5)
    assert float(row["shift_x_px"]) == pytest.approx(-23, abs=0.5)
    left = [one.finding for one in result.found if Path(one.path).name.startswith("case1")]
    for (x, y), light, reach in ((PARTICLE, True, 15), (DARK_SPOT, False, 8), (FAINT_SPOT, True, 8)):
        hits = [
            one
            for one in left
            if abs((one.box[0] + one.box[2]) / 2 - x) <= reach
            and abs((one.box[1] + one.box[3]) / 2 - y) <= reach
            and (one.light_or_dark == "light") == light
        ]
        assert hits, (x, y)
        left.remove(hits[0])
    assert len(left) <= 1
