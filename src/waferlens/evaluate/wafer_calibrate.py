"""Fits what makes the sigma of a wafer bundle honest, on wafers that taught the network nothing.

Source: as `bundle.wafer_calibration`; the quantile of few scores: Lei et al., JASA 113 (2018) 1094.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from waferlens.bundle.wafer import WaferSession
from waferlens.bundle.wafer_calibration import KINDS, SHADES, TOLD, WaferCalibration
from waferlens.errors import UsageError
from waferlens.evaluate.intervals import conformal_quantile
from waferlens.evaluate.wafer_fields import predicted
from waferlens.load.wafer import Field

STEP_PX = 7
"""Every so many pixels along each side are looked at: neighbours say the same."""
BINS = 8
"""Bins of sigma in each class."""
LEAST_PIXELS = 400
"""Pixels that a bin needs; classes with fewer than two bins of them have one."""
KNOWN_SETS: tuple[tuple[str, ...], ...] = ((), ("product",), ("track",), ("objective", "product", "track"))
"""What the network is told in turn: an interval has to hold whatever the line knows."""


def fit_wafer_calibration(
    session: WaferSession,
    fields: Iterable[Field],
    levels: Sequence[float],
    data: dict[str, Any],
    advance: Callable[[int], None] | None = None,
) -> WaferCalibration:
    """The factors on sigma, by what was told, predicted class, brightness and bin of sigma.

    Args:
        session: Of a bundle without calibration.
        fields: With dense truth, of wafers that trained and chose nothing.
        levels: Coverages, as 0.9.
        data: Where the fields come from; written into the calibration.
        advance: Called with 1 after each field.

    Returns:
        No factors where the network tells no sigma.

    Raises:
        UsageError: there is no field with truth, or too few for a level.
    """
    if not session.tells_sigma:
        return WaferCalibration(data=data)
    errors, sigmas, groups, shown = [], [], [], []
    sets = [known for known in KNOWN_SETS if set(known) <= set(session.known)]
    for field in fields:
        if field.height_um is None:
            continue
        for known in sets:
            told = predicted(session, field, known)
            assert told.raw_sigma_um is not None
            cut = (slice(None, None, STEP_PX), slice(None, None, STEP_PX))
            seen = np.isfinite(field.height_um[cut])  # not beyond the wafer's edge
            errors.append(np.abs(told.height_um - field.height_um)[cut][seen])
            sigmas.append(told.raw_sigma_um[cut][seen])
            group = np.zeros(seen.shape) if told.group is None else told.group[cut]
            groups.append(group[seen].astype(np.int8))
            shown.append(told.brightness[cut][seen])
        if advance is not None:
            advance(1)
    if not errors:
        raise UsageError(f"no field of {data.get('folder', 'the data')} has dense truth to calibrate on")
    parts = (np.concatenate(one) for one in (errors, sigmas, groups, shown))
    return _fitted(*parts, levels, data)


def _fitted(
    error: Float32[np.ndarray, " n"],
    sigma: Float32[np.ndarray, " n"],
    group: Int[np.ndarray, " n"],
    brightness: Float32[np.ndarray, " n"],
    levels: Sequence[float],
    data: dict[str, Any],
) -> WaferCalibration:
    ratio = error / sigma
    classes = bool(group.any())
    shades = [_shades(brightness[group % KINDS == kind]) if classes else [] for kind in range(KINDS)]
    blank = WaferCalibration([[]] * (KINDS * TOLD * SHADES if classes else 1), {}, shades)
    row_of, _ = blank.groups(sigma, group.astype(np.int64), brightness)
    edges: list[list[float]] = []
    quantiles: dict[str, list[list[float]]] = {f"{level:g}": [] for level in levels}
    for one in range(len(blank.sigma_edges_um)):
        here = row_of == one
        count = int(here.sum())
        bins = max(1, min(BINS, count // LEAST_PIXELS))
        inner = np.unique(np.quantile(sigma[here], np.arange(1, bins) / bins)) if count else np.empty(0)
        edges.append([float(edge) for edge in inner])
        place = np.searchsorted(inner.astype(np.float32), sigma[here], side="right")
        for level in levels:
            row = []
            for number in range(len(inner) + 1):
                scores = ratio[here][place == number]
                # a group that hardly came has no scores of its own: the factor of all pixels
                row.append(conformal_quantile(scores if len(scores) >= LEAST_PIXELS else ratio, level))
            quantiles[f"{level:g}"].append(row)
    constant = {f"{level:g}": float(np.quantile(error, level)) for level in levels}
    return WaferCalibration(edges, quantiles, shades, constant, data)


def _shades(brightness: Float32[np.ndarray, " n"]) -> list[float]:
    """Edges of as many shades with as many pixels each; all equal where there is none."""
    if not len(brightness):
        return [0.0] * (SHADES - 1)
    return [float(edge) for edge in np.quantile(brightness, np.arange(1, SHADES) / SHADES)]
