"""SEMI E142: maps come back identical, devices have the numbers a hand gives them, and no XML trap opens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waferlens.errors import FormatError, InputError, UsageError
from waferlens.formats.e142 import read_e142, write_e142
from waferlens.formats.e142_record import (
    AXES,
    E142,
    MISSING,
    NG,
    OK,
    ORIGINS,
    REVIEW,
    SUBSTRATES,
    WIDTHS,
    Bin,
    BinCodeMap,
    Layout,
    Overlay,
    Reference,
    Substrate,
    SubstrateMap,
    strip_map,
)
from waferlens.formats.safe_xml import XmlNode, read_xml, xml_text

TOOL = """<?xml version="1.0" encoding="ISO-8859-1"?>
<!-- as a prober writes it -->
<MapData xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns="urn:semi-org:xsd.E142-1.V0211.SubstrateMap">
  <Layouts>
    <Layout LayoutId="Strip" DefaultUnits="mm" TopLevel="True">
      <Dimension X="2" Y="1" /><DeviceSize X="170" Y="200" />
      <ChildLayouts><ChildLayout LayoutId="Device" /></ChildLayouts>
    </Layout>
    <Layout LayoutId="Device" DefaultUnits="mm">
      <Dimension X="2" Y="3" /><LowerLeft X="4.5" Y="42" /><DeviceSize X="" Y="" />
      <StepSize X=".5" Y="15e-1" Units="micron" />
      <ProductId> P\xe4 </ProductId><Z Order="0" Height="500" Units="um" />
    </Layout>
  </Layouts>
  <Substrates>
    <Substrate SubstrateType="strip" SubstrateId="S&amp;1" xsi:type="x">
      <LotId>L1</LotId><GoodDevices>7</GoodDevices><AliasIds><AliasId Type="Tester" Value="T&#10;1"/></AliasIds>
    </Substrate>
  </Substrates>
  <SubstrateMaps>
    <SubstrateMap SubstrateType="Strip" SubstrateId="S&amp;1" LayoutSpecifier="Strip/Device" Orientation="180"
      OriginLocation="UpperRight" AxisDirection="DownLeft" Vendor="v">
      <Overlay MapName="SortGrade" MapVersion="1">
        <ReferenceDevices><ReferenceDevice Name="First">
          <Coordinates X="1" Y="2"/><Position X="-1.5" Y="2"/>
        </ReferenceDevice></ReferenceDevices>
        <BinCodeMap BinType="HexaDecimal" NullBin="FF">
          <BinDefinitions>
            <BinDefinition BinCode="01" BinCount="7" BinQuality="Pass" BinDescription="good" Pick="true"/>
            <BinDefinition BinCode="0A" BinQuality="Skip" Color="red"/>
          </BinDefinitions>
          <BinCode>01010A01</BinCode>
          <BinCode> FF01FF0A </BinCode>
          <BinCode><![CDATA[01 01 01 0A]]></BinCode>
        </BinCodeMap>
      </Overlay>
      <Overlay MapName="Ids"><DeviceIdMap><Id X="1" Y="2">a</Id></DeviceIdMap></Overlay>
    </SubstrateMap>
  </SubstrateMaps>
