"""The auto-focus sensor against what can be worked out by hand, and against the figures of S0."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from waferlens.records import COUNTS_PER_UM
from waferlens.simulate.wafer.af import AfSensor, af_track, column_reading
from waferlens.simulate.wafer.field import label_strip
from waferlens.simulate.wafer.scene import FIELD_UM

HARD = AfSensor(softness_um=0.05, mean_share=0.0, lag_ms=0.0, velocity_ripple=0.0)
"""The sensor as S0 tells of it: the highest of the column, at once."""


def scan(height: np.ndarray, sensor: AfSensor = HARD, pitch: float = FIELD_UM / 684, noise=None, **others):
    flat = np.full_like(height, 0.3)
    return af_track(height, flat, pitch, sensor, np.random.default_rng(1), noise, **others)


def field(level: float) -> np.ndarray:
    return np.full((684, 684), level, np.float32)


def test_a_field_has_247_samples_22_75_um_apart():
    trace = scan(field(775.0))
    assert HARD.step_um == pytest.approx(22.75)
    assert len(trace.x_counts) in (246, 247)
    assert np.abs(np.diff(trace.x_counts) - 728).max() <= 1  # 728 counts a sample in S0's script


def test_the_highest_of_the_column_wins():
    # S0's example: structures of 100 and 150 um on one column are read as 150
    both = field(100.0)
    both[:200] = 150.0
    assert scan(both).z_um == pytest.approx(150.0, abs=0.05)
    assert scan(field(100.0)).z_um == pytest.approx(100.0, abs=0.05)


def test_readings_of_a_top_and_of_a_missing_die():
    assert (scan(field(775.0)).z_counts == 0).all()
    assert (scan(field(0.0)).z_counts == 24_800).all()
    assert (label_strip(scan(field(775.0))) == 255.0).all()
    assert label_strip(scan(field(0.0)))[0, 0] == pytest.approx(255 * 200 / 25000)
    assert (label_strip(scan(field(-100.0))) == 0.0).all()  # clamped at 25,000


def test_the_maximum_is_soft_where_it_is_told_to_be():
    # two heights of equal area and light: weights e^(-d/T) and 1, and a share of the plain mean
    height = field(700.0)
    height[342:] = 690.0
    sensor = replace(HARD, softness_um=12.0, mean_share=0.25)
    weight = np.exp(-10.0 / 12.0)
    expected = 0.75 * (700 + 690 * weight) / (1 + weight) + 0.25 * 695
    reading, _ = column_reading(height, np.full_like(height, 0.3), 8.197, sensor)
    assert reading == pytest.approx(expected, abs=0.02)  # rows of the footprint see both heights


def test_light_decides_within_the_footprint():
    # steep and dark places send nothing back: the height of the rest is what is seen
    height, light = field(100.0), field(0.3)
    height[:, ::2], light[:, ::2] = 400.0, 0.0
    reading, signal = column_reading(height, light, 8.197, HARD)
    assert reading[10:-10] == pytest.approx(100.0)
    assert signal[10:-10] == pytest.approx(0.15, abs=0.06)


@pytest.mark.parametrize("lag_ms", [0.4, 1.5])
@pytest.mark.parametrize("direction", [1, -1])
def test_the_lag_is_speed_times_time_constant(lag_ms, direction):
    sensor = replace(HARD, lag_ms=lag_ms, footprint_um=(1.0, 1.0))
    lags = []
    for place in range(2171, 2171 + 18, 3):  # of the edge between two samples
        height = np.zeros((4, 4342), np.float32)
        height[:, place:] = 400.0
        trace = scan(height, sensor, FIELD_UM / 4342, direction=direction)
        x, z = trace.x_counts / COUNTS_PER_UM, trace.z_um
        order = np.argsort(x)
        reach = x.max() - np.trapezoid(z[order], x[order]) / 400.0
        lags.append(direction * (reach - place * FIELD_UM / 4342))
    # straight lines between samples let an edge begin half a sample before it was met
    assert np.mean(lags) + 0.5 * 22.75 == pytest.approx(182 * lag_ms, rel=0.05)


@pytest.mark.parametrize("direction", [1, -1])
def test_the_latency_is_whole_samples(direction):
    height = np.tile(np.linspace(0, 700, 684, dtype=np.float32), (8, 1))
    at_once, late = (scan(height, replace(HARD, latency_samples=n), direction=direction) for n in (0, 3))
    np.testing.assert_array_equal(at_once.x_counts, late.x_counts)
    np.testing.assert_array_equal(at_once.z_counts[:-3], late.z_counts[3:])


def test_speed_ripples_and_the_encoder_tells():
    ripple = 0.015
    trace = scan(np.zeros((4, 684 * 8), np.float32), replace(HARD, velocity_ripple=ripple))
    steps = np.diff(trace.x_counts) / 728
    assert steps.max() == pytest.approx(1 + ripple, abs=0.003)
    assert steps.min() == pytest.approx(1 - ripple, abs=0.003)
    assert steps.mean() == pytest.approx(1.0, abs=0.002)


def test_noise_is_what_it_is_said_to_be():
    height = np.full((4, 684 * 40), 300.0, np.float32)
    trace = scan(height, replace(HARD, noise_counts=90.0, dropout=0.0), noise=np.random.default_rng(2))
    assert np.std(trace.z_counts) == pytest.approx(90.0, rel=0.03)
    assert trace.valid.all()


def test_dropouts_hold_or_lose_the_lock_and_are_flagged():
    height = np.full((4, 684 * 40), 300.0, np.float32)
    trace = scan(height, replace(HARD, noise_counts=0.0, dropout=0.02), noise=np.random.default_rng(3))
    assert (~trace.valid).mean() == pytest.approx(0.02 * 2.5, rel=0.25)  # runs of 1 to 4
    gone = trace.z_um[~trace.valid]
    lost = gone > 320
    assert lost.mean() == pytest.approx(0.3, abs=0.08)
    assert (gone[lost] >= 499).all()
    assert (gone[lost] <= 1501).all()
    assert (trace.z_um[trace.valid] == 300.0).all()


def test_one_seed_is_one_trace_at_any_pitch():
    def made(grid: int) -> np.ndarray:
        edges = (np.arange(grid) + 0.5) / grid
        height = np.tile(np.where((edges > 0.3) & (edges < 0.7), 500.0, 0.0).astype(np.float32), (grid // 8, 1))
        flat = np.full_like(height, 0.3)
        rngs = np.random.default_rng(4), np.random.default_rng(5)
        return af_track(height, flat, FIELD_UM / grid, AfSensor(), *rngs)

    coarse, fine = made(684), made(2280)
    np.testing.assert_array_equal(coarse.x_counts, fine.x_counts)
    near = np.abs(coarse.z_um - fine.z_um)
    assert np.median(near) < 0.1
    assert np.quantile(near, 0.95) < 20.0  # next to the two edges


def test_beyond_the_wafer_the_reading_is_wild():
    height = np.full((8, 684 * 8), 400.0, np.float32)
    height[:, :2000] = np.nan
    trace = scan(height, replace(HARD, dropout=0.0), pitch=FIELD_UM / 684, noise=np.random.default_rng(6))
    away = trace.x_counts / COUNTS_PER_UM < 2000 * FIELD_UM / 684 - 30
    assert not trace.valid[away].any()
    inner = trace.z_counts[away][5:-8]
    assert np.std(inner) == pytest.approx(3000, rel=0.15)
    edge = trace.z_counts[~trace.valid].min()
    assert -60_000 <= edge <= -20_000
    assert trace.z_um[~away][5:] == pytest.approx(400.0, abs=15.0)


def test_the_encoder_may_begin_anywhere():
    height = field(200.0)
    here, there = scan(height), scan(height, x0_um=1000.0)
    np.testing.assert_array_equal(there.x_counts - here.x_counts, 32_000)
