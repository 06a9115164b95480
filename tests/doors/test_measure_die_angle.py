"""`waferlens measure --die-angle` as its users and their scripts meet it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from make_package import package_picture
from waferlens.cli.main import main


@pytest.fixture(scope="module")
def turned(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("turned") / "part.png"
    image, _ = package_picture((1300, 800), (400, 640), (581, 1090), angle_deg=2.0, die_deg=0.8)
    assert cv2.imwrite(str(path), image[..., ::-1])
    return path


def test_json_has_the_angle_its_interval_and_the_datum(turned, capsys) -> None:
    assert main(["measure", str(turned), "--die-angle", "--pixel-um", "2", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one["datum"] == "package"
    assert one["low"] < one["angle_deg"] < one["high"]
    assert one["angle_deg"] == pytest.approx(0.8, abs=0.02)
    assert one["verdict"] == "NG"
    assert one["offset_um"] == pytest.approx([0.0, 0.0], abs=0.4)
    assert one["file"] == str(turned)


def test_a_line_for_people_and_a_picture(turned, tmp_path, capsys) -> None:
    words = ["--die-angle", "--datum", "cavity", "--limit-deg", "1", "--out", str(tmp_path / "out")]
    assert main(["measure", str(turned), *words]) == 0
    said = capsys.readouterr().out
    assert "against the cavity" in said
    assert "OK at 1 deg" in said
    picture = cv2.imread(str(tmp_path / "out" / "part.png.png"))
    assert not np.array_equal(picture, cv2.imread(str(turned)))


def test_what_is_no_package_is_told_and_the_others_are_measured(turned, tmp_path, capsys) -> None:
    empty, broken = tmp_path / "empty.png", tmp_path / "broken.png"
    cv2.imwrite(str(empty), np.full((400, 400, 3), 90, np.uint8))
    broken.write_bytes(b"no image")
    assert main(["measure", str(empty), str(broken), str(turned), "--die-angle", "--json"]) == 1
    said = capsys.readouterr()
    results = json.loads(said.out)
    assert [one["angle_deg"] is None for one in results] == [True, False]
    assert "no chip" in results[0]["reason"]
    assert "not an image" in said.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--datum", "cavity"], "only with --die-angle"),
        (["--die-angle", "--flatness"], "ask for one of them"),
        (["--die-angle", "--pin-1", "0.5"], "shares of the die"),
        (["--die-angle", "--limit-deg", "-1"], "--limit-deg"),
    ],
)
def test_wrong_words_are_refused(turned, capsys, words, says) -> None:
    assert main(["measure", str(turned), *words]) == 2
    assert says in capsys.readouterr().err
