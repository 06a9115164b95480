from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from waferlens import extras
from waferlens.errors import MissingExtraError

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_what_is_there_is_imported() -> None:
    assert extras.require("train", "json") is sys.modules["json"]


def test_what_is_missing_says_what_to_install() -> None:
    with pytest.raises(MissingExtraError, match=r"'no_such_module'.*pip install 'waferlens\[formats\]'") as caught:
        extras.require("formats", "no_such_module.readers")
    assert caught.value.exit_status == 2


def test_a_missing_dependency_of_the_module_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_installed.py").write_text("import its_missing_dependency\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingExtraError, match="its_missing_dependency"):
        extras.require("scale", "half_installed")


def test_our_own_missing_module_is_not_blamed_on_an_extra() -> None:
    with pytest.raises(ModuleNotFoundError, match="waferlens"):
        extras.require("train", "waferlens.no_such_room")


def test_availability_is_known_without_importing() -> None:
    assert extras.available("json")
    assert not extras.available("no_such_module")


def test_every_extra_is_declared() -> None:
    declared = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    assert set(extras.EXTRAS) == set(declared) - {"dev"}


def test_nothing_asks_for_torchvision() -> None:
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    asked = [*project["dependencies"], *(line for lines in project["optional-dependencies"].values() for line in lines)]
    assert not [line for line in asked if line.startswith(("torchvision", "timm", "ultralytics", "albumentations"))]


def test_every_bound_has_its_reason() -> None:
    lines = PYPROJECT.read_text().splitlines()
    start = lines.index("dependencies = [")
    end = lines.index("[project.scripts]")
    bounds = [line for line in lines[start:end] if line.startswith('    "')]
    assert len(bounds) > 40
    assert [line for line in bounds if "#" not in line] == []
