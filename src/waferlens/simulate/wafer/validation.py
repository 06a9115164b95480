"""Validation of the wafer simulator: formulas, limits and symmetries its optics, camera and sensor have to obey.

Every function is one test and returns its rows; `run_validation` runs them all. Expectations come from closed forms or
from a slow twin, never from an earlier run of the code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Float

from waferlens.records import COUNTS_PER_UM, StageTrace
from waferlens.simulate.checks import Check, absolute, at_least, at_most, exact, relative, reported
from waferlens.simulate.streams import Stream, stream
from waferlens.simulate.wafer.af import AfSensor, af_track
from waferlens.simulate.wafer.camera import FULL_SCALE, WHITE, Camera, acquire
from waferlens.simulate.wafer.field import label_strip
from waferlens.simulate.wafer.optics import Edges, brightfield, defocused
from waferlens.simulate.wafer.otf import Lens, transfer
from waferlens.simulate.wafer.scene import FIELD_UM, NATIVE_PITCH_UM
from waferlens.simulate.wafer.validation_scene import SCENE_VALIDATIONS

LENS = Lens(5.0, 0.14)
GRID = 1140
PITCH_UM = FIELD_UM / GRID
PLAIN_CAMERA = Camera(shading=0.0, tdi_row_noise=0.0, glare=0.0, smear_um=0.0)
"""A camera that does nothing but count and scale."""
PLAIN_SENSOR = AfSensor(softness_um=0.05, mean_share=0.0, lag_ms=0.0, velocity_ripple=0.0)
"""The sensor as S0 tells of it: the highest of the column, at once."""


def run_validation(seed: int = 1, advance: Callable[[int], None] | None = None) -> list[Check]:
    """Runs every test.

    Args:
        seed: Root of the random draws; the expectations hold for any.
        advance: Called with 1 after each test.
    """
    checks = []
    for test in VALIDATIONS:
        checks += test(seed)
        if advance is not None:
            advance(1)
    return checks


# The lens


def pupil_overlap(seed: int) -> list[Check]:
    """What a tilted mirror sends back: all at 0, nothing at asin(NA), the overlap of two discs between."""

    def share(tilt_rad: float) -> float:
        return float(brightfield(np.array([math.tan(tilt_rad)]), LENS.na)[0])

    return [
        exact("light from a level surface", 1.0, share(0.0)),
        absolute("light from a tilt where sin 2 alpha = 2 NA", 0.0, share(0.5 * math.asin(2 * LENS.na)), 1e-4),
        absolute("light from a tilt of asin(NA)", 0.0, share(math.asin(LENS.na)), 2e-3),
        absolute("light from a tilt where sin 2 alpha = NA", 0.391, share(0.5 * math.asin(LENS.na)), 5e-4),
    ]


def depth_of_focus(seed: int) -> list[Check]:
    """Wavelength over NA squared, and with the camera's pixel."""
    return [
        absolute("depth of focus by waves, 5x/.14 [um]", 28.06, LENS.wave_depth_um, 0.005),
        absolute("depth of focus with the camera, 5x/.14 [um]", 37.3, LENS.depth_of_focus_um, 0.05),
        absolute("pixel in the object [um]", NATIVE_PITCH_UM, LENS.pixel_um, 1e-6),
    ]


def transfer_of_the_pupil(seed: int) -> list[Check]:
    """The table against the overlap of two pupils summed point by point, and beyond it the formula for many waves."""
    shifts = np.array([0.02, 0.1, 0.3, 0.7, 1.2, 1.7])
    cutoff = 2 * LENS.na / LENS.wavelength_um
    rows = []
    for waves in (0.0, 0.26, 0.5, 1.03, 3.0, 7.9, 8.2, 14.0):
        dz = 2 * waves * LENS.wavelength_um / LENS.na**2
        found = transfer(LENS, dz, 0.5 * shifts * cutoff)
        expected = [_overlap(waves, float(shift)) for shift in shifts]
        miss = float(np.abs(found - expected).max())
        rows.append(at_most(f"transfer, {waves:g} waves: largest miss of the pupil's overlap", 0.005, miss))
    zero = max(abs(float(transfer(LENS, dz, np.zeros(1))[0]) - 1) for dz in (0.0, 20.0, 150.0, 400.0, 700.0))
    return [*rows, at_most("transfer at frequency 0: largest |OTF - 1|", 1e-6, zero)]


