"""Label Studio's JSON: a list of tasks, each an image with what people marked on it, in percent of its sides.

    {"data": {"image": "a.png"}, "annotations": [{"result": [
      {"type": "rectanglelabels", "original_width": 640, "original_height": 480, "image_rotation": 0,
       "value": {"x": 10, "y": 20, "width": 5, "height": 4, "rotation": 0, "rectanglelabels": ["crack"]}}, …]}]}

Percents are measured from the upper-left corner of the image, 100 is its far edge. Three outlines are read and written:

* rectangles; a `rotation` turns one about its upper-left corner, clockwise as seen, after percents became pixels. Ours
  is anticlockwise, so it changes its sign. An oriented box that stands upright has a rotation of 360, a plain box of 0;
* polygons of one ring;
* brush strokes, see `label_studio_brush`.

Boxes, polygons, masks and angles come back to the last bit; the corners of an oriented box to a billionth of a pixel,
since the file holds one corner, two sides and the angle. What is to be ignored has the remark `ignore` in `meta.text`.
The file cannot hold several polygons of one thing, an outline besides a quad, a box that is not the one around its
outline, and pages of a file. What else people mark (choices, ellipses, key points …) is passed over with a remark.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from waferlens.errors import FormatError, InputError
from waferlens.formats import label_studio_brush as brush
from waferlens.formats.coco import MAX_BYTES, LabelledImage
from waferlens.formats.exact_numbers import (
    EXACT,
    HALF,
    exact,
    is_number,
    json_text,
    minus,
    plus,
    quotient,
    shortest,
    times,
)
from waferlens.formats.label_outlines import Point, check, hull_box, mask_box, outline_box
from waferlens.records import Label, tight

NAMES = ("rectanglelabels", "polygonlabels", "brushlabels", "labels")
SAME_PX = 1e-6
"""Corners of an oriented box, its sides and its angle may disagree by so much [px]"""
IGNORE = "ignore"
_HUNDRED = Decimal(100)
_HUNDREDTH = Decimal("0.01")
_TURN = Decimal(360)


def read_label_studio(path: str | Path) -> list[LabelledImage]:
    """Reads the images of a project with their labels, in the order of the file.

    Where several people marked an image, the annotation that was changed last counts, and a remark says so; cancelled
    ones and predictions do not.

    Returns:
        Images with the path that the task names; their size is None where nothing is marked.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is not JSON, an entry is wrong, or lies outside its image; task and result are named.
    """
    told = _loaded(path)
    if not (isinstance(told, list) and all(isinstance(task, dict) for task in told)):
        raise FormatError(path, "not an export of Label Studio: expected a list of tasks")
    return [_task(task, path, place) for place, task in enumerate(told)]


def write_label_studio(
    path: str | Path, images: Sequence[LabelledImage], losses: list[str] | None = None, key: str = "image"
) -> int:
    """Writes images with their labels as tasks that are annotated.

    Args:
        path: the file; replaced if it is there.
        images: of known size where they have labels.
        losses: what the format cannot hold is left out, and told here; None refuses it.
        key: under which name of `data` the image stands.

    Returns:
        Number of regions.

    Raises:
        InputError: the file cannot be written, a label lies outside its image, or something would be lost.
    """
    tasks, count = [], 0
    for number, image in enumerate(images, 1):
        results: list[dict[str, Any]] = []
        if image.page:
            raise InputError(image.path, f"page {image.page} of a file cannot be a task; save it by itself")
        for label in image.labels:
            try:
                for part in _holdable(label, image, losses):
                    results.append(_result(part, image, f"{number}-{len(results) + 1}", key))
            except ValueError as wrong:
                raise InputError(image.path, f"the label {label.kind!r} at {label.box}: {wrong}") from wrong
        count += len(results)
        task: dict[str, Any] = {"id": number, "data": {key: image.path}}
        if image.width_px is not None and image.height_px is not None:
            task["meta"] = {"width": image.width_px, "height": image.height_px}
        task["annotations"] = [{"id": number, "was_cancelled": False, "ground_truth": False, "result": results}]
        tasks.append(json_text(task))
    text = "[" + ",\n".join(tasks) + "]\n"
    try:
        Path(path).write_text(text, "utf-8")
    except OSError as wrong:
        raise InputError(path, f"cannot be written: {wrong.strerror or wrong}") from wrong
    return count


def _task(task: dict[str, Any], path: str | Path, place: int) -> LabelledImage:
    where = f"tasks[{place}]" + (f" (id {task['id']})" if isinstance(task.get("id"), int | str) else "")
    data = task.get("data")
    if not isinstance(data, dict):
        raise FormatError(path, f"{where}: has no `data` that would name its image")
    annotations = task.get("annotations")
    if not (isinstance(annotations, list) and all(isinstance(one, dict) for one in annotations)):
        raise FormatError(path, f"{where}: has no list of `annotations`; export the project as JSON, not JSON-MIN")
    done = [one for one in annotations if not one.get("was_cancelled")]
    image = LabelledImage("", *_told_size(task.get("meta")))
    results: list[Any] = []
    if done:
        latest = max(done, key=lambda one: str(one.get("updated_at", "")))
        if len(done) > 1:
            image.remarks.append(f"{where}: {len(done)} annotations, the latest (id {latest.get('id')}) counts")
        results = latest.get("result", [])
    if not (isinstance(results, list) and all(isinstance(result, dict) for result in results)):
        raise FormatError(path, f"{where}: `result` is not a list of regions")
    image.path = _image_name(data, results, path, where)
    for index, result in enumerate(results):
        place_of = f"{where}, result[{index}]" + (f" (id {result['id']})" if "id" in result else "")
        try:
            image.labels += _labels(result, image, place_of)
        except ValueError as wrong:
            raise FormatError(path, f"{place_of}: {wrong}") from wrong
    return image


def _labels(result: dict[str, Any], image: LabelledImage, where: str) -> list[Label]:
    value = result.get("value")
    if not isinstance(value, dict):
        image.remarks.append(f"{where}: a {result.get('type')!r} without a value is passed over")
        return []
    names = next((value[name] for name in NAMES if name in value), None)
    shape = next((name for name in ("rle", "points", "width") if name in value), None)
    if names is None or shape is None:
        image.remarks.append(f"{where}: a {result.get('type')!r} without a class or an outline is passed over")
        return []
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise ValueError("its classes are not a list of names")
    width, height = _size(result, image)
    if shape == "rle":
        if value.get("format", "rle") != "rle" or not isinstance(value["rle"], list):
            raise ValueError("its brush stroke is not in the format rle")
        mask, corner = tight(brush.mask_of(value["rle"], width, height))
        if not mask.size:
            raise ValueError("its brush stroke has no pixel")
        label = Label("", mask_box(mask, corner), mask=mask, mask_corner=corner)
    elif shape == "points":
        if value.get("closed") is False:
            raise ValueError("its polygon is not closed")
        ring = _ring(value["points"], width, height)
        label = Label("", hull_box(ring), polygons=(ring,))
    else:
        label = _rectangle(value, width, height)
    text = result.get("meta", {}).get("text", []) if isinstance(result.get("meta"), dict) else []
    label = replace(label, ignore=IGNORE in text if isinstance(text, list) else text == IGNORE)
    check(label, width, height)
    if len(names) > 1:
        image.remarks.append(f"{where}: has {len(names)} classes, and becomes a label of each")
    return [replace(label, kind=name) for name in names]


def _rectangle(value: dict[str, Any], width: int, height: int) -> Label:
    x, y, across, down, rotation = (_number(value, key) for key in ("x", "y", "width", "height", "rotation"))
    if across <= 0 or down <= 0:
        raise ValueError("its width and height must be above 0")
    w, h = Decimal(width), Decimal(height)
    left, top = _pixel(x, w), _pixel(y, h)
    if rotation == 0:
        return Label("", (left, top, _pixel(plus(x, across), w), _pixel(plus(y, down), h)))
    turned = EXACT.remainder(rotation, _TURN)  # between -360 and 360
    turned = plus(turned, _TURN) if turned < 0 else turned
    angle = float(minus(Decimal(0) if turned < 180 else _TURN, turned)) + 0.0  # no -0.0
    quad = _quad(left, top, _length(across, w), _length(down, h), angle)
    return Label("", hull_box(quad), quad=quad, angle_deg=angle)


def _quad(left: float, top: float, across: float, down: float, angle_deg: float) -> tuple[Point, Point, Point, Point]:
    """Corners from the upper-left one on; the array's y goes down, so anticlockwise is towards -y."""
    turn = math.radians(angle_deg)
    ux, uy = across * math.cos(turn), -across * math.sin(turn)
    vx, vy = down * math.sin(turn), down * math.cos(turn)
    return (left, top), (left + ux, top + uy), (left + ux + vx, top + uy + vy), (left + vx, top + vy)


