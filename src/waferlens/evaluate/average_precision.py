"""Average precision of detections in the manner of COCO, from arrays, with its spread over devices.

`match` says once what becomes of every detection at every overlap and size; everything else is counting. Figures equal
those of the reference implementation (`tests/parity/test_coco_ap.py`): interpolated at 101 recalls, a truth that is
ignored neither found nor missed, a class without a truth left out of the mean.

A device gives several images that resemble each other, so the interval of a figure comes from drawing whole devices
anew; a draw counts every image of a device as often as it was drawn, which is exact, not an approximation.

Sources: Lin et al., "Microsoft COCO: common objects in context", ECCV 2014; cocodataset.org/#detection-eval (sizes,
overlaps); Davison & Hinkley, "Bootstrap methods" (1997), 3.8 (clusters).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int8, Int64

from waferlens.errors import UsageError
from waferlens.ops.detection_matching import (
    IGNORED,
    Order,
    as_named,
    box_overlaps,
    groups,
    mask_overlaps,
    matched,
    ordered,
    precision_over_recall,
    weighted_average,
    within,
)

OVERLAPS = tuple(float(one) for one in np.linspace(0.5, 0.95, 10))
"""Least intersections over union of AP50:95."""
RECALLS = np.linspace(0.0, 1.0, 101)
SIZES_PX2 = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Areas of COCO's sizes, both ends included [px²]"""
MOST = (1, 10, 100)
"""Detections that are looked at, an image and class."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Detections of all images in a row."""

    image: Int[np.ndarray, " n"]
    """Number of the image, from 0."""
    boxes: Float[np.ndarray, "n 4"]
    """x0 y0 x1 y1, outer edges [px]"""
    scores: Float[np.ndarray, " n"]
    kinds: Int[np.ndarray, " n"]
    """Number of the class, from 0."""
    runs: Sequence[Int[np.ndarray, " _"]] | None = None
    """Masks as run lengths down the columns (`formats.rle.counts_of`); boxes are compared if None."""


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """True objects of all images in a row."""

    image: Int[np.ndarray, " m"]
    boxes: Float[np.ndarray, "m 4"]
    """x0 y0 x1 y1, outer edges [px]"""
    kinds: Int[np.ndarray, " m"]
    ignore: Bool[np.ndarray, " m"] | None = None
    """What is neither found nor missed; one detection may take it."""
    crowd: Bool[np.ndarray, " m"] | None = None
    """What is ignored, and may be taken by any detection that lies in it."""
    area_px2: Float[np.ndarray, " m"] | None = None
    """By which its size is told; that of the mask or box if None [px²]"""
    runs: Sequence[Int[np.ndarray, " _"]] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class AveragePrecision:
    """Precision over recall, by overlap, class, size and number of detections; NaN where there is no truth."""

    precision: Float64[np.ndarray, "t r k a m"]
    recall: Float64[np.ndarray, "t k a m"]
    """The highest that was reached."""
    scores: Float64[np.ndarray, "t r k a m"]
    """At which each recall is reached; 0 where it is not."""
    truths: Int64[np.ndarray, "k a"]
    """That count, by class and size."""
    overlaps: tuple[float, ...]
    sizes: tuple[str, ...]
    most: tuple[int, ...]

    def ap(
        self, overlap: float | None = None, *, kind: int | None = None, size: str | None = None, most: int | None = None
    ) -> float:
        """Mean precision over recalls, classes and overlaps, or one of them; NaN without any truth.

        Args:
            overlap: One of `overlaps`; all if None.
            kind: Number of a class; all that have a truth if None.
            size: Name of a size; the first if None.
            most: Detections an image and class; the largest number if None.
        """
        a, m = self._place(size, most)
        return _mean(self.precision[self._overlaps(overlap)][:, :, self._kinds(kind), a, m])

    def ar(
        self, overlap: float | None = None, *, kind: int | None = None, size: str | None = None, most: int | None = None
    ) -> float:
        """Mean of the highest recalls, as `ap`."""
        a, m = self._place(size, most)
        return _mean(self.recall[self._overlaps(overlap)][:, self._kinds(kind), a, m])

    def _place(self, size: str | None, most: int | None) -> tuple[int, int]:
        if size is not None and size not in self.sizes:
            raise UsageError(f"size {size!r}: there are {', '.join(self.sizes)}")
        if most is not None and most not in self.most:
            raise UsageError(f"{most} detections an image: matched for {', '.join(map(str, self.most))}")
        a = 0 if size is None else self.sizes.index(size)
        return a, len(self.most) - 1 if most is None else self.most.index(most)

    def _overlaps(self, overlap: float | None) -> slice:
        if overlap is None:
            return slice(None)
        for place, known in enumerate(self.overlaps):
            if math.isclose(known, overlap, abs_tol=1e-9):
                return slice(place, place + 1)
        raise UsageError(f"overlap {overlap:g}: matched at {', '.join(f'{one:g}' for one in self.overlaps)}")

    def _kinds(self, kind: int | None) -> slice:
        return slice(None) if kind is None else slice(kind, kind + 1)


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """What became of every detection."""

    order: Order
    code: Int8[np.ndarray, "n a t"]
    """Of the ranked detections."""
    found: Found
    truth: Truth
    got: Bool[np.ndarray, "a t m"]
    """Which truths were taken."""
    counts: Bool[np.ndarray, "a m"]
    """Which truths count, by size."""
    classes: int
    overlaps: tuple[float, ...]
    sizes: tuple[str, ...]
    most: tuple[int, ...]
    _rank: Int64[np.ndarray, " n"] = field(repr=False)

    def average_precision(self) -> AveragePrecision:
        """The figures of these images."""
        truths = np.stack(
            [np.bincount(self.truth.kinds[one], minlength=self.classes) for one in self.counts], axis=1
        ).astype(np.int64)
        precision, recall, scores = precision_over_recall(
            self.code,
            self._rank,
            self.found.scores[self._ranked],
            self.order.first,
            truths,
            RECALLS,
            np.array(self.most, np.int64),
        )
        return AveragePrecision(precision, recall, scores, truths, self.overlaps, self.sizes, self.most)

    def drawn(
        self, cluster: Int[np.ndarray, " i"], weight: Int[np.ndarray, "r c"], size: str | None = None
    ) -> Float64[np.ndarray, "r t k"]:
        """Average precision by draw, overlap and class; NaN where a draw holds no truth of a class.

        Args:
            cluster: Of each image, from 0.
            weight: How often each draw holds each cluster.
            size: Name of a size; the first if None.
        """
        a = 0 if size is None else self.sizes.index(size)
        cluster, weight = np.asarray(cluster, np.int64), np.ascontiguousarray(weight, np.int64)
        code = np.ascontiguousarray(self.code[:, a])
        chosen = np.flatnonzero(self.counts[a])
        chosen = chosen[np.argsort(self.truth.kinds[chosen], kind="stable")]
        first = np.searchsorted(self.truth.kinds[chosen], np.arange(self.classes + 1))
        return weighted_average(
            code,
            cluster[self.found.image[self._ranked]],
            self.order.first,
            cluster[self.truth.image[chosen]],
            first,
            weight,
            RECALLS,
        )

    def named(self, size: str | None = None) -> Int8[np.ndarray, "n t"]:
        """WRONG, RIGHT or IGNORED (`ops.detection_matching`) of each detection as handed in, by overlap."""
        return as_named(self.order, self.code)[:, 0 if size is None else self.sizes.index(size)]

    @property
    def _ranked(self) -> Int64[np.ndarray, " n"]:
        """Places of the detections by class and falling score."""
        out = np.empty(len(self.order.slot), np.int64)
        out[self.order.slot] = self.order.grouped
        return out


