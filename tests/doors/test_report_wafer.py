"""The report of wafers: true to the results and the maps, whole whatever is missing, bounded whatever the lot is."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from html_page import Page, looked_at, picture, plainly
from make_wafer_bundle import PITCH_UM, make_wafer_bundle, scene, write_swath
from make_wafer_run import ERROR_UM, make_wafer_run
from waferlens.cli.main import main
from waferlens.errors import InputError
from waferlens.inspect import inspect_paths
from waferlens.inspect.swath_map import SwathMap
from waferlens.report import wafer, words
from waferlens.report.page import write_report
from waferlens.simulate.wafer.dataset import wafer_world
from waferlens.simulate.wafer.field import SimulatedField, draw_field, draw_swath

HOSTILE = ("<script>alert(1)<!--.tif", '"><img src=x onerror=alert(2)>.tif')
GRID = 228


@pytest.fixture(scope="module")
def fields() -> list[SimulatedField]:
    """Two fields with a missing die and one without."""
    return [draw_field(wafer_world("sim"), 5, number, GRID) for number in (4, 21, 11)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, fields: list[SimulatedField]) -> Path:
    names = ["first.tif", HOSTILE[0], "third.tif"]
    return make_wafer_run(
        tmp_path_factory.mktemp("run") / "run", fields, names=names, quarantined=[(HOSTILE[1], "a truncated TIFF")]
    )


@pytest.fixture(scope="module")
def html(run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = write_report([run], tmp_path_factory.mktemp("page") / "report.html")
    looked_at(path)
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, fields: list[SimulatedField]) -> Path:
    """A run of one field."""
    return make_wafer_run(tmp_path_factory.mktemp("single") / "run", fields[1:2])


@pytest.fixture(scope="module")
def swath(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A swath so long that it is folded."""
    return make_wafer_run(tmp_path_factory.mktemp("swath") / "run", [draw_swath(wafer_world("sim"), 5, 1, 14, GRID, 1)])


def numbers(run: Path) -> list[dict[str, tuple[float | None, float | None]]]:
    """Value and upper end of every number of every field, from the database."""
    with sqlite3.connect(run / "results.sqlite") as connection:
        rows = connection.execute("select item, name, value, high from measurements").fetchall()
    connection.close()
    found: dict[int, dict[str, tuple[float | None, float | None]]] = {}
    for item, name, value, high in rows:
        found.setdefault(item, {})[name] = (value, high)
    return [found[item] for item in sorted(found)]


def folder(run: Path, number: int = 0) -> Path:
    (found,) = (run / "maps").glob(f"{number:06d}_*")
    return found


def told(run: Path, name: str, number: int = 0) -> Any:
    return json.loads((folder(run, number) / name).read_text())


def reported(tmp_path: Path, run: Path) -> Page:
    return looked_at(write_report([run], tmp_path / "r.html"))


