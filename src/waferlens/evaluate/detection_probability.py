"""Scores as probabilities: fitted on findings that trained nothing, and held against those of other devices.

A finding is a defect where it lies on a true one of its class (`detection_devices.ON_DEFECT`); on what is ignored it is
none. Fitted is Platt's sigmoid of the score's log-odds, to targets that are a little less sure than 0 and 1, so that a
score that parts all of them perfectly still has a finite slope. What comes out holds for devices of which as many are
defective as of those it was fitted on.

Sources: J. C. Platt, "Probabilistic outputs for support vector machines", Advances in Large Margin Classifiers (1999);
H.-T. Lin, C.-J. Lin, R. C. Weng, Machine Learning 68 (2007) 267 (targets, stable sums); G. W. Brier, Mon. Weather Rev.
78 (1950) 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logit

from waferlens.bundle.package_calibration import LEAST_SCORE, MOST_SCORE, Sigmoid
from waferlens.evaluate.detection_devices import ON_DEFECT
from waferlens.evaluate.detections import FoundHere, TrueHere
from waferlens.ops.boxes import iou

BINS = 10
"""Of probabilities, each of as many findings."""


def on_defects(found: FoundHere, true: TrueHere, least_overlap: float = ON_DEFECT) -> Bool[np.ndarray, " n"]:
    """Whether each finding of an image lies on a true defect of its class."""
    if not len(found.boxes) or not len(true.boxes):
        return np.zeros(len(found.boxes), bool)
    counts = np.ones(len(true.boxes), bool) if true.ignore is None else ~np.asarray(true.ignore, bool)
    same = found.kinds[:, None] == true.kinds[None]
    return ((iou(found.boxes, true.boxes) >= least_overlap) & same & counts[None]).any(axis=1)


def fit_sigmoid(scores: Float[np.ndarray, " n"], defects: Bool[np.ndarray, " n"]) -> Sigmoid | None:
    """The sigmoid that makes probabilities of scores; None where all findings are defects, or none is.

    Args:
        scores: Of findings that trained nothing.
        defects: Whether each is a defect.
    """
    positive, negative = int(np.sum(defects)), int(np.sum(~np.asarray(defects, bool)))
    if not positive or not negative:
        return None
    odds = logit(np.clip(np.asarray(scores, np.float64), LEAST_SCORE, MOST_SCORE))
    target = np.where(defects, (positive + 1) / (positive + 2), 1 / (negative + 2))

    def loss(at: Float64[np.ndarray, " 2"]) -> tuple[float, Float64[np.ndarray, " 2"]]:
        told = at[0] * odds + at[1]
        lost = -np.mean(target * log_expit(told) + (1 - target) * log_expit(-told))
        wrong = (expit(told) - target) / len(odds)
        return float(lost), np.array([wrong @ odds, wrong.sum()])

    start = np.array([1.0, 0.0])
    # a slope below 0 would call the surest findings the least likely ones: then scores say nothing
    fitted = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, None), (None, None)])
    return Sigmoid(float(fitted.x[0]), float(fitted.x[1]), positive + negative, positive)


def reliability(
    found: Sequence[FoundHere],
    truth: Sequence[TrueHere],
    classes: Sequence[str],
    probabilities: Mapping[str, Sigmoid],
) -> dict[str, Any] | None:
    """Whether findings are defects as often as their probabilities say; None where none has one.

    Args:
        found: Of each image.
        truth: Of the same images.
        classes: Their names.
        probabilities: By class; findings of other classes are left out.
    """
    told, right = [], []
    for here, true in zip(found, truth, strict=True):
        hits = on_defects(here, true)
        for number, name in enumerate(classes):
            if name in probabilities:
                mine = here.kinds == number
                told.append(probabilities[name](here.scores[mine]))
                right.append(hits[mine])
    if not told or not sum(map(len, told)):
        return None
    probability, defect = np.concatenate(told), np.concatenate(right).astype(np.float64)
    bins = np.array_split(np.argsort(probability, kind="stable"), min(BINS, len(probability)))
    rows = [(float(probability[rows].mean()), float(defect[rows].mean()), len(rows)) for rows in bins]
    return {
        "findings": len(probability),
        "defects_told": float(probability.mean()),
        "defects": float(defect.mean()),
        "brier": float(np.mean((probability - defect) ** 2)),
        "brier_constant": float(np.mean((defect.mean() - defect) ** 2)),
        "off_by": float(sum(abs(p - d) * n for p, d, n in rows) / len(probability)),
        "bins": {name: [row[place] for row in rows] for place, name in enumerate(("told", "are", "findings"))},
    }
