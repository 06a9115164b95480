"""The report of golden runs: what it promises and found, true to the results, and bounded whatever the lot is."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sqlite3
from pathlib import Path

import cv2
import numpy as np
import pytest

from html_page import Page, looked_at, picture, plainly
from waferlens.bundle.files import open_bundle
from waferlens.cli.main import main
from waferlens.errors import InputError
from waferlens.inspect import inspect_paths
from waferlens.ops.conformal import Guarantee
from waferlens.prepare.golden import fit
from waferlens.recipe import load_recipe
from waferlens.records import Finding
from waferlens.report import finding_queries, places, words
from waferlens.report.finding_queries import FindingResults
from waferlens.report.page import write_report
from waferlens.store.results import Store
from waferlens.store.rows import QUARANTINED, ImageResult, Run

HOSTILE = ("<script>alert(1)<!--.png", "exe\u202egnp.png")
RECIPE = """
extends: golden-template
name: dots
registration: {motion: shift, max_shift_px: 4}
method: {contrast_fraction: 0.1}
threshold: {false_alarm_rate: 0.1}
rules:
  - {name: "haze <b>", critical: false, light_or_dark: light, max_contrast_grey: 30}
  - {name: killer, critical: true, min_area_px: 20}
"""
WIDE, HIGH = 80, 64


def part(seed: int, spots: tuple[tuple[int, int, int, float], ...] = ()) -> np.ndarray:
    """A good part with noise, or one with round spots (x, y, radius, grey) on it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HIGH, :WIDE]
    image = (
        120 + 40 * np.sign(np.sin(x / 5.0)) * np.sign(np.cos(y / 6.0 + 1)) + 25 * (x > 50) + rng.normal(0, 3, x.shape)
    )
    for at_x, at_y, radius, grey in spots:
        image += grey * (np.hypot(x - at_x, y - at_y) <= radius)
    return np.clip(image, 0, 255).round().astype(np.uint8)


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text("utf-8").splitlines()))


def cells(page: Page, *beginning: str) -> str:
    """The text of the page behind some words."""
    found = re.search(r"\s+".join(map(re.escape, beginning)) + r"\s+(.{0,200})", page.text)
    assert found, f"{beginning} stands nowhere"
    return found[1]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    root = tmp_path_factory.mktemp("fit")
    (root / "good").mkdir()
    for index in range(24):
        cv2.imwrite(str(root / "good" / f"{index:02d}.png"), part(index))
    (root / "dots.yaml").write_text(RECIPE)
    fit(load_recipe(root / "dots.yaml"), root / "good", root / "run")
    return open_bundle(root / "run")


@pytest.fixture(scope="module")
def lot(tmp_path_factory):
    """Good parts, parts with defects of every kind, images that show something else, and what is no image."""
    lot = tmp_path_factory.mktemp("lot")
    for index in range(8):
        cv2.imwrite(str(lot / f"good_{index}.png"), part(100 + index))
    for index in range(5):
        spots = ((20, 30, 3, 90.0), (60, 20, 4, -80.0), (40, 50, 2, 24.0))[: 1 + index % 3]
        cv2.imwrite(str(lot / f"bad_{index}.png"), part(200 + index, spots))
    cv2.imwrite(str(lot / "haze.png"), part(300, ((30, 20, 3, 27.0),)))
    cv2.imwrite(str(lot / "strange.png"), np.random.default_rng(1).integers(0, 255, (HIGH, WIDE)).astype(np.uint8))
    (lot / HOSTILE[0]).write_text("no image")
    cv2.imwrite(str(lot / "plain.png"), part(301, ((30, 20, 3, 90.0),)))
    (lot / "plain.png").rename(lot / HOSTILE[1])
    return lot


@pytest.fixture(scope="module")
def run(tmp_path_factory, bundle, lot):
    out = tmp_path_factory.mktemp("run") / "inspected"
    result = inspect_paths([lot], bundle, out)
    assert min(result.verdicts.values()) > 0
    return out


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    return looked_at(write_report([run], tmp_path_factory.mktemp("page") / "report.html"))


