"""KLARF 1.2 (and 1.1, the same grammar): one statement after the other, each a keyword, its values, and a semicolon.

    FileVersion 1 2;
    DefectRecordSpec 5 DEFECTID XREL YREL XINDEX YINDEX ;
    DefectList
     1 104.25 17.5 0 3
     2 99.125 4.75 1 3;
    EndOfFile;

Lengths are in µm, areas in µm², SampleSize in mm. Rows have no marks of their own: only the columns say where one ends.
IMAGELIST is as long as its first number says, then two numbers an image; some tools leave that first number out, which
is found out from IMAGECOUNT and from where the list ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from waferlens.errors import FormatError, InputError
from waferlens.formats.klarf_record import MARKS, Klarf, KlarfTable, KlarfTest, KlarfWafer
from waferlens.formats.klarf_rows import columns_of, defect_rows, rows_of, whole
from waferlens.formats.klarf_text import Images, Token, Value, bare, text_of, value_of


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that is kept as it came."""

    name: str
    values: tuple[Value, ...]


@dataclass(slots=True)
class _Wafer:
    """A wafer while it is read."""

    told: dict[str, Any]
    tests: list[dict[str, Any]] = field(default_factory=list)
    columns: tuple[str, ...] | None = None
    rows: list[tuple[Value, ...]] = field(default_factory=list)
    files: list[str | None] = field(default_factory=list)
    lists: int = 0
    summary_columns: tuple[str, ...] | None = None
    summary: KlarfTable | None = None
    further: list[Statement] = field(default_factory=list)


def read_flat(tokens: list[Token], path: str | Path) -> Klarf:
    """The file in these words.

    Raises:
        FormatError: a statement is wrong; its line is named.
    """
    head: dict[str, Any] = {"classes": {}}
    further: list[Statement] = []
    wafers: list[_Wafer] = []
    origin: tuple[float, float] | None = None
    image_file: str | None = None
    ended = False
    for name, values in _statements(tokens, path):
        where = f"line {name.line}: {name.text}"
        if ended:
            raise FormatError(path, f"{where}: stands behind EndOfFile")
        key = name.text.upper()
        wafer = wafers[-1] if wafers else None
        match key:
            case "FILEVERSION":
                head["version"] = ".".join(str(whole(value, path, where)) for value in values)
            case "LOTID" | "DEVICEID" | "STEPID" | "SAMPLETYPE" | "SAMPLEORIENTATIONMARKTYPE":
                _once(head, _TEXTS[key], _text(values, path, where), path, where)
            case "INSPECTIONSTATIONID" | "SETUPID" | "FILETIMESTAMP" | "RESULTTIMESTAMP":
                texts = tuple(value.text for value in values)
                if "TIMESTAMP" in key and len(texts) != 2:
                    raise FormatError(path, f"{where}: expected a date and a time, got {len(texts)} values")
                _once(head, _LISTS[key], texts, path, where)
            case "ORIENTATIONMARKLOCATION":
                told = _text(values, path, where)
                if told.upper() not in MARKS:
                    raise FormatError(path, f"{where}: {told}; expected {', '.join(MARKS)}")
                _once(head, "mark_location", told.upper(), path, where)
            case "SAMPLESIZE":
                sizes = _numbers(values, None, path, where)
                if len(sizes) != 1 + sizes[0] or sizes[0] not in (1, 2):
                    raise FormatError(path, f"{where}: expected `1 diameter` or `2 width height` in mm")
                _once(head, "sample_size_mm", sizes[1:], path, where)
            case "DIEPITCH":
                _once(head, "die_pitch_um", _numbers(values, 2, path, where), path, where)
            case "DIEORIGIN":
                if wafer is None:
                    origin = _pair(values, path, where)
                else:
                    wafer.told["die_origin_um"] = _pair(values, path, where)
            case "TIFFFILENAME":
                image_file = _text(values, path, where)
                if wafer is None:
                    head["image_file"] = image_file
            case "CLASSLOOKUP":
                head["classes"].update(_classes(values, path, where))
            case "WAFERID":
                wafers.append(_Wafer({"wafer_id": _text(values, path, where), "die_origin_um": origin}))
            case "ENDOFFILE":
                if values:
                    raise FormatError(path, f"{where}: has values; expected `EndOfFile;`")
                ended = True
            case _ if key in _OF_WAFER:
                if wafer is None:
                    raise FormatError(path, f"{where}: stands before any WaferID")
                _of_wafer(key, values, wafer, image_file, path, where)
            case _:
                kept = Statement(name.text, tuple(value_of(value, path) for value in values))
                (further if wafer is None else wafer.further).append(kept)
    if not ended:
        raise FormatError(path, "ends without `EndOfFile;`: the file is truncated")
    for needed, name_of in (("lot_id", "LotID"), ("die_pitch_um", "DiePitch")):
        if needed not in head:
            raise FormatError(path, f"has no {name_of}")
    if not wafers:
        raise FormatError(path, "has no WaferID")
    head_file = head.get("image_file")
    return Klarf(wafers=tuple(_wafer(one, head_file, path) for one in wafers), further=tuple(further), **head)


