"""The report: whole in itself, harmless whatever the files are called, and true to the results it is made from."""

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
from make_bundle import hole_image, make_bundle, write_images
from waferlens.cli.main import main
from waferlens.errors import InputError, UsageError
from waferlens.formats.heightmap import write_height_map
from waferlens.inspect import inspect_paths
from waferlens.records import HeightMap
from waferlens.report import words
from waferlens.report.groups import hole_of, site_of
from waferlens.report.page import write_report

HOSTILE = (
    "<script>alert(1)<!--.png",
    '"><img src=x onerror=alert(2)>.png',
    "a&amp;b ' onload='alert(3).png",
    "two\nlines.png",
    "exe\u202egnp.png",
    "{{ 7 * 7 }}.png",
)


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text("utf-8").splitlines()))


def cells(page: Page, *beginning: str) -> str:
    """The text of the page behind some words."""
    found = re.search(r"\s+".join(map(re.escape, beginning)) + r"\s+(.{0,160})", page.text)
    assert found, f"{beginning} stands nowhere"
    return found[1]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle") / "smooth", depth={"nm_per_grey": 1.0})


@pytest.fixture(scope="module")
def run(tmp_path_factory, bundle):
    """A lot with repeated images, sites, images out of domain, and files that are no images."""
    root = tmp_path_factory.mktemp("run")
    lot = root / "lot"
    for site in range(3):
        folder = lot / f"site_{site}"
        folder.mkdir(parents=True)
        for hole in range(6):
            for itr in range(2):
                image = hole_image(100 * site + hole, depth=100.0 + 5 * site + 0.8 * hole, noise=4.0 + itr)
                cv2.imwrite(str(folder / f"h{hole}_itr{itr}.png"), image.round().astype(np.uint8))
    cv2.imwrite(str(lot / "strange.png"), np.clip(hole_image(9) * 0.2, 0, 255).astype(np.uint8))
    for name in HOSTILE[:3]:
        (lot / name).write_text("no image")
    for name in HOSTILE[3:]:
        cv2.imwrite(str(lot / "plain.png"), hole_image(7).round().astype(np.uint8))
        (lot / "plain.png").rename(lot / name)
    result = inspect_paths([lot], bundle, root / "out", limits=["depth=104:111nm"], pixel_nm=2.0)
    assert min(result.verdicts.values()) > 0
    return root / "out"


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    return looked_at(write_report([run], tmp_path_factory.mktemp("page") / "report.html"))


def test_it_tells_the_lot(run, page):
    card = json.loads((run / "runcard.json").read_text())
    verdicts = card["results"]["verdicts"]
    for verdict in ("OK", "review", "NG"):
        share = plainly(words.percent(verdicts[verdict] / 43))
        assert cells(page, f"{verdict}", f"{verdicts[verdict]}").startswith(share)
    assert cells(page, "quarantined", "3").startswith("6.98 %")
    assert "inspection of 43 images" in page.text
    assert cells(page, "bundle", "smooth").startswith(card["data"]["fingerprint"][:16])
    assert card["data"]["fingerprint"] in page.text
    assert card["data"]["images_sha256"] in page.text
    assert "ISO 14253-1" in page.text
    assert "2 nm" in cells(page, "pixel size")
    assert "images per second" in page.text


def test_limits_are_told_with_what_each_makes_of_the_lot(run, page):
    rows = table(run / "results.csv")
    told = [(float(row["depth_nm_low"]), float(row["depth_nm_high"])) for row in rows]
    inside = sum(low >= 104 and high <= 111 for low, high in told)
    outside = sum(high < 104 or low > 111 for low, high in told)
    expected = f"{inside} {len(told) - inside - outside} {outside}"
    assert cells(page, "depth", "104 to 111 nm").startswith(expected)


def test_the_table_of_measurands_is_that_of_the_results(run, page):
    for name, column, unit in (("depth", "depth_nm", "nm"), ("CD₅₀ area-equivalent", "cd50_area_nm", "nm")):
        values = np.array([float(row[column]) for row in table(run / "results.csv") if row[column]])
        half = np.mean([(float(row[f"{column}_high"]) - float(row[f"{column}_low"])) / 2
                        for row in table(run / "results.csv") if row[column]])  # fmt: skip
        told = cells(page, name, unit, str(len(values))).split()
        mean, sd, low, median, high, typical = (float(word) for word in told[:6])
        step = 10.0 ** -words.decimals_for(half)
        bin_width = 1.2 * np.ptp(values) / 512
        assert mean == pytest.approx(values.mean(), abs=step)
        assert sd == pytest.approx(values.std(ddof=1), abs=step)
        assert typical == pytest.approx(half, abs=step)
        # of a few dozen values a quantile lies between two of them: any place there is one
        ordered = np.sort(values)
        for share, quantile in ((0.01, low), (0.5, median), (0.99, high)):
            at = share * (len(ordered) - 1)
            between = ordered[max(0, int(at) - 1)], ordered[min(len(ordered) - 1, int(at) + 2)]
            assert between[0] - bin_width - step <= quantile <= between[1] + bin_width + step


