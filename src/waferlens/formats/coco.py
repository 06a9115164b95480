"""COCO detection files: images, what was found or labelled on them, and the names of their classes, as JSON.

COCO measures from the upper-left corner of the image, a box as [x, y, width, height]; ours are outer edges measured
from the centre of the first pixel, half a pixel further on. Every coordinate comes back to the last bit.

What a finding says beyond its box stands under further keys, which other readers pass over: `score`, `contrast`,
`light_or_dark`, `critical`, `rule`. `read_coco` reads boxes as findings and passes over `segmentation`;
`read_coco_labels` reads the same file as labels, with their polygons and masks.

Source: Lin et al., "Microsoft COCO: common objects in context", ECCV 2014; format: cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from waferlens.errors import FormatError, InputError
from waferlens.formats import coco_labels
from waferlens.formats.exact_numbers import HALF, exact, is_number, json_text, minus, plus
from waferlens.formats.label_outlines import SLACK_PX
from waferlens.records import Finding, Label

MAX_BYTES = 2**30
"""Largest file that is read [byte]"""


@dataclass(slots=True)
class LabelledImage:
    """An image and what is on it."""

    path: str
    """As in the file; nothing is opened."""
    width_px: int | None = None
    """None where it is not known; other readers may ask for it."""
    height_px: int | None = None
    findings: list[Finding] = field(default_factory=list)
    page: int = 0
    labels: list[Label] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list, compare=False)
    """What the file says of it and was passed over."""


def write_coco(
    path: str | Path,
    images: Iterable[LabelledImage],
    kinds: Sequence[str] = (),
    info: Mapping[str, Any] | None = None,
) -> int:
    """Writes images with their findings and labels, at once or not at all; one image is in memory at a time.

    Args:
        path: the file; replaced if it is there.
        images: in the order they are to stand in.
        kinds: classes in the order of their numbers, from 1; classes that come up besides follow.
        info: whatever should stand under `info`.

    Returns:
        Number of findings and labels.

    Raises:
        InputError: the file cannot be written, or a finding or label has a box without an area or that is not finite,
            or an outline that COCO cannot hold.
    """
    path = Path(path)
    number_of = {kind: number for number, kind in enumerate(kinds, 1)}
    count = 0
    temporary: Path | None = None
    try:
        with (
            tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", dir=path.parent, prefix=path.name, suffix=".part", delete=False
            ) as file,
            tempfile.TemporaryFile("w+", encoding="utf-8") as boxes,
        ):
            temporary = Path(file.name)
            file.write(f'{{"info": {json.dumps(dict(info or {}))},\n"images": [')
            for place, image in enumerate(images):
                file.write(",\n" if place else "\n")
                file.write(json.dumps(_image_entry(image, place + 1)))
                for finding in image.findings:
                    category = number_of.setdefault(finding.kind, len(number_of) + 1)
                    boxes.write(",\n" if count else "\n")
                    count += 1
                    boxes.write(json_text(_annotation(finding, count, place + 1, category, path)))
                for label in image.labels:
                    category = number_of.setdefault(label.kind, len(number_of) + 1)
                    boxes.write(",\n" if count else "\n")
                    count += 1
                    head = {"id": count, "image_id": place + 1, "category_id": category}
                    boxes.write(json_text(head | coco_labels.entry(label, image.width_px, image.height_px, path)))
            file.write('],\n"annotations": [')
            _append(boxes, file)
            named = [{"id": number, "name": kind, "supercategory": ""} for kind, number in number_of.items()]
            file.write(f'],\n"categories": {json.dumps(named)}}}\n')
        temporary.chmod(0o644)  # made for the owner only
        temporary.replace(path)
    except BaseException as wrong:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(wrong, OSError):
            raise InputError(path, f"cannot be written: {wrong.strerror or wrong}") from wrong
        raise
    return count


def read_coco(path: str | Path) -> list[LabelledImage]:
    """Reads images with their findings, in the order of the file.

    What an annotation does not say: its area is that of its box; score and contrast are NaN; it is dark where its
    contrast is negative, else light; it is critical.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is not JSON, or an entry is wrong; the entry is named.
    """
    found, annotations = _read(path)
    for where, entry, kind, image in annotations:
        image.findings.append(_finding(entry, kind, image, path, where))
    return found


def read_coco_labels(path: str | Path) -> list[LabelledImage]:
    """Reads images with their labels, in the order of the file: boxes, polygons, masks, and what is to be ignored.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is not JSON, or an entry is wrong or lies outside its image; the entry is named.
    """
    found, annotations = _read(path)
    for where, entry, kind, image in annotations:
        _box(entry, image, path, where)
        try:
            image.labels.append(coco_labels.label_of(entry, kind, image.width_px, image.height_px))
        except ValueError as wrong:
            raise FormatError(path, f"{where}: {wrong}") from wrong
    return found


def read_coco_kinds(path: str | Path) -> list[str]:
    """The names of the classes in the order of their numbers, those of which nothing is there included.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is not JSON, or its categories are wrong.
    """
    names = _categories(_list(_object(_loaded(path), path, "the file"), "categories", path), path)
    return [names[number] for number in sorted(names, key=lambda number: (isinstance(number, str), number))]


def _read(path: str | Path) -> tuple[list[LabelledImage], list[tuple[str, dict[str, Any], str, LabelledImage]]]:
    """The images, and each annotation with what to call it, its class and its image."""
    told = _object(_loaded(path), path, "the file")
    categories = _categories(_list(told, "categories", path), path)
    images: dict[int | str, LabelledImage] = {}
    for place, entry in enumerate(_list(told, "images", path)):
        where = f"images[{place}]"
        number = _id(_object(entry, path, where), "id", path, where)
        if number in images:
            raise FormatError(path, f"{where}: the id {number!r} was given to an image before")
        images[number] = _image(entry, path, f"{where} (id {number!r})")
    found = []
    for place, entry in enumerate(_list(told, "annotations", path)):
        where = f"annotations[{place}]"
        if "id" in _object(entry, path, where):
            where += f" (id {_short(entry['id'])})"
        number = _id(entry, "image_id", path, where)
        if number not in images:
            raise FormatError(path, f"{where}: is of the image {number!r}, which is not among the images")
        category = _id(entry, "category_id", path, where)
        if category not in categories:
            raise FormatError(path, f"{where}: is of the category {category!r}, which is not among the categories")
        found.append((where, entry, categories[category], images[number]))
    return list(images.values()), found


def _image_entry(image: LabelledImage, number: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": number, "file_name": image.path}
    if image.width_px is not None and image.height_px is not None:
        entry |= {"width": int(image.width_px), "height": int(image.height_px)}
    if image.page:
        entry["page"] = int(image.page)
    return entry


def _annotation(finding: Finding, number: int, image: int, category: int, path: Path) -> dict[str, Any]:
    x0, y0, x1, y1 = (float(edge) for edge in finding.box)
    if not (x1 > x0 and y1 > y0 and all(map(math.isfinite, (x0, y0, x1, y1)))):
        raise InputError(path, f"finding {number} (image {image}) has the box {finding.box}, which has no area")
    left, top = exact(x0), exact(y0)
    entry: dict[str, Any] = {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [plus(left, HALF), plus(top, HALF), minus(exact(x1), left), minus(exact(y1), top)],
        "area": float(finding.area_px),
        "iscrowd": 0,
    }
    for key in ("score", "contrast"):
        value = float(getattr(finding, key))
        if not math.isnan(value):  # JSON has no infinity; the greatest number is as good
            entry[key] = max(-sys.float_info.max, min(sys.float_info.max, value))
    entry |= {"light_or_dark": finding.light_or_dark, "critical": bool(finding.critical)}
    if finding.rule:
        entry["rule"] = finding.rule
    return entry


def _append(boxes: IO[str], file: IO[str]) -> None:
    boxes.seek(0)
    while part := boxes.read(2**20):
        file.write(part)


def _loaded(path: str | Path) -> Any:
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}") from wrong
    if len(data) > MAX_BYTES:
        raise FormatError(path, f"the file is larger than {MAX_BYTES // 2**20} MiB; split it")
    try:
        return json.loads(data.decode("utf-8-sig"), parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as wrong:  # arithmetic: an exponent of twenty digits
        raise FormatError(path, f"not a COCO file: no JSON ({wrong})") from wrong


def _object(entry: Any, path: str | Path, where: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise FormatError(path, f"{where}: expected an object of keys and values, got {_short(entry)}")
    return entry


def _list(told: dict[str, Any], key: str, path: str | Path) -> list[Any]:
    if key not in told:
        raise FormatError(path, f"not a COCO file: `{key}` is missing; it needs images, annotations and categories")
    if not isinstance(told[key], list):
        raise FormatError(path, f"{key}: expected a list, got {_short(told[key])}")
    return told[key]


def _id(entry: dict[str, Any], key: str, path: str | Path, where: str) -> int | str:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise FormatError(path, f"{where}: {_fault(entry, key)}; expected a whole number or a text")
    return value


def _categories(entries: list[Any], path: str | Path) -> dict[int | str, str]:
    names: dict[int | str, str] = {}
    for place, entry in enumerate(entries):
        where = f"categories[{place}]"
        number = _id(_object(entry, path, where), "id", path, where)
        if not isinstance(entry.get("name"), str):
            raise FormatError(path, f"{where} (id {number!r}): {_fault(entry, 'name')}; expected a text")
        if number in names:
            raise FormatError(path, f"{where}: the id {number!r} was given to a category before")
        names[number] = entry["name"]
    return names


def _image(entry: dict[str, Any], path: str | Path, where: str) -> LabelledImage:
    if not isinstance(entry.get("file_name"), str):
        raise FormatError(path, f"{where}: {_fault(entry, 'file_name')}; expected a text")
    sizes = []
    for key, least in (("width", 1), ("height", 1), ("page", 0)):
        size = entry.get(key)
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < least):
            raise FormatError(path, f"{where}: {_fault(entry, key)}; expected a whole number from {least}")
        sizes.append(size)
    return LabelledImage(entry["file_name"], sizes[0], sizes[1], page=sizes[2] or 0)


def _finding(entry: dict[str, Any], kind: str, image: LabelledImage, path: str | Path, where: str) -> Finding:
    if entry.get("iscrowd") == 1:
        raise FormatError(path, f"{where}: marks a crowd; only boxes of single things are read")
    x, y, width, height = _box(entry, image, path, where)
    numbers = {}
    for key, otherwise in (("area", float(width) * float(height)), ("score", math.nan), ("contrast", math.nan)):
        value = entry.get(key)
        if value is not None and not is_number(value):
            raise FormatError(path, f"{where}: {_fault(entry, key)}; expected a number")
        numbers[key] = otherwise if value is None else float(value)
    side = entry.get("light_or_dark", "dark" if numbers["contrast"] < 0 else "light")
    critical, rule = entry.get("critical", True), entry.get("rule", "")
    if side not in ("light", "dark"):
        raise FormatError(path, f"{where}: {_fault(entry, 'light_or_dark')}; expected light or dark")
    if not isinstance(critical, bool):
        raise FormatError(path, f"{where}: {_fault(entry, 'critical')}; expected true or false")
    if not isinstance(rule, str):
        raise FormatError(path, f"{where}: {_fault(entry, 'rule')}; expected a text")
    edges = coco_labels.edges(x, y, width, height)
    return Finding(kind, edges, numbers["score"], numbers["area"], numbers["contrast"], side, critical, rule)


def _box(
    entry: dict[str, Any], image: LabelledImage, path: str | Path, where: str
) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """x, y, width and height as they stand there."""
    box = entry.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box))):
        raise FormatError(path, f"{where}: {_fault(entry, 'bbox')}; expected [x, y, width, height]")
    x, y, width, height = map(Decimal, box)
    if width <= 0 or height <= 0:
        raise FormatError(path, f"{where}: bbox = {_short(box)}: width and height must be above 0")
    for axis, start, size, whole in (("x", x, width, image.width_px), ("y", y, height, image.height_px)):
        if start < -SLACK_PX or (whole is not None and plus(start, size) > whole + SLACK_PX):
            till = "an unknown size" if whole is None else f"{whole} px"
            raise FormatError(
                path,
                f"{where}: bbox = {_short(box)} reaches from {float(start):g} to {float(plus(start, size)):g} "
                f"in {axis}, the image has {till}",
            )
    return x, y, width, height


def _fault(entry: dict[str, Any], key: str) -> str:
    return f"{key} = {_short(entry[key])}" if key in entry else f"{key} is missing"


def _short(value: Any) -> str:
    told = json.dumps(value, default=float)  # numbers are read as decimals
    return told if len(told) <= 60 else told[:57] + "..."
