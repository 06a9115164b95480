"""What is measured on maps whose truth is known, with every step stated and no number invented."""

import math

import numpy as np
import pytest

from waferlens.errors import InputError, UsageError
from waferlens.measure.surface import LEVELS, measure_surface
from waferlens.records import HeightMap, Measurement

NAMES = [
    *("valid_fraction", "outlier_fraction", "range_raw", "tilt_x", "tilt_y", "range_levelled", "rms_levelled"),
    *("tilt_x_robust", "tilt_y_robust", "rms_robust", "Sa", "Sq", "Sp", "Sv", "Sz", "Ssk", "Sku"),
]


def height_map(heights: np.ndarray, unit: str = "um", pitch: float = 2.0, pitch_unit: str = "um") -> HeightMap:
    return HeightMap(heights, np.isfinite(heights), unit, pitch, pitch, pitch_unit, origin={"file": "made.gwy"})


def wavy(n: int = 200, amplitude: float = 0.5) -> np.ndarray:
    """A sine of 10 whole periods along x, tilted: 3 um/mm to the right, -1 um/mm up the picture, at 2 um a pixel."""
    y, x = np.mgrid[:n, :n].astype(float)
    return amplitude * np.sin(2 * math.pi * 10 * (x + 0.5) / n) + 0.006 * x + 0.002 * y + 70


def by_name(rows: list[Measurement]) -> dict[str, Measurement]:
    return {row.name: row for row in rows}


@pytest.mark.parametrize("level", LEVELS)
def test_names_and_order_never_change(level):
    assert [row.name for row in measure_surface(height_map(wavy()), level=level)] == NAMES


def test_a_tilted_sine():
    heights = wavy()
    heights[:20] = math.nan
    found = by_name(measure_surface(height_map(heights)))
    assert found["valid_fraction"].value == 0.9
    assert found["tilt_x"].value == pytest.approx(3.0, abs=0.3)  # ten periods of a sine have a slope of their own
    assert found["tilt_y"].value == pytest.approx(-1.0, abs=1e-9)
    assert (found["tilt_x"].unit, found["Sq"].unit, found["Ssk"].unit) == ("um/mm", "um", "1")
    assert found["Sq"].value == pytest.approx(0.5 / math.sqrt(2), rel=0.01)
    assert found["rms_levelled"].value == pytest.approx(found["Sq"].value)
    assert found["Sz"].value == pytest.approx(found["Sp"].value + found["Sv"].value)
    assert found["Sq"].method == "ISO 25178-2; levelled by the least-squares plane; no S-filter; no L-filter"
    assert all(row.low is None and row.high is None for row in found.values())


@pytest.mark.parametrize(("unit", "reported", "factor"), [("nm", "nm", 1), ("um", "um", 1), ("m", "um", 1e6)])
def test_heights_are_reported_in_nm_or_um(unit, reported, factor):
    found = by_name(measure_surface(height_map(wavy(), unit)))
    assert found["Sq"].unit == reported
    assert found["Sq"].value == pytest.approx(factor * by_name(measure_surface(height_map(wavy())))["Sq"].value)
    assert found["tilt_x"].unit == "um/mm"


def test_tilt_minds_both_pitches():
    heights = wavy()
    narrow = HeightMap(heights, np.isfinite(heights), "um", 1e-6, 4e-6, "m")
    found, square = by_name(measure_surface(narrow)), by_name(measure_surface(height_map(heights)))
    assert found["tilt_x"].value == pytest.approx(2 * square["tilt_x"].value)
    assert found["tilt_y"].value == pytest.approx(square["tilt_y"].value / 2)


def test_filters_and_form_are_applied_and_stated():
    y, x = np.mgrid[:300, :300].astype(float)
    bow = 1e-4 * ((x - 150) ** 2 + (y - 150) ** 2)
    coarse, fine = np.sin(2 * math.pi * x / 60), np.sin(2 * math.pi * x / 5)
    surface = height_map(bow + coarse + fine, pitch=1.0)
    found = by_name(measure_surface(surface, form="polynomial-2", s_filter=20, l_filter=200))
    assert found["Sq"].value == pytest.approx(math.sqrt(0.5), rel=0.15)
    assert found["Sq"].method == (
        "ISO 25178-2; S-filter: areal Gaussian (ISO 16610-61), cutoff 20 um; levelled by the least-squares plane; "
        "second-order polynomial taken off; L-filter: areal Gaussian (ISO 16610-61), cutoff 200 um"
    )
    only_form = by_name(measure_surface(height_map(bow, pitch=1.0), form="polynomial-2"))
    assert only_form["Sz"].value == pytest.approx(0.0, abs=1e-11)
    assert only_form["rms_levelled"].value > 0.5


