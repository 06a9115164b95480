"""Height maps of many images packed into one TIFF: float32, opened by ImageJ, OpenCV, MATLAB and whatever reads TIFF.

One file of some hundred maps instead of as many files: a lot of 100,000 images leaves 400 files behind, and writing
costs a hundredth of measuring. Each map is one time step with one channel (height) or two (height, sigma); the slice
labels of ImageJ hold the name of the image. Heights are positive up with the plateau at 0, in the unit the file names.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import Float32

from waferlens.errors import FormatError, InputError

CHANNELS = ("height", "sigma")


@dataclass(frozen=True, slots=True)
class MapStack:
    """The maps of one file."""

    heights: Float32[np.ndarray, "n h w"]
    """Positive up, the plateau at 0 [unit]"""
    sigma: Float32[np.ndarray, "n h w"] | None
    """Standard deviation of every height; None if the file has none [unit]"""
    unit: str
    """`nm`, or `grey` without a depth calibration."""
    pixel_nm: float | None
    """Pixel size, if all maps of the file have one and the same [nm]"""
    names: list[str]
    """What each map was measured on."""


def write_map_stack(path: str | Path, stack: MapStack) -> None:
    """Writes the maps, at once or not at all: the file appears under its name only when it is whole.

    Args:
        path: the file; one of that name is replaced.
        stack: at least one map.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    if stack.sigma is None:
        planes = stack.heights[:, np.newaxis]
    else:
        planes = np.stack([stack.heights, stack.sigma], axis=1)
    channels = CHANNELS[: planes.shape[1]]
    # ImageJ's own name for what grey values mean has no field of its own in TIFF; `Info` is shown by "Show Info"
    metadata: dict[str, object] = {
        "axes": "TCYX",
        "Labels": [f"{name} {channel}" for name in stack.names for channel in channels],
        "Info": f"waferlens maps\nunit of heights: {stack.unit}\npositive up, plateau at 0",
    }
    resolution = {}
    if stack.pixel_nm is not None:
        metadata["unit"] = "nm"
        resolution = {"resolution": (1 / stack.pixel_nm, 1 / stack.pixel_nm)}
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        os.close(handle)
        tifffile.imwrite(temporary, planes.astype(np.float32, copy=False), imagej=True, metadata=metadata, **resolution)
        Path(temporary).chmod(0o644)  # mkstemp makes files for the owner only
        Path(temporary).replace(path)
    except BaseException as wrong:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(wrong, OSError):
            raise InputError(path, f"cannot be written: {wrong.strerror or wrong}") from wrong
        raise


def read_map_stack(path: str | Path, maps: range | None = None) -> MapStack:
    """Reads what `write_map_stack` wrote.

    Args:
        path: the file.
        maps: which of them, counted from 0; all if None. Only these are read.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is no stack of maps, truncated, or has fewer maps.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, tifffile.TiffFile(file, name=path.name) as tif:
            told, page = tif.imagej_metadata or {}, tif.pages[0]
            info = str(told.get("Info", ""))
            if not info.startswith("waferlens maps") or page.dtype != np.float32 or not page.is_contiguous:
                raise FormatError(path, "not a stack of maps written by waferlens")
            channels, count = int(told.get("channels", 1)), int(told.get("frames", 1))
            wanted = range(count) if maps is None else maps
            if any(not 0 <= index < count for index in wanted):
                raise FormatError(path, f"has {count} maps, asked for {wanted}")
            h, w = page.shape[-2:]
            planes = np.empty((len(wanted), channels, h, w), np.float32)
            for place, index in zip(planes, wanted, strict=True):
                file.seek(page.dataoffsets[0] + index * place.nbytes)
                data = np.frombuffer(file.read(place.nbytes), np.dtype(np.float32).newbyteorder(tif.byteorder))
                if data.size != place.size:
                    raise FormatError(path, f"a truncated stack: it ends inside map {index} of {count}")
                place[:] = data.reshape(place.shape)
            labels = told.get("Labels", [])
            labels = [labels] if isinstance(labels, str) else labels[::channels]  # tifffile unpacks a list of one
            names = [str(labels[index]).removesuffix(" height") for index in wanted] if len(labels) == count else []
            pixel_nm = None
            if told.get("unit") == "nm" and "XResolution" in page.tags:
                number, of = page.tags["XResolution"].value
                pixel_nm = of / number if number else None
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}") from wrong
    except InputError:
        raise
    except Exception as wrong:  # tifffile raises errors of many kinds (struct, value, index) on damaged files
        raise FormatError(path, f"a damaged stack of maps: {type(wrong).__name__}: {wrong}") from wrong
    unit = info.splitlines()[1].rpartition(": ")[2] if len(info.splitlines()) > 1 else "grey"
    return MapStack(planes[:, 0], planes[:, 1] if channels > 1 else None, unit, pixel_nm, names)
