"""A data set of fields of wafers, field by field: image, trace, product, and truth where it is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from waferlens.errors import FormatError, InputError
from waferlens.formats import wafer_set
from waferlens.formats.stage_trace import read_trace
from waferlens.records import Die, Product, StageTrace


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One field of a data set."""

    name: str
    wafer: str
    """What splits go by."""
    bright: bool
    """Whether its carrier is bright (silicon, metal) and not dark (tape, glass)."""
    pitch_um: float
    """Of image and height map [um]"""
    image: np.ndarray
    """`h w`, as the file has it [grey]"""
    trace: StageTrace
    product: Product
    height_um: np.ndarray | None
    """`h w` truth, None where it is not told [um]"""
    dies: list[Die] | None
    """Truth of the sites, None where it is not told."""

    @property
    def white(self) -> float:
        """The greatest grey value that the image's type holds."""
        return float(np.iinfo(self.image.dtype).max)


def read_fields(root: Path, keep: Callable[[str], bool] = lambda wafer: True) -> Iterator[Field]:
    """The fields of a data set whose wafer is kept, in the order of its table.

    Raises:
        InputError: the folder holds no such data set, or a file of it cannot be read.
    """
    pitch = float(manifest(root)["pitch_um"])
    for row in wafer_set.read_fields(root):
        if keep(row.wafer):
            yield _field(root, row, pitch)


def count_fields(root: Path, keep: Callable[[str], bool] = lambda wafer: True) -> int:
    """How many fields `read_fields` would give."""
    return len(wafers_of_fields(root, keep))


def wafers_of_fields(root: Path, keep: Callable[[str], bool] = lambda wafer: True) -> list[str]:
    """The wafer of each field that `read_fields` would give."""
    return [row.wafer for row in wafer_set.read_fields(root) if keep(row.wafer)]


def manifest(root: Path) -> dict[str, Any]:
    """What the data set says of itself.

    Raises:
        InputError: there is none, or it is of another kind.
    """
    path = root / wafer_set.MANIFEST_FILE
    if not path.exists():
        raise InputError(root, f"holds no data set of fields (no {path.name}); `waferlens simulate wafer` makes one")
    try:
        told = json.loads(path.read_text())
    except ValueError as wrong:
        raise FormatError(path, f"is no JSON: {wrong}") from wrong
    if "pitch_um" not in told:
        raise FormatError(path, f"is the manifest of a {told.get('kind', 'data set of another kind')}, not of fields")
    return told


def _field(root: Path, row: wafer_set.FieldRow, pitch: float) -> Field:
    height_path, dies_path = wafer_set.height_path(root, row.field), wafer_set.dies_path(root, row.field)
    image_path = wafer_set.image_path(root, row.field)
    image = _pixels(image_path)
    if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
        raise FormatError(image_path, f"holds {image.shape} of {image.dtype}; a field is grey, of 8 or 16 bits")
    height = _pixels(height_path) if height_path.exists() else None
    if height is not None and height.shape != image.shape:
        raise FormatError(height_path, f"is {height.shape[1]}x{height.shape[0]} px, its image {image.shape[::-1]}")
    return Field(
        row.field,
        row.wafer,
        bool(row.bright),
        pitch,
        image,
        read_trace(wafer_set.track_path(root, row.field)),
        Product(row.die_thickness_um, tuple(row.level_tops_um)),
        height,
        wafer_set.read_dies(dies_path) if dies_path.exists() else None,
    )


def _pixels(path: Path) -> np.ndarray:
    try:
        return tifffile.imread(path)
    except (OSError, ValueError, tifffile.TiffFileError) as wrong:
        raise FormatError(path, f"cannot be read: {wrong}") from wrong
