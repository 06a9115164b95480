"""Gain and offset between an image and its registered reference, whatever defects the image has."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float

_BLOCK = 4
"""Side of the blocks that are averaged [px]. The noise of the reference pulls a least-squares gain towards 0, by its
share of the reference's variance; over 16 pixels that share is a sixteenth."""
_BLOCKS = 16_384  # blocks looked at
_FEWEST = 512  # with fewer of them every pixel is looked at
_BINS = 24  # of the reference's grey; a defect has to fill half of a bin to move its median
_ROUNDS = 12  # of trimming at most
_TRIM = 2.5  # residuals beyond this many robust standard deviations are left out
_MAD = 1.4826  # standard deviation of a normal distribution over its median absolute deviation


def gain_offset(
    image: np.ndarray, warped_reference: Float[np.ndarray, "h w"], seen: Bool[np.ndarray, "h w"]
) -> tuple[float, float]:
    """Gain and offset with image = gain * reference + offset, by trimmed least squares from a start by medians.

    Args:
        image: any grey type [grey]
        warped_reference: the reference on the image's grid [grey]
        seen: pixels that count

    Returns:
        The gain [1] and the offset [grey]. A constant reference gives the gain 1 and the difference of the medians;
        where no pixel counts it is 1 and 0.
    """
    y, x = _sample(image, warped_reference, seen)
    if y.size == 0:
        return 1.0, 0.0
    # counted from the medians, so that an offset costs no digits
    middle_x, middle_y = float(np.median(x)), float(np.median(y))
    x, y = x - middle_x, y - middle_y
    spread = float(np.abs(x).max())
    line = _start(x, y) if spread > 1e-6 * abs(middle_x) and spread > 0 else None
    if line is None:
        return 1.0, middle_y - middle_x
    gain, offset = line
    least = 1e-6 * float(np.abs(y).max())
    kept = np.zeros(0, bool)
    for _ in range(_ROUNDS):
        size = np.abs(y - gain * x - offset)
        now = size <= max(_TRIM * _MAD * float(np.median(size)), least)
        if np.array_equal(now, kept):
            break
        kept = now
        xs, ys = x[kept], y[kept]
        mean_x, mean_y = xs.mean(), ys.mean()
        variance = float(np.square(xs - mean_x).sum())
        if not variance > 1e-6 * float(np.square(x).sum()):
            break  # one grey is left, which tells no gain: that of the medians stays
        gain = float(((xs - mean_x) * (ys - mean_y)).sum()) / variance
        offset = float(mean_y - gain * mean_x)
    return gain, offset + middle_y - gain * middle_x


def _start(x: np.ndarray, y: np.ndarray) -> tuple[float, float] | None:
    """The line through the medians of bins of the reference's grey: the weighted median of their pairs' slopes.

    Bins of equal width, not of equal count: a mask that is nearly all white still has a bin of black. None where only
    one bin is filled.
    """
    low, high = float(x.min()), float(x.max())
    bins = np.minimum(((x - low) * (_BINS / (high - low))).astype(np.intp), _BINS - 1)
    order = np.argsort(bins, kind="stable")
    ends = np.searchsorted(bins[order], np.arange(_BINS + 1))
    fewest = max(4, x.size // 1000)
    points = [
        (float(np.median(x[order[a:b]])), float(np.median(y[order[a:b]])), b - a)
        for a, b in zip(ends[:-1], ends[1:], strict=True)
        if b - a >= fewest
    ]
    if len(points) < 2:
        return None
    px, py, count = np.array(points).T
    i, j = np.triu_indices(len(px), 1)
    gain = _weighted_median((py[j] - py[i]) / (px[j] - px[i]), np.sqrt(count[i] * count[j]) * (px[j] - px[i]))
    return gain, _weighted_median(py - gain * px, count)


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(below, 0.5 * below[-1])])


def _sample(image: np.ndarray, reference: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of grey of image and reference, float64: means of blocks, or pixels where blocks would say too little."""
    h, w = image.shape
    across, down = w // _BLOCK, h // _BLOCK
    bands = min(down, -(-_BLOCKS // max(across, 1)))
    if bands * across >= _FEWEST:
        # bands at uneven distances, lest they meet a pattern at its period
        even = (np.arange(bands) + (0.5 + 0.618034 * np.arange(bands)) % 1.0) * ((h - _BLOCK + 1) / bands)
        rows = (even.astype(np.intp)[:, None] + np.arange(_BLOCK)).ravel()
        columns = slice(0, across * _BLOCK)
        y, x, counted = (part[rows, columns].astype(np.float32) for part in (image, reference, seen))
        counted = np.where(np.isfinite(y) & np.isfinite(x), counted, np.float32(0))
        means = [cv2.resize(part, (across, bands), interpolation=cv2.INTER_AREA) for part in (y, x, counted)]
        whole = means[2] > 0.999
        if np.count_nonzero(whole) >= _FEWEST:
            by_block = means[0][whole].astype(np.float64), means[1][whole].astype(np.float64)
            some = x[::_BLOCK, ::_BLOCK][counted[::_BLOCK, ::_BLOCK] > 0]
            # a pattern finer than the blocks is gone in their means
            if np.std(by_block[1]) > 0.3 * np.std(some, dtype=np.float64):
                return by_block
            some_too = counted[::_BLOCK, 1::2] > 0
            return y[::_BLOCK, 1::2][some_too].astype(np.float64), x[::_BLOCK, 1::2][some_too].astype(np.float64)
    y, x = image[seen].astype(np.float64), reference[seen].astype(np.float64)
    known = np.isfinite(x) & np.isfinite(y)
    return y[known], x[known]
