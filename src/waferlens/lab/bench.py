"""Speed of networks, side by side in one run: absolute times of another day on another machine compare with nothing.

Networks and engines take turns, so that all meet the same disturbance, and what is compared is turns of one round.
Images are noise; a detector's boxes are decoded in the graph, and the suppression of double boxes (NMS) is left out.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count

import numpy as np
from scipy.stats import binom

from waferlens.lab.bench_engines import Run, chosen_engines, runner, torch_threads, versions
from waferlens.lab.bench_networks import Network, open_networks

TURN = 8
"""Most batches a network runs before the next one has its turn."""
TURN_S = 0.2
"""A turn ends earlier where batches take long [s]"""
LEAST_ROUNDS = 6
"""Fewer do not tell a 95 % interval of their median."""
Clock = Callable[[], float]
"""Tells a time [s]"""
LEVEL = 0.95
"""Coverage of the intervals."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One network in one engine at one batch size."""

    name: str
    source: str
    """`bundle`, `recipe` for a network with fresh weights (as fast as a trained one), or `file`."""
    engine: str
    batch: int
    height_px: int
    """Rows of the image [px]"""
    width_px: int
    """Columns [px]"""
    parameters_fused: int | None
    """As exported; None where it is not told."""
    gflops: float | None
    """Of one image as exported; None where it is not told."""
    images_per_s: float
    """At the median round."""
    ms_per_image: float
    """Median over the rounds [ms]"""
    ms_interval: tuple[float, float] | None
    """95 % interval of that median; None with fewer than six rounds [ms]"""
    fastest_ms_per_image: float
    """Of a single batch [ms]"""
    ratio: float
    """Time over that of the network named first, in the same engine at the same batch size: median over the rounds."""
    ratio_interval: tuple[float, float] | None
    """95 % interval of that median; None for the first itself, and with fewer than six rounds."""
    timed: int
    """Batches that were timed."""


@dataclass(frozen=True, slots=True)
class Benched:
    """What a bench tells."""

    timings: list[Timing]
    not_run: list[str]
    """What was left out, and why."""
    engines: dict[str, str]
    """Engines and their versions."""


def bench(
    names: Sequence[str],
    batches: Sequence[int] = (1, 16),
    threads: int = 2,
    seconds: float = 2.0,
    *,
    engines: Sequence[str] | None = None,
    size_px: tuple[int, int] | None = None,
    warm_up: int | None = None,
    timed: int | None = None,
    clock: Clock = time.perf_counter,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> Benched:
    """Times networks in the engines that are installed, taking turns.

    Args:
        names: Bundles, recipes or files `.onnx`, as `lab.bench_networks.open_networks` takes them.
        batches: Batch sizes.
        threads: Threads of each engine.
        seconds: Time given to each network in each engine at each batch size, where `timed` is None [s]
        engines: Of `lab.bench_engines.ENGINES`; None for all that are installed.
        size_px: Rows and columns of the image for all networks; None takes each at its own size [px]
        warm_up: Batches that each runs before it is timed; None for a quarter of its time, and at least one.
        timed: Batches of each that are timed; None for as many as the time permits, and at least six.
        clock: What times are read from; `time.process_time` counts what the engines compute and not what they wait for
            on a busy machine, all threads together.
        show: Called with how much is done, of how much.

    Raises:
        UsageError: a name or an engine is unknown, or a network does not take such images.
        MissingExtraError: an engine that was asked for is not installed.
    """
    chosen, lacking = chosen_engines(engines)
    networks = open_networks(names, size_px)
    not_run = [f"{engine}: {why}" for engine, why in lacking.items()]
    timings = []
    with torch_threads(threads, chosen):
        for place, batch in enumerate(batches):
            runs: dict[tuple[str, str], Run] = {}
            for engine in chosen:
                for network in networks:
                    run = runner(engine, network, batch, threads)
                    if run is not None:
                        runs[engine, network.name] = run
                    elif not place:
                        not_run.append(
                            f"{engine}: {network.name} is a {network.source}, of which only the graph is known"
                        )
            rounds = _rounds(
                runs, seconds, warm_up, timed, clock,
                lambda percent, before=place: show(100 * before + percent, 100 * len(batches)),  # type: ignore[misc]
            )  # fmt: skip
            timings += _timings(networks, chosen, batch, rounds)
    return Benched(timings, not_run, versions(chosen))


def machine() -> dict[str, object]:
    """What the times were measured on."""
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "onnxruntime": version("onnxruntime"),
        "numpy": version("numpy"),
    }


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """An interval that holds the median of what was drawn with at least 95 %, whatever its distribution.

    Args:
        values: Independent draws; fewer than six tell none.
    """
    place = int(binom.ppf((1 - LEVEL) / 2, len(values), 0.5)) if len(values) else 0
    if place < 1:
        return None
    ranked = sorted(values)
    return float(ranked[place - 1]), float(ranked[-place])


