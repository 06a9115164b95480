"""How long does average precision take on 5,000 images, beside pycocotools and the faster evaluations of others?

    OMP_NUM_THREADS=1 python benchmarks/coco_map.py [--images 5000] [--repeats 3] [--out result.json]

Images are made to look like COCO's: 80 classes of unequal frequency, about 7 truths an image of COCO's spread of sizes,
1 % of them crowds, and about 100 detections an image, of which some fit a truth more or less well, some fit it and
are of another class, and most are nothing. Every contender starts from what it takes with everything loaded: ours from
arrays, the others from their own tables in memory, which are made outside of the clock. Ours is compiled before (the
others are compiled already); a time is the minimum over the repeats, contenders take turns, and one that took longer
than 20 s has had its turn. Ours runs in one thread, as pycocotools; the others take the threads that they take. All of
a contender's twelve figures have to be ours to 1e-9. Bar: 0.3 times pycocotools.

pycocotools, faster-coco-eval and hotcoco are timed where they are installed; without pycocotools the ratio is not told.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import io
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from waferlens.evaluate.average_precision import AveragePrecision, Found, Truth, match
from waferlens.lab.bench import machine

BAR = 0.3
CLASSES = 80
PATIENCE_S = 20.0
"""A contender slower than this runs once [s]"""
PEERS = {
    "pycocotools": ("pycocotools.coco", "COCO", "pycocotools.cocoeval", "COCOeval"),
    "faster-coco-eval": ("faster_coco_eval", "COCO", "faster_coco_eval", "COCOeval_faster"),
    "hotcoco": ("hotcoco", "COCO", "hotcoco", "COCOeval"),
}


def made(images: int, seed: int = 0) -> tuple[Found, Truth]:
    """Truths and detections in a row, as COCO's validation set has them in number, size and class."""
    rng = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, CLASSES + 1)
    share /= share.sum()

    def boxes(count: int) -> np.ndarray:
        side = np.exp(rng.normal(4.0, 1.0, count)).clip(3, 450)
        ratio = np.exp(rng.normal(0.0, 0.4, count))
        size = np.stack([side * ratio, side / ratio], axis=1).clip(2, 480)
        corner = rng.random((count, 2)) * (np.array([640, 480]) - size).clip(1)
        return np.round(np.concatenate([corner, corner + size], axis=1), 2)

    count = rng.poisson(7.3, images)
    image = np.repeat(np.arange(images), count)
    true_boxes, kinds = boxes(len(image)), rng.choice(CLASSES, len(image), p=share)
    truth = Truth(image, true_boxes, kinds, crowd=rng.random(len(image)) < 0.01)
    # every truth is seen several times, with less and less care; half of what is said has nothing to do with any
    seen = np.repeat(np.arange(len(image)), rng.poisson(6, len(image)))
    size = (true_boxes[seen, 2:] - true_boxes[seen, :2])[:, [0, 1, 0, 1]]
    near = true_boxes[seen] + rng.normal(0, 1, (len(seen), 4)) * size * rng.gamma(1.0, 0.08, (len(seen), 1))
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
    same = rng.random(len(seen)) < 0.8
    near_kinds = np.where(same, kinds[seen], rng.choice(CLASSES, len(seen), p=share))
    near_scores = rng.beta(2, 3, len(seen)) * np.where(same, 1.0, 0.6)
    rest = rng.poisson(100 - 6 * 7.3, images)
    other = np.repeat(np.arange(images), rest)
    found = Found(
        np.concatenate([image[seen], other]),
        np.round(np.concatenate([near, boxes(len(other))]), 2),
        np.round(np.concatenate([near_scores, rng.beta(1, 8, len(other))]), 3),
        np.concatenate([near_kinds, rng.choice(CLASSES, len(other), p=share)]),
    )
    order = np.argsort(found.image, kind="stable")
    return Found(found.image[order], found.boxes[order], found.scores[order], found.kinds[order]), truth


