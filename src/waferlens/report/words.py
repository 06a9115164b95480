"""How the page says things: numbers to as many digits as their interval supports, units, names, and harmless text."""

from __future__ import annotations

import math
import unicodedata
from pathlib import PurePath

from waferlens import units

THIN = "\u202f"
"""Narrow space that does not break: between a number and its unit, and between thousands."""
NOTHING = "–"

_NAMES = {
    "ellipticity": "ellipticity",
    "orientation_deg": "orientation",
    "wall_angle_deg": "wall angle",
    "opening_area": "opening area",
}
_LOWERED = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_WAYS = {"x": "along x", "y": "along y", "area": "area-equivalent"}


def plain(text: object) -> str:
    """Text of unknown origin as people may safely see it: control and direction marks are written out.

    A file's name may hold line breaks, or marks that turn the reading direction and make `gpj.exe` read as `exe.jpg`.
    Escaping for HTML is the template's task and not done here.
    """
    return "".join(_shown(letter) for letter in str(text))


def _shown(letter: str) -> str:
    return f"\\u{ord(letter):04x}" if unicodedata.category(letter) in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp") else letter


def name(measurand: str) -> str:
    """What a measurand is called: `cd50_area` is `CD₅₀ area-equivalent`."""
    if measurand.startswith("cd") and "_" in measurand:
        level, _, way = measurand[2:].partition("_")
        return f"CD{level.translate(_LOWERED)} {_WAYS.get(way, way)}"
    return _NAMES.get(measurand, measurand.replace("_", " "))


def short_name(measurand: str) -> str:
    """The same where there is little room: `CD₅₀ area`."""
    return name(measurand).replace("area-equivalent", "area").replace("along ", "")


def unit(symbol: str) -> str:
    """A unit as it is printed: `µm`, `°`, nothing for a plain number; one that no table knows stays as it is."""
    return units.symbol(symbol) if symbol in units.UNITS else plain(symbol)


def count(number: int) -> str:
    """A whole number with its thousands apart."""
    return f"{number:,}".replace(",", THIN)


def number(value: float | None, digits: int = 4) -> str:
    """A number to so many significant digits; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    power = math.floor(math.log10(abs(value)))
    if power >= 6 or power < -4:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        return _minus(f"{mantissa}·10{_raised(int(exponent))}")
    return fixed(value, max(0, digits - 1 - power))


def exact(value: float | None) -> str:
    """A number that somebody chose, as a limit or a pixel size: as it was written, without zeros after it."""
    if value is None or not math.isfinite(value):
        return NOTHING
    whole, _, part = f"{value:.9g}".partition(".")
    if "e" in whole or "e" in part:
        return number(value)
    return _minus(f"{int(whole):,}".replace(",", THIN) if whole not in ("-0", "0") else whole) + (
        f".{part}" if part else ""
    )


def fixed(value: float | None, decimals: int) -> str:
    """A number to so many decimals, thousands apart; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return NOTHING
    rounded = round(value, decimals) + 0.0  # adding 0 turns -0 into 0
    return _minus(f"{rounded:,.{decimals}f}".replace(",", THIN))


def decimals_for(half_width: float | None, fallback: int = 2) -> int:
    """How many decimals an uncertainty of this size supports: it is told to two significant digits."""
    if half_width is None or not math.isfinite(half_width) or half_width <= 0:
        return fallback
    return max(0, 1 - math.floor(math.log10(half_width)))


def told(value: float | None, low: float | None, high: float | None, symbol: str) -> str:
    """A measurement: `123.4 ± 1.2 nm`, or its two ends where they do not lie alike on both sides."""
    space = "" if symbol == "deg" else THIN
    after = f"{space}{unit(symbol)}" if symbol != "1" else ""
    if value is None or not math.isfinite(value):
        return "not measured"
    if low is None or high is None:
        return f"{number(value)}{after}"
    below, above = value - low, high - value
    decimals = decimals_for(max(below, above))
    if abs(below - above) <= 0.02 * (below + above):
        return f"{fixed(value, decimals)} ± {fixed((below + above) / 2, decimals)}{after}"
    return f"{fixed(value, decimals)} ({fixed(low, decimals)} to {fixed(high, decimals)}){after}"


def quantity(value: float | None, symbol: str, digits: int = 4) -> str:
    """A number with its unit."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{number(value, digits)}{'' if symbol in ('1', 'deg') else THIN}{unit(symbol)}"


def percent(share: float | None, digits: int = 3) -> str:
    """A share as per cent."""
    return NOTHING if share is None else f"{number(100 * share, digits)}{THIN}%"


def level(share: float | None) -> str:
    """A share that somebody chose, as per cent: 0.9 is 90 %."""
    return NOTHING if share is None else f"{exact(100 * share)}{THIN}%"


def within(path: str, root: str) -> str:
    """A path as seen from the folder all of them lie in."""
    return path[len(root) :].lstrip("/") if root and path.startswith(root) else path


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 120:
        return f"{number(seconds, 3)}{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes}{THIN}min {rest:02d}{THIN}s"
    return f"{minutes // 60}{THIN}h {minutes % 60:02d}{THIN}min"


def moment(started: str) -> str:
    """A time stamp without its letter T: `2026-02-03 14:05 UTC`."""
    day, _, clock = started.partition("T")
    if not clock:
        return plain(started)
    return f"{plain(day)} {plain(clock[:5])}{' UTC' if started.endswith(('Z', '+00:00', '+0000')) else ''}"


def file_name(path: str) -> str:
    """The last part of a path, harmless."""
    return plain(PurePath(path).name or path)


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _raised(exponent: int) -> str:
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
