"""Coordinates that come back from a text to the last bit, though the file measures from elsewhere or in other units.

A coordinate of ours in pixels stands in a file of labels as its distance from the image's corner, half a pixel away,
or as a share of the image's side. Such a number worked out in binary is rounded, and worked out back it is rounded
again. A decimal in a text is not bound to 64 bits: what is read is worked out exactly and rounded once; what is
written is the shortest decimal from which reading it gets the same number back.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from decimal import Context, Decimal
from typing import Any

EXACT = Context(prec=1200, traps=[])
"""Sums and products of doubles and of what others write are exact at this many digits"""
HALF = Decimal("0.5")
_LARGEST = Decimal(sys.float_info.max)
_ROUNDINGS = [Context(prec=digits, traps=[]) for digits in (*range(1, 41), 80, 400, 1200)]
_FIRST = 14
"""Digits at which to begin: fewer are seldom enough, and zeros at the end are cut off"""


def exact(value: float) -> Decimal:
    """The shortest decimal that is read as this number.

    Raises:
        ValueError: it is not finite.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} is no coordinate")
    return Decimal(repr(float(value)))


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number that a double can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return False
    if isinstance(value, float):  # NaN cannot be compared with decimals
        return math.isfinite(value)
    return bool(-_LARGEST <= value <= _LARGEST)  # `abs` would round, and raises where an exponent is too large


def plus(one: Decimal, other: Decimal) -> Decimal:
    """Their sum, exactly."""
    return EXACT.add(one, other)


def minus(one: Decimal, other: Decimal) -> Decimal:
    """Their difference, exactly."""
    return EXACT.subtract(one, other)


def times(one: Decimal, other: Decimal) -> Decimal:
    """Their product, exactly."""
    return EXACT.multiply(one, other)


def quotient(one: Decimal, other: Decimal) -> Decimal:
    """Their quotient to 1200 digits."""
    return EXACT.divide(one, other)


def shortest(values: Sequence[Decimal], come_back: Callable[..., bool]) -> list[Decimal]:
    """Numbers with as few digits, 14 at least, as it takes for them to come back.

    Args:
        values: to more digits than are needed.
        come_back: whether reading these decimals gives what is wanted.

    Raises:
        ValueError: no number of digits is enough.
    """
    for rounding in _ROUNDINGS[_FIRST - 1 :]:
        rounded = [rounding.plus(value) for value in values]
        if come_back(*rounded):
            return [Decimal(0) if value == 0 else value.normalize(EXACT) for value in rounded]
    raise ValueError(f"{float(values[0])} cannot be written so that it is read back")


def json_text(value: Any) -> str:
    """A value as JSON on one line; a `Decimal` is written digit by digit, a float as Python writes it.

    Raises:
        ValueError: a number is not finite.
        TypeError: JSON cannot hold the value.
    """
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError(f"JSON has no {value}")
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))}: {json_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(json_text, value)) + "]"
    return json.dumps(value, allow_nan=False)
