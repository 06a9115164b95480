"""GWY: the native files of Gwyddion, read and written without Gwyddion.

A file is `GWYP` and one object; an object is a name, a length and components; a component is a name, a letter for its
type and its value, all little-endian. Channel n stands under `/n/data` (a GwyDataField, in SI units), its title under
`/n/data/title` and its mask under `/n/mask`. Gwyddion has no missing points: its own importers put a number there and
mark it in the mask, and so do we.

Source: "Gwyddion Native Format (GWY)", Gwyddion user guide,
gwyddion.net/documentation/user-guide-en/gwyfile-format.html
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from waferlens.errors import FormatError, UsageError
from waferlens.formats.height_parts import Match, Offer, assemble, choose_channel, metres, write_whole
from waferlens.records import HeightMap

_MAGIC = b"GWYP"
_SCALARS = {b"i": "<i", b"q": "<q", b"d": "<d"}
_ARRAYS = {b"C": "u1", b"I": "<i4", b"Q": "<i8", b"D": "<f8"}
_DEEPEST = 16
_LARGEST = 2**31  # half of what 32 bits count, for the mask and the sigma


def match(first: bytes) -> Match:
    return Match.YES if first.startswith(_MAGIC) else Match.NO


def read(path: Path, channel: str | None = None) -> HeightMap:
    """The height channel of a GWY file, masked points not valid.

    Raises:
        FormatError: the file is truncated or damaged, or has no height channel.
    """
    data = path.read_bytes()
    try:
        name, content, _ = _object(data, len(_MAGIC), 0)
    except (struct.error, ValueError, IndexError) as error:
        raise FormatError(path, f"damaged or truncated GWY file: {error}") from error
    if name != "GwyContainer":
        raise FormatError(path, f"a GWY file holds a GwyContainer, this one a {name}")
    numbers = sorted(
        int(key.split("/")[1])
        for key, value in content.items()
        if key.count("/") == 2 and key.endswith("/data") and key.split("/")[1].isdigit() and isinstance(value, dict)
    )
    fields = {number: content[f"/{number}/data"] for number in numbers}
    offers = [
        Offer(str(content.get(f"/{n}/data/title", f"channel {n}")), _unit(fields[n], "si_unit_z")) for n in numbers
    ]
    index = choose_channel(path, offers, channel)
    number, field = numbers[index], fields[numbers[index]]
    heights = _grid(path, field)
    mask = content.get(f"/{number}/mask")
    invalid = None if mask is None else _grid(path, mask) > 0
    sigma = next(
        (_grid(path, fields[n]) for n, offer in zip(numbers, offers, strict=True) if offer.name == "Sigma"), None
    )
    h, w = heights.shape
    remarks = [] if mask is None else ["points under the mask of the channel are taken as not valid"]
    return assemble(
        path,
        heights,
        unit=_unit(field, "si_unit_z"),
        pitch=(field.get("xreal", 1.0) / w, field.get("yreal", 1.0) / h),
        pitch_unit=_unit(field, "si_unit_xy"),
        invalid=invalid,
        sigma=None if sigma is None or sigma.shape != heights.shape else sigma,
        origin={
            "format": "GWY",
            "channel": offers[index].name,
            "channels": [offer.name for offer in offers],
            "remarks": remarks,
        },
    )


def write(path: Path, height_map: HeightMap) -> None:
    """Write a map, its mask, and its sigma as a second channel; lengths in metres.

    Raises:
        UsageError: the map is not calibrated, or too large for the format.
    """
    heights, pitch = metres(height_map, path)
    if heights.nbytes >= _LARGEST:
        raise UsageError(f"{path}: GWY counts bytes with 32 bits, and this map has {heights.nbytes}; write .tif")
    content = _channel(0, "Height", heights, pitch, height_map.valid)
    if height_map.sigma is not None:
        sigma, _ = metres(replace(height_map, heights=height_map.sigma), path)
        content += _channel(1, "Sigma", sigma, pitch, height_map.valid)
    write_whole(path, lambda beside: beside.write_bytes(_MAGIC + _pack("GwyContainer", content)))


def _object(data: bytes, at: int, depth: int) -> tuple[str, dict[str, Any], int]:
    """Name and components of the object at an offset, and the offset after it."""
    if depth > _DEEPEST:
        raise ValueError(f"objects are nested more than {_DEEPEST} deep")
    name, at = _text(data, at)
    (size,) = struct.unpack_from("<I", data, at)
    at += 4
    end = at + size
    if end > len(data):
        raise ValueError(f"{name} ends at byte {end} of {len(data)}")
    components: dict[str, Any] = {}
    while at < end:
        key, at = _text(data, at)
        components[key], at = _value(data, at, depth)
    return name, components, end


def _value(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    kind = data[at : at + 1]
    at += 1
    if kind in _SCALARS:
        (number,) = struct.unpack_from(_SCALARS[kind], data, at)
        return number, at + struct.calcsize(_SCALARS[kind])
    if kind in (b"b", b"c"):
        return data[at], at + 1
    if kind == b"s":
        return _text(data, at)
    if kind == b"o":
        _, content, at = _object(data, at, depth + 1)
        return content, at
    (count,) = struct.unpack_from("<I", data, at)
    at += 4
    if kind in _ARRAYS:
        dtype = np.dtype(_ARRAYS[kind])
        return np.frombuffer(data, dtype, count, at), at + count * dtype.itemsize
    if kind in (b"S", b"O"):
        items = []
        for _ in range(count):
            item, at = _text(data, at) if kind == b"S" else _object(data, at, depth + 1)[1:]
            items.append(item)
        return items, at
    raise ValueError(f"unknown type {kind!r} of a component at byte {at}")


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(b"\0", at)
    return data[at:end].decode("utf-8"), end + 1


def _grid(path: Path, field: dict[str, Any]) -> np.ndarray:
    try:
        return field["data"].reshape(field["yres"], field["xres"])
    except (KeyError, ValueError, AttributeError) as error:
        raise FormatError(path, f"a data field of the GWY file does not fit its own size: {error}") from error


def _unit(field: dict[str, Any], key: str) -> str | None:
    """The unit's name; None where the field has none."""
    unit = field.get(key)
    return (unit.get("unitstr") or None) if isinstance(unit, dict) else None


