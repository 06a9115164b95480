"""Units of everything waferlens measures, and exact conversion between them.

A unit is a dimension and a power of ten, so converting is one multiplication or one division by an exact power of
ten: the result is correctly rounded, and nm to nm is the number itself.
"""

from __future__ import annotations

import difflib
from typing import Any, TypeVar

from waferlens.errors import UsageError

UNITS: dict[str, tuple[str, int]] = {
    # lengths, as powers of ten of a metre
    "nm": ("length", -9),
    "um": ("length", -6),
    "mm": ("length", -3),
    "m": ("length", 0),
    "px": ("pixels", 0),
    # areas, of a square metre
    "nm2": ("area", -18),
    "um2": ("area", -12),
    "mm2": ("area", -6),
    "m2": ("area", 0),
    "px2": ("pixel area", 0),
    # volumes, of a cubic metre
    "nm3": ("volume", -27),
    "um3": ("volume", -18),
    "mm3": ("volume", -9),
    "m3": ("volume", 0),
    # slopes, of metre per metre
    "nm/um": ("slope", -3),
    "um/mm": ("slope", -3),
    "mm/m": ("slope", -3),
    "um/m": ("slope", -6),
    "deg": ("angle", 0),
    "grey": ("grey", 0),
    "grey px2": ("grey volume", 0),
    "1": ("ratio", 0),
    "%": ("ratio", -2),
}
"""Unit -> (dimension, power of ten of the dimension's base unit). Dimensions never mix."""

ALIASES = {
    "micron": "um",
    "microns": "um",
    "nanometer": "nm",
    "nanometre": "nm",
    "degree": "deg",
    "degrees": "deg",
    "°": "deg",
    "gray": "grey",
    "pixel": "px",
    "pixels": "px",
    "": "1",
}
"""Other spellings that mean exactly one unit of the table."""

Number = TypeVar("Number", float, Any)
"""A float or an array of floats; an array keeps its type."""


def canonical(unit: str) -> str:
    """The table's spelling of a unit; both micro signs, superscripts and common long names are understood.

    Raises:
        UsageError: the unit is in no table; names the nearest one.
    """
    plain = unit.strip()
    for written, meant in (("µ", "u"), ("μ", "u"), ("²", "2"), ("³", "3"), ("^", ""), ("·", " ")):
        plain = plain.replace(written, meant)
    plain = ALIASES.get(plain, ALIASES.get(plain.lower(), plain))
    if plain in UNITS:
        return plain
    near = difflib.get_close_matches(plain, UNITS, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(UNITS)}"
    raise UsageError(f"unit '{unit}' is unknown; {hint}")


def dimension(unit: str) -> str:
    """What a unit measures: `length`, `angle`, `grey` …

    Raises:
        UsageError: the unit is in no table.
    """
    return UNITS[canonical(unit)][0]


def convert(value: Number, from_unit: str, to_unit: str) -> Number:
    """A number or an array in another unit of the same dimension.

    Raises:
        UsageError: a unit is unknown, or the two measure different things (px is no length without a pixel size).
    """
    source, target = canonical(from_unit), canonical(to_unit)
    kind, power = UNITS[source]
    wanted_kind, wanted_power = UNITS[target]
    if kind != wanted_kind:
        raise UsageError(f"'{source}' is a unit of {kind} and '{target}' one of {wanted_kind}; they do not convert")
    # 10**n is exact up to n = 22; dividing by it is correctly rounded where multiplying by 10**-n is not.
    steps = power - wanted_power
    if steps == 0:
        return value
    return value * 10.0**steps if steps > 0 else value / 10.0**-steps


def symbol(unit: str) -> str:
    """How a unit is printed for people: µm for `um`, ° for `deg`, nothing for `1`."""
    name = canonical(unit)
    if name == "deg":
        return "°"
    if name == "1":
        return ""
    pretty = name.replace("2", "²").replace("3", "³")
    return "/".join("µ" + part[1:] if part.startswith("um") else part for part in pretty.split("/"))
