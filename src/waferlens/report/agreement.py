"""The figures of `waferlens evaluate --out DIR` as the page tells them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from waferlens.errors import InputError
from waferlens.report import charts, pictures

FILE = "evaluation.json"
MOST_PICTURES = 6
_TITLES = {
    "depth.png": "Error of depth against the truth",
    "cd.png": "Error of CD against the truth",
    "worst.png": "Largest errors: image, predicted, truth, error, sigma",
}
_MAP_FIGURES = (
    ("rmse_255", "RMSE of the depth map"),
    ("rmse_structure", "its structure part"),
    ("rmse_level", "its level part"),
    ("rmse_floor", "RMSE on the floor"),
)


@dataclass(frozen=True, slots=True)
class MapFigure:
    """One figure of the maps with its 95 % interval [grey]"""

    label: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class MeasurandFigure:
    """Agreement of one measurand with the truth."""

    name: str
    unit: str
    measured: int
    bias: float | None
    rmse: float | None
    slope: float | None
    coverage: float | None
    score: float | None
    constant_score: float | None
    """Interval score of intervals of one width [unit]"""


@dataclass(slots=True)
class Evaluation:
    """A bundle against the truth."""

    folder: str
    told: dict[str, Any]
    """The file as it is."""
    level: float
    """Promised coverage of the measurands' intervals."""
    maps: list[MapFigure] = field(default_factory=list)
    baselines: list[tuple[str, float, float]] = field(default_factory=list)
    """Name, RMSE [grey], share of the greatest; the bundle itself comes first."""
    coverages: list[tuple[str, float]] = field(default_factory=list)
    """Promised and measured coverage of pixels."""
    measurands: list[MeasurandFigure] = field(default_factory=list)
    coverage_chart: Markup | None = None
    coverage_series: list[str] = field(default_factory=list)
    sites: dict[str, Any] | None = None
    pictures: list[tuple[str, str]] = field(default_factory=list)
    """Title and inline address."""


def read_evaluation(folder: Path) -> Evaluation:
    """Reads what `evaluate --out` wrote.

    Raises:
        InputError: there is no evaluation, or it cannot be read.
    """
    path = folder / FILE
    try:
        told = json.loads(path.read_text("utf-8"))
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}; write it with evaluate --out") from wrong
    except ValueError as wrong:
        raise InputError(path, f"is no JSON: {wrong}") from wrong
    if not isinstance(told, dict) or not ({"rmse_255", "sites"} & told.keys()):
        raise InputError(path, "is no evaluation of a bundle: it has neither rmse_255 nor sites")
    try:
        return _evaluation(folder, told)
    except (KeyError, TypeError, ValueError, AttributeError) as wrong:
        reason = f"is no evaluation this version reads ({type(wrong).__name__}: {wrong})"
        raise InputError(path, reason) from wrong


def _evaluation(folder: Path, told: dict[str, Any]) -> Evaluation:
    figures = {
        name: part for name, part in told.items() if isinstance(part, dict) and "slope" in part and "measured" in part
    }
    levels = [int(key[9:]) for part in figures.values() for key in part if key.startswith("coverage_")]
    level = (levels[0] if levels else 90) / 100
    out = Evaluation(str(folder), told, level, sites=told.get("sites"))
    for key, label in _MAP_FIGURES:
        if told.get(key) is not None:
            low, high = told.get(f"{key}_95") or (None, None)
            out.maps.append(MapFigure(label, told[key], low, high))
    if told.get("baselines"):
        rows = [(str(told.get("bundle", "this bundle")), told["rmse_255"])]
        rows += [(name.replace("_", " "), value) for name, value in told["baselines"].items()]
        greatest = max(value for _, value in rows) or 1.0
        out.baselines = [(name, value, value / greatest) for name, value in rows]
    out.coverages = [
        (key[9:], told[key]) for key in sorted(told) if key.startswith("coverage_") and told[key] is not None
    ]
    out.measurands = [_measurand(name, part, level) for name, part in figures.items()]
    out.coverage_chart, out.coverage_series = _coverage(figures, level)
    known = [name for name in _TITLES if (folder / name).is_file()]
    others = sorted(path.name for path in folder.glob("*.png") if path.name not in _TITLES)
    for name in [*known, *others][:MOST_PICTURES]:
        try:
            address = pictures.drawing((folder / name).read_bytes())
        except (OSError, ValueError) as wrong:
            raise InputError(folder / name, f"cannot be shown: {wrong}") from wrong
        out.pictures.append((_TITLES.get(name, name), address))
    return out


def _measurand(name: str, part: dict[str, Any], level: float) -> MeasurandFigure:
    def found(key: str) -> float | None:
        # figures carry their unit in their name: bias_nm, rmse_px
        exact = part.get(key)
        return exact if exact is not None else next((part[k] for k in part if k.startswith(f"{key}_")), None)

    return MeasurandFigure(
        name,
        str(part.get("unit", "")),
        int(part["measured"]),
        found("bias"),
        found("rmse"),
        part.get("slope"),
        part.get(f"coverage_{round(100 * level)}"),
        part.get("interval_score"),
        part.get("interval_score_constant_width"),
    )


def _coverage(figures: dict[str, Any], level: float) -> tuple[Markup | None, list[str]]:
    """Coverage by depth of depth and CD; the bins are those of depth, so only depth's own ends place them."""
    depth = figures.get("depth", {}).get("by_depth_bin") or []
    centres = [part["depth"] for part in depth]
    series = []
    for name in ("depth", "cd50_area"):
        shares = [part["coverage"] for part in figures.get(name, {}).get("by_depth_bin") or []]
        if len(shares) == len(centres) and len(shares) > 1 and all(isinstance(share, float) for share in shares):
            series.append((name, centres, shares))
    if not series or any(share != share for _, _, shares in series for share in shares):
        return None, []
    return charts.coverage(series, level, figures["depth"]["unit"]), [name for name, _, _ in series]
