"""The folder layout of a simulated set of IC packages: images in three lights, truth and masks a device.

manifest.json               ours: what the folder was made from
SHA256SUMS                  the sum of every file, as `sha256sum -c` reads it
devices.csv                 one row a device: its verdict, as an audit of rejects would know it
labels.json                 COCO: boxes and masks of the defects on the brightfield images, what is to be ignored
                            as a crowd of cracks; only where truth is told
images/000123-bf.png        brightfield; -dfw darkfield white, -dfb darkfield blue; 8-bit RGB
truth/000123.json           corners, angles, defects; only where truth is told
truth/000123-parts.png      uint8: bit 0 the package's body, bit 1 the die
truth/000123-defects.png    uint8: number of the defect + 1, in the order of the truth's list; 0 elsewhere

A turned die has no pixels in the last file: its mask is the die.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float64, UInt8

from waferlens.errors import FormatError, InputError
from waferlens.formats import images

FORMAT = "waferlens-package-1"
MANIFEST_FILE = "manifest.json"
SUMS_FILE = "SHA256SUMS"
DEVICES_FILE = "devices.csv"
LABELS_FILE = "labels.json"
LIGHTS = ("bf", "dfw", "dfb")
"""Brightfield, darkfield white, darkfield blue: the order they are taken in."""
BODY_BIT, DIE_BIT = 1, 2
"""Of `truth/…-parts.png`."""


@dataclass(frozen=True, slots=True)
class Defect:
    """A defect of the die, or what is to be ignored."""

    kind: str
    """crack, chip, scratch, rotate; led-mark, dust, fibre."""
    label: str
    """Its class: crack or rotate; `ignore` for what is no defect."""
    box: tuple[float, float, float, float]
    """x0 y0 x1 y1, outer edges of its visible pixels [px]"""
    visible_px: int
    """Pixels of it that nothing covers [px²]"""
    length_px: float
    """Of the line, without branches; twice the radius of a chip or grain; height of a turned die [px]"""
    width_px: float
    """Greatest width of the line; radius of a chip; width of a turned die [px]"""
    contrast: float | None
    """Mean absolute change over its visible pixels in the brightfield image, after the lens and without noise; None
    of a turned die and of dirt [grey]"""
    ignore: bool
    """Whether it is no defect of the die."""


@dataclass(frozen=True, slots=True, eq=False)
class Device:
    """One device with its truth."""

    number: int
    images: dict[str, Path]
    """Its images by light."""
    ic_quad: Float64[np.ndarray, "4 2"]
    """Corners of the package: top left, top right, bottom right, bottom left of the upright part, x and y [px]"""
    die_quad: Float64[np.ndarray, "4 2"] | None
    """Corners of the die; None where it is missing [px]"""
    theta_ic_deg: float
    """Angle of the package in the image, counter-clockwise as seen [deg]"""
    theta_die_deg: float | None
    """Angle of the die against the package, counter-clockwise as seen [deg]"""
    offset_px: tuple[float, float] | None
    """Of the die from the cavity's middle, along the package's axes, right and down while it is upright [px]"""
    missing_die: bool
    defects: tuple[Defect, ...]
    twin_of: int | None = None
    """The defective device that this one is the good twin of."""
    cavity_quad: Float64[np.ndarray, "4 2"] | None = None
    """Corners of the cavity [px]"""
    theta_cavity_deg: float = 0.0
    """Angle of the cavity against the package [deg]"""
    theta_leads_deg: float = 0.0
    """Angle of the leads against the package [deg]"""
    border_px: float = math.nan
    """w of the package's soft border, 1 / (1 + exp(4 d / w)) [px]"""
    border_rms_px: float = math.nan
    """Roughness of that border, correlated over 25 px [px]"""
    blur_px: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    """Standard deviation of the point spread in red, by light [px]"""
    product: int = 0
    """Which layout its die has."""

    @property
    def verdict(self) -> str:
        """good, crack, rotate, crack+rotate or missing."""
        if self.missing_die:
            return "missing"
        classes = sorted({defect.label for defect in self.defects if not defect.ignore})
        return "+".join(classes) or "good"


