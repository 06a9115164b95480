"""Golden recipes judged on images whose truth is known: false alarms, escapes, what is found and what is missed."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from make_golden import DARK, LIGHT, SCRATCH, Planted, part, recipe, write, write_parts
from waferlens.bundle.files import open_bundle
from waferlens.bundle.golden import GoldenSession, golden_session
from waferlens.cli.main import main
from waferlens.errors import FormatError, InputError, UsageError
from waferlens.evaluate.golden import Seen, evaluate_golden, summary
from waferlens.formats.coco import LabelledImage, write_coco
from waferlens.load.judged import Judged, read_judged
from waferlens.prepare.golden import fit
from waferlens.recipe.hole_world import HoleWorld
from waferlens.records import Finding


def finding(planted: Planted, kind: str) -> Finding:
    x, y, wide, high, contrast = planted
    box = (x - 0.5, y - 0.5, x + wide - 0.5, y + high - 0.5)
    return Finding(kind, box, 1.0, wide * high, contrast, "light" if contrast > 0 else "dark", True)


GONE: Planted = (40, 90, 3, 3, 0.0)
"""A defect that nobody can see."""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Six good ones, one of which has a defect nobody knows of; four scratched, two with dirt; and their truth."""
    folder = tmp_path_factory.mktemp("data")
    write_parts(folder / "good", 6, start=50)
    write(folder / "good" / "unknown.png", part(1, [LIGHT]))
    labelled = []
    for kind, planted in {
        "scratch": ([SCRATCH], [SCRATCH, LIGHT], [SCRATCH], [GONE]),
        "dirt": ([DARK], [DARK, GONE]),
    }.items():
        for index, defects in enumerate(planted):
            name = f"{kind}/{index}.png"
            write(folder / name, part(70 + index, defects, shift=(index, -index)))
            labelled.append(LabelledImage(name, 128, 96, [finding(one, kind) for one in defects]))
    write_coco(folder / "truth.json", labelled, ["scratch", "dirt"])
    write(folder / "reference" / "golden.png", part(2))
    (folder / "notes").mkdir()
    (folder / "notes" / "read.txt").write_text("a folder without images is none of parts")
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fitted")
    write_parts(folder / "good", 16)
    fit(recipe("golden-template", "threshold.false_alarm_rate=0.1"), folder / "good", folder / "run")
    return folder / "run"


def session(path: Path) -> GoldenSession:
    return golden_session(open_bundle(path))


def test_the_images_of_a_folder_and_their_truth(data):
    images, shared = read_judged(data)
    assert shared == data / "reference" / "golden.png"
    assert [image.role for image in images].count("good") == 7
    assert [image.path.parent.name for image in images if image.role == "defective"] == ["dirt"] * 2 + ["scratch"] * 4
    assert [len(image.truth) for image in images if image.role == "defective"] == [1, 2, 1, 2, 1, 1]
    assert {image.truth for image in images if image.role == "good"} == {None}


def test_false_alarms_escapes_and_findings_are_counted(data, bundle):
    told = evaluate_golden(session(bundle), data, stated=open_bundle(bundle).threshold["guarantee"])
    assert told["images"] == {"good": 7, "twin": 0, "defective": 6}
    assert told["not_compared"] == {"good": 0, "twin": 0, "defective": 0}
    assert told["stated"]["rate"] == 0.1
    alarms = told["false_alarms"]
    assert 1 <= alarms["alarmed"] <= 2  # the unknown one, and one by chance
    assert alarms["low"] < alarms["rate"] == alarms["alarmed"] / 7 < alarms["high"]
    assert told["escapes"].items() >= {"escaped": 1, "images": 6, "share": 1 / 6}.items()
    centre, overlap = told["located"]["centre"], told["located"]["iou_0.33"]
    assert centre["truths"] == overlap["truths"] == 8
    # GONE is missed on two images
    assert centre["missed"] == {"scratch": {"missed": 1, "of": 5}, "dirt": {"missed": 1, "of": 3}}
    assert centre["recall"]["value"] == 6 / 8 >= overlap["recall"]["value"]
    assert told["located"]["centre"]["precision"]["value"] >= 6 / 7
    assert alarms["findings_per_mm2"] is None  # no pixel size
    assert "detection" not in told  # the truth says no sizes
    curve = told["curve"]
    assert (curve["threshold"][0], curve["overkill"][0], curve["escape"][0]) == (None, 1.0, 0.0)  # at no threshold
    assert (curve["overkill"][-1], curve["escape"][-1]) == (0.0, 1.0)
    assert np.all(np.diff(curve["overkill"]) <= 0)
    assert np.all(np.diff(curve["escape"]) >= 0)