</MapData>
"""


def put(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "a.xml"
    path.write_text(text, "latin-1")
    return path


def test_what_a_tool_writes(tmp_path: Path) -> None:
    told = read_e142(put(tmp_path, TOOL))
    strip, device = told.layouts
    assert strip == Layout("Strip", 2, 1, "mm", True, device_size=(170.0, 200.0), children=("Device",))
    assert (device.lower_left, device.device_size, device.product_id) == ((4.5, 42.0), None, "Pä")
    # a length in units of its own is not read in the layout's: it is kept as it stands
    assert device.step_size is None
    assert [node.name for node in device.further] == ["StepSize", "Z"]
    (substrate,) = told.substrates
    assert (substrate.substrate_id, substrate.lot_id, substrate.good_devices) == ("S&1", "L1", 7)
    assert substrate.attributes == (("{http://www.w3.org/2001/XMLSchema-instance}type", "x"),)
    (one,) = told.maps
    assert (one.layout, one.orientation, one.attributes) == (("Strip", "Device"), 180, (("Vendor", "v"),))
    bins, ids = one.overlays
    assert bins.references == (Reference("First", 1, 2, (-1.5, 2.0)),)
    assert bins.bins.codes == (("01", "01", "0A", "01"), ("FF", "01", "FF", "0A"), ("01", "01", "01", "0A"))
    assert bins.bins.bins == (Bin("01", "Pass", "good", 7, True), Bin("0A", "Skip", attributes=(("Color", "red"),)))
    assert ids.bins is None
    assert ids.further[0].children[0].text == "a"
    assert told.size(one) == (3, 4)  # two strips side by side of 2 x 3 devices each
    write_e142(tmp_path / "b.xml", told)
    assert read_e142(tmp_path / "b.xml") == told
    first = (tmp_path / "b.xml").read_bytes()
    write_e142(tmp_path / "b.xml", read_e142(tmp_path / "b.xml"))
    assert (tmp_path / "b.xml").read_bytes() == first


@pytest.mark.parametrize(
    ("origin", "axis", "expected"),
    [
        # a map of 2 rows and 3 columns; the numbers of its six devices, row by row from the upper left
        ("LowerLeft", "UpRight", [(0, 1), (1, 1), (2, 1), (0, 0), (1, 0), (2, 0)]),
        ("UpperLeft", "DownRight", [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]),
        ("UpperRight", "DownLeft", [(2, 0), (1, 0), (0, 0), (2, 1), (1, 1), (0, 1)]),
        ("LowerRight", "UpLeft", [(2, 1), (1, 1), (0, 1), (2, 0), (1, 0), (0, 0)]),
        ("UpperLeft", "UpRight", [(0, 0), (1, 0), (2, 0), (0, -1), (1, -1), (2, -1)]),
        ("Center", "UpRight", [(-1, 1), (0, 1), (1, 1), (-1, 0), (0, 0), (1, 0)]),
    ],
)
def test_numbers_of_devices_by_hand(origin: str, axis: str, expected: list[tuple[int, int]]) -> None:
    one = SubstrateMap("Strip", "S", (), origin=origin, axis=axis)
    assert [one.coordinates(row, column, 2, 3) for row in range(2) for column in range(3)] == expected


def test_our_verdicts_on_a_strip(tmp_path: Path) -> None:
    told = strip_map("S1", [["OK", "NG", "OK"], ["review", None, "OK"]], "L1", (12.5, 20.0), (11.0, 18.5))
    write_e142(tmp_path / "a.xml", told)
    assert read_e142(tmp_path / "a.xml") == told
    text = (tmp_path / "a.xml").read_text()
    assert "<BinCode>010201</BinCode>\n          <BinCode>03FF01</BinCode>" in text
    assert '<BinDefinition BinCode="01" BinCount="3" BinQuality="Pass" BinDescription="OK"/>' in text
    assert '<BinDefinition BinCode="02" BinCount="1" BinQuality="Fail" BinDescription="NG"/>' in text
    assert '<BinDefinition BinCode="03" BinCount="1" BinQuality="Review" BinDescription="review"/>' in text
    assert 'OriginLocation="UpperLeft" AxisDirection="DownRight"' in text
    bins = told.maps[0].overlays[0].bins
    assert bins.counts == {OK: 3, NG: 1, REVIEW: 1, MISSING: 1}
    assert told.substrates[0].good_devices == 3
    for verdicts, reason in (
        ([], "rows of no devices"),
        ([["OK"], ["OK", "NG"]], r"rows of \[1, 2\] devices"),
        ([["ok"]], "the verdict 'ok'; there are OK, NG, review"),
    ):
        with pytest.raises(UsageError, match=reason):
            strip_map("S", verdicts)


texts = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=6
)
bare = texts.map(str.strip)
pairs = st.none() | st.tuples(*[st.floats(-1e6, 1e6)] * 2)


@st.composite
def files(draw: st.DrawFn) -> E142:
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    kind = draw(st.sampled_from(sorted(WIDTHS)))
    known = {
        "Ascii": [".", "X", "<", "&", '"'],
        "Decimal": ["000", "001", "255"],
        "HexaDecimal": ["FF", "01", "a0"],
        "Integer2": ["FFFF", "0001", "00a0"],
    }[kind]
    codes = tuple(tuple(draw(st.sampled_from(known)) for _ in range(columns)) for _ in range(rows))
    bins = BinCodeMap(kind, known[0], codes)
    if draw(st.booleans()):
        some = st.none() | texts
        told = tuple(
            Bin(
                code,
                draw(some),
                draw(some),
                draw(st.sampled_from([None, bins.counts[code]])),
                draw(st.none() | st.booleans()),
            )
            for code in known[1:]
        )
        bins = replace(bins, bins=told)
    references = tuple(
        Reference(draw(texts), draw(st.integers(-99, 99)), 0, draw(pairs)) for _ in range(draw(st.integers(0, 2)))
    )
    kept = (XmlNode("Odd", "urn:x", (("{urn:y}a", draw(texts)),), draw(bare), (XmlNode("B", ""),)),)
    overlay = Overlay(
        draw(st.none() | texts), draw(st.none() | texts), bins, references, draw(st.sampled_from([(), kept]))
    )
    told_layout = draw(st.booleans())
    one = SubstrateMap(
        draw(st.sampled_from(SUBSTRATES)), draw(texts), (overlay,), ("A", "B") if told_layout else (),
        draw(st.sampled_from([None, 0, 90, 180, 270])), draw(st.sampled_from(ORIGINS)), draw(st.sampled_from(AXES)),
        draw(st.none() | texts), draw(st.sampled_from([(), (("Tool", "t"),)])),
    )  # fmt: skip
    layouts = (
        Layout("A", 1, 1, draw(st.none() | texts), True, children=("B",)),
        Layout("B", columns, rows, None, False, draw(pairs), draw(pairs), draw(pairs), draw(st.none() | bare)),
    )
    substrate = Substrate(
        one.substrate_type, one.substrate_id, draw(st.none() | bare), draw(st.none() | st.integers(0, 99))
    )
    return E142((one,), layouts if told_layout else (), draw(st.sampled_from([(), (substrate,)])), further=kept)


@given(files())
@settings(max_examples=120, deadline=None)
def test_what_is_written_reads_back_identical(tmp_path_factory, told: E142) -> None:
    path = tmp_path_factory.mktemp("e142") / "a.xml"
    write_e142(path, told)
    assert read_e142(path) == told


BOMB = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>
<MapData xmlns="urn:semi-org:xsd.E142-1.V1005.SubstrateMap">&c;</MapData>
"""
OUTSIDE = """<?xml version="1.0"?>
<!DOCTYPE a [<!ENTITY x SYSTEM "{}">]>
<MapData xmlns="urn:semi-org:xsd.E142-1.V1005.SubstrateMap">&x;</MapData>
"""


