"""Splits that cannot leak: a whole structure, site, wafer or device goes to one side, whatever else is in the folder.

The side is decided by a hash of the group's own name. Adding or removing files therefore never moves a group, two
machines agree without exchanging lists, and the four cases and two noise draws of one structure stay together because
they share its name.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping

import numpy as np

from waferlens.errors import UsageError

FRACTIONS: Mapping[str, float] = {"train": 0.80, "validation": 0.08, "calibration": 0.06, "test": 0.06}
"""Shares of the groups; calibration is apart from validation because intervals fitted on data that chose the network
would be too narrow."""

WAFER_FRACTIONS: Mapping[str, float] = {"train": 0.68, "validation": 0.06, "calibration": 0.20, "test": 0.06}
"""Shares of the wafers. There are few of them, and intervals are only as honest as the wafers they were fitted on are
many: calibration gets more."""


def position(group_id: str, salt: str = "") -> float:
    """A number in [0, 1) that belongs to the group for good, uniform over groups.

    Args:
        group_id: name of the structure (`sim`) or site (`real`), see `waferlens.load.challenge`.
        salt: another salt gives another, independent assignment.
    """
    # the separator keeps ("ab", "c") and ("a", "bc") apart
    digest = hashlib.blake2b(f"{salt}\x1f{group_id}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def split_of(group_id: str, fractions: Mapping[str, float] = FRACTIONS, salt: str = "") -> str:
    """Which side a group is on.

    Args:
        group_id: name of the structure or site; never of the file.
        fractions: share of the groups for each side; the shares sum to 1. The order counts.
        salt: another salt gives another, independent assignment.

    Raises:
        UsageError: a share is negative, or they do not sum to 1.
    """
    return _side(position(group_id, salt), _checked(fractions))


def split_all(group_ids: Iterable[str], fractions: Mapping[str, float] = FRACTIONS, salt: str = "") -> np.ndarray:
    """The side of each of many groups; a name that occurs often is hashed once.

    Args:
        group_ids: one name an item, with repeats.
        fractions: as in `split_of`.
        salt: as in `split_of`.

    Returns:
        One name of a side an item.

    Raises:
        UsageError: a share is negative, or they do not sum to 1.
    """
    shares = _checked(fractions)
    known: dict[str, str] = {}
    sides = []
    for group_id in group_ids:
        side = known.get(group_id)
        if side is None:
            side = known[group_id] = _side(position(group_id, salt), shares)
        sides.append(side)
    return np.array(sides, dtype=str)


def _checked(fractions: Mapping[str, float]) -> list[tuple[str, float]]:
    total = math.fsum(fractions.values())
    if not fractions or any(share < 0 for share in fractions.values()) or abs(total - 1) > 1e-9:
        raise UsageError(f"the shares of a split must be >= 0 and sum to 1, got {dict(fractions)} (sum {total:g})")
    return [(side, share) for side, share in fractions.items() if share > 0]


def _side(place: float, shares: list[tuple[str, float]]) -> str:
    edge = 0.0
    for side, share in shares:
        edge += share
        if place < edge:
            return side
    return shares[-1][0]  # the shares sum to 1 only up to rounding
