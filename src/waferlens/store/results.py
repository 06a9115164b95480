"""Writing and reading results: a chunk of images is stored whole or not at all, and never twice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from waferlens.errors import InputError, UsageError
from waferlens.records import Finding, Place
from waferlens.store.rows import Found, ImageResult, Run
from waferlens.store.schema import FACTS, FINDINGS, IMAGES, MEASUREMENTS, METADATA, PLACES, RUNS

_PAGE = 1000  # images read at a time
_IMAGE_COLUMNS = [column.name for column in IMAGES.columns if column.name != "run"]  # as the fields of `ImageResult`
_KEY = ("run", "item", "number")
_FINDING_COLUMNS = [
    *(column for column in FINDINGS.columns if column.name not in _KEY),
    *(column.label(f"place_{column.name}") for column in PLACES.columns if column.name not in _KEY),
]
_PLACED = FINDINGS.outerjoin(PLACES, sa.and_(*(PLACES.c[name] == FINDINGS.c[name] for name in _KEY)))


class Store:
    """An open database of results.

    Args:
        place: a file of SQLite, or the URL of a database (`postgresql+psycopg://…`).

    Raises:
        UsageError: the URL is of no database that can be reached, or its driver is not installed.
        InputError: the file is no database, or cannot be written.
    """

    def __init__(self, place: str | Path) -> None:
        self._place = str(place)
        url = self._place if "://" in self._place else sa.URL.create("sqlite", database=self._place)
        try:
            self._engine = sa.create_engine(url)
            self._is_sqlite = self._engine.dialect.name == "sqlite"
            if self._is_sqlite:
                sa.event.listen(self._engine, "connect", _quick_sqlite)
            with self._told():
                METADATA.create_all(self._engine)
        except (SQLAlchemyError, ImportError) as wrong:
            if isinstance(wrong, ImportError):
                raise UsageError(f"{_without_password(self._place)}: its driver is not installed: {wrong}") from wrong
            raise UsageError(
                f"{_without_password(self._place)}: not the URL of a database ({wrong}); "
                "write it as postgresql+psycopg://USER@HOST/NAME"
            ) from wrong

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the database."""
        self._engine.dispose()

    def begin(self, run: Run) -> int:
        """Makes a run known, if it is not.

        Returns:
            The number it has in this database; the other methods ask for it.

        Raises:
            InputError: the database cannot be written.
        """
        with self._told(), self._engine.begin() as connection:
            known = connection.execute(sa.select(RUNS.c.run).where(RUNS.c.name == run.name)).scalar()
            if known is not None:
                return known
            made = connection.execute(sa.insert(RUNS).values(asdict(run)))
            return made.inserted_primary_key[0]

    def forget(self, name: str) -> None:
        """Removes a run and all its results; a name that is not here is no error.

        Raises:
            InputError: the database cannot be written.
        """
        with self._told(), self._engine.begin() as connection:
            run = connection.execute(sa.select(RUNS.c.run).where(RUNS.c.name == name)).scalar()
            if run is not None:
                for table in (PLACES, FINDINGS, FACTS, MEASUREMENTS, IMAGES, RUNS):
                    connection.execute(sa.delete(table).where(table.c.run == run))

    def runs(self) -> dict[int, Run]:
        """The runs in this database by their numbers, oldest first.

        Raises:
            InputError: the database cannot be read.
        """
        with self._told(), self._engine.connect() as connection:
            rows = connection.execute(sa.select(RUNS).order_by(RUNS.c.started, RUNS.c.run)).mappings()
            return {row["run"]: Run(**{key: row[key] for key in row if key != "run"}) for row in rows}

    def done_chunks(self, run: int) -> set[int]:
        """Chunks that are stored.

        Raises:
            InputError: the database cannot be read.
        """
        with self._told(), self._engine.connect() as connection:
            found = connection.execute(sa.select(IMAGES.c.chunk).where(IMAGES.c.run == run).distinct())
            return {row.chunk for row in found}

    def add_chunk(self, run: int, images: Sequence[ImageResult]) -> None:
        """Stores the images of one chunk in one transaction.

        Raises:
            InputError: the database cannot be written, or holds one of the images already.
        """
        about = [(run, *(getattr(image, name) for name in _IMAGE_COLUMNS)) for image in images]
        numbers = [(run, image.item, *number) for image in images for number in image.measurements]
        found = [
            (run, image.item, number, *_as_row(finding))
            for image in images
            for number, finding in enumerate(image.findings)
        ]
        facts = [(run, image.item, *fact) for image in images for fact in image.facts.items()]
        places = [
            (run, image.item, number, it.x, it.y, it.width, it.height, it.unit)
            for image in images
            for number, finding in enumerate(image.findings)
            if (it := finding.place) is not None
        ]
        with self._told(), self._engine.begin() as connection:
            _insert(connection, IMAGES, about)
            _insert(connection, MEASUREMENTS, numbers)
            _insert(connection, FACTS, facts)
            _insert(connection, FINDINGS, found)
            _insert(connection, PLACES, places)

    def counts(self, run: int) -> dict[tuple[str, str], int]:
        """Number of images by (status, verdict).

        Raises:
            InputError: the database cannot be read.
        """
        query = (
            sa.select(IMAGES.c.status, IMAGES.c.verdict, sa.func.count())
            .where(IMAGES.c.run == run)
            .group_by(IMAGES.c.status, IMAGES.c.verdict)
        )
        with self._told(), self._engine.connect() as connection:
            return {(status, verdict): count for status, verdict, count in connection.execute(query)}

    def units(self, run: int) -> list[tuple[str, str]]:
        """The (name, unit) of all measurements of a run; a name has two units where only some files told a scale.

        Raises:
            InputError: the database cannot be read.
        """
        query = sa.select(MEASUREMENTS.c.name, MEASUREMENTS.c.unit).where(MEASUREMENTS.c.run == run).distinct()
        with self._told(), self._engine.connect() as connection:
            return [(row.name, row.unit) for row in connection.execute(query)]

    def facts(self, run: int) -> list[str]:
        """Names of what is known of the images of a run that is no number.

        Raises:
            InputError: the database cannot be read.
        """
        query = sa.select(FACTS.c.name).where(FACTS.c.run == run).distinct()
        with self._told(), self._engine.connect() as connection:
            return [row.name for row in connection.execute(query)]

    def places(self, run: int) -> list[str]:
        """Units in which it is known where on their parts findings of a run lie; none where no part was looked for.

        Raises:
            InputError: the database cannot be read.
        """
        query = sa.select(PLACES.c.unit).where(PLACES.c.run == run).distinct()
        with self._told(), self._engine.connect() as connection:
            return [row.unit for row in connection.execute(query)]

    def images(self, run: int, measurements: bool = True, findings: bool = True) -> Iterator[ImageResult]:
        """The images of a run in the order of the lot; a thousand are in memory at a time.

        Args:
            run: its number.
            measurements: read them and the facts too; else there are none.
            findings: read them too; else the lists are empty.

        Raises:
            InputError: the database cannot be read.
        """
        after = -1
        with self._told(), self._engine.connect() as connection:
            while True:
                page = (
                    sa.select(*(IMAGES.c[name] for name in _IMAGE_COLUMNS))
                    .where(IMAGES.c.run == run, IMAGES.c.item > after)
                    .order_by(IMAGES.c.item)
                    .limit(_PAGE)
                )
                found = [ImageResult(*row) for row in connection.execute(page)]
                if not found:
                    return
                after = found[-1].item
                if measurements:
                    self._attach(connection, run, found)
                if findings:
                    self._attach_findings(connection, run, found)
                yield from found

    def findings(self, run: int) -> Iterator[Found]:
        """Everything found in a run, in the order of the lot; a thousand are in memory at a time.

        Raises:
            InputError: the database cannot be read.
        """
        query = (
            sa.select(IMAGES.c.item, IMAGES.c.path, IMAGES.c.page, IMAGES.c.verdict, *_FINDING_COLUMNS)
            .select_from(_PLACED)
            .join(IMAGES, (FINDINGS.c.run == IMAGES.c.run) & (FINDINGS.c.item == IMAGES.c.item))
            .where(FINDINGS.c.run == run)
            .order_by(FINDINGS.c.item, FINDINGS.c.number)
            .execution_options(yield_per=_PAGE)
        )
        with self._told(), self._engine.connect() as connection:
            for row in connection.execute(query):
                yield Found(*row[:4], _as_finding(row[4:]))

    def count_findings(self, run: int) -> tuple[int, int]:
        """Number of findings of a run, and of the critical ones among them.

        Raises:
            InputError: the database cannot be read.
        """
        query = (
            sa.select(FINDINGS.c.critical, sa.func.count()).where(FINDINGS.c.run == run).group_by(FINDINGS.c.critical)
        )
        with self._told(), self._engine.connect() as connection:
            counted = {bool(critical): count for critical, count in connection.execute(query)}
        return sum(counted.values()), counted.get(True, 0)

    def _attach_findings(self, connection: sa.Connection, run: int, found: list[ImageResult]) -> None:
        f = FINDINGS.c
        query = (
            sa.select(f.item, *_FINDING_COLUMNS)
            .select_from(_PLACED)
            .where(f.run == run, f.item.between(found[0].item, found[-1].item))
            .order_by(f.item, f.number)
        )
        of = {image.item: image.findings for image in found}
        for row in connection.execute(query):
            of[row[0]].append(_as_finding(row[1:]))

    def _attach(self, connection: sa.Connection, run: int, found: list[ImageResult]) -> None:
        m = MEASUREMENTS.c
        query = (
            sa.select(m.item, m.name, m.value, m.unit, m.low, m.high)
            .where(m.run == run, m.item.between(found[0].item, found[-1].item))
            .order_by(m.item)
        )
        of = {image.item: image.measurements for image in found}
        for row in connection.execute(query):
            of[row[0]].append(row[1:])
        f = FACTS.c
        known = sa.select(f.item, f.name, f.text).where(f.run == run, f.item.between(found[0].item, found[-1].item))
        facts = {image.item: image.facts for image in found}
        for item, name, told in connection.execute(known.order_by(f.item, f.name)):
            facts[item][name] = told

    @contextmanager
    def _told(self) -> Iterator[None]:
        """A failure of the database becomes one of ours, with the place and what to do."""
        try:
            yield
        except SQLAlchemyError as wrong:
            cause = getattr(wrong, "orig", None) or wrong
            told = str(cause).strip().splitlines()[0]
            raise InputError(
                _without_password(self._place), f"{told}; is the database reachable, writable and of waferlens?"
            ) from wrong


