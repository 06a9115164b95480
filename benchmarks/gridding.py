"""How long does it take to gather 20 million sensor samples on a field's grid, and how much memory?

    OMP_NUM_THREADS=1 python benchmarks/gridding.py [--samples 20000000] [--side 4342] [--repeats 5] [--out result.json]

The peer is the plain loop a reader would write with numba: one thread, a sum and a count for each sample, no mean, no
check for what is not finite. Beside it numpy's `bincount`. Ours gives the mean, with one and with two threads, and the
two must agree to the last bit. Samples come in the order of a scan, and a second time in no order at all. Arrays are
made anew in every run; a time is the minimum over the repeats, contenders take turns. Memory is the peak of the
process that does nothing but make the samples and gather them, less the interpreter with numpy and numba loaded.
Bars: 1.2 times the plain loop in the order of a scan, 1.2 GB.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numba import njit

from waferlens.ops.gridding import grid_samples

BARS = {"ratio": 1.2, "memory_gb": 1.2}
PITCH_UM = 1.2913298


@njit(cache=True)
def plain(x, y, z, scale, total, count):
    for i in range(len(z)):
        column = int(x[i] * scale)
        row = int(y[i] * scale)
        if 0 <= row < total.shape[0] and 0 <= column < total.shape[1]:
            total[row, column] += z[i]
            count[row, column] += 1


def samples(count: int, side: int, *, ordered: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lines of a scan with a sample somewhere in each step, or the same places in no order."""
    rng = np.random.default_rng(0)
    width = side * PITCH_UM
    if not ordered:
        x, y = (rng.random(count, np.float32) * np.float32(width) for _ in range(2))
        return x, y, rng.random(count, np.float32) * np.float32(775)
    per_line = -(-count // side)
    number = np.arange(count, dtype=np.int32)
    x = (number % per_line).astype(np.float32)
    x += rng.random(count, np.float32)
    x *= np.float32(width / per_line)
    y = (number // per_line).astype(np.float32)
    y += rng.random(count, np.float32)
    y *= np.float32(PITCH_UM)
    return x, y, rng.random(count, np.float32) * np.float32(775)


def contenders(x: np.ndarray, y: np.ndarray, z: np.ndarray, side: int) -> dict[str, Callable[[], object]]:
    def loop() -> object:
        total, count = np.zeros((side, side), np.float64), np.zeros((side, side), np.int32)
        plain(x, y, z, 1.0 / PITCH_UM, total, count)
        return total, count

    def bincount() -> object:
        cell = (y / PITCH_UM).astype(np.int64) * side + (x / PITCH_UM).astype(np.int64)
        inside = cell[cell < side * side]
        return np.bincount(inside, z[: len(inside)], side * side), np.bincount(inside, minlength=side * side)

    def ours(threads: int) -> Callable[[], object]:
        return lambda: grid_samples(x, y, z, (side, side), PITCH_UM, threads=threads)

    return {"plain loop": loop, "ours, 1 thread": ours(1), "ours, 2 threads": ours(2), "numpy bincount": bincount}


def timed(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(repeats + 1):  # the first compiles
        for name, run in runs.items():
            if name == "numpy bincount" and turn > 2:
                continue
            start = time.perf_counter()
            run()
            if turn:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def peak_gb(count: int, side: int, threads: int) -> float:
    """Of a process of its own."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import gridding as g, numpy as np\n"
        "few = np.ones(9, np.float32)\n"
        "g.grid_samples(few, few, few, (9, 9), 1.0)\n"
        "before = g.high_water()\n"
        f"x, y, z = g.samples({count}, {side}, ordered=True)\n"
        f"made = g.grid_samples(x, y, z, ({side}, {side}), g.PITCH_UM, threads={threads})\n"
        "made.count.sum(), made.mean.sum()\n"
        "print(g.high_water() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout) / 1e9


def high_water() -> int:
    """Peak memory of this process; Linux only (`ru_maxrss` would count its parent in) [byte]"""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--samples", type=int, default=20_000_000)
    options.add_argument("--side", type=int, default=4342)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--out", type=Path)
    told = options.parse_args()
    result: dict[str, object] = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "versions": {name: importlib.metadata.version(name) for name in ("waferlens", "numpy", "numba")},
        "samples": told.samples,
        "side_px": told.side,
        "bars": BARS,
    }
    met = True
    for ordered in (True, False):
        x, y, z = samples(told.samples, told.side, ordered=ordered)
        one, two = (grid_samples(x, y, z, (told.side, told.side), PITCH_UM, threads=n) for n in (1, 2))
        same = one.mean.tobytes() == two.mean.tobytes() and one.count.tobytes() == two.count.tobytes()
        seconds = timed(contenders(x, y, z, told.side), told.repeats)
        ratios = {name: value / seconds["plain loop"] for name, value in seconds.items()}
        order = "order of a scan" if ordered else "no order"
        result[order] = {"seconds": seconds, "ratio_to_plain_loop": ratios, "threads_agree_to_the_bit": same}
        print(f"{order}: the two agree to the bit: {same}")
        for name, value in seconds.items():
            print(f"  {name:<16} {value:7.3f} s   {ratios[name]:5.2f} x the plain loop")
        met &= same and (not ordered or ratios["ours, 1 thread"] <= BARS["ratio"])
    memory = {f"{n} threads": peak_gb(told.samples, told.side, n) for n in (1, 2)}
    result["peak_memory_gb"] = memory
    print("peak memory " + ", ".join(f"{name} {value:.2f} GB" for name, value in memory.items()))
    met &= max(memory.values()) <= BARS["memory_gb"]
    result["bars_met"] = met
    print(f"bars met: {met}")
    if told.out:
        told.out.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
