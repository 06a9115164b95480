"""A scene on a grid: heights and reflectances of every pixel, each a mean over the pixel's area.

Edges are axis-parallel, so the part of a pixel that a rectangle covers is the product of two lengths: exact at any
grid. Gratings are drawn with the contrast that is left of them after a pixel's area has averaged them. What is round or
steep is drawn finer and averaged: light is a mean over a pixel, and the light of a mean slope is another one.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32, Float64

from waferlens.ops.area import area_mean
from waferlens.recipe.wafer_world import WaferWorld
from waferlens.simulate.streams import Stream, stream
from waferlens.simulate.wafer.canvas import Raster, blend, coverage
from waferlens.simulate.wafer.design import (
    SEAL_RING_UM,
    SEAL_WIDTH_UM,
    Block,
    Design,
)
from waferlens.simulate.wafer.discs import draw_bumps, draw_particle
from waferlens.simulate.wafer.optics import brightfield
from waferlens.simulate.wafer.scene import Scene, SceneDie

RIM_DARKNESS = 0.85
"""How much a falling wall takes of the light."""
FILLET_REFLECTANCE = 0.08
PARTICLE_REFLECTANCE = 0.03
CARRIER_CELL_UM = 180.0
"""Size of the waves of a carrier's surface [um]"""
BRIGHTEST = 0.9
"""No floor plan is brighter, its textures included."""
LEAST_SHARE = 1e-3
"""A surface that covers less of a pixel is not seen in it."""


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
    made = Raster(height, height.copy(), height.copy(), np.ones_like(height), reflectance, reflectance.copy())
    na = world.microscope.na
    dies = [die for die in scene.dies if die.present]
    if design.fillet_um:
        for die in dies:
            _draw_fillet(made, design, die, pitch, na)
    for die in dies:
        _draw_die(made, design, die, world.surface.logic_cell_um, pitch, na)
    for at_x, at_y, diameter in scene.particles:
        draw_particle(made, at_x, at_y, diameter, 0.5 * diameter, PARTICLE_REFLECTANCE, pitch)
    return made


def _draw_die(made: Raster, design: Design, die: SceneDie, cell_um: float, pitch: float, na: float) -> None:
    for inset, top, blocks in zip(design.insets_um, die.tops_um, design.blocks, strict=True):
        box = (die.x0 + inset, die.y0 + inset, die.x1 - inset, die.y1 - inset)
        _draw_level(made, design, die, box, top, blocks, cell_um, pitch)
    if design.bumps is not None:
        inset = design.insets_um[-1]
        draw_bumps(made, design.bumps, die.x0 + inset, die.y0 + inset, design.edge_reflectance, pitch, na)


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
        share = _chip(die.chip, x, y, y0, y1, pitch) * share_x
    cx, cy = die.centre
    u, v = (x - cx) / (0.5 * (die.x1 - die.x0)), (y - cy) / (0.5 * (die.y1 - die.y0))
    plane = top + die.tilt[0] * (x - cx)[np.newaxis] + die.tilt[1] * (y - cy)[:, np.newaxis]
    plane = plane - 0.5 * die.warp_um * (u[np.newaxis] ** 2 + v[:, np.newaxis] ** 2)
    grey = _floor(design, blocks, x - x0, y - y0, cell_um, pitch)
    for distance in SEAL_RING_UM:
        ring = _ring(x0 + distance, y0 + distance, x1 - distance, y1 - distance, SEAL_WIDTH_UM, window, pitch)
        blend(grey, np.float32(design.edge_reflectance), ring)
    # the rim is a part of what the level covers: on a pixel of the edge it may be all of it
    rim = np.minimum(_ring(x0, y0, x1, y1, design.rim_um, window, pitch), share)
    grey *= 1 - np.float32(RIM_DARKNESS) * rim / np.maximum(share, 1e-6)
    _cover(made, window, plane.astype(np.float32), grey, share)