def _holdable(label: Label, image: LabelledImage, losses: list[str] | None) -> list[Label]:
    """The label as this format can hold it, in parts where it has several."""

    def lose(what: str) -> None:
        if losses is None:
            raise ValueError(f"{what}; Label Studio cannot hold that")
        losses.append(f"{image.path}: {label.kind} at {label.box}: {what}")

    if image.width_px is None or image.height_px is None:
        raise ValueError("the size of its image is not known, and Label Studio counts in percent of it; give --images")
    check(label, image.width_px, image.height_px)
    if label.quad is not None and (label.polygons or label.mask is not None):
        lose("its quad is not kept besides its outline")
        label = replace(label, quad=None, angle_deg=None)
    around = outline_box(label)
    if around is not None:
        off = max(abs(one - other) for one, other in zip(around, label.box, strict=True))
        if off > (SAME_PX if label.quad is not None else 0):
            lose("its box is not the one around its outline, which is kept")
    if len(label.polygons) > 1:
        lose(f"its {len(label.polygons)} polygons become regions of their own")
        return [replace(label, polygons=(ring,), box=hull_box(ring)) for ring in label.polygons]
    return [label]


def _result(label: Label, image: LabelledImage, number: str, key: str) -> dict[str, Any]:
    assert image.width_px is not None
    assert image.height_px is not None
    w, h = Decimal(image.width_px), Decimal(image.height_px)
    kind, value = "rectangle", dict[str, Any]()
    if label.mask is not None:
        whole = np.zeros((image.height_px, image.width_px), bool)
        inner, (x, y) = tight(label.mask, label.mask_corner)
        whole[y : y + inner.shape[0], x : x + inner.shape[1]] = inner
        kind, value = "brush", {"format": "rle", "rle": brush.rle_of(whole)}
    elif label.polygons:
        points = [[_percent(x, w), _percent(y, h)] for x, y in label.polygons[0]]
        kind, value = "polygon", {"points": points, "closed": True}
    elif label.quad is not None:
        value = _oriented(label, w, h)
    else:
        (left, across), (top, down) = _span(label.box[0], label.box[2], w), _span(label.box[1], label.box[3], h)
        value = {"x": left, "y": top, "width": across, "height": down, "rotation": 0}
    told: dict[str, Any] = {
        "id": number,
        "type": f"{kind}labels",
        "from_name": kind,
        "to_name": key,
        "origin": "manual",
        "original_width": image.width_px,
        "original_height": image.height_px,
        "image_rotation": 0,
        "value": {**value, f"{kind}labels": [label.kind]},
    }
    return told | {"meta": {"text": [IGNORE]}} if label.ignore else told


