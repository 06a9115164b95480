"""Writes a data set of simulated holes in the challenge's layout: same bytes for a seed, however many the workers.

`paired` worlds are written with their truth. `sites` worlds write images and the mean depth of each site, nothing
else: the truth comes back only from the evaluation seed, see `draw_site`.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from waferlens import __version__
from waferlens.errors import InputError, UsageError
from waferlens.formats import challenge
from waferlens.recipe import read_model
from waferlens.recipe.hole_world import HoleWorld
from waferlens.recipe.reading import shipped_names
from waferlens.simulate.hole.world import ITERATIONS, Site, draw_pairs, draw_site
from waferlens.simulate.streams import Stream, stream

STRUCTURES_A_TASK = 16
SEED_SALT = "waferlens-site-seed"


@dataclass(frozen=True, slots=True)
class Preset:
    """A frozen data set: everything that decides its bytes, and what those bytes must hash to."""

    world: str
    structures: int
    seed: int
    nuisance: float
    pixels_sha256: str
    """Over all images and depth maps in order, as pixels: independent of how PNG files are packed."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written."""

    images: int
    depth_maps: int
    world: str
    pixels_sha256: str
    folder: str


def hole_world(domain: str, nuisance: float | None = None) -> HoleWorld:
    """The world of a domain of the hole station.

    Args:
        domain: `sim`, `real`, `continuous` …: a file `hole-<domain>.yaml` of `waferlens/worlds`, or a path.
        nuisance: Share of the material and instrument ranges; the world's own if None.

    Raises:
        UsageError: there is no such domain.
        RecipeError: its file has faults.
    """
    overrides = [] if nuisance is None else [f"nuisance={nuisance!r}"]
    if domain.endswith((".yaml", ".yml")):
        return read_model(HoleWorld, domain, folder_package="worlds", overrides=overrides)
    known = [name.removeprefix("hole-") for name in shipped_names("worlds") if name.startswith("hole-")]
    if domain not in known:
        near = difflib.get_close_matches(domain, known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(known)}, or a YAML file"
        raise UsageError(f"domain '{domain}' is unknown; {hint}")
    return read_model(HoleWorld, f"hole-{domain}", folder_package="worlds", overrides=overrides)


def seed_fingerprint(seed: int) -> str:
    """Salted hash of a seed: lets an evaluator check that it holds the right one without telling it to a trainer."""
    return hashlib.scrypt(str(seed).encode(), salt=SEED_SALT.encode(), n=2**14, r=8, p=1, dklen=16).hex()


