"""Planes and forms are recovered exactly, invalid points never take part, and the fast kernel equals its slow twin."""

import math

import numpy as np
import pytest
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped

from waferlens.ops import surface
from waferlens.ops.level_range_rms import level_range_rms, level_range_rms_ref
from waferlens.ops.surface import Plane

SHAPE = (61, 83)
slopes = st.floats(-1e3, 1e3).filter(lambda v: v == 0 or abs(v) > 1e-6)
offsets = st.floats(-1e5, 1e5)


def holes(shape: tuple[int, int], share: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) >= share


@given(offsets, slopes, slopes, st.sampled_from([0.0, 0.2, 0.9]))
@settings(max_examples=40, deadline=None)
def test_a_plane_is_recovered_exactly(centre, slope_x, slope_y, missing):
    truth = Plane(centre, slope_x, slope_y)
    heights = truth.over(SHAPE)
    valid = holes(SHAPE, missing)
    heights[~valid] = 1e30  # what is not valid must not matter
    size = abs(centre) + 100 * (abs(slope_x) + abs(slope_y)) + 1
    for found in (
        surface.fit_plane(heights, valid),
        level_range_rms(heights, valid).plane,
        surface.fit_plane_robust(heights, valid).plane,
    ):
        assert found.centre == pytest.approx(centre, abs=1e-11 * size)
        assert found.slope_x == pytest.approx(slope_x, abs=1e-12 * size)
        assert found.slope_y == pytest.approx(slope_y, abs=1e-12 * size)


@given(slopes, slopes)
@settings(max_examples=25, deadline=None)
def test_levelling_does_not_see_a_tilt(slope_x, slope_y):
    rough = np.random.default_rng(3).normal(size=SHAPE)
    tilted = rough + Plane(7.0, slope_x, slope_y).over(SHAPE)
    flat, steep = level_range_rms(rough), level_range_rms(tilted)
    size = 1 + 100 * (abs(slope_x) + abs(slope_y))
    assert steep.rms == pytest.approx(flat.rms, abs=1e-12 * size)
    assert steep.range == pytest.approx(flat.range, abs=1e-12 * size)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("missing", ["none", "nan", "mask", "both"])
@pytest.mark.parametrize("shape", [(3, 3), (130, 257), (1, 9), (300, 2)])
def test_the_kernel_equals_its_twin(dtype, missing, shape):
    rng = np.random.default_rng(1)
    heights = (rng.normal(size=shape) + Plane(1000.0, 0.3, -0.7).over(shape)).astype(dtype)
    valid = None
    if missing in ("nan", "both"):
        heights[rng.random(shape) < 0.15] = math.nan
        heights.flat[-1] = math.inf
    if missing in ("mask", "both"):
        valid = rng.random(shape) < 0.8
    fast, slow = level_range_rms(heights, valid), level_range_rms_ref(heights, valid)
    assert fast.points == slow.points
    assert fast.plane.known == slow.plane.known
    if slow.plane.known:
        tolerance = 1e-10 * max(1.0, abs(slow.plane.centre))
        for name in ("centre", "slope_x", "slope_y"):
            assert getattr(fast.plane, name) == pytest.approx(getattr(slow.plane, name), abs=tolerance)
        assert fast.range == pytest.approx(slow.range, rel=1e-10, abs=1e-10)
        assert fast.rms == pytest.approx(slow.rms, rel=1e-10, abs=1e-10)


def test_an_offset_costs_no_digits():
    rough = np.random.default_rng(2).normal(size=(400, 300))
    fast, slow = level_range_rms(rough * 1e-9 + 0.0763), level_range_rms_ref(rough * 1e-9 + 0.0763)
    assert fast.rms == pytest.approx(slow.rms, rel=1e-10)
    assert fast.rms == pytest.approx(1e-9 * level_range_rms(rough).rms, rel=1e-7)


def test_threads_change_no_bit():
    heights = np.random.default_rng(4).normal(size=(700, 333))
    assert level_range_rms(heights, threads=1) == level_range_rms(heights, threads=7)


def test_the_levelled_map_is_written_where_room_is_given():
    heights = np.random.default_rng(5).normal(size=(150, 40)) + Plane(3.0, 0.1, 0.2).over((150, 40))
    valid = holes(heights.shape, 0.1)
    out = np.full(heights.shape, 99.0)
    found = level_range_rms(heights, valid, out=out)
    expected = np.where(valid, heights - found.plane.over(heights.shape), math.nan)
    np.testing.assert_allclose(out, expected, atol=1e-12)


