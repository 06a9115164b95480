"""Two images become one: mixed in all their pixels, or an object of the one pasted into the other.

Sources: mixup: Zhang et al., ICLR 2018 (arXiv:1710.09412), with the even shares of Zhang et al. for detectors
(arXiv:1902.04103); pasting: Ghiasi et al., CVPR 2021 (arXiv:2012.07177); shares of the images: S2.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Float64

from waferlens.ops.boxes import areas
from waferlens.train.detection_augment import WHITE, Sample

EVEN = 8.0
"""Both parameters of the beta distribution of the shares: near one half."""
MARGIN_PX = 4
"""Beyond its box an object fades out over this distance [px]"""
LARGEST = 0.25
"""Share of the region that a pasted object may take: a die is no spot on another die."""
TRIES = 10
MOST_COVERED = 0.3
"""Share of an object that is there already which a pasted one may cover."""


def mixed(sample: Sample, other: Sample, rng: np.random.Generator) -> Sample:
    """Both images weighed by shares near one half, with the objects of both.

    Args:
        sample: The image.
        other: Of the same size.
        rng: Where the shares are drawn from.
    """
    share = np.float32(rng.beta(EVEN, EVEN))
    pixels = share * sample.pixels.astype(np.float32) + (1 - share) * other.pixels.astype(np.float32)
    numbers = sample.numbers
    if numbers is not None and other.numbers is not None:
        theirs = np.where(other.numbers > 0, other.numbers + len(sample.boxes), 0)
        numbers = np.where(numbers > 0, numbers, theirs).astype(np.uint8)
    return replace(
        sample,
        pixels=(np.rint(pixels) if sample.pixels.dtype == np.uint8 else pixels).astype(sample.pixels.dtype),
        boxes=np.concatenate([sample.boxes, other.boxes]),
        kinds=np.concatenate([sample.kinds, other.kinds]),
        numbers=numbers,
    )


def pasted(sample: Sample, other: Sample, rng: np.random.Generator) -> Sample:
    """An object of another image laid into this one, at a free place, as bright as what surrounds it there.

    Args:
        sample: The image.
        other: Of the same size; where it has no small object, the image comes back as it is.
        rng: Where object and place are drawn from.
    """
    x0, y0, x1, y1 = sample.inner
    small = np.flatnonzero(areas(other.boxes) < LARGEST * (x1 - x0) * (y1 - y0))
    if not len(small):
        return sample
    chosen = int(rng.choice(small))
    left, top = np.floor(other.boxes[chosen, :2] + 0.5).astype(int) - MARGIN_PX
    right, bottom = np.ceil(other.boxes[chosen, 2:] + 0.5).astype(int) + MARGIN_PX
    ox0, oy0, ox1, oy1 = other.inner
    left, top, right, bottom = max(left, ox0), max(top, oy0), min(right, ox1), min(bottom, oy1)
    w, h = right - left, bottom - top
    if w > x1 - x0 or h > y1 - y0:
        return sample
    for _ in range(TRIES):
        x, y = int(rng.integers(x0, x1 - w + 1)), int(rng.integers(y0, y1 - h + 1))
        box = other.boxes[chosen] + np.array([x - left, y - top, x - left, y - top])
        if _covered(sample.boxes, box) <= MOST_COVERED:
            return _laid(sample, other, (top, left), (y, x), (h, w), box, chosen)
    return sample


def _laid(
    sample: Sample,
    other: Sample,
    there: tuple[int, int],
    here: tuple[int, int],
    shape: tuple[int, int],
    box: Float64[np.ndarray, " 4"],
    chosen: int,
) -> Sample:
    """Lays the object down; `there` and `here` are the first row and column of its patch in either image."""
    to = (slice(here[0], here[0] + shape[0]), slice(here[1], here[1] + shape[1]))
    patch = other.pixels[there[0] : there[0] + shape[0], there[1] : there[1] + shape[1]].astype(np.float32)
    ground = sample.pixels[to].astype(np.float32)
    weight = _fading(shape, box - np.array([here[1], here[0], here[1], here[0]]))
    around = weight < 0.5
    if around.any():
        patch += ground[around].mean(axis=0) - patch[around].mean(axis=0)
    blend = weight if patch.ndim == 2 else weight[..., None]
    pixels = sample.pixels.copy()
    made = np.clip(blend * patch + (1 - blend) * ground, 0, WHITE)
    pixels[to] = np.rint(made) if pixels.dtype == np.uint8 else made
    numbers = sample.numbers
    if numbers is not None and other.numbers is not None:
        numbers = numbers.copy()
        mask = other.numbers[there[0] : there[0] + shape[0], there[1] : there[1] + shape[1]] == chosen + 1
        numbers[to][mask] = len(sample.boxes) + 1
    return replace(
        sample,
        pixels=pixels,
        boxes=np.concatenate([sample.boxes, box[None]]),
        kinds=np.concatenate([sample.kinds, other.kinds[[chosen]]]),
        numbers=numbers,
    )


def _fading(shape: tuple[int, int], box: Float64[np.ndarray, " 4"]) -> Float32[np.ndarray, "h w"]:
    """1 inside a box of the patch, falling to 0 over the margin."""
    x, y = np.arange(shape[1]), np.arange(shape[0])
    across = np.maximum(box[0] - x, x - box[2]).clip(0)[None]
    down = np.maximum(box[1] - y, y - box[3]).clip(0)[:, None]
    return np.clip(1 - np.maximum(across, down) / MARGIN_PX, 0, 1).astype(np.float32)


def _covered(boxes: Float64[np.ndarray, "n 4"], box: Float64[np.ndarray, " 4"]) -> float:
    """Greatest share of a box that another one covers."""
    if not len(boxes):
        return 0.0
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    return float((np.clip(high - low, 0, None).prod(axis=1) / np.maximum(areas(boxes), 1e-9)).max())
