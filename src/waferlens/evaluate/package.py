"""A package bundle against truth, on the way inspection goes: package found, die measured, boxes of the network.

Boxes are judged in the network's input, where the package is upright: there an outline has its closest box. A part that
is not found has no detections, and all of its defects count as missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from waferlens.bundle.files import Bundle
from waferlens.bundle.package import PackageSession
from waferlens.errors import InputError
from waferlens.evaluate.detections import ANY, FoundHere, TrueHere, evaluate_detections
from waferlens.formats import package_set
from waferlens.formats.package_set import Device
from waferlens.load.package import Picture, is_package_set, read_pictures
from waferlens.prepare.package_geometry import image_quad, placed
from waferlens.prepare.package_part import PackagePart, asked_angle, examined, told_classes
from waferlens.prepare.package_truth import boxes_of, outline_points

LEAST_SCORE = 0.001
"""Detections below it say nothing and are not kept: average precision needs those above."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Images to judge on, and the devices on them where a package set tells them."""

    pictures: list[Picture]
    devices: dict[str, Device]
    """By the name of the picture."""

    def device(self, picture: Picture) -> Device | None:
        """What is known of the device on an image."""
        return self.devices.get(picture.name)


def read_judged(
    data: Path, session: PackageSession, bundle: Bundle, keep: Callable[[str], bool] = lambda group: True
) -> Judged:
    """The images of a folder that a bundle is judged on: those in its lights, of groups that are wanted.

    Args:
        data: A package set, DeepPCB, or a folder of labels.
        session: Of the bundle.
        bundle: Its recipe says whether turned dies are told, too.
        keep: Groups that are wanted.

    Raises:
        InputError: there is none, or the folder tells no truth.
        UsageError: its classes are not the bundle's.
    """
    pictures = list(read_pictures(data, told_classes(session, asked_angle(bundle)), session.lights, keep))
    if not pictures:
        raise InputError(data, "holds no image that is asked for")
    devices: dict[str, Device] = {}
    if is_package_set(data):
        for number in package_set.devices(data):
            device = package_set.read_device(data, number)
            devices |= {device.images[light].stem: device for light in session.lights}
    return Judged(pictures, devices)


def evaluate_package(
    session: PackageSession,
    bundle: Bundle,
    pictures: Iterable[Picture],
    devices: Callable[[Picture], Device | None] = lambda picture: None,
    advance: Callable[[int], None] = lambda steps: None,
    **options: Any,
) -> dict[str, Any]:
    """Judges a bundle on images whose truth is known.

    Args:
        session: Of the bundle.
        bundle: Its recipe says whether the die's angle is measured.
        pictures: Images with labels of the classes the bundle tells, and of what is to be ignored.
        devices: The device on an image, for sizes and contrasts of its defects; None where these are not told.
        advance: Told of each finished image.
        options: Of `evaluate.detections.evaluate_detections`.

    Returns:
        What `evaluate_detections` tells, and `parts`: how many were found, and why others were not; with the die's
        angle, `angle` tells its errors where the truth has one.

    Raises:
        InputError: there is no image.
    """
    angle = asked_angle(bundle)
    classes = told_classes(session, angle)
    found, truth, groups = [], [], []
    reasons: dict[str, int] = {}
    turns: list[tuple[float, float, float, float]] = []
    for picture in pictures:
        pixels, _ = picture.pixels()
        image = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
        part = examined(session, image, angle, light=picture.light, least=LEAST_SCORE)
        device = devices(picture)
        if part.reason:
            reasons[part.reason] = reasons.get(part.reason, 0) + 1
        numbers = np.array([classes.index(kind) for kind in part.kinds], np.int64)
        found.append(FoundHere(part.input_boxes, part.scores, numbers))
        truth.append(true_here(picture, part, session, classes, device, image.shape))
        groups.append(picture.group)
        turn = _turn(part, device)
        if turn is not None:
            turns.append(turn)
        advance(1)
    if not truth:
        raise InputError("the data", "holds no image to judge on")
    told = evaluate_detections(found, truth, groups, classes=classes, threshold=float(session.least_score), **options)
    lost = dict(sorted(reasons.items(), key=lambda one: -one[1]))
    told["parts"] = {"found": len(truth) - sum(reasons.values()), "not_found": lost}
    if turns:
        told["angle"] = angle_errors(turns)
    return told


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


def _turn(part: PackagePart, device: Device | None) -> tuple[float, float, float, float] | None:
    """True angle, measured angle and its interval; None where one is missing."""
    if part.angle is None or part.angle.angle_deg is None or device is None or device.theta_die_deg is None:
        return None
    low, high = part.angle.low, part.angle.high
    if low is None or high is None:
        return None
    return device.theta_die_deg, part.angle.angle_deg, low, high


def angle_errors(turns: Sequence[tuple[float, float, float, float]]) -> dict[str, float | int]:
    """Errors of measured angles against the truth, and how often their 90 % intervals hold it."""
    true, measured, low, high = np.array(turns, np.float64).T
    error = measured - true
    return {
        "dies": len(turns),
        "bias_deg": float(error.mean()),
        "rms_deg": float(np.sqrt(np.mean(error**2))),
        "p95_deg": float(np.quantile(np.abs(error), 0.95)),
        "coverage_90": float(np.mean((low <= true) & (true <= high))),
    }


def package_lines(result: Mapping[str, Any]) -> list[str]:
    """What is told beside the detections, for people."""
    parts = result["parts"]
    lines = [f"  packages found: {parts['found']} of {result['images']}"]
    lines += [f"    {count} x {reason}" for reason, count in parts["not_found"].items()]
    if "angle" in result:
        told = result["angle"]
        lines.append(
            f"  die angle of {told['dies']}: bias {told['bias_deg']:+.4f} deg, rms {told['rms_deg']:.4f}, 95 % within "
            f"{told['p95_deg']:.4f}; 90 % intervals hold {100 * told['coverage_90']:.1f} %"
        )
    return lines