def _floor(
    design: Design, blocks: tuple[Block, ...], x: np.ndarray, y: np.ndarray, cell_um: float, pitch: float
) -> Float32[np.ndarray, "h w"]:
    """The floor plan over a window, in the frame of the level."""
    grey = np.zeros((len(y), len(x)), np.float32)
    for block in blocks:
        columns, x_edges = _cut(x, block.x0, block.x1, pitch)
        rows, y_edges = _cut(y, block.y0, block.y1, pitch)
        if columns.stop <= columns.start or rows.stop <= rows.start:
            continue
        window = (rows, columns)
        match block.texture:
            case "grating-x":
                wave: np.ndarray | float = _grating(x_edges, block)[np.newaxis]
            case "grating-y":
                wave = _grating(y_edges, block)[:, np.newaxis]
            case "memory":
                wave = _grating(x_edges, block)[np.newaxis] * _grating(y_edges, block)[:, np.newaxis]
            case "logic":
                wave = 0.6 * _logic(design.logic, x_edges, y_edges, cell_um)
            case _:
                wave = 0.0
        # the strongest wave is 1.2, of logic
        contrast = np.float32(min(block.contrast, (BRIGHTEST / block.reflectance - 1) / 1.2))
        painted = np.float32(block.reflectance) * (1 + contrast * np.asarray(wave, np.float32))
        grey[window] += painted * (np.diff(y_edges)[:, np.newaxis] * np.diff(x_edges) / pitch**2).astype(np.float32)
    # a pixel of the outer edge is only in part the level's: its colour is the mean over that part
    width, height = max(block.x1 for block in blocks), max(block.y1 for block in blocks)
    whole_x, whole_y = _share(x, 0.0, width, pitch), _share(y, 0.0, height, pitch)
    grey /= np.maximum(whole_y, 1e-6)[:, np.newaxis]
    grey /= np.maximum(whole_x, 1e-6)
    return grey


def _cut(x: np.ndarray, low: float, high: float, pitch: float) -> tuple[slice, Float64[np.ndarray, " m"]]:
    """Which pixels an interval covers, and the edges of their parts within it."""
    first = int(np.searchsorted(x, low - 0.5 * pitch, side="right"))
    last = int(np.searchsorted(x, high + 0.5 * pitch))
    if last <= first:
        return slice(first, first), np.empty(0)
    edges = np.append(x[first:last] - 0.5 * pitch, x[last - 1] + 0.5 * pitch)
    edges[0], edges[-1] = max(edges[0], low), min(edges[-1], high)
    return slice(first, last), edges


def _grating(edges: Float64[np.ndarray, " m"], block: Block) -> Float32[np.ndarray, " n"]:
    """A cosine averaged over parts of pixels; one that a pixel cannot hold averages away."""
    middle, length = 0.5 * (edges[1:] + edges[:-1]), np.diff(edges)
    left = np.sinc(length / block.pitch_um)
    return (left * np.cos(2 * np.pi * middle / block.pitch_um + block.phase)).astype(np.float32)


def _logic(
    tile: np.ndarray, x_edges: Float64[np.ndarray, " m"], y_edges: Float64[np.ndarray, " n"], cell_um: float
) -> Float32[np.ndarray, "h w"]:
    """Random cells of a fixed size, averaged over parts of pixels: the same cells on any grid."""
    first_x, first_y = math.floor(x_edges[0] / cell_um), math.floor(y_edges[0] / cell_um)
    last_x, last_y = math.ceil(x_edges[-1] / cell_um), math.ceil(y_edges[-1] / cell_um)
    rows, columns = np.arange(first_y, last_y + 1) % len(tile), np.arange(first_x, last_x + 1) % tile.shape[1]
    return area_mean(tile[rows][:, columns], y_edges / cell_um - first_y, x_edges / cell_um - first_x)


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


