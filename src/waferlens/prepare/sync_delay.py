"""How late the sensor is, from two scans of one scene in opposite directions.

They are late in opposite directions: the phase of their cross-spectrum is twice that of the sensor. A latency turns it
in proportion to the frequency, a low-pass less and less. What lies still whichever way the stage runs, the offset
between encoder and image, is not in it at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.ndimage import uniform_filter1d
from scipy.optimize import minimize_scalar
from scipy.signal import get_window

from waferlens.prepare.sync_stream import Stream

MOST_LATENCY = 12
"""Samples."""
MOST_LAG_MS = 6.0
LEAST_SHARED = 1000
"""Samples that both scans must have of the wafer."""
SETTLE = 64
"""Samples next to the wafer's edge that are left out."""
MODEL_SHARE = 0.02
"""Of the power of the signal that is doubted even where there is no noise."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Of the sensor."""

    latency_samples: int
    keep: float
    """Of the last value, from sample to sample: 0 is no low-pass."""
    agreement: float
    """Of the two scans once it is made good: 1 if they are the same."""

    def lag_ms(self, rate_hz: float) -> float:
        """Time constant of the low-pass [ms]"""
        return -1e3 / rate_hz / math.log(self.keep) if self.keep > 1e-6 else 0.0

    @property
    def lag_samples(self) -> float:
        """Mean age of what it shows, latency left out."""
        return self.keep / (1.0 - self.keep)


def keep_of(lag_ms: float, rate_hz: float) -> float:
    """Share of the last value that a low-pass of this time constant keeps."""
    return math.exp(-1e3 / rate_hz / lag_ms) if lag_ms > 0 else 0.0


def shifted(stream: Stream, samples: float) -> Float64[np.ndarray, " m"]:
    """Where the stage was so many samples before each, by the encoder and not by its mean speed [um]"""
    number = np.arange(len(stream.x_um), dtype=np.float64)
    x, early = np.interp(number - samples, number, stream.x_um), number < samples
    step = (stream.x_um[-1] - stream.x_um[0]) / (len(number) - 1)
    return np.where(early, stream.x_um[0] + (number - samples) * step, x)


def regular(x_um: np.ndarray, z_um: np.ndarray, grid_um: np.ndarray) -> Float64[np.ndarray, " n"]:
    """Heights at regular places, gaps bridged by straight lines."""
    known = np.isfinite(z_um)
    x, z = x_um[known], z_um[known]
    order = np.argsort(x, kind="stable")
    return np.interp(grid_um, x[order], z[order])


def common_grid(*streams: Stream) -> Float64[np.ndarray, " n"]:
    """Places a sample apart, over what all streams saw of the wafer [um]"""
    seen = [stream.x_um[np.isfinite(stream.z_um)] for stream in streams]
    low, high = max(x.min() for x in seen), min(x.max() for x in seen)
    step = float(np.mean([stream.step_um for stream in streams]))
    if any(stream.off_wafer for stream in streams):
        # the low-pass still remembers the wafer's edge, which only one of two opposite scans has met
        low, high = low + SETTLE * step, high - SETTLE * step
    return np.arange(low, max(high, low + step), step)


def delay_of(first: Stream, second: Stream) -> Delay | None:
    """Latency and lag from two scans of the same scene in opposite directions; None where they share too little.

    The scene is not known; of all scenes the best is put in. What is left to find is then the phase alone, by the
    largest real part of the cross-spectrum turned back by it.

    Args:
        first: A scan.
        second: Another, against it.
    """
    along, against = (first, second) if first.direction > 0 else (second, first)
    grid = common_grid(along, against)
    if len(grid) < LEAST_SHARED:
        return None
    omega = 2 * math.pi * np.fft.rfftfreq(len(grid))
    most = keep_of(MOST_LAG_MS, along.rate_hz)
    begin, best = 0, None
    for _ in range(2):  # the second time with the latency laid by the encoder, whose speed is not constant
        z = [regular(shifted(stream, begin), stream.z_um, grid) for stream in (along, against)]
        cross = _cross(*z)

        def agreement(keep: float, more: int, cross: np.ndarray = cross) -> float:
            phase = -2.0 * (np.arctan2(keep * np.sin(omega), 1.0 - keep * np.cos(omega)) + omega * more)
            return float((cross * np.exp(-1j * phase)).real.sum())

        best = None
        for latency in range(MOST_LATENCY + 1):
            more = latency - begin
            tried = [(k, agreement(k, more)) for k in np.linspace(0.0, most, 25)]
            start = max(range(25), key=lambda n: tried[n][1])
            around = tried[max(start - 1, 0)][0], tried[min(start + 1, 24)][0]
            found = minimize_scalar(lambda k, more=more: -agreement(k, more), bounds=around, method="bounded")
            keep, value = max((float(found.x), -float(found.fun)), tried[0], key=lambda pair: pair[1])
            share = value / max(float(np.abs(cross).sum()), 1e-30)
            if best is None or share > best.agreement:
                best = Delay(latency, keep, share)
        begin = best.latency_samples
    return best


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross-spectrum, each frequency weighed by what is known of it."""
    window = get_window(("tukey", 0.02), len(a))
    spectra = [np.fft.rfft(window * (part - part.mean())) for part in (a, b)]
    cross = spectra[0] * spectra[1].conj()
    power = uniform_filter1d(np.abs(cross), 31)
    noise = float(np.median(power[len(power) // 2 :]))
    cross = cross / (noise + MODEL_SHARE * power)
    cross[0] = 0.0
    return cross
