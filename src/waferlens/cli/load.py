"""`waferlens load`: folders of images as one set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from waferlens.cli.output import emit_json, progress, say

app = typer.Typer(no_args_is_help=True)


@app.callback()
def load() -> None:
    """Read folders of images as one set."""


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Root of a data set in the challenge's layout.")],
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
) -> None:
    """Look at every file: one line a problem, a count at the end. Exit status 1 if data is lost by one."""
    from waferlens.load.challenge import check as look
    from waferlens.load.challenge import scan

    found = scan(folder)
    maps = {hole.depth for hole in found.sim if hole.depth is not None}
    with progress(found.images + len(maps), "files", quiet=json) as advance:
        holes = look(found, advance)
    losing = sum(problem.loses_data for problem in holes.problems)
    counts = {"simulated": len(holes.sim), "depth_maps": len(maps), "real": len(holes.real), "test": len(holes.test)}
    if json:
        emit_json({"folder": folder, **counts, "problems": holes.problems, "losing_data": losing})
    else:
        for problem in holes.problems:
            print(problem)
        say(
            f"{folder}: {counts['simulated']} simulated images with {counts['depth_maps']} depth maps, "
            f"{counts['real']} real, {counts['test']} test; {len(holes.problems)} problems, {losing} of them lose data"
        )
    if losing:
        raise typer.Exit(1)
