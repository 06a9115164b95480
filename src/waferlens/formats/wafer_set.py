"""The folder layout of a data set of wafer fields: the names of its files, its table of fields, its tables of dies.

manifest.json         ours: what the folder was made from
SHA256SUMS            the sum of every file, as `sha256sum -c` reads it
fields.csv            one row a field: what a line knows of it
image/000000.tif      uint16 `h w`
track/000000.csv      the stage's trace; its x encoder is 0 at the outer edge of column 0
height/000000.tif     float32 `h w` above the carrier [um]; only where truth is told
dies/000000.json      the sites of the die lattice; only where truth is told
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from waferlens.errors import FormatError, InputError
from waferlens.records import Die

MANIFEST_FILE = "manifest.json"
SUMS_FILE = "SHA256SUMS"
FIELDS_FILE = "fields.csv"


@dataclass(frozen=True, slots=True)
class FieldRow:
    """What a line knows of a field."""

    field: str
    wafer: str
    """What splits go by."""
    carrier: str
    """tape, glass, silicon or metal."""
    bright: int
    """1 for silicon and metal."""
    magnification: float
    na: float
    focus_policy: str
    """fixed or track."""
    z_ref_um: float
    """Height above the carrier at which the raw reading is 0 [um]"""
    die_thickness_um: float
    """Nominal [um]"""
    level_tops_um: tuple[float, ...]
    """Nominal, above the carrier, rising [um]"""


def image_path(root: Path, field: str) -> Path:
    return root / "image" / f"{field}.tif"


def track_path(root: Path, field: str) -> Path:
    return root / "track" / f"{field}.csv"


def height_path(root: Path, field: str) -> Path:
    return root / "height" / f"{field}.tif"


def dies_path(root: Path, field: str) -> Path:
    return root / "dies" / f"{field}.json"


def write_fields(root: Path, rows: Iterable[FieldRow]) -> None:
    """Writes the table of fields."""
    names = [one.name for one in fields(FieldRow)]
    with (root / FIELDS_FILE).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for row in rows:
            told = asdict(row)
            told["level_tops_um"] = ";".join(f"{top:g}" for top in row.level_tops_um)
            writer.writerow([told[name] for name in names])


def read_fields(root: Path) -> list[FieldRow]:
    """The table of fields.

    Raises:
        InputError: there is none.
        FormatError: a row is not whole; says which.
    """
    path = root / FIELDS_FILE
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as wrong:
        raise InputError(root, f"holds no fields of wafers ({path.name}: {wrong.strerror or wrong})") from wrong
    read = []
    for number, row in enumerate(rows, start=2):
        try:
            read.append(
                FieldRow(
                    row["field"],
                    row["wafer"],
                    row["carrier"],
                    int(row["bright"]),
                    float(row["magnification"]),
                    float(row["na"]),
                    row["focus_policy"],
                    float(row["z_ref_um"]),
                    float(row["die_thickness_um"]),
                    tuple(float(top) for top in row["level_tops_um"].split(";")),
                )
            )
        except (KeyError, TypeError, ValueError, AttributeError) as wrong:
            raise FormatError(path, f"line {number}: {type(wrong).__name__}: {wrong}") from wrong
    return read


def write_dies(path: Path, dies: Sequence[Die]) -> None:
    """Writes the sites of a field."""
    path.write_text(json.dumps([asdict(die) for die in dies], indent=1) + "\n")


def read_dies(path: Path) -> list[Die]:
    """The sites of a field.

    Raises:
        FormatError: the file is no such list.
    """
    try:
        return [
            Die(
                tuple(one["box_um"]),
                one["state"],
                one["top_um"],
                tuple(tuple(level) for level in one["levels"]),
            )
            for one in json.loads(path.read_text())
        ]
    except (OSError, ValueError, KeyError, TypeError) as wrong:
        raise FormatError(path, f"is no list of dies: {wrong}") from wrong