def match(
    found: Found,
    truth: Truth,
    classes: int,
    *,
    overlaps: Sequence[float] = OVERLAPS,
    sizes_px2: Mapping[str, tuple[float, float]] = SIZES_PX2,
    most: Sequence[int] = MOST,
    classes_apart: bool = True,
) -> Matches:
    """Decides for every detection what it is, at every overlap and size.

    Args:
        found: Detections; of equal scores the earlier image comes first, within an image what is named first.
        truth: True objects; order matters only where a detection overlaps two equally.
        classes: Number of classes.
        overlaps: Least intersections over union.
        sizes_px2: Least and greatest area by name, ends included; truths of other sizes are ignored [px²]
        most: Detections that are looked at, an image and class.
        classes_apart: Whether a detection may only take a truth of its class; otherwise there is one class.

    Raises:
        UsageError: arrays do not fit together, or hold what cannot be.
    """
    found, truth = _checked_found(found, classes), _checked_truth(truth, classes)
    if (found.runs is None) != (truth.runs is None):
        raise UsageError("masks of detections compare with masks of truths: hand in both, or neither")
    if not overlaps or not sizes_px2 or not most or min(most) < 1:
        raise UsageError("at least one overlap, one size and one number of detections, from 1 on, are needed")
    if not classes_apart:
        (found, truth), classes = _pooled(found, truth), 1
    limits = tuple(sorted(set(most)))
    order = ordered(found.image, found.kinds, found.scores, classes)
    images = 1 + max(_last(found.image), _last(truth.image))
    by_key = np.argsort(truth.kinds * images + truth.image, kind="stable")
    place = order.grouped
    rows, total = groups(
        found.kinds[place] * images + found.image[place],
        truth.kinds[by_key] * images + truth.image[by_key],
        limits[-1],
    )
    crowd = truth.crowd[by_key]
    if found.runs is None or truth.runs is None:
        area, true_area = _areas(found.boxes), _areas(truth.boxes)
        overlap = box_overlaps(rows, total, found.boxes[place], truth.boxes[by_key], crowd)
    else:
        _check_runs(found, truth)
        (counts, at), (true_counts, true_at) = _joined(found.runs, place), _joined(truth.runs, by_key)
        area, true_area = _run_areas(found.runs), _run_areas(truth.runs)
        overlap = mask_overlaps(rows, total, counts, at, true_counts, true_at, crowd)
    if truth.area_px2 is not None:
        true_area = np.asarray(truth.area_px2, np.float64)
    ranges = np.array(list(sizes_px2.values()), np.float64).reshape(-1, 2)
    counted = within(true_area, ranges) & ~(truth.ignore | truth.crowd)
    code, taken = matched(
        rows,
        overlap,
        np.ascontiguousarray(~counted[:, by_key]),
        crowd,
        np.ascontiguousarray(~within(area[place], ranges)),
        np.array(overlaps, np.float64),
        order.slot,
    )
    rank, got = np.empty_like(order.rank), np.empty_like(taken)
    rank[order.slot], got[..., by_key] = order.rank, taken
    code[rank >= limits[-1]] = IGNORED  # what is not looked at
    return Matches(order, code, found, truth, got, counted, classes, tuple(overlaps), tuple(sizes_px2), limits, rank)


