"""Why detections are wrong: errors of class, of place, of both, duplicates, background, misses, and what each costs.

What a kind of error costs is the average precision that would be gained if it alone were mended: a detection of the
wrong class or at the wrong place becomes right (the best one for a truth; others of it go), a detection that is a
duplicate, or on background, or wrong in both goes, and a truth that nothing comes near is not asked for. The gains need
not add up to what is missing.

A wrong detection is looked at in this order: *place*: it overlaps a truth of its class, too little; *class*: it fits a
truth of another class; *duplicate*: it fits one of its class that a higher score has taken; *background*: it overlaps
nothing; *both*: the rest.

Source: Bolya, Foley, Hays, Hoffman, "TIDE: a general toolbox for identifying object detection errors", ECCV 2020.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int, Int8, Int64

from waferlens.errors import UsageError
from waferlens.evaluate.average_precision import RECALLS, Found, Truth, match
from waferlens.ops.detection_matching import IGNORED, RIGHT, WRONG, groups, nearest, ordered, weighted_average

ERRORS = ("class", "place", "both", "duplicate", "background", "missed")
"""The kinds of errors; a detection has the number of its own, -1 if it is none."""
CLASS, PLACE, BOTH, DUPLICATE, BACKGROUND, MISSED = range(6)
NEAR = 0.1
"""Overlap from which a detection has to do with a truth."""


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """Detections as they would be with some errors mended, and the truths that are asked for."""

    code: Int8[np.ndarray, " n"]
    kinds: Int64[np.ndarray, " n"]
    asked: Bool[np.ndarray, " m"]


@dataclass(frozen=True, slots=True, eq=False)
class DetectionErrors:
    """What is wrong with each detection, and which truths are missed."""

    error: Int8[np.ndarray, " n"]
    """Place in `ERRORS` of each detection; -1 for what is right or ignored."""
    missed: Bool[np.ndarray, " m"]
    """Truths that count, that no detection has, and that no error of class or place would have given."""
    counts: dict[str, int]
    found: Found
    truth: Truth
    classes: int
    overlap: float
    _versions: dict[str, Version]

    @property
    def ap(self) -> float:
        """Average precision as it is; NaN without any truth."""
        return self._means(np.zeros(self._images, np.int64), np.ones((1, 1), np.int64))["as it is"][0]

    def delta_ap(self) -> dict[str, float]:
        """Average precision to be gained, by kind of error, and by mending all that is wrong or all that is missed."""
        return {
            name: float(gain[0])
            for name, gain in self.drawn(np.zeros(self._images, np.int64), np.ones((1, 1), np.int64)).items()
        }

    def drawn(
        self, cluster: Int[np.ndarray, " i"], weight: Int[np.ndarray, "r c"]
    ) -> dict[str, Float64[np.ndarray, " r"]]:
        """`delta_ap` of each draw of clusters of images; see `Matches.drawn`."""
        means = self._means(cluster, weight)
        base = means.pop("as it is")
        return {name: value - base for name, value in means.items()}

    @property
    def _images(self) -> int:
        return 1 + max([-1, *self.found.image.tolist(), *self.truth.image.tolist()])

    def _means(self, cluster: Int[np.ndarray, " i"], weight: Int[np.ndarray, "r c"]) -> dict[str, np.ndarray]:
        """Mean over classes of the average precision of each version and draw."""
        cluster, weight = np.asarray(cluster, np.int64), np.ascontiguousarray(weight, np.int64)
        out = {}
        for name, version in self._versions.items():
            order = ordered(self.found.image, version.kinds, self.found.scores, self.classes)
            ranked = np.empty(len(order.slot), np.int64)
            ranked[order.slot] = order.grouped
            asked = np.flatnonzero(version.asked)
            asked = asked[np.argsort(self.truth.kinds[asked], kind="stable")]
            first = np.searchsorted(self.truth.kinds[asked], np.arange(self.classes + 1))
            told = weighted_average(
                np.ascontiguousarray(version.code[ranked][:, None]),
                cluster[self.found.image[ranked]],
                order.first,
                cluster[self.truth.image[asked]],
                first,
                weight,
                RECALLS,
            )[:, 0]
            known = ~np.isnan(told)
            number = known.sum(axis=1)
            total = np.where(known, told, 0.0).sum(axis=1)
            out[name] = np.divide(total, number, out=np.full(len(weight), math.nan), where=number > 0)
        return out


def split_errors(
    found: Found, truth: Truth, classes: int, *, overlap: float = 0.5, near: float = NEAR, most: int = 100
) -> DetectionErrors:
    """Finds out what is wrong with each detection.

    Args:
        found: Detections.
        truth: True objects; nothing is wrong that takes one that is ignored.
        classes: Number of classes.
        overlap: Intersection over union from which a detection fits a truth.
        near: That from which it has to do with it.
        most: Detections that are looked at, an image and class.

    Raises:
        UsageError: the overlaps are not in order, or arrays do not fit together.
    """
    if not 0 < near < overlap <= 1:
        raise UsageError(f"overlaps of {near:g} (near) and {overlap:g} (fits): 0 < near < fits <= 1 is needed")
    matches = match(found, truth, classes, overlaps=(overlap,), sizes_px2={"all": (-math.inf, math.inf)}, most=(most,))
    found, truth = matches.found, matches.truth
    code, counts, got = matches.named()[:, 0], matches.counts[0], matches.got[0, 0]
    shared, which = _nearest(found, truth, counts)
    own, other = shared.T
    wrong = code == WRONG
    error = np.full(len(code), -1, np.int8)
    tests = {
        PLACE: (own >= near) & (own < overlap),
        CLASS: other >= overlap,
        DUPLICATE: own >= overlap,
        BACKGROUND: np.maximum(own, other) < near,
        BOTH: np.ones(len(code), bool),
    }
    for kind, holds in tests.items():
        error[wrong & (error < 0) & holds] = kind
    mended = np.where(error == CLASS, which[:, 1], np.where(error == PLACE, which[:, 0], -1))
    best = _best_for_a_truth(mended, found.scores, got)
    near_enough = np.zeros(len(counts), bool)
    near_enough[mended[mended >= 0]] = True
    missed = counts & ~got & ~near_enough
    numbers = {name: int((error == kind).sum()) for kind, name in enumerate(ERRORS)} | {"missed": int(missed.sum())}
    versions = {"as it is": Version(code, found.kinds, counts)}
    for kind, name in enumerate(ERRORS):
        versions[name] = _mended(code, found.kinds, truth.kinds, counts, error == kind, best, mended)
    versions["missed"] = Version(code, found.kinds, counts & ~missed)
    versions["all_wrong"] = Version(np.where(wrong, IGNORED, code).astype(np.int8), found.kinds, counts)
    versions["all_missed"] = Version(code, found.kinds, counts & got)
    return DetectionErrors(error, missed, numbers, found, truth, classes, overlap, versions)


def _nearest(
    found: Found, truth: Truth, counts: Bool[np.ndarray, " m"]
) -> tuple[Float64[np.ndarray, "n 2"], Int64[np.ndarray, "n 2"]]:
    """Greatest overlaps with a truth of the own class and of another, and which truths these are, -1 for none."""
    asked = np.flatnonzero(counts)
    by_image, asked = np.argsort(found.image, kind="stable"), asked[np.argsort(truth.image[asked], kind="stable")]
    rows, _ = groups(found.image[by_image], truth.image[asked], max(1, len(found.image)))
    told, places = nearest(rows, found.boxes[by_image], found.kinds[by_image], truth.boxes[asked], truth.kinds[asked])
    shared, which = np.empty_like(told), np.empty_like(places)
    shared[by_image] = told
    which[by_image] = np.where(places >= 0, np.append(asked, -1)[places], -1)
    return shared, which


def _best_for_a_truth(
    mended: Int64[np.ndarray, " n"], scores: Float64[np.ndarray, " n"], got: Bool[np.ndarray, " m"]
) -> Bool[np.ndarray, " n"]:
    """Of the errors that a truth could mend the one with the highest score; none where the truth has a detection."""
    best = np.zeros(len(mended), bool)
    able = np.flatnonzero(mended >= 0)
    able = able[~got[mended[able]]]
    falling = able[np.argsort(-scores[able], kind="stable")]
    _, first = np.unique(mended[falling], return_index=True)
    best[falling[first]] = True
    return best


def _mended(
    code: Int8[np.ndarray, " n"],
    kinds: Int64[np.ndarray, " n"],
    true_kinds: Int64[np.ndarray, " m"],
    counts: Bool[np.ndarray, " m"],
    chosen: Bool[np.ndarray, " n"],
    best: Bool[np.ndarray, " n"],
    mended: Int64[np.ndarray, " n"],
) -> Version:
    """The best of these errors right and of the class that they should have, the others gone."""
    told = np.where(chosen, np.where(best, RIGHT, IGNORED), code).astype(np.int8)
    better = chosen & best
    kinds = kinds.copy()
    kinds[better] = true_kinds[mended[better]]
    return Version(told, kinds, counts)
