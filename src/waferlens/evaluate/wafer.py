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
from waferlens.prepare.wafer_geometry import column_values
from waferlens.records import Die

WORDS = ("image", "objective", "product", "track")
"""What `--inputs` may name."""
GROUPS = {"all": None, "dark": False, "bright": True}
"""Kinds of carriers for which each figure is told, and whether they are bright."""
LEVELS = (0.9, 0.95, 0.99)
CAPTURE_UM = 50.0
"""Range to either side in which an auto-focus finds its lock [um]"""
TOP_SHARE = 0.02
"""The top of a field is the height that this share of its area exceeds: a smaller die is not focused on."""
LEAST_SITE_UM2 = 250_000.0
"""Visible area of a site that is judged [um²]"""
RIM_UM = 60.0
"""What is left out around a site where its state is judged [um]"""
P95 = 0.95
MIXED_UM = 40.0
"""A column is mixed where its heights differ by more [um]"""
HISTOGRAM_UM = (-500.0, 1500.0)
HISTOGRAM_STEP_UM = 0.25
"""Bins in which heights are counted, to find the best constant; what lies beyond counts as their end [um]"""


@dataclass(slots=True)
class Tally:
    """Sums over the fields of one wafer and one kind of carrier."""

    sums: dict[str, float] = field(default_factory=dict)
    heights: np.ndarray = field(default_factory=lambda: np.zeros(len(_bin_centres_um()), np.int64))
    """Pixels by bin of true height."""
    die_tops: list[float] = field(default_factory=list)
    """Errors of the heights of tops [um]"""

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
    return tuple(dict.fromkeys(word for word in words if word != "image"))


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
        baselines: Whether the copied track, the product's top, the carrier and a constant are judged too.
        advance: Called with 1 after each field.

    Returns:
        `mae_um` (`all`, `dark`, `bright`) and the rest by name; see docs/wafer.md.

    Raises:
        UsageError: no field has truth.
    """
    tallies: dict[tuple[str, bool], Tally] = {}
    calibrated = bool(session.calibration.quantiles)
    count = 0
    for one in fields:
        if one.height_um is None or one.dies is None:
            continue
        count += 1
        told = predicted(session, one, known, min(LEVELS) if calibrated else None)
        tally = tallies.setdefault((one.wafer, one.bright), Tally())
        _add_heights(tally, one, told, session, calibrated)
        _add_sites(tally, one, told)
        seen = np.isfinite(one.height_um)
        tally.add("captured", float(abs(_top(told.height_um, seen) - _top(one.height_um, seen)) <= CAPTURE_UM))
        tally.add("fields", 1.0)
        if baselines:
            _add_baselines(tally, one)
        if advance is not None:
            advance(1)
    if not count:
        raise UsageError("no field of the data has dense truth; name a simulated set, or the evaluation seed")
    if baselines:
        _add_best_constant(tallies.values())
    return _summary(tallies, count, known, baselines)


def _add_heights(tally: Tally, one: Field, told: FieldPrediction, session: WaferSession, calibrated: bool) -> None:
    seen = np.isfinite(one.height_um)  # not beyond the wafer's edge
    error = np.where(seen, np.abs(told.height_um - one.height_um), 0.0)
    tally.add("pixels", int(seen.sum()))
    tally.add("error", float(error.sum(dtype=np.float64)))
    tally.add("square", float(np.square(error, dtype=np.float64).sum()))
    mixed = _highest(one.height_um, seen) + _highest(-one.height_um, seen) > MIXED_UM
    tally.add("mixed_pixels", int(seen[:, mixed].sum()))
    tally.add("mixed_error", float(error[:, mixed].sum(dtype=np.float64)))
    if not calibrated or told.raw_sigma_um is None:
        return
    missing = _missing_mask(one) & seen
    for level in LEVELS:
        half = (
            told.half_width_um
            if level == min(LEVELS)
            else session.calibration.half_width_um(told.raw_sigma_um, told.group, told.brightness, level)
        )
        inside = (error <= half) & seen
        name = f"{round(100 * level)}"
        tally.add(f"covered_{name}", int(inside.sum()))
        tally.add(f"covered_missing_{name}", int(inside[missing].sum()))
        if level == min(LEVELS):
            weight = 2.0 / (1.0 - level)
            outside = np.maximum(error - half, 0)
            tally.add("score", float((2 * half + weight * outside)[seen].sum(dtype=np.float64)))
            constant = session.calibration.constant_um[f"{level:g}"]
            beyond = np.maximum(error - constant, 0)
            tally.add("constant_score", float((2 * constant + weight * beyond)[seen].sum(dtype=np.float64)))
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


def _add_sites(tally: Tally, one: Field, told: FieldPrediction) -> None:
    """States of the sites, and heights of the tops of dies, each over what of it is seen."""
    for die in one.dies or ():
        window = _window(die.box_um, one, RIM_UM)
        if not _enough(window, one):
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
                tally.die_tops.append(error)


def _enough(window: tuple[slice, slice], one: Field) -> bool:
    """Whether enough of a site is seen to be judged."""
    rows, columns = (max(0, part.stop - part.start) for part in window)
    return rows * columns * one.pitch_um**2 >= LEAST_SITE_UM2 and bool(np.isfinite(one.height_um[window]).all())


def _called_missing(told: FieldPrediction, window: tuple[slice, slice], one: Field) -> bool:
    """Whether a site is called missing: by its classes, or where none are told by the height of its middle."""
    if told.classes is not None:
        shares = told.classes[:, window[0], window[1]].mean(axis=(1, 2))
        return bool(shares[CLASSES.index("missing")] > shares[CLASSES.index("die")])
    return bool(np.median(told.height_um[window]) < 0.5 * one.product.level_tops_um[0])


def _top_error(die: Die, one: Field, told: FieldPrediction) -> float | None:
    """Error of the height of the top level, median over what of it is seen; None where too little is [um]"""
    if not die.levels:
        return None
    window = _window(die.levels[-1][:4], one, RIM_UM)
    if not _enough(window, one):
        return None
    return float(abs(np.median(told.height_um[window]) - np.median(one.height_um[window])))


def _top(height_um: np.ndarray, seen: np.ndarray) -> float:
    """The height that `TOP_SHARE` of the area exceeds [um]"""
    return float(np.quantile(height_um[::3, ::3][seen[::3, ::3]], 1 - TOP_SHARE))


def _highest(height_um: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Of each column, minus infinity where nothing of it is seen [um]"""
    return np.where(seen, height_um, -np.inf).max(axis=0)


