"""Labelled images split by device, and no picture on two sides.

The device is told by the image's path. A device goes to one side whole (`splits`), so its other lights, its twin, its
augmented copies go with it, provided their names say so. What names do not say, the pictures do: the same picture on
two sides is refused, for a detector that has learned a picture by heart would be judged on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from waferlens.errors import FormatError, InputError, UsageError
from waferlens.formats import images as image_files
from waferlens.formats.coco import LabelledImage
from waferlens.ops.fingerprint import ALIKE, alike, fingerprint
from waferlens.prepare.splits import FRACTIONS, split_of

_SHOWN = 5


def device_of(path: str, pattern: str) -> str:
    """The device that an image shows, by its path.

    Args:
        path: of the image.
        pattern: regular expression; what its first group finds is the device, or the whole of what it finds.

    Raises:
        UsageError: the pattern is none, or is not found in the path.
    """
    try:
        found = re.search(pattern, path)
    except re.error as wrong:
        raise UsageError(f"the pattern {pattern!r} is no regular expression: {wrong}") from wrong
    if found is None or not (name := found.group(1 if found.re.groups else 0)):
        raise UsageError(f"the pattern {pattern!r} finds no device in {path!r}; for `000123-bf.png` it is '([0-9]+)-'")
    return name


def split_labels(
    found: Sequence[LabelledImage],
    folder: Path,
    pattern: str,
    fractions: Mapping[str, float] = FRACTIONS,
    salt: str = "",
) -> dict[str, list[LabelledImage]]:
    """The images of each side of a split by device.

    Args:
        found: labelled images, their paths below the folder.
        folder: where the images are.
        pattern: as in `device_of`.
        fractions: share of the devices for each side.
        salt: another word gives another, independent split.

    Raises:
        UsageError: a path names no device, or the shares are wrong.
        InputError: an image cannot be read, or the same picture is on two sides.
    """
    sides: dict[str, list[LabelledImage]] = {side: [] for side, share in fractions.items() if share > 0}
    for image in found:
        sides[split_of(device_of(image.path, pattern), fractions, salt)].append(image)
    refuse_shared({side: [folder / image.path for image in part] for side, part in sides.items()})
    return sides


def refuse_shared(sides: Mapping[str, Sequence[Path]], least: float = ALIKE) -> None:
    """Refuses a split that has the same picture on two sides.

    Args:
        sides: the images of each side.
        least: correlation from which on two pictures are the same.

    Raises:
        InputError: an image cannot be read, or the same picture is on two sides; the first pairs are named.
    """
    marks = {side: _fingerprints(paths) for side, paths in sides.items() if paths}
    names = list(marks)
    pairs = [
        (correlation, sides[one][first], one, sides[other][second], other)
        for place, one in enumerate(names)
        for other in names[place + 1 :]
        for first, second, correlation in alike(marks[one], marks[other], least)
    ]
    if pairs:
        pairs.sort(key=lambda pair: -pair[0])
        told = "; ".join(f"{a} ({one}) and {b} ({other}), {r:.3f} alike" for r, a, one, b, other in pairs[:_SHOWN])
        more = f"; and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
        raise InputError(
            pairs[0][1],
            f"the same picture is on two sides of the split: {told}{more}. Name them as one device, or leave one out",
        )


def _fingerprints(paths: Iterable[Path]) -> np.ndarray:
    return np.stack([fingerprint(_grey(path)) for path in paths])


def _grey(path: Path) -> UInt8[np.ndarray, "h w"]:
    """An image as 8 bits of grey, good enough to be recognised by."""
    data = image_files.read_bytes(str(path))
    if image_files.starts_like_tiff(data):
        pixels = image_files.decode(data, str(path))
        return (pixels.pixels * (255.0 / pixels.full_scale)).astype(np.uint8)
    image_files.check_whole(data, str(path))
    grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise FormatError(path, "the image data is broken: the decoder gave nothing back")
    return grey
