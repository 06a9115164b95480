"""`waferlens measure`: level and measure height maps of instruments; the angle of a die in its package."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from waferlens.cli.measure_die_angle import DieAngleOptions, run_die_angle
from waferlens.cli.measure_flatness import FlatnessOptions, run_flatness
from waferlens.cli.output import emit_json, make_folder, progress, say
from waferlens.errors import InputError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from waferlens.records import HeightMap, Measurement

app = typer.Typer()


class Level(StrEnum):
    """Which plane is taken off."""

    least_squares = "least-squares"
    three_points = "three-points"
    robust = "robust"
    none = "none"


class Held(StrEnum):
    """How a wafer was held when its surface was measured."""

    free = "free"
    vacuum = "vacuum"


class AngleDatum(StrEnum):
    """What a die's angle is told against."""

    package = "package"
    cavity = "cavity"
    leads = "leads"


class Form(StrEnum):
    """Which form is taken off after the plane."""

    none = "none"
    polynomial_2 = "polynomial-2"


@app.command()
def measure(
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help="Height maps; each is measured by itself.")],
    level: Annotated[Level, typer.Option(help="Plane to take off.")] = Level.least_squares,
    points: Annotated[
        str | None, typer.Option(metavar="'X,Y X,Y X,Y'", help="Places for --level three-points [px]")
    ] = None,
    form: Annotated[Form, typer.Option(help="Form to take off after the plane.")] = Form.none,
    s_filter_um: Annotated[
        float | None, typer.Option(help="Cutoff of the S-filter: waves shorter than it go [um]")
    ] = None,
    l_filter_um: Annotated[
        float | None, typer.Option(help="Cutoff of the L-filter: waves longer than it go [um]")
    ] = None,
    outliers: Annotated[
        bool, typer.Option("--outliers", help="Leave out points beyond 5 robust sigma of the robust plane.")
    ] = False,
    trim_percent: Annotated[
        float | None, typer.Option(help="Leave out heights outside the percentiles P and 100 - P [%]")
    ] = None,
    channel: Annotated[
        str | None, typer.Option(help="Name or number of the channel; by default the first height channel.")
    ] = None,
    pitch_um: Annotated[float | None, typer.Option(help="Pitch of files that do not say their own [um]")] = None,
    height_unit: Annotated[
        str | None, typer.Option(help="Unit of the heights of files that do not say their own: nm, um, mm, m.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw map and profiles of each file as PNG into this folder.")
    ] = None,
    flatness: Annotated[
        bool, typer.Option("--flatness", help="Measure flatness over the map and in sites instead of roughness.")
    ] = False,
    site: Annotated[
        str | None, typer.Option(metavar="WxH", help="With --flatness: size of a site, as 25x25 [mm]")
    ] = None,
    site_offset: Annotated[
        str | None, typer.Option(metavar="X,Y", help="With --flatness: moves the grid of sites [mm]")
    ] = None,
    partial_sites: Annotated[
        bool, typer.Option("--partial-sites", help="With --flatness: measure sites that the edge cuts, too.")
    ] = False,
    edge_exclusion: Annotated[
        float, typer.Option(metavar="MM", help="With --flatness: left out along the edge of wafer or map [mm]")
    ] = 0.0,
    wafer_mm: Annotated[
        float | None,
        typer.Option(
            metavar="MM", help="With --flatness: diameter of the wafer; found where the map shows a disc [mm]"
        ),
    ] = None,
    wafer_centre_mm: Annotated[
        str | None, typer.Option(metavar="X,Y", help="Centre of the wafer; by default the middle of the map [mm]")
    ] = None,
    chuck: Annotated[
        Held | None,
        typer.Option(help="With --flatness: declares how the wafer was held, which gives BOW, WARP, or GFLR, SFQR."),
    ] = None,
    thickness_map: Annotated[
        bool, typer.Option("--thickness-map", help="With --flatness: declares that heights are thicknesses: TTV, GBIR.")
    ] = False,
    least_known: Annotated[
        float | None, typer.Option(metavar="SHARE", help="With --flatness: share of pixels a number needs (0.8).")
    ] = None,
    product: Annotated[
        str | None,
        typer.Option(metavar="T:TOP[,TOP]", help="With --flatness: stack of the dies; measures their steps [um]"),
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="With --product: image of the same grid, which refines the edges of the dies.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="With --flatness or --die-angle: a picture of each file, and its numbers."),
    ] = None,
    die_angle: Annotated[
        bool, typer.Option("--die-angle", help="Files are images of IC packages: measure how the die is turned.")
    ] = False,
    datum: Annotated[
        AngleDatum | None, typer.Option(help="With --die-angle: what the angle is told against (package).")
    ] = None,
    pixel_um: Annotated[float | None, typer.Option(help="With --die-angle: size of a pixel [um]")] = None,
    limit_deg: Annotated[
        float | None, typer.Option(help="With --die-angle: greatest angle of a good die (0.5) [deg]")
    ] = None,
    pin_1: Annotated[
        str | None,
        typer.Option(
            "--pin-1",
            metavar="X0,Y0,X1,Y1[,dark]",
            help="With --die-angle: a place on the die, in shares of it, brighter (or dark) than the one opposite.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result on standard output.")] = False,
) -> None:
    """Level and measure height maps: valid fraction, tilt, range, rms, Sa, Sq, Sp, Sv, Sz, Ssk, Sku.

    With --die-angle: the angle of a die in its package from an image, with its 90 % interval and the verdict.

    With --flatness: range and deviation from planes over the map and in each site, bow and warp, steps of dies.

    A file that is no height map is named with the reason; the others are measured all the same, and the exit status
    is 1.
    """
    turned = DieAngleOptions(None if datum is None else datum.value, pixel_um, limit_deg, pin_1, out)
    if die_angle:
        if flatness:
            raise UsageError("--die-angle is of images, --flatness of height maps: ask for one of them")
        raise typer.Exit(run_die_angle(files, turned, free_name=_free_name, json=json))
    if turned.given():
        raise UsageError(f"{', '.join(turned.given())}: only with --die-angle")
    wanted = FlatnessOptions(
        site, site_offset, partial_sites, edge_exclusion, wafer_mm, wafer_centre_mm,
        None if chuck is None else chuck.value, thickness_map, least_known, product, image, out,
    )  # fmt: skip
    if flatness:
        changed = {
            "--level": level is not Level.least_squares,
            "--form": form is not Form.none,
            "--s-filter-um": s_filter_um is not None,
            "--l-filter-um": l_filter_um is not None,
            "--outliers": outliers,
            "--trim-percent": trim_percent is not None,
        }
        if any(changed.values()):
            asked = ", ".join(option for option, given in changed.items() if given)
            raise UsageError(f"--flatness is of the surface as it is, all of it: leave out {asked}")
        if figures is not None:
            raise UsageError("--flatness writes its picture with its tables: give --out instead of --figures")
        status = run_flatness(
            files,
            wanted,
            points=None if points is None else _points(points),
            channel=channel,
            pitch_um=pitch_um,
            height_unit=height_unit,
            free_name=_free_name,
            json=json,
        )
        raise typer.Exit(status)
    if wanted.given():
        raise UsageError(f"{', '.join(wanted.given())}: only with --flatness")
    # Loaded here and not above: `--help` needs no arrays.
    from waferlens.formats.heightmap import read_height_map
    from waferlens.measure.surface import measurements, prepare_surface

    how: dict[str, Any] = {
        "level": level.value,
        "form": form.value,
        "s_filter": s_filter_um,
        "l_filter": l_filter_um,
        "outliers": outliers,
        "trim_percent": trim_percent,
        "points": None if points is None else _points(points),
    }
    if figures is not None:
        make_folder(figures)
    records: list[Measurement] = []
    drawn: set[str] = set()
    status = 0
    with progress(len(files), "measure", quiet=json or len(files) < 2) as advance:
        for file in files:
            try:
                height_map = read_height_map(file, channel, pitch_um=pitch_um, unit=height_unit)
                done = prepare_surface(height_map, **how)
            except (InputError, MissingExtraError) as error:
                named = error if isinstance(error, InputError) else f"{file}: {error}"
                say(f"waferlens measure: {named}")
                status = max(status, error.exit_status)
                continue
            finally:
                advance(1)
            rows = [replace(row, file=str(file)) for row in measurements(height_map, done)]
            records += rows
            picture = None
            if figures is not None:
                from waferlens.measure.figures import draw_surface

                picture = _free_name(figures, file, drawn)
                draw_surface(picture, height_map, done, rows)
            if not json:
                print(_table(file, height_map, rows, picture))
    if json:
        emit_json([record.as_json() for record in records])
    raise typer.Exit(status)


