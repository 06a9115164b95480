"""What the wafer simulator draws: one seed is one scene on every grid, truth is told as it is, no shortcut helps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from waferlens.errors import UsageError
from waferlens.records import COUNTS_PER_UM
from waferlens.simulate.checks import Check
from waferlens.simulate.hole.contact_sheet import write_contact_sheet
from waferlens.simulate.wafer import audit, discs, raster, validation_scene
from waferlens.simulate.wafer.contact_sheet import world_sheet
from waferlens.simulate.wafer.dataset import wafer_world
from waferlens.simulate.wafer.design import RADIUS_UM, draw_design
from waferlens.simulate.wafer.field import draw_field, draw_swath, ideal_raster
from waferlens.simulate.wafer.scene import FIELD_UM
from waferlens.simulate.wafer.validation_scene import shipped_world

SEED = 1


def failed(checks: list[Check]) -> list[str]:
    return [f"{row.name}: {row.got} (expected {row.expected}, {row.tolerance})" for row in checks if not row.passed]


@pytest.mark.parametrize("test", validation_scene.SCENE_VALIDATIONS, ids=lambda test: test.__name__)
def test_validation(test: Callable[[int], list[Check]]) -> None:
    rows = test(SEED)
    assert rows
    assert not failed(rows)
    assert len({row.name for row in rows}) == len(rows)


@pytest.fixture(scope="module")
def sample() -> audit.Sample:
    return audit.draw_sample(wafer_world("sim"), 64, SEED)


def test_no_shortcut_gives_the_height_away(sample: audit.Sample) -> None:
    rows = [*audit.contents(sample), *audit.shortcuts(sample), *audit.strip_labels(sample)]
    assert not failed(rows)
    assert sum(row.expected is not None for row in rows) >= 8


@pytest.mark.parametrize("domain", ["real", "stress", "hard"])
def test_other_domains(domain: str) -> None:
    assert not failed(audit.run_audit(domain, 48, SEED))


def test_an_audit_of_too_few_says_so() -> None:
    with pytest.raises(UsageError, match="at least 16"):
        audit.run_audit("sim", 8, SEED)


# Domains


def test_a_swath_ends_with_its_wafer() -> None:
    world = shipped_world("wafer-sim", "surface.particles=0")
    made = draw_swath(world, SEED, 1, 56, 114, 1)
    x = (np.arange(made.image.shape[1]) + 0.5) * made.pitch_um - 28 * FIELD_UM
    away = np.abs(x) > RADIUS_UM
    assert 0.02 < away.mean() < 0.2
    inside = np.abs(x) < 0.5 * RADIUS_UM
    assert made.image[:, away].mean() < 0.2 * made.image[:, inside].mean()
    sampled = np.abs(made.trace.x_counts / COUNTS_PER_UM - 28 * FIELD_UM) > RADIUS_UM + 200
    assert sampled.any()
    assert not made.trace.valid[sampled].any()
    assert made.trace.valid[np.abs(made.trace.x_counts / COUNTS_PER_UM - 28 * FIELD_UM) < 0.5 * RADIUS_UM].mean() > 0.95


def test_focus_follows_the_sensor_where_it_is_told_to() -> None:
    for share, still in ((0, True), (1, False)):
        world = shipped_world("wafer-sim", f"microscope.track_share={share}")
        spans = [np.ptp(draw_field(world, SEED, number, 114).trace.objective_z_um) for number in (0, 3, 6, 9)]
        assert (max(spans) < 1e-3) == still


def test_a_fillet_darkens_the_street_and_not_the_die() -> None:
    plain, with_fillet = (
        shipped_world("wafer-sim", f"surface.fillet={share}", "surface.particles=0", "lattice.missing=[0,0]")
        for share in (0, 1)
    )
    rim = seen = 0
    for number in range(0, 12, 3):
        before, after = (ideal_raster(world, SEED, number, 228) for world in (plain, with_fillet))
        top = before.over_um > 0.9 * before.over_um.max()
        if top.all() or not (before.over_um < 20).any():
            continue
        seen += 1
        inner = cv2.erode(top.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        np.testing.assert_allclose(before.reflectance[inner], after.reflectance[inner], atol=1e-6)
        raised = (after.height_um - before.height_um > 5) & (before.height_um < 20)
        rim += int(raised.sum())
        assert (after.reflectance[raised] < 0.7).all()
    assert seen >= 2
    assert rim > 100


def test_a_chipped_die_keeps_its_other_edges() -> None:
    whole, chipped = (
        shipped_world("wafer-sim", f"surface.chipped={share}", "surface.particles=0", "lattice.missing=[0,0]")
        for share in (0, 1)
    )
    lost = []
    for number in range(0, 12, 3):
        before, after = (ideal_raster(world, SEED, number, 684) for world in (whole, chipped))
        gone = np.abs(before.height_um - after.height_um) > 10
        lost.append(gone.mean())
        assert gone.any(axis=1).sum() < 4 * 30  # rows: a chip is at most 100 um deep, at two dies and their levels
    assert 0 < max(lost) < 0.02


def test_no_texture_is_brighter_than_white() -> None:
    world = shipped_world("wafer-real", "surface.palette=[0.6,0.89]", "surface.texture_contrast=[0.4,0.45]")
    brightest = max(ideal_raster(world, SEED, number, 456).reflectance.max() for number in (0, 3, 6))
    assert brightest <= raster.BRIGHTEST + 1e-3


def test_coverage_is_the_area_of_a_disc() -> None:
    world = shipped_world(
        "wafer-sim", "interconnect.pad_row_share=0", "interconnect.pillar_share=1", "interconnect.solder_share=0"
    )
    bumps = draw_design(world, SEED, 0).bumps
    assert bumps is not None
    for pitch in (1.3, 8.2, 24.6, 49.2):
        cover, rise, light = discs._bump(bumps, pitch, 0.14)
        area = np.pi * (0.5 * bumps.diameter_um) ** 2
        assert cover.sum(axis=(1, 2)) * pitch**2 == pytest.approx(area, rel=0.02)
        np.testing.assert_allclose(rise, cover, atol=1e-6)
        inner = np.pi * (0.5 * bumps.diameter_um - discs.FLANK_UM) ** 2
        assert light.sum(axis=(1, 2)) * pitch**2 == pytest.approx(inner, rel=0.03)


# A test that cannot fail is none: each fault below was made, or could be.


def test_grey_that_gives_height_away_is_caught(sample: audit.Sample) -> None:
    told = replace(sample, images=np.clip(sample.height_um / 3.2, 0, 255).astype(np.uint8))
    assert len(failed(audit.shortcuts(told))) >= 3


def test_colours_that_go_with_a_stack_are_caught(sample: audit.Sample) -> None:
    told = replace(sample, colour=0.3 + sample.top_um / 2000 + 0.1 * (np.arange(len(sample.top_um)) % 2))
    assert any("colour" in row for row in failed(audit.shortcuts(told)))


def test_a_label_that_is_the_truth_is_caught(sample: audit.Sample) -> None:
    truth = 255.0 * (sample.height_um * 32 + 200) / 25_000
    assert failed(audit.strip_labels(replace(sample, label=truth.astype(np.float32))))


def test_flanks_that_darken_whole_pixels_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = discs._bump

    def all_or_nothing(*told):  # type: ignore[no-untyped-def]
        cover, rise, light = right(*told)
        return cover, rise, np.where(light > 0.9 * cover, light, 0).astype(np.float32)

    monkeypatch.setattr(discs, "_bump", all_or_nothing)
    assert failed(validation_scene.rims_alike_on_grids(SEED))


def test_bumps_all_alike_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = validation_scene.draw_design

    def alike(*told):  # type: ignore[no-untyped-def]
        made = right(*told)
        if made.bumps is None:
            return made
        mean = np.full_like(made.bumps.height_um, made.bumps.height_um.mean())
        return replace(made, bumps=replace(made.bumps, height_um=mean))

    monkeypatch.setattr(validation_scene, "draw_design", alike)
    assert failed(validation_scene.bumps_as_told(SEED))


def test_flags_that_do_not_go_with_heights_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = validation_scene.draw_field

    def turned(*told, **more):  # type: ignore[no-untyped-def]
        made = right(*told, **more)
        return replace(made, height_um=made.height_um[::-1, ::-1].copy())

    monkeypatch.setattr(validation_scene, "draw_field", turned)
    assert failed(validation_scene.flags_and_heights(SEED))


def test_the_contact_sheet_shows_every_field(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    write_contact_sheet(path, world_sheet(wafer_world("real"), SEED, columns=2))
    assert cv2.imread(str(path)).shape == (3 * (18 + 228 + 6), 2 * (228 + 6), 3)
