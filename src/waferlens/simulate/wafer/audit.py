"""Audit of a wafer domain: what its fields hold, and that no shortcut gives the height away.

No statistics of such images are published, so most figures are only reported. What has a bound is what would make the
task trivial: grey that tells height, colours that go with a stack, a label that is the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from waferlens.errors import UsageError
from waferlens.ops.baselines import baselines, rmse
from waferlens.recipe.wafer_world import WaferWorld
from waferlens.simulate.checks import Check, at_least, at_most, reported
from waferlens.simulate.wafer.camera import FULL_SCALE
from waferlens.simulate.wafer.dataset import wafer_world
from waferlens.simulate.wafer.field import draw_field, label_strip

GRID = 114
LEAST_WAFERS = 16
LEARNT_SHARE = 0.5
"""No predictor without physics may explain heights better than this share of the mean map's error."""
BRIGHT_SHARE = 0.85
"""The same where the carrier is as bright as dies: there grey says almost nothing."""
SPREADS = 4.0
"""A correlation beyond so many of its standard deviations is none of chance."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One field of each of many wafers."""

    images: UInt8[np.ndarray, "n h w"]
    height_um: Float32[np.ndarray, "n h w"]
    """Truth [um]"""
    label: Float32[np.ndarray, "n h w"]
    """S0's label of the sensor, on the same grid."""
    bright: Bool[np.ndarray, "n"]
    """Whether the carrier is bright."""
    tracked: Bool[np.ndarray, "n"]
    """Whether focus followed the sensor."""
    top_um: Float[np.ndarray, "n"]
    """Nominal top of the stack [um]"""
    colour: Float[np.ndarray, "n"]
    """Mean reflectance of the floor plan of the top."""
    blocks: Float[np.ndarray, "n"]
    """How many blocks it has."""
    dropouts: float
    """Share of samples of the sensor that are not valid."""
    missing: float
    """Share of sites without a die."""
    clipped: float
    """Share of pixels at the end of the scale."""


def run_audit(
    domain: str | WaferWorld, wafers: int, seed: int, advance: Callable[[int], None] | None = None
) -> list[Check]:
    """Draws a domain and checks it for shortcuts.

    Args:
        domain: Name of a domain (`sim`, `real` …), the path of a world, or a world.
        wafers: How many wafers, of one field each; at least 16.
        seed: Seed of the drawn set.
        advance: Called with 1 after each wafer.

    Raises:
        UsageError: too few wafers.
    """
    if wafers < LEAST_WAFERS:
        raise UsageError(
            f"audit: got {wafers} wafers; at least {LEAST_WAFERS}, half to fit the baselines, half to judge them"
        )
    sample = draw_sample(domain if isinstance(domain, WaferWorld) else wafer_world(domain), wafers, seed, advance)
    return [*contents(sample), *shortcuts(sample), *strip_labels(sample)]


def draw_sample(world: WaferWorld, wafers: int, seed: int, advance: Callable[[int], None] | None = None) -> Sample:
    """Draws the first field of each wafer on a coarse grid."""
    made = []
    for number in range(wafers):
        made.append(draw_field(world, seed, number * world.fields_per_wafer, GRID))
        if advance is not None:
            advance(1)
    tops = [one.design.blocks[-1] for one in made]
    areas = [np.array([(block.x1 - block.x0) * (block.y1 - block.y0) for block in top]) for top in tops]
    colours = [np.array([block.reflectance for block in top]) for top in tops]
    sites = [die.state for one in made for die in one.dies]
    return Sample(
        np.stack([np.rint(one.image / (FULL_SCALE / 255.0)).astype(np.uint8) for one in made]),
        np.stack([one.height_um for one in made]),
        np.stack([label_strip(one.trace, side=GRID) for one in made]),
        np.array([one.design.bright for one in made]),
        np.array([one.design.track_focus for one in made]),
        np.array([one.product.level_tops_um[-1] for one in made]),
        np.array([float(np.average(colour, weights=area)) for colour, area in zip(colours, areas, strict=True)]),
        np.array([float(len(top)) for top in tops]),
        float(np.mean(np.concatenate([~one.trace.valid for one in made]))),
        sites.count("missing") / max(len(sites), 1),
        float(np.mean([(one.image == FULL_SCALE).mean() for one in made])),
    )


def contents(sample: Sample) -> list[Check]:
    """What the fields hold."""
    grey = sample.images.astype(np.float32)
    return [
        reported("mean [grey of 255]", grey.mean()),
        reported("s.d. [grey of 255]", grey.std()),
        at_most("share of pixels at the end of the scale", 0.001, sample.clipped),
        reported("share of wafers on bright carriers", sample.bright.mean()),
        reported("share of wafers with focus that follows the sensor", sample.tracked.mean()),
        reported("share of sites without a die", sample.missing),
        reported("mean height [um]", sample.height_um.mean()),
        reported("s.d. of heights [um]", sample.height_um.std()),
        reported("share of samples of the sensor that are not valid", sample.dropouts),
    ]


def shortcuts(sample: Sample) -> list[Check]:
    """Predictors without physics, fitted on one half of the wafers and judged on the other."""
    first = np.arange(len(sample.images)) % 2 == 0
    rows = []
    fitted = {
        name: baseline.fit(sample.images[first], sample.height_um[first]) for name, baseline in baselines().items()
    }
    errors = {name: rmse(one, sample.images[~first], sample.height_um[~first]) for name, one in fitted.items()}
    reference = errors.pop("mean_map")
    rows.append(reported("RMSE of the mean map [um]", reference))
    for name, error in errors.items():
        told = name.replace("_", " ")
        rows.append(at_least(f"RMSE of {told} / RMSE of the mean map", LEARNT_SHARE, error / reference))
    for kind, there, bound in (("bright", sample.bright, BRIGHT_SHARE), ("dark", ~sample.bright, LEARNT_SHARE)):
        judged = ~first & there
        if (first & there).sum() < 4 or judged.sum() < 4:
            continue
        lookup, mean = (
            rmse(
                baselines()[name].fit(sample.images[first & there], sample.height_um[first & there]),
                sample.images[judged],
                sample.height_um[judged],
            )
            for name in ("grey_lookup_blurred", "mean_map")
        )
        rows.append(at_least(f"{kind} carriers: RMSE of grey lookup / RMSE of the mean map", bound, lookup / mean))
    by_chance = SPREADS / math.sqrt(len(sample.images))
    for name, values in (("colour", sample.colour), ("number of blocks", sample.blocks)):
        r = float(np.corrcoef(values, sample.top_um)[0, 1])
        rows.append(at_most(f"|correlation| of the {name} of a top with its height", by_chance, abs(r)))
    return rows


def strip_labels(sample: Sample) -> list[Check]:
    """S0's label, one value a column, is right almost everywhere and wrong where a column holds dies and gaps."""
    truth = 255.0 * (sample.height_um * 32.0 + 200.0) / 25_000.0
    miss = np.abs(sample.label - truth)
    return [
        reported("label of the sensor against the truth: median [of 255]", float(np.median(miss))),
        at_least("label of the sensor against the truth: RMSE [of 255]", 10.0, float(np.sqrt(np.square(miss).mean()))),
        reported("columns that hold both: share", float((np.ptp(sample.height_um, axis=1) > 30).mean())),
    ]
