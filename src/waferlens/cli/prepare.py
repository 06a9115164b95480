"""`waferlens prepare`: how a set is split, what a network sees of an image, packages cut out, streams on images."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from waferlens.cli.output import as_json, emit_json, make_folder, progress, say

app = typer.Typer(no_args_is_help=True)


class Light(StrEnum):
    """The light an image was taken in."""

    bf = "bf"
    dfw = "dfw"
    dfb = "dfb"


@app.callback()
def prepare() -> None:
    """Split a set, show the geometry training and inspection share, and lay streams of sensors on images."""


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


@app.command()
def raw(
    files: Annotated[list[Path], typer.Argument(help="Raw frames: height, width, then rows of 16-bit grey.")],
    out: Annotated[Path, typer.Option(help="Folder for the images.")],
    png: Annotated[bool, typer.Option("--png", help="Write PNG instead of TIFF; 16 bits as well.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
) -> None:
    """Write raw frames as 16-bit TIFF, or PNG. Exit status 1 if a file was none; the others are written."""
    from waferlens.errors import InputError, UsageError
    from waferlens.formats.raw_frame import read_raw_frame, write_grey16

    targets = [out / f"{path.stem}{'.png' if png else '.tif'}" for path in files]
    twice = [name for name, count in Counter(targets).items() if count > 1]
    if twice:
        raise UsageError(f"two of the files would become {twice[0]}; write them into folders of their own")
    make_folder(out)
    written, refused = [], []
    for path, target in zip(files, targets, strict=True):
        try:
            pixels = read_raw_frame(path)
            write_grey16(target, pixels)
        except InputError as wrong:
            refused.append({"file": path, "reason": wrong.reason})
            say(str(wrong))
            continue
        written.append({"file": path, "image": target, "height_px": pixels.shape[0], "width_px": pixels.shape[1]})
    if json:
        emit_json({"written": written, "refused": refused})
    else:
        for entry in written:
            print(f"{entry['image']}: {entry['height_px']} x {entry['width_px']} px")
    if refused:
        raise typer.Exit(1)


@app.command()
def roi(
    images: Annotated[list[str], typer.Argument(help="Images of packages, folders or patterns.")],
    out: Annotated[Path, typer.Option(help="Folder for the upright crops and roi.json.")],
    method: Annotated[
        str | None,
        typer.Option(
            help="edges, opencv, yolov5n, yolov5n-seg, yolov5s-seg, yolov5n-sam, or the file of a recipe; by default "
            "what --bundle is, or edges."
        ),
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="Bundle of the network that finds packages.")] = None,
    refine: Annotated[
        bool | None,
        typer.Option(
            "--refine/--no-refine", help="Fit straight lines to the borders of what a network tells, as by default."
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="a.b=c", help="Written over the recipe; with a network, over roi-edges."),
    ] = None,
    light: Annotated[
        Light | None, typer.Option(help="Light of all images; by default each is sorted by its colours.")
    ] = None,
    size: Annotated[str, typer.Option(metavar="WxH", help="Size of the crops [px]")] = "581x1090",
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
) -> None:
    """Cut IC packages out of images and turn them upright. Exit status 1 if an image was quarantined."""
    from json import dumps

    from waferlens.formats.height_parts import write_whole
    from waferlens.prepare.roi import expand, prepare_rois
    from waferlens.prepare.roi_finders import finder

    size_px = _size(size)
    files = expand(images)
    found_by = finder(method, bundle=bundle, refine=refine, settings=setting or [])
    make_folder(out)
    with progress(len(files), "roi", quiet=json or len(files) < 2) as advance:
        done = prepare_rois(
            files, out, found_by, light=None if light is None else light.value, size_px=size_px, advance=advance
        )
    bad = [{"file": str(one.file), "reason": one.reason} for one in done if one.reason]
    result = {"method": found_by.name, "images": [one.as_json() for one in done], "quarantined": bad}
    write_whole(out / "roi.json", lambda beside: beside.write_text(dumps(as_json(result), indent=2) + "\n"))
    if json:
        emit_json(result)
    else:
        for one in done:
            if one.reason:
                say(f"{one.file}: quarantined: {one.reason}")
            elif one.roi is not None:
                turn = "" if one.roi.angle_deg is None else f", turned by {one.roi.angle_deg:.3f} deg"
                print(f"{one.crop}: score {one.roi.score:.2f}{turn}")
    if bad:
        raise typer.Exit(1)


def _size(text: str) -> tuple[int, int]:
    """Width and height from `WxH`.

    Raises:
        UsageError: it is not of that form.
    """
    from waferlens.errors import UsageError

    try:
        width, height = (int(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError:
        raise UsageError(f"--size {text}: write width x height in pixels, as 581x1090") from None
    if not (16 <= width <= 8192 and 16 <= height <= 8192):
        raise UsageError(f"--size {text}: both sides must be 16 to 8192 px")
    return width, height


@app.command()
def sync(
    stream: Annotated[Path, typer.Argument(help="Stage trace of the scan (CSV).")],
    image: Annotated[Path, typer.Argument(help="The swath, a 16-bit image.")],
    out: Annotated[Path, typer.Option(help="Folder for label, report and picture.")],
    opposite: Annotated[Path | None, typer.Option(help="Trace of the same swath scanned the other way.")] = None,
    pitch_um: Annotated[float, typer.Option(help="Distance of the image's columns [um].")] = 1.2913298,
    latency_samples: Annotated[int | None, typer.Option(help="Of the sensor, if known.")] = None,
    lag_ms: Annotated[float | None, typer.Option(help="Time constant of its low-pass, if known [ms].")] = None,
    offset_um: Annotated[float | None, typer.Option(help="From encoder to image, if known [um].")] = None,
    most_offset_um: Annotated[float, typer.Option(min=1.0, help="Largest offset that is looked for [um].")] = 1000.0,
    rows: Annotated[int, typer.Option(min=1, help="Rows of the label.")] = 1,
    strip: Annotated[bool, typer.Option("--strip", help="Write the published 8-bit label as well.")] = False,
    bits: Annotated[int, typer.Option(help="Of the image's pixels: 8, 16, or 32 for floats.")] = 16,
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
) -> None:
    """Lay the auto-focus stream on its image: a height for each column, exactly, and how late the sensor was."""
    from json import dumps

    import numpy as np
    import tifffile

    from waferlens.errors import InputError
    from waferlens.formats.height_parts import write_whole
    from waferlens.formats.stage_trace import read_trace
    from waferlens.formats.swath import read_swath
    from waferlens.prepare.sync import strip_label, synchronised
    from waferlens.prepare.sync_picture import draw_sync

    trace = read_trace(stream)
    other = read_trace(opposite) if opposite is not None else None
    swath = read_swath(image)
    if swath.bits != bits:
        raise InputError(
            image, f"has {swath.bits} bits a pixel, not {bits}; take the image as the camera wrote it, or say --bits"
        )
    done = synchronised(
        trace,
        swath,
        pitch_um,
        opposite=other,
        latency_samples=latency_samples,
        lag_ms=lag_ms,
        offset_um=offset_um,
        most_offset_um=most_offset_um,
        names=(str(stream), str(opposite)),
    )
    make_folder(out)
    label = np.tile(done.label_um, (rows, 1))
    files = {"label": out / "label.tif", "report": out / "report.json", "picture": out / "sync.png"}
    write_whole(files["label"], lambda beside: tifffile.imwrite(beside, label, photometric="minisblack", metadata=None))
    if strip:
        files["strip"] = out / "strip.tif"
        grey = strip_label(done.label_um, trace.z_ref_um, rows)
        write_whole(
            files["strip"], lambda beside: tifffile.imwrite(beside, grey, photometric="minisblack", metadata=None)
        )
    result = {"stream": stream, "image": image, **done.report(), "files": files}
    draw_sync(files["picture"], done, swath)
    write_whole(files["report"], lambda beside: beside.write_text(dumps(as_json(result), indent=2) + "\n"))
    if json:
        emit_json(result)
        return
    for note in done.notes:
        say(f"note: {note}")
    late = "latency and lag not told apart from the offset"
    if done.separated and done.delay is not None:
        late = f"latency {done.delay.latency_samples} samples, lag {result['lag_um']:.1f} um"
    where = f"offset {result['offset_um']:.1f} um" if result["offset_um"] is not None else "offset not found"
    print(
        f"{files['label']}: {result['columns_known']} of {result['columns']} columns, {late}, {where}, "
        f"{result['dropouts']} dropouts; by whole pixels it would drift by {result['drift_px']:.0f} px"
    )
