"""What a bundle knows about its own errors, and how it is applied: bias, intervals, and the limits of its domain.

Everything here was fitted on held-out data (`waferlens.evaluate`); this side only applies it, so that a line and an
evaluation cannot differ. Values are in the units of `waferlens.ops.hole`, pixels and grey, where the wall angle takes
one grey for as long as one pixel.

    corrected value   v + interpolation of (bias_knots, bias_corrections) at v, constant beyond the ends
    half-width        q(level) * exp(c0 + sum of c_i (feature_i - mean_i) / sd_i)
    pixel half-width  q(level) * sigma
    out of domain     (x - mean)' inverse_covariance (x - mean) > threshold

Source: split-conformal intervals scaled by a predicted spread after J. Lei et al., "Distribution-free predictive
inference for regression" (2018); Mahalanobis distance for what was never seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from waferlens.errors import UsageError
from waferlens.ops.hole import PERIODS

FORMAT_VERSION = 1
VALUE = "value"
"""The feature that is the measurand's own predicted value."""
MEASURAND_FEATURES = (VALUE, "sigma_plateau", "sigma_floor", "sigma_wall")
"""What the width of an interval may depend on; see `ops.hole.mean_sigma`."""


class Interval(NamedTuple):
    """A corrected value with the interval that covers the truth at the asked-for level; NaN where not known."""

    value: Float[np.ndarray, " b"]
    low: Float[np.ndarray, " b"]
    high: Float[np.ndarray, " b"]


@dataclass(frozen=True, slots=True)
class PixelCalibration:
    """Intervals of the pixels of a map."""

    quantiles: Mapping[str, float] = field(default_factory=dict)
    """Half-width in standard deviations, by level such as "0.9"."""
    constant: float | None = None
    """The standard deviation of every pixel where the network tells none [grey]"""


@dataclass(frozen=True, slots=True)
class MeasurandCalibration:
    """Bias and intervals of one measurand."""

    quantiles: Mapping[str, float]
    """Half-width in units of the predicted scale, by level such as "0.9"."""
    bias_knots: Sequence[float] = ()
    """Predicted values, rising, at which the correction is known; none for no correction."""
    bias_corrections: Sequence[float] = ()
    """What is added to the predicted value there."""
    scale_features: Sequence[str] = ()
    """What the width depends on, of `MEASURAND_FEATURES`."""
    feature_means: Sequence[float] = ()
    feature_sds: Sequence[float] = ()
    """The features are standardised with these."""
    scale_coefficients: Sequence[float] = (0.0,)
    """c0, then one for each feature, of the logarithm of the scale."""

    def __post_init__(self) -> None:
        if len(self.bias_knots) != len(self.bias_corrections):
            raise ValueError(f"{len(self.bias_knots)} bias knots with {len(self.bias_corrections)} corrections")
        if any(a >= b for a, b in zip(self.bias_knots, self.bias_knots[1:], strict=False)):
            raise ValueError("the bias knots must rise")
        number = len(self.scale_features)
        if not len(self.feature_means) == len(self.feature_sds) == number == len(self.scale_coefficients) - 1:
            raise ValueError(f"{number} scale features need as many means and sds, and one coefficient more")


@dataclass(frozen=True, slots=True)
class Domain:
    """Where the images lie that the bundle was calibrated on."""

    features: Sequence[str]
    """Of `domain_features`."""
    mean: Sequence[float]
    inverse_covariance: Sequence[Sequence[float]]
    threshold: float
    """Greatest squared Mahalanobis distance of an image the intervals are meant for."""

    def __post_init__(self) -> None:
        number = len(self.features)
        if len(self.mean) != number or any(len(row) != number for row in self.inverse_covariance):
            raise ValueError(f"{number} features need as many means and a square inverse covariance")


