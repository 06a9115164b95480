"""Register an image to a reference: where each point of the image lies in the reference, and whether to believe it.

Correlation of the coarse images over all shifts, and over a fan of angles where the motion may turn, gives starts;
Gauss-Newton from coarse to fine makes the best of them exact. Gain and offset do not matter, slow shading hardly, and a
defect pulls only with a bounded force.

Nothing about a pair of images raises: what cannot be trusted comes back with a `reason`, in one sentence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float

from waferlens.errors import UsageError
from waferlens.ops.registration_search import Pyramid, candidates, from_level, onto_level

Motion = Literal["none", "shift", "rigid", "similarity", "affine"]
MOTIONS: tuple[Motion, ...] = ("none", "shift", "rigid", "similarity", "affine")

SMALLEST_PX = 16
"""Images with a shorter side are not registered [px]"""
_FINEST_PIXELS = 420_000  # the finest level has at most so many; more adds time, hardly accuracy
_COARSE_PX = 64  # longer side of the level the search begins on
_LEAST_OVERLAP = 0.25
_FAR_SCALE = 1.25  # a registration that stretches by more than this has gone astray


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """Where an image lies in its reference."""

    matrix: Float[np.ndarray, "2 3"]
    """Takes a point (x, y) of the image to the same point of the reference, float64 [px]"""
    score: float
    """Zero-normalised correlation after registration, over the overlap, of the images averaged to the finest level that
    was used (up to 420,000 pixels) [1]"""
    overlap: float
    """Share of the image's pixels that lie inside the reference [1]"""
    reason: str = ""
    """Empty if the registration is trusted, else one sentence why not."""
    shape: tuple[int, int] = (0, 0)
    """Shape of the image that was registered."""

    @property
    def shift_px(self) -> tuple[float, float]:
        """(dy, dx) of the image relative to the reference at the centre of the image: what lies in the reference at
        (x, y) lies in the image at (x + dx, y + dy) [px]
        """
        xc, yc = 0.5 * (self.shape[1] - 1), 0.5 * (self.shape[0] - 1)
        x, y = self.matrix @ (xc, yc, 1.0)
        return float(yc - y), float(xc - x)

    @property
    def angle_deg(self) -> float:
        """Turn of the image against the reference, counter-clockwise as seen from above [deg]"""
        (a, b), (c, d) = self.matrix[:, :2]
        return math.degrees(math.atan2(c - b, a + d))

    @property
    def scale(self) -> float:
        """How much larger things are in the image than in the reference: root of the ratio of areas [1]"""
        return 1 / math.sqrt(max(abs(float(np.linalg.det(self.matrix[:, :2]))), 1e-12))


def register(
    image: np.ndarray,
    reference: np.ndarray,
    *,
    motion: Motion,
    max_shift_px: float | None = None,
    max_angle_deg: float = 5.0,
    min_score: float = 0.5,
    care: Bool[np.ndarray, "h w"] | None = None,
) -> Registration:
    """Register an image to a reference.

    Args:
        image: uint8, uint16 or floating, `h w`; pixels that are not finite take no part [grey]
        reference: likewise; it may have another shape and another type [grey]
        motion: what may differ: nothing, a shift, a shift and a turn (`rigid`), these and one scale (`similarity`), or
            any affine map
        max_shift_px: how far the image's centre may be off in x and in y; as far as they overlap where it is None [px]
        max_angle_deg: how far the image may be turned [deg]
        min_score: below this correlation the registration is not trusted [1]
        care: pixels of the image that count; all where it is None

    Raises:
        UsageError: the arrays are no grey images of at least 16 x 16 pixels, or an option makes no sense.
    """
    _check(image, reference, motion, max_shift_px, max_angle_deg, care)
    shape = image.shape
    still = np.eye(2, 3)
    image, weight = _finite(image, care)
    reference, _ = _finite(reference, None)
    for name, pixels, counts in (("image", image, weight), ("reference", reference, None)):
        if _is_constant(pixels, counts):
            what = f"the {name} is constant where it counts: it holds nothing to register by"
            return Registration(still, 0.0, overlap_share(still, shape, reference.shape), what, shape)
    matrix, score = _find(image, reference, weight, motion, max_shift_px, max_angle_deg)
    found = Registration(matrix, score, overlap_share(matrix, shape, reference.shape), "", shape)
    return replace(found, reason=_doubt(found, max_shift_px, max_angle_deg, min_score, reference.shape))


