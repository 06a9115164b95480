"""Synchronisation against streams whose latency, lag and offset are known because they were put in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from waferlens.errors import InputError, UsageError
from waferlens.formats.swath import Swath
from waferlens.prepare.sync import Synced, strip_label, synchronised
from waferlens.prepare.sync_stream import exact_px, repaired, rounded_px
from waferlens.records import COUNTS_PER_UM, StageTrace
from waferlens.simulate.wafer.af import AfSensor, af_track, scan_positions

PITCH_UM = 1.2913298
COLUMNS = 70_000
ROWS = 6


def scene(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Heights, reflectances and grey of dies with blocks of their own, over 90 mm."""
    rng = np.random.default_rng(seed)
    x = (np.arange(COLUMNS) + 0.5) * PITCH_UM
    pitch, street = 5200.0, 300.0
    cuts, greys = np.sort(rng.uniform(200, 4700, 6)), rng.uniform(0.2, 0.6, 7)
    place = (x + 1700.0) % pitch
    die = place < pitch - street
    height = np.where(die, 500.0, 0.0)
    light = np.where(die, greys[np.searchsorted(cuts, place)], 0.06)
    grey = np.convolve(light, np.ones(5) / 5, mode="same") + rng.normal(0, 0.003, COLUMNS)
    rows = np.ones((ROWS, 1), np.float32)
    return (rows * height).astype(np.float32), (rows * light).astype(np.float32), grey


def scanned(direction: int, sensor: AfSensor, *, offset: float = 0.0, noise: bool = True, seed: int = 0) -> StageTrace:
    height, light, _ = scene()
    rngs = np.random.default_rng([seed, direction + 1]), np.random.default_rng([seed, direction + 5])
    return af_track(
        height,
        light,
        PITCH_UM,
        sensor,
        rngs[0],
        rngs[1] if noise else None,
        direction=direction,
        x0_um=-offset,
    )


def image() -> Swath:
    grey = scene()[2]
    return Swath("swath.tif", grey, ROWS, 16, np.tile(grey[::50], (4, 1)).astype(np.float32))


SENSOR = AfSensor(lag_ms=1.2, latency_samples=2, velocity_ripple=0.015, noise_counts=90.0)


@pytest.fixture(scope="module")
def both() -> Synced:
    there, back = (scanned(way, SENSOR, offset=-321.0) for way in (1, -1))
    return synchronised(there, image(), PITCH_UM, opposite=back)


def test_every_encoder_value_has_its_exact_place():
    sensor = replace(SENSOR, latency_samples=0)
    trace = scanned(1, sensor, noise=False)
    true = scan_positions(sensor, COLUMNS * PITCH_UM, 1, np.random.default_rng([0, 2]))
    true = true[(true >= 0) & (true <= COLUMNS * PITCH_UM)] / PITCH_UM - 0.5
    miss = exact_px(trace.x_counts, PITCH_UM) - true
    assert np.sqrt(np.mean(miss**2)) < 0.01
    assert (
        np.abs(miss).max() <= 0.5 / COUNTS_PER_UM / PITCH_UM + 1e-6
    )  # half a count, from the first sample to the last
    assert np.abs(rounded_px(trace.x_counts, PITCH_UM) - true).max() > 20


def test_whole_pixels_drift_as_worked_out_by_hand():
    # 728 counts are 17.617 px and become 18: 0.383 px a sample
    counts = 728 * np.arange(1001)
    drift = rounded_px(counts, PITCH_UM) - exact_px(counts, PITCH_UM)
    assert drift[0] == 0
    assert drift[-1] == pytest.approx(1000 * (18 - 22.75 / PITCH_UM))


@given(st.integers(-(2**31), 2**31), st.floats(0.1, 100))
def test_places_are_the_inverse_of_the_encoder(count, pitch):
    place = exact_px(np.array([count]), pitch)
    assert (place[0] + 0.5) * pitch * COUNTS_PER_UM == pytest.approx(count, abs=1e-3)


def test_latency_lag_and_offset_are_told_apart(both):
    report = both.report()
    assert report["separated"]
    assert report["latency_samples"] == 2
    assert report["lag_ms"] == pytest.approx(1.2, abs=0.03)
    assert report["offset_um"] == pytest.approx(-321.0, abs=4.0)
    assert report["drift_px"] > 20


def test_end_to_end_within_5_um(both):
    trace = scanned(1, SENSOR, offset=-321.0)
    keep = np.exp(-0.125 / 1.2)
    number = np.arange(len(trace.x_counts))
    x = trace.x_counts / COUNTS_PER_UM - 321.0
    shows = np.interp(number - 2 - keep / (1 - keep), number, x)
    miss = (both.places_px + 0.5) * PITCH_UM - shows
    assert np.sqrt(np.mean(miss[50:] ** 2)) < 5.0


def test_the_label_lies_on_the_columns(both):
    height = scene()[0][0]
    assert both.label_um.shape == (COLUMNS,)
    known = np.isfinite(both.label_um)
    assert known.mean() > 0.98
    assert np.median(np.abs(both.label_um - height)[known]) < 5.0
    # half of the edge is passed where it is: the mean of two directions leans to neither side
    above = both.label_um > 250
    edges, true = (np.flatnonzero(np.diff(part.astype(int))) for part in (above[known], height[known] > 250))
    miss = np.array([edges[np.abs(edges - place).argmin()] - place for place in true[1:-1]]) * PITCH_UM
    assert abs(np.mean(miss)) < 6.0


