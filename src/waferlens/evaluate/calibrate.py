"""Fits what a bundle claims about its own errors, on held-out structures that trained nothing.

Bias is fitted against the truth: a measurand's correction makes its mean error vanish at each true value. The width
of an interval follows a scale that is learned from the errors and then stretched to the wanted coverage (conformal
prediction), so a poor scale costs width and never coverage.

Source: Lei et al., J. Am. Stat. Assoc. 113 (2018) 1094, section 5.2 (locally weighted split conformal).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from scipy.optimize import minimize

from waferlens.bundle.calibration import (
    MEASURAND_FEATURES,
    VALUE,
    Calibration,
    Domain,
    MeasurandCalibration,
    PixelCalibration,
    corrected_value,
    level_key,
    scale_of,
)
from waferlens.bundle.readout import DOMAIN_FEATURES, read_out
from waferlens.bundle.session import Session
from waferlens.evaluate.intervals import conformal_quantile
from waferlens.ops.hole import PERIODS, UNITS, measure_holes
from waferlens.prepare.geometry import batch_input

BATCH = 256
BIAS_BINS = 10
FAITHFUL_SLOPE = 0.05
"""A measurand whose slope against the truth is this close to 1 gets its bias corrected by value; one that is blurred
by its own errors gets one offset, for a slope would only stretch its noise."""
FEWEST = 100
"""Images below which a measurand is left without an interval."""
PIXEL_STRIDE = 7
"""Every so many pixels of a calibration image are kept; a prime that no image side is a multiple of."""


def fit_calibration(
    session: Session,
    sem: UInt8[np.ndarray, "n h w"],
    depth: UInt8[np.ndarray, "n h w"],
    levels: Sequence[float],
    out_of_domain_quantile: float,
    data: Mapping[str, Any],
) -> Calibration:
    """Calibrates a network's intervals and its domain.

    Args:
        session: The exported network; nothing but the exported network is ever calibrated.
        sem: Held-out images [grey]
        depth: Their depth maps [grey]
        levels: Coverages.
        out_of_domain_quantile: Share of these images that counts as inside the domain.
        data: Where the images came from; stored.
    """
    pixel_scores, constant = _pixel_errors(session, sem, depth)
    pixel = PixelCalibration({level_key(level): conformal_quantile(pixel_scores, level) for level in levels}, constant)
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(sem), BATCH):
        rows = slice(start, start + BATCH)
        told = read_out(session, Calibration(pixel=pixel), batch_input(sem[rows]))
        truth = measure_holes(depth[rows].astype(np.float32))
        columns = {
            **{f"value.{name}": told.measurands[name] for name in UNITS},
            **{f"truth.{name}": truth[name] for name in UNITS},
            **{f"feature.{name}": column for name, column in told.features.items()},
            **{f"domain.{name}": column for name, column in told.domain.items()},
        }
        for name, column in columns.items():
            parts.setdefault(name, []).append(column)
    table = {name: np.concatenate(column) for name, column in parts.items()}
    features = {name: table[f"feature.{name}"] for name in MEASURAND_FEATURES if f"feature.{name}" in table}
    measurands = {}
    for name in UNITS:
        part = fit_measurand(table[f"value.{name}"], table[f"truth.{name}"], features, levels, name)
        if part is not None:
            measurands[name] = part
    domain = fit_domain({name: table[f"domain.{name}"] for name in DOMAIN_FEATURES}, out_of_domain_quantile)
    return Calibration(pixel, measurands, domain, data)


def error_of(name: str, value: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Value minus truth; for a direction the smaller of the two ways round."""
    error = value - truth
    period = PERIODS.get(name)
    return error if period is None else (error + period / 2) % period - period / 2