def joined_found(
    boxes: Sequence[Float[np.ndarray, "_ 4"]],
    scores: Sequence[Float[np.ndarray, " _"]],
    kinds: Sequence[Int[np.ndarray, " _"]],
) -> Found:
    """Detections given image by image, in a row.

    Raises:
        UsageError: the lists are of different lengths.
    """
    _same_images(boxes=boxes, scores=scores, kinds=kinds)
    return Found(_numbers(boxes), _rows(boxes), _flat(scores, np.float64), _flat(kinds, np.int64))


def joined_truth(
    boxes: Sequence[Float[np.ndarray, "_ 4"]],
    kinds: Sequence[Int[np.ndarray, " _"]],
    ignore: Sequence[Bool[np.ndarray, " _"]] | None = None,
) -> Truth:
    """Truths given image by image, in a row.

    Raises:
        UsageError: the lists are of different lengths.
    """
    _same_images(boxes=boxes, kinds=kinds, ignore=kinds if ignore is None else ignore)
    told = None if ignore is None else _flat(ignore, np.bool_)
    return Truth(_numbers(boxes), _rows(boxes), _flat(kinds, np.int64), told)


def _mean(values: Float64[np.ndarray, "*n"]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def _last(image: Int64[np.ndarray, " n"]) -> int:
    return int(image.max()) if len(image) else -1


def _areas(boxes: Float64[np.ndarray, "n 4"]) -> Float64[np.ndarray, " n"]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _run_areas(runs: Sequence[Int[np.ndarray, " _"]]) -> Float64[np.ndarray, " n"]:
    return np.array([np.asarray(one)[1::2].sum() for one in runs], np.float64)


def _joined(
    runs: Sequence[Int[np.ndarray, " _"]], place: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " c"], Int64[np.ndarray, " n1"]]:
    """All counts in a row in this order, and where those of each mask begin."""
    chosen = [np.asarray(runs[one], np.int64) for one in place]
    at = np.zeros(len(chosen) + 1, np.int64)
    np.cumsum([len(one) for one in chosen], out=at[1:])
    return np.concatenate([np.empty(0, np.int64), *chosen]), at