def test_repeatability_and_sites_are_those_of_the_names(run, page):
    rows = table(run / "results.csv")
    groups: dict[str, list[float]] = {}
    sites: dict[str, list[float]] = {}
    for row in rows:
        if "site_" in row["path"]:
            groups.setdefault(row["path"].rpartition("_itr")[0], []).append(float(row["depth_nm"]))
            sites.setdefault(row["path"].split("/")[-2], []).append(float(row["depth_nm"]))
    assert {len(group) for group in groups.values()} == {2}
    # of pairs, the variance within is half the mean squared difference
    sd = np.sqrt(np.mean([(a - b) ** 2 for a, b in groups.values()]) / 2)
    told = cells(page, "holes images depth nm").replace("to", "").replace("%", "").split()
    three_sigma, low, high, ratio, holes, images = (float(word) for word in told[:6])
    assert three_sigma == pytest.approx(3 * sd, rel=0.02)
    assert low < three_sigma < high
    assert ratio == pytest.approx(100 * 6 * sd / 7, rel=0.03)
    assert (holes, images) == (18, 36)
    within = np.sqrt(np.mean([np.var(site, ddof=1) for site in sites.values()]) - sd**2)
    count, number, mean, between, uniformity = map(float, cells(page, "within a site depth nm").split()[:5])
    assert (count, number) == (3, 36)
    assert mean == pytest.approx(np.mean([np.mean(site) for site in sites.values()]), abs=0.05)
    assert between == pytest.approx(3 * np.std([np.mean(site) for site in sites.values()], ddof=1), abs=0.05)
    assert uniformity == pytest.approx(3 * within, abs=0.05)
    assert "own spread taken out" in page.text


def test_quarantine_has_every_file_with_its_reason(run, page):
    assert "3 of 43 images could not be measured at all" in page.text
    for row in table(run / "quarantine.csv"):
        assert plainly(words.plain(row["reason"])) in page.text


def test_names_made_to_do_harm_are_only_words(run, page):
    assert "<script>alert(1)<!--.png" in page.text
    assert '"><img src=x onerror=alert(2)>.png' in page.text
    assert "a&amp;b ' onload='alert(3).png" in page.text
    assert "49.png" not in page.text
    assert "\u202e" not in page.text


def test_pictures_are_as_large_as_what_they_show(page):
    shown = [value for tag, name, value in page.attributes if tag == "img" and name == "src"]
    assert len(shown) >= 3 * 8
    assert {picture(address).shape for address in shown} == {(72, 48, 3)}
    alternatives = [value for tag, name, value in page.attributes if tag == "img" and name == "alt"]
    assert len(alternatives) == len(shown)
    assert all(alternatives)


def test_the_page_does_not_grow_with_the_lot(run, tmp_path):
    once = write_report([run], tmp_path / "once.html").stat().st_size
    large = tmp_path / "large"
    shutil.copytree(run, large)
    times, images = 40, 43
    with sqlite3.connect(large / "results.sqlite") as connection:
        for name in ("images", "measurements"):
            columns = [row[1] for row in connection.execute(f"pragma table_info({name})")]
            place = columns.index("item")
            rows = connection.execute(f"select * from {name}").fetchall()
            for turn in range(1, times):
                moved = [(*row[:place], row[place] + turn * images, *row[place + 1 :]) for row in rows]
                marks = ",".join("?" * len(columns))
                connection.executemany(f"insert into {name} values ({marks})", moved)
    connection.close()
    card = json.loads((large / "runcard.json").read_text())
    card["data"]["images"] = times * images
    (large / "runcard.json").write_text(json.dumps(card))
    many = write_report([large], tmp_path / "many.html")
    assert many.stat().st_size < 1.15 * once + 20_000
    page = looked_at(many)
    assert f"{3 * times} of 1 720 images could not be measured" in page.text
    assert f"The first 40 of {3 * times}" in page.text


