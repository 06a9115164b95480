"""Writes a set of IC packages: same bytes for a seed, however many the workers.

A world that hides its truth writes images and verdicts; corners, angles and defects come back only from the evaluation
seed, by `regenerated`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from waferlens import __version__
from waferlens.errors import InputError, UsageError
from waferlens.formats import package_set
from waferlens.formats.coco import LabelledImage, write_coco
from waferlens.formats.package_set import Device
from waferlens.recipe import read_model
from waferlens.recipe.package_world import PackageWorld
from waferlens.recipe.reading import shipped_names
from waferlens.records import Label, tight
from waferlens.simulate.package.device import SimulatedDevice, draw_device, twin_device
from waferlens.simulate.package.scene import CLASSES, draw_scene
from waferlens.simulate.streams import Stream, stream

SEED_SALT = "waferlens-package-seed"
MOST_DEVICES = 999_999
"""Numbers have six digits."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written."""

    devices: int
    verdicts: dict[str, int]
    """How many devices of each verdict."""
    world: str
    pixels_sha256: str
    folder: str


def package_world(domain: str) -> PackageWorld:
    """The world of a domain of the package station.

    Args:
        domain: `sim`, `real`, `hard` …: a file `package-<domain>.yaml` of `waferlens/worlds`, or a path.

    Raises:
        UsageError: there is no such domain.
        RecipeError: its file has faults.
    """
    if domain.endswith((".yaml", ".yml")):
        return read_model(PackageWorld, domain, folder_package="worlds")
    known = [name.removeprefix("package-") for name in shipped_names("worlds") if name.startswith("package-")]
    if domain not in known:
        near = difflib.get_close_matches(domain, known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(known)}, or a YAML file"
        raise UsageError(f"domain '{domain}' is unknown; {hint}")
    return read_model(PackageWorld, f"package-{domain}", folder_package="worlds")


def seed_fingerprint(seed: int) -> str:
    """Salted hash of a seed: lets an evaluator check that it holds the right one without telling it to a trainer."""
    return hashlib.scrypt(str(seed).encode(), salt=SEED_SALT.encode(), n=2**14, r=8, p=1, dklen=16).hex()


