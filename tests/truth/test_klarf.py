"""KLARF: what is written reads back as it was, places are those a hand computes, and no list of defects is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waferlens.errors import FormatError, InputError, UsageError
from waferlens.formats.klarf import read_klarf, write_klarf
from waferlens.formats.klarf_flat import Statement
from waferlens.formats.klarf_record import (
    COLUMNS,
    Klarf,
    KlarfTable,
    KlarfTest,
    KlarfWafer,
    box_um,
    defect_table,
    rel_um,
    summary_of,
    wafer_um,
)
from waferlens.formats.klarf_text import Images, Word

FLAT = """FileVersion 1 2;
FileTimeStamp 01-02-24 22:22:22;
TiffSpec 6.0 G R;
InspectionStationID "ACME" "MODEL 7" "T1";
SampleType WAFER;
ResultTimestamp 01-02-2024 22:22:01;
LotID "L;1";
SampleSize 1 200;
DeviceID "D";
SetupID "S 1" 01-01-2024 22:22:01;
StepID "P";
SampleOrientationMarkType NOTCH;
OrientationMarkLocation down;
DiePitch 5.0000000000e+003 4.0000000000e+003;
DieOrigin 0.0 0.0;
WaferID "07";
Slot 7;
SampleCenterLocation 2500.0 2000.0;
CoordinatesMirrored NO;
ClassLookup 2
 0 "Unclassified"
 12 "Crack Die";
InspectionTest 1;
SampleTestPlan 3
 -1 0
 0 0
 0 1 ;
AreaPerTest 6.0e+007;
DefectRecordSpec 9 DEFECTID XREL YREL XINDEX YINDEX CLASSNUMBER TEST IMAGECOUNT IMAGELIST ;
DefectList;
TiffFileName A_1.tif;
DefectList
 1 104.250 17.5 -1 0 12 1 1 1 3 0
 2 99.125 4.75 0 1 0 1 2 2
 4 0 5 1
 3 4999.999 0.001 0 0 12 1 0 0;
SummarySpec 5 TESTNO NDEFECT DEFDENSITY NDIE NDEFDIE ;
SummaryList
 1 3 5.0 3 3 ;
