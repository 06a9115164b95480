"""How fast is `inspect` from PNG files, maps and tables written? Does its memory grow with the lot? How does it start?

    python benchmarks/inspect_lot.py FOLDER [--bundle hole-fast] [--images 10000] [--times 10]

Simulates a lot of PNG files, inspects it, then inspects one `--times` as large (the same files under other names). The
peer is the loop one would write oneself, in the same run on the first 1,000 images: read with OpenCV, run the network
on one image, save the map with NumPy; no measurands, no intervals, no tables. FOLDER needs 30 kB an image of the large
lot and may be deleted afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from waferlens.lab.bench import machine

START = """
import sys, time, resource; began = time.perf_counter()
import waferlens.cli.inspect, waferlens.inspect
from waferlens.bundle.files import open_bundle
from waferlens.bundle.session import Session
Session(open_bundle(sys.argv[1]))
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
RUN = """
import json, resource, sys
from waferlens.inspect import inspect_paths
done = inspect_paths([sys.argv[1]], sys.argv[2], sys.argv[3], fresh=True)
print(json.dumps([done.images_per_second, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""
LOOP = """
import sys, time; from pathlib import Path; import cv2, numpy, onnxruntime
from waferlens.bundle.files import open_bundle
options = onnxruntime.SessionOptions(); options.intra_op_num_threads = 2
session = onnxruntime.InferenceSession(open_bundle(sys.argv[2]).model, options)
name, out = session.get_inputs()[0].name, Path(sys.argv[3]); out.mkdir(exist_ok=True)
paths = sorted(Path(sys.argv[1]).rglob("*.png"))[:1000]
began = time.perf_counter()
for index, path in enumerate(paths):
    grey = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(numpy.float32)[None, None]
    numpy.save(out / f"{index}.npy", session.run(None, {name: grey})[0])
print(len(paths) / (time.perf_counter() - began))
"""


def python(code: str, *arguments: str | Path) -> str:
    """What a fresh interpreter prints for this code."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, stdout=subprocess.PIPE)
    return done.stdout.decode()


def make_lots(folder: Path, number: int, times: int) -> tuple[Path, Path]:
    """A lot of so many PNG files, and one of `times` as many: the same files linked under other names."""
    small, large = folder / "small", folder / "large"
    if not small.exists():
        command = [sys.executable, "-m", "waferlens", "simulate", "hole", str(folder / "simulated")]
        subprocess.run([*command, "--structures", str(-(-number // 8)), "--workers", "2"], check=True)
        small.mkdir()
        for index, path in enumerate(
            sorted((folder / "simulated" / "simulation_data" / "SEM").rglob("*.png"))[:number]
        ):
            os.link(path, small / f"{index:06d}.png")
    if not large.exists():
        large.mkdir()
        for path in sorted(small.iterdir()):
            for copy in range(times):
                os.link(path, large / f"{copy:03d}_{path.name}")
    return small, large


def main() -> None:
    """Prints the answers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bundle", default="hole-fast")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=10)
    told = parser.parse_args()
    told.folder.mkdir(parents=True, exist_ok=True)
    small, large = make_lots(told.folder, told.images, told.times)
    out = told.folder / "out"
    starts = [tuple(map(float, python(START, told.bundle).split())) for _ in range(5)]
    loop = float(python(LOOP, small, told.bundle, told.folder / "loop"))
    rates = [json.loads(python(RUN, small, told.bundle, out)) for _ in range(3)]
    large_rate, large_mb = json.loads(python(RUN, large, told.bundle, out))
    for leftover in (out, told.folder / "loop"):
        shutil.rmtree(leftover)
    small_mb = max(mb for _, mb in rates)
    print(
        json.dumps(
            {
                "question": "inspect from PNG files, maps and tables written",
                "images": told.images,
                "images_per_s": max(rate for rate, _ in rates),
                "loop_images_per_s": round(loop, 1),
                "ratio": round(max(rate for rate, _ in rates) / loop, 2),
                "rss_mb": round(small_mb, 1),
                f"images_per_s_at_{told.times}x": large_rate,
                f"rss_ratio_at_{told.times}x": round(large_mb / small_mb, 3),
                "start_s": round(min(seconds for seconds, _ in starts), 3),
                "start_rss_mb": round(max(mb for _, mb in starts), 1),
                "taken": time.strftime("%Y-%m-%d"),
                **machine(),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
