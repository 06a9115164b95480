"""The door to height maps: one function reads them all, one writes ours.

What a file is, its first bytes say and never its name. Formats are asked in turn and answer YES, MAYBE or NO; the
first YES reads, else the first MAYBE that looks inside and agrees. Row 0 of a map is the first row of the file.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from waferlens import units
from waferlens.errors import FormatError, InputError, UsageError
from waferlens.formats import gwy, height_npy, height_tiff, instruments, x3p
from waferlens.formats.height_parts import Match
from waferlens.records import HeightMap

WRITERS = {
    ".gwy": gwy.write,
    ".x3p": x3p.write,
    ".tif": height_tiff.write,
    ".tiff": height_tiff.write,
    ".npy": height_npy.write,
}


def read_height_map(
    path: str | Path, channel: str | None = None, *, pitch_um: float | None = None, unit: str | None = None
) -> HeightMap:
    """The height channel of a file, in the unit and with the pitch that the file says.

    Args:
        path: the file.
        channel: name (or number) of a channel; the file's first height channel where it is None.
        pitch_um: pitch for a file that does not say its own [um]
        unit: unit of the heights for a file that does not say its own: nm, um, mm or m.

    Returns:
        The map; `origin` tells the format, the channel taken, the channels there are, and remarks.

    Raises:
        InputError: there is no such file or no such channel.
        FormatError: it is no height map, is damaged, or says no pitch; says which.
        MissingExtraError: an instrument's format needs the extra `formats`.
        UsageError: the pitch or the unit handed in is none.
    """
    path = Path(path)
    if pitch_um is not None and not 0 < pitch_um < float("inf"):
        raise UsageError(f"the pitch must be a positive number of um, got {pitch_um:g}")
    if unit is not None and units.dimension(unit) != "length":
        raise UsageError(f"heights are lengths, and '{unit}' is none; say nm, um, mm or m")
    try:
        with path.open("rb") as file:
            first = file.read(512)
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror or error}") from error
    height_map = _read(path, first, channel)
    if height_map.origin["format"] == "NPY" and pitch_um is None:
        raise FormatError(path, "a NumPy array says no pitch; give it with --pitch-um")
    return _completed(height_map, pitch_um, unit)


def write_height_map(path: str | Path, height_map: HeightMap) -> None:
    """Write a map in the format of the file's ending: .gwy, .x3p, .tif, .tiff or .npy.

    Raises:
        UsageError: the ending is unknown, or the format cannot hold the map.
    """
    path = Path(path)
    write = WRITERS.get(path.suffix.lower())
    if write is None:
        raise UsageError(f"{path}: height maps are written as {', '.join(WRITERS)}, not as '{path.suffix}'")
    write(path, height_map)


def _read(path: Path, first: bytes, channel: str | None) -> HeightMap:
    for form in (gwy, height_npy):
        if form.match(first) is Match.YES:
            return form.read(path, channel)
    for form in (x3p, height_tiff):
        if form.match(first) is Match.MAYBE and form.holds(path):
            return form.read(path, channel)
    if height_tiff.match(first) is Match.MAYBE and path.suffix.lower() in (".tif", ".tiff"):
        return height_tiff.read(path, channel)  # a plain picture: refused with its reason
    return instruments.read(path, channel)


def _completed(height_map: HeightMap, pitch_um: float | None, unit: str | None) -> HeightMap:
    """The map with what was handed in for what its file does not say; what the file says stays."""
    remarks = height_map.origin["remarks"]
    if pitch_um is not None and height_map.pitch_unit == "px":
        remarks.append(f"the file says no pitch; {pitch_um:g} um was handed in")
        height_map = replace(height_map, pitch_x=pitch_um, pitch_y=pitch_um, pitch_unit="um")
    if unit is not None and height_map.unit == "grey":
        unit = units.canonical(unit)
        heights = height_map.heights
        if unit == "mm":
            heights, unit = units.convert(heights, "mm", "um"), "um"
        remarks.append(f"the file says no unit of the heights; {unit} was handed in")
        height_map = replace(height_map, heights=heights, unit=unit)
    if height_map.unit == "grey":
        remarks.append("the file says no unit of the heights: they are numbers of their own (grey)")
    if height_map.pitch_unit == "px":
        remarks.append("the file says no unit of the pitch: it is counted as px")
    return height_map
