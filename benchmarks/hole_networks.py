"""How fast is `hole-fast` beside the plain U-Net of the same station? Network only, ONNX Runtime, 2 threads, one run.

Usage: python benchmarks/hole_networks.py [batch]
"""

from __future__ import annotations

import json
import sys

from waferlens.lab.bench import bench, machine

batch = int(sys.argv[1]) if len(sys.argv) > 1 else 32
told = bench(["hole-fast", "hole-unet-2"], [batch], threads=2, seconds=5.0, engines=["onnxruntime"])
timings = {timing.name: timing for timing in told.timings}
fast, plain = timings["hole-fast"], timings["hole-unet-2"]
print(
    json.dumps(
        {
            "question": "hole-fast against hole-unet-2, network only",
            "batch": batch,
            "threads": 2,
            "hole_fast_images_per_s": round(fast.images_per_s),
            "hole_unet_2_images_per_s": round(plain.images_per_s),
            "ratio": round(fast.images_per_s / plain.images_per_s, 2),
            **machine(),
        },
        indent=2,
    )
)
