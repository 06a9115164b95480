"""Devices of the package station: images brought together, places on the package, files for the line."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from make_package_bundle import BOXES, HEIGHT_PX, WIDTH_PX, make_package_bundle
from waferlens.bundle.package_calibration import PackageCalibration, ScoreLimits
from waferlens.cli.main import main
from waferlens.errors import UsageError
from waferlens.formats.e142 import read_e142, write_e142
from waferlens.formats.klarf import read_klarf, write_klarf
from waferlens.formats.klarf_record import wafer_um
from waferlens.formats.package_set import Device as TrueDevice
from waferlens.formats.package_set import read_device
from waferlens.inspect import inspect_paths
from waferlens.inspect.package import place_on
from waferlens.inspect.package_devices import Device, Grouping, devices_of
from waferlens.inspect.package_files import LineFiles, cells_of, klarf_of, strip_of
from waferlens.records import Finding, Place
from waferlens.simulate.package.dataset import package_world, write_devices
from waferlens.store.rows import OK, QUARANTINED, ImageResult

DEVICES = 4
PITCH_UM = 2.0


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages") / "set"
    write_devices(folder, package_world("sim"), DEVICES, 3)
    return folder


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    make_package_bundle(folder / "cracks")
    make_package_bundle(folder / "nothing", crack=0.1)
    return folder


@pytest.fixture(scope="module")
def cracked(packages: Path, bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a known crack on every device, on a strip of two rows."""
    out = tmp_path_factory.mktemp("run") / "lot-7"
    words = ["--klarf", str(out / "lot.klarf"), "--e142", str(out / "strip.xml"), "--strip", "2x2"]
    assert inspected([packages / "images"], bundles / "cracks", out, "--pitch-um", str(PITCH_UM), *words) == 0
    return out


def inspected(images: Sequence[Path], bundle: Path, out: Path, *words: str) -> int:
    return main(["inspect", *map(str, images), "--bundle", str(bundle), "--out", str(out), *words])


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def result(path: str, light: str, verdict: str = "OK", **more: Any) -> ImageResult:
    """One image as it is stored; `angle` is its value and the half of its interval."""
    numbers: list[Any] = [("findings", 0.0, "1", None, None)] if more.get("inspected", True) else []
    if "angle" in more:
        value, half = more["angle"]
        numbers.append(("die_angle", value, "deg", value - half, value + half))
    numbers += [("package_width", 1000.0, "um", None, None), ("package_height", 2000.0, "um", None, None)]
    return ImageResult(
        0, path, 0, more.get("status", OK), more.get("why", ""), verdict, more.get("reason", ""),
        measurements=numbers, findings=list(more.get("found", ())), facts={"light": light} if light else {},
    )  # fmt: skip


def finding(place: Place, kind: str = "crack", score: float = 0.9) -> Finding:
    return Finding(kind, (0.0, 0.0, 1.0, 1.0), score, 1.0, 0.0, "dark", True, "", place)


def one_device(*images: ImageResult, known: Sequence[str] = ("bf",), lights: str | None = None) -> Device:
    (device,) = devices_of(images, Grouping.of(known, None, lights))
    return device


# places


def test_places_on_an_upright_package_by_hand() -> None:
    package = np.array([[99.5, 199.5], [199.5, 199.5], [199.5, 399.5], [99.5, 399.5]])  # 100 x 200 px
    found = np.array([[119.5, 349.5], [129.5, 349.5], [129.5, 369.5], [119.5, 369.5]])
    # 20 to 30 px right of the left border, 30 to 50 px above the lower one
    assert place_on(found, package, 2.0) == Place(50.0, 80.0, 20.0, 40.0, "um")
    assert place_on(found, package, None) == Place(25.0, 40.0, 10.0, 20.0, "px")


