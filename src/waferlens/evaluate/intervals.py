"""How honest an interval is: coverage, interval score, and intervals on the figures themselves by clustered bootstrap.

Source: interval score: Gneiting, Raftery, J. Am. Stat. Assoc. 102 (2007) 359, equation 43; conformal quantile: Lei et
al., J. Am. Stat. Assoc. 113 (2018) 1094; cluster bootstrap: Davison, Hinkley, "Bootstrap methods" (1997), 3.8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float, Int, Int64

from waferlens.errors import UsageError


def conformal_quantile(scores: Float[np.ndarray, " n"], level: float) -> float:
    """The half-width, in units of the score, that covers a new case with at least `level`.

    Args:
        scores: Absolute errors divided by their predicted scale, of data that trained nothing.
        level: Coverage, as 0.9.

    Raises:
        UsageError: there are too few scores for this level.
    """
    rank = math.ceil((len(scores) + 1) * level)
    if rank > len(scores):
        needed = math.ceil(level / (1 - level) - 1e-9)
        raise UsageError(
            f"{len(scores)} calibration cases cannot support intervals of level {level:g}, it takes {needed}; "
            "calibrate on more structures, or take the level out of calibration.levels"
        )
    return float(np.partition(scores, rank - 1)[rank - 1])


def coverage(low: np.ndarray, high: np.ndarray, truth: np.ndarray) -> float:
    """Share of the truths inside their interval; NaN intervals are left out."""
    known = np.isfinite(low) & np.isfinite(high) & np.isfinite(truth)
    return float(np.mean((truth >= low)[known] & (truth <= high)[known])) if known.any() else float("nan")


def interval_score(low: np.ndarray, high: np.ndarray, truth: np.ndarray, level: float) -> float:
    """Mean width plus what lies outside, each unit of it 2 / (1 - level) times; smaller is better, NaN without any."""
    known = np.isfinite(low) & np.isfinite(high) & np.isfinite(truth)
    if not known.any():
        return float("nan")
    low, high, truth = low[known], high[known], truth[known]
    outside = np.maximum(low - truth, 0.0) + np.maximum(truth - high, 0.0)
    return float(np.mean(high - low + 2.0 / (1.0 - level) * outside))


def constant_width_score(error: np.ndarray, level: float) -> float:
    """Interval score of the best intervals of one width: the one that covers exactly `level` of these very errors."""
    error = error[np.isfinite(error)]
    half = float(np.quantile(np.abs(error), level))
    return interval_score(-half + 0.0 * error, half + 0.0 * error, error, level)


def cluster_sums(values: Float[np.ndarray, "n k"], cluster: Int[np.ndarray, " n"]) -> Float[np.ndarray, "m k"]:
    """Sums of the columns within each cluster; clusters are numbered from 0."""
    sums = np.zeros((int(cluster.max()) + 1, values.shape[1]))
    np.add.at(sums, cluster, values)
    return sums


def bootstrap_interval(
    sums: Float[np.ndarray, "m k"],
    statistic: Callable[[Float[np.ndarray, "r k"]], Float[np.ndarray, " r"]],
    *,
    level: float = 0.95,
    rounds: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a statistic of column sums when whole clusters are drawn anew.

    Args:
        sums: One row a cluster: everything the statistic needs, summed within it.
        statistic: From the summed columns of each round to its value.
        level: Coverage of the interval.
        rounds: Bootstrap rounds.
        seed: Seed of the draws.
    """
    values = [statistic(drawn.astype(np.float64) @ sums) for drawn in cluster_draws(len(sums), rounds, seed)]
    low, high = np.quantile(np.concatenate(values), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def cluster_draws(clusters: int, rounds: int, seed: int = 0) -> Iterator[Int64[np.ndarray, "r m"]]:
    """How often each cluster comes when as many are drawn as there are, for rounds in hundreds."""
    rng = np.random.default_rng(seed)
    for _ in range(rounds // 100):
        yield rng.multinomial(clusters, np.full(clusters, 1.0 / clusters), size=100)
