"""Where the image begins on the encoder: its edges laid on the steps of the height.

Every edge in the mean grey of the columns may be a step of the height, of any size, nil included: most edges lie within
dies. For a given offset the sizes that explain the heights best are found by least squares, each step seen through the
sensor's low-pass; the offset that explains most is the one. Neither grey levels nor noise have to be known, edges that
are no steps cost nothing, and a low-pass longer than a street does no harm.

The sum over edges is a quadratic form, of which only the right-hand side depends on the offset, by interpolation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64
from scipy.linalg import cholesky_banded, solveh_banded
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import minimize
from scipy.signal import get_window

from waferlens.prepare.sync_delay import (
    MOST_LAG_MS,
    MOST_LATENCY,
    Delay,
    common_grid,
    keep_of,
    regular,
    shifted,
)
from waferlens.prepare.sync_stream import Stream

FINER = 4
"""Places to each sample."""
LEVEL_UM = 700.0
"""Waves of the surface much longer than this are taken off [um]"""
FOOTPRINT_UM = 20.0
"""Of the sensor, along the scan [um]"""
REACH_UM = 6000.0
"""Edges farther apart are fitted apart [um]"""
PRICE = 20.0
"""Of an edge that is a step, in units of what is left unexplained for each sample."""
SMALL = 0.05
"""Of the relief: a step below it is hardly one."""
REWEIGHTED = 5
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""The least that does: it keeps edges that the sensor cannot part from growing against each other, and what lies beyond
the band from making it indefinite. More of it would shrink the steps at both sides of a narrow street."""
MOST_EDGES = 900
"""The strongest of the image that are used."""
LEAST_EDGES = 6
MERGED_UM = 12.0
"""Edges nearer than about twice this are one: the sensor could not part them, and the fit would play them off [um]"""
COARSE_UM = 6.0
"""Steps in which offsets are tried first [um]"""
LAGS_MS = (0.0, 0.2, 0.4, 0.8, 1.5, 2.5, 4.0)
"""Tried where the low-pass is not known [ms]"""
STAND_OUT = 10.0
"""The best offset explains more than any other, by so many times the noise of a sample."""
APART_UM = 200.0
"""Offsets farther apart are others [um]"""
MOST_WIDENING_UM = 40.0
PIECES = 8
"""Of the swath, whose own offsets tell how sure the common one is."""


@dataclass(frozen=True, slots=True)
class Match:
    """Of heights and image."""

    offset_um: float
    """To be added to the encoder to be at 0 on the outer edge of the image's first column [um]"""
    widening_um: float
    """By which the sensor sees dies wider than the image does, on each side [um]"""
    edges: int
    """Of the image that were laid on the heights."""
    rms_um: float
    """Of the offsets that pieces of the swath would have by themselves, about the common one [um]"""
    sigma_um: float
    """Of the offset, from the same [um]"""


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """Of an image, along the scan."""

    places_um: Float64[np.ndarray, " k"]
    """From the outer edge of the first column, rising [um]"""
    strength: Float64[np.ndarray, " k"]
    """Of the change in the mean grey of the columns, in units of the median edge."""


def edges_of_image(columns: Float64[np.ndarray, " w"], pitch_um: float) -> Edges:
    """Where the mean grey of the columns changes most.

    Args:
        columns: Mean grey of each.
        pitch_um: Of the columns [um]
    """
    size = np.abs(gaussian_filter1d(columns, max(1.0, 3.0 / pitch_um), order=1, mode="nearest"))
    size = gaussian_filter1d(size, MERGED_UM / pitch_um, mode="nearest")
    peak = np.flatnonzero((size[1:-1] >= size[:-2]) & (size[1:-1] > size[2:])) + 1
    noise = float(np.median(size)) / 0.6745
    peak = peak[size[peak] > 4 * noise]
    peak = np.sort(peak[np.argsort(-size[peak], kind="stable")[:MOST_EDGES]])
    before, here, after = size[peak - 1], size[peak], size[peak + 1]
    bend = np.minimum(before - 2 * here + after, -1e-30)
    places = (peak + 0.5 + np.clip(0.5 * (before - after) / bend, -1, 1)) * pitch_um
    return Edges(places, here / max(float(np.median(here)), 1e-30) if len(here) else here)


