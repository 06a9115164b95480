"""The nouns of results: a run, an image of it, what was measured and found on it. They need no database to be made."""

from __future__ import annotations

from dataclasses import dataclass, field

from waferlens.records import Finding

OK, QUARANTINED = "ok", "quarantined"
"""The two things an image can become."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run of inspection was."""

    name: str
    started: str
    bundle: str
    fingerprint: str
    options: str
    version: str


Number = tuple[str, float | None, str, float | None, float | None]
"""Name, value, unit, low, high of a measurement."""


@dataclass(slots=True)
class ImageResult:
    """One image of the lot and what was found on it."""

    item: int
    path: str
    page: int
    status: str
    reason: str = ""
    verdict: str = ""
    verdict_reason: str = ""
    novelty: float | None = None
    chunk: int = 0
    map_file: str | None = None
    map_index: int | None = None
    measurements: list[Number] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    """What is known of it that is no number."""


@dataclass(frozen=True, slots=True)
class Found:
    """A finding with the image it stands on."""

    item: int
    path: str
    page: int
    verdict: str
    """Of the image."""
    finding: Finding
