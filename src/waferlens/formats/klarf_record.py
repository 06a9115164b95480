"""What a KLARF file tells, of whatever version: lengths in µm, areas in µm², y up.

A defect lies XREL, YREL from the lower-left corner of its die; the die XINDEX, YINDEX has that corner at index times
pitch plus DieOrigin; SampleCenterLocation is the middle of the wafer in the same frame, so that from the middle of the
wafer a defect lies at XINDEX * pitch + DieOrigin + XREL - SampleCenterLocation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64

from waferlens.errors import UsageError
from waferlens.formats.klarf_text import Images, Value

LENGTHS = ("XREL", "YREL", "XSIZE", "YSIZE", "DSIZE", "X", "Y")
"""Columns that are lengths: µm in 1.2, nm in 1.8."""
AREAS = ("DEFECTAREA", "AREAPERTEST", "INSPAREA")
"""Columns that are areas: µm² in 1.2, nm² in 1.8."""
WHOLE = (
    *("DEFECTID", "XINDEX", "YINDEX", "CLASSNUMBER", "TEST", "CLUSTERNUMBER", "ROUGHBINNUMBER", "FINEBINNUMBER"),
    *("REVIEWSAMPLE", "IMAGECOUNT", "TESTNO", "NDEFECT", "NDIE", "NDEFDIE"),
)
"""Columns of whole numbers in every version."""
IMAGES = ("IMAGELIST", "IMAGEINFO", "IMAGES")
"""Columns that name images."""
COLUMNS = (
    *("DEFECTID", "XREL", "YREL", "XINDEX", "YINDEX", "XSIZE", "YSIZE", "DEFECTAREA", "DSIZE", "CLASSNUMBER", "TEST"),
    *("CLUSTERNUMBER", "ROUGHBINNUMBER", "FINEBINNUMBER", "REVIEWSAMPLE", "IMAGECOUNT", "IMAGELIST"),
)
"""The columns we write."""
MARKS = {"DOWN": 0, "LEFT": 90, "UP": 180, "RIGHT": 270}
"""Where the notch or flat is, in the words of 1.2 and the degrees of 1.8."""
Pair = tuple[float, float]


@dataclass(frozen=True, slots=True)
class KlarfTable:
    """A list of KLARF with its columns, in the units of this module."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Value, ...], ...] = ()

    def column(self, name: str) -> list[Value]:
        """The values of one column.

        Raises:
            UsageError: there is no such column.
        """
        if name not in self.columns:
            raise UsageError(f"no column {name}; there are {', '.join(self.columns) or 'none'}")
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


@dataclass(frozen=True, slots=True)
class KlarfTest:
    """Which dies one test of a wafer looked at."""

    number: int
    plan: tuple[tuple[int, int], ...] | None = None
    """XINDEX and YINDEX of its dies; None if not told."""
    area_um2: float | None = None
    """Area it looked at [um2]"""
    further: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class KlarfWafer:
    """A wafer, or strip, and what was found on it."""

    wafer_id: str
    defects: KlarfTable
    slot: int | None = None
    die_origin_um: Pair | None = None
    center_um: Pair | None = None
    """SampleCenterLocation: the middle of the wafer [um]"""
    tests: tuple[KlarfTest, ...] = ()
    image_files: tuple[str | None, ...] = ()
    """Of each defect the file of its images, TiffFileName; empty where it is that of the head, or none is named."""
    summary: KlarfTable | None = None
    further: tuple[object, ...] = ()
    """What else the file says of it, kept and written back in the same version."""


@dataclass(frozen=True, slots=True)
class Klarf:
    """A KLARF file."""

    lot_id: str
    wafers: tuple[KlarfWafer, ...]
    die_pitch_um: Pair
    version: str = "1.2"
    device_id: str | None = None
    setup_id: tuple[str, ...] | None = None
    """Name of the recipe, and its date and time where told."""
    step_id: str | None = None
    station: tuple[str, ...] | None = None
    """InspectionStationID: maker, model, tool."""
    sample_type: str | None = None
    sample_size_mm: tuple[float, ...] | None = None
    """Diameter, or width and height [mm]"""
    mark_type: str | None = None
    """SampleOrientationMarkType: NOTCH or FLAT."""
    mark_location: str | None = None
    """Where it lies: a key of `MARKS`."""
    file_timestamp: tuple[str, str] | None = None
    result_timestamp: tuple[str, str] | None = None
    image_file: str | None = None
    """TiffFileName in the head of the file."""
    classes: dict[int, str] = field(default_factory=dict)
    further: tuple[object, ...] = ()