def flat_lines(klarf: Klarf, path: str | Path) -> Iterator[str]:
    """The lines of a file of version 1.2.

    Raises:
        InputError: a value cannot be written.
    """

    def line(name: str, *values: Value) -> str:
        return " ".join([name, *(text_of(value, path) for value in values)]) + ";"

    yield "FileVersion " + klarf.version.replace(".", " ") + ";"
    if klarf.file_timestamp is not None:
        yield line("FileTimestamp", *map(bare, klarf.file_timestamp))
    if klarf.image_file is not None:
        yield line("TiffFileName", klarf.image_file)
    if klarf.station is not None:
        yield line("InspectionStationID", *klarf.station)
    if klarf.sample_type is not None:
        yield line("SampleType", bare(klarf.sample_type))
    if klarf.result_timestamp is not None:
        yield line("ResultTimestamp", *map(bare, klarf.result_timestamp))
    yield line("LotID", klarf.lot_id)
    if klarf.sample_size_mm is not None:
        sizes = [int(size) if size.is_integer() else size for size in map(float, klarf.sample_size_mm)]
        yield line("SampleSize", len(sizes), *sizes)
    if klarf.device_id is not None:
        yield line("DeviceID", klarf.device_id)
    if klarf.setup_id is not None:
        yield line("SetupID", *klarf.setup_id[:1], *map(bare, klarf.setup_id[1:]))
    if klarf.step_id is not None:
        yield line("StepID", klarf.step_id)
    if klarf.mark_type is not None:
        yield line("SampleOrientationMarkType", bare(klarf.mark_type))
    if klarf.mark_location is not None:
        yield line("OrientationMarkLocation", bare(klarf.mark_location))
    yield line("DiePitch", *klarf.die_pitch_um)
    if klarf.classes:
        yield f"ClassLookup {len(klarf.classes)}"
        yield "\n".join(f" {number} {text_of(name, path)}" for number, name in klarf.classes.items()) + ";"
    yield from _kept(klarf.further, path)
    image_file = klarf.image_file
    for wafer in klarf.wafers:
        yield line("WaferID", wafer.wafer_id)
        if wafer.slot is not None:
            yield line("Slot", wafer.slot)
        if wafer.die_origin_um is not None:
            yield line("DieOrigin", *wafer.die_origin_um)
        if wafer.center_um is not None:
            yield line("SampleCenterLocation", *wafer.center_um)
        yield from _kept(wafer.further, path)
        for test in wafer.tests:
            yield line("InspectionTest", test.number)
            if test.plan is not None:
                yield "\n".join([f"SampleTestPlan {len(test.plan)}", *(f" {x} {y}" for x, y in test.plan)]) + ";"
            if test.area_um2 is not None:
                yield line("AreaPerTest", test.area_um2)
            yield from _kept(test.further, path)
        files = wafer.image_files or (klarf.image_file,) * len(wafer.defects.rows)
        yield from _defect_lines(wafer, files, image_file, path)
        image_file = files[-1] if files else image_file
        if wafer.summary is not None:
            names = wafer.summary.columns
            yield f"SummarySpec {len(names)} {' '.join(names)} ;"
            rows = [" " + " ".join(text_of(value, path) for value in row) for row in wafer.summary.rows]
            yield "\n".join(["SummaryList", *rows]) + ";"
    yield "EndOfFile;"


