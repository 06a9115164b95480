"""Loops over the pixels of a band along a border, compiled: sums of its pieces, bins and strips.

numba is imported with this file: import it where it is used, not at start-up.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def bin_sums(number, away, value, count, stretches, low, step, bins):  # type: ignore[no-untyped-def]
    """Number and sum of the values of each stretch in each bin of distance, and the sum of distances of each bin."""
    held, total = np.zeros((stretches, bins)), np.zeros((stretches, bins))
    where = np.zeros(bins)
    for i in range(len(value)):
        cell = int((away[i] - low) / step)
        stretch = number[i] * stretches // count
        held[stretch, cell] += 1.0
        total[stretch, cell] += value[i]
        where[cell] += away[i]
    return held, total, where


@njit(cache=True)
def piece_sums(number, away, value, weight, level, slope, low, step, count):  # type: ignore[no-untyped-def]
    """Normal equations of each piece: brightness, contrast and move."""
    normal, right = np.zeros((count, 3, 3)), np.zeros((count, 3))
    last = len(level) - 2
    for i in range(len(value)):
        at = (away[i] - low) / step
        cell = min(int(at), last)
        share = at - cell
        shape = level[cell] + share * (level[cell + 1] - level[cell])
        drop = -(slope[cell] + share * (slope[cell + 1] - slope[cell]))
        w, n, v = weight[cell], number[i], value[i]
        normal[n, 0, 0] += w
        normal[n, 0, 1] += w * shape
        normal[n, 0, 2] += w * drop
        normal[n, 1, 1] += w * shape * shape
        normal[n, 1, 2] += w * shape * drop
        normal[n, 2, 2] += w * drop * drop
        right[n, 0] += w * v
        right[n, 1] += w * shape * v
        right[n, 2] += w * drop * v
    for n in range(count):
        normal[n, 1, 0], normal[n, 2, 0], normal[n, 2, 1] = normal[n, 0, 1], normal[n, 0, 2], normal[n, 1, 2]
    return normal, right


@njit(cache=True)
def left_squares(number, away, value, solved, level, slope, low, step):  # type: ignore[no-untyped-def]
    """Sum of squares of what the pieces leave in each bin of distance, and how many pixels it has."""
    square, held = np.zeros(len(level)), np.zeros(len(level))
    last = len(level) - 2
    for i in range(len(value)):
        at = (away[i] - low) / step
        cell = min(int(at), last)
        share = at - cell
        shape = level[cell] + share * (level[cell + 1] - level[cell])
        drop = -(slope[cell] + share * (slope[cell + 1] - slope[cell]))
        told = solved[number[i]]
        left = value[i] - told[0] - told[1] * shape - told[2] * drop
        square[cell] += left * left
        held[cell] += 1.0
    return square, held


@njit(cache=True)
def strip_sums(number, away, value, level, slope, low, step, count, first, width, strips):  # type: ignore[no-untyped-def]
    """Of each piece and strip: number of pixels, sum of what differs from the profile, sum of what a move would add."""
    held, left, steep = np.zeros((count, strips)), np.zeros((count, strips)), np.zeros((count, strips))
    last = len(level) - 2
    for i in range(len(value)):
        at = (away[i] - low) / step
        cell = min(int(at), last)
        share = at - cell
        strip = min(int((away[i] - first) / width), strips - 1)
        n = number[i]
        held[n, strip] += 1.0
        left[n, strip] += value[i] - level[cell] - share * (level[cell + 1] - level[cell])
        steep[n, strip] -= slope[cell] + share * (slope[cell + 1] - slope[cell])
    return held, left, steep