class Matcher:
    """Streams and edges, ready for any delay and offset."""

    def __init__(self, streams: list[Stream], edges: Edges, most_um: float) -> None:
        self.streams = streams
        grid = common_grid(*streams)
        # only edges that are seen at every offset: one that comes or goes would change what is explained by itself
        margin = most_um + 2 * LEVEL_UM
        inside = (edges.places_um > grid[0] + margin) & (edges.places_um < grid[-1] - margin)
        self.edges, self.strength = edges.places_um[inside], edges.strength[inside]
        self.step = float(grid[1] - grid[0])
        self.fine = np.arange(grid[0], grid[-1], self.step / FINER)
        self.length = 2 ** math.ceil(math.log2(len(self.fine) + 8 * LEVEL_UM * FINER / self.step))
        self.frequency = np.fft.rfftfreq(self.length, self.step / FINER)
        seen = np.concatenate([stream.z_um for stream in streams])
        low, high = np.nanquantile(seen, [0.02, 0.98])
        # a step of 1 um has the size of a place, for its spectrum is that of a density
        self.relief = float(high - low) * FINER / self.step
        self.level = 1.0 - np.exp(-0.5 * (2 * math.pi * self.frequency * LEVEL_UM) ** 2)
        self.window = get_window(("tukey", 0.01), len(self.fine))

    def spectra(self, latency: int) -> list[np.ndarray]:
        """Of the heights of each stream without their long waves, latency laid by its encoder."""
        found = []
        for stream in self.streams:
            z = regular(shifted(stream, latency), stream.z_um, self.fine)
            found.append(self.level * np.fft.rfft(self.window * (z - z.mean()), self.length))
        return found

    def step_seen(self, keep: float, direction: int) -> np.ndarray:
        """Spectrum of a step of the height as the sensor shows it."""
        f = self.frequency
        turn = 2j * math.pi * f
        passed = (1.0 - keep) / (1.0 - keep * np.exp(-turn * self.step * direction))
        seen = passed * self.level * np.sinc(f * FOOTPRINT_UM) * np.sinc(f * self.step) ** 2
        seen[1:] /= turn[1:]
        seen[0] = 0.0
        return seen

    def fitted(
        self, spectra: list[np.ndarray], keep: float, steps: Steps | None = None, widening: float = 0.0
    ) -> Fitted:
        """The heights through the sensor's eye.

        Args:
            spectra: Of the heights.
            keep: Of its low-pass.
            steps: Which edges are steps of the height, where that is known by now.
            widening: The sensor sees dies wider than the image does, by this on each side [um]
        """
        seen = [self.step_seen(keep, stream.direction) for stream in self.streams]
        met = sum(np.fft.irfft(z * s.conj(), self.length) for z, s in zip(spectra, seen, strict=True))
        alike = sum(np.fft.irfft(np.abs(s) ** 2, self.length) for s in seen)
        places = self.edges if steps is None else self.edges - widening * steps.rise
        # edges far apart do not meet: a band, whose rows are the first, second, ... neighbour
        number = len(places)
        reach = int((np.searchsorted(self.edges, self.edges + REACH_UM) - np.arange(number)).max())
        band = np.zeros((reach, number))
        for row in range(reach):
            apart = np.abs(places[row:] - places[: number - row]) * FINER / self.step
            band[row, : number - row] = np.interp(apart, np.arange(self.length // 2), alike[: self.length // 2])
        band[0] *= 1.0 + _ridge(band)
        if steps is not None:
            band[0] += steps.ridge
        energy = float(sum(2 * (np.abs(z) ** 2).sum() / self.length for z in spectra))
        return Fitted(self, places, met, band, energy)


def _ridge(band: np.ndarray) -> float:
    for ridge in RIDGES[:-1]:
        try:
            tried = band.copy()
            tried[0] *= 1.0 + 0.5 * ridge
            cholesky_banded(tried, lower=True)
        except np.linalg.LinAlgError:
            continue
        return ridge
    return RIDGES[-1]


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Which edges are steps of the height."""

    rise: np.ndarray
    """1 where the height rises along +x, -1 where it falls."""
    ridge: np.ndarray
    """Nil where an edge is a step, large where it is none."""


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What the edges explain, as a function of the offset."""

    matcher: Matcher
    places: np.ndarray
    met: np.ndarray
    band: np.ndarray
    energy: float

    def explained(self, offsets_um: np.ndarray) -> Float64[np.ndarray, "k n"]:
        """At each offset, what each edge explains of the sum of squares of the heights."""
        right = self._right(offsets_um)
        return right * solveh_banded(self.band, right, lower=True)

    def sparse(self, offsets_um: np.ndarray) -> tuple[Float64[np.ndarray, " n"], list[Steps]]:
        """What counts in favour of each offset, with a price for each edge that is a step; and which are."""
        right = self._right(offsets_um)
        sizes = solveh_banded(self.band, right, lower=True)
        left = max(self.energy - float((right * sizes).sum(axis=0).max()), 1e-9 * self.energy)
        # walls are dark: an edge that is strong in the image is more likely a step
        price = PRICE * left / len(self.matcher.fine) * FINER / np.clip(self.matcher.strength, 0.3, 3.0)
        small = SMALL * self.matcher.relief
        worth, steps = np.empty(right.shape[1]), []
        for n in range(right.shape[1]):
            size, met = sizes[:, n], right[:, n]
            for _ in range(REWEIGHTED):
                # a price of log(1 + a²/small²), by the parabola that touches it
                ridge = price / (size**2 + small**2)
                band = self.band.copy()
                band[0] += ridge
                size = solveh_banded(band, met, lower=True)
            # at the solution the fit without the ridge explains 2 a·met - a·G·a, and G a = met - ridge a
            worth[n] = size @ met + ridge @ size**2 - price @ np.log1p((size / small) ** 2)
            steps.append(Steps(np.sign(size), np.where(np.abs(size) > small, 0.0, 1e4 * self.band[0])))
        return worth, steps

    def _right(self, offsets_um: np.ndarray) -> np.ndarray:
        matcher = self.matcher
        places = (self.places[:, None] - offsets_um - matcher.fine[0]) * FINER / matcher.step
        return np.interp(places, np.arange(len(matcher.fine)), self.met[: len(matcher.fine)], left=0.0, right=0.0)


def matched(
    streams: list[Stream], edges: Edges, most_um: float, delay: Delay | None, *, known: bool
) -> tuple[Match, Delay] | None:
    """Offset, and latency and lag as far as the streams tell them; None where the edges do not fit anywhere.

    Args:
        streams: One scan, or two opposite ones.
        edges: Of the image.
        most_um: Largest offset that is looked for [um]
        delay: Of the sensor, as known or as a start; None where nothing is known.
        known: Whether it is to be taken as it is.
    """
    matcher = Matcher(streams, edges, most_um)
    if len(matcher.edges) < LEAST_EDGES:
        return None
    rate = streams[0].rate_hz
    latency = delay.latency_samples if delay else 0
    spectra = matcher.spectra(latency)
    coarse = np.arange(-most_um, most_um + COARSE_UM, COARSE_UM)
    keeps = [delay.keep] if delay else [keep_of(lag, rate) for lag in LAGS_MS]
    tried = [matcher.fitted(spectra, keep).sparse(coarse)[0] for keep in keeps]
    best = max(range(len(keeps)), key=lambda n: tried[n].max())
    values = tried[best]
    top = float(coarse[values.argmax()])
    elsewhere = values[np.abs(coarse - top) > APART_UM].max(initial=0.0)
    unit = matcher.fitted(spectra, keeps[best]).energy / len(matcher.fine) * FINER
    if not values.max() > elsewhere + STAND_OUT * unit:
        return None
    steps = matcher.fitted(spectra, keeps[best]).sparse(np.array([top]))[1][0]
    found = _refined(matcher, spectra, steps, keeps[best], 0.0, top, fixed=known)
    steps = matcher.fitted(spectra, found[1]).sparse(np.array([found[3]]))[1][0]
    found = _refined(matcher, spectra, steps, *found[1:], fixed=known)
    latencies = range(max(0, latency - 2), min(MOST_LATENCY, latency + 2) + 1)
    if not known and len(streams) == 2:
        others = [_refined(matcher, matcher.spectra(n), steps, *found[1:], fixed=False) for n in latencies]
        latency, found = max(zip(latencies, others, strict=True), key=lambda pair: pair[1][0])
        spectra = matcher.spectra(latency)
    _, keep, widening, offset = found
    told = replace(delay, latency_samples=latency, keep=keep) if delay else Delay(latency, keep, 0.0)
    return _judged(matcher.fitted(spectra, keep, steps, widening), offset, widening), told


def _refined(
    matcher: Matcher,
    spectra: list[np.ndarray],
    steps: Steps,
    keep: float,
    widening: float,
    offset: float,
    *,
    fixed: bool,
) -> tuple[float, float, float, float]:
    """What is explained at best, the share the low-pass keeps, the widening and the offset there."""
    rate = matcher.streams[0].rate_hz

    def best_offset(keep: float, widening: float) -> tuple[float, float]:
        fitted = matcher.fitted(spectra, keep, steps, widening)
        around, reach = offset, 32.0
        for _ in range(3):
            tried = around + np.linspace(-reach, reach, 9)
            values = fitted.explained(tried).sum(axis=0)
            top = int(np.clip(values.argmax(), 1, 7))
            bend = values[top - 1] - 2 * values[top] + values[top + 1]
            move = 0.5 * (values[top - 1] - values[top + 1]) / bend if bend < 0 else 0.0
            around = float(tried[top] + np.clip(move, -1, 1) * (tried[1] - tried[0]))
            reach /= 4
        return float(values[top]), around

    def told(point: np.ndarray) -> tuple[float, float]:
        lag = keep_of(min(float(point[1]) ** 2, MOST_LAG_MS), rate) if len(point) > 1 else keep
        return lag, float(np.clip(point[0], -1, 1)) * MOST_WIDENING_UM

    start = [widening / MOST_WIDENING_UM] if fixed else [widening / MOST_WIDENING_UM, math.sqrt(_lag_ms(keep, rate))]
    simplex = np.array([start, *(np.array(start) + 0.15 * row for row in np.eye(len(start)))])
    best = minimize(
        lambda point: -best_offset(*told(point))[0],
        start,
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "maxfev": 20 * len(start), "xatol": 3e-3, "fatol": 0.0},
    )
    keep, widening = told(best.x)
    value, offset = best_offset(keep, widening)
    return value, keep, widening, offset


def _lag_ms(keep: float, rate_hz: float) -> float:
    return Delay(0, keep, 0.0).lag_ms(rate_hz)


def _judged(fitted: Fitted, offset: float, widening: float) -> Match:
    """How far pieces of the swath would have an offset of their own, each by what it explains."""
    tried = offset + np.linspace(-30.0, 30.0, 61)
    edges = len(fitted.places)
    pieces = np.array_split(fitted.explained(tried), min(PIECES, edges // 3))
    curves = np.array([part.sum(axis=0) for part in pieces])
    own = tried[curves.argmax(axis=1)]
    weight = np.maximum(curves.max(axis=1) - curves.min(axis=1), 0.0)
    weight /= max(float(weight.sum()), 1e-30)
    rms = float(np.sqrt((weight * (own - offset) ** 2).sum()))
    return Match(offset, widening, edges, rms, rms * float(np.sqrt((weight**2).sum())))
