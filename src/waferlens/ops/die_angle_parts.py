"""Cavity, die and leads of a package, found roughly: places from which their borders are fitted.

All is looked for in the upright package, four times smaller. The cavity is the largest opening of the body. The die
is a rectangle in it, turned by a few degrees at most: the picture is turned step by step, and where the mean along
rows and columns changes most on all four sides at once, there it lies. In brightfield the die is brighter than the
seam around it, in darkfield, where seam and edge shine, it is darker. Leads are landings of gold between die and
cavity: bright in brightfield, and in darkfield darker than the floor they lie on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32

from waferlens.ops.roi_record import homography_of, mapped

SMALL = 4
"""How many times smaller the picture is in which parts are looked for"""
MOST_DEG = 8.0
"""How far a die may be turned in its cavity [deg]"""
MOST_WALL_DEG = 2.25
"""And the cavity in the package [deg]"""
_STEP_DEG = 0.75
_AROUND = 0.05  # of the cavity's sides: how far its wall may lie from the mask's border
_LEAST_OPENING = 0.06  # of the package's area
_LEAST_FILL = 0.82  # of its rectangle that a cavity fills
_LEAST_EDGE = 5.0  # how far a side of the die stands out of what else is in the cavity, in robust deviations


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What was found in a package, as quads in the image: clockwise, begun at the upper left of the upright part."""

    cavity: Float[np.ndarray, "4 2"] | None
    die: Float[np.ndarray, "4 2"] | None
    clear: tuple[float, float, float, float]
    """How far the upper, right, lower and left side of the die stand out, in robust deviations"""
    reason: str = ""
    """Why there is no die."""


def find_parts(image: np.ndarray, quad: Float[np.ndarray, "4 2"], brighter: int) -> Parts:
    """Finds cavity and die.

    Args:
        image: `h w 3` [grey]
        quad: corners of the package [px]
        brighter: 1 where the die is brighter than the seam around it, as in brightfield; -1 in darkfield.
    """
    width = float(np.hypot(*(quad[1] - quad[0])) + np.hypot(*(quad[2] - quad[3]))) / 2
    height = float(np.hypot(*(quad[3] - quad[0])) + np.hypot(*(quad[2] - quad[1]))) / 2
    small, back = _upright(image, quad, width, height)
    cavity, reason = _cavity(small)
    if cavity is None:
        return Parts(None, None, (0.0, 0.0, 0.0, 0.0), reason)
    # the mask's border lies where its limit does: look for the wall itself around it
    centre = cavity.mean(axis=0)
    around = mapped(back, centre + (1 + 2 * _AROUND) * (cavity - centre))
    wide = float(np.hypot(*(around[1] - around[0])))
    high = float(np.hypot(*(around[3] - around[0])))
    picture, out = _upright(image, around, wide, high)
    refined, _ = _search(picture, 1, (0.01, 2.2 * _AROUND), MOST_WALL_DEG)
    in_image = mapped(out, refined)
    wide = float(np.hypot(*(in_image[1] - in_image[0])))
    high = float(np.hypot(*(in_image[3] - in_image[0])))
    inner, back = _upright(image, in_image, wide, high)
    die, clear = _search(inner, brighter, (0.06, 0.5), MOST_DEG)
    reason = ""
    weak = sum(one < _LEAST_EDGE for one in clear)
    if weak > 1:
        told = ", ".join(f"{one:.1f}" for one in clear)
        reason = f"no die in the cavity: its sides would stand out by {told}, and {_LEAST_EDGE:g} is the least"
    return Parts(in_image, mapped(back, die), clear, reason)


