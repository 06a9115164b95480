"""Defects, marks on the emitter and dirt as pixels: what they do to light, their exact masks, and whether they show."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from waferlens.simulate.package.cracks import Chip, Crack, Scratch, draw_chip, draw_crack, draw_scratch
from waferlens.simulate.package.frame import Frame, Window, box_cover, is_empty, ramp, rounded_distance
from waferlens.simulate.package.maps import Maps
from waferlens.simulate.package.scene import CLUTTER, DEFECTS, EMITTER_PX, LED, Scene
from waferlens.simulate.package.strokes import Stroke, stroke
from waferlens.simulate.package.surroundings import CUP_PAD_PX
from waferlens.simulate.streams import Stream, stream, uniform

Kind = Literal["crack", "chip", "scratch", "led-mark", "dust", "fibre"]
TRIES = 16
"""How often a defect that would not show, or would touch another, is drawn anew."""
APART_PX = 3
"""Defects keep this distance [px]"""
SHIFT_REACH_PX = 7.0
"""How far from a crack its offset of the texture is felt [px]"""
MOST_CLUTTER = 60
"""Grains and fibres of a device."""
BARE = 0.33
"""Reflectance of silicon without films."""
LIP_PX = 1.4
"""Width of the raised lip at one side of a crack [px]"""


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """One thing on the surface."""

    kind: Kind
    ignore: bool
    """Whether it is no defect of the die."""
    window: Window
    mask: Bool[np.ndarray, "h w"]
    """Its pixels, whether they can be seen or not."""
    dark: Float32[np.ndarray, "h w"]
    """Share of the reflectance it takes."""
    light: Float32[np.ndarray, "h w"]
    """Reflectance it adds."""
    glow: Float32[np.ndarray, "h w"]
    """Scatter it adds."""
    length_px: float
    width_px: float
    shift: tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]] | None = field(default=None)
    """How far it moves the texture, along the die's u and v [px]"""

    def lay(self, maps: Maps) -> None:
        """Marks the surface; nothing changes where dark, light and glow are 0."""
        albedo = maps.albedo[:, *self.window]
        albedo *= 1.0 - self.dark
        albedo += self.light
        maps.scatter[self.window] += self.glow


def draw_defects(
    scene: Scene, hidden: Bool[np.ndarray, "h w"], owner: UInt8[np.ndarray, "h w"], strength: float = 1.0
) -> list[Mark]:
    """The die's cracks, chips and scratches, each visible and apart from the others.

    Args:
        scene: The device.
        hidden: Pixels that something lies over.
        owner: Pixels that belong to something already are not 0; grows.
        strength: Factor of how strongly they show; 0 leaves the picture as it is.
    """
    if not scene.cracked:
        return []
    spec = scene.world.cracks
    rng = stream(scene.root, scene.world.name, Stream.GEOMETRY, scene.number, DEFECTS)
    shares = np.array(spec.kinds) / sum(spec.kinds)
    marks = []
    for place in range(1 + min(int(rng.poisson(spec.more)), 5)):
        kind = ("crack", "chip", "scratch")[int(rng.choice(3, p=shares))]
        for again in range(TRIES):
            # a defect that is drawn anew leaves the draws of the others alone
            own = stream(scene.root, scene.world.name, Stream.GEOMETRY, scene.number, DEFECTS, place + 1, again)
            mark = _die_mark(scene, own, kind, strength)
            if mark is not None and _placed(mark, hidden, owner, spec.least_px, len(marks) + 1):
                marks.append(mark)
                break
    return marks


def draw_led_mark(scene: Scene, hidden: Bool[np.ndarray, "h w"], owner: UInt8[np.ndarray, "h w"]) -> list[Mark]:
    """The crack-like mark of an emitter, made as cracks of dies are."""
    rng = stream(scene.root, scene.world.name, Stream.GEOMETRY, scene.number, LED)
    if rng.random() >= scene.world.clutter.led_mark:
        return []
    spec = scene.world.cracks
    for again in range(TRIES):
        own = stream(scene.root, scene.world.name, Stream.GEOMETRY, scene.number, LED, again)
        crack = draw_crack(own, spec, EMITTER_PX, EMITTER_PX, longest_px=1.3 * EMITTER_PX)
        mark = _crack_mark(scene.emitter, crack, own, scene, "led-mark", 1.0, _emitter_cover)
        if mark is not None and _placed(mark, hidden, owner, spec.least_px, 1):
            return [mark]
    return []


