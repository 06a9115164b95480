"""NYU Depth v2 and its kin: colour views with the depth of each pixel, in the four ways in which they are handed on.

    nyu_depth_v2_labeled.mat    MATLAB 7.3: images, depths, rawDepths, scenes; splits.mat beside it, if there is one
    rgb/rgb_00000.jpg           one folder of views, one of depths: 16-bit PNG in mm, paired by their number
    depth/sync_depth_00000.png
    kitchen_0028a/rgb_00000.jpg, kitchen_0028a/sync_depth_00000.png      the same with a folder a scene
    train/kitchen_0028a/00001.h5, val/official/00001.h5                  rgb `3 h w` and depth `h w` in m (FastDepth)
    rgb.npy, depth.npy          one view, or `n` views along the first axis; colours 0..255 or 0..1, depths in m

Depth 0 means not measured, everywhere. MATLAB writes arrays column by column: what is `h w 3 n` there lies as `n 3 w h`
in the file.

Source: Silberman, Hoiem, Kohli, Fergus, ECCV 2012; Wofk et al., ICRA 2019 (FastDepth).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from waferlens.errors import FormatError, InputError
from waferlens.extras import require
from waferlens.formats.images import check_whole, png_header, read_bytes, read_images

Side = Literal["train", "test"]
Depth = Literal["raw", "filled"]
"""Of the labelled set: as the sensor saw it, or with its holes filled in afterwards."""
DEPTHS: dict[str, str] = {"raw": "rawDepths", "filled": "depths"}
PICTURES = (".jpg", ".jpeg", ".png")
MM = np.float32(1e-3)


@dataclass(frozen=True, slots=True)
class Entry:
    """A view that could be read."""

    name: str
    """Of the file without its suffix, or the number within its file."""
    scene: str | None
    """The room it was taken in; None where the layout does not tell."""
    side: Side | None
    """Its side of the official split, where the layout has one."""
    files: tuple[Path, ...]
    """What to read: one file, or that of the colours and that of the depths."""
    place: int = 0
    """Its number within a file of many views."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A view with its depths."""

    entry: Entry
    rgb: UInt8[np.ndarray, "h w 3"]
    depth_m: Float32[np.ndarray, "h w"]
    """0 where not measured [m]"""


def entries(path: str | Path) -> list[Entry]:
    """What lies in a file or folder, in order of scenes and numbers, without decoding any image.

    Raises:
        InputError: there is nothing, or no layout that is known.
        FormatError: a view lacks its depth, or a file is damaged.
    """
    path = Path(path)
    if path.is_file():
        return _mat_entries(path)
    if not path.is_dir():
        raise InputError(path, "is not there; expected a folder of views, or nyu_depth_v2_labeled.mat")
    found = sorted(path.glob("*labeled*.mat"))
    if found:
        return _mat_entries(found[0])
    if (path / "rgb.npy").is_file():
        return _npy_entries(path)
    if (path / "rgb").is_dir():
        return _paired(path / "rgb", path / "depth", None)
    stacked = sorted(path.rglob("*.h5"))
    if stacked:
        return [_h5_entry(path, file) for file in stacked]
    listed = [entry for scene in sorted(p for p in path.iterdir() if p.is_dir()) for entry in _scene(scene)]
    if not listed:
        raise InputError(path, "holds no views: looked for *labeled*.mat, rgb.npy, rgb/ and depth/, *.h5, and folders "
                         "with rgb_*.jpg and sync_depth_*.png")  # fmt: skip
    return listed


def read_views(listed: Sequence[Entry], depth: Depth = "raw") -> Iterator[View]:
    """The views, one by one. A file of many is opened once for all of its views that stand in a row.

    Args:
        listed: From `entries`.
        depth: Of the labelled set: raw, or filled in. Other layouts have one depth only.

    Raises:
        InputError: a file cannot be read.
        FormatError: a file is damaged, or its colours and depths do not belong together.
        MissingExtraError: a .mat or .h5 file needs the `formats` extra.
    """
    at = 0
    while at < len(listed):
        files = listed[at].files
        end = next((i for i in range(at, len(listed)) if listed[i].files != files), len(listed))
        part = listed[at:end]
        match files[0].suffix:
            case ".mat":
                yield from _read_mat(part, depth)
            case ".npy":
                yield from _read_npy(part)
            case ".h5":
                yield from map(_read_h5, part)
            case _:
                yield from map(_read_pair, part)
        at = end


