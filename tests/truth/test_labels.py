"""Labels come back to the last bit from every format that can hold them, and lie where a hand puts them."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from waferlens.errors import FormatError, InputError
from waferlens.formats.coco import LabelledImage, read_coco, read_coco_labels, write_coco
from waferlens.formats.exact_numbers import exact, minus, plus, shortest
from waferlens.formats.label_outlines import area_px2, hull_box, mask_box
from waferlens.formats.label_studio import read_label_studio, write_label_studio
from waferlens.formats.label_studio_brush import mask_of, rle_of
from waferlens.formats.yolo_labels import read_kinds, read_yolo, write_yolo
from waferlens.records import Label

WIDTH, HEIGHT = 641, 427  # odd on purpose: shares of them have no end, in binary or decimal


def png(path: Path, width: int = WIDTH, height: int = HEIGHT) -> None:
    """A file with the header of such a PNG: labels ask for its size alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + b"IHDR" + width.to_bytes(4, "big")
        + height.to_bytes(4, "big") + b"\x08\x00\x00\x00\x00" + bytes(4)
    )  # fmt: skip


def spans(side: int) -> st.SearchStrategy[tuple[float, float]]:
    numbers = st.floats(-0.5, side - 0.5)
    return st.tuples(numbers, numbers).filter(lambda ends: ends[0] != ends[1]).map(lambda ends: tuple(sorted(ends)))


kinds = st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=4)
points = st.tuples(st.floats(-0.5, WIDTH - 0.5), st.floats(-0.5, HEIGHT - 0.5))
rings = st.lists(points, min_size=3, max_size=6).map(tuple)
boxes = st.tuples(spans(WIDTH), spans(HEIGHT)).map(lambda ends: (ends[0][0], ends[1][0], ends[0][1], ends[1][1]))


def hull_is_a_box(rings_: tuple) -> bool:
    x0, y0, x1, y1 = hull_box(point for ring in rings_ for point in ring)
    return x1 > x0 and y1 > y0


@st.composite
def labels(draw: st.DrawFn, outlines: tuple[str, ...], rings_at_most: int = 1, ignore: bool = False) -> Label:
    kind = draw(kinds)
    aside = draw(st.booleans()) if ignore else False
    match draw(st.sampled_from(outlines)):
        case "box":
            return Label(kind, draw(boxes), ignore=aside)
        case "polygons":
            parts = draw(st.lists(rings, min_size=1, max_size=rings_at_most).map(tuple).filter(hull_is_a_box))
            return Label(kind, hull_box(p for ring in parts for p in ring), parts, ignore=aside)
        case "mask":
            shape = draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
            mask = draw(arrays.arrays(bool, shape).filter(np.any))
            corner = (draw(st.integers(0, WIDTH - 20)), draw(st.integers(0, HEIGHT - 20)))
            return Label(kind, mask_box(mask, corner), mask=mask, mask_corner=corner, ignore=aside)
        case _:
            quad = draw(st.tuples(*[points] * 4).filter(lambda quad: hull_is_a_box((quad,))))
            return Label(kind, hull_box(quad), quad=quad, ignore=aside)


def image_of(found: list[Label]) -> LabelledImage:
    return LabelledImage("a/b.png", WIDTH, HEIGHT, labels=found)


@given(st.lists(labels(("box", "polygons", "mask", "quad"), 3, ignore=True), max_size=4))
@settings(max_examples=60, deadline=None)
def test_coco_holds_everything(tmp_path_factory, found) -> None:
    path = tmp_path_factory.mktemp("coco") / "c.json"
    assert write_coco(path, [image_of(found)]) == len(found)
    assert read_coco_labels(path) == [image_of(found)]