def fit_measurand(
    value: Float[np.ndarray, " n"],
    truth: Float[np.ndarray, " n"],
    features: Mapping[str, Float[np.ndarray, " n"]],
    levels: Sequence[float],
    name: str = "",
) -> MeasurandCalibration | None:
    """Bias, scale and quantiles of one measurand; None where too few images have it.

    Args:
        value: As measured on the predicted map.
        truth: As measured on the true map.
        features: What the scale may depend on, besides the value.
        levels: Coverages.
        name: Name of the measurand; a direction is compared around the circle.
    """
    known = np.isfinite(value) & np.isfinite(truth)
    if known.sum() < FEWEST:
        return None
    value, truth = value[known], truth[known]
    told = {VALUE: value, **{key: column[known] for key, column in features.items()}}
    told = {key: column for key, column in told.items() if column.std() > 1e-9 * max(1.0, abs(column.mean()))}
    knots, corrections = _bias(value, truth, name)
    means = [float(column.mean()) for column in told.values()]
    deviations = [float(column.std()) for column in told.values()]
    unit = MeasurandCalibration({}, knots, corrections)
    error = np.abs(error_of(name, corrected_value(unit, value), truth))
    design = np.column_stack(
        [np.ones(len(value)), *((c - m) / s for c, m, s in zip(told.values(), means, deviations, strict=True))]
    )
    coefficients = fit_scale(design, error)
    shaped = MeasurandCalibration({}, knots, corrections, tuple(told), means, deviations, coefficients)
    scores = error / scale_of(shaped, value, told)
    quantiles = {level_key(level): conformal_quantile(scores, level) for level in levels}
    return MeasurandCalibration(quantiles, knots, corrections, tuple(told), means, deviations, coefficients)


def fit_scale(design: Float[np.ndarray, "n k"], error: Float[np.ndarray, " n"]) -> list[float]:
    """Coefficients of the logarithm of the errors' mean size, by the likelihood of a Laplace distribution.

    Args:
        design: A column of ones, then standardised features.
        error: Absolute errors.
    """
    smallest = 1e-6 * max(float(error.mean()), 1e-12)
    error = np.maximum(error, smallest)
    start = np.zeros(design.shape[1])
    start[0] = np.log(error.mean())

    def loss(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        exponent = design @ coefficients
        ratio = error * np.exp(-exponent)
        # A touch of ridge on the slopes keeps collinear features from trading huge coefficients.
        ridge = np.r_[0.0, coefficients[1:]]
        value = float(np.mean(exponent + ratio) + 1e-3 * np.sum(ridge**2))
        return value, design.T @ (1.0 - ratio) / len(error) + 2e-3 * ridge

    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(None, None)] + [(-1.0, 1.0)] * (len(start) - 1))
    return [float(value) for value in found.x]


def fit_domain(features: Mapping[str, Float[np.ndarray, " n"]], quantile: float) -> Domain:
    """Mean, spread and border of the images the bundle knows."""
    table = np.column_stack(list(features.values()))
    mean = table.mean(axis=0)
    away = table - mean
    covariance = np.atleast_2d(np.cov(away, rowvar=False))
    # Features of a network without sigma are constant; a small ridge keeps the inverse finite and them harmless.
    covariance += np.diag(1e-6 * np.maximum(np.diag(covariance), 1e-6))
    inverse = np.linalg.inv(covariance)
    distance = np.einsum("bi,ij,bj->b", away, inverse, away)
    return Domain(tuple(features), mean.tolist(), inverse.tolist(), float(np.quantile(distance, quantile)))


def _pixel_errors(session: Session, sem: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, float | None]:
    """Absolute errors of a sample of pixels over their sigma; and the one sigma of a network that tells none."""
    scores, squares, count = [], 0.0, 0
    for start in range(0, len(sem), BATCH):
        rows = slice(start, start + BATCH)
        predicted, sigma = session.predict(batch_input(sem[rows]))
        error = np.abs(predicted - depth[rows])
        squares += float(np.sum(error.astype(np.float64) ** 2))
        count += error.size
        scores.append((error if sigma is None else error / sigma).reshape(-1)[::PIXEL_STRIDE])
    constant = None if session.has_sigma else float(np.sqrt(squares / count))
    found = np.concatenate(scores).astype(np.float64)
    return (found if constant is None else found / constant), constant


def _bias(value: np.ndarray, truth: np.ndarray, name: str) -> tuple[list[float], list[float]]:
    """Knots and corrections of the bias, from the means of bins of equal count along the truth."""
    if name in PERIODS:
        return [0.0], [-float(np.median(error_of(name, value, truth)))]
    slope = np.polyfit(truth, value, 1)[0] if truth.std() > 0 else 0.0
    if abs(slope - 1.0) > FAITHFUL_SLOPE:
        return [float(value.mean())], [float(truth.mean() - value.mean())]
    bins = np.array_split(np.argsort(truth, kind="stable"), BIAS_BINS)
    means = sorted((float(value[rows].mean()), float(truth[rows].mean())) for rows in bins)
    knots = [mean for mean, _ in means]
    if any(a >= b for a, b in pairwise(knots)):
        return [float(value.mean())], [float(truth.mean() - value.mean())]
    return knots, [true - mean for mean, true in means]
