"""Images of the package station with what is known of them, whatever the folder: a package set, labels, DeepPCB.

A package set tells four classes: crack, rotate, package and die. What it tells to be no defect (marks of the emitter,
dust, fibres) comes as a label that is to be ignored, under its own name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float64, UInt8

from waferlens.errors import FormatError, InputError, UsageError
from waferlens.formats import deeppcb, images, package_set
from waferlens.formats.label_outlines import mask_box
from waferlens.load.labels import read_label_set
from waferlens.records import Label, tight

PACKAGE, DIE, ROTATE = "package", "die", "rotate"
SET_KINDS = ("crack", ROTATE, PACKAGE, DIE)
"""What a package set tells."""
NO_PIXELS = np.zeros((0, 0), bool)
IMAGES = "images"
"""Folder of the images beside labels, where there is one."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image whose truth is known; its pixels are read when asked for."""

    name: str
    path: Path
    group: str
    """What splits go by: a device and its twin, a board, or the image alone."""
    labels: tuple[Label, ...]
    """What is on it, in its pixels."""
    light: str | None = None
    """`bf`, `dfw` or `dfb`; None where it is not told."""
    ic_quad: Float64[np.ndarray, "4 2"] | None = None
    """Corners of the package, of the upright part from the upper left clockwise; None where not told [px]"""

    def pixels(self) -> tuple[np.ndarray, float]:
        """The image, `h w` or `h w 3` in the file's own type, and its grey value of white.

        Raises:
            InputError: it cannot be read.
        """
        return read_pixels(self.path)


def read_pixels(path: Path) -> tuple[np.ndarray, float]:
    """A grey or colour image, `h w` or `h w 3` in the file's own type, and its grey value of white.

    Raises:
        InputError: it cannot be read.
        FormatError: it is damaged, or of more colours than 8 bits hold.
    """
    data = images.read_bytes(str(path))
    if not images.starts_like_tiff(data):
        images.check_whole(data, str(path))
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is not None and pixels.dtype == np.uint8 and pixels.shape[2:] == (3,):
            return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), 255.0
        if pixels is not None and pixels.dtype != np.uint8 and pixels.ndim == 3:
            raise FormatError(path, f"has colours of {pixels.dtype}; colour images are read in 8 bits a colour")
    grey = images.decode(data, str(path))
    return grey.pixels, grey.full_scale


def is_package_set(folder: Path) -> bool:
    """Whether a folder is one that `waferlens simulate package` wrote."""
    return (folder / package_set.DEVICES_FILE).is_file() and (folder / package_set.MANIFEST_FILE).is_file()


def names_devices(folder: Path) -> bool:
    """Whether a folder itself says which images are of one device or board, as labels of one's own do not."""
    return is_package_set(folder) or deeppcb.holds(folder)


def facts_of(data: Path) -> dict[str, Any]:
    """What a run card says of such a folder; never where it lies."""
    facts: dict[str, Any] = {"folder": data.name}
    if is_package_set(data):
        told = package_set.read_manifest(data)
        facts |= {"world": told["world"]["name"], "devices": told.get("devices")}
        facts |= {key: told.get(key) for key in ("world_sha256", "pixels_sha256", "seed")}
    return facts


def read_pictures(
    data: Path,
    kinds: Sequence[str],
    lights: Sequence[str] = package_set.LIGHTS,
    keep: Callable[[str], bool] = lambda group: True,
    group_of: Callable[[str], str] = lambda name: name,
) -> Iterator[Picture]:
    """The images of a folder, with labels of these classes.

    Args:
        data: A package set, DeepPCB, or a folder of labels that `load.labels` reads, with their images beside them or
            in `images` below.
        kinds: Classes. What else a package set tells is left out; what else labels tell is refused.
        lights: Of a package set, the lights whose images are wanted.
        keep: Groups that are wanted.
        group_of: Of labels of one's own, the group of an image by its path below the folder, without its ending.

    Raises:
        InputError: the folder holds no such images, or tells no truth.
        FormatError: a label is wrong, or of another class.
        UsageError: a package set does not tell one of the classes.
    """
    if not data.is_dir():
        raise InputError(data, "no such folder")
    if is_package_set(data):
        yield from _of_set(data, kinds, lights, keep)
    elif deeppcb.holds(data):
        yield from _of_deeppcb(data, kinds, keep)
    else:
        yield from _of_labels(data, kinds, keep, group_of)


