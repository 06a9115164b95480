"""Everything but the die: board, moulded body with its soft border, cavity, leads, reflector cup and emitter."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from jaxtyping import Float32

from waferlens.simulate.package.frame import Frame, box_cover, is_empty, ramp, rounded_distance
from waferlens.simulate.package.maps import Maps
from waferlens.simulate.package.scene import BOARD, BODY, CUP_PX, EMITTER_PX, Scene
from waferlens.simulate.package.texture import grain, smooth_field
from waferlens.simulate.streams import Stream, stream

BODY_HEIGHT, FLOOR_HEIGHT, DIE_HEIGHT = 40.0, 8.0, 38.0
"""Heights above the board [px]"""
CORNER_PX = 9.0
"""Radius of the body's corners [px]"""
CAVITY_CORNER_PX = 12.0
"""Radius of the cavity's corners [px]"""
BORDER_LENGTH_PX = 25.0
"""Correlation length of the border's roughness [px]"""
SUBSTRATE = (0.100, 0.115, 0.090)
GOLD = (0.78, 0.66, 0.31)
CUP_WALL, CUP_FLOOR, EMITTER = (0.21, 0.21, 0.18), (0.165, 0.165, 0.140), (0.330, 0.300, 0.165)
LEAD_PX = (15.0, 18.0)
"""Half sides of a lead's landing [px]"""
CUP_PAD_PX = 19.0
"""Radius of the emitter's pad [px]"""


def paint_surroundings(scene: Scene) -> Maps:
    """The surface without die, wires and dirt."""
    lens = scene.ic.lens
    h, w = lens.height_px, lens.width_px
    material = stream(scene.root, scene.world.name, Stream.MATERIAL, scene.number, BOARD)
    board = _board_colour(scene, material)
    u, v = scene.ic.coordinates(lens.whole)
    maps = Maps(np.empty((3, h, w), np.float32), np.zeros((h, w), np.float32), np.empty((h, w), np.float32))
    texture = _board(material, scene, u, v)
    np.multiply(np.array(board, np.float32)[:, np.newaxis, np.newaxis], texture, out=maps.albedo)
    np.multiply(texture, np.float32(0.02), out=maps.scatter)
    _body(scene, maps, u, v)
    _cavity(scene, maps)
    if not scene.missing:
        _leads(scene, maps)
    _cup(scene, maps)
    return maps


def _board_colour(scene: Scene, rng: np.random.Generator) -> tuple[float, float, float]:
    told = np.array(scene.world.body.board) * (1.0 + 0.06 * rng.standard_normal())
    hue, lightness, colourful = colorsys.rgb_to_hls(*np.clip(told, 0, 1))
    turn = scene.world.body.board_hue_deg / 360.0 * rng.uniform(-1, 1)
    return colorsys.hls_to_rgb((hue + turn) % 1.0, lightness, colourful)


def _board(rng: np.random.Generator, scene: Scene, u: np.ndarray, v: np.ndarray) -> Float32[np.ndarray, "h w"]:
    """Solder mask over glass weave and buried traces, relative to its mean colour."""
    lens = scene.ic.lens
    h, w = lens.height_px, lens.width_px
    clouds = smooth_field(rng, h, w, 60.0)
    fine = smooth_field(rng, h, w, 9.0, 0.3)
    pitch, phase, depth = rng.uniform(20, 28), rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.02, 0.05)
    # the weave lies along the board, not along the part on it
    x = np.cos(np.arange(w) * (2 * np.pi / pitch) + phase[0]).astype(np.float32)
    y = np.cos(np.arange(h) * (2 * np.pi / pitch) + phase[1]).astype(np.float32)[:, np.newaxis]
    texture = 1.0 + np.float32(depth) * x * y + np.float32(0.09) * clouds + np.float32(0.05) * fine
    texture *= 1.0 + _traces(rng, w, h)
    return np.maximum(texture, np.float32(0.2), out=texture)


