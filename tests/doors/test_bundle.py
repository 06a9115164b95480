"""Bundles: what is written is what is opened, and what was altered is refused by name."""

import json
import zipfile

import numpy as np
import pytest
import yaml

from make_bundle import HEIGHT, WIDTH, calibration, hole_image, make_bundle, network, recipe
from waferlens.bundle.calibration import (
    Calibration,
    Domain,
    MeasurandCalibration,
    PixelCalibration,
    intervals,
    out_of_domain,
    pixel_half_width,
)
from waferlens.bundle.files import open_bundle, shipped, write_bundle
from waferlens.bundle.readout import DOMAIN_FEATURES, read_out
from waferlens.bundle.session import SLICE, Session
from waferlens.bundle.verdict import NG, OK, REVIEW, judge
from waferlens.errors import BundleError, UsageError
from waferlens.ops.hole import UNITS


@pytest.mark.parametrize("name", ["folder", "packed.zip"])
def test_a_bundle_opens_as_it_was_written(tmp_path, name):
    written = make_bundle(tmp_path / name)
    opened = open_bundle(tmp_path / name)
    assert opened.fingerprint == written.fingerprint
    assert opened.name == name.removesuffix(".zip")
    assert opened.recipe == recipe()
    assert opened.runcard == {"kind": "by hand"}
    assert opened.parity is None
    assert opened.calibration == Calibration.from_json(json.loads(json.dumps(calibration().to_json())))
    assert opened.model == network()
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_the_same_parts_give_the_same_bytes(tmp_path):
    make_bundle(tmp_path / "a.zip")
    make_bundle(tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert make_bundle(tmp_path / "c").fingerprint == open_bundle(tmp_path / "a.zip").fingerprint


def test_a_folder_somebody_zipped_opens(tmp_path):
    make_bundle(tmp_path / "lot" / "b")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for path in (tmp_path / "lot" / "b").iterdir():
            archive.write(path, f"b/{path.name}")
    assert open_bundle(tmp_path / "b.zip").recipe == recipe()


@pytest.mark.parametrize(
    ("alter", "told"),
    [
        (lambda folder: (folder / "model.onnx").write_bytes(b"x"), "model.onnx was altered"),
        (lambda folder: (folder / "calibration.json").unlink(), "calibration.json is missing"),
        (lambda folder: (folder / "extra.txt").write_text("x"), "extra.txt is not listed"),
        (lambda folder: (folder / "sha256.json").unlink(), "no sha256.json in it"),
        (lambda folder: (folder / "sha256.json").write_text("{"), "sha256.json is damaged"),
        (
            lambda folder: (folder / "sha256.json").write_text('{"version": 2, "sha256": {}}'),
            "of version 2, this waferlens reads version 1",
        ),
    ],
)
def test_what_was_altered_is_named(tmp_path, alter, told):
    make_bundle(tmp_path / "b")
    alter(tmp_path / "b")
    with pytest.raises(BundleError, match=told):
        open_bundle(tmp_path / "b")


def test_parts_that_do_not_make_a_bundle_are_refused(tmp_path):
    with pytest.raises(BundleError, match=r"runcard\.json is missing; notes\.txt is no part"):
        write_bundle(tmp_path / "b", {"recipe.yaml": "a: 1", "notes.txt": "x"})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="something else than a bundle is here"):
        make_bundle(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").exists()
    make_bundle(tmp_path / "b")
    make_bundle(tmp_path / "b", depth={"nm_per_grey": 2.0})  # a bundle may replace a bundle
    assert open_bundle(tmp_path / "b").recipe["depth"] == {"nm_per_grey": 2.0}


def test_a_name_that_is_none_is_told_with_what_there_is():
    with pytest.raises(BundleError, match="no such folder or zip, and no shipped bundle"):
        open_bundle("hole-fats")
    assert all(open_bundle(name).name == name for name in shipped())


@pytest.mark.parametrize("name", ["calibration.json", "recipe.yaml", "runcard.json"])
def test_broken_parts_are_told_when_they_are_needed(tmp_path, name):
    bundle = make_bundle(tmp_path / "b", parts={name: "[1, 2"})
    with pytest.raises(BundleError, match=name):
        getattr(bundle, name.split(".")[0])


def test_a_calibration_of_another_version_is_refused(tmp_path):
    told = {**calibration().to_json(), "version": 99}
    with pytest.raises(BundleError, match="version 99"):
        _ = make_bundle(tmp_path / "b", parts={"calibration.json": told}).calibration


@pytest.mark.parametrize("sigma", [True, False])
def test_the_network_says_what_it_was_built_to_say(tmp_path, sigma):
    session = Session(make_bundle(tmp_path / "b", parts={"model.onnx": network(sigma)}))
    assert (session.height_px, session.width_px, session.has_sigma) == (HEIGHT, WIDTH, sigma)
    number = 2 * SLICE + 3  # the last slice is not full
    grey = np.random.default_rng(0).uniform(0, 255, (number, 1, HEIGHT, WIDTH)).astype(np.float32)
    depth, found_sigma = session.predict(grey)
    padded = np.pad(grey[:, 0].astype(np.float64), ((0, 0), (1, 1), (1, 1)), mode="edge")
    mean = sum(padded[:, y : y + HEIGHT, x : x + WIDTH] for y in range(3) for x in range(3)) / 9
    np.testing.assert_allclose(depth, 30 + 0.5 * mean, atol=1e-3)
    if sigma:
        np.testing.assert_allclose(found_sigma, 0.5 + 0.001 * grey[:, 0], atol=1e-5)
    else:
        assert found_sigma is None


def test_models_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(BundleError, match="cannot be loaded"):
        Session(make_bundle(tmp_path / "a", parts={"model.onnx": b"no model"}))
    with pytest.raises(BundleError, match=r"takes 64 for height_px, recipe\.yaml says 72"):
        Session(make_bundle(tmp_path / "b", parts={"model.onnx": network(height=64)}))
    bare = write_bundle(tmp_path / "c", {"recipe.yaml": yaml.safe_dump(recipe()), "runcard.json": {}})
    with pytest.raises(BundleError, match=r"no model\.onnx"):
        Session(bare)


def test_a_readout_has_everything_calibration_speaks_about(tmp_path):
    bundle = make_bundle(tmp_path / "b")
    grey = np.stack([hole_image(i) for i in range(5)]).astype(np.float32)[:, np.newaxis]
    found = read_out(Session(bundle), bundle.calibration, grey)
    assert list(found.measurands) == list(UNITS)
    assert set(found.domain) == set(DOMAIN_FEATURES)
    assert found.measurands["depth"] == pytest.approx(np.full(5, 119.3), abs=0.4)
    assert found.plateau == pytest.approx(found.measurands["plateau"])
    # sigma is 0.5 + 0.001 grey, and grey is 240 on the plateau and 0 on the floor
    assert found.features["sigma_plateau"] == pytest.approx(np.full(5, 0.74), abs=0.01)
    assert found.features["sigma_floor"] == pytest.approx(np.full(5, 0.5), abs=0.01)


def test_a_network_without_sigma_takes_the_constant_one(tmp_path):
    bundle = make_bundle(tmp_path / "b", parts={"model.onnx": network(sigma=False)})
    grey = hole_image().astype(np.float32)[np.newaxis, np.newaxis]
    session = Session(bundle)
    assert read_out(session, Calibration(), grey).sigma is None
    assert read_out(session, Calibration(), grey).features == {}
    found = read_out(session, Calibration(PixelCalibration({"0.9": 1.7}, constant=1.25)), grey)
    assert (found.sigma == np.float32(1.25)).all()
    assert found.features["sigma_wall"] == pytest.approx([1.25])


def test_intervals_are_the_formula():
    part = MeasurandCalibration(
        quantiles={"0.9": 2.0, "0.95": 3.0},
        bias_knots=[100.0, 110.0],
        bias_corrections=[1.0, -1.0],
        scale_features=["value", "sigma_wall"],
        feature_means=[100.0, 1.0],
        feature_sds=[10.0, 0.5],
        scale_coefficients=[np.log(0.5), 0.1, 0.2],
    )
    calibrated = Calibration(measurands={"depth": part})
    value = np.array([90.0, 105.0, np.nan])
    features = {"sigma_wall": np.array([1.0, 2.0, 1.0])}
    found = intervals(calibrated, {"depth": value, "volume": value}, features, 0.95)
    scale = 0.5 * np.exp(0.1 * (value - 100) / 10 + 0.2 * (features["sigma_wall"] - 1) / 0.5)
    np.testing.assert_allclose(found["depth"].value, [91.0, 105.0, np.nan])
    np.testing.assert_allclose(found["depth"].high - found["depth"].low, 2 * 3.0 * scale)
    np.testing.assert_array_equal(found["volume"].value, value)
    assert np.isnan(found["volume"].low).all()
    with pytest.raises(UsageError, match=r"depth: no intervals of level 0\.8 .* calibrated: 0\.9, 0\.95"):
        intervals(calibrated, {"depth": value}, features, 0.8)
    assert calibrated.levels() == [0.9, 0.95]


def test_a_direction_stays_on_its_half_circle():
    part = MeasurandCalibration({"0.9": 2.0}, bias_knots=[0.0], bias_corrections=[5.0])
    found = intervals(Calibration(measurands={"orientation_deg": part}), {"orientation_deg": np.array([178.0])}, {})
    assert found["orientation_deg"].value == pytest.approx([3.0])
    assert (found["orientation_deg"].low, found["orientation_deg"].high) == (pytest.approx([1.0]), pytest.approx([5.0]))


def test_domain_is_a_distance_over_its_threshold():
    known = Domain(["mean", "sd"], [100.0, 50.0], [[0.01, 0.0], [0.0, 0.04]], threshold=9.0)
    features = {"mean": np.array([100.0, 130.0, 131.0, np.nan]), "sd": np.full(4, 50.0)}
    outside, score = out_of_domain(Calibration(domain=known), features)
    np.testing.assert_allclose(score, [0.0, 1.0, 31**2 * 0.01 / 9, np.nan])
    assert outside.tolist() == [False, False, True, True]
    outside, score = out_of_domain(Calibration(), features)
    assert not outside.any()
    assert np.isnan(score).all()


def test_pixel_intervals_follow_sigma():
    sigma = np.full((1, 2, 2), 0.5, np.float32)
    assert pixel_half_width(Calibration(PixelCalibration({"0.9": 1.5})), sigma) == pytest.approx(0.75)
    assert np.isnan(pixel_half_width(Calibration(), sigma)).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"bias_knots": [1.0]},
        {"bias_knots": [2.0, 1.0], "bias_corrections": [0.0, 0.0]},
        {"scale_features": ["value"]},
    ],
)
def test_calibrations_whose_parts_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match=r"knots|features"):
        MeasurandCalibration({"0.9": 1.0}, **wrong)


def test_decisions_follow_iso_14253():
    low = np.array([111.0, 109.0, 129.0, 131.0, 105.0, 108.0, np.nan])
    high = np.array([112.0, 111.0, 131.0, 132.0, 135.0, 109.0, np.nan])
    assert judge(low, high, 110.0, 130.0).tolist() == [OK, REVIEW, REVIEW, NG, REVIEW, NG, REVIEW]
    assert judge(low, high, None, 130.0).tolist() == [OK, OK, REVIEW, NG, REVIEW, OK, REVIEW]
    assert judge(np.array([110.0]), np.array([130.0]), 110.0, 130.0).tolist() == [OK]


def test_directions_are_judged_on_the_circle():
    low, high = np.array([178.0, -1.0, 40.0]), np.array([181.0, 2.0, 50.0])
    assert judge(low, high, -3.0, 3.0, period=180.0).tolist() == [OK, OK, NG]
    assert judge(low, high, 177.0, 183.0, period=180.0).tolist() == [OK, OK, NG]
