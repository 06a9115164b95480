"""The hole simulator against closed forms, its published statistics, and predictors that know no physics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from waferlens.errors import InputError, UsageError
from waferlens.simulate.checks import Check
from waferlens.simulate.hole import audit, validation
from waferlens.simulate.hole.contact_sheet import Strip, contact_sheet, world_sheet, write_contact_sheet
from waferlens.simulate.hole.dataset import hole_world
from waferlens.simulate.hole.geometry import draw_structure, gaussian_field
from waferlens.simulate.streams import Stream, stream

SEED = 1


def failed(checks: list[Check]) -> list[str]:
    return [f"{row.name}: {row.got} (expected {row.expected}, {row.tolerance})" for row in checks if not row.passed]


@pytest.mark.parametrize("test", validation.VALIDATIONS, ids=lambda test: test.__name__)
def test_validation(test: Callable[[int], list[Check]]) -> None:
    rows = test(SEED)
    assert rows
    assert not failed(rows)


def test_every_row_has_its_own_name() -> None:
    names = [row.name for row in validation.run_validation(SEED + 1)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("domain", "structures"), [("sim", 64), ("real", 40)])
def test_statistics_and_shortcuts(domain: str, structures: int) -> None:
    rows = audit.run_audit(domain, structures, SEED)
    assert not failed(rows)
    assert sum(row.expected is not None for row in rows) >= 13


def test_a_world_without_targets_is_reported() -> None:
    rows = audit.run_audit("continuous", 8, SEED)
    assert not failed(rows)
    assert {row.name: row.expected for row in rows}["mean [grey]"] is None


def test_an_audit_of_too_few_says_so() -> None:
    with pytest.raises(UsageError, match="at least 8"):
        audit.run_audit("sim", 7, SEED)


def test_edge_bias_grows_from_domain_to_domain() -> None:
    sim, real, real2 = (audit.edge_assignment_bias_px(hole_world(domain)) for domain in ("sim", "real", "real2"))
    assert sim < 0 < real < real2
    assert sim == audit.edge_assignment_bias_px(hole_world("sim", nuisance=1.0))


# A test that cannot fail is none: each fault below was made, or could be.


def test_a_contour_sqrt2_too_rough_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = validation.contour_roughness
    monkeypatch.setattr(validation, "contour_roughness", lambda *args: np.sqrt(2) * right(*args))
    assert len(failed(validation.contour_spread(SEED, draws=300))) == 3
    assert not failed(validation.contour_spectrum(SEED, draws=500))


def test_plain_shot_noise_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_cascade(ideal: np.ndarray, setting: validation.Instrument, rng: np.random.Generator) -> np.ndarray:
        electrons = rng.poisson(setting.dose * setting.yield_plateau * ideal)
        return np.rint(setting.offset + setting.gain * electrons / (setting.dose * setting.yield_plateau))

    monkeypatch.setattr(validation, "acquire", without_cascade)
    assert len(failed(validation.flat_field_noise(SEED))) == 4


def test_noise_in_common_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = validation.draw_pairs

    def same_noise(*args: object, **kwargs: object) -> list:
        return [replace(pair, images=pair.images[[0, 0]]) for pair in right(*args, **kwargs)]  # type: ignore[arg-type]

    monkeypatch.setattr(validation, "draw_pairs", same_noise)
    assert failed(validation.pair_noise(SEED, structures=1))


def test_grey_that_gives_depth_away_is_caught() -> None:
    sample = audit.draw_sample(hole_world("sim"), 8, SEED)
    told = replace(sample, images=sample.depth)
    names = "\n".join(failed(audit.shortcuts(told, (0.85, 0.85))))
    assert "grey lookup /" in names
    assert "blurred" in names


def test_a_level_written_into_the_border_is_caught() -> None:
    sample = audit.draw_sample(hole_world("sim"), 8, SEED)
    level = ((sample.plateau_nm - 155) / 2).astype(np.int16)
    brighter = np.clip(sample.images + level[:, np.newaxis, np.newaxis], 0, 255).astype(np.uint8)
    assert failed(audit.levels(replace(sample, images=brighter)))


# What the pictures are made of


@pytest.mark.parametrize("shape", [(72, 48), (72, 49), (31, 20)])
def test_a_random_field_has_its_spread_and_correlation(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(SEED)
    fields = np.stack([gaussian_field(rng, shape, 1.5, 3.0) for _ in range(400)])
    assert fields.std() == pytest.approx(1.5, rel=0.02)
    for axis in (1, 2):
        correlation = (fields * np.roll(fields, 3, axis)).mean() / 1.5**2
        assert correlation == pytest.approx(np.exp(-0.5), abs=0.03)


def test_a_micro_trench_runs_along_the_foot_of_the_wall_only() -> None:
    plain = hole_world("sim")
    with_trench = plain.model_copy(update={"geometry": plain.geometry.model_copy(update={"micro_trench": 6.0})})
    holes = [draw_structure(world, stream(SEED, "hole-sim", Stream.GEOMETRY, 0)) for world in (plain, with_trench)]
    dug = holes[0].heights(150.0) - holes[1].heights(150.0)
    assert np.abs(dug[36 - 8 : 36 + 8, 24 - 4 : 24 + 4]).max() < 0.05
    assert dug.max() > 0.5
    foot = holes[0].profile[dug > 0.5 * dug.max()]
    assert foot.min() > 0.8


def test_the_contact_sheet_shows_every_image(tmp_path: Path) -> None:
    images = np.full((3, 10, 8), 200, np.uint8)
    heights = np.full((2, 10, 8), 180.0)
    sheet = contact_sheet([Strip("grey", images), Strip("heights", heights, heights=True)])
    assert sheet.shape == (2 * (18 + 20 + 6), 3 * (16 + 6), 3)
    assert (sheet[18:44] == 200).all(2).sum() == 3 * 20 * 16
    top_of_viridis = cv2.applyColorMap(np.full((1, 1), 255, np.uint8), cv2.COLORMAP_VIRIDIS)[0, 0]
    assert (sheet[62:] == top_of_viridis).all(2).sum() == 2 * 20 * 16
    path = tmp_path / "sheet.png"
    write_contact_sheet(path, world_sheet(hole_world("real"), SEED, columns=4))
    assert cv2.imread(str(path)).shape == (2 * (18 + 144 + 6), 4 * (96 + 6), 3)
    with pytest.raises(InputError, match="folder that exists"):
        write_contact_sheet(tmp_path / "no" / "sheet.png", sheet)
