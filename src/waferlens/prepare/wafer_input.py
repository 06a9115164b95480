"""What a network of the wafer station is shown of a field: one function for training, evaluation and inspection.

The image is averaged over areas of the network's pitch, the trace becomes one value a column, and truth, where there is
any, is brought to the same grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int8

from waferlens.errors import UsageError
from waferlens.prepare.wafer_geometry import area_resampled, column_values
from waferlens.records import Die, StageTrace

DIE, STREET, MISSING = 0, 1, 2
"""Numbers of the classes, in the order of `bundle.wafer.CLASSES`."""
MOST_STRETCH = 0.01
"""By which the sides of a field may differ in their ratio from those of a network of one size."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A field on the network's grid."""

    image: Float32[np.ndarray, "h w"]
    """0 black .. 1 white."""
    pitch_um: float
    """Distance of neighbouring columns; of rows as well, unless the whole field was scaled to a fixed size [um]"""
    track_z_um: Float32[np.ndarray, " w"]
    """Reading of the auto-focus at each column, NaN where not known [um]"""
    objective_z_um: Float32[np.ndarray, " w"]
    """Height of focus at each column, NaN where not known [um]"""
    direction: int
    """1 where the scan ran along +x, -1 against it."""


def shown(
    image: np.ndarray,
    pitch_um: float,
    trace: StageTrace | None,
    *,
    network_pitch_um: float | None,
    size_px: tuple[int, int] | None = None,
    full_scale: float = 65535.0,
) -> Shown:
    """A field as a network sees it.

    Args:
        image: `h w` grey.
        pitch_um: Of the image [um]
        trace: Of the stage, if there is one.
        network_pitch_um: Of the network; None scales the whole field to `size_px` [um]
        size_px: Rows and columns of a network that takes no other size.
        full_scale: Grey value of white.

    Raises:
        ValueError: neither pitch nor size is given.
    """
    h, w = image.shape
    if network_pitch_um is None:
        if size_px is None:
            raise ValueError("a network without a pitch needs a size")
        rows, columns = size_px
        pitch_x, pitch_y = w * pitch_um / columns, h * pitch_um / rows
    else:
        pitch_x = pitch_y = network_pitch_um
        rows, columns = size_px or (grid(h, pitch_um, pitch_y), grid(w, pitch_um, pitch_x))
    if (rows, columns) == (h, w):
        grey = image.astype(np.float32)
        pitch_x = pitch_um
    else:
        grey = area_resampled(image, pitch_um, pitch_x, width=columns, height=rows, pitch_out_y_um=pitch_y)
    grey = grey * np.float32(1.0 / full_scale)
    unknown = np.full(columns, np.nan, np.float32)
    if trace is None:
        return Shown(grey, pitch_x, unknown, unknown, 1)
    track, objective = column_values(trace, pitch_x, columns)
    return Shown(grey, pitch_x, track, unknown if objective is None else objective, scan_direction(trace))


def require_whole_field(name: str, shape: tuple[int, ...], size_px: tuple[int, int] | None) -> None:
    """Refuses an image that a network of one size would be shown stretched.

    Args:
        name: Of the field, for the error.
        shape: Rows and columns of its image [px]
        size_px: Of the network; None where it takes any.

    Raises:
        UsageError: the sides do not have the ratio of the network's, to 1 %.
    """
    if size_px is not None and abs(shape[1] * size_px[0] / (shape[0] * size_px[1]) - 1) > MOST_STRETCH:
        raise UsageError(
            f"field {name} is {shape[1]}x{shape[0]} px; this network takes whole fields, scaled to "
            f"{size_px[1]}x{size_px[0]} px, and would see it stretched"
        )


def grid(count: int, pitch_in_um: float, pitch_out_um: float) -> int:
    """Pixels of the network's pitch that lie in so many of the image's; half a pixel more or less is let pass."""
    return max(1, round(count * pitch_in_um / pitch_out_um))


def scan_direction(trace: StageTrace) -> int:
    """1 where the encoder runs up with time, -1 where it runs down."""
    return 1 if trace.x_counts[-1] >= trace.x_counts[0] else -1


def class_map(dies: Sequence[Die], pitch_um: float, h: int, w: int) -> Int8[np.ndarray, "h w"]:
    """What each pixel shows, from the sites: a pixel belongs to the site its centre lies in.

    Args:
        dies: Sites, present or missing.
        pitch_um: Of the map [um]
        h: Rows.
        w: Columns.
    """
    kinds = np.full((h, w), STREET, np.int8)
    for die in dies:
        x0, y0, x1, y1 = (int(np.clip(np.ceil(edge / pitch_um - 0.5), 0, limit)) for edge, limit in zip(
            die.box_um, (w, h, w, h), strict=True))  # fmt: skip
        kinds[y0:y1, x0:x1] = MISSING if die.state == "missing" else DIE
    return kinds
