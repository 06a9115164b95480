"""Rows of a large TIFF: any stretch of them, without holding the rest.

`swath.open_swath` walks through an image once, in the order of its file. Here several images of one grid are read side
by side, or one at a few places only. Tiles are decoded by whole rows of tiles, and the last such row is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile

from waferlens.errors import FormatError, InputError


class TiffRows:
    """An image of one channel, opened for reading rows of it; made by `open_rows`."""

    def __init__(self, path: str, tif: tifffile.TiffFile, page: tifffile.TiffPage) -> None:
        self.path = path
        self.shape: tuple[int, int] = (int(page.shape[0]), int(page.shape[1]))
        """Rows and columns [px]"""
        self.dtype: np.dtype = page.dtype
        self._page, self._file, self._order = page, tif.filehandle, tif.byteorder
        self._kept: tuple[int, np.ndarray] | None = None

    def rows(self, first: int, last: int) -> np.ndarray:
        """A copy of the rows from `first` to before `last`, all columns.

        Raises:
            FormatError: that part of the file is damaged or missing.
        """
        page = self._page
        try:
            if page.is_memmappable:
                whole = np.memmap(self.path, self._order + page.dtype.char, "r", page.dataoffsets[0], page.shape)
                return np.array(whole[first:last], page.dtype)
            out = np.empty((last - first, self.shape[1]), page.dtype)
            tall = page.tilelength if page.is_tiled else min(page.rowsperstrip, self.shape[0])
            for number in range(first // tall, -(-last // tall)):
                band = self._band(number, tall)
                top = number * tall
                low, high = max(first, top), min(last, top + len(band))
                out[low - first : high - first] = band[low - top : high - top]
        except FormatError:
            raise
        except Exception as wrong:  # as in `formats.tiff`: damaged files raise errors of many kinds
            raise _damaged(self.path, wrong) from wrong
        return out

    def _band(self, number: int, tall: int) -> np.ndarray:
        """One row of tiles, or one strip."""
        if self._kept is not None and self._kept[0] == number:
            return self._kept[1]
        page = self._page
        h, w = self.shape
        band = np.empty((min(tall, h - number * tall), w), page.dtype)
        wide = page.tilewidth if page.is_tiled else w
        across = -(-w // wide)
        for column in range(across):
            place = number * across + column
            self._file.seek(page.dataoffsets[place])
            segment, _, _ = page.decode(self._file.read(page.databytecounts[place]), place)
            if segment is None:
                raise FormatError(self.path, "a truncated TIFF: a part of the image has no data")
            part = band[:, column * wide : (column + 1) * wide]
            part[...] = segment[0, : len(band), : part.shape[1], 0]  # tiles reach beyond the image
        self._kept = (number, band)
        return band


@contextmanager
def open_rows(path: str | Path) -> Iterator[TiffRows]:
    """The first page of a TIFF, to read rows of.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is no TIFF of one channel, or is damaged.
    """
    try:
        tif = tifffile.TiffFile(path)
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}") from wrong
    except Exception as wrong:  # as above
        raise _damaged(path, wrong) from wrong
    with tif:
        try:
            page = tif.pages[0]
            shape, channels = page.shape, page.samplesperpixel
        except Exception as wrong:  # as above
            raise _damaged(path, wrong) from wrong
        if len(shape) != 2 or channels != 1 or 0 in shape:
            raise FormatError(path, f"an image of shape {shape}; a map has one channel")
        yield TiffRows(str(path), tif, page)


def _damaged(path: str | Path, wrong: Exception) -> FormatError:
    return FormatError(path, f"a damaged or truncated TIFF: {type(wrong).__name__}: {wrong}")
