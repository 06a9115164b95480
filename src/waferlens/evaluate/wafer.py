"""Judges a bundle of the wafer station on fields whose truth is known: heights, die tops, missing dies, intervals.

Every figure is told over all fields and for dark and bright carriers apart; its interval is a bootstrap over wafers,
for fields of one wafer are alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from waferlens.bundle.wafer import CLASSES, WaferSession
from waferlens.errors import UsageError
from waferlens.evaluate.intervals import bootstrap_interval
from waferlens.evaluate.wafer_fields import FieldPrediction, predicted
from waferlens.load.wafer import Field
from waferlens.records import Die

WORDS = ("image", "objective", "product", "track")
"""What `--inputs` may name."""
LEVELS = (0.9, 0.95, 0.99)
CAPTURE_UM = 50.0
"""Range to either side in which an auto-focus finds its lock [um]"""
TOP_SHARE = 0.02
"""The top of a field is the height that this share of its area exceeds: a smaller die is not focused on."""
LEAST_SITE_UM2 = 250_000.0
"""Visible area of a site that is judged [um²]"""
RIM_UM = 60.0
"""What is left out around a site where its state is judged [um]"""
MIXED_UM = 40.0
"""A column is mixed where its heights differ by more [um]"""


@dataclass(slots=True)
class Tally:
    """Sums over the fields of one wafer and one kind of carrier."""

    sums: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + value


def inputs_of(text: str | None, session: WaferSession) -> tuple[str, ...]:
    """What is told beside the image, from `image,product,track`.

    Raises:
        UsageError: a word is unknown, or names what the network is never told.
    """
    if text is None:
        return session.known
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in WORDS:
            raise UsageError(f"--inputs {text}: '{word}' is none of {', '.join(WORDS)}")
        if word != "image" and word not in session.known:
            told = ", ".join(session.known) or "nothing"
            raise UsageError(f"--inputs {text}: this network is told {told} beside the image, not {word}")
    return tuple(word for word in words if word != "image")


def evaluate_wafer(
    session: WaferSession,
    fields: Iterable[Field],
    known: Collection[str],
    *,
    baselines: bool = True,
    advance: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Compares predictions with truth.

    Args:
        session: Of the bundle.
        fields: With truth.
        known: What is told beside the image.
        baselines: Whether a constant height and the copied track are judged too.
        advance: Called with 1 after each field.

    Returns:
        `mae_um` (`all`, `dark`, `bright`) and the rest by name; see docs/wafer.md.

    Raises:
        UsageError: no field has truth.
    """
    tallies: dict[tuple[str, bool], Tally] = {}
    die_tops: list[tuple[float, bool]] = []
    captured: list[tuple[bool, bool, str]] = []
    calibrated = bool(session.calibration.quantiles)
    count = 0
    for one in fields:
        if one.height_um is None or one.dies is None:
            continue
        count += 1
        told = predicted(session, one, known, min(LEVELS) if calibrated else None)
        tally = tallies.setdefault((one.wafer, one.bright), Tally())
        _add_heights(tally, one, told, session, calibrated)
        _add_sites(tally, one, told, die_tops)
        top, said = _top(one.height_um), _top(told.height_um)
        captured.append((abs(said - top) <= CAPTURE_UM, one.bright, one.wafer))
        tally.add("captured", float(captured[-1][0]))
        tally.add("fields", 1.0)
        if baselines:
            _add_baselines(tally, one, told)
        if advance is not None:
            advance(1)
    if not count:
        raise UsageError("no field of the data has dense truth; name a simulated set, or the evaluation seed")
    return _summary(tallies, die_tops, count, known, session, calibrated, baselines)


def _add_heights(tally: Tally, one: Field, told: FieldPrediction, session: WaferSession, calibrated: bool) -> None:
    error = np.abs(told.height_um - one.height_um)
    tally.add("pixels", error.size)
    tally.add("error", float(error.sum(dtype=np.float64)))
    tally.add("square", float(np.square(error, dtype=np.float64).sum()))
    span = np.ptp(one.height_um, axis=0)
    mixed = span > MIXED_UM
    tally.add("mixed_pixels", int(mixed.sum()) * error.shape[0])
    tally.add("mixed_error", float(error[:, mixed].sum(dtype=np.float64)))
    if not calibrated or told.raw_sigma_um is None:
        return
    missing = _missing_mask(one)
    for level in LEVELS:
        half = (
            told.half_width_um
            if level == min(LEVELS)
            else session.calibration.half_width_um(told.raw_sigma_um, told.group, level)
        )
        inside = error <= half
        name = f"{round(100 * level)}"
        tally.add(f"covered_{name}", int(inside.sum()))
        tally.add(f"covered_missing_{name}", int(inside[missing].sum()))
        if level == min(LEVELS):
            weight = 2.0 / (1.0 - level)
            outside = np.maximum(error - half, 0)
            tally.add("score", float((2 * half + weight * outside).sum(dtype=np.float64)))
            constant = session.calibration.constant_um[f"{level:g}"]
            beyond = np.maximum(error - constant, 0)
            tally.add("constant_score", float((2 * constant + weight * beyond).sum(dtype=np.float64)))
    tally.add("missing_pixels", int(missing.sum()))


