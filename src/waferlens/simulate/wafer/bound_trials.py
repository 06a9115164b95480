"""Do estimates reach the bounds? Maximum likelihood on simulated patches: how its results scatter, and about what.

Edges are drawn as the simulator draws any field: a scene blurred layer by layer and taken by its camera. Textures are
blurred by its table of the lens. Both are drawn finer than the camera's pixels and averaged, for a camera averages
after the blur; only the fits use the formulas of `height_bound`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import scipy.fft
from jaxtyping import Float64
from scipy.optimize import least_squares

from waferlens.simulate.wafer.camera import FULL_SCALE, WHITE, Camera, acquire
from waferlens.simulate.wafer.height_bound import (
    EDGE_UNKNOWN,
    Edge,
    Texture,
    cell_orders,
    cell_strength,
    edge_profile,
    noise_variance,
)
from waferlens.simulate.wafer.optics import Edges, defocused
from waferlens.simulate.wafer.otf import Lens, transfer

DROP_UM = 300.0
"""From the die down to what lies behind it [um]"""
FINER = 3
"""Places a pixel, on which a texture is blurred."""
GRID_BOUNDS, GRID_STEPS = 6.0, 41
"""How far from the truth a texture's maximum is looked for, in bounds, and at how many places."""
SCORINGS = 15


