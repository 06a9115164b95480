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
from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Float
from numba import njit

from waferlens.errors import UsageError

IMAGE_TYPES = (np.uint8, np.uint16, np.float32)
BAND_PIXELS = 2**17
"""Of a map at a time: half a megabyte, which stays near the core"""


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
    made = Deviation(image, reference, light, dark, gain, offset, care)
    out = np.empty(image.shape, np.float32)
    for top, bottom in bands(out.shape):
        made.rows(top, out[top:bottom])
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
    deviation = plane("deviation", deviation, (np.float32,))
    size = side("size_px", size_px, deviation)
    if size == 1:
        return deviation.copy()
    out, h = np.empty(deviation.shape, np.float32), len(deviation)
    for top, bottom in bands(out.shape, size):
        first, stop = with_neighbours(top, bottom, size, h)
        out[top:bottom] = opened_rows(deviation[first:stop], first, top, bottom, h, size)[0]
    return out


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


class Deviation:
    """Everything a deviation is made of, made some rows at a time."""

    def __init__(
        self,
        image: np.ndarray,
        reference: np.ndarray,
        light: float | np.ndarray,
        dark: float | np.ndarray,
        gain: float,
        offset: float,
        care: np.ndarray | None,
    ) -> None:
        self.image, self.reference = plane("image", image, IMAGE_TYPES), plane("reference", reference, (np.float32,))
        given = {"reference": reference, "light": light, "dark": dark, "care": care}
        for name, each in given.items():
            if np.ndim(each):
                same_grid(name, each, image)
        w = image.shape[1]
        # what holds everywhere is one row
        self._light, self._dark = (
            plane(name, each if np.ndim(each) else np.full((1, w), each, np.float32), (np.float32,))
            for name, each in (("light", light), ("dark", dark))
        )
        care = np.ones((1, w), np.uint8) if care is None else care
        self._care = plane("care", care, (np.bool_, np.uint8)).view(np.uint8)
        self._photometry = np.float32(gain), np.float32(offset)

    def rows(self, first: int, out: Float[np.ndarray, "k w"]) -> None:
        """The rows from the first on, as many as there is room for.

        Raises:
            UsageError: a tolerance is not positive.
        """
        here = slice(first, first + len(out))
        np.copyto(out, self.image[here])
        light, dark, care = (part if len(part) == 1 else part[here] for part in (self._light, self._dark, self._care))
        if not _deviate(out, self.reference[here], light, dark, care, *self._photometry):
            raise UsageError("light and dark: a tolerance must be a positive number of grey; one is 0, negative or NaN")


