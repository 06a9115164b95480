"""What a test of a simulator says: a row that names the expectation, the finding and how close they had to be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One row of a validation or an audit."""

    name: str
    """What was looked at, with its unit."""
    expected: float | None
    """None where the figure is only reported."""
    got: float
    tolerance: str
    """How `got` was compared with `expected`, in words."""
    passed: bool


def relative(name: str, expected: float, got: float, share: float) -> Check:
    """Within a share of the expectation."""
    return Check(name, expected, float(got), f"±{100 * share:g} %", abs(got - expected) <= share * abs(expected))


def absolute(name: str, expected: float, got: float, distance: float) -> Check:
    """Within a distance of the expectation, in its own unit."""
    return Check(name, expected, float(got), f"±{distance:g}", abs(got - expected) <= distance)


def at_least(name: str, bound: float, got: float) -> Check:
    """No smaller than a bound."""
    return Check(name, bound, float(got), "at least", got >= bound)


def at_most(name: str, bound: float, got: float) -> Check:
    """No larger than a bound."""
    return Check(name, bound, float(got), "at most", got <= bound)


def exact(name: str, expected: float, got: float) -> Check:
    """The same number."""
    return Check(name, float(expected), float(got), "exact", expected == got)


def reported(name: str, got: float) -> Check:
    """A figure that has no bound here and is told all the same."""
    return Check(name, None, float(got), "reported", True)
