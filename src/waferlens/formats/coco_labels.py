"""An annotation of COCO as a label, and back: box, polygons or a mask, and whether it is to be ignored.

    "bbox": [x, y, width, height]                    always
    "segmentation": [[x, y, x, y, …], …]             polygons; several are parts of one thing
    "segmentation": {"size": [h, w], "counts": …}    a mask, its counts as a list or as a string; written as a string
    "iscrowd": 1                                     to be ignored: what is found there counts neither way
    "quad": [8 numbers], "angle_deg": …              ours: an oriented box, which COCO has not; it stands in
                                                     `segmentation` too where nothing else does

All are measured from the upper-left corner of the image. A polygon that is given again as the quad is read as the quad
alone, so a label that has the same outline as both is refused when it is written.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from waferlens.errors import InputError
from waferlens.formats import rle
from waferlens.formats.exact_numbers import HALF, exact, is_number, minus, plus
from waferlens.formats.label_outlines import Box, Point, area_px2, check
from waferlens.records import Label, tight


def edges(x: Decimal, y: Decimal, width: Decimal, height: Decimal) -> Box:
    """Our outer edges of a box of COCO, each rounded once."""
    left, top = minus(x, HALF), minus(y, HALF)
    return float(left), float(top), float(plus(left, width)), float(plus(top, height))


def entry(label: Label, width_px: int | None, height_px: int | None, path: Path) -> dict[str, Any]:
    """What an annotation says of a label besides its numbers.

    Raises:
        InputError: the label has no area, lies outside its image, or has an outline that COCO cannot hold.
    """
    try:
        check(label, width_px, height_px)
        x0, y0, x1, y1 = map(exact, label.box)
        told: dict[str, Any] = {
            "bbox": [plus(x0, HALF), plus(y0, HALF), minus(x1, x0), minus(y1, y0)],
            "area": area_px2(label),
            "iscrowd": int(label.ignore),
        }
        if label.mask is not None:
            told["segmentation"] = _packed_mask(label, width_px, height_px)
        elif label.polygons:
            told["segmentation"] = [_flat(ring) for ring in label.polygons]
        if label.quad is not None:
            if label.polygons == (label.quad,):
                raise ValueError("its polygon is its quad once more; leave the polygon out")
            told["quad"] = _flat(label.quad)
            told.setdefault("segmentation", [told["quad"]])
        if label.angle_deg is not None:
            told["angle_deg"] = exact(label.angle_deg)
    except ValueError as wrong:
        raise InputError(path, f"the label {label.kind!r} at {label.box}: {wrong}") from wrong
    return told


def label_of(told: dict[str, Any], kind: str, width_px: int | None, height_px: int | None) -> Label:
    """The label of an annotation whose `bbox` has been found sound.

    Raises:
        ValueError: says what is wrong.
    """
    crowd = told.get("iscrowd", told.get("ignore", 0))
    if crowd not in (0, 1):
        raise ValueError(f"iscrowd = {crowd!r}; expected 0 or 1")
    quad = None
    if told.get("quad") is not None:
        ring = _ring(told["quad"], "quad")
        if len(ring) != 4:
            raise ValueError(f"quad has {len(ring)} corners; expected 4")
        quad = (ring[0], ring[1], ring[2], ring[3])
    angle = told.get("angle_deg")
    if angle is not None and not is_number(angle):
        raise ValueError("angle_deg is no number")
    mask, corner = None, (0, 0)
    polygons: tuple[tuple[Point, ...], ...] = ()
    outline = told.get("segmentation")
    if isinstance(outline, dict):
        mask, corner = _mask(outline, width_px, height_px)
    elif isinstance(outline, list):
        polygons = tuple(_ring(ring, f"segmentation[{place}]") for place, ring in enumerate(outline))
        if quad is not None and polygons == (quad,):
            polygons = ()
    elif outline is not None:
        raise ValueError("segmentation is neither a list of polygons nor run lengths with their size")
    box = edges(*map(Decimal, told["bbox"]))
    angle_deg = None if angle is None else float(angle)
    label = Label(kind, box, polygons, mask, corner, quad, angle_deg, bool(crowd))
    check(label, width_px, height_px)
    return label


def _packed_mask(label: Label, width_px: int | None, height_px: int | None) -> dict[str, Any]:
    if width_px is None or height_px is None:
        raise ValueError("it has a mask, and the size of its image is not known")
    assert label.mask is not None
    inner, (x, y) = tight(label.mask, label.mask_corner)
    whole = np.zeros((height_px, width_px), bool)
    whole[y : y + inner.shape[0], x : x + inner.shape[1]] = inner
    return {"size": [height_px, width_px], "counts": rle.packed(rle.counts_of(whole))}


def _mask(told: dict[str, Any], width_px: int | None, height_px: int | None) -> tuple[np.ndarray, tuple[int, int]]:
    size, counts = told.get("size"), told.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        raise ValueError("segmentation.size is not [height, width]")
    height, width = size
    if width_px is not None and height_px is not None and (width, height) != (width_px, height_px):
        raise ValueError(f"segmentation.size is {width}x{height} px, the image has {width_px}x{height_px}")
    if isinstance(counts, str):
        runs = rle.unpacked(counts)
    elif isinstance(counts, list) and all(type(run) is int and 0 <= run < 2**40 for run in counts):
        runs = np.array(counts, np.int64)
    else:
        raise ValueError("segmentation.counts is neither a text nor a list of whole numbers")
    mask = rle.mask_of(runs, height, width)
    if not mask.any():
        raise ValueError("segmentation has no pixel")
    return tight(mask)


def _flat(ring: tuple[Point, ...]) -> list[Decimal]:
    return [plus(exact(number), HALF) for point in ring for number in point]


def _ring(told: Any, where: str) -> tuple[Point, ...]:
    if not (isinstance(told, list) and all(map(is_number, told))):
        raise ValueError(f"{where} is not a list of numbers x, y, x, y …")
    if len(told) % 2 or len(told) < 6:
        raise ValueError(f"{where} has {len(told)} numbers; expected x and y of 3 corners or more")
    numbers = [float(minus(Decimal(number), HALF)) for number in told]
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))
