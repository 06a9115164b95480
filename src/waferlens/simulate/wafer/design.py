"""A wafer as it was designed: what it lies on, its lattice, its stack, and the floor plan all its dies share.

Everything is in um and vectors; nothing here knows of pixels, so that one seed is one scene on any grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import numpy as np

from waferlens.recipe.wafer_world import WaferWorld
from waferlens.records import Product
from waferlens.simulate.streams import Stream, stream, uniform

Carrier = Literal["tape", "glass", "silicon", "metal"]
CARRIERS: tuple[Carrier, ...] = ("tape", "glass", "silicon", "metal")
BRIGHT = ("silicon", "metal")
RADIUS_UM = 150_000.0
"""Of a 300 mm wafer [um]"""
LEAST_BLOCK_UM = 250.0
SEAL_RING_UM = (35.0, 75.0)
"""Distances of the seal rings from the edge of a die [um]"""
SEAL_WIDTH_UM = 9.0
PAD_UM = 60.0
"""Side of a pad [um]"""
PAD_MARGIN_UM = 130.0
"""Of a pad row from the edge of the die [um]"""


@dataclass(frozen=True, slots=True)
class Block:
    """A rectangle of the floor plan with its colour and texture."""

    x0: float
    y0: float
    x1: float
    y1: float
    reflectance: float
    texture: Literal["plain", "grating-x", "grating-y", "logic", "memory"]
    pitch_um: float
    contrast: float
    phase: float


@dataclass(frozen=True, slots=True, eq=False)
class Bumps:
    """An array of bumps in the frame of the die."""

    x_um: np.ndarray
    y_um: np.ndarray
    diameter_um: float
    height_um: np.ndarray
    """Of each; the same bump of every die is as high."""
    dome: bool
    """Domes of solder; pillars have flat tops."""
    reflectance: float
    pads: bool
    """Whether a bright pad lies under each."""


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """One wafer."""

    number: int
    carrier: Carrier
    carrier_reflectance: float
    shape_um: tuple[float, float, float]
    """Bow and the two astigmatic terms over the radius [um]"""
    pitch_x_um: float
    pitch_y_um: float
    street_um: float
    missing: float
    """Share of missing dies."""
    thickness_um: float
    """Nominal, of each die of the stack [um]"""
    insets_um: tuple[float, ...]
    """How far each level lies inside the die's outline [um]"""
    product: Product
    blocks: tuple[tuple[Block, ...], ...]
    """Floor plan of each level."""
    edge_reflectance: float
    """Of the seal rings."""
    bumps: Bumps | None
    rim_um: float
    fillet_um: float
    """Width of the underfill around a die; 0 for none [um]"""
    chipped: float
    logic: np.ndarray
    """A tile of random logic, repeated over the die."""
    track_focus: bool
    """Whether focus follows the auto-focus."""
    track_cutoff_hz: float

    @property
    def bright(self) -> bool:
        """Whether the carrier is bright."""
        return self.carrier in BRIGHT

    @property
    def die_x_um(self) -> float:
        """Width of a die [um]"""
        return self.pitch_x_um - self.street_um

    @property
    def die_y_um(self) -> float:
        """Height of a die in the image [um]"""
        return self.pitch_y_um - self.street_um


def draw_design(world: WaferWorld, root: int, number: int) -> Design:
    """The wafer of a number.

    Args:
        world: The domain.
        root: Seed of the data set.
        number: Which wafer.
    """
    geometry = stream(root, world.name, Stream.GEOMETRY, number)
    material = stream(root, world.name, Stream.MATERIAL, number)
    instrument = stream(root, world.name, Stream.INSTRUMENT, number)
    mix = world.carriers
    shares = np.array([getattr(mix, name) for name in CARRIERS])
    carrier = CARRIERS[int(material.choice(len(CARRIERS), p=shares / shares.sum()))]
    shape = (mix.bow_um * geometry.standard_normal(), *(mix.warp_um * geometry.standard_normal(2)))
    lattice = world.lattice
    pitch_x, pitch_y = uniform(geometry, lattice.pitch_x_um), uniform(geometry, lattice.pitch_y_um)
    street, missing = uniform(geometry, lattice.street_um), uniform(geometry, lattice.missing)
    thickness, insets, tops = _stack(world, geometry, min(pitch_x, pitch_y) - street)
    die = (pitch_x - street, pitch_y - street)
    colours = material.uniform(*world.surface.palette, world.surface.colours)
    blocks = tuple(
        tuple(_floor_plan(world, geometry, material, colours, die[0] - 2 * inset, die[1] - 2 * inset))
        for inset in insets
    )
    top = (die[0] - 2 * insets[-1], die[1] - 2 * insets[-1])
    return Design(
        number,
        carrier,
        uniform(material, getattr(mix, f"{carrier}_reflectance")),
        shape,
        pitch_x,
        pitch_y,
        street,
        missing,
        thickness,
        insets,
        Product(thickness, tuple(round(one, 3) for one in tops)),
        blocks,
        float(colours.max()),
        _bumps(world, geometry, material, *top),
        uniform(geometry, world.surface.rim_um),
        geometry.uniform(50.0, 300.0) * (geometry.random() < world.surface.fillet),
        world.surface.chipped,
        material.standard_normal((256, 256)).astype(np.float32).clip(-2, 2),
        bool(instrument.random() < world.microscope.track_share),
        uniform(instrument, world.microscope.track_cutoff_hz),
    )


