"""Height maps as the page tells them: the map with its profiles, and its numbers.

A file is levelled by the least-squares plane and nothing else is done to it. Other treatment is told by the JSON of
`waferlens measure --json`; its figures are shown where `--figures` put them beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from markupsafe import Markup

from waferlens import units
from waferlens.errors import InputError
from waferlens.formats.heightmap import read_height_map
from waferlens.measure.surface import measurements, prepare_surface
from waferlens.records import HeightMap, Measurement
from waferlens.report import charts, pictures, words

_GROUPS = (
    ("ISO 25178-2", ("Sa", "Sq", "Sp", "Sv", "Sz", "Ssk", "Sku")),
    ("levelled", ("range_levelled", "rms_levelled", "tilt_x", "tilt_y")),
    ("without outliers", ("rms_robust", "tilt_x_robust", "tilt_y_robust", "outlier_fraction")),
    ("as read", ("range_raw", "valid_fraction")),
)
_TAIL = 0.5
"""Heights outside these percentiles take the end's colour: a spike must not take them all [%]"""
_HARD_BELOW = 200  # maps of fewer points a side show them as squares


@dataclass(frozen=True, slots=True)
class Line:
    """One number as it is printed."""

    name: str
    value: str | None
    unit: str
    method: str


@dataclass(slots=True)
class Surface:
    """One height map."""

    file: str
    rows: list[Measurement]
    about: list[tuple[str, str]] = field(default_factory=list)
    """What the file says: format, channel, points, pitch."""
    remarks: list[str] = field(default_factory=list)
    steps: str = ""
    """What was done before the parameters were computed."""
    scale: pictures.Scale | None = None
    map: Markup | None = None
    profiles: list[tuple[str, Markup]] = field(default_factory=list)
    drawing: str | None = None
    """A figure of `measure --figures`, as its inline address."""

    @property
    def table(self) -> list[tuple[str, list[Line]]]:
        """The numbers in groups; all heights in one unit and to the same place."""
        unit, decimals = _unit_of_heights(self.rows)
        lines = {row.name: _line(row, unit, decimals) for row in self.rows}
        named = {name for _, names in _GROUPS for name in names}
        rest = [line for name, line in lines.items() if name not in named]
        groups = [(title, [lines[name] for name in names if name in lines]) for title, names in _GROUPS]
        return [(title, found) for title, found in [*groups, ("more", rest)] if found]


