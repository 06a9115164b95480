"""A package bundle against truth, with networks made by hand: what they say is known."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from make_package_bundle import BOXES, HEIGHT_PX, WIDTH_PX, make_package_bundle
from waferlens.bundle.files import open_bundle
from waferlens.bundle.package import PackageSession
from waferlens.bundle.package_calibration import PackageCalibration, ScoreLimits, Sigmoid
from waferlens.bundle.verdict import NG, REVIEW
from waferlens.cli.main import main
from waferlens.errors import BundleError
from waferlens.evaluate.detections import FoundHere, hits_of
from waferlens.evaluate.package import angles_told
from waferlens.evaluate.package_calibrate import fit_package_calibration
from waferlens.evaluate.package_seen import Seen, look_at
from waferlens.evaluate.package_truth import read_judged
from waferlens.formats.package_set import Device, devices, read_device, read_manifest
from waferlens.prepare import package_part
from waferlens.prepare.package_part import TURNED, asked_angle, examined, told_classes
from waferlens.recipe.package_world import PackageWorld
from waferlens.simulate.package.dataset import package_world, write_devices

DEVICES = 6


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages") / "set"
    write_devices(folder, package_world("sim"), DEVICES, 3)
    return folder


@pytest.fixture(scope="module")
def known(packages: Path) -> list[Device]:
    return [read_device(packages, number) for number in devices(packages)]


def evaluated(bundle: Path, data: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    assert main(["evaluate", str(bundle), "--data", str(data), "--json", *more]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("turned", [None, 0.9], ids=["knows cracks alone", "takes all dies for turned"])
def test_turned_dies_are_told_by_their_angle(
    turned: float | None, packages: Path, known: list[Device], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_package_bundle(tmp_path / "bundle", crack=0.1, turned=turned)
    told = evaluated(tmp_path / "bundle", packages, capsys)
    true = sum(any(one.kind == "rotate" for one in device.defects) for device in known)
    assert list(told["classes"]) == ["crack", "rotate"]
    assert told["classes"]["rotate"]["truths"] == true > 0
    assert told["classes"]["rotate"]["ap50"] == pytest.approx(1.0)
    assert told["crack_ap50"] == 0.0
    assert told["map50"] == pytest.approx(0.5)


def test_classes_are_those_of_the_network_without_an_angle(packages: Path, tmp_path: Path) -> None:
    bundle = make_package_bundle(tmp_path / "bundle", crack=0.9, turned=None, angle=False)
    session = PackageSession(bundle)
    assert told_classes(session, asked_angle(bundle)) == ("crack",)
    judged = read_judged(packages, session, bundle)
    pictures = [one.picture for one in judged.images()]
    assert len(pictures) == judged.count == DEVICES
    assert {label.kind for one in pictures for label in one.labels if not label.ignore} <= {"crack"}
    picture = pictures[0]
    part = examined(session, picture.pixels()[0], None, light="bf")
    assert part.kinds == ("crack",)


def test_verdicts_are_those_of_inspection(
    packages: Path, known: list[Device], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = PackageCalibration({"crack": ScoreLimits(0.5, 0.2)}, {"crack": Sigmoid(1.0, -2.0, 9, 3)})
    make_package_bundle(tmp_path / "calibrated", crack=0.3, turned=None, calibration=limits)
    told = evaluated(tmp_path / "calibrated", packages, capsys)
    good = sum(device.verdict == "good" for device in known)
    assert told["verdicts"]["good"] == {"OK": 0, "review": good, "NG": 0}, "a score between the limits"
    assert told["review_rate"]["share"] == 1.0
    assert told["false_alarm_rate"] == 0.0
    assert told["threshold"] == {"crack": 0.5, "rotate": 0.95}
    assert told["probability"]["findings"] == len(known)
    assert told["probability"]["defects_told"] == pytest.approx(1 / (1 + np.exp(2.0) * 0.7 / 0.3), rel=1e-5)
    for crack in (0.3, 0.1):  # of a bundle without calibration the recipe's score of 0.25 is the limit
        make_package_bundle(tmp_path / f"bare{crack}", crack=crack, turned=None)
        told = evaluated(tmp_path / f"bare{crack}", packages, capsys)
        images = [str(device.images["bf"]) for device in known]
        words = ["--bundle", str(tmp_path / f"bare{crack}"), "--out", str(tmp_path / f"run{crack}")]
        assert main(["inspect", *images, *words]) in (0, 1)
        with (tmp_path / f"run{crack}" / "results.csv").open(encoding="utf-8") as file:
            said = Counter(row["verdict"] for row in csv.DictReader(file))
        ours: Counter[str] = Counter()
        for row in told["verdicts"].values():
            ours.update(row)
        assert +ours == said
        assert told["false_alarms"]["alarmed"] == told["verdicts"]["good"]["NG"]


def test_capture_is_told_of_both_verdicts_beyond_what_was_stated(
    packages: Path,
    known: list[Device],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A network that finds every crack with one score: between the limits all are for review, above them NG."""

    def seen_with(score: float) -> Callable[..., Seen]:
        def look(*asked: Any) -> Seen:
            seen = look_at(*asked)
            seen.found = [
                FoundHere(true.boxes[true.kinds == 0], np.full(int((true.kinds == 0).sum()), score),
                          np.zeros(int((true.kinds == 0).sum()), np.int64))
                for true in seen.truth
            ]  # fmt: skip
            return seen

        return look

    limits = PackageCalibration({"crack": ScoreLimits(0.5, 0.2)})
    bundle = make_package_bundle(tmp_path / "calibrated", crack=0.1, turned=None, calibration=limits)
    session = PackageSession(bundle)
    seen = look_at(session, bundle, read_judged(packages, session, bundle, every_light=True).images())
    strongest = hits_of(seen.found, seen.truth, seen.parts, [0.0, 0.0]).size_px
    least = float(np.median(strongest))
    beyond = int((strongest >= least).sum())
    assert 0 < beyond < len(strongest)
    for score, ng, either in ((0.1, 0, 0), (0.3, 0, beyond), (0.6, beyond, beyond)):
        monkeypatch.setattr("waferlens.evaluate.package.look_at", seen_with(score))
        told = evaluated(tmp_path / "calibrated", packages, capsys, "--beyond", f"{least - 1e-6},0")
        for key, count in (("capture", ng), ("capture_or_review", either)):
            assert (told[key]["captured"], told[key]["devices"]) == (count, beyond)
            assert told[key]["below"]["devices"] == len(strongest) - beyond
            assert told[key]["chosen_by"]["by"] == "statement"
    words = ["evaluate", str(tmp_path / "calibrated"), "--data", str(packages)]
    assert main([*words, "--beyond", f"{least - 1e-6},0"]) == 0
    said = capsys.readouterr().out
    assert re.search(rf"  captured beyond {least:.3g} px .*and 0 grey: {beyond} of {beyond}: 100 %", said)
    assert re.search(rf"  NG or review beyond {least:.3g} px .*and 0 grey: {beyond} of {beyond}: 100 %", said)
    assert main(words) == 0
    assert "no size and contrast from which 99 % are NG or review is borne by these devices" in capsys.readouterr().out
    for wrong, why in (("8", "such as 8,20"), ("a,b", "such as 8,20"), ("8,-1", "below 0"), ("nan,3", "below 0")):
        assert main([*words, "--beyond", wrong]) == 2
        assert why in capsys.readouterr().err
    assert main(["evaluate", "hole-fast", "--data", str(packages), "--beyond", "8,20"]) == 2
    assert "--beyond means nothing to hole-fast" in capsys.readouterr().err


