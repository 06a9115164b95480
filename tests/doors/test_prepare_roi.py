"""`waferlens prepare roi` as its users and their scripts meet it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from make_package import package_picture
from waferlens.cli.main import main


def write(path: Path, image: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image[..., ::-1])
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write(folder / "a-bf.png", package_picture((800, 800), (400, 400), angle_deg=25.0)[0])
    write(folder / "b-dfw.png", package_picture((800, 800), (400, 400), angle_deg=-100.0, light="dfw")[0])
    write(folder / "cut.png", package_picture((800, 800), (110, 400))[0])
    (folder / "broken.jpg").write_bytes(cv2.imencode(".jpg", np.full((200, 200, 3), 90, np.uint8))[1].tobytes()[:900])
    return folder


def call(capsys, *words) -> tuple[int, str, str]:
    status = main(["prepare", "roi", *map(str, words), "--size", "290x545"])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_a_folder_becomes_crops_results_and_quarantine(pictures, tmp_path, capsys) -> None:
    status, out, _ = call(capsys, pictures, "--out", tmp_path / "roi", "--method", "edges", "--json")
    assert status == 1
    result = json.loads(out)
    assert result == json.loads((tmp_path / "roi" / "roi.json").read_text())
    by_name = {Path(one["file"]).name: one for one in result["images"]}
    assert {Path(one["file"]).name for one in result["quarantined"]} == {"cut.png", "broken.jpg"}
    assert "cut by the left edge" in by_name["cut.png"]["reason"]
    assert "truncated JPEG" in by_name["broken.jpg"]["reason"]
    good = by_name["a-bf.png"]
    assert good["light"] == "bf"
    assert good["angle_deg"] == pytest.approx(25.0, abs=0.05)
    assert np.array(good["quad"]).shape == (4, 2)
    assert np.array(good["homography"]).shape == (3, 3)
    assert cv2.imread(good["crop"]).shape == (545, 290, 3)
    assert by_name["b-dfw.png"]["light"] == "dfw"
    assert {path.name for path in (tmp_path / "roi").iterdir()} == {"a-bf.png", "b-dfw.png", "roi.json"}


def test_patterns_and_the_other_method(pictures, tmp_path, capsys) -> None:
    status, out, err = call(capsys, pictures / "*-bf.png", "--out", tmp_path / "roi", "--method", "opencv")
    assert (status, err) == (0, "")
    assert "score" in out
    assert cv2.imread(str(tmp_path / "roi" / "a-bf.png")).shape == (545, 290, 3)


def test_darkfield_where_brightfield_is_said(pictures, tmp_path, capsys) -> None:
    status, _, err = call(capsys, pictures / "b-dfw.png", "--out", tmp_path / "roi", "--light", "bf")
    assert status == 1
    assert "brightfield is said" in err


def test_wrong_words_are_refused(pictures, tmp_path, capsys) -> None:
    assert main(["prepare", "roi", str(pictures), "--out", str(tmp_path / "x"), "--size", "big"]) == 2
    assert "581x1090" in capsys.readouterr().err
    assert main(["prepare", "roi", str(tmp_path / "none-*.png"), "--out", str(tmp_path / "x")]) == 1
    assert "matches no file" in capsys.readouterr().err