def test_places_on_a_turned_package_by_hand() -> None:
    # a package of 100 x 200 px whose lower side rises by 3 px for every 4 to the right, its lower left corner at
    # (7, 5): a pixel to the right on it is (0.8, -0.6) in the image, a pixel up (-0.6, -0.8)
    def at(x: float, y: float) -> tuple[float, float]:
        return 7 + 0.8 * x - 0.6 * y, 5 - 0.6 * x - 0.8 * y

    package = np.array([at(0, 200), at(100, 200), at(100, 0), at(0, 0)])
    assert package[0].tolist() == pytest.approx([-113.0, -155.0])
    found = np.array([at(20, 50), at(30, 50), at(30, 30), at(20, 30)])
    place = place_on(found, package, 2.0)
    assert (place.x, place.y, place.width, place.height) == pytest.approx((50.0, 80.0, 20.0, 40.0))
    # upside down, what was at the lower left lies at the upper right
    over = place_on(found, np.roll(package, 2, axis=0), 2.0)
    assert (over.x, over.y) == pytest.approx((200.0 - 50.0, 400.0 - 80.0))


def expected(device: TrueDevice) -> Place:
    """Where the network's crack lies on a package, from its true corners and the size of the network's input."""
    upper_left, upper_right, lower_right, _ = device.ic_quad
    w, h = np.hypot(*(upper_right - upper_left)), np.hypot(*(lower_right - upper_right))
    scale = min(WIDTH_PX / w, HEIGHT_PX / h)
    left, below = (WIDTH_PX - scale * w) / 2, (HEIGHT_PX + scale * h) / 2
    x0, y0, x1, y1 = BOXES[0]
    um = PITCH_UM / scale
    return Place(um * ((x0 + x1) / 2 + 0.5 - left), um * (below - (y0 + y1) / 2 - 0.5),
                 um * (x1 - x0), um * (y1 - y0), "um")  # fmt: skip


def test_a_crack_is_told_in_um_on_its_package(packages: Path, cracked: Path) -> None:
    cracks = [row for row in table(cracked / "findings.csv") if row["kind"] == "crack"]
    assert len(cracks) == DEVICES
    for row in cracks:
        true = expected(read_device(packages, int(Path(row["path"]).stem[:6])))
        for name, tolerance in (("x", 8.0), ("y", 12.0), ("width", 1.2), ("height", 1.2)):
            assert float(row[f"{name}_um"]) == pytest.approx(getattr(true, name), abs=tolerance), (row["path"], name)


def test_turning_the_image_moves_nothing_on_the_package(
    packages: Path, bundles: Path, cracked: Path, tmp_path: Path
) -> None:
    image = cv2.imread(str(packages / "images" / "000001-bf.png"))
    for quarter in (1, 2):
        cv2.imwrite(str(tmp_path / f"turned{quarter}.png"), np.rot90(image, quarter))
    paths = sorted(tmp_path.glob("*.png"))
    assert inspected(paths, bundles / "cracks", tmp_path / "run", "--pitch-um", str(PITCH_UM)) == 0
    (before,) = [row for row in table(cracked / "findings.csv") if row["path"].endswith("000001-bf.png")]
    after = table(tmp_path / "run" / "findings.csv")
    assert len(after) == 2
    for row in after:
        for name in ("x_um", "y_um", "width_um", "height_um"):
            assert float(row[name]) == pytest.approx(float(before[name]), abs=1.5), name
    angles = {Path(row["path"]).stem: float(row["package_angle_deg"]) for row in table(tmp_path / "run/results.csv")}
    assert (angles["turned2"] - angles["turned1"]) % 360 == pytest.approx(90, abs=0.1)
    sizes = {(row["width_px"], row["height_px"]) for row in table(tmp_path / "run/results.csv")}
    assert len(sizes) == 2, "one lies on its side"


def test_calibrated_scores_tell_review_from_ng(packages: Path, tmp_path: Path) -> None:
    image = packages / "images/000001-bf.png"
    for review, ng, verdict, found in (
        (0.5, 0.85, "NG", ["true"]),
        (0.85, 0.95, "review", ["false"]),
        (0.95, 0.99, "OK", []),
    ):
        limits = PackageCalibration({"crack": ScoreLimits(ng, review)})
        bundle = make_package_bundle(tmp_path / f"bundle-{verdict}", crack=0.9, turned=None, calibration=limits)
        inspect_paths([image], bundle, tmp_path / verdict)
        (row,) = table(tmp_path / verdict / "devices.csv")
        assert row["verdict"] == verdict
        assert [one["critical"] for one in table(tmp_path / verdict / "findings.csv")] == found
        if verdict == "review":
            assert row["verdict_reason"].startswith("bf: crack 0.90 at (")


