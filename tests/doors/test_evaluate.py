"""`evaluate` as a user meets it: sides, scales, tolerances, and what it says when it cannot compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from make_bundle import HEIGHT, make_bundle, network
from waferlens.bundle.calibration import Calibration
from waferlens.bundle.session import Session
from waferlens.cli.main import main
from waferlens.evaluate.hole import _suffix, evaluate_pairs
from waferlens.evaluate.sites import SEED_VARIABLE
from waferlens.load.challenge import scan
from waferlens.prepare.splits import split_of
from waferlens.simulate.hole.dataset import hole_world, write_pairs, write_sites

SEED = 5


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    write_pairs(folder, hole_world("sim"), 3, SEED)
    return folder


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sites")
    write_sites(folder, hole_world("real"), 12, 2, SEED)
    return folder


def evaluated(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main(["evaluate", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("unit", ["nm", "grey", "um"])
def test_tolerances_are_taken_in_any_unit(unit: str, pairs: Path, tmp_path: Path, capsys: Any) -> None:
    # 20 nm, or the same told otherwise: a grey value is 2 nm here
    low, high = {"nm": (110.0, 130.0), "grey": (55.0, 65.0), "um": (0.11, 0.13)}[unit]
    limits = {"depth": {"low": low, "high": high, "unit": unit}}
    make_bundle(tmp_path / "bundle", depth={"nm_per_grey": 2.0}, limits=limits)
    depth = evaluated(capsys, tmp_path / "bundle", "--data", pairs)["depth"]
    assert depth["precision_to_tolerance"] == pytest.approx(2 * depth["repeatability_3s_nm"] / 20.0)


def test_figures_are_named_with_their_units(pairs: Path, tmp_path: Path, capsys: Any) -> None:
    make_bundle(tmp_path / "bundle")
    told = evaluated(capsys, tmp_path / "bundle", "--data", pairs)
    assert {"bias_grey", "rmse_grey"} <= told["depth"].keys()
    assert {"bias_px2", "repeatability_3s_px2"} <= told["opening_area"].keys()
    assert _suffix("grey px2") == "_grey_px2"


def test_sites_are_compared_in_nm_and_by_side(sites: Path, tmp_path: Path, capsys: Any) -> None:
    make_bundle(tmp_path / "one", depth={"nm_per_grey": 1.0})
    make_bundle(tmp_path / "two", depth={"nm_per_grey": 2.0})
    once, twice = (evaluated(capsys, tmp_path / name, "--data", sites)["sites"] for name in ("one", "two"))
    assert twice["depth_uniformity_3s_nm"] == pytest.approx(2 * once["depth_uniformity_3s_nm"])
    keys = {hole.site for hole in scan(sites).real}
    train = sum(split_of(key) == "train" for key in keys)
    assert 0 < train < len(keys)
    assert evaluated(capsys, tmp_path / "one", "--data", sites, "--split", "train")["sites"]["sites"] == train
    make_bundle(tmp_path / "grey")
    assert main(["evaluate", str(tmp_path / "grey"), "--data", str(sites)]) == 2
    assert "depth.nm_per_grey" in capsys.readouterr().err


def test_holes_of_sites_are_not_taken_for_repeats(sites: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    make_bundle(tmp_path / "bundle", depth={"nm_per_grey": 1.0})
    monkeypatch.setenv(SEED_VARIABLE, str(SEED))
    told = evaluated(capsys, tmp_path / "bundle", "--data", sites)
    assert told["images"] == 24
    assert told["depth"]["repeatability_3s_nm"] is None
    words = [
        "evaluate",
        str(tmp_path / "bundle"),
        "--data",
        str(sites),
        "--split",
        "train",
        "--out",
        str(tmp_path / "o"),
    ]
    assert main(words) == 0
    assert json.loads((tmp_path / "o" / "evaluation.json").read_text())["depth"]["repeatability_3s_nm"] is None
    (sites / "SHA256SUMS").rename(sites / "sums")
    assert main(words) == 1
    assert "SHA256SUMS" in capsys.readouterr().err
    (sites / "sums").rename(sites / "SHA256SUMS")


def test_one_structure_and_no_calibration_are_enough(pairs: Path, tmp_path: Path) -> None:
    from waferlens.load.challenge import load_sim

    bundle = make_bundle(tmp_path / "bundle", parts={"calibration.json": Calibration()})
    data = load_sim(pairs, keep=lambda hole: hole.structure == "000000")
    summary = evaluate_pairs(Session(bundle), bundle.calibration, data, nm_per_grey=None).summary
    assert summary["baselines"] == {}
    assert np.isnan(summary["depth"]["interval_score"])


def test_wrong_usage_says_what_to_change(pairs: Path, tmp_path: Path, capsys: Any) -> None:
    make_bundle(tmp_path / "bundle")
    small = {"height_px": HEIGHT - 8, "width_px": 48}
    make_bundle(tmp_path / "small", parts={"model.onnx": network(height=HEIGHT - 8)}, input=small)
    (tmp_path / "file").touch()
    for words, status, said in (
        (["bundle", "--split", "calibration"], 1, "simulate more structures"),
        (["bundle", "--split", "tst"], 2, "one of all, train"),
        (["bundle", "--out", str(tmp_path / "file")], 2, "is a file"),
        (["small"], 2, "trained for 48x64 px"),
    ):
        assert main(["evaluate", str(tmp_path / words[0]), *words[1:], "--data", str(pairs)]) == status
        assert said in capsys.readouterr().err
