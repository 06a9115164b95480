"""What a package bundle says of images, and what is true of them, in the pixels of the network's input.

The way is that of inspection: light, package, die, boxes. A part that is not found has no detections, and all of its
defects count as missed. The die's angle is that of the device (`prepare.package_device`): a turned die has, on each
image, the score that all images of its device give it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from waferlens.bundle.files import Bundle
from waferlens.bundle.package import PackageSession
from waferlens.bundle.verdict import OK, REVIEW
from waferlens.errors import InputError
from waferlens.evaluate.detections import ANY, FoundHere, TrueHere
from waferlens.evaluate.package_truth import JudgedImage
from waferlens.formats.package_set import Device
from waferlens.load.package import Picture
from waferlens.prepare.beside_reference import UnlikeError, shown_pixels
from waferlens.prepare.package_device import DeviceAngle, SeenAngle, device_angle
from waferlens.prepare.package_geometry import image_quad, placed
from waferlens.prepare.package_part import (
    ROTATE,
    TURNED,
    PackagePart,
    asked_angle,
    examined,
    measures_angle,
    told_classes,
    turned_score,
    unseen,
)
from waferlens.prepare.package_truth import boxes_of, outline_points
from waferlens.prepare.package_verdict import verdict_of
from waferlens.recipe.package import DieAngleSpec

LEAST_SCORE = 0.001
"""Detections below it say nothing and are not kept: average precision needs those above."""


@dataclass(slots=True)
class Seen:
    """Images one by one: what was found, what is there."""

    classes: tuple[str, ...]
    found: list[FoundHere] = field(default_factory=list)
    truth: list[TrueHere] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    """Device of each image."""
    groups: list[str] = field(default_factory=list)
    """What splits go by: a device and its twin."""
    verdicts: dict[str, int] = field(default_factory=dict)
    """Verdict on each device: the worst of its images, and of its die's angle."""
    looked_at: set[str] = field(default_factory=set)
    """Devices of which some image could be looked at."""
    missing: set[str] = field(default_factory=set)
    """Devices without a die: neither good nor with a defect of the die."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Why images could not be looked at, and how many."""
    angles: dict[str, list[SeenAngle]] = field(default_factory=dict)
    """Of each device, the angles that its images tell."""
    true_angles: dict[str, float] = field(default_factory=dict)
    """Angle of each device's die against the datum, where it is known [deg]"""
    turned: dict[str, DeviceAngle] = field(default_factory=dict)
    """Of each device; empty where the angle is not asked for."""

    @property
    def defective(self) -> set[str]:
        """Devices with a defect."""
        return {
            part
            for part, true in zip(self.parts, self.truth, strict=True)
            if true.ignore is not None and not np.all(true.ignore)
        } - self.missing

    @property
    def good(self) -> set[str]:
        """Devices with a die and without a defect."""
        return set(self.parts) - self.defective - self.missing


def look_at(
    session: PackageSession,
    bundle: Bundle,
    images: Iterable[JudgedImage],
    advance: Callable[[int], None] = lambda steps: None,
) -> Seen:
    """Looks at images.

    Args:
        session: Of the bundle.
        bundle: Its recipe says whether the die's angle is measured.
        images: With labels of the classes the bundle tells, and of what is to be ignored.
        advance: Told of each finished image.

    Raises:
        InputError: there is no image, or one cannot be read.
    """
    angle = asked_angle(bundle)
    seen = Seen(told_classes(session, angle))
    for one in images:
        picture, device = one.picture, one.device
        pixels, _ = picture.pixels()
        part = _looked_at(session, picture, pixels, angle)
        advance(1)
        _angle_told(seen, one.part, part, device)
        if picture.light is not None and picture.light not in session.lights:
            continue  # nothing but its angle
        if part.reason:
            seen.reasons[part.reason] = seen.reasons.get(part.reason, 0) + 1
        else:
            seen.looked_at.add(one.part)
        numbers = np.array([seen.classes.index(kind) for kind in part.kinds], np.int64)
        seen.found.append(FoundHere(part.input_boxes, part.scores, numbers))
        seen.truth.append(true_here(picture, part, session, seen.classes, device, pixels.shape))
        seen.parts.append(one.part)
        seen.groups.append(picture.group)
        verdict = verdict_of(part, session, angle).defects
        seen.verdicts[one.part] = max(verdict, seen.verdicts.get(one.part, OK))
        if device is not None and device.missing_die:
            seen.missing.add(one.part)
    if not seen.truth:
        raise InputError("the data", "holds no image to judge on")
    if angle is not None and measures_angle(session, angle):
        _turn(seen, angle.limit_deg)
    return seen


