"""`waferlens prepare`: how a set is split, and what the network will see of an image."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from waferlens.cli.output import emit_json

app = typer.Typer(no_args_is_help=True)


@app.callback()
def prepare() -> None:
    """Split a set, and show the geometry training and inspection share."""


@app.command()
def split(
    data: Annotated[Path, typer.Argument(help="Folder in the challenge's layout.")],
    salt: Annotated[str, typer.Option(help="Another word gives another, independent split.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
) -> None:
    """Show which structures and sites fall on which side; a group never changes sides when files are added."""
    from waferlens.load.challenge import scan
    from waferlens.prepare.splits import FRACTIONS, split_of

    holes = scan(data)
    result: dict[str, dict[str, dict[str, int]]] = {}
    for kind, groups in (
        ("structures", [hole.structure for hole in holes.sim]),
        ("sites", [hole.site for hole in holes.real]),
    ):
        if not groups:
            continue
        images = Counter(split_of(group, salt=salt) for group in groups)
        members = Counter(split_of(group, salt=salt) for group in set(groups))
        result[kind] = {side: {"groups": members[side], "images": images[side]} for side in FRACTIONS}
    if json:
        emit_json(result)
        return
    for kind, sides in result.items():
        for side, counts in sides.items():
            print(f"{kind:<11} {side:<12} {counts['groups']:>7} groups {counts['images']:>8} images")


@app.command()
def geometry(
    image: Annotated[Path, typer.Argument(help="An image file.")],
    height_px: Annotated[int, typer.Option(min=1, help="Rows the network was trained for [px].")] = 72,
    width_px: Annotated[int, typer.Option(min=1, help="Columns the network was trained for [px].")] = 48,
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
) -> None:
    """Show what the network sees of each page of an image: size, grey range, pixel size."""
    from waferlens.formats.images import read_images
    from waferlens.prepare.geometry import to_input

    pages = []
    for page in read_images(image):
        seen = to_input(page, height_px, width_px)
        pages.append(
            {
                "page": page.page,
                "type": str(page.pixels.dtype),
                "full_scale": page.full_scale,
                "pixel_nm": page.pixel_nm,
                "grey_min": float(seen.min()),
                "grey_mean": float(seen.mean()),
                "grey_max": float(seen.max()),
            }
        )
    if json:
        emit_json(pages)
        return
    for entry in pages:
        size = f"{entry['pixel_nm']:g} nm/px" if entry["pixel_nm"] else "pixel size unknown"
        print(
            f"page {entry['page']}: {entry['type']}, seen as {entry['grey_min']:.2f}..{entry['grey_max']:.2f} grey "
            f"(mean {entry['grey_mean']:.2f}), {size}"
        )
