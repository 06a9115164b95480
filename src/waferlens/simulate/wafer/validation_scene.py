"""Validation of what the wafer simulator draws: one seed is one scene on every grid, and truth is told as it is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from waferlens.ops.area import area_mean
from waferlens.recipe import read_model
from waferlens.recipe.wafer_world import WaferWorld
from waferlens.records import COUNTS_PER_UM
from waferlens.simulate.checks import Check, at_least, at_most, exact, relative
from waferlens.simulate.wafer.camera import FULL_SCALE
from waferlens.simulate.wafer.design import draw_design
from waferlens.simulate.wafer.field import SimulatedField, draw_field, draw_swath, ideal_raster
from waferlens.simulate.wafer.scene import NATIVE_PITCH_UM

COARSE, FINE = 304, 912
SMALL = 228
NO_BUMPS = ("interconnect.pad_row_share=0", "interconnect.pillar_share=0", "interconnect.solder_share=0")


def one_scene_on_every_grid(seed: int) -> list[Check]:
    """A fine field averaged over the pixels of a coarse one is the field drawn coarse.

    What is left is structure finer than the coarse pixel: of it a coarse grid keeps the mean only, and what lies next
    to it is blurred as that mean. Without textures, almost every pixel agrees within the noise of one.
    """
    world = shipped_world("wafer-sim", "surface.texture_contrast=[0,0]", "surface.particles=0")
    height = light = 0.0
    apart = []
    for number in (0, 3, 6):
        fine, coarse = (draw_field(world, seed, number, grid, noise=False) for grid in (FINE, COARSE))
        well = world.microscope.full_well_e
        electrons = coarse.image / FULL_SCALE * well
        noise = np.sqrt(electrons + world.microscope.read_e**2) * NATIVE_PITCH_UM / coarse.pitch_um / well * FULL_SCALE
        apart.append(np.abs(_reduced(fine.image) - coarse.image) / noise)
        height = max(height, float(np.sqrt(np.mean(np.square(_reduced(fine.height_um) - coarse.height_um)))))
        rasters = [ideal_raster(world, seed, number, grid).reflectance for grid in (FINE, COARSE)]
        light = max(light, abs(float(rasters[0].mean(dtype=np.float64) / rasters[1].mean(dtype=np.float64)) - 1))
    off = np.concatenate(apart)
    return [
        at_most("912 averaged to 304: rms of heights [um]", 0.1, height),
        at_most("912 averaged to 304: largest change of the mean reflectance", 1e-3, light),
        at_most("912 averaged to 304: median difference [standard deviations of the noise]", 0.25, np.median(off)),
        at_least("912 averaged to 304: share of pixels within the noise", 0.85, (off <= 1).mean()),
    ]


def rims_alike_on_grids(seed: int) -> list[Check]:
    """The dark rim of a wall, and the flank of a pillar, take the same light on every grid."""
    rows = []
    for name, overrides in (
        ("rims of walls", NO_BUMPS),
        ("pads with pillars", ("interconnect.pad_row_share=1",)),
        ("pillars", ("interconnect.pad_row_share=0", "interconnect.pillar_share=1", "interconnect.solder_share=0")),
        (
            "solder domes",
            ("interconnect.pad_row_share=0", "interconnect.pillar_share=0", "interconnect.solder_share=1"),
        ),
    ):
        world = shipped_world(
            "wafer-sim", "surface.texture_contrast=[0,0]", "surface.particles=0", "lattice.missing=[0,0]", *overrides
        )
        power = 0.0
        for number in (0, 3, 6):
            fine, coarse = (ideal_raster(world, seed, number, grid).reflectance for grid in (FINE, COARSE))
            power += float(np.mean(np.square(_reduced(fine) - coarse))) / 3
        apart = float(np.sqrt(power))
        rows.append(at_most(f"{name}, 912 averaged to 304: rms of reflectance", 0.006, apart))
    return rows


def flags_and_heights(seed: int) -> list[Check]:
    """Where a die is told present its top stands at its told height; where it is missing lies the carrier."""
    world = shipped_world("wafer-sim", "surface.particles=0")
    misses: dict[str, list[float]] = {"present": [], "missing": []}
    for number in range(0, 48, 3):
        made = draw_field(world, seed, number, SMALL, noise=False)
        for die in made.dies:
            box = die.levels[-1][:4] if die.levels else die.box_um
            x0, y0, x1, y1 = (int(np.clip(round(edge / made.pitch_um), 0, SMALL)) for edge in box)
            if x1 - x0 < 20 or y1 - y0 < 20:
                continue
            # the median: bumps cover less than half of a top
            height = float(np.median(made.height_um[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2]))
            misses[die.state].append(abs(height - (die.top_um or 0.0)))
    return [
        at_least("dies looked at, present", 8, len(misses["present"])),
        at_least("dies looked at, missing", 4, len(misses["missing"])),
        # tilt over half a die, and warp
        at_most("present die: largest miss of its told top [um]", 25.0, max(misses["present"], default=0.0)),
        at_most("missing die: largest height [um]", 15.0, max(misses["missing"], default=0.0)),
    ]


def strip_label(seed: int) -> list[Check]:
    """Without noise, lag and softness the sensor reads the highest of its column, bumps left out."""
    world = shipped_world(
        "wafer-sim", "af.softness_um=0.05", "af.mean_share=0", "af.lag_ms=[0,0]", "surface.particles=0", *NO_BUMPS
    )
    above = below = 0.0
    for number in (0, 3, 6, 9):
        made = draw_field(world, seed, number, COARSE, noise=False)
        column = np.clip((made.trace.x_counts / COUNTS_PER_UM / made.pitch_um).astype(int), 0, COARSE - 1)
        highest = made.height_um.max(axis=0)
        near = [highest[max(0, at - 4) : at + 5] for at in column]
        above = max(above, max(float(z - one.max()) for z, one in zip(made.trace.z_um, near, strict=True)))
        below = max(below, max(float(one.min() - z) for z, one in zip(made.trace.z_um, near, strict=True)))
    return [
        at_most("hard sensor: most it reads above the highest of its column [um]", 0.5, above),
        at_most("hard sensor: most it reads below the highest of its column [um]", 2.0, below),
    ]


def noise_and_instrument(seed: int) -> list[Check]:
    """Noise, camera, lens and sensor change the picture and leave the truth as it is, to the last bit."""
    before = draw_field(shipped_world("wafer-sim"), seed, 1, SMALL)
    rows = []
    for name, overrides in {
        "noise": ("microscope.full_well_e=9000", "microscope.read_e=60"),
        "camera": ("microscope.shading=0.3", "microscope.smear_um=9", "microscope.gamma=0.8"),
        "lens": ("microscope.na=0.2", "microscope.magnification=10", "microscope.focus_error_um=50"),
    }.items():
        after = draw_field(shipped_world("wafer-sim", *overrides), seed, 1, SMALL)
        rows.append(exact(f"another {name}: heights that differ", 0, int((before.height_um != after.height_um).sum())))
        rows.append(exact(f"another {name}: dies that differ", 0, int(before.dies != after.dies)))
        rows.append(exact(f"another {name}: picture stays the same", 0, int((before.image == after.image).all())))
    after = draw_field(shipped_world("wafer-sim", "af.noise_counts=500", "af.dropout=0.1"), seed, 1, SMALL)
    rows.append(
        exact("another sensor: places that differ", 0, int((before.trace.x_counts != after.trace.x_counts).sum()))
    )
    quiet, loud = (draw_field(shipped_world("wafer-sim"), seed, 1, SMALL, noise=noise) for noise in (False, True))
    rows.append(exact("noise switched off: heights that differ", 0, int((quiet.height_um != loud.height_um).sum())))
    return rows


def same_seed(seed: int) -> list[Check]:
    """A seed gives the same bytes in whatever order its fields are drawn; another gives another wafer."""
    world = shipped_world("wafer-sim")
    forth = [draw_field(world, seed, number, SMALL) for number in range(4)]
    back = [draw_field(world, seed, number, SMALL) for number in (3, 2, 1, 0)][::-1]
    differ = sum(_differ(one, two) for one, two in zip(forth, back, strict=True))
    other = draw_field(world, seed + 1, 0, SMALL)
    real = draw_field(shipped_world("wafer-real"), seed, 0, SMALL)
    return [
        exact("same seed, other order: values that differ", 0, differ),
        exact("fields of one wafer: designs", 1, len({one.design.pitch_x_um for one in forth[:3]})),
        exact("another seed: die pitch stays the same", 0, int(other.design.pitch_x_um == forth[0].design.pitch_x_um)),
        exact("another domain: die pitch stays the same", 0, int(real.design.pitch_x_um == forth[0].design.pitch_x_um)),
    ]


def scene_without_a_grid(seed: int) -> list[Check]:
    """Sites, levels and the sensor's way are the same to the last bit on any grid."""
    world = shipped_world("wafer-real")
    first, second = (draw_field(world, seed, 2, grid) for grid in (SMALL, 300))
    return [
        exact("another grid: dies that differ", 0, int(first.dies != second.dies)),
        exact(
            "another grid: places of the sensor that differ",
            0,
            int((first.trace.x_counts != second.trace.x_counts).sum()),
        ),
        exact("another grid: direction that differs", 0, int(first.direction != second.direction)),
    ]


