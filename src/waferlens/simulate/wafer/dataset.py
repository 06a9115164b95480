"""Writes a data set of wafer fields, or of swaths: same bytes for a seed, however many the workers.

A world that hides its truth writes images, traces and what a line knows; heights and sites come back only from the
evaluation seed, by `draw_field`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from waferlens import __version__
from waferlens.errors import InputError, UsageError
from waferlens.formats import wafer_set
from waferlens.formats.stage_trace import write_trace
from waferlens.formats.wafer_set import FieldRow
from waferlens.recipe import read_model
from waferlens.recipe.reading import shipped_names
from waferlens.recipe.wafer_world import WaferWorld
from waferlens.simulate.streams import Stream, stream
from waferlens.simulate.wafer.field import SimulatedField, draw_field, draw_swath
from waferlens.simulate.wafer.scene import FIELD_UM, NATIVE_PX

SEED_SALT = "waferlens-wafer-seed"
LEAST_GRID, GREATEST_GRID = 114, NATIVE_PX
BIG_TIFF_BYTES = 2**31
TILE_PX = 256


@dataclass(frozen=True, slots=True)
class Written:
    """What was written."""

    fields: int
    wafers: int
    world: str
    grid: int
    pixels_sha256: str
    folder: str


def wafer_world(domain: str) -> WaferWorld:
    """The world of a domain of the wafer station.

    Args:
        domain: `sim`, `real`, `stress`, `hard`: a file `wafer-<domain>.yaml` of `waferlens/worlds`, or a path.

    Raises:
        UsageError: there is no such domain.
        RecipeError: its file has faults.
    """
    if domain.endswith((".yaml", ".yml")):
        return read_model(WaferWorld, domain, folder_package="worlds")
    known = [name.removeprefix("wafer-") for name in shipped_names("worlds") if name.startswith("wafer-")]
    if domain not in known:
        near = difflib.get_close_matches(domain, known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(known)}, or a YAML file"
        raise UsageError(f"domain '{domain}' is unknown; {hint}")
    return read_model(WaferWorld, f"wafer-{domain}", folder_package="worlds")


def seed_fingerprint(seed: int) -> str:
    """Salted hash of a seed: lets an evaluator check that it holds the right one without telling it to a trainer."""
    return hashlib.scrypt(str(seed).encode(), salt=SEED_SALT.encode(), n=2**14, r=8, p=1, dklen=16).hex()


def world_fingerprint(world: WaferWorld) -> str:
    """Hash over every number of a world."""
    return hashlib.sha256(json.dumps(world.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def field_names(world: WaferWorld, seed: int, count: int) -> tuple[list[str], list[str]]:
    """Names of the fields and of their wafers, shuffled so that they carry no information."""
    rng = stream(seed, world.name, Stream.ORDER, count)
    wafers = -(-count // world.fields_per_wafer)
    fields, known = rng.permutation(count), rng.permutation(wafers)
    return (
        [f"{number:06d}" for number in fields],
        [f"wafer-{known[number // world.fields_per_wafer]:05d}" for number in range(count)],
    )


def write_fields(
    out: Path,
    world: WaferWorld,
    fields: int,
    grid: int,
    seed: int,
    workers: int = 1,
    advance: Callable[[int], None] | None = None,
) -> Written:
    """Writes single fields.

    Args:
        out: Folder; must not hold another data set.
        world: The domain.
        fields: How many.
        grid: Rows and columns of each [px]
        seed: Seed of the data set; of a world that hides its truth only a salted hash is written.
        workers: Processes.
        advance: Called with the number of fields written since the last call.

    Raises:
        UsageError: the grid is out of range.
        InputError: the folder already holds a data set.
    """
    _require_grid(grid)
    _claim(out)
    names, wafers = field_names(world, seed, fields)
    tasks = [(str(out), world, seed, number, grid, names[number], wafers[number]) for number in range(fields)]
    return _written(out, world, seed, grid, tasks, _write_field, workers, advance, {"fields": fields})


def write_swaths(
    out: Path,
    world: WaferWorld,
    swaths: int,
    fields_long: int,
    grid: int,
    seed: int,
    *,
    both: bool = False,
    workers: int = 1,
    advance: Callable[[int], None] | None = None,
) -> Written:
    """Writes swaths, each of its own wafer; the arguments as of `write_fields`.

    Args:
        out: Folder.
        world: The domain.
        swaths: How many.
        fields_long: Fields along each.
        grid: Rows, and columns of each field [px]
        seed: Seed.
        both: Whether each is scanned a second time, against the first direction.
        workers: Processes.
        advance: Called with the number of swaths written since the last call.
    """
    _require_grid(grid)
    _claim(out)
    ways = (1, -1) if both else (1,)
    tasks = []
    for number in range(swaths):
        for place, way in enumerate(ways):
            name = f"{number * len(ways) + place:06d}"
            tasks.append((str(out), world, seed, number, grid, name, f"wafer-{number:05d}", fields_long, way))
    facts = {"swaths": swaths, "fields_long": fields_long, "both_directions": both}
    return _written(out, world, seed, grid, tasks, _write_swath, workers, advance, facts)


def field_row(made: SimulatedField, world: WaferWorld, name: str, wafer: str) -> FieldRow:
    """What a line knows of a field."""
    design, microscope = made.design, world.microscope
    return FieldRow(
        name,
        wafer,
        design.carrier,
        int(design.bright),
        microscope.magnification,
        microscope.na,
        "track" if design.track_focus else "fixed",
        world.af.z_ref_um,
        design.thickness_um,
        design.product.level_tops_um,
    )


def _written(
    out: Path,
    world: WaferWorld,
    seed: int,
    grid: int,
    tasks: list[Any],
    do: Callable[[Any], tuple[list[tuple[str, str]], FieldRow, bytes]],
    workers: int,
    advance: Callable[[int], None] | None,
    facts: dict[str, Any],
) -> Written:
    sums, rows, digest = [], [], hashlib.sha256()
    for task_sums, row, task_digest in _each(do, tasks, workers):
        sums += task_sums
        rows.append(row)
        digest.update(task_digest)
        if advance is not None:
            advance(1)
    wafer_set.write_fields(out, sorted(rows, key=lambda row: row.field))
    sums.append((wafer_set.FIELDS_FILE, hashlib.sha256((out / wafer_set.FIELDS_FILE).read_bytes()).hexdigest()))
    listing = "".join(f"{told}  {path}\n" for path, told in sorted(sums))
    (out / wafer_set.SUMS_FILE).write_text(listing)
    manifest = {
        "kind": "waferlens wafer data set",
        "version": __version__,
        "world": world.model_dump(mode="json"),
        "world_sha256": world_fingerprint(world),
        **({"seed_fingerprint": seed_fingerprint(seed)} if world.hidden_truth else {"seed": seed}),
        **facts,
        "grid": grid,
        "pitch_um": FIELD_UM / grid,
        "units": {"image": "grey, 16 bits", "height": "um above the carrier, positive up", "z": "count, downwards"},
        "files": len(sums),
        "sums_sha256": hashlib.sha256(listing.encode()).hexdigest(),
        "pixels_sha256": digest.hexdigest(),
    }
    (out / wafer_set.MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n")
    wafers = len({row.wafer for row in rows})
    return Written(len(rows), wafers, world.name, grid, digest.hexdigest(), str(out))


def _each(do: Callable[[Any], Any], tasks: list[Any], workers: int) -> Iterator[Any]:
    """Results in the order of the tasks, from this process or from several."""
    if workers <= 1 or len(tasks) == 1:
        yield from map(do, tasks)
        return
    # spawn: a fork would copy the state of whatever threads the caller has running
    with ProcessPoolExecutor(min(workers, len(tasks)), multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(do, tasks, chunksize=2)


def _write_field(
    task: tuple[str, WaferWorld, int, int, int, str, str],
) -> tuple[list[tuple[str, str]], FieldRow, bytes]:
    root, world, seed, number, grid, name, wafer = task
    return _write_one(Path(root), world, draw_field(world, seed, number, grid), name, wafer)


def _write_swath(
    task: tuple[str, WaferWorld, int, int, int, str, str, int, int],
) -> tuple[list[tuple[str, str]], FieldRow, bytes]:
    root, world, seed, number, grid, name, wafer, long, way = task
    return _write_one(Path(root), world, draw_swath(world, seed, number, long, grid, way), name, wafer)


def _write_one(
    root: Path, world: WaferWorld, made: SimulatedField, name: str, wafer: str
) -> tuple[list[tuple[str, str]], FieldRow, bytes]:
    digest = hashlib.sha256(made.image.tobytes())
    paths = [wafer_set.image_path(root, name), wafer_set.track_path(root, name)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    write_grey(paths[0], made.image)
    write_trace(paths[1], made.trace)
    if not world.hidden_truth:
        digest.update(made.height_um.tobytes())
        paths += [wafer_set.height_path(root, name), wafer_set.dies_path(root, name)]
        for path in paths[2:]:
            path.parent.mkdir(parents=True, exist_ok=True)
        write_grey(paths[2], made.height_um)
        wafer_set.write_dies(paths[3], made.dies)
    sums = [(path.relative_to(root).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths]
    return sums, field_row(made, world, name, wafer), digest.digest()


def write_grey(path: Path, pixels: np.ndarray) -> None:
    """Writes one channel as TIFF without metadata: in one strip, or in tiles where it is wide."""
    tile = (TILE_PX, TILE_PX) if pixels.shape[1] > 4 * pixels.shape[0] else None
    tifffile.imwrite(
        path,
        pixels,
        photometric="minisblack",
        metadata=None,
        software=False,
        tile=tile,
        bigtiff=pixels.nbytes > BIG_TIFF_BYTES,
    )


def _require_grid(grid: int) -> None:
    if not LEAST_GRID <= grid <= GREATEST_GRID:
        raise UsageError(f"--grid {grid}: a field has {LEAST_GRID} to {GREATEST_GRID} px; 684 is what the recipes use")


def _claim(out: Path) -> None:
    """Refuses to mix two data sets: what is in a folder is known only if one run wrote it."""
    if (out / wafer_set.MANIFEST_FILE).exists() or (out / "image").exists():
        raise InputError(out, "already holds a data set; name another folder, or remove this one first")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as wrong:
        raise InputError(out, f"cannot be made: {wrong.strerror}") from wrong