# MATLAB


def _open(path: Path) -> Any:
    h5py = require("formats", "h5py")
    try:
        return h5py.File(path, "r")
    except OSError as wrong:
        raise FormatError(path, f"cannot be opened as HDF5 (MATLAB 7.3 and .h5 files are): {wrong}") from wrong


def _mat_entries(path: Path) -> list[Entry]:
    if path.suffix != ".mat":
        raise InputError(path, "expected nyu_depth_v2_labeled.mat, or a folder")
    with _open(path) as file:
        count = len(_of(file, "images", path))
        scenes = [_text(file, file["scenes"][0, i]) for i in range(count)] if "scenes" in file else [None] * count
        split = {name: np.ravel(file[name][()]) for name in ("trainNdxs", "testNdxs") if name in file}
    beside = path.parent / "splits.mat"
    if not split and beside.is_file():
        split = _splits(beside)
    sides: dict[int, Side] = {}
    for name, side in (("trainNdxs", "train"), ("testNdxs", "test")):
        # MATLAB counts from 1
        sides |= {int(number) - 1: side for number in split.get(name, ())}  # type: ignore[misc]
    if sides and sorted(sides) != list(range(count)):
        raise FormatError(path, f"its split names {len(sides)} views, but not each of its {count} once")
    return [Entry(f"{i:05d}", scenes[i], sides.get(i), (path,), i) for i in range(count)]


def _splits(path: Path) -> dict[str, np.ndarray]:
    from scipy.io import loadmat  # MATLAB 5, which h5py does not read; needed for this one file

    try:
        held = loadmat(path)
        return {name: np.ravel(held[name]) for name in ("trainNdxs", "testNdxs")}
    except Exception as wrong:  # a damaged file fails with anything: passed on
        raise FormatError(path, f"is no official split: {type(wrong).__name__}: {wrong}") from wrong


def _of(file: Any, name: str, path: Path) -> Any:
    if name not in file:
        raise FormatError(path, f"has no `{name}`; it holds {', '.join(sorted(file)) or 'nothing'}")
    return file[name]


def _text(file: Any, reference: Any) -> str:
    """A string of MATLAB: a column of character codes."""
    return "".join(map(chr, np.ravel(file[reference][()])))


def _read_mat(part: Sequence[Entry], depth: Depth) -> Iterator[View]:
    path = part[0].files[0]
    with _open(path) as file:
        images, depths = _of(file, "images", path), _of(file, DEPTHS[depth], path)
        if images.ndim != 4 or images.shape[1] != 3 or depths.shape != (images.shape[0], *images.shape[2:]):
            raise FormatError(
                path, f"images are {images.shape}, depths {depths.shape}; expected n 3 w h and n w h as MATLAB writes"
            )
        for entry in part:
            yield _view(entry, images[entry.place].transpose(2, 1, 0), depths[entry.place].T)


# One .h5 a view


def _h5_entry(root: Path, file: Path) -> Entry:
    above = file.relative_to(root).parts[:-1]
    side: Side | None = "train" if "train" in above else "test" if {"val", "test"} & set(above) else None
    return Entry(file.stem, above[-1] if above and above[-1] not in ("train", "val", "test") else None, side, (file,))


def _read_h5(entry: Entry) -> View:
    path = entry.files[0]
    with _open(path) as file:
        rgb, depth = _of(file, "rgb", path)[()], _of(file, "depth", path)[()]
    if rgb.ndim == 3 and rgb.shape[0] == 3:
        rgb = np.moveaxis(rgb, 0, 2)
    return _view(entry, rgb, depth)


# Arrays


def _npy_entries(path: Path) -> list[Entry]:
    files = (path / "rgb.npy", path / "depth.npy")
    rgb = _mapped(files[0])
    count = 1 if rgb.ndim == 3 else len(rgb)
    return [Entry(f"{i:05d}", None, None, files, i) for i in range(count)]


