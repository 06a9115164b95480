"""How high a die is, and which levels stand on it: plateaus of its height map that fill rectangles."""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np

from waferlens.ops.die_lattice import Box, half_height
from waferlens.records import Die, Product

CLEAR_UM = 12.0
"""Left out along the border of a site: pixels there are of two kinds [um]"""
_LEAST_LEVEL_UM = 30.0  # between the tops of two levels; bumps are lower
_LEAST_LEVEL_SIDE_UM = 200.0
_LEVEL_FILL = 0.8  # of its rectangle; arrays of bumps fill a third
_LEVEL_SAMPLES = 20_000  # pixels of a site that its levels are told from


def measured_die(height_um: np.ndarray, box: Box, pitch_um: float, product: Product | None) -> tuple[Die, str]:
    """A present die with its levels; unsure where its height says that it is none."""
    x0, y0, x1, y1 = inner_pixels(box, pitch_um, height_um.shape, CLEAR_UM)
    heights = height_um[y0:y1, x0:x1]
    step = max(1, math.isqrt(heights.size // _LEVEL_SAMPLES))
    sample = heights[::step, ::step]
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return Die(box, "present"), "its height is not known"
    middle = float(np.median(sample))
    if product is not None and middle < 0.5 * product.die_thickness_um:
        return (
            Die(box, "unsure"),
            f"looks like a die, but is {middle:.0f} um high, and one is {product.die_thickness_um:g} um thick",
        )
    cuts = _steps(sample, product)
    levels: list[tuple[float, float, float, float, float]] = []
    outer = box
    area = (x0, y0, x1, y1)
    for number in range(len(cuts) + 1):
        if number:
            inner = _level_box(height_um, cuts[number - 1], outer, area, pitch_um)
            if inner is None:
                break
            outer = inner
        upper = cuts[number] if number < len(cuts) else math.inf
        top = _top(height_um, outer, pitch_um, cuts[number - 1] if number else -math.inf, upper)
        if top is None:
            break
        levels.append((*outer, top))
    if not levels:
        return Die(box, "present", middle, ((*box, middle),)), ""
    if product is not None and len(levels) < len(product.level_tops_um):
        # which level is on top of what is seen is known, but not how high the stack is
        return Die(
            box, "present", None, tuple(levels)
        ), f"{len(levels)} of its {len(product.level_tops_um)} levels seen"
    return Die(box, "present", levels[-1][4], tuple(levels)), ""


def _steps(sample: np.ndarray, product: Product | None) -> list[float]:
    """Heights that part the levels of a die, rising."""
    if product is not None:
        tops = product.level_tops_um
        # the die as a whole may stand higher or lower than it was drawn: by what its most frequent height says
        nearest = min(tops, key=lambda top: abs(top - float(np.median(sample))))
        shift = float(np.clip(np.median(sample) - nearest, -0.25 * tops[0], 0.25 * tops[0]))
        return [0.5 * (low + high) + shift for low, high in pairwise(tops)]
    low, high = (float(value) for value in np.percentile(sample, (1, 99)))
    if high - low < _LEAST_LEVEL_UM:
        return []
    counts = np.bincount(((sample - low + 20) / 2).clip(0, (high - low + 40) / 2).astype(int)).astype(np.float64)
    smooth = cv2.GaussianBlur(counts[None], (0, 0), 3.0)[0]  # 6 um
    peaks = [
        place
        for place in range(1, len(smooth) - 1)
        if smooth[place] >= smooth[place - 1] and smooth[place] > smooth[place + 1]
        and counts[max(0, place - 6) : place + 7].sum() >= 0.02 * sample.size
    ]  # fmt: skip
    apart: list[int] = []
    for peak in peaks:
        if apart and (peak - apart[-1]) * 2 < _LEAST_LEVEL_UM:
            if smooth[peak] > smooth[apart[-1]]:
                apart[-1] = peak
        else:
            apart.append(peak)
    return [low - 20 + (first + second) for first, second in pairwise(apart)]


def _level_box(
    height_um: np.ndarray, cut_um: float, outer: Box, area: tuple[int, int, int, int], pitch_um: float
) -> Box | None:
    """The rectangle of what is higher than a cut, if it is one; its edges where the image is cut are those outside."""
    x0, y0, x1, y1 = area
    with np.errstate(invalid="ignore"):
        above = height_um[y0:y1, x0:x1] > cut_um
    columns, rows = above.sum(axis=0), above.sum(axis=1)
    if columns.max(initial=0) * pitch_um < _LEAST_LEVEL_SIDE_UM:
        return None
    (left, right), (top, bottom) = half_height(columns), half_height(rows)
    filled = above[round(top) : round(bottom), round(left) : round(right)]
    if min(right - left, bottom - top) * pitch_um < _LEAST_LEVEL_SIDE_UM or filled.mean() < _LEVEL_FILL:
        return None
    h, w = height_um.shape
    found = [(x0 + left) * pitch_um, (y0 + top) * pitch_um, (x0 + right) * pitch_um, (y0 + bottom) * pitch_um]
    at_border = (x0 + left < 1.5, y0 + top < 1.5, x0 + right > w - 1.5, y0 + bottom > h - 1.5)
    # where the die goes on beyond the image nobody knows its level's edge: as far inside as on the opposite side
    inset = [abs(found[edge] - outer[edge]) for edge in range(4)]
    for edge, opposite in ((0, 2), (1, 3), (2, 0), (3, 1)):
        if at_border[edge]:
            sign = 1 if edge < 2 else -1
            found[edge] = outer[edge] + sign * (inset[opposite] if not at_border[opposite] else 0.0)
    return (found[0], found[1], found[2], found[3])


def _top(height_um: np.ndarray, box: Box, pitch_um: float, low: float, high: float) -> float | None:
    """Median height of a level: of the pixels in its box between two cuts."""
    x0, y0, x1, y1 = inner_pixels(box, pitch_um, height_um.shape, CLEAR_UM)
    heights = height_um[y0:y1, x0:x1]
    step = max(1, math.isqrt(heights.size // _LEVEL_SAMPLES))
    heights = heights[::step, ::step]
    with np.errstate(invalid="ignore"):
        own = heights[(heights > low) & (heights <= high)]
    return float(np.median(own)) if own.size else None


def inner_pixels(box: Box, pitch_um: float, shape: tuple[int, int], clear_um: float) -> tuple[int, int, int, int]:
    """The pixels well inside a box: x0 y0 x1 y1; empty where there are none [px]"""
    h, w = shape
    x0, y0 = (max(0, math.ceil((edge + clear_um) / pitch_um)) for edge in box[:2])
    x1, y1 = math.floor((box[2] - clear_um) / pitch_um), math.floor((box[3] - clear_um) / pitch_um)
    return x0, y0, min(w, x1), min(h, y1)
