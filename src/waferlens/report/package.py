"""A run of the package station as the page tells it: which devices are to be thrown out, looked at, passed, and why.

Devices are brought together from the results as `inspect` does it, so that a run that is not finished, or whose results
lie in another database, is told alike. The page lists and draws a bounded number of them, the worst first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from waferlens.bundle.verdict import VERDICTS
from waferlens.errors import InputError
from waferlens.formats.package_set import LIGHTS
from waferlens.inspect.folder import DATABASE, RUNCARD
from waferlens.inspect.package_devices import UNCLEAR, Device, Grouping, devices_of, named_light
from waferlens.ops.die_angle import interval_verdict
from waferlens.ops.illumination import NAMES
from waferlens.prepare.package_part import ROTATE
from waferlens.report import charts, package_charts, words
from waferlens.report.inspected import Inspected, told_by
from waferlens.report.package_cards import DeviceCard, make_card
from waferlens.report.queries import Results
from waferlens.store.results import Store

STATION = "package"
LISTED, DRAWN = 200, 24
"""Devices in the table, and with pictures; `devices.csv` has all of them."""
MARKED = 2500
"""Findings drawn over the package's outline."""
STRIPS = 240
"""Angles drawn one by one; of more devices, so many evenly by their rank."""
_RANK = {"NG": 0, "review": 1, "OK": 2}


@dataclass(frozen=True, slots=True)
class DeviceLine:
    """One device in the table."""

    name: str
    verdict: str
    why: str
    angle: str
    """With its interval; a dash where it was not measured."""
    glyph: Markup | None
    """The interval against the limits."""
    lights: str
    findings: int


@dataclass(frozen=True, slots=True)
class LightLine:
    """How many images were sorted to one light."""

    name: str
    images: int
    judged: bool
    """Whether the bundle judges images in it."""
    renamed: int
    """Images whose file names another light."""
    angle: bool = False
    """Whether the die's angle was measured in it."""


@dataclass(slots=True, kw_only=True)
class PackageLot(Inspected):
    """Everything the page says about one run of the package station."""

    device_counts: dict[str, int]
    """OK, review, NG: those that occur."""
    devices: int
    findings: dict[str, int]
    """By class, each once a device."""
    settings: list[tuple[str, str]]
    """How it judges: label and text."""
    promises: list[str]
    """What the limits of scores promise of good devices; empty where the bundle is not calibrated."""
    limit_deg: float | None
    lines: list[DeviceLine]
    angles: Markup | None
    angles_drawn: int
    """Devices the chart draws."""
    off_scale: int
    """Devices that lie beyond its scale."""
    measured: int
    """Devices whose angle was measured."""
    beyond: int
    """Devices whose whole interval is beyond the limit."""
    across: int
    """Devices whose interval lies across it."""
    places: Markup | None
    placed: int
    """Findings that have a place on the package."""
    marked: int
    """Those of them that are drawn."""
    sizes: Markup | None
    sized: tuple[str, str] | None
    """Median and greatest of their longer sides, but for turned dies."""
    lights: list[LightLine]
    cards: list[DeviceCard] = field(default_factory=list)

    @property
    def doubtful(self) -> int:
        """Devices that are not OK."""
        return self.devices - self.device_counts.get("OK", 0)


def read_package(folder: Path, card: dict[str, Any], store: str | None) -> PackageLot:
    """Everything the page says about a run of the package station.

    Args:
        folder: of the run.
        card: its run card.
        store: URL of the database with its results, where they are not in the folder.

    Raises:
        InputError: the results cannot be read, or the card is of another version.
    """
    place = store if store is not None else folder / DATABASE
    name = card["data"]["run"]
    with Results(place, name) as results:
        told = told_by(results, folder, card)
    try:
        recipe, options = card["recipe"], card["data"]["options"]
        known = recipe["input"]["lights"] if recipe["input"]["region"] == "roi" else None
        limit = None if recipe.get("angle") is None else float(recipe["angle"]["limit_deg"])
        grouping = Grouping.of(known, options.get("device"), options.get("lights"), limit if known else None)
        scores = card["data"].get("score_limits", {})
        least = min([float(recipe["findings"]["score"]), *(float(one["score_review"]) for one in scores.values())])
        settings = _settings(recipe, grouping, options, scores)
        promises = [_promise(kind, one) for kind, one in card["data"].get("promises", {}).items()]
    except (KeyError, TypeError, ValueError) as wrong:
        raise InputError(folder / RUNCARD, f"its recipe is none that this version reads: {wrong!r}") from wrong
    with Store(place) as database:
        (run,) = [number for number, one in database.runs().items() if one.name == name]
        devices = devices_of(database.images(run), grouping)
    worst = sorted(devices, key=_worst)
    angles = [one.angle for one in devices if one.angle is not None]
    states = Counter("" if limit is None else _state(angle, limit) for angle in angles)
    ends = package_charts.reach(angles, limit)
    found = sorted((pair for one in devices for pair in one.findings), key=lambda pair: -pair[1].score)
    there = [(finding.kind, finding.critical, finding.place) for _, finding in found if finding.place is not None]
    sides = [seen.package for one in devices for seen in one.images if seen.package is not None]
    unit = sides[0][2] if sides else "px"
    sides_told = [
        (max(finding.place.width, finding.place.height), finding.score)
        for _, finding in found
        if finding.place is not None and finding.kind != ROTATE
    ]
    outline = tuple(np.median([side[:2] for side in sides], axis=0).tolist()) if sides else None
    counts = Counter(one.verdict for one in devices)
    return PackageLot(
        **told,
        device_counts={verdict: counts[verdict] for verdict in VERDICTS.values() if counts[verdict]},
        devices=len(devices),
        findings=dict(Counter(finding.kind for _, finding in found).most_common()),
        settings=settings,
        promises=promises,
        limit_deg=limit,
        lines=[_line(one, limit, ends) for one in worst[:LISTED]],
        angles=_angles(angles, limit, ends),
        angles_drawn=min(len(angles), STRIPS),
        off_scale=sum(abs(value) > ends[1] for value, _, _ in angles),
        measured=len(angles),
        beyond=states["NG"],
        across=states["review"],
        places=None if outline is None else package_charts.places(outline, unit, there[:MARKED]),
        placed=len(there),
        marked=min(len(there), MARKED),
        sizes=package_charts.sizes(sides_told[:MARKED], least, unit) if sides_told else None,
        sized=_sized([side for side, _ in sides_told], unit) if sides_told else None,
        lights=_lights(devices, grouping),
        cards=[make_card(one, folder, told["root"]) for one in worst[:DRAWN] if one.verdict != "OK"],
    )