@dataclass(frozen=True, slots=True)
class Calibration:
    """All of it; every part may be absent, and then nothing is claimed."""

    pixel: PixelCalibration | None = None
    measurands: Mapping[str, MeasurandCalibration] = field(default_factory=dict)
    domain: Domain | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    """Where it came from: folder, number of images and structures, seed, waferlens version."""

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` gives an equal calibration back."""
        return {
            "version": FORMAT_VERSION,
            "pixel": None if self.pixel is None else _plain(asdict(self.pixel)),
            "measurands": {name: _plain(asdict(part)) for name, part in self.measurands.items()},
            "out_of_domain": None if self.domain is None else _plain(asdict(self.domain)),
            "data": _plain(dict(self.data)),
        }

    @staticmethod
    def from_json(told: Mapping[str, Any]) -> Calibration:
        """Reads what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is of another version, or its parts do not fit together. `open_bundle`
                turns them into a `BundleError` with the file's name.
        """
        if told["version"] != FORMAT_VERSION:
            raise ValueError(f"version {told['version']}, expected {FORMAT_VERSION}")
        pixel, domain = told["pixel"], told["out_of_domain"]
        return Calibration(
            None if pixel is None else PixelCalibration(**pixel),
            {name: MeasurandCalibration(**part) for name, part in told["measurands"].items()},
            None if domain is None else Domain(**domain),
            told["data"],
        )

    def levels(self) -> list[float]:
        """The levels of coverage that every calibrated measurand has, rising."""
        known = [set(part.quantiles) for part in self.measurands.values()]
        return sorted(float(level) for level in set.intersection(*known)) if known else []


def level_key(level: float) -> str:
    """How a level is written in the file: 0.9 is "0.9"."""
    return f"{level:g}"


def intervals(
    calibration: Calibration,
    measurands: Mapping[str, Float[np.ndarray, " b"]],
    features: Mapping[str, Float[np.ndarray, " b"]],
    level: float = 0.9,
) -> dict[str, Interval]:
    """Corrected values and their intervals.

    Args:
        calibration: of the bundle.
        measurands: as `ops.hole.measure_holes` gives them, by name; what is not calibrated passes through.
        features: of `MEASURAND_FEATURES` but `value`, by name.
        level: coverage the intervals were calibrated for, as 0.9.

    Raises:
        UsageError: a measurand is not calibrated at this level.
    """
    unknown = np.full(len(next(iter(measurands.values()), ())), np.nan)
    out = {}
    for name, value in measurands.items():
        part = calibration.measurands.get(name)
        if part is None:
            out[name] = Interval(value, unknown, unknown)
            continue
        corrected = corrected_value(part, value)
        if name in PERIODS:
            corrected = np.mod(corrected, PERIODS[name])
        half = _quantile(part.quantiles, level, name) * scale_of(part, value, features)
        out[name] = Interval(corrected, corrected - half, corrected + half)
    return out


def corrected_value(part: MeasurandCalibration, value: Float[np.ndarray, " b"]) -> Float[np.ndarray, " b"]:
    """The value without its known bias."""
    if not part.bias_knots:
        return value
    return value + np.interp(value, part.bias_knots, part.bias_corrections)


def scale_of(
    part: MeasurandCalibration, value: Float[np.ndarray, " b"], features: Mapping[str, Float[np.ndarray, " b"]]
) -> Float[np.ndarray, " b"]:
    """The predicted spread of the error, from the value before its correction and the features."""
    exponent = np.full(len(value), float(part.scale_coefficients[0]))
    terms = zip(part.scale_features, part.feature_means, part.feature_sds, part.scale_coefficients[1:], strict=True)
    for name, mean, sd, coefficient in terms:
        exponent += coefficient * (((value if name == VALUE else features[name]) - mean) / sd)
    return np.exp(exponent)


def pixel_half_width(
    calibration: Calibration, sigma: Float[np.ndarray, "b h w"], level: float = 0.9
) -> Float[np.ndarray, "b h w"]:
    """Half-width of the interval of every pixel; NaN where pixels are not calibrated.

    Args:
        calibration: of the bundle.
        sigma: standard deviation of every pixel, as `readout` gives it [grey]
        level: coverage, as 0.9.

    Raises:
        UsageError: pixels are not calibrated at this level.
    """
    if calibration.pixel is None:
        return np.full_like(sigma, np.nan)
    return sigma * sigma.dtype.type(_quantile(calibration.pixel.quantiles, level, "pixels"))


def out_of_domain(
    calibration: Calibration, features: Mapping[str, Float[np.ndarray, " b"]]
) -> tuple[Bool[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    """Which images are unlike those the bundle was calibrated on, and how far.

    Args:
        calibration: of the bundle.
        features: of `readout.domain_features`, by name.

    Returns:
        True where the score is above the threshold; and the score, the squared Mahalanobis distance divided by the
        threshold, so that 1 is the border. Without a calibrated domain: all False and NaN.
    """
    domain = calibration.domain
    if domain is None:
        number = len(next(iter(features.values()), ()))
        return np.zeros(number, bool), np.full(number, np.nan)
    away = np.stack([features[name] for name in domain.features], axis=1) - np.asarray(domain.mean)
    score = np.einsum("bi,ij,bj->b", away, np.asarray(domain.inverse_covariance), away) / domain.threshold
    return ~(score <= 1), score  # NaN is outside: nothing is known about it


def _quantile(quantiles: Mapping[str, float], level: float, what: str) -> float:
    try:
        return quantiles[level_key(level)]
    except KeyError:
        known = ", ".join(sorted(quantiles)) or "none"
        raise UsageError(f"{what}: no intervals of level {level:g} in this bundle; calibrated: {known}") from None


def _plain(value: Any) -> Any:
    """Arrays, tuples and numpy numbers as the plain types JSON has."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} cannot be stored in a calibration")
    return value
