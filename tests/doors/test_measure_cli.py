"""The verb `measure` as its users and their scripts meet it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from waferlens.cli.main import main
from waferlens.formats.heightmap import write_height_map
from waferlens.records import HeightMap


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """A GWY and an X3P map with holes: 1 um/mm to the right, a sine of 0.1 um on it."""
    y, x = np.mgrid[:64, :96].astype(float)
    heights = 0.002 * x + 0.1 * np.sin(2 * math.pi * y / 16)
    valid = np.hypot(x - 48, y - 32) > 5
    heights[~valid] = math.nan
    made = HeightMap(heights, valid, "um", 2.0, 2.0, "um")
    paths = [tmp_path / "a.gwy", tmp_path / "b.x3p"]
    for path in paths:
        write_height_map(path, made)
    return paths


def call(capsys, *words) -> tuple[int, str, str]:
    status = main(["measure", *map(str, words)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_json_is_the_list_scripts_rely_on(files, capsys):
    status, out, err = call(capsys, *files, "--json")
    assert (status, err) == (0, "")
    records = json.loads(out)
    assert all(set(record) == {"file", "name", "value", "unit", "low", "high", "method"} for record in records)
    assert {record["file"] for record in records} == set(map(str, files))
    assert all(record["low"] is None and record["high"] is None for record in records)
    tilts = [record["value"] for record in records if record["name"] == "tilt_x"]
    assert tilts == pytest.approx([1.0, 1.0], abs=0.02)
    assert {record["unit"] for record in records if record["name"] == "Sq"} == {"um"}


def test_a_bad_file_is_named_and_the_others_are_measured(files, tmp_path, capsys):
    bad = tmp_path / "poem.txt"
    bad.write_text("no numbers here\n")
    status, out, err = call(capsys, files[0], bad, tmp_path / "absent.gwy", files[1], "--json")
    assert status == 1
    assert {record["file"] for record in json.loads(out)} == set(map(str, files))
    lines = err.strip().splitlines()
    assert len(lines) == 2
    assert f"{bad}: " in lines[0]
    assert "absent.gwy: cannot be read" in lines[1]


def test_only_bad_files_still_give_a_list(tmp_path, capsys):
    (tmp_path / "empty.frt").write_bytes(b"")
    status, out, err = call(capsys, tmp_path / "empty.frt", "--json")
    assert (status, json.loads(out)) == (1, [])
    assert "the file is empty" in err


def test_people_get_a_table_a_file(files, capsys):
    status, out, _ = call(capsys, *files)
    assert status == 0
    assert out.count("GWY, channel 'Height', 96 x 64 points, pitch 2 x 2 µm") == 1
    assert out.count("X3P, channel 'Height'") == 1
    assert "µm/mm" in out
    assert "Sa to Sku: ISO 25178-2; levelled by the least-squares plane; no S-filter; no L-filter" in out


def test_options_reach_the_numbers(files, capsys):
    words = ["--level", "robust", "--form", "polynomial-2", "--s-filter-um", "10", "--l-filter-um", "120", "--outliers"]
    status, out, _ = call(capsys, files[0], *words, "--json")
    assert status == 0
    sq = next(record for record in json.loads(out) if record["name"] == "Sq")
    for step in ("without points", "cutoff 10 um", "robust plane", "second-order", "cutoff 120 um"):
        assert step in sq["method"]
    status, out, _ = call(capsys, files[0], "--level", "three-points", "--points", "5,5 90,5 40,60", "--json")
    assert "through (5, 5), (90, 5), (40, 60) px" in json.loads(out)[-1]["method"]


def test_arrays_need_a_pitch_and_may_have_a_unit(tmp_path, capsys):
    path = tmp_path / "map.npy"
    np.save(path, np.random.default_rng(0).normal(size=(40, 40)))
    status, _, err = call(capsys, path, "--json")
    assert status == 1
    assert "--pitch-um" in err
    status, out, _ = call(capsys, path, "--pitch-um", "2", "--height-unit", "nm", "--json")
    assert status == 0
    assert {record["unit"] for record in json.loads(out)} == {"1", "nm", "um/mm"}


def test_figures_are_drawn_one_a_file(files, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.gwy").write_bytes(files[0].read_bytes())
    status, out, _ = call(capsys, *files, other / "a.gwy", "--figures", tmp_path / "pictures")
    assert status == 0
    drawn = sorted((tmp_path / "pictures").iterdir())
    assert [path.name for path in drawn] == ["a.gwy-2.png", "a.gwy.png", "b.x3p.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
    assert f"figure: {tmp_path / 'pictures' / 'b.x3p.png'}" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--level", "best"], "best"),
        (["--points", "1,2 3,4"], "write three pairs as 'x,y x,y x,y'"),
        (["--points", "1,2 3,4 5,six"], "write three pairs as 'x,y x,y x,y'"),
        (["--points", "1,2 30,4 5,60"], "points are for levelling by three points"),
        (["--trim-percent", "60"], "trim between 0 and 50 %"),
        (["--pitch-um", "-1"], "the pitch must be a positive number"),
        (["--height-unit", "furlong"], "unit 'furlong' is unknown"),
    ],
)
def test_wrong_usage_exits_with_two(files, capsys, words, said):
    status, out, err = call(capsys, files[0], *words, "--json")
    assert (status, out) == (2, "")
    assert said in err


def test_a_filter_that_does_not_fit_a_map_is_that_file_s_fault(files, capsys):
    status, _, err = call(capsys, files[0], "--l-filter-um", "1000")
    assert status == 1
    assert "the L-filter's cutoff of 1000 um is longer than the map" in err
    status, _, err = call(capsys, files[0], "--channel", "Phase")
    assert status == 1
    assert "has no channel 'Phase'; channels: 0: Height [m]" in err


def test_a_missing_extra_is_named_and_the_others_are_measured(files, tmp_path, capsys, monkeypatch):
    from waferlens.errors import MissingExtraError
    from waferlens.formats import instruments

    def absent(extra: str, module: str) -> None:
        raise MissingExtraError(f"'{module}' is not installed: pip install 'waferlens[{extra}]'")

    monkeypatch.setattr(instruments, "require", absent)
    chip = tmp_path / "chip.frt"
    chip.write_bytes(b"FRTM_GLIDERV1.00:")
    status, out, err = call(capsys, chip, files[0], "--json")
    assert status == 2
    assert {record["file"] for record in json.loads(out)} == {str(files[0])}
    assert f"{chip}: " in err
    assert "pip install 'waferlens[formats]'" in err
