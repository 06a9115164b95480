"""Three lights: brightfield, darkfield white, darkfield blue.

Brightfield sees what a surface sends straight back: slopes are dark. Darkfield sees edges, rough surfaces and little of
what is flat. Constants as measured against the description of S2 (mean colours of the three kinds of image).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from waferlens.simulate.package.frame import Window
from waferlens.simulate.package.maps import Maps

LIGHTS = ("bf", "dfw", "dfb")
"""In the order they are taken: brightfield, darkfield white, darkfield blue."""
BRIGHT_TINT = np.array([0.92, 1.0, 0.86], np.float32)[:, np.newaxis, np.newaxis]
DARK = {"dfw": (0.62, (1.0, 0.50, 0.16)), "dfb": (0.80, (0.025, 0.16, 1.0))}
"""Strength and colour of each darkfield light."""
ACCEPTED_SLOPE = np.float32(2.2)
"""Slope at which half of the light is lost [px/px]"""
GREATEST_SLOPE = np.float32(6.0)
"""Beyond it an edge scatters no more [px/px]"""


def slopes(height: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Steepness of a surface: central differences, one-sided at the image's edge."""
    dy, dx = np.empty_like(height), np.empty_like(height)
    np.subtract(height[2:], height[:-2], out=dy[1:-1])
    dy[1:-1] *= 0.5
    dy[0], dy[-1] = height[1] - height[0], height[-1] - height[-2]
    np.subtract(height[:, 2:], height[:, :-2], out=dx[:, 1:-1])
    dx[:, 1:-1] *= 0.5
    dx[:, 0], dx[:, -1] = height[:, 1] - height[:, 0], height[:, -1] - height[:, -2]
    return np.sqrt(dx * dx + dy * dy)


def lit(
    maps: Maps, slope: Float32[np.ndarray, "h w"], light: str, window: Window | None = None
) -> Float32[np.ndarray, "3 h w"]:
    """Light that leaves the surface towards the camera; 1 is white.

    Args:
        maps: The surface.
        slope: Of its whole height.
        light: `bf`, `dfw` or `dfb`.
        window: Pixels that are asked for; all if None.
    """
    rows, columns = window or (slice(None), slice(None))
    albedo, scatter, slope = maps.albedo[:, rows, columns], maps.scatter[rows, columns], slope[rows, columns]
    if light == "bf":
        back = 1.15 / (1.0 + np.square(slope / ACCEPTED_SLOPE))
        return albedo * back * BRIGHT_TINT + (np.float32(0.115) * scatter + np.float32(0.0015))
    strength, tint = DARK[light]
    mean = albedo.mean(axis=0)
    glow = scatter + np.float32(0.006) * np.minimum(slope, GREATEST_SLOPE) + np.float32(0.012) * mean
    glow *= np.float32(strength)
    coloured = albedo * (np.float32(0.4) * glow / np.maximum(mean, np.float32(1e-6)))
    coloured += np.float32(0.6) * glow
    coloured *= np.array(tint, np.float32)[:, np.newaxis, np.newaxis]
    return coloured
