"""Small parts of one product whose defects are known: traces and pads of 96 x 128 px, and folders full of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from waferlens.recipe import load_recipe
from waferlens.recipe.golden import GoldenRecipe
from waferlens.records import Finding, Image

HEIGHT, WIDTH = 96, 128
ROOM = 24  # of the product beyond what an unmoved image shows [px]

Planted = tuple[int, int, int, int, float]
"""x, y of its first pixel, width, height [px], what it adds [grey]"""
LIGHT: Planted = (30, 60, 6, 5, 30.0)
"""Lies on bare ground, like the next two."""
DARK: Planted = (88, 22, 5, 7, -30.0)
SCRATCH: Planted = (70, 34, 2, 18, 40.0)


def recipe(name: str = "golden-template", /, *overrides: str, **sections: Any) -> GoldenRecipe:
    """A shipped recipe with settings written over it, as on the command line, and with whole sections replaced."""
    told = load_recipe(name, list(overrides)).model_dump()
    return GoldenRecipe.model_validate(told | sections)


@cache
def product(seed: int = 7) -> np.ndarray:
    """The design as it would be without noise, `ROOM` wider on every side [grey]"""
    random = np.random.default_rng(seed)
    h, w = HEIGHT + 2 * ROOM, WIDTH + 2 * ROOM
    grey = np.full((h, w), 70.0, np.float32)
    for _ in range(34):
        x, y = random.integers(0, w - 8), random.integers(0, h - 8)
        wide, high = random.integers(5, 30, 2)
        grey[y : y + high, x : x + wide] = random.uniform(100, 190)
    for x, y, wide, high, _ in (LIGHT, DARK, SCRATCH):  # bare ground around where defects are planted
        grey[y + ROOM - 8 : y + ROOM + high + 8, x + ROOM - 8 : x + ROOM + wide + 8] = 70.0
    return cv2.GaussianBlur(grey, (0, 0), 1.0)


def part(
    seed: int = 0,
    defects: Sequence[Planted] = (),
    *,
    shift: tuple[float, float] = (0.0, 0.0),
    angle: float = 0.0,
    gain: float = 1.0,
    offset: float = 0.0,
    noise: float = 2.0,
    of: int = 7,
) -> np.ndarray:
    """One part of the product, float32 in 0..255 [grey]

    Args:
        seed: of its noise.
        defects: planted on the image, before gain and offset.
        shift: (dy, dx) of what is on it [px]
        angle: by which it is turned about its centre, counter-clockwise as seen [deg]
        gain: of the image against the product.
        offset: likewise [grey]
        noise: standard deviation [grey]
        of: seed of the product.
    """
    centre = (WIDTH - 1) / 2 + ROOM, (HEIGHT - 1) / 2 + ROOM
    matrix = cv2.getRotationMatrix2D(centre, angle, 1.0)
    matrix[:, 2] += shift[1] - ROOM, shift[0] - ROOM
    grey = cv2.warpAffine(product(of), matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)
    for x, y, wide, high, contrast in defects:
        grey[y : y + high, x : x + wide] += contrast
    grey = gain * grey + offset + np.random.default_rng(seed).normal(0, noise, grey.shape)
    return np.clip(grey, 0, 255).astype(np.float32)


def image(grey: np.ndarray, full_scale: float = 255.0, path: str = "image.png") -> Image:
    """Grey values as they come from a file: whole numbers of 8 bits, the same times 257 in 16, or float in 0..1."""
    eight = grey.round().astype(np.uint8)
    pixels = {255.0: eight, 65535.0: eight.astype(np.uint16) * np.uint16(257), 1.0: eight.astype(np.float32) / 255}
    return Image(pixels[full_scale], full_scale, path=path)


def lies_on(finding: Finding, planted: Planted, within: float = 1.0) -> bool:
    """Whether a finding's box is that of what was planted, each edge to so many pixels."""
    x, y, wide, high, _ = planted
    true = x - 0.5, y - 0.5, x + wide - 0.5, y + high - 0.5
    return all(abs(edge - other) <= within for edge, other in zip(finding.box, true, strict=True))


def write(path: Path, grey: np.ndarray) -> Path:
    """An image of 8 bits, or of whatever type it has if that is none of floats."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), grey.round().astype(np.uint8) if grey.dtype.kind == "f" else grey)
    return path


def write_parts(folder: Path, number: int, start: int = 0, **wander: float) -> list[Path]:
    """Good parts that lie and shine a little differently, named in order.

    Args:
        folder: is made.
        number: of images.
        start: number of the first.
        wander: `shift` [px], `angle` [deg], `gain`, `offset` [grey]: greatest departure of each.
    """
    paths = []
    for index in range(start, start + number):
        random = np.random.default_rng([index, 1])
        drawn = {
            "shift": tuple(random.uniform(-1, 1, 2) * wander.get("shift", 2.0)),
            "angle": random.uniform(-1, 1) * wander.get("angle", 0.3),
            "gain": 1 + random.uniform(-1, 1) * wander.get("gain", 0.03),
            "offset": random.uniform(-1, 1) * wander.get("offset", 3.0),
        }
        paths.append(write(folder / f"part_{index:04d}.png", part(1000 + index, **drawn)))
    return paths
