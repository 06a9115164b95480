"""`simulate` as a user meets it: same bytes for a seed, nothing told that should stay hidden, nothing overwritten."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from waferlens.cli.main import main
from waferlens.errors import InputError, UsageError
from waferlens.evaluate.sites import SEED_VARIABLE, regenerated
from waferlens.load.challenge import check, scan
from waferlens.simulate.hole import presets
from waferlens.simulate.hole.dataset import hole_world, read_manifest, write_pairs


def sums(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real") / "data"
    words = ["simulate", "hole", str(out), "--domain", "real", "--sites", "8", "--holes-per-site", "3", "--seed", "11"]
    assert main(words) == 0
    return out


def test_same_bytes_whatever_the_number_of_workers(tmp_path: Path) -> None:
    for workers in (1, 2):
        out = str(tmp_path / f"w{workers}")
        words = ["simulate", "hole", out, "--structures", "40", "--seed", "7", "--workers", str(workers)]
        assert main(words) == 0
    assert sums(tmp_path / "w1") == sums(tmp_path / "w2")


def test_another_seed_is_another_set(tmp_path: Path) -> None:
    a = write_pairs(tmp_path / "a", hole_world("sim"), 2, 1)
    b = write_pairs(tmp_path / "b", hole_world("sim"), 2, 2)
    assert a.pixels_sha256 != b.pixels_sha256


def test_what_is_written_is_what_load_expects(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert main(["simulate", "hole", str(tmp_path / "d"), "--structures", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["images"], told["depth_maps"]) == (24, 12)
    holes = check(tmp_path / "d")
    assert holes.problems == []
    assert len(holes.sim) == 24
    listed = dict(line.split("  ")[::-1] for line in (tmp_path / "d" / "SHA256SUMS").read_text().splitlines())
    found = sums(tmp_path / "d")
    assert len(listed) == 36
    assert all(found[path] == digest for path, digest in listed.items())


def test_continuous_plateaus_are_no_cases(tmp_path: Path) -> None:
    write_pairs(tmp_path / "d", hole_world("continuous"), 5, 1)
    rows = (tmp_path / "d" / "samples.csv").read_text().splitlines()
    column = rows[0].split(",").index("plateau_nm")
    plateaus = [float(row.split(",")[column]) for row in rows[1:]]
    assert all(135 <= plateau <= 175 for plateau in plateaus)
    assert len(set(plateaus)) == 20


def test_real_tells_images_and_site_depths_only(real: Path) -> None:
    names = set(sums(real))
    assert sum(name.endswith(".png") for name in names) == 24
    assert {name for name in names if not name.endswith(".png")} == {
        "train/average_depth.csv",
        "manifest.json",
        "SHA256SUMS",
    }
    manifest = (real / "manifest.json").read_text()
    assert '"seed"' not in manifest
    assert "seed_fingerprint" in manifest


def test_hidden_truth_comes_back_with_the_seed_alone(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holes = scan(real)
    monkeypatch.delenv(SEED_VARIABLE, raising=False)
    assert regenerated(holes) is None
    monkeypatch.setenv(SEED_VARIABLE, "12")
    with pytest.raises(UsageError, match="another seed"):
        regenerated(holes)
    monkeypatch.setenv(SEED_VARIABLE, "11")
    pairs = regenerated(holes)
    assert pairs is not None
    assert len(pairs.sem) == 24
    for hole in holes.real[:5]:
        rows = pairs.structure == hole.site
        plateau = pairs.depth[rows].max()
        assert plateau - pairs.depth[rows].min(axis=(1, 2)).mean() == pytest.approx(hole.average_depth, abs=8)


def test_changed_images_are_not_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "data"
    main(["simulate", "hole", str(out), "--domain", "real", "--sites", "4", "--holes-per-site", "2", "--seed", "5"])
    image = next(out.rglob("*.png"))
    image.write_bytes(image.read_bytes() + b"\0")
    monkeypatch.setenv(SEED_VARIABLE, "5")
    with pytest.raises(InputError, match="was changed"):
        regenerated(scan(out))


def test_a_changed_world_in_the_manifest_is_noticed(tmp_path: Path) -> None:
    write_pairs(tmp_path / "d", hole_world("sim"), 1, 1)
    path = tmp_path / "d" / "manifest.json"
    path.write_text(path.read_text().replace('"nuisance": 0.2', '"nuisance": 0.0'))
    with pytest.raises(InputError, match="was changed"):
        read_manifest(tmp_path / "d")


def test_a_preset_of_other_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = presets.Preset("sim", 2, 1, 0.2, "0" * 64)
    monkeypatch.setitem(presets.PRESETS, "eval-v1", frozen)
    with pytest.raises(InputError, match="other pixels"):
        presets.write_preset(tmp_path / "d", "eval-v1")


def test_presets_are_frozen() -> None:
    assert all(len(preset.pixels_sha256) == 64 for preset in presets.PRESETS.values())
    assert presets.PRESETS["eval-v1"].structures == 2000
    assert presets.PRESETS["eval-v1"].nuisance == 0.2


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--preset", "eval-v2"], 2, "eval-v1"),
        (["--preset", "eval-v1", "--nuisance", "0.5"], 2, "--preset fixes"),
        (["--domain", "rael"], 2, "real"),
        (["--domain", "real", "--structures", "3"], 2, "--sites"),
        (["--sites", "3"], 2, "--structures"),
        (["--nuisance", "2"], 2, "nuisance"),
    ],
)
def test_wrong_usage_says_what_to_change(words, status, said, tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert main(["simulate", "hole", str(tmp_path / "d"), *words]) == status
    assert said in capsys.readouterr().err


def test_two_sets_never_share_a_folder(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    write_pairs(tmp_path / "d", hole_world("sim"), 1, 1)
    assert main(["simulate", "hole", str(tmp_path / "d"), "--structures", "1"]) == 1
    assert "already holds a data set" in capsys.readouterr().err
