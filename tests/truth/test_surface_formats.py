"""Our own height-map formats give back what was written, and refuse what is broken."""

import math
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from waferlens import units
from waferlens.errors import FormatError, InputError, UsageError
from waferlens.formats import height_tiff
from waferlens.formats.height_parts import Offer, choose_channel
from waferlens.formats.heightmap import read_height_map, write_height_map
from waferlens.records import HeightMap


def made(dtype=np.float64, sigma: bool = False, **changes) -> HeightMap:
    rng = np.random.default_rng(0)
    heights = rng.normal(size=(17, 31)).astype(dtype) + 5
    valid = rng.random(heights.shape) > 0.2
    heights[~valid] = math.nan
    known = HeightMap(heights, valid, "um", 0.5, 0.75, "um", origin={"instrument": "µ-scope"})
    if sigma:
        known = replace(known, sigma=np.full(heights.shape, 0.1, np.float32))
    return replace(known, **changes)


def same(read: HeightMap, wrote: HeightMap, tolerance: float = 1e-14) -> None:
    np.testing.assert_array_equal(read.valid, wrote.valid)
    np.testing.assert_array_equal(np.isnan(read.heights), ~wrote.valid)
    back = units.convert(read.heights.astype(np.float64), read.unit, wrote.unit)
    np.testing.assert_allclose(back[wrote.valid], wrote.heights[wrote.valid], rtol=tolerance, atol=tolerance)
    for ours, theirs in ((read.pitch_x, wrote.pitch_x), (read.pitch_y, wrote.pitch_y)):
        assert units.convert(ours, read.pitch_unit, wrote.pitch_unit) == pytest.approx(theirs, rel=1e-14)


@pytest.mark.parametrize("suffix", [".gwy", ".x3p", ".tif"])
@pytest.mark.parametrize("unit", ["nm", "um", "m"])
def test_a_map_comes_back(tmp_path, suffix, unit):
    wrote = made(unit=unit)
    path = tmp_path / f"map{suffix}"
    write_height_map(path, wrote)
    same(read_height_map(path), wrote)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tiff_keeps_type_unit_sigma_and_origin(tmp_path, dtype):
    wrote = made(dtype, sigma=True)
    write_height_map(tmp_path / "map.tif", wrote)
    read = read_height_map(tmp_path / "map.tif")
    assert read.heights.dtype == dtype
    assert (read.unit, read.pitch_unit) == ("um", "um")
    np.testing.assert_array_equal(read.heights, wrote.heights)
    np.testing.assert_array_equal(read.sigma, wrote.sigma)
    assert read.origin["before"] == {"instrument": "µ-scope"}


def test_gwy_keeps_sigma(tmp_path):
    wrote = made(sigma=True)
    write_height_map(tmp_path / "map.gwy", wrote)
    read = read_height_map(tmp_path / "map.gwy")
    assert read.origin["channel"] == "Height"
    np.testing.assert_allclose(units.convert(read.sigma, "m", "um"), wrote.sigma, rtol=1e-6)


def test_sixteen_bits_are_exact_to_half_a_step(tmp_path):
    wrote = made()
    height_tiff.write(tmp_path / "map.tif", wrote, bits=16)
    step = float(np.nanmax(wrote.heights) - np.nanmin(wrote.heights)) / 65_534
    same(read_height_map(tmp_path / "map.tif"), wrote, 0.51 * step)
    with pytest.raises(UsageError, match="16 bits hold heights only"):
        height_tiff.write(tmp_path / "map.tif", made(sigma=True), bits=16)


def test_sixteen_bits_of_a_flat_map(tmp_path):
    wrote = made(heights=np.full((17, 31), 2.5), valid=np.ones((17, 31), bool))
    height_tiff.write(tmp_path / "map.tif", wrote, bits=16)
    same(read_height_map(tmp_path / "map.tif"), wrote)


def test_an_array_needs_a_pitch(tmp_path):
    wrote = made(np.float32)
    path = tmp_path / "map.npy"
    write_height_map(path, wrote)
    with pytest.raises(FormatError, match="says no pitch; give it with --pitch-um"):
        read_height_map(path)
    read = read_height_map(path, pitch_um=2.5)
    assert (read.unit, read.pitch_x, read.pitch_y, read.pitch_unit) == ("grey", 2.5, 2.5, "um")
    read = read_height_map(path, pitch_um=2.5, unit="mm")
    assert read.unit == "um"
    np.testing.assert_allclose(read.heights[read.valid], 1000 * wrote.heights[wrote.valid], rtol=1e-6)


def test_what_a_file_says_is_not_overruled(tmp_path):
    write_height_map(tmp_path / "map.gwy", made())
    read = read_height_map(tmp_path / "map.gwy", pitch_um=99, unit="nm")
    assert (read.unit, read.pitch_unit) == ("m", "m")
    assert read.pitch_x == pytest.approx(0.5e-6)


def test_uncalibrated_maps_keep_out_of_formats_of_lengths(tmp_path):
    for changes in ({"unit": "grey"}, {"pitch_unit": "px"}):
        for suffix in (".gwy", ".x3p"):
            with pytest.raises(UsageError, match="this format holds lengths"):
                write_height_map(tmp_path / f"map{suffix}", made(**changes))
    write_height_map(tmp_path / "map.tif", made(unit="grey", pitch_unit="px"))
    read = read_height_map(tmp_path / "map.tif")
    assert (read.unit, read.pitch_unit, read.pitch_y) == ("grey", "px", 0.75)


