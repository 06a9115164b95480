"""Findings as CSV, one row a finding with its image, and as COCO. Both are made from the database when a run ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from waferlens import __version__
from waferlens.formats.coco import LabelledImage, write_coco
from waferlens.records import Finding
from waferlens.store.results import Store
from waferlens.store.rows import OK, ImageResult
from waferlens.store.tables import digits, written

COLUMNS = (
    *("path", "page", "verdict", "kind", "x0", "y0", "x1", "y1"),
    *("area_px", "contrast", "light_or_dark", "critical", "score", "rule"),
)
"""`verdict` is the image's; edges are the outer ones of the pixels, the centre of the first pixel is (0, 0)."""
PLACE = ("x", "y", "width", "height")
"""Follow, with their unit in the name, where parts are looked for: the middle of the finding from the lower left corner
of its upright part, x to the right and y up, and its size there."""


def write_findings_csv(store: Store, run: int, path: str | Path, advance: Callable[[int], None] | None = None) -> int:
    """Writes everything found in a run, at once or not at all; without findings, the head of the table alone.

    Args:
        store: the results.
        run: its number.
        path: the file; replaced if it is there.
        advance: called with the number of rows written since the last call.

    Returns:
        Number of rows.

    Raises:
        InputError: the database cannot be read or the file not be written.
    """
    count = 0
    units = sorted(store.places(run))
    with written(path) as write:
        write([*COLUMNS, *(f"{name}_{unit}" for unit in units for name in PLACE)])
        for found in store.findings(run):
            it = found.finding
            write(
                [
                    *(found.path, found.page, found.verdict, it.kind),
                    *(f"{edge:.10g}" for edge in it.box),  # a swath is longer than seven digits of half pixels
                    *(digits(it.area_px), _known(it.contrast), it.light_or_dark),
                    *("true" if it.critical else "false", _known(it.score), it.rule),
                    *(_placed(it, name, unit) for unit in units for name in PLACE),
                ]
            )
            count += 1
            if advance is not None and count % 1000 == 0:
                advance(1000)
    return count


def write_findings_coco(store: Store, run: int, path: str | Path) -> int:
    """Writes everything found in a run as COCO, at once or not at all, with the images on which nothing was found.

    Images that were quarantined or not compared are left out, and those that are `review` without a finding: an image
    without a box there says that nothing is on it.

    Returns:
        Number of findings.

    Raises:
        InputError: the database cannot be read or the file not be written.
    """
    told = {"description": "findings of waferlens inspect", "version": __version__}
    return write_coco(path, (_labelled(image) for image in _compared(store, run)), info=told)


def _compared(store: Store, run: int) -> Iterator[ImageResult]:
    return (
        image for image in store.images(run) if image.status == OK and (image.verdict in ("OK", "NG") or image.findings)
    )


def _labelled(image: ImageResult) -> LabelledImage:
    size = {name: value for name, value, *_ in image.measurements if name in ("width", "height")}
    w, h = (None if size.get(name) is None else int(size[name]) for name in ("width", "height"))
    return LabelledImage(image.path, w, h, image.findings, image.page)


def _placed(finding: Finding, name: str, unit: str) -> str:
    place = finding.place
    return "" if place is None or place.unit != unit else digits(getattr(place, name))


def _known(value: float) -> str:
    return "" if math.isnan(value) else digits(value)
