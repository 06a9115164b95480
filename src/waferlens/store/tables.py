"""Results as CSV: one row an image, one column a number, the unit in the column's name.

A table is made from the database when a run ends, never appended to: an interrupted run and its resumption give the
same file as a run without interruption.
"""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waferlens.errors import InputError
from waferlens.store.results import Store
from waferlens.store.rows import OK, QUARANTINED

_ABOUT = ("path", "page", "verdict", "verdict_reason", "novelty", "reason", "map_file", "map_index")


def column(name: str, unit: str) -> str:
    """The column of a measurand: `depth_nm`, `opening_area_px2`; `orientation_deg` has its unit in its name."""
    suffix = unit.replace(" ", "_")
    return name if unit == "1" or name.endswith(f"_{suffix}") else f"{name}_{suffix}"


def write_results_csv(
    store: Store, run: int, path: str | Path, order: Sequence[str], advance: Callable[[int], None] | None = None
) -> int:
    """Writes the images that were measured, at once or not at all.

    Args:
        store: the results.
        run: which run.
        path: the file; replaced if it is there.
        order: names of facts and measurands in the order of the columns; others follow by name.
        advance: called with the number of rows written since the last call.

    Returns:
        Number of rows.

    Raises:
        InputError: the database cannot be read or the file not be written.
    """
    place = {name: index for index, name in enumerate(order)}
    numbers = sorted(store.units(run), key=lambda told: (place.get(told[0], len(place)), told))
    names = [column(name, unit) for name, unit in numbers]
    index_of = {key: 3 * index for index, key in enumerate(numbers)}
    facts = sorted(store.facts(run), key=lambda name: (place.get(name, len(place)), name))
    count = 0
    with written(path) as write:
        write([*_ABOUT, *facts, *(f"{name}{end}" for name in names for end in ("", "_low", "_high"))])
        for image in store.images(run, findings=False):
            if image.status != OK:
                continue
            cells: list[str] = [""] * (3 * len(numbers))
            for name, value, unit, low, high in image.measurements:
                at = index_of[name, unit]
                cells[at : at + 3] = digits(value), digits(low), digits(high)
            about = [getattr(image, name) for name in _ABOUT]
            about[4] = digits(image.novelty)
            write([*about, *(image.facts.get(name, "") for name in facts), *cells])
            count += 1
            if advance is not None and count % 1000 == 0:
                advance(1000)
    return count


def write_quarantine_csv(store: Store, run: int, path: str | Path) -> int:
    """Writes the images that could not be measured at all, with the reason of each.

    Returns:
        Number of rows.

    Raises:
        InputError: the database cannot be read or the file not be written.
    """
    count = 0
    with written(path) as write:
        write(["path", "page", "reason"])
        for image in store.images(run, measurements=False, findings=False):
            if image.status == QUARANTINED:
                write([image.path, image.page, image.reason])
                count += 1
    return count


def digits(value: float | None) -> str:
    """Seven digits: what float32 maps can carry, and the same text on every machine; empty for what is not known."""
    return "" if value is None else f"{value:.7g}"


@contextmanager
def written(path: str | Path) -> Iterator[Callable[[Sequence[Any]], Any]]:
    """Hands out what writes a row of a CSV file; the file appears whole, or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    except OSError as wrong:
        raise InputError(path, f"cannot be written: {wrong.strerror or wrong}") from wrong
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            yield csv.writer(file, lineterminator="\n").writerow
        Path(temporary).chmod(0o644)  # mkstemp makes files for the owner only
        Path(temporary).replace(path)
    except BaseException as wrong:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(wrong, OSError):
            raise InputError(path, f"cannot be written: {wrong.strerror or wrong}") from wrong
        raise
