"""Where a registration may start: the correlation of two coarse images over all shifts and a fan of angles."""

from __future__ import annotations

import math

import cv2
import numpy as np
import scipy.fft
from jaxtyping import Float32, Float64

from waferlens.ops.registration_pyramid import turn

_NEAR_PX = 6.0  # peaks about so near to no shift are looked at in any case: a lattice has one within half its period
_LEAST_ENERGY = 0.02  # of what an average part of that size holds
_REPEAT = 0.4  # autocorrelation of what repeats: 1 but for noise and defects


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
    least = max(1.0, least_overlap * min(h, hr) * min(w, wr))
    norm, share = _norms(_integral(template), _integral(flat), size, still, max_shift + 1.0, least)
    surface *= norm
    tops = _tops(surface.max(axis=0), share, hr, wr, still)
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


def _norms(
    one: np.ndarray,
    two: np.ndarray,
    size: tuple[int, int],
    still: tuple[float, float],
    reach: float,
    least: float,
) -> tuple[np.ndarray, np.ndarray]:
    """What makes the surface of products one of correlations, and the share that overlaps; 0 where not to look."""
    (h, w), (hr, wr) = (np.subtract(table.shape, 1) for table in (one, two))
    norm, share = np.zeros(size, np.float32), np.zeros(size, np.float32)
    rows, dy, top, bottom = _overlaps(h, hr, size[0], still[0], reach)
    columns, dx, left, right = _overlaps(w, wr, size[1], still[1], reach)
    if rows.size == 0 or columns.size == 0:
        return norm, share
    pixels = np.outer(bottom - top, right - left)
    part = pixels / float(min(h, hr) * min(w, wr))
    a = one[bottom] - one[top]
    a = a[:, right] - a[:, left]
    b = two[bottom + dy] - two[top + dy]
    b = b[:, right + dx] - b[:, left + dx]
    known = (pixels >= least) & (a > _LEAST_ENERGY * part * one[-1, -1]) & (b > _LEAST_ENERGY * part * two[-1, -1])
    place = np.ix_(rows, columns)
    share[place] = np.where(known, part, 0)
    norm[place] = known / np.sqrt(np.where(known, a * b, 1))
    return norm, share


def _overlaps(n: int, onto: int, size: int, still: float, reach: float) -> tuple[np.ndarray, ...]:
    """Along one axis of the surface: where to look, which shift that is, and what overlaps, first and one after."""
    at = np.arange(size)
    shift = np.where(at < onto, at, at - size)
    first, stop = np.maximum(0, -shift), np.minimum(n, onto - shift)
    look = (stop > first) & (np.abs(shift - still) <= reach)
    return at[look], shift[look], first[look], stop[look]


def _tops(
    surface: np.ndarray, share: np.ndarray, hr: int, wr: int, still: tuple[float, float]
) -> Float64[np.ndarray, "n 6"]:
    """The local maxima of a surface of correlations: evidence, row, column, shift (y, x), and how far that is.

    Evidence and shift are those of the vertex of parabolas through the neighbours.
    """
    h, w = surface.shape
    # either axis goes round
    around = np.concatenate((surface[-2:], surface, surface[:2]))
    around = np.concatenate((around[:, -2:], around, around[:, :2]), axis=1)
    highest = cv2.dilate(around, np.ones((5, 5), np.uint8))[2:-2, 2:-2]
    row, column = np.nonzero((surface >= highest) & (surface > 0) & (share > 0))
    # of equals the first in reading order
    y, x = np.divmod(np.arange(12), 5)
    before = around[row[:, None] + y, column[:, None] + x]
    first = (before < surface[row, column][:, None]).all(axis=1)
    row, column = row[first], column[first]
    top = surface[row, column].astype(np.float64)
    dy, dx = np.where(row < hr, row, row - h).astype(float), np.where(column < wr, column, column - w).astype(float)
    r = top.copy()
    for shift, down, right in ((dy, 1, 0), (dx, 0, 1)):
        less, more = (around[row + 2 + sign * down, column + 2 + sign * right].astype(np.float64) for sign in (-1, 1))
        bend = less + more - 2 * top
        step = np.where((less > 0) & (more > 0) & (bend < 0), 0.5 * (less - more) / np.where(bend < 0, bend, -1), 0)
        shift += step
        r -= 0.25 * (less - more) * step
    away = np.hypot(dy - still[0], dx - still[1])
    r = np.minimum(r, 0.9995)
    evidence = -share[row, column] * np.log(1 - r * r) * (1 - 0.05 * np.minimum(1.0, away / (max(h, w) / 2)))
    return np.column_stack((evidence, row, column, dy, dx, away))
