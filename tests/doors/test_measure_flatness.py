"""`waferlens measure --flatness` as its users and their scripts meet it."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from waferlens.cli.main import main
from waferlens.formats.heightmap import write_height_map
from waferlens.records import HeightMap


def write(path: Path, heights: np.ndarray, pitch: float, pitch_unit: str = "um", unit: str = "um") -> Path:
    write_height_map(path, HeightMap(heights, np.isfinite(heights), unit, pitch, pitch, pitch_unit))
    return path


@pytest.fixture
def wafer(tmp_path) -> Path:
    """A wafer of 100 mm on pixels of 0.5 mm: 20 um deep bowl, a hole in it."""
    y, x = np.mgrid[:200, :200] - 99.5
    z = np.where(np.hypot(x, y) <= 100, 20 * (x**2 + y**2) / 1e4, np.nan)
    z[150:165, 120:140] = np.nan
    return write(tmp_path / "wafer.gwy", z, 0.5, "mm")


@pytest.fixture
def dies(tmp_path) -> Path:
    """Four parts of dies, 312 um above the carrier, on pixels of 8.2 um; the carrier is tilted."""
    y, x = 8.2 * (np.mgrid[:300, :300] + 0.5)
    z = 1e-3 * x + np.random.default_rng(0).normal(size=x.shape)
    for x0 in (-1150.0, 1220.0):
        for y0 in (-1000.0, 1370.0):
            z += 312 * ((x > x0) & (x < x0 + 2250) & (y > y0) & (y < y0 + 2250))
    return write(tmp_path / "dies.tif", z, 8.2)


def call(capsys, *words) -> tuple[int, str, str]:
    status = main(["measure", *map(str, words), "--flatness"])
    said = capsys.readouterr()
    return status, said.out, said.err


def one(out: str) -> dict:
    (result,) = json.loads(out)
    return result


def test_json_is_one_object_a_file(wafer, capsys):
    status, out, err = call(capsys, wafer, "--site", "12.5x12.5", "--edge-exclusion", "3", "--chuck", "free", "--json")
    assert (status, err) == (0, "")
    result = one(out)
    assert result["file"] == str(wafer)
    assert {
        "measurements",
        "area",
        "conditions",
        "numbers_um",
        "names_um",
        "least_squares",
        "three_points",
        "sites",
    } <= set(result)
    assert result["area"]["shape"] == "disc"
    assert result["area"]["wafer"]["diameter_mm"] == pytest.approx(100)
    assert 0.95 < result["area"]["known_share"] < 1
    # a bowl: its middle is below the plane of the three points, which lie 2 mm inside the area of 47 mm
    assert result["names_um"]["BOW"] == pytest.approx(-20 * 45.0**2 / 50.0**2, rel=1e-6)
    assert result["names_um"]["WARP"] == result["numbers_um"]["range_least_squares"]
    assert set(result["names_um"]) == {"BOW", "WARP", "SORI"}
    sites = result["sites"]
    assert sites["whole"] + sites["partial"] == len(sites["sites"])
    assert sites["measured"] < sites["whole"]  # the hole
    assert all(site["reason"] for site in sites["sites"] if site["range_um"] is None)
    rows = result["measurements"]
    assert all(set(row) == {"file", "name", "value", "unit", "low", "high", "method"} for row in rows)
    assert next(row for row in rows if row["name"] == "BOW")["value"] == result["names_um"]["BOW"]
    assert any("taken for the wafer" in remark for remark in result["remarks"])


def test_without_a_condition_names_are_plain_and_one_sentence_says_why(wafer, capsys):
    result = one(call(capsys, wafer, "--site", "12.5x12.5", "--json")[1])
    names = {row["name"] for row in result["measurements"]}
    assert result["names_um"] == {}
    assert not names & {"BOW", "WARP", "SORI", "GFLR", "GFLD", "SFQR", "SFQD", "TTV", "GBIR"}
    assert {"range_least_squares", "deviation_least_squares", "centre_deviation", "site_range"} <= names
    assert result["remarks"][0] == result["conditions"]["meaning"]
    assert result["remarks"][0].startswith("plain names: ")


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        (["--chuck", "vacuum"], {"GFLR", "GFLD", "GF3R", "GF3D", "SFQR", "SFQD", "SFLR"}),
        (["--thickness-map"], {"GFLR", "GFLD", "GF3R", "GF3D", "SFQR", "SFQD", "SFLR", "TTV", "GBIR", "SBIR"}),
    ],
)
def test_a_condition_brings_its_names(wafer, capsys, condition, names):
    result = one(call(capsys, wafer, "--site", "12.5x12.5", *condition, "--json")[1])
    assert set(result["names_um"]) == names
    assert {row["name"] for row in result["measurements"]} >= names


def test_a_stated_wafer_and_partial_sites(wafer, capsys):
    words = ["--site", "12.5x12.5", "--wafer-mm", "80", "--wafer-centre-mm", "50,50", "--partial-sites", "--json"]
    result = one(call(capsys, wafer, *words)[1])
    assert result["area"]["wafer"] == {"diameter_mm": 80, "x_mm": 50, "y_mm": 50}
    assert result["sites"]["partial_measured"] is True
    assert any(site["partial"] and site["range_um"] is not None for site in result["sites"]["sites"])


def test_people_get_a_table_and_files(wafer, tmp_path, capsys):
    folder = tmp_path / "out"
    status, out, _ = call(capsys, wafer, "--site", "12.5x12.5", "--chuck", "vacuum", "--out", folder)
    assert status == 0
    for line in ("a wafer of 100 mm, edge exclusion 0 mm", "GFLR", "SFQR", "three points:", "  site  x0, y0 [mm]"):
        assert line in out
    picture = folder / "wafer.gwy.png"
    assert f"figure: {picture}" in out
    with Image.open(picture) as drawn:
        drawn.load()
        assert drawn.width > 800
    with (folder / "wafer.gwy.sites.csv").open() as file:
        rows = list(csv.DictReader(file))
    whole = json.loads((folder / "wafer.gwy.json").read_text())
    assert len(rows) == len(whole["sites"]["sites"])
    assert rows[0]["partial"] == "1"
    assert rows[0]["range_um"] == ""
    assert {name.name for name in folder.iterdir()} == {"wafer.gwy.png", "wafer.gwy.json", "wafer.gwy.sites.csv"}


def test_steps_between_dies_and_street(dies, tmp_path, capsys):
    folder = tmp_path / "out"
    status, out, _ = call(capsys, dies, "--product", "310:312", "--out", folder, "--json")
    assert status == 0
    result = one(out)
    assert len(result["steps"]) == 4
    for step in result["steps"]:
        assert step["step_um"] == pytest.approx(312, abs=0.2)
        assert 0 < step["sigma_um"] < 0.2
    assert next(row for row in result["measurements"] if row["name"] == "step_height")["value"] == pytest.approx(
        312, abs=0.5
    )
    assert len((folder / "dies.tif.steps.csv").read_text().splitlines()) == 5
    assert (folder / "dies.tif.dies.json").exists()
    status, out, _ = call(capsys, dies, "--product", "310:312")
    assert "step of die 3 level 0: 31" in out


def test_an_image_refines_the_edges_of_the_dies(dies, tmp_path, capsys):
    from waferlens.formats.heightmap import read_height_map

    z = read_height_map(dies).heights
    image = tmp_path / "image.png"
    Image.fromarray(np.where(z > 100, 180, 60).astype(np.uint8)).save(image)
    result = one(call(capsys, dies, "--product", "310:312", "--image", image, "--json")[1])
    assert [step["step_um"] for step in result["steps"]] == pytest.approx([312] * 4, abs=1)
    small = tmp_path / "small.png"
    Image.new("L", (20, 20)).save(small)
    status, out, err = call(capsys, dies, "--product", "310:312", "--image", small, "--json")
    assert (status, json.loads(out)) == (1, [])
    assert "the image of 20 x 20 px is not of the grid of the map, 300 x 300 px" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--site", "25"], "--site 25: write width x height in mm, as 25x25"),
        (["--site", "axb"], "--site axb: write width x height in mm"),
        (["--site", "5x-5"], "both sides must be positive"),
        (["--site", "5xnan"], "both sides must be positive"),
        (["--site-offset", "5"], "--site-offset 5: write two numbers in mm"),
        (["--wafer-centre-mm", "50,50"], "needs its diameter: give --wafer-mm as well"),
        (["--wafer-mm", "-3"], "--wafer-mm -3: must be positive"),
        (["--edge-exclusion", "-1"], "--edge-exclusion -1: must be 0 or positive"),
        (["--least-known", "0"], "--least-known 0: a share"),
        (["--chuck", "free", "--thickness-map"], "nothing of the shape of a free wafer"),
        (["--figures", "pictures"], "give --out instead of --figures"),
        (["--outliers", "--form", "polynomial-2"], "leave out --form, --outliers"),
        (["--product", "thick"], "--product thick"),
    ],
)
def test_a_wrong_option_is_refused(wafer, capsys, words, said):
    status, _, err = call(capsys, wafer, *words)
    assert status == 2
    assert said in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--site", "200x10"], "larger than the area of 100 x 100 mm"),
        (["--edge-exclusion", "50"], "an edge exclusion of 50 mm leaves nothing of a wafer of 100 mm"),
        (["--site", "1x1"], "fewer than 3 px of 0.5 mm"),
        (["--wafer-mm", "30", "--wafer-centre-mm", "500,50"], "lies beside the map of 100 x 100 mm"),
    ],
)
def test_what_does_not_fit_a_map_is_said_of_that_map(wafer, dies, capsys, words, said):
    status, out, err = call(capsys, wafer, *words, "--json")
    assert (status, json.loads(out)) == (1, [])
    assert err.startswith(f"waferlens measure: {wafer}: ")
    assert said in err


def test_a_map_without_unit_or_pitch_is_refused(tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.zeros((30, 30)))
    status, _, err = call(capsys, tmp_path / "a.npy", "--pitch-um", "5")
    assert status == 1
    assert "the file names no unit; give it with --height-unit" in err
    grey = write(tmp_path / "grey.tif", np.zeros((30, 30)), 1.0, "px")
    status, _, err = call(capsys, grey)
    assert status == 1
    assert "the file says no pitch; give it with --pitch-um" in err
    status, out, _ = call(capsys, tmp_path / "a.npy", "--pitch-um", "5", "--height-unit", "nm", "--json")
    assert status == 0
    assert one(out)["numbers_um"]["range_least_squares"] == 0


def test_units_of_the_file_become_um(tmp_path, capsys):
    y, x = np.mgrid[:64, :64] - 31.5
    z = x**2 + y**2
    in_um = write(tmp_path / "um.gwy", z, 100.0)
    in_nm = write(tmp_path / "nm.gwy", 1e3 * z, 0.1, "mm", "nm")
    ours, theirs = json.loads(call(capsys, in_um, in_nm, "--json", "--site", "2x2")[1])
    assert ours["numbers_um"] == pytest.approx(theirs["numbers_um"], rel=1e-9)


def test_maps_with_nothing_known_give_null_and_a_reason(tmp_path, capsys):
    bare = write(tmp_path / "bare.tif", np.full((40, 40), math.nan), 100.0)
    status, out, _ = call(capsys, bare, "--site", "1x1", "--chuck", "free", "--json", "--out", tmp_path / "out")
    assert status == 0
    result = one(out)
    assert set(result["names_um"].values()) == {None}
    nulls = [row for row in result["measurements"] if row["value"] is None]
    assert len(nulls) > 10
    assert all(row["method"].startswith("not measured: ") for row in nulls)
    assert (tmp_path / "out" / "bare.tif.png").exists()


def test_options_of_flatness_alone_are_refused_without_it(wafer, capsys):
    assert main(["measure", str(wafer), "--site", "5x5", "--chuck", "free"]) == 2
    assert "--site, --chuck: only with --flatness" in capsys.readouterr().err
