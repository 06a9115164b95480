"""One row of a table with one seed: trained to the budget, exported, judged as a bundle, and written down when done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from waferlens.bundle.files import is_bundle, open_bundle
from waferlens.errors import ParityError, UsageError
from waferlens.extras import require
from waferlens.lab.reproduce_figures import Figure, Keep, defect_figures, finder_figures, package_figures
from waferlens.lab.reproduce_published import Row, Table
from waferlens.prepare.package_sides import side_of
from waferlens.recipe import PackageRecipe, as_yaml, load_recipe

RUNCARD = "runcard.json"
TEST = "test"
"""Side of the split that a row is judged on: its devices trained, chose and calibrated nothing."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What every row that learns is given."""

    cpu_minutes: float
    """Training ends with the epoch that passes it [min]"""
    epochs: int
    """Over which the learning rate falls."""
    size_px: tuple[int, int]
    """Rows and columns of the image [px]"""
    overrides: tuple[str, ...] = ()
    """Settings `a.b=c` of all rows."""

    @property
    def settings(self) -> list[str]:
        """Written over the recipe of every row."""
        return [
            f"input.height_px={self.size_px[0]}",
            f"input.width_px={self.size_px[1]}",
            f"train.epochs={self.epochs}",
            f"train.budget_cpu_minutes={self.cpu_minutes:g}",
            "train.precision=f32",
            *self.overrides,
        ]


@dataclass(frozen=True, slots=True)
class Sets:
    """Devices to train on, and to judge on."""

    train: Path
    test: Path | None = None
    """A set of other devices, judged whole; None takes the test side of `train`."""

    @property
    def judged(self) -> Path:
        return self.train if self.test is None else self.test

    @property
    def keep(self) -> Keep:
        """Which devices of `judged` are judged."""
        if self.test is not None:
            return lambda group: True
        return lambda group: side_of(self.train, group) == TEST


@dataclass(frozen=True, slots=True)
class Reached:
    """What one row came to with one seed."""

    row: str
    seed: int
    figures: dict[str, Figure] = field(default_factory=dict)
    cpu_minutes: float = 0.0
    """Of training [min]"""
    epochs: int = 0
    stopped: str = ""
    """Why training ended: `epochs`, `budget` or `patience`; empty where nothing is trained."""
    refused: str = ""
    """Why it could not be exported; empty where it could."""

    @classmethod
    def read(cls, text: str) -> Reached:
        told = json.loads(text)
        made = {name: Figure(one["value"], one["interval"] and tuple(one["interval"]))
                for name, one in told.pop("figures").items()}  # fmt: skip
        told.pop("recipe_sha256")
        return cls(figures=made, **told)


def reach(
    table: Table, row: Row, seed: int, budget: Budget, sets: Sets, out: Path, threads: int, workers: int = 0
) -> Reached:
    """A row with one seed; what is finished is read, what was interrupted goes on.

    Args:
        table: It belongs to.
        row: Which.
        seed: Of weights, order and augmentation.
        budget: Of training.
        sets: To train and to judge on.
        out: The folder of the whole reproduction.
        threads: CPU threads.
        workers: Processes that make batches.

    Raises:
        InputError: the data cannot be used.
        UsageError: the row was finished with other settings.
    """
    name = f"{row.name}-seed{seed}" if row.learns else row.name
    recipe = load_recipe(row.recipe, [*budget.settings, f"train.seed={seed}"] if row.learns else [])
    resolved = hashlib.sha256(as_yaml(recipe).encode()).hexdigest()
    path = out / "rows" / f"{name}.json"
    if path.exists():
        if json.loads(path.read_text())["recipe_sha256"] != resolved:
            raise UsageError(f"{path}: was made with other settings of {row.recipe}; name another --out, or remove it")
        return Reached.read(path.read_text())
    if row.learns:
        assert isinstance(recipe, PackageRecipe)
        reached = _learned(
            table, row, seed, recipe, sets, out / "runs" / name, out / "bundles" / name, threads, workers
        )
    else:
        from waferlens.prepare.roi_finders import finder

        reached = Reached(row.name, seed, finder_figures(finder(row.recipe), sets.judged, sets.keep))
    path.parent.mkdir(exist_ok=True)
    _write(path, json.dumps(asdict(reached) | {"recipe_sha256": resolved}, indent=1) + "\n")
    return reached


def _learned(
    table: Table,
    row: Row,
    seed: int,
    recipe: PackageRecipe,
    sets: Sets,
    run: Path,
    bundle: Path,
    threads: int,
    workers: int,
) -> Reached:
    require("train", "lightning")
    from waferlens.export import export
    from waferlens.train import train

    if not (run / RUNCARD).exists():
        run.parent.mkdir(exist_ok=True)
        train(recipe, sets.train, run, threads=threads, workers=workers, quiet=True)
    told = json.loads((run / RUNCARD).read_text())["results"]
    cost = {"cpu_minutes": told["cpu_seconds"] / 60, "epochs": told["epochs"], "stopped": told["stopped"]}
    if not is_bundle(bundle):
        bundle.parent.mkdir(exist_ok=True)
        try:
            export(run, bundle)
        except ParityError as wrong:  # one network of several: the others are judged all the same
            return Reached(row.name, seed, refused=str(wrong), **cost)
    judge = defect_figures if table.judges == "defects" else package_figures
    return Reached(row.name, seed, judge(open_bundle(bundle), sets.judged, sets.keep, threads), **cost)


def chosen_rows(table: Table, asked: Sequence[str] | None) -> list[Row]:
    """The rows that are asked for, in the table's order; all if None.

    Raises:
        UsageError: the table has no such row.
    """
    names = [row.name for row in table.rows]
    for name in asked or ():
        if name not in names:
            raise UsageError(f"{table.name} has no row '{name}'; its rows are {', '.join(names)}")
    return [row for row in table.rows if asked is None or row.name in asked]


def _write(path: Path, text: str) -> None:
    """At once or not at all: a row that is there is finished."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)
