"""Images moved by a known amount are found where they were put, and what cannot be found is refused, not guessed."""

import cv2
import numpy as np
import pytest
import scipy.ndimage
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped

from waferlens.errors import UsageError
from waferlens.ops import (
    registration,
    registration_kernels,
    registration_peaks,
    registration_pyramid,
    registration_refine,
)
from waferlens.ops.registration import MOTIONS, Registration, register, warped
from waferlens.ops.registration_kernels import covered_share
from waferlens.ops.registration_peaks import peaks, repeats
from waferlens.ops.registration_pyramid import Pyramid, Weights, from_level, lively, onto_level, turn
from waferlens.ops.registration_refine import BASES, normal_matrix, refine

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


def lattice(size: int, pitch: float, lines: bool = False) -> np.ndarray:
    y, x = np.mgrid[:size, :size].astype(np.float32)
    return 100 + 30 * np.cos(2 * np.pi * x / pitch) + (0 if lines else 30 * np.cos(2 * np.pi * y / pitch))


def moved(
    matrix: np.ndarray,
    seed: int = 0,
    size: int = SIZE,
    sigma: float = 3.0,
    large: np.ndarray | None = None,
    bits: int = 8,
) -> tuple[np.ndarray, np.ndarray]:
    """An image and its reference: what the image shows at p the reference shows at matrix p.

    Splines of third order lay it; the cubic of OpenCV does not keep straight ramps straight.
    """
    rng = np.random.default_rng(seed + 1000)
    large = scene(size + 2 * MARGIN, seed) if large is None else large
    linear, shift = matrix[::-1, 1::-1], matrix[::-1, 2] + MARGIN
    image = scipy.ndimage.affine_transform(large, linear, shift, output_shape=(size, size), order=3)
    both = [p + rng.normal(0, sigma, p.shape) for p in (image, large[MARGIN:-MARGIN, MARGIN:-MARGIN])]
    if bits == 32:
        return tuple(p.astype(np.float32) for p in both)
    white = 2**bits - 1
    return tuple(np.clip(np.rint(p * (white / 255)), 0, white).astype(f"uint{bits}") for p in both)


def field_error(found: Registration, truth: np.ndarray) -> float:
    """Root mean square over the field of the distance between where points are found and where they are [px]"""
    h, w = found.shape
    y, x = np.mgrid[:h:8, :w:8]
    points = np.stack((x.ravel(), y.ravel(), np.ones(x.size)))
    return float(np.sqrt(np.square((found.matrix - truth) @ points).sum(axis=0).mean()))


def placed(angle_deg: float, dx: float, dy: float, size: int = SIZE) -> np.ndarray:
    matrix = turn(angle_deg, (size, size), (size, size))
    matrix[:, 2] += dx, dy
    return matrix


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


# what is found -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_a_known_motion_is_found(motion, seed):
    truth = motion_matrix(motion, seed)
    found = register(*moved(truth, seed), motion=motion)
    assert found.reason == ""
    assert field_error(found, truth) < 0.05
    assert found.score > 0.95


def test_three_degrees_and_noise_of_six_grey_leave_a_twentieth_of_a_pixel():
    for seed, angle in ((0, 3.0), (1, -3.0)):
        truth = placed(angle, 13.3, -7.6, 1024)
        found = register(*moved(truth, seed, 1024, sigma=6.0), motion="rigid")
        assert field_error(found, truth) < 0.05
        assert found.angle_deg == pytest.approx(angle, abs=0.003)


