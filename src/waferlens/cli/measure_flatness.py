"""What `waferlens measure --flatness` does: options read, maps measured one by one, tables for people and files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from waferlens.cli.output import emit_json, make_folder, progress, say
from waferlens.errors import InputError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from waferlens.measure.flatness import MeasuredFlatness

_ROWS_SHOWN = 40  # sites of a table for people; all of them stand in the files and in the JSON


@dataclass(frozen=True, slots=True)
class FlatnessOptions:
    """The options as they were typed."""

    site: str | None
    site_offset: str | None
    partial_sites: bool
    edge_exclusion: float
    wafer_mm: float | None
    wafer_centre_mm: str | None
    chuck: str | None
    thickness_map: bool
    least_known: float | None
    product: str | None
    image: Path | None
    out: Path | None

    def given(self) -> list[str]:
        """The options that were typed: they mean nothing without `--flatness`."""
        named = {
            "--site": self.site,
            "--site-offset": self.site_offset,
            "--partial-sites": self.partial_sites or None,
            "--edge-exclusion": self.edge_exclusion or None,
            "--wafer-mm": self.wafer_mm,
            "--wafer-centre-mm": self.wafer_centre_mm,
            "--chuck": self.chuck,
            "--thickness-map": self.thickness_map or None,
            "--least-known": self.least_known,
            "--product": self.product,
            "--image": self.image,
            "--out": self.out,
        }
        return [name for name, value in named.items() if value is not None]


def run_flatness(
    files: Sequence[Path],
    options: FlatnessOptions,
    *,
    points: list[tuple[float, float]] | None,
    channel: str | None,
    pitch_um: float | None,
    height_unit: str | None,
    free_name: Callable[[Path, Path, set[str]], Path],
    json: bool,
) -> int:
    """Measures the flatness of each file by itself; a file that cannot be measured is named with the reason.

    Returns:
        The exit status.

    Raises:
        UsageError: an option is malformed, or options exclude each other.
        InputError: the image cannot be read, or a result cannot be written.
    """
    from waferlens.formats.heightmap import read_height_map
    from waferlens.measure.flatness import measure_flatness
    from waferlens.ops.flatness import LEAST_KNOWN
    from waferlens.ops.semi_names import semi_names

    semi_names(options.chuck, options.thickness_map)  # type: ignore[arg-type]
    least = LEAST_KNOWN if options.least_known is None else options.least_known
    if not 0 < least <= 1:
        raise UsageError(f"--least-known {least:g}: a share, more than 0 and at most 1")
    if not 0 <= options.edge_exclusion < float("inf"):
        raise UsageError(f"--edge-exclusion {options.edge_exclusion:g}: must be 0 or positive, in mm")
    if options.wafer_mm is not None and not 0 < options.wafer_mm < float("inf"):
        raise UsageError(f"--wafer-mm {options.wafer_mm:g}: must be positive")
    how: dict[str, Any] = {
        "site_mm": None if options.site is None else site_size(options.site),
        "partial_sites": options.partial_sites,
        "edge_exclusion_mm": options.edge_exclusion,
        "wafer_mm": options.wafer_mm,
        "wafer_centre_mm": None
        if options.wafer_centre_mm is None
        else pair("--wafer-centre-mm", options.wafer_centre_mm),
        "points": points,
        "chuck": options.chuck,
        "thickness_map": options.thickness_map,
        "least_known": least,
    }
    if options.site_offset is not None:
        how["site_offset_mm"] = pair("--site-offset", options.site_offset)
    if options.product is not None:
        from waferlens.inspect.swath_facts import parse_product

        how["product"] = parse_product(options.product)
    if options.image is not None:
        if len(files) != 1:
            raise UsageError(f"--image belongs to one map, and {len(files)} were given")
        from waferlens.formats.images import read_images

        how["image"] = next(iter(read_images(options.image))).pixels
    if options.out is not None:
        make_folder(options.out)
    results: list[dict[str, Any]] = []
    written: set[str] = set()
    status = 0
    with progress(len(files), "measure", quiet=json or len(files) < 2) as advance:
        for file in files:
            try:
                height_map = read_height_map(file, channel, pitch_um=pitch_um, unit=height_unit)
                height_map.origin["file"] = str(file)
                done = measure_flatness(height_map, **how)
            except (InputError, MissingExtraError) as error:
                say(f"waferlens measure: {error if isinstance(error, InputError) else f'{file}: {error}'}")
                status = max(status, error.exit_status)
                continue
            finally:
                advance(1)
            picture = None
            if options.out is not None:
                picture = free_name(options.out, file, written)
                _write(picture, done, file.name)
            results.append({"file": str(file), **done.as_json()})
            if not json:
                print(_table(file, done, picture))
    if json:
        emit_json(results)
    return status


def site_size(text: str) -> tuple[float, float]:
    """Width and height of a site from `25x25` or `26x8` [mm]

    Raises:
        UsageError: it is not of that form.
    """
    try:
        width, height = (float(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError:
        raise UsageError(f"--site {text}: write width x height in mm, as 25x25 or 26x8") from None
    if not (0 < width < float("inf") and 0 < height < float("inf")):
        raise UsageError(f"--site {text}: both sides must be positive, in mm")
    return width, height


def pair(option: str, text: str) -> tuple[float, float]:
    """Two numbers from `X,Y`.

    Raises:
        UsageError: it is not of that form.
    """
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} {text}: write two numbers in mm, as 150,150") from None
    if not (abs(x) < float("inf") and abs(y) < float("inf")):
        raise UsageError(f"{option} {text}: both numbers must be finite")
    return x, y


def _write(picture: Path, done: MeasuredFlatness, title: str) -> None:
    """Picture, table of sites and all as JSON; of dies their map and their steps."""
    from waferlens.inspect.die_table import write_die_map
    from waferlens.inspect.flatness_table import write_flatness, write_steps
    from waferlens.measure.flatness_figure import draw_flatness

    stem = picture.name.removesuffix(".png")
    beside = {
        end: picture.with_name(f"{stem}.{end}") for end in ("sites.csv", "json", "dies.csv", "dies.json", "steps.csv")
    }
    draw_flatness(picture, done, title)
    write_flatness(beside["sites.csv"], beside["json"], done.flat)
    if done.dies is not None:
        write_die_map(beside["dies.csv"], beside["dies.json"], done.dies)
        write_steps(beside["steps.csv"], done.steps)


def _table(file: Path, done: MeasuredFlatness, picture: Path | None) -> str:
    from waferlens.measure.figures import pretty
    from waferlens.measure.flatness import area_in_words

    flat = done.flat
    h, w = done.heights_um.shape
    lines = [
        str(file),
        f"  {w} x {h} points, pitch {done.pitch_um[0]:.6g} x {done.pitch_um[1]:.6g} µm",
        f"  {area_in_words(flat)}",
    ]
    for row in done.rows:
        value = "–" if row.value is None else f"{row.value:.5g}"
        unit = "" if row.unit == "1" else pretty(row.unit)
        told = row.method if row.value is None else row.method.partition(";")[0]
        lines.append(f"  {row.name:<24}{value:>12} {unit:<6} {told}".rstrip())
    places = ", ".join(
        f"({x / 1e3:.5g}, {y / 1e3:.5g}) mm" + ("" if z is None else f" at {z:.5g} µm") for x, y, z in flat.points_um
    )
    lines.append(f"  three points: {places}")
    shown = [(number, site) for number, site in enumerate(flat.sites) if flat.partial_sites or not site.partial]
    if shown:
        lines.append("  site  x0, y0 [mm]         range  deviation    known  inside")
    for number, site in shown[:_ROWS_SHOWN]:
        place = f"{site.box_um[0] / 1e3:.5g}, {site.box_um[1] / 1e3:.5g}"
        numbers = "".join(f"{'–' if one is None else f'{one:.4g}':>11}" for one in (site.range_um, site.deviation_um))
        shares = f"{100 * site.known_share:>7.4g}% {100 * site.inside_share:>6.4g}%"
        lines.append(f"  {number:>4}  {place:<14}{numbers} {shares}  {site.reason}".rstrip())
    if len(shown) > _ROWS_SHOWN:
        lines.append(f"  … and {len(shown) - _ROWS_SHOWN} more sites: --out writes all of them")
    lines += [f"  step of die {step.die} level {step.level}: {_said(step)}" for step in done.steps[:_ROWS_SHOWN]]
    if len(done.steps) > _ROWS_SHOWN:
        lines.append(f"  … and {len(done.steps) - _ROWS_SHOWN} more steps")
    lines += [f"  note: {remark}" for remark in done.remarks]
    if picture is not None:
        lines.append(f"  figure: {picture}")
    return "\n".join(lines) + "\n"


def _said(step: Any) -> str:
    if step.step_um is None:
        return f"–  {step.reason}"
    return f"{step.step_um:.5g} µm, standard error {step.sigma_um:.2g} µm"
