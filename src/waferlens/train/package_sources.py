"""The images of a detector's training in memory: cut to what their regions may show, with the outlines on them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from waferlens.errors import InputError, UsageError
from waferlens.load.package import Picture
from waferlens.models.anchor_head import ANCHORS_PX
from waferlens.prepare.beside_reference import UnlikeError, shown_pixels
from waferlens.prepare.package_geometry import placed
from waferlens.prepare.package_sides import side_pictures
from waferlens.prepare.package_truth import boxes_of, outline_points, region_quad
from waferlens.recipe.package import PackageRecipe
from waferlens.recipe.package_models import PackageFast, YoloV5
from waferlens.records import Label
from waferlens.train.anchors import FittedAnchors, fit_anchors
from waferlens.train.detection_augment import Source, numbered

MARGIN = 0.1
"""Of the longer side of a package that is kept around it: motions show what lies beyond."""
MOST_MASKS = 254
"""Objects of an image that a map of 8 bits can number."""
MOST_READERS = 8
SHIFT = 4
"""Bits behind the point of the corners of polygons as OpenCV fills them."""


def read_sources(recipe: PackageRecipe, data: Path, side: str) -> tuple[list[Source], list[str]]:
    """The images of one side of the split, in memory, cut to what their regions may show, and what was left out.

    Left out are images that do not lie on their reference, where the network is shown one.

    Raises:
        InputError: no device falls into this side, or an image cannot be read.
        UsageError: masks are to be learned where labels tell boxes only, or an image shows too many objects.
    """
    masks = learns_masks(recipe)
    with ThreadPoolExecutor(min(MOST_READERS, os.cpu_count() or 1)) as readers:  # decoding holds no lock
        read = list(readers.map(lambda picture: _tried(picture, recipe, masks), side_pictures(recipe, data, side)))
    sources = [one for one in read if isinstance(one, Source)]
    left_out = [str(one) for one in read if isinstance(one, UnlikeError)]
    if not sources:
        raise InputError(data, f"no image falls into the {side} split; there are too few devices")
    if recipe.input.channels == 3 and any(
        source.pixels.ndim == 3 for source in sources
    ):  # images are mixed with each other
        sources = [
            source
            if source.pixels.ndim == 3
            else replace(source, pixels=np.repeat(source.pixels[..., None], 3, axis=2))
            for source in sources
        ]
    return sources, left_out


def learns_masks(recipe: PackageRecipe) -> bool:
    """Whether pixels of objects are learned beside their boxes."""
    match recipe.model:
        case YoloV5(masks=masks):
            return masks
        case PackageFast(traces=traces):
            return traces
    return False


def _tried(picture: Picture, recipe: PackageRecipe, masks: bool) -> Source | UnlikeError:
    try:
        return _source(picture, recipe, masks)
    except UnlikeError as wrong:
        return wrong


def _source(picture: Picture, recipe: PackageRecipe, masks: bool) -> Source:
    pixels, white = shown_pixels(picture, recipe.input.reference)
    if pixels.dtype != np.uint8:
        pixels = pixels.astype(np.float32) * np.float32(255.0 / white)
    if recipe.input.channels == 1 and pixels.ndim == 3:
        pixels = pixels.mean(axis=2, dtype=np.float32)
    quad = region_quad(picture, pixels.shape, recipe.input)
    h, w = pixels.shape[:2]
    margin = MARGIN * float(np.ptp(quad, axis=0).max())
    x0, y0 = np.clip(np.floor(quad.min(axis=0) - margin), 0, (w - 1, h - 1)).astype(int)
    x1, y1 = np.clip(np.ceil(quad.max(axis=0) + margin) + 1, (x0 + 1, y0 + 1), (w, h)).astype(int)
    kinds = recipe.target.classes
    labels = [label for label in picture.labels if label.kind in kinds and not label.ignore]
    numbers = None
    if masks:
        if len(labels) > MOST_MASKS:
            raise UsageError(f"{picture.name}: {len(labels)} objects; masks are learned of {MOST_MASKS} at the most")
        numbers = _numbers(picture.name, labels, (h, w))[y0:y1, x0:x1]
    return Source(
        np.ascontiguousarray(pixels[y0:y1, x0:x1]),
        quad - (x0, y0),
        tuple(outline_points(label) - (x0, y0) for label in labels),
        np.array([kinds.index(label.kind) for label in labels], np.int64),
        None if numbers is None else np.ascontiguousarray(numbers),
        tuple(outline_points(label) - (x0, y0) for label in picture.labels if label.ignore),
        picture.light,
    )


def anchors_for(recipe: PackageRecipe, sources: Sequence[Source]) -> FittedAnchors:
    """Anchors that fit the boxes of a training set as the network is shown them."""
    spec = recipe.input
    sides = []
    for source in sources:
        placement = placed(source.quad, spec.height_px, spec.width_px)
        boxes, left = boxes_of([placement.to_input(one) for one in source.outlines], placement)
        sides.append(boxes[left, 2:] - boxes[left, :2])
    heads, each = np.shape(ANCHORS_PX)[:2]
    return fit_anchors(np.concatenate(sides), heads, each, recipe.train.seed)


def _numbers(name: str, labels: Sequence[Label], shape: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """Number + 1 of the label at each pixel."""
    masks = []
    for label in labels:
        if label.mask is not None:
            masks.append((label.mask, label.mask_corner))
        elif label.polygons or label.quad is not None:
            masks.append((_filled(label, shape), (0, 0)))
        else:
            raise UsageError(
                f"{name}: masks are to be learned, and a label of {label.kind} tells its box only; give polygons "
                "or masks, or set model.traces=false (model.masks=false)"
            )
    return numbered(masks, shape)


def _filled(label: Label, shape: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres lie in the polygons of a label."""
    drawn = np.zeros(shape, np.uint8)
    for ring in label.polygons or (label.quad,):
        part = np.zeros(shape, np.uint8)
        points = np.rint(np.array(ring) * 2**SHIFT).astype(np.int32)
        cv2.fillPoly(part, [points], 1, shift=SHIFT)
        drawn |= part
    return drawn.astype(bool)
