"""How well does a detector that is shown the template find DeepPCB's defects, and tell their classes?

    python benchmarks/package_deeppcb.py BUNDLE [FOLDER]

BUNDLE was trained by `waferlens train package-fast-pairs --data FOLDER` and exported. FOLDER is DeepPCB, by default
`deeppcb` in $WAFERLENS_REAL_DATA. Pairs of a board lie on one side of the split: the validation boards chose the epoch,
and the score from which findings count for F; the test board chose nothing. Prints mAP and F at IoU 0.33 and 0.5, with
classes and without.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from waferlens.bundle.files import open_bundle
from waferlens.bundle.package import PackageSession
from waferlens.evaluate.average_precision import joined_found, joined_truth, match
from waferlens.evaluate.package_seen import look_at
from waferlens.evaluate.package_truth import read_judged
from waferlens.lab.bench import machine
from waferlens.ops.detection_matching import RIGHT
from waferlens.prepare.package_sides import side_of

OVERLAPS = (0.33, 0.5)
ALL = {"all": (0.0, float("inf"))}
MOST = 100


def judged(bundle_path: str, data: Path, side: str) -> tuple[Any, Any, int]:
    """What is found and what there is on one side of the split."""
    bundle = open_bundle(bundle_path)
    session = PackageSession(bundle, threads=len(os.sched_getaffinity(0)))
    images = read_judged(data, session, bundle, lambda group: side_of(data, group) == side)
    seen = look_at(session, bundle, images.images())
    found = joined_found(
        [one.boxes for one in seen.found], [one.scores for one in seen.found], [one.kinds for one in seen.found]
    )
    truth = joined_truth([one.boxes for one in seen.truth], [one.kinds for one in seen.truth])
    return found, truth, len(seen.classes)


def best_f(scores: np.ndarray, hit: np.ndarray, count: int) -> tuple[float, float]:
    """Greatest F over all least scores, and that score."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(hit[order])
    f = 2 * hits / (np.arange(1, len(order) + 1) + count)
    place = int(np.argmax(f))
    return float(f[place]), float(scores[order[place]])


def f_at(scores: np.ndarray, hit: np.ndarray, count: int, least: float) -> float:
    """F of the detections from a score on."""
    kept = scores >= least
    return float(2 * np.sum(hit & kept) / (np.sum(kept) + count))


def main() -> None:
    """Prints the figures of both sides as JSON."""
    bundle = sys.argv[1]
    data = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(os.environ["WAFERLENS_REAL_DATA"]) / "deeppcb"
    told: dict[str, Any] = {"question": "DeepPCB by a detector that is shown the template", "bundle": Path(bundle).name}
    least: dict[tuple[float, bool], float] = {}
    for side in ("validation", "test"):
        found, truth, classes = judged(bundle, data, side)
        rows = told[side] = {"objects": len(truth.kinds)}
        for apart in (True, False):
            matches = match(found, truth, classes, overlaps=OVERLAPS, sizes_px2=ALL, most=(MOST,), classes_apart=apart)
            precision, named = matches.average_precision(), matches.named()
            for place, overlap in enumerate(OVERLAPS):
                hit = named[:, place] == RIGHT
                if side == "validation":
                    least[overlap, apart] = best_f(matches.found.scores, hit, len(truth.kinds))[1]
                name = f"{'' if apart else 'class-agnostic '}at IoU {overlap}"
                rows[f"mAP {name}"] = round(precision.ap(overlap), 4)
                rows[f"F {name}"] = round(f_at(matches.found.scores, hit, len(truth.kinds), least[overlap, apart]), 4)
    print(json.dumps(told | machine(), indent=1))


if __name__ == "__main__":
    main()
