"""A part against a good one: what was planted is found where it lies, as light or dark as it is, and nothing else."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from make_golden import DARK, HEIGHT, LIGHT, SCRATCH, WIDTH, image, lies_on, part, recipe
from waferlens.bundle.golden import GRID, GoldenSession
from waferlens.bundle.reference import reference_of
from waferlens.bundle.rules import NO_RULE
from waferlens.errors import FormatError, UsageError
from waferlens.ops.registration import SMALLEST_PX
from waferlens.prepare.golden import fit_images
from waferlens.recipe.golden import GoldenRecipe
from waferlens.records import Finding

PLAIN = recipe("golden-template", "threshold.false_alarm_rate=null", "threshold.factor=1.5")
"""No rate: these tests ask what is found, not how often nothing is mistaken for something."""


@cache
def fitted(full_scale: float = 255.0) -> GoldenSession:
    """A template of eight parts that differ a little."""
    random = np.random.default_rng(0)
    good = [
        part(
            900 + i,
            shift=tuple(random.uniform(-2, 2, 2)),
            angle=random.uniform(-0.3, 0.3),
            gain=random.uniform(0.97, 1.03),
        )
        for i in range(8)
    ]
    return fit_images(PLAIN, [image(one, full_scale) for one in good], [])[0]


def direct(used: GoldenRecipe = PLAIN) -> GoldenSession:
    return GoldenSession(used, used.threshold.factor)


def found_on(grey: np.ndarray, used: GoldenRecipe = PLAIN, reference: np.ndarray | None = None) -> list[Finding]:
    """What direct mode finds."""
    good = reference_of(used, image(part(1) if reference is None else reference))
    found = direct(used).find(image(grey), [good])
    assert found.compared.reason == ""
    return found.findings


POSES = pytest.mark.parametrize(
    "pose",
    [
        {},
        {"shift": (3.3, -4.6)},
        {"angle": 2.0},
        {"shift": (-5.5, 2.2), "angle": -1.5, "gain": 0.8, "offset": 25.0},
        {"gain": 1.25, "offset": -20.0},
    ],
    ids=str,
)


@POSES
@pytest.mark.parametrize("mode", ["fitted", "direct"])
def test_what_was_planted_is_found_and_its_twin_is_clean(mode, pose):
    session = fitted() if mode == "fitted" else direct()
    good = [] if mode == "fitted" else [reference_of(PLAIN, image(part(1)))]
    twin = session.find(image(part(5, **pose)), good)
    assert (twin.compared.reason, twin.findings) == ("", [])
    found = session.find(image(part(5, [LIGHT, DARK], **pose)), good)
    light, dark = sorted(found.findings, key=lambda one: -one.contrast)
    assert lies_on(light, LIGHT)
    assert lies_on(dark, DARK)
    assert (light.light_or_dark, dark.light_or_dark) == ("light", "dark")
    # the mean over all that deviates, the soft rim of smoothing included: below what was planted, above half of it less
    gain = pose.get("gain", 1.0)
    assert 0.4 * 30 * gain < light.contrast < 30 * gain
    assert -30 * gain < dark.contrast < -0.4 * 30 * gain
    assert all(one.critical and one.score > 3 and one.rule == "" for one in found.findings)
    assert found.findings[0].score == max(light.score, dark.score)
    assert found.level == pytest.approx(found.findings[0].score)


@POSES
def test_the_registration_is_told(pose):
    found = direct().find(image(part(5, **pose)), [reference_of(PLAIN, image(part(1)))])
    registration = found.compared.registration
    assert registration.shift_px == pytest.approx(pose.get("shift", (0, 0)), abs=0.15)
    assert registration.angle_deg == pytest.approx(pose.get("angle", 0), abs=0.15)
    assert found.compared.gain == pytest.approx(pose.get("gain", 1), rel=0.02)
    assert found.compared.offset_grey == pytest.approx(pose.get("offset", 0), abs=2.5)


def test_a_sharp_edge_of_the_box_where_nothing_is_smoothed():
    used = recipe("golden-template", "method.smoothing_px=0", "method.position_px=0", "threshold.false_alarm_rate=null")
    (light,) = found_on(part(5, [LIGHT]), used)
    assert light.box == (29.5, 59.5, 35.5, 64.5)
    assert light.area_px == 30
    assert light.contrast == pytest.approx(30, abs=1)


@pytest.mark.parametrize("full_scale", [65535.0, 1.0])
@pytest.mark.parametrize("mode", ["fitted", "direct"])
def test_more_bits_are_the_same_scaled(mode, full_scale):
    times = full_scale / 255
    grey = part(5, [LIGHT, DARK], shift=(1.3, -2.4), gain=0.9)
    both = []
    for scale in (255.0, full_scale):
        good = [] if mode == "fitted" else [reference_of(PLAIN, image(part(1), scale))]
        session = fitted(scale) if mode == "fitted" else direct()
        both.append(session.find(image(grey, scale), good).findings)
    assert len(both[0]) == 2
    for ours, theirs in zip(*both, strict=True):
        assert ours.box == theirs.box
        assert ours.light_or_dark == theirs.light_or_dark
        assert ours.area_px == theirs.area_px
        assert theirs.score == pytest.approx(ours.score, rel=0.01)
        assert theirs.contrast == pytest.approx(times * ours.contrast, rel=0.01)


def test_sixteen_bits_are_not_cut_to_eight():
    # a defect of two thirds of a grey level of 8 bits, on a detector without noise
    flat = part(1, noise=0)
    defective = flat.copy()
    defective[60:66, 30:37] += 0.7
    used = recipe("golden-template", "method.contrast_fraction=0.002", "threshold.false_alarm_rate=null")
    pair = [(257 * grey).round().astype(np.uint16) for grey in (flat, defective)]
    good, bad = (image(flat, 65535.0).__class__(pixels, 65535.0, path="x") for pixels in pair)
    (finding,) = direct(used).find(bad, [reference_of(used, good)]).findings
    assert lies_on(finding, (30, 60, 7, 6, 0.7))


def test_brightness_that_drifts_is_a_defect_where_nobody_fits_it():
    dim = part(5, gain=0.7)
    assert found_on(dim) == []
    assert found_on(dim, recipe("golden-template", "photometry.gain_offset=false", "threshold.false_alarm_rate=null"))


def test_nothing_is_judged_beyond_the_reference_nor_near_its_rim():
    # 20 columns of the image are not on the reference: a defect there cannot be told from the product
    moved = part(5, [(4, 40, 6, 6, 60.0), LIGHT], shift=(0.0, 20.0))
    (finding,) = found_on(moved)
    assert lies_on(finding, LIGHT)
    for seed in range(12):  # smoothing knows nothing beyond the rim of either; forty in a hundred alarmed by that
        shift = tuple(np.random.default_rng(seed).uniform(-5, 5, 2))
        assert found_on(part(100 + seed, shift=shift), reference=part(200 + seed)) == []


def test_a_defect_of_the_reference_comes_out_in_the_opposite_sense():
    (finding,) = found_on(part(5), reference=part(1, [LIGHT]))
    assert lies_on(finding, LIGHT)
    assert (finding.light_or_dark, finding.contrast < 0) == ("dark", True)


# --- areas and rules


def test_areas_stand_on_the_reference_and_move_with_the_image():
    shifted = part(
        5, [(LIGHT[0] + 5, LIGHT[1] - 4, 6, 5, 30.0), (DARK[0] + 5, DARK[1] - 4, 5, 7, -30.0)], shift=(-4.0, 5.0)
    )
    around = (LIGHT[0] - 7, LIGHT[1] - 7, LIGHT[0] + 12, LIGHT[1] + 11)  # on the reference, where LIGHT lies
    for areas, sense in (({"ignore": [around]}, "dark"), ({"care": [around]}, "light")):
        (finding,) = found_on(shifted, recipe(areas={**areas, "border_px": 2.0}, threshold={"factor": 1.5}))
        assert finding.light_or_dark == sense
    both = {"care": [(0, 0, 127, 95)], "ignore": [around], "border_px": 2.0}
    (finding,) = found_on(shifted, recipe(areas=both, threshold={"factor": 1.5}))
    assert finding.light_or_dark == "dark"


def test_areas_that_leave_nothing_are_told():
    used = recipe(areas={"care": [(0, 0, 8, 8)], "ignore": [(0, 0, 20, 20)]})
    with pytest.raises(FormatError, match=r"areas\.care and areas\.ignore of the recipe leave nothing"):
        reference_of(used, image(part(1)))
    used = recipe(areas={"care": [(0, 0, 8, 8)]})  # lies on the reference, and not on an image that is shifted so far
    found = direct(used).find(image(part(5, shift=(-12.0, -12.0))), [reference_of(used, image(part(1)))])
    assert "nothing of it lies where areas.care" in found.compared.reason
    assert found.findings == []


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], {"light": "", "dark": "", "scratch": ""}),
        (
            [{"name": "small", "critical": False, "max_area_px": 75}],
            {"light": "small", "dark": "small", "scratch": NO_RULE},
        ),
        ([{"name": "faint", "critical": False, "max_contrast_grey": 15.2}], None),
        (
            [{"name": "dirt", "critical": False, "light_or_dark": "dark"}],
            {"light": NO_RULE, "dark": "dirt", "scratch": NO_RULE},
        ),
        (
            [
                {"name": "scratch", "critical": True, "min_elongation": 3},
                {"name": "the rest", "critical": False},
                {"name": "never", "critical": True},
            ],
            {"light": "the rest", "dark": "the rest", "scratch": "scratch"},
        ),
        (
            [{"name": "round", "critical": False, "max_elongation": 2}],
            {"light": "round", "dark": "round", "scratch": NO_RULE},
        ),
        (
            [{"name": "pad", "critical": False, "inside": [[80, 15, 100, 35]]}],
            {"light": NO_RULE, "dark": "pad", "scratch": NO_RULE},
        ),
    ],
    ids=lambda value: "+".join(rule["name"] for rule in value) if isinstance(value, list) else "",
)
def test_rules_sort_by_size_contrast_place_and_shape(rules, expected):
    # the image is shifted, and the rule's boxes stand on the reference all the same
    dy, dx = -3, 4
    moved = [(x + dx, y + dy, w, h, c) for x, y, w, h, c in (LIGHT, DARK, SCRATCH)]
    found = found_on(part(5, moved, shift=(dy, dx)), recipe(rules=rules, threshold={"factor": 1.5}))
    names = {}
    for finding in found:
        (name,) = (
            n for n, planted in zip(("light", "dark", "scratch"), moved, strict=True) if lies_on(finding, planted, 2)
        )
        names[name] = finding
    assert names.keys() == {"light", "dark", "scratch"}
    if expected is None:
        for finding in found:
            assert (finding.rule == "faint") == (abs(finding.contrast) <= 15.2)
    else:
        assert {name: finding.rule for name, finding in names.items()} == expected
    critical = {rule["name"]: rule["critical"] for rule in rules}
    assert all(finding.critical == critical.get(finding.rule, True) for finding in found)


def test_small_and_broken_deviations_are_joined_and_sorted_out_as_the_recipe_says():
    dots = [(30, 60, 2, 2, 50.0), (35, 60, 2, 2, 50.0)]
    sharp = ("method.smoothing_px=0", "method.position_px=0", "threshold.false_alarm_rate=null", "threshold.factor=2")
    assert len(found_on(part(5, dots), recipe("golden-template", *sharp, "findings.merge_px=2"))) == 2
    (joined,) = found_on(part(5, dots), recipe("golden-template", *sharp, "findings.merge_px=3"))
    assert (joined.box, joined.area_px) == ((29.5, 59.5, 36.5, 61.5), 8)
    assert found_on(part(5, dots), recipe("golden-template", *sharp, "findings.min_area_px=5")) == []
    assert found_on(part(5, dots), recipe("golden-template", *sharp, "findings.opening_px=3")) == []
    wide = found_on(part(5, dots), recipe("golden-template", *sharp, "findings.merge_px=3", "findings.margin_px=4"))
    assert wide[0].box == (25.5, 55.5, 40.5, 65.5)


# --- the level at which an image alarms


@pytest.mark.parametrize(
    "rules",
    [
        [],
        [{"name": "small", "critical": False, "max_area_px": 40}],
        # the larger is tolerable: lowering the threshold turns an alarm off again
        [{"name": "large", "critical": False, "min_area_px": 50}],
    ],
    ids=["none", "small", "large"],
)
@pytest.mark.parametrize("defects", [(), (LIGHT,), (LIGHT, DARK)], ids=len)
def test_above_its_alarm_level_an_image_never_alarms_and_just_below_it_does(rules, defects):
    used = recipe(rules=rules, threshold={"factor": 1.0})
    session = direct(used)
    compared = session.compare(image(part(5, defects)), [reference_of(used, image(part(1)))])
    level = session.alarm_level(compared)

    def alarms(threshold: float) -> bool:
        return any(finding.critical for finding in session.findings_at(compared, threshold))

    assert alarms(level / GRID)
    assert not any(alarms(level * GRID**step) for step in range(40))


def test_an_image_that_was_not_compared_alarms_at_every_threshold():
    compared = direct().compare(image(part(5, of=8)), [reference_of(PLAIN, image(part(1)))])
    assert compared.reason
    assert direct().alarm_level(compared) == math.inf


# --- what cannot be compared


def test_what_cannot_be_compared_is_told():
    good = reference_of(PLAIN, image(part(1)))
    with pytest.raises(FormatError, match="white is 65535 here and 255 on the reference: 16 bits against 8 bits"):
        direct().find(image(part(5), 65535.0), [good])
    with pytest.raises(FormatError, match="white is 1 here and 255 on the reference: float against 8 bits"):
        direct().find(image(part(5), 1.0), [good])
    with pytest.raises(FormatError, match="every pixel is 70"):
        direct().find(image(np.full((HEIGHT, WIDTH), 70.0)), [good])
    with pytest.raises(FormatError, match="every pixel is 70"):
        reference_of(PLAIN, image(np.full((HEIGHT, WIDTH), 70.0)))
    with pytest.raises(FormatError, match=f"at least {SMALLEST_PX} px each way"):
        direct().find(image(part(5)[:10]), [good])
    with pytest.raises(UsageError, match="compares with a reference, got 0; name --reference, or fit it"):
        direct().find(image(part(5)))


def test_another_product_and_too_little_overlap_are_not_compared():
    good = reference_of(PLAIN, image(part(1)))
    other = direct().find(image(part(5, of=8)), [good])
    assert "do not show the same thing" in other.compared.reason
    assert (other.findings, math.isnan(other.level)) == ([], True)
    strict = recipe("golden-template", "registration.min_overlap=0.95")
    apart = GoldenSession(strict, 1.0).find(image(part(5, shift=(0, 12))), [good])
    assert "the reference covers 91% of the image, less than 95%" in apart.compared.reason
    # of another size there is nothing wrong with an image, as long as it lies on the reference
    (finding,) = direct().find(image(part(5, [LIGHT])[8:88, 10:110]), [good]).findings
    assert lies_on(finding, (LIGHT[0] - 10, LIGHT[1] - 8, *LIGHT[2:]))


# --- die to die


def die_to_die(grey: np.ndarray, *neighbours: np.ndarray) -> list[Finding]:
    used = recipe("die-to-die")
    return direct(used).find(image(grey), [reference_of(used, image(one)) for one in neighbours]).findings


def test_a_die_is_judged_by_both_neighbours():
    (finding,) = die_to_die(part(5, [LIGHT]), part(6, shift=(1.2, 0.4)), part(7, gain=1.1))
    assert lies_on(finding, LIGHT)
    assert finding.light_or_dark == "light"
    assert finding.contrast == pytest.approx(30, rel=0.1)
    assert die_to_die(part(5), part(6), part(7)) == []
    # what a neighbour has is no finding here, nor what all have: a repeater
    assert die_to_die(part(5), part(6, [LIGHT]), part(7)) == []
    assert die_to_die(part(5, [LIGHT]), part(6, [LIGHT]), part(7, [LIGHT])) == []
    # lighter than one and darker than the other is no sense that both agree on
    weak, strong = (*LIGHT[:4], 30.0), (*LIGHT[:4], 60.0)
    assert die_to_die(part(5, [weak]), part(6), part(7, [strong])) == []
    with pytest.raises(UsageError, match="compares with two neighbours, got 1"):
        die_to_die(part(5), part(6))


# --- wavelets: plain parts, where strong patterns do not hide what is looked for


def plain_part(seed: int, scratch: float = 0.0) -> np.ndarray:
    """A mostly plain die with a seal ring, and a scratch 3 px wide across it if asked for."""
    grey = np.full((HEIGHT, WIDTH), 90.0)
    grey[6:10, 6:-6] = grey[-10:-6, 6:-6] = 150
    grey[6:-6, 6:10] = grey[6:-6, -10:-6] = 150
    grey[30:44, 24:36] = 140  # so that nothing is symmetrical
    for step in range(42):
        y, x = 30 + step, 60 + step
        grey[y, x : x + 3] += scratch
    return grey + np.random.default_rng(seed).normal(0, 2, grey.shape)


@pytest.mark.parametrize("mode", ["fitted", "direct"])
def test_wavelets_find_a_scratch_and_nothing_on_its_twin(mode):
    used = recipe("golden-wavelet", "threshold.false_alarm_rate=null")
    good = [image(plain_part(seed)) for seed in range(40, 46)]
    session = fit_images(used, good, [])[0] if mode == "fitted" else direct(used)
    beside = [] if mode == "fitted" else [reference_of(used, good[0])]
    assert session.find(image(plain_part(5)), beside).findings == []
    found = session.find(image(plain_part(5, 60.0)), beside).findings
    assert found
    x0, y0 = (min(finding.box[axis] for finding in found) for axis in (0, 1))
    x1, y1 = (max(finding.box[axis] for finding in found) for axis in (2, 3))
    assert (x0, y0, x1, y1) == pytest.approx((60, 30, 104, 72), abs=5)
