"""The challenge's folder as it is found in the wild: which files belong together, what is wrong, and fast arrays.

Copies of that data set carry stray checkpoint files of notebooks, images stored as RGB, halves of pairs. None of it
stops the reading; each oddity is one `Problem`, and a problem says whether data is lost by it.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from waferlens.errors import FormatError, InputError
from waferlens.formats import challenge, images
from waferlens.formats.challenge import IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX

THREADS = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One oddity of a folder."""

    path: str
    """Relative to the root, or the site or structure it concerns."""
    what: str
    loses_data: bool
    """Whether an image or label that is there, or should be, cannot be used."""

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


class SimHole(NamedTuple):
    """A simulated image and its truth."""

    sem: str
    """Path relative to the root."""
    depth: str | None
    """Path of the depth map relative to the root; None if it is missing."""
    structure: str
    """What splits go by: the base name, the same in all cases and noise draws."""
    case: int
    itr: int


class RealHole(NamedTuple):
    """A real image and what is known of its site."""

    sem: str
    site: str
    """What splits go by: `depth_<bucket>_site_<id>`, as in the table of depths."""
    bucket: int
    average_depth: float
    """NaN if the table does not know the site [nm]"""


@dataclass(slots=True)
class HoleSet:
    """The files of one folder in the challenge's layout, paired, in a fixed order."""

    root: Path
    sim: list[SimHole] = field(default_factory=list)
    real: list[RealHole] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def images(self) -> int:
        """How many SEM images there are."""
        return len(self.sim) + len(self.real) + len(self.test)

    @property
    def loses_data(self) -> bool:
        """Whether any problem costs an image or a label."""
        return any(problem.loses_data for problem in self.problems)


@dataclass(slots=True)
class SimArrays:
    """Simulated holes in memory, in the order of `HoleSet.sim`; all arrays have one entry an image."""

    sem: UInt8[np.ndarray, "n 72 48"]
    """[grey]"""
    depth: UInt8[np.ndarray, "n 72 48"]
    """Depth maps of the challenge: the plateau at 135..175, deeper is smaller [grey]"""
    structure: np.ndarray
    """Name of the structure, what splits go by."""
    case: Int[np.ndarray, " n"]
    itr: Int[np.ndarray, " n"]
    problems: list[Problem]
    """What was left out, and why."""