def warped(
    reference: np.ndarray, registration: Registration, shape: tuple[int, int]
) -> tuple[Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """The reference on the image's grid, interpolated linearly, and where the reference covers the image.

    A pixel of the image is covered where its centre lies within the outer pixel edges of the reference. Elsewhere the
    border of the reference is continued, so there is no NaN.
    """
    h, w = shape
    source = np.ascontiguousarray(reference, np.float32)
    if not np.isfinite(source).all():
        source = _finite(source, None)[0].astype(np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    out = cv2.warpAffine(source, registration.matrix, (w, h), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    first, last = _covered(registration.matrix, shape, reference.shape)
    column = np.arange(w)
    return out, (column >= first[:, None]) & (column < last[:, None])


def overlap_share(matrix: Float[np.ndarray, "2 3"], shape: tuple[int, int], onto: tuple[int, int]) -> float:
    """Share of the pixels of an image of `shape` that lie inside a reference of shape `onto` [1]"""
    first, last = _covered(matrix, shape, onto)
    return float(np.clip(last - first, 0, None).sum()) / (shape[0] * shape[1])


def _covered(matrix: np.ndarray, shape: tuple[int, int], onto: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """First covered column of every row, and the one after the last."""
    h, w = shape
    y = np.arange(h)
    first, last = np.zeros(h), np.full(h, float(w - 1))
    for (a, b, c), size in zip(matrix, onto[::-1], strict=True):
        start = b * y + c
        # -0.5 <= a x + start <= size - 0.5; a hair more, so that rounding hides no border of an unmoved image
        low, high = -0.5 - 1e-6 - start, size - 0.5 + 1e-6 - start
        if abs(a) < 1e-12:
            outside = (low > 0) | (high < 0)
            last = np.where(outside, -1.0, last)
            continue
        ends = np.sort(np.stack((low / a, high / a)), axis=0)
        first, last = np.maximum(first, ends[0]), np.minimum(last, ends[1])
    first, last = np.ceil(first), np.floor(last) + 1
    return first.astype(np.intp), np.maximum(first, last).astype(np.intp)


def _find(
    image: np.ndarray,
    reference: np.ndarray,
    weight: np.ndarray,
    motion: Motion,
    max_shift_px: float | None,
    max_angle_deg: float,
) -> tuple[Float[np.ndarray, "2 3"], float]:
    """The matrix and its score."""
    from waferlens.ops.registration_refine import refine  # numba

    pictures, references, weights = Pyramid(image), Pyramid(reference), Pyramid(weight)
    finest = 0
    while image.size / 4**finest > _FINEST_PIXELS:
        finest += 1
    if motion == "none":
        matrix = onto_level(np.eye(2, 3), finest)
        still = refine(
            pictures.level(finest),
            references.level(finest),
            weights.level(finest),
            matrix,
            motion=motion,
            steps=0,
            enough=0,
        )
        return np.eye(2, 3), still.score
    coarse = finest
    while max(image.shape) >> coarse > _COARSE_PX and min(*image.shape, *reference.shape) >> (coarse + 1) >= 12:
        coarse += 1
    angles = [0.0]
    if motion != "shift":
        count = math.ceil(max_angle_deg / 2.0)
        angles = [max_angle_deg * i / max(count, 1) for i in range(-count, count + 1)]
    reach = math.inf if max_shift_px is None else max_shift_px / 2**coarse
    starts = candidates(
        pictures.level(coarse),
        references.level(coarse),
        weights.level(coarse),
        angles=angles,
        max_shift=reach,
        most=3,
    )
    if not starts:
        return np.eye(2, 3), 0.0
    tried = [
        refine(
            _smooth(pictures.level(coarse)),
            _smooth(references.level(coarse)),
            weights.level(coarse),
            start,
            motion="rigid" if motion in ("similarity", "affine") else motion,
            steps=8,
            enough=0.02,
        )
        for _, start in starts
    ]
    best = max(tried, key=lambda found: found.score)
    matrix, score = from_level(best.matrix, coarse), best.score
    for k in range(coarse, finest - 1, -1):
        found = refine(
            _smooth(pictures.level(k)),
            _smooth(references.level(k)),
            weights.level(k),
            onto_level(matrix, k),
            motion=motion,
            steps=12,
            enough=0.01 if k > finest else 0.003,
        )
        matrix, score = from_level(found.matrix, k), found.score
    if not np.isfinite(matrix).all():
        return np.eye(2, 3), 0.0
    return matrix, score


def _smooth(pixels: np.ndarray) -> np.ndarray:
    """Fine enough for differences of neighbours to be slopes."""
    return cv2.GaussianBlur(pixels, (3, 3), 0.8)


def _doubt(
    found: Registration, max_shift_px: float | None, max_angle_deg: float, min_score: float, onto: tuple[int, int]
) -> str:
    """Why the registration is not trusted; empty if it is."""
    h, w = found.shape
    # where the sizes differ, the shift is counted from where the centres agree
    dy = found.shift_px[0] + 0.5 * (onto[0] - h)
    dx = found.shift_px[1] + 0.5 * (onto[1] - w)
    if found.overlap < _LEAST_OVERLAP:
        return f"only {found.overlap:.0%} of the image lies inside the reference; at least {_LEAST_OVERLAP:.0%} must"
    if not found.score >= min_score:
        return (
            f"the correlation after registration is {found.score:.2f}, below {min_score:.2f}: "
            "the two do not show the same thing"
        )
    if max_shift_px is not None and max(abs(dy), abs(dx)) > max_shift_px + 0.5:
        return f"the shift (dy, dx) = ({dy:.1f}, {dx:.1f}) px exceeds max_shift_px = {max_shift_px:g}"
    if abs(found.angle_deg) > max_angle_deg + 0.05:
        return f"the angle {found.angle_deg:.2f} deg exceeds max_angle_deg = {max_angle_deg:g}"
    if not 1 / _FAR_SCALE <= found.scale <= _FAR_SCALE:
        return f"the scale {found.scale:.3f} is beyond {1 / _FAR_SCALE:.2f} .. {_FAR_SCALE:.2f}"
    return ""


def _finite(pixels: np.ndarray, care: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Pixels with the median in place of what is not finite, and the weight of each, float32."""
    weight = np.ones(pixels.shape, np.float32) if care is None else care.astype(np.float32)
    if pixels.dtype.kind == "f":
        known = np.isfinite(pixels)
        if not known.all():
            weight = weight * known
            pixels = np.where(known, pixels, np.median(pixels[known]) if known.any() else 0)
        pixels = pixels.astype(np.float32, copy=False)
    return np.ascontiguousarray(pixels), np.ascontiguousarray(weight)


def _is_constant(pixels: np.ndarray, weight: np.ndarray | None) -> bool:
    counted = pixels if weight is None or weight.all() else pixels[weight > 0]
    if counted.size == 0:
        return True
    low, high = float(counted.min()), float(counted.max())
    return not high - low > 1e-6 * max(abs(low), abs(high))


def _check(
    image: np.ndarray,
    reference: np.ndarray,
    motion: str,
    max_shift_px: float | None,
    max_angle_deg: float,
    care: np.ndarray | None,
) -> None:
    if motion not in MOTIONS:
        raise UsageError(f"motion = {motion!r}: it must be one of {', '.join(MOTIONS)}")
    for name, pixels in (("image", image), ("reference", reference)):
        if pixels.ndim != 2:
            raise UsageError(f"register: the {name} has shape {pixels.shape}; expected grey pixels of shape (h, w)")
        if pixels.dtype.kind not in "uif":
            raise UsageError(f"register: the {name} has pixels of type {pixels.dtype}; expected integers or floats")
        if min(pixels.shape) < SMALLEST_PX:
            raise UsageError(
                f"register: the {name} has shape {pixels.shape}; both sides must be at least {SMALLEST_PX} px"
            )
    if care is not None and care.shape != image.shape:
        raise UsageError(f"register: care has shape {care.shape}, the image {image.shape}; they must be equal")
    if max_shift_px is not None and not max_shift_px >= 0:
        raise UsageError(f"max_shift_px = {max_shift_px}: it must be at least 0, or None for no limit")
    if not 0 <= max_angle_deg <= 45:
        raise UsageError(f"max_angle_deg = {max_angle_deg}: it must lie between 0 and 45")
