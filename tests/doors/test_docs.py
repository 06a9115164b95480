"""What the README and the pages tell people to type exists: verbs, subcommands, options, recipes, settings, files."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from waferlens.bundle.files import shipped
from waferlens.cli import main as door
from waferlens.recipe import load_recipe, recipe_names

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> Iterator[list[str]]:
    """The words behind `waferlens` of every command in a page's code blocks."""
    for block in re.findall(r"^```[a-z]*\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            match = re.match(r"\s*(?:\$ )?(?:python -m )?waferlens ((?:[a-z]|--).*)", line)
            if match and ": " not in match.group(1).partition("#")[0].partition('"')[0]:
                yield shlex.split(match.group(1).partition(" > ")[0], comments=True)


EVERY = [
    pytest.param(words, id=f"{page.relative_to(ROOT)}: {' '.join(words)}") for page in PAGES for words in commands(page)
]


def test_the_readme_shows_how_to_use_it() -> None:
    shown = {words[0] for words in commands(ROOT / "README.md")}
    assert {"simulate", "inspect", "report", "train", "export", "evaluate", "measure", "recipes"} <= shown


@pytest.mark.parametrize("words", EVERY)
def test_a_command_of_the_docs_exists(words: list[str]) -> None:
    verb, rest = words[0], words[1:]
    if verb.startswith("--") or verb == "VERB":
        assert verb in {"--help", "--version", "VERB"}
        return
    assert verb in door.VERBS
    command: Any = door._command(importlib.import_module(door.VERBS[verb][0]).app)
    while subcommands := getattr(command, "commands", {}):
        step = next((word for word in rest if not word.startswith("-")), None)
        if step is None:  # a verb that says something by itself
            break
        assert step in subcommands, f"{verb} has no {step}: {', '.join(subcommands)}"
        command, rest = subcommands[step], rest[rest.index(step) + 1 :]
    with command.make_context(
        verb, list(rest)
    ) as context:  # as the door does it: refuses what it does not know or misses
        told = context.params
    named = told.get({"train": "recipe", "recipes": "name"}.get(verb, ""))
    if named is not None and not named.endswith(".yaml"):
        load_recipe(named, told.get("overrides") or [])
    bundle = told.get("bundle")
    if bundle is not None and not re.search(r"/|\.(zip|yaml)$", str(bundle)):
        golden = [name for name in recipe_names() if load_recipe(name).station == "golden"]
        assert bundle in [*shipped(), *golden]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_recipe_of_the_docs_can_be_read(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)):
        path = tmp_path / f"mine-{number}.yaml"
        path.write_text(block, encoding="utf-8")
        assert load_recipe(path).name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_into_pages_find_their_heading(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^):#]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        text = (page.parent / target if target else page).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.+)$", text, re.M)
        known = {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
        assert anchor in known, f"{page.name} links to {target}#{anchor}"


@pytest.mark.parametrize("verb", sorted(door.VERBS))
def test_every_verb_has_its_page(verb: str) -> None:
    assert (ROOT / "docs" / f"{verb}.md").is_file()
