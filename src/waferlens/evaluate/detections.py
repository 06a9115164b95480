"""Detections against truth: how good the ranking is, what a threshold catches and what it alarms, and what goes wrong.

Average precision judges the ranking, without a threshold; capture, escape and false alarms are told by device at the
thresholds of the line. Every interval is over devices: exact where devices are counted, else a bootstrap that draws
whole devices anew, a device and its good twin together. A bootstrap of devices that all do alike sees no spread; no
interval is told then.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from waferlens.errors import UsageError
from waferlens.evaluate.average_precision import SIZES_PX2, Found, Matches, Truth, joined_found, match
from waferlens.evaluate.curves import clopper_pearson
from waferlens.evaluate.detection_capture import Beyond, capture_told
from waferlens.evaluate.detection_devices import ON_DEFECT, DeviceScores, at_one_threshold, device_scores
from waferlens.evaluate.detection_errors import split_errors
from waferlens.evaluate.detection_pod import CONTRASTS_GREY, DeviceHits, device_hits, pod_told
from waferlens.evaluate.intervals import cluster_draws
from waferlens.records import Measurement

CRACK = "crack"
"""Class whose average precision is told for itself: turned dies are easy and lift the mean."""
ANY = -1
"""Class of what is ignored whatever a detection calls it."""
CURVE_POINTS = 101
"""Of the overkill / escape curve that is told."""


@dataclass(frozen=True, slots=True, eq=False)
class FoundHere:
    """Detections of one image."""

    boxes: Float[np.ndarray, "n 4"]
    """x0 y0 x1 y1, outer edges [px]"""
    scores: Float[np.ndarray, " n"]
    kinds: Int[np.ndarray, " n"]
    """Numbers of their classes."""


@dataclass(frozen=True, slots=True, eq=False)
class TrueHere:
    """True defects of one image, and what is to be ignored on it."""

    boxes: Float[np.ndarray, "m 4"]
    """x0 y0 x1 y1, outer edges [px]"""
    kinds: Int[np.ndarray, " m"]
    """Numbers of their classes; -1 for what is ignored whatever a detection calls it."""
    ignore: Bool[np.ndarray, " m"] | None = None
    """What is no defect; any number of detections may lie on it."""
    size_px: Float[np.ndarray, " m"] | None = None
    """NaN where it has none [px]"""
    contrast_grey: Float[np.ndarray, " m"] | None = None
    """NaN where it has none [grey]"""
    types: Sequence[str] | None = None
    """Finer than classes: crack, chip, scratch."""


def evaluate_detections(
    found: Sequence[FoundHere],
    truth: Sequence[TrueHere],
    devices: Sequence[Hashable],
    *,
    classes: Sequence[str],
    threshold: float | Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    set_aside: Collection[Hashable] = (),
    sizes_px2: Mapping[str, tuple[float, float]] = SIZES_PX2,
    contrasts_grey: Sequence[float] = CONTRASTS_GREY,
    stated: Beyond | None = None,
    least_overlap: float = ON_DEFECT,
    level: float = 0.95,
    rounds: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Judges the detections of many images; everything told can stand in JSON.

    Args:
        found: Of each image, all of them: average precision needs those below the threshold too.
        truth: Of the same images.
        devices: What each image belongs to.
        classes: Names of the classes.
        threshold: Score above which a detection alarms, or one a class.
        clusters: Of each image what the bootstrap draws whole, as a device with its good twin; `devices` if None.
        set_aside: Devices that are neither good nor defective; their detections count for average precision only.
        sizes_px2: Ranges of areas by name, the first over all [px²]
        contrasts_grey: At which it is told what size is captured [grey]
        stated: Size and contrast beyond which devices are taken to be captured; if None, half of the devices choose.
        least_overlap: Intersection over union from which a detection lies on a defect.
        level: Coverage of the intervals.
        rounds: Bootstrap rounds, in hundreds.
        seed: Seed of the draws.

    Raises:
        UsageError: the lists are of different images, or arrays do not fit together.
    """
    if not len(found) == len(truth) == len(devices) or not len(truth):
        raise UsageError(
            f"detections of {len(found)} images, truth of {len(truth)} and devices of {len(devices)}: "
            "they have to be the same images, and at least one"
        )
    if not classes:
        raise UsageError("detections are judged by class: name at least one")
    told = joined_found([one.boxes for one in found], [one.scores for one in found], [one.kinds for one in found])
    true, rows = _joined(truth, len(classes))
    above = np.broadcast_to(np.asarray(threshold, np.float64), (len(classes),))
    by_name, threshold = dict(zip(classes, above.tolist(), strict=True)), float(above[0])
    compared = at_one_threshold(told, above)
    scores = device_scores(compared, true, devices, least_overlap=least_overlap, set_aside=set_aside)
    drawn = devices if clusters is None else clusters
    index = {name: number for number, name in enumerate(dict.fromkeys(drawn))}
    draws = np.concatenate(list(cluster_draws(len(index), rounds, seed))) if len(index) > 1 else None
    measured = _Measured(np.array([index[name] for name in drawn], np.int64), draws, level)
    matches = match(told, true, len(classes), sizes_px2=sizes_px2, most=(100,))
    whole, *each = measured.aps(matches)
    capture, escape = scores.capture_rate(threshold, level), scores.escape_rate(threshold, level)
    alarms = scores.false_alarm_rate(threshold, level)
    counts = ~true.crowd
    by_class = {
        name: told_here | {"capture": _captured(scores, true.image, (true.kinds == kind) & counts, threshold, level)}
        for kind, (name, told_here) in enumerate(zip(classes, each, strict=True))
    }
    hits = _hits(scores, true, rows, threshold)
    crack = by_class.get(CRACK, {"ap50": None, "ap50_interval": None})
    return {
        "images": len(truth),
        "devices": {
            "good": int(scores.good.sum()),
            "defective": int(scores.defective.sum()),
            "set_aside": len(scores.names) - int(scores.good.sum()) - int(scores.defective.sum()),
        },
        "truths": int(counts.sum()),
        "ignored": sum(int(np.sum(one.ignore)) for one in truth if one.ignore is not None),
        "detections": len(told.image),
        "threshold": by_name,
        "map50": whole["ap50"],
        "map50_95": whole["ap50_95"],
        "crack_ap50": crack["ap50"],
        "capture_rate": capture.value,
        "false_alarm_rate": alarms.value,
        "escape_rate": escape.value,
        "intervals": {
            "level": level,
            "method": f"average precision: bootstrap over {len(index)} devices; shares of devices: Clopper-Pearson",
            "map50": whole["ap50_interval"],
            "map50_95": whole["ap50_95_interval"],
            "crack_ap50": crack["ap50_interval"],
            **{
                name: _ends(one)
                for name, one in (("capture_rate", capture), ("false_alarm_rate", alarms), ("escape_rate", escape))
            },
        },
        "false_alarms": _false_alarms(scores, threshold, level, rounds, seed),
        "classes": by_class,
        "sizes": {name: measured.aps(matches, name)[0] for name in list(sizes_px2)[1:]},
        "types": _by_type(told, true, rows, classes, measured, scores, threshold, level),
        "capture": capture_told(hits, scores.names, stated, level),
        "detection": pod_told(hits, contrasts_grey=contrasts_grey, level=level),
        "errors": _errors(told, true, len(classes), measured),
        "curve": _curve(scores),
    }


