"""Where things lie: a part's own coordinates and the pixels of the image, through turn, scale and distortion.

A part's coordinates are nominal pixels from its centre, u to the right and v down while it stands upright. Nothing is
ever drawn upright and then turned: every outline is evaluated at the pixels of the turned part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32

Window = tuple[slice, slice]
"""Rows and columns of the image."""


@dataclass(frozen=True, slots=True)
class Lens:
    """Radial distortion about the image's centre."""

    width_px: int
    height_px: int
    k1: float = 0.0
    """The ideal place is that of the pixel times 1 + k1 (r / half diagonal)²."""

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the image [px]"""
        return 0.5 * (self.width_px - 1), 0.5 * (self.height_px - 1)

    @property
    def radius_px(self) -> float:
        """Half of the diagonal [px]"""
        return 0.5 * math.hypot(self.width_px, self.height_px)

    @property
    def whole(self) -> Window:
        """The whole image."""
        return slice(0, self.height_px), slice(0, self.width_px)

    def pixel_of(self, ideal: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Where ideal points fall on the sensor: the inverse, by fixed-point iteration."""
        if self.k1 == 0.0:
            return np.asarray(ideal, np.float64)
        away = np.asarray(ideal, np.float64) - self.centre
        found = away.copy()
        for _ in range(30):  # a factor of 3 k1 an iteration
            r2 = (found**2).sum(axis=1, keepdims=True) / self.radius_px**2
            found = away / (1.0 + self.k1 * r2)
        return found + self.centre


@dataclass(frozen=True, slots=True)
class Frame:
    """The coordinates of one part."""

    centre: tuple[float, float]
    """Of the part in the ideal image [px]"""
    angle_deg: float
    """Counter-clockwise as seen [deg]"""
    lens: Lens
    scale: float = 1.0
    """Pixels a nominal pixel."""

    def part(self, centre: tuple[float, float], angle_deg: float) -> Frame:
        """The frame of a part of this part, at a place and an angle of its own."""
        ideal = self._ideal(np.array([centre]))[0]
        return Frame((float(ideal[0]), float(ideal[1])), self.angle_deg + angle_deg, self.lens, self.scale)

    def pixel_of(self, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Pixels of points of the part."""
        return self.lens.pixel_of(self._ideal(np.asarray(points, np.float64)))

    def quad(self, half_u: float, half_v: float) -> Float[np.ndarray, "4 2"]:
        """Corners of a rectangle about the centre: tl, tr, br, bl of the upright part."""
        return self.pixel_of(np.array([(-half_u, -half_v), (half_u, -half_v), (half_u, half_v), (-half_u, half_v)]))

    def window(self, u0: float, v0: float, u1: float, v1: float, margin: float = 2.0) -> Window:
        """The pixels that a rectangle of the part can touch; empty where it lies outside of the image."""
        corners = self.pixel_of(np.array([(u0, v0), (u1, v0), (u1, v1), (u0, v1)]))
        # between its corners a distorted side bows out by less than the distortion at the image's corner
        margin += 4.0 * abs(self.lens.k1) * self.lens.radius_px
        return window_of(corners, margin, self.lens)

    def coordinates(self, window: Window) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
        """The part's coordinates, u and v, of the pixels of a window."""
        x0, y0 = self.lens.centre
        x = np.arange(window[1].start, window[1].stop, dtype=np.float64)
        y = np.arange(window[0].start, window[0].stop, dtype=np.float64)[:, np.newaxis]
        turn = math.radians(self.angle_deg)
        cos, sin = math.cos(turn) / self.scale, math.sin(turn) / self.scale
        if self.lens.k1 == 0.0:
            x, y = x - self.centre[0], y - self.centre[1]
            # sums of a row and a column, rounded once
            return (x * cos - y * sin).astype(np.float32), (x * sin + y * cos).astype(np.float32)
        x, y = x - x0, y - y0
        grow = 1.0 + self.lens.k1 / self.lens.radius_px**2 * (x * x + y * y)
        x, y = x * grow + (x0 - self.centre[0]), y * grow + (y0 - self.centre[1])
        return (x * cos - y * sin).astype(np.float32), (x * sin + y * cos).astype(np.float32)

    def _ideal(self, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        turn = math.radians(self.angle_deg)
        cos, sin = math.cos(turn) * self.scale, math.sin(turn) * self.scale
        u, v = points[:, 0], points[:, 1]
        return np.stack([self.centre[0] + u * cos + v * sin, self.centre[1] - u * sin + v * cos], axis=1)


def window_of(points: Float[np.ndarray, "n 2"], margin: float, lens: Lens) -> Window:
    """The pixels within a margin of the box about some points."""
    low, high = np.floor(points.min(axis=0) - margin), np.ceil(points.max(axis=0) + margin)
    x0, x1 = np.clip((low[0], high[0] + 1), 0, lens.width_px).astype(int)
    y0, y1 = np.clip((low[1], high[1] + 1), 0, lens.height_px).astype(int)
    return slice(int(y0), int(y1)), slice(int(x0), int(x1))


def is_empty(window: Window) -> bool:
    """Whether a window has no pixels."""
    return window[0].stop <= window[0].start or window[1].stop <= window[1].start


def ramp(inside: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Share of a pixel that lies inside an edge: 0 half a pixel outside, 1 half a pixel inside."""
    return np.clip(inside + np.float32(0.5), 0.0, 1.0)


def box_cover(
    u: Float32[np.ndarray, "h w"], v: Float32[np.ndarray, "h w"], u0: float, v0: float, u1: float, v1: float
) -> Float32[np.ndarray, "h w"]:
    """Share of each pixel that an upright rectangle covers."""
    return ramp(np.minimum(u - np.float32(u0), np.float32(u1) - u)) * ramp(
        np.minimum(v - np.float32(v0), np.float32(v1) - v)
    )


def rounded_distance(
    u: Float32[np.ndarray, "h w"], v: Float32[np.ndarray, "h w"], half_u: float, half_v: float, radius: float
) -> Float32[np.ndarray, "h w"]:
    """Signed distance from a rectangle with round corners about the origin, positive outside."""
    du, dv = np.abs(u) - np.float32(half_u - radius), np.abs(v) - np.float32(half_v - radius)
    corner = np.sqrt(np.square(np.maximum(du, 0)) + np.square(np.maximum(dv, 0)))
    return corner + np.minimum(np.maximum(du, dv), 0) - np.float32(radius)


def box_of(mask: Bool[np.ndarray, "h w"], window: Window) -> tuple[float, float, float, float]:
    """Outer edges of the pixels of a mask in a window: x0 y0 x1 y1 [px]"""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = window[1].start, window[0].start
    return x + columns[0] - 0.5, y + rows[0] - 0.5, x + columns[-1] + 0.5, y + rows[-1] + 0.5
