"""Halved images, and their correlation over all shifts and a fan of angles: where a registration may start.

Each level of a pyramid is the one before smoothed by (1 3 3 1) / 8 along both axes, and every other pixel of it; means
of 2 x 2 pixels would alias more. A pixel of level k stands for 2^k x 2^k. The centre of the first pixel is (0, 0) on
every level, so a point x of the image lies at (x - c) / 2^k on level k, with c = (2^k - 1) / 2.

numba is imported with this file: import it where it is used, not at start-up.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import scipy.fft
from jaxtyping import Float, Float32, Float64
from numba import njit

_FAST = {"reassoc", "contract", "arcp", "nsz"}
_NEAR_PX = 6.0  # peaks about so near to no shift are looked at in any case: a lattice has one within half its period

_LEAST_ENERGY = 0.02  # of what an average part of that size holds
_CELL_PX = 16  # grid on which lively patches are looked for
_REPEAT = 0.4  # autocorrelation of what repeats: 1 but for noise and defects


class Pyramid:
    """The levels of an image as float32 about zero mean, each made when first asked for."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels
        self._mean = float(pixels[::7, ::7].mean(dtype=np.float64))
        self._levels: dict[int, np.ndarray] = {}
        self._smooth: dict[int, np.ndarray] = {}
        self._variance: dict[int, float] = {}

    def level(self, k: int) -> Float32[np.ndarray, "h w"]:
        """Pixels of 2^k x 2^k; a row or column that fills none is left out."""
        if k not in self._levels:
            finer, less = (self._pixels, self._mean) if k <= 1 else (self.level(k - 1), 0.0)
            if k == 0:
                made = np.subtract(finer, np.float32(less), dtype=np.float32)
            else:
                made = np.empty((finer.shape[0] // 2, finer.shape[1] // 2), np.float32)
                halve = _halve_bytes if finer.dtype == np.uint8 else _halve
                halve(finer, made, less)
            self._levels[k] = made
        return self._levels[k]

    def smooth(self, k: int) -> Float32[np.ndarray, "h w"]:
        """Level k after a binomial filter (1 2 1): differences of neighbours are then slopes."""
        if k not in self._smooth:
            level = self.level(k)
            self._smooth[k] = np.empty_like(level)
            _binomial(level, self._smooth[k])
        return self._smooth[k]

    def variance(self, k: int) -> float:
        """Of the smooth level, from every fourth pixel [grey²]"""
        if k not in self._variance:
            some = self.smooth(k)[::4, ::4].ravel()
            self._variance[k] = float(some @ some) / some.size - float(some.mean()) ** 2
        return self._variance[k]


class Weights:
    """How much the pixels count, on each level: 1 where a whole block counts, else 0."""

    def __init__(self, care: np.ndarray | None, shape: tuple[int, int]) -> None:
        self._shape = shape
        self._levels = {} if care is None else {0: care.astype(np.float32)}
        self._all = care is None

    def level(self, k: int) -> Float32[np.ndarray, "h w"]:
        """Weights of level k; shares of blocks where hardly any block counts as a whole."""
        share = self._share(k)
        if self._all:
            return share
        whole = (share > 0.999).astype(np.float32)
        return whole if whole.sum() > 0.25 * share.sum() else share

    def _share(self, k: int) -> np.ndarray:
        if k not in self._levels:
            shape = (self._shape[0] >> k, self._shape[1] >> k)
            if self._all:
                made = np.ones(shape, np.float32)
            else:
                h, w = shape
                made = cv2.resize(self._share(k - 1)[: 2 * h, : 2 * w], (w, h), interpolation=cv2.INTER_AREA)
            self._levels[k] = made
        return self._levels[k]


def onto_level(matrix: Float[np.ndarray, "2 3"], k: int) -> Float64[np.ndarray, "2 3"]:
    """A matrix of full-size points as one of points on level k."""
    size, c = float(1 << k), 0.5 * ((1 << k) - 1)
    out = np.array(matrix, np.float64)
    out[:, 2] = (out[:, :2].sum(axis=1) * c + out[:, 2] - c) / size
    return out


def from_level(matrix: Float[np.ndarray, "2 3"], k: int) -> Float64[np.ndarray, "2 3"]:
    """A matrix of points on level k as one of full-size points."""
    size, c = float(1 << k), 0.5 * ((1 << k) - 1)
    out = np.array(matrix, np.float64)
    out[:, 2] = size * out[:, 2] + c - out[:, :2].sum(axis=1) * c
    return out


def turn(angle_deg: float, shape: tuple[int, int], onto: tuple[int, int]) -> Float64[np.ndarray, "2 3"]:
    """Matrix of an image that is turned about its centre, which lies on the centre of the reference.

    Args:
        angle_deg: counter-clockwise as seen from above [deg]
        shape: of the image
        onto: shape of the reference
    """
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    xc, yc = 0.5 * (shape[1] - 1), 0.5 * (shape[0] - 1)
    xr, yr = 0.5 * (onto[1] - 1), 0.5 * (onto[0] - 1)
    return np.array([[c, -s, xr - c * xc + s * yc], [s, c, yr - s * xc - c * yc]])


def fan(max_angle_deg: float, step_deg: float) -> list[float]:
    """Angles from -max to max, no further apart than a step [deg]"""
    count = math.ceil(max_angle_deg / step_deg)
    return [max_angle_deg * i / max(count, 1) for i in range(-count, count + 1)]


def peaks(
    image: Float32[np.ndarray, "h w"],
    reference: Float32[np.ndarray, "hr wr"],
    weight: Float32[np.ndarray, "h w"],
    *,
    angles_deg: list[float],
    still: tuple[float, float],
    max_shift: float,
    least_overlap: float,
    most: int,
) -> list[tuple[float, Float64[np.ndarray, "2 3"]]]:
    """The best starts among all shifts and the given angles: evidence and matrix, best first.

    The evidence is -share log(1 - r²), r the normalised correlation and share what overlaps: how much is explained, not
    how well a small corner fits. Of two like peaks the one nearer to no shift comes first.

    Args:
        image: about zero mean [grey]
        reference: likewise [grey]
        weight: how much a pixel of the image counts, 0 to 1
        angles_deg: turns of the image against the reference to try, counter-clockwise [deg]
        still: shift (y, x) from image to reference that counts as none [px]
        max_shift: how far from that to look, in x and in y [px]
        least_overlap: share of the smaller image that must overlap [1]
        most: how many starts to give; two more may come from near no shift
    """
    (h, w), (hr, wr) = image.shape, reference.shape
    size = tuple(scipy.fft.next_fast_len(a + b - 1, real=True) for a, b in ((h, hr), (w, wr)))
    template, flat = _flattened(image) * weight, _flattened(reference)
    # the reference is turned about its own centre, so that a shift is all that is left
    backs = [turn(angle, (hr, wr), (hr, wr)) for angle in angles_deg]
    turned = np.zeros((len(angles_deg), *size), np.float32)
    for place, angle, back in zip(turned, angles_deg, backs, strict=True):
        if angle == 0:
            place[:hr, :wr] = flat
        else:
            place[:hr, :wr] = cv2.warpAffine(flat, back, (wr, hr), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    spectrum = scipy.fft.rfft2(turned, overwrite_x=True)
    spectrum *= np.conj(scipy.fft.rfft2(template, size))
    surface = scipy.fft.irfft2(spectrum, size, overwrite_x=True)

    # shifts d of reference = image + d, in the order of the transform: 0 .. wr-1, then room, then -(w-1) .. -1
    norm, share = np.zeros(size, np.float32), np.zeros(size, np.float32)
    least = max(1.0, least_overlap * min(h, hr) * min(w, wr))
    _norms(_integral(template), _integral(flat), still[0], still[1], max_shift + 1.0, least, norm, share)
    surface *= norm
    tops = _tops(surface.max(axis=0), share, hr, wr, still[0], still[1])
    order = np.argsort(-tops[:, 0], kind="stable")
    chosen = [*order[:most]]
    # whatever is higher elsewhere: a lattice has a peak near no shift
    order = np.argsort(-tops[:, 0] * np.exp(-0.5 * (tops[:, 5] / _NEAR_PX) ** 2), kind="stable")
    chosen += [i for i in order[:2] if i not in chosen]
    out = []
    for evidence, row, column, y, x, _ in tops[chosen]:
        angle = int(np.argmax(surface[:, int(row), int(column)]))
        shift = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])
        out.append((float(evidence), backs[angle] @ shift))
    return sorted(out, key=lambda start: -start[0])


def lively(
    image: Float32[np.ndarray, "h w"], weight: Float32[np.ndarray, "h w"], size: tuple[int, int]
) -> tuple[int, int]:
    """Corner (y, x) of the patch of a size that has the most slopes in it; no single edge counts for much."""
    h, w = image.shape
    cells = np.zeros((h // _CELL_PX, w // _CELL_PX))
    some = image[:: max(1, h // 32)]
    _steepness(image, weight, 3 * float(np.abs(np.diff(some, axis=1)).mean()), cells)
    rows, columns = (min(n, max(1, length // _CELL_PX)) for n, length in zip(cells.shape, size, strict=True))
    table = cv2.integral(cells)
    sums = table[rows:, columns:] - table[:-rows, columns:] - table[rows:, :-columns] + table[:-rows, :-columns]
    # of places that are nearly as lively the middle one: less of it can have left the reference
    y, x = np.ogrid[: sums.shape[0], : sums.shape[1]]
    off = np.hypot(y / max(sums.shape[0] - 1, 1) - 0.5, x / max(sums.shape[1] - 1, 1) - 0.5)
    row, column = np.unravel_index(int(np.argmax(sums * (1 - 0.5 * off))), sums.shape)
    return min(int(row) * _CELL_PX, h - size[0]), min(int(column) * _CELL_PX, w - size[1])


def repeats(patch: Float32[np.ndarray, "h w"]) -> Float64[np.ndarray, "n 2"]:
    """The shortest vectors (x, y) by which a pattern repeats within a patch: none, one, or two that are not parallel.

    They are peaks of the autocorrelation that stand apart from the one at no shift [px]
    """
    h, w = patch.shape
    size = tuple(scipy.fft.next_fast_len(2 * n, real=True) for n in (h, w))
    spectrum = scipy.fft.rfft2(patch - patch.mean(), size)
    surface = scipy.fft.irfft2(spectrum.real**2 + spectrum.imag**2, size)
    # half the patch overlaps itself at least, in y and in x; a shift and its opposite are the same
    reach_y, reach_x = h // 2, w // 2
    rows, columns = np.arange(0, reach_y + 1), np.arange(-reach_x, reach_x + 1)
    surface = surface[np.ix_(rows, columns)] / np.outer(h - rows, w - np.abs(columns)).astype(np.float32)
    if not surface[0, reach_x] > 0:
        return np.empty((0, 2))
    surface /= surface[0, reach_x]
    away = np.hypot(rows[:, None], columns[None, :])
    highest = float(surface[away > 3].max())
    # the piece that holds no shift is the pattern's own width, or a line along itself
    pieces = cv2.connectedComponents((surface > 0.5 * highest).astype(np.uint8), connectivity=4)[1]
    apart = pieces != pieces[0, reach_x]
    apart[0, :reach_x] = False
    tops = (surface >= cv2.dilate(surface, np.ones((5, 5), np.uint8))) & apart & (away > 3)
    tops[-1, :], tops[:, 0], tops[:, -1] = False, False, False
    if highest < _REPEAT or not tops.any():
        return np.empty((0, 2))
    height = float(surface[tops].max())
    if height < _REPEAT:
        return np.empty((0, 2))
    row, column = np.nonzero(tops & (surface > 0.85 * height))
    order = np.argsort(away[row, column])
    out: list[np.ndarray] = []
    for y, x in zip(row[order], column[order], strict=True):
        vector = np.array([x - reach_x, y], np.float64)
        vector[0] += _vertex(surface[y, x - 1 : x + 2])
        vector[1] += _vertex(surface[y - 1 : y + 2, x]) if y > 0 else 0.0
        parallel = out and abs(float(np.linalg.det(np.stack((out[0], vector))))) < 0.3 * math.prod(
            float(np.linalg.norm(v)) for v in (out[0], vector)
        )
        if not parallel:
            out.append(vector)
        if len(out) == 2:
            break
    return np.array(out)


def _vertex(three: np.ndarray) -> float:
    """Where a parabola through three neighbours is highest, from the middle one [px]"""
    left, middle, right = (float(v) for v in three)
    bend = left - 2 * middle + right
    return 0.5 * (left - right) / bend if bend < 0 else 0.0


def _flattened(pixels: np.ndarray) -> np.ndarray:
    """Without its slow shading, which would draw the correlation to where bright lies on bright."""
    size = 2 * max(2, min(pixels.shape) // 6) + 1
    mean = cv2.blur(pixels, (size, size), borderType=cv2.BORDER_REFLECT)
    return pixels - cv2.blur(mean, (size, size), borderType=cv2.BORDER_REFLECT)


def _integral(pixels: np.ndarray) -> np.ndarray:
    """Sums of squares above and to the left of each corner of the pixels."""
    return cv2.integral(np.square(pixels), sdepth=cv2.CV_64F)


@njit(nogil=True, cache=True)
def _norms(one, two, still_y, still_x, reach, least, norm, share):
    """What makes the surface of products one of correlations, and the share that overlaps; 0 where not to look."""
    h, w = one.shape[0] - 1, one.shape[1] - 1
    hr, wr = two.shape[0] - 1, two.shape[1] - 1
    whole = float(min(h, hr) * min(w, wr))
    for row in range(norm.shape[0]):
        dy = row if row < hr else row - norm.shape[0]
        top, bottom = max(0, -dy), min(h, hr - dy)
        if bottom <= top or abs(dy - still_y) > reach:
            continue
        for column in range(norm.shape[1]):
            dx = column if column < wr else column - norm.shape[1]
            left, right = max(0, -dx), min(w, wr - dx)
            if right <= left or (bottom - top) * (right - left) < least or abs(dx - still_x) > reach:
                continue
            part = (bottom - top) * (right - left) / whole
            a = one[bottom, right] - one[top, right] - one[bottom, left] + one[top, left]
            b = two[bottom + dy, right + dx] - two[top + dy, right + dx]
            b += two[top + dy, left + dx] - two[bottom + dy, left + dx]
            if a > _LEAST_ENERGY * part * one[h, w] and b > _LEAST_ENERGY * part * two[hr, wr]:
                norm[row, column], share[row, column] = 1 / math.sqrt(a * b), part


@njit(nogil=True, cache=True)
def _tops(surface, share, hr, wr, still_y, still_x):
    """The local maxima of a surface of correlations: evidence, row, column, shift (y, x), and how far that is.

    Evidence and shift are those of the vertex of parabolas through the neighbours.
    """
    h, w = surface.shape
    span = float(max(h, w)) / 2
    out = np.empty((h * w // 4 + 1, 6))
    count = 0
    for row in range(h):
        for column in range(w):
            top = surface[row, column]
            if not (top > 0 and share[row, column] > 0):
                continue
            highest = True
            for i in range(-2, 3):
                for j in range(-2, 3):
                    other = surface[(row + i) % h, (column + j) % w]
                    # of equals the first in reading order
                    if other > top or (other == top and (i < 0 or (i == 0 and j < 0))):
                        highest = False
                        break
                if not highest:
                    break
            if not highest:
                continue
            dy, dx = float(row if row < hr else row - h), float(column if column < wr else column - w)
            r = float(top)
            up, down = surface[(row - 1) % h, column], surface[(row + 1) % h, column]
            left, right = surface[row, (column - 1) % w], surface[row, (column + 1) % w]
            if up > 0 and down > 0 and up + down < 2 * top:
                step = 0.5 * (up - down) / (up + down - 2 * top)
                dy, r = dy + step, r - 0.25 * (up - down) * step
            if left > 0 and right > 0 and left + right < 2 * top:
                step = 0.5 * (left - right) / (left + right - 2 * top)
                dx, r = dx + step, r - 0.25 * (left - right) * step
            away = math.hypot(dy - still_y, dx - still_x)
            r = min(r, 0.9995)
            out[count, 0] = -share[row, column] * math.log(1 - r * r) * (1 - 0.05 * min(1.0, away / span))
            out[count, 1], out[count, 2], out[count, 3], out[count, 4], out[count, 5] = row, column, dy, dx, away
            count += 1
    return out[:count]


@njit(nogil=True, cache=True, fastmath=_FAST)
def _steepness(image, weight, most, cells):
    """Sum of the slopes in each cell, none of them counted beyond `most`."""
    zero, most = np.float32(0), np.float32(most)
    for row in range(cells.shape[0]):
        for y in range(max(1, row * _CELL_PX), min(image.shape[0] - 1, (row + 1) * _CELL_PX)):
            for column in range(cells.shape[1]):
                first, last = max(1, column * _CELL_PX), min(image.shape[1] - 1, (column + 1) * _CELL_PX)
                here, lower, counts = image[y, first : last + 1], image[y + 1, first:last], weight[y, first:last]
                total = zero
                for x in range(counts.size):
                    slope = abs(here[x + 1] - here[x]) + abs(lower[x] - here[x])
                    total += counts[x] * min(slope, most)
                cells[row, column] += total


@njit(nogil=True, cache=True, fastmath=_FAST)
def _halve(pixels, out, less):
    """Every other pixel after the filter (1 3 3 1) / 8 along both axes, less a number; the border is continued."""
    h, w = out.shape
    last = pixels.shape[0] - 1
    three, part, less = np.float32(3), np.float32(1 / 64), np.float32(less)
    sums = np.empty(2 * w + 2, np.float32)
    for y in range(h):
        a, b, c, d = pixels[max(2 * y - 1, 0)], pixels[2 * y], pixels[2 * y + 1], pixels[min(2 * y + 2, last)]
        for x in range(2 * w):
            sums[x + 1] = three * (np.float32(b[x]) + np.float32(c[x])) + (np.float32(a[x]) + np.float32(d[x]))
        sums[0], sums[2 * w + 1] = sums[1], sums[2 * w]
        means = out[y]
        for x in range(w):
            outer, inner = sums[2 * x] + sums[2 * x + 3], sums[2 * x + 1] + sums[2 * x + 2]
            means[x] = part * (three * inner + outer) - less


@njit(nogil=True, cache=True, fastmath=_FAST)
def _halve_bytes(pixels, out, less):
    """The same for uint8: sums of 16 bits, parted into even and odd columns, are a third faster."""
    h, w = out.shape
    last = pixels.shape[0] - 1
    three, part, less = np.float32(3), np.float32(1 / 64), np.float32(less)
    sums = np.empty(2 * w, np.uint16)
    even, odd = np.empty(w + 1, np.float32), np.empty(w + 1, np.float32)
    for y in range(h):
        a, b, c, d = pixels[max(2 * y - 1, 0)], pixels[2 * y], pixels[2 * y + 1], pixels[min(2 * y + 2, last)]
        for x in range(2 * w):
            sums[x] = 3 * (b[x] + c[x]) + (a[x] + d[x])
        for x in range(w):
            even[x], odd[x + 1] = np.float32(sums[2 * x]), np.float32(sums[2 * x + 1])
        odd[0], even[w] = even[0], odd[w]
        means = out[y]
        for x in range(w):
            means[x] = part * (three * (even[x] + odd[x + 1]) + (odd[x] + even[x + 1])) - less


@njit(nogil=True, cache=True, fastmath=_FAST)
def _binomial(pixels, out):
    """The filter (1 2 1) / 4 along both axes; the border is continued."""
    h, w = pixels.shape
    half, quarter = np.float32(0.5), np.float32(0.25)
    row = np.empty(w + 2, np.float32)
    for y in range(h):
        upper, here, lower = pixels[max(y - 1, 0)], pixels[y], pixels[min(y + 1, h - 1)]
        for x in range(w):
            row[x + 1] = half * here[x] + quarter * (upper[x] + lower[x])
        row[0], row[w + 1] = row[1], row[w]
        means = out[y]
        for x in range(w):
            means[x] = half * row[x + 1] + quarter * (row[x] + row[x + 2])
