"""Fields of holes and what is planted in them: against SciPy, OpenCV, single holes, and their twins."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from waferlens.errors import UsageError
from waferlens.recipe.hole_world import HoleWorld
from waferlens.simulate.hole.acquire import acquire
from waferlens.simulate.hole.dataset import hole_world
from waferlens.simulate.hole.defects import KIND_NAMES, KINDS, Defect, DefectSpec, plant, scanned_with
from waferlens.simulate.hole.field import (
    UNCHANGED,
    Field,
    FieldSpec,
    Pose,
    Role,
    _electrons,
    draw_field,
    draw_product,
    on_canvas,
)
from waferlens.simulate.hole.twins import FieldImage, _runs, field_image, field_images
from waferlens.simulate.hole.world import draw_pairs

SEED = 5
SMALL = FieldSpec(rows=2, columns=3)
STILL = FieldSpec(rows=2, columns=3, shift_px=0.0, angle_deg=0.0)
SIM, REAL = hole_world("sim"), hole_world("real")


def bare(world: HoleWorld) -> HoleWorld:
    """A world whose holes are all alike."""
    flat = {"floor_roughness": {"mean": 0.0}, "roughness_std": 0.0, "pit_probability": 0.0, "top_roughness_std": 0.0}
    geometry = type(world.geometry).model_validate(world.geometry.model_dump() | flat)
    return world.model_copy(update={"geometry": geometry})


@cache
def good_field(name: str) -> Field:
    world = {"sim": SIM, "real": REAL, "bare": bare(SIM)}[name]
    return draw_field(draw_product(world, SMALL, SEED), Role.DEFECTIVE, 0)


def planted(name: str, kind: str, index: int, **ranges: tuple[float, float]) -> tuple[Field, Defect, np.ndarray]:
    """A defect as drawn for the field of an index, planted in that of index 0: fields cost more time than defects."""
    field = replace(good_field(name), index=index)
    ((defect, added),) = plant(field, DefectSpec(kinds=(kind,), **ranges))
    return field, defect, added


# Noise


@pytest.mark.parametrize("mean", [0.2, 4.0, 9.99, 10.01, 37.5, 400.0, 4000.0])
def test_electrons_are_poisson(mean: float) -> None:
    drawn = _electrons(np.full((200, 500), mean), np.ones((200, 500)), np.uint64(7)).ravel()
    edges = np.unique(stats.poisson.ppf(np.linspace(0.02, 0.98, 25), mean))
    share = np.diff(np.concatenate([[0.0], stats.poisson.cdf(edges, mean), [1.0]]))
    found = np.bincount(np.searchsorted(edges, drawn), minlength=share.size)
    kept = share > 1e-9
    assert not found[~kept].any()
    assert stats.chisquare(found[kept], share[kept] * drawn.size).pvalue > 1e-3
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.015


def test_a_pixel_takes_no_number_from_another() -> None:
    per_primary = np.random.default_rng(0).uniform(0.01, 3.0, (40, 60))
    primaries = np.full((40, 60), 250)
    before = _electrons(primaries, per_primary, np.uint64(1))
    per_primary[10, 20] *= 2.0
    changed = np.argwhere(_electrons(primaries, per_primary, np.uint64(1)) != before)
    assert changed.tolist() == [[10, 20]]
    assert (_electrons(primaries, per_primary, np.uint64(2)) != before).mean() > 0.9


@pytest.mark.parametrize("world", [SIM, REAL], ids=lambda world: world.name)
def test_the_camera_is_that_of_single_holes(world: HoleWorld) -> None:
    product = draw_product(world, FieldSpec(rows=4, columns=4), SEED)
    field = draw_field(product, Role.GOOD, 0)
    for level in (0.15, 1.0, 1.4):
        flat = np.full(product.shape, level)
        ours = field.digitised(field.greys([flat])[0])
        theirs = acquire(flat, field.instrument, np.random.default_rng(3))
        assert ours.mean() == pytest.approx(theirs.mean(), abs=0.3)
        assert ours.std() == pytest.approx(theirs.std(), rel=0.02)
        clean = field.digitised(field.greys([flat], noise=False)[0])
        assert np.array_equal(clean, acquire(flat, field.instrument, np.random.default_rng(3), noise=False))


def test_noise_is_white_in_a_turned_picture() -> None:
    product = draw_product(SIM, replace(SMALL, bits=16, angle_deg=1.0), SEED)
    noisy, clean = (field_image(product, Role.GOOD, 1, noise=noise).pixels / 257.0 for noise in (True, False))
    noise = noisy - clean
    for axis in (0, 1):
        along = np.moveaxis(noise, axis, 0)
        assert abs(np.corrcoef(along[1:].ravel(), along[:-1].ravel())[0, 1]) < 0.025


# Good fields


def test_a_field_has_the_statistics_of_single_holes() -> None:
    fields = np.stack([field_image(draw_product(SIM, STILL, seed), Role.GOOD, 0).pixels for seed in range(16)])
    cells = np.concatenate([pair.images[:1] for number in range(24) for pair in draw_pairs(SIM, SEED, number)])
    ours, theirs = fields.astype(float), cells.astype(float)
    assert ours.mean() == pytest.approx(theirs.mean(), abs=1.2)
    assert ours.std() == pytest.approx(theirs.std(), abs=1.2)
    assert np.median(ours) == pytest.approx(np.median(theirs), abs=2)
    for axis in (1, 2):
        steps = [np.abs(np.diff(images, axis=axis)).mean() for images in (ours, theirs)]
        assert steps[0] == pytest.approx(steps[1], rel=0.03)


def test_cells_join_without_a_seam() -> None:
    product = draw_product(REAL, replace(STILL, bits=16), SEED)
    clean = [field_image(product, Role.GOOD, n, noise=False).pixels / 257.0 for n in range(4)]
    for axis, size in ((0, 72), (1, 48)):
        # between two holes the plateau is mirrored: its steps at the joint are no larger than those next to it
        steps = [np.abs(np.diff(np.moveaxis(image, axis, 0), axis=0)).mean(1) for image in clean]
        joint = np.mean([step[size - 1 :: size] for step in steps])
        beside = np.mean([step[size - 3 + offset :: size][: len(step) // size] for step in steps for offset in (0, 4)])
        assert joint < beside


@pytest.mark.parametrize(("dx", "dy", "turn"), [(2.6, -1.7, 0.3), (0.0, 0.0, -2.0), (7.5, 9.25, 1.0)])
def test_a_pose_is_what_opencv_calls_by_its_matrix(
    dx: float, dy: float, turn: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = FieldSpec(rows=2, columns=3, process=0.0, gain_std=0.0, offset_std=0.0, focus_std=0.0)
    product = draw_product(bare(SIM), replace(spec, shift_px=10.0, angle_deg=2.0), SEED)
    pose = Pose(dx, dy, turn)
    monkeypatch.setattr("waferlens.simulate.hole.field.Pose", lambda *_: pose)
    moved = field_image(product, Role.GOOD, 0, noise=False)
    monkeypatch.undo()
    still = field_image(product, Role.REFERENCE, 0, noise=False).pixels.astype(np.float32)
    matrix = np.array(pose.matrix(product.shape))
    # the matrix takes a point of the picture to the reference: what warpAffine calls the inverse map
    flags, size = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, moved.pixels.shape[::-1]
    seen = cv2.warpAffine(still, matrix, size, flags=flags)
    inside = cv2.erode(cv2.warpAffine(np.ones_like(still), matrix, size, flags=flags), np.ones((7, 7))) > 0.999
    assert inside.mean() > 0.65
    error = (moved.pixels - seen)[inside]
    assert np.sqrt(np.mean(error**2)) < 1.6  # the walls are sampled, not smeared: their grey hangs on the pixels' phase
    # what is left of the pose: the shift and the turn that explain the error best
    down, right = np.gradient(seen)
    y, x = np.mgrid[: size[1], : size[0]] - np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])[:, None, None]
    slopes = np.stack([right[inside], down[inside], (down * x - right * y)[inside]], axis=1)
    left_x, left_y, left_turn = np.linalg.lstsq(slopes, error)[0]
    assert np.hypot(left_x, left_y) < 0.05
    assert abs(math.degrees(left_turn)) < 0.05


def test_poses_fill_their_range_and_the_reference_has_none() -> None:
    product = draw_product(SIM, FieldSpec(rows=1, columns=1, shift_px=3.0, angle_deg=0.3), SEED)
    poses = [draw_field(product, Role.GOOD, n).pose for n in range(60)]
    for values, most in (
        ([p.dx for p in poses], 3.0),
        ([p.dy for p in poses], 3.0),
        ([p.angle_deg for p in poses], 0.3),
    ):
        assert stats.kstest(values, stats.uniform(-most, 2 * most).cdf).pvalue > 1e-3
    assert draw_field(product, Role.REFERENCE, 0).pose == Pose(0.0, 0.0, 0.0)


def test_the_pose_leaves_the_holes_and_the_noise_alone() -> None:
    moving, still = (draw_field(draw_product(SIM, spec, SEED), Role.GOOD, 3) for spec in (SMALL, STILL))
    for one, other in zip(moving.holes, still.holes, strict=True):
        assert (one.half_width_x, one.floor_nm) == (other.half_width_x, other.floor_nm)
        assert np.array_equal(one.roughness, other.roughness)


def test_holes_and_pictures_of_a_product_differ_a_little() -> None:
    product = draw_product(SIM, replace(SMALL, rows=1, columns=6), SEED)
    fields = [draw_field(product, Role.GOOD, n) for n in range(40)]
    widths = np.array([[hole.half_width_x for hole in field.holes[:6]] for field in fields])
    assert widths.mean() == pytest.approx(product.half_width_x, abs=0.1)
    assert widths.std(axis=1).mean() == pytest.approx(0.15, rel=0.15)  # half the world's 0.30
    gains = [field.instrument.gain for field in fields]
    assert np.std(gains) / np.mean(gains) == pytest.approx(0.01, rel=0.3)


@pytest.mark.parametrize("role", [Role.GOOD, Role.DEFECTIVE])
def test_a_picture_is_a_function_of_seed_and_index(role: Role) -> None:
    images = list(field_images(SIM, SEED, 10, spec=SMALL, role=role))
    again = next(iter(field_images(SIM, SEED, 1, spec=SMALL, role=role, start=9)))
    assert np.array_equal(images[9].pixels, again.pixels)
    assert images[9].pose == again.pose
    assert len({image.pixels.tobytes() for image in images}) == 10
    other = next(iter(field_images(SIM, SEED + 1, 1, spec=SMALL, role=role)))
    assert not np.array_equal(images[0].pixels, other.pixels)


def test_sixteen_bits_hold_what_eight_round() -> None:
    eight, sixteen = (
        field_image(draw_product(SIM, replace(SMALL, bits=b), SEED), Role.GOOD, 0).pixels for b in (8, 16)
    )
    assert sixteen.dtype == np.uint16
    assert np.abs(sixteen / 257.0 - eight).max() <= 0.5 + 1 / 257
    assert np.unique(sixteen).size > 10 * np.unique(eight).size


# Defects


@pytest.mark.parametrize("kind", KIND_NAMES)
@pytest.mark.parametrize("name", ["sim", "real"])
def test_a_twin_is_the_same_but_for_the_defect(name: str, kind: str) -> None:
    for index in range(3):
        field, _, added = planted(name, kind, index)
        good = field.scanned(field.signal)
        bad = scanned_with(field, good, added)
        same = good == bad
        # Before noise: beyond the object's reach and four widths of the far-flung electrons nothing has changed.
        margin, far = field.product.margin, math.ceil(4.0 * field.instrument.delocalised_width)
        y, x = np.nonzero(added)
        near = np.zeros_like(added, bool)
        near[max(y.min() - far, 0) : y.max() + far + 1, max(x.min() - far, 0) : x.max() + far + 1] = True
        assert same[~near[margin:-margin, margin:-margin]].all()
        assert not same.all()
        assert np.abs(bad - good)[~same].min() >= UNCHANGED
        # After noise: byte for byte where the signal is the same; with a lag or streaks, up to the change in each row.
        twin, defective = (field.digitised(grey) for grey in field.greys([good, bad]))
        trailing = field.instrument.video_lag or field.instrument.streak
        settled = np.logical_and.accumulate(same, axis=1) if trailing else same
        assert np.array_equal(twin[settled], defective[settled])
        assert not np.array_equal(twin, defective)


def test_a_twin_is_drawn_without_knowing_of_the_defect() -> None:
    product = draw_product(SIM, SMALL, SEED)
    twins = [field_image(product, Role.DEFECTIVE, 4, DefectSpec(kinds=(kind,))).twin for kind in KIND_NAMES]
    assert all(np.array_equal(twin, twins[0]) for twin in twins)
    field = draw_field(product, Role.DEFECTIVE, 4)
    good = field.scanned(field.signal)
    ((_, added),) = plant(field, DefectSpec(kinds=("scratch",)))
    twin, defective = (field.digitised(grey) for grey in field.greys([good, scanned_with(field, good, added)]))
    assert np.array_equal(twins[-1], twin)
    assert np.array_equal(field_image(product, Role.DEFECTIVE, 4, DefectSpec(kinds=("scratch",))).pixels, defective)


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_the_box_holds_the_change(kind: str) -> None:
    product = draw_product(SIM, replace(SMALL, bits=16), SEED)
    for index in range(4):
        image = field_image(product, Role.DEFECTIVE, index, DefectSpec(kinds=(kind,)), noise=False)
        change = image.pixels.astype(float) - image.twin
        (one,) = image.planted
        assert one.peak_grey * 257 == pytest.approx(change.flat[np.abs(change).argmax()], abs=1)
        x0, y0, x1, y1 = (round(edge + 0.5) for edge in one.box)
        strong = np.abs(change) > 0.5 * np.abs(change).max() + 1
        assert strong[y0:y1, x0:x1].sum() == strong.sum()
        assert one.mask[y0:y1, x0:x1].sum() == one.area_px == one.mask.sum()
        assert one.mask[[y0, y1 - 1]].any(1).all()
        assert one.mask[:, [x0, x1 - 1]].any(0).all()
        assert one.mean_grey * 257 == pytest.approx(change[one.mask].mean(), abs=1)
        assert np.sign(one.mean_grey) == np.sign(one.defect.contrast_grey)


@pytest.mark.parametrize("kind", ["particle", "residue", "pinhole"])
def test_an_object_has_its_size_and_contrast(kind: str) -> None:
    ratios = []
    for index in range(12):
        field, defect, added = planted("sim", kind, index, size_px=(5.0, 10.0))
        grey = added * field.instrument.gain
        assert np.abs(grey).max() == pytest.approx(abs(defect.contrast_grey))
        body = (grey * np.sign(defect.contrast_grey) > 0.4 * abs(defect.contrast_grey)).sum()
        ratios.append(math.sqrt(4 * body / math.pi) / defect.size_px)
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.06)


def test_a_scratch_and_a_bridge_have_their_area() -> None:
    for index in range(6):
        field, defect, added = planted("bare", "scratch", index, size_px=(8.0, 12.0))
        flat = field.surface.profile < 0.01
        body = (added * np.sign(defect.contrast_grey) > 0.5 * np.abs(added).max()) & flat
        assert math.sqrt(4 * body.sum() / math.pi) < 1.25 * defect.size_px
        field, defect, added = planted("bare", "bridge", index, size_px=(9.0, 14.0), contrast_grey=(60.0, 80.0))
        assert -82 < defect.contrast_grey <= -50
        assert field.surface.profile[round(defect.y) + 16, round(defect.x) + 16] == 0.0


def test_a_missing_hole_is_plateau() -> None:
    found = []
    for index in range(12):
        field, defect, added = planted("sim", "missing", index)
        level = (field.signal + added)[round(defect.y) + 16, round(defect.x) + 16]
        found.append(level)
        assert defect.size_px == pytest.approx(2 * math.sqrt(16.7 * 28.9), rel=0.1)
        assert defect.contrast_grey <= 80 or level == pytest.approx(1.0, abs=0.02)
    assert 2 < sum(level > 0.98 for level in found) < 12


def test_sizes_and_contrasts_are_log_uniform_in_what_a_kind_can_be() -> None:
    drawn = [planted("sim", "pinhole", index)[1] for index in range(60)]
    sizes = np.log([d.size_px for d in drawn])
    contrasts = np.log([-d.contrast_grey for d in drawn])
    for values, low, high in ((sizes, 2, 10), (contrasts, 6, 80)):
        assert stats.kstest(values, stats.uniform(math.log(low), math.log(high / low)).cdf).pvalue > 1e-3


def test_kinds_and_places_are_drawn_from_all_there_are() -> None:
    images = list(field_images(SIM, SEED, 48, spec=FieldSpec(rows=1, columns=2), role=Role.DEFECTIVE))
    kinds = [image.planted[0].defect.kind for image in images]
    assert set(kinds) == set(KIND_NAMES)
    assert max(map(kinds.count, KIND_NAMES)) <= 20
    for image in images:
        x0, y0, x1, y1 = image.planted[0].box
        assert -0.5 <= x0 < x1 <= 95.5
        assert -0.5 <= y0 < y1 <= 71.5
        kind = KINDS[KIND_NAMES.index(image.planted[0].defect.kind)]
        assert kind.light if image.planted[0].defect.contrast_grey > 0 else kind.dark


def test_pinholes_and_scratches_keep_to_the_plateau() -> None:
    for index in range(8):
        for kind in ("pinhole", "scratch"):
            field, _, added = planted("sim", kind, index)
            assert not np.abs(added[field.surface.profile == 1.0]).any()


def test_several_defects_are_measured_each_for_itself() -> None:
    product = draw_product(SIM, SMALL, SEED)
    both = field_image(product, Role.DEFECTIVE, 0, DefectSpec(kinds=("particle",), count=2))
    alone = field_image(product, Role.DEFECTIVE, 0, DefectSpec(kinds=("particle",)))
    assert len(both.planted) == 2
    assert both.planted[0].defect == alone.planted[0].defect
    assert np.array_equal(both.planted[0].mask, alone.planted[0].mask)
    assert both.planted[1].defect.x != both.planted[0].defect.x


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (FieldSpec(rows=0), "--rows 0"),
        (FieldSpec(rows=100, columns=100), "Mpx"),
        (FieldSpec(shift_px=24.0), "half a cell"),
        (FieldSpec(shift_px=-1.0), "--shift-px -1"),
        (FieldSpec(angle_deg=6.0), "from 0 to 5"),
        (FieldSpec(bits=12), "8 or 16"),
        (FieldSpec(process=-0.1), "process"),
        (FieldSpec(gain_std=math.nan), "gain_std"),
    ],
)
def test_a_field_that_cannot_be_is_refused(spec: FieldSpec, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        field_images(SIM, SEED, 1, spec=spec)


@pytest.mark.parametrize(
    ("defects", "spec", "said"),
    [
        (DefectSpec(kinds=()), SMALL, "one or more of"),
        (DefectSpec(kinds=("dust",)), SMALL, "'dust' is unknown"),
        (DefectSpec(kinds=("bridge",)), FieldSpec(rows=1, columns=1), "joins two holes"),
        (DefectSpec(size_px=(4.0, 2.0)), SMALL, "size_px runs"),
        (DefectSpec(contrast_grey=(0.0, 2.0)), SMALL, "contrast_grey runs"),
        (DefectSpec(count=0), SMALL, "at least one"),
    ],
)
def test_defects_that_cannot_be_are_refused(defects: DefectSpec, spec: FieldSpec, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        field_images(SIM, SEED, 1, spec=spec, role=Role.DEFECTIVE, defects=defects)


# Small parts


@given(arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))))
@settings(max_examples=60, deadline=None)
def test_run_lengths_tell_the_mask(mask: np.ndarray) -> None:
    runs = _runs(mask)
    values = np.concatenate([np.full(length, n % 2, bool) for n, length in enumerate(runs)])
    assert np.array_equal(values.reshape(mask.shape, order="F"), mask)


@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_a_patch_lands_where_it_lies(left: int, top: int, height: int, width: int) -> None:
    canvas, patch = np.zeros((11, 13)), np.ones((height, width))
    here, there = on_canvas(canvas.shape, left, top, patch.shape)
    canvas[here] = patch[there]
    y, x = np.mgrid[:11, :13]
    assert np.array_equal(canvas == 1, (y >= top) & (y < top + height) & (x >= left) & (x < left + width))


def test_a_picture_tells_its_truth() -> None:
    image: FieldImage = field_image(draw_product(SIM, SMALL, SEED), Role.GOOD, 0)
    assert image.twin is None
    assert image.planted == ()
    assert image.pixels.dtype == np.uint8
    assert image.pixels.shape == (144, 144)
