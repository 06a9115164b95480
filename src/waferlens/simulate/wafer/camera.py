"""From light to grey: smear of the scan, glare, shading, noise, gain of the rows, 16 bits.

The line camera scans along x, so smear goes along x, and shading and gain belong to rows. Noise is that of a native
pixel; a pixel of a coarser grid is the mean of many, with their noise averaged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, UInt16

from waferlens.simulate.wafer.scene import NATIVE_PITCH_UM

WHITE = 0.9
"""Radiance that fills the well and is white; no reflectance drawn exceeds it."""
FULL_SCALE = 65535.0
ROW_KNOTS = 512
"""Independent gains along the line; between them they are interpolated, so that every grid sees the same pattern."""
PARTS = 8
"""Of a row, over which its gain is averaged."""


@dataclass(frozen=True, slots=True)
class Camera:
    """The camera of a world."""

    shading: float = 0.06
    tdi_row_noise: float = 0.006
    glare: float = 0.03
    smear_um: float = 1.5
    full_well_e: float = 25000.0
    read_e: float = 12.0
    gamma: float = 1.0


def acquire(
    ideal: Float32[np.ndarray, "h w"],
    camera: Camera,
    pitch_um: float,
    instrument: np.random.Generator,
    noise: np.random.Generator | None,
) -> UInt16[np.ndarray, "h w"]:
    """The picture the camera takes.

    Args:
        ideal: Light on the camera; `WHITE` fills its wells.
        camera: The camera.
        pitch_um: Of the grid [um]
        instrument: Draws what belongs to this camera on this day; its draws do not depend on the grid.
        noise: Draws the noise; None leaves it out.
    """
    h = ideal.shape[0]
    light = _smeared(ideal, camera.smear_um / pitch_um)
    light = light * np.float32(1 - camera.glare) + np.float32(camera.glare * float(light.mean()))
    y = (np.arange(h * PARTS, dtype=np.float64) + 0.5) / (h * PARTS)
    bend, slope = instrument.uniform(-1, 1, 2)
    shade = 1 + camera.shading * (0.7 * bend * (4 * (y - 0.5) ** 2 - 1 / 3) + 0.6 * slope * (y - 0.5))
    gains = 1 + camera.tdi_row_noise * instrument.standard_normal(ROW_KNOTS)
    rows = np.interp(y * ROW_KNOTS - 0.5, np.arange(ROW_KNOTS), gains)
    gain = camera.full_well_e / WHITE * (shade * rows).reshape(h, PARTS).mean(axis=1)
    electrons = light * gain[:, np.newaxis].astype(np.float32)
    if noise is not None:
        averaged = NATIVE_PITCH_UM / pitch_um
        spread = np.sqrt(np.maximum(electrons, 0) + np.float32(camera.read_e**2)) * np.float32(averaged)
        electrons = electrons + spread * noise.standard_normal(electrons.shape, np.float32)
    share = np.clip(electrons / np.float32(camera.full_well_e), 0.0, 1.0)
    if camera.gamma != 1.0:
        share = share ** np.float32(camera.gamma)
    return np.rint(share * np.float32(FULL_SCALE)).astype(np.uint16)


def _smeared(image: Float32[np.ndarray, "h w"], length_px: float) -> Float32[np.ndarray, "h w"]:
    """A mean over a length along x; the image between its pixels is a cubic, so parts of pixels are exact in rms."""
    if length_px < 1e-3:
        return image
    shift = length_px * ((np.arange(64) + 0.5) / 64 - 0.5)
    half = math.ceil(0.5 * length_px + 1.0)
    away = np.abs(np.arange(-half, half + 1)[:, np.newaxis] - shift)
    near, far = (1.5 * away - 2.5) * away**2 + 1.0, ((2.5 - 0.5 * away) * away - 4.0) * away + 2.0
    kernel = np.where(away < 1, near, np.where(away < 2, far, 0.0)).mean(axis=1)
    box = (kernel / kernel.sum())[np.newaxis].astype(np.float32)
    return cv2.filter2D(image, -1, box, borderType=cv2.BORDER_REFLECT_101)
