"""The loops of registration over pixels: Gauss-Newton's descent, one pass of it, the warped row, products of slopes.

numba is imported with this file: import it where it is used, not at start-up.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

# Sums may be reordered (that is what makes them vectors); every pixel is finite by the time it comes here.
_FAST = {"reassoc", "contract", "arcp", "nsz"}
_CLIP = 3.0  # residuals beyond this many rms pull no harder
_LEAST_SHARE = 0.02  # of the image has to lie in the reference for a step to be worth taking
_NEAR_PX = 0.2  # after a larger step two points are enough
_SUMS = 15  # what one pass over the overlap adds up, see `_pass`


@njit(nogil=True, cache=True)
def descend(image, reference, weight, matrix, best, pull, turns, steps, enough, cubic, state):
    """Steps of Gauss-Newton, in place; the score of `best`, which is the last matrix unless that was a worse one."""
    h, w = image.shape
    xc, yc = 0.5 * (w - 1), 0.5 * (h - 1)
    sums = np.zeros(_SUMS)
    row = np.empty(w, np.float32)
    delta = np.empty(6)
    least = _LEAST_SHARE * h * w
    top, moved, taken, first = -2.0, math.inf, 0, True
    while True:
        finer = cubic and (moved < _NEAR_PX or taken == 0 or taken >= steps)
        _pass(image, reference, weight, matrix, state[0], state[1], state[2], finer, row, sums)
        n, t, r, tt, rr, tr, p, pr, pp = sums[0], sums[1], sums[2], sums[3], sums[4], sums[5], sums[6], sums[7], sums[8]
        if n < least:
            break
        vt, vr, c = tt - t * t / n, rr - r * r / n, tr - t * r / n
        if not (vt > 1e-3 * tt and vr > 1e-3 * rr):
            break  # flat where they overlap
        score = c / math.sqrt(vt * vr)
        if score > top:
            top = score
            best[:] = matrix
            state[3], state[4] = vt / n, vr / n
        elif score < top - 0.05:
            break  # it runs away
        if first and abs(state[0] - c / vr) > 0.25 * abs(c / vr):  # known only now, or wrongly from a poor start
            state[0] = c / vr
            state[1] = (t - state[0] * r) / n
            state[2] = _CLIP * math.sqrt(max(vt - c * c / vr, 0.0) / n) + 1e-6
            first = False
            if steps > 0:
                continue
        first = False
        if taken >= steps:
            break
        # psi = clip(T - gain R - offset): one Newton step for gain and offset too
        more = (pr - p * r / n) / vr
        state[0] += more
        state[1] += (p - more * r) / n
        state[2] = _CLIP * math.sqrt(pp / n) + 1e-6
        for i in range(6):
            delta[i] = 0.0
            for j in range(6):
                delta[i] -= pull[i, j] * sums[9 + j]
        moved = max(
            abs(delta[0]) * xc + abs(delta[1]) * yc + abs(delta[2]),
            abs(delta[3]) * xc + abs(delta[4]) * yc + abs(delta[5]),
        )
        if not moved < 0.25 * max(h, w):
            break
        _compose(matrix, delta, turns, xc, yc)
        taken += 1
        if moved <= enough and finer == cubic:
            best[:] = matrix
            break
    return max(top, -1.0) if top > -2.0 else 0.0


@njit(nogil=True, cache=True)
def _compose(matrix, delta, turns, xc, yc):
    """M becomes M after W^-1, W being the change told about the centre; a turn stays a turn, however large."""
    a, b, e, c, d, f = 1 + delta[0], delta[1], delta[2], delta[3], 1 + delta[4], delta[5]
    if turns:
        a = d = math.cos(delta[3])
        c = math.sin(delta[3])
        b = -c
    det = a * d - b * c
    a, b, c, d = d / det, -b / det, -c / det, a / det
    e, f = -(a * e + b * f), -(c * e + d * f)
    e, f = e + xc - a * xc - b * yc, f + yc - c * xc - d * yc
    for i in range(2):
        x, y, t = matrix[i, 0], matrix[i, 1], matrix[i, 2]
        matrix[i, 0], matrix[i, 1], matrix[i, 2] = x * a + y * c, x * b + y * d, x * e + y * f + t


@njit(nogil=True, cache=True)
def _columns(m0, m1, m2, y, limit, first, last):
    """The columns first <= x < last of row y with 0 <= m0 x + m1 y + m2 < limit."""
    start = m1 * y + m2
    if abs(m0) < 1e-12:
        inside = 0 <= start < limit
        return first, last if inside else first
    low, high = -start / m0, (limit - start) / m0
    if low > high:
        low, high = high, low
    # a thousandth of a pixel inside, so that rounding leads no index out
    low, high = low + 1e-3, high - 1e-3
    if not (high >= first and low <= last - 1):
        return first, first
    return max(first, math.ceil(low)), min(last, math.floor(high) + 1)


@njit(nogil=True, cache=True)
def _inner_columns(matrix, y, hr, wr, w):
    """The columns of row y, less the outermost, whose points have two pixels of the reference on every side."""
    x0, x1 = _columns(matrix[0, 0], matrix[0, 1], matrix[0, 2] - 1, y, wr - 3, 1, w - 1)
    return _columns(matrix[1, 0], matrix[1, 1], matrix[1, 2] - 1, y, hr - 3, x0, x1)


@njit(nogil=True, cache=True)
def covered_share(matrix, h, w, hr, wr):
    """Share of the pixels of an image whose points lie within the outer pixel edges of the reference [1]"""
    count = 0
    for y in range(h):
        x0, x1 = _columns(matrix[0, 0], matrix[0, 1], matrix[0, 2] + 0.5, y, wr, 0, w)
        x0, x1 = _columns(matrix[1, 0], matrix[1, 1], matrix[1, 2] + 0.5, y, hr, x0, x1)
        count += max(0, x1 - x0)
    return count / (h * w)


@njit(nogil=True, cache=True)
def seen_by_all(weight, matrices, hr, wr):
    """The weights where a reference of shape (hr, wr) covers the image by each of the matrices, else 0."""
    h, w = weight.shape
    out = np.zeros_like(weight)
    for y in range(1, h - 1):
        first, last = 1, w - 1
        for matrix in matrices:
            x0, x1 = _inner_columns(matrix, y, hr, wr, w)
            first, last = max(first, x0), min(last, x1)
        if last > first:
            out[y, first:last] = weight[y, first:last]
    return out


@njit(nogil=True, cache=True, fastmath=_FAST)
def _lay_row(reference, matrix, y, x0, x1, cubic, line, row):
    """One row of the warped reference: where its line crosses the columns of the reference, then along the line.

    Either step is cut where it passes from one row or column of the reference to the next: between the cuts
    neighbours are neighbours, and the loops become vectors. At 3 degrees the first is cut every 19 pixels, the second
    every 730. `line` is room for a row of the reference.
    """
    hr = reference.shape[0]
    m00, u0, v0 = matrix[0, 0], matrix[0, 1] * y + matrix[0, 2], matrix[1, 1] * y + matrix[1, 2]
    slope = matrix[1, 0] / m00
    # what columns the row needs, two on either side
    ends = m00 * x0 + u0, m00 * (x1 - 1) + u0
    first, last = math.floor(min(ends)) - 1, math.floor(max(ends)) + 3
    per = 1 / slope if abs(slope) > 1e-9 else 0.0
    start = v0 - slope * u0
    c = first
    while c < last:
        v = start + slope * c
        iv = min(max(math.floor(v), 1), hr - 3)  # columns beyond the row's ends may leave the reference
        end = last
        if per != 0 and 1 <= v < hr - 2:
            end = min(end, max(c + 1, int((iv - start + (1 if slope > 0 else 0)) * per) + 1))
        elif per != 0:
            end = c + 1
        f, by = np.float32(v - iv), np.float32(slope)
        out = line[c - first : end - first]
        if cubic:
            _down_four(reference[iv - 1 : iv + 3, c:end], f, by, out)
        else:
            _down_two(reference[iv : iv + 2, c:end], f, by, out)
        c = end
    dm = m00 - 1.0
    per = 1 / dm if abs(dm) > 1e-9 else 0.0
    x = x0
    while x < x1:
        u = dm * x + u0
        iu = math.floor(u)
        end = x1
        if per != 0:
            end = min(end, max(x + 1, int((iu - u0 + (1 if dm > 0 else 0)) * per) + 1))
        f, by = np.float32(u - iu), np.float32(dm)
        at = x + iu - 1 - first
        if cubic:
            _along_four(line[at : at + end - x + 3], f, by, row[x:end])
        else:
            _along_two(line[at + 1 : at + end - x + 2], f, by, row[x:end])
        x = end


@njit(nogil=True, cache=True, fastmath=_FAST)
def _down_two(rows, f, by, out):
    """Between two rows, at a fraction that grows from pixel to pixel."""
    a, b = rows[0], rows[1]
    for k in range(out.size):
        g = f + by * np.float32(k)
        out[k] = a[k] + g * (b[k] - a[k])


@njit(nogil=True, cache=True, fastmath=_FAST)
def _along_two(line, f, by, out):
    for k in range(out.size):
        g = f + by * np.float32(k)
        out[k] = line[k] + g * (line[k + 1] - line[k])


@njit(nogil=True, cache=True, fastmath=_FAST)
def _down_four(rows, f, by, out):
    """The same by the cubic through four points (Lagrange): unlike other cubics it moves no edge."""
    a, b, c, d = rows[0], rows[1], rows[2], rows[3]
    half, third, one = np.float32(0.5), np.float32(1 / 3), np.float32(1)
    for k in range(out.size):
        g = f + by * np.float32(k)
        # Newton's form about the second point
        rise, bend = c[k] - b[k], a[k] - b[k] - b[k] + c[k]
        jerk = (d[k] - a[k]) - np.float32(3) * rise
        out[k] = b[k] + g * (rise + half * (g - one) * (bend + third * (g + one) * jerk))


@njit(nogil=True, cache=True, fastmath=_FAST)
def _along_four(line, f, by, out):
    half, third, one = np.float32(0.5), np.float32(1 / 3), np.float32(1)
    for k in range(out.size):
        g = f + by * np.float32(k)
        a, b, c, d = line[k], line[k + 1], line[k + 2], line[k + 3]
        rise, bend = c - b, a - b - b + c
        jerk = (d - a) - np.float32(3) * rise
        out[k] = b + g * (rise + half * (g - one) * (bend + third * (g + one) * jerk))


@njit(nogil=True, cache=True)
def lay(reference, matrix, out):
    """The warped reference, 0 where it covers nothing."""
    h, w = out.shape
    hr, wr = reference.shape
    line = np.empty(wr, np.float32)
    for y in range(1, h - 1):
        x0, x1 = _inner_columns(matrix, y, hr, wr, w)
        if x1 > x0:
            _lay_row(reference, matrix, y, x0, x1, False, line, out[y])


@njit(nogil=True, cache=True, fastmath=_FAST)
def _pass(image, reference, weight, matrix, gain, offset, limit, cubic, row, sums):
    """One pass over the overlap.

    sums: n, T, R, TT, RR, TR; psi, psi R, psi psi; psi g by the six affine parameters. R is the reference interpolated
    at M x, psi the clipped residual T - gain R - offset, g the slope of T.
    """
    h, w = image.shape
    hr, wr = reference.shape
    xc, yc = np.float32(0.5 * (w - 1)), 0.5 * (h - 1)
    zero = np.float32(0)
    a, b, top = np.float32(gain), np.float32(offset), np.float32(limit)
    line = np.empty(wr, np.float32)
    sums[:] = 0.0
    for y in range(1, h - 1):
        x0, x1 = _inner_columns(matrix, y, hr, wr, w)
        if x1 <= x0:
            continue
        _lay_row(reference, matrix, y, x0, x1, cubic, line, row)
        upper, here, lower = image[y - 1, x0:x1], image[y, x0 - 1 : x1 + 1], image[y + 1, x0:x1]
        laid, counts = row[x0:x1], weight[y, x0:x1]
        n, t, r, tt, rr, tr, p, pr, pp = zero, zero, zero, zero, zero, zero, zero, zero, zero
        px, px1, py, py1 = zero, zero, zero, zero
        start = np.float32(x0) - xc
        for x in range(laid.size):
            k, ti, ri = counts[x], here[x + 1], laid[x]
            kt, kr = k * ti, k * ri
            n += k
            t += kt
            r += kr
            tt += kt * ti
            rr += kr * ri
            tr += kt * ri
            psi = k * min(max(ti - a * ri - b, -top), top)
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


@njit(nogil=True, cache=True, fastmath=_FAST)
def slopes(image, other, weight, matrix, hr, wr, every, sums):
    """Moments of the products of slopes, along x or y in the one image and along x or y in the other.

    The last axis of the sums: by x x, x, 1, x y, y, y y, counted from the centre.
    """
    h, w = image.shape
    xc, yc = np.float32(0.5 * (w - 1)), 0.5 * (h - 1)
    zero = np.float32(0)
    for y in range(1 + (every - 1) // 2, h - 1, every):
        x0, x1 = _inner_columns(matrix, y, hr, wr, w)
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
        for i, j, s0, s1, s2 in ((0, 0, a0, a1, a2), (0, 1, b0, b1, b2), (1, 0, c0, c1, c2), (1, 1, d0, d1, d2)):
            sums[i, j, 0] += 0.25 * s2
            sums[i, j, 1] += 0.25 * s1
            sums[i, j, 2] += 0.25 * s0
            sums[i, j, 3] += 0.25 * s1 * d
            sums[i, j, 4] += 0.25 * s0 * d
            sums[i, j, 5] += 0.25 * s0 * d * d
