"""`waferlens reproduce`: a published table, and ours beside it."""

from __future__ import annotations

import re
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from waferlens.cli.output import as_json, emit_json, make_folder, say
from waferlens.errors import UsageError

app = typer.Typer()


@app.command()
def reproduce(
    table: Annotated[str, typer.Argument(help="s2-table-4.1, s2-table-4.2, s2-table-4.3 or s2-table-4.6.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="a.b=c", help="Settings written over the recipe of every row.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the reproduction; an interrupted one in it goes on.")] = ...,  # type: ignore[assignment]
    data: Annotated[
        Path | None, typer.Option(help="Package set to train and judge on, by its sides; simulated if not given.")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="Set of other devices to judge on, whole; needs --data.")] = None,
    devices: Annotated[int, typer.Option(min=1, help="Devices to simulate for training.")] = 200,
    test_devices: Annotated[int, typer.Option(min=1, help="Devices to simulate for judging.")] = 60,
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 2, help="Seed of simulated devices.")] = 1,
    domain: Annotated[str, typer.Option(help="Domain of simulated devices, or a YAML file.")] = "sim",
    rows: Annotated[str | None, typer.Option(help="Rows, separated by commas; all if not set.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How often each row is trained.")] = 1,
    cpu_minutes: Annotated[float, typer.Option(min=0.01, help="CPU time of a row and seed [min].")] = 30.0,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs over which the learning rate falls.")] = 20,
    size: Annotated[str, typer.Option("--input", metavar="ROWSxCOLUMNS", help="Image that is trained on.")] = "320x320",
    fps_input: Annotated[str, typer.Option(metavar="ROWSxCOLUMNS", help="Image that is timed.")] = "640x640",
    fps_seconds: Annotated[
        float, typer.Option(min=0.0, help="Time for each network and batch size; 0 leaves FPS out [s].")
    ] = 2.0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    workers: Annotated[int, typer.Option(min=0, help="Processes that make batches in training.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
) -> None:
    """Make a published table again to a stated budget: train, export and judge its rows, ours beside theirs.

    The same command goes on with one that was interrupted; rows that are finished are not run again. Exit status 1
    where a count of parameters is not the published one.
    """
    if test is not None and data is None:
        raise UsageError("--test goes with --data; simulated devices are judged on others of the next seed")
    from waferlens.lab.reproduce import Simulated, asked_rows
    from waferlens.lab.reproduce import reproduce as run
    from waferlens.lab.reproduce_rows import Budget
    from waferlens.lab.reproduce_text import table_json, table_lines

    budget = Budget(cpu_minutes, epochs, _size("--input", size), tuple(overrides or ()))
    fps_size_px = _size("--fps-input", fps_input)
    chosen = None if rows is None else [one.strip() for one in rows.split(",")]
    asked_rows(table, chosen)
    make_folder(out)  # last: what is refused leaves none behind
    done = run(
        table,
        out,
        budget=budget,
        data=Simulated(devices, test_devices, seed, domain) if data is None else data,
        test=test,
        rows=chosen,
        seeds=seeds,
        threads=threads,
        workers=workers,
        fps_size_px=fps_size_px,
        fps_seconds=fps_seconds,
        tell=(lambda text: None) if json else (lambda text: say(f"· {text}")),
    )
    lines = table_lines(done)
    (out / "table.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / "table.json").write_text(dumps(as_json(table_json(done)), indent=2) + "\n")
    if json:
        emit_json(table_json(done))
    else:
        for line in lines:
            print(line)
        say(f"written: {out}")
    if not done.exact:
        raise typer.Exit(1)


def _size(option: str, text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or not all(int(side) for side in match.groups()):
        raise UsageError(f"{option} {text}: rows and columns in pixels, such as 640x640")
    return int(match[1]), int(match[2])
