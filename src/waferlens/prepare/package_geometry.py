"""How a package, or a whole image, comes to lie in a detector's input: one geometry for training and inspection.

A region (four corners: of the package, or of the image) is turned upright, scaled with its ratio kept until it fits,
and laid in the middle of the input; what is left over is grey. The way there is one projective map, and points and
boxes go both ways by the same map. Corners of a region are outer edges, as everywhere in the house: of an image of
w x h pixels they are -0.5 -0.5 and w - 0.5 h - 0.5.

Where the image is finer than the input, it is sampled several times along each side of an input pixel and averaged:
a crack thinner than a pixel pales, and never falls between two samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64

from waferlens.ops.roi_record import homography_of, mapped

FILL = 114 / 255
"""Grey of what shows no part of the region, as a share of white."""
MOST_SAMPLES = 16
"""Samples along each side of a pixel of the input, at the most."""
CORNERS = ((0, 1), (2, 1), (2, 3), (0, 3))
"""Places of x and y of the corners in a box, from the upper left clockwise as seen."""


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a region lies in the input."""

    matrix: Float64[np.ndarray, "3 3"]
    """From pixels of the image to pixels of the input."""
    inner: tuple[int, int, int, int]
    """x0 y0 x1 y1 of the input's pixels that show the region, the last ones not included [px]"""
    height_px: int
    """Rows of the input [px]"""
    width_px: int
    """Columns of the input [px]"""

    @property
    def inner_box(self) -> tuple[float, float, float, float]:
        """Outer edges of what shows the region [px]"""
        x0, y0, x1, y1 = self.inner
        return x0 - 0.5, y0 - 0.5, x1 - 0.5, y1 - 0.5

    @cached_property
    def inverse(self) -> Float64[np.ndarray, "3 3"]:
        """From pixels of the input to pixels of the image."""
        return np.linalg.inv(self.matrix)

    @cached_property
    def scale(self) -> float:
        """Pixels of the input a pixel of the image, in the middle of the region."""
        x0, y0, x1, y1 = self.inner_box
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        around = self.to_image(np.array([(x - 0.5, y), (x + 0.5, y), (x, y - 0.5), (x, y + 0.5)]))
        across, down = around[1] - around[0], around[3] - around[2]
        return 1.0 / math.sqrt(abs(across[0] * down[1] - across[1] * down[0]))

    def to_input(self, points: Float[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
        """Points of the image in the input [px]"""
        return mapped(self.matrix, np.asarray(points, np.float64))

    def to_image(self, points: Float[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
        """Points of the input in the image [px]"""
        return mapped(self.inverse, np.asarray(points, np.float64))

    def quads_to_image(self, boxes: Float[np.ndarray, "n 4"]) -> Float64[np.ndarray, "n 4 2"]:
        """Corners of boxes of the input in the image, from the upper left of the upright part clockwise [px]"""
        return self.to_image(_corners(boxes)).reshape(-1, 4, 2)

    def boxes_to_image(self, boxes: Float[np.ndarray, "n 4"]) -> Float64[np.ndarray, "n 4"]:
        """Upright boxes in the image around boxes of the input: larger ones, where the region is turned [px]"""
        return _boxes_around(self.quads_to_image(boxes))

    def boxes_to_input(self, boxes: Float[np.ndarray, "n 4"]) -> Float64[np.ndarray, "n 4"]:
        """Boxes in the input around boxes of the image; an outline, where it is known, is closer [px]"""
        return _boxes_around(self.to_input(_corners(boxes)).reshape(-1, 4, 2))

    def moved(self, motion: Float[np.ndarray, "3 3"]) -> Placement:
        """The same frame with what it shows moved in it.

        Args:
            motion: From pixels of the input to pixels of the input.
        """
        return Placement(motion @ self.matrix, self.inner, self.height_px, self.width_px)


def placed(quad: Float[np.ndarray, "4 2"], height_px: int, width_px: int) -> Placement:
    """Lays an upright region into an input.

    Args:
        quad: Corners of the region: upper left, upper right, lower right, lower left of the upright part [px]
        height_px: Rows of the input [px]
        width_px: Columns of the input [px]
    """
    quad = np.asarray(quad, np.float64)
    upper, right, lower, left = (math.dist(quad[one], quad[(one + 1) % 4]) for one in range(4))
    w, h = (upper + lower) / 2, (left + right) / 2
    scale = min(width_px / w, height_px / h)
    columns, rows = (max(1, min(whole, round(scale * side))) for whole, side in ((width_px, w), (height_px, h)))
    x, y = (width_px - columns) // 2, (height_px - rows) // 2
    matrix = _shift(x, y) @ homography_of(quad, (columns, rows))
    return Placement(matrix / matrix[2, 2], (x, y, x + columns, y + rows), height_px, width_px)


def placed_whole(image_height_px: int, image_width_px: int, height_px: int, width_px: int) -> Placement:
    """Lays a whole image into an input.

    Args:
        image_height_px: Rows of the image [px]
        image_width_px: Columns of the image [px]
        height_px: Rows of the input [px]
        width_px: Columns of the input [px]
    """
    return placed(image_quad(image_height_px, image_width_px), height_px, width_px)


def image_quad(height_px: int, width_px: int) -> Float64[np.ndarray, "4 2"]:
    """Outer corners of an image, from the upper left clockwise [px]"""
    x, y = width_px - 0.5, height_px - 0.5
    return np.array([(-0.5, -0.5), (x, -0.5), (x, y), (-0.5, y)])


def shown(
    image: np.ndarray,
    placement: Placement,
    full_scale: float = 255.0,
    displacement: Float32[np.ndarray, "h w 2"] | None = None,
    *,
    nearest: bool = False,
) -> np.ndarray:
    """What the input shows.

    Args:
        image: `h w` or `h w c`, uint8, uint16 or float32.
        placement: Where the region lies.
        full_scale: Grey value of white.
        displacement: How far from each pixel of the input what is shown there lies, along x and y, if the region is
            warped [px]
        nearest: Take the nearest pixel, for maps of numbers that have no mean; what is outside is 0.

    Returns:
        `height_px width_px` or `height_px width_px c`, in the type of the image.
    """
    x0, y0, x1, y1 = placement.inner
    columns, rows = x1 - x0, y1 - y0
    fill = 0 if nearest else (FILL * full_scale if image.dtype.kind == "f" else round(FILL * full_scale))
    border = [float(fill)] * 4
    samples = 1 if nearest else min(MOST_SAMPLES, max(1, math.ceil(1 / placement.scale - 1e-6)))
    # finer by `samples`: the first of them lies half an input pixel less half a sample before the pixel's centre
    finer = np.diag([samples, samples, 1.0]) @ _shift(-x0, -y0)
    finer[:2, 2] += 0.5 * (samples - 1)
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    size = (columns * samples, rows * samples)
    if displacement is None:
        seen = cv2.warpPerspective(
            image, finer @ placement.matrix, size, flags=how, borderMode=cv2.BORDER_CONSTANT, borderValue=border
        )
    else:
        x, y = _sources(placement, displacement, samples)
        seen = cv2.remap(image, x, y, how, borderMode=cv2.BORDER_CONSTANT, borderValue=border)
    if samples > 1:
        seen = cv2.resize(seen, (columns, rows), interpolation=cv2.INTER_AREA)
    out = np.full((placement.height_px, placement.width_px, *image.shape[2:]), fill, image.dtype)
    out[y0:y1, x0:x1] = seen
    return out


def network_input(pixels: np.ndarray, channels: int, full_scale: float = 255.0) -> Float32[np.ndarray, "c h w"]:
    """What the input shows, as a network takes it: 0 black to 255 white, channels first.

    Args:
        pixels: `h w` or `h w 3`.
        channels: 1, the mean of the colours, or 3.
        full_scale: Grey value of white.
    """
    seen = pixels.astype(np.float32)
    if full_scale != 255.0:
        seen *= np.float32(255.0 / full_scale)
    if seen.ndim == 2:
        return np.repeat(seen[None], channels, axis=0)
    return seen.mean(axis=2, keepdims=True).transpose(2, 0, 1) if channels == 1 else seen.transpose(2, 0, 1)


def clipped(
    boxes: Float[np.ndarray, "n 4"], placement: Placement
) -> tuple[Float64[np.ndarray, "n 4"], Float64[np.ndarray, " n"]]:
    """Boxes cut at the edge of what is shown, and the share of each that is left; 0 of one without an area."""
    x0, y0, x1, y1 = placement.inner_box
    cut = np.clip(boxes, [x0, y0, x0, y0], [x1, y1, x1, y1])
    left = (cut[:, 2:] - cut[:, :2]).prod(axis=1)
    whole = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return cut, np.divide(left, whole, out=np.zeros_like(left), where=whole > 0)


def box_around(points: Float[np.ndarray, "n 2"]) -> Float64[np.ndarray, " 4"]:
    """The upright box around points."""
    return np.concatenate([points.min(axis=0), points.max(axis=0)]).astype(np.float64)


def _sources(
    placement: Placement, displacement: np.ndarray, samples: int
) -> tuple[Float32[np.ndarray, "p q"], Float32[np.ndarray, "p q"]]:
    """Where in the image each sample of what is shown lies."""
    x0, y0, x1, y1 = placement.inner
    away = displacement[y0:y1, x0:x1]
    if samples > 1:
        away = cv2.resize(away, None, fx=samples, fy=samples, interpolation=cv2.INTER_LINEAR)
    step, begin = 1 / samples, 0.5 / samples - 0.5
    y, x = np.meshgrid(
        y0 + begin + step * np.arange(samples * (y1 - y0)),
        x0 + begin + step * np.arange(samples * (x1 - x0)),
        indexing="ij",
    )
    x, y = x + away[..., 0], y + away[..., 1]
    (a, b, c), (d, e, f), (g, h, i) = placement.inverse
    below = g * x + h * y + i
    return ((a * x + b * y + c) / below).astype(np.float32), ((d * x + e * y + f) / below).astype(np.float32)


def _shift(x: float, y: float) -> Float64[np.ndarray, "3 3"]:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _corners(boxes: Float[np.ndarray, "n 4"]) -> Float64[np.ndarray, "m 2"]:
    return np.asarray(boxes, np.float64).reshape(-1, 4)[:, np.array(CORNERS)].reshape(-1, 2)


def _boxes_around(quads: Float64[np.ndarray, "n 4 2"]) -> Float64[np.ndarray, "n 4"]:
    return np.concatenate([quads.min(axis=1), quads.max(axis=1)], axis=1)
