"""What all readers of height maps share: recognising a file, choosing its height channel, building the map."""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from waferlens import units
from waferlens.errors import FormatError, InputError, UsageError
from waferlens.records import HeightMap

MOST_POINTS = 2**29
"""Most points a file may promise; more is a damaged header or a decompression bomb"""


class Match(Enum):
    """What the first bytes of a file say about a format."""

    YES = "yes"
    """It is this format, and what is wrong with it is this reader's to say."""
    MAYBE = "maybe"
    """It could be."""
    NO = "no"


@dataclass(frozen=True, slots=True)
class Offer:
    """A channel that a file has to offer."""

    name: str
    unit: str | None
    """Unit of its values as the file writes it, None where the file does not say."""
    is_map: bool = True
    """False for profiles and point lists."""


# AFM controllers give amplitude and deflection in metres too, so a length alone makes no height.
_NOT_HEIGHT = re.compile(r"ampl|deflect|phase|error|friction|lateral|current|potential|sigma|uncertain", re.IGNORECASE)
_SECOND_DIRECTION = re.compile(r"retrace|backward|bwd|reverse", re.IGNORECASE)

_SCALES = {  # unit as files write it -> (unit of the map, divisor): the powers of ten stay exact that way
    "m": ("m", 1.0),
    "mm": ("um", 1e-3),
    "cm": ("um", 1e-4),
    "km": ("m", 1e-3),
    "um": ("um", 1.0),
    "nm": ("nm", 1.0),
    "pm": ("nm", 1e3),
    "\u00c5": ("nm", 1e1),  # the letter and the sign of the ångström; a bare A is the ampere
    "\u212b": ("nm", 1e1),
    "Ang": ("nm", 1e1),
    "Angstrom": ("nm", 1e1),
}


def spelled(unit: str | None) -> str | None:
    """A length unit as this package spells it, None where it is no length."""
    if unit is None:
        return None
    plain = unit.strip().replace("µ", "u").replace("μ", "u").replace("~m", "um")
    plain = {"micron": "um", "microns": "um", "nanometer": "nm", "meter": "m", "metre": "m"}.get(plain.lower(), plain)
    return plain if plain in _SCALES else None


def choose_channel(path: Path, offers: Sequence[Offer], wanted: str | None = None) -> int:
    """The height channel of a file: the first in the file that is a length and no other quantity by its name.

    Forward scans come before backward ones. A wanted channel is found by its name, or by its number where names repeat.

    Raises:
        FormatError: there is no height channel, or the wanted channel is none.
        InputError: there is no channel of that name.
    """
    listed = ", ".join(f"{number}: {offer.name} [{offer.unit or '?'}]" for number, offer in enumerate(offers)) or "none"
    if wanted is not None:
        by_name = [i for i, offer in enumerate(offers) if offer.name.casefold() == wanted.strip().casefold()]
        if not by_name and wanted.strip().isdigit() and int(wanted) < len(offers):
            by_name = [int(wanted)]
        if not by_name:
            raise InputError(path, f"has no channel '{wanted}'; channels: {listed}")
        offer = offers[by_name[0]]
        if not offer.is_map or (offer.unit is not None and spelled(offer.unit) is None):
            raise FormatError(
                path, f"channel '{offer.name}' is in '{offer.unit}' and no height map; channels: {listed}"
            )
        return by_name[0]
    heights = [
        i
        for i, offer in enumerate(offers)
        if offer.is_map
        and (offer.unit is None or spelled(offer.unit) is not None)
        and not _NOT_HEIGHT.search(offer.name)
    ]
    if not heights:
        raise FormatError(path, f"no channel is a height map (a length over x and y); channels: {listed}")
    return min(heights, key=lambda i: (bool(_SECOND_DIRECTION.search(offers[i].name)), i))


def assemble(
    path: Path,
    heights: np.ndarray,
    *,
    unit: str | None,
    pitch: tuple[float, float],
    pitch_unit: str | None,
    invalid: np.ndarray | None = None,
    sigma: np.ndarray | None = None,
    origin: dict[str, Any],
) -> HeightMap:
    """A `HeightMap` from what a reader found, in the file's own unit where this package knows it.

    Units that the package does not keep for heights become the nearest one that it does (mm and cm: um; pm and Å: nm);
    `origin` always tells the unit of the file. No unit means `grey` for heights and `px` for the pitch.

    Raises:
        FormatError: it is no map of two dimensions, or a pitch is not a positive number.
    """
    if heights.ndim != 2 or min(heights.shape) < 2:
        size = " x ".join(map(str, heights.shape))
        raise FormatError(path, f"holds an array of {size}: a profile or a stack, not a height map of rows and columns")
    if not all(math.isfinite(p) and p > 0 for p in pitch):
        raise FormatError(path, f"the pitch must be positive, the file says {pitch[0]:g} x {pitch[1]:g} {pitch_unit}")
    floats = heights.astype(np.float32 if heights.dtype in (np.float16, np.float32) else np.float64)
    height_unit, divisor = _SCALES[spelled(unit) or "m"] if unit else ("grey", 1.0)
    valid = np.isfinite(floats) if invalid is None else np.isfinite(floats) & ~invalid
    floats[~valid] = math.nan
    x, y, kept_unit = *pitch, "px"
    if pitch_unit:
        kept_unit, pitch_divisor = _SCALES[spelled(pitch_unit) or "m"]
        if spelled(pitch_unit) == "mm":
            kept_unit, pitch_divisor = "mm", 1.0
        x, y = pitch[0] / pitch_divisor, pitch[1] / pitch_divisor
    return HeightMap(
        heights=floats / divisor if divisor != 1 else floats,
        valid=valid,
        unit=height_unit,
        pitch_x=float(x),
        pitch_y=float(y),
        pitch_unit=kept_unit,
        sigma=None if sigma is None else sigma / divisor,
        origin={"file": str(path), "file_unit": unit, "file_pitch_unit": pitch_unit, "remarks": [], **origin},
    )


def metres(height_map: HeightMap, path: Path) -> tuple[np.ndarray, tuple[float, float]]:
    """Heights and pitches in metres, for formats that know no other unit.

    Raises:
        UsageError: the map is not calibrated.
    """
    if height_map.unit == "grey" or height_map.pitch_unit == "px":
        raise UsageError(
            f"{path}: this format holds lengths, and the map has heights in {height_map.unit} over a pitch in "
            f"{height_map.pitch_unit}; write .tif or .npy, or say the unit and the pitch first"
        )
    return units.convert(height_map.heights.astype(np.float64), height_map.unit, "m"), (
        units.convert(height_map.pitch_x, height_map.pitch_unit, "m"),
        units.convert(height_map.pitch_y, height_map.pitch_unit, "m"),
    )


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Write beside the target and rename: nobody ever meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    beside = Path(name)
    try:
        write(beside)
        # mkstemp makes private files; the map is as readable as any file the user writes.
        beside.chmod(0o666 & ~_umask())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
