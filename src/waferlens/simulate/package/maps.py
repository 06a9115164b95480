"""What a surface is to light: reflectance by colour, height, and how much it scatters beside the mirror's direction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from waferlens.simulate.package.frame import Window


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """The surface at every pixel, before any lens."""

    albedo: Float32[np.ndarray, "3 h w"]
    """Reflectance, linear."""
    height: Float32[np.ndarray, "h w"]
    """[px]"""
    scatter: Float32[np.ndarray, "h w"]
    """Light scattered into a darkfield objective."""

    def copy(self) -> Maps:
        return Maps(self.albedo.copy(), self.height.copy(), self.scatter.copy())

    def lay(
        self,
        window: Window,
        cover: Float32[np.ndarray, "h w"],
        colour: Float[np.ndarray, "3"] | Float32[np.ndarray, "3 h w"] | tuple[float, float, float],
        scatter: float | Float32[np.ndarray, "h w"],
    ) -> None:
        """Lays a material over what is there."""
        told = np.asarray(colour, np.float32)
        if told.ndim == 1:
            told = told[:, np.newaxis, np.newaxis]
        albedo, scattered = self.albedo[:, *window], self.scatter[window]
        albedo += (told - albedo) * cover
        scattered += (np.asarray(scatter, np.float32) - scattered) * cover