def _pooled(found: Found, truth: Truth) -> tuple[Found, Truth]:
    """All of one class, the former classes one after another within each image."""
    one, other = (np.lexsort((it.kinds, it.image)) for it in (found, truth))

    def taken(values: Sequence[np.ndarray] | None, order: np.ndarray) -> list[np.ndarray] | None:
        return None if values is None else [values[place] for place in order]

    return (
        Found(found.image[one], found.boxes[one], found.scores[one], 0 * found.kinds, taken(found.runs, one)),
        Truth(
            truth.image[other],
            truth.boxes[other],
            0 * truth.kinds,
            truth.ignore[other],
            truth.crowd[other],
            None if truth.area_px2 is None else np.asarray(truth.area_px2, np.float64)[other],
            taken(truth.runs, other),
        ),
    )


def _checked_found(found: Found, classes: int) -> Found:
    image, boxes, kinds = _checked(found.image, found.boxes, found.kinds, classes, "detections")
    scores = np.ascontiguousarray(found.scores, np.float64)
    if scores.shape != image.shape or np.isnan(scores).any():
        raise UsageError(f"{len(image)} detections with scores of shape {scores.shape}: one number each, none NaN")
    _check_count(found.runs, len(image), "detections")
    return Found(image, boxes, scores, kinds, found.runs)


def _checked_truth(truth: Truth, classes: int) -> Truth:
    image, boxes, kinds = _checked(truth.image, truth.boxes, truth.kinds, classes, "truths")
    told = []
    for flags in (truth.ignore, truth.crowd):
        told.append(np.zeros(len(image), bool) if flags is None else np.asarray(flags, bool))
        if told[-1].shape != image.shape:
            raise UsageError(f"{len(image)} truths with {told[-1].shape} flags: one each")
    area = truth.area_px2
    if area is not None and np.shape(area) != image.shape:
        raise UsageError(f"{len(image)} truths with areas of shape {np.shape(area)}: one number each")
    _check_count(truth.runs, len(image), "truths")
    return Truth(image, boxes, kinds, told[0], told[1], area, truth.runs)


def _checked(
    image: np.ndarray, boxes: np.ndarray, kinds: np.ndarray, classes: int, what: str
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, "n 4"], Int64[np.ndarray, " n"]]:
    image, kinds = np.ascontiguousarray(image, np.int64), np.ascontiguousarray(kinds, np.int64)
    boxes = np.ascontiguousarray(boxes, np.float64).reshape(-1, 4)
    if not len(image) == len(boxes) == len(kinds):
        raise UsageError(f"{len(boxes)} boxes of {what} with {len(image)} images and {len(kinds)} classes: one each")
    if len(image) and (image.min() < 0 or kinds.min() < 0 or kinds.max() >= classes):
        raise UsageError(f"images of {what} are numbered from 0, and their classes from 0 to {classes - 1}")
    if not np.isfinite(boxes).all() or (boxes[:, 2:] < boxes[:, :2]).any():
        raise UsageError(f"a box of the {what} has edges that are not finite, or the wrong way round; x0 y0 x1 y1")
    return image, boxes, kinds


def _check_count(runs: Sequence[np.ndarray] | None, count: int, what: str) -> None:
    if runs is not None and len(runs) != count:
        raise UsageError(f"{count} {what} with {len(runs)} masks: one each")


def _check_runs(found: Found, truth: Truth) -> None:
    """Masks of one image have to be of one size: lengths of other images mean nothing to each other."""
    pixels: dict[int, int] = {}
    for one in (found, truth):
        for image, runs in zip(one.image.tolist(), one.runs or (), strict=True):
            counts = np.asarray(runs)
            total = int(counts.sum())
            if (counts < 0).any() or pixels.setdefault(image, total) != total:
                raise UsageError(f"image {image}: a mask of {total} pixels beside one of {pixels[image]}")


def _same_images(**lists: Sequence[object]) -> None:
    if len({len(one) for one in lists.values()}) > 1:
        told = ", ".join(f"{name} of {len(one)}" for name, one in lists.items())
        raise UsageError(f"{told} images: they have to be the same ones")


def _numbers(boxes: Sequence[np.ndarray]) -> Int64[np.ndarray, " n"]:
    return np.repeat(np.arange(len(boxes)), [len(np.reshape(one, (-1, 4))) for one in boxes])


def _rows(boxes: Sequence[np.ndarray]) -> Float64[np.ndarray, "n 4"]:
    return np.concatenate([np.empty((0, 4)), *(np.asarray(one, np.float64).reshape(-1, 4) for one in boxes)])


def _flat(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *(np.asarray(one, dtype).ravel() for one in parts)])