def _rounds(
    runs: dict[tuple[str, str], Run],
    seconds: float,
    warm_up: int | None,
    timed: int | None,
    clock: Clock,
    show: Callable[[int], None],
) -> dict[tuple[str, str], list[list[float]]]:
    """Times of single batches, a list a round, by engine and network [s]"""
    turns = {key: _turn(_warmed(run, seconds / 4, warm_up)) for key, run in runs.items()}
    rounds: dict[tuple[str, str], list[list[float]]] = {key: [] for key in runs}
    begun, least = time.perf_counter(), 1 if timed is not None else LEAST_ROUNDS
    for number in count():
        spent = (time.perf_counter() - begun) / (seconds * max(len(runs), 1))
        least_timed = min((sum(map(len, done)) for done in rounds.values()), default=0)
        share = min(spent, number / least) if timed is None else least_timed / timed
        show(min(100, int(100 * share)))
        if share >= 1 or not runs:
            return rounds
        order = list(runs) if number % 2 == 0 else list(runs)[::-1]  # a drift favours nobody
        for key in order:
            left = timed - sum(map(len, rounds[key])) if timed is not None else TURN
            if left > 0:
                rounds[key].append(_timed(runs[key], min(turns[key], left), clock))
    raise AssertionError


def _warmed(run: Run, seconds: float, batches: int | None) -> float:
    """Runs without looking; tells how long the last batch took [s]"""
    begun = time.perf_counter()
    took = 0.0
    for number in count(1):
        before = time.perf_counter()
        run()
        took = time.perf_counter() - before
        if number >= batches if batches is not None else time.perf_counter() - begun >= seconds:
            return took
    raise AssertionError


def _turn(took_s: float) -> int:
    return max(1, min(TURN, round(TURN_S / max(took_s, 1e-9))))


def _timed(run: Run, batches: int, clock: Clock) -> list[float]:
    """Times of some batches. Where they are short a first one is left out: threads of the network before still spin."""
    if batches > 1:
        run()
    times = []
    for _ in range(batches):
        started = clock()
        run()
        times.append(clock() - started)
    return times


def _timings(
    networks: Sequence[Network],
    engines: Sequence[str],
    batch: int,
    rounds: dict[tuple[str, str], list[list[float]]],
) -> list[Timing]:
    told = []
    for engine in engines:
        present = [network for network in networks if (engine, network.name) in rounds]
        medians = {one.name: [float(np.median(turn)) for turn in rounds[engine, one.name]] for one in present}
        first = medians.get(networks[0].name)
        for network in present:
            mine = medians[network.name]
            ratios = [a / b for a, b in zip(mine, first, strict=False)] if first is not None else []
            ms = [1e3 * value / batch for value in mine]
            told.append(
                Timing(
                    network.name,
                    network.source,
                    engine,
                    batch,
                    network.height_px,
                    network.width_px,
                    network.parameters_fused,
                    network.gflops,
                    1e3 / float(np.median(ms)),
                    float(np.median(ms)),
                    median_interval(ms),
                    1e3 * min(map(min, rounds[engine, network.name])) / batch,
                    float(np.median(ratios)) if ratios else float("nan"),
                    None if network is networks[0] else median_interval(ratios),
                    sum(map(len, rounds[engine, network.name])),
                )
            )
    return told
