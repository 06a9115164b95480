"""KLARF 1.8: records inside of records, each with fields and lists that say how many values they have.

    Record FileRecord "1.8" {
      Record LotRecord "LOT" {
        Record WaferRecord "01" {
          Field DieOrigin 2 {0, 0}
          List DefectList {
            Columns 3 { int32 DEFECTID, int32 XREL, int32 YREL }
            Data 1 { 1 104250 17500 ; }
          }
        }
        Field DiePitch 2 {5000000, 5000000}
      }
    }
    EndOfFile;

Lengths are whole nm, areas nm². OrientationMarkLocation is in degrees: 0 down, 90 left, 180 up, 270 right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from waferlens.errors import FormatError
from waferlens.formats.klarf_record import IMAGES
from waferlens.formats.klarf_text import Images, Token, Value, text_of, value_of

TYPES = ("int32", "int64", "float", "double", "string", "ImageList")


@dataclass(frozen=True, slots=True)
class Field:
    """A field as it stands there."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """A list as it stands there, in the units of the file."""

    name: str
    types: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it stands there."""

    name: str
    id: str | None
    items: tuple[Node, ...] = ()

    def fields(self) -> dict[str, Field]:
        """Its fields by their names in capitals."""
        return {item.name.upper(): item for item in self.items if isinstance(item, Field)}

    def records(self, name: str) -> list[Record]:
        """Its records of a name."""
        return [item for item in self.items if isinstance(item, Record) and item.name.upper() == name.upper()]

    def lists(self, name: str) -> list[Listing]:
        """Its lists of a name."""
        return [item for item in self.items if isinstance(item, Listing) and item.name.upper() == name.upper()]


Node = Record | Field | Listing


class TreeReader:
    """Reads the words of a file one after the other."""

    def __init__(self, tokens: list[Token], path: str | Path) -> None:
        self.tokens, self.path, self.at = tokens, path, 0

    def file(self) -> Record:
        """The outermost record.

        Raises:
            FormatError: the words are not such a file; the line is named.
        """
        self._keyword("Record")
        record = self._record()
        self._keyword("EndOfFile")
        self._mark(";")
        if self.at < len(self.tokens):
            raise self._wrong("the end of the file")
        return record

    def _record(self) -> Record:
        name = self._next("the name of a record")
        identity = None
        if not self._is("{"):
            identity = self._next("the id of a record").text
        self._mark("{")
        items: list[Node] = []
        while not self._is("}"):
            word = self._next("Record, Field, List or }")
            match "" if word.quoted else word.text.upper():
                case "RECORD":
                    items.append(self._record())
                case "FIELD":
                    items.append(self._field())
                case "LIST":
                    items.append(self._list())
                case _:
                    self.at -= 1
                    raise self._wrong("Record, Field, List or }")
        self._mark("}")
        for kind in (Field, Listing):
            names = [item.name.upper() for item in items if isinstance(item, kind)]
            twice = next((name_ for name_ in names if names.count(name_) > 1), None)
            if twice is not None:
                raise FormatError(self.path, f"line {name.line}: the record {name.text} has {twice} twice")
        return Record(name.text, identity, tuple(items))

    def _field(self) -> Field:
        name = self._next("the name of a field")
        count = self._count()
        values = self._braced()
        if len(values) != count:
            raise FormatError(
                self.path, f"line {name.line}: Field {name.text} says {count} values, and {len(values)} follow"
            )
        return Field(name.text, tuple(values))

    def _list(self) -> Listing:
        name = self._next("the name of a list")
        where = f"line {name.line}: List {name.text}"
        self._mark("{")
        self._keyword("Columns")
        count = self._count()
        words = self._until("}", skip=",")
        types, columns = [word.text for word in words[::2]], [word.text for word in words[1::2]]
        if len(words) != 2 * count or not count:
            raise FormatError(self.path, f"{where}: says {count} columns, and {len(words) / 2:g} follow")
        for kind in types:
            if kind.lower() not in [known.lower() for known in TYPES]:
                raise FormatError(self.path, f"{where}: a column of the type {kind}; known are {', '.join(TYPES)}")
        if len(set(columns)) != len(columns):
            raise FormatError(self.path, f"{where}: names a column twice")
        self._keyword("Data")
        said = self._count()
        self._mark("{")
        rows = []
        while not self._is("}"):
            line = self.tokens[self.at].line
            rows.append(self._row(types, columns, f"{where}: row {len(rows) + 1} (line {line})"))
        self._mark("}")
        self._mark("}")
        if len(rows) != said:
            raise FormatError(self.path, f"{where}: says {said} rows, and {len(rows)} follow")
        return Listing(name.text, tuple(types), tuple(columns), tuple(rows))

    def _row(self, types: list[str], columns: list[str], where: str) -> tuple[Value, ...]:
        row: list[Value] = []
        for kind, column in zip(types, columns, strict=True):
            if self._is(";"):
                if kind.lower() == "imagelist" and column == columns[-1]:
                    row.append(Images())
                    continue
                raise FormatError(self.path, f"{where}: ends before its {column}")
            if kind.lower() == "imagelist":
                row.append(self._images(where))
                continue
            token = self._next(f"the {column} of a row")
            value = token.text if kind.lower() == "string" else value_of(token, self.path)
            right = {"int32": int, "int64": int, "float": int | float, "double": int | float}.get(kind.lower(), str)
            if not isinstance(value, right) or (right is int and isinstance(value, float)):
                raise FormatError(self.path, f"{where}: {column} = {token.text!r}; expected {kind}")
            row.append(float(value) if kind.lower() in ("float", "double") else value)
        if not self._is(";"):
            raise FormatError(self.path, f"{where}: has more values than the {len(columns)} columns")
        self._mark(";")
        return tuple(row)

    def _images(self, where: str) -> Images:
        word = self._next("a list of images")
        if not word.quoted and word.text in ("N", "0"):  # no images
            return Images()
        count = self._count()
        self._mark("{")
        items: list[tuple[Value, ...]] = []
        item: list[Value] = []
        while not self._is("}"):
            if self._is(","):
                items.append(tuple(item))
                item = []
                self.at += 1
            else:
                item.append(value_of(self._next("an image"), self.path))
        self._mark("}")
        if item:
            items.append(tuple(item))
        if len(items) == 1 and count > 1 and len(item) % count == 0:  # no commas between the images
            size = len(item) // count
            items = [tuple(item[at : at + size]) for at in range(0, len(item), size)]
        if len(items) != count or not all(items):
            raise FormatError(self.path, f"{where}: says {count} images, and {len(items)} follow")
        return Images(tuple(items), word.text)

    def _braced(self) -> list[Value]:
        self._mark("{")
        return [value_of(token, self.path) for token in self._until("}", skip=",")]

    def _until(self, end: str, skip: str) -> list[Token]:
        if self._is("{"):
            self._mark("{")
        found = []
        while not self._is(end):
            token = self.tokens[self.at]
            self.at += 1
            if token.mark and token.mark != skip:
                self.at -= 1
                raise self._wrong(f"a value or {end}")
            if not token.mark:
                found.append(token)
        self._mark(end)
        return found

    def _count(self) -> int:
        token = self._next("how many")
        value = value_of(token, self.path)
        if not isinstance(value, int) or value < 0:
            self.at -= 1
            raise self._wrong("how many values there are")
        return value

    def _is(self, mark: str) -> bool:
        if self.at >= len(self.tokens):
            raise self._wrong(mark)
        return self.tokens[self.at].mark == mark

    def _mark(self, mark: str) -> None:
        if not self._is(mark):
            raise self._wrong(mark)
        self.at += 1

    def _next(self, what: str) -> Token:
        if self.at >= len(self.tokens) or self.tokens[self.at].mark:
            raise self._wrong(what)
        self.at += 1
        return self.tokens[self.at - 1]

    def _keyword(self, word: str) -> None:
        token = self._next(word)
        if token.quoted or token.text.upper() != word.upper():
            self.at -= 1
            raise self._wrong(word)

    def _wrong(self, expected: str) -> FormatError:
        if self.at >= len(self.tokens):
            return FormatError(self.path, f"ends where {expected} was expected: the file is truncated")
        token = self.tokens[self.at]
        return FormatError(self.path, f"line {token.line}: expected {expected}, got {token.text[:40]!r}")


