"""What the page asks of the database about fields and swaths: which are the worst, and how high the highest may be."""

from __future__ import annotations

import sqlalchemy as sa

from waferlens.report.queries import Results
from waferlens.store.schema import IMAGES, MEASUREMENTS

_I, _M = IMAGES.c, MEASUREMENTS.c


class WaferResults(Results):
    """The results of a run of the wafer station; arguments and errors are those of `Results`."""

    def worst(self, most: int) -> list[int]:
        """Fields, the worst first.

        First those without any height; then by verdict, where there were limits; then by the number of sites that are
        missing or unsure; then by the share that is not known; then by the width of the interval of the top.
        """
        f = sa.func
        top = f.max(sa.case((_M.name == "top", _M.value)))
        wide = f.max(sa.case((_M.name == "top", _M.high - _M.low)))
        bad = f.sum(sa.case((_M.name.in_(("dies_missing", "dies_unsure")), _M.value), else_=0.0))
        known = f.max(sa.case((_M.name == "known_share", _M.value)))
        verdict = sa.case((_I.verdict == "NG", 0), (_I.verdict == "review", 1), else_=2)
        query = (
            sa.select(_M.item)
            .join_from(MEASUREMENTS, IMAGES, sa.and_(_I.run == _M.run, _I.item == _M.item))
            .where(_M.run == self._run)
            .group_by(_M.item, _I.verdict)
            .order_by(top.is_not(None), verdict, bad.desc(), known, f.coalesce(wide, 0.0).desc(), _M.item)
            .limit(most)
        )
        return [item for (item,) in self._rows(query)]

    def highest(self) -> tuple[float | None, float | None]:
        """The tallest top of all fields, and the highest upper end of any field's interval of it [um]"""
        query = sa.select(sa.func.max(_M.value), sa.func.max(_M.high)).where(_M.run == self._run, _M.name == "top")
        ((value, bound),) = self._rows(query)
        return value, bound

    def total(self, name: str) -> float | None:
        """A number summed over all fields that have it; None where none has."""
        query = sa.select(sa.func.sum(_M.value)).where(_M.run == self._run, _M.name == name)
        ((value,),) = self._rows(query)
        return value

    def reach(self, name: str) -> tuple[float | None, float | None]:
        """The least and the greatest of a number; None where no field has it."""
        query = sa.select(sa.func.min(_M.value), sa.func.max(_M.value)).where(_M.run == self._run, _M.name == name)
        ((low, high),) = self._rows(query)
        return low, high

    def without(self, name: str) -> int:
        """Fields of which a number is not known."""
        query = sa.select(sa.func.count()).where(_M.run == self._run, _M.name == name, _M.value.is_(None))
        ((count,),) = self._rows(query)
        return count

    def judged_exactly(self, name: str, unit: str, lower: float | None, upper: float | None) -> dict[str, int]:
        """As `judged`, of a number that is known exactly: its value alone decides.

        Args:
            name: the measurand.
            unit: of it and of the limits.
            lower: lower limit [unit]
            upper: upper limit [unit]
        """
        inside = [] if lower is None else [_M.value >= lower]
        inside += [] if upper is None else [_M.value <= upper]
        verdict = sa.case((_M.value.is_(None), "review"), (sa.and_(*inside), "OK"), else_="NG")
        query = sa.select(verdict.label("told"), sa.func.count().label("images")).where(
            _M.run == self._run, _M.name == name, _M.unit == unit
        )
        return {row.told: row.images for row in self._rows(query.group_by("told"))}
