"""Level a map, and say its range and rms: two passes over the memory instead of a dozen.

`level_range_rms` is the fast kernel, `level_range_rms_ref` the slow twin that says what it computes; tests hold them
equal to 1e-10. The kernel releases the lock and works on strips of rows in ordinary threads; the strips are the same
whatever the number of threads, so that the sums are the same to the last bit.

numba is imported with this file: import it where it is used, not at start-up.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numba import njit

from waferlens.ops.surface import UNKNOWN, Plane, fit_plane, known_points

# Sums may be reordered (that is what makes them vectors); NaN and infinity must keep their meaning.
_FAST = {"reassoc", "contract", "arcp", "nsz"}
_STRIP_ROWS = 128
_LARGEST = np.finfo(np.float64).max


@dataclass(frozen=True, slots=True)
class Levelled:
    """What is left of a map after its least-squares plane."""

    plane: Plane
    points: int
    """How many valid points took part"""
    range: float
    """Highest minus lowest point after levelling [unit of the heights]"""
    rms: float
    """Root mean square of the heights after levelling [unit of the heights]"""


def level_range_rms(
    heights: Float[np.ndarray, "h w"],
    valid: Bool[np.ndarray, "h w"] | None = None,
    *,
    out: Float[np.ndarray, "h w"] | None = None,
    threads: int | None = None,
) -> Levelled:
    """Least-squares plane, range and rms about it, and the levelled map if room is given for it.

    Args:
        heights: the map, float32 or float64; points that are not finite never take part.
        valid: which points may take part; every finite one where it is None.
        out: where the levelled map is written, NaN where not valid; nothing is written where it is None.
        threads: how many threads to use; one per processor where it is None.
    """
    heights = np.ascontiguousarray(heights)
    h = heights.shape[0]
    strips = [(top, min(top + _STRIP_ROWS, h)) for top in range(0, h, _STRIP_ROWS)]
    threads = min(len(strips), threads or _processors())
    # Heights are summed from a height of the map itself: its offset can be 10^5 times its relief.
    origin = _some_height(heights, valid)
    if math.isnan(origin):
        return Levelled(UNKNOWN, 0, math.nan, math.nan)
    moments = np.zeros((len(strips), 9))
    remains = np.zeros((len(strips), 4))
    with ThreadPoolExecutor(threads) as pool:
        jobs = [pool.submit(_moments, heights, valid, *strips[i], origin, moments[i]) for i in range(len(strips))]
        for job in jobs:
            job.result()
        plane, points = _solve(moments.sum(axis=0), origin)
        if not plane.known:
            if out is not None:
                out[:] = math.nan
            return Levelled(UNKNOWN, points, math.nan, math.nan)
        numbers = (plane.centre, plane.slope_x, plane.slope_y)
        jobs = [
            pool.submit(_remains, heights, valid, *strips[i], *numbers, out, remains[i]) for i in range(len(strips))
        ]
        for job in jobs:
            job.result()
    mean = float(remains[:, 0].sum()) / points
    rms = math.sqrt(max(0.0, float(remains[:, 1].sum()) / points - mean * mean))
    return Levelled(plane, points, float(remains[:, 3].max() - remains[:, 2].min()), rms)


def level_range_rms_ref(heights: Float[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"] | None = None) -> Levelled:
    """The same in plain NumPy: the definition the kernel is held to."""
    known = known_points(heights, valid)
    plane = fit_plane(heights, valid)
    if not plane.known:
        return Levelled(UNKNOWN, int(known.sum()), math.nan, math.nan)
    rest = (heights - plane.over(heights.shape))[known]
    return Levelled(plane, rest.size, float(np.ptp(rest)), float(rest.std()))


def _processors() -> int:
    """Processors this process may use; not every system can tell them from those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _some_height(heights: np.ndarray, valid: np.ndarray | None) -> float:
    """The first usable height in reading order; NaN where there is none."""
    for row in range(heights.shape[0]):
        usable = known_points(heights[row], None if valid is None else valid[row])
        if usable.any():
            return float(heights[row][np.argmax(usable)])
    return math.nan


