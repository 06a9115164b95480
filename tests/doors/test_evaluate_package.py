"""A package bundle against truth, with networks made by hand: what they say is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from make_package_bundle import make_package_bundle
from waferlens.bundle.package import PackageSession
from waferlens.cli.main import main
from waferlens.evaluate.package import read_judged
from waferlens.formats.package_set import Device, devices, read_device
from waferlens.prepare.package_part import asked_angle, examined, told_classes
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
    assert {label.kind for one in judged.pictures for label in one.labels if not label.ignore} <= {"crack"}
    picture = judged.pictures[0]
    part = examined(session, picture.pixels()[0], None, light="bf")
    assert part.kinds == ("crack",)
