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
from jaxtyping import Bool, Float
from numba import njit

from waferlens.errors import UsageError

IMAGE_TYPES = (np.uint8, np.uint16, np.float32)
ALL = -1.0
"""A limit that every row is beyond"""
_NEXT, _LAST, _STRONGEST = range(3)  # of the state: next row, the row that brought the last core beyond the limit


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
    return Opening(image, reference, light, dark, gain, offset, care).whole()


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
    size = side("size_px", size_px, plane("deviation", deviation, (np.float32,)))
    return Opening(deviation, size=size).whole()


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


class Opening:
    """An opened deviation that is made from top to bottom, some rows at a time, and never held as a whole.

    Without a reference the image is itself the deviation that is opened.
    """

    def __init__(
        self,
        image: np.ndarray,
        reference: np.ndarray | None = None,
        light: float | np.ndarray = 1.0,
        dark: float | np.ndarray = 1.0,
        gain: float = 1.0,
        offset: float = 0.0,
        care: np.ndarray | None = None,
        size: int = 1,
    ) -> None:
        image = plane("image", image, IMAGE_TYPES)
        given = {"reference": reference, "light": light, "dark": dark, "care": care}
        for name, each in given.items():
            if np.ndim(each):
                same_grid(name, each, image)
        self._shape = image.shape
        self._maps = (
            greys(image),
            all_over(0, np.float32)[:0] if reference is None else plane("reference", reference, (np.float32,)),
            *(
                plane(name, given[name], (np.float32,)) if np.ndim(given[name]) else all_over(given[name], np.float32)
                for name in ("light", "dark")
            ),
            all_over(1, np.uint8) if care is None else plane("care", care, (np.bool_, np.uint8)).view(np.uint8),
        )
        self._photometry = np.float32(gain), np.float32(offset)
        self._room = _opening_room(image.shape[1], size)
        self._state = np.array([0, -size, 0], np.int64)

    @property
    def score(self) -> float:
        """Greatest number of the rows made so far, without its sign [tolerance]"""
        return as_float(self._state[_STRONGEST])

    def rows(self, out: Float[np.ndarray, "k w"], limit: float = ALL) -> Bool[np.ndarray, " k"]:
        """The next rows.

        Args:
            out: where they are written
            limit: rows that cannot have a pixel beyond it are not written. [tolerance]

        Returns:
            Which rows were written.

        Raises:
            UsageError: a tolerance is not positive.
        """
        written = np.empty(len(out), np.bool_)
        # A float32 sorts like its bits, and a negative one before all that have no sign.
        limit_bits = np.float32(limit).view(np.int32)
        if not _open(self._shape[0], self._maps, self._photometry, limit_bits, self._room, self._state, out, written):
            raise UsageError("light and dark: a tolerance must be a positive number of grey; one is 0, negative or NaN")
        return written

    def whole(self) -> Float[np.ndarray, "h w"]:
        """All rows of an opening just begun."""
        out = np.empty(self._shape, np.float32)
        self.rows(out)
        return out


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


def all_over(number: float, dtype: type) -> np.ndarray:
    """What holds everywhere, as a map of one pixel."""
    return plane("", np.full((1, 1), number, dtype), (dtype,))


def greys(image: np.ndarray) -> tuple[np.ndarray, ...]:
    """The image at the place of its type beside maps of no rows, so that a kernel is compiled once for all types."""
    return tuple(image if image.dtype == each else all_over(0, each)[:0] for each in IMAGE_TYPES)


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


def as_float(bits: np.integer) -> float:
    """The float32 of these bits."""
    return float(np.int32(bits).view(np.float32))


def _opening_room(w: int, size: int) -> tuple[np.ndarray, ...]:
    """Room for an opening: a row with its border, thin rows, cores with their border, and rows to work in."""
    positions = w + 1 - size % 2
    shapes = positions + size - 1, (size, positions), (size, w + size - 1), (3, positions + size - 1)
    return tuple(np.zeros(shape, np.float32) for shape in shapes)


def _steepest(reference: np.ndarray, reach: int) -> np.ndarray:
    """Greatest difference of neighbours along x among the pairs within reach of each pixel."""
    steps = np.zeros_like(reference)
    np.abs(np.subtract(reference[:, 1:], reference[:, :-1], out=steps[:, :-1]), out=steps[:, :-1])
    # Pair x stands between x and x + 1: the pairs within reach of x are x - reach to x + reach - 1.
    window = np.ones((2 * reach + 1, 2 * reach), np.uint8)
    return cv2.dilate(steps, window, anchor=(reach, reach))


# --------------------------------------------------------------------------------------------------- the kernels


@njit(nogil=True, cache=True)
def grey_row(images, y, out):
    """A row of the one image that is there, as float32."""
    if images[0].size:
        _copy(images[0][y], out)
    elif images[1].size:
        _copy(images[1][y], out)
    else:
        _copy(images[2][y], out)


@njit(nogil=True, cache=True)
def _copy(row, out):
    for x in range(out.size):
        out[x] = row[x]


@njit(nogil=True, cache=True, error_model="numpy")
def _deviation_row(reference, light, dark, care, gain, offset, row):
    """Grey values of a row become its deviation; False if a tolerance is not positive."""
    wrong = 0
    for x in range(row.size):
        difference = row[x] - (gain * reference[x] + offset)
        more, less = light[x], dark[x]
        wrong |= (not more > 0) | (not less > 0)
        units = difference / (more if difference > 0 else less)
        row[x] = units if (care[x] != 0) & (units == units) else np.float32(0)
    return wrong == 0


