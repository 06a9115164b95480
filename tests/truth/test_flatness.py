"""Flatness on surfaces whose numbers are known from their formula, and on maps with holes beside a slow twin."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waferlens.errors import UsageError
from waferlens.ops.flatness import flatness
from waferlens.ops.quality_area import Wafer, find_wafer, quality_area, sites
from waferlens.ops.step_height import step_heights
from waferlens.records import Die

PITCH_UM = 250.0


def axes(h: int, w: int, pitch_um: float = PITCH_UM) -> tuple[np.ndarray, np.ndarray]:
    """x to the right and y down the rows from the middle of the map [mm]"""
    y, x = np.mgrid[:h, :w].astype(float)
    return 1e-3 * pitch_um * (x - (w - 1) / 2), 1e-3 * pitch_um * (y - (h - 1) / 2)


def twin(z: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What is left of the known pixels over their least-squares plane, by a general solver."""
    known = np.isfinite(z)
    design = np.stack((np.ones(known.sum()), x[known], y[known]), axis=1)
    return z[known] - design @ np.linalg.lstsq(design, z[known], rcond=None)[0]


def close(value: float | None, truth: float, scale: float) -> bool:
    """Equal to 1e-6 of the range of the surface, the bar of analytic surfaces."""
    assert value is not None
    return abs(value - truth) <= 1e-6 * scale


# Analytic surfaces: a square map of half width 20 mm, pixels of 0.25 mm.

N = 160
X, Y = axes(N, N)
LAST = X[0, -1]  # the centre of the last pixel
REACH = 20.0 - 4 * 0.25  # where the three points lie: a patch inside the map


def test_a_tilt_leaves_nothing() -> None:
    z = 700 + 3.0 * X - 2.0 * Y
    found = flatness(z, PITCH_UM, site_mm=(10, 10))
    span = np.ptp(z)
    for plane in (found.least_squares, found.three_points):
        assert close(plane.range_um, 0, span)
        assert close(plane.deviation_um, 0, span)
        assert close(plane.rms_um, 0, span)
        assert plane.tilt_x_um_per_mm == pytest.approx(3.0, rel=1e-9)
        assert plane.tilt_y_um_per_mm == pytest.approx(2.0, rel=1e-9)  # up the picture
    assert close(found.centre_deviation_um, 0, span)
    assert len(found.sites) == 16
    assert all(close(site.range_um, 0, span) and not site.partial for site in found.sites)
    assert found.range_raw_um == pytest.approx(span)


@pytest.mark.parametrize("bend", [0.05, -0.05])
def test_a_bow(bend: float) -> None:
    z = 100 + bend * (X**2 + Y**2)
    found = flatness(z, PITCH_UM, site_mm=(10, 10))
    far, near = 2 * LAST**2, 2 * 0.125**2
    span = abs(bend) * (far - near)
    mean = 2 * 0.25**2 * (N**2 - 1) / 12  # of x² + y² over the grid
    assert close(found.least_squares.range_um, span, span)
    assert close(found.least_squares.deviation_um, abs(bend) * (far - mean), span)
    assert close(found.three_points.range_um, span, span)
    # the plane through the points lies where they do; the middle is below it where the surface is a bowl
    assert close(found.centre_deviation_um, -bend * REACH**2, span)
    assert close(found.three_points.deviation_um, abs(bend) * (max(REACH**2 - near, far - REACH**2)), span)
    # of each site the same: 40 pixels a side
    site = abs(bend) * 2 * ((39 * 0.125) ** 2 - 0.125**2)
    assert all(close(one.range_um, site, span) for one in found.sites)


def test_a_saddle() -> None:
    bend = 0.03
    z = bend * (X**2 - Y**2)
    found = flatness(z, PITCH_UM)
    side = bend * (LAST**2 - 0.125**2)
    assert close(found.least_squares.range_um, 2 * side, 2 * side)
    assert close(found.least_squares.deviation_um, side, 2 * side)
    # through -R² at the top and R² / 2 at the other two: level in the middle, rising downwards with slope R
    left = z - bend * REACH * Y
    assert close(found.three_points.range_um, float(np.ptp(left)), 2 * side)
    assert found.three_points.tilt_y_um_per_mm == pytest.approx(-bend * REACH, rel=1e-9)
    assert close(found.centre_deviation_um, 0, 2 * side)


