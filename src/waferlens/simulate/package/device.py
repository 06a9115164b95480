"""One device from its seed: scene, surface, three lights, three pictures, and the truth beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from waferlens.formats.package_set import BODY_BIT, DIE_BIT, Defect, Device
from waferlens.recipe.package_world import PackageWorld
from waferlens.simulate.package.camera import GAMMA, Camera, acquire, draw_camera, spread
from waferlens.simulate.package.die import DIE_CORNER_PX, paint_die, paint_epoxy
from waferlens.simulate.package.frame import Window, box_of, rounded_distance
from waferlens.simulate.package.light import LIGHTS, lit, slopes
from waferlens.simulate.package.maps import Maps
from waferlens.simulate.package.marks import Mark, draw_clutter, draw_defects, draw_led_mark, total_shift
from waferlens.simulate.package.scene import Scene, draw_scene, good_twin
from waferlens.simulate.package.surroundings import CORNER_PX, paint_surroundings
from waferlens.simulate.package.wires import Piece, draw_wires
from waferlens.simulate.streams import Stream, stream

MARGIN_PX = 8
"""Around a defect, that its light can spread to [px]"""


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedDevice:
    """A device with all that is known of it."""

    images: dict[str, UInt8[np.ndarray, "h w 3"]]
    """Red, green, blue, by light."""
    parts: UInt8[np.ndarray, "h w"]
    """Bit 0 the body, bit 1 the die."""
    defects: UInt8[np.ndarray, "h w"]
    """Number of the visible defect + 1."""
    truth: Device
    """Without paths."""


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """A device before any light."""

    maps: Maps
    plain: Maps
    """The same without defects and marks of the emitter."""
    marks: list[Mark]
    """Defects, marks of the emitter, dirt: in the order of the truth."""
    owner: UInt8[np.ndarray, "h w"]
    """Number of the visible mark + 1."""
    body: Bool[np.ndarray, "h w"]
    die: Bool[np.ndarray, "h w"]


def draw_device(
    world: PackageWorld, root: int, number: int, *, twin: bool = False, noise: bool = True, strength: float = 1.0
) -> SimulatedDevice:
    """The device of a number.

    Args:
        world: The domain.
        root: Seed of the data set.
        number: Which device.
        twin: Draw its good twin instead: the same but for the defect.
        noise: Whether the camera is noisy.
        strength: Factor of how strongly cracks, chips and scratches show.
    """
    scene = draw_scene(world, root, number)
    scene = good_twin(scene) if twin else scene
    surface = draw_surface(scene, strength)
    slope = slopes(surface.maps.height)
    pictures, cameras = {}, []
    for place, light in enumerate(LIGHTS):
        camera = draw_camera(world.microscope, stream(root, world.name, Stream.INSTRUMENT, number, place))
        drawn = stream(root, world.name, Stream.NOISE, number, place) if noise else None
        pictures[light] = acquire(lit(surface.maps, slope, light), camera, drawn)
        cameras.append(camera)
    parts = BODY_BIT * surface.body.astype(np.uint8) | DIE_BIT * surface.die.astype(np.uint8)
    return SimulatedDevice(pictures, parts, surface.owner, _truth(scene, surface, slope, cameras))


def draw_surface(scene: Scene, strength: float = 1.0) -> Surface:
    """Paints a device in the order things lie: board, body, cavity, epoxy, die, defects, wires, dirt.

    Args:
        scene: The device.
        strength: Factor of how strongly cracks, chips and scratches show.
    """
    lens = scene.ic.lens
    shape = (lens.height_px, lens.width_px)
    wires, dirt = draw_wires(scene), draw_clutter(scene)
    hidden = _hidden(shape, wires, dirt)
    owner = np.zeros(shape, np.uint8)
    first = 1 if scene.rotated else 0
    marks = [] if scene.missing else draw_defects(scene, hidden, owner, strength)
    lamp = draw_led_mark(scene, hidden, claimed := np.zeros(shape, np.uint8))
    owner[owner > 0] += first
    owner[claimed > 0] = first + len(marks) + 1
    seen = _claim_dirt(dirt, owner, first + len(marks) + len(lamp))
    maps = paint_surroundings(scene)
    if not scene.missing:
        paint_epoxy(scene, maps)
        paint_die(scene, maps, shift=total_shift(scene, marks))
    plain = maps.copy() if marks or lamp else maps
    for mark in [*marks, *lamp]:
        mark.lay(maps)
    for one in {id(maps): maps, id(plain): plain}.values():
        for piece in wires:
            piece.lay(one)
        for mark in seen:
            mark.lay(one)
    return Surface(maps, plain, [*marks, *lamp, *seen], owner, *outlines(scene))


def outlines(scene: Scene) -> tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Masks of the body, without the roughness of its border, and of the die, its chips included."""
    lens = scene.ic.lens
    body = rounded_distance(*scene.ic.coordinates(lens.whole), scene.half_u, scene.half_v, CORNER_PX) <= 0
    die = np.zeros_like(body)
    if not scene.missing:
        half = scene.product.half_u, scene.product.half_v
        window = scene.die.window(-half[0], -half[1], *half)
        die[window] = rounded_distance(*scene.die.coordinates(window), *half, DIE_CORNER_PX) <= 0
    return body, die


