"""Optical transfer of a lens out of focus: how much of each spatial frequency is left at each distance.

The exact incoherent transfer of a round pupil with a defocus of W20 waves is the overlap of two shifted pupils with the
difference of their phases; along the shift it is one integral. Far out of focus it is the transfer of a disc of light,
smaller the less of the two pupils overlaps, times the transfer in focus: within 0.002 of the integral.

The light of a point never ends: 0.3 % of it lies farther out than forty times wavelength / NA. It is faded out there,
so that an image may be blurred in parts and no part ends in a step.

Source: Hopkins, Proc. R. Soc. A 231 (1955) 91; Stokseth, J. Opt. Soc. Am. 59 (1969) 1314.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Float64
from scipy.interpolate import make_interp_spline
from scipy.special import j0, j1

WAVES = 16.0
"""Beyond so many waves of defocus, the transfer of a disc is near enough."""
WAVES_STEP = 0.05
FREQUENCIES = 512
FINER = 8
"""Frequencies between two of the table where it is looked up."""
FINE = 4
"""Frequencies between two of the table, from which light is summed."""
NODES = 160
REACH_WAVES = 40.0
"""How far the light of a point in focus is followed [wavelength / NA]"""
RADII = 3.0
"""How many radii of the rays farther it is followed out of focus."""
STEP = 0.1
"""Of the sums over the light of a point [wavelength / NA]"""


@dataclass(frozen=True, slots=True)
class Lens:
    """An objective with its camera."""

    magnification: float
    na: float
    wavelength_um: float = 0.55
    camera_pixel_um: float = 6.456649
    """[um]"""

    @property
    def pixel_um(self) -> float:
        """Pixel of the camera in the plane of the object [um]"""
        return self.camera_pixel_um / self.magnification

    @property
    def wave_depth_um(self) -> float:
        """Depth of focus by waves alone, wavelength over NA squared: a quarter wave to either side [um]"""
        return self.wavelength_um / self.na**2

    @property
    def depth_of_focus_um(self) -> float:
        """Depth of focus by waves and by the camera's pixel [um]"""
        return self.wave_depth_um + self.camera_pixel_um / (self.magnification * self.na)

    def geometric_radius_um(self, dz_um: np.ndarray | float) -> np.ndarray | float:
        """Radius of the cone of rays at a distance from focus [um]"""
        return np.abs(dz_um) * np.tan(np.arcsin(self.na))

    def reach_um(self, dz_um: float) -> float:
        """How far from its place the light of a point at a distance from focus is followed [um]"""
        return float(_reach(self.waves(dz_um))) * self.wavelength_um / self.na

    def waves(self, dz_um: float) -> float:
        """W20 in wavelengths at a distance from focus."""
        return abs(dz_um) * self.na**2 / (2.0 * self.wavelength_um)


def _reach(waves: float | Float64[np.ndarray, " w"]) -> float | Float64[np.ndarray, " w"]:
    """[wavelength / NA]; the rays' radius is twice the waves of defocus."""
    return REACH_WAVES + 2 * RADII * waves


@lru_cache
def transfer_table() -> Float64[np.ndarray, "w f"]:
    """Transfer by waves of defocus and by frequency, in units of the cutoff 2 NA / wavelength."""
    s = np.linspace(0.0, 2.0, FINE * (FREQUENCIES - 1) + 1)
    exact = overlap_table(s)
    waves = np.arange(len(exact)) * WAVES_STEP
    radius = np.arange(0.0, _reach(waves[-1]) + STEP, STEP)
    wave = j0(2 * np.pi * s[:, np.newaxis] * radius)
    # sums of Euler and Maclaurin: what starts in proportion to the radius lacks step² / 12 of its slope
    ends = np.where((s == 0) | (s == 2), 0.5, 1.0)
    light = (exact * (ends * s * s[1])) @ wave + s[1] ** 2 / 12
    part = np.clip(2 * radius / _reach(waves)[:, np.newaxis] - 1, 0, 1)
    light *= 0.5 + 0.5 * np.cos(np.pi * part)
    kept = (light * (radius * STEP)) @ wave[::FINE].T + STEP**2 / 12 * light[:, :1]
    return kept / kept[:, :1]


def overlap_table(shift: Float64[np.ndarray, " f"]) -> Float64[np.ndarray, "w f"]:
    """Overlap of two pupils by waves of defocus and by their shift [radius], without any fading.

    Args:
        shift: 0..2.
    """
    node, weight = np.polynomial.legendre.leggauss(NODES)
    end = 1.0 - 0.5 * shift
    # x = end * sin(t) takes the root at the end of the overlap away, where its slope has no bound
    t = 0.25 * np.pi * (node + 1)
    x = end[:, np.newaxis] * np.sin(t)
    height = np.sqrt(np.clip(1.0 - (x + 0.5 * shift[:, np.newaxis]) ** 2, 0.0, None))
    # a quarter of pi, of the interval, times 4 / pi, of the pupil, is 1
    area = height * end[:, np.newaxis] * np.cos(t) * weight
    # cos(n p) from the two before it, which is three times as fast as a cosine
    twice = 2.0 * np.cos(WAVES_STEP * 4.0 * np.pi * shift[:, np.newaxis] * x)
    before, now = area * 0.5 * twice, area
    table = np.empty((round(WAVES / WAVES_STEP) + 2, len(shift)))
    for row in table:
        row[:] = now.sum(axis=1)
        before, now = now, twice * now - before
    return table


def transfer(lens: Lens, dz_um: float, frequency: np.ndarray) -> Float32[np.ndarray, "..."]:
    """What is left of each spatial frequency.

    Args:
        lens: The objective.
        dz_um: Distance from the plane of focus [um]
        frequency: [1/um]
    """
    waves = lens.waves(dz_um)
    cutoff = 2.0 * lens.na / lens.wavelength_um
    share = np.linspace(0.0, 1.0, FINER * (FREQUENCIES - 1) + 1)
    if waves <= WAVES:
        table = transfer_table()
        row = waves / WAVES_STEP
        first = int(row)
        coarse = table[first] + (row - first) * (table[first + 1] - table[first])
        # straight lines between so few frequencies would put faint copies of the light far away
        line = make_interp_spline(share[::FINER], coarse)(share)
    else:
        a = np.maximum(2.0 * np.pi * cutoff * share * abs(dz_um) * lens.na * (1.0 - share), 1e-6)
        line = 2.0 * j1(a) / a * _focused(share)
    return np.interp(frequency * ((len(line) - 1) / cutoff), np.arange(len(line)), line, right=0.0).astype(np.float32)


def _focused(share: np.ndarray) -> np.ndarray:
    """Transfer in focus, frequencies in units of the cutoff."""
    share = np.clip(share, 0.0, 1.0)
    return (2.0 / np.pi) * (np.arccos(share) - share * np.sqrt(1.0 - share * share))