def _cover(
    made: Raster,
    window: tuple[slice, slice],
    top: Float32[np.ndarray, "h w"],
    grey: Float32[np.ndarray, "h w"],
    share: Float32[np.ndarray, "h w"],
) -> None:
    """Lays a surface over what is there; of the pixels on its edge, what is there is kept beside it."""
    whole, edge = share > 1 - LEAST_SHARE, (share > LEAST_SHARE) & (share <= 1 - LEAST_SHARE)
    beside = made.surface_um[window] if edge.any() else top
    np.copyto(made.under_um[window], beside, where=edge)
    np.copyto(made.under_reflectance[window], made.reflectance[window], where=edge)
    np.copyto(made.over_um[window], top, where=whole | edge)
    np.copyto(made.share[window], np.where(edge, share, np.float32(1)), where=whole | edge)
    blend(made.height_um[window], top, share)
    blend(made.reflectance[window], grey, share)


def _chip(
    chip: tuple[float, float, float], x: np.ndarray, y: np.ndarray, y0: float, y1: float, pitch: float
) -> Float32[np.ndarray, "h w"]:
    """Share of each row of pixels that a level covers, less what a chip at its upper edge took."""
    at, half, depth = chip
    part = (np.arange(4) + 0.5) / 4 - 0.5
    gone = depth * np.sqrt(np.clip(1 - ((x[:, np.newaxis] + pitch * part - at) / half) ** 2, 0, 1))
    share = np.repeat(_share(y, y0, y1, pitch)[:, np.newaxis], len(x), axis=1)
    rows = y - 0.5 * pitch < y0 + depth
    low, high = y[rows, np.newaxis, np.newaxis] - 0.5 * pitch, y[rows, np.newaxis, np.newaxis] + 0.5 * pitch
    covered = np.clip(np.minimum(high, y1) - np.maximum(low, y0 + gone), 0, None) / pitch
    share[rows] = covered.mean(axis=2)
    return share


def _draw_fillet(made: Raster, design: Design, die: SceneDie, pitch: float, na: float) -> None:
    """Underfill that slopes from half of the first level's height down to the carrier."""
    rows, columns = made.height_um.shape
    wide = design.fillet_um
    first_x, share_x = coverage(die.x0 - wide, die.x1 + wide, pitch, columns)
    first_y, share_y = coverage(die.y0 - wide, die.y1 + wide, pitch, rows)
    window = (slice(first_y, first_y + len(share_y)), slice(first_x, first_x + len(share_x)))
    x = (np.arange(first_x, first_x + len(share_x)) + 0.5) * pitch
    y = (np.arange(first_y, first_y + len(share_y)) + 0.5) * pitch
    away_x = np.maximum(np.maximum(die.x0 - x, x - die.x1), 0)
    away_y = np.maximum(np.maximum(die.y0 - y, y - die.y1), 0)
    away = np.hypot(away_x[np.newaxis], away_y[:, np.newaxis])
    share = np.clip((wide - away) / pitch + 0.5, 0, 1).astype(np.float32)
    left = np.clip(1 - away / wide, 0, 1)
    rise = (0.5 * die.tops_um[0] * left**2).astype(np.float32)
    # where two meet, the higher one is seen
    seen = rise > made.over_um[window]
    for height in (made.height_um[window], made.over_um[window]):
        np.maximum(height, rise, out=height)
    light = FILLET_REFLECTANCE * brightfield(die.tops_um[0] * left / wide, na)
    blend(made.reflectance[window], light, share * seen)


def _waves(cells: np.ndarray, x: np.ndarray, y: np.ndarray) -> Float32[np.ndarray, "h w"]:
    """A smooth random surface: cells with cosine weights between them, the same on any grid, periodic over the tile.

    Its mean square over all places between cells is 1.
    """
    side = len(cells)

    def cut(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        place = np.floor(at).astype(int)
        return place, (0.5 - 0.5 * np.cos(np.pi * (at - place))).astype(np.float32)

    (column, wx), (row, wy) = cut(x), cut(y)
    along = cells[:, column % side] * (1 - wx) + cells[:, (column + 1) % side] * wx
    made = along[row % side] * (1 - wy)[:, np.newaxis] + along[(row + 1) % side] * wy[:, np.newaxis]
    return made * np.float32(1 / 0.75)  # between two cells the square of what is left of both is 0.75 on average
