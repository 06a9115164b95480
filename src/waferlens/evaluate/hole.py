"""Judges a hole bundle against known depth maps. Bundles only: what is judged is what a line will run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import UInt8

from waferlens.bundle.calibration import Calibration, intervals, out_of_domain, pixel_half_width
from waferlens.bundle.readout import read_out
from waferlens.bundle.session import Session
from waferlens.evaluate.agreement import COLUMNS, error_sums, root_mean
from waferlens.evaluate.calibrate import error_of
from waferlens.evaluate.intervals import (
    bootstrap_interval,
    cluster_sums,
    constant_width_score,
    coverage,
    interval_score,
)
from waferlens.evaluate.repeatability import repeatability
from waferlens.load.challenge import SimArrays
from waferlens.ops import baselines
from waferlens.ops.hole import UNITS, measure_holes
from waferlens.prepare.geometry import batch_input

BATCH = 256
DEPTH_BIN = 10.0
"""Width of a bin of nominal depth: the challenge sorts its sites into buckets of 10 nm [grey]"""
NOMINAL_FLOOR = 30.0
"""The floor's nominal level in the challenge; nominal depth is plateau minus this. Bins go by it and not by the very
depth: the deepest holes of a bucket are those whose pits no picture shows, and would look biased by choice [grey]"""
SMALLEST_BIN = 0.01
"""Share of the images a bin needs to be told."""
JUDGED = ("depth", "cd50_area", "cd50_x", "cd50_y", "wall_angle_deg", "ellipticity", "opening_area", "volume")
EXAMPLES = 6
"""Worst images kept for the pictures."""


@dataclass(slots=True)
class _Pixels:
    """Running sums over pixels of what their intervals do, by level and bin of depth."""

    inside: np.ndarray
    count: np.ndarray
    score: float = 0.0
    constant: list[np.ndarray] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Everything a page or a table needs."""

    summary: dict[str, Any]
    """What `--json` prints."""
    table: Mapping[str, np.ndarray]
    """One entry an image: truth, value, low and high of each measurand."""
    worst: list[dict[str, Any]]
    """Images with the largest error: image, prediction, sigma, truth."""


def evaluate_pairs(
    session: Session,
    calibration: Calibration,
    data: SimArrays,
    *,
    nm_per_grey: float | None,
    tolerances: Mapping[str, float] | None = None,
    with_baselines: bool = True,
    advance: Callable[[int], None] | None = None,
) -> Evaluation:
    """Compares a bundle with pairs of image and depth map.

    Args:
        session: The bundle's network.
        calibration: The bundle's calibration.
        data: Images with their depth maps.
        nm_per_grey: Depth a grey value; names of depth figures end in `_grey` where it is unknown.
        tolerances: Upper minus lower limit by measurand, in its unit of `ops.hole`; gives the P/T ratio.
        with_baselines: Also fit and judge the shortcuts: mean map, grey lookup, linear on statistics, nearest image.
        advance: Called with the number of images done since the last call.
    """
    levels = calibration.levels() or [0.9]
    truth_depth = _measured(data.depth)
    plateau = data.depth.reshape(len(data.depth), -1).max(axis=1)
    bins = np.rint((plateau - NOMINAL_FLOOR) / DEPTH_BIN).astype(int).clip(0, None)
    count = int(bins.max()) + 1
    pixels = _Pixels(np.zeros((len(levels), count)), np.zeros(count))
    columns: dict[str, list[np.ndarray]] = {}
    worst: list[tuple[float, dict[str, Any]]] = []
    for start in range(0, len(data.sem), BATCH):
        rows = slice(start, start + BATCH)
        told = read_out(session, calibration, batch_input(data.sem[rows]))
        truth = data.depth[rows].astype(np.float32)
        sums, figures = error_sums(told.depth, truth)
        _count_pixels(pixels, told.depth, told.sigma, truth, calibration, levels, bins[rows])
        found = intervals(calibration, told.measurands, told.features, levels[0])
        outside, _ = out_of_domain(calibration, told.domain)
        for name, column in {
            **{f"sum.{key}": sums[:, index] for index, key in enumerate(COLUMNS)},
            **figures,
            "out_of_domain": outside,
            **{f"value.{name}": told.measurands[name] for name in UNITS},
            **{f"corrected.{name}": found[name].value for name in UNITS},
            **{f"low.{name}": found[name].low for name in UNITS},
            **{f"high.{name}": found[name].high for name in UNITS},
        }.items():
            columns.setdefault(name, []).append(column)
        worst = _worst_of(worst, sums, told.depth, told.sigma, data.sem[rows], truth, start)
        if advance is not None:
            advance(len(truth))
    table = {name: np.concatenate(parts) for name, parts in columns.items()}
    table |= {f"truth.{name}": truth_depth[name] for name in UNITS}
    _, cluster = np.unique(data.structure, return_inverse=True)
    summary = {
        "images": len(data.sem),
        "structures": int(cluster.max()) + 1,
        "left_out": len(data.problems),
        "out_of_domain": float(table["out_of_domain"].mean()),
        **_map_figures(table, cluster, data.depth),
        **_pixel_figures(pixels, levels, calibration),
        **_measurand_figures(table, bins, levels[0], nm_per_grey, data, cluster, tolerances),
    }
    if with_baselines:
        summary["baselines"] = baseline_errors(data.sem, data.depth, cluster)
    return Evaluation(summary, table, [entry for _, entry in sorted(worst, key=lambda pair: -pair[0])])


