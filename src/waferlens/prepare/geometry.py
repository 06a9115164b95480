"""From an image to what the network sees: the one function that training, export, evaluation and inspection share.

Nothing else may touch the pixels on the way in. Normalisation is inside the exported graph, so all that is left here
is the size and the grey scale: 0..255 grey as float32, where a 16-bit image keeps all its 65,536 steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, UInt8

from waferlens.errors import InputError
from waferlens.records import Image

GREY_FULL_SCALE = 255.0
"""Grey value of white at the network's input [grey]"""


def to_input(image: Image, height_px: int, width_px: int) -> Float32[np.ndarray, "h w"]:
    """One image as the network sees it.

    Args:
        image: as it was read; grey, any of the types of `records.Image`.
        height_px: rows the network was trained for [px]
        width_px: columns the network was trained for [px]

    Returns:
        The image in 0..255, never rounded to whole grey values [grey]

    Raises:
        InputError: the image has another size. It is not resized: that would change every length in it.
    """
    out = np.empty((height_px, width_px), np.float32)
    fill_input(out, image)
    return out


def fill_input(out: Float32[np.ndarray, "h w"], image: Image) -> None:
    """`to_input` into memory that is already there: inspection fills its batches with it.

    Args:
        out: the place, of the size the network was trained for; overwritten [grey]
        image: as in `to_input`.

    Raises:
        InputError: the image has another size.
    """
    pixels = image.pixels
    if pixels.shape != out.shape:
        height_px, width_px = out.shape
        found = "x".join(str(size) for size in pixels.shape[::-1])
        raise InputError(
            image.path,
            f"the image is {found} px (width x height), the bundle was trained for {width_px}x{height_px} px; "
            "crop it to one hole at the same pixel size, or use a bundle trained for this size",
        )
    if image.full_scale == GREY_FULL_SCALE:
        np.copyto(out, pixels, casting="same_kind")
    else:
        # scaled in float64 and rounded once: 65535 / 257 is 255 exactly, and equal grey stays equal
        np.copyto(out, pixels * (GREY_FULL_SCALE / np.float64(image.full_scale)), casting="same_kind")


def batch_input(pixels: UInt8[np.ndarray, "b h w"]) -> Float32[np.ndarray, "b 1 h w"]:
    """Many 8-bit images as the network sees them; equal to `to_input` of each.

    Args:
        pixels: images of one size, as `load.challenge` hands them out [grey]

    Returns:
        The same in 0..255, with an axis for the one channel [grey]
    """
    return pixels.astype(np.float32)[:, np.newaxis]


def stack_input(images: Sequence[Image], height_px: int, width_px: int) -> Float32[np.ndarray, "b 1 h w"]:
    """Some images, of any type, as one batch.

    Args:
        images: as they were read.
        height_px: rows the network was trained for [px]
        width_px: columns the network was trained for [px]

    Raises:
        InputError: an image has another size.
    """
    batch = np.empty((len(images), 1, height_px, width_px), np.float32)
    for place, image in zip(batch, images, strict=True):
        fill_input(place[0], image)
    return batch


def to_heights(depth: Float[np.ndarray, "*b h w"], plateau: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b h w"]:
    """From the challenge's depth map (grey, deeper is smaller) to heights: positive up, the plateau at 0.

    Args:
        depth: what the network predicts [grey]
        plateau: level of the plateau of each map, as `ops.hole` finds it; where it is NaN there is no plateau to refer
            to and the map keeps its own zero [grey]
    """
    reference = np.where(np.isfinite(plateau), plateau, 0).astype(depth.dtype)
    return depth - reference[..., np.newaxis, np.newaxis]
