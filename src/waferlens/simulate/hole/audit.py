"""Audit of a hole domain: its grey statistics against published ones, and that no shortcut gives the depth away.

The targets are aggregates published about the data of the challenge: pixel statistics of all simulated and of all real
images. Domains without published figures are reported, and checked only for shortcuts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int, UInt8

from waferlens.errors import UsageError
from waferlens.ops.baselines import baselines, linear_statistics, rmse
from waferlens.ops.contours import contours_below
from waferlens.recipe.hole_world import HoleWorld
from waferlens.simulate.checks import Check, absolute, at_least, at_most, relative, reported
from waferlens.simulate.hole.dataset import hole_world
from waferlens.simulate.hole.world import draw_pairs, draw_site

HOLES_PER_SITE = 12
EDGE_SEED, EDGE_DRAWS = 20_260_100, 8
TRUE_EDGE = 0.45
"""The true edge is where the surface has fallen by this share of the plateau's height."""

CLOSE, GRADIENTS_CLOSE, SLOPE_CLOSE, LAG_CLOSE = 0.03, 0.12, 0.15, 0.01
LEARNT_SHARE = 0.4
"""No baseline may explain the depth better than this share of the mean map's error; a network reaches 0.27."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Published pixel statistics of a domain."""

    mean: float
    """[grey]"""
    sd: float
    """[grey]"""
    median: float
    """[grey]"""
    step_x: float
    """Mean absolute difference of neighbours along x [grey]"""
    step_y: float
    """Mean absolute difference of neighbours along y [grey]"""
    lag1: float
    """Correlation of neighbours along x."""
    group_means: tuple[float, ...]
    """Mean of the images of each plateau, from low to high [grey]"""
    lookups: tuple[float, float]
    """What the errors of the grey lookup, raw and blurred, keep at least of the mean map's. The blurred one sees more
    in `hole-real`, whose images are averaged over frames and hold little noise to begin with."""


