"""`waferlens evaluate`: a bundle against the truth, with baselines beside it."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from waferlens.cli.output import as_json, counted_progress, emit_json, make_folder, progress, say
from waferlens.errors import UsageError

if TYPE_CHECKING:
    from waferlens.bundle.files import Bundle

app = typer.Typer()

SPLITS = ("all", "train", "validation", "calibration", "test")


@app.command()
def evaluate(
    bundle: Annotated[str, typer.Argument(help="Path of a bundle, or the name of a shipped one.")],
    data: Annotated[Path, typer.Option(help="Folder in the challenge's layout; golden: good and defective images.")],
    split: Annotated[
        str, typer.Option(help="all, train, validation, calibration or test, by structure or site.")
    ] = "all",
    out: Annotated[Path | None, typer.Option(help="Also write evaluation.json and pictures here.")] = None,
    baselines: Annotated[bool, typer.Option(help="Fit and judge the shortcuts too.")] = True,
    reference: Annotated[
        Path | None, typer.Option(metavar="IMAGE", help="The good part of direct mode; golden.")
    ] = None,
    inputs: Annotated[
        str | None,
        typer.Option(metavar="image,product,track", help="What a wafer bundle is told; all it knows if not set."),
    ] = None,
    beyond: Annotated[
        str | None,
        typer.Option(metavar="PX,GREY", help="Tell capture of package defects of this length and contrast or more."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
) -> None:
    """Compare a bundle with what is known to be true: depth maps, heights, defects, angles.

    The truth of a simulated `real` data set is drawn again where WAFERLENS_EVAL_SEED holds its seed.
    """
    from waferlens.bundle.files import open_bundle

    if split not in SPLITS:
        raise UsageError(f"--split {split}: one of {', '.join(SPLITS)}")
    opened = open_bundle(bundle)
    if beyond is not None and opened.recipe.get("station") != "package":
        raise UsageError(f"--beyond means nothing to {opened.name}, a bundle of station {opened.recipe['station']}")
    least = None if beyond is None else _pair("--beyond", beyond)
    if out is not None:
        make_folder(out)
    if opened.recipe.get("station") == "golden":
        if split != "all":
            raise UsageError(f"--split {split} means nothing to {opened.name}: name a folder of images it never saw")
        _golden(opened, data, reference, out, json)
        return
    if reference is not None:
        raise UsageError(f"--reference means nothing to {opened.name}, a bundle of station {opened.recipe['station']}")
    if opened.recipe.get("station") == "wafer":
        if (opened.recipe.get("input") or {}).get("scene") == "nyu":
            if inputs is not None:
                raise UsageError(f"--inputs means nothing to {opened.name}: it is shown views and nothing else")
            _views(opened, data, split, out, json)
        else:
            _wafer(opened, data, split, inputs, baselines, out, json)
        return
    if inputs is not None:
        raise UsageError(f"--inputs means nothing to {opened.name}, a bundle of station {opened.recipe['station']}")
    if opened.recipe.get("station") == "package":
        _package(opened, data, split, least, out, json)
        return
    from waferlens.bundle.session import Session
    from waferlens.evaluate.hole import evaluate_pairs
    from waferlens.evaluate.sites import evaluate_sites, regenerated
    from waferlens.load.challenge import load_sim, scan
    from waferlens.prepare.splits import split_of

    session, calibration = Session(opened, threads=2), opened.calibration
    scale = (opened.recipe.get("depth") or {}).get("nm_per_grey")

    def keep(group: str) -> bool:
        return split in ("all", split_of(group))

    holes = scan(data)
    holes.real = [hole for hole in holes.real if keep(hole.site)]
    result: dict[str, Any] = {"bundle": opened.name, "data": data.name, "split": split}
    if any(hole.depth is not None for hole in holes.sim):
        pairs = load_sim(holes, keep=lambda hole: keep(hole.structure))
    else:
        pairs = regenerated(holes, keep)
    worst: list[dict[str, Any]] = []
    if pairs is not None:
        with progress(len(pairs.sem), "images", quiet=json) as advance:
            found = evaluate_pairs(
                session,
                calibration,
                pairs,
                nm_per_grey=scale,
                tolerances=_tolerances(opened.recipe),
                with_baselines=baselines,
                advance=advance,
            )
        result |= found.summary
        worst = found.worst
    if holes.real and scale is not None:
        with progress(len(holes.real), "images", quiet=json) as advance:
            result["sites"] = evaluate_sites(session, calibration, holes, scale, advance)
    elif holes.real:
        say(f"the sites of {data} are left out: they are told in nm, and the bundle's recipe has no depth.nm_per_grey")
    if pairs is None and "sites" not in result:
        raise UsageError(f"{data}: has neither depth maps nor site depths to compare {opened.name} with ({split})")
    if out is not None:
        from waferlens.evaluate.pictures import write_evaluation

        write_evaluation(out, result, worst, found.table if pairs is not None else {})
    if json:
        emit_json(result)
    else:
        for line in lines_of(result):
            print(line)
        if out is not None:
            say(f"written: {out}")


def _golden(opened: Bundle, data: Path, reference: Path | None, out: Path | None, json: bool) -> None:
    from waferlens.bundle.golden import golden_session
    from waferlens.evaluate.golden import evaluate_golden
    from waferlens.evaluate.golden_text import golden_lines, write_golden

    with counted_progress("images", quiet=json) as show:
        result = {"bundle": opened.name, "data": data.name} | evaluate_golden(
            golden_session(opened),
            data,
            stated=opened.threshold.get("guarantee"),
            reference=reference,
            progress=show,
        )
    if out is not None:
        write_golden(out, result)
    if json:
        emit_json(result)
        return
    for line in golden_lines(result):
        print(line)
    if out is not None:
        say(f"written: {out}")


def _wafer(
    opened: Bundle, data: Path, split: str, inputs: str | None, baselines: bool, out: Path | None, json: bool
) -> None:
    from waferlens.bundle.wafer import WaferSession
    from waferlens.evaluate.wafer import evaluate_wafer, inputs_of, wafer_lines
    from waferlens.evaluate.wafer_truth import count_judged, judged_fields
    from waferlens.prepare.splits import WAFER_FRACTIONS, split_of

    session = WaferSession(opened, threads=2)
    known = inputs_of(inputs, session)

    def keep(wafer: str) -> bool:
        return split in ("all", split_of(wafer, WAFER_FRACTIONS))

    with progress(count_judged(data, keep), "fields", quiet=json) as advance:
        told = evaluate_wafer(session, judged_fields(data, keep), known, baselines=baselines, advance=advance)
    result = {"bundle": opened.name, "data": data.name, "split": split} | told
    _told(result, wafer_lines(result), out, json)


def _views(opened: Bundle, data: Path, split: str, out: Path | None, json: bool) -> None:
    from waferlens.bundle.views import ViewSession
    from waferlens.evaluate.views import evaluate_views, view_lines
    from waferlens.formats.nyu import entries
    from waferlens.load.nyu import split as sides_of

    session, listed = ViewSession(opened, threads=2), entries(data)
    if split != "all":
        listed = dict(sides_of(listed, data)).get(split, [])  # type: ignore[call-overload]
        if not listed:
            raise UsageError(f"--split {split}: no view of {data} is on this side")
    with progress(len(listed), "views", quiet=json) as advance:
        result = {"bundle": opened.name, "data": data.name, "split": split} | evaluate_views(session, listed, advance)
    _told(result, view_lines(result), out, json)


def _pair(option: str, text: str) -> tuple[float, float]:
    """A length [px] and a contrast [grey] as they were typed."""
    from math import isfinite

    try:
        length, contrast = map(float, text.split(","))
    except ValueError:
        raise UsageError(f"{option} {text}: a length in px and a contrast in grey, such as 8,20") from None
    if not (isfinite(length) and isfinite(contrast) and length >= 0 and contrast >= 0):
        raise UsageError(f"{option} {text}: neither may be below 0 or infinite")
    return length, contrast


def _package(
    opened: Bundle, data: Path, split: str, beyond: tuple[float, float] | None, out: Path | None, json: bool
) -> None:
    from waferlens.bundle.package import PackageSession
    from waferlens.evaluate.detection_capture import Beyond
    from waferlens.evaluate.detections_text import detection_lines, write_detections
    from waferlens.evaluate.package import evaluate_package, package_lines
    from waferlens.evaluate.package_truth import read_judged
    from waferlens.prepare.package_sides import side_of

    def keep(group: str) -> bool:
        return split in ("all", side_of(data, group))

    session = PackageSession(opened, threads=2)
    judged = read_judged(data, session, opened, keep, every_light=True)
    with progress(judged.count, "images", quiet=json) as advance:
        stated = None if beyond is None else Beyond(*beyond, "statement")
        told = evaluate_package(session, opened, judged, advance, stated)
    result = {"bundle": opened.name, "data": data.name, "split": split} | told
    if out is not None:
        write_detections(out, result)
    _told(result, [*detection_lines(result), *package_lines(result)], out, json)


def _told(result: dict[str, Any], lines: list[str], out: Path | None, json: bool) -> None:
    """Writes a result and prints it, as JSON or as lines."""
    if out is not None:
        (out / "evaluation.json").write_text(dumps(as_json(result), indent=2, allow_nan=False) + "\n")
    if json:
        emit_json(result)
        return
    print(f"{result['bundle']} on {result['data']} ({result['split']})")
    for line in lines:
        print(line)
    if out is not None:
        say(f"written: {out}")


def _tolerances(recipe: dict[str, Any]) -> dict[str, float]:
    """Width of the two-sided limits a recipe gives, in px and grey; those in nm need the recipe's own scales."""
    import numpy as np

    from waferlens import units
    from waferlens.bundle.calibration import Interval
    from waferlens.inspect.scales import Scales, to_physical
    from waferlens.ops.hole import UNITS

    told = ((recipe.get("input") or {}).get("pixel_nm"), (recipe.get("depth") or {}).get("nm_per_grey"))
    scales = Scales(*(np.array([one], np.float64) for one in told))  # None becomes NaN
    one = Interval(*(np.ones(1) for _ in range(3)))
    physical = to_physical(dict.fromkeys(UNITS, one), scales)
    tolerances = {}
    for name, limit in (recipe.get("limits") or {}).items():
        if name not in UNITS or limit.get("low") is None or limit.get("high") is None:
            continue
        width, unit = limit["high"] - limit["low"], limit["unit"]
        if units.dimension(unit) == units.dimension(UNITS[name]):
            tolerances[name] = units.convert(width, unit, UNITS[name])
        elif physical[name].in_nm[0]:
            tolerances[name] = units.convert(width, unit, physical[name].unit_nm) / float(
                physical[name].interval.value[0]
            )
    return tolerances