def strehl(seed: int) -> list[Check]:
    """The brightness of a point out of focus is sinc² of its waves."""
    frequency = np.linspace(0, 2 * LENS.na / LENS.wavelength_um, 4001)
    peak = float((transfer(LENS, 0.0, frequency) * frequency).sum())
    rows = []
    for dz in (7.0, 14.0, 28.0, 40.0):
        got = float((transfer(LENS, dz, frequency) * frequency).sum()) / peak
        rows.append(absolute(f"Strehl ratio at {dz:g} um", float(np.sinc(LENS.waves(dz)) ** 2), got, 0.003))
    return rows


def line_spread(seed: int) -> list[Check]:
    """Spread of a line against sqrt(waves² + pixel² / 12 + rays²).

    Only reported: the formula stands for a Gaussian, but the line of a lens falls off with 1 / x² and has no second
    moment. What is told is the one within the rays' radius and four spreads of the focused line.
    """
    x = (np.arange(1201) - 600) * NATIVE_PITCH_UM
    focused = math.hypot(0.21 * LENS.wavelength_um / LENS.na, NATIVE_PITCH_UM / math.sqrt(12))
    line = np.zeros((8, len(x)), np.float32)
    line[:, 600] = 1.0
    rows = []
    for dz in (0.0, 20.0, 60.0, 150.0, 400.0):
        out = defocused(line, np.full_like(line, dz), 0.0, NATIVE_PITCH_UM, LENS)[4].astype(np.float64)
        rays = float(LENS.geometric_radius_um(dz))
        inside = np.clip((rays + 4 * focused - np.abs(x)) / NATIVE_PITCH_UM + 0.5, 0, 1)
        spread = math.sqrt(float((inside * out * x * x).sum() / (inside * out).sum()))
        rows.append(reported(f"line at {dz:g} um: spread / formula", spread / math.hypot(focused, rays / 2)))
    return rows


# Layers


def energy(seed: int) -> list[Check]:
    """Defocus takes no light away and adds none."""
    scene = _texture(seed)
    rows = []
    for dz in (20.0, 100.0, 400.0, 700.0):
        mean = float(defocused(scene, np.full_like(scene, dz), 0.0, PITCH_UM, LENS).mean(dtype=np.float64))
        rows.append(relative(f"mean light at {dz:g} um", float(scene.mean(dtype=np.float64)), mean, 0.003))
    return rows


def both_sides_of_focus(seed: int) -> list[Check]:
    """A plane above focus looks like one below: blur alone does not tell the sign."""
    scene = _texture(seed)
    apart = 0.0
    for dz in (15.0, 60.0, 300.0):
        above, below = (defocused(scene, np.full_like(scene, side * dz), 0.0, PITCH_UM, LENS) for side in (1, -1))
        apart = max(apart, float(np.abs(above - below).max()))
    return [exact("plane above and below focus: largest difference", 0.0, apart)]


def one_colour_over_steps(seed: int) -> list[Check]:
    """Surfaces of one colour show no halo where they meet, wherever focus lies."""
    rows = []
    for name, profile in (
        ("a step of 50 um", [(200, 0.0), (200, 50.0)]),
        ("a step of 300 um", [(200, 0.0), (200, 300.0)]),
        ("a step of 775 um", [(200, 0.0), (200, 775.0)]),
        ("a stack", [(120, 0.0), (60, 100.0), (40, 220.0), (60, 700.0), (120, 0.0)]),
    ):
        line = np.concatenate([np.full(count, height, np.float32) for count, height in profile])
        height = np.tile(line, (240, 1))
        top = float(line.max())
        for place, focus in (("near", top), ("middle", 0.5 * top), ("far", 0.0)):
            light = defocused(np.full_like(height, 0.4), height, focus, PITCH_UM, LENS)
            miss = float(np.abs(light / 0.4 - 1).max())
            rows.append(at_most(f"one colour over {name}, {place} side in focus: largest miss", 0.02, miss))
    return rows