@pytest.mark.parametrize("fit", [surface.fit_plane, lambda z: level_range_rms(z).plane,
                                 lambda z: surface.fit_plane_robust(z).plane])  # fmt: skip
def test_too_few_points_give_no_plane(fit):
    empty = np.full((5, 5), math.nan)
    assert not fit(empty).known
    two = empty.copy()
    two[0, 0] = two[3, 3] = 1.0
    assert not fit(two).known
    line = empty.copy()
    line[2] = 1.0
    assert not fit(line).known


def test_a_third_of_spikes_does_not_pull_the_robust_plane():
    truth = Plane(5.0, 0.02, -0.03)
    rng = np.random.default_rng(6)
    heights = truth.over(SHAPE) + 0.01 * rng.normal(size=SHAPE)
    spikes = rng.random(SHAPE) < 0.33
    heights[spikes] += 50 + 20 * rng.random(int(spikes.sum()))
    found = surface.fit_plane_robust(heights)
    assert found.plane.slope_x == pytest.approx(0.02, abs=1e-4)
    assert found.plane.slope_y == pytest.approx(-0.03, abs=1e-4)
    # The median over good points and spikes together is a high quantile of the good ones alone.
    assert 0.01 < found.scale < 0.03
    np.testing.assert_array_equal(found.inliers, ~spikes)
    pulled = surface.fit_plane(heights)
    assert abs(pulled.centre - 5.0) > 10


def test_a_flat_ground_has_no_outliers_of_rounding():
    found = surface.fit_plane_robust(Plane(0.1, 0.3, 0.7).over(SHAPE))
    assert found.inliers.all()


def test_a_quadratic_form_is_recovered_exactly():
    x, y = surface.centred_axes(SHAPE)
    form = 4 + 0.3 * x[None, :] - 0.2 * y[:, None] + 0.01 * x[None, :] ** 2 - 0.02 * y[:, None] ** 2
    form = form + 0.005 * x[None, :] * y[:, None]
    valid = holes(SHAPE, 0.4)
    damaged = np.where(valid, form, math.nan)
    np.testing.assert_allclose(surface.polynomial_form(damaged, order=2), form, atol=1e-10)


def test_three_points_define_the_plane():
    heights = Plane(2.0, 0.5, -0.25).over((50, 70))
    found = surface.fit_plane_through(heights, [(5, 5), (60, 8), (30, 44)])
    assert (found.centre, found.slope_x, found.slope_y) == pytest.approx((2.0, 0.5, -0.25), abs=1e-12)
    assert not surface.fit_plane_through(heights, [(5, 5), (15, 15), (25, 25)]).known
    with pytest.raises(ValueError, match="outside the map of 70 x 50"):
        surface.fit_plane_through(heights, [(5, 5), (60, 8), (30, 50)])
    heights[:12, :12] = math.nan
    with pytest.raises(ValueError, match=r"no valid point within 2 px of \(5, 5\)"):
        surface.fit_plane_through(heights, [(5, 5), (60, 8), (30, 44)])


def test_three_points_stand_on_valid_ground():
    y, x = np.mgrid[:200, :300]
    disc = np.hypot(x - 180, y - 90) < 60
    places = surface.three_points(disc)
    assert len(places) == 3
    assert all(disc[int(row), int(column)] for column, row in places)
    distances = [math.hypot(column - 180, row - 90) for column, row in places]
    assert distances == pytest.approx([48] * 3, abs=2)
    assert surface.three_points(np.zeros((4, 4), bool)) == []


def test_percentiles_cut_both_ends():
    heights = np.arange(1000.0).reshape(20, 50)
    kept = surface.within_percentiles(heights, percent=1)
    assert heights[kept].min() == 10
    assert heights[kept].max() == 989


def test_signatures_mean_what_they_say():
    checked = jaxtyped(typechecker=beartype)
    heights = np.random.default_rng(7).normal(size=SHAPE)
    valid = holes(SHAPE, 0.1)
    checked(surface.fit_plane)(heights, valid)
    checked(surface.polynomial_form)(heights, valid)
    checked(surface.fit_plane_robust)(heights, valid)
    checked(level_range_rms_ref)(heights, valid)
    with pytest.raises(Exception, match="type"):
        checked(surface.fit_plane)(heights, valid[:5])