def test_a_step() -> None:
    height = 12.0
    z = 400 + height * (X > 0)
    found = flatness(z, PITCH_UM, site_mm=(20, 40))
    slope = 1.5 * height * N / (N**2 - 1)  # per pixel: sum x z / sum x² in closed form
    assert close(found.least_squares.range_um, height - slope, height)
    assert close(found.least_squares.deviation_um, (height - slope) / 2, height)
    assert [close(site.range_um, 0, height) for site in found.sites] == [True, True]


def test_a_bowed_wafer_has_its_textbook_bow_and_warp() -> None:
    # 300 mm, 60 um deep: bow is the sag to the circle of the three points, warp to the last pixel
    n, pitch = 301, 1000.0
    x, y = axes(n, n, pitch)
    r2 = x**2 + y**2
    z = np.where(r2 <= 150.0**2, 60 * (1 - r2 / 150.0**2) + 0.4 * x, np.nan)
    found = flatness(z, pitch, wafer=Wafer(300, 150.5, 150.5), edge_exclusion_mm=3, chuck="free")
    names = {name.name: value for name, value, _ in found.names()}
    # the disc of 147 mm takes the pixels whose centre lies within, not on its border
    far = r2[r2 < 147.0**2 - 1e-6].max()
    assert close(names["BOW"], 60 * 143.0**2 / 150.0**2, 60)
    assert close(names["WARP"], 60 * far / 150.0**2, 60)
    assert names["SORI"] == names["WARP"]
    assert found.least_squares.tilt_x_um_per_mm == pytest.approx(0.4)
    assert found.known_share == 1.0


def test_heights_of_float32_far_from_zero_keep_their_digits() -> None:
    z = (0.05 * (X**2 + Y**2)).astype(np.float32) + np.float32(4096)
    exact = flatness(z.astype(np.float64), PITCH_UM, site_mm=(10, 10))
    found = flatness(z, PITCH_UM, site_mm=(10, 10))
    assert found.numbers() == exact.numbers()


# Holes, areas, sites.