def test_devices_are_judged_as_inspection_judges_them(
    packages: Path, known: list[Device], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In three lights of which the bundle knows one; limits in the midst of the angles, so that some are in doubt."""
    angles = sorted(abs(device.theta_die_deg) for device in known if device.theta_die_deg is not None)
    for number, limit_deg in enumerate((0.5, angles[1] + 0.02, angles[-2] - 0.02)):
        make_package_bundle(tmp_path / f"bundle{number}", crack=0.1, turned=None, limit_deg=limit_deg)
        told = evaluated(tmp_path / f"bundle{number}", packages, capsys)
        words = ["--bundle", str(tmp_path / f"bundle{number}"), "--out", str(tmp_path / f"run{number}")]
        assert main(["inspect", str(packages / "images"), *words]) == 0
        with (tmp_path / f"run{number}" / "devices.csv").open(encoding="utf-8") as file:
            rows = {int(row["device"]): row for row in csv.DictReader(file)}
        kinds = {device.number: "good" if device.verdict == "good" else "defective" for device in known}
        for kind in ("good", "defective"):
            said = Counter(row["verdict"] for number, row in rows.items() if kinds[number] == kind)
            assert +Counter(told["verdicts"][kind]) == said, (limit_deg, kind)
        error = [
            float(rows[device.number]["die_angle_deg"]) - device.theta_die_deg
            for device in known
            if device.theta_die_deg is not None
        ]
        assert told["angle"]["rms_deg"] == pytest.approx(np.sqrt(np.mean(np.square(error))), abs=1e-6)
        assert (told["angle"]["dies"], told["angle"]["contradicting"]) == (len(error), 0)
        assert {light: one["dies"] for light, one in told["angle"]["lights"].items()} == dict.fromkeys(
            ("bf", "dfw", "dfb"), len(error)
        )
        capsys.readouterr()


def test_a_turned_die_has_the_score_of_its_device(
    packages: Path, known: list[Device], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another light contradicts the image, no score says that the die is turned for certain."""
    bundle = make_package_bundle(tmp_path / "bundle", crack=0.1, turned=None)
    session = PackageSession(bundle)
    (turned,) = [device for device in known if abs(device.theta_die_deg or 0.0) > 1.0][:1]
    judged = read_judged(
        packages, session, bundle, lambda group: group == f"device-{turned.number:06d}", every_light=True
    )
    images = list(judged.images())
    assert [one.picture.light for one in images] == ["bf", "dfw", "dfb"]
    number = told_classes(session, asked_angle(bundle)).index("rotate")
    seen = look_at(session, bundle, images)
    (found,) = seen.found
    assert len(seen.truth) == 1, "in the light that the network knows"
    assert found.scores[found.kinds == number] > TURNED
    assert list(seen.verdicts.values()) == [NG]
    true_angle = package_part.die_angle

    def another(*args: Any, light: str, **options: Any) -> Any:
        told = true_angle(*args, light=light, **options)
        return told if light == "bf" else replace(told, angle_deg=3.0, low=2.9, high=3.1)

    monkeypatch.setattr(package_part, "die_angle", another)
    seen = look_at(session, bundle, images)
    (found,) = seen.found
    assert found.scores[found.kinds == number] <= TURNED
    assert list(seen.verdicts.values()) == [REVIEW]
    assert angles_told(seen)["contradicting"] == 1


def test_sessions_lift_scores_of_large_boxes(tmp_path: Path) -> None:
    """The crack's box has a longer side of 30 px, the turned die's one of 500; only classes with a lift are changed."""
    nothing = np.zeros((1, 3, HEIGHT_PX, WIDTH_PX), np.float32)
    limits = {"crack": ScoreLimits(0.5, 0.3, 0.8), "rotate": ScoreLimits(0.9, 0.4)}
    bundle = make_package_bundle(tmp_path / "one", 0.2, 0.6, False, calibration=PackageCalibration(limits))
    found = PackageSession(bundle).findings(nothing, least=0.1)[0]
    odds = np.log(0.2 / 0.8) + 0.8 * np.log2(30 / 16)
    assert found.scores == pytest.approx([0.6, 1 / (1 + np.exp(-odds))], abs=1e-6)
    assert found.kinds.tolist() == [1, 0]
    limits["crack"] = ScoreLimits(0.5, 0.3, 4.0)
    bundle = make_package_bundle(tmp_path / "other", 0.2, 0.6, False, calibration=PackageCalibration(limits))
    found = PackageSession(bundle).findings(nothing, least=0.61)[0]
    assert found.kinds.tolist() == [0], "found by its lifted score, though the network's own is below"
    assert found.boxes[0] == pytest.approx(BOXES[0])


def world(*, missing: float = 0.0, **contents: float) -> PackageWorld:
    sim = package_world("sim")
    return sim.model_copy(update={"contents": sim.contents.model_copy(update={"missing": missing, **contents})})


def test_good_twins_and_empty_cavities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_package_bundle(tmp_path / "bundle", crack=0.1, turned=None)
    write_devices(tmp_path / "turned", world(good=0, crack=0, rotate=1, both=0), 2, 5, twins=True)
    told = evaluated(tmp_path / "bundle", tmp_path / "turned", capsys)
    assert told["devices"] == {"good": 2, "defective": 2, "set_aside": 0}, "a twin is a device of its own"
    assert told["verdicts"]["defective"]["NG"] == 2
    assert told["verdicts"]["good"]["NG"] == 0
    write_devices(tmp_path / "empty", world(missing=1.0), 2, 5)
    told = evaluated(tmp_path / "bundle", tmp_path / "empty", capsys)
    assert told["devices"] == {"good": 0, "defective": 0, "set_aside": 2}
    assert told["verdicts"]["missing"] == {"OK": 0, "review": 2, "NG": 0}, "no die, no angle: somebody has to look"
    assert told["false_alarm_rate"] is None


def test_hidden_truth_is_drawn_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_package_bundle(tmp_path / "bundle", crack=0.1, turned=None)
    monkeypatch.delenv("WAFERLENS_EVAL_SEED", raising=False)
    hidden = package_world("real")
    hidden = hidden.model_copy(update={"contents": hidden.contents.model_copy(update={"rotate": 50.0})})
    write_devices(tmp_path / "hidden", hidden, 2, 8)
    assert not (tmp_path / "hidden" / "truth").exists()
    words = ["evaluate", str(tmp_path / "bundle"), "--data", str(tmp_path / "hidden"), "--json"]
    for seed, said in ((None, "WAFERLENS_EVAL_SEED has to hold"), ("x", "whole number"), ("9", "from another seed")):
        if seed is not None:
            monkeypatch.setenv("WAFERLENS_EVAL_SEED", seed)
        assert main(words) == 2
        assert said in capsys.readouterr().err
    monkeypatch.setenv("WAFERLENS_EVAL_SEED", "8")
    told = evaluated(tmp_path / "bundle", tmp_path / "hidden", capsys)
    # the same seed and numbers without hiding the truth
    write_devices(tmp_path / "told", hidden.model_copy(update={"hidden_truth": False}), 2, 8)
    openly = evaluated(tmp_path / "bundle", tmp_path / "told", capsys)
    assert told["truths"] == openly["truths"] > 0
    assert {key: value for key, value in told.items() if key != "data"} == {
        key: value for key, value in openly.items() if key != "data"
    }
    path = next((tmp_path / "hidden" / "images").glob("*-dfw.png"))
    path.write_bytes(next((tmp_path / "hidden" / "images").glob("*-bf.png")).read_bytes())
    assert main(words) == 1
    assert "is not what its seed draws" in capsys.readouterr().err


def test_images_of_ones_own_are_grouped_as_in_training(
    packages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    (own / "images").mkdir(parents=True)
    told = json.loads((packages / "labels.json").read_text())
    for image in told["images"]:
        name = Path(image["file_name"]).name
        shutil.copy(packages / image["file_name"], own / "images" / name)
        image["file_name"] = name
    (own / "labels.json").write_text(json.dumps(told))
    for pattern, count in ((None, DEVICES), ("^(0000)", 1)):
        bundle = tmp_path / f"bundle{count}"
        make_package_bundle(bundle, crack=0.1, turned=None, device=pattern)
        found = evaluated(bundle, own, capsys)
        assert sum(found["devices"].values()) == count
        assert found["images"] == DEVICES
    make_package_bundle(tmp_path / "lost", device="([A-Z]+)")
    assert main(["evaluate", str(tmp_path / "lost"), "--data", str(own)]) == 2
    assert "finds no device in" in capsys.readouterr().err


def test_limits_are_set_by_good_devices(packages: Path, known: list[Device], tmp_path: Path) -> None:
    bundle = make_package_bundle(tmp_path / "bundle", crack=0.6, turned=0.9)
    session = PackageSession(bundle)
    judged = read_judged(packages, session, bundle)
    steps: list[int] = []
    told = fit_package_calibration(session, bundle, judged, {"folder": "set"}, steps.append)
    assert isinstance(told, PackageCalibration)
    good = sum(device.verdict == "good" for device in known)
    assert len(steps) == told.data["images"] == told.data["devices"] == DEVICES
    assert told.data["good"] == good > 0
    assert list(told.limits) == ["crack"], "turned dies are told by their angle"
    assert np.float32(0.6) < told.limits["crack"].score_ng < 0.601, "just above what good devices say"
    assert told.promises["crack"]["false_alarms"]["alarmed"] == 0
    assert told.capture is None, "too few devices to state a size and contrast"
    files = tmp_path / "calibrated"
    make_package_bundle(files, crack=0.6, turned=0.9, calibration=told)
    assert PackageSession(open_bundle(files)).score_ng[0] == told.limits["crack"].score_ng
    bare = PackageCalibration({"crack": ScoreLimits(0.5, 0.2)}).to_json() | {"kind": "wafer"}
    make_package_bundle(tmp_path / "wrong", calibration=_Told(bare))  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="is not a calibration this version reads"):
        PackageSession(open_bundle(tmp_path / "wrong"))
    none = fit_package_calibration(
        session, bundle, read_judged(packages, session, bundle, defective_only(known)), {"folder": "set"}
    )
    assert isinstance(none, str)
    assert "good ones set the limits" in none


def test_a_card_says_what_a_bundle_promises(packages: Path, tmp_path: Path) -> None:
    from waferlens.export.package_calibration import calibrated, calibration_lines, never_seen

    seed = read_manifest(packages)["seed"]
    assert never_seen(packages, {"data": {"seed": seed + 1}})
    assert not never_seen(packages, {"data": {"seed": seed}}), "some of them trained"
    assert not never_seen(packages, {"data": {"folder": "own"}}), "nobody knows"
    bundle = make_package_bundle(tmp_path / "bundle", crack=0.6, turned=None)
    shown: list[tuple[int, int]] = []
    told = calibrated(PackageSession(bundle), bundle, packages, True, lambda *steps: shown.append(steps))
    assert isinstance(told, PackageCalibration)
    assert shown[-1] == (DEVICES, DEVICES)
    assert (told.data["split"], told.data["world"], told.data["seed"]) == ("all", "package-sim", seed)
    card = "\n".join(calibration_lines(told))
    assert "calibrated on: 6 devices of `package-sim`" in card
    assert "crack from a score of 0.600: NG; 0 of" in card
    assert "it takes more good devices" in card
    assert calibration_lines("no good one") == ["- not calibrated: no good one"]


def defective_only(known: list[Device]) -> Any:
    names = {f"device-{device.number:06d}" for device in known if device.verdict != "good"}
    return lambda group: group in names


class _Told:
    """A calibration of another kind."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told

    def to_json(self) -> dict[str, Any]:
        return self.told
