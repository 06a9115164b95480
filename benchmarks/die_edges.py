"""How near the edges of dies are found in simulated fields, on pixels of 8.2 um, from boxes that are 10 um wrong.

Fields are drawn three times finer and averaged, for on the coarse grid itself a pixel that a wall crosses has a height
half-way down the wall, and its light is spread as if something stood there.

    python benchmarks/die_edges.py --domain real --fields 40
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time

import numpy as np

from waferlens import __version__
from waferlens.ops.sub_pixel_edges import EdgeLine, refine_edges
from waferlens.simulate.wafer.dataset import wafer_world
from waferlens.simulate.wafer.field import SimulatedField, draw_field
from waferlens.simulate.wafer.scene import FIELD_UM, NATIVE_PITCH_UM

GRID = 684
FINER = 3
OFF_UM = 10.0
LEAST_UM = 150.0
"""Shorter parts of edges are left out [um]"""
BORDER_UM = 60.0
"""And edges as near to the border of the field [um]"""


def lines_of(made: SimulatedField, focus_um: np.ndarray, na: float) -> list[tuple[float, EdgeLine]]:
    """The true edges of a field's present dies."""
    found = []
    for die in made.dies:
        for edge in range(4) if die.state == "present" else ():
            axis, at = edge % 2, die.box_um[edge]
            low, high = max(die.box_um[1 - axis], 0.0), min(die.box_um[3 - axis], FIELD_UM)
            if not BORDER_UM < at < FIELD_UM - BORDER_UM or high - low < LEAST_UM:
                continue
            column = int(at / FIELD_UM * len(focus_um))
            plane = float(np.median(focus_um)) if axis else float(focus_um[column])
            away = made.product.level_tops_um[0] - plane
            blur = math.hypot(0.5 * away * math.tan(math.asin(na)), 0.21 * 0.55 / na)
            found.append((at, EdgeLine("y" if axis else "x", at, low + 30, high - 30, edge < 2, blur)))
    return found


def measure(domain: str, fields: int, seed: int, finer: int) -> dict[str, object]:
    world = wafer_world(domain)
    microscope = world.microscope
    rng = np.random.default_rng(1)
    pitch = FIELD_UM / GRID
    wrong: dict[str, list[tuple[float, float, int]]] = {}
    seconds = 0.0
    for number in range(fields):
        made = draw_field(world, seed, number, GRID * finer)
        light = (made.image / np.float32(65535)) ** np.float32(1 / microscope.gamma)
        image = light.reshape(GRID, finer, GRID, finer).mean((1, 3))
        black = microscope.glare * float(image.mean())
        trace = made.trace
        order = np.argsort(trace.x_counts)
        place = (np.arange(GRID) + 0.5) * pitch
        focus = np.interp(place, trace.x_counts[order] / 32.0, trace.objective_z_um[order])
        truth = lines_of(made, focus, microscope.na)
        expected = [at + rng.uniform(-OFF_UM, OFF_UM) for at, _ in truth]
        for rim in (made.design.rim_um, None):
            for blurred in (True, False):
                asked = [
                    EdgeLine(one.axis, at, one.low_um, one.high_um, one.die_after, one.blur_um if blurred else None)
                    for at, (_, one) in zip(expected, truth, strict=True)
                ]
                started = time.perf_counter()
                fits = refine_edges(image, asked, pitch, rim_um=rim, black=black)
                seconds += time.perf_counter() - started
                name = f"rim {'known' if rim is not None else 'not known'}, blur {'known' if blurred else 'not known'}"
                wrong.setdefault(name, []).extend(
                    (fit.at_um - at if fit.found else math.nan, fit.sigma_um, len(made.design.insets_um))
                    for fit, (at, _) in zip(fits, truth, strict=True)
                )
    rows = {}
    for name, values in wrong.items():
        error, sigma, levels = np.array(values).T
        hit = np.abs(error) < 2 * NATIVE_PITCH_UM  # an edge that was not found is no hit
        found = np.isfinite(error)
        rows[name] = {
            "edges": len(error),
            "found": round(float(found.mean()), 3),
            "within_2_native_px": round(float(hit.mean()), 3),
            "within_2_native_px_of_one_level": round(float(hit[levels == 1].mean()), 3),
            "p95_um": round(float(np.percentile(np.abs(error[found]), 95)), 2),
            "within_2_sigma": round(float((np.abs(error) < 2 * sigma)[found].mean()), 3),
        }
    return {
        "domain": domain,
        "fields": fields,
        "seed": seed,
        "finer": finer,
        "seconds": round(seconds, 2),
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domain", default="sim")
    parser.add_argument("--fields", type=int, default=40)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--finer", type=int, default=FINER)
    given = parser.parse_args()
    told = measure(given.domain, given.fields, given.seed, given.finer)
    print(json.dumps({"waferlens": __version__, "machine": platform.machine(), **told}, indent=1))


if __name__ == "__main__":
    main()
