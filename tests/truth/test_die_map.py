"""Die maps and edges against scenes that were made for them."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from waferlens.errors import UsageError
from waferlens.inspect.die_table import DIE_COLUMNS, write_die_map
from waferlens.ops.die_map import die_map
from waferlens.ops.sub_pixel_edges import EdgeLine, refine_edges
from waferlens.records import Product

PITCH = 8.2
PRODUCT = Product(300.0, (300.0,))
TWO_NATIVE_UM = 2 * 1.2913298


# Edges


def rise(x: np.ndarray, blur: float) -> np.ndarray:
    """A step at 0 blurred by a bell, averaged over a hundred places of each pixel: not the formula that is tested."""
    places = (np.arange(100) + 0.5) / 100 * PITCH - 0.5 * PITCH
    return ndtr((x[..., None] + places) / blur).mean(-1)


def an_edge(
    at: float,
    *,
    blur: float = 1.5,
    rim: float = 6.0,
    share: float = 0.15,
    carrier: float = 0.3,
    dies: tuple[float, ...] = (0.2, 0.5, 0.65),
    seal: float | None = None,
    noise: float = 0.002,
    texture: float = 0.0,
    rows: int = 240,
    columns: int = 50,
    seed: int = 0,
) -> np.ndarray:
    """An image with an upright edge; the die lies to the right, in blocks of several greys."""
    rng = np.random.default_rng(seed)
    x = (np.arange(columns) + 0.5) * PITCH
    outline, body = rise(x - at, blur), rise(x - at - rim, blur)
    grey = np.repeat(dies, rows // len(dies))[:, None]
    image = carrier * (1 - outline) + grey * (share * outline + (1 - share) * body)
    if seal is not None:
        image = image + (seal - grey) * (rise(x - at - 35, blur) - rise(x - at - 44, blur))
    image = image * (1 + texture * rng.standard_normal(image.shape) * body)
    return (image + noise * rng.standard_normal(image.shape)).astype(np.float32)


def line(at: float, *, blur: float | None = None, high: float = 240 * PITCH) -> EdgeLine:
    return EdgeLine("x", at, 0.0, high, True, blur)


@settings(deadline=None, max_examples=40)
@given(
    at=st.floats(180, 200),
    off=st.floats(-10, 10),
    rim=st.floats(3, 12),
    blur=st.floats(1.0, 4.0),
    carrier=st.sampled_from([0.04, 0.3, 0.5]),
    seed=st.integers(0, 100),
)
def test_an_edge_with_a_known_rim_is_found_within_two_native_pixels(at, off, rim, blur, carrier, seed):
    image = an_edge(at, rim=rim, blur=blur, carrier=carrier, texture=0.02, seed=seed)
    (fit,) = refine_edges(image, [line(at + off, blur=blur)], PITCH, rim_um=rim)
    assert fit.found
    assert abs(fit.at_um - at) < TWO_NATIVE_UM
    assert abs(fit.at_um - at) < 4 * fit.sigma_um


def test_on_a_bright_carrier_the_rim_is_found_from_the_image():
    lines, images = [], []
    ats = (181.0, 183.5, 186.1, 188.4)
    for number, at in enumerate(ats):
        images.append(an_edge(at, rim=9.0, seed=number))
        lines.append(EdgeLine("x", at + 5 - 3 * number, number * 240 * PITCH, (number + 1) * 240 * PITCH, True, 1.5))
    fits = refine_edges(np.concatenate(images), lines, PITCH)
    assert fits[0].rim_um == pytest.approx(9.0, abs=1.01)
    assert max(abs(fit.at_um - at) for fit, at in zip(fits, ats, strict=True)) < TWO_NATIVE_UM


def test_a_rim_that_is_denied_moves_the_edge_into_the_die():
    """The bias the rim is modelled for: without it the edge sits (1 - t) r too far inside, however small the noise."""
    image = an_edge(185.0, rim=10.0, carrier=0.04, noise=0.0)
    (denied,) = refine_edges(image, [line(188.0, blur=1.5)], PITCH, rim_um=0.0)
    (stated,) = refine_edges(image, [line(188.0, blur=1.5)], PITCH, rim_um=10.0)
    assert denied.at_um - 185.0 == pytest.approx(0.85 * 10, abs=2.5)
    assert stated.at_um == pytest.approx(185.0, abs=0.4)


def test_the_middle_of_a_die_does_not_know_the_rim():
    left = an_edge(185.0, rim=10.0, carrier=0.04)
    image = np.concatenate([left, left[:, ::-1]], axis=1)
    wide = image.shape[1] * PITCH
    lines = [line(187.0, blur=1.5), EdgeLine("x", wide - 190.0, 0.0, 240 * PITCH, False, 1.5)]
    for rim in (0.0, 5.0, 10.0):
        fits = refine_edges(image, lines, PITCH, rim_um=rim)
        assert 0.5 * (fits[0].at_um + fits[1].at_um) == pytest.approx(wide / 2, abs=0.3)


@pytest.mark.parametrize("blur", [8.0, 15.0, 25.0])
def test_blur_of_several_pixels_leaves_the_edge_where_it_is(blur):
    image = an_edge(230.0, blur=blur, columns=60)
    (fit,) = refine_edges(image, [line(235.0, blur=blur)], PITCH, rim_um=6.0)
    assert abs(fit.at_um - 230.0) < TWO_NATIVE_UM
    (unknown,) = refine_edges(image, [line(235.0)], PITCH, rim_um=6.0)
    assert abs(unknown.at_um - 230.0) < 2 * TWO_NATIVE_UM


def test_seal_rings_bumps_and_particles_do_not_pull():
    image = an_edge(185.0, seal=0.68)
    image[60:72, 20:28] = 0.02  # a particle over the edge
    image[120:126, 23:40] = 0.9
    (fit,) = refine_edges(image, [line(180.0, blur=1.5)], PITCH, rim_um=6.0)
    assert abs(fit.at_um - 185.0) < 1.0


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25])
def test_a_rim_of_other_darkness_costs_little_where_its_darkness_is_wrong(share):
    image = an_edge(185.0, share=share, rim=5.0)
    (fit,) = refine_edges(image, [line(188.0, blur=1.5)], PITCH, rim_um=5.0)
    assert abs(fit.at_um - 185.0) < 1.5


def test_turning_the_image_turns_the_edges():
    image = an_edge(185.0)
    high, wide = image.shape[0] * PITCH, image.shape[1] * PITCH
    (fit,) = refine_edges(image, [line(188.0)], PITCH)
    (upper,) = refine_edges(image.T, [EdgeLine("y", 188.0, 0.0, high, True)], PITCH)
    (right,) = refine_edges(image[:, ::-1], [EdgeLine("x", wide - 188.0, 0.0, high, False)], PITCH)
    assert upper.at_um == pytest.approx(fit.at_um, abs=1e-6)
    assert wide - right.at_um == pytest.approx(fit.at_um, abs=1e-6)


def test_standard_errors_grow_with_noise():
    quiet, loud = (
        refine_edges(an_edge(185.0, noise=noise), [line(187.0, blur=1.5)], PITCH, rim_um=6.0)[0].sigma_um
        for noise in (0.001, 0.5)
    )
    assert loud > 1.2 * quiet


def test_what_is_no_edge_is_not_found_and_says_why():
    flat = np.full((240, 50), 0.4, np.float32) + 0.01 * np.random.default_rng(1).standard_normal((240, 50)).astype("f4")
    fits = refine_edges(flat, [line(185.0), line(8.0), line(185.0, high=30.0)], PITCH)
    assert [fit.found for fit in fits] == [False, False, False]
    assert all(math.isnan(fit.sigma_um) for fit in fits)
    assert [fit.at_um for fit in fits] == [185.0, 8.0, 185.0]
    assert "explained" in fits[0].reason
    assert "border" in fits[1].reason
    assert "3 px" in fits[2].reason


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"pitch_um": 1.29}, "average"),
        ({"rim_um": 20.0}, "rim_um"),
        ({"wall_share": 1.0}, "wall_share"),
        ({"search_um": 99.0}, "search_um"),
    ],
)
def test_edges_refuse_what_is_out_of_range(change, told):
    with pytest.raises(UsageError, match=told):
        refine_edges(an_edge(185.0), [line(185.0)], **({"pitch_um": PITCH} | change))


# Die maps


def a_wafer(
    shape: tuple[int, int],
    *,
    pitch: tuple[float, float] = (1600.0, 1900.0),
    die: tuple[float, float] = (1400.0, 1650.0),
    first: tuple[float, float] = (-700.0, -400.0),
    absent: tuple[tuple[int, int], ...] = (),
    jitter: float = 0.0,
    top: float = 310.0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, dict[tuple[int, int], tuple[float, float, float, float]]]:
    """Heights, classes and boxes by row and column of a lattice."""
    h, w = shape
    rng = np.random.default_rng(seed)
    height = rng.normal(0, 2, shape).astype(np.float32)
    classes = np.zeros((3, h, w), np.float32)
    classes[1] = 1
    x, y = (np.arange(w) + 0.5) * PITCH, (np.arange(h) + 0.5) * PITCH
    boxes = {}
    for row in range(math.ceil((h * PITCH - first[1]) / pitch[1])):
        for column in range(math.ceil((w * PITCH - first[0]) / pitch[0])):
            dx, dy = jitter * rng.standard_normal(2)
            x0, y0 = first[0] + column * pitch[0] + dx, first[1] + row * pitch[1] + dy
            box = (x0, y0, x0 + die[0], y0 + die[1])
            on = np.ix_((y > box[1]) & (y < box[3]), (x > box[0]) & (x < box[2]))
            if not classes[1][on].size:
                continue
            boxes[row, column] = box
            classes[1][on] = 0
            if (row, column) in absent:
                classes[2][on] = 1
            else:
                classes[0][on] = 1
                height[on] += top
    return height, classes, boxes


def nearest(found, box):
    """The site whose centre is nearest."""
    return min(
        range(len(found.dies)), key=lambda n: sum(abs(a - b) for a, b in zip(found.dies[n].box_um, box, strict=True))
    )


def test_the_lattice_of_a_field_and_its_parts():
    height, classes, boxes = a_wafer((684, 684), absent=((1, 2),))
    found = die_map(height, classes, None, PITCH)
    assert len(found.dies) == len(boxes) == 16
    assert found.pitch_x_um == pytest.approx(1600, abs=3)
    assert found.pitch_y_um == pytest.approx(1900, abs=3)
    assert found.x.die_um == pytest.approx(1400, abs=4)
    assert found.x.street_um == pytest.approx(200, abs=5)
    for place, box in boxes.items():
        die = found.dies[nearest(found, box)]
        assert die.state == ("missing" if place == (1, 2) else "present")
        assert die.box_um == pytest.approx(box, abs=PITCH)
        if die.state == "present":
            assert die.top_um == pytest.approx(310, abs=0.5)
        else:
            assert die.top_um is None


@settings(deadline=None, max_examples=25)
@given(
    pitch=st.tuples(st.floats(1500, 4800), st.floats(1500, 4800)),
    street=st.floats(80, 700),
    phase=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    jitter=st.floats(0, 8),
    seed=st.integers(0, 50),
)
def test_every_site_of_any_lattice_is_found(pitch, street, phase, jitter, seed):
    die = (pitch[0] - street, pitch[1] - street)
    first = (-phase[0] * pitch[0], -phase[1] * pitch[1])
    height, classes, boxes = a_wafer((684, 684), pitch=pitch, die=die, first=first, jitter=jitter, seed=seed)
    found = die_map(height, classes, None, PITCH)
    side = 684 * PITCH
    for box in boxes.values():
        seen = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], side), min(box[3], side))
        if min(seen[2] - seen[0], seen[3] - seen[1]) < 120:
            continue
        middle = (0.5 * (seen[0] + seen[2]), 0.5 * (seen[1] + seen[3]))
        own = [
            one
            for one in found.dies
            if one.box_um[0] < middle[0] < one.box_um[2] and one.box_um[1] < middle[1] < one.box_um[3]
        ]
        assert [one.state for one in own] == ["present"]
        for edge in range(4):
            if 2 * PITCH < box[edge] < side - 2 * PITCH:
                assert own[0].box_um[edge] == pytest.approx(box[edge], abs=1.5 * PITCH)
    if found.x is not None:
        assert found.pitch_x_um == pytest.approx(pitch[0], abs=2.5 * PITCH + 3 * jitter)


def test_heights_alone_tell_dies_and_the_bare_sites_between_them():
    height, _, boxes = a_wafer((684, 684), absent=((1, 2), (0, 0)))
    found = die_map(height, None, None, PITCH, product=PRODUCT)
    inner = found.dies[nearest(found, boxes[1, 2])]
    assert inner.state == "missing"
    assert "between others" in found.reasons[nearest(found, boxes[1, 2])]
    # the corner has neighbours on one side only: nobody knows whether the wafer goes on there
    assert len(found.dies) == 15
    assert found.count("present") == 14


def test_a_bare_site_inside_the_lattice_is_missing_even_where_its_class_says_street():
    height, classes, boxes = a_wafer((684, 684), absent=((1, 2), (3, 3)))
    bare = classes[2] == 1
    classes[2], classes[1] = 0, classes[1] + bare
    found = die_map(height, classes, None, PITCH)
    site = nearest(found, boxes[1, 2])
    assert found.dies[site].state == "missing"
    assert "between others" in found.reasons[site]
    assert len(found.dies) == 15


def test_probabilities_that_do_not_suffice_stay_unsure_and_say_so():
    height, classes, boxes = a_wafer((684, 684))
    x0, y0, x1, y1 = (round(edge / PITCH) for edge in boxes[1, 1])
    classes[:, y0:y1, x0:x1] = np.array([0.6, 0.1, 0.3])[:, None, None]
    found = die_map(height, classes, None, PITCH)
    site = nearest(found, boxes[1, 1])
    assert found.dies[site].state == "unsure"
    assert "0.60" in found.reasons[site]


def test_a_sliver_of_a_die_stays_unsure():
    height, classes, boxes = a_wafer((684, 684), first=(-1340.0, -400.0))
    found = die_map(height, classes, None, PITCH)
    site = nearest(found, boxes[1, 0])
    assert found.dies[site].state == "unsure"
    assert "lie in the image" in found.reasons[site]


def test_a_die_that_is_as_low_as_the_carrier_is_doubted():
    height, classes, boxes = a_wafer((684, 684))
    x0, y0, x1, y1 = (round(edge / PITCH) for edge in boxes[1, 1])
    height[y0 - 2 : y1 + 2, x0 - 2 : x1 + 2] = 5.0
    found = die_map(height, classes, None, PITCH, product=PRODUCT)
    site = nearest(found, boxes[1, 1])
    assert found.dies[site].state == "unsure"
    assert "5 um high" in found.reasons[site]


@pytest.mark.parametrize("product", [None, Product(160.0, (160.0, 320.0, 480.0))])
def test_levels_are_plateaus_that_fill_rectangles(product):
    height, classes, boxes = a_wafer((684, 684), top=160.0)
    for (row, column), box in boxes.items():
        for inset in (150.0, 400.0):
            x0, y0, x1, y1 = (
                max(0, round(edge / PITCH)) for edge in (box[0] + inset, box[1] + inset, box[2] - inset, box[3] - inset)
            )
            height[y0:y1, x0:x1] += 160.0
        if (row, column) == (1, 1):  # an array of bumps, which is no level
            x0, y0 = round((box[0] + 450) / PITCH), round((box[1] + 450) / PITCH)
            height[y0 : y0 + 80 : 3, x0 : x0 + 50 : 3] += 60.0
    found = die_map(height, classes, None, PITCH, product=product)
    die = found.dies[nearest(found, boxes[1, 1])]
    assert [level[4] for level in die.levels] == pytest.approx([160, 320, 480], abs=2)
    assert die.top_um == pytest.approx(480, abs=2)
    for level, inset in zip(die.levels, (0.0, 150.0, 400.0), strict=True):
        box = boxes[1, 1]
        inside = (box[0] + inset, box[1] + inset, box[2] - inset, box[3] - inset)
        assert level[:4] == pytest.approx(inside, abs=1.5 * PITCH)


def test_a_part_that_shows_no_upper_level_has_no_top():
    height, classes, boxes = a_wafer((684, 684), top=160.0, first=(-1200.0, -400.0))
    found = die_map(height, classes, None, PITCH, product=Product(160.0, (160.0, 320.0)))
    site = nearest(found, boxes[1, 0])
    assert found.dies[site].state == "present"
    assert found.dies[site].top_um is None
    assert found.reasons[site] == "1 of its 2 levels seen"


def test_a_die_larger_than_the_field_ends_at_its_border():
    height = np.full((400, 400), 300, np.float32)
    found = die_map(height, None, None, PITCH, product=PRODUCT)
    (die,) = found.dies
    assert die.box_um == pytest.approx((0, 0, 400 * PITCH, 400 * PITCH))
    assert found.x is None
    assert found.pitch_x_um is None


def test_an_empty_field_has_no_sites():
    assert die_map(np.zeros((300, 300), np.float32), None, None, PITCH, product=PRODUCT).dies == ()


def test_heights_that_are_not_known_leave_a_site_unsure():
    height, _, boxes = a_wafer((684, 684))
    x0, y0, _, y1 = (round(edge / PITCH) for edge in boxes[1, 1])
    height[y0:y1, x0 : x0 + 120] = np.nan
    found = die_map(height, None, None, PITCH, product=PRODUCT)
    site = nearest(found, boxes[1, 1])
    assert found.dies[site].state == "unsure"
    assert "not known" in found.reasons[site]


def test_the_image_moves_the_edges_to_their_places():
    at = 185.0
    left = an_edge(at, rows=600, columns=120, rim=6.0)
    image = np.concatenate([left, left[:, ::-1]], axis=1)
    right = image.shape[1] * PITCH - at
    height = np.zeros(image.shape, np.float32)
    height[:, round(at / PITCH) : round(right / PITCH)] = 300
    found = die_map(height, None, image, PITCH, product=PRODUCT, rim_um=6.0, focus_um=300.0, na=0.14)
    (die,) = found.dies
    assert die.box_um[0] == pytest.approx(at, abs=0.6)
    assert die.box_um[2] == pytest.approx(right, abs=0.6)
    assert die.levels[0][:4] == die.box_um
    x0, y0, x1, y1 = found.edges[0]
    assert x0.found
    assert x1.found
    assert y0 is y1 is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"classes": None, "product": None}, "classes or a product"),
        ({"classes": np.zeros((2, 50, 50))}, "die, street, missing"),
        ({"image": np.zeros((4, 4))}, "one grid"),
        ({"pitch_um": 0.0}, "pitch_um"),
        ({"sure": 0.5}, "sure"),
        ({"focus_um": 300.0}, "both focus_um and na"),
    ],
)
def test_what_cannot_be_mapped_is_refused(change, told):
    given_ = {"classes": np.zeros((3, 50, 50)), "image": None, "pitch_um": PITCH} | change
    with pytest.raises(UsageError, match=told):
        die_map(np.zeros((50, 50), np.float32), **given_)


def test_tables_and_json_hold_the_map(tmp_path):
    height, classes, _ = a_wafer((684, 684), absent=((1, 2),))
    found = die_map(height, classes, None, PITCH)
    write_die_map(tmp_path / "dies.csv", tmp_path / "dies.json", found)
    lines = (tmp_path / "dies.csv").read_text().splitlines()
    assert lines[0].split(",") == list(DIE_COLUMNS) == list(found.rows()[0])
    assert len(lines) == 17
    read = json.loads((tmp_path / "dies.json").read_text())
    assert read["lattice"]["x"]["pitch_um"] == pytest.approx(1600, abs=3)
    assert sum(site["state"] == "missing" for site in read["sites"]) == 1
