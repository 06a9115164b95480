"""Products: what is drawn on a die, the cavity it lies in, its pads, and the leads they are wired to.

A product belongs to a world and not to a data set: every device of the same product has the same layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import numpy as np

from waferlens.recipe.package_world import PackageWorld, Products
from waferlens.simulate.streams import Stream, stream, uniform

CAVITY_V_PX = -125.0
"""Centre of the cavity above that of the part [px]"""
PAD_PX = 22.0
"""Side of a pad [px]"""
STREET_PX = 9.0
"""What is left of the saw street along the die's edge [px]"""
TILE = 64
"""Side of the tile of random logic [cell]"""

Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Block:
    """A rectangle of the layout with its colour and texture."""

    u0: float
    v0: float
    u1: float
    v1: float
    colour: Colour
    texture: Literal["plain", "lines-u", "lines-v", "logic"]
    pitch_px: float
    contrast: float
    phase: float


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """One layout; coordinates are those of the die, of the leads those of the cavity."""

    half_u: float
    half_v: float
    """Half sides of the die [px]"""
    cavity_u: float
    cavity_v: float
    """Half sides of the cavity [px]"""
    diode: tuple[float, float, float, float]
    """The photodiode: u0 v0 u1 v1 [px]"""
    blocks: tuple[Block, ...]
    pads: tuple[tuple[float, float], ...]
    leads: tuple[tuple[float, float], ...]
    """Where the wire of each pad ends."""
    logic: np.ndarray
    """A tile of random logic."""


def draw_product(spec: Products, number: int) -> Product:
    """The product of a number.

    Args:
        spec: The world's products.
        number: Which of them.
    """
    return _drawn(spec.model_dump_json(), number)


@lru_cache(maxsize=32)
def _drawn(told: str, number: int) -> Product:
    spec = Products.model_validate_json(told)
    rng = stream(spec.seed, "package-product", Stream.GEOMETRY, number)
    material = stream(spec.seed, "package-product", Stream.MATERIAL, number)
    half_u, half_v = 0.5 * uniform(rng, spec.die_width_px), 0.5 * uniform(rng, spec.die_height_px)
    cavity_u, cavity_v = half_u + rng.uniform(57, 66), half_v + rng.uniform(64, 72)
    wide, high = half_u * rng.uniform(0.50, 0.62), half_v * rng.uniform(0.25, 0.33)
    middle_u, middle_v = rng.uniform(-0.12, 0.12) * half_u, -0.36 * half_v
    diode = (middle_u - wide, middle_v - high, middle_u + wide, middle_v + high)
    pads, leads = [], []
    for side, count in ((-1, 5), (1, 4)):
        places = np.linspace(-0.80, 0.80, count) * (half_u - 24) + rng.uniform(-6, 6, count)
        for place in places:
            pads.append((float(place), side * (half_v - 26.0)))
            leads.append((float(place * 1.08 + rng.uniform(-7, 7)), side * (cavity_v - 31.0)))
    return Product(
        half_u,
        half_v,
        cavity_u,
        cavity_v,
        diode,
        tuple(_blocks(spec, rng, material, half_u, half_v, diode, pads)),
        tuple(pads),
        tuple(leads),
        material.standard_normal((TILE, TILE)).astype(np.float32).clip(-1.5, 1.5),
    )


def _blocks(
    spec: Products,
    rng: np.random.Generator,
    material: np.random.Generator,
    half_u: float,
    half_v: float,
    diode: tuple[float, float, float, float],
    pads: list[tuple[float, float]],
) -> list[Block]:
    """Logic in the lower part and beside the photodiode, and thin lines from the pads towards it."""
    inset = STREET_PX + 12.0
    region = (-half_u + inset, diode[3] + 12.0, half_u - inset, half_v - 48.0)
    count = int(rng.integers(spec.blocks[0], spec.blocks[1] + 1))
    rectangles = [region]
    while len(rectangles) < count:
        rectangles.sort(key=lambda one: (one[2] - one[0]) * (one[3] - one[1]))
        u0, v0, u1, v1 = rectangles.pop()
        at = rng.uniform(0.3, 0.7)
        if u1 - u0 >= 1.3 * (v1 - v0):
            cut = u0 + at * (u1 - u0)
            rectangles += [(u0, v0, cut, v1), (cut, v0, u1, v1)]
        else:
            cut = v0 + at * (v1 - v0)
            rectangles += [(u0, v0, u1, cut), (u0, cut, u1, v1)]
    for u0, u1 in ((-half_u + inset, diode[0] - 10.0), (diode[2] + 10.0, half_u - inset)):
        cuts = np.sort(rng.uniform(diode[1], diode[3], 2))
        edges = [diode[1], *cuts, diode[3]]
        rectangles += [(u0, low, u1, high) for low, high in pairwise(edges) if u1 - u0 > 12]
    blocks = []
    for u0, v0, u1, v1 in rectangles:
        gap = rng.uniform(1.0, 3.0)
        grey, warm, cool = material.uniform(0.18, 0.42), material.normal(0, 0.03), material.normal(0, 0.03)
        colour = (grey * (1 + warm), grey, grey * (1 + cool - warm))
        kind = ("plain", "lines-u", "lines-v", "logic", "blank")[int(rng.choice(5, p=(0.14, 0.24, 0.24, 0.26, 0.12)))]
        pitch, contrast, phase = uniform(rng, spec.grating_px), material.uniform(0.06, 0.26), rng.uniform(0, 2 * np.pi)
        if kind == "blank" or min(u1 - u0, v1 - v0) < 2 * gap + 6:
            continue
        blocks.append(Block(u0 + gap, v0 + gap, u1 - gap, v1 - gap, colour, kind, pitch, contrast, phase))  # type: ignore[arg-type]
    metal = (0.50, 0.49, 0.47)
    for u, v in pads:
        inward = -np.sign(v)
        ends = sorted((v + inward * 0.5 * PAD_PX, float(np.clip(v + inward * 40.0, diode[1] - 8, region[3] + 4))))
        at = u + rng.uniform(-6, 6)
        blocks.append(Block(at - 1.5, ends[0], at + 1.5, ends[1], metal, "plain", 4.0, 0.0, 0.0))
    cross_u, cross_v = half_u - inset - 7.0, -half_v + inset + 5.0
    for du, dv in ((7.0, 1.5), (1.5, 7.0)):
        blocks.append(
            Block(cross_u - du, cross_v - dv, cross_u + du, cross_v + dv, (0.62, 0.6, 0.55), "plain", 4.0, 0.0, 0.0)
        )
    return blocks


def product_of(world: PackageWorld, root: int, number: int) -> int:
    """Which product a device is of."""
    return int(stream(root, world.name, Stream.GEOMETRY, number, 9).integers(world.products.count))
