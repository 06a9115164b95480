"""Cards of single devices: what the run drew of them, close views of their findings, and the reason of the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from waferlens.errors import InputError
from waferlens.formats.package_set import read_picture
from waferlens.inspect.folder import OVERLAYS, overlay_name
from waferlens.inspect.package_devices import Device, Seen
from waferlens.records import Finding
from waferlens.report import pictures, words

LISTED = 4
"""Findings told on a card."""
HIGH_PX = 520
"""Longest side of its picture [px]"""
AROUND_PX = 72
"""Least side of what is shown around a finding [px]"""
_TALLEST = 5  # thirds of its width that a picture is high at the most
_CLOSE_PX = 400.0  # a finding larger than this is seen on the picture as well
_BRIGHT, _MOST_GAIN = 200.0, 6.0  # darkfield is shown so much brighter that the eye sees something


@dataclass(frozen=True, slots=True)
class FoundLine:
    """A finding of the list."""

    kind: str
    light: str
    score: str
    place: str
    """From the lower left corner of the package, and its size; empty where no package was found."""
    crop: str | None
    """Inline picture of what lies around it."""


@dataclass(frozen=True, slots=True)
class DeviceCard:
    """One device of the lot."""

    name: str
    verdict: str
    why: str
    file: str
    """The image that is shown, seen from the folder of the lot."""
    light: str
    picture: str | None
    size: tuple[int, int]
    """Width and height of the frame it is shown in."""
    lines: list[FoundLine]
    more: int
    """Findings that are not told."""
    missing: str
    """Why the picture is another, or none."""


def make_card(device: Device, folder: Path, root: str) -> DeviceCard:
    """The card of a device.

    Args:
        device: as brought together.
        folder: of the run, where the overlays lie.
        root: what all paths of the lot begin with.
    """
    shown = _shown(device)
    path = folder / OVERLAYS / overlay_name(shown.item, shown.path)
    picture, missing = _read(path), ""
    if picture is None:
        picture, missing = _read(Path(shown.path)), "shown as it was taken: the run drew nothing on it"
        if picture is None:
            missing = "neither the image nor what the run drew of it is there any longer"
    lines = [_line(seen, finding) for seen, finding in device.findings[:LISTED]]
    return DeviceCard(
        words.plain(device.name),
        device.verdict,
        words.plain(device.reason),
        words.plain(words.within(shown.path, root)),
        shown.light,
        None if picture is None else _packed(picture, HIGH_PX),
        (3, 5) if picture is None else (picture.shape[1], min(picture.shape[0], _TALLEST * picture.shape[1] // 3)),
        lines,
        max(0, len(device.findings) - LISTED),
        missing,
    )


def _shown(device: Device) -> Seen:
    """The image that tells most: that of the surest finding, of the angle, one that was looked at, or the first."""
    if device.findings:
        return device.findings[0][0]
    looked = [one for one in device.images if one.inspected]
    return device.best or (looked or list(device.images))[0]


def _line(seen: Seen, finding: Finding) -> FoundLine:
    at = finding.place
    place = ""
    if at is not None:
        unit = words.unit(at.unit)
        middle = f"x {words.fixed(at.x, 0)}, y {words.fixed(at.y, 0)}"
        place = f"{middle}; {words.fixed(at.width, 0)} × {words.fixed(at.height, 0)}{words.THIN}{unit}"
    crop = None
    x0, y0, x1, y1 = finding.box
    if max(x1 - x0, y1 - y0) <= _CLOSE_PX:
        image = _read(Path(seen.path))
        crop = None if image is None else _packed(_around(image, finding.box), 160)
    return FoundLine(words.plain(finding.kind), seen.light, words.fixed(finding.score, 2), place, crop)


def _read(path: Path) -> UInt8[np.ndarray, "h w 3"] | None:
    """A picture in blue, green, red; None where it is there no longer."""
    try:
        return cv2.cvtColor(read_picture(path), cv2.COLOR_RGB2BGR)
    except InputError:
        return None


def _around(image: UInt8[np.ndarray, "h w 3"], box: tuple[float, float, float, float]) -> UInt8[np.ndarray, "p q 3"]:
    """A square around a finding, inside the image."""
    h, w = image.shape[:2]
    x0, y0, x1, y1 = box
    side = min(round(max(AROUND_PX, 1.8 * max(x1 - x0, y1 - y0))), h, w)
    left = min(max(0, round((x0 + x1 - side) / 2)), w - side)
    top = min(max(0, round((y0 + y1 - side) / 2)), h - side)
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def _packed(image: UInt8[np.ndarray, "h w 3"], most: int) -> str:
    """A picture for looking at: no longer than so many pixels, darkfield brighter."""
    by = max(image.shape[:2]) / most
    if by > 1:
        size = (max(1, round(image.shape[1] / by)), max(1, round(image.shape[0] / by)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    gain = min(_MOST_GAIN, _BRIGHT / max(1.0, float(np.percentile(image, 99))))
    if gain > 1.3:
        image = np.clip(image.astype(np.float32) * gain, 0, 255).astype(np.uint8)
    return pictures.packed(image, 82)
