"""The images of one chunk, decoded one by one, with what is wrong with each that cannot be."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from waferlens.errors import FormatError, InputError
from waferlens.formats import images
from waferlens.inspect.plan import Item
from waferlens.records import Image


def decoded(items: Sequence[Item]) -> Iterator[Image | InputError]:
    """The images, or what is wrong with each; pages of one TIFF that follow each other are read in one go."""
    place = 0
    while place < len(items):
        path, page = items[place]
        if path.lower().endswith((".tif", ".tiff")):
            end = place + 1
            while end < len(items) and items[end] == (path, page + end - place):
                end += 1
            yield from _tiff_pages(path, range(page, page + end - place))
            place = end
        else:
            try:
                yield images.decode(images.read_bytes(path), path)
            except InputError as wrong:
                yield wrong
            place += 1


def _tiff_pages(path: str, pages: range) -> Iterator[Image | InputError]:
    given = 0
    try:
        for found in images.read_pages(path, pages):
            yield found
            given += 1
    except InputError as wrong:  # the file as a whole
        for _ in range(len(pages) - given):
            yield wrong
        return
    for _ in range(len(pages) - given):  # a file called .tif that is a PNG has one page only
        yield FormatError(path, "the page is not there")


def printable(path: str) -> str:
    """A path as text that every database takes: bytes that are no UTF-8 are written out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