def test_unknown_endings_and_missing_files_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"written as \.gwy, \.x3p, \.tif, \.tiff, \.npy, not as '\.sur'"):
        write_height_map(tmp_path / "map.sur", made())
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_height_map(tmp_path / "absent.gwy")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_height_map(tmp_path)
    with pytest.raises(UsageError, match="the pitch must be a positive number"):
        read_height_map(tmp_path, pitch_um=0)
    with pytest.raises(UsageError, match="'grey' is none"):
        read_height_map(tmp_path, unit="grey")


@pytest.mark.parametrize("suffix", [".gwy", ".x3p", ".tif", ".npy"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_truncated_files_are_refused(tmp_path, suffix, share):
    path = tmp_path / f"map{suffix}"
    write_height_map(path, made())
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(FormatError):
        read_height_map(path, pitch_um=1)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("suffix", [".gwy", ".x3p", ".npy"])
def test_damaged_files_fail_with_a_reason_or_not_at_all(tmp_path, suffix, seed):
    path = tmp_path / f"map{suffix}"
    write_height_map(path, made())
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, min(len(data), 700), 3):
        data[place] = rng.integers(0, 256)
    path.write_bytes(data)
    with suppress(InputError):  # anything else would be an unexpected failure
        read = read_height_map(path, pitch_um=1)
        assert read.heights.shape == read.valid.shape


def repacked(path: Path, edit) -> None:
    """Rewrite the archive's main.xml."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["main.xml"] = edit(members["main.xml"].decode()).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("<SizeX>31<", "<SizeX>30<", "has 4216 bytes where the header promises 4080"),
        ("<SizeX>31<", "<SizeX>99999999<", "at most 536870912 are read"),
        ("<SizeZ>1<", "<SizeZ>2<", "2 layers; one layer is read"),
        ("SUR<", "PRF<", "holds PRF, not a surface"),
        ("<AxisType>I<", "<AxisType>A<", "no constant increment"),
        ("bindata/data.bin", "bindata/gone.bin", "names 'bindata/gone.bin', which is not in the archive"),
        ("<SizeX>31<", "<SizeX>many<", "Record3/MatrixDimension/SizeX is 'many', not a number"),
        ("<Increment>5e-07<", "<Increment>-1<", "the pitch must be positive"),
        ("?>\n", '?>\n<!DOCTYPE x [<!ENTITY a "b">]>\n', "declares a document type"),
    ],
)
def test_x3p_headers_must_fit_their_points(tmp_path, old, new, reason):
    path = tmp_path / "map.x3p"
    write_height_map(path, made())
    repacked(path, lambda text: text.replace(old, new, 1))
    with pytest.raises(FormatError, match=reason):
        read_height_map(path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a PNG picture, no height map"),
        (b"\xef\xbf\xbdNUMPY\x01\x00v\x00{'descr': ", "a NumPy array that was damaged by a text conversion"),
    ],
)
def test_what_is_certainly_no_height_map_is_called_by_its_name(tmp_path, data, reason):
    path = tmp_path / "file.dat"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=reason):
        read_height_map(path)


def test_arrays_that_are_no_maps_are_refused(tmp_path):
    path = tmp_path / "array.npy"
    for array, reason in (
        (np.zeros((4, 4), np.uint8), "holds uint8; heights are floats"),
        (np.zeros((2, 4, 4)), "an array of 2 x 4 x 4: a profile or a stack"),
        (np.zeros((1, 40)), "an array of 1 x 40: a profile or a stack"),
        (np.array([{}], dtype=object), "damaged or unreadable"),
    ):
        np.save(path, array, allow_pickle=True)
        with pytest.raises(FormatError, match=reason):
            read_height_map(path, pitch_um=1)


def test_pictures_in_tiff_are_no_heights(tmp_path):
    import tifffile

    path = tmp_path / "picture.tif"
    tifffile.imwrite(path, np.zeros((20, 20), np.uint16))
    with pytest.raises(FormatError, match="grey values without unit, scale and pitch are no heights"):
        read_height_map(path)
    tifffile.imwrite(path, np.ones((20, 20), np.float32))
    assert read_height_map(path, pitch_um=3, unit="um").pitch_x == 3


def test_the_height_channel_is_chosen_and_never_another_quantity():
    path = Path("afm.ibw")
    offers = [
        Offer("Phase", "deg"),
        Offer("AmplitudeTrace", "m"),  # amplitudes are lengths too
        Offer("HeightRetrace", "m"),
        Offer("HeightTrace", "m"),
        Offer("Current", "A"),
        Offer("Profile", "m", is_map=False),
    ]
    assert choose_channel(path, offers) == 3
    assert choose_channel(path, offers, "heightretrace") == 2
    assert choose_channel(path, offers, "2") == 2
    with pytest.raises(FormatError, match="channel 'Phase' is in 'deg' and no height map"):
        choose_channel(path, offers, "Phase")
    with pytest.raises(InputError, match=r"has no channel 'Adhesion'; channels: 0: Phase \[deg\]"):
        choose_channel(path, offers, "Adhesion")
    with pytest.raises(FormatError, match=r"no channel is a height map .* 0: Phase \[deg\], 1: AmplitudeTrace \[m\]"):
        choose_channel(path, offers[:2])