def draw_clutter(scene: Scene) -> list[Mark]:
    """Dust and fibres on top of everything."""
    rng = stream(scene.root, scene.world.name, Stream.GEOMETRY, scene.number, CLUTTER)
    spec = scene.world.clutter
    grains, fibres = min(int(rng.poisson(spec.dust)), MOST_CLUTTER), min(int(rng.poisson(spec.fibres)), MOST_CLUTTER)
    marks = []
    for number in range(grains + fibres):
        own = stream(scene.root, scene.world.name, Stream.GEOMETRY, scene.number, CLUTTER, number + 1)
        at = own.uniform(-1, 1, 2) * (1.05 * scene.half_u, 1.05 * scene.half_v)
        mark = _grain(scene, own, at) if number < grains else _fibre(scene, own, at)
        if mark is not None and mark.mask.any():
            marks.append(mark)
    return marks


def total_shift(scene: Scene, marks: list[Mark]) -> tuple[np.ndarray, np.ndarray] | None:
    """How far the die's texture is moved by all marks together, in the die's window; None where by none."""
    if all(mark.shift is None for mark in marks):
        return None
    half_u, half_v = scene.product.half_u, scene.product.half_v
    whole = scene.die.window(-half_u, -half_v, half_u, half_v)
    out = np.zeros((2, whole[0].stop - whole[0].start, whole[1].stop - whole[1].start), np.float32)
    for mark in marks:
        if mark.shift is None:
            continue
        inner, own = [], []
        for one, all_ in zip(mark.window, whole, strict=True):
            start, stop = max(one.start, all_.start), min(one.stop, all_.stop)
            inner.append(slice(start - all_.start, max(stop, start) - all_.start))
            own.append(slice(start - one.start, max(stop, start) - one.start))
        for axis in (0, 1):
            out[axis, *inner] += mark.shift[axis][tuple(own)]
    return out[0], out[1]


def _placed(
    mark: Mark, hidden: Bool[np.ndarray, "h w"], owner: UInt8[np.ndarray, "h w"], least_px: int, number: int
) -> bool:
    """Claims a mark's visible pixels, if there are enough and none near them belongs to another."""
    visible = mark.mask & ~hidden[mark.window]
    if visible.sum() < least_px:
        return False
    rows, columns = np.flatnonzero(mark.mask.any(axis=1)), np.flatnonzero(mark.mask.any(axis=0))
    y, x = mark.window[0].start, mark.window[1].start
    around = owner[
        max(y + rows[0] - APART_PX, 0) : y + rows[-1] + APART_PX + 1,
        max(x + columns[0] - APART_PX, 0) : x + columns[-1] + APART_PX + 1,
    ]
    if around.any():
        return False
    owner[mark.window][visible] = number
    return True


def _die_mark(scene: Scene, rng: np.random.Generator, kind: str, strength: float) -> Mark | None:
    spec, half_u, half_v = scene.world.cracks, scene.product.half_u, scene.product.half_v
    match kind:
        case "crack":
            crack = draw_crack(rng, spec, half_u, half_v)
            return _crack_mark(scene.die, crack, rng, scene, "crack", strength, _die_cover)
        case "chip":
            return _chip_mark(scene, draw_chip(rng, spec, half_u, half_v), rng, strength)
        case _:
            return _scratch_mark(scene, draw_scratch(rng, spec, half_u, half_v), rng, strength)


def _die_cover(scene: Scene, window: Window) -> Float32[np.ndarray, "h w"]:
    u, v = scene.die.coordinates(window)
    return ramp(-rounded_distance(u, v, scene.product.half_u, scene.product.half_v, 2.5))


def _emitter_cover(scene: Scene, window: Window) -> Float32[np.ndarray, "h w"]:
    u, v = scene.emitter.coordinates(window)
    square = box_cover(u, v, -EMITTER_PX, -EMITTER_PX, EMITTER_PX, EMITTER_PX)
    return square * ramp(np.hypot(u, v) - np.float32(CUP_PAD_PX))


def _on_image(frame: Frame, paths: tuple[tuple[np.ndarray, np.ndarray], ...], reach_px: float) -> Stroke | None:
    if not paths:
        return None
    turned = [(frame.pixel_of(points), half * frame.scale) for points, half in paths]
    drawn = stroke(turned, reach_px, frame.lens)
    return None if is_empty(drawn.window) else drawn


