"""How far an image is from its reference, in units of what is tolerated there.

`deviation` divides the difference by the tolerance, light and dark apart; `opened` drops what is smaller than a
square; `edge_tolerance` says how much an edge may differ because nobody registers it perfectly. `max |opened|` is the
score of an image: the smallest threshold at which nothing is found.

numba is imported with this file: import it where it is used, not at start-up.

Source: the template systems that S2 reviews in 2.3.1.1 (R1: edge mask, absolute difference, rules); here the mask is
soft and the rules come later, on what `waferlens.ops.blobs` finds.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Float
from numba import njit

from waferlens.errors import UsageError

IMAGE_TYPES = (np.uint8, np.uint16, np.float32)


def deviation(
    image: np.ndarray,
    reference: Float[np.ndarray, "h w"],
    light: float | Float[np.ndarray, "h w"],
    dark: float | Float[np.ndarray, "h w"],
    *,
    gain: float = 1.0,
    offset: float = 0.0,
    care: np.ndarray | None = None,
) -> Float[np.ndarray, "h w"]:
    """Difference from the reference in units of the tolerance, float32: positive where the image is brighter.

    With d = image - (gain * reference + offset) it is d / light where d > 0 and d / dark elsewhere; 0 where nobody
    cares, and where d is not a number.

    Args:
        image: `h w`, uint8, uint16 or float32 [grey]
        reference: on the grid of the image, finite [grey]
        light: how much brighter is tolerated, positive; one number or a map [grey]
        dark: how much darker is tolerated, positive; one number or a map [grey]
        gain: contrast of the image over that of the reference [1]
        offset: what is added to the reference [grey]
        care: `h w`, bool or uint8: where it is 0, nothing deviates; everywhere else where it is None.

    Raises:
        UsageError: shapes differ, a type is not one of the above, or a tolerance is not positive.
    """
    image, reference, light_map, dark_map, care_map = maps(image, reference, light, dark, care)
    out = np.empty(image.shape, np.float32)
    if not _deviations(image, reference, light_map, dark_map, care_map, np.float32(gain), np.float32(offset), out):
        raise not_positive()
    return out


def opened(deviation: Float[np.ndarray, "h w"], size_px: int) -> Float[np.ndarray, "h w"]:
    """What of the deviation is at least a square large, float32: a grey-scale opening of either sign.

    The positive part is opened, and so is the negative one: a pixel keeps the greatest value that a whole square
    around it reaches, and 0 where no square of its own sign holds it. Cutting the result at any k >= 0 is the same as
    cutting the deviation at k and opening the mask of either sign. At the border a square counts if at least half of
    each of its sides lies in the image, so that a defect cut by the border is not lost.

    Args:
        deviation: signed, finite
        size_px: side of the square; 1 changes nothing [px]

    Raises:
        UsageError: size_px is not a positive whole number.
    """
    size = whole("size_px", size_px, 1)
    deviation = plane("deviation", deviation, (np.float32,))
    if size == 1:
        return np.array(deviation)
    lightest = _opened_part(np.maximum(deviation, 0), size)
    return lightest - _opened_part(np.maximum(-deviation, 0), size)


def edge_tolerance(reference: Float[np.ndarray, "h w"], position_px: float) -> Float[np.ndarray, "h w"]:
    """What the reference's edges may differ by if they may lie position_px elsewhere, float32 [grey].

    position_px times the steepest slope near by. `Near by` is every pair of neighbours within ceil(position_px) of
    the pixel, so that no shift of up to position_px in any direction (linear between pixels) changes a pixel by more.

    Args:
        reference: finite [grey]
        position_px: how far an edge may be from where the reference has it; 0 gives 0 [px]

    Raises:
        UsageError: position_px is negative or not finite.
    """
    reference = plane("reference", reference, (np.float32,))
    if not (math.isfinite(position_px) and position_px >= 0):
        raise UsageError(f"position_px must be 0 or a positive number of pixels, got {position_px}")
    reach = math.ceil(position_px)
    if reach == 0:
        return np.zeros_like(reference)
    along_x = _steepest(reference, reach)
    along_y = _steepest(np.ascontiguousarray(reference.T), reach).T
    return np.float32(position_px) * np.hypot(along_x, along_y)


# --------------------------------------------------------------------------------------------------- what is handed in


def plane(name: str, array: np.ndarray, types: tuple[type, ...]) -> np.ndarray:
    """The array as the kernels take it: `h w`, one of the types, without gaps.

    Raises:
        UsageError: it has no pixels, another number of axes or another type.
    """
    if array.ndim != 2 or array.size == 0:
        raise UsageError(f"{name}: rows and columns of at least one pixel are needed, got the shape {array.shape}")
    if array.dtype not in types:
        known = ", ".join(np.dtype(each).name for each in types)
        raise UsageError(f"{name}: the type is {array.dtype}, and must be one of {known}")
    # Read-only for all: a kernel is compiled once, and not again for an image that lies in a file.
    array = np.ascontiguousarray(array).view()
    array.flags.writeable = False
    return array


def maps(
    image: np.ndarray,
    reference: np.ndarray,
    light: float | np.ndarray,
    dark: float | np.ndarray,
    care: np.ndarray | None,
) -> tuple[np.ndarray, ...]:
    """Image, reference, tolerances and care as the kernels take them; what holds everywhere is a map of one pixel."""
    image = plane("image", image, IMAGE_TYPES)
    reference = plane("reference", reference, (np.float32,))
    same_grid("reference", reference, image)
    tolerances = []
    for name, tolerance in (("light", light), ("dark", dark)):
        if np.ndim(tolerance) == 0:
            tolerance = np.full((1, 1), tolerance, np.float32)
        else:
            same_grid(name, tolerance, image)
        tolerances.append(plane(name, tolerance, (np.float32,)))
    if care is None:
        care = np.ones((1, 1), np.uint8)
    else:
        same_grid("care", care, image)
    return image, reference, *tolerances, plane("care", care, (np.bool_, np.uint8)).view(np.uint8)


def same_grid(name: str, array: np.ndarray, image: np.ndarray) -> None:
    """Refuse a map that is not on the image's grid.

    Raises:
        UsageError: the shapes differ.
    """
    if array.shape != image.shape:
        told = " x ".join(map(str, array.shape))
        h, w = image.shape
        raise UsageError(f"{name}: {told} pixels, but the image has {h} x {w}: bring it onto the image's grid first")


def whole(name: str, number: int, least: int) -> int:
    """A whole number of at least `least`.

    Raises:
        UsageError: it is not.
    """
    if int(number) != number or number < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, got {number}")
    return int(number)


def not_positive() -> UsageError:
    """What is said of a tolerance that is not positive."""
    return UsageError("light and dark: every tolerance must be a positive number of grey; one is 0, negative or NaN")


# --------------------------------------------------------------------------------------------------- the kernels


@njit(nogil=True, cache=True, error_model="numpy")
def deviation_row(image, reference, light, dark, care, gain, offset, out):
    """One row of the deviation; False if a tolerance is not positive."""
    wrong = 0
    for x in range(out.size):
        difference = np.float32(image[x]) - (gain * reference[x] + offset)
        more, less = light[x], dark[x]
        wrong |= (not more > 0) | (not less > 0)
        units = difference / (more if difference > 0 else less)
        out[x] = units if (care[x] != 0) & (units == units) else np.float32(0)
    return wrong == 0


@njit(nogil=True, cache=True)
def spread(one_or_map, w):
    """The row that stands for all rows of a map of one pixel; an empty one where there is a row for each."""
    row = np.empty(w if one_or_map.size == 1 else 0, one_or_map.dtype)
    row[:] = one_or_map[0, 0]
    return row


@njit(nogil=True, cache=True, error_model="numpy")
def _deviations(image, reference, light, dark, care, gain, offset, out):
    h, w = image.shape
    all_light, all_dark, all_care = spread(light, w), spread(dark, w), spread(care, w)
    right = True
    for y in range(h):
        light_row = all_light if all_light.size else light[y]
        dark_row = all_dark if all_dark.size else dark[y]
        care_row = all_care if all_care.size else care[y]
        right &= deviation_row(image[y], reference[y], light_row, dark_row, care_row, gain, offset, out[y])
    return right


def _opened_part(part: np.ndarray, size: int) -> np.ndarray:
    """Opening of a map that is nowhere negative."""
    h, w = part.shape
    if size % 2 == 0:  # the squares lie about corners of pixels: one row and one column more of them
        part = cv2.copyMakeBorder(part, 0, 1, 0, 1, cv2.BORDER_CONSTANT, value=math.inf)
    square = np.ones((size, size), np.uint8)
    least = cv2.erode(part, square, anchor=(size // 2, size // 2))
    # The square of the way back is mirrored, which OpenCV leaves to the caller.
    back = size - 1 - size // 2
    return cv2.dilate(least, square, anchor=(back, back))[:h, :w]


def _steepest(reference: np.ndarray, reach: int) -> np.ndarray:
    """Greatest difference of neighbours along x among the pairs within reach of each pixel."""
    steps = np.zeros_like(reference)
    np.abs(np.subtract(reference[:, 1:], reference[:, :-1], out=steps[:, :-1]), out=steps[:, :-1])
    # Pair x stands between x and x + 1: the pairs within reach of x are x - reach to x + reach - 1.
    window = np.ones((2 * reach + 1, 2 * reach), np.uint8)
    return cv2.dilate(steps, window, anchor=(reach, reach))
