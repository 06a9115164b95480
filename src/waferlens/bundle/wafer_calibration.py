"""What makes the sigma of a wafer's height map honest: a factor for each kind of pixel, measured on wafers that taught
the network nothing.

Pixels are sorted by what the network was told (the product, the track, both, or neither), by the class it gives them
(die, street, missing die), by how bright they are (rough tape is dark, polished silicon bright) and by how sure it says
it is; each group has its own quantile of |error| / sigma. One factor for all would be right on average only: too wide
where the picture tells the height, too narrow where it cannot know.

Source: Mondrian conformal prediction: Vovk, Gammerman, Shafer, "Algorithmic learning in a random world" (2005),
section 4.5; |error| / sigma as the score: Lei et al., JASA 113 (2018) 1094.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from waferlens.errors import UsageError

FORMAT_VERSION = 2
NORMAL_90 = 1.6448536
"""Half-width of the 90 % interval of a normal distribution in its standard deviations."""
SIGMA_LEVEL = "0.9"
"""The level whose half-width, over `NORMAL_90`, is told as sigma."""


TOLD = 4
"""What a network may be told, as `told_of` numbers it."""
KINDS = 3
"""Classes of pixels."""
SHADES = 4
"""Bins of brightness in each class."""


def told_of(*, product: bool, track: bool) -> int:
    """Number of what a network was told; the height of focus without a track tells little."""
    return int(product) + 2 * int(track)


def group_of(kind: Int64[np.ndarray, "h w"] | None, told: int) -> Int64[np.ndarray, "h w"] | None:
    """Groups of pixels by their class and by what the network was told.

    Args:
        kind: Class of each pixel, by number; None if the network tells none.
        told: As `told_of` numbers it.
    """
    return None if kind is None else kind.astype(np.int64) + KINDS * told


@dataclass(frozen=True, slots=True)
class WaferCalibration:
    """Factors on the network's sigma by group, and where they came from."""

    sigma_edges_um: Sequence[Sequence[float]] = ((),)
    """Inner edges of the bins of sigma. One row a group and shade: `SHADES` rows for the first group of `group_of`, as
    many for the next; one row in all for networks that tell no classes [um]"""
    quantiles: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    """By level as "0.9": of each group and bin, the quantile of |error| / sigma."""
    brightness_edges: Sequence[Sequence[float]] = ((),) * KINDS
    """Inner edges of the shades of each class, 0 black .. 1 white; equal edges leave the shades between them empty."""
    constant_um: Mapping[str, float] = field(default_factory=dict)
    """By level: half-width of the best interval of constant width, to judge ours by [um]"""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Where it came from: folder, world, fields, wafers, inputs that were known."""

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` gives an equal calibration back."""
        return {"version": FORMAT_VERSION, "kind": "wafer", **asdict(self)}

    @staticmethod
    def from_json(told: Mapping[str, Any]) -> WaferCalibration:
        """Reads what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is of another kind or version, or has other groups.
        """
        if told["version"] != FORMAT_VERSION or told.get("kind") != "wafer":
            raise ValueError(f"version {told['version']}, kind {told.get('kind')}; expected {FORMAT_VERSION}, wafer")
        edges = told["sigma_edges_um"]
        rows = {len(edges), *map(len, told["quantiles"].values())}
        if told["quantiles"] and rows not in ({1}, {KINDS * TOLD * SHADES}):
            raise ValueError(
                f"it has {'/'.join(map(str, sorted(rows)))} groups of pixels; expected 1 or {KINDS * TOLD * SHADES}"
            )
        shades = [len(row) for row in told["brightness_edges"]]
        if shades not in ([SHADES - 1] * KINDS, [0] * KINDS):
            raise ValueError(f"it has {shades} edges of brightness; expected {SHADES - 1} for each of {KINDS} classes")
        return WaferCalibration(edges, told["quantiles"], told["brightness_edges"], told["constant_um"], told["data"])

    def groups(
        self,
        sigma_um: Float32[np.ndarray, " n"],
        group: Int64[np.ndarray, " n"] | None,
        brightness: Float32[np.ndarray, " n"],
    ) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Row and bin of each pixel.

        Args:
            sigma_um: As the network says it [um]
            group: As `group_of` numbers it; None if the network tells no classes.
            brightness: Of the image the network saw, 0 black .. 1 white.
        """
        if group is None or len(self.sigma_edges_um) == 1:
            rows = np.zeros(len(sigma_um), np.int64)
        else:
            rows = SHADES * group
            for kind, shades in enumerate(self.brightness_edges):
                here = group % KINDS == kind
                rows[here] += np.searchsorted(np.asarray(shades, np.float32), brightness[here], side="right")
        bins = np.zeros(len(sigma_um), np.int64)
        for one, edges in enumerate(self.sigma_edges_um):
            here = rows == one
            if here.any():
                bins[here] = np.searchsorted(np.asarray(edges, np.float32), sigma_um[here], side="right")
        return rows, bins

    def half_width_um(
        self,
        sigma_um: Float32[np.ndarray, "h w"],
        group: Int64[np.ndarray, "h w"] | None,
        brightness: Float32[np.ndarray, "h w"],
        level: float,
    ) -> Float32[np.ndarray, "h w"]:
        """Half-width of the interval of every pixel [um].

        Args:
            sigma_um: As the network says it [um]
            group: As `group_of` numbers it; None if the network tells no classes.
            brightness: Of the image the network saw, 0 black .. 1 white.
            level: Coverage.

        Raises:
            UsageError: the level is not calibrated.
        """
        key = f"{level:g}"
        if key not in self.quantiles:
            known = ", ".join(sorted(self.quantiles)) or "none"
            raise UsageError(f"no intervals of level {level:g} in this bundle; calibrated: {known}")
        told = self.quantiles[key]  # classes that came seldom have fewer bins
        factors = np.array([[*row, *row[-1:] * (max(map(len, told)) - len(row))] for row in told], np.float32)
        flat = None if group is None else group.ravel()
        rows, bins = self.groups(sigma_um.ravel(), flat, brightness.ravel())
        return (sigma_um.ravel() * factors[rows, bins]).reshape(sigma_um.shape)
