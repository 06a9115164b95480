"""A run of `inspect` on the wafer station from simulated fields, without a network: truth and noise are the prediction.

Everything but the network's answer is what inspect does with it: dies, plan of focus, flatness, files, results.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from scipy.ndimage import gaussian_filter

from waferlens.inspect import folder as run_folder
from waferlens.inspect.folder import DATABASE, MAPS, overlay_name
from waferlens.inspect.swath_facts import ColumnTrack, SwathFacts, Told
from waferlens.inspect.swath_map import SwathMap
from waferlens.inspect.wafer import PlanOptions, WaferWork
from waferlens.prepare.wafer_geometry import column_values
from waferlens.records import RunCard
from waferlens.simulate.wafer.field import SimulatedField
from waferlens.store.results import Store
from waferlens.store.rows import OK, QUARANTINED, ImageResult, Run

ERROR_UM = 5.0
"""Standard deviation of the prediction's error, and what it says of itself [um]"""


def predicted(field: SimulatedField, seed: int) -> SwathMap:
    """What a network could have said of a field: its truth, with errors that are smooth over some pixels."""
    h, w = field.height_um.shape
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(h, w)), 3)
    height = (field.height_um + ERROR_UM * noise / noise.std()).astype(np.float32)
    shares = np.zeros((3, h, w), np.float32)
    shares[1] = 1
    for die in field.dies:
        x0, y0, x1, y1 = (round(edge / field.pitch_um) for edge in die.box_um)
        part = (slice(None), slice(max(0, y0), max(0, y1)), slice(max(0, x0), max(0, x1)))
        shares[part] = 0
        shares[0 if die.state == "present" else 2][part[1:]] = 1
    track, objective = column_values(field.trace, field.pitch_um, w, 0.0)
    return SwathMap(
        (field.image / np.iinfo(field.image.dtype).max).astype(np.float32), height,
        np.full((h, w), ERROR_UM, np.float32), shares, field.pitch_um, 0.0, 0.0,
        ColumnTrack(track, objective, field.direction), ("image", "objective", "product", "track"), (h, w),
    )  # fmt: skip


def make_wafer_run(
    out: Path,
    fields: Sequence[SimulatedField],
    *,
    names: Sequence[str] | None = None,
    quarantined: Sequence[tuple[str, str]] = (),
    maps: bool = True,
    truth: bool = True,
    change: Callable[[SwathMap], SwathMap] = lambda made: made,
) -> Path:
    """Writes the run, as `inspect` would have.

    Args:
        out: its folder.
        fields: what was scanned.
        names: of their images; numbers if None.
        quarantined: names and reasons of images that could not be used.
        maps: whether maps are written.
        truth: whether the true heights lie beside.
        change: what is done to each prediction before anything is found on it.
    """
    out.mkdir(parents=True)
    told = [f"lot/{name}" for name in names or [f"{number:06d}.tif" for number in range(len(fields))]]
    work = WaferWork(None, Told(None, None, (), {}), PlanOptions(), ("tif",), out, maps, limits=(), recorded={})
    results = []
    for item, (field, path) in enumerate(zip(fields, told, strict=True)):
        began = time.perf_counter()
        made = change(predicted(field, item))
        height = None
        if truth:
            height = out.parent / f"{out.name}_truth_{item}.tif"
            tifffile.imwrite(height, field.height_um, photometric="minisblack")
        facts = SwathFacts(field.pitch_um, field.product, None, None, None, height)
        found = work.found(made, field.product, None)
        result = ImageResult(item, path, 0, OK, chunk=item, measurements=found.numbers)
        if maps:
            name = overlay_name(item, path).removesuffix(".png")
            result.map_file = f"{MAPS}/{name}/height.tif"
            work.write(out / MAPS / name, made, found, facts, path, began)
        results.append(result)
    for path, reason in quarantined:
        results.append(ImageResult(len(results), f"lot/{path}", 0, QUARANTINED, reason, chunk=len(results)))
    store_results(out, results)
    return out


def store_results(out: Path, results: Sequence[ImageResult]) -> None:
    """Database and card of a run."""
    options: dict[str, Any] = {"objective": "20x", "layer": "top", "clearance_um": 50.0, "product": None}
    data = {"run": "0123456789abcdef", "images": len(results), "images_sha256": "0" * 64, "bundle": "wafer-made",
            "fingerprint": "f" * 64, "calibration": {}, "options": options}  # fmt: skip
    recipe = {"name": "wafer-made", "station": "wafer", "summary": "Truth and noise."}
    card = RunCard(kind="inspect", recipe=recipe, seeds={}, versions={"waferlens": "0"}, data=data, sources=[],
                   results={"state": "done"}, machine={}, started="2026-01-02T03:04:05+00:00")  # fmt: skip
    (out / run_folder.RUNCARD).write_text(json.dumps(asdict(card)))
    with Store(out / DATABASE) as store:
        run = store.begin(Run(str(data["run"]), card.started, "wafer-made", "f" * 64, json.dumps(options), "0"))
        for result in results:
            store.add_chunk(run, [result])
