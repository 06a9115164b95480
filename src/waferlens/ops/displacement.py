"""What remains between an image and its registered reference: a displacement that changes slowly from place to place.

Film shrinks, lenses distort, line scanners jitter, and etching moves whole wires; one affine map for the whole image
leaves edges a pixel or two off. `displaced` finds a field of displacements on a grid of nodes, bilinear in between:

    minimise  Σ ρ(image(p) - reference(p + u(p)))  +  λ Σ |u_n - u_m|²  over neighbouring nodes n, m

by Gauss-Newton, from coarse to fine. ρ is bounded (Geman and McClure), so a defect pulls with a bounded force and what
deviates entirely hardly at all; and the springs between the nodes make it cost something to bend the field around a
defect that is smaller than the distance of the nodes. A wire that is wider on both sides is not displaced, and stays a
deviation.

numba is imported with this file: import it where it is used, not at start-up.

Source: Lucas, Kanade, IJCAI 1981, 674 (Gauss-Newton on grey values); Horn, Schunck, Artif. Intell. 17 (1981) 185
(smoothness); Black, Anandan, Comput. Vis. Image Underst. 63 (1996) 75 (robust ρ).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32
from numba import njit

from waferlens.errors import UsageError

_SIGMAS_PX = (4.0, 2.0)  # of the smoothing: how far an edge is seen, and how exactly
_STEPS = 3  # of Gauss-Newton at each
_HALVED_FROM_PX = 16  # nodes this far apart are found as well on an image of half the size
_BEND = 0.3  # strength of a spring: it holds against an edge as long as this share of the distance of the nodes
_STAY = 1e-3  # strength of the spring that holds a node where it was, in those between nodes
_OUTLIERS = (0.5, 0.25)  # a difference that counts little at each, in contrasts of the reference


@dataclass(frozen=True, slots=True, eq=False)
class Displacement:
    """A field of displacements."""

    nodes: Float32[np.ndarray, "r c 2"]
    """(dx, dy) at the nodes: what lies in the image at p lies in the reference at p + (dx, dy) [px]"""
    spacing: tuple[float, float]
    """Distance of the nodes along x and y; the first lies at (0, 0), the last on the last pixel [px]"""

    def at(self, shape: tuple[int, int]) -> Float32[np.ndarray, "2 h w"]:
        """How far every pixel is displaced along x and along y [px]"""
        rows, columns, _ = self.nodes.shape
        along_y = _bilinear(np.arange(shape[0]) / self.spacing[1], rows)
        along_x = _bilinear(np.arange(shape[1]) / self.spacing[0], columns)
        return np.stack([along_y @ self.nodes[..., axis] @ along_x.T for axis in (0, 1)])


def displaced(
    image: np.ndarray,
    reference: Float[np.ndarray, "h w"],
    care: Bool[np.ndarray, "h w"],
    *,
    spacing_px: float,
    max_px: float | None = None,
) -> Displacement:
    """The field of displacements between an image and a reference that is roughly registered to it.

    Args:
        image: any grey type, its brightness matched to that of the reference [grey]
        reference: on the grid of the image [grey]
        care: pixels that count
        spacing_px: distance of the nodes; what is larger may move by itself [px]
        max_px: greatest displacement; an eighth of the spacing where it is None, at least 2 [px]

    Raises:
        UsageError: spacing_px is below 8, or max_px is not positive.
    """
    if not spacing_px >= 8:
        raise UsageError(f"spacing_px = {spacing_px}: nodes must be at least 8 px apart")
    if max_px is not None and not max_px > 0:
        raise UsageError(f"max_px = {max_px}: it must be positive, or None for an eighth of the spacing")
    limit = max(2.0, spacing_px / 8) if max_px is None else max_px
    h, w = reference.shape
    rows, columns = (max(2, round((n - 1) / spacing_px) + 1) for n in (h, w))
    spacing = max(w - 1, 1) / (columns - 1), max(h - 1, 1) / (rows - 1)
    nodes = np.zeros((rows, columns, 2))
    contrast = _contrast(reference, care)
    if contrast > 0:
        by = 2 if spacing_px >= _HALVED_FROM_PX and min(h, w) >= 32 else 1
        weight = _halved(care.astype(np.float32, order="C"), by)
        springs = _springs(rows, columns)
        for sigma, outlier in zip(_SIGMAS_PX, _OUTLIERS, strict=True):
            ours, theirs = (
                _halved(cv2.GaussianBlur(np.asarray(grey, np.float32), (0, 0), sigma), by) / np.float32(contrast)
                for grey in (image, reference)
            )
            # across an edge of unit contrast the squared slopes sum to 1 / (2 sqrt(pi) sigma)
            stiff = _BEND * (spacing_px / by) / (2 * math.sqrt(math.pi) * (sigma / by))
            for _ in range(_STEPS):
                nodes = by * _step(ours, theirs, weight, nodes / by, stiff * springs, outlier)
                length = np.hypot(nodes[..., 0], nodes[..., 1])
                nodes *= np.minimum(1, limit / np.maximum(length, 1e-9))[..., None]
    return Displacement(nodes.astype(np.float32), spacing)


def laid_by(
    reference: Float32[np.ndarray, "h w"],
    matrix: Float[np.ndarray, "2 3"],
    field: Float32[np.ndarray, "2 y x"],
) -> Float32[np.ndarray, "y x"]:
    """The reference on the image's grid, by a registration and what remains of it, interpolated linearly.

    Args:
        reference: finite [grey]
        matrix: takes a point of the image to the reference [px]
        field: dx and dy at every pixel of the image, before the matrix [px]
    """
    _, h, w = field.shape
    x, y = field[0] + np.arange(w, dtype=np.float32), field[1] + np.arange(h, dtype=np.float32)[:, None]
    (a, b, c), (d, e, f) = matrix.astype(np.float32)
    return cv2.remap(reference, a * x + b * y + c, d * x + e * y + f, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _contrast(reference: np.ndarray, care: np.ndarray) -> float:
    """From dark to bright [grey]"""
    values = reference[care]
    if values.size == 0:
        return 0.0
    dark, bright = np.percentile(values[:: max(1, values.size >> 16)], (1, 99))
    return float(bright - dark) or float(np.ptp(values))


def _halved(grey: np.ndarray, by: int) -> np.ndarray:
    """Averaged over two by two pixels; an odd last row is left out."""
    if by == 1:
        return grey
    h, w = (n // 2 * 2 for n in grey.shape)
    return cv2.resize(grey[:h, :w], (w // 2, h // 2), interpolation=cv2.INTER_AREA)


def _bilinear(at: Float[np.ndarray, " n"], nodes: int) -> Float32[np.ndarray, "n k"]:
    """Weights of the nodes at positions counted in nodes."""
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(nodes))).astype(np.float32)


def _springs(rows: int, columns: int) -> Any:
    """Matrix of the springs between neighbouring nodes, of strength 1, and of those that hold every node; sparse."""
    from scipy.sparse import csc_array, diags_array, kron

    def chain(n: int) -> Any:
        return diags_array([-np.ones(n - 1), np.r_[1, np.full(n - 2, 2.0), 1], -np.ones(n - 1)], offsets=[-1, 0, 1])

    still = [diags_array(np.ones(n)) for n in (rows, columns)]
    between = kron(chain(rows), still[1]) + kron(still[0], chain(columns)) + _STAY * kron(*still)
    return csc_array(kron(diags_array(np.ones(2)), between))


def _step(
    image: np.ndarray, reference: np.ndarray, weight: np.ndarray, nodes: np.ndarray, springs: Any, outlier: float
) -> np.ndarray:
    """The nodes after one step of Gauss-Newton; all lengths in pixels of these images."""
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import spsolve

    rows, columns, _ = nodes.shape
    size = rows * columns
    dy, dx = np.gradient(reference)
    # in one layout at every step, for which the kernel is compiled once
    normal, pull = _gathered(image, reference, dx, dy, weight, np.ascontiguousarray(nodes), outlier)
    number = np.arange(size).reshape(rows, columns)
    corners = np.stack((number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]), axis=-1)
    one = np.broadcast_to(corners[..., :, None], normal.shape[:-1]).ravel()
    other = np.broadcast_to(corners[..., None, :], normal.shape[:-1]).ravel()
    xx, xy, yy = (normal[..., k].ravel() for k in range(3))
    first = np.concatenate((one, one, one + size, one + size))
    second = np.concatenate((other, other + size, other, other + size))
    edges = coo_array((np.concatenate((xx, xy, xy, yy)), (first, second)), shape=springs.shape).tocsc()
    flat = nodes.transpose(2, 0, 1).ravel()
    moved = flat + spsolve(edges + springs, pull.transpose(2, 0, 1).ravel() - springs @ flat)
    return moved.reshape(2, rows, columns).transpose(1, 2, 0)


@njit(nogil=True, cache=True)
def _gathered(image, reference, dx, dy, weight, nodes, outlier):
    """Normal equations cell by cell (pairs of its four corners; xx, xy, yy), and what pulls at every node."""
    h, w = image.shape
    rows, columns, _ = nodes.shape
    normal = np.zeros((rows - 1, columns - 1, 4, 4, 3))
    pull = np.zeros((rows, columns, 2))
    part = np.empty(4)
    for y in range(h):
        v = y * (rows - 1) / (h - 1)
        r = min(int(v), rows - 2)
        fy = v - r
        for x in range(w):
            if weight[y, x] == 0:
                continue
            v = x * (columns - 1) / (w - 1)
            c = min(int(v), columns - 2)
            fx = v - c
            part[0], part[1] = (1 - fx) * (1 - fy), fx * (1 - fy)
            part[2], part[3] = (1 - fx) * fy, fx * fy
            px, py = float(x), float(y)
            for k in range(4):
                px += part[k] * nodes[r + k // 2, c + k % 2, 0]
                py += part[k] * nodes[r + k // 2, c + k % 2, 1]
            if not (0 <= px <= w - 1 and 0 <= py <= h - 1):
                continue
            x0, y0 = min(int(px), w - 2), min(int(py), h - 2)
            gx, gy = _sampled(dx, px, py, x0, y0), _sampled(dy, px, py, x0, y0)
            if gx * gx + gy * gy < 1e-6:  # no edge near by
                continue
            rest = image[y, x] - _sampled(reference, px, py, x0, y0)
            trust = weight[y, x] / (1 + (rest / outlier) ** 2) ** 2
            for k in range(4):
                pull[r + k // 2, c + k % 2, 0] += trust * part[k] * gx * rest
                pull[r + k // 2, c + k % 2, 1] += trust * part[k] * gy * rest
                for m in range(k, 4):
                    both = trust * part[k] * part[m]
                    normal[r, c, k, m, 0] += both * gx * gx
                    normal[r, c, k, m, 1] += both * gx * gy
                    normal[r, c, k, m, 2] += both * gy * gy
    # one number at a time: assigning arrays takes the compiler two seconds
    for r in range(rows - 1):
        for c in range(columns - 1):
            for k in range(4):
                for m in range(k):
                    for i in range(3):
                        normal[r, c, k, m, i] = normal[r, c, m, k, i]
    return normal, pull


@njit(nogil=True, cache=True)
def _sampled(grey, px, py, x0, y0):
    """Grey at (px, py) between the four pixels from (x0, y0) on."""
    ax, ay = px - x0, py - y0
    above = (1 - ax) * grey[y0, x0] + ax * grey[y0, x0 + 1]
    below = (1 - ax) * grey[y0 + 1, x0] + ax * grey[y0 + 1, x0 + 1]
    return (1 - ay) * above + ay * below