@njit(nogil=True, cache=True)
def _spread(one_or_map, w):
    """The row that stands for all rows of a map of one pixel; an empty one where there is a row for each."""
    row = np.empty(w if one_or_map.size == 1 else 0, one_or_map.dtype)
    for x in range(row.size):
        row[x] = one_or_map[0, 0]
    return row


@njit(nogil=True, cache=True)
def _open(h, maps, photometry, limit, room, state, out, written):
    """The next rows of the opening; False if a tolerance is not positive."""
    images, reference, light, dark, care = maps
    gain, offset = photometry
    line, thin, core, work = room
    size, w = len(thin), out.shape[1]
    all_light, all_dark, all_care = _spread(light, w), _spread(dark, w), _spread(care, w)
    row = line[size // 2 :][:w]
    right = True
    first = max(state[_NEXT] - size + 1, 0)
    for t in range(state[_NEXT], first + len(out) + size - 1):
        if t < h:
            grey_row(images, t, row)
            if reference.size:
                light_row = all_light if all_light.size else light[t]
                dark_row = all_dark if all_dark.size else dark[t]
                care_row = all_care if all_care.size else care[t]
                right &= _deviation_row(reference[t], light_row, dark_row, care_row, gain, offset, row)
        strongest = strongest_bits(row) if size == 1 else _core_row(t, h, w, line, thin, core, work)
        state[_STRONGEST] = max(state[_STRONGEST], strongest)
        state[_LAST] = t if strongest > limit else state[_LAST]
        at = t - size + 1 - first
        if at >= 0:
            written[at] = t - state[_LAST] < size
            if written[at] and size == 1:
                _copy(row, out[at])
            elif written[at]:
                _opened_row(first + at, h, core, work, out[at])
    state[_NEXT] = first + len(out) + size - 1
    return right


# An opening goes row by row: of the last `size` rows of the deviation it keeps the rows narrowed along x (`thin`), of
# the last `size` positions of the square what the square holds throughout (`core`). For odd sizes a position is a
# pixel, for even ones the corner before it, of which there is one more. The border is continued by its own pixels,
# which is the same as leaving out what lies beyond, because a window that reaches past the border holds the border.


@njit(nogil=True, cache=True)
def _positions(pixels, size):
    """Positions of the square along an axis."""
    return pixels + 1 - size % 2


@njit(nogil=True, cache=True)
def _core_row(t, h, w, line, thin, core, work):
    """The core at position t - (size - 1 - size // 2), after row t of the deviation has been put into line.

    Rows from h on are beyond the border. Returns the bits of the strongest.
    """
    size = len(thin)
    before = size // 2
    after = size - 1 - before
    if t < h:
        _continue(line, before, w)
        _slide(False, line, size, work, thin[t % size])
    at = t - after
    if at < 0 or at >= _positions(h, size):
        return np.int32(0)
    row = core[at % size]
    inner = row[after : after + thin.shape[1]]
    _stack(False, thin, max(at - before, 0), min(at + after, h - 1), work, inner)
    _continue(row, after, inner.size)
    return strongest_bits(inner)


@njit(nogil=True, cache=True)
def _opened_row(y, h, core, work, out):
    """Row y of the opening, after the core at position y + size // 2."""
    size = len(core)
    low = y - (size - 1 - size // 2)
    line = work[2][: core.shape[1]]
    _stack(True, core, max(low, 0), min(low + size - 1, _positions(h, size) - 1), work, line)
    _slide(True, line, size, work, out)


@njit(nogil=True, cache=True)
def strongest_bits(row):
    """The greatest number of a row without its sign, as the bits of a float32.

    They sort like it, and integers have a maximum that becomes vectors.
    """
    bits = row.view(np.int32)
    strongest = np.int32(0)
    for x in range(bits.size):
        strongest = max(strongest, bits[x] & np.int32(0x7FFFFFFF))
    return strongest


@njit(nogil=True, cache=True)
def _fill(row, number):
    for x in range(row.size):
        row[x] = number


@njit(nogil=True, cache=True)
def _continue(line, before, n):
    """Continue the n numbers of a row beyond the border on either side."""
    _fill(line[:before], line[before])
    _fill(line[before + n :], line[before + n - 1])


@njit(nogil=True, cache=True)
def _slide(farther, line, size, work, out):
    """Fold every window of a row; each pass makes the windows up to three times as long."""
    here, have, turn = line, 1, 0
    while True:
        reach = min(3 * have, size)
        n = line.size - reach + 1
        there = out if reach == size else work[turn][:n]
        _fold(farther, here[:n], here[min(have, reach - have) :][:n], here[reach - have :][:n], there)
        if reach == size:
            break
        here, have, turn = there, reach, 1 - turn


@njit(nogil=True, cache=True)
def _stack(farther, ring, first, last, work, out):
    """Fold the rows first to last of a ring, pixel by pixel, three at a time."""
    size = len(ring)
    here, turn = ring[first % size], 0
    while True:
        second, third = min(first + 1, last), min(first + 2, last)
        there = out if third == last else work[turn][: out.size]
        _fold(farther, here, ring[second % size], ring[third % size], there)
        if third == last:
            break
        here, first, turn = there, third, 1 - turn


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
