"""The wafer station's work on a lot: of each swath or field a height map, its dies, a plan of focus, how flat it is.

One swath is one chunk. What a swath gives is written beside its final name and takes it when it is whole, so a run
that was killed goes on with the swath it was at.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import numpy as np

from waferlens.bundle.files import Bundle
from waferlens.bundle.wafer import WaferSession
from waferlens.bundle.wafer_calibration import NORMAL_90
from waferlens.errors import InputError, UsageError
from waferlens.inspect.decoded import printable
from waferlens.inspect.die_table import write_die_map, write_focus_plan
from waferlens.inspect.flatness_table import write_flatness
from waferlens.inspect.folder import MAPS, STITCHED, overlay_name
from waferlens.inspect.limits import Limit, checked, parse_limit
from waferlens.inspect.plan import Item, Plan
from waferlens.inspect.stitching import stitch
from waferlens.inspect.swath_facts import SwathFacts, Told, is_truth, parse_product, read_layout, require_tracks
from waferlens.inspect.swath_files import (
    FIELD,
    STITCH,
    columns_json,
    parse_formats,
    product_json,
    write_json,
    write_maps,
)
from waferlens.inspect.swath_map import SwathMap, swath_map
from waferlens.inspect.wafer_limits import LIMITED, swath_verdict
from waferlens.ops.die_map import DieMap, die_map
from waferlens.ops.flatness import flatness
from waferlens.ops.flatness_record import Flatness
from waferlens.ops.focus_plan import OBJECTIVES, FocusPlan, Layer, focus_plan
from waferlens.ops.sub_pixel_edges import PITCH_UM
from waferlens.records import Product
from waferlens.store.rows import OK, QUARANTINED, ImageResult, Number

TOP_SHARE = 0.02
"""The top of a map is the height that this share of it exceeds: lower than any single pixel, higher than any die."""
SITE_MM = 5.0
"""Side of the sites whose flatness is told; maps that are smaller have none [mm]"""
LEVEL = 0.9
"""Coverage of the intervals."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What the plan of focus is made for."""

    objective: str = "20x"
    """Of `ops.focus_plan.OBJECTIVES`."""
    layer: Layer = "top"
    clearance_um: float = 50.0
    """Kept above the upper bound of the highest place [um]"""


@dataclass(frozen=True, slots=True)
class Found:
    """What a map tells."""

    dies: DieMap | None
    plan: FocusPlan
    flatness: Flatness
    numbers: list[Number]