def _points(text: str) -> list[tuple[float, float]]:
    """Three places from `x,y x,y x,y`.

    Raises:
        UsageError: they are not three pairs of numbers.
    """
    try:
        places = [tuple(float(part) for part in pair.split(",")) for pair in text.split()]
    except ValueError as error:
        raise UsageError(f"--points '{text}': {error}; write three pairs as 'x,y x,y x,y'") from error
    if len(places) != 3 or any(len(place) != 2 for place in places):
        raise UsageError(f"--points '{text}': write three pairs as 'x,y x,y x,y'")
    return [(x, y) for x, y in places]


def _free_name(folder: Path, file: Path, taken: set[str]) -> Path:
    """A picture's name that no other file of this call has: two folders may hold files of one name."""
    name, number = f"{file.name}.png", 2
    while name in taken:
        name, number = f"{file.name}-{number}.png", number + 1
    taken.add(name)
    return folder / name


def _table(file: Path, height_map: HeightMap, rows: list[Measurement], picture: Path | None) -> str:
    from waferlens.measure.figures import pretty
    from waferlens.measure.surface import outlier_note
    from waferlens.units import convert

    origin = height_map.origin
    h, w = height_map.heights.shape
    pitch_unit = "um" if height_map.pitch_unit in ("mm", "m") else height_map.pitch_unit
    x, y = (convert(pitch, height_map.pitch_unit, pitch_unit) for pitch in (height_map.pitch_x, height_map.pitch_y))
    pitch = f"{x:.6g} x {y:.6g} {pretty(pitch_unit)}"
    lines = [
        str(file),
        f"  {origin['format']}, channel '{origin['channel']}', {w} x {h} points, pitch {pitch}",
    ]
    for row in rows:
        value = "–" if row.value is None else f"{row.value:.5g}"
        why = f"  {row.method}" if row.value is None else ""
        lines.append(f"  {row.name:<17}{value:>12} {'' if row.unit == '1' else pretty(row.unit)}{why}".rstrip())
    lines.append(f"  Sa to Sku: {rows[-1].method if rows[-1].value is not None else 'see the reasons above'}")
    lines += [f"  note: {remark}" for remark in origin["remarks"]]
    note = outlier_note(rows)
    lines += [f"  note: {note}"] if note else []
    if picture is not None:
        lines.append(f"  figure: {picture}")
    return "\n".join(lines) + "\n"
