"""What the images of a device tell together: one verdict, one angle of the die, every finding once.

A device is photographed in several lights, and a bundle looks for defects in those it was trained on. The device is NG
where one of these images shows one, or where its die is turned; else `review` where either is in doubt, where one of
the lights that are asked for is missing or comes twice, or where an image could not be read or sorted; else OK. Of an
image in another light only the die's angle is measured.

How the angles of its images become one is told in `prepare.package_device`, where evaluation asks as well.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from waferlens.bundle.verdict import NG, OK, REVIEW, VERDICTS
from waferlens.errors import UsageError
from waferlens.formats.package_set import LIGHTS
from waferlens.prepare.label_splits import device_of
from waferlens.prepare.package_device import SeenAngle, device_angle
from waferlens.prepare.package_part import ROTATE
from waferlens.records import Finding, Place
from waferlens.store.rows import QUARANTINED, ImageResult

UNCLEAR = "unclear"
"""The light of an image that is too near a limit to be sorted."""
SAME_SHARE = 0.5
"""Share of the smaller of two findings in two lights that the other covers where both are one."""
_SUFFIX = re.compile(rf"[-_. ]({'|'.join(LIGHTS)})$", re.IGNORECASE)
_ORDER = (*LIGHTS, UNCLEAR, "")
Key = tuple[str, str]
"""Folder and name of a device; the folder is empty where a pattern finds its name."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One image of a device."""

    item: int
    path: str
    light: str
    """As sorted; `unclear`, or empty where it could not be read."""
    verdict: str
    reason: str
    inspected: bool
    """Whether its package was found and shown to the network."""
    defects: str
    """Its verdict but for the angle of the die."""
    defects_reason: str
    angle: tuple[float, float, float] | None
    """Of the die, and both ends of its interval [deg]"""
    package: tuple[float, float, str] | None
    """Width and height of the package's outline, and their unit."""
    findings: tuple[Finding, ...]
    """But for the turned die that its own angle tells."""
    turned: Finding | None
    """That one."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device with all its images."""

    name: str
    images: tuple[Seen, ...]
    """In the order of the lot."""
    verdict: str
    reason: str
    angle: tuple[float, float, float] | None
    """Of the die, as all images tell it, and both ends of its interval; None where none does [deg]"""
    angle_lights: str
    """In which it was measured, as `bf+dfw`."""
    best: Seen | None
    """The image that tells the angle with the narrowest interval; None where none does."""
    findings: tuple[tuple[Seen, Finding], ...]
    """Each once, with the image it is surest on, by falling score."""

    def paths(self, light: str) -> list[str]:
        """Its images in a light."""
        return [one.path for one in self.images if one.light == light]


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which images are of one device, and in which lights it is to be seen."""

    known: tuple[str, ...] | None
    """Lights the bundle was trained on; None where its network is shown whole images, in whatever light."""
    asked: tuple[str, ...]
    """In which lights a device is to be seen."""
    pattern: str | None = None
    """Regular expression that finds the device in the path of an image; None takes its name without the light."""
    lights: str | None = None
    """As they were asked for."""
    limit_deg: float | None = None
    """Greatest angle of a good die; None where it is not judged [deg]"""

    @classmethod
    def of(
        cls, known: Sequence[str] | None, pattern: str | None, lights: str | None, limit_deg: float | None = None
    ) -> Grouping:
        """What is asked for, checked.

        Args:
            known: lights the bundle was trained on; None where they do not matter.
            pattern: as the user gave it.
            lights: as the user gave them: `bf,dfw`.
            limit_deg: greatest angle of a good die; None where it is not judged [deg]

        Raises:
            UsageError: the pattern is none, or a light is not one of the bundle's.
        """
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as wrong:
                raise UsageError(f"--device {pattern!r} is no regular expression: {wrong}") from wrong
        if lights is None:
            return cls(None if known is None else tuple(known), tuple(known or ()), pattern, None, limit_deg)
        if known is None:
            raise UsageError(f"--lights {lights}: this network is shown whole images, in whatever light; leave it out")
        asked = tuple(dict.fromkeys(part.strip() for part in lights.split(",")))
        strange = [one for one in asked if one not in known]
        if strange:
            raise UsageError(f"--lights {lights}: the bundle does not know {strange[0]!r}; it knows {', '.join(known)}")
        return cls(tuple(known), asked, pattern, lights, limit_deg)

    def options(self) -> dict[str, Any]:
        """As a run's card has it."""
        return {"device": self.pattern, "lights": self.lights}

    def key(self, path: str) -> Key:
        """The device of an image.

        Raises:
            UsageError: the pattern is not found in the path.
        """
        if self.pattern is not None:
            return "", device_of(path, self.pattern)
        whole = PurePath(path)
        return str(whole.parent), _SUFFIX.sub("", whole.stem) or whole.stem

    def names(self, paths: Iterable[str]) -> list[str]:
        """The devices of a lot, in the order of their names.

        Raises:
            UsageError: the pattern is not found in a path.
        """
        return sorted(names_of({self.key(path) for path in paths}).values())

    def counts(self, seen: Seen) -> bool:
        """Whether an image has a say about defects: one in a light the bundle does not know has none."""
        return self.known is None or seen.light in (*self.known, UNCLEAR, "")