@given(st.floats(-12, 12), st.floats(-12, 12), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_any_shift_is_found(dx, dy, seed):
    truth = placed(0, dx, dy, 128)
    found = register(*moved(truth, seed, 128, bits=32), motion="shift")
    assert found.reason == ""
    assert field_error(found, truth) < 0.05


@pytest.mark.parametrize("shift", [(90, -60), (-100, 100), (0, 120)])
def test_a_shift_that_leaves_half_the_image_is_found(shift):
    large = scene(SIZE + 280, 3)
    truth = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], float)
    y, x = 140 + shift[1], 140 + shift[0]
    found = register(large[y : y + SIZE, x : x + SIZE], large[140 : 140 + SIZE, 140 : 140 + SIZE], motion="rigid")
    assert found.reason == ""
    assert field_error(found, truth) < 0.02
    assert found.overlap == pytest.approx((1 - abs(shift[0]) / SIZE) * (1 - abs(shift[1]) / SIZE), abs=0.01)


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (0.3, 60.0)])
def test_gain_offset_and_type_do_not_matter(bits, gain, offset):
    truth = placed(1.5, 4.2, -3.3)
    image, reference = moved(truth, 4, bits=bits)
    white = 255 * (257 if bits == 16 else 1)
    image = image * gain + offset * white / 255
    image = image.astype(np.float32) if bits == 32 else np.rint(image).astype(reference.dtype)
    found = register(image, reference, motion="rigid")
    assert found.reason == ""
    assert field_error(found, truth) < 0.05
    other = register(image.astype(np.float32) / white, reference, motion="rigid")
    assert field_error(other, truth) < 0.05


def test_faint_structure_on_a_high_level_loses_no_digits():
    truth = placed(-1, 2.5, 3.5)
    image, reference = (p.astype(np.uint16) + 60_000 for p in moved(truth, 5, sigma=1.0))
    assert field_error(register(image, reference, motion="rigid"), truth) < 0.03


def test_a_bright_particle_pulls_hardly():
    truth = placed(-2, 6.5, 4.4)
    image, reference = moved(truth, 6)
    cv2.circle(image, (150, 100), 20, 255, -1)
    found = register(image, reference, motion="rigid")
    assert found.reason == ""
    assert field_error(found, truth) < 0.1


def test_masks_of_two_greys_are_registered():
    blobs = np.random.default_rng(7).normal(size=(SIZE + 2 * MARGIN,) * 2).astype(np.float32)
    large = 128 + 3000 * cv2.GaussianBlur(blobs, (0, 0), 5)
    for motion in ("shift", "rigid", "affine"):
        truth = motion_matrix(motion, 7)
        image, reference = moved(truth, sigma=0.0, large=large)
        found = register((image > 127).astype(np.uint8) * 255, (reference > 127).astype(np.uint8) * 255, motion=motion)
        assert found.reason == ""
        assert field_error(found, truth) < 0.15


def test_texture_too_fine_for_the_coarse_images_is_found_by_a_patch():
    rng = np.random.default_rng(8)
    large = np.kron(rng.normal(0, 40, (336, 336)), np.ones((2, 2))).astype(np.float32)
    large -= cv2.blur(large, (17, 17))  # nothing is left on the coarse levels
    truth = placed(1.2, 9.4, -6.1, 512)
    found = register(*moved(truth, size=512, large=100 + cv2.blur(large, (2, 2)), bits=32), motion="rigid")
    assert found.reason == ""
    assert field_error(found, truth) < 0.05


def test_layout_and_type_of_the_array_compile_nothing_anew():
    image, reference = moved(placed(0, 3, 2, 600), size=600)
    expected = register(image, reference, motion="shift")
    kernels = [
        k
        for m in (registration_kernels, registration_peaks, registration_pyramid)
        for k in vars(m).values()
        if hasattr(k, "overloads")
    ]
    compiled = sum(len(kernel.overloads) for kernel in kernels)
    still = image.copy()
    still.setflags(write=False)
    for other in (
        still,
        np.asfortranarray(image),
        np.repeat(image, 2, axis=1)[:, ::2],
        image.astype(">u2").astype("u1"),
    ):
        assert np.array_equal(register(other, reference, motion="shift").matrix, expected.matrix)
    assert sum(len(kernel.overloads) for kernel in kernels) == compiled
    for other in (image.astype(np.int32), image.astype(np.float64)):
        assert np.allclose(register(other, reference, motion="shift").matrix, expected.matrix, atol=1e-3)


@pytest.mark.parametrize("size", [16, 21, 40])
def test_small_images_are_registered(size):
    rng = np.random.default_rng(size)
    large = 120 + 150 * cv2.GaussianBlur(rng.normal(size=(size + 2 * MARGIN,) * 2).astype(np.float32), (0, 0), 2.5)
    truth = np.array([[1, 0, 1.3], [0, 1, -0.8]])
    found = register(*moved(truth, size=size, sigma=1.0, large=large, bits=32), motion="shift")
    assert found.reason == ""
    assert field_error(found, truth) < 0.1


