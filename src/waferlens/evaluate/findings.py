"""Findings against truth: what was found, what was missed, what was invented, and whether alarms keep a stated rate.

Images of one board, device or wafer resemble each other, so the intervals come from drawing whole groups anew. Where
every draw gives the same (nothing was missed, nothing was invented), a bootstrap sees no error at all; the exact
interval of the counts stands in for it then, which takes the images for independent. Few groups make intervals that are
too narrow: `method` tells how many there were.

Sources: Davison & Hinkley, "Bootstrap methods" (1997), 3.8; Garwood, Biometrika 28 (1936) 437 (Poisson interval);
Vovk, ACML 2012 (a conformal threshold's true rate is a Beta variable, so alarms are beta-binomial).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import betaln, gammaincinv, gammaln

from waferlens.errors import UsageError
from waferlens.evaluate.curves import clopper_pearson
from waferlens.evaluate.intervals import bootstrap_interval, cluster_sums
from waferlens.ops.boxes import best_match, centre_hits, iou
from waferlens.ops.conformal import Guarantee
from waferlens.records import Finding, Measurement

Rule = Literal["iou", "centre"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """Findings against truth."""

    images: int
    truths: int
    found: int
    hits: int
    """Findings that are a true defect, and true defects that were found: they are paired one to one."""
    duplicates: int
    """Findings that lie on a defect that another finding was paired with: fragments. They count as false alarms."""
    precision: Measurement
    recall: Measurement
    f: Measurement
    false_alarms_per_image: Measurement
    alarmed_share: Measurement
    """Share of images with at least one false alarm."""
    missed: dict[str, Measurement] = field(default_factory=dict)
    """Share of true defects that were missed, by class, in the order of the alphabet."""
    missed_counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Missed and all true defects, by class."""


def pair_up(
    found: Sequence[Finding], truth: Sequence[Finding], *, rule: Rule = "iou", least_iou: float = 0.33
) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """For each finding of one image the true defect it is, or -1; and whether it is a duplicate."""
    boxes, true_boxes = _boxes(found), _boxes(truth)
    overlap = iou(boxes, true_boxes)
    allowed = overlap >= least_iou if rule == "iou" else centre_hits(boxes, true_boxes)
    matched = best_match(overlap, allowed)
    return matched, (matched < 0) & allowed.any(axis=1)


def judge(
    found: Sequence[Sequence[Finding]],
    truth: Sequence[Sequence[Finding]],
    groups: Sequence[Hashable] | None = None,
    *,
    rule: Rule = "iou",
    least_iou: float = 0.33,
    same_kind: bool = False,
    level: float = 0.95,
    rounds: int = 1000,
    seed: int = 0,
) -> Judgement:
    """Judges a list of findings an image against the true defects of the same images.

    Findings and defects are paired one to one, as many pairs as there can be (`ops.boxes.best_match`).

    Args:
        found: Findings of each image; leave those out that should not count, as the tolerable ones.
        truth: True defects of each image.
        groups: What each image belongs to: board group, device. Each is its own if None.
        rule: `iou`: boxes overlap by `least_iou`; `centre`: the centre of the found box lies in the true one.
        least_iou: Intersection over union.
        same_kind: Only pairs of one class are hits.
        level: Coverage of the intervals.
        rounds: Bootstrap rounds, in hundreds.
        seed: Seed of the draws.

    Raises:
        UsageError: the lists are of different lengths or empty, or the rule is unknown.
    """
    if rule not in ("iou", "centre"):
        raise UsageError(f"rule {rule!r}: there are `iou` and `centre`")
    labels = list(range(len(truth))) if groups is None else list(groups)
    if not len(found) == len(truth) == len(labels) or not len(truth):
        raise UsageError(
            f"findings of {len(found)} images, truth of {len(truth)} and groups of {len(labels)}: "
            "they have to be the same images, and at least one"
        )
    kinds = sorted({defect.kind for defects in truth for defect in defects})
    # an image's row: 1, truths, found, hits, false alarms, whether it has any, duplicates; then missed and all by class
    rows = np.zeros((len(truth), 7 + 2 * len(kinds)))
    for row, listed, defects in zip(rows, found, truth, strict=True):
        _count(row, listed, defects, kinds, rule, least_iou, same_kind)
    index = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    sums = cluster_sums(rows, np.array([index[label] for label in labels]))
    method = f"cluster bootstrap over {len(index)} {'images' if groups is None else 'groups'}"

    def share(name: str, top: int, bottom: int, unit: str = "1") -> Measurement:
        return interval_of(name, sums, ratio_of(top, bottom), (top, bottom), unit, method, level, rounds, seed)

    total = rows.sum(axis=0)
    return Judgement(
        images=len(truth),
        truths=int(total[1]),
        found=int(total[2]),
        hits=int(total[3]),
        duplicates=int(total[6]),
        precision=share("precision", 3, 2),
        recall=share("recall", 3, 1),
        f=interval_of("f", sums, _f_score, None, "1", method, level, rounds, seed),
        false_alarms_per_image=share("false_alarms_per_image", 4, 0, "1/image"),
        alarmed_share=share("alarmed_share", 5, 0),
        missed={kind: share(f"missed_{kind}", 7 + 2 * k, 8 + 2 * k) for k, kind in enumerate(kinds)},
        missed_counts={kind: (int(total[7 + 2 * k]), int(total[8 + 2 * k])) for k, kind in enumerate(kinds)},
    )


