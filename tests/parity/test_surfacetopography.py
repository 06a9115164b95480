"""Height maps against SurfaceTopography, gwyfile and x3pio: they read what we write, and we read what they write.

Real files stay out of the project, so the files are small and made here: also one of an AFM whose channels are heights,
amplitudes and a phase, written after the header format of NanoScope.
"""

import math
from pathlib import Path

import numpy as np
import pytest

from waferlens.errors import FormatError, InputError
from waferlens.formats.heightmap import read_height_map, write_height_map
from waferlens.measure.surface import measure_surface
from waferlens.ops.roughness import height_parameters
from waferlens.records import HeightMap

surface_topography = pytest.importorskip("SurfaceTopography", reason="the extra `formats` is not installed")
gwyfile = pytest.importorskip("gwyfile", reason="the extra `formats` is not installed")
x3pio = pytest.importorskip("x3pio", reason="the extra `formats` is not installed")


def made() -> HeightMap:
    rng = np.random.default_rng(0)
    heights = rng.normal(size=(19, 33)) + 7
    valid = rng.random(heights.shape) > 0.15
    heights[~valid] = math.nan
    return HeightMap(heights, valid, "um", 0.5, 0.75, "um")


@pytest.mark.parametrize("suffix", [".gwy", ".x3p"])
def test_surfacetopography_reads_ours(tmp_path, suffix):
    path = tmp_path / f"map{suffix}"
    write_height_map(path, made())
    theirs = surface_topography.read_topography(str(path))
    assert theirs.unit == "m"
    assert tuple(theirs.pixel_size) == pytest.approx((0.5e-6, 0.75e-6))
    heights = np.ma.masked_array(theirs.heights().T)
    np.testing.assert_array_equal(np.ma.getmaskarray(heights), ~made().valid)
    np.testing.assert_allclose(heights.compressed() * 1e6, made().heights[made().valid], rtol=1e-12)


def test_gwyfile_reads_ours_and_we_read_its(tmp_path):
    write_height_map(tmp_path / "ours.gwy", made())
    field = gwyfile.load(str(tmp_path / "ours.gwy"))["/0/data"]
    assert (field.xreal, field.yreal) == pytest.approx((33 * 0.5e-6, 19 * 0.75e-6))
    np.testing.assert_allclose(field.data[made().valid] * 1e6, made().heights[made().valid], rtol=1e-12)

    objects = gwyfile.objects
    container = objects.GwyContainer()
    for number, (title, unit) in enumerate([("Phase", "deg"), ("Height", "m")]):
        container[f"/{number}/data"] = objects.GwyDataField(
            np.full((4, 6), 1e-9 * (number + 1)),
            xreal=6e-6,
            yreal=2e-6,
            si_unit_xy=objects.GwySIUnit(unitstr="m"),
            si_unit_z=objects.GwySIUnit(unitstr=unit),
        )
        container[f"/{number}/data/title"] = title
    container.tofile(str(tmp_path / "theirs.gwy"))
    read = read_height_map(tmp_path / "theirs.gwy")
    assert read.origin["channel"] == "Height"
    assert (read.unit, read.pitch_x, read.pitch_y) == ("m", pytest.approx(1e-6), pytest.approx(0.5e-6))
    assert np.all(read.heights == 2e-9)


@pytest.mark.filterwarnings("default")
def test_x3pio_reads_ours_and_we_read_its(tmp_path):
    write_height_map(tmp_path / "ours.x3p", made())
    theirs = x3pio.read(str(tmp_path / "ours.x3p"))
    assert theirs.header.x.increment == 0.5e-6
    np.testing.assert_allclose(np.asarray(theirs.layers[0].z) * 1e6, made().heights, rtol=1e-12)

    heights = np.where(made().valid, made().heights * 1e-6, math.nan)
    x3pio.write(str(tmp_path / "theirs.x3p"), heights, x_scale=2e-6, y_scale=3e-6)
    read = read_height_map(tmp_path / "theirs.x3p")
    assert (read.pitch_x, read.pitch_y, read.unit) == (pytest.approx(2e-6), pytest.approx(3e-6), "m")
    np.testing.assert_array_equal(read.valid, made().valid)
    np.testing.assert_allclose(read.heights[read.valid], heights[read.valid], rtol=1e-6)


@pytest.mark.filterwarnings("default")
def test_whole_numbers_and_their_mask_in_x3p(tmp_path):
    heights = np.where(made().valid, made().heights * 1e-6, math.nan)
    path = tmp_path / "whole.x3p"
    x3pio.write(str(path), heights, x_scale=2e-6, y_scale=3e-6, z_scale=1e-9, z_type=x3pio.DataType.INT16)
    read = read_height_map(path)
    np.testing.assert_array_equal(read.valid, made().valid)
    np.testing.assert_allclose(read.heights[read.valid], heights[read.valid], atol=0.51e-9)
    assert read.origin["remarks"] == []


