"""`waferlens prepare sync` and `prepare raw`, as they are used: files in, files out, and nothing half written."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from waferlens.cli.main import main
from waferlens.errors import FormatError, InputError
from waferlens.formats.raw_frame import read_raw_frame, write_grey16, write_raw_frame
from waferlens.formats.stage_trace import read_trace, write_trace
from waferlens.formats.swath import read_swath
from waferlens.records import StageTrace
from waferlens.simulate.wafer.af import AfSensor, af_track

PITCH_UM = 8.0
COLUMNS, ROWS = 6000, 40
OFFSET_UM = 120.0


@pytest.fixture(scope="module")
def swath(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Image and two traces of a small swath of 48 mm."""
    root = tmp_path_factory.mktemp("swath")
    rng = np.random.default_rng(0)
    x = (np.arange(COLUMNS) + 0.5) * PITCH_UM
    place = (x + 900.0) % 4600.0
    die = place < 4200.0
    rows = np.ones((ROWS, 1), np.float32)
    height = (rows * np.where(die, 600.0, 0.0)).astype(np.float32)
    light = (rows * np.where(die, np.where(place < 1500, 0.3, 0.45), 0.06)).astype(np.float32)
    grey = np.clip(light + rng.normal(0, 0.01, light.shape), 0, 1)
    tifffile.imwrite(root / "swath.tif", np.rint(grey * 65535).astype(np.uint16), tile=(16, 256))
    sensor = AfSensor(lag_ms=0.8, latency_samples=1)
    for name, way in (("there", 1), ("back", -1)):
        rngs = np.random.default_rng([1, way + 1]), np.random.default_rng([2, way + 1])
        trace = af_track(height, light, PITCH_UM, sensor, *rngs, direction=way, x0_um=-OFFSET_UM)
        write_trace(root / f"{name}.csv", trace)
    return root


def call(*words: object) -> int:
    return main([str(word) for word in ("prepare", *words)])


def sync(root: Path, out: Path, *more: object, stream: object = None, image: object = None) -> int:
    return call(
        "sync", stream or root / "there.csv", image or root / "swath.tif", "--pitch-um", PITCH_UM, "--out", out, *more
    )


def test_a_swath_is_laid(swath, tmp_path, capsys):
    out = tmp_path / "out"
    assert sync(swath, out, "--opposite", swath / "back.csv", "--rows", 3, "--strip", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["latency_samples"] == 1
    assert told["lag_ms"] == pytest.approx(0.8, abs=0.05)
    assert told["offset_um"] == pytest.approx(OFFSET_UM, abs=8.0)
    assert told["separated"]
    assert {"rms_px", "dropouts", "drift_px", "lag_um", "notes"} <= told.keys()
    assert json.loads((out / "report.json").read_text()) == told
    label = tifffile.imread(out / "label.tif")
    assert (label.dtype, label.shape) == (np.float32, (3, COLUMNS))
    assert np.nanquantile(label, 0.9) == pytest.approx(600, abs=10)
    strip = tifffile.imread(out / "strip.tif")
    assert (strip.dtype, strip.shape) == (np.uint8, (3, COLUMNS))
    assert (out / "sync.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in out.iterdir()) == ["label.tif", "report.json", "strip.tif", "sync.png"]


def test_one_scan_is_told_apart_from_two(swath, tmp_path, capsys):
    assert sync(swath, tmp_path) == 0
    said = capsys.readouterr()
    assert "cannot be told apart" in said.err
    assert "not told apart" in said.out


def changed(swath: Path, folder: Path, change) -> Path:
    path = folder / "changed.csv"
    write_trace(path, change(read_trace(swath / "there.csv")))
    return path


def half(trace: StageTrace) -> StageTrace:
    return StageTrace(trace.x_counts[:800], trace.y_counts[:800], trace.z_counts[:800], trace.valid[:800])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (half, "the stream is too short"),
        (lambda t: replace(t, valid=np.zeros_like(t.valid)), "readings is valid"),
        (lambda t: replace(t, x_counts=t.x_counts - 200_000 * (t.x_counts > 700_000)), "turns back"),
    ],
)
def test_a_bad_stream_leaves_nothing_behind(swath, tmp_path, capsys, change, told):
    out = tmp_path / "out"
    path = changed(swath, tmp_path, change)
    assert sync(swath, out, stream=path) == 1
    assert told in capsys.readouterr().err
    assert not out.exists()


def test_a_bad_image_leaves_nothing_behind(swath, tmp_path, capsys):
    whole = (swath / "swath.tif").read_bytes()
    pixels = tifffile.imread(swath / "swath.tif")
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    tifffile.imwrite(tmp_path / "eight.tif", (pixels >> 8).astype(np.uint8))
    holed = (pixels / 65535).astype(np.float32)
    holed[3, 77] = np.nan
    tifffile.imwrite(tmp_path / "nan.tif", holed)
    tifffile.imwrite(tmp_path / "colour.tif", np.stack([pixels[:, :50]] * 3, axis=-1), photometric="rgb")
    (tmp_path / "none.tif").write_bytes(b"")
    for name, told in (
        ("cut", "truncated TIFF"),
        ("eight", "has 8 bits a pixel, not 16"),
        ("nan", "column 77 holds NaN"),
        ("colour", "one grey channel"),
        ("none", "empty"),
        ("missing", "cannot be read"),
    ):
        assert sync(swath, tmp_path / "out", image=tmp_path / f"{name}.tif") == 1
        assert told in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    assert sync(swath, tmp_path / "out", "--bits", 8, image=tmp_path / "eight.tif") == 0


