"""Maps of several swaths as one, in the coordinates of the stage, and how well they agree where they overlap.

The grids of all swaths have their lines at the same places of the stage, so nothing is resampled. Where swaths
overlap, each counts by the inverse of its variance and less towards its edge: a step becomes a ramp, and is told.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from waferlens.errors import FormatError, InputError
from waferlens.inspect.folder import MAPS
from waferlens.inspect.swath_files import CLASSES, FIELD, HEIGHT, IMAGE, SIGMA
from waferlens.inspect.swath_map import SwathMap
from waferlens.records import Product

EDGE_PX = 64
"""Over this length from its edge a swath counts the less the nearer the edge is [px]"""
LEAST_SIGMA_UM = 0.1
CLASSES_COUNT = 3


def stitch(out: Path) -> tuple[SwathMap, dict[str, Any], Product | None]:
    """The maps of a run laid together.

    Returns:
        The map, what is said of the stitching, and the stack if all swaths have the same.

    Raises:
        InputError: a map of the run is gone, or the run has none.
    """
    folders = sorted(path for path in (out / MAPS).iterdir() if path.is_dir())
    told = [_told(folder) for folder in folders]
    if not told:
        raise InputError(out, "no swath could be measured, so there is nothing to stitch")
    pitch = float(told[0]["pitch_um"])
    if any(abs(one["pitch_um"] - pitch) > 1e-9 for one in told):
        raise InputError(out, "its swaths have maps of different pitches and cannot be laid together")
    places = [(round(one["stage_y0_um"] / pitch), round(one["stage_x0_um"] / pitch)) for one in told]
    top, left = (min(place[axis] for place in places) for axis in (0, 1))
    bottom = max(place[0] + one["rows"] for place, one in zip(places, told, strict=True))
    right = max(place[1] + one["columns"] for place, one in zip(places, told, strict=True))
    size = (bottom - top, right - left)
    total = _Sums(size)
    gaps: list[np.ndarray] = []
    pairs: list[dict[str, Any]] = []
    for folder, place in zip(folders, places, strict=True):
        rows, columns = place[0] - top, place[1] - left
        gaps.append(total.add(folder, rows, columns))
        pairs.append({"swath": folder.name, "x0_um": place[1] * pitch, "y0_um": place[0] * pitch})
    differences = np.abs(np.concatenate(gaps))
    products = [one["product"] for one in told]
    same = products[0] if all(one == products[0] for one in products) else None
    product = None if same is None else Product(same["die_thickness_um"], tuple(same["level_tops_um"]))
    swath = total.map(pitch, left * pitch, top * pitch, tuple(told[0]["inputs"]))
    facts: dict[str, Any] = {
        "swaths": pairs,
        "rows": size[0],
        "columns": size[1],
        "overlap_px": len(differences),
        "overlap_median_um": float(np.median(differences)) if len(differences) else None,
        "overlap_p95_um": float(np.quantile(differences, 0.95)) if len(differences) else None,
        "known_share": float(np.isfinite(swath.height_um).mean()),
    }
    return swath, facts, product


def _told(folder: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads((folder / FIELD).read_text())
    except OSError as wrong:
        raise InputError(folder, f"a map of the run is gone: {wrong.strerror}") from wrong
    except ValueError as wrong:
        raise FormatError(folder / FIELD, f"is no JSON: {wrong}") from wrong
    return told


class _Sums:
    """Weighted sums over the stage."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.weight = np.zeros(size, np.float32)
        self.height = np.zeros(size, np.float32)
        self.sigma: np.ndarray | None = None
        self.image = np.zeros(size, np.float32)
        self.seen = np.zeros(size, np.float32)
        self.shares: np.ndarray | None = None

    def add(self, folder: Path, row: int, column: int) -> np.ndarray:
        """Adds a map; returns by how much it differs from what lies there already [um]"""
        height = _read(folder / HEIGHT)
        h, w = height.shape
        part = (slice(row, row + h), slice(column, column + w))
        known = np.isfinite(height)
        fade = np.minimum(_fade(h)[:, np.newaxis], _fade(w)).astype(np.float32)
        weight = np.where(known, fade, 0)
        filled = np.where(known, height, 0)
        sigma = _read(folder / SIGMA) if (folder / SIGMA).exists() else None
        if sigma is not None:
            sigma = np.where(known, np.maximum(sigma, LEAST_SIGMA_UM), LEAST_SIGMA_UM)
            weight /= np.square(sigma)
            self.sigma = np.zeros_like(self.weight) if self.sigma is None else self.sigma
            # not divided by the number of swaths: two predictions of one network from one place err alike
            self.sigma[part] += weight * sigma
        before = self.weight[part] > 0
        both = before & (weight > 0)
        gap = height[both] - self.height[part][both] / self.weight[part][both]
        self.height[part] += weight * filled
        self.weight[part] += weight
        self.image[part] += fade * _read(folder / IMAGE)
        self.seen[part] += fade
        if (folder / CLASSES).exists():
            kinds = _read(folder / CLASSES)
            if self.shares is None:
                self.shares = np.zeros((CLASSES_COUNT, *self.weight.shape), np.float32)
            for kind in range(CLASSES_COUNT):
                self.shares[kind][part] += weight * (kinds == kind)
        return gap

    def map(self, pitch_um: float, x0_um: float, y0_um: float, inputs: tuple[str, ...]) -> SwathMap:
        """The means; NaN where no swath knows a height."""
        known = self.weight > 0
        weight = np.where(known, self.weight, np.nan)
        image = self.image / np.maximum(self.seen, 1e-6) / 65535
        return SwathMap(
            image.astype(np.float32),
            (self.height / weight).astype(np.float32),
            None if self.sigma is None else (self.sigma / weight).astype(np.float32),
            None if self.shares is None else (self.shares / weight).astype(np.float32),
            pitch_um,
            x0_um,
            y0_um,
            None,
            inputs,
            self.weight.shape,
        )


def _fade(count: int) -> np.ndarray:
    """Weights that rise from either end."""
    place = np.arange(count) + 0.5
    return np.clip(np.minimum(place, count - place) / EDGE_PX, 0, 1)


def _read(path: Path) -> np.ndarray:
    try:
        return tifffile.imread(path)
    except (OSError, ValueError, tifffile.TiffFileError) as wrong:
        raise FormatError(path, f"cannot be read: {wrong}") from wrong
