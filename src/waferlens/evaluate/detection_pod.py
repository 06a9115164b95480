"""Probability that a device is captured, over the size and contrast of its defect.

One row a device, for devices are independent and defects of one are not: its strongest defect, that of the greatest
size times contrast, and whether any of them was captured. The log-odds model, the size that is captured so surely and
the bound on it come from `evaluate.curves`; beside them stand the shares without any model.

Source: MIL-HDBK-1823A (2009), appendix G.3 (hit/miss data, a90/95 by the likelihood ratio).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

from waferlens.errors import UsageError
from waferlens.evaluate.curves import Pod, binned_pod, fit_pod

CONTRASTS_GREY = (10.0, 20.0, 40.0)
"""Contrasts at which sizes are told, those that occur [grey]"""
SHARES = (0.9, 0.99)
"""Of devices captured, at which sizes are told."""
BINS = (5, 4)
"""Bins of size and of contrast for the shares without a model, each of about as many devices."""
CURVE_POINTS = 25


@dataclass(frozen=True, slots=True, eq=False)
class DeviceHits:
    """One row a defective device."""

    size_px: Float64[np.ndarray, " d"]
    """Of its strongest defect [px]"""
    contrast_grey: Float64[np.ndarray, " d"]
    """Of the same, without its sign [grey]"""
    captured: Bool[np.ndarray, " d"]
    device: Int64[np.ndarray, " d"]
    """Its number."""
    left_out: int = 0
    """Defects whose size or contrast is not known."""

    def of(self, chosen: Bool[np.ndarray, " d"]) -> DeviceHits:
        """Some of the rows."""
        return DeviceHits(self.size_px[chosen], self.contrast_grey[chosen], self.captured[chosen], self.device[chosen])

    def model(self) -> Pod:
        """The log-odds model in log size and log contrast.

        Raises:
            UsageError: all devices were captured, or none, or nothing can be fitted.
        """
        return fit_pod({"size": self.size_px, "contrast": self.contrast_grey}, self.captured)


def device_hits(
    device: Int[np.ndarray, " m"],
    size_px: Float[np.ndarray, " m"],
    contrast_grey: Float[np.ndarray, " m"],
    captured: Bool[np.ndarray, " m"],
) -> DeviceHits:
    """From defects to devices.

    Args:
        device: Of each defect, by number.
        size_px: Its size; defects without one (NaN, 0) are left out [px]
        contrast_grey: Its contrast; the same [grey]
        captured: Whether a detection lies on it.
    """
    size, contrast = np.asarray(size_px, np.float64), np.abs(np.asarray(contrast_grey, np.float64))
    if not len(device) == len(size) == len(contrast) == len(captured):
        raise UsageError(
            f"{len(device)} defects with {len(size)} sizes, {len(contrast)} contrasts and {len(captured)} outcomes: "
            "one each"
        )
    known = np.isfinite(size) & np.isfinite(contrast) & (size > 0) & (contrast > 0)
    device, size, contrast = np.asarray(device)[known], size[known], contrast[known]
    each, row = np.unique(device, return_inverse=True)
    rows = int(row.max()) + 1 if len(row) else 0
    hit = np.bincount(row, np.asarray(captured, bool)[known], rows) > 0
    rising = np.argsort(size * contrast, kind="stable")
    strongest = np.empty(rows, np.int64)
    strongest[row[rising]] = rising  # the last one written is the greatest
    return DeviceHits(size[strongest], contrast[strongest], hit, each.astype(np.int64), int((~known).sum()))


def pod_told(
    hits: DeviceHits,
    *,
    contrasts_grey: Sequence[float] = CONTRASTS_GREY,
    level: float = 0.95,
) -> dict[str, Any]:
    """All that is known of the probability of capture, as JSON holds it.

    Args:
        hits: One row a device.
        contrasts_grey: At which sizes are told [grey]
        level: Coverage of the intervals, and confidence of the bounds.
    """
    told: dict[str, Any] = {
        "devices": len(hits.captured),
        "captured": int(hits.captured.sum()),
        "defects_left_out": hits.left_out,
    }
    if not len(hits.captured):
        return told | {"model": None, "why": "no defect of known size and contrast"}
    told["binned"] = _binned(hits, level)
    try:
        model = hits.model()
    except UsageError as wrong:
        return told | {"model": None, "why": str(wrong)}
    inside = [one for one in contrasts_grey if hits.contrast_grey.min() <= one <= hits.contrast_grey.max()]
    sizes = np.geomspace(hits.size_px.min(), hits.size_px.max(), CURVE_POINTS)
    told["model"] = "log-odds in log size and log contrast (MIL-HDBK-1823A)"
    told["coefficients"] = dict(zip(("1", *model.names), model.coefficients.tolist(), strict=True))
    told["at_contrast_grey"] = {
        f"{contrast:g}": {
            **_reaches(model, contrast, level),
            "curve": {
                name: np.asarray(values).tolist()
                for name, values in zip(
                    ("size_px", "share", "low", "high"),
                    (sizes, *model.share(level, size=sizes, contrast=contrast)),
                    strict=True,
                )
            },
        }
        for contrast in inside
    }
    return told


def _reaches(model: Pod, contrast: float, confidence: float) -> dict[str, float | None]:
    """Sizes from which shares are captured; None where capture does not rise with size, so that none is."""
    told: dict[str, float | None] = {}
    rises = model.coefficients[1 + model.names.index("size")] > 0
    for share in SHARES:
        name = f"a{round(100 * share)}"
        size, bound = model.reach("size", share, confidence, contrast=contrast) if rises else (math.nan, math.nan)
        told[f"{name}_px"], told[f"{name}_{round(100 * confidence)}_px"] = _finite(size), _finite(bound)
    return told


def _binned(hits: DeviceHits, level: float) -> dict[str, Any]:
    variables = {"size_px": hits.size_px, "contrast_grey": hits.contrast_grey}
    edges = {name: _edges(values, bins) for (name, values), bins in zip(variables.items(), BINS, strict=True)}
    told = binned_pod(variables, hits.captured, edges, level=level, interval="clopper-pearson")
    return {
        **{name: np.asarray(values).tolist() for name, values in told.edges.items()},
        "captured": told.hits.tolist(),
        "devices": told.total.tolist(),
        "low": told.low.round(6).tolist(),
        "high": told.high.round(6).tolist(),
    }


def _edges(values: Float64[np.ndarray, " d"], bins: int) -> list[float]:
    """Of bins with about as many values each; one bin where all are the same."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)))
    return edges.tolist() if len(edges) > 1 else [float(edges[0]), math.nextafter(float(edges[0]), math.inf)]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