def test_entities_are_not_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    parameter = '<!DOCTYPE a [<!ENTITY % p SYSTEM "http://127.0.0.1:9/x.dtd"> %p;]><a/>'
    for text in (BOMB, OUTSIDE.format(secret.as_uri()), parameter, '<!DOCTYPE a SYSTEM "x.dtd"><a/>'):
        with pytest.raises(FormatError, match=r"line \d+: declares a document type"):
            read_e142(put(tmp_path, text))
    with pytest.raises(FormatError, match="nested more than 64 deep"):
        read_xml(put(tmp_path, "<a>" * 100_000))
    with pytest.raises(FormatError, match="no XML, or truncated"):
        read_xml(put(tmp_path, "<a>&lt;&x;</a>"))
    with pytest.raises(FormatError, match="no XML"):
        read_xml(put(tmp_path, '<?xml version="1.0" encoding="nonsense"?><a/>'))


def changed(old: str, new: str) -> str:
    assert old in TOOL
    return TOOL.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no XML, or truncated"),
        ("<MapData/>", "no E142: begins with MapData of the name space ''"),
        (changed("xsd.E142-1", "xsd.E143-1"), "no E142"),
        (TOOL[: TOOL.index("</SubstrateMaps>")], "no XML, or truncated"),
        (changed("<BinCode> FF01FF0A </BinCode>", ""), "has 2 rows of 4 codes, its layouts 3 rows of 4 devices"),
        (changed("01010A01", "01010A"), r"its rows have \[3, 4\] codes"),
        (changed("01010A01", "01010A0"), "7 characters are no whole number of codes of 2"),
        (changed("01010A01", "01010B01"), "has the code '0B', which is not defined"),
        (changed("01010A01", "01010G01"), "'0G' is no code of the type HexaDecimal"),
        (changed("01010A01", "010A0A01"), "BinCount tells 7 devices of '01', the map has 6"),
        (changed('BinCount="7"', 'BinCount="7.5"'), "BinCount = '7.5'; expected a whole number"),
        (changed("<Overlay", "<Overlay><BinCodeMap/><BinCodeMap/></Overlay><Overlay"), "has 2 BinCodeMaps"),
        (changed('BinType="HexaDecimal"', 'BinType="Octal"'), "BinType = 'Octal'; expected Ascii, Decimal"),
        (changed(' NullBin="FF"', ""), "BinCodeMap: has no NullBin"),
        (changed('NullBin="FF"', 'NullBin="FF" MapType="Sparse"'), "MapType = 'Sparse'"),
        (changed('BinCode="0A"', 'BinCode="01"'), "defines the code '01' a second time"),
        (changed('Pick="true"', 'Pick="maybe"'), "Pick = 'maybe'"),
        (changed('Orientation="180"', 'Orientation="45"'), "Orientation = 45"),
        (changed('"UpperRight"', '"TopRight"'), "OriginLocation = 'TopRight'; expected LowerLeft"),
        (changed('"DownLeft"', '"Left"'), "AxisDirection = 'Left'"),
        (changed('"Strip/Device"', '"Strip/Devices"'), "the layout 'Devices' of the map 'S&1' is not told of"),
        (changed('SubstrateType="Strip" SubstrateId', 'SubstrateType="Disk" SubstrateId'), "SubstrateType = 'Disk'"),
        (changed('Dimension X="2" Y="3"', 'Dimension X="2" Y="0"'), "2 x 0 devices"),
        (changed('<Dimension X="2" Y="3" />', ""), "Layout: has no Dimension"),
        (changed('LowerLeft X="4.5"', 'LowerLeft X="4,5"'), "LowerLeft: X = '4,5', Y = '42'; expected numbers"),
        (changed("<GoodDevices>7", "<GoodDevices>x"), "GoodDevices: its text = 'x'; expected a whole number"),
        (changed('<Coordinates X="1" Y="2"/>', ""), "ReferenceDevice: has no Coordinates"),
        (changed('LayoutId="Device" DefaultUnits', 'Id="Device" DefaultUnits'), "Layout: has no LayoutId"),
        (TOOL[: TOOL.index("  <SubstrateMaps>")] + "</MapData>", "has no SubstrateMap: that is not the same"),
        (
            TOOL[: TOOL.index("      <Overlay MapName=\"Sort")] + "</SubstrateMap></SubstrateMaps></MapData>",
            "has no Overlay: that is not the same",
        ),
        (changed("<SubstrateMaps>", "<SubstrateMaps><Other/>"), "Other: stands in SubstrateMaps"),
        (changed('<Overlay MapName="Ids">', '<Other/><Overlay MapName="Ids">'), "Other: stands in SubstrateMap,"),
    ],
)  # fmt: skip
def test_a_map_that_does_not_add_up(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        read_e142(put(tmp_path, text))


def test_counts_may_be_left_unchecked(tmp_path: Path) -> None:
    text = changed('BinCount="7"', 'BinCount="0"')  # as templates have it
    assert read_e142(put(tmp_path, text), check_counts=False).maps[0].overlays[0].bins.bins[0].count == 0


def test_what_cannot_be_written(tmp_path: Path) -> None:
    told = strip_map("S", [["OK"]])
    (one,) = told.maps
    (overlay,) = one.overlays
    for bad, reason in (
        (replace(told, maps=(replace(one, origin="Middle"),)), "'Middle'; expected LowerLeft"),
        (replace(told, maps=(replace(one, overlays=()),)), "has no Overlay"),
        (replace(told, layouts=()), "the layout 'StripLayout' of the map 'S' is not told of"),
        (replace(told, maps=(replace(one, substrate_id="a\x01"),)), "has the character .* which XML cannot hold"),
        (replace(told, substrates=(Substrate("Strip", "S", " L"),)), "begins or ends with white space"),
        (
            replace(
                told, maps=(replace(one, overlays=(replace(overlay, bins=replace(overlay.bins, codes=(("09",),))),)),)
            ),
            "has the code '09', which is not defined",
        ),
    ):
        with pytest.raises(InputError, match=reason):
            write_e142(tmp_path / "a.xml", bad)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="cannot be written"):
        write_e142(tmp_path / "x" / "a.xml", told)
    with pytest.raises(InputError, match="cannot be read"):
        read_e142(tmp_path / "a.xml")
    assert xml_text(XmlNode("a", text="<"), "x") == "<a>&lt;</a>"
