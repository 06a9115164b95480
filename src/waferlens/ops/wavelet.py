"""Defects by wavelets: the Haar transform, its modulus at several scales, and what a golden image makes of them (R2).

The steps and symbols are those of S2, 2.3.1.2, in its order: `preprocessed` (median, Sobel), `modulus` (WTM, for every
pixel and scale), `population` (mean and standard deviation of the WTM in every sub-image of the golden image),
`clustering_energy` (WTMS), `interscale_ratio`, `suspects`, and `excess` over what golden images explain. `features`
goes from an image to all that is compared. Where the document leaves something open, the function that decides says
what and why.

numba is imported with this file: import it where it is used, not at start-up.

Source: S2, 2.3.1.2, which tells of C. H. Yeh, F. C. Wu, W. L. Ji, C. Y. Huang, "A wavelet-based approach in detecting
visual defects on semiconductor wafer dies" (2010); modulus and its growth over scales after S. Mallat, S. Zhong,
"Characterization of signals from multiscale edges" (1992).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float
from numba import njit

from waferlens.errors import UsageError
from waferlens.ops.difference import IMAGE_TYPES, plane, same_grid, whole

SCALES = 3
"""Scales of R2 where nothing else is asked for; the document names no number, and two are the fewest with a ratio."""
GRID = (4, 5)
"""Rows and columns of its 20 sub-images; the document does not say how the 20 lie."""

_ONE_SCALE = "scales: a ratio needs at least 2 scales, got 1"


@dataclass(frozen=True, slots=True, eq=False)
class Haar:
    """The orthonormal Haar transform of an image."""

    smooth: Float[np.ndarray, "h w"]
    """What is left after the last level: 2**levels times the mean of each cell [grey]"""
    details: tuple[Float[np.ndarray, "3 h w"], ...]
    """A level each, the finest first: horizontal (upper minus lower), vertical (left minus right), diagonal [grey]"""


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What R2 knows of an image."""

    wtm: Float[np.ndarray, "j h w"]
    """Modulus of the wavelet transform, the finest scale first [grey]"""
    wtms: Float[np.ndarray, "j h w"]
    """Its sum over the neighbourhood [grey]"""
    mean: Float[np.ndarray, "n j"]
    """Mean of the modulus in every sub-image, row by row of the grid [grey]"""
    sd: Float[np.ndarray, "n j"]
    """Standard deviation of the modulus in every sub-image [grey]"""
    grid: tuple[int, int]
    """Rows and columns of sub-images"""

    @property
    def ratio(self) -> Float[np.ndarray, "k h w"]:
        """The interscale ratio of every scale but the coarsest."""
        return interscale_ratio(self.wtms)


# --------------------------------------------------------------------------------------------------- the transform


