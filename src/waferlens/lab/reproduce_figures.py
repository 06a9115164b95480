"""Figures of a detector as S2 tells them: precision and recall where F1 is best, and average precision, in percent.

Everything is judged on images that trained nothing, by bundles, on the way inspection goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, Int8

from waferlens.bundle.files import Bundle
from waferlens.bundle.package import PackageSession
from waferlens.errors import InputError
from waferlens.evaluate.average_precision import SIZES_PX2, Found, Matches, Truth, match
from waferlens.evaluate.detections import ANY, FoundHere, TrueHere
from waferlens.evaluate.intervals import cluster_draws
from waferlens.evaluate.package_seen import LEAST_SCORE, look_at
from waferlens.evaluate.package_truth import read_judged
from waferlens.formats.package_set import LIGHTS
from waferlens.formats.rle import counts_of
from waferlens.load.package import PACKAGE, Picture, read_pictures
from waferlens.ops.detection_matching import RIGHT, WRONG
from waferlens.prepare.package_findings import detected
from waferlens.prepare.package_geometry import box_around
from waferlens.prepare.package_truth import boxes_of, outline_points
from waferlens.prepare.roi_finders import Finder
from waferlens.records import Label

Keep = Callable[[str], bool]
"""Which groups of devices are judged."""
ROUNDS = 1000
"""Bootstrap rounds of the intervals, over groups of devices."""
BRIGHTFIELD = "bf"
"""The light S2 looked for packages in."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A share in percent, with its 95 % interval over devices where one is told."""

    value: float | None
    """None where nothing on the images could be found [%]"""
    interval: tuple[float, float] | None = None


@dataclass(slots=True)
class _Gathered:
    """What was found and what is true, image by image."""

    found: list[FoundHere] = field(default_factory=list)
    truth: list[TrueHere] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    found_runs: list[Int[np.ndarray, " _"]] = field(default_factory=list)
    true_runs: list[Int[np.ndarray, " _"]] = field(default_factory=list)


def defect_figures(bundle: Bundle, data: Path, keep: Keep, threads: int) -> dict[str, Figure]:
    """Of a detector of defects, on upright packages as inspection finds them.

    Args:
        bundle: Of the network.
        data: Images with truth.
        keep: Groups of devices to judge on.
        threads: Of the network.

    Raises:
        InputError: there is no such image.
    """
    session = PackageSession(bundle, threads)
    seen = look_at(session, bundle, read_judged(data, session, bundle, keep).images())
    found, truth = _joined(seen.found, seen.truth, len(seen.classes))
    matches = match(found, truth, len(seen.classes), sizes_px2={"all": SIZES_PX2["all"]}, most=(100,))
    precision, recall = best_f1(matches.named()[:, 0], found.scores, found.kinds, _counts(matches))
    return {"precision": Figure(precision), "recall": Figure(recall)} | _averages(matches, seen.groups)


def package_figures(bundle: Bundle, data: Path, keep: Keep, threads: int) -> dict[str, Figure]:
    """Of a detector of packages on whole images: of its boxes, and of its masks where it tells some."""
    session = PackageSession(bundle, threads)
    told = _Gathered()
    for picture in _pictures(data, session.lights, keep):
        pixels, white = picture.pixels()
        one = detected(session, [pixels], white=white, least=LEAST_SCORE)[0]
        labels = [label for label in picture.labels if label.kind == PACKAGE]
        boxes, left = boxes_of([one.placement.to_input(outline_points(label)) for label in labels], one.placement)
        _add(told, picture, one.in_input.boxes, one.in_input.scores, boxes[left])
        if one.in_input.masks is not None:
            told.found_runs += [counts_of(mask) for mask in one.in_input.masks]
            size = (session.width_px, session.height_px)
            for label, kept in zip(labels, left, strict=True):
                if kept:
                    mask = _whole(label, pixels.shape).astype(np.float32)
                    told.true_runs.append(counts_of(cv2.warpPerspective(mask, one.placement.matrix, size) > 0.5))
    return _of_packages(told, masks=session.tells_masks)


