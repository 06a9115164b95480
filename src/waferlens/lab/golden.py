"""The demonstration's inspection against a good part: no network, no labels, and a stated rate of false alarms.

Arrays of holes of one product are drawn, a template is fitted to good ones, and others are compared with it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from waferlens.inspect import inspect_paths
from waferlens.inspect.folder import RESULTS
from waferlens.prepare.golden import fit
from waferlens.recipe import load_recipe
from waferlens.recipe.golden import GoldenRecipe
from waferlens.simulate.hole.dataset import hole_world
from waferlens.simulate.hole.defects import DefectSpec
from waferlens.simulate.hole.field import FieldSpec
from waferlens.simulate.hole.twins import write_fields

RATE = 0.05
"""Stated: the recipe's own 1 % would take 99 good pictures for the threshold alone, and more time than a demonstration
has."""
GOOD = 79
"""Good pictures that are fitted to: 20 make the template, and 59 hold the rate without rounding it down."""
LOT_GOOD, LOT_DEFECTIVE = 40, 16
FIELD = FieldSpec(rows=2, columns=3)
DEFECTS = DefectSpec(size_px=(4.0, 16.0), contrast_grey=(25.0, 80.0))
"""Some of these can be seen by anybody, and some of them are lost in the noise."""
FIT, LOT = "fit", "lot"


@dataclass(frozen=True, slots=True)
class GoldenPart:
    """What came of it."""

    good: int
    """Good pictures of the lot; none of them was fitted to."""
    alarmed: int
    """Good pictures that are not OK."""
    stated_rate: float
    defective: int
    found: int
    """Defective pictures that are not OK."""
    pictures_per_second: float

    def line(self) -> str:
        """For people."""
        alarmed = f"{self.alarmed} of {self.good} good fields alarm{'s' if self.alarmed == 1 else ''}"
        return (
            f"golden     {alarmed} (stated: at most {100 * self.stated_rate:g} %), {self.found} of {self.defective} "
            "defective ones are found"
        )


def compare_with_good(
    fields: Path,
    bundle: Path,
    out: Path,
    seed: int,
    *,
    good: int = GOOD,
    lot: tuple[int, int] = (LOT_GOOD, LOT_DEFECTIVE),
) -> GoldenPart:
    """Simulates fields of one product, fits `golden-template` to good ones, and inspects others.

    Args:
        fields: folder for the pictures.
        bundle: folder for what is fitted.
        out: folder for the run.
        seed: of everything that is drawn.
        good: good pictures that are fitted to.
        lot: good and defective pictures that are inspected.

    Raises:
        UsageError: there are too few good pictures for the rate.
        InputError: something cannot be written.
    """
    world = hole_world("sim")
    write_fields(fields / FIT, world, good, 0, seed, FIELD)
    write_fields(fields / LOT, world, *lot, seed, FIELD, DEFECTS, first=good)
    recipe = load_recipe("golden-template", [f"threshold.false_alarm_rate={RATE}"])
    assert isinstance(recipe, GoldenRecipe)
    fit(recipe, fields / FIT, bundle)
    done = inspect_paths([fields / LOT / "good", fields / LOT / "defective"], bundle, out)
    with (out / RESULTS).open(encoding="utf-8", newline="") as table:
        flagged = [Path(row["path"]).parent.name for row in csv.DictReader(table) if row["verdict"] != "OK"]
    return GoldenPart(lot[0], flagged.count("good"), RATE, lot[1], flagged.count("defective"), done.images_per_second)
