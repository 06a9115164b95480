"""Samples on a grid: against numpy, against hand-made cases, and the same bits with any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waferlens.ops.gridding import grid_samples


def test_by_hand():
    x = np.array([0.0, 1.9, 2.0, 5.99, -0.01, 6.0, 1.0, np.nan, 1.0])
    y = np.array([0.0, 1.9, 2.0, 3.99, 1.0, 1.0, -1e-9, 1.0, 1.0])
    z = np.array([1.0, 4.0, 7.0, 9.0, 50.0, 50.0, 50.0, 50.0, np.nan])
    made = grid_samples(x, y, z, (2, 3), 2.0, highest=True)
    assert made.count.tolist() == [[2, 0, 0], [0, 1, 1]]
    np.testing.assert_array_equal(made.mean, np.float32([[2.5, np.nan, np.nan], [np.nan, 7, 9]]))
    np.testing.assert_array_equal(made.highest, np.float32([[4, np.nan, np.nan], [np.nan, 7, 9]]))
    assert made.left_out == 5


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3000),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 7),
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 2**32),
)
def test_as_numpy_has_it(count, h, w, threads, kind, seed):
    rng = np.random.default_rng(seed)
    x, y = (rng.uniform(-1, 1.1 * n + 1, count).astype(kind) for n in (w, h))
    z = rng.normal(500, 200, count).astype(kind)
    z[rng.random(count) < 0.02] = np.inf
    made = grid_samples(x, y, z, (h, w), 1.0, highest=True, threads=threads)
    kept = (x >= 0) & (x < w) & (y >= 0) & (y < h) & np.isfinite(z)
    cell = y[kept].astype(int) * w + x[kept].astype(int)
    counts = np.bincount(cell, minlength=h * w)
    np.testing.assert_array_equal(made.count.ravel(), counts)
    assert made.left_out == count - kept.sum()
    with np.errstate(invalid="ignore"):
        means = np.bincount(cell, z[kept].astype(np.float64), minlength=h * w) / counts
    np.testing.assert_allclose(made.mean.ravel(), means, rtol=3e-7)
    highest = np.full(h * w, -np.inf)
    np.maximum.at(highest, cell, z[kept].astype(np.float64))
    np.testing.assert_allclose(made.highest.ravel(), np.where(counts, highest, np.nan), rtol=1e-7)


def test_threads_do_not_change_a_bit():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 500, (2, 200_000)).astype(np.float32)
    z = rng.normal(300, 200, 200_000).astype(np.float32)
    one, *others = (grid_samples(x, y, z, (97, 103), 5.0, highest=True, threads=n) for n in (1, 2, 3, 97, 200))
    for other in others:
        assert other.mean.tobytes() == one.mean.tobytes()
        assert other.count.tobytes() == one.count.tobytes()
        assert other.highest.tobytes() == one.highest.tobytes()
        assert other.left_out == one.left_out


def test_many_samples_of_one_cell_lose_no_digits():
    z = np.full(3_000_000, 775.1, np.float32)
    made = grid_samples(np.zeros_like(z), np.zeros_like(z), z, (1, 1), 1.0)
    assert made.mean[0, 0] == np.float32(775.1)


def test_the_origin_moves_the_grid():
    rng = np.random.default_rng(1)
    x, y, z = rng.uniform(0, 30, (3, 1000))
    a = grid_samples(x, y, z, (30, 30), 1.0)
    b = grid_samples(x + 1e6, y - 1e3, z, (30, 30), 1.0, origin=(1e6, -1e3))
    assert (a.count != b.count).mean() < 0.01
    assert b.left_out == 0


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"z": np.zeros(4)}, "3, 3 and 4 samples"),
        ({"shape": (0, 5)}, "needs cells"),
        ({"pitch": float("nan")}, "needs cells"),
        ({"threads": 0}, "threads=0"),
    ],
)
def test_what_cannot_be_gridded_is_told(fault, told):
    call = {"x": np.zeros(3), "y": np.zeros(3), "z": np.zeros(3), "shape": (4, 5), "pitch": 1.0, **fault}
    with pytest.raises(ValueError, match=told):
        grid_samples(**call)