def test_what_is_absent_is_said(bundle, tmp_path):
    write_images(tmp_path / "lot", 3)
    inspect_paths([tmp_path / "lot"], bundle, tmp_path / "out", maps=False)
    (tmp_path / "lot" / "hole_00001.png").unlink()
    page = looked_at(write_report([tmp_path / "out"], tmp_path / "r.html", "Three <holes>"))
    assert "Three <holes>" in page.text
    assert "This run was given no limits, so nothing was judged." in page.text
    assert "where the files say it; else lengths are in px" in page.text
    assert "No repeated images" in page.text
    assert "No sites" in page.text
    assert "no map was written" in page.text
    assert "the image is no longer there" in page.text
    assert "Empty: every file was a whole image" in page.text


def test_a_lot_of_nothing_but_quarantine_has_a_page(bundle, tmp_path):
    (tmp_path / "bad.png").write_text("no")
    inspect_paths([tmp_path / "bad.png"], bundle, tmp_path / "out")
    page = looked_at(write_report([tmp_path / "out"], tmp_path / "r.html"))
    assert "1 of 1 images could not be measured at all" in page.text


def test_an_unfinished_run_is_called_so(run, tmp_path):
    part = tmp_path / "part"
    shutil.copytree(run, part)
    with sqlite3.connect(part / "results.sqlite") as connection:
        connection.execute("delete from measurements where item >= 20")
        connection.execute("delete from images where item >= 20")
    connection.close()
    page = looked_at(write_report([part], tmp_path / "r.html"))
    assert "This run is not finished: 20 of 43 images are stored" in page.text


def test_results_in_another_database_are_read_with_its_url(bundle, tmp_path):
    write_images(tmp_path / "lot", 2)
    url = f"sqlite:///{tmp_path / 'elsewhere.sqlite'}"
    inspect_paths([tmp_path / "lot"], bundle, tmp_path / "out", store=url)
    with pytest.raises(InputError, match="--store"):
        write_report([tmp_path / "out"], tmp_path / "r.html")
    page = looked_at(write_report([tmp_path / "out"], tmp_path / "r.html", store=url))
    assert "inspection of 2 images" in page.text


def evaluation(folder: Path) -> Path:
    folder.mkdir()
    bins = [{"depth": 110.0 + 10 * i, "images": 25, "bias": 0.1, "coverage": 0.88 + 0.01 * i} for i in range(5)]
    depth = {"unit": "nm", "measured": 128, "bias_nm": -0.25, "rmse_nm": 2.5, "slope": 0.979, "coverage_90": 0.898,
             "interval_score": 12.3, "interval_score_constant_width": 11.6, "repeatability_3s_nm": 2.4,
             "by_depth_bin": bins}  # fmt: skip
    told = {"bundle": "smooth", "data": "<lot>", "split": "all", "images": 128, "structures": 16, "out_of_domain": 0.01,
            "rmse_255": 3.245, "rmse_255_95": [3.043, 3.42], "contour_error_px": 0.15, "coverage_90": 0.9226,
            "coverage_95": 0.9631, "depth": depth, "baselines": {"mean map": 12.87},
            "sites": {"sites": 4, "bias_nm": -1.5, "rmse_nm": 2.0, "slope": None, "out_of_domain": 1.0,
                      "within_bucket": {"110": {"bias_nm": -1.0, "rmse_nm": 1.0, "slope": None}}}}  # fmt: skip
    (folder / "evaluation.json").write_text(json.dumps(told))
    cv2.imwrite(str(folder / "worst.png"), np.full((50, 1500, 3), 200, np.uint8))
    return folder


def test_figures_of_an_evaluation(tmp_path, capsys):
    folder = evaluation(tmp_path / "evaluated")
    for arguments in ([str(folder)], [str(folder), "--evaluation", str(folder)]):
        assert main(["report", *arguments, "--out", str(tmp_path / "r.html"), "--json"]) == 0
    printed = capsys.readouterr().out
    told = json.loads(printed[printed.rindex("{") :])
    assert told["bytes"] == (tmp_path / "r.html").stat().st_size
    page = looked_at(tmp_path / "r.html")
    assert page.text.count("smooth on <lot>") == 2
    assert cells(page, "RMSE of the depth map").startswith("3.245 grey 3.043 to 3.420")
    assert cells(page, "pixels inside their 90").startswith("% interval 92.26 %")
    assert cells(page, "depth", "nm", "128").startswith("-0.2 2.5 0.979 89.8 % 12.3 11.6")
    assert cells(page, "mean map").startswith("12.87")
    assert cells(page, "4 sites").startswith("-1.50 nm 2.00 nm –")
    assert max(picture(address).shape[1] for address in page.values("src")) == 1400


