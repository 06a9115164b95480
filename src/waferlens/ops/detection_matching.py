"""Which detection is which truth, in the manner of COCO, for thousands of images at once; and precision over recall.

Within an image and a class the detection with the highest score chooses first. It takes the free truth that it overlaps
most, and of those that it overlaps equally the last; a truth that counts goes before one that is ignored, however much
more the latter is overlapped. A crowd is ignored, may be taken by any number of detections, and is overlapped by the
share of the detection that lies in it. A detection that takes what is ignored counts neither as right nor as wrong, nor
does one that takes nothing and is itself of another size than asked for.

Detections stand in two orders here: *grouped* (class, image, falling score), in which they are matched, and *ranked*
(class, falling score), in which they are counted. Every operation on floating-point numbers is the one of the reference
implementation, so that results are equal to the last bit.

Sources: Lin et al., "Microsoft COCO: common objects in context", ECCV 2014; Everingham et al., Int. J. Comput. Vis. 88
(2010) 303 (interpolated precision).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int64
from numba import njit

WRONG, RIGHT, IGNORED = 0, 1, 2
"""What becomes of a detection."""
SURE = 1 - 1e-10
"""A threshold of 1 would be missed by rounding."""
TINY = float(np.spacing(1.0))
"""Keeps nothing of nothing from being divided."""


class Order(NamedTuple):
    """The two orders of detections."""

    grouped: Int64[np.ndarray, " n"]
    """Places of the detections, by class, image and falling score."""
    slot: Int64[np.ndarray, " n"]
    """Of each grouped detection the place in the ranking of its class, classes one after another."""
    rank: Int64[np.ndarray, " n"]
    """Of each grouped detection how many of its image and class have a higher score."""
    first: Int64[np.ndarray, " k1"]
    """Where each class begins in both orders, and the end."""


def ordered(
    image: Int64[np.ndarray, " n"], kind: Int64[np.ndarray, " n"], score: Float64[np.ndarray, " n"], classes: int
) -> Order:
    """Sorts detections; among equal scores the earlier image comes first, then the one that was named first."""
    images = int(image.max()) + 1 if len(image) else 0
    falling = np.argsort(-score, kind="stable")
    if len(image) and (np.diff(image) < 0).any():  # ties go by image: sort those first
        by_image = _counted(np.arange(len(image)), image, images)
        falling = by_image[np.argsort(-score[by_image], kind="stable")]
    ranked = _counted(falling, kind, classes)
    grouped = _counted(_counted(falling, image, images), kind, classes)
    first = np.zeros(classes + 1, np.int64)
    np.cumsum(np.bincount(kind, minlength=classes), out=first[1:])
    slot, rank = _slots_and_ranks(grouped, ranked, image, kind)
    return Order(grouped, slot, rank, first)


@njit(nogil=True, cache=True)
def _counted(order, key, bins):  # type: ignore[no-untyped-def]
    """The same order, sorted by a small whole number; stable."""
    start = np.zeros(bins + 1, np.int64)
    for one in order:  # how many there are of each, one place further on
        start[key[one] + 1] += 1
    for place in range(bins):
        start[place + 1] += start[place]
    out = np.empty(len(order), np.int64)
    for one in order:
        out[start[key[one]]] = one
        start[key[one]] += 1
    return out


@njit(nogil=True, cache=True)
def _slots_and_ranks(grouped, ranked, image, kind):  # type: ignore[no-untyped-def]
    at = np.empty(len(ranked), np.int64)
    for slot, one in enumerate(ranked):
        at[one] = slot
    slot, rank = np.empty(len(grouped), np.int64), np.zeros(len(grouped), np.int64)
    for place, one in enumerate(grouped):
        slot[place] = at[one]
        if place:
            before = grouped[place - 1]
            if image[before] == image[one] and kind[before] == kind[one]:
                rank[place] = rank[place - 1] + 1
    return slot, rank


@njit(nogil=True, cache=True)
def groups(found_key, true_key, most):  # type: ignore[no-untyped-def]
    """Ranges of detections and of truths that share a key, both sorted; a row each with where its overlaps begin.

    Of the detections of a key the first `most` are told.
    """
    count = 0
    for place in range(len(found_key)):
        if place == 0 or found_key[place] != found_key[place - 1]:
            count += 1
    rows = np.empty((count, 5), np.int64)
    begin = truth = row = overlaps = 0
    while begin < len(found_key):
        end = begin
        while end < len(found_key) and found_key[end] == found_key[begin]:
            end += 1
        while truth < len(true_key) and true_key[truth] < found_key[begin]:
            truth += 1
        last = truth
        while last < len(true_key) and true_key[last] == found_key[begin]:
            last += 1
        kept = min(end, begin + most)
        rows[row, 0], rows[row, 1], rows[row, 2], rows[row, 3], rows[row, 4] = begin, kept, truth, last, overlaps
        overlaps += (kept - begin) * (last - truth)
        begin, truth, row = end, last, row + 1
    return rows, overlaps


@njit(nogil=True, cache=True, error_model="numpy")
def box_overlaps(rows, total, found, truth, crowd):  # type: ignore[no-untyped-def]
    """Intersection over union of the boxes of each group; over the detection's own area where the truth is a crowd."""
    out = np.zeros(total)
    for row in range(len(rows)):
        begin, end, first, last, at = rows[row]
        for one in range(begin, end):
            x0, y0, x1, y1 = found[one]
            w, h = x1 - x0, y1 - y0
            for other in range(first, last):
                a0, b0, a1, b1 = truth[other]
                v, u = a1 - a0, b1 - b0
                # far edges from the widths again, as they stand in a file: the same rounding
                shared_w = min(w + x0, v + a0) - max(x0, a0)
                shared_h = min(h + y0, u + b0) - max(y0, b0)
                if shared_w > 0 and shared_h > 0:
                    shared = shared_w * shared_h
                    out[at] = shared / (w * h if crowd[other] else w * h + v * u - shared)
                at += 1
    return out


