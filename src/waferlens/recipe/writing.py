"""A recipe written out as YAML that reads back equal."""

from __future__ import annotations

import re
from typing import Any

import yaml
from pydantic import BaseModel

from waferlens.recipe import yamltree


def as_yaml(model: BaseModel, *, explain: bool = False) -> str:
    """The whole resolved recipe as YAML; `read_model` reads it back equal.

    Args:
        model: what to write.
        explain: put each field's doc line behind it as a comment.
    """
    lines: list[str] = []
    _write(model.model_dump(mode="json"), model if explain else None, 0, lines)
    return "\n".join(lines) + "\n"


def _write(fields: dict[str, Any], model: Any, indent: int, lines: list[str]) -> None:
    docs = (
        {name: field.description for name, field in type(model).model_fields.items()}
        if isinstance(model, BaseModel)
        else {}
    )
    for name, value in fields.items():
        head = f"{' ' * indent}{_scalar(name)}:"
        part = getattr(model, name, None) if isinstance(model, BaseModel) else _item(model, name)
        remark = _remark(docs.get(name))
        if isinstance(value, dict) and value:
            lines.append(head + remark)
            _write(value, part, indent + 2, lines)
        else:
            lines.append(f"{head} {_flow(value)}{remark}")


def _item(model: Any, name: str) -> Any:
    return model.get(name) if isinstance(model, dict) else None


def _remark(doc: str | None) -> str:
    first = " ".join(doc.split("\n\n")[0].split()) if doc else ""
    return f"  # {first}" if first else ""


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _plain(value):
        return value
    # Double quotes escape everything, so a text never spills over lines or turns into a number.
    style = '"' if isinstance(value, str) else None
    dumped: str = yaml.dump(value, Dumper=yaml.SafeDumper, default_style=style, allow_unicode=True, width=1 << 30)
    return dumped.split("\n")[0]


def _plain(text: str) -> bool:
    """Whether a text may stand without quotes, for our reader and for readers of YAML 1.1 alike."""
    if not re.fullmatch(r"[A-Za-z][\w./ -]*", text) or text != text.strip():
        return False
    return isinstance(yamltree.scalar(text), str) and isinstance(yaml.safe_load(text), str)
