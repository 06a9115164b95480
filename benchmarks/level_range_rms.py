"""How long do levelling, range and rms of a 4096 x 4096 float64 map take, beside the peers on the same machine?

    OMP_NUM_THREADS=2 python benchmarks/level_range_rms.py [--size 4096] [--repeats 7] [--out result.json]

Peers: plain NumPy (normal equations), numpy.linalg.lstsq, SurfaceTopography's detrending, and Gwyddion's C library,
each where it is installed (Debian: apt install libgwyddion2-0). One result is the minimum over the repeats, and the
peers take turns with ours, so that a busy moment hits all of them. Every result is compared with the NumPy twin: the
difference stands beside the time.

`ours` reads the map and gives plane, range and rms; `ours, levelled map written` also writes the levelled map, which
is what Gwyddion does (in place).
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from waferlens.ops.level_range_rms import level_range_rms, level_range_rms_ref

Result = tuple[float, float]


def wafer(size: int) -> np.ndarray:
    """A tilted, bowed, rough map."""
    rng = np.random.default_rng(0)
    x = np.linspace(-1, 1, size)
    return rng.normal(scale=0.01, size=(size, size)) + 5 * x[None, :] - 3 * x[:, None] + 0.5 * x[None, :] ** 2 + 700


def by_lstsq(heights: np.ndarray) -> Result:
    h, w = heights.shape
    y, x = np.mgrid[:h, :w]
    design = np.stack((np.ones(heights.size), x.ravel(), y.ravel()), axis=1)
    solution = np.linalg.lstsq(design, heights.ravel(), rcond=None)[0]
    rest = heights.ravel() - design @ solution
    return float(np.ptp(rest)), float(rest.std())


def by_surfacetopography(heights: np.ndarray) -> Result:
    import SurfaceTopography

    size = tuple(map(float, heights.T.shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rest = SurfaceTopography.Topography(heights.T, size).detrend("height").heights()
    return float(np.ptp(rest)), float(rest.std())


class Gwyddion:
    """gwy_data_field_fit_plane, _plane_level, _get_min_max and _get_rms of libgwyprocess2, called as they are."""

    def __init__(self) -> None:
        # It does not name all libraries it needs, so they are opened before it, for everybody to see.
        for name in ("gobject-2.0", "fftw3", "gwyddion2", "gwyprocess2"):
            found = ctypes.util.find_library(name)
            if found is None:
                raise OSError(f"lib{name} is not installed (Debian: libgwyddion2-0)")
            self.library = library = ctypes.CDLL(found, mode=ctypes.RTLD_GLOBAL)
        library.gwy_process_type_init()
        library.gwy_data_field_new.restype = ctypes.c_void_p
        library.gwy_data_field_new.argtypes = [ctypes.c_int] * 2 + [ctypes.c_double] * 2 + [ctypes.c_int]
        library.gwy_data_field_get_data.restype = ctypes.POINTER(ctypes.c_double)
        library.gwy_data_field_get_data.argtypes = [ctypes.c_void_p]
        library.gwy_data_field_get_rms.restype = ctypes.c_double
        library.gwy_data_field_get_rms.argtypes = [ctypes.c_void_p]
        double = ctypes.POINTER(ctypes.c_double)
        library.gwy_data_field_fit_plane.argtypes = [ctypes.c_void_p, double, double, double]
        library.gwy_data_field_plane_level.argtypes = [ctypes.c_void_p] + [ctypes.c_double] * 3
        library.gwy_data_field_get_min_max.argtypes = [ctypes.c_void_p, double, double]
        self.field, self.heights = None, None

    def load(self, heights: np.ndarray) -> None:
        """Copy the map into a field of the library; not part of what is timed."""
        h, w = heights.shape
        if self.field is None:
            self.field = self.library.gwy_data_field_new(w, h, float(w), float(h), 0)
            data = self.library.gwy_data_field_get_data(self.field)
            self.heights = np.ctypeslib.as_array(data, (h, w))
        # Asking for the data makes the library forget what it knows about the old numbers.
        self.library.gwy_data_field_get_data(self.field)
        self.library.gwy_data_field_invalidate(ctypes.c_void_p(self.field))
        self.heights[:] = heights

    def __call__(self, _: np.ndarray) -> Result:
        a, b, c, low, high = (ctypes.c_double() for _ in range(5))
        self.library.gwy_data_field_fit_plane(self.field, ctypes.byref(a), ctypes.byref(b), ctypes.byref(c))
        self.library.gwy_data_field_plane_level(self.field, a, b, c)
        self.library.gwy_data_field_get_min_max(self.field, ctypes.byref(low), ctypes.byref(high))
        return high.value - low.value, self.library.gwy_data_field_get_rms(self.field)


def contenders(heights: np.ndarray) -> tuple[dict[str, tuple[Callable, Callable]], dict[str, str]]:
    """Name -> (what runs before the clock, what is timed), and who could not come."""
    room = np.empty_like(heights)

    def ours(z: np.ndarray) -> Result:
        found = level_range_rms(z)
        return found.range, found.rms

    def ours_one_thread(z: np.ndarray) -> Result:
        found = level_range_rms(z, threads=1)
        return found.range, found.rms

    def ours_written(z: np.ndarray) -> Result:
        found = level_range_rms(z, out=room)
        return found.range, found.rms

    def twin(z: np.ndarray) -> Result:
        found = level_range_rms_ref(z)
        return found.range, found.rms

    def nothing(_: np.ndarray) -> None:
        return None

    all_of_them: dict[str, tuple[Callable, Callable]] = {
        "ours": (nothing, ours),
        "ours, one thread": (nothing, ours_one_thread),
        "ours, levelled map written": (nothing, ours_written),
        "numpy twin": (nothing, twin),
        "numpy.linalg.lstsq": (nothing, by_lstsq),
    }
    absent = {}
    if importlib.util.find_spec("SurfaceTopography"):
        all_of_them["SurfaceTopography"] = (nothing, by_surfacetopography)
    else:
        absent["SurfaceTopography"] = "not installed (pip install 'waferlens[formats]')"
    try:
        gwyddion = Gwyddion()
        all_of_them["Gwyddion C"] = (gwyddion.load, gwyddion)
    except OSError as error:
        absent["Gwyddion C"] = str(error)
    return all_of_them, absent


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine() -> dict:
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "load_1min": os.getloadavg()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    heights = wafer(options.size)
    expected = level_range_rms_ref(heights)
    runners, absent = contenders(heights)
    slow = ("numpy.linalg.lstsq", "SurfaceTopography")
    best = dict.fromkeys(runners, float("inf"))
    found: dict[str, Result] = {}
    level_range_rms(heights[:256])
    for repeat in range(options.repeats):
        for name, (prepare, run) in runners.items():
            if name in slow and repeat >= 2:
                continue
            prepare(heights)
            begin = time.perf_counter()
            found[name] = run(heights)
            best[name] = min(best[name], time.perf_counter() - begin)
    differences = {
        name: max(abs(span / expected.range - 1), abs(rms / expected.rms - 1)) for name, (span, rms) in found.items()
    }
    result = {
        "question": f"level + range + rms of {options.size} x {options.size} float64",
        "milliseconds": {name: round(1e3 * seconds, 2) for name, seconds in best.items()},
        "times_ours": {name: round(seconds / best["ours"], 2) for name, seconds in best.items()},
        "relative_difference_to_twin": differences,
        "absent": absent,
        "machine": machine(),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("waferlens", "numpy", "numba", "SurfaceTopography")},
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")
    if differences["ours"] > 1e-10:
        sys.exit("ours differs from its twin by more than 1e-10")


if __name__ == "__main__":
    main()
