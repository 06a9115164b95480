"""`train --weights` as a user meets it: what is taken, what is told of the rest, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from make_weights import released_layers, saved, torchvision_state
from tiny import tiny_fields, tiny_overrides, tiny_views
from waferlens.cli.main import main
from waferlens.export import export
from waferlens.recipe import WaferRecipe, load_recipe


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_fields(tmp_path_factory.mktemp("wafers") / "fields")


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_views(tmp_path_factory.mktemp("rooms") / "views")


def words(name: str, data: Path, out: Path, *more: str) -> list[str]:
    recipe = load_recipe(name)
    assert isinstance(recipe, WaferRecipe)
    settings, options = [m for m in more if "=" in m], [m for m in more if "=" not in m]
    return ["train", name, *tiny_overrides(recipe), *settings, "--data", str(data), "--out", str(out), *options]


def test_the_released_fcrn_begins_ours(fields: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "NYU_ResNet-UpProj.npy", released_layers())
    # a rate at which nothing moves: what is saved is what was loaded
    assert main(words("wafer-fcrn", fields, tmp_path / "run", "train.lr=1e-30", "--weights", str(path))) == 0
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    theirs = torch.from_numpy(released_layers()["layer8x_br2_ConvB"]["weights"].transpose(3, 2, 0, 1).copy())
    assert torch.equal(weights["body.up.2.unpool_beside.odd_even.weight"], theirs)
    begun = json.loads((tmp_path / "run" / "runcard.json").read_text())["results"]["weights"]
    assert begun["file"] == "NYU_ResNet-UpProj.npy"
    assert begun["left_out"]["conv1/weights"] == "is 8x3x7x7 there and 8x1x7x7 here"  # S0's stem has one channel
    assert begun["fresh"][0] == "body.encoder.stem.0.weight"
    assert begun["taken"] == sum(map(len, released_layers().values())) - 6
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "left out conv1/weights: is 8x3x7x7 there and 8x1x7x7 here" in log
    export(tmp_path / "run", tmp_path / "bundle")
    card = (tmp_path / "bundle" / "CARD.md").read_text()
    assert f"weights of others, NYU_ResNet-UpProj.npy (sha256 {begun['sha256'][:12]}…), of which" in card
    assert str(tmp_path) not in (tmp_path / "run" / "runcard.json").read_text()


def test_a_resumed_run_keeps_what_it_began_with(views: Path, tmp_path: Path) -> None:
    path = tmp_path / "resnet.pth"
    torch.save(torchvision_state(), path)
    assert main(words("depth-cnn-residual", views, tmp_path / "run", "--weights", str(path))) == 0
    (tmp_path / "run" / "weights.safetensors").unlink()
    path.unlink()
    # the checkpoint holds them, so the file is not asked for again
    assert main(words("depth-cnn-residual", views, tmp_path / "run")) == 0
    begun = json.loads((tmp_path / "run" / "runcard.json").read_text())["results"]["weights"]
    assert begun["left_out"] == dict.fromkeys(("fc.weight", "fc.bias"), "no layer of this name here")


@pytest.mark.parametrize("name", ["depth-cnn-transfer", "depth-cnn-residual"])
def test_a_frozen_encoder_of_fresh_weights_is_refused(name: str, views: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(words(name, views, tmp_path / "run")) == 2
    said = capsys.readouterr().err
    assert "--weights" in said
    assert "model.encoder.frozen=false" in said
    assert not (tmp_path / "run" / "recipe.yaml").exists()
    assert main(words(name, views, tmp_path / "free", "model.encoder.frozen=false")) == 0


def test_a_frozen_encoder_that_is_filled_in_part_is_refused(views: Path, tmp_path: Path, capsys: Any) -> None:
    torch.save(torchvision_state(), tmp_path / "resnet.pth")
    grey = words(
        "depth-cnn-residual", views, tmp_path / "run", "input.channels=1", "--weights", str(tmp_path / "resnet.pth")
    )
    assert main(grey) == 1
    said = capsys.readouterr().err
    assert "body.encoder.stem.0.weight first (conv1.weight is 8x3x7x7 there and 8x1x7x7 here)" in said


@pytest.mark.parametrize(
    ("name", "more", "status", "said"),
    [
        ("wafer-fast", (), 2, "has 0 ResNets; weights of others fit networks with one"),
        ("wafer-fcrn", ("--from", "elsewhere"), 2, "--from and --weights are two beginnings"),
    ],
)
def test_weights_that_mean_nothing(
    name: str, more: tuple[str, ...], status: int, said: str, fields: Path, tmp_path: Path, capsys: Any
) -> None:
    torch.save(torchvision_state(), tmp_path / "resnet.pth")
    assert main(words(name, fields, tmp_path / "run", "--weights", str(tmp_path / "resnet.pth"), *more)) == status
    assert said in capsys.readouterr().err


def test_a_golden_recipe_has_no_weights(tmp_path: Path, capsys: Any) -> None:
    assert main(["train", "golden-template", "--data", "x", "--out", str(tmp_path), "--weights", "y"]) == 2
    assert "--weights means nothing to golden-template" in capsys.readouterr().err
