"""One image of a detector's training, varied: geometry moves pixels, boxes and masks alike; grey changes pixels only.

Geometry acts on the way from the image to the input, so that pixels are sampled once, as at inspection. What is drawn
is a function of seed, epoch and the image's number alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from waferlens.prepare.package_geometry import Placement, shown
from waferlens.prepare.package_truth import boxes_of
from waferlens.recipe.package import PackageAugment

WARP_KNOTS = 5
"""Knots of an elastic warp along the shorter side of the input."""
CLAHE_TILES, CLAHE_LIMIT = 8, 2.0
"""Tiles along each side, and the limit of contrast, of local equalisation."""
AT_OBJECT, AT_LURE = 0.5, 0.25
"""Shares of the windows that are laid around an object, and around what looks like one. Where an image has only one of
the two groups, that one takes both shares."""
LEAST_SEEN_PX = 12
"""Pixels that the edge of a window must leave of an object for it to be told."""
MIDDLE_LEAST = 0.1
"""Least distance of an object's middle from the window's edge, as a share of its side."""
WHITE = 255.0
ROUNDS = 8
"""Of the fixed point that inverts a warp; each divides the error by three or more."""


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """An image in memory, cut to what its region may show."""

    pixels: np.ndarray
    """`h w` or `h w 3`, uint8, or float32 in 0..255 where the file had more than 8 bits [grey]"""
    quad: Float64[np.ndarray, "4 2"]
    """Corners of the region in these pixels, of the upright part from the upper left clockwise [px]"""
    outlines: tuple[Float64[np.ndarray, "n 2"], ...]
    """Points on the outline of each object, in these pixels [px]"""
    kinds: Int64[np.ndarray, " n"]
    """Numbers of the classes."""
    numbers: UInt8[np.ndarray, "h w"] | None = None
    """Number + 1 of the object at each pixel, 0 where there is none; where masks are learned."""
    lures: tuple[Float64[np.ndarray, "n 2"], ...] = ()
    """Points on the outline of what is to be ignored, such as marks that look like an object, in these pixels [px]"""
    light: str | None = None
    """`bf`, `dfw` or `dfb`; None where it is not told. Images of different lights are never mixed."""


@dataclass(slots=True, eq=False)
class Sample:
    """What the network is shown of an image."""

    pixels: np.ndarray
    """`h w` or `h w 3` at the input's size, in the type of the source [grey]"""
    boxes: Float64[np.ndarray, "n 4"]
    """[px]"""
    kinds: Int64[np.ndarray, " n"]
    inner: tuple[int, int, int, int]
    """What shows the region, as `Placement` has it."""
    numbers: UInt8[np.ndarray, "h w"] | None = None
    """Number + 1 of the box at each pixel, in their order here."""


def plain(source: Source, placement: Placement) -> Sample:
    """An image as it is shown at inspection."""
    return _sampled(source, placement, None)


def varied(
    source: Source,
    placement: Placement,
    spec: PackageAugment,
    rng: np.random.Generator,
    crop_px: int | None = None,
) -> Sample:
    """An image with its geometry moved and its grey changed.

    Args:
        source: The image.
        placement: Where it lies in the input.
        spec: What is varied.
        rng: Where it is drawn from.
        crop_px: Side of the window that is cut out; None for the whole input [px]
    """
    moved = placement.moved(motion(spec, placement, rng))
    if crop_px is not None:
        moved = windowed(moved, source.outlines, source.lures, crop_px, rng)
    away = displacement(spec, moved, rng)
    sample = _sampled(source, moved, away, window=crop_px is not None)
    sample.pixels = grey_varied(sample.pixels, spec, rng)
    return sample


