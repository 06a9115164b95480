"""Losses of detectors: figures worked out by hand, slow twins, and gradients that point the right way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from waferlens.ops.boxes import iou as pairwise_iou
from waferlens.recipe.package import DetectionLoss
from waferlens.train.detection_assign import Pairs, Truth
from waferlens.train.detection_boxes import box_error, complete_iou, iou, likeness, nwd
from waferlens.train.detection_losses import anchored_loss, free_loss, mask_error, trace_error

STRIDES = (8, 16, 32)
ANCHORS = torch.tensor([[[10.0, 13.0], [16.0, 30.0]], [[30.0, 61.0], [62.0, 45.0]], [[116.0, 90.0], [156.0, 198.0]]])


def boxes(count: int, seed: int, side: float = 96.0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, side * 0.7, (count, 2))
    return torch.from_numpy(np.concatenate([low, low + rng.uniform(2, side * 0.3, (count, 2))], axis=1)).float()


def test_iou_is_that_of_the_house() -> None:
    a, b = boxes(40, 1), boxes(40, 2)
    theirs = np.diagonal(pairwise_iou(a.double().numpy(), b.double().numpy()))
    assert iou(a.double(), b.double()).numpy() == pytest.approx(theirs, abs=1e-7)


def test_complete_iou_by_hand() -> None:
    a, b = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, 0, 15, 20]])
    # shared 50, union 250; centres 5 and 5 apart in a box of 15 x 20 around both; ratios 1 and 1/2
    v = 4 / math.pi**2 * (math.atan(0.5) - math.atan(1.0)) ** 2
    wanted = 0.2 - 50 / 625 - v**2 / (1 - 0.2 + v)
    assert complete_iou(a, b).item() == pytest.approx(wanted, abs=1e-6)
    assert complete_iou(b, b).item() == pytest.approx(1.0, abs=1e-5)
    # far apart it is below 0, and tells which way to go
    assert complete_iou(a, torch.tensor([[50.0, 50, 60, 60]])).item() < -0.4


def test_nwd_by_hand() -> None:
    a, b = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[3.0, 4, 13, 24]])
    assert nwd(a, b, 12.8).item() == pytest.approx(math.exp(-5 / 12.8))
    # the same centre, sides 10 and 22 against 10 and 20: standard deviations differ by 1
    assert nwd(torch.tensor([[0.0, -1, 10, 21]]), a, 12.8).item() == pytest.approx(math.exp(-1 / 12.8))
    assert nwd(a, a, 12.8).item() == pytest.approx(1.0, abs=1e-4)


def test_the_mixture_of_s2() -> None:
    a, b = boxes(20, 3), boxes(20, 4)
    spec, plain = DetectionLoss(box="ciou-nwd"), DetectionLoss()
    wanted = 0.5 * (1 - complete_iou(a, b)) + 0.5 * (1 - nwd(a, b, 12.8))
    assert torch.allclose(box_error(spec, a, b), wanted)
    assert torch.allclose(likeness(spec, a, b), 0.5 * iou(a, b) + 0.5 * nwd(a, b, 12.8))
    assert torch.allclose(box_error(plain, a, b), 1 - complete_iou(a, b))
    assert torch.allclose(likeness(plain, a, b), iou(a, b))


@pytest.mark.parametrize("kind", ["ciou", "ciou-nwd"])
def test_boxes_are_pulled_onto_each_other(kind: str) -> None:
    spec, true = DetectionLoss(box=kind), boxes(12, 5)  # type: ignore[arg-type]
    told = torch.nn.Parameter(boxes(12, 6))
    before = box_error(spec, told, true).sum().item()
    optimizer = torch.optim.Adam([told], 1.0)
    for _ in range(250):
        optimizer.zero_grad()
        box_error(spec, told, true).sum().backward()
        assert torch.isfinite(told.grad).all()  # type: ignore[arg-type]
        optimizer.step()
    assert box_error(spec, told, true).sum().item() < 0.15 * before


def test_equal_boxes_have_finite_gradients() -> None:
    true = boxes(5, 7)
    told = true.clone().requires_grad_()
    box_error(DetectionLoss(box="ciou-nwd"), told, true).sum().backward()
    assert torch.isfinite(told.grad).all()  # type: ignore[arg-type]


def batch(counts: tuple[int, ...], side: int, seed: int = 8) -> Truth:
    most = max(*counts, 1)
    all_boxes, classes = torch.zeros(len(counts), most, 4), torch.zeros(len(counts), most, dtype=torch.long)
    present = torch.zeros(len(counts), most, dtype=torch.bool)
    for image, count in enumerate(counts):
        all_boxes[image, :count] = boxes(count, seed + image, float(side))
        classes[image, :count] = torch.arange(count) % 2
        present[image, :count] = True
    return Truth(all_boxes, classes, present)


def heads(kind: str, side: int, seed: int = 9, more: int = 0) -> list[torch.nn.Parameter]:
    torch.manual_seed(seed)
    made = []
    for stride in STRIDES:
        shape = (
            (3, 2, side // stride, side // stride, 7 + more)
            if kind == "anchored"
            else (3, side // stride, side // stride, 6)
        )
        raw = 0.3 * torch.randn(shape)
        raw[..., 4:] -= 2.0
        made.append(torch.nn.Parameter(raw))
    return made


@pytest.mark.parametrize("assign", ["ota", "anchor"])
@pytest.mark.parametrize("box", ["ciou", "ciou-nwd"])
def test_anchored_heads_learn_by_their_loss(assign: str, box: str) -> None:
    spec = DetectionLoss(assign=assign, box=box)  # type: ignore[arg-type]
    raw, truth = heads("anchored", 96), batch((2, 0, 3), 96)
    optimizer = torch.optim.Adam(raw, 0.1)
    losses = []
    for _ in range(120):
        optimizer.zero_grad()
        loss, terms = anchored_loss(spec, raw, truth, STRIDES, ANCHORS, 2)
        loss.backward()
        optimizer.step()
        losses.append({name: term.item() for name, term in terms.items()})
    assert losses[-1]["boxes"] < 0.3 * losses[0]["boxes"]
    # without simOTA one prediction may have to learn two boxes of two classes
    assert losses[-1]["classes"] < (0.1 if assign == "ota" else 0.2) * losses[0]["classes"]
    assert losses[-1]["objects"] < 0.5 * losses[0]["objects"]
    assert loss.item() == pytest.approx(3 * sum(losses[-1].values()), rel=1e-5)


@pytest.mark.parametrize("kind", ["bce", "quality-focal"])
def test_heads_without_anchors_learn_by_their_loss(kind: str) -> None:
    spec = DetectionLoss(assign="aligned", class_kind=kind, box_weight=2.0, class_weight=1.0)  # type: ignore[arg-type]
    raw, truth = heads("free", 96), batch((2, 0, 3), 96)
    optimizer = torch.optim.Adam(raw, 0.1)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss, terms = free_loss(spec, raw, truth, STRIDES, 2)
        loss.backward()
        optimizer.step()
        losses.append({name: term.item() for name, term in terms.items()})
    assert losses[-1]["boxes"] < 0.3 * max(one["boxes"] for one in losses)
    assert losses[-1]["classes"] < 0.3 * losses[0]["classes"]
    assert loss.item() == pytest.approx(sum(losses[-1].values()), rel=1e-5)


def test_every_box_weighs_alike_without_anchors() -> None:
    """A box of 100 times the area, or one that hardly overlaps, does not take the boxes' gradient for itself."""
    true = torch.tensor([[[10.0, 10, 13, 12], [20, 20, 80, 80]]])
    truth = Truth(true, torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2).bool())
    spec = DetectionLoss(assign="aligned", box_weight=1.0, class_weight=0.0)
    raw = [torch.zeros(1, 96 // stride, 96 // stride, 6) for stride in STRIDES]
    both, _ = free_loss(spec, raw, truth, STRIDES, 2)
    alone = [
        free_loss(spec, raw, Truth(true[:, [one]], truth.classes[:, :1], truth.present[:, :1]), STRIDES, 2)[0]
        for one in (0, 1)
    ]
    assert both.item() == pytest.approx(sum(one.item() for one in alone) / 2, rel=1e-5)


@pytest.mark.parametrize("kind", ["anchored", "free"])
def test_images_without_objects_teach_that_there_is_nothing(kind: str) -> None:
    raw, nothing = heads(kind, 96), batch((0, 0, 0), 96)
    if kind == "anchored":
        loss, terms = anchored_loss(DetectionLoss(), raw, nothing, STRIDES, ANCHORS, 2)
    else:
        loss, terms = free_loss(DetectionLoss(assign="aligned"), raw, nothing, STRIDES, 2)
    loss.backward()
    assert terms["boxes"].item() == 0.0
    for head in raw:
        assert torch.all(head.grad[..., 4 if kind == "anchored" else slice(4, None)] > 0)  # type: ignore[index]
        assert torch.all(head.grad[..., :4] == 0)  # type: ignore[index]


def test_objectness_is_balanced_between_strides() -> None:
    """Without objects, each stride weighs by its balance whatever its number of cells."""
    raw = [torch.full((2, 2, 96 // stride, 96 // stride, 7), -1.0) for stride in STRIDES]
    _, terms = anchored_loss(DetectionLoss(), raw, batch((0, 0), 96), STRIDES, ANCHORS, 2)
    assert terms["objects"].item() == pytest.approx((4.0 + 1.0 + 0.4) * math.log1p(math.exp(-1)), rel=1e-5)


def slow_mask_error(
    pairs: Pairs, coefficients: torch.Tensor, truth: Truth, prototypes: torch.Tensor, numbers: torch.Tensor
) -> float:
    total = 0.0
    for row in range(len(pairs.image)):
        image, number = int(pairs.image[row]), int(pairs.object[row])
        logits = torch.einsum("m,mpq->pq", coefficients[row], prototypes[image])
        x0, y0, x1, y1 = truth.boxes[image, number].tolist()
        errors = []
        for p in range(logits.shape[0]):
            for q in range(logits.shape[1]):
                x, y = 4 * (q + 0.5) - 0.5, 4 * (p + 0.5) - 0.5
                if x0 <= x < x1 and y0 <= y < y1:
                    share = torch.sigmoid(logits[p, q]).item()
                    errors.append(-math.log(share if numbers[image, p, q] == number + 1 else 1 - share))
        total += sum(errors) / max(1, len(errors))
    return total / len(pairs.image)


def test_masks_are_mixed_of_prototypes_inside_their_boxes() -> None:
    torch.manual_seed(10)
    truth = batch((2, 1, 3), 64)
    pairs = Pairs(torch.tensor([2, 0, 0, 2, 1, 2]), torch.tensor([1, 0, 1, 2, 0, 1]), torch.tensor([0, 1, 2, 3, 4, 5]))
    coefficients, prototypes = torch.randn(6, 4), torch.randn(3, 4, 16, 16)
    numbers = torch.randint(0, 4, (3, 16, 16), dtype=torch.uint8)
    ours = mask_error(pairs, coefficients, truth, prototypes, numbers, 4.0).item()
    assert ours == pytest.approx(slow_mask_error(pairs, coefficients, truth, prototypes, numbers), rel=1e-4)


def test_masks_are_learned_beside_boxes() -> None:
    torch.manual_seed(11)
    truth = batch((1, 0, 2), 96)
    raw, prototypes = heads("anchored", 96, more=4), torch.nn.Parameter(torch.randn(3, 4, 24, 24))
    numbers = torch.zeros(3, 24, 24, dtype=torch.uint8)
    for image, number in ((0, 0), (2, 0), (2, 1)):
        x0, y0, x1, y1 = ((truth.boxes[image, number] + 0.5) / 4).round().int().tolist()
        numbers[image, y0 : (y0 + y1 + 1) // 2, x0:x1] = number + 1
    spec = DetectionLoss(mask_weight=1.0)
    optimizer = torch.optim.Adam([*raw, prototypes], 0.1)
    told = []
    for _ in range(60):
        optimizer.zero_grad()
        loss, terms = anchored_loss(spec, raw, truth, STRIDES, ANCHORS, 2, (prototypes, numbers))
        loss.backward()
        optimizer.step()
        told.append(terms["masks"].item())
    assert told[-1] < 0.2 * told[0]


def test_traces_by_hand() -> None:
    """Two cells touched by an object of the second class, the other two by none: focal cross-entropy a touched cell."""
    truth = Truth(torch.zeros(1, 1, 4), torch.tensor([[1]]), torch.tensor([[True]]))
    numbers = torch.tensor([[[1, 1], [0, 0]]], dtype=torch.uint8)
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 0, 0, 1], logits[0, 1, 1, 0] = 3.0, -2.0
    half = 0.25 * math.log(2)  # a logit of 0, whichever is right

    def of(logit: float) -> float:
        share = 1 / (1 + math.exp(-logit))
        return (1 - share) ** 2 * -math.log(share)

    wanted = (6 * half + of(3.0) + of(2.0)) / 2
    assert trace_error(logits, numbers, truth).item() == pytest.approx(wanted, rel=1e-5)
    nothing = trace_error(logits, torch.zeros_like(numbers), truth)
    assert torch.isfinite(nothing)


def test_traces_are_learned_beside_boxes() -> None:
    torch.manual_seed(3)
    spec = DetectionLoss(assign="aligned", mask_weight=1.0)
    truth = batch((2, 1, 0), 96)
    numbers = torch.zeros(3, 24, 24, dtype=torch.uint8)
    numbers[0, 3:9, 5], numbers[1, 7, 2:20] = 2, 1
    traces = torch.nn.Parameter(torch.zeros(3, 24, 24, 2))
    raw = heads("free", 96)
    optimizer = torch.optim.Adam([*raw, traces], lr=0.1)
    told = []
    for _ in range(60):
        optimizer.zero_grad()
        loss, terms = free_loss(spec, raw, truth, STRIDES, 2, (traces, numbers))
        loss.backward()
        optimizer.step()
        told.append(terms["traces"].item())
    kinds = truth.classes
    for image in range(2):
        for number in range(1, kinds.shape[1] + 1):
            there = numbers[image] == number
            if there.any():
                assert (traces[image][there][:, kinds[image, number - 1]] > 1).all()
    assert (traces[numbers == 0] < -1).all()
    assert told[-1] < 0.02 * told[0]
