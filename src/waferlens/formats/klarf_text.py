"""KLARF's words and values, the same in all versions: numbers, quoted texts, bare words, lists of images."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from waferlens.errors import FormatError, InputError

MAX_BYTES = 2**30
"""Largest file that is read [byte]"""

_TOKEN = re.compile(r'"([^"\n]*)"|([;{},])|([^\s;{},"]+)')
_INT = re.compile(r"[+-]?[0-9]+")
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


class Word(str):
    """A value that is written without quotes: WAFER, DOWN, N."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Images:
    """The images of a defect, as IMAGELIST or IMAGEINFO name them."""

    items: tuple[tuple[Value, ...], ...] = ()
    """What is told of each: in 1.2 its number and kind; in 1.8 whatever the tool tells."""
    word: str = "Images"
    """How 1.8 announces them."""


Value = int | float | str | Images


@dataclass(frozen=True, slots=True)
class Token:
    """A word of the file, a quoted text, or one of ; { } ,"""

    text: str
    line: int
    quoted: bool = False

    @property
    def mark(self) -> str:
        """Itself where it is one of ; { } , and was not quoted, else nothing."""
        return self.text if not self.quoted and self.text in (";", "{", "}", ",") else ""


def tokens_of(path: str | Path) -> list[Token]:
    """The words of a file.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is no text, or a quote is not closed on its line.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}") from wrong
    if len(data) > MAX_BYTES:
        raise FormatError(path, f"the file is larger than {MAX_BYTES // 2**20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        line = data.count(b"\n", 0, wrong.start) + 1
        raise FormatError(path, f"line {line}: not a text in UTF-8: {wrong.reason}") from wrong
    found = []
    for number, line_text in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if line_text.count('"') % 2:
            raise FormatError(path, f"line {number}: a quote is not closed: {line_text.strip()[:60]}")
        for match in _TOKEN.finditer(line_text):
            quoted, mark, bare = match.groups()
            found.append(Token(quoted if quoted is not None else mark or bare, number, quoted is not None))
    return found


def value_of(token: Token, path: str | Path) -> int | float | str:
    """The value of a word: a whole number, a number, a text where it was quoted, else a bare word.

    Raises:
        FormatError: a number is too large.
    """
    if token.quoted:
        return token.text
    if _INT.fullmatch(token.text):
        number = int(token.text) if len(token.text) < 20 else None
        if number is None or not -(2**63) <= number < 2**63:
            raise FormatError(path, f"line {token.line}: the number {token.text[:40]} is too large")
        return number
    if _FLOAT.fullmatch(token.text):
        value = float(token.text)
        if value in (float("inf"), float("-inf")):
            raise FormatError(path, f"line {token.line}: the number {token.text[:40]} is too large")
        return value
    return Word(token.text)


def bare(text: str) -> str:
    """A text as a bare word, if it can be one."""
    token = _TOKEN.fullmatch(text)
    is_word = token is not None and token.group(3) is not None and not _FLOAT.fullmatch(text)
    return Word(text) if is_word else text


def text_of(value: Value, path: str | Path) -> str:
    """A value as it is written; reading it gives the same.

    Raises:
        InputError: KLARF has no way to write it.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InputError(path, f"{value!r} cannot stand in a KLARF file")
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise InputError(path, f"{value} cannot stand in a KLARF file")
        return repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Word):
        if not isinstance(bare(value), Word):
            raise InputError(path, f"{str(value)!r} is no bare word of KLARF; give a plain text to have it quoted")
        return str(value)
    if '"' in value or "\n" in value or "\r" in value:
        raise InputError(path, f"the text {value[:60]!r} has a quote or an end of line, which KLARF cannot hold")
    return f'"{value}"'
