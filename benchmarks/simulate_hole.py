"""How long does one image of a simulated hole take on one core, without files?

    OMP_NUM_THREADS=1 python benchmarks/simulate_hole.py [--structures 20] [--sites 4] [--repeats 7] [--out result.json]

A structure gives four cases of two images, a site 30 holes. A result is the minimum over the repeats; sim and real take
turns, so that a busy moment hits both. Bars: 1.0 ms an image of `hole-sim`, 1.8 ms of `hole-real`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

from waferlens.simulate.hole.dataset import hole_world
from waferlens.simulate.hole.world import draw_pairs, draw_site

HOLES_PER_SITE = 30
BARS_MS = {"sim": 1.0, "real": 1.8}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--structures", type=int, default=20)
    parser.add_argument("--sites", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=None)
    told = parser.parse_args()

    sim, real = hole_world("sim"), hole_world("real")
    draw_pairs(sim, 1, 0)  # compiles
    draw_site(real, 1, 0, 1)
    sim_ms, real_ms = [], []
    for _ in range(told.repeats):
        started = time.perf_counter()
        images = sum(len(pair.images) for number in range(told.structures) for pair in draw_pairs(sim, 1, number))
        sim_ms.append(1e3 * (time.perf_counter() - started) / images)
        started = time.perf_counter()
        images = sum(len(draw_site(real, 1, number, HOLES_PER_SITE).images) for number in range(told.sites))
        real_ms.append(1e3 * (time.perf_counter() - started) / images)
    result = {
        "question": "one simulated hole image on one core, without files",
        "ms_per_image_sim": round(min(sim_ms), 3),
        "ms_per_image_real": round(min(real_ms), 3),
        "bars_ms": BARS_MS,
        "repeats": told.repeats,
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in ("numpy", "numba")}},
    }
    text = json.dumps(result, indent=2)
    print(text)
    if told.out is not None:
        told.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
