"""A field of a wafer: which dies and gaps lie in it, where exactly, and how high they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from waferlens.recipe.wafer_world import WaferWorld
from waferlens.records import Die
from waferlens.simulate.streams import Stream, stream
from waferlens.simulate.wafer.design import RADIUS_UM, Design

NATIVE_PITCH_UM = 1.2913298
"""Of S0's camera [um]"""
NATIVE_PX = 4342
FIELD_UM = NATIVE_PITCH_UM * NATIVE_PX
"""Side of a field: 5,606.95 um."""
CHUCKED = 0.1
"""What is left of the free shape on a vacuum chuck."""


@dataclass(frozen=True, slots=True)
class SceneDie:
    """A site in the frame of the field, with what its own die is like."""

    x0: float
    y0: float
    x1: float
    y1: float
    present: bool
    tops_um: tuple[float, ...]
    """Of its levels, as they came out [um]"""
    tilt: tuple[float, float]
    """Rise along x and y."""
    warp_um: float
    """Centre above the edges [um]"""
    chip: tuple[float, float, float] | None
    """Place along the upper edge, half-width and depth of a chip [um]"""

    @property
    def centre(self) -> tuple[float, float]:
        """[um]"""
        return 0.5 * (self.x0 + self.x1), 0.5 * (self.y0 + self.y1)


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Everything of a field that is geometry."""

    design: Design
    width_um: float
    height_um: float
    place_um: tuple[float, float]
    """Centre of the field on the wafer [um]"""
    dies: tuple[SceneDie, ...]
    particles: tuple[tuple[float, float, float], ...]
    """x, y and diameter [um]"""
    chucked: bool

    def records(self) -> list[Die]:
        """The sites as they are told."""
        return [_record(self.design, die) for die in self.dies]

    def carrier_um(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Height of the carrier at places of the field; a field has it taken off at its centre [um]"""
        cx, cy = self.place_um
        u = (x - 0.5 * self.width_um + cx) / RADIUS_UM
        v = (y - 0.5 * self.height_um + cy) / RADIUS_UM
        shape = _shape(self.design, u, v)
        if self.chucked:
            return CHUCKED * shape
        return shape - _shape(self.design, np.float64(cx / RADIUS_UM), np.float64(cy / RADIUS_UM))


def _shape(design: Design, u: np.ndarray | np.float64, v: np.ndarray | np.float64) -> np.ndarray:
    bow, first, second = design.shape_um
    return np.asarray(bow * (u * u + v * v) + first * (u * u - v * v) + 2 * second * u * v)


def draw_scene(
    world: WaferWorld, design: Design, root: int, field: int, *, columns: int = 1, chucked: bool = False
) -> Scene:
    """The scene of a field, or of a swath of several fields along the scan.

    Args:
        world: The domain.
        design: The wafer.
        root: Seed of the data set.
        field: Which field of the wafer.
        columns: Fields that lie side by side along the scan.
        chucked: Whether the wafer lies on a vacuum chuck; its shape is then told from the wafer's centre.
    """
    rng = stream(root, world.name, Stream.GEOMETRY, design.number, field + 1)
    angle, share = rng.uniform(0, 2 * math.pi), rng.uniform()
    radius = RADIUS_UM * 0.93 * math.sqrt(share)
    place = (0.0 if columns > 1 else radius * math.cos(angle), radius * math.sin(angle))
    phase_x, phase_y = rng.uniform(0, design.pitch_x_um), rng.uniform(0, design.pitch_y_um)
    width, height = columns * FIELD_UM, FIELD_UM
    dies = []
    # sites that reach into the field; each has its own draws, so that a longer swath leaves the others as they are
    for row in range(-1, math.ceil((height + phase_y) / design.pitch_y_um) + 1):
        for column in range(-1, math.ceil((width + phase_x) / design.pitch_x_um) + 1):
            x0 = column * design.pitch_x_um - phase_x + 0.5 * design.street_um
            y0 = row * design.pitch_y_um - phase_y + 0.5 * design.street_um
            die = _site(world, design, root, field, column, row, x0, y0)
            if die.x1 > 0 and die.y1 > 0 and die.x0 < width and die.y0 < height:
                dies.append(die)
    count = rng.poisson(world.surface.particles * columns)
    at = rng.uniform(size=(count, 2))
    size = np.exp(rng.normal(math.log(22.0), 0.5, count)).clip(8, 90)
    particles = tuple((float(x * width), float(y * height), float(d)) for (x, y), d in zip(at, size, strict=True))
    return Scene(design, width, height, place, tuple(dies), particles, chucked)


def _site(
    world: WaferWorld, design: Design, root: int, field: int, column: int, row: int, x0: float, y0: float
) -> SceneDie:
    rng = stream(root, world.name, Stream.GEOMETRY, design.number, field + 1, column + 1000, row + 1000)
    spec = world.stack
    present = bool(rng.random() >= design.missing)
    dx, dy = world.lattice.jitter_um * rng.standard_normal(2)
    scale = 1.0 + spec.thickness_std * rng.standard_normal(4)
    tilt = 1e-3 * spec.tilt_mrad * rng.standard_normal(2)
    thin = design.thickness_um < 200
    warp = (spec.warp_thin_um if thin else spec.warp_thick_um) * rng.uniform(-1, 1)
    chipped, at, wide, deep = rng.random(4)
    tops = tuple(float(top * factor) for top, factor in zip(design.product.level_tops_um, scale, strict=False))
    chip = None
    if chipped < design.chipped:
        chip = (x0 + at * design.die_x_um, 40 + 160 * wide, 20 + 80 * deep)
    return SceneDie(
        x0 + dx,
        y0 + dy,
        x0 + dx + design.die_x_um,
        y0 + dy + design.die_y_um,
        present,
        tops,
        (float(tilt[0]), float(tilt[1])),
        float(warp),
        chip,
    )


def _record(design: Design, die: SceneDie) -> Die:
    box = (die.x0, die.y0, die.x1, die.y1)
    if not die.present:
        return Die(box, "missing")
    levels = tuple(
        (die.x0 + inset, die.y0 + inset, die.x1 - inset, die.y1 - inset, top)
        for inset, top in zip(design.insets_um, die.tops_um, strict=True)
    )
    return Die(box, "present", die.tops_um[-1], levels)