def named_light(path: str) -> str | None:
    """The light that an image's name tells; None where it tells none."""
    told = _SUFFIX.search(PurePath(path).stem)
    return None if told is None else told[1].lower()


def names_of(keys: Iterable[Key]) -> dict[Key, str]:
    """What devices are called: by their name, and with their folder where the lot lies in several."""
    keys = set(keys)
    if len({folder for folder, _ in keys}) <= 1:
        return {key: key[1] for key in keys}
    whole = {folder: str(Path(folder).absolute()) for folder, _ in keys}
    root = os.path.commonpath(list(whole.values()))
    return {(folder, name): PurePath(os.path.relpath(whole[folder], root), name).as_posix() for folder, name in keys}


def devices_of(images: Iterable[ImageResult], grouping: Grouping) -> list[Device]:
    """The devices of a lot, in the order of their names.

    Args:
        images: results of the lot, in its order.
        grouping: which belong together.

    Raises:
        UsageError: the pattern is not found in a path.
    """
    found: dict[Key, list[Seen]] = {}
    for image in images:
        found.setdefault(grouping.key(image.path), []).append(seen_of(image))
    names = names_of(found)
    return sorted((_device(names[key], seen, grouping) for key, seen in found.items()), key=lambda one: one.name)


def seen_of(image: ImageResult) -> Seen:
    """What a device needs of the results of an image."""
    numbers = {name: (value, low, high, unit) for name, value, unit, low, high in image.measurements}
    value, low, high, _ = numbers.get("die_angle", (None, None, None, ""))
    angle = None if value is None or low is None or high is None else (value, low, high)
    width, height = numbers.get("package_width"), numbers.get("package_height")
    package = None
    if width is not None and height is not None and width[0] is not None and height[0] is not None:
        package = width[0], height[0], width[3]
    readable = image.status != QUARANTINED
    verdict = image.verdict if readable else VERDICTS[REVIEW]
    reason = image.verdict_reason if readable else f"cannot be read: {image.reason}"
    inspected = "findings" in numbers
    defects, turned, own = list(image.findings), None, (verdict, reason)
    if "die_angle" in numbers:  # measured or not, it has a part in the image's verdict
        turned = next((one for one in defects if one.kind == ROTATE), None)
        defects = [one for one in defects if one.kind != ROTATE]
        worst = NG if any(one.critical for one in defects) else REVIEW if defects else OK
        own = (VERDICTS[worst], worst_of(defects)) if inspected else own
    return Seen(
        image.item,
        image.path,
        image.facts.get("light", ""),
        verdict,
        reason,
        inspected,
        *own,
        angle,
        package,
        tuple(defects),
        turned,
    )


def _device(name: str, images: Sequence[Seen], grouping: Grouping) -> Device:
    judged = [one for one in images if grouping.counts(one)]
    measured = [one for one in images if one.angle is not None]
    best = min(measured, key=_width, default=None)
    turned = device_angle([SeenAngle(one.light, *one.angle) for one in measured if one.angle], grouping.limit_deg)
    # where no image tells the angle, each says why itself
    said = [(one, one.defects, one.defects_reason) if measured else (one, one.verdict, one.reason) for one in judged]
    reasons = [f"{_called(one)}: {reason}" for one, verdict, reason in said if verdict == VERDICTS[NG]]
    doubts = [f"{_called(one)}: {reason}" for one, verdict, reason in said if verdict == VERDICTS[REVIEW]]
    verdict = NG if reasons else OK
    if turned.angle is not None and grouping.limit_deg is not None and turned.verdict != OK:
        verdict = max(verdict, turned.verdict)
        why = turned.doubt or angle_reason(turned.angle, grouping.limit_deg, turned.lights)
        (reasons if turned.verdict == NG else doubts).append(why)
    count = Counter(one.light for one in images)
    for light in grouping.asked:
        if count[light] == 0:
            others = [other for other in _ORDER if other and count[other]]
            doubts.append(f"no image in {light}" + (f", only in {', '.join(others)}" if others else ""))
    for light in grouping.known or ():
        if count[light] > 1:
            files = ", ".join(PurePath(one.path).name for one in images if one.light == light)
            doubts.append(f"{count[light]} images in {light}: {files}")
    verdict = max(verdict, REVIEW if doubts else OK)
    pairs = [(one, finding) for one in judged for finding in one.findings]
    if turned.verdict == NG:  # then at least one image's own interval lies outside the limit, too
        pairs += [(one, one.turned) for one in sorted(measured, key=_width) if one.turned is not None][:1]
    why = "; ".join([*reasons, *doubts])
    return Device(name, tuple(images), VERDICTS[verdict], why, turned.angle, turned.lights, best, distinct(pairs))


