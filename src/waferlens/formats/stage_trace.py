"""The stage's trace as S0's tool writes it: CSV with seven header rows and at least 25 columns.

Counted from 0, column 1 is the encoder along the scan, 4 the encoder across it, 9 the auto-focus reading and 24 its
valid flag. Ours adds the height of focus in column 25, and says in its header what the raw numbers mean. Every other
column is kept as it came and written back.

Source: S0 (the layout of its traces, as its public scripts read them).
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from waferlens.errors import FormatError, InputError
from waferlens.formats.height_parts import write_whole
from waferlens.records import StageTrace

HEADER_ROWS = 7
X, Y, Z, VALID, OBJECTIVE = 1, 4, 9, 24, 25
LEAST_COLUMNS = VALID + 1
_OURS = "waferlens stage trace"
_TOLD = {"z_ref_um": "height above the carrier at which Z is 0 [um]", "rate_hz": "samples a second [Hz]"}


def read_trace(path: str | Path) -> StageTrace:
    """A trace, sample by sample.

    Columns we give no meaning may hold anything, and those that hold more than numbers are kept as text.

    Raises:
        InputError: there is no such file.
        FormatError: a row is too short, or an encoder, Z or the flag is no whole number; says which row.
    """
    path = Path(path)
    try:
        # what is not UTF-8 in a foreign header comes back from `write_trace` as it was
        text = path.read_text("utf-8-sig", errors="surrogateescape")
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}") from wrong
    lines = text.splitlines()
    header, body = tuple(lines[:HEADER_ROWS]), lines[HEADER_ROWS:]
    _require_header(path, header)
    if not any(line.strip() for line in body):
        raise FormatError(path, f"holds no sample after its {HEADER_ROWS} header rows")
    columns = _columns(path, body)
    if len(columns) < LEAST_COLUMNS:
        raise FormatError(
            path,
            f"line {HEADER_ROWS + 1}: {len(columns)} columns; a stage trace has at least {LEAST_COLUMNS} (counted "
            f"from 0, {X} and {Y} are the encoders, {Z} is Z, {VALID} its valid flag)",
        )
    counts = {number: _whole(path, columns[number], number) for number in (X, Y, Z, VALID)}
    ours = header[0].startswith(_OURS)
    told = _constants(path, header) if ours else {}
    objective = columns[OBJECTIVE] if ours and len(columns) > OBJECTIVE else None
    if objective is not None and objective.dtype.kind != "f":
        raise FormatError(path, f"column {OBJECTIVE}: the height of focus is not a number in every row")
    if objective is not None and not np.isfinite(objective).any():
        objective = None
    known = {X, Y, Z, VALID, *([OBJECTIVE] if ours else [])}
    return StageTrace(
        x_counts=counts[X],
        y_counts=counts[Y],
        z_counts=counts[Z],
        valid=counts[VALID] != 0,
        objective_z_um=objective,
        further={number: column for number, column in enumerate(columns) if number not in known},
        header=header,
        **told,
    )


def write_trace(path: str | Path, trace: StageTrace) -> None:
    """Writes a trace whole or not at all; what `read_trace` reads from it equals the trace.

    Raises:
        InputError: the column of the height of focus holds something else.
    """
    count = len(trace.x_counts)
    foreign = _foreign(trace)
    if OBJECTIVE in trace.further and not foreign:
        raise InputError(path, f"column {OBJECTIVE} of this trace is taken; the height of focus stands there in ours")
    width = max([LEAST_COLUMNS, *(number + 1 for number in trace.further)])
    if trace.objective_z_um is not None:
        width = max(width, OBJECTIVE + 1)
    blank = ["0"] * count
    words: list[list[str]] = [blank] * width
    if width > OBJECTIVE and not foreign:
        words[OBJECTIVE] = ["nan"] * count
    for number, values in trace.further.items():
        words[number] = _words(values)
    words[X], words[Y], words[Z] = _words(trace.x_counts), _words(trace.y_counts), _words(trace.z_counts)
    words[VALID] = _words(trace.valid.astype(np.int64))
    if trace.objective_z_um is not None:
        words[OBJECTIVE] = _words(trace.objective_z_um)
    text = "\n".join([*_header(trace, width), *map(",".join, zip(*words, strict=True))]) + "\n"
    write_whole(Path(path), lambda beside: beside.write_text(text, "utf-8", errors="surrogateescape"))


def _header(trace: StageTrace, width: int) -> list[str]:
    """The header it came with where that says the same; else one of ours."""
    names = [f"column_{number}" for number in range(width)]
    for number, name in ((X, "x_encoder"), (Y, "y_encoder"), (Z, "z"), (VALID, "valid"), (OBJECTIVE, "objective_z_um")):
        if number < width:
            names[number] = name
    if _foreign(trace):
        return list(trace.header)
    return [
        _OURS,
        *(f"{key},{getattr(trace, key)!r},{what}" for key, what in _TOLD.items()),
        "encoders,32 counts are 1 um",
        "z,grows downwards; height [um] = z_ref_um - z / 32",
        "",
        ",".join(names),
    ]


def _foreign(trace: StageTrace) -> bool:
    """Whether it came from another program and says nothing that its header cannot hold."""
    return bool(trace.header) and not trace.header[0].startswith(_OURS) and trace.objective_z_um is None


def _constants(path: Path, header: tuple[str, ...]) -> dict[str, float]:
    told = {}
    for number, line in enumerate(header, start=1):
        key, _, rest = line.partition(",")
        if key in _TOLD:
            word = rest.partition(",")[0]
            try:
                told[key] = float(word)
            except ValueError as wrong:
                raise FormatError(path, f"line {number}: {key} is {word!r}, which is no number") from wrong
    return told


def _require_header(path: Path, header: tuple[str, ...]) -> None:
    """A file that begins with samples would lose its first seven without a word."""
    for number, line in enumerate(header, start=1):
        words = line.split(",")
        if len(words) >= LEAST_COLUMNS and all(_number(words[place]) is not None for place in (X, Y, Z, VALID)):
            raise FormatError(path, f"line {number} is a sample; a stage trace begins with {HEADER_ROWS} header rows")
    if not header:
        raise FormatError(path, "the file is empty")


def _columns(path: Path, body: list[str]) -> list[np.ndarray]:
    """The columns as floats, or as text where one of them holds more than numbers."""
    try:
        table = np.loadtxt(io.StringIO("\n".join(body)), delimiter=",", ndmin=2, dtype=np.float64, comments=None)
    except ValueError:
        return _mixed_columns(path, body)
    return [column.copy() for column in table.T]


def _mixed_columns(path: Path, body: list[str]) -> list[np.ndarray]:
    rows: list[list[str]] = []
    for number, line in enumerate(body, start=HEADER_ROWS + 1):
        if not line.strip():
            continue
        words = line.split(",")
        if rows and len(words) != len(rows[0]):
            raise FormatError(path, f"line {number}: {len(words)} columns, the rows before it have {len(rows[0])}")
        for place in (X, Y, Z, VALID):
            if place < len(words) and _number(words[place]) is None:
                raise FormatError(path, f"line {number}, column {place}: {words[place].strip()!r} is no number")
        rows.append(words)
    columns = []
    for words in zip(*rows, strict=True):
        try:
            columns.append(np.array(words, np.float64))
        except ValueError:
            columns.append(np.array(words))
    return columns


def _whole(path: Path, column: np.ndarray, number: int) -> np.ndarray:
    """A column as the whole numbers it must hold."""
    bad = np.flatnonzero(~((column == np.rint(column)) & (np.abs(column) < 2.0**53)))
    if len(bad):
        name = {X: "the X encoder", Y: "the Y encoder", Z: "Z", VALID: "the valid flag"}[number]
        raise FormatError(
            path,
            f"sample {bad[0]} (line {bad[0] + HEADER_ROWS + 1} where no row is empty), column {number}: {name} is "
            f"{column[bad[0]]:g}, which is no whole number of counts",
        )
    return column.astype(np.int64)


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _words(values: np.ndarray) -> list[str]:
    """Each value so that it reads back the same; whole numbers without a point."""
    if values.dtype.kind == "f" and np.all((values == np.rint(values)) & (np.abs(values) < 2.0**53)):
        values = values.astype(np.int64)
    if values.dtype.kind == "f":
        return [word.removesuffix(".0") for word in map(repr, values.tolist())]
    return list(map(str, values.tolist()))
