"""From light to picture: shading, point spread, electrons, noise, mosaic, gamma, 8 bits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from waferlens.recipe.package_world import Microscope
from waferlens.simulate.streams import uniform

GAMMA = 2.2
CHROMATIC = 0.06
"""By how much the point spread grows from red to green to blue."""
_LEVELS = 65535
_GREY = np.rint(255.0 * (np.arange(_LEVELS + 1) / _LEVELS) ** (1.0 / GAMMA)).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Camera:
    """The microscope as it stood when an image was taken."""

    blur_px: float
    """Standard deviation of the point spread in red [px]"""
    gains: tuple[float, float, float]
    """Exposure and white balance."""
    shading: float
    bright_at: tuple[float, float]
    """Where the light is brightest, as shares of width and height."""
    full_well_e: float
    read_e: float
    bayer: bool
    jpeg: int | None


def draw_camera(spec: Microscope, rng: np.random.Generator) -> Camera:
    """The microscope of one image."""
    blur, shading, exposure = uniform(rng, spec.blur_px), uniform(rng, spec.shading), uniform(rng, spec.exposure_ev)
    balance = 1.0 + spec.white_balance * rng.uniform(-1, 1, 3)
    at, quality = 0.5 + 0.15 * rng.uniform(-1, 1, 2), rng.random()
    gains = balance * 2.0**exposure
    jpeg = None
    if spec.jpeg is not None:
        jpeg = int(spec.jpeg[0] + quality * (spec.jpeg[1] - spec.jpeg[0] + 1 - 1e-9))
    return Camera(
        blur,
        (float(gains[0]), float(gains[1]), float(gains[2])),
        shading,
        (float(at[0]), float(at[1])),
        spec.full_well_e,
        spec.read_e,
        spec.bayer,
        jpeg,
    )


def spread(light: Float32[np.ndarray, "3 h w"], blur_px: float) -> Float32[np.ndarray, "3 h w"]:
    """Light after the lens: each colour has its own point spread."""
    if blur_px == 0.0:
        return light
    out = np.empty_like(light)
    for channel in range(3):
        sigma = blur_px * (1.0 + CHROMATIC * channel)
        side = 2 * math.ceil(4.0 * sigma) + 1
        out[channel] = cv2.GaussianBlur(light[channel], (side, side), sigma, borderType=cv2.BORDER_REFLECT_101)
    return out


def acquire(
    light: Float32[np.ndarray, "3 h w"], camera: Camera, noise: np.random.Generator | None
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture the camera takes: red, green, blue.

    Args:
        light: Before the lens; 1 fills the wells.
        camera: The microscope.
        noise: Draws the noise; None leaves it out.
    """
    _, h, w = light.shape
    electrons = spread(light, camera.blur_px)
    x = (np.arange(w) / w - camera.bright_at[0]).astype(np.float32)
    y = (np.arange(h) / h - camera.bright_at[1]).astype(np.float32)[:, np.newaxis]
    electrons *= np.float32(1.0) - np.float32(2.0 * camera.shading) * (x * x + y * y)
    electrons *= (camera.full_well_e * np.array(camera.gains, np.float32))[:, np.newaxis, np.newaxis]
    if camera.bayer:
        return _compressed(cv2.cvtColor(_quantised(noisy(_mosaic(electrons), camera, noise), camera),
                                        cv2.COLOR_BayerBG2RGB), camera, linear=True)  # fmt: skip
    counts = _quantised(noisy(electrons, camera, noise), camera)
    return _compressed(cv2.merge([_GREY[one] for one in counts]), camera, linear=False)


def noisy(electrons: np.ndarray, camera: Camera, noise: np.random.Generator | None) -> np.ndarray:
    """Shot and read noise from one normal draw a pixel, so that a pixel's draw does not depend on its light.

    The square of a shifted normal has the mean of a Poisson count exactly, its variance but for 1/4, and its skew.
    """
    if noise is None:
        return electrons
    read = np.float32(camera.read_e**2)
    root = noise.standard_normal(electrons.shape, np.float32)
    root *= np.float32(0.5)
    root += np.sqrt(np.maximum(electrons, 0) + (read + np.float32(0.125)))
    np.square(root, out=root)
    root -= read + np.float32(0.375)
    return root


def _mosaic(electrons: Float32[np.ndarray, "3 h w"]) -> Float32[np.ndarray, "h w"]:
    """One colour a pixel: red at even rows and columns, blue at odd ones, green between."""
    seen = electrons[1].copy()
    seen[0::2, 0::2] = electrons[0, 0::2, 0::2]
    seen[1::2, 1::2] = electrons[2, 1::2, 1::2]
    return seen


def _quantised(electrons: np.ndarray, camera: Camera) -> np.ndarray:
    scaled = electrons * np.float32(_LEVELS / camera.full_well_e)
    scaled += np.float32(0.5)
    np.clip(scaled, 0, _LEVELS, out=scaled)
    return scaled.astype(np.uint16)


def _compressed(picture: np.ndarray, camera: Camera, *, linear: bool) -> UInt8[np.ndarray, "h w 3"]:
    if linear:
        picture = _GREY[picture]
    if camera.jpeg is None:
        return picture
    _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, camera.jpeg])
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
