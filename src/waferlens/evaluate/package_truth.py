"""The images a package bundle is judged on: truth as the data tells it, or drawn again from the evaluation seed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from waferlens.bundle.files import Bundle
from waferlens.bundle.package import PackageSession
from waferlens.errors import InputError, UsageError
from waferlens.evaluate.sites import SEED_VARIABLE
from waferlens.formats import package_set
from waferlens.formats.package_set import Device
from waferlens.load.package import Picture, device_group, is_package_set, mask_labels, read_pictures
from waferlens.prepare.package_part import asked_angle, measures_angle, told_classes
from waferlens.prepare.package_sides import compared, group_of
from waferlens.simulate.package.dataset import regenerated


@dataclass(frozen=True, slots=True, eq=False)
class JudgedImage:
    """An image whose truth is known."""

    picture: Picture
    device: Device | None = None
    """What is known of the device on it; None where only labels are."""

    @property
    def part(self) -> str:
        """The device it is of; a good twin is one of its own."""
        return self.picture.group if self.device is None else f"device-{self.device.number:06d}"


@dataclass(frozen=True, slots=True)
class Judged:
    """Images to be judged on, read when they are asked for."""

    count: int
    """How many there are."""
    images: Callable[[], Iterator[JudgedImage]]
    pixel_um: float | None = None
    """Size of a pixel, where it is told [um]"""


def read_judged(
    data: Path,
    session: PackageSession,
    bundle: Bundle,
    keep: Callable[[str], bool] = lambda group: True,
    *,
    every_light: bool = False,
) -> Judged:
    """The images of a folder that a bundle is judged on: those in its lights, of groups that are wanted.

    Args:
        data: A package set, DeepPCB, or a folder of labels.
        session: Of the bundle.
        bundle: Its recipe says whether turned dies are told, too, and how the path of an image tells its device.
        keep: Groups that are wanted.
        every_light: Of a package set, images in lights the network does not know come, too, where the die's angle is
            measured: inspection measures it in them as well.

    Raises:
        InputError: there is none, or the folder tells no truth.
        FormatError: a label is wrong, or of another class.
        UsageError: its classes are not the bundle's; or truth is hidden, and `WAFERLENS_EVAL_SEED` is not set.
    """
    kinds = told_classes(session, asked_angle(bundle))
    lights = package_set.LIGHTS if every_light and measures_angle(session, asked_angle(bundle)) else session.lights
    if not is_package_set(data):
        pattern = (bundle.recipe.get("train") or {}).get("device")
        found = read_pictures(data, kinds, session.lights, keep, lambda name: group_of(name, pattern))
        pictures = list(compared(found, session.reference))
        return _some(data, Judged(len(pictures), lambda: (JudgedImage(picture) for picture in pictures)))
    told = package_set.read_manifest(data)
    if "seed_fingerprint" in told:
        # of a set that hides its truth no device has a twin: its number is that of its group
        numbers = {number for number in package_set.devices(data) if keep(f"device-{number:06d}")}
        seed = evaluation_seed(data)
        images = lambda: _drawn_again(data, seed, kinds, lights, numbers)  # noqa: E731
    else:
        devices = [package_set.read_device(data, number) for number in package_set.devices(data)]
        numbers = {device.number for device in devices if keep(device_group(device))}
        images = lambda: _as_told(data, kinds, lights, devices, keep)  # noqa: E731
    return _some(data, Judged(len(numbers) * len(lights), images, told.get("pixel_um")))


def evaluation_seed(data: Path) -> int:
    """The seed that hidden truth is drawn again from.

    Raises:
        UsageError: the environment holds none.
    """
    text = os.environ.get(SEED_VARIABLE)
    if text is None:
        raise UsageError(f"{data}: its truth is not written; {SEED_VARIABLE} has to hold the seed it was made from")
    if not text.isdecimal():
        raise UsageError(f"{SEED_VARIABLE} should be the whole number the data was simulated from, got {text!r}")
    return int(text)


def _some(data: Path, judged: Judged) -> Judged:
    if not judged.count:
        raise InputError(data, "holds no image that is asked for")
    return judged


def _as_told(
    data: Path, kinds: tuple[str, ...], lights: tuple[str, ...], devices: list[Device], keep: Callable[[str], bool]
) -> Iterator[JudgedImage]:
    by_picture = {device.images[light].stem: device for device in devices for light in lights}
    for picture in read_pictures(data, kinds, lights, keep):
        yield JudgedImage(picture, by_picture[picture.name])


def _drawn_again(
    data: Path, seed: int, kinds: tuple[str, ...], lights: tuple[str, ...], numbers: set[int]
) -> Iterator[JudgedImage]:
    for made in regenerated(data, seed, lambda number: number in numbers):
        device = made.truth
        body, die = ((made.parts & bit) > 0 for bit in (package_set.BODY_BIT, package_set.DIE_BIT))
        labels = tuple(mask_labels(device, kinds, body, die, made.defects))
        for light in lights:
            path = device.images[light]
            picture = Picture(path.stem, path, device_group(device), labels, light, device.ic_quad)
            yield JudgedImage(picture, device)
