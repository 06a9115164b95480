"""A scene on a grid: heights, reflectances and slopes of every pixel, each a mean over the pixel's area.

Edges are axis-parallel, so the part of a pixel that a rectangle covers is the product of two lengths: exact at any
grid. Gratings are drawn with the contrast that is left of them after a pixel's area has averaged them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from waferlens.ops.area import area_mean
from waferlens.recipe.wafer_world import WaferWorld
from waferlens.simulate.streams import Stream, stream
from waferlens.simulate.wafer.design import (
    PAD_UM,
    SEAL_RING_UM,
    SEAL_WIDTH_UM,
    Block,
    Bumps,
    Design,
)
from waferlens.simulate.wafer.scene import Scene, SceneDie

RIM_DARKNESS = 0.85
"""How much a falling wall takes of the light."""
FILLET_REFLECTANCE = 0.08
PARTICLE_REFLECTANCE = 0.03
CARRIER_CELL_UM = 180.0
"""Size of the waves of a carrier's surface [um]"""


@dataclass(frozen=True, slots=True, eq=False)
class Raster:
    """A scene on a grid."""

    height_um: Float32[np.ndarray, "h w"]
    """Above the carrier's plane, mean over the pixel: the truth [um]"""
    surface_um: Float32[np.ndarray, "h w"]
    """Above the carrier's plane, of what covers most of the pixel: what optics and sensor see [um]

    A pixel on an edge holds two surfaces and none between them; at the mean of both it would have a blur of its own.
    """
    reflectance: Float32[np.ndarray, "h w"]
    """0..1; walls are dark rims in it."""
    tan_slope: Float32[np.ndarray, "h w"]
    """Analytic slope of bumps; 0 elsewhere."""


def rasterize(world: WaferWorld, scene: Scene, root: int, field: int, rows: int, columns: int) -> Raster:
    """Draws a scene.

    Args:
        world: The domain.
        scene: The scene.
        root: Seed of the data set.
        field: Which field of its wafer; names the draws of textures.
        rows: Of the grid.
        columns: Of the grid.
    """
    pitch = scene.width_um / columns
    design = scene.design
    x = (np.arange(columns) + 0.5) * pitch
    y = (np.arange(rows) + 0.5) * pitch
    material = stream(root, world.name, Stream.MATERIAL, design.number, field + 1)
    waves = material.standard_normal((64, 64)).astype(np.float32)
    rough = world.carriers.tape_texture_um if design.carrier == "tape" else world.carriers.hard_texture_um
    height = scene.carrier_um(x[np.newaxis, :], y[:, np.newaxis]).astype(np.float32)
    height += np.float32(rough) * _waves(waves, x / CARRIER_CELL_UM, y / CARRIER_CELL_UM)
    reflectance = np.full((rows, columns), design.carrier_reflectance, np.float32)
    if design.carrier in ("tape", "metal"):  # tape and ground metal are not even in brightness
        reflectance *= 1 + np.float32(0.06) * _waves(waves.T, x / 70.0, y / 70.0)
    slope = np.zeros((rows, columns), np.float32)
    made = Raster(height, height.copy(), reflectance, slope)
    for die in scene.dies:
        if die.present:
            _draw_die(made, design, die, world.surface.logic_cell_um, pitch)
    for at_x, at_y, diameter in scene.particles:
        _draw_disc(made, at_x, at_y, diameter, 0.5 * diameter, PARTICLE_REFLECTANCE, pitch)
    return made


def coverage(low: float, high: float, pitch: float, count: int) -> tuple[int, Float32[np.ndarray, " n"]]:
    """Which pixels an interval covers, and how much of each: the first pixel, and the shares from there on."""
    first = int(np.clip(math.floor(low / pitch), 0, count))
    last = int(np.clip(math.ceil(high / pitch), 0, count))
    edges = np.arange(first, last + 1) * pitch
    length = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
    return first, (np.maximum(length, 0.0) / pitch).astype(np.float32)


def _draw_die(made: Raster, design: Design, die: SceneDie, cell_um: float, pitch: float) -> None:
    if design.fillet_um:
        _draw_fillet(made, design, die, pitch)
    for inset, top, blocks in zip(design.insets_um, die.tops_um, design.blocks, strict=True):
        box = (die.x0 + inset, die.y0 + inset, die.x1 - inset, die.y1 - inset)
        _draw_level(made, design, die, box, top, blocks, cell_um, pitch)
    if design.bumps is not None:
        inset = design.insets_um[-1]
        _draw_bumps(made, design.bumps, die.x0 + inset, die.y0 + inset, die.tops_um[-1], design.edge_reflectance, pitch)


