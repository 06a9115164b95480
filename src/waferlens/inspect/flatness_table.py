"""Flatness as files: a table with one row a site, and the whole as JSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from waferlens.errors import InputError
from waferlens.ops.flatness_record import Flatness

_SHARES = ("inside_share", "known_share")
_RANGES = ("range_um", "deviation_um", "range_global_um", "range_raw_um")
_TILTS = ("tilt_x_um_per_mm", "tilt_y_um_per_mm")
SITE_COLUMNS = (
    "site", "row", "column", "x0_um", "y0_um", "x1_um", "y1_um", "partial", *_SHARES, *_RANGES, *_TILTS, "reason",
)  # fmt: skip


def write_flatness(csv_path: Path, json_path: Path, result: Flatness) -> None:
    """Writes flatness; six digits, what is not known empty. Without sites the table has its heading only.

    Raises:
        InputError: a file cannot be written.
    """
    try:
        with csv_path.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(SITE_COLUMNS)
            writer.writerows([_cell(row[name]) for name in SITE_COLUMNS] for row in result.rows())
        json_path.write_text(json.dumps(result.as_json(), indent=1, allow_nan=False) + "\n")
    except OSError as wrong:
        raise InputError(wrong.filename or csv_path, f"cannot be written: {wrong.strerror}") from wrong


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) >= 1000 else f"{value:.6g}"
    return "" if value is None else value
