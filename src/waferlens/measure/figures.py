"""A picture of a measured height map: the map with its scale, and the profiles through its middle.

matplotlib is imported when a figure is drawn, and drawn on its Agg canvas without pyplot: no display, no global state.
"""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from waferlens import units
from waferlens.measure.surface import Levelling
from waferlens.records import HeightMap, Measurement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ALONG_X, _ALONG_Y = "#c8553d", "#2f6690"
_NOT_VALID, _INK, _FAINT = "#dcd8d2", "#2b2d33", "#8b8e96"
_LOW, _HIGH = 0.5, 99.5
_WIDE = 1.2  # maps wider than this stand above their profiles, others beside them


def draw_surface(path: Path, height_map: HeightMap, done: Levelling, rows: list[Measurement]) -> None:
    """Write the picture of a map as PNG.

    The colours span the percentiles 0.5 and 99.5 of the heights, so that a spike does not take them all; what lies
    outside is shown by the arrows of the colour bar. Points that take no part are neutral grey.

    Args:
        path: the PNG file to write.
        height_map: the map as it was read: its pitch and its origin.
        done: the surface that was measured.
        rows: its measurements, a few of which stand under the title.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with rc_context({"font.size": 9, "axes.edgecolor": _FAINT, "axes.linewidth": 0.7, "text.color": _INK}):
        figure = _figure(height_map, done, rows)
        FigureCanvasAgg(figure)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png")


def _figure(height_map: HeightMap, done: Levelling, rows: list[Measurement]) -> Figure:
    from matplotlib import patheffects
    from matplotlib.figure import Figure

    heights, unit = _shown(done)
    width, height, length_unit = _extent(height_map)
    low, high = _span(heights)
    wide = width / height > _WIDE
    share = min(1.0, max(0.35, width / height))  # a narrow map leaves its room to the profiles
    figure = Figure(figsize=(9.6, 9.6) if wide else (12.4, 6.5), dpi=120, facecolor="white")
    if wide:
        grid = figure.add_gridspec(
            2, 2, height_ratios=(2.1, 1), left=0.075, right=0.945, bottom=0.065, top=0.87, hspace=0.24, wspace=0.2
        )
        axes = figure.add_subplot(grid[0, :]), figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[1, 1])
    else:
        grid = figure.add_gridspec(
            2,
            2,
            width_ratios=(1.15 * share, 1),
            left=0.06,
            right=0.975,
            bottom=0.085,
            top=0.81,
            hspace=0.38,
            wspace=0.16,
        )
        axes = figure.add_subplot(grid[:, 0]), figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])
    left_out = np.isfinite(done.raw).sum() > np.isfinite(heights).sum()
    grey = "not valid, or left out" if left_out else "no valid point"
    _draw_map(figure, axes[0], heights, (width, height), (low, high), (unit, length_unit), grey)
    h, w = heights.shape
    row, column = h // 2, w // 2
    x = (np.arange(w) + 0.5) * width / w
    y = height - (np.arange(h) + 0.5) * height / h
    _draw_profile(axes[1], x, heights[row], _ALONG_X, f"along x, at y = {y[row]:.4g} {length_unit}", (low, high))
    _draw_profile(
        axes[2], y, heights[:, column], _ALONG_Y, f"along y, at x = {x[column]:.4g} {length_unit}", (low, high)
    )
    for axis, name in ((axes[1], "x"), (axes[2], "y")):
        axis.set_xlabel(f"{name} [{length_unit}]")
        axis.set_ylabel(f"height [{unit}]")
    halo = [patheffects.withStroke(linewidth=1.9, foreground="white", alpha=0.6)]
    axes[0].axhline(y[row], color=_ALONG_X, linewidth=1.1, path_effects=halo)
    axes[0].axvline(x[column], color=_ALONG_Y, linewidth=1.1, path_effects=halo)
    _headline(figure, height_map, done, rows, unit)
    return figure


def _draw_map(
    figure: Figure,
    axes: Axes,
    heights: np.ndarray,
    extent: tuple[float, float],
    span: tuple[float, float],
    unit_names: tuple[str, str],
    grey: str,
) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Patch
    from mpl_toolkits.axes_grid1 import make_axes_locatable

    unit, length_unit = unit_names
    colours = colormaps["viridis"].with_extremes(bad=_NOT_VALID)
    image = axes.imshow(
        np.ma.masked_invalid(heights),
        cmap=colours,
        vmin=span[0],
        vmax=span[1],
        extent=(0, extent[0], 0, extent[1]),
        origin="upper",
        interpolation="nearest" if max(heights.shape) < 200 else "antialiased",
    )
    axes.set_xlabel(f"x [{length_unit}]")
    axes.set_ylabel(f"y [{length_unit}]")
    _tidy(axes)
    bar = figure.colorbar(
        image,
        cax=make_axes_locatable(axes).append_axes("right", size=0.16, pad=0.12),
        extend="both",
    )
    bar.set_label(f"height [{unit}]   (percentiles {_LOW:g} to {_HIGH:g})", color=_INK)
    bar.outline.set_linewidth(0.5)
    bar.ax.tick_params(labelsize=8, color=_FAINT, width=0.6)
    if not np.isfinite(heights).all():
        axes.legend(
            handles=[Patch(facecolor=_NOT_VALID, edgecolor=_FAINT, linewidth=0.5, label=grey)],
            loc="upper right",
            fontsize=8,
            framealpha=0.9,
            edgecolor=_FAINT,
            borderpad=0.5,
            handlelength=1.2,
            handleheight=1.0,
        )


def _draw_profile(
    axes: Axes, place: np.ndarray, heights: np.ndarray, colour: str, title: str, span: tuple[float, float]
) -> None:
    known = np.isfinite(heights)
    if known.any():
        axes.plot(place, heights, color=colour, linewidth=1.0, solid_joinstyle="round")
        low, high = min(span[0], np.percentile(heights[known], 5)), max(span[1], np.percentile(heights[known], 95))
        margin = 0.08 * (high - low) or 0.5
        axes.set_ylim(low - margin, high + margin)
    else:
        axes.text(0.5, 0.5, "no valid point on this line", transform=axes.transAxes, ha="center", color=_FAINT)
    axes.set_xlim(float(place.min()), float(place.max()))
    axes.axhline(0, color=_FAINT, linewidth=0.6, zorder=0)
    axes.grid(color="#ececec", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title(title, loc="left", fontsize=9.5, color=colour, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    _tidy(axes)


def _tidy(axes: Any) -> None:
    axes.tick_params(labelsize=8, color=_FAINT, width=0.6, length=3)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)


def _headline(figure: Figure, height_map: HeightMap, done: Levelling, rows: list[Measurement], unit: str) -> None:
    origin = height_map.origin
    name = Path(str(origin.get("file", "height map"))).name
    found = {row.name: row for row in rows}
    known = [found[key] for key in ("Sa", "Sq", "Sz", "tilt_x", "tilt_y", "valid_fraction") if key in found]
    numbers = "     ".join(f"{_word(row.name)} {_number(row, unit)}" for row in known)
    source = " · ".join(str(origin[key]) for key in ("format", "channel") if origin.get(key))
    top, left = 1 - 0.3 / figure.get_figheight(), 0.55 / figure.get_figwidth()
    line = 0.24 / figure.get_figheight()
    figure.text(left, top, name, fontsize=14, fontweight="bold", va="center")
    figure.text(1 - left / 2, top, source, fontsize=9, color=_FAINT, va="center", ha="right")
    figure.text(left, top - line * 1.15, numbers, fontsize=9.5, va="center")
    steps = textwrap.fill(done.steps, int(16 * figure.get_figwidth()))
    figure.text(left, top - line * 1.8, steps, fontsize=8, color=_FAINT, va="top", linespacing=1.35)


def _word(name: str) -> str:
    return {"tilt_x": "tilt x", "tilt_y": "tilt y", "valid_fraction": "valid"}.get(name, name)


def _number(row: Measurement, unit: str) -> str:
    if row.value is None:
        return "–"
    if row.name == "valid_fraction":
        return f"{100 * row.value:.4g} %"
    value, own = row.value, row.unit
    if own in ("nm", "um"):  # heights, in the unit of the colour bar beside them
        value, own = units.convert(value, own, unit), units.canonical(unit)
    return f"{value:.4g} {pretty(own)}".replace("-", "−")


def pretty(unit: str) -> str:
    """A unit as people read it: µm for um; units that the table does not know stay as they are."""
    return units.symbol(unit) if unit in units.UNITS else unit


def _shown(done: Levelling) -> tuple[np.ndarray, str]:
    """The surface about its middle, in the length unit that keeps its numbers short."""
    known = done.heights[np.isfinite(done.heights)]
    heights = done.heights - (float(np.median(known)) if known.size and done.levelled is None else 0.0)
    if done.unit == "grey" or not known.size:
        return heights, pretty(done.unit)
    low, high = _span(heights)
    span_um = units.convert(high - low, done.unit, "um")
    unit = "nm" if span_um < 0.5 else "um" if span_um < 2000 else "mm"
    return units.convert(heights, done.unit, unit), pretty(unit)


def _span(heights: np.ndarray) -> tuple[float, float]:
    known = heights[np.isfinite(heights)]
    if not known.size:
        return 0.0, 1.0
    low, high = (float(edge) for edge in np.percentile(known, (_LOW, _HIGH)))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _extent(height_map: HeightMap) -> tuple[float, float, str]:
    """Width and height of the map in the length unit that keeps them between 1 and 1000."""
    h, w = height_map.heights.shape
    width, height = w * height_map.pitch_x, h * height_map.pitch_y
    if height_map.pitch_unit == "px":
        return width, height, "px"
    longest = units.convert(max(width, height), height_map.pitch_unit, "um")
    unit = "nm" if longest < 1 else "um" if longest < 1000 else "mm"
    if not math.isfinite(longest) or longest >= 1e7:
        unit = "m"
    return (
        units.convert(width, height_map.pitch_unit, unit),
        units.convert(height, height_map.pitch_unit, unit),
        pretty(unit),
    )
