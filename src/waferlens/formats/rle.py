"""Masks as run lengths in the manner of COCO: column after column, runs of nothing and of something in turn.

A mask of h rows and w columns is read down its columns; the first run counts pixels that are not set, and may be 0.
The counts come as a list of whole numbers, or packed into a string: from the fourth count on the difference to the one
before the last is written, in groups of five bits from the lowest up; a group is one character from `0` (48), 32 is
added where another group follows, and bit 16 of the last group is the sign.

Source: Lin et al., "Microsoft COCO: common objects in context", ECCV 2014; format: the mask API of cocodataset.org.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from numba import njit

from waferlens.formats.images import MAX_PIXELS

MAX_RUNS = 2 * MAX_PIXELS
"""More runs than any mask of ours has."""
_GROUPS = 13
"""Groups of five bits that 64 bits can fill."""


def counts_of(mask: Bool[np.ndarray, "h w"]) -> Int64[np.ndarray, " n"]:
    """The run lengths of a mask; they sum to its number of pixels."""
    flat = np.asarray(mask, bool).ravel(order="F")
    if flat.size == 0:
        return np.zeros(1, np.int64)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate(([0], edges, [flat.size]))
    runs = np.diff(starts).astype(np.int64)
    return np.concatenate((np.zeros(1, np.int64), runs)) if flat[0] else runs


def mask_of(counts: Sequence[int] | Int64[np.ndarray, " n"], height_px: int, width_px: int) -> Bool[np.ndarray, "h w"]:
    """The mask of run lengths.

    Args:
        counts: runs of nothing and of something in turn.
        height_px: rows of the mask [px]
        width_px: its columns [px]

    Raises:
        ValueError: a count is negative, or they do not sum to the number of pixels.
    """
    runs = np.asarray(counts)
    if runs.ndim != 1 or (runs.size and runs.dtype.kind not in "iu"):
        raise ValueError("the counts are not a list of whole numbers")
    if height_px <= 0 or width_px <= 0 or height_px * width_px > MAX_PIXELS:
        raise ValueError(f"a mask of {width_px}x{height_px} px; from 1 to {MAX_PIXELS} px are read")
    if runs.size and (runs.min() < 0 or runs.max() > MAX_PIXELS):
        raise ValueError("a count is below 0, or larger than any mask")
    total = int(runs.sum(dtype=np.int64))
    if total != height_px * width_px:
        raise ValueError(f"the counts sum to {total} px, the mask has {height_px}x{width_px} = {height_px * width_px}")
    values = np.zeros(runs.size, bool)
    values[1::2] = True
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width_px, height_px).T)


def packed(counts: Sequence[int] | Int64[np.ndarray, " n"]) -> str:
    """The counts as a string, equal to what other writers of COCO give character by character."""
    return _pack(np.ascontiguousarray(counts, np.int64)).tobytes().decode("ascii")


def unpacked(text: str) -> Int64[np.ndarray, " n"]:
    """The counts in a string.

    Raises:
        ValueError: a character is none of the 64, the string ends inside a count, or a count is out of range.
    """
    try:
        data = np.frombuffer(text.encode("ascii"), np.uint8)
    except UnicodeEncodeError as wrong:
        raise ValueError(f"the counts have the character {text[wrong.start]!r}") from wrong
    if data.size > _GROUPS * MAX_RUNS:
        raise ValueError("the counts are longer than those of any mask")
    strange = np.flatnonzero((data < 48) | (data > 111))
    if strange.size:
        raise ValueError(f"the counts have the character {text[strange[0]]!r} at place {strange[0]}")
    if data.size and (data[-1] - 48) & 32:
        raise ValueError("the counts end inside a number")
    counts, fault = _unpack(data)
    if fault >= 0:
        raise ValueError(f"count {fault} is too long for a number")
    if counts.size and (counts.min() < 0 or counts.max() > MAX_PIXELS):
        raise ValueError("a count is below 0, or larger than any mask")
    return counts


@njit(nogil=True, cache=True)
def _pack(counts: Int64[np.ndarray, " n"]) -> UInt8[np.ndarray, " m"]:
    out = np.empty(counts.size * _GROUPS, np.uint8)
    at = 0
    for index in range(counts.size):
        rest = counts[index]
        if index > 2:
            rest -= counts[index - 2]
        while True:
            group = rest & 31
            rest >>= 5
            more = rest != -1 if group & 16 else rest != 0
            out[at] = 48 + (group | 32 if more else group)
            at += 1
            if not more:
                break
    return out[:at].copy()


@njit(nogil=True, cache=True)
def _unpack(data: UInt8[np.ndarray, " m"]) -> tuple[Int64[np.ndarray, " n"], int]:
    out = np.empty(data.size, np.int64)
    at = 0
    number = 0
    while at < data.size:
        value = np.int64(0)
        groups = 0
        while True:
            group = np.int64(data[at]) - 48
            at += 1
            if groups >= 12:  # 60 bits: sums of such numbers stay within 64
                return out[:number], number
            value |= (group & 31) << (5 * groups)
            groups += 1
            if not group & 32:
                if group & 16:
                    value |= np.int64(-1) << (5 * groups)
                break
        if number > 2:
            value += out[number - 2]
        if value > 1 << 60 or value < -(1 << 60):
            return out[:number], number
        out[number] = value
        number += 1
    return out[:number].copy(), -1