def test_sizes_may_differ():
    truth = placed(1.0, 3.4, 5.6)
    image, reference = moved(truth, 9)
    inside = truth.copy()
    inside[:, 2] += truth[:, :2] @ (60, 40)
    found = register(image[40:200, 60:180].copy(), reference, motion="rigid")
    assert found.reason == ""
    assert found.overlap == 1
    assert field_error(found, inside) < 0.05
    around = truth.copy()
    around[:, 2] -= 30, 20
    found = register(image, reference[20:230, 30:250].copy(), motion="rigid")
    assert found.reason == ""
    assert field_error(found, around) < 0.05


def test_what_is_not_cared_for_does_not_count():
    truth = placed(0.8, 5.1, -4.2)
    image, reference = moved(truth, 10)
    care = np.ones(image.shape, bool)
    care[60:180, 40:160] = False
    image[~care] = scene(SIZE, 99)[~care]
    found = register(image, reference, motion="rigid", care=care)
    assert field_error(found, truth) < 0.05
    assert found.score > register(image, reference, motion="rigid").score + 0.05


def test_pixels_that_are_no_numbers_do_not_count():
    truth = placed(0.8, 5.1, -4.2)
    image, reference = moved(truth, 11, bits=32)
    image[30:60, 100:150] = np.nan
    reference[200:210] = np.inf
    found = register(image, reference, motion="rigid")
    assert found.reason == ""
    assert field_error(found, truth) < 0.05
    out, seen = warped(reference, found, image.shape)
    assert np.isfinite(out).all()
    assert 0.8 < seen.mean() < 0.95


# what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("motion", MOTIONS)
def test_other_pictures_are_refused(motion):
    rng = np.random.default_rng(0)
    pictures = [scene(SIZE, 1), scene(SIZE, 2), rng.normal(100, 20, (SIZE, SIZE)), 255 - scene(SIZE, 1)]
    for other in pictures[1:]:
        found = register(pictures[0], other, motion=motion)
        assert "do not show the same" in found.reason
        assert np.isfinite(found.matrix).all()


def test_pictures_that_do_not_overlap_are_refused():
    large = scene(2 * SIZE + 50, 12)
    found = register(large[:SIZE, :SIZE].copy(), large[-SIZE:, -SIZE:].copy(), motion="shift")
    assert found.reason


@pytest.mark.parametrize("which", ["image", "reference", "both"])
@pytest.mark.parametrize("level", [0, 7])
def test_a_constant_image_is_refused(which, level):
    flat, image = np.full((64, 64), level, np.uint16), scene(64, 1)
    pair = {"image": (flat, image), "reference": (image, flat), "both": (flat, flat)}[which]
    for motion in MOTIONS:
        found = register(*pair, motion=motion)
        assert "constant" in found.reason
        assert found.score == 0


def test_an_image_without_a_number_is_refused():
    nothing = np.full((64, 64), np.nan)
    assert "constant" in register(nothing, scene(64, 1), motion="rigid").reason
    care = np.zeros((64, 64), bool)
    assert "constant" in register(scene(64, 1), scene(64, 1), motion="rigid", care=care).reason