def tables(found: Found, truth: Truth, images: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The same as COCO's JSON holds it."""

    def entries(one: Found | Truth) -> list[dict[str, Any]]:
        sides = one.boxes[:, 2:] - one.boxes[:, :2]
        rows = np.concatenate([one.boxes[:, :2], sides], axis=1)
        return [
            {"id": number + 1, "image_id": int(image) + 1, "category_id": int(kind) + 1, "bbox": row.tolist()}
            for number, (image, kind, row) in enumerate(zip(one.image, one.kinds, rows, strict=True))
        ]

    labelled = entries(truth)
    for entry, crowd in zip(labelled, truth.crowd, strict=True):
        entry |= {"area": entry["bbox"][2] * entry["bbox"][3], "iscrowd": int(crowd)}
    told = [entry | {"score": float(score)} for entry, score in zip(entries(found), found.scores, strict=True)]
    data = {
        "info": {},
        "images": [{"id": number + 1, "width": 640, "height": 480} for number in range(images)],
        "categories": [{"id": number + 1, "name": f"class {number}"} for number in range(CLASSES)],
        "annotations": labelled,
    }
    return data, told


def figures(told: AveragePrecision) -> list[float]:
    """The twelve that COCO's evaluation prints."""
    sizes = ("small", "medium", "large")
    return [
        *(told.ap(), told.ap(0.5), told.ap(0.75), *(told.ap(size=size) for size in sizes)),
        *(told.ar(most=most) for most in (1, 10, 100)),
        *(told.ar(size=size) for size in sizes),
    ]


def peer(name: str, data: dict[str, Any], told: list[dict[str, Any]]) -> Callable[[], list[float]] | None:
    """Runs an evaluation of others on tables in memory; None where it is not installed."""
    table, coco, module, evaluation = PEERS[name]
    try:
        coco_class = getattr(importlib.import_module(table), coco)
        evaluation_class = getattr(importlib.import_module(module), evaluation)
    except ImportError:
        return None
    with contextlib.redirect_stdout(io.StringIO()):
        if name == "hotcoco":
            true = coco_class(data)
        else:
            true = coco_class()
            true.dataset = data
            true.createIndex()
        loaded = true.loadRes(told)

    def run() -> list[float]:
        with contextlib.redirect_stdout(io.StringIO()):
            judged = evaluation_class(true, loaded, "bbox")
            judged.evaluate()
            judged.accumulate()
            judged.summarize()
        return [float(value) for value in judged.stats[:12]]

    return run


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=5000)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--without", nargs="*", default=[], choices=PEERS, help="contenders to leave out")
    options.add_argument("--out", type=Path)
    told = options.parse_args()
    found, truth = made(told.images)
    data, results = tables(found, truth, told.images)
    runs: dict[str, Callable[[], list[float]]] = {
        "waferlens": lambda: figures(match(found, truth, CLASSES).average_precision())
    }
    for name in PEERS:
        run = peer(name, data, results) if name not in told.without else None
        if run is not None:
            runs[name] = run
    small_found, small_truth = made(20)
    match(small_found, small_truth, CLASSES).average_precision()  # compiles
    seconds, values = {name: float("inf") for name in runs}, {}
    for _ in range(told.repeats):
        for name, run in runs.items():
            if PATIENCE_S < seconds[name] < float("inf"):
                continue
            start = time.perf_counter()
            values[name] = run()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    ours = np.array(values["waferlens"])
    apart = {name: float(np.abs(np.array(theirs) - ours).max()) for name, theirs in values.items()}
    ratios = {name: seconds["waferlens"] / value for name, value in seconds.items()}
    for name, value in seconds.items():
        print(f"{name:<18} {value:8.3f} s   ours takes {ratios[name]:6.3f} of it   AP {values[name][0]:.6f}", end="")
        print(f"   largest difference of 12 figures {apart[name]:.1e}")
    result = {
        "images": told.images,
        "truths": len(truth.image),
        "detections": len(found.image),
        "classes": CLASSES,
        "repeats": told.repeats,
        "seconds": seconds,
        "ratio_of_ours_to": ratios,
        "largest_difference": apart,
        "figures": values["waferlens"],
        "bar": BAR,
        "versions": {name: importlib.metadata.version(name) for name in ("numpy", "numba", *list(runs)[1:])},
        "threads": os.environ.get("OMP_NUM_THREADS"),
        **machine(),
    }
    same = all(value <= 1e-9 for value in apart.values())
    fast = ratios["pycocotools"] <= BAR if "pycocotools" in ratios else None
    result["bar_met"] = None if fast is None else same and fast
    print(f"figures equal: {same}; bar {BAR} of pycocotools: {'not told' if fast is None else fast}")
    if told.out:
        told.out.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if same and fast is not False else 1


if __name__ == "__main__":
    sys.exit(main())
