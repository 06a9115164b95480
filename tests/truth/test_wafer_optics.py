"""The optics, camera and sensor of the wafer simulator against closed forms and a slow twin."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from waferlens.simulate.checks import Check
from waferlens.simulate.wafer import camera, optics, validation
from waferlens.simulate.wafer.otf import Lens, transfer_table
from waferlens.simulate.wafer.scene import FIELD_UM
from waferlens.simulate.wafer.validation_scene import SCENE_VALIDATIONS

SEED = 1


def failed(checks: list[Check]) -> list[str]:
    return [f"{row.name}: {row.got} (expected {row.expected}, {row.tolerance})" for row in checks if not row.passed]


@pytest.mark.parametrize(
    "test", [one for one in validation.VALIDATIONS if one not in SCENE_VALIDATIONS], ids=lambda test: test.__name__
)
def test_validation(test: Callable[[int], list[Check]]) -> None:
    rows = test(SEED)
    assert rows
    assert not failed(rows)
    assert len({row.name for row in rows}) == len(rows)


def test_an_image_blurred_in_parts_has_no_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(SEED)
    radiance = np.repeat(np.repeat(rng.uniform(0.03, 0.7, (8, 10)).astype(np.float32), 30, 0), 30, 1)
    height = np.repeat(np.repeat(rng.choice([0, 150, 760], (4, 5)).astype(np.float32), 60, 0), 60, 1)
    pitch, lens = FIELD_UM / 684, Lens(5.0, 0.14)
    whole = optics.defocused(radiance, height, 760.0, pitch, lens)
    monkeypatch.setattr(optics, "TILE_PX", 64)
    tiled = optics.defocused(radiance, height, 760.0, pitch, lens)
    one = validation.PLAIN_CAMERA
    electrons = one.full_well_e * 0.03 / camera.WHITE  # of the darkest carrier
    noise = np.sqrt(electrons + one.read_e**2) * validation.NATIVE_PITCH_UM / pitch * camera.WHITE / one.full_well_e
    assert np.abs(tiled - whole).max() < noise


def test_light_beyond_its_reach_is_none() -> None:
    pitch, lens = 0.9, Lens(5.0, 0.14)  # a grid that holds all the lens passes: a coarser one rings
    point = np.zeros((801, 801), np.float32)
    point[400, 400] = 1.0
    for dz in (0.0, 100.0):
        reach = int(np.ceil(lens.reach_um(dz) / pitch))
        light = optics.defocused(point, np.full_like(point, dz), 0.0, pitch, lens)[400].astype(float)
        assert np.abs(light[: 400 - reach]).max() < 1e-5 * light.max()
        assert light.min() > -1e-4 * light.max()


def test_the_table_is_smooth_where_it_is_looked_up() -> None:
    table = transfer_table()
    assert table[:, 0] == pytest.approx(1.0)
    assert np.abs(table[:, -1]).max() < 0.002
    assert np.abs(np.diff(table, axis=0)).max() < 0.2


# A test that cannot fail is none: each fault below was made, or could be.


def test_a_layer_that_reaches_under_everything_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optics, "_hides", lambda own, farther, nearer: nearer)
    assert any("50 px away" in row for row in failed(validation.nothing_far_away(SEED)))


def test_pixels_that_belong_to_one_surface_only_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = validation.defocused

    def by_majority(radiance, height, focus, pitch, lens, edges):  # type: ignore[no-untyped-def]
        return right(radiance, np.where(edges.share < 0.5, edges.height_um, height), focus, pitch, lens)

    monkeypatch.setattr(validation, "defocused", by_majority)
    assert failed(validation.edges_within_a_pixel(SEED))


def test_a_smear_of_whole_pixels_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "_smeared", lambda image, length_px: image)
    assert len(failed(validation.smear(SEED))) == 3


def test_noise_that_coarse_pixels_do_not_average_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = validation.acquire
    monkeypatch.setattr(
        validation,
        "acquire",
        lambda light, one, pitch, *streams: right(light, one, validation.NATIVE_PITCH_UM, *streams),
    )
    assert len(failed(validation.shot_noise(SEED))) == 3


def test_a_lens_of_another_depth_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = validation.transfer
    monkeypatch.setattr(validation, "transfer", lambda lens, dz, frequency: right(lens, 1.03 * dz, frequency))
    assert len(failed(validation.transfer_of_the_pupil(SEED))) >= 4
    assert failed(validation.strehl(SEED))


def test_a_sensor_that_lags_otherwise_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = validation._scan
    monkeypatch.setattr(
        validation, "_scan", lambda height, sensor, pitch: right(height, validation.PLAIN_SENSOR, pitch)
    )
    assert len(failed(validation.af_lag(SEED))) == 2