def test_without_a_pitch_places_are_in_px(packages: Path, bundles: Path, cracked: Path, tmp_path: Path) -> None:
    assert inspected([packages / "images/000001-bf.png"], bundles / "cracks", tmp_path / "run") == 0
    (px,) = table(tmp_path / "run" / "findings.csv")
    (um,) = [row for row in table(cracked / "findings.csv") if row["path"].endswith("000001-bf.png")]
    for name in ("x", "y", "width", "height"):
        assert float(um[f"{name}_um"]) == pytest.approx(PITCH_UM * float(px[f"{name}_px"]), rel=1e-6)
    assert "x_um" not in px


# devices


def test_a_device_is_as_bad_as_the_worst_of_its_own_images() -> None:
    good, other = result("a-bf.png", "bf"), result("a-dfw.png", "dfw", "review", reason="the bundle knows bf")
    assert one_device(good).verdict == "OK"
    assert one_device(good, other).verdict == "OK", "a light the bundle does not know makes no device doubtful"
    assert one_device(other).verdict == "review"
    assert one_device(other).reason == "no image in bf, only in dfw"
    bad = result("a-bf.png", "bf", "NG", reason="crack 0.90")
    assert (one_device(bad, other).verdict, one_device(bad, other).reason) == ("NG", "bf: crack 0.90")
    doubtful = result("a-bf.png", "bf", "review", reason="two chips")
    assert (one_device(doubtful).verdict, one_device(doubtful).reason) == ("review", "bf: two chips")


def test_lights_that_are_asked_for_have_to_be_there_once() -> None:
    bf, dfw = result("a-bf.png", "bf"), result("a-dfw.png", "dfw")
    both = ("bf", "dfw")
    assert one_device(bf, dfw, known=both).verdict == "OK"
    missing = one_device(bf, known=both)
    assert (missing.verdict, missing.reason) == ("review", "no image in dfw, only in bf")
    assert one_device(bf, known=both, lights="bf").verdict == "OK"
    bad = result("a-dfw.png", "dfw", "NG", reason="crack 0.40")
    assert one_device(bf, bad, known=both, lights="bf").verdict == "NG", "a light that is known and not asked for"
    twice = one_device(bf, result("a-dfw.png", "bf"))
    assert (twice.verdict, twice.reason) == ("review", "2 images in bf: a-bf.png, a-dfw.png")
    unclear = one_device(bf, result("a-dfb.png", "unclear", "review", reason="near the limit of lights"))
    assert (unclear.verdict, unclear.reason) == ("review", "a-dfb.png: near the limit of lights")
    broken = one_device(bf, result("a-dfb.png", "", "", status=QUARANTINED, why="is truncated"))
    assert (broken.verdict, broken.reason) == ("review", "a-dfb.png: cannot be read: is truncated")


def test_the_picture_of_a_device_is_that_of_the_narrowest_interval() -> None:
    bf, dfw, dfb = (
        result(f"a-{light}.png", light, angle=(value, half))
        for light, value, half in (("bf", 0.10, 0.05), ("dfw", 0.20, 0.03), ("dfb", 0.30, 0.01))
    )
    best = one_device(bf, dfw, dfb, known=("bf", "dfw")).best
    assert best is not None
    assert (best.light, best.angle) == ("dfb", pytest.approx((0.3, 0.29, 0.31))), "the angle needs no network"
    again = one_device(result("a-dfw.png", "dfw", angle=(0.2, 0.125)), result("a-bf.png", "bf", angle=(0.1, 0.125)),
                       known=("bf", "dfw")).best  # fmt: skip
    assert again is not None
    assert again.light == "bf", "of two alike, brightfield"
    assert one_device(result("a-bf.png", "bf")).best is None


