"""What every inspected lot tells, whatever its station: its card, its counts, its rate and its quarantine."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from waferlens.errors import InputError
from waferlens.inspect.folder import LOG, RUNCARD
from waferlens.report.queries import Results
from waferlens.store.rows import QUARANTINED

QUARANTINE_ROWS = 40
REASONS = 12
_RATE = re.compile(r" done: \d+ images in [\d.]+ s, (\d+)/s")


@dataclass(slots=True, kw_only=True)
class Inspected:
    """What the page says about a run whatever its station."""

    station: str
    folder: str
    root: str
    """What all paths of the lot begin with."""
    card: dict[str, Any]
    images: int
    planned: int
    counts: dict[str, int]
    """OK, review, NG, measured (nothing to judge by), quarantined: those that occur."""
    rate: int | None
    """Images a second, of the run's last call."""
    quarantine: list[tuple[str, int, str]] = field(default_factory=list)
    quarantine_reasons: list[tuple[str, int]] = field(default_factory=list)


def read_card(folder: Path) -> dict[str, Any] | None:
    """The card of a run of inspection; None where the folder holds none.

    Raises:
        InputError: there is a card, and it cannot be read.
    """
    path = folder / RUNCARD
    if not path.is_file():
        return None
    try:
        card = json.loads(path.read_text("utf-8"))
        return card if card["kind"] == "inspect" and {"run", "options"} <= card["data"].keys() else None
    except (ValueError, KeyError, TypeError, AttributeError) as wrong:
        raise InputError(path, f"is no run card: {type(wrong).__name__}: {wrong}") from wrong
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}") from wrong


def station_of(card: dict[str, Any]) -> str:
    """Which station a run is of; cards of bundles without a recipe that says so are of the hole station."""
    recipe = card.get("recipe")
    return str(recipe.get("station", "hole")) if isinstance(recipe, dict) else "hole"


def told_by(results: Results, folder: Path, card: dict[str, Any]) -> dict[str, Any]:
    """What `Inspected` holds, to be handed on by name.

    Raises:
        InputError: the results cannot be read.
    """
    counts = _counts(results.counts())
    return {
        "station": station_of(card),
        "folder": str(folder),
        "root": _common(*results.first_and_last_path()),
        "card": card,
        "images": sum(counts.values()),
        "planned": int(card["data"].get("images", 0)),
        "counts": counts,
        "rate": _rate(folder / LOG),
        "quarantine": results.quarantined(QUARANTINE_ROWS),
        "quarantine_reasons": results.quarantine_reasons(REASONS),
    }


def _counts(found: dict[tuple[str, str], int]) -> dict[str, int]:
    counts = dict.fromkeys(("OK", "review", "NG", "measured", "quarantined"), 0)
    for (status, verdict), count in found.items():
        counts["quarantined" if status == QUARANTINED else verdict or "measured"] += count
    return {name: count for name, count in counts.items() if count}


def _common(first: str, last: str) -> str:
    """The folder all paths lie in: what the least and the greatest of them share."""
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    shared = "".join(letter for letter, _ in alike)
    return shared[: shared.rfind("/") + 1]


def _rate(log: Path) -> int | None:
    """Images a second of the last call that finished; its log is the only place that tells it of a resumed run."""
    if not log.is_file():
        return None
    found = _RATE.findall(log.read_text("utf-8", errors="replace"))
    return int(found[-1]) if found else None
