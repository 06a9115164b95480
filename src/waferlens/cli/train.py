"""`waferlens train`: the network of a recipe from data, or the good part of a golden recipe from good images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from waferlens.cli.output import counted_progress, emit_json, make_folder, say
from waferlens.errors import UsageError
from waferlens.extras import require

if TYPE_CHECKING:
    from waferlens.recipe import Recipe, RoiRecipe

app = typer.Typer()


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe or the path of a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="a.b=c", help="Settings written over the recipe.")
    ] = None,
    data: Annotated[
        Path,
        typer.Option(
            help="Folder in the challenge's layout, fields of wafers, or views with depth; good images for golden."
        ),
    ] = ...,  # type: ignore[assignment]
    out: Annotated[Path, typer.Option(help="Folder of the run; an interrupted run in it goes on.")] = ...,  # type: ignore[assignment]
    start: Annotated[
        Path | None, typer.Option("--from", help="A finished run of the same network to begin with.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Weights of a ResNet or YOLO that others trained: .npy, .pt, .pth, .safetensors."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that make a detector's batches, for an accelerator not to wait.")
    ] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
) -> None:
    """Train the network of a recipe; the same command resumes a run that was interrupted.

    A golden recipe is fitted to good images instead; its run is a bundle already.
    """
    from waferlens.recipe import RoiRecipe, load_recipe

    resolved = load_recipe(recipe, overrides or [])
    if resolved.station == "golden":
        _fit(resolved, data, out, start, weights, json)
        return
    if isinstance(resolved, RoiRecipe):
        raise UsageError(_untrained(resolved))
    require("train", "lightning")
    make_folder(out)
    from waferlens.train import train as run

    result = run(
        resolved,  # type: ignore[arg-type]
        data,
        out,
        start=start,
        weights=weights,
        threads=threads,
        workers=workers,
        quiet=json or not sys.stderr.isatty(),
    )
    if json:
        emit_json(result)
    else:
        for note in result.notes:
            say(f"note: {note}")
        say(
            f"{out}: {result.epochs} epochs, {result.reached} on validation, "
            f"{result.cpu_seconds / 60:.1f} CPU-min (ended by {result.stopped})"
        )


def _untrained(recipe: RoiRecipe) -> str:
    """What to do in place of training."""
    if recipe.model.kind == "box-sam":
        boxes = recipe.model.boxes
        return (
            f"{recipe.name} is put together of two networks: train and "
            f"export {boxes}, then `waferlens export BUNDLE --sam CHECKPOINT`"
        )
    return f"nothing in {recipe.name} is trained: use it as it is, with `waferlens prepare roi --method {recipe.name}`"


def _fit(recipe: Recipe, data: Path, out: Path, start: Path | None, weights: Path | None, json: bool) -> None:
    from waferlens.prepare.golden import fit

    for option, given in (("--from", start), ("--weights", weights)):
        if given is not None:
            raise UsageError(f"{option} means nothing to {recipe.name}: it is fitted anew from good images")
    with counted_progress("images", quiet=json) as show:
        result = fit(recipe, data, out, show)  # type: ignore[arg-type]
    if json:
        emit_json(result)
        return
    for name, reason in result.left_out.items():
        say(f"left out: {name}: {reason}")
    for name, reason in result.not_compared.items():
        say(f"counted as an alarm: {name}: {reason}")
    say(
        f"{out}: template of {result.template_images} images, threshold {result.factor:.3g} times what is tolerated "
        f"from {result.calibration_images} others; {result.promise} ({result.seconds:.1f} s)"
    )
