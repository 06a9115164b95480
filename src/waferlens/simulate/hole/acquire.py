"""From signal to picture: beam, scan, shading, shot noise, video chain, grey levels.

Source: Frank 2005 and Joy (super-Poissonian noise of the electron cascade).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float, UInt8

from waferlens.recipe.hole_world import HoleWorld
from waferlens.simulate.hole.geometry import gaussian_transfer
from waferlens.simulate.streams import normal, uniform


@dataclass(frozen=True, slots=True, eq=False)
class Instrument:
    """One setting of the microscope; the names and units of `HoleInstrument`."""

    delocalised: float
    delocalised_width: float
    beam_x: float
    beam_y: float
    video_lag: float
    dose: float
    yield_plateau: float
    read_noise: float
    streak: float
    streak_length: float
    row_jitter: float
    drift: float
    row_gain: float
    shading: Float[np.ndarray, "5"]
    asymmetry: float
    asymmetry_deg: float
    gain: float
    offset: float
    gamma: float


def draw_instrument(world: HoleWorld, rng: np.random.Generator) -> Instrument:
    """Draws a setting of the microscope: once per image pair in `paired` worlds, once per site in `sites`."""
    spec, share = world.instrument, world.nuisance
    # What has no range of its own vanishes with the nuisance, and is whole from the default of 0.2 on.
    spread = min(1.0, share / 0.2)
    beam = uniform(rng, spec.beam, share)
    astigmatism = spec.astigmatism * share * (2 * rng.random() - 1)
    return Instrument(
        delocalised=uniform(rng, spec.delocalised, share),
        delocalised_width=spec.delocalised_width,
        beam_x=beam * math.exp(astigmatism),
        beam_y=beam * math.exp(-astigmatism),
        video_lag=spec.video_lag,
        dose=uniform(rng, spec.dose, share),
        yield_plateau=spec.yield_plateau,
        read_noise=spec.read_noise,
        streak=uniform(rng, spec.streak, share),
        streak_length=spec.streak_length,
        row_jitter=spec.row_jitter,
        drift=spec.drift * spread * (2 * rng.random() - 1),
        row_gain=spec.row_gain,
        shading=spec.shading * spread * rng.standard_normal(5),
        asymmetry=uniform(rng, spec.detector_asymmetry, share),
        asymmetry_deg=360.0 * spread * rng.random(),
        gain=spec.gain.mean * (1.0 + spec.gain.std * spread * rng.standard_normal()),
        offset=normal(rng, spec.offset, spread),
        gamma=spec.gamma,
    )


def beam_and_scan(
    signal: Float[np.ndarray, "h w"], instrument: Instrument, rng: np.random.Generator
) -> Float[np.ndarray, "h w"]:
    """Blur, scan and shading: what both images of a pair share.

    Args:
        signal: Electrons relative to the plateau.
        instrument: One setting.
        rng: Instrument stream, after `draw_instrument`.
    """
    h, w = signal.shape
    far = gaussian_transfer((h, w), instrument.delocalised_width, instrument.delocalised_width)
    beam = gaussian_transfer((h, w), instrument.beam_x, instrument.beam_y)
    mix = (1.0 - instrument.delocalised + instrument.delocalised * far) * beam
    rows = np.fft.ifft(np.fft.rfft2(signal) * mix, axis=0)
    if instrument.row_jitter or instrument.drift:
        shift = instrument.row_jitter * rng.standard_normal(h) + instrument.drift * ((np.arange(h) + 0.5) / h - 0.5)
        # A phase per row: an exact sub-pixel shift in the periodic cell, with no blur of its own.
        rows *= np.vander(np.exp(-2j * np.pi * shift / w), rows.shape[1], increasing=True)
    blurred = np.fft.irfft(rows, w, axis=1)
    if np.any(instrument.shading):
        y, x = np.linspace(-1, 1, h)[:, None], np.linspace(-1, 1, w)[None, :]
        c = instrument.shading
        blurred = blurred * (1.0 + c[0] * x + c[1] * y + c[2] * x * y + c[3] * (x * x - 1 / 3) + c[4] * (y * y - 1 / 3))
    return np.maximum(blurred, 0.0)


@numba.njit(cache=True, error_model="numpy")
def _one_pole(rows, length):  # type: ignore[no-untyped-def]
    """Causal one-pole low pass along x; each row starts settled on its first pixel."""
    out = np.empty_like(rows)
    keep = np.exp(-1.0 / length)
    for y in range(rows.shape[0]):
        state = rows[y, 0]
        for x in range(rows.shape[1]):
            state = keep * state + (1.0 - keep) * rows[y, x]
            out[y, x] = state
    return out


@numba.njit(cache=True, error_model="numpy")
def _poisson(mean, draws):  # type: ignore[no-untyped-def]
    """Poisson numbers of one common mean from uniform draws: inversion with a guide table, exact to rounding.

    Four times as fast as a rejection method, which shines only where every pixel has a mean of its own.

    Source: Devroye, Non-Uniform Random Variate Generation (1986), III.2.4 (guide tables).
    """
    low = max(0, int(mean - 9.0 * np.sqrt(mean) - 20.0))
    size = int(mean + 9.0 * np.sqrt(mean) + 20.0) - low
    total = np.empty(size)
    total[0] = np.exp(low * np.log(mean) - mean - math.lgamma(low + 1.0))
    term = total[0]
    for k in range(1, size):
        term *= mean / (low + k)
        total[k] = total[k - 1] + term
    guide = np.empty(size, np.int64)
    k = 0
    for i in range(size):
        while k < size - 1 and total[k] <= i / size:
            k += 1
        guide[i] = k
    out = np.empty(draws.shape, np.int64)
    flat, source = out.ravel(), draws.ravel()
    for i in range(source.size):
        k = guide[int(source[i] * size)]
        while k < size - 1 and total[k] <= source[i]:
            k += 1
        flat[i] = low + k
    return out


def acquire(
    ideal: Float[np.ndarray, "h w"], instrument: Instrument, rng: np.random.Generator, *, noise: bool = True
) -> UInt8[np.ndarray, "h w"]:
    """One image of a scanned signal: shot noise, video chain, streaks, grey levels.

    Args:
        ideal: Signal after `beam_and_scan`.
        instrument: One setting.
        rng: Noise stream of this image.
        noise: False gives the noise-free picture.
    """
    x = ideal
    if noise:
        primaries = _poisson(instrument.dose, rng.random(ideal.shape))
        x = rng.poisson(primaries * (instrument.yield_plateau * ideal)) / (instrument.dose * instrument.yield_plateau)
    if instrument.video_lag:
        x = _one_pole(x, instrument.video_lag)
    if instrument.streak:
        trail = _one_pole(x, instrument.streak_length)
        x = x - instrument.streak * (trail - trail.mean())
    if noise and instrument.row_gain:
        x = x * (1.0 + instrument.row_gain * rng.standard_normal(ideal.shape[0]))[:, None]
    bright = np.maximum(x, 0.0)
    grey = instrument.offset + instrument.gain * (bright if instrument.gamma == 1.0 else bright**instrument.gamma)
    if noise:
        grey = grey + instrument.read_noise * rng.standard_normal(ideal.shape)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)
