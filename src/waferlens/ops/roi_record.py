"""Where a package lies in an image, whatever method found it, and how it is cut out upright.

Corners are those of the outline: top left, top right, bottom right, bottom left of the upright part. The homography
maps pixels of the image to pixels of the crop, whose outer edges are the outline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float

from waferlens.errors import UsageError

CROP_PX = (581, 1090)
"""Width and height of the upright crop unless told otherwise [px]"""


@dataclass(frozen=True, slots=True, eq=False)
class Roi:
    """A package in an image, or why there is none."""

    method: str
    """`opencv`, `edges`, or the name of a network"""
    quad: Float[np.ndarray, "4 2"] | None
    """Corners x, y: top left, top right, bottom right, bottom left of the upright part; None if unknown [px]"""
    homography: Float[np.ndarray, "3 3"] | None
    """From pixels of the image to those of the crop; None where there is no quad"""
    size_px: tuple[int, int]
    """Width and height of the crop [px]"""
    score: float
    """How well the method's own picture of a package fits, 0 to 1"""
    reason: str = ""
    """Why it is not to be used; empty where it is."""
    angle_deg: float | None = None
    """Of the package in the image, counter-clockwise as seen, in -180..180 [deg]"""
    angle_sigma_deg: float | None = None
    """Its standard deviation, where the method knows it [deg]"""
    corner_sigma_px: float | None = None
    """Root mean square distance of a corner from where it is, as the fit expects it [px]"""
    upright: str = "ambiguous"
    """What told top from bottom; `ambiguous` where nothing did: then the angle is told with the smaller turn."""
    notes: tuple[str, ...] = ()
    network_score: float | None = None
    """Of the box that a network drew, 0 to 1; None where there is no network"""
    steep_px: float | None = None
    """Steepness of the border's slope as lines were set on it; None in darkfield and where none were [px]"""

    @property
    def found(self) -> bool:
        """Whether there is one package, whole and clear."""
        return not self.reason

    def crop(self, image: np.ndarray) -> np.ndarray:
        """The package cut out upright.

        Raises:
            UsageError: there is none.
        """
        if self.homography is None:
            raise UsageError(f"no package to cut out: {self.reason}")
        return cv2.warpPerspective(
            image, self.homography, self.size_px, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )

    def as_json(self) -> dict[str, Any]:
        """The record as a dictionary that JSON can hold."""
        return {
            "method": self.method,
            "quad": None if self.quad is None else [[round(float(x), 3), round(float(y), 3)] for x, y in self.quad],
            "homography": None if self.homography is None else self.homography.tolist(),
            "size_px": list(self.size_px),
            "score": round(self.score, 4),
            "reason": self.reason,
            "angle_deg": self.angle_deg,
            "angle_sigma_deg": self.angle_sigma_deg,
            "corner_sigma_px": self.corner_sigma_px,
            "upright": self.upright,
            "notes": list(self.notes),
            "network_score": None if self.network_score is None else round(self.network_score, 4),
            "steep_px": None if self.steep_px is None else round(self.steep_px, 2),
        }


def no_roi(method: str, reason: str, size_px: tuple[int, int] = CROP_PX) -> Roi:
    """The answer where no package is found."""
    return Roi(method, None, None, size_px, 0.0, reason)


def homography_of(quad: Float[np.ndarray, "4 2"], size_px: tuple[int, int]) -> Float[np.ndarray, "3 3"]:
    """Maps a quad onto the outer edges of a crop."""
    w, h = size_px
    target = np.array([(-0.5, -0.5), (w - 0.5, -0.5), (w - 0.5, h - 0.5), (-0.5, h - 0.5)])
    return solve_homography(np.asarray(quad, np.float64), target)


def solve_homography(source: Float[np.ndarray, "4 2"], target: Float[np.ndarray, "4 2"]) -> Float[np.ndarray, "3 3"]:
    """The projective map that takes four points to four others, in double precision."""
    rows, right = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(right)), 1.0).reshape(3, 3)


def mapped(homography: Float[np.ndarray, "3 3"], points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Points after a projective map."""
    flat = np.column_stack([points, np.ones(len(points))]) @ homography.T
    return flat[:, :2] / flat[:, 2:]


def angle_of(quad: Float[np.ndarray, "4 2"]) -> float:
    """Angle of a quad, counter-clockwise as seen, from its four sides by their lengths [deg]"""
    # all four sides, each turned to where the top side points, weighed by length
    way = (quad[1] - quad[0]) + (quad[2] - quad[3])
    down = (quad[3] - quad[0]) + (quad[2] - quad[1])
    along = way + np.array([down[1], -down[0]])
    return math.degrees(math.atan2(-along[1], along[0]))


def ordered(corners: Float[np.ndarray, "4 2"], size_px: tuple[int, int]) -> Float[np.ndarray, "4 2"]:
    """Corners clockwise as seen, begun so that the sides fit the crop's and the turn is the smaller of the two."""
    centre = corners.mean(axis=0)
    around = np.arctan2(corners[:, 1] - centre[1], corners[:, 0] - centre[0])
    quad = corners[np.argsort(around)]  # y down: rising angle is clockwise as seen
    tall = size_px[1] >= size_px[0]
    turns = [np.roll(quad, shift, axis=0) for shift in range(4)]
    fitting = [one for one in turns if (np.hypot(*(one[3] - one[0])) >= np.hypot(*(one[1] - one[0]))) == tall] or turns
    return min(fitting, key=lambda one: abs(angle_of(one)))


def turned_over(quad: Float[np.ndarray, "4 2"]) -> Float[np.ndarray, "4 2"]:
    """The same corners of a part that stands on its head."""
    return np.roll(quad, 2, axis=0)


def cut_sides(quad: Float[np.ndarray, "4 2"], shape: tuple[int, ...], margin_px: float = 1.0) -> list[str]:
    """Which edges of the image cut the outline."""
    h, w = shape[:2]
    x, y = quad[:, 0], quad[:, 1]
    sides = {
        "left": x.min() < -0.5 + margin_px,
        "right": x.max() > w - 0.5 - margin_px,
        "upper": y.min() < -0.5 + margin_px,
        "lower": y.max() > h - 0.5 - margin_px,
    }
    return [name for name, cut in sides.items() if cut]
