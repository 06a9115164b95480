"""Thin lines of changing width, drawn by their exact distance at each pixel around them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from waferlens.simulate.package.frame import Lens, Window, window_of

FAR = np.float32(1e3)
LONGEST_PX = 3.0
"""Segments are cut to this length, so that few pixels around each have to be asked [px]"""


@dataclass(frozen=True, slots=True, eq=False)
class Stroke:
    """Lines as the pixels around them see them."""

    window: Window
    side_px: Float32[np.ndarray, "h w"]
    """Distance from the nearest centre line, positive to the left of its way as seen in `h w` axes; `FAR` beyond reach
    [px]"""
    half_px: Float32[np.ndarray, "h w"]
    """Half the width of the line there [px]"""
    along: Float32[np.ndarray, "h w"]
    """How far along it, 0 .. 1."""

    @property
    def away_px(self) -> Float32[np.ndarray, "h w"]:
        """Distance from the centre line [px]"""
        return np.abs(self.side_px)

    @property
    def cover(self) -> Float32[np.ndarray, "h w"]:
        """Share of each pixel that the line covers."""
        away, half = self.away_px, self.half_px
        return np.maximum(np.minimum(half, away + 0.5) - np.maximum(-half, away - 0.5), 0.0)


def stroke(
    paths: list[tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]], reach_px: float, lens: Lens
) -> Stroke:
    """Draws polylines.

    Args:
        paths: Points [px] and half widths there [px], of each line.
        reach_px: How far beyond its edge a line is still asked for [px]
        lens: The image.
    """
    a, b, half_a, half_b, along_a, along_b = _segments(paths)
    reach = max(float(half_a.max()), float(half_b.max())) + reach_px + 0.5 * LONGEST_PX + 1.0
    window = window_of(np.concatenate([a, b]), reach, lens)
    h, w = window[0].stop - window[0].start, window[1].stop - window[1].start
    side, half, along = np.full((h, w), FAR), np.zeros((h, w), np.float32), np.zeros((h, w), np.float32)
    if h <= 0 or w <= 0:
        return Stroke(window, side.reshape(max(h, 0), max(w, 0)), half, along)
    near = np.arange(-math.ceil(reach), math.ceil(reach) + 1)
    middle = np.rint(0.5 * (a + b)).astype(int)
    x = middle[:, 0, np.newaxis, np.newaxis] + near
    y = middle[:, 1, np.newaxis, np.newaxis] + near[:, np.newaxis]
    x, y = np.broadcast_arrays(x, y)
    dx, dy = (b - a).T[:, :, np.newaxis, np.newaxis]
    px, py = x - a[:, 0, np.newaxis, np.newaxis], y - a[:, 1, np.newaxis, np.newaxis]
    t = np.clip((px * dx + py * dy) / np.maximum(dx * dx + dy * dy, 1e-12), 0.0, 1.0)
    distance = np.hypot(px - t * dx, py - t * dy)
    column, row = x - window[1].start, y - window[0].start
    inside = (column >= 0) & (column < w) & (row >= 0) & (row < h) & (distance <= reach)
    number, *_ = np.nonzero(inside)
    place, distance, t = (row * w + column)[inside], distance[inside], t[inside]
    left = np.where((dx * py - dy * px)[inside] >= 0, 1.0, -1.0)
    order = np.argsort(-distance, kind="stable")  # the nearest is written last
    place, number, t = place[order], number[order], t[order]
    side.flat[place] = (left * distance)[order]
    half.flat[place] = half_a[number] + t * (half_b - half_a)[number]
    along.flat[place] = along_a[number] + t * (along_b - along_a)[number]
    return Stroke(window, side, half, along)


def _segments(paths: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, ...]:
    parts: list[tuple[np.ndarray, ...]] = []
    for points, half in paths:
        length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
        count = max(math.ceil(length[-1] / LONGEST_PX), 1)
        if np.diff(length).max() > LONGEST_PX:
            at = np.unique(np.concatenate([length, np.linspace(0, length[-1], count + 1)]))
            points = np.stack([np.interp(at, length, points[:, axis]) for axis in (0, 1)], axis=1)
            half = np.interp(at, length, half)
            length = at
        share = length / max(length[-1], 1e-9)
        parts.append((points[:-1], points[1:], half[:-1], half[1:], share[:-1], share[1:]))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