def rough(seed: int, h: int, w: int, holes: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    z = 50 + np.cumsum(rng.normal(size=(h, w)), axis=1) + 0.2 * np.arange(h)[:, None]
    z[rng.random((h, w)) < holes] = np.nan
    return z


def test_holes_and_pitches_beside_the_slow_twin() -> None:
    h, w, pitch = 37, 53, (40.0, 25.0)
    z = rough(0, h, w, 0.15)
    x, y = np.meshgrid(0.04 * (np.arange(w) + 0.5), 0.025 * (np.arange(h) + 0.5))
    found = flatness(z, pitch, site_mm=(0.4137, 0.2171), partial_sites=True, edge_exclusion_mm=0.06, least_known=0.5)
    inside = (x > 0.06) & (x < w * 0.04 - 0.06) & (y > 0.06) & (y < h * 0.025 - 0.06)
    left = twin(np.where(inside, z, np.nan), x, y)
    assert found.least_squares.range_um == pytest.approx(np.ptp(left), rel=1e-10)
    assert found.least_squares.rms_um == pytest.approx(left.std(), rel=1e-10)
    assert found.known_share == pytest.approx(np.isfinite(z[inside]).mean(), abs=1e-12)
    assert any(site.partial for site in found.sites)
    measured = 0
    for site in found.sites:
        x0, y0, x1, y1 = (1e-3 * edge for edge in site.box_um)
        own = inside & (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
        assert site.known_share == pytest.approx(np.isfinite(z[own]).mean())
        assert site.range_raw_um is None or site.range_raw_um == pytest.approx(np.ptp(z[own][np.isfinite(z[own])]))
        if site.range_um is not None:
            measured += 1
            assert site.range_um == pytest.approx(np.ptp(twin(np.where(own, z, np.nan), x, y)), rel=1e-9)
    assert measured > 10
    assert found.numbers()["site_range"][0] == max(site.range_um or 0 for site in found.sites)


def test_a_mask_is_as_good_as_nan() -> None:
    z = rough(1, 40, 40, 0.1)
    mask = np.random.default_rng(2).random(z.shape) < 0.95
    masked = flatness(z, 100.0, mask, site_mm=(1, 1))
    holes = flatness(np.where(mask, z, np.nan), 100.0, site_mm=(1, 1))
    assert of_levelled(masked) == pytest.approx(of_levelled(holes), rel=1e-9)
    assert [site.known_share for site in masked.sites] == [site.known_share for site in holes.sites]
    assert masked.known_share == pytest.approx((np.isfinite(z) & mask).mean())


def test_infinity_is_not_known() -> None:
    z = rough(3, 20, 20, 0.0)
    holes = z.copy()
    z[3, 4], z[10, 10], z[5, 5] = math.inf, -math.inf, np.nan
    holes[3, 4] = holes[10, 10] = holes[5, 5] = np.nan
    assert flatness(z, 10.0) == flatness(holes, 10.0)


def test_missing_data_never_becomes_a_number() -> None:
    z = np.zeros((100, 100))
    z[:, :50] = np.nan
    found = flatness(z, 100.0, site_mm=(2, 2), chuck="vacuum")
    assert found.known_share == 0.5
    assert found.least_squares.range_um is None
    assert found.least_squares.reason == "50 % of the area known; 80 % are needed"
    assert all(value is None for name, (value, _) in found.numbers().items() if not name.startswith("site"))
    bare = [site for site in found.sites if site.column < 2]
    assert {site.range_um for site in bare} == {None}
    assert bare[0].reason == "0 % of it known; 80 % are needed"
    assert found.sites[-1].range_um == 0.0
    allowed = flatness(z, 100.0, least_known=0.4)
    assert allowed.least_squares.range_um == 0.0


def test_a_map_without_any_height_says_so() -> None:
    found = flatness(np.full((30, 30), np.nan), 100.0, site_mm=(1, 1), chuck="free")
    assert found.known_share == 0
    assert all(value is None and why for value, why in found.numbers().values())
    assert all(value is None and why for _, value, why in found.names())
    assert found.as_json()["numbers_um"]["range_raw"] is None


def test_a_point_that_is_not_known_is_not_made_up() -> None:
    z = np.zeros((60, 60))
    z[:9, 25:35] = np.nan  # about the first of the three points
    found = flatness(z, 100.0)
    assert found.three_points.range_um is None
    assert "pixels at the point (3000, 400) um are known" in found.three_points.reason
    assert found.points_um[0][2] is None
    assert found.points_um[1][2] == pytest.approx(0.0, abs=1e-12)
    assert found.least_squares.range_um == 0.0
    assert found.numbers()["centre_deviation"][1] == found.three_points.reason


def test_points_can_be_stated() -> None:
    z = 0.5 * X + 0.05 * (X**2 + Y**2)
    middle = 20_000.0
    places = [(middle + dx, middle + dy) for dx, dy in ((-15_000, 0), (12_000, 9_000), (12_000, -9_000))]
    found = flatness(z, PITCH_UM, points_um=places)
    assert close(found.centre_deviation_um, -0.05 * 15.0**2, float(np.ptp(z)))
    line = [(10_000.0, 10_000.0), (20_000.0, 20_000.0), (30_000.0, 30_000.0)]
    assert flatness(z, PITCH_UM, points_um=line).three_points.reason == "the three points lie on one line"
    outside = [(10_000.0, 10_000.0), (20_000.0, 20_000.0), (90_000.0, 30_000.0)]
    assert "outside the map" in flatness(z, PITCH_UM, points_um=outside).three_points.reason


def test_edge_exclusion_leaves_out_what_lies_at_the_edge() -> None:
    z = np.zeros((50, 50))
    z[0], z[:, -1] = 100.0, -100.0
    assert flatness(z, 1000.0).range_raw_um == 200.0
    assert flatness(z, 1000.0, edge_exclusion_mm=1.0).range_raw_um == 0.0
    # the centre of a pixel decides: 0.4 mm leave the first row in
    assert flatness(z, 1000.0, edge_exclusion_mm=0.4).range_raw_um == 200.0
    # a pixel whose centre lies on the border is out, on both sides
    assert flatness(z, 1000.0, edge_exclusion_mm=0.5).range_raw_um == 0.0


def test_a_disc_takes_the_pixels_within_it() -> None:
    h = w = 61
    area = quality_area((h, w), (1.0, 1.0), Wafer(60.0, 30.5, 30.5), 2.0)
    y, x = np.mgrid[:h, :w]
    within = np.hypot(x - 30, y - 30) < 28.0
    low, high = area.columns(np.arange(h))
    assert np.array_equal(within.sum(axis=1), high - low)
    assert sum(cell.inside_px for cell in sites(area, (7.0, 9.0))) == within.sum()


def test_partial_sites_are_told_apart() -> None:
    n = 300
    x, y = axes(n, n, 1000.0)
    z = np.where(np.hypot(x, y) <= 150, 1e-3 * (x**2 - y**2), np.nan)
    asked = {"site_mm": (25.0, 25.0), "edge_exclusion_mm": 3.0, "wafer": Wafer(300, 150, 150)}
    left_out = flatness(z, 1000.0, **asked)
    partial = [site for site in left_out.sites if site.partial]
    whole = [site for site in left_out.sites if not site.partial]
    # 11 fit side by side, so that one lies in the middle; those whose corners are within 147 mm are whole
    assert len(whole) == sum(
        math.hypot(25 * (abs(i) + 0.5), 25 * (abs(k) + 0.5)) <= 147 for i in range(-6, 7) for k in range(-6, 7)
    )
    assert all(site.inside_share == 1 and site.range_um is not None for site in whole)
    assert all(0 < site.inside_share < 1 and site.range_um is None for site in partial)
    assert partial[0].reason.startswith("partial: ")
    included = flatness(z, 1000.0, partial_sites=True, **asked)
    assert [site.box_um for site in included.sites] == [site.box_um for site in left_out.sites]
    assert all(site.known_share == 1 for site in included.sites)
    told = [site for site in included.sites if site.partial and site.range_um is not None]
    assert len(told) > 0.8 * len(partial)
    assert all(site.reason for site in included.sites if site.range_um is None)
    assert [site for site in included.sites if not site.partial] == whole


def test_what_of_a_wafer_lies_beyond_the_map_is_missing() -> None:
    z = np.zeros((100, 100))
    found = flatness(z, 1000.0, wafer=Wafer(100.0, 50.0, 0.0))
    assert found.known_share == pytest.approx(0.5, abs=0.01)
    assert found.least_squares.range_um is None


def test_an_offset_moves_the_sites() -> None:
    z = np.zeros((100, 100))
    at = flatness(z, 1000.0, site_mm=(20, 20)).sites
    moved = flatness(z, 1000.0, site_mm=(20, 20), site_offset_mm=(5, 0)).sites
    assert at[0].box_um == (0, 0, 20_000, 20_000)
    assert len(at) == 25
    assert moved[0].box_um == (-15_000, 0, 5_000, 20_000)
    assert sum(site.partial for site in moved) == 10


@pytest.mark.parametrize("holes", [0.0, 0.1])
def test_a_wafer_is_found_by_its_disc(holes: float) -> None:
    n = 240
    x, y = axes(n, n, 1000.0)
    rng = np.random.default_rng(0)
    z = np.where(np.hypot(x - 7, y + 4) <= 100, rng.normal(size=(n, n)), np.nan)
    z[120:125, 24:32] = np.nan  # a notch
    z[100:110, 60:80] = np.nan if holes else 0.0
    found = find_wafer(z, 1000.0)
    assert found is not None
    assert found.diameter_mm == pytest.approx(200, abs=1.01)
    assert (found.x_mm, found.y_mm) == pytest.approx((127, 116), abs=1.01)


def test_what_is_no_disc_is_no_wafer() -> None:
    z = np.full((100, 100), np.nan)
    assert find_wafer(z, 1000.0) is None
    z[10:90, 10:90] = 1.0
    assert find_wafer(z, 1000.0) is None
    z[:] = 1.0
    assert find_wafer(z, 1000.0) is None
    x, y = axes(100, 100, 1000.0)
    assert find_wafer(np.where(np.hypot(x, 2 * y) < 49, 1.0, np.nan), 1000.0) is None
    assert find_wafer(np.where(np.abs(np.hypot(x, y) - 40) < 9, 1.0, np.nan), 1000.0) is None  # a ring


# Names and conditions.


def test_names_are_given_where_their_conditions_are_declared() -> None:
    z = 0.05 * (X**2 + Y**2)

    def named(**conditions: object) -> dict[str, float | None]:
        found = flatness(z, PITCH_UM, site_mm=(10, 10), **conditions)  # type: ignore[arg-type]
        return {name.name: value for name, value, _ in found.names()}

    assert named() == {}
    assert set(named(chuck="free")) == {"BOW", "WARP", "SORI"}
    held = {"GFLR", "GFLD", "GF3R", "GF3D", "SFQR", "SFQD", "SFLR"}
    assert set(named(chuck="vacuum")) == held
    thick = named(thickness_map=True)
    assert set(thick) == held | {"TTV", "GBIR", "SBIR"}
    assert thick["TTV"] == thick["GBIR"] == pytest.approx(np.ptp(z))
    quarter = z[:40, :40]
    assert thick["SBIR"] == pytest.approx(np.ptp(quarter))
    assert "declare --chuck" in flatness(z, PITCH_UM).conditions
    with pytest.raises(UsageError, match="nothing of the shape of a free wafer"):
        named(chuck="free", thickness_map=True)
    with pytest.raises(UsageError, match="one of free, vacuum"):
        named(chuck="glue")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"site_mm": (41, 10)}, "larger than the area of 40 x 40 mm"),
        ({"site_mm": (10, 39), "edge_exclusion_mm": 1.0}, "larger than the area of 38 x 38 mm"),
        ({"site_mm": (-1, 10)}, "both sides must be positive"),
        ({"site_mm": (0.5, 10)}, "fewer than 3 px"),
        ({"edge_exclusion_mm": 20.0}, "leaves nothing of a map of 40 x 40 mm"),
        ({"edge_exclusion_mm": -1.0}, "must be 0 or positive"),
        ({"edge_exclusion_mm": math.nan}, "must be 0 or positive"),
        ({"edge_exclusion_mm": 10.0, "wafer": Wafer(20, 20, 20)}, "leaves nothing of a wafer of 20 mm"),
        ({"wafer": Wafer(0, 20, 20)}, "diameter"),
        ({"wafer": Wafer(30, 90, 20)}, "lies beside the map"),
        ({"least_known": 0.0}, "more than 0"),
        ({"points_um": [(0.0, 0.0)]}, "needs three, got 1"),
        ({"valid": np.ones((2, 2), bool)}, "one grid"),
    ],
)
def test_what_cannot_be_is_refused(how: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        flatness(np.zeros((N, N)), PITCH_UM, **how)


def test_a_slip_of_the_unit_is_refused() -> None:
    with pytest.raises(UsageError, match="more than 40000 are refused"):
        flatness(np.zeros((1000, 1000)), 100.0, site_mm=(0.3, 0.3))
    with pytest.raises(UsageError, match="must be positive"):
        flatness(np.zeros((4, 4)), 0.0)
    with pytest.raises(UsageError, match="rows and columns"):
        flatness(np.zeros(4), 1.0)


def test_little_memory_is_taken() -> None:
    z = np.zeros((685, 8000), np.float32)
    tracemalloc.start()
    try:
        flatness(z, 8.197, site_mm=(5, 5), edge_exclusion_mm=0.1)
        assert tracemalloc.get_traced_memory()[1] < 0.2 * z.nbytes
    finally:
        tracemalloc.stop()


# Properties.

some_map = st.builds(
    rough, st.integers(0, 10_000), st.integers(12, 40).map(lambda n: 2 * n), st.integers(12, 40).map(lambda n: 2 * n),
    st.sampled_from([0.0, 0.05]),
)  # fmt: skip


def of_levelled(found) -> list[float]:
    """Every number that a plane has been taken off, not known as -1."""
    told = [value for name, (value, _) in found.numbers().items() if name not in ("range_raw", "site_range_raw")]
    told += [value for site in found.sites for value in (site.range_um, site.deviation_um, site.range_global_um)]
    return [-1.0 if value is None else value for value in told]


@settings(max_examples=30, deadline=None)
@given(some_map, st.floats(-50, 50), st.floats(-50, 50), st.floats(-1e4, 1e4))
def test_adding_a_plane_changes_nothing_that_is_levelled(z, slope_x, slope_y, offset) -> None:
    x, y = axes(*z.shape, 100.0)
    asked = {"site_mm": (0.7, 0.9), "partial_sites": True, "edge_exclusion_mm": 0.1}
    before = flatness(z, 100.0, **asked)
    after = flatness(z + slope_x * x + slope_y * y + offset, 100.0, **asked)
    assert of_levelled(after) == pytest.approx(of_levelled(before), rel=1e-9, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(some_map, st.sampled_from([(0,), (1,), (0, 1)]))
def test_flipping_mirrors_the_site_map(z, flipped) -> None:
    # of these sizes no line between sites meets the centre of a pixel, which would belong to the site after it
    asked = {"site_mm": (0.7317, 0.9173), "partial_sites": True, "edge_exclusion_mm": 0.13}
    before, after = flatness(z, 100.0, **asked), flatness(np.flip(z, flipped), 100.0, **asked)
    rows, columns = 1 + max(site.row for site in before.sites), 1 + max(site.column for site in before.sites)
    mirrored = {
        (
            rows - 1 - site.row if 0 in flipped else site.row,
            columns - 1 - site.column if 1 in flipped else site.column,
        ): site
        for site in after.sites
    }
    assert len(mirrored) == len(before.sites)
    for site in before.sites:
        other = mirrored[site.row, site.column]
        assert other.partial == site.partial
        assert other.known_share == pytest.approx(site.known_share)
        assert (other.range_um is None) == (site.range_um is None)
        if site.range_um is not None:
            assert other.range_um == pytest.approx(site.range_um, rel=1e-9)
            sign = -1 if 1 in flipped else 1
            assert other.tilt_x_um_per_mm == pytest.approx(sign * site.tilt_x_um_per_mm, rel=1e-6, abs=1e-9)


# Steps between dies and street.

STEP_PITCH = 8.2


def field(boxes, steps, tilt=(2.0, -1.0), bow=0.005, n=300):
    x, y = np.meshgrid(*(STEP_PITCH * (np.arange(n) + 0.5),) * 2)
    z = 100 + 1e-3 * (tilt[0] * x + tilt[1] * y) + bow * 1e-6 * (x**2 + y**2)
    dies = []
    for box, step in zip(boxes, steps, strict=True):
        z = z + step * ((x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3]))
        dies.append(Die(box, "present", step, ((*box, step),)))
    return z, dies


WHOLE = [(300.0, 400.0, 1100.5, 1400.2), (1220.0, 400.0, 2100.0, 1400.2)]


def test_steps_are_those_that_were_drawn() -> None:
    z, dies = field(WHOLE, [310.0, 75.0], bow=0.0)
    found = step_heights(z, STEP_PITCH, dies)
    assert [step.die for step in found] == [0, 1]
    assert [step.step_um for step in found] == pytest.approx([310.0, 75.0], abs=1e-6)
    assert all(step.sigma_um == pytest.approx(0, abs=1e-6) and not step.reason for step in found)
    assert [step.street_share for step in found] == [1.0, 1.0]


def test_levels_of_a_stack_are_told_apart() -> None:
    z, (die, other) = field(WHOLE, [310.0, 75.0], bow=0.0)
    upper = (500.0, 600.0, 900.0, 1200.0)
    x, y = np.meshgrid(*(STEP_PITCH * (np.arange(300) + 0.5),) * 2)
    z += 290 * ((x > 500) & (x < 900) & (y > 600) & (y < 1200))
    stack = Die(die.box_um, "present", 600.0, ((*die.box_um, 310.0), (*upper, 600.0)))
    found = step_heights(z, STEP_PITCH, [stack, other])
    assert [(step.die, step.level) for step in found] == [(0, 0), (0, 1), (1, 0)]
    assert [step.step_um for step in found] == pytest.approx([310.0, 600.0, 75.0], abs=1e-6)


def test_the_standard_error_tells_the_truth() -> None:
    """Flat dies with white noise of 2 um, whole and cut by the frame, on a tilted and bowed wafer."""
    rng = np.random.default_rng(0)
    cut = [(-500.0, -700.0, 1100.5, 1000.2), (1220.0, -700.0, 3700.0, 1000.2), (-500.0, 1120.0, 1100.5, 4000.0)]
    off = []
    for boxes in (WHOLE, cut) * 12:
        z, dies = field(boxes, [300.0] * len(boxes), rng.normal(size=2) * 3)
        for step in step_heights(z + 2 * rng.normal(size=z.shape), STEP_PITCH, dies):
            assert step.step_um is not None
            assert step.sigma_um is not None
            off.append((step.step_um - 300) / step.sigma_um)
    assert len(off) == 60
    assert 0.87 <= np.mean(np.abs(off) <= 2) <= 1.0
    assert 0.7 <= np.sqrt(np.mean(np.square(off))) <= 1.4


def test_steps_that_cannot_be_told_say_why() -> None:
    z, dies = field(WHOLE, [310.0, 75.0])
    # no street at all: a die that fills the map
    everywhere = Die((-10.0, -10.0, 9e3, 9e3), "present", 5.0, ((-10.0, -10.0, 9e3, 9e3, 5.0),))
    (none,) = step_heights(z, STEP_PITCH, [everywhere])
    assert (none.step_um, none.reason) == (None, "0 px of street lie beside it in the map; 30 are needed")
    # street on one side only lays no plane
    one_side = Die((-10.0, -10.0, 1000.0, 9e3), "present", 5.0, ((-10.0, -10.0, 1000.0, 9e3, 5.0),))
    (none,) = step_heights(z, STEP_PITCH, [one_side])
    assert none.step_um is None
    assert none.reason == "the street lies on one side of it only, and no plane can be laid through it"
    # missing data
    hole = z.copy()
    hole[:, :35] = np.nan
    first, second = step_heights(hole, STEP_PITCH, dies)
    assert first.step_um is None
    assert "of the street beside it known" in first.reason
    assert second.step_um == pytest.approx(75.0, abs=0.01)
    hole = z.copy()
    hole[60:150, 50:120] = np.nan
    assert "of its plateau known" in step_heights(hole, STEP_PITCH, dies)[0].reason
    levelless = Die(WHOLE[0], "present")
    assert step_heights(z, STEP_PITCH, [levelless])[0].reason == "its levels are not known"
    assert step_heights(z, STEP_PITCH, [Die(WHOLE[0], "missing")]) == ()
    with pytest.raises(UsageError, match="clear_um"):
        step_heights(z, STEP_PITCH, dies, clear_um=300.0)
