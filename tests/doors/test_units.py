from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from waferlens import units
from waferlens.errors import UsageError

same_dimension = st.sampled_from(
    [(a, b) for a in units.UNITS for b in units.UNITS if units.dimension(a) == units.dimension(b)]
)
numbers = st.floats(min_value=-1e9, max_value=1e9, allow_nan=False, allow_subnormal=False)


@pytest.mark.parametrize(
    ("value", "unit", "expected", "wanted"),
    [
        (1.0, "um", 1000.0, "nm"),
        (125.0, "nm", 0.125, "um"),
        (0.1, "nm", 0.1, "nm"),
        (2.5, "mm", 2500.0, "um"),
        (1.0, "m", 1e9, "nm"),
        (3.0, "um2", 3e6, "nm2"),
        (1.0, "um3", 1e9, "nm3"),
        (0.55, "um/mm", 550.0, "um/m"),
        (50.0, "%", 0.5, "1"),
        (30.0, "deg", 30.0, "°"),
    ],
)
def test_known_conversions_are_exact(value: float, unit: str, expected: float, wanted: str) -> None:
    assert units.convert(value, unit, wanted) == expected


@given(pair=same_dimension, value=numbers)
def test_there_and_back_is_the_same_number(pair: tuple[str, str], value: float) -> None:
    there = units.convert(value, *pair)
    back = units.convert(there, *reversed(pair))
    assert math.isclose(back, value, rel_tol=4e-16, abs_tol=1e-300)


@given(unit=st.sampled_from(sorted(units.UNITS)), value=numbers)
def test_a_unit_to_itself_changes_nothing(unit: str, value: float) -> None:
    assert units.convert(value, unit, unit) == value


@pytest.mark.parametrize("spelling", ["um", "µm", "μm", " um ", "micron"])
def test_both_micro_signs_are_understood(spelling: str) -> None:
    assert units.canonical(spelling) == "um"


def test_arrays_keep_their_type() -> None:
    heights = np.array([1.0, 2.0], dtype=np.float32)
    nm = units.convert(heights, "um", "nm")
    assert nm.dtype == np.float32
    assert nm.tolist() == [1000.0, 2000.0]


def test_an_unknown_unit_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="'nmm' is unknown; did you mean 'nm'"):
        units.canonical("nmm")


@pytest.mark.parametrize(("a", "b"), [("px", "nm"), ("nm", "nm2"), ("grey", "nm"), ("deg", "um/mm")])
def test_dimensions_never_mix(a: str, b: str) -> None:
    with pytest.raises(UsageError, match="do not convert"):
        units.convert(1.0, a, b)


@pytest.mark.parametrize(
    ("unit", "printed"), [("um", "µm"), ("um3", "µm³"), ("um/mm", "µm/mm"), ("deg", "°"), ("1", "")]
)
def test_people_read_signs(unit: str, printed: str) -> None:
    assert units.symbol(unit) == printed
