"""What the page asks of the database of results. The database counts; what comes back does not grow with the lot."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from waferlens.errors import InputError, UsageError
from waferlens.store.rows import OK, QUARANTINED
from waferlens.store.schema import IMAGES, MEASUREMENTS, RUNS

BINS = 512
"""Bins a distribution is counted in; quantiles are known to one of them, bars are made of several."""
_I, _M = IMAGES.c, MEASUREMENTS.c
Bounds = tuple[float | None, float | None]
"""Lower and upper limit; None where a side is open."""


@dataclass(frozen=True, slots=True)
class Spread:
    """One measurand over the lot, without its shape."""

    name: str
    unit: str
    rows: int
    """Images it was asked of."""
    measured: int
    least: float | None
    greatest: float | None
    mean: float | None
    half_width: float | None
    """Mean half-width of the intervals; None where the bundle gives none."""


@dataclass(slots=True)
class Counted:
    """A distribution in `BINS` bins of one width."""

    low: float
    high: float
    by_verdict: dict[str, np.ndarray] = field(default_factory=dict)
    """Images a bin, by verdict; the empty word where there is none."""
    squares: float = 0.0
    """Sum of the squared distances from the mean, of all values and not only of those between `low` and `high`."""


@dataclass(frozen=True, slots=True)
class Row:
    """One image with its numbers."""

    item: int
    path: str
    page: int
    reason: str
    verdict: str
    verdict_reason: str
    novelty: float | None
    map_file: str | None
    map_index: int | None
    numbers: dict[str, tuple[float | None, str, float | None, float | None]]
    """Value, unit, low, high by name."""


class Results:
    """The results of one run, opened for reading.

    Args:
        place: the file of SQLite, or the URL of a database.
        run: the name of the run, as its card tells it.

    Raises:
        InputError: there is no such file or run in it, or it is no database of results.
        UsageError: the URL is of no database.
    """

    def __init__(self, place: str | Path, run: str) -> None:
        self._place = str(place)
        if "://" in self._place:
            try:
                self._engine = sa.create_engine(self._place)
            except (SQLAlchemyError, ImportError) as wrong:
                raise UsageError(f"--store: not the URL of a database that can be used: {wrong}") from wrong
            self._place = self._engine.url.render_as_string(hide_password=True)
        else:
            if not Path(place).is_file():
                raise InputError(place, "no such database; results in another one are read with --store URL")
            # `rw` and not `ro`: what a killed run left half-written is rolled back by whoever opens the file next
            uri = f"file:{quote(str(Path(place).resolve()))}?mode=rw"
            self._engine = sa.create_engine(
                "sqlite://", creator=lambda: sqlite3.connect(uri, uri=True), poolclass=sa.pool.NullPool
            )
        with self._asking() as connection:
            found = connection.execute(sa.select(RUNS.c.run).where(RUNS.c.name == run)).scalar()
        if found is None:
            raise InputError(self._place, f"has no run {run}; results in another database are read with --store URL")
        self._run: int = found

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *ignored: object) -> None:
        self._engine.dispose()

    def counts(self) -> dict[tuple[str, str], int]:
        """Images by status and verdict."""
        query = sa.select(_I.status, _I.verdict, sa.func.count()).group_by(_I.status, _I.verdict)
        return {(status, verdict): count for status, verdict, count in self._rows(query.where(_I.run == self._run))}

    def first_and_last_path(self) -> tuple[str, str]:
        """The least and the greatest path; what they begin with, all of them begin with."""
        ((first, last),) = self._rows(sa.select(sa.func.min(_I.path), sa.func.max(_I.path)).where(_I.run == self._run))
        return first or "", last or ""

    def spreads(self) -> list[Spread]:
        """Every measurand in every unit it was told in."""
        f = sa.func
        query = (
            sa.select(
                _M.name,
                _M.unit,
                f.count(),
                f.count(_M.value),
                f.min(_M.value),
                f.max(_M.value),
                f.avg(_M.value),
                f.avg(_M.high - _M.low) / 2,
            )
            .where(_M.run == self._run)
            .group_by(_M.name, _M.unit)
        )
        return [Spread(*row) for row in self._rows(query)]

    def distributions(
        self, spreads: Sequence[Spread], bounds: Sequence[Bounds], ends: Sequence[tuple[float, float]]
    ) -> dict[tuple[str, str], Counted]:
        """Counts the values of some measurands in one pass over the table.

        Args:
            spreads: the measurands; what was never measured is left out.
            bounds: lower and upper limit of each, which give its values their verdicts [the measurand's unit]
            ends: lower and upper end of the bins of each; values beyond them are in no bin.
        """
        known = [told for told in zip(spreads, bounds, ends, strict=True) if told[0].measured]
        if not known:
            return {}
        found = {(spread.name, spread.unit): Counted(low, high) for spread, _, (low, high) in known}
        tests = [sa.and_(_M.name == spread.name, _M.unit == spread.unit) for spread, _, _ in known]

        def chosen(numbers: Iterable[float]) -> sa.ColumnElement[float]:
            return sa.case(*((test, sa.literal(float(number))) for test, number in zip(tests, numbers, strict=True)))

        lows, highs = chosen(low for _, _, (low, _) in known), chosen(high for _, _, (_, high) in known)
        scale = chosen(BINS / (high - low) if high > low else 0.0 for _, _, (low, high) in known)
        # a cast cuts off in one database and rounds in another: half of a bin, which is nothing to a bar of eight
        inside = sa.cast((_M.value - lows) * scale, sa.Integer)
        place = sa.case((_M.value < lows, -1), (_M.value > highs, -1), else_=inside)
        limited = [
            (test, _verdict(*bound)) for test, (_, bound, _) in zip(tests, known, strict=True) if bound != (None, None)
        ]
        verdict = sa.case(*limited, else_="") if limited else sa.literal("")
        away = _M.value - chosen(spread.mean or 0.0 for spread, _, _ in known)
        query = (
            sa.select(
                _M.name, _M.unit, verdict.label("told"), place.label("place"), sa.func.count(), sa.func.sum(away * away)
            )
            .where(_M.run == self._run, _M.value.is_not(None), sa.or_(*tests))
            .group_by(_M.name, _M.unit, "told", "place")
        )
        for name, unit, told, index, count, squares in self._rows(query):
            counted = found[name, unit]
            counted.squares += squares
            if index >= 0:
                bins = counted.by_verdict.setdefault(told, np.zeros(BINS, np.int64))
                bins[min(index, BINS - 1)] += count
        return found

    def judged(self, name: str, unit: str, lower: float | None, upper: float | None) -> dict[str, int]:
        """How many images one limit alone makes OK, NG or review.

        Args:
            name: the measurand.
            unit: rows in another unit are `review`: the limit cannot be held against them.
            lower: lower limit [unit]
            upper: upper limit [unit]
        """
        verdict = sa.case((_M.unit == unit, _verdict(lower, upper)), else_="review")
        query = sa.select(verdict.label("told"), sa.func.count().label("images")).where(
            _M.run == self._run, _M.name == name
        )
        return {row.told: row.images for row in self._rows(query.group_by("told"))}

    def unmeasured(self, most: int) -> list[tuple[str, int]]:
        """Why something was not measured on images that were read, most frequent first."""
        return self._reasons(OK, most)

    def quarantine_reasons(self, most: int) -> list[tuple[str, int]]:
        """Why images were quarantined, most frequent first."""
        return self._reasons(QUARANTINED, most)

    def quarantined(self, most: int) -> list[tuple[str, int, str]]:
        """The first quarantined images: path, page, reason."""
        query = (
            sa.select(_I.path, _I.page, _I.reason)
            .where(_I.run == self._run, _I.status == QUARANTINED)
            .order_by(_I.item)
            .limit(most)
        )
        return [tuple(row) for row in self._rows(query)]

    def nearest(self, name: str, unit: str, value: float, most: int) -> list[int]:
        """Images in the domain whose value lies nearest to one, nearest first."""
        return self._items(name, unit, sa.func.abs(_M.value - value), most)

    def outermost(self, name: str, unit: str, lower: float | None, upper: float | None, most: int) -> list[int]:
        """Images in the domain whose whole interval lies farthest outside the limits, farthest first."""
        beyond = [
            *([] if lower is None else [(_M.high < lower, _M.high - lower)]),
            *([] if upper is None else [(_M.low > upper, upper - _M.low)]),
        ]
        return self._items(name, unit, sa.case(*beyond), most) if beyond else []

    def widest(self, name: str, unit: str, most: int) -> list[int]:
        """Images in the domain with the widest intervals, widest first."""
        return self._items(name, unit, _M.low - _M.high, most)

    def strangest(self, most: int) -> list[int]:
        """Images out of the bundle's domain, farthest first."""
        query = (
            sa.select(_I.item)
            .where(_I.run == self._run, _I.status == OK, _I.novelty > 1)
            .order_by(_I.novelty.desc(), _I.item)
            .limit(most)
        )
        return [item for (item,) in self._rows(query)]

    def outside(self) -> int:
        """How many images lie out of the bundle's domain."""
        ((count,),) = self._rows(sa.select(sa.func.count()).where(_I.run == self._run, _I.novelty > 1))
        return count

    def rows(self, items: Sequence[int]) -> dict[int, Row]:
        """Some images with all their numbers."""
        numbers: dict[int, dict[str, Any]] = {item: {} for item in items}
        query = sa.select(_M.item, _M.name, _M.value, _M.unit, _M.low, _M.high)
        for item, name, *rest in self._rows(query.where(_M.run == self._run, _M.item.in_(list(numbers)))):
            numbers[item][name] = tuple(rest)
        query = sa.select(
            _I.item, _I.path, _I.page, _I.reason, _I.verdict, _I.verdict_reason, _I.novelty, _I.map_file, _I.map_index
        ).where(_I.run == self._run, _I.item.in_(list(numbers)))
        return {row[0]: Row(*row, numbers[row[0]]) for row in self._rows(query)}

    def paths(self) -> Iterator[tuple[int, str, int]]:
        """Item, path and page of all images that were measured, in the order of the lot, some at a time."""
        query = sa.select(_I.item, _I.path, _I.page).where(_I.run == self._run, _I.status == OK).order_by(_I.item)
        return (tuple(row) for row in self._streamed(query))

    def values(self, name: str, unit: str) -> Iterator[tuple[int, float]]:
        """Item and value of one measurand where it was measured, in the order of the lot, some at a time."""
        query = sa.select(_M.item, _M.value).where(
            _M.run == self._run, _M.name == name, _M.unit == unit, _M.value.is_not(None)
        )
        return (tuple(row) for row in self._streamed(query.order_by(_M.item)))

    def _items(self, name: str, unit: str, order: sa.ColumnElement, most: int) -> list[int]:
        query = (
            sa.select(_M.item)
            .join_from(MEASUREMENTS, IMAGES, sa.and_(_I.run == _M.run, _I.item == _M.item))
            .where(
                _M.run == self._run, _M.name == name, _M.unit == unit, order.is_not(None),
                sa.or_(_I.novelty.is_(None), _I.novelty <= 1),
            )
            .order_by(order, _M.item)
            .limit(most)
        )  # fmt: skip
        return [item for (item,) in self._rows(query)]

    def _reasons(self, status: str, most: int) -> list[tuple[str, int]]:
        number = sa.func.count()
        query = (
            sa.select(_I.reason, number)
            .where(_I.run == self._run, _I.status == status, _I.reason != "")
            .group_by(_I.reason)
            .order_by(number.desc(), _I.reason)
            .limit(most)
        )
        return [tuple(row) for row in self._rows(query)]

    def _rows(self, query: sa.Select) -> list[Any]:
        with self._asking() as connection:
            return list(connection.execute(query))

    def _streamed(self, query: sa.Select) -> Iterator[Any]:
        with self._asking() as connection:
            yield from connection.execution_options(yield_per=5000).execute(query)

    @contextmanager
    def _asking(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as wrong:
            told = str(getattr(wrong, "orig", None) or wrong).strip().splitlines()[0]
            raise InputError(self._place, f"{told}; is it a database of results of waferlens?") from wrong


def _verdict(lower: float | None, upper: float | None) -> sa.ColumnElement[str]:
    """What `bundle.verdict.judge` decides, as the database decides it; unknown ends make no comparison true."""
    inside = sa.and_(
        _M.low.is_not(None),
        sa.true() if lower is None else _M.low >= lower,
        sa.true() if upper is None else _M.high <= upper,
    )
    outside = sa.or_(sa.false() if lower is None else _M.high < lower, sa.false() if upper is None else _M.low > upper)
    return sa.case((inside, "OK"), (outside, "NG"), else_="review")
