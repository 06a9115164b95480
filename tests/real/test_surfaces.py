"""Twenty files of real instruments: seventeen are measured, three are refused.

The expected units, pitches and heights were read from the files' own headers and bytes, and agree with Gwyddion 2.62.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from waferlens import units
from waferlens.errors import FormatError
from waferlens.formats.heightmap import read_height_map
from waferlens.measure.surface import measure_surface

pytestmark = pytest.mark.real_data
pytest.importorskip("SurfaceTopography", reason="the extra `formats` is not installed")


@dataclass(frozen=True)
class Known:
    """What a file is known to hold."""

    channel: str
    shape: tuple[int, int]
    unit: str
    pitch_um: tuple[float, float]
    lowest_um: float
    highest_um: float
    invalid: int = 0
    sq_um: float = 0.0


# Sq: least-squares plane off, nothing left out; by numpy.linalg.lstsq from the data fields of Gwyddion, for the text
# from its numbers, and for MNT from its twin in BCR.
GOOD = {
    "al3d-1.al3d": Known("Default", (296, 200), "m", (0.438027,) * 2, 76323.2037, 76358.1544, sq_um=0.2898221),
    "bcrf-1.bcrf": Known("Default", (600, 960), "nm", (1.8514625, 1.8514633), 49.36861, 51.59237, sq_um=0.02436725),
    "di-1.di": Known("Height", (512, 512), "nm", (0.0009765625,) * 2, -0.03030637, 0.02889219, sq_um=0.009843662),
    "di-3.di": Known("ZSensor", (256, 256), "nm", (0.0390625,) * 2, -0.6461143, 0.5640163, sq_um=0.03522292),
    "frt-1.frt": Known("default", (500, 500), "m", (24.0,) * 2, 0.0, 305.2144, 76_456, sq_um=4.396006),
    "matrix-4.txt": Known("Default", (305, 75), "m", (0.369862,) * 2, -0.2968809, 0.2929150, sq_um=0.07373059),
    "metropro-1.dat": Known("Default", (480, 640), "m", (1.098252,) * 2, 50.108276, 51.471332, sq_um=0.01333498),
    "mnt-1.mnt": Known("A48_10x_P1", (600, 960), "um", (1.8533931, 1.8545543), 49.36861, 51.59237, sq_um=0.02436725),
    "nid-1.nid": Known(
        "Scan forward (Z-Axis)", (256, 256), "m", (0.078125,) * 2, -1.982578, -0.9253918, sq_um=0.007111917
    ),
    "opd-1.opd": Known("Raw", (480, 640), "um", (0.19673303,) * 2, -0.35255698, -0.22340282, 116, sq_um=0.006711198),
    "plu-1.plu": Known("layer0", (576, 768), "um", (1.66,) * 2, -111.23047, -101.21484, sq_um=0.01828196),
    "spot_1-1000nm.ibw": Known(
        "HeightTrace", (256, 256), "m", (0.07843137,) * 2, -0.7046239, -0.3312335, sq_um=0.009552239
    ),
    "stp-1.stp": Known("Default", (256, 256), "nm", (0.00234375,) * 2, -0.00086293, 0.01283788, sq_um=0.00163534),
    "sur-2.sur": Known("Default", (484, 563), "um", (3.4840002,) * 2, 8.912, 10.388, 117, sq_um=0.01710414),
    "top-1.top": Known("Default", (256, 256), "nm", (0.00234375,) * 2, 0.1150380, 0.1339231, sq_um=0.001613985),
    "x3p-2.x3p": Known("Height", (650, 650), "m", (0.127656510, 0.314582114), -0.3144207, 0.2399155, sq_um=0.07719303),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_real_file_is_read_as_its_header_says(real_data, name):
    known, read = GOOD[name], read_height_map(real_data / "surfaces" / name)
    assert read.origin["channel"] == known.channel
    assert read.heights.shape == known.shape
    assert read.unit == known.unit
    pitch = [units.convert(p, read.pitch_unit, "um") for p in (read.pitch_x, read.pitch_y)]
    assert pitch == pytest.approx(known.pitch_um, rel=2e-7)
    assert int((~read.valid).sum()) == known.invalid
    np.testing.assert_array_equal(np.isfinite(read.heights), read.valid)
    heights = units.convert(read.heights[read.valid], read.unit, "um")
    assert heights.min() == pytest.approx(known.lowest_um, rel=1e-5)
    assert heights.max() == pytest.approx(known.highest_um, rel=1e-5)
    sq = next(row for row in measure_surface(read) if row.name == "Sq")
    assert units.convert(sq.value, sq.unit, "um") == pytest.approx(known.sq_um, rel=1e-6)


def test_a_table_without_units_is_measured_without_units(real_data):
    read = read_height_map(real_data / "surfaces" / "xyz-1.txt")
    assert (read.unit, read.pitch_unit, read.pitch_x, read.heights.shape) == ("grey", "px", 1.0, (4, 4))
    assert np.argwhere(read.heights == 2).tolist() == [[1, 1], [2, 1]]  # (x, y) = (1, 1) and (1, 2)
    assert {row.unit for row in measure_surface(read)} == {"1", "grey", "grey/px"}


def test_one_surface_in_two_formats_is_one_surface(real_data):
    bcr = read_height_map(real_data / "surfaces" / "bcrf-1.bcrf")
    mnt = read_height_map(real_data / "surfaces" / "mnt-1.mnt")
    np.testing.assert_allclose(bcr.heights / 1000, mnt.heights, atol=1e-5)
    # The BCR file gives the length between the first and the last point: 959 and 599 spacings.
    assert bcr.pitch_x / 1000 * 960 / 959 == pytest.approx(mnt.pitch_x, rel=1e-6)
    assert "larger" in bcr.origin["remarks"][0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("di_corrupted.di", "NanoScope file: File is not large enough"),
        ("nonsense_txt_file.txt", "text without a table of heights; it begins with 'This is nonsense"),
        ("wrongnpyfile.npy", "a NumPy array that was damaged by a text conversion"),
    ],
)
def test_a_bad_file_is_refused_with_its_reason(real_data, name, reason):
    with pytest.raises(FormatError, match=reason):
        read_height_map(real_data / "surfaces" / name)


def test_the_known_figures_of_the_chip(real_data):
    """Tilt 0.55/-0.36 um/mm and 0.68 um rms after levelling, published for the heights between 1 and 99 %."""
    chip = read_height_map(real_data / "surfaces" / "frt-1.frt")
    trimmed = {row.name: row.value for row in measure_surface(chip, trim_percent=1)}
    assert round(trimmed["tilt_x"], 2) == 0.55
    assert round(trimmed["tilt_y"], 2) == -0.36
    assert round(trimmed["rms_levelled"], 2) == 0.68
    for how in ({"outliers": True}, {"level": "robust", "outliers": True}):
        robust = {row.name: row.value for row in measure_surface(chip, **how)}
        assert robust["tilt_x"] == pytest.approx(0.55, abs=0.015)
        assert robust["tilt_y"] == pytest.approx(-0.36, abs=0.015)
        assert robust["rms_levelled"] == pytest.approx(0.68, abs=0.015)
    plain = {row.name: row.value for row in measure_surface(chip)}
    assert plain["valid_fraction"] == 1 - 76_456 / 250_000
    assert plain["rms_robust"] == pytest.approx(0.68, abs=0.015)
    assert plain["rms_levelled"] > 4  # the spikes


def test_the_whole_folder_in_one_call(real_data, tmp_path):
    files = sorted(path for path in (real_data / "surfaces").iterdir() if path.suffix != ".md")
    assert len(files) == 20
    command = [sys.executable, "-m", "waferlens", "measure", "--json", "--figures", str(tmp_path), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    records = json.loads(done.stdout)
    assert {Path(record["file"]).name for record in records} == {*GOOD, "xyz-1.txt"}
    assert len({record["file"] for record in records}) * 17 == len(records)
    for name in ("di_corrupted.di", "nonsense_txt_file.txt", "wrongnpyfile.npy"):
        assert f"{name}: " in done.stderr
    assert len(done.stderr.strip().splitlines()) == 3
    assert len(list(tmp_path.glob("*.png"))) == 17
