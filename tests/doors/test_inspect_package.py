"""The package station from images to verdicts, with a network made by hand: what it says is known."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from make_package_bundle import BOXES, HEIGHT_PX, WIDTH_PX, make_package_bundle
from waferlens.cli.main import main
from waferlens.formats.package_set import Device, devices, read_device
from waferlens.prepare.package_geometry import placed
from waferlens.prepare.package_part import beyond
from waferlens.simulate.package.dataset import package_world, write_devices

DEVICES = 6


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages") / "set"
    write_devices(folder, package_world("sim"), DEVICES, 3)
    return folder


@pytest.fixture(scope="module")
def known(packages: Path) -> dict[str, Device]:
    told = {
        read_device(packages, number).images["bf"].stem: read_device(packages, number) for number in devices(packages)
    }
    assert len(told) == DEVICES
    return told


@pytest.fixture(scope="module")
def sees_cracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "cracks"
    make_package_bundle(path)
    return path


@pytest.fixture(scope="module")
def sees_nothing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "nothing"
    make_package_bundle(path, crack=0.1, turned=0.9)
    return path


def inspected(images: list[Path], bundle: Path, out: Path, *more: str) -> list[dict[str, str]]:
    status = main(["inspect", *map(str, images), "--bundle", str(bundle), "--out", str(out), *more])
    assert status in (0, 1)
    with (out / "results.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def findings(out: Path) -> list[dict[str, str]]:
    with (out / "findings.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def brightfield(packages: Path) -> list[Path]:
    return sorted((packages / "images").glob("*-bf.png"))


def test_the_angle_alone_decides_where_no_crack_is_seen(
    packages: Path, known: dict[str, Device], sees_nothing: Path, tmp_path: Path
) -> None:
    rows = inspected(brightfield(packages), sees_nothing, tmp_path / "run")
    assert len(rows) == DEVICES
    turned = 0
    for row in rows:
        true = known[Path(row["path"]).stem].theta_die_deg
        assert true is not None
        assert float(row["die_angle_deg"]) == pytest.approx(true, abs=0.2)
        assert float(row["die_angle_deg_low"]) < float(row["die_angle_deg"]) < float(row["die_angle_deg_high"])
        if abs(true) > 0.8:
            assert row["verdict"] == "NG"
            assert "die angle" in row["verdict_reason"]
            turned += 1
        elif abs(true) < 0.3:
            assert row["verdict"] == "OK", row["verdict_reason"]
    assert turned, "a turned die is among them"
    found = findings(tmp_path / "run")
    assert {one["kind"] for one in found} == {"rotate"}, "the network's own turned die is not believed"
    assert len(found) == turned


def test_a_crack_stands_where_the_network_saw_it(
    packages: Path, known: dict[str, Device], sees_cracks: Path, tmp_path: Path
) -> None:
    rows = inspected(brightfield(packages), sees_cracks, tmp_path / "run")
    assert {row["verdict"] for row in rows} == {"NG"}
    found = [one for one in findings(tmp_path / "run") if one["kind"] == "crack"]
    assert len(found) == DEVICES
    x0, y0, x1, y1 = BOXES[0]
    for one in found:
        device = known[Path(one["path"]).stem]
        there = placed(device.ic_quad, HEIGHT_PX, WIDTH_PX).to_image(np.array([[(x0 + x1) / 2, (y0 + y1) / 2]]))[0]
        middle = [(float(one["x0"]) + float(one["x1"])) / 2, (float(one["y0"]) + float(one["y1"])) / 2]
        assert np.hypot(*(np.array(middle) - there)) < 6, "the package is found to a few pixels"
        assert float(one["score"]) == pytest.approx(0.9, abs=1e-6)
    pictures = list((tmp_path / "run" / "overlays").iterdir())
    assert len(pictures) == DEVICES
    assert (cv2.imread(str(pictures[0])) == (60, 60, 230)).all(axis=2).any(), "the finding is drawn"


def test_what_cannot_be_inspected_says_why(packages: Path, sees_cracks: Path, tmp_path: Path) -> None:
    lot = tmp_path / "lot"
    lot.mkdir()
    good = cv2.imread(str(brightfield(packages)[0]))
    shutil.copy(packages / "images" / f"{brightfield(packages)[0].stem.removesuffix('-bf')}-dfw.png", lot / "dark.png")
    cv2.imwrite(str(lot / "black.png"), np.zeros_like(good))
    cv2.imwrite(str(lot / "board.png"), np.full_like(good, (60, 110, 50)))
    cv2.imwrite(str(lot / "deep.png"), good.astype(np.uint16) * 257)
    whole = cv2.imencode(".jpg", good)[1].tobytes()
    (lot / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (lot / "text.png").write_text("no image")
    cv2.imwrite(str(lot / "part.png"), good[:, : good.shape[1] // 2])
    rows = {Path(row["path"]).name: row for row in inspected([lot], sees_cracks, tmp_path / "run")}
    assert "taken in light dfw; the bundle knows bf" in rows["dark.png"]["verdict_reason"]
    for name in ("dark.png", "black.png", "board.png", "part.png"):
        assert rows[name]["verdict"] == "review", name
        assert rows[name]["verdict_reason"].startswith("not inspected: "), name
    with (tmp_path / "run" / "quarantine.csv").open(encoding="utf-8") as file:
        reasons = {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}
    assert set(reasons) == {"deep.png", "cut.jpg", "text.png"}
    assert "8 bits a colour" in reasons["deep.png"]


def test_offsets_are_in_um_where_a_pixel_has_a_size(packages: Path, sees_nothing: Path, tmp_path: Path) -> None:
    images = brightfield(packages)[:1]
    (px,) = inspected(images, sees_nothing, tmp_path / "px")
    (um,) = inspected(images, sees_nothing, tmp_path / "um", "--pitch-um", "2.0")
    for axis in "xy":
        assert float(um[f"die_offset_{axis}_um"]) == pytest.approx(2 * float(px[f"die_offset_{axis}_px"]), abs=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--pitch-um", "0"], "the size of a pixel is more than 0 um"),
        (["--track", "trace.csv"], "--track means nothing to nothing, a bundle of station package"),
    ],
)
def test_wrong_options_are_refused(
    words: list[str], said: str, packages: Path, sees_nothing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = str(brightfield(packages)[0])
    assert main(["inspect", one, "--bundle", str(sees_nothing), "--out", str(tmp_path / "run"), *words]) == 2
    assert said in capsys.readouterr().err


def test_a_bundle_is_judged_on_the_way_it_inspects(
    packages: Path, known: dict[str, Device], sees_nothing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(sees_nothing), "--data", str(packages), "--out", str(tmp_path / "judged"), "--json"]
    assert main(words) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["parts"] == {"found": DEVICES, "not_found": {}}
    assert told["angle"]["dies"] == DEVICES
    assert told["angle"]["p95_deg"] < 0.2
    turned = sum(any(one.kind == "rotate" for one in device.defects) for device in known.values())
    assert told["classes"]["rotate"]["truths"] == turned
    assert told["classes"]["rotate"]["ap50"] == pytest.approx(1.0), "turned dies come first, in their own boxes"
    assert told["crack_ap50"] == 0.0, "no crack lies where this network sees one"
    assert {"map50", "map50_95", "capture_rate", "false_alarm_rate"} <= set(told)
    assert (tmp_path / "judged" / "evaluation.json").exists()
    assert main([*words[:4]]) == 0
    assert f"packages found: {DEVICES} of {DEVICES}" in capsys.readouterr().out


def test_the_chance_that_an_angle_is_beyond_its_limit() -> None:
    assert beyond(0.5, 0.01, 0.5) == pytest.approx(0.5)
    assert beyond(0.0, 0.25, 0.5) == pytest.approx(0.0455, abs=1e-4), "two standard deviations on either side"
    assert beyond(-0.6, 0.05, 0.5) == pytest.approx(0.97725, abs=1e-5)