def _mapped(path: Path) -> np.ndarray:
    try:
        # never objects: a pickle is a program of a stranger
        return np.load(path, allow_pickle=False, mmap_mode="r")
    except FileNotFoundError as wrong:
        raise InputError(path, "is not there") from wrong
    except Exception as wrong:  # the header is Python text, its parser fails with anything: passed on
        raise FormatError(path, f"damaged or unreadable .npy file: {wrong}") from wrong


def _read_npy(part: Sequence[Entry]) -> Iterator[View]:
    rgb, depth = map(_mapped, part[0].files)
    if rgb.ndim == 3:
        rgb, depth = rgb[np.newaxis], depth[np.newaxis]
    if rgb.shape[:-1] != depth.shape:
        raise FormatError(
            part[0].files[1], f"depths are {depth.shape}, colours {rgb.shape}; they do not belong together"
        )
    for entry in part:
        yield _view(entry, rgb[entry.place], depth[entry.place])


# Pictures


def _scene(folder: Path) -> list[Entry]:
    if not any(folder.glob("rgb_*")):
        return []
    return _paired(folder, folder, folder.name)


def _paired(views: Path, depths: Path, scene: str | None) -> list[Entry]:
    """Views and depths of the same number."""
    together = views == depths
    colours, measured = _numbered(views, "rgb" if together else ""), _numbered(depths, "depth" if together else "")
    if not colours:
        raise InputError(views, "holds no rgb_<number>.jpg or .png")
    for number in sorted(colours.keys() ^ measured.keys()):
        lone = colours.get(number) or measured[number]
        what = "depth" if number in colours else "view"
        raise FormatError(lone, f"there is no {what} of number {number} in {depths if what == 'depth' else views}")
    return [Entry(colours[number].stem, scene, None, (colours[number], measured[number])) for number in sorted(colours)]


def _numbered(folder: Path, kind: str) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for file in sorted(folder.glob("*")):
        number = re.search(r"(\d+)$", file.stem)
        if file.suffix.lower() not in PICTURES or number is None or kind not in file.stem.lower():
            continue
        if int(number[1]) in found:
            raise FormatError(file, f"has the number of {found[int(number[1])].name}")
        found[int(number[1])] = file
    return found


def _read_pair(entry: Entry) -> View:
    (depth,) = read_images(entry.files[1])
    if depth.pixels.dtype != np.uint16:
        raise FormatError(entry.files[1], f"depths are {depth.pixels.dtype}; expected 16 bits, in mm")
    return _view(entry, read_colours(entry.files[0]), depth.pixels * MM)


def read_colours(path: str | Path) -> UInt8[np.ndarray, "h w 3"]:
    """A colour picture of 8 bits, red first.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is damaged, or has other than 8 bits.
    """
    data = read_bytes(str(path))
    check_whole(data, str(path))
    header = png_header(data)
    if header is not None and header[2] > 8:
        raise FormatError(path, f"colours of {header[2]} bits; expected 8")
    # no orientation tag turns the view: its depth would not turn with it
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise FormatError(path, "the image data is broken: the decoder gave nothing back")
    return np.ascontiguousarray(pixels[..., ::-1])


def _view(entry: Entry, rgb: np.ndarray, depth: np.ndarray) -> View:
    where = entry.files[-1]
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.shape[:2] != depth.shape:
        raise FormatError(where, f"colours are {rgb.shape}, depths {depth.shape}; expected h w 3 and h w")
    if depth.dtype.kind != "f":
        raise FormatError(where, f"depths are {depth.dtype}; expected floats, in m")
    depth_m = np.array(depth, np.float32, order="C")
    depth_m[~np.isfinite(depth_m)] = 0.0
    if depth_m.size and depth_m.min() < 0:
        raise FormatError(where, f"view {entry.name} has depths below 0 m")
    return View(entry, _bytes(rgb, where), depth_m)


def _bytes(rgb: np.ndarray, where: Path) -> UInt8[np.ndarray, "h w 3"]:
    if rgb.dtype == np.uint8:
        return np.ascontiguousarray(rgb)
    if rgb.dtype.kind != "f" or rgb.min() < 0 or rgb.max() > 255 or not np.isfinite(rgb).all():
        raise FormatError(where, f"colours of {rgb.dtype}; expected 8 bits, or floats in 0..1 or 0..255")
    return np.rint(rgb * (255.0 if rgb.max() <= 1 else 1.0)).astype(np.uint8, order="C")