def defect_table(
    index: Sequence[tuple[int, int]],
    rel_um: Float64[np.ndarray, "n 2"],
    size_um: Float64[np.ndarray, "n 2"],
    area_um2: Sequence[float],
    class_number: Sequence[int],
    images: Sequence[int] | None = None,
    test: int = 1,
) -> KlarfTable:
    """A table of defects in the columns we write.

    Args:
        index: XINDEX and YINDEX of each defect's die.
        rel_um: where it lies from the lower-left corner of its die, y up [um]
        size_um: its width and height [um]
        area_um2: its area [um2]
        class_number: its class, as in ClassLookup.
        images: number of its image in the file of images, 0 for none; no images if None.
        test: number of the test that found them.
    """
    rows = []
    for place, ((x_index, y_index), (x, y), (w, h)) in enumerate(
        zip(index, rel_um.tolist(), size_um.tolist(), strict=True)
    ):
        image = 0 if images is None else images[place]
        shown = Images(((image, 0),)) if image else Images()
        row: list[Value] = [place + 1, x, y, int(x_index), int(y_index), w, h, float(area_um2[place]), max(w, h)]
        rows.append((*row, int(class_number[place]), test, 0, 0, 0, 0, len(shown.items), shown))
    return KlarfTable(COLUMNS, tuple(rows))


def summary_of(defects: KlarfTable, dies: int, area_um2: float, test: int = 1) -> KlarfTable:
    """The summary of one test: how many defects there are, on how many dies, and how many a cm².

    Args:
        defects: what it found.
        dies: how many dies it looked at.
        area_um2: the area it looked at [um2]
        test: its number.
    """
    hit = set(zip(defects.column("XINDEX"), defects.column("YINDEX"), strict=True))
    density = len(defects.rows) * 1e8 / area_um2  # a cm²
    return KlarfTable(
        ("TESTNO", "NDEFECT", "DEFDENSITY", "NDIE", "NDEFDIE"), ((test, len(defects.rows), density, dies, len(hit)),)
    )


def rel_um(
    points_px: Float64[np.ndarray, "n 2"], corner_px: Pair, pixel_um: float, angle_deg: float = 0.0
) -> Float64[np.ndarray, "n 2"]:
    """XREL and YREL of points of an image.

    Args:
        points_px: x, y with the centre of the first pixel at (0, 0) and y down [px]
        corner_px: the die's lower-left corner in the same frame: an outer edge, so that of a die that fills an image of
            `h` rows it is (-0.5, h - 0.5) [px]
        pixel_um: side of a pixel [um]
        angle_deg: how far the die is turned in the image, anticlockwise as seen [deg]

    Returns:
        Along the die's lower side to the right, and up along its left side [um]
    """
    turn = np.deg2rad(angle_deg)
    right, up = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    away = (np.asarray(points_px, float) - corner_px) * (1.0, -1.0)
    return np.stack([away @ right, away @ up], axis=-1) * pixel_um


def box_um(
    boxes_px: Float64[np.ndarray, "n 4"], corner_px: Pair, pixel_um: float, angle_deg: float = 0.0
) -> tuple[Float64[np.ndarray, "n 2"], Float64[np.ndarray, "n 2"]]:
    """Where boxes of an image lie on their die, and how large they are.

    Args:
        boxes_px: outer edges x0 y0 x1 y1 [px]
        corner_px: as in `rel_um`.
        pixel_um: side of a pixel [um]
        angle_deg: as in `rel_um`; sizes are those of the boxes as they stand in the image.

    Returns:
        XREL and YREL of their middles, and XSIZE and YSIZE [um]
    """
    boxes = np.asarray(boxes_px, float).reshape(-1, 4)
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    return rel_um(middles, corner_px, pixel_um, angle_deg), (boxes[:, 2:] - boxes[:, :2]) * pixel_um


def wafer_um(klarf: Klarf, wafer: KlarfWafer) -> Float64[np.ndarray, "n 2"]:
    """Where the defects of a wafer lie from its middle, x to the right and y up [um]

    Raises:
        UsageError: the middle of the wafer, or the places of the defects, are not told, or coordinates are mirrored.
    """
    if wafer.center_um is None:
        raise UsageError(f"SampleCenterLocation of the wafer {wafer.wafer_id!r} is not told; its middle is not known")
    kept = (*klarf.further, *wafer.further)
    for told in (*kept, *(item for record in kept for item in getattr(record, "items", ()))):
        name = str(getattr(told, "name", ""))
        values = [str(value).upper() for value in getattr(told, "values", ())]
        if name.upper() in ("COORDINATESMIRRORED", "COORDINATESCENTERED") and values not in (["NO"], ["N"], ["0"]):
            raise UsageError(f"{name} {' '.join(values)}: such coordinates are kept, and not worked out")
    table = wafer.defects
    index = np.array([table.column("XINDEX"), table.column("YINDEX")], float).T
    rel = np.array([table.column("XREL"), table.column("YREL")], float).T
    return index * klarf.die_pitch_um + (wafer.die_origin_um or (0.0, 0.0)) + rel - wafer.center_um
