"""How well does `golden-binary` find the defects of DeepPCB, each board against its own template?

    python benchmarks/golden_deeppcb.py [FOLDER] [--out result.json]     the two groups that tuned nothing
    python benchmarks/golden_deeppcb.py [FOLDER] --tune [--every 2]      choose parameters on the five others

FOLDER is DeepPCB (github.com/tangsanli5201/DeepPCB), by default `deeppcb` in $WAFERLENS_REAL_DATA. Nothing is trained.
Pairs of one board stay together: parameters of both contenders were chosen on the five groups of TUNED by `--tune`, and
are measured on the two of HELD_OUT.

The peer is the chain one would write oneself with OpenCV, in the same run: affine ECC, absolute difference, threshold,
opening, connected components, an area limit, padding. Both get images that are in memory; what is timed is everything
from there to the boxes. A pair whose registration is refused counts with all its defects as missed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from waferlens.bundle.golden import GoldenSession
from waferlens.bundle.reference import reference_of
from waferlens.errors import FormatError
from waferlens.evaluate.findings import Judgement, judge, pair_up
from waferlens.formats.deeppcb import Pair, read_pairs, read_truth
from waferlens.lab.bench import machine
from waferlens.load.folder import read_image
from waferlens.recipe import load_recipe
from waferlens.recipe.golden import GoldenRecipe
from waferlens.records import Finding, Image, Measurement

TUNED = ("group00041", "group20085", "group44000", "group50600", "group92000")
HELD_OUT = ("group13000", "group77000")
RULES = ("iou", "centre")
RECIPE = "golden-binary"
COMPARED = {
    "registration.local_px": (None, 48, 64, 96, 128),
    "method.compact_px": (3, 4),
    "method.position_px": (2, 3),
}
"""What `--tune` tries of the comparison, one field after the other."""
FOUND = {"min_area_px": (8, 10, 12, 16), "merge_px": (4, 6, 8, 12), "margin_px": (8, 10, 12)}
"""What it tries of the findings, all combinations."""
PLAIN = {"opening_px": (2, 3, 4, 5), "min_area_px": (5, 10, 15, 20, 30, 40), "padding_px": (8, 10, 12)}
"""What it tries of the peer, all combinations."""
PLAIN_TUNED = {"opening_px": 3, "min_area_px": 15, "padding_px": 10}

Boxes = list[Finding]


@dataclass
class Run:
    """What a contender did."""

    found: list[Boxes] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)


def plain(image: np.ndarray, template: np.ndarray, opening_px: int, min_area_px: int, padding_px: int) -> Boxes:
    """The chain of OpenCV's own functions.

    Raises:
        FormatError: ECC does not converge.
    """
    return plain_boxes(plain_difference(image, template), opening_px, min_area_px, padding_px)


def plain_difference(image: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Where the image differs from the registered template by more than half of black to white."""
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-5)
    try:
        _, matrix = cv2.findTransformECC(
            image, template, np.eye(2, 3, dtype=np.float32), cv2.MOTION_AFFINE, criteria, None, 5
        )
    except cv2.error as wrong:
        raise FormatError("ECC", str(wrong.err)) from wrong
    h, w = image.shape
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    laid = cv2.warpAffine(template, matrix, (w, h), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return cv2.threshold(cv2.absdiff(image, laid), 127, 255, cv2.THRESH_BINARY)[1]


def plain_boxes(different: np.ndarray, opening_px: int, min_area_px: int, padding_px: int) -> Boxes:
    opened = cv2.morphologyEx(different, cv2.MORPH_OPEN, np.ones((opening_px, opening_px), np.uint8))
    _, _, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    h, w = different.shape
    out = []
    for x, y, wide, high, area in stats[1:].tolist():
        if area >= min_area_px:
            x0, y0 = max(x - 0.5 - padding_px, -0.5), max(y - 0.5 - padding_px, -0.5)
            x1, y1 = min(x + wide - 0.5 + padding_px, w - 0.5), min(y + high - 0.5 + padding_px, h - 0.5)
            out.append(Finding("deviation", (x0, y0, x1, y1), 1.0, area, 0.0, "dark", True, ""))
    return out


def ours(session: GoldenSession, image: Image, template: Image) -> Boxes:
    """Direct mode, as `inspect --pair-by` runs it.

    Raises:
        FormatError: the pair cannot be compared.
    """
    found = session.find(image, [reference_of(session.recipe, template)])
    if found.compared.reason:
        raise FormatError(image.path, found.compared.reason)
    return [finding for finding in found.findings if finding.critical]


def run(pairs: Sequence[Pair], contenders: dict[str, Callable[[Image, Image], Boxes]]) -> dict[str, Run]:
    """Every contender on every pair, in turns."""
    runs = {name: Run() for name in contenders}
    for number, pair in enumerate(pairs):
        image, template = read_image(pair.test), read_image(pair.template)
        for name, find in contenders.items():
            if number == 0:
                find(image, template)  # compiled before the clock
            began = time.perf_counter()
            try:
                found = find(image, template)
            except FormatError as wrong:
                found, runs[name].refused[pair.name] = [], wrong.reason
            runs[name].seconds.append(time.perf_counter() - began)
            runs[name].found.append(found)
    return runs


def figures(pairs: Sequence[Pair], done: Run, rounds: int) -> dict[str, Any]:
    """A contender's figures by both rules."""
    truth = [read_truth(pair.truth) for pair in pairs]
    out: dict[str, Any] = {
        "ms_per_pair": {"median": round(1e3 * float(np.median(done.seconds)), 1)},
        "refused": done.refused,
    }
    for rule in RULES:
        # two groups are too few to draw anew: pairs are drawn, though those of a board resemble each other
        judged = judge(done.found, truth, rule=rule, rounds=rounds)
        out[rule] = _told(judged)
        by_group = {}
        for group in sorted({pair.group for pair in pairs}):
            some = [place for place, pair in enumerate(pairs) if pair.group == group]
            one = judge([done.found[place] for place in some], [truth[place] for place in some], rule=rule, rounds=100)
            by_group[group] = {"pairs": len(some), "f": round(float(one.f.value or 0), 4)}
        out[rule]["by_group"] = by_group
    return out


def _told(judged: Judgement) -> dict[str, Any]:
    def interval(told: Measurement) -> list[float | None]:
        return [None if end is None else round(float(end), 4) for end in (told.value, told.low, told.high)]

    return {
        "defects": judged.truths,
        "found": judged.found,
        "hits": judged.hits,
        "duplicates": judged.duplicates,
        **{name: interval(getattr(judged, name)) for name in ("f", "precision", "recall", "false_alarms_per_image")},
        "missed": {kind: list(counts) for kind, counts in judged.missed_counts.items()},
    }


def table(results: dict[str, dict[str, Any]]) -> Iterable[str]:
    """Lines of the table."""
    yield f"{'':22}{'F':>24}{'precision':>26}{'recall':>26}{'false alarms/image':>26}"
    for name, result in results.items():
        for rule in RULES:
            told = result[rule]
            cells = (told[what] for what in ("f", "precision", "recall", "false_alarms_per_image"))
            yield f"{name + ', ' + rule:22}" + "  ".join(f"{v:8.4f} [{a:.4f}, {b:.4f}]" for v, a, b in cells)
    for name, result in results.items():
        missed = ", ".join(f"{kind} {some} of {every}" for kind, (some, every) in result["iou"]["missed"].items())
        yield f"{name}: missed at IoU 0.33: {missed}"
        groups = ", ".join(
            f"{group} {told['f']:.4f} ({told['pairs']})" for group, told in result["iou"]["by_group"].items()
        )
        yield f"{name}: F at IoU 0.33 by group (pairs): {groups}"
        yield f"{name}: {len(result['refused'])} refused, {result['ms_per_pair']['median']} ms a pair (median)"


# ----------------------------------------------------------------------------------------------------------- tuning


def tune(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The parameters with the greatest sum of F at IoU 0.33 and F by centre."""
    loaded = [(read_image(pair.test), read_image(pair.template), read_truth(pair.truth)) for pair in pairs]
    chosen: dict[str, Any] = {name: values[0] for name, values in COMPARED.items()}
    best: tuple[float, ...] = ()
    findings: tuple[float, ...] = ()
    shipped = load_recipe(RECIPE)
    section = {part: getattr(shipped, part) for part in ("registration", "method")}
    chosen = {name: getattr(section[name.split(".")[0]], name.split(".")[1]) for name in COMPARED}
    tried: set[tuple[Any, ...]] = set()
    for name, values in COMPARED.items():
        for value in values:
            setting = chosen | {name: value}
            if (key := tuple(setting.values())) in tried:
                continue
            tried.add(key)
            scores = _ours_tried(loaded, setting)
            least = max(scores, key=lambda one: sum(scores[one]))
            print(f"{setting}: {dict(zip(FOUND, least, strict=True))} F {scores[least][0]:.4f}, {scores[least][1]:.4f}")
            if not best or sum(scores[least]) > sum(best):
                best, findings, chosen = scores[least], least, setting
    peer = _plain_tried(loaded)
    most = max(peer, key=lambda one: sum(peer[one]))
    return {
        "ours": chosen | {f"findings.{name}": value for name, value in zip(FOUND, findings, strict=True)},
        "f": [round(value, 4) for value in best],
        "opencv": dict(zip(PLAIN, most, strict=True)),
        "opencv_f": [round(value, 4) for value in peer[most]],
    }


def _ours_tried(loaded: Sequence[Any], setting: dict[str, Any]) -> dict[tuple[Any, ...], tuple[float, float]]:
    overrides = [f"{name}={'null' if value is None else value}" for name, value in setting.items()]
    recipes = {}
    for values in itertools.product(*FOUND.values()):
        more = [f"findings.{name}={value}" for name, value in zip(FOUND, values, strict=True)]
        recipes[values] = load_recipe(RECIPE, [*overrides, *more])
    counts = {values: np.zeros(4) for values in recipes}
    first = GoldenSession(next(iter(recipes.values())), 1.0)
    for image, template, truth in loaded:
        try:
            compared = first.compare(image, [reference_of(first.recipe, template)])
        except FormatError:
            compared = None
        for values, recipe in recipes.items():
            usable = compared is not None and compared.deviation is not None
            found = GoldenSession(recipe, 1.0).findings_at(compared, recipe.threshold.factor) if usable else []
            counts[values] += _counted(found, truth)
    return {values: _f(count) for values, count in counts.items()}


def _plain_tried(loaded: Sequence[Any]) -> dict[tuple[Any, ...], tuple[float, float]]:
    counts = {values: np.zeros(4) for values in itertools.product(*PLAIN.values())}
    for image, template, truth in loaded:
        try:
            different = plain_difference(image.pixels, template.pixels)
        except FormatError:
            different = np.zeros(image.pixels.shape, np.uint8)
        for values, count in counts.items():
            count += _counted(plain_boxes(different, *values), truth)
    return {values: _f(count) for values, count in counts.items()}


def _counted(found: Boxes, truth: Boxes) -> np.ndarray:
    hits = [int((pair_up(found, truth, rule=rule)[0] >= 0).sum()) for rule in RULES]  # type: ignore[arg-type]
    return np.array([len(truth), len(found), *hits], float)


def _f(count: np.ndarray) -> tuple[float, float]:
    return float(2 * count[2] / (count[0] + count[1])), float(2 * count[3] / (count[0] + count[1]))


def main() -> None:
    """Prints the table, and writes the JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--tune", action="store_true", help="on the five groups")
    parser.add_argument("--on-tuned", action="store_true", help="measure on the five groups, to look at errors")
    parser.add_argument("--every", type=int, default=1, help="every so many pairs only")
    parser.add_argument("--rounds", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--out", type=Path)
    told = parser.parse_args()
    root = os.environ.get("WAFERLENS_REAL_DATA")
    if told.folder is None and root is None:
        parser.error("name the folder of DeepPCB, or set WAFERLENS_REAL_DATA")
    groups = TUNED if told.tune or told.on_tuned else HELD_OUT
    pairs = [pair for pair in read_pairs(told.folder or Path(str(root)) / "deeppcb") if pair.group in groups]
    pairs = pairs[:: told.every]
    result: dict[str, Any] = {
        "question": "defects of DeepPCB, each board against its own template",
        "groups": groups,
        "pairs": len(pairs),
        "taken": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("waferlens", "numpy", "opencv-python-headless")},
        },
    }
    if told.tune:
        result |= tune(pairs)
        print(json.dumps(result, indent=2))
    else:
        recipe = load_recipe(RECIPE)
        assert isinstance(recipe, GoldenRecipe)
        session = GoldenSession(recipe, recipe.threshold.factor)
        done = run(
            pairs,
            {
                "waferlens": lambda image, template: ours(session, image, template),
                "opencv": lambda image, template: plain(image.pixels, template.pixels, **PLAIN_TUNED),
            },
        )
        result["results"] = {name: figures(pairs, one, told.rounds) for name, one in done.items()}
        seconds = {name: float(np.median(one.seconds)) for name, one in done.items()}
        result["time_ratio"] = round(seconds["waferlens"] / seconds["opencv"], 2)
        for line in table(result["results"]):
            print(line)
    if told.out is not None:
        told.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