@njit(nogil=True, cache=True)
def mask_overlaps(rows, total, found, found_at, truth, true_at, crowd):  # type: ignore[no-untyped-def]
    """The same of masks as run lengths: all counts in a row, and where those of each mask begin."""
    out = np.zeros(total)
    for row in range(len(rows)):
        begin, end, first, last, at = rows[row]
        for one in range(begin, end):
            runs = found[found_at[one] : found_at[one + 1]]
            area = 0
            for place in range(1, len(runs), 2):
                area += runs[place]
            for other in range(first, last):
                shared, union = _shared(runs, truth[true_at[other] : true_at[other + 1]])
                if shared:
                    out[at] = shared / (area if crowd[other] else union)
                at += 1
    return out


@njit(nogil=True, cache=True)
def _shared(a, b):  # type: ignore[no-untyped-def]
    """Pixels of both of two masks, and of either."""
    both = either = 0
    i = j = 0
    left_a = a[0] if len(a) else 0
    left_b = b[0] if len(b) else 0
    while i < len(a) and j < len(b):
        step = min(left_a, left_b)
        in_a, in_b = i % 2 == 1, j % 2 == 1
        if in_a and in_b:
            both += step
        if in_a or in_b:
            either += step
        left_a -= step
        left_b -= step
        if left_a == 0:
            i += 1
            left_a = a[i] if i < len(a) else 0
        if left_b == 0:
            j += 1
            left_b = b[j] if j < len(b) else 0
    return both, either


@njit(nogil=True, cache=True)
def matched(rows, overlap, ignored, crowd, outside, thresholds, order_slot):  # type: ignore[no-untyped-def]
    """What becomes of every detection, for each size and threshold.

    Args:
        rows: As `groups` tells them.
        overlap: All overlaps, group by group, a detection's own together.
        ignored: Sizes by truths: whether a truth is ignored for a size.
        crowd: Whether a truth is a crowd.
        outside: Sizes by grouped detections: whether a detection is of another size.
        thresholds: Least overlaps.
        order_slot: Places of the grouped detections in the result.

    Returns:
        Ranked detections by sizes by thresholds: WRONG, RIGHT or IGNORED; and sizes by thresholds by truths: whether
        one was taken.
    """
    sizes, many = len(ignored), len(thresholds)
    code = np.zeros((len(order_slot), sizes, many), np.int8)
    got = np.zeros((sizes, many, ignored.shape[1]), np.bool_)
    most = 0
    for row in range(len(rows)):
        most = max(most, rows[row, 3] - rows[row, 2])
    order, taken = np.empty(most, np.int64), np.empty(most, np.bool_)
    for row in range(len(rows)):
        begin, end, first, last, at = rows[row]
        count = last - first
        for size in range(sizes):
            if count == 0:
                for one in range(begin, end):
                    if outside[size, one]:
                        code[order_slot[one], size, :] = IGNORED
                continue
            place = 0
            for ignore in (False, True):  # those that count go first
                for truth in range(count):
                    if ignored[size, first + truth] == ignore:
                        order[place] = truth
                        place += 1
            for t in range(many):
                taken[:count] = False
                for one in range(begin, end):
                    best, chosen = min(thresholds[t], SURE), -1
                    base = at + (one - begin) * count
                    for place in range(count):
                        truth = order[place]
                        if taken[truth] and not crowd[first + truth]:
                            continue
                        if chosen > -1 and ignored[size, first + truth] and not ignored[size, first + chosen]:
                            break
                        if overlap[base + truth] < best:
                            continue
                        best, chosen = overlap[base + truth], truth
                    if chosen > -1:
                        taken[chosen] = got[size, t, first + chosen] = True
                        code[order_slot[one], size, t] = IGNORED if ignored[size, first + chosen] else RIGHT
                    elif outside[size, one]:
                        code[order_slot[one], size, t] = IGNORED
    return code, got


