"""What a SEMI E142 file tells: substrates, how their devices are laid out, and a bin code for each.

Codes stand as they are seen: the first row is the upper one, the first of a row the left one, whatever the numbering.
`OriginLocation` says which device has the coordinates (0, 0), `AxisDirection` which way they grow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from waferlens.errors import UsageError
from waferlens.formats.safe_xml import XmlNode

NAMESPACE = "urn:semi-org:xsd.E142-1.V1005.SubstrateMap"
SUBSTRATES = ("Wafer", "Frame", "Strip", "Tray")
ORIGINS = ("LowerLeft", "LowerRight", "UpperLeft", "UpperRight", "Center")
AXES = ("UpRight", "UpLeft", "DownRight", "DownLeft")
ORIENTATIONS = (0, 90, 180, 270)
WIDTHS = {"Ascii": 1, "Decimal": 3, "HexaDecimal": 2, "Integer2": 4}
"""Kinds of bin codes and how many characters one has."""
Pair = tuple[float, float]
Attributes = tuple[tuple[str, str], ...]

OK, NG, REVIEW, MISSING = "01", "02", "03", "FF"
VERDICTS = {"OK": OK, "NG": NG, "review": REVIEW}
"""Bin codes of our verdicts."""


@dataclass(frozen=True, slots=True)
class Layout:
    """An array of devices, or of other layouts."""

    layout_id: str
    columns: int
    rows: int
    units: str | None = None
    """Of all its lengths, as the file writes them: `mm`, `micron` …"""
    top_level: bool = False
    lower_left: Pair | None = None
    device_size: Pair | None = None
    step_size: Pair | None = None
    product_id: str | None = None
    children: tuple[str, ...] = ()
    further: tuple[XmlNode, ...] = ()
    """What else the file says of it, kept and written back."""
    attributes: Attributes = ()
    """Attributes of a tool's own, likewise."""


@dataclass(frozen=True, slots=True)
class Bin:
    """What a bin code means."""

    code: str
    quality: str | None = None
    """`Pass`, `Fail`, or a word of the tool's own."""
    description: str | None = None
    count: int | None = None
    """How many devices have it; None if the file does not tell."""
    pick: bool | None = None
    attributes: Attributes = ()


@dataclass(frozen=True, slots=True)
class BinCodeMap:
    """A bin code for each device."""

    bin_type: str
    null_bin: str
    """The code where there is no device."""
    codes: tuple[tuple[str, ...], ...]
    """Rows from the upper one, each from the left."""
    bins: tuple[Bin, ...] = ()
    attributes: Attributes = ()

    @property
    def counts(self) -> Counter[str]:
        """How many devices have each code."""
        return Counter(code for row in self.codes for code in row)


@dataclass(frozen=True, slots=True)
class Reference:
    """A device by which a map is aligned."""

    name: str
    x: int
    y: int
    position: Pair | None = None
    further: tuple[XmlNode, ...] = ()


@dataclass(frozen=True, slots=True)
class Overlay:
    """One map of a substrate."""

    name: str | None
    version: str | None = None
    bins: BinCodeMap | None = None
    """None where it is a map of another kind, which is kept in `further`."""
    references: tuple[Reference, ...] = ()
    further: tuple[XmlNode, ...] = ()
    attributes: Attributes = ()


@dataclass(frozen=True, slots=True)
class SubstrateMap:
    """The maps of one substrate."""

    substrate_type: str
    substrate_id: str
    overlays: tuple[Overlay, ...]
    layout: tuple[str, ...] = ()
    """Names of its layouts from the outermost in; empty if the file does not tell."""
    orientation: int | None = None
    """Where its notch, flat or mark is, clockwise from below [deg]"""
    origin: str = "LowerLeft"
    axis: str = "UpRight"
    side: str | None = None
    attributes: Attributes = ()

    def coordinates(self, row: int, column: int, rows: int, columns: int) -> tuple[int, int]:
        """The numbers X and Y of a device.

        Args:
            row: of the map, from the upper one at 0.
            column: from the left one at 0.
            rows: how many there are.
            columns: how many there are.
        """
        x0 = {"Left": 0, "Right": columns - 1}.get(
            self.origin.removeprefix("Upper").removeprefix("Lower"), columns // 2
        )
        y0 = 0 if self.origin.startswith("Upper") else rows - 1 if self.origin.startswith("Lower") else rows // 2
        x, y = column - x0, row - y0
        return (x if self.axis.endswith("Right") else -x), (y if self.axis.startswith("Down") else -y)


