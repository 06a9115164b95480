"""`waferlens recipes`: list them, show one resolved, check files."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import typer

from waferlens.cli.output import emit_json, say
from waferlens.errors import RecipeError
from waferlens.extras import available, missing
from waferlens.recipe import Recipe, RoiRecipe, as_yaml, load_recipe, recipe_names
from waferlens.recipe.package_roi import BoxSam
from waferlens.sources import cite

app = typer.Typer()

Json = Annotated[bool, typer.Option("--json", help="Print a machine-readable result on standard output.")]


@app.callback(invoke_without_command=True)
def list_recipes(context: typer.Context, json: Json = False) -> None:
    """List the shipped recipes with station, source and one line."""
    if context.invoked_subcommand is not None:
        return
    recipes = [load_recipe(name) for name in recipe_names()]
    if json:
        emit_json([_card(recipe) for recipe in recipes])
        return
    rows = [("name", "station", "source", "summary")]
    rows += [(recipe.name, recipe.station, recipe.source, recipe.summary) for recipe in recipes]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A shipped name or the path of a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="a.b=c", help="Settings written over the recipe.")
    ] = None,
    json: Json = False,
) -> None:
    """Show one recipe resolved.

    Parents and overrides are merged, and each field says what it means.

    With --json and the extra `train` installed, the network is built and counted.
    """
    recipe = load_recipe(name, overrides or [])
    if json:
        emit_json({**recipe.model_dump(mode="json"), "sources": _sources(recipe), **_network(recipe)})
        return
    for key, source in _sources(recipe).items():
        print(f"# {key}: {source}")
    print(as_yaml(recipe, explain=True), end="")


@app.command()
def check(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="YAML files, or shipped names.")],
    json: Json = False,
) -> None:
    """Check files, naming every fault.

    Each fault comes with file, line and suggestion. The exit status is 2 when there is one.
    """
    results: list[dict[str, Any]] = []
    for file in files:
        try:
            recipe = load_recipe(file)
        except RecipeError as error:
            faults = [{"where": fault.where, "what": fault.what} for fault in error.faults]
            results.append({"file": file, "ok": False, "faults": faults})
            say(str(error))
        else:
            results.append({"file": file, "ok": True, "name": recipe.name, "faults": []})
    wrong = sum(not result["ok"] for result in results)
    faults_found = sum(len(result["faults"]) for result in results)
    if json:
        emit_json(results)
    elif wrong:
        say(f"{faults_found} fault{'' if faults_found == 1 else 's'} in {wrong} of {len(results)} recipes")
    else:
        print(f"{len(results)} recipes without fault")
    if wrong:
        raise typer.Exit(RecipeError.exit_status)


def _card(recipe: Recipe) -> dict[str, str]:
    return {"name": recipe.name, "station": recipe.station, "source": recipe.source, "summary": recipe.summary}


def _sources(recipe: Recipe) -> dict[str, str]:
    return {key: str(cite(key)) for key in (recipe.source, *recipe.builds_on)}


def _network(recipe: Recipe) -> dict[str, Any]:
    """The counted network, where torch can build it; else a note that says what to install, or that there is none."""
    if recipe.station == "golden":
        return {"note": "no network: this recipe is fitted to good images, and needs no torch"}
    boxes = None
    if isinstance(recipe, RoiRecipe):
        if not isinstance(recipe.model, BoxSam):
            return {"note": f"no network: use it as it is, with waferlens prepare roi --method {recipe.name}"}
        boxes = f"of {recipe.model.boxes}, which draws the boxes; the mask's network is what its checkpoint holds"
        recipe = load_recipe(recipe.model.boxes)
    if not available("torch"):
        return {"note": f"no network counted: {missing('train', 'torch')}"}
    models = importlib.import_module("waferlens.models")
    return {"network": models.describe(recipe), **({} if boxes is None else {"note": boxes})}
