"""`waferlens report`: one self-contained page of runs, evaluations and surfaces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from waferlens.cli.output import emit_json, say

app = typer.Typer()


@app.command()
def report(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="RUN…", help="Folders of inspect or evaluate, height maps, JSON of measure."),
    ],
    out: Annotated[Path | None, typer.Option(help="The page; report.html in the first folder if not set.")] = None,
    evaluation: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Folder of `evaluate --out`; may be repeated.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="What the page is called; the first source if not set.")] = None,
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="Database with the results, where `inspect` was given one.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
) -> None:
    """Write one HTML page that opens from disk and loads nothing from anywhere."""
    from waferlens.report.page import write_report

    first = sources[0]
    page = out if out is not None else (first if first.is_dir() else first.parent) / "report.html"
    written = write_report(sources, page, title, evaluations=evaluation or (), store=store)
    size = written.stat().st_size
    if json:
        emit_json({"report": written, "bytes": size})
    else:
        say(f"written: {written} ({size / 1e6:.2f} MB)")
