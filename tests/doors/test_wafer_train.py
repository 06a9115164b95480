"""The wafer station's recipes as a user meets them: from data to bundle to figures, whatever supervises them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from make_weights import torchvision_state
from tiny import GRID, tiny_fields, tiny_overrides, tiny_views, tiny_wafer
from waferlens.bundle.files import open_bundle
from waferlens.bundle.wafer import WaferSession
from waferlens.cli.main import main
from waferlens.errors import BundleError, InputError
from waferlens.export import export
from waferlens.recipe import WaferRecipe, load_recipe, recipe_names
from waferlens.train import train
from waferlens.train.wafer import field_arrays

WAFER = [name for name in recipe_names() if isinstance(load_recipe(name), WaferRecipe)]
ON_FIELDS = [name for name in WAFER if load_recipe(name).input.scene == "fields"]  # type: ignore[attr-defined]
ON_VIEWS = [name for name in WAFER if name not in ON_FIELDS]
PROMISED = {"mae_um", "p95_die_top_um", "in_capture_range", "missing_recall", "false_missing_rate", "coverage_90"}
"""Figures of the wafer station that every bundle is judged by."""


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_fields(tmp_path_factory.mktemp("wafers") / "fields")


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_views(tmp_path_factory.mktemp("rooms") / "views")


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights in torchvision's names, for the encoders of `tiny_overrides`."""
    path = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    save_file(torchvision_state(), path)
    return path


