"""What the folder of a map tells beside its arrays: the map itself, its dies, its fields of focus, how flat it is."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from waferlens.errors import FormatError, InputError
from waferlens.inspect.swath_files import FIELD, STITCH

DIES, FOCUS, FLATNESS = "dies.json", "focus.json", "flatness.json"


@dataclass(frozen=True, slots=True)
class MapFiles:
    """The JSON of one map; what is not there is None."""

    folder: Path
    field: dict[str, Any]
    dies: list[dict[str, Any]] | None
    """Sites of the die map."""
    focus: dict[str, Any] | None
    flatness: dict[str, Any] | None
    stitch: dict[str, Any] | None
    pitch_um: float

    @property
    def truth(self) -> Path | None:
        """Where the true heights lie."""
        told = self.field.get("truth")
        return Path(told) if told else None

    @property
    def factor(self) -> float:
        """Half-width of the interval in sigma."""
        return float(self.field.get("half_width_factor") or 1.645)

    @property
    def coverage(self) -> float:
        """Of the interval."""
        return float(self.field.get("coverage") or 0.9)

    def along(self, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Place and height of `track` or `objective` [um]; None where it was not known."""
        told = self.field.get(name)
        if not told:
            return None
        heights = [math.nan if z is None else float(z) for z in told["z_um"]]
        return np.array(told["x_um"], np.float64), np.array(heights, np.float64)


def read_map_files(folder: Path) -> MapFiles:
    """Reads what a map tells.

    Raises:
        InputError: there is no map, or a file of it is damaged.
    """
    field = _read(folder / FIELD)
    if field is None:
        raise InputError(folder / FIELD, "is not there: the map was removed or never written")
    dies, focus = _read(folder / DIES), _read(folder / FOCUS)
    flatness, stitch = _read(folder / FLATNESS), _read(folder / STITCH)
    try:
        files = MapFiles(
            folder,
            field,
            None if dies is None else [one for one in dies["sites"] if _box(one)],
            None if focus is None else {**focus, "fields": [one for one in focus["fields"] if _box(one)]},
            flatness,
            stitch,
            float(field["pitch_um"]),
        )
        files.along("track"), files.along("objective")
    except (KeyError, TypeError, ValueError) as wrong:
        raise FormatError(folder, f"its JSON is not that of a map: {type(wrong).__name__}: {wrong}") from wrong
    if not (math.isfinite(files.pitch_um) and files.pitch_um > 0):
        raise FormatError(folder / FIELD, f"pitch_um = {files.pitch_um:g} must be positive")
    return files


def _box(one: dict[str, Any]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (float(edge) for edge in one["box_um"])
    return x0, y0, x1, y1


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text("utf-8"))
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}") from wrong
    except ValueError as wrong:
        raise FormatError(path, f"is no JSON: {wrong}") from wrong
    if not isinstance(told, dict):
        raise FormatError(path, "is no JSON of a map")
    return told
