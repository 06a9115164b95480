"""What all formats of labels ask of an outline: that it is one, and that it lies on its image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool

from waferlens.records import Label, tight

SLACK_PX = 0.01
"""An outline may reach so far beyond its image: others round [px]"""
Point = tuple[float, float]
Box = tuple[float, float, float, float]


def hull_box(points: Iterable[Point]) -> Box:
    """The upright box around points."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def mask_box(mask: Bool[np.ndarray, "h w"], corner: tuple[int, int] = (0, 0)) -> Box:
    """The outer edges of the pixels of a mask that has some."""
    inner, (x, y) = tight(mask, corner)
    return x - 0.5, y - 0.5, x + inner.shape[1] - 0.5, y + inner.shape[0] - 0.5


def ring_area(ring: Sequence[Point]) -> float:
    """Area of a polygon that does not cross itself [px²]"""
    x, y = np.array(ring, float).T
    x, y = x - x[0], y - y[0]  # the sum of products of large numbers would lose digits
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def area_px2(label: Label) -> float:
    """Area of a label: of its mask, else its polygons, else its quad, else its box [px²]"""
    if label.mask is not None:
        return float(np.count_nonzero(label.mask))
    if label.polygons:
        return math.fsum(map(ring_area, label.polygons))
    if label.quad is not None:
        return ring_area(label.quad)
    x0, y0, x1, y1 = label.box
    return (x1 - x0) * (y1 - y0)


def outline_box(label: Label) -> Box | None:
    """The box around a label's outline; None where the box is all there is."""
    if label.mask is not None:
        return mask_box(label.mask, label.mask_corner)
    points = [*(point for ring in label.polygons for point in ring), *(label.quad or ())]
    return hull_box(points) if points else None


def check(label: Label, width_px: int | None, height_px: int | None) -> None:
    """Refuses what is no outline, or not on its image.

    Args:
        label: of one image.
        width_px: width of the image; None where it is not known.
        height_px: its height.

    Raises:
        ValueError: says what is wrong.
    """
    x0, y0, x1, y1 = label.box
    if not (x1 > x0 and y1 > y0 and all(map(math.isfinite, label.box))):
        raise ValueError(f"its box {label.box} has no area")
    if label.mask is not None and label.polygons:
        raise ValueError("it has polygons and a mask; only one of them can be its outline")
    for ring in label.polygons:
        if len(ring) < 3:
            raise ValueError(f"a polygon of {len(ring)} corners; 3 are needed")
    if label.mask is not None and not label.mask.any():
        raise ValueError("its mask has no pixel")
    if label.angle_deg is not None and not -180 < label.angle_deg <= 180:
        raise ValueError(f"its angle of {label.angle_deg} deg is not above -180 and up to 180")
    if label.angle_deg is not None and label.quad is None:
        raise ValueError("it has an angle and no quad to which it could belong")
    for points, what in (
        ([point for ring in label.polygons for point in ring], "a polygon"),
        (label.quad or (), "its quad"),
        (((x0, y0), (x1, y1)), "its box"),
    ):
        if points:
            _check_inside(hull_box(points), width_px, height_px, what)
    if label.mask is not None:
        _check_inside(mask_box(label.mask, label.mask_corner), width_px, height_px, "its mask")


def _check_inside(box: Box, width_px: int | None, height_px: int | None, what: str) -> None:
    if not all(map(math.isfinite, box)):
        raise ValueError(f"{what} has a coordinate that is not finite")
    for axis, low, high, whole in (("x", box[0], box[2], width_px), ("y", box[1], box[3], height_px)):
        if low < -0.5 - SLACK_PX or (whole is not None and high > whole - 0.5 + SLACK_PX):
            size = "an unknown size" if whole is None else f"{whole} px"
            raise ValueError(
                f"{what} reaches from {low + 0.5:.10g} to {high + 0.5:.10g} in {axis}, the image has {size}"
            )
