"""Validation of the hole simulator: formulas, limits and symmetries its physics has to obey.

Every function is one test and returns its rows; `run_validation` runs them all. Expectations come from closed forms,
never from an earlier run of the code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from waferlens.simulate.checks import Check, absolute, at_most, exact, relative
from waferlens.simulate.hole.acquire import Instrument, acquire, beam_and_scan
from waferlens.simulate.hole.geometry import Structure, contour_roughness, draw_structure
from waferlens.simulate.hole.signal import Material, draw_material, electron_signal, escape_share
from waferlens.simulate.hole.validation_streams import (
    fixed_recipe,
    independent_streams,
    same_seed,
    shipped_world,
    truth_untouched,
)
from waferlens.simulate.hole.world import draw_pairs, draw_site
from waferlens.simulate.streams import Stream, stream

PIXEL_NM = 1.0

PLAIN_HOLE = (
    "nuisance=0",
    "geometry.half_width_x.std=0",
    "geometry.half_width_y.std=0",
    "geometry.exponent=[2.6,2.6]",
    "geometry.offset.std=0",
    "geometry.rotation.std=0",
    "geometry.roughness_std=0",
    "geometry.wall_width=[6.5,6.5]",
    "geometry.corner_rounding=[0,0]",
    "geometry.floor.std=0",
    "geometry.bow=[0,0]",
    "geometry.floor_roughness.mean=0",
    "geometry.pit_probability=0",
)
"""Overrides that leave of `hole-sim` one centred hole without any roughness."""

PLAIN_MATERIAL = Material(
    wall_gain=0.0,
    field_factor=0.3,
    re_emission=0.0,
    attenuation_length=float("inf"),
    charging=0.0,
    bloom_gain=0.0,
    bloom_width=2.5,
    bloom_saturation=35.0,
    floor_yield=1.0,
)
"""Nothing but escape."""

PLAIN_INSTRUMENT = Instrument(
    delocalised=0.0,
    delocalised_width=9.0,
    beam_x=0.0,
    beam_y=0.0,
    video_lag=0.0,
    dose=250.0,
    yield_plateau=1.5,
    read_noise=0.0,
    streak=0.0,
    streak_length=14.0,
    row_jitter=0.0,
    drift=0.0,
    row_gain=0.0,
    shading=np.zeros(5),
    asymmetry=0.0,
    asymmetry_deg=0.0,
    gain=100.0,
    offset=4.0,
    gamma=1.0,
)
"""A microscope that does nothing but count and scale."""


def run_validation(seed: int = 1, advance: Callable[[int], None] | None = None) -> list[Check]:
    """Runs every test.

    Args:
        seed: Root of the random draws; the expectations hold for any.
        advance: Called with 1 after each test.
    """
    checks = []
    for test in VALIDATIONS:
        checks += test(seed)
        if advance is not None:
            advance(1)
    return checks


# What leaves the hole


def escape_from_cylinder(seed: int) -> list[Check]:
    """On the axis of a cylinder the share that escapes is r² / (r² + h²).

    A pixel counts as wall when its centre lies within half a pixel of it: the rim, which is the first pixel of full
    height along a ray, then stands at r on average.
    """
    y, x = np.mgrid[:101, :101] - 50.0
    rows = []
    for radius in (12, 18):
        for depth in (30.0, 60.0, 120.0):
            z = np.where(np.hypot(x, y) < radius - 0.5, 0.0, depth)
            share = escape_share(z, 1.0, PIXEL_NM)[50, 50]
            expected = radius**2 / (radius**2 + depth**2)
            rows.append(
                relative(f"escape on the axis of a cylinder, r {radius} px, h {depth:g} nm", expected, share, 0.1)
            )
    return rows


def escape_from_trench(seed: int) -> list[Check]:
    """In the middle of an endless trench the share is a / sqrt(a² + h²).

    Two of the twelve rays run along the trench and see no wall. They stand for 30° in which a deep trench closes
    quickly, so the formula is met only up to h = 2 a or so.
    """
    rows = []
    for half, deepest in ((8, 16.0), (12, 24.0), (16, 32.0)):
        for depth in (0.5 * deepest, deepest):
            z = np.full((8, 161), depth)
            z[:, 80 - half + 1 : 80 + half] = 0.0
            share = escape_share(z, 1.0, PIXEL_NM)[4, 80]
            expected = half / np.hypot(half, depth)
            rows.append(
                relative(f"escape in the middle of a trench, a {half} px, h {depth:g} nm", expected, share, 0.16)
            )
    return rows


def escape_without_field_factor(seed: int) -> list[Check]:
    """A field that straightens every path lets everything out; without re-emission nothing comes on top of escape."""
    z = _hole(seed).heights(150.0)
    share = escape_share(z, 0.3, PIXEL_NM)
    alone = electron_signal(z, 150.0, PLAIN_MATERIAL, PIXEL_NM)
    again = electron_signal(z, 150.0, replace(PLAIN_MATERIAL, re_emission=0.1), PIXEL_NM)
    return [
        at_most("escape with field factor 0: largest |T - 1|", 1e-6, np.abs(escape_share(z, 0.0, PIXEL_NM) - 1).max()),
        at_most("no re-emission: largest |T_e - T|", 1e-12, np.abs(alone - share).max()),
        at_most(
            "re-emission 0.1: largest |T_e - T / (1 - 0.1 (1 - T))|",
            1e-12,
            np.abs(again - share / (1 - 0.1 * (1 - share))).max(),
        ),
    ]


def flat_surface(seed: int) -> list[Check]:
    """A flat surface gives 1, whatever the material and wherever the detector stands."""
    z, largest = np.full((72, 48), 150.0), 0.0
    for name in ("hole-sim", "hole-real"):
        world = shipped_world(name, "nuisance=1")
        for number in range(4):
            material = draw_material(world, stream(seed, name, Stream.MATERIAL, number))
            signal = electron_signal(z, 150.0, material, PIXEL_NM, asymmetry=0.14, asymmetry_deg=70.0)
            largest = max(largest, float(np.abs(signal - 1).max()))
    return [at_most("flat surface: largest |S - 1|", 1e-5, largest)]


def floor_signal(seed: int) -> list[Check]:
    """The floor darkens with depth and brightens with the opening."""
    material = draw_material(shipped_world("hole-sim", "nuisance=0"), stream(seed, "hole-sim", Stream.MATERIAL, 0))

    def middle(plateau_nm: float, scale: float = 1.0) -> float:
        world = shipped_world(
            "hole-sim",
            *PLAIN_HOLE,
            f"geometry.half_width_x.mean={16.7 * scale}",
            f"geometry.half_width_y.mean={28.9 * scale}",
        )
        hole = draw_structure(world, stream(seed, "hole-sim", Stream.GEOMETRY, 0))
        return float(electron_signal(hole.heights(plateau_nm), plateau_nm, material, PIXEL_NM)[36, 24])

    by_depth = np.diff([middle(plateau) for plateau in (130.0, 140.0, 150.0, 160.0, 170.0, 180.0)])
    by_opening = np.diff([middle(155.0, scale) for scale in (0.7, 0.8, 0.9, 1.0, 1.1)])
    return [
        at_most("floor signal against depth: largest step (strictly falling)", -1e-6, by_depth.max()),
        at_most("floor signal against opening: largest step, negated (strictly rising)", -1e-6, -by_opening.min()),
    ]


def mirror_symmetry(seed: int) -> list[Check]:
    """A centred hole looks the same in a mirror."""
    world = shipped_world("hole-sim", *PLAIN_HOLE)
    z = draw_structure(world, stream(seed, "hole-sim", Stream.GEOMETRY, 0)).heights(155.0)
    signal = electron_signal(z, 155.0, draw_material(world, stream(seed, "hole-sim", Stream.MATERIAL, 0)), PIXEL_NM)
    return [
        at_most("centred hole: largest |S - mirrored S| in x", 1e-6, np.abs(signal - signal[:, ::-1]).max()),
        at_most("centred hole: largest |S - mirrored S| in y", 1e-6, np.abs(signal - signal[::-1]).max()),
    ]


def translation(seed: int) -> list[Check]:
    """A hole that sits elsewhere in its periodic cell gives the same picture there."""
    z, by = _hole(seed).heights(155.0), (17, -9)
    world = shipped_world("hole-real")
    material = draw_material(world, stream(seed, "hole-real", Stream.MATERIAL, 0))
    instrument = replace(PLAIN_INSTRUMENT, delocalised=0.08, beam_x=1.4, beam_y=1.5)

    def picture(heights: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
        signal = electron_signal(heights, 155.0, material, PIXEL_NM, asymmetry=0.1, asymmetry_deg=70.0)
        return beam_and_scan(signal, instrument, np.random.default_rng(seed))

    moved = picture(np.roll(z, by, (0, 1)))
    return [at_most("moved hole: largest |S - moved S|", 1e-9, np.abs(moved - np.roll(picture(z), by, (0, 1))).max())]


# The contour and the truth


def contour_spread(seed: int, draws: int = 3000) -> list[Check]:
    """The roughness has the standard deviation it was asked for; an earlier generator was sqrt(2) too rough."""
    rows = []
    for exponent in (0.5, 0.75, 1.0):
        rng = stream(seed, "contour", Stream.GEOMETRY, round(100 * exponent))
        power = np.mean([np.square(contour_roughness(rng, 0.6, 9.0, exponent, 145.0)).mean() for _ in range(draws)])
        rows.append(relative(f"contour roughness, Hurst exponent {exponent:g}: s.d. [px]", 0.6, np.sqrt(power), 0.02))
    return rows


def contour_spectrum(seed: int, draws: int = 2000) -> list[Check]:
    """Beyond the correlation length the spectrum falls with the power -(2 alpha + 1)."""
    modes = np.arange(60, 121)
    rows = []
    for exponent in (0.5, 0.75, 1.0):
        rng = stream(seed, "spectrum", Stream.GEOMETRY, round(100 * exponent))
        power = np.zeros(257)
        for _ in range(draws):
            power += np.abs(np.fft.rfft(contour_roughness(rng, 0.6, 9.0, exponent, 145.0))) ** 2
        slope = np.polyfit(np.log(modes), np.log(power[modes]), 1)[0]
        rows.append(relative(f"contour spectrum, Hurst exponent {exponent:g}: slope", -(2 * exponent + 1), slope, 0.05))
    return rows


def truth_levels(seed: int, structures: int = 12) -> list[Check]:
    """The plateau is exactly L where there is no wall, nothing lies above it, and the depth is as defined."""
    off = above = apart = 0.0
    world = shipped_world("hole-sim")
    for number in range(structures):
        for pair in draw_pairs(world, seed, number):
            plateau = pair.heights[pair.structure.profile == 0]
            off = max(off, float(np.abs(plateau - pair.plateau_nm).max()))
            above = max(above, float((pair.heights - pair.plateau_nm).max()))
            floor = pair.heights[pair.structure.profile > 0.98]
            apart = max(apart, abs(pair.plateau_nm - float(floor.mean()) - pair.depth_nm))
    return [
        exact("truth: largest |z - L| on the plateau [nm]", 0.0, off),
        at_most("truth: largest z - L [nm]", 0.0, above),
        at_most("truth: largest |L - mean floor - depth| [nm]", 1e-9, apart),
    ]


def site_label(seed: int, sites: int = 4, holes: int = 6) -> list[Check]:
    """The average depth of a site is that of its height maps; without roughness and pits they show it directly."""
    world = shipped_world(
        "hole-real", "geometry.bow=[0,0]", "geometry.floor_roughness.mean=0", "geometry.pit_probability=0"
    )
    apart = 0.0
    for number in range(sites):
        site = draw_site(world, seed, number, holes)
        # On a level floor every pixel below S = 0.98 lies within 2 % of the depth above the lowest.
        lowest = site.heights.min((1, 2), keepdims=True)
        floor = site.heights < lowest + 0.02 * (site.plateau_nm - lowest)
        depth = site.plateau_nm - (site.heights * floor).sum((1, 2)) / floor.sum((1, 2))
        apart = max(apart, abs(float(depth.mean()) - site.average_depth_nm))
    return [at_most("site: |label - average depth of its height maps| [nm]", 0.05, apart)]


# The camera


def flat_field_noise(seed: int) -> list[Check]:
    """Variance of a flat field: gain² S (1 + delta S) / (dose delta), the read noise, and 1/12 of rounding."""
    rows = []
    delta, gain, read = 1.5, 100.0, 2.25
    for dose, level in ((50.0, 1.0), (250.0, 1.0), (1500.0, 1.0), (250.0, 0.3)):
        setting = replace(PLAIN_INSTRUMENT, dose=dose, yield_plateau=delta, gain=gain, read_noise=read, offset=40.0)
        image = acquire(np.full((360, 360), level), setting, stream(seed, "flat", Stream.NOISE, int(dose)))
        expected = gain**2 * level * (1 + delta * level) / (dose * delta) + read**2 + 1 / 12
        name = f"flat field, dose {dose:g} e/px, signal {level:g}: variance [grey²]"
        rows.append(relative(name, expected, image.var(), 0.03))
    return rows


def dose_and_noise(seed: int) -> list[Check]:
    """Four times the dose halves the noise."""
    few, many = (
        acquire(
            np.ones((360, 360)), replace(PLAIN_INSTRUMENT, dose=dose), stream(seed, "dose", Stream.NOISE, int(dose))
        )
        for dose in (150.0, 600.0)
    )
    return [relative("four times the dose: ratio of the noise", 0.5, many.std() / few.std(), 0.03)]


def pair_noise(seed: int, structures: int = 12) -> list[Check]:
    """The two images of a pair share everything but their noise."""
    world = shipped_world("hole-sim")
    sums = np.zeros(3)
    for number in range(structures):
        for noisy, clean in zip(
            draw_pairs(world, seed, number), draw_pairs(world, seed, number, noise=False), strict=True
        ):
            first, second = noisy.images.astype(float) - clean.images
            sums += (np.vdot(first, second), np.vdot(first, first), np.vdot(second, second))
    return [absolute("images of a pair: correlation of the noise", 0.0, sums[0] / np.sqrt(sums[1] * sums[2]), 0.01)]


def grey_scale(seed: int) -> list[Check]:
    """Without noise and blur a picture is round(offset + gain S), nothing else."""
    world = shipped_world("hole-sim")
    hole = draw_structure(world, stream(seed, "hole-sim", Stream.GEOMETRY, 0))
    material = draw_material(world, stream(seed, "hole-sim", Stream.MATERIAL, 0))
    signal = electron_signal(hole.heights(150.0), 150.0, material, PIXEL_NM)
    picture = acquire(
        beam_and_scan(signal, PLAIN_INSTRUMENT, np.random.default_rng(seed)),
        PLAIN_INSTRUMENT,
        np.random.default_rng(seed),
        noise=False,
    )
    expected = np.clip(np.rint(4.0 + 100.0 * signal), 0, 255).astype(np.uint8)
    return [
        exact("no noise, no blur: pixels that differ from offset + gain S", 0, np.count_nonzero(picture != expected))
    ]


def line_spread(seed: int) -> list[Check]:
    """The derivative of a blurred edge has the beam's standard deviation, along x and along y."""
    rows = []
    for spot in (0.8, 1.3, 2.0):
        setting = replace(PLAIN_INSTRUMENT, beam_x=spot, beam_y=1.5 * spot)
        edge = np.zeros((96, 96))
        edge[:, 48:] = 1.0
        across = np.diff(beam_and_scan(edge, setting, np.random.default_rng(seed))[48, 24:73])
        along = np.diff(beam_and_scan(edge.T, setting, np.random.default_rng(seed))[24:73, 48])
        rows.append(relative(f"line spread along x, spot {spot:g} px: s.d. [px]", spot, _spread(across), 0.04))
        rows.append(
            relative(f"line spread along y, spot {1.5 * spot:g} px: s.d. [px]", 1.5 * spot, _spread(along), 0.04)
        )
    return rows


VALIDATIONS: tuple[Callable[[int], list[Check]], ...] = (
    escape_from_cylinder,
    escape_from_trench,
    escape_without_field_factor,
    flat_surface,
    floor_signal,
    mirror_symmetry,
    translation,
    contour_spread,
    contour_spectrum,
    truth_levels,
    site_label,
    flat_field_noise,
    dose_and_noise,
    pair_noise,
    grey_scale,
    line_spread,
    same_seed,
    truth_untouched,
    independent_streams,
    fixed_recipe,
)
"""Every test, in the order of the picture's making."""


def _hole(seed: int) -> Structure:
    return draw_structure(shipped_world("hole-sim"), stream(seed, "hole-sim", Stream.GEOMETRY, 0))


def _spread(line: Float[np.ndarray, "n"]) -> float:
    """Standard deviation of a peak [px]"""
    place = np.arange(len(line))
    centre = (line * place).sum() / line.sum()
    return float(np.sqrt((line * (place - centre) ** 2).sum() / line.sum()))