def _missing_mask(one: Field) -> np.ndarray:
    mask = np.zeros(one.height_um.shape, bool)
    for die in one.dies or ():
        if die.state == "missing":
            mask[_window(die.box_um, one, 0.0)] = True
    return mask


def _window(box: Sequence[float], one: Field, rim_um: float) -> tuple[slice, slice]:
    """Pixels of the image whose centres lie inside a box less a rim."""
    h, w = one.image.shape
    x0, y0, x1, y1 = box
    low = [math.ceil((edge + rim_um) / one.pitch_um - 0.5) for edge in (x0, y0)]
    high = [math.ceil((edge - rim_um) / one.pitch_um - 0.5) for edge in (x1, y1)]
    columns = slice(int(np.clip(low[0], 0, w)), int(np.clip(high[0], 0, w)))
    rows = slice(int(np.clip(low[1], 0, h)), int(np.clip(high[1], 0, h)))
    return rows, columns


def _add_sites(tally: Tally, one: Field, told: FieldPrediction, die_tops: list[tuple[float, bool]]) -> None:
    """States of the sites, and heights of the tops of dies, each over what of it is seen."""
    for die in one.dies or ():
        window = _window(die.box_um, one, RIM_UM)
        area = (window[0].stop - window[0].start) * (window[1].stop - window[1].start) * one.pitch_um**2
        if window[0].stop <= window[0].start or window[1].stop <= window[1].start or area < LEAST_SITE_UM2:
            continue
        gone = _called_missing(told, window, one)
        if die.state == "missing":
            tally.add("missing_sites", 1)
            tally.add("missing_found", float(gone))
        else:
            tally.add("present_sites", 1)
            tally.add("falsely_missing", float(gone))
            error = _top_error(die, one, told)
            if error is not None:
                die_tops.append((error, one.bright))


def _called_missing(told: FieldPrediction, window: tuple[slice, slice], one: Field) -> bool:
    """Whether a site is called missing: by its classes, or where none are told by the height of its middle."""
    if told.classes is not None:
        shares = told.classes[:, window[0], window[1]].mean(axis=(1, 2))
        return bool(shares[CLASSES.index("missing")] > shares[CLASSES.index("die")])
    return bool(np.median(told.height_um[window]) < 0.5 * one.product.level_tops_um[0])


def _top_error(die: Die, one: Field, told: FieldPrediction) -> float | None:
    """Error of the height of the top level, median over what of it is seen; None where too little is [um]"""
    x0, y0, x1, y1, _ = die.levels[-1]
    window = _window((x0, y0, x1, y1), one, RIM_UM)
    if (window[0].stop - window[0].start) * (window[1].stop - window[1].start) * one.pitch_um**2 < LEAST_SITE_UM2:
        return None
    if window[0].stop <= window[0].start or window[1].stop <= window[1].start:
        return None
    return float(abs(np.median(told.height_um[window]) - np.median(one.height_um[window])))


def _top(height_um: np.ndarray) -> float:
    """The height that `TOP_SHARE` of the area exceeds [um]"""
    return float(np.quantile(height_um[::3, ::3], 1 - TOP_SHARE))


def _add_baselines(tally: Tally, one: Field, told: FieldPrediction) -> None:
    height = one.height_um
    tally.add("height", float(height.sum(dtype=np.float64)))
    x = (np.arange(height.shape[1]) + 0.5) * one.pitch_um
    centres = (np.arange(len(told.shown.track_z_um)) + 0.5) * told.shown.pitch_um
    known = np.isfinite(told.shown.track_z_um)
    if known.any():
        copied = np.interp(x, centres[known], told.shown.track_z_um[known])
        tally.add("track_error", float(np.abs(height - copied).sum(dtype=np.float64)))
        tally.add("track_pixels", height.size)
    # the constant that is judged is the mean of the products' first level: what a line would assume without looking
    tally.add("nominal_error", float(np.abs(height - one.product.level_tops_um[-1]).sum(dtype=np.float64)))
    tally.add("carrier_error", float(np.abs(height).sum(dtype=np.float64)))


