"""The geometry that training and inspection of the wafer station share: area averages, and one value a column."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from waferlens.ops.area import area_mean
from waferlens.records import COUNTS_PER_UM, StageTrace

LONGEST_GAP_UM = 100.0
"""Columns without a sample are filled in over this length: samples are 22.75 um apart, dropouts lose a few [um]"""


def area_resampled(
    image: np.ndarray,
    pitch_in_um: float,
    pitch_out_um: float,
    *,
    width: int | None = None,
    height: int | None = None,
    x0_um: float = 0.0,
    y0_um: float = 0.0,
    pitch_out_y_um: float | None = None,
) -> Float32[np.ndarray, "p q"]:
    """An image on another grid, each new pixel the mean over its area.

    Args:
        image: `h w`.
        pitch_in_um: Of the image [um]
        pitch_out_um: Of the new grid along x, and along y unless told otherwise [um]
        width: New columns; as many as the image holds if None.
        height: New rows; as many as the image holds if None.
        x0_um: Outer edge of the first new column, from that of the image's [um]
        y0_um: As `x0_um`, of the rows [um]
        pitch_out_y_um: Of the new grid along y [um]
    """
    h, w = image.shape
    pitch_y = pitch_out_um if pitch_out_y_um is None else pitch_out_y_um
    columns = max(1, round((w * pitch_in_um - x0_um) / pitch_out_um)) if width is None else width
    rows = max(1, round((h * pitch_in_um - y0_um) / pitch_y)) if height is None else height
    return area_mean(
        image,
        (y0_um + pitch_y * np.arange(rows + 1)) / pitch_in_um,
        (x0_um + pitch_out_um * np.arange(columns + 1)) / pitch_in_um,
    )


def column_values(
    trace: StageTrace, pitch_um: float, width: int, x0_um: float = 0.0
) -> tuple[Float32[np.ndarray, " w"], Float32[np.ndarray, " w"] | None]:
    """Heights of the auto-focus and of the plane of focus at each column.

    Samples are laid at the very place of their encoder, never rounded to a pixel one after the other; between samples
    the value is interpolated, and over gaps longer than `LONGEST_GAP_UM` it is not known.

    Args:
        trace: With its encoder at 0 on the outer edge of the image's first column.
        pitch_um: Of the columns [um]
        width: Columns.
        x0_um: Outer edge of the first column [um]

    Returns:
        The track's height and the objective's, NaN where not known [um]; None for the objective if the trace has none.
    """
    centres = x0_um + pitch_um * (np.arange(width) + 0.5)
    x = trace.x_counts / COUNTS_PER_UM
    track = values_at(centres, x[trace.valid], trace.z_um[trace.valid])
    if trace.objective_z_um is None:
        return track, None
    told = np.isfinite(trace.objective_z_um)
    return track, values_at(centres, x[told], trace.objective_z_um[told])


def values_at(centres: np.ndarray, x: np.ndarray, values: np.ndarray) -> Float32[np.ndarray, " w"]:
    """Values between samples at any places, NaN over gaps longer than `LONGEST_GAP_UM`.

    Args:
        centres: Where [um]
        x: Places of the samples, in any order [um]
        values: Of the samples.
    """
    if len(x) == 0:
        return np.full(len(centres), np.nan, np.float32)
    order = np.argsort(x, kind="stable")
    x, values = x[order], values[order]
    found = np.interp(centres, x, values)
    after = np.searchsorted(x, centres)
    before = x[np.clip(after - 1, 0, len(x) - 1)]
    gap = np.where(after == len(x), centres - x[-1], x[np.clip(after, 0, len(x) - 1)] - np.minimum(before, centres))
    gap = np.where(after == 0, x[0] - centres, gap)
    return np.where(gap <= LONGEST_GAP_UM, found, np.nan).astype(np.float32)
