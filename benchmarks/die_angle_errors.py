"""How near the angle of a die is found, against what its borders permit, and what is decided at the limit.

Devices are drawn as `simulate package` draws them, their truth kept. Of each light and datum: the 95th percentile of
the error over that of the bound (1.96 standard deviations), and how many of the 90 % intervals hold the truth.

    python benchmarks/die_angle_errors.py --domain turned --devices 60
    python benchmarks/die_angle_errors.py --domain hard --devices 60 --lights bf --datums package cavity
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time

import numpy as np

from waferlens import __version__
from waferlens.ops.die_angle import LIMIT_DEG, die_angle
from waferlens.ops.die_angle_bound import light_density, light_turn_sigma_deg, rough_turn_sigma_deg
from waferlens.ops.roi_edges import locate_package
from waferlens.ops.roi_rectangle import Look, side_profiles
from waferlens.simulate.package.dataset import package_world
from waferlens.simulate.package.device import SimulatedDevice, draw_device
from waferlens.simulate.package.surroundings import BORDER_LENGTH_PX

NEAR = Look(out_px=4.0, in_px=4.0, trim_px=16.0, coarse_px=0.0)
"""Of a sharp border the light that is its own"""


def sides(quad: np.ndarray) -> list[float]:
    return [float(np.hypot(*(quad[(n + 1) % 4] - quad[n]))) for n in range(4)]


def light_sigma(clean: np.ndarray, quad: np.ndarray, full_well_e: float, read_e: float) -> float:
    """The bound that light alone sets for a sharp rectangle, from the picture without noise, its colours added."""
    densities = [0.0] * 4
    for channel in range(3):
        for number, profile in enumerate(side_profiles(clean[..., channel], quad, NEAR)):
            if profile is not None:
                step = float(profile.away_px[1] - profile.away_px[0])
                densities[number] += light_density(profile.level, step, full_well_e, read_e)
    return light_turn_sigma_deg(sides(quad), densities)


def bound_deg(made: SimulatedDevice, clean: np.ndarray, datum: str, full_well_e: float, read_e: float) -> float:
    """Standard deviation of the best unbiased angle [deg]"""
    truth = made.truth
    die = light_sigma(clean, truth.die_quad, full_well_e, read_e)
    if datum == "package":
        return math.hypot(die, rough_turn_sigma_deg(sides(truth.ic_quad), truth.border_rms_px, BORDER_LENGTH_PX))
    return math.hypot(die, light_sigma(clean, truth.cavity_quad, full_well_e, read_e))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--domain", default="turned")
    parser.add_argument("--devices", type=int, default=40)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--lights", nargs="+", default=["bf", "dfw", "dfb"])
    parser.add_argument("--datums", nargs="+", default=["package", "cavity", "leads"])
    told = parser.parse_args()
    world = package_world(told.domain)
    rows: dict[tuple[str, str], list[dict[str, float]]] = {}
    missed: dict[str, int] = {}
    wrong_missing = missing = 0
    for number in range(told.devices):
        made = draw_device(world, told.seed, number)
        clean = None if made.truth.missing_die else draw_device(world, told.seed, number, noise=False)
        for light in told.lights:
            image = made.images[light]
            begin = time.process_time()
            package = locate_package(image, light=light)
            found_s = time.process_time() - begin
            for datum in told.datums:
                begin = time.process_time()
                done = die_angle(image, datum=datum, light=light, package=package)
                seconds = found_s + time.process_time() - begin
                if made.truth.missing_die:
                    missing += 1
                    wrong_missing += done.angle_deg is not None
                    continue
                if done.angle_deg is None:
                    missed[done.reason[:60]] = missed.get(done.reason[:60], 0) + 1
                    continue
                against = {
                    "package": 0.0,
                    "cavity": made.truth.theta_cavity_deg,
                    "leads": made.truth.theta_leads_deg,
                }[datum]
                true = made.truth.theta_die_deg - against
                bound = bound_deg(
                    made, clean.images[light], datum, world.microscope.full_well_e, world.microscope.read_e
                )
                rows.setdefault((light, datum), []).append(
                    {
                        "error": done.angle_deg - true,
                        "sigma": done.sigma_deg,
                        "held": float(done.low <= true <= done.high),
                        "bound": bound,
                        "ms": 1e3 * seconds,
                        "true": true,
                        "verdict": {"OK": 0.0, "NG": 1.0, "review": 2.0}[done.verdict(LIMIT_DEG)],
                    }
                )
    results = []
    for (light, datum), told_rows in rows.items():
        error, bound, held, sigma, true, verdict = (
            np.array([row[name] for row in told_rows])
            for name in ("error", "bound", "held", "sigma", "true", "verdict")
        )
        bad = np.abs(true) >= LIMIT_DEG
        results.append(
            {
                "light": light,
                "datum": datum,
                "measured": len(error),
                "rms_deg": round(float(np.sqrt(np.mean(error**2))), 5),
                "p95_deg": round(float(np.percentile(np.abs(error), 95)), 5),
                "bound_deg": round(float(np.sqrt(np.mean(bound**2))), 5),
                "p95_over_bound": round(float(np.percentile(np.abs(error / bound), 95)) / 1.96, 2),
                "error_over_sigma": round(float(np.sqrt(np.mean((error / sigma) ** 2))), 2),
                "coverage_90": round(float(held.mean()), 3),
                "escapes": f"{int(((verdict == 0) & bad).sum())} of {int(bad.sum())}",
                "overkill": f"{int(((verdict == 1) & ~bad).sum())} of {int((~bad).sum())}",
                "review_share": round(float((verdict == 2).mean()), 3),
                "cpu_ms": round(float(np.median([row["ms"] for row in told_rows])), 1),
            }
        )
    print(
        json.dumps(
            {
                "domain": told.domain,
                "devices": told.devices,
                "seed": told.seed,
                "not_measured": missed,
                "missing_dies_measured": f"{wrong_missing} of {missing}",
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
