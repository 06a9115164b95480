"""Tables of KLARF 1.2: rows without marks, of which only the columns say where one ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from waferlens.errors import FormatError
from waferlens.formats.klarf_record import IMAGES, WHOLE
from waferlens.formats.klarf_text import Images, Token, Value, value_of

_LENGTHS = ("XREL", "YREL", "XSIZE", "YSIZE", "X", "Y")
"""Columns that are numbers whatever the tool."""


def columns_of(values: list[Token], path: str | Path, where: str) -> tuple[str, ...]:
    """The names of a spec, as many as it says.

    Raises:
        FormatError: they are more or fewer, or one comes twice.
    """
    names = tuple(value.text for value in values[1:])
    count = whole(values[0], path, where) if values else 0
    if count != len(names) or not names:
        raise FormatError(path, f"{where}: says {count} columns, and {len(names)} names follow")
    if len(set(names)) != len(names):
        raise FormatError(path, f"{where}: names a column twice")
    return names


def defect_rows(values: list[Token], columns: tuple[str, ...], path: str | Path, where: str) -> list[tuple[Value, ...]]:
    """The rows of a DefectList, whichever way its images are told.

    Raises:
        FormatError: the values do not fill the columns row by row.
    """
    try:
        return list(rows_of(values, columns, True, path, where))
    except FormatError:
        if not any(name.upper() in IMAGES for name in columns) or "IMAGECOUNT" not in columns:
            raise
        try:
            return list(rows_of(values, columns, False, path, where))
        except FormatError:
            pass
        raise


def rows_of(
    values: list[Token], columns: tuple[str, ...], counted: bool, path: str | Path, where: str
) -> Iterator[tuple[Value, ...]]:
    """Row by row what the values are by the columns.

    Args:
        values: all of the list.
        columns: their names.
        counted: whether a list of images begins with their number.
        path: what to call the file in an error.
        where: what to call the list.

    Raises:
        FormatError: the values end inside a row, or one is not what its column holds.
    """
    at, number = 0, 0
    while at < len(values):
        number += 1
        row: list[Value] = []
        first = values[at]
        for name in columns:
            if at >= len(values) and not (name.upper() in IMAGES and not counted):
                raise FormatError(path, f"{where}: ends inside row {number} (line {first.line}), before its {name}")
            if name.upper() in IMAGES:
                images, at = _images(values, at, columns, row, counted, path, where)
                row.append(images)
                continue
            value = value_of(values[at], path)
            place = f"{where}: row {number} (line {values[at].line})"
            if name in WHOLE and (not isinstance(value, int)):
                raise FormatError(path, f"{place}: {name} = {values[at].text!r}; expected a whole number")
            if name in _LENGTHS and not isinstance(value, int | float):
                raise FormatError(path, f"{place}: {name} = {values[at].text!r}; expected a number")
            row.append(float(value) if name in _LENGTHS else value)
            at += 1
        yield tuple(row)


def _images(
    values: list[Token],
    at: int,
    columns: tuple[str, ...],
    row: list[Value],
    counted: bool,
    path: str | Path,
    where: str,
) -> tuple[Images, int]:
    announced = row[columns.index("IMAGECOUNT")] if "IMAGECOUNT" in columns[: len(row)] else None
    count = announced
    if counted:
        count = whole(values[at], path, where)
        at += 1
        if announced is not None and count != announced:
            raise FormatError(
                path, f"{where} (line {values[at - 1].line}): IMAGECOUNT = {announced}, and its list has {count}"
            )
    if not isinstance(count, int) or count < 0 or at + 2 * count > len(values):
        raise FormatError(path, f"{where}: a list of {count} images reaches beyond the end of DefectList")
    numbers = [whole(value, path, where) for value in values[at : at + 2 * count]]
    return Images(tuple(zip(numbers[::2], numbers[1::2], strict=True))), at + 2 * count


def whole(token: Token, path: str | Path, where: str) -> int:
    """The whole number that a word is.

    Raises:
        FormatError: it is none.
    """
    value = value_of(token, path)
    if not isinstance(value, int):
        raise FormatError(path, f"{where} (line {token.line}): {token.text!r} is no whole number")
    return value