@dataclass(frozen=True, slots=True)
class Substrate:
    """What is known of a substrate besides its maps."""

    substrate_type: str
    substrate_id: str
    lot_id: str | None = None
    good_devices: int | None = None
    further: tuple[XmlNode, ...] = ()
    attributes: Attributes = ()


@dataclass(frozen=True, slots=True)
class E142:
    """A SEMI E142 file."""

    maps: tuple[SubstrateMap, ...]
    layouts: tuple[Layout, ...] = ()
    substrates: tuple[Substrate, ...] = ()
    namespace: str = NAMESPACE
    further: tuple[XmlNode, ...] = ()

    def size(self, one: SubstrateMap) -> tuple[int, int] | None:
        """Rows and columns of a map by its layouts; None if the file tells of none.

        Raises:
            UsageError: it names a layout that is not there.
        """
        if not one.layout:
            return None
        known = {layout.layout_id: layout for layout in self.layouts}
        rows = columns = 1
        for name in one.layout:
            if name not in known:
                raise UsageError(f"the layout {name!r} of the map {one.substrate_id!r} is not told of")
            rows, columns = rows * known[name].rows, columns * known[name].columns
        return rows, columns


def strip_map(
    strip_id: str,
    verdicts: Sequence[Sequence[str | None]],
    lot_id: str | None = None,
    step_mm: Pair | None = None,
    device_mm: Pair | None = None,
    origin: str = "UpperLeft",
    axis: str = "DownRight",
    substrate_type: str = "Strip",
) -> E142:
    """Our verdicts on the devices of a strip as one map.

    `OK` has the code 01 and the quality Pass, `NG` 02 and Fail, `review` 03 and Review: who knows only Pass takes it
    for one that does not pass. Where there is no device the code is FF.

    Args:
        strip_id: name of the strip.
        verdicts: rows from the upper one, each from the left: `OK`, `NG`, `review`, or None where there is no device.
        lot_id: its lot.
        step_mm: from device to device, x and y [mm]
        device_mm: width and height of a device [mm]
        origin: which device is (0, 0): one of `ORIGINS`.
        axis: which way coordinates grow: one of `AXES`.
        substrate_type: one of `SUBSTRATES`.

    Raises:
        UsageError: there is no device, rows are not of one length, or a verdict is none of ours.
    """
    columns = {len(row) for row in verdicts}
    if len(columns) != 1 or 0 in columns:
        raise UsageError(f"a strip of rows of {sorted(columns) or 'no'} devices; rows of one length are needed")
    strange = {verdict for row in verdicts for verdict in row if verdict is not None and verdict not in VERDICTS}
    if strange:
        raise UsageError(f"the verdict {sorted(strange)[0]!r}; there are {', '.join(VERDICTS)}")
    codes = tuple(tuple(MISSING if verdict is None else VERDICTS[verdict] for verdict in row) for row in verdicts)
    counts = Counter(code for row in codes for code in row)
    told = ((OK, "Pass", "OK"), (NG, "Fail", "NG"), (REVIEW, "Review", "review"))
    bins = tuple(Bin(code, quality, name, counts[code]) for code, quality, name in told)
    overlay = Overlay("BinCodeMap", "1", BinCodeMap("HexaDecimal", MISSING, codes, bins))
    one = SubstrateMap(
        substrate_type, strip_id, (overlay,), ("StripLayout", "DeviceLayout"), 0, origin, axis, "TopSide"
    )
    layouts = (
        Layout("StripLayout", 1, 1, "mm", top_level=True, children=("DeviceLayout",)),
        Layout("DeviceLayout", columns.pop(), len(verdicts), "mm", device_size=device_mm, step_size=step_mm),
    )
    return E142((one,), layouts, (Substrate(substrate_type, strip_id, lot_id, counts[OK]),))
