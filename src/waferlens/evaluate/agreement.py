"""How far depth maps are from the truth: one row of sums an image, from which every figure and its interval come.

Source: the split into structure and level follows what entrants of the 3D-metrology challenge report (S1).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

COLUMNS = ("pixels", "square", "level_square", "structure_square", "floor_square", "floor_pixels")
"""Sums of an image: squared errors of all pixels, their level and structure parts, and of the floor."""


def error_sums(
    depth: Float[np.ndarray, "b h w"], truth: Float[np.ndarray, "b h w"]
) -> tuple[Float[np.ndarray, "b k"], dict[str, Float[np.ndarray, " b"]]]:
    """The sums of `COLUMNS` and, by name, figures that an image has one of.

    Args:
        depth: Predicted maps [grey]
        truth: True maps [grey]

    Returns:
        Sums `b k`; and `level_error` (error of the plateau [grey]), `contour_error_px` (mean distance between the
        predicted and the true contour at half the true depth [px]).

    The level part of an error is what a wrong plateau costs: its error times 1 - s, for the floor does not move with
    the plateau. What remains is structure.
    """
    truth64, error = truth.astype(np.float64), depth.astype(np.float64) - truth
    plateau = truth64.max(axis=(1, 2))
    floor = np.quantile(truth64.reshape(len(truth64), -1), 0.05, axis=1)
    step = np.maximum(plateau - floor, 1e-9)
    s = np.clip((plateau[:, None, None] - truth64) / step[:, None, None], 0.0, 1.0)
    flat, bottom = s < 0.02, s > 0.98
    level_error = (error * flat).sum(axis=(1, 2)) / np.maximum(flat.sum(axis=(1, 2)), 1)
    level = level_error[:, None, None] * (1.0 - s)
    sums = np.column_stack(
        [
            np.full(len(error), error[0].size if len(error) else 0, np.float64),
            np.square(error).sum(axis=(1, 2)),
            np.square(level).sum(axis=(1, 2)),
            np.square(error - level).sum(axis=(1, 2)),
            (np.square(error) * bottom).sum(axis=(1, 2)),
            bottom.sum(axis=(1, 2)),
        ]
    )
    half = (plateau - 0.5 * step)[:, None, None]
    return sums, {"level_error": level_error, "contour_error_px": _contour_distance(depth, truth64, half)}


def _contour_distance(depth: np.ndarray, truth: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Area between two contours over the length of the true one, both with sub-pixel edges [px]."""
    inside, wanted = _share_below(depth, level), _share_below(truth, level)
    length = np.hypot(*np.gradient(wanted, axis=(1, 2))).sum(axis=(1, 2))
    return np.abs(inside - wanted).sum(axis=(1, 2)) / np.maximum(length, 1.0)


def _share_below(z: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Share of each pixel that lies below a level, from its height and slope."""
    slope = np.hypot(*np.gradient(z.astype(np.float64), axis=(1, 2)))
    return np.clip(0.5 + (level - z) / np.maximum(slope, 1e-6), 0.0, 1.0)


def root_mean(column: str, over: str = "pixels"):  # type: ignore[no-untyped-def]
    """A statistic of summed columns: the root of a mean square, for point values and for the bootstrap alike."""
    top, bottom = COLUMNS.index(column), COLUMNS.index(over)
    return lambda sums: np.sqrt(sums[..., top] / np.maximum(sums[..., bottom], 1.0))