def windowed(
    placement: Placement,
    objects: Sequence[Float64[np.ndarray, "n 2"]],
    lures: Sequence[Float64[np.ndarray, "n 2"]],
    side_px: int,
    rng: np.random.Generator,
) -> Placement:
    """A window of the input: mostly one that the middle of an object or of a lure lies in, else anywhere.

    Args:
        placement: Where the image lies in the whole input.
        objects: Outlines of its objects, in its pixels [px]
        lures: Outlines of what is to be told apart from them, in its pixels [px]
        side_px: Of the window [px]
        rng: Where it is drawn from.
    """
    room = np.array([placement.width_px - side_px, placement.height_px - side_px])
    drawn, first = rng.random(), AT_OBJECT if lures else AT_OBJECT + AT_LURE
    chosen = objects if objects and drawn < first else lures
    if chosen and drawn < AT_OBJECT + AT_LURE:
        points = placement.to_input(chosen[rng.integers(len(chosen))])
        middle = (points.min(axis=0) + points.max(axis=0)) / 2
        corner = middle - side_px * rng.uniform(MIDDLE_LEAST, 1 - MIDDLE_LEAST, 2)
    else:
        corner = rng.uniform(0, room + 1)
    x, y = (int(one) for one in np.clip(np.floor(corner), 0, room))
    x0, y0, x1, y1 = placement.inner
    shift = np.array([[1.0, 0.0, -x], [0.0, 1.0, -y], [0.0, 0.0, 1.0]])
    inner = (max(0, x0 - x), max(0, y0 - y), min(side_px, x1 - x), min(side_px, y1 - y))
    return Placement(shift @ placement.matrix, inner, side_px, side_px)


def motion(spec: PackageAugment, placement: Placement, rng: np.random.Generator) -> Float64[np.ndarray, "3 3"]:
    """Mirrors, turns, scales and shifts about the middle of what is shown; from the input's pixels to its pixels."""
    x0, y0, x1, y1 = placement.inner_box
    mirror = np.where(rng.random(2) < 0.5, -1.0, 1.0) if spec.flip else np.ones(2)
    turn = np.radians(spec.rotate_deg * rng.uniform(-1, 1))
    if spec.quarter_turns:
        turn += 0.5 * np.pi * rng.integers(4)
    scale = 1 + spec.scale * rng.uniform(-1, 1)
    shift = spec.shift * rng.uniform(-1, 1, 2) * (x1 - x0, y1 - y0)
    cosine, sine = scale * np.cos(turn), scale * np.sin(turn)
    turned = np.array([[cosine, sine], [-sine, cosine]]) * mirror  # y points down: positive is counter-clockwise
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    made = np.eye(3)
    made[:2, :2], made[:2, 2] = turned, middle + shift - turned @ middle
    return made


def displacement(
    spec: PackageAugment, placement: Placement, rng: np.random.Generator
) -> Float32[np.ndarray, "h w 2"] | None:
    """How far from each pixel of the input what is shown there lies, straight between knots; None unless asked."""
    if not spec.warp_px:
        return None
    h, w = placement.height_px, placement.width_px
    step = min(h, w) / WARP_KNOTS
    knots = rng.uniform(-1, 1, (round(h / step) + 1, round(w / step) + 1, 2)) * spec.warp_px * rng.random()
    return cv2.resize(knots.astype(np.float32), (w, h), interpolation=cv2.INTER_LINEAR)


def warped(points: Float64[np.ndarray, "n 2"], away: Float32[np.ndarray, "h w 2"]) -> Float64[np.ndarray, "n 2"]:
    """Where points of an unwarped input are shown: the fixed point of q = p - away(q)."""
    shown_at = points.copy()
    for _ in range(ROUNDS):
        x, y = (shown_at[:, axis].astype(np.float32)[None] for axis in (0, 1))
        there = cv2.remap(away, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]
        shown_at = points - there
    return shown_at


def grey_varied(pixels: np.ndarray, spec: PackageAugment, rng: np.random.Generator) -> np.ndarray:
    """Local equalisation, blur, gain of all and of each channel, offset, noise, in this order."""
    if spec.clahe and rng.random() < spec.clahe:
        pixels = equalised(pixels)
    if spec.blur_px:
        sigma = spec.blur_px * rng.random()
        if sigma > 0.2:  # below it a Gaussian lies within its own pixel
            pixels = cv2.GaussianBlur(pixels, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    factor = (1 + spec.gain * rng.uniform(-1, 1)) * (1 + spec.hue * rng.uniform(-1, 1, channels))
    offset = spec.offset_grey * rng.uniform(-1, 1)
    if spec.gain or spec.hue or spec.offset_grey:
        pixels = _rescaled(pixels, factor, offset)
    if spec.noise_grey:
        sigma = np.float32(spec.noise_grey * rng.random())
        noisy = pixels + sigma * rng.standard_normal(pixels.shape, np.float32)
        pixels = _in_type(noisy, pixels.dtype)
    return pixels


def equalised(pixels: np.ndarray) -> np.ndarray:
    """Contrast-limited equalisation of the brightness in tiles; the ratio of the colours is kept."""
    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2, dtype=np.float32)
    rounded = np.clip(np.rint(grey), 0, WHITE).astype(np.uint8)
    made = cv2.createCLAHE(CLAHE_LIMIT, (CLAHE_TILES, CLAHE_TILES)).apply(rounded).astype(np.float32)
    factor = (made + 1) / (rounded.astype(np.float32) + 1)
    return _in_type(pixels * (factor if pixels.ndim == 2 else factor[..., None]), pixels.dtype)


