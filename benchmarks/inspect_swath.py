"""How fast does `inspect` read a whole swath, how much memory does it take, and does anything show where tiles meet?

    python benchmarks/inspect_swath.py FOLDER --bundle wafer-fast [--scale 0.05] [--out result.json]

Makes a swath of 4,352 x 234,342 px, 16 bits, 2 GB: 54 simulated fields with their AF trace, drawn on the grid of 684 px
a field and laid on the camera's pixels row by row into a mapped file. Then runs `waferlens inspect`
on it in a process of its own, and looks at that process every 50 ms. Anonymous memory is what the process itself asked
for; pages of the mapped file are not in it, for the system takes them back when it wants to.

Where tiles meet is judged twice: by the error of the columns in which two tiles are faded into one another over that
of all others, and, because other columns show other dies, by the error of the same columns in a second run, on the
swath without its first columns, in which they lie in the middle of a tile. FOLDER needs 2.8 GB, and what was made in it
is used again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from waferlens.evaluate.intervals import bootstrap_interval
from waferlens.formats.stage_trace import read_trace, write_trace
from waferlens.inspect.swath_map import OVERLAP_PX, TILE_PX
from waferlens.lab.bench import machine
from waferlens.records import COUNTS_PER_UM
from waferlens.simulate.wafer.dataset import wafer_world
from waferlens.simulate.wafer.field import draw_swath
from waferlens.simulate.wafer.scene import FIELD_UM, NATIVE_PITCH_UM

ROWS, COLUMNS = 4352, 234_342
GRID = 684
SEED = 20_251_128
BLOCK_ROWS = 64
LOOK_S = 0.05
STEP_PX = TILE_PX - 2 * OVERLAP_PX
SEAM_TILES = 12
"""Tiles of the second run."""
MEMORY_BAR_MIB, SEAM_BAR = 2048, 1.05


def make_swath(folder: Path, columns: int, wafer: int) -> None:
    """Image, trace and product of a swath, and its true heights on the grid it was drawn on."""
    done = folder / "made.json"
    wanted = {"columns": columns, "wafer": wafer, "seed": SEED, "grid": GRID}
    if done.exists() and json.loads(done.read_text()).items() >= wanted.items():
        return
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    fields = max(2, math.ceil(columns * NATIVE_PITCH_UM / FIELD_UM))
    made = draw_swath(wafer_world("sim"), SEED, wafer, fields, GRID, 1)
    np.save(folder / "height.npy", made.height_um)
    write_trace(folder / "track.csv", _cut(made.trace, 0.0, columns * NATIVE_PITCH_UM))
    _enlarge(folder / "swath.tif", made.image, made.pitch_um, columns)
    product = f"{made.product.die_thickness_um:g}:" + ",".join(f"{top:g}" for top in made.product.level_tops_um)
    told = {**wanted, "product": product, "carrier": made.design.carrier, "s": round(time.perf_counter() - began, 1)}
    done.write_text(json.dumps(told) + "\n")


def _enlarge(path: Path, image: np.ndarray, pitch_um: float, columns: int) -> None:
    """Lays the pixels of a coarse image on those of the camera; the averages over areas stay what they were."""

    def places(count: int, limit: int) -> np.ndarray:
        return np.minimum(((np.arange(count) + 0.5) * NATIVE_PITCH_UM / pitch_um).astype(np.int64), limit - 1)

    rows, across = places(ROWS, image.shape[0]), places(columns, image.shape[1])
    big = tifffile.memmap(path, shape=(ROWS, columns), dtype=np.uint16, photometric="minisblack", metadata=None)
    for first in range(0, ROWS, BLOCK_ROWS):
        part = rows[first : first + BLOCK_ROWS]
        held, again = np.unique(part, return_inverse=True)
        big[first : first + len(part)] = image[held][:, across][again]
    big.flush()


def make_cut(folder: Path, start: int, columns: int) -> None:
    """The same swath from a column on, as a file of its own."""
    whole = tifffile.memmap(folder / "swath.tif", mode="r")
    cut = tifffile.memmap(
        folder / "cut.tif", shape=(ROWS, columns), dtype=np.uint16, photometric="minisblack", metadata=None
    )
    for first in range(0, ROWS, BLOCK_ROWS):
        cut[first : first + BLOCK_ROWS] = whole[first : first + BLOCK_ROWS, start : start + columns]
    cut.flush()
    trace = read_trace(folder / "track.csv")
    write_trace(folder / "cut.csv", _cut(trace, start * NATIVE_PITCH_UM, (start + columns) * NATIVE_PITCH_UM))


def _cut(trace: Any, low_um: float, high_um: float) -> Any:
    """The samples between two places, the first place being 0."""
    x = trace.x_counts / COUNTS_PER_UM
    kept = (x >= low_um) & (x <= high_um)
    columns = ("x_counts", "y_counts", "z_counts", "valid", "objective_z_um")
    told = {name: getattr(trace, name)[kept] for name in columns if getattr(trace, name) is not None}
    told["x_counts"] = told["x_counts"] - round(COUNTS_PER_UM * low_um)
    return replace(trace, further={number: values[kept] for number, values in trace.further.items()}, **told)


def inspected(folder: Path, image: str, track: str, bundle: str, product: str) -> dict[str, Any]:
    """Runs `inspect` in a process of its own and watches it."""
    out = folder / f"out-{Path(image).stem}"
    command = [
        sys.executable, "-m", "waferlens", "inspect", str(folder / image), "--bundle", bundle, "--out", str(out),
        "--track", str(folder / track), "--product", product, "--pitch-um", repr(NATIVE_PITCH_UM), "--fresh", "--json",
    ]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    peak_kib = 0
    with (folder / "told.json").open("w") as file:
        process = subprocess.Popen(command, stdout=file)
        while process.poll() is None:
            peak_kib = max(peak_kib, _anonymous_kib(process.pid))
            time.sleep(LOOK_S)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(f"inspect ended with {process.returncode}; {out} holds its log and quarantine.csv")
    told = json.loads((folder / "told.json").read_text())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    pixels = 1e-6 * math.prod(tifffile.memmap(folder / image, mode="r").shape)
    return {
        "wall_s": round(wall, 1),
        "mpx": round(pixels, 1),
        "mpx_per_s": round(pixels / wall, 2),
        "cpu_s": round(cpu, 1),
        "cores_busy": round(cpu / wall, 2),
        "peak_anonymous_mib": round(peak_kib / 1024, 1),
        "map": str(out / told["swaths"][0]["map"]),
    }


def _anonymous_kib(pid: int) -> int:
    """Anonymous memory of a process and its children [KiB]"""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                total += int(line.split()[1])
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(_anonymous_kib(int(child)) for child in (task / "children").read_text().split())
    except (OSError, ValueError):  # it has just ended
        pass
    return total


def errors_um(folder: Path, path: str, start: int) -> tuple[np.ndarray, float]:
    """Mean error of each column of a map against truth, NaN beyond the wafer, and the map's pitch [um]

    Args:
        folder: Of the swath.
        path: Of the map.
        start: Column of the swath at which the image of the map begins.
    """
    height = tifffile.imread(path)
    pitch = float(json.loads((Path(path).parent / "field.json").read_text())["pitch_um"])
    truth = np.load(folder / "height.npy", mmap_mode="r")
    step = FIELD_UM / GRID

    def places(count: int, first_um: float) -> np.ndarray:
        return ((first_um + pitch * (np.arange(count) + 0.5)) / step).astype(np.int64)

    rows, columns = places(height.shape[0], 0.0), places(height.shape[1], start * NATIVE_PITCH_UM)
    inside = rows < truth.shape[0]  # the camera has a few rows more than the simulated fields
    error = np.full(height.shape[1], np.nan)
    known = np.flatnonzero(columns < truth.shape[1])
    for part in np.array_split(known, max(1, len(known) // 1024)):
        away = np.abs(height[np.ix_(inside, part)] - truth[rows[inside]][:, columns[part]])
        error[part] = away.mean(axis=0)
    return error, pitch


def seams(error: np.ndarray) -> np.ndarray:
    """Which seam each column of a map lies at, where two tiles are faded; -1 for the others."""
    where = np.full(len(error), -1)
    for number, middle in enumerate(range(STEP_PX + OVERLAP_PX, len(error) - OVERLAP_PX, STEP_PX)):
        where[middle - OVERLAP_PX : middle + OVERLAP_PX] = number
    return where


def ratio(above: list[float], below: list[float]) -> dict[str, Any]:
    """Ratio of two sums with its 95 % interval, drawn anew over their parts."""
    sums = np.array([above, below]).T
    told: dict[str, Any] = {"ratio": round(float(sums[:, 0].sum() / sums[:, 1].sum()), 4), "parts": len(sums)}
    if len(sums) > 1:
        drawn = bootstrap_interval(sums, lambda part: part[:, 0] / np.maximum(part[:, 1], 1e-12))
        told["ratio_95"] = [round(float(end), 4) for end in drawn]
    return told


def compared(folder: Path, whole: dict[str, Any], cut: dict[str, Any] | None, start: int) -> dict[str, Any]:
    """Errors where tiles meet and elsewhere."""
    error, pitch = errors_um(folder, whole["map"], 0)
    where = seams(error)
    known = np.isfinite(error)
    at, off = known & (where >= 0), known & (where < 0)
    result: dict[str, Any] = {"mae_um": round(float(error[known].mean()), 3), "seams": int(where.max()) + 1}
    if at.any():
        result["mae_at_seams_um"] = round(float(error[at].mean()), 3)
        result["mae_elsewhere_um"] = round(float(error[off].mean()), 3)
        result["seams_over_elsewhere"] = round(float(error[at].mean() / error[off].mean()), 4)
    if cut is None:
        return result
    again, _ = errors_um(folder, cut["map"], start)
    shift = round(start * NATIVE_PITCH_UM / pitch)
    other = np.full(len(error), np.nan)
    part = min(len(again), len(error) - shift)
    other[shift : shift + part] = again[:part]
    middle = np.full(len(error), False)
    middle[shift : shift + part] = seams(again)[:part] < 0
    both = at & middle & np.isfinite(other)
    # a tile at the very start or end of an image sees less beside it than one in the middle
    both &= (np.arange(len(error)) >= shift + OVERLAP_PX) & (np.arange(len(error)) < shift + part - OVERLAP_PX)
    numbers = [int(number) for number in np.unique(where[both])]
    if numbers:
        pairs = [both & (where == number) for number in numbers]
        told = ratio([float(error[one].sum()) for one in pairs], [float(other[one].sum()) for one in pairs])
        result["seams_over_same_columns_inside_a_tile"] = told
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bundle", default="wafer-fast")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the swath's length")
    parser.add_argument("--wafer", type=int, default=0, help="which simulated wafer")
    parser.add_argument("--no-seams", action="store_true", help="leave the second run out")
    parser.add_argument("--out", type=Path)
    told = parser.parse_args()
    columns = round(COLUMNS * told.scale)
    make_swath(told.folder, columns, told.wafer)
    made = json.loads((told.folder / "made.json").read_text())
    whole = inspected(told.folder, "swath.tif", "track.csv", told.bundle, made["product"])
    start = round(STEP_PX / 2 * FIELD_UM / GRID / NATIVE_PITCH_UM)
    length = min(columns - start, round(SEAM_TILES * STEP_PX * FIELD_UM / GRID / NATIVE_PITCH_UM))
    cut = None
    if not told.no_seams and length * NATIVE_PITCH_UM > TILE_PX * FIELD_UM / GRID:
        make_cut(told.folder, start, length)
        cut = inspected(told.folder, "cut.tif", "cut.csv", told.bundle, made["product"])
    result = {
        "question": "one swath through inspect: time, memory, and where tiles meet",
        "rows": ROWS,
        "columns": columns,
        "file_gb": round((told.folder / "swath.tif").stat().st_size / 1e9, 3),
        "bundle": told.bundle,
        "carrier": made["carrier"],
        "product": made["product"],
        **whole,
        "bar_anonymous_mib": MEMORY_BAR_MIB,
        "error": compared(told.folder, whole, cut, start),
        "bar_seams": SEAM_BAR,
        "cores_allowed": len(os.sched_getaffinity(0)),
        **machine(),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if told.out is not None:
        told.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