def _hidden(shape: tuple[int, int], wires: list[Piece], dirt: list[Mark]) -> Bool[np.ndarray, "h w"]:
    hidden = np.zeros(shape, bool)
    for piece in wires:
        hidden[piece.window] |= piece.hides
    for mark in dirt:
        hidden[mark.window] |= mark.mask
    return hidden


def _claim_dirt(dirt: list[Mark], owner: UInt8[np.ndarray, "h w"], taken: int) -> list[Mark]:
    """Dirt lies on top, so its pixels are its own; a grain that others cover wholly is left out."""
    number = np.zeros(owner.shape, np.uint8)
    for place, mark in enumerate(dirt, 1):
        number[mark.window][mark.mask] = place
    seen = [mark for place, mark in enumerate(dirt, 1) if (number[mark.window] == place).any()]
    for place, mark in enumerate(dirt, 1):
        if mark in seen:
            owner[number == place] = taken + seen.index(mark) + 1
    return seen


def _truth(scene: Scene, surface: Surface, slope: Float32[np.ndarray, "h w"], cameras: list[Camera]) -> Device:
    half_u, half_v = scene.product.half_u, scene.product.half_v
    defects = []
    if scene.rotated:
        box = box_of(surface.die, scene.ic.lens.whole)
        sides = 2 * half_v * scene.ic.scale, 2 * half_u * scene.ic.scale
        defects.append(Defect("rotate", "rotate", box, int(surface.die.sum()), *sides, None, False))
    first = len(defects) + 1
    for number, mark in enumerate(surface.marks, first):
        visible = surface.owner[mark.window] == number
        contrast = None
        if mark.kind not in ("dust", "fibre"):
            contrast = _contrast(surface, slope, mark.window, visible, cameras[0].blur_px)
        defects.append(
            Defect(
                mark.kind,
                "ignore" if mark.ignore else "crack",
                tuple(float(edge) for edge in box_of(visible, mark.window)),  # type: ignore[arg-type]
                int(visible.sum()),
                mark.length_px,
                mark.width_px,
                contrast,
                mark.ignore,
            )
        )
    product, missing = scene.product, scene.missing
    return Device(
        scene.number,
        {},
        scene.ic.quad(scene.half_u, scene.half_v),
        None if missing else scene.die.quad(half_u, half_v),
        scene.ic.angle_deg,
        None if missing else scene.theta_die_deg,
        None if missing else scene.offset_px,
        missing,
        tuple(defects),
        None,
        scene.cavity.quad(product.cavity_u, product.cavity_v),
        scene.cavity.angle_deg - scene.ic.angle_deg,
        scene.leads.angle_deg - scene.ic.angle_deg,
        scene.border_px * scene.ic.scale,
        0.25 * scene.border_px * scene.world.body.roughness * scene.ic.scale,
        tuple(camera.blur_px for camera in cameras),  # type: ignore[arg-type]
        scene.product_number,
    )


def _contrast(
    surface: Surface,
    slope: Float32[np.ndarray, "h w"],
    window: Window,
    visible: Bool[np.ndarray, "h w"],
    blur_px: float,
) -> float:
    """Mean absolute change of the brightfield picture over some pixels, after the lens [grey]"""
    h, w = slope.shape
    rows, columns = window
    around = (
        slice(max(rows.start - MARGIN_PX, 0), min(rows.stop + MARGIN_PX, h)),
        slice(max(columns.start - MARGIN_PX, 0), min(columns.stop + MARGIN_PX, w)),
    )
    inner = (
        slice(rows.start - around[0].start, rows.stop - around[0].start),
        slice(columns.start - around[1].start, columns.stop - around[1].start),
    )
    grey = [
        255.0 * np.clip(spread(lit(maps, slope, "bf", around), blur_px), 0, 1) ** np.float32(1 / GAMMA)
        for maps in (surface.maps, surface.plain)
    ]
    change = np.abs((grey[0] - grey[1]).mean(axis=0))
    return float(change[inner][visible].mean())


def twin_device(world: PackageWorld, root: int, number: int, own_number: int, *, noise: bool = True) -> SimulatedDevice:
    """The good twin of a defective device, under a number of its own."""
    made = draw_device(world, root, number, twin=True, noise=noise)
    return replace(made, truth=replace(made.truth, number=own_number, twin_of=number))
