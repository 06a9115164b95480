"""Raw frames of the wafer tool: height and width, little-endian, then rows of 16-bit grey.

Height and width are numbers of two bytes each, or of four; the size of the file tells which. Both can never fit: read
as four bytes the height holds the two-byte width as its upper half, so that such a frame would have more pixels in one
column than the file has in all.

Source: S0 (its reader of raw frames).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt16

from waferlens.errors import FormatError, InputError
from waferlens.formats.height_parts import write_whole

_HEADERS: tuple[tuple[Literal[2, 4], str], ...] = ((2, "<HH"), (4, "<II"))
BIG_TIFF_BYTES = 2**31


def read_raw_frame(path: str | Path) -> UInt16[np.ndarray, "h w"]:
    """The frame, every one of its 16 bits kept.

    Raises:
        InputError: the file cannot be read.
        FormatError: the size of the file fits neither kind of header; says what each promises.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}") from wrong
    promised = []
    for each, kind in _HEADERS:
        if len(start) < 2 * each:
            continue
        height, width = struct.unpack_from(kind, start)
        wanted = 2 * each + 2 * height * width
        if height and width and wanted == size:
            return np.fromfile(path, "<u2", offset=2 * each).astype(np.uint16, copy=False).reshape(height, width)
        promised.append(f"{each}-byte numbers {height} x {width} px, {wanted} bytes ({_compared(size, wanted)})")
    if not promised:
        raise FormatError(path, f"a raw frame begins with height and width; the file has {size} bytes")
    told = "; as ".join(promised)
    raise FormatError(path, f"no raw frame, or not a whole one: the file has {size} bytes; read as {told}")


def write_raw_frame(path: str | Path, pixels: UInt16[np.ndarray, "h w"], number_bytes: Literal[2, 4] = 2) -> None:
    """Writes a frame as the tool does.

    Args:
        path: The file.
        pixels: Grey.
        number_bytes: Of height and width each.

    Raises:
        InputError: the frame is too large for two bytes.
    """
    height, width = pixels.shape
    if number_bytes == 2 and max(height, width) > 0xFFFF:
        raise InputError(path, f"{height} x {width} px do not fit into two bytes each; write four")
    head = struct.pack(dict(_HEADERS)[number_bytes], height, width)
    write_whole(Path(path), lambda beside: beside.write_bytes(head + pixels.astype("<u2").tobytes()))


def write_grey16(path: str | Path, pixels: UInt16[np.ndarray, "h w"]) -> None:
    """Writes 16-bit grey as PNG or TIFF, by the ending of the name.

    Raises:
        InputError: the name ends otherwise, or the image cannot be PNG.
    """
    path = Path(path)
    if path.suffix.lower() == ".png":
        try:
            done, data = cv2.imencode(".png", pixels)
        except cv2.error as wrong:
            raise InputError(path, f"cannot be written as PNG: {wrong.err}; write a TIFF") from wrong
        if not done:
            raise InputError(path, "cannot be written as PNG; write a TIFF")
        write_whole(path, lambda beside: beside.write_bytes(data.tobytes()))
    elif path.suffix.lower() in (".tif", ".tiff"):
        import tifffile  # needed for TIFF only, and costs start-up time

        big = pixels.nbytes > BIG_TIFF_BYTES
        write_whole(
            path,
            lambda beside: tifffile.imwrite(
                beside, pixels, photometric="minisblack", metadata=None, software=False, bigtiff=big
            ),
        )
    else:
        raise InputError(path, "16-bit grey is written as .tif or .png")


def _compared(size: int, wanted: int) -> str:
    if size < wanted:
        return f"{wanted - size} are missing"
    return f"{size - wanted} too many"
