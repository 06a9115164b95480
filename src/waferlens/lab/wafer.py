"""The demonstration's wafer: a swath is scanned, and becomes a map of heights, a map of dies, and a plan of focus."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from waferlens.bundle.files import Bundle
from waferlens.inspect import inspect_paths
from waferlens.inspect.swath_files import FIELD, HEIGHT, SIGMA
from waferlens.records import Die
from waferlens.simulate.wafer.dataset import wafer_world, write_swaths

FIELDS, GRID = 4, 684
"""A swath of four fields; each would be 4,342 px wide from the camera and is drawn averaged to 684."""


@dataclass(frozen=True, slots=True)
class WaferPart:
    """What came of it."""

    fields: int
    mae_um: float
    """Of the map against the truth [um]"""
    covered: float
    """Share of pixels inside their 90 % interval."""
    sites: int
    """Sites that the swath shows well enough to be judged."""
    right: int
    """Of them told as they are."""
    missing: int
    """Of them without a die."""
    focus_positions: int
    """Of a 20x objective over the tops of all dies."""

    def line(self) -> str:
        """For people."""
        return (
            f"wafer      heights to {self.mae_um:.1f} um, 90 % intervals cover {100 * self.covered:.1f} %; "
            f"{self.right} of {self.sites} sites told right, {self.missing} of them empty; "
            f"{self.focus_positions} positions of focus at 20x"
        )


def scan_wafer(swaths: Path, out: Path, bundle: Bundle, seed: int, *, fields: int = FIELDS) -> WaferPart:
    """Simulates one swath with its auto-focus track, inspects it, and holds the map against the truth.

    Args:
        swaths: Folder for the swath.
        out: Folder for the run.
        bundle: Of the wafer station.
        seed: Of everything that is drawn.
        fields: Fields along the swath.

    Raises:
        InputError: something cannot be written.
    """
    write_swaths(swaths, wafer_world("sim"), 1, fields, GRID, seed)
    inspect_paths([swaths], bundle, out)
    (folder,) = (out / "maps").iterdir()
    told = json.loads((folder / FIELD).read_text())
    truth = tifffile.imread(told["truth"])
    height, sigma = tifffile.imread(folder / HEIGHT), tifffile.imread(folder / SIGMA)
    known = np.isfinite(height)
    error = np.abs(height - truth)[known]
    covered = float((error <= told["half_width_factor"] * sigma[known]).mean())
    dies = json.loads((folder / "dies.json").read_text())["sites"]
    truly = [
        Die(tuple(one["box_um"]), one["state"]) for one in json.loads(next((swaths / "dies").iterdir()).read_text())
    ]
    judged = [(one["state"], _truth_at(one["box_um"], truly)) for one in dies if one["state"] != "unsure"]
    plan = json.loads((folder / "focus.json").read_text())
    return WaferPart(
        fields=fields,
        mae_um=float(error.mean()),
        covered=covered,
        sites=len(judged),
        right=sum(said == true for said, true in judged),
        missing=sum(true == "missing" for _, true in judged),
        focus_positions=sum(len(field["slices_um"]) for field in plan["fields"]),
    )


def _truth_at(box: list[float], truly: list[Die]) -> str | None:
    """State of the site that a box covers best; None where there is none."""

    def common(die: Die) -> float:
        x0, y0, x1, y1 = (
            max(box[0], die.box_um[0]), max(box[1], die.box_um[1]),
            min(box[2], die.box_um[2]), min(box[3], die.box_um[3]),
        )  # fmt: skip
        return max(0.0, x1 - x0) * max(0.0, y1 - y0)

    best = max(truly, key=common, default=None)
    return best.state if best is not None and common(best) > 0 else None
