"""Images as a microscope leaves them: PNG, JPEG, BMP and TIFF, 8 bits, 16 bits or float, one channel.

Decoders are forgiving by habit: a truncated file comes back as a picture that is half grey, a header can ask for
terabytes. A line must not measure such a picture, so the container is checked before the decoder runs, and everything
that is not exactly one whole grey image is refused by name. Nothing is ever scaled or cut to 8 bits.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from waferlens.errors import FormatError, InputError
from waferlens.records import Image

MAX_PIXELS = 64 * 2**20
"""Largest image that is decoded; a header that asks for more is taken for a decompression bomb [px]"""
MAX_BYTES = 512 * 2**20
"""Largest PNG, JPEG or BMP file that is read: more than `MAX_PIXELS` can need [byte]"""
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
"""What is taken for an image when a folder is searched; what a file is, its first bytes say."""

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}


def read_images(path: str | Path) -> Iterator[Image]:
    """The images of a file, page by page; all but TIFF have one.

    Args:
        path: a PNG, JPEG, BMP or TIFF file.

    Raises:
        InputError: the file cannot be read.
        FormatError: the file is empty, truncated, no image, too large, has unequal channels, or holds NaN.
    """
    for image in read_pages(path):
        if isinstance(image, FormatError):
            raise image
        yield image


def read_pages(path: str | Path, pages: range | None = None) -> Iterator[Image | FormatError]:
    """As `read_images`, but a bad page is handed out as its error, so that it does not hide the good ones after it.

    Args:
        path: a PNG, JPEG, BMP or TIFF file.
        pages: which pages; all if None.

    Raises:
        InputError: the file cannot be read.
        FormatError: the file as a whole is unusable.
    """
    path = str(path)
    if is_tiff(path):
        from waferlens.formats import tiff  # tifffile is needed for TIFF only, and costs start-up time

        yield from tiff.read_pages(path, pages)
    else:
        yield decode(read_bytes(path), path)


def count_pages(path: str | Path) -> int:
    """How many images a file holds, without decoding any.

    Raises:
        InputError: the file cannot be read.
        FormatError: the file as a whole is unusable.
    """
    path = str(path)
    if is_tiff(path):
        from waferlens.formats import tiff

        return tiff.count_pages(path)
    return 1


def is_tiff(path: str) -> bool:
    """Whether a file begins like a TIFF.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return starts_like_tiff(file.read(4))
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}") from wrong


