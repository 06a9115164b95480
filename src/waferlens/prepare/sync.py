"""The auto-focus stream laid on its image: a height for each column, and where that may be off.

Every encoder value is mapped to its exact place. What remains is how late a reading is and where the image begins on
the encoder: told apart with two scans in opposite directions, and together with one.

Source: S0 (the task and its raw numbers); SciPy for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from waferlens.errors import InputError, UsageError
from waferlens.formats.swath import Swath
from waferlens.prepare.sync_delay import Delay, delay_of, keep_of, shifted
from waferlens.prepare.sync_match import Match, edges_of_image, matched
from waferlens.prepare.sync_stream import Stream, exact_px, repaired, rounded_px
from waferlens.prepare.wafer_geometry import values_at
from waferlens.records import COUNTS_PER_UM, StageTrace

PITCH_UM = 1.2913298
"""Of S0's swaths [um]"""
MOST_OFFSET_UM = 1000.0
LEAST_AGREEMENT = 0.6
"""Of two scans; below it lag and latency together were often off by more than 5 um in simulation."""
UNCOVERED = 0.05
"""Share of the columns that a stream may leave without a sample at its ends."""
Z_FULL_COUNTS = 25_000


@dataclass(frozen=True, slots=True, eq=False)
class Synced:
    """A stream on its image."""

    label_um: Float32[np.ndarray, " w"]
    """Height above the carrier at each column, NaN where not known [um]"""
    places_px: Float64[np.ndarray, " m"]
    """Place in the image of what each sample of the stream shows, the centre of the first column being 0 [px]"""
    stream: Stream
    opposite: Stream | None
    delay: Delay | None
    """None where latency and lag are not known."""
    match: Match | None
    """None where too few edges of the image fit to the heights."""
    drift_px: Float64[np.ndarray, " m"]
    """What placing samples by whole pixels would have been off by at each [px]"""
    pitch_um: float
    separated: bool
    """Whether latency and offset are told apart; else `match.offset_um` holds both."""
    notes: tuple[str, ...]

    def report(self) -> dict[str, Any]:
        """Figures for people and programs."""
        delay, found, rate = self.delay, self.match, self.stream.rate_hz
        streams = [self.stream, *([self.opposite] if self.opposite else [])]
        return {
            "rms_px": found.rms_um / self.pitch_um if found else None,
            "latency_samples": delay.latency_samples if delay and self.separated else None,
            "dropouts": self.stream.dropouts,
            "lag_ms": delay.lag_ms(rate) if delay else None,
            "lag_um": delay.lag_samples * self.stream.step_um if delay else None,
            "offset_um": found.offset_um if found else None,
            "separated": self.separated,
            "agreement": delay.agreement if delay and self.opposite else None,
            "edges": found.edges if found else 0,
            "widening_um": found.widening_um if found else None,
            "offset_sigma_um": found.sigma_um if found else None,
            "drift_px": float(np.abs(self.drift_px).max()),
            "columns": len(self.label_um),
            "columns_known": int(np.isfinite(self.label_um).sum()),
            "pitch_um": self.pitch_um,
            "streams": [
                {
                    "samples": len(stream.x_um),
                    "direction": stream.direction,
                    "step_um": stream.step_um,
                    "dropouts_flagged": stream.flagged,
                    "dropouts_held": stream.held,
                    "dropouts_lost": stream.lost,
                    "off_wafer": stream.off_wafer,
                    "encoder_glitches": stream.glitches,
                }
                for stream in streams
            ],
            "notes": list(self.notes),
        }


