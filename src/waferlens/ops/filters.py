"""Gaussian filters of surface metrology: profiles (ISO 16610-21) and areas (ISO 16610-61), with missing points.

A wave as long as the cutoff passes with half of its amplitude, whatever its direction. The weighting function is cut
one cutoff away from its middle, where it has fallen to 7e-7 of its maximum, and the areal one is the product of two
profiles.

Missing points and edges are treated alike: the weights of the points that exist are scaled up to one (normalised
convolution). A mean over one side only would bend a tilted surface at its edges, so the least-squares plane (for a
profile: the line) is set aside before and put back after; within half a cutoff of an edge the result still rests on
fewer points.

Sources: ISO 16610-21:2011; ISO 16610-61:2015; Knutsson & Westin, Normalized and differential convolution, CVPR 1993.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float

from waferlens.ops.surface import Plane, fit_plane, known_points

ALPHA = math.sqrt(math.log(2) / math.pi)
"""Makes the transmission at the cutoff one half"""
SHORTEST_CUTOFF = 4.0
"""Below, sampling spoils the filter: at 4 px the transmission at the cutoff is 0.502, at 3 px 0.56 [px]"""
_LONGEST_DIRECT = 129


def transmission(wavelength: float, cutoff: float) -> float:
    """Share of a wave's amplitude that the low-pass filter lets through."""
    return math.exp(-math.pi * (ALPHA * cutoff / wavelength) ** 2)


def gaussian_weights(cutoff: float, pitch: float) -> Float[np.ndarray, " n"]:
    """The sampled weighting function, odd in length, with the sum 1.

    Args:
        cutoff: cutoff wavelength [unit of the pitch]
        pitch: distance of two samples.

    Raises:
        ValueError: the cutoff is too short for the pitch.
    """
    if not cutoff >= SHORTEST_CUTOFF * pitch:
        raise ValueError(
            f"a cutoff of {cutoff:g} needs a pitch of at most {cutoff / SHORTEST_CUTOFF:g}, got {pitch:g} "
            f"(at least {SHORTEST_CUTOFF:g} pixels a cutoff)"
        )
    reach = math.ceil(cutoff / pitch)
    distance = np.arange(-reach, reach + 1) * pitch
    weights = np.exp(-math.pi * (distance / (ALPHA * cutoff)) ** 2)
    return weights / weights.sum()


def gaussian_profile(heights: Float[np.ndarray, " n"], cutoff: float, pitch: float) -> Float[np.ndarray, " n"]:
    """The mean line of a profile: its waves longer than the cutoff. NaN stays NaN.

    Raises:
        ValueError: the cutoff is too short for the pitch.
    """
    return gaussian_areal(heights[None, :], cutoff, pitch, None)[0]


def gaussian_areal(
    heights: Float[np.ndarray, "h w"],
    cutoff: float,
    pitch_x: float,
    pitch_y: float | None,
    valid: Bool[np.ndarray, "h w"] | None = None,
) -> Float[np.ndarray, "h w"]:
    """The mean surface: waves longer than the cutoff. What was not valid stays NaN.

    An S-filter keeps this surface; an L-filter takes it off.

    Args:
        heights: the map.
        cutoff: cutoff wavelength, in the unit of the pitches.
        pitch_x: distance of two columns.
        pitch_y: distance of two rows; None filters along the rows only.
        valid: which points may take part.

    Raises:
        ValueError: the cutoff is too short for a pitch.
    """
    along_x = gaussian_weights(cutoff, pitch_x)
    along_y = None if pitch_y is None else gaussian_weights(cutoff, pitch_y)
    known = known_points(heights, valid)
    if not known.any():
        return np.full(heights.shape, math.nan)
    trend = _trend(heights, known)
    relief = np.where(known, heights - trend, 0.0)
    share = known.astype(np.float64)
    for weights, axis in ((along_x, 1), (along_y, 0)):
        if weights is not None:
            relief, share = _convolve(relief, weights, axis), _convolve(share, weights, axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, trend + relief / share, math.nan)


def _trend(heights: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The plane that is set aside; a level one where the points determine no tilt."""
    plane = fit_plane(heights, known)
    if not plane.known and heights.shape[0] == 1 and known.sum() >= 2:
        x = np.arange(heights.shape[1]) - (heights.shape[1] - 1) / 2
        slope, centre = np.polyfit(x[known[0]], heights[0, known[0]], 1)
        plane = Plane(float(centre), float(slope), 0.0)
    return plane.over(heights.shape) if plane.known else np.full(heights.shape, heights[known].mean())


def _convolve(values: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """Convolution with symmetric weights, zeros outside: directly when short, by Fourier transform when long."""
    if weights.size <= _LONGEST_DIRECT:
        from scipy.ndimage import correlate1d

        return correlate1d(values, weights, axis=axis, mode="constant", cval=0.0)
    from scipy import fft

    length = values.shape[axis]
    reach = weights.size // 2
    padded = fft.next_fast_len(length + weights.size - 1, real=True)
    shape = [1, 1]
    shape[axis] = -1
    spectrum = fft.rfft(values, padded, axis=axis) * fft.rfft(weights, padded).reshape(shape)
    whole = fft.irfft(spectrum, padded, axis=axis)
    return whole[reach : reach + length] if axis == 0 else whole[:, reach : reach + length]
