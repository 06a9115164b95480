"""What is round on a wafer: pillars, solder domes with their pads, and particles, each averaged over its pixels."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32

from waferlens.simulate.wafer.canvas import Raster, blend, coverage
from waferlens.simulate.wafer.design import PAD_UM, Bumps
from waferlens.simulate.wafer.optics import brightfield

FLANK_UM = 3.0
"""Width of the wall of a pillar, which sends no light back [um]"""
PHASES = 16
"""Parts of a pixel by which bumps may lie; also the fineness of what is averaged."""


def draw_bumps(
    made: Raster, bumps: Bumps, x0: float, y0: float, pad_reflectance: float, pitch: float, na: float
) -> None:
    rows, columns = made.height_um.shape
    reach = 0.5 * max(bumps.diameter_um, PAD_UM if bumps.pads else 0.0) + 2 * pitch
    x, y = bumps.x_um + x0, bumps.y_um + y0
    near = (x > -reach) & (y > -reach) & (x < columns * pitch + reach) & (y < rows * pitch + reach)
    if not near.any():
        return
    if bumps.pads:
        for at_x, at_y in zip(x[near], y[near], strict=True):
            half = 0.5 * PAD_UM
            first_x, share_x = coverage(at_x - half, at_x + half, pitch, columns)
            first_y, share_y = coverage(at_y - half, at_y + half, pitch, rows)
            window = (slice(first_y, first_y + len(share_y)), slice(first_x, first_x + len(share_x)))
            blend(made.reflectance[window], np.float32(pad_reflectance), share_y[:, np.newaxis] * share_x)
    _draw_discs(made, x[near], y[near], bumps.height_um[near], bumps, pitch, na)


def _draw_discs(
    made: Raster, x: np.ndarray, y: np.ndarray, height: np.ndarray, bumps: Bumps, pitch: float, na: float
) -> None:
    """All bumps of an array at once: each is one of `PHASES` squared pictures of the same bump, laid where it is."""
    rows, columns = made.height_um.shape
    cover, rise, light = _bump(bumps, pitch, na)
    side = cover.shape[-1]
    column, phase_x = np.divmod(np.floor(x * (PHASES / pitch)).astype(int), PHASES)
    row, phase_y = np.divmod(np.floor(y * (PHASES / pitch)).astype(int), PHASES)
    offset = np.arange(side) - side // 2
    at_x, at_y = column[:, np.newaxis] + offset, row[:, np.newaxis] + offset
    kind = phase_y * PHASES + phase_x
    there = cover[kind] > 0
    there &= ((at_x >= 0) & (at_x < columns))[:, np.newaxis, :] & ((at_y >= 0) & (at_y < rows))[:, :, np.newaxis]
    if not there.any():
        return
    which, down, right = np.nonzero(there)
    at_row, at_column = at_y[which, down], at_x[which, right]
    window = (slice(at_row.min(), at_row.max() + 1), slice(at_column.min(), at_column.max() + 1))
    shape = (window[0].stop - window[0].start, window[1].stop - window[1].start)
    place = (at_row - window[0].start) * shape[1] + at_column - window[1].start

    def laid(values: np.ndarray) -> Float32[np.ndarray, "h w"]:
        # two bumps may share a pixel
        return np.bincount(place, values, shape[0] * shape[1]).reshape(shape).astype(np.float32)

    taken = (kind[which], down, right)
    covered, risen = laid(cover[taken]), laid(rise[taken] * height[which])
    reflected = np.float32(bumps.reflectance) * laid(light[taken])
    made.height_um[window] += risen
    surface = made.over_um[window]
    np.add(surface, risen / np.maximum(covered, 1e-6), out=surface, where=covered >= 0.5)
    dark = made.reflectance[window]
    dark *= 1 - np.minimum(covered, 1)
    dark += reflected


def _bump(
    bumps: Bumps, pitch: float, na: float
) -> tuple[Float32[np.ndarray, "p s s"], Float32[np.ndarray, "p s s"], Float32[np.ndarray, "p s s"]]:
    """A bump of height 1 at every place within a pixel, averaged over pixels: cover, rise, light that comes back."""
    radius = 0.5 * bumps.diameter_um
    fine = pitch / PHASES
    reach = math.ceil(radius / pitch) + 1
    side = 2 * reach + 1
    # the bump's centre is in the middle of part `PHASES * (reach + 1)`
    away = (np.arange(PHASES * (side + 1)) - PHASES * (reach + 1)) * fine
    distance = np.hypot(away[:, np.newaxis], away)
    cover = np.clip((radius - distance) / fine + 0.5, 0, 1)
    if bumps.dome:
        inside = np.clip(distance / radius, 0, 0.999)
        root = np.sqrt(1 - inside**2)
        rise = cover * root
        light = cover * brightfield(float(np.mean(bumps.height_um)) / radius * inside / root, na)
    else:
        rise = cover
        light = np.clip((radius - FLANK_UM - distance) / fine + 0.5, 0, 1)

    def averaged(image: np.ndarray) -> Float32[np.ndarray, "p s s"]:
        sums = np.pad(image.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
        n = PHASES
        boxes = (sums[n:, n:] - sums[:-n, n:] - sums[n:, :-n] + sums[:-n, :-n]) / n**2
        starts = PHASES - np.arange(PHASES)
        take = starts[:, np.newaxis] + PHASES * np.arange(side)
        pictures = boxes[take[:, np.newaxis, :, np.newaxis], take[np.newaxis, :, np.newaxis, :]]
        return np.maximum(pictures, 0.0).reshape(PHASES**2, side, side).astype(np.float32)

    return averaged(cover), averaged(rise), averaged(light)


def draw_particle(
    made: Raster, x: float, y: float, diameter: float, rise: float, reflectance: float, pitch: float
) -> None:
    """A particle: a dome that is dark."""
    rows, columns = made.height_um.shape
    radius = 0.5 * diameter
    first_x, last_x = (int(np.clip(edge, 0, columns)) for edge in ((x - radius) // pitch, (x + radius) // pitch + 2))
    first_y, last_y = (int(np.clip(edge, 0, rows)) for edge in ((y - radius) // pitch, (y + radius) // pitch + 2))
    window = (slice(first_y, last_y), slice(first_x, last_x))
    fine = pitch / PHASES
    dx = (np.arange(first_x * PHASES, last_x * PHASES) + 0.5) * fine - x
    dy = (np.arange(first_y * PHASES, last_y * PHASES) + 0.5) * fine - y
    distance = np.hypot(dx[np.newaxis], dy[:, np.newaxis])
    parts = (last_y - first_y, PHASES, last_x - first_x, PHASES)
    share = np.clip((radius - distance) / fine + 0.5, 0, 1)
    risen = rise * share * np.sqrt(np.clip(1 - (distance / radius) ** 2, 0, 1))
    share, risen = (fine.reshape(parts).mean(axis=(1, 3)).astype(np.float32) for fine in (share, risen))
    made.height_um[window] += risen
    surface = made.over_um[window]
    np.add(surface, risen / np.maximum(share, 1e-6), out=surface, where=share >= 0.5)
    blend(made.reflectance[window], np.float32(reflectance), share)
    blend(made.under_reflectance[window], np.float32(reflectance), share)
