"""Register an image to a reference: where each point of the image lies in the reference, and whether to believe it.

Correlation of the coarse images over all shifts, and over a fan of angles where the motion may turn, gives starts
(`registration_peaks`); the best of them are followed from coarse to fine (`registration_search`), made exact by
Gauss-Newton (`registration_refine`), and one is chosen (`registration_settle`). Gain and offset do not matter, slow
shading hardly, and a defect pulls only with a bounded force.

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

Motion = Literal["none", "shift", "rigid", "similarity", "affine"]
MOTIONS: tuple[Motion, ...] = ("none", "shift", "rigid", "similarity", "affine")

SMALLEST_PX = 16
"""Images with a shorter side are not registered [px]"""
LEAST_SCORE = 0.6
"""Correlation below which a registration is not trusted, where nothing else is asked [1]

From the 1000 DeepPCB pairs, affine, and 450 wrong ones of different board groups (shift, rigid, affine; any shift
allowed, so traces of one pitch can be laid on one another): of the right ones 1 % lie below 0.89, and only one, which
is all but empty, below 0.73; of the wrong ones half reach 0.19 and 5 % 0.45, one is trusted at 0.5, none at 0.6.
"""
_LEAST_OVERLAP = 0.25
_DECIMALS = 6
"""Of the matrix: far below what a registration is known to, and above what sums in another order make of it. Kernels
that were just compiled add up in another order than those from the cache, and a table must not tell which."""
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
    remark: str = ""
    """What to know of it even if it is trusted: the pattern repeats, or something is not determined by it."""
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
    min_score: float = LEAST_SCORE,
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
    image, care = _finite(image, care)
    reference, _ = _finite(reference, None)
    for name, pixels, counts in (("image", image, care), ("reference", reference, None)):
        if _is_constant(pixels, counts):
            what = f"the {name} is constant where it counts: it holds nothing to register by"
            return Registration(still, 0.0, overlap_share(still, shape, reference.shape), what, "", shape)

    # numba comes with them
    from waferlens.ops.registration_search import Limits
    from waferlens.ops.registration_settle import registered

    limits = Limits(math.inf if max_shift_px is None else max_shift_px, max_angle_deg)
    outcome = registered(_ready(image), _ready(reference), care, motion, limits)
    matrix = np.round(outcome.matrix, _DECIMALS)
    overlap = overlap_share(matrix, shape, reference.shape)
    found = Registration(matrix, round(float(outcome.score), 6), overlap, "", outcome.remark, shape)
    doubt = _doubt(found, outcome.share, max_shift_px, max_angle_deg, min_score, reference.shape)
    return replace(found, reason=doubt or outcome.reason, remark="" if doubt else outcome.remark)


def warped(
    reference: np.ndarray, registration: Registration, shape: tuple[int, int]
) -> tuple[Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """The reference on the image's grid, interpolated linearly, and where the reference covers the image.

    A pixel of the image is covered where its centre lies within the outer pixel edges of the reference, and every pixel
    it is made of is a number. Elsewhere the border of the reference, or its median, is continued, so there is no NaN.
    """
    h, w = shape
    source, known = _finite(reference, None)
    source = np.ascontiguousarray(source, np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    if source.shape == shape and np.array_equal(registration.matrix, np.eye(2, 3)):
        out, first, last = source.copy(), np.zeros(h, np.intp), np.full(h, w)
    else:
        out = cv2.warpAffine(source, registration.matrix, (w, h), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        first, last = _covered(registration.matrix, shape, reference.shape)
    if (first == 0).all() and (last == w).all():
        seen = np.ones(shape, bool)
    else:
        column = np.arange(w)
        seen = column >= first[:, None]
        seen &= column < last[:, None]
    if known is not None:
        share = cv2.warpAffine(known.astype(np.float32), registration.matrix, (w, h), flags=flags, borderValue=1.0)
        seen &= share > 0.999
    return out, seen


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


def _doubt(
    found: Registration,
    share: float,
    max_shift_px: float | None,
    max_angle_deg: float,
    min_score: float,
    onto: tuple[int, int],
) -> str:
    """Why the registration is not trusted, `share` of the image being judged by; empty if it is trusted."""
    h, w = found.shape
    # where the sizes differ, the shift is counted from where the centres agree
    dy = found.shift_px[0] + 0.5 * (onto[0] - h)
    dx = found.shift_px[1] + 0.5 * (onto[1] - w)
    if found.overlap < _LEAST_OVERLAP:
        return f"only {found.overlap:.0%} of the image lies inside the reference; at least {_LEAST_OVERLAP:.0%} must"
    # a small part fits by chance more easily: it has to explain as much as half the image at the least score
    least = math.sqrt(1 - (1 - min(min_score, 1.0) ** 2) ** max(1.0, 0.5 / max(share, 1e-3)))
    if not found.score >= least:
        over = "" if share >= 0.5 else f" over {share:.0%} of the image"
        return (
            f"the correlation after registration is {found.score:.2f}{over}, below {least:.2f}: "
            "the two do not show the same thing"
        )
    if max_shift_px is not None and max(abs(dy), abs(dx)) > max_shift_px + 0.5:
        return f"the shift (dy, dx) = ({dy:.1f}, {dx:.1f}) px exceeds max_shift_px = {max_shift_px:g}"
    if abs(found.angle_deg) > max_angle_deg + 0.05:
        return f"the angle {found.angle_deg:.2f} deg exceeds max_angle_deg = {max_angle_deg:g}"
    if not 1 / _FAR_SCALE <= found.scale <= _FAR_SCALE:
        return f"the scale {found.scale:.3f} is beyond {1 / _FAR_SCALE:.2f} .. {_FAR_SCALE:.2f}"
    return ""


def _finite(pixels: np.ndarray, care: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels with the median in place of what is not finite, and where they count; None if everywhere."""
    if care is not None and care.all():
        care = None
    if pixels.dtype.kind == "f":
        pixels = pixels.astype(np.float32, copy=False)
        known = np.isfinite(pixels)
        if not known.all():
            care = known if care is None else care & known
            pixels = np.where(known, pixels, np.median(pixels[known]) if known.any() else np.float32(0))
    return pixels, care


def _ready(pixels: np.ndarray) -> np.ndarray:
    """Pixels as the kernels take them: uint8, uint16 or float32 whose squares are floats, contiguous and writeable.

    They are compiled anew for every other type and layout, and a memory map that is only read is one.
    """
    if pixels.dtype.kind == "f":
        most = max(abs(float(pixels.min())), abs(float(pixels.max())))
        if not (1e-3 < most < 1e6 or most == 0):
            pixels = pixels / most
    if pixels.dtype not in (np.uint8, np.uint16):
        pixels = pixels.astype(np.float32, copy=False)
    return np.require(pixels, requirements="CW")


def _is_constant(pixels: np.ndarray, care: np.ndarray | None) -> bool:
    if care is None:
        some = pixels[:: max(1, len(pixels) // 16)]
        if some.max() - some.min() > 1e-6 * abs(float(some.max())):
            return False
    counted = pixels if care is None else pixels[care]
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
