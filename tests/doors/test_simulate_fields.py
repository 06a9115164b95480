"""`simulate field` as a user meets it: what stands in the folder, same bytes for a seed, wrong words answered."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from waferlens.cli.main import main
from waferlens.formats.images import read_images
from waferlens.simulate.hole.dataset import hole_world, world_fingerprint
from waferlens.simulate.hole.defects import KIND_NAMES
from waferlens.simulate.hole.field import FieldSpec, Role
from waferlens.simulate.hole.twins import field_images

SET = ["--images", "9", "--defective", "4", "--rows", "1", "--columns", "2", "--seed", "5"]


def sums(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("field") / "data"
    assert main(["simulate", "field", str(out), *SET]) == 0
    return out


def test_the_folder_is_as_told(written: Path) -> None:
    assert set(sums(written)) == {
        "reference/0000.png",
        *(f"good/{n:04d}.png" for n in range(9)),
        *(f"{folder}/{n:04d}.png" for folder in ("defective", "twin") for n in range(4)),
        "truth.json",
        "manifest.json",
        "SHA256SUMS",
    }
    for path in written.rglob("*.png"):
        (image,) = read_images(path)
        assert image.pixels.shape == (72, 96)
        assert image.pixels.dtype == np.uint8


def test_same_bytes_whatever_the_number_of_workers(written: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    assert main(["simulate", "field", str(out), *SET, "--workers", "2"]) == 0
    assert sums(out) == sums(written)


def test_the_set_is_what_the_library_draws(written: Path) -> None:
    spec = FieldSpec(rows=1, columns=2)
    for role, folder, count in ((Role.GOOD, "good", 9), (Role.DEFECTIVE, "defective", 4)):
        for image in field_images(hole_world("sim"), 5, count, spec=spec, role=role):
            name = f"{image.index:04d}.png"
            assert np.array_equal(cv2.imread(str(written / folder / name), cv2.IMREAD_UNCHANGED), image.pixels)
            if image.twin is not None:
                assert np.array_equal(cv2.imread(str(written / "twin" / name), cv2.IMREAD_UNCHANGED), image.twin)


def test_the_manifest_tells_what_it_was_made_from(written: Path) -> None:
    manifest = json.loads((written / "manifest.json").read_text())
    found = sums(written)
    listed = dict(line.split("  ")[::-1] for line in (written / "SHA256SUMS").read_text().splitlines())
    assert listed == {path: one for path, one in found.items() if path not in {"manifest.json", "SHA256SUMS"}}
    assert manifest["files"] == len(listed) == 19
    assert manifest["sums_sha256"] == found["SHA256SUMS"]
    assert (manifest["seed"], manifest["images"], manifest["defective"]) == (5, 9, 4)
    assert manifest["world_sha256"] == world_fingerprint(hole_world("sim"))
    assert manifest["field"]["shift_px"] == 3.0
    assert manifest["defects"]["kinds"] == list(KIND_NAMES)


def test_the_truth_is_coco(written: Path) -> None:
    truth = json.loads((written / "truth.json").read_text())
    images = {image["id"]: image for image in truth["images"]}
    assert len(images) == 1 + 9 + 2 * 4
    assert [category["name"] for category in truth["categories"]] == list(KIND_NAMES)
    assert len(truth["annotations"]) == 4
    for one in truth["annotations"]:
        image = images[one["image_id"]]
        assert image["role"] == "defective"
        x, y, width, height = one["bbox"]
        assert 0 <= x < x + width <= image["width"] == 96
        assert 0 <= y < y + height <= image["height"] == 72
        counts = one["segmentation"]["counts"]
        mask = np.repeat(np.arange(len(counts)) % 2, counts).reshape(one["segmentation"]["size"], order="F")
        assert mask.sum() == one["area"]
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1] == one["bbox"]
        twin = next(other for other in images.values() if other["file_name"] == image["twin"])
        assert twin["twin_of"] == image["file_name"]
        assert twin["pose"] == image["pose"]
        assert abs(one["peak_grey"]) >= abs(one["mean_grey"]) > 0
    reference = next(image for image in images.values() if image["role"] == "reference")
    assert np.array_equal(reference["pose"]["to_reference"], np.eye(3)[:2])


def test_sixteen_bits_and_a_real_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "d"
    words = ["--images", "1", "--defective", "1", "--rows", "1", "--columns", "1", "--domain", "real"]
    words += ["--bits", "16", "--kind", "particle", "--kind", "pinhole", "--shift-px", "0", "--angle-deg", "0"]
    assert main(["simulate", "field", str(out), *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["good"], told["defective"], told["defects"], told["bits"]) == (1, 1, 1, 16)
    assert (told["width_px"], told["height_px"]) == (48, 72)
    assert told["pixels_sha256"] == json.loads((out / "manifest.json").read_text())["pixels_sha256"]
    pixels = cv2.imread(str(out / "good" / "0000.png"), cv2.IMREAD_UNCHANGED)
    assert pixels.dtype == np.uint16
    assert pixels.max() > 255 * 150
    assert (pixels % 257 != 0).mean() > 0.9
    truth = json.loads((out / "truth.json").read_text())
    assert truth["images"][1]["pose"]["dx_px"] == 0.0
    assert abs(truth["annotations"][0]["contrast_grey"]) >= 6 * 257


def test_good_fields_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--images", "1", "--defective", "0", "--rows", "1", "--columns", "1"]
    assert main(["simulate", "field", str(tmp_path / "d"), *words]) == 0
    assert "1 good fields of 48x72 px" in capsys.readouterr().err
    assert not (tmp_path / "d" / "defective").exists()
    assert json.loads((tmp_path / "d" / "truth.json").read_text())["annotations"] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--images", "0"], "images"),
        (["--rows", "0"], "rows"),
        (["--rows", "90", "--columns", "90"], "Mpx"),
        (["--shift-px", "30"], "half a cell"),
        (["--angle-deg", "12"], "from 0 to 5"),
        (["--bits", "12"], "8 or 16"),
        (["--domain", "rael"], "did you mean 'real'"),
        (["--kind", "dust"], "'dust' is unknown"),
        (["--rows", "1", "--columns", "1"], "a bridge joins two holes"),
    ],
)
def test_wrong_usage_says_what_to_change(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", "field", str(tmp_path / "d"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_two_sets_never_share_a_folder(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sums(written)
    assert main(["simulate", "field", str(written), *SET]) == 1
    assert "already holds a data set" in capsys.readouterr().err
    assert sums(written) == before