def baseline_errors(
    sem: UInt8[np.ndarray, "n h w"], depth: UInt8[np.ndarray, "n h w"], cluster: np.ndarray
) -> dict[str, float]:
    """RMSE of what needs no network, each fitted on one half of the structures and judged on the other [grey].

    Empty for a single structure, which cannot be halved.
    """
    if cluster.min() == cluster.max():
        return {}
    half = cluster % 2
    squares: dict[str, float] = {}
    for side in (0, 1):
        fit, judge = np.flatnonzero(half == side), np.flatnonzero(half != side)
        for name, model in baselines.baselines().items():
            model.fit(sem[fit], depth[fit])
            for start in range(0, len(judge), BATCH):
                rows = judge[start : start + BATCH]
                error = model.predict(sem[rows]) - depth[rows]
                squares[name] = squares.get(name, 0.0) + float(np.square(error, dtype=np.float64).sum())
    return {name: float(np.sqrt(total / depth.size)) for name, total in squares.items()}


def _measured(depth: np.ndarray) -> dict[str, np.ndarray]:
    parts = [measure_holes(depth[at : at + BATCH].astype(np.float32)) for at in range(0, len(depth), BATCH)]
    return {name: np.concatenate([part[name] for part in parts]) for name in UNITS}


def _count_pixels(
    pixels: _Pixels,
    depth: np.ndarray,
    sigma: np.ndarray | None,
    truth: np.ndarray,
    calibration: Calibration,
    levels: list[float],
    bins: np.ndarray,
) -> None:
    if sigma is None or calibration.pixel is None:
        return
    error = np.abs(depth - truth)
    pixels.count += np.bincount(bins, minlength=len(pixels.count)) * error[0].size
    for index, level in enumerate(levels):
        half = pixel_half_width(calibration, sigma, level)
        inside = (error <= half).sum(axis=(1, 2))
        pixels.inside[index] += np.bincount(bins, weights=inside, minlength=len(pixels.count))
        if index == 0:
            outside = np.maximum(error - half, 0.0)
            pixels.score += float((2 * half + 2 / (1 - level) * outside).sum(dtype=np.float64))
    pixels.constant.append(error.reshape(-1)[::11].astype(np.float32))


def _pixel_figures(pixels: _Pixels, levels: list[float], calibration: Calibration) -> dict[str, Any]:
    if not pixels.constant:
        return {"coverage_90": None}
    shares = pixels.inside.sum(axis=1) / pixels.count.sum()
    told = {f"coverage_{round(100 * level)}": float(share) for level, share in zip(levels, shares, strict=True)}
    told_bins = np.flatnonzero(pixels.count >= SMALLEST_BIN * pixels.count.sum())
    return told | {
        "pixels": {
            "coverage_by_depth_bin": {
                f"{index * DEPTH_BIN:g}": float(pixels.inside[0][index] / pixels.count[index]) for index in told_bins
            },
            "interval_score": pixels.score / float(pixels.count.sum()),
            "interval_score_constant_width": constant_width_score(np.concatenate(pixels.constant), levels[0]),
        }
    }


