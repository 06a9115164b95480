"""`waferlens load`: folders of images as one set, and labels in any of their formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from waferlens.cli.output import emit_json, progress, say
from waferlens.errors import UsageError

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


@app.command()
def labels(
    source: Annotated[Path, typer.Argument(help="File or folder of labels: COCO, YOLO or Label Studio.")],
    to: Annotated[str, typer.Option(help="Format to write: yolo, coco or label-studio.")],
    out: Annotated[Path, typer.Option(help="The .json file, or for yolo the folder.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images: where sizes are read and names found.")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Classes that are allowed, in their order: crack,rotate")] = None,
    oriented: Annotated[
        bool, typer.Option("--oriented", help="YOLO lines of eight numbers are oriented boxes.")
    ] = False,
    split_by: Annotated[
        str | None, typer.Option(help="Split by device: an expression that finds it in the path, as '([0-9]+)-'.")
    ] = None,
    lossy: Annotated[bool, typer.Option("--lossy", help="Leave out what the format cannot hold, and list it.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
) -> None:
    """Read labels and write them in another format. What that cannot hold is refused, or with --lossy listed."""
    from dataclasses import replace

    from waferlens.load.labels import read_label_set, write_labels

    kinds = None if classes is None else [name.strip() for name in classes.split(",") if name.strip()]
    read = read_label_set(source, images, kinds, oriented)
    if split_by is None:
        parts = {"": read.images}
    elif images is None:
        raise UsageError("--split-by compares the pictures themselves, so that none is on two sides; give --images")
    else:
        from waferlens.prepare.label_splits import split_labels

        parts = split_labels(read.images, images, split_by)
    written, losses, files = 0, list[str](), {}
    for side, part in parts.items():
        place = out.with_name(f"{out.stem}-{side}{out.suffix}") if side else out
        count, lost = write_labels(replace(read, images=part), to, place, lossy, oriented)
        written, losses = written + count, losses + lost
        files[side or "all"] = {"out": place, "images": len(part), "labels": count}
    if json:
        emit_json(
            {
                "source": source,
                "from": read.format,
                "to": to,
                "out": out,
                "images": len(read.images),
                "labels": written,
                **({} if split_by is None else {"sides": files}),
                "classes": read.counts,
                "passed_over": read.remarks,
                "lost": losses,
            }
        )
        return
    for remark in read.remarks:
        print(f"passed over: {remark}")
    for loss in losses:
        print(f"lost: {loss}")
    counts = ", ".join(f"{count} {kind}" for kind, count in read.counts.items()) or "none"
    for side, part in files.items() if split_by is not None else ():
        print(f"{side:<12} {part['images']:>7} images {part['labels']:>8} labels   {part['out']}")
    say(f"{out}: {written} labels on {len(read.images)} images as {to} (read from {read.format}: {counts})")
