"""Validation of the hole simulator's random streams: one seed is one truth, whatever else is drawn around it."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from waferlens.recipe import read_model
from waferlens.recipe.hole_world import HoleWorld
from waferlens.simulate.checks import Check, at_most, exact
from waferlens.simulate.hole.acquire import Instrument, draw_instrument
from waferlens.simulate.hole.signal import Material, draw_material
from waferlens.simulate.hole.world import draw_pairs, draw_site
from waferlens.simulate.streams import Stream, stream


def same_seed(seed: int) -> list[Check]:
    """A seed gives the same bytes, in whatever order its samples are drawn."""
    sim, real = shipped_world("hole-sim"), shipped_world("hole-real")
    forth = [draw_pairs(sim, seed, number) for number in range(3)]
    back = [draw_pairs(sim, seed, number) for number in (2, 1, 0)][::-1]
    pairs = sum(
        int((one.images != two.images).sum() + (one.heights != two.heights).sum())
        for first, second in zip(forth, back, strict=True)
        for one, two in zip(first, second, strict=True)
    )
    few, many = draw_site(real, seed, 1, 2), draw_site(real, seed, 1, 4)
    sites = int((few.images != many.images[:2]).sum() + (few.heights != many.heights[:2]).sum())
    other = int((draw_pairs(sim, seed + 1, 0)[0].heights != forth[0][0].heights).any())
    return [
        exact("same seed, other order: values that differ", 0, pairs),
        exact("same seed, more holes in the site: values that differ", 0, sites),
        exact("another seed gives another hole", 1, other),
    ]


def truth_untouched(seed: int) -> list[Check]:
    """Another microscope, material, noise or pixel size leaves the truth as it is, to the last bit."""
    changes = {
        "noise": ("instrument.dose=[40,60]", "instrument.read_noise=7"),
        "instrument": ("instrument.beam=[2,3]", "instrument.drift=2", "instrument.astigmatism=0.3"),
        "material": ("material.wall_gain=[0.5,0.9]", "material.charging=[0.1,0.3]"),
        "nuisance": ("nuisance=1",),
        "pixel size": ("pixel_nm=1.4",),
    }
    rows = []
    for name, overrides in changes.items():
        differ, same_picture = 0, True
        for kind in ("hole-sim", "hole-real"):
            before, after = (_drawn(shipped_world(kind, *extra), seed) for extra in ((), overrides))
            differ += int((before[1] != after[1]).sum())
            same_picture &= bool((before[0] == after[0]).all())
        rows.append(exact(f"another {name}: heights that differ", 0, differ))
        rows.append(exact(f"another {name}: pictures stay the same", 0, int(same_picture)))
    return rows


def independent_streams(seed: int) -> list[Check]:
    """The streams of a sample, its neighbours and its other domains never meet and do not correlate."""
    keys, drawn = set(), []
    worlds = ("hole-sim", "hole-real", "hole-real2", "hole-stress", "hole-train", "my-hole-sim")
    count = 0
    for root in (seed, seed + 1, seed + 2**32):
        for world in worlds:
            for kind in Stream:
                for sample in ((0,), (1,), (0, 0), (0, 1), (1, 0), (1, 0, 1)):
                    keys.add(tuple(stream(root, world, kind, *sample).bit_generator.state["state"]["key"].tolist()))
                    count += 1
    for kind in Stream:
        drawn.append(stream(seed, "hole-sim", kind, 3).random(60_000))
        drawn.append(stream(seed, "hole-real", kind, 3).random(60_000))
    correlation = np.corrcoef(drawn)
    return [
        exact("streams of all domains, seeds and samples that are distinct", count, len(keys)),
        at_most("largest correlation of two streams", 0.02, np.abs(correlation - np.eye(len(drawn))).max()),
    ]


def fixed_recipe(seed: int) -> list[Check]:
    """At nuisance 0 there is one material and one microscope."""
    rows = []
    for name in ("hole-sim", "hole-real", "hole-stress", "hole-hard"):
        world = shipped_world(name, "nuisance=0")
        settings = {
            (
                *_numbers(draw_material(world, stream(seed, name, Stream.MATERIAL, number))),
                *_numbers(draw_instrument(world, stream(seed, name, Stream.INSTRUMENT, number))),
            )
            for number in range(5)
        }
        rows.append(exact(f"{name} at nuisance 0: different settings in 5 draws", 1, len(settings)))
    return rows


def shipped_world(name: str, *overrides: str) -> HoleWorld:
    """A world of the package with some of its numbers changed."""
    return read_model(HoleWorld, name, folder_package="worlds", overrides=overrides)


def _drawn(world: HoleWorld, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and heights of a first sample."""
    if world.kind == "sites":
        site = draw_site(world, seed, 0, 2)
        return site.images, site.heights
    pairs = draw_pairs(world, seed, 0)
    return np.concatenate([pair.images for pair in pairs]), np.stack([pair.heights for pair in pairs])


def _numbers(setting: Material | Instrument) -> tuple[float, ...]:
    """Every number of a setting."""
    # adding zero makes of -0.0, which compares equal, also the same entry of a set
    return tuple(np.hstack([np.ravel(value) for value in asdict(setting).values()]) + 0.0)
