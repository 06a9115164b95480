"""Judges a depth network on indoor views: the figures by which NYU Depth v2 is compared, over what was measured.

Predictions are enlarged to the size of the view. Figures are over all measured pixels of all views; their intervals are
a bootstrap over rooms, for views of one room are alike.

Source: figures: Eigen, Puhrsch, Fergus, NeurIPS 2014 (arXiv:1406.2283), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from waferlens.bundle.views import ViewSession
from waferlens.errors import UsageError
from waferlens.evaluate.intervals import bootstrap_interval
from waferlens.formats.nyu import Entry, read_views
from waferlens.load.nyu import room
from waferlens.ops.depth_metrics import depth_metrics, measured
from waferlens.prepare.views import colours_on_grid

MEANS = ("mae", "abs_rel", "log10", "delta1", "delta2", "delta3")
"""Figures that are plain means over pixels."""


def evaluate_views(
    session: ViewSession, listed: Sequence[Entry], advance: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Compares predictions with measured depths.

    Args:
        session: Of the bundle.
        listed: Views, from `formats.nyu.entries`.
        advance: Called with 1 after each view.

    Returns:
        `rmse`, `mae` [m], `abs_rel`, `log10`, `delta1` to `delta3` as `ops.depth_metrics` has them, each with its 95 %
        interval beside it where there are two rooms or more; `log10` is None where a depth of 0 was predicted;
        `baselines.rmse_constant`, of the mean depth of these very views [m]

    Raises:
        UsageError: no pixel of any view was measured.
    """
    rooms: dict[str, np.ndarray] = {}
    without_logarithm = False
    for view in read_views(listed):
        where = measured(view.depth_m)
        if where.any():
            told = session.predict(colours_on_grid(view.rgb, *session.size_px, session.channels)[np.newaxis])[0]
            height, width = view.depth_m.shape
            depth = cv2.resize(told, (width, height), interpolation=cv2.INTER_LINEAR)
            found = depth_metrics(depth, view.depth_m)
            if not math.isfinite(found["log10"]):
                without_logarithm, found["log10"] = True, 0.0
            true = view.depth_m[where].astype(np.float64)
            sums = [1.0, found["rmse"] ** 2, *(found[name] for name in MEANS), true.mean(), np.square(true).mean()]
            own = rooms.setdefault(room(view.entry.scene or view.entry.name), np.zeros(len(sums)))
            own += found["pixels"] * np.array(sums)
        if advance is not None:
            advance(1)
    if not rooms:
        raise UsageError("no depth of any view was measured; nothing can be compared")
    table = np.array(list(rooms.values()))
    result: dict[str, Any] = {"views": len(listed), "rooms": len(table), "pixels": int(table[:, 0].sum())}
    for name, column in (("rmse", 1), *((name, 2 + place) for place, name in enumerate(MEANS))):
        statistic = _mean(column, root=name == "rmse")
        if name == "log10" and without_logarithm:
            result[name] = None
            continue
        result[name] = float(statistic(table.sum(axis=0, keepdims=True))[0])
        if len(table) > 1:
            result[f"{name}_95"] = bootstrap_interval(table, statistic)
    count, first, second = table[:, [0, -2, -1]].sum(axis=0)
    result["baselines"] = {"rmse_constant": math.sqrt(max(0.0, second / count - (first / count) ** 2))}
    return result


def _mean(column: int, root: bool) -> Callable[[np.ndarray], np.ndarray]:
    def statistic(drawn: np.ndarray) -> np.ndarray:
        value = drawn[:, column] / np.maximum(drawn[:, 0], 1.0)
        return np.sqrt(value) if root else value

    return statistic


def view_lines(result: dict[str, Any]) -> list[str]:
    """The result as a table for people."""
    lines = [f"{result['views']} views of {result['rooms']} rooms, {result['pixels']} measured pixels"]
    for name in ("rmse", *MEANS):
        unit = " m" if name in ("rmse", "mae") else "  "
        value = "     -" if result[name] is None else f"{result[name]:6.4f}"
        interval = result.get(f"{name}_95")
        lines.append(
            f"  {name:<8} {value}{unit}" + (f"  95 % [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else "")
        )
    lines.append(f"  baseline: one depth everywhere, rmse {result['baselines']['rmse_constant']:.4f} m")
    return lines