def test_limits_are_kept():
    image, reference = moved(placed(0, 20, 3), 13)
    assert register(image, reference, motion="shift", max_shift_px=21).reason == ""
    assert register(image, reference, motion="shift", max_shift_px=10).reason
    image, reference = moved(placed(4, 0, 0), 13)
    assert register(image, reference, motion="rigid", max_angle_deg=5).reason == ""
    assert "max_angle_deg = 3" in register(image, reference, motion="rigid", max_angle_deg=3).reason


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_nothing_about_the_pixels_raises(data):
    """Shapes, types and contents at random, real pictures among them: an answer with finite numbers, or a reason."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    pair = []
    for _ in range(2):
        shape = data.draw(st.tuples(st.integers(16, 90), st.integers(16, 90)))
        kind = data.draw(st.sampled_from(["noise", "flat", "step", "dot", "scene", "huge", "lines"]))
        pixels = {
            "noise": rng.normal(100, 20, shape),
            "flat": np.full(shape, 100.0),
            "step": np.broadcast_to(np.where(np.arange(shape[1]) > 9, 200.0, 20.0), shape),
            "dot": np.pad(np.full((1, 1), 255.0), [(n // 2, n - n // 2 - 1) for n in shape]),
            "scene": scene(90, int(rng.integers(9)))[: shape[0], : shape[1]],
            "huge": rng.normal(0, 1e30, shape),
            "lines": lattice(90, 8, lines=True)[: shape[0], : shape[1]],
        }[kind]
        dtype = np.float32 if kind == "huge" else data.draw(st.sampled_from([np.uint8, np.uint16, np.float32]))
        pair.append(pixels.clip(0, 255).astype(dtype) if dtype != np.float32 else pixels.astype(dtype))
    found = register(*pair, motion=data.draw(st.sampled_from(MOTIONS)))
    assert np.isfinite(found.matrix).all()
    assert -1 <= found.score <= 1.0001
    assert 0 <= found.overlap <= 1
    assert all(np.isfinite(found.shift_px))
    out, seen = warped(pair[1], found, pair[0].shape)
    assert np.isfinite(out).all()
    assert seen.mean() == pytest.approx(found.overlap, abs=1e-9)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"motion": "turn"}, "motion"),
        ({"image": np.zeros((64, 64, 3))}, "grey pixels"),
        ({"image": np.zeros((64, 64), complex)}, "complex"),
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


# patterns that repeat ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pitch", [8, 17.3, 40, 60])
@pytest.mark.parametrize("angle", [0.0, 1.5])
def test_of_the_shifts_a_lattice_allows_the_smallest_is_taken_and_said(pitch, angle):
    truth = placed(angle, 0.2 * pitch, -0.12 * pitch)
    large = lattice(SIZE + 2 * MARGIN, pitch)
    found = register(*moved(truth, large=large, bits=32), motion="rigid" if angle else "shift")
    assert found.reason == ""
    assert field_error(found, truth) < 0.05
    assert "the pattern repeats" in found.remark


@pytest.mark.parametrize("pitch", [16, 40])
def test_half_a_period_is_refused(pitch):
    large = lattice(SIZE + 2 * MARGIN, pitch)
    found = register(*moved(placed(0, 0.5 * pitch, 0), large=large, bits=32), motion="shift")
    assert "max_shift_px" in found.reason
    assert abs(found.shift_px[1]) == pytest.approx(pitch / 2, abs=0.1)


def test_a_stated_limit_leaves_one_of_the_shifts():
    pair = moved(placed(0, -19, 3), large=lattice(SIZE + 2 * MARGIN, 40), bits=32)
    assert "max_shift_px" in register(*pair, motion="shift").reason
    found = register(*pair, motion="shift", max_shift_px=20)
    assert (found.reason, found.remark) == ("", "")
    assert found.shift_px == pytest.approx((-3, 19), abs=0.05)


def test_a_mark_on_a_lattice_breaks_the_tie():
    large = lattice(SIZE + 2 * MARGIN, 24)
    large[190:215, 230:240] += 80
    large[250:260, 130:160] -= 60
    truth = placed(0.5, 30, -20)
    found = register(*moved(truth, large=large, bits=32), motion="rigid")
    assert (found.reason, found.remark) == ("", "")
    assert field_error(found, truth) < 0.05


def test_a_defect_at_the_border_does_not_move_a_lattice_by_a_period():
    image, reference = moved(placed(0, 2, 3), large=lattice(SIZE + 2 * MARGIN, 48), bits=32)
    image[:, :30] = 100
    found = register(image, reference, motion="shift")
    assert found.shift_px == pytest.approx((-3, -2), abs=0.1)


@pytest.mark.parametrize("angle", [0.0, 2.0])
def test_lines_leave_the_shift_along_them_as_it_was(angle):
    large = lattice(SIZE + 2 * MARGIN, 60, lines=True)
    found = register(*moved(placed(angle, 9.0, 5.0), large=large, bits=32), motion="rigid" if angle else "shift")
    assert found.reason == ""
    assert "nothing in the image fixes the shift along" in found.remark
    assert found.angle_deg == pytest.approx(angle, abs=0.01)
    # the lines lie on each other, and along them nothing is moved
    turned = np.radians(angle)
    across = np.array([np.cos(turned), -np.sin(turned)])
    dy, dx = found.shift_px
    assert across @ (dx, dy) == pytest.approx(across @ -(turn(-angle, (1, 1), (1, 1))[:, :2] @ (9.0, 0.0)), abs=0.05)
    assert abs(dy) < 1


def test_a_round_hole_leaves_the_angle_as_it_was():
    y, x = np.mgrid[:128, :128]
    hole = (100 - 60 / (1 + np.exp(np.hypot(x - 65.2, y - 62.1) - 30))).astype(np.float32)
    reference = (100 - 60 / (1 + np.exp(np.hypot(x - 63.5, y - 63.5) - 30))).astype(np.float32)
    rng = np.random.default_rng(0)
    image, reference = (p + rng.normal(0, 2, p.shape).astype(np.float32) for p in (hole, reference))
    found = register(image, reference, motion="rigid")
    assert found.reason == ""
    assert "the angle" in found.remark
    assert abs(found.angle_deg) < 0.2
    assert found.shift_px == pytest.approx((-1.4, 1.7), abs=0.1)


# conventions ---------------------------------------------------------------------------------------------------------


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


def test_a_larger_picture_has_a_scale_above_one():
    half = np.array([[0.5, 0, 0], [0, 0.5, 0]])  # two pixels of the image are one of the reference
    assert Registration(half, 1.0, 1.0, shape=(9, 9)).scale == pytest.approx(2)


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


# the parts -----------------------------------------------------------------------------------------------------------


@given(st.floats(-20, 20), st.floats(-30, 30), st.floats(-30, 30), st.integers(17, 60))
@settings(max_examples=40, deadline=None)
def test_the_covered_pixels_are_those_whose_points_lie_inside(angle, dx, dy, size):
    matrix = turn(angle, (40, 50), (size, 45))
    matrix[:, 2] += dx, dy
    y, x = np.mgrid[:40, :50]
    u, v = np.einsum("ij,jhw->ihw", matrix, np.stack((x, y, np.ones_like(x))))
    inside = (u >= -0.5) & (u <= 44.5) & (v >= -0.5) & (v <= size - 0.5)
    clear = np.minimum(np.abs(np.abs(u - 22) - 22.5), np.abs(np.abs(v - 0.5 * (size - 1)) - 0.5 * size)) > 1e-5
    found = Registration(matrix, 1.0, 1.0, shape=(40, 50))
    assert np.array_equal(warped(np.zeros((size, 45)), found, (40, 50))[1][clear], inside[clear])
    assert covered_share(matrix, 40, 50, size, 45) == pytest.approx(inside.mean(), abs=0.11)


@pytest.mark.parametrize("angle", [0.0, 0.7, -1.3])
def test_the_kernel_lays_rows_as_opencv_does(angle):
    reference = scene(90, 3) - 90
    matrix = turn(angle, (70, 80), (90, 90))
    matrix[:, 2] += 3.3, -2.6
    laid, line = np.zeros((70, 80), np.float32), np.empty(90, np.float32)
    ends = registration_kernels.inner_columns(matrix, (70, 80), (90, 90))
    registration_kernels.lay(reference, matrix, ends, False, line, laid)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    expected = cv2.warpAffine(reference, matrix, (80, 70), flags=flags)
    filled = laid != 0
    assert filled.mean() > 0.5
    # along the slanted row, not along x: that differs a little
    assert np.allclose(laid[filled], expected[filled], atol=0.02 + 0.2 * abs(angle))


@pytest.mark.parametrize(("angle", "scale"), [(0.0, 1.0), (0.4, 1.0), (3.0, 0.97), (-40.0, 1.1)])
def test_cubic_interpolation_keeps_cubics(angle, scale):
    def surface(x, y):
        x, y = x / 40 - 1, y / 40 - 1
        return 30 * (x**3 - 2 * x * y**2 + y**3 + x * y + 0.5 * y)

    y, x = np.mgrid[:90, :90].astype(np.float64)
    reference = surface(x, y).astype(np.float32)
    matrix = turn(angle, (60, 60), (90, 90))
    matrix[:, :2] *= scale
    matrix[:, 2] = 44.7 - matrix[:, :2] @ (29.5, 29.5)
    laid, line = np.zeros((60, 60), np.float32), np.empty(90, np.float32)
    ends = registration_kernels.inner_columns(matrix, (60, 60), (90, 90))
    registration_kernels.lay(reference, matrix, ends, True, line, laid)
    for at, (x0, x1) in enumerate(ends):
        u, v = matrix @ np.stack((np.arange(x0, x1), np.full(x1 - x0, at), np.ones(x1 - x0)))
        assert np.allclose(laid[at, x0:x1], surface(u, v), atol=2e-3)
    assert (np.diff(ends)[1:-1] > 50).all()


def test_a_shift_of_sharp_edges_is_not_drawn_towards_pixels():
    """Where bilinear interpolation is off by a hundredth of a pixel of the level, four here."""
    large = np.kron(np.random.default_rng(1).uniform(40, 200, (40, 40)), np.ones((64, 64))).astype(np.float32)
    large = cv2.GaussianBlur(large, (0, 0), 1.0)
    for shift in (1.0, 3.0):
        truth = np.array([[1, 0, shift], [0, 1, shift]])
        at = 80 + int(shift)
        image, reference = large[at : at + 2048, at : at + 2048], large[80 : 80 + 2048, 80 : 80 + 2048]
        assert field_error(register(image, reference, motion="shift"), truth) < 0.02


@pytest.mark.parametrize("motion", ["shift", "rigid", "similarity", "affine"])
def test_normal_matrix_and_force_are_those_of_the_definition(motion):
    image, reference = scene(40, 1) - 90, scene(44, 2) - 90
    weight = (np.random.default_rng(0).random((40, 40)) < 0.8).astype(np.float32)
    matrix = np.array([[1.0, 0, 1.7], [0, 1.0, 2.2]])
    y, x = np.mgrid[1:39, 1:39]  # the reference has two pixels around each of their points
    gx, gy = (image[1:-1, 2:] - image[1:-1, :-2]) / 2, (image[2:, 1:-1] - image[:-2, 1:-1]) / 2
    slopes = np.stack([g * k for g in (gx, gy) for k in (x - 19.5, y - 19.5, 1.0)])
    expected = np.einsum("ahw,bhw,hw->ab", slopes, slopes, weight[1:-1, 1:-1])
    found = normal_matrix(image, image, weight, matrix, reference.shape)
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-3 * np.abs(expected).max())
    assert BASES[motion].shape[1] == 6


def test_the_score_is_the_zero_normalised_correlation():
    image, reference = scene(64, 1) - 90, 2 * (scene(64, 2) - 90) + 3
    ones = np.ones((64, 64), np.float32)
    found = refine(image, reference, ones, np.eye(2, 3), motion="none", steps=0, enough=0)
    part = np.s_[1:62, 1:62]
    assert found.score == pytest.approx(np.corrcoef(image[part].ravel(), reference[part].ravel())[0, 1], abs=1e-4)


def test_equal_images_have_their_best_peak_at_no_shift():
    image = scene(64, 4) - 90
    ones = np.ones((64, 64), np.float32)
    options = {"still": (0.0, 0.0), "least_overlap": 0.25, "most": 3}
    evidence, matrix = peaks(image, image, ones, angles_deg=[-2.0, 0.0, 2.0], max_shift=np.inf, **options)[0]
    assert evidence > 5
    assert np.allclose(matrix, np.eye(2, 3), atol=0.05)


@pytest.mark.parametrize(("pitch", "angle"), [(7.3, 0), (12, 10), (30.5, -25)])
def test_the_vectors_of_a_lattice_are_found(pitch, angle):
    y, x = np.mgrid[:96, :96].astype(np.float32)
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    u, v = (c * x - s * y) / pitch, (s * x + c * y) / pitch
    vectors = repeats((np.cos(2 * np.pi * u) + np.cos(2 * np.pi * v)).astype(np.float32))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([pitch, pitch], rel=0.03)
    assert abs(np.linalg.det(vectors)) == pytest.approx(pitch**2, rel=0.05)
    assert repeats(scene(96, 3)).shape[1] == 2
    assert len(repeats(np.random.default_rng(0).normal(size=(96, 96)).astype(np.float32))) == 0


def test_a_lively_patch_is_where_the_slopes_are():
    image = np.full((300, 400), 50, np.float32)
    image[192:256, 96:160] = scene(64, 1)
    y, x = lively(image, np.ones_like(image), (64, 64))
    assert (y, x) == (192, 96)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_levels_are_smoothed_by_1331(dtype):
    pixels = np.random.default_rng(0).integers(0, 256, (21, 30)).astype(dtype)
    pyramid = Pyramid(pixels)
    taps = np.array([1, 3, 3, 1]) / 8
    bordered = np.pad(pixels[:20, :30].astype(np.float64), 1, mode="edge")
    bordered[-1] = np.pad(pixels[20].astype(np.float64), 1, mode="edge")  # a last row that fills no pixel still smooths
    expected = np.einsum(
        "hwij,i,j->hw", np.lib.stride_tricks.sliding_window_view(bordered, (4, 4))[::2, ::2], taps, taps
    )
    level = pyramid.level(1)
    assert level.shape == (10, 15)
    assert np.allclose(level - level.mean(), expected - expected.mean(), atol=1e-3)
    assert abs(pyramid.level(0).mean()) < 20
    ramp = Pyramid(np.tile(np.arange(64, dtype=dtype), (64, 1)))
    assert np.allclose(np.diff(ramp.level(1)[5, 1:-1]), 2)
    assert np.allclose(np.diff(ramp.smooth(2)[5, 2:-2]), 4)


def test_blocks_count_where_all_their_pixels_do():
    care = np.ones((32, 32), bool)
    care[5, 6] = False
    weights = Weights(care, (32, 32))
    expected = np.ones((8, 8))
    expected[1, 1] = 0
    assert np.array_equal(weights.level(2), expected)
    # of a grid of dots that counts no block is whole: shares then
    sparse = Weights(np.arange(32 * 32).reshape(32, 32) % 2 == 0, (32, 32))
    assert np.allclose(sparse.level(2), 0.5)


def test_shapes_are_what_the_signatures_say():
    image = scene(64, 0)
    found = register(image, image, motion="none")
    for function, arguments in (
        (registration.warped, (image, found, (64, 64))),
        (registration.overlap_share, (np.eye(2, 3), (4, 4), (4, 4))),
        (registration_peaks.repeats, (image,)),
        (registration_pyramid.onto_level, (np.eye(2, 3), 1)),
        (registration_pyramid.Pyramid(image).smooth, (1,)),
        (registration_refine.normal_matrix, (image, image, np.ones_like(image), np.eye(2, 3), (64, 64))),
    ):
        jaxtyped(typechecker=beartype)(function)(*arguments)


@pytest.mark.parametrize("shape", [(64, 48), (37, 101), (17, 16)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_images_are_halved_by_the_filter_they_are_said_to_be(shape, dtype, monkeypatch):
    pixels = np.random.default_rng(3).integers(0, 255, shape).astype(dtype)
    h, w = shape[0] // 2, shape[1] // 2
    around = np.pad(pixels.astype(np.float64), 1, mode="edge")
    for _ in range(2):  # along one axis, then along the other
        around = (around[:-3] + 3 * around[1:-2] + 3 * around[2:-1] + around[3:])[::2].T / 8
    expected = around
    assert expected.shape == (h, w)
    assert np.allclose(registration_pyramid._halved(pixels), expected, atol=1e-4)
    monkeypatch.setattr(registration_pyramid, "_LARGE_PIXELS", 0)  # the kernel of large ones
    assert np.allclose(registration_pyramid._halved(pixels), expected, atol=1e-4)
