"""What `evaluate` says of detections: as lines for people, and as a folder with its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from waferlens.evaluate.pictures import ACCENT, INK, write_evaluation

COLOURS = (ACCENT, "#b5472f", "#6b8e23", "#7a5ea8")
SIZES_PX = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Marked along an axis of sizes [px]"""


def detection_lines(result: Mapping[str, Any]) -> list[str]:
    """The result as a table for people."""
    devices, ends = result["devices"], result["intervals"]
    lines = [
        f"{devices['good']} good and {devices['defective']} defective devices, {result['images']} images: "
        f"{result['truths']} defects, {result['ignored']} marks to be ignored"
        + (f"; {devices['set_aside']} devices are neither" if devices["set_aside"] else ""),
        f"  {'mAP50':<26} {_number(result['map50'], ends['map50'])}",
        f"  {'mAP50:95':<26} {_number(result['map50_95'], ends['map50_95'])}",
    ]
    lines.append(f"  {'':<26} {'defects':>8}  {'AP50':<22} AP50:95")
    for part in ("classes", "types", "sizes"):
        for name, told in result[part].items():
            if told["truths"]:
                cells = (_number(told[key], told[f"{key}_interval"]) for key in ("ap50", "ap50_95"))
                lines.append(f"  {_label(part, name):<26} {told['truths']:>8}  {next(cells):<22} {next(cells)}")
    lines.append(f"  above {', '.join(f'{value:.3g} of {name}' for name, value in result['threshold'].items())}:")
    alarms = result["false_alarms"]
    for key, label, total in (
        ("capture_rate", "devices captured", devices["defective"]),
        ("escape_rate", "devices that escape", devices["defective"]),
        ("false_alarm_rate", "good devices that alarm", devices["good"]),
    ):
        if result[key] is not None:
            count = round(result[key] * total)
            lines.append(f"  {label:<26} {count} of {total}: {_share(result[key], ends[key])}")
    if alarms["devices"]:
        ends_1000 = [alarms["per_1000"][end] for end in ("low", "high")]
        lines.append(f"  {'  of 1,000':<26} {_number(alarms['per_1000']['value'], ends_1000, 1)}")
    if alarms["alarmed"]:
        lines.append(f"  {'  on marks to be ignored':<26} {alarms['on_ignored']} of {alarms['alarmed']}")
    for part in ("classes", "types"):
        for name, told in result[part].items():
            seen = told["capture"]
            whole = result["classes"].get(told.get("class", name), {}).get("capture")
            if seen is None or (part == "types" and seen == whole):  # the only type of its class
                continue
            interval = _share(seen["share"], [seen["low"], seen["high"]])
            label = f"  captured, {_label(part, name).strip()}"
            lines.append(f"  {label:<26} {seen['captured']} of {seen['devices']}: {interval}")
    lines += _beyond_lines(result["capture"], result["detection"]["devices"], "captured")
    if "capture_or_review" in result:
        lines += _beyond_lines(result["capture_or_review"], result["detection"]["devices"], "NG or review")
    lines += _pod_lines(result["detection"])
    lines.append(f"  {'errors at overlap 0.5':<26} {'number':>8}  AP50 to be gained")
    for name, told in result["errors"].items():
        count = "" if told["count"] is None else str(told["count"])
        gain = _number(told["ap50_gain"], told["ap50_gain_interval"])
        lines.append(f"  {name.replace('_', ' '):<26} {count:>8}  {gain}")
    return lines


