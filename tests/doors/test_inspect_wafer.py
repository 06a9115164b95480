"""Inspection of wafers: maps that are what the network says, whatever the tiles; places on the stage; bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from scipy.ndimage import uniform_filter

from make_bundle import make_bundle
from make_wafer_bundle import PITCH_UM, make_wafer_bundle, scene, write_swath
from waferlens.cli.main import main
from waferlens.errors import UsageError
from waferlens.formats.heightmap import read_height_map
from waferlens.formats.stage_trace import write_trace
from waferlens.inspect import inspect_paths
from waferlens.inspect import wafer as wafer_module
from waferlens.records import COUNTS_PER_UM, StageTrace


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_wafer_bundle(tmp_path_factory.mktemp("bundle") / "by-hand").path


def trace(length_um: float, z_um: float = 100.0, valid: bool = True, first_um: float = 0.0) -> StageTrace:
    x = np.arange(first_um, first_um + length_um, 22.75)
    z = np.rint(COUNTS_PER_UM * (775.0 - np.full(len(x), z_um)))
    return StageTrace(
        np.rint(x * COUNTS_PER_UM).astype(np.int64),
        np.zeros(len(x), np.int64),
        z.astype(np.int64),
        np.full(len(x), valid),
    )


def expected(image: np.ndarray, track_um: float = 0.0, thickness_um: float = 0.0) -> np.ndarray:
    grey = np.rint(image * 65535) / 65535
    return 500 * uniform_filter(grey, 3, mode="nearest") + 0.1 * track_um + 0.01 * thickness_um


def field_json(out: Path, number: int = 0) -> dict[str, Any]:
    (folder,) = (out / "maps").glob(f"{number:06d}_*")
    return json.loads((folder / "field.json").read_text())


def height(out: Path, number: int = 0) -> np.ndarray:
    (folder,) = (out / "maps").glob(f"{number:06d}_*")
    return tifffile.imread(folder / "height.tif")


def reasons(out: Path) -> list[str]:
    with (out / "quarantine.csv").open() as file:
        return [row["reason"] for row in csv.DictReader(file)]


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_long_swath_has_no_seams(tmp_path: Path, bundle: Path) -> None:
    image = scene(190, 3100)
    path = write_swath(tmp_path / "swath.tif", image)
    result = inspect_paths([path], bundle, tmp_path / "out", pitch_um=PITCH_UM, product="310:318")
    assert result.quarantined == 0
    np.testing.assert_allclose(height(tmp_path / "out"), expected(image, thickness_um=310), atol=2e-3)
    sigma = tifffile.imread(tmp_path / "out/maps/000000_swath/sigma.tif")
    np.testing.assert_allclose(sigma, 1 + 5 * image, atol=1e-3)


@pytest.mark.parametrize("options", [{}, {"tile": (64, 128)}, {"rowsperstrip": 7, "compression": "zlib"}])
def test_a_finer_swath_is_averaged_over_areas(tmp_path: Path, bundle: Path, options: dict[str, Any]) -> None:
    fine = scene(400, 1600, PITCH_UM / 4)
    path = write_swath(tmp_path / "swath.tif", fine, **options)
    inspect_paths([path], bundle, tmp_path / "out", pitch_um=PITCH_UM / 4)
    coarse = fine.reshape(100, 4, 400, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(height(tmp_path / "out"), expected(coarse), atol=500 / 65535)


def test_8_bit_images_have_their_own_white(tmp_path: Path, bundle: Path) -> None:
    image = scene(64, 96)
    tifffile.imwrite(tmp_path / "a.tif", np.rint(image * 255).astype(np.uint8), photometric="minisblack")
    inspect_paths([tmp_path / "a.tif"], bundle, tmp_path / "out", pitch_um=PITCH_UM)
    np.testing.assert_allclose(height(tmp_path / "out"), expected(image), atol=500 * 0.6 / 255)


def test_the_track_counts_where_it_is_known(tmp_path: Path, bundle: Path) -> None:
    image = scene(100, 600)
    path = write_swath(tmp_path / "swath.tif", image)
    write_trace(tmp_path / "track.csv", trace(4000))  # of 4,800 um
    inspect_paths([path], bundle, tmp_path / "out", pitch_um=PITCH_UM, tracks=[tmp_path / "track.csv"])
    found = height(tmp_path / "out")
    np.testing.assert_allclose(found[:, :480], expected(image, track_um=100)[:, :480], atol=2e-3)
    told = field_json(tmp_path / "out")
    assert told["inputs"] == ["image", "track"]
    assert told["direction"] == 1
    assert told["track"]["z_um"][10] == 100.0
    assert told["track"]["z_um"][-1] is None


def test_a_synchronised_label_is_a_track(tmp_path: Path, bundle: Path) -> None:
    image = scene(100, 600)
    path = write_swath(tmp_path / "swath.tif", image)
    tifffile.imwrite(tmp_path / "label.tif", np.full((1, 600), 50.0, np.float32))
    inspect_paths([path], bundle, tmp_path / "out", pitch_um=PITCH_UM, tracks=[tmp_path / "label.tif"])
    np.testing.assert_allclose(height(tmp_path / "out"), expected(image, track_um=50), atol=2e-3)


def test_what_lies_beyond_the_wafer_has_no_height(tmp_path: Path, bundle: Path) -> None:
    image = scene(100, 1000)
    image[:, 800:] = 0.004
    write_swath(tmp_path / "swath.tif", image)
    inspect_paths([tmp_path / "swath.tif"], bundle, tmp_path / "out", pitch_um=PITCH_UM)
    found = height(tmp_path / "out")
    assert np.isnan(found[:, 800:]).all()
    assert np.isfinite(found[:, :800]).all()
    assert float(rows(tmp_path / "out")[0]["known_share"]) == pytest.approx(0.8)
    assert (tifffile.imread(tmp_path / "out/maps/000000_swath/classes.tif")[:, 800:] == 255).all()


def test_dies_and_focus_are_told(tmp_path: Path, bundle: Path) -> None:
    write_swath(tmp_path / "swath.tif", scene(375, 1250))  # two rows of five sites
    inspect_paths([tmp_path / "swath.tif"], bundle, tmp_path / "out", pitch_um=PITCH_UM, objective="10x")
    (row,) = rows(tmp_path / "out")
    assert (row["dies_present"], row["dies_missing"], row["dies_unsure"]) == ("8", "2", "0")
    assert float(row["die_top_um"]) == pytest.approx(400, abs=10)
    assert float(row["top_um_low"]) < float(row["top_um"]) < float(row["top_um_high"])
    plan = json.loads((tmp_path / "out/maps/000000_swath/focus.json").read_text())
    assert plan["magnification"] == 10.0
    assert plan["layer"] == "top"
    highest = float(np.nanmax(height(tmp_path / "out")))
    assert float(row["safe_um"]) > highest + 50


def test_maps_are_written_in_other_formats(tmp_path: Path, bundle: Path) -> None:
    write_swath(tmp_path / "swath.tif", scene(64, 96))
    inspect_paths([tmp_path / "swath.tif"], bundle, tmp_path / "out", pitch_um=PITCH_UM, height_format="gwy,x3p")
    maps = [read_height_map(tmp_path / f"out/maps/000000_swath/height.{form}") for form in ("tif", "gwy", "x3p")]
    reference = height(tmp_path / "out")
    for one in maps:
        scale = {"um": 1.0, "m": 1e6, "nm": 1e-3}[one.unit]
        np.testing.assert_allclose(one.heights * scale, reference, rtol=1e-5)
        assert one.pitch_x * {"um": 1.0, "m": 1e6, "nm": 1e-3, "mm": 1e3}[one.pitch_unit] == pytest.approx(PITCH_UM)


def test_swaths_are_stitched_on_the_stage(tmp_path: Path, bundle: Path) -> None:
    # neither place is a multiple of the pitch: the grids meet all the same
    places = {"a.tif": (1000.0, 500.0), "b.tif": (1003.3, 500 + 8 * 90 + 2.7)}
    lines = ["swath,x0_um,y0_um"]
    for name, (x0, y0) in places.items():
        write_swath(tmp_path / name, scene(4 * 120, 4 * 300, PITCH_UM / 4, x0, y0))
        lines.append(f"{name},{x0},{y0}")
    (tmp_path / "layout.csv").write_text("\n".join(lines) + "\n")
    out = tmp_path / "out"
    inspect_paths(
        [tmp_path / name for name in places], bundle, out, pitch_um=PITCH_UM / 4, layout=tmp_path / "layout.csv"
    )
    told = json.loads((out / "stitched/stitch.json").read_text())
    assert told["overlap_px"] > 4000
    assert told["overlap_median_um"] < 0.05
    field = json.loads((out / "stitched/field.json").read_text())
    found = tifffile.imread(out / "stitched/height.tif")
    x0, y0 = field["stage_x0_um"], field["stage_y0_um"]
    assert x0 % PITCH_UM == pytest.approx(0, abs=1e-6) or x0 % PITCH_UM == pytest.approx(PITCH_UM, abs=1e-6)
    fine = scene(8 * found.shape[0], 8 * found.shape[1], PITCH_UM / 8, x0, y0)
    truth = 500 * fine.reshape(found.shape[0], 8, found.shape[1], 8).mean(axis=(1, 3))
    inner = (slice(2, -2), slice(2, -2))
    flat = uniform_filter(truth, 5) - truth  # at edges the fine grids of scene and image differ by a part of a pixel
    known = np.isfinite(found)[inner] & (np.abs(flat[inner]) < 1)
    assert known.mean() > 0.6
    np.testing.assert_allclose(found[inner][known], truth[inner][known], atol=1.0)


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write_swath(tmp_path / f"in/{number}.tif", scene(80, 200, x0_um=500.0 * number))
    whole = tmp_path / "whole"
    inspect_paths([tmp_path / "in"], bundle, whole, pitch_um=PITCH_UM)
    out = tmp_path / "out"
    real = wafer_module.write_maps

    def cut(folder: Path, made: Any, formats: Any) -> None:
        if "000001" in folder.name:
            (folder / "height.tif").write_bytes(b"half")
            raise KeyboardInterrupt
        real(folder, made, formats)

    monkeypatch.setattr(wafer_module, "write_maps", cut)
    with pytest.raises(KeyboardInterrupt):
        inspect_paths([tmp_path / "in"], bundle, out, pitch_um=PITCH_UM, workers=1)
    monkeypatch.setattr(wafer_module, "write_maps", real)
    assert not (out / "results.csv").exists()
    result = inspect_paths([tmp_path / "in"], bundle, out, pitch_um=PITCH_UM)
    assert result.resumed_at == 1
    assert not list(out.glob("maps/*.part"))
    assert (out / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    for number in range(3):
        np.testing.assert_array_equal(height(out, number), height(whole, number))


def test_truth_of_a_data_set_is_no_swath(tmp_path: Path, bundle: Path) -> None:
    assert main(["simulate", "wafer", str(tmp_path / "set"), "--fields", "2", "--grid", "128", "--seed", "1"]) == 0
    result = inspect_paths([tmp_path / "set"], bundle, tmp_path / "out")
    assert result.images == 2
    assert result.quarantined == 0
    told = field_json(tmp_path / "out")
    assert told["inputs"] == ["image", "objective", "product", "track"]
    assert Path(told["truth"]).parent.name == "height"


def bad(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    good = scene(64, 96)
    match name:
        case "truncated.tif":
            write_swath(path, good)
            path.write_bytes(path.read_bytes()[:3000])
        case "nan.tif":
            good[3, 4] = np.nan
            tifffile.imwrite(path, good.astype(np.float32))
        case "colour.tif":
            tifffile.imwrite(path, np.zeros((64, 96, 3), np.uint8), photometric="rgb")
        case "text.tif":
            path.write_text("not an image")
        case "empty.tif":
            path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("truncated.tif", "truncated"),
        ("nan.tif", "NaN"),
        ("colour.tif", "one grey channel"),
        ("text.tif", ""),
        ("empty.tif", ""),
    ],
)
def test_bad_images_are_quarantined(tmp_path: Path, bundle: Path, name: str, told: str) -> None:
    good = write_swath(tmp_path / "good.tif", scene(64, 96))
    out = tmp_path / "out"
    result = inspect_paths([bad(tmp_path, name), good], bundle, out, pitch_um=PITCH_UM)
    assert result.quarantined == 1
    assert len(rows(out)) == 1
    (reason,) = reasons(out)
    assert reason
    assert told in reason
    assert len(list((out / "maps").iterdir())) == 1


def test_bad_tracks_are_told(tmp_path: Path, bundle: Path) -> None:
    image = write_swath(tmp_path / "a.tif", scene(64, 600))
    for number, (made, told) in enumerate(
        [
            (trace(4800, valid=False), "no valid sample"),
            (trace(1000), "22 % of the columns"),
            (trace(4800, first_um=100_000), "0 % of the columns"),
        ]
    ):
        write_trace(tmp_path / "track.csv", made)
        out = tmp_path / f"out{number}"
        result = inspect_paths([image], bundle, out, pitch_um=PITCH_UM, tracks=[tmp_path / "track.csv"])
        assert result.quarantined == 1
        assert told in reasons(out)[0]
        assert "track.csv" in reasons(out)[0]


def test_an_image_without_pitch_is_not_measured(tmp_path: Path, bundle: Path) -> None:
    inspect_paths([write_swath(tmp_path / "a.tif", scene(64, 96))], bundle, tmp_path / "out")
    assert "--pitch-um" in reasons(tmp_path / "out")[0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"product": "310"}, "as 310:318"),
        ({"product": "310:318,200"}, "rising"),
        ({"tracks": ["x.csv", "y.csv"]}, "2 --track for 1 swaths"),
        ({"objective": "7x"}, "one of 5x"),
        ({"layer": "bottom"}, "top, carrier"),
        ({"height_format": "png"}, "'png'"),
        ({"pitch_um": -1.0}, "positive"),
        ({"clearance_um": -1.0}, "0 or positive"),
        ({"limits": ["depth=1:2um"]}, "'depth' is not measured"),
        ({"limits": ["top=1:2"]}, "no unit"),
        ({"level": 0.9}, "--level means nothing"),
    ],
)
def test_wrong_options_leave_no_run(tmp_path: Path, bundle: Path, options: dict[str, Any], told: str) -> None:
    image = write_swath(tmp_path / "a.tif", scene(64, 96))
    with pytest.raises(UsageError, match=told):
        inspect_paths([image], bundle, tmp_path / "out", **{"pitch_um": PITCH_UM, **options})
    assert not (tmp_path / "out/runcard.json").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("swath,x0_um\na.tif,0\n", "columns swath, x0_um, y0_um"),
        ("swath,x0_um,y0_um\na.tif,0,north\n", "line 2"),
        ("swath,x0_um,y0_um\na.tif,0,0\na.tif,1,1\n", "line 3"),
    ],
)
def test_bad_layouts_are_told(
    tmp_path: Path, bundle: Path, text: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "layout.csv").write_text(text)
    image = write_swath(tmp_path / "a.tif", scene(64, 96))
    words = ["inspect", str(image), "--bundle", str(bundle), "--out", str(tmp_path / "out"), "--pitch-um", "8"]
    assert main([*words, "--layout", str(tmp_path / "layout.csv")]) != 0
    assert told in capsys.readouterr().err


def test_a_swath_beside_the_layout_is_quarantined(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "layout.csv").write_text("swath,x0_um,y0_um\na.tif,0,0\n")
    images = [write_swath(tmp_path / name, scene(64, 96)) for name in ("a.tif", "b.tif")]
    out = tmp_path / "out"
    inspect_paths(images, bundle, out, pitch_um=PITCH_UM, layout=tmp_path / "layout.csv")
    assert reasons(out) == ["is not in the layout"]
    assert (out / "stitched/height.tif").exists()


def test_options_of_wafers_mean_nothing_to_holes(tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "hole")
    with pytest.raises(UsageError, match="--product means nothing to"):
        inspect_paths([tmp_path], made, tmp_path / "out", product="310:318")


def test_json_tells_each_swath(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = write_swath(tmp_path / "a.tif", scene(375, 1250))
    words = ["inspect", str(image), "--bundle", str(bundle), "--out", str(tmp_path / "out"), "--pitch-um", "8"]
    assert main([*words, "--json"]) == 0
    (swath,) = json.loads(capsys.readouterr().out)["swaths"]
    assert swath["dies_present"] == 8
    assert swath["mpx_per_s"] > 0
    assert swath["map"] == "maps/000000_a/height.tif"


def test_a_swath_without_wafer_has_no_numbers(tmp_path: Path, bundle: Path) -> None:
    image = write_swath(tmp_path / "dark.tif", np.full((100, 400), 0.003))
    inspect_paths([image], bundle, tmp_path / "out", pitch_um=PITCH_UM)
    (row,) = rows(tmp_path / "out")
    assert row["top_um"] == ""
    assert row["safe_um"] == ""
    assert float(row["known_share"]) == 0
    folder = tmp_path / "out/maps/000000_dark"
    flat = json.loads((folder / "flatness.json").read_text())
    assert set(flat["numbers_um"].values()) == {None}
    plan = json.loads((folder / "focus.json").read_text())
    assert {field["state"] for field in plan["fields"]} == {"no data"}
    assert all(field["safe_um"] is None for field in plan["fields"])


def test_verdicts_need_the_whole_interval(tmp_path: Path, bundle: Path) -> None:
    image = write_swath(tmp_path / "a.tif", scene(375, 1250))  # two sites without a die, tops near 415 um
    expected = {
        ("dies_missing=:2", "top=:800um"): "OK",
        ("dies_missing=:1",): "NG",
        ("top=410:800um",): "review",
        ("top=0.5:0.8mm",): "NG",
        ("known_share=1:",): "OK",
    }
    for number, (limits, verdict) in enumerate(expected.items()):
        out = tmp_path / f"out{number}"
        result = inspect_paths([image], bundle, out, pitch_um=PITCH_UM, limits=limits)
        assert result.verdicts[verdict] == 1, limits
        assert rows(out)[0]["verdict"] == verdict
        assert (rows(out)[0]["verdict_reason"] == "") == (verdict == "OK")
