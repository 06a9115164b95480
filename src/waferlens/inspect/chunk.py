"""One chunk from files to results: decoded, run, measured, judged, its maps written. No chunk knows of another."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from waferlens.bundle.calibration import Calibration, intervals, out_of_domain
from waferlens.bundle.readout import Readout, read_out
from waferlens.bundle.session import Session
from waferlens.errors import FormatError, InputError
from waferlens.formats import images
from waferlens.inspect.limits import Limit, verdicts
from waferlens.inspect.plan import Item
from waferlens.inspect.scales import Physical, Scales, to_physical
from waferlens.ops.hole import REASONS
from waferlens.prepare.geometry import fill_input, to_heights
from waferlens.records import Image
from waferlens.store.rows import OK, QUARANTINED, ImageResult

MAPS = "maps"


@dataclass(frozen=True)
class Work:
    """What every chunk is worked on with; shared by the threads, never changed."""

    session: Session
    calibration: Calibration
    limits: Sequence[Limit]
    level: float
    option_pixel_nm: float | None
    """What the user said; wins over what a file says [nm]"""
    recipe_pixel_nm: float | None
    """What the recipe says; for files that say nothing [nm]"""
    nm_per_grey: float | None
    out: Path
    maps: bool


def work_chunk(work: Work, chunk: int, first: int, items: Sequence[Item]) -> list[ImageResult]:
    """Inspects the images of one chunk and writes their maps.

    Args:
        work: shared by all chunks.
        chunk: its number, which names its file of maps.
        first: place of its first image in the lot.
        items: its images.

    Returns:
        One result an image, in order.

    Raises:
        InputError: the maps cannot be written. Images that cannot be read raise nothing: they are quarantined.
    """
    results = [
        ImageResult(first + place, _printable(path), page, OK, chunk=chunk) for place, (path, page) in enumerate(items)
    ]
    grey = np.empty((len(items), 1, work.session.height_px, work.session.width_px), np.float32)
    measured: list[ImageResult] = []
    pixel_nm: list[float | None] = []
    for result, found in zip(results, _decoded(items), strict=True):
        try:
            if isinstance(found, InputError):
                raise found
            fill_input(grey[len(measured), 0], found)
        except InputError as wrong:
            result.status, result.reason = QUARANTINED, wrong.reason
        else:
            measured.append(result)
            pixel_nm.append(work.option_pixel_nm or found.pixel_nm or work.recipe_pixel_nm)
    if measured:
        _measure(work, chunk, measured, grey[: len(measured)], pixel_nm)
    return results


def _measure(
    work: Work,
    chunk: int,
    results: Sequence[ImageResult],
    grey: Float32[np.ndarray, "b 1 h w"],
    pixel_nm: Sequence[float | None],
) -> None:
    """Fills in what is found on the images that could be read."""
    found = read_out(work.session, work.calibration, grey)
    raw = intervals(work.calibration, found.measurands, found.features, work.level)
    outside, novelty = out_of_domain(work.calibration, found.domain)
    nm_per_grey = np.nan if work.nm_per_grey is None else work.nm_per_grey
    scales = Scales(np.array(pixel_nm, np.float64), np.full(len(results), nm_per_grey))  # None becomes NaN
    physical = to_physical(raw, scales)
    unmeasured = [REASONS[code] for code in found.reason.tolist()]
    told, why = verdicts(work.limits, raw, physical, outside, unmeasured)
    map_file = _write_maps(work, chunk, results, found, scales) if work.maps else None
    rows = zip(results, _rows(physical), novelty.tolist(), told, why, unmeasured, strict=True)
    for place, (result, numbers, score, verdict, verdict_reason, reason) in enumerate(rows):
        result.measurements = numbers
        result.novelty = None if score != score else score  # NaN is not equal to itself
        result.verdict, result.verdict_reason, result.reason = verdict, verdict_reason, reason
        if map_file is not None:
            result.map_file, result.map_index = map_file, place


def _rows(physical: dict[str, Physical]) -> Iterator[list[tuple]]:
    """For each image, its (name, value, unit, low, high), None for what is not known."""
    columns = []
    for name, told in physical.items():
        value, low, high = (_or_none(part) for part in told.interval)
        columns.append(list(zip([name] * len(value), value, told.units(), low, high, strict=True)))
    return map(list, zip(*columns, strict=True))


def _or_none(numbers: np.ndarray) -> list[float | None]:
    """The numbers, None for what is not known."""
    known = np.isfinite(numbers)
    if known.all():  # nearly always: then nothing has to be replaced one by one
        return numbers.tolist()
    return [number if fine else None for number, fine in zip(numbers.tolist(), known.tolist(), strict=True)]


def _write_maps(work: Work, chunk: int, results: Sequence[ImageResult], found: Readout, scales: Scales) -> str:
    """Writes the chunk's maps and tells their name. A map left behind by a killed run is replaced by the same one."""
    from waferlens.formats.map_stack import MapStack, write_map_stack  # tifffile: only where maps are written

    by = np.float32(1.0 if work.nm_per_grey is None else work.nm_per_grey)
    heights = to_heights(found.depth, found.plateau) * by
    sigma = None if found.sigma is None else found.sigma * by
    known = set(scales.pixel_nm.tolist())
    one_size = known.pop() if len(known) == 1 else np.nan
    name = f"{MAPS}/maps_{chunk:06d}.tif"
    stack = MapStack(
        heights,
        sigma,
        "grey" if work.nm_per_grey is None else "nm",
        None if np.isnan(one_size) else one_size,
        [f"{result.path}#{result.page}" if result.page else result.path for result in results],
    )
    write_map_stack(work.out / name, stack)
    return name


def _decoded(items: Sequence[Item]) -> Iterator[Image | InputError]:
    """The images, or what is wrong with each; pages of one TIFF that follow each other are read in one go."""
    place = 0
    while place < len(items):
        path, page = items[place]
        if path.lower().endswith((".tif", ".tiff")):
            end = place + 1
            while end < len(items) and items[end] == (path, page + end - place):
                end += 1
            yield from _tiff_pages(path, range(page, page + end - place))
            place = end
        else:
            try:
                yield images.decode(images.read_bytes(path), path)
            except InputError as wrong:
                yield wrong
            place += 1


def _tiff_pages(path: str, pages: range) -> Iterator[Image | InputError]:
    given = 0
    try:
        for found in images.read_pages(path, pages):
            yield found
            given += 1
    except InputError as wrong:  # the file as a whole
        for _ in range(len(pages) - given):
            yield wrong
        return
    for _ in range(len(pages) - given):  # a file called .tif that is a PNG has one page only
        yield FormatError(path, "the page is not there")


def _printable(path: str) -> str:
    """A path as text that every database takes: bytes that are no UTF-8 are written out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