def _draw_level(
    made: Raster,
    design: Design,
    die: SceneDie,
    box: tuple[float, float, float, float],
    top: float,
    blocks: tuple[Block, ...],
    cell_um: float,
    pitch: float,
) -> None:
    """One level of a die: its height, its floor plan, its seal rings, and the dark rim where its wall falls off."""
    rows, columns = made.height_um.shape
    x0, y0, x1, y1 = box
    first_x, share_x = coverage(x0, x1, pitch, columns)
    first_y, share_y = coverage(y0, y1, pitch, rows)
    if not len(share_x) or not len(share_y):
        return
    window = (slice(first_y, first_y + len(share_y)), slice(first_x, first_x + len(share_x)))
    share = share_y[:, np.newaxis] * share_x
    x = (np.arange(first_x, first_x + len(share_x)) + 0.5) * pitch
    y = (np.arange(first_y, first_y + len(share_y)) + 0.5) * pitch
    if die.chip is not None:
        share = share * _chip(die.chip, x, y, y0)
    cx, cy = die.centre
    u, v = (x - cx) / (0.5 * (die.x1 - die.x0)), (y - cy) / (0.5 * (die.y1 - die.y0))
    plane = top + die.tilt[0] * (x - cx)[np.newaxis] + die.tilt[1] * (y - cy)[:, np.newaxis]
    plane = plane - 0.5 * die.warp_um * (u[np.newaxis] ** 2 + v[:, np.newaxis] ** 2)
    _cover(made, window, plane.astype(np.float32), share)
    grey = _floor(design, blocks, x - x0, y - y0, cell_um, pitch)
    for distance in SEAL_RING_UM:
        ring = _ring(x0 + distance, y0 + distance, x1 - distance, y1 - distance, SEAL_WIDTH_UM, window, pitch)
        _blend(grey, np.float32(design.edge_reflectance), ring)
    rim = _ring(x0, y0, x1, y1, design.rim_um, window, pitch)
    _blend(made.reflectance[window], grey, share)
    # the rim is a part of what the level covers: on a pixel of the edge it may be all of it
    made.reflectance[window] -= np.float32(RIM_DARKNESS) * np.minimum(rim, share).astype(np.float32) * grey


def _floor(
    design: Design, blocks: tuple[Block, ...], x: np.ndarray, y: np.ndarray, cell_um: float, pitch: float
) -> Float32[np.ndarray, "h w"]:
    """The floor plan over a window, in the frame of the level."""
    grey = np.full((len(y), len(x)), blocks[0].reflectance, np.float32)
    logic: np.ndarray | None = None
    for block in blocks:
        first_x = int(np.searchsorted(x, block.x0 - 0.5 * pitch))
        last_x = int(np.searchsorted(x, block.x1 + 0.5 * pitch))
        first_y = int(np.searchsorted(y, block.y0 - 0.5 * pitch))
        last_y = int(np.searchsorted(y, block.y1 + 0.5 * pitch))
        if last_x <= first_x or last_y <= first_y:
            continue
        window = (slice(first_y, last_y), slice(first_x, last_x))
        inside_x = _share(x[first_x:last_x], block.x0, block.x1, pitch)
        inside_y = _share(y[first_y:last_y], block.y0, block.y1, pitch)
        along, across = x[first_x:last_x], y[first_y:last_y]
        match block.texture:
            case "grating-x":
                wave: np.ndarray | float = _grating(along, block, pitch)[np.newaxis]
            case "grating-y":
                wave = _grating(across, block, pitch)[:, np.newaxis]
            case "memory":
                wave = _grating(along, block, pitch)[np.newaxis] * _grating(across, block, pitch)[:, np.newaxis]
            case "logic":
                if logic is None:
                    logic = _logic(design.logic, x, y, cell_um, pitch)
                wave = 0.6 * logic[window]
            case _:
                wave = 0.0
        painted = np.float32(block.reflectance) * (1 + np.float32(block.contrast) * np.asarray(wave, np.float32))
        _blend(grey[window], painted, inside_y[:, np.newaxis] * inside_x)
    return np.clip(grey, 0.0, 0.9)


def _grating(x: np.ndarray, block: Block, pitch: float) -> Float32[np.ndarray, " n"]:
    """A cosine averaged over pixels; one that a pixel cannot hold averages away."""
    left = np.sinc(pitch / block.pitch_um)
    return (left * np.cos(2 * np.pi * x / block.pitch_um + block.phase)).astype(np.float32)