def scanned_again(seed: int) -> list[Check]:
    """Two scans of a swath see one scene from both ends, each with its own noise; a longer one begins alike."""
    world = shipped_world("wafer-sim")
    there, back, longer = (draw_swath(world, seed, 0, fields, SMALL, way) for fields, way in ((2, 1), (2, -1), (3, 1)))
    return [
        exact("scanned again: heights that differ", 0, int((there.height_um != back.height_um).sum())),
        exact("scanned again: pictures stay the same", 0, int((there.image == back.image).all())),
        exact("scanned there: encoder falls", 0, int((np.diff(there.trace.x_counts) < 0).sum())),
        exact("scanned back: encoder rises", 0, int((np.diff(back.trace.x_counts) > 0).sum())),
        exact("longer swath: dies of the shorter that differ", 0, int(not set(there.dies) <= set(longer.dies))),
    ]


def bumps_as_told(seed: int) -> list[Check]:
    """Heights of bumps have the spread they are given."""
    world = shipped_world("wafer-sim", "interconnect.pad_row_share=0", "interconnect.pillar_share=1")
    spreads = []
    for number in range(12):
        bumps = draw_design(world, seed, number).bumps
        if bumps is not None and len(bumps.height_um) > 200:
            spreads.append(float(bumps.height_um.std() / bumps.height_um.mean()))
    return [relative("bumps: relative spread of their heights", 0.02, float(np.mean(spreads)), 0.1)]


