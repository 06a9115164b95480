"""The thousand pairs of DeepPCB's training split, and what a broken copy of it says."""

from collections import Counter

import numpy as np
import pytest

from waferlens.errors import FormatError, InputError
from waferlens.formats.deeppcb import KINDS, SIDE_PX, read_pairs, read_truth
from waferlens.formats.images import read_images


@pytest.fixture(scope="module")
def pairs(real_data):
    return read_pairs(real_data / "deeppcb")


@pytest.mark.real_data
def test_the_split_is_whole(pairs, real_data):
    groups = Counter(pair.group for pair in pairs)
    assert groups == {
        "group20085": 291,
        "group00041": 200,
        "group13000": 198,
        "group92000": 111,
        "group77000": 100,
        "group50600": 50,
        "group44000": 50,
    }
    assert len({pair.name for pair in pairs}) == 1000
    assert read_pairs(real_data / "deeppcb" / "PCBData") == pairs


@pytest.mark.real_data
def test_the_boxes_are_counted_and_lie_on_pixels(pairs):
    truth = [defect for pair in pairs for defect in read_truth(pair.truth)]
    kinds = Counter(defect.kind for defect in truth)
    assert kinds == dict(zip(KINDS, (1283, 1028, 1379, 1142, 1010, 1031), strict=True))
    boxes = np.array([defect.box for defect in truth])
    assert (boxes % 1 == 0.5).all()
    assert (boxes[:, :2].min(), boxes[:, 2:].max()) == (-0.5, SIDE_PX - 0.5)
    # the first line of the first file of a group: 120 450 180 499 5
    first = next(pair for pair in pairs if pair.name == "13000000")
    defect = read_truth(first.truth)[0]
    assert (defect.kind, defect.box, defect.area_px) == ("copper", (119.5, 449.5, 180.5, 499.5), 61 * 50)


@pytest.mark.real_data
def test_images_are_grey_and_classes_tell_light_from_dark(pairs):
    # misplaced by a few pixels, the boards do not match exactly: the box as a whole is lighter, or darker
    right = []
    for pair in pairs[::25]:
        (test,), (template,) = (list(read_images(path)) for path in (pair.test, pair.template))
        assert test.pixels.shape == template.pixels.shape == (SIDE_PX, SIDE_PX)
        difference = test.pixels.astype(float) - template.pixels
        for defect in read_truth(pair.truth):
            x0, y0, x1, y1 = (int(edge + 0.5) for edge in defect.box)
            right.append((difference[y0:y1, x0:x1].mean() > 0) == (defect.light_or_dark == "light"))
    assert len(right) > 200
    assert np.mean(right) > 0.95


def board(tmp_path, listed="group1/1/a.jpg group1/1_not/a.txt", truth="1 2 3 4 5\n"):
    for name in ("1/a_test.jpg", "1/a_temp.jpg", "1_not/a.txt"):
        path = tmp_path / "group1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(truth if name.endswith("txt") else "")
    (tmp_path / "trainval.txt").write_text(listed)
    return tmp_path


def test_a_small_copy(tmp_path):
    (pair,) = read_pairs(board(tmp_path))
    assert (pair.name, pair.group, pair.test.name, pair.template.name) == ("a", "group1", "a_test.jpg", "a_temp.jpg")
    (defect,) = read_truth(pair.truth)
    assert (defect.kind, defect.box, defect.area_px) == ("copper", (0.5, 1.5, 3.5, 4.5), 9.0)
    with pytest.raises(InputError, match=r"test\.txt: cannot be read"):
        read_pairs(tmp_path, "test")


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ("", "names no pairs"),
        ("group1/1/a.jpg", "line 1: expected"),
        ("\ngroup1/1/a.png group1/1_not/a.txt", "line 2: expected"),
        ("../1/a.jpg group1/1_not/a.txt", "outside its folder"),
        ("/etc/a.jpg group1/1_not/a.txt", "outside its folder"),
        ("group1/1/a.jpg group1/1_not/a.txt\n" * 2, "line 2: names group1/1/a.jpg for the second time"),
        ("group1/1/b.jpg group1/1_not/a.txt", r"b_test\.jpg: is not there, but line 1 of trainval\.txt names it"),
    ],
)
def test_a_broken_list(tmp_path, listed, reason):
    with pytest.raises(InputError, match=reason):
        read_pairs(board(tmp_path, listed))


@pytest.mark.parametrize(
    ("truth", "reason"),
    [
        ("", "holds no box"),
        ("1 2 3 4", "line 1: expected five whole numbers"),
        ("1 2 3 4 5\n1 2 3 4.5 5", "line 2: expected five whole numbers"),
        ("1 2 3 4 7", "line 1: class 7; there are 1 to 6: open, short"),
        ("1 2 3 4 0", "class 0"),
        ("5 2 3 4 1", "ends before it begins"),
        ("1 2 640 4 1", "outside the 640 px image"),
        ("-1 2 6 4 1", "outside the 640 px image"),
    ],
)
def test_a_broken_truth(tmp_path, truth, reason):
    (pair,) = read_pairs(board(tmp_path, truth=truth))
    with pytest.raises(FormatError, match=reason):
        read_truth(pair.truth)


def test_a_truth_that_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="not a text"):
        read_truth(tmp_path / "a.txt")
