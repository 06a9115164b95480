"""`simulate wafer` as a user meets it: same bytes for a seed, nothing told that should stay hidden, nothing mixed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from waferlens.cli.main import main
from waferlens.errors import InputError, UsageError
from waferlens.evaluate.sites import SEED_VARIABLE
from waferlens.evaluate.wafer_truth import judged_fields
from waferlens.formats.stage_trace import read_trace
from waferlens.formats.wafer_set import read_dies
from waferlens.load.wafer import read_fields
from waferlens.ops.area import area_mean
from waferlens.simulate.wafer import presets
from waferlens.simulate.wafer.dataset import field_names, wafer_world, write_fields

GRID = "114"


def sums(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def simulate(out: Path, *words: str) -> int:
    return main(["simulate", "wafer", str(out), *words])


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sim") / "data"
    assert simulate(out, "--fields", "7", "--grid", GRID, "--seed", "7") == 0
    return out


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real") / "data"
    assert simulate(out, "--domain", "real", "--fields", "7", "--grid", GRID, "--seed", "11") == 0
    return out


def test_same_bytes_whatever_the_number_of_workers(sim: Path, tmp_path: Path) -> None:
    assert simulate(tmp_path / "two", "--fields", "7", "--grid", GRID, "--seed", "7", "--workers", "2") == 0
    assert sums(tmp_path / "two") == sums(sim)


def test_another_seed_is_another_set(tmp_path: Path) -> None:
    a, b = (write_fields(tmp_path / str(seed), wafer_world("sim"), 2, 114, seed) for seed in (1, 2))
    assert a.pixels_sha256 != b.pixels_sha256


def test_the_layout_is_as_told(sim: Path) -> None:
    names = {f"{number:06d}" for number in range(7)}
    found = sums(sim)
    expected = {f"{folder}/{name}.{end}" for name in names for folder, end in
                (("image", "tif"), ("track", "csv"), ("height", "tif"), ("dies", "json"))}  # fmt: skip
    assert set(found) == expected | {"fields.csv", "manifest.json", "SHA256SUMS"}
    listed = dict(line.split("  ")[::-1] for line in (sim / "SHA256SUMS").read_text().splitlines())
    assert set(listed) == expected | {"fields.csv"}
    assert all(found[path] == digest for path, digest in listed.items())
    told = json.loads((sim / "manifest.json").read_text())
    assert (told["seed"], told["grid"], told["files"]) == (7, 114, 29)
    assert told["pitch_um"] == pytest.approx(5606.95 / 114, rel=1e-5)
    assert told["sums_sha256"] == found["SHA256SUMS"]


def test_files_are_plain(sim: Path) -> None:
    for path in (sim / "image").iterdir():
        with tifffile.TiffFile(path) as file:
            assert (file.pages[0].dtype, file.pages[0].shape) == (np.uint16, (114, 114))
            assert not {"ImageDescription", "Software", "DateTime"} & {tag.name for tag in file.pages[0].tags}
    assert tifffile.imread(sim / "height" / "000000.tif").dtype == np.float32


def test_fields_read_back(sim: Path) -> None:
    fields = list(read_fields(sim))
    assert len(fields) == 7
    assert sorted({field.wafer for field in fields}) == ["wafer-00000", "wafer-00001", "wafer-00002"]
    for field in fields:
        assert field.height_um is not None
        assert field.dies
        present = [die for die in field.dies if die.state == "present"]
        assert all(die.top_um == die.levels[-1][4] for die in present)
        assert field.trace.objective_z_um is not None


def test_names_carry_no_information() -> None:
    names, wafers = field_names(wafer_world("sim"), 5, 300)
    assert sorted(names) == [f"{number:06d}" for number in range(300)]
    assert abs(np.corrcoef(np.arange(300), [int(name) for name in names])[0, 1]) < 0.2
    assert len(set(wafers)) == 100
    assert all(len(set(wafers[at : at + 3])) == 1 for at in range(0, 300, 3))


def test_real_tells_images_tracks_and_what_a_line_knows(real: Path) -> None:
    folders = {name.split("/")[0] for name in sums(real)}
    assert folders == {"image", "track", "fields.csv", "manifest.json", "SHA256SUMS"}
    manifest = (real / "manifest.json").read_text()
    assert '"seed"' not in manifest
    assert "seed_fingerprint" in manifest


def test_hidden_truth_comes_back_with_the_seed_alone(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SEED_VARIABLE, raising=False)
    with pytest.raises(UsageError, match=SEED_VARIABLE):
        next(judged_fields(real))
    monkeypatch.setenv(SEED_VARIABLE, "12")
    with pytest.raises(UsageError, match="another seed"):
        next(judged_fields(real))
    monkeypatch.setenv(SEED_VARIABLE, "11")
    judged = list(judged_fields(real))
    assert len(judged) == 7
    assert all(field.height_um is not None and field.height_um.shape == field.image.shape for field in judged)
    assert max(float(field.height_um.max()) for field in judged if field.height_um is not None) > 50


def test_changed_images_are_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(tmp_path / "d", "--domain", "real", "--fields", "2", "--grid", GRID, "--seed", "5")
    path = tmp_path / "d" / "image" / "000001.tif"
    image = tifffile.imread(path)
    image[3, 4] += 1
    tifffile.imwrite(path, image)
    monkeypatch.setenv(SEED_VARIABLE, "5")
    with pytest.raises(InputError, match="000001"):
        list(judged_fields(tmp_path / "d"))


def test_one_seed_is_one_scene_at_several_grids(sim: Path, tmp_path: Path) -> None:
    assert simulate(tmp_path / "fine", "--fields", "7", "--grid", "342", "--seed", "7") == 0
    edges = np.linspace(0, 342, 115)
    for name in ("000000", "000003", "000006"):
        coarse, fine = sim, tmp_path / "fine"
        assert (coarse / "dies" / f"{name}.json").read_bytes() == (fine / "dies" / f"{name}.json").read_bytes()
        traces = [read_trace(folder / "track" / f"{name}.csv") for folder in (coarse, fine)]
        np.testing.assert_array_equal(traces[0].x_counts, traces[1].x_counts)
        heights = [tifffile.imread(folder / "height" / f"{name}.tif") for folder in (coarse, fine)]
        assert np.sqrt(np.mean(np.square(area_mean(heights[1], edges, edges) - heights[0]))) < 0.5
    assert (sim / "fields.csv").read_bytes() == (tmp_path / "fine" / "fields.csv").read_bytes()


def test_swaths_go_both_ways_over_one_scene(tmp_path: Path) -> None:
    out = tmp_path / "swaths"
    words = ("--swath", "3", "--swaths", "2", "--both-directions", "--grid", GRID, "--seed", "3")
    assert simulate(out, *words, "--workers", "2") == 0
    assert simulate(tmp_path / "one", *words) == 0
    assert sums(out) == sums(tmp_path / "one")
    for there, back in (("000000", "000001"), ("000002", "000003")):
        images = [tifffile.imread(out / "image" / f"{name}.tif") for name in (there, back)]
        assert images[0].shape == (114, 342)
        assert (images[0] != images[1]).any()
        heights = [tifffile.imread(out / "height" / f"{name}.tif") for name in (there, back)]
        np.testing.assert_array_equal(heights[0], heights[1])
        assert read_dies(out / "dies" / f"{there}.json") == read_dies(out / "dies" / f"{back}.json")
        traces = [read_trace(out / "track" / f"{name}.csv") for name in (there, back)]
        assert (np.diff(traces[0].x_counts) > 0).all()
        assert (np.diff(traces[1].x_counts) < 0).all()
    told = json.loads((out / "manifest.json").read_text())
    assert (told["swaths"], told["fields_long"], told["both_directions"]) == (2, 3, True)


def test_json_tells_what_was_written(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert simulate(tmp_path / "d", "--fields", "2", "--grid", GRID, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["fields"], told["wafers"], told["world"], told["grid"]) == (2, 1, "wafer-sim", 114)
    assert told["pixels_sha256"] == json.loads((tmp_path / "d" / "manifest.json").read_text())["pixels_sha256"]


def test_a_world_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: wafer-sim\nname: mine\nlattice: {missing: [1, 1]}\n")
    assert simulate(tmp_path / "d", "--domain", str(path), "--fields", "2", "--grid", GRID) == 0
    assert {die.state for field in read_fields(tmp_path / "d") for die in field.dies or ()} == {"missing"}


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--grid", "113"], 2, "114 to 4342"),
        (["--grid", "4343"], 2, "114 to 4342"),
        (["--domain", "rael"], 2, "real"),
        (["--domain", "continuous"], 2, "one of"),
        (["--swath", "2", "--fields", "3"], 2, "--swath makes swaths"),
        (["--both-directions"], 2, "--swath K"),
        (["--preset", "eval-v2"], 2, "eval-v1"),
        (["--preset", "eval-v1", "--grid", "456"], 2, "--preset fixes"),
        (["--preset", "eval-v1", "--fields", "501"], 2, "has 500 fields"),
        (["--fields", "0"], 2, "fields"),
    ],
)
def test_wrong_usage_says_what_to_change(words, status, said, tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert simulate(tmp_path / "d", *words) == status
    assert said in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_two_sets_never_share_a_folder(sim: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    before = sums(sim)
    assert simulate(sim, "--fields", "1", "--grid", GRID) == 1
    assert "already holds a data set" in capsys.readouterr().err
    assert sums(sim) == before


def test_a_preset_of_other_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.PRESETS, "eval-v1", presets.Preset("sim", 2, 114, 1, "0" * 64))
    with pytest.raises(InputError, match="frozen at"):
        presets.write_preset(tmp_path / "d", "eval-v1")
    assert presets.write_preset(tmp_path / "part", "eval-v1", fields=1).fields == 1


def test_the_audit_of_a_domain(capsys) -> None:  # type: ignore[no-untyped-def]
    words = ["simulate", "audit", "--station", "wafer", "--domain", "hard", "--structures", "32", "--no-physics"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] == 0
    assert any("grey lookup" in check["name"] for check in told["checks"])
    assert main(["simulate", "audit", "--station", "wafer", "--domain", "continuous"]) == 2
    assert "continuous" in capsys.readouterr().err
