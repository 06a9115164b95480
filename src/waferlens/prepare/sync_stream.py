"""The auto-focus stream as it can be laid on an image: encoder repaired, readings that are none left out.

Every sample has its own encoder value, and its place follows from that alone. Placing samples one after the other by
whole pixels, as S0's script did, adds up what each step was rounded by: hundreds of pixels over a swath.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.ndimage import grey_opening, median_filter

from waferlens.errors import InputError
from waferlens.records import COUNTS_PER_UM, StageTrace

LEAST_SAMPLES = 16
MOST_GLITCHES = 0.05
"""Share of the encoder values that may be repaired."""
IMPOSSIBLE_COUNTS = (-15_000, 32_000)
"""Readings beyond these are no surface of a wafer: 469 um above the datum, 225 um below the carrier [count]"""
WILD_COUNTS = 1000.0
"""From sample to sample, where the sensor looks beside the wafer [count]"""
WILD_BLOCK = 16
LOST_UM = 100.0
"""A reading that jumps up by more, and back within `LOST_RUN` samples, has lost its lock [um]"""
LOST_RUN = 6
LEAST_NOISE_COUNTS = 8.0
"""With more noise than this a reading that repeats to the count was held and not taken [count]"""


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """A stream after repair, in the order of time."""

    x_um: Float64[np.ndarray, " m"]
    """Encoder of each sample [um]"""
    z_um: Float64[np.ndarray, " m"]
    """Height above the carrier, NaN where there is none [um]"""
    direction: int
    """1 along +x, -1 against it."""
    rate_hz: float
    glitches: int
    """Encoder values that were repaired."""
    flagged: int
    """Readings on the wafer that the machine itself called not valid."""
    held: int
    """Readings that repeat the last one, without a flag."""
    lost: int
    """Readings without lock, without a flag."""
    off_wafer: int
    """Samples beside the wafer."""

    @property
    def dropouts(self) -> int:
        """Samples on the wafer that say nothing."""
        return self.flagged + self.held + self.lost

    @property
    def step_um(self) -> float:
        """Mean way from sample to sample [um]"""
        return float(abs(self.x_um[-1] - self.x_um[0])) / (len(self.x_um) - 1)


def exact_px(x_counts: Int64[np.ndarray, " m"], pitch_um: float) -> Float64[np.ndarray, " m"]:
    """Place of each encoder value in the image, the centre of the first column being 0 [px]

    Args:
        x_counts: Encoder, 0 at the outer edge of the first column [count]
        pitch_um: Of the columns [um]
    """
    return x_counts / (COUNTS_PER_UM * pitch_um) - 0.5


def rounded_px(x_counts: Int64[np.ndarray, " m"], pitch_um: float) -> Float64[np.ndarray, " m"]:
    """Places by whole pixels from sample to sample: the published way, kept to show what it costs [px]

    Source: S0 (its synchronisation script).
    """
    steps = np.rint(np.diff(x_counts) / (COUNTS_PER_UM * pitch_um))
    return exact_px(x_counts[:1], pitch_um) + np.concatenate([[0.0], np.cumsum(steps)])


def repaired(trace: StageTrace, path: str = "the stream") -> Stream:
    """A trace without what cannot be laid on an image.

    Args:
        trace: As the machine wrote it.
        path: What to call it in an error.

    Raises:
        InputError: it is too short, stands still, turns back, or has no valid reading.
    """
    if len(trace.x_counts) < LEAST_SAMPLES:
        raise InputError(path, f"has {len(trace.x_counts)} samples; {LEAST_SAMPLES} are the least")
    x, direction, glitches = _encoder(trace.x_counts, path)
    counts = trace.z_counts.astype(np.float64)
    if not trace.valid.any():
        raise InputError(path, f"none of its {len(counts)} readings is valid; the sensor found no surface")
    away = _beside_the_wafer(counts)
    flagged = ~trace.valid & ~away
    held, lost = _unflagged(counts, trace.valid & ~away)
    z = np.where(away | flagged | held | lost, np.nan, trace.z_um)
    if np.isfinite(z).sum() < LEAST_SAMPLES:
        raise InputError(path, "hardly a reading is a height: all are dropouts, or taken beside the wafer")
    return Stream(
        x,
        z,
        direction,
        trace.rate_hz,
        glitches,
        int(flagged.sum()),
        int(held.sum()),
        int(lost.sum()),
        int(away.sum()),
    )


def _encoder(counts: Int64[np.ndarray, " m"], path: str) -> tuple[Float64[np.ndarray, " m"], int, int]:
    """The encoder without jumps of a sample or two, which way it ran, and how many values were repaired."""
    way = int(np.median(counts[-5:]) - np.median(counts[:5]))
    if way == 0:
        raise InputError(path, "its encoder stands still")
    direction = 1 if way > 0 else -1
    x = counts / COUNTS_PER_UM * direction
    step = float(np.median(np.abs(np.diff(x))))
    jump = np.abs(x - median_filter(x, 5, mode="nearest")) > 4 * max(step, 1 / COUNTS_PER_UM)
    if jump.mean() > MOST_GLITCHES:
        raise InputError(path, f"{jump.sum()} of its {len(x)} encoder values jump; the encoder is not to be trusted")
    good = np.flatnonzero(~jump)
    x = np.interp(np.arange(len(x)), good, x[good])
    fall = np.maximum.accumulate(x) - x
    if fall.max() > 2 * step:
        where = int(np.flatnonzero(fall > 2 * step)[0])
        raise InputError(
            path,
            f"the encoder turns back at sample {where}, by {fall.max():.0f} um in all; one stream holds one scan: "
            "part it where the stage turns, and give the second scan as --opposite",
        )
    return np.maximum.accumulate(x) * direction, direction, int(jump.sum())


def _beside_the_wafer(counts: Float64[np.ndarray, " m"]) -> Bool[np.ndarray, " m"]:
    """Both ends as far as the reading is wild, with the plunge at the wafer's edge."""
    away = np.zeros(len(counts), bool)
    for side in (slice(None), slice(None, None, -1)):
        seen, mark = counts[side], away[side]  # views
        end = 0
        while end + WILD_BLOCK < len(seen):
            block = seen[end : end + WILD_BLOCK + 1]
            if np.median(np.abs(np.diff(block))) < WILD_COUNTS:
                break
            end += WILD_BLOCK
        if end:  # a plunge by itself is a lost lock
            near = seen[: end + 2 * WILD_BLOCK]
            plunge = np.flatnonzero((near < IMPOSSIBLE_COUNTS[0]) | (near > IMPOSSIBLE_COUNTS[1]))
            mark[: max(int(plunge[-1]) + 1, end - WILD_BLOCK) if len(plunge) else end] = True
    return away


def _unflagged(
    counts: Float64[np.ndarray, " m"], usable: Bool[np.ndarray, " m"]
) -> tuple[Bool[np.ndarray, " m"], Bool[np.ndarray, " m"]]:
    """Readings that were held, and readings without lock, among those the machine calls valid."""
    places = np.flatnonzero(usable)
    seen = counts[places]
    held, lost = np.zeros(len(counts), bool), np.zeros(len(counts), bool)
    if len(seen) < LEAST_SAMPLES:
        return held, lost
    change = np.diff(seen)
    noise = float(np.median(np.abs(change))) / 0.6745 / np.sqrt(2)
    height = -seen / COUNTS_PER_UM
    above = height - grey_opening(height, LOST_RUN + 1, mode="nearest")
    gone = above > max(LOST_UM, 8 * noise / COUNTS_PER_UM)
    gone |= (seen < IMPOSSIBLE_COUNTS[0]) | (seen > IMPOSSIBLE_COUNTS[1])
    lost[places[gone]] = True
    if noise > LEAST_NOISE_COUNTS:
        again = np.concatenate([[False], change == 0])
        held[places[again & ~gone]] = True
    return held, lost