def image_path(root: Path, number: int, light: str) -> Path:
    return root / "images" / f"{number:06d}-{light}.png"


def truth_path(root: Path, number: int) -> Path:
    return root / "truth" / f"{number:06d}.json"


def parts_path(root: Path, number: int) -> Path:
    return root / "truth" / f"{number:06d}-parts.png"


def defects_path(root: Path, number: int) -> Path:
    return root / "truth" / f"{number:06d}-defects.png"


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """What a set was made from.

    Raises:
        InputError: there is none.
        FormatError: it is of another kind or version.
    """
    path = Path(folder) / MANIFEST_FILE
    try:
        told = json.loads(path.read_text())
    except OSError as wrong:
        raise InputError(folder, f"holds no set of packages ({path.name}: {wrong.strerror or wrong})") from wrong
    except ValueError as wrong:
        raise FormatError(path, f"is no JSON: {wrong}") from wrong
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        got = told.get("format") if isinstance(told, dict) else None
        raise FormatError(path, f"format is {got!r}, expected {FORMAT!r}; simulate the set again, or name another")
    return told


def devices(folder: str | Path) -> list[int]:
    """Numbers of the devices of a set, rising.

    Raises:
        InputError: the folder holds no devices.
    """
    return sorted(verdicts(folder))


def verdicts(folder: str | Path) -> dict[int, str]:
    """Verdict of each device: all that is told of a world with hidden truth.

    Raises:
        InputError: there is no table of devices.
        FormatError: a row of it is not whole.
    """
    path = Path(folder) / DEVICES_FILE
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as wrong:
        raise InputError(folder, f"holds no set of packages ({path.name}: {wrong.strerror or wrong})") from wrong
    told = {}
    for line, row in enumerate(rows, start=2):
        try:
            told[int(row["device"])] = row["verdict"]
        except (KeyError, TypeError, ValueError) as wrong:
            raise FormatError(path, f"line {line}: {type(wrong).__name__}: {wrong}") from wrong
    return told


def write_verdicts(folder: Path, told: Iterable[tuple[int, str]]) -> None:
    """Writes the table of devices."""
    with (folder / DEVICES_FILE).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["device", "verdict"])
        writer.writerows((f"{number:06d}", verdict) for number, verdict in sorted(told))


def read_device(folder: str | Path, number: int) -> Device:
    """A device with its truth; its images are named, not opened.

    Raises:
        InputError: the set has no such device, tells no truth, or an image is missing.
        FormatError: the truth is not what it should be.
    """
    root = Path(folder)
    path = truth_path(root, number)
    if not path.is_file():
        known = devices(root)
        if number not in known:
            told = f"its {len(known)} devices run from {known[0]} to {known[-1]}" if known else "it has none"
            raise InputError(root, f"has no device {number}; {told}")
        raise InputError(root, "does not tell the truth of its devices; it is drawn again from the evaluation seed")
    try:
        told = json.loads(path.read_text())
        device = device_of(told, {light: image_path(root, number, light) for light in LIGHTS})
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}") from wrong
    except (ValueError, KeyError, TypeError) as wrong:
        raise FormatError(path, f"is no truth of a device: {type(wrong).__name__}: {wrong}") from wrong
    for image in device.images.values():
        if not image.is_file():
            raise InputError(image, f"is missing, though {path.name} tells of it")
    return device