def synchronised(
    trace: StageTrace,
    image: Swath,
    pitch_um: float = PITCH_UM,
    *,
    opposite: StageTrace | None = None,
    latency_samples: int | None = None,
    lag_ms: float | None = None,
    offset_um: float | None = None,
    most_offset_um: float = MOST_OFFSET_UM,
    names: tuple[str, str] = ("the stream", "the opposite stream"),
) -> Synced:
    """Lays a stream on its image.

    Args:
        trace: The scan.
        image: Of the same scene.
        pitch_um: Of its columns [um]
        opposite: Another scan of the same scene, against the first.
        latency_samples: Of the sensor, where it is known; else told from two scans.
        lag_ms: Time constant of its low-pass, where it is known; else told from two scans [ms]
        offset_um: To be added to the encoder to be at 0 on the outer edge of the first column, where it is known [um]
        most_offset_um: Largest offset that is looked for; less than half the pitch of the dies [um]
        names: What to call the streams in an error.

    Raises:
        InputError: a stream cannot be used, both run the same way, or they leave a part of the image out.
        UsageError: a number makes no sense.
    """
    if not (np.isfinite(pitch_um) and pitch_um > 0):
        raise UsageError(f"a pitch of {pitch_um} um; it is a length above 0")
    if (latency_samples or 0) < 0 or (lag_ms or 0.0) < 0:
        raise UsageError("latency and lag are not negative: the sensor tells nothing before it is there")
    stream = repaired(trace, names[0])
    other = repaired(opposite, names[1]) if opposite is not None else None
    if other is not None and other.direction == stream.direction:
        raise InputError(
            names[1], f"runs the same way as {names[0]}; latency shows in scans of opposite directions only"
        )
    _require_cover(stream, image, pitch_um, offset_um, most_offset_um, names[0])
    notes: list[str] = []
    known = latency_samples is not None and lag_ms is not None
    delay = _delay(stream, other, latency_samples, lag_ms, notes)
    separated = delay is not None
    found: Match | None = None
    if offset_um is not None:
        found = Match(offset_um, 0.0, 0, 0.0, 0.0)
    else:
        streams = [stream, *([other] if other is not None else [])]
        both = matched(streams, edges_of_image(image.columns, pitch_um), most_offset_um, delay, known=known)
        if both is None:
            notes.append(
                f"the edges of the image do not fit to the heights anywhere within {most_offset_um:.0f} um; the offset "
                "is taken as 0"
            )
        else:
            found, delay = both
    offset = found.offset_um if found else 0.0
    centres = (np.arange(image.width) + 0.5) * pitch_um
    labels = []
    for each in (stream, other):
        if each is not None:
            read = np.isfinite(each.z_um)
            x = _shown_at(each, delay, leaning=other is None) + offset
            labels.append(values_at(centres, x[read], each.z_um[read]))
    label = labels[0]
    if other is not None:
        # of two opposite scans the mean leans to neither side; where only one knows, it has to do
        label = np.where(np.isnan(labels[0]), labels[1], np.where(np.isnan(labels[1]), labels[0], sum(labels) / 2))
    places = (_shown_at(stream, delay, leaning=True) + offset) / pitch_um - 0.5
    drift = rounded_px(trace.x_counts, pitch_um) - exact_px(trace.x_counts, pitch_um)
    return Synced(
        label.astype(np.float32), places, stream, other, delay, found, drift, pitch_um, separated, tuple(notes)
    )


def strip_label(label_um: Float32[np.ndarray, " w"], z_ref_um: float, rows: int) -> np.ndarray:
    """S0's label in 8 bits: readings clamped to 0..25,000 counts, high is 255, the same in every row; 0 if not known.

    Args:
        label_um: Height at each column [um]
        z_ref_um: Height above the carrier at which the reading is 0 [um]
        rows: Of the label [px]

    Source: S0.
    """
    counts = np.clip(COUNTS_PER_UM * (z_ref_um - label_um), 0, Z_FULL_COUNTS)
    grey = np.nan_to_num(255.0 * (Z_FULL_COUNTS - counts) / Z_FULL_COUNTS, nan=0.0)
    return np.tile(np.rint(grey).astype(np.uint8), (rows, 1))


def _require_cover(
    stream: Stream, image: Swath, pitch_um: float, offset_um: float | None, most_um: float, path: str
) -> None:
    width = image.width * pitch_um
    slack = UNCOVERED * width + (most_um if offset_um is None else 0.0)
    shift = offset_um or 0.0
    low, high = float(stream.x_um.min()) + shift, float(stream.x_um.max()) + shift
    if low > slack or high < width - slack:
        raise InputError(
            path,
            f"covers {low:.0f} .. {high:.0f} um on the encoder, and the image {image.path} is {width:.0f} um wide "
            f"({image.width} px of {pitch_um:g} um): the stream is too short, or belongs to another image",
        )


def _delay(
    stream: Stream, other: Stream | None, latency: int | None, lag_ms: float | None, notes: list[str]
) -> Delay | None:
    if latency is not None and lag_ms is not None:
        return Delay(latency, keep_of(lag_ms, stream.rate_hz), 1.0)
    if other is None:
        notes.append(
            "one direction only: latency and offset cannot be told apart, and offset_um holds both; give a scan in the "
            "opposite direction, or the latency and the lag of the sensor"
        )
        return None
    found = delay_of(stream, other)
    if found is None:
        notes.append("the two scans share too little of the wafer to tell latency and lag from them")
        return None
    if found.agreement < LEAST_AGREEMENT:
        notes.append(
            f"the two scans agree by {found.agreement:.2f} only (1 is all alike, at least {LEAST_AGREEMENT:g} is "
            "usual): low dies, much noise or many dropouts; latency and lag are less certain"
        )
    return Delay(
        found.latency_samples if latency is None else latency,
        found.keep if lag_ms is None else keep_of(lag_ms, stream.rate_hz),
        found.agreement,
    )


def _shown_at(stream: Stream, delay: Delay | None, *, leaning: bool) -> Float64[np.ndarray, " m"]:
    """Where on the encoder lies what each sample shows [um]

    Args:
        stream: A scan.
        delay: Of the sensor; None takes the encoder as it is.
        leaning: Whether the lag is made good by its mean age.
    """
    if delay is None:
        return stream.x_um
    return shifted(stream, delay.latency_samples + (delay.lag_samples if leaning else 0.0))
