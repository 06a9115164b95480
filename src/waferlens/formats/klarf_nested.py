"""The record of a KLARF file as the nested records of version 1.8, and back: units, and what stands where."""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from waferlens.errors import FormatError, InputError
from waferlens.formats.exact_numbers import exact, quotient, times
from waferlens.formats.klarf_record import AREAS, LENGTHS, MARKS, Klarf, KlarfTable, KlarfTest, KlarfWafer, Pair
from waferlens.formats.klarf_text import Token, Value
from waferlens.formats.klarf_tree import Field, Listing, Node, Record, TreeReader, tree_lines, type_of

_NM, _NM2, _NM_A_MM = Decimal(1000), Decimal(1000000), Decimal(1000000)


def read_nested(tokens: list[Token], path: str | Path) -> Klarf:
    """The file in these words.

    Raises:
        FormatError: the words are not such a file, or a record lacks what it needs.
    """
    root = TreeReader(tokens, path).file()
    lots = root.records("LotRecord")
    if len(lots) != 1:
        raise FormatError(path, f"has {len(lots)} LotRecords; one lot a file is read")
    lot = lots[0]
    fields = lot.fields()
    wafers = lot.records("WaferRecord")
    if not wafers:
        raise FormatError(path, "has no WaferRecord")
    if "DIEPITCH" not in fields:
        raise FormatError(path, "has no DiePitch")
    classes: dict[int, str] = {}
    for listing in lot.lists("ClassLookupList"):
        classes = _classes(listing, path)
    size = _ints(fields["SAMPLESIZE"], 2, path) if "SAMPLESIZE" in fields else None
    mark = _ints(fields["ORIENTATIONMARKLOCATION"], 1, path)[0] if "ORIENTATIONMARKLOCATION" in fields else None
    degrees = {turn: word for word, turn in MARKS.items()}
    if mark is not None and mark not in degrees:
        raise FormatError(path, f"OrientationMarkLocation {mark}; expected 0, 90, 180 or 270")
    known = (*_LOT_TEXTS, *_LOT_LISTS, "RESULTTIMESTAMP", "DIEPITCH", "SAMPLESIZE", "ORIENTATIONMARKLOCATION")
    head_file = _texts(fields["TIFFFILENAME"], 1, path)[0] if "TIFFFILENAME" in fields else None
    stamp = root.fields().get("FILETIMESTAMP")
    return Klarf(
        lot_id=lot.id or "",
        wafers=tuple(_wafer_of(wafer, head_file, path) for wafer in wafers),
        die_pitch_um=_pair(fields["DIEPITCH"], path),
        version=root.id or "",
        sample_size_mm=None
        if size is None
        else tuple(float(quotient(Decimal(side), _NM_A_MM)) for side in size if side),
        mark_location=None if mark is None else degrees[mark],
        file_timestamp=None if stamp is None else _two(stamp, path),
        result_timestamp=_two(fields["RESULTTIMESTAMP"], path) if "RESULTTIMESTAMP" in fields else None,
        classes=classes,
        further=(
            *(Record("LotRecord", None, (item,)) for item in lot.items if not _is_known(item, known, _LOT_NODES)),
            *(item for item in root.items if not _is_known(item, ("FILETIMESTAMP",), ("LOTRECORD",))),
        ),
        **{_LOT_TEXTS[key]: _texts(fields[key], 1, path)[0] for key in _LOT_TEXTS if key in fields},
        **{
            _LOT_LISTS[key]: _texts(fields[key], None, path)
            for key in ("INSPECTIONSTATIONID", "RECIPEID")
            if key in fields
        },
    )


_LOT_TEXTS = {
    "DEVICEID": "device_id",
    "STEPID": "step_id",
    "SAMPLETYPE": "sample_type",
    "SAMPLEORIENTATIONMARKTYPE": "mark_type",
    "TIFFFILENAME": "image_file",
}
_LOT_LISTS = {"INSPECTIONSTATIONID": "station", "RECIPEID": "setup_id"}
_LOT_NODES = ("WAFERRECORD", "CLASSLOOKUPLIST")
_WAFER_FIELDS = ("SLOTNUMBER", "DIEORIGIN", "SAMPLECENTERLOCATION", "TIFFFILENAME")
_WAFER_NODES = ("DEFECTLIST", "TESTRECORD", "SUMMARYRECORD")


