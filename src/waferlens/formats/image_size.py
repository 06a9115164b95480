"""Width and height of an image from its header: labels in shares of the sides need them, and no pixel."""

from __future__ import annotations

import struct
from pathlib import Path

from waferlens.errors import FormatError, InputError
from waferlens.formats.images import png_header, starts_like_tiff

_HEAD = 4 * 2**20
"""The frame header of a JPEG stands behind its thumbnails and colour profiles [byte]"""


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height [px] of a PNG, JPEG, BMP or TIFF file, of its first page where it has several.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is none of these, or ends before it says.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_HEAD)
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}") from wrong
    if starts_like_tiff(data):
        return _tiff(path)
    size = None
    if (header := png_header(data)) is not None:
        size = header[:2]
    elif data.startswith(b"\xff\xd8\xff"):
        size = _jpeg(data)
    elif data.startswith(b"BM") and len(data) >= 26:
        width, height = struct.unpack_from("<ii", data, 18)
        size = (width, abs(height))  # a negative height means: top row first
    if size is None or min(size) <= 0:
        raise FormatError(path, "its size is not known: PNG, JPEG, BMP and TIFF headers are read")
    return size


def _jpeg(data: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 < len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def _tiff(path: str | Path) -> tuple[int, int]:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            return int(page.imagewidth), int(page.imagelength)
    except (tifffile.TiffFileError, OSError, IndexError, ValueError, struct.error) as wrong:
        raise FormatError(path, f"a damaged TIFF: {wrong}") from wrong
