"""Where labels lie in a detector's input: outlines follow the way of the pixels, so that boxes stay tight.

A box around a turned box is too large; a box around the outline of a mask is not. The same functions make the truth
that a network learns and the truth it is judged by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from waferlens.errors import UsageError
from waferlens.load.package import Picture
from waferlens.prepare.package_geometry import CORNERS, Placement, box_around, clipped, image_quad, placed
from waferlens.recipe.package import PackageInput
from waferlens.records import Label

LEAST_LEFT = 0.3
"""Share of a box that must be shown for it to count as there."""
LEAST_PX = 1.0
"""Smallest side of a box that a network is asked for; thinner ones are widened about their middle [px]"""


@dataclass(frozen=True, slots=True, eq=False)
class ShownLabels:
    """Labels in the input of a network."""

    boxes: Float64[np.ndarray, "n 4"]
    """[px]"""
    kinds: Int64[np.ndarray, " n"]
    """Numbers of the classes."""
    places: Int64[np.ndarray, " n"]
    """Which of the labels each was."""


def place_picture(picture: Picture, shape: tuple[int, ...], spec: PackageInput) -> Placement:
    """Where an image, or its package, lies in the input.

    Args:
        picture: With the package's corners where the input shows the package.
        shape: Of its pixels.
        spec: Of the recipe.

    Raises:
        UsageError: it should show the package, and where that lies is not told.
    """
    return placed(region_quad(picture, shape, spec), spec.height_px, spec.width_px)


def region_quad(picture: Picture, shape: tuple[int, ...], spec: PackageInput) -> Float64[np.ndarray, "4 2"]:
    """Corners of what the input shows of an image [px]

    Args:
        picture: As in `place_picture`.
        shape: Of its pixels.
        spec: Of the recipe.

    Raises:
        UsageError: it should show the package, and where that lies is not told.
    """
    if spec.region == "image":
        return image_quad(shape[0], shape[1])
    if picture.ic_quad is None:
        raise UsageError(
            f"{picture.path}: the corners of the package are not told; set input.region=image, or cut the packages out "
            "first with `waferlens prepare roi`"
        )
    return picture.ic_quad


def outline_points(label: Label) -> Float64[np.ndarray, "n 2"]:
    """Points on the outline of a label, its extremes along every direction among them [px]"""
    if label.mask is not None:
        return _mask_points(label.mask) + label.mask_corner
    if label.polygons:
        return np.array([point for ring in label.polygons for point in ring], np.float64)
    if label.quad is not None:
        return np.array(label.quad, np.float64)
    return np.asarray(label.box, np.float64)[np.array(CORNERS)]


def shown_labels(
    labels: Sequence[Label], kinds: Sequence[str], placement: Placement, least_left: float = LEAST_LEFT
) -> ShownLabels:
    """Labels of these classes where the input shows them; those to be ignored are left out.

    Args:
        labels: Of an image.
        kinds: Classes in the order of their numbers.
        placement: Where the image lies.
        least_left: Share of a box that must be shown.
    """
    chosen = [place for place, label in enumerate(labels) if label.kind in kinds and not label.ignore]
    points = [placement.to_input(outline_points(labels[place])) for place in chosen]
    boxes, left = boxes_of(points, placement, least_left)
    numbers = np.array([kinds.index(labels[place].kind) for place in chosen], np.int64)
    return ShownLabels(boxes[left], numbers[left], np.array(chosen, np.int64)[left])


def boxes_of(
    outlines: Sequence[Float64[np.ndarray, "n 2"]], placement: Placement, least_left: float = LEAST_LEFT
) -> tuple[Float64[np.ndarray, "m 4"], Bool[np.ndarray, " m"]]:
    """Boxes around outlines in the input, cut at its edge, and which of them are left.

    Args:
        outlines: In pixels of the input [px]
        placement: Where the image lies.
        least_left: Share of a box that must be shown.
    """
    if not outlines:
        return np.zeros((0, 4)), np.zeros(0, bool)
    boxes = np.stack([box_around(one) for one in outlines])
    grown = np.maximum(0.0, LEAST_PX - (boxes[:, 2:] - boxes[:, :2])) / 2
    boxes = np.concatenate([boxes[:, :2] - grown, boxes[:, 2:] + grown], axis=1)
    cut, share = clipped(boxes, placement)
    return cut, share >= least_left


def _mask_points(mask: Bool[np.ndarray, "h w"]) -> Float64[np.ndarray, "n 2"]:
    """Outer corners of the first and last pixel of each row: whatever is furthest in a direction is among them."""
    rows = np.flatnonzero(mask.any(axis=1))
    first, last = mask[rows].argmax(axis=1), mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    x = np.concatenate([first - 0.5, first - 0.5, last + 0.5, last + 0.5])
    y = np.concatenate([rows - 0.5, rows + 0.5, rows - 0.5, rows + 0.5])
    return np.stack([x, y], axis=1).astype(np.float64)
