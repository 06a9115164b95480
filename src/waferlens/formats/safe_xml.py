"""XML without its traps: no document types, so no entities that grow to gigabytes or fetch files and addresses.

A node is plain data: name space, name, attributes, text, children. Comments and processing instructions are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from waferlens.errors import FormatError, InputError

MAX_BYTES = 256 * 2**20
"""Largest file that is read [byte]"""
MAX_DEPTH = 64
"""Deepest nesting that is read"""


@dataclass(frozen=True, slots=True)
class XmlNode:
    """An element."""

    name: str
    namespace: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    """Names and values; a name of another name space is `{space}name`."""
    text: str = ""
    """What stands before, between and behind its children, without the white space around it."""
    children: tuple[XmlNode, ...] = ()
    line: int = field(default=0, compare=False)

    def attribute(self, name: str) -> str | None:
        """The value of an attribute; None if it has none of that name."""
        return dict(self.attributes).get(name)

    def all(self, name: str) -> list[XmlNode]:
        """Its children of a name, in its own name space."""
        return [child for child in self.children if child.name == name and child.namespace == self.namespace]

    def first(self, name: str) -> XmlNode | None:
        """Its first child of a name."""
        return next(iter(self.all(name)), None)


class _Refused(Exception):
    pass


def read_xml(path: str | Path) -> XmlNode:
    """The outermost element of a file.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is no XML, is truncated, is nested too deeply, or declares a document type or an entity.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}") from wrong
    if len(data) > MAX_BYTES:
        raise FormatError(path, f"the file is larger than {MAX_BYTES // 2**20} MiB")
    parser = expat.ParserCreate(namespace_separator="\n")
    parser.buffer_text = True
    stack: list[tuple[str, list[tuple[str, str]], list[str], list[XmlNode], int]] = []
    done: list[XmlNode] = []

    def start(name: str, told: list[str]) -> None:
        if len(stack) >= MAX_DEPTH:
            raise _Refused(f"line {parser.CurrentLineNumber}: nested more than {MAX_DEPTH} deep")
        pairs = [(_named(key), value) for key, value in zip(told[::2], told[1::2], strict=True)]
        stack.append((name, pairs, [], [], parser.CurrentLineNumber))

    def end(_: str) -> None:
        name, pairs, texts, children, line = stack.pop()
        space, _, local = name.rpartition("\n")
        node = XmlNode(local, space, tuple(pairs), "".join(texts).strip(), tuple(children), line)
        (stack[-1][3] if stack else done).append(node)

    def refuse(*_: object) -> None:
        raise _Refused(
            f"line {parser.CurrentLineNumber}: declares a document type; entities are a way to read other files or "
            "to fill the memory, and are not read"
        )

    parser.ordered_attributes = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = lambda text: stack[-1][2].append(text) if stack else None
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as wrong:
        raise FormatError(path, f"no XML, or truncated: {wrong}") from wrong
    except _Refused as wrong:
        raise FormatError(path, str(wrong)) from wrong
    except (ValueError, LookupError) as wrong:  # an encoding that is not known
        raise FormatError(path, f"no XML: {wrong}") from wrong
    return done[0]


def xml_text(node: XmlNode, path: str | Path, depth: int = 0, inside: str = "") -> str:
    """An element as text, a line each; reading it gives the same.

    Args:
        node: the element.
        path: what to call the file in an error.
        depth: how far it is indented.
        inside: name space of what it stands in.

    Raises:
        InputError: a text has a character that XML cannot hold.
    """
    indent = "  " * depth
    head = [node.name]
    if node.namespace != inside:
        head.append(f"xmlns={_quoted(node.namespace, path)}")
    for number, (name, value) in enumerate(node.attributes):
        space, _, local = name.rpartition("}")
        if space:
            head.append(f"xmlns:a{number}={_quoted(space[1:], path)}")
            local = f"a{number}:{local}"
        head.append(f"{local}={_quoted(value, path)}")
    if node.text != node.text.strip():
        raise InputError(path, f"the text {node.text[:40]!r} of {node.name} begins or ends with white space")
    text = escape(_held(node.text, path))
    if not node.children:
        return f"{indent}<{' '.join(head)}>{text}</{node.name}>" if text else f"{indent}<{' '.join(head)}/>"
    inner = [xml_text(child, path, depth + 1, node.namespace) for child in node.children]
    opening = f"{indent}<{' '.join(head)}>{text}"
    return "\n".join([opening, *inner, f"{indent}</{node.name}>"])


def _named(key: str) -> str:
    space, _, local = key.rpartition("\n")
    return f"{{{space}}}{local}" if space else local


def _quoted(value: str, path: str | Path) -> str:
    # white space in an attribute is read as blanks unless it is told by number
    return quoteattr(_held(value, path), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})


def _held(text: str, path: str | Path) -> str:
    for character in text:
        code = ord(character)
        if (code < 32 and character not in "\t\n\r") or 0xD800 <= code < 0xE000 or code in (0xFFFE, 0xFFFF):
            raise InputError(path, f"the text {text[:40]!r} has the character {character!r}, which XML cannot hold")
    return text
