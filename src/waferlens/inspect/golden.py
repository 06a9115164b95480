"""Golden recipes at work on a lot: each image compared with its good part, what was found stored and drawn."""

from __future__ import annotations

import math
import os
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

from waferlens.bundle.files import Bundle
from waferlens.bundle.golden import Found, GoldenSession, golden_session
from waferlens.bundle.reference import Reference, reference_of
from waferlens.bundle.verdict import NG, OK, REVIEW, VERDICTS
from waferlens.errors import FormatError, InputError, UsageError
from waferlens.formats import images
from waferlens.inspect.decoded import decoded, printable
from waferlens.inspect.folder import OVERLAYS, overlay_name
from waferlens.inspect.overlay import write_overlay
from waferlens.inspect.plan import Item, Plan
from waferlens.load.folder import read_page
from waferlens.recipe.golden import DieToDie
from waferlens.recipe.pairing import forms_of, is_compared, reference_path
from waferlens.store.rows import OK as MEASURED
from waferlens.store.rows import QUARANTINED, ImageResult, Number

KEPT = 8
"""References kept in memory: dies that follow one another share their neighbours."""
COLUMNS = (
    *("findings", "critical_findings", "deviation", "registration_score"),
    *("shift_x", "shift_y", "angle_deg", "gain", "offset", "width", "height"),
)
BESIDE = 4
"""How far away a die looks for a neighbour where those next to it cannot be read."""


