"""A device in vectors: where the package lies, how its die is turned, which defects it is to have."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from waferlens.recipe.package_world import PackageWorld
from waferlens.simulate.package.frame import Frame, Lens
from waferlens.simulate.package.layout import CAVITY_V_PX, Product, draw_product, product_of
from waferlens.simulate.streams import Stream, stream, uniform

CLASSES = ("crack", "rotate")
"""Classes of defects, in the order of their numbers."""
CUP_V_PX = 392.0
"""Centre of the reflector cup below that of the part [px]"""
CUP_PX = (95.0, 85.0)
"""Half sides of the cup [px]"""
EMITTER_PX = 42.0
"""Half side of the emitter [px]"""
KEEP_PX = 4.0
"""Corners keep this distance from the frame [px]"""
# What is drawn of a device, each from a generator of its own
POSE, ANGLE, CONTENTS, DEFECTS, LED, CLUTTER, WIRES, BOARD, BODY = range(9)


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """One device."""

    world: PackageWorld
    root: int
    """Seed of the data set."""
    number: int
    product: Product
    product_number: int
    ic: Frame
    """Coordinates of the package."""
    half_u: float
    half_v: float
    """Half sides of the package [px]"""
    border_px: float
    """w of its soft border [px]"""
    cavity: Frame
    leads: Frame
    die: Frame
    theta_die_deg: float
    """The die's angle against the package [deg]"""
    offset_px: tuple[float, float]
    """Of the die from the middle of the cavity, along the package's axes [px]"""
    missing: bool
    """Whether there is no die."""
    cracked: bool
    """Whether the die is to have cracks, chips or scratches."""
    rotated: bool
    """Whether the die's angle is a defect."""
    emitter: Frame


def draw_scene(world: PackageWorld, root: int, number: int) -> Scene:
    """The device of a number.

    Args:
        world: The domain.
        root: Seed of the data set.
        number: Which device.
    """
    pose = stream(root, world.name, Stream.GEOMETRY, number, POSE)
    frame = world.frame
    lens = Lens(frame.width_px, frame.height_px, uniform(pose, frame.distortion))
    place = np.clip(pose.standard_normal(2), -2, 2) * frame.scatter_px + frame.place_px
    narrow = frame.turn_deg * float(np.clip(pose.standard_normal(), -2, 2))
    wide, which = frame.wide_deg * pose.uniform(-1, 1), pose.random()
    scale = uniform(pose, frame.scale)
    sides = 1.0 + world.body.tolerance * pose.uniform(-1, 1, 2)
    half = 0.5 * world.body.width_px * float(sides[0]), 0.5 * world.body.height_px * float(sides[1])
    theta_ic = float(wide if which < frame.wide_share else narrow)
    ic = Frame(_inside(place, half, theta_ic, lens, scale), theta_ic, lens, scale)
    kind, missing = _contents(world, root, number)
    angle = stream(root, world.name, Stream.GEOMETRY, number, ANGLE)
    cavity_deg = world.rotation.cavity_deg * angle.standard_normal()
    leads_deg = world.rotation.leads_deg * angle.standard_normal()
    offset = np.clip(world.rotation.offset_px * angle.standard_normal(2), -12, 12)
    theta = _angle(world, angle, kind in ("rotate", "both"))
    number_of_product = product_of(world, root, number)
    return Scene(
        world,
        root,
        number,
        draw_product(world.products, number_of_product),
        number_of_product,
        ic,
        *half,
        uniform(pose, world.body.border_px),
        ic.part((0.0, CAVITY_V_PX), cavity_deg),
        ic.part((0.0, CAVITY_V_PX), leads_deg),
        ic.part((float(offset[0]), CAVITY_V_PX + float(offset[1])), theta),
        theta,
        (float(offset[0]) * scale, float(offset[1]) * scale),
        missing,
        kind in ("crack", "both") and not missing,
        abs(theta) >= world.rotation.limit_deg and not missing,
        ic.part((0.0, CUP_V_PX), 0.0),
    )


def _inside(
    place: np.ndarray, half: tuple[float, float], theta_deg: float, lens: Lens, scale: float
) -> tuple[float, float]:
    """Where the part's centre lies, moved as far as it takes to hold the part's corners."""
    cos, sin = abs(math.cos(math.radians(theta_deg))), abs(math.sin(math.radians(theta_deg)))
    across = scale * (half[0] * cos + half[1] * sin), scale * (half[0] * sin + half[1] * cos)
    middle = np.array(lens.centre)
    # a distorted corner lies further out than an ideal one
    free = np.maximum(middle - across - KEEP_PX - abs(lens.k1) * lens.radius_px, 0.0)
    x, y = middle + np.clip(place, -free, free)
    return float(x), float(y)


def good_twin(scene: Scene) -> Scene:
    """The same device without a defect: whatever is not its defect is drawn from the same numbers."""
    if not scene.rotated:
        return replace(scene, cracked=False)
    angle = stream(scene.root, scene.world.name, Stream.GEOMETRY, scene.number, ANGLE, 1)
    spec = scene.world.rotation
    theta = float(np.clip(spec.good_deg * angle.standard_normal(), -spec.good_most_deg, spec.good_most_deg))
    die = replace(scene.die, angle_deg=scene.ic.angle_deg + theta)
    return replace(scene, cracked=False, rotated=False, die=die, theta_die_deg=theta)


def _contents(world: PackageWorld, root: int, number: int) -> tuple[str, bool]:
    rng = stream(root, world.name, Stream.GEOMETRY, number, CONTENTS)
    mix = world.contents
    shares = np.array([mix.good, mix.crack, mix.rotate, mix.both])
    kind = ("good", "crack", "rotate", "both")[int(rng.choice(4, p=shares / shares.sum()))]
    return kind, bool(rng.random() < mix.missing)


def _angle(world: PackageWorld, rng: np.random.Generator, defective: bool) -> float:
    spec = world.rotation
    if spec.through_limit is not None:
        return float(rng.choice([-1.0, 1.0])) * uniform(rng, spec.through_limit)
    if not defective:
        return float(np.clip(spec.good_deg * rng.standard_normal(), -spec.good_most_deg, spec.good_most_deg))
    beyond = math.inf
    while spec.limit_deg + beyond > spec.most_deg:
        beyond = rng.gamma(spec.shape, spec.scale_deg)
    return float(rng.choice([-1.0, 1.0])) * (spec.limit_deg + beyond)
