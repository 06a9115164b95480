"""Areal height parameters of a surface whose form has been removed.

Heights are counted from the mean of the valid points. Which form and which wavelengths are left in the surface is the
caller's business and belongs beside every number: a parameter without its filters means nothing.

Source: ISO 25178-2:2021, 4.2 (height parameters).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from waferlens.ops.surface import known_points


@dataclass(frozen=True, slots=True)
class HeightParameters:
    """The height parameters; NaN where the points do not define one."""

    points: int
    Sa: float
    """Arithmetic mean height [unit of the heights]"""
    Sq: float
    """Root mean square height [unit of the heights]"""
    Sp: float
    """Height of the highest peak above the mean [unit of the heights]"""
    Sv: float
    """Depth of the deepest pit below the mean, positive [unit of the heights]"""
    Ssk: float
    """Skewness: 0 for a symmetric surface, negative for plateaus with pits"""
    Sku: float
    """Kurtosis: 3 for a Gaussian surface, more where peaks or pits are rare and sharp"""

    @property
    def Sz(self) -> float:
        """Maximum height, Sp + Sv [unit of the heights]"""
        return self.Sp + self.Sv


def height_parameters(
    heights: Float[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"] | None = None
) -> HeightParameters:
    """Sa, Sq, Sp, Sv, Sz, Ssk and Sku of the valid points about their mean."""
    z = heights[known_points(heights, valid)].astype(np.float64)
    if z.size == 0:
        return HeightParameters(0, *(math.nan,) * 6)
    offset = float(z.mean())
    z -= offset
    # A mean taken far from zero is rounded; taken again near zero it is exact.
    z -= z.mean()
    low, high = float(z.min()), float(z.max())
    square = z * z
    variance = float(square.mean())
    Sq = math.sqrt(variance)
    Sa = float(np.abs(z).mean())
    # A flat surface has no skewness; what is left of it after rounding has a random one.
    if Sq <= 1e-15 * max(abs(offset), high - low, 1e-300):
        return HeightParameters(z.size, Sa, Sq, high, -low, math.nan, math.nan)
    Ssk = float((square * z).mean()) / (variance * Sq)
    Sku = float((square * square).mean()) / (variance * variance)
    return HeightParameters(z.size, Sa, Sq, high, -low, Ssk, Sku)
