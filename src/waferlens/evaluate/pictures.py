"""Pictures of an evaluation: the worst maps beside the truth, predicted against true depth, errors and intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

INK, ACCENT, PALE = "#1d2733", "#1f6f8b", "#c9d6dd"


def write_evaluation(
    out: Path, result: Mapping[str, Any], worst: list[dict[str, Any]], table: Mapping[str, np.ndarray]
) -> None:
    """Writes `evaluation.json` and, where truth is known, `worst.png`, `depth.png` and `cd.png`.

    Args:
        out: Folder; made if it is not there.
        result: What `evaluate --json` prints.
        worst: Images with the largest error, as `Evaluation.worst`.
        table: One entry an image, as `Evaluation.table`.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.json").write_text(json.dumps(_finite(result), indent=2, allow_nan=False) + "\n")
    if not worst:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "text.color": INK})
    for name, figure in {
        "worst.png": _worst(pyplot, worst),
        "depth.png": _against_truth(pyplot, table, "depth", "grey"),
        "cd.png": _against_truth(pyplot, table, "cd50_area", "px"),
    }.items():
        figure.savefig(out / name, dpi=120)
        pyplot.close(figure)


def _finite(value: Any) -> Any:
    """A result with null for every number that is not finite, for JSON has none."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _worst(pyplot: Any, worst: list[dict[str, Any]]) -> Any:
    titles = ("image", "predicted", "truth", "error", "sigma")
    figure, axes = pyplot.subplots(len(worst), 5, figsize=(7, 2.0 * len(worst)), layout="constrained", squeeze=False)
    for row, entry in zip(axes, worst, strict=True):
        low, high = float(entry["truth"].min()), float(entry["truth"].max())
        error = entry["depth"] - entry["truth"]
        reach = max(1.0, float(np.quantile(np.abs(error), 0.99)))
        views = (
            (entry["image"], {"cmap": "gray", "vmin": 0, "vmax": 255}),
            (entry["depth"], {"cmap": "viridis", "vmin": low, "vmax": high}),
            (entry["truth"], {"cmap": "viridis", "vmin": low, "vmax": high}),
            (error, {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach}),
            (entry["sigma"], {"cmap": "magma", "vmin": 0}),
        )
        for axis, title, (picture, how) in zip(row, titles, views, strict=True):
            axis.set(xticks=[], yticks=[])
            if picture is None:
                axis.axis("off")
                continue
            shown = axis.imshow(picture, **how)
            if title in {"truth", "error", "sigma"}:
                figure.colorbar(shown, ax=axis, shrink=0.8)
            if row is axes[0]:
                axis.set_title(title)
        row[0].set_ylabel(f"#{entry['index']}\nRMSE {entry['rmse_255']:.2f}")
    figure.suptitle("Largest errors [grey]")
    return figure


def _against_truth(pyplot: Any, table: Mapping[str, np.ndarray], name: str, unit: str) -> Any:
    truth, value = table[f"truth.{name}"], table[f"corrected.{name}"]
    half = 0.5 * (table[f"high.{name}"] - table[f"low.{name}"])
    known = np.isfinite(truth) & np.isfinite(value)
    truth, error, half = truth[known], (value - truth)[known], half[known]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3.2), layout="constrained", width_ratios=(3, 2))
    if not len(truth):
        left.set_title(f"{name}: nothing measured")
        return figure
    shown = np.random.default_rng(0).permutation(len(truth))[:4000]
    left.scatter(truth[shown], error[shown], s=4, color=ACCENT, alpha=0.3, linewidths=0)
    bins = np.array_split(np.argsort(truth), 12)
    centre = [truth[rows].mean() for rows in bins]
    left.plot(centre, [error[rows].mean() for rows in bins], color=INK, label="mean error")
    if np.isfinite(half).any():
        for sign in (-1, 1):
            left.plot(centre, [sign * half[rows].mean() for rows in bins], "--", color=INK, lw=0.8)
        left.plot([], [], "--", color=INK, lw=0.8, label="mean interval")
    left.axhline(0, color=PALE, zorder=0)
    left.set(xlabel=f"true {name} [{unit}]", ylabel=f"error [{unit}]")
    left.legend(frameon=False)
    right.hist(error, 60, color=PALE)
    right.set(xlabel=f"error of {name} [{unit}]", ylabel="images")
    return figure
