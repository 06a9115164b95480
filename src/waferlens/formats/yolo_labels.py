"""Label files of the YOLO family: a text an image, a line a label, in shares of the image's sides.

    classes.txt             a class a line, the first is number 0; or data.yaml with `names`
    images/…/0001.png
    labels/…/0001.txt       0 0.5 0.5 0.25 0.125          class, centre x and y, width, height
                            0 0.1 0.1 0.4 0.1 0.4 0.3     class, x and y of the corners of a polygon
                            0 0.1 0.1 …                   eight numbers, where `oriented` says so: an oriented box

Shares are measured from the upper-left corner of the image, 1 is its far edge. Every coordinate comes back to the last
bit. An image without a text has no labels; where `images.txt` lists images, as we write it, only those are of the set.

What such a file cannot hold: masks, several polygons of one thing, what is to be ignored, the angle of an oriented box,
a box that is not the one around its polygon, pages of a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path, PurePosixPath

import yaml

from waferlens.errors import FormatError, InputError
from waferlens.formats.coco import LabelledImage
from waferlens.formats.exact_numbers import HALF, exact, minus, plus, quotient, shortest, times
from waferlens.formats.image_size import image_size
from waferlens.formats.images import SUFFIXES
from waferlens.formats.label_outlines import Point, check, hull_box, outline_box
from waferlens.records import Label

CLASSES_FILE, DATA_FILE, LIST_FILE, LABELS, IMAGES = "classes.txt", "data.yaml", "images.txt", "labels", "images"
_NO_LABELS = (
    "classes.txt",
    "images.txt",
    "obj.names",
    "train.txt",
    "val.txt",
    "test.txt",
    "readme.txt",
    "requirements.txt",
)


def holds(folder: Path) -> bool:
    """Whether a folder has the names of classes as YOLO has them."""
    return any((folder / name).is_file() for name in (CLASSES_FILE, "obj.names", DATA_FILE, "dataset.yaml"))


def read_kinds(folder: Path) -> list[str]:
    """The names of the classes in the order of their numbers.

    Args:
        folder: the root of the set, or its `data.yaml`.

    Raises:
        InputError: there is no such file, or it cannot be read.
        FormatError: it does not name classes.
    """
    places = [folder] if folder.is_file() else [folder / DATA_FILE, folder / "dataset.yaml"]
    for path in places:
        if path.is_file() and path.suffix in (".yaml", ".yml"):
            return _names(path)
    for name in (CLASSES_FILE, "obj.names"):
        if (folder / name).is_file():
            lines = _text(folder / name).split("\n")
            while lines and not lines[-1].strip():
                lines.pop()
            return _distinct([line.strip() for line in lines], folder / name)
    raise InputError(folder, f"has neither {CLASSES_FILE} nor {DATA_FILE}; a YOLO label is a number without them")


def read_yolo(source: Path, images: Path | None = None, oriented: bool = False) -> list[LabelledImage]:
    """Reads the labels of all images of a set, by name.

    Args:
        source: the root of the set, or its `data.yaml`.
        images: folder of the images, whose sizes are needed; `images` beside `labels`, or the root, if None.
        oriented: lines of eight numbers are oriented boxes, not polygons.

    Returns:
        Images with their path below the folder of images; `angle_deg` of oriented boxes is None.

    Raises:
        InputError: a file cannot be read, or the image of a text is not there.
        FormatError: a line is wrong, or lies outside its image; file and line are named.
    """
    kinds = read_kinds(source)
    root = source.parent if source.is_file() else source
    texts_root = root / LABELS if (root / LABELS).is_dir() else root
    if images is None:
        images = root / IMAGES if (root / IMAGES).is_dir() else root
    if not images.is_dir():
        raise InputError(images, "no such folder; a YOLO label says shares of an image whose size must be known")
    pictures: dict[str, Path] = {}
    for path in sorted(images.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            key = path.relative_to(images).with_suffix("").as_posix()
            if key in pictures:
                raise InputError(path, f"and {pictures[key].name} would share the labels {key}.txt; rename one")
            pictures[key] = path
    texts = {
        path.relative_to(texts_root).with_suffix("").as_posix(): path
        for path in sorted(texts_root.rglob("*.txt"))
        if not (path.parent == root and path.name.lower() in _NO_LABELS)
    }
    for key, text in texts.items():
        if key not in pictures:
            raise InputError(text, f"its image {images / key}.* is not there, and a YOLO label needs the image's size")
    if (root / LIST_FILE).is_file():
        pictures = _listed(root / LIST_FILE, pictures, images)
    found = []
    for key, picture in pictures.items():
        width, height = image_size(picture)
        image = LabelledImage(picture.relative_to(images).as_posix(), width, height)
        if key in texts:
            image.labels = list(_labels(texts[key], kinds, width, height, oriented))
        found.append(image)
    if not found:
        raise InputError(images, f"no images here; looked for {' '.join(SUFFIXES)}")
    return found


def write_yolo(
    folder: Path,
    images: Sequence[LabelledImage],
    kinds: Sequence[str] = (),
    oriented: bool = False,
    losses: list[str] | None = None,
) -> int:
    """Writes `labels/`, `images.txt`, `classes.txt` and `data.yaml`; the images themselves are not copied.

    Args:
        folder: made if it is not there.
        images: of known size. An absolute path or an address is taken by its last part; a leading `images/` is left
            out, for `labels/` stands beside it.
        kinds: classes in the order of their numbers, from 0; classes that come up besides follow.
        oriented: write quads as lines of eight numbers; every label must have one.
        losses: what the format cannot hold is left out, and told here; None refuses it.

    Returns:
        Number of lines.

    Raises:
        InputError: the folder has labels already, or cannot be written; a label lies outside its image, the size of an
            image is not known, two images would share a text, or something would be lost.
    """
    number_of = {kind: number for number, kind in enumerate(kinds)}
    texts: dict[PurePosixPath, tuple[str, list[str]]] = {}
    for image in images:
        name = _text_name(image.path)
        if image.page:
            raise InputError(image.path, f"page {image.page} of a file cannot have a YOLO text; save it by itself")
        if image.width_px is None or image.height_px is None:
            raise InputError(image.path, "its size is not known, and YOLO labels are shares of it; give --images")
        if name in texts:
            raise InputError(image.path, f"and {texts[name][0]} would share the labels {name}; rename one of them")
        lines: list[str] = []
        for label in image.labels:
            try:
                for part in _holdable(label, image.width_px, image.height_px, oriented, losses, image.path):
                    number = number_of.setdefault(part.kind, len(number_of))
                    numbers = _numbers(part, image.width_px, image.height_px)
                    lines.append(" ".join([str(number), *(format(value, "f") for value in numbers)]))
            except ValueError as wrong:
                raise InputError(image.path, f"the label {label.kind!r} at {label.box}: {wrong}") from wrong
        texts[name] = (image.path, lines)
    if not number_of:
        raise InputError(folder, "has no class: nothing is labelled, and no classes are named")
    for kind in number_of:
        if not kind.strip() or kind != kind.strip() or "\n" in kind or "\r" in kind:
            raise InputError(folder, f"the class name {kind!r} cannot stand on a line of {CLASSES_FILE}")
    try:
        if (folder / LABELS).exists():
            raise InputError(folder, f"has {LABELS} already; name another folder, or remove them first")
        for name, (_, lines) in texts.items():
            path = folder / LABELS / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CLASSES_FILE).write_text("".join(f"{kind}\n" for kind in number_of), "utf-8")
        listed = [
            f"./{IMAGES}/{name.with_suffix(PurePosixPath(path.partition('?')[0]).suffix)}"
            for name, (path, _) in texts.items()
        ]
        (folder / LIST_FILE).write_text("".join(f"{line}\n" for line in listed), "utf-8")
        told = {"train": LIST_FILE, "names": {number: kind for kind, number in number_of.items()}}
        (folder / DATA_FILE).write_text(yaml.safe_dump(told, sort_keys=False, allow_unicode=True), "utf-8")
    except OSError as wrong:
        raise InputError(folder, f"cannot be written: {wrong.strerror or wrong}") from wrong
    return sum(len(lines) for _, lines in texts.values())


def _holdable(
    label: Label, width_px: int, height_px: int, oriented: bool, losses: list[str] | None, path: str
) -> Iterator[Label]:
    """The label as this format can hold it, in parts where it has several."""

    def lose(what: str) -> None:
        if losses is None:
            raise ValueError(f"{what}; a YOLO file cannot hold that")
        losses.append(f"{path}: {label.kind} at {label.box}: {what}")

    check(label, width_px, height_px)
    if label.ignore:
        lose("it is to be ignored, and is left out")
        return
    if label.mask is not None:
        lose("it has a mask, of which the box is kept")
        label = replace(label, mask=None)
    if oriented:
        if label.quad is None:
            raise ValueError("it is no oriented box, and all of such a file are")
        if label.polygons or label.angle_deg is not None:
            lose("its quad is kept, its polygons and angle are not")
        yield replace(label, polygons=(), angle_deg=None)
        return
    if label.quad is not None:
        lose("its quad becomes a polygon, its angle is not kept" if not label.polygons else "its quad is not kept")
        label = replace(label, polygons=label.polygons or (label.quad,), quad=None, angle_deg=None)
    if label.polygons and outline_box(label) != label.box:
        lose("its box is not the one around its polygons, which are kept")
    if len(label.polygons) > 1:
        lose(f"its {len(label.polygons)} polygons become labels of their own")
    for ring in label.polygons:
        yield replace(label, polygons=(ring,), box=hull_box(ring))
    if not label.polygons:
        yield label


def _numbers(label: Label, width_px: int, height_px: int) -> list[Decimal]:
    ring = label.quad or (label.polygons[0] if label.polygons else None)
    if ring is not None:
        sides = (Decimal(width_px), Decimal(height_px))
        return [_share(number, side) for point in ring for number, side in zip(point, sides, strict=True)]
    x0, y0, x1, y1 = label.box
    x, width = _middle(x0, x1, Decimal(width_px))
    y, height = _middle(y0, y1, Decimal(height_px))
    return [x, y, width, height]


def _share(number: float, side: Decimal) -> Decimal:
    share = quotient(plus(exact(number), HALF), side)
    return shortest([share], lambda told: _coordinate(told, side) == number)[0]


def _coordinate(share: Decimal, side: Decimal) -> float:
    return float(minus(times(share, side), HALF))


def _middle(low: float, high: float, side: Decimal) -> list[Decimal]:
    first, last = exact(low), exact(high)
    middle = quotient(plus(times(plus(first, last), HALF), HALF), side)
    length = quotient(minus(last, first), side)
    return shortest([middle, length], lambda share, part: _ends(share, part, side) == (low, high))


def _ends(middle: Decimal, length: Decimal, side: Decimal) -> tuple[float, float]:
    half = times(length, HALF)
    return _coordinate(minus(middle, half), side), _coordinate(plus(middle, half), side)


def _labels(path: Path, kinds: list[str], width: int, height: int, oriented: bool) -> Iterator[Label]:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield _label(line.split(), kinds, width, height, oriented)
        except ValueError as wrong:
            raise FormatError(path, f"line {number}: {wrong}: {line.strip()[:80]!r}") from wrong


def _label(words: list[str], kinds: list[str], width: int, height: int, oriented: bool) -> Label:
    if not (words[0].isascii() and words[0].isdigit()):
        raise ValueError(f"the class is a whole number, got {words[0][:20]!r}")
    if int(words[0]) >= len(kinds):
        raise ValueError(f"class {words[0]}; there are {len(kinds)}, from 0: {', '.join(kinds)[:80]}")
    kind = kinds[int(words[0])]
    try:
        shares = [Decimal(word) for word in words[1:]]
    except InvalidOperation:
        raise ValueError("a number cannot be read") from None
    if not all(share.is_finite() and -1000 < share < 1000 for share in shares):
        raise ValueError("a number is no share of a side")
    w, h = Decimal(width), Decimal(height)
    if len(shares) == 4:
        if min(shares[2:]) <= 0:
            raise ValueError("width and height must be above 0")
        x0, x1 = _ends(shares[0], shares[2], w)
        y0, y1 = _ends(shares[1], shares[3], h)
        label = Label(kind, (x0, y0, x1, y1))
    elif len(shares) >= 6 and len(shares) % 2 == 0:
        ring: tuple[Point, ...] = tuple(
            (_coordinate(x, w), _coordinate(y, h)) for x, y in zip(shares[::2], shares[1::2], strict=True)
        )
        if oriented and len(ring) != 4:
            raise ValueError(f"an oriented box has 4 corners, this one {len(ring)}")
        if oriented:
            label = Label(kind, hull_box(ring), quad=(ring[0], ring[1], ring[2], ring[3]))
        else:
            label = Label(kind, hull_box(ring), polygons=(ring,))
    else:
        raise ValueError(f"{len(shares)} numbers behind the class; 4 are a box, 6, 8 … the corners of a polygon")
    if oriented and label.quad is None:
        raise ValueError("no oriented box: 8 numbers are expected behind the class")
    check(label, width, height)
    return label


def _listed(path: Path, pictures: dict[str, Path], images: Path) -> dict[str, Path]:
    """The pictures that a list names; each must be there."""
    kept = {}
    for number, line in enumerate(_text(path).split("\n"), 1):
        if name := line.strip().removeprefix("./").removeprefix(f"{IMAGES}/"):
            key = PurePosixPath(name).with_suffix("").as_posix()
            if key not in pictures:
                raise InputError(path, f"line {number}: names {name}, which is not in {images}")
            kept[key] = pictures[key]
    return kept


def _names(path: Path) -> list[str]:
    try:
        told = yaml.safe_load(_text(path))
    except yaml.YAMLError as wrong:
        raise FormatError(path, f"cannot be read as YAML: {' '.join(str(wrong).split())}") from wrong
    names = told.get("names") if isinstance(told, dict) else None
    if isinstance(names, dict):
        if not names or sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise FormatError(path, "names: the numbers of the classes do not go from 0 up without a gap")
        by_number = {int(number): name for number, name in names.items()}
        names = [by_number[number] for number in range(len(by_number))]
    if not (isinstance(names, list) and names and all(isinstance(name, str | int) for name in names)):
        raise FormatError(path, "does not name its classes; expected `names:` with a list, or with number: name")
    return _distinct([str(name) for name in names], path)


def _distinct(names: list[str], path: Path) -> list[str]:
    for place, name in enumerate(names):
        if not name:
            raise FormatError(path, f"class {place} has no name")
        if name in names[:place]:
            raise FormatError(path, f"classes {names.index(name)} and {place} have the same name {name!r}")
    if not names:
        raise FormatError(path, "names no classes")
    return names


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}") from wrong
    except UnicodeDecodeError as wrong:
        raise FormatError(path, f"not a text: {wrong.reason} at byte {wrong.start}") from wrong


def _text_name(path: str) -> PurePosixPath:
    place = PurePosixPath(path.partition("?")[0])
    if "://" in path or place.is_absolute() or ".." in place.parts:
        place = PurePosixPath(place.name)
    if place.parts[:1] == (IMAGES,) and len(place.parts) > 1:
        place = PurePosixPath(*place.parts[1:])
    if not place.name:
        raise InputError(path, "has no file name that a text of labels could be called by")
    return place.with_suffix(".txt")