def tape_as_told(seed: int) -> list[Check]:
    """The surface of tape has the standard deviation it is given."""
    world = shipped_world(
        "wafer-sim", "carriers={tape: 1, glass: 0, silicon: 0, metal: 0, bow_um: 0, warp_um: 0}",
        "lattice.missing=[1,1]", "surface.particles=0",
    )  # fmt: skip
    power = np.mean([np.square(ideal_raster(world, seed, number, SMALL).height_um).mean() for number in range(6)])
    return [relative("tape: s.d. of its surface [um]", world.carriers.tape_texture_um, float(np.sqrt(power)), 0.05)]


SCENE_VALIDATIONS: tuple[Callable[[int], list[Check]], ...] = (
    one_scene_on_every_grid,
    rims_alike_on_grids,
    flags_and_heights,
    strip_label,
    noise_and_instrument,
    same_seed,
    scene_without_a_grid,
    scanned_again,
    bumps_as_told,
    tape_as_told,
)


def shipped_world(name: str, *overrides: str) -> WaferWorld:
    """A world of the package with some of its numbers changed."""
    return read_model(WaferWorld, name, folder_package="worlds", overrides=overrides)


def _reduced(image: np.ndarray) -> Float[np.ndarray, "h w"]:
    edges = np.linspace(0, len(image), COARSE + 1)
    return area_mean(image, edges, edges)


def _differ(one: SimulatedField, two: SimulatedField) -> int:
    return sum(
        int((getattr(one.trace, name) != getattr(two.trace, name)).sum()) for name in ("x_counts", "z_counts", "valid")
    ) + int((one.image != two.image).sum() + (one.height_um != two.height_um).sum())
