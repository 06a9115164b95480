"""Packed maps: read back exactly, and by tools that know nothing of us."""

import cv2
import numpy as np
import pytest
import tifffile

from waferlens.errors import FormatError, InputError
from waferlens.formats.map_stack import MapStack, read_map_stack, write_map_stack

RANDOM = np.random.default_rng(2)


def stack(n: int, sigma: bool = True, **more) -> MapStack:
    maps = RANDOM.normal(size=(2, n, 72, 48)).astype(np.float32)
    names = [f"lot/ä image {i}.png" for i in range(n)]
    return MapStack(maps[0], maps[1] if sigma else None, more.get("unit", "nm"), more.get("pixel_nm"), names)


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("sigma", [True, False])
@pytest.mark.parametrize(("unit", "pixel_nm"), [("nm", 0.8), ("grey", None)])
def test_maps_read_back_exactly(tmp_path, n, sigma, unit, pixel_nm):
    written = stack(n, sigma, unit=unit, pixel_nm=pixel_nm)
    write_map_stack(tmp_path / "m.tif", written)
    read = read_map_stack(tmp_path / "m.tif")
    assert np.array_equal(read.heights, written.heights)
    assert read.sigma is None if not sigma else np.array_equal(read.sigma, written.sigma)
    assert (read.unit, read.names) == (unit, written.names)
    assert read.pixel_nm == (None if pixel_nm is None else pytest.approx(pixel_nm))
    last = read_map_stack(tmp_path / "m.tif", range(n - 1, n))
    assert np.array_equal(last.heights[0], written.heights[-1])
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.tif"]


def test_other_tools_open_them(tmp_path):
    written = stack(3)
    write_map_stack(tmp_path / "m.tif", written)
    with tifffile.TiffFile(tmp_path / "m.tif") as tif:
        assert tif.is_imagej
        assert len(tif.pages) == 6
        assert tif.asarray().shape == (3, 2, 72, 48)
    fine, pages = cv2.imreadmulti(str(tmp_path / "m.tif"), flags=cv2.IMREAD_UNCHANGED)
    assert fine
    assert np.array_equal(pages[3], written.sigma[1])


def test_what_is_no_stack_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_map_stack(tmp_path / "m.tif")
    tifffile.imwrite(tmp_path / "m.tif", np.zeros((4, 72, 48), np.float32), photometric="minisblack")
    with pytest.raises(FormatError, match="not a stack of maps"):
        read_map_stack(tmp_path / "m.tif")
    (tmp_path / "m.tif").write_bytes(b"II*\0 no")
    with pytest.raises(FormatError, match="damaged"):
        read_map_stack(tmp_path / "m.tif")
    write_map_stack(tmp_path / "m.tif", stack(3))
    with pytest.raises(FormatError, match="has 3 maps"):
        read_map_stack(tmp_path / "m.tif", range(3, 4))
    with pytest.raises(InputError, match="cannot be written"):
        write_map_stack(tmp_path / "nowhere" / "m.tif", stack(1))
