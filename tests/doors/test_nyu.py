"""Views with depth in every layout, made here, and what is said of broken ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from waferlens.errors import FormatError, InputError
from waferlens.formats.nyu import entries, read_colours, read_views
from waferlens.load.nyu import load_nyu, room

h5py = pytest.importorskip("h5py", reason="the extra `formats` is not installed")

COUNT, H, W = 6, 5, 7
SCENES = ("kitchen_0001a", "kitchen_0001b", "office_0002", "bath_0003", "bedroom_0004", "cafe_0005")


def made() -> tuple[np.ndarray, np.ndarray]:
    """Views `n h w 3` and depths `n h w`, no two pixels alike along rows, columns and channels."""
    rng = np.random.default_rng(5)
    rgb = rng.integers(0, 256, (COUNT, H, W, 3), dtype=np.uint8)
    depth = rng.integers(500, 9000, (COUNT, H, W)).astype(np.float32) / np.float32(1000)
    depth[:, 0, :2] = 0.0
    return rgb, depth


def labelled(path: Path, *, split: bool = False, raw: bool = True) -> Path:
    """As MATLAB writes version 7.3: axes the other way round, strings behind references."""
    rgb, depth = made()
    with h5py.File(path, "w", userblock_size=512) as file:
        file["images"] = rgb.transpose(0, 3, 2, 1)  # h w 3 n there, n 3 w h here
        file["depths"] = np.where(depth == 0, 1, depth).transpose(0, 2, 1)
        if raw:
            file["rawDepths"] = depth.transpose(0, 2, 1)
        names = file.create_dataset("scenes", (1, COUNT), dtype=h5py.ref_dtype)
        for i, scene in enumerate(SCENES):
            file[f"#refs#/{i}"] = np.array([[ord(letter)] for letter in scene], np.uint16)
            names[0, i] = file[f"#refs#/{i}"].ref
        if split:
            file["trainNdxs"], file["testNdxs"] = np.array([[1.0, 2, 3, 4]]), np.array([[5.0, 6]])
    return path


def folders(path: Path) -> Path:
    rgb, depth = made()
    for i, scene in enumerate(SCENES):
        (path / scene).mkdir(parents=True)
        cv2.imwrite(str(path / scene / f"rgb_{i:05d}.png"), rgb[i, ..., ::-1])
        cv2.imwrite(str(path / scene / f"sync_depth_{i:05d}.png"), np.rint(depth[i] * 1000).astype(np.uint16))
    return path


def two_folders(path: Path) -> Path:
    rgb, depth = made()
    for name in ("rgb", "depth"):
        (path / name).mkdir(parents=True)
    for i in range(COUNT):
        cv2.imwrite(str(path / "rgb" / f"rgb_{i:05d}.png"), rgb[i, ..., ::-1])
        cv2.imwrite(str(path / "depth" / f"sync_depth_{i:05d}.png"), np.rint(depth[i] * 1000).astype(np.uint16))
    return path


def fastdepth_h5(path: Path) -> Path:
    rgb, depth = made()
    for i, scene in enumerate(SCENES):
        folder = path / "val" / "official" if i >= 4 else path / "train" / scene
        folder.mkdir(parents=True, exist_ok=True)
        with h5py.File(folder / f"{i:05d}.h5", "w") as file:
            file["rgb"], file["depth"] = np.moveaxis(rgb[i], 2, 0), depth[i]
    return path


def fastdepth_npy(path: Path) -> Path:
    rgb, depth = made()
    path.mkdir()
    np.save(path / "rgb.npy", rgb / 255.0)
    np.save(path / "depth.npy", depth)
    return path


def labelled_folder(path: Path) -> Path:
    path.mkdir()
    labelled(path / "nyu_depth_v2_labeled.mat")
    return path


@pytest.mark.parametrize("make", [labelled_folder, folders, two_folders, fastdepth_h5, fastdepth_npy])
def test_every_layout_tells_the_same_views(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    views = load_nyu(make(tmp_path / "set"))
    order = [int(entry.name[-5:]) for entry in views.entries]  # by rooms, where the layout has them
    assert sorted(order) == list(range(COUNT))
    rgb, depth = (part[order] for part in made())
    assert views.rgb.dtype == np.uint8
    assert views.depth_m.dtype == np.float32
    assert np.array_equal(views.rgb, rgb)
    assert np.allclose(views.depth_m, depth, atol=1e-6)
    assert (views.depth_m[:, 0, :2] == 0).all()


def test_holes_of_the_labelled_set_are_kept_or_filled(tmp_path: Path) -> None:
    path = labelled(tmp_path / "nyu_depth_v2_labeled.mat")
    assert (load_nyu(path).depth_m == 0).sum() == 2 * COUNT
    assert (load_nyu(path, depth="filled").depth_m == 0).sum() == 0
    without = labelled(tmp_path / "other_labeled.mat", raw=False)
    with pytest.raises(FormatError, match="has no `rawDepths`; it holds #refs#, depths, images, scenes"):
        load_nyu(without)


@pytest.mark.parametrize("where", ["inside", "beside"])
def test_the_official_split_is_kept(tmp_path: Path, where: str) -> None:
    path = labelled(tmp_path / "nyu_depth_v2_labeled.mat", split=where == "inside")
    if where == "beside":
        savemat(
            tmp_path / "splits.mat", {"trainNdxs": np.array([[1], [2], [3], [4]]), "testNdxs": np.array([[5], [6]])}
        )
    assert [entry.place for entry in load_nyu(path, "test").entries] == [4, 5]
    train, validation = load_nyu(path, "train").entries, load_nyu(path, "validation").entries
    assert {entry.place for entry in (*train, *validation)} == {0, 1, 2, 3}


@pytest.mark.parametrize("make", [labelled_folder, folders, fastdepth_h5])
def test_no_room_is_on_two_sides(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path / "set")
    sides = {side: load_nyu(path, side).entries for side in ("train", "validation", "test")}
    rooms = [{room(entry.scene or "") for entry in listed} for listed in sides.values()]
    assert sum(map(len, rooms)) == len(set().union(*rooms))
    assert sum(map(len, sides.values())) == COUNT
    assert all(sides.values())


def test_parts_of_a_recording_are_one_room() -> None:
    assert room("kitchen_0029c") == room("kitchen_0029b_out") == room("kitchen_0029") == "kitchen_0029"
    assert room("office_0029") != room("office_kitchen_0029")


def test_a_single_room_cannot_be_split(tmp_path: Path) -> None:
    path = folders(tmp_path / "set")
    for scene in SCENES[1:]:
        for file in (path / scene).iterdir():
            file.unlink()
    assert len(load_nyu(path, "train")) == 1
    with pytest.raises(InputError, match="no view is on the validation side"):
        load_nyu(path, "validation")


def test_red_comes_first(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[..., 2] = 255  # red, as OpenCV has it
    cv2.imwrite(str(tmp_path / "red.png"), pixels)
    assert read_colours(tmp_path / "red.png")[0, 0].tolist() == [255, 0, 0]


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    path = labelled(tmp_path / "nyu_depth_v2_labeled.mat")
    (view,) = read_views(entries(path)[3:4])
    assert view.entry.scene == "bath_0003"
    assert np.array_equal(view.rgb, made()[0][3])


def said_of(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_nyu(path)
    return str(caught.value)


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    assert "is not there" in said_of(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "holds no views: looked for" in said_of(tmp_path / "empty")
    (tmp_path / "v5.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    assert "cannot be opened as HDF5" in said_of(tmp_path / "v5.mat")

    path = two_folders(tmp_path / "lone")
    (path / "depth" / "sync_depth_00002.png").unlink()
    assert re.search(r"rgb_00002.png: there is no depth of number 2 in .*depth", said_of(path))

    path = two_folders(tmp_path / "shallow")
    cv2.imwrite(str(path / "depth" / "sync_depth_00000.png"), np.zeros((H, W), np.uint8))
    assert "depths are uint8; expected 16 bits, in mm" in said_of(path)

    path = two_folders(tmp_path / "short")
    file = path / "rgb" / "rgb_00001.png"
    file.write_bytes(file.read_bytes()[:-20])
    assert "a truncated PNG" in said_of(path)

    path = two_folders(tmp_path / "sizes")
    for name, pixels in (("rgb/rgb_00001", np.zeros((H, H, 3))), ("depth/sync_depth_00001", np.zeros((H, H)))):
        cv2.imwrite(str(path / f"{name}.png"), pixels.astype(np.uint8 if "rgb" in name else np.uint16))
    assert f"is {H}x{H} px, the first view {W}x{H}; use one size" in said_of(path)

    path = fastdepth_npy(tmp_path / "arrays")
    np.save(path / "depth.npy", np.zeros((COUNT, W, H), np.float32))
    assert "do not belong together" in said_of(path)
    np.save(path / "depth.npy", np.full((COUNT, H, W), -1.0))
    assert "depths below 0 m" in said_of(path)
    np.save(path / "depth.npy", np.array({}, dtype=object))
    assert "damaged or unreadable .npy file" in said_of(path)

    path = labelled(tmp_path / "twice_labeled.mat", split=True)
    with h5py.File(path, "r+") as opened:
        opened["testNdxs"][0, 0] = 1.0
    assert "its split names 5 views, but not each of its 6 once" in said_of(path)
