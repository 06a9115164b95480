"""What a lot of packages is handed on as: its findings as KLARF, the verdicts on a strip's devices as SEMI E142.

A device is what KLARF calls a die. Its place on the strip is told by its name (`…_r02_c07`, counted from 1, the upper
left device first), or by the order of names, row by row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from waferlens.errors import UsageError
from waferlens.formats.e142 import write_e142
from waferlens.formats.e142_record import E142, strip_map
from waferlens.formats.klarf import write_klarf
from waferlens.formats.klarf_record import Klarf, KlarfTest, KlarfWafer, defect_table, summary_of
from waferlens.inspect.package_devices import Device

_STRIP = re.compile(r"([1-9][0-9]{0,3})[x×]([1-9][0-9]{0,3})")
_NAMED = re.compile(r"r([0-9]+)[-_ ]?c([0-9]+)$", re.IGNORECASE)
_PLACE = "names that end in _r02_c07 tell row and column"
Cell = tuple[int, int]
"""Row and column of a device, the upper left one at 0, 0."""


@dataclass(frozen=True, slots=True)
class LineFiles:
    """Which files are asked for."""

    lot: str
    """What lot and strip are called."""
    kinds: tuple[str, ...]
    """Classes of findings, in the order of their numbers from 1."""
    klarf: Path | None = None
    e142: Path | None = None
    strip: tuple[int, int] | None = None
    """Rows and columns of the strip."""

    def require(self, names: Sequence[str]) -> None:
        """Refuses devices that do not fit the strip, before anything is written.

        Raises:
            UsageError: they do not.
        """
        if self.strip is not None:
            cells_of(names, self.strip)

    def write(self, devices: Sequence[Device], pixel_um: float | None) -> list[dict[str, str]]:
        """Writes what is asked for.

        A KLARF of a lot without a package would be one of a lot without a defect, and is not written.

        Returns:
            `file` and `reason` of each that is not written.

        Raises:
            InputError: a file cannot be written.
            UsageError: the devices do not fit the strip.
        """
        if self.e142 is not None and self.strip is not None:
            write_e142(self.e142, strip_of(devices, self.strip, self.lot))
        if self.klarf is not None:
            if pixel_um is None or not any(one.inspected for device in devices for one in device.images):
                return [{"file": str(self.klarf), "reason": "no package of this lot could be looked at"}]
            write_klarf(self.klarf, klarf_of(devices, self.kinds, self.lot, self.strip, datetime.now(UTC)))
        return []


def line_files(
    out: Path,
    kinds: tuple[str, ...],
    *,
    klarf: str | Path | None,
    e142: str | Path | None,
    strip: str | None,
    pixel_um: float | None,
) -> LineFiles:
    """What is asked for, checked.

    Args:
        out: folder of the run, after which lot and strip are called.
        kinds: classes of findings.
        klarf: file of the findings.
        e142: file of the strip's map.
        strip: as the user gave it: `4x10`.
        pixel_um: size of a pixel, if it is known [um]

    Raises:
        UsageError: something that is needed is not told, or a file's folder is not there.
    """
    if klarf is not None and pixel_um is None:
        raise UsageError(f"--klarf {klarf}: places in KLARF are in um; say the size of a pixel with --pitch-um")
    if e142 is not None and strip is None:
        raise UsageError(f"--e142 {e142}: a map has rows and columns; say those of the strip with --strip 4x10")
    size = None
    if strip is not None:
        told = _STRIP.fullmatch(strip.strip())
        if told is None:
            raise UsageError(f"--strip {strip!r}: write rows x columns, as 4x10")
        if klarf is None and e142 is None:
            raise UsageError(f"--strip {strip}: says where devices lie in the files of --e142 and --klarf; name one")
        size = int(told[1]), int(told[2])
    files = [None if path is None else Path(path) for path in (klarf, e142)]
    for path, name in zip(files, ("klarf", "e142"), strict=True):
        if path is None:
            continue
        if path.is_dir() or not (path.parent.is_dir() or path.parent == out):
            raise UsageError(f"--{name} {path}: names a file in a folder that is there")
    if files[0] is not None and files[0] == files[1]:
        raise UsageError(f"--klarf and --e142 both name {files[0]}; give each a file of its own")
    return LineFiles(out.resolve().name, kinds, files[0], files[1], size)


def cells_of(names: Sequence[str], strip: tuple[int, int]) -> list[Cell]:
    """Where devices lie on their strip.

    Where all names end as `_r02_c07` they tell it, and places may be empty. Else devices lie row by row in the order of
    names; then every place has to be taken, for one that is missing would move all that follow.

    Args:
        names: of the devices, in order.
        strip: rows and columns.

    Raises:
        UsageError: a device has no place, or two have the same.
    """
    rows, columns = strip
    told = [_NAMED.search(name) for name in names]
    if not any(told):
        if len(names) != rows * columns:
            raise UsageError(
                f"--strip {rows}x{columns} has {rows * columns} places, and the lot {len(names)} devices: devices are "
                f"laid on it row by row, one a place; {_PLACE}, and places may then be empty"
            )
        return [divmod(place, columns) for place in range(len(names))]
    cells: dict[Cell, str] = {}
    for name, match in zip(names, told, strict=True):
        if match is None:
            raise UsageError(f"--strip: {name!r} tells no place, and others do; {_PLACE}")
        cell = int(match[1]) - 1, int(match[2]) - 1
        if not (0 <= cell[0] < rows and 0 <= cell[1] < columns):
            raise UsageError(f"--strip {rows}x{columns}: {name!r} lies outside of it; rows and columns count from 1")
        if cell in cells:
            raise UsageError(f"--strip: {cells[cell]!r} and {name!r} lie at one place; inspect one strip at a time")
        cells[cell] = name
    return list(cells)


def strip_of(devices: Sequence[Device], strip: tuple[int, int], lot: str) -> E142:
    """The verdicts of a strip's devices as a map.

    Raises:
        UsageError: the devices do not fit the strip.
    """
    verdicts: list[list[str | None]] = [[None] * strip[1] for _ in range(strip[0])]
    for device, (row, column) in zip(devices, cells_of([one.name for one in devices], strip), strict=True):
        verdicts[row][column] = device.verdict
    return strip_map(lot, verdicts, lot)


def klarf_of(
    devices: Sequence[Device], kinds: Sequence[str], lot: str, strip: tuple[int, int] | None, at: datetime
) -> Klarf:
    """The findings of a lot.

    Args:
        devices: as inspected with a known size of a pixel.
        kinds: classes, numbered from 1.
        lot: its name.
        strip: rows and columns; a single row in the order of names if None.
        at: when it was inspected.

    Raises:
        UsageError: the devices do not fit the strip.
    """
    rows, columns = strip or (1, len(devices))
    cells = cells_of([one.name for one in devices], (rows, columns)) if strip else [(0, n) for n in range(columns)]
    index = [(column, rows - 1 - row) for row, column in cells]  # y is up
    sides = np.array([one.package[:2] for device in devices for one in device.images if one.package is not None])
    pitch_x, pitch_y = (round(float(side)) for side in np.median(sides, axis=0))
    found = [
        (place, finding.kind, finding.place)
        for device, place in zip(devices, index, strict=True)
        for _, finding in device.findings
        if finding.place is not None
    ]
    # whole nm: what a later version of the format holds, and far below what is known
    size = np.array([(at.width, at.height) for _, _, at in found], float).reshape(-1, 2).round(3)
    middle = np.array([(at.x, at.y) for _, _, at in found], float).reshape(-1, 2).round(3)
    numbers = {kind: number for number, kind in enumerate(kinds, 1)}
    defects = defect_table(
        [place for place, _, _ in found],
        middle,
        size,
        size.prod(axis=1).round(3).tolist(),
        [numbers[kind] for _, kind, _ in found],
    )
    looked = [
        place for device, place in zip(devices, index, strict=True) if any(one.inspected for one in device.images)
    ]
    area = float(len(looked) * pitch_x * pitch_y)
    moment = at.strftime("%m-%d-%Y"), at.strftime("%H:%M:%S")
    wafer = KlarfWafer(
        lot,
        defects,
        1,
        (0.0, 0.0),
        (columns * pitch_x / 2, rows * pitch_y / 2),
        (KlarfTest(1, tuple(looked), area),),
        summary=summary_of(defects, len(looked), area),
    )
    return Klarf(
        lot,
        (wafer,),
        (float(pitch_x), float(pitch_y)),
        sample_type="STRIP",
        file_timestamp=moment,
        result_timestamp=moment,
        classes={number: kind for kind, number in numbers.items()},
    )