def made_run(folder: Path, results: list[ImageResult], recipe: dict | None = None, **data: object) -> Path:
    """A run folder with results of our own making."""
    folder.mkdir()
    told = recipe or load_recipe("golden-template").model_dump(mode="json")
    card = {
        "kind": "inspect",
        "recipe": told,
        "data": {"run": "r", "images": len(results), "images_sha256": "-", "bundle": "b", "fingerprint": "f" * 64}
        | {"calibration": {}, "options": {"reference": "good.png", "pair_by": None, "overlays": False}}
        | data,
        "results": {"state": "done"},
        "started": "2026-02-03T14:05:00+00:00",
        "seconds": 1.0,
    }
    (folder / "runcard.json").write_text(json.dumps(card))
    with Store(folder / "results.sqlite") as store:
        store.add_chunk(store.begin(Run("r", card["started"], "b", "f", "{}", "0")), results)
    return folder


def result(
    item: int, verdict: str = "OK", findings: list[Finding] = (), deviation: float | None = 0.5, reason: str = ""
):
    numbers = [("registration_score", 0.9, "1", None, None)]
    if deviation is not None:
        told = {
            "findings": len(findings),
            "critical_findings": sum(f.critical for f in findings),
            "deviation": deviation,
        }
        numbers += [(name, float(value), "1", None, None) for name, value in told.items()]
        numbers += [("shift_x", 0.1 * item, "px", None, None), ("shift_y", -0.2, "px", None, None)]
    return ImageResult(
        item, f"/nowhere/{item:05d}.png", 0, "ok", verdict=verdict, verdict_reason=reason, measurements=numbers,
        findings=list(findings),
    )  # fmt: skip


def finding(x: float, y: float, area: float = 12, contrast: float = 40, critical: bool = True) -> Finding:
    sense = "light" if contrast > 0 else "dark"
    return Finding("deviation", (x - 2, y - 2, x + 2, y + 2), 1.5, area, contrast, sense, critical)


def test_it_tells_the_lot(run, page):
    card = json.loads((run / "runcard.json").read_text())
    for verdict, count in card["results"]["verdicts"].items():
        assert cells(page, verdict, str(count)).startswith(plainly(words.percent(count / 17)))
    found = table(run / "findings.csv")
    critical = sum(row["critical"] == "true" for row in found)
    assert 0 < critical < len(found)
    assert cells(page, "findings", str(len(found)), "critical", str(critical)).startswith(
        f"tolerable {len(found) - critical}"
    )
    assert "inspection of 17 images" in page.text
    assert cells(page, "recipe", "dots").startswith("· golden template")
    assert "the template of the bundle, made of" in page.text
    light = sum(row["light_or_dark"] == "light" for row in found)
    assert cells(page, "light", str(light), "·", "▼", "dark").startswith(str(len(found) - light))
    deviations = [float(row["deviation"]) for row in table(run / "results.csv") if row["deviation"]]
    near = sum(0.8 <= deviation <= 1.25 for deviation in deviations)
    assert (f"{near} image lies" if near == 1 else f"{near} images lie" if near else "No image lies") in page.text


def test_what_is_promised_is_what_the_fit_found(run, bundle, page):
    told = json.loads(bundle.files["calibration.json"])
    guarantee = Guarantee(**told["threshold"]["guarantee"])
    card = json.loads((run / "runcard.json").read_text())
    assert card["data"]["threshold"] == {**told["threshold"], "set": bundle.runcard["started"]}
    assert "At most 10 % of good images alarm" in page.text
    low, high, mean = (plainly(words.percent(share, 2)) for share in (guarantee.low, guarantee.high, guarantee.mean))
    assert f"90 % interval of the true rate of this very threshold: {low} to {high}, expected {mean}" in page.text
    expected = plainly(words.number(16 * guarantee.mean, 2))
    assert f"every one of these 16 images good, {expected} would be expected to alarm" in page.text
    assert f"template {told['data']['template']} good images threshold set by" in page.text
    assert cells(page, "threshold set by").startswith(f"{guarantee.images} good images data good")
    assert told["data"]["images_sha256"] in page.text
    assert cells(page, "set on").startswith(bundle.runcard["started"][:10])


