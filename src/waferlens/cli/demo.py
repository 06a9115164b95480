"""`waferlens demo`: the whole story on a small lot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from waferlens.cli.output import emit_json, say

app = typer.Typer()


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder; a former demonstration in it is replaced.")] = Path("runs/demo"),
    bundle: Annotated[str, typer.Option(help="A bundle: its folder, its zip, or a shipped name.")] = "hole-fast",
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Seed of everything that is drawn.")] = 7,
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
) -> None:
    """Simulate a small lot, inspect it, compare it with its truth, measure a surface, and write one page."""
    from waferlens.lab.demo import run_demo

    result = run_demo(out, bundle, seed=seed, tell=(lambda text: None) if json else (lambda text: say(f"· {text}")))
    if json:
        emit_json(result)
        return
    for line in result.lines():
        print(line)
