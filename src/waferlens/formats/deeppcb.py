"""DeepPCB: a thousand and more pairs of a tested board and its template, with boxes around the defects.

    PCBData/trainval.txt                        a line a pair: group20085/20085/20085000.jpg group20085/20085_not/….txt
    PCBData/group20085/20085/20085000_test.jpg  the tested board: the list leaves `_test` out
    PCBData/group20085/20085/20085000_temp.jpg  its template
    PCBData/group20085/20085_not/20085000.txt   a line a defect: x1 y1 x2 y2 class

Boxes are read as whole pixels, the last ones included: a box from x1 to x2 covers x2 - x1 + 1 columns. Nothing in the
data set says so; its corners do, which reach 639 and never 640 on images of 640 px. The defects themselves, in the
difference of 3,234 aligned pairs, have 12.6 px of the box to their left and 11.9 to their right, 11.8 above and 11.5
below: were the last column not part of the box, there should be one more on the right than on the left.

Copper is black on these images, so what is missing of it is light, and what is too much is dark.

Source: Tang et al., "Online PCB defect detector on a new PCB defect dataset", arXiv:1902.06197;
github.com/tangsanli5201/DeepPCB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from waferlens.errors import FormatError, InputError
from waferlens.records import Finding

SIDE_PX = 640
"""Width and height of every image [px]"""
KINDS = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
"""The classes 1 to 6."""
_MISSING = ("open", "mousebite", "pin-hole")


@dataclass(frozen=True, slots=True)
class Pair:
    """A tested board with its template."""

    name: str
    """As `20085000`."""
    group: str
    """The board it was cut from, as `group20085`: pairs of a group belong on one side of a split"""
    test: Path
    template: Path
    truth: Path


def read_pairs(folder: str | Path, split: str = "trainval") -> list[Pair]:
    """The pairs of a split in the order of its list.

    Args:
        folder: `PCBData`, or the folder that holds it.
        split: the name of the list without `.txt`.

    Raises:
        InputError: the list or a file it names is not there.
        FormatError: a line of the list is wrong.
    """
    root = Path(folder)
    listed = root / f"{split}.txt"
    if not listed.is_file() and (root / "PCBData" / f"{split}.txt").is_file():
        root, listed = root / "PCBData", root / "PCBData" / f"{split}.txt"
    pairs: dict[str, Pair] = {}
    for number, line in _lines(listed):
        parts = line.split()
        if len(parts) != 2 or not parts[0].endswith(".jpg") or not parts[1].endswith(".txt"):
            raise FormatError(listed, f"line {number}: expected `group…/….jpg group…_not/….txt`, got {line[:80]!r}")
        image, truth = (PurePosixPath(part) for part in parts)
        if any(path.is_absolute() or ".." in path.parts or len(path.parts) < 2 for path in (image, truth)):
            raise FormatError(listed, f"line {number}: names a file outside its folder: {line[:80]!r}")
        if str(image) in pairs:
            raise FormatError(listed, f"line {number}: names {image} for the second time")
        stem = root / image.with_suffix("")
        pair = Pair(
            image.stem,
            image.parts[0],
            stem.with_name(f"{stem.name}_test.jpg"),
            stem.with_name(f"{stem.name}_temp.jpg"),
            root / truth,
        )
        for path in (pair.test, pair.template, pair.truth):
            if not path.is_file():
                raise InputError(path, f"is not there, but line {number} of {listed.name} names it")
        pairs[str(image)] = pair
    if not pairs:
        raise FormatError(listed, "names no pairs")
    return list(pairs.values())


def read_truth(path: str | Path) -> list[Finding]:
    """The labelled defects of a pair. Their score and contrast are NaN, their area is that of the box.

    Args:
        path: as `20085_not/20085000.txt`.

    Raises:
        InputError: the file cannot be read.
        FormatError: a line is no box with a class, or there is none: every pair of DeepPCB has a defect.
    """
    found = []
    for number, line in _lines(Path(path)):
        try:
            x1, y1, x2, y2, kind = (int(part) for part in line.split())
        except ValueError:
            raise FormatError(
                path, f"line {number}: expected five whole numbers `x1 y1 x2 y2 class`, got {line[:80]!r}"
            ) from None
        if not 1 <= kind <= len(KINDS):
            raise FormatError(path, f"line {number}: class {kind}; there are 1 to {len(KINDS)}: {', '.join(KINDS)}")
        if x2 < x1 or y2 < y1:
            raise FormatError(path, f"line {number}: the box {x1} {y1} {x2} {y2} ends before it begins")
        if min(x1, y1) < 0 or max(x2, y2) >= SIDE_PX:
            raise FormatError(path, f"line {number}: the box {x1} {y1} {x2} {y2} lies outside the {SIDE_PX} px image")
        found.append(_finding(KINDS[kind - 1], (x1 - 0.5, y1 - 0.5, x2 + 0.5, y2 + 0.5)))
    if not found:
        raise FormatError(path, "holds no box; every pair of DeepPCB has at least one defect")
    return found


def _finding(kind: str, box: tuple[float, float, float, float]) -> Finding:
    side: Literal["light", "dark"] = "light" if kind in _MISSING else "dark"
    area_px = (box[2] - box[0]) * (box[3] - box[1])
    return Finding(kind, box, math.nan, area_px, math.nan, side, True, "labelled")


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not empty, with their numbers."""
    try:
        text = path.read_text("utf-8")
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}; is this a folder of DeepPCB?") from wrong
    except UnicodeDecodeError as wrong:
        raise FormatError(path, f"not a text: {wrong.reason} at byte {wrong.start}") from wrong
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def holds(folder: str | Path) -> bool:
    """Whether a folder is one of DeepPCB: `PCBData`, or the folder that holds it."""
    return any((root / "trainval.txt").is_file() for root in (Path(folder), Path(folder) / "PCBData"))
