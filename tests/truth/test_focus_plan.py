"""Focus plans against arithmetic: depths of focus, slices, clearances, and what is not known."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waferlens.errors import UsageError
from waferlens.inspect.die_table import FOCUS_COLUMNS, write_focus_plan
from waferlens.ops.focus_plan import OBJECTIVES, depth_of_focus_um, focus_plan, slice_positions
from waferlens.records import Die

TWENTY = {"magnification": 20.0, "na": 0.42}
SMALL = {"body_radius_um": 0.0}
"""The objective reaches over its own field only."""


def a_map(side: int = 100, height: float = 300.0) -> tuple[np.ndarray, np.ndarray]:
    return np.full((side, side), height, np.float32), np.full((side, side), 0.5, np.float32)


@pytest.mark.parametrize(("name", "depth"), [("5x", 37.3), ("10x", 9.3), ("20x", 3.9), ("35x", 2.6)])
def test_depths_of_focus_are_those_published(name, depth):
    objective = OBJECTIVES[name]
    assert depth_of_focus_um(objective.magnification, objective.na) == pytest.approx(depth, abs=0.05)


def test_depth_of_focus_has_a_part_of_waves_and_a_part_of_the_camera():
    assert depth_of_focus_um(5, 0.14, camera_pixel_um=1e-9) == pytest.approx(0.55 / 0.14**2)
    assert depth_of_focus_um(5, 0.14) - 0.55 / 0.14**2 == pytest.approx(6.4566 / (5 * 0.14))


def test_a_field_without_a_size_is_that_of_the_camera():
    plan = focus_plan(*a_map(), 10.0, **TWENTY)
    assert plan.field_um == pytest.approx((4342 * 6.4566 / 20,) * 2)


def test_a_flat_map_needs_one_slice_everywhere():
    plan = focus_plan(*a_map(), 10.0, field_um=(300, 250), **TWENTY)
    assert len(plan.fields) == 4 * 4
    for field in plan.fields:
        assert field.state == "single"
        assert field.slices_um == (300.0,)
        assert field.low_um == field.target_um == field.high_um == 300.0
    assert plan.positions == 16


def test_a_step_of_100_um_takes_26_slices_at_20x():
    height, sigma = a_map(height=0.0)
    height[:, 50:] = 100.0
    (field,) = focus_plan(height, sigma, 10.0, field_um=(2000, 2000), **TWENTY).fields
    depth = depth_of_focus_um(20, 0.42)
    assert field.state == "stack"
    assert len(field.slices_um) == math.ceil(100 / depth) == 26
    assert field.slices_um[0] - depth / 2 == pytest.approx(0)
    assert field.slices_um[-1] + depth / 2 == pytest.approx(100)


def test_only_the_field_with_the_step_is_a_stack():
    height, sigma = a_map(height=0.0)
    height[:, 75:] = 100.0
    fields = focus_plan(height, sigma, 10.0, field_um=(500, 1000), **TWENTY).fields
    assert [field.state for field in fields] == ["single", "stack"]


@given(st.floats(-200, 800), st.floats(0, 500), st.floats(0.5, 60), st.floats(0, 0.6))
def test_slices_leave_no_gap_and_are_the_fewest(low, extent, depth, overlap):
    high = low + extent
    slices = slice_positions(low, high, depth, overlap=overlap)
    assert slices[0] - depth / 2 <= low + 1e-6
    assert slices[-1] + depth / 2 >= high - 1e-6
    assert (np.diff(slices) <= depth * (1 - overlap) + 1e-6).all()
    if len(slices) > 2:
        fewer = len(slices) - 1
        assert depth + (fewer - 1) * depth * (1 - overlap) < extent + 1e-6


@given(st.floats(0, 3.8), st.floats(0.05, 0.95))
def test_one_slice_sees_both_ends_and_stands_at_the_median_where_it_can(extent, share):
    height, sigma = a_map(20, 0.0)
    height[:, : round(20 * share)] = np.float32(extent)
    (field,) = focus_plan(height, sigma, 10.0, field_um=(200, 200), share=1.0, **TWENTY, **SMALL).fields
    depth = depth_of_focus_um(20, 0.42)
    (z,) = field.slices_um
    assert z - depth / 2 <= field.low_um + 1e-6
    assert z + depth / 2 >= field.high_um - 1e-6
    if depth / 2 >= extent:
        assert z == pytest.approx(field.target_um)


@settings(deadline=None, max_examples=40)
@given(st.integers(10, 90), st.integers(10, 90), st.floats(60, 1500), st.floats(60, 1500), st.floats(0, 0.5))
def test_fields_cover_the_map_and_stay_in_it(h, w, wide, high, overlap):
    height = np.zeros((h, w), np.float32)
    plan = focus_plan(height, None, 10.0, field_um=(wide, high), field_overlap=overlap, **TWENTY)
    seen = np.zeros((h, w), bool)
    for field in plan.fields:
        x0, y0, x1, y1 = field.box_um
        assert -1e-6 <= x0 < x1 <= w * 10 + 1e-6
        assert -1e-6 <= y0 < y1 <= h * 10 + 1e-6
        assert x1 - x0 == pytest.approx(min(wide, w * 10))
        seen[
            math.floor(y0 / 10 + 1e-6) : math.ceil(y1 / 10 - 1e-6),
            math.floor(x0 / 10 + 1e-6) : math.ceil(x1 / 10 - 1e-6),
        ] = True
    assert seen.all()


def test_the_safe_height_is_above_the_upper_bound_of_the_highest_place():
    height, sigma = a_map()
    height[40, 40], sigma[40, 40] = 500.0, 1.0
    sigma[70, 70] = 200.0  # not the highest, but the least known: its bound is higher still
    (field,) = focus_plan(height, sigma, 10.0, field_um=(1000, 1000), **TWENTY, **SMALL).fields
    assert field.safe_um == pytest.approx(300 + 1.6449 * 200 + 50, abs=0.01)
    (known,) = focus_plan(height, sigma, 10.0, field_um=(1000, 1000), sigmas=0.5, **TWENTY, **SMALL).fields
    assert known.safe_um == pytest.approx(500.5 + 50)


def test_what_lies_under_the_body_counts_and_what_lies_farther_does_not():
    height, sigma = a_map()
    height[:, 99] = 700.0
    plan = focus_plan(height, sigma, 10.0, field_um=(200, 1000), body_radius_um=250.0, sigmas=0.0, **TWENTY)
    assert [field.safe_um for field in plan.fields] == [350, 350, 750, 750, 750]


def test_without_sigma_every_field_says_that_its_height_is_no_bound():
    plan = focus_plan(a_map()[0], None, 10.0, field_um=(500, 500), **TWENTY, **SMALL)
    assert all(any("no sigma" in flag for flag in field.flags) for field in plan.fields)


def test_gaps_are_refused_and_never_guessed():
    height, sigma = a_map()
    height[:, :25] = np.nan
    sigma[10, 60] = np.nan
    plan = focus_plan(height, sigma, 10.0, field_um=(250, 1000), **TWENTY, **SMALL)
    empty, beside, one_pixel, whole = plan.fields
    assert empty.state == "no data"
    assert empty.missing == 1
    assert empty.slices_um == ()
    assert empty.target_um is None
    # touching fields lie under the body even when its radius is 0
    assert [field.safe_um for field in plan.fields] == [None, None, None, None]
    assert beside.state == "single"
    assert one_pixel.missing == pytest.approx(1 / 2500)
    assert any("has no height" in flag for flag in one_pixel.flags)
    assert any(flag.startswith("refused") for flag in whole.flags)


def test_a_field_far_from_gaps_keeps_its_safe_height():
    height, sigma = a_map()
    height[:, :10] = np.nan
    plan = focus_plan(height, sigma, 10.0, field_um=(250, 1000), body_radius_um=100.0, **TWENTY)
    assert [field.safe_um is None for field in plan.fields] == [True, True, False, False]


def test_the_border_of_the_map_is_told():
    inner = focus_plan(*a_map(), 10.0, field_um=(100, 100), body_radius_um=300.0, **TWENTY).fields
    told = [any("beyond the map" in flag for flag in field.flags) for field in inner]
    assert not told[55]
    assert told[0]


def test_a_front_that_would_stand_too_low_is_refused():
    height, sigma = a_map(height=0.0)
    height[:, 50:] = 700.0
    plan = focus_plan(height, sigma, 10.0, field_um=(500, 1000), working_distance_um=600.0, **TWENTY)
    low, high = plan.fields
    assert any(flag.startswith("refused: the front") for flag in low.flags)
    assert not any(flag.startswith("refused") for flag in high.flags)


def test_unsure_heights_are_told_where_focus_may_miss():
    height, sigma = a_map()
    sigma[:, 50:] = 30.0
    sharp, unsure = focus_plan(height, sigma, 10.0, field_um=(500, 1000), **TWENTY).fields
    assert not any("may miss" in flag for flag in sharp.flags)
    assert any("may miss" in flag for flag in unsure.flags)


def test_layers_take_their_own_heights():
    height, sigma = a_map(height=0.0)
    height[20:80, 20:80], height[40:60, 40:60] = 200.0, 500.0
    outer, inner = (200.0, 200.0, 800.0, 800.0), (400.0, 400.0, 600.0, 600.0)
    die = Die(outer, "present", 500.0, ((*outer, 200.0), (*inner, 500.0)))
    targets = {
        layer: focus_plan(height, sigma, 10.0, field_um=(1000, 1000), layer=layer, dies=[die], **TWENTY).fields[0]
        for layer in ("all", "top", "carrier", 0, 1, 2)
    }
    assert [targets[layer].slices_um for layer in ("top", "carrier", 0, 1)] == [(500.0,), (0.0,), (200.0,), (500.0,)]
    assert targets["all"].state == "stack"
    assert targets[2].state == "no layer"


def test_a_part_that_does_not_show_its_top_is_no_top():
    height, sigma = a_map(height=200.0)
    box = (0.0, 0.0, 1000.0, 1000.0)
    part = Die(box, "present", None, ((*box, 200.0),))
    (field,) = focus_plan(height, sigma, 10.0, field_um=(1000, 1000), layer="top", dies=[part], **TWENTY).fields
    assert field.state == "no layer"


def test_what_may_be_a_die_is_not_carrier():
    height, sigma = a_map(height=0.0)
    height[:, :50] = 300.0
    unsure = Die((0.0, 0.0, 500.0, 1000.0), "unsure")
    (field,) = focus_plan(height, sigma, 10.0, field_um=(1000, 1000), layer="carrier", dies=[unsure], **TWENTY).fields
    assert field.slices_um == (0.0,)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"na": 1.0}, "na = 1"),
        ({"magnification": 0.0}, "magnification = 0"),
        ({"wavelength_um": math.nan}, "wavelength_um"),
        ({"layer": "top"}, "needs the dies"),
        ({"layer": "bottom"}, "all, top, carrier"),
        ({"layer": -1}, "counted from 0"),
        ({"coverage": 1.0}, "coverage = 1"),
        ({"share": 0.0}, "share = 0"),
        ({"field_um": (5.0, 5.0)}, "at least one pixel"),
        ({"clearance_um": -1.0}, "clearance_um"),
        ({"slice_overlap": 1.0}, "slice_overlap"),
    ],
)
def test_what_cannot_be_planned_is_refused(change, told):
    with pytest.raises(UsageError, match=told):
        focus_plan(*a_map(), 10.0, **({"field_um": (500, 500)} | TWENTY | change))


def test_shapes_have_to_agree():
    with pytest.raises(UsageError, match="alike"):
        focus_plan(np.zeros((4, 4)), np.zeros((4, 5)), 10.0, **TWENTY)


def test_tables_and_json_hold_the_plan(tmp_path):
    height, sigma = a_map()
    height[:, :50] = np.nan
    plan = focus_plan(height, sigma, 10.0, field_um=(500, 500), **TWENTY)
    write_focus_plan(tmp_path / "plan.csv", tmp_path / "plan.json", plan)
    lines = (tmp_path / "plan.csv").read_text().splitlines()
    assert lines[0].split(",") == list(FOCUS_COLUMNS) == list(plan.rows()[0])
    assert len(lines) == 5
    read = json.loads((tmp_path / "plan.json").read_text())
    assert read["depth_of_focus_um"] == pytest.approx(3.887, abs=0.001)
    assert [field["state"] for field in read["fields"]] == ["no data", "single"] * 2
