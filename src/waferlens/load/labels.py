"""Labels in whichever of the formats they come, with one record for all of them.

a .json that begins with {      COCO
a .json that begins with [      Label Studio
a folder with classes.txt or data.yaml, or the .yaml itself      YOLO
any other folder                labels.json in it, or the only .json that is there
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from waferlens.errors import FormatError, InputError, UsageError
from waferlens.formats import yolo_labels
from waferlens.formats.coco import LabelledImage, read_coco_kinds, read_coco_labels, write_coco
from waferlens.formats.image_size import image_size
from waferlens.formats.images import SUFFIXES
from waferlens.formats.label_studio import read_label_studio, write_label_studio
from waferlens.formats.yolo_labels import read_yolo, write_yolo

FORMATS = ("coco", "yolo", "label-studio")
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of a file that is uploaded."""


@dataclass(slots=True)
class LabelSet:
    """The labels of many images."""

    images: list[LabelledImage]
    kinds: list[str]
    """Classes: in the order of their numbers where the format numbers them, else by name."""
    format: str
    """One of `FORMATS`."""
    remarks: list[str] = field(default_factory=list)
    """What the files say and was passed over."""

    @property
    def counts(self) -> dict[str, int]:
        """How many labels there are of each class."""
        found = Counter(label.kind for image in self.images for label in image.labels)
        return {kind: found[kind] for kind in self.kinds}


def read_labels(
    source: str | Path, images: str | Path | None = None, kinds: Sequence[str] | None = None, oriented: bool = False
) -> list[LabelledImage]:
    """Reads labels, whatever their format; see `read_label_set`."""
    return read_label_set(source, images, kinds, oriented).images


def read_label_set(
    source: str | Path, images: str | Path | None = None, kinds: Sequence[str] | None = None, oriented: bool = False
) -> LabelSet:
    """Reads labels, whatever their format.

    Args:
        source: a file or folder of labels.
        images: folder of the images. Each image of the labels must be there, by its path or by its name alone, and have
            the size that the labels say; paths are then those below this folder.
        kinds: classes that are allowed; any if None.
        oriented: lines of eight numbers in YOLO texts are oriented boxes, not polygons.

    Raises:
        InputError: the source is not there or in no known format, or an image is missing.
        FormatError: a label is wrong, lies outside its image, or is of a class that is not allowed.
    """
    source = Path(source)
    folder = None if images is None else Path(images)
    if folder is not None and not folder.is_dir():
        raise InputError(folder, "no such folder of images")
    name, path = _format_of(source)
    if name == "yolo":
        found, known = read_yolo(path, folder, oriented), yolo_labels.read_kinds(path)
    else:
        found = read_coco_labels(path) if name == "coco" else read_label_studio(path)
        known = list(dict.fromkeys(read_coco_kinds(path))) if name == "coco" else []
        if folder is not None:
            _find_images(found, folder, path)
    known += sorted({label.kind for image in found for label in image.labels} - set(known))
    if kinds is not None:
        _check_kinds(found, kinds, path)
        known = list(dict.fromkeys(kinds))
    return LabelSet(found, known, name, [remark for image in found for remark in image.remarks])


def write_labels(
    labels: LabelSet, to: str, out: str | Path, lossy: bool = False, oriented: bool = False
) -> tuple[int, list[str]]:
    """Writes labels in another format.

    Args:
        labels: as read.
        to: one of `FORMATS`.
        out: the .json file, or for YOLO the folder.
        lossy: leave out what the format cannot hold, and tell it; else that is refused.
        oriented: write quads as oriented boxes of YOLO.

    Returns:
        Number of labels written, and what was lost, a line each.

    Raises:
        InputError: it cannot be written, or something would be lost.
        UsageError: there is no such format.
    """
    out = Path(out)
    losses: list[str] = []
    if to not in FORMATS:
        raise UsageError(f"no format {to!r}; there are {', '.join(FORMATS)}")
    if to == "yolo":
        if out.suffix:
            raise UsageError(f"--out {out}: YOLO labels are a folder, one text an image; name a folder")
        return write_yolo(out, labels.images, labels.kinds, oriented, losses if lossy else None), losses
    if out.suffix != ".json":
        raise UsageError(f"--out {out}: {to} is one file; name it with .json")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as wrong:
        raise InputError(out.parent, f"cannot be made: {wrong.strerror or wrong}") from wrong
    if to == "coco":
        return write_coco(out, labels.images, labels.kinds), losses
    return write_label_studio(out, labels.images, losses if lossy else None), losses


def _format_of(source: Path) -> tuple[str, Path]:
    if source.is_dir():
        if yolo_labels.holds(source):
            return "yolo", source
        files = sorted(source.glob("*.json"))
        named = [path for path in files if path.name == "labels.json"]
        if not named and len(files) > 1:
            raise InputError(source, f"has {len(files)} .json files; name the one that is meant")
        if not files:
            raise InputError(
                source, "holds no labels: no classes.txt or data.yaml (YOLO), and no .json (COCO, Label Studio)"
            )
        source = (named or files)[0]
    if not source.is_file():
        raise InputError(source, "no such file or folder")
    if source.suffix in (".yaml", ".yml"):
        return "yolo", source
    try:
        with source.open("rb") as file:
            start = file.read(256).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    except OSError as wrong:
        raise InputError(source, f"cannot be read: {wrong.strerror or wrong}") from wrong
    if start not in (b"{", b"["):
        raise FormatError(
            source,
            "in no known format: COCO is a JSON object, Label Studio a JSON list, YOLO a folder with classes.txt",
        )
    return ("coco" if start == b"{" else "label-studio"), source


def _find_images(found: list[LabelledImage], folder: Path, labels: Path) -> None:
    """Puts in place of each image's path the one below the folder, and its size."""
    there = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES and path.is_file()
    }
    by_name: dict[str, list[str]] = {}
    for place in there:
        by_name.setdefault(PurePosixPath(place).name, []).append(place)
    for image in found:
        name = PurePosixPath(image.path.partition("?")[0]).name
        places = [image.path] if image.path in there else by_name.get(name) or by_name.get(_UPLOADED.sub("", name), [])
        if len(places) != 1:
            many = f"{len(places)} of that name are" if places else "it is not"
            raise InputError(labels, f"names the image {image.path}, and {many} in {folder}")
        image.path = places[0]
        size = image_size(there[places[0]])
        if image.width_px is None or image.height_px is None:
            image.width_px, image.height_px = size
        elif (image.width_px, image.height_px) != size:
            raise FormatError(
                labels,
                f"says {image.width_px}x{image.height_px} px of {image.path}, which has {size[0]}x{size[1]}",
            )


def _check_kinds(found: list[LabelledImage], kinds: Sequence[str], path: Path) -> None:
    for image in found:
        for label in image.labels:
            if label.kind not in kinds:
                folded = {kind.casefold(): kind for kind in kinds}
                close = difflib.get_close_matches(label.kind.casefold(), folded, n=1)
                hint = f", did you mean {folded[close[0]]!r}?" if close else ""
                raise FormatError(
                    path,
                    f"{image.path}: the label at {label.box} is of the class {label.kind!r}, which is none of "
                    f"{', '.join(kinds)}{hint}",
                )
