"""From images to what a detector finds on them, in their own pixels: the way in and the way back are one placement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64

from waferlens.bundle.package import Boxes, PackageSession
from waferlens.errors import UsageError
from waferlens.prepare.package_geometry import Placement, image_quad, network_input, placed, shown


@dataclass(frozen=True, slots=True, eq=False)
class Detected:
    """What is found on an image, by falling score."""

    kinds: tuple[str, ...]
    """Class of each."""
    scores: Float64[np.ndarray, " n"]
    boxes: Float64[np.ndarray, "n 4"]
    """Upright boxes around the quads, in pixels of the image [px]"""
    quads: Float64[np.ndarray, "n 4 2"]
    """Corners in the image, from the upper left of the upright part clockwise [px]"""
    in_input: Boxes
    """The same in pixels of the network's input, with masks where they are told."""
    placement: Placement
    """Where the image lies in the input."""


def prepared(
    session: PackageSession, pixels: np.ndarray, quad: Float[np.ndarray, "4 2"] | None = None, white: float = 255.0
) -> tuple[Float32[np.ndarray, "c h w"], Placement]:
    """An image as the network is shown it, and where it lies there.

    Args:
        session: Of the bundle.
        pixels: `h w` or `h w 3` [grey]
        quad: Corners of the package; needed where the network is shown packages [px]
        white: Grey value of white [grey]

    Raises:
        UsageError: corners are needed and not given.
    """
    if session.region == "roi" and quad is None:
        raise UsageError("this network is shown upright packages: find the package first, and hand in its corners")
    region = quad if session.region == "roi" and quad is not None else image_quad(*pixels.shape[:2])
    placement = placed(region, session.height_px, session.width_px)
    return network_input(shown(pixels, placement, white), session.channels, white), placement


def detected(
    session: PackageSession,
    pixels: Sequence[np.ndarray],
    quads: Sequence[Float[np.ndarray, "4 2"] | None] | None = None,
    white: float = 255.0,
    least: float | Sequence[float] | None = None,
) -> list[Detected]:
    """What is found on images, in one call of the network.

    Args:
        session: Of the bundle.
        pixels: Images `h w` or `h w 3` [grey]
        quads: Corners of the package on each; needed where the network is shown packages [px]
        white: Grey value of white [grey]
        least: Score, or one a class, from which a box is a finding; the bundle's own if None.

    Raises:
        UsageError: corners are needed and not given.
    """
    ways = [
        prepared(session, one, quad, white) for one, quad in zip(pixels, quads or [None] * len(pixels), strict=True)
    ]
    if not ways:
        return []
    found = session.findings(np.stack([image for image, _ in ways]), least)
    return [in_image(session.classes, boxes, placement) for boxes, (_, placement) in zip(found, ways, strict=True)]


def in_image(classes: Sequence[str], found: Boxes, placement: Placement) -> Detected:
    """Findings of the network's input in the image."""
    kinds = tuple(classes[number] for number in found.kinds)
    quads = placement.quads_to_image(found.boxes)
    return Detected(kinds, found.scores, placement.boxes_to_image(found.boxes), quads, found, placement)
