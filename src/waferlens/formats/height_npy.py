"""Heights as a NumPy array file: a 2-D array of floats, NaN where not valid. It knows neither unit nor pitch."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from waferlens.errors import FormatError
from waferlens.formats.height_parts import Match, Offer, assemble, choose_channel, write_whole
from waferlens.records import HeightMap


def match(first: bytes) -> Match:
    return Match.YES if first.startswith(b"\x93NUMPY") else Match.NO


def read(path: Path, channel: str | None = None) -> HeightMap:
    """The array as a map without unit and pitch.

    Raises:
        FormatError: it is truncated, holds objects, or is no 2-D array of floats.
    """
    choose_channel(path, [Offer("Height", None)], channel)
    try:
        # Objects are pickles, and a pickle is a program of a stranger.
        # Mapped first: a header that promises more than the file holds is refused before memory is asked for.
        heights = np.load(path, allow_pickle=False, mmap_mode="r")
    except Exception as error:  # the header is Python text, its parser fails with anything: passed on
        raise FormatError(path, f"damaged or unreadable .npy file: {error}") from error
    if heights.dtype.kind != "f":
        raise FormatError(path, f"holds {heights.dtype}; heights are floats, and grey values are no heights")
    origin = {"format": "NPY", "channel": "Height", "channels": ["Height"]}
    return assemble(path, heights, unit=None, pitch=(1.0, 1.0), pitch_unit=None, origin=origin)


def write(path: Path, height_map: HeightMap) -> None:
    """Write the heights alone: unit, pitch and sigma have no place in the format."""
    heights = np.where(height_map.valid, height_map.heights, math.nan).astype(height_map.heights.dtype)

    def pack(beside: Path) -> None:
        with beside.open("wb") as file:
            np.save(file, heights, allow_pickle=False)

    write_whole(path, pack)