def finder_figures(finder: Finder, data: Path, keep: Keep) -> dict[str, Figure]:
    """Of a method without a network: the box around its outline, and the pixels inside."""
    told = _Gathered()
    for picture in _pictures(data, (BRIGHTFIELD,), keep):
        pixels, _ = picture.pixels()
        roi = finder.find(pixels, light=picture.light)
        labels = [label for label in picture.labels if label.kind == PACKAGE]
        quads = [roi.quad] if roi.found and roi.quad is not None else []
        boxes = np.array([box_around(quad) for quad in quads]).reshape(-1, 4)
        _add(told, picture, boxes, np.full(len(quads), roi.score), np.array([one.box for one in labels]).reshape(-1, 4))
        told.found_runs += [counts_of(inside(quad, pixels.shape)) for quad in quads]
        told.true_runs += [counts_of(_whole(one, pixels.shape)) for one in labels]
    return _of_packages(told, masks=True)


def best_f1(
    code: Int8[np.ndarray, " n"],
    scores: Float[np.ndarray, " n"],
    kinds: Int[np.ndarray, " n"],
    counts: Sequence[int],
) -> tuple[float | None, float | None]:
    """Precision and recall, means over the classes, at the one score where the mean of their F1 is best [%]

    The precision of a class in which nothing is found counts as 0.

    Args:
        code: What became of each detection, as `ops.detection_matching` names it; ignored ones do not count.
        scores: Of each.
        kinds: Class of each.
        counts: Truths of each class; classes without any are left out.
    """
    present = [kind for kind, count in enumerate(counts) if count]
    counted = (code == RIGHT) | (code == WRONG)
    if not present:
        return None, None
    levels = np.unique(scores[counted & np.isin(kinds, present)])
    if not len(levels):
        return 0.0, 0.0
    precision, recall = np.zeros((2, len(present), len(levels)))
    for row, kind in enumerate(present):
        mine = counted & (kinds == kind)
        right, every = (np.sort(scores[mine & chosen]) for chosen in (code == RIGHT, counted))
        hits, told = (len(one) - np.searchsorted(one, levels) for one in (right, every))
        precision[row] = np.divide(hits, told, out=np.zeros(len(levels)), where=told > 0)
        recall[row] = hits / counts[kind]
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0).mean(axis=0)
    best = int(f1.argmax())
    return 100 * float(precision[:, best].mean()), 100 * float(recall[:, best].mean())


def inside(quad: Float[np.ndarray, "4 2"], shape: Sequence[int]) -> Bool[np.ndarray, "h w"]:
    """Pixels whose middle lies in a convex outline.

    Args:
        quad: Corners, clockwise as seen [px]
        shape: Rows and columns of the image.
    """
    y, x = np.arange(shape[0])[:, None], np.arange(shape[1])
    mask = np.ones(tuple(shape[:2]), bool)
    for (x0, y0), (x1, y1) in zip(quad, np.roll(quad, -1, axis=0), strict=True):
        mask &= (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) >= 0
    return mask


def _pictures(data: Path, lights: Sequence[str], keep: Keep) -> list[Picture]:
    """Images of packages.

    Raises:
        InputError: there is none.
    """
    pictures = list(read_pictures(data, (PACKAGE,), [light for light in LIGHTS if light in lights], keep))
    if not pictures:
        raise InputError(data, "holds no image to judge on: no device of it is on the test side; use more, or --test")
    return pictures


def _add(told: _Gathered, picture: Picture, boxes: np.ndarray, scores: np.ndarray, true: np.ndarray) -> None:
    told.found.append(FoundHere(boxes, scores, np.zeros(len(boxes), np.int64)))
    told.truth.append(TrueHere(true, np.zeros(len(true), np.int64)))
    told.groups.append(picture.group)