def _map_figures(table: Mapping[str, np.ndarray], cluster: np.ndarray, depth: np.ndarray) -> dict[str, Any]:
    sums = np.column_stack([table[f"sum.{name}"] for name in COLUMNS])
    total, by_cluster = sums.sum(axis=0), cluster_sums(sums, cluster)
    told: dict[str, Any] = {}
    for key, column, over in (
        ("rmse_255", "square", "pixels"),
        ("rmse_structure", "structure_square", "pixels"),
        ("rmse_level", "level_square", "pixels"),
        ("rmse_floor", "floor_square", "floor_pixels"),
    ):
        statistic = root_mean(column, over)
        told[key] = float(statistic(total))
        told[f"{key}_95"] = list(bootstrap_interval(by_cluster, statistic))
    told["contour_error_px"] = float(table["contour_error_px"].mean())
    plateau = depth.reshape(len(depth), -1).max(axis=1)
    group = np.rint(plateau / 10.0).astype(int) * 10
    told["within_level"] = {
        str(level): float(root_mean("square")(sums[group == level].sum(axis=0))) for level in np.unique(group)
    }
    return told


def _measurand_figures(
    table: Mapping[str, np.ndarray],
    bins: np.ndarray,
    level: float,
    nm_per_grey: float | None,
    data: SimArrays,
    cluster: np.ndarray,
    tolerances: Mapping[str, float] | None,
) -> dict[str, Any]:
    told: dict[str, Any] = {}
    # the noise draws of one hole
    _, group = np.unique(np.column_stack([cluster, data.case]), axis=0, return_inverse=True)
    for name in JUDGED:
        truth, value = table[f"truth.{name}"], table[f"corrected.{name}"]
        low, high = table[f"low.{name}"], table[f"high.{name}"]
        known = np.isfinite(truth) & np.isfinite(value)
        unit, scale = _unit(name, nm_per_grey)
        if known.sum() < 2:
            told[name] = {"measured": int(known.sum())}
            continue
        error = error_of(name, value[known], truth[known])
        slope = float(np.polyfit(truth[known], value[known], 1)[0]) if truth[known].std() > 0 else None
        per_bin = []
        for index in np.unique(bins[known]):
            rows = known & (bins == index)
            if rows.sum() >= SMALLEST_BIN * known.sum():
                told_bin = {
                    "depth": float(index) * DEPTH_BIN * (nm_per_grey or 1.0),
                    "images": int(rows.sum()),
                    "bias": float(error_of(name, value[rows], truth[rows]).mean()) * scale,
                    "coverage": coverage(low[rows], high[rows], truth[rows]),
                }
                per_bin.append(told_bin)
        (repeat,) = repeatability({name: value[known]}, group[known], tolerances)
        told[name] = {
            "unit": unit,
            "measured": int(known.sum()),
            f"bias{_suffix(unit)}": float(error.mean()) * scale,
            f"rmse{_suffix(unit)}": float(np.sqrt(np.mean(error**2))) * scale,
            "slope": slope,
            f"coverage_{round(100 * level)}": coverage(low, high, truth),
            "interval_score": interval_score(low, high, truth, level) * scale,
            "interval_score_constant_width": constant_width_score(error, level) * scale,
            f"repeatability_3s{_suffix(unit)}": repeat.three_sigma * scale,
            "precision_to_tolerance": repeat.precision_to_tolerance,
            "by_depth_bin": per_bin,
        }
    return told


def _unit(name: str, nm_per_grey: float | None) -> tuple[str, float]:
    """Unit of a figure, and the factor from the measurand's own."""
    if name == "depth":
        return ("grey", 1.0) if nm_per_grey is None else ("nm", nm_per_grey)
    return UNITS[name], 1.0


def _suffix(unit: str) -> str:
    return "" if unit == "1" else f"_{unit.replace(' ', '_')}"


def _worst_of(
    worst: list[tuple[float, dict[str, Any]]],
    sums: np.ndarray,
    depth: np.ndarray,
    sigma: np.ndarray | None,
    sem: np.ndarray,
    truth: np.ndarray,
    start: int,
) -> list[tuple[float, dict[str, Any]]]:
    rmse = np.sqrt(sums[:, COLUMNS.index("square")] / sums[:, COLUMNS.index("pixels")])
    for row in np.argsort(rmse)[-EXAMPLES:]:
        entry = {
            "index": start + int(row),
            "rmse_255": float(rmse[row]),
            "image": sem[row].copy(),
            "depth": depth[row].copy(),
            "sigma": None if sigma is None else sigma[row].copy(),
            "truth": truth[row].copy(),
        }
        worst.append((float(rmse[row]), entry))
    return sorted(worst, key=lambda pair: -pair[0])[:EXAMPLES]
