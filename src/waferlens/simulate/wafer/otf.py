"""Optical transfer of a lens out of focus: how much of each spatial frequency is left at each distance.

The exact incoherent transfer of a round pupil with a defocus of W20 waves is the overlap of two shifted pupils with the
difference of their phases; along the shift it is one integral. Far out of focus it is the transfer of a disc of light,
smaller the less of the two pupils overlaps, times the transfer in focus: within 0.002 of the integral.

Source: Hopkins, Proc. R. Soc. A 231 (1955) 91; Stokseth, J. Opt. Soc. Am. 59 (1969) 1314.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Float64
from scipy.special import j1

WAVES = 8.0
"""Beyond so many waves of defocus, the transfer of a disc is near enough."""
WAVES_STEP = 0.05
FREQUENCIES = 512
NODES = 320


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

    def waves(self, dz_um: float) -> float:
        """W20 in wavelengths at a distance from focus."""
        return abs(dz_um) * self.na**2 / (2.0 * self.wavelength_um)


@lru_cache
def transfer_table() -> Float64[np.ndarray, "w f"]:
    """Transfer by waves of defocus and by frequency, in units of the cutoff 2 NA / wavelength."""
    s = np.linspace(0.0, 2.0, FREQUENCIES)  # shift of the pupils in radii
    node, weight = np.polynomial.legendre.leggauss(NODES)
    end = 1.0 - 0.5 * s
    # x = end * sin(t) takes the root at the end of the overlap away, where its slope has no bound
    t = 0.25 * np.pi * (node + 1)
    x = end[:, np.newaxis] * np.sin(t)
    height = np.sqrt(np.clip(1.0 - (x + 0.5 * s[:, np.newaxis]) ** 2, 0.0, None))
    area = height * end[:, np.newaxis] * np.cos(t) * 0.25 * np.pi * weight
    # cos(n p) from the two before it, which is three times as fast as a cosine
    twice = 2.0 * np.cos(WAVES_STEP * 4.0 * np.pi * s[:, np.newaxis] * x)
    before, now = area * 0.5 * twice, area
    table = np.empty((round(WAVES / WAVES_STEP) + 2, FREQUENCIES))
    for row in table:
        row[:] = now.sum(axis=1)
        before, now = now, twice * now - before
    return table * (4.0 / np.pi)


def transfer(lens: Lens, dz_um: float, frequency: np.ndarray) -> Float32[np.ndarray, "..."]:
    """What is left of each spatial frequency.

    Args:
        lens: The objective.
        dz_um: Distance from the plane of focus [um]
        frequency: [1/um]
    """
    waves = lens.waves(dz_um)
    cutoff = 2.0 * lens.na / lens.wavelength_um
    place = frequency * ((FREQUENCIES - 1) / cutoff)
    if waves <= WAVES:
        table = transfer_table()
        row = waves / WAVES_STEP
        first = int(row)
        line = table[first] + (row - first) * (table[first + 1] - table[first])
    else:
        share = np.linspace(0.0, 1.0, FREQUENCIES * 4)
        a = np.maximum(2.0 * np.pi * cutoff * share * abs(dz_um) * lens.na * (1.0 - share), 1e-6)
        line = 2.0 * j1(a) / a * _focused(share)
        place = place * ((len(line) - 1) / (FREQUENCIES - 1))
    return np.interp(place, np.arange(len(line)), line, right=0.0).astype(np.float32)


def _focused(share: np.ndarray) -> np.ndarray:
    """Transfer in focus, frequencies in units of the cutoff."""
    share = np.clip(share, 0.0, 1.0)
    return (2.0 / np.pi) * (np.arccos(share) - share * np.sqrt(1.0 - share * share))
