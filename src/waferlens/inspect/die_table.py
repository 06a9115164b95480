"""Die maps and focus plans as files: a table with one row a site or field, and the whole as JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from waferlens.errors import InputError
from waferlens.ops.die_map import DieMap
from waferlens.ops.focus_plan import FocusPlan

_BOX = ("x0_um", "y0_um", "x1_um", "y1_um")
_SIGMAS = ("x0_sigma_um", "y0_sigma_um", "x1_sigma_um", "y1_sigma_um")
DIE_COLUMNS = ("site", *_BOX, "state", "top_um", "levels", *_SIGMAS, "reason")
_HEIGHTS = ("target_um", "low_um", "high_um", "slices", "slices_um", "sigma_um")
FOCUS_COLUMNS = ("field", *_BOX, "state", *_HEIGHTS, "missing", "safe_um", "flags")


def write_die_map(csv_path: Path, json_path: Path, found: DieMap) -> None:
    """Writes a die map; lengths to 1 nm, what is not known empty.

    Raises:
        InputError: a file cannot be written.
    """
    _write(csv_path, json_path, DIE_COLUMNS, found.rows(), found.as_json())


def write_focus_plan(csv_path: Path, json_path: Path, plan: FocusPlan) -> None:
    """Writes a focus plan; lengths to 1 nm, what is not known empty.

    Raises:
        InputError: a file cannot be written.
    """
    _write(csv_path, json_path, FOCUS_COLUMNS, plan.rows(), plan.as_json())


def _write(
    csv_path: Path, json_path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]], whole: dict[str, Any]
) -> None:
    try:
        with csv_path.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows([_cell(row[name]) for name in columns] for row in rows)
        json_path.write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n")
    except OSError as wrong:
        raise InputError(wrong.filename or csv_path, f"cannot be written: {wrong.strerror}") from wrong


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else value
