"""Boxes against boxes: how much they overlap, and which found one is which true one.

Two ways to pair them, for two questions. *How good is the list at a fixed threshold?* takes `best_match`: as many pairs
as there can be, whatever the order of the findings, so that no true defect is lost to a finding that could have had
another. *How good is the ranking by score?* takes `greedy_match`: the highest score chooses first and nothing that is
added below it changes its fate, which makes precision and recall curves well defined.

Boxes are x0 y0 x1 y1, edges, so that areas need no ones added.

Sources: Everingham et al., Int. J. Comput. Vis. 88 (2010) 303 (overlap); Lin et al., ECCV 2014 (greedy matching as COCO
does); Crouse, IEEE Trans. Aerosp. Electron. Syst. 52 (2016) 1679 (SciPy's assignment).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int


def iou(boxes_a: Float[np.ndarray, "n 4"], boxes_b: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """Intersection over union of every box with every other; 0 where neither has an area."""
    a, b = _boxes(boxes_a)[:, None], _boxes(boxes_b)[None]
    shared = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0.0, None).prod(axis=-1)
    union = areas(a) + areas(b) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def areas(boxes: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n"]:
    """Areas; 0 for a box whose edges are the wrong way round [px²]"""
    return np.clip(boxes[..., 2:] - boxes[..., :2], 0.0, None).prod(axis=-1)


def centre_hits(found: Float[np.ndarray, "n 4"], truth: Float[np.ndarray, "m 4"]) -> Bool[np.ndarray, "n m"]:
    """Whether the centre of a found box lies in a true box, its edges included."""
    found, truth = _boxes(found), _boxes(truth)
    centre = (found[:, None, :2] + found[:, None, 2:]) / 2
    return ((centre >= truth[None, :, :2]) & (centre <= truth[None, :, 2:])).all(axis=-1)


def greedy_match(
    overlap: Float[np.ndarray, "n m"], scores: Float[np.ndarray, " n"], least: float
) -> Int[np.ndarray, " n"]:
    """For each finding the true one it takes, or -1: in the order of the scores, each takes the best that is left.

    Args:
        overlap: Of findings (rows) with true ones (columns).
        scores: Of the findings; among equal ones the first comes first.
        least: Overlap from which a pair may be one. Of true ones that overlap equally, the last is taken, as COCO does.
    """
    taken = np.full(overlap.shape[0], -1)
    if not overlap.size:
        return taken
    left = np.array(overlap, np.float64)
    for row in np.argsort(-np.asarray(scores, np.float64), kind="stable"):
        best = overlap.shape[1] - 1 - int(np.argmax(left[row, ::-1]))
        if left[row, best] >= least:
            taken[row] = best
            left[:, best] = -np.inf
    return taken


def best_match(overlap: Float[np.ndarray, "n m"], allowed: Bool[np.ndarray, "n m"]) -> Int[np.ndarray, " n"]:
    """For each finding the true one it belongs to, or -1: the most pairs there can be, of those the most overlap.

    Args:
        overlap: Of findings (rows) with true ones (columns), 0 to 1.
        allowed: Which pairs may be one.
    """
    from scipy.optimize import linear_sum_assignment  # a tenth of a second to import, and only judging needs it

    taken = np.full(overlap.shape[0], -1)
    if not allowed.any():
        return taken
    # one more pair outweighs any overlap
    weight = np.where(allowed, overlap + min(overlap.shape) + 1.0, 0.0)
    rows, columns = linear_sum_assignment(weight, maximize=True)
    paired = allowed[rows, columns]
    taken[rows[paired]] = columns[paired]
    return taken


def _boxes(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    return np.asarray(boxes, np.float64).reshape(-1, 4)