def _oriented(label: Label, w: Decimal, h: Decimal) -> dict[str, Any]:
    assert label.quad is not None
    (x0, y0), (x1, y1), (x3, y3) = label.quad[0], label.quad[1], label.quad[3]
    across, down = math.hypot(x1 - x0, y1 - y0), math.hypot(x3 - x0, y3 - y0)
    angle = label.angle_deg
    if angle is None:
        angle = math.degrees(math.atan2(y0 - y1, x1 - x0))
        angle = 180.0 if angle == -180 else angle
    again = _quad(x0, y0, across, down, angle)
    off = max(math.dist(one, other) for one, other in zip(again, label.quad, strict=True))
    if not off <= SAME_PX:
        raise ValueError(
            f"its quad is not a rectangle turned by {angle:g} deg, by {off:.3g} px; write it as a polygon instead"
        )
    turned = minus(Decimal(0), exact(angle)) if angle < 0 else minus(_TURN, exact(angle))
    return {
        "x": _percent(x0, w),
        "y": _percent(y0, h),
        "width": _percent_of_length(across, w),
        "height": _percent_of_length(down, h),
        "rotation": turned,
    }


def _span(low: float, high: float, side: Decimal) -> tuple[Decimal, Decimal]:
    start = _percent(low, side)
    length = quotient(times(minus(plus(exact(high), HALF), times(times(start, side), _HUNDREDTH)), _HUNDRED), side)
    return start, shortest([length], lambda told: _pixel(plus(start, told), side) == high)[0]


