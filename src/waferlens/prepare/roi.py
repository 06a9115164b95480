"""Packages cut out upright: a folder of crops from many images, and the reason where there is none."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from waferlens.errors import InputError
from waferlens.formats.images import SUFFIXES
from waferlens.formats.package_set import read_picture
from waferlens.ops.illumination import SortedLight, sort_light
from waferlens.ops.roi_record import CROP_PX, Roi
from waferlens.prepare.roi_finders import Finder

_WILD = "*?["


@dataclass(frozen=True, slots=True, eq=False)
class PreparedRoi:
    """What became of one image."""

    file: Path
    crop: Path | None
    """Where the upright crop was written; None where there is none."""
    light: SortedLight | None
    """None where the image could not be read."""
    roi: Roi | None
    reason: str = ""
    """Why it is quarantined; empty where it is not."""

    def as_json(self) -> dict[str, Any]:
        """The record as a dictionary that JSON can hold."""
        told: dict[str, Any] = {"file": str(self.file), "crop": None if self.crop is None else str(self.crop)}
        light = self.light
        told["light"] = None if light is None else light.light
        told["light_means"] = None if light is None else list(light.means)
        told["light_margin_grey"] = None if light is None else light.margin_grey
        if self.roi is not None:
            told |= self.roi.as_json()
        told["reason"] = self.reason
        return told


def expand(paths: Sequence[str | Path]) -> list[Path]:
    """The image files that paths, folders and patterns name, each once, in order.

    Raises:
        InputError: a path names nothing, or a folder holds no images.
    """
    files: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(one for one in path.iterdir() if one.suffix.lower() in SUFFIXES and one.is_file())
            if not found:
                raise InputError(path, f"holds no images ({', '.join(SUFFIXES)})")
        elif path.exists() or not any(one in str(path) for one in _WILD):
            found = [path]  # a file that is not there is quarantined with its reason
        else:
            found = [Path(one) for one in sorted(glob.glob(str(path), recursive=True)) if Path(one).is_file()]  # noqa: PTH207 - absolute ones, too
            if not found:
                raise InputError(path, "matches no file")
        files |= dict.fromkeys(found)
    return list(files)


def prepare_rois(
    files: Sequence[Path],
    out: Path,
    method: Finder,
    *,
    light: str | None = None,
    size_px: tuple[int, int] = CROP_PX,
    advance: Callable[[int], None] = lambda steps: None,
) -> list[PreparedRoi]:
    """Cuts the package out of each image; what cannot be used is told with its reason and not written.

    Args:
        files: images.
        out: folder for the crops; it exists.
        method: how packages are found.
        light: the light of all images if it is known; else each is sorted by its colour.
        size_px: width and height of the crops [px]
        advance: told of each finished image.

    Raises:
        InputError: a crop cannot be written.
    """
    done: list[PreparedRoi] = []
    taken: set[str] = set()
    for file in files:
        try:
            image = read_picture(file)
        except InputError as wrong:
            done.append(PreparedRoi(file, None, None, None, wrong.reason))
            advance(1)
            continue
        told = sort_light(image)
        known = light or told.light
        roi = method.find(image, light=known, size_px=size_px)
        reason = roi.reason if known is not None else told.reason
        crop = None
        if roi.found and not reason:
            crop = out / _free_name(file.stem, taken)
            if not cv2.imwrite(str(crop), cv2.cvtColor(roi.crop(image), cv2.COLOR_RGB2BGR)):
                raise InputError(crop, "cannot be written")
        done.append(PreparedRoi(file, crop, told, roi, reason))
        advance(1)
    return done


def _free_name(stem: str, taken: set[str]) -> str:
    """A crop's name that no other image of this call has: two folders may hold files of one name."""
    name, number = f"{stem}.png", 2
    while name in taken:
        name, number = f"{stem}-{number}.png", number + 1
    taken.add(name)
    return name