def lines_of(result: dict[str, Any]) -> list[str]:
    """The result as a table for people."""
    lines = [f"{result['bundle']} on {result['data']} ({result['split']})"]
    if "rmse_255" in result:
        lines.append(f"{result['images']} images of {result['structures']} structures")
        for key, label in (
            ("rmse_255", "RMSE"),
            ("rmse_structure", "  structure part"),
            ("rmse_level", "  level part"),
            ("rmse_floor", "floor RMSE"),
        ):
            low, high = result[f"{key}_95"]
            lines.append(f"  {label:<22} {result[key]:7.3f} grey   95 % [{low:.3f}, {high:.3f}]")
        lines.append(f"  {'contour error':<22} {result['contour_error_px']:7.3f} px")
        inside = ", ".join(f"{level}: {value:.2f}" for level, value in result["within_level"].items())
        lines.append(f"  RMSE inside each level   {inside}")
        for key in ("coverage_90", "coverage_95", "coverage_99"):
            if result.get(key) is not None:
                lines.append(f"  pixel {key.replace('_', ' ')} %      {100 * result[key]:7.2f} %")
        for name, figures in result.items():
            if isinstance(figures, dict) and "interval_score" in figures and "slope" in figures:
                lines.append(f"  {name:<22} {_measurand_line(figures)}")
        for name, value in result.get("baselines", {}).items():
            lines.append(f"  baseline {name:<22} {value:7.3f} grey")
    if "sites" in result:
        sites = result["sites"]
        if not sites["sites"]:
            return [*lines, "no site has both a depth in the table and a measured hole"]
        lines.append(f"{sites['sites']} sites: {_site_line(sites)}, {100 * sites['out_of_domain']:.1f} % out of domain")
        lines += [f"  bucket {bucket}: {_site_line(figures)}" for bucket, figures in sites["within_bucket"].items()]
    return lines


def _measurand_line(figures: dict[str, Any]) -> str:
    kept = {
        key: value
        for key, value in figures.items()
        if isinstance(value, float) and not key.startswith("interval_score")
    }
    return ", ".join(f"{key} {value:.3g}" for key, value in kept.items())


def _site_line(figures: dict[str, Any]) -> str:
    return ", ".join(f"{key} {figures[key]:.3g}" for key in ("bias_nm", "rmse_nm", "slope") if figures[key] is not None)
