"""Figures that S2 published of the package station, as they stand there; ours are measured and never written here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MACHINE = "an RTX 3060 mobile GPU"
"""What S2 took its frames a second on."""
SHARES = {
    "precision": "precision",
    "recall": "recall",
    "map50": "mAP50",
    "map50_95": "mAP50:95",
    "map50_mask": "mask mAP50",
    "map50_95_mask": "mask mAP50:95",
}
"""Figures in percent -> what they are called in a table."""
COSTS = {"parameters": "parameters", "gflops": "GFLOPs", "fps_b1": "FPS b1", "fps_b16": "FPS b16"}
"""Figures of networks -> what they are called. S2's rate at 16 images is below that at one: it counts batches."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table."""

    name: str
    """As it is called on the command line."""
    label: str
    """As S2 calls it, or what it is."""
    recipe: str
    published: Mapping[str, float]
    """By figure; empty where S2 has none and ours stands for comparison."""
    learns: bool = True
    """Whether there is something to train."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table."""

    name: str
    title: str
    where: str
    judges: Literal["packages", "defects", "nothing"]
    """What its networks find; nothing where only costs are told."""
    figures: tuple[str, ...]
    """In the order of its columns."""
    rows: tuple[Row, ...]

    @property
    def shares(self) -> tuple[str, ...]:
        """Figures that are judged on data."""
        return tuple(one for one in self.figures if one in SHARES)

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes whose frames a second it tells."""
        return tuple(size for size in (1, 16) if f"fps_b{size}" in self.figures)


def _of(figures: tuple[str, ...], *values: float) -> dict[str, float]:
    return dict(zip(figures, values, strict=True))


_MASKS = ("map50", "map50_95", "map50_mask", "map50_95_mask")
_SPEED = ("fps_b1", "fps_b16", "parameters", "gflops")
_BOXES = ("map50", "map50_95", *_SPEED)
_DEFECTS = ("precision", "recall", "map50", "map50_95", "parameters", "gflops", "fps_b16")

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table(
            "s2-table-4.1",
            "Finding the package: YOLOv5 segmentation",
            "S2, 4.1.2, table 4.1, p. 119",
            "packages",
            _MASKS,
            (
                Row("yolov5n-seg", "YOLOv5n-seg", "roi-yolov5n-seg", _of(_MASKS, 99.5, 99.5, 99.5, 99.5)),
                Row("yolov5s-seg", "YOLOv5s-seg", "roi-yolov5s-seg", _of(_MASKS, 99.5, 99.5, 99.5, 99.5)),
                Row("opencv", "OpenCV, S2's steps", "roi-opencv", {}, learns=False),
                Row("edges", "sub-pixel edges, ours", "roi-edges", {}, learns=False),
            ),
        ),
        Table(
            "s2-table-4.2",
            "Costs of YOLOv5 segmentation",
            "S2, 4.1.2, table 4.2, p. 119",
            "nothing",
            _SPEED,
            (
                Row("yolov5n-seg", "YOLOv5n-seg", "roi-yolov5n-seg", _of(_SPEED, 114.5, 17.7, 1_879_750, 6.7)),
                Row("yolov5s-seg", "YOLOv5s-seg", "roi-yolov5s-seg", _of(_SPEED, 89.5, 8.2, 7_398_422, 25.7)),
            ),
        ),
        Table(
            "s2-table-4.3",
            "Finding the package: boxes of YOLOv5n, and what they cost",
            "S2, 4.1.3, table 4.3, p. 121",
            "packages",
            _BOXES,
            (Row("yolov5n", "YOLOv5n", "roi-yolov5n", _of(_BOXES, 99.5, 99.1, 120.26, 35.8, 1_760_518, 4.1)),),
        ),
        Table(
            "s2-table-4.6",
            "Finding defects: YOLOv7-tiny and what S2 changed in it",
            "S2, 4.3, table 4.6, p. 125; settings 3, 4, 6 and 7 are pruned and not built yet",
            "defects",
            _DEFECTS,
            (
                Row(
                    "baseline", "baseline", "package-yolov7-tiny",
                    _of(_DEFECTS, 97.4, 87.0, 92.1, 69.8, 6_010_302, 13.0, 19.5),
                ),
                Row(
                    "1", "1: NWD", "package-yolov7-tiny-nwd",
                    _of(_DEFECTS, 98.0, 88.3, 92.1, 69.6, 6_010_302, 13.0, 19.2),
                ),
                Row(
                    "2", "2: NWD, Slim-neck", "package-yolov7-tiny-nwd-slim",
                    _of(_DEFECTS, 98.0, 92.2, 94.2, 69.7, 5_746_078, 12.1, 18.2),
                ),
                Row(
                    "5", "5: NWD, CoordConv", "package-yolov7-tiny-nwd-coord",
                    _of(_DEFECTS, 95.8, 92.2, 94.2, 70.9, 6_027_198, 13.1, 17.8),
                ),
            ),
        ),
    )
}  # fmt: skip
