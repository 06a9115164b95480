"""What is known of each swath of a lot beside its pixels: pitch, stack, trace, place on the stage.

Told by options, by a layout, or by the data set the image lies in; the first that tells a thing wins. What nobody tells
is not known, and the network is told so.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import Float32

from waferlens.errors import FormatError, InputError, UsageError
from waferlens.formats import wafer_set
from waferlens.formats.stage_trace import read_trace
from waferlens.load.wafer import manifest
from waferlens.prepare.wafer_geometry import column_values, values_at
from waferlens.prepare.wafer_input import scan_direction
from waferlens.records import Product

LAYOUT_COLUMNS = ("swath", "x0_um", "y0_um")
"""Columns a layout has to have; `track` may stand beside them."""
LEAST_TRACK = 0.5
"""A trace that knows less of the columns of its image belongs to another image."""


@dataclass(frozen=True, slots=True)
class SwathFacts:
    """What is known of one swath before it is read."""

    pitch_um: float
    """Of its image [um]"""
    product: Product | None
    track: Path | None
    """A stage trace, or a label of `prepare sync`."""
    stage_um: tuple[float, float] | None
    """Where the outer corner of its first pixel lies on the stage [um]"""
    na: float | None
    """Of the objective that took it."""
    truth: Path | None
    """True heights, if they are known."""


@dataclass(frozen=True, slots=True, eq=False)
class ColumnTrack:
    """What the trace says of each column of the network's grid; NaN where it says nothing."""

    track_z_um: Float32[np.ndarray, " w"]
    objective_z_um: Float32[np.ndarray, " w"] | None
    direction: int
    """1 where the scan ran along +x, -1 against it."""


def parse_product(text: str) -> Product:
    """A stack as `THICKNESS:TOP[,TOP…]`: thickness of a die and tops of the levels above the carrier [um].

    Raises:
        UsageError: it is not of that form, or tops do not rise.
    """
    try:
        thickness, _, tops = text.partition(":")
        product = Product(float(thickness), tuple(float(top) for top in tops.split(",")))
    except ValueError as wrong:
        raise UsageError(f"--product {text}: as 310:318 or 310:318,636 (thickness:tops, um), not {wrong}") from wrong
    rising = all(low < high for low, high in zip(product.level_tops_um, product.level_tops_um[1:], strict=False))
    told = (product.die_thickness_um, *product.level_tops_um)
    if not (rising and all(math.isfinite(one) and one > 0 for one in told) and len(product.level_tops_um) <= 4):
        raise UsageError(f"--product {text}: thickness and one to four rising tops, all above 0 um")
    return product


@dataclass(frozen=True, slots=True)
class Told:
    """What options and layout say of a lot."""

    pitch_um: float | None
    product: Product | None
    tracks: tuple[Path, ...]
    """One a swath in the order of the lot, or none."""
    layout: Mapping[str, tuple[float, float, Path | None]]
    """Of each swath by the name of its file: x0 and y0 [um] and its track."""

    def facts(self, path: str, item: int) -> SwathFacts:
        """What is known of one swath.

        Raises:
            InputError: nobody tells its pitch, or the layout does not name it.
        """
        pitch, product, track, na, truth = self.pitch_um, self.product, None, None, None
        stage = None
        if self.layout:
            if Path(path).name not in self.layout:
                raise InputError(path, "is not in the layout")
            x0, y0, track = self.layout[Path(path).name]
            stage = (x0, y0)
        if self.tracks:
            track = self.tracks[item]
        beside = _data_set(Path(path))
        if beside is not None:
            root, row = beside
            pitch = float(manifest(root)["pitch_um"]) if pitch is None else pitch
            product = Product(row.die_thickness_um, row.level_tops_um) if product is None else product
            own, height = wafer_set.track_path(root, row.field), wafer_set.height_path(root, row.field)
            track = own if track is None and own.exists() else track
            truth = height if height.exists() else None
            na = row.na
        if pitch is None:
            raise InputError(path, "its pitch is not known; give it with --pitch-um")
        return SwathFacts(pitch, product, track, stage, na, truth)