def starts_like_tiff(data: bytes) -> bool:
    """Whether these first bytes are those of a TIFF or BigTIFF."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_bytes(path: str) -> bytes:
    """The whole file.

    Raises:
        InputError: the file cannot be read.
        FormatError: the file is larger than any image we decode.
    """
    try:
        # unbuffered: for files of some kilobytes the buffer costs more than the reading
        with Path(path).open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):  # a device could be read for ever
                raise InputError(path, "cannot be read: not a regular file")
            if status.st_size > MAX_BYTES:
                raise FormatError(path, f"the file is larger than {MAX_BYTES // 2**20} MiB; no image is")
            return file.readall()
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}") from wrong


def decode(data: bytes, path: str = "") -> Image:
    """The one image in the bytes of a PNG, JPEG or BMP file, or of a TIFF of one page.

    Args:
        data: the whole file.
        path: what to call it in an error.

    Raises:
        FormatError: the bytes are empty, truncated, no image, too large, or have unequal channels.
    """
    if starts_like_tiff(data):
        from waferlens.formats import tiff

        return tiff.decode(data, path)
    check_whole(data, path)
    try:
        # unchanged: 16 bits stay 16 bits, and no orientation tag turns the image
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as wrong:
        raise FormatError(path, f"the image data is broken: {wrong.err}") from wrong
    if pixels is None:
        raise FormatError(path, "the image data is broken: the decoder gave nothing back")
    if pixels.ndim == 3:
        pixels = one_channel(pixels, path)
    return Image(pixels, full_scale_of(pixels, path), path=path)


def check_whole(data: bytes, path: str) -> None:
    """Refuses what is not exactly one whole PNG, JPEG or BMP file, before a decoder sees it.

    Args:
        data: the whole file.
        path: what to call it in an error.

    Raises:
        FormatError: the bytes are empty, truncated, no such image, or ask for too large a one.
    """
    if data.startswith(_PNG):
        _check_png(data, path)
    elif data.startswith(b"\xff\xd8\xff"):
        _check_jpeg(data, path)
    elif data.startswith(b"BM"):
        _check_bmp(data, path)
    elif not data:
        raise FormatError(path, "the file is empty")
    else:
        raise FormatError(
            path, f"not an image: PNG, JPEG, BMP and TIFF are read, this file starts with {bytes(data[:8])!r}"
        )


def one_channel(pixels: np.ndarray, path: str) -> np.ndarray:
    """The grey image in a colour one, exactly, or an error: a mean of colours would be an invented measurement.

    Args:
        pixels: `h w c`, with 3 equal channels, or 2 or 4 of which the last is an alpha that is opaque [grey]
        path: what to call it in an error.

    Raises:
        FormatError: the channels are not equal, or pixels are transparent.
    """
    channels = pixels.shape[2]
    if channels in (2, 4):
        if (pixels[..., -1] != full_scale_of(pixels, path)).any():
            raise FormatError(path, "the image has transparent pixels; save it without an alpha channel")
        channels -= 1
    if channels not in (1, 3):
        raise FormatError(path, f"the image has {channels} channels, expected one grey channel")
    grey = pixels[..., 0]
    for channel in range(1, channels):
        if not np.array_equal(grey, pixels[..., channel]):
            raise FormatError(
                path, "a colour image: its red, green and blue channels are not equal; save it as one grey channel"
            )
    return np.ascontiguousarray(grey)


def full_scale_of(pixels: np.ndarray, path: str) -> float:
    """The grey value of white.

    Whole numbers: the largest their type holds. Float images carry no such convention, so only two are accepted:
    0..1, and 0..255.

    Raises:
        FormatError: the type is not one an image is measured in, or float grey is outside 0..255 or not finite.
    """
    if pixels.dtype == np.uint8:
        return 255.0
    if pixels.dtype == np.uint16:
        return 65535.0
    if pixels.dtype.kind != "f":
        raise FormatError(path, f"pixels of type {pixels.dtype}; uint8, uint16 and float are read")
    low, high = float(pixels.min()), float(pixels.max())
    if not (np.isfinite(low) and np.isfinite(high)):  # NaN anywhere makes the minimum NaN
        raise FormatError(path, "the image holds NaN or infinite grey values")
    if low < 0 or high > 255:
        raise FormatError(path, f"float grey values from {low:g} to {high:g}; expected 0..1 or 0..255")
    return 1.0 if high <= 1 else 255.0


def check_size(width_px: int, height_px: int, path: str) -> None:
    """Refuses sizes that no image of ours has, before any memory is asked for.

    Raises:
        FormatError: no pixels at all, or more than `MAX_PIXELS`.
    """
    if width_px <= 0 or height_px <= 0:
        raise FormatError(path, f"the header says {width_px}x{height_px} px: no pixels")
    if width_px * height_px > MAX_PIXELS:
        raise FormatError(
            path,
            f"the header says {width_px}x{height_px} px, more than the {MAX_PIXELS // 2**20} Mpx that are decoded; "
            "a damaged header or a decompression bomb",
        )


def png_header(data: bytes) -> tuple[int, int, int, str] | None:
    """Width [px], height [px], bits per sample and kind of channels of a PNG; None if this is no PNG's beginning."""
    if not data.startswith(_PNG) or len(data) < 29 or data[12:16] != b"IHDR":
        return None
    width_px, height_px, bits, kind = struct.unpack_from(">IIBB", data, 16)
    return width_px, height_px, bits, _PNG_CHANNELS.get(kind, f"kind {kind}")


def _check_png(data: bytes, path: str) -> None:
    header = png_header(data)
    if header is None:
        raise FormatError(path, "a truncated PNG: it ends inside its header")
    check_size(header[0], header[1], path)
    # libpng draws what it has and keeps quiet about the rest: walk the chunks and check each one's sum
    view, place, size = memoryview(data), 8, len(data)
    while place + 12 <= size:
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if end > size:
            break
        if zlib.crc32(view[place + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            name = data[place + 4 : place + 8].decode("latin-1")
            raise FormatError(path, f"a damaged PNG: the checksum of its chunk {name!r} does not fit")
        if data[place + 4 : place + 8] == b"IEND":
            return
        place = end
    raise FormatError(path, f"a truncated PNG: the file ends after {size} bytes, before the end of the image")


def _check_jpeg(data: bytes, path: str) -> None:
    size = None
    place = 2
    while place + 9 < len(data) and size is None:
        if data[place] != 0xFF:
            raise FormatError(path, f"a damaged JPEG: no marker at byte {place}")
        marker = data[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the frame header, of any coding
            height_px, width_px = struct.unpack_from(">HH", data, place + 5)
            size = (width_px, height_px)
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    if size is None:
        raise FormatError(path, "a truncated JPEG: it ends before its frame header")
    check_size(*size, path)
    # cameras may append zeros; libjpeg fills what is missing with grey and only warns
    if not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise FormatError(path, f"a truncated JPEG: the file ends after {len(data)} bytes without the end marker")


def _check_bmp(data: bytes, path: str) -> None:
    if len(data) < 54:
        raise FormatError(path, "a truncated BMP: it ends inside its header")
    offset, _, width_px, height_px, _, bits, compression = struct.unpack_from("<IIiiHHI", data, 10)
    check_size(width_px, abs(height_px), path)  # a negative height means: top row first
    # run-length coded data (1, 2) has no fixed size; for those the decoder's own refusal has to do
    needed = offset + (width_px * bits + 31) // 32 * 4 * abs(height_px)
    if compression in (0, 3) and len(data) < needed:
        raise FormatError(path, f"a truncated BMP: {len(data)} of {needed} bytes are there")
