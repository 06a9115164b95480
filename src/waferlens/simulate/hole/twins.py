"""Sets of fields of one product: good ones, defective ones, and each defective one's counterfactual twin.

In memory with `field_images`, on disk with `write_fields`; the same bytes for a seed, however many the workers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8, UInt16

from waferlens import __version__
from waferlens.errors import InputError, UsageError
from waferlens.formats import challenge
from waferlens.recipe.hole_world import HoleWorld
from waferlens.simulate.hole.dataset import _each, _write_png, edge_bias, world_fingerprint
from waferlens.simulate.hole.defects import KINDS, DefectSpec, Planted, measure, plant, scanned_with
from waferlens.simulate.hole.field import Field, FieldSpec, Pose, Product, Role, draw_field, draw_product

TRUTH_FILE = "truth.json"
FOLDERS = ("reference", "good", "defective", "twin")
IMAGES_A_TASK = 8


@dataclass(frozen=True, slots=True, eq=False)
class FieldImage:
    """A picture of a field with its truth."""

    pixels: UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]
    """The picture; with the planted defects in the role DEFECTIVE [grey]"""
    twin: UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"] | None
    """The same draws without the defects; None where there are none [grey]"""
    role: Role
    index: int
    pose: Pose
    planted: tuple[Planted, ...]
    gain: float
    """Grey for a unit of signal [grey of 8 bits]"""
    offset: float
    """Grey of no signal [grey of 8 bits]"""


def field_image(
    product: Product, role: Role, index: int, defects: DefectSpec | None = None, *, noise: bool = True
) -> FieldImage:
    """One picture: a function of the product, the role and the index.

    Args:
        product: Of `draw_product`.
        role: REFERENCE (without a pose), GOOD or DEFECTIVE.
        index: Number within the role.
        defects: What is planted in a DEFECTIVE one; the default ranges if None.
        noise: False gives the noise-free picture.
    """
    field = draw_field(product, role, index)
    good = field.scanned(field.signal)
    if role is not Role.DEFECTIVE:
        return _taken(field, field.greys([good], noise=noise)[0], None, ())
    drawn = plant(field, defects or DefectSpec())
    alone = [(defect, scanned_with(field, good, added)) for defect, added in drawn]
    together = alone[0][1]
    if len(drawn) > 1:
        together = scanned_with(field, good, np.sum([added for _, added in drawn], axis=0))
    twin, defective = field.greys([good, together], noise=noise)
    return _taken(field, defective, twin, measure(field, good, alone))


def field_images(
    world: HoleWorld,
    seed: int,
    count: int,
    *,
    spec: FieldSpec | None = None,
    role: Role = Role.GOOD,
    defects: DefectSpec | None = None,
    start: int = 0,
    workers: int = 1,
) -> Iterator[FieldImage]:
    """Pictures of one product in memory, in order.

    Args:
        world: The domain.
        seed: Names the product and all that is drawn for it.
        count: How many.
        spec: Size of the field and how much pictures differ.
        role: GOOD, or DEFECTIVE for pictures with defects and their twins.
        defects: What is planted in DEFECTIVE ones.
        start: Number of the first one.
        workers: Processes.

    Raises:
        UsageError: what is asked for cannot be drawn.
    """
    spec, defects = spec or FieldSpec(), defects or DefectSpec()
    if role is Role.DEFECTIVE:
        defects.check(spec.rows * spec.columns)
    product = draw_product(world, spec, seed)
    chunks = [
        (product, role, range(first, min(first + IMAGES_A_TASK, start + count)), defects)
        for first in range(start, start + count, IMAGES_A_TASK)
    ]
    return chain.from_iterable(_each(_draw_chunk, chunks, workers))


@dataclass(frozen=True, slots=True)
class WrittenFields:
    """What was written."""

    good: int
    defective: int
    defects: int
    world: str
    width_px: int
    height_px: int
    bits: int
    pixels_sha256: str
    folder: str


def write_fields(
    out: Path,
    world: HoleWorld,
    images: int,
    defective: int,
    seed: int,
    spec: FieldSpec | None = None,
    defects: DefectSpec | None = None,
    workers: int = 1,
    advance: Callable[[int], None] | None = None,
    first: int = 0,
) -> WrittenFields:
    """Writes a reference, good pictures, defective pictures with their twins, and their truth.

    Args:
        out: Folder; must not hold another data set.
        world: The domain.
        images: Good pictures.
        defective: Pictures with defects, each with its twin.
        seed: Seed of the data set.
        spec: Size of the field and how much pictures differ.
        defects: What is planted.
        workers: Processes.
        advance: Called with the number of pictures written since the last call.
        first: Number of the first good and the first defective picture: a set from 1000 on shares its product with one
            of the same seed that ends before, and no picture.

    Raises:
        UsageError: what is asked for cannot be drawn.
        InputError: the folder already holds a data set, or cannot be written.
    """
    spec, defects = spec or FieldSpec(), defects or DefectSpec()
    if images < 1 or defective < 0 or first < 0:
        raise UsageError(
            f"--images {images} --defective {defective} --first {first}: at least 1 good picture, none negative"
        )
    if defective:
        defects.check(spec.rows * spec.columns)
    product = draw_product(world, spec, seed)
    _claim(out)
    tasks = [
        (str(out), product, role, range(start, min(start + IMAGES_A_TASK, end)), defects)
        for role, begin, count in (
            (Role.REFERENCE, 0, 1),
            (Role.GOOD, first, images),
            (Role.DEFECTIVE, first, defective),
        )
        for end in (begin + count,)
        for start in range(begin, end, IMAGES_A_TASK)
    ]
    sums: list[tuple[str, str]] = []
    entries: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    digest = hashlib.sha256()
    for task_sums, task_entries, task_digest in _each(_write_chunk, tasks, workers):
        sums += task_sums
        entries += task_entries
        digest.update(task_digest)
        if advance is not None:
            advance(len(task_sums))
    truth = _truth(product, entries)
    text = json.dumps(truth, indent=1) + "\n"
    (out / TRUTH_FILE).write_text(text)
    sums.append((TRUTH_FILE, hashlib.sha256(text.encode()).hexdigest()))
    listing = "".join(f"{one}  {path}\n" for path, one in sums)
    (out / challenge.SUMS_FILE).write_text(listing)
    manifest = {
        "kind": "waferlens field data set",
        "version": __version__,
        "world": world.model_dump(mode="json"),
        "world_sha256": world_fingerprint(world),
        "seed": seed,
        "images": images,
        "defective": defective,
        "first": first,
        "field": asdict(spec),
        "defects": asdict(defects),
        "units": {"image": "grey", "grey_of_8_bits": spec.scale, "pixel_nm": world.pixel_nm},
        "edge_assignment_bias_px": edge_bias(world),
        "files": len(sums),
        "sums_sha256": hashlib.sha256(listing.encode()).hexdigest(),
        "pixels_sha256": digest.hexdigest(),
    }
    challenge.manifest_path(out).write_text(json.dumps(manifest, indent=2) + "\n")
    h, w = product.shape
    return WrittenFields(
        images, defective, len(truth["annotations"]), world.name, w, h, spec.bits, digest.hexdigest(), str(out)
    )


def _taken(field: Field, grey: np.ndarray, twin: np.ndarray | None, planted: tuple[Planted, ...]) -> FieldImage:
    return FieldImage(
        field.digitised(grey),
        None if twin is None else field.digitised(twin),
        field.role,
        field.index,
        field.pose,
        planted,
        field.instrument.gain,
        field.instrument.offset,
    )


def _draw_chunk(task: tuple[Product, Role, range, DefectSpec]) -> list[FieldImage]:
    product, role, numbers, defects = task
    return [field_image(product, role, number, defects) for number in numbers]


def _write_chunk(task: tuple[str, Product, Role, range, DefectSpec]) -> tuple[list, list, bytes]:
    root, product, role, numbers, defects = task
    sums, entries, digest = [], [], hashlib.sha256()
    for number in numbers:
        image = field_image(product, role, number, defects)
        name = f"{number:04d}.png"
        files = {FOLDERS[role]: image.pixels} | ({} if image.twin is None else {"twin": image.twin})
        for folder, pixels in files.items():
            sums.append((f"{folder}/{name}", _write_png(Path(root, folder, name), pixels)))
            digest.update(pixels.tobytes())
            found = image.planted if folder == "defective" else ()
            entries.append(
                (
                    _image_entry(product, image, folder, name),
                    [_annotation(product, one) for one in found],
                )
            )
    return sums, entries, digest.digest()


def _image_entry(product: Product, image: FieldImage, folder: str, name: str) -> dict[str, Any]:
    h, w = product.shape
    scale = product.spec.scale
    entry = {
        "file_name": f"{folder}/{name}",
        "width": w,
        "height": h,
        "role": folder,
        "pose": {
            "dx_px": round(image.pose.dx, 6),
            "dy_px": round(image.pose.dy, 6),
            "angle_deg": round(image.pose.angle_deg, 6),
            "to_reference": [[round(value, 9) for value in row] for row in image.pose.matrix((h, w))],
        },
        "gain_grey": round(image.gain * scale, 6),
        "offset_grey": round(image.offset * scale, 6),
    }
    other = {"defective": "twin", "twin": "defective"}.get(folder)
    return entry | ({"twin" if other == "twin" else "twin_of": f"{other}/{name}"} if other else {})


def _annotation(product: Product, planted: Planted) -> dict[str, Any]:
    defect, scale = planted.defect, product.spec.scale
    x0, y0, x1, y1 = planted.box
    return {
        "category_id": 1 + [kind.name for kind in KINDS].index(defect.kind),
        # COCO's x and y are the first pixel's number: half a pixel more than its outer edge here.
        "bbox": [x0 + 0.5, y0 + 0.5, x1 - x0, y1 - y0],
        "area": planted.area_px,
        "iscrowd": 0,
        "segmentation": {"size": list(planted.mask.shape), "counts": _runs(planted.mask)},
        "size_px": round(defect.size_px, 4),
        "contrast_grey": round(defect.contrast_grey * scale, 4),
        "peak_grey": round(planted.peak_grey * scale, 4),
        "mean_grey": round(planted.mean_grey * scale, 4),
        "x_px": round(defect.x, 4),
        "y_px": round(defect.y, 4),
    }


def _truth(product: Product, entries: list[tuple[dict[str, Any], list[dict[str, Any]]]]) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (image, found) in enumerate(entries, start=1):
        images.append({"id": number, **image})
        for one in found:
            annotations.append({"id": len(annotations) + 1, "image_id": number, **one})
    categories = [{"id": n, "name": kind.name, "meaning": kind.meaning} for n, kind in enumerate(KINDS, start=1)]
    info = {"description": f"fields of holes of {product.world.name}", "version": __version__}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}


def _runs(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """COCO's uncompressed run lengths: column by column, zeros first."""
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    edges = np.concatenate([[0], ends, [flat.size]])
    runs = np.diff(edges).tolist()
    return [0, *runs] if flat[0] else runs


def _claim(out: Path) -> None:
    """Refuses to mix two data sets: what is in a folder is known only if one run wrote it."""
    for name in (*FOLDERS, TRUTH_FILE, challenge.MANIFEST_FILE, "simulation_data", "train"):
        if (out / name).exists():
            raise InputError(out, f"already holds a data set ({name}); name another folder, or remove this one first")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as wrong:
        raise InputError(out, f"cannot be made: {wrong.strerror}") from wrong
