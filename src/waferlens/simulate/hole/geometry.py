"""Geometry of an etched hole: contour, wall, floor. Truth is made here and nowhere else.

Source: SE-free geometry; contour roughness after Palasantzas 1993 with the discrete spectrum normalised as
Mack 2013 advises.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np
from jaxtyping import Float, Int

from waferlens.recipe.hole_world import HoleWorld
from waferlens.simulate.streams import normal, uniform

CONTOUR_POINTS = 512
REFERENCE_EXPONENT = 2.6
PIT_REFERENCE_NM = 155.0
TRENCH_PLACE, TRENCH_WIDTH, TRENCH_REACH = 1.0, 1.5, 8.0
"""Middle and standard deviation of a micro-trench, and where it has ended, from the foot of the wall [px]"""


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """A hole before it is told how high its plateau is."""

    profile: Float[np.ndarray, "h w"]
    """S: 0 on the plateau, 1 on the floor, between them the wall."""
    floor: Float[np.ndarray, "h w"]
    """Height of the floor above the reference, without pits [nm]"""
    pit: Float[np.ndarray, "h w"]
    """Depth of the pit at a plateau of 155 nm [nm]"""
    top: Float[np.ndarray, "h w"]
    """Roughness of the plateau [nm]"""
    half_width_x: float
    half_width_y: float
    """Half openings, rescaled for the exponent [px]"""
    bowing: float
    """Hidden widening below the rim; only takes signal away."""

    def heights(self, plateau_nm: float) -> Float[np.ndarray, "h w"]:
        """The height map for one plateau; the floor stays where it is [nm]."""
        floor = self.floor - self.pit * (plateau_nm / PIT_REFERENCE_NM) ** 2
        z = plateau_nm - (plateau_nm - floor) * self.profile + (1.0 - self.profile) * self.top
        return np.clip(z, 0.0, 255.0)

    def depth(self, plateau_nm: float) -> float:
        """Depth of the hole: plateau minus the mean height where S > 0.98 [nm]."""
        return float(plateau_nm - self.heights(plateau_nm)[self.profile > 0.98].mean())


def super_ellipse_area(exponent: float) -> float:
    """Area of the unit super-ellipse, up to a factor of 4."""
    return math.gamma(1 + 1 / exponent) ** 2 / math.gamma(1 + 2 / exponent)


def contour_roughness(
    rng: np.random.Generator, std: float, length: float, exponent: float, perimeter: float, points: int = CONTOUR_POINTS
) -> Float[np.ndarray, "points"]:
    """Periodic roughness of a contour, as displacement along the normal [px].

    Modes 0 (size) and 1 (placement) belong to other parameters and are left out.

    Args:
        rng: Geometry stream.
        std: Standard deviation of the displacement [px]
        length: Correlation length [px]
        exponent: Hurst exponent.
        perimeter: Length of the contour [px]
        points: Samples around the contour.

    Source: Palasantzas, Phys. Rev. B 48 (1993) 14472; Mack, Appl. Opt. 52 (2013) 1472.
    """
    modes = np.arange(points // 2 + 1)
    power = (1.0 + (2 * np.pi * modes / perimeter * length) ** 2) ** -(exponent + 0.5)
    power[:2] = 0.0
    power[-1] = 0.0
    amplitude = np.sqrt(power / power.sum()) * std
    draws = rng.standard_normal((2, modes.size))
    return np.fft.irfft(0.5 * points * amplitude * (draws[0] - 1j * draws[1]), points)


def gaussian_field(
    rng: np.random.Generator, shape: tuple[int, int], std: float, length: float
) -> Float[np.ndarray, "h w"]:
    """A periodic Gaussian random field with a Gaussian correlation; `std` and `length` in its own units and px."""
    rows, amplitude = _field_spectrum(shape, std, length)
    draws = rng.standard_normal((2, *amplitude.shape))
    spectrum = np.zeros((shape[0], shape[1] // 2 + 1), np.complex128)
    spectrum[rows, : amplitude.shape[1]] = amplitude * (draws[0] + 1j * draws[1])
    return np.fft.irfft2(spectrum, shape)


@lru_cache(maxsize=64)
def _field_spectrum(
    shape: tuple[int, int], std: float, length: float
) -> tuple[Int[np.ndarray, "r"], Float[np.ndarray, "r c"]]:
    """The modes that carry a field, and the amplitude of their real and imaginary parts."""
    transfer = gaussian_transfer(shape, length / math.sqrt(2.0), length / math.sqrt(2.0))
    # What is below this share of the largest amplitude would not be seen in a height of 1e-4 nm.
    rows, columns = np.flatnonzero(transfer[:, 0] > 1e-5), np.count_nonzero(transfer[0] > 1e-5)
    # An inner column of the half spectrum stands for two frequencies; of the others `irfft2` keeps the real half.
    amplitude = transfer[rows, :columns] * math.sqrt(0.5)
    edges = [0, -1] if columns == shape[1] // 2 + 1 and shape[1] % 2 == 0 else [0]
    amplitude[:, edges] *= math.sqrt(2.0)
    doubled = np.full(columns, 4.0)
    doubled[edges] = 1.0
    variance = (amplitude**2 @ doubled).sum()
    return rows, amplitude * (std * shape[0] * shape[1] / math.sqrt(variance))


@lru_cache(maxsize=64)
def gaussian_transfer(shape: tuple[int, int], sigma_x: float, sigma_y: float) -> Float[np.ndarray, "h v"]:
    """Transfer function of a periodic Gaussian blur on the half spectrum of `rfft2`; widths in px.

    Kept, because the holes of a site and the cases of a structure ask for the same ones: do not write into it.
    """
    fy, fx = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    ey, ex = np.exp(-2 * (np.pi * sigma_y * fy) ** 2), np.exp(-2 * (np.pi * sigma_x * fx) ** 2)
    transfer = ey[:, None] * ex[None, :]
    transfer.flags.writeable = False
    return transfer


@numba.njit(cache=True, error_model="numpy")
def _profile(height, width, cx, cy, cos, sin, a, b, exponent, roughness, wall, corner, beyond):  # type: ignore[no-untyped-def]
    """Wall profile S, squared relative radius and way past the foot of the wall, in the periodic cell.

    The way past the foot is exact up to `beyond` pixels; further in it is some number above that.
    """
    profile = np.empty((height, width))
    radius2 = np.empty((height, width))
    past_foot = np.empty((height, width))
    points = roughness.size
    reach = np.abs(roughness).max()
    inner = wall + reach + beyond
    for y in range(height):
        for x in range(width):
            dx = x - cx
            dy = y - cy
            dx -= width * np.rint(dx / width)
            dy -= height * np.rint(dy / height)
            u = (cos * dx + sin * dy) / a
            v = (cos * dy - sin * dx) / b
            au = max(abs(u), 1e-9)
            av = max(abs(v), 1e-9)
            radius2[y, x] = u * u + v * v
            if exponent >= 2.0:
                # Then max(|u|, |v|) <= rho <= hypot(u, v), and d rho / du <= |u| / max(|u|, |v|): bounds of the inward
                # way that settle most pixels without a power.
                widest = max(au, av)
                per_px = widest / np.sqrt((au / a) ** 2 + (av / b) ** 2)
                if (1.0 - widest) * per_px < -reach:
                    profile[y, x] = 0.0
                    past_foot[y, x] = -reach - wall
                    continue
                at_least = (1.0 - np.sqrt(radius2[y, x])) * per_px
                if at_least > inner:
                    profile[y, x] = 1.0
                    past_foot[y, x] = at_least - wall - reach
                    continue
            pu = au**exponent
            pv = av**exponent
            total = pu + pv
            rho = total ** (1.0 / exponent)
            # d rho / du = (|u| / rho)^(m - 1), written without further powers.
            gu = pu / au * rho / total / a
            gv = pv / av * rho / total / b
            inward = (1.0 - rho) / np.sqrt(gu * gu + gv * gv)
            # Out of the roughness' reach its direction need not be known.
            if inward < -reach or inward > inner:
                profile[y, x] = 0.0 if inward < 0.0 else 1.0
                past_foot[y, x] = inward - wall
                continue
            turn = np.arctan2(v, u) / (2.0 * np.pi)
            place = (turn - np.floor(turn)) * points
            i = int(place)
            share = place - i
            delta = (1.0 - share) * roughness[i % points] + share * roughness[(i + 1) % points]
            past_foot[y, x] = inward + delta - wall
            q = (inward + delta) / wall
            q = min(max(q, 0.0), 1.0)
            smooth = q * q * (3.0 - 2.0 * q)
            smoother = q * q * q * (q * (6.0 * q - 15.0) + 10.0)
            profile[y, x] = (1.0 - corner) * (0.55 * q + 0.45 * smooth) + corner * smoother
    return profile, radius2, past_foot


def draw_structure(world: HoleWorld, rng: np.random.Generator, half_width_shift: float = 0.0) -> Structure:
    """Draws one hole from the geometry stream.

    Args:
        world: The domain.
        rng: Geometry stream of the structure; nothing else may draw from it.
        half_width_shift: Common shift of the half openings of a site [px]
    """
    spec = world.geometry
    shape = (world.height_px, world.width_px)
    a = normal(rng, spec.half_width_x) + half_width_shift
    b = normal(rng, spec.half_width_y) + half_width_shift
    exponent = uniform(rng, spec.exponent)
    rescale = math.sqrt(super_ellipse_area(REFERENCE_EXPONENT) / super_ellipse_area(exponent))
    a, b = a * rescale, b * rescale
    cx = (shape[1] - 1) / 2 + normal(rng, spec.offset)
    cy = (shape[0] - 1) / 2 + normal(rng, spec.offset)
    angle = math.radians(normal(rng, spec.rotation))
    perimeter = math.pi * (3 * (a + b) - math.sqrt((3 * a + b) * (a + 3 * b)))
    rough_length, rough_exponent = uniform(rng, spec.roughness_length), uniform(rng, spec.roughness_exponent)
    roughness = contour_roughness(rng, spec.roughness_std, rough_length, rough_exponent, perimeter)
    wall, corner = uniform(rng, spec.wall_width), uniform(rng, spec.corner_rounding)
    floor_level, bow, floor_length = (
        normal(rng, spec.floor),
        uniform(rng, spec.bow),
        uniform(rng, spec.floor_roughness_length),
    )
    has_pit, pit_depth = rng.random() < spec.pit_probability, uniform(rng, spec.pit_depth)
    pit_x, pit_y = cx + 0.5 * a * (2 * rng.random() - 1), cy + 0.5 * b * (2 * rng.random() - 1)
    pit_a, pit_b = rng.uniform(4, 11), rng.uniform(4, 11)
    trench, residue = rng.random() * spec.micro_trench, rng.random() * spec.residue
    bowing = rng.random() * spec.hidden_bowing

    beyond = TRENCH_REACH if trench else 0.0
    profile, radius2, past_foot = _profile(
        *shape, cx, cy, math.cos(angle), math.sin(angle), a, b, exponent, roughness, wall, corner, beyond
    )
    # Fields are drawn last: how many numbers they take depends on the size of the cell, the draws above do not.
    floor = floor_level + bow * (np.minimum(radius2, 1.0) - 0.25)
    floor += gaussian_field(rng, shape, spec.floor_roughness.mean, floor_length)
    pit = np.zeros(shape)
    if has_pit:
        y, x = np.ogrid[: shape[0], : shape[1]]
        pit = pit_depth * np.exp(-0.5 * ((x - pit_x) / pit_a) ** 2) * np.exp(-0.5 * ((y - pit_y) / pit_b) ** 2)

    top = gaussian_field(rng, shape, spec.top_roughness_std, 2.5)
    if trench:
        floor -= trench * np.exp(-0.5 * ((past_foot - TRENCH_PLACE) / TRENCH_WIDTH) ** 2)
    if residue:
        floor += np.maximum(gaussian_field(rng, shape, residue, 3.0) - 0.5 * residue, 0.0)
    return Structure(profile, floor, pit, top, a, b, bowing)
