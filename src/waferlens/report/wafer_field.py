"""One map of the wafer station as the page tells it: key numbers, maps, surface, a scan line, dies, focus, sites.

Colours of height, sigma and error are the same for all maps of a page, so that any two compare. A long map is shown
whole in lines, and a part of it large; the part is the same in every picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from waferlens.errors import InputError
from waferlens.report import pictures, relief, wafer_charts, wafer_grids, words
from waferlens.report.pictures import Scale
from waferlens.report.wafer_boxes import Boxes, die_boxes, focus_boxes, site_boxes
from waferlens.report.wafer_files import MapFiles, read_map_files
from waferlens.report.wafer_frame import LONG, Frame, frame_of
from waferlens.report.wafer_grids import Grids, Part
from waferlens.report.wafer_scan import Line, choose_line, shown_part

WIDE, HALF, SIDE, NARROW = 1120, 540, 380, 290
"""Units of drawings that take the width of the page, half of it, a third, and a quarter."""
ERROR = "mean error"
LINE_PX = 1100
"""Pixels of a line of a folded map."""
Numbers = Mapping[str, tuple[float | None, str, float | None, float | None]]
"""Value, unit, low and high by name, as the results have them."""


@dataclass(frozen=True, slots=True)
class Scales:
    """Colours that all maps of a page share."""

    height: Scale
    sigma: Scale | None
    error: Scale | None


@dataclass(frozen=True, slots=True)
class Panel:
    """A map with its title and its colours."""

    title: str
    chart: Markup
    scale: Scale | None
    note: str = ""


@dataclass(slots=True, kw_only=True)
class FieldPage:
    """Everything the page says about one map."""

    anchor: str
    title: str
    path: str
    verdict: str = ""
    why: str = ""
    """Why it is not OK."""
    key: list[tuple[str, str, str]]
    """Label, number, and what is said small behind it."""
    about: list[tuple[str, str]] = field(default_factory=list)
    overview: list[Panel] = field(default_factory=list)
    """Of a long map."""
    maps: list[Panel] = field(default_factory=list)
    part: str = ""
    """Which part of a long map is shown large."""
    relief: Markup | None = None
    exaggeration: int = 1
    profile: Markup | None = None
    profile_told: str = ""
    profile_keys: list[tuple[str, str]] = field(default_factory=list)
    """Class and word of what is drawn along the line."""
    long: bool = False
    dies: Boxes | None = None
    focus: Boxes | None = None
    sites: Boxes | None = None
    stitch: dict[str, Any] | None = None
    mpx_per_s: float | None = None
    mae_um: float | None = None
    remarks: list[str] = field(default_factory=list)
    """What could not be shown, and why."""


def scales_of(folders: Sequence[Path], low_um: float | None, high_um: float | None) -> Scales:
    """The colours of some maps, from a few rows of each.

    Args:
        folders: of the maps; those that cannot be read count for nothing.
        low_um: lowest of the heights, as the results tell it [um]
        high_um: highest [um]
    """
    sigmas: list[float] = []
    errors: list[float] = []
    for folder in folders:
        try:
            files = read_map_files(folder)
            with Grids(folder, files.truth) as grids:
                if grids.sigma is not None and (known := wafer_grids.samples(grids.sigma)).size:
                    sigmas.append(float(np.quantile(known, 0.99)))
                if grids.truth is not None and (away := wafer_grids.samples(grids.height, grids.truth)).size:
                    errors.append(float(np.quantile(np.abs(away), 0.98)))
        except InputError:
            continue  # its own page says so
    low = 0.0 if low_um is None else low_um
    high = low + 1.0 if high_um is None or high_um <= low else high_um
    return Scales(
        Scale("height", low, high, "um", "height"),
        Scale("sigma", 0.0, max(sigmas) or 1.0, "um", "sigma") if sigmas else None,
        Scale("error", -(max(errors) or 1.0), max(errors) or 1.0, "um", "signed") if errors else None,
    )


def make_field(folder: Path, anchor: str, path: str, numbers: Numbers, scales: Scales) -> FieldPage:
    """One map; what cannot be read is said on its page.

    Args:
        folder: of the map.
        anchor: its place on the page.
        path: of the image it was made from, as it is told.
        numbers: of the results; empty for the map of all swaths.
        scales: colours that all maps share.
    """
    page = FieldPage(anchor=anchor, title=words.file_name(path), path=words.plain(path), key=key_numbers(numbers))
    try:
        files = read_map_files(folder)
        if not numbers:
            page.key = key_numbers(_numbers_of(files))
        with Grids(folder, files.truth) as grids:
            _fill(page, files, grids, scales)
            page.remarks += map(words.plain, grids.remarks)
    except InputError as wrong:
        page.remarks.append(f"the map cannot be shown: {words.plain(wrong.reason)}")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as wrong:  # JSON of another form
        page.remarks.append(f"what its files tell is not of a map: {type(wrong).__name__}: {words.plain(wrong)}")
    return page


def key_numbers(numbers: Numbers) -> list[tuple[str, str, str]]:
    """The numbers an engineer looks for first."""
    told: list[tuple[str, str, str]] = []
    if "top" in numbers:
        value, unit, _, high = numbers["top"]
        bound = "" if high is None else f"at most {words.quantity(high, unit, 4)}"
        told.append(("top", words.quantity(value, unit, 4), bound if value is not None else "no height is known"))
    if "safe" in numbers:
        value, unit, *_ = numbers["safe"]
        told.append(("safe height", words.quantity(value, unit, 4), "" if value is not None else "no bound is known"))
    counts = {
        name: numbers[f"dies_{name}"][0] for name in ("present", "missing", "unsure") if f"dies_{name}" in numbers
    }
    sites = sum(int(count) for count in counts.values() if count is not None)
    for name in ("missing", "unsure"):
        if counts.get(name) is not None:
            told.append((f"dies {name}", words.count(int(counts[name] or 0)), f"of {words.count(sites)} sites"))
    if numbers.get("known_share", (None,))[0] is not None:
        told.append(("of the map known", words.percent(numbers["known_share"][0], 4), ""))
    if numbers.get("focus_positions", (None,))[0] is not None:
        told.append(("positions of focus", words.count(int(numbers["focus_positions"][0] or 0)), ""))
    return told


def _numbers_of(files: MapFiles) -> Numbers:
    """What the files of a map tell that has no row in the results: that of all swaths together."""
    numbers: dict[str, tuple[float | None, str, float | None, float | None]] = {}
    if files.focus is not None:
        safe = [one["safe_um"] for one in files.focus["fields"] if one["safe_um"] is not None]
        numbers["safe"] = (max(safe, default=None), "um", None, None)
        numbers["focus_positions"] = (sum(len(one["slices_um"]) for one in files.focus["fields"]), "1", None, None)
    if files.dies is not None:
        for state in ("present", "missing", "unsure"):
            numbers[f"dies_{state}"] = (sum(one["state"] == state for one in files.dies), "1", None, None)
    if files.stitch is not None:
        numbers["known_share"] = (files.stitch.get("known_share"), "1", None, None)
    return numbers


def _fill(page: FieldPage, files: MapFiles, grids: Grids, scales: Scales) -> None:
    h, w = grids.shape
    pitch = files.pitch_um
    page.long, page.stitch = w > LONG * h, files.stitch
    page.mpx_per_s = files.field.get("mpx_per_s")
    page.about = _about(files, (h, w))
    line = choose_line(files.dies, (h, w), pitch)
    part = shown_part((h, w), pitch, line)
    against = wafer_grids.against_truth(grids, files.factor)
    if against is not None:
        page.mae_um = against.mae_um
        held = None if against.covered is None else f"{words.level(files.coverage)} band holds "
        small = "" if held is None else f"{held}{words.percent(against.covered, 3)}"
        page.key.append((ERROR, words.quantity(against.mae_um, "um", 3), small))
        page.about.append(("against the truth", f"bias {words.quantity(against.bias_um, 'um', 3)}, 95{words.THIN}% of "
                          f"errors below {words.quantity(against.p95_um, 'um', 3)}"))  # fmt: skip
    box = (part.column * pitch, part.row * pitch, (part.column + part.columns) * pitch, (part.row + part.rows) * pitch)
    image, frame = _overview(page, grids, pitch, scales, line, box)
    ground = wafer_charts.Ground(image, f"{page.anchor}-image")
    _maps(page, grids, pitch, scales, part, line)
    if files.dies is not None:
        page.dies = die_boxes(files.dies, frame, ground)
    if files.focus is not None:
        page.focus = focus_boxes(files.focus, frame, ground)
    if files.flatness is not None:
        page.sites = site_boxes(files.flatness, frame, ground)
    _profile(page, files, grids, line, part, scales)


def _overview(
    page: FieldPage, grids: Grids, pitch: float, scales: Scales, line: Line, box: tuple[float, float, float, float]
) -> tuple[list[str], Frame]:
    """The image of the whole map as the ground of drawings, and their frame; of a long map image and height as well."""
    h, w = grids.shape
    if page.long:
        lines = -(-w // (10 * h))
        by = max(1, -(-w // (lines * LINE_PX)))
    else:
        by = max(1, -(-max(h, w) // pictures.MOST_PIXELS))
    frame = frame_of(h, w, pitch, by, WIDE if page.long else SIDE)
    ground: list[str] = []
    if grids.image is not None:
        image = wafer_grids.whole(grids.image, by)
        stretch = pictures.span(image, 0.5)
        ground = [pictures.photo(one, max(one.shape), stretch) for one in frame.cut(image)]
    if page.long:
        over = wafer_charts.frame_mark(frame, box)
        y_um = (line.row + 0.5) * pitch
        if ground:
            page.overview.append(Panel("Image", wafer_charts.map_chart(frame, ground, "image", over), None))
        height = wafer_grids.whole(grids.height, by)
        tinted = [pictures.tinted(one, scales.height) for one in frame.cut(height)]
        chart = wafer_charts.map_chart(frame, tinted, "height", [*over, *frame.row(y_um, box[0], box[2])])
        page.overview.append(Panel("Height", chart, scales.height))
        page.part = (
            f"x from {words.fixed(box[0] / 1000, 1)} to {words.fixed(box[2] / 1000, 1)}{words.THIN}mm of "
            f"{words.fixed(w * pitch / 1000, 1)}{words.THIN}mm"
        )
    return ground, frame


def _maps(page: FieldPage, grids: Grids, pitch: float, scales: Scales, part: Part, line: Line) -> None:
    """Image, height, sigma and error of one and the same part, and its surface."""
    count = 2 + (grids.sigma is not None) + (grids.truth is not None)
    wide = SIDE if count < 4 else HALF if page.long else NARROW
    frame = Frame(part.column * pitch, part.row * pitch, part.columns * pitch, part.rows * pitch,
                  part.columns * pitch, wide)  # fmt: skip
    over = frame.row((line.row + 0.5) * pitch, frame.x0_um, frame.x0_um + frame.width_um)
    if grids.image is not None:
        image = wafer_grids.reduced(grids.image, part)
        address = pictures.photo(image, max(image.shape), pictures.span(image, 0.5))
        page.maps.append(Panel("Image", wafer_charts.map_chart(frame, [address], "image", over), None))
    height = wafer_grids.reduced(grids.height, part)
    told: list[tuple[str, np.ndarray, Scale, str]] = [("Height", height, scales.height, "above the carrier")]
    if grids.sigma is not None and scales.sigma is not None:
        told.append(("Sigma", wafer_grids.reduced(grids.sigma, part), scales.sigma, "one standard deviation"))
    if grids.truth is not None and scales.error is not None:
        told.append(("Error", height - wafer_grids.reduced(grids.truth, part), scales.error, "map less truth"))
    for title, values, scale, note in told:
        address = pictures.tinted(values, scale)
        page.maps.append(Panel(title, wafer_charts.map_chart(frame, [address], title.lower(), over), scale, note))
    made = relief.draw(height.astype(np.float64), pitch * part.by, scales.height)
    if made is not None:
        page.relief = wafer_charts.relief_chart(made, frame.width_um, frame.height_um)
        page.exaggeration = made.exaggeration


def _profile(page: FieldPage, files: MapFiles, grids: Grids, line: Line, part: Part, scales: Scales) -> None:
    """The scan line over the part, with everything that is known along it."""
    pitch = files.pitch_um
    x = (np.arange(part.columns) + part.column + 0.5) * pitch
    height = wafer_grids.line(grids.height, line.row, part).astype(np.float64)
    sigma = None if grids.sigma is None else wafer_grids.line(grids.sigma, line.row, part).astype(np.float64)
    truth = None if grids.truth is None else wafer_grids.line(grids.truth, line.row, part).astype(np.float64)
    half = None if sigma is None else files.factor * sigma
    track, objective = files.along("track"), files.along("objective")
    scan = wafer_charts.Scan(x, height, half, truth, track, objective, line.gaps_um)
    inside = (x[0] - pitch, x[-1] + pitch)
    drawn = [height, truth, None if half is None else height + half, None if half is None else height - half]
    drawn += [
        None if one is None else one[1][(one[0] > inside[0]) & (one[0] < inside[1])] for one in (track, objective)
    ]
    known = np.concatenate([one[np.isfinite(one)] for one in drawn if one is not None])
    if not known.size:
        page.remarks.append("no profile: nothing is known along the line")
        return
    low, high = min(float(known.min()), scales.height.low), float(known.max())
    margin = 0.04 * (high - low) or 1.0
    page.profile = wafer_charts.profile_chart(scan, (low - margin, high + margin))
    y = words.fixed((line.row + 0.5) * pitch / 1000, 2)
    page.profile_told = f"y = {y}{words.THIN}mm, row {line.row}; {line.why}."
    page.profile_keys = [("s0-key", "map")]
    if half is not None:
        page.profile_keys.append(("band-key", f"{words.level(files.coverage)} interval"))
    if track is not None:
        page.profile_keys.append(("s1-key", "auto-focus track"))
    if objective is not None:
        page.profile_keys.append(("focus-key", "plane of focus"))
    if truth is not None:
        page.profile_keys.append(("truth-key", "truth"))


def _about(files: MapFiles, shape: tuple[int, int]) -> list[tuple[str, str]]:
    h, w = shape
    told, pitch = files.field, files.pitch_um
    size = f"{words.fixed(w * pitch / 1000, 2)} × {words.fixed(h * pitch / 1000, 2)}{words.THIN}mm"
    about = [("size", f"{size}, {words.count(w)} × {words.count(h)} points of {words.quantity(pitch, 'um')}")]
    about.append(("the network was told", ", ".join(map(words.plain, told.get("inputs") or [])) or words.NOTHING))
    product = told.get("product")
    if product:
        tops = ", ".join(words.exact(top) for top in product["level_tops_um"])
        about.append(("nominal stack", f"die {words.exact(product['die_thickness_um'])}, tops {tops}{words.THIN}µm"))
    if told.get("direction"):
        about.append(("scanned", "along +x" if told["direction"] > 0 else "against x"))
    if told.get("stage_x0_um") or told.get("stage_y0_um"):
        x0, y0 = (words.fixed((told.get(f"stage_{axis}0_um") or 0.0) / 1000, 3) for axis in "xy")
        about.append(("on the stage at", f"x {x0}, y {y0}{words.THIN}mm"))
    if told.get("seconds") is not None:
        rate = f", {words.number(told['mpx_per_s'], 3)}{words.THIN}Mpx/s" if told.get("mpx_per_s") else ""
        about.append(("took", f"{words.duration(told['seconds'])}{rate}"))
    return about
