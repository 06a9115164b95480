"""A package found by adaptive threshold and the rectangle about its contour: the method of S2, its failures answered.

Grey is compared with the mean of its neighbourhood, contours above an area are smoothed to polygons, the smallest
rectangle about each is taken, and the one above an area is the package. S2's script ends with an error where there
is no such rectangle and takes the last where there are several; here both are answers. Inside a dark body, farther
from its border than half a neighbourhood, grey is its own mean, so the threshold shows the border as a frame: its
outer contour is the package, what lies within belongs to it.

Source: S2, region of interest by OpenCV.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from waferlens.ops.illumination import NAMES, sort_light, too_dark
from waferlens.ops.roi_record import CROP_PX, Roi, angle_of, cut_sides, homography_of, no_roi, ordered

BLOCK_PX, CONSTANT_GREY = 151, 3
"""Side of the neighbourhood [px], and how much darker than its mean the foreground is [grey]"""
LEAST_CONTOUR_PX, LEAST_RECTANGLE_PX = 35_000.0, 100_000.0
"""Areas of a contour and of the rectangle about it that are a package [px²]"""
SMOOTHING = 0.01
"""Of a contour's length: how far the polygon may leave it"""


@dataclass(frozen=True, slots=True)
class OpencvSettings:
    """What the method can be told; the recipe `roi-opencv` says the same."""

    block_px: int = BLOCK_PX
    """Side of the neighbourhood [px]"""
    constant_grey: float = CONSTANT_GREY
    """How much darker than its mean the foreground is [grey]"""
    least_contour_px: float = LEAST_CONTOUR_PX
    """Of a contour of a package [px²]"""
    least_rectangle_px: float = LEAST_RECTANGLE_PX
    """Of the rectangle about it [px²]"""
    smoothing: float = SMOOTHING
    """Of a contour's length: how far the polygon may leave it"""


def threshold_mask(
    image: np.ndarray, block_px: int = BLOCK_PX, constant_grey: float = CONSTANT_GREY
) -> UInt8[np.ndarray, "h w"]:
    """What is darker than its neighbourhood: 255, else 0.

    Args:
        image: `h w` or `h w 3` of 8 bits, red, green, blue [grey]
        block_px: side of the neighbourhood, odd [px]
        constant_grey: how much darker than its mean [grey]
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    return cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY_INV, block_px, constant_grey)


def roi_opencv(
    image: UInt8[np.ndarray, "h w 3"],
    *,
    light: str | None = None,
    size_px: tuple[int, int] = CROP_PX,
    settings: OpencvSettings | None = None,
) -> Roi:
    """The package in an image, by thresholds.

    Args:
        image: red, green, blue [grey]
        light: `bf`, `dfw` or `dfb` if it is known; an image of another light is refused.
        size_px: width and height of the upright crop [px]
        settings: what else the method can be told.
    """
    told = settings or OpencvSettings()
    wrong = wrong_light(image, light)
    if wrong:
        return no_roi("opencv", wrong, size_px)
    contours, _ = cv2.findContours(
        threshold_mask(image, told.block_px, told.constant_grey), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    large = [one for one in contours if cv2.contourArea(one) > told.least_contour_px]
    rectangles = []
    for contour in large:
        polygon = cv2.approxPolyDP(contour, told.smoothing * cv2.arcLength(contour, True), True)
        rectangle = cv2.minAreaRect(polygon)
        area = rectangle[1][0] * rectangle[1][1]
        if area > told.least_rectangle_px:
            rectangles.append((area, cv2.contourArea(contour) / area, rectangle))
    if not rectangles:
        areas = sorted((cv2.contourArea(one) for one in contours), reverse=True)
        most = (
            f"the largest dark contour has {areas[0]:,.0f} px²" if areas else "nothing is darker than its surroundings"
        )
        return no_roi(
            "opencv",
            f"no chip: no contour above {told.least_contour_px:,.0f} px² in a rectangle above "
            f"{told.least_rectangle_px:,.0f} px² ({most})",
            size_px,
        )
    rectangles.sort(key=lambda one: -one[0])
    area, share, rectangle = rectangles[0]
    quad = ordered(cv2.boxPoints(rectangle).astype(np.float64), size_px)
    reason = ""
    if len(rectangles) > 1:
        reason = f"{len(rectangles)} chips: {', '.join(f'{one[0]:,.0f}' for one in rectangles)} px²; show one"
    cut = cut_sides(quad, image.shape)
    if cut and not reason:
        reason = f"the chip is cut by the {' and '.join(cut)} edge of the image"
    return Roi(
        "opencv", quad, homography_of(quad, size_px), size_px, float(np.clip(share, 0, 1)), reason, angle_of(quad)
    )


def wrong_light(image: np.ndarray, light: str | None) -> str:
    """Why an image is not of the light that is said, or too dark to show anything; empty where it is fine."""
    told = sort_light(image)
    if dark := too_dark(told.means):
        return dark
    if light is not None and told.light is not None and told.light != light:
        colours = ", ".join(f"{one:.1f}" for one in told.means)
        return f"{NAMES[light]} is said, but its mean colours {colours} are those of {NAMES[told.nearest]}"
    return ""
