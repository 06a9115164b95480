"""Audit of a package domain: what its devices hold, and that no shortcut tells the defective ones.

A defect is a few pixels of a million. Whatever tells defective devices without looking for it, the picture's
statistics, the pose, the dirt, would be a fault of the simulator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float

from waferlens.errors import UsageError
from waferlens.formats.package_set import Device
from waferlens.recipe.package_world import PackageWorld
from waferlens.simulate.checks import Check, at_most, reported
from waferlens.simulate.package.dataset import package_world
from waferlens.simulate.package.device import draw_device
from waferlens.simulate.package.light import LIGHTS

LEAST_DEVICES = 16
EVERY_PX = 3
"""Rows and columns of which statistics are taken."""
SPREADS = 4.0
"""What is beyond so many of its standard deviations is none of chance."""
THUMB_PX = (16, 26)
"""Width and height of the pictures that nearest neighbours are sought among [px]"""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Devices of a domain."""

    truth: list[Device]
    statistics: Float[np.ndarray, "n 12"]
    """Mean, standard deviation, 1st and 99th percentile of grey, by light."""
    thumbs: Float[np.ndarray, "n k"]
    """Small brightfield pictures."""

    def has(self, label: str) -> Bool[np.ndarray, " n"]:
        """Which devices have a defect of a class."""
        return np.array([any(one.label == label for one in device.defects) for device in self.truth])


def run_audit(
    domain: str | PackageWorld, devices: int, seed: int, advance: Callable[[int], None] | None = None
) -> list[Check]:
    """Draws a domain and checks it for shortcuts.

    Args:
        domain: Name of a domain (`sim`, `real` …), the path of a world, or a world.
        devices: How many; at least 16.
        seed: Seed of the drawn set.
        advance: Called with 1 after each device.

    Raises:
        UsageError: too few devices.
    """
    if devices < LEAST_DEVICES:
        raise UsageError(f"audit: got {devices} devices; at least {LEAST_DEVICES}, half to fit, half to judge")
    sample = draw_sample(domain if isinstance(domain, PackageWorld) else package_world(domain), devices, seed, advance)
    return [*contents(sample), *shortcuts(sample)]


def draw_sample(world: PackageWorld, devices: int, seed: int, advance: Callable[[int], None] | None = None) -> Sample:
    """Draws devices and keeps what shortcuts could be made of."""
    truth, statistics, thumbs = [], [], []
    for number in range(devices):
        made = draw_device(world, seed, number)
        truth.append(made.truth)
        row: list[float] = []
        for light in LIGHTS:
            grey = made.images[light][::EVERY_PX, ::EVERY_PX].mean(axis=2)
            row += [float(grey.mean()), float(grey.std()), *(float(one) for one in np.percentile(grey, (1, 99)))]
        statistics.append(row)
        thumb = cv2.resize(made.images["bf"], THUMB_PX, interpolation=cv2.INTER_AREA)
        thumbs.append(thumb.astype(np.float64).ravel())
        if advance is not None:
            advance(1)
    return Sample(truth, np.array(statistics), np.array(thumbs))


def contents(sample: Sample) -> list[Check]:
    """What the devices hold."""
    defects = [one for device in sample.truth for one in device.defects]
    cracks = [one for one in defects if one.label == "crack"]
    rows = [
        reported("share of devices with cracks, chips or scratches", sample.has("crack").mean()),
        reported("share of devices with a turned die", sample.has("rotate").mean()),
        reported("share of devices without a die", float(np.mean([device.missing_die for device in sample.truth]))),
        reported("marks of emitters a device", sum(one.kind == "led-mark" for one in defects) / len(sample.truth)),
        reported(
            "grains and fibres a device", sum(one.kind in ("dust", "fibre") for one in defects) / len(sample.truth)
        ),
    ]
    if cracks:
        rows.append(reported("median contrast of cracks, chips, scratches [grey]", _median(cracks, "contrast")))
        rows.append(reported("median of their visible pixels", _median(cracks, "visible_px")))
    return rows


def shortcuts(sample: Sample) -> list[Check]:
    """Predictors that do not look for defects, and nuisances that must not go with them."""
    rows = []
    nuisances = _nuisances(sample)
    for label in ("crack", "rotate"):
        there = sample.has(label)
        with_, without = int(there.sum()), int((~there).sum())
        if min(with_, without) < 6:
            continue
        # standard deviation of the area under a curve of chance (Hanley and McNeil 1982, equal distributions)
        chance = math.sqrt((with_ + without + 1) / (12.0 * with_ * without))
        area = _area_under(_two_folds(sample.statistics, there), there)
        rows.append(
            at_most(f"{label}: |area under the curve - 0.5| of 12 statistics", SPREADS * chance, abs(area - 0.5))
        )
        area = _area_under(_neighbours(sample.thumbs, there), there)
        rows.append(reported(f"{label}: area under the curve of the nearest known picture", area))
        for name, values in nuisances.items():
            if values.std() > 0:
                r = abs(float(np.corrcoef(values, there)[0, 1]))
                rows.append(at_most(f"{label}: |correlation| with {name}", SPREADS / math.sqrt(len(values)), r))
    return rows


def _nuisances(sample: Sample) -> dict[str, np.ndarray]:
    truth = sample.truth
    return {
        "the package's angle": np.array([device.theta_ic_deg for device in truth]),
        "the border's width": np.array([device.border_px for device in truth]),
        "the point spread": np.array([device.blur_px[0] for device in truth]),
        "dirt": np.array([sum(one.kind in ("dust", "fibre") for one in device.defects) for device in truth], float),
        "marks of emitters": np.array(
            [any(one.kind == "led-mark" for one in device.defects) for device in truth], float
        ),
    }


def _two_folds(features: Float[np.ndarray, "n k"], there: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Scores of a ridge regression, fitted on one half and told of the other; each half on its own scale."""
    scores = np.empty(len(there))
    half = np.arange(len(there)) % 2 == 0
    for fit in (half, ~half):
        x = (features - features[fit].mean(axis=0)) / np.maximum(features[fit].std(axis=0), 1e-9)
        y = there[fit] - there[fit].mean()
        weights = np.linalg.solve(x[fit].T @ x[fit] + len(y) * 0.1 * np.eye(x.shape[1]), x[fit].T @ y)
        scores[~fit] = x[~fit] @ weights
    return scores


def _neighbours(thumbs: Float[np.ndarray, "n k"], there: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Share of defective ones among the five nearest other pictures."""
    away = np.square(thumbs[:, np.newaxis] - thumbs).sum(axis=2)
    np.fill_diagonal(away, np.inf)
    return there[np.argsort(away, axis=1)[:, :5]].mean(axis=1)


def _area_under(scores: Float[np.ndarray, " n"], there: Bool[np.ndarray, " n"]) -> float:
    """Chance that a defective device scores above a good one; ties are halves."""
    more = scores[there][:, np.newaxis] - scores[~there]
    return float((more > 0).mean() + 0.5 * (more == 0).mean())


def _median(defects: list, name: str) -> float:
    return float(np.median([getattr(one, name) for one in defects]))