def _add_baselines(tally: Tally, one: Field) -> None:
    """Errors of what needs no image: the track copied to every row, the product's top and the carrier everywhere."""
    seen = np.isfinite(one.height_um)
    height = one.height_um[seen]
    track, _ = column_values(one.trace, one.pitch_um, one.height_um.shape[1])
    if np.isfinite(track).any():
        columns = np.arange(len(track))
        known = np.isfinite(track)
        copied = np.broadcast_to(np.interp(columns, columns[known], track[known]), seen.shape)
        tally.add("track_error", float(np.abs(height - copied[seen]).sum(dtype=np.float64)))
        tally.add("track_pixels", height.size)
    tally.add("nominal_error", float(np.abs(height - one.product.level_tops_um[-1]).sum(dtype=np.float64)))
    tally.add("carrier_error", float(np.abs(height).sum(dtype=np.float64)))
    low, high = HISTOGRAM_UM
    place = ((np.clip(height, low, high - 1e-3) - low) / HISTOGRAM_STEP_UM).astype(np.int64)
    tally.heights += np.bincount(place, minlength=len(tally.heights))


def _bin_centres_um() -> np.ndarray:
    low, high = HISTOGRAM_UM
    return np.arange(low, high, HISTOGRAM_STEP_UM) + HISTOGRAM_STEP_UM / 2


