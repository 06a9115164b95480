"""Height maps as TIFF: float32, float64, or 16 bits with a scale; unit, pitch and origin in the image description.

The description is one JSON object that begins with `{"waferlens": "height map"`; other programs show it as text and
open the picture as any float or 16-bit image. Page 1 holds the heights, page 2 sigma where there is one. In 16 bits
the height is `offset + scale * grey` and grey 0 means not valid; in floats NaN does.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from waferlens.errors import FormatError, UsageError
from waferlens.formats.height_parts import MOST_POINTS, Match, Offer, assemble, choose_channel, write_whole
from waferlens.records import HeightMap

TILE_PX, LARGE_PX = 256, 8192
"""Maps with more rows or columns are written in tiles, so that a part of them can be read alone [px]"""
_KIND = "height map"
_STEPS = 65_534
_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def match(first: bytes) -> Match:
    # Some instruments write TIFF too; the description tells ours apart.
    return Match.MAYBE if first[:4] in _MAGICS else Match.NO


def holds(path: Path) -> bool:
    """Whether a TIFF is a height map of ours, or at least one page of floats."""
    pages, note = _pages(path)
    return note is not None or (len(pages) == 1 and pages[0].dtype.kind == "f" and pages[0].ndim == 2)


def read(path: Path, channel: str | None = None) -> HeightMap:
    """The heights of a TIFF; without our description they are floats without unit and pitch.

    Raises:
        FormatError: the file is truncated, or holds grey values that no scale makes heights.
    """
    pages, note = _pages(path)
    choose_channel(path, [Offer("Height", None)], channel)
    if note is None:
        if len(pages) != 1 or pages[0].ndim != 2 or pages[0].dtype.kind != "f":
            raise FormatError(path, "a TIFF picture: grey values without unit, scale and pitch are no heights")
        return assemble(path, pages[0], unit=None, pitch=(1.0, 1.0), pitch_unit=None, origin=_origin(note))
    try:
        scale, offset = float(note.get("scale", 1.0)), float(note.get("offset", 0.0))
        grey = pages[0]
        heights = grey.astype(np.float64) * scale + offset if grey.dtype.kind == "u" else grey
        unit, pitch_unit = str(note["unit"]), str(note["pitch_unit"])
        made = assemble(
            path,
            heights,
            unit=None if unit == "grey" else unit,
            pitch=(float(note["pitch_x"]), float(note["pitch_y"])),
            pitch_unit=None if pitch_unit == "px" else pitch_unit,
            invalid=grey == 0 if grey.dtype.kind == "u" else None,
            origin=_origin(note),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(path, f"the description of the height map is incomplete: {error}") from error
    return replace(made, sigma=pages[1]) if len(pages) > 1 else made


def write(path: Path, height_map: HeightMap, *, bits: Literal[16, 32, 64] | None = None) -> None:
    """Write a map with all that is known about it.

    Args:
        path: the file to write.
        height_map: the map.
        bits: 16 quantises the range of the map into 65,534 steps; as the map is kept where it is None.

    Raises:
        UsageError: 16 bits are asked for together with sigma, which needs floats.
    """
    import tifffile

    heights = np.where(height_map.valid, height_map.heights, math.nan)
    note: dict[str, Any] = {
        "waferlens": _KIND,
        "unit": height_map.unit,
        "pitch_x": height_map.pitch_x,
        "pitch_y": height_map.pitch_y,
        "pitch_unit": height_map.pitch_unit,
        "origin": {key: height_map.origin[key] for key in sorted(height_map.origin)},
    }
    if bits == 16:
        if height_map.sigma is not None:
            raise UsageError(f"{path}: 16 bits hold heights only; write 32 bits to keep sigma")
        low, high = (float(np.nanmin(heights)), float(np.nanmax(heights))) if height_map.valid.any() else (0.0, 0.0)
        note["scale"] = (high - low) / _STEPS or 1.0
        note["offset"] = low - note["scale"]
        grey = np.rint((heights - note["offset"]) / note["scale"])
        pages = [np.where(height_map.valid, grey, 0).astype(np.uint16)]
    else:
        dtype = height_map.heights.dtype if bits is None else np.dtype(f"f{bits // 8}")
        pages = [heights.astype(dtype)]
        if height_map.sigma is not None:
            pages.append(np.asarray(height_map.sigma, np.float32))
    # ASCII is all that the description may hold: µ and others become escapes.
    description = json.dumps(note, default=str)

    def pack(beside: Path) -> None:
        with tifffile.TiffWriter(beside, bigtiff=sum(page.nbytes for page in pages) > 2**31) as tiff:
            for number, page in enumerate(pages):
                text = description if number == 0 else "sigma"
                tile = (TILE_PX, TILE_PX) if max(page.shape) > LARGE_PX else None
                tiff.write(page, photometric="minisblack", description=text, metadata=None, tile=tile)

    write_whole(path, pack)


def _pages(path: Path) -> tuple[list[np.ndarray], dict[str, Any] | None]:
    """The pages of a TIFF, and our description if it has one."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            note = _note(tiff.pages[0].description)
            if math.prod(tiff.pages[0].shape) > MOST_POINTS:
                raise ValueError(f"it promises {tiff.pages[0].shape} points; at most {MOST_POINTS} are read")
            return ([page.asarray() for page in tiff.pages] if note or len(tiff.pages) == 1 else []), note
    except (tifffile.TiffFileError, ValueError, KeyError, IndexError, OSError, RuntimeError) as error:
        raise FormatError(path, f"damaged or truncated TIFF: {error}") from error


def _note(description: str) -> dict[str, Any] | None:
    if not description.lstrip().startswith("{"):
        return None
    try:
        note = json.loads(description)
    except json.JSONDecodeError:
        return None
    return note if isinstance(note, dict) and note.get("waferlens") == _KIND else None


def _origin(note: dict[str, Any] | None) -> dict[str, Any]:
    before = {} if note is None else note.get("origin", {})
    return {"format": "TIFF", "channel": "Height", "channels": ["Height"], "before": before}
