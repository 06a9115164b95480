"""Pydantic's complaints, told as a colleague would: where it stands, what is wrong, what was probably meant."""

from __future__ import annotations

import difflib
import json
import re
import typing
from collections.abc import Iterator
from types import UnionType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from waferlens.errors import Fault
from waferlens.recipe.yamltree import Node, scalar

Model = TypeVar("Model", bound=BaseModel)

DISAGREEMENT = "disagreement"


def disagreement(faults: list[tuple[str, str]]) -> PydanticCustomError:
    """What a model's validator raises when fields do not fit each other: (field, what is wrong) each."""
    said = "; ".join(f"{field}: {what}" for field, what in faults)
    return PydanticCustomError(DISAGREEMENT, "{said}", {"said": said, "faults": faults})


def faults_of(model: type[BaseModel], tree: Node) -> list[Fault]:
    """Every fault of a tree, with its place, in the order of the files.

    A misspelt kind would hide the faults of its section, so the section is judged a second time as what was meant.
    """
    faults: dict[Fault, None] = {}
    while True:
        try:
            validated(model, tree)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            for detail in details:
                faults.update(dict.fromkeys(_told(detail, model, tree)))
            meant = [(path, kind) for detail in details for path, kind in _meant(detail, tree)]
            if meant:
                for path, kind in meant:
                    tree = _replaced(tree, path, kind)
                continue
        return sorted(faults, key=_order)


def validated(model: type[Model], tree: Node) -> Model:
    """The model of a tree; JSON mode is strict about types (`true` is no number) yet turns lists into tuples."""
    return model.model_validate_json(json.dumps(tree.plain()), strict=True)


def _meant(detail: ErrorDetails, tree: Node) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if detail["type"] == "union_tag_invalid":
        path = (*_path(detail["loc"], tree, keep_last=False), "kind")
        wanted = _quoted(str(detail["ctx"]["expected_tags"]))
        for kind in difflib.get_close_matches(str(_value(path, tree)), wanted, n=1, cutoff=0.5):
            yield path, kind


def _replaced(tree: Node, path: tuple[str | int, ...], value: str) -> Node:
    """A copy of the tree with one field of another value, at the same place."""
    if not path:
        return Node(value, tree.where)
    child = tree.child(path[0])
    assert child is not None
    fresh = tree.value.copy()
    fresh[path[0]] = _replaced(child, path[1:], value)
    return Node(fresh, tree.where)


def _order(fault: Fault) -> tuple[str, int]:
    name, _, line = fault.where.rpartition(":")
    return (name, int(line)) if line.isdigit() else (fault.where, 0)


def _told(detail: ErrorDetails, model: type[BaseModel], tree: Node) -> Iterator[Fault]:
    path = _path(detail["loc"], tree, keep_last=detail["type"] in {"missing", "extra_forbidden"})
    context = detail.get("ctx", {})
    kind = detail["type"]
    if kind == DISAGREEMENT:
        for field, what in context["faults"]:
            full = (*path, *field.split("."))
            yield Fault(_where(full, tree), f"{_shown(full, tree)}: {what}")
        return
    section = _section(model, path[:-1] if path else (), tree)
    if kind == "missing":
        yield Fault(_where(path[:-1], tree), f"{_dotted(path)}: is missing{_doc(section, path[-1])}")
    elif kind == "extra_forbidden":
        yield Fault(_where(path, tree), f"{_shown(path, tree)}: unknown field{_field_hint(path, section, model)}")
    elif kind == "union_tag_invalid":
        full = (*path, "kind")
        wanted = _quoted(str(context.get("expected_tags", "")))
        yield Fault(_where(full, tree), f"{_shown(full, tree)}: unknown kind{_choice(_value(full, tree), wanted)}")
    elif kind == "union_tag_not_found":
        kinds = [_kind_of(choice) for choice in _sections(_annotation(model, path, tree))]
        yield Fault(_where(path, tree), f"{_dotted((*path, 'kind'))}: is missing; one of {_list(kinds)}")
    elif kind == "literal_error":
        choice = _choice(_value(path, tree), _quoted(str(context.get("expected", ""))))
        yield Fault(_where(path, tree), f"{_shown(path, tree)}: not one of the choices{choice}")
    else:
        yield Fault(_where(path, tree), f"{_shown(path, tree)}: {_message(detail['msg'])}")


def _path(loc: tuple[int | str, ...], tree: Node, *, keep_last: bool) -> tuple[str | int, ...]:
    """Pydantic's location without the names of union members it puts between the fields."""
    path: list[str | int] = []
    node: Node | None = tree
    for i, part in enumerate(loc):
        child = node.child(part) if node is not None else None
        if child is None and not (keep_last and i == len(loc) - 1):
            continue
        path.append(part)
        node = child
    return tuple(path)


