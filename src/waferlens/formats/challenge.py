"""The folder layout of the 3D-metrology challenge: building its paths, reading them back, and its table of depths.

    simulation_data/SEM/Case_{1..4}/{80..84}/<base>_itr{0,1}.png     two noise draws of one structure
    simulation_data/Depth/Case_{1..4}/{80..84}/<base>.png            its depth map, smaller is deeper
    train/SEM/Depth_{110,120,130,140}/site_00000/SEM_000000.png      real images, no map
    train/average_depth.csv                                          one depth a site, larger is deeper
    test/SEM/000000.png                                              real images, nothing known
    manifest.json                                                    ours: what the folder was made from

Writer and parser stand side by side so that they cannot drift apart: `parse(path(...))` gives the item back.

Source: layout and counts as described by entrants of the Samsung / Dacon challenge (S4 of the source documents).
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from waferlens.errors import FormatError

IMAGE_HEIGHT_PX = 72
IMAGE_WIDTH_PX = 48
CASES = (1, 2, 3, 4)
FOLDERS = (80, 81, 82, 83, 84)
BUCKETS = (110, 120, 130, 140)
"""Nominal depths the real sites are sorted by [nm]"""
AVERAGE_DEPTH_FILE = "train/average_depth.csv"
MANIFEST_FILE = "manifest.json"
SAMPLES_FILE = "samples.csv"
"""Ours: what each simulated hole is, one row a case; only beside data whose truth is told."""
SUMS_FILE = "SHA256SUMS"
"""Ours: the sha256 of every image, as `sha256sum -c` reads it."""

_SIM_SEM = re.compile(r"simulation_data/SEM/Case_(\d+)/(\d+)/([^/]+)_itr(\d+)\.png")
_SIM_DEPTH = re.compile(r"simulation_data/Depth/Case_(\d+)/(\d+)/([^/]+)\.png")
_REAL_SEM = re.compile(r"train/SEM/Depth_(\d+)/site_(\d+)/SEM_(\d+)\.png")
_TEST_SEM = re.compile(r"test/SEM/([^/]+)\.png")
_SITE_KEY = re.compile(r"depth_(\d+)_site_(\d+)")


@dataclass(frozen=True, slots=True)
class SimSem:
    """One noise draw of a simulated structure."""

    case: int
    folder: int
    base: str
    """Name of the structure; the same in all cases, and what splits go by."""
    itr: int


@dataclass(frozen=True, slots=True)
class SimDepth:
    """The depth map of a simulated structure in one case."""

    case: int
    folder: int
    base: str


@dataclass(frozen=True, slots=True)
class RealSem:
    """A real image of a hole, of which only the average depth of the site is known."""

    bucket: int
    site: int
    number: int


@dataclass(frozen=True, slots=True)
class TestSem:
    """A real image of which nothing is known."""

    __test__ = False  # the name starts with Test: pytest must not collect it
    name: str


@dataclass(frozen=True, slots=True)
class DepthTable:
    """The one table of site depths."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the folder was made from."""


Item = SimSem | SimDepth | RealSem | TestSem | DepthTable | Manifest


def sim_sem_path(root: str | Path, case: int, folder: int, base: str, itr: int) -> Path:
    """Where the SEM image of a simulated structure stands."""
    return Path(root, "simulation_data", "SEM", f"Case_{case}", str(folder), f"{base}_itr{itr}.png")


def sim_depth_path(root: str | Path, case: int, folder: int, base: str) -> Path:
    """Where the depth map of a simulated structure stands."""
    return Path(root, "simulation_data", "Depth", f"Case_{case}", str(folder), f"{base}.png")


def real_sem_path(root: str | Path, bucket: int, site: int, number: int) -> Path:
    """Where a real training image stands."""
    return Path(root, "train", "SEM", f"Depth_{bucket}", f"site_{site:05d}", f"SEM_{number:06d}.png")


def test_sem_path(root: str | Path, number: int) -> Path:
    """Where a real test image stands."""
    return Path(root, "test", "SEM", f"{number:06d}.png")


