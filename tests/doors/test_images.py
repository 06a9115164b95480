"""Images in: what is read exactly, and what is refused with which reason."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from waferlens.errors import FormatError, InputError
from waferlens.formats.images import MAX_PIXELS, count_pages, decode, read_images, read_pages

RANDOM = np.random.default_rng(1)
GREY8 = RANDOM.integers(0, 256, (72, 48), dtype=np.uint8)
GREY16 = RANDOM.integers(0, 65536, (72, 48), dtype=np.uint16)


def encoded(suffix: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def only(path: Path):
    (image,) = read_images(path)
    return image


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_eight_bits_come_back_exactly(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encoded(suffix, GREY8))
    image = only(path)
    assert image.pixels.dtype == np.uint8
    assert image.full_scale == 255
    assert np.array_equal(image.pixels, GREY8)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_come_back_exactly(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encoded(suffix, GREY16))
    image = only(path)
    assert image.full_scale == 65535
    assert np.array_equal(image.pixels, GREY16)


def test_jpeg_is_read():
    smooth = np.tile(np.linspace(0, 255, 48).astype(np.uint8), (72, 1))
    assert np.abs(decode(encoded(".jpg", smooth)).pixels.astype(int) - smooth).max() <= 4


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("scale", [1, 255])
def test_float_tiff_keeps_its_scale(tmp_path, dtype, scale):
    pixels = (GREY8 / 255 * scale).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    image = only(tmp_path / "a.tif")
    assert image.full_scale == scale
    assert image.pixels.dtype == np.float32
    assert np.array_equal(image.pixels, pixels.astype(np.float32))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_equal_channels_are_grey(suffix):
    assert np.array_equal(decode(encoded(suffix, cv2.merge([GREY8] * 3))).pixels, GREY8)


def test_unequal_channels_are_refused():
    colour = cv2.merge([GREY8, GREY8, GREY8 ^ 1])
    with pytest.raises(FormatError, match="channels are not equal"):
        decode(encoded(".png", colour), "a.png")


def test_alpha_counts_only_when_it_hides_nothing():
    opaque = cv2.merge([GREY8] * 3 + [np.full_like(GREY8, 255)])
    assert np.array_equal(decode(encoded(".png", opaque)).pixels, GREY8)
    opaque[3, 4, 3] = 254
    with pytest.raises(FormatError, match="transparent"):
        decode(encoded(".png", opaque))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
@given(share=st.floats(0.0, 0.999))
def test_a_truncated_file_is_never_an_image(suffix, share):
    whole = encoded(suffix, GREY8)
    with pytest.raises(FormatError) as told:
        decode(whole[: int(share * len(whole))], "a")
    assert told.value.reason


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*"])
)
def test_noise_is_never_an_image(noise, magic):
    with pytest.raises(FormatError):
        decode(magic + noise, "a")


def test_a_flipped_bit_in_a_png_is_noticed():
    whole = bytearray(encoded(".png", GREY8))
    whole[len(whole) // 2] ^= 8
    with pytest.raises(FormatError, match="checksum"):
        decode(bytes(whole))


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_a_decompression_bomb_is_not_unpacked():
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")
    with pytest.raises(FormatError, match="60000x60000 px, more than"):
        decode(bomb)


def test_a_png_whose_data_end_early_is_refused():
    rows = b"".join(b"\0" + GREY8[row].tobytes() for row in range(30))  # 30 of 72 rows, all sums right
    header = struct.pack(">IIBBBBB", 48, 72, 8, 0, 0, 0, 0)
    short = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    with pytest.raises(FormatError):
        decode(b"\x89PNG\r\n\x1a\n" + short)


def test_a_tiff_bomb_is_not_unpacked(tmp_path):
    side = int(MAX_PIXELS**0.5) + 16
    tifffile.imwrite(
        tmp_path / "a.tif",
        shape=(side, side),
        dtype=np.uint8,
        compression="zlib",
        tile=(1024, 1024),
        data=(t for t in [np.zeros((1024, 1024), np.uint8)] * ((side + 1023) // 1024) ** 2),
    )
    with pytest.raises(FormatError, match="more than the 64 Mpx"):
        only(tmp_path / "a.tif")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, 300.0])
def test_impossible_grey_is_refused(tmp_path, bad):
    pixels = GREY8.astype(np.float32)
    pixels[5, 5] = bad
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    with pytest.raises(FormatError, match=r"NaN or infinite|expected 0\.\.1 or 0\.\.255"):
        only(tmp_path / "a.tif")


def test_pages_are_images_and_a_bad_one_hides_no_other(tmp_path):
    path = tmp_path / "a.tif"
    stack = np.stack([GREY8 + np.uint8(i) for i in range(4)]).astype(np.float32)
    stack[2, 0, 0] = np.nan
    tifffile.imwrite(path, stack, photometric="minisblack")
    assert count_pages(path) == 4
    pages = list(read_pages(path))
    assert [isinstance(page, FormatError) for page in pages] == [False, False, True, False]
    assert pages[2].reason.startswith("page 2: ")
    assert [page.page for page in pages if not isinstance(page, FormatError)] == [0, 1, 3]
    assert np.array_equal(pages[3].pixels, stack[3])
    assert [page.page for page in read_pages(path, range(1, 2))] == [1]


def test_pages_under_another_name_are_not_lost_without_a_word(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([GREY8] * 3), photometric="minisblack")
    with pytest.raises(FormatError, match="3 pages under another name"):
        decode((tmp_path / "a.tif").read_bytes(), "a.png")


def test_imagej_stacks_behind_one_directory_are_read(tmp_path):
    path = tmp_path / "a.tif"
    stack = np.stack([GREY16 + np.uint16(i) for i in range(5)])
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "TYX"}, truncate=True)
    with tifffile.TiffFile(path) as tif:
        assert len(tif.pages) == 1
    images = list(read_images(path))
    assert count_pages(path) == len(images) == 5
    assert all(np.array_equal(image.pixels, page) for image, page in zip(images, stack, strict=True))
    path.write_bytes(path.read_bytes()[:-100])
    assert [isinstance(page, FormatError) for page in read_pages(path)] == [False] * 4 + [True]


def test_white_is_zero_is_turned_round(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY16, photometric="miniswhite")
    assert np.array_equal(only(tmp_path / "a.tif").pixels, 65535 - GREY16)


def test_a_grey_palette_is_grey_and_a_coloured_one_is_not(tmp_path):
    ramp = np.arange(256, dtype=np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", GREY8, photometric="palette", colormap=np.stack([ramp] * 3))
    assert np.array_equal(only(tmp_path / "a.tif").pixels, GREY8)
    tifffile.imwrite(tmp_path / "b.tif", GREY8, photometric="palette", colormap=np.stack([ramp, ramp, ramp[::-1]]))
    with pytest.raises(FormatError, match="false-colour"):
        only(tmp_path / "b.tif")


FEI = "[User]\nDate=01/01/2024\n[Scan]\nPixelWidth=1.5e-009\nPixelHeight=1.5e-009\n"


def test_pixel_size_of_thermo_fisher(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY8, extratags=[(34682, "s", 0, FEI, True)])
    assert only(tmp_path / "a.tif").pixel_nm == pytest.approx(1.5)


def test_pixels_that_are_not_square_are_refused(tmp_path):
    text = FEI.replace("Height=1.5", "Height=1.6")
    tifffile.imwrite(tmp_path / "a.tif", GREY8, extratags=[(34682, "s", 0, text, True)])
    with pytest.raises(FormatError, match="not square"):
        only(tmp_path / "a.tif")


def test_pixel_size_of_zeiss(tmp_path):
    text = "\r\n".join(["", "0", "AP_IMAGE_PIXEL_SIZE", "Image Pixel Size = 2.25 nm", "AP_MAG", "Mag = 100 K X", ""])
    tifffile.imwrite(tmp_path / "a.tif", GREY8, extratags=[(34118, "s", 0, text, True)])
    assert only(tmp_path / "a.tif").pixel_nm == pytest.approx(2.25)


@pytest.mark.parametrize(("unit", "pixel_nm"), [("nm", 0.5), ("um", 500.0), ("inch", None)])
def test_pixel_size_of_imagej(tmp_path, unit, pixel_nm):
    tifffile.imwrite(tmp_path / "a.tif", GREY8, imagej=True, resolution=(2, 2), metadata={"unit": unit})
    assert only(tmp_path / "a.tif").pixel_nm == pixel_nm


def test_dots_per_inch_are_no_pixel_size(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY8, resolution=(72, 72), resolutionunit="INCH")
    assert only(tmp_path / "a.tif").pixel_nm is None


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.png: cannot be read: No such file"):
        only(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match="cannot be read"):
        only(tmp_path)