def test_the_angle_of_a_device_is_that_of_all_its_images() -> None:
    def device(*told: tuple[str, float, float, str], known: Sequence[str] = ("dfw",), **more: Any) -> Device:
        """Images by light, angle, half of its interval, verdict; at a limit of 0.5 deg."""
        images = []
        for light, angle, half, verdict in told:
            found = [turned] if verdict == "NG" else []
            images.append(
                result(f"a-{light}.png", light, verdict, angle=(angle, half), inspected=light in known, found=found)
            )
        (made,) = devices_of([*images, *more.get("others", ())], Grouping.of(known, None, None, 0.5))
        return made

    turned = finding(Place(100, 200, 20, 40, "um"), "rotate", 1.0)
    # weights 1 / 0.05^2 and 1 / 0.1^2: 4 to 1, so that 0.04 and 0.02 add, of errors that are half alike
    one = device(("dfw", 0.44, 0.05, "OK"), ("bf", 0.34, 0.1, "review"))
    half = np.sqrt(0.04**2 + 0.02**2 + 0.04 * 0.02)
    assert one.angle == pytest.approx((0.42, 0.42 - half, 0.42 + half))
    assert (one.verdict, one.reason, one.angle_lights, one.findings) == ("OK", "", "bf+dfw", ())
    # what a single light leaves in doubt, two may tell, and what none of them doubts is not doubted
    assert device(("dfw", 0.45, 0.06, "review")).reason == "die angle 0.45 deg (0.39 to 0.51) in dfw, limit 0.5"
    assert device(("dfw", 0.45, 0.06, "review"), ("bf", 0.41, 0.06, "review")).verdict == "OK"
    # a turned die in a light that the network does not know is NG, and found once
    bad = device(("dfw", 0.56, 0.07, "review"), ("bf", 0.62, 0.05, "NG"))
    assert bad.verdict == "NG"
    assert bad.reason.startswith("die angle 0.60 deg (0.55 to 0.65) in bf+dfw")
    assert [(seen.light, found) for seen, found in bad.findings] == [("bf", turned)]
    both = device(("dfw", 0.60, 0.05, "NG"), ("dfb", 0.61, 0.04, "NG"), known=("dfw", "dfb"))
    assert [seen.light for seen, _ in both.findings] == ["dfb"], "the surest"
    # an image of its own beyond the limit, and its device not: no finding
    apart = device(("dfw", 0.56, 0.05, "NG"), ("dfb", 0.49, 0.03, "review"), known=("dfw", "dfb"))
    assert (apart.verdict, apart.findings) == ("review", ())
    # intervals that lie apart even at 99 %: 1.566 times as wide
    assert device(("dfw", 0.1, 0.05, "OK"), ("bf", 0.25, 0.05, "review")).verdict == "OK", "0.150 of 0.157"
    against = device(("dfw", 0.1, 0.05, "OK"), ("bf", 0.26, 0.05, "review"))
    assert (against.verdict, against.reason) == (
        "review",
        "die angles contradict each other: 0.10 deg (0.05 to 0.15) in dfw, 0.26 deg (0.21 to 0.31) in bf",
    )


def test_an_angle_that_one_light_does_not_tell() -> None:
    def unmeasured(light: str) -> ImageResult:
        one = result(f"a-{light}.png", light, "review", reason="die angle not measured: no clear die")
        one.measurements.append(("die_angle", None, "deg", None, None))
        return one

    grouping = Grouping.of(("dfw", "dfb"), None, None, 0.5)
    (device,) = devices_of([unmeasured("dfw"), result("a-dfb.png", "dfb", angle=(0.1, 0.05))], grouping)
    assert (device.verdict, device.reason, device.angle_lights) == ("OK", "", "dfb"), "another tells it"
    (device,) = devices_of([unmeasured("dfw"), unmeasured("dfb")], grouping)
    assert (device.verdict, device.angle) == ("review", None)
    assert device.reason == "dfw: die angle not measured: no clear die; dfb: die angle not measured: no clear die"
    cracked = unmeasured("dfb")
    cracked.findings.append(finding(Place(1, 2, 3, 4, "um")))
    (device,) = devices_of([result("a-dfw.png", "dfw", angle=(0.1, 0.05)), cracked], grouping)
    assert (device.verdict, device.reason) == ("NG", "dfb: crack 0.90 at (0, 0) px")


def test_a_crack_seen_in_two_lights_is_one() -> None:
    here, beside = Place(100, 200, 20, 40, "um"), Place(104, 210, 20, 40, "um")  # 16 x 30 of 20 x 40 are shared: 0.6
    away, turned = Place(112, 200, 20, 40, "um"), Place(100, 200, 20, 40, "um")  # 8 x 40 are shared: 0.4
    images = [
        result("a-bf.png", "bf", "NG", found=[finding(here, score=0.8), finding(away, score=0.7)]),
        result("a-dfw.png", "dfw", "NG", found=[finding(beside, score=0.9), finding(turned, "rotate", 1.0)]),
    ]
    found = one_device(*images, known=("bf", "dfw")).findings
    assert [(seen.light, one.kind, one.place) for seen, one in found] == [
        ("dfw", "rotate", turned), ("dfw", "crack", beside), ("bf", "crack", away)
    ]  # fmt: skip
    same = [result("a-bf.png", "bf", "NG", found=[finding(here), finding(beside)])]
    assert len(one_device(*same).findings) == 2, "on one image the network's own suppression has the word"


