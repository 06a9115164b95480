"""An image together with its good part, as a detector is shown both: in three channels of one picture.

The first channel is the image. The second is its reference, laid over it by an affine map and matched in gain and
offset. The third is half of what the first is brighter than the second, on a middle grey. What nobody has seen before
is not learned by heart, then: a network that compares finds the defects of boards that it never saw.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from waferlens.errors import FormatError
from waferlens.load.package import Picture, read_pixels
from waferlens.ops.photometry import gain_offset
from waferlens.ops.registration import register, warped
from waferlens.recipe.pairing import reference_path


class UnlikeError(FormatError):
    """An image that does not lie on its reference: nothing is wrong with its file."""


MIDDLE_GREY = 128.0
"""Third channel where image and reference are alike [grey]"""
FARTHEST = 0.25
"""Greatest shift of a reference, as a share of the image's shorter side."""
LEAST_OVERLAP = 0.5
"""Share of an image that its reference has to cover."""


def shown_pixels(picture: Picture, pair_by: str | None) -> tuple[np.ndarray, float]:
    """An image as a recipe's network is shown it, and its grey value of white.

    Args:
        picture: With its path.
        pair_by: How its name gives that of its reference; None shows the image alone.

    Raises:
        InputError: image or reference cannot be read.
        UnlikeError: they do not lie on each other.
    """
    if pair_by is None:
        return picture.pixels()
    return with_reference(picture.path, reference_path(picture.path, pair_by)), 255.0


def with_reference(path: Path, reference: Path) -> UInt8[np.ndarray, "h w 3"]:
    """An image and its reference, from their files.

    Raises:
        InputError: one cannot be read.
        FormatError: one has more than 8 bits.
        UnlikeError: they do not lie on each other.
    """
    return beside(read_8_bits(path), read_8_bits(reference), path)


def read_8_bits(path: Path) -> UInt8[np.ndarray, "..."]:
    """An image `h w` or `h w 3` [grey]

    Raises:
        InputError: it cannot be read.
        FormatError: it has more than 8 bits.
    """
    pixels, _ = read_pixels(path)
    if pixels.dtype != np.uint8:
        raise FormatError(path, f"has values of {pixels.dtype}; images are compared with a reference in 8 bits")
    return pixels


def beside(
    image: UInt8[np.ndarray, "..."], reference: UInt8[np.ndarray, "..."], path: Path
) -> UInt8[np.ndarray, "h w 3"]:
    """An image and its reference in one picture.

    Args:
        image: `h w` or `h w 3` [grey]
        reference: Likewise; it may have another size [grey]
        path: Of the image, for what is said when they do not match.

    Raises:
        UnlikeError: they do not lie on each other.
    """
    grey, good = _grey(image), _grey(reference)
    if not good.max() > good.min() and good.shape == grey.shape:  # a plain one lies anywhere
        laid, seen = good, np.ones(grey.shape, bool)
    else:
        laid, seen = _laid_over(grey, good, path)
    gain, offset = gain_offset(grey, laid, seen)
    if not gain > 0:
        raise UnlikeError(path, f"its contrast is {gain:.2g} times that of its reference; is it the right one?")
    matched = np.where(
        seen, np.float32(gain) * laid + np.float32(offset), grey
    )  # nothing to compare with: no difference
    brighter = MIDDLE_GREY + (grey - matched) / 2
    return np.stack([np.clip(np.rint(one), 0, 255).astype(np.uint8) for one in (grey, matched, brighter)], axis=2)


def _laid_over(
    grey: Float32[np.ndarray, "h w"], good: Float32[np.ndarray, "p q"], path: Path
) -> tuple[Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """The reference on the image's grid, and where it covers the image."""
    found = register(grey, good, motion="affine", max_shift_px=FARTHEST * min(grey.shape))
    if found.reason:
        raise UnlikeError(path, f"does not lie on its reference: {found.reason}")
    if found.overlap < LEAST_OVERLAP:
        raise UnlikeError(path, f"its reference covers {found.overlap:.0%} of it, less than {LEAST_OVERLAP:.0%}")
    return warped(good, found, grey.shape)


def _grey(pixels: UInt8[np.ndarray, "..."]) -> Float32[np.ndarray, "h w"]:
    return (pixels if pixels.ndim == 2 else pixels.mean(axis=2)).astype(np.float32)