def _wafer_of(record: Record, head_file: str | None, path: str | Path) -> KlarfWafer:
    fields = record.fields()
    lists = record.lists("DefectList")
    if not lists:
        raise FormatError(path, f"the wafer {record.id!r} has no DefectList: that is not the same as no defects")
    summaries = record.records("SummaryRecord")
    of_tests = [listing for summary in summaries for listing in summary.lists("TestSummaryList")]
    further: list[Node] = [
        item
        for item in record.items
        if not _is_known(item, _WAFER_FIELDS, ("DEFECTLIST", "TESTRECORD", "SUMMARYRECORD"))
    ]
    for summary in summaries:
        rest = tuple(item for item in summary.items if not _is_known(item, (), ("TESTSUMMARYLIST",)))
        further += [Record(summary.name, summary.id, rest)] if rest else []
    defects = _table(lists[0])
    file = _texts(fields["TIFFFILENAME"], 1, path)[0] if "TIFFFILENAME" in fields else None
    if file is not None and not defects.rows:
        further.append(fields["TIFFFILENAME"])
    return KlarfWafer(
        wafer_id=record.id or "",
        defects=defects,
        slot=_ints(fields["SLOTNUMBER"], 1, path)[0] if "SLOTNUMBER" in fields else None,
        die_origin_um=_pair(fields["DIEORIGIN"], path) if "DIEORIGIN" in fields else None,
        center_um=_pair(fields["SAMPLECENTERLOCATION"], path) if "SAMPLECENTERLOCATION" in fields else None,
        tests=tuple(_test_of(test, path) for test in record.records("TestRecord")),
        image_files=() if file in (None, head_file) else (file,) * len(defects.rows),
        summary=_table(of_tests[0]) if of_tests else None,
        further=tuple(further),
    )


def _test_of(record: Record, path: str | Path) -> KlarfTest:
    fields = record.fields()
    number = record.id or ""
    if not number.isdigit():
        raise FormatError(path, f"a TestRecord has the id {number!r}; expected its number")
    plan = None
    for listing in record.lists("SampleTestPlanList"):
        table = KlarfTable(listing.columns, listing.rows)
        plan = tuple(zip(table.column("XINDEX"), table.column("YINDEX"), strict=True))
    area = None
    if "AREAPERTEST" in fields:
        (told,) = _numbers(fields["AREAPERTEST"], 1, path)
        area = _um2(told)
    further = tuple(item for item in record.items if not _is_known(item, ("AREAPERTEST",), ("SAMPLETESTPLANLIST",)))
    return KlarfTest(int(number), plan, area, further)


def nested_lines(klarf: Klarf, path: Path) -> Iterator[str]:
    """The lines of a file of version 1.8.

    Raises:
        InputError: a value cannot be written.
    """
    lot: list[Node] = [_wafer_record(wafer, path) for wafer in klarf.wafers]

    def add(name: str, values: tuple[Value, ...] | None) -> None:
        if values is not None:
            lot.append(Field(name, values))

    for key, name in _WRITTEN_TEXTS.items():
        text = getattr(klarf, key)
        add(name, None if text is None else (str(text),))
    add("InspectionStationID", klarf.station)
    add("RecipeID", klarf.setup_id)
    add("ResultTimestamp", klarf.result_timestamp)
    if klarf.sample_size_mm is not None:
        sizes = [round(times(exact(size), _NM_A_MM)) for size in klarf.sample_size_mm]
        add("SampleSize", tuple([*sizes, 0][:2]))
    add("OrientationMarkLocation", None if klarf.mark_location is None else (MARKS[klarf.mark_location],))
    add("DiePitch", _nm(klarf.die_pitch_um))
    if klarf.classes:
        rows = tuple((number, name, "") for number, name in klarf.classes.items())
        lot.append(Listing("ClassLookupList", ("int32", "string", "string"), _CLASS_COLUMNS, rows))
    items: list[Node] = []
    for node in klarf.further:
        if not isinstance(node, Record | Field | Listing):
            name = getattr(node, "name", node)
            raise InputError(path, f"{name}: was kept from another version and cannot be written in 1.8; leave it out")
        if isinstance(node, Record) and node.name == "LotRecord":
            lot += node.items
        else:
            items.append(node)
    if klarf.file_timestamp is not None:
        items.insert(0, Field("FileTimestamp", klarf.file_timestamp))
    yield from tree_lines(
        Record("FileRecord", klarf.version, (Record("LotRecord", klarf.lot_id, tuple(lot)), *items)), path
    )
    yield "EndOfFile;"


_WRITTEN_TEXTS = {
    "device_id": "DeviceID",
    "step_id": "StepID",
    "sample_type": "SampleType",
    "mark_type": "SampleOrientationMarkType",
    "image_file": "TiffFileName",
}
_CLASS_COLUMNS = ("CLASSNUMBER", "CLASSNAME", "CLASSCODE")


def _wafer_record(wafer: KlarfWafer, path: Path) -> Record:
    items: list[Node] = []
    if wafer.die_origin_um is not None:
        items.append(Field("DieOrigin", _nm(wafer.die_origin_um)))
    if wafer.center_um is not None:
        items.append(Field("SampleCenterLocation", _nm(wafer.center_um)))
    if wafer.slot is not None:
        items.append(Field("SlotNumber", (wafer.slot,)))
    files = set(wafer.image_files)
    if len(files) > 1:
        raise InputError(path, f"the wafer {wafer.wafer_id!r} has several files of images; 1.8 names one a wafer")
    if files and (file := files.pop()) is not None:
        items.append(Field("TiffFileName", (file,)))
    items.append(_listing("DefectList", wafer.defects, path))
    for test in wafer.tests:
        told: list[Node] = []
        if test.area_um2 is not None:
            told.append(Field("AreaPerTest", (_nm2(test.area_um2),)))
        if test.plan is not None:
            told.append(Listing("SampleTestPlanList", ("int32", "int32"), ("XINDEX", "YINDEX"), test.plan))
        items.append(Record("TestRecord", str(test.number), (*told, *_nodes(test.further, path))))
    summary = () if wafer.summary is None else (_listing("TestSummaryList", wafer.summary, path),)
    rest: list[Node] = []
    for node in _nodes(wafer.further, path):
        if isinstance(node, Record) and node.name == "SummaryRecord":
            summary = (*summary, *node.items)
        else:
            rest.append(node)
    if summary:
        items.append(Record("SummaryRecord", None, summary))
    return Record("WaferRecord", wafer.wafer_id, (*items, *rest))


