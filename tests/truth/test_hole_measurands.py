"""Measurands of holes against formulas: frusta, cones, elliptic super-Gaussians, rotated and shifted."""

import contourpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waferlens.ops.contours import contours_below
from waferlens.ops.hole import (
    MEASURED,
    NO_HOLE,
    SEVERAL_OPENINGS,
    TOUCHES_BORDER,
    UNITS,
    mean_sigma,
    measure_holes,
    rescaled_angle,
)

H, W = 72, 72
CHORD_OF_ELLIPSE = (0.2 * np.sqrt(0.96) + np.arcsin(0.2)) / 0.4
"""Mean of sqrt(1 - t²) for |t| <= 0.2: the band of ±10 % of the extent reaches 0.2 of the half-axis."""


def rho(a: float, b: float, angle_deg: float = 0.0, at: tuple[float, float] = (35.5, 35.5), shape=(H, W)) -> np.ndarray:
    """Elliptic radius, 1 on the ellipse; the angle from +x, counter-clockwise as seen from above."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    x, y = x - at[0], -(y - at[1])  # up
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    return np.hypot((x * c + y * s) / a, (-x * s + y * c) / b)


def frustum(radius: np.ndarray, share: float, depth: float = 120.0, top: float = 150.0) -> np.ndarray:
    """Plateau outside 1, floor inside `share`, a straight wall between."""
    return top - depth * np.clip((1 - radius) / (1 - share), 0, 1)


def only(z: np.ndarray) -> dict[str, float]:
    found = measure_holes(z[np.newaxis].astype(np.float64))
    assert set(found) == {*UNITS, "reason", "top", "bottom"}
    return {name: float(values[0]) for name, values in found.items()}


@pytest.mark.parametrize(("outer", "share"), [(25.0, 0.6), (25.0, 0.8), (18.0, 0.5), (28.0, 0.4)])
def test_round_frustum(outer, share):
    m = only(frustum(rho(outer, outer), share))
    assert m["plateau"] == pytest.approx(150, abs=0.05)
    assert m["floor"] == pytest.approx(30, abs=0.2)
    assert m["depth"] == pytest.approx(120, abs=0.2)
    for percent in (10, 50, 90):
        radius = outer * (1 - percent / 100 * (1 - share))
        assert m[f"cd{percent}_area"] == pytest.approx(2 * radius, abs=0.06)
        assert m[f"cd{percent}_x"] == pytest.approx(2 * radius * CHORD_OF_ELLIPSE, abs=0.11)
        assert m[f"cd{percent}_y"] == pytest.approx(m[f"cd{percent}_x"], abs=1e-9)
    r50 = outer * (1 + share) / 2
    assert m["opening_area"] == pytest.approx(np.pi * r50**2, rel=2e-3)
    assert m["wall_angle_deg"] == pytest.approx(np.rad2deg(np.arctan(120 / (outer * (1 - share)))), abs=0.05)
    inner = outer * share
    assert m["volume"] == pytest.approx(np.pi * 120 / 3 * (outer**2 + outer * inner + inner**2), rel=3e-3)
    assert m["ellipticity"] == pytest.approx(1, abs=2e-3)


def test_cone():
    outer, depth = 30.0, 100.0
    m = only(frustum(rho(outer, outer), 0.0, depth))
    # a cone has no floor: its levels are what the definition makes of the tip
    assert 0.75 * depth < m["depth"] < 0.85 * depth
    for percent in (10, 50, 90):
        level = m["plateau"] - percent / 100 * m["depth"]
        assert m[f"cd{percent}_area"] == pytest.approx(2 * outer * (1 - (150 - level) / depth), abs=0.1)
    assert m["volume"] == pytest.approx(np.pi * outer**2 * depth / 3, rel=5e-3)
    assert m["wall_angle_deg"] == pytest.approx(np.rad2deg(np.arctan(depth / outer)), abs=0.15)


@pytest.mark.parametrize("angle_deg", [0.0, 20.0, 45.0, 90.0, 135.0, 171.0])
@pytest.mark.parametrize("power", [3, 6])
def test_rotated_elliptic_super_gaussian(angle_deg, power):
    a, b, depth = 22.0, 13.0, 110.0
    m = only(150 - depth * np.exp(-(rho(a, b, angle_deg) ** power)))
    for percent in (10, 50, 90):
        s = (150 - m["plateau"] + percent / 100 * m["depth"]) / depth
        radius = (-np.log(s)) ** (1 / power)
        assert m[f"cd{percent}_area"] == pytest.approx(2 * radius * np.sqrt(a * b), rel=4e-3)
    assert m["ellipticity"] == pytest.approx(a / b, rel=5e-3)
    assert abs((m["orientation_deg"] - angle_deg + 90) % 180 - 90) < 0.1
    if angle_deg in (0.0, 90.0):
        x, y = (a, b) if angle_deg == 0 else (b, a)
        s = (150 - m["plateau"] + 0.5 * m["depth"]) / depth
        radius = (-np.log(s)) ** (1 / power)
        assert m["cd50_x"] == pytest.approx(2 * x * radius * CHORD_OF_ELLIPSE, rel=3e-3)
        assert m["cd50_y"] == pytest.approx(2 * y * radius * CHORD_OF_ELLIPSE, rel=3e-3)


LATERAL = [name for name, unit in UNITS.items() if unit == "px"]


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-3, 3), st.floats(-3, 3), st.floats(15, 24), st.floats(15, 24), st.floats(0, 180), st.sampled_from([6, 8])
)
def test_a_shift_by_parts_of_a_pixel_changes_nothing(x, y, a, b, angle_deg, power):
    there = only(150 - 120 * np.exp(-(rho(a, b, angle_deg) ** power)))
    moved = only(150 - 120 * np.exp(-(rho(a, b, angle_deg, (35.5 + x, 35.5 + y)) ** power)))
    for name in LATERAL:
        assert moved[name] == pytest.approx(there[name], abs=0.12), name
    assert moved["depth"] == pytest.approx(there["depth"], abs=0.25)
    assert moved["volume"] == pytest.approx(there["volume"], rel=2e-3)
    assert moved["ellipticity"] == pytest.approx(there["ellipticity"], rel=3e-3)


@given(st.floats(0, 180), st.floats(12, 28), st.floats(10, 16))
def test_a_quarter_turn_swaps_x_and_y(angle_deg, a, b):
    z = 150 - 120 * np.exp(-(rho(a, b, angle_deg) ** 4))
    here, turned = only(z), only(np.rot90(z))
    for percent in (10, 50, 90):
        assert turned[f"cd{percent}_x"] == pytest.approx(here[f"cd{percent}_y"], abs=1e-9)
        assert turned[f"cd{percent}_y"] == pytest.approx(here[f"cd{percent}_x"], abs=1e-9)
        assert turned[f"cd{percent}_area"] == pytest.approx(here[f"cd{percent}_area"], abs=1e-9)
    assert turned["ellipticity"] == pytest.approx(here["ellipticity"], abs=1e-9)
    if here["ellipticity"] > 1.01:
        assert abs((turned["orientation_deg"] - here["orientation_deg"]) % 180 - 90) < 1e-6


def test_heights_scale_and_shift_freely():
    z = 150 - 120 * np.exp(-(rho(20, 14, 30) ** 4))
    here, there = only(z), only(3 * z - 1000)
    for name, unit in UNITS.items():
        if unit in ("px", "1", "px2") or name == "orientation_deg":
            assert there[name] == pytest.approx(here[name], abs=1e-6), name
    assert there["depth"] == pytest.approx(3 * here["depth"])
    assert there["volume"] == pytest.approx(3 * here["volume"])
    assert there["wall_angle_deg"] == pytest.approx(float(rescaled_angle(here["wall_angle_deg"], 3.0, 1.0)))


def test_an_angle_is_rescaled_like_the_wall():
    assert rescaled_angle(np.array([45.0]), 2.0, 1.0) == pytest.approx(np.rad2deg(np.arctan(2)))
    assert rescaled_angle(np.array([90.0]), 2.0, 3.0) == pytest.approx(90)
    assert rescaled_angle(np.array([87.0]), 1.5, 1.5) == pytest.approx(87)


def test_sixteen_grey_of_float32_noise_do_not_matter():
    z = frustum(rho(16, 28, shape=(72, 48), at=(23.5, 35.5)), 0.6)
    rough = measure_holes((z + np.random.default_rng(3).normal(0, 0.4, (200, 72, 48))).astype(np.float32))
    smooth = only(z)
    assert (rough["reason"] == MEASURED).all()
    for name in ("depth", "cd50_area", "cd50_x", "cd50_y"):
        assert rough[name].mean() == pytest.approx(smooth[name], abs=0.1), name
        assert rough[name].std() < 0.1


def test_what_cannot_be_measured_is_nan_with_its_reason():
    random = np.random.default_rng(5)
    noise = random.normal(150, 1, (H, W))
    ramp = np.tile(np.linspace(0, 100, W), (H, 1))
    edge = frustum(rho(20, 20, at=(12.0, 35.5)), 0.6)
    twins = np.minimum(frustum(rho(10, 20, at=(18, 35)), 0.6), frustum(rho(10, 20, at=(53, 35)), 0.6))
    fine = frustum(rho(20, 20), 0.6)
    speck = fine.copy()
    speck[3:5, 3:5] = 40
    found = measure_holes(np.stack([noise, np.full((H, W), 7.0), ramp, noise * np.nan, edge, twins, fine, speck]))
    expected = [NO_HOLE] * 4 + [TOUCHES_BORDER, SEVERAL_OPENINGS, MEASURED, MEASURED]
    assert found["reason"].tolist() == expected
    assert np.isnan(found["depth"][:4]).all()
    assert found["depth"][4:] == pytest.approx(120, abs=0.3)
    for name in ("cd10_x", "cd50_area", "ellipticity", "wall_angle_deg", "opening_area", "volume"):
        assert np.isnan(found[name][:6]).all(), name
        assert found[name][7] == pytest.approx(found[name][6], rel=1e-3), name


def test_less_deep_than_asked_for_is_no_hole():
    z = frustum(rho(20, 20), 0.6, depth=4.0)[np.newaxis]
    assert measure_holes(z)["reason"] == [MEASURED]
    assert measure_holes(z, smallest_depth=5.0)["reason"] == [NO_HOLE]


def test_no_maps_have_no_measurands():
    assert all(len(values) == 0 for values in measure_holes(np.empty((0, 72, 48), np.float32)).values())


def test_sigma_is_averaged_where_it_belongs():
    radius = rho(20, 20)
    z = frustum(radius, 0.6)[np.newaxis]
    s = (150 - z) / 120
    sigma = np.where(s < 0.02, 1.0, np.where(s > 0.98, 3.0, 2.0))
    m = measure_holes(z)
    means = mean_sigma(z, sigma, m["top"], m["bottom"])
    assert {name: float(value[0]) for name, value in means.items()} == pytest.approx(
        {"sigma_plateau": 1.0, "sigma_floor": 3.0, "sigma_wall": 2.0}, abs=0.02
    )


def test_areas_and_pieces_agree_with_contourpy():
    random = np.random.default_rng(11)
    z = np.full((40, 30, 34), 5.0)
    z[:, 1:-1, 1:-1] = random.normal(size=(40, 28, 32))
    for _ in range(2):  # smooth a little: saddles and islands remain
        z[:, 1:-1, 1:-1] = (z[:, :-2, 1:-1] + z[:, 2:, 1:-1] + z[:, 1:-1, :-2] + z[:, 1:-1, 2:] + z[:, 1:-1, 1:-1]) / 5
    z[:, [0, -1]] = z[:, :, [0, -1]] = 5.0
    found = contours_below(z, np.full(40, 0.2))
    for index, surface in enumerate(z):
        lines = contourpy.contour_generator(z=surface, corner_mask=False).lines(0.2)
        # contourpy runs with the higher side on its left: areas below the level come out negative
        areas = [-np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2 for x, y in (line.T for line in lines)]
        assert found.area[index] == pytest.approx(sum(areas), abs=1e-9)
        assert found.pieces[index] == sum(area > 0 for area in areas) - sum(area < 0 for area in areas)
        assert not found.touches[index]


def test_moments_agree_with_a_fine_raster():
    level = np.array([100.0])
    z = frustum(rho(20, 12, 25, (30.3, 36.8)), 0.6)[np.newaxis]
    found = contours_below(z, level)
    fine = (np.arange(72 * 20) + 0.5) / 20 - 0.5
    x, y = np.meshgrid(fine, fine)
    c, s = np.cos(np.deg2rad(25)), np.sin(np.deg2rad(25))
    u, v = x - 30.3, -(y - 36.8)
    inside = np.hypot((u * c + v * s) / 20, (-u * s + v * c) / 12) < 1 - 50 / 120 * 0.4
    assert found.area[0] == pytest.approx(inside.sum() / 400, rel=2e-3)
    assert found.x[0] == pytest.approx(x[inside].mean(), abs=0.01)
    assert found.y[0] == pytest.approx(y[inside].mean(), abs=0.01)
    assert found.xx[0] == pytest.approx(x[inside].var(), rel=4e-3)
    assert found.yy[0] == pytest.approx(y[inside].var(), rel=4e-3)
    assert found.xy[0] == pytest.approx(np.cov(x[inside], y[inside])[0, 1], rel=8e-3)
