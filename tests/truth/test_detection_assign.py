"""Who learns what: rules read as loops, box by box, beside the ones that take all images at once."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from waferlens.models.detection_decode import anchored_boxes, cells_of, flattened, free_boxes
from waferlens.recipe.package import DetectionLoss
from waferlens.train.detection_assign import (
    ALIGNED_MOST,
    Pairs,
    Truth,
    aligned,
    anchor_pairs,
    inside_pairs,
    of_cells,
    ota,
    ranks,
)
from waferlens.train.detection_boxes import iou, likeness

STRIDES = (8, 16, 32)
SIDE = 96
SHAPES = [(SIDE // stride, SIDE // stride) for stride in STRIDES]
ANCHORS = torch.tensor([[[10.0, 13.0], [16.0, 30.0]], [[30.0, 61.0], [62.0, 45.0]], [[116.0, 90.0], [156.0, 198.0]]])
ALIKE = partial(likeness, DetectionLoss())


def drawn(seed: int, images: int = 3, most: int = 4, smallest: float = 1.0) -> Truth:
    rng = np.random.default_rng(seed)
    boxes, classes = torch.zeros(images, most, 4), torch.zeros(images, most, dtype=torch.long)
    present = torch.zeros(images, most, dtype=torch.bool)
    for image in range(images):
        count = int(rng.integers(0, most + 1))
        low = rng.uniform(-0.5, SIDE - 12, (count, 2))
        sides = np.exp(rng.uniform(math.log(smallest), math.log(60), (count, 2)))
        boxes[image, :count] = torch.from_numpy(np.concatenate([low, np.minimum(low + sides, SIDE - 0.5)], axis=1))
        classes[image, :count] = torch.from_numpy(rng.integers(0, 2, count))
        present[image, :count] = True
    return Truth(boxes, classes, present)


def drawn_heads(seed: int, anchors: int) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    numbers = 7 if anchors else 6
    lead = (3, anchors) if anchors else (3,)
    return [torch.randn(*lead, h, w, numbers) for h, w in SHAPES]


def as_set(pairs: Pairs) -> list[tuple[int, int, int]]:
    return sorted(zip(*(part.tolist() for part in pairs), strict=True))


def slow_anchor_pairs(truth: Truth) -> list[tuple[int, int, int]]:
    found = []
    for image, number in truth.present.nonzero().tolist():
        x0, y0, x1, y1 = truth.boxes[image, number].double().tolist()
        before = 0
        for (h, w), stride, anchors in zip(SHAPES, STRIDES, ANCHORS.double().tolist(), strict=True):
            x, y = ((x0 + x1) / 2 + 0.5) / stride, ((y0 + y1) / 2 + 0.5) / stride
            column, row = math.floor(x), math.floor(y)
            beside = [(column, row)]
            beside.append((column - 1 if x - column < 0.5 else column + 1, row))
            beside.append((column, row - 1 if y - row < 0.5 else row + 1))
            for anchor, (width, height) in enumerate(anchors):
                ratios = ((x1 - x0) / width, (y1 - y0) / height)
                if max(max(ratio, 1 / ratio) for ratio in ratios) < 4:
                    found += [
                        (image, number, before + anchor * h * w + b * w + a)
                        for a, b in beside
                        if 0 <= a < w and 0 <= b < h
                    ]
            before += len(anchors) * h * w
    return sorted(found)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_anchors_of_like_sides_in_three_cells(seed: int) -> None:
    truth = drawn(seed)
    assert as_set(anchor_pairs(truth, SHAPES, STRIDES, ANCHORS)) == slow_anchor_pairs(truth)


def slow_ota(truth: Truth, flat: torch.Tensor, cells: object) -> list[tuple[int, int, int]]:
    """Box by box, after the steps of YOLOX: overlaps, cost, how many, which; then each prediction its cheapest box."""
    costs: dict[tuple[int, int], dict[int, float]] = {}
    for image, number, place in slow_anchor_pairs(truth):
        row = flat[image, place].double()
        told = anchored_boxes(row[None, :4].float(), of_cells(cells, torch.tensor([place])))  # type: ignore[arg-type]
        good = iou(told, truth.boxes[image, number][None]).item()
        share = torch.sqrt(row[4].sigmoid() * row[5:].sigmoid())
        wanted = torch.nn.functional.one_hot(truth.classes[image, number], 2).double()
        of_class = -(wanted * share.log() + (1 - wanted) * (1 - share).log()).sum().item()
        costs.setdefault((image, number), {})[place] = of_class - 3 * math.log(max(good, 1e-9))
        costs.setdefault((image, number, "good"), {})[place] = good  # type: ignore[call-overload]
    chosen: dict[tuple[int, int], tuple[float, int]] = {}
    for key in [key for key in costs if len(key) == 2]:
        image, number = key
        goods = sorted(costs[(image, number, "good")].values(), reverse=True)[:10]  # type: ignore[index]
        count = max(1, int(sum(goods)))
        for place, cost in sorted(costs[key].items(), key=lambda one: one[1])[:count]:
            if (image, place) not in chosen or cost < chosen[image, place][0]:
                chosen[image, place] = (cost, number)
    return sorted((image, number, place) for (image, place), (_, number) in chosen.items())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_simota_takes_the_cheapest(seed: int) -> None:
    truth, raw = drawn(seed), drawn_heads(seed, 2)
    flat, cells = flattened(raw), cells_of(raw, STRIDES, ANCHORS)
    pairs = ota(truth, anchor_pairs(truth, SHAPES, STRIDES, ANCHORS), flat, cells, 2, ALIKE)
    assert as_set(pairs) == slow_ota(truth, flat, cells)


def test_a_better_prediction_is_assigned_more() -> None:
    """Where ten predictions overlap fully a box gets ten, where none does it gets one."""
    truth = Truth(torch.tensor([[[24.0, 24, 54, 54]]]), torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1).bool())
    raw = [torch.zeros(1, 2, h, w, 7) for h, w in SHAPES]
    cells = cells_of(raw, STRIDES, ANCHORS)
    pairs = anchor_pairs(truth, SHAPES, STRIDES, ANCHORS)
    flat = flattened(raw).clone()
    assert cells.anchor is not None
    middle, side = torch.tensor([39.0, 39.0]), torch.tensor([30.0, 30.0])
    share = ((middle - cells.corner) / cells.stride + 0.5) / 2
    size = (side / cells.anchor).sqrt() / 2
    exact = torch.logit(torch.cat([share, size], dim=1).clamp(1e-6, 1 - 1e-6))
    flat[0, pairs.place[:10], :4] = exact[pairs.place[:10]]
    flat[0, pairs.place[10:], 2:4] = -20.0  # nothing overlaps there
    assert len(ota(truth, pairs, flat, cells, 2, ALIKE).place) in (9, 10)  # ten times nearly one
    flat[..., 2:4] = -20.0
    assert len(ota(truth, pairs, flat, cells, 2, ALIKE).place) == 1


def test_of_two_boxes_the_cheaper_gets_a_prediction() -> None:
    truth = Truth(
        torch.tensor([[[30.0, 30, 50, 50], [31, 31, 51, 51]]]),
        torch.zeros(1, 2, dtype=torch.long),
        torch.ones(1, 2).bool(),
    )
    raw = drawn_heads(4, 2)
    flat, cells = flattened(raw), cells_of(raw, STRIDES, ANCHORS)
    pairs = ota(truth, anchor_pairs(truth, SHAPES, STRIDES, ANCHORS), flat, cells, 2, ALIKE)
    assert len(set(pairs.place.tolist())) == len(pairs.place)


def slow_inside(truth: Truth) -> list[tuple[int, int, int]]:
    found = []
    for image, number in truth.present.nonzero().tolist():
        box = truth.boxes[image, number]
        before = 0
        for (h, w), stride in zip(SHAPES, STRIDES, strict=True):
            half = (box[2:] - box[:2]) / 2
            if stride == min(STRIDES):
                half = half.clamp(min=float(stride))
            middle = (box[:2] + box[2:]) / 2
            for row in range(h):
                for column in range(w):
                    centre = torch.tensor([stride * (column + 0.5) - 0.5, stride * (row + 0.5) - 0.5])
                    if ((centre - middle).abs() < half).all():
                        found.append((image, number, before + row * w + column))
            before += h * w
    return sorted(found)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31))
def test_cells_inside_boxes(seed: int) -> None:
    truth = drawn(seed, smallest=0.5)
    found = as_set(inside_pairs(truth, SHAPES, STRIDES))
    assert found == slow_inside(truth)
    assert {pair[:2] for pair in found} == {tuple(one) for one in truth.present.nonzero().tolist()}


def slow_aligned(truth: Truth, flat: torch.Tensor, cells: object) -> dict[tuple[int, int, int], float]:
    """Box by box after TOOD, in float64: the best thirteen, then each prediction its best box, then scaled scores."""
    best: dict[tuple[int, int], list[tuple[float, float, int]]] = {}
    for image, number, place in slow_inside(truth):
        row = flat[image, place].double()
        told = free_boxes(row[None, :4].float(), of_cells(cells, torch.tensor([place])))  # type: ignore[arg-type]
        good = max(iou(told, truth.boxes[image, number][None]).double().item(), 1e-9)
        score = row[4 + truth.classes[image, number]].sigmoid().item()
        best.setdefault((image, number), []).append((score * good**6, good, place))
    chosen: dict[tuple[int, int], tuple[float, float, int]] = {}
    for (image, number), listed in best.items():
        for alignment, good, place in sorted(listed, reverse=True)[:ALIGNED_MOST]:
            if (image, place) not in chosen or good > chosen[image, place][1]:
                chosen[image, place] = (alignment, good, number)
    told_of: dict[tuple[int, int, int], float] = {}
    for (image, place), (alignment, _, number) in chosen.items():
        mine = [one for (other, _), one in chosen.items() if other == image and one[2] == number]
        top, most = max(one[1] for one in mine), max(one[0] for one in mine)
        told_of[image, number, place] = alignment / most * top
    return told_of


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31))
def test_alignment_chooses_and_scores(seed: int) -> None:
    truth, raw = drawn(seed), drawn_heads(seed, 0)
    flat, cells = flattened(raw), cells_of(raw, STRIDES)
    pairs, quality = aligned(truth, flat, cells, SHAPES, STRIDES, ALIKE)
    wanted = slow_aligned(truth, flat, cells)
    found = dict(zip(zip(*(part.tolist() for part in pairs), strict=True), quality.tolist(), strict=True))
    assert found.keys() == wanted.keys()
    assert list(found.values()) == pytest.approx([wanted[key] for key in found], abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), max_size=30))
def test_ranks_in_groups(drawn_pairs: list[tuple[int, int]]) -> None:
    groups, values = (torch.tensor([one[part] for one in drawn_pairs], dtype=torch.long) for part in (0, 1))
    wanted = [
        sum(1 for b, (other, its) in enumerate(drawn_pairs) if other == group and (its, b) < (value, a))
        for a, (group, value) in enumerate(drawn_pairs)
    ]
    assert ranks(groups, values.float()).tolist() == wanted
