"""COCO detection files: images, the boxes found or labelled on them, and the names of their classes, as JSON.

COCO measures from the upper-left corner of the image, a box as [x, y, width, height]; ours are outer edges measured
from the centre of the first pixel, half a pixel further on. Edges of pixels, and fractions of them that a binary number
holds, come back exactly. What a finding says beyond its box stands under further keys, which other readers pass over:
`score`, `contrast`, `light_or_dark`, `critical`, `rule`.

Only boxes are read and written; `segmentation` is passed over.

Source: Lin et al., "Microsoft COCO: common objects in context", ECCV 2014; format: cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from waferlens.errors import FormatError, InputError
from waferlens.records import Finding

SLACK_PX = 0.01
"""A box may reach so far beyond its image: others round [px]"""
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


def write_coco(
    path: str | Path,
    images: Iterable[LabelledImage],
    kinds: Sequence[str] = (),
    info: Mapping[str, Any] | None = None,
) -> int:
    """Writes images with their findings, at once or not at all; one image is in memory at a time.

    Args:
        path: the file; replaced if it is there.
        images: in the order they are to stand in.
        kinds: classes in the order of their numbers, from 1; classes that come up besides follow.
        info: whatever should stand under `info`.

    Returns:
        Number of findings.

    Raises:
        InputError: the file cannot be written, or a finding has a box without an area or that is not finite.
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
                    boxes.write(json.dumps(_annotation(finding, count, place + 1, category, path)))
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
    told = _object(_loaded(path), path, "the file")
    categories = _categories(_list(told, "categories", path), path)
    images: dict[int | str, LabelledImage] = {}
    for place, entry in enumerate(_list(told, "images", path)):
        where = f"images[{place}]"
        number = _id(_object(entry, path, where), "id", path, where)
        if number in images:
            raise FormatError(path, f"{where}: the id {number!r} was given to an image before")
        images[number] = _image(entry, path, f"{where} (id {number!r})")
    for place, entry in enumerate(_list(told, "annotations", path)):
        where = f"annotations[{place}]"
        if "id" in _object(entry, path, where):
            where += f" (id {entry['id']!r})"
        number = _id(entry, "image_id", path, where)
        if number not in images:
            raise FormatError(path, f"{where}: is of the image {number!r}, which is not among the images")
        category = _id(entry, "category_id", path, where)
        if category not in categories:
            raise FormatError(path, f"{where}: is of the category {category!r}, which is not among the categories")
        image = images[number]
        image.findings.append(_finding(entry, categories[category], image, path, where))
    return list(images.values())


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
    entry: dict[str, Any] = {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [x0 + 0.5, y0 + 0.5, x1 - x0, y1 - y0],
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
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as wrong:
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
    box = entry.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        raise FormatError(path, f"{where}: {_fault(entry, 'bbox')}; expected [x, y, width, height]")
    x, y, width, height = map(float, box)
    if width <= 0 or height <= 0:
        raise FormatError(path, f"{where}: bbox = {box}: width and height must be above 0")
    for axis, start, size, whole in (("x", x, width, image.width_px), ("y", y, height, image.height_px)):
        if start < -SLACK_PX or (whole is not None and start + size > whole + SLACK_PX):
            till = "an unknown size" if whole is None else f"{whole} px"
            raise FormatError(
                path,
                f"{where}: bbox = {box} reaches from {start:g} to {start + size:g} in {axis}, the image has {till}",
            )
    numbers = {}
    for key, otherwise in (("area", width * height), ("score", math.nan), ("contrast", math.nan)):
        value = entry.get(key)
        if value is not None and not _is_number(value):
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
    edges = (x - 0.5, y - 0.5, x + width - 0.5, y + height - 0.5)
    return Finding(kind, edges, numbers["score"], numbers["area"], numbers["contrast"], side, critical, rule)


def _is_number(value: Any) -> bool:
    # whole numbers of JSON may be longer than any float
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max


def _fault(entry: dict[str, Any], key: str) -> str:
    return f"{key} = {_short(entry[key])}" if key in entry else f"{key} is missing"


def _short(value: Any) -> str:
    told = json.dumps(value)
    return told if len(told) <= 60 else told[:57] + "..."