def test_devices_are_told_by_name_folder_or_pattern() -> None:
    paths = ["lot/a-bf.png", "lot/a_DFW.png", "lot/b.dfb.png", "lot/c.png", "lot/bf.png"]
    grouping = Grouping.of(["bf"], None, None)
    assert grouping.names(paths) == ["a", "b", "bf", "c"]
    assert grouping.names(["x/s1/a-bf.png", "x/s2/a-bf.png", "x/s2/a-dfw.png"]) == ["s1/a", "s2/a"]
    told = Grouping.of(["bf"], r"/([0-9]+)\.png$", None)
    assert told.names(["bf/001.png", "dfw/001.png", "bf/002.png"]) == ["001", "002"]
    with pytest.raises(UsageError, match=r"finds no device in 'bf/x\.png'"):
        told.names(["bf/x.png"])


@pytest.fixture(scope="module")
def mixed(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lot with a turned die, one good device, and something wrong with every other."""
    lot = tmp_path_factory.mktemp("mixed") / "lot"
    lot.mkdir()
    for path in sorted((packages / "images").iterdir()):
        shutil.copy(path, lot / path.name)
        if path.name.startswith("000003"):
            shutil.copy(path, lot / path.name.replace("000003", "good"))
    (lot / "000001-bf.png").unlink()
    shutil.copy(lot / "000002-bf.png", lot / "000002-dfw.png")
    (lot / "000003-dfb.png").write_bytes(b"nothing")
    image = cv2.imread(str(lot / "000000-bf.png"))
    cv2.imwrite(str(lot / "board-bf.png"), np.full_like(image, (60, 110, 50)))
    return lot


def test_a_lot_with_every_kind_of_trouble(
    mixed: Path, bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspected([mixed], bundles / "nothing", tmp_path / "run", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    rows = {row["device"]: row for row in table(tmp_path / "run" / "devices.csv")}
    assert list(rows) == ["000000", "000001", "000002", "000003", "board", "good"]
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "000000": "NG", "000001": "review", "000002": "review", "000003": "review", "board": "review",
        "good": "OK",
    }  # fmt: skip
    assert rows["000001"]["verdict_reason"] == "no image in bf, only in dfw, dfb"
    assert rows["000002"]["verdict_reason"] == "2 images in bf: 000002-bf.png, 000002-dfw.png"
    assert rows["000003"]["verdict_reason"].startswith("000003-dfb.png: cannot be read: not an image")
    assert "no chip" in rows["board"]["verdict_reason"]
    assert Path(rows["000000"]["dfb"]).name == "000000-dfb.png"
    assert rows["000002"]["bf"].split(";") == [str(mixed / f"000002-{light}.png") for light in ("bf", "dfw")]
    assert Path(rows["000003"]["unsorted"]).name == "000003-dfb.png"
    assert told["device_verdicts"] == {"OK": 1, "review": 4, "NG": 1}
    assert [one["device"] for one in told["devices"]] == list(rows)
    first = told["devices"][0]
    assert first["images"]["bf"] == [rows["000000"]["bf"]]
    results = {row["path"]: row for row in table(tmp_path / "run" / "results.csv")}
    seen = results[rows["000000"]["bf"]]
    assert (seen["light"], seen["upright"]) == ("bf", "opening")
    # the die's angle is measured in lights that the bundle does not know, too
    names = ("die_angle_deg", "die_angle_deg_low", "die_angle_deg_high")
    images = [results[rows["000000"][light]] for light in ("bf", "dfw", "dfb")]
    angles = np.array([[float(image[name]) for name in names] for image in images])
    weights = 1 / (angles[:, 2] - angles[:, 1]) ** 2
    value = weights @ angles[:, 0] / weights.sum()
    bright, white, blue = weights * (angles[:, 2] - angles[:, 1]) / 2 / weights.sum()
    half = np.sqrt(bright**2 + (white + blue) ** 2 + bright * (white + blue))
    told_of = [float(rows["000000"][name]) for name in names]
    assert told_of == pytest.approx([value, value - half, value + half], rel=1e-5)
    assert [first[name] for name in names] == pytest.approx([float(rows["000000"][name]) for name in names], rel=1e-5)
    assert (rows["000000"]["angle_light"], first["angle_light"]) == ("bf+dfw+dfb", "bf+dfw+dfb")
    assert {image["verdict"] for image in images} == {"NG"}, "a turned die is NG in whatever light"
    assert images[1]["verdict_reason"].startswith(
        "not inspected: taken in light dfw; the bundle knows bf; die angle 1.3"
    )
    other = results[rows["good"]["dfw"]]
    assert (other["verdict"], other["verdict_reason"]) == (
        "review", "not inspected: taken in light dfw; the bundle knows bf"
    )  # fmt: skip
    assert abs(float(other["die_angle_deg"])) < 0.3
    drawn = {path.name.partition("_")[2] for path in (tmp_path / "run" / "overlays").iterdir()}
    assert {"good-bf.png", "good-dfw.png", "good-dfb.png"} <= drawn


def test_an_interrupted_run_ends_as_one_that_was_not(packages: Path, bundles: Path, tmp_path: Path) -> None:
    def run(out: Path, stop: int | None) -> None:
        def seen(done: int, total: int) -> None:
            if stop is not None and done >= stop:
                raise KeyboardInterrupt

        inspect_paths([packages / "images"], bundles / "cracks", out, pitch_um=PITCH_UM, chunk=2, progress=seen)

    run(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", 4)
    assert not (tmp_path / "cut" / "devices.csv").exists()
    run(tmp_path / "cut", None)
    for name in ("results.csv", "findings.csv", "devices.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    # files for the line are made of what is stored: nothing is inspected again
    again = inspect_paths([packages / "images"], bundles / "cracks", tmp_path / "cut", pitch_um=PITCH_UM, chunk=2,
                          klarf=tmp_path / "later.klarf")  # fmt: skip
    assert again.resumed_at == again.images == 3 * DEVICES
    told = [int(row["findings"]) for row in table(tmp_path / "cut" / "devices.csv")]
    assert len(read_klarf(tmp_path / "later.klarf").wafers[0].defects.rows) == sum(told) > 0
    # the one turned die is seen in three lights, and counts once
    assert again.findings == sum(told) + 2


# files of the line


def test_klarf_holds_what_was_found_where_it_was_found(cracked: Path, tmp_path: Path) -> None:
    klarf = read_klarf(cracked / "lot.klarf")
    write_klarf(tmp_path / "again.klarf", klarf)
    assert (tmp_path / "again.klarf").read_bytes() == (cracked / "lot.klarf").read_bytes()
    (wafer,) = klarf.wafers
    assert (klarf.lot_id, wafer.wafer_id, klarf.classes) == ("lot-7", "lot-7", {1: "crack", 2: "rotate"})
    results = {row["path"]: row for row in table(cracked / "results.csv")}

    def half_deg(row: dict[str, str]) -> float:
        image = results[row["path"]]
        return float(image["die_angle_deg_high"]) - float(image["die_angle_deg_low"])

    every = table(cracked / "findings.csv")
    turned = [row for row in every if row["kind"] == "rotate"]
    assert len(turned) == len({row["path"] for row in turned}) == 3, "one die, in three lights"
    # of which the one with the narrowest interval tells it
    rows = [row for row in every if row["kind"] == "crack"] + [min(turned, key=half_deg)]
    # four devices by name, row by row from the upper left; y is up
    index = {"000000": (0, 1), "000001": (1, 1), "000002": (0, 0), "000003": (1, 0)}
    told = sorted(zip(*(wafer.defects.column(name) for name in
                        ("XINDEX", "YINDEX", "CLASSNUMBER", "XREL", "YREL", "XSIZE", "YSIZE", "DEFECTAREA")),
                      strict=True))  # fmt: skip
    seen = sorted(
        (*index[Path(row["path"]).stem[:6]], {"crack": 1, "rotate": 2}[row["kind"]],
         *(float(row[f"{name}_um"]) for name in ("x", "y", "width", "height")),
         float(row["width_um"]) * float(row["height_um"]))
        for row in rows
    )  # fmt: skip
    assert len(told) == len(rows) >= DEVICES
    for mine, its in zip(told, seen, strict=True):
        assert mine == pytest.approx(its, rel=4e-5)  # the area is that of sides told to a nm
    assert wafer.summary is not None
    assert wafer.summary.rows[0][:2] == (1, len(rows))
    assert wafer.summary.rows[0][3:] == (DEVICES, DEVICES)
    (test,) = wafer.tests
    assert set(test.plan or ()) == set(index.values())


def test_klarf_positions_by_hand(tmp_path: Path) -> None:
    images = [
        result("S_r01_c01.png", "bf"),
        result("S_r01_c03.png", "bf", "NG", found=[finding(Place(250.0, 500.0, 30.0, 10.0, "um"))]),
        result("S_r02_c02.png", "bf", "NG", found=[finding(Place(0.5, 1.25, 1.0, 2.5, "um"), "rotate")]),
        result("S_r02_c03.png", "dfw", "review", inspected=False),
    ]
    devices = devices_of(images, Grouping.of(["bf"], None, None))
    klarf = klarf_of(devices, ["crack", "rotate"], "L", (2, 3), datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC))
    write_klarf(tmp_path / "a.klarf", klarf)
    assert read_klarf(tmp_path / "a.klarf") == klarf
    (wafer,) = klarf.wafers
    # packages of 1000 x 2000 um side by side, 3 columns and 2 rows: the middle of the strip is at (1500, 2000)
    assert klarf.die_pitch_um == (1000.0, 2000.0)
    assert wafer.center_um == (1500.0, 2000.0)
    rows = [dict(zip(wafer.defects.columns, row, strict=True)) for row in wafer.defects.rows]
    first, second = rows
    assert (first["XINDEX"], first["YINDEX"], first["XREL"], first["YREL"]) == (2, 1, 250.0, 500.0)
    assert (first["XSIZE"], first["YSIZE"], first["DSIZE"], first["DEFECTAREA"]) == (30.0, 10.0, 30.0, 300.0)
    assert (second["XINDEX"], second["YINDEX"], second["CLASSNUMBER"]) == (1, 0, 2)
    assert wafer_um(klarf, wafer).tolist() == [[2000 + 250 - 1500, 2000 + 500 - 2000], [1000.5 - 1500, 1.25 - 2000]]
    # three devices were looked at, on 2 mm2 each: two defects on 6 mm2 are 33 a cm2
    assert wafer.summary is not None
    assert wafer.summary.rows[0] == (1, 2, pytest.approx(100 / 3), 3, 2)
    assert wafer.tests[0].plan == ((0, 1), (2, 1), (1, 0))
    assert klarf.file_timestamp == ("03-04-2026", "05:06:07")
    nm = replace(klarf, version="1.8")
    write_klarf(tmp_path / "b.klarf", nm)
    told = read_klarf(tmp_path / "b.klarf")
    assert wafer_um(told, told.wafers[0]).tolist() == wafer_um(klarf, wafer).tolist()


def test_a_strip_holds_the_verdicts_where_the_devices_lie(cracked: Path, tmp_path: Path) -> None:
    told = read_e142(cracked / "strip.xml")
    write_e142(tmp_path / "again.xml", told)
    assert (tmp_path / "again.xml").read_bytes() == (cracked / "strip.xml").read_bytes()
    bins = told.maps[0].overlays[0].bins
    assert bins is not None
    assert bins.codes == (("02", "02"), ("02", "02"))
    assert told.maps[0].substrate_id == "lot-7"
    images = [result("r01_c02.png", "bf"), result("r02_c01.png", "bf", "NG"), result("r02_c03.png", "dfw", "review")]
    made = strip_of(devices_of(images, Grouping.of(["bf"], None, None)), (2, 3), "S")
    assert made.maps[0].overlays[0].bins is not None
    assert made.maps[0].overlays[0].bins.codes == (("FF", "01", "FF"), ("02", "FF", "03"))
    write_e142(tmp_path / "strip.xml", made)
    assert read_e142(tmp_path / "strip.xml") == made


def test_devices_that_do_not_fit_their_strip() -> None:
    assert cells_of(["a", "b", "c", "d", "e", "f"], (2, 3)) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert cells_of(["x-r2-c1", "yR01C03"], (2, 3)) == [(1, 0), (0, 2)]
    for names, said in (
        (["a", "b", "c"], "2x2 has 4 places, and the lot 3 devices"),
        (["a", "b", "c", "d", "e"], "2x2 has 4 places, and the lot 5 devices"),
        (["a_r01_c01", "b"], "'b' tells no place, and others do"),
        (["a_r03_c01"], "'a_r03_c01' lies outside of it"),
        (["a_r00_c01"], "'a_r00_c01' lies outside of it"),
        (["a_r01_c01", "b_r01_c01"], "'a_r01_c01' and 'b_r01_c01' lie at one place"),
    ):
        with pytest.raises(UsageError, match=said):
            cells_of(names, (2, 2))


def test_a_lot_without_a_package_is_not_a_lot_without_defects(tmp_path: Path) -> None:
    files = LineFiles("L", ("crack",), tmp_path / "a.klarf")
    devices = devices_of([result("a.png", "bf", "review", inspected=False)], Grouping.of(["bf"], None, None))
    told = files.write(devices, 1.0)
    assert told == [{"file": str(tmp_path / "a.klarf"), "reason": "no package of this lot could be looked at"}]
    assert not list(tmp_path.iterdir())


def test_a_folder_without_packages_is_told_and_no_klarf_written(
    bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lot = tmp_path / "lot"
    lot.mkdir()
    cv2.imwrite(str(lot / "board.png"), np.full((1295, 785, 3), (60, 110, 50), np.uint8))
    words = ["--pitch-um", "2", "--klarf", str(tmp_path / "a.klarf")]
    assert inspected([lot], bundles / "cracks", tmp_path / "run", *words) == 1
    said = capsys.readouterr().err.splitlines()
    why = "no package of this lot could be looked at"
    assert said[-1] == f"{tmp_path / 'a.klarf'}: is not written: {why}"
    card = json.loads((tmp_path / "run" / "runcard.json").read_text())
    assert card["results"]["state"] == "done", "the run is a whole one"
    assert card["results"]["not_written"] == [{"file": str(tmp_path / "a.klarf"), "reason": why}]
    assert len(table(tmp_path / "run" / "results.csv")) == 1
    again = [lot], bundles / "cracks", tmp_path / "run"
    assert inspected(*again, *words, "--json") == 1, "the same command says the same again"
    assert json.loads(capsys.readouterr().out)["not_written"] == card["results"]["not_written"]
    assert inspected(*again, "--pitch-um", "2") == 0, "without it, the lot is one of which all is review"
    (row,) = table(tmp_path / "run" / "devices.csv")
    assert (row["verdict"], "no chip" in row["verdict_reason"]) == ("review", True)
    assert not (tmp_path / "a.klarf").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--klarf", "HERE/a.klarf"], "say the size of a pixel with --pitch-um"),
        (["--e142", "HERE/a.xml"], "say those of the strip with --strip 4x10"),
        (["--e142", "HERE/a.xml", "--strip", "3x9"], "3x9 has 27 places, and the lot 4 devices"),
        (["--e142", "HERE/a.xml", "--strip", "3by9"], "write rows x columns, as 4x10"),
        (["--strip", "2x2"], "name one"),
        (["--e142", "HERE/none/a.xml", "--strip", "2x2"], "names a file in a folder that is there"),
        (["--klarf", "HERE/a", "--e142", "HERE/a", "--strip", "2x2", "--pitch-um", "2"], "both name"),
        (["--lights", "bf,dfw"], "the bundle does not know 'dfw'; it knows bf"),
        (["--device", "("], "is no regular expression"),
        (["--device", "wafer-([0-9]+)"], "finds no device in"),
    ],
)
def test_wrong_uses_leave_no_run_behind(
    words: list[str], said: str, packages: Path, bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = [word.replace("HERE", str(tmp_path)) for word in words]
    assert inspected([packages / "images"], bundles / "cracks", tmp_path / "run", *told) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run" / "runcard.json").exists()


def test_other_stations_write_no_klarf(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    assert inspected([tmp_path / "a.png"], Path("hole-fast"), tmp_path / "run", "--klarf", "a.klarf") == 2
    assert "--klarf means nothing to hole-fast, a bundle of station hole" in capsys.readouterr().err