LotStatus 1 0 1;
EndOfFile;
"""

NESTED = """Record FileRecord  "1.8"
{
  Record LotRecord "L.1"
  {
    Record WaferRecord "W_07"
    {
      Field DieOrigin 2 {0, 0}
      Field ProcessEquipmentState 3 {"NONE", "", ""}
      Field SampleCenterLocation 2 {2500000, 2000000}
      Field SlotNumber 1 {7}

      List DefectList
      {
        Columns 8 { int32 DEFECTID,  int32 XREL,  int32 YREL,  int32 XINDEX,  int32 YINDEX,
        float DEFECTAREA,  int32 IMAGECOUNT,  ImageList IMAGEINFO }
        Data 3
        {
          1 104250 17500 -1 0
            1276520038400.0 0 N ;
          2 99125 4750 0 1 0.0 2 Images 2 {40 "30", 41 "31"} ;
          3 4999999 1 0 0 1.5 1 Image 1 { "d1.png" "PNG" 1 "24" } ;
        }
      }
      Record TestRecord "1"
      {
        Field AreaPerTest 1 {6.0000000000e+13}
        Field InspectionTest 2 {1, "1" }
        List SampleTestPlanList
        {
          Columns 2 { int32 XINDEX, int32 YINDEX }
          Data 2 { -1 0 ; 0 0 ; }
        }
      }
      Record SummaryRecord
      {
        List FullWaferSummaryList { Columns 1 { float INSPAREA  } Data 1 { 2.8895900000e+16   ; } }
        List TestSummaryList
        {
          Columns 4 { int32 TESTNO,  int32 NDEFECT,  float HAZEREGION,  float AREAPERTEST  }
          Data 1 { 1  3  -1  2.8895900000e+16   ; }
        }
      }
    }
    Field DiePitch 2 {5000000, 4000000}
    Field FabID 1 {"F"}
    Field InspectionStationID 3 {"NONE", "SFS", "T1"}
    Field OrientationMarkLocation 1 {0}
    Field RecipeID 3 {"R", "12-08-2025", "04:40:00"}
    Field ResultTimestamp 2 {"12-08-2025", "04:41:19"}
    Field SampleSize 2 {200000000, 0}
    List ClassLookupList
    {
      Columns 3 { int32 CLASSNUMBER, string CLASSNAME, string CLASSCODE }
      Data 2 { 0 "UNCLASSIFIED" ""; 12 "CRACK, DIE" ""; }
    }
  }
  Field FileTimestamp 2 {"12-08-2025", "04:57:03"}
}
EndOfFile;
"""


def put(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "a.klarf"
    path.write_text(text, "utf-8")
    return path


def test_a_flat_file(tmp_path: Path) -> None:
    klarf = read_klarf(put(tmp_path, FLAT))
    (wafer,) = klarf.wafers
    assert (klarf.version, klarf.lot_id, klarf.die_pitch_um) == ("1.2", "L;1", (5000.0, 4000.0))
    assert (klarf.sample_size_mm, klarf.mark_type, klarf.mark_location) == ((200.0,), "NOTCH", "DOWN")
    assert klarf.setup_id == ("S 1", "01-01-2024", "22:22:01")
    assert klarf.classes == {0: "Unclassified", 12: "Crack Die"}
    assert klarf.further == (Statement("TiffSpec", (6.0, Word("G"), Word("R"))),)
    assert (wafer.wafer_id, wafer.slot, wafer.center_um, wafer.die_origin_um) == ("07", 7, (2500, 2000), (0, 0))
    assert wafer.tests == (KlarfTest(1, ((-1, 0), (0, 0), (0, 1)), 6e7),)
    assert wafer.defects.rows[1] == (2, 99.125, 4.75, 0, 1, 0, 1, 2, Images(((4, 0), (5, 1))))
    assert wafer.image_files == ("A_1.tif",) * 3
    assert [statement.name for statement in wafer.further] == ["CoordinatesMirrored", "LotStatus"]
    # index times pitch, plus the place on the die, less the middle of the wafer
    assert wafer_um(klarf, wafer).tolist() == [
        [-5000 + 104.25 - 2500, 17.5 - 2000],
        [99.125 - 2500, 4000 + 4.75 - 2000],
        [4999.999 - 2500, 0.001 - 2000],
    ]


def test_a_nested_file_is_in_nanometres(tmp_path: Path) -> None:
    klarf = read_klarf(put(tmp_path, NESTED))
    (wafer,) = klarf.wafers
    assert (klarf.version, klarf.lot_id, klarf.die_pitch_um) == ("1.8", "L.1", (5000.0, 4000.0))
    assert (klarf.sample_size_mm, klarf.mark_location) == ((200.0,), "DOWN")
    assert klarf.classes == {0: "UNCLASSIFIED", 12: "CRACK, DIE"}
    assert wafer.center_um == (2500.0, 2000.0)
    assert wafer.tests[0].area_um2 == 6e7
    assert wafer.defects.column("XREL") == [104.25, 99.125, 4999.999]
    assert wafer.defects.column("DEFECTAREA") == [1276520.0384, 0, 1.5e-6]
    assert wafer.defects.column("IMAGEINFO") == [
        Images(),
        Images(((40, "30"), (41, "31"))),
        Images((("d1.png", "PNG", 1, "24"),), "Image"),
    ]
    assert wafer.summary == KlarfTable(("TESTNO", "NDEFECT", "HAZEREGION", "AREAPERTEST"), ((1, 3, -1, 2.88959e10),))
    flat = read_klarf(put(tmp_path, FLAT))
    assert np.array_equal(wafer_um(klarf, wafer), wafer_um(flat, flat.wafers[0]))


@pytest.mark.parametrize("text", [FLAT, NESTED], ids=["1.2", "1.8"])
def test_what_tools_write_comes_back(tmp_path: Path, text: str) -> None:
    klarf = read_klarf(put(tmp_path, text))
    write_klarf(tmp_path / "b.klarf", klarf)
    assert read_klarf(tmp_path / "b.klarf") == klarf
    first = (tmp_path / "b.klarf").read_bytes()
    write_klarf(tmp_path / "b.klarf", read_klarf(tmp_path / "b.klarf"))
    assert (tmp_path / "b.klarf").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.klarf", "b.klarf"]


def test_places_of_pixels_by_hand() -> None:
    # a die that fills an image of 6 rows and 8 columns, pixels of 2.5 µm: its lower-left corner is the image's
    corner = (-0.5, 5.5)
    points = np.array([(-0.5, 5.5), (0, 5), (7, 0), (7.5, -0.5)])
    assert rel_um(points, corner, 2.5).tolist() == [[0, 0], [1.25, 1.25], [18.75, 13.75], [20, 15]]
    # the box of the pixels of columns 2 and 3 and of row 4: 2 pixels wide, 1 high
    place, size = box_um(np.array([(1.5, 3.5, 3.5, 4.5)]), corner, 2.5)
    assert place.tolist() == [[3 * 2.5, 1.5 * 2.5]]
    assert size.tolist() == [[5.0, 2.5]]
    # a die turned a quarter anticlockwise as seen: its lower side runs upwards in the image, its left side to the left,
    # so its lower-left corner is at the lower right; 3 px up from there are 3 px along its lower side
    turned = rel_um(np.array([(10.0, 17.0), (6.0, 20.0)]), (10.0, 20.0), 2.0, 90)
    assert np.allclose(turned, [[6, 0], [0, 8]], atol=1e-12)
    # by 30 deg: one pixel along its lower side is cos 30 to the right and sin 30 up
    turned = rel_um(np.array([(10 + np.cos(np.pi / 6), 20 - 0.5)]), (10.0, 20.0), 1.0, 30)
    assert np.allclose(turned, [[1, 0]], atol=1e-12)


def test_places_on_the_wafer_by_hand(tmp_path: Path) -> None:
    defects = defect_table([(3, -2)], np.array([[10.0, 20.0]]), np.array([[4.0, 2.0]]), [8.0], [12])
    wafer = KlarfWafer("1", defects, die_origin_um=(100.0, 50.0), center_um=(7.0, -9.0))
    klarf = Klarf("L", (wafer,), (1000.0, 500.0))
    assert wafer_um(klarf, wafer).tolist() == [[3 * 1000 + 100 + 10 - 7, -2 * 500 + 50 + 20 + 9]]
    with pytest.raises(UsageError, match="SampleCenterLocation of the wafer '1' is not told"):
        wafer_um(klarf, replace(wafer, center_um=None))
    mirrored = Statement("CoordinatesMirrored", (Word("YES"),))
    with pytest.raises(UsageError, match="CoordinatesMirrored YES"):
        wafer_um(klarf, replace(wafer, further=(mirrored,)))
    with pytest.raises(UsageError, match="no column ZREL; there are DEFECTID, XREL"):
        defects.column("ZREL")


def test_what_we_write_is_a_plain_file(tmp_path: Path) -> None:
    defects = defect_table(
        [(0, 0), (0, 0), (2, 1)],
        np.array([[10.5, 20.25], [1, 2], [3, 4]]),
        np.array([[4, 2], [1, 1], [2, 9.0]]),
        [8, 1, 18],
        [1, 1, 2],
        images=[1, 0, 3],
    )
    summary = summary_of(defects, dies=6, area_um2=6 * 1000 * 500)
    wafer = KlarfWafer("W1", defects, 1, (0, 0), (0, 0), image_files=("a.tif",) * 3, summary=summary)
    klarf = Klarf("L1", (wafer,), (1000.0, 500.0), classes={1: "crack", 2: "rotate"})
    write_klarf(tmp_path / "a.klarf", klarf)
    assert (tmp_path / "a.klarf").read_text() == (
        "FileVersion 1 2;\n"
        'LotID "L1";\n'
        "DiePitch 1000.0 500.0;\n"
        'ClassLookup 2\n 1 "crack"\n 2 "rotate";\n'
        'WaferID "W1";\n'
        "Slot 1;\n"
        "DieOrigin 0 0;\n"
        "SampleCenterLocation 0 0;\n"
        f"DefectRecordSpec 17 {' '.join(COLUMNS)} ;\n"
        'TiffFileName "a.tif";\n'
        "DefectList\n"
        " 1 10.5 20.25 0 0 4.0 2.0 8.0 4.0 1 1 0 0 0 0 1 1 1 0\n"
        " 2 1.0 2.0 0 0 1.0 1.0 1.0 1.0 1 1 0 0 0 0 0 0\n"
        " 3 3.0 4.0 2 1 2.0 9.0 18.0 9.0 2 1 0 0 0 0 1 1 3 0;\n"
        "SummarySpec 5 TESTNO NDEFECT DEFDENSITY NDIE NDEFDIE ;\n"
        "SummaryList\n 1 3 100.0 6 2;\n"  # 3 defects on 3 mm²: 100 a cm²
        "EndOfFile;\n"
    )
    assert read_klarf(tmp_path / "a.klarf") == klarf


lengths = st.floats(-1e6, 1e6)
texts = st.text(
    st.characters(codec="utf-8", exclude_characters='"\n\r', exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=6
)
whole_nm = st.integers(-(2**31), 2**31 - 1).map(lambda nm: nm / 1000)


@st.composite
def klarfs(draw: st.DrawFn, version: str) -> Klarf:
    number = lengths if version == "1.2" else whole_nm
    pairs = st.tuples(number, number)
    areas = st.floats(0, 1e9) if version == "1.2" else st.integers(0, 2**50).map(lambda nm2: nm2 / 1e6)
    kept = []
    for name in draw(st.lists(st.sampled_from(["01", "02", "03"]), min_size=1, max_size=2, unique=True)):
        rows = draw(st.lists(st.tuples(st.tuples(*[st.integers(-99, 99)] * 2), pairs, pairs, areas), max_size=3))
        defects = defect_table(
            [row[0] for row in rows],
            np.array([row[1] for row in rows]).reshape(-1, 2),
            np.array([row[2] for row in rows]).reshape(-1, 2),
            [row[3] for row in rows],
            [1] * len(rows),
            images=[place % 2 for place in range(len(rows))],
        )
        tests = (KlarfTest(1, ((0, 0), (0, 1)), draw(areas)),) if draw(st.booleans()) else ()
        summary = KlarfTable(("TESTNO", "NDEFECT"), ((1, len(rows)),)) if draw(st.booleans()) else None
        kept.append(
            KlarfWafer(
                name, defects, draw(st.none() | st.integers(0, 25)), draw(st.none() | pairs), draw(st.none() | pairs),
                tests, ("x y.tif",) * len(rows), summary,
            )
        )  # fmt: skip
    return Klarf(
        draw(texts),
        tuple(kept),
        draw(pairs),
        version,
        device_id=draw(st.none() | texts),
        step_id=draw(st.none() | texts),
        setup_id=draw(st.none() | st.tuples(texts, st.just("01-02-2024"), st.just("10:11:12"))),
        station=draw(st.none() | st.tuples(texts, texts, texts)),
        sample_type="STRIP",
        sample_size_mm=draw(st.sampled_from([None, (200.0,), (95.5, 189.25)])),
        mark_type=draw(st.sampled_from([None, "NOTCH", "FLAT"])),
        mark_location=draw(st.sampled_from([None, "DOWN", "LEFT", "UP", "RIGHT"])),
        file_timestamp=("01-02-2024", "10:11:12"),
        classes=draw(st.dictionaries(st.integers(0, 999), texts, max_size=3)),
    )


@given(st.sampled_from(["1.2", "1.8"]).flatmap(klarfs))
@settings(max_examples=120, deadline=None)
def test_what_is_written_reads_back_identical(tmp_path_factory, klarf: Klarf) -> None:
    path = tmp_path_factory.mktemp("klarf") / "a.klarf"
    write_klarf(path, klarf)
    assert read_klarf(path) == klarf


def test_both_versions_tell_the_same(tmp_path: Path) -> None:
    flat = read_klarf(put(tmp_path, FLAT))
    (wafer,) = flat.wafers
    assert wafer.tests[0].further == ()
    plain = replace(flat, version="1.8", further=(), wafers=(replace(wafer, further=()),))
    write_klarf(tmp_path / "b.klarf", plain)
    assert read_klarf(tmp_path / "b.klarf") == plain
    assert " 1 104250 17500 -1 0 12 1 1 Images 1 {3 0} ;" in (tmp_path / "b.klarf").read_text()
    with pytest.raises(InputError, match=r"CoordinatesMirrored: was kept from another version"):
        write_klarf(tmp_path / "b.klarf", replace(flat, version="1.8"))
    nested = read_klarf(put(tmp_path, NESTED))
    with pytest.raises(InputError, match=r"was kept from another version and cannot be written in 1\.2"):
        write_klarf(tmp_path / "b.klarf", replace(nested, version="1.2"))
    # lengths are rounded to whole nm, and say so by what is read
    odd = replace(plain, die_pitch_um=(1000.00049, 1 / 3))
    write_klarf(tmp_path / "b.klarf", odd)
    assert read_klarf(tmp_path / "b.klarf").die_pitch_um == (1000.0, 0.333)


def test_lists_of_images_without_their_length(tmp_path: Path) -> None:
    text = FLAT.replace("1 12 1 1 1 3 0", "1 12 1 1 3 0")
    text = text.replace(" 12 1 1 1 3 0\n", " 12 1 1 3 0\n").replace(" 0 1 2 2\n 4 0 5 1\n", " 0 1 2\n 4 0 5 1\n")
    text = text.replace(" 12 1 0 0;", " 12 1 0;")
    assert text != FLAT
    assert read_klarf(put(tmp_path, text)) == read_klarf(put(tmp_path, FLAT))


def test_several_wafers_and_files(tmp_path: Path) -> None:
    more = FLAT.replace(
        "EndOfFile;", 'WaferID "08";\nDefectRecordSpec 3 DEFECTID XINDEX YINDEX;\nDefectList;\nEndOfFile;'
    )
    klarf = read_klarf(put(tmp_path, more))
    assert [(wafer.wafer_id, len(wafer.defects.rows)) for wafer in klarf.wafers] == [("07", 3), ("08", 0)]
    assert klarf.wafers[1].die_origin_um == (0, 0)  # told before any wafer: of all of them
    write_klarf(tmp_path / "b.klarf", klarf)
    assert read_klarf(tmp_path / "b.klarf") == klarf
    files = replace(klarf.wafers[0], image_files=("1.tif", "1.tif", "2.tif"))
    write_klarf(tmp_path / "b.klarf", replace(klarf, wafers=(files,)))
    assert read_klarf(tmp_path / "b.klarf").wafers[0].image_files == ("1.tif", "1.tif", "2.tif")
    with pytest.raises(InputError, match="has several files of images"):
        write_klarf(
            tmp_path / "b.klarf", replace(klarf, version="1.8", further=(), wafers=(replace(files, further=()),))
        )


def without(text: str, *parts: str) -> str:
    for part in parts:
        assert part in text
        text = text.replace(part, "")
    return text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "begins with neither"),
        ("<xml/>", "begins with neither"),
        (FLAT.replace("1 2;", "2 0;", 1), "a KLARF of version 2.0"),
        (FLAT[: FLAT.index("LotStatus")], "ends without `EndOfFile;`: the file is truncated"),
        (FLAT[: FLAT.index(" 3 4999")], "line 32: DefectList is not closed by `;`"),
        (FLAT[: FLAT.index("DefectList;")] + "EndOfFile;", "the wafer '07' has no DefectList"),
        (
            without(FLAT, FLAT[FLAT.index("DefectRecordSpec") : FLAT.index("DefectList;")]),
            "before any DefectRecordSpec",
        ),
        (FLAT.replace("Spec 9 DEFECTID", "Spec 8 DEFECTID"), "says 8 columns, and 9 names follow"),
        (FLAT.replace("XINDEX YINDEX CLASS", "XINDEX XINDEX CLASS"), "names a column twice"),
        (without(FLAT, " 99.125"), r"line 32: DefectList \(line 35\): IMAGECOUNT = 2, and its list has 4"),
        (without(FLAT, " 3 4999.999 0.001 0 0 12 1 0 0"), "the summary tells 3 defects of test 1, the list holds 2"),
        (FLAT.replace("0 0;\nSummary", "0;\nSummary"), "ends inside row 3"),
        (FLAT.replace("104.250", "NA"), r"row 1 \(line 33\): XREL = 'NA'; expected a number"),
        (FLAT.replace(" 1 104.250", " 1.5 104.250"), "DEFECTID = '1.5'; expected a whole number"),
        (FLAT.replace("1 0 0;\nSummary", "1 0 0\nSummary"), "expected"),
        (FLAT.replace("SampleTestPlan 3", "SampleTestPlan 4"), "says 4 dies, and 3 pairs follow"),
        (FLAT.replace("ClassLookup 2", "ClassLookup 3"), "says 3 classes, and 2 pairs follow"),
        (FLAT.replace(' 12 "Crack', ' 0 "Crack'), "numbers a class twice"),
        (FLAT.replace('"L;1"', '"L;1'), "line 7: a quote is not closed"),
        (FLAT.replace('WaferID "07";', 'WaferID "07"'), "WaferID: expected one value, got 3: is a `;` missing"),
        (without(FLAT, 'WaferID "07";\n'), "Slot: stands before any WaferID"),
        (without(FLAT, 'LotID "L;1";\n'), "has no LotID"),
        (without(FLAT, "DiePitch 5.0000000000e+003 4.0000000000e+003;\n"), "has no DiePitch"),
        (FLAT.replace("DiePitch 5.0000000000e+003", "DiePitch"), "expected 2 numbers, got 1"),
        (FLAT.replace("DiePitch 5.0000000000e+003", "DiePitch 5,0"), "expected 2 numbers, got 4"),
        (FLAT.replace("Location down", "Location south"), "south; expected DOWN, LEFT, UP, RIGHT"),
        (FLAT.replace("SampleSize 1 200", "SampleSize 200"), "expected `1 diameter`"),
        (FLAT + "Slot 3;", "stands behind EndOfFile"),
        (FLAT.replace("Slot 7", "Slot 7}"), "which version 1.2 does not"),
        (FLAT.replace("Slot 7", "Slot 123456789012345678901"), "is too large"),
        (FLAT.replace("104.250", "1e999"), "is too large"),
        (FLAT.replace('DeviceID "D";', 'DeviceID "D";\nDeviceID "E";'), "DeviceID: is told twice"),
    ],
)
def test_a_flat_file_that_does_not_add_up(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        read_klarf(put(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (NESTED[: NESTED.index("Record TestRecord")], "ends where .* was expected: the file is truncated"),
        (without(NESTED, "EndOfFile;"), "ends where EndOfFile was expected"),
        (NESTED + "Record X { }", "expected the end of the file"),
        (NESTED.replace("Data 3", "Data 0"), r"line 12: List DefectList: says 0 rows, and 3 follow"),
        (NESTED.replace("Data 3", "Data 4"), "says 4 rows, and 3 follow"),
        (NESTED.replace("Columns 8", "Columns 9"), "says 9 columns, and 8 follow"),
        (NESTED.replace("Field DieOrigin 2", "Field DieOrigin 3"), "Field DieOrigin says 3 values, and 2 follow"),
        (NESTED.replace(" 104250 ", " "), r"row 1 \(line 18\): .*expected|ends before"),
        (NESTED.replace(" 104250 ", " 104250.5 "), "XREL = '104250.5'; expected int32"),
        (NESTED.replace("0 N ;", "0 N 4 ;"), "has more values than the 8 columns"),
        (NESTED.replace("Images 2 {40", "Images 3 {40"), "says 3 images, and 2 follow"),
        (NESTED.replace(" 0.0 2 Images", " 0.0 1 Images"), "defect 2: IMAGECOUNT = 1, and 2 images are named"),
        (NESTED.replace("1  3  -1", "1  4  -1"), "the summary tells 4 defects, the list holds 3"),
        (NESTED.replace("List DefectList", "List OtherList"), "'W_07' has no DefectList"),
        (NESTED.replace("int32 XREL", "quat XREL"), "a column of the type quat"),
        (NESTED.replace("int32 YREL", "int32 XREL"), "names a column twice"),
        (NESTED.replace("Record WaferRecord", "Record WafRecord"), "has no WaferRecord"),
        (NESTED.replace("Record LotRecord", "Record LoRecord"), "has 0 LotRecords"),
        (without(NESTED, "Field DiePitch 2 {5000000, 4000000}"), "has no DiePitch"),
        (NESTED.replace("Location 1 {0}", "Location 1 {45}"), "OrientationMarkLocation 45"),
        (
            NESTED.replace("Field SlotNumber 1 {7}", "Fild SlotNumber 1 {7}"),
            "expected Record, Field, List or }, got 'Fild'",
        ),
        (
            NESTED.replace("Field SlotNumber 1 {7}", "Field DieOrigin 1 {7}"),
            "the record WaferRecord has DIEORIGIN twice",
        ),
        (NESTED.replace("1.8", "1.9", 1), "a KLARF of version 1.9"),
        (NESTED.replace(' 12 "CRACK', ' 0 "CRACK'), "numbers a class twice"),
        (NESTED.replace('TestRecord "1"', 'TestRecord "A"'), "a TestRecord has the id 'A'"),
    ],
)
def test_a_nested_file_that_does_not_add_up(tmp_path: Path, text: str, reason: str) -> None:
    assert text not in (NESTED, "")
    with pytest.raises(FormatError, match=reason):
        read_klarf(put(tmp_path, text))


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    for text in (FLAT, NESTED):
        end = text.index("EndOfFile")
        for at in range(0, end, 7):
            with pytest.raises(FormatError):
                read_klarf(put(tmp_path, text[:at]))


def test_a_sample_of_a_list_is_read_when_asked_for(tmp_path: Path) -> None:
    text = without(FLAT, " 3 4999.999 0.001 0 0 12 1 0 0").replace(" 4 0 5 1\n;", " 4 0 5 1;")
    assert len(read_klarf(put(tmp_path, text), check_counts=False).wafers[0].defects.rows) == 2


def test_what_cannot_be_written(tmp_path: Path) -> None:
    defects = defect_table([(0, 0)], np.zeros((1, 2)), np.ones((1, 2)), [1], [1])
    klarf = Klarf("L", (KlarfWafer("W", defects),), (1.0, 1.0))
    for bad, reason in (
        (replace(klarf, lot_id='a"b'), "has a quote"),
        (replace(klarf, die_pitch_um=(float("nan"), 1.0)), "nan cannot stand"),
        (replace(klarf, version="1.9"), "version 1.9 is not written"),
        (replace(klarf, wafers=()), "has no wafer"),
        (replace(klarf, wafers=(KlarfWafer("W", KlarfTable(COLUMNS, ((1,),))),)), "has 1 values for 17 columns"),
        (replace(klarf, wafers=(KlarfWafer("W", defects, image_files=("a", "b")),)), "2 files of images for 1 defects"),
        (
            replace(klarf, wafers=(KlarfWafer("W", defects, summary=KlarfTable(("TESTNO", "NDEFECT"), ((1, 0),))),)),
            "the summary tells 0 defects of test 1, the list holds 1",
        ),
    ):
        with pytest.raises(InputError, match=reason):
            write_klarf(tmp_path / "a.klarf", bad)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="cannot be written"):
        write_klarf(tmp_path / "x" / "a.klarf", klarf)
    with pytest.raises(InputError, match="cannot be read"):
        read_klarf(tmp_path / "a.klarf")
    (tmp_path / "a.klarf").write_bytes(b'FileVersion 1 2;\nLotID "\xe4";\n')
    with pytest.raises(FormatError, match="line 2: not a text in UTF-8"):
        read_klarf(tmp_path / "a.klarf")