def read_layout(path: Path) -> dict[str, tuple[float, float, Path | None]]:
    """Where swaths lie on the stage: a table with the columns `swath, x0_um, y0_um` and, if told, `track`.

    Raises:
        InputError: it cannot be read.
        FormatError: a column is missing, a place is no number, or a swath stands there twice.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}") from wrong
    if not rows or any(name not in rows[0] for name in LAYOUT_COLUMNS):
        raise FormatError(path, f"a layout has the columns {', '.join(LAYOUT_COLUMNS)} and at least one row")
    told: dict[str, tuple[float, float, Path | None]] = {}
    for number, row in enumerate(rows, start=2):
        name = Path(row["swath"] or "").name
        try:
            place = float(row["x0_um"]), float(row["y0_um"])
        except (TypeError, ValueError) as wrong:
            raise FormatError(path, f"line {number}: x0_um and y0_um are numbers of um") from wrong
        if not all(map(math.isfinite, place)) or not name or name in told:
            raise FormatError(path, f"line {number}: swath '{name}' is told twice, has no name, or no finite place")
        track = row.get("track") or None
        told[name] = (*place, None if track is None else path.parent / track)
    return told


def _data_set(path: Path) -> tuple[Path, wafer_set.FieldRow] | None:
    """The data set an image lies in, and its row there."""
    root = path.parent.parent
    if path.parent.name != "image" or not (root / wafer_set.MANIFEST_FILE).exists():
        return None
    row = next((row for row in wafer_set.read_fields(root) if row.field == path.stem), None)
    return None if row is None else (root, row)


def is_truth(path: str) -> bool:
    """Whether a file is the true height of a data set, and no image."""
    file = Path(path)
    return file.parent.name == "height" and (file.parent.parent / wafer_set.MANIFEST_FILE).exists()


def read_columns(facts: SwathFacts, image_width: int, pitch_um: float, width: int, x0_um: float) -> ColumnTrack | None:
    """The trace on the columns of the network's grid.

    Args:
        facts: Of the swath.
        image_width: Columns of the image [px]
        pitch_um: Of the grid [um]
        width: Columns of the grid.
        x0_um: Outer edge of its first column, from that of the image's [um]

    Raises:
        InputError: the trace cannot be read, or does not belong to this image.
    """
    if facts.track is None:
        return None
    if facts.track.suffix.lower() in (".tif", ".tiff"):
        label = _label(facts.track, image_width)
        known = np.isfinite(label)
        places = (np.flatnonzero(known) + 0.5) * facts.pitch_um
        track = values_at(x0_um + pitch_um * (np.arange(width) + 0.5), places, label[known])
        objective, direction = None, 1
    else:
        trace = read_trace(facts.track)
        if not trace.valid.any():
            raise FormatError(facts.track, "has no valid sample; leave the track out, or look at the sensor")
        track, objective = column_values(trace, pitch_um, width, x0_um)
        direction = scan_direction(trace)
    share = float(np.isfinite(track).mean())
    if share < LEAST_TRACK:
        raise FormatError(
            facts.track, f"knows {100 * share:.0f} % of the columns of its image; `waferlens prepare sync` lays it on"
        )
    return ColumnTrack(track, objective, direction)


def _label(path: Path, image_width: int) -> Float32[np.ndarray, " w"]:
    try:
        label = np.atleast_2d(tifffile.imread(path))[0]
    except (OSError, ValueError, tifffile.TiffFileError) as wrong:
        raise FormatError(path, f"cannot be read: {wrong}") from wrong
    if label.dtype.kind != "f" or len(label) != image_width:
        raise FormatError(path, f"is no label of this image: {label.dtype} of {len(label)} columns, not {image_width}")
    return label.astype(np.float32)


def require_tracks(tracks: Sequence[Path], swaths: int) -> None:
    """Refuses tracks that cannot be told apart.

    Raises:
        UsageError: there are not as many as swaths.
    """
    if tracks and len(tracks) != swaths:
        raise UsageError(f"{len(tracks)} --track for {swaths} swaths; give one for each, in their order, or none")