def edges_of_a_step(seed: int) -> list[Check]:
    """An edge in focus stays narrow before a blurred background; the same edge out of focus is wide."""
    height = np.zeros((60, 600), np.float32)
    height[:, 300:] = 300.0
    radiance = np.where(height > 0, np.float32(0.5), np.float32(0.1))
    rows = []
    for pitch in (NATIVE_PITCH_UM, FIELD_UM / 1140, FIELD_UM / 684):
        widths = [_width(defocused(radiance, height, focus, pitch, LENS)[30], pitch) for focus in (300.0, 0.0)]
        rows.append(at_most(f"edge in focus, {pitch:.2f} um a pixel: 10-90 % [um]", 12.0, widths[0]))
        rows.append(at_least(f"edge 300 um out of focus, {pitch:.2f} um a pixel: 10-90 % [um]", 40.0, widths[1]))
    return rows


def edges_within_a_pixel(seed: int) -> list[Check]:
    """An edge in focus keeps its place, however small the part of the last pixel that it covers."""
    worst = 0.0
    for part in (0.1, 0.3, 0.49, 0.51, 0.9):
        share = np.ones((40, 400), np.float32)
        share[:, 200] = part
        height = np.zeros_like(share)
        height[:, 200:] = 500.0
        radiance = np.where(height > 0, 0.5 * share, np.float32(0)).astype(np.float32)
        edges = Edges(share, np.zeros_like(share), np.zeros_like(share))
        light = defocused(radiance, height, 500.0, PITCH_UM, LENS, edges)[20]
        place = 216 - float(light[184:216].sum(dtype=np.float64)) / 0.5
        worst = max(worst, abs(place - (201 - part)))
    return [at_most("edge in focus within a pixel: largest miss of its place [px]", 0.05, worst)]


def nothing_far_away(seed: int) -> list[Check]:
    """A particle between carrier and die tops is as blurred as its own height asks, and changes nothing far from it."""
    height = np.zeros((300, 400), np.float32)
    height[:, :235] = 760.0
    radiance = np.full_like(height, 0.35)
    with_particle, taller = radiance.copy(), height.copy()
    with_particle[150:155, 300:305], taller[150:155, 300:305] = 0.03, 200.0
    clean = defocused(radiance, height, 760.0, PITCH_UM, LENS)
    light = defocused(with_particle, taller, 760.0, PITCH_UM, LENS)
    change = np.abs(light - clean)
    near = change[100:205, 250:355].max()
    change[100:205, 250:355] = 0
    lost = float((clean - light).sum(dtype=np.float64)) / (25 * 0.32)
    return [
        at_most("particle on a carrier: largest change of the light 50 px away", 1e-5, float(change.max())),
        at_most("particle of 5 px, 560 um out of focus: deepest", 0.02, float(near)),
        relative("particle on a carrier: light it takes", 1.0, lost, 0.05),
    ]


# The camera


def shot_noise(seed: int) -> list[Check]:
    """Noise of a native pixel is sqrt(electrons + read²); a coarse one averages it, and a larger well has less."""
    rows = []
    noise = {}
    for pitch in (NATIVE_PITCH_UM, FIELD_UM / 684):
        for level in (0.1, 0.4, 0.7):
            picture = _flat(level, PLAIN_CAMERA, pitch, seed)
            electrons = level / WHITE * PLAIN_CAMERA.full_well_e
            expected = math.sqrt(electrons + PLAIN_CAMERA.read_e**2) / PLAIN_CAMERA.full_well_e * FULL_SCALE
            name = f"noise at R {level:g}, {pitch:.2f} um a pixel [count]"
            rows.append(relative(name, expected * NATIVE_PITCH_UM / pitch, picture.std(), 0.03))
    for well in (25_000.0, 50_000.0):
        camera = replace(PLAIN_CAMERA, read_e=0.0, full_well_e=well)
        noise[well] = _flat(0.4, camera, NATIVE_PITCH_UM, seed).var()
    rows.append(relative("twice the full well: ratio of the variance", 0.5, noise[50_000.0] / noise[25_000.0], 0.03))
    return rows