def surface(path: Path) -> Path:
    x = np.mgrid[:40, :60][1]
    heights = 0.05 * np.sin(2 * np.pi * x / 10) + 0.002 * x  # [um]
    valid = np.ones(x.shape, bool)
    valid[5:9, 5:9] = False
    write_height_map(path, HeightMap(np.where(valid, heights, np.nan), valid, "um", 0.5, 0.5, "um"))
    return path


def test_a_surface_is_measured_and_drawn(tmp_path):
    page = looked_at(write_report([surface(tmp_path / "wavy.gwy")], tmp_path / "r.html"))
    assert "30 × 20" in page.text
    # the wave has Sq = amplitude / sqrt(2); the few points that are missing take a little
    assert float(cells(page, "Sq").split()[0]) == pytest.approx(50 / np.sqrt(2), rel=0.01)
    assert cells(page, "valid fraction").startswith("99.33 %")
    assert "levelled by the least-squares plane" in page.text
    frames = [value for tag, name, value in page.attributes if tag == "image" and name == "href"]
    assert [picture(address).shape for address in frames] == [(40, 60, 3)]


def test_measurements_that_were_printed_are_shown_with_their_figure(tmp_path, capsys):
    path = surface(tmp_path / "wavy.gwy")
    assert main(["measure", str(path), "--json", "--form", "polynomial-2", "--figures", str(tmp_path)]) == 0
    (tmp_path / "m.json").write_text(capsys.readouterr().out)
    page = looked_at(write_report([tmp_path / "m.json"], tmp_path / "r.html"))
    assert "second-order polynomial taken off" in page.text
    assert len(page.values("src")) == 1


def test_what_is_no_source_is_refused_by_name(tmp_path, run, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "other.json").write_text('{"a": 1}')
    (tmp_path / "notes.txt").write_text("hello")
    for source, said in (
        ("nowhere", "no such file or folder"),
        ("empty", "holds nothing to report on"),
        ("other.json", "is not what `waferlens measure --json` prints"),
        ("notes.txt", "notes.txt"),
    ):
        assert main(["report", str(tmp_path / source), "--out", str(tmp_path / "r.html")]) == 1
        assert said in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()
    assert main(["report"]) == 2
    with pytest.raises(UsageError, match="is a folder"):
        write_report([run], empty)
    (empty / "runcard.json").write_text("{")
    with pytest.raises(InputError, match="is no run card"):
        write_report([empty], tmp_path / "r.html")


def test_a_database_that_is_none_is_refused(run, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / "results.sqlite").write_bytes(b"not a database at all, but long enough to look at" * 40)
    with pytest.raises(InputError, match="is it a database of results"):
        write_report([broken], tmp_path / "r.html")


def test_holes_and_sites_are_known_by_their_names():
    assert hole_of("a/b/h_itr0.png") == hole_of("a/b/h_itr12.tif") == "a/b/h"
    assert hole_of("a/b/h_rep3.png") == "a/b/h"
    assert hole_of("a/b/h.png") is None
    assert site_of("a/site_1/h.png") == "a/site_1"
    assert site_of("Site 3/h.png") == "Site 3"
    assert site_of("a/site.png") is None


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (words.told(123.456, 122.216, 124.696, "nm"), "123.5 ± 1.2 nm"),
        (words.told(87.0, 86.0, 87.4, "deg"), "87.0 (86.0 to 87.4)°"),
        (words.told(None, None, None, "nm"), "not measured"),
        (words.told(1.5, None, None, "um"), "1.500 µm"),
        (words.exact(135.0), "135"),
        (words.exact(-0.5), "-0.5"),
        (words.exact(1234567.0), "1 234 567"),
        (words.number(0.000012345), "1.234·10⁻⁵"),
        (words.fixed(-0.0001, 2), "0.00"),
        (words.percent(0.0184), "1.84 %"),
        (words.plain("a\tb\u2028c"), "a\\u0009b\\u2028c"),
        (words.name("cd90_y"), "CD₉₀ along y"),
        (words.unit("grey px2"), "grey px²"),
    ],
)
def test_how_numbers_are_said(told, expected):
    assert plainly(told) == expected


@pytest.mark.browser
def test_it_is_readable_on_a_desk_and_on_a_phone(run, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium to open the page with")
    path = write_report([run, evaluation(tmp_path / "e"), surface(tmp_path / "s.gwy")], tmp_path / "report.html")
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
