"""The report of packages: true to the results, whole whatever is missing, bounded whatever the lot is."""

from __future__ import annotations

import csv
import re
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from html_page import Page, looked_at, picture, plainly
from make_package_bundle import make_package_bundle
from waferlens.inspect import inspect_paths
from waferlens.records import Place
from waferlens.report import package, package_charts, words
from waferlens.report.page import write_report
from waferlens.simulate.package.dataset import package_world, write_devices

DEVICES = 6
HOSTILE = "<script>alert(1)<!--.png"
LIMIT_DEG = 0.5


@pytest.fixture(scope="module")
def lot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six devices in three lights; of one its own light is missing, one image has a hostile name, one is no image."""
    root = tmp_path_factory.mktemp("lot")
    write_devices(root / "set", package_world("sim"), DEVICES, 3)
    images = root / "set" / "images"
    shutil.copy(images / "000001-bf.png", images / HOSTILE)
    (images / "000002-bf.png").unlink()
    (images / "000003-dfb.png").write_bytes(b"nothing")
    return images


@pytest.fixture(scope="module")
def run(lot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    bundle = make_package_bundle(root / "bundle", crack=0.1)
    inspect_paths([lot], bundle, root / "run", pitch_um=2.0)
    return root / "run"


@pytest.fixture(scope="module")
def cracked(lot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cracked")
    inspect_paths(sorted(lot.glob("00000[0134]-bf.png")), make_package_bundle(root / "bundle"), root / "run")
    return root / "run"


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    path = write_report([run], run / "report.html")
    looked_at(path)
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def section(html: str, name: str) -> str:
    found = re.search(rf'<section id="{name}-1">(.*?)</section>', html, re.DOTALL)
    assert found is not None
    return found[1]


def numbers(mark: str, *names: str) -> tuple[float, ...]:
    return tuple(float(re.search(rf'\b{name}="([^"]*)"', mark)[1]) for name in names)  # type: ignore[index]


def test_devices_are_counted_and_listed_the_worst_first(run: Path, html: str) -> None:
    rows = {row["device"]: row for row in table(run / "devices.csv")}
    counts = Counter(row["verdict"] for row in rows.values())
    assert len(rows) == DEVICES + 1
    assert set(counts) == {"OK", "review", "NG"}
    told = Page(section(html, "summary")).text
    assert f"devices {DEVICES + 1} " in told
    for verdict, count in counts.items():
        assert re.search(rf"\b{verdict} {count} ", told), verdict
    lines = re.findall(r"<tr><td class=\"mono\">(.*?)</td>(.*?)</tr>", section(html, "devices"), re.DOTALL)
    assert len(lines) == len(rows)
    verdicts = [re.search(r'class="tag \w+">(\w+)<', line)[1] for _, line in lines]  # type: ignore[index]
    assert verdicts == sorted(verdicts, key=["NG", "review", "OK"].index)
    for name, line in lines:
        row = rows[name.replace("&lt;", "<").replace("&gt;", ">")]
        cells = Page(f"<table><tr>{line}</tr></table>").text
        assert row["verdict"] in cells
        if row["die_angle_deg"]:
            value, low, high = (float(row[f"die_angle_deg{end}"]) for end in ("", "_low", "_high"))
            assert plainly(words.told(value, low, high, "deg")) in cells
        assert plainly(row["verdict_reason"]) in cells


def test_lights_are_counted_as_they_were_sorted(run: Path, html: str) -> None:
    sorted_to = Counter(row["light"] for row in table(run / "results.csv"))
    told = Page(section(html, "summary")).text
    for light, name in (("bf", "brightfield"), ("dfw", "darkfield white"), ("dfb", "darkfield blue")):
        assert f"{name} {sorted_to[light]} {'judged' if light == 'bf' else 'not judged'}" in told
    assert "could not be read 1 not judged" in told
    assert "cannot be read: not an image" in Page(section(html, "devices")).text


def test_angles_stand_where_they_were_measured(run: Path, html: str) -> None:
    chart = section(html, "angles").split("<svg")[1].split("</svg>")[0]
    rows = [row for row in table(run / "devices.csv") if row["die_angle_deg"]]
    angles = sorted(tuple(float(row[f"die_angle_deg{end}"]) for end in ("", "_low", "_high")) for row in rows)
    dots = [numbers(mark, "cx", "cy") for mark in re.findall(r"<circle [^>]*/>", chart)]
    assert len(dots) == len(angles)
    assert [x for x, _ in dots] == sorted(x for x, _ in dots)
    # the scale by its two limits: y falls by the same for each degree
    upper, lower = sorted(numbers(mark, "y1")[0] for mark in re.findall(r'<line [^>]*class="limit"/>', chart))
    per_degree = (lower - upper) / (2 * LIMIT_DEG)
    middle = (lower + upper) / 2
    spans = [
        numbers(mark, "y1", "y2")
        for mark in re.findall(r'<line [^>]*class="whisker \w+"/>', chart)
        if numbers(mark, "x1")[0] == numbers(mark, "x2")[0]
    ]
    for (_, y), (foot, head), (value, low, high) in zip(dots, spans, angles, strict=True):
        assert (middle - y) / per_degree == pytest.approx(value, abs=0.01)
        assert (middle - foot) / per_degree == pytest.approx(low, abs=0.01)
        assert (middle - head) / per_degree == pytest.approx(high, abs=0.01)
    beyond = sum(low > LIMIT_DEG or high < -LIMIT_DEG for _, low, high in angles)
    assert (
        f"{beyond} {'device lies' if beyond == 1 else 'devices lie'} wholly beyond 0.5°"
        in Page(section(html, "angles")).text
    )


def test_findings_lie_on_the_outline_to_scale() -> None:
    # of 1000 x 2000 um: a crack of 100 x 200 um in the middle of the lower left quarter, and a die over the upper half
    found = [
        ("crack", True, Place(250.0, 500.0, 100.0, 200.0, "um")),
        ("rotate", True, Place(500.0, 1500.0, 800.0, 900.0, "um")),
    ]
    chart = str(package_charts.places((1000.0, 2000.0), "um", found))
    left, top, width, height = numbers(re.search(r'<rect [^>]*class="empty"/>', chart)[0], "x", "y", "width", "height")  # type: ignore[index]
    assert height == pytest.approx(2 * width)
    for kind, share in (("spot found", (0.2, 0.7, 0.1, 0.1)), ("spot rotated", (0.1, 0.025, 0.8, 0.45))):
        x, y, w, h = numbers(re.search(rf'<rect [^>]*class="{kind}"/>', chart)[0], "x", "y", "width", "height")  # type: ignore[index]
        got = ((x - left) / width, (y - top) / height, w / width, h / height)
        assert got == pytest.approx(share, abs=1e-3), kind


def test_what_is_ng_or_review_is_shown(run: Path, html: str, page: Page, cracked: Path, tmp_path: Path) -> None:
    doubtful = [row for row in table(run / "devices.csv") if row["verdict"] != "OK"]
    shown = [value for tag, name, value in Page(section(html, "looked")).attributes if tag == "img" and name == "src"]
    assert len(shown) == len(doubtful)
    assert all(picture(one).shape[0] > 300 for one in shown)
    assert "the run drew nothing on it" not in page.text, "a device without its own light has its angle drawn"
    assert "not judged but for the angle" in page.text
    told = looked_at(write_report([cracked], tmp_path / "r.html"))
    found = table(cracked / "findings.csv")
    pictures = [value for tag, name, value in told.attributes if tag == "img" and name == "src"]
    cracks = [row for row in found if row["kind"] == "crack"]
    assert len(pictures) == len(cracks) + len({row["path"] for row in cracks}), "a close view of each crack"
    for row in cracks:
        middle = f"x {words.fixed(float(row['x_px']), 0)}, y {words.fixed(float(row['y_px']), 0)};"
        assert plainly(middle) in told.text
    longest = [max(float(row["width_px"]), float(row["height_px"])) for row in cracks]
    assert plainly(f"median {words.quantity(float(np.median(longest)), 'px', 3)}") in told.text


def test_a_report_needs_neither_images_nor_overlays(lot: Path, cracked: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(cracked, copy)
    shutil.rmtree(copy / "overlays")
    (copy / "overlays").mkdir()
    page = looked_at(write_report([copy], tmp_path / "images.html"))
    assert "the run drew nothing on it" in page.text
    hidden = lot.with_name("hidden")
    lot.rename(hidden)
    try:
        page = looked_at(write_report([copy], tmp_path / "nothing.html"))
    finally:
        hidden.rename(lot)
    assert "neither the image nor what the run drew of it is there any longer" in page.text
    assert not page.values("src")


def test_a_hostile_name_is_only_text(html: str, page: Page) -> None:
    assert "<script>" not in html
    assert "<script>alert(1)<!--" in page.text


def test_an_unfinished_run_and_a_dark_lot(lot: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done >= 2:
            raise KeyboardInterrupt

    bundle = make_package_bundle(tmp_path / "bundle", crack=0.1)
    with pytest.raises(KeyboardInterrupt):
        inspect_paths([lot], bundle, tmp_path / "run", chunk=2, progress=stop)
    text = looked_at(write_report([tmp_path / "run"], tmp_path / "a.html")).text
    assert "This run is not finished: 2 of 18 images are stored" in text
    dark = sorted(lot.glob("00000[01]-dfw.png"))
    inspect_paths(dark, bundle, tmp_path / "dark")
    text = looked_at(write_report([tmp_path / "dark"], tmp_path / "b.html")).text
    assert "brightfield 0 judged" in text
    assert "not judged but for the angle" in text
    assert "No angle was measured" not in text, "it needs no network"
    board = np.full((1295, 785, 3), (60, 110, 50), np.uint8)
    cv2.imwrite(str(tmp_path / "board.png"), board)
    inspect_paths([tmp_path / "board.png"], bundle, tmp_path / "none")
    text = looked_at(write_report([tmp_path / "none"], tmp_path / "c.html")).text
    assert "No package was found on any image." in text
    assert "No angle was measured" in text


def test_of_many_angles_some_are_drawn_by_their_rank() -> None:
    rng = np.random.default_rng(7)
    values = rng.normal(0, 0.4, 3 * package.STRIPS)
    values[:2] = -7.0, 5.0
    angles = [(float(value), float(value) - 0.1, float(value) + 0.1) for value in values]
    ends = package_charts.reach(angles, LIMIT_DEG)
    assert ends == (-2.0, 2.0), "four times the limit"
    chart = str(package._angles(angles, LIMIT_DEG, ends))
    heights = [numbers(mark, "cy")[0] for mark in re.findall(r"<circle [^>]*/>", chart)]
    assert len(heights) == package.STRIPS
    assert heights == sorted(heights, reverse=True)
    assert (heights[0], heights[-1]) == (348.0, 12.0), "the least and the greatest stand at the edges"
    assert package_charts.reach([(0.1, 0.0, 0.2)], LIMIT_DEG) == (-0.8, 0.8)
    assert package_charts.reach([(3.0, 2.9, 4.0)], None) == (-4.2, 4.2)
    assert package_charts.reach([], None) == (-1.0, 1.0)