@dataclass
class GoldenWork:
    """What every chunk is worked on with; the threads share it."""

    session: GoldenSession
    out: Path
    reference: Path | None
    """A good image for all, or a folder of them."""
    pair_by: str | None
    """`{}_test.jpg:{}_temp.jpg`"""
    overlays: bool
    _plan: Plan | None = None
    _references: OrderedDict[tuple[str, int], Reference] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    chunk: ClassVar[int] = 16
    finds: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = COLUMNS

    @property
    def folders(self) -> tuple[str, ...]:
        return (OVERLAYS,) if self.overlays else ()

    @property
    def neighbours(self) -> bool:
        """Whether the images of the lot are each other's references."""
        return isinstance(self.session.recipe.method, DieToDie)

    def options(self) -> dict[str, Any]:
        """What the results depend on besides bundle and images; a run is only resumed with the same."""
        named = None if self.reference is None else str(self.reference)
        return {"reference": named, "pair_by": self.pair_by, "overlays": self.overlays}

    def takes(self, path: str) -> bool:
        """Whether an image of the lot is inspected: references that lie among the images are not."""
        if self.pair_by is not None:
            return is_compared(path, self.pair_by, elsewhere=self.reference is not None)
        if self.reference is None:
            return True
        where, reference = os.path.abspath(path), os.path.abspath(self.reference)  # noqa: PTH100 - as above
        return where != reference and not where.startswith(reference + os.sep)

    def require(self, plan: Plan) -> None:
        """Remembers the lot, in which neighbours are looked up.

        Raises:
            UsageError: dies are to be compared with their neighbours, and there are fewer than three.
        """
        if self.neighbours and plan.items < 3:
            raise UsageError(
                f"{self.session.recipe.name} compares each die with two others, got {plan.items} image"
                f"{'' if plan.items == 1 else 's'}; name at least three"
            )
        self._plan = plan

    def finish(self, plan: Plan, images: Iterable[ImageResult]) -> dict[str, list[dict[str, Any]]]:
        """Nothing: an image is done when its chunk is."""
        return {}

    def results(self, chunk: int, first: int, items: Sequence[Item]) -> list[ImageResult]:
        """Compares the images of one chunk.

        Args:
            chunk: its number.
            first: place of its first image in the lot.
            items: its images.

        Returns:
            One result an image, in order; images that cannot be compared at all are quarantined with their reason.

        Raises:
            InputError: an overlay cannot be written.
        """
        made = []
        around = self._around(chunk, items) if self.neighbours else []
        for place, ((path, page), image) in enumerate(zip(items, decoded(items), strict=True)):
            result = ImageResult(first + place, printable(path), page, MEASURED, chunk=chunk)
            made.append(result)
            try:
                if isinstance(image, InputError):
                    raise image
                chosen = self._neighbours(around, (path, page)) if self.neighbours else self._chosen(path, page)
                found = self.session.find(image, chosen)
            except InputError as wrong:
                result.status = QUARANTINED
                result.reason = wrong.reason if wrong.path == path else str(wrong)
                continue
            _tell(result, found)
            if self.overlays and found.findings:
                write_overlay(self.out / OVERLAYS / overlay_name(result.item, result.path), image, found)
        return made

    def _chosen(self, path: str, page: int) -> list[Reference]:
        """The reference of an image; none where the bundle's own is meant.

        Raises:
            InputError: it is not there, or cannot be used.
        """
        if self.reference is None and self.pair_by is None:
            return []
        paired = str(self._paired(path))
        # a stack is compared page by page with another stack, or with the one image of a file
        stack = page > 0 and images.count_pages(paired) > 1
        return [self._made((paired, page if stack else 0))]

    def _neighbours(self, around: Sequence[Item], item: Item) -> list[Reference]:
        """The nearest die on each side that can be used, or the next two where a row begins or ends.

        Raises:
            FormatError: the row has fewer than two others.
        """
        row = _row(around, item)
        place = row.index(item)
        before, after = self._usable(row[:place][::-1][:BESIDE]), self._usable(row[place + 1 :][:BESIDE])
        chosen = [*islice(before, 1), *islice(after, 1)]
        chosen += islice(chain(before, after), 2 - len(chosen))
        if len(chosen) < 2:
            others = f"{len(chosen)} die{'' if len(chosen) == 1 else 's'}"
            raise FormatError(item[0], f"has {others} beside it that can be used; each is compared with two others")
        return chosen

    def _usable(self, items: Sequence[Item]) -> Iterator[Reference]:
        for item in items:
            try:
                yield self._made(item)
            except InputError:  # told where it is inspected itself
                continue

    def _paired(self, path: str) -> Path:
        """The file of an image's reference.

        Raises:
            InputError: it is not there.
        """
        if self.reference is not None and not self.reference.is_dir():
            return self.reference
        return reference_path(path, self.pair_by, self.reference)

    def _made(self, item: Item) -> Reference:
        with self._lock:
            known = self._references.get(item)
            if known is not None:
                self._references.move_to_end(item)
                return known
        made = reference_of(self.session.recipe, read_page(*item))
        with self._lock:
            self._references[item] = made
            while len(self._references) > KEPT:
                self._references.popitem(last=False)
        return made

    def _around(self, chunk: int, items: Sequence[Item]) -> list[Item]:
        """The images of this chunk and those next to it."""
        plan = self._plan
        assert plan is not None  # `require` comes before the first chunk
        reach = -(-BESIDE // plan.chunk)
        numbers = range(max(0, chunk - reach), min(plan.chunks, chunk + reach + 1))
        return [item for number in numbers for item in (items if number == chunk else plan.read(number))]


def golden_work(
    bundle: Bundle,
    out: Path,
    *,
    overlays: bool,
    reference: str | Path | None = None,
    pair_by: str | None = None,
) -> GoldenWork:
    """The work of a golden bundle, its options checked.

    Raises:
        UsageError: an option is wrong, or there is nothing to compare with.
        InputError: the reference does not exist.
        BundleError: the bundle is none of a golden recipe.
    """
    session = golden_session(bundle)
    named = None if reference is None else Path(reference)
    if isinstance(session.recipe.method, DieToDie):
        if named is not None or pair_by is not None:
            raise UsageError(f"{bundle.name} compares neighbours with each other; leave out --reference and --pair-by")
    elif session.reference is None and named is None and pair_by is None:
        raise UsageError(
            f"{bundle.name} was fitted to nothing and has nothing to compare with; name --reference IMAGE or DIR, or "
            f"--pair-by, or fit it first: waferlens train {session.recipe.name} --data GOOD_DIR --out RUN"
        )
    if named is not None and not named.exists():
        raise InputError(named, "no such image or folder")
    if pair_by is not None:
        ours, theirs = forms_of(pair_by)
        if ours == theirs and named is None:
            raise UsageError(f"--pair-by {pair_by}: makes every image its own reference")
        if named is not None and not named.is_dir():
            raise UsageError(
                f"--pair-by {pair_by} gives each image a reference of its own, and --reference {named} is one for all; "
                "leave one of them out, or name the folder that the references lie in"
            )
    if session.reference is not None and (named is not None or pair_by is not None):
        # the threshold was set for the fitted template; with another reference its rate means nothing
        session = GoldenSession(session.recipe, session.recipe.threshold.factor)
    work = GoldenWork(session, out, named, pair_by, overlays)
    if named is not None and not named.is_dir():
        if images.count_pages(named) > 1:
            raise InputError(named, "has several pages, one image is needed as reference; save the page that is meant")
        work._made((str(named), 0))  # a reference that cannot be used stops the run, not every image of it
    return work


def _row(around: Sequence[Item], item: Item) -> list[Item]:
    """The dies that lie in a row with an image: those of its folder, or the pages of its file."""
    pages = Counter(path for path, _ in around)

    def of(one: Item) -> str:
        return one[0] if one[1] > 0 or pages[one[0]] > 1 else f"{os.path.dirname(one[0])}{os.sep}"  # noqa: PTH120

    wanted = of(item)
    return [one for one in around if of(one) == wanted]


def _tell(result: ImageResult, found: Found) -> None:
    """Fills in a result with what was found."""
    compared = found.compared
    registration = compared.registration
    critical = [finding for finding in found.findings if finding.critical]
    result.findings = found.findings
    h, w = compared.image.shape
    result.measurements = [
        ("registration_score", _known(registration.score), "1", None, None),
        ("width", float(w), "px", None, None),
        ("height", float(h), "px", None, None),
    ]
    if compared.reason:
        result.verdict, result.verdict_reason = VERDICTS[REVIEW], f"not compared: {compared.reason}"
        return
    dy, dx = registration.shift_px
    told: list[Number] = [
        ("findings", float(len(found.findings)), "1", None, None),
        ("critical_findings", float(len(critical)), "1", None, None),
        ("deviation", _known(found.level), "1", None, None),
        ("shift_x", _known(dx), "px", None, None),
        ("shift_y", _known(dy), "px", None, None),
        ("angle_deg", _known(registration.angle_deg), "deg", None, None),
        ("gain", _known(compared.gain), "1", None, None),
        ("offset", _known(compared.offset_grey), "grey", None, None),
    ]
    result.measurements += told
    if critical:
        worst = critical[0]
        x, y = (worst.box[0] + worst.box[2]) / 2, (worst.box[1] + worst.box[3]) / 2
        many = f"{len(critical)} critical finding{'' if len(critical) == 1 else 's'}"
        strongest = f"{worst.light_or_dark}, {worst.score:.2g} times the threshold at ({x:.0f}, {y:.0f}) px"
        result.verdict, result.verdict_reason = VERDICTS[NG], f"{many}, the strongest {strongest}"
    else:
        result.verdict = VERDICTS[OK]


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
