"""Geometry of an etched hole: contour, wall, floor. Truth is made here and nowhere else.

Source: SE-free geometry; contour roughness after Palasantzas 1993 with the discrete spectrum normalised as
Mack 2013 advises.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float

from waferlens.recipe.hole_world import HoleWorld
from waferlens.simulate.hole.streams import normal, uniform

CONTOUR_POINTS = 512
REFERENCE_EXPONENT = 2.6
PIT_REFERENCE_NM = 155.0


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
    white = rng.standard_normal(shape)
    if std == 0.0:
        return np.zeros(shape)
    transfer = gaussian_transfer(shape, length / math.sqrt(2.0), length / math.sqrt(2.0))
    weight = transfer**2
    # Interior columns of the half spectrum stand for two frequencies.
    power = (weight[:, 0].sum() + weight[:, -1].sum() + 2 * weight[:, 1:-1].sum()) / (shape[0] * shape[1])
    return np.fft.irfft2(np.fft.rfft2(white) * (transfer * (std / math.sqrt(power))), shape)


def gaussian_transfer(shape: tuple[int, int], sigma_x: float, sigma_y: float) -> Float[np.ndarray, "h v"]:
    """Transfer function of a periodic Gaussian blur on the half spectrum of `rfft2`; widths in px."""
    fy, fx = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    ey, ex = np.exp(-2 * (np.pi * sigma_y * fy) ** 2), np.exp(-2 * (np.pi * sigma_x * fx) ** 2)
    return ey[:, None] * ex[None, :]


@numba.njit(cache=True, error_model="numpy")
def _profile(height, width, cx, cy, cos, sin, a, b, exponent, roughness, wall, corner):  # type: ignore[no-untyped-def]
    """Wall profile S and squared relative radius of every pixel, in the periodic cell."""
    profile = np.empty((height, width))
    radius2 = np.empty((height, width))
    points = roughness.size
    reach = np.abs(roughness).max()
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
            pu = au**exponent
            pv = av**exponent
            total = pu + pv
            rho = total ** (1.0 / exponent)
            # d rho / du = (|u| / rho)^(m - 1), written without further powers.
            gu = pu / au * rho / total / a
            gv = pv / av * rho / total / b
            inward = (1.0 - rho) / np.sqrt(gu * gu + gv * gv)
            radius2[y, x] = u * u + v * v
            # Far from the wall the contour's roughness cannot matter.
            if inward < -reach:
                profile[y, x] = 0.0
                continue
            if inward > wall + reach:
                profile[y, x] = 1.0
                continue
            turn = np.arctan2(v, u) / (2.0 * np.pi)
            place = (turn - np.floor(turn)) * points
            i = int(place)
            share = place - i
            delta = (1.0 - share) * roughness[i % points] + share * roughness[(i + 1) % points]
            q = (inward + delta) / wall
            q = min(max(q, 0.0), 1.0)
            smooth = q * q * (3.0 - 2.0 * q)
            smoother = q * q * q * (q * (6.0 * q - 15.0) + 10.0)
            profile[y, x] = (1.0 - corner) * (0.55 * q + 0.45 * smooth) + corner * smoother
    return profile, radius2


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
    profile, radius2 = _profile(
        *shape, cx, cy, math.cos(angle), math.sin(angle), a, b, exponent, roughness, wall, corner
    )

    floor = np.full(shape, normal(rng, spec.floor))
    floor += uniform(rng, spec.bow) * (np.minimum(radius2, 1.0) - 0.25)
    floor += gaussian_field(rng, shape, spec.floor_roughness.mean, uniform(rng, spec.floor_roughness_length))

    has_pit, pit_depth = rng.random() < spec.pit_probability, uniform(rng, spec.pit_depth)
    pit_x, pit_y = cx + 0.5 * a * (2 * rng.random() - 1), cy + 0.5 * b * (2 * rng.random() - 1)
    pit_a, pit_b = rng.uniform(4, 11), rng.uniform(4, 11)
    pit = np.zeros(shape)
    if has_pit:
        y, x = np.ogrid[: shape[0], : shape[1]]
        pit = pit_depth * np.exp(-0.5 * ((x - pit_x) / pit_a) ** 2) * np.exp(-0.5 * ((y - pit_y) / pit_b) ** 2)

    trench, residue = rng.random() * spec.micro_trench, rng.random() * spec.residue
    if trench:
        # The trench follows the foot of the wall; the profile tells how far from it a pixel lies.
        floor -= trench * np.exp(-0.5 * ((profile - 0.97) / 0.06) ** 2)
    if residue:
        floor += np.maximum(gaussian_field(rng, shape, residue, 3.0) - 0.5 * residue, 0.0)
    bowing = rng.random() * spec.hidden_bowing
    top = gaussian_field(rng, shape, spec.top_roughness_std, 2.5)
    return Structure(profile, floor, pit, top, a, b, bowing)
