"""`waferlens train`: the network of a recipe, from data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from waferlens.cli.output import emit_json, make_folder, say
from waferlens.extras import require

app = typer.Typer()


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe or the path of a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="a.b=c", help="Settings written over the recipe.")
    ] = None,
    data: Annotated[Path, typer.Option(help="Folder in the challenge's layout, with depth maps.")] = ...,  # type: ignore[assignment]
    out: Annotated[Path, typer.Option(help="Folder of the run; an interrupted run in it goes on.")] = ...,  # type: ignore[assignment]
    start: Annotated[
        Path | None, typer.Option("--from", help="A finished run of the same network to begin with.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
) -> None:
    """Train the network of a recipe; the same command resumes a run that was interrupted."""
    from waferlens.recipe import load_recipe

    resolved = load_recipe(recipe, overrides or [])
    require("train", "lightning")
    make_folder(out)
    from waferlens.train import train as run

    result = run(resolved, data, out, start=start, threads=threads, quiet=json or not sys.stderr.isatty())  # type: ignore[arg-type]
    if json:
        emit_json(result)
    else:
        say(
            f"{out}: {result.epochs} epochs, RMSE {result.rmse_validation:.3f} grey on validation, "
            f"{result.cpu_seconds / 60:.1f} CPU-min (ended by {result.stopped})"
        )
