"""The rule sheet: sorts findings into critical and tolerable by size, contrast, place and shape (R1 of S2)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from waferlens.recipe.golden import GoldenRecipe, Rule
from waferlens.records import Finding

KIND = "deviation"
"""What a finding is called where nothing tells classes apart."""
NO_RULE = "no rule"
"""Named where no rule fits; such a finding is critical."""


def sorted_finding(
    recipe: GoldenRecipe,
    box: tuple[float, float, float, float],
    score: float,
    area_px: float,
    contrast: float,
    light: bool,
    matrix: Float[np.ndarray, "2 3"],
) -> Finding:
    """A finding with what the first rule that fits says of it.

    Args:
        recipe: with its rules.
        box: on the image [px]
        score: greatest deviation in units of the threshold.
        area_px: pixels that deviate [px²]
        contrast: mean difference from the reference [grey]
        light: whether the image is brighter.
        matrix: takes a point of the image to the reference, on which the rules' boxes stand.
    """
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    centre = matrix @ np.array([x, y, 1.0])
    critical, name = True, NO_RULE
    for rule in recipe.rules:
        if _fits(rule, box, float(area_px), float(contrast), bool(light), centre):
            critical, name = rule.critical, rule.name
            break
    return Finding(
        KIND,
        box,
        float(score),
        float(area_px),
        float(contrast),
        "light" if light else "dark",
        critical,
        name if recipe.rules else "",
    )


def _fits(
    rule: Rule,
    box: tuple[float, float, float, float],
    area: float,
    contrast: float,
    light: bool,
    centre: Float[np.ndarray, "2"],
) -> bool:
    sides = sorted((box[2] - box[0], box[3] - box[1]))
    return (
        _within(area, rule.min_area_px, rule.max_area_px)
        and _within(abs(contrast), rule.min_contrast_grey, rule.max_contrast_grey)
        and _within(sides[1] / max(sides[0], 1e-9), rule.min_elongation, rule.max_elongation)
        and (rule.light_or_dark is None or (rule.light_or_dark == "light") == light)
        and (not rule.inside or any(_inside(centre, where) for where in rule.inside))
    )


def _within(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _inside(point: Float[np.ndarray, "2"], box: tuple[float, float, float, float]) -> bool:
    return bool(box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3])
