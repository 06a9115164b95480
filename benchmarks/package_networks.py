"""How fast is `package-fast` beside YOLOv7-tiny, YOLOv5n and graphs of others at the same input? Networks only, f32.

    python benchmarks/package_networks.py
    python benchmarks/package_networks.py --input 640x640 --peer yolo26n.onnx

The bar: `package-fast` takes at most 0.4 of YOLOv7-tiny's time in ONNX Runtime. With one thread, times are those of the
processor, not of the clock on the wall: what a busy machine makes a network wait for is not counted. With more, they
are of the wall, for engines spin while they wait. Ultralytics' networks are under the AGPL and their package needs
torchvision, so none is fetched or built here; where you have one as an ONNX file, `--peer` times it in the same turns.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

from waferlens import __version__
from waferlens.lab.bench import bench, machine

OURS, PEER, OTHERS = "package-fast", "package-yolov7-tiny", ("roi-yolov5n",)
BAR = 0.4


def ratios(size: str, told: argparse.Namespace) -> list[dict[str, Any]]:
    """Of one size of image."""
    h, w = map(int, size.split("x"))
    done = bench(
        [PEER, OURS, *OTHERS, *told.peer],
        [int(one) for one in told.batch.split(",")],
        told.threads,
        told.seconds,
        engines=told.engine.split(","),
        size_px=(h, w),
        clock=time.process_time if told.threads == 1 else time.perf_counter,
    )
    return [
        {
            "input": size,
            "engine": one.engine,
            "batch": one.batch,
            "network": one.name,
            "parameters": one.parameters_fused,
            "gflops": None if one.gflops is None else round(one.gflops, 2),
            "ms_per_image": round(one.ms_per_image, 2),
            "fastest_ms_per_image": round(one.fastest_ms_per_image, 2),
            "time_ratio": round(one.ratio, 3),
            "time_ratio_95": None if one.ratio_interval is None else [round(end, 3) for end in one.ratio_interval],
            "timed": one.timed,
            **({"bar": BAR, "meets_it": one.ratio <= BAR} if one.name == OURS else {}),
        }
        for one in done.timings
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", nargs="+", default=["1088x576", "640x640"], metavar="ROWSxCOLUMNS")
    parser.add_argument("--batch", default="1,16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--peer", nargs="*", default=[], metavar="FILE.onnx")
    told = parser.parse_args()
    before = os.getloadavg()[0]
    results = [row for size in told.input for row in ratios(size, told)]
    print(
        json.dumps(
            {
                "question": f"{OURS} beside {PEER} and others at the same input, networks only",
                "ratio": f"time over that of {PEER}, median over turns, with its 95 % interval",
                "clock": "of the processor" if told.threads == 1 else "on the wall",
                "threads": told.threads,
                "load": [round(before, 2), round(os.getloadavg()[0], 2)],
                "results": results,
                "waferlens": __version__,
                **machine(),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