def _percent(number: float, side: Decimal) -> Decimal:
    percent = quotient(times(plus(exact(number), HALF), _HUNDRED), side)
    return shortest([percent], lambda told: _pixel(told, side) == number)[0]


def _percent_of_length(length: float, side: Decimal) -> Decimal:
    return shortest([quotient(times(exact(length), _HUNDRED), side)], lambda told: _length(told, side) == length)[0]


def _pixel(percent: Decimal, side: Decimal) -> float:
    return float(minus(times(times(percent, side), _HUNDREDTH), HALF))


def _length(percent: Decimal, side: Decimal) -> float:
    return float(times(times(percent, side), _HUNDREDTH))


def _ring(points: Any, width: int, height: int) -> tuple[Point, ...]:
    if not (isinstance(points, list) and all(isinstance(point, list) and len(point) == 2 for point in points)):
        raise ValueError("its points are not a list of [x, y]")
    if not all(is_number(number) for point in points for number in point):
        raise ValueError("a coordinate of its points is no number")
    w, h = Decimal(width), Decimal(height)
    return tuple((_pixel(Decimal(x), w), _pixel(Decimal(y), h)) for x, y in points)


def _size(result: dict[str, Any], image: LabelledImage) -> tuple[int, int]:
    sizes = (result.get("original_width"), result.get("original_height"))
    if not all(type(side) is int and side > 0 for side in sizes):
        raise ValueError("original_width and original_height are not whole numbers from 1")
    if result.get("image_rotation", 0) != 0:
        raise ValueError(f"image_rotation = {result['image_rotation']}; only images as they are stored are read")
    if image.width_px is not None and (image.width_px, image.height_px) != sizes:
        raise ValueError(
            f"its image has {sizes[0]}x{sizes[1]} px, and {image.width_px}x{image.height_px} px by what was read before"
        )
    image.width_px, image.height_px = sizes
    assert image.width_px is not None
    assert image.height_px is not None
    return image.width_px, image.height_px


def _told_size(meta: Any) -> tuple[int | None, int | None]:
    if isinstance(meta, dict) and all(type(meta.get(key)) is int and meta[key] > 0 for key in ("width", "height")):
        return meta["width"], meta["height"]
    return None, None


def _image_name(data: dict[str, Any], results: list[dict[str, Any]], path: str | Path, where: str) -> str:
    named = [result["to_name"] for result in results if isinstance(data.get(result.get("to_name", "")), str)]
    keys = [*dict.fromkeys(named), *(key for key in ("image", "img") if isinstance(data.get(key), str))]
    texts = [key for key, value in data.items() if isinstance(value, str)]
    if len(set(named)) > 1:
        raise FormatError(path, f"{where}: has regions on several images ({', '.join(dict.fromkeys(named))})")
    if not keys and len(texts) != 1:
        raise FormatError(path, f"{where}: which entry of `data` is the image? It has {', '.join(data) or 'none'}")
    return data[(keys or texts)[0]]


def _number(value: dict[str, Any], key: str) -> Decimal:
    number = value.get(key, 0 if key == "rotation" else None)
    if not is_number(number):
        raise ValueError(f"value.{key} is no number")
    return Decimal(number)


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
    except (ValueError, ArithmeticError, RecursionError) as wrong:
        raise FormatError(path, f"not an export of Label Studio: no JSON ({wrong})") from wrong
