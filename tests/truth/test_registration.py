"""Images moved by a known amount are found where they were put, and what cannot be found is refused, not guessed."""

import cv2
import numpy as np
import pytest
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped

from waferlens.errors import UsageError
from waferlens.ops import registration
from waferlens.ops.registration import MOTIONS, Registration, register, warped
from waferlens.ops.registration_pyramid import from_level, onto_level, turn

SIZE = 256
MARGIN = 80


def scene(size: int, seed: int) -> np.ndarray:
    """Rectangles of many sizes and contrasts on a soft ground, as float32 grey of 8 bits."""
    rng = np.random.default_rng(seed)
    pixels = np.full((size, size), 90, np.float32)
    for _ in range(size // 3):
        x, y = rng.integers(0, size, 2)
        w, h = rng.integers(4, size // 6, 2)
        pixels[y : y + h, x : x + w] += rng.normal(0, 25)
    return np.clip(cv2.GaussianBlur(pixels, (0, 0), 1.2), 10, 240)


def moved(matrix: np.ndarray, seed: int = 0, size: int = SIZE, sigma: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """An image, uint8, and its reference: what the image shows at p the reference shows at matrix p."""
    rng = np.random.default_rng(seed + 1000)
    large = scene(size + 2 * MARGIN, seed)
    into = matrix.copy()
    into[:, 2] += MARGIN
    image = cv2.warpAffine(large, into, (size, size), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
    reference = large[MARGIN:-MARGIN, MARGIN:-MARGIN]
    both = [p + rng.normal(0, sigma, p.shape) for p in (image, reference)]
    return tuple(np.clip(np.rint(p), 0, 255).astype(np.uint8) for p in both)


def field_error(found: Registration, truth: np.ndarray) -> float:
    """Root mean square over the field of the distance between where points are found and where they are [px]"""
    h, w = found.shape
    y, x = np.mgrid[:h:8, :w:8]
    points = np.stack((x.ravel(), y.ravel(), np.ones(x.size)))
    return float(np.sqrt(np.square((found.matrix - truth) @ points).sum(axis=0).mean()))


def motion_matrix(motion: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    angle = 0.0 if motion in ("none", "shift") else rng.uniform(-3, 3)
    matrix = turn(angle, (SIZE, SIZE), (SIZE, SIZE))
    centre = np.array([0.5 * (SIZE - 1)] * 2)
    stretch = np.eye(2)
    if motion == "similarity":
        stretch = np.eye(2) * rng.uniform(0.98, 1.02)
    if motion == "affine":
        stretch = np.eye(2) + rng.uniform(-0.015, 0.015, (2, 2))
    matrix[:, :2] = matrix[:, :2] @ stretch
    matrix[:, 2] = centre - matrix[:, :2] @ centre
    if motion != "none":
        matrix[:, 2] += rng.uniform(-15, 15, 2)
    return matrix


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("seed", range(4))
def test_a_known_motion_is_found(motion, seed):
    truth = motion_matrix(motion, seed)
    found = register(*moved(truth, seed), motion=motion)
    assert found.reason == ""
    assert field_error(found, truth) < 0.1
    assert found.score > 0.9


def test_the_shift_is_that_of_the_image_relative_to_the_reference():
    large = scene(SIZE + 100, 5)
    reference, image = large[50:-50, 50:-50], large[50 - 4 : -50 - 4, 50 + 23 : SIZE + 50 + 23]
    found = register(image, reference, motion="shift")
    # what stands at row r of the reference stands 4 rows lower and 23 columns to the left in the image
    assert found.shift_px == pytest.approx((4, -23), abs=0.02)
    assert found.angle_deg == 0
    assert found.scale == pytest.approx(1)


def test_an_image_turned_counter_clockwise_has_a_positive_angle():
    upright = scene(SIZE, 6)
    # numpy turns the array as it is printed, rows downwards: counter-clockwise as seen
    assert np.array_equal(np.rot90(upright)[0], upright[:, -1])
    turned = Registration(turn(90, (9, 9), (9, 9)), 1.0, 1.0, shape=(9, 9))
    small = upright[:9, :9].copy()
    assert np.allclose(warped(small, turned, (9, 9))[0], np.rot90(small), atol=1e-3)
    assert turned.angle_deg == pytest.approx(90)


@given(st.integers(0, 5), st.floats(-0.1, 0.1), st.floats(-50, 50), st.floats(-50, 50))
@settings(max_examples=30, deadline=None)
def test_levels_keep_points(k, turn_by, dx, dy):
    matrix = np.array([[1.01, turn_by, dx], [-turn_by, 0.98, dy]])
    assert np.allclose(from_level(onto_level(matrix, k), k), matrix, atol=1e-9)
    # the middle of the first block of 2^k pixels is the first pixel of level k
    c = 0.5 * (2**k - 1)
    fine = matrix @ (c, c, 1)
    assert np.allclose(onto_level(matrix, k) @ (0, 0, 1), (fine - c) / 2**k, atol=1e-9)


def test_unmoved_is_unmoved():
    image = scene(64, 1)
    still = register(image, image, motion="none")
    assert np.array_equal(still.matrix, np.eye(2, 3))
    assert still.score == pytest.approx(1, abs=1e-5)
    assert still.overlap == 1
    out, seen = warped(image, still, image.shape)
    assert seen.all()
    assert np.array_equal(out, image)


def test_other_pictures_are_refused():
    found = register(scene(SIZE, 1), scene(SIZE, 2), motion="rigid")
    assert "do not show the same" in found.reason


@pytest.mark.parametrize("which", ["image", "reference", "both"])
def test_a_constant_image_is_refused(which):
    flat, image = np.full((64, 64), 7, np.uint16), scene(64, 1)
    pair = {"image": (flat, image), "reference": (image, flat), "both": (flat, flat)}[which]
    for motion in MOTIONS:
        found = register(*pair, motion=motion)
        assert "constant" in found.reason
        assert found.score == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"motion": "turn"}, "motion"),
        ({"image": np.zeros((64, 64, 3))}, "grey pixels"),
        ({"reference": np.zeros((15, 64))}, "at least 16"),
        ({"care": np.ones((3, 3), bool)}, "care"),
        ({"max_shift_px": -1}, "max_shift_px"),
        ({"max_angle_deg": 90}, "max_angle_deg"),
    ],
)
def test_misuse_is_told(change, said):
    call = {"image": scene(64, 0), "reference": scene(64, 0), "motion": "rigid"} | change
    with pytest.raises(UsageError, match=said):
        register(call.pop("image"), call.pop("reference"), **call)


def test_shapes_are_what_the_signatures_say():
    for name in ("warped", "overlap_share"):
        checked = jaxtyped(typechecker=beartype)(getattr(registration, name))
        arguments = {"warped": (scene(64, 0), register(scene(64, 0), scene(64, 0), motion="none"), (64, 64))}
        checked(*arguments.get(name, (np.eye(2, 3), (4, 4), (4, 4))))
