"""The hole station's work on a lot: a chunk decoded, run, measured, judged, its maps written.

No chunk knows of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32

from waferlens.bundle.calibration import Calibration, intervals, out_of_domain
from waferlens.bundle.files import Bundle
from waferlens.bundle.readout import Readout, read_out
from waferlens.bundle.session import Session
from waferlens.errors import InputError, UsageError
from waferlens.formats import images
from waferlens.inspect.decoded import decoded, printable
from waferlens.inspect.folder import MAPS
from waferlens.inspect.limits import Limit, checked, in_nm, parse_limit, require_scales, verdicts
from waferlens.inspect.plan import Item, Plan
from waferlens.inspect.scales import Physical, Scales, to_physical
from waferlens.ops.hole import REASONS, UNITS
from waferlens.prepare.geometry import fill_input, to_heights
from waferlens.store.rows import OK, QUARANTINED, ImageResult


@dataclass(frozen=True)
class HoleWork:
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

    chunk: ClassVar[int] = 256
    finds: ClassVar[bool] = False
    columns: ClassVar[tuple[str, ...]] = tuple(UNITS)

    @property
    def folders(self) -> tuple[str, ...]:
        return (MAPS,) if self.maps else ()

    def options(self) -> dict[str, Any]:
        """What the results depend on besides bundle and images; a run is only resumed with the same."""
        return {
            "limits": [str(limit) for limit in self.limits],
            "pixel_nm": self.option_pixel_nm,
            "nm_per_grey": self.nm_per_grey,
            "level": self.level,
            "maps": self.maps,
        }

    def takes(self, path: str) -> bool:
        """Every image of a folder belongs to the lot."""
        return True

    def require(self, plan: Plan) -> None:
        """Refuses limits in nm where no scale is known.

        Raises:
            UsageError: a limit asks for nm, and neither option, recipe nor the first image says a scale.
        """
        if not any(in_nm(limit) for limit in self.limits):
            return
        lateral = self.option_pixel_nm is not None or self.recipe_pixel_nm is not None
        if not lateral:  # the first image speaks for the lot; one without a tag among others is told in its verdict
            path, page = plan.read(0)[0]
            try:
                lateral = any(
                    not isinstance(image, InputError) and image.pixel_nm is not None
                    for image in images.read_pages(path, range(page, page + 1))
                )
            except InputError:
                lateral = False  # it will be quarantined, with this very reason
        require_scales(self.limits, lateral, self.nm_per_grey is not None)

    def finish(self, plan: Plan, images: Iterable[ImageResult]) -> dict[str, list[dict[str, Any]]]:
        """Nothing: an image is done when its chunk is."""
        return {}

    def results(self, chunk: int, first: int, items: Sequence[Item]) -> list[ImageResult]:
        """Inspects the images of one chunk and writes their maps.

        Args:
            chunk: its number, which names its file of maps.
            first: place of its first image in the lot.
            items: its images.

        Returns:
            One result an image, in order.

        Raises:
            InputError: the maps cannot be written. Images that cannot be read raise nothing: they are quarantined.
        """
        results = [
            ImageResult(first + place, printable(path), page, OK, chunk=chunk)
            for place, (path, page) in enumerate(items)
        ]
        grey = np.empty((len(items), 1, self.session.height_px, self.session.width_px), np.float32)
        measured: list[ImageResult] = []
        pixel_nm: list[float | None] = []
        for result, found in zip(results, decoded(items), strict=True):
            try:
                if isinstance(found, InputError):
                    raise found
                fill_input(grey[len(measured), 0], found)
            except InputError as wrong:
                result.status, result.reason = QUARANTINED, wrong.reason
            else:
                measured.append(result)
                pixel_nm.append(self.option_pixel_nm or found.pixel_nm or self.recipe_pixel_nm)
        if measured:
            _measure(self, chunk, measured, grey[: len(measured)], pixel_nm)
        return results


def hole_work(
    bundle: Bundle,
    out: Path,
    *,
    limits: Sequence[str | Limit] = (),
    pixel_nm: float | None = None,
    depth_nm_per_grey: float | None = None,
    level: float = 0.9,
    maps: bool = True,
) -> HoleWork:
    """The work of a bundle of the hole station, its options checked.

    Raises:
        UsageError: an option is wrong, or the bundle is not calibrated for the level.
        BundleError: the network cannot be loaded.
    """
    for name, value in (("pixel_nm", pixel_nm), ("depth_nm_per_grey", depth_nm_per_grey)):
        if value is not None and not value > 0:
            raise UsageError(f"{name} must be a positive number of nm, got {value:g}")
    calibration, recipe = bundle.calibration, bundle.recipe
    levels = calibration.levels()
    if levels and level not in levels:
        raise UsageError(
            f"level {level:g}: this bundle is calibrated for {', '.join(f'{known:g}' for known in levels)}"
        )
    named = {
        name: checked(Limit(name, told.get("low"), told.get("high"), told["unit"]))
        for name, told in (recipe.get("limits") or {}).items()
    }
    for limit in limits:
        parsed = parse_limit(limit) if isinstance(limit, str) else checked(limit)
        named[parsed.name] = parsed
    recipe_pixel_nm = (recipe.get("input") or {}).get("pixel_nm")
    recipe_nm_per_grey = (recipe.get("depth") or {}).get("nm_per_grey")
    nm_per_grey = depth_nm_per_grey if depth_nm_per_grey is not None else recipe_nm_per_grey
    session = Session(bundle, threads=1)
    return HoleWork(
        session, calibration, list(named.values()), level, pixel_nm, recipe_pixel_nm, nm_per_grey, out, maps
    )


def _measure(
    work: HoleWork,
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


def _write_maps(work: HoleWork, chunk: int, results: Sequence[ImageResult], found: Readout, scales: Scales) -> str:
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
