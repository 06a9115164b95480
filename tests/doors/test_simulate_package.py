"""`simulate package` as a user meets it: same bytes for a seed, nothing told that should stay hidden, nothing mixed."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from waferlens.cli.main import main
from waferlens.errors import FormatError, InputError, UsageError
from waferlens.formats import package_set
from waferlens.formats.coco import read_coco_labels
from waferlens.simulate.package import presets
from waferlens.simulate.package.dataset import defective_devices, device_numbers, package_world, regenerated

SET = ("--devices", "4", "--seed", "3", "--twins")


def sums(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def simulate(out: Path, *words: str) -> int:
    return main(["simulate", "package", str(out), *words])


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sim") / "data"
    assert simulate(out, *SET) == 0
    return out


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real") / "data"
    assert simulate(out, "--domain", "real", "--devices", "2", "--seed", "11") == 0
    return out


def test_same_bytes_whatever_the_number_of_workers(sim: Path, tmp_path: Path) -> None:
    assert simulate(tmp_path / "two", *SET, "--workers", "2") == 0
    assert sums(tmp_path / "two") == sums(sim)


def test_the_layout_is_as_told(sim: Path) -> None:
    found = sums(sim)
    twins = len(defective_devices(package_world("sim"), 3, 4))
    assert twins >= 2
    ends = [*(f"images/{{}}-{light}.png" for light in ("bf", "dfw", "dfb")),
            "truth/{}.json", "truth/{}-parts.png", "truth/{}-defects.png"]  # fmt: skip
    expected = {end.format(f"{number:06d}") for number in range(4 + twins) for end in ends}
    expected |= {"devices.csv", "labels.json"}
    assert set(found) == expected | {"manifest.json", "SHA256SUMS"}
    listed = dict(line.split("  ")[::-1] for line in (sim / "SHA256SUMS").read_text().splitlines())
    assert set(listed) == expected
    assert all(found[path] == digest for path, digest in listed.items())
    told = package_set.read_manifest(sim)
    assert (told["format"], told["domain"], told["seed"], told["grid"]) == (
        "waferlens-package-1",
        "sim",
        3,
        [1295, 785],
    )
    assert (told["devices"], told["twins"], told["pixel_um"]) == (4, twins, 2.0)
    assert told["sums_sha256"] == found["SHA256SUMS"]


def test_pictures_are_plain(sim: Path) -> None:
    for path in (sim / "images").iterdir():
        data = path.read_bytes()
        assert (data[24], data[25]) == (8, 2)  # 8 bits, red green blue
        assert not any(name in data for name in (b"tEXt", b"iTXt", b"tIME", b"pHYs"))
    green = package_set.read_picture(package_set.image_path(sim, 0, "bf"))
    assert green.shape == (1295, 785, 3)
    assert green[2, 2, 1] > max(green[2, 2, 0], green[2, 2, 2])


def test_devices_read_back(sim: Path) -> None:
    verdicts = package_set.verdicts(sim)
    assert package_set.devices(sim) == sorted(verdicts)
    for number, verdict in verdicts.items():
        told = package_set.read_device(sim, number)
        assert (told.number, told.verdict) == (number, verdict)
        body, die = package_set.read_parts(sim, number)
        owner = package_set.read_defects(sim, number)
        assert body.sum() > 5e5
        assert body[die].all()
        assert set(np.unique(owner)) <= {0, *range(1, len(told.defects) + 1)}
        for place, defect in enumerate(told.defects, 1):
            pixels = die if defect.kind == "rotate" else owner == place
            assert pixels.sum() == defect.visible_px
            ys, xs = np.nonzero(pixels)
            assert defect.box == (xs.min() - 0.5, ys.min() - 0.5, xs.max() + 0.5, ys.max() + 0.5)
            assert defect.ignore == (defect.label == "ignore")
            assert (defect.contrast is None) == (defect.kind in ("rotate", "dust", "fibre"))


def test_twins_are_good_and_alike(sim: Path) -> None:
    told = [package_set.read_device(sim, number) for number in package_set.devices(sim)]
    twins = [device for device in told if device.twin_of is not None]
    assert {twin.twin_of for twin in twins} == {
        device.number for device in told if device.twin_of is None and device.verdict not in ("good", "missing")
    }
    for twin in twins:
        assert twin.verdict == "good"
        assert twin.number >= 4
        source = package_set.read_device(sim, twin.twin_of)
        np.testing.assert_array_equal(twin.ic_quad, source.ic_quad)
        pictures = [package_set.read_picture(device.images["bf"]) for device in (twin, source)]
        same = (pictures[0] == pictures[1]).all(axis=2)
        assert same.mean() > (0.7 if "rotate" in source.verdict else 0.97)
        assert not same.all()


def test_labels_are_the_defects(sim: Path) -> None:
    images = {image.path: image for image in read_coco_labels(sim / "labels.json")}
    counted = 0
    for number in package_set.devices(sim):
        told = package_set.read_device(sim, number).defects
        image = images[f"images/{number:06d}-bf.png"]
        assert (image.width_px, image.height_px) == (785, 1295)
        wanted = [("crack" if one.ignore else one.label, one.box, one.ignore) for one in told]
        assert [(one.kind, one.box, one.ignore) for one in image.labels] == wanted
        for label, defect in zip(image.labels, told, strict=True):
            assert label.mask is not None
            assert label.mask.sum() == defect.visible_px
            counted += 1
    assert counted >= 6


def test_names_carry_no_information() -> None:
    names = device_numbers(package_world("sim"), 5, 300)
    assert sorted(names) == list(range(300))
    assert abs(np.corrcoef(np.arange(300), names)[0, 1]) < 0.2


def test_real_tells_images_and_verdicts_alone(real: Path) -> None:
    assert {name.split("/")[0] for name in sums(real)} == {"images", "devices.csv", "manifest.json", "SHA256SUMS"}
    manifest = (real / "manifest.json").read_text()
    assert '"seed"' not in json.dumps(list(json.loads(manifest)))
    assert "seed_fingerprint" in manifest
    with pytest.raises(InputError, match="evaluation seed"):
        package_set.read_device(real, 0)


def test_hidden_truth_comes_back_with_the_seed_alone(real: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="another seed"):
        next(regenerated(real, 12))
    made = list(regenerated(real, 11))
    assert [one.truth.number for one in made] == package_set.devices(real)
    assert {one.truth.number: one.truth.verdict for one in made} == package_set.verdicts(real)
    assert all(one.parts.shape == (1295, 785) for one in made)
    changed = tmp_path / "changed"
    shutil.copytree(real, changed)
    path = package_set.image_path(changed, 1, "dfw")
    picture = cv2.imread(str(path))
    picture[5, 5] += 1
    cv2.imwrite(str(path), picture)
    with pytest.raises(InputError, match="000001-dfw"):
        list(regenerated(changed, 11, keep=lambda number: number == 1))


def test_json_tells_what_was_written(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "mine.yaml"
    path.write_text("extends: package-sim\nname: mine\ncontents: {missing: 1}\n")
    assert simulate(tmp_path / "d", "--domain", str(path), "--devices", "1", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["devices"], told["world"], told["verdicts"]) == (1, "mine", {"missing": 1})
    assert told["pixels_sha256"] == package_set.read_manifest(tmp_path / "d")["pixels_sha256"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--domain", "rael"], 2, "real"),
        (["--domain", "continuous"], 2, "one of"),
        (["--domain", "real", "--twins"], 2, "hidden"),
        (["--preset", "eval-v2"], 2, "eval-v2"),
        (["--preset", "eval-v1", "--twins"], 2, "--preset fixes"),
        (["--devices", "0"], 2, "devices"),
    ],
)
def test_wrong_usage_says_what_to_change(words, status, said, tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert simulate(tmp_path / "d", *words) == status
    assert said in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_two_sets_never_share_a_folder(sim: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    before = sums(sim)
    assert simulate(sim, "--devices", "1") == 1
    assert "already holds a data set" in capsys.readouterr().err
    assert sums(sim) == before


def test_a_preset_of_other_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.PRESETS, "eval-v1", presets.Preset("sim", 1, 1, "0" * 64))
    with pytest.raises(InputError, match="frozen at"):
        presets.write_preset(tmp_path / "d", "eval-v1")
    with pytest.raises(UsageError, match="has 1 devices"):
        presets.write_preset(tmp_path / "more", "eval-v1", devices=2)


def test_what_is_missing_is_named(sim: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no device 77"):
        package_set.read_device(sim, 77)
    with pytest.raises(InputError, match="holds no set of packages"):
        package_set.devices(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(sim, broken)
    package_set.image_path(broken, 0, "dfb").unlink()
    with pytest.raises(InputError, match="000000-dfb"):
        package_set.read_device(broken, 0)
    package_set.truth_path(broken, 1).write_text('{"device": 1}')
    with pytest.raises(FormatError, match="offset_px"):
        package_set.read_device(broken, 1)
    package_set.parts_path(broken, 0).unlink()
    with pytest.raises(InputError, match="000000-parts"):
        package_set.read_parts(broken, 0)
    (broken / "manifest.json").write_text('{"format": "waferlens-package-0"}')
    with pytest.raises(FormatError, match="expected 'waferlens-package-1'"):
        package_set.read_manifest(broken)


def test_the_audit_of_a_domain(capsys) -> None:  # type: ignore[no-untyped-def]
    words = ["simulate", "audit", "--station", "package", "--no-physics"]
    assert main([*words, "--domain", "hard", "--structures", "16", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] == 0
    assert any("12 statistics" in check["name"] for check in told["checks"])
    assert main([*words, "--domain", "sim", "--structures", "8"]) == 2
    assert "at least 16" in capsys.readouterr().err
