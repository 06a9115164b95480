"""Fitting golden recipes to good images: the rate that is stated, what is left out and told, the bundle that comes."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from make_golden import LIGHT, image, part, recipe, write, write_parts
from waferlens.bundle.files import CARD, GOLDEN, RECIPE, RUNCARD, open_bundle
from waferlens.bundle.golden import golden_session
from waferlens.cli.main import main
from waferlens.errors import BundleError, InputError, RecipeError, UsageError
from waferlens.load.folder import image_paths, read_image
from waferlens.prepare.golden import Fitted, divided, fit, fit_images
from waferlens.recipe import load_recipe

NO_RATE = "threshold.false_alarm_rate=null"
QUICK = recipe("golden-template", NO_RATE, "registration.motion=shift")


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """Twelve good parts."""
    folder = tmp_path_factory.mktemp("good")
    write_parts(folder, 12, angle=0.0)
    return folder


def few(folder: Path, number: int = 5) -> Path:
    """A folder of good parts to which a test adds what does not belong there."""
    write_parts(folder, number, angle=0.0)
    return folder


# --- the rate


def test_a_stated_rate_is_kept_exactly_as_the_ranks_say(good, tmp_path):
    used = recipe("golden-template", "threshold.false_alarm_rate=0.2", "registration.motion=shift")
    done = fit(used, good, tmp_path / "run")
    # 12 images: 3 make the template, 9 the threshold; ceil(0.8 * 10) = 8: the eighth of their levels
    assert (done.images, done.template_images, done.calibration_images) == (12, 3, 9)
    assert {"rate": 0.2, "images": 9, "rank": 8, "mean": 0.2}.items() <= done.guarantee.items()
    assert done.promise.startswith("at most 20 % of good images alarm, by 9 good images; 90 % interval")
    session = golden_session(open_bundle(tmp_path / "run"))
    _, rest = divided(used, image_paths(good), good)
    compared = [session.compare(read_image(path)) for path in rest]
    levels = sorted(session.alarm_level(one) for one in compared)
    assert session.factor == done.factor == levels[7]
    alarms = [any(finding.critical for finding in session.findings_at(one, session.factor)) for one in compared]
    assert sum(alarms) <= 1
    assert session.find(image(part(5, [LIGHT]))).findings


def test_levels_of_good_images_that_come_later_rank_evenly_among_those_that_set_the_threshold():
    # twelve fits of one product: a new image exceeds the threshold in one of five, and never in more than chance allows
    used = recipe("golden-template", "threshold.false_alarm_rate=0.25", "registration.motion=shift")
    alarmed = 0
    for round_ in range(12):
        parts = [image(part(5000 + 20 * round_ + i)) for i in range(11)]
        session, guarantee, refused, left_out = fit_images(used, parts[:3], parts[3:10])
        assert (guarantee.rank, refused, left_out) == (6, 0, {})
        alarmed += any(finding.critical for finding in session.find(parts[10]).findings)
    assert alarmed <= 8  # binomial(12, 0.25): more than 8 in 3 of 10,000


def test_too_few_good_images_for_a_rate_are_refused_with_the_number_it_takes(good, tmp_path):
    with pytest.raises(UsageError, match=r"holds 12 good images; a false-alarm rate of 0\.01 takes 99 .* 2 more"):
        fit(recipe(), good, tmp_path / "run")
    # 0.1 takes 9: the template gives up its third image for it
    ours, rest = divided(recipe("golden-template", "threshold.false_alarm_rate=0.1"), range(11), good)
    assert (len(ours), len(rest)) == (2, 9)
    assert sorted([*ours, *rest]) == list(range(11))
    with pytest.raises(UsageError, match=r"holds 10 good images; a false-alarm rate of 0\.1 takes 9 "):
        divided(recipe("golden-template", "threshold.false_alarm_rate=0.1"), range(10), good)
    ours, rest = divided(recipe(), range(500), good)
    assert (len(ours), len(rest)) == (125, 375)
    assert len(divided(recipe(), range(1000), good)[0]) == 128  # max_template_images
    assert not (tmp_path / "run").exists()


def test_no_rate_takes_all_images_for_the_template_and_claims_nothing(good, tmp_path):
    done = fit(QUICK, good, tmp_path / "run")
    assert (done.template_images, done.calibration_images, done.guarantee) == (12, 0, None)
    assert (done.factor, done.promise) == (1.0, "no rate of false alarms is stated")
    assert open_bundle(tmp_path / "run").threshold == {"factor": 1.0, "guarantee": None}


def test_a_rate_per_area_needs_a_pixel_size(good, tmp_path):
    used = ["threshold.false_alarm_rate=0.9", "threshold.per=mm2", "registration.motion=shift"]
    with pytest.raises(
        UsageError, match=r"a rate per mm² needs a pixel size, and no tag says one; set input\.pixel_um"
    ):
        fit(recipe("golden-template", *used), good, tmp_path / "run")
    # 9 images of 128 x 96 px of 100 µm are 1,106 mm²
    done = fit(recipe("golden-template", *used, "input.pixel_um=100"), good, tmp_path / "run")
    assert done.guarantee["images"] == 9
    assert done.guarantee["area_mm2"] == pytest.approx(9 * 12.8 * 9.6)
    assert done.guarantee["observed"] <= 0.9
    assert "at most 0.9 false findings per mm²" in done.promise
    with pytest.raises(UsageError, match=r"cannot support 0\.9 false findings per mm²"):
        fit(recipe("golden-template", *used, "input.pixel_um=1"), good, tmp_path / "run2")


def test_die_to_die_has_no_rate_and_is_fitted_to_nothing(good, tmp_path):
    with pytest.raises(RecipeError, match=r"neighbours are compared without good parts; set it to null"):
        load_recipe("die-to-die", ["threshold.false_alarm_rate=0.01"])
    with pytest.raises(UsageError, match=r"die-to-die compares neighbours and is fitted to nothing; .* inspect DIES"):
        fit(recipe("die-to-die"), good, tmp_path / "run")


# --- what is not like the others


def told(done: Fitted) -> dict[str, str]:
    return {Path(name).name: reason for name, reason in done.left_out.items()}


def test_what_cannot_be_used_is_left_out_and_told(tmp_path):
    folder = few(tmp_path / "good")
    first = sorted(folder.iterdir())[0]
    write(folder / "constant.png", np.full((96, 128), 70.0, np.float32))
    write(folder / "small.png", part(3)[:60, :80])
    write(folder / "tiny.png", part(3)[:10, :80])
    write(folder / "sixteen.png", (257 * part(4)).astype(np.uint16))
    (folder / "copy.png").write_bytes(first.read_bytes())
    (folder / "truncated.png").write_bytes(first.read_bytes()[:900])
    (folder / "text.png").write_text("no image")
    (folder / "empty.tif").write_bytes(b"")
    colour = cv2.merge([part(1).astype(np.uint8), part(2).astype(np.uint8), part(3).astype(np.uint8)])
    write(folder / "colour.png", colour)
    (folder / "notes.txt").write_text("no image, and nobody says so")
    done = fit(QUICK, folder, tmp_path / "run")
    reasons = told(done)
    assert (done.images, done.template_images) == (5, 5)
    expected = {
        "constant.png": "every pixel is 70: there is nothing to compare",
        "small.png": "is 80x60 px with white at 255, most others are 128x96 px with white at 255",
        "tiny.png": "is 80x10 px; what is compared needs at least 16 px each way",
        "sixteen.png": "is 128x96 px with white at 65535, most others are 128x96 px with white at 255",
        "truncated.png": "truncated PNG",
        "text.png": "not an image",
        "empty.tif": "the file is empty",
        "colour.png": "a colour image",
    }
    assert reasons.keys() == {*expected, first.name}
    for name, part_of in expected.items():
        assert part_of in reasons[name], name
    assert reasons[first.name] == "shows the same pixels as copy.png"  # whichever is later
    card = open_bundle(tmp_path / "run").runcard
    assert card["results"]["left_out"] == done.left_out
    assert f"{len(reasons)} images were left out" in open_bundle(tmp_path / "run").files[CARD].decode()


def test_bad_images_do_not_count_towards_a_rate(tmp_path):
    folder = few(tmp_path / "good", 6)
    for copy in "ab":
        (folder / f"{copy}.png").write_bytes((folder / "part_0000.png").read_bytes())
    used = recipe("golden-template", "threshold.false_alarm_rate=0.2", "registration.motion=shift")
    done = fit(used, folder, tmp_path / "run")
    assert (done.template_images, done.calibration_images, len(done.left_out)) == (2, 4, 2)
    (folder / "part_0005.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"holds 5 good images that can be used \(3 cannot; the first: .*\); a false"):
        fit(used, folder, tmp_path / "run")


def test_an_odd_one_out_is_left_out_of_the_template_and_alarms_in_the_calibration(tmp_path):
    folder = few(tmp_path / "good", 9)
    write(folder / "odd.png", part(3, of=8))
    done = fit(QUICK, folder, tmp_path / "run")
    assert (done.template_images, list(told(done))) == (9, ["odd.png"])
    assert "do not show the same thing" in told(done)["odd.png"]
    # of the calibration it is part: an image of that kind that comes in the line is no less for review
    rate = recipe("golden-template", "threshold.false_alarm_rate=0.3", "registration.motion=shift", "fit.seed=3")
    done = fit(rate, folder, tmp_path / "run")
    assert [Path(name).name for name in done.not_compared] == ["odd.png"]
    assert done.left_out == {}
    assert "1 of them could not be registered" in open_bundle(tmp_path / "run").files[CARD].decode()
    with pytest.raises(UsageError, match=r"1 of 8 good images cannot be scored.* the first odd\.png: the corr"):
        fit(recipe("golden-template", "threshold.false_alarm_rate=0.12", "fit.seed=3"), folder, tmp_path / "run")


def test_images_of_nothing_in_common_are_refused(tmp_path):
    for index in range(4):
        write(tmp_path / "all" / f"{index}.png", part(index, of=20 + index))
    with pytest.raises(InputError, match=r"only 1 of 4 good images can be laid over one another .* of one product"):
        fit(QUICK, tmp_path / "all", tmp_path / "run")
    for index in range(2):
        write(tmp_path / "sizes" / f"{index}.png", part(index)[: 90 - 10 * index])
    with pytest.raises(InputError, match=r"several kinds \(1 of 128x90 px .*, 1 of 128x80 px"):
        fit(QUICK, tmp_path / "sizes", tmp_path / "run")


def test_one_image_makes_no_template(tmp_path):
    write(tmp_path / "a" / "one.png", part(1))
    with pytest.raises(
        InputError, match=r"holds 1 image; a template needs at least 2\. With one good image use direct"
    ):
        fit(QUICK, tmp_path / "a", tmp_path / "run")
    (tmp_path / "a" / "two.png").write_bytes((tmp_path / "a" / "one.png").read_bytes())
    with pytest.raises(InputError, match=r"holds 1 image that can be used \(1 cannot; .*same pixels"):
        fit(QUICK, tmp_path / "a", tmp_path / "run")
    for bad in ("one", "two"):
        (tmp_path / "a" / f"{bad}.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"no image here can be used; the first: one\.png: the file is empty"):
        fit(QUICK, tmp_path / "a", tmp_path / "run")
    with pytest.raises(InputError, match="no such folder"):
        fit(QUICK, tmp_path / "b", tmp_path / "run")


def test_pages_of_a_tiff_are_images(tmp_path):
    stack = np.stack([part(i).round().astype(np.uint8) for i in range(5)])
    stack[3] = stack[0]
    (tmp_path / "good").mkdir()
    tifffile.imwrite(tmp_path / "good" / "stack.tif", stack, photometric="minisblack")
    done = fit(QUICK, tmp_path / "good", tmp_path / "run")
    assert done.template_images == 4
    assert told(done) == {"stack.tif page 3": "shows the same pixels as stack.tif"}


# --- the bundle


def test_the_same_images_and_seed_give_the_same_bytes(good, tmp_path):
    used = recipe("golden-template", "threshold.false_alarm_rate=0.2", "registration.motion=shift")
    (tmp_path / "good").mkdir()
    for path in sorted(good.iterdir(), reverse=True):
        (tmp_path / "good" / path.name).write_bytes(path.read_bytes())
    first = fit(used, good, tmp_path / "a")
    second = fit(used, tmp_path, tmp_path / "b.zip")  # the folder `good` in it is meant
    ours, theirs = open_bundle(tmp_path / "a").files, open_bundle(tmp_path / "b.zip").files
    for name in (GOLDEN, RECIPE, "calibration.json", CARD):
        mine, other = ours[name], theirs[name]
        folder = (good.name.encode(), b"good")
        assert mine.replace(*folder) == other, name
    cards = [json.loads(files[RUNCARD]) for files in (ours, theirs)]
    for card in cards:
        card["started"] = card["seconds"] = card["data"]["folder"] = None
    assert cards[0] == cards[1]
    assert first.factor == second.factor
    other = fit(recipe("golden-template", "fit.seed=2", NO_RATE, "fit.max_template_images=4"), good, tmp_path / "c")
    assert open_bundle(tmp_path / "c").files[GOLDEN] != ours[GOLDEN]
    assert other.template_images == 4


def test_memory_is_bounded_and_changes_no_result(good, tmp_path, monkeypatch):
    used = recipe("golden-template", "threshold.false_alarm_rate=0.2", "registration.motion=shift")
    first = fit(used, good, tmp_path / "a")
    monkeypatch.setattr("waferlens.prepare.good.KEPT_BYTES", 0)  # every image is read twice
    second = fit(used, good, tmp_path / "b")
    assert first.factor == second.factor
    assert open_bundle(tmp_path / "a").files[GOLDEN] == open_bundle(tmp_path / "b").files[GOLDEN]
    monkeypatch.setattr("waferlens.prepare.golden.STACK_BYTES", 2 * 4 * 96 * 128)
    third = fit(used, good, tmp_path / "c")
    assert (third.template_images, third.calibration_images) == (2, 10)


def test_what_stands_at_the_place_of_the_bundle_is_refused_before_the_work(good, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    seen = []
    with pytest.raises(BundleError, match="something else than a bundle is here"):
        fit(QUICK, good, tmp_path / "mine", lambda *told: seen.append(told))
    assert seen == []
    fit(QUICK, good, tmp_path / "run", lambda *told: seen.append(told))
    assert seen == [(done, 12) for done in range(1, 13)]
    fit(QUICK, good, tmp_path / "run")  # a bundle is replaced


def test_a_run_is_a_bundle_and_export_copies_it(good, tmp_path, capsys):
    words = ["golden-template", NO_RATE, "registration.motion=shift", "--data", str(good), "--out"]
    assert main(["train", *words, str(tmp_path / "run"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["template_images"] == 12
    assert result["left_out"] == result["not_compared"] == {}
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "b.zip")]) == 0
    assert "the fitted golden-template, checked and copied" in capsys.readouterr().err
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        assert GOLDEN in archive.namelist()
    copied = open_bundle(tmp_path / "b.zip")
    assert copied.fingerprint == open_bundle(tmp_path / "run").fingerprint
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "c"), "--data", str(good)]) == 2
    assert "fit it anew" in capsys.readouterr().err
    assert main(["train", *words, str(tmp_path / "run2"), "--from", str(tmp_path / "run")]) == 2
    assert "fitted anew from good images" in capsys.readouterr().err
    altered = tmp_path / "run" / GOLDEN
    altered.write_bytes(altered.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"golden\.npz was altered"):
        open_bundle(tmp_path / "run")


def test_people_are_told_what_was_left_out(tmp_path, capsys):
    folder = few(tmp_path / "good", 6)
    (folder / "empty.png").write_bytes(b"")
    words = ["threshold.false_alarm_rate=0.25", "registration.motion=shift", "--data", str(folder)]
    assert main(["train", "golden-template", *words, "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    assert "empty.png: the file is empty" in said
    assert "template of 2 images" in said
    assert "at most 25 % of good images alarm, by 4 good images" in said