def edge_estimates_um(
    lens: Lens,
    camera: Camera,
    dz_um: float,
    edge: Edge,
    *,
    length_um: float,
    window_um: float,
    trials: int,
    seed: int,
) -> Float64[np.ndarray, " t"]:
    """Distances from focus fitted to simulated pictures of one edge, all else of `EDGE_UNKNOWN` fitted with it [um]

    Args:
        lens: The objective.
        camera: The camera; its shading and the gain of its rows are left out.
        dz_um: True distance of the die from the plane of focus [um]
        edge: What lies on either side.
        length_um: Of the edge [um]
        window_um: Of the surface to either side [um]
        trials: Pictures.
        seed: Of the noise.
    """
    pitch = lens.pixel_um
    plain = replace(camera, shading=0.0, tdi_row_noise=0.0)
    rows, half = round(length_um / pitch), math.ceil(window_um / pitch)
    margin = math.ceil((lens.reach_um(dz_um) + window_um) / pitch)
    light, over, sides = _edge_scene(edge, margin * FINER, pitch / FINER)
    row = defocused(light, over, -dz_um, pitch / FINER, lens, sides)[4]
    row = row.reshape(-1, FINER).mean(axis=1)
    picture = np.tile(row, (rows, 1))
    rng = np.random.default_rng(seed)
    part = slice(margin - half, margin + half)
    x = pitch * (np.arange(-half, half) + 0.5)
    truth = np.array([dz_um, 0.0, edge.near, edge.far, edge.rim_um, edge.rim_darkness])
    scatter = np.sqrt(noise_variance(lens, camera, edge_profile(lens, camera, dz_um, edge, x, pitch)[0], pitch) / rows)
    size = np.array([max(1.0, 0.05 * dz_um), 0.5, 0.02 * edge.near, 0.02 * edge.near, 0.5, 0.05])

    def model(at: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        one = Edge(at[2], at[3], at[4], at[5])
        return edge_profile(lens, camera, at[0], one, x - at[1], pitch)

    def slopes(at: np.ndarray) -> np.ndarray:
        told = model(at)[1]
        return np.stack([told[name] for name in ("dz", *EDGE_UNKNOWN)], axis=1) / scatter[:, np.newaxis]

    found = []
    for _ in range(trials):
        taken = acquire(picture, plain, pitch, np.random.default_rng(0), rng).astype(np.float64)
        seen = taken[:, part].mean(axis=0) * (camera.full_well_e / FULL_SCALE)
        fit = least_squares(lambda at, seen=seen: (model(at)[0] - seen) / scatter, truth, slopes, method="lm",
                            x_scale=size)  # fmt: skip
        found.append(fit.x[0])
    return np.array(found)


def _edge_scene(edge: Edge, margin: int, pitch: float) -> tuple[np.ndarray, np.ndarray, Edges]:
    """Light and heights of an edge between two pixels, as the simulator rasterises it; the die is at 0."""
    ends = pitch * np.arange(-margin, margin + 1)
    rim = np.clip((np.minimum(ends[1:], edge.rim_um) - np.maximum(ends[:-1], 0.0)) / pitch, 0.0, None)
    on = ends[:-1] >= -1e-9
    light = np.where(on, edge.near * (1.0 - edge.rim_darkness * rim), edge.far)
    height = np.where(on, 0.0, -DROP_UM)

    def spread(line: np.ndarray) -> np.ndarray:
        return np.tile(line.astype(np.float32), (8, 1))

    sides = Edges(spread(np.ones_like(light)), spread(light), spread(height))
    return spread(light), spread(height), sides


def texture_estimates_um(
    lens: Lens,
    camera: Camera,
    dz_um: float,
    texture: Texture,
    *,
    cells: int,
    bound_um: float,
    trials: int,
    seed: int,
) -> Float64[np.ndarray, " t"]:
    """Distances from focus that make simulated patches of a texture most likely, its strength fitted with them [um]

    Args:
        lens: The objective.
        camera: Its noise, smear and glare; the patch is seen alone, so glare only lowers its contrast.
        dz_um: True distance from the plane of focus [um]
        texture: Boxes; its cell is moved to whole pixels.
        cells: Along each side of the patch, which is continued periodically.
        bound_um: Scale over which the maximum is looked for, to either side of the truth [um]
        trials: Patches, each with cells of its own.
        seed: Of cells and noise.
    """
    cell_px = max(1, round(texture.cell_um / lens.pixel_um))
    texture = replace(texture, cell_um=cell_px * lens.pixel_um)
    side = cells * cell_px
    rng = np.random.default_rng(seed)
    places = dz_um + bound_um * np.linspace(-GRID_BOUNDS, GRID_BOUNDS, GRID_STEPS)
    vectors, offset = np.arange(cells) / cells, 0.5 * (cell_px - 1)  # the first cell begins with the first pixel
    signals = [cell_orders(lens, camera, place, texture, lens.pixel_um, vectors, offset)[0] for place in places]
    strength = cell_strength(lens, camera, texture)
    gain = camera.full_well_e / WHITE * texture.reflectance
    spread = math.sqrt(float(noise_variance(lens, camera, gain, lens.pixel_um)))
    found = []
    for _ in range(trials):
        light = gain * (1.0 - camera.glare) * _patch(lens, camera, dz_um, texture, cells, cell_px, rng)
        seen = light + spread * rng.standard_normal(light.shape)
        spectrum = scipy.fft.fft2(seen) / (side * spread)  # white noise of 1
        zones = spectrum.reshape(cell_px, cells, cell_px, cells).transpose(1, 3, 0, 2).reshape(cells, cells, -1)
        found.append(_most_likely(places, signals, zones, strength))
    return np.array(found)


def _patch(
    lens: Lens, camera: Camera, dz_um: float, texture: Texture, cells: int, cell_px: int, rng: np.random.Generator
) -> np.ndarray:
    """Relative brightness of a periodic patch about its mean, one value a pixel."""
    fine = cell_px * FINER
    drawn = texture.rms * rng.standard_normal((cells, cells))
    scene = np.repeat(np.repeat(drawn, fine, axis=0), fine, axis=1)
    step = lens.pixel_um / FINER
    fx = scipy.fft.fftfreq(len(scene), step)
    passed = transfer(lens, dz_um, np.hypot(fx[:, np.newaxis], fx)) * np.sinc(fx * camera.smear_um)
    blurred = scipy.fft.ifft2(scipy.fft.fft2(scene) * passed).real
    side = cells * cell_px
    return blurred.reshape(side, FINER, side, FINER).mean(axis=(1, 3))


def _most_likely(places: np.ndarray, signals: list[np.ndarray], zones: np.ndarray, strength: float) -> float:
    """Where the likelihood of a Gaussian texture is greatest, its strength at each place the most likely one."""
    power = np.stack([(np.abs(one) ** 2).sum(axis=2).ravel() for one in signals])
    matched = np.stack([(np.abs((one.conj() * zones).sum(axis=2)) ** 2).ravel() for one in signals])
    log = np.full(len(places), math.log(strength))
    for _ in range(SCORINGS):  # Fisher's scoring of the logarithm of the strength
        of = np.exp(log)[:, np.newaxis]
        share = of * power / (1.0 + of * power)
        step = ((of * matched / (1.0 + of * power) ** 2) - share).sum(axis=1) / (share**2).sum(axis=1)
        log += np.clip(step, -1.0, 1.0)
    of = np.exp(log)[:, np.newaxis]
    likelihood = (of * matched / (1.0 + of * power) - np.log1p(of * power)).sum(axis=1)
    best = int(np.clip(likelihood.argmax(), 1, len(places) - 2))
    low, middle, high = likelihood[best - 1 : best + 2]
    return float(places[best] + 0.5 * (places[1] - places[0]) * (low - high) / (low - 2.0 * middle + high))