@given(st.lists(labels(("box", "polygons")), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_yolo_holds_boxes_and_polygons(tmp_path_factory, found) -> None:
    folder = tmp_path_factory.mktemp("yolo")
    png(folder / "images" / "a" / "b.png")
    assert write_yolo(folder, [image_of(found)], ["zero"]) == len(found)
    assert read_yolo(folder) == [image_of(found)]
    assert read_kinds(folder) == list(dict.fromkeys(["zero", *(label.kind for label in found)]))
    (folder / "data.yaml").unlink()
    assert read_yolo(folder) == [image_of(found)]  # by classes.txt alone


@given(st.lists(labels(("quad",)), min_size=1, max_size=3))
@settings(max_examples=20, deadline=None)
def test_yolo_holds_oriented_boxes_where_it_is_told(tmp_path_factory, found) -> None:
    folder = tmp_path_factory.mktemp("yolo")
    png(folder / "images" / "a" / "b.png")
    write_yolo(folder, [image_of(found)], oriented=True)
    assert read_yolo(folder, oriented=True) == [image_of(found)]


@given(st.lists(labels(("box", "polygons", "mask"), ignore=True), max_size=3))
@settings(max_examples=40, deadline=None)
def test_label_studio_holds_boxes_polygons_and_masks(tmp_path_factory, found) -> None:
    path = tmp_path_factory.mktemp("ls") / "l.json"
    assert write_label_studio(path, [image_of(found)]) == len(found)
    assert read_label_studio(path) == [image_of(found)]


@given(
    st.floats(-180, 180, exclude_min=True), st.tuples(*[st.floats(150, 250)] * 2), st.tuples(*[st.floats(0.5, 100)] * 2)
)
@settings(max_examples=60, deadline=None)
def test_oriented_boxes_of_label_studio_come_back_to_a_billionth_of_a_pixel(
    tmp_path_factory, angle, corner, sides
) -> None:
    # anticlockwise as seen: the side to the right goes up, towards smaller y
    turn = math.radians(angle)
    right = np.array([math.cos(turn), -math.sin(turn)]) * sides[0]
    down = np.array([math.sin(turn), math.cos(turn)]) * sides[1]
    at = np.array(corner)
    quad = tuple(tuple(map(float, point)) for point in (at, at + right, at + right + down, at + down))
    path = tmp_path_factory.mktemp("ls") / "l.json"
    write_label_studio(path, [image_of([Label("a", hull_box(quad), quad=quad, angle_deg=angle)])])
    (back,) = read_label_studio(path)[0].labels
    assert back.angle_deg == angle
    assert np.allclose(back.quad, quad, rtol=0, atol=1e-9)
    assert np.allclose(back.box, hull_box(quad), rtol=0, atol=1e-9)


def test_a_rotation_is_clockwise_about_the_upper_left_corner_in_pixels(tmp_path) -> None:
    # on 200 x 100 px: corner at 50 %, 20 % = (100, 20) from the image's own, 20 px wide, 30 px high, a quarter turned:
    # clockwise as seen, so that its right side points down and its lower side to the left
    value = {"x": 50, "y": 20, "width": 10, "height": 30, "rotation": 90, "rectanglelabels": ["die"]}
    (label,) = read_studio(tmp_path, value).labels
    assert np.allclose(np.array(label.quad) + 0.5, [(100, 20), (100, 40), (70, 40), (70, 20)], atol=1e-12)
    assert label.angle_deg == -90
    assert np.allclose(label.box, (69.5, 19.5, 99.5, 39.5), atol=1e-12)
    value["rotation"] = 328.25
    assert read_studio(tmp_path, value | {"width": 1, "height": 1}).labels[0].angle_deg == 31.75
    upright = read_studio(tmp_path, value | {"rotation": 0}).labels[0]
    assert (upright.box, upright.quad, upright.angle_deg) == ((99.5, 19.5, 119.5, 49.5), None, None)


def test_every_format_means_the_same_pixels(tmp_path) -> None:
    # the pixels of columns 10 to 19 and rows 20 to 24 of an image of 200 x 100 px
    label = Label("crack", (9.5, 19.5, 19.5, 24.5))
    image = LabelledImage("a.png", 200, 100, labels=[label])
    png(tmp_path / "images" / "a.png", 200, 100)
    write_coco(tmp_path / "c.json", [image])
    write_label_studio(tmp_path / "l.json", [image])
    write_yolo(tmp_path, [image])
    assert json.loads((tmp_path / "c.json").read_text())["annotations"][0]["bbox"] == [10, 20, 10, 5]
    assert (tmp_path / "labels" / "a.txt").read_text() == "0 0.075 0.225 0.05 0.05\n"
    value = json.loads((tmp_path / "l.json").read_text())[0]["annotations"][0]["result"][0]["value"]
    assert [value[key] for key in ("x", "y", "width", "height")] == [5, 20, 5, 5]
    # others read the mask of these pixels as the same box
    mask = np.zeros((100, 200), bool)
    mask[20:25, 10:20] = True
    assert mask_box(mask) == label.box
    assert area_px2(label) == area_px2(Label("crack", label.box, mask=mask)) == 50


def read_studio(tmp_path: Path, value: dict, **keys) -> LabelledImage:
    result = {"id": "r", "type": "x", "original_width": 200, "original_height": 100, "to_name": "image", "value": value}
    task = {"id": 3, "data": {"image": "a.png"}, "annotations": [{"id": 9, "result": [result | keys]}]}
    path = tmp_path / "l.json"
    path.write_text(json.dumps([task]), "utf-8")
    return read_label_studio(path)[0]


@given(arrays.arrays(bool, st.tuples(st.integers(1, 30), st.integers(1, 30))))
@settings(max_examples=60, deadline=None)
def test_strokes_come_back(mask) -> None:
    assert np.array_equal(mask_of(rle_of(mask), mask.shape[1], mask.shape[0]), mask)


def test_a_stroke_bit_by_bit() -> None:
    # 2 x 1 px of which the second is set: 8 values of 8 bits; lengths of 3, 4, 8 and 16 bits;
    # 4 zeros as a run: 1 00 011 00000000; 4 times 255: 1 00 011 11111111
    bits = f"{8:032b}" + f"{7:05b}" + "0010001101111111" + "10001100000000" + "10001111111111"
    rle = [int(bits[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(bits), 8)]
    assert rle_of(np.array([[False, True]])) == rle
    # single values of a colour, as the pen leaves them: 0 00 111 and eight values; alpha is 127 and 128
    loose = bits[:53] + "000" + "111" + "".join(f"{value:08b}" for value in (9, 8, 7, 127, 9, 8, 7, 128))
    rle = [int(loose[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(loose), 8)]
    assert mask_of(rle, 2, 1).tolist() == [[False, True]]
    with pytest.raises(ValueError, match="ends before all its values"):
        mask_of(rle[:-1], 2, 1)
    with pytest.raises(ValueError, match="holds 8 values; 3x1 px"):
        mask_of(rle, 3, 1)
    with pytest.raises(ValueError, match="inside its header"):
        mask_of(rle[:5], 2, 1)
    with pytest.raises(ValueError, match="whole numbers from 0 to 255"):
        mask_of([256, *rle], 2, 1)
    longer = bits[:53] + "101" + f"{15:04b}" + "11111111"  # a run of 16 where 8 are left
    with pytest.raises(ValueError, match="longer than what is left"):
        mask_of([int(longer[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(longer), 8)], 2, 1)


def test_long_runs_are_split() -> None:
    mask = np.zeros((785, 1295), bool)  # 4 million zeros: 63 runs of 65,536
    mask[300:, 700:] = True
    assert np.array_equal(mask_of(rle_of(mask), 1295, 785), mask)


def test_equal_pixels_are_equal_masks() -> None:
    mask = np.zeros((9, 9), bool)
    mask[2:4, 3:7] = True
    one = Label("a", mask_box(mask), mask=mask)
    other = Label("a", mask_box(mask), mask=np.ones((2, 4), bool), mask_corner=(3, 2))
    assert one == other
    assert one != Label("a", one.box)
    assert one != Label("a", one.box, mask=mask, mask_corner=(1, 0))
    assert one != "a"


def test_a_crowd_is_no_finding_and_a_label_to_ignore(tmp_path) -> None:
    label = Label("led", (-0.5, -0.5, 9.5, 9.5), ignore=True)
    write_coco(tmp_path / "c.json", [LabelledImage("a.png", 10, 10, labels=[label])])
    told = json.loads((tmp_path / "c.json").read_text())["annotations"][0]
    assert told["iscrowd"] == 1
    assert read_coco_labels(tmp_path / "c.json")[0].labels == [label]
    with pytest.raises(FormatError, match="marks a crowd"):
        read_coco(tmp_path / "c.json")


def test_run_lengths_are_read_as_a_list_or_a_string(tmp_path) -> None:
    def read(outline) -> Label:
        told = {
            "images": [{"id": 1, "file_name": "a.png", "width": 3, "height": 2}],
            "annotations": [
                {"id": 5, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2], "segmentation": outline}
            ],
            "categories": [{"id": 1, "name": "crack"}],
        }  # fmt: skip
        (tmp_path / "c.json").write_text(json.dumps(told))
        return read_coco_labels(tmp_path / "c.json")[0].labels[0]

    whole = np.array([[0, 1, 0], [1, 1, 0]], bool)
    expected = Label("crack", (-0.5, -0.5, 1.5, 1.5), mask=whole)
    assert read({"size": [2, 3], "counts": [1, 3, 2]}) == expected
    assert read({"size": [2, 3], "counts": "132"}) == expected
    for outline, reason in (
        ({"size": [3, 2], "counts": [1, 3, 2]}, "segmentation.size is 2x3 px, the image has 3x2"),
        ({"size": [2, 3], "counts": [1, 3, 3]}, "sum to 7 px"),
        ({"size": [2, 3], "counts": [6]}, "no pixel"),
        ({"size": [2, 3], "counts": {}}, "neither a text nor a list"),
        ({"counts": [6]}, r"segmentation.size is not \[height, width\]"),
        ([[0, 0, 1, 1]], r"segmentation\[0\] has 4 numbers"),
        ([[0, 0, 1, 1, 2]], r"segmentation\[0\] has 5 numbers"),
        ([[0, 0, 1, 1, 2, "3"]], r"segmentation\[0\] is not a list of numbers"),
        ([[0, 0, 1, 1, 2, 3]], "a polygon reaches from 0 to 3 in y, the image has 2 px"),
        ("132", "neither a list of polygons nor run lengths"),
    ):
        with pytest.raises(FormatError, match=r"annotations\[0\] \(id 5\): .*" + reason):
            read(outline)


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (Label("a", (0, 0, 0, 1)), "no area"),
        (Label("a", (0, 0, math.nan, 1)), "no area"),
        (Label("a", (0, 0, 10, 1)), "its box reaches from 0.5 to 10.5 in x, the image has 10 px"),
        (Label("a", (0, -1, 1, 1)), "its box reaches from -0.5 to 1.5 in y"),
        (Label("a", (0, 0, 1, 1), ((((0, 0), (1, 1))),)), "a polygon of 2 corners"),
        (Label("a", (0, 0, 1, 1), (((0, 0), (1, 1), (11, 1)),)), "a polygon reaches"),
        (Label("a", (0, 0, 1, 1), mask=np.zeros((2, 2), bool)), "no pixel"),
        (Label("a", (0, 0, 1, 1), mask=np.ones((2, 2), bool), mask_corner=(9, 0)), "its mask reaches"),
        (Label("a", (0, 0, 1, 1), (((0, 0), (1, 1), (1, 0)),), np.ones((2, 2), bool)), "polygons and a mask"),
        (Label("a", (0, 0, 1, 1), angle_deg=3), "an angle and no quad"),
        (Label("a", (0, 0, 1, 1), quad=((0, 0), (1, 0), (1, 1), (0, 1)), angle_deg=-180), "its angle of -180"),
    ],
)
def test_what_is_no_label_is_not_written(tmp_path, label, reason) -> None:
    image = LabelledImage("x.png", 10, 10, labels=[label])
    for write in (
        lambda: write_coco(tmp_path / "c.json", [image]),
        lambda: write_yolo(tmp_path / "yolo", [image]),
        lambda: write_label_studio(tmp_path / "l.json", [image]),
    ):
        with pytest.raises(InputError, match=f"the label 'a' at .*{reason}"):
            write()
    assert list(tmp_path.iterdir()) == []


def test_numbers_are_written_short() -> None:
    third = shortest([Decimal(1) / 3], lambda told: float(told) == 1 / 3)[0]
    assert str(third) == "0.3333333333333333"
    assert str(shortest([Decimal("0.5000")], lambda told: True)[0]) == "0.5"
    assert float(minus(plus(exact(0.1), exact(0.2)), exact(0.2))) == 0.1
    with pytest.raises(ValueError, match="no coordinate"):
        exact(math.inf)
    with pytest.raises(ValueError, match="cannot be written"):
        shortest([Decimal(1)], lambda told: False)