def _nodes(further: tuple[object, ...], path: Path) -> list[Node]:
    for node in further:
        if not isinstance(node, Record | Field | Listing):
            name = getattr(node, "name", node)
            raise InputError(path, f"{name}: was kept from another version and cannot be written in 1.8; leave it out")
    return list(further)  # type: ignore[arg-type]


def _table(listing: Listing) -> KlarfTable:
    """A list in our units."""
    rows = []
    for row in listing.rows:
        cells: list[Value] = []
        for name, value in zip(listing.columns, row, strict=True):
            if name in LENGTHS and isinstance(value, int | float):
                value = _um(value)
            elif name in AREAS and isinstance(value, int | float) and value >= 0:  # -1: not known
                value = _um2(value)
            cells.append(value)
        rows.append(tuple(cells))
    return KlarfTable(listing.columns, tuple(rows))


def _listing(name: str, table: KlarfTable, path: Path) -> Listing:
    """A table in the units of 1.8."""
    rows = []
    for row in table.rows:
        cells: list[Value] = []
        for column, value in zip(table.columns, row, strict=True):
            if column in LENGTHS and isinstance(value, int | float):
                value = round(times(exact(value), _NM))
            elif column in AREAS and isinstance(value, int | float) and value >= 0:
                value = _nm2(value)
            cells.append(value)
        rows.append(tuple(cells))
    types = []
    for place, column in enumerate(table.columns):
        try:
            types.append("float" if column in AREAS else type_of(column, [row[place] for row in rows]))
        except ValueError as wrong:
            raise InputError(path, f"{name}: {wrong}") from wrong
    return Listing(name, tuple(types), table.columns, tuple(rows))


def _nm(pair: Pair) -> tuple[int, ...]:
    return tuple(round(times(exact(value), _NM)) for value in pair)


def _nm2(area_um2: float) -> float:
    """The area in nm² from which reading gets this one, where there is such a number, else the nearest."""
    nearest = float(times(exact(area_um2), _NM2))
    for told in (nearest, math.nextafter(nearest, -math.inf), math.nextafter(nearest, math.inf)):
        if _um2(told) == area_um2:
            return told
    return nearest


def _mm(length_nm: int) -> float:
    return float(quotient(Decimal(length_nm), _NM_A_MM))


def _um2(area_nm2: float) -> float:
    return float(quotient(exact(area_nm2), _NM2))


def _um(length_nm: float) -> float:
    return float(quotient(exact(length_nm), _NM))


def _pair(field: Field, path: str | Path) -> Pair:
    x, y = _numbers(field, 2, path)
    return _um(x), _um(y)


def _numbers(field: Field, count: int, path: str | Path) -> list[int | float]:
    found = [value for value in field.values if isinstance(value, int | float)]
    if len(found) != count or len(field.values) != count:
        raise FormatError(path, f"Field {field.name}: expected {count} numbers, got {len(field.values)} values")
    return found


def _ints(field: Field, count: int, path: str | Path) -> list[int]:
    found = [value for value in field.values if isinstance(value, int)]
    if len(found) != count or len(field.values) != count:
        raise FormatError(path, f"Field {field.name}: expected {count} whole numbers, got {len(field.values)} values")
    return found


def _texts(field: Field, count: int | None, path: str | Path) -> tuple[str, ...]:
    if count is not None and len(field.values) != count:
        raise FormatError(path, f"Field {field.name}: expected {count} values, got {len(field.values)}")
    return tuple(str(value) for value in field.values)


def _two(field: Field, path: str | Path) -> tuple[str, str]:
    date, time = _texts(field, 2, path)
    return date, time


def _classes(listing: Listing, path: str | Path) -> dict[int, str]:
    table = KlarfTable(listing.columns, listing.rows)
    numbers = table.column("CLASSNUMBER")
    if len(set(numbers)) != len(numbers):
        raise FormatError(path, "ClassLookupList numbers a class twice")
    return {int(number): str(name) for number, name in zip(numbers, table.column("CLASSNAME"), strict=True)}  # type: ignore[arg-type]


def _is_known(item: Node, fields: tuple[str, ...], others: tuple[str, ...]) -> bool:
    return item.name.upper() in (fields if isinstance(item, Field) else others)