def grey_scale(seed: int) -> list[Check]:
    """Without noise a picture is light over white; more than white is white."""
    light = np.linspace(0, 1.2 * WHITE, 400, dtype=np.float32)[np.newaxis]
    picture = acquire(light, PLAIN_CAMERA, PITCH_UM, stream(seed, "grey", Stream.INSTRUMENT, 0), None)
    expected = np.clip(light / WHITE, 0, 1) * FULL_SCALE
    return [at_most("no noise: largest miss of light / white [count]", 1.0, np.abs(picture - expected).max())]


def smear(seed: int) -> list[Check]:
    """The smear of the scan has the variance of a box of its length, also where that is less than a pixel."""
    rows = []
    line = np.full((3, 201), 0.1, np.float32)
    flat = line.copy()
    line[:, 100] = 0.8
    x = np.arange(201.0) - 100
    for length_um, pitch in ((1.5, NATIVE_PITCH_UM), (4.0, FIELD_UM / 684), (8.0, FIELD_UM / 1140)):
        camera = replace(PLAIN_CAMERA, smear_um=length_um)
        with_line, without = (
            acquire(light, camera, pitch, stream(seed, "smear", Stream.INSTRUMENT, 0), None)[1].astype(np.float64)
            for light in (line, flat)
        )
        kernel = (with_line - without) / (with_line - without).sum()
        variance = float((kernel * x * x).sum()) * pitch**2
        name = f"smear of {length_um:g} um, {pitch:.2f} um a pixel: variance [um²]"
        rows.append(relative(name, length_um**2 / 12, variance, 0.05))
    return rows


def rows_alike_on_grids(seed: int) -> list[Check]:
    """Shading and gain of the rows belong to the line camera: a coarser grid sees their means."""
    camera = replace(PLAIN_CAMERA, shading=0.06, tdi_row_noise=0.006, full_well_e=25_000.0)
    fine, coarse = (
        acquire(
            np.full((rows, 4), 0.4, np.float32),
            camera,
            FIELD_UM / rows,
            stream(seed, "rows", Stream.INSTRUMENT, 0),
            None,
        )[:, 0].astype(np.float64)
        for rows in (2736, 684)
    )
    apart = np.abs(fine.reshape(684, 4).mean(axis=1) - coarse)
    return [at_most("gain of the rows, 2736 averaged to 684: largest difference [count]", 3.0, apart.max())]


# The sensor


def af_samples(seed: int) -> list[Check]:
    """8,000 samples a second at 182 mm/s; 32 counts a um."""
    trace = _scan(np.full((8, 684), 300.0, np.float32))
    steps = np.diff(trace.x_counts)
    return [
        exact("auto-focus: counts a um", 32, COUNTS_PER_UM),
        relative("auto-focus: way from sample to sample [um]", 22.75, float(steps.mean()) / COUNTS_PER_UM, 1e-4),
        absolute("auto-focus: samples of a field", 246.5, len(trace.x_counts), 0.5),
    ]


def af_readings(seed: int) -> list[Check]:
    """S0's own examples: the highest of a column is read, and its label clamps and turns the counts."""
    both = np.full((684, 684), 100.0, np.float32)
    both[:200] = 150.0
    level = {height: np.full((64, 684), height, np.float32) for height in (100.0, 775.0, 0.0, -100.0)}
    label = {height: label_strip(_scan(image)) for height, image in level.items()}
    return [
        absolute("auto-focus over 100 and 150 um [um]", 150.0, float(_scan(both).z_um.mean()), 0.05),
        absolute("auto-focus over 100 um [um]", 100.0, float(_scan(level[100.0]).z_um.mean()), 0.05),
        exact("auto-focus over a missing die of 775 um [count]", 24_800, int(_scan(level[0.0]).z_counts.max())),
        exact("label of the top", 255.0, float(label[775.0].min())),
        absolute("label of a missing die of 775 um", 255 * 200 / 25_000, float(label[0.0].mean()), 1e-4),
        exact("label below 25,000 counts", 0.0, float(label[-100.0].max())),
        exact("label: largest difference within a column", 0.0, float(np.ptp(label_strip(_scan(both)), axis=0).max())),
    ]


