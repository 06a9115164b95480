"""A run of the golden station as the page tells it: what it promises, what was found, where, and on which images.

Nothing here grows with the lot: the database counts, findings stream by, and cards are a few.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup
from pydantic import ValidationError

from waferlens.errors import InputError
from waferlens.formats import images
from waferlens.inspect.folder import DATABASE, RUNCARD
from waferlens.recipe.golden import GoldenRecipe
from waferlens.report import pictures
from waferlens.report.distributions import Distribution, read_distributions
from waferlens.report.finding_cards import FindingCard, make_cards
from waferlens.report.finding_queries import FindingResults, Kind
from waferlens.report.inspected import REASONS, Inspected, told_by
from waferlens.report.places import Levels, Places, read_levels, read_places, read_shifts
from waferlens.report.promise import DIRECT, Promise, RuleLine, promise_of, rule_lines, settings_of
from waferlens.report.queries import Spread

STATION = "golden"
WORST, OTHERS = 4, 2
"""Images of the first kind of worst case, and of the others."""
NEAR = 1.5
"""How many times the threshold's own value an image may deviate, or fall short of it, to be called near to it."""
UNDECIDED_ROWS = 40
_TRIED = 20  # images that are looked at for the size of all
_KINDS_OF_REASON = 500  # kept while reasons are counted; what comes after is counted as one
_DRAWN = ("angle_deg", "registration_score", "gain", "offset")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(slots=True, kw_only=True)
class FindingsLot(Inspected):
    """Everything the page says about one run of the golden station."""

    recipe: GoldenRecipe
    promise: Promise
    settings: list[tuple[str, str]]
    """How it compares: label and text."""
    kinds: list[Kind]
    images_with: int
    """Images with a finding."""
    most_findings: int
    """On one image."""
    levels: Levels | None
    places: Places | None
    rules: list[RuleLine]
    shifts: Markup | None
    registration: list[Distribution]
    """Angle and score, and gain and offset where they were fitted."""
    worst: list[tuple[str, str, list[FindingCard]]] = field(default_factory=list)
    """Title, what it shows, and the cards."""
    undecided: list[tuple[int, str, int, str]] = field(default_factory=list)
    """Images that are `review`: item, path, page, reason."""
    undecided_reasons: list[tuple[str, int]] = field(default_factory=list)

    def findings(self, critical: bool | None = None, sense: str | None = None) -> int:
        """How many findings there are, of a kind."""
        return sum(
            kind.findings
            for kind in self.kinds
            if critical in (None, kind.critical) and sense in (None, kind.light_or_dark)
        )


def read_findings(folder: Path, card: dict[str, Any], store: str | None) -> FindingsLot:
    """Everything the page says about a run of the golden station.

    Args:
        folder: of the run.
        card: its run card.
        store: URL of the database with its results, where they are not in the folder.

    Raises:
        InputError: the results cannot be read, or the card is of another version.
    """
    try:
        recipe = GoldenRecipe.model_validate(card["recipe"])
    except ValidationError as wrong:
        raise InputError(folder / RUNCARD, f"its recipe is none that this version reads: {wrong}") from wrong
    with FindingResults(store if store is not None else folder / DATABASE, card["data"]["run"]) as results:
        told = told_by(results, folder, card)
        spreads = {spread.name: spread for spread in results.spreads()}
        kinds = results.kinds()
        promise = promise_of(card, recipe, told["images"] - told["counts"].get("quarantined", 0))
        images_with, most = results.with_findings()
        lot = FindingsLot(
            **told,
            recipe=recipe,
            promise=promise,
            settings=settings_of(recipe),
            kinds=kinds,
            images_with=images_with,
            most_findings=most,
            levels=read_levels(results, spreads.get("deviation")),
            places=read_places(results, kinds, *_ground(results, _one_scene(card, promise))),
            rules=rule_lines(recipe, results.decided()),
            shifts=read_shifts(results, spreads.get("shift_x"), spreads.get("shift_y")),
            registration=_registration(results, spreads, recipe),
            undecided=results.undecided(UNDECIDED_ROWS),
            undecided_reasons=_reasons(results),
        )
        _add_cards(lot, results, folder)
    return lot


def _one_scene(card: dict[str, Any], promise: Promise) -> bool:
    """Whether all images show the same, so that one of them can lie beneath the map of findings."""
    reference = card["data"]["options"].get("reference")
    if promise.mode != DIRECT:
        return True
    return reference is not None and card["data"]["options"].get("pair_by") is None and not Path(reference).is_dir()


def _ground(results: FindingResults, shown: bool) -> tuple[tuple[int, int] | None, str | None]:
    """Width and height of the images, and one of them as a picture, if any is still there."""
    for path, page in results.some_paths(_TRIED):
        try:
            found = next(iter(images.read_pages(path, range(page, page + 1))), None)
        except InputError:
            continue
        if found is None or isinstance(found, InputError):
            continue
        pixels = found.pixels
        stretch = pictures.span(pixels[:: max(1, pixels.shape[0] // 1000)].astype(float), 0.25)
        return (pixels.shape[1], pixels.shape[0]), pictures.photo(pixels, 420, stretch) if shown else None
    return None, None


def _registration(results: FindingResults, spreads: dict[str, Spread], recipe: GoldenRecipe) -> list[Distribution]:
    """What is drawn of how images were laid on their references; what the recipe leaves fixed is not."""
    fixed = set()
    if recipe.registration.motion in ("none", "shift"):
        fixed.add("angle_deg")
    if not recipe.photometry.gain_offset:
        fixed |= {"gain", "offset"}
    table = {one.name: one for one in read_distributions(results, []) if one.chart is not None}
    return [table[name] for name in _DRAWN if name in table and name in spreads and name not in fixed]


def _reasons(results: FindingResults) -> list[tuple[str, int]]:
    """Why images are `review`, most frequent first; numbers in a reason make no other reason of it."""
    counted: Counter[str] = Counter()
    for reason in results.why_undecided():
        kind = _NUMBER.sub("…", reason)
        counted[kind if kind in counted or len(counted) < _KINDS_OF_REASON else "other reasons"] += 1
    return counted.most_common(REASONS)


def _add_cards(lot: FindingsLot, results: FindingResults, folder: Path) -> None:
    picked: list[tuple[str, str, Sequence[int], int]] = [
        (
            "Farthest beyond the threshold",
            "NG by the greatest deviation, then by the number of critical findings",
            results.highest("deviation", "critical_findings", WORST),
            WORST,
        ),
        (
            "Most critical findings",
            "of those not shown above",
            results.highest("critical_findings", "deviation", WORST + OTHERS),
            OTHERS,
        ),
        (
            "Nearest to the threshold",
            "where a little more or less tolerance turns the verdict",
            results.about("deviation", NEAR, WORST + 2 * OTHERS),
            OTHERS,
        ),
        ("Not compared", "review, for the reason given", [item for item, *_ in lot.undecided[:OTHERS]], OTHERS),
    ]
    chosen: list[list[int]] = []
    shown: set[int] = set()
    for _, _, items, most in picked:
        fresh = [item for item in items if item not in shown][:most]
        shown.update(fresh)
        chosen.append(fresh)
    cards = make_cards(results, sorted(shown), folder, lot.root)
    lot.worst = [
        (title, what, [cards[item] for item in items if item in cards])
        for (title, what, _, _), items in zip(picked, chosen, strict=True)
    ]
