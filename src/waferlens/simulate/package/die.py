"""The die: silicon under thin films, photodiode, logic, pads, saw street, and the epoxy that creeps up its sides."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32

from waferlens.simulate.package.frame import Window, box_cover, is_empty, ramp, rounded_distance
from waferlens.simulate.package.layout import PAD_PX, STREET_PX, TILE, Block
from waferlens.simulate.package.maps import Maps
from waferlens.simulate.package.scene import Scene
from waferlens.simulate.package.surroundings import DIE_HEIGHT, FLOOR_HEIGHT
from waferlens.simulate.package.texture import smooth_field
from waferlens.simulate.streams import Stream, stream

DIE_CORNER_PX = 2.5
"""Radius of its corners [px]"""
EDGE_PX = 0.55
"""Softness of its edge [px]"""
GREEN, PURPLE = (0.135, 0.245, 0.150), (0.170, 0.115, 0.225)
"""Thin films over the photodiode."""
ALUMINIUM = (0.83, 0.82, 0.76)
LOGIC_CELL_PX = 3.4
DIE = 3
"""Its random numbers."""

Shift = tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]


def paint_epoxy(scene: Scene, maps: Maps) -> None:
    """The fillet around the die, with its overflow where a device has one."""
    rng = stream(scene.root, scene.world.name, Stream.MATERIAL, scene.number, DIE, 1)
    half_u, half_v = scene.product.half_u, scene.product.half_v
    width, overflow = rng.uniform(3, 9), rng.random() < 0.15
    at, far = rng.uniform(-1, 1), bool(rng.random() < 0.5)
    reach = 3.5 * width * (2.5 if overflow else 1.0) + 4
    window = scene.die.window(-half_u - reach, -half_v - reach, half_u + reach, half_v + reach)
    if is_empty(window):
        return
    u, v = scene.die.coordinates(window)
    edge = rounded_distance(u, v, half_u, half_v, DIE_CORNER_PX)
    wide = np.float32(width) * np.exp(np.float32(0.45) * np.clip(smooth_field(rng, *u.shape, 16.0, 1.2), -2.2, 2.2))
    if overflow:
        side = np.float32(half_u if far else -half_u)
        away2 = np.square(u - side) + np.square(v - np.float32(at * half_v))
        wide *= 1.0 + 2.0 * np.exp(away2 * np.float32(-0.5 / 26.0**2))
    cover = ramp((wide - edge) / 1.5)
    maps.lay(window, cover, (0.032, 0.034, 0.028), 0.040)
    up = np.clip(1.0 - edge / np.maximum(wide, 1.0), 0.0, 1.0)
    maps.height[window] += np.float32(0.75 * (DIE_HEIGHT - FLOOR_HEIGHT)) * up * cover


def paint_die(scene: Scene, maps: Maps, window: Window | None = None, shift: Shift | None = None) -> None:
    """The die without its defects.

    Args:
        scene: The device.
        maps: Painted upon.
        window: Only these pixels; the whole die if None.
        shift: How far the texture has moved there, along u and v [px]
    """
    half_u, half_v = scene.product.half_u, scene.product.half_v
    whole = scene.die.window(-half_u, -half_v, half_u, half_v)
    if is_empty(whole):
        return
    window = whole if window is None else window
    inner = tuple(slice(one.start - all_.start, one.stop - all_.start) for one, all_ in zip(window, whole, strict=True))
    u, v = scene.die.coordinates(window)
    edge = rounded_distance(u, v, half_u, half_v, DIE_CORNER_PX)
    cover = ramp(-edge / np.float32(2 * EDGE_PX))
    if shift is not None:
        u, v = u + shift[0], v + shift[1]
    rng = stream(scene.root, scene.world.name, Stream.MATERIAL, scene.number, DIE)
    grey, tint = rng.uniform(0.30, 0.36), 1.0 + 0.03 * rng.standard_normal(3)
    purple = bool(rng.random() < scene.world.products.purple)
    film = np.array(PURPLE if purple else GREEN) * rng.uniform(0.85, 1.2)
    clouds = smooth_field(rng, whole[0].stop - whole[0].start, whole[1].stop - whole[1].start, 45.0)[inner]
    silicon = (grey * tint * (0.84, 1.0, 1.02)).astype(np.float32)
    surface = Maps(
        silicon[:, np.newaxis, np.newaxis] * (1.0 + np.float32(0.03) * clouds),
        np.zeros_like(u),
        np.full_like(u, 0.0012),
    )
    _street(surface, edge)
    _diode(scene, surface, u, v, film.astype(np.float32), clouds)
    marks = rng.random((len(scene.product.pads), 4))
    for block in scene.product.blocks:
        _block(scene, surface, window, u, v, block, scene.product.logic)
    for (at_u, at_v), mark in zip(scene.product.pads, marks, strict=True):
        _pad(scene, surface, window, u, v, at_u, at_v, mark)
    maps.lay(window, cover, surface.albedo, surface.scatter)
    below = maps.height[window]
    below += (np.float32(DIE_HEIGHT) + surface.height - below) * cover


def _street(surface: Maps, edge: Float32[np.ndarray, "h w"]) -> None:
    street = ramp(edge + np.float32(STREET_PX))
    albedo, scatter = surface.albedo, surface.scatter
    albedo *= 1.0 - np.float32(0.45) * street
    scatter += 0.006 * street
    ring = ramp(1.2 - np.abs(edge + np.float32(STREET_PX + 3.0)))
    albedo += (0.42 - albedo) * (0.6 * ring)


def _diode(
    scene: Scene, surface: Maps, u: np.ndarray, v: np.ndarray, film: np.ndarray, clouds: Float32[np.ndarray, "h w"]
) -> None:
    cover = box_cover(u, v, *scene.product.diode)
    frame = box_cover(u, v, *(one + grow for one, grow in zip(scene.product.diode, (-4, -4, 4, 4), strict=True)))
    surface.lay((slice(None), slice(None)), frame - cover, (0.44, 0.45, 0.43), 0.0025)
    # the film's thickness varies a little, and its colour with it
    hue = film[:, np.newaxis, np.newaxis] * (
        1.0 + np.array([0.05, -0.03, 0.04], np.float32)[:, np.newaxis, np.newaxis] * clouds
    )
    surface.lay((slice(None), slice(None)), cover, hue, 0.0012)


def _clipped(scene: Scene, window: Window, u0: float, v0: float, u1: float, v1: float) -> Window | None:
    """Part of a window, from its own first pixel, that a rectangle of the die can touch."""
    wanted = scene.die.window(u0, v0, u1, v1, 4.0)
    parts = []
    for one, all_ in zip(wanted, window, strict=True):
        start, stop = max(one.start, all_.start), min(one.stop, all_.stop)
        if stop <= start:
            return None
        parts.append(slice(start - all_.start, stop - all_.start))
    return parts[0], parts[1]


def _block(
    scene: Scene, surface: Maps, window: Window, u: np.ndarray, v: np.ndarray, block: Block, logic: np.ndarray
) -> None:
    part = _clipped(scene, window, block.u0, block.v0, block.u1, block.v1)
    if part is None:
        return
    u, v = u[part], v[part]
    cover = box_cover(u, v, block.u0, block.v0, block.u1, block.v1)
    relief = None
    match block.texture:
        case "lines-u" | "lines-v":
            along = u if block.texture == "lines-u" else v
            # steep flanks: lines have edges, and the lens rounds them
            wave = np.sin(along * np.float32(2 * np.pi / block.pitch_px) + np.float32(block.phase))
            relief = np.clip(1.8 * wave, -1, 1)
        case "logic":
            scale = np.float32(1.0 / LOGIC_CELL_PX)
            relief = cv2.remap(
                np.pad(logic, ((0, 1), (0, 1)), mode="wrap"),
                np.mod(u * scale, TILE),
                np.mod(v * scale, TILE),
                cv2.INTER_LINEAR,
            )
        case _:
            pass
    colour = np.array(block.colour, np.float32)[:, np.newaxis, np.newaxis]
    scatter: float | np.ndarray = 0.0014
    if relief is not None:
        colour = np.maximum(colour * (1.0 + np.float32(block.contrast) * relief), np.float32(0.02))
        scatter = 0.0018 + np.float32(0.006 * block.contrast) * np.abs(relief)
    surface.lay(part, cover, colour, scatter)


def _pad(
    scene: Scene,
    surface: Maps,
    window: Window,
    u: np.ndarray,
    v: np.ndarray,
    at_u: float,
    at_v: float,
    mark: np.ndarray,
) -> None:
    half = 0.5 * PAD_PX
    part = _clipped(scene, window, at_u - half - 2, at_v - half - 2, at_u + half + 2, at_v + half + 2)
    if part is None:
        return
    u, v = u[part] - np.float32(at_u), v[part] - np.float32(at_v)
    surface.lay(part, box_cover(u, v, -half - 1.8, -half - 1.8, half + 1.8, half + 1.8), (0.24, 0.25, 0.24), 0.003)
    cover = box_cover(u, v, -half, -half, half, half)
    surface.lay(part, cover, ALUMINIUM, 0.004)
    if mark[0] < scene.world.clutter.probe_marks:
        # where the probe scrubbed: a short dark dash with a bright end, off the middle
        du, dv = 12.0 * mark[1] - 6.0, (6.5 + 1.5 * mark[2]) * (1 if mark[3] < 0.5 else -1)
        dash = ramp(1.1 - np.abs(u - np.float32(du))) * ramp(3.0 - np.abs(v - np.float32(dv)))
        surface.lay(part, 0.55 * dash * cover, (0.22, 0.22, 0.20), 0.030)
