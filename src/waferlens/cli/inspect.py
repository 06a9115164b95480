"""`waferlens inspect`: images in; maps, measurements with intervals, verdicts out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from waferlens.cli.output import as_json, counted_progress, emit_json, say

if TYPE_CHECKING:
    from waferlens.inspect import InspectResult

app = typer.Typer()

MOST_SWATHS = 10
"""Swaths that are told one by one on the terminal."""


@app.command()
def inspect(
    paths: Annotated[list[str], typer.Argument(help="Images, folders (also in the challenge's layout) or patterns.")],
    bundle: Annotated[str, typer.Option(help="A bundle: its folder, its zip, or a shipped name.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; an interrupted run in it goes on.")],
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=LOW:HIGHUNIT", help="Limits, as depth=110:130nm or cd50_x=:28px; may be repeated."),
    ] = None,
    pixel_nm: Annotated[float | None, typer.Option(help="Pixel size [nm]; wins over tags and recipe.")] = None,
    depth_nm_per_grey: Annotated[
        float | None, typer.Option(help="True depth of a grey value of the map [nm]; wins over the recipe.")
    ] = None,
    level: Annotated[float | None, typer.Option(help="Coverage of the intervals; 0.9 if not given.")] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="IMAGE|DIR", help="Compare with this good part (golden recipes).")
    ] = None,
    pair_by: Annotated[
        str | None,
        typer.Option(metavar="A:B", help="Names of image and reference, as {}_test.jpg:{}_temp.jpg (golden recipes)."),
    ] = None,
    track: Annotated[
        list[Path] | None, typer.Option(help="Stage trace or synchronised label of a swath, in their order (wafer).")
    ] = None,
    product: Annotated[
        str | None, typer.Option(metavar="310:318,636", help="Die thickness and tops of its levels [um] (wafer).")
    ] = None,
    pitch_um: Annotated[float | None, typer.Option(help="Pitch of the images [um] (wafer, package).")] = None,
    layout: Annotated[
        Path | None, typer.Option(metavar="CSV", help="swath,x0_um,y0_um[,track]: stitch the swaths (wafer).")
    ] = None,
    objective: Annotated[str | None, typer.Option(metavar="20x", help="To plan the focus of (wafer).")] = None,
    layer: Annotated[
        str | None, typer.Option(metavar="top|carrier|all|N", help="What is to be in focus; top (wafer).")
    ] = None,
    clearance_um: Annotated[float | None, typer.Option(help="Above the highest bound; 50 (wafer) [um].")] = None,
    height_format: Annotated[
        str | None, typer.Option(metavar="tif,gwy,x3p", help="What height maps are written as (wafer).")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Finds the device in an image's path; NAME of NAME-bf.png (package)."),
    ] = None,
    lights: Annotated[
        str | None,
        typer.Option(metavar="bf,dfw", help="A device is to be seen in these; all the bundle knows (package)."),
    ] = None,
    klarf: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the findings as KLARF; needs --pitch-um (package).")
    ] = None,
    e142: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the strip's map as SEMI E142; needs --strip (package).")
    ] = None,
    strip: Annotated[
        str | None, typer.Option(metavar="ROWSxCOLUMNS", help="How devices lie on their strip (package).")
    ] = None,
    maps: Annotated[bool, typer.Option(help="Write the height maps, or overlays of findings.")] = True,
    workers: Annotated[int, typer.Option(min=1, help="Threads.")] = 2,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove what a former run left in OUT.")] = False,
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="Database for the results, not SQLite in OUT.")
    ] = None,
    fail_on_ng: Annotated[bool, typer.Option("--fail-on-ng", help="Exit with 1 if an image is NG.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
) -> None:
    """Measure images with a bundle; the same command resumes a run that was interrupted.

    Of what a golden recipe finds, --json lists the first 1,000; findings.csv and findings.json in OUT hold all.
    """
    from waferlens.inspect import inspect_paths

    with counted_progress("images", quiet=json) as show:
        result = inspect_paths(
            paths,
            bundle,
            out,
            limits=limit or (),
            pixel_nm=pixel_nm,
            depth_nm_per_grey=depth_nm_per_grey,
            level=level,
            reference=reference,
            pair_by=pair_by,
            tracks=track or (),
            product=product,
            pitch_um=pitch_um,
            layout=layout,
            objective=objective,
            layer=layer,
            clearance_um=clearance_um,
            height_format=height_format,
            device=device,
            lights=lights,
            klarf=klarf,
            e142=e142,
            strip=strip,
            maps=maps,
            workers=workers,
            fresh=fresh,
            store=store,
            progress=show,
        )
    if json:
        emit_json(_machine(result))
    else:
        say(_summary(result))
    for one in result.not_written:
        say(f"{one['file']}: is not written: {one['reason']}")
    if result.quarantined or result.not_written or (fail_on_ng and result.verdicts["NG"]):
        raise typer.Exit(1)


def _machine(result: InspectResult) -> dict[str, Any]:
    """The result for machines: its findings as flat records."""
    found = [{"path": one.path, "page": one.page} | asdict(one.finding) for one in result.found]
    for one in found:
        if one["place"] is None:  # nothing that a part would be looked for on
            del one["place"]
    return as_json(result) | {"found": as_json(found)}


def _summary(result: InspectResult) -> str:
    told = ", ".join(f"{count} {verdict}" for verdict, count in result.verdicts.items() if count)
    lines = [
        f"{result.out}: {result.images} images in {result.seconds:.1f} s ({result.images_per_second:,.0f}/s)"
        + (f", {result.resumed_at} of them before" if result.resumed_at else "")
        + (f": {told}" if told and not result.devices else "")  # images in other lights are `review`, devices not
    ]
    if result.devices:
        told = ", ".join(f"{count} {verdict}" for verdict, count in result.device_verdicts.items() if count)
        count = sum(result.device_verdicts.values())
        lines.append(f"{count} device{'' if count == 1 else 's'}: {told}, in {result.out}/devices.csv")
    if result.findings:
        lines.append(
            f"{result.findings} finding{'' if result.findings == 1 else 's'}, {result.critical_findings} critical, "
            f"in {result.out}/findings.csv"
        )
    for swath in result.swaths[:MOST_SWATHS]:
        lines.append(_swath_line(swath))
    if len(result.swaths) > MOST_SWATHS:
        lines.append(f"  … {len(result.swaths) - MOST_SWATHS} more in {result.out}/results.csv")
    if result.quarantined:
        lines.append(f"{result.quarantined} quarantined, with reasons in {result.out}/quarantine.csv")
    return "\n".join(lines)


def _swath_line(swath: dict[str, Any]) -> str:
    """What a person wants to know of a swath at once."""
    top = "nothing known" if swath["top"] is None else f"top {swath['top']:.0f} um"
    safe = "" if swath["safe"] is None else f", safe above {swath['safe']:.0f} um"
    dies = (
        ""
        if swath["dies_present"] is None
        else f", dies {swath['dies_present']} present {swath['dies_missing']} missing {swath['dies_unsure']} unsure"
    )
    return f"  {swath['path']}: {top}{safe}{dies}, {swath['mpx_per_s']:.1f} Mpx/s, told {' + '.join(swath['inputs'])}"
