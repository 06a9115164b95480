"""A golden recipe against known truth: false alarms on good parts, escapes, findings against defects, and what is
detected how surely.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import gammaincinv

from waferlens.bundle.golden import GoldenSession
from waferlens.bundle.reference import Reference, reference_of
from waferlens.errors import InputError, UsageError
from waferlens.evaluate.curves import fit_pod, overkill_escape
from waferlens.evaluate.findings import Judgement, false_alarm_rate, judge, pair_up
from waferlens.load.folder import read_image
from waferlens.load.judged import Judged, read_judged
from waferlens.recipe.golden import DieToDie
from waferlens.records import Finding

CONTRASTS_GREY = (10.0, 20.0, 40.0)
"""Contrasts at which the size that is detected nine times of ten is told [grey of 8 bits]"""
CURVE_POINTS = 101
"""Of the overkill / escape curve that is written out; the curve itself has a step at every image."""


@dataclass(slots=True)
class Seen:
    """One image, and what became of it."""

    image: Judged
    findings: list[Finding] = field(default_factory=list)
    level: float = math.nan
    """Greatest threshold at which it alarms, in units of the one that is set; infinite where it was not compared."""
    reason: str = ""
    """Why it was not compared."""
    full_scale: float = 255.0
    """Grey value of white."""
    area_mm2: float | None = None
    """Of the image; None where the pixel size is not known [mm²]"""

    @property
    def critical(self) -> list[Finding]:
        """The findings that count."""
        return [finding for finding in self.findings if finding.critical]


def evaluate_golden(
    session: GoldenSession,
    data: Path,
    *,
    stated: dict[str, Any] | None = None,
    reference: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Judges a golden recipe on images whose truth is known.

    Args:
        session: of the bundle.
        data: a folder as `load.judged` reads it.
        stated: the guarantee of the bundle, to be set beside what is observed.
        reference: a good image for all, for direct mode; that of the folder if None.
        progress: called with the images done and their total.

    Raises:
        InputError: the folder or the reference cannot be read. Images that cannot count as not compared.
        UsageError: there is nothing to compare with.
    """
    if isinstance(session.recipe.method, DieToDie):
        raise UsageError(
            f"{session.recipe.name} compares neighbours, and images of known truth lie in no row; "
            f"inspect rows of dies with it: waferlens inspect DIES --bundle {session.recipe.name} --out DIR"
        )
    images, shared = read_judged(data)
    chosen: list[Reference] = []
    if session.reference is not None and any(image.reference is not None for image in images):
        # as in `inspect`: with another reference than the fitted one, the fitted threshold promises nothing
        session, stated = GoldenSession(session.recipe, session.recipe.threshold.factor), None
    if session.reference is None and any(image.reference is None for image in images):
        path = reference if reference is not None else shared
        if path is None:
            raise UsageError(
                f"{session.recipe.name} was fitted to nothing, and {data} has no folder `reference`; name --reference"
            )
        chosen = [reference_of(session.recipe, read_image(path))]
    elif reference is not None:
        raise UsageError("--reference means nothing here: the bundle, or each image of the data, has a reference")
    seen = []
    for done, image in enumerate(images):
        seen.append(_seen(session, image, chosen))
        if progress is not None:
            progress(done + 1, len(images))
    return summary(seen, session.recipe.name, stated)


def _seen(session: GoldenSession, image: Judged, chosen: Sequence[Reference]) -> Seen:
    try:
        own = chosen if image.reference is None else [reference_of(session.recipe, read_image(image.reference))]
        picture = read_image(image.path)
        compared = session.compare(picture, own)
    except InputError as wrong:
        return Seen(image, level=math.inf, reason=wrong.reason)
    if compared.reason:
        return Seen(image, level=math.inf, reason=compared.reason)
    level = session.alarm_level(compared) / session.factor
    pixel_um = session.recipe.input.pixel_um or (picture.pixel_nm and picture.pixel_nm / 1000)
    area_mm2 = picture.pixels.size * pixel_um**2 * 1e-6 if pixel_um else None
    found = session.findings_at(compared, session.factor)
    return Seen(image, found, level, full_scale=picture.full_scale, area_mm2=area_mm2)