def test_rules_tell_what_they_decided(run, page):
    found = table(run / "findings.csv")
    for rule, asks in (("haze <b>", "contrast ≤ 30 grey, light only tolerable"), ("killer", "area ≥ 20 px² critical")):
        of_it = [row for row in found if row["rule"] == rule]
        assert of_it
        images = len({row["path"] for row in of_it})
        assert cells(page, rule, asks).startswith(f"{len(of_it)} {images} ")
    rest = sum(row["rule"] == "no rule" for row in found)
    assert cells(page, "no rule", "what fits none of these critical").startswith(f"{rest} ")


def test_worst_images_come_with_the_list_of_their_findings(run, page):
    rows = [row for row in table(run / "results.csv") if row["verdict"] == "NG"]
    rows.sort(key=lambda row: (-float(row["deviation"]), -float(row["critical_findings"])))
    behind = page.text[page.text.index("Farthest beyond the threshold") :]
    worst = plainly(words.file_name(rows[0]["path"]))
    assert worst in behind[:400]
    of_it = [row for row in table(run / "findings.csv") if row["path"] == rows[0]["path"]]
    listed = behind[behind.index(worst) :][:400]
    for number, row in enumerate(of_it[:5], 1):
        x0, y0, x1, y1 = (plainly(words.exact(float(row[edge]))) for edge in ("x0", "y0", "x1", "y1"))
        sense = "▲ light" if row["light_or_dark"] == "light" else "▼ dark"
        assert f"{number} {sense}" in listed
        assert f"x {x0} to {x1} y {y0} to {y1} {row['rule']}" in listed
        assert plainly(words.number(float(row["contrast"]), 3)) in listed
    kinds = [value for tag, name, value in page.attributes if tag == "rect" and name == "class"]
    assert kinds.count("critical") >= 4
    assert kinds.count("tolerable") >= 1


def test_boxes_lie_on_what_they_show(tmp_path):
    image = np.full((HIGH, WIDE), 100, np.uint8)
    image[10:20, 30:36] = 200
    cv2.imwrite(str(tmp_path / "a.png"), image)
    one = result(0, "NG", [Finding("deviation", (29.5, 9.5, 35.5, 19.5), 3.0, 60, 100, "light", True)], 3.0)
    one.path = str(tmp_path / "a.png")
    page = looked_at(write_report([made_run(tmp_path / "run", [one])], tmp_path / "r.html"))
    boxes: list[dict[str, str]] = []
    for tag, name, value in page.attributes:
        if tag == "rect":
            boxes += [{}] if name == "x" else []
            boxes[-1][name] = value
    box = next(box for box in boxes if box.get("class") == "critical")
    x, y, w, h = (float(box[name]) for name in ("x", "y", "width", "height"))
    # in the picture's own coordinates the first pixel begins at 0; the line stands a line's width away
    assert x + w / 2 == pytest.approx(33, abs=0.15)
    assert y + h / 2 == pytest.approx(15, abs=0.15)
    assert 6 < w < 8
    assert 10 < h < 12
    assert "0 0 80 64" in page.values("viewbox")
    shown = [picture(value) for value in page.values("src")]
    assert [one.shape for one in shown] == [(HIGH, WIDE, 3), (48, 48, 3)]
    assert shown[0][15, 33].min() > 240
    assert shown[0][40, 40].max() < 10
    # the cut-out has the finding in its middle, as far as the image's rim lets it
    assert shown[1].mean(2)[11:19, 23:27].mean() > shown[1].mean(2)[30:, :].mean() + 100


def test_review_and_quarantine_have_their_reasons(run, page):
    review = [row for row in table(run / "results.csv") if row["verdict"] == "review"]
    assert len(review) == 1
    behind = page.text[page.text.index("Review images that could not be compared") :]
    assert f"strange.png {plainly(review[0]['verdict_reason'])}" in behind
    assert "1 of 17 images could not be compared at all" in page.text
    for row in table(run / "quarantine.csv"):
        assert plainly(words.plain(row["reason"])) in page.text


def test_names_made_to_do_harm_are_only_words(page):
    assert "<script>alert(1)<!--.png" in page.text
    assert "haze <b>" in page.text
    assert "\u202e" not in page.text


