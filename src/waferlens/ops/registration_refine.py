"""Refine a registration to a fraction of a pixel: inverse-compositional Gauss-Newton with gain, offset and clipping.

The image is the template T, the reference R is the one that is warped: at the right matrix M, T(x) = a R(M x) + b.
The slopes of T are taken once, so a step costs one interpolation and a handful of sums; every motion uses the same
sums, those of the six affine parameters, and projects them onto its own.

Because the slopes come from the template, the noise of the reference does not pull the answer towards whole pixels, as
it does where the interpolated image is differentiated. Residuals are clipped at three times their own rms (Huber's
psi), so a bright particle pulls with a bounded force.

Source: Baker and Matthews, Lucas-Kanade 20 years on, IJCV 56 (2004); the invariance to gain and offset that
Evangelidis and Psarakis, IEEE TPAMI 30 (2008), get by normalising both images is reached here by estimating them.

numba is imported with this file: import it where it is used, not at start-up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64

from waferlens.ops.registration_kernels import inner_columns, lay, slopes, totals

# How the parameters of each motion move the six affine ones (xx, xy, x, yx, yy, y), about the centre of the image.
_SHIFT = [[0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]]
BASES = {
    "shift": np.array(_SHIFT, np.float64),
    "rigid": np.array([*_SHIFT, [0, -1, 0, 1, 0, 0]], np.float64),
    "similarity": np.array([*_SHIFT, [0, -1, 0, 1, 0, 0], [1, 0, 0, 0, 1, 0]], np.float64),
    "affine": np.eye(6)[[2, 5, 0, 1, 3, 4]],
}
_DAMPING = 0.005
_CLIP = 3.0  # residuals beyond this many rms pull no harder
_LEAST_SHARE = 0.02  # of the image has to lie in the reference for a step to be worth taking
_NEAR_PX = 0.2  # after a larger step two points are enough
_UPRIGHT = 0.1  # of a matrix: what turns further has gone astray, and rows of it run along columns
_ROWS = 128  # looked at for the slopes' energy


@dataclass(slots=True)
class Light:
    """How the grey of the reference becomes that of the image, carried from level to level."""

    gain: float = 0.0
    """0 while it is not known."""
    offset: float = 0.0
    limit: float = math.inf
    """Where residuals are clipped [grey]"""


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """Where Gauss-Newton stopped."""

    matrix: Float64[np.ndarray, "2 3"]
    """Point of the image -> point of the reference [px of this level]"""
    score: float
    """Zero-normalised correlation over the overlap [1]"""
    light: Light
    variances: tuple[float, float]
    """Of the image and of the reference over the overlap [grey²]"""


def refine(
    image: Float32[np.ndarray, "h w"],
    reference: Float32[np.ndarray, "hr wr"],
    weight: Float32[np.ndarray, "h w"],
    matrix: Float[np.ndarray, "2 3"],
    *,
    motion: str,
    steps: int,
    enough: float,
    light: Light | None = None,
    held: Float64[np.ndarray, "n n"] | None = None,
    cubic: bool = False,
) -> Refined:
    """Gauss-Newton from a start within a few pixels.

    Args:
        image: the template, finite and about zero mean (sums are taken in float32) [grey]
        reference: the image that is warped, likewise [grey]
        weight: how much a pixel of the image counts, 0 to 1
        matrix: the start: point of the image -> point of the reference [px]
        motion: a key of `BASES`, or `none` for the score alone
        steps: the most steps taken
        enough: stop once a step moves no corner by more than this [px]
        light: gain, offset and limit to begin with
        held: directions of the motion's parameters to leave alone, as `undetermined` gives them
        cubic: interpolate with four points along either axis. With two, edges lie off by up to a hundredth of a pixel,
            depending on where between two pixels they fall.
    """
    matrix = np.array(matrix, np.float64, order="C")
    pull = np.zeros((6, 6))
    if motion in BASES and steps > 0:
        basis = BASES[motion]
        h, w = image.shape
        reach = np.abs(basis) @ (0.5 * w, 0.5 * h, 1, 0.5 * w, 0.5 * h, 1)
        normal = normal_matrix(image, image, weight, matrix, reference.shape, every=max(1, h // _ROWS))
        inverse = _damped(basis @ normal @ basis.T, reach)
        if held is not None:
            free = np.eye(len(basis)) - held
            inverse = free @ inverse @ free.T
        pull = basis.T @ inverse @ basis
    else:
        steps = 0
    light = light or Light()
    return _descended(image, reference, weight, matrix, pull, motion == "rigid", steps, enough, cubic, light)


def _descended(
    image: np.ndarray,
    reference: np.ndarray,
    weight: np.ndarray,
    matrix: np.ndarray,
    pull: np.ndarray,
    turns: bool,
    steps: int,
    enough: float,
    cubic: bool,
    light: Light,
) -> Refined:
    """Steps of Gauss-Newton; what is best is the last matrix, unless that was a worse one."""
    h, w = image.shape
    xc, yc = 0.5 * (w - 1), 0.5 * (h - 1)
    laid, line, sums = np.empty_like(image), np.empty(reference.shape[1], np.float32), np.empty(15)
    gain, offset, limit = light.gain, light.offset, light.limit
    best, variances = matrix, (0.0, 0.0)
    least = _LEAST_SHARE * h * w
    top, moved, taken, first = -2.0, math.inf, 0, True
    while abs(matrix[0, 0]) > _UPRIGHT:
        finer = cubic and (moved < _NEAR_PX or taken == 0 or taken >= steps)
        ends = inner_columns(matrix, image.shape, reference.shape)
        lay(reference, matrix, ends, finer, line, laid)
        totals(image, laid, weight, ends, gain, offset, limit, sums)
        n, t, r, tt, rr, tr, p, pr, pp, *_ = sums.tolist()
        if n < least:
            break
        vt, vr, c = tt - t * t / n, rr - r * r / n, tr - t * r / n
        if not (vt > 1e-3 * tt and vr > 1e-3 * rr):
            break  # flat where they overlap
        score = c / math.sqrt(vt * vr)
        if score > top:
            top, best, variances = score, matrix, (vt / n, vr / n)
        elif score < top - 0.05:
            break  # it runs away
        if first and abs(gain - c / vr) > 0.25 * abs(c / vr):  # known only now, or wrongly from a poor start
            gain = c / vr
            offset = (t - gain * r) / n
            limit = _CLIP * math.sqrt(max(vt - c * c / vr, 0.0) / n) + 1e-6
            first = False
            if steps > 0:
                continue
        first = False
        if taken >= steps:
            break
        # psi = clip(T - gain R - offset): one Newton step for gain and offset too
        more = (pr - p * r / n) / vr
        gain += more
        offset += (p - more * r) / n
        limit = _CLIP * math.sqrt(pp / n) + 1e-6
        delta = (-(pull @ sums[9:])).tolist()
        moved = max(
            abs(delta[0]) * xc + abs(delta[1]) * yc + abs(delta[2]),
            abs(delta[3]) * xc + abs(delta[4]) * yc + abs(delta[5]),
        )
        if not moved < 0.25 * max(h, w):
            break
        matrix = _composed(matrix, delta, turns, xc, yc)
        taken += 1
        if moved <= enough and finer == cubic:
            best = matrix
            break
    score = max(top, -1.0) if top > -2.0 else 0.0
    return Refined(best, score, Light(gain, offset, limit), variances)


def _composed(matrix: np.ndarray, delta: list[float], turns: bool, xc: float, yc: float) -> np.ndarray:
    """M after W^-1, W being the change told about the centre; a turn stays a turn, however large."""
    a, b, e, c, d, f = 1 + delta[0], delta[1], delta[2], delta[3], 1 + delta[4], delta[5]
    if turns:
        a = d = math.cos(delta[3])
        c = math.sin(delta[3])
        b = -c
    det = a * d - b * c
    a, b, c, d = d / det, -b / det, -c / det, a / det
    e, f = -(a * e + b * f), -(c * e + d * f)
    e, f = e + xc - a * xc - b * yc, f + yc - c * xc - d * yc
    return np.array([[x * a + y * c, x * b + y * d, x * e + y * f + t] for x, y, t in matrix.tolist()])


def normal_matrix(
    image: Float32[np.ndarray, "h w"],
    other: Float32[np.ndarray, "h w"],
    weight: Float32[np.ndarray, "h w"],
    matrix: Float64[np.ndarray, "2 3"],
    onto: tuple[int, int],
    every: int = 1,
) -> Float64[np.ndarray, "6 6"]:
    """Sum of g f' over the overlap with a reference of shape `onto`: g and f are the slopes of the two images by the
    six affine parameters about the centre. With an image twice it is the normal matrix of Gauss-Newton, for which one
    row of `every` is enough: it only weighs the parameters.
    """
    sums = np.zeros((4, 6))
    slopes(image, other, weight, inner_columns(matrix, image.shape, onto), every, sums)
    sums *= every
    out = np.empty((6, 6))
    for i in range(2):
        for j in range(2):
            xx, x, one, xy, y, yy = sums[2 * i + j]
            out[3 * i : 3 * i + 3, 3 * j : 3 * j + 3] = [[xx, xy, x], [xy, yy, y], [x, y, one]]
    return out


def undetermined(
    image: Float32[np.ndarray, "h w"],
    reference: Float32[np.ndarray, "hr wr"],
    weight: Float32[np.ndarray, "h w"],
    found: Refined,
    motion: str,
    least: float,
) -> Float64[np.ndarray, "n n"] | None:
    """The directions of a motion's parameters that nothing both images show determines; None if there are none.

    Lines do not tell a shift along them, a round hole does not tell an angle, but noise gives either a slope. So the
    slopes of the two images are compared: for each combination of parameters, how much of the slopes' energy do they
    share?

    Args:
        image: as in `refine`
        reference: as in `refine`
        weight: as in `refine`
        found: the registration asked about
        motion: a key of `BASES`
        least: the share below which it is noise [1]

    Returns:
        A projector P of the motion's parameters: P p is the part of p that is not determined.
    """
    basis = BASES[motion]
    laid, line = np.zeros_like(image), np.empty(reference.shape[1], np.float32)
    lay(reference, found.matrix, inner_columns(found.matrix, image.shape, reference.shape), False, line, laid)
    one, two, both = (
        basis @ normal_matrix(a, b, weight, found.matrix, reference.shape) @ basis.T
        for a, b in ((image, image), (laid, laid), (image, laid))
    )
    # in parameters in which either image's slopes have about unit energy, by the smaller diagonal of the two
    energy = one + two * found.light.gain**2
    values, vectors = np.linalg.eigh(energy)
    values = np.maximum(values, 1e-12 * max(values[-1], 1e-30))
    whiten, unwhiten = (vectors * values**-0.5) @ vectors.T, (vectors * values**0.5) @ vectors.T
    shares, ways = np.linalg.eigh(whiten @ (both + both.T) @ whiten * found.light.gain)
    ways = ways[:, shares < least]
    if ways.shape[1] == 0:
        return None
    return whiten @ ways @ ways.T @ unwhiten


def without(
    matrix: Float64[np.ndarray, "2 3"],
    still: Float64[np.ndarray, "2 3"],
    held: Float64[np.ndarray, "n n"],
    motion: str,
    shape: tuple[int, int],
) -> Float64[np.ndarray, "2 3"]:
    """A matrix less what is not determined: that part of it becomes what it is in `still`."""
    basis = BASES[motion]
    centre = np.array([0.5 * (shape[1] - 1), 0.5 * (shape[0] - 1)])
    linear = matrix[:, :2]
    shift = matrix @ [*centre, 1] - still @ [*centre, 1]
    # a step acts before the matrix: its shift is one in the image, not in the reference
    difference = np.column_stack((linear - still[:, :2], np.linalg.solve(linear, shift))).ravel()
    parameters = np.linalg.lstsq(basis.T, difference, rcond=None)[0]
    less = (basis.T @ (held @ parameters)).reshape(2, 3)
    out = np.empty((2, 3))
    out[:, :2] = linear - less[:, :2]
    out[:, 2] = still @ [*centre, 1] + out[:, :2] @ (np.linalg.solve(linear, shift) - less[:, 2] - centre)
    return out


def _damped(normal: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """The inverse of a normal matrix, damped in the directions that hardly anything determines.

    Args:
        normal: of the motion's parameters
        reach: how far each of them moves a corner [px]
    """
    scaled = normal / reach[:, None] / reach[None, :]
    values, vectors = np.linalg.eigh(scaled)
    # a step along what is a thousandth as well determined as the rest comes to a sixth; where steps end stays the same
    return (vectors / (values + _DAMPING * values[-1] + 1e-30)) @ vectors.T / reach[:, None] / reach[None, :]