def false_alarm_rate(alarmed: int, images: int, confidence: float = 0.95) -> Measurement:
    """The share of good images that alarm, with its exact interval.

    Raises:
        UsageError: there are no images, or more alarms than images.
    """
    if images < 1 or not 0 <= alarmed <= images:
        raise UsageError(
            f"{alarmed} of {images} good images alarmed: a rate needs images, and no more alarms than those"
        )
    low, high = clopper_pearson(alarmed, images, confidence)
    method = f"Clopper-Pearson, {confidence:g}, {alarmed} of {images}"
    return Measurement("false_alarm_rate", alarmed / images, "1", float(low), float(high), method)


@dataclass(frozen=True, slots=True)
class RateCheck:
    """Whether alarms over repetitions are what a stated rate leads to expect."""

    observed: float
    """Share of good images that alarmed, over all repetitions."""
    expected: float
    """What the statement expects of it."""
    low: float
    """Lower end of the range it lies in with the confidence if the statement is true."""
    high: float
    """Upper end of that range."""
    more: float
    """Chance of so many alarms or more if the statement is true; small where alarms are more than stated."""
    fewer: float
    """Chance of so few alarms or fewer if the statement is true; small where alarms are fewer than stated."""
    kept: bool
    """Not more alarms than chance explains: the statement says `at most`."""
    consistent: bool
    """Neither more nor fewer than chance explains."""
    repetitions: int
    method: str


def check_rate(
    alarmed: Sequence[int] | Int[np.ndarray, " r"],
    images: int,
    stated: float | Guarantee,
    confidence: float = 0.95,
) -> RateCheck:
    """Compares the alarms of independent repetitions with a stated rate, exactly.

    A threshold fitted anew in each repetition has a true rate of its own: with what `conformal_threshold` promises
    (scores without ties), the alarms of a repetition are beta-binomial, and spread more than a binomial says. With a
    bare rate they are taken for binomial: right for one fixed threshold, too strict for fitted ones.

    Args:
        alarmed: Good images that alarmed, one number a repetition.
        images: Good images tested in each repetition, none of which set a threshold.
        stated: The rate, or the guarantee that each repetition's threshold came with.
        confidence: Of the range, and of the two verdicts.

    Raises:
        UsageError: there are no repetitions, or counts that cannot be.
    """
    counts = np.asarray(alarmed, np.int64).ravel()
    if not len(counts) or images < 1 or (counts < 0).any() or (counts > images).any():
        raise UsageError(f"alarms of {len(counts)} repetitions of {images} images: each lies between 0 and {images}")
    repetitions, total = len(counts), int(counts.sum())
    if isinstance(stated, Guarantee):
        one = _beta_binomial(images, stated.images + 1 - stated.rank, stated.rank)
        expected = stated.mean
        method = f"beta-binomial, thresholds of {stated.images} good images"
    elif 0 < stated < 1:
        one = _binomial(images, stated)
        expected, method = float(stated), "binomial, one threshold"
    else:
        raise UsageError(f"a rate of false alarms lies between 0 and 1, got {stated:g}; 1 % is 0.01")
    chance = _summed(one, repetitions)
    below = np.minimum(np.cumsum(chance), 1.0)
    fewer, more = float(below[min(total, len(below) - 1)]), float(min(chance[total:].sum(), 1.0))
    tail = (1 - confidence) / 2
    low, high = (int(np.searchsorted(below, share)) for share in (tail, 1 - tail))
    whole = repetitions * images
    return RateCheck(
        observed=total / whole,
        expected=expected,
        low=low / whole,
        high=high / whole,
        more=more,
        fewer=fewer,
        kept=more > 1 - confidence,
        consistent=min(more, fewer) > tail,
        repetitions=repetitions,
        method=method,
    )