test_sem_path.__test__ = False  # a path, not a test: pytest collects by name


def average_depth_path(root: str | Path) -> Path:
    """Where the table of site depths stands."""
    return Path(root, AVERAGE_DEPTH_FILE)


def manifest_path(root: str | Path) -> Path:
    """Where the manifest of a simulated folder stands."""
    return Path(root, MANIFEST_FILE)


def parse(relative_path: str | Path) -> Item | None:
    """What a file of the layout is, by its path below the root; None if it has no place in the layout."""
    path = relative_path if isinstance(relative_path, str) else relative_path.as_posix()
    if found := _SIM_SEM.fullmatch(path):
        return SimSem(int(found[1]), int(found[2]), found[3], int(found[4]))
    if found := _SIM_DEPTH.fullmatch(path):
        return SimDepth(int(found[1]), int(found[2]), found[3])
    if found := _REAL_SEM.fullmatch(path):
        return RealSem(int(found[1]), int(found[2]), int(found[3]))
    if found := _TEST_SEM.fullmatch(path):
        return TestSem(found[1])
    if path == AVERAGE_DEPTH_FILE:
        return DepthTable()
    if path in {MANIFEST_FILE, SAMPLES_FILE, SUMS_FILE}:
        return Manifest()
    return None


def site_key(bucket: int, site: int) -> str:
    """The name of a site in the table of depths."""
    return f"depth_{bucket}_site_{site:05d}"


def read_average_depth(path: str | Path) -> dict[tuple[int, int], float]:
    """Reads the table of site depths.

    Args:
        path: the CSV file, or the root of the layout.

    Returns:
        Depth by (bucket, site), larger is deeper [nm]

    Raises:
        FormatError: the header is not `0,1`, a key is not `depth_<bucket>_site_<id>`, a key stands twice, or a depth is
            not a positive number.
    """
    path = Path(path)
    if path.is_dir():
        path = average_depth_path(path)
    try:
        # utf-8-sig: the table passes through spreadsheets, which like to leave a byte-order mark
        rows = list(csv.reader(io.StringIO(path.read_text("utf-8-sig"))))
    except FileNotFoundError as absent:
        raise FormatError(path, "no such file; the table of site depths belongs at train/average_depth.csv") from absent
    except UnicodeDecodeError as wrong:
        raise FormatError(path, f"not a text file ({wrong})") from wrong
    if not rows or rows[0] != ["0", "1"]:
        got = ",".join(rows[0]) if rows else "an empty file"
        raise FormatError(path, f"line 1: expected the header `0,1`, got {got!r}")
    depths: dict[tuple[int, int], float] = {}
    for line, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        found = _SITE_KEY.fullmatch(row[0])
        if len(row) != 2 or not found:
            raise FormatError(path, f"line {line}: expected `depth_<bucket>_site_<id>,<depth>`, got {','.join(row)!r}")
        try:
            depth_nm = float(row[1])
        except ValueError as wrong:
            raise FormatError(path, f"line {line}: the depth {row[1]!r} is not a number") from wrong
        if not (math.isfinite(depth_nm) and depth_nm > 0):
            raise FormatError(path, f"line {line}: the depth {row[1]!r} is not a positive number of nm")
        key = (int(found[1]), int(found[2]))
        if key in depths:
            raise FormatError(path, f"line {line}: the site {row[0]} stands twice")
        depths[key] = depth_nm
    return depths


def write_average_depth(path: str | Path, depths: dict[tuple[int, int], float]) -> None:
    """Writes the table of site depths, sorted, at once or not at all.

    Args:
        path: the CSV file to write; its folder is made.
        depths: depth by (bucket, site), larger is deeper [nm]
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["0,1"] + [f"{site_key(*key)},{float(depths[key])!r}" for key in sorted(depths)]
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write("\n".join(lines) + "\n")
        Path(temporary).chmod(0o644)  # mkstemp makes files for the owner only; a data folder is shared
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise
