"""X3P: surface files of ISO 25178-72, read and written. Lengths are in metres; one layer.

A zip archive with `main.xml` (axes, sizes, where the numbers lie) and the numbers as a binary file. A height is value
* increment + offset of the z axis; a missing one is NaN, or a 0 bit in the mask of integer files.

Source: ISO 25178-72:2017 with Amd 1:2020; the schema www.opengps.eu/2008/ISO5436_2.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np

from waferlens import __version__
from waferlens.errors import FormatError
from waferlens.formats.height_parts import MOST_POINTS, Match, Offer, assemble, choose_channel, metres, write_whole
from waferlens.records import HeightMap

_NAMESPACE = "http://www.opengps.eu/2008/ISO5436_2"
_TYPES = {"I": "<i2", "L": "<i4", "F": "<f4", "D": "<f8"}
_LONGEST_XML = 10_000_000
# What reading a damaged archive raises; a password or an unknown compression are the last two.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)


def match(first: bytes) -> Match:
    # Every zip archive begins like this; `holds` looks inside.
    return Match.MAYBE if first.startswith(b"PK\x03\x04") else Match.NO


def holds(path: Path) -> bool:
    """Whether a zip archive is an X3P file: whether it has a main.xml of that name space.

    Raises:
        FormatError: the archive is damaged, so that nobody can tell.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return "main.xml" in archive.namelist() and _NAMESPACE.encode() in archive.open("main.xml").read(4096)
    except _DAMAGE as error:
        raise FormatError(path, f"damaged zip archive (X3P files are such archives): {error}") from error


def read(path: Path, channel: str | None = None) -> HeightMap:
    """The surface of an X3P file.

    Raises:
        FormatError: a part is missing, damaged, of another size than it says, or the file is a profile.
    """
    choose_channel(path, [Offer("Height", "m")], channel)
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive)
    except _DAMAGE as error:
        raise FormatError(path, f"damaged X3P archive: {error}") from error


def _read(path: Path, archive: zipfile.ZipFile) -> HeightMap:
    root = _header(path, archive)
    if _text(path, root, "Record1/FeatureType") != "SUR":
        raise FormatError(path, f"the X3P file holds {_text(path, root, 'Record1/FeatureType')}, not a surface (SUR)")
    w, h, layers = (int(_number(path, root, f"Record3/MatrixDimension/Size{axis}")) for axis in "XYZ")
    if w < 1 or h < 1 or layers != 1:
        raise FormatError(path, f"the X3P file has {w} x {h} points in {layers} layers; one layer is read")
    if w * h > MOST_POINTS:
        raise FormatError(path, f"the X3P file promises {w} x {h} points; at most {MOST_POINTS} are read")
    for axis in ("CX", "CY"):
        if _text(path, root, f"Record1/Axes/{axis}/AxisType") != "I":
            raise FormatError(path, f"axis {axis} of the X3P file has no constant increment: a point list, not a map")
    kind = _text(path, root, "Record1/Axes/CZ/DataType")
    if kind not in _TYPES:
        raise FormatError(path, f"unknown type '{kind}' of the heights; known: {', '.join(_TYPES)}")
    dtype = np.dtype(_TYPES[kind])
    link = root.findtext("Record3/DataLink/PointDataLink")
    if not link:
        raise FormatError(path, "the X3P file lists its points in the XML; only binary points are read")
    raw = _member(path, archive, link.strip(), w * h * dtype.itemsize)
    heights = np.frombuffer(raw, dtype).reshape(h, w).astype(np.float64)
    increment = _number(path, root, "Record1/Axes/CZ/Increment", 1.0)
    offset = _number(path, root, "Record1/Axes/CZ/Offset", 0.0)
    if (increment, offset) != (1.0, 0.0) and dtype.kind == "i":
        heights = heights * increment + offset
    invalid = None
    mask_link = root.findtext("Record3/DataLink/ValidPointsLink")
    if mask_link and mask_link.strip():
        # One bit a point, the lowest first, in the order of the points.
        bits = np.frombuffer(_member(path, archive, mask_link.strip(), (w * h + 7) // 8), np.uint8)
        invalid = np.unpackbits(bits, count=w * h, bitorder="little").reshape(h, w) == 0
    remarks = []
    checksum = (root.findtext("Record3/DataLink/MD5ChecksumPointData") or "").strip().lower()
    if checksum and checksum != hashlib.md5(raw, usedforsecurity=False).hexdigest():
        # The archive's own checksums held; writers are known that sum something else.
        remarks.append("the points do not match the checksum in main.xml")
    instrument = {
        key.lower(): (root.findtext(f"Record2/Instrument/{key}") or "").strip()
        for key in ("Manufacturer", "Model", "Serial", "Version")
    }
    return assemble(
        path,
        heights,
        unit="m",
        pitch=tuple(_number(path, root, f"Record1/Axes/{axis}/Increment") for axis in ("CX", "CY")),
        pitch_unit="m",
        invalid=invalid,
        origin={
            "format": "X3P",
            "channel": "Height",
            "channels": ["Height"],
            "instrument": instrument,
            "remarks": remarks,
        },
    )


def write(path: Path, height_map: HeightMap) -> None:
    """Write a map as float64 metres, NaN where not valid. The format has no room for sigma: it is left out.

    Raises:
        UsageError: the map is not calibrated.
    """
    heights, pitch = metres(height_map, path)
    points = np.where(height_map.valid, heights, math.nan).astype("<f8").tobytes()
    header = _main_xml(height_map.heights.shape, pitch, hashlib.md5(points, usedforsecurity=False).hexdigest())

    def pack(beside: Path) -> None:
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("main.xml", header)
            archive.writestr("bindata/data.bin", points)
            digest = hashlib.md5(header, usedforsecurity=False).hexdigest()
            archive.writestr("md5checksum.hex", f"{digest} *main.xml\n")

    write_whole(path, pack)


def _main_xml(shape: tuple[int, int], pitch: tuple[float, float], digest: str) -> bytes:
    h, w = shape
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    axis = "<{0}><AxisType>I</AxisType><DataType>D</DataType><Increment>{1!r}</Increment><Offset>0.0</Offset></{0}>"
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<p:ISO5436_2 xmlns:p="{_NAMESPACE}">
  <Record1>
    <Revision>ISO5436 - 2000</Revision>
    <FeatureType>SUR</FeatureType>
    <Axes>
      {axis.format("CX", float(pitch[0]))}
      {axis.format("CY", float(pitch[1]))}
      <CZ><AxisType>A</AxisType><DataType>D</DataType><Increment>1.0</Increment><Offset>0.0</Offset></CZ>
    </Axes>
  </Record1>
  <Record2>
    <Date>{now}</Date>
    <Instrument>
      <Manufacturer>waferlens</Manufacturer><Model>software</Model><Serial>none</Serial><Version>{__version__}</Version>
    </Instrument>
    <CalibrationDate>{now}</CalibrationDate>
    <ProbingSystem><Type>Software</Type><Identification>none</Identification></ProbingSystem>
  </Record2>
  <Record3>
    <MatrixDimension><SizeX>{w}</SizeX><SizeY>{h}</SizeY><SizeZ>1</SizeZ></MatrixDimension>
    <DataLink>
      <PointDataLink>bindata/data.bin</PointDataLink>
      <MD5ChecksumPointData>{digest.upper()}</MD5ChecksumPointData>
    </DataLink>
  </Record3>
  <Record4><ChecksumFile>md5checksum.hex</ChecksumFile></Record4>
</p:ISO5436_2>
""".encode()


def _header(path: Path, archive: zipfile.ZipFile) -> ElementTree.Element:
    try:
        info = archive.getinfo("main.xml")
    except KeyError as error:
        raise FormatError(path, "the archive has no main.xml: not an X3P file") from error
    if info.file_size > _LONGEST_XML:
        raise FormatError(path, f"main.xml has {info.file_size} bytes; a header is shorter")
    text = archive.read(info)
    # Entities can unfold to any size, and no header needs them.
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise FormatError(path, "main.xml declares a document type, which no X3P header does")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise FormatError(path, f"main.xml is no well-formed XML: {error}") from error


def _member(path: Path, archive: zipfile.ZipFile, name: str, size: int) -> bytes:
    """A file of the archive, which must have just the size that the header promises."""
    try:
        info = archive.getinfo(str(PurePosixPath(name)))
    except KeyError as error:
        raise FormatError(path, f"the header names '{name}', which is not in the archive") from error
    if info.file_size != size:
        raise FormatError(path, f"'{name}' has {info.file_size} bytes where the header promises {size}")
    return archive.read(info)


def _text(path: Path, root: ElementTree.Element, where: str) -> str:
    text = root.findtext(where)
    if text is None or not text.strip():
        raise FormatError(path, f"main.xml has no {where}")
    return text.strip()


def _number(path: Path, root: ElementTree.Element, where: str, otherwise: float | None = None) -> float:
    text = root.findtext(where)
    if otherwise is not None and (text is None or not text.strip()):
        return otherwise
    try:
        return float(_text(path, root, where))
    except ValueError as error:
        raise FormatError(path, f"main.xml: {where} is '{text}', not a number") from error