def numbered(labels: Sequence[tuple[np.ndarray, tuple[int, int]]], shape: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """Number + 1 of the mask at each pixel; a later one lies on top.

    Args:
        labels: Masks `h w`, and x and y of their first pixel.
        shape: Rows and columns.
    """
    numbers = np.zeros(shape, np.uint8)
    for place, (mask, (x, y)) in enumerate(labels, 1):
        h, w = mask.shape
        top, left = max(0, -y), max(0, -x)
        window = numbers[max(0, y) : max(0, y + h), max(0, x) : max(0, x + w)]
        part = mask[top : top + window.shape[0], left : left + window.shape[1]]
        window[part] = place
    return numbers


def _sampled(
    source: Source, placement: Placement, away: Float32[np.ndarray, "h w 2"] | None, window: bool = False
) -> Sample:
    pixels = shown(source.pixels, placement, WHITE, away)
    points = [placement.to_input(outline) for outline in source.outlines]
    if away is not None:
        points = [warped(one, away) for one in points]
    boxes, left = boxes_of(points, placement)
    numbers = None
    if source.numbers is not None:
        there = shown(source.numbers, placement, WHITE, away, nearest=True)
        if window:
            boxes, left = _boxes_seen(there, points, boxes, placement)
        numbers = renumbered(there, np.flatnonzero(left))
    return Sample(pixels, boxes[left], source.kinds[left], placement.inner, numbers)


def _boxes_seen(
    there: UInt8[np.ndarray, "h w"],
    points: Sequence[Float64[np.ndarray, "n 2"]],
    boxes: Float64[np.ndarray, "m 4"],
    placement: Placement,
) -> tuple[Float64[np.ndarray, "m 4"], Bool[np.ndarray, " m"]]:
    """Boxes of objects that the edge of a window cuts: around what is left of them, and which show enough to be told.

    Args:
        there: Number + 1 of the object at each pixel.
        points: On the outline of each object, in the window [px]
        boxes: Around them, cut at its edge [px]
        placement: Where the image lies in the window.
    """
    boxes, left = boxes.copy(), np.ones(len(boxes), bool)
    x0, y0, x1, y1 = placement.inner_box
    for number, outline in enumerate(points):
        if (outline >= (x0, y0)).all() and (outline <= (x1, y1)).all():
            continue
        y, x = np.nonzero(there == number + 1)
        left[number] = len(x) >= LEAST_SEEN_PX
        if left[number]:
            boxes[number] = (x.min() - 0.5, y.min() - 0.5, x.max() + 0.5, y.max() + 0.5)
    return boxes, left


def renumbered(numbers: UInt8[np.ndarray, "h w"], kept: Int64[np.ndarray, " m"]) -> UInt8[np.ndarray, "h w"]:
    """The map of the boxes that are kept, numbered in their order."""
    table = np.zeros(256, np.uint8)
    table[kept + 1] = np.arange(1, len(kept) + 1)
    return table[numbers]


def _rescaled(pixels: np.ndarray, factor: Float64[np.ndarray, " c"], offset: float) -> np.ndarray:
    if pixels.dtype == np.uint8:
        grey = np.arange(256)[:, None] * factor + offset
        table = np.clip(np.rint(grey), 0, WHITE).astype(np.uint8)
        return cv2.LUT(pixels, table[:, 0] if pixels.ndim == 2 else table[:, None])
    return _in_type(pixels * factor.astype(np.float32) + np.float32(offset), pixels.dtype)


def _in_type(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    clipped = np.clip(pixels, 0, WHITE)
    return np.rint(clipped).astype(dtype) if dtype == np.uint8 else clipped.astype(dtype)