def _add_best_constant(tallies: Collection[Tally]) -> None:
    """Errors of one height everywhere: the median of all that is judged, which no other constant beats in MAE.

    It is chosen in hindsight: a line that assumes a constant would not know it.
    """
    centres = _bin_centres_um()
    counts = np.sum([tally.heights for tally in tallies], axis=0)
    median = centres[np.searchsorted(np.cumsum(counts), counts.sum() / 2)]
    for tally in tallies:
        tally.add("constant_error", float((tally.heights * np.abs(centres - median)).sum()))


def _summary(
    tallies: dict[tuple[str, bool], Tally], count: int, known: Collection[str], baselines: bool
) -> dict[str, Any]:
    names = sorted({name for tally in tallies.values() for name in tally.sums})
    place = {name: number for number, name in enumerate(names)}

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
            return dict.fromkeys(GROUPS)
        for group, bright in GROUPS.items():
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
        "p95_die_top_um": _p95(tallies),
        "in_capture_range": ratio("captured", "fields"),
        "missing_recall": ratio("missing_found", "missing_sites"),
        "false_missing_rate": ratio("falsely_missing", "present_sites"),
        "sites": {
            "missing": int(rows(None)[:, place["missing_sites"]].sum()) if "missing_sites" in place else 0,
            "present": int(rows(None)[:, place["present_sites"]].sum()) if "present_sites" in place else 0,
        },
    }
    for level in LEVELS:  # None each where no sigma is told
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
            "mae_constant_um": ratio("constant_error", "pixels"),
        }
    return result


def _quotient(top: int, bottom: int, root: bool) -> Callable[[np.ndarray], np.ndarray]:
    """A ratio of two sums, or its root."""

    def statistic(drawn: np.ndarray) -> np.ndarray:
        value = drawn[:, top] / np.maximum(drawn[:, bottom], 1e-12)
        return np.sqrt(value) if root else value

    return statistic


def _p95(tallies: dict[tuple[str, bool], Tally]) -> dict[str, Any]:
    """95th percentile of the errors of the tops of dies, by kind of carrier."""
    told: dict[str, Any] = {}
    for group, bright in GROUPS.items():
        chosen = [tally.die_tops for (_, is_bright), tally in tallies.items() if bright is None or is_bright == bright]
        errors = np.concatenate([np.empty(0), *chosen])
        told[group] = float(np.quantile(errors, P95)) if len(errors) else None
        if len(errors) and len(chosen) > 1:
            told[f"{group}_95"] = bootstrap_interval(*_quantile_of_clusters(chosen, errors))
    return told


def _quantile_of_clusters(
    clusters: Sequence[Sequence[float]], errors: np.ndarray
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """How often each error comes in each cluster, and the 95th percentile of such counts."""
    values, place = np.unique(errors, return_inverse=True)
    counts = np.zeros((len(clusters), len(values)))
    np.add.at(counts, (np.repeat(np.arange(len(clusters)), [len(one) for one in clusters]), place), 1)

    def statistic(drawn: np.ndarray) -> np.ndarray:
        below = drawn.cumsum(axis=1)
        return values[np.minimum((below < P95 * below[:, -1:]).sum(axis=1), len(values) - 1)]

    return counts, statistic


def wafer_lines(result: dict[str, Any]) -> list[str]:
    """The result as a table for people."""
    lines = [f"{result['fields']} fields of {result['wafers']} wafers, told {', '.join(result['inputs'])}"]
    lines.append(f"  {'':<30} {'all':>10} {'dark':>10} {'bright':>10}")
    for name, told in [*result.items(), *result.get("baselines", {}).items()]:
        if isinstance(told, dict) and "all" in told:
            cells = [f"{'-':>10}" if told[group] is None else f"{told[group]:10.3f}" for group in GROUPS]
            lines.append(f"  {name:<30} {' '.join(cells)}")
    return lines