def _traces(rng: np.random.Generator, w: int, h: int) -> Float32[np.ndarray, "h w"]:
    """Bundles of buried traces with bends of 45 degrees; brighter than the rest by 0.35, softened by the mask."""
    drawn = np.zeros((h, w), np.uint8)
    for _ in range(int(rng.integers(4, 8))):
        width, gap, count = rng.uniform(4, 13), rng.uniform(1.6, 3.0), int(rng.integers(1, 4))
        x, bend, shift = rng.uniform(-0.05, 1.05) * w, rng.uniform(0.15, 0.85) * h, rng.uniform(-120, 120)
        across = rng.random() < 0.25
        for number in range(count):
            at = x + number * width * gap
            corner = bend + number * width * gap * 0.414 * np.sign(shift)
            points = np.array([(at, -20.0), (at, corner), (at + shift, corner + abs(shift)), (at + shift, h + 20.0)])
            if across:
                points = points[:, ::-1] * (w / h, 1.0)
            cv2.polylines(
                drawn, [np.rint(points * 16).astype(np.int32)], False, 255, max(int(width), 2), cv2.LINE_AA, 4
            )
    for _ in range(int(rng.integers(3, 9))):
        at = (int(rng.uniform(0, w) * 16), int(rng.uniform(0, h) * 16))
        radius = rng.uniform(7, 11)
        cv2.circle(drawn, at, int(radius * 16), 255, -1, cv2.LINE_AA, 4)
        cv2.circle(drawn, at, int(0.45 * radius * 16), 60, -1, cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(drawn, (0, 0), 2.0)
    return soft.astype(np.float32) * np.float32(0.35 / 255)


def _body(scene: Scene, maps: Maps, u: np.ndarray, v: np.ndarray) -> None:
    spec = scene.world.body
    rng = stream(scene.root, scene.world.name, Stream.MATERIAL, scene.number, BODY)
    h, w = maps.height.shape
    albedo = spec.albedo * rng.uniform(*spec.albedo_spread)
    rough = smooth_field(rng, h, w, BORDER_LENGTH_PX)
    speckle = grain(rng, h, w)
    away = rounded_distance(u, v, scene.half_u, scene.half_v, CORNER_PX)
    exponent = away * np.float32(4.0 / scene.border_px) + np.float32(spec.roughness) * rough
    cover = 1.0 / (1.0 + np.exp(np.clip(exponent, -40, 40)))
    filler = np.maximum(speckle - np.float32(2.6), 0)
    grey = np.float32(albedo) * np.maximum(1.0 + 0.22 * speckle + 0.10 * rough, np.float32(0.2)) + 0.02 * filler
    scatter = np.float32(0.0085) * np.maximum(1.0 + 0.30 * speckle, np.float32(0.1)) + np.float32(0.02) * filler
    maps.lay(scene.ic.lens.whole, cover, grey[np.newaxis] * _body_tint(rng), scatter)
    maps.height[:] = np.float32(BODY_HEIGHT) * cover
    _pin_one(scene, maps)
    for _ in range(rng.poisson(spec.hot_spots)):
        _glint(scene, maps, rng)


def _body_tint(rng: np.random.Generator) -> Float32[np.ndarray, "3 1 1"]:
    tint = 1.0 + 0.04 * rng.standard_normal(3)
    return tint.astype(np.float32)[:, np.newaxis, np.newaxis]


def _pin_one(scene: Scene, maps: Maps) -> None:
    """A shallow dimple in the corner of pin 1, at the top left of the upright part."""
    at_u, at_v = -scene.half_u + 36.0, -scene.half_v + 36.0
    window = scene.ic.window(at_u - 16, at_v - 16, at_u + 16, at_v + 16)
    if is_empty(window):
        return
    u, v = scene.ic.coordinates(window)
    inside = ramp((13.0 - np.hypot(u - np.float32(at_u), v - np.float32(at_v))) / 2.0)
    maps.height[window] -= 4.0 * inside
    maps.albedo[:, *window] *= 1.0 + 0.5 * inside


def _glint(scene: Scene, maps: Maps, rng: np.random.Generator) -> None:
    """A glossy place on the body that sends much light back."""
    at = rng.uniform(-1, 1, 2) * (scene.half_u - 20, scene.half_v - 20)
    size, strong = rng.uniform(8, 30, 2), rng.uniform(0.05, 0.35)
    window = scene.ic.window(at[0] - 3 * size[0], at[1] - 3 * size[1], at[0] + 3 * size[0], at[1] + 3 * size[1])
    if is_empty(window):
        return
    u, v = scene.ic.coordinates(window)
    bump = np.exp(-np.square((u - np.float32(at[0])) / size[0]) - np.square((v - np.float32(at[1])) / size[1]))
    maps.albedo[:, *window] += np.float32(strong) * bump


def _cavity(scene: Scene, maps: Maps) -> None:
    half_u, half_v = scene.product.cavity_u, scene.product.cavity_v
    window = scene.cavity.window(-half_u - 8, -half_v - 8, half_u + 8, half_v + 8)
    u, v = scene.cavity.coordinates(window)
    away = rounded_distance(u, v, half_u, half_v, CAVITY_CORNER_PX)
    rng = stream(scene.root, scene.world.name, Stream.MATERIAL, scene.number, BODY, 1)
    h, w = away.shape
    mottled, fine = smooth_field(rng, h, w, 22.0, 0.4), smooth_field(rng, h, w, 5.0, 0.2)
    # the wall slants over a few pixels: lighter than the body, and steep
    wall = ramp((4.0 - np.abs(away + 1.0)) / 1.5)
    maps.lay(window, wall, (0.030, 0.032, 0.028), 0.02)
    floor = ramp((-away - 2.0) / 1.2)
    texture = np.maximum(1.0 + 0.10 * mottled + 0.07 * fine, np.float32(0.3))
    colour = np.array(SUBSTRATE, np.float32)[:, np.newaxis, np.newaxis] * texture
    maps.lay(window, floor, colour, np.float32(0.032) * texture)
    down = ramp(-away / 5.0)
    maps.height[window] += (np.float32(FLOOR_HEIGHT) - maps.height[window]) * down


def _leads(scene: Scene, maps: Maps) -> None:
    """Gold-plated landings on the substrate, from the wedge bond to the cavity's wall."""
    half_u, half_v = LEAD_PX
    wall_v = scene.product.cavity_v - 3.0
    for at_u, at_v in scene.product.leads:
        v0, v1 = (-wall_v, at_v + half_v) if at_v < 0 else (at_v - half_v, wall_v)
        window = scene.leads.window(at_u - half_u, v0, at_u + half_u, v1)
        if is_empty(window):
            continue
        u, v = scene.leads.coordinates(window)
        cover = box_cover(u, v, at_u - half_u, v0, at_u + half_u, v1)
        maps.lay(window, cover, (0.46, 0.40, 0.20), 0.022)
        maps.height[window] += 2.5 * cover


def _cup(scene: Scene, maps: Maps) -> None:
    """The reflector cup with the emitter of the LED."""
    half_u, half_v = CUP_PX
    window = scene.emitter.window(-half_u - 6, -half_v - 6, half_u + 6, half_v + 6)
    if is_empty(window):
        return
    u, v = scene.emitter.coordinates(window)
    rng = stream(scene.root, scene.world.name, Stream.MATERIAL, scene.number, BODY, 2)
    h, w = u.shape
    fine = smooth_field(rng, h, w, 12.0, 0.3)
    texture = np.maximum(1.0 + 0.09 * fine, np.float32(0.3))
    away = rounded_distance(u, v, half_u, half_v, 14.0)
    maps.lay(window, ramp(-away / 2.0), np.array(CUP_WALL, np.float32)[:, np.newaxis, np.newaxis] * texture, 0.034)
    inner = rounded_distance(u, v, half_u - 15, half_v - 15, 12.0)
    colour = np.array(CUP_FLOOR, np.float32)[:, np.newaxis, np.newaxis] * texture
    maps.lay(window, ramp(-inner / 3.0), colour, 0.030)
    bowl = ramp(-away / 3.0)
    maps.height[window] -= 6.0 * bowl
    _emitter(scene.emitter, maps, rng)


def _emitter(frame: Frame, maps: Maps, rng: np.random.Generator) -> None:
    side = EMITTER_PX
    window = frame.window(-side - 4, -side - 4, side + 4, side + 4)
    if is_empty(window):
        return
    u, v = frame.coordinates(window)
    cover = box_cover(u, v, -side, -side, side, side)
    texture = np.maximum(1.0 + 0.04 * smooth_field(rng, *u.shape, 15.0), np.float32(0.3))
    maps.lay(window, cover, np.array(EMITTER, np.float32)[:, np.newaxis, np.newaxis] * texture, 0.014)
    mesa = np.abs(np.maximum(np.abs(u), np.abs(v)) - np.float32(side - 6.0))
    maps.albedo[:, *window] *= 1.0 - 0.25 * ramp(1.0 - mesa)
    maps.height[window] += 8.0 * cover
    pad = ramp(CUP_PAD_PX - np.hypot(u, v))
    maps.lay(window, pad, GOLD, 0.020)
    maps.height[window] += 1.5 * pad