def af_lag(seed: int) -> list[Check]:
    """The low-pass puts an edge off by speed times time constant."""
    rows = []
    for lag_ms in (0.4, 1.5):
        sensor = replace(PLAIN_SENSOR, lag_ms=lag_ms, footprint_um=(1.0, 1.0))
        late = []
        for place in range(2171, 2189, 3):  # of the edge between two samples
            height = np.zeros((4, 4342), np.float32)
            height[:, place:] = 400.0
            trace = _scan(height, sensor, NATIVE_PITCH_UM)
            x, z = trace.x_counts / COUNTS_PER_UM, trace.z_um
            late.append(x.max() - float(np.trapezoid(z, x)) / 400.0 - place * NATIVE_PITCH_UM)
        # straight lines between samples let an edge begin half a sample before it was met
        expected = sensor.speed_mm_s * lag_ms
        rows.append(relative(f"lag at {lag_ms:g} ms [um]", expected, np.mean(late) + 0.5 * sensor.step_um, 0.12))
    return rows


VALIDATIONS: tuple[Callable[[int], list[Check]], ...] = (
    pupil_overlap,
    depth_of_focus,
    transfer_of_the_pupil,
    strehl,
    line_spread,
    energy,
    both_sides_of_focus,
    one_colour_over_steps,
    edges_of_a_step,
    edges_within_a_pixel,
    nothing_far_away,
    shot_noise,
    grey_scale,
    smear,
    rows_alike_on_grids,
    af_samples,
    af_readings,
    af_lag,
    *SCENE_VALIDATIONS,
)
"""Every test, in the order of the picture's making."""


def _overlap(waves: float, shift: float, side: int = 801) -> float:
    """Overlap of two pupils of radius 1 with the difference of their phases, summed over a grid."""
    u = np.linspace(-1, 1, side)[np.newaxis]
    v = np.linspace(0, 1, side // 2 + 1)[:, np.newaxis]
    left, right = (u + 0.5 * shift) ** 2 + v**2, (u - 0.5 * shift) ** 2 + v**2
    there = (left <= 1) & (right <= 1)
    return float((np.cos(2 * np.pi * waves * (left - right)) * there).sum() / (u**2 + v**2 <= 1).sum())


def _texture(seed: int) -> Float[np.ndarray, "h w"]:
    noise = stream(seed, "texture", Stream.MATERIAL, 0).random((400, 400), np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 3.0)


def _width(line: Float[np.ndarray, "n"], pitch_um: float) -> float:
    """10-90 % of a rising edge in the middle of a line [um]"""
    low, high = float(line[40]), float(line[-40])
    share = (line.astype(np.float64) - low) / (high - low)
    place = []
    for level in (0.1, 0.9):
        after = int(np.argmax(share >= level))
        place.append(after - (share[after] - level) / (share[after] - share[after - 1]))
    return float(place[1] - place[0]) * pitch_um


def _flat(level: float, camera: Camera, pitch_um: float, seed: int) -> Float[np.ndarray, "h w"]:
    light = np.full((360, 360), level, np.float32)
    instrument, noise = (stream(seed, "flat", which, 0) for which in (Stream.INSTRUMENT, Stream.NOISE))
    return acquire(light, camera, pitch_um, instrument, noise).astype(np.float64)


def _scan(height: np.ndarray, sensor: AfSensor = PLAIN_SENSOR, pitch_um: float = FIELD_UM / 684) -> StageTrace:
    return af_track(height, np.full_like(height, 0.3), pitch_um, sensor, np.random.default_rng(1), None)
