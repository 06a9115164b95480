"""From height map to secondary-electron signal: yield, escape, charging, bloom, material.

The plateau far from any edge is 1; every effect is a factor that can be switched off. The cell is periodic: the
crop is one hole of an array, so the shadows and the rims of its neighbours are there.

Source: Seiler 1983 and Reimer 1998 (yield), Jonker 1951 (cosine emission).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np
from jaxtyping import Float, Int

from waferlens.recipe.hole_world import HoleWorld
from waferlens.simulate.hole.geometry import gaussian_transfer
from waferlens.simulate.streams import uniform

AZIMUTHS = 12
RADII = (*range(1, 21), 22, 24, 27, 30, 33)


@dataclass(frozen=True, slots=True)
class Material:
    """One draw of what the electrons meet; the names and units of `HoleMaterial`."""

    wall_gain: float
    field_factor: float
    re_emission: float
    attenuation_length: float
    charging: float
    bloom_gain: float
    bloom_width: float
    bloom_saturation: float
    floor_yield: float


def draw_material(world: HoleWorld, rng: np.random.Generator) -> Material:
    """Draws a material; `nuisance` shrinks every range about its middle."""
    spec, share = world.material, world.nuisance
    return Material(
        wall_gain=uniform(rng, spec.wall_gain, share),
        field_factor=uniform(rng, spec.field_factor, share),
        re_emission=uniform(rng, spec.re_emission, share),
        attenuation_length=uniform(rng, spec.attenuation_length, share),
        charging=uniform(rng, spec.charging, share),
        bloom_gain=uniform(rng, spec.bloom_gain, share),
        bloom_width=uniform(rng, spec.bloom_width, share),
        bloom_saturation=spec.bloom_saturation,
        floor_yield=uniform(rng, spec.floor_yield, share),
    )


def _rays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bilinear sampling of the horizon: for each azimuth and radius, the offset of the cell, its weights and 1/r."""
    offsets, weights, inverse = [], [], []
    for k in range(AZIMUTHS):
        # On the axes: there a ray meets whole pixels and finds a sharp rim where it is. Half a step off them, every ray
        # interpolates and sees the rim of a narrow hole up to a pixel late (escape 15 % too large at 12 px).
        angle = 2 * math.pi * k / AZIMUTHS
        for r in RADII:
            # rounded, so that a cosine of 6e-17 does not start the interpolation a cell away
            x, y = round(r * math.cos(angle), 9), round(r * math.sin(angle), 9)
            x0, y0 = math.floor(x), math.floor(y)
            fx, fy = x - x0, y - y0
            offsets.append((y0, x0))
            weights.append(((1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx))
            inverse.append(1.0 / r)
    shape = (AZIMUTHS, len(RADII))
    return (
        np.asarray(offsets, np.int64).reshape(*shape, 2),
        np.asarray(weights, np.float32).reshape(*shape, 4),
        np.asarray(inverse, np.float32).reshape(shape),
    )


_OFFSETS, _WEIGHTS, _INVERSE = _rays()
_MARGIN = max(RADII) + 1


@numba.njit(cache=True, error_model="numpy")
def _escape(padded, margin, height, width, offsets, weights, inverse, slope, gains):  # type: ignore[no-untyped-def]
    azimuths, radii = inverse.shape
    share = np.zeros((height, width), np.float32)
    steep, rise = np.empty(width, np.float32), np.empty(width, np.float32)
    steep_bits, rise_bits = steep.view(np.int32), rise.view(np.int32)
    for k in range(azimuths):
        gain = gains[k] / np.float32(azimuths)
        for y in range(height):
            row = y + margin
            steep[:] = np.float32(0.0)
            here = padded[row, margin : margin + width]
            for i in range(radii):
                dy = offsets[k, i, 0]
                dx = offsets[k, i, 1] + margin
                w0, w1, w2, w3 = weights[k, i, 0], weights[k, i, 1], weights[k, i, 2], weights[k, i, 3]
                near = padded[row + dy, dx : dx + width + 1]
                far = padded[row + dy + 1, dx : dx + width + 1]
                over = inverse[k, i]
                for x in range(width):
                    rise[x] = (w0 * near[x] + w1 * near[x + 1] + w2 * far[x] + w3 * far[x + 1] - here[x]) * over
                # Floats above 0 have the order of their bits, and what is below 0 has the sign bit: compared as whole
                # numbers the same maximum takes a quarter of the time, for compilers vectorise only that.
                for x in range(width):
                    steep_bits[x] = max(steep_bits[x], rise_bits[x])
            for x in range(width):
                tangent = slope * steep[x]
                share[y, x] += gain / (np.float32(1.0) + tangent * tangent)
    return share


def escape_share(
    z_nm: Float[np.ndarray, "h w"],
    field_factor: float,
    pixel_nm: float,
    asymmetry: float = 0.0,
    asymmetry_deg: float = 0.0,
) -> Float[np.ndarray, "h w"]:
    """Share T of the cosine-distributed electrons that see the opening: the mean of cos² of the horizon's elevation.

    Args:
        z_nm: Heights in the periodic cell [nm]
        field_factor: Straightening of the paths by the extraction field; 0 gives T = 1 everywhere.
        pixel_nm: Pixel size [nm]
        asymmetry: Extra weight of the detector's side.
        asymmetry_deg: Direction of that side [deg]

    Exact limits: a² / (a² + h²) on the axis of a cylinder, a / sqrt(a² + h²) in the middle of a trench.
    """
    # about the middle height, where float32 is finest
    middle = 0.5 * (z_nm.max() + z_nm.min())
    rows, columns = (_wrapped(size) for size in z_nm.shape)
    padded = (z_nm - middle).astype(np.float32)[rows[:, None], columns]
    angles = 2 * np.pi * np.arange(AZIMUTHS) / AZIMUTHS
    gains = (1.0 + asymmetry * np.cos(angles - math.radians(asymmetry_deg))).astype(np.float32)
    slope = np.float32(field_factor / pixel_nm)
    share = _escape(padded, _MARGIN, *z_nm.shape, _OFFSETS, _WEIGHTS, _INVERSE, slope, gains)
    return share.astype(np.float64)


@lru_cache
def _wrapped(size: int) -> Int[np.ndarray, "m"]:
    """Indices of a periodic axis with the horizon's margin on both sides."""
    return np.arange(-_MARGIN, size + _MARGIN) % size


def secant(z_nm: Float[np.ndarray, "h w"], pixel_nm: float) -> Float[np.ndarray, "h w"]:
    """1 / cos of the local slope, by central differences in the periodic cell."""
    return _secant(z_nm, 0.5 / pixel_nm)


@numba.njit(cache=True, error_model="numpy")
def _secant(z, scale):  # type: ignore[no-untyped-def]
    height, width = z.shape
    out = np.empty((height, width))
    for y in range(height):
        above, below = z[y - 1], z[(y + 1) % height]
        for x in range(width):
            dx = (z[y, (x + 1) % width] - z[y, x - 1]) * scale
            dy = (below[x] - above[x]) * scale
            out[y, x] = np.sqrt(1.0 + dx * dx + dy * dy)
    return out


def electron_signal(
    z_nm: Float[np.ndarray, "h w"],
    plateau_nm: float,
    material: Material,
    pixel_nm: float,
    *,
    asymmetry: float = 0.0,
    asymmetry_deg: float = 0.0,
    bowing: float = 0.0,
) -> Float[np.ndarray, "h w"]:
    """Secondary electrons per pixel relative to the plateau, before beam and camera.

    Args:
        z_nm: Heights [nm]
        plateau_nm: Height of the plateau [nm]
        material: One draw of the material.
        pixel_nm: Pixel size [nm]
        asymmetry: Extra weight of the detector's side.
        asymmetry_deg: Direction of that side [deg]
        bowing: Hidden widening below the rim; reduces what escapes from the floor.
    """
    h = np.maximum(plateau_nm - z_nm, 0.0)
    gain: Float[np.ndarray, "h w"] | float = 1.0
    if material.wall_gain:
        gain = 1.0 + material.wall_gain * (1.0 - np.exp((1.0 - secant(z_nm, pixel_nm)) / material.wall_gain))
    escape = escape_share(z_nm, material.field_factor, pixel_nm, asymmetry, asymmetry_deg)
    escape = escape * (1.0 - bowing * (1.0 - np.minimum(escape, 1.0)))
    shadow = 1.0 - escape
    escaped = escape / (1.0 - material.re_emission * shadow)
    kept = np.exp(-h / material.attenuation_length - material.charging * shadow)

    void = 1.0 - np.exp(-h / material.bloom_saturation)
    narrow = gaussian_transfer(z_nm.shape, 0.75 * material.bloom_width, 0.75 * material.bloom_width)
    wide = gaussian_transfer(z_nm.shape, 1.9 * material.bloom_width, 1.9 * material.bloom_width)
    nearby = np.fft.irfft2(np.fft.rfft2(void) * (0.55 * narrow + 0.45 * wide), z_nm.shape)
    bloom = 1.0 + 2.0 * material.bloom_gain * nearby * (1.0 - void)

    deepest = max(float(h.max()), 1e-9)
    share = np.clip((h / deepest - 0.8) / 0.2, 0.0, 1.0) if deepest > 1e-6 else np.zeros_like(h)
    floor_yield = 1.0 + (material.floor_yield - 1.0) * share * share * (3.0 - 2.0 * share)
    return floor_yield * gain * escaped * kept * bloom