def haar2d(image: np.ndarray, levels: int) -> Haar:
    """The orthonormal two-dimensional Haar transform, float32.

    Of a cell with a b above c d, smooth is (a + b + c + d) / 2, horizontal (a + b - c - d) / 2, vertical
    (a - b + c - d) / 2 and diagonal (a - b - c + d) / 2; the next level is that of the smooth part. A last row or
    column without a partner is paired with itself, at every level, so that n pixels become ceil(n / 2) cells.

    Args:
        image: `h w`, uint8, uint16 or float32 [grey]
        levels: how often; at most until one cell is left

    Raises:
        UsageError: levels out of range, or an image that cannot be used.
    """
    smooth = plane("image", image, IMAGE_TYPES)
    levels = whole("levels", levels, 1)
    most = max(1, math.ceil(math.log2(max(smooth.shape))))
    if levels > most:
        raise UsageError(f"levels: an image of {' x '.join(map(str, smooth.shape))} pixels has {most}, got {levels}")
    details = []
    for _ in range(levels):
        h, w = ((n + 1) // 2 for n in smooth.shape)
        coarser, detail = np.empty((h, w), np.float32), np.empty((3, h, w), np.float32)
        _cells(_greys(smooth), smooth.shape, coarser, detail)
        coarser.flags.writeable = False
        smooth = coarser
        details.append(detail)
    return Haar(smooth, tuple(details))


def modulus(image: np.ndarray, scales: int) -> Float[np.ndarray, "j h w"]:
    """WTM, the modulus of the Haar transform for every pixel and scale, float32 [grey].

    At scale j it is the root of the summed squares of the three details, over 2**j. The document takes `the absolute
    value of the wavelet coefficients` and calls their squares energy; one number a pixel is the root of that energy.
    Dividing by 2**j makes scales comparable: a step of s has s / 2 at every scale, a slope doubles from scale to
    scale, a line falls to half and a point to a quarter.

    The document wants it for each pixel. So every pixel has a transform about itself, all its scales centred on the
    pixel's lower right corner, and the numbers move with the image; where a cell of `haar2d` is centred, they are
    those of the cell, but the cells themselves fall anywhere. Beyond the border the image goes on with its last
    pixels.

    Args:
        image: `h w`, uint8, uint16 or float32 [grey]
        scales: how many; scale j looks at squares of 2**j pixels

    Raises:
        UsageError: scales out of range, or an image that cannot be used.
    """
    image = plane("image", image, IMAGE_TYPES)
    scales = whole("scales", scales, 1)
    h, w = image.shape
    if 2**scales > 2 * max(h, w):
        raise UsageError(f"scales: squares of {2**scales} pixels are too large for an image of {h} x {w}")
    out = np.empty((scales, h, w), np.float32)
    before, after = 2 ** (scales - 1) - 1, 2 ** (scales - 1)
    means = cv2.copyMakeBorder(image.astype(np.float32), before, after, before, after, cv2.BORDER_REPLICATE)
    for j in range(scales):
        _finer_to_coarser(means, 2**j, before, out[j])
    return out


# --------------------------------------------------------------------------------------------------- steps of R2


def preprocessed(image: np.ndarray, *, median_px: int = 3, sobel: bool = True) -> Float[np.ndarray, "h w"]:
    """Step 2: the median filter takes single pixels off, Sobel's leaves how steep the image is, float32.

    A median of 3 also takes lines of one pixel, and points of two by two.

    The document filters each sub-image; here the image is filtered and then divided, which differs along the inner
    borders only, where a sub-image knows less than the image.

    Args:
        image: `h w`, uint8, uint16 or float32 [grey]
        median_px: side of the median's square: 1 (none), 3 or 5 [px]
        sobel: whether to take the slope [grey / px], or to leave the grey values

    Raises:
        UsageError: another side, or an image that cannot be used.
    """
    image = plane("image", image, IMAGE_TYPES)
    if median_px not in (1, 3, 5):
        raise UsageError(f"median_px must be 1, 3 or 5, got {median_px}")
    if median_px > 1:
        image = cv2.medianBlur(image, median_px)
    if not sobel:
        return image.astype(np.float32)
    # Sobel's weights sum to 8 for a slope of 1
    along_x, along_y = (
        cv2.Sobel(image, cv2.CV_32F, dx, 1 - dx, ksize=3, scale=1 / 8, borderType=cv2.BORDER_REPLICATE) for dx in (1, 0)
    )
    return cv2.magnitude(along_x, along_y)


def clustering_energy(wtm: Float[np.ndarray, "j h w"], radius_px: int = 1) -> Float[np.ndarray, "j h w"]:
    """WTMS, the sum of the modulus over a square about each pixel, at each scale; beyond the border it goes on.

    The document says `the neighbourhood around an image pixel` and not how large; it is the same at every scale here,
    because otherwise a point would keep its sum from scale to scale and could not be told from an edge.

    Args:
        wtm: the modulus [grey]
        radius_px: the square has 2 * radius_px + 1 pixels each way [px]

    Raises:
        UsageError: radius_px is not 0 or a positive whole number.
    """
    radius = whole("radius_px", radius_px, 0)
    out = np.empty(wtm.shape, np.float32)
    for j, scale in enumerate(wtm):
        _square_sums(plane("wtm", scale, (np.float32,)), radius, out[j])
    return out


def interscale_ratio(wtms: Float[np.ndarray, "j h w"]) -> Float[np.ndarray, "k h w"]:
    """log2 of WTMS at the next coarser scale over WTMS at this one, for every scale but the coarsest.

    Below 0 a pixel gathers more at this scale than at the next: points, thin lines, ragged edges. Steps and slopes
    are above 0. The document lets the ratio be negative and gives no formula: it must be a logarithm, and of this
    fraction, because negative is said to mean much more energy at the one scale than at the other. Where there is
    nothing at either scale it is 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log2(wtms[1:] / wtms[:-1])
    return np.where((wtms[1:] == 0) & (wtms[:-1] == 0), np.float32(0), ratio)


def sub_images(shape: tuple[int, int], grid: tuple[int, int] = GRID) -> list[tuple[slice, slice]]:
    """Step 1: the sub-images, row by row of the grid; where sizes do not divide, some are a pixel larger.

    Raises:
        UsageError: there are more rows or columns in the grid than pixels.
    """
    for parts, pixels, name in zip(grid, shape, ("rows", "columns"), strict=True):
        if not 1 <= whole(f"grid {name}", parts, 1) <= pixels:
            raise UsageError(f"grid: {parts} {name} of sub-images do not go into {pixels} pixels")
    rows, columns = (
        [slice(n * part // parts, n * (part + 1) // parts) for part in range(parts)]
        for n, parts in zip(shape, grid, strict=True)
    )
    return [(row, column) for row in rows for column in columns]


def population(
    wtm: Float[np.ndarray, "j h w"], grid: tuple[int, int] = GRID
) -> tuple[Float[np.ndarray, "n j"], Float[np.ndarray, "n j"]]:
    """Mean and standard deviation of the modulus in every sub-image, at every scale [grey]."""
    places = sub_images(wtm.shape[1:], grid)
    mean, sd = np.empty((len(places), len(wtm))), np.empty((len(places), len(wtm)))
    for j, scale in enumerate(wtm):
        scale = plane("wtm", scale, (np.float32,))
        for n, (rows, columns) in enumerate(places):
            mean[n, j], sd[n, j] = _mean_and_sd(scale, rows.start, rows.stop, columns.start, columns.stop)
    return mean, sd


def features(
    image: np.ndarray,
    *,
    scales: int = SCALES,
    grid: tuple[int, int] = GRID,
    median_px: int = 3,
    sobel: bool = True,
    radius_px: int = 1,
) -> Features:
    """Modulus, clustering energy and population of all sub-images of an image, at one go.

    Args:
        image: `h w`, uint8, uint16 or float32 [grey]
        scales: see `modulus`
        grid: rows and columns of sub-images
        median_px: see `preprocessed` [px]
        sobel: see `preprocessed`
        radius_px: see `clustering_energy` [px]

    Raises:
        UsageError: as for the parts.
    """
    wtm = modulus(preprocessed(image, median_px=median_px, sobel=sobel), scales)
    return Features(wtm, clustering_energy(wtm, radius_px), *population(wtm, grid), grid)


def suspects(
    found: Features,
    mean: Float[np.ndarray, "n j"],
    sd: Float[np.ndarray, "n j"],
    *,
    above_sd: float = 1.0,
    ratio_below: float = 0.0,
) -> Bool[np.ndarray, "k h w"]:
    """Steps 3 to 5: pixels whose WTM is above the golden population and whose interscale ratio is below 0.

    Every scale but the coarsest, which has no ratio.

    Args:
        found: of the image
        mean: of the golden population, or populations [grey]
        sd: its standard deviation [grey]
        above_sd: how many standard deviations above the mean; the document's `mean and standard deviation` are 1
        ratio_below: the ratio has to be below this; the document's is 0
    """
    k = len(found.wtm) - 1
    if k < 1:
        raise UsageError(_ONE_SCALE)
    # ratio < limit without a logarithm
    out = found.wtms[1:] < found.wtms[:-1] * np.float32(2.0**ratio_below)
    limits = (mean + above_sd * sd).astype(np.float32)
    for n, (rows, columns) in enumerate(sub_images(out.shape[1:], found.grid)):
        out[:, rows, columns] &= found.wtm[:k, rows, columns] > limits[n, :k, None, None]
    return out


def known_modulus(golden: Features, found: Bool[np.ndarray, "k h w"], reach_px: int) -> Float[np.ndarray, "k h w"]:
    """What a golden image explains: the greatest WTM of its own suspects within reach_px, 0 where there is none [grey].

    Corners and edges of a good die are suspects too. Of several golden images take the maximum, pixel by pixel.

    Args:
        golden: of the golden image
        found: its `suspects`
        reach_px: how far a suspect explains, along rows and along columns: what registration leaves open [px]

    Raises:
        UsageError: shapes differ, or reach_px is not 0 or a positive whole number.
    """
    same_grid("suspects", found[0], golden.wtm[0])
    square = np.ones((2 * whole("reach_px", reach_px, 0) + 1,) * 2, np.uint8)
    modulus_of_suspects = np.where(found, golden.wtm[: len(found)], np.float32(0))
    return np.stack([cv2.dilate(scale, square) for scale in modulus_of_suspects])


def excess(
    found: Features,
    mean: Float[np.ndarray, "n j"],
    sd: Float[np.ndarray, "n j"],
    known: Float[np.ndarray, "k h w"],
    *,
    above_sd: float = 1.0,
    ratio_below: float = 0.0,
) -> Float[np.ndarray, "h w"]:
    """Step 6: how far suspects are above what the golden image explains, the most of all scales; 0 elsewhere, float32.

    In standard deviations of the golden population: a deviation for `waferlens.ops.blobs`, without a sign, because
    the modulus has none. Infinite where the population does not vary at all.

    In the document a suspect is no defect if it `belongs to the non-defective pixel in the golden image`. Taken by
    its word, any suspect that noise leaves in the golden image hides whatever lies there later; so suspects are
    compared by their size, and one is left that is stronger than all golden ones within reach.

    A sub-image with strong patterns has a large mean and standard deviation, and little exceeds them: the method sees
    best where the die is plain, and better there if the grid has more sub-images.

    Args:
        found: of the image
        mean: of the golden population [grey]
        sd: its standard deviation [grey]
        known: of the golden images, see `known_modulus` [grey]
        above_sd: see `suspects`
        ratio_below: see `suspects`

    Raises:
        UsageError: the image is not on the golden grid, or has one scale only.
    """
    k = len(found.wtm) - 1
    if k < 1:
        raise UsageError(_ONE_SCALE)
    same_grid("known", known[0], found.wtm[0])
    out = np.zeros(found.wtm.shape[1:], np.float32)
    for n, (rows, columns) in enumerate(sub_images(out.shape, found.grid)):
        for j in range(k):
            limit = mean[n, j] + above_sd * sd[n, j]
            numbers = np.array([limit, sd[n, j], 2.0**ratio_below], np.float32)
            place = np.array([rows.start, rows.stop, columns.start, columns.stop])
            _raise(out, found.wtm[j], found.wtms[j], found.wtms[j + 1], known[j], numbers, place)
    return out


def _greys(image: np.ndarray) -> tuple[np.ndarray, ...]:
    """The image at the place of its type beside maps of no rows, so that a kernel is compiled once for all types."""
    return tuple(
        image if image.dtype == each else plane("", np.zeros((1, 1), each), IMAGE_TYPES)[:0] for each in IMAGE_TYPES
    )


# --------------------------------------------------------------------------------------------------- the kernels
# Loops with few arrays each: more than a handful, and the compiler no longer proves that they do not overlap.


@njit(nogil=True, cache=True)
def _cells(images, shape, smooth, details):
    """One level: cells of 2 x 2 pixels."""
    h, w = shape
    upper, lower = np.empty(w, np.float32), np.empty(w, np.float32)
    total, difference = np.empty(w + w % 2, np.float32), np.empty(w + w % 2, np.float32)
    for y in range(len(smooth)):
        _grey_row(images, 2 * y, upper)
        _grey_row(images, min(2 * y + 1, h - 1), lower)
        _upper_and_lower(upper, lower, total[:w], difference[:w])
        total[-1], difference[-1] = total[w - 1], difference[w - 1]
        _pairs(total, smooth[y], details[1, y])
        _pairs(difference, details[0, y], details[2, y])


@njit(nogil=True, cache=True)
def _pairs(row, total, difference):
    for x in range(total.size):
        left, right = row[2 * x], row[2 * x + 1]
        total[x] = np.float32(0.5) * (left + right)
        difference[x] = np.float32(0.5) * (left - right)


@njit(nogil=True, cache=True)
def _finer_to_coarser(means, step, before, out):
    """Modulus of the squares of twice `step`, and in place of the means of step x step pixels those of four of them.

    A mean stands at the first pixel of its square.
    """
    h, w = out.shape
    n = means.shape[1] - step
    total, difference = np.empty(n + step, np.float32), np.empty(n + step, np.float32)
    first = before + 1 - step
    for top in range(len(means) - step):
        _upper_and_lower(means[top], means[top + step], total, difference)
        y = top - first
        if 0 <= y < h:
            left, right = slice(first, first + w), slice(first + step, first + step + w)
            _root_of_squares(total[left], total[right], difference[left], difference[right], out[y])
        _mean(total[:n], total[step:], means[top][:n])


@njit(nogil=True, cache=True, fastmath={"reassoc"})
def _mean_and_sd(scale, top, bottom, left, right):
    """Two sums in float64, about the first pixel, so that little is lost where all are alike."""
    about = np.float64(scale[top, left])
    total, squares = 0.0, 0.0
    for y in range(top, bottom):
        row = scale[y][left:right]
        for x in range(row.size):
            away = row[x] - about
            total += away
            squares += away * away
    pixels = (bottom - top) * (right - left)
    mean = total / pixels
    return about + mean, np.sqrt(max(squares / pixels - mean * mean, 0.0))


@njit(nogil=True, cache=True)
def _square_sums(image, radius, out):
    """Sums over squares, added up anew for each: running sums would leave a rest where there is nothing."""
    h, w = out.shape
    line = np.empty(w + 2 * radius, np.float32)
    for y in range(h):
        for x in range(line.size):
            line[x] = 0
        for near in range(y - radius, y + radius + 1):
            _add(image[min(max(near, 0), h - 1)], line[radius:])
        for x in range(radius):
            line[x], line[radius + w + x] = line[radius], line[radius + w - 1]
        for x in range(w):
            out[y, x] = line[x]
        for shift in range(1, 2 * radius + 1):
            _add(line[shift:], out[y])


@njit(nogil=True, cache=True, error_model="numpy")
def _raise(out, wtm, wtms, coarser, known, numbers, place):
    """Raise a part of the map to the excess at one scale."""
    limit, sd, factor = numbers
    top, bottom, left, right = place
    for y in range(top, bottom):
        for x in range(left, right):
            above = max(known[y, x], limit)
            if wtm[y, x] > above and coarser[y, x] < wtms[y, x] * factor:
                out[y, x] = max(out[y, x], (wtm[y, x] - above) / sd)


@njit(nogil=True, cache=True)
def _add(row, out):
    for x in range(min(row.size, out.size)):
        out[x] += row[x]


@njit(nogil=True, cache=True)
def _upper_and_lower(upper, lower, total, difference):
    for x in range(total.size):
        total[x] = upper[x] + lower[x]
        difference[x] = upper[x] - lower[x]


@njit(nogil=True, cache=True)
def _root_of_squares(total, total_right, difference, difference_right, out):
    for x in range(out.size):
        horizontal = difference[x] + difference_right[x]
        vertical = total[x] - total_right[x]
        diagonal = difference[x] - difference_right[x]
        energy = horizontal * horizontal + vertical * vertical + diagonal * diagonal
        out[x] = np.float32(0.25) * np.sqrt(energy)


@njit(nogil=True, cache=True)
def _mean(left, right, out):
    for x in range(out.size):
        out[x] = np.float32(0.25) * (left[x] + right[x])


@njit(nogil=True, cache=True)
def _grey_row(images, y, out):
    """A row of the one image that is there, as float32."""
    if images[0].size:
        _copy(images[0][y], out)
    elif images[1].size:
        _copy(images[1][y], out)
    else:
        _copy(images[2][y], out)


@njit(nogil=True, cache=True)
def _copy(row, out):
    for x in range(out.size):
        out[x] = row[x]