def _logic(tile: np.ndarray, x: np.ndarray, y: np.ndarray, cell_um: float, pitch: float) -> np.ndarray:
    """Random cells of a fixed size, averaged over pixels: the same cells on any grid."""
    first_x, first_y = math.floor((x[0] - pitch) / cell_um), math.floor((y[0] - pitch) / cell_um)
    last_x, last_y = math.ceil((x[-1] + pitch) / cell_um), math.ceil((y[-1] + pitch) / cell_um)
    cells = tile[np.arange(first_y, last_y + 1) % len(tile)][:, np.arange(first_x, last_x + 1) % tile.shape[1]]
    edges_x = np.append(x - 0.5 * pitch, x[-1] + 0.5 * pitch) / cell_um - first_x
    edges_y = np.append(y - 0.5 * pitch, y[-1] + 0.5 * pitch) / cell_um - first_y
    return area_mean(cells, edges_y, edges_x)


def _ring(
    x0: float, y0: float, x1: float, y1: float, width: float, window: tuple[slice, slice], pitch: float
) -> Float32[np.ndarray, "h w"]:
    """Share of each pixel of a window that a frame of a width covers: its rectangle less the one inside."""

    def part(low: float, high: float, span: slice) -> np.ndarray:
        edges = np.arange(span.start, span.stop + 1) * pitch
        return np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None) / pitch

    whole = part(y0, y1, window[0])[:, np.newaxis] * part(x0, x1, window[1])
    inner = part(y0 + width, y1 - width, window[0])[:, np.newaxis] * part(x0 + width, x1 - width, window[1])
    return (whole - inner).astype(np.float32)


def _share(x: np.ndarray, low: float, high: float, pitch: float) -> Float32[np.ndarray, " n"]:
    edges_low, edges_high = x - 0.5 * pitch, x + 0.5 * pitch
    return (np.clip(np.minimum(edges_high, high) - np.maximum(edges_low, low), 0, None) / pitch).astype(np.float32)


def _cover(made: Raster, window: tuple[slice, slice], top: np.ndarray, share: np.ndarray) -> None:
    """Lays a surface over what is there."""
    _blend(made.height_um[window], top, share)
    surface = made.surface_um[window]
    np.copyto(surface, top, where=share >= 0.5)


def _blend(under: np.ndarray, over: np.ndarray | np.float32, share: np.ndarray) -> None:
    under += share * (over - under)


def _chip(chip: tuple[float, float, float], x: np.ndarray, y: np.ndarray, y0: float) -> Float32[np.ndarray, "h w"]:
    """What a chip at the upper edge leaves of the die."""
    at, half, depth = chip
    gone = depth * np.sqrt(np.clip(1 - ((x - at) / half) ** 2, 0, 1))
    return np.clip(
        (y[:, np.newaxis] - y0 - gone[np.newaxis]) / (y[1] - y[0] if len(y) > 1 else 1.0) + 0.5, 0, 1
    ).astype(np.float32)


def _draw_fillet(made: Raster, design: Design, die: SceneDie, pitch: float) -> None:
    """Underfill that slopes from half of the first level's height down to the carrier."""
    rows, columns = made.height_um.shape
    wide = design.fillet_um
    x = (np.arange(columns) + 0.5) * pitch
    y = (np.arange(rows) + 0.5) * pitch
    away_x = np.maximum(np.maximum(die.x0 - x, x - die.x1), 0)
    away_y = np.maximum(np.maximum(die.y0 - y, y - die.y1), 0)
    away = np.hypot(away_x[np.newaxis], away_y[:, np.newaxis])
    near = away < wide
    rise = 0.5 * die.tops_um[0] * (1 - away[near] / wide) ** 2
    for height in (made.height_um, made.surface_um):
        height[near] = np.maximum(height[near], rise.astype(np.float32))
    made.reflectance[near] = FILLET_REFLECTANCE
    made.tan_slope[near] = die.tops_um[0] * (1 - away[near] / wide) / wide


def _draw_bumps(
    made: Raster, bumps: Bumps, x0: float, y0: float, top: float, pad_reflectance: float, pitch: float
) -> None:
    rows, columns = made.height_um.shape
    reach = 0.5 * max(bumps.diameter_um, PAD_UM if bumps.pads else 0.0) + 2 * pitch
    x, y = bumps.x_um + x0, bumps.y_um + y0
    near = (x > -reach) & (y > -reach) & (x < columns * pitch + reach) & (y < rows * pitch + reach)
    if bumps.pads:
        for at_x, at_y in zip(x[near], y[near], strict=True):
            half = 0.5 * PAD_UM
            first_x, share_x = coverage(at_x - half, at_x + half, pitch, columns)
            first_y, share_y = coverage(at_y - half, at_y + half, pitch, rows)
            window = (slice(first_y, first_y + len(share_y)), slice(first_x, first_x + len(share_x)))
            _blend(made.reflectance[window], np.float32(pad_reflectance), share_y[:, np.newaxis] * share_x)
    if near.any():
        _draw_discs(made, x[near], y[near], bumps, pitch)