@pytest.fixture(scope="module")
def fast(fields: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of wafer-fast."""
    run = tmp_path_factory.mktemp("runs") / "fast"
    train(tiny_wafer("wafer-fast"), fields, run, threads=1)
    return run


@pytest.fixture(scope="module")
def bundle(fast: Path) -> Path:
    export(fast, fast.parent / "bundle")
    return fast.parent / "bundle"


def told(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def curves(run: Path) -> list[dict[str, str]]:
    path = run / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "cpu_seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", ON_FIELDS)
def test_recipes_on_fields_run_from_data_to_figures(name: str, fields: Path, tmp_path: Path, capsys: Any) -> None:
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    trained = told(capsys, "train", name, *tiny_overrides(load_recipe(name)), "--data", fields, "--out", run)  # type: ignore[arg-type]
    assert trained["epochs"] == 2
    assert np.isfinite(trained["mae_validation"])
    card = json.loads((run / "runcard.json").read_text())
    assert card["data"]["world"] == "wafer-sim"
    assert card["data"]["validated_on"] == "dense"
    assert str(fields) not in (run / "runcard.json").read_text()
    exported = told(capsys, "export", run, "--out", bundle)
    assert exported["parity"]["max_abs"] <= 0.1
    assert exported["parity"]["ok_ng_flips"] == 0
    figures = told(capsys, "evaluate", bundle, "--data", fields)
    assert figures.keys() >= PROMISED
    for figure in PROMISED:
        assert figures[figure].keys() >= {"all", "dark", "bright"}
    low, high = figures["mae_um"]["all_95"]
    assert low <= figures["mae_um"]["all"] <= high
    told_sigma = name == "wafer-fast"
    assert (figures["coverage_90"]["all"] is not None) == told_sigma
    assert (bundle / "calibration.json").exists()
    session = WaferSession(open_bundle(bundle))
    assert (session.size_px is None) == (name == "wafer-fast")
    # without the track, too
    alone = told(capsys, "evaluate", bundle, "--data", fields, "--inputs", "image", "--split", "test")
    assert alone["inputs"] == ["image"]
    assert (alone["fields"], alone["wafers"]) == (1, 1)


@pytest.mark.parametrize("name", ON_VIEWS)
def test_recipes_on_views_run_from_data_to_figures(
    name: str, views: Path, resnet: Path, tmp_path: Path, capsys: Any
) -> None:
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    recipe = tiny_wafer(name)
    frozen = recipe.model.encoder is not None  # type: ignore[union-attr]
    begin = ["--weights", resnet] if frozen else []
    words = ["train", name, *tiny_overrides(recipe), "--data", views, "--out", run, *begin]
    trained = told(capsys, *words)
    assert told(capsys, "export", run, "--out", bundle)["parity"]["max_abs"] <= 0.001
    figures = told(capsys, "evaluate", bundle, "--data", views, "--split", "validation")
    assert {"rmse", "abs_rel", "delta1", "baselines"} <= figures.keys()
    # the same views, at their own size instead of the network's
    assert figures["mae"] == pytest.approx(trained["mae_validation"], rel=0.05)
    everywhere = told(capsys, "evaluate", bundle, "--data", views)
    assert (everywhere["views"], everywhere["rooms"]) == (12, 6)
    low, high = everywhere["rmse_95"]
    assert low <= everywhere["rmse"] <= high
    card = json.loads((run / "runcard.json").read_text())["results"]
    assert ("weights" in card) == frozen
    with pytest.raises(BundleError, match="depths in m of indoor views"):
        WaferSession(open_bundle(bundle))
    if frozen:  # not moved by training
        state, learned = torchvision_state(), load_file(run / "weights.safetensors")
        assert torch.equal(learned["body.encoder.stem.0.weight"], state["conv1.weight"])
        assert torch.equal(learned["body.encoder.stem.1.running_mean"], state["bn1.running_mean"])


def test_depth_networks_learn_wafers_as_well(fields: Path, tmp_path: Path, capsys: Any) -> None:
    settings = ["input.scene=fields", "input.channels=1", "input.width_px=48", "loss.mask_zero=false"]
    recipe = tiny_wafer("depth-cnn", *settings, "target.unit=um", "target.full_scale=781.25")
    train(recipe, fields, tmp_path / "run", threads=1)
    export(tmp_path / "run", tmp_path / "bundle")
    assert np.isfinite(told(capsys, "evaluate", tmp_path / "bundle", "--data", fields)["mae_um"]["all"])


@pytest.mark.parametrize("name", ON_FIELDS)
def test_three_channels(name: str, fields: Path, tmp_path: Path) -> None:
    train(tiny_wafer(name, "input.channels=3", "train.epochs=1"), fields, tmp_path / "run", threads=1)
    export(tmp_path / "run", tmp_path / "bundle")
    session = WaferSession(open_bundle(tmp_path / "bundle"))
    assert session.channels == 3
    size = session.size_px or (GRID, GRID)
    assert session.predict(np.full(size, 0.4, np.float32)).height_um.shape == size


@pytest.mark.parametrize(
    ("supervision", "terms"),
    [
        ("dense", {"pixel", "sigma", "classes"}),
        ("track", {"track", "range", "sigma"}),
        ("mixed", {"pixel", "sigma", "classes", "track", "range"}),
    ],
)
def test_supervision(supervision: str, terms: set[str], fields: Path, tmp_path: Path) -> None:
    train(tiny_wafer("wafer-fast", f"loss.supervision={supervision}"), fields, tmp_path / "run", threads=1)
    for row in curves(tmp_path / "run"):
        assert row.keys() - {"epoch", "mae_validation", "lr", "loss"} == terms
        assert all(np.isfinite(float(row[term])) for term in terms)


def test_in_mixed_some_wafers_are_dense(fields: Path) -> None:
    dense = field_arrays(tiny_wafer("wafer-fast", "loss.supervision=mixed"), fields, "train").dense
    assert 0 < dense.sum() < len(dense)
    assert field_arrays(tiny_wafer("wafer-fast"), fields, "train").dense.all()
    assert not field_arrays(tiny_wafer("wafer-fast", "loss.supervision=track"), fields, "train").dense.any()


def test_a_track_is_enough_to_learn_from(tmp_path: Path, fields: Path, monkeypatch: Any, capsys: Any) -> None:
    hidden = tiny_fields(tmp_path / "real", "real", seed=11)
    with pytest.raises(InputError, match=r"loss\.supervision=track"):
        train(tiny_wafer("wafer-fcrn", "loss.supervision=dense"), hidden, tmp_path / "refused")
    result = train(tiny_wafer("wafer-fcrn"), hidden, tmp_path / "run", threads=1)
    assert np.isfinite(result.validation)
    card = json.loads((tmp_path / "run" / "runcard.json").read_text())
    assert card["data"]["validated_on"] == "track"
    export(tmp_path / "run", tmp_path / "bundle")  # nothing is calibrated: this network tells no sigma
    assert "of the track's reading" in (tmp_path / "bundle" / "CARD.md").read_text()
    words = ["evaluate", str(tmp_path / "bundle"), "--data", str(hidden)]
    assert main(words) == 2
    assert "WAFERLENS_EVAL_SEED" in capsys.readouterr().err
    monkeypatch.setenv("WAFERLENS_EVAL_SEED", "11")
    assert told(capsys, *words)["fields"] == 9


def test_an_export_that_disagrees_is_refused(fast: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["export", str(fast), "--out", str(tmp_path / "bundle"), "--tolerance", "0"]) == 1
    assert "differ by up to" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ("image,tarck", "'tarck' is none of image, objective, product, track"),
        ("image;track", "'image;track' is none of"),
    ],
)
def test_unknown_inputs_are_refused(inputs: str, said: str, bundle: Path, fields: Path, capsys: Any) -> None:
    assert main(["evaluate", str(bundle), "--data", str(fields), "--inputs", inputs]) == 2
    assert said in capsys.readouterr().err


def test_inputs_a_network_is_never_told_are_refused(fields: Path, tmp_path: Path, capsys: Any) -> None:
    train(tiny_wafer("wafer-unet", "train.epochs=1"), fields, tmp_path / "run", threads=1)
    export(tmp_path / "run", tmp_path / "bundle")
    words = ["evaluate", str(tmp_path / "bundle"), "--data", str(fields), "--inputs", "image,track"]
    assert main(words) == 2
    assert "this network is told nothing beside the image, not track" in capsys.readouterr().err


def test_what_is_told_decides_the_figures(bundle: Path, fields: Path, capsys: Any) -> None:
    words = ["evaluate", bundle, "--data", fields, "--inputs"]
    alone, both = told(capsys, *words, "image"), told(capsys, *words, "image,product,track,product")
    assert (alone["inputs"], both["inputs"]) == (["image"], ["image", "product", "track"])
    assert alone["mae_um"]["all"] != both["mae_um"]["all"]
    assert alone["baselines"] == both["baselines"]
