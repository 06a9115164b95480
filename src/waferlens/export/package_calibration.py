"""Devices that a package network never saw, the calibration on them, and what its card says of that."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from waferlens import __version__
from waferlens.bundle.files import Bundle
from waferlens.bundle.package import PackageSession
from waferlens.bundle.package_calibration import PackageCalibration
from waferlens.evaluate.package_calibrate import fit_package_calibration
from waferlens.evaluate.package_truth import read_judged
from waferlens.load.package import facts_of
from waferlens.prepare.package_sides import side_of

SCORES = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Of which a card tells the probability."""


def never_seen(source: Path, card: dict[str, Any]) -> bool:
    """Whether a set was simulated from another seed than the one of a run card, so that no device is in both."""
    seeds = facts_of(source).get("seed"), card["data"].get("seed")
    return None not in seeds and seeds[0] != seeds[1]


def calibrated(
    session: PackageSession,
    bundle: Bundle,
    source: Path,
    whole: bool,
    show: Callable[[int, int], None] | None = None,
) -> PackageCalibration | str:
    """The calibration of what was exported, or why there is none.

    Args:
        session: Of the exported graph.
        bundle: The same, without calibration.
        source: Images with truth.
        whole: Whether none of its devices trained anything; else those of the calibration side are taken.
        show: Told how many images were looked at, of how many.

    Raises:
        InputError: the folder holds no such images.
    """
    judged = read_judged(source, session, bundle, lambda group: whole or side_of(source, group) == "calibration")
    grounds = {**facts_of(source), "split": "all" if whole else "calibration", "version": __version__}
    done = count(1)
    advance = (lambda _: None) if show is None else lambda _: show(next(done), judged.count)
    return fit_package_calibration(session, bundle, judged, grounds, advance)


def calibration_lines(told: PackageCalibration | str) -> list[str]:
    """What a calibration promises, as lines of a bundle's card."""
    if isinstance(told, str):
        return [f"- not calibrated: {told}"]
    grounds = told.data
    lines = [
        f"- calibrated on: {grounds['devices']} devices of `{grounds.get('world', grounds['folder'])}` that trained "
        f"nothing, {grounds['good']} good and {grounds['defective']} defective"
    ]
    for kind, limits in told.limits.items():
        promise = told.promises[kind]
        alarms, review = promise["false_alarms"], promise["review"]
        surely = f"{100 * alarms['confidence']:.0f} % confidence"
        lines += [
            f"- {kind} from a score of {limits.score_ng:.3f}: NG; {alarms['alarmed']} of {promise['good']} good "
            f"devices, at most {_of_1000(alarms['upper'])} others with {surely}"
            + ("" if alarms["kept"] else f" ({_of_1000(alarms['stated'])} is wanted: it takes more good devices)"),
            f"- {kind} from a score of {limits.score_review:.3f}: review; {review['sent']} of {promise['good']} good "
            f"devices, {_of_1000(review['expected'])} others with those that are NG"
            + ("" if review["kept"] else f" ({_of_1000(review['stated'])} is wanted)"),
        ]
        if kind in told.probabilities:
            shares = told.probabilities[kind](SCORES)
            said = ", ".join(f"{score:g}: {100 * share:.0f} %" for score, share in zip(SCORES, shares, strict=True))
            lines.append(f"- how likely a {kind} of a score is one, where as many devices are defective: {said}")
    for verdict, one in (("NG", told.capture), ("NG or review", told.capture_or_review)):
        if one is not None:
            lines.append(
                f"- {verdict} beyond {one['size_px']:.3g} px and {one['contrast_grey']:.3g} grey: {one['captured']} of "
                f"{one['devices']} devices that chose these numbers; `evaluate` tells it of others"
            )
    return lines


def _of_1000(share: float) -> str:
    return f"{1000 * share:.3g} of 1,000"