def hits_of(
    found: Sequence[FoundHere],
    truth: Sequence[TrueHere],
    devices: Sequence[Hashable],
    above: Sequence[float],
    least_overlap: float = ON_DEFECT,
) -> DeviceHits:
    """Whether devices are captured, beside size and contrast of their strongest defect.

    Args:
        found: Of each image.
        truth: Of the same images.
        devices: What each image belongs to.
        above: Threshold of each class.
        least_overlap: Intersection over union from which a detection lies on a defect.
    """
    told = joined_found([one.boxes for one in found], [one.scores for one in found], [one.kinds for one in found])
    true, rows = _joined(truth, len(above))
    limits = np.asarray(above, np.float64)
    scores = device_scores(at_one_threshold(told, limits), true, devices, least_overlap=least_overlap)
    return _hits(scores, true, rows, float(limits[0]))


def _hits(scores: DeviceScores, true: Truth, rows: _Rows, threshold: float) -> DeviceHits:
    counts = ~true.crowd  # type: ignore[operator]
    return device_hits(
        scores.number[true.image[counts]],
        rows.size_px[counts],
        rows.contrast_grey[counts],
        scores.defect[counts] > threshold,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """What stands beside each truth."""

    size_px: Float[np.ndarray, " m"]
    contrast_grey: Float[np.ndarray, " m"]
    types: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """Figures with their intervals, all from the same draws."""

    number: Int[np.ndarray, " i"]
    draws: Int[np.ndarray, "r d"] | None
    level: float

    def aps(self, matches: Matches, size: str | None = None) -> list[dict[str, Any]]:
        """AP50 and AP50:95 with intervals, and the truths that count: of all classes together, then of each."""
        told = matches.average_precision()
        a = 0 if size is None else told.sizes.index(size)
        drawn = None
        if self.draws is not None and told.truths[:, a].sum():
            drawn = matches.drawn(self.number, self.draws, size)
        rows = []
        for kind in (None, *range(matches.classes)):
            chosen = slice(None) if kind is None else slice(kind, kind + 1)
            mine = None if drawn is None else drawn[:, :, chosen]
            rows.append(
                {
                    "truths": int(told.truths[chosen, a].sum()),
                    "ap50": known(told.ap(0.5, kind=kind, size=size)),
                    "ap50_interval": None if mine is None else self.ends(_means(mine[:, 0])),
                    "ap50_95": known(told.ap(kind=kind, size=size)),
                    "ap50_95_interval": None if mine is None else self.ends(_means(mine.mean(axis=1))),
                }
            )
        return rows

    def ends(self, values: Float[np.ndarray, " r"]) -> list[float] | None:
        """Percentile interval; None where the draws differ in nothing, or none knows the figure."""
        values = values[np.isfinite(values)]  # a draw without a rare class tells nothing about it
        if not len(values) or values.max() - values.min() < 1e-12:
            return None
        return np.quantile(values, [(1 - self.level) / 2, (1 + self.level) / 2]).tolist()


def known(value: float) -> float | None:
    """A number as JSON holds it: None where there is none."""
    return float(value) if math.isfinite(value) else None


def _means(drawn: Float[np.ndarray, "r k"]) -> Float[np.ndarray, " r"]:
    """Means over the classes that a draw has."""
    some = ~np.isnan(drawn)
    count = some.sum(axis=1)
    total = np.where(some, drawn, 0.0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(drawn), math.nan), where=count > 0)