@dataclass
class WaferWork:
    """What every swath is worked on with; shared by the threads. Only `done` grows."""

    session: WaferSession
    told: Told
    plan_options: PlanOptions
    formats: tuple[str, ...]
    out: Path
    maps: bool
    limits: tuple[Limit, ...]
    recorded: dict[str, Any]
    """The options as the run's card has them."""
    done: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Of each swath of this call what is said of it at the end."""
    _lock: Lock = field(default_factory=Lock)

    chunk: ClassVar[int] = 1
    finds: ClassVar[bool] = False
    columns: ClassVar[tuple[str, ...]] = (
        "top", "range", "die_top", "dies_present", "dies_missing", "dies_unsure", "focus_positions", "safe",
        "known_share",
    )  # fmt: skip

    @property
    def folders(self) -> tuple[str, ...]:
        return (MAPS,)

    def options(self) -> dict[str, Any]:
        """What the results depend on besides bundle and images; a run is only resumed with the same."""
        return self.recorded

    def takes(self, path: str) -> bool:
        """Whether a file belongs to the lot: true heights of a data set do not."""
        return not is_truth(path)

    def require(self, plan: Plan) -> None:
        """Refuses what cannot be done with this lot.

        Raises:
            UsageError: there are fewer or more tracks than swaths.
        """
        require_tracks(self.told.tracks, plan.items)

    def results(self, chunk: int, first: int, items: Sequence[Item]) -> list[ImageResult]:
        """The map of one swath and all that is found on it; what cannot be read is quarantined with its reason.

        Raises:
            InputError: a result cannot be written.
        """
        made = []
        for place, (path, page) in enumerate(items):
            result = ImageResult(first + place, printable(path), page, OK, chunk=chunk)
            made.append(result)
            began = time.perf_counter()
            try:
                if page:
                    raise InputError(path, "is a page of a stack; a swath is one image")
                facts = self.told.facts(path, first + place)
                swath = swath_map(path, facts, self.session, self._lock)
            except InputError as wrong:
                result.status = QUARANTINED
                result.reason = wrong.reason if wrong.path == path else str(wrong)
                continue
            found = self.found(swath, facts.product, facts.na)
            result.measurements = found.numbers
            result.verdict, result.verdict_reason = swath_verdict(self.limits, found.numbers)
            if self.maps:
                name = overlay_name(result.item, result.path).removesuffix(".png")
                result.map_file = f"{MAPS}/{name}/height.tif"
                self.write(self.out / MAPS / name, swath, found, facts, result.path, began)
            self._tell(result, swath, time.perf_counter() - began)
        return made

    def found(self, swath: SwathMap, product: Product | None, na: float | None) -> Found:
        """Dies, plan of focus and the numbers of a map."""
        objective = None if swath.columns is None else swath.columns.objective_z_um
        focused = objective is not None and na is not None and bool(np.isfinite(objective).any())
        dies = None
        fine = PITCH_UM[0] <= swath.pitch_um <= PITCH_UM[1]  # else edges are those of the height map
        if swath.shares is not None or product is not None:
            dies = die_map(
                swath.height_um,
                swath.shares,
                swath.image if fine else None,
                swath.pitch_um,
                product=product,
                focus_um=objective if focused else None,
                na=na if focused else None,
            )
        options, lens = self.plan_options, OBJECTIVES[self.plan_options.objective]
        plan = focus_plan(
            swath.height_um,
            swath.sigma_um,
            swath.pitch_um,
            magnification=lens.magnification,
            na=lens.na,
            layer=options.layer if dies is not None else "all",
            dies=None if dies is None else dies.dies,
            clearance_um=options.clearance_um,
            coverage=LEVEL,
        )
        h, w = swath.height_um.shape
        sites = (SITE_MM, SITE_MM) if min(h, w) * swath.pitch_um > 1000 * SITE_MM else None
        flat = flatness(swath.height_um, swath.pitch_um, site_mm=sites)
        return Found(dies, plan, flat, _numbers(swath, dies, plan, options.clearance_um))

    def write(
        self, folder: Path, swath: SwathMap, found: Found, facts: SwathFacts | None, path: str, began: float
    ) -> None:
        """Writes a map and what was found, whole or not at all."""
        beside = folder.with_name(f"{folder.name}.part")
        try:
            beside.mkdir(parents=True)
        except OSError as wrong:
            raise InputError(beside, f"cannot be made: {wrong.strerror}") from wrong
        write_maps(beside, swath, self.formats)
        if found.dies is not None:
            write_die_map(beside / "dies.csv", beside / "dies.json", found.dies)
        write_focus_plan(beside / "focus.csv", beside / "focus.json", found.plan)
        write_flatness(beside / "flatness.csv", beside / "flatness.json", found.flatness)
        seconds = time.perf_counter() - began
        h, w = swath.height_um.shape
        write_json(
            beside / FIELD,
            {
                "name": Path(path).stem,
                "path": path,
                "pitch_um": swath.pitch_um,
                "rows": h,
                "columns": w,
                "image_px": list(swath.image_px),
                "stage_x0_um": swath.x0_um,
                "stage_y0_um": swath.y0_um,
                "product": product_json(None if facts is None else facts.product),
                "inputs": list(swath.inputs),
                **columns_json(swath),
                "truth": None if facts is None or facts.truth is None else str(facts.truth.resolve()),
                "seconds": round(seconds, 3),
                "mpx_per_s": round(1e-6 * swath.image_px[0] * swath.image_px[1] / seconds, 3),
                "coverage": LEVEL,
                "half_width_factor": NORMAL_90,
            },
        )
        if folder.exists():  # left by a run that was killed before it stored this swath
            shutil.rmtree(folder)
        beside.replace(folder)

    def _tell(self, result: ImageResult, swath: SwathMap, seconds: float) -> None:
        numbers = {name: value for name, value, *_ in result.measurements}
        pixels = 1e-6 * swath.image_px[0] * swath.image_px[1]
        self.done[result.item] = {
            "path": result.path,
            "map": result.map_file,
            "inputs": list(swath.inputs),
            **{name: numbers[name] for name in self.columns},
            "mpx": round(pixels, 3),
            "mpx_per_s": round(pixels / seconds, 3),
        }

    def finish(self, plan: Plan, images: Iterable[ImageResult]) -> dict[str, list[dict[str, Any]]]:
        """Lays the maps of all swaths together, where their places on the stage are told.

        Returns:
            `swaths`: what is said of each that this call measured.

        Raises:
            InputError: a map of the run is gone, or the stitched map cannot be written.
        """
        if self.told.layout and self.maps and not (self.out / STITCHED).exists():
            self._stitch()
        return {"swaths": [self.done[item] for item in sorted(self.done)]}

    def _stitch(self) -> None:
        began = time.perf_counter()
        swath, told, product = stitch(self.out)
        found = self.found(swath, product, None)
        folder = self.out / STITCHED
        self.write(folder, swath, found, None, STITCHED, began)
        write_json(folder / STITCH, told)


def _numbers(swath: SwathMap, dies: DieMap | None, plan: FocusPlan, clearance_um: float) -> list[Number]:
    """What is measured on a map; None where it is not known."""
    known = np.isfinite(swath.height_um)
    share = float(known.mean())
    top = bottom = half = safe = die_top = None
    if known.any():
        heights = swath.height_um[known]
        bottom, top = (float(z) for z in np.quantile(heights, (TOP_SHARE, 1 - TOP_SHARE)))
        if swath.sigma_um is not None:
            sigma = swath.sigma_um[known]
            half = NORMAL_90 * float(np.median(sigma[heights >= top]))
            safe = float((heights + NORMAL_90 * sigma).max()) + clearance_um
    counts: list[int | None] = [None, None, None]
    if dies is not None:
        counts = [dies.count("present"), dies.count("missing"), dies.count("unsure")]
        tops = [die.top_um for die in dies.dies if die.top_um is not None]
        die_top = float(np.median(tops)) if tops else None
    spread = None if top is None or bottom is None else top - bottom
    bounded = top is not None and half is not None
    present, missing, unsure = counts
    return [
        ("top", top, "um", top - half if bounded else None, top + half if bounded else None),
        ("range", spread, "um", None, None),
        ("die_top", die_top, "um", None, None),
        ("dies_present", present, "1", present, None if present is None or unsure is None else present + unsure),
        ("dies_missing", missing, "1", missing, None if missing is None or unsure is None else missing + unsure),
        ("dies_unsure", unsure, "1", None, None),
        ("focus_positions", plan.positions, "1", None, None),
        ("safe", safe, "um", None, None),
        ("known_share", share, "1", None, None),
    ]  # fmt: skip


def wafer_work(
    bundle: Bundle,
    out: Path,
    *,
    maps: bool = True,
    limits: Sequence[str | Limit] = (),
    tracks: Sequence[str | Path] = (),
    product: str | None = None,
    pitch_um: float | None = None,
    layout: str | Path | None = None,
    objective: str = "20x",
    layer: str = "top",
    clearance_um: float = 50.0,
    height_format: str = "tif",
) -> WaferWork:
    """The work of a bundle of the wafer station, its options checked.

    Raises:
        UsageError: an option is wrong.
        InputError: the layout cannot be read.
        BundleError: the network cannot be loaded.
    """
    if pitch_um is not None and not (np.isfinite(pitch_um) and pitch_um > 0):
        raise UsageError(f"--pitch-um {pitch_um:g}: the pitch is a positive number of um")
    if not (np.isfinite(clearance_um) and clearance_um >= 0):
        raise UsageError(f"--clearance-um {clearance_um:g}: must be 0 or positive")
    if objective not in OBJECTIVES:
        raise UsageError(f"--objective {objective}: one of {', '.join(OBJECTIVES)}")
    if layer not in ("all", "top", "carrier") and not layer.isdecimal():
        raise UsageError(f"--layer {layer}: all, top, carrier, or the number of a level from 0")
    if layout is not None and tracks:
        raise UsageError("--track and --layout: a layout names the tracks of its swaths itself, in its column track")
    told = Told(
        pitch_um,
        None if product is None else parse_product(product),
        tuple(Path(track) for track in tracks),
        {} if layout is None else read_layout(Path(layout)),
    )
    parsed = [parse_limit(one, LIMITED) if isinstance(one, str) else checked(one, LIMITED) for one in limits]
    named = {limit.name: limit for limit in parsed}
    chosen: Layer = int(layer) if layer.isdecimal() else layer  # type: ignore[assignment]
    recorded = {
        "maps": maps,
        "limits": [str(limit) for limit in named.values()],
        "tracks": [str(track) for track in tracks],
        "product": product,
        "pitch_um": pitch_um,
        "layout": None if layout is None else str(layout),
        "objective": objective,
        "layer": layer,
        "clearance_um": clearance_um,
        "height_format": height_format,
    }
    return WaferWork(
        WaferSession(bundle, threads=2), told, PlanOptions(objective, chosen, clearance_um),
        parse_formats(height_format), out, maps, tuple(named.values()), recorded,
    )  # fmt: skip