@njit(nogil=True, cache=True, error_model="numpy")
def precision_over_recall(code, rank, score, first, positives, recalls, most):  # type: ignore[no-untyped-def]
    """Interpolated precision at each recall, the recall reached, and the score there; NaN where there is no truth.

    Args:
        code: Of ranked detections by sizes by thresholds, as `matched` tells it.
        rank: How many of its image and class stand before each ranked detection.
        score: Of the ranked detections.
        first: Where each class begins, and the end.
        positives: Classes by sizes: truths that count.
        recalls: At which precision is asked for, rising.
        most: Detections an image and class that are looked at, rising.

    Returns:
        Precision and score (thresholds by recalls by classes by sizes by most), and recall without the second.
    """
    classes, sizes = positives.shape
    many, cuts = code.shape[2], len(most)
    precision = np.full((many, len(recalls), classes, sizes, cuts), np.nan)
    reached = np.full((many, classes, sizes, cuts), np.nan)
    scores = np.full((many, len(recalls), classes, sizes, cuts), np.nan)
    right, wrong = np.empty((cuts, many), np.int64), np.empty((cuts, many), np.int64)
    for kind in range(classes):
        begin, end = first[kind], first[kind + 1]
        for size in range(sizes):
            whole = positives[kind, size]
            if whole == 0:
                continue
            # of every right detection the precision down to it, and its score; no curve has more of them than truths
            level = np.empty((cuts, many, min(whole, end - begin)))
            mark = np.empty((cuts, many, min(whole, end - begin)))
            right[:], wrong[:] = 0, 0
            top = np.full(cuts, np.nan)
            for slot in range(begin, end):
                for cut in range(cuts - 1, -1, -1):
                    if rank[slot] >= most[cut]:
                        break
                    if np.isnan(top[cut]):
                        top[cut] = score[slot]
                    for t in range(many):
                        if code[slot, size, t] == RIGHT:
                            n = right[cut, t]
                            right[cut, t] = n + 1
                            level[cut, t, n] = (n + 1) / (wrong[cut, t] + (n + 1) + TINY)
                            mark[cut, t, n] = score[slot]
                        elif code[slot, size, t] == WRONG:
                            wrong[cut, t] += 1
            for cut in range(cuts):
                for t in range(many):
                    n = right[cut, t]
                    reached[t, kind, size, cut] = n / whole
                    for place in range(n - 2, -1, -1):  # what is reached further on is reached here too
                        level[cut, t, place] = max(level[cut, t, place], level[cut, t, place + 1])
                    place = 0
                    for r in range(len(recalls)):
                        while place < n and (place + 1) / whole < recalls[r]:
                            place += 1
                        if recalls[r] <= 0:  # asked of all detections, the first of which need not be right
                            precision[t, r, kind, size, cut] = level[cut, t, 0] if n else 0.0
                            scores[t, r, kind, size, cut] = 0.0 if np.isnan(top[cut]) else top[cut]
                        elif place < n:
                            precision[t, r, kind, size, cut] = level[cut, t, place]
                            scores[t, r, kind, size, cut] = mark[cut, t, place]
                        else:
                            precision[t, r, kind, size, cut] = 0.0
                            scores[t, r, kind, size, cut] = 0.0
    return precision, reached, scores


