"""What the package simulator draws: truth as it is told, light by its formulas, twins alike, no shortcut that helps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from waferlens.errors import RecipeError, UsageError
from waferlens.formats.package_set import Defect, Device
from waferlens.simulate.checks import Check
from waferlens.simulate.hole.contact_sheet import write_contact_sheet
from waferlens.simulate.package import audit, device, marks, validation, validation_picture
from waferlens.simulate.package.contact_sheet import world_sheet
from waferlens.simulate.package.frame import Frame, Lens
from waferlens.simulate.package.scene import draw_scene
from waferlens.simulate.package.strokes import stroke
from waferlens.simulate.package.texture import smooth_field
from waferlens.simulate.package.validation import world_of

SEED = 1
CHECKS = (*validation.VALIDATIONS, *validation_picture.PICTURE_VALIDATIONS)


def failed(checks: list[Check]) -> list[str]:
    return [f"{row.name}: {row.got} (expected {row.expected}, {row.tolerance})" for row in checks if not row.passed]


@pytest.mark.parametrize("test", CHECKS, ids=lambda test: test.__name__)
def test_validation(test: Callable[[int], list[Check]]) -> None:
    rows = test(SEED)
    assert rows
    assert not failed(rows)
    assert len({row.name for row in rows}) == len(rows)


# Geometry


@pytest.mark.parametrize("k1", [0.0, 0.01, -0.01])
@pytest.mark.parametrize("angle_deg", [0.0, 7.0, -123.0])
def test_points_and_pixels_agree(k1: float, angle_deg: float) -> None:
    frame = Frame((420.0, 600.0), angle_deg, Lens(785, 1295, k1), 1.02)
    points = np.random.default_rng(3).uniform(-300, 300, (40, 2))
    pixels = np.rint(frame.pixel_of(points))
    inside = (pixels >= 0).all(axis=1) & (pixels < (785, 1295)).all(axis=1)
    u, v = frame.coordinates(frame.lens.whole)
    for x, y in pixels[inside].astype(int):
        back = frame.pixel_of(np.array([(u[y, x], v[y, x])]))[0]
        assert np.hypot(*(back - (x, y))) < 1e-3


def test_angles_turn_counter_clockwise_as_seen() -> None:
    frame = Frame((400.0, 400.0), 90.0, Lens(800, 800))
    np.testing.assert_allclose(frame.pixel_of(np.array([(10.0, 0.0)])), [(400.0, 390.0)], atol=1e-9)
    child = frame.part((0.0, 0.0), -90.0)
    np.testing.assert_allclose(child.pixel_of(np.array([(10.0, 0.0)])), [(410.0, 400.0)], atol=1e-9)


def test_a_line_covers_its_area() -> None:
    lens = Lens(200, 200)
    for width, angle in ((0.3, 0.2), (0.8, 0.9), (2.5, 2.0)):
        ends = np.array([(60.0, 80.3), (60.0 + 70 * math.cos(angle), 80.3 + 70 * math.sin(angle))])
        drawn = stroke([(ends, np.full(2, width))], 2.0, lens)
        assert drawn.cover.sum() == pytest.approx(70 * 2 * width + math.pi * width**2, rel=0.05, abs=1.2)
        middle = ends.mean(axis=0)
        x, y = np.rint(middle).astype(int)
        away = abs((middle - (x, y)) @ (-math.sin(angle), math.cos(angle)))
        found = drawn.away_px[y - drawn.window[0].start, x - drawn.window[1].start]
        assert found == pytest.approx(away, abs=1e-4)


@pytest.mark.parametrize(("length", "hurst"), [(25.0, 0.5), (60.0, 0.5)])
def test_fields_have_their_spread_and_length(length: float, hurst: float) -> None:
    rng = np.random.default_rng(5)
    fields = np.stack([smooth_field(rng, 600, 600, length, hurst) for _ in range(12)])
    assert fields.std() == pytest.approx(1.0, abs=0.06)
    # at the exponent 1/2 the correlation falls as exp(-r / length)
    lag = round(length)
    alike = float((fields[:, :, :-lag] * fields[:, :, lag:]).mean() / np.square(fields).mean())
    assert alike == pytest.approx(math.exp(-lag / length), abs=0.08)


def test_a_product_is_the_same_in_every_set() -> None:
    first, second = (draw_scene(world_of("sim"), seed, 0).product for seed in (1, 2))
    assert first is second
    assert draw_scene(world_of("real"), 1, 0).product.diode != first.diode
    numbers = {draw_scene(world_of("hard"), 1, number).product_number for number in range(40)}
    assert numbers == {0, 1, 2, 3}


@pytest.mark.parametrize("domain", ["sim", "train", "line", "real", "hard", "stress", "turned"])
def test_no_package_is_cut_by_the_frame(domain: str) -> None:
    world = world_of(domain)
    for number in range(150):
        scene = draw_scene(world, SEED, number)
        quad = scene.ic.quad(scene.half_u, scene.half_v)
        assert (quad > 0).all()
        assert (quad < (world.frame.width_px - 1, world.frame.height_px - 1)).all()


def test_a_missing_die_leaves_its_cavity_empty() -> None:
    made = device.draw_device(world_of("sim", "contents.missing=1", "contents.crack=1"), SEED, 0)
    assert made.truth.verdict == "missing"
    assert made.truth.die_quad is None
    assert made.truth.theta_die_deg is None
    assert not (made.parts & 2).any()
    x, y = np.rint(made.truth.cavity_quad.mean(axis=0)).astype(int)
    assert np.ptp(cv2.blur(made.images["bf"], (5, 5))[y - 100 : y + 100, x - 100 : x + 100].mean(axis=2)) < 60


def test_a_crack_moves_the_texture_beside_it() -> None:
    world = world_of("sim", "contents.crack=1", "contents.good=0", "contents.rotate=0", "cracks.kinds=[1,0,0]")
    scene = draw_scene(world, SEED, 0)
    empty = np.zeros((1295, 785), bool)
    moved = marks.total_shift(scene, marks.draw_defects(scene, empty, empty.astype(np.uint8)))
    assert moved is not None
    assert 0.0 < np.hypot(*moved).max() <= 1.0
    still = world_of("sim", "contents.crack=1", "contents.good=0", "contents.rotate=0", "cracks.shift_px=[0,0]")
    scene = draw_scene(still, SEED, 0)
    assert marks.total_shift(scene, marks.draw_defects(scene, empty, empty.astype(np.uint8))) is None


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("contents={good: 0, crack: 0, rotate: 0, both: 0}", "every share is 0"),
        ("rotation.good_most_deg=0.6", "within rotation.limit_deg"),
        ("microscope.jpeg=[95, 85]", "lowest quality"),
        ("cracks.kinds=[0, 0, 0]", "cracks, chips or scratches"),
    ],
)
def test_a_world_that_cannot_be_is_refused(override: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        world_of("sim", override)


# What the checks catch


def test_a_camera_that_sees_defects_elsewhere_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = device.acquire

    def adapted(light, camera, noise):  # type: ignore[no-untyped-def]
        return right(light * np.float32(0.4 / light.mean()), camera, noise)

    monkeypatch.setattr(device, "acquire", adapted)
    assert any("beyond the defect's reach" in row for row in failed(validation.twins(SEED)))


def test_marks_of_emitters_called_cracks_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    told = tuple(
        (scene, replace(surface, marks=[replace(mark, ignore=False) for mark in surface.marks]))
        for scene, surface in validation.sample(SEED)
    )
    monkeypatch.setattr(validation, "sample", lambda seed: told)
    assert any("called cracks" in row for row in failed(validation.masks_and_marks(SEED)))


def _device(number: int, crack: bool) -> Device:
    quad = np.array([(0, 0), (9, 0), (9, 9), (0, 9)], float)
    defect = Defect("crack", "crack", (1.5, 1.5, 3.5, 4.5), 6, 3.0, 1.0, 9.0, False)
    angle, border, blur = np.random.default_rng(number).random(3)
    return Device(
        number, {}, quad, quad, angle, 0.0, (0, 0), False, (defect,) if crack else (),
        border_px=border, blur_px=(blur, blur, blur),
    )  # fmt: skip


def test_statistics_that_give_cracks_away_are_caught() -> None:
    rng = np.random.default_rng(2)
    there = rng.random(80) < 0.5
    sample = audit.Sample(
        [_device(number, bool(crack)) for number, crack in enumerate(there)],
        rng.normal(size=(80, 12)),
        rng.normal(size=(80, 40)),
    )
    assert not failed(audit.shortcuts(sample))
    told = sample.statistics.copy()
    told[:, 3] += 3.0 * there
    assert any("12 statistics" in row for row in failed(audit.shortcuts(replace(sample, statistics=told))))
    posed = [replace(one, theta_ic_deg=float(crack)) for one, crack in zip(sample.truth, there, strict=True)]
    assert any("angle" in row for row in failed(audit.shortcuts(replace(sample, truth=posed))))


def test_an_audit_of_too_few_says_so() -> None:
    with pytest.raises(UsageError, match="at least 16"):
        audit.run_audit("sim", 8, SEED)


def test_the_contact_sheet_shows_every_device(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    write_contact_sheet(path, world_sheet(world_of("real"), SEED, columns=2))
    assert cv2.imread(str(path)).shape == (4 * (18 + 432 + 6), 2 * (262 + 6), 3)
