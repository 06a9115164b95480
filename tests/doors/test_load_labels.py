"""`waferlens load labels`: any format to any other, and every fault by file and entry."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from waferlens.cli.main import main
from waferlens.errors import FormatError, InputError
from waferlens.formats.coco import LabelledImage, read_coco_labels, write_coco
from waferlens.formats.image_size import image_size
from waferlens.formats.label_studio import read_label_studio, write_label_studio
from waferlens.formats.yolo_labels import read_kinds, read_yolo, write_yolo
from waferlens.load.labels import read_label_set, read_labels
from waferlens.records import Label

SIZE = (64, 48)
CRACK = Label("crack", (9.5, 19.5, 30.1, 29.7))
TURNED = Label("rotate", (0.0, 1.0, 20.0, 30.0), (((0.0, 1.0), (20.0, 2.0), (10.0, 30.0)),))
IMAGES = [LabelledImage("a.png", *SIZE, labels=[CRACK, TURNED]), LabelledImage("b.png", *SIZE)]
PARTS = Label("chip", (0, 0, 20, 20), (((0, 0), (5, 0), (0, 5)), ((10, 10), (20, 10), (20, 20))))
MASK = Label("scratch", (-0.5, -0.5, 3.5, 2.5), mask=np.ones((3, 4), bool))
QUAD = Label("die", (5.0, 5.0, 15.0, 25.0), quad=((5.0, 5.0), (15.0, 5.0), (15.0, 25.0), (5.0, 25.0)), angle_deg=0.0)


def picture(path: Path, size: tuple[int, int] = SIZE) -> None:
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.zeros((size[1], size[0]), np.uint8))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        picture(tmp_path / "images" / name)
    return tmp_path / "images"


def run(capsys: pytest.CaptureFixture[str], *words: object, status: int = 0) -> dict:
    assert main(["load", "labels", *map(str, words), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *words: object, status: int = 1) -> str:
    assert main(["load", "labels", *map(str, words)]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_round_about_every_format(tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_coco(tmp_path / "0.json", IMAGES, ["rotate", "crack", "chip"])
    told = run(capsys, tmp_path / "0.json", "--to", "yolo", "--out", tmp_path / "yolo")
    assert told == {
        "source": str(tmp_path / "0.json"),
        "from": "coco",
        "to": "yolo",
        "out": str(tmp_path / "yolo"),
        "images": 2,
        "labels": 2,
        "classes": {"rotate": 1, "crack": 1, "chip": 0},
        "passed_over": [],
        "lost": [],
    }
    assert (tmp_path / "yolo" / "labels" / "b.txt").read_text() == ""
    told = run(
        capsys, tmp_path / "yolo", "--images", images, "--to", "label-studio", "--out", tmp_path / "new" / "1.json"
    )
    assert (told["from"], told["labels"]) == ("yolo", 2)
    told = run(capsys, tmp_path / "new" / "1.json", "--to", "coco", "--out", tmp_path / "2.json")
    assert told["from"] == "label-studio"
    assert read_coco_labels(tmp_path / "2.json") == IMAGES
    assert main(["load", "labels", str(tmp_path / "2.json"), "--to", "coco", "--out", str(tmp_path / "3.json")]) == 0
    assert "2 labels on 2 images as coco (read from coco: 1 crack, 1 rotate)" in capsys.readouterr().err


def test_what_a_format_cannot_hold_is_refused_or_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [
        ("yolo", PARTS, "its 2 polygons become labels of their own", 2),
        ("yolo", MASK, "it has a mask, of which the box is kept", 1),
        ("yolo", QUAD, "its quad becomes a polygon, its angle is not kept", 1),
        ("yolo", Label("led", (0, 0, 1, 1), ignore=True), "it is to be ignored, and is left out", 0),
        ("yolo", Label("x", (0, 0, 9, 9), TURNED.polygons), "its box is not the one around its polygons", 1),
        ("label-studio", PARTS, "its 2 polygons become regions of their own", 2),
        ("label-studio", Label("x", (0, 0, 9, 9), TURNED.polygons), "its box is not the one around its outline", 1),
        ("label-studio", Label("x", TURNED.box, TURNED.polygons, quad=QUAD.quad), "its quad is not kept besides", 1),
    ]
    for place, (to, label, reason, kept) in enumerate(cases):
        source = tmp_path / f"{place}.json"
        out = tmp_path / (f"out{place}" if to == "yolo" else f"out{place}.json")
        write_coco(source, [LabelledImage("a.png", *SIZE, labels=[label, CRACK])])
        told = refused(capsys, source, "--to", to, "--out", out)
        assert f"a.png: the label {label.kind!r} at" in told
        assert reason in told
        assert not out.exists()
        told = run(capsys, source, "--to", to, "--out", out, "--lossy")
        assert told["labels"] == kept + 1
        assert reason in told["lost"][0]
    assert main(["load", "labels", str(source), "--to", to, "--out", str(out), "--lossy"]) == 0
    assert "lost: a.png: x at" in capsys.readouterr().out


def test_oriented_boxes_of_yolo(tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = Label(QUAD.kind, QUAD.box, quad=QUAD.quad)
    write_coco(tmp_path / "0.json", [LabelledImage("a.png", *SIZE, labels=[plain])])
    run(capsys, tmp_path / "0.json", "--to", "yolo", "--out", tmp_path / "y", "--oriented")
    words = [tmp_path / "y", "--images", images, "--to", "coco", "--out", tmp_path / "1.json"]
    run(capsys, *words, "--oriented")
    assert read_coco_labels(tmp_path / "1.json")[0].labels == [plain]
    run(capsys, *words)
    assert read_coco_labels(tmp_path / "1.json")[0].labels == [Label("die", QUAD.box, (QUAD.quad,))]
    write_coco(tmp_path / "2.json", [LabelledImage("a.png", *SIZE, labels=[CRACK])])
    assert "it is no oriented box" in refused(
        capsys, tmp_path / "2.json", "--to", "yolo", "--out", tmp_path / "z", "--oriented"
    )


def test_classes_that_do_not_match(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_coco(tmp_path / "0.json", IMAGES)
    words = [tmp_path / "0.json", "--to", "coco", "--out", tmp_path / "1.json", "--classes"]
    told = refused(capsys, *words, "Crack,rotate")
    assert "0.json: a.png: the label at (9.5, 19.5, 30.1, 29.7) is of the class 'crack'" in told
    assert "none of Crack, rotate, did you mean 'Crack'?" in told
    told = run(capsys, *words, "rotate, crack,chip")
    assert told["classes"] == {"rotate": 1, "crack": 1, "chip": 0}


def test_images_give_sizes_and_names(tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # as Label Studio names what was uploaded to it
    found = [LabelledImage("/data/upload/3/e97d4735-a.png", *SIZE, labels=[CRACK]), LabelledImage("http://x/b.png?v=1")]
    write_label_studio(tmp_path / "l.json", found)
    words = [tmp_path / "l.json", "--to", "coco", "--out", tmp_path / "c.json", "--images", images]
    run(capsys, *words)
    read = read_coco_labels(tmp_path / "c.json")
    assert [(image.path, image.width_px, image.height_px) for image in read] == [("a.png", 64, 48), ("b.png", 64, 48)]
    assert "its size is not known" in refused(capsys, tmp_path / "l.json", "--to", "yolo", "--out", tmp_path / "y")
    picture(images / "a.png", (65, 48))
    assert "says 64x48 px of a.png, which has 65x48" in refused(capsys, *words)
    picture(images / "more" / "b.png")
    picture(images / "a.png")
    assert "b.png?v=1, and 2 of that name are in" in refused(capsys, *words)
    (images / "a.png").unlink()
    assert "names the image /data/upload/3/e97d4735-a.png, and it is not in" in refused(capsys, *words)
    assert "no such folder of images" in refused(capsys, *words[:-1], tmp_path / "nowhere")


def test_what_is_no_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(source: Path) -> str:
        return refused(capsys, source, "--to", "coco", "--out", tmp_path / "out.json")

    assert "no such file or folder" in fails(tmp_path / "none")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no labels: no classes.txt or data.yaml (YOLO), and no .json" in fails(empty)
    (empty / "1.json").write_text("{}")
    assert "1.json: not a COCO file: `categories` is missing" in fails(empty)
    (empty / "2.json").write_text("[]")
    assert "has 2 .json files; name the one that is meant" in fails(empty)
    (empty / "labels.json").write_text("<annotation/>")
    assert "in no known format" in fails(empty)
    assert "no format 'voc'" in refused(capsys, empty / "2.json", "--to", "voc", "--out", "x", status=2)
    assert "name it with .json" in refused(capsys, empty / "2.json", "--to", "coco", "--out", "x", status=2)
    assert "name a folder" in refused(capsys, empty / "2.json", "--to", "yolo", "--out", "x.txt", status=2)
    assert read_labels(empty / "2.json") == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0.1", "3 numbers behind the class"),
        ("0 0.5 0.5 0.1 0.1 0.9", "5 numbers behind the class; 4 are a box"),
        ("0", "0 numbers behind the class"),
        ("crack 0.5 0.5 0.1 0.1", "the class is a whole number, got 'crack'"),
        ("-1 0.5 0.5 0.1 0.1", "the class is a whole number"),
        ("2 0.5 0.5 0.1 0.1", "class 2; there are 2, from 0: crack, rotate"),
        ("0 0.5 0.5 0.1 x", "a number cannot be read"),
        ("0 0.5 0.5 nan 0.1", "a number is no share"),
        ("0 0.5 0.5 -0.1 0.1", "width and height must be above 0"),
        ("0 0.95 0.5 0.2 0.1", "its box reaches from 54.4 to 67.2 in x, the image has 64 px"),
        ("0 0.1 0.1 0.2 0.1 0.2 1.5", "a polygon reaches from 4.8 to 72 in y, the image has 48 px"),
        ("0 0.1 0.1 0.2 0.1 0.3 0.1", "no area"),
    ],
)
def test_a_bad_line_of_yolo_is_named(tmp_path: Path, images: Path, line: str, reason: str) -> None:
    (tmp_path / "classes.txt").write_text("crack\nrotate\n\n")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(f"0 0.5 0.5 0.1 0.1\r\n\r\n{line}\r\n")
    with pytest.raises(FormatError, match=rf"a\.txt: line 3: .*{reason}"):
        read_yolo(tmp_path)


def test_a_set_of_yolo_as_others_lay_it_out(tmp_path: Path) -> None:
    # texts beside the images, classes in a yaml with numbers
    for name in ("train/x.png", "val/x.png"):
        picture(tmp_path / name)
    (tmp_path / "train" / "x.txt").write_text("1 0.5 0.5 1 1\n")
    (tmp_path / "readme.txt").write_text("no labels\n")
    (tmp_path / "data.yaml").write_text("path: .\ntrain: train\nnames:\n  0: crack\n  1: rotate\n")
    whole = Label("rotate", (-0.5, -0.5, 63.5, 47.5))
    assert [(image.path, image.labels) for image in read_labels(tmp_path / "data.yaml")] == [
        ("train/x.png", [whole]),
        ("val/x.png", []),
    ]
    assert read_label_set(tmp_path).kinds == ["crack", "rotate"]
    (tmp_path / "train" / "y.txt").write_text("")
    with pytest.raises(InputError, match=r"y\.txt: its image .*y\.\* is not there, and a YOLO label needs"):
        read_yolo(tmp_path)
    (tmp_path / "train" / "y.txt").unlink()
    picture(tmp_path / "train" / "x.jpg")
    with pytest.raises(InputError, match=r"would share the labels train/x\.txt"):
        read_yolo(tmp_path)
    with pytest.raises(InputError, match="no such folder; a YOLO label says shares"):
        read_yolo(tmp_path, tmp_path / "nowhere")
    with pytest.raises(InputError, match="no images here"):
        read_yolo(empty_set(tmp_path / "e"))


def test_only_what_is_listed_is_of_a_set(tmp_path: Path, images: Path) -> None:
    write_yolo(tmp_path / "y", IMAGES[:1])
    assert (tmp_path / "y" / "images.txt").read_text() == "./images/a.png\n"
    assert read_yolo(tmp_path / "y", images) == IMAGES[:1]  # and b.png, which is there, is of another side
    (images / "a.png").unlink()
    (tmp_path / "y" / "labels" / "a.txt").unlink()
    with pytest.raises(InputError, match=r"images\.txt: line 1: names a\.png, which is not in"):
        read_yolo(tmp_path / "y", images)


def empty_set(folder: Path) -> Path:
    folder.mkdir()
    (folder / "classes.txt").write_text("a\n")
    return folder


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("classes.txt", "", "names no classes"),
        ("classes.txt", "a\n\nb\n", "class 1 has no name"),
        ("classes.txt", "a\nb\na\n", "classes 0 and 2 have the same name 'a'"),
        ("data.yaml", "names: [a, a]", "the same name"),
        ("data.yaml", "names: {0: a, 2: b}", "from 0 up without a gap"),
        ("data.yaml", "nc: 2", "does not name its classes"),
        ("data.yaml", "names: [", "cannot be read as YAML"),
        ("data.yaml", "names: 3", "does not name its classes"),
    ],
)
def test_classes_of_yolo_that_are_none(tmp_path: Path, name: str, text: str, reason: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(FormatError, match=reason):
        read_kinds(tmp_path)
    with pytest.raises(InputError, match=r"has neither classes\.txt nor data\.yaml"):
        read_kinds(tmp_path / "x")


def test_yolo_texts_are_not_mixed_up(tmp_path: Path) -> None:
    same = [LabelledImage("a.png", 9, 9), LabelledImage("a.jpg", 9, 9)]
    with pytest.raises(InputError, match=r"a\.jpg: and a\.png would share the labels a\.txt"):
        write_yolo(tmp_path, same, ["x"])
    with pytest.raises(InputError, match="has no class"):
        write_yolo(tmp_path, same[:1])
    with pytest.raises(InputError, match="page 2 of a file"):
        write_yolo(tmp_path, [LabelledImage("a.tif", 9, 9, page=2)], ["x"])
    with pytest.raises(InputError, match=r"the class name 'a\\nb' cannot stand on a line"):
        write_yolo(tmp_path, same[:1], ["a\nb"])
    write_yolo(tmp_path, [LabelledImage("../a.png", 9, 9)], ["x"])
    assert (tmp_path / "labels" / "a.txt").exists()
    write_yolo(tmp_path / "more", [LabelledImage("images/c/d.png", 9, 9)], ["x"])
    assert (tmp_path / "more" / "labels" / "c" / "d.txt").exists()  # labels/ stands beside images/
    with pytest.raises(InputError, match="has labels already"):
        write_yolo(tmp_path, same[:1], ["x"])


def result(**keys: object) -> dict:
    value = {"x": 10, "y": 10, "width": 10, "height": 10, "rotation": 0, "rectanglelabels": ["crack"]}
    told = {
        "id": "r1",
        "type": "rectanglelabels",
        "to_name": "image",
        "original_width": 64,
        "original_height": 48,
        "value": value | keys.pop("value", {}),  # type: ignore[operator]
    }
    return told | keys


def studio(path: Path, *results: object, **keys: object) -> Path:
    task = {"id": 7, "data": {"image": "a.png"}, "annotations": [{"id": 1, "result": list(results)}]}
    path.write_text(json.dumps([task | keys]), "utf-8")
    return path


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (result(value={"x": "10"}), "value.x is no number"),
        (result(value={"width": 0}), "width and height must be above 0"),
        (result(value={"width": 95}), "its box reaches from 6.4 to 67.2 in x, the image has 64 px"),
        (result(value={"rectanglelabels": "crack"}), "its classes are not a list of names"),
        (result(value={"points": [[1, 2, 3]]}), r"its points are not a list of \[x, y\]"),
        (result(value={"points": [[1, 2], [3, None], [4, 5]]}), "a coordinate of its points is no number"),
        (result(value={"points": [[1, 2], [3, 4]]}), "a polygon of 2 corners"),
        (result(value={"points": [[1, 2], [3, 4], [5, 7]], "closed": False}), "its polygon is not closed"),
        (result(value={"rle": [0, 0]}), "rle ends inside its header"),
        (result(value={"rle": "x"}), "is not in the format rle"),
        (result(original_width=0), "original_width and original_height are not whole numbers"),
        (result(image_rotation=90), "image_rotation = 90"),
    ],
)
def test_a_bad_region_of_label_studio_is_named(tmp_path: Path, told: dict, reason: str) -> None:
    with pytest.raises(FormatError, match=rf"tasks\[0\] \(id 7\), result\[1\] \(id r1\): .*{reason}"):
        read_label_studio(studio(tmp_path / "l.json", result(id="r0"), told))


@pytest.mark.parametrize("number", ["1e999999999", "-1e999999999999", "1e99999999999999999999999", "NaN", "9" * 400])
def test_numbers_that_are_none_are_refused(tmp_path: Path, number: str) -> None:
    studio(tmp_path / "l.json", result())
    write_coco(tmp_path / "c.json", IMAGES[:1])
    for name, old, read in (("l", '"x": 10', read_label_studio), ("c", "[10.0, 20.0,", read_coco_labels)):
        path = tmp_path / f"{name}.json"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, old.replace("10.0" if name == "c" else "10", number), 1))
        with pytest.raises(FormatError, match=r"is no number|expected \[x, y, width, height\]|no JSON"):
            read(path)


def test_what_label_studio_says_besides_is_told(tmp_path: Path) -> None:
    many = [
        {"id": "c", "type": "choices", "to_name": "image", "value": {"choices": ["good"]}},
        {"type": "relation", "from_id": "a", "to_id": "b"},
        {"id": "e", "type": "ellipselabels", "value": {"x": 1, "radiusX": 3, "ellipselabels": ["crack"]}},
        result(value={"rectanglelabels": ["crack", "chip"]}),
    ]
    (image,) = read_label_studio(studio(tmp_path / "l.json", *many))
    assert [label.kind for label in image.labels] == ["crack", "chip"]
    assert [remark.partition(": ")[2] for remark in image.remarks] == [
        "a 'choices' without a class or an outline is passed over",
        "a 'relation' without a value is passed over",
        "a 'ellipselabels' without a class or an outline is passed over",
        "has 2 classes, and becomes a label of each",
    ]


def test_the_latest_annotation_counts(tmp_path: Path) -> None:
    done = [
        {"id": 1, "updated_at": "2022-12-27T21:04:40Z", "result": [result()]},
        {"id": 2, "updated_at": "2022-12-28T01:04:40Z", "result": []},
        {"id": 3, "updated_at": "2022-12-29T01:04:40Z", "result": [result()], "was_cancelled": True},
    ]
    (image,) = read_label_studio(studio(tmp_path / "l.json", annotations=done))
    assert (image.labels, image.width_px) == ([], None)
    assert image.remarks == ["tasks[0] (id 7): 2 annotations, the latest (id 2) counts"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[3]", "expected a list of tasks"),
        ('{"id": 3}', "expected a list of tasks"),
        ("[", "no JSON"),
        ('[{"id": 3}]', r"tasks\[0\] \(id 3\): has no `data`"),
        ('[{"data": {"image": "a"}}]', r"tasks\[0\]: has no list of `annotations`; export the project as JSON"),
        ('[{"data": {"image": "a"}, "annotations": [{"result": [3]}]}]', "not a list of regions"),
        ('[{"data": {"a": "1", "b": "2"}, "annotations": []}]', "which entry of `data` is the image"),
    ],
)
def test_what_is_no_export_of_label_studio(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "l.json").write_text(text)
    with pytest.raises(FormatError, match=reason):
        read_label_studio(tmp_path / "l.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_label_studio(tmp_path / "none.json")


def test_a_quad_that_label_studio_cannot_hold(tmp_path: Path) -> None:
    skewed = Label("die", (5, 5, 16, 25), quad=((5, 5), (15, 5), (16, 25), (6, 25)))
    with pytest.raises(InputError, match="its quad is not a rectangle turned by 0 deg"):
        write_label_studio(tmp_path / "l.json", [LabelledImage("a.png", 64, 48, labels=[skewed])])
    write_label_studio(tmp_path / "l.json", [LabelledImage("a.png", 64, 48, labels=[QUAD])])
    assert read_label_studio(tmp_path / "l.json")[0].labels == [QUAD]  # an upright one stays an oriented box
    with pytest.raises(InputError, match="page 1 of a file"):
        write_label_studio(tmp_path / "l.json", [LabelledImage("a.tif", page=1)])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_sizes_come_from_headers(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    picture(path, (37, 21))
    assert image_size(path) == (37, 21)
    path.write_bytes(path.read_bytes()[:12])
    with pytest.raises(FormatError, match=r"its size is not known|a damaged TIFF"):
        image_size(path)
    with pytest.raises(InputError, match="cannot be read"):
        image_size(tmp_path / "none")
