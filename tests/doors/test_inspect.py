"""Inspection: files in; maps, measurements with intervals, verdicts out; bad input set aside."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from make_bundle import hole_image, make_bundle, network, write_images
from waferlens.bundle.readout import read_out
from waferlens.bundle.session import Session
from waferlens.cli.main import main
from waferlens.errors import InputError, UsageError
from waferlens.formats import challenge
from waferlens.formats.map_stack import read_map_stack
from waferlens.inspect import inspect_paths
from waferlens.inspect.limits import parse_limit
from waferlens.inspect.plan import find
from waferlens.ops.hole import measure_holes


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text("utf-8").splitlines()))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle") / "b", depth={"nm_per_grey": 1.0})


@pytest.fixture(scope="module")
def grey_bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle") / "grey")


def test_a_lot_is_measured_as_the_parts_say(tmp_path, bundle):
    paths = write_images(tmp_path / "lot", 7)
    seen = []
    result = inspect_paths(
        [tmp_path / "lot"], bundle, tmp_path / "out", chunk=3, progress=lambda *told: seen.append(told)
    )
    assert (result.images, result.quarantined, result.resumed_at) == (7, 0, 0)
    assert seen == [(0, 7), (3, 7), (6, 7), (7, 7)]
    rows = table(tmp_path / "out" / "results.csv")
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    grey = np.stack([cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths]).astype(np.float32)[:, np.newaxis]
    found = read_out(Session(bundle), bundle.calibration, grey)
    for index, row in enumerate(rows):
        depth = found.measurands["depth"][index]
        assert float(row["depth_nm"]) == pytest.approx(depth, rel=1e-6)
        assert float(row["depth_nm_low"]) == pytest.approx(depth - 2, rel=1e-6)
        assert float(row["depth_nm_high"]) == pytest.approx(depth + 2, rel=1e-6)
        assert float(row["cd50_x_px"]) == pytest.approx(found.measurands["cd50_x"][index], rel=1e-6)
        assert row["wall_angle_deg"] == ""  # no pixel size: an angle would mean nothing
        assert row["verdict"] == ""
        maps = read_map_stack(tmp_path / "out" / row["map_file"])
        place = int(row["map_index"])
        assert maps.names[place] == row["path"]
        assert maps.unit == "nm"
        np.testing.assert_allclose(maps.heights[place], found.depth[index] - found.plateau[index], atol=1e-4)
        np.testing.assert_allclose(maps.sigma[place], found.sigma[index], atol=1e-6)
        again = measure_holes(maps.heights[place : place + 1])
        assert again["plateau"] == pytest.approx([0], abs=1e-3)
        assert again["depth"] == pytest.approx([depth], abs=1e-3)
    names = {"images.jsonl", "log.txt", "maps", "quarantine.csv", "results.csv", "results.sqlite", "runcard.json"}
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == names
    card = json.loads((tmp_path / "out" / "runcard.json").read_text())
    assert card["kind"] == "inspect"
    assert card["data"]["fingerprint"] == bundle.fingerprint
    assert card["results"]["state"] == "done"


def test_workers_and_calls_change_nothing(tmp_path, bundle):
    write_images(tmp_path / "lot", 20)
    for workers in (1, 2, 3):
        inspect_paths([tmp_path / "lot"], bundle, tmp_path / str(workers), workers=workers, chunk=4)
    first = (tmp_path / "1" / "results.csv").read_bytes()
    assert first == (tmp_path / "2" / "results.csv").read_bytes() == (tmp_path / "3" / "results.csv").read_bytes()
    again = inspect_paths([tmp_path / "lot"], bundle, tmp_path / "1", chunk=4)
    assert again.resumed_at == 20
    assert (tmp_path / "1" / "results.csv").read_bytes() == first


def test_every_depth_of_grey_gives_the_same_numbers(tmp_path, bundle):
    image = hole_image(3)
    lot = tmp_path / "lot"
    lot.mkdir()
    cv2.imwrite(str(lot / "a.png"), (image * 257).round().astype(np.uint16))
    tifffile.imwrite(lot / "b.tif", (image * 257).round().astype(np.uint16))
    tifffile.imwrite(lot / "c.tif", image.astype(np.float32))
    tifffile.imwrite(lot / "d.tif", (image / 255).astype(np.float32))
    cv2.imwrite(str(lot / "e.png"), image.round().astype(np.uint8))
    cv2.imwrite(str(lot / "f.bmp"), cv2.merge([image.round().astype(np.uint8)] * 3))
    inspect_paths([lot], bundle, tmp_path / "out", maps=False)
    rows = table(tmp_path / "out" / "results.csv")
    depths = [float(row["depth_nm"]) for row in rows]
    assert depths[:4] == pytest.approx([depths[0]] * 4, abs=2e-3)
    assert depths[4:] == pytest.approx([depths[0]] * 2, abs=0.1)
    assert depths[4] == depths[5] != depths[0]  # 16 bits were not cut to 8
    assert rows[0]["map_file"] == ""
    assert not (tmp_path / "out" / "maps").exists()


def test_pages_of_a_tiff_are_images(tmp_path, bundle):
    stack = np.stack([hole_image(i) for i in range(5)]).astype(np.float32)
    stack[3, 10, 10] = np.nan
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    write_images(tmp_path, 1)
    result = inspect_paths([tmp_path / "stack.tif", tmp_path / "hole_*.png"], bundle, tmp_path / "out", chunk=2)
    assert (result.images, result.quarantined) == (6, 1)
    rows = table(tmp_path / "out" / "results.csv")
    assert [(Path(row["path"]).name, row["page"]) for row in rows] == [
        *(("stack.tif", page) for page in "0124"),
        ("hole_00000.png", "0"),
    ]
    (bad,) = table(tmp_path / "out" / "quarantine.csv")
    assert bad["page"] == "3"
    assert "NaN" in bad["reason"]


def test_the_challenge_layout_is_inspected_without_its_answers(tmp_path, bundle):
    grey = hole_image().round().astype(np.uint8)
    for path in (
        challenge.sim_sem_path(tmp_path, 1, 80, "x", 0),
        challenge.sim_depth_path(tmp_path, 1, 80, "x"),
        challenge.real_sem_path(tmp_path, 110, 0, 0),
        challenge.test_sem_path(tmp_path, 0),
        tmp_path / "test" / "SEM" / ".ipynb_checkpoints" / "000000-checkpoint.png",
        tmp_path / "test" / "SEM" / "000000-checkpoint.png",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), grey)
    challenge.write_average_depth(challenge.average_depth_path(tmp_path), {(110, 0): 108.0})
    found = [Path(path).relative_to(tmp_path).parts[0] for path, _ in find([tmp_path])]
    assert found == ["simulation_data", "test", "train"]
    (only,) = find([challenge.sim_depth_path(tmp_path, 1, 80, "x")])  # what is named is taken
    assert only[1] == 0


def bad_files(folder: Path) -> dict[str, str]:
    """One file of each kind of bad input, and a word of its reason."""
    folder.mkdir(parents=True, exist_ok=True)
    grey = hole_image().round().astype(np.uint8)
    whole = cv2.imencode(".png", grey)[1].tobytes()
    bomb = bytearray(cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].tobytes())
    bomb[16:24] = (60000).to_bytes(4, "big") * 2
    nan = grey.astype(np.float32)
    nan[0, 0] = np.nan
    tifffile.imwrite(folder / "nan.tif", nan)
    tifffile.imwrite(folder / "colour.tif", cv2.merge([grey, grey, 255 - grey]), photometric="rgb")
    for name, data in {
        "truncated.png": whole[: len(whole) // 2],
        "truncated.tif": (folder / "nan.tif").read_bytes()[:5000],
        "small.png": cv2.imencode(".png", grey[:66, :45])[1].tobytes(),
        "empty.png": b"",
        "text.png": b"this is no image",
        "bomb.png": bytes(bomb),
    }.items():
        (folder / name).write_bytes(data)
    (folder / "folder.png").mkdir()
    return {
        "nan.tif": "NaN",
        "colour.tif": "not equal",
        "truncated.png": "truncated",
        "truncated.tif": "truncated",
        "small.png": "45x66 px",
        "empty.png": "empty",
        "text.png": "not an image",
        "bomb.png": "60000x60000",
    }


def test_bad_input_is_set_aside_with_its_reason_and_stops_nothing(tmp_path, bundle):
    expected = bad_files(tmp_path / "lot")
    write_images(tmp_path / "lot", 5)
    result = inspect_paths([tmp_path / "lot"], bundle, tmp_path / "out", chunk=4, limits=["depth=0:1nm"])
    assert (result.images, result.quarantined) == (5 + len(expected), len(expected))
    assert result.verdicts == {"OK": 0, "review": 0, "NG": 5}
    reasons = {Path(row["path"]).name: row["reason"] for row in table(tmp_path / "out" / "quarantine.csv")}
    assert reasons.keys() == expected.keys()
    for name, part in expected.items():
        assert part in reasons[name], name
    assert len(table(tmp_path / "out" / "results.csv")) == 5


def test_a_lot_of_nothing_but_bad_input_ends_well(tmp_path, bundle):
    (tmp_path / "a.png").write_bytes(b"")
    result = inspect_paths([tmp_path / "a.png"], bundle, tmp_path / "out")
    assert (result.images, result.quarantined) == (1, 1)
    assert table(tmp_path / "out" / "results.csv") == []


def test_what_is_not_there_is_told_before_anything_is_done(tmp_path, bundle):
    for named, told in [("nowhere", "no such file"), ("*.png", "nothing matches"), (".", "no images here")]:
        with pytest.raises(InputError, match=told):
            inspect_paths([tmp_path / named], bundle, tmp_path / "out")


def test_verdicts_follow_the_whole_interval(tmp_path, bundle):
    lot = tmp_path / "lot"
    lot.mkdir()
    for name, depth in {"a": 120.0, "b": 100.0, "c": 110.0}.items():
        cv2.imwrite(str(lot / f"{name}.png"), hole_image(1, depth, noise=0).round().astype(np.uint8))
    flat = np.full((72, 48), 180, np.uint8)
    cv2.imwrite(str(lot / "d.png"), flat)
    dark = (hole_image(1, noise=0) * 0.3).round().astype(np.uint8)
    cv2.imwrite(str(lot / "e.png"), dark)
    result = inspect_paths([lot], bundle, tmp_path / "out", limits=["depth=110:130nm"])
    rows = table(tmp_path / "out" / "results.csv")
    assert [row["verdict"] for row in rows] == ["OK", "NG", "review", "review", "review"]
    assert result.verdicts == {"OK": 1, "review": 3, "NG": 1}
    assert rows[0]["verdict_reason"] == ""
    assert "lies outside depth=110:130nm" in rows[1]["verdict_reason"]
    assert "lies across depth=110:130nm" in rows[2]["verdict_reason"]
    assert "depth not measured: no hole" in rows[3]["verdict_reason"]
    assert "unlike the images" in rows[4]["verdict_reason"]
    assert float(rows[4]["novelty"]) > 1 > float(rows[0]["novelty"])
    assert rows[3]["reason"].startswith("no hole")


def test_without_limits_only_strangers_are_for_review(tmp_path, bundle):
    lot = tmp_path / "lot"
    lot.mkdir()
    cv2.imwrite(str(lot / "a.png"), hole_image(1).round().astype(np.uint8))
    cv2.imwrite(str(lot / "b.png"), (hole_image(1) * 0.3).round().astype(np.uint8))
    inspect_paths([lot], bundle, tmp_path / "out")
    assert [row["verdict"] for row in table(tmp_path / "out" / "results.csv")] == ["", "review"]


def test_one_ng_outweighs_one_review(tmp_path, bundle):
    write_images(tmp_path / "lot", 1)
    limits = ["depth=110:119.5nm", "cd50_x=1:2px"]
    inspect_paths([tmp_path / "lot"], bundle, tmp_path / "out", limits=limits)
    (row,) = table(tmp_path / "out" / "results.csv")
    assert row["verdict"] == "NG"
    assert row["verdict_reason"].count(";") == 1


def test_limits_in_nm_need_their_scales(tmp_path, grey_bundle, bundle):
    write_images(tmp_path / "lot", 2)
    for used, limit, told in [
        (grey_bundle, "depth=110:130nm", "--depth-nm-per-grey"),
        (bundle, "cd50_x=20:30nm", "--pixel-nm"),
        (bundle, "wall_angle_deg=80:90deg", "--pixel-nm"),
        (grey_bundle, "volume=1:2nm3", "--pixel-nm.* and .*--depth-nm-per-grey"),
    ]:
        with pytest.raises(UsageError, match=told):
            inspect_paths([tmp_path / "lot"], used, tmp_path / "out", limits=[limit])
    inspect_paths([tmp_path / "lot"], grey_bundle, tmp_path / "out", limits=["depth=110:130grey", "cd50_x=20:30px"])
    assert {row["verdict"] for row in table(tmp_path / "out" / "results.csv")} == {"OK"}


def test_scales_turn_pixels_and_grey_into_nm(tmp_path, grey_bundle):
    write_images(tmp_path / "lot", 2)
    inspect_paths([tmp_path / "lot"], grey_bundle, tmp_path / "plain")
    inspect_paths(
        [tmp_path / "lot"],
        grey_bundle,
        tmp_path / "nm",
        pixel_nm=0.5,
        depth_nm_per_grey=2.0,
        limits=["depth=0.23:0.25um", "wall_angle_deg=80:90deg", "cd50_area=30:34px", "cd50_x=12:13nm"],
    )
    plain, nm = table(tmp_path / "plain" / "results.csv")[0], table(tmp_path / "nm" / "results.csv")[0]
    for end in ("", "_low", "_high"):
        assert float(nm[f"depth_nm{end}"]) == pytest.approx(2 * float(plain[f"depth_grey{end}"]), rel=1e-6)
        assert float(nm[f"cd50_x_nm{end}"]) == pytest.approx(0.5 * float(plain[f"cd50_x_px{end}"]), rel=1e-6)
    assert float(nm["opening_area_nm2"]) == pytest.approx(0.25 * float(plain["opening_area_px2"]), rel=1e-6)
    assert float(nm["volume_nm3"]) == pytest.approx(0.5 * float(plain["volume_grey_px2"]), rel=1e-6)
    assert nm["ellipticity"] == plain["ellipticity"]
    assert nm["plateau_grey"] == plain["plateau_grey"]
    run = 0.8 * float(nm["depth_nm"])
    rise = (float(nm["cd10_area_nm"]) - float(nm["cd90_area_nm"])) / 2
    assert float(nm["wall_angle_deg"]) == pytest.approx(np.rad2deg(np.arctan(run / rise)), abs=1e-3)
    assert float(nm["wall_angle_deg_low"]) < float(nm["wall_angle_deg"]) < float(nm["wall_angle_deg_high"])
    assert nm["verdict"] == "OK", nm["verdict_reason"]
    maps = read_map_stack(tmp_path / "nm" / nm["map_file"])
    assert (maps.unit, maps.pixel_nm) == ("nm", pytest.approx(0.5))
    assert maps.heights.min() == pytest.approx(2 * read_map_stack(tmp_path / "plain" / plain["map_file"]).heights.min())


def test_a_tag_tells_the_pixel_size_of_its_image(tmp_path, bundle):
    lot = tmp_path / "lot"
    lot.mkdir()
    for index, tags in enumerate(({"imagej": True, "resolution": (2, 2), "metadata": {"unit": "nm"}}, {})):
        tifffile.imwrite(lot / f"{index}.tif", hole_image(1).round().astype(np.uint8), **tags)
    inspect_paths([lot], bundle, tmp_path / "a", limits=["cd50_x=12:13nm"])
    told, plain = table(tmp_path / "a" / "results.csv")
    assert float(told["cd50_x_nm"]) == pytest.approx(0.5 * float(plain["cd50_x_px"]), rel=1e-6)
    assert (told["cd50_x_px"], plain["cd50_x_nm"]) == ("", "")
    assert (told["verdict"], plain["verdict"]) == ("OK", "review")
    assert "scale of this image is not known" in plain["verdict_reason"]
    inspect_paths([lot], bundle, tmp_path / "b", pixel_nm=0.8)  # what the user says wins
    ratio = [float(row["cd50_x_nm"]) for row in table(tmp_path / "b" / "results.csv")]
    assert ratio[0] == ratio[1] == pytest.approx(0.8 * float(plain["cd50_x_px"]), rel=1e-6)


def test_the_recipe_may_bring_limits_and_pixel_size(tmp_path):
    used = make_bundle(
        tmp_path / "b",
        depth={"nm_per_grey": 1.0},
        input={"height_px": 72, "width_px": 48, "pixel_nm": 2.0},
        limits={"depth": {"low": 110.0, "high": None, "unit": "nm"}, "cd50_x": {"low": 1, "high": 2, "unit": "nm"}},
    )
    write_images(tmp_path / "lot", 1)
    inspect_paths([tmp_path / "lot"], used, tmp_path / "out", limits=["cd50_x=40:60nm"])
    (row,) = table(tmp_path / "out" / "results.csv")
    assert row["verdict"] == "OK", row["verdict_reason"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("depth", "expected NAME=LOW:HIGHUNIT"),
        ("dept=1:2nm", "did you mean 'depth'"),
        ("depth=1:2px", "told in grey or nm"),
        ("depth=1:2furlong", "unit 'furlong' is unknown"),
        ("depth=2:1nm", "above the upper"),
        ("depth=:nm", "both sides are open"),
        ("depth=x:2nm", "'x' is not a number"),
    ],
)
def test_limits_that_are_none_are_told(text, told):
    with pytest.raises(UsageError, match=told):
        parse_limit(text)


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("depth=110:130nm", "depth=110:130nm"),
        (" cd50_x = : 32 nm ", "cd50_x=:32nm"),
        ("volume=-1e3:2.5e6 nm3", "volume=-1000:2.5e+06nm3"),
        ("ellipticity=1.6:", "ellipticity=1.6:"),
        ("opening_area=1:2µm²", "opening_area=1:2um2"),
    ],
)
def test_limits_are_read(text, again):
    assert str(parse_limit(text)) == again


def test_levels_that_are_not_calibrated_are_refused(tmp_path, bundle):
    write_images(tmp_path / "lot", 1)
    with pytest.raises(UsageError, match=r"level 0\.8: this bundle is calibrated for 0\.9, 0\.95, 0\.99"):
        inspect_paths([tmp_path / "lot"], bundle, tmp_path / "out", level=0.8)
    inspect_paths([tmp_path / "lot"], bundle, tmp_path / "out", level=0.99)
    (row,) = table(tmp_path / "out" / "results.csv")
    assert float(row["depth_nm_high"]) - float(row["depth_nm"]) == pytest.approx(2 * 2.576 / 1.645, rel=1e-5)


def test_a_bundle_without_calibration_claims_nothing(tmp_path):
    used = make_bundle(tmp_path / "b", parts={"calibration.json": {**EMPTY}, "model.onnx": network(sigma=False)})
    write_images(tmp_path / "lot", 1)
    inspect_paths([tmp_path / "lot"], used, tmp_path / "out", level=0.5, limits=["depth=110:130grey"])
    (row,) = table(tmp_path / "out" / "results.csv")
    assert (row["depth_grey_low"], row["verdict"], row["novelty"]) == ("", "review", "")
    assert "not calibrated" in row["verdict_reason"]
    assert read_map_stack(tmp_path / "out" / row["map_file"]).sigma is None


EMPTY = {"version": 1, "pixel": None, "measurands": {}, "out_of_domain": None, "data": {}}


def test_another_run_is_not_overwritten(tmp_path, bundle, grey_bundle):
    write_images(tmp_path / "lot", 3)
    out = tmp_path / "out"
    inspect_paths([tmp_path / "lot"], bundle, out)
    with pytest.raises(UsageError, match="bundle: b then, grey now"):
        inspect_paths([tmp_path / "lot"], grey_bundle, out)
    with pytest.raises(UsageError, match=r"limits: \[\] then, \['depth=1:2grey'\] now"):
        inspect_paths([tmp_path / "lot"], bundle, out, limits=["depth=1:2grey"])
    before = (out / "images.jsonl").read_bytes()
    write_images(tmp_path / "lot", 1, start=3)
    with pytest.raises(UsageError, match=r"3 then, 4 now"):
        inspect_paths([tmp_path / "lot"], bundle, out)
    assert (out / "images.jsonl").read_bytes() == before
    assert inspect_paths([tmp_path / "lot"], grey_bundle, out, fresh=True).images == 4
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    for fresh in (False, True):
        with pytest.raises(UsageError, match="holds other files"):
            inspect_paths([tmp_path / "lot"], bundle, tmp_path / "mine", fresh=fresh)
    (out / "runcard.json").write_text('{"kind": "train"}')
    with pytest.raises(UsageError, match="another kind"):
        inspect_paths([tmp_path / "lot"], bundle, out)


def test_the_command_line_says_what_the_function_says(tmp_path, bundle, capsys):
    bad_files(tmp_path / "bad")
    write_images(tmp_path / "lot", 3)
    arguments = ["inspect", str(tmp_path / "lot"), "--bundle", str(bundle.path), "--out", str(tmp_path / "a"), "--json"]
    assert main([*arguments, "--limit", "depth=1:2nm"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"images": 3, "quarantined": 0, "verdicts": {"OK": 0, "review": 0, "NG": 3}}.items() <= told.items()
    assert told["seconds"] > 0
    assert main([*arguments, "--limit", "depth=1:2nm", "--fail-on-ng"]) == 1
    assert main([*arguments, "--limit", "depth=1:3nm"]) == 2
    assert "other options" in capsys.readouterr().err
    assert main([*arguments, "--limit", "depth=1:3nm", "--fresh", "--no-maps", "--workers", "1"]) == 0
    assert not (tmp_path / "a" / "maps").exists()
    bad = ["inspect", str(tmp_path / "bad"), "--bundle", str(bundle.path), "--out", str(tmp_path / "b")]
    assert main(bad) == 1
    assert "8 quarantined" in capsys.readouterr().err
    assert main([*bad[:2], "--bundle", "no-such", "--out", str(tmp_path / "c")]) == 2


def test_inspection_loads_nothing_it_does_not_use(bundle):
    code = (
        "import sys, waferlens.inspect; from waferlens.bundle.files import open_bundle;"
        "from waferlens.bundle.session import Session; Session(open_bundle(sys.argv[1]));"
        "unused = ('torch', 'numba', 'scipy', 'matplotlib', 'plotly', 'sqlalchemy', 'pydantic', 'tifffile');"
        "print([name for name in unused if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(bundle.path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