def _sized(sides: Sequence[float], unit: str) -> tuple[str, str]:
    return words.quantity(float(np.median(sides)), unit, 3), words.quantity(max(sides), unit, 3)


def _worst(device: Device) -> tuple[int, float, str]:
    """NG first, then review; of those the surest findings first."""
    score = max((finding.score for _, finding in device.findings), default=0.0)
    return _RANK[device.verdict], -score, device.name


def _line(device: Device, limit: float | None, ends: tuple[float, float]) -> DeviceLine:
    angle = device.angle or (None, None, None)
    glyph = None
    if limit is not None and angle[0] is not None:
        state = _state(angle, limit)
        glyph = charts.glyph(*angle, -limit, limit, ends, state)
    lights = [light for light in (*LIGHTS, UNCLEAR) if device.paths(light)]
    return DeviceLine(
        words.plain(device.name),
        device.verdict,
        words.plain(device.reason),
        words.NOTHING if angle[0] is None else words.told(*angle, "deg"),
        glyph,
        " ".join(lights),
        len(device.findings),
    )


def _state(angle: tuple[float, float, float], limit: float) -> str:
    """The verdict of an angle alone."""
    _, low, high = angle
    return interval_verdict(low, high, limit)


def _angles(
    angles: Sequence[tuple[float, float, float]], limit: float | None, ends: tuple[float, float]
) -> Markup | None:
    """The chart of angles; of many, some by their rank, the least and the greatest among them."""
    if not angles:
        return None
    told = sorted((angle, "" if limit is None else _state(angle, limit)) for angle in angles)
    drawn = np.linspace(0, len(told) - 1, min(len(told), STRIPS)).round().astype(int)
    return package_charts.strips([told[place] for place in drawn], limit, ends)


def _lights(devices: Sequence[Device], grouping: Grouping) -> list[LightLine]:
    counts, renamed, measured = Counter[str](), Counter[str](), set[str]()
    for device in devices:
        for one in device.images:
            counts[one.light] += 1
            renamed[one.light] += one.light in LIGHTS and named_light(one.path) not in (None, one.light)
            if one.angle is not None:
                measured.add(one.light)
    judged = LIGHTS if grouping.known is None else grouping.known
    lines = [
        LightLine(NAMES[light], counts[light], light in judged, renamed[light], light in measured)
        for light in LIGHTS
        if counts[light] or light in grouping.asked
    ]
    for light, name in ((UNCLEAR, "too near a limit to be sorted"), ("", "could not be read")):
        if counts[light]:
            lines.append(LightLine(name, counts[light], False, 0))
    return lines


def _promise(kind: str, told: dict[str, Any]) -> str:
    """What the limits of a class promise, in the words of the bundle's card."""
    alarms, review = told["false_alarms"], told["review"]
    most = words.number(1000 * float(alarms["upper"]), 2)
    return (
        f"{kind}: {alarms['alarmed']} of {told['good']} good devices were NG, with "
        f"{words.level(float(alarms['confidence']))} confidence at most {most} of 1,000 others will be; "
        f"{words.number(1000 * float(review['expected']), 2)} of 1,000 are expected to go to review or be NG."
    )


def _settings(
    recipe: dict[str, Any], grouping: Grouping, options: dict[str, Any], scores: dict[str, Any]
) -> list[tuple[str, str]]:
    """How devices are judged."""
    told = []
    for kind in recipe["target"]["classes"]:
        one = scores.get(kind)
        if one is not None:
            ng, review = (words.number(float(one[name]), 3) for name in ("score_ng", "score_review"))
            told.append((kind, f"NG from a score of {ng}, review from {review}"))
    if not scores:
        told.append(("a finding", f"a score of {float(recipe['findings']['score']):g} or more; not calibrated"))
    told.append(("classes", ", ".join(recipe["target"]["classes"])))
    if recipe.get("angle") is not None:
        angle = recipe["angle"]
        told.append(("die angle", f"at most {float(angle['limit_deg']):g}° against the {angle['datum']}"))
    if grouping.known is not None:
        told.append(("judged in", ", ".join(NAMES[light] for light in grouping.known)))
        if grouping.asked != grouping.known:
            told.append(("asked for", ", ".join(NAMES[light] for light in grouping.asked)))
    if grouping.pattern is not None:
        told.append(("device", f"what {grouping.pattern} finds in the path"))
    pixel = options.get("pixel_um")
    told.append(("pixel", "size not told: lengths in px" if pixel is None else f"{float(pixel):g}{words.THIN}µm"))
    return told