def write_detections(out: Path, result: Mapping[str, Any]) -> None:
    """Writes `evaluation.json`, `curve.png` (overkill and escape) and `detection.png` (capture over size)."""
    write_evaluation(out, dict(result), [], {})
    curves = (result["detection"].get("at_contrast_grey") or {}) if result["detection"].get("model") else {}
    if result["curve"] is None and not curves:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    if result["curve"] is not None:
        figure, axes = pyplot.subplots(figsize=(6, 3.8), layout="constrained")
        curve = result["curve"]
        shown = [place for place, value in enumerate(curve["threshold"]) if value is not None]
        threshold = [curve["threshold"][place] for place in shown]
        for name, colour, style in (("overkill", COLOURS[0], "-"), ("escape", COLOURS[1], "--")):
            values = [100 * curve[name][place] for place in shown]
            axes.step(threshold, values, style, color=colour, where="post", label=name)
        first, value = next(iter(result["threshold"].items()))
        axes.axvline(value, color=INK, lw=0.8)
        axes.set(xlabel=f"threshold of {first}", ylabel="share of devices [%]", ylim=(-2, 102))
        axes.legend(frameon=False)
        figure.savefig(out / "curve.png", dpi=120)
        pyplot.close(figure)
    if curves:
        figure, axes = pyplot.subplots(figsize=(6, 3.8), layout="constrained")
        for place, (contrast, told) in enumerate(curves.items()):
            curve, colour = told["curve"], COLOURS[place % len(COLOURS)]
            axes.plot(curve["size_px"], curve["share"], color=colour, label=f"contrast {contrast} grey")
            axes.fill_between(curve["size_px"], curve["low"], curve["high"], color=colour, alpha=0.2, lw=0)
        axes.set(
            xscale="log", xlabel="size of the strongest defect [px]", ylabel="devices captured", ylim=(-0.02, 1.02)
        )
        low, high = axes.get_xlim()
        axes.set_xticks(ticks := [size for size in SIZES_PX if low <= size <= high], [f"{size:g}" for size in ticks])
        axes.minorticks_off()
        axes.legend(frameon=False)
        figure.savefig(out / "detection.png", dpi=120)
        pyplot.close(figure)


def _pod_lines(told: Mapping[str, Any]) -> list[str]:
    lines = []
    for contrast, at in (told.get("at_contrast_grey") or {}).items():
        bounds = [value for name, value in at.items() if name.startswith("a90_") and name != "a90_px"]
        bound = "not known" if bounds[0] is None else f"{bounds[0]:.1f} px"
        from_size = f"from {at['a90_px']:.1f} px, with confidence {bound}" if at["a90_px"] is not None else "at no size"
        lines.append(f"  {'captured 9 times of 10':<26} at {contrast} grey {from_size}")
    if told.get("why"):
        lines.append(f"  no curve of capture        {told['why']}")
    return lines


def _beyond_lines(told: Mapping[str, Any] | None, devices: int, verdict: str) -> list[str]:
    """What is captured, by whichever verdict, beyond a size and contrast, and below."""
    if told is None:
        return [f"  no size and contrast from which 99 % are {verdict} is borne by these devices"] if devices else []
    size = f"{told['size_px']:.3g} px" + (f" ({told['length_um']:.3g} um)" if "length_um" in told else "")
    lines = []
    for label, seen in ((f"beyond {size} and {told['contrast_grey']:.3g} grey", told), ("below", told["below"])):
        if seen["devices"]:
            share = _share(seen["share"], [seen["low"], seen["high"]])
            lines.append(f"  {verdict} {label}: {seen['captured']} of {seen['devices']}: {share}")
    return [*lines, f"    chosen on {told['chosen_on']} by {told['chosen_by']['by']}"] if lines else lines


def _label(part: str, name: str) -> str:
    return {"classes": f"class {name}", "types": f"  {name}", "sizes": f"size {name}"}[part]


def _number(value: float | None, ends: Sequence[float] | None, digits: int = 3) -> str:
    if value is None:
        return "not known"
    return f"{value:.{digits}f}" + ("" if ends is None else f" [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]")


def _share(value: float, ends: Sequence[float]) -> str:
    return f"{_percent(value)} [{_percent(ends[0])}, {_percent(ends[1])}]"


def _percent(share: float) -> str:
    """Two digits of what is near 0 or 100 %, where it matters."""
    percent = 100 * share
    if percent > 90 and percent < 100:
        return f"{100 - float(f'{100 - percent:.2g}'):.4g} %"
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %"
