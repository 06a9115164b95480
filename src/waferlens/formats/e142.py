"""SEMI E142: maps of wafers, frames, strips and trays as XML, read strictly and written.

    <MapData xmlns="urn:semi-org:xsd.E142-1.V1005.SubstrateMap">
      <Layouts><Layout LayoutId="DeviceLayout" DefaultUnits="mm"><Dimension X="3" Y="2"/> …</Layout></Layouts>
      <Substrates><Substrate SubstrateType="Strip" SubstrateId="S1"><LotId>L1</LotId></Substrate></Substrates>
      <SubstrateMaps>
        <SubstrateMap SubstrateType="Strip" SubstrateId="S1" LayoutSpecifier="StripLayout/DeviceLayout" …>
          <Overlay MapName="BinCodeMap" MapVersion="1">
            <BinCodeMap BinType="HexaDecimal" NullBin="FF" MapType="2DArray">
              <BinDefinitions><BinDefinition BinCode="01" BinCount="5" BinQuality="Pass"/></BinDefinitions>
              <BinCode>010101</BinCode>
              <BinCode>0101FF</BinCode>

What is not understood is kept and written back. See docs/e142.md for the conventions.

Source: SEMI E142, Specification for substrate mapping; E142.1, its XML schema.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from waferlens.errors import FormatError, InputError, UsageError
from waferlens.formats.e142_nodes import NodeReader
from waferlens.formats.e142_record import (
    AXES,
    E142,
    ORIENTATIONS,
    ORIGINS,
    SUBSTRATES,
    WIDTHS,
    Attributes,
    BinCodeMap,
    Layout,
    Overlay,
    Pair,
    Substrate,
    SubstrateMap,
)
from waferlens.formats.safe_xml import XmlNode, read_xml, xml_text

_NAMESPACE = re.compile(r"urn:semi-?org:xsd\.E142-1\.V[0-9]{4}\.SubstrateMap")


def read_e142(path: str | Path, check_counts: bool = True) -> E142:
    """Reads a file of maps.

    Args:
        path: the file.
        check_counts: refuse a `BinCount` that is not the number of devices with that code.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is no such XML, declares entities, or its maps do not fit their layouts and bins.
    """
    root = read_xml(path)
    if root.name != "MapData" or not _NAMESPACE.fullmatch(root.namespace):
        raise FormatError(path, f"no E142: begins with {root.name} of the name space {root.namespace[:60]!r}")
    reader = NodeReader(path)
    told = E142(
        tuple(reader.map(node) for node in reader.listed(root, "SubstrateMaps", "SubstrateMap")),
        tuple(reader.layout(node) for node in reader.listed(root, "Layouts", "Layout")),
        tuple(reader.substrate(node) for node in reader.listed(root, "Substrates", "Substrate")),
        root.namespace,
        reader.rest(root, "SubstrateMaps", "Layouts", "Substrates"),
    )
    if not told.maps:
        raise FormatError(path, "has no SubstrateMap: that is not the same as a map without devices")
    _check(told, path, check_counts)
    return told


def write_e142(path: str | Path, told: E142) -> None:
    """Writes a file of maps, at once or not at all. Reading it gives the same record.

    Raises:
        InputError: the file cannot be written, or the maps do not fit their layouts and bins.
    """
    path = Path(path)
    try:
        _check(told, path, True)
    except FormatError as wrong:
        raise InputError(path, wrong.reason) from wrong
    space = told.namespace

    def node(
        name: str, children: Iterable[XmlNode] = (), text: str = "", kept: Attributes = (), **attributes: object
    ) -> XmlNode:
        pairs = tuple((key, _written(value)) for key, value in attributes.items() if value is not None)
        return XmlNode(name, space, (*pairs, *kept), text, tuple(children))

    def pair(name: str, value: Pair | None) -> list[XmlNode]:
        return [] if value is None else [node(name, X=value[0], Y=value[1])]

    def layout(one: Layout) -> XmlNode:
        inner = [node("Dimension", X=one.columns, Y=one.rows), *pair("LowerLeft", one.lower_left)]
        inner += [*pair("DeviceSize", one.device_size), *pair("StepSize", one.step_size)]
        inner += [] if one.product_id is None else [node("ProductId", text=one.product_id)]
        if one.children:
            inner.append(node("ChildLayouts", [node("ChildLayout", LayoutId=name) for name in one.children]))
        top = "true" if one.top_level else None
        named = {"LayoutId": one.layout_id, "DefaultUnits": one.units, "TopLevel": top}
        return node("Layout", [*inner, *one.further], kept=one.attributes, **named)

    def substrate(one: Substrate) -> XmlNode:
        inner = [] if one.lot_id is None else [node("LotId", text=one.lot_id)]
        inner += [] if one.good_devices is None else [node("GoodDevices", text=str(one.good_devices))]
        named = {"SubstrateType": one.substrate_type, "SubstrateId": one.substrate_id}
        return node("Substrate", [*inner, *one.further], kept=one.attributes, **named)

    def overlay(one: Overlay) -> XmlNode:
        inner: list[XmlNode] = []
        if one.references:
            inner.append(
                node(
                    "ReferenceDevices",
                    [
                        node(
                            "ReferenceDevice",
                            [node("Coordinates", X=it.x, Y=it.y), *pair("Position", it.position), *it.further],
                            Name=it.name,
                        )
                        for it in one.references
                    ],
                )
            )
        if one.bins is not None:
            inner.append(bin_map(one.bins))
        return node("Overlay", [*inner, *one.further], kept=one.attributes, MapName=one.name, MapVersion=one.version)

    def bin_map(one: BinCodeMap) -> XmlNode:
        defined = [
            node(
                "BinDefinition", kept=it.attributes, BinCode=it.code, BinCount=it.count, BinQuality=it.quality,
                BinDescription=it.description, Pick=it.pick,
            )
            for it in one.bins
        ]  # fmt: skip
        between = " " if one.bin_type == "Decimal" else ""
        rows = [node("BinCode", text=between.join(row)) for row in one.codes]
        definitions = [node("BinDefinitions", defined)] if defined else []
        kind = {"BinType": one.bin_type, "NullBin": one.null_bin, "MapType": "2DArray"}
        return node("BinCodeMap", [*definitions, *rows], kept=one.attributes, **kind)

    def substrate_map(one: SubstrateMap) -> XmlNode:
        return node(
            "SubstrateMap", map(overlay, one.overlays), kept=one.attributes, SubstrateType=one.substrate_type,
            SubstrateId=one.substrate_id, LayoutSpecifier="/".join(one.layout) or None, Orientation=one.orientation,
            OriginLocation=one.origin, AxisDirection=one.axis, SubstrateSide=one.side,
        )  # fmt: skip

    parts = [node("Layouts", map(layout, told.layouts))] if told.layouts else []
    parts += [node("Substrates", map(substrate, told.substrates))] if told.substrates else []
    parts.append(node("SubstrateMaps", map(substrate_map, told.maps)))
    text = xml_text(node("MapData", [*parts, *told.further]), path)
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", newline="\n", dir=path.parent, prefix=path.name, suffix=".part", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n')
        temporary.chmod(0o644)  # made for the owner only
        temporary.replace(path)
    except OSError as wrong:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise InputError(path, f"cannot be written: {wrong.strerror or wrong}") from wrong


def _check(told: E142, path: str | Path, check_counts: bool) -> None:
    for one in told.maps:
        where = f"the map {one.substrate_id!r}"
        try:
            size = told.size(one)
        except UsageError as wrong:
            raise FormatError(path, str(wrong)) from wrong
        for value, allowed in (
            (one.substrate_type, SUBSTRATES),
            (one.orientation, (None, *ORIENTATIONS)),
            (one.origin, ORIGINS),
            (one.axis, AXES),
        ):
            if value not in allowed:
                raise FormatError(path, f"{where}: {value!r}; expected {', '.join(map(str, allowed))}")
        if not one.overlays:
            raise FormatError(path, f"{where} has no Overlay: that is not the same as a map without devices")
        for overlay in one.overlays:
            if overlay.bins is not None:
                _check_bins(overlay.bins, size, path, where, check_counts)


def _check_bins(
    told: BinCodeMap, size: tuple[int, int] | None, path: str | Path, where: str, check_counts: bool
) -> None:
    width = WIDTHS.get(told.bin_type)
    if width is None:
        raise FormatError(path, f"{where}: BinType {told.bin_type!r}; expected {', '.join(WIDTHS)}")
    lengths = {len(row) for row in told.codes}
    if len(lengths) != 1 or 0 in lengths:
        raise FormatError(path, f"{where}: its rows have {sorted(lengths) or 'no'} codes; rows of one length are read")
    found = (len(told.codes), lengths.pop())
    if size is not None and found != size:
        raise FormatError(
            path, f"{where}: has {found[0]} rows of {found[1]} codes, its layouts {size[0]} rows of {size[1]} devices"
        )
    codes = [told.null_bin, *(one.code for one in told.bins)]
    pattern = {"Ascii": r"[!-~]", "Decimal": r"[0-9]{3}"}.get(told.bin_type, rf"[0-9A-Fa-f]{{{width}}}")
    for code in dict.fromkeys([*codes, *told.counts]):
        if not re.fullmatch(pattern, code):
            raise FormatError(path, f"{where}: {code[:20]!r} is no code of the type {told.bin_type}")
    names = [one.code for one in told.bins]
    if len(set(names)) != len(names):
        raise FormatError(path, f"{where}: defines a code twice")
    if told.bins:
        strange = [code for code in told.counts if code not in codes]
        if strange:
            raise FormatError(path, f"{where}: has the code {strange[0]!r}, which is not defined")
    for one in told.bins if check_counts else ():
        if one.count is not None and one.count != told.counts[one.code]:
            raise FormatError(
                path,
                f"{where}: BinCount tells {one.count} devices of {one.code!r}, the map has {told.counts[one.code]}",
            )


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)
