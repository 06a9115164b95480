"""Runs of the wafer station: killed and taken up again, begun with another, and on data that cannot be used."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from safetensors.torch import load_file

from tiny import GRID, tiny_fields, tiny_overrides, tiny_wafer
from waferlens.cli.main import main
from waferlens.errors import UsageError
from waferlens.export import export
from waferlens.formats import wafer_set
from waferlens.recipe import load_recipe
from waferlens.simulate.wafer.dataset import wafer_world, write_swaths
from waferlens.train import train


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_fields(tmp_path_factory.mktemp("wafers") / "fields")


@pytest.fixture(scope="module")
def fast(fields: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of wafer-fast."""
    run = tmp_path_factory.mktemp("runs") / "fast"
    train(tiny_wafer("wafer-fast"), fields, run, threads=1)
    return run


def told(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def curves(run: Path) -> list[dict[str, str]]:
    path = run / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "cpu_seconds"} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_losses(fields: Path, tmp_path: Path) -> None:
    words = [*tiny_overrides(tiny_wafer("wafer-fast")), "train.epochs=12", "train.crop_px=64", "loss.supervision=mixed"]
    recipe = load_recipe("wafer-fast", words)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    command = [
        sys.executable,
        "-m",
        "waferlens",
        "train",
        "wafer-fast",
        *words,
        "--data",
        str(fields),
        "--threads",
        "1",
    ]
    process = subprocess.Popen([*command, "--out", str(broken)], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(curves(broken)) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 2 <= len(curves(broken)) < 12, "the run was not interrupted in its middle"
    threads = torch.get_num_threads()
    for run in (broken, whole):
        train(recipe, fields, run, threads=1)  # type: ignore[arg-type]
    torch.set_num_threads(threads)
    assert curves(broken) == curves(whole)
    ours, theirs = load_file(broken / "weights.safetensors"), load_file(whole / "weights.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_recipe_from_before_a_setting_still_belongs_to_its_run(fields: Path, tmp_path: Path) -> None:
    train(tiny_wafer("wafer-unet"), fields, tmp_path / "run", threads=1)
    (tmp_path / "run" / "weights.safetensors").unlink()
    path = tmp_path / "run" / "recipe.yaml"
    text = path.read_text()
    assert "normalise: half" in text
    path.write_text(text.replace("  normalise: half\n", ""))
    assert train(tiny_wafer("wafer-unet"), fields, tmp_path / "run", threads=1).epochs == 2
    (tmp_path / "run" / "weights.safetensors").unlink()
    with pytest.raises(UsageError, match="another recipe"):
        train(tiny_wafer("wafer-unet", "input.normalise=imagenet"), fields, tmp_path / "run", threads=1)


def test_a_run_begins_with_another_of_the_same_network(fast: Path, fields: Path, tmp_path: Path) -> None:
    result = train(tiny_wafer("wafer-fast", "train.epochs=1"), fields, tmp_path / "run", start=fast, threads=1)
    card = json.loads((tmp_path / "run" / "runcard.json").read_text())
    assert card["results"]["started_from"]["epochs"] == 2
    assert result.epochs == 1
    with pytest.raises(UsageError, match=r"differs in input.channels, target.full_scale$"):
        train(
            tiny_wafer("wafer-fast", "input.channels=3", "target.full_scale=500"),
            fields,
            tmp_path / "other",
            start=fast,
        )


def test_a_swath_is_not_stretched_for_a_network_of_whole_fields(fields: Path, tmp_path: Path, capsys: Any) -> None:
    write_swaths(tmp_path / "swaths", wafer_world("sim"), 9, 2, GRID, 3)
    with pytest.raises(UsageError, match=r"is 228x114 px; this network takes whole fields, scaled to 64x64 px"):
        train(tiny_wafer("wafer-fcrn"), tmp_path / "swaths", tmp_path / "refused")
    train(tiny_wafer("wafer-fcrn", "train.epochs=1"), fields, tmp_path / "run", threads=1)
    export(tmp_path / "run", tmp_path / "bundle")
    assert main(["evaluate", str(tmp_path / "bundle"), "--data", str(tmp_path / "swaths")]) == 2
    assert "would see it stretched" in capsys.readouterr().err
    # a network of any size takes them, and what lies beyond the wafer is left out
    train(tiny_wafer("wafer-fast", "train.epochs=1"), tmp_path / "swaths", tmp_path / "fast", threads=1)
    export(tmp_path / "fast", tmp_path / "bundle-fast")
    assert np.isfinite(
        told(capsys, "evaluate", tmp_path / "bundle-fast", "--data", tmp_path / "swaths")["mae_um"]["all"]
    )


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.zeros((GRID, GRID, 3), np.uint8), "holds (114, 114, 3) of uint8; a field is grey, of 8 or 16 bits"),
        (np.zeros((GRID, GRID), np.float32), "holds (114, 114) of float32; a field is grey"),
    ],
)
def test_images_that_are_no_fields(pixels: np.ndarray, said: str, tmp_path: Path, capsys: Any) -> None:
    data = tiny_fields(tmp_path / "fields", fields=3)
    tifffile.imwrite(wafer_set.image_path(data, "000000"), pixels)
    overrides = tiny_overrides(load_recipe("wafer-unet"))  # type: ignore[arg-type]
    assert main(["train", "wafer-unet", *overrides, "--data", str(data), "--out", str(tmp_path / "run")]) == 1
    assert said in capsys.readouterr().err
