"""Training as a user meets it: every recipe from data to bundle to measurement, and a run that is killed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny import tiny_data, tiny_overrides
from waferlens.bundle.files import open_bundle
from waferlens.bundle.session import Session
from waferlens.cli.main import main
from waferlens.errors import ParityError, UsageError
from waferlens.export import export
from waferlens.export.onnx import compare, require_parity
from waferlens.models import build
from waferlens.prepare.geometry import batch_input
from waferlens.recipe import load_recipe, recipe_names
from waferlens.recipe.hole import HoleRecipe
from waferlens.train import train
from waferlens.train.batches import Batches

HOLE = [name for name in recipe_names() if isinstance(load_recipe(name), HoleRecipe)]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_data(tmp_path_factory.mktemp("train") / "data", structures=150)


def tiny(name: str, *more: str) -> HoleRecipe:
    recipe = load_recipe(name)
    assert isinstance(recipe, HoleRecipe)
    small = load_recipe(name, [*tiny_overrides(recipe), *more])
    assert isinstance(small, HoleRecipe)
    return small


@pytest.mark.parametrize("name", HOLE)
def test_every_recipe_runs_from_data_to_bundle(name: str, data: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    result = train(tiny(name), data, tmp_path / "run", threads=1)
    assert result.epochs == 1
    assert np.isfinite(result.validation)
    card = json.loads((tmp_path / "run" / "runcard.json").read_text())
    assert card["data"]["world"] == "hole-sim"
    assert str(data) not in (tmp_path / "run" / "runcard.json").read_text()
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "bundle"), "--json"]) == 0
    exported = json.loads(capsys.readouterr().out)
    assert exported["parity"]["max_abs"] <= 0.01
    assert exported["parity"]["ok_ng_flips"] == 0
    bundle = open_bundle(tmp_path / "bundle")
    depth, sigma = Session(bundle).predict(np.full((2, 1, 72, 48), 100, np.float32))
    assert depth.shape == (2, 72, 48)
    assert (sigma is not None) == name.startswith("hole-fast")


def test_evaluate_tells_the_promised_figures(data: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    train(tiny("hole-fast"), data, tmp_path / "run", threads=1)
    export(tmp_path / "run", tmp_path / "bundle")
    words = ["evaluate", str(tmp_path / "bundle"), "--data", str(data), "--split", "test", "--json"]
    assert main([*words, "--out", str(tmp_path / "pictures")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"rmse_255", "rmse_structure", "rmse_level", "coverage_90", "depth", "baselines"} <= set(told)
    assert {"mean_map", "grey_lookup", "linear_on_statistics", "nearest_neighbour"} <= set(told["baselines"])
    low, high = told["rmse_255_95"]
    assert low <= told["rmse_255"] <= high
    assert {path.name for path in (tmp_path / "pictures").iterdir()} >= {"evaluation.json", "worst.png", "depth.png"}


def curves(run: Path) -> list[dict[str, str]]:
    path = run / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "cpu_seconds"} for row in csv.DictReader(file)]


def test_a_killed_run_goes_on_with_the_same_losses(data: Path, tmp_path: Path) -> None:
    recipe = "train.epochs=6"
    words = [sys.executable, "-m", "waferlens", "train", "hole-fast", recipe, "model.widths=[8, 8]"]
    words += ["model.blocks=[1, 1, 1]", "--data", str(data), "--threads", "1", "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole = tmp_path / "whole"
    subprocess.run([*words, str(whole)], check=True, env=environment, capture_output=True)

    broken = tmp_path / "broken"
    process = subprocess.Popen([*words, str(broken)], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(curves(broken)) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 2 <= len(curves(broken)) < 6, "the run was not interrupted in its middle"
    subprocess.run([*words, str(broken)], check=True, env=environment, capture_output=True)
    assert curves(broken) == curves(whole)
    ours, theirs = load_file(broken / "weights.safetensors"), load_file(whole / "weights.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_batches_depend_on_seed_and_epoch_alone() -> None:
    rng = np.random.default_rng(0)
    sem = rng.integers(0, 255, (50, 72, 48), np.uint8)
    augment = tiny("hole-fast").train.augment
    first, again, later = (list(Batches(sem, sem, 16, augment, 1, epoch)) for epoch in (0, 0, 1))
    assert len(first) == 3
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a[0], b[0]) for a, b in zip(first, later, strict=True))
    # geometry moves image and truth alike
    assert all(torch.equal(grey, truth) for grey, truth in first)


def test_arithmetic_that_is_not_the_recipes_is_said(data: Path, tmp_path: Path, capsys, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    for where, name in ((torch.cuda, "is_available"), (torch.backends.mps, "is_available")):
        monkeypatch.setattr(where, name, lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    words = ["train", "hole-fast", *tiny_overrides(tiny("hole-fast")), "--data", str(data), "--threads", "1"]
    said = "train.precision=bf16, but this processor does not compute in bfloat16"
    assert main([*words, "train.precision=bf16", "--out", str(tmp_path / "a")]) == 0
    assert f"note: {said}" in capsys.readouterr().err
    assert said in (tmp_path / "a" / "log.txt").read_text()
    assert main([*words, "train.precision=bf16", "--out", str(tmp_path / "b"), "--json"]) == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert note.startswith(said)
    card = json.loads((tmp_path / "b" / "runcard.json").read_text())
    assert (card["machine"]["precision"], card["results"]["notes"]) == ("f32", [note])
    assert main([*words, "train.precision=f32", "--out", str(tmp_path / "c"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []


def test_another_recipe_may_not_enter_a_run(data: Path, tmp_path: Path) -> None:
    train(tiny("hole-fast"), data, tmp_path / "run", threads=1)
    with pytest.raises(UsageError, match="finished run"):
        train(tiny("hole-fast"), data, tmp_path / "run")
    (tmp_path / "run" / "weights.safetensors").unlink()
    with pytest.raises(UsageError, match="another recipe"):
        train(tiny("hole-fast", "train.seed=5"), data, tmp_path / "run")


def test_a_loss_that_is_no_number_ends_the_run_and_says_what_to_change(data: Path, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    from waferlens.train.tasks import DepthTask

    step, steps = DepthTask.training_step, []

    def breaks(self, batch, index):  # type: ignore[no-untyped-def]
        steps.append(index)
        loss = step(self, batch, index)
        return loss * float("nan") if len(steps) == 2 else loss

    monkeypatch.setattr(DepthTask, "training_step", breaks)
    with pytest.raises(UsageError, match=r"the loss is nan at step 2 of epoch 1: lower train\.lr"):
        train(tiny("hole-fast"), data, tmp_path / "run", threads=1)
    assert len(steps) == 2


def test_export_refuses_what_disagrees(data: Path, tmp_path: Path) -> None:
    train(tiny("hole-fast"), data, tmp_path / "run", threads=1)
    export(tmp_path / "run", tmp_path / "bundle")
    session = Session(open_bundle(tmp_path / "bundle"))
    other = build(tiny("hole-fast"))
    grey = batch_input(np.random.default_rng(0).integers(0, 255, (8, 72, 48), np.uint8))
    with pytest.raises(ParityError, match="differ by up to"):
        require_parity(compare(other, session, grey))


def test_export_of_an_altered_run_is_refused(data: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    train(tiny("hole-fast"), data, tmp_path / "run", threads=1)
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    weights.popitem()
    save_file(weights, tmp_path / "run" / "weights.safetensors")
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "bundle")]) != 0
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["train", "hole-fsat", "--data", "x", "--out", "y"], 2, "hole-fast"),
        (["train", "hole-fast", "train.epohcs=3", "--data", "x", "--out", "y"], 2, "epochs"),
        (["train", "hole-fast", "--data", "nowhere", "--out", "run"], 1, "nowhere"),
        (["export", "nowhere", "--out", "b"], 1, "no finished training run"),
        (["evaluate", "hole-fsat", "--data", "x"], 2, "hole-fsat"),
    ],
)
def test_wrong_usage_says_what_to_change(words, status, said, tmp_path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    assert main(words) == status
    assert said in capsys.readouterr().err