def distinct(found: Iterable[tuple[Seen, Finding]]) -> tuple[tuple[Seen, Finding], ...]:
    """The findings of a device, each once: of two of a kind in two images that cover each other, the surer one."""
    every = sorted(found, key=lambda pair: -pair[1].score)
    kept: list[tuple[Seen, Finding]] = []
    for seen, finding in every:
        again = any(
            other is not seen and finding.kind == known.kind and _covered(finding.place, known.place) >= SAME_SHARE
            for other, known in kept
        )
        if not again:
            kept.append((seen, finding))
    return tuple(kept)


def _covered(one: Place | None, other: Place | None) -> float:
    """Share of the smaller of two places that the other covers."""
    if one is None or other is None:
        return 0.0
    w = min(one.x + one.width / 2, other.x + other.width / 2) - max(one.x - one.width / 2, other.x - other.width / 2)
    h = min(one.y + one.height / 2, other.y + other.height / 2) - max(
        one.y - one.height / 2, other.y - other.height / 2
    )
    smaller = min(one.width * one.height, other.width * other.height)
    return w * h / smaller if w > 0 and h > 0 and smaller > 0 else 0.0


def _width(seen: Seen) -> tuple[float, int]:
    """Of the interval, and the light's place among lights where two are alike."""
    assert seen.angle is not None
    return seen.angle[2] - seen.angle[1], _ORDER.index(seen.light)


def worst_of(findings: Sequence[Finding]) -> str:
    """The finding that decides, in words; empty where there is none."""
    if not findings:
        return ""
    one = min(findings, key=lambda finding: not finding.critical)
    x0, y0, x1, y1 = one.box
    return f"{one.kind} {one.score:.2f} at ({(x0 + x1) / 2:.0f}, {(y0 + y1) / 2:.0f}) px"


def angle_reason(angle: tuple[float, float, float], limit_deg: float, lights: str = "") -> str:
    """An angle, its interval and its limit in words [deg]"""
    value, low, high = angle
    return f"die angle {value:.2f} deg ({low:.2f} to {high:.2f}){lights and f' in {lights}'}, limit {limit_deg:g}"


def _called(seen: Seen) -> str:
    return seen.light if seen.light in LIGHTS else PurePath(seen.path).name


COLUMNS = (
    *("device", "verdict", "verdict_reason", "die_angle_deg", "die_angle_deg_low", "die_angle_deg_high", "angle_light"),
    *("findings", *LIGHTS, "unsorted"),
)


def write_devices_csv(path: str | os.PathLike[str], devices: Iterable[Device]) -> None:
    """Writes a row a device, at once or not at all; several images in a light are set apart by `;`.

    Raises:
        InputError: the file cannot be written.
    """
    from waferlens.store.tables import digits, written  # only where used: a database takes a fifth of a second to load

    with written(path) as write:
        write(COLUMNS)
        for device in devices:
            angle = device.angle or (None, None, None)
            unsorted = [*device.paths(UNCLEAR), *device.paths("")]
            write(
                [
                    *(device.name, device.verdict, device.reason, *map(digits, angle)),
                    *(device.angle_lights, len(device.findings)),
                    *(";".join(paths) for paths in (*map(device.paths, LIGHTS), unsorted)),
                ]
            )


def machine_rows(devices: Iterable[Device]) -> list[dict[str, Any]]:
    """The same for `--json`."""
    rows = []
    for device in devices:
        value, low, high = device.angle or (None, None, None)
        rows.append(
            {
                "device": device.name,
                "verdict": device.verdict,
                "verdict_reason": device.reason,
                "images": {light: device.paths(light) for light in LIGHTS}
                | {"unsorted": [*device.paths(UNCLEAR), *device.paths("")]},
                "die_angle_deg": value,
                "die_angle_deg_low": low,
                "die_angle_deg_high": high,
                "angle_light": device.angle_lights or None,
                "findings": len(device.findings),
            }
        )
    return rows