def _find(path: tuple[str | int, ...], tree: Node) -> Node | None:
    node: Node | None = tree
    for part in path:
        node = node.child(part) if node is not None else None
    return node


def _where(path: tuple[str | int, ...], tree: Node) -> str:
    """The place of a field, or of the nearest section above it that is written anywhere."""
    while path and _find(path, tree) is None:
        path = path[:-1]
    node = _find(path, tree)
    assert node is not None
    return node.where


def _value(path: tuple[str | int, ...], tree: Node) -> Any:
    node = _find(path, tree)
    return None if node is None else node.plain()


def _dotted(path: tuple[str | int, ...]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "recipe"


def _shown(path: tuple[str | int, ...], tree: Node) -> str:
    """`model.widths = 32`, with the value where it is short enough to help."""
    node = _find(path, tree)
    if node is None or isinstance(node.value, dict):
        return _dotted(path)
    plain = node.plain()
    if plain is None or isinstance(plain, bool):
        value = json.dumps(plain)
    elif isinstance(plain, str) and not isinstance(scalar(plain), str):
        value = repr(plain)  # a text that looks like a number: show the quotes that made it one
    else:
        value = str(plain)
    return f"{_dotted(path)} = {value}" if len(value) <= 40 else _dotted(path)


def _message(text: str) -> str:
    text = re.sub(r"^(Value error|Assertion failed), ", "", text)
    text = re.sub(r"^Input should", "should", text)
    text = text.replace("be an object", "be a mapping of fields").replace("a valid array", "a list")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _list(words: list[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


def _choice(got: Any, wanted: list[str]) -> str:
    near = difflib.get_close_matches(str(got), wanted, n=1, cutoff=0.5)
    return f", did you mean '{near[0]}'?" if near else f"; one of {_list(wanted)}"


def _doc(section: type[BaseModel] | None, name: str | int) -> str:
    field = section.model_fields.get(str(name)) if section is not None else None
    return f"; {' '.join(field.description.split())}" if field is not None and field.description else ""


def _field_hint(path: tuple[str | int, ...], section: type[BaseModel] | None, model: type[BaseModel]) -> str:
    name = str(path[-1])
    known = list(section.model_fields) if section is not None else []
    near = difflib.get_close_matches(name, [*known, "extends"] if len(path) == 1 else known, n=1, cutoff=0.6)
    if near:
        return f", did you mean '{near[0]}'?"
    by_leaf: dict[str, list[str]] = {}
    for dotted in _all_fields(model):
        by_leaf.setdefault(dotted.rpartition(".")[2], []).append(dotted)
    elsewhere = [
        dotted for leaf in difflib.get_close_matches(name, by_leaf, n=1, cutoff=0.75) for dotted in by_leaf[leaf]
    ]
    if _dotted(path) in elsewhere:
        return f"; it belongs to another kind. Known here: {', '.join(known)}"
    if elsewhere:
        return f", did you mean '{elsewhere[0]}'?"
    return f"; known here: {', '.join(known)}" if known else ""


def _all_fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        for section in _sections(field.annotation):
            yield from _all_fields(section, f"{prefix}{name}.")


def _annotation(model: type[BaseModel], path: tuple[str | int, ...], tree: Node) -> Any:
    """The annotation of a field, following the kinds the tree chose."""
    annotation: Any = model
    for i, part in enumerate(path):
        if isinstance(part, int):
            annotation = next(iter(typing.get_args(annotation)), None)
            continue
        section = _chosen(annotation, path[:i], tree)
        if section is not None:
            field = section.model_fields.get(part)
            annotation = field.annotation if field is not None else None
        else:  # dict[str, Section]
            annotation = next(iter(typing.get_args(annotation)[1:]), None)
    return annotation


def _section(model: type[BaseModel], path: tuple[str | int, ...], tree: Node) -> type[BaseModel] | None:
    return _chosen(_annotation(model, path, tree), path, tree)


def _chosen(annotation: Any, path: tuple[str | int, ...], tree: Node) -> type[BaseModel] | None:
    if typing.get_origin(annotation) in {dict, list, tuple}:
        return None
    sections = _sections(annotation)
    if len(sections) > 1:
        kind = _value((*path, "kind"), tree)
        sections = [section for section in sections if _kind_of(section) == kind]
    return sections[0] if sections else None


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections an annotation may hold: through unions, `Annotated`, lists and mappings."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    origin = typing.get_origin(annotation)
    if origin is None:
        return []
    if origin is not typing.Annotated and origin not in {typing.Union, UnionType, dict, list, tuple}:
        return []
    return [section for part in typing.get_args(annotation) for section in _sections(part)]


def _kind_of(section: type[BaseModel]) -> str:
    field = section.model_fields.get("kind")
    choices = typing.get_args(field.annotation) if field is not None else ()
    return str(choices[0]) if choices else section.__name__