def test_rms_agrees_with_surfacetopography():
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:64, :80]
    heights = rng.normal(size=x.shape) + 0.2 * x - 0.1 * y
    theirs = surface_topography.Topography(heights.T, (160.0, 128.0), unit="um").detrend("height")
    ours = {row.name: row for row in measure_surface(HeightMap(heights, np.isfinite(heights), "um", 2.0, 2.0, "um"))}
    levelled = np.asarray(theirs.heights()).T
    assert ours["Sq"].value == pytest.approx(levelled.std(), rel=1e-9)
    assert ours["Sz"].value == pytest.approx(np.ptp(levelled), rel=1e-9)
    assert ours["Sa"].value == pytest.approx(height_parameters(levelled).Sa, rel=1e-9)


def nanoscope(path: Path, channels: list[tuple[str, str, str, np.ndarray]], cut: int = 0) -> None:
    """A file of a NanoScope controller: (name, soft scale, hard scale, whole numbers) for each channel."""
    n = 16
    head = [
        r"\*File list", r"\Version: 0x05120130", r"\Date: 01:02:03 PM Mon Feb 05 2024", r"\Data length: 8192",
        r"\*Scanner list", r"\@Sens. Zsens: V 10.00000 nm/V", r"\*Ciao scan list", r"\Scan Size: 800 nm",
        rf"\Samps/line: {n}", rf"\Lines: {n}",
    ]  # fmt: skip
    offset, body = 8192, b""
    for name, scale, direction, values in channels:
        head += [
            r"\*Ciao image list", rf"\Data offset: {offset + len(body)}", rf"\Data length: {values.nbytes}",
            r"\Bytes/pixel: 2", rf"\Samps/line: {n}", rf"\Number of lines: {n}", r"\Scan Size: 800 800 nm",
            r"\Aspect Ratio: 1:1", rf"\Line Direction: {direction}", rf'\@2:Image Data: S [{name}] "{name}"', scale,
        ]  # fmt: skip
        body += values.tobytes()
    head.append(r"\*File list end")
    text = "\r\n".join(head).encode("latin-1") + b"\r\n"
    path.write_bytes(text.ljust(offset, b"\0") + body[: len(body) - cut])


HEIGHT = r"\@2:Z scale: V [Sens. Zsens] (0.005 V/LSB) 65.536 V"
PHASE = r"\@2:Z scale: V [Sens. Phase] (0.0054 deg/LSB) 360.0 deg"


def test_an_afm_gives_its_height_and_not_its_phase(tmp_path):
    rng = np.random.default_rng(2)
    values = rng.integers(-9000, 9000, (16, 16)).astype("<i2")
    path = tmp_path / "scan.001"
    nanoscope(path, [("Phase", PHASE, "Trace", values[::-1]), ("Height", HEIGHT, "Retrace", values)])
    read = read_height_map(path)
    assert read.origin["channel"] == "Height"
    assert (read.unit, read.pitch_x, read.pitch_unit) == ("nm", 50.0, "nm")
    # 65.536 V over 2^16 steps is 1 mV a step, and 10 nm/V make it 0.01 nm.
    np.testing.assert_allclose(np.sort(read.heights, axis=None), 0.01 * np.sort(values, axis=None), rtol=1e-12)
    with pytest.raises(FormatError, match="channel 'Phase' is in"):
        read_height_map(path, "Phase")
    with pytest.raises(InputError, match="has no channel 'Current'"):
        read_height_map(path, "Current")


def test_an_afm_without_height_and_a_truncated_one_are_refused(tmp_path):
    values = np.zeros((16, 16), "<i2")
    path = tmp_path / "scan.001"
    nanoscope(path, [("Phase", PHASE, "Trace", values)])
    with pytest.raises(FormatError, match="no channel is a height map"):
        read_height_map(path)
    nanoscope(path, [("Height", HEIGHT, "Trace", values)], cut=100)
    with pytest.raises(FormatError, match=r"damaged (or unsupported )?Bruker/Veeco NanoScope file"):
        read_height_map(path)


def test_text_with_and_without_numbers(tmp_path):
    path = tmp_path / "map.txt"
    rows = ["# Channel: Topography", "# Width: 40 um", "# Height: 20 um", "# Value units: nm"]
    rows += [" ".join(f"{10 * row + column:.1f}" for column in range(8)) for row in range(4)]
    path.write_text("\n".join(rows))
    read = read_height_map(path)
    assert read.heights.shape == (4, 8)
    assert read.heights[1, 2] == pytest.approx(12.0 if read.unit == "nm" else 0.012)
    path.write_text("once upon a time\nthere was no number\n")
    with pytest.raises(FormatError, match="text without a table of heights; it begins with 'once upon a time'"):
        read_height_map(path)


@pytest.mark.parametrize("size", [5000, 2 * 1201 * 1201])
@pytest.mark.parametrize("fill", ["zeros", "noise"])
def test_bytes_of_a_lucky_length_are_no_terrain(tmp_path, size, fill):
    """SurfaceTopography takes any 2 n² bytes for an SRTM tile; we do not."""
    path = tmp_path / "map.bin"
    noise = np.random.default_rng(3).integers(0, 256, size, dtype=np.uint8).tobytes()
    path.write_bytes(bytes(size) if fill == "zeros" else noise)
    with pytest.raises(FormatError, match="no known height-map format begins with the bytes"):
        read_height_map(path)