def _channel(number: int, title: str, heights: np.ndarray, pitch: tuple[float, float], valid: np.ndarray) -> bytes:
    filled = np.where(valid & np.isfinite(heights), heights, heights[valid].mean() if valid.any() else 0.0)
    base = f"/{number}/data"
    packed = _component(base, b"o", _field(filled, pitch, "m")) + _component(f"{base}/title", b"s", _cstring(title))
    if not valid.all():
        packed += _component(f"/{number}/mask", b"o", _field((~valid).astype(np.float64), pitch, ""))
    return packed


def _field(values: np.ndarray, pitch: tuple[float, float], unit: str) -> bytes:
    h, w = values.shape
    flat = np.ascontiguousarray(values, "<f8").tobytes()
    return _pack(
        "GwyDataField",
        _component("xres", b"i", struct.pack("<i", w))
        + _component("yres", b"i", struct.pack("<i", h))
        + _component("xreal", b"d", struct.pack("<d", w * pitch[0]))
        + _component("yreal", b"d", struct.pack("<d", h * pitch[1]))
        + _component("si_unit_xy", b"o", _pack("GwySIUnit", _component("unitstr", b"s", _cstring("m"))))
        + _component("si_unit_z", b"o", _pack("GwySIUnit", _component("unitstr", b"s", _cstring(unit))))
        + _component("data", b"D", struct.pack("<I", h * w) + flat),
    )


def _pack(name: str, components: bytes) -> bytes:
    return _cstring(name) + struct.pack("<I", len(components)) + components


def _component(name: str, kind: bytes, value: bytes) -> bytes:
    return _cstring(name) + kind + value


def _cstring(text: str) -> bytes:
    return text.encode() + b"\0"
