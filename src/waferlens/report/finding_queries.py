"""What the page asks of a database about findings. What comes whole does not grow with the lot; the rest streams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from jaxtyping import Bool, Float, Int

from waferlens.report.queries import Results
from waferlens.store.rows import OK
from waferlens.store.schema import FINDINGS, IMAGES, MEASUREMENTS

_F, _I, _M = FINDINGS.c, IMAGES.c, MEASUREMENTS.c
_AT_ONCE = 5000
"""Rows read at a time."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The findings of one sense and one criticality, together."""

    light_or_dark: str
    critical: bool
    findings: int
    area: tuple[float, float]
    """Least and greatest [px²]"""
    contrast: tuple[float | None, float | None]
    """Least and greatest, None where no finding tells one [grey]"""
    right: float
    """Rightmost edge of a box [px]"""
    bottom: float
    """Lowest edge of a box [px]"""


@dataclass(frozen=True, slots=True)
class Listed:
    """A finding as a card lists it."""

    item: int
    number: int
    box: tuple[float, float, float, float]
    """x0 y0 x1 y1, outer edges; the centre of the first pixel is (0, 0) [px]"""
    score: float | None
    """Greatest deviation in units of the threshold."""
    area_px: float
    contrast: float | None
    """Mean difference from the reference [grey]"""
    light_or_dark: str
    critical: bool
    rule: str


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Some findings, in the order of the lot."""

    item: Int[np.ndarray, " n"]
    x: Float[np.ndarray, " n"]
    """Centres of the boxes [px]"""
    y: Float[np.ndarray, " n"]
    area: Float[np.ndarray, " n"]
    """[px²]"""
    contrast: Float[np.ndarray, " n"]
    """NaN where there is none [grey]"""
    light: Bool[np.ndarray, " n"]
    critical: Bool[np.ndarray, " n"]


class FindingResults(Results):
    """The results of a run whose station finds things; arguments and errors are those of `Results`."""

    def kinds(self) -> list[Kind]:
        """How many findings there are of each kind, and what they span."""
        f = sa.func
        query = sa.select(
            *(_F.light_or_dark, _F.critical, f.count(), f.min(_F.area_px), f.max(_F.area_px)),
            *(f.min(_F.contrast), f.max(_F.contrast), f.max(_F.x1), f.max(_F.y1)),
        )
        rows = self._rows(query.where(_F.run == self._run).group_by(_F.light_or_dark, _F.critical))
        return [
            Kind(sense, bool(critical), count, (least, most), (low, high), right, bottom)
            for sense, critical, count, least, most, low, high, right, bottom in rows
        ]

    def pieces(self) -> Iterator[Piece]:
        """Every finding, some thousands at a time."""
        query = (
            sa.select(_F.item, _F.x0, _F.y0, _F.x1, _F.y1, _F.area_px, _F.contrast, _F.light_or_dark, _F.critical)
            .where(_F.run == self._run)
            .order_by(_F.item, _F.number)
        )
        with self._asking() as connection:
            for rows in connection.execution_options(yield_per=_AT_ONCE).execute(query).partitions():
                item, x0, y0, x1, y1, area, contrast, sense, critical = zip(*rows, strict=True)
                yield Piece(
                    np.array(item, np.int64),
                    (np.array(x0) + np.array(x1)) / 2,
                    (np.array(y0) + np.array(y1)) / 2,
                    np.array(area, np.float64),
                    np.array(contrast, np.float64),  # None becomes NaN
                    np.array([one == "light" for one in sense]),
                    np.array(critical, bool),
                )

    def decided(self) -> dict[tuple[str, bool], tuple[int, int]]:
        """How many findings each rule decided, and on how many images, by its name and what it called them."""
        query = sa.select(_F.rule, _F.critical, sa.func.count(), sa.func.count(_F.item.distinct()))
        rows = self._rows(query.where(_F.run == self._run).group_by(_F.rule, _F.critical))
        return {(rule, bool(critical)): (findings, images) for rule, critical, findings, images in rows}

    def inside(self, box: tuple[float, float, float, float]) -> tuple[int, float | None, float | None]:
        """Images with a finding whose centre lies in a box, and the mean of these centres; None where there is none."""
        x0, y0, x1, y1 = box
        # twice the centre: the database need not divide
        x, y = _F.x0 + _F.x1, _F.y0 + _F.y1
        query = sa.select(sa.func.count(_F.item.distinct()), sa.func.avg(x) / 2, sa.func.avg(y) / 2).where(
            _F.run == self._run, x.between(2 * x0, 2 * x1), y.between(2 * y0, 2 * y1)
        )
        ((images, mean_x, mean_y),) = self._rows(query)
        return images, mean_x, mean_y

    def with_findings(self) -> tuple[int, int]:
        """Images with a finding, and the most findings on one."""
        of = sa.select(sa.func.count().label("n")).where(_F.run == self._run).group_by(_F.item).subquery()
        ((images, most),) = self._rows(sa.select(sa.func.count(), sa.func.max(of.c.n)).select_from(of))
        return images, most or 0

    def by_verdict(self, name: str) -> Iterator[tuple[str, Float[np.ndarray, " n"]]]:
        """The values of a measurand by the verdicts of their images, some thousands at a time."""
        query = (
            sa.select(_M.value, _I.verdict)
            .join_from(MEASUREMENTS, IMAGES, sa.and_(_I.run == _M.run, _I.item == _M.item))
            .where(_M.run == self._run, _M.name == name, _M.value.is_not(None))
        )
        with self._asking() as connection:
            for rows in connection.execution_options(yield_per=_AT_ONCE).execute(query).partitions():
                values, verdicts = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
                for verdict in np.unique(verdicts):
                    yield str(verdict), values[verdicts == verdict]

    def pairs(self, one: str, other: str) -> Iterator[Float[np.ndarray, "n 2"]]:
        """Two measurands of each image that has both, some thousands at a time."""
        first, second = (sa.func.max(sa.case((_M.name == name, _M.value))) for name in (one, other))
        query = (
            sa.select(first, second)
            .where(_M.run == self._run, _M.name.in_((one, other)))
            .group_by(_M.item)
            .having(sa.func.count(_M.value) == 2)
        )
        with self._asking() as connection:
            for rows in connection.execution_options(yield_per=_AT_ONCE).execute(query).partitions():
                yield np.array([tuple(row) for row in rows], np.float64)

    def highest(self, name: str, then: str, most: int) -> list[int]:
        """NG images with the greatest value of a measurand, where several have the same by another one."""
        a, b = MEASUREMENTS.alias(), MEASUREMENTS.alias()
        query = (
            sa.select(a.c.item)
            .join(IMAGES, sa.and_(_I.run == a.c.run, _I.item == a.c.item))
            .join(b, sa.and_(b.c.run == a.c.run, b.c.item == a.c.item, b.c.name == then))
            .where(a.c.run == self._run, a.c.name == name, a.c.value.is_not(None), _I.verdict == "NG")
            .order_by(a.c.value.desc(), b.c.value.desc(), a.c.item)
            .limit(most)
        )
        return [item for (item,) in self._rows(query)]

    def about(self, name: str, reach: float, most: int) -> list[int]:
        """Images whose value is at most so many times above 1 or below it, nearest first."""
        ratio = sa.case((_M.value >= 1, _M.value), else_=1 / _M.value)
        query = sa.select(_M.item).where(_M.run == self._run, _M.name == name, _M.value.between(1 / reach, reach))
        return [item for (item,) in self._rows(query.order_by(ratio, _M.item).limit(most))]

    def undecided(self, most: int) -> list[tuple[int, str, int, str]]:
        """The first images that are `review`: item, path, page, reason."""
        query = (
            sa.select(_I.item, _I.path, _I.page, _I.verdict_reason)
            .where(_I.run == self._run, _I.status == OK, _I.verdict == "review")
            .order_by(_I.item)
            .limit(most)
        )
        return [tuple(row) for row in self._rows(query)]

    def why_undecided(self) -> Iterator[str]:
        """The reason of every image that is `review`."""
        query = sa.select(_I.verdict_reason).where(_I.run == self._run, _I.status == OK, _I.verdict == "review")
        return (reason for (reason,) in self._streamed(query))

    def some_paths(self, most: int) -> list[tuple[str, int]]:
        """Path and page of the first images that were compared, those without findings first."""
        query = (
            sa.select(_I.path, _I.page)
            .where(_I.run == self._run, _I.status == OK)
            .order_by(sa.case((_I.verdict == "OK", 0), else_=1), _I.item)
            .limit(most)
        )
        return [tuple(row) for row in self._rows(query)]

    def listed(self, items: Sequence[int], most: int) -> dict[int, list[Listed]]:
        """The first findings of some images, the greatest deviation first."""
        query = (
            sa.select(
                *(_F.item, _F.number, _F.x0, _F.y0, _F.x1, _F.y1, _F.score, _F.area_px),
                *(_F.contrast, _F.light_or_dark, _F.critical, _F.rule),
            )
            .where(_F.run == self._run, _F.item.in_(items), _F.number < most)
            .order_by(_F.item, _F.number)
        )
        out: dict[int, list[Listed]] = {item: [] for item in items}
        for item, number, x0, y0, x1, y1, *rest in self._rows(query):
            out[item].append(Listed(item, number, (x0, y0, x1, y1), *rest))
        return out