def _joined(truth: Sequence[TrueHere], classes: int) -> tuple[Truth, _Rows]:
    """Truths of all images in a row; what is ignored for all classes stands there once for each."""
    image, boxes, kinds, ignore, size, contrast, types = ([] for _ in range(7))
    for number, one in enumerate(truth):
        here = np.asarray(one.boxes, np.float64).reshape(-1, 4)
        m = len(here)
        columns = {
            "kinds": np.asarray(one.kinds, np.int64),
            "ignore": np.zeros(m, bool) if one.ignore is None else np.asarray(one.ignore, bool),
            "size_px": np.full(m, np.nan) if one.size_px is None else np.asarray(one.size_px, np.float64),
            "contrast_grey": np.full(m, np.nan) if one.contrast_grey is None else np.asarray(one.contrast_grey, float),
            "types": np.array([""] * m if one.types is None else list(one.types), object),
        }
        for name, column in columns.items():
            if len(column) != m:
                raise UsageError(f"image {number}: {m} true boxes with {len(column)} {name}: one each")
        if ((columns["kinds"] == ANY) & ~columns["ignore"]).any():
            raise UsageError(f"image {number}: class {ANY} means any class, and is for what is ignored")
        times = np.where(columns["kinds"] == ANY, classes, 1)
        again = np.repeat(np.arange(m), times)
        place = np.arange(len(again)) - np.repeat(np.cumsum(times) - times, times)
        image.append(np.full(len(again), number))
        boxes.append(here[again])
        kinds.append(np.where(columns["kinds"][again] == ANY, place, columns["kinds"][again]))
        for out, name in ((ignore, "ignore"), (size, "size_px"), (contrast, "contrast_grey"), (types, "types")):
            out.append(columns[name][again])
    crowd = np.concatenate(ignore)
    joined = Truth(
        np.concatenate(image), np.concatenate(boxes), np.concatenate(kinds), np.zeros(len(crowd), bool), crowd
    )
    return joined, _Rows(np.concatenate(size), np.concatenate(contrast), np.concatenate(types))