def _summary(
    tallies: dict[tuple[str, bool], Tally],
    die_tops: list[tuple[float, bool]],
    count: int,
    known: Collection[str],
    session: WaferSession,
    calibrated: bool,
    baselines: bool,
) -> dict[str, Any]:
    names = sorted({name for tally in tallies.values() for name in tally.sums})
    place = {name: number for number, name in enumerate(names)}
    groups = {"all": None, "dark": False, "bright": True}

    def rows(bright: bool | None) -> np.ndarray:
        wafers: dict[str, np.ndarray] = {}
        for (wafer, is_bright), tally in tallies.items():
            if bright is None or is_bright == bright:
                row = wafers.setdefault(wafer, np.zeros(len(names)))
                for name, value in tally.sums.items():
                    row[place[name]] += value
        return np.array(list(wafers.values())).reshape(-1, len(names))

    def ratio(top: str, bottom: str, *, root: bool = False) -> dict[str, Any]:
        told: dict[str, Any] = {}
        if top not in place or bottom not in place:
            return dict.fromkeys(groups)
        for group, bright in groups.items():
            sums = rows(bright)
            if not len(sums) or sums[:, place[bottom]].sum() == 0:
                told[group] = None
                continue

            statistic = _quotient(place[top], place[bottom], root)
            told[group] = float(statistic(sums.sum(axis=0, keepdims=True))[0])
            if len(sums) > 1:
                told[f"{group}_95"] = bootstrap_interval(sums, statistic)
        return told

    result: dict[str, Any] = {
        "fields": count,
        "wafers": len({wafer for wafer, _ in tallies}),
        "inputs": ["image", *known],
        "mae_um": ratio("error", "pixels"),
        "rmse_um": ratio("square", "pixels", root=True),
        "mae_mixed_columns_um": ratio("mixed_error", "mixed_pixels"),
        "p95_die_top_um": _p95(die_tops),
        "in_capture_range": ratio("captured", "fields"),
        "missing_recall": ratio("missing_found", "missing_sites"),
        "false_missing_rate": ratio("falsely_missing", "present_sites"),
        "sites": {
            "missing": int(rows(None)[:, place["missing_sites"]].sum()) if "missing_sites" in place else 0,
            "present": int(rows(None)[:, place["present_sites"]].sum()) if "present_sites" in place else 0,
        },
    }
    if calibrated and session.calibration.quantiles:
        for level in LEVELS:
            name = f"{round(100 * level)}"
            result[f"coverage_{name}"] = ratio(f"covered_{name}", "pixels")
            result[f"coverage_{name}_missing"] = ratio(f"covered_missing_{name}", "missing_pixels")
        result["interval_score_90_um"] = ratio("score", "pixels")
        result["interval_score_90_constant_um"] = ratio("constant_score", "pixels")
    if baselines:
        result["baselines"] = {
            "mae_track_copied_um": ratio("track_error", "track_pixels"),
            "mae_nominal_top_um": ratio("nominal_error", "pixels"),
            "mae_carrier_um": ratio("carrier_error", "pixels"),
        }
    return result


def _quotient(top: int, bottom: int, root: bool) -> Callable[[np.ndarray], np.ndarray]:
    """A ratio of two sums, or its root."""

    def statistic(drawn: np.ndarray) -> np.ndarray:
        value = drawn[:, top] / np.maximum(drawn[:, bottom], 1e-12)
        return np.sqrt(value) if root else value

    return statistic


def _p95(die_tops: list[tuple[float, bool]]) -> dict[str, float | None]:
    told: dict[str, float | None] = {}
    for group, bright in (("all", None), ("dark", False), ("bright", True)):
        errors = [error for error, is_bright in die_tops if bright is None or is_bright == bright]
        told[group] = float(np.quantile(errors, 0.95)) if errors else None
    return told


def wafer_lines(result: dict[str, Any]) -> list[str]:
    """The result as a table for people."""
    lines = [f"{result['fields']} fields of {result['wafers']} wafers, told {', '.join(result['inputs'])}"]
    lines.append(f"  {'':<30} {'all':>10} {'dark':>10} {'bright':>10}")
    for name, told in [*result.items(), *result.get("baselines", {}).items()]:
        if isinstance(told, dict) and "all" in told:
            cells = [
                f"{told[group]:10.3f}" if told[group] is not None else f"{'-':>10}"
                for group in ("all", "dark", "bright")
            ]
            lines.append(f"  {name:<30} {' '.join(cells)}")
    return lines
