"""COCO files: what is written reads back as it was, others' files are read, and bad ones are refused by entry."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waferlens.errors import FormatError, InputError
from waferlens.formats.coco import LabelledImage, read_coco, write_coco
from waferlens.records import Finding

LIGHT = Finding("spur", (-0.5, -0.5, 0.5, 0.5), 3.25, 1.0, 40.5, "light", True, "large and bright")
DARK = Finding("open", (9.5, 19.5, 99.5, 79.5), 1.5, 23.0, -12.25, "dark", False)


def test_a_file_is_what_other_readers_expect(tmp_path):
    images = [LabelledImage("a/ü.png", 100, 80, [LIGHT, DARK]), LabelledImage("b.tif", 10, 20, page=3)]
    assert write_coco(tmp_path / "c.json", images, ["open", "short"], {"description": "x"}) == 2
    told = json.loads((tmp_path / "c.json").read_text("utf-8"))
    assert told["info"] == {"description": "x"}
    assert told["images"] == [
        {"id": 1, "file_name": "a/ü.png", "width": 100, "height": 80},
        {"id": 2, "file_name": "b.tif", "width": 10, "height": 20, "page": 3},
    ]
    assert [(one["id"], one["name"]) for one in told["categories"]] == [(1, "open"), (2, "short"), (3, "spur")]
    assert told["annotations"][0] == {
        "id": 1,
        "image_id": 1,
        "category_id": 3,
        "bbox": [0.0, 0.0, 1.0, 1.0],
        "area": 1.0,
        "iscrowd": 0,
        "score": 3.25,
        "contrast": 40.5,
        "light_or_dark": "light",
        "critical": True,
        "rule": "large and bright",
    }
    assert told["annotations"][1]["bbox"] == [10.0, 20.0, 90.0, 60.0]
    assert read_coco(tmp_path / "c.json") == images
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.json"]


edges = st.tuples(*[st.integers(0, 2**16)] * 2, *[st.integers(1, 2**16)] * 2)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def findings(draw):
    part = draw(st.sampled_from([1, 2, 64]))  # whole pixels, and fractions that a binary number holds
    x, y, width, height = (number / part for number in draw(edges))
    return Finding(
        draw(st.text(max_size=5)),
        (x - 0.5, y - 0.5, x + width - 0.5, y + height - 0.5),
        draw(numbers),
        draw(numbers),
        draw(numbers),
        draw(st.sampled_from(["light", "dark"])),
        draw(st.booleans()),
        draw(st.text(max_size=5)),
    )


@given(st.lists(st.builds(LabelledImage, st.text(), findings=st.lists(findings(), max_size=4)), max_size=4))
@settings(max_examples=60, deadline=None)
def test_what_is_written_reads_back_exactly(tmp_path_factory, images):
    path = tmp_path_factory.mktemp("coco") / "c.json"
    assert write_coco(path, images) == sum(len(image.findings) for image in images)
    assert read_coco(path) == images


@given(st.tuples(*[st.floats(0, 1e5)] * 2, *[st.floats(1e-3, 1e5)] * 2))
@settings(max_examples=60, deadline=None)
def test_any_other_box_comes_back_to_a_billionth_of_a_pixel(tmp_path_factory, box):
    x, y, width, height = box
    path = tmp_path_factory.mktemp("coco") / "c.json"
    finding = replace(LIGHT, box=(x, y, x + width, y + height))
    write_coco(path, [LabelledImage("a", findings=[finding])])
    assert read_coco(path)[0].findings[0].box == pytest.approx(finding.box, abs=1e-9)


def test_what_is_not_known_is_left_out(tmp_path):
    odd = replace(LIGHT, score=math.nan, contrast=math.nan, rule="")
    write_coco(tmp_path / "c.json", [LabelledImage("a", findings=[odd, replace(DARK, score=math.inf)])])
    told = json.loads((tmp_path / "c.json").read_text("utf-8"), parse_constant=pytest.fail)
    assert not {"score", "contrast", "rule"} & told["annotations"][0].keys()
    assert "width" not in told["images"][0]
    back = read_coco(tmp_path / "c.json")[0].findings
    assert math.isnan(back[0].score)
    assert math.isnan(back[0].contrast)
    assert back[1].score > 1e308


def minimal() -> dict:
    return {
        "images": [{"id": 7, "file_name": "a.png", "width": 100, "height": 50}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 20, 30, 30], "segmentation": []}],
        "categories": [{"id": 3, "name": "crack"}],
    }


def read(tmp_path, told) -> list[LabelledImage]:
    path = tmp_path / "c.json"
    path.write_text(told if isinstance(told, str) else json.dumps(told), "utf-8")
    return read_coco(path)


def test_files_of_others_say_less(tmp_path):
    (image,) = read(tmp_path, minimal())
    (found,) = image.findings
    assert (found.kind, found.box, found.area_px) == ("crack", (9.5, 19.5, 39.5, 49.5), 900.0)
    assert (found.light_or_dark, found.critical, found.rule) == ("light", True, "")
    assert math.isnan(found.score)
    told = minimal()
    told["annotations"][0]["contrast"] = -3
    assert read(tmp_path, told)[0].findings[0].light_or_dark == "dark"
    assert read(tmp_path, "\ufeff" + json.dumps(told))[0].path == "a.png"
    told = minimal()
    del told["images"][0]["width"]
    told["annotations"][0]["bbox"][0] = 5000
    assert len(read(tmp_path, told)[0].findings) == 1  # of an image whose width is not known


def changed(where: str, **keys) -> dict:
    told = minimal()
    for key, value in keys.items():
        if value is ...:
            del told[where][0][key]
        else:
            told[where][0][key] = value
    return told


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("", "not a COCO file: no JSON"),
        ("{'images': []}", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", r"the file: expected an object of keys and values, got \[\]"),
        ({"images": [], "categories": []}, "`annotations` is missing"),
        ({**minimal(), "images": {"7": "a.png"}}, "images: expected a list"),
        ({**minimal(), "annotations": [3]}, r"annotations\[0\]: expected an object"),
        ({**minimal(), "images": minimal()["images"] * 2}, r"images\[1\]: the id 7 was given to an image before"),
        ({**minimal(), "categories": minimal()["categories"] * 2}, r"categories\[1\]: the id 3 was given"),
        (changed("images", id=...), r"images\[0\]: id is missing"),
        (changed("images", file_name=...), r"images\[0\] \(id 7\): file_name is missing"),
        (changed("images", width=0), r"images\[0\] \(id 7\): width = 0; expected a whole number from 1"),
        (changed("images", height=True), "height = true"),
        (changed("categories", name=4), r"categories\[0\] \(id 3\): name = 4; expected a text"),
        (changed("annotations", image_id=8), r"annotations\[0\] \(id 1\): is of the image 8, which is not among"),
        (changed("annotations", image_id=...), r"annotations\[0\] \(id 1\): image_id is missing"),
        (changed("annotations", category_id=1.5), "category_id = 1.5"),
        (changed("annotations", category_id=9), r"annotations\[0\] \(id 1\): is of the category 9"),
        (changed("annotations", bbox=...), r"annotations\[0\] \(id 1\): bbox is missing"),
        (changed("annotations", bbox=[1, 2, 3]), r"bbox = \[1, 2, 3\]; expected \[x, y, width, height\]"),
        (changed("annotations", bbox=[1, 2, 3, "4"]), "expected"),
        (changed("annotations", bbox=[1, 2, 3, 10**400]), "expected"),
        (changed("annotations", bbox=[1, 2, -3, 4]), "width and height must be above 0"),
        (changed("annotations", bbox=[1, 2, 3, 0]), "width and height must be above 0"),
        (changed("annotations", bbox=[-1, 2, 3, 4]), "reaches from -1 to 2 in x, the image has 100 px"),
        (changed("annotations", bbox=[80, 2, 30, 4]), "reaches from 80 to 110 in x, the image has 100 px"),
        (changed("annotations", bbox=[1, 40, 30, 11]), "reaches from 40 to 51 in y, the image has 50 px"),
        (changed("annotations", iscrowd=1), "marks a crowd"),
        (changed("annotations", area="large"), 'area = "large"; expected a number'),
        (changed("annotations", light_or_dark="grey"), "expected light or dark"),
        (changed("annotations", critical=1), "expected true or false"),
        (changed("annotations", rule=1), "rule = 1; expected a text"),
        (json.dumps(changed("annotations", score=1)).replace('"score": 1', '"score": NaN'), "score = NaN"),
    ],
)
def test_a_bad_file_is_refused_by_its_entry(tmp_path, told, reason):
    with pytest.raises(FormatError, match=reason):
        read(tmp_path, told)


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        write_coco(tmp_path / "nowhere" / "c.json", [])
    with pytest.raises(InputError, match=r"finding 2 \(image 1\) has the box .*, which has no area"):
        write_coco(tmp_path / "c.json", [LabelledImage("a", findings=[LIGHT, replace(LIGHT, box=(1, 1, 1, 2))])])
    with pytest.raises(InputError, match="cannot be read"):
        read_coco(tmp_path / "c.json")
    assert list(tmp_path.iterdir()) == []


def test_nothing_at_all(tmp_path):
    assert write_coco(tmp_path / "c.json", []) == 0
    assert read_coco(tmp_path / "c.json") == []