def _stack(
    world: WaferWorld, rng: np.random.Generator, least_side: float
) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
    """Thickness of a die, insets of the levels, their nominal tops; what would be too high or small is left out."""
    spec = world.stack
    share = np.array(spec.levels)
    wanted = 1 + int(rng.choice(4, p=share / share.sum()))
    thickness = float(rng.choice(np.array(spec.thicknesses_um)))
    bonds = [uniform(rng, spec.bond_um) for _ in range(4)]
    steps = [0.0, *(uniform(rng, spec.inset_um) for _ in range(3))]
    levels = max(1, min(wanted, int((spec.total_um - 0.0) // (thickness + max(bonds)))))
    insets = list(accumulate(steps[:levels]))
    while len(insets) > 1 and least_side - 2 * insets[-1] < 4 * LEAST_BLOCK_UM:
        insets.pop()
    tops = list(accumulate(thickness + bond for bond in bonds[: len(insets)]))
    return thickness, tuple(insets), tuple(tops)


def _floor_plan(
    world: WaferWorld,
    geometry: np.random.Generator,
    material: np.random.Generator,
    colours: np.ndarray,
    width: float,
    height: float,
) -> list[Block]:
    """Blocks of a k-d tree: the largest is split at a random place along its longer side until there are enough."""
    spec = world.surface
    count = int(geometry.integers(spec.blocks[0], spec.blocks[1] + 1))
    rectangles = [(0.0, 0.0, width, height)]
    while len(rectangles) < count:
        rectangles.sort(key=lambda one: (one[2] - one[0]) * (one[3] - one[1]))
        x0, y0, x1, y1 = rectangles.pop()
        at = geometry.uniform(0.3, 0.7)
        if x1 - x0 >= y1 - y0:
            cut = x0 + at * (x1 - x0)
            parts = [(x0, y0, cut, y1), (cut, y0, x1, y1)]
        else:
            cut = y0 + at * (y1 - y0)
            parts = [(x0, y0, x1, cut), (x0, cut, x1, y1)]
        rectangles += parts
        if max(parts[0][2] - parts[0][0], parts[0][3] - parts[0][1]) < LEAST_BLOCK_UM:
            break
    kinds: tuple[Literal["plain", "grating-x", "grating-y", "logic", "memory"], ...]
    kinds = ("plain", "grating-x", "grating-y", "logic", "memory")
    return [
        Block(
            *rectangle,
            float(material.choice(colours)),
            kinds[int(material.choice(5, p=(0.25, 0.15, 0.15, 0.25, 0.20)))],
            uniform(material, spec.grating_pitch_um),
            uniform(material, spec.texture_contrast),
            float(material.uniform(0, 2 * np.pi)),
        )
        for rectangle in rectangles
    ]


def _bumps(
    world: WaferWorld, geometry: np.random.Generator, material: np.random.Generator, width: float, height: float
) -> Bumps | None:
    """Pads along two edges, an array of pillars, or one of solder domes; or nothing."""
    spec = world.interconnect
    draw, across = geometry.random(3), geometry.uniform(size=4)
    pitch_share = uniform(geometry, spec.pitch_of_diameter)
    height_share = uniform(geometry, spec.height_of_diameter)
    pillar, solder = uniform(geometry, spec.pillar_diameter_um), uniform(geometry, spec.solder_diameter_um)
    reflectance = material.uniform(0.4, 0.65)
    if draw[0] < spec.pad_row_share:
        pitch = 2.0 * PAD_UM
        x = np.arange(PAD_MARGIN_UM, width - PAD_MARGIN_UM, pitch)
        rows = (PAD_MARGIN_UM, height - PAD_MARGIN_UM)
        grid_x, grid_y = np.meshgrid(x, np.array(rows))
        diameter, dome = 0.5 * PAD_UM, False
    else:
        dome = bool(draw[1] < spec.solder_share / max(spec.solder_share + spec.pillar_share, 1e-9))
        if draw[2] >= spec.solder_share + spec.pillar_share:
            return None
        diameter = solder if dome else pillar
        pitch = pitch_share * diameter
        span_x, span_y = (0.15 + 0.25 * across[0]) * width, (0.15 + 0.25 * across[1]) * height
        x0, y0 = (0.1 + 0.4 * across[2]) * width, (0.1 + 0.4 * across[3]) * height
        grid_x, grid_y = np.meshgrid(np.arange(x0, x0 + span_x, pitch), np.arange(y0, y0 + span_y, pitch))
    there = geometry.random(grid_x.shape) >= spec.missing
    if not there.any():
        return None
    pads = bool(draw[0] < spec.pad_row_share)
    heights = height_share * diameter * (1 + spec.height_std * geometry.standard_normal(int(there.sum())))
    return Bumps(grid_x[there], grid_y[there], diameter, heights, dome, reflectance, pads)
