"""Splits by device: the same picture is found on another side, mirrored or not, and different devices are not."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from waferlens.cli.main import main
from waferlens.errors import InputError, UsageError
from waferlens.formats.coco import LabelledImage, read_coco_labels, write_coco
from waferlens.ops.fingerprint import ALIKE, alike, fingerprint
from waferlens.prepare.label_splits import device_of, refuse_shared, split_labels
from waferlens.prepare.splits import split_of
from waferlens.records import Label

SIZE = (160, 96)


def device(seed: int) -> np.ndarray:
    """A device of one product: the same body and die as all others, a texture of its own."""
    rng = np.random.default_rng(seed)
    texture = cv2.GaussianBlur(rng.normal(0, 1, SIZE[::-1]), (0, 0), 2.5)
    picture = np.full(SIZE[::-1], 60.0)
    picture[20:76, 30:130] = 110
    picture[36:60, 60:100] = 170
    return np.clip(picture + 12 * texture / texture.std(), 0, 255).astype(np.uint8)


def copies(picture: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_GRAYSCALE)
    return {
        "as it is": picture,
        "as JPEG": jpeg,
        "dimmed, with noise": np.clip(picture * 0.7 + rng.normal(0, 3, picture.shape), 0, 255),
        "smaller": cv2.resize(picture, (112, 67), interpolation=cv2.INTER_AREA),
        "mirrored": picture[:, ::-1],
        "turned": np.rot90(picture),
        "both": np.rot90(picture[::-1], 1),
    }


def test_copies_are_alike_and_devices_are_not() -> None:
    marks = np.stack([fingerprint(device(seed)) for seed in range(12)])
    assert np.allclose(np.linalg.norm(marks, axis=1), 1, atol=1e-5)
    others = [pair for pair in alike(marks, marks, 0.0) if pair[0] != pair[1]]
    assert max(pair[2] for pair in others) < ALIKE - 0.02
    for name, copy in copies(device(3)).items():
        ((first, second, correlation),) = alike(marks, fingerprint(copy)[None])
        assert (first, second) == (3, 0), name
        assert correlation > ALIKE + 0.02, name
    assert alike(marks, fingerprint(np.full((50, 60), 128.0))[None], 0.01) == []  # flat: like nothing


def test_the_device_stands_in_the_path() -> None:
    assert device_of("images/000123-bf.png", r"([0-9]+)-") == "000123"
    assert device_of("lot7/000123.png", r"lot\d+") == "lot7"
    with pytest.raises(UsageError, match=r"finds no device in 'a\.png'"):
        device_of("a.png", r"([0-9]+)-")
    with pytest.raises(UsageError, match="no regular expression"):
        device_of("a.png", "(")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(12):
        for light in ("bf", "df"):
            assert cv2.imwrite(
                str(tmp_path / "images" / f"{number:03d}-{light}.png"), device(2 * number + (light == "df"))
            )
    labels = [Label("crack", (9.5, 9.5, 19.5, 29.5))]
    found = [
        LabelledImage(f"{number:03d}-{light}.png", *SIZE, labels=labels)
        for number in range(12)
        for light in ("bf", "df")
    ]
    write_coco(tmp_path / "all.json", found)
    return tmp_path


def test_a_device_is_on_one_side(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["load", "labels", str(folder / "all.json"), "--to", "coco", "--out", str(folder / "l.json"), "--json"]
    assert main([*words, "--images", str(folder / "images"), "--split-by", "([0-9]+)-"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sum(part["images"] for part in told["sides"].values()) == told["images"] == told["labels"] == 24
    seen: dict[str, str] = {}
    for side, part in told["sides"].items():
        assert part["out"] == str(folder / f"l-{side}.json")
        for image in read_coco_labels(part["out"]):
            number = image.path[:3]
            assert seen.setdefault(number, side) == side == split_of(number)
    assert len(seen) == 12
    assert len(set(seen.values())) > 1
    assert main([*words, "--split-by", "([0-9]+)-"]) == 2
    assert "give --images" in capsys.readouterr().err
    assert main([*words[:-1], "--images", str(folder / "images"), "--split-by", "([0-9]+)-"]) == 0
    assert "train " in capsys.readouterr().out


def test_the_same_picture_on_two_sides_is_refused(folder: Path) -> None:
    found = read_coco_labels(folder / "all.json")
    by_side: dict[str, str] = {}
    for image in found:
        by_side.setdefault(split_of(image.path[:3]), image.path)
    one, other = list(by_side.values())[:2]
    picture = cv2.imread(str(folder / "images" / one), cv2.IMREAD_GRAYSCALE)
    assert cv2.imwrite(str(folder / "images" / other), picture[:, ::-1])
    with pytest.raises(InputError, match=r"the same picture is on two sides of the split: .* alike") as told:
        split_labels(found, folder / "images", r"([0-9]+)-")
    assert one in str(told.value)
    assert other in str(told.value)
    # of one device they may be
    refuse_shared({"train": [folder / "images" / one, folder / "images" / other], "test": []})
    (folder / "images" / one).write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match="truncated PNG"):
        split_labels(found, folder / "images", r"([0-9]+)-")


def test_tiff_and_colour_are_recognised(tmp_path: Path) -> None:
    import tifffile

    deep = device(5).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", deep)
    assert cv2.imwrite(str(tmp_path / "b.png"), cv2.merge([device(5)] * 3))
    with pytest.raises(InputError, match=r"a\.tif \(train\) and .*b\.png \(test\)"):
        refuse_shared({"train": [tmp_path / "a.tif"], "test": [tmp_path / "b.png"]})