def _boxes(findings: Sequence[Finding]) -> Float[np.ndarray, "n 4"]:
    return np.array([finding.box for finding in findings], np.float64).reshape(-1, 4)


def _count(
    row: Float[np.ndarray, " k"],
    found: Sequence[Finding],
    truth: Sequence[Finding],
    kinds: Sequence[str],
    rule: Rule,
    least_iou: float,
    same_kind: bool,
) -> None:
    """Fills in an image's row."""
    got = np.zeros(len(truth), bool)
    duplicates = 0
    classes = kinds + sorted({it.kind for it in found} - set(kinds)) if same_kind else [None]
    for kind in classes:
        listed = [it for it in found if kind is None or it.kind == kind]
        places = [place for place, it in enumerate(truth) if kind is None or it.kind == kind]
        matched, twice = pair_up(listed, [truth[place] for place in places], rule=rule, least_iou=least_iou)
        got[[places[one] for one in matched if one >= 0]] = True
        duplicates += int(twice.sum())
    false = len(found) - int(got.sum())
    row[:7] = 1, len(truth), len(found), got.sum(), false, false > 0, duplicates
    for defect, hit in zip(truth, got, strict=True):
        place = 7 + 2 * kinds.index(defect.kind)
        row[place : place + 2] += not hit, 1


def ratio_of(top: int, bottom: int) -> Callable[[np.ndarray], np.ndarray]:
    def of(sums: np.ndarray) -> np.ndarray:
        some = sums[..., bottom] > 0  # a draw without any case of a rare class tells nothing about it
        return sums[..., top][some] / sums[..., bottom][some]

    return of


def _f_score(sums: np.ndarray) -> np.ndarray:
    both = sums[..., 1] + sums[..., 2]
    return 2 * sums[..., 3][both > 0] / both[both > 0]


def interval_of(
    name: str,
    sums: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    counts: tuple[int, int] | None,
    unit: str,
    method: str,
    level: float,
    rounds: int,
    seed: int,
) -> Measurement:
    """A statistic with its interval; `counts` are the columns that it is the ratio of."""
    total = sums.sum(axis=0)
    whole = statistic(total[None])
    if not len(whole):
        return Measurement(name, None, unit, method="no case")
    value = float(whole[0])
    if len(sums) > 1:
        low, high = bootstrap_interval(sums, statistic, level=level, rounds=rounds, seed=seed)
        if high > low:
            return Measurement(name, value, unit, low, high, method)
    if counts is None:  # F = 2 J / (1 + J), with J the hits among all that is true or found
        ends = clopper_pearson(total[3], total[1] + total[2] - total[3], level)
        low, high = (2 * float(end) / (1 + float(end)) for end in ends)
    elif unit == "1":
        low, high = map(float, clopper_pearson(total[counts[0]], total[counts[1]], level))
    else:
        low, high = (end / total[counts[1]] for end in _poisson(total[counts[0]], level))
    return Measurement(name, value, unit, low, high, f"exact, images taken for independent ({method} sees no spread)")


def _poisson(count: float, level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    low = float(gammaincinv(count, tail)) if count else 0.0
    return low, float(gammaincinv(count + 1, 1 - tail))


def _binomial(images: int, rate: float) -> Float[np.ndarray, " n"]:
    k = np.arange(images + 1)
    return np.exp(_log_choose(images, k) + k * math.log(rate) + (images - k) * math.log1p(-rate))


def _beta_binomial(images: int, a: float, b: float) -> Float[np.ndarray, " n"]:
    k = np.arange(images + 1)
    return np.exp(_log_choose(images, k) + betaln(k + a, images - k + b) - betaln(a, b))


def _log_choose(n: int, k: np.ndarray) -> np.ndarray:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def _summed(one: Float[np.ndarray, " n"], times: int) -> Float[np.ndarray, " m"]:
    """Chances of a sum of independent numbers that are all distributed alike."""
    one = one[: int(np.flatnonzero(one > 1e-18)[-1]) + 1]  # thousands of images, of which some dozens may alarm
    out = np.ones(1)
    for _ in range(times):
        out = np.convolve(out, one)
    return out
