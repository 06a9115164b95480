"""The stage's trace as S0's tool writes it: CSV with seven header rows and at least 25 columns.

Counted from 0, column 1 is the encoder along the scan, 4 the encoder across it, 9 the auto-focus reading and 24 its
valid flag. Ours adds the height of focus in column 25, and says in its header what the raw numbers mean. Every other
column is kept as it came and written back.

Source: S0 (the layout of its traces, as its public scripts read them).
"""

from __future__ import annotations

import io
import math
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

    Raises:
        InputError: there is no such file.
        FormatError: a row is too short or holds what is no number; says which row.
    """
    path = Path(path)
    try:
        text = path.read_text("utf-8-sig", errors="replace")
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}") from wrong
    lines = text.splitlines()
    header, body = tuple(lines[:HEADER_ROWS]), "\n".join(lines[HEADER_ROWS:])
    if not body.strip():
        raise FormatError(path, f"holds no sample after its {HEADER_ROWS} header rows")
    try:
        table = np.loadtxt(io.StringIO(body), delimiter=",", ndmin=2, dtype=np.float64)
    except ValueError as wrong:
        raise FormatError(path, f"{_first_fault(lines)}") from wrong
    if table.shape[1] < LEAST_COLUMNS:
        raise FormatError(path, f"has {table.shape[1]} columns; a stage trace has at least {LEAST_COLUMNS}")
    counts = table[:, (X, Y, Z)]
    if not np.isfinite(counts).all():
        row = int(np.flatnonzero(~np.isfinite(counts).all(axis=1))[0]) + HEADER_ROWS + 1
        raise FormatError(path, f"line {row}: an encoder or Z is not finite")
    ours = bool(header) and header[0].startswith(_OURS)
    told = _constants(header) if ours else {}
    objective = table[:, OBJECTIVE].copy() if ours and table.shape[1] > OBJECTIVE else None
    if objective is not None and not np.isfinite(objective).any():
        objective = None
    known = {X, Y, Z, VALID, *([OBJECTIVE] if ours else [])}
    return StageTrace(
        x_counts=counts[:, 0].astype(np.int64),
        y_counts=counts[:, 1].astype(np.int64),
        z_counts=counts[:, 2].astype(np.int64),
        valid=table[:, VALID] != 0,
        objective_z_um=objective,
        further={number: table[:, number].copy() for number in range(table.shape[1]) if number not in known},
        header=header,
        **told,
    )


def write_trace(path: str | Path, trace: StageTrace) -> None:
    """Writes a trace whole or not at all; what `read_trace` reads from it equals the trace."""
    count = len(trace.x_counts)
    width = max([LEAST_COLUMNS, *(number + 1 for number in trace.further)])
    if trace.objective_z_um is not None:
        width = max(width, OBJECTIVE + 1)
    columns: list[np.ndarray] = [np.zeros(count, np.int64)] * width
    for number, values in trace.further.items():
        columns[number] = values
    columns[X], columns[Y], columns[Z] = trace.x_counts, trace.y_counts, trace.z_counts
    columns[VALID] = trace.valid.astype(np.int64)
    if trace.objective_z_um is not None:
        columns[OBJECTIVE] = trace.objective_z_um
    words = [[_word(value) for value in column.tolist()] for column in columns]
    rows = [",".join(row) for row in zip(*words, strict=True)]
    text = "\n".join([*_header(trace, width), *rows]) + "\n"
    write_whole(Path(path), lambda beside: beside.write_text(text))


def _header(trace: StageTrace, width: int) -> list[str]:
    """The header it came with where that says the same; else one of ours."""
    names = [f"column_{number}" for number in range(width)]
    for number, name in ((X, "x_encoder"), (Y, "y_encoder"), (Z, "z"), (VALID, "valid"), (OBJECTIVE, "objective_z_um")):
        if number < width:
            names[number] = name
    foreign = bool(trace.header) and not trace.header[0].startswith(_OURS)
    if foreign and trace.objective_z_um is None:
        return list(trace.header)
    return [
        _OURS,
        *(f"{key},{getattr(trace, key)!r},{what}" for key, what in _TOLD.items()),
        "encoders,32 counts are 1 um",
        "z,grows downwards; height [um] = z_ref_um - z / 32",
        "",
        ",".join(names),
    ]


def _constants(header: tuple[str, ...]) -> dict[str, float]:
    told = {}
    for line in header:
        key, _, rest = line.partition(",")
        if key in _TOLD:
            told[key] = float(rest.partition(",")[0])
    return told


def _word(value: float) -> str:
    if isinstance(value, float):
        if math.isfinite(value) and value == int(value):
            return str(int(value))
        return repr(value)
    return str(value)


def _first_fault(lines: list[str]) -> str:
    """Which row stops the reading, and by what."""
    width = None
    for number, line in enumerate(lines[HEADER_ROWS:], start=HEADER_ROWS + 1):
        if not line.strip():
            continue
        words = line.split(",")
        for place, word in enumerate(words):
            try:
                float(word)
            except ValueError:
                return f"line {number}, column {place}: {word.strip()!r} is no number"
        if width is not None and len(words) != width:
            return f"line {number}: {len(words)} columns, the rows before it have {width}"
        width = len(words)
    return "cannot be read as numbers"