def _upright(
    image: np.ndarray, quad: np.ndarray, width: float, height: float
) -> tuple[Float32[np.ndarray, "p q"], Float[np.ndarray, "3 3"]]:
    """A part upright and smaller, all colours added, and the map back to pixels of the image."""
    size = max(8, round(width / SMALL)), max(8, round(height / SMALL))
    there = homography_of(quad, size)
    back = np.linalg.inv(there)
    low = np.maximum(np.floor(quad.min(axis=0)).astype(int) - 8, 0)
    high = np.ceil(quad.max(axis=0)).astype(int) + 8
    window = image[low[1] : high[1], low[0] : high[0]]
    window = cv2.blur(window, (SMALL, SMALL))
    shift = np.array([[1.0, 0.0, low[0]], [0.0, 1.0, low[1]], [0.0, 0.0, 1.0]])
    # an even window's mean lies half a pixel before its anchor
    shift[:2, 2] -= 0.5 * (1 - SMALL % 2)
    picture = cv2.warpPerspective(window, there @ shift, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return picture.astype(np.float32).sum(axis=2), back


def _cavity(small: Float32[np.ndarray, "p q"]) -> tuple[Float[np.ndarray, "4 2"] | None, str]:
    """Corners of the largest opening, in pixels of the small picture."""
    small = cv2.blur(small, (5, 5))
    w = small.shape[1]
    edge = max(3, round(0.04 * w))
    ring = np.ones_like(small, bool)
    ring[2 * edge : -2 * edge, 2 * edge : -2 * edge] = False
    ring[:edge] = ring[-edge:] = False
    ring[:, :edge] = ring[:, -edge:] = False
    body = float(np.median(small[ring]))
    noise = 1.4826 * float(np.median(np.abs(small[ring] - body))) + 1e-3
    inner = small[2 * edge : -2 * edge, 2 * edge : -2 * edge]
    over = inner[inner > body + 4 * noise]
    if over.size < _LEAST_OPENING * small.size:
        return None, "no cavity: nothing in the package is brighter than its body"
    limit = body + max(3 * noise, 0.35 * (float(np.percentile(over, 40)) - body))
    mask = (small > limit).astype(np.uint8)
    mask[:edge] = mask[-edge:] = 0
    mask[:, :edge] = mask[:, -edge:] = 0
    # dirt and glints that touch the cavity are smaller than this
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((7, 7), np.uint8))
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return None, "no cavity: no opening of the body is large enough"
    largest = max(contours, key=cv2.contourArea)
    (x, y), (wide, high), turn = cv2.minAreaRect(largest)
    area = cv2.contourArea(largest) + 0.5 * cv2.arcLength(largest, True)
    if area < _LEAST_OPENING * small.size or area < _LEAST_FILL * (wide + 1) * (high + 1):
        return None, "no cavity: the largest opening of the body is no rectangle"
    return _corners(cv2.boxPoints(((x, y), (wide + 1, high + 1), turn))), ""


def _corners(box: np.ndarray) -> Float[np.ndarray, "4 2"]:
    """Corners clockwise, begun at the upper left, of a rectangle that is nearly upright."""
    box = box.astype(np.float64)
    centre = box.mean(axis=0)
    quad = box[np.argsort(np.arctan2(box[:, 1] - centre[1], box[:, 0] - centre[0]))]
    return np.roll(quad, -int(np.argmin(quad.sum(axis=1))), axis=0)


def _search(
    inner: Float32[np.ndarray, "p q"], brighter: int, reach: tuple[float, float], most_deg: float
) -> tuple[Float[np.ndarray, "4 2"], tuple[float, ...]]:
    """Corners of a rectangle in a small picture, and how far each of its sides stands out.

    Args:
        inner: the picture.
        brighter: 1 where the rectangle is brighter than what is around it, else -1.
        reach: how far from the picture's edges its sides may lie, as shares of the picture.
        most_deg: how far it may be turned [deg]
    """
    h, w = inner.shape
    centre = 0.5 * (w - 1), 0.5 * (h - 1)
    # what is very bright is gold, and crosses the edges
    picture = np.minimum(inner, np.percentile(inner, 90))
    best: tuple[float, float, list[float], tuple[float, ...]] = (-math.inf, 0.0, [], ())
    tried = []
    for turn in np.arange(-most_deg, most_deg + 1e-9, _STEP_DEG):
        turned = cv2.warpAffine(
            picture,
            cv2.getRotationMatrix2D(centre, -turn, 1.0),
            (w, h),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        columns = turned[int(0.22 * h) : int(0.78 * h)].mean(axis=0)
        rows = turned[:, int(0.22 * w) : int(0.78 * w)].mean(axis=1)
        left, right = _sides(columns, brighter, reach)
        upper, lower = _sides(rows, brighter, reach)
        score = sum(one[1] for one in (left, right, upper, lower))
        tried.append(score)
        if score > best[0]:
            best = (
                score,
                float(turn),
                [one[0] for one in (upper, right, lower, left)],
                tuple(one[2] for one in (upper, right, lower, left)),
            )
    place = int(np.argmax(tried))
    turn = best[1]
    if 0 < place < len(tried) - 1:
        bend = tried[place - 1] - 2 * tried[place] + tried[place + 1]
        turn += _STEP_DEG * (0.5 * (tried[place - 1] - tried[place + 1]) / bend if bend < 0 else 0.0)
    y0, x1, y1, x0 = best[2]
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]) - centre
    # the picture was turned by minus the die's angle; turn back
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    back = np.column_stack([corners[:, 0] * cos + corners[:, 1] * sin, corners[:, 1] * cos - corners[:, 0] * sin])
    return back + centre, best[3]


def _sides(
    mean: Float32[np.ndarray, " n"], brighter: int, reach: tuple[float, float]
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Place, strength and distinctness of the first and the last side of a rectangle along a mean."""
    change = brighter * np.diff(mean)
    n = len(change)
    skip, middle = max(1, round(reach[0] * n)), max(3, round(reach[1] * n))
    inside = change[skip:-skip]
    deviation = 1.4826 * float(np.median(np.abs(inside - np.median(inside)))) + 1e-6
    first, last = change[skip:middle], -change[n - middle : n - skip]
    a, b = int(first.argmax()), int(last.argmax())
    return (
        (skip + a + 0.5, float(first[a]), float(first[a]) / deviation),
        (n - middle + b + 0.5, float(last[b]), float(last[b]) / deviation),
    )