def test_direct_mode_takes_the_reference_of_the_folder_or_the_one_that_is_named(data, tmp_path):
    direct = recipe("golden-template", "threshold.false_alarm_rate=null", "threshold.factor=1.5")
    for reference in (None, write(tmp_path / "mine.png", part(3))):
        told = evaluate_golden(GoldenSession(direct, 1.5), data, reference=reference)
        assert told["false_alarms"]["alarmed"] == told["escapes"]["escaped"] == 1
        assert told["located"]["centre"]["f"]["value"] == pytest.approx(2 * 6 / (6 + 8))
    few = tmp_path / "few"
    write(few / "good" / "a.png", part(1))
    with pytest.raises(UsageError, match="has no folder `reference`; name --reference"):
        evaluate_golden(GoldenSession(direct, 1.5), few)


def test_images_without_places_are_judged_as_a_whole(bundle, tmp_path):
    write(tmp_path / "good" / "a.png", part(1))
    write(tmp_path / "bad" / "b.png", part(2, [LIGHT]))
    told = evaluate_golden(session(bundle), tmp_path)
    assert "located" not in told
    assert told["escapes"]["escaped"] == 0
    (tmp_path / "good" / "a.png").unlink()
    told = evaluate_golden(session(bundle), tmp_path)
    assert "false_alarms" not in told
    assert "curve" not in told


def test_rules_decide_what_an_alarm_is(data):
    used = recipe(
        threshold={"factor": 1.5},
        rules=[{"name": "long", "critical": True, "min_elongation": 3}, {"name": "any", "critical": False}],
    )
    told = evaluate_golden(GoldenSession(used, 1.5), data)
    assert told["false_alarms"]["alarmed"] == 0
    assert told["escapes"]["escaped"] == 3  # dirt twice, and nothing to see once
    assert told["located"]["centre"]["missed"]["dirt"] == {"missed": 3, "of": 3}


def test_what_cannot_be_compared_counts_as_an_alarm_and_is_named(bundle, tmp_path):
    write(tmp_path / "good" / "a.png", part(1))
    write(tmp_path / "good" / "other.png", part(1, of=8))
    (tmp_path / "good" / "empty.png").write_bytes(b"")
    write(tmp_path / "bad" / "sixteen.png", (257 * part(2)).astype(np.uint16))
    told = evaluate_golden(session(bundle), tmp_path)
    assert told["not_compared"] == {"good": 2, "twin": 0, "defective": 1}
    assert (told["false_alarms"]["alarmed"], told["escapes"]["escaped"]) == (2, 0)
    reasons = {Path(path).name: reason for path, reason in told["why_not_compared"].items()}
    assert reasons["empty.png"] == "the file is empty"
    assert "do not show the same thing" in reasons["other.png"]
    assert "8 bits" in reasons["sixteen.png"]


def test_folders_that_cannot_be_judged_are_told(bundle, tmp_path, data):
    with pytest.raises(InputError, match="no such folder"):
        evaluate_golden(session(bundle), tmp_path / "nowhere")
    with pytest.raises(InputError, match="no images here"):
        evaluate_golden(session(bundle), tmp_path)
    write(tmp_path / "loose.png", part(1))
    with pytest.raises(InputError, match="has no folder good and none of defective images"):
        evaluate_golden(session(bundle), tmp_path)
    write(tmp_path / "scratch" / "1.png", part(1, [SCRATCH]))
    write_coco(tmp_path / "truth.json", [LabelledImage("1.png", 128, 96, [finding(SCRATCH, "scratch")])])
    with pytest.raises(
        FormatError, match=r"none of its 1 images is here, the first being 1\.png; name them as they lie"
    ):
        evaluate_golden(session(bundle), tmp_path)
    (tmp_path / "truth.json").write_text("[]")
    with pytest.raises(FormatError, match=r"truth\.json: the file: expected an object"):
        evaluate_golden(session(bundle), tmp_path)
    with pytest.raises(UsageError, match="--reference means nothing here"):
        evaluate_golden(session(bundle), data, reference=data / "reference" / "golden.png")
    with pytest.raises(UsageError, match="die-to-die compares neighbours, and images of known truth lie in no row"):
        evaluate_golden(GoldenSession(recipe("die-to-die"), 1.0), data)


