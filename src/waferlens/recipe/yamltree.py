"""YAML as a tree that remembers the line of every field.

The dialect is the plain core of YAML 1.2: `1e-3` is a number, `on` and `2024-01-01` are text, a key stands once in its
mapping, and there are no anchors or tags: a recipe repeats a value or extends a parent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from waferlens.errors import Fault

_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INT = re.compile(r"[-+]?[0-9]{1,18}\Z")
_FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)

COMMAND_LINE = "command line"
"""Where an override stands."""


@dataclass(frozen=True, slots=True)
class Node:
    """A value and the place it was written."""

    value: Any
    """A scalar, a `list[Node]` or a `dict[str, Node]`."""
    where: str
    """`file:line`, or `command line`."""

    def plain(self) -> Any:
        """The value without its places."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def child(self, part: str | int) -> Node | None:
        """The node one step down, if there is one."""
        if isinstance(self.value, dict):
            return self.value.get(str(part))
        if isinstance(self.value, list) and isinstance(part, int) and 0 <= part < len(self.value):
            return self.value[part]  # type: ignore[no-any-return]
        return None


def parse(text: str, label: str) -> tuple[Node | None, list[Fault]]:
    """Read one YAML document.

    Args:
        text: the document.
        label: how faults name the file.

    Returns:
        The tree (None when the text is no YAML at all) and every fault found on the way.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        said = ", ".join(part for part in (error.context, error.problem) if part)
        return None, [Fault(f"{label}:{line}", f"not readable as YAML: {said}")]
    except yaml.YAMLError as error:
        return None, [Fault(f"{label}:1", f"not readable as YAML: {' '.join(str(error).split())}")]
    if root is None:
        return Node({}, f"{label}:1"), []
    faults: list[Fault] = []
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            what = "anchors and aliases are not used here; repeat the value or extend a parent"
            faults.append(Fault(f"{label}:{_line(event)}", what))
        tag = getattr(event, "tag", None)
        if tag:
            faults.append(Fault(f"{label}:{_line(event)}", f"the tag {tag} is not used here; write the value alone"))
    if faults:  # an alias may point at its own parent: never walk such a tree
        return None, faults
    return _node(root, label, "", faults), faults


def scalar(text: str) -> Any:
    """The value of a plain (unquoted) scalar."""
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return text.lower() == "true"
    if _INT.match(text):
        return int(text)
    if _FLOAT.match(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def merged(base: Node, over: Node, *, top: bool = True) -> Node:
    """The base with the difference written over it.

    Mappings merge field by field, everything else is replaced. A nested mapping whose `kind` differs from the base's
    replaces it whole: the fields of another kind of network mean nothing to the new one.
    """
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    if not top and "kind" in over.value:
        kind = base.value.get("kind")
        if kind is not None and kind.value != over.value["kind"].value:
            return over
    fields = dict(base.value)
    for key, child in over.value.items():
        fields[key] = merged(fields[key], child, top=False) if key in fields else child
    return Node(fields, base.where if over.where == COMMAND_LINE else over.where)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _node(node: yaml.Node, label: str, path: str, faults: list[Fault], where: str | None = None) -> Node:
    where = where or f"{label}:{_line(node)}"
    if isinstance(node, yaml.MappingNode):
        fields: dict[str, Node] = {}
        for key_node, value_node in node.value:
            here = f"{label}:{_line(key_node)}"
            if not isinstance(key_node, yaml.ScalarNode):
                faults.append(Fault(here, f"{path or 'recipe'}: a field's name is a word, not a list or a mapping"))
                continue
            key = str(key_node.value)
            name = f"{path}.{key}" if path else key
            if key in fields:
                faults.append(Fault(here, f"{name}: written twice, first at {fields[key].where}; keep one"))
                # Both are read on, so that neither hides the other's faults.
                fields[key] = merged(fields[key], _node(value_node, label, name, faults, here), top=False)
                continue
            fields[key] = _node(value_node, label, name, faults, here)
        return Node(fields, where)
    if isinstance(node, yaml.SequenceNode):
        return Node([_node(child, label, f"{path}[{i}]", faults) for i, child in enumerate(node.value)], where)
    assert isinstance(node, yaml.ScalarNode)
    return Node(scalar(node.value) if node.style is None else node.value, where)