def _looked_at(
    session: PackageSession, picture: Picture, pixels: np.ndarray, angle: DieAngleSpec | None
) -> PackagePart:
    if session.reference is not None:
        try:
            image, _ = shown_pixels(picture, session.reference)
        except UnlikeError as wrong:
            return unseen(wrong.reason)
    else:
        image = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    return examined(session, image, angle, light=picture.light, least=LEAST_SCORE)


def true_here(
    picture: Picture,
    part: PackagePart,
    session: PackageSession,
    classes: Sequence[str],
    device: Device | None,
    shape: Sequence[int],
) -> TrueHere:
    """Truth of an image in the network's input.

    Args:
        picture: With its labels.
        part: Where the package lies; where it was not found, the truth's own place stands in, so that what was missed
            has a size.
        session: Of the bundle.
        classes: That number the labels.
        device: Sizes and contrasts of its defects; None where not told.
        shape: Rows and columns of the image.
    """
    placement = part.placement
    if placement is None:
        quad = image_quad(shape[0], shape[1]) if picture.ic_quad is None else picture.ic_quad
        placement = placed(quad, session.height_px, session.width_px)
    labels = picture.labels
    boxes, left = boxes_of([placement.to_input(outline_points(one)) for one in labels], placement)
    chosen = [one for one, kept in zip(labels, left, strict=True) if kept]
    kinds = [classes.index(one.kind) if one.kind in classes else ANY for one in chosen]
    matched = [_defect_of(one.box, device) for one in chosen]
    return TrueHere(
        boxes[left].reshape(-1, 4),
        np.array(kinds, np.int64),
        np.array([one.ignore for one in chosen], bool),
        np.array([np.nan if one is None else one.length_px for one in matched]),
        np.array([np.nan if one is None or one.contrast is None else one.contrast for one in matched]),
        ["" if one is None else one.kind for one in matched],
    )


def _defect_of(box: Sequence[float], device: Device | None) -> Any:
    """The device's defect with this box: both come from one mask. None where it is told otherwise."""
    if device is None:
        return None
    near = [one for one in device.defects if np.allclose(one.box, box, atol=1.0)]
    return near[0] if near else None


def _angle_told(seen: Seen, name: str, part: PackagePart, device: Device | None) -> None:
    """Notes the angle that an image tells of its device, and the true one."""
    one = part.angle
    if one is None or one.angle_deg is None or one.low is None or one.high is None:
        return
    seen.angles.setdefault(name, []).append(SeenAngle(one.light, one.angle_deg, one.low, one.high))
    if device is not None and device.theta_die_deg is not None:
        of_datum = {"cavity": device.theta_cavity_deg, "leads": device.theta_leads_deg}.get(one.datum, 0.0)
        seen.true_angles[name] = device.theta_die_deg - of_datum


def _turn(seen: Seen, limit_deg: float) -> None:
    """Judges the angle of each device, and gives what its images tell of a turned die the score of that."""
    seen.turned = {name: device_angle(seen.angles.get(name, []), limit_deg) for name in seen.verdicts}
    for name, one in seen.turned.items():
        seen.verdicts[name] = max(seen.verdicts[name], one.verdict)
    number = seen.classes.index(ROTATE)
    for place, name in enumerate(seen.parts):
        found, turned = seen.found[place], seen.turned[name]
        mine = found.kinds == number
        if turned.angle is None or not mine.any():
            continue
        scores = np.array(found.scores, np.float64)
        scores[mine] = turned_score(turned.angle, limit_deg)
        if turned.verdict == REVIEW:  # of lights that contradict each other, too
            scores[mine] = np.minimum(scores[mine], TURNED)
        order = np.argsort(-scores, kind="stable")
        seen.found[place] = FoundHere(found.boxes[order], scores[order], found.kinds[order])