def _of_packages(told: _Gathered, *, masks: bool) -> dict[str, Figure]:
    found, truth = _joined(told.found, told.truth, 1)
    only = {"all": SIZES_PX2["all"]}
    figures = _averages(match(found, truth, 1, sizes_px2=only, most=(100,)), told.groups)
    if masks:
        found = Found(found.image, found.boxes, found.scores, found.kinds, told.found_runs)
        truth = Truth(truth.image, truth.boxes, truth.kinds, runs=told.true_runs)
        masked = _averages(match(found, truth, 1, sizes_px2=only, most=(100,)), told.groups)
        figures |= {f"{name}_mask": figure for name, figure in masked.items()}
    return figures


def _joined(found: Sequence[FoundHere], truth: Sequence[TrueHere], classes: int) -> tuple[Found, Truth]:
    """Of all images in a row; what is ignored for all classes stands there once for each."""
    image, boxes, kinds, crowd = [], [], [], []
    for number, one in enumerate(truth):
        ignored = np.zeros(len(one.kinds), bool) if one.ignore is None else one.ignore
        for box, kind, ignore in zip(one.boxes, one.kinds, ignored, strict=True):
            for each in range(classes) if kind == ANY else (kind,):
                image.append(number)
                boxes.append(box)
                kinds.append(each)
                crowd.append(bool(ignore))
    true = Truth(
        np.array(image, np.int64),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(kinds, np.int64),
        crowd=np.array(crowd, bool),
    )
    told = Found(
        np.repeat(np.arange(len(found)), [len(one.scores) for one in found]),
        np.concatenate([np.zeros((0, 4)), *(one.boxes for one in found)]),
        np.concatenate([np.zeros(0), *(one.scores for one in found)]),
        np.concatenate([np.zeros(0, np.int64), *(one.kinds for one in found)]),
    )
    return told, true


def _averages(matches: Matches, groups: Sequence[str]) -> dict[str, Figure]:
    """Average precision with its interval: whole groups of devices drawn anew."""
    told = matches.average_precision()
    names, cluster = np.unique(np.array(groups), return_inverse=True)
    ends: list[tuple[float, float] | None] = [None, None]
    if len(names) > 1 and sum(_counts(matches)):
        draws = np.concatenate(list(cluster_draws(len(names), ROUNDS)))
        drawn = matches.drawn(cluster, draws)
        with_truth = drawn[:, :, ~np.isnan(drawn).all(axis=(0, 1))]
        ends = [_ends(with_truth[:, 0]), _ends(with_truth.mean(axis=1))]
    values = {"map50": told.ap(0.5), "map50_95": told.ap()}
    return {
        name: Figure(_percent(value), interval) for (name, value), interval in zip(values.items(), ends, strict=True)
    }


def _ends(drawn: Float[np.ndarray, "r k"]) -> tuple[float, float] | None:
    """Percentile interval of the mean over classes; None where the draws differ in nothing."""
    values = drawn[~np.isnan(drawn).any(axis=1)].mean(axis=1)  # a draw without a rare class tells another mean
    if not len(values) or values.max() - values.min() < 1e-12:
        return None
    low, high = 100 * np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _counts(matches: Matches) -> list[int]:
    return np.bincount(matches.truth.kinds[matches.counts[0]], minlength=matches.classes).tolist()


def _percent(share: float) -> float | None:
    return None if np.isnan(share) else 100 * float(share)


def _whole(label: Label, shape: Sequence[int]) -> Bool[np.ndarray, "h w"]:
    """A label's pixels in its image."""
    mask = np.zeros(tuple(shape[:2]), np.uint8)
    if label.mask is not None:
        x, y = label.mask_corner
        mask[y : y + label.mask.shape[0], x : x + label.mask.shape[1]] = label.mask
    elif label.polygons:
        for ring in label.polygons:
            cv2.fillPoly(mask, [np.round(np.array(ring)).astype(np.int32)], 1)
    else:
        quad = label.quad
        x0, y0, x1, y1 = label.box
        return inside(np.array(quad if quad is not None else [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]), shape)
    return mask.astype(bool)
