"""How long does one simulated package take on one core: its surface, its three pictures, its files?

    OMP_NUM_THREADS=1 python benchmarks/simulate_package.py [--devices 20] [--repeats 3] [--out result.json]

Times are of the processor, so that other work on the machine counts little. Every device is drawn `repeats` times and
its least time counts; a result is the mean over the devices. `sim` and `real` take turns. Bar: 0.6 s a triple of `sim`
without files.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import cv2

from waferlens.simulate.package.dataset import package_world, write_devices
from waferlens.simulate.package.device import draw_device, draw_surface
from waferlens.simulate.package.scene import draw_scene

BAR_S = 0.6


def least_s(do: Callable[[], object], repeats: int) -> float:
    spent = []
    for _ in range(repeats):
        started = time.process_time()
        do()
        spent.append(time.process_time() - started)
    return min(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None)
    told = parser.parse_args()

    cv2.setNumThreads(1)
    worlds = {domain: package_world(domain) for domain in ("sim", "real")}
    for world in worlds.values():
        draw_device(world, 1, 0)  # tables of the fields
    triple_s: dict[str, list[float]] = {domain: [] for domain in worlds}
    surface_s: dict[str, list[float]] = {domain: [] for domain in worlds}
    for number in range(told.devices):
        for domain, world in worlds.items():
            triple_s[domain].append(least_s(lambda w=world, n=number: draw_device(w, 1, n), told.repeats))
            surface_s[domain].append(least_s(lambda w=world, n=number: draw_surface(draw_scene(w, 1, n)), told.repeats))
    written_s = []
    for _ in range(told.repeats):
        with tempfile.TemporaryDirectory() as folder:
            started = time.process_time()
            write_devices(Path(folder) / "set", worlds["sim"], 4, 1)
            written_s.append((time.process_time() - started) / 4)
    result = {
        "question": "one simulated package in three lights on one core",
        "s_per_triple": {domain: round(sum(spent) / len(spent), 3) for domain, spent in triple_s.items()},
        "s_slowest_triple": {domain: round(max(spent), 3) for domain, spent in triple_s.items()},
        "s_of_it_for_the_surface": {domain: round(sum(spent) / len(spent), 3) for domain, spent in surface_s.items()},
        "s_per_device_with_files": round(min(written_s), 3),
        "bar_s": BAR_S,
        "devices": told.devices,
        "load_average": [round(one, 1) for one in os.getloadavg()],
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
