"""Swaths part by part: images too large to hold, in the order in which their file holds them.

A swath of 4,352 x 234,342 px has a billion pixels. TIFF is read tile by tile or strip by strip and never held whole;
other images are small and read as any image. `read_swath` keeps the mean of each column and a small copy to look at.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import Float32, Float64

from waferlens.errors import FormatError, InputError
from waferlens.formats import images

BLOCK_ROWS = 64
LOOK_ROWS, LOOK_COLUMNS = 120, 1600
"""Most rows and columns of the copy to look at [px]"""


@dataclass(frozen=True, slots=True, eq=False)
class Swath:
    """What is kept of a swath."""

    path: str
    columns: Float64[np.ndarray, " w"]
    """Mean grey of each column, 0 black .. 1 white."""
    rows: int
    """Of the image [px]"""
    bits: int
    """Of a pixel; 32 for floats."""
    look: Float32[np.ndarray, "p q"]
    """Every so many rows and columns of it, 0..1."""

    @property
    def width(self) -> int:
        """Columns [px]"""
        return len(self.columns)


Part = tuple[np.ndarray, int, int]
"""Pixels, and the row and column of the first of them. A part may reach beyond the image: what does is to be cut."""


@dataclass(frozen=True, slots=True, eq=False)
class SwathParts:
    """An image that is read part by part."""

    path: str
    shape: tuple[int, int]
    """Rows and columns [px]"""
    dtype: np.dtype
    white: float
    """Grey of white."""
    parts: Iterator[Part]
    """Each pixel once, in the order of the file."""


@contextmanager
def open_swath(path: str | Path) -> Iterator[SwathParts]:
    """An image and its parts.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is no image, truncated, or not of one grey channel; some faults show only as parts are read.
    """
    if not images.is_tiff(str(path)):
        image = next(images.read_images(path))
        h, w = image.pixels.shape
        yield SwathParts(str(path), (h, w), image.pixels.dtype, image.full_scale, iter([(image.pixels, 0, 0)]))
        return
    try:
        size = Path(path).stat().st_size
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}") from wrong
    try:
        tif = tifffile.TiffFile(path)
    except Exception as wrong:  # as in `formats.tiff`: damaged files raise errors of many kinds
        raise FormatError(path, f"a damaged or truncated TIFF: {type(wrong).__name__}: {wrong}") from wrong
    with tif:
        page = _page(tif, size, str(path))
        yield SwathParts(str(path), page.shape, page.dtype, _white(page.dtype, str(path)), _parts(tif, page, str(path)))


def read_swath(path: str | Path) -> Swath:
    """The columns of a swath.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is no image, truncated, not of one grey channel, or holds NaN.
    """
    with open_swath(path) as opened:
        kept = _Columns(opened.path, opened.shape, opened.dtype, opened.white)
        for part, row, column in opened.parts:
            kept.add(part, row, column)
        return kept.swath()


def _page(tif: tifffile.TiffFile, size: int, path: str) -> tifffile.TiffPage:
    try:
        page = tif.pages[0]
        _require_grey(page, len(tif.pages), size, path)
    except FormatError:
        raise
    except Exception as wrong:  # as above
        raise FormatError(path, f"a damaged or truncated TIFF: {type(wrong).__name__}: {wrong}") from wrong
    return page


def _parts(tif: tifffile.TiffFile, page: tifffile.TiffPage, path: str) -> Iterator[Part]:
    try:
        if page.is_memmappable:  # one strip may be the whole image: it is walked through without being held
            number = tif.byteorder + page.dtype.char
            whole = np.memmap(path, number, "r", page.dataoffsets[0], page.shape)
            for row in range(0, page.shape[0], BLOCK_ROWS):
                yield whole[row : row + BLOCK_ROWS], row, 0
            return
        # tifffile decodes ahead with as many threads as there are cores; a line is what runs in parallel
        for segment, index, shape in page.segments(maxworkers=1):
            if segment is None:
                raise FormatError(path, "a truncated TIFF: a part of the image has no data")
            yield segment[0, : shape[1], : shape[2], 0], index[2], index[3]
    except FormatError:
        raise
    except Exception as wrong:  # as above
        raise FormatError(path, f"a damaged or truncated TIFF: {type(wrong).__name__}: {wrong}") from wrong


class _Columns:
    """Sums of columns as the parts of an image come."""

    def __init__(self, path: str, shape: tuple[int, ...], dtype: np.dtype, white: float) -> None:
        self.path, self.shape, self.dtype, self.white = path, shape, dtype, white
        self.sums = np.zeros(shape[1])
        self.step = max(1, -(-shape[0] // LOOK_ROWS)), max(1, -(-shape[1] // LOOK_COLUMNS))
        self.look = np.zeros([-(-side // step) for side, step in zip(shape, self.step, strict=True)], np.float32)

    def add(self, part: np.ndarray, row: int, column: int) -> None:
        part = part[: self.shape[0] - row, : self.shape[1] - column]
        w = part.shape[1]
        self.sums[column : column + w] += part.sum(axis=0, dtype=np.float64)
        first, left = -row % self.step[0], -column % self.step[1]
        seen = part[first :: self.step[0], left :: self.step[1]]
        if seen.size:
            y, x = (row + first) // self.step[0], (column + left) // self.step[1]
            self.look[y : y + seen.shape[0], x : x + seen.shape[1]] = seen / self.white

    def swath(self) -> Swath:
        means = self.sums / (self.shape[0] * self.white)
        if not np.isfinite(means).all():
            bad = int(np.flatnonzero(~np.isfinite(means))[0])
            raise FormatError(self.path, f"column {bad} holds NaN or infinite grey values")
        return Swath(self.path, means, self.shape[0], 8 * self.dtype.itemsize, self.look)


def _require_grey(page: tifffile.TiffPage, pages: int, size: int, path: str) -> None:
    if pages > 1:
        raise FormatError(path, f"a TIFF of {pages} pages; a swath is one image")
    if page.samplesperpixel != 1 or len(page.shape) != 2:
        raise FormatError(path, f"an image of shape {page.shape}; a swath has one grey channel")
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if offset <= 0 or count <= 0 or offset + count > size:
            raise FormatError(path, f"a truncated TIFF: image data up to byte {offset + count}, the file has {size}")


def _white(dtype: np.dtype, path: str) -> float:
    if dtype.kind == "u":
        return float(np.iinfo(dtype).max)
    if dtype.kind == "f":
        return 1.0
    raise FormatError(path, f"pixels of type {dtype}; uint8, uint16 and float are read")
