"""Refine a registration to a fraction of a pixel: inverse-compositional Gauss-Newton with gain, offset and clipping.

The image is the template T, the reference R is the one that is warped: at the right matrix M, T(x) = a R(M x) + b.
The gradient of T is taken once, so a step costs one interpolation and a handful of sums; every motion uses the same
sums, those of the six affine parameters, and projects them onto its own.

Because the gradient comes from the template, the noise of the reference does not pull the answer towards whole pixels,
as it does where the interpolated image is differentiated. Residuals are clipped at a few times their own rms (Huber's
psi), so a bright particle pulls with a bounded force.

Source: Baker and Matthews, Lucas-Kanade 20 years on, IJCV 56 (2004); the invariance to gain and offset that
Evangelidis and Psarakis, IEEE TPAMI 30 (2008), get by normalising both images is reached here by estimating them.

numba is imported with this file: import it where it is used, not at start-up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numba import njit

# Sums may be reordered (that is what makes them vectors); every pixel is finite by the time it comes here.
_FAST = {"reassoc", "contract", "arcp", "nsz"}

# How the parameters of each motion move the six affine ones (xx, xy, x, yx, yy, y), about the centre of the image.
_SHIFT = [[0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]]
_BASES = {
    "shift": np.array(_SHIFT, np.float64),
    "rigid": np.array([*_SHIFT, [0, -1, 0, 1, 0, 0]], np.float64),
    "similarity": np.array([*_SHIFT, [0, -1, 0, 1, 0, 0], [1, 0, 0, 0, 1, 0]], np.float64),
    "affine": np.eye(6)[[2, 5, 0, 1, 3, 4]],
}
_CLIP = 3.0  # residuals beyond this many rms pull no harder
_LEAST_SHARE = 0.02  # of the image has to lie in the reference for a step to be worth taking


@dataclass(frozen=True, slots=True)
class Refined:
    """Where Gauss-Newton stopped."""

    matrix: Float[np.ndarray, "2 3"]
    """Point of the image -> point of the reference [px of this level]"""
    score: float
    """Zero-normalised correlation over the overlap [1]"""
    step: float
    """How far the last step still moved the corners [px of this level]"""
    singular: bool
    """Whether the image does not determine the motion."""


def refine(
    image: Float[np.ndarray, "h w"],
    reference: Float[np.ndarray, "hr wr"],
    weight: Float[np.ndarray, "h w"],
    matrix: Float[np.ndarray, "2 3"],
    *,
    motion: str,
    steps: int,
    enough: float,
) -> Refined:
    """Gauss-Newton from a start within a few pixels.

    Args:
        image: the template, float32, finite [grey]
        reference: the image that is warped, float32, finite [grey]
        weight: 1 where a pixel of the image takes part, else 0
        matrix: the start: point of the image -> point of the reference [px]
        motion: a key of `_BASES`, or `none` for the score alone
        steps: the most steps taken
        enough: stop once a step moves no corner by more than this [px]
    """
    h, w = image.shape
    matrix = np.array(matrix, np.float64)
    basis = _BASES.get(motion)
    xc, yc = 0.5 * (w - 1), 0.5 * (h - 1)
    normal = np.zeros((6, 6))
    sums = np.zeros(_SUMS)
    if basis is not None:
        _normal(image, reference.shape[0], reference.shape[1], weight, matrix, normal)
        projected = basis @ normal @ basis.T
        singular, inverse = _inverse(projected)
    else:
        steps, singular, inverse = 0, False, None
    gain, offset, limit, moved = 0.0, 0.0, math.inf, math.inf
    least = _LEAST_SHARE * image.size
    for step in range(steps + 2):
        _residuals(image, reference, weight, matrix, gain, offset, limit, sums)
        score, first_gain, first_offset = _correlation(sums)
        if step == 0:  # gain and offset are known only now
            gain, offset = first_gain, first_offset
            if basis is None:
                break
            continue
        if step > steps or singular or moved <= enough or sums[0] < least:
            break
        gain, offset, limit = _adjust(sums, gain, offset)
        delta = basis.T @ (inverse @ (basis @ sums[_FORCE]))
        change = _as_warp(delta, motion)
        moved = float((np.abs(change[:2] - np.eye(2, 3)) @ (xc, yc, 1.0)).max())
        matrix = _compose(matrix, change, xc, yc)
    return Refined(matrix, score, moved, singular)


# Places in the sums of `_residuals`.
_SUMS = 18
_FORCE = slice(12, 18)


def _correlation(sums: np.ndarray) -> tuple[float, float, float]:
    """Zero-normalised correlation, and the least-squares gain and offset that take the reference to the image."""
    n, t, r, tt, rr, tr = sums[:6]
    if n < 1:
        return 0.0, 1.0, 0.0
    vt, vr, c = tt - t * t / n, rr - r * r / n, tr - t * r / n
    if vt <= 1e-9 * max(tt, 1e-30) or vr <= 1e-9 * max(rr, 1e-30):
        return 0.0, 1.0, (t - r) / n
    gain = c / vr
    return c / math.sqrt(vt * vr), gain, (t - gain * r) / n


def _adjust(sums: np.ndarray, gain: float, offset: float) -> tuple[float, float, float]:
    """Gain and offset moved by the clipped residuals, and where to clip next."""
    n, _, r, _, rr, _ = sums[:6]
    p, pr, squares = sums[6:9]
    vr = rr - r * r / n
    if vr > 1e-9 * max(rr, 1e-30):
        # psi = clip(T - gain R - offset): one Newton step on both
        more = (pr - p * r / n) / vr
        gain, offset = gain + more, offset + (p - more * r) / n
    return gain, offset, _CLIP * math.sqrt(squares / n) + 1e-6


def _inverse(normal: np.ndarray) -> tuple[bool, np.ndarray]:
    """The inverse of the normal matrix, and whether it is none."""
    scale = np.sqrt(np.maximum(np.diag(normal), 1e-30))
    values, vectors = np.linalg.eigh(normal / scale[:, None] / scale[None, :])
    if values[0] <= 1e-6:
        return True, np.zeros_like(normal)
    return False, (vectors / values) @ vectors.T / scale[:, None] / scale[None, :]


def _as_warp(delta: np.ndarray, motion: str) -> Float[np.ndarray, "3 3"]:
    """The six parameters as a warp about the centre; a turn stays a turn, however large the step."""
    warp = np.eye(3)
    if motion == "rigid":
        c, s = math.cos(delta[3]), math.sin(delta[3])
        warp[:2] = [[c, -s, delta[2]], [s, c, delta[5]]]
    else:
        warp[:2] += delta.reshape(2, 3)
    return warp


def _compose(matrix: np.ndarray, change: np.ndarray, xc: float, yc: float) -> Float[np.ndarray, "2 3"]:
    """M after W^-1, the change W being told about the centre."""
    to_centre = np.array([[1, 0, -xc], [0, 1, -yc], [0, 0, 1]])
    from_centre = np.array([[1, 0, xc], [0, 1, yc], [0, 0, 1]])
    return matrix @ from_centre @ np.linalg.inv(change) @ to_centre


@njit(nogil=True, cache=True, fastmath=_FAST, inline="always")
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
    if high < first or low > last - 1:
        return first, first
    return max(first, math.ceil(low)), min(last, math.floor(high) + 1)


@njit(nogil=True, cache=True, fastmath=_FAST)
def _normal(image, hr, wr, weight, matrix, normal):
    """Sum of g g' over the overlap, g the gradient of the image by the six affine parameters about its centre."""
    h, w = image.shape
    xc, yc = np.float32(0.5 * (w - 1)), 0.5 * (h - 1)
    half = np.float32(0.5)
    for y in range(1, h - 1):
        x0, x1 = _columns(matrix[0, 0], matrix[0, 1], matrix[0, 2], y, wr - 1, 1, w - 1)
        x0, x1 = _columns(matrix[1, 0], matrix[1, 1], matrix[1, 2], y, hr - 1, x0, x1)
        zero = np.float32(0)
        a0, a1, a2, b0, b1, b2, c0, c1, c2 = zero, zero, zero, zero, zero, zero, zero, zero, zero
        for x in range(x0, x1):
            k = weight[y, x]
            gx = half * (image[y, x + 1] - image[y, x - 1])
            gy = half * (image[y + 1, x] - image[y - 1, x])
            dx = np.float32(x) - xc
            xx, xy, yy = k * gx * gx, k * gx * gy, k * gy * gy
            a0 += xx
            a1 += xx * dx
            a2 += xx * dx * dx
            b0 += xy
            b1 += xy * dx
            b2 += xy * dx * dx
            c0 += yy
            c1 += yy * dx
            c2 += yy * dx * dx
        d = y - yc
        for i, s0, s1, s2 in ((0, a0, a1, a2), (1, b0, b1, b2), (2, c0, c1, c2)):
            r = 3 if i == 2 else 0
            c = 0 if i == 0 else 3
            normal[r, c] += s2
            normal[r, c + 1] += s1 * d
            normal[r, c + 2] += s1
            normal[r + 1, c] += s1 * d
            normal[r + 1, c + 1] += s0 * d * d
            normal[r + 1, c + 2] += s0 * d
            normal[r + 2, c] += s1
            normal[r + 2, c + 1] += s0 * d
            normal[r + 2, c + 2] += s0
    for r in range(3):
        for c in range(3):
            normal[3 + r, c] = normal[c, 3 + r]


