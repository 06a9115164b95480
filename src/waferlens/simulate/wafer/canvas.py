"""What a scene is drawn on: heights and reflectances of every pixel, and how surfaces are laid over one another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32


@dataclass(frozen=True, slots=True, eq=False)
class Raster:
    """A scene on a grid."""

    height_um: Float32[np.ndarray, "h w"]
    """Above the carrier's plane, mean over the pixel: the truth [um]"""
    over_um: Float32[np.ndarray, "h w"]
    """Above the carrier's plane, of the surface on top [um]

    A pixel on the edge of a level holds two surfaces and none between them: at their mean it would have a blur of its
    own.
    """
    under_um: Float32[np.ndarray, "h w"]
    """Of the surface beside the one on top; told on edges of levels only [um]"""
    share: Float32[np.ndarray, "h w"]
    """Of each pixel, what the surface on top covers; 1 off edges."""
    reflectance: Float32[np.ndarray, "h w"]
    """0..1, of light that comes back into the pupil: walls are dark rims in it, and what tilts is darker."""
    under_reflectance: Float32[np.ndarray, "h w"]
    """Of the surface beside the one on top; told on edges only."""

    @property
    def surface_um(self) -> Float32[np.ndarray, "h w"]:
        """Of what covers most of the pixel: what the sensor sees [um]"""
        return np.where(self.share >= 0.5, self.over_um, self.under_um)


def coverage(low: float, high: float, pitch: float, count: int) -> tuple[int, Float32[np.ndarray, " n"]]:
    """Which pixels an interval covers, and how much of each: the first pixel, and the shares from there on."""
    first = int(np.clip(math.floor(low / pitch), 0, count))
    last = int(np.clip(math.ceil(high / pitch), 0, count))
    edges = np.arange(first, last + 1) * pitch
    length = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
    return first, (np.maximum(length, 0.0) / pitch).astype(np.float32)


def blend(under: np.ndarray, over: np.ndarray | np.float32, share: np.ndarray) -> None:
    under += share * (over - under)