def _by_type(
    found: Found,
    truth: Truth,
    rows: _Rows,
    classes: Sequence[str],
    measured: _Measured,
    scores: DeviceScores,
    threshold: float,
    level: float,
) -> dict[str, Any]:
    """Average precision and captures of each type: other types of its class are ignored, wrong detections count."""
    told = {}
    for name in sorted({one for one, crowd in zip(rows.types, truth.crowd, strict=True) if one and not crowd}):
        mine = (rows.types == name) & ~truth.crowd
        kind = int(np.bincount(truth.kinds[mine]).argmax())
        others = ~mine & ~truth.crowd
        alone = Truth(truth.image, truth.boxes, truth.kinds, others, truth.crowd)
        matches = match(found, alone, len(classes), sizes_px2={"all": SIZES_PX2["all"]}, most=(100,))
        told[name] = {
            "class": classes[kind],
            **measured.aps(matches)[1 + kind],
            "capture": _captured(scores, truth.image, mine, threshold, level),
        }
    return told


def _captured(
    scores: DeviceScores, image: np.ndarray, which: Bool[np.ndarray, " m"], threshold: float, level: float
) -> dict[str, Any] | None:
    """Share of the devices with some of these defects on which one of these is caught; None without any."""
    device = scores.number[image[which]]
    total = len(np.unique(device))
    if not total:
        return None
    count = len(np.unique(device[scores.defect[which] > threshold]))
    low, high = clopper_pearson(count, total, level)
    return {"captured": count, "devices": total, "share": count / total, "low": float(low), "high": float(high)}


def _false_alarms(scores: DeviceScores, threshold: float, level: float, rounds: int, seed: int) -> dict[str, Any]:
    good = scores.good
    each = scores.false_findings(threshold, level, rounds, seed)
    rate = scores.false_alarm_rate(threshold, level)
    per_1000 = (None if one is None else 1000 * one for one in (rate.value, rate.low, rate.high))
    return {
        "alarmed": int((scores.level[good] > threshold).sum()),
        "devices": int(good.sum()),
        "per_1000": dict(zip(("value", "low", "high"), per_1000, strict=True)),
        "on_ignored": int((scores.on_ignored[good] > threshold).sum()),
        "findings_per_device": {"value": each.value, "low": each.low, "high": each.high, "method": each.method},
    }


def _errors(found: Found, truth: Truth, classes: int, measured: _Measured) -> dict[str, Any]:
    """Kinds of errors at an overlap of 0.5, and what each costs, with intervals."""
    errors = split_errors(found, truth, classes)
    gains = errors.delta_ap()
    drawn = {} if measured.draws is None else errors.drawn(measured.number, measured.draws)
    return {
        name: {
            "count": errors.counts.get(name),
            "ap50_gain": known(gain),
            "ap50_gain_interval": measured.ends(drawn[name]) if drawn else None,
        }
        for name, gain in gains.items()
    }


def _curve(scores: DeviceScores) -> dict[str, Any] | None:
    curve = scores.curve()
    if curve is None:
        return None
    places = np.unique(np.linspace(0, len(curve.threshold) - 1, CURVE_POINTS).astype(int))
    return {
        "threshold": [known(value) for value in curve.threshold[places]],
        "overkill": curve.overkill[places].tolist(),
        "escape": curve.escape[places].tolist(),
        "separation": curve.separation(),
    }


def _ends(one: Measurement) -> list[float] | None:
    return None if one.low is None or one.high is None else [one.low, one.high]
