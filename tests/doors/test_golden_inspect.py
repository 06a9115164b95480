"""Inspection against a good part: references are found and checked, findings stored, drawn and told."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from make_golden import DARK, HEIGHT, LIGHT, SCRATCH, WIDTH, Planted, part, write, write_parts
from waferlens.bundle.files import open_bundle
from waferlens.cli.main import main
from waferlens.errors import InputError, UsageError
from waferlens.formats.coco import read_coco
from waferlens.inspect import InspectResult, inspect_paths
from waferlens.inspect.folder import overlay_name
from waferlens.prepare.golden import fit
from waferlens.recipe import load_recipe
from waferlens.store.results import Store

SHIFT = "registration.motion=shift"


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text("utf-8").splitlines()))


def verdicts(out: Path) -> dict[str, str]:
    return {Path(row["path"]).name: row["verdict"] for row in table(out / "results.csv")}


def quarantined(out: Path) -> dict[str, str]:
    return {Path(row["path"]).name: row["reason"] for row in table(out / "quarantine.csv")}


def near(box: Sequence[float], planted: Planted) -> bool:
    """Whether a box is that of what was planted, and of the rim that smoothing adds to it."""
    x, y, wide, high, _ = planted
    return all(abs(a - b) <= 2 for a, b in zip(box, (x - 0.5, y - 0.5, x + wide - 0.5, y + high - 0.5), strict=True))


def yaml(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def direct(tmp_path_factory) -> Path:
    """A recipe for direct mode that leaves room for chance: what deviates slightly is no finding."""
    folder = tmp_path_factory.mktemp("recipe")
    return yaml(
        folder / "mine.yaml",
        "name: mine\nextends: golden-template\nthreshold: {false_alarm_rate: null, factor: 1.5}\n",
    )


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("reference") / "good.png", part(1))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    """A bundle with a stated rate, and one rule."""
    folder = tmp_path_factory.mktemp("fitted")
    write_parts(folder / "good", 16, angle=0.0)
    recipe = yaml(
        folder / "rules.yaml",
        "name: rules\nextends: golden-template\nregistration: {motion: shift}\nthreshold: {false_alarm_rate: 0.1}\n"
        "rules:\n- {name: dirt, critical: false, light_or_dark: dark, max_area_px: 100}\n",
    )
    fit(load_recipe(recipe), folder / "good", folder / "run")  # type: ignore[arg-type]
    return folder / "run"


def write_lot(folder: Path) -> Path:
    """Good, light, dark, both, and a few that cannot be compared."""
    lot = {"a_good": (), "b_light": (LIGHT,), "c_dark": (DARK,), "d_both": (LIGHT, DARK), "e_scratch": (SCRATCH,)}
    for index, (name, defects) in enumerate(lot.items()):
        write(folder / f"{name}.png", part(50 + index, defects, shift=(0.4 * index, -0.7 * index)))
    write(folder / "f_other.png", part(60, of=8))
    write(folder / "g_constant.png", np.full((HEIGHT, WIDTH), 70.0, np.float32))
    (folder / "h_empty.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def lot(tmp_path_factory) -> Path:
    return write_lot(tmp_path_factory.mktemp("lot") / "lot")


# --- a lot


def test_a_lot_against_a_fitted_part(tmp_path, lot, fitted):
    result = inspect_paths([lot], fitted, tmp_path / "out")
    assert (result.images, result.quarantined) == (8, 2)
    assert verdicts(tmp_path / "out") == {
        "a_good.png": "OK",
        "b_light.png": "NG",
        "c_dark.png": "OK",  # the finding is tolerable
        "d_both.png": "NG",
        "e_scratch.png": "NG",
        "f_other.png": "review",
    }
    assert quarantined(tmp_path / "out") == {
        "g_constant.png": "every pixel is 70: there is nothing to compare",
        "h_empty.png": "the file is empty",
    }
    assert result.verdicts == {"OK": 2, "review": 1, "NG": 3}
    assert (result.findings, result.critical_findings) == (5, 3)
    rows = {Path(row["path"]).name: row for row in table(tmp_path / "out" / "results.csv")}
    assert rows["f_other.png"]["verdict_reason"].startswith("not compared: the correlation after registration is")
    assert rows["f_other.png"]["findings"] == rows["f_other.png"]["deviation"] == ""
    assert (rows["d_both.png"]["findings"], rows["d_both.png"]["critical_findings"]) == ("2", "1")
    assert rows["d_both.png"]["verdict_reason"].startswith("1 critical finding, the strongest light, ")
    assert rows["d_both.png"]["verdict_reason"].endswith("times the threshold at (32, 62) px")
    assert float(rows["d_both.png"]["deviation"]) > 3 > 1 > float(rows["a_good.png"]["deviation"]) * 0.7
    moved = [
        float(rows["e_scratch.png"][name]) - float(rows["a_good.png"][name]) for name in ("shift_y_px", "shift_x_px")
    ]
    assert moved == pytest.approx([1.6, -2.8], abs=0.1)
    assert (rows["a_good.png"]["width_px"], rows["a_good.png"]["height_px"]) == ("128", "96")
    card = json.loads((tmp_path / "out" / "runcard.json").read_text())
    assert card["data"]["threshold"]["guarantee"]["rate"] == 0.1
    names = {"images.jsonl", "log.txt", "overlays", "quarantine.csv", "results.csv", "results.sqlite", "runcard.json"}
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == names | {"findings.csv", "findings.json"}


def test_findings_say_the_same_everywhere(tmp_path, lot, fitted, capsys):
    out = tmp_path / "out"
    assert main(["inspect", str(lot), "--bundle", str(fitted), "--out", str(out), "--json"]) == 1  # two quarantined
    told = json.loads(capsys.readouterr().out)
    assert (told["findings"], told["critical_findings"], len(told["found"])) == (5, 3, 5)
    rows = table(out / "findings.csv")
    with Store(out / "results.sqlite") as store:
        (run,) = store.runs()
        stored = list(store.findings(run))
    labelled = read_coco(out / "findings.json")
    assert [Path(image.path).name[0] for image in labelled] == [*"abcde"]  # not what was not compared
    assert {(image.width_px, image.height_px) for image in labelled} == {(WIDTH, HEIGHT)}
    boxed = [finding for image in labelled for finding in image.findings]
    for listed, row, known, drawn in zip(told["found"], rows, stored, boxed, strict=True):
        finding = known.finding
        assert set(listed) == {
            *("path", "page", "kind", "box", "area_px", "contrast", "light_or_dark", "critical", "score", "rule")
        }
        assert (listed["path"], listed["page"]) == (row["path"], int(row["page"])) == (known.path, known.page)
        for name in ("kind", "light_or_dark", "rule"):
            assert listed[name] == row[name] == getattr(finding, name) == getattr(drawn, name)
        assert listed["critical"] == (row["critical"] == "true") == finding.critical == drawn.critical
        assert (
            tuple(listed["box"])
            == finding.box
            == drawn.box
            == tuple(float(row[edge]) for edge in ("x0", "y0", "x1", "y1"))
        )
        for name in ("area_px", "contrast", "score"):
            assert listed[name] == pytest.approx(getattr(finding, name), rel=1e-6)
            assert float(row[name]) == pytest.approx(getattr(finding, name), rel=1e-6)
            assert getattr(drawn, name) == pytest.approx(getattr(finding, name), rel=1e-6)
    for finding in told["found"]:
        planted = LIGHT if finding["light_or_dark"] == "light" else DARK
        assert near(finding["box"], planted) or finding["path"].endswith("e_scratch.png")
        assert finding["rule"] == ("no rule" if finding["critical"] else "dirt")
    assert main(["inspect", str(lot), "--bundle", str(fitted), "--out", str(out)]) == 1
    assert f"5 findings, 3 critical, in {out}/findings.csv" in capsys.readouterr().err


def test_overlays_show_findings_and_stand_beside_nothing_else(tmp_path, lot, fitted):
    inspect_paths([lot], fitted, tmp_path / "a")
    drawn = sorted(path.name for path in (tmp_path / "a" / "overlays").iterdir())
    assert drawn == ["000001_b_light.png", "000002_c_dark.png", "000003_d_both.png", "000004_e_scratch.png"]
    shown = cv2.imread(str(tmp_path / "a" / "overlays" / drawn[2]))
    times = shown.shape[1] // WIDTH
    assert shown.shape == (times * HEIGHT, times * WIDTH, 3)
    assert times == 4  # small images are enlarged
    red, yellow = ((shown == colour).all(2) for colour in ((60, 60, 230), (40, 200, 240)))
    for frame, (x, y, wide, high, _) in ((red, LIGHT), (yellow, DARK)):
        rows, columns = np.nonzero(frame)
        assert (columns.min() / times, columns.max() / times) == pytest.approx((x - 1, x + wide + 1), abs=1.6)
        assert (rows.min() / times, rows.max() / times) == pytest.approx((y - 1, y + high + 1), abs=1.6)
    result = inspect_paths([lot], fitted, tmp_path / "b", maps=False)
    assert not (tmp_path / "b" / "overlays").exists()
    assert result.findings == 5


def test_overlays_of_more_bits_are_stretched_and_long_names_cut(tmp_path, direct):
    name = "ü" * 120  # 240 bytes, what file systems take
    for where, defects in (("good", ()), ("lot", (LIGHT,))):
        pixels = (16 * part(3, defects)).astype(np.uint16)  # 12 bits in a file of 16
        write(tmp_path / where / f"{name}.png", pixels)
    result = inspect_paths([tmp_path / "lot"], direct, tmp_path / "out", reference=tmp_path / "good")
    assert result.findings == 1
    (overlay,) = (tmp_path / "out" / "overlays").iterdir()
    assert overlay.name == overlay_name(0, f"{name}.png") == f"000000_{'ü' * 100}.png"
    assert cv2.imread(str(overlay), cv2.IMREAD_GRAYSCALE).max() > 200


def test_workers_and_chunks_change_nothing(tmp_path, lot, fitted):
    for number, (workers, chunk) in enumerate(((1, 1), (2, 3), (3, None))):
        inspect_paths([lot], fitted, tmp_path / str(number), workers=workers, chunk=chunk)
    for name in ("results.csv", "findings.csv", "findings.json", "quarantine.csv"):
        first, *others = ((tmp_path / str(number) / name).read_bytes() for number in range(3))
        assert all(other == first for other in others), name


def test_a_zip_and_more_than_a_thousand_findings(tmp_path, fitted, monkeypatch):
    monkeypatch.setattr("waferlens.inspect.run.MOST_FOUND", 3)
    write_lot(tmp_path / "lot")
    assert main(["export", str(fitted), "--out", str(tmp_path / "b.zip")]) == 0
    result = inspect_paths([tmp_path / "lot"], tmp_path / "b.zip", tmp_path / "out")
    assert (result.findings, len(result.found)) == (5, 3)
    assert len(table(tmp_path / "out" / "findings.csv")) == 5


# --- resuming


def same(ours: Path, theirs: Path) -> None:
    for name in ("results.csv", "findings.csv", "findings.json", "quarantine.csv"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    drawn = [sorted(path.name for path in (out / "overlays").iterdir()) for out in (ours, theirs)]
    assert drawn[0] == drawn[1]
    for name in drawn[0]:
        assert (ours / "overlays" / name).read_bytes() == (theirs / "overlays" / name).read_bytes()


RUN = """
import sys
from waferlens.inspect import inspect_paths
inspect_paths([sys.argv[1]], sys.argv[2], sys.argv[3], chunk=1, progress=lambda done, total: print(done, flush=True))
"""


def test_a_run_that_was_killed_and_resumed_is_the_run_that_was_not(tmp_path, lot, fitted):
    inspect_paths([lot], fitted, tmp_path / "whole", chunk=1)
    out = tmp_path / "out"
    arguments = [sys.executable, "-c", RUN, str(lot), str(fitted), str(out)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) >= 3:
                break
        time.sleep(0.02)
        process.kill()
    assert process.returncode in (-signal.SIGKILL, 0)
    result = inspect_paths([lot], fitted, out, chunk=1)
    assert (result.images, result.findings, result.critical_findings) == (8, 5, 3)
    assert result.resumed_at >= 3
    same(out, tmp_path / "whole")


def test_an_interruption_and_a_lost_table_are_mended(tmp_path, lot, fitted):
    inspect_paths([lot], fitted, tmp_path / "whole", chunk=2)

    def interrupt(done: int, total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inspect_paths([lot], fitted, tmp_path / "out", chunk=2, progress=interrupt)
    assert inspect_paths([lot], fitted, tmp_path / "out", chunk=2).resumed_at == 4
    same(tmp_path / "out", tmp_path / "whole")
    for name in ("findings.csv", "findings.json"):
        (tmp_path / "out" / name).unlink()
        assert inspect_paths([lot], fitted, tmp_path / "out", chunk=2).resumed_at == 8
        same(tmp_path / "out", tmp_path / "whole")


# --- direct mode: where the reference comes from


def test_one_reference_for_all(tmp_path, lot, reference, direct):
    result = inspect_paths([lot], direct, tmp_path / "out", reference=reference)
    assert (result.verdicts, result.quarantined) == ({"OK": 1, "review": 1, "NG": 4}, 2)
    assert (result.findings, result.critical_findings) == (5, 5)
    card = json.loads((tmp_path / "out" / "runcard.json").read_text())
    assert "threshold" not in card["data"]  # no rate is stated
    with pytest.raises(UsageError, match=r"reference: .*good\.png then, None now|nothing to compare with"):
        inspect_paths([lot], direct, tmp_path / "out")


def test_a_reference_among_the_images_is_not_inspected(tmp_path, direct):
    for name, defects in (("a", ()), ("b", (LIGHT,)), ("golden/c", ())):
        write(tmp_path / "lot" / f"{name}.png", part(ord(name[-1]), defects))
    inspect_paths([tmp_path / "lot"], direct, tmp_path / "one", reference=tmp_path / "lot" / "a.png")
    assert verdicts(tmp_path / "one") == {"b.png": "NG", "c.png": "OK"}
    for name in "ab":
        write(tmp_path / "lot" / "golden" / f"{name}.png", part(100 + ord(name)))
    inspect_paths([tmp_path / "lot"], direct, tmp_path / "many", reference=tmp_path / "lot" / "golden")
    assert verdicts(tmp_path / "many") == {"a.png": "OK", "b.png": "NG"}
    with pytest.raises(InputError, match="the 3 there are, are references"):
        inspect_paths([tmp_path / "lot" / "golden"], direct, tmp_path / "x", reference=tmp_path / "lot" / "golden")


def test_a_folder_of_references_with_the_same_names(tmp_path, direct):
    for index, of in enumerate((7, 8, 9)):  # three products
        write(tmp_path / "lot" / f"{index}.png", part(10 + index, [LIGHT] if index == 1 else (), of=of))
        write(tmp_path / "good" / f"{index}.png", part(20 + index, of=of))
    write(tmp_path / "lot" / "3.png", part(13))
    result = inspect_paths([tmp_path / "lot"], direct, tmp_path / "out", reference=tmp_path / "good")
    assert verdicts(tmp_path / "out") == {"0.png": "OK", "1.png": "NG", "2.png": "OK"}
    assert result.quarantined == 1
    (reason,) = quarantined(tmp_path / "out").values()
    assert reason == f"its reference {tmp_path / 'good' / '3.png'} is not there; see --pair-by"


@pytest.mark.parametrize(
    ("pair_by", "names"),
    [
        ("{}_test.png:{}_temp.png", ("a_test.png", "a_temp.png")),
        ("{}.png:{}_good.png", ("a.png", "a_good.png")),  # the good one fits both
        ("{}_bad.png:{}.png", ("a_bad.png", "a.png")),  # the image fits both
        ("new_{}.png:old_{}.png", ("new_a.png", "old_a.png")),
    ],
)
def test_pairs_in_one_folder(tmp_path, direct, pair_by, names):
    ours, theirs = names
    for stem, defects in (("a", [LIGHT]), ("b", [])):
        write(
            tmp_path / "lot" / ours.replace("a", stem, 1) if ours[0] == "a" else tmp_path / "lot" / f"new_{stem}.png",
            part(ord(stem), defects, shift=(2, -3)),
        )
        write(
            tmp_path / "lot" / theirs.replace("a", stem, 1)
            if theirs[0] == "a"
            else tmp_path / "lot" / f"old_{stem}.png",
            part(ord(stem) + 100),
        )
    result = inspect_paths([tmp_path / "lot"], direct, tmp_path / "out", pair_by=pair_by)
    assert (result.images, result.quarantined, result.verdicts) == (2, 0, {"OK": 1, "review": 0, "NG": 1})
    assert verdicts(tmp_path / "out")[ours] == "NG"


def test_pairs_in_two_folders_and_a_pair_of_one(tmp_path, direct):
    write(tmp_path / "lot" / "a_1.png", part(1))
    write(tmp_path / "lot" / "b_1.png", part(2))
    write(tmp_path / "lot" / "other.png", part(2))
    write(tmp_path / "good" / "a_0.png", part(3))
    result = inspect_paths(
        [tmp_path / "lot"], direct, tmp_path / "out", reference=tmp_path / "good", pair_by="{}_1.png:{}_0.png"
    )
    assert (result.images, result.quarantined) == (2, 1)  # `other` is of no pair
    assert quarantined(tmp_path / "out")["b_1.png"].endswith("b_0.png is not there; see --pair-by")


def test_a_stack_against_a_stack_page_by_page(tmp_path, direct):
    for name, seed, defects in (("lot", 10, [LIGHT]), ("good", 20, [])):
        (tmp_path / name).mkdir()
        pages = [part(seed, defects), part(seed + 1, of=8), part(seed + 2)]
        stack = np.stack([page.round().astype(np.uint8) for page in (pages if name == "lot" else pages[:2])])
        tifffile.imwrite(tmp_path / name / "s.tif", stack, photometric="minisblack")
    result = inspect_paths([tmp_path / "lot"], direct, tmp_path / "out", reference=tmp_path / "good")
    assert [row["verdict"] for row in table(tmp_path / "out" / "results.csv")] == ["NG", "OK"]
    assert result.quarantined == 1  # the third page has no good one
    with pytest.raises(InputError, match="several pages, one image is needed as reference"):
        inspect_paths([tmp_path / "lot"], direct, tmp_path / "x", reference=tmp_path / "good" / "s.tif")
    # one image for all pages
    write(tmp_path / "one" / "s.png", part(30))
    inspect_paths([tmp_path / "lot"], direct, tmp_path / "b", reference=tmp_path / "one" / "s.png")
    assert [row["verdict"] for row in table(tmp_path / "b" / "results.csv")] == ["NG", "review", "OK"]


def test_references_that_cannot_be_used(tmp_path, direct, lot):
    constant = write(tmp_path / "constant.png", np.full((HEIGHT, WIDTH), 70.0, np.float32))
    with pytest.raises(InputError, match=r"constant\.png: every pixel is 70"):
        inspect_paths([lot], direct, tmp_path / "out", reference=constant)
    with pytest.raises(InputError, match=r"nowhere\.png: no such image or folder"):
        inspect_paths([lot], direct, tmp_path / "out", reference=tmp_path / "nowhere.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match=r"text\.png: not an image"):
        inspect_paths([lot], direct, tmp_path / "out", reference=tmp_path / "text.png")
    assert not (tmp_path / "out").exists()
    # in a folder, each stops its own image only
    pair = {
        "bits": (part(1), (257 * part(2)).astype(np.uint16)),
        "constant": (part(1), np.full((HEIGHT, WIDTH), 70.0, np.float32)),
        "broken": (part(1), None),
        "apart": (part(1)[:, :60], part(2)[:, 68:]),
        "smaller": (part(1, [LIGHT]), part(2)[10:90, 10:120]),
        "larger": (part(1, [LIGHT])[10:90, 10:120], part(2)),
        "fine": (part(1), part(2)),
    }
    for name, (ours, theirs) in pair.items():
        write(tmp_path / "lot" / f"{name}.png", ours)
        if theirs is None:
            (tmp_path / "lot" / f"{name}_ref.png").write_bytes(b"")
        else:
            write(tmp_path / "lot" / f"{name}_ref.png", theirs)
    result = inspect_paths([tmp_path / "lot"], direct, tmp_path / "out", pair_by="{}.png:{}_ref.png")
    reasons = quarantined(tmp_path / "out")
    assert (
        reasons["bits.png"] == "white is 255 here and 65535 on the reference: 8 bits against 16 bits; save both alike"
    )
    assert reasons["constant.png"].endswith("constant_ref.png: every pixel is 70: there is nothing to compare")
    assert reasons["broken.png"].endswith("broken_ref.png: the file is empty")
    found = verdicts(tmp_path / "out")
    assert found == {"apart.png": "review", "smaller.png": "NG", "larger.png": "NG", "fine.png": "OK"}
    assert result.findings == 2
    rows = {Path(row["path"]).name: row for row in table(tmp_path / "out" / "results.csv")}
    assert rows["apart.png"]["verdict_reason"].startswith("not compared: ")
    boxes = {Path(row["path"]).name: [float(row[edge]) for edge in ("x0", "y0", "x1", "y1")]
             for row in table(tmp_path / "out" / "findings.csv")}  # fmt: skip
    assert near(boxes["smaller.png"], LIGHT)
    assert near(boxes["larger.png"], (LIGHT[0] - 10, LIGHT[1] - 10, *LIGHT[2:]))


def test_a_reference_with_the_defect_in_it_shows_on_every_image_in_the_opposite_sense(tmp_path, direct):
    for index in range(3):
        write(tmp_path / "lot" / f"{index}.png", part(30 + index))
    bad = write(tmp_path / "bad.png", part(1, [LIGHT]))
    result = inspect_paths([tmp_path / "lot"], direct, tmp_path / "out", reference=bad)
    assert [found.finding.light_or_dark for found in result.found] == ["dark"] * 3
    assert all(near(found.finding.box, LIGHT) for found in result.found)


def test_another_reference_than_the_fitted_one_takes_the_rate_away(tmp_path, lot, fitted, reference):
    result = inspect_paths([lot], fitted, tmp_path / "out", reference=reference)
    assert result.verdicts["review"] == 1
    card = json.loads((tmp_path / "out" / "runcard.json").read_text())
    assert card["data"]["options"]["reference"] == str(reference)
    scores = [found.finding.score for found in result.found]
    with_rate = inspect_paths([lot], fitted, tmp_path / "b")
    factor = open_bundle(fitted).threshold["factor"]
    assert factor != 1
    assert scores[0] != pytest.approx(with_rate.found[0].finding.score, rel=0.01)


# --- options


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, r"mine was fitted to nothing .*name --reference IMAGE or DIR, or --pair-by, or fit it first"),
        ({"pair_by": "a:b"}, r"--pair-by a:b: expected two names with \{\} in each"),
        ({"pair_by": "{}.png"}, "expected two names"),
        ({"pair_by": "{}{}.png:{}.png"}, "expected two names"),
        ({"pair_by": "{}.png:{}.png"}, "makes every image its own reference"),
        ({"pair_by": "{}.png:{}_r.png", "reference": "GOOD"}, r"--reference .*good\.png is one for all"),
        ({"reference": "GOOD", "limits": ["depth=1:2nm"]}, r"--limit means nothing to mine, .* golden; it takes --ref"),
        ({"reference": "GOOD", "pixel_nm": 1.0}, "--pixel-nm means nothing to mine"),
    ],
)
def test_options_that_are_wrong_are_told_before_anything_is_done(tmp_path, lot, reference, direct, options, told):
    options = {name: reference if value == "GOOD" else value for name, value in options.items()}
    with pytest.raises(UsageError, match=told):
        inspect_paths([lot], direct, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_bundle_of_holes_takes_no_reference(tmp_path, lot, reference):
    for option in ({"reference": reference}, {"pair_by": "{}_a.png:{}_b.png"}):
        with pytest.raises(UsageError, match=r"means nothing to hole-fast, a bundle of station hole; it takes --limit"):
            inspect_paths([lot], "hole-fast", tmp_path / "out", **option)


def test_shipped_recipes_are_opened_by_name_and_bad_names_are_told(tmp_path, lot, reference, capsys):
    words = ["inspect", str(lot), "--out", str(tmp_path / "out"), "--reference", str(reference), "--json"]
    assert main([*words, "--bundle", "golden-template", "--fail-on-ng"]) == 1
    assert json.loads(capsys.readouterr().out)["verdicts"]["NG"] >= 4
    assert main([*words, "--bundle", "golden-templat"]) == 2
    assert "did you mean 'golden-template'" in capsys.readouterr().err
    assert main([*words, "--bundle", "hole-unet-2"]) == 2


# --- die to die


def write_row(folder: Path, dies: int = 5, bad: int | None = 2, repeater: bool = True, start: int = 0) -> None:
    for index in range(dies):
        defects = ([DARK] if repeater else []) + ([LIGHT] if index == bad else [])
        write(
            folder / f"die_{start + index:02d}.png",
            part(200 + start + index, defects, shift=(0.3 * index, -0.5 * index)),
        )


def test_a_die_differs_from_its_neighbours_and_repeaters_are_invisible(tmp_path):
    write_row(tmp_path / "row")
    result = inspect_paths([tmp_path / "row"], "die-to-die", tmp_path / "out")
    assert result.verdicts == {"OK": 4, "review": 0, "NG": 1}
    (only,) = result.found
    assert Path(only.path).name == "die_02.png"
    assert near(only.finding.box, LIGHT)


@pytest.mark.parametrize("bad", [0, 4])
def test_the_first_and_the_last_die_are_compared_with_the_next_two(tmp_path, bad):
    write_row(tmp_path / "row", bad=bad)
    for chunk in (1, 2, None):
        result = inspect_paths([tmp_path / "row"], "die-to-die", tmp_path / f"out{chunk}", chunk=chunk)
        assert result.verdicts == {"OK": 4, "review": 0, "NG": 1}
        assert verdicts(tmp_path / f"out{chunk}")[f"die_{bad:02d}.png"] == "NG"


def test_rows_are_folders_and_do_not_mix(tmp_path):
    write_row(tmp_path / "wafer" / "row_1", dies=3, bad=2)
    for index in range(3):  # another product
        write(tmp_path / "wafer" / "row_2" / f"{index}.png", part(300 + index, [LIGHT] if index == 0 else (), of=8))
    for index in range(2):
        write(tmp_path / "wafer" / "row_3" / f"{index}.png", part(400 + index))
    result = inspect_paths([tmp_path / "wafer"], "die-to-die", tmp_path / "out")
    assert result.verdicts == {"OK": 4, "review": 0, "NG": 2}
    assert [Path(found.path).name for found in result.found] == ["die_02.png", "0.png"]
    assert result.quarantined == 2
    for row in table(tmp_path / "out" / "quarantine.csv"):
        assert row["reason"] == "has 1 die beside it that can be used; each is compared with two others"


def test_pages_of_a_stack_are_a_row(tmp_path):
    stack = np.stack([part(500 + i, [LIGHT] if i == 3 else (), shift=(0.4 * i, 0)) for i in range(4)])
    (tmp_path / "row").mkdir()
    tifffile.imwrite(tmp_path / "row" / "dies.tif", (257 * stack).astype(np.uint16), photometric="minisblack")
    write(tmp_path / "row" / "other.png", part(1, of=8))  # no die of this row
    result = inspect_paths([tmp_path / "row"], "die-to-die", tmp_path / "out")
    assert [row["verdict"] for row in table(tmp_path / "out" / "results.csv")] == ["OK", "OK", "OK", "NG"]
    assert result.quarantined == 1
    assert result.found[0].page == 3
    assert result.found[0].finding.contrast == pytest.approx(257 * 30, rel=0.15)


def test_a_broken_die_spoils_no_other(tmp_path):
    write_row(tmp_path / "row", dies=6, bad=1)
    (tmp_path / "row" / "die_02.png").write_bytes(b"")
    write(tmp_path / "row" / "die_03.png", np.full((HEIGHT, WIDTH), 70.0, np.float32))
    result = inspect_paths([tmp_path / "row"], "die-to-die", tmp_path / "out", chunk=2)
    assert quarantined(tmp_path / "out").keys() == {"die_02.png", "die_03.png"}
    assert verdicts(tmp_path / "out") == {
        "die_00.png": "OK",
        "die_01.png": "NG",
        "die_04.png": "OK",
        "die_05.png": "OK",
    }
    assert result.findings == 1


def test_die_to_die_takes_three_dies_and_no_reference(tmp_path, reference):
    write_row(tmp_path / "row", dies=2)
    with pytest.raises(UsageError, match="die-to-die compares each die with two others, got 2 images; name at least"):
        inspect_paths([tmp_path / "row"], "die-to-die", tmp_path / "out")
    with pytest.raises(UsageError, match="compares neighbours with each other; leave out --reference and --pair-by"):
        inspect_paths([tmp_path / "row"], "die-to-die", tmp_path / "out", reference=reference)


# --- the store elsewhere, and what is not loaded


def test_results_in_another_database(tmp_path, lot, fitted):
    url = f"sqlite:///{tmp_path}/all.sqlite"
    result = inspect_paths([lot], fitted, tmp_path / "out", store=url)
    assert isinstance(result, InspectResult)
    assert (result.findings, len(result.found)) == (5, 5)
    assert len(table(tmp_path / "out" / "findings.csv")) == 5
    assert not (tmp_path / "out" / "results.sqlite").exists()


def test_comparing_needs_no_network(tmp_path, lot, reference):
    code = (
        "import sys; from waferlens.inspect import inspect_paths\n"
        "inspect_paths([sys.argv[1]], 'golden-template', sys.argv[2], reference=sys.argv[3])\n"
        "print([name for name in ('torch', 'onnxruntime', 'matplotlib', 'plotly') if name in sys.modules])"
    )
    words = [sys.executable, "-c", code, str(lot), str(tmp_path / "out"), str(reference)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"
