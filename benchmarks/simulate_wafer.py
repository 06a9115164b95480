"""How long does one simulated field of a wafer take on one core, grid by grid, without files?

    OMP_NUM_THREADS=1 python benchmarks/simulate_wafer.py [--grids 456 684 1140] [--fields 12] [--out result.json]

Fields of different wafers: how many layers a field has decides how long it takes. The table of the lens, made once a
process, is told beside. A result is the mean over the fields; bars: 0.25 s at 684 px, 35 s at the native 4,342.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
from importlib.metadata import version
from pathlib import Path

from waferlens.simulate.wafer.dataset import wafer_world
from waferlens.simulate.wafer.field import draw_field
from waferlens.simulate.wafer.otf import transfer_table
from waferlens.simulate.wafer.scene import NATIVE_PX

BARS_S = {"684": 0.25, str(NATIVE_PX): 35.0}
LARGE_PX = 1500
"""Of a larger grid two fields are enough."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grids", type=int, nargs="+", default=[456, 684, 1140])
    parser.add_argument("--fields", type=int, default=12)
    parser.add_argument("--out", type=Path, default=None)
    told = parser.parse_args()

    world = wafer_world("sim")
    started = time.perf_counter()
    transfer_table()
    table_s = time.perf_counter() - started
    draw_field(world, 1, 0, 114)  # compiles
    mean_s, slowest_s, peak_mib = {}, {}, {}
    for grid in sorted(told.grids):
        spent = []
        for number in range(told.fields if grid < LARGE_PX else min(told.fields, 2)):
            started = time.perf_counter()
            draw_field(world, 1, number * world.fields_per_wafer, grid)
            spent.append(time.perf_counter() - started)
        mean_s[str(grid)], slowest_s[str(grid)] = round(sum(spent) / len(spent), 3), round(max(spent), 3)
        peak_mib[str(grid)] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    result = {
        "question": "one simulated field of a wafer on one core, without files",
        "s_per_field": mean_s,
        "s_slowest_field": slowest_s,
        "peak_memory_mib_so_far": peak_mib,
        "s_table_of_the_lens": round(table_s, 3),
        "bars_s": BARS_S,
        "fields": told.fields,
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system()},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "scipy", "opencv-python-headless")},
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    if told.out is not None:
        told.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
