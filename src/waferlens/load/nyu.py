"""Views of rooms with depth as arrays, split so that no room is on two sides.

The official split is kept where the data has one: its test views are the test side, and some rooms of its training
views are held back for validation. Otherwise rooms are dealt to three sides. Rooms, not views: neighbouring frames show
nearly the same. The parts a, b, c of a recording are one room.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8

from waferlens.errors import InputError
from waferlens.formats.nyu import Depth, Entry, entries, read_views

Side = Literal["train", "validation", "test"]
HELD_BACK = 0.15
"""Share of the rooms for validation, and for test where the data has no test views of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """Views of one size."""

    entries: tuple[Entry, ...]
    rgb: UInt8[np.ndarray, "n h w 3"]
    depth_m: Float32[np.ndarray, "n h w"]
    """0 where not measured [m]"""

    def __len__(self) -> int:
        return len(self.entries)


def load_nyu(path: str | Path, side: Side | None = None, depth: Depth = "raw") -> Views:
    """The views of a file or folder, see `formats.nyu` for what is read.

    Args:
        path: File or folder.
        side: Of the split; None takes all views.
        depth: Of the labelled set: as measured, or with its holes filled in.

    Raises:
        InputError: nothing is there, no view is on this side, or views differ in size.
        FormatError: a file is damaged.
        MissingExtraError: a .mat or .h5 file needs the `formats` extra.
    """
    listed = entries(path)
    if side is not None:
        listed = split(listed, path)[side]
        if not listed:
            raise InputError(path, f"no view is on the {side} side; there are too few rooms to hold some back")
    first, *_ = read_views(listed[:1], depth)
    h, w = first.depth_m.shape
    rgb, depth_m = np.empty((len(listed), h, w, 3), np.uint8), np.empty((len(listed), h, w), np.float32)
    for place, view in enumerate(read_views(listed, depth)):
        if view.depth_m.shape != (h, w):
            rows, columns = view.depth_m.shape
            raise InputError(view.entry.files[-1], f"is {columns}x{rows} px, the first view {w}x{h}; use one size")
        rgb[place], depth_m[place] = view.rgb, view.depth_m
    return Views(tuple(listed), rgb, depth_m)


def split(listed: Iterable[Entry], path: str | Path) -> dict[Side, list[Entry]]:
    """The views of each side.

    Args:
        listed: From `formats.nyu.entries`.
        path: What to call them in an error.

    Raises:
        InputError: views without a side of their own do not tell their room.
    """
    listed = list(listed)
    official = any(entry.side is not None for entry in listed)
    rooms: set[str] = set()
    for entry in listed:
        if entry.side == "test":
            continue
        if entry.scene is None:
            raise InputError(path, f"view {entry.name} does not tell its room, so that it cannot be split; put the "
                             "views of each room into a folder of their own")  # fmt: skip
        rooms.add(room(entry.scene))
    ranked = sorted(rooms, key=_rank)
    held = _share(len(ranked), least=2)
    validation = set(ranked[:held])
    test = set() if official else set(ranked[held : held + _share(len(ranked), least=3)])
    sides: dict[Side, list[Entry]] = {"train": [], "validation": [], "test": []}
    for entry in listed:
        here = None if entry.scene is None else room(entry.scene)
        if entry.side == "test" or here in test:
            sides["test"].append(entry)
        else:
            sides["validation" if here in validation else "train"].append(entry)
    return sides


def room(scene: str) -> str:
    """The room of a scene: `kitchen_0029` of `kitchen_0029c` and of `kitchen_0029b_out`."""
    return re.sub(r"(\d)[a-z]?(_out)?$", r"\1", scene)


def _rank(name: str) -> bytes:
    """A place in the order of rooms that has nothing to do with the alphabet, where kitchens stand together."""
    return hashlib.blake2b(name.encode(), digest_size=8).digest()


def _share(rooms: int, least: int) -> int:
    return 0 if rooms < least else max(1, round(HELD_BACK * rooms))
