"""A folder of images of one thing, in the order of their names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from waferlens.errors import FormatError, InputError
from waferlens.formats import images
from waferlens.records import Image


def image_paths(folder: Path) -> list[Path]:
    """The images in a folder and below it, by name; what is hidden is left out.

    Raises:
        InputError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise InputError(folder, "no such folder")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in images.SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not found:
        raise InputError(folder, f"no images here; looked for {' '.join(images.SUFFIXES)}")
    return found


def every_image(folder: Path) -> Iterator[Image | InputError]:
    """The images in a folder one by one, each page of a TIFF as one; what cannot be read comes as its error.

    Raises:
        InputError: there is no such folder, or no image in it.
    """
    for path in image_paths(folder):
        try:
            yield from images.read_pages(path)
        except InputError as wrong:
            yield wrong


def read_image(path: Path) -> Image:
    """The one image of a file.

    Raises:
        InputError: it cannot be read, or has several pages.
    """
    pages = images.count_pages(path)
    if pages != 1:
        raise InputError(path, f"has {pages} pages, one image is needed; save the page that is meant")
    return read_page(path, 0)


def read_page(path: str | Path, page: int) -> Image:
    """One page of a file.

    Raises:
        InputError: it cannot be read.
        FormatError: there is no such page, or it is no image.
    """
    for found in images.read_pages(path, range(page, page + 1)):
        if isinstance(found, FormatError):
            raise found
        return found
    raise FormatError(path, f"has no page {page}")