def _as_row(finding: Finding) -> tuple:
    """The columns of a finding after its number; drivers know Python's own numbers only, and SQL has no NaN."""
    return (
        finding.kind,
        *(float(edge) for edge in finding.box),
        None if math.isnan(finding.score) else float(finding.score),
        float(finding.area_px),
        None if math.isnan(finding.contrast) else float(finding.contrast),
        finding.light_or_dark,
        bool(finding.critical),
        finding.rule,
    )


def _as_finding(row: Sequence[Any]) -> Finding:
    kind, x0, y0, x1, y1, score, area_px, contrast, light_or_dark, critical, rule, *place = row
    score, contrast = (math.nan if number is None else number for number in (score, contrast))
    at = None if place[0] is None else Place(*place)
    return Finding(kind, (x0, y0, x1, y1), score, area_px, contrast, light_or_dark, critical, rule, at)


def _insert(connection: sa.Connection, table: sa.Table, rows: list[tuple]) -> None:
    """Many rows, in the order of the table's columns, handed to the driver as they are.

    Twenty numbers an image go through here: turning each row into a dictionary and back costs more than storing it.
    """
    if not rows:
        return
    compiled = sa.insert(table).compile(dialect=connection.dialect)
    if compiled.positional:
        if compiled.positiontup != table.columns.keys():
            places = [table.columns.keys().index(name) for name in compiled.positiontup]
            rows = [tuple(row[place] for place in places) for row in rows]
        connection.exec_driver_sql(str(compiled), rows)
    else:
        connection.exec_driver_sql(str(compiled), [dict(zip(table.columns.keys(), row, strict=True)) for row in rows])


def _quick_sqlite(connection: object, record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    # a journal and one sync a chunk: safe against a kill at any moment, and the run stays one file (no -wal beside it)
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute(
        "PRAGMA foreign_keys=OFF"
    )  # rows of a chunk come together; checking each costs as much as storing it
    cursor.close()


def _without_password(place: str) -> str:
    if "://" not in place:
        return place
    try:
        return sa.make_url(place).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return place.split("://", 1)[0] + "://…"
