"""Exports of Label Studio, a YOLO set it made, and a mask that it imports as a brush stroke."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from waferlens.errors import FormatError
from waferlens.formats.coco import read_coco_labels, write_coco
from waferlens.formats.label_outlines import hull_box, mask_box
from waferlens.formats.label_studio import read_label_studio, write_label_studio
from waferlens.formats.label_studio_brush import mask_of, rle_of
from waferlens.formats.rle import counts_of, packed, unpacked
from waferlens.formats.rle import mask_of as coco_mask_of
from waferlens.formats.yolo_labels import read_kinds, read_yolo, write_yolo
from waferlens.load.labels import read_label_set, read_labels

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def folder(real_data: Path) -> Path:
    return real_data / "label_studio"


def test_rectangles(folder: Path) -> None:
    first, second = read_label_studio(folder / "yolo_export" / "data.json")
    # task 1 was marked by two people; the second changed it last
    assert first.remarks == ["tasks[0] (id 1): 2 annotations, the latest (id 2) counts"]
    assert [label.kind for label in first.labels] == ["parasites", "white"]
    assert (first.path, first.width_px, first.height_px) == ("/image1", 2800, 2800)
    # 37.88706739526412 % and 3.8251366120218573 % of 2800 px
    x0, y0, x1, y1 = first.labels[0].box
    assert x0 == pytest.approx(0.3788706739526412 * 2800 - 0.5, abs=1e-9)
    assert y0 == pytest.approx(0.7176684881602914 * 2800 - 0.5, abs=1e-9)
    assert x1 - x0 == pytest.approx(0.038251366120218573 * 2800, abs=1e-9)
    assert y1 - y0 == pytest.approx(0.04553734061930784 * 2800, abs=1e-9)
    assert second.labels


def test_oriented_boxes(folder: Path) -> None:
    images = read_label_studio(folder / "yolo_export" / "data_obb.json")
    assert [len(image.labels) for image in images] == [23, 1, 1]
    first = images[0].labels[0]
    assert first.angle_deg == 31.67759633967164 - 0.01  # 360 - 328.33240366032836
    sides = np.diff(np.array([*first.quad, first.quad[0]]), axis=0)
    assert np.hypot(*sides.T)[:2] == pytest.approx([0.19045470024656689 * 597, 0.08132522043893883 * 768], abs=1e-9)
    assert abs(sides[0] @ sides[1]) < 1e-9
    assert sides[0][1] < 0  # 328 deg clockwise is 32 deg anticlockwise: its upper side rises to the right
    # the project's own classes say `butterfly`, most of its labels `Butterfly`
    with pytest.raises(FormatError, match="is of the class 'Butterfly', which is none of butterfly, did you mean"):
        read_labels(folder / "yolo_export" / "data_obb.json", kinds=["butterfly"])


def test_polygons(folder: Path) -> None:
    (image,) = read_label_studio(folder / "yolo_export" / "data_polygons.json")
    (label,) = image.labels
    (ring,) = label.polygons
    assert (label.kind, len(ring), image.width_px, image.height_px) == ("Airplane", 37, 640, 426)
    assert ring[0] == (383.5, pytest.approx(0.1955922865013774 * 426 - 0.5, abs=1e-9))
    assert label.box == hull_box(ring)


@pytest.mark.parametrize("name", ["data", "data_obb", "data_polygons"])
def test_exports_come_back(folder: Path, tmp_path: Path, name: str) -> None:
    images = read_label_studio(folder / "yolo_export" / f"{name}.json")
    write_coco(tmp_path / "c.json", images)
    assert read_coco_labels(tmp_path / "c.json") == images
    write_label_studio(tmp_path / "l.json", images)
    again = read_label_studio(tmp_path / "l.json")
    if name != "data_obb":
        assert again == images
    for one, other in zip(images, again, strict=True):
        for mine, its in zip(one.labels, other.labels, strict=True):
            assert (mine.kind, mine.angle_deg) == (its.kind, its.angle_deg)
            assert np.allclose(mine.box, its.box, rtol=0, atol=1e-9)
            if mine.quad is not None:
                assert np.allclose(mine.quad, its.quad, rtol=0, atol=1e-9)


def test_a_yolo_set(folder: Path, tmp_path: Path) -> None:
    images = read_yolo(folder / "yolo_labels")
    assert [image.path for image in images] == [
        *("img_1.jpg", "img_2.png", "img_3.png", "img_4.png", "img_5.jpg", "img_6.jpeg", "img_7.jpeg")
    ]
    assert Counter(label.kind for image in images for label in image.labels) == {
        "bus": 8, "closed_door": 10, "number": 6, "opened_door": 1,
    }  # fmt: skip
    # 2 0.49765625 0.46200607902735563 0.9640625 0.8693009118541033 on 640 x 329 px: pixels 10 to 627, 9 to 295
    assert images[0].labels[0].box == pytest.approx((9.5, 8.5, 626.5, 294.5), abs=1e-9)
    write_yolo(tmp_path, images, read_kinds(folder / "yolo_labels"))
    assert read_yolo(tmp_path, folder / "yolo_labels" / "images") == images
    assert read_label_set(folder / "yolo_labels").kinds == ["closed_door", "opened_door", "bus", "number"]


def test_a_brush_mask(folder: Path, tmp_path: Path) -> None:
    pixels = cv2.imread(str(folder / "brush" / "test.png"), cv2.IMREAD_GRAYSCALE)
    mask = pixels > 128
    assert mask.shape == (427, 640)
    assert 0 < mask.mean() < 1
    assert np.array_equal(mask_of(rle_of(mask), 640, 427), mask)
    assert np.array_equal(coco_mask_of(unpacked(packed(counts_of(mask))), 427, 640), mask)
    assert mask_box(mask)[2] <= 639.5
