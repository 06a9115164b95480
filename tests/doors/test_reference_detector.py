"""A detector that is shown a good part beside each image, from folders of pairs to findings."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from make_pairs import SIDE_PX, board, pairs
from tiny_package import tiny_package
from waferlens.cli.main import main
from waferlens.errors import RecipeError
from waferlens.export import export
from waferlens.recipe import load_recipe
from waferlens.train import train
from waferlens.train.package_sources import read_sources

SETTINGS = (
    *("target.classes=[spot]", 'input.reference="{}_test.png:{}_temp.png"', "train.crop_px=null"),
    *(f"input.height_px={SIDE_PX}", f"input.width_px={SIDE_PX}", "train.lr=8e-3", "train.ema=0.9"),
    *("train.epochs=30", "train.validate_every=10"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pairs(tmp_path_factory.mktemp("pairs") / "boards", 60)


@pytest.fixture(scope="module")
def bundle(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("learned")
    train(tiny_package("package-fast-pairs", *SETTINGS), data, home / "run", threads=1)
    export(home / "run", home / "bundle")
    return home / "bundle"


def test_it_finds_what_boards_have_that_their_good_ones_have_not(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lot = pairs(tmp_path / "lot", 12, seed=7)
    told = ["inspect", str(lot / "images"), "--bundle", str(bundle), "--out", str(tmp_path / "out")]
    assert main([*told, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 12  # the good ones are no images of the lot
    with (tmp_path / "out" / "findings.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    true = sum(len(path.read_text().split("\n")) - 1 for path in (lot / "labels").glob("*.txt"))
    assert 0.7 * true <= len(found) <= 1.4 * true

    # shown each image as its own good part, it has nothing to find
    same = tmp_path / "same"
    same.mkdir()
    for path in (lot / "images").glob("*_test.png"):
        (same / path.name).write_bytes(path.read_bytes())
        (same / path.name.replace("_test", "_temp")).write_bytes(path.read_bytes())
    assert main(["inspect", str(same), "--bundle", str(bundle), "--out", str(tmp_path / "none"), "--json"]) == 0
    with (tmp_path / "none" / "findings.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) < len(found) / 4


def test_good_parts_in_a_folder_of_their_own_or_one_for_all(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, lot = tmp_path / "good", tmp_path / "lot"
    good.mkdir()
    lot.mkdir()
    for name in ("a", "b"):
        cv2.imwrite(str(lot / f"{name}.png"), board(3))
        cv2.imwrite(str(good / f"{name}.png"), board(3))
    told = ["inspect", str(lot), "--bundle", str(bundle), "--json"]
    again = [*told, "--out", str(tmp_path / "folder"), "--reference", str(good), "--pair-by", "{}.png:{}.png"]
    assert main(again) == 0
    assert main([*told, "--out", str(tmp_path / "one"), "--reference", str(good / "a.png")]) == 0
    said = capsys.readouterr().out
    assert said.count('"quarantined": 0') == 2


def test_what_does_not_match_is_review_and_what_is_not_there_is_set_aside(bundle: Path, tmp_path: Path) -> None:
    lot = tmp_path / "lot"
    lot.mkdir()
    for name, image, good in (("other", board(3), board(4)), ("alone", board(5), None)):
        cv2.imwrite(str(lot / f"{name}_test.png"), image)
        if good is not None:
            cv2.imwrite(str(lot / f"{name}_temp.png"), good)
    main(["inspect", str(lot), "--bundle", str(bundle), "--out", str(tmp_path / "out")])
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        rows = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    assert rows["other_test.png"]["verdict"] == "review"
    assert "does not lie on its reference" in rows["other_test.png"]["verdict_reason"]
    with (tmp_path / "out" / "quarantine.csv").open(newline="") as file:
        aside = list(csv.DictReader(file))
    assert len(aside) == 1
    assert "alone_temp.png is not there" in aside[0]["reason"]


def test_training_leaves_out_what_does_not_lie_on_its_reference(data: Path, tmp_path: Path) -> None:
    recipe = tiny_package("package-fast-pairs", *SETTINGS)
    whole, left_out = read_sources(recipe, data, "train")
    assert left_out == []
    assert all(source.pixels.shape == (SIDE_PX, SIDE_PX, 3) for source in whole)
    lot = pairs(tmp_path / "lot", 60)
    for path in (lot / "images").glob("*_temp.png"):
        if path.name < "030":
            cv2.imwrite(str(path), np.rot90(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)))
    some, left_out = read_sources(recipe, lot, "train")
    assert len(some) + len(left_out) == len(whole)
    assert len(left_out) > 10
    assert all("does not lie on its reference" in one for one in left_out)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("input.reference=nothing", "is no pattern of two names"),
        ("input.channels=1", "is for whole images of 3 channels"),
        ("train.augment.hue=0.1", "channels are image, reference and difference"),
        ("train.validate_every=7", "does not divide epochs"),
    ],
)
def test_recipes_that_cannot_be_are_refused(setting: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        load_recipe("package-fast-pairs", [setting])


def test_bundles_that_are_shown_images_alone_take_no_reference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), board(3))
    told = ["inspect", str(tmp_path / "a.png"), "--bundle", "package-fast", "--out", str(tmp_path / "out")]
    assert main([*told, "--reference", str(tmp_path / "a.png")]) == 2
    assert "its network is shown images without a good part" in capsys.readouterr().err
