"""What `evaluate` says of a golden recipe: as lines for people, and as a folder with the overkill / escape curve."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from waferlens.evaluate.pictures import ACCENT, INK, write_evaluation


def golden_lines(result: Mapping[str, Any]) -> list[str]:
    """The result as a table for people."""
    count = result["images"]
    lines = [
        f"{result['bundle']} on {result['data']}: {count['good']} good, {count['twin']} twins, "
        f"{count['defective']} defective images"
    ]
    stated = result.get("stated")
    if stated and "images" in stated and "area_mm2" not in stated:
        lines.append(
            f"  stated: at most {_percent(stated['rate'])} of good images alarm; the true rate is expected between "
            f"{_percent(stated['low'])} and {_percent(stated['high'])} (90 %)"
        )
    elif stated:
        lines.append(
            f"  stated: at most {stated['rate']:.3g} false findings per mm²; the true rate is expected between "
            f"{stated['low']:.2g} and {stated['high']:.2g} (90 %)"
        )
    else:
        lines.append("  no rate of false alarms is stated: nothing was fitted to good images")
    for key, label in (("false_alarms", "good images that alarm"), ("false_alarms_twins", "twins that alarm")):
        if key in result:
            told = result[key]
            lines.append(f"  {label:<26} {told['alarmed']} of {told['images']}: {_interval(told, 'rate')}")
            area = told.get("findings_per_mm2")
            if area:
                lines.append(
                    f"  {'false findings':<26} {area['findings']} on {area['area_mm2']:.3g} mm²: "
                    f"{area['rate']:.2g} per mm² [{area['low']:.2g}, {area['high']:.2g}]"
                )
    if "escapes" in result:
        told = result["escapes"]
        lines.append(f"  {'escapes':<26} {told['escaped']} of {told['images']}: {_interval(told, 'share')}")
    for role, number in result["not_compared"].items():
        if number:
            lines.append(f"  not compared               {number} {role} images: no registration, or of another kind")
    for rule, told in result.get("located", {}).items():
        shown = ", ".join(
            f"{name} {_number(told[key])}"
            for key, name in (("f", "F"), ("precision", "precision"), ("recall", "recall"))
        )
        name = "overlap (IoU 0.33)" if rule == "iou_0.33" else "centre in the box"
        lines.append(f"  findings by {name:<18} {shown}")
    missed = (result.get("located") or {}).get("centre", {}).get("missed", {})
    if missed:
        each = (f"{kind} {told['missed']}/{told['of']}" for kind, told in missed.items())
        lines.append(f"  {'missed by class':<26} {', '.join(each)}")
    detection = result.get("detection")
    if detection:
        for contrast, told in (detection.get("a90_at_contrast_grey") or {}).items():
            bound = "not known" if told["a90_95_px"] is None else f"{told['a90_95_px']:.1f} px"
            size = "not reached" if told["a90_px"] is None else f"{told['a90_px']:.1f} px"
            lines.append(f"  {'found 9 times of 10':<26} at {contrast} grey from {size}, with 95 % confidence {bound}")
        if detection.get("why"):
            lines.append(f"  no detection curve         {detection['why']}")
    return lines


def write_golden(out: Path, result: Mapping[str, Any]) -> None:
    """Writes `evaluation.json`, and `curve.png` where good and defective images are known."""
    write_evaluation(out, result, [], {})
    curve = result.get("curve")
    if curve is None:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.8), layout="constrained")
    known = [place for place, value in enumerate(curve["threshold"]) if value]
    threshold = [curve["threshold"][place] for place in known]
    for name, colour, style in (("overkill", ACCENT, "-"), ("escape", "#b5472f", "--")):
        values = [100 * curve[name][place] for place in known]
        axes.step(threshold, values, style, color=colour, where="post", label=name)
    axes.axvline(1.0, color=INK, lw=0.8)
    axes.annotate("set", (1.0, 100), textcoords="offset points", xytext=(4, -10), color=INK, fontsize=8)
    axes.set(xscale="log", xlabel="threshold, in units of the one that is set", ylabel="share of images [%]")
    axes.set_ylim(-2, 102)
    axes.legend(frameon=False)
    figure.savefig(out / "curve.png", dpi=120)
    pyplot.close(figure)


def _interval(told: Mapping[str, Any], key: str) -> str:
    return f"{_percent(told[key])} [{_percent(told['low'])}, {_percent(told['high'])}]"


def _number(told: Mapping[str, Any]) -> str:
    """A figure with its interval; precision is not known where nothing was found."""
    if told["value"] is None:
        return "not known"
    interval = "" if told["low"] is None else f" [{told['low']:.3f}, {told['high']:.3f}]"
    return f"{told['value']:.3f}{interval}"


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %"
