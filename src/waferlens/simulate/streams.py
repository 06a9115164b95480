"""Random streams: one seed is one structure, whatever else is drawn around it."""

from __future__ import annotations

import hashlib
from enum import IntEnum
from functools import lru_cache

import numpy as np
from jaxtyping import UInt32

from waferlens.recipe.hole_world import Normal, Range


class Stream(IntEnum):
    """The four independent streams of a sample, and the order of a data set."""

    GEOMETRY = 0
    MATERIAL = 1
    INSTRUMENT = 2
    NOISE = 3
    ORDER = 4


def stream(root: int, kind: str, stream_id: Stream, *sample: int) -> np.random.Generator:
    """The generator of one stream of one sample.

    Args:
        root: Seed of the data set, 0 .. 2**64 - 1.
        kind: Name of the world; disjoint streams for disjoint worlds.
        stream_id: Which of the streams.
        sample: Numbers that name the sample: structure or site, then case, hole, iteration.
    """
    # Words of fixed places: two lists of numbers never run into the same entropy.
    entropy = np.array([root & 0xFFFFFFFF, root >> 32, *_words(kind), *sample, int(stream_id)], np.uint32)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


@lru_cache
def _words(kind: str) -> UInt32[np.ndarray, "4"]:
    """The whole name as four words, so that no two worlds share a state, however alike their names end."""
    return np.frombuffer(hashlib.sha256(kind.encode()).digest()[:16], "<u4")


def uniform(rng: np.random.Generator, span: Range, share: float = 1.0) -> float:
    """A draw from the middle `share` of a range."""
    low, high = span
    middle, half = 0.5 * (low + high), 0.5 * (high - low) * share
    # The draw is taken even where the range is a point, so that a change of one range leaves the others' draws alone.
    return middle + half * (2.0 * rng.random() - 1.0)


def normal(rng: np.random.Generator, spec: Normal, share: float = 1.0) -> float:
    """A draw from a normal distribution with its spread scaled by `share`."""
    return spec.mean + spec.std * share * rng.standard_normal()
