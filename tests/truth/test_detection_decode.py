"""Decoding of detectors' heads: places and sizes worked out by hand, on the house's pixels."""

from __future__ import annotations

import math

import pytest
import torch

from waferlens.models.detection_decode import cells_of, decode_anchored, decode_free, flattened

ANCHORS = torch.tensor([[[10.0, 20.0], [30.0, 8.0]], [[64.0, 64.0], [80.0, 40.0]]])


def heads(*channels: int) -> list[torch.Tensor]:
    """Two strides of a picture of 32 x 48 px, all numbers 0."""
    return [torch.zeros(1, *channels[:-1], 32 // stride, 48 // stride, channels[-1]) for stride in (8, 16)]


def test_zero_is_the_anchor_in_the_middle_of_its_cell() -> None:
    boxes, scores = decode_anchored(heads(2, 7), (8, 16), ANCHORS, 2)
    assert boxes.shape == (1, 2 * (4 * 6 + 2 * 3), 4)
    # second stride, first anchor, row 1, column 2: its cell is 31.5..47.5 x 15.5..31.5
    at = 2 * 24 + 1 * 3 + 2
    assert boxes[0, at].tolist() == [39.5 - 32, 23.5 - 32, 39.5 + 32, 23.5 + 32]
    assert scores.shape == (1, 60, 2)
    assert torch.all(scores == 0.25)


def test_the_ends_of_the_sigmoids() -> None:
    raw = heads(2, 6)
    raw[0][0, 1, 2, 3, :4] = torch.tensor([50.0, -50.0, 50.0, -50.0])
    boxes, _ = decode_anchored(raw, (8, 16), ANCHORS, 1)
    x0, y0, x1, y1 = boxes[0, 24 + 2 * 6 + 3].tolist()
    assert (x0 + x1) / 2 == pytest.approx(3 * 8 + 1.5 * 8 - 0.5)
    assert (y0 + y1) / 2 == pytest.approx(2 * 8 - 0.5 * 8 - 0.5)
    assert x1 - x0 == pytest.approx(4 * 30)
    assert y1 - y0 == pytest.approx(0.0, abs=1e-5)


def test_distances_to_edges() -> None:
    raw = heads(5)
    wanted = (0.5, 1.0, 2.0, 3.0)  # left, top, right, bottom [stride]
    raw[1][0, 1, 0, :4] = torch.tensor([math.log(math.expm1(one)) for one in wanted])
    boxes, scores = decode_free(raw, (8, 16), 1)
    assert boxes[0, 24 + 3].tolist() == pytest.approx([7.5 - 8, 23.5 - 16, 7.5 + 32, 23.5 + 48], abs=1e-4)
    assert torch.all(scores == 0.5)


def test_predictions_are_numbered_as_they_are_laid_out() -> None:
    raw = heads(2, 6)
    for stride, head in zip((8, 16), raw, strict=True):
        for row in range(head.shape[2]):
            for column in range(head.shape[3]):
                head[:, :, row, column, 0] = stride * column
                head[:, :, row, column, 1] = stride * row
        for anchor in range(2):
            head[:, anchor, ..., 2:4] = ANCHORS[0 if stride == 8 else 1, anchor]
    flat, cells = flattened(raw)[0], cells_of(raw, (8, 16), ANCHORS)
    assert torch.equal(flat[:, :2] - 0.5, cells.corner)
    assert cells.anchor is not None
    assert torch.equal(flat[:, 2:4], cells.anchor)
    assert cells.stride.unique().tolist() == [8.0, 16.0]


def test_half_precision_is_decoded_in_full() -> None:
    raw = [head.bfloat16() for head in heads(2, 6)]
    assert decode_anchored(raw, (8, 16), ANCHORS, 1)[0].dtype == torch.float32
