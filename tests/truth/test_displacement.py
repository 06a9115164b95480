"""A field of displacements is found where it is known, moves no defect away, and leaves alone what is not displaced."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waferlens.errors import UsageError
from waferlens.ops.displacement import Displacement, displaced, laid_by

SHAPE = (256, 320)
STILL = np.eye(2, 3)


def board(seed: int = 0, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Wires and pads, black on white, with soft edges."""
    rng = np.random.default_rng(seed)
    grey = np.full(shape, 255, np.uint8)
    h, w = shape
    for y in range(12, h - 8, 28):
        cv2.line(grey, (0, y), (w, y + int(rng.integers(-6, 7))), 0, 8)
    for x in range(20, w - 8, 44):
        cv2.circle(grey, (x, int(rng.integers(10, h - 10))), 10, 0, -1)
    return cv2.GaussianBlur(grey, (0, 0), 0.8).astype(np.float32)


def waves(amplitude_px: float, seed: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """A smooth field: a sine along x for dy, one along y for dx."""
    h, w = shape
    y, x = np.mgrid[:h, :w].astype(np.float32)
    a, b = np.random.default_rng(seed).uniform(0, 2 * np.pi, 2)
    return amplitude_px * np.stack((np.sin(2 * np.pi * y / 256 + a), np.sin(2 * np.pi * x / 320 + b))).astype(
        np.float32
    )


EVERYWHERE = np.ones(SHAPE, bool)


@given(st.floats(0.5, 3.0), st.integers(0, 50))
@settings(max_examples=10, deadline=None)
def test_a_smooth_field_is_found(amplitude, seed):
    reference, field = board(seed), waves(amplitude, seed)
    image = laid_by(reference, STILL, field)
    found = displaced(image, reference, EVERYWHERE, spacing_px=32).at(SHAPE)
    rest = np.abs(laid_by(reference, STILL, found) - image)[8:-8, 8:-8]
    before = np.abs(reference - image)[8:-8, 8:-8]
    assert rest.mean() < 0.2 * before.mean()
    # along an edge nothing tells how far it moved; across it, it is told to a fifth of a pixel
    edges = np.abs(np.gradient(reference)[0])[8:-8, 8:-8] > 60
    assert np.sqrt(np.mean(np.square(found - field)[1, 8:-8, 8:-8][edges])) < 0.2 + 0.1 * amplitude


def test_what_is_registered_stays():
    reference = board()
    noisy = reference + np.random.default_rng(0).normal(0, 10, SHAPE)
    found = displaced(noisy, reference, EVERYWHERE, spacing_px=64)
    assert np.abs(found.nodes).max() < 0.15


def test_brightness_and_type_do_not_matter():
    reference, field = board(), waves(2.0, 3)
    image = laid_by(reference, STILL, field)
    plain = displaced(image, reference, EVERYWHERE, spacing_px=48).nodes
    bright = displaced(image * 200 + 900, reference * 200 + 900, EVERYWHERE, spacing_px=48).nodes
    wide = displaced(np.round(image * 200).astype(np.uint16), reference * 200, EVERYWHERE, spacing_px=48).nodes
    np.testing.assert_allclose(bright, plain, atol=1e-3)
    np.testing.assert_allclose(wide, plain, atol=1e-2)


@pytest.mark.parametrize("seed", range(4))
def test_a_defect_is_not_moved_away(seed):
    """Bites out of a wire, spurs on it and a missing pad pull hardly: what deviates still does."""
    reference = board(seed)
    image, planted = reference.copy(), np.zeros(SHAPE, np.uint8)
    for x, y, grey in ((60, 40, 255), (150, 124, 255), (230, 180, 0), (280, 96, 0)):
        cv2.circle(planted, (x, y), 7, 1, -1)
        cv2.circle(image, (x, y), 7, grey, -1)
    before = np.abs(image - reference) > 127
    found = displaced(image, reference, EVERYWHERE, spacing_px=64)
    after = np.abs(image - laid_by(reference, STILL, found.at(SHAPE))) > 127
    assert np.abs(found.nodes).max() < 0.5
    assert (after & before).sum() > 0.95 * before.sum()
    assert (after & (planted == 0)).sum() < 20


def test_a_wider_wire_stays_wider():
    reference, image = (np.full(SHAPE, 255, np.float32) for _ in range(2))
    reference[100:120], image[97:123] = 0, 0
    field = displaced(image, reference, EVERYWHERE, spacing_px=64).at(SHAPE)
    assert np.abs(field[:, 90:130]).max() < 0.2
    assert (np.abs(image - laid_by(reference, STILL, field)) > 127).sum() == 6 * SHAPE[1]


def test_what_nobody_cares_for_does_not_pull():
    reference, care = board(), EVERYWHERE.copy()
    care[:, 160:] = False
    image = reference.copy()
    image[:, 168:] = np.roll(reference, 3, axis=0)[:, 168:]
    assert np.abs(displaced(image, reference, care, spacing_px=64).nodes[:, :3]).max() < 0.2


def test_it_goes_no_farther_than_it_may():
    reference = board()
    image = np.roll(reference, 5, axis=0)
    assert np.abs(displaced(image, reference, EVERYWHERE, spacing_px=64, max_px=1.5).nodes).max() <= 1.5 + 1e-6


@pytest.mark.parametrize("shape", [(16, 16), (33, 200), (640, 17)])
def test_any_shape(shape):
    reference = board(1, shape)
    found = displaced(reference, reference, np.ones(shape, bool), spacing_px=64)
    assert found.at(shape).shape == (2, *shape)
    assert np.abs(found.at(shape)).max() < 1e-3


def test_nothing_to_go_by():
    flat = np.full(SHAPE, 7, np.float32)
    assert not displaced(board(), flat, EVERYWHERE, spacing_px=64).nodes.any()
    assert not displaced(board(), board(1), ~EVERYWHERE, spacing_px=64).nodes.any()


def test_the_field_lies_between_its_nodes():
    nodes = np.zeros((2, 3, 2), np.float32)
    nodes[0, 1] = 4, 8
    field = Displacement(nodes, (10.0, 20.0)).at((21, 21))
    assert tuple(field[:, 0, 10]) == (4, 8)
    assert tuple(field[:, 10, 10]) == (2, 4)
    assert tuple(field[:, 10, 5]) == (1, 2)
    assert not field[:, 20].any()


def test_laid_by_a_matrix_is_a_warp():
    reference, matrix = board(), np.array([[0.99, 0.01, 2.5], [-0.01, 1.01, -1.25]])
    expected = cv2.warpAffine(
        reference, matrix, SHAPE[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    ours = laid_by(reference, matrix, np.zeros((2, *SHAPE), np.float32))
    assert np.abs(ours - expected).max() < 255 / 32 * 2  # OpenCV counts in steps of 1/32 px


@pytest.mark.parametrize(("asked", "reason"), [((4, None), "at least 8 px"), ((64, 0.0), "must be positive")])
def test_what_makes_no_sense(asked, reason):
    with pytest.raises(UsageError, match=reason):
        displaced(board(), board(), EVERYWHERE, spacing_px=asked[0], max_px=asked[1])
