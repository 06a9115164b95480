"""Judges a bundle on real images, of which only the mean depth of each site is known, or all with the right seed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from waferlens.bundle.calibration import Calibration, intervals, out_of_domain
from waferlens.bundle.readout import read_out
from waferlens.bundle.session import Session
from waferlens.errors import InputError, UsageError
from waferlens.evaluate.repeatability import site_statistics
from waferlens.formats import challenge, images
from waferlens.load.challenge import HoleSet, SimArrays, load_sem
from waferlens.prepare.geometry import batch_input
from waferlens.recipe.hole_world import HoleWorld
from waferlens.simulate.hole.dataset import read_manifest, seed_fingerprint, site_names
from waferlens.simulate.hole.world import draw_site

BATCH = 256
SEED_VARIABLE = "WAFERLENS_EVAL_SEED"


def evaluate_sites(
    session: Session,
    calibration: Calibration,
    holes: HoleSet,
    nm_per_grey: float,
    advance: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Compares the mean depth of each site with the table of the data set.

    Args:
        session: The bundle's network.
        calibration: The bundle's calibration.
        holes: A folder with real images and their table of depths.
        nm_per_grey: Depth a grey value of the map, for the table is in nm [nm]
        advance: Called with the number of images done since the last call.

    Returns:
        `sites`, and over them `bias_nm`, `slope`, `rmse_nm`, the same within each bucket (where grey level alone says
        nothing), `out_of_domain`, and the spread of the holes within a site, three standard deviations:
        `depth_uniformity_3s_nm`, `local_cd_uniformity_3s_px`.
    """
    depths, widths, outside = [], [], []
    for start in range(0, len(holes.real), BATCH):
        paths = [hole.sem for hole in holes.real[start : start + BATCH]]
        told = read_out(session, calibration, batch_input(load_sem(holes.root, paths)))
        found = intervals(calibration, told.measurands, told.features, min(calibration.levels() or [0.9]))
        depths.append(found["depth"].value)
        widths.append(found["cd50_area"].value)
        outside.append(out_of_domain(calibration, told.domain)[0])
        if advance is not None:
            advance(len(paths))
    value = np.concatenate(depths) * nm_per_grey
    names, site = np.unique([hole.site for hole in holes.real], return_inverse=True)
    truth = np.array([hole.average_depth for hole in holes.real])
    bucket = np.array([hole.bucket for hole in holes.real])
    known = np.isfinite(value) & np.isfinite(truth)
    count = np.bincount(site[known], minlength=len(names))
    mean = np.bincount(site[known], value[known], minlength=len(names)) / np.maximum(count, 1)
    told_depth = np.bincount(site[known], truth[known], minlength=len(names)) / np.maximum(count, 1)
    group = np.zeros(len(names), int)
    group[site] = bucket
    there = count > 0
    return {
        "sites": int(there.sum()),
        "images": len(value),
        "not_measured": int((~np.isfinite(value)).sum()),
        "out_of_domain": float(np.concatenate(outside).mean()),
        **_agreement(mean[there], told_depth[there]),
        "within_bucket": {
            str(name): _agreement(mean[there & (group == name)], told_depth[there & (group == name)])
            for name in np.unique(bucket)
        },
        "depth_uniformity_3s_nm": site_statistics(value, site).local_uniformity,
        "local_cd_uniformity_3s_px": site_statistics(np.concatenate(widths), site).local_uniformity,
    }


def regenerated(holes: HoleSet, keep: Callable[[str], bool] | None = None) -> SimArrays | None:
    """The hidden truth of a simulated `real` data set, drawn again from the evaluation seed.

    Args:
        holes: A folder that `simulate hole --domain real` wrote.
        keep: Which sites, by the name splits go by; all if None.

    Returns:
        Images with their depth maps; None where no seed is given or the folder is not simulated.

    Raises:
        UsageError: the seed in the environment is not the one the images were made from.
        InputError: the images were changed since, or no site is kept.
    """
    told, manifest = os.environ.get(SEED_VARIABLE), read_manifest(holes.root)
    if told is None or manifest is None or "seed_fingerprint" not in manifest:
        return None
    if not told.isdecimal():
        raise UsageError(f"{SEED_VARIABLE} should be the whole number the data was simulated from, got {told!r}")
    seed = int(told)
    if seed_fingerprint(seed) != manifest["seed_fingerprint"]:
        raise UsageError(f"{SEED_VARIABLE}: {holes.root} was made from another seed")
    world = HoleWorld.model_validate(manifest["world"])
    sites, number = manifest["sites"], manifest["holes_per_site"]
    names, numbers = site_names(world, seed, sites, number)
    sums = _sums(holes.root)
    sem, depth, structure = [], [], []
    for index, (bucket, name) in enumerate(names):
        key = challenge.site_key(bucket, name)
        if keep is not None and not keep(key):
            continue
        site = draw_site(world, seed, index, number)
        paths = [challenge.real_sem_path("", bucket, name, int(image)).as_posix() for image in numbers[index]]
        for path in paths:
            found = hashlib.sha256(images.read_bytes(str(holes.root / path))).hexdigest()
            if found != sums.get(path):
                raise InputError(holes.root / path, "was changed after the data set was made; simulate it again")
        stored = load_sem(holes.root, paths)
        if not np.array_equal(stored, site.images):
            raise InputError(
                holes.root, f"site {name} cannot be drawn again to the same pixels: another version of NumPy?"
            )
        sem.append(stored)
        depth.append(np.rint(site.heights).astype(np.uint8))
        structure += [key] * number
    if not sem:
        raise InputError(holes.root, f"none of its {sites} sites is on the asked-for side; simulate more sites")
    count = len(structure)
    # One image a hole: each is a group of its own for repeatability, each site a cluster for the bootstrap.
    return SimArrays(
        np.concatenate(sem), np.concatenate(depth), np.array(structure), np.arange(count), np.zeros(count, int), []
    )


def _agreement(value: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
    if not len(value):
        return {"bias_nm": None, "rmse_nm": None, "slope": None}
    error = value - truth
    slope = float(np.polyfit(truth, value, 1)[0]) if len(value) > 2 and truth.std() > 0 else None
    return {"bias_nm": float(error.mean()), "rmse_nm": float(np.sqrt(np.mean(error**2))), "slope": slope}


def _sums(root: Path) -> dict[str, str]:
    path = root / challenge.SUMS_FILE
    try:
        lines = path.read_text().splitlines()
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}; simulate the data set again") from wrong
    return {path: digest for digest, _, path in (line.partition("  ") for line in lines)}
