"""KLARF, the defect files of inspection tools: versions 1.1, 1.2 and 1.8, read strictly and written.

A file that announces defects and is not understood must never look like a file without defects. So whatever does not
add up is refused: counts, columns, rows that end too soon, a list that is announced and not there, a summary that tells
another number of defects, a file that does not end with `EndOfFile;`.

What is not understood is kept and written back in the same version. See docs/klarf.md for the conventions.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from waferlens.errors import FormatError, InputError
from waferlens.formats.klarf_flat import flat_lines, read_flat
from waferlens.formats.klarf_nested import nested_lines, read_nested
from waferlens.formats.klarf_record import Klarf, KlarfWafer
from waferlens.formats.klarf_text import Images, tokens_of

VERSIONS = ("1.1", "1.2", "1.8")


def read_klarf(path: str | Path, check_counts: bool = True) -> Klarf:
    """Reads a KLARF file.

    Args:
        path: the file.
        check_counts: refuse a summary that tells another number of defects than there are in the list; a list from
            which a review tool has taken a sample is read with False.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is no KLARF of these versions, is truncated, or does not add up.
    """
    tokens = tokens_of(path)
    first = [token.text.upper() for token in tokens[:3]]
    if first[:1] == ["FILEVERSION"]:
        klarf = read_flat(tokens, path)
    elif first[:2] == ["RECORD", "FILERECORD"]:
        klarf = read_nested(tokens, path)
    else:
        raise FormatError(path, "no KLARF: begins with neither `FileVersion` (1.2) nor `Record FileRecord` (1.8)")
    if klarf.version not in VERSIONS:
        raise FormatError(path, f"a KLARF of version {klarf.version}; {', '.join(VERSIONS)} are read")
    if check_counts:
        for wafer in klarf.wafers:
            _check_counts(wafer, path)
    return klarf


def write_klarf(path: str | Path, klarf: Klarf) -> None:
    """Writes a KLARF file of the version that the record says, at once or not at all.

    Version 1.8 holds lengths as whole nm and areas as nm²: they are rounded to that, which changes nothing of a record
    that was read from such a file. Reading what was written gives the same record.

    Raises:
        InputError: the file cannot be written, a value has no place in it, or counts do not add up.
    """
    path = Path(path)
    if klarf.version not in VERSIONS:
        raise InputError(path, f"version {klarf.version} is not written; there are {', '.join(VERSIONS)}")
    if not klarf.wafers:
        raise InputError(path, "has no wafer to write")
    for wafer in klarf.wafers:
        try:
            _check_counts(wafer, path)
        except FormatError as wrong:
            raise InputError(path, wrong.reason) from wrong
    lines = list(nested_lines(klarf, path) if klarf.version == "1.8" else flat_lines(klarf, path))
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", newline="\n", dir=path.parent, prefix=path.name, suffix=".part", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write("\n".join(lines) + "\n")
        temporary.chmod(0o644)  # made for the owner only
        temporary.replace(path)
    except OSError as wrong:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise InputError(path, f"cannot be written: {wrong.strerror or wrong}") from wrong


def _check_counts(wafer: KlarfWafer, path: str | Path) -> None:
    """That the summary and the list tell the same number of defects, test by test where both name tests."""
    summary, defects = wafer.summary, wafer.defects
    for place, row in enumerate(defects.rows):
        if len(row) != len(defects.columns):
            raise FormatError(path, f"defect {place + 1} has {len(row)} values for {len(defects.columns)} columns")
        if "IMAGECOUNT" in defects.columns:
            shown = [value for value in row if isinstance(value, Images)]
            count = row[defects.columns.index("IMAGECOUNT")]
            if shown and len(shown[0].items) != count:
                raise FormatError(
                    path, f"defect {place + 1}: IMAGECOUNT = {count}, and {len(shown[0].items)} images are named"
                )
    if summary is None or "NDEFECT" not in summary.columns:
        return
    told = summary.column("NDEFECT")
    if "TESTNO" in summary.columns and "TEST" in defects.columns:
        tests = defects.column("TEST")
        for number, count in zip(summary.column("TESTNO"), told, strict=True):
            if tests.count(number) != count:
                raise FormatError(
                    path,
                    f"the wafer {wafer.wafer_id!r}: the summary tells {count} defects of test {number}, "
                    f"the list holds {tests.count(number)}",
                )
    total = sum(count for count in told if isinstance(count, int))
    if total != len(defects.rows):
        raise FormatError(
            path,
            f"the wafer {wafer.wafer_id!r}: the summary tells {total} defects, the list holds {len(defects.rows)}",
        )
