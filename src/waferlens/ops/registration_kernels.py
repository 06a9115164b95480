"""The loops of registration over pixels: the columns that are met, the warped reference, its sums, products of slopes.

Each is compiled once and calls no other: what one kernel calls is compiled with it once more, and what a first
registration waits for is the compiler. What is decided step by step is left to `registration_refine`.

numba is imported with this file: import it where it is used, not at start-up.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numba import njit

# Sums may be reordered (that is what makes them vectors); every pixel is finite by the time it comes here.
_FAST = {"reassoc", "contract", "arcp", "nsz"}
INNER = 1.0
"""Rim of the reference whose points have two pixels on every side [px]"""
OUTER = -0.5
"""The same, of those within its outer pixel edges [px]"""


@njit(nogil=True, cache=True, error_model="numpy")
def columns(matrix, hr, wr, rim, border, w, ends):
    """The columns of each row, first and one after the last, whose points lie within a rim of the reference.

    The outermost `border` rows and columns of the image are none of them.
    """
    onto = wr, hr
    for y in range(len(ends)):
        x0, x1 = border, w - border
        if y < border or y >= len(ends) - border:
            x1 = x0
        for i in range(2):
            by, start, limit = matrix[i, 0], matrix[i, 1] * y + matrix[i, 2] - rim, onto[i] - 1 - 2 * rim
            if abs(by) < 1e-12:
                if not 0 <= start < limit:
                    x1 = x0
                continue
            low, high = -start / by, (limit - start) / by
            if low > high:
                low, high = high, low
            # a thousandth of a pixel inside, so that rounding leads no index out
            low, high = low + 1e-3, high - 1e-3
            if high >= x0 and low <= x1 - 1:
                if low > x0:
                    x0 = math.ceil(low)
                if high < x1 - 1:
                    x1 = math.floor(high) + 1
            else:
                x1 = x0
        ends[y, 0], ends[y, 1] = x0, x1 if x1 > x0 else x0


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def lay(reference, matrix, ends, cubic, line, out):
    """The warped reference between the ends of each row: where the row's line crosses the columns of the reference,
    then along the line.

    Either step is cut where it passes from one row or column of the reference to the next: between the cuts
    neighbours are neighbours, and the loops become vectors. At 3 degrees the first is cut every 19 pixels, the second
    every 730. Two points each way, or four: by the cubic through them (Lagrange), which unlike others moves no edge.
    `line` is room for a row of the reference.
    """
    hr = len(reference)
    half, third, one, three = np.float32(0.5), np.float32(1 / 3), np.float32(1), np.float32(3)
    m00, slope = matrix[0, 0], matrix[1, 0] / matrix[0, 0]
    dm = m00 - 1.0
    for y in range(len(ends)):
        x, x1 = ends[y, 0], ends[y, 1]
        if x1 <= x:
            continue
        u0 = matrix[0, 1] * y + matrix[0, 2]
        start = matrix[1, 1] * y + matrix[1, 2] - slope * u0
        # what columns the row needs, two on either side
        left, right = m00 * x + u0, m00 * (x1 - 1) + u0
        if left > right:
            left, right = right, left
        first, last = math.floor(left) - 1, math.floor(right) + 3
        c = first
        while c < last:
            v = start + slope * c
            iv = math.floor(v)
            end = last
            if abs(slope) > 1e-9:
                end = c + 1
                if iv >= 1 and iv < hr - 2:
                    end = int((iv - start + (1 if slope > 0 else 0)) / slope) + 1
            # columns beyond the row's ends may leave the reference
            if iv < 1:
                iv = 1
            if iv > hr - 3:
                iv = hr - 3
            if end <= c:
                end = c + 1
            if end > last:
                end = last
            f, by = np.float32(v - iv), np.float32(slope)
            below, above, way = reference[iv, c:end], reference[iv + 1, c:end], line[c - first : end - first]
            if cubic:
                before, after = reference[iv - 1, c:end], reference[iv + 2, c:end]
                for k in range(way.size):
                    g = f + by * np.float32(k)
                    # Newton's form about the second point
                    rise, bend = above[k] - below[k], before[k] - below[k] - below[k] + above[k]
                    jerk = (after[k] - before[k]) - three * rise
                    way[k] = below[k] + g * (rise + half * (g - one) * (bend + third * (g + one) * jerk))
            else:
                for k in range(way.size):
                    way[k] = below[k] + (f + by * np.float32(k)) * (above[k] - below[k])
            c = end
        while x < x1:
            u = dm * x + u0
            iu = math.floor(u)
            end = x1
            if abs(dm) > 1e-9:
                end = int((iu - u0 + (1 if dm > 0 else 0)) / dm) + 1
                if end <= x:
                    end = x + 1
                if end > x1:
                    end = x1
            f, by = np.float32(u - iu), np.float32(dm)
            at = x + iu - 1 - first
            way, laid = line[at : at + end - x + 3], out[y, x:end]
            if cubic:
                for k in range(laid.size):
                    g = f + by * np.float32(k)
                    rise, bend = way[k + 2] - way[k + 1], way[k] - way[k + 1] - way[k + 1] + way[k + 2]
                    jerk = (way[k + 3] - way[k]) - three * rise
                    laid[k] = way[k + 1] + g * (rise + half * (g - one) * (bend + third * (g + one) * jerk))
            else:
                for k in range(laid.size):
                    laid[k] = way[k + 1] + (f + by * np.float32(k)) * (way[k + 2] - way[k + 1])
            x = end


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def totals(image, laid, weight, ends, gain, offset, limit, sums):
    """Sums over the overlap: n, T, R, TT, RR, TR; psi, psi R, psi psi; psi g by the six affine parameters.

    T is the image, R the warped reference, psi the clipped residual T - gain R - offset, g the slope of T.
    """
    h, w = image.shape
    xc, yc = np.float32(0.5 * (w - 1)), 0.5 * (h - 1)
    zero = np.float32(0)
    a, b, top = np.float32(gain), np.float32(offset), np.float32(limit)
    for i in range(sums.size):
        sums[i] = 0.0
    for y in range(1, h - 1):
        x0, x1 = ends[y, 0], ends[y, 1]
        if x1 <= x0:
            continue
        upper, here, lower = image[y - 1, x0:x1], image[y, x0 - 1 : x1 + 1], image[y + 1, x0:x1]
        there, counts = laid[y, x0:x1], weight[y, x0:x1]
        n, t, r, tt, rr, tr, p, pr, pp = zero, zero, zero, zero, zero, zero, zero, zero, zero
        px, px1, py, py1 = zero, zero, zero, zero
        start = np.float32(x0) - xc
        for x in range(there.size):
            k, ti, ri = counts[x], here[x + 1], there[x]
            kt, kr = k * ti, k * ri
            n += k
            t += kt
            r += kr
            tt += kt * ti
            rr += kr * ri
            tr += kt * ri
            psi = ti - a * ri - b
            psi = psi if psi > -top else -top
            psi = k * (psi if psi < top else top)
            p += psi
            pr += psi * ri
            pp += psi * psi
            gx, gy = psi * (here[x + 2] - here[x]), psi * (lower[x] - upper[x])
            dx = np.float32(x) + start
            px += gx
            px1 += gx * dx
            py += gy
            py1 += gy * dx
        d = y - yc
        sums[0] += n
        sums[1] += t
        sums[2] += r
        sums[3] += tt
        sums[4] += rr
        sums[5] += tr
        sums[6] += p
        sums[7] += pr
        sums[8] += pp
        sums[9] += 0.5 * px1
        sums[10] += 0.5 * px * d
        sums[11] += 0.5 * px
        sums[12] += 0.5 * py1
        sums[13] += 0.5 * py * d
        sums[14] += 0.5 * py


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def slopes(image, other, weight, ends, every, sums):
    """Moments of the products of slopes: x x, x y, y x, y y, along the one in the one image, the other in the other.

    The last axis of the sums: by x x, x, 1, x y, y, y y, counted from the centre.
    """
    h, w = image.shape
    xc, yc = np.float32(0.5 * (w - 1)), 0.5 * (h - 1)
    zero = np.float32(0)
    for y in range(1 + (every - 1) // 2, h - 1, every):
        x0, x1 = ends[y, 0], ends[y, 1]
        if x1 <= x0:
            continue
        upper, here, lower = image[y - 1, x0:x1], image[y, x0 - 1 : x1 + 1], image[y + 1, x0:x1]
        over, there, under = other[y - 1, x0:x1], other[y, x0 - 1 : x1 + 1], other[y + 1, x0:x1]
        counts = weight[y, x0:x1]
        a0, a1, a2, b0, b1, b2 = zero, zero, zero, zero, zero, zero
        c0, c1, c2, d0, d1, d2 = zero, zero, zero, zero, zero, zero
        start = np.float32(x0) - xc
        for x in range(counts.size):
            gx, gy = counts[x] * (here[x + 2] - here[x]), counts[x] * (lower[x] - upper[x])
            fx, fy = there[x + 2] - there[x], under[x] - over[x]
            dx = np.float32(x) + start
            xx, xy, yx, yy = gx * fx, gx * fy, gy * fx, gy * fy
            a0 += xx
            b0 += xy
            c0 += yx
            d0 += yy
            xx, xy, yx, yy = xx * dx, xy * dx, yx * dx, yy * dx
            a1 += xx
            b1 += xy
            c1 += yx
            d1 += yy
            a2 += xx * dx
            b2 += xy * dx
            c2 += yx * dx
            d2 += yy * dx
        d = y - yc
        for i, s0, s1, s2 in ((0, a0, a1, a2), (1, b0, b1, b2), (2, c0, c1, c2), (3, d0, d1, d2)):
            sums[i, 0] += 0.25 * s2
            sums[i, 1] += 0.25 * s1
            sums[i, 2] += 0.25 * s0
            sums[i, 3] += 0.25 * s1 * d
            sums[i, 4] += 0.25 * s0 * d
            sums[i, 5] += 0.25 * s0 * d * d


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def halve(pixels, out):
    """Every other pixel after the filter (1 3 3 1) / 8 along both axes; the border is continued."""
    h, w = out.shape
    last = len(pixels) - 1
    three, part = np.float32(3), np.float32(1 / 64)
    sums = np.empty(2 * w + 2, np.float32)
    for y in range(h):
        a, b, c, d = pixels[max(2 * y - 1, 0)], pixels[2 * y], pixels[2 * y + 1], pixels[min(2 * y + 2, last)]
        for x in range(2 * w):
            sums[x + 1] = three * (np.float32(b[x]) + np.float32(c[x])) + (np.float32(a[x]) + np.float32(d[x]))
        # an odd last column is the neighbour of the last pair
        right = pixels.shape[1] - 1
        if right >= 2 * w:
            sums[2 * w + 1] = three * (np.float32(b[right]) + np.float32(c[right]))
            sums[2 * w + 1] += np.float32(a[right]) + np.float32(d[right])
        else:
            sums[2 * w + 1] = sums[2 * w]
        sums[0] = sums[1]
        means = out[y]
        for x in range(w):
            outer, inner = sums[2 * x] + sums[2 * x + 3], sums[2 * x + 1] + sums[2 * x + 2]
            means[x] = part * (three * inner + outer)


def covered_share(matrix: Float64[np.ndarray, "2 3"], h: int, w: int, hr: int, wr: int) -> float:
    """Share of the pixels of an image whose points lie within the outer pixel edges of the reference [1]"""
    ends = np.empty((h, 2), np.int64)
    columns(matrix, hr, wr, OUTER, 0, w, ends)
    return int((ends[:, 1] - ends[:, 0]).sum()) / (h * w)


def inner_columns(
    matrix: Float64[np.ndarray, "2 3"], shape: tuple[int, int], onto: tuple[int, int]
) -> Int64[np.ndarray, "h 2"]:
    """First column of each row, and the one after the last, whose points have two pixels of the reference on every
    side; the outermost pixels are left out.
    """
    ends = np.empty((shape[0], 2), np.int64)
    columns(matrix, onto[0], onto[1], INNER, 1, shape[1], ends)
    return ends


def seen_by_all(
    weight: Float32[np.ndarray, "h w"], matrices: Float64[np.ndarray, "n 2 3"], hr: int, wr: int
) -> Float32[np.ndarray, "h w"]:
    """The weights where a reference of shape (hr, wr) covers the image by each of the matrices, else 0."""
    out = weight.copy()
    column = np.arange(weight.shape[1])
    for matrix in matrices:
        ends = inner_columns(matrix, weight.shape, (hr, wr))
        out[(column < ends[:, :1]) | (column >= ends[:, 1:])] = 0
    return out
