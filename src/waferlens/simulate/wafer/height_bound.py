"""How well one picture lets a height be known at all: Cramer-Rao bounds on the distance from focus.

A picture tells a height by blur only, so by the distance from the plane of focus, and of that the size, never the sign.
No estimator without bias scatters less than these bounds. What a line does not know beside the height is unknown here
as well: reflectances, where an edge lies, its dark rim, how strong a texture is and what it shows.

A street or carrier of one colour bears no texture, and the outline of a die over it shows the blur of the die alone:
the picture then holds nothing of its height, and the bound is infinite. Bounds add up as 1 / bound².

This stands beside the simulator, for it needs the same lens and the same camera, whose noise is that of a native pixel.

Source: S. M. Kay, "Fundamentals of Statistical Signal Processing: Estimation Theory" (1993), chapters 3 (bound, unknown
parameters beside the wanted one) and 3.9 (Gaussian signals); derivation in docs/optical-limits.md.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Complex128, Float64

from waferlens.simulate.wafer.camera import PARTS, ROW_KNOTS, WHITE, Camera
from waferlens.simulate.wafer.otf import Lens
from waferlens.simulate.wafer.otf_slope import transfer_and_slope
from waferlens.simulate.wafer.scene import FIELD_UM

WINDOW_UM = 300.0
"""Of the plain surface to either side of an edge that is looked at [um]"""
MOST_PHASES = 8
"""Places of an edge within a pixel, over which information is averaged; fewer where pixels are finer than the blur."""
STEPS_PER_TURN = 8
"""Of the integrals over frequency, at the ends of the window."""
WAVE_VECTORS = 16
"""Along each axis, over which a texture is summed."""
EDGE_UNKNOWN = ("place", "near", "far", "rim", "darkness")
"""What of an edge is not known beside its defocus."""
RANK = 1e-9
"""Derivatives that differ by less, as a share, are the same."""


@dataclass(frozen=True, slots=True)
class Edge:
    """The outline of a die: a plain surface, a dark rim, and what lies behind, plain as well."""

    near: float = 0.3
    """Reflectance of the die."""
    far: float = 0.04
    """Reflectance of what lies behind."""
    rim_um: float = 6.0
    """Width of the rim [um]"""
    rim_darkness: float = 0.85
    """How much of the light the rim takes."""


def edge_height_bound_um(
    lens: Lens,
    camera: Camera,
    dz_um: float,
    edge: Edge,
    *,
    length_um: float,
    pitch_um: float | None = None,
    window_um: float = WINDOW_UM,
    along_scan: bool = False,
    unknown: Collection[str] = EDGE_UNKNOWN,
) -> float:
    """Least standard deviation of the distance from focus of a die, from one straight edge of it.

    Args:
        lens: The objective.
        camera: Shot and read noise, glare, smear, gain of rows; its shading is taken to be corrected.
        dz_um: Distance of the die from the plane of focus [um]
        edge: What lies on either side.
        length_um: Of the edge [um]
        pitch_um: Of the grid, each pixel a mean over its area; the camera's own pixel if None [um]
        window_um: Of the surface to either side of the edge that is plain [um]
        along_scan: Whether the edge lies along the scan: then every place of it has the same rows, whose gains differ
            and average less; a smear leaves it as it is.
        unknown: Of `EDGE_UNKNOWN`, what is found from the same pixels.

    Returns:
        The bound, infinite where the edge tells nothing [um]
    """
    pitch = lens.pixel_um if pitch_um is None else pitch_um
    seen = replace(camera, smear_um=0.0) if along_scan else camera
    count = math.ceil(window_um / pitch)
    phases = min(MOST_PHASES, math.ceil(4.0 * pitch * lens.na / lens.wavelength_um))
    wanted, beside = [], []
    for phase in range(phases):
        x = pitch * (np.arange(-count, count) + (phase + 0.5) / phases)
        mean, slopes = edge_profile(lens, seen, dz_um, edge, x, pitch)
        scatter = noise_variance(lens, camera, mean, pitch) * (pitch / length_um * phases)
        rows = np.stack([slopes["dz"], *(slopes[name] for name in EDGE_UNKNOWN if name in unknown)])
        if along_scan and camera.tdi_row_noise:
            gains = camera.tdi_row_noise * math.sqrt(phases) * mean[:, np.newaxis] * _gain_weights(x, pitch)
            whitened = np.linalg.solve(np.linalg.cholesky(np.diag(scatter) + gains @ gains.T), rows.T).T
        else:
            whitened = rows / np.sqrt(scatter)
        wanted.append(whitened[0])
        beside.append(whitened[1:])
    return bound_um(remaining_information(np.concatenate(wanted), list(np.concatenate(beside, axis=1))))


def _gain_weights(y_um: Float64[np.ndarray, " n"], pitch_um: float) -> Float64[np.ndarray, "n k"]:
    """How much each independent gain of the line counts in rows at these places."""
    part = pitch_um * ((np.arange(PARTS) + 0.5) / PARTS - 0.5)
    at = (y_um[:, np.newaxis] + part) * (ROW_KNOTS / FIELD_UM)
    knots = np.arange(math.floor(at.min()), math.ceil(at.max()) + 1)
    return np.clip(1.0 - np.abs(at[:, :, np.newaxis] - knots), 0.0, None).mean(axis=1)


def edge_profile(
    lens: Lens, camera: Camera, dz_um: float, edge: Edge, x_um: Float64[np.ndarray, " n"], pitch_um: float
) -> tuple[Float64[np.ndarray, " n"], dict[str, Float64[np.ndarray, " n"]]]:
    """Electrons of a native pixel across an edge that lies at 0, the die to its right, and their derivatives.

    Args:
        lens: The objective.
        camera: The camera.
        dz_um: Distance of the die from the plane of focus [um]
        edge: What lies on either side.
        x_um: Centres of pixels [um]
        pitch_um: Of the grid [um]

    Returns:
        The mean, and its derivative by `dz` and by each of `EDGE_UNKNOWN`.
    """
    step, line, slope = _step_response(lens, camera, dz_um, x_um, pitch_um)
    inner, inner_line, inner_slope = _step_response(lens, camera, dz_um, x_um - edge.rim_um, pitch_um)
    left = 1.0 - edge.rim_darkness
    outer_rise, inner_rise = edge.near * left - edge.far, edge.near * edge.rim_darkness
    electrons = camera.full_well_e / WHITE * (1.0 - camera.glare)
    veil = camera.full_well_e / WHITE * camera.glare * 0.5 * (edge.near + edge.far)
    mean = electrons * (edge.far + outer_rise * step + inner_rise * inner) + veil
    slopes = {
        "dz": outer_rise * slope + inner_rise * inner_slope,
        "place": -outer_rise * line - inner_rise * inner_line,
        "near": left * step + edge.rim_darkness * inner,
        "far": 1.0 - step,
        "rim": -inner_rise * inner_line,
        "darkness": edge.near * (inner - step),
    }
    return mean, {name: electrons * slope for name, slope in slopes.items()}


def _step_response(
    lens: Lens, camera: Camera, dz_um: float, x_um: Float64[np.ndarray, " n"], pitch_um: float
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """A step from 0 to 1 at x = 0 through lens, smear and pixel, and its derivatives by x and by the defocus."""
    cutoff = 2.0 * lens.na / lens.wavelength_um
    count = math.ceil(STEPS_PER_TURN * cutoff * float(np.abs(x_um).max())) + 64
    frequency = np.linspace(0.0, cutoff, count + 1)
    value, slope = transfer_and_slope(lens, dz_um, frequency)
    weight = np.full(count + 1, cutoff / count)
    weight[[0, -1]] *= 0.5
    weight *= np.sinc(frequency * pitch_um) * np.sinc(frequency * camera.smear_um)
    turns = frequency * x_um[:, np.newaxis]
    rise = 2.0 * x_um[:, np.newaxis] * np.sinc(2.0 * turns)
    return 0.5 + rise @ (weight * value), 2.0 * np.cos(2.0 * np.pi * turns) @ (weight * value), rise @ (weight * slope)


def noise_variance(
    lens: Lens, camera: Camera, electrons: Float64[np.ndarray, "..."] | float, pitch_um: float
) -> Float64[np.ndarray, "..."] | float:
    """Of a pixel of the grid, which is the mean of many native ones [e²]

    Args:
        lens: The objective; its pixel is the native one.
        camera: The camera.
        electrons: Of a native pixel.
        pitch_um: Of the grid [um]
    """
    return (electrons + camera.read_e**2) * (lens.pixel_um / pitch_um) ** 2


@dataclass(frozen=True, slots=True)
class Texture:
    """Square cells of random brightness that touch one another, as random logic, or waves between such points."""

    reflectance: float = 0.3
    rms: float = 0.1
    """Standard deviation of the cells' brightness, relative. Of the simulator's logic it is 0.53 of the contrast."""
    cell_um: float = 9.0
    """Side of a cell [um]"""
    smooth: bool = False
    """Whether brightness runs from point to point as a cosine, as on tape and ground metal, and does not jump."""


def texture_height_bound_um(
    lens: Lens,
    camera: Camera,
    dz_um: float,
    texture: Texture,
    *,
    area_um2: float,
    pitch_um: float | None = None,
    log_contrast_sigma: float = math.inf,
) -> float:
    """Least standard deviation of the distance from focus of a textured surface.

    How bright each cell is, is not known, nor how much they differ; that they are normal, where they lie and how large
    they are, is.

    Args:
        lens: The objective.
        camera: The camera.
        dz_um: Distance of the surface from the plane of focus [um]
        texture: What is drawn on it.
        area_um2: Of the surface [um²]
        pitch_um: Of the grid; moved a little, so that whole pixels make a cell, or whole cells a pixel [um]
        log_contrast_sigma: How well the strength of the texture is known beforehand, as a standard deviation of its
            logarithm.

    Returns:
        The bound, infinite where the texture tells nothing [um]
    """
    pitch = lens.pixel_um if pitch_um is None else pitch_um
    px_cells = max(1, round(pitch / texture.cell_um))
    count = px_cells * math.ceil(WAVE_VECTORS / px_cells)
    vectors = (np.arange(count) + 0.5) / count
    strength = cell_strength(lens, camera, texture)
    information = np.zeros((2, 2))
    for offset in (0.0, 0.5):  # of the cells within a pixel, where they are as coarse
        signal, slope = cell_orders(lens, camera, dz_um, texture, pitch, vectors, offset)
        if px_cells > 1:
            signal, slope = _mixed(signal, slope, px_cells)
        information += 0.5 * _cell_information(strength, signal, slope)
    # every wave vector of the zone stands for this many independent coefficients
    information *= area_um2 / (px_cells * texture.cell_um) ** 2
    information[1, 1] += log_contrast_sigma**-2
    if information[1, 1] == 0:
        return math.inf
    return bound_um(float(information[0, 0] - information[0, 1] ** 2 / information[1, 1]))


def cell_strength(lens: Lens, camera: Camera, texture: Texture) -> float:
    """Power of the cells over that of the noise, before the lens; on any grid the same, for means average noise."""
    gain = camera.full_well_e / WHITE * texture.reflectance
    noise = float(noise_variance(lens, camera, gain, lens.pixel_um)) * lens.pixel_um**2
    return (gain * (1.0 - camera.glare) * texture.rms * texture.cell_um) ** 2 / noise


def _cell_information(
    strength: float, signal: Complex128[np.ndarray, "n n k"], slope: Complex128[np.ndarray, "n n k"]
) -> Float64[np.ndarray, "2 2"]:
    """Fisher information on the defocus and the logarithm of the strength, mean over wave vectors, each real.

    At each wave vector the coefficients have the covariance strength * v v' + 1: one direction of signal, white noise.
    """
    power = np.maximum((np.abs(signal) ** 2).sum(axis=2), 1e-300)
    along = (signal.conj() * slope).sum(axis=2) / power
    across = (np.abs(slope - along[:, :, np.newaxis] * signal) ** 2).sum(axis=2)
    share = strength * power / (1.0 + strength * power)
    both = (2.0 * along.real * share**2).mean()
    own = (4.0 * along.real**2 * share**2 + 2.0 * strength * across * share).mean()
    return 0.5 * np.array([[own, both], [both, (share**2).mean()]])


def cell_orders(
    lens: Lens,
    camera: Camera,
    dz_um: float,
    texture: Texture,
    pitch_um: float,
    vectors: Float64[np.ndarray, " n"],
    offset: float = 0.0,
) -> tuple[Complex128[np.ndarray, "n n k"], Complex128[np.ndarray, "n n k"]]:
    """What becomes of a lattice of cells at each wave vector of its zone: amplitudes in the zones that pixels keep.

    Args:
        lens: The objective.
        camera: The camera.
        dz_um: Distance of the surface from the plane of focus [um]
        texture: Its cells.
        pitch_um: Of the grid, before it is moved to fit [um]
        vectors: Wave vectors along either axis, 0..1 [1/cell]
        offset: Of the cells within a pixel, along both axes [px]

    Returns:
        Amplitudes and their derivatives by the distance from focus [1/um], by wave vector and zone.
    """
    cell_um = texture.cell_um
    cell_px, px_cells = max(1, round(cell_um / pitch_um)), max(1, round(pitch_um / cell_um))
    pixel = px_cells / cell_px  # in cells
    most = math.ceil(2.0 * lens.na / lens.wavelength_um * cell_um) + 1
    orders = np.arange(-most, most + 1)
    at = vectors[:, np.newaxis] + orders  # along one axis, in units of 1 / cell
    along = _cell(at, texture.smooth) * np.sinc(at * pixel) * np.exp(-2j * np.pi * at * offset * pixel)
    smeared = along * np.sinc(at * camera.smear_um / cell_um)
    away = np.hypot(at[:, np.newaxis, :, np.newaxis], at[np.newaxis, :, np.newaxis, :]) / cell_um
    value, slope = transfer_and_slope(lens, dz_um, away)
    window = along[:, np.newaxis, :, np.newaxis] * smeared[np.newaxis, :, np.newaxis, :]
    kept = [np.flatnonzero(orders % cell_px == zone) for zone in range(cell_px)]
    folded = []
    for part in (value * window, slope * window):
        rows = np.stack([part[:, :, zone].sum(axis=2) for zone in kept], axis=2)
        both = np.stack([rows[:, :, :, zone].sum(axis=3) for zone in kept], axis=3)
        folded.append(both.reshape(len(vectors), len(vectors), -1))
    return folded[0], folded[1]


def _mixed(
    signal: Complex128[np.ndarray, "n n 1"], slope: Complex128[np.ndarray, "n n 1"], px_cells: int
) -> tuple[Complex128[np.ndarray, "m m 1"], Complex128[np.ndarray, "m m 1"]]:
    """Pixels larger than a cell mix wave vectors that are independent: only power, and how it changes, are told."""
    few = len(signal) // px_cells
    parts = (px_cells, few, px_cells, few, 1)
    power = (np.abs(signal) ** 2).reshape(parts).sum(axis=(0, 2))
    rise = (signal.conj() * slope).real.reshape(parts).sum(axis=(0, 2))
    amplitude = np.sqrt(power)
    return amplitude.astype(np.complex128), (rise / np.maximum(amplitude, 1e-150)).astype(np.complex128)


def _cell(at: Float64[np.ndarray, "..."], smooth: bool) -> Float64[np.ndarray, "..."]:
    """Transform of one cell: a box, or a cosine from its neighbours' middles to its own; 1 at 0."""
    if not smooth:
        return np.sinc(at)
    gap = 1.0 - 4.0 * at**2
    return np.where(np.abs(gap) < 1e-9, 0.5, np.sinc(2.0 * at) / np.where(np.abs(gap) < 1e-9, 1.0, gap))