def _crack_mark(
    frame: Frame,
    crack: Crack,
    rng: np.random.Generator,
    scene: Scene,
    kind: Kind,
    strength: float,
    plate: Callable[[Scene, Window], Float32[np.ndarray, "h w"]],
) -> Mark | None:
    spec = scene.world.cracks
    strong, scatter = uniform(rng, spec.strength) * strength, uniform(rng, spec.scatter)
    moved = uniform(rng, spec.shift_px) * strength
    lip_side, direction = (1.0 if rng.random() < 0.5 else -1.0), rng.uniform(0, 2 * math.pi)
    thinned = tuple((_every_second(points), _every_second(half)) for points, half in crack.paths)
    line = _on_image(frame, thinned, SHIFT_REACH_PX)
    if line is None:
        return None
    on = plate(scene, line.window)
    cover = line.cover * on
    beyond = np.float32(lip_side) * line.side_px - line.half_px
    lip = np.clip(np.minimum(beyond + 0.5, LIP_PX + 0.5 - beyond), 0, 1) * on
    near = np.clip(1.0 - line.away_px / np.float32(SHIFT_REACH_PX), 0, 1) * (line.side_px > 0)
    shift = None
    if kind == "crack" and moved > 0:
        shift = (np.float32(moved * math.cos(direction)) * near, np.float32(moved * math.sin(direction)) * near)
    return Mark(
        kind,
        kind != "crack",
        line.window,
        (line.away_px <= np.maximum(line.half_px, 0.5)) & (on > 0.5),
        np.float32(0.82 * strong) * cover,
        np.float32(0.10 * strong) * lip * (1.0 - line.along),
        np.float32(strong) * (np.float32(scatter) * cover + np.float32(0.10) * lip),
        crack.length_px * frame.scale,
        2.0 * float(line.half_px.max()),
        shift,
    )


def _every_second(values: np.ndarray) -> np.ndarray:
    return values if len(values) < 6 else np.concatenate([values[:-1:2], values[-1:]])


def _chip_mark(scene: Scene, chip: Chip, rng: np.random.Generator, strength: float) -> Mark | None:
    strong = uniform(rng, scene.world.cracks.strength)
    reach = 1.5 * chip.radius_px + 3
    window = scene.die.window(
        chip.centre[0] - reach, chip.centre[1] - reach, chip.centre[0] + reach, chip.centre[1] + reach
    )
    if is_empty(window):
        return None
    u, v = scene.die.coordinates(window)
    du, dv = u - np.float32(chip.centre[0]), v - np.float32(chip.centre[1])
    away, around = np.hypot(du, dv), np.arctan2(dv, du)
    waves = sum(np.float32(a) * np.cos(k * around + np.float32(p)) for k, a, p in chip.waves)
    outline = np.float32(chip.radius_px) * (1.0 + waves)
    on = _die_cover(scene, window)
    inside = (outline - away) * np.float32(scene.die.scale)
    cover = ramp(inside) * on
    ripple = np.cos(away * np.float32(2 * math.pi / chip.ripple_px) + np.float32(chip.phase))
    rim = np.exp(-np.square((inside - 0.5) / np.float32(1.3))) * on
    # what broke away took the texture with it: the facet is bare silicon that slants
    facet = np.float32(BARE) * (1.0 - np.float32(strong) * np.clip(0.68 + 0.20 * ripple, 0, 0.95))
    return Mark(
        "chip",
        False,
        window,
        (inside >= 0) & (on > 0.5),
        np.float32(strength) * cover,
        np.float32(strength) * facet * cover,
        np.float32(strong * strength) * (np.float32(0.05) * cover * (1.0 + 0.5 * ripple) + np.float32(0.20) * rim),
        2.0 * chip.radius_px * scene.die.scale,
        chip.radius_px * scene.die.scale,
    )