def test_one_direction_says_that_it_cannot_part_them():
    done = synchronised(scanned(1, SENSOR, offset=200.0), image(), PITCH_UM)
    report = done.report()
    assert not report["separated"]
    assert report["latency_samples"] is None
    assert any("cannot be told apart" in note for note in report["notes"])
    # latency and offset in one figure: two samples of 22.75 um
    assert report["offset_um"] == pytest.approx(200.0 - 2 * 22.75, abs=8.0)


def test_one_direction_with_a_known_sensor():
    report = synchronised(scanned(-1, SENSOR, offset=200.0), image(), PITCH_UM, latency_samples=2, lag_ms=1.2).report()
    assert report["separated"]
    assert report["offset_um"] == pytest.approx(200.0, abs=5.0)


def test_an_image_without_edges_gives_no_offset():
    blank = Swath("blank.tif", np.full(COLUMNS, 0.3), ROWS, 16, np.zeros((4, 4), np.float32))
    done = synchronised(scanned(1, SENSOR), blank, PITCH_UM)
    assert done.match is None
    assert done.report()["rms_px"] is None
    assert any("do not fit" in note for note in done.notes)


def test_another_image_gives_no_offset():
    rng = np.random.default_rng(9)
    other = np.repeat(rng.uniform(0.2, 0.6, COLUMNS // 50), 50) + rng.normal(0, 0.003, COLUMNS // 50 * 50)
    foreign = Swath("other.tif", other, ROWS, 16, np.zeros((4, 4), np.float32))
    done = synchronised(scanned(1, SENSOR), foreign, PITCH_UM, latency_samples=2, lag_ms=1.2)
    assert done.match is None or done.match.rms_um > 5.0


def test_faults_of_the_stream_are_found_without_its_flag():
    trace = scanned(1, replace(SENSOR, dropout=0.0))
    z, x = trace.z_counts.copy(), trace.x_counts.copy()
    held, lost, jumps = [500, 501, 900], [1500, 1501, 1502, 2200], [300, 1234, 3000]
    for place in held:
        z[place] = z[place - 1]
    z[lost] -= 20_000
    x[jumps] += [40_000, -1_000_000, 70_000]
    before = repaired(trace)
    stream = repaired(replace(trace, x_counts=x, z_counts=z))
    assert np.isnan(stream.z_um[held + lost]).all()
    assert stream.lost == before.lost + len(lost)
    assert stream.held - before.held in range(3, 5)  # noise repeats itself now and then
    assert stream.glitches == 3
    np.testing.assert_allclose(stream.x_um, trace.x_counts / COUNTS_PER_UM, atol=0.5)


def test_what_lies_beside_the_wafer_is_left_out():
    height, light, _ = scene()
    height = height.copy()
    height[:, :3000], height[:, -2000:] = np.nan, np.nan
    trace = af_track(
        height,
        light,
        PITCH_UM,
        replace(SENSOR, dropout=0.0),
        np.random.default_rng(1),
        np.random.default_rng(2),
    )
    stream = repaired(replace(trace, valid=np.ones(len(trace.valid), bool)))
    truly = (~trace.valid).sum()
    assert abs(stream.off_wafer - truly) <= 20
    x = trace.x_counts / COUNTS_PER_UM
    seen = np.isfinite(stream.z_um)
    assert x[seen].min() > 3000 * PITCH_UM - 400
    assert x[seen].max() < (COLUMNS - 2000) * PITCH_UM + 400
    assert np.nanmax(np.abs(stream.z_um - 250)) < 400


def _trace(x: np.ndarray, **others: object) -> StageTrace:
    rng = np.random.default_rng(0)
    z = np.rint(rng.normal(8000, 90, len(x))).astype(np.int64)
    return replace(StageTrace(x.astype(np.int64), 0 * x.astype(np.int64), z, np.ones(len(x), bool)), **others)


@pytest.mark.parametrize(
    ("trace", "told"),
    [
        (_trace(np.arange(5) * 728), "has 5 samples"),
        (_trace(np.full(500, 77)), "stands still"),
        (_trace(np.r_[np.arange(600), np.arange(600, 200, -1)] * 728), "turns back at sample 60"),
        (_trace(np.arange(500) * 728, valid=np.zeros(500, bool)), "none of its 500 readings is valid"),
        (_trace(np.random.default_rng(0).permutation(500) * 728), "turns back|jump"),
        (_trace(np.arange(500) * 728), r"the stream is too short"),
    ],
)
def test_a_stream_that_cannot_be_laid_is_told(trace, told):
    with pytest.raises(InputError, match=told):
        synchronised(trace, image(), PITCH_UM)


def test_two_scans_of_one_direction_are_refused():
    trace = scanned(1, SENSOR)
    with pytest.raises(InputError, match="runs the same way"):
        synchronised(trace, image(), PITCH_UM, opposite=trace)


@pytest.mark.parametrize("fault", [{"pitch_um": 0.0}, {"pitch_um": float("nan")}, {"latency_samples": -1}])
def test_numbers_that_make_no_sense_are_refused(fault):
    with pytest.raises(UsageError):
        synchronised(scanned(1, SENSOR), image(), **{"pitch_um": PITCH_UM, **fault})


def test_the_published_strip():
    strip = strip_label(np.float32([775.0, 0.0, -6.25, -50.0, np.nan, 900.0]), 775.0, 3)
    assert strip.dtype == np.uint8
    assert strip.shape == (3, 6)
    assert strip[0].tolist() == [255, 2, 0, 0, 0, 255]