def grating_height_bound_um(
    lens: Lens,
    camera: Camera,
    dz_um: float,
    *,
    grating_um: float,
    contrast: float,
    reflectance: float,
    area_um2: float,
    pitch_um: float | None = None,
    log_contrast_sigma: float = math.inf,
) -> float:
    """Least standard deviation of the distance from focus of a surface with one sine on it.

    One sine has one amplitude, and blur and contrast are not told apart by it: unless its contrast is known, the bound
    is infinite, however bright it is.

    Args:
        lens: The objective.
        camera: The camera.
        dz_um: Distance of the surface from the plane of focus [um]
        grating_um: Period, lines along the scan [um]
        contrast: Relative amplitude.
        reflectance: Mean.
        area_um2: Of the surface [um²]
        pitch_um: Of the grid; the camera's own pixel if None [um]
        log_contrast_sigma: How well the contrast is known beforehand, as a standard deviation of its logarithm.
    """
    pitch = lens.pixel_um if pitch_um is None else pitch_um
    value, slope = transfer_and_slope(lens, dz_um, np.array([1.0 / grating_um]))
    gain = camera.full_well_e / WHITE * reflectance
    amplitude = gain * (1.0 - camera.glare) * contrast * float(value[0]) * np.sinc(pitch / grating_um)
    if amplitude == 0 or slope[0] == 0:
        return math.inf
    noise = float(noise_variance(lens, camera, gain, pitch))
    measured = 2.0 * noise * pitch**2 / area_um2 / amplitude**2
    return math.sqrt(measured + log_contrast_sigma**2) * abs(float(value[0] / slope[0]))


def remaining_information(wanted: Float64[np.ndarray, " n"], beside: list[Float64[np.ndarray, " n"]]) -> float:
    """What is left of a derivative, squared, once all that others can explain of it is taken away.

    Args:
        wanted: By the parameter that is asked for, each in units of its noise.
        beside: By those that are not known either.
    """
    whole = float(wanted @ wanted)
    directions = [one / norm for one in beside if (norm := math.sqrt(float(one @ one))) > 0]
    if not directions or whole == 0:
        return whole
    basis, values, _ = np.linalg.svd(np.stack(directions, axis=1), full_matrices=False)
    basis = basis[:, values > RANK * values[0]]
    rest = wanted - basis @ (basis.T @ wanted)
    left = float(rest @ rest)
    return left if left > RANK * whole else 0.0


def bound_um(information: float) -> float:
    """Least standard deviation; infinite where there is no information [um]"""
    return 1.0 / math.sqrt(information) if information > 0 else math.inf
