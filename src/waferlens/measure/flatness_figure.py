"""A picture of flatness: the levelled surface with the three points and the area, and the map of its sites.

matplotlib is imported when a figure is drawn, and drawn on its Agg canvas without pyplot: no display, no global state.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from waferlens.formats.height_parts import write_whole
from waferlens.measure.flatness import MeasuredFlatness
from waferlens.ops.flatness_record import Flatness

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS, _EDGE, _INK, _FAINT, _NOT_KNOWN = "#c8553d", "#2b2d33", "#2b2d33", "#8b8e96", "#dcd8d2"
_MOST_PX = 1400  # on a side of what is drawn: every n-th pixel of larger maps
_MOST_NUMBERS = 200  # sites, beyond which their numbers are left to their colours
_MOST_ACROSS = 16  # sites side by side whose numbers fit into them
_LONG = 4.0  # maps longer than this are drawn without equal axes
_LOW, _HIGH = 0.5, 99.5


def draw_flatness(path: Path, done: MeasuredFlatness, title: str) -> None:
    """Writes the picture as PNG.

    Args:
        path: the file.
        done: what was measured.
        title: name of the map.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    flat = done.flat
    h, w = done.heights_um.shape
    wide, high = w * done.pitch_um[0] / 1e3, h * done.pitch_um[1] / 1e3
    long = max(wide / high, high / wide) > _LONG
    both = bool(flat.sites)
    stacked = wide / high > 1.6
    size = (12.0, 4.2 * (1 + both)) if stacked else (6.4 * (1 + both), 5.9)
    with rc_context({"font.size": 9, "axes.edgecolor": _FAINT, "axes.linewidth": 0.7, "text.color": _INK}):
        figure = Figure(figsize=size, dpi=120, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(1 + both if stacked else 1, 1 if stacked else 1 + both, squeeze=False).ravel()
        _surface(grid[0], done, (wide, high))
        if both:
            _sites(grid[1], flat)
        for axes in grid:
            _outline(axes, flat)
            axes.set_aspect("auto" if long else "equal")
            axes.set_xlim(0, wide)
            axes.set_ylim(high, 0)
            axes.set_xlabel("x [mm]")
            axes.set_ylabel("y down the rows [mm]")
        figure.suptitle(f"{title}\n{_headline(done)}", x=0.01, ha="left", fontsize=10)
        write_whole(path, lambda beside: figure.savefig(beside, format="png"))


def _headline(done: MeasuredFlatness) -> str:
    names = {name.name for name, _, _ in done.flat.names()}
    plain = ("range_least_squares", "deviation_least_squares", "centre_deviation", "site_range")
    wanted = [row for row in done.rows if row.name in (names or plain) and row.value is not None]
    told = "     ".join(f"{row.name.replace('_', ' ')} {row.value:.4g} µm" for row in wanted[:7])
    return told or "not measured: " + (done.flat.least_squares.reason or "too little is known")


def _surface(axes: Axes, done: MeasuredFlatness, extent: tuple[float, float]) -> None:
    """The surface above its least-squares plane, or as it is where there is none."""
    flat = done.flat
    h, w = done.heights_um.shape
    every = (max(1, h // _MOST_PX), max(1, w // _MOST_PX))
    z = done.heights_um[:: every[0], :: every[1]].astype(np.float64)
    plane = flat.least_squares
    tilt_x, tilt_y = plane.tilt_x_um_per_mm, plane.tilt_y_um_per_mm
    if tilt_x is not None and tilt_y is not None:
        x = 1e-3 * done.pitch_um[0] * (np.arange(w)[:: every[1]] + 0.5)
        y = 1e-3 * done.pitch_um[1] * (np.arange(h)[:: every[0]] + 0.5)
        z -= tilt_x * x[None, :] - tilt_y * y[:, None]
    known = z[np.isfinite(z)]
    span = (0.0, 1.0)
    if known.size:
        z -= np.median(known)
        low, high = np.percentile(z[np.isfinite(z)], (_LOW, _HIGH))
        span = (float(low), float(high) if high > low else float(low) + 1.0)
    from matplotlib import colormaps, patheffects

    shown = axes.imshow(
        np.ma.masked_invalid(z),
        cmap=colormaps["viridis"].with_extremes(bad=_NOT_KNOWN),
        vmin=span[0],
        vmax=span[1],
        extent=(0, extent[0], extent[1], 0),
    )
    bar = axes.figure.colorbar(shown, ax=axes, extend="both", shrink=0.8)
    levelled = "above the least-squares plane" if plane.tilt_x_um_per_mm is not None else "as it is"
    bar.set_label(f"height {levelled}, about its median [µm]")
    for number, (x_um, y_um, _) in enumerate(flat.points_um):
        axes.plot(x_um / 1e3, y_um / 1e3, "o", ms=6, mfc="none", mec=_POINTS, mew=1.6)
        axes.annotate(
            f"{number + 1}", (x_um / 1e3, y_um / 1e3), (7, -4), textcoords="offset points", color=_POINTS,
            fontweight="bold", path_effects=[patheffects.withStroke(linewidth=2.2, foreground="white")],
        )  # fmt: skip
    axes.set_title("surface, and where the three points lie", loc="left", fontsize=9.5)


def _sites(axes: Axes, flat: Flatness) -> None:
    """Each site with the range from its own plane; grey where it has none, hatched where it is partial."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Rectangle

    told = [site.range_um for site in flat.sites if site.range_um is not None]
    scale = Normalize(min(told, default=0.0), max(told, default=1.0) or 1.0)
    colours = colormaps["viridis"]
    # in narrow sites a number stands upright
    turn = 90 if len({site.column for site in flat.sites}) > _MOST_ACROSS else 0
    for site in flat.sites:
        x0, y0, x1, y1 = (edge / 1e3 for edge in site.box_um)
        face = _NOT_KNOWN if site.range_um is None else colours(scale(site.range_um))
        hatch = "///" if site.partial else None
        axes.add_patch(
            Rectangle((x0, y0), x1 - x0, y1 - y0, facecolor=face, edgecolor="white", lw=0.6, hatch=hatch, alpha=0.95)
        )
        if len(flat.sites) <= _MOST_NUMBERS and site.range_um is not None:
            dark = scale(site.range_um) < 0.6
            middle = (0.5 * (x0 + x1), 0.5 * (y0 + y1))
            axes.text(
                *middle, f"{site.range_um:.3g}", ha="center", va="center", rotation=turn, fontsize=7,
                color="white" if dark else _INK, clip_on=True,
            )  # fmt: skip
    bar = axes.figure.colorbar(ScalarMappable(scale, colours), ax=axes, shrink=0.8)
    bar.set_label("range from the site's own plane [µm]")
    width, height = flat.site_mm or (0.0, 0.0)
    grey = "" if len(told) == len(flat.sites) else f", {len(flat.sites) - len(told)} without a number (grey)"
    axes.set_title(
        f"{len(flat.sites)} sites of {width:g} x {height:g} mm{grey}; hatched: partial", loc="left", fontsize=9.5
    )


def _outline(axes: Axes, flat: Flatness) -> None:
    """The area that counts, and the wafer."""
    from matplotlib.patches import Circle, Patch, Rectangle

    x0, y0, x1, y1 = flat.area.box_mm
    shapes: list[Patch]
    if flat.wafer is not None:
        middle = flat.area.middle_mm
        shapes = [
            Circle(middle, flat.area.half_mm[0], fill=False, ec=_EDGE, lw=1.0, ls="--"),
            Circle(middle, 0.5 * flat.wafer.diameter_mm, fill=False, ec=_EDGE, lw=1.0),
        ]
    else:
        shapes = [Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=_EDGE, lw=1.0, ls="--")]
    for shape in shapes:
        axes.add_patch(shape)