def _draw_discs(made: Raster, x: np.ndarray, y: np.ndarray, bumps: Bumps, pitch: float) -> None:
    """All bumps of an array at once: the same small window around each."""
    rows, columns = made.height_um.shape
    radius = 0.5 * bumps.diameter_um
    reach = math.ceil(radius / pitch) + 1
    offset = np.arange(-reach, reach + 1)
    column = np.floor(x / pitch).astype(int)[:, np.newaxis] + offset
    row = np.floor(y / pitch).astype(int)[:, np.newaxis] + offset
    dx = ((column + 0.5) * pitch - x[:, np.newaxis])[:, np.newaxis, :]
    dy = ((row + 0.5) * pitch - y[:, np.newaxis])[:, :, np.newaxis]
    distance = np.hypot(dx, dy)
    share = np.clip((radius - distance) / pitch + 0.5, 0, 1)
    inside = np.clip(distance / radius, 0, 0.995)
    if bumps.dome:
        rise = bumps.height_um * np.sqrt(1 - inside**2)
        slope = (bumps.height_um / radius) * inside / np.sqrt(1 - inside**2)
    else:
        rise = np.full_like(distance, bumps.height_um)
        # the wall of a pillar is a ring of 3 um that sends no light back
        slope = np.clip((distance - (radius - 3.0)) / pitch + 0.5, 0, 1)
    there = (share > 0) & (column >= 0)[:, np.newaxis, :] & (column < columns)[:, np.newaxis, :]
    there &= (row >= 0)[:, :, np.newaxis] & (row < rows)[:, :, np.newaxis]
    at = (
        np.broadcast_to(row[:, :, np.newaxis], there.shape)[there],
        np.broadcast_to(column[:, np.newaxis, :], there.shape)[there],
    )
    part = share[there].astype(np.float32)
    risen = rise[there].astype(np.float32)
    made.height_um[at] += part * risen
    made.surface_um[at] += np.where(part >= 0.5, risen, 0)
    made.reflectance[at] += part * (np.float32(bumps.reflectance) - made.reflectance[at])
    made.tan_slope[at] = np.maximum(made.tan_slope[at], (part * slope[there]).astype(np.float32))


def _draw_disc(
    made: Raster, x: float, y: float, diameter: float, rise: float, reflectance: float, pitch: float
) -> None:
    """A particle: a dome that is dark."""
    rows, columns = made.height_um.shape
    radius = 0.5 * diameter
    first_x, last_x = (int(np.clip(edge, 0, columns)) for edge in ((x - radius) // pitch, (x + radius) // pitch + 2))
    first_y, last_y = (int(np.clip(edge, 0, rows)) for edge in ((y - radius) // pitch, (y + radius) // pitch + 2))
    window = (slice(first_y, last_y), slice(first_x, last_x))
    dx = (np.arange(first_x, last_x) + 0.5) * pitch - x
    dy = (np.arange(first_y, last_y) + 0.5) * pitch - y
    distance = np.hypot(dx[np.newaxis], dy[:, np.newaxis])
    share = np.clip((radius - distance) / pitch + 0.5, 0, 1).astype(np.float32)
    # a particle smaller than a pixel covers a part of it only
    share *= np.float32(min(1.0, math.pi * radius**2 / pitch**2))
    dome = np.sqrt(np.clip(1 - (distance / radius) ** 2, 0, 1)).astype(np.float32)
    for height in (made.height_um, made.surface_um):
        height[window] += share * np.float32(rise) * dome
    _blend(made.reflectance[window], np.float32(reflectance), share)


def _waves(cells: np.ndarray, x: np.ndarray, y: np.ndarray) -> Float32[np.ndarray, "h w"]:
    """A smooth random surface: cells with cosine weights between them, the same on any grid, periodic over the tile."""
    side = len(cells)

    def cut(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        place = np.floor(at).astype(int)
        return place, (0.5 - 0.5 * np.cos(np.pi * (at - place))).astype(np.float32)

    (column, wx), (row, wy) = cut(x), cut(y)
    along = cells[:, column % side] * (1 - wx) + cells[:, (column + 1) % side] * wx
    return along[row % side] * (1 - wy)[:, np.newaxis] + along[(row + 1) % side] * wy[:, np.newaxis]
