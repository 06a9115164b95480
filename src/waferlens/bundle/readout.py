"""From prepared images to raw measurands and the features that calibration speaks about: the one way there is.

Calibration is fitted on what this returns and applied to what this returns; evaluation and inspection both call it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8

from waferlens.bundle.calibration import Calibration
from waferlens.bundle.session import Session
from waferlens.ops.hole import UNITS, mean_sigma, measure_holes
from waferlens.ops.image_statistics import STATISTICS, image_statistics

DOMAIN_FEATURES = (*STATISTICS, "mean_sigma")
"""What an image is compared by with those the bundle was calibrated on."""
NOISE_FACTOR = 3.0
"""A depth below so many mean standard deviations of the map is no hole."""


@dataclass(frozen=True, slots=True)
class Readout:
    """What the network and the measurands make of a batch, before any calibration."""

    depth: Float32[np.ndarray, "b h w"]
    """Absolute depth map, deeper is smaller [grey]"""
    sigma: Float32[np.ndarray, "b h w"] | None
    """Standard deviation of every pixel; None if neither network nor calibration tells one [grey]"""
    measurands: Mapping[str, Float[np.ndarray, " b"]]
    """By the names of `ops.hole.UNITS`, NaN where not measured."""
    plateau: Float[np.ndarray, " b"]
    """What heights refer to: the plateau, and where no hole was found, the level of the higher pixels [grey]"""
    reason: UInt8[np.ndarray, " b"]
    """Why something was not measured, see `ops.hole.REASONS`."""
    features: Mapping[str, Float[np.ndarray, " b"]]
    """`sigma_plateau`, `sigma_floor`, `sigma_wall`; empty without sigma."""
    domain: Mapping[str, Float[np.ndarray, " b"]]
    """By the names of `DOMAIN_FEATURES`; `mean_sigma` is 0 without sigma."""


def read_out(session: Session, calibration: Calibration, grey: Float32[np.ndarray, "b 1 h w"]) -> Readout:
    """Runs the network and measures its maps.

    Args:
        session: the network.
        calibration: of the same bundle; only its constant sigma is used here, for networks that tell none.
        grey: images from `prepare.geometry`, 0..255 [grey]
    """
    depth, sigma = session.predict(grey)
    if sigma is None and calibration.pixel is not None and calibration.pixel.constant is not None:
        sigma = np.full_like(depth, calibration.pixel.constant)
    statistics = image_statistics(grey[:, 0])
    domain = {name: statistics[:, column] for column, name in enumerate(STATISTICS)}
    domain["mean_sigma"] = np.zeros(len(depth)) if sigma is None else sigma.mean((1, 2), dtype=np.float64)
    found = measure_holes(depth, NOISE_FACTOR * domain["mean_sigma"])
    features = {} if sigma is None else mean_sigma(depth, sigma, found["top"], found["bottom"])
    plateau = np.where(np.isfinite(found["plateau"]), found["plateau"], found["top"])
    measurands = {name: found[name] for name in UNITS}
    return Readout(depth, sigma, measurands, plateau, found["reason"], features, domain)