def world_fingerprint(world: PackageWorld) -> str:
    """Hash over every number of a world."""
    return hashlib.sha256(json.dumps(world.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def device_numbers(world: PackageWorld, seed: int, count: int) -> list[int]:
    """Numbers under which devices are written, shuffled so that they carry no information."""
    return [int(number) for number in stream(seed, world.name, Stream.ORDER, count).permutation(count)]


def defective_devices(world: PackageWorld, seed: int, count: int) -> list[int]:
    """Which devices of a seed are to have a defect, by the number they are drawn from."""
    scenes = (draw_scene(world, seed, number) for number in range(count))
    return [scene.number for scene in scenes if scene.rotated or scene.cracked]


def write_devices(
    out: Path,
    world: PackageWorld,
    devices: int,
    seed: int,
    workers: int = 1,
    advance: Callable[[int], None] | None = None,
    *,
    twins: bool = False,
) -> Written:
    """Writes devices.

    Args:
        out: Folder; must not hold another data set.
        world: The domain.
        devices: How many.
        seed: Seed of the data set; of a world that hides its truth only a salted hash is written.
        workers: Processes.
        advance: Called with the number of devices written since the last call.
        twins: Also write a good twin of each defective device, numbered after the devices.

    Raises:
        UsageError: twins are asked for where the truth is hidden, or there are too many devices.
        InputError: the folder already holds a data set.
    """
    if twins and world.hidden_truth:
        raise UsageError("--twins would tell which devices are defective, and the truth of this domain is hidden")
    names = device_numbers(world, seed, devices)
    tasks = [(str(out), world, seed, number, names[number], None) for number in range(devices)]
    if twins:
        defective = defective_devices(world, seed, devices)
        for place, number in enumerate(sorted(defective, key=lambda one: names[one])):
            tasks.append((str(out), world, seed, number, names[number], devices + place))  # type: ignore[arg-type]
    if len(tasks) > MOST_DEVICES:
        raise UsageError(f"{len(tasks)} devices: a set holds at most {MOST_DEVICES}")
    _claim(out)
    (out / "images").mkdir()
    if not world.hidden_truth:
        (out / "truth").mkdir()
    sums: list[tuple[str, str]] = []
    known: list[Device] = []
    labels: dict[int, list[Label]] = {}
    digest = hashlib.sha256()
    for task_sums, truth, found, task_digest in _each(_write_device, tasks, workers):
        sums += task_sums
        known.append(truth)
        labels[truth.number] = found
        digest.update(task_digest)
        if advance is not None:
            advance(1)
    known.sort(key=lambda device: device.number)
    package_set.write_verdicts(out, ((device.number, device.verdict) for device in known))
    extra = [package_set.DEVICES_FILE]
    if not world.hidden_truth:
        _write_labels(out, world, labels)
        extra.append(package_set.LABELS_FILE)
    sums += [(name, hashlib.sha256((out / name).read_bytes()).hexdigest()) for name in extra]
    listing = "".join(f"{told}  {path}\n" for path, told in sorted(sums))
    (out / package_set.SUMS_FILE).write_text(listing)
    manifest = {
        "format": package_set.FORMAT,
        "kind": "waferlens package data set",
        "version": __version__,
        "domain": world.name.removeprefix("package-"),
        "world": world.model_dump(mode="json"),
        "world_sha256": world_fingerprint(world),
        **({"seed_fingerprint": seed_fingerprint(seed)} if world.hidden_truth else {"seed": seed}),
        "devices": devices,
        "twins": len(tasks) - devices,
        "grid": [world.frame.height_px, world.frame.width_px],
        "pixel_um": world.frame.pixel_um,
        "lights": list(package_set.LIGHTS),
        "classes": list(CLASSES),
        "units": {"image": "grey, 8 bits, gamma 1/2.2", "length": "px", "angle": "deg, counter-clockwise as seen"},
        "files": len(sums),
        "sums_sha256": hashlib.sha256(listing.encode()).hexdigest(),
        "pixels_sha256": digest.hexdigest(),
    }
    (out / package_set.MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n")
    counts = dict(sorted(Counter(device.verdict for device in known).items()))
    return Written(len(known), counts, world.name, digest.hexdigest(), str(out))


def regenerated(root: Path, seed: int, keep: Callable[[int], bool] = lambda number: True) -> Iterator[SimulatedDevice]:
    """The devices of a set with hidden truth, drawn again from the evaluation seed and compared with its images.

    Args:
        root: A folder that `simulate package --domain real` wrote.
        seed: The evaluation seed.
        keep: Which devices, by their number in the set.

    Raises:
        UsageError: the set was made from another seed.
        InputError: an image was changed since it was made.
    """
    told = package_set.read_manifest(root)
    if seed_fingerprint(seed) != told.get("seed_fingerprint", seed_fingerprint(told.get("seed", -1))):
        raise UsageError(f"{root} was made from another seed")
    world = PackageWorld.model_validate(told["world"])
    names = device_numbers(world, seed, told["devices"])
    for number in sorted(range(len(names)), key=lambda one: names[one]):
        if not keep(names[number]):
            continue
        made = draw_device(world, seed, number)
        paths = {light: package_set.image_path(root, names[number], light) for light in package_set.LIGHTS}
        for light, path in paths.items():
            if not np.array_equal(package_set.read_picture(path), made.images[light]):
                raise InputError(path, "is not what its seed draws: it was changed, or another NumPy or OpenCV drew it")
        yield replace(made, truth=replace(made.truth, number=names[number], images=paths))


def _each(do: Callable[[Any], Any], tasks: Sequence[Any], workers: int) -> Iterator[Any]:
    """Results in the order of the tasks, from this process or from several."""
    if workers <= 1 or len(tasks) == 1:
        yield from map(do, tasks)
        return
    # spawn: a fork would copy the state of whatever threads the caller has running
    with ProcessPoolExecutor(min(workers, len(tasks)), multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(do, tasks, chunksize=2)


def _write_device(
    task: tuple[str, PackageWorld, int, int, int, int | None],
) -> tuple[list[tuple[str, str]], Device, list[Label], bytes]:
    folder, world, seed, number, name, twin_name = task
    root = Path(folder)
    if twin_name is None:
        made = draw_device(world, seed, number)
        truth = replace(made.truth, number=name)
    else:
        made = twin_device(world, seed, number, twin_name)
        truth = replace(made.truth, twin_of=name)
    digest, paths = hashlib.sha256(), []
    for light in package_set.LIGHTS:
        digest.update(made.images[light].tobytes())
        paths.append(package_set.image_path(root, truth.number, light))
        _write_png(paths[-1], made.images[light][..., ::-1])
    if not world.hidden_truth:
        digest.update(made.parts.tobytes())
        digest.update(made.defects.tobytes())
        own = [place(root, truth.number) for place in
               (package_set.parts_path, package_set.defects_path, package_set.truth_path)]  # fmt: skip
        _write_png(own[0], made.parts)
        _write_png(own[1], made.defects)
        package_set.write_truth(own[2], truth)
        paths += own
    sums = [(path.relative_to(root).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths]
    return sums, truth, [] if world.hidden_truth else _labels(made), digest.digest()


def _write_png(path: Path, pixels: np.ndarray) -> None:
    """Writes a PNG without any metadata."""
    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise InputError(path, "cannot be encoded as PNG")
    path.write_bytes(data.tobytes())


def _labels(made: SimulatedDevice) -> list[Label]:
    """The defects with their masks; what is no defect but looks like a crack is one that is to be ignored."""
    labels = []
    for place, one in enumerate(made.truth.defects, 1):
        pixels = (made.parts & package_set.DIE_BIT) > 0 if one.kind == "rotate" else made.defects == place
        mask, corner = tight(pixels)
        kind = "crack" if one.ignore else one.label
        labels.append(Label(kind, one.box, mask=mask, mask_corner=corner, ignore=one.ignore))
    return labels


def _write_labels(out: Path, world: PackageWorld, labels: dict[int, list[Label]]) -> None:
    """Boxes and masks on the brightfield images."""
    images = (
        LabelledImage(
            package_set.image_path(Path(), number, "bf").as_posix(),
            world.frame.width_px,
            world.frame.height_px,
            labels=labels[number],
        )
        for number in sorted(labels)
    )
    write_coco(out / package_set.LABELS_FILE, images, CLASSES, {"pixel_um": world.frame.pixel_um})


def _claim(out: Path) -> None:
    """Refuses to mix two data sets: what is in a folder is known only if one run wrote it."""
    if (out / package_set.MANIFEST_FILE).exists() or (out / "images").exists():
        raise InputError(out, "already holds a data set; name another folder, or remove this one first")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as wrong:
        raise InputError(out, f"cannot be made: {wrong.strerror}") from wrong
