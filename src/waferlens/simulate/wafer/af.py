"""The auto-focus sensor: one height a scan position, the soft maximum over the column, late, noisy and with gaps.

Order of operations: the sensor averages the signal-weighted height over its footprint; over the rows of a column the
highest wins, softly; a low-pass and a latency delay it; light that is missing makes it noisy, steps make it lose lock;
the machine counts downwards from its datum.

Source: S0 (the maximum over y, 8,000 samples a second, 32 counts a um); traces in its public notebook for everything
that makes the maximum soft.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64
from scipy.ndimage import uniform_filter1d
from scipy.signal import lfilter

from waferlens.records import COUNTS_PER_UM, StageTrace

STEP_UM = 40.0
"""A column this much above or below its neighbour is a step, where locks are lost [um]"""
LEAST_SIGNAL = 0.01
DEEPEST_COUNTS = (20_000, 60_000)
"""Excursions of the reading where the wafer ends [count]"""
RUN_IN_UM = 400.0
"""Length before the field over which the low-pass settles [um]"""


@dataclass(frozen=True, slots=True)
class AfSensor:
    """The sensor of one scan."""

    softness_um: float = 12.0
    mean_share: float = 0.15
    lag_ms: float = 0.4
    noise_counts: float = 90.0
    dropout: float = 0.004
    velocity_ripple: float = 0.006
    latency_samples: int = 0
    footprint_um: tuple[float, float] = (20.0, 40.0)
    z_ref_um: float = 775.0
    rate_hz: float = 8000.0
    speed_mm_s: float = 182.0

    @property
    def step_um(self) -> float:
        """Way of the stage from sample to sample: 22.75 um [um]"""
        return 1e3 * self.speed_mm_s / self.rate_hz


def column_reading(
    height_um: Float32[np.ndarray, "h w"],
    reflectance: Float32[np.ndarray, "h w"],
    pitch_um: float,
    sensor: AfSensor,
) -> tuple[Float64[np.ndarray, " w"], Float64[np.ndarray, " w"]]:
    """What each column would read without lag and noise, and how much signal it gives.

    Args:
        height_um: Of each pixel [um]
        reflectance: Of each pixel, for light that comes back into the pupil, which the sensor shares.
        pitch_um: Of the grid [um]
        sensor: The sensor.
    """
    along, across = (max(1, round(side / pitch_um)) for side in sensor.footprint_um)

    def footprint(image: np.ndarray) -> np.ndarray:
        return uniform_filter1d(uniform_filter1d(image, across, axis=0, mode="nearest"), along, axis=1, mode="nearest")

    light = footprint(reflectance)
    seen = footprint(reflectance * height_um) / np.maximum(light, 1e-6)
    seen = np.where(light > 1e-6, seen, footprint(height_um))
    highest = seen.max(axis=0)
    weight = np.sqrt(np.maximum(light, 1e-6)) * np.exp((seen - highest) / sensor.softness_um)
    soft = (weight * seen).sum(axis=0, dtype=np.float64) / weight.sum(axis=0, dtype=np.float64)
    mean = (light * seen).sum(axis=0, dtype=np.float64) / np.maximum(light.sum(axis=0, dtype=np.float64), 1e-6)
    return (1 - sensor.mean_share) * soft + sensor.mean_share * mean, light.mean(axis=0, dtype=np.float64)


def scan_positions(
    sensor: AfSensor, length_um: float, direction: int, instrument: np.random.Generator
) -> Float64[np.ndarray, " m"]:
    """Places of the samples along the scan, from before its start to its end; the speed ripples [um]

    Args:
        sensor: The sensor.
        length_um: Of the scan [um]
        direction: 1 along +x, -1 against it.
        instrument: Draws frequency and phase of the ripple.
    """
    frequency, phase = instrument.uniform(8.0, 60.0), instrument.uniform(0, 2 * math.pi)
    count = math.ceil((length_um + RUN_IN_UM) / sensor.step_um / (1 - sensor.velocity_ripple)) + 2
    t = np.arange(count) / sensor.rate_hz
    omega = 2 * math.pi * frequency
    speed = 1e3 * sensor.speed_mm_s
    way = speed * (t + sensor.velocity_ripple / omega * (math.cos(phase) - np.cos(omega * t + phase)))
    way = way - RUN_IN_UM
    way = way[way < length_um]
    return way if direction > 0 else length_um - way


def af_track(
    height_um: Float32[np.ndarray, "h w"],
    reflectance: Float32[np.ndarray, "h w"],
    pitch_um: float,
    sensor: AfSensor,
    instrument: np.random.Generator,
    noise: np.random.Generator | None,
    *,
    direction: int = 1,
    off_wafer: np.ndarray | None = None,
    x0_um: float = 0.0,
) -> StageTrace:
    """The trace of a scan over an image.

    Args:
        height_um: Of each pixel; a column without any height is beyond the wafer [um]
        reflectance: Of each pixel, for light that comes back into the pupil.
        pitch_um: Of the grid [um]
        sensor: The sensor.
        instrument: Draws the stage's ripple.
        noise: Draws noise and dropouts; None leaves them out.
        direction: 1 along +x, -1 against it.
        off_wafer: Columns beyond the wafer's edge, where nothing comes back.
        x0_um: What the encoder says at the outer edge of the first column [um]
    """
    width = height_um.shape[1]
    unknown = np.isnan(height_um)
    if unknown.any():
        gone = unknown.all(axis=0)
        off_wafer = gone if off_wafer is None else off_wafer | gone
        height_um, reflectance = np.where(unknown, 0.0, height_um), np.where(unknown, 0.0, reflectance)
    reading, light = column_reading(height_um, reflectance, pitch_um, sensor)
    x = scan_positions(sensor, width * pitch_um, direction, instrument)
    centres = (np.arange(width) + 0.5) * pitch_um
    z, signal = np.interp(x, centres, reading), np.interp(x, centres, light)
    away = np.zeros(len(x), bool) if off_wafer is None else off_wafer[np.clip((x / pitch_um).astype(int), 0, width - 1)]
    late = z.copy()
    if sensor.lag_ms > 0:
        keep = math.exp(-1e3 / sensor.rate_hz / sensor.lag_ms)
        late = lfilter([1 - keep], [1, -keep], z, zi=[keep * z[0]])[0]
    if sensor.latency_samples:
        late = np.concatenate([np.repeat(late[:1], sensor.latency_samples), late[: -sensor.latency_samples]])
    valid = np.ones(len(x), bool)
    counts = COUNTS_PER_UM * (sensor.z_ref_um - late)
    if noise is not None:
        counts, valid = _disturbed(counts, valid, z, signal, away, sensor, noise)
    inside = (x >= 0) & (x <= width * pitch_um)
    count = int(inside.sum())
    return StageTrace(
        x_counts=np.rint(COUNTS_PER_UM * (x[inside] + x0_um)).astype(np.int64),
        y_counts=np.zeros(count, np.int64),
        z_counts=np.rint(counts[inside]).astype(np.int64),
        valid=valid[inside],
        z_ref_um=sensor.z_ref_um,
        rate_hz=sensor.rate_hz,
    )


def _disturbed(
    counts: Float64[np.ndarray, " m"],
    valid: np.ndarray,
    z: Float64[np.ndarray, " m"],
    signal: Float64[np.ndarray, " m"],
    away: np.ndarray,
    sensor: AfSensor,
    noise: np.random.Generator,
) -> tuple[Float64[np.ndarray, " m"], np.ndarray]:
    """Noise that grows where light is missing, and dropouts: the last value held, or lock lost upwards."""
    m = len(counts)
    spread = sensor.noise_counts * np.clip(np.sqrt(0.3 / np.maximum(signal, LEAST_SIGNAL)), 0.5, 3.0)
    counts = counts + spread * noise.standard_normal(m)
    step = np.abs(np.gradient(z)) > STEP_UM
    chance = sensor.dropout * np.where(step, 8.0, 1.0) * np.where(signal < 0.05, 2.0, 1.0)
    drawn, held, lost = noise.random(m), noise.random(m), noise.uniform(200.0, 1200.0, m)
    length = noise.integers(1, 5, m)
    locked = counts.copy()
    for start in np.flatnonzero(drawn < chance):
        run = slice(start, start + int(length[start]))
        if held[start] < 0.7 and start > 0:
            counts[run] = counts[start - 1]
        else:
            counts[run] = locked[run] - COUNTS_PER_UM * lost[start]
        valid[run] = False
    wild = 3000.0 * noise.standard_normal(m)
    deep = noise.uniform(*DEEPEST_COUNTS, m)
    edge = away & (np.convolve(away, np.ones(5), mode="same") < 5)
    counts = np.where(away, wild, counts)
    counts = np.where(edge, -deep, counts)
    return counts, valid & ~away


def followed_focus(trace: StageTrace, cutoff_hz: float, centres_um: np.ndarray) -> Float64[np.ndarray, " w"]:
    """Height of focus at each column where the objective follows the sensor through a low-pass.

    Args:
        trace: What the sensor read.
        cutoff_hz: Bandwidth of the objective [Hz]
        centres_um: Of the columns [um]
    """
    order = np.argsort(trace.x_counts) if trace.x_counts[0] > trace.x_counts[-1] else np.arange(len(trace.x_counts))
    keep = math.exp(-2 * math.pi * cutoff_hz / trace.rate_hz)
    z = np.where(trace.valid, trace.z_um, np.nan)
    known = np.flatnonzero(np.isfinite(z))
    z = np.interp(np.arange(len(z)), known, z[known]) if len(known) else np.zeros(len(z))
    followed = lfilter([1 - keep], [1, -keep], z, zi=[keep * z[0]])[0]
    return np.interp(centres_um, trace.x_counts[order] / COUNTS_PER_UM, followed[order])
