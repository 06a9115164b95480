"""Recipes of the package station: what the shipped ones say, and what does not fit together is told with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from waferlens.cli.main import main
from waferlens.errors import RecipeError
from waferlens.recipe import PackageRecipe, load_recipe

DETECTORS = ["package-yolov7-tiny", "package-yolov7-tiny-nwd", "package-yolov7-tiny-nwd-coord",
             "package-yolov7-tiny-nwd-slim"]  # fmt: skip
ROIS = ["roi-yolov5n", "roi-yolov5n-seg", "roi-yolov5s-seg"]


def recipe_of(name: str) -> PackageRecipe:
    recipe = load_recipe(name)
    assert isinstance(recipe, PackageRecipe)
    return recipe


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_train_as_s2_did(name: str) -> None:
    recipe = recipe_of(name)
    train, augment = recipe.train, recipe.train.augment
    assert recipe.target.classes == ("crack", "rotate")
    assert (recipe.input.height_px, recipe.input.width_px, recipe.input.region) == (640, 640, "roi")
    assert (train.epochs, train.batch, train.optimizer, train.lr, train.momentum) == (300, 16, "sgd", 0.01, 0.937)
    assert (train.weight_decay, train.warmup_epochs, train.schedule, train.seed) == (5e-4, 3, "cosine", 1)
    assert (augment.mixup, augment.paste_in, augment.rotate_deg, augment.flip) == (0.05, 0.05, 0.0, False)
    assert (augment.scale, augment.shift) == (0.5, 0.1)
    assert (recipe.loss.box_weight, recipe.loss.class_weight, recipe.loss.object_weight) == (0.05, 0.5, 1.0)
    assert recipe.loss.assign == "ota"
    assert recipe.loss.box == ("ciou-nwd" if "nwd" in name else "ciou")
    assert recipe.loss.nwd_px == 12.8
    assert recipe.model.anchors is None  # type: ignore[union-attr]


def test_settings_differ_in_what_s2_changed() -> None:
    base, nwd, coord, slim = (
        recipe_of(name).model_dump(exclude={"name", "summary", "builds_on"}) for name in DETECTORS
    )
    assert base | {"loss": base["loss"] | {"box": "ciou-nwd"}} == nwd
    assert nwd | {"model": nwd["model"] | {"neck": "coord"}} == coord
    assert nwd | {"model": nwd["model"] | {"neck": "slim"}} == slim


@pytest.mark.parametrize("name", ROIS)
def test_rois_train_as_s2_did(name: str) -> None:
    recipe = recipe_of(name)
    assert recipe.target.classes == ("package",)
    assert (recipe.input.region, recipe.input.height_px, recipe.input.width_px) == ("image", 640, 640)
    assert (recipe.train.epochs, recipe.train.batch, recipe.train.augment.rotate_deg) == (50, 16, 90.0)
    assert recipe.model.masks == name.endswith("-seg")  # type: ignore[union-attr]
    assert recipe.model.width == (0.5 if "5s" in name else 0.25)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("parent", "written", "said"),
    [
        ("roi-yolov5n", "model: {width: 0}", "model.width = 0: should be greater than 0"),
        ("package-yolov7-tiny", "model: {neck: slimm}", "model.neck = slimm"),
        ("roi-yolov5n", "model: {anchors: [[[1, 2]], [[3, 4]]]}", "as many at each of the strides 8, 16 and 32"),
        ("roi-yolov5n", "model: {anchors: [[[1, 2]], [[3, 4]], []]}", "as many at each of the strides 8, 16 and 32"),
        ("roi-yolov5n", "model: {anchors: [[[1, 2]], [[3, 4]], [[5, -6]]]}", "should be greater than 0"),
        ("package-yolov7-tiny", "loss: {assign: aligned}", "yolov7-tiny has anchors; set loss.assign=ota or anchor"),
        ("roi-yolov5n", "input: {width_px: 600}", "input.width_px = 600: should be a multiple of 32"),
        ("roi-yolov5n", "target: {classes: [package, package]}", "names a class twice"),
    ],
)  # fmt: skip
def test_what_does_not_fit(parent: str, written: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: {parent}\nname: mine\n{written}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path))
    assert "mine.yaml:3: " in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("model", "size", "said"),
    [
        ("{kind: package-fast, widths: [8, 8, 8], blocks: [1, 1]}", 640, "tells 2 scales, widths 3"),
        ("{kind: package-fast, unshuffle: 8, widths: [8, 8, 8, 8], blocks: [1, 1, 1, 1]}", 96, "need a multiple of 64"),
        ("{kind: package-fast}", 640, "package-fast has no anchors; set loss.assign=aligned"),
    ],
)
def test_what_does_not_fit_the_fast_network(model: str, size: int, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"name: mine\nstation: package\nsource: waferlens\nsummary: mine\nmodel: {model}\n"
        f"input: {{height_px: {size}, width_px: {size}}}\n"
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path))
    assert said in str(caught.value)


def test_show_says_what_finders_of_packages_hold(capsys: Any) -> None:
    assert main(["recipes", "show", "roi-edges", "--json"]) == 0
    assert "no network" in json.loads(capsys.readouterr().out)["note"]
    assert main(["recipes", "show", "roi-yolov5n-sam", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["network"]["parameters_fused"] == 1_760_518
    assert "of roi-yolov5n, which draws the boxes" in told["note"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("roi-edges", "nothing in roi-edges is trained"), ("roi-yolov5n-sam", "train and export roi-yolov5n")],
)
def test_what_is_not_trained_says_what_to_do(name: str, said: str, tmp_path: Path, capsys: Any) -> None:
    assert main(["train", name, "--data", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err


def test_a_misspelt_finder_is_still_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: roi-edges\nname: mine\nmodel: {kind: edge-roi}\n")
    with pytest.raises(RecipeError, match="did you mean 'edges-roi'"):
        load_recipe(str(path))


def test_show_counts_the_network(capsys: Any) -> None:
    assert main(["recipes", "show", "roi-yolov5n-seg", "input.height_px=64", "input.width_px=64", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["network"]["parameters_fused"] == 1_879_750
    assert set(told["network"]) == {"parameters", "trainable", "parameters_fused", "gflops"}
    assert "YOLACT" in told["sources"]["bolya-2019"]