def tree_lines(node: Node, path: str | Path, depth: int = 0) -> Iterator[str]:
    """The lines of a record.

    Raises:
        InputError: a value cannot be written.
    """
    indent = "  " * depth
    if isinstance(node, Field):
        yield f"{indent}Field {node.name} {len(node.values)} {{{', '.join(text_of(v, path) for v in node.values)}}}"
    elif isinstance(node, Listing):
        pairs = [f"{kind} {name}" for kind, name in zip(node.types, node.columns, strict=True)]
        yield f"{indent}List {node.name}\n{indent}{{"
        yield f"{indent}  Columns {len(pairs)} {{ {', '.join(pairs)} }}"
        yield f"{indent}  Data {len(node.rows)}\n{indent}  {{"
        for row in node.rows:
            yield f"{indent}    {' '.join(_cell(value, path) for value in row)} ;"
        yield f"{indent}  }}\n{indent}}}"
    else:
        identity = "" if node.id is None else f" {text_of(node.id, path)}"
        yield f"{indent}Record {node.name}{identity}\n{indent}{{"
        for item in node.items:
            yield from tree_lines(item, path, depth + 1)
        yield f"{indent}}}"


def _cell(value: Value, path: str | Path) -> str:
    if not isinstance(value, Images):
        return text_of(value, path)
    if not value.items:
        return "N"
    told = ", ".join(" ".join(text_of(part, path) for part in item) for item in value.items)
    return f"{value.word} {len(value.items)} {{{told}}}"


def type_of(name: str, values: list[Value]) -> str:
    """The type that a column of these values is written with.

    Raises:
        ValueError: it holds numbers and texts.
    """
    if name.upper() in IMAGES:
        return "ImageList"
    if all(isinstance(value, int) for value in values):
        return "int32" if all(-(2**31) <= value < 2**31 for value in values if isinstance(value, int)) else "int64"
    if all(isinstance(value, int | float) for value in values):
        return "float"
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name} holds numbers and texts; a column of 1.8 has one type")
    return "string"
