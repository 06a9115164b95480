"""Splits that do not leak or move, and the one geometry function."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from waferlens.errors import InputError, UsageError
from waferlens.prepare.geometry import batch_input, stack_input, to_heights, to_input
from waferlens.prepare.splits import FRACTIONS, position, split_all, split_of
from waferlens.records import Image


def test_a_group_stays_where_it_is():
    # written down once: a change of the hash would move every structure of every user
    assert [split_of(f"structure_{n}") for n in range(8)] == list(split_all([f"structure_{n}" for n in range(8)]))
    assert position("structure_0") == 0.8082759374965628


@given(st.text(max_size=20), st.text(max_size=5))
def test_position_is_in_the_unit_interval(name, salt):
    assert 0 <= position(name, salt) < 1


def test_shares_are_met():
    sides = split_all([f"s{n}" for n in range(20000)])
    for side, share in FRACTIONS.items():
        assert np.mean(sides == side) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 20000))


def test_salts_are_independent():
    a, b = (split_all([f"s{n}" for n in range(5000)], {"x": 0.5, "y": 0.5}, salt) == "x" for salt in ("1", "2"))
    assert np.mean(a & b) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("fractions", [{}, {"a": 0.5}, {"a": 1.5, "b": -0.5}])
def test_shares_that_are_none_are_refused(fractions):
    with pytest.raises(UsageError, match="sum to 1"):
        split_of("a", fractions)


def test_sixteen_bits_keep_their_steps():
    pixels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    grey = to_input(Image(pixels, 65535), 256, 256)
    assert grey.dtype == np.float32
    assert np.array_equal(grey, (pixels / 257).astype(np.float32))
    assert len(np.unique(grey)) == 65536
    assert grey[-1, -1] == 255


def test_all_types_agree():
    eight = np.arange(256, dtype=np.uint8).reshape(16, 16)
    images = [
        Image(eight, 255),
        Image(eight.astype(np.uint16) * np.uint16(257), 65535),
        Image(eight.astype(np.float32), 255),
        Image((eight / 255).astype(np.float32), 1.0),
    ]
    batch = stack_input(images, 16, 16)
    assert np.array_equal(batch[:1], batch_input(eight[np.newaxis]))
    assert np.array_equal(batch[0], batch[1])
    assert np.array_equal(batch[0], batch[2])
    np.testing.assert_allclose(batch[3], batch[0], rtol=1e-6)


def test_another_size_is_refused_with_both():
    with pytest.raises(InputError, match=r"a\.png: the image is 45x66 px .* trained for 48x72 px"):
        to_input(Image(np.zeros((66, 45), np.uint8), 255, path="a.png"), 72, 48)


def test_heights_have_the_plateau_at_zero():
    maps = np.full((2, 3, 4), 150, np.float32)
    heights = to_heights(maps, np.array([150.0, np.nan]))
    assert heights.dtype == np.float32
    assert (heights[0] == 0).all()
    assert (heights[1] == 150).all()