def test_direct_mode_states_no_rate(lot, bundle, tmp_path):
    cv2.imwrite(str(tmp_path / "good.png"), part(0))
    inspect_paths([lot / "bad_2.png"], "golden-template", tmp_path / "one", reference=tmp_path / "good.png")
    page = looked_at(write_report([tmp_path / "one"], tmp_path / "r.html"))
    assert "No rate of false alarms is stated Direct mode compares with one good image" in page.text
    assert "good.png · direct mode" in page.text
    assert "inspection of 1 image " in page.text
    assert "This recipe has no rules" in page.text
    assert "its threshold holds for its own template" not in page.text
    # a fitted bundle with another reference has lost its promise
    inspect_paths([lot / "bad_2.png"], bundle, tmp_path / "two", reference=tmp_path / "good.png")
    page = looked_at(write_report([tmp_path / "two"], tmp_path / "r.html"))
    assert "No rate of false alarms is stated" in page.text
    assert "its threshold holds for its own template; here it was not used" in page.text


def test_die_to_die_says_that_it_sees_no_repeaters(tmp_path):
    (tmp_path / "row").mkdir()
    for index in range(4):
        spots = ((30, 20, 3, 90.0),) if index == 2 else ()
        cv2.imwrite(str(tmp_path / "row" / f"{index}.png"), part(index, spots))
    inspect_paths([tmp_path / "row"], "die-to-die", tmp_path / "out")
    page = looked_at(write_report([tmp_path / "out"], tmp_path / "r.html"))
    assert "Repeaters are invisible to it" in page.text
    assert "both neighbours in the lot" in page.text
    assert "No rate of false alarms is stated" in page.text


def test_a_lot_without_findings_and_one_of_nothing_but_review(tmp_path):
    good = made_run(tmp_path / "good", [result(0, deviation=0.0)])
    page = looked_at(write_report([good], tmp_path / "r.html"))
    assert "nothing deviates beyond the threshold" in page.text
    assert "1 left of this scale" in page.text
    assert "Where they lie" not in page.text
    assert page.text.count("none in this lot") == 4
    undecided = [result(i, "review", deviation=None, reason=f"not compared: only {i}% overlap") for i in range(70)]
    page = looked_at(write_report([made_run(tmp_path / "review", undecided)], tmp_path / "r.html"))
    assert "No image was compared" in page.text
    assert "The first 40 of 70" in page.text
    assert "70 not compared: only …% overlap" in page.text
    gone = [ImageResult(0, "/nowhere/a.png", 0, QUARANTINED, "the file is empty")]
    page = looked_at(write_report([made_run(tmp_path / "gone", gone)], tmp_path / "r.html"))
    assert "1 of 1 images could not be compared at all" in page.text
    page = looked_at(write_report([made_run(tmp_path / "begun", [], images=5)], tmp_path / "r.html"))
    assert "This run is not finished: 0 of 5 images are stored" in page.text


def test_the_page_does_not_grow_with_the_lot(tmp_path):
    rng = np.random.default_rng(2)

    def lot(images: int) -> list[ImageResult]:
        made = []
        for item in range(images):
            places = rng.uniform(5, 500, (item % 9, 2))
            found = [finding(x, y, rng.uniform(4, 900), rng.normal(0, 50), x > 200) for x, y in places]
            made.append(result(item, "NG" if found else "OK", found, rng.lognormal()))
        return made

    few = made_run(tmp_path / "few", lot(600))
    many = made_run(tmp_path / "many", lot(3000))
    small = write_report([few], tmp_path / "few.html").stat().st_size
    large = write_report([many], tmp_path / "many.html").stat().st_size
    assert 0 < large < max(small, 200_000)
    page, marks = looked_at(tmp_path / "many.html"), looked_at(tmp_path / "few.html")
    assert "Too many for marks" in page.text
    assert "A mark a finding" in marks.text
    classes = {value for tag, name, value in marks.attributes if tag == "path" and name == "class"}
    assert {"mark light", "mark dark", "mark light open", "mark dark open"} <= classes
    assert not [value for tag, name, value in page.attributes if tag == "path" and name == "class" and "mark" in value]