def summary(seen: Sequence[Seen], name: str, stated: dict[str, Any] | None = None) -> dict[str, Any]:
    """The figures of a set of images that were seen."""
    good = [one for one in seen if one.image.role == "good"]
    twins = [one for one in seen if one.image.role == "twin"]
    bad = [one for one in seen if one.image.role == "defective"]
    result: dict[str, Any] = {
        "recipe": name,
        "images": {"good": len(good), "twin": len(twins), "defective": len(bad)},
        "not_compared": {
            role: sum(bool(one.reason) for one in part)
            for role, part in (("good", good), ("twin", twins), ("defective", bad))
        },
        "why_not_compared": {str(one.image.path): one.reason for one in [*good, *twins, *bad] if one.reason},
        "stated": stated,
    }
    for key, part in (("false_alarms", good), ("false_alarms_twins", twins)):
        if part:
            alarmed = sum(bool(one.critical) or bool(one.reason) for one in part)
            told = false_alarm_rate(alarmed, len(part))
            result[key] = {
                "alarmed": alarmed,
                "images": len(part),
                "rate": told.value,
                "low": told.low,
                "high": told.high,
                "findings_per_image": sum(len(one.critical) for one in part) / len(part),
                "findings_per_mm2": _per_area(part, (stated or {}).get("bound")),
            }
    if bad:
        escaped = sum(not one.critical and not one.reason for one in bad)
        told = false_alarm_rate(escaped, len(bad))
        result["escapes"] = {
            "escaped": escaped,
            "images": len(bad),
            "share": told.value,
            "low": told.low,
            "high": told.high,
        }
    located = [one for one in bad if one.image.truth is not None]
    if located:
        found, truth = [one.critical for one in located], [one.image.truth or [] for one in located]
        groups = [one.image.group for one in located]
        result["located"] = {
            "iou_0.33": _told(judge(found, truth, groups, rule="iou", least_iou=0.33)),
            "centre": _told(judge(found, truth, groups, rule="centre")),
        }
        pod = _pod(located)
        if pod is not None:
            result["detection"] = pod
    judged_good = [*good, *twins]
    if judged_good and bad:
        curve = overkill_escape(np.array([one.level for one in judged_good]), np.array([one.level for one in bad]))
        places = np.unique(np.linspace(0, len(curve.threshold) - 1, CURVE_POINTS).astype(int))
        result["curve"] = {
            "threshold": [None if math.isinf(value) else float(value) for value in curve.threshold[places]],
            "overkill": curve.overkill[places].tolist(),
            "escape": curve.escape[places].tolist(),
        }
    return result


def _per_area(part: Sequence[Seen], bound: int | None) -> dict[str, float] | None:
    """Critical findings a square millimetre with their exact interval of 95 %, were they to fall independently.

    Source: F. Garwood, Biometrika 28 (1936) 437.
    """
    compared = [one for one in part if not one.reason]
    if not compared or any(one.area_mm2 is None for one in compared):
        return None
    area = sum(one.area_mm2 or 0.0 for one in compared)
    count = sum(len(one.critical) if bound is None else min(len(one.critical), bound) for one in compared)
    low = float(gammaincinv(count, 0.025)) if count else 0.0
    high = float(gammaincinv(count + 1, 0.975))
    return {"findings": count, "area_mm2": area, "rate": count / area, "low": low / area, "high": high / area}


def _told(judgement: Judgement) -> dict[str, Any]:
    told: dict[str, Any] = {
        key: {"value": part.value, "low": part.low, "high": part.high}
        for key in ("f", "precision", "recall", "false_alarms_per_image")
        for part in (getattr(judgement, key),)
    }
    told["truths"], told["found"] = judgement.truths, judgement.found
    told["missed"] = {
        kind: {"missed": missed, "of": total} for kind, (missed, total) in judgement.missed_counts.items()
    }
    return told


def _pod(located: Sequence[Seen]) -> dict[str, Any] | None:
    """Probability of detection against size and contrast, where the truth says them."""
    sizes, contrasts, hits, kinds = [], [], [], []
    for one in located:
        facts = one.image.facts
        if len(facts) != len(one.image.truth or []) or not all({"size_px", "contrast_grey"} <= set(f) for f in facts):
            return None
        matched, _ = pair_up(one.critical, one.image.truth or [], rule="centre")
        got = {int(place) for place in matched if place >= 0}
        for place, fact in enumerate(facts):
            sizes.append(float(fact["size_px"]))
            contrasts.append(abs(float(fact["contrast_grey"])))
            hits.append(place in got)
            kinds.append((one.image.truth or [])[place].kind)
    size, contrast, hit = np.array(sizes), np.array(contrasts), np.array(hits)
    told: dict[str, Any] = {
        "defects": len(hit),
        "found": int(hit.sum()),
        "by_kind": {
            kind: {"found": int(hit[chosen].sum()), "of": int(chosen.sum())}
            for kind in sorted(set(kinds))
            for chosen in (np.array([other == kind for other in kinds]),)
        },
    }
    try:
        fitted = fit_pod({"size": size, "contrast": contrast}, hit)
    except UsageError as wrong:
        return told | {"model": None, "why": str(wrong)}
    reach = {}
    for eight_bits in CONTRASTS_GREY:
        at = eight_bits * max(one.full_scale for one in located) / 255
        if contrast.min() <= at <= contrast.max():
            size_px, bound_px = fitted.reach("size", contrast=at)
            reach[f"{at:g}"] = {"a90_px": _finite(size_px), "a90_95_px": _finite(bound_px)}
    return told | {"model": "log-odds in log size and log contrast (MIL-HDBK-1823A)", "a90_at_contrast_grey": reach}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
