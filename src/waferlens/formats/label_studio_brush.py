"""Brush strokes as Label Studio keeps them: the RGBA pixels of the whole image as runs, packed bit by bit.

    32 bits   how many values follow in all: 4 times the pixels
     5 bits   bits of a value, less 1
     4 x 4    bits of the four lengths of a run, less 1 each
    and then, until all values are there:
     1 bit    1: one value, repeated; 0: so many values, each by itself
     2 bits   which of the four lengths comes
     n bits   how many, less 1
     values   one of them, or as many as were told

Bits are read from the highest of a byte down. A pixel belongs to the stroke where its alpha, the fourth of its values,
is above 127; what is written has all four values at 255 there and at 0 elsewhere.

Source: the run lengths of thi.ng/umbrella, rle-pack, by which labelstud.io exports `brushlabels`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from numba import njit

from waferlens.formats.images import MAX_PIXELS

_LENGTHS = (3, 4, 8, 16)
_LONGEST = 2 ** _LENGTHS[-1]
_FAULTS = {
    -1: "it ends before all its values are there",
    -2: "a run is longer than what is left",
}


def mask_of(rle: Sequence[int], width_px: int, height_px: int) -> Bool[np.ndarray, "h w"]:
    """The stroke as a mask.

    Args:
        rle: the bytes as a list of whole numbers, as `value.rle` has them.
        width_px: `original_width` [px]
        height_px: `original_height` [px]

    Raises:
        ValueError: it is no such stroke, is truncated, or is of another size.
    """
    if not all(type(byte) is int and 0 <= byte <= 255 for byte in rle):
        raise ValueError("rle is not a list of whole numbers from 0 to 255")
    data = np.array(rle, np.uint8)
    if data.size < 7:
        raise ValueError("rle ends inside its header")
    if width_px * height_px > MAX_PIXELS:
        raise ValueError(f"a stroke on {width_px}x{height_px} px; up to {MAX_PIXELS} px are read")
    count = int.from_bytes(data[:4].tobytes(), "big")
    if count != 4 * width_px * height_px:
        raise ValueError(f"rle holds {count} values; {width_px}x{height_px} px of four values each were expected")
    bits = int.from_bytes(data[4:7].tobytes(), "big")
    word = (bits >> 19) + 1
    if word != 8:
        raise ValueError(f"rle has values of {word} bits; colours of 8 bits are read")
    lengths = np.array([((bits >> shift) & 15) + 1 for shift in (15, 11, 7, 3)], np.int64)
    values, fault = _unpack(data, count, lengths)
    if fault:
        raise ValueError(f"rle: {_FAULTS[fault]}")
    return np.ascontiguousarray(values.reshape(height_px, width_px, 4)[..., 3] > 127)


def rle_of(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """A mask of the whole image as a stroke: the bytes as a list of whole numbers."""
    flat = np.ascontiguousarray(mask, bool).ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate(([0], edges, [flat.size]))
    runs = 4 * np.diff(starts)
    header = (4 * flat.size).to_bytes(4, "big")
    bits = (8 - 1) << 19 | sum((length - 1) << shift for length, shift in zip(_LENGTHS, (15, 11, 7, 3), strict=True))
    head = np.frombuffer(header + bits.to_bytes(3, "big"), np.uint8)
    values = np.where(flat[starts[:-1]], 255, 0)
    return _pack(head, runs.astype(np.int64), values.astype(np.int64), np.array(_LENGTHS)).tolist()


@njit(nogil=True, cache=True)
def _unpack(data: UInt8[np.ndarray, " m"], count: int, lengths: Int64[np.ndarray, " 4"]):
    out = np.zeros(count, np.uint8)
    end = data.size * 8
    at = 32 + 5 + 16
    done = 0
    while done < count:
        if at + 3 > end:
            return out, -1
        head = _bits(data, at, 3)
        length = lengths[head & 3]
        at += 3
        if at + length > end:
            return out, -1
        run = _bits(data, at, length) + 1
        at += length
        if done + run > count:
            return out, -2
        if head & 4:
            if at + 8 > end:
                return out, -1
            out[done : done + run] = _bits(data, at, 8)
            at += 8
        else:
            if at + 8 * run > end:
                return out, -1
            for index in range(run):
                out[done + index] = _bits(data, at, 8)
                at += 8
        done += run
    return out, 0


@njit(nogil=True, cache=True)
def _bits(data, at, number):
    value = 0
    for place in range(at, at + number):
        value = value << 1 | (data[place >> 3] >> (7 - (place & 7))) & 1
    return value


@njit(nogil=True, cache=True)
def _pack(head, runs, values, lengths):
    parts = 0
    for run in runs:
        parts += run // _LONGEST + 1
    out = np.zeros(head.size + 4 * parts + 1, np.uint8)  # a run takes at most 1 + 2 + 16 + 8 bits
    out[: head.size] = head
    at = 32 + 5 + 16
    for index in range(runs.size):
        left = runs[index]
        while left > 0:
            run = min(left, _LONGEST)
            kind = 0
            while run > 1 << lengths[kind]:
                kind += 1
            at = _put(out, at, 4 | kind, 3)
            at = _put(out, at, run - 1, lengths[kind])
            at = _put(out, at, values[index], 8)
            left -= run
    return out[: (at + 7) >> 3].copy()


@njit(nogil=True, cache=True)
def _put(out, at, value, number):
    for place in range(number):
        if value >> (number - 1 - place) & 1:
            out[(at + place) >> 3] |= 1 << (7 - ((at + place) & 7))
    return at + number