_TEXTS = {
    "LOTID": "lot_id",
    "DEVICEID": "device_id",
    "STEPID": "step_id",
    "SAMPLETYPE": "sample_type",
    "SAMPLEORIENTATIONMARKTYPE": "mark_type",
}
_LISTS = {
    "INSPECTIONSTATIONID": "station",
    "SETUPID": "setup_id",
    "FILETIMESTAMP": "file_timestamp",
    "RESULTTIMESTAMP": "result_timestamp",
}
_OF_WAFER = (
    *("SLOT", "SAMPLECENTERLOCATION", "INSPECTIONTEST", "SAMPLETESTPLAN", "AREAPERTEST", "DEFECTRECORDSPEC"),
    *("DEFECTLIST", "SUMMARYSPEC", "SUMMARYLIST"),
)


def _statements(tokens: list[Token], path: str | Path) -> Iterator[tuple[Token, list[Token]]]:
    start = 0
    for place, token in enumerate(tokens):
        if token.mark == ";":
            if place > start:  # a semicolon of its own says nothing
                if tokens[start].quoted or tokens[start].mark:
                    raise FormatError(
                        path, f"line {tokens[start].line}: expected a keyword, got {tokens[start].text!r}"
                    )
                yield tokens[start], tokens[start + 1 : place]
            start = place + 1
        elif token.mark in ("{", "}"):
            raise FormatError(path, f"line {token.line}: has {token.text!r}, which version 1.2 does not")
    if start < len(tokens):
        last = tokens[start]
        raise FormatError(path, f"line {last.line}: {last.text} is not closed by `;`: the file is truncated")


def _of_wafer(
    key: str, values: list[Token], wafer: _Wafer, image_file: str | None, path: str | Path, where: str
) -> None:
    match key:
        case "SLOT":
            wafer.told["slot"] = _whole_list(values, 1, path, where)[0]
        case "SAMPLECENTERLOCATION":
            wafer.told["center_um"] = _pair(values, path, where)
        case "INSPECTIONTEST":
            wafer.tests.append({"number": _whole_list(values, 1, path, where)[0]})
        case "SAMPLETESTPLAN":
            numbers = _whole_list(values, None, path, where)
            if not numbers or len(numbers) != 1 + 2 * numbers[0]:
                told = numbers[0] if numbers else "no"
                raise FormatError(path, f"{where}: says {told} dies, and {(len(numbers) - 1) / 2:g} pairs follow")
            _test(wafer)["plan"] = tuple(zip(numbers[1::2], numbers[2::2], strict=True))
        case "AREAPERTEST":
            _test(wafer)["area_um2"] = _numbers(values, 1, path, where)[0]
        case "DEFECTRECORDSPEC":
            columns = columns_of(values, path, where)
            if wafer.columns not in (None, columns):
                raise FormatError(path, f"{where}: other columns than the list before, of the same wafer")
            wafer.columns = columns
        case "DEFECTLIST":
            if wafer.columns is None:
                raise FormatError(path, f"{where}: stands before any DefectRecordSpec: its columns are not known")
            rows = defect_rows(values, wafer.columns, path, where)
            wafer.rows += rows
            wafer.files += [image_file] * len(rows)
            wafer.lists += 1
        case "SUMMARYSPEC":
            wafer.summary_columns = columns_of(values, path, where)
        case "SUMMARYLIST":
            if wafer.summary_columns is None:
                raise FormatError(path, f"{where}: stands before any SummarySpec: its columns are not known")
            wafer.summary = KlarfTable(
                wafer.summary_columns, tuple(rows_of(values, wafer.summary_columns, False, path, where))
            )


def _test(wafer: _Wafer) -> dict[str, Any]:
    if not wafer.tests:
        wafer.tests.append({"number": 1})
    return wafer.tests[-1]


