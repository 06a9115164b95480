"""Detections by device: which are caught, which escape, which good ones alarm.

A device alarms where one of its detections scores above the threshold, on whatever it may lie: a line knows no truth. A
defective device is *captured* where such a detection, of the right class, lies on one of its defects; if it alarms for
another reason, luck saved it. What truth calls ignored (dirt, marks of the lights) is no defect, and an alarm on it is
an alarm as any other. Devices that are neither, as those without a die, are set aside.

Classes may have thresholds of their own. Their scores then are moved by the distance to that of the first class, so
that one threshold serves for all of them, and a curve over it moves all of them together.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from waferlens.evaluate.average_precision import Found, Truth
from waferlens.evaluate.curves import OverkillEscape, clopper_pearson, overkill_escape
from waferlens.evaluate.findings import false_alarm_rate, interval_of, ratio_of
from waferlens.ops.detection_matching import groups, loudest
from waferlens.records import Measurement

ON_DEFECT = 0.1
"""Intersection over union from which a detection lies on a defect: a line needs the place, not the outline."""


@dataclass(frozen=True, slots=True, eq=False)
class DeviceScores:
    """What each device says, by device; minus infinity where it says nothing of the kind."""

    names: tuple[Hashable, ...]
    """In the order in which they were met."""
    number: Int64[np.ndarray, " i"]
    """Device of each image."""
    defective: Bool[np.ndarray, " d"]
    good: Bool[np.ndarray, " d"]
    """Neither defective nor set aside."""
    level: Float64[np.ndarray, " d"]
    """Highest score of any detection."""
    on_defect: Float64[np.ndarray, " d"]
    """Highest score of a detection on a defect, of its class."""
    on_ignored: Float64[np.ndarray, " d"]
    """Highest score of a detection on what is ignored."""
    defect: Float64[np.ndarray, " m"]
    """Of each truth the highest score of a detection of its class on it."""
    found_device: Int64[np.ndarray, " n"]
    """Device of each detection."""
    scores: Float64[np.ndarray, " n"]
    """Of each detection."""

    def capture_rate(self, threshold: float, level: float = 0.95) -> Measurement:
        """Share of defective devices with a detection on a defect; exact interval, devices taken for independent."""
        return self._share("capture_rate", self.on_defect > threshold, level)

    def escape_rate(self, threshold: float, level: float = 0.95) -> Measurement:
        """Share of defective devices that do not alarm at all."""
        return self._share("escape_rate", ~(self.level > threshold), level)

    def false_alarm_rate(self, threshold: float, level: float = 0.95) -> Measurement:
        """Share of good devices that alarm."""
        if not self.good.any():
            return Measurement("false_alarm_rate", None, "1", method="no good device")
        return false_alarm_rate(int((self.level > threshold)[self.good].sum()), int(self.good.sum()), level)

    def false_findings(self, threshold: float, level: float = 0.95, rounds: int = 1000, seed: int = 0) -> Measurement:
        """Detections above the threshold on a good device, on average; bootstrap over devices."""
        counts = np.bincount(self.found_device[self.scores > threshold], minlength=len(self.names))[self.good]
        sums = np.stack([counts, np.ones(len(counts))], axis=1)
        method = f"bootstrap over {len(counts)} devices"
        return interval_of(
            "false_findings_per_good_device", sums, ratio_of(0, 1), (0, 1), "1/device", method, level, rounds, seed
        )

    def curve(self) -> OverkillEscape | None:
        """Overkill and escape over the threshold; None where there are only good devices, or only defective ones."""
        if not (self.good.any() and self.defective.any()):
            return None
        return overkill_escape(self.level[self.good], self.level[self.defective])

    def _share(self, name: str, which: Bool[np.ndarray, " d"], level: float) -> Measurement:
        total, count = int(self.defective.sum()), int(which[self.defective].sum())
        if not total:
            return Measurement(name, None, "1", method="no defective device")
        low, high = clopper_pearson(count, total, level)
        method = f"Clopper-Pearson, {level:g}, {count} of {total}"
        return Measurement(name, count / total, "1", float(low), float(high), method)


def device_scores(
    found: Found,
    truth: Truth,
    devices: Sequence[Hashable],
    *,
    least_overlap: float = ON_DEFECT,
    set_aside: Collection[Hashable] = (),
) -> DeviceScores:
    """What each device says.

    Args:
        found: Detections.
        truth: True objects; a device is defective where it has one that is not ignored.
        devices: Device of each image.
        least_overlap: Intersection over union from which a detection lies on something.
        set_aside: Devices that are neither good nor defective.
    """
    index = {name: number for number, name in enumerate(dict.fromkeys(devices))}
    number = np.array([index[name] for name in devices], np.int64)
    ignored = np.zeros(len(truth.image), bool)
    for flags in (truth.ignore, truth.crowd):
        if flags is not None:
            ignored |= np.asarray(flags, bool)
    defect = _loudest(found, truth, least_overlap, classes_apart=True)
    anything = _loudest(found, truth, least_overlap, classes_apart=False)
    found_device, true_device = number[found.image], number[truth.image]
    defective = np.zeros(len(index), bool)
    defective[true_device[~ignored]] = True
    aside = np.array([name in set_aside for name in index], bool)

    def highest(scores: np.ndarray, device: np.ndarray) -> np.ndarray:
        out = np.full(len(index), -np.inf)
        np.maximum.at(out, device, scores)
        return out

    return DeviceScores(
        tuple(index),
        number,
        defective & ~aside,
        ~defective & ~aside,
        highest(found.scores, found_device),
        highest(defect[~ignored], true_device[~ignored]),
        highest(anything[ignored], true_device[ignored]),
        defect,
        found_device,
        np.asarray(found.scores, np.float64),
    )


def at_one_threshold(found: Found, above: Float[np.ndarray, " k"]) -> Found:
    """Detections whose scores have one threshold, that of the first class.

    Args:
        found: Detections.
        above: Threshold of each class.
    """
    return replace(found, scores=np.asarray(found.scores, np.float64) - (above - above[0])[found.kinds])


def _loudest(found: Found, truth: Truth, least: float, *, classes_apart: bool) -> Float64[np.ndarray, " m"]:
    by_image, true_by_image = (np.argsort(one.image, kind="stable") for one in (found, truth))
    rows, _ = groups(found.image[by_image], truth.image[true_by_image], max(1, len(found.image)))
    factor = 1 if classes_apart else 0
    told = loudest(
        rows,
        found.boxes[by_image],
        found.kinds[by_image] * factor,
        found.scores[by_image],
        truth.boxes[true_by_image],
        truth.kinds[true_by_image] * factor,
        least,
    )
    out = np.empty_like(told)
    out[true_by_image] = told
    return out
