"""Imports only go down the stairs, and torch stays on its floors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_contracts_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    if not linter.exists():
        pytest.skip("import-linter is installed with the extra dev")
    done = subprocess.run([str(linter), "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_the_base_rooms_import_without_torch() -> None:
    rooms = ["recipe", "ops", "formats", "simulate", "load", "measure", "store", "bundle"]
    rooms += ["prepare", "evaluate", "inspect", "report"]
    code = (
        "import importlib, pkgutil, sys\n"
        f"for room in {rooms!r}:\n"
        "    package = importlib.import_module('waferlens.' + room)\n"
        "    for entry in pkgutil.walk_packages(getattr(package, '__path__', []), package.__name__ + '.'):\n"
        "        importlib.import_module(entry.name)\n"
        "print(sorted({'torch', 'lightning', 'torchvision'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
