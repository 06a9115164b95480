"""Published tables made again: their rows trained to a stated budget, judged alike, and set beside what was published.

A folder is one reproduction. Rows that are finished in it are not run again; one that was interrupted goes on from its
last epoch. Quality at another budget, at another size of image and on other devices does not compare with what was
published; differences between rows, over seeds, do, and so do parameters and operations.
"""

from __future__ import annotations

import difflib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from waferlens import __version__
from waferlens.errors import InputError, UsageError
from waferlens.extras import require
from waferlens.formats import package_set
from waferlens.lab.bench import bench
from waferlens.lab.reproduce_published import TABLES, Row, Table
from waferlens.lab.reproduce_rows import TEST, Budget, Reached, Sets, chosen_rows, reach
from waferlens.load.package import device_group, facts_of, is_package_set
from waferlens.recipe import load_recipe
from waferlens.records import RunCard
from waferlens.simulate.package.dataset import package_world, write_devices

PLAN, SPEED, LOG = "plan.json", "speed.json", "log.txt"
FPS_SIZE_PX = (640, 640)
"""Image on which frames a second were published [px]"""


@dataclass(frozen=True, slots=True)
class Simulated:
    """Devices that are made on the spot."""

    devices: int = 200
    """To train, choose and calibrate on."""
    test_devices: int = 60
    """To judge on, of another seed."""
    seed: int = 1
    domain: str = "sim"


@dataclass(frozen=True, slots=True)
class Reproduced:
    """A table, published and ours."""

    table: Table
    rows: list[Row]
    reached: dict[str, list[Reached]]
    """By row, one a seed; empty where a table judges nothing."""
    costs: dict[str, dict[str, float]]
    """By row: `parameters` and `gflops` of the network as published, `fps_b1` … [batches/s]"""
    speed: dict[str, Any]
    """What frames a second were taken on; empty where they were not."""
    budget: Budget
    data: dict[str, Any]
    """What it was trained and judged on."""

    @property
    def exact(self) -> bool:
        """Whether every count of parameters is the published one."""
        return all(
            self.costs[row.name]["parameters"] == row.published["parameters"]
            for row in self.rows
            if "parameters" in row.published
        )


def asked_rows(name: str, rows: Sequence[str] | None = None) -> tuple[Table, list[Row]]:
    """The table of a name, and those of its rows that are asked for, in its order; all if None.

    Raises:
        UsageError: there is no such table or row.
    """
    if name not in TABLES:
        near = difflib.get_close_matches(name, TABLES, n=1, cutoff=0.5)
        raise UsageError(
            f"'{name}' is no table; " + (f"did you mean '{near[0]}'?" if near else f"one of {', '.join(TABLES)}")
        )
    return TABLES[name], chosen_rows(TABLES[name], rows)


def reproduce(
    name: str,
    out: Path,
    *,
    budget: Budget,
    data: Path | Simulated = Simulated(),
    test: Path | None = None,
    rows: Sequence[str] | None = None,
    seeds: int = 1,
    threads: int = 2,
    workers: int = 0,
    fps_size_px: tuple[int, int] = FPS_SIZE_PX,
    fps_seconds: float = 2.0,
    tell: Callable[[str], None] = lambda text: None,
) -> Reproduced:
    """Makes a table again, or goes on where it was interrupted.

    Args:
        name: Of `lab.reproduce_published.TABLES`.
        out: Folder of the reproduction.
        budget: What every row that learns is given.
        data: A package set, or how to simulate one.
        test: Other devices to judge on, whole; None takes the test side of `data`, or simulates some.
        rows: Names of rows; all if None.
        seeds: How often each row is trained, with seeds from 1 on.
        threads: CPU threads of training, judging and timing.
        workers: Processes that make batches in training.
        fps_size_px: Rows and columns of the image that is timed [px]
        fps_seconds: Time for each network and batch size; 0 leaves frames a second out [s]
        tell: Told what is being done.

    Raises:
        UsageError: there is no such table or row, or the folder holds another reproduction.
        InputError: the data cannot be used.
    """
    table, chosen = asked_rows(name, rows)
    require("train", "torch")
    started, wall = time.strftime("%Y-%m-%dT%H:%M:%S%z"), time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    _same_plan(out, table, budget, data, test)
    told = _teller(out, tell)
    reached: dict[str, list[Reached]] = {row.name: [] for row in chosen}
    facts: dict[str, Any] = {}
    if table.shares:
        sets = _sets(out, data, test, threads, told)
        judged = {"side": "all" if sets.test else TEST, "groups": _judged_groups(sets)}
        facts = {"train": facts_of(sets.train), "judged": facts_of(sets.judged) | judged}
        for row in chosen:
            for seed in range(1, 1 + (seeds if row.learns else 1)):
                told(f"{row.label}, seed {seed}" if row.learns else row.label)
                reached[row.name].append(reach(table, row, seed, budget, sets, out, threads, workers))
    costs, speed = _costs(table, chosen, out, threads, fps_size_px, fps_seconds, told)
    done = Reproduced(table, chosen, reached, costs, speed, budget, facts)
    _card(out, done, seeds, started, time.perf_counter() - wall)
    return done