def _wafer(read: _Wafer, head_file: str | None, path: str | Path) -> KlarfWafer:
    name = read.told["wafer_id"]
    if read.columns is None or not read.lists:
        missing = "DefectRecordSpec" if read.columns is None else "DefectList"
        raise FormatError(path, f"the wafer {name!r} has no {missing}: that is not the same as no defects")
    files = tuple(read.files) if any(file != head_file for file in read.files) else ()
    return KlarfWafer(
        defects=KlarfTable(read.columns, tuple(read.rows)),
        tests=tuple(KlarfTest(**test) for test in read.tests),
        image_files=files,
        summary=read.summary,
        further=tuple(read.further),
        **read.told,
    )


def _defect_lines(
    wafer: KlarfWafer, files: tuple[str | None, ...], image_file: str | None, path: str | Path
) -> Iterator[str]:
    """Spec and list, with the file of images named anew wherever it changes from the one named last."""
    table = wafer.defects
    yield f"DefectRecordSpec {len(table.columns)} {' '.join(table.columns)} ;"
    if len(files) != len(table.rows):
        raise InputError(path, f"{len(files)} files of images for {len(table.rows)} defects")
    part: list[str] = []
    for file, row in zip(files, table.rows, strict=True):
        if file != image_file:
            if file is None:
                raise InputError(path, "a defect without a file of images behind one that has it")
            if part:
                yield "\n".join(["DefectList", *part]) + ";"
                part = []
            yield f"TiffFileName {text_of(file, path)};"
            image_file = file
        part.append(" " + " ".join(_cell(value, path) for value in row))
    if part or not table.rows:
        yield "\n".join(["DefectList", *part]) + ";"


def _cell(value: Value, path: str | Path) -> str:
    if not isinstance(value, Images):
        return text_of(value, path)
    for item in value.items:
        if len(item) != 2 or not all(type(number) is int for number in item):
            raise InputError(path, f"the image {item}: version 1.2 names an image by two whole numbers")
    return " ".join([str(len(value.items)), *(str(number) for item in value.items for number in item)])


def _kept(further: tuple[object, ...], path: str | Path) -> Iterator[str]:
    for statement in further:
        if not isinstance(statement, Statement):
            name = getattr(statement, "name", statement)
            raise InputError(path, f"{name}: was kept from another version and cannot be written in 1.2; leave it out")
        yield " ".join([statement.name, *(text_of(value, path) for value in statement.values)]) + ";"


def _once(head: dict[str, Any], key: str, value: object, path: str | Path, where: str) -> None:
    if key in head and head[key] != value:
        raise FormatError(path, f"{where}: is told twice, and not the same")
    head[key] = value


def _text(values: list[Token], path: str | Path, where: str) -> str:
    if len(values) != 1:
        raise FormatError(path, f"{where}: expected one value, got {len(values)}: is a `;` missing?")
    return values[0].text


def _whole_list(values: list[Token], count: int | None, path: str | Path, where: str) -> list[int]:
    if count is not None and len(values) != count:
        raise FormatError(path, f"{where}: expected {count} values, got {len(values)}")
    return [whole(value, path, where) for value in values]


def _numbers(values: list[Token], count: int | None, path: str | Path, where: str) -> tuple[float, ...]:
    if count is not None and len(values) != count:
        raise FormatError(path, f"{where}: expected {count} numbers, got {len(values)}")
    found = [value_of(value, path) for value in values]
    if not found or not all(isinstance(value, int | float) for value in found):
        raise FormatError(path, f"{where}: expected numbers, got {' '.join(value.text for value in values)[:60]!r}")
    return tuple(float(value) for value in found)


def _pair(values: list[Token], path: str | Path, where: str) -> tuple[float, float]:
    x, y = _numbers(values, 2, path, where)
    return x, y


def _classes(values: list[Token], path: str | Path, where: str) -> dict[int, str]:
    count = whole(values[0], path, where) if values else -1
    if len(values) != 1 + 2 * count:
        raise FormatError(path, f"{where}: says {count} classes, and {(len(values) - 1) / 2:g} pairs follow")
    numbers = [whole(value, path, where) for value in values[1::2]]
    if len(set(numbers)) != len(numbers):
        raise FormatError(path, f"{where}: numbers a class twice")
    return {number: value.text for number, value in zip(numbers, values[2::2], strict=True)}
