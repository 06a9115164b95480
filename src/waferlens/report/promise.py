"""What a golden run claims and how it judges: its rate of false alarms, its method and its sheet of rules, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from waferlens.bundle.rules import NO_RULE
from waferlens.ops.conformal import INTERVAL
from waferlens.recipe.golden import DieToDie, GoldenRecipe, Rule, Template, Wavelet
from waferlens.report import finding_charts, words

FITTED, DIRECT, DIE_TO_DIE = "fitted", "direct", "die-to-die"
_DIRECT_SAYS = (
    "Direct mode compares with one good image, and one image does not tell how good parts differ from one another: how "
    "often a good part would alarm is not known."
)
_REPEATERS = (
    "Repeaters are invisible to it: what every die has, the neighbours have as well. A defect of the mask, of a probe "
    "or of any other step that comes again on each die is not seen here; compare with a good part to see it."
)


@dataclass(frozen=True, slots=True)
class Promise:
    """What the run says about false alarms, and what it leaves unsaid."""

    mode: str
    """`fitted`, `direct` or `die-to-die`."""
    title: str
    chart: Markup | None
    sentences: tuple[str, ...]
    warning: str
    """What must not be overlooked; empty if nothing."""
    facts: tuple[tuple[str, str], ...]
    """Label and text: what the statement rests on."""


@dataclass(frozen=True, slots=True)
class RuleLine:
    """A rule of the sheet, and what it decided."""

    name: str
    critical: bool
    asks: str
    """What a finding has to be for it."""
    findings: int | None
    """None where a rule above has the same name and counts for both."""
    images: int | None


def promise_of(card: Mapping[str, Any], recipe: GoldenRecipe, images: int) -> Promise:
    """What a run promises.

    Args:
        card: of the run.
        recipe: its recipe.
        images: of the lot that were compared or could not be.
    """
    data = card["data"]
    options, threshold, calibration = data["options"], data.get("threshold") or {}, data.get("calibration") or {}
    own_reference = options.get("reference") is not None or options.get("pair_by") is not None
    train = "waferlens train RECIPE --data GOOD_DIR --out RUN"
    factor = f"The threshold is {words.exact(recipe.threshold.factor)} times what is tolerated, as the recipe says."
    if isinstance(recipe.method, DieToDie):
        told = ("Neighbours are compared without good parts, so how often a good die would alarm is not known.", factor)
        return Promise(DIE_TO_DIE, "No rate of false alarms is stated", None, told, _REPEATERS, ())
    if own_reference or not (calibration or threshold):
        told = (_DIRECT_SAYS, factor, f"For a stated rate, fit the recipe to good images: {train}")
        fitted = "The bundle was fitted, but its threshold holds for its own template; here it was not used."
        return Promise(
            DIRECT, "No rate of false alarms is stated", None, told, fitted if calibration or threshold else "", ()
        )
    return _fitted(recipe, threshold, calibration, images)


def _fitted(recipe: GoldenRecipe, threshold: Mapping[str, Any], calibration: Mapping[str, Any], images: int) -> Promise:
    facts = [
        ("template", _of_images(calibration.get("template"))),
        ("threshold set by", _of_images(calibration.get("calibration"))),
        ("data", str(calibration.get("folder", ""))),
        ("data sha256", str(calibration.get("images_sha256", ""))),
        ("threshold", f"{words.number(threshold['factor'])} × what is tolerated" if threshold.get("factor") else ""),
        ("set on", words.moment(str(threshold.get("set", "")))),
    ]
    known = tuple((label, told) for label, told in facts if told)
    guarantee = threshold.get("guarantee")
    if not threshold:
        told = ("This run's card does not carry the promise: it stands in the bundle, in calibration.json.",)
        return Promise(FITTED, "A rate may be stated, but not here", None, told, "", known)
    if not guarantee:
        told = (
            "The recipe asks for none (threshold.false_alarm_rate is null); the threshold is its own factor.",
            "For a stated rate, set threshold.false_alarm_rate and fit again.",
        )
        return Promise(FITTED, "No rate of false alarms is stated", None, told, "", known)
    rate, low, high = (float(guarantee[name]) for name in ("rate", "low", "high"))
    interval = words.level(INTERVAL)
    if "area_mm2" in guarantee:
        expected = float(guarantee["observed"])
        title = f"At most {words.exact(rate)} false findings per mm²"
        told = [
            f"{interval} interval of the true rate of this very threshold: {words.number(low, 2)} to "
            f"{words.number(high, 2)} per mm²; {words.number(expected, 2)} were observed on "
            f"{words.number(guarantee['area_mm2'], 3)}{words.THIN}mm² of good parts.",
        ]
        chart = finding_charts.rate(rate, expected, low, high, "1/mm²")
    else:
        expected = float(guarantee["mean"])
        title = f"At most {words.level(rate)} of good images alarm"
        told = [
            f"{interval} interval of the true rate of this very threshold: {words.percent(low, 2)} to "
            f"{words.percent(high, 2)}, expected {words.percent(expected, 2)}.",
            f"Were every one of these {words.count(images)} images good, {words.number(images * expected, 2)} would be "
            "expected to alarm: to have a critical finding, or not to be comparable at all.",
        ]
        chart = finding_charts.rate(100 * rate, 100 * expected, 100 * low, 100 * high, "%")
    told.append(
        "It holds on average over calibrations, for images taken like the good ones: same product, tool and settings. "
        "It says nothing about which defects are found."
    )
    return Promise(FITTED, title, chart, tuple(told), "", known)


def settings_of(recipe: GoldenRecipe) -> list[tuple[str, str]]:
    """How the recipe compares: label and text of each part."""
    spec, found, areas = recipe.registration, recipe.findings, recipe.areas
    turned = "" if spec.motion in ("none", "shift") else f", turned up to {words.exact(spec.max_angle_deg)}°"
    shifted = "" if spec.max_shift_px is None else f", shifted up to {words.exact(spec.max_shift_px)}{words.THIN}px"
    moved = "not moved" if spec.motion == "none" else f"{spec.motion}{shifted}{turned}"
    pieces = [f"at least {found.min_area_px}{words.THIN}px²"]
    if found.opening_px > 1:
        pieces.append(f"a square of {found.opening_px}{words.THIN}px fits in")
    if found.merge_px:
        pieces.append(f"merged across {found.merge_px}{words.THIN}px")
    if found.margin_px:
        pieces.append(f"boxes {words.exact(found.margin_px)}{words.THIN}px wider")
    where = [f"inside {len(areas.care)} boxes" if areas.care else "everywhere"]
    if areas.ignore:
        where.append(f"outside {len(areas.ignore)} boxes")
    if areas.border_px:
        where.append(f"not in the outer {words.exact(areas.border_px)}{words.THIN}px")
    matched = "one gain and one offset an image" if recipe.photometry.gain_offset else "as it is"
    scale = recipe.input.pixel_um
    return [
        ("tolerated", _tolerated(recipe)),
        ("registration", f"{moved}; refused below a correlation of {words.exact(spec.min_score)}, or "
                         f"{words.level(spec.min_overlap)} of overlap"),
        ("brightness", matched),
        ("a finding", ", ".join(pieces)),
        ("looked at", ", ".join(where)),
        ("pixel size", "where the files say it; lengths here are in px" if scale is None
                       else f"{words.exact(scale)}{words.THIN}µm, from the recipe; lengths here are in px"),
    ]  # fmt: skip


def rule_lines(recipe: GoldenRecipe, decided: Mapping[tuple[str, bool], tuple[int, int]]) -> list[RuleLine]:
    """The sheet in its order, and last what no rule fitted; empty where a recipe has no rules."""
    if not recipe.rules:
        return []
    lines, told = [], set()
    for rule in recipe.rules:
        key = (rule.name, rule.critical)
        findings, images = (None, None) if key in told else decided.get(key, (0, 0))
        told.add(key)
        lines.append(RuleLine(rule.name, rule.critical, _asks(rule), findings, images))
    findings, images = decided.get((NO_RULE, True), (0, 0))
    return [*lines, RuleLine(NO_RULE, True, "what fits none of these", findings, images)]


def _tolerated(recipe: GoldenRecipe) -> str:
    match recipe.method:
        case Template() as method:
            light, dark = words.exact(method.sigmas_light), words.exact(method.sigmas_dark)
            each = f"{light} σ" if light == dark else f"{light} σ light, {dark} σ dark"
            return f"{each}, at least {_floor(method.contrast_fraction, method.position_px)}"
        case DieToDie() as method:
            floor = _floor(method.contrast_fraction, method.position_px)
            return f"{words.exact(method.sigmas)} σ, at least {floor}; from both neighbours in the same sense"
        case Wavelet() as method:
            rows, columns = method.sub_images
            return (
                f"wavelet energy of {method.levels} scales in {rows} × {columns} parts of the image, above mean + "
                f"{words.exact(method.sigmas)} σ of the good part's"
            )


def _floor(fraction: float, position_px: float) -> str:
    edges = f", and edges off by {words.exact(position_px)}{words.THIN}px" if position_px else ""
    return f"{words.level(fraction)} of the reference's range{edges}"


def _asks(rule: Rule) -> str:
    parts = [
        _between("area", rule.min_area_px, rule.max_area_px, f"{words.THIN}px²"),
        _between("contrast", rule.min_contrast_grey, rule.max_contrast_grey, f"{words.THIN}grey"),
        _between("long to short side", rule.min_elongation, rule.max_elongation, ""),
        f"{rule.light_or_dark} only" if rule.light_or_dark else "",
        f"centre in {len(rule.inside)} {'box' if len(rule.inside) == 1 else 'boxes'}" if rule.inside else "",
    ]
    return ", ".join(part for part in parts if part) or "any"


def _between(what: str, low: float | None, high: float | None, unit: str) -> str:
    if low is None and high is None:
        return ""
    if high is None:
        return f"{what} ≥ {words.exact(low)}{unit}"
    return (
        f"{what} ≤ {words.exact(high)}{unit}"
        if low is None
        else f"{what} {words.exact(low)} to {words.exact(high)}{unit}"
    )


def _of_images(count: object) -> str:
    return f"{words.count(count)} good images" if isinstance(count, int) and count else ""
