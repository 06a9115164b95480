"""One image of a package, looked at whole: its light, where the package lies, how its die is turned, what is found.

Inspection and evaluation both go this way. Where a recipe measures the die's angle, the angle decides what is a turned
die, whether the network knows that class or not: one that sees a few pixels of tilt is only asked about cracks. The
score of such a finding is the probability that the angle is beyond the limit, of a normal distribution with the 90 %
interval of the fit: above `TURNED` where the whole interval is beyond it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from scipy.special import ndtri

from waferlens.bundle.files import Bundle
from waferlens.bundle.package import Boxes, PackageSession
from waferlens.ops.die_angle import COVERAGE, DieAngle, die_angle
from waferlens.ops.illumination import SortedLight, sort_light
from waferlens.ops.roi_edges import Located, locate_package
from waferlens.ops.roi_record import CROP_PX
from waferlens.prepare.package_findings import in_image, prepared
from waferlens.prepare.package_geometry import Placement, box_around
from waferlens.recipe.package import DieAngleSpec

ROTATE = "rotate"
"""Class of a turned die."""
TURNED = (1 + COVERAGE) / 2
"""Score above which a die is turned for certain: then its whole interval is beyond the limit."""


@dataclass(frozen=True, slots=True, eq=False)
class PackagePart:
    """What one image tells of a part."""

    light: SortedLight | None
    """None for a grey image, whose light is not sorted."""
    located: Located | None
    """None where the network is shown whole images."""
    angle: DieAngle | None
    """In whatever light; None where it is not asked for, or there is no package."""
    placement: Placement | None
    """Where the image lies in the network's input; None where there is no package."""
    kinds: tuple[str, ...]
    """Class of each finding, by falling score."""
    scores: Float64[np.ndarray, " n"]
    boxes: Float64[np.ndarray, "n 4"]
    """Upright boxes in pixels of the image [px]"""
    input_boxes: Float64[np.ndarray, "n 4"]
    """In pixels of the network's input, where the package is upright [px]"""
    quads: Float64[np.ndarray, "n 4 2"]
    """Corners in the image [px]"""
    reason: str = ""
    """Why the network was shown nothing; empty where it was."""


def asked_angle(bundle: Bundle) -> DieAngleSpec | None:
    """What a bundle's recipe says of the die's angle."""
    told = bundle.recipe.get("angle")
    return None if told is None else DieAngleSpec(**told)


def measures_angle(session: PackageSession, angle: DieAngleSpec | None) -> bool:
    """Whether the die's angle decides what is a turned die: it is measured on upright packages only."""
    return angle is not None and session.region == "roi"


def told_classes(session: PackageSession, angle: DieAngleSpec | None) -> tuple[str, ...]:
    """Classes that an image is told by: the network's in their order, and the turned die's where its angle is measured.

    Args:
        session: Of the bundle.
        angle: Whether and how the die's angle is measured.
    """
    if not measures_angle(session, angle) or ROTATE in session.classes:
        return session.classes
    return (*session.classes, ROTATE)


def examined(
    session: PackageSession,
    image: UInt8[np.ndarray, "h w 3"],
    angle: DieAngleSpec | None = None,
    *,
    light: str | None = None,
    pixel_um: float | None = None,
    least: float | Sequence[float] | None = None,
) -> PackagePart:
    """Looks at one image.

    Args:
        session: Of the bundle.
        image: Red, green, blue; where the network is shown a reference beside it, as `prepare.beside_reference` makes
            it [grey]
        angle: Whether and how the die's angle is measured.
        light: `bf`, `dfw` or `dfb` if it is known; sorted by colour if None.
        pixel_um: Size of a pixel, for the die's offset [um]
        least: Score, or one a class of the network, from which a box is a finding; `score_ng` if None.
    """
    classes = told_classes(session, angle)
    sorted_light = None if session.reference else sort_light(image)  # beside a reference its channels are no colours
    known = light or (None if sorted_light is None else sorted_light.light)
    located, turned = None, None
    if session.region == "roi" and sorted_light is not None:
        if known is None:
            return _nothing(sorted_light, None, sorted_light.reason)
        lights = ", ".join(session.lights)
        other = "" if known in session.lights else f"taken in light {known}; the bundle knows {lights}"
        if other and angle is None:
            return _nothing(sorted_light, None, other)
        located = locate_package(image, light=known, size_px=CROP_PX)
        if not located.roi.found or located.roi.quad is None:
            return _nothing(sorted_light, located, other or located.roi.reason)
        if angle is not None:
            turned = die_angle(image, datum=angle.datum, light=known, package=located, pixel_um=pixel_um)
        if other:  # the angle needs no network
            return _nothing(sorted_light, located, other, turned)
    quad = None if located is None else located.roi.quad
    shown, placement = prepared(session, image, quad)
    found = session.findings(shown[None], least)[0]
    if turned is not None and angle is not None:
        found = with_turned_die(found, turned, angle, placement, classes.index(ROTATE))
    told = in_image(classes, found, placement)
    return PackagePart(
        sorted_light, located, turned, placement, told.kinds, told.scores, told.boxes, found.boxes, told.quads
    )


def with_turned_die(found: Boxes, turned: DieAngle, angle: DieAngleSpec, placement: Placement, number: int) -> Boxes:
    """Findings of the network, with the turned die as its angle tells it in place of the network's own.

    Args:
        found: Of the network, without masks.
        turned: As measured; where it was not, no die is told to be turned.
        angle: Its limit.
        placement: Where the image lies in the input.
        number: Of the class.
    """
    others = found.kinds != number
    boxes, scores, kinds = found.boxes[others], found.scores[others], found.kinds[others]
    angle_deg, low, high = turned.angle_deg, turned.low, turned.high
    if angle_deg is not None and low is not None and high is not None and turned.die_quad is not None:
        box = box_around(placement.to_input(turned.die_quad))
        score = turned_score((angle_deg, low, high), angle.limit_deg)
        place = int(np.searchsorted(-scores, -score))
        boxes = np.insert(boxes, place, box, axis=0)
        scores = np.insert(scores, place, score)
        kinds = np.insert(kinds, place, number)
    return Boxes(boxes, scores, _numbers(kinds))


def turned_score(angle: tuple[float, float, float], limit_deg: float) -> float:
    """The score of a turned die: the probability that its angle lies beyond the limit.

    Args:
        angle: it, and both ends of its 90 % interval [deg]
        limit_deg: greatest angle that is good [deg]
    """
    value, low, high = angle
    return beyond(value, (high - low) / (2 * float(ndtri(TURNED))), limit_deg)


def beyond(angle_deg: float, sigma_deg: float, limit_deg: float) -> float:
    """Probability that an angle lies beyond a limit on either side."""
    above = 0.5 * math.erfc((limit_deg - angle_deg) / (math.sqrt(2.0) * sigma_deg))
    below = 0.5 * math.erfc((limit_deg + angle_deg) / (math.sqrt(2.0) * sigma_deg))
    return min(1.0, above + below)


def _numbers(kinds: np.ndarray) -> Int64[np.ndarray, " n"]:
    return kinds.astype(np.int64)


def unseen(reason: str) -> PackagePart:
    """What an image tells that could not be looked at at all.

    Args:
        reason: Why.
    """
    return _nothing(None, None, reason)


def _nothing(
    light: SortedLight | None, located: Located | None, reason: str, angle: DieAngle | None = None
) -> PackagePart:
    empty = np.zeros((0, 4))
    return PackagePart(light, located, angle, None, (), np.zeros(0), empty, empty, np.zeros((0, 4, 2)), reason)
