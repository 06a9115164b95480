"""Elements of a SEMI E142 file as records; a fault is named by its line."""

from __future__ import annotations

import re
from pathlib import Path

from waferlens.errors import FormatError
from waferlens.formats.e142_record import (
    AXES,
    ORIENTATIONS,
    ORIGINS,
    SUBSTRATES,
    WIDTHS,
    Attributes,
    Bin,
    BinCodeMap,
    Layout,
    Overlay,
    Pair,
    Reference,
    Substrate,
    SubstrateMap,
)
from waferlens.formats.safe_xml import XmlNode

_MAP_ATTRIBUTES = (
    *("SubstrateType", "SubstrateId", "LayoutSpecifier", "Orientation", "OriginLocation", "AxisDirection"),
    "SubstrateSide",
)
_BIN_ATTRIBUTES = ("BinCode", "BinCount", "BinQuality", "BinDescription", "Pick")


class NodeReader:
    """Nodes as records; a fault is named by its line."""

    def __init__(self, path: str | Path) -> None:
        self.path = path

    def wrong(self, node: XmlNode, what: str) -> FormatError:
        """An error that names the line of a node."""
        return FormatError(self.path, f"line {node.line}: {node.name}: {what}")

    def listed(self, root: XmlNode, group: str, name: str) -> list[XmlNode]:
        """The nodes of a group, which may hold no others."""
        found = [child for one in root.all(group) for child in one.all(name)]
        for one in root.all(group):
            for child in one.children:
                if child.name != name or child.namespace != root.namespace:
                    raise self.wrong(child, f"stands in {group}, where only {name} is known")
        return found

    def rest(self, node: XmlNode, *known: str) -> tuple[XmlNode, ...]:
        """Its children but those that are known."""
        return tuple(child for child in node.children if child.name not in known or child.namespace != node.namespace)

    def kept(self, node: XmlNode, *known: str) -> Attributes:
        """Its attributes but those that are known."""
        return tuple((name, value) for name, value in node.attributes if name not in known)

    def needed(self, node: XmlNode, name: str) -> str:
        """An attribute that must be there."""
        value = node.attribute(name)
        if value is None:
            raise self.wrong(node, f"has no {name}")
        return value

    def one_of(self, node: XmlNode, name: str, allowed: tuple[str, ...], otherwise: str | None = None) -> str:
        """An attribute that is one of some words, whatever its capitals."""
        value = node.attribute(name) if otherwise is not None else self.needed(node, name)
        if value is None:
            assert otherwise is not None
            return otherwise
        found = {one.casefold(): one for one in allowed}.get(value.casefold())
        if found is None:
            raise self.wrong(node, f"{name} = {value[:40]!r}; expected {', '.join(allowed)}")
        return found

    def whole(self, node: XmlNode, name: str, text: str | None) -> int:
        """A whole number."""
        if text is None or not re.fullmatch(r"\s*[+-]?[0-9]{1,9}\s*", text):
            raise self.wrong(node, f"{name} = {text!r}; expected a whole number")
        return int(text)

    def pair(self, node: XmlNode, name: str) -> Pair | None:
        """X and Y of a child; None if it is not there or empty."""
        child = node.first(name)
        if child is None:
            return None
        texts = [(child.attribute(axis) or "").strip() for axis in ("X", "Y")]
        if not any(texts):  # an empty element, as templates have it
            return None
        if not all(re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", text) for text in texts):
            raise self.wrong(child, f"X = {texts[0]!r}, Y = {texts[1]!r}; expected numbers")
        return float(texts[0]), float(texts[1])

    def layout(self, node: XmlNode) -> Layout:
        """A Layout."""
        dimension = node.first("Dimension")
        if dimension is None:
            raise self.wrong(node, "has no Dimension")
        columns, rows = (self.whole(dimension, axis, dimension.attribute(axis)) for axis in ("X", "Y"))
        if not (0 < columns <= 100_000 and 0 < rows <= 100_000):
            raise self.wrong(dimension, f"{columns} x {rows} devices")
        children = [child for group in node.all("ChildLayouts") for child in group.all("ChildLayout")]
        # lengths of units of their own are kept as they are, so that no length is read in the wrong unit
        sizes = ["LowerLeft", "DeviceSize", "StepSize"]
        plain = [name for name in sizes if all(one.attribute("Units") is None for one in node.all(name))]
        told = {name: self.pair(node, name) if name in plain else None for name in sizes}
        product = node.first("ProductId")
        return Layout(
            self.needed(node, "LayoutId"),
            columns,
            rows,
            node.attribute("DefaultUnits"),
            (node.attribute("TopLevel") or "").casefold() == "true",
            *(told[name] for name in sizes),
            None if product is None else product.text,
            tuple(self.needed(child, "LayoutId") for child in children),
            self.rest(node, "Dimension", "ProductId", "ChildLayouts", *plain),
            self.kept(node, "LayoutId", "DefaultUnits", "TopLevel"),
        )

    def substrate(self, node: XmlNode) -> Substrate:
        """A Substrate."""
        lot, good = node.first("LotId"), node.first("GoodDevices")
        return Substrate(
            self.one_of(node, "SubstrateType", SUBSTRATES),
            self.needed(node, "SubstrateId"),
            None if lot is None else lot.text,
            None if good is None else self.whole(good, "its text", good.text),
            self.rest(node, "LotId", "GoodDevices"),
            self.kept(node, "SubstrateType", "SubstrateId"),
        )

    def map(self, node: XmlNode) -> SubstrateMap:
        """A SubstrateMap."""
        orientation = node.attribute("Orientation")
        turn = None if orientation is None else self.whole(node, "Orientation", orientation)
        if turn is not None and turn not in ORIENTATIONS:
            raise self.wrong(node, f"Orientation = {turn}; expected 0, 90, 180 or 270")
        overlays = tuple(self.overlay(child) for child in node.all("Overlay"))
        if self.rest(node, "Overlay"):
            raise self.wrong(self.rest(node, "Overlay")[0], "stands in SubstrateMap, where only Overlay is known")
        return SubstrateMap(
            self.one_of(node, "SubstrateType", SUBSTRATES),
            self.needed(node, "SubstrateId"),
            overlays,
            tuple(part for part in (node.attribute("LayoutSpecifier") or "").split("/") if part),
            turn,
            self.one_of(node, "OriginLocation", ORIGINS, "LowerLeft"),
            self.one_of(node, "AxisDirection", AXES, "UpRight"),
            node.attribute("SubstrateSide"),
            self.kept(node, *_MAP_ATTRIBUTES),
        )

    def overlay(self, node: XmlNode) -> Overlay:
        """An Overlay."""
        bins = node.all("BinCodeMap")
        if len(bins) > 1:
            raise self.wrong(node, f"has {len(bins)} BinCodeMaps; one an overlay is read")
        references = []
        for child in (one for group in node.all("ReferenceDevices") for one in group.all("ReferenceDevice")):
            at = child.first("Coordinates")
            if at is None:
                raise self.wrong(child, "has no Coordinates")
            x, y = (self.whole(at, axis, at.attribute(axis)) for axis in ("X", "Y"))
            position = self.pair(child, "Position")
            rest = self.rest(child, "Coordinates", "Position")
            references.append(Reference(child.attribute("Name") or "", x, y, position, rest))
        return Overlay(
            node.attribute("MapName"),
            node.attribute("MapVersion"),
            self.bins(bins[0]) if bins else None,
            tuple(references),
            self.rest(node, "ReferenceDevices", "BinCodeMap"),
            self.kept(node, "MapName", "MapVersion"),
        )

    def bins(self, node: XmlNode) -> BinCodeMap:
        """A BinCodeMap."""
        kind = self.one_of(node, "BinType", tuple(WIDTHS))
        array = node.attribute("MapType") or "2DArray"
        if array.casefold() != "2darray":
            raise self.wrong(node, f"MapType = {array[:40]!r}; only 2DArray is read")
        defined: dict[str, Bin] = {}
        for child in (one for group in node.all("BinDefinitions") for one in group.all("BinDefinition")):
            one = self.bin(child)
            if defined.setdefault(one.code, one) != one:
                raise self.wrong(child, f"defines the code {one.code!r} a second time, and otherwise")
        rows = []
        lines = [(child, line) for child in node.all("BinCode") for line in child.text.split("\n") if line.strip()]
        for child, line in lines:
            parts = line.split()
            if kind != "Decimal":
                text, width = "".join(parts), WIDTHS[kind]
                if len(text) % width:
                    raise self.wrong(child, f"{len(text)} characters are no whole number of codes of {width}")
                parts = [text[at : at + width] for at in range(0, len(text), width)]
            rows.append(tuple(parts))
        kept = self.kept(node, "BinType", "NullBin", "MapType")
        return BinCodeMap(kind, self.needed(node, "NullBin"), tuple(rows), tuple(defined.values()), kept)

    def bin(self, node: XmlNode) -> Bin:
        """A BinDefinition."""
        count, pick = node.attribute("BinCount"), node.attribute("Pick")
        if pick is not None and pick.casefold() not in ("true", "false", "1", "0"):
            raise self.wrong(node, f"Pick = {pick[:20]!r}; expected true or false")
        return Bin(
            self.needed(node, "BinCode"),
            node.attribute("BinQuality"),
            node.attribute("BinDescription"),
            None if count is None else self.whole(node, "BinCount", count),
            None if pick is None else pick.casefold() in ("true", "1"),
            self.kept(node, *_BIN_ATTRIBUTES),
        )