def changed(run: Path, tmp_path: Path, change: Callable[[Path], None], number: int = 0) -> Page:
    """The page of a copy of a run in whose first map something is changed."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    change(folder(copy, number))
    return reported(tmp_path, copy)


def drawn(html: str, kind: str) -> list[str]:
    """All marks of a class, in the order of the page."""
    return re.findall(rf'<\w+ [^>]*class="{kind}"[^>]*/>', html)


def lines(html: str, kind: str) -> list[np.ndarray]:
    """The points of all lines of a class."""
    found = (re.search(r'points="([^"]*)"', mark)[1] for mark in drawn(html, kind))
    return [np.array([[float(number) for number in pair.split(",")] for pair in one.split()]) for one in found]


def images(page: Page) -> list[np.ndarray]:
    """All pictures in drawings, in the order of the page."""
    return [picture(value) for tag, name, value in page.attributes if tag == "image" and name == "href"]


def test_the_key_numbers_are_those_of_the_results(run: Path, page: Page) -> None:
    rows = numbers(run)
    tallest = max(row["top"][0] for row in rows)
    bound = max(row["top"][1] for row in rows)
    safe = max(row["safe"][0] for row in rows)
    summary = page.text.split("bundle wafer-made")[0]
    for number in (tallest, bound, safe):
        assert plainly(words.quantity(number, "um")) in summary
    missing = round(sum(row["dies_missing"][0] for row in rows))
    sites = round(sum(row[f"dies_{state}"][0] for row in rows for state in ("present", "missing", "unsure")))
    assert missing > 0
    assert f"dies missing of {sites} sites {missing}" in summary
    assert "of the least known map known 100.0 %" in summary
    assert "1 of 4 could not be measured at all" in page.text
    assert "a truncated TIFF" in page.text


def test_fields_stand_worst_first(run: Path, page: Page) -> None:
    rows = numbers(run)
    names = ["first.tif", HOSTILE[0], "third.tif"]
    bad = [row["dies_missing"][0] + row["dies_unsure"][0] for row in rows]
    table = page.text.split("worst first: without any height")[1].split("Maps x to the right")[0]
    order = sorted(range(3), key=lambda item: table.index(names[item]))
    assert [bad[item] for item in order] == sorted(bad, reverse=True)
    assert len(set(bad)) > 1
    top = rows[order[0]]["top"]
    line = f"{names[order[0]]} {plainly(words.fixed(top[0], 1))} {plainly(words.fixed(top[1], 1))}"
    assert line in table


def test_every_map_has_its_pictures_of_one_size(page: Page) -> None:
    shapes = [one.shape for one in images(page)]
    # image, height, sigma and error; and the image once more beneath dies, focus and sites; and the surface
    assert shapes.count((GRID, GRID, 3)) == 3 * 5
    assert len(shapes) == 3 * 6
    assert len([value for tag, name, value in page.attributes if tag == "use" and name == "href"]) == 3 * 2


def test_the_error_is_the_map_less_the_truth(tmp_path: Path, fields: list[SimulatedField]) -> None:
    def shifted(made: SwathMap) -> SwathMap:
        height = made.height_um.copy()
        height[:, : GRID // 2] += 40
        return replace(made, height_um=height)

    made = make_wafer_run(tmp_path / "run", fields[:1], change=shifted)
    page = reported(tmp_path, made)
    truth = fields[0].height_um
    away = np.abs(tifffile.imread(folder(made) / "height.tif") - truth)
    covered, mean = re.search(r"90 % band holds ([\d.]+) % ([\d.]+) µm", page.text).groups()
    assert float(covered) == pytest.approx(100 * (away <= 1.645 * ERROR_UM).mean(), abs=0.06)
    assert float(mean) == pytest.approx(away.mean(), abs=0.06)
    p95 = float(re.search(r"95 % of errors below ([\d.]+) µm", page.text)[1])
    assert p95 == pytest.approx(np.quantile(away, 0.95), abs=0.3)
    error = images(page)[3].astype(float)  # blue, green, red
    red = error[..., 2] - error[..., 0]
    assert red[:, : GRID // 2 - 4].mean() > 60
    assert abs(red[:, GRID // 2 + 4 :].mean()) < 30


def test_the_scan_line_shows_what_the_track_hides(tmp_path: Path, single: Path) -> None:
    page = reported(tmp_path, single)
    html = (tmp_path / "r.html").read_text("utf-8")
    row = int(re.search(r"row (\d+); it crosses a site without a die while a die stands", page.text)[1])
    (line,) = lines(html, "trace thin s0")
    height = tifffile.imread(folder(single) / "height.tif")[row]
    assert len(line) == GRID
    # the drawing is a straight picture of the row: down the page is down in um
    slope, offset = np.polyfit(line[:, 1], height, 1)
    assert slope < 0
    np.testing.assert_allclose(slope * line[:, 1] + offset, height, atol=0.06 * abs(slope))
    track = slope * np.concatenate(lines(html, "trace thin s1"))[:, 1] + offset
    expected = np.array(told(single, "field.json")["track"]["z_um"], float)
    np.testing.assert_allclose(track, expected[np.isfinite(expected)], atol=0.06 * abs(slope))
    (band,) = lines(html, "band")
    upper, lower = band[:GRID, 1], band[GRID:, 1][::-1]
    np.testing.assert_allclose(slope * (upper - lower), 2 * 1.645 * ERROR_UM, atol=0.12 * abs(slope))
    # over the gap the map stands at the carrier, and the track at the die of the same columns
    gap = re.search(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)" height="[\d.]+" class="out"/>', html)
    left, right = float(gap[1]) + 40, float(gap[1]) + float(gap[2]) - 40
    over = (line[:, 0] > left) & (line[:, 0] < right)
    points = np.concatenate(lines(html, "trace thin s1"))
    hidden = points[(points[:, 0] > left) & (points[:, 0] < right)]
    assert over.sum() > 20
    assert np.median(height[over]) < 0.3 * np.median(slope * hidden[:, 1] + offset)


def test_dies_are_drawn_as_they_are_told(run: Path, page: Page, html: str) -> None:
    states = [site["state"] for number in range(3) for site in told(run, "dies.json", number)["sites"]]
    for state in ("present", "missing"):
        assert len(drawn(html, f"site {state}")) == states.count(state) > 0
    assert len(drawn(html, "cross missing")) == states.count("missing")
    top = next(site for site in told(run, "dies.json", 0)["sites"] if site["levels"])
    assert " / ".join(plainly(words.fixed(level[4], 0)) for level in top["levels"]) in page.text

    with (folder(run) / "dies.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["top_um"]:
            assert plainly(words.fixed(float(row["top_um"]), 1)) in page.text


def test_focus_is_refused_where_heights_are_missing(tmp_path: Path, fields: list[SimulatedField]) -> None:
    def holed(made: SwathMap) -> SwathMap:
        height = made.height_um.copy()
        height[20:40, 30:60] = np.nan
        return replace(made, height_um=height)

    made = make_wafer_run(tmp_path / "run", fields[:1], change=holed)
    page = reported(tmp_path, made)
    plan = told(made, "focus.json")["fields"]
    assert len(drawn((tmp_path / "r.html").read_text("utf-8"), "site refused")) == len(plan)
    assert f"refused: no safe height {len(plan)}" in page.text
    assert "refused: no safe height, … fields under the objective have gaps" in page.text
    share = 1 - 20 * 30 / GRID**2
    assert f"of the map known {plainly(words.percent(share, 4))}" in page.text


def test_positions_of_focus_stand_in_their_fields(run: Path, page: Page, html: str) -> None:
    plan = [field for number in range(3) for field in told(run, "focus.json", number)["fields"]]
    assert len(drawn(html, "site focus")) == sum(bool(field["slices_um"]) for field in plan)
    assert "20× / 0.42" in page.text
    depth = told(run, "focus.json")["depth_of_focus_um"]
    assert f"depth of focus {plainly(words.quantity(depth, 'um', 3))}" in page.text


def test_flatness_is_told_with_its_sites(run: Path, page: Page, html: str) -> None:
    flat = told(run, "flatness.json")
    sites = flat["sites"]["sites"]
    assert sum(site["range_um"] is not None for site in sites) > 0
    assert len(drawn(html, "site flat")) > 0
    for number in flat["numbers_um"].values():
        assert plainly(words.quantity(number, "um")) in page.text
    assert "no map tells" in page.text  # why there are plain names


def test_a_long_swath_is_folded_and_a_part_of_it_is_large(tmp_path: Path, swath: Path) -> None:
    page = reported(tmp_path, swath)
    assert "the whole map in lines from left to right" in page.text
    field = told(swath, "field.json")
    width = field["columns"] * field["pitch_um"] / 1000
    found = re.search(r"Shown large x from ([\d.]+) to ([\d.]+) mm of ([\d.]+) mm", page.text)
    first, last, whole = (float(number) for number in found.groups())
    assert whole == pytest.approx(width, abs=0.06)
    assert last - first == pytest.approx(2 * field["rows"] * field["pitch_um"] / 1000, abs=0.11)
    # 14 fields side by side are two lines of ten at most: image, height, and the image beneath the boxes
    assert len(images(page)) == 3 * 2 + 4 + 1
    states = [site["state"] for site in told(swath, "dies.json")["sites"]]
    assert len(drawn((tmp_path / "r.html").read_text("utf-8"), "cross missing")) >= states.count("missing") > 0


def test_what_is_absent_is_said(tmp_path: Path, single: Path) -> None:
    def poorer(found: Path) -> None:
        for name in ("sigma.tif", "dies.json", "flatness.json", "focus.json"):
            (found / name).unlink()
        field = json.loads((found / "field.json").read_text())
        field |= {"truth": str(found / "gone.tif"), "track": None, "objective": None, "product": None}
        (found / "field.json").write_text(json.dumps(field))

    page = changed(single, tmp_path, poorer)
    assert "no truth: cannot be read: No such file or directory" in page.text
    assert "No die map: the network tells no classes, and no product was given." in page.text
    assert "it is the middle row; no die is known that could choose another" in page.text


def smaller_truth(found: Path) -> None:
    tifffile.imwrite(found / "other.tif", np.zeros((20, 30), np.float32), photometric="minisblack")
    field = json.loads((found / "field.json").read_text()) | {"truth": str(found / "other.tif")}
    (found / "field.json").write_text(json.dumps(field))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (smaller_truth, "no truth: it is of another grid, 30 × 20 points"),
        (lambda found: (found / "height.tif").write_bytes(b"II*\0 cut"), "the map cannot be shown: a damaged"),
        (lambda found: (found / "height.tif").unlink(), "the map cannot be shown: cannot be read"),
        (shutil.rmtree, "the map cannot be shown: is not there"),
        (lambda found: (found / "field.json").write_text("{"), "the map cannot be shown: is no JSON"),
        (lambda found: (found / "field.json").write_text("{}"), "its JSON is not that of a map: KeyError"),
        (lambda found: (found / "dies.json").write_text('{"sites": [{}]}'), "its JSON is not that of a map"),
        (
            lambda found: (found / "dies.json").write_text('{"sites": [{"box_um": [0, 0, 1, 1]}]}'),
            "what its files tell is not of a map: KeyError",
        ),
        (lambda found: (found / "flatness.json").write_text('{"sites": 3}'), "Fields of focus"),
    ],
)
def test_a_damaged_map_is_said(tmp_path: Path, single: Path, change: Callable[[Path], None], said: str) -> None:
    assert said in changed(single, tmp_path, change).text


def test_a_damaged_map_takes_no_other_with_it(tmp_path: Path, run: Path) -> None:
    def cut(found: Path) -> None:
        data = (found / "height.tif").read_bytes()
        (found / "height.tif").write_bytes(data[: len(data) // 2])

    assert "the map cannot be shown: a damaged or truncated TIFF" in changed(run, tmp_path, cut).text
    assert len(lines((tmp_path / "r.html").read_text("utf-8"), "trace thin s0")) == 2


def test_a_run_without_maps_has_its_numbers(tmp_path: Path, fields: list[SimulatedField]) -> None:
    made = make_wafer_run(tmp_path / "run", fields, maps=False, truth=False)
    page = reported(tmp_path, made)
    assert "This run wrote no maps" in page.text
    assert plainly(words.quantity(max(row["top"][0] for row in numbers(made)), "um")) in page.text


def test_a_field_of_which_nothing_is_known_makes_no_number(tmp_path: Path, fields: list[SimulatedField]) -> None:
    def nothing(made: SwathMap) -> SwathMap:
        return replace(made, height_um=np.full_like(made.height_um, np.nan))

    page = reported(tmp_path, make_wafer_run(tmp_path / "run", fields[:1], change=nothing))
    assert "tallest top –" in page.text
    assert "of the map known 0" in page.text
    assert "no profile: nothing is known along the line" not in page.text  # the track is known
    assert "nan" not in page.text.lower().replace("nanometre", "")


def test_names_made_to_do_harm_are_only_words(page: Page) -> None:
    for name in HOSTILE:
        assert name in page.text


def test_large_lots_are_listed_and_drawn_in_part(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wafer, "LISTED", 2)
    monkeypatch.setattr(wafer, "DRAWN", 1)
    page = reported(tmp_path, run)
    assert "The worst 2 of 3; all of them stand in results.csv" in page.text
    assert "The worst 1 of 3 are drawn; the maps of all lie in maps/" in page.text
    assert len(lines((tmp_path / "r.html").read_text("utf-8"), "trace thin s0")) == 1


@pytest.fixture(scope="module")
def stitched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two swaths that overlap, inspected by a network whose answers are known."""
    root = tmp_path_factory.mktemp("stitched")
    bundle = make_wafer_bundle(root / "bundle")
    rows = ["swath,x0_um,y0_um"]
    for number in range(2):
        y0 = 8.0 * 170 * number
        image = scene(200, 1100, PITCH_UM, 0.0, y0) + (0.02 if number else 0.0)  # they differ by 500 * 0.02 um
        write_swath(root / f"lot/{number}.tif", image)
        rows.append(f"{number}.tif,0,{y0}")
    (root / "layout.csv").write_text("\n".join(rows) + "\n")
    inspect_paths(
        [root / "lot"], bundle, root / "out", pitch_um=PITCH_UM, layout=root / "layout.csv",
        limits=["dies_missing=:0", "top=:0.5mm", "known_share=0.99:"],
    )  # fmt: skip
    return root / "out"