@njit(nogil=True, cache=True, error_model="numpy")
def weighted_average(code, cluster, first, true_cluster, true_first, weight, recalls):  # type: ignore[no-untyped-def]
    """Average precision of each draw, threshold and class, where clusters of images come as often as a draw says.

    A detection that comes twice stands twice in a row, so precision and recall are those of the images laid side by
    side.

    Args:
        code: Of ranked detections by thresholds.
        cluster: Of the ranked detections.
        first: Where each class begins among them, and the end.
        true_cluster: Of the truths that count, sorted by class.
        true_first: Where each class begins among those, and the end.
        weight: Draws by clusters: how often each comes.
        recalls: At which precision is asked for, rising.

    Returns:
        Draws by thresholds by classes; NaN where a draw has no truth of a class.
    """
    classes, many = len(first) - 1, code.shape[1]
    out = np.full((len(weight), many, classes), np.nan)
    for kind in range(classes):
        begin, end = first[kind], first[kind + 1]
        level = np.empty(max(end - begin, 1))
        down_to = np.empty(max(end - begin, 1), np.int64)
        for draw in range(len(weight)):
            whole = np.int64(0)
            for truth in range(true_first[kind], true_first[kind + 1]):
                whole += weight[draw, true_cluster[truth]]
            if whole == 0:
                continue
            for t in range(many):
                right = wrong = np.int64(0)
                n = 0
                for slot in range(begin, end):
                    times = weight[draw, cluster[slot]]
                    if times == 0:
                        continue
                    if code[slot, t] == RIGHT:
                        right += times
                        level[n] = right / (wrong + right + TINY)
                        down_to[n] = right
                        n += 1
                    elif code[slot, t] == WRONG:
                        wrong += times
                for place in range(n - 2, -1, -1):
                    level[place] = max(level[place], level[place + 1])
                total, place = 0.0, 0
                for r in range(len(recalls)):
                    while place < n and down_to[place] / whole < recalls[r]:
                        place += 1
                    if place < n:
                        total += level[place]
                out[draw, t, kind] = total / len(recalls)
    return out


@njit(nogil=True, cache=True, error_model="numpy")
def nearest(rows, found, kind, truth, true_kind):  # type: ignore[no-untyped-def]
    """For each detection the truth of its class, and that of another class, that it overlaps most.

    Args:
        rows: As `groups` tells them, of images.
        found: Boxes by image.
        kind: Their classes.
        truth: Boxes by image.
        true_kind: Their classes.

    Returns:
        Detections by own and other class: overlaps, 0 where there is none, and places of the truths, then -1.
    """
    overlap, which = np.zeros((len(found), 2)), np.full((len(found), 2), -1)
    for row in range(len(rows)):
        begin, end, first, last, _ = rows[row]
        for one in range(begin, end):
            for other in range(first, last):
                shared = _box_overlap(found[one], truth[other])
                column = 0 if kind[one] == true_kind[other] else 1
                if shared > overlap[one, column]:
                    overlap[one, column], which[one, column] = shared, other
    return overlap, which


@njit(nogil=True, cache=True, error_model="numpy")
def loudest(rows, found, kind, score, truth, true_kind, least):  # type: ignore[no-untyped-def]
    """For each truth the highest score of a detection of its class that overlaps it enough; minus infinity if none."""
    level = np.full(len(truth), -np.inf)
    for row in range(len(rows)):
        begin, end, first, last, _ = rows[row]
        for one in range(begin, end):
            for other in range(first, last):
                if (
                    kind[one] == true_kind[other]
                    and score[one] > level[other]
                    and _box_overlap(found[one], truth[other]) >= least
                ):
                    level[other] = score[one]
    return level


@njit(nogil=True, cache=True, error_model="numpy")
def _box_overlap(a, b):  # type: ignore[no-untyped-def]
    shared_w, shared_h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if shared_w <= 0 or shared_h <= 0:
        return 0.0
    shared = shared_w * shared_h
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def within(area: Float64[np.ndarray, " n"], sizes: Float64[np.ndarray, "a 2"]) -> Bool[np.ndarray, "a n"]:
    """Whether an area lies in each range, its ends included."""
    return (area[None] >= sizes[:, :1]) & (area[None] <= sizes[:, 1:])


def as_named(order: Order, code: Int8[np.ndarray, "n a t"]) -> Int8[np.ndarray, "n a t"]:
    """Codes of ranked detections in the order in which the detections were handed in."""
    out = np.empty_like(code)
    out[order.grouped] = code[order.slot]
    return out
