"""Golden recipes at work on a lot: each image compared with its good part, what was found stored and drawn."""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
from waferlens.inspect.folder import OVERLAYS
from waferlens.inspect.overlay import write_overlay
from waferlens.inspect.plan import Item, Plan
from waferlens.recipe.golden import DieToDie
from waferlens.records import Image
from waferlens.store.rows import OK as MEASURED
from waferlens.store.rows import QUARANTINED, ImageResult, Number

KEPT = 8
"""References kept in memory: dies that follow one another share their neighbours."""
COLUMNS = (
    *("findings", "critical_findings", "deviation", "registration_score"),
    *("shift_x", "shift_y", "angle_deg", "gain", "offset"),
)


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
        """With `pair_by`, the references that lie beside the images are not inspected themselves."""
        if self.pair_by is None:
            return True
        return _key(os.path.basename(path), self.pair_by.split(":")[0]) is not None  # noqa: PTH119

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
                beside = _beside(around, (path, page)) if self.neighbours else None
                found = self.session.find(image, self._chosen(path, beside))
            except InputError as wrong:
                result.status = QUARANTINED
                result.reason = wrong.reason if wrong.path == path else str(wrong)
                continue
            _tell(result, found)
            if self.overlays and (found.findings or result.verdict != VERDICTS[OK]):
                name = f"{OVERLAYS}/{first + place:06d}_{Path(result.path).stem}.png"
                write_overlay(self.out / name, image, found)
        return made

    def _chosen(self, path: str, beside: Sequence[Item] | None) -> list[Reference]:
        """The references of an image; none where the bundle's own is meant."""
        if beside is not None:
            return [self._made(item) for item in beside]
        if self.reference is None and self.pair_by is None:
            return []
        return [self._made((str(self._paired(path)), 0))]

    def _paired(self, path: str) -> Path:
        """The file of an image's reference.

        Raises:
            InputError: it is not there.
        """
        if self.reference is not None and not self.reference.is_dir():
            return self.reference
        folder = Path(path).parent if self.reference is None else self.reference
        name = Path(path).name
        if self.pair_by is not None:
            ours, theirs = self.pair_by.split(":")
            key = _key(name, ours)
            if key is None:
                raise InputError(path, f"its name is not of the form {ours} that --pair-by gives")
            name = theirs.replace("{}", key)
        if not (folder / name).is_file():
            raise InputError(path, f"its reference {folder / name} is not there; see --pair-by")
        return folder / name

    def _made(self, item: Item) -> Reference:
        with self._lock:
            known = self._references.get(item)
            if known is not None:
                self._references.move_to_end(item)
                return known
        path, page = item
        image = _read(path, page)
        made = reference_of(self.session.recipe, image)
        with self._lock:
            self._references[item] = made
            while len(self._references) > KEPT:
                self._references.popitem(last=False)
        return made

    def _around(self, chunk: int, items: Sequence[Item]) -> list[Item]:
        """The images of this chunk and those next to it."""
        plan = self._plan
        assert plan is not None  # `require` comes before the first chunk
        before = plan.read(chunk - 1) if chunk > 0 else []
        after = plan.read(chunk + 1) if chunk + 1 < plan.chunks else []
        return [*before, *items, *after]


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
        parts = pair_by.split(":")
        if len(parts) != 2 or any(part.count("{}") != 1 for part in parts):
            raise UsageError(
                f"--pair-by {pair_by}: expected two names with {{}} in each, as {{}}_test.jpg:{{}}_temp.jpg"
            )
        if parts[0] == parts[1] and named is None:
            raise UsageError(f"--pair-by {pair_by}: makes every image its own reference")
    if session.reference is not None and (named is not None or pair_by is not None):
        # the threshold was set for the fitted template; with another reference its rate means nothing
        session = GoldenSession(session.recipe, session.recipe.threshold.factor)
    work = GoldenWork(session, out, named, pair_by, overlays)
    if named is not None and not named.is_dir():
        work._made((str(named), 0))  # a reference that cannot be used stops the run, not every image of it
    return work


def _beside(around: Sequence[Item], item: Item) -> list[Item]:
    """The neighbours of an image: one on each side, or the next two where a row begins or ends.

    A row is a folder, or the pages of one file.

    Raises:
        FormatError: the row has fewer than three.
    """
    at = around.index(item)
    same: Callable[[Item], bool]
    if around[at][1] > 0 or (at + 1 < len(around) and around[at + 1][0] == item[0]):
        same = lambda other: other[0] == item[0]  # noqa: E731
    else:
        folder = Path(item[0]).parent
        same = lambda other: Path(other[0]).parent == folder  # noqa: E731
    row = [place for place in range(len(around)) if same(around[place])]
    place = row.index(at)
    if 0 < place < len(row) - 1:
        chosen = row[place - 1], row[place + 1]
    elif len(row) < 3:
        raise FormatError(item[0], f"its row has {len(row)} dies; each is compared with two others")
    else:
        chosen = (row[1], row[2]) if place == 0 else (row[-2], row[-3])
    return [around[index] for index in chosen]


def _tell(result: ImageResult, found: Found) -> None:
    """Fills in a result with what was found."""
    compared = found.compared
    registration = compared.registration
    critical = [finding for finding in found.findings if finding.critical]
    result.findings = found.findings
    result.measurements = [("registration_score", _known(registration.score), "1", None, None)]
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


def _read(path: str, page: int) -> Image:
    for found in images.read_pages(path, range(page, page + 1)):
        if isinstance(found, FormatError):
            raise found
        return found
    raise FormatError(path, f"has no page {page}")


def _key(name: str, pattern: str) -> str | None:
    """What stands for `{}` in a name, or None if the name is of another form."""
    head, tail = pattern.split("{}")
    if len(name) < len(head) + len(tail) or not (name.startswith(head) and name.endswith(tail)):
        return None
    return name[len(head) : len(name) - len(tail)]


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