TARGETS: Mapping[str, Targets] = {
    "hole-sim": Targets(99.97, 57.83, 122.0, 12.92, 11.93, 0.9551, (103.0, 101.5, 100.0, 98.5), (0.85, 0.85)),
    "hole-real": Targets(115.57, 65.79, 149.0, 8.67, 6.83, 0.9822, (118.2, 116.4, 114.7, 113.0), (0.85, 0.80)),
}


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Images of a domain, their truth, and where they come from."""

    images: UInt8[np.ndarray, "n h w"]
    depth: UInt8[np.ndarray, "n h w"]
    """Truth [nm]"""
    plateau_nm: Float[np.ndarray, "n"]
    group: Int[np.ndarray, "n"]
    """Structure or site; halves are split by it."""
    residual: Float[np.ndarray, "m 2 h w"]
    """What two images that may share nothing but noise differ by from their noise-free pictures [grey]"""
    depth_below_plateau: Float[np.ndarray, "k"] = field(default_factory=lambda: np.empty(0))
    """Plateau minus the average depth of each site; empty without sites [nm]"""


def run_audit(
    domain: str | HoleWorld, structures: int, seed: int, advance: Callable[[int], None] | None = None
) -> list[Check]:
    """Draws a domain and checks its statistics and its shortcuts.

    Args:
        domain: Name of a domain (`sim`, `real` …), the path of a world, or a world.
        structures: Structures, or sites of `HOLES_PER_SITE` holes, to draw; at least 8.
        seed: Seed of the drawn set.
        advance: Called with 1 after each structure.

    Raises:
        UsageError: too few structures.
    """
    if structures < 8:
        raise UsageError(
            f"audit: got {structures} structures; at least 8, half to fit the baselines, half to judge them"
        )
    world = domain if isinstance(domain, HoleWorld) else hole_world(domain)
    sample = draw_sample(world, structures, seed, advance)
    return [
        *grey_statistics(world, sample),
        *truth_statistics(sample),
        *shortcuts(sample, TARGETS[world.name].lookups if world.name in TARGETS else (LEARNT_SHARE, LEARNT_SHARE)),
        *levels(sample),
        reported("edge assignment bias [px]", edge_assignment_bias_px(world)),
    ]


def draw_sample(world: HoleWorld, structures: int, seed: int, advance: Callable[[int], None] | None = None) -> Sample:
    """Draws structures of a `paired` world or sites of a `sites` world; the first 16 also without noise."""
    images, depth, plateau, group, residual, below = [], [], [], [], [], []
    for number in range(structures):
        clean_too = number < 16
        if world.kind == "sites":
            site = draw_site(world, seed, number, HOLES_PER_SITE)
            drawn, heights, plateaus = site.images, site.heights, [site.plateau_nm] * HOLES_PER_SITE
            below.append(site.plateau_nm - site.average_depth_nm)
            clean = draw_site(world, seed, number, HOLES_PER_SITE, noise=False).images if clean_too else None
        else:
            pairs = draw_pairs(world, seed, number)
            drawn = np.concatenate([pair.images for pair in pairs])
            heights = np.repeat([pair.heights for pair in pairs], 2, axis=0)
            plateaus = np.repeat([pair.plateau_nm for pair in pairs], 2)
            clean = (
                np.concatenate([pair.images for pair in draw_pairs(world, seed, number, noise=False)])
                if clean_too
                else None
            )
        images.append(drawn)
        depth.append(np.rint(heights).astype(np.uint8))
        plateau.extend(plateaus)
        group.extend([number] * len(drawn))
        if clean is not None:
            differences = drawn.astype(np.float32) - clean
            residual.append(differences.reshape(-1, 2, *differences.shape[1:]))
        if advance is not None:
            advance(1)
    return Sample(
        np.concatenate(images),
        np.concatenate(depth),
        np.asarray(plateau, float),
        np.asarray(group),
        np.concatenate(residual),
        np.asarray(below),
    )


def grey_statistics(world: HoleWorld, sample: Sample) -> list[Check]:
    """Pixel statistics against the published ones of the domain, where there are any."""
    images = sample.images
    counts = np.bincount(images.reshape(-1), minlength=256)
    grey, n = np.arange(256), images.size
    mean = float(counts @ grey) / n
    sd = math.sqrt(float(counts @ (grey - mean) ** 2) / n)
    median = float(np.searchsorted(np.cumsum(counts), (n + 1) // 2))
    step_x, step_y, lag1 = _neighbours(images)
    means = images.mean((1, 2))
    found = {
        "mean [grey]": mean,
        "s.d. [grey]": sd,
        "median [grey]": median,
        "gradient along x [grey]": step_x,
        "gradient along y [grey]": step_y,
        "lag-1 correlation along x": lag1,
        "slope of the image mean [grey / 10 nm of plateau]": 10 * _slope(sample.plateau_nm, means),
    }
    spread = [means[sample.plateau_nm == level].std() for level in np.unique(sample.plateau_nm)]
    more = [reported("s.d. of image means within a plateau [grey]", float(np.mean(spread)))] if len(spread) <= 8 else []
    target = TARGETS.get(world.name)
    if target is None:
        return [*(reported(name, got) for name, got in found.items()), *more]
    slope = round(10 * _slope(np.arange(len(target.group_means)) * 10.0, np.asarray(target.group_means)), 6)
    wanted = (target.mean, target.sd, target.median, target.step_x, target.step_y, target.lag1, slope)
    rows = []
    for (name, got), expected in zip(found.items(), wanted, strict=True):
        if name.startswith("lag-1"):
            rows.append(absolute(name, expected, got, LAG_CLOSE))
        else:
            share = GRADIENTS_CLOSE if "gradient" in name else SLOPE_CLOSE if "slope" in name else CLOSE
            rows.append(relative(name, expected, got, share))
    return [*rows, *more]


def truth_statistics(sample: Sample) -> list[Check]:
    """What the depth maps look like; reported beside the published figures, which have no tolerance."""
    levels = np.rint(sample.plateau_nm).astype(np.uint8)[:, np.newaxis, np.newaxis]
    fraction = 1.0 - sample.depth.astype(np.float32) / sample.plateau_nm.astype(np.float32)[:, np.newaxis, np.newaxis]
    rows = [
        reported("share of pixels on the plateau (published .513)", float((sample.depth == levels).mean())),
        reported("mean of s = (L - z) / L (published .273-.286)", float(fraction.mean(dtype=np.float64))),
        reported("s.d. of s (published .337-.353)", float(fraction.std(dtype=np.float64))),
        reported("75th percentile of s (published .67-.71)", float(np.percentile(fraction, 75))),
        reported("mean of the depth maps [nm]", float(sample.depth.mean())),
        reported("deepest pixel, median over maps [nm]", float(np.median(sample.depth.min((1, 2))))),
    ]
    if len(sample.depth_below_plateau):
        rows.append(
            reported("plateau minus average depth of a site (published 31.4) [nm]", sample.depth_below_plateau.mean())
        )
    return rows


def shortcuts(sample: Sample, lookups: tuple[float, float]) -> list[Check]:
    """Predictors without physics, fitted on one half of the structures and judged on the other.

    Args:
        sample: Images and truth.
        lookups: Bounds of `Targets.lookups`. In a domain with widely varying holes the mean map is off by the contour,
            which every picture shows: there a strict bound would test geometry, not grey.
    """
    first = sample.group % 8 < 4  # sites take the plateaus in turn: both halves hold all of them
    errors = {
        name: rmse(baseline.fit(sample.images[first], sample.depth[first]), sample.images[~first], sample.depth[~first])
        for name, baseline in baselines().items()
    }
    reference = errors.pop("mean_map")
    rows = [reported("RMSE of the mean map [grey]", reference)]
    for (name, error), bound in zip(errors.items(), (*lookups, LEARNT_SHARE, LEARNT_SHARE), strict=True):
        rows.append(at_least(f"RMSE of {name.replace('_', ' ')} / RMSE of the mean map", bound, error / reference))
    pairs = sample.residual.reshape(len(sample.residual), 2, -1)
    pairs = pairs - pairs.mean(2, keepdims=True)
    shared = float((pairs[:, 0] * pairs[:, 1]).sum() / np.sqrt((pairs[:, 0] ** 2).sum() * (pairs[:, 1] ** 2).sum()))
    rows.append(at_most("noise shared by two images of a pair (correlation)", 0.01, abs(shared)))
    return rows


def levels(sample: Sample) -> list[Check]:
    """How well the plateau is told from numbers of the image: as strongly as published, and only through the hole."""
    known = np.unique(sample.plateau_nm)
    if len(known) > 8:
        return []
    first = sample.group % 8 < 4
    label = np.searchsorted(known, sample.plateau_nm)
    image = discriminate(linear_statistics(sample.images), label, first)
    rows = [
        reported("plateau told from 12 statistics of an image (published .90)", float((image == label[~first]).mean()))
    ]
    # The border ring is plateau in every image: what it tells, it tells by grey alone and not through the hole.
    border = np.concatenate(
        [sample.images[:, :2].reshape(len(label), -1), sample.images[:, -2:].reshape(len(label), -1)], 1
    )
    ring = np.column_stack([border.mean(1), border.std(1)])
    told = float((discriminate(ring, label, first) == label[~first]).mean())
    return [*rows, at_most("plateau told from the border of an image (chance .25)", 0.5, told)]


def discriminate(
    features: Float[np.ndarray, "n k"], label: Int[np.ndarray, "n"], train: np.ndarray
) -> Int[np.ndarray, "m"]:
    """Linear discriminant analysis: the class of every row that is not `train`.

    Source: Fisher, Annals of Eugenics 7 (1936) 179.
    """
    classes = np.unique(label)
    means = np.stack([features[train & (label == one)].mean(0) for one in classes])
    within = features[train] - means[np.searchsorted(classes, label[train])]
    covariance = within.T @ within / len(within)
    covariance += 1e-6 * np.diag(np.diag(covariance) + 1e-12)
    direction = np.linalg.solve(covariance, means.T)
    score = features[~train] @ direction - 0.5 * np.einsum("ck,kc->c", means, direction)
    return classes[score.argmax(1)]


def edge_assignment_bias_px(world: HoleWorld) -> float:
    """How far the edge in the picture lies outside the true edge, as a mean over the contour [px].

    The picture's edge is the contour half-way between the grey of the floor (deepest fifth of the pixels) and of the
    plateau far from the rim (border of the image), without noise. The true edge is where the surface lies `TRUE_EDGE`
    of the plateau's height below it. The difference of the areas inside, over the length of the contour, is the mean
    displacement along the normal. Nuisance is 0 and the seed fixed: one number for a world, the same on every call.
    """
    world = world.model_copy(update={"nuisance": 0.0})
    pictures, heights, plateaus = [], [], []
    for number in range(EDGE_DRAWS):
        if world.kind == "sites":
            site = draw_site(world, EDGE_SEED, number, EDGE_DRAWS, noise=False)
            pictures.extend(site.images)
            heights.extend(site.heights)
            plateaus.extend([site.plateau_nm] * EDGE_DRAWS)
        else:
            for pair in draw_pairs(world, EDGE_SEED, number, noise=False):
                pictures.append(pair.images[0])
                heights.append(pair.heights)
                plateaus.append(pair.plateau_nm)
    z, grey, plateau = np.stack(heights), np.stack(pictures).astype(np.float64), np.asarray(plateaus)
    deepest = z <= np.quantile(z, 0.2, axis=(1, 2), keepdims=True)
    floor = (grey * deepest).sum((1, 2)) / deepest.sum((1, 2))
    border = np.concatenate([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], axis=1)
    middle = 0.5 * (floor + np.median(border, axis=1))
    seen = contours_below(grey, middle)
    true = contours_below(z, (1.0 - TRUE_EDGE) * plateau)
    # Of an ellipse with the same second moments: its semi-axes are twice their roots.
    a, b = 2 * np.sqrt(true.xx), 2 * np.sqrt(true.yy)
    length = np.pi * (3 * (a + b) - np.sqrt((3 * a + b) * (a + 3 * b)))
    return float(np.mean((seen.area - true.area) / length))


def _slope(x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"]) -> float:
    return float(np.polyfit(x - x.mean(), y, 1)[0])


def _neighbours(images: UInt8[np.ndarray, "n h w"]) -> tuple[float, float, float]:
    """Mean absolute steps along x and along y [grey], and the correlation of all pairs of neighbours along x."""
    step_x = step_y = 0.0
    left, right = images[:, :, :-1].mean(), images[:, :, 1:].mean()
    sums = np.zeros(3)
    for image in images:
        grey = image.astype(np.float64)
        step_x += np.abs(np.diff(grey, axis=1)).mean()
        step_y += np.abs(np.diff(grey, axis=0)).mean()
        a, b = grey[:, :-1] - left, grey[:, 1:] - right
        sums += (np.vdot(a, b), np.vdot(a, a), np.vdot(b, b))
    return step_x / len(images), step_y / len(images), float(sums[0] / math.sqrt(sums[1] * sums[2]))
