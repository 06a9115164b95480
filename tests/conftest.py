"""What all tests share: real files are read from WAFERLENS_REAL_DATA, and skipped with a reason where it is not set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REAL_DATA = "WAFERLENS_REAL_DATA"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = os.environ.get(REAL_DATA)
    if folder and Path(folder).is_dir():
        return
    reason = (
        f"{REAL_DATA} is {folder!r}, which is no folder" if folder else f"{REAL_DATA} names no folder of real files"
    )
    for item in items:
        if "real_data" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real files; mark the test with `real_data`."""
    return Path(os.environ[REAL_DATA])