def _scratch_mark(scene: Scene, scratch: Scratch, rng: np.random.Generator, strength: float) -> Mark | None:
    strong = uniform(rng, scene.world.cracks.strength) * strength
    parts = [
        (line, gaps)
        for path, gaps in zip(scratch.paths, scratch.gaps, strict=True)
        if (line := _on_image(scene.die, (path,), LIP_PX + 1)) is not None
    ]
    if not parts:
        return None
    y0, y1 = min(one.window[0].start for one, _ in parts), max(one.window[0].stop for one, _ in parts)
    x0, x1 = min(one.window[1].start for one, _ in parts), max(one.window[1].stop for one, _ in parts)
    dark, light, glow = (np.zeros((y1 - y0, x1 - x0), np.float32) for _ in range(3))
    mask = np.zeros((y1 - y0, x1 - x0), bool)
    widest = 0.0
    for line, gaps in parts:
        at = (
            slice(line.window[0].start - y0, line.window[0].stop - y0),
            slice(line.window[1].start - x0, line.window[1].stop - x0),
        )
        on = _die_cover(scene, line.window)
        there = np.interp(line.along, np.linspace(0, 1, len(gaps)), gaps).astype(np.float32) * on
        cover = line.cover * there
        flank = np.clip(np.minimum(line.side_px - line.half_px + 0.5, LIP_PX + 0.5 - line.side_px + line.half_px), 0, 1)
        dark[at] = np.maximum(dark[at], np.float32(0.55 * strong) * cover)
        light[at] = np.maximum(light[at], np.float32(0.06 * strong) * flank * there)
        glow[at] = np.maximum(glow[at], np.float32(0.16 * strong) * cover)
        mask[at] |= (line.away_px <= np.maximum(line.half_px, 0.5)) & (there > 0.5)
        widest = max(widest, 2.0 * float(line.half_px.max()))
    return Mark(
        "scratch",
        False,
        (slice(y0, y1), slice(x0, x1)),
        mask,
        dark,
        light,
        glow,
        scratch.length_px * scene.die.scale,
        widest,
    )


def _grain(scene: Scene, rng: np.random.Generator, at: np.ndarray) -> Mark | None:
    radius = float(np.clip(3.2 * math.exp(0.4 * rng.standard_normal()), 1.5, 12.0)) * scene.ic.scale
    waves, dark, glow = rng.uniform(0, 2 * math.pi, 3), rng.uniform(0.5, 0.9), rng.uniform(0.15, 0.5)
    window = scene.ic.window(at[0] - 20, at[1] - 20, at[0] + 20, at[1] + 20)
    if is_empty(window):
        return None
    u, v = scene.ic.coordinates(window)
    du, dv = u - np.float32(at[0]), v - np.float32(at[1])
    around = np.arctan2(dv, du)
    outline = np.float32(radius) * (
        1.0 + 0.30 * np.cos(2 * around + np.float32(waves[0])) + 0.18 * np.cos(3 * around + np.float32(waves[1]))
    )
    inside = (outline - np.hypot(du, dv)) * np.float32(scene.ic.scale)
    return _dirt("dust", window, ramp(inside / 1.5), inside >= 0, dark, glow, 2 * radius, 2 * radius)


def _fibre(scene: Scene, rng: np.random.Generator, at: np.ndarray) -> Mark | None:
    long, width, heading = rng.uniform(60, 260), rng.uniform(0.8, 1.7), rng.uniform(0, 2 * math.pi)
    count = int(long / 3)
    bend = np.cumsum(rng.normal(0, 0.05, count) + rng.normal(0, 0.02))
    points = at + np.cumsum(3.0 * np.stack([np.cos(heading + bend), np.sin(heading + bend)], axis=1), axis=0)
    dark, glow = rng.uniform(0.3, 0.65), rng.uniform(0.12, 0.35)
    line = _on_image(scene.ic, ((points, np.full(count, width)),), 1.0)
    if line is None:
        return None
    mask = line.away_px <= line.half_px
    return _dirt("fibre", line.window, line.cover, mask, dark, glow, long * scene.ic.scale, 2 * width * scene.ic.scale)


def _dirt(
    kind: Kind,
    window: Window,
    cover: Float32[np.ndarray, "h w"],
    mask: Bool[np.ndarray, "h w"],
    dark: float,
    glow: float,
    length: float,
    width: float,
) -> Mark:
    """Dirt takes light, and is a little light itself where the surface below is dark."""
    cover = np.minimum(cover, 1.0)
    return Mark(
        kind,
        True,
        window,
        mask,
        np.float32(dark) * cover,
        np.float32(0.03 * (1.0 - dark)) * cover,
        np.float32(glow) * cover,
        length,
        width,
    )
