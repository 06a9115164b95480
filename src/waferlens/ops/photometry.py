"""Gain and offset between an image and its registered reference, whatever defects the image has.

A line needs both ends. The reference's grey values are parted where its two classes lie farthest apart (Otsu), and the
dark and the bright ones have each their say: a line has to suit most of either, and what is trimmed is judged class by
class. So a mask with 98 % white, on which most pixels say nothing of the gain, is no special case.

Source: Otsu, IEEE Trans. Syst. Man Cybern. 9 (1979) 62 (parting); Rousseeuw, J. Am. Stat. Assoc. 79 (1984) 871 (lines
through pairs of points, least median, trimming).
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float

_BLOCK = 4
"""Side of the blocks whose means are compared [px]. The noise of the reference pulls a least-squares gain towards 0 by
its share of the reference's variance; in the means of 16 pixels that share is a sixteenth."""
_GRID = 64  # blocks looked at along either side: the gain is then known to a hundredth of noise over contrast
_PIXELS = 16_384  # looked at where means of blocks say little
_FEWEST = 512  # with fewer of them every pixel is looked at
_ROUNDS = 12  # of trimming at most
_TRIM = 2.5  # residuals beyond this many robust standard deviations are left out
_PAIRS, _JUDGES = 8, 200  # pixels of a class that lines are drawn through, and those that judge the lines
_SOME = 500  # of a class that these are chosen from
_HOT = 1e-3  # share of the pixels, at either end, that no class is made of
_MAD = 1.4826  # standard deviation of a normal distribution over its median absolute deviation


def gain_offset(
    image: np.ndarray, warped_reference: Float[np.ndarray, "h w"], seen: Bool[np.ndarray, "h w"]
) -> tuple[float, float]:
    """Gain and offset with image = gain * reference + offset, by least trimmed residuals.

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
    middle_x, middle_y = _median(x), _median(y)
    shift_only = 1.0, middle_y - middle_x
    x, y = x - middle_x, y - middle_y
    spread = float(np.abs(x).max())
    if not spread > 1e-6 * max(abs(middle_x), 1e-30):
        return shift_only
    bright = x > _parting(x)
    gain, offset = _start(x, y, bright)
    kept = np.zeros(0, bool)
    for _ in range(_ROUNDS):
        size = np.abs(y - gain * x - offset)
        limits = [_TRIM * _MAD * _median(size[part]) for part in (~bright, bright)]
        now = size <= np.maximum(np.where(bright, limits[1], limits[0]), 1e-6 * float(np.abs(y).max()))
        if kept.size and np.count_nonzero(now != kept) <= x.size // 1000:
            break
        kept = now
        xs, ys = x[kept], y[kept]
        mean_x, mean_y = xs.mean(), ys.mean()
        variance = float(np.square(xs - mean_x).sum())
        if not variance > 0:
            break
        gain = float(((xs - mean_x) * (ys - mean_y)).sum()) / variance
        offset = float(mean_y - gain * mean_x)
    return gain, offset + middle_y - gain * middle_x


def _parting(x: np.ndarray) -> float:
    """The value that parts dark from bright with the greatest variance between the two; some are on either side."""
    ordered = np.sort(x)
    hot = int(_HOT * x.size)
    clipped = ordered.clip(ordered[hot], ordered[-1 - hot])
    if clipped[0] < clipped[-1]:
        ordered = clipped
    below = np.arange(1, x.size)
    between = np.square(np.cumsum(ordered)[:-1] * x.size - below * ordered.sum()) / (below * (x.size - below))
    # nothing can be parted between equals
    return float(ordered[np.argmax(np.where(ordered[1:] > ordered[:-1], between, -1.0))])


def _start(x: np.ndarray, y: np.ndarray, bright: np.ndarray) -> tuple[float, float]:
    """A first line: through one dark and one bright pixel, with the least medians of what it leaves in both classes."""
    ends, judges = [], []
    for part in (~bright, bright):
        some = np.flatnonzero(part)
        some = some[:: max(1, some.size // _SOME)]
        order = some[np.argsort(y[some], kind="stable")]
        ends.append(order[((np.arange(_PAIRS) + 0.5) * order.size / _PAIRS).astype(int)])
        judges.append(order[np.linspace(0, order.size - 1, min(_JUDGES, order.size)).astype(int)])
    low, high = (pair.ravel() for pair in np.meshgrid(*ends))
    gains = (y[high] - y[low]) / (x[high] - x[low])
    offsets = y[low] - gains * x[low]
    rests = [np.abs(y[some] - gains[:, None] * x[some] - offsets[:, None]) for some in judges]
    best = int(np.argmin(sum(np.partition(rest, rest.shape[1] // 2, axis=1)[:, rest.shape[1] // 2] for rest in rests)))
    return float(gains[best]), float(offsets[best])


def _uneven(count: int, size: int) -> np.ndarray:
    """Indices of blocks at uneven distances, lest they meet a pattern at its period."""
    jitter = (0.5 + 0.618034 * np.arange(count)) % 1.0
    starts = ((np.arange(count) + jitter) * ((size - _BLOCK + 1) / count)).astype(np.intp)
    return (starts[:, None] + np.arange(_BLOCK)).ravel()


def _median(values: np.ndarray) -> float:
    """The middle value, the upper one of two: np.median takes three times as long."""
    return float(np.partition(values, values.size // 2)[values.size // 2])


def _sample(image: np.ndarray, reference: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of grey of image and reference, float64: means of blocks, or pixels where blocks would say too little."""
    h, w = image.shape
    down, across = (min(_GRID, n // _BLOCK) for n in (h, w))
    if down * across >= _FEWEST:
        rows, columns = _uneven(down, h), _uneven(across, w)
        y, x, counted = (
            part.take(rows, axis=0).take(columns, axis=1).astype(np.float32) for part in (image, reference, seen)
        )
        counted[~np.isfinite(x + y)] = 0
        means = [cv2.resize(part, (across, down), interpolation=cv2.INTER_AREA) for part in (y, x, counted)]
        whole = means[2] > 0.999
        if np.count_nonzero(whole) >= _FEWEST:
            by_block = means[0][whole].astype(np.float64), means[1][whole].astype(np.float64)
            step = max(1, round((y.size / _PIXELS) ** 0.5))
            part = np.s_[step // 2 :: step, step // 2 :: step]
            single = counted[part] > 0
            by_pixel = y[part][single].astype(np.float64), x[part][single].astype(np.float64)
            if np.std(by_block[1]) > 0.5 * np.std(by_pixel[1]):
                return by_block
            # a pattern finer than the blocks is gone in their means
            if image.size > 2 * _PIXELS:
                return by_pixel
    y, x = image[seen].astype(np.float64), reference[seen].astype(np.float64)
    known = np.isfinite(x) & np.isfinite(y)
    return y[known], x[known]