def test_pairs_of_deeppcb_are_read_as_they_are(bundle, tmp_path):
    root = tmp_path / "PCBData" / "group1"
    traces = np.full((640, 640), 255, np.uint8)
    for x in range(40, 600, 80):
        traces[20 : 600 - x // 3, x : x + 30] = 0
        traces[x : x + 22, 30 : 620 - x // 2] = 0
    tested = traces.copy()
    tested[300:316, 202:214] = 255 - tested[300, 205]
    for name, pixels in (("1/a_test.jpg", tested), ("1/a_temp.jpg", traces)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(root / name), pixels)
    (root / "1_not").mkdir()
    (root / "1_not" / "a.txt").write_text("200 298 216 318 5\n")
    (tmp_path / "PCBData" / "trainval.txt").write_text("group1/1/a.jpg group1/1_not/a.txt\n")
    direct = recipe("golden-template", "threshold.false_alarm_rate=null")
    told = evaluate_golden(GoldenSession(direct, 1.0), tmp_path)
    assert told["images"] == {"good": 0, "twin": 0, "defective": 1}
    assert told["located"]["centre"]["recall"]["value"] == 1
    # a fitted threshold promises nothing with another reference than its own
    told = evaluate_golden(session(bundle), tmp_path, stated={"rate": 0.1})
    assert told["stated"] is None
    assert told["located"]["centre"]["recall"]["value"] == 1


def test_simulated_fields_with_twins_and_sizes(tmp_path):
    from waferlens.simulate.hole.dataset import hole_world
    from waferlens.simulate.hole.defects import DefectSpec
    from waferlens.simulate.hole.field import FieldSpec
    from waferlens.simulate.hole.twins import write_fields

    world: HoleWorld = hole_world("sim", None)
    spec = FieldSpec(rows=2, columns=2, angle_deg=0.0)
    strong = DefectSpec(kinds=("particle", "missing"))
    write_fields(tmp_path / "data", world, 14, 6, 1, spec, strong)
    used = recipe("golden-template", "threshold.false_alarm_rate=0.15", "registration.motion=shift")
    fit(used, tmp_path / "data", tmp_path / "run")
    write_fields(tmp_path / "new", world, 6, 6, 1, spec, strong, first=100)
    told = evaluate_golden(session(tmp_path / "run"), tmp_path / "new")
    assert told["images"] == {"good": 6, "twin": 6, "defective": 6}
    assert told["not_compared"] == {"good": 0, "twin": 0, "defective": 0}
    assert told["false_alarms_twins"]["images"] == 6
    detection = told["detection"]
    assert detection["defects"] == sum(kind["of"] for kind in detection["by_kind"].values()) == 6
    assert detection["found"] == sum(kind["found"] for kind in detection["by_kind"].values())
    assert detection["found"] >= 4
    assert told["false_alarms"]["alarmed"] + told["false_alarms_twins"]["alarmed"] <= 6


def test_a_rate_per_area_is_set_beside_what_is_observed_on_an_area(tmp_path, data, capsys):
    write_parts(tmp_path / "good", 10, angle=0.0)
    used = ["threshold.false_alarm_rate=0.9", "threshold.per=mm2", "input.pixel_um=100", "registration.motion=shift"]
    fit(recipe("golden-template", *used), tmp_path / "good", tmp_path / "run")
    stated = open_bundle(tmp_path / "run").threshold["guarantee"]
    told = evaluate_golden(session(tmp_path / "run"), data, stated=stated)
    area = told["false_alarms"]["findings_per_mm2"]
    assert area["area_mm2"] == pytest.approx(7 * 12.8 * 9.6)
    assert area["findings"] >= 1  # that of the image that nobody knows to be bad
    assert area["low"] < area["rate"] == area["findings"] / area["area_mm2"] < area["high"]
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(data)]) == 0
    said = capsys.readouterr().out
    assert "stated: at most 0.9 false findings per mm²" in said
    assert " mm²: " in said


@pytest.mark.parametrize("full_scale", [255.0, 65535.0])
def test_what_size_is_detected_at_what_contrast_is_told_in_the_grey_of_the_images(full_scale):
    random, scale = np.random.default_rng(1), full_scale / 255
    seen = []
    for _ in range(300):
        size, contrast = random.uniform(2, 12), random.uniform(5, 60)
        truth = finding((40, 40, 8, 8, contrast * scale), "particle")
        hit = random.uniform() < 1 / (1 + (60 / (size * contrast)) ** 6)  # half of them where size times contrast is 60
        facts = [{"size_px": size, "contrast_grey": contrast * scale}]
        seen.append(
            Seen(
                Judged(Path("a"), "defective", "a", None, [truth], facts), [truth] if hit else [], full_scale=full_scale
            )
        )
    told = summary(seen, "made")["detection"]
    reach = {float(at): told["a90_at_contrast_grey"][at]["a90_px"] for at in told["a90_at_contrast_grey"]}
    # nine of ten are found where size times contrast is 60 * 9 ** (1 / 6) = 86.5
    expected = {at * scale: 86.5 / at for at in (10, 20, 40)}
    assert reach == pytest.approx(expected, rel=0.15)
    assert told["found"] == sum(bool(one.findings) for one in seen)


def test_the_command_line_writes_and_says_it(data, bundle, tmp_path, capsys):
    words = ["evaluate", str(bundle), "--data", str(data)]
    assert main([*words, "--json", "--out", str(tmp_path / "out")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bundle"] == "run"
    assert told == json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (tmp_path / "out" / "curve.png").stat().st_size > 1000
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "7 good, 0 twins, 6 defective images" in said
    assert "stated: at most 10 % of good images alarm" in said
    assert "escapes" in said
    assert "1 of 6" in said
    assert "missed by class            dirt 1/3, scratch 1/5" in said
    assert main(["evaluate", "golden-template", "--data", str(data)]) == 0
    assert "no rate of false alarms is stated" in capsys.readouterr().out
    assert main([*words, "--split", "test"]) == 2
    assert "name a folder of images it never saw" in capsys.readouterr().err
    assert main(["evaluate", "hole-fast", "--data", str(data), "--reference", str(data)]) == 2
    assert "--reference means nothing to hole-fast" in capsys.readouterr().err
