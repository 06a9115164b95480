"""Figures of the wafer station against predictions whose errors are known, and baselines against their definitions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiny import tiny_fields
from waferlens.bundle.wafer import Predicted, WaferSession
from waferlens.bundle.wafer_calibration import WaferCalibration
from waferlens.errors import UsageError
from waferlens.evaluate.intervals import interval_score
from waferlens.evaluate.wafer import CAPTURE_UM, MIXED_UM, evaluate_wafer
from waferlens.load.wafer import Field, read_fields
from waferlens.prepare.wafer_input import DIE, MISSING, class_map
from waferlens.records import COUNTS_PER_UM


class Oracle(WaferSession):
    """Tells the truth with a made error, and what it is told to say of dies and sigma."""

    def __init__(self, fields: list[Field], error: Any = 0.0, sigma_um: float | None = None) -> None:
        self.fields = {field.image.tobytes(): field for field in fields}
        self.known: tuple[str, ...] = ("product", "track")
        self.size_px = None
        self.pitch_um = fields[0].pitch_um
        self.error, self.sigma_um = error, sigma_um
        self.classes: tuple[int, int] | None = (DIE, MISSING)
        self.calibration = WaferCalibration()
        self.asked: list[tuple[bool, bool]] = []

    def predict(self, image: np.ndarray, **known: Any) -> Predicted:
        grey = np.rint(image * 65535).astype(np.uint16)
        field = self.fields[grey.tobytes()]
        self.asked.append((known["product"] is not None, known["track_z_um"] is not None))
        truth = np.nan_to_num(field.height_um)
        height = (truth + (self.error(field) if callable(self.error) else self.error)).astype(np.float32)
        raw = None if self.sigma_um is None else np.full(height.shape, self.sigma_um, np.float32)
        classes = None
        if self.classes is not None:
            kinds = class_map(field.dies or [], field.pitch_um, *height.shape)
            said = np.select([kinds == DIE, kinds == MISSING], self.classes, kinds)
            classes = (said == np.arange(3)[:, None, None]).astype(np.float32)
        return Predicted(height, raw, classes, raw, image, 0)


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> list[Field]:
    folder: Path = tiny_fields(tmp_path_factory.mktemp("wafers") / "fields", fields=12, seed=3)
    made = list(read_fields(folder))
    assert {field.bright for field in made} == {True, False}
    return made


def judged(session: Oracle, fields: list[Field], **options: Any) -> dict[str, Any]:
    return evaluate_wafer(session, fields, session.known, **options)


def test_the_truth_has_no_error(fields: list[Field]) -> None:
    told = judged(Oracle(fields), fields)
    for name in ("mae_um", "rmse_um", "mae_mixed_columns_um", "p95_die_top_um", "false_missing_rate"):
        assert told[name]["all"] == told[name]["dark"] == told[name]["bright"] == 0
    for name in ("in_capture_range", "missing_recall"):
        assert told[name]["all"] == told[name]["dark"] == told[name]["bright"] == 1
    assert told["fields"] == told["wafers"] == 12
    assert told["sites"]["missing"] > 3
    assert told["sites"]["present"] > 8


@pytest.mark.parametrize("error", [-30.0, 51.0])
def test_a_constant_error_is_told_as_it_is(error: float, fields: list[Field]) -> None:
    told = judged(Oracle(fields, error), fields)
    for name in ("mae_um", "rmse_um", "mae_mixed_columns_um", "p95_die_top_um"):
        assert told[name]["all"] == pytest.approx(abs(error), rel=1e-4)
        assert told[name]["all_95"] == pytest.approx((abs(error), abs(error)), rel=1e-4)
    assert told["in_capture_range"]["all"] == float(abs(error) <= CAPTURE_UM)


def test_dark_and_bright_are_told_apart_and_weighed_by_their_pixels(fields: list[Field]) -> None:
    told = judged(Oracle(fields, lambda field: 40.0 if field.bright else 10.0), fields)
    share = np.mean([field.bright for field in fields])
    assert told["mae_um"]["dark"] == pytest.approx(10.0, rel=1e-4)
    assert told["mae_um"]["bright"] == pytest.approx(40.0, rel=1e-4)
    assert told["mae_um"]["all"] == pytest.approx(10 + 30 * share, rel=1e-4)
    assert told["rmse_um"]["all"] == pytest.approx(np.sqrt(100 + 1500 * share), rel=1e-4)
    low, high = told["mae_um"]["all_95"]
    assert 10 < low < told["mae_um"]["all"] < high < 40
    low, high = told["p95_die_top_um"]["all_95"]
    assert low <= told["p95_die_top_um"]["all"] == pytest.approx(40.0, rel=1e-4)
    assert high == pytest.approx(40.0, rel=1e-4)


def test_mixed_columns_are_those_with_a_step(fields: list[Field]) -> None:
    def error(field: Field) -> np.ndarray:
        assert field.height_um is not None
        return np.where(np.ptp(field.height_um, axis=0) > MIXED_UM, 7.0, 3.0)

    told = judged(Oracle(fields, error), fields)
    assert told["mae_mixed_columns_um"]["all"] == pytest.approx(7.0, rel=1e-4)
    assert 3.0 < told["mae_um"]["all"] < 7.0


def test_missing_sites_are_called_by_class_or_by_height(fields: list[Field]) -> None:
    wrong = Oracle(fields)
    wrong.classes = (MISSING, DIE)
    told = judged(wrong, fields)
    assert (told["missing_recall"]["all"], told["false_missing_rate"]["all"]) == (0, 1)
    by_height = Oracle(fields)
    by_height.classes = None
    told = judged(by_height, fields)
    assert (told["missing_recall"]["all"], told["false_missing_rate"]["all"]) == (1, 0)
    flat = Oracle(fields, lambda field: -np.nan_to_num(field.height_um))
    flat.classes = None
    assert judged(flat, fields)["false_missing_rate"]["all"] == 1


def test_what_lies_beyond_the_wafer_is_not_judged(fields: list[Field]) -> None:
    one = fields[0]
    assert one.height_um is not None
    height = one.height_um.copy()
    height[:, :40] = np.nan
    cut = replace(one, height_um=height)
    told = judged(Oracle([cut], 5.0), [cut])
    assert told["mae_um"]["all"] == pytest.approx(5.0, rel=1e-4)
    assert np.isfinite(told["baselines"]["mae_constant_um"]["all"])
    assert told["baselines"]["mae_carrier_um"]["all"] == pytest.approx(np.nanmean(np.abs(height)), rel=1e-4)


def test_without_truth_nothing_is_judged(fields: list[Field]) -> None:
    with pytest.raises(UsageError, match="no field of the data has dense truth"):
        judged(Oracle(fields), [replace(fields[0], height_um=None)])


def test_it_is_told_what_was_asked_for_and_no_more(fields: list[Field]) -> None:
    session = Oracle(fields)
    for known in ((), ("product",), ("track",), ("product", "track")):
        session.asked.clear()
        told = evaluate_wafer(session, fields, known, baselines=False)
        assert set(session.asked) == {("product" in known, "track" in known)}
        assert told["inputs"] == ["image", *known]
        assert "baselines" not in told


def test_baselines_are_what_they_are_said_to_be(fields: list[Field]) -> None:
    told = judged(Oracle(fields), fields)["baselines"]
    heights = np.stack([field.height_um for field in fields])  # type: ignore[list-item]
    tops = np.array([field.product.level_tops_um[-1] for field in fields])[:, None, None]
    assert told["mae_carrier_um"]["all"] == pytest.approx(np.abs(heights).mean(), rel=1e-5)
    assert told["mae_nominal_top_um"]["all"] == pytest.approx(np.abs(heights - tops).mean(), rel=1e-5)
    # the best constant, chosen in hindsight: the median
    best = np.abs(heights - np.median(heights)).mean()
    assert told["mae_constant_um"]["all"] == pytest.approx(best, abs=0.2)  # heights are counted in bins of 0.25 um
    assert all(np.abs(heights - other).mean() > told["mae_constant_um"]["all"] - 0.2 for other in range(0, 800, 25))
    dark = np.array([not field.bright for field in fields])
    expected = np.abs(heights[dark] - np.median(heights)).mean()  # one constant for all
    assert told["mae_constant_um"]["dark"] == pytest.approx(expected, abs=0.2)
    copied = []
    for field in fields:
        order = np.argsort(field.trace.x_counts[field.trace.valid])
        x = field.trace.x_counts[field.trace.valid][order] / COUNTS_PER_UM
        z = field.trace.z_um[field.trace.valid][order]
        copied.append(np.interp((np.arange(heights.shape[2]) + 0.5) * field.pitch_um, x, z))
    expected = np.abs(heights - np.stack(copied)[:, None]).mean()
    assert told["mae_track_copied_um"]["all"] == pytest.approx(expected, rel=1e-3)


def laplace(field: Field) -> np.ndarray:
    seed = int.from_bytes(field.wafer.encode()[-4:], "big")
    assert field.height_um is not None
    return np.random.default_rng(seed).laplace(0, 8.0, field.height_um.shape)


def test_coverage_and_interval_score_of_a_known_error(fields: list[Field]) -> None:
    # of a Laplace error of mean 8 um, a share p lies within -8 ln(1 - p)
    session = Oracle(fields, laplace, sigma_um=8.0)
    factors = {f"{p:g}": [[-np.log(1 - p)]] for p in (0.9, 0.95, 0.99)}
    constant = {name: 8 * row[0][0] for name, row in factors.items()}
    session.calibration = WaferCalibration(((),), factors, constant_um=constant)
    told = judged(session, fields)
    count = 12 * fields[0].image.size
    for p in (0.9, 0.95, 0.99):
        name = f"coverage_{round(100 * p)}"
        assert told[name]["all"] == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / count))
        assert told[f"{name}_missing"]["all"] == pytest.approx(p, abs=0.02)
    error = np.concatenate([laplace(field).ravel() for field in fields])
    half = np.full_like(error, 8 * np.log(10))
    assert told["interval_score_90_um"]["all"] == pytest.approx(interval_score(-half, half, error, 0.9), rel=1e-3)
    assert told["interval_score_90_constant_um"]["all"] == pytest.approx(told["interval_score_90_um"]["all"], rel=1e-6)
    assert session.half_width_um(session.predict(fields[0].image / np.float32(65535), product=None, track_z_um=None),
                                 0.9) == pytest.approx(8 * np.log(10), rel=1e-5)  # fmt: skip


def test_without_sigma_there_is_no_coverage(fields: list[Field]) -> None:
    told = judged(Oracle(fields, 3.0), fields)
    assert told["coverage_90"] == {"all": None, "dark": None, "bright": None}
    assert told["interval_score_90_um"]["all"] is None