def test_nan_in_the_stream_is_told_with_its_line(swath, tmp_path, capsys):
    lines = (swath / "there.csv").read_text().splitlines()
    words = lines[40].split(",")
    words[9] = "nan"
    lines[40] = ",".join(words)
    path = tmp_path / "nan.csv"
    path.write_text("\n".join(lines) + "\n")
    assert sync(swath, tmp_path / "out", stream=path) == 1
    assert "line 41" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_columns_are_the_means_of_any_image(tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 65536, (37, 1111)).astype(np.uint16)
    write_grey16(tmp_path / f"a.{suffix}", pixels)
    seen = read_swath(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(seen.columns, pixels.mean(axis=0) / 65535)
    assert (seen.rows, seen.width, seen.bits) == (37, 1111, 16)
    np.testing.assert_allclose(seen.look, pixels / 65535, rtol=1e-6)


@pytest.mark.parametrize("layout", [{"tile": (32, 48)}, {"rowsperstrip": 5, "compression": "zlib"}, {"byteorder": ">"}])
def test_tiles_and_strips_give_the_same_columns(tmp_path, layout):
    pixels = np.random.default_rng(1).integers(0, 65536, (301, 3333)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, **layout)
    seen = read_swath(tmp_path / "a.tif")
    np.testing.assert_allclose(seen.columns, pixels.mean(axis=0) / 65535)
    np.testing.assert_allclose(seen.look, pixels[::3, ::3] / 65535, rtol=1e-6)


@pytest.mark.parametrize("each", [2, 4])
def test_raw_frames_come_back_with_all_their_bits(tmp_path, each):
    pixels = np.random.default_rng(0).integers(0, 65536, (31, 45)).astype(np.uint16)
    kind = {2: "<HH", 4: "<II"}[each]
    (tmp_path / "frame.mim").write_bytes(struct.pack(kind, 31, 45) + pixels.astype("<u2").tobytes())
    write_raw_frame(tmp_path / "again.mim", pixels, each)
    assert (tmp_path / "again.mim").read_bytes() == (tmp_path / "frame.mim").read_bytes()
    assert call("raw", tmp_path / "frame.mim", "--out", tmp_path / "out") == 0
    assert call("raw", tmp_path / "frame.mim", "--out", tmp_path / "out", "--png", "--json") == 0
    for read in (tifffile.imread(tmp_path / "out/frame.tif"), cv2.imread(str(tmp_path / "out/frame.png"), -1)):
        assert read.dtype == np.uint16
        np.testing.assert_array_equal(read, pixels)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "the file has 0 bytes"),
        (b"\x01\x00", "the file has 2 bytes"),
        (struct.pack("<HH", 4, 5) + bytes(38), r"2-byte numbers 4 x 5 px, 44 bytes \(2 are missing\)"),
        (struct.pack("<HH", 4, 5) + bytes(43), r"2-byte numbers 4 x 5 px, 44 bytes \(3 too many\)"),
        (struct.pack("<II", 4, 5) + bytes(36), r"4-byte numbers 4 x 5 px, 48 bytes \(4 are missing\)"),
        (struct.pack("<HH", 0, 5), "0 x 5 px"),
    ],
)
def test_what_is_no_raw_frame_is_told(tmp_path, data, told):
    (tmp_path / "frame.mim").write_bytes(data)
    with pytest.raises(FormatError, match=told):
        read_raw_frame(tmp_path / "frame.mim")


def test_good_frames_are_written_beside_bad_ones(tmp_path, capsys):
    write_raw_frame(tmp_path / "good.mim", np.zeros((3, 4), np.uint16))
    (tmp_path / "bad.mim").write_bytes(b"nothing")
    assert call("raw", tmp_path / "bad.mim", tmp_path / "good.mim", "--out", tmp_path / "out", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert [len(told[key]) for key in ("written", "refused")] == [1, 1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.tif"]


def test_two_frames_of_one_name_are_refused(tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_raw_frame(tmp_path / folder / "x.mim", np.zeros((3, 4), np.uint16))
    assert call("raw", tmp_path / "a/x.mim", tmp_path / "b/x.mim", "--out", tmp_path / "out") == 2
    assert "two of the files would become" in capsys.readouterr().err


def test_a_frame_too_large_for_two_bytes_is_told(tmp_path):
    with pytest.raises(InputError, match="write four"):
        write_raw_frame(tmp_path / "x.mim", np.zeros((1, 70000), np.uint16))
