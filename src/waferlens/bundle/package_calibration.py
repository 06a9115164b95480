"""What a package bundle knows of its own scores: from which one a part is NG, from which one somebody looks at it, and
how likely a finding of a score is a defect.

    NG          some finding's score is at least `score_ng` of its class
    review      else, some finding's score is at least `score_review` of its class
    OK          else

    probability that a finding is a defect = expit(slope * logit(score) + offset)

The score of a network says how well its box fits, which it does worse the larger an object is. A crack over half a die
must not pass for that: scores here are those of the network with `lift` added to their log-odds for every doubling of
the box's longer side beyond `FREE_PX`.

All of it was fitted on devices that trained nothing (`waferlens.evaluate.package_calibrate`); this side applies it.

Source: J. C. Platt, "Probabilistic outputs for support vector machines", Advances in Large Margin Classifiers (1999).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import expit, logit

FORMAT_VERSION = 2
LEAST_SCORE, MOST_SCORE = 1e-6, 1 - 1e-6
"""Scores are taken to lie between, for the logarithm of odds."""
FREE_PX = 16.0
"""Longer side of a box up to which its score is the network's own [px]"""


def lifted(
    scores: Float[np.ndarray, " n"], boxes: Float[np.ndarray, "n 4"], lift: float | Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Scores with what their boxes lose by being large given back.

    Args:
        scores: Of the network.
        boxes: x0 y0 x1 y1 in its input [px]
        lift: Of the log-odds at each doubling of the longer side.
    """
    odds = logit(np.clip(np.asarray(scores, np.float64), LEAST_SCORE, MOST_SCORE))
    return np.asarray(expit(odds + np.asarray(lift) * doublings(boxes)))


def doublings(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    """How often `FREE_PX` is doubled to the longer side of each box; 0 for what is smaller."""
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0.0)
    return np.log2(np.maximum(sides, FREE_PX) / FREE_PX)


@dataclass(frozen=True, slots=True)
class ScoreLimits:
    """Of one class."""

    score_ng: float
    """A finding of at least this score makes its part NG."""
    score_review: float
    """One of at least this score makes it review."""
    lift: float = 0.0
    """Added to the log-odds of a score at each doubling of the box's longer side beyond `FREE_PX`."""

    def __post_init__(self) -> None:
        if not 0 <= self.score_review <= self.score_ng <= 1.0:
            raise ValueError(
                f"a score of {self.score_review} for review and {self.score_ng} for NG; they lie in this order in 0..1"
            )


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """From the score of a finding to the probability that it is a defect."""

    slope: float
    offset: float
    findings: int
    """Findings it was fitted to."""
    defects: int
    """Of these, how many lay on a defect of their class."""

    def __call__(self, scores: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Probabilities."""
        kept = np.clip(np.asarray(scores, np.float64), LEAST_SCORE, MOST_SCORE)
        return np.asarray(expit(self.slope * logit(kept) + self.offset))


@dataclass(frozen=True, slots=True)
class PackageCalibration:
    """Limits and probabilities by class, what they promise, and where they came from."""

    limits: Mapping[str, ScoreLimits]
    """By class; a turned die whose angle is measured has none, its interval decides."""
    probabilities: Mapping[str, Sigmoid] = field(default_factory=dict)
    """By class; those with findings on defects and on none."""
    promises: Mapping[str, Any] = field(default_factory=dict)
    """What good devices were alarmed or sent to review, and how often others will be."""
    capture: Mapping[str, Any] | None = None
    """From which size and contrast defects are NG, as these devices tell; None where they tell it of none."""
    capture_or_review: Mapping[str, Any] | None = None
    """The same of defects that are NG or review."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Where it came from: folder, world, devices, split."""

    def to_json(self) -> dict[str, Any]:
        """As `calibration.json` holds it."""
        return {
            "version": FORMAT_VERSION,
            "kind": "package",
            "limits": {name: asdict(one) for name, one in self.limits.items()},
            "probabilities": {name: asdict(one) for name, one in self.probabilities.items()},
            "promises": dict(self.promises),
            "capture": None if self.capture is None else dict(self.capture),
            "capture_or_review": None if self.capture_or_review is None else dict(self.capture_or_review),
            "data": dict(self.data),
        }

    @staticmethod
    def from_json(told: Mapping[str, Any]) -> PackageCalibration:
        """Reads what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is of another kind or version, or its limits are in no order.
        """
        if told["version"] != FORMAT_VERSION or told.get("kind") != "package":
            raise ValueError(f"version {told['version']}, kind {told.get('kind')}; expected {FORMAT_VERSION}, package")
        return PackageCalibration(
            {name: ScoreLimits(**one) for name, one in told["limits"].items()},
            {name: Sigmoid(**one) for name, one in told["probabilities"].items()},
            told["promises"],
            told["capture"],
            told.get("capture_or_review"),  # older calibrations do not tell it
            told["data"],
        )
