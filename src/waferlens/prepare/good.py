"""The good images of a folder: which of them can be used, which make the template, and which set the threshold."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from waferlens.bundle.reference import refuse_unusable
from waferlens.errors import FormatError, InputError, UsageError
from waferlens.load.folder import every_image, read_page
from waferlens.ops.conformal import needed_images
from waferlens.recipe.golden import GoldenRecipe
from waferlens.records import Image

KEPT_BYTES = 256 * 2**20
"""Good images that are kept in memory after they were looked at once; more are read again [byte]"""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Good:
    """One good image of a folder."""

    name: str
    """Its path, with the page of a file that has several."""
    path: str
    page: int
    kind: str
    """Size and grey value of white; one reference serves one kind."""
    size: int
    """Number of its pixels."""
    sha256: str
    """Over kind and pixels."""
    kept: Image | None

    def read(self) -> Image:
        """The image, from memory if it is there."""
        return read_page(self.path, self.page) if self.kept is None else self.kept


def usable(folder: Path) -> tuple[list[Good], dict[str, str]]:
    """The good images of a folder that can be used, and the reasons why others cannot, by name.

    Left out is what cannot be read, what is constant or too small, what is of another kind than most, and what shows
    the very pixels of another: an image that is there twice says nothing new, and would count twice.

    Raises:
        InputError: there are no images, or none that are alike.
    """
    good: list[Good] = []
    left_out: dict[str, str] = {}
    room = KEPT_BYTES
    for image in every_image(folder):
        if isinstance(image, InputError):
            before = left_out.get(image.path)  # several pages of a file
            left_out[image.path] = image.reason if before is None else f"{before}; {image.reason}"
            continue
        name = f"{image.path} page {image.page}" if image.page else image.path
        try:
            refuse_unusable(image)
        except FormatError as wrong:
            left_out[name] = wrong.reason
            continue
        kind, pixels = what(image), np.ascontiguousarray(image.pixels)
        summed = hashlib.sha256(f"{kind} {pixels.dtype}".encode() + pixels.tobytes()).hexdigest()
        room -= pixels.nbytes
        good.append(Good(name, image.path, image.page, kind, pixels.size, summed, image if room >= 0 else None))
    if not good:
        raise InputError(folder, f"no image here can be used; the first: {first_of(left_out)}")
    kinds = Counter(one.kind for one in good).most_common()
    kind, count = kinds[0]
    if 2 * count <= len(good):
        told = ", ".join(f"{number} of {each}" for each, number in kinds[:3])
        raise InputError(folder, f"holds images of several kinds ({told}); a template needs images alike")
    first: dict[str, str] = {}
    kept = []
    for one in good:
        if one.kind != kind:
            left_out[one.name] = f"is {one.kind}, most others are {kind}"
        elif one.sha256 in first:
            left_out[one.name] = f"shows the same pixels as {Path(first[one.sha256]).name}"
        else:
            first[one.sha256] = one.name
            kept.append(one)
    return kept, left_out


def divided(
    recipe: GoldenRecipe, paths: Sequence[T], folder: Path, remark: str = "", most: int | None = None
) -> tuple[list[T], list[T]]:
    """Which good images make the template and which set the threshold.

    Args:
        recipe: with a method that is fitted.
        paths: the images, in an order that does not depend on what they show.
        folder: to be named in errors.
        remark: said behind their number in errors.
        most: images that a template may have for their memory; only the recipe says it if None.

    Raises:
        InputError: one image makes no template.
        UsageError: there are too few for the stated rate.
    """
    if len(paths) < 2:
        raise InputError(
            folder,
            f"holds {len(paths)} image{remark}; a template needs at least 2. With one good image use direct mode: "
            f"waferlens inspect IMAGES --bundle {recipe.name} --reference IMAGE --out DIR",
        )
    order = np.random.default_rng(recipe.fit.seed).permutation(len(paths))
    largest = recipe.fit.max_template_images if most is None else min(most, recipe.fit.max_template_images)
    rate = recipe.threshold.false_alarm_rate
    if rate is None:
        chosen = sorted(order[:largest])
        return [paths[index] for index in chosen], []
    count = max(2, min(round((1 - recipe.fit.calibration_fraction) * len(paths)), largest))
    if recipe.threshold.per == "image" and len(paths) - count < needed_images(rate):
        # a template of fewer images is worse, a rate without images to support it is none
        count = max(2, len(paths) - needed_images(rate))
        needed = needed_images(rate)
        if len(paths) - count < needed:
            raise UsageError(
                f"{folder}: holds {len(paths)} good images{remark}; a false-alarm rate of {rate:.3g} takes {needed} "
                f"to set the threshold and at least 2 more for the template. Add good images, state a higher rate "
                f"(threshold.false_alarm_rate=…), or none (threshold.false_alarm_rate=null)"
            )
    return [paths[index] for index in sorted(order[:count])], [paths[index] for index in sorted(order[count:])]


def sum_of(good: Sequence[Good], folder: Path) -> str:
    """sha256 over the names and pixels of the images, in order."""
    summed = hashlib.sha256()
    for one in good:
        name = f"{Path(one.path).relative_to(folder).as_posix()} {one.page}"
        summed.update(name.encode("utf-8", "surrogateescape") + b"\0" + one.sha256.encode())
    return summed.hexdigest()


def first_of(reasons: Mapping[str, str]) -> str:
    """The first of some images with its reason, for an error."""
    name, why = next(iter(reasons.items()))
    return f"{Path(name).name}: {why}"


def what(image: Image) -> str:
    """The kind of an image: one template serves one kind."""
    h, w = image.pixels.shape
    return f"{w}x{h} px with white at {image.full_scale:g}"