def _of_set(data: Path, kinds: Sequence[str], lights: Sequence[str], keep: Callable[[str], bool]) -> Iterator[Picture]:
    unknown = [kind for kind in kinds if kind not in SET_KINDS]
    if unknown:
        raise UsageError(
            f"{data}: a package set does not tell {', '.join(unknown)}; it tells {', '.join(SET_KINDS)}: "
            "set target.classes"
        )
    for number in package_set.devices(data):
        device = package_set.read_device(data, number)
        group = device_group(device)
        if keep(group):
            labels = tuple(set_labels(data, device, kinds))
            for light in lights:
                path = device.images[light]
                yield Picture(path.stem, path, group, labels, light, device.ic_quad)


def device_group(device: package_set.Device) -> str:
    """What splits of a package set go by: a device and its good twin look alike, and belong together."""
    return f"device-{device.number if device.twin_of is None else device.twin_of:06d}"


def set_labels(data: Path, device: package_set.Device, kinds: Sequence[str]) -> Iterator[Label]:
    """What a package set tells of a device, in the pixels of its images.

    Args:
        data: The set.
        device: As read.
        kinds: Classes that are wanted; what is to be ignored always comes.

    Raises:
        InputError: a mask cannot be read.
    """
    asked = any(kind in kinds for kind in (PACKAGE, DIE, ROTATE))
    body, die = package_set.read_parts(data, device.number) if asked else (NO_PIXELS, NO_PIXELS)
    numbers = package_set.read_defects(data, device.number) if device.defects else NO_PIXELS.astype(np.uint8)
    return mask_labels(device, kinds, body, die, numbers)


def mask_labels(
    device: package_set.Device,
    kinds: Sequence[str],
    body: Bool[np.ndarray, "h w"],
    die: Bool[np.ndarray, "h w"],
    numbers: UInt8[np.ndarray, "h w"],
) -> Iterator[Label]:
    """Labels of a device from its masks.

    Args:
        device: Its truth.
        kinds: Classes that are wanted; what is to be ignored always comes.
        body: Pixels of the package; looked at only where it, or the die, is wanted.
        die: Pixels of the die.
        numbers: Number of the defect at each pixel + 1, in the order of the device's list; looked at if it has any.
    """
    if PACKAGE in kinds:
        yield _of_mask(PACKAGE, body)
    if DIE in kinds and not device.missing_die:
        yield _of_mask(DIE, die)
    for place, defect in enumerate(device.defects, 1):
        kind = defect.kind if defect.ignore else defect.label
        if kind not in kinds and not defect.ignore:
            continue
        mask = die if kind == ROTATE else numbers == place
        if mask.any():
            yield _of_mask(kind, mask, defect.ignore)


def _of_mask(kind: str, mask: Bool[np.ndarray, "h w"], ignore: bool = False) -> Label:
    inner, corner = tight(mask)
    return Label(kind, mask_box(inner, corner), mask=inner, mask_corner=corner, ignore=ignore)


def _of_deeppcb(data: Path, kinds: Sequence[str], keep: Callable[[str], bool]) -> Iterator[Picture]:
    for pair in deeppcb.read_pairs(data):
        if keep(pair.group):
            found = deeppcb.read_truth(pair.truth)
            other = sorted({one.kind for one in found} - set(kinds))
            if other:
                raise UsageError(
                    f"{data}: DeepPCB has the class {other[0]}; set target.classes=[{', '.join(deeppcb.KINDS)}]"
                )
            yield Picture(pair.name, pair.test, pair.group, tuple(Label(one.kind, one.box) for one in found))


def _of_labels(
    data: Path, kinds: Sequence[str], keep: Callable[[str], bool], group_of: Callable[[str], str]
) -> Iterator[Picture]:
    folder = data / IMAGES if (data / IMAGES).is_dir() else data
    for image in read_label_set(data, folder, kinds).images:
        name = str(Path(image.path).with_suffix(""))
        if keep(group := group_of(name)):
            yield Picture(name, folder / image.path, group, tuple(image.labels))
