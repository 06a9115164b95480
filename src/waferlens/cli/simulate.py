"""`waferlens simulate`: images whose truth is known exactly."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from waferlens.cli.output import as_json, emit_json, progress, say
from waferlens.errors import UsageError

app = typer.Typer(no_args_is_help=True)

MOST_SEED = 2**64 - 1
"""The random streams take 64 bits."""


@app.callback()
def simulate() -> None:
    """Make images whose truth is known exactly."""


@app.command()
def hole(
    out: Annotated[Path, typer.Argument(help="Folder to write; it must not hold a data set yet.")],
    domain: Annotated[
        str,
        typer.Option(help="sim, continuous, train, stress, hard (with truth); real, real2 (without); or a YAML file."),
    ] = "sim",
    structures: Annotated[int | None, typer.Option(min=1, help="Structures; each gives 4 cases of 2 images.")] = None,
    sites: Annotated[int | None, typer.Option(min=1, help="Sites of a real domain.")] = None,
    holes_per_site: Annotated[int | None, typer.Option(min=1, help="Images of each site; 30 if not set.")] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=MOST_SEED, help="Seed; of a real domain it is the evaluation seed. 1 if not set."),
    ] = None,
    nuisance: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Share of the material and instrument ranges; the domain's own if not set."
        ),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="A frozen evaluation set: eval-v1 or continuous-v1.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes; the bytes do not depend on it.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
) -> None:
    """Etched holes under a scanning electron microscope, in the layout of the 3D-metrology challenge."""
    from waferlens.simulate.hole.dataset import hole_world, write_pairs, write_sites
    from waferlens.simulate.hole.presets import PRESETS, write_preset
    from waferlens.simulate.hole.world import ITERATIONS

    started = time.perf_counter()
    if preset is not None:
        if domain != "sim" or nuisance is not None or sites is not None:
            raise UsageError("--preset fixes domain, seed and nuisance; leave --domain, --nuisance and --sites out")
        if seed is not None:
            say(f"--preset {preset} has a seed of its own; --seed {seed} is left out")
        full = PRESETS[preset].structures if preset in PRESETS else 0
        with progress((structures or full) * 4 * ITERATIONS, "images", quiet=json) as advance:
            written = write_preset(out, preset, workers, advance, structures)
    else:
        world = hole_world(domain, nuisance)
        seed = 1 if seed is None else seed
        if world.kind == "sites":
            if structures is not None:
                raise UsageError(f"--domain {domain} has sites: use --sites and --holes-per-site, not --structures")
            sites = 40 if sites is None else sites
            holes_per_site = 30 if holes_per_site is None else holes_per_site
            with progress(sites * holes_per_site, "images", quiet=json) as advance:
                written = write_sites(out, world, sites, holes_per_site, seed, workers, advance)
        else:
            if sites is not None or holes_per_site is not None:
                raise UsageError(
                    f"--domain {domain} has structures: use --structures, not --sites and --holes-per-site"
                )
            structures = 64 if structures is None else structures
            total = structures * len(world.plateaus) * ITERATIONS
            with progress(total, "images", quiet=json) as advance:
                written = write_pairs(out, world, structures, seed, workers, advance)
    seconds = time.perf_counter() - started
    if json:
        emit_json({"folder": out, "world": written.world, "images": written.images, "depth_maps": written.depth_maps,
                   "pixels_sha256": written.pixels_sha256, "seconds": round(seconds, 3)})  # fmt: skip
    else:
        say(f"{out}: {written.images} images, {written.depth_maps} depth maps of {written.world} in {seconds:.1f} s")


@app.command()
def field(
    out: Annotated[Path, typer.Argument(help="Folder to write; it must not hold a data set yet.")],
    images: Annotated[int, typer.Option(min=1, help="Good pictures.")] = 200,
    defective: Annotated[int, typer.Option(min=0, help="Pictures with a defect, each with its twin without.")] = 50,
    rows: Annotated[int, typer.Option(min=1, help="Holes along y, in cells of 72 px.")] = 3,
    columns: Annotated[int, typer.Option(min=1, help="Holes along x, in cells of 48 px.")] = 4,
    domain: Annotated[str, typer.Option(help="Domain of the hole station, or a YAML file.")] = "sim",
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed: the product and all its pictures.")] = 1,
    first: Annotated[int, typer.Option(min=0, help="Number of the first picture: new ones of the same product.")] = 0,
    nuisance: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Share of the material and instrument ranges; the domain's own if not set."
        ),
    ] = None,
    shift_px: Annotated[float, typer.Option(min=0.0, help="Greatest stage shift along each axis [px].")] = 3.0,
    angle_deg: Annotated[float, typer.Option(min=0.0, help="Greatest rotation to either side [deg].")] = 0.3,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="Defect to plant, repeatable; all if not set: particle, residue, missing, bridge, pinhole, scratch."
        ),
    ] = None,
    bits: Annotated[int, typer.Option(help="8, or 16 to keep the camera's fractions of a grey.")] = 8,
    workers: Annotated[int, typer.Option(min=1, help="Processes; the bytes do not depend on it.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
) -> None:
    """Arrays of holes of one product: good ones, defective ones, and the same ones without the defect."""
    from waferlens.simulate.hole.dataset import hole_world
    from waferlens.simulate.hole.defects import KIND_NAMES, DefectSpec
    from waferlens.simulate.hole.field import FieldSpec
    from waferlens.simulate.hole.twins import write_fields

    started = time.perf_counter()
    spec = FieldSpec(rows=rows, columns=columns, shift_px=shift_px, angle_deg=angle_deg, bits=bits)
    defects = DefectSpec(kinds=tuple(kind) if kind else KIND_NAMES)
    with progress(1 + images + 2 * defective, "images", quiet=json) as advance:
        written = write_fields(
            out, hole_world(domain, nuisance), images, defective, seed, spec, defects, workers, advance, first
        )
    seconds = time.perf_counter() - started
    if json:
        emit_json({**as_json(written), "folder": out, "seconds": round(seconds, 3)})
    else:
        say(
            f"{out}: {written.good} good fields of {written.width_px}x{written.height_px} px, {written.defective} "
            f"defective with their twins, {written.defects} defects of {written.world} in {seconds:.1f} s"
        )


@app.command()
def wafer(
    out: Annotated[Path, typer.Argument(help="Folder to write; it must not hold a data set yet.")],
    domain: Annotated[
        str, typer.Option(help="sim, train, stress, hard (with truth); real (without); or a YAML file.")
    ] = "sim",
    fields: Annotated[int | None, typer.Option(min=1, help="Fields of 5.6 mm; 60 if not set.")] = None,
    grid: Annotated[int | None, typer.Option(help="Rows and columns of a field [px]; 684 if not set.")] = None,
    swath: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Swaths of K fields along the scan instead of single fields.")
    ] = None,
    swaths: Annotated[int, typer.Option(min=1, help="How many swaths.")] = 1,
    both: Annotated[bool, typer.Option("--both-directions", help="Scan each swath there and back.")] = False,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=MOST_SEED, help="Seed; of a real domain it is the evaluation seed. 1 if not set."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="A frozen evaluation set: eval-v1.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes; the bytes do not depend on it.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
) -> None:
    """High-topology wafers under a scanning microscope, with the auto-focus track beside the image."""
    from waferlens.simulate.wafer.dataset import wafer_world, write_fields, write_swaths
    from waferlens.simulate.wafer.presets import PRESETS, write_preset

    started = time.perf_counter()
    if swath is not None and (fields is not None or preset is not None):
        raise UsageError("--swath makes swaths; leave --fields and --preset out")
    if swath is None and both:
        raise UsageError("--both-directions is for swaths: give --swath K")
    if preset is not None:
        if domain != "sim" or grid is not None or seed is not None:
            raise UsageError("--preset fixes domain, grid and seed; leave --domain, --grid and --seed out")
        full = PRESETS[preset].fields if preset in PRESETS else 0
        with progress(fields or full, "fields", quiet=json) as advance:
            written = write_preset(out, preset, workers, advance, fields)
    else:
        world, seed, grid = wafer_world(domain), 1 if seed is None else seed, 684 if grid is None else grid
        if swath is not None:
            with progress(swaths * (1 + both), "swaths", quiet=json) as advance:
                written = write_swaths(
                    out, world, swaths, swath, grid, seed, both=both, workers=workers, advance=advance
                )
        else:
            fields = 60 if fields is None else fields
            with progress(fields, "fields", quiet=json) as advance:
                written = write_fields(out, world, fields, grid, seed, workers, advance)
    seconds = time.perf_counter() - started
    if json:
        emit_json({**as_json(written), "seconds": round(seconds, 3)})
    else:
        what = "swaths" if swath is not None else "fields"
        say(f"{out}: {written.fields} {what} of {written.wafers} wafers of {written.world} in {seconds:.1f} s")


@app.command()
def package(
    out: Annotated[Path, typer.Argument(help="Folder to write; it must not hold a data set yet.")],
    domain: Annotated[
        str, typer.Option(help="sim, train, line, hard, stress, turned (with truth); real (without); or a YAML file.")
    ] = "sim",
    devices: Annotated[int | None, typer.Option(min=1, help="Devices, each in three lights; 60 if not set.")] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=MOST_SEED, help="Seed; of a real domain it is the evaluation seed. 1 if not set."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="A frozen evaluation set: eval-v1.")] = None,
    twins: Annotated[
        bool, typer.Option("--twins", help="Also write a good twin of each defective device: the same but for it.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes; the bytes do not depend on it.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
) -> None:
    """IC packages under a microscope in brightfield and two darkfields, with cracked and turned dies."""
    from waferlens.simulate.package.dataset import defective_devices, package_world, write_devices
    from waferlens.simulate.package.presets import PRESETS, write_preset

    started = time.perf_counter()
    if preset is not None:
        if domain != "sim" or seed is not None or twins:
            raise UsageError("--preset fixes domain and seed; leave --domain, --seed and --twins out")
        full = PRESETS[preset].devices if preset in PRESETS else 0
        with progress(devices or full, "devices", quiet=json) as advance:
            written = write_preset(out, preset, workers, advance, devices)
    else:
        world, seed, devices = package_world(domain), 1 if seed is None else seed, 60 if devices is None else devices
        total = devices + (len(defective_devices(world, seed, devices)) if twins else 0)
        with progress(total, "devices", quiet=json) as advance:
            written = write_devices(out, world, devices, seed, workers, advance, twins=twins)
    seconds = time.perf_counter() - started
    if json:
        emit_json({**as_json(written), "seconds": round(seconds, 3)})
    else:
        told = ", ".join(f"{count} {verdict}" for verdict, count in written.verdicts.items())
        say(f"{out}: {written.devices} devices of {written.world} ({told}) in {seconds:.1f} s")


@app.command()
def audit(
    domain: Annotated[str, typer.Option(help="Domain of the station, or a YAML file.")] = "sim",
    station: Annotated[Literal["hole", "wafer", "package"], typer.Option(help="Whose simulator.")] = "hole",
    structures: Annotated[int, typer.Option(min=8, help="Structures or sites to draw; wafers; devices.")] = 200,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed.")] = 1,
    physics: Annotated[bool, typer.Option(help="Also run the validation tests of the physics.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
) -> None:
    """Check a simulator: its physics, its statistics, and that no shortcut gives the answer away."""
    if station == "wafer":
        from waferlens.simulate.wafer.audit import run_audit as run_wafer_audit
        from waferlens.simulate.wafer.validation import run_validation as run_wafer_validation

        checks = [*(run_wafer_validation(seed) if physics else []), *run_wafer_audit(domain, structures, seed)]
    elif station == "package":
        from waferlens.simulate.package.audit import run_audit as run_package_audit
        from waferlens.simulate.package.validation import run_validation as run_package_validation

        checks = [*(run_package_validation(seed) if physics else []), *run_package_audit(domain, structures, seed)]
    else:
        from waferlens.simulate.hole.audit import run_audit
        from waferlens.simulate.hole.validation import run_validation

        checks = [*(run_validation(seed) if physics else []), *run_audit(domain, structures, seed)]
    failed = [check for check in checks if not check.passed]
    if json:
        emit_json({"checks": checks, "failed": len(failed)})
    else:
        for check in checks:
            verdict = "ok    " if check.passed else "FAILED"
            print(f"{verdict}  {check.name}: {check.got} (expected {check.expected}, {check.tolerance})")
        say(f"{len(checks)} checks, {len(failed)} failed")
    if failed:
        raise typer.Exit(1)