def bands(shape: tuple[int, int], size: int = 1) -> Iterator[tuple[int, int]]:
    """Rows of a map, first and one after the last, few enough to stay near the core and many for a square's side."""
    h, w = shape
    rows = max(1, BAND_PIXELS // w, 4 * (size - 1))
    for top in range(0, h, rows):
        yield top, min(top + rows, h)


def with_neighbours(top: int, bottom: int, size: int, h: int) -> tuple[int, int]:
    """The rows that the opening of rows needs, first and one after the last."""
    return max(top - size + 1, 0), min(bottom + size - 1, h)


def opened_rows(
    rows: Float[np.ndarray, "k w"], first: int, top: int, bottom: int, h: int, size: int, limit: float = -1.0
) -> tuple[Float[np.ndarray, "n w"] | None, float]:
    """Rows of an opening, from top to one before the bottom, and their greatest number without its sign, at least.

    The square's positions that hold one sign throughout have a core, and a pixel is what the best of its squares has.
    Of odd sizes a position is a pixel, of even ones the corner before it, of which there is one more along each axis.
    The border is continued by its own pixels, which is the same as leaving out what lies beyond, because a window that
    reaches past the border holds the border.

    Args:
        rows: of the deviation, at least those that the opening needs
        first: which row of the map the first of them is
        top: first row wanted
        bottom: one after the last
        h: rows of the map
        size: side of the square [px]
        limit: where no pixel is beyond it there is no need of the rows: None comes for them [tolerance]
    """
    before = size // 2
    after = size - 1 - before
    last, more = h - size % 2, 1 - size % 2
    low, high = max(top - after, 0), min(bottom - 1 + before, last)
    start, stop = low - before, high + after + 1
    cores = _folded(
        False,
        _continued(
            rows[max(start, 0) - first : min(stop, h) - first], max(0, -start), max(0, stop - h), before, after + more
        ),
        size,
    )
    strongest = greatest(cores)
    if strongest <= limit:
        return None, strongest
    around = _continued(cores, low - top + after, bottom - 1 + before - high, after, before - more)
    return _folded(True, around, size), strongest


def greatest(units: np.ndarray) -> float:
    """The greatest number without its sign; what is no number is not counted."""
    strongest = float(max(units.max(), -units.min()))
    return strongest if strongest == strongest else float(np.fmax.reduce(np.abs(units), axis=None, initial=0))


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


def side(name: str, size_px: int, image: np.ndarray) -> int:
    """The side of a square that opens an image: beyond twice the image's larger side nothing changes any more.

    Raises:
        UsageError: it is not a positive whole number.
    """
    return min(whole(name, size_px, 1), 2 * max(image.shape))


def _steepest(reference: np.ndarray, reach: int) -> np.ndarray:
    """Greatest difference of neighbours along x among the pairs within reach of each pixel."""
    steps = np.zeros_like(reference)
    np.abs(np.subtract(reference[:, 1:], reference[:, :-1], out=steps[:, :-1]), out=steps[:, :-1])
    # Pair x stands between x and x + 1: the pairs within reach of x are x - reach to x + reach - 1.
    window = np.ones((2 * reach + 1, 2 * reach), np.uint8)
    return cv2.dilate(steps, window, anchor=(reach, reach))


def _continued(rows: np.ndarray, above: int, below: int, left: int, right: int) -> np.ndarray:
    """Rows with their border continued."""
    return cv2.copyMakeBorder(rows, above, below, left, right, cv2.BORDER_REPLICATE)


def _folded(farther: bool, rows: np.ndarray, size: int) -> np.ndarray:
    """Every square of some rows folded to one number; each pass makes windows up to three times as long.

    All is done in one line of pixels: where windows run over the ends of rows nobody looks.
    """
    h, w = rows.shape
    line = rows.reshape(-1)
    for step in (1, w):
        have = 1
        while have < size:
            reach = min(3 * have, size)
            far = (reach - have) * step
            out = np.empty(line.size - far, np.float32)
            near = min(have, reach - have) * step
            _fold(farther, line[: out.size], line[near : near + out.size], line[far:], out)
            line, have = out, reach
    return np.lib.stride_tricks.as_strided(line, (h - size + 1, w - size + 1), (4 * w, 4))


# --------------------------------------------------------------------------------------------------- the kernels
# Two, and neither calls another: what is called is compiled anew with each that calls it.


@njit(nogil=True, cache=True, error_model="numpy")
def _deviate(units, reference, light, dark, care, gain, offset):
    """Grey values become their deviation; False if a tolerance is not positive. A map of one row stands for all."""
    wrong = 0
    for y in range(len(units)):
        row, good = units[y], reference[y]
        more = light[y if len(light) > 1 else 0]
        less = dark[y if len(dark) > 1 else 0]
        counts = care[y if len(care) > 1 else 0]
        for x in range(row.size):
            difference = row[x] - (gain * good[x] + offset)
            wrong |= (not more[x] > 0) | (not less[x] > 0)
            part = difference / (more[x] if difference > 0 else less[x])
            row[x] = part if (counts[x] != 0) & (part == part) else np.float32(0)
    return wrong == 0


@njit(nogil=True, cache=True)
def _fold(farther, a, b, c, out):
    """Of three numbers the one farthest from 0; else the one nearest to it, or 0 where their signs differ.

    That is an erosion of either sign, and the dilation that follows it: after an erosion, no window holds both signs.
    """
    for x in range(out.size):
        low = a[x] if a[x] < b[x] else b[x]
        high = b[x] if a[x] < b[x] else a[x]
        low = low if low < c[x] else c[x]
        high = high if high > c[x] else c[x]
        far = high if high > 0 else low
        near = low if low > 0 else (high if high < 0 else np.float32(0))
        out[x] = far if farther else near