def read_parts(folder: str | Path, number: int) -> tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Masks of the package's body and of the die.

    Raises:
        InputError: the file is missing or damaged.
    """
    bits = _mask(parts_path(Path(folder), number))
    return (bits & BODY_BIT) > 0, (bits & DIE_BIT) > 0


def read_defects(folder: str | Path, number: int) -> UInt8[np.ndarray, "h w"]:
    """Number of the visible defect at each pixel + 1, in the order of `Device.defects`; 0 where there is none.

    Raises:
        InputError: the file is missing or damaged.
    """
    return _mask(defects_path(Path(folder), number))


def read_picture(path: str | Path) -> UInt8[np.ndarray, "h w 3"]:
    """A colour image of 8 bits: red, green, blue.

    Raises:
        InputError: the file is missing or damaged, or of another kind.
    """
    data = images.read_bytes(str(path))
    images.check_whole(data, str(path))
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise FormatError(path, "the image data is broken: the decoder gave nothing back")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        channels = 1 if pixels.ndim == 2 else pixels.shape[2]
        raise FormatError(
            path,
            f"has {channels} channel{'s' * (channels > 1)} of {pixels.dtype}; save it with red, green, blue of 8 bits",
        )
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _mask(path: Path) -> UInt8[np.ndarray, "h w"]:
    pixels = images.decode(images.read_bytes(str(path)), str(path)).pixels
    if pixels.dtype != np.uint8:
        raise FormatError(path, f"is a mask of type {pixels.dtype}; expected uint8")
    return pixels


def write_truth(path: Path, device: Device) -> None:
    """Writes the truth of a device."""
    path.write_text(json.dumps(as_json(device), indent=1) + "\n")


def as_json(device: Device) -> dict[str, Any]:
    """The truth as JSON holds it."""
    return {
        "device": device.number,
        "verdict": device.verdict,
        "lights": list(LIGHTS),
        "ic_quad": _rounded(device.ic_quad),
        "die_quad": _rounded(device.die_quad),
        "cavity_quad": _rounded(device.cavity_quad),
        "theta_ic_deg": device.theta_ic_deg,
        "theta_die_deg": device.theta_die_deg,
        "theta_cavity_deg": device.theta_cavity_deg,
        "theta_leads_deg": device.theta_leads_deg,
        "offset_px": None if device.offset_px is None else list(device.offset_px),
        "missing_die": device.missing_die,
        "twin_of": device.twin_of,
        "product": device.product,
        "border_px": device.border_px,
        "border_rms_px": device.border_rms_px,
        "blur_px": list(device.blur_px),
        "defects": [
            {
                "kind": one.kind,
                "class": one.label,
                "box": list(one.box),
                "visible_px": one.visible_px,
                "length_px": round(one.length_px, 3),
                "width_px": round(one.width_px, 3),
                "contrast": None if one.contrast is None else round(one.contrast, 3),
                "ignore": one.ignore,
            }
            for one in device.defects
        ],
    }


def device_of(told: dict[str, Any], paths: dict[str, Path]) -> Device:
    """The device of a truth in JSON.

    Args:
        told: As `as_json` tells it.
        paths: Its images by light.
    """
    offset = told["offset_px"]
    defects = tuple(
        Defect(
            one["kind"],
            one["class"],
            tuple(float(edge) for edge in one["box"]),  # type: ignore[arg-type]
            int(one["visible_px"]),
            float(one["length_px"]),
            float(one["width_px"]),
            None if one["contrast"] is None else float(one["contrast"]),
            bool(one["ignore"]),
        )
        for one in told["defects"]
    )
    return Device(
        int(told["device"]),
        paths,
        _quad(told["ic_quad"]),
        None if told["die_quad"] is None else _quad(told["die_quad"]),
        float(told["theta_ic_deg"]),
        None if told["theta_die_deg"] is None else float(told["theta_die_deg"]),
        None if offset is None else (float(offset[0]), float(offset[1])),
        bool(told["missing_die"]),
        defects,
        told["twin_of"],
        _quad(told["cavity_quad"]),
        float(told["theta_cavity_deg"]),
        float(told["theta_leads_deg"]),
        float(told["border_px"]),
        float(told["border_rms_px"]),
        tuple(float(one) for one in told["blur_px"]),  # type: ignore[arg-type]
        int(told["product"]),
    )


def _rounded(quad: np.ndarray | None) -> list[list[float]] | None:
    return None if quad is None else [[round(float(x), 4), round(float(y), 4)] for x, y in quad]


def _quad(told: Any) -> Float64[np.ndarray, "4 2"]:
    quad = np.array(told, np.float64)
    if quad.shape != (4, 2):
        raise ValueError(f"a quad has 4 points, got the shape {quad.shape}")
    return quad