def test_spikes_are_left_out_only_when_asked_for():
    rng = np.random.default_rng(0)
    heights = 0.01 * rng.normal(size=(120, 120))
    heights[rng.random(heights.shape) < 0.01] += 80
    plain = by_name(measure_surface(height_map(heights)))
    asked = by_name(measure_surface(height_map(heights), outliers=True))
    assert plain["Sq"].value > 5
    assert asked["Sq"].value == pytest.approx(0.01, rel=0.05)
    assert asked["outlier_fraction"].value == plain["outlier_fraction"].value == pytest.approx(0.01, abs=0.003)
    assert "without points beyond 5 robust sigma" in asked["Sq"].method
    assert plain["rms_robust"].value == pytest.approx(0.01, rel=0.05)
    assert asked["range_raw"].value == plain["range_raw"].value > 79


def test_three_points_are_stated_and_obeyed():
    surface = height_map(wavy(amplitude=0.0))
    found = by_name(measure_surface(surface, level="three-points", points=[(10, 10), (180, 20), (90, 190)]))
    assert found["tilt_x"].value == pytest.approx(3.0, abs=1e-9)
    assert "through (10, 10), (180, 20), (90, 190) px" in found["Sq"].method
    chosen = by_name(measure_surface(surface, level="three-points"))
    assert chosen["tilt_y"].value == pytest.approx(-1.0, abs=1e-9)


def test_without_levelling_there_is_no_tilt():
    found = by_name(measure_surface(height_map(wavy()), level="none"))
    for name in ("tilt_x", "tilt_y", "range_levelled", "rms_levelled"):
        assert found[name].value is None
        assert found[name].method == "not measured: not levelled"
    assert found["Sz"].value == pytest.approx(found["range_raw"].value)


@pytest.mark.parametrize("level", LEVELS)
def test_missing_data_never_becomes_a_number(level):
    empty = np.full((20, 20), math.nan)
    found = by_name(measure_surface(height_map(empty), level=level))
    assert found.pop("valid_fraction").value == 0.0
    assert all(row.value is None and row.method.startswith("not measured: ") for row in found.values())
    line = empty.copy()
    line[4] = 1.0
    found = by_name(measure_surface(height_map(line), level=level))
    assert found["range_raw"].value == 0.0
    if level != "none":
        assert found["Sq"].value is None
        assert found["Sq"].method == "not measured: the valid points determine no plane"


def test_a_map_without_units_stays_without_units():
    found = by_name(measure_surface(height_map(wavy(), "grey", 1.0, "px")))
    assert found["Sq"].unit == "grey"
    assert found["tilt_x"].unit == "grey/px"
    with pytest.raises(InputError, match=r"made\.gwy: the S-filter needs a pitch"):
        measure_surface(height_map(wavy(), "grey", 1.0, "px"), s_filter=10)


def test_options_that_cannot_be_are_refused():
    surface = height_map(wavy())
    with pytest.raises(UsageError, match="level 'best' is unknown"):
        measure_surface(surface, level="best")
    with pytest.raises(UsageError, match="form 'bow' is unknown"):
        measure_surface(surface, form="bow")
    with pytest.raises(UsageError, match="trim between 0 and 50 %"):
        measure_surface(surface, trim_percent=50)
    with pytest.raises(UsageError, match="points are for levelling by three points"):
        measure_surface(surface, points=[(0, 0), (1, 1), (2, 0)])
    with pytest.raises(UsageError, match="must be a positive number"):
        measure_surface(surface, s_filter=-1)
    with pytest.raises(InputError, match="cutoff of 500 um is longer than the map"):
        measure_surface(surface, l_filter=500)
    with pytest.raises(InputError, match=r"S-filter: a cutoff of 7 needs a pitch of at most 1\.75, got 2"):
        measure_surface(surface, s_filter=7)


def test_a_large_map_takes_the_fast_way_to_the_same_plane():
    rng = np.random.default_rng(1)
    heights = rng.normal(size=(1024, 1025)) + wavy(1025)[:1024]
    fast = by_name(measure_surface(height_map(heights)))
    part = by_name(measure_surface(height_map(heights[:1000, :1000])))
    assert heights.size > 2**20 > heights[:1000, :1000].size
    assert fast["rms_levelled"].value == pytest.approx(part["rms_levelled"].value, rel=0.01)
    assert fast["tilt_y"].value == pytest.approx(-1.0, abs=0.02)