@njit(nogil=True, cache=True, fastmath=_FAST)
def _residuals(image, reference, weight, matrix, gain, offset, limit, sums):
    """One pass over the overlap.

    sums: n, T, R, TT, RR, TR; psi, psi R, psi psi; three spare; psi g by the six affine parameters. R is the reference
    interpolated at M x, psi the clipped residual T - gain R - offset, g as in `_normal`. The sign of g is that of a
    step that moves the template towards the warped reference.
    """
    h, w = image.shape
    hr, wr = reference.shape
    xc, yc = np.float32(0.5 * (w - 1)), 0.5 * (h - 1)
    half, zero = np.float32(0.5), np.float32(0)
    a, b, top = np.float32(gain), np.float32(offset), np.float32(limit)
    row = np.empty(w, np.float32)
    flat = reference.reshape(-1)
    sums[:] = 0.0
    for y in range(1, h - 1):
        x0, x1 = _columns(matrix[0, 0], matrix[0, 1], matrix[0, 2], y, wr - 1, 1, w - 1)
        x0, x1 = _columns(matrix[1, 0], matrix[1, 1], matrix[1, 2], y, hr - 1, x0, x1)
        if x1 <= x0:
            continue
        u0, v0 = matrix[0, 1] * y + matrix[0, 2], matrix[1, 1] * y + matrix[1, 2]
        for x in range(x0, x1):
            u, v = matrix[0, 0] * x + u0, matrix[1, 0] * x + v0
            iu, iv = np.int32(u), np.int32(v)
            fu, fv = np.float32(u - iu), np.float32(v - iv)
            at = iv * wr + iu
            up = flat[at] + fu * (flat[at + 1] - flat[at])
            down = flat[at + wr] + fu * (flat[at + wr + 1] - flat[at + wr])
            row[x] = up + fv * (down - up)
        n, t, r, tt, rr, tr, p, pr, pp = zero, zero, zero, zero, zero, zero, zero, zero, zero
        px, px1, py, py1 = zero, zero, zero, zero
        for x in range(x0, x1):
            k = weight[y, x]
            ti, ri = image[y, x], row[x]
            rest = ti - a * ri - b
            psi = k * min(max(rest, -top), top)
            n += k
            t += k * ti
            r += k * ri
            tt += k * ti * ti
            rr += k * ri * ri
            tr += k * ti * ri
            p += psi
            pr += psi * ri
            pp += psi * psi
            gx = psi * half * (image[y, x + 1] - image[y, x - 1])
            gy = psi * half * (image[y + 1, x] - image[y - 1, x])
            dx = np.float32(x) - xc
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
        sums[12] -= px1
        sums[13] -= px * d
        sums[14] -= px
        sums[15] -= py1
        sums[16] -= py * d
        sums[17] -= py
