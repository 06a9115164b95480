"""Draws samples of a hole world: pairs with truth, or the holes of a site."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from waferlens.recipe.hole_world import HoleProcess, HoleWorld
from waferlens.simulate.hole.acquire import Instrument, acquire, beam_and_scan, draw_instrument
from waferlens.simulate.hole.geometry import Structure, draw_structure
from waferlens.simulate.hole.signal import Material, draw_material, electron_signal
from waferlens.simulate.streams import Stream, stream, uniform

ITERATIONS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two images of one hole with its truth."""

    images: UInt8[np.ndarray, "2 h w"]
    """Two noise draws of the same hole [grey]"""
    heights: Float[np.ndarray, "h w"]
    """Truth [nm]"""
    plateau_nm: float
    depth_nm: float
    """Plateau minus mean floor where S > 0.98 [nm]"""
    structure: Structure
    material: Material
    instrument: Instrument


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """The holes of one wafer site; only `average_depth_nm` may be told to a trainer."""

    images: UInt8[np.ndarray, "n h w"]
    heights: Float[np.ndarray, "n h w"]
    depths_nm: Float[np.ndarray, "n"]
    plateau_nm: float
    average_depth_nm: float


def plateau_of(world: HoleWorld, root: int, structure: int, case: int) -> float:
    """Height of the plateau of one case of one structure [nm]."""
    if world.plateau_range is None:
        return world.plateaus[case]
    return uniform(stream(root, world.name, Stream.ORDER, structure, case), world.plateau_range)


def draw_pairs(world: HoleWorld, root: int, structure: int, *, noise: bool = True) -> list[Pair]:
    """One structure in all its cases, two images each.

    Args:
        world: A `paired` world.
        root: Seed of the data set.
        structure: Number of the structure.
        noise: False gives noise-free images.
    """
    hole = draw_structure(world, stream(root, world.name, Stream.GEOMETRY, structure))
    pairs = []
    for case in range(len(world.plateaus)):
        plateau = plateau_of(world, root, structure, case)
        heights = hole.heights(plateau)
        material = draw_material(world, stream(root, world.name, Stream.MATERIAL, structure, case))
        rng = stream(root, world.name, Stream.INSTRUMENT, structure, case)
        instrument = draw_instrument(world, rng)
        ideal = _scanned(world, hole, heights, plateau, material, instrument, rng)
        images = np.stack(
            [
                acquire(ideal, instrument, stream(root, world.name, Stream.NOISE, structure, case, itr), noise=noise)
                for itr in range(ITERATIONS)
            ]
        )
        pairs.append(Pair(images, heights, plateau, hole.depth(plateau), hole, material, instrument))
    return pairs


def _scanned(
    world: HoleWorld,
    hole: Structure,
    heights: Float[np.ndarray, "h w"],
    plateau: float,
    material: Material,
    instrument: Instrument,
    rng: np.random.Generator,
) -> Float[np.ndarray, "h w"]:
    signal = electron_signal(
        heights,
        plateau,
        material,
        world.pixel_nm,
        asymmetry=instrument.asymmetry,
        asymmetry_deg=instrument.asymmetry_deg,
        bowing=hole.bowing,
    )
    return beam_and_scan(signal, instrument, rng)


def draw_site(world: HoleWorld, root: int, site: int, holes: int, *, noise: bool = True) -> Site:
    """One site: a common material, instrument and mean depth; every hole its own geometry and noise.

    Args:
        world: A `sites` world.
        root: Seed of the data set.
        site: Number of the site; its bucket is `site` modulo the number of plateaus.
        holes: How many holes.
        noise: False gives noise-free images.
    """
    process = world.process
    if process is None:
        raise ValueError(f"world {world.name}: kind 'sites' needs a 'process' section")
    plateau = world.plateaus[site % len(world.plateaus)]
    common = stream(root, world.name, Stream.GEOMETRY, site)
    site_depth = plateau - process.depth_below_plateau + process.site_depth_std * common.standard_normal()
    half_width_shift = process.site_cd_std * common.standard_normal()
    material = draw_material(world, stream(root, world.name, Stream.MATERIAL, site))
    setting = stream(root, world.name, Stream.INSTRUMENT, site)
    instrument = draw_instrument(world, setting)

    images, heights, depths = [], [], []
    for number in range(holes):
        rng = stream(root, world.name, Stream.GEOMETRY, site, 1 + number)
        hole = draw_structure(world, rng, half_width_shift)
        hole = _etched_to(hole, plateau, _hole_depth(process, world, hole, site_depth, rng))
        z = hole.heights(plateau)
        scan = stream(root, world.name, Stream.INSTRUMENT, site, 1 + number)
        ideal = _scanned(world, hole, z, plateau, material, instrument, scan)
        images.append(acquire(ideal, instrument, stream(root, world.name, Stream.NOISE, site, 1 + number), noise=noise))
        heights.append(z)
        depths.append(hole.depth(plateau))
    return Site(np.stack(images), np.stack(heights), np.asarray(depths), plateau, float(np.mean(depths)))


def _hole_depth(
    process: HoleProcess, world: HoleWorld, hole: Structure, site_depth: float, rng: np.random.Generator
) -> float:
    """Depth of one hole: its site's, its own scatter, and more for a larger opening."""
    nominal = math.sqrt(world.geometry.half_width_x.mean * world.geometry.half_width_y.mean)
    opening = math.sqrt(hole.half_width_x * hole.half_width_y)
    scatter = process.hole_depth_std * rng.standard_normal()
    return site_depth + scatter + process.arde_nm_per_px * (opening - nominal)


def _etched_to(hole: Structure, plateau: float, depth: float) -> Structure:
    """The same hole with its floor's level moved to a given nominal depth."""
    level = plateau - depth - float(np.mean(hole.floor[hole.profile > 0.98]))
    return Structure(
        hole.profile, hole.floor + level, hole.pit, hole.top, hole.half_width_x, hole.half_width_y, hole.bowing
    )