def test_every_finding_is_in_the_densities(tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    results = [
        result(item, "NG", [finding(*rng.uniform(3, 96, 2), contrast=rng.choice([-9.0, 9.0])) for _ in range(7)], 2.0)
        for item in range(30)
    ]
    folder = made_run(tmp_path / "run", results)
    monkeypatch.setattr(places, "MOST_MARKS", 10)
    monkeypatch.setattr(finding_queries, "_AT_ONCE", 5)  # images are parted by the pieces they come in
    with FindingResults(folder / "results.sqlite", "r") as open_results:
        kinds = open_results.kinds()
        seen = places._Seen(100, 100, kinds, counted=True)
        for piece in open_results.pieces():
            assert len(piece.x) <= 5
            seen.add(piece)
    assert seen.density.sum() == seen._sizes.sum() == sum(kind.findings for kind in kinds) == 210
    assert seen._sizes[1].sum() == sum(kind.findings for kind in kinds if kind.light_or_dark == "light")
    side = 100 / seen._images.shape[0]
    centres = [[((f.box[0] + f.box[2]) / 2, (f.box[1] + f.box[3]) / 2) for f in one.findings] for one in results]
    cells = [{(int((x + 0.5) / side), int((y + 0.5) / side)) for x, y in of_image} for of_image in centres]
    assert seen._images.sum() == sum(len(of_image) for of_image in cells)


def test_what_comes_again_at_one_place_is_pointed_out(tmp_path):
    rng = np.random.default_rng(4)
    scattered = [[finding(*rng.uniform(5, 395, 2)) for _ in range(2)] for _ in range(80)]
    page = looked_at(
        write_report(
            [made_run(tmp_path / "a", [result(i, "NG", found, 2.0) for i, found in enumerate(scattered)])],
            tmp_path / "r.html",
        )
    )
    assert "No place stands out from those around it" in page.text
    for found in scattered[::5]:  # a sixth of the images have the same
        found.append(finding(*(np.array([140.0, 260.0]) + rng.uniform(-2, 2, 2))))
    page = looked_at(
        write_report(
            [made_run(tmp_path / "b", [result(i, "NG", found, 2.0) for i, found in enumerate(scattered)])],
            tmp_path / "r.html",
        )
    )
    told = re.search(r"1 x (\d+) to (\d+), y (\d+) to (\d+) px (\d+) images", page.text)
    assert told
    x0, x1, y0, y1, images = map(int, told.groups())
    assert x0 < 140 < x1
    assert y0 < 260 < y1
    assert 12 <= images <= 20


def test_what_is_no_longer_there_is_said(run, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    card = json.loads((moved / "runcard.json").read_text())
    with sqlite3.connect(moved / "results.sqlite") as connection:
        connection.execute("update images set path = replace(path, 'lot', 'gone')")
    connection.close()
    page = looked_at(write_report([moved], tmp_path / "r.html"))
    assert "the image is no longer there" in page.text
    assert "shown is the overlay of the run" in page.text
    assert len(page.values("src")) >= 4
    shutil.rmtree(moved / "overlays")
    page = looked_at(write_report([moved], tmp_path / "r.html"))
    assert "and the run has no overlay of it" in page.text
    assert page.values("src") == []
    card["recipe"]["method"]["kind"] = "of another time"
    (moved / "runcard.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="its recipe is none that this version reads"):
        write_report([moved], tmp_path / "r.html")


def test_runs_stand_on_one_page(run, tmp_path, capsys):
    assert main(["report", str(run), str(run), "--out", str(tmp_path / "r.html"), "--json"]) == 0
    page = looked_at(tmp_path / "r.html")
    assert page.text.count("At most 10 % of good images alarm") == 2
    assert json.loads(capsys.readouterr().out)["bytes"] == (tmp_path / "r.html").stat().st_size


@pytest.mark.browser
def test_it_is_readable_on_a_desk_and_on_a_phone(run, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium to open the page with")
    path = write_report([run], tmp_path / "report.html")
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width in (1280, 390):
            tab = browser.new_page(viewport={"width": width, "height": 900}, bypass_csp=True)
            asked, said = [], []
            tab.on("request", lambda request, asked=asked: asked.append(request.url))
            tab.on("console", lambda message, said=said: said.append(message.text))
            tab.goto(path.as_uri())
            assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
            assert said == []
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        browser.close()
