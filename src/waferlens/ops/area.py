"""Averages over areas: an image on a coarser grid, each new pixel the mean of all it covers, at any phase.

The sums of a row up to each place are interpolated linearly, which is the exact integral of the image as steps. A tile
and the whole image therefore give the same pixels, wherever the tile begins.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64


def area_weights(count: int, edges: Float64[np.ndarray, " m"]) -> tuple[np.ndarray, np.ndarray]:
    """Place and fraction at which each edge cuts the running sums of `count` pixels.

    Args:
        count: Pixels.
        edges: Rising, in pixels from the outer edge of the first; what lies beyond the image counts as its end.
    """
    inside = np.clip(edges, 0.0, count)
    place = np.minimum(inside.astype(np.int64), count - 1)
    return place, inside - place


def area_mean(
    image: np.ndarray, row_edges: Float64[np.ndarray, " p"], column_edges: Float64[np.ndarray, " q"]
) -> Float32[np.ndarray, "h w"]:
    """Means over the rectangles between neighbouring edges.

    Args:
        image: `h w`, any number type.
        row_edges: Rising [px]
        column_edges: Rising [px]

    Returns:
        One row less than there are row edges, one column less than there are column edges; what covers no pixel takes
        the nearest.
    """
    rows = _along_rows(image, row_edges)
    return np.ascontiguousarray(_along_rows(rows.T, column_edges).T)


def _along_rows(image: np.ndarray, edges: Float64[np.ndarray, " m"]) -> Float32[np.ndarray, "n w"]:
    """Means of rows between neighbouring edges: sums over the whole ones, and the cut ones by their share."""
    count = len(image)
    place, share = area_weights(count, edges)
    first, last, start, stop = place[:-1], place[1:], share[:-1], share[1:]
    length = np.maximum((last + stop) - (first + start), 1e-9)
    # sums of the rows first + 1 .. last - 1; reduceat takes the odd intervals as well, and one row where there is none
    cuts = np.stack([np.minimum(first + 1, count - 1), np.minimum(last, count - 1)], axis=1).ravel()
    total = np.add.reduceat(image, cuts, axis=0, dtype=np.float32)[::2]
    total[last <= first + 1] = 0.0
    same = first == last
    head = np.where(same, stop - start, 1.0 - start)
    total += image[first] * head[:, np.newaxis].astype(np.float32)
    total += image[last] * np.where(same, 0.0, stop)[:, np.newaxis].astype(np.float32)
    total *= (1.0 / length)[:, np.newaxis].astype(np.float32)
    beyond = (last + stop) - (first + start) <= 1e-9
    total[beyond] = image[first[beyond]]
    return total
