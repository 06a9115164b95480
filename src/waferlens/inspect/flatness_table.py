"""Flatness as files: a table with one row a site, and the whole as JSON; steps of dies, a row a level."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from waferlens.errors import InputError
from waferlens.ops.flatness_record import Flatness
from waferlens.ops.step_height import StepHeight

_SHARES = ("inside_share", "known_share")
_RANGES = ("range_um", "deviation_um", "range_global_um", "range_raw_um")
_TILTS = ("tilt_x_um_per_mm", "tilt_y_um_per_mm")
SITE_COLUMNS = (
    "site", "row", "column", "x0_um", "y0_um", "x1_um", "y1_um", "partial", *_SHARES, *_RANGES, *_TILTS, "reason",
)  # fmt: skip


STEP_COLUMNS = (
    "die", "level", "x0_um", "y0_um", "x1_um", "y1_um", "step_um", "sigma_um", "street_share", "known_share", "reason",
)  # fmt: skip


def write_flatness(csv_path: Path, json_path: Path, result: Flatness) -> None:
    """Writes flatness; six digits, what is not known empty. Without sites the table has its heading only.

    Raises:
        InputError: a file cannot be written.
    """
    _table(csv_path, SITE_COLUMNS, result.rows())
    try:
        json_path.write_text(json.dumps(result.as_json(), indent=1, allow_nan=False) + "\n")
    except OSError as wrong:
        raise InputError(json_path, f"cannot be written: {wrong.strerror}") from wrong


def write_steps(csv_path: Path, steps: Sequence[StepHeight]) -> None:
    """Writes the steps of dies; six digits, what is not known empty.

    Raises:
        InputError: the file cannot be written.
    """
    _table(csv_path, STEP_COLUMNS, [step.row() for step in steps])


def _table(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    try:
        with path.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows([_cell(row[name]) for name in columns] for row in rows)
    except OSError as wrong:
        raise InputError(path, f"cannot be written: {wrong.strerror}") from wrong


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) >= 1000 else f"{value:.6g}"
    return "" if value is None else value