def _solve(sums: np.ndarray, origin: float) -> tuple[Plane, int]:
    """The plane from the moments n, x, y, xx, xy, yy, z, xz, yz."""
    n, x, y, xx, xy, yy, z, xz, yz = sums
    points = int(n)
    if points < 3:
        return UNKNOWN, points
    normal = np.array([[n, x, y], [x, xx, xy], [y, xy, yy]])
    # Scaled to a unit diagonal, so that the rank does not depend on the size of the map.
    scale = 1 / np.sqrt(np.maximum(np.diag(normal), 1e-300))
    scaled = normal * scale[:, None] * scale[None, :]
    if np.linalg.matrix_rank(scaled, hermitian=True) < 3:
        return UNKNOWN, points
    centre, slope_x, slope_y = np.linalg.solve(scaled, np.array([z, xz, yz]) * scale) * scale
    return Plane(float(centre) + origin, float(slope_x), float(slope_y)), points


@njit(nogil=True, cache=True, fastmath=_FAST)
def _moments(heights, valid, top, bottom, origin, sums):
    """Moments of one strip of rows, x and y counted from the middle of the map."""
    h, w = heights.shape
    xc, yc = 0.5 * (w - 1), 0.5 * (h - 1)
    for row in range(top, bottom):
        n, sx, sxx, sz, sxz = 0.0, 0.0, 0.0, 0.0, 0.0
        for column in range(w):
            z = heights[row, column] - origin
            usable = abs(z) <= _LARGEST if valid is None else (valid[row, column] and abs(z) <= _LARGEST)
            one = 1.0 if usable else 0.0
            z = z if usable else 0.0
            x = column - xc
            n += one
            sx += one * x
            sxx += one * x * x
            sz += z
            sxz += z * x
        y = row - yc
        sums[0] += n
        sums[1] += sx
        sums[2] += n * y
        sums[3] += sxx
        sums[4] += sx * y
        sums[5] += n * y * y
        sums[6] += sz
        sums[7] += sxz
        sums[8] += sz * y


@njit(nogil=True, cache=True, fastmath=_FAST)
def _remains(heights, valid, top, bottom, centre, slope_x, slope_y, out, sums):
    """Sum, sum of squares, lowest and highest point of one strip after levelling; the strip itself if wanted.

    Points that take no part count as 0. What is left of a least-squares plane has the mean 0, so 0 lies between the
    lowest and the highest point and cannot become either.
    """
    h, w = heights.shape
    xc, yc = 0.5 * (w - 1), 0.5 * (h - 1)
    total, squares = 0.0, 0.0
    lowest, highest = np.int64(0), np.int64(0)
    rest = np.empty(w)
    keys = rest.view(np.int64)
    for row in range(top, bottom):
        start = centre + slope_y * (row - yc)
        for column in range(w):
            z = (heights[row, column] - start) - slope_x * (column - xc)
            usable = abs(z) <= _LARGEST if valid is None else (valid[row, column] and abs(z) <= _LARGEST)
            z = z if usable else 0.0
            total += z
            squares += z * z
            rest[column] = z
            if out is not None:
                out[row, column] = z if usable else np.nan
        low, high = _extremes(keys)
        lowest, highest = min(lowest, low), max(highest, high)
    sums[0] = total
    sums[1] = squares
    sums[2] = _from_key(lowest)
    sums[3] = _from_key(highest)


@njit(nogil=True, cache=True)
def _extremes(keys):
    """Smallest and largest of the floats behind these bits, as integers that sort like them.

    A minimum of floats has to mind NaN at every step and stays scalar; a minimum of integers becomes vectors, three
    times as fast. IEEE 754 doubles sort like integers once the lower 63 bits of the negative ones are flipped.
    """
    low, high = np.int64(0), np.int64(0)
    for index in range(keys.size):
        bits = keys[index]
        key = bits ^ ((bits >> 63) & np.int64(0x7FFFFFFFFFFFFFFF))
        low, high = min(low, key), max(high, key)
    return low, high


@njit(nogil=True, cache=True)
def _from_key(key):
    """The float a sortable integer stands for."""
    bits = np.empty(1, np.int64)
    bits[0] = key ^ ((key >> 63) & np.int64(0x7FFFFFFFFFFFFFFF))
    return bits.view(np.float64)[0]
