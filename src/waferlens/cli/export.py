"""`waferlens export`: a trained run becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from waferlens.cli.output import counted_progress, emit_json, say
from waferlens.errors import UsageError
from waferlens.extras import require

app = typer.Typer()


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished training run; with --sam, bundle of a detector.")],
    out: Annotated[Path, typer.Option(help="The bundle: a folder, or a file .zip.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder to calibrate on; the one the run was trained on if not given.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Greatest difference between torch and ONNX Runtime; "
            "0.01 grey, 0.1 um, 0.001 m or 0.05 px if not set.",
        ),
    ] = None,
    sam: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Checkpoint of SAM or SAM 2 (transformers) that the boxes of the bundle RUN prompt."
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Of the pair that --sam makes; roi-yolov5n-sam if not set.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
) -> None:
    """Export a run to ONNX, prove that nothing changed, calibrate its intervals and write the bundle.

    The run of a golden recipe is a bundle already: it is checked and copied. With --sam, the bundle of a detector of
    packages and a checkpoint become one bundle that masks packages.
    """
    if sam is not None:
        for option, given in (("--data", data), ("--tolerance", tolerance)):
            if given is not None:
                raise UsageError(f"{option} means nothing beside --sam: nothing is trained or calibrated")
        _pair(run, sam, out, recipe, json)
        return
    if recipe is not None:
        raise UsageError("--recipe is that of the pair that --sam makes; name a checkpoint with --sam")
    from waferlens.bundle.files import copy_bundle, is_bundle

    if is_bundle(run):
        if data is not None:
            raise UsageError(f"--data means nothing to {run}: a fitted run has its threshold already; fit it anew")
        copied = copy_bundle(run, out)
        if json:
            emit_json({"bundle": str(out), "bytes": sum(map(len, copied.files.values())), "parity": None})
        else:
            say(f"{out}: the fitted {copied.recipe['name']}, checked and copied; there is no network in it to convert")
        return
    require("train", "torch")
    from waferlens.export import export as write

    with counted_progress("images", quiet=json) as show:
        result = write(run, out, data=data, tolerance=tolerance, show=show)
    if json:
        emit_json(result)
    else:
        parity = result.parity
        grounds = f"calibrated on {result.calibrated_on} images" if result.calibrated_on else "not calibrated"
        say(f"{out}: {result.bytes / 1e6:.2f} MB, {grounds}{'; its card says why' if not result.calibrated_on else ''}")
        say(
            f"torch against ONNX Runtime: {parity['max_abs']:.2g} at most on {parity['images']} images, "
            f"{parity['ok_ng_flips']} OK/NG flips, {parity['review_changes']} changes of review"
        )


def _pair(boxes: Path, checkpoint: Path, out: Path, recipe: str | None, json: bool) -> None:
    require("train", "torch")
    from waferlens.export.sam import RECIPE, export_pair

    result = export_pair(boxes, checkpoint, out, recipe or RECIPE)
    if json:
        emit_json(result)
        return
    parity = result.parity
    say(f"{out}: {result.bytes / 1e6:.2f} MB, boxes of {boxes.name}, masks of {checkpoint.name}")
    say(
        f"torch against ONNX Runtime: {parity['max_abs']:.2g} of a logit at most on {parity['images']} made images, "
        f"{parity['flipped']} positions of masks changed sides"
    )
