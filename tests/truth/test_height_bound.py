"""The bounds on heights against scaling laws, limits, the simulator's own pictures, and estimates that reach them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from waferlens.simulate.wafer import height_bound
from waferlens.simulate.wafer.af import AfSensor, af_track
from waferlens.simulate.wafer.af_bound import sample_noise_um, track_height_bound_um
from waferlens.simulate.wafer.bound_trials import edge_estimates_um, texture_estimates_um
from waferlens.simulate.wafer.camera import FULL_SCALE, WHITE, Camera, acquire
from waferlens.simulate.wafer.height_bound import (
    EDGE_UNKNOWN,
    Edge,
    Texture,
    edge_height_bound_um,
    edge_profile,
    grating_height_bound_um,
    remaining_information,
    texture_height_bound_um,
)
from waferlens.simulate.wafer.optics import Edges, defocused
from waferlens.simulate.wafer.otf import Lens, transfer
from waferlens.simulate.wafer.otf_slope import overlap_and_slope, transfer_and_slope
from waferlens.simulate.wafer.raster import _waves
from waferlens.simulate.wafer.scene import FIELD_UM

LENS, CAMERA = Lens(5.0, 0.14), Camera()
QUIET = replace(CAMERA, read_e=0.0, glare=0.0, tdi_row_noise=0.0)
PITCH_UM = 8.197


def edge_bound(dz_um: float = 60.0, camera: Camera = CAMERA, edge: Edge | None = None, **told: object) -> float:
    options = {"length_um": 1000.0, "pitch_um": PITCH_UM, **told}
    return edge_height_bound_um(LENS, camera, dz_um, edge or Edge(), **options)  # type: ignore[arg-type]


def texture_bound(
    dz_um: float = 60.0, camera: Camera = CAMERA, texture: Texture | None = None, **told: object
) -> float:
    options = {"area_um2": 1e6, "pitch_um": PITCH_UM, **told}
    return texture_height_bound_um(LENS, camera, dz_um, texture or Texture(), **options)  # type: ignore[arg-type]


def grating_bound(dz_um: float = 60.0, **told: object) -> float:
    options = {"grating_um": 15.0, "contrast": 0.2, "reflectance": 0.3, "area_um2": 1e6, **told}
    return grating_height_bound_um(LENS, CAMERA, dz_um, **options)  # type: ignore[arg-type]


# The lens


@pytest.mark.parametrize("dz_um", [0.0, 5.0, 14.0, 60.0, 400.0, 890.0])
def test_the_transfer_is_that_of_the_simulator(dz_um: float) -> None:
    frequency = np.linspace(0.0, 0.55, 300)
    found, _ = transfer_and_slope(LENS, dz_um, frequency)
    assert np.abs(found - transfer(LENS, dz_um, frequency)).max() < 0.004  # its far light is faded out
    assert (found[frequency > 2 * LENS.na / LENS.wavelength_um] == 0).all()


@pytest.mark.parametrize("waves", [0.3, 2.0, 25.0])
def test_the_slope_is_the_derivative(waves: float) -> None:
    shift, step = np.linspace(0.0, 2.0, 50), 1e-4
    rise = (overlap_and_slope(shift, waves + step)[0] - overlap_and_slope(shift, waves - step)[0]) / (2 * step)
    assert overlap_and_slope(shift, waves)[1] == pytest.approx(rise, abs=1e-6)


def test_the_transfer_is_even_and_its_slope_odd() -> None:
    frequency = np.linspace(0.0, 0.5, 30)
    (value, slope), (mirrored, negative) = (transfer_and_slope(LENS, dz, frequency) for dz in (37.0, -37.0))
    assert (value == mirrored).all()
    assert (slope == -negative).all()
    assert np.abs(slope).max() > 1e-3
    assert (transfer_and_slope(LENS, 0.0, frequency)[1] == 0).all()


# What the bounds scale with


def test_four_times_the_electrons_halve_the_bound_of_an_edge() -> None:
    more = replace(QUIET, full_well_e=4 * QUIET.full_well_e)
    assert edge_bound(camera=QUIET) == pytest.approx(2 * edge_bound(camera=more), rel=1e-9)
    exact = grating_bound(log_contrast_sigma=0.0)
    brighter = replace(CAMERA, full_well_e=4 * CAMERA.full_well_e, read_e=2 * CAMERA.read_e)
    told = {"grating_um": 15.0, "contrast": 0.2, "reflectance": 0.3, "area_um2": 1e6, "log_contrast_sigma": 0.0}
    assert grating_height_bound_um(LENS, brighter, 60.0, **told) == pytest.approx(0.5 * exact)


def test_electrons_help_a_texture_the_less_the_more_there_are() -> None:
    wells = [replace(QUIET, full_well_e=factor * 25_000.0) for factor in (1e-5, 4e-5, 1e3, 4e3)]
    few, more, many, most = (texture_bound(camera=one, pitch_um=PITCH_UM) for one in wells)
    assert few / more > 3.5  # drowned in noise: in proportion to the electrons, for it is power that is measured
    assert 1.0 <= many / most < 1.02  # cells that differ in themselves


def test_length_and_area_average() -> None:
    assert edge_bound(length_um=4000.0) == pytest.approx(0.5 * edge_bound(), rel=1e-9)
    assert texture_bound(area_um2=4e6) == pytest.approx(0.5 * texture_bound(), rel=1e-9)


@pytest.mark.parametrize("bound", [edge_bound, texture_bound, grating_bound])
def test_in_focus_blur_tells_nothing(bound) -> None:  # type: ignore[no-untyped-def]
    known = {} if bound is not grating_bound else {"log_contrast_sigma": 0.3}
    assert bound(0.0, **known) == math.inf
    near, nearer = bound(1.0, **known), bound(0.5, **known)
    assert nearer == pytest.approx(2 * near, rel=0.02)  # the slope is in proportion to the distance
    assert bound(-60.0, **known) == bound(60.0, **known)  # and nothing tells the side


def test_what_is_not_known_costs() -> None:
    assert edge_bound(unknown=()) < edge_bound(unknown=("near", "far")) < edge_bound(unknown=EDGE_UNKNOWN)
    assert texture_bound(log_contrast_sigma=0.01) < texture_bound()


def test_one_sine_tells_blur_only_where_its_contrast_is_known() -> None:
    assert grating_bound() == math.inf
    value, slope = transfer_and_slope(LENS, 60.0, np.array([1 / 15.0]))
    prior = 0.3 * abs(float(value[0] / slope[0]))
    assert prior < grating_bound(log_contrast_sigma=0.3) < 1.01 * prior


def test_a_plain_surface_has_no_bound() -> None:
    assert texture_bound(texture=Texture(rms=0.0)) == math.inf
    assert edge_bound(edge=Edge(near=0.2, far=0.2, rim_darkness=0.0)) == math.inf


def test_pixels_that_are_too_large_destroy_the_texture() -> None:
    native, grid, seed = (texture_bound(60.0, pitch_um=pitch) for pitch in (None, 8.197, 24.59))
    assert native < grid < seed
    assert seed > 20 * grid
    assert edge_bound(20.0, pitch_um=None) < edge_bound(20.0) < edge_bound(20.0, pitch_um=24.59)


def test_gains_of_rows_average_less_along_an_edge() -> None:
    still = replace(CAMERA, tdi_row_noise=0.0, smear_um=0.0)
    assert edge_bound(camera=still, along_scan=True) == pytest.approx(edge_bound(camera=still), rel=1e-9)
    short, long = edge_bound(along_scan=True), edge_bound(along_scan=True, length_um=1e6)
    assert edge_bound() < short
    assert long > 1.3 * short / math.sqrt(1000)
    rough = replace(CAMERA, tdi_row_noise=0.03)
    assert edge_bound(camera=rough, along_scan=True) > 1.1 * short


def test_gains_of_rows_are_those_of_the_camera() -> None:
    camera = replace(CAMERA, shading=0.0, glare=0.0, smear_um=0.0)
    flat, pitch = np.full((684, 1), 0.5, np.float32), FIELD_UM / 684
    drawn = np.stack([acquire(flat, camera, pitch, np.random.default_rng(seed), None)[:, 0] for seed in range(200)])
    gains = drawn / (FULL_SCALE * 0.5 / WHITE) - 1.0
    weights = height_bound._gain_weights(pitch * (np.arange(684) + 0.5), pitch) * camera.tdi_row_noise
    expected = weights @ weights.T
    for apart in (0, 1, 2):
        found = (gains[:, apart:] * gains[:, : 684 - apart]).mean()
        assert found == pytest.approx(np.diagonal(expected, apart).mean(), abs=0.03 * camera.tdi_row_noise**2)


@pytest.mark.parametrize("smooth", [False, True])
def test_a_cell_has_the_transform_of_its_shape(smooth: bool) -> None:
    u = (np.arange(20_000) + 0.5) / 10_000 - 1.0
    shape = 0.5 + 0.5 * np.cos(np.pi * u) if smooth else np.where(np.abs(u) < 0.5, 1.0, 0.0)
    for at in (0.0, 0.3, 0.5, 1.7):
        expected = float((shape * np.cos(2 * np.pi * at * u)).sum() / 10_000)
        assert height_bound._cell(np.array([at]), smooth)[0] == pytest.approx(expected, abs=1e-6)


def test_smooth_cells_are_the_waves_of_a_carrier() -> None:
    nodes = np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32)
    places = (np.arange(64 * 8) + 0.5) / 8
    drawn = _waves(nodes, places, places) * 0.06
    assert drawn.std() == pytest.approx(0.06, rel=0.05)
    seen = np.abs(np.fft.fft2(drawn)) ** 2
    at = np.fft.fftfreq(512, 1 / 8)  # in units of 1 / cell
    of = height_bound._cell(at, True)
    expected = (0.08 * 64 * 64 * of[:, np.newaxis] * of) ** 2  # 64² cells of 64 places, 0.08 from point to point
    band = (np.abs(at) > 0.2) & (np.abs(at) < 0.45)
    both = np.ix_(band, band)
    assert seen[both].mean() == pytest.approx(expected[both].mean(), rel=0.1)


def test_information_that_others_explain_is_none() -> None:
    a, b = np.array([3.0, 4.0, 0.0]), np.array([0.0, 0.0, 2.0])
    assert remaining_information(a, []) == 25.0
    assert remaining_information(a, [b]) == pytest.approx(25.0)
    assert remaining_information(a + b, [b, a]) == 0.0
    assert remaining_information(a, [a + b]) == pytest.approx(25.0 * 4 / 29)  # the angle between the two


# The model of an edge, and estimates


@pytest.mark.parametrize(("dz_um", "within"), [(20.0, 0.004), (100.0, 0.001), (400.0, 0.0005)])
def test_the_edge_is_that_of_the_simulator(dz_um: float, within: float) -> None:
    pitch, edge, n = 1.0, Edge(), 2000
    ends = pitch * (np.arange(n + 1) - n // 2)
    rim = np.clip(np.minimum(ends[1:], edge.rim_um) - np.maximum(ends[:-1], 0.0), 0.0, None)
    light = np.where(ends[:-1] >= 0, edge.near * (1 - edge.rim_darkness * rim), edge.far).astype(np.float32)
    height = np.where(ends[:-1] >= 0, 0.0, -250.0).astype(np.float32)
    tall = [np.tile(line, (6, 1)) for line in (light, height)]
    sides = Edges(np.ones_like(tall[0]), tall[0], tall[1])
    drawn = defocused(tall[0], tall[1], -dz_um, pitch, LENS, sides)[3]
    x = 0.5 * (ends[1:] + ends[:-1])
    still = replace(CAMERA, glare=0.0, smear_um=0.0)
    mean, _ = edge_profile(LENS, still, dz_um, edge, x, pitch)
    seen = np.abs(x) < 250
    assert np.abs(drawn - mean * WHITE / still.full_well_e)[seen].max() < within


def test_the_slopes_of_an_edge_are_derivatives() -> None:
    x = np.linspace(-80.0, 80.0, 41)
    edge = Edge(0.31, 0.07, 7.0, 0.8)
    _, slopes = edge_profile(LENS, CAMERA, 45.0, edge, x, PITCH_UM)
    step = 1e-4

    def rise(name: str, sign: float) -> np.ndarray:
        if name == "dz":
            return edge_profile(LENS, CAMERA, 45.0 + sign * step, edge, x, PITCH_UM)[0]
        if name == "place":
            return edge_profile(LENS, CAMERA, 45.0, edge, x - sign * step, PITCH_UM)[0]
        field = {"rim": "rim_um", "darkness": "rim_darkness"}.get(name, name)
        moved = replace(edge, **{field: getattr(edge, field) + sign * step})
        return edge_profile(LENS, replace(CAMERA, glare=0.0), 45.0, moved, x, PITCH_UM)[0] * (1 - CAMERA.glare)

    for name in ("dz", *EDGE_UNKNOWN):
        expected = (rise(name, 1) - rise(name, -1)) / (2 * step)
        assert slopes[name] == pytest.approx(expected, abs=1e-5 * np.abs(expected).max()), name


def test_fits_of_simulated_edges_reach_the_bound() -> None:
    told = {"length_um": 200.0, "window_um": 60.0}
    bound = edge_height_bound_um(LENS, CAMERA, 50.0, Edge(), **told)  # type: ignore[arg-type]
    found = edge_estimates_um(LENS, CAMERA, 50.0, Edge(), **told, trials=50, seed=3)  # type: ignore[arg-type]
    assert abs(found.mean() - 50.0) < bound
    assert 0.6 < (bound / found.std(ddof=1)) ** 2 < 1.6  # of 50 draws a variance is known to 20 %


def test_the_most_likely_defocus_of_a_texture_reaches_the_bound() -> None:
    texture = Texture(cell_um=7 * LENS.pixel_um)
    area = (12 * texture.cell_um) ** 2
    bound = texture_height_bound_um(LENS, CAMERA, 50.0, texture, area_um2=area)
    found = texture_estimates_um(LENS, CAMERA, 50.0, texture, cells=12, bound_um=bound, trials=100, seed=3)
    assert abs(found.mean() - 50.0) < 0.5 * bound
    assert 0.65 < (bound / found.std(ddof=1)) ** 2 < 1.5


# The track


def test_samples_of_the_track_average() -> None:
    sensor = AfSensor(lag_ms=0.0)
    noise = sample_noise_um(sensor, 0.3)
    assert noise == pytest.approx(90 / 32)
    few = track_height_bound_um(sensor, length_um=100.4 * sensor.step_um, signal=0.3)
    assert few == pytest.approx(noise / 10)
    assert sample_noise_um(sensor, 0.03) == pytest.approx(3 * noise)
    assert track_height_bound_um(AfSensor(), length_um=2000.0, signal=0.3) > track_height_bound_um(
        sensor, length_um=2000.0, signal=0.3
    )


def test_the_sensor_reaches_its_bound() -> None:
    sensor = AfSensor(dropout=0.0, lag_ms=0.0)
    height = np.full((8, 700), 200.0, np.float32)
    light = np.full_like(height, 0.3)
    pitch = 4.0
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found.append(af_track(height, light, pitch, sensor, np.random.default_rng(0), rng).z_um.mean())
    bound = track_height_bound_um(sensor, length_um=700 * pitch, signal=0.3)
    assert np.mean(found) == pytest.approx(200.0, abs=bound)
    assert np.std(found) == pytest.approx(bound, rel=0.25)


def test_what_is_not_the_highest_shows_in_the_mean_only() -> None:
    sensor = AfSensor(lag_ms=0.0)
    told = {"length_um": 2000.0, "signal": 0.3}
    top = track_height_bound_um(sensor, **told)
    assert track_height_bound_um(sensor, **told, share=0.4, highest=False) == pytest.approx(top / (0.15 * 0.4))
    hard = replace(sensor, mean_share=0.0)
    assert track_height_bound_um(hard, **told, share=0.4, highest=False) == math.inf
    assert track_height_bound_um(sensor, length_um=10.0, signal=0.3) == math.inf  # between two samples
