"""How near the corners of packages are found by each method, against the bound that the border's roughness sets.

Devices are drawn as `simulate package` draws them. A corner's error is the root mean square over the four; where a
method takes the part for one that stands on its head, it is counted and its corners are compared the other way round.

    python benchmarks/roi_methods.py --domain turned --devices 60
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time

import cv2
import numpy as np

from waferlens import __version__
from waferlens.ops.die_angle_bound import rough_corner_px
from waferlens.ops.illumination import sort_light
from waferlens.ops.roi_record import angle_of, cut_sides
from waferlens.prepare.roi_finders import finder
from waferlens.simulate.package.dataset import package_world
from waferlens.simulate.package.device import draw_device
from waferlens.simulate.package.surroundings import BORDER_LENGTH_PX


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two convex quads."""
    shared, _ = cv2.intersectConvexConvex(a.astype(np.float32), b.astype(np.float32))
    return shared / (cv2.contourArea(a.astype(np.float32)) + cv2.contourArea(b.astype(np.float32)) - shared)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--domain", default="turned")
    parser.add_argument("--devices", type=int, default=40)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--lights", nargs="+", default=["bf", "dfw", "dfb"])
    parser.add_argument("--bundles", nargs="*", default=[], help="of networks; each is shown with lines and without")
    parser.add_argument("--set", nargs="*", default=[], dest="settings", help="a.b=c, a third method: edges with these")
    told = parser.parse_args()
    methods = {name: finder(name) for name in ("opencv", "edges")}
    if told.settings:
        methods["edges " + " ".join(told.settings)] = finder("edges", settings=told.settings)
    for bundle in told.bundles:
        for refine in (False, True):
            made = finder(bundle=bundle, refine=refine)
            methods[made.name + (" + lines" if refine else "")] = made
    world = package_world(told.domain)
    rows: dict[tuple[str, str], list[tuple[float, float, float, bool, float]]] = {}
    steeps: list[float] = []
    failed: dict[str, list[str]] = {}
    lights: dict[str, dict[str, int]] = {light: {} for light in told.lights}
    cut = cut_answered = 0
    for number in range(told.devices):
        made = draw_device(world, told.seed, number)
        truth = made.truth
        whole = not cut_sides(truth.ic_quad, made.images["bf"].shape, margin_px=0.0)
        width = float(np.hypot(*(truth.ic_quad[1] - truth.ic_quad[0])))
        height = float(np.hypot(*(truth.ic_quad[3] - truth.ic_quad[0])))
        bound = rough_corner_px(width, height, truth.border_rms_px, BORDER_LENGTH_PX)
        for light in told.lights:
            image = made.images[light]
            named = sort_light(image).light or "review"
            lights[light][named] = lights[light].get(named, 0) + 1
            for method, way in methods.items():
                begin = time.process_time()
                roi = way.find(image, light=light if named == "review" else None)
                ms = 1e3 * (time.process_time() - begin)
                if not whole:
                    cut += 1
                    cut_answered += "cut by" in roi.reason
                    continue
                if not roi.found:
                    failed.setdefault(f"{method} {light}", []).append(f"{number}: {roi.reason}")
                    continue
                if method == "edges" and roi.steep_px is not None:
                    steeps.append(roi.steep_px)
                over = abs(math.remainder(angle_of(roi.quad) - angle_of(truth.ic_quad), 360.0)) > 90
                quad = np.roll(roi.quad, 2, axis=0) if over else roi.quad
                error = math.sqrt(float(np.square(quad - truth.ic_quad).sum(axis=1).mean()))
                rows.setdefault((method, light), []).append(
                    (error, error / bound, overlap(quad, truth.ic_quad), over, ms)
                )
    results = []
    for (method, light), each in rows.items():
        error, ratio, iou, over, ms = (np.array(column, float) for column in zip(*each, strict=True))
        results.append(
            {
                "method": method,
                "light": light,
                "found": len(error),
                "failed": len(failed.get(f"{method} {light}", [])),
                "corner_rms_px": round(float(np.sqrt(np.mean(error**2))), 3),
                "corner_median_px": round(float(np.median(error)), 3),
                "corner_p95_px": round(float(np.percentile(error, 95)), 3),
                "rms_over_bound": round(float(np.sqrt(np.mean(ratio**2))), 2),
                "median_over_bound": round(float(np.median(ratio)), 2),
                "iou_median": round(float(np.median(iou)), 4),
                "iou_least": round(float(iou.min()), 4),
                "on_its_head": int(over.sum()),
                "cpu_ms": round(float(np.median(ms)), 1),
            }
        )
    print(
        json.dumps(
            {
                "domain": told.domain,
                "devices": told.devices,
                "seed": told.seed,
                "lights": lights,
                "cut_by_the_image": f"{cut_answered} of {cut} answered so",
                "failed": failed,
                "steep_px_median": round(float(np.median(steeps)), 2) if steeps else None,
                "results": results,
                "waferlens": __version__,
                "machine": platform.machine(),
                "python": platform.python_version(),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