def _same_plan(out: Path, table: Table, budget: Budget, data: Path | Simulated, test: Path | None) -> None:
    """A folder belongs to one table, budget and data: rows of different ones do not compare.

    Raises:
        UsageError: it belongs to others.
    """
    plan = {
        "table": table.name,
        "settings": budget.settings,
        "data": asdict(data) if isinstance(data, Simulated) else str(data.resolve()),
        "test": None if test is None else str(test.resolve()),
    }
    path = out / PLAN
    if path.exists():
        before = json.loads(path.read_text())
        other = [key for key in plan if plan[key] != before.get(key)]
        if other:
            raise UsageError(
                f"{out}: holds a reproduction with {other[0]} {before.get(other[0])}, not {plan[other[0]]}; "
                "name another --out, or ask for the same"
            )
    elif any(out.iterdir()):
        raise UsageError(f"{out}: holds something else than a reproduction; name a new folder")
    path.write_text(json.dumps(plan, indent=1) + "\n")


def _sets(out: Path, data: Path | Simulated, test: Path | None, threads: int, tell: Callable[[str], None]) -> Sets:
    if not isinstance(data, Simulated):
        for folder in (data, test):
            if folder is not None and not folder.is_dir():
                raise InputError(folder, "no such folder")
        return Sets(data, test)
    train = _simulated(out / "data", data.domain, data.devices, data.seed, threads, tell)
    if test is None:
        test = _simulated(out / "test", data.domain, data.test_devices, data.seed + 1, threads, tell)
    return Sets(train, test)


def _judged_groups(sets: Sets) -> int:
    """How many devices are judged.

    Raises:
        InputError: it is none, or the folder is no package set.
    """
    if not is_package_set(sets.judged):
        raise InputError(sets.judged, "is no package set: make one with `waferlens simulate package`")
    devices = (package_set.read_device(sets.judged, number) for number in package_set.devices(sets.judged))
    count = len({group for group in map(device_group, devices) if sets.keep(group)})
    if not count:
        raise InputError(sets.judged, "has no device on its test side; use more devices, or other ones with --test")
    return count


def _simulated(folder: Path, domain: str, devices: int, seed: int, threads: int, tell: Callable[[str], None]) -> Path:
    """A set of devices, whole or not there: one that was interrupted is begun again."""
    if not folder.exists():
        tell(f"simulating {devices} devices")
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        write_devices(part, package_world(domain), devices, seed, threads)
        part.replace(folder)
    return folder


def _costs(
    table: Table,
    rows: Sequence[Row],
    out: Path,
    threads: int,
    size_px: tuple[int, int],
    seconds: float,
    tell: Callable[[str], None],
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Parameters and operations of the networks as published, and batches a second, all networks taking turns."""
    if "parameters" not in table.figures:
        return {}, {}
    from waferlens.models import describe

    networks = {row.name: describe(load_recipe(row.recipe)) for row in rows}  # type: ignore[arg-type]
    costs = {
        name: {"parameters": told["parameters_fused"], "gflops": told["gflops"]} for name, told in networks.items()
    }
    if not seconds:
        return costs, {}
    asked = {
        "recipes": [row.recipe for row in rows], "threads": threads, "size_px": list(size_px), "seconds": seconds,
    }  # fmt: skip
    path = out / SPEED
    speed = json.loads(path.read_text()) if path.exists() else {}
    if speed.get("asked") != asked:
        tell("frames a second")
        done = bench(asked["recipes"], table.batches, threads, seconds, engines=["onnxruntime"], size_px=size_px)
        speed = {"asked": asked, "engines": done.engines, "timings": [asdict(one) for one in done.timings]}
        path.write_text(json.dumps(speed, indent=1) + "\n")
    by_recipe = {row.recipe: row.name for row in rows}
    for one in speed["timings"]:
        costs[by_recipe[one["name"]]][f"fps_b{one['batch']}"] = one["images_per_s"] / one["batch"]
    return costs, {**asked, "engine": f"ONNX Runtime {speed['engines']['onnxruntime']}"}


def _teller(out: Path, tell: Callable[[str], None]) -> Callable[[str], None]:
    """Tells the user, and the log of the folder."""

    def told(text: str) -> None:
        with (out / LOG).open("a") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        tell(text)

    return told


def _card(out: Path, done: Reproduced, seeds: int, started: str, seconds: float) -> None:
    card = RunCard(
        kind="reproduce",
        recipe={"table": done.table.name, "rows": [row.recipe for row in done.rows], "settings": done.budget.settings},
        seeds={"train": seeds},
        versions={"waferlens": __version__, "python": platform.python_version()},
        data=done.data,
        sources=["S2"],
        results={
            "rows": {name: [asdict(one) for one in every] for name, every in done.reached.items()},
            "costs": done.costs,
            "speed": done.speed,
        },
        machine={"machine": platform.machine(), "cores": os.cpu_count()},
        started=started,
        seconds=round(seconds, 1),
    )
    (out / "runcard.json").write_text(json.dumps(asdict(card), indent=2) + "\n")
