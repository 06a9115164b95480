"""The images of one side of a split, for everything that learns from devices or is judged on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from waferlens.formats import deeppcb
from waferlens.load.package import Picture, names_devices, read_pictures
from waferlens.prepare.label_splits import device_of, refuse_shared
from waferlens.prepare.splits import FRACTIONS, split_of
from waferlens.recipe.package import PackageRecipe
from waferlens.recipe.pairing import is_compared

BOARDS = "board-79"
"""Salt of the split of DeepPCB: of its few boards this one puts some on every side. Of the salts board-0 to board-299
it is the one whose numbers of images come nearest to 70, 10, 10 and 10 %; nothing was trained to choose it."""


def side_of(data: Path, group: str) -> str:
    """The side of a group of a folder, the same whoever asks.

    Args:
        data: The folder.
        group: As `load.package.Picture` tells it.
    """
    return split_of(group, salt=BOARDS if deeppcb.holds(data) else "")


def side_pictures(recipe: PackageRecipe, data: Path, side: str | None) -> Iterator[Picture]:
    """The images of the devices on one side.

    Args:
        recipe: Which classes, which lights, and how the path of an image tells its device.
        data: As `load.package.read_pictures` reads it.
        side: One of `prepare.splits.FRACTIONS`; all of them if None.

    Raises:
        InputError: the folder holds no such images, or tells no truth.
        FormatError: a label is wrong.
        UsageError: the folder does not tell one of the classes, or a path no device.
    """

    def keep(group: str) -> bool:
        return side is None or side_of(data, group) == side

    found = read_pictures(
        data, recipe.target.classes, recipe.input.lights, keep, lambda name: group_of(name, recipe.train.device)
    )
    return compared(found, recipe.input.reference)


def compared(pictures: Iterable[Picture], pair_by: str | None) -> Iterator[Picture]:
    """Without those that are the references of others.

    Args:
        pictures: Of a folder.
        pair_by: How the name of an image gives that of its reference; None leaves none out.
    """
    return (one for one in pictures if pair_by is None or is_compared(str(one.path), pair_by))


def group_of(name: str, pattern: str | None) -> str:
    """The device of an image of one's own.

    Args:
        name: Its path below the folder, without its ending.
        pattern: Of the recipe, `train.device`; None takes each image for a device.

    Raises:
        UsageError: the pattern is not found in the path.
    """
    return name if pattern is None else device_of(name, pattern)


def refuse_leaks(recipe: PackageRecipe, data: Path) -> None:
    """Refuses labels of one's own with the same picture on two sides; sets that name their devices cannot have one.

    Args:
        recipe: As in `side_pictures`.
        data: Folder.

    Raises:
        InputError: an image cannot be read, or the same picture is on two sides.
    """
    if not names_devices(data):
        refuse_shared({side: [picture.path for picture in side_pictures(recipe, data, side)] for side in FRACTIONS})