def scan(root: str | Path) -> HoleSet:
    """Finds what belongs together in a folder, by names alone; no image is opened.

    Args:
        root: the folder that holds `simulation_data`, `train` or `test`.

    Raises:
        InputError: there is no such folder, or nothing of the layout in it.
        FormatError: the table of site depths is broken.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(root, "no such folder")
    holes = HoleSet(root)
    sems: dict[tuple[str, int], dict[int, tuple[str, int]]] = defaultdict(dict)
    depths: dict[tuple[str, int], tuple[str, int]] = {}
    reals: list[tuple[str, challenge.RealSem]] = []
    has_table = False
    for path in _files(root, holes.problems):
        match challenge.parse(path):
            case challenge.SimSem(case, folder, base, itr):
                _once(sems[base, case], itr, (path, folder), holes.problems)
            case challenge.SimDepth(case, folder, base):
                _once(depths, (base, case), (path, folder), holes.problems)
            case challenge.RealSem() as item:
                reals.append((path, item))
            case challenge.TestSem():
                holes.test.append(path)
            case challenge.DepthTable():
                has_table = True
            case challenge.Manifest():
                pass
            case None:
                holes.problems.append(_stranger(path))
    if not (sems or depths or reals or holes.test):
        raise InputError(
            root, "nothing of the challenge's layout is here; expected simulation_data/, train/ or test/ below it"
        )
    _pair(holes, sems, depths)
    _label(holes, reals, has_table)
    holes.problems.sort(key=lambda problem: problem.path)
    return holes


def check(holes: HoleSet | str | Path, progress: Callable[[int], None] | None = None) -> HoleSet:
    """As `scan`, and every image is decoded: its size, its channels, whether it is whole.

    Args:
        holes: a scanned folder, or its root; problems that are found are added to it.
        progress: called with the number of images looked at since the last call.

    Raises:
        InputError: as `scan`.
        FormatError: as `scan`.
    """
    if not isinstance(holes, HoleSet):
        holes = scan(holes)
    depths = sorted({hole.depth for hole in holes.sim if hole.depth is not None})
    paths = [hole.sem for hole in holes.sim] + depths + [hole.sem for hole in holes.real] + holes.test

    def look(path: str) -> Problem | None:
        try:
            data = images.read_bytes(str(holes.root / path))
            pixels = _pixels(data, path)
        except InputError as wrong:
            return Problem(path, wrong.reason, loses_data=True)
        header = images.png_header(data)
        if header is not None and header[3] != "grey":
            return Problem(path, f"stored as {header[3]} with equal channels, read as grey", loses_data=False)
        if pixels.dtype != np.uint8:
            what = f"{pixels.dtype.itemsize * 8} bits a pixel, the layout has 8: inspected, but not trained on"
            return Problem(path, what, loses_data=True)
        return None

    found = []
    for batch in _batches(look, paths):
        found += [problem for problem in batch if problem is not None]
        if progress is not None:
            progress(len(batch))
    holes.problems = sorted([*holes.problems, *found], key=lambda problem: problem.path)
    return holes


def load_sim(holes: HoleSet | str | Path, keep: Callable[[SimHole], bool] | None = None) -> SimArrays:
    """Reads the simulated images that have a depth map, with two threads.

    Args:
        holes: a scanned folder, or its root.
        keep: which of them; all if None. Splitting belongs here, by `hole.structure`.

    Returns:
        Arrays of one entry an image. An image or map that cannot be read is left out and stands in `problems`.

    Raises:
        InputError: no simulated image with a depth map is left.
    """
    if not isinstance(holes, HoleSet):
        holes = scan(holes)
    root = holes.root
    wanted = [hole for hole in holes.sim if hole.depth is not None and (keep is None or keep(hole))]
    if not wanted:
        paired = sum(hole.depth is not None for hole in holes.sim)
        raise InputError(
            root,
            f"none of its {paired} simulated images with a depth map is on the asked-for side; simulate more structures"
            if paired
            else "no simulated image with a depth map is here (simulation_data/SEM and /Depth)",
        )
    sem = np.empty((len(wanted), IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX), np.uint8)
    depth = np.empty_like(sem)
    pairs: dict[str, list[int]] = defaultdict(list)  # the noise draws of a structure share one map: decode it once
    for index, hole in enumerate(wanted):
        pairs[str(hole.depth)].append(index)
    good = np.ones(len(wanted), bool)

    def fill(task: tuple[str, list[int]]) -> list[Problem]:
        map_path, indices = task
        problems = []
        for path, place, targets in [(map_path, depth, indices), *((wanted[i].sem, sem, [i]) for i in indices)]:
            try:
                place[targets] = _eight_bits(root, path)
            except InputError as wrong:
                good[targets] = False
                problems.append(Problem(path, wrong.reason, loses_data=True))
        return problems

    problems = [problem for batch in _batches(fill, list(pairs.items())) for found in batch for problem in found]
    if not good.all():
        if not good.any():
            raise InputError(root, f"none of {len(wanted)} simulated images can be read, the first: {problems[0]}")
        sem, depth = sem[good], depth[good]
        wanted = [hole for hole, fine in zip(wanted, good, strict=True) if fine]
    return SimArrays(
        sem,
        depth,
        np.array([hole.structure for hole in wanted]),
        np.array([hole.case for hole in wanted], np.int16),
        np.array([hole.itr for hole in wanted], np.int16),
        problems,
    )


def load_sem(root: str | Path, paths: list[str]) -> UInt8[np.ndarray, "n 72 48"]:
    """Reads images of one layout without truth, real or test, with two threads.

    Args:
        root: the root of the layout.
        paths: relative to it.

    Raises:
        InputError: an image cannot be read, or has another size.
    """
    out = np.empty((len(paths), IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX), np.uint8)

    def fill(index: int) -> None:
        out[index] = _eight_bits(Path(root), paths[index])

    for _ in _batches(fill, range(len(paths))):
        pass  # taking each batch raises what an image in it raised
    return out


def _batches(do: Callable[[Any], Any], items: Sequence[Any], size: int = 128) -> Iterator[list[Any]]:
    """`do` of every item, in order; one task for many items, because a task costs as much as decoding an image."""
    with ThreadPoolExecutor(THREADS) as pool:
        parts = [items[start : start + size] for start in range(0, len(items), size)]
        yield from pool.map(lambda part: [do(item) for item in part], parts)


def _files(root: Path, problems: list[Problem]) -> Iterator[str]:
    """Relative paths in a fixed order, what notebooks and desktops leave behind told and left out."""
    for folder, inner, files in os.walk(root):
        inner.sort()
        below = Path(folder).relative_to(root).as_posix()
        prefix = "" if below == "." else below + "/"
        if ".ipynb_checkpoints" in inner:
            inner.remove(".ipynb_checkpoints")
            count = sum(len(stray) for _, _, stray in os.walk(Path(folder, ".ipynb_checkpoints")))
            problems.append(
                Problem(f"{prefix}.ipynb_checkpoints", f"stray checkpoint folder, {count} files left out", False)
            )
        for name in sorted(files):
            if name.rsplit(".", 1)[0].endswith("-checkpoint"):
                problems.append(Problem(prefix + name, "stray checkpoint file, left out", loses_data=False))
            else:
                yield prefix + name


def _stranger(path: str) -> Problem:
    if not path.lower().endswith(images.SUFFIXES):
        return Problem(path, "not an image, left out", loses_data=False)
    return Problem(path, "the name or folder is none of the layout's, left out", loses_data=True)


def _once(table: dict, key: object, entry: tuple[str, int], problems: list[Problem]) -> None:
    if key in table:
        problems.append(Problem(entry[0], f"the same image stands at {table[key][0]} too, left out", loses_data=True))
    else:
        table[key] = entry


def _pair(
    holes: HoleSet,
    sems: dict[tuple[str, int], dict[int, tuple[str, int]]],
    depths: dict[tuple[str, int], tuple[str, int]],
) -> None:
    for (base, case), draws in sems.items():
        depth = depths.get((base, case), (None, 0))[0]
        for itr, (path, folder) in sorted(draws.items()):
            holes.sim.append(SimHole(path, depth, base, case, itr))
            if depth is None:
                expected = challenge.sim_depth_path("", case, folder, base).as_posix()
                holes.problems.append(Problem(path, f"its depth map {expected} is missing", loses_data=True))
        if len(draws) == 1:
            (itr,) = draws
            missing = "itr1" if itr == 0 else "itr0"
            holes.problems.append(Problem(draws[itr][0], f"its other noise draw, {missing}, is missing", False))
    for key, (path, _) in depths.items():
        if key not in sems:
            holes.problems.append(Problem(path, "a depth map without an SEM image", loses_data=True))
    holes.sim.sort(key=lambda hole: (hole.case, hole.structure, hole.itr))


def _label(holes: HoleSet, reals: list[tuple[str, challenge.RealSem]], has_table: bool) -> None:
    table = challenge.read_average_depth(holes.root) if has_table else {}
    unknown: dict[str, int] = defaultdict(int)
    for path, item in reals:
        site = challenge.site_key(item.bucket, item.site)
        depth_nm = table.get((item.bucket, item.site), float("nan"))
        holes.real.append(RealHole(path, site, item.bucket, depth_nm))
        if (item.bucket, item.site) not in table:
            unknown[site] += 1
    if reals and not has_table:
        what = f"missing: the depths of {len(unknown)} sites are not known"
        holes.problems.append(Problem(challenge.AVERAGE_DEPTH_FILE, what, loses_data=True))
    else:
        for site, count in unknown.items():
            what = f"not in {challenge.AVERAGE_DEPTH_FILE}: {count} images without a depth"
            holes.problems.append(Problem(site, what, loses_data=True))
    for site in sorted({challenge.site_key(*key) for key in table} - {hole.site for hole in holes.real}):
        holes.problems.append(Problem(site, f"in {challenge.AVERAGE_DEPTH_FILE}, but without images", False))


def _pixels(data: bytes, path: str) -> np.ndarray:
    pixels = images.decode(data, path).pixels
    if pixels.shape != (IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX):
        found = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise FormatError(path, f"{found} px, the layout has {IMAGE_WIDTH_PX}x{IMAGE_HEIGHT_PX} px (width x height)")
    return pixels


def _eight_bits(root: Path, path: str) -> np.ndarray:
    pixels = _pixels(images.read_bytes(str(root / path)), path)
    if pixels.dtype != np.uint8:
        raise FormatError(path, f"{pixels.dtype} pixels, the layout has 8 bits; inspect it instead of loading it")
    return pixels