def measure_file(path: Path) -> Surface:
    """Reads, levels and measures a height map.

    Raises:
        InputError: it is no height map, or is damaged; with the reason.
        MissingExtraError: its format needs the extra `formats`.
    """
    height_map = read_height_map(path)
    done = prepare_surface(height_map)
    rows = measurements(height_map, done)
    origin = height_map.origin
    h, w = height_map.heights.shape
    width, height, length = _extent(height_map)
    out = Surface(
        str(path),
        rows,
        [
            ("format", str(origin.get("format", ""))),
            ("channel", str(origin.get("channel", ""))),
            ("points", f"{w} × {h}"),
            ("size", f"{width:.4g} × {height:.4g}{words.THIN}{words.unit(length)}"),
        ],
        [str(remark) for remark in origin.get("remarks", [])],
        done.steps,
    )
    heights, unit = _shown(done.heights, done.unit)
    low, high = pictures.span(heights, _TAIL)
    out.scale = pictures.Scale("height", low, high, unit, "height")
    picture = pictures.coloured(heights, out.scale)
    out.map = charts.map_frame(picture, width, height, length, max(h, w) < _HARD_BELOW)
    margin = 0.15 * (high - low)
    ends = (low - margin, high + margin)
    x, y = (np.arange(w) + 0.5) * width / w, (np.arange(h) + 0.5) * height / h
    out.profiles = [
        (
            f"along x, at y = {height / 2:.4g}{words.THIN}{words.unit(length)}",
            charts.profile(x, heights[h // 2], ends, unit, length, 0),
        ),
        # y points up the picture: the last row comes first
        (
            f"along y, at x = {width / 2:.4g}{words.THIN}{words.unit(length)}",
            charts.profile(y, heights[::-1, w // 2], ends, unit, length, 1),
        ),
    ]
    return out


def read_measurements(path: Path) -> list[Surface]:
    """Reads what `waferlens measure --json` printed.

    Raises:
        InputError: it is something else.
    """
    try:
        told = json.loads(path.read_text("utf-8"))
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}") from wrong
    except ValueError as wrong:
        raise InputError(path, f"is no JSON: {wrong}") from wrong
    by_file: dict[str, list[Measurement]] = {}
    try:
        for row in told:
            record = Measurement(**row)
            by_file.setdefault(str(record.file), []).append(record)
    except (TypeError, AttributeError) as wrong:
        raise InputError(path, f"is not what `waferlens measure --json` prints: {wrong}") from wrong
    if not by_file:
        raise InputError(path, "holds no measurement")
    return [_with_drawing(Surface(file, rows, steps=_steps(rows)), path.parent) for file, rows in by_file.items()]


def _unit_of_heights(rows: Sequence[Measurement]) -> tuple[str, int]:
    """The unit that keeps Sq between 1 and 1000 of it, and the decimals that show four digits of it."""
    sq = next((row for row in rows if row.name == "Sq" and row.value), None)
    if sq is None or sq.value is None or sq.unit not in ("nm", "um"):
        return "", 4
    sq_nm = units.convert(sq.value, sq.unit, "nm")
    chosen = "nm" if sq_nm < 1000 else "um"
    return chosen, min(6, max(0, 3 - math.floor(math.log10(units.convert(sq.value, sq.unit, chosen)))))


def _line(row: Measurement, unit: str, decimals: int) -> Line:
    name = {"Ssk": "Ssk (skewness)", "Sku": "Sku (kurtosis, normal is 3)"}.get(row.name, row.name.replace("_", " "))
    if row.value is None:
        return Line(name, None, "", row.method)
    if row.name.endswith("_fraction"):
        return Line(name, words.number(100 * row.value), "%", row.method)
    if row.unit in ("nm", "um") and unit:
        return Line(name, words.fixed(units.convert(row.value, row.unit, unit), decimals), words.unit(unit), row.method)
    return Line(name, words.number(row.value), words.unit(row.unit), row.method)


def _steps(rows: Sequence[Measurement]) -> str:
    found = next((row.method for row in rows if row.name == "Sa" and row.value is not None), "")
    return found.removeprefix("ISO 25178-2; ")


def _with_drawing(surface: Surface, folder: Path) -> Surface:
    path = folder / f"{Path(surface.file).name}.png"
    if path.is_file():
        try:
            surface.drawing = pictures.drawing(path.read_bytes())
        except (OSError, ValueError) as wrong:
            raise InputError(path, f"cannot be shown: {wrong}") from wrong
    return surface


def _shown(heights: np.ndarray, unit: str) -> tuple[np.ndarray, str]:
    """Heights in the unit that keeps their numbers short."""
    if unit == "grey" or not np.isfinite(heights).any():
        return heights, unit
    low, high = pictures.span(heights, _TAIL)
    reach_um = units.convert(high - low, unit, "um")
    chosen = "nm" if reach_um < 0.5 else "um" if reach_um < 2000 else "mm"
    return units.convert(heights, unit, chosen), chosen


def _extent(height_map: HeightMap) -> tuple[float, float, str]:
    """Width and height in the unit that keeps them between 1 and 1000."""
    h, w = height_map.heights.shape
    width, height, unit = w * height_map.pitch_x, h * height_map.pitch_y, height_map.pitch_unit
    if unit == "px":
        return width, height, "px"
    longest = units.convert(max(width, height), unit, "um")
    chosen = "nm" if longest < 1 else "um" if longest < 1000 else "mm"
    return units.convert(width, unit, chosen), units.convert(height, unit, chosen), chosen
