"""How far a depth map is from what was measured, over the pixels that were measured.

A depth of 0 means that the sensor saw nothing. Counted as a depth, it makes every relative error infinite: S3 tells a
relative error of 3.4e5 for that reason.

Source: Eigen, Puhrsch, Fergus, NeurIPS 2014 (arXiv:1406.2283), section 4.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float, Shaped

DELTA = 1.25
"""A ratio of prediction and truth below this, its square and its cube counts as near."""


def measured(truth: Shaped[np.ndarray, "*s"]) -> Bool[np.ndarray, "*s"]:
    """Where there is a depth: finite and above 0."""
    return np.isfinite(truth) & (truth > 0)


def depth_metrics(pred: Float[np.ndarray, "*s"], truth: Float[np.ndarray, "*s"]) -> dict[str, float]:
    """Errors of a depth map.

    Args:
        pred: Predicted depths [m]
        truth: Measured depths; 0 or NaN where there is none [m]

    Returns:
        `rmse` and `mae` [m]; `abs_rel`, the mean of the error over the truth; `log10`, the mean absolute error of the
        decimal logarithm, infinite where a prediction is not above 0; `delta1`, `delta2`, `delta3`, the shares of
        pixels whose ratio of prediction and truth, the greater over the smaller, is below 1.25, 1.25² and 1.25³;
        `pixels` that were measured, and their share `valid`.

    Raises:
        ValueError: the shapes differ, no pixel was measured, or a prediction on a measured pixel is not finite.
    """
    if pred.shape != truth.shape:
        raise ValueError(f"prediction is {pred.shape}, truth {truth.shape}; bring them to one grid first")
    where = measured(truth)
    count = int(where.sum())
    if count == 0:
        raise ValueError(f"none of the {truth.size} depths was measured (all are 0 or NaN)")
    ours, true = pred[where].astype(np.float64), truth[where].astype(np.float64)
    if not np.isfinite(ours).all():
        raise ValueError(f"{int((~np.isfinite(ours)).sum())} predictions on measured pixels are not finite")
    error = np.abs(ours - true)
    positive = ours > 0
    share = np.where(positive, ours, 1.0) / true
    ratio = np.where(positive, np.maximum(share, 1.0 / share), math.inf)
    return {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(np.mean(error)),
        "abs_rel": float(np.mean(error / true)),
        "log10": float(np.mean(np.abs(np.log10(share)))) if positive.all() else math.inf,
        **{f"delta{power}": float(np.mean(ratio < DELTA**power)) for power in (1, 2, 3)},
        "pixels": float(count),
        "valid": count / truth.size,
    }
