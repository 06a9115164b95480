"""`waferlens bench`: speed of networks on this machine, side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from waferlens.cli.output import emit_json
from waferlens.errors import UsageError

app = typer.Typer()


@app.command()
def bench(
    names: Annotated[
        list[str], typer.Argument(help="Bundles or recipes; the first is what the others are compared to.")
    ],
    batch: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,16",
    threads: Annotated[int, typer.Option(min=1, help="Threads of ONNX Runtime.")] = 2,
    seconds: Annotated[float, typer.Option(min=0.01, help="Time for each network and batch size [s].")] = 2.0,
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
) -> None:
    """Time networks in ONNX Runtime, taking turns, and give their ratios."""
    from waferlens.lab.bench import bench as run
    from waferlens.lab.bench import machine

    sizes = batch.split(",")
    if not all(size.strip().isdigit() and int(size) > 0 for size in sizes):
        raise UsageError(f"--batch {batch}: whole numbers separated by commas, such as 1,16")
    timings = run(names, [int(size) for size in sizes], threads, seconds)
    if json:
        emit_json({"timings": timings, "threads": threads, **machine()})
        return
    reference = {timing.batch: timing.images_per_s for timing in timings if timing.name == names[0]}
    print(f"{'network':<28} {'batch':>5} {'images/s':>10} {'ms':>9} {'median ms':>10} {'ratio':>7}")
    for timing in timings:
        print(
            f"{timing.name:<28} {timing.batch:>5} {timing.images_per_s:>10.0f} {timing.milliseconds:>9.3f} "
            f"{timing.median_milliseconds:>10.3f} {timing.images_per_s / reference[timing.batch]:>7.3f}"
        )