def world_fingerprint(world: HoleWorld) -> str:
    """Hash over every number of a world."""
    return hashlib.sha256(json.dumps(world.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def order(world: HoleWorld, seed: int, count: int) -> np.ndarray:
    """The number a sample is known by: shuffled, so that names carry no information."""
    return stream(seed, world.name, Stream.ORDER, count).permutation(count)


def write_pairs(
    out: Path,
    world: HoleWorld,
    structures: int,
    seed: int,
    workers: int = 1,
    advance: Callable[[int], None] | None = None,
) -> Written:
    """Writes structures of a `paired` world with their truth.

    Args:
        out: Folder; must not hold another data set.
        world: The domain.
        structures: How many structures; each gives four cases of two images.
        seed: Seed of the data set.
        workers: Processes.
        advance: Called with the number of images written since the last call.

    Raises:
        UsageError: the world is one of sites.
        InputError: the folder already holds a data set.
    """
    if world.kind != "paired":
        raise UsageError(f"world {world.name} is one of sites: give --sites and --holes-per-site, not --structures")
    _claim(out)
    numbers = order(world, seed, structures)
    tasks = [
        (str(out), world, seed, range(start, min(start + STRUCTURES_A_TASK, structures)), numbers)
        for start in range(0, structures, STRUCTURES_A_TASK)
    ]
    sums, rows, digest = [], [], hashlib.sha256()
    for task_sums, task_rows, task_digest in _each(_write_structures, tasks, workers):
        sums += task_sums
        rows += task_rows
        digest.update(task_digest)
        if advance is not None:
            advance(len(task_rows) * ITERATIONS)
    _finish(out, world, {"seed": seed, "structures": structures}, sums, digest.hexdigest())
    table = io.StringIO()
    writer = csv.DictWriter(table, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    (out / challenge.SAMPLES_FILE).write_text(table.getvalue())
    return Written(len(rows) * ITERATIONS, len(rows), world.name, digest.hexdigest(), str(out))


def write_sites(
    out: Path,
    world: HoleWorld,
    sites: int,
    holes_per_site: int,
    seed: int,
    workers: int = 1,
    advance: Callable[[int], None] | None = None,
) -> Written:
    """Writes the sites of a `sites` world: images and one mean depth a site; truth is not written.

    Args:
        out: Folder; must not hold another data set.
        world: The domain.
        sites: How many sites, dealt over the depth groups in turn.
        holes_per_site: Images of each site.
        seed: The evaluation seed; only its salted hash is written.
        workers: Processes.
        advance: Called with the number of images written since the last call.

    Raises:
        UsageError: the world is one of pairs.
        InputError: the folder already holds a data set.
    """
    if world.kind != "sites":
        raise UsageError(f"world {world.name} is one of pairs: give --structures, not --sites")
    _claim(out)
    names, numbers = site_names(world, seed, sites, holes_per_site)
    tasks = [(str(out), world, seed, site, holes_per_site, names[site], numbers[site]) for site in range(sites)]
    sums, depths, digest = [], {}, hashlib.sha256()
    for site, (site_sums, average_depth_nm, site_digest) in enumerate(_each(_write_site, tasks, workers)):
        sums += site_sums
        depths[names[site]] = round(average_depth_nm, 6)
        digest.update(site_digest)
        if advance is not None:
            advance(holes_per_site)
    challenge.write_average_depth(challenge.average_depth_path(out), depths)
    facts = {"seed_fingerprint": seed_fingerprint(seed), "sites": sites, "holes_per_site": holes_per_site}
    _finish(out, world, facts, sorted(sums, key=lambda entry: entry[0]), digest.hexdigest())
    return Written(sites * holes_per_site, 0, world.name, digest.hexdigest(), str(out))


def site_names(
    world: HoleWorld, seed: int, sites: int, holes_per_site: int
) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Under which bucket and number each site is filed, and the number of each of its images.

    Returns:
        (bucket, site number) of each site, and image numbers `sites holes`.
    """
    known = order(world, seed, sites)
    images = order(world, seed, sites * holes_per_site).reshape(sites, holes_per_site)
    buckets = [challenge.BUCKETS[site % len(world.plateaus)] for site in range(sites)]
    return [(bucket, int(number)) for bucket, number in zip(buckets, known, strict=True)], images


def _each(do: Callable[[Any], Any], tasks: list[Any], workers: int) -> Iterator[Any]:
    """Results in the order of the tasks, from this process or from several."""
    if workers <= 1 or len(tasks) == 1:
        yield from map(do, tasks)
        return
    # spawn: a fork would copy the state of whatever threads the caller has running
    with ProcessPoolExecutor(min(workers, len(tasks)), multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(do, tasks, chunksize=4)


def _write_structures(task: tuple[str, HoleWorld, int, range, np.ndarray]) -> tuple[list, list, bytes]:
    root, world, seed, structures, numbers = task
    sums, rows, digest = [], [], hashlib.sha256()
    for structure in structures:
        number = int(numbers[structure])
        base, folder = f"{number:06d}", challenge.FOLDERS[number % len(challenge.FOLDERS)]
        for case, pair in enumerate(draw_pairs(world, seed, structure), start=1):
            for itr, image in enumerate(pair.images):
                path = challenge.sim_sem_path("", case, folder, base, itr)
                sums.append((path.as_posix(), _write_png(Path(root, path), image)))
                digest.update(image.tobytes())
            truth = np.rint(pair.heights).astype(np.uint8)
            path = challenge.sim_depth_path("", case, folder, base)
            sums.append((path.as_posix(), _write_png(Path(root, path), truth)))
            digest.update(truth.tobytes())
            rows.append(
                {
                    "structure": base,
                    "case": case,
                    "folder": folder,
                    "plateau_nm": round(pair.plateau_nm, 6),
                    "depth_nm": round(pair.depth_nm, 6),
                    "half_width_x_px": round(pair.structure.half_width_x, 6),
                    "half_width_y_px": round(pair.structure.half_width_y, 6),
                }
            )
    return sums, rows, digest.digest()


def _write_site(task: tuple[str, HoleWorld, int, int, int, tuple[int, int], np.ndarray]) -> tuple[list, float, bytes]:
    root, world, seed, index, holes, (bucket, number), images = task
    site: Site = draw_site(world, seed, index, holes)
    sums = []
    for image, name in zip(site.images, images, strict=True):
        path = challenge.real_sem_path("", bucket, number, int(name))
        sums.append((path.as_posix(), _write_png(Path(root, path), image)))
    return sums, site.average_depth_nm, hashlib.sha256(site.images.tobytes()).digest()


def _write_png(path: Path, pixels: np.ndarray) -> str:
    """Writes a grey PNG without any metadata and returns its sha256."""
    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise InputError(path, "cannot be encoded as PNG")
    encoded = data.tobytes()
    try:
        path.write_bytes(encoded)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded)
    return hashlib.sha256(encoded).hexdigest()


def _claim(out: Path) -> None:
    """Refuses to mix two data sets: what is in a folder is known only if one run wrote it."""
    if (out / "simulation_data").exists() or (out / "train").exists() or challenge.manifest_path(out).exists():
        raise InputError(out, "already holds a data set; name another folder, or remove this one first")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as wrong:
        raise InputError(out, f"cannot be made: {wrong.strerror}") from wrong


def _finish(out: Path, world: HoleWorld, facts: dict[str, Any], sums: list[tuple[str, str]], pixels: str) -> None:
    listing = "".join(f"{digest}  {path}\n" for path, digest in sums)
    (out / challenge.SUMS_FILE).write_text(listing)
    manifest = {
        "kind": "waferlens hole data set",
        "version": __version__,
        "world": world.model_dump(mode="json"),
        "world_sha256": world_fingerprint(world),
        **facts,
        "units": {"image": "grey", "depth map": "nm, deeper is smaller", "pixel_nm": world.pixel_nm},
        "edge_assignment_bias_px": edge_bias(world),
        "files": len(sums),
        "sums_sha256": hashlib.sha256(listing.encode()).hexdigest(),
        "pixels_sha256": pixels,
    }
    challenge.manifest_path(out).write_text(json.dumps(manifest, indent=2) + "\n")


def edge_bias(world: HoleWorld) -> float:
    """How far the picture's edge lies outside the truth's [px]; the domain shift that grey matching cannot undo."""
    from waferlens.simulate.hole.audit import edge_assignment_bias_px

    return round(edge_assignment_bias_px(world), 3)


def read_manifest(root: Path) -> dict[str, Any] | None:
    """The manifest of a data set, checked against itself; None where there is none.

    Raises:
        InputError: the manifest was changed: its world does not hash to what it says.
    """
    path = challenge.manifest_path(root)
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_text())
        world = HoleWorld.model_validate(manifest["world"])
        told = manifest["world_sha256"]
    except (ValueError, KeyError) as wrong:
        raise InputError(path, f"is no manifest of a hole data set ({wrong})") from wrong
    if world_fingerprint(world) != told:
        raise InputError(path, "the world written in it was changed after the data set was made; simulate it again")
    return manifest
