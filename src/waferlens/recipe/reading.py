"""Read a recipe: one YAML file, its parents, overrides, and every fault of them at once.

A fault stands where it was written: in the child's file, in a parent's, or on the command line.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from pydantic import ValidationError

from waferlens.errors import Fault, RecipeError
from waferlens.recipe import yamltree
from waferlens.recipe.faults import Model, faults_of, validated
from waferlens.recipe.yamltree import COMMAND_LINE, Node


def read_model(
    model: type[Model], name_or_path: str | Path, *, folder_package: str, overrides: Sequence[str] = ()
) -> Model:
    """Read a YAML file into a closed pydantic model.

    Args:
        model: what the file describes.
        name_or_path: a name shipped with waferlens, or the path of a file.
        folder_package: the folder of shipped files, `recipes` or `worlds`.
        overrides: `a.b=c` settings, written over the file; c is YAML.

    Raises:
        RecipeError: the file, a parent or an override has faults; lists all of them.
    """
    tree, faults = read_tree(name_or_path, folder_package=folder_package, overrides=overrides)
    return build(model, tree, faults)


def read_tree(
    name_or_path: str | Path, *, folder_package: str, overrides: Sequence[str] = ()
) -> tuple[Node, list[Fault]]:
    """The merged tree of a file, its parents and the overrides, with the faults found so far.

    Raises:
        RecipeError: there is no tree: a file is missing or is no YAML.
    """
    faults: list[Fault] = []
    over = _override_tree(overrides, faults)
    tree = _with_parents(_locate(name_or_path, folder_package), folder_package, faults)
    if tree is None:
        raise RecipeError(faults)
    return yamltree.merged(tree, over), faults


def build(model: type[Model], tree: Node, faults: Sequence[Fault] = ()) -> Model:
    """Validate a tree.

    Raises:
        RecipeError: the tree does not fit the model, or had faults before.
    """
    try:
        built = validated(model, tree)
    except ValidationError:
        raise RecipeError([*faults, *faults_of(model, tree)]) from None
    if faults:
        raise RecipeError(list(faults))
    return built


def shipped_names(folder_package: str) -> list[str]:
    """Names of the files shipped in a folder of the package, sorted."""
    folder = resources.files("waferlens") / folder_package
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def _shipped_path(name: str, folder_package: str) -> Path:
    return Path(str(resources.files("waferlens") / folder_package / f"{name}.yaml"))


def _locate(
    name_or_path: str | Path, folder_package: str, *, where: str = COMMAND_LINE, beside: Path | None = None
) -> Path:
    """The file meant by a name or a path; relative paths of `extends` start at the file that says them."""
    text = os.fspath(name_or_path)
    looks_like_path = (
        isinstance(name_or_path, Path) or "/" in text or os.sep in text or text.endswith((".yaml", ".yml"))
    )
    if not looks_like_path:
        names = shipped_names(folder_package)
        if text in names:
            return _shipped_path(text, folder_package)
        if not Path(text).is_file():
            near = difflib.get_close_matches(text, names, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names) or 'none'}"
            raise RecipeError([Fault(where, f"'{text}' is no file and no name in {folder_package}; {hint}")])
    path = Path(text) if beside is None else beside / text
    if not path.is_file():
        what = "is a folder; name the file in it" if path.is_dir() else "no such file"
        raise RecipeError([Fault(where, f"{path}: {what}")])
    return path


def _with_parents(path: Path, folder_package: str, faults: list[Fault]) -> Node | None:
    """The tree of a file merged over the trees of its parents; None when one of them cannot be read."""
    chain: list[tuple[Path, Node]] = []
    while True:
        tree = _parsed(path, faults)
        if tree is None:
            return None
        chain.append((path, tree))
        said = tree.value.pop("extends", None)
        if said is None or said.value is None:
            break
        if not isinstance(said.value, str):
            faults.append(Fault(said.where, "extends: should be the name or the path of one parent"))
            return None
        try:
            path = _locate(said.value, folder_package, where=said.where, beside=path.parent)
        except RecipeError as error:
            faults += [Fault(fault.where, f"extends: {fault.what}") for fault in error.faults]
            return None
        if any(path.resolve() == seen.resolve() for seen, _ in chain):
            names = [seen.stem for seen, _ in chain] + [path.stem]
            faults.append(Fault(said.where, f"extends: {' -> '.join(names)} runs in a circle; drop one of them"))
            return None
    tree = chain[-1][1]
    for _, child in reversed(chain[:-1]):
        tree = yamltree.merged(tree, child)
    first_path, first = chain[0]
    if len(chain) > 1 and "name" not in first.value:  # a child is not its parent, even if it does not say so
        tree.value["name"] = Node(first_path.stem, first.where)
    return tree


def _parsed(path: Path, faults: list[Fault]) -> Node | None:
    label = _label(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        faults.append(Fault(f"{label}:{line}", "not UTF-8 text; save the file as UTF-8"))
        return None
    except OSError as error:
        faults.append(Fault(label, f"cannot be read: {error.strerror}"))
        return None
    tree, found = yamltree.parse(text, label)
    faults += found
    if tree is not None and not isinstance(tree.value, dict):
        faults.append(Fault(tree.where, "should be a mapping of fields, 'name: value' a line"))
        return None
    return tree


def _label(path: Path) -> str:
    """How faults name a file: shipped ones by name, others as the user would."""
    try:
        return str(path.relative_to(str(resources.files("waferlens"))))
    except ValueError:
        return str(path)


def _override_tree(overrides: Sequence[str], faults: list[Fault]) -> Node:
    """One tree of all `a.b=c`, so that `model.kind=…` and the new kind's fields may come in any order."""
    tree = Node({}, COMMAND_LINE)
    for text in overrides:
        path, equals, written = text.partition("=")
        parts = path.strip().split(".")
        if not equals or not all(parts):
            faults.append(Fault(COMMAND_LINE, f"'{text}' is no override; write section.field=value"))
            continue
        if parts == ["extends"]:
            faults.append(Fault(COMMAND_LINE, "extends: cannot be overridden; name another recipe instead"))
            continue
        value, found = yamltree.parse(written, COMMAND_LINE)
        faults += [Fault(COMMAND_LINE, f"{path}: {fault.what}") for fault in found]
        if value is None:
            continue
        if not written.strip():
            faults.append(Fault(COMMAND_LINE, f"{path}: has no value; write {path}=null to clear it"))
            continue
        _set(tree, parts, _from_command_line(value))
    return tree


def _set(tree: Node, parts: list[str], value: Node) -> None:
    for part in parts[:-1]:
        below = tree.value.get(part)
        if below is None or not isinstance(below.value, dict):
            below = tree.value[part] = Node({}, COMMAND_LINE)
        tree = below
    tree.value[parts[-1]] = value


def _from_command_line(node: Node) -> Node:
    if isinstance(node.value, dict):
        return Node({key: _from_command_line(child) for key, child in node.value.items()}, COMMAND_LINE)
    if isinstance(node.value, list):
        return Node([_from_command_line(child) for child in node.value], COMMAND_LINE)
    return Node(node.value, COMMAND_LINE)
