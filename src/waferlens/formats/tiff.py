"""TIFF images, page by page, and the pixel size that scanning electron microscopes leave in them.

A resolution tag alone is not believed: most programs write 72 dots per inch whatever the picture shows. The pixel size
is taken from the tags of the microscopes' makers, and from ImageJ where its unit is a length.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from waferlens.errors import FormatError, InputError
from waferlens.formats import images
from waferlens.records import Image

_FEI, _FEI_OLD, _ZEISS = 34682, 34680, 34118
_NM = {"nm": 1.0, "um": 1e3, "µm": 1e3, "\u03bcm": 1e3, "micron": 1e3, "microns": 1e3, "pm": 1e-3, "mm": 1e6, "m": 1e9}
_REDUCED = 1  # bit of NewSubfileType: a smaller copy of another page, not an image of its own


def read_pages(path: str, pages: range | None = None) -> Iterator[Image | FormatError]:
    """The images of a TIFF; a bad page is handed out as its error.

    Args:
        path: the file.
        pages: which images, counted without thumbnails; all if None.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is no TIFF, or truncated in its directory.
    """
    with _file(path) as file, _opened(file, path) as tif:
        size = os.fstat(file.fileno()).st_size
        stack, count = _count(tif, path)
        for number in range(count) if pages is None else pages:
            try:
                yield _page(tif, number, stack, size, path)
            except FormatError as wrong:
                yield wrong


def count_pages(path: str) -> int:
    """How many images a TIFF holds, thumbnails left out.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is no TIFF, or truncated in its directory.
    """
    with _file(path) as file, _opened(file, path) as tif:
        return _count(tif, path)[1]


def decode(data: bytes, path: str = "") -> Image:
    """The one image in the bytes of a TIFF.

    Raises:
        FormatError: as `images.decode`; or it has more images, which would be lost without a word.
    """
    with _opened(io.BytesIO(data), path) as tif:
        stack, count = _count(tif, path)
        if count > 1:
            raise FormatError(path, f"a TIFF of {count} pages under another name; end its name in .tif")
        return _page(tif, 0, stack, len(data), path)


@contextmanager
def _file(path: str) -> Iterator[io.BufferedIOBase]:
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - the `with` below closes it; only the opening is our caller's fault
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}") from wrong
    with file:
        yield file


def _opened(file: io.BufferedIOBase, path: str) -> tifffile.TiffFile:
    try:
        return tifffile.TiffFile(file, name=path)
    except Exception as wrong:  # tifffile raises errors of many kinds (struct, value, index) on damaged directories
        raise FormatError(path, f"a damaged or truncated TIFF: {_told(wrong)}") from wrong


def _count(tif: tifffile.TiffFile, path: str) -> tuple[bool, int]:
    """Whether images stand one after the other behind a single directory, as ImageJ writes large stacks; how many."""
    try:
        told = int((tif.imagej_metadata or {}).get("images", 1))
        number = len(tif.pages)
        if told > 1 and number == 1 and tif.pages[0].is_contiguous:
            return True, told
        if number > 1 and tif.pages[1].subfiletype & _REDUCED:
            return False, 1  # a picture followed by its smaller copies
    except Exception as wrong:  # as in `_opened`: the chain of directories may lead anywhere
        raise FormatError(path, f"a damaged or truncated TIFF: {_told(wrong)}") from wrong
    if number == 0:
        raise FormatError(path, "a TIFF without a page")
    return False, number


def _page(tif: tifffile.TiffFile, number: int, stack: bool, size: int, path: str) -> Image:
    where = f"page {number}: " if number or stack else ""
    try:
        page = tif.pages[0 if stack else number]
        page = page if isinstance(page, tifffile.TiffPage) else page.aspage()
        images.check_size(page.imagewidth, page.imagelength, path)
        if page.imagedepth != 1:
            raise FormatError(path, f"{where}a volume of {page.imagedepth} planes in one page; save it page by page")
        if page.samplesperpixel > 4:
            raise FormatError(path, f"{where}{page.samplesperpixel} channels, expected one grey channel")
        pixels = _stack_pixels(tif, page, number, size, path) if stack else _page_pixels(page, size, where, path)
        pixels = _grey(page, pixels, path)
        return Image(pixels, images.full_scale_of(pixels, path), pixel_size_nm(tif, page, path), path, number)
    except FormatError as wrong:
        if where and not wrong.reason.startswith("page "):
            raise FormatError(path, where + wrong.reason) from wrong
        raise
    except Exception as wrong:  # the codecs raise errors of their own kinds; all mean that this page cannot be decoded
        raise FormatError(path, f"{where}the image data is broken: {_told(wrong)}") from wrong


def _page_pixels(page: tifffile.TiffPage, size: int, where: str, path: str) -> np.ndarray:
    # tifffile fills strips that are not there with zeros: a hole would end in a black, flat region
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if offset <= 0 or count <= 0 or offset + count > size:
            raise FormatError(
                path, f"{where}a truncated TIFF: image data up to byte {offset + count}, the file has {size}"
            )
    pixels = page.asarray(maxworkers=1)  # a worker is one thread; the lot is what runs in parallel
    if page.planarconfig == 2 and pixels.ndim == 3:  # colours one after the other instead of pixel by pixel
        pixels = np.moveaxis(pixels, 0, -1)
    return pixels


def _stack_pixels(tif: tifffile.TiffFile, page: tifffile.TiffPage, number: int, size: int, path: str) -> np.ndarray:
    bytes_each = page.nbytes
    start = page.dataoffsets[0] + number * bytes_each
    if start + bytes_each > size:
        raise FormatError(path, f"page {number}: a truncated TIFF: data up to byte {start + bytes_each}, has {size}")
    tif.filehandle.seek(start)
    flat = np.frombuffer(tif.filehandle.read(bytes_each), tif.byteorder + page.dtype.char)
    return flat.reshape(page.shape).astype(page.dtype)


def _grey(page: tifffile.TiffPage, pixels: np.ndarray, path: str) -> np.ndarray:
    """One grey channel in the order black to white, whatever the page's way to code it."""
    photometric = int(page.photometric)
    if photometric == 3:  # palette: SEM programs write grey images so, with a grey ramp as palette
        palette = page.colormap
        if palette is None or not (np.array_equal(palette[0], palette[1]) and np.array_equal(palette[0], palette[2])):
            raise FormatError(path, "a false-colour image: its palette is not grey; save it as one grey channel")
        ramp = palette[0]
        for spread in (257, 256):  # both ways to spread 8 bits over the palette's 16 occur
            if (ramp % spread == 0).all():
                ramp = (ramp // spread).astype(np.uint8)
                break
        pixels = ramp[pixels]
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if pixels.ndim == 3:
        pixels = images.one_channel(pixels, path)
    if pixels.dtype.kind == "f" and pixels.dtype != np.float32:
        pixels = pixels.astype(np.float32)
    if photometric == 0:  # white is zero
        pixels = (images.full_scale_of(pixels, path) - pixels).astype(pixels.dtype)
    return np.ascontiguousarray(pixels)


def pixel_size_nm(tif: tifffile.TiffFile, page: tifffile.TiffPage, path: str = "") -> float | None:
    """The pixel size as the microscope wrote it, or None.

    Args:
        tif: the opened file.
        page: the page whose tags are read first; makers tag the first page only.
        path: what to call it in an error.

    Returns:
        Distance of neighbouring pixels [nm]

    Raises:
        FormatError: the file says that its pixels are not square; one number would be wrong for x or y.

    Source: tag 34682 (and 34680) of FEI / Thermo Fisher, an ini text with `[Scan] PixelWidth` in metres; tag 34118 of
    Zeiss, a list with `Image Pixel Size`; `unit=` of ImageJ's description with the resolution tags.
    """
    first = tif.pages[0]
    for candidate in (page, first):
        for tag in (_FEI, _FEI_OLD):
            if tag in candidate.tags:
                return _fei_nm(candidate.tags[tag].value, path)
        if _ZEISS in candidate.tags:
            return _zeiss_nm(candidate.tags[_ZEISS].value)
    if tif.is_imagej:
        return _imagej_nm(tif.imagej_metadata or {}, first, path)
    return None


def _fei_nm(told: Any, path: str) -> float | None:
    sections = told if isinstance(told, dict) else {}
    for section in ("Scan", "EScan", "IScan"):
        width, height = (_number(sections.get(section, {}).get(name)) for name in ("PixelWidth", "PixelHeight"))
        if width:
            return _square_nm(width * 1e9, (height or width) * 1e9, path)
    return None


def _zeiss_nm(told: Any) -> float | None:
    entries = told if isinstance(told, dict) else {}
    # the image's own pixel size counts; `ap_pixel_size` is that of the scan before any reduction of the stored image
    for key in ("ap_image_pixel_size", "ap_pixel_size"):
        entry = entries.get(key)
        if isinstance(entry, tuple) and len(entry) >= 3 and entry[2] in _NM:
            value = _number(entry[1])
            return value * _NM[entry[2]] if value else None
    return None


def _imagej_nm(told: dict[str, Any], page: tifffile.TiffPage, path: str) -> float | None:
    unit = str(told.get("unit", "")).replace("\\u00B5", "µ")  # ImageJ writes the letter as an escape
    if unit not in _NM or not {"XResolution", "YResolution"} <= {tag.name for tag in page.tags}:
        return None
    (x, per_x), (y, per_y) = page.tags["XResolution"].value, page.tags["YResolution"].value
    if not (x and y and per_x and per_y):
        return None
    return _square_nm(per_x / x * _NM[unit], per_y / y * _NM[unit], path)


def _square_nm(x_nm: float, y_nm: float, path: str) -> float:
    if abs(x_nm - y_nm) > 1e-3 * x_nm:
        raise FormatError(path, f"its pixels are not square ({x_nm:g} x {y_nm:g} nm); resample it to square pixels")
    return x_nm


def _number(told: Any) -> float | None:
    """A positive, finite number, or None for what a tag may hold instead."""
    try:
        value = float(told)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) and value > 0 else None


def _told(wrong: Exception) -> str:
    return f"{type(wrong).__name__}: {wrong}".rstrip(": ")