@pytest.fixture(scope="module")
def stitched_page(stitched: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return reported(tmp_path_factory.mktemp("page"), stitched)


def test_swaths_are_told_stitched(stitched: Path, stitched_page: Page) -> None:
    page = stitched_page
    figures = json.loads((stitched / "stitched/stitch.json").read_text())
    assert figures["overlap_median_um"] == pytest.approx(10, abs=0.5)
    assert f"median difference where they overlap {plainly(words.quantity(figures['overlap_median_um'], 'um', 3))}" in (
        page.text
    )
    assert f"points in the overlaps {figures['overlap_px']}" in page.text.replace(" 000", "000").replace(" 500", "500")
    sites = json.loads((stitched / "stitched/dies.json").read_text())["sites"]
    missing = sum(site["state"] == "missing" for site in sites)
    assert f"dies missing of {len(sites)} sites {missing}" in page.text
    assert "those of overlaps twice" in page.text
    assert "000000_0" in page.text


def test_limits_are_told_with_what_each_makes_of_the_lot(stitched: Path, stitched_page: Page) -> None:
    page = stitched_page
    rows = numbers(stitched)
    bad = sum(row["dies_missing"][0] > 0 for row in rows)
    assert bad > 0
    assert f"dies missing ≤ 0 {2 - bad} 0 {bad}" in page.text
    assert "top ≤ 500 µm 2 0 0" in page.text
    assert "known share ≥ 0.99 2 0 0" in page.text
    assert re.search(r"dies_missing [\d.]+ \([\d.]+ to [\d.]+\) lies outside dies_missing", page.text)


def test_json_and_other_stations_on_one_page(
    tmp_path: Path, single: Path, stitched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(stitched), str(single), "--out", str(tmp_path / "r.html"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == (tmp_path / "r.html").stat().st_size
    assert looked_at(tmp_path / "r.html").text.count("What the numbers mean") == 2
    (tmp_path / "empty").mkdir()
    shutil.copy(single / "runcard.json", tmp_path / "empty")
    with pytest.raises(InputError, match="--store"):
        write_report([tmp_path / "empty"], tmp_path / "e.html")


@pytest.mark.browser
def test_it_is_readable_on_a_desk_and_on_a_phone(tmp_path: Path, run: Path, swath: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium to open the page with")
    path = write_report([run, swath], tmp_path / "report.html")
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width in (1280, 390):
            tab = browser.new_page(viewport={"width": width, "height": 900}, bypass_csp=True)
            asked: list[str] = []
            said: list[str] = []
            tab.on("request", lambda request, asked=asked: asked.append(request.url))
            tab.on("console", lambda message, said=said: said.append(message.text))
            tab.goto(path.as_uri())
            tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
            assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
            assert said == []
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            outside = "one => { const b = one.getBBox(), v = one.ownerSVGElement.viewBox.baseVal; return b.x < -1 || "
            outside += "b.y < -1 || b.x + b.width > v.width + 1 || b.y + b.height > v.height + 1 }"
            cut = tab.evaluate(f"[...document.querySelectorAll('svg text')].filter({outside}).map(t => t.textContent)")
            assert cut == []
        browser.close()
