"""A field on a network's grid: areas are averaged exactly, columns lie where their encoder says, gaps stay gaps."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from waferlens.prepare.wafer_geometry import LONGEST_GAP_UM, area_resampled, column_values, values_at
from waferlens.prepare.wafer_input import DIE, MISSING, STREET, class_map, grid, scan_direction, shown
from waferlens.records import COUNTS_PER_UM, Die, StageTrace


def overlaps(count: int, pitch: Fraction, cells: int, wide: Fraction) -> np.ndarray:
    """Share of each new cell that each pixel takes, worked out in fractions."""
    share = np.zeros((cells, count))
    for cell in range(cells):
        for pixel in range(count):
            low, high = max(cell * wide, pixel * pitch), min((cell + 1) * wide, (pixel + 1) * pitch)
            if high > low:
                share[cell, pixel] = float((high - low) / wide)
    return share


@pytest.mark.parametrize("ratio", [Fraction(3, 2), Fraction(5), Fraction(19, 7), Fraction(4, 5)])
def test_area_means_are_exact(ratio: Fraction) -> None:
    image = np.random.default_rng(1).integers(0, 65536, (23, 31)).astype(np.uint16)
    rows, columns = int(23 / ratio), int(31 / ratio)
    expected = overlaps(23, Fraction(1), rows, ratio) @ image @ overlaps(31, Fraction(1), columns, ratio).T
    made = area_resampled(image, 2.0, 2.0 * float(ratio), height=rows, width=columns)
    assert made == pytest.approx(expected, rel=2e-6)


def test_a_whole_field_scaled_to_a_fixed_size_keeps_its_mean() -> None:
    image = np.random.default_rng(2).integers(0, 65536, (57, 95)).astype(np.uint16)
    seen = shown(image, 4.0, None, network_pitch_um=None, size_px=(19, 10))
    assert seen.image.shape == (19, 10)
    assert seen.pitch_um == pytest.approx(95 * 4.0 / 10)
    assert seen.image.mean() == pytest.approx(image.mean() / 65535, rel=1e-5)
    expected = overlaps(57, Fraction(1), 19, Fraction(3)) @ image @ overlaps(95, Fraction(1), 10, Fraction(19, 2)).T
    assert seen.image == pytest.approx(expected / 65535, rel=1e-5)


def test_grey_values_are_shares_of_white() -> None:
    dark, white = np.zeros((8, 8), np.uint8), np.full((8, 8), 255, np.uint8)
    assert (shown(white, 8.0, None, network_pitch_um=8.0, full_scale=255.0).image == 1).all()
    assert (shown(dark, 8.0, None, network_pitch_um=4.0).image == 0).all()
    with pytest.raises(ValueError, match="needs a size"):
        shown(white, 8.0, None, network_pitch_um=None)


@pytest.mark.parametrize(("count", "pitch", "cells"), [(4342, 1.2913298, 684), (684, 8.197, 684), (114, 49.18, 684)])
def test_a_field_has_as_many_cells_on_every_grid(count: int, pitch: float, cells: int) -> None:
    assert grid(count, pitch, 8.197) == cells


def trace(x_um: np.ndarray, z_um: np.ndarray, valid: np.ndarray | None = None, **others: object) -> StageTrace:
    z_ref = 775.0
    counts = np.rint(COUNTS_PER_UM * x_um).astype(np.int64)
    return StageTrace(
        counts, np.zeros_like(counts), np.rint(COUNTS_PER_UM * (z_ref - z_um)).astype(np.int64),
        np.ones(len(counts), bool) if valid is None else valid, z_ref_um=z_ref, **others,
    )  # fmt: skip


def test_columns_are_read_at_the_exact_place_of_their_encoder() -> None:
    # heights that rise by a count a um: between samples, at any places, the straight line is exact
    rng = np.random.default_rng(3)
    x = np.cumsum(np.rint(rng.uniform(15, 30, 400) * COUNTS_PER_UM)) / COUNTS_PER_UM
    z = np.rint(x) / COUNTS_PER_UM
    x = np.rint(x)
    pitch = 8.197
    width = int(x[-1] / pitch)
    centres = pitch * (np.arange(width) + 0.5)
    inside = centres > x[0]
    for made in (trace(x, z), trace(x[::-1], z[::-1])):  # either direction
        track, objective = column_values(made, pitch, width)
        assert objective is None
        assert track[inside] == pytest.approx(centres[inside] / COUNTS_PER_UM, abs=1e-4)  # of 250 um, in float32
    far = column_values(trace(x, z), pitch, 10, x0_um=4321.5)[0]
    assert far == pytest.approx((4321.5 + centres[:10]) / COUNTS_PER_UM, abs=1e-4)
    # at the sample itself, its very value
    assert column_values(trace(x, z), 0.001, 1, x0_um=x[7])[0][0] == pytest.approx(z[7], abs=1e-4)


def test_rounding_does_not_add_up() -> None:
    # 302.7 mm of samples 22.75 um apart: the last column is read as exactly as the first
    x = 22.75 * np.arange(13_300)
    steps = (np.arange(len(x)) % 2) * 100.0
    pitch, width = 8.197, int(x[-1] / 8.197)
    track, _ = column_values(trace(x, steps), pitch, width)
    centres = pitch * (np.arange(width) + 0.5)
    phase = centres / 22.75 % 2
    expected = 100 * np.where(phase < 1, phase, 2 - phase)
    assert np.abs(track - expected)[-500:] == pytest.approx(0, abs=0.05)
    assert np.abs(track - expected).max() < 0.05


def test_gaps_are_not_known() -> None:
    x = 20.0 * np.arange(100)
    z = np.full(100, 300.0)
    valid = np.ones(100, bool)
    valid[30:34] = False  # 100 um from one valid sample to the next: bridged
    valid[60:65] = False  # 120 um: not
    z[~valid] = 1500.0
    track, _ = column_values(trace(x, z, valid), 10.0, 198)
    centres = 10.0 * (np.arange(198) + 0.5)
    unknown = (centres > 20 * 59) & (centres < 20 * 65)
    assert LONGEST_GAP_UM == 100.0
    assert np.isnan(track[unknown]).all()
    assert (track[~unknown] == 300.0).all()


def test_beyond_the_samples_is_known_for_as_long_as_a_gap() -> None:
    found = values_at(np.array([-150.0, -50.0, 0.0, 100.0, 150.0, 250.0]), np.array([0.0, 100.0]), np.array([5.0, 7.0]))
    assert np.isnan(found[[0, 5]]).all()
    assert found[[1, 2, 3, 4]].tolist() == [5.0, 5.0, 7.0, 7.0]
    assert np.isnan(values_at(np.array([1.0]), np.empty(0), np.empty(0))).all()


def test_focus_is_known_where_it_was_told() -> None:
    x = 20.0 * np.arange(50)
    objective = np.where(np.arange(50) < 25, 640.0, np.nan)
    track, focus = column_values(trace(x, np.full(50, 300.0), objective_z_um=objective), 10.0, 98)
    assert focus is not None
    assert (focus[:49] == 640.0).all()
    assert np.isnan(focus[70:]).all()
    assert (track == 300.0).all()
    seen = shown(np.zeros((8, 98), np.uint16), 10.0, trace(x[::-1], np.full(50, 300.0)), network_pitch_um=10.0)
    assert seen.direction == -1
    assert np.isnan(seen.objective_z_um).all()
    assert scan_direction(trace(x, x)) == 1


def test_a_pixel_belongs_to_the_site_its_centre_lies_in() -> None:
    present = Die((10.0, 10.0, 30.0, 25.0), "present")
    gone = Die((-20.0, 25.0, 30.0, 90.0), "missing")
    kinds = class_map([present, gone], 10.0, 5, 4)
    assert kinds.tolist() == [
        [STREET, STREET, STREET, STREET],
        [STREET, DIE, DIE, STREET],
        [MISSING, MISSING, MISSING, STREET],
        [MISSING, MISSING, MISSING, STREET],
        [MISSING, MISSING, MISSING, STREET],
    ]
