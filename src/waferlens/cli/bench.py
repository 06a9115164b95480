"""`waferlens bench`: speed of networks on this machine, side by side."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from waferlens.cli.output import counted_progress, emit_json
from waferlens.errors import UsageError

if TYPE_CHECKING:
    from waferlens.lab.bench import Benched, Timing

app = typer.Typer()


@app.command()
def bench(
    names: Annotated[
        list[str],
        typer.Argument(help="Bundles, recipes or files .onnx; the first is what the others are compared to."),
    ],
    batch: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,16",
    size: Annotated[
        str | None,
        typer.Option("--input", metavar="ROWSxCOLUMNS", help="One size of image for all; else each its own."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="onnxruntime, openvino, torch, separated by commas; all that are installed if not set."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each engine.")] = 2,
    seconds: Annotated[float, typer.Option(min=0.01, help="Time for each network, engine and batch size [s].")] = 2.0,
    warm_up: Annotated[
        int | None, typer.Option(min=1, help="Batches run before it is timed; a quarter of the time if not set.")
    ] = None,
    timed: Annotated[
        int | None, typer.Option(min=1, help="Batches that are timed, in place of a time; 1000 in S2.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
) -> None:
    """Time networks in the engines that are installed, taking turns, and give their ratios."""
    from waferlens.lab.bench import bench as run
    from waferlens.lab.bench import machine

    sizes = batch.split(",")
    if not all(one.strip().isdigit() and int(one) > 0 for one in sizes):
        raise UsageError(f"--batch {batch}: whole numbers separated by commas, such as 1,16")
    engines = None if engine is None else [one.strip() for one in engine.split(",")]
    with counted_progress("bench %", quiet=json) as show:
        told = run(
            names,
            [int(one) for one in sizes],
            threads,
            seconds,
            engines=engines,
            size_px=None if size is None else _size(size),
            warm_up=warm_up,
            timed=timed,
            show=show,
        )
    if json:
        emit_json(
            {
                "timings": told.timings,
                "not_run": told.not_run,
                "engines": told.engines,
                "precision": "f32",
                "nms": "left out",
                "threads": threads,
                **machine(),
            }
        )
        return
    for line in lines_of(told, names[0], threads):
        print(line)


def lines_of(told: Benched, first: str, threads: int) -> list[str]:
    """A bench as two tables for people: the networks, and their times.

    Args:
        told: Of `lab.bench.bench`.
        first: What the ratios are to.
        threads: Of each engine.
    """
    wide = max([len("network"), *(len(timing.name) for timing in told.timings)])
    lines = [f"{'network':<{wide}}  {'from':<6}  {'input':>11}  {'parameters':>10}  {'GFLOPs':>7}"]
    networks: dict[str, Timing] = {timing.name: timing for timing in reversed(told.timings)}
    for one in sorted(networks.values(), key=lambda timing: told.timings.index(timing)):
        parameters = "–" if one.parameters_fused is None else f"{one.parameters_fused:,}"
        gflops = "–" if one.gflops is None else f"{one.gflops:.2f}"
        shown = f"{one.height_px} x {one.width_px}"
        lines.append(f"{one.name:<{wide}}  {one.source:<6}  {shown:>11}  {parameters:>10}  {gflops:>7}")
    lines += [
        "",
        f"{'engine':<11}  {'batch':>5}  {'network':<{wide}}  {'ms an image':>24}  {'images/s':>8}  time ratio",
    ]
    before = None
    for one in told.timings:
        here = (one.engine, one.batch)
        place = f"{one.engine:<11}  {one.batch:>5}" if here != before else " " * 18
        before = here
        ms = f"{_short(one.ms_per_image)}{_interval(one.ms_interval)}"
        ratio = "1" if one.name == first else f"{_short(one.ratio)}{_interval(one.ratio_interval)}"
        lines.append(f"{place}  {one.name:<{wide}}  {ms:>24}  {_short(one.images_per_s):>8}  {ratio}")
    plural = "threads" if threads > 1 else "thread"
    lines += [
        "",
        f"{threads} {plural}, float32, medians with 95 % intervals; ratios are of times, to {first}; NMS left out.",
    ]
    if len({(one.height_px, one.width_px) for one in told.timings}) > 1:
        lines.append("The images differ in size; --input ROWSxCOLUMNS gives all the same.")
    lines += [f"Not run: {one}" for one in told.not_run]
    return lines


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or not all(int(side) for side in match.groups()):
        raise UsageError(f"--input {text}: rows and columns in pixels, such as 640x640")
    return int(match[1]), int(match[2])


def _short(value: float) -> str:
    """Three figures, or more where they stand before the point."""
    return f"{value:.{max(0, 2 - _places(value))}f}"


def _places(value: float) -> int:
    import math

    return math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0


def _interval(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f" [{_short(ends[0])}, {_short(ends[1])}]"
