"""The folder of a map: height, sigma, classes and image as TIFF in tiles, and what was found as tables and JSON.

field.json    what the map is: grid, place, what the network was told, trace
image.tif     uint16, on the grid of the map
height.tif    float32 above the carrier, NaN where not known [um]; `waferlens measure` reads it
sigma.tif     float32, one standard deviation [um]
classes.tif   uint8: 0 die, 1 street, 2 site of a missing die, 255 not known
dies.csv, focus.csv, flatness.csv and the same as .json
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from waferlens.errors import InputError, UsageError
from waferlens.formats.heightmap import write_height_map
from waferlens.inspect.swath_map import SwathMap
from waferlens.records import HeightMap, Product

FIELD, STITCH = "field.json", "stitch.json"
IMAGE, HEIGHT, SIGMA, CLASSES = "image.tif", "height.tif", "sigma.tif", "classes.tif"
HEIGHT_FORMATS = ("tif", "gwy", "x3p")
"""What a height map may be written as; TIFF always is."""
TILE_PX = 256


def parse_formats(text: str) -> tuple[str, ...]:
    """Formats as `tif,gwy,x3p`.

    Raises:
        UsageError: one is unknown.
    """
    named = [one.strip().lower().lstrip(".") for one in text.split(",") if one.strip()]
    for one in named:
        if one not in HEIGHT_FORMATS:
            raise UsageError(f"--height-format {text}: '{one}' is none of {', '.join(HEIGHT_FORMATS)}")
    return tuple(one for one in HEIGHT_FORMATS if one in named or one == "tif")


def write_maps(folder: Path, made: SwathMap, formats: Sequence[str]) -> None:
    """Writes the arrays of a map.

    Raises:
        InputError: a file cannot be written.
    """
    try:
        _write(folder / IMAGE, np.rint(np.clip(made.image, 0, 1) * 65535).astype(np.uint16))
        if made.sigma_um is not None:
            _write(folder / SIGMA, made.sigma_um)
        kinds = made.kinds
        if kinds is not None:
            _write(folder / CLASSES, kinds)
        pitch = made.pitch_um
        height = HeightMap(made.height_um, np.isfinite(made.height_um), "um", pitch, pitch, "um")
        for form in formats:
            write_height_map(folder / f"height.{form}", height)
    except OSError as wrong:
        raise InputError(wrong.filename or folder, f"cannot be written: {wrong.strerror}") from wrong


def write_json(path: Path, told: dict[str, Any]) -> None:
    """Writes what is told of a map; numbers that are not known are null.

    Raises:
        InputError: it cannot be written.
    """
    try:
        path.write_text(json.dumps(told, indent=1, allow_nan=False) + "\n")
    except OSError as wrong:
        raise InputError(path, f"cannot be written: {wrong.strerror}") from wrong


def columns_json(made: SwathMap) -> dict[str, Any]:
    """The trace and the height of focus on the columns of the map, in the frame of the map."""
    if made.columns is None:
        return {"track": None, "objective": None, "direction": None}
    x = ((np.arange(made.height_um.shape[1]) + 0.5) * made.pitch_um).round(3).tolist()
    told: dict[str, Any] = {"direction": made.columns.direction}
    for name, values in (("track", made.columns.track_z_um), ("objective", made.columns.objective_z_um)):
        told[name] = None if values is None else {"x_um": x, "z_um": [_number(z) for z in values.tolist()]}
    return told


def product_json(product: Product | None) -> dict[str, Any] | None:
    """The stack as JSON."""
    if product is None:
        return None
    return {"die_thickness_um": product.die_thickness_um, "level_tops_um": list(product.level_tops_um)}


def _number(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None


def _write(path: Path, pixels: np.ndarray) -> None:
    tile = (TILE_PX, TILE_PX) if max(pixels.shape) > TILE_PX else None
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata=None, tile=tile, bigtiff=pixels.nbytes > 2**31)
