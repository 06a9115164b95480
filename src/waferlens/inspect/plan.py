"""Which images a lot consists of, in which order, and in which chunks.

The order is fixed by the names alone, and so are the chunks: an interrupted run and its resumption cut the lot in the
same places. The list lies in a file, not in memory, because a lot may have millions of images.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from waferlens.errors import InputError
from waferlens.formats import images

Item = tuple[str, int]
"""Path of a file and the page in it."""


@dataclass(frozen=True)
class Plan:
    """The lot, on disk."""

    path: Path
    """One line an image: a JSON list of path and page."""
    items: int
    chunk: int
    """Images a chunk."""
    sha256: str
    """Over the lines: two lots with the same sum are the same images in the same order."""
    offsets: array
    """Where each chunk begins in the file [byte]"""

    @property
    def chunks(self) -> int:
        """How many chunks there are."""
        return len(self.offsets)

    def read(self, chunk: int) -> list[Item]:
        """The images of one chunk. Threads may call it at a time."""
        end = self.offsets[chunk + 1] if chunk + 1 < len(self.offsets) else None
        with self.path.open("rb") as file:
            file.seek(self.offsets[chunk])
            lines = file.read() if end is None else file.read(end - self.offsets[chunk])
        return [(path, page) for path, page in map(json.loads, lines.splitlines())]

    def first(self, chunk: int) -> int:
        """Place of a chunk's first image in the lot."""
        return chunk * self.chunk


def write_plan(
    inputs: Sequence[str | Path], path: Path, chunk: int, takes: Callable[[str], bool] = lambda path: True
) -> Plan:
    """Finds the images and writes their list.

    Args:
        inputs: files, folders, or patterns with `*`, `?`, `[…]`, `**`.
        path: where the list is written.
        chunk: images a chunk.
        takes: whether a file belongs to the lot.

    Raises:
        InputError: something that was named does not exist, or nothing in it is an image.
    """
    offsets = array("q")
    summed = hashlib.sha256()
    items = place = others = 0
    with path.open("wb") as file:
        for item in find(inputs):
            if not takes(item[0]):
                others += 1
                continue
            # escaped: names of any bytes survive, one line stays one line
            line = json.dumps(item).encode() + b"\n"
            if items % chunk == 0:
                offsets.append(place)
            file.write(line)
            summed.update(line)
            place += len(line)
            items += 1
    if items == 0:
        told = f"no images here; looked for {' '.join(images.SUFFIXES)}"
        if others:
            told = f"no images to inspect here; the {others} there are, are references or not named as --pair-by says"
        raise InputError(", ".join(str(part) for part in inputs), told)
    return Plan(path, items, chunk, summed.hexdigest(), offsets)


def find(inputs: Sequence[str | Path]) -> Iterator[Item]:
    """The images that are meant, each page of a TIFF as one.

    In a folder, everything with the name of an image is taken, in the order of names; folders called `Depth` beside one
    called `SEM` are left out (they hold the answers, in the challenge's layout), and so is what is hidden or ends in
    `-checkpoint`. A file that is named itself is always taken: it is measured, or quarantined with its reason.

    Raises:
        InputError: something that was named does not exist.
    """
    seen: set[str] | None = set() if len(inputs) > 1 else None
    for named in inputs:
        text = os.fspath(named)
        if os.path.isdir(text):  # noqa: PTH112 - millions of names pass here as plain text
            paths = _in_folder(text)
        elif os.path.lexists(text):
            paths = iter([text])
        elif glob.has_magic(text):
            found = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - as above
            if not found:
                raise InputError(text, "nothing matches this pattern")
            paths = (path for match in found for path in (_in_folder(match) if os.path.isdir(match) else [match]))  # noqa: PTH112
        else:
            raise InputError(text, "no such file or folder")
        for path in paths:
            if seen is not None:
                if path in seen:
                    continue
                seen.add(path)
            yield from _pages(path)


def _in_folder(folder: str) -> Iterator[str]:
    for at, inner, files in os.walk(folder):
        inner[:] = sorted(
            name for name in inner if not name.startswith(".") and not (name == "Depth" and "SEM" in inner)
        )
        for name in sorted(files):
            if not name.lower().endswith(images.SUFFIXES) or name.startswith("."):
                continue
            if not name.rpartition(".")[0].endswith("-checkpoint"):
                yield os.path.join(at, name)  # noqa: PTH118 - as above


def _pages(path: str) -> Iterator[Item]:
    if not path.lower().endswith((".tif", ".tiff")):
        yield path, 0
        return
    try:
        count = images.count_pages(path)
    except InputError:
        count = 1  # what is wrong with it is told when it is read: there it is quarantined
    for page in range(count):
        yield path, page
