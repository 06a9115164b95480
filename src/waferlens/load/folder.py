"""A folder of images of one thing, in the order of their names."""

from __future__ import annotations

from pathlib import Path

from waferlens.errors import InputError
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


def read_image(path: Path) -> Image:
    """The one image of a file.

    Raises:
        InputError: it cannot be read, or has several pages.
    """
    pages = list(images.read_images(path))
    if len(pages) != 1:
        raise InputError(path, f"has {len(pages)} pages, one image is needed; save the page that is meant")
    return pages[0]
