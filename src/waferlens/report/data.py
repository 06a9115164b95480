"""What a page is made from: every source is known by what it holds, never by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from waferlens.errors import InputError, UsageError
from waferlens.report import findings, package, wafer
from waferlens.report.agreement import FILE, Evaluation, read_evaluation
from waferlens.report.inspected import read_card, station_of
from waferlens.report.lot import Lot, read_lot
from waferlens.report.surface import Surface, measure_file, read_measurements

EXPECTED = "a folder of `waferlens inspect`, one of `waferlens evaluate --out`, a height map, or the JSON of `measure`"


@dataclass(slots=True)
class Contents:
    """Everything that stands on a page."""

    lots: list[Lot | findings.FindingsLot | package.PackageLot | wafer.WaferLot] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    surfaces: list[Surface] = field(default_factory=list)


def collect(sources: Sequence[Path], evaluations: Sequence[Path] = (), store: str | None = None) -> Contents:
    """Reads all sources.

    Args:
        sources: folders of runs and evaluations, height maps, measurements of them.
        evaluations: folders of evaluations.
        store: URL of the database with the results of the runs, where they are not in their folders.

    Raises:
        UsageError: there is no source.
        InputError: a source is not there, is of no known kind, or is damaged.
    """
    if not sources and not evaluations:
        raise UsageError(f"nothing to report on; name {EXPECTED}")
    contents = Contents()
    for source in sources:
        if source.is_dir():
            _add_folder(contents, source, store)
        elif source.is_file():
            if source.suffix.lower() == ".json":
                contents.surfaces += read_measurements(source)
            else:
                contents.surfaces.append(measure_file(source))
        else:
            raise InputError(source, "no such file or folder")
    contents.evaluations += [read_evaluation(folder) for folder in evaluations]
    return contents


def _add_folder(contents: Contents, folder: Path, store: str | None) -> None:
    card = read_card(folder)
    if card is not None:
        match station_of(card):
            case findings.STATION:
                contents.lots.append(findings.read_findings(folder, card, store))
            case wafer.STATION:
                contents.lots.append(wafer.read_wafer(folder, card, store))
            case package.STATION:
                contents.lots.append(package.read_package(folder, card, store))
            case _:
                contents.lots.append(read_lot(folder, card, store))
    elif (folder / FILE).is_file():
        contents.evaluations.append(read_evaluation(folder))
    else:
        raise InputError(folder, f"holds nothing to report on; name {EXPECTED}")
