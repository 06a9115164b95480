"""A picture of a synchronisation: the swath, the heights over it, the best place to see whether edges agree, the drift.

matplotlib is imported when a figure is drawn, and drawn on its Agg canvas without pyplot: no display, no global state.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from waferlens.formats.height_parts import write_whole
from waferlens.formats.swath import Swath
from waferlens.prepare.sync import Synced

_HEIGHT, _GREY, _DRIFT, _INK = "#c8553d", "#8b8e96", "#2f6690", "#2b2d33"
CLOSE_UM = 4000.0
"""Length of the close view [um]"""


def draw_sync(path: Path, done: Synced, image: Swath) -> None:
    """Writes the picture as PNG.

    Args:
        path: The file.
        done: The synchronisation.
        image: Its image.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 9.5), layout="constrained")
    FigureCanvasAgg(figure)
    strip, whole, close, drift = figure.subplots(4, 1, height_ratios=[1, 2, 2.4, 1.4])
    x = (np.arange(image.width) + 0.5) * done.pitch_um / 1e3
    low, high = np.quantile(image.look, [0.005, 0.995])
    strip.imshow(image.look, cmap="gray", aspect="auto", extent=(0, x[-1], 1, 0), vmin=low, vmax=max(high, low + 1e-6))
    strip.set_title(_title(done), loc="left", fontsize=11, color=_INK)
    strip.set_yticks([])
    thin = max(1, image.width // 4000)
    whole.plot(x[::thin], done.label_um[::thin], lw=0.7, color=_HEIGHT)
    whole.set_ylabel("height [µm]")
    whole.sharex(strip)
    _close_view(close, x, done, image)
    drift.plot(done.places_px * done.pitch_um / 1e3, done.drift_px, lw=1, color=_DRIFT)
    drift.axhline(0, lw=1, color=_HEIGHT)
    drift.set_ylabel("drift by whole pixels [px]")
    drift.set_xlabel("along the scan [mm]")
    drift.sharex(strip)
    strip.set_xlim(0, x[-1])
    for axes in (strip, whole, close, drift):
        axes.spines[["top", "right"]].set_visible(False)
    write_whole(path, lambda beside: figure.savefig(beside, dpi=110, format="png"))


def _close_view(axes, x: np.ndarray, done: Synced, image: Swath) -> None:  # type: ignore[no-untyped-def]
    """Where the height changes most: there one sees whether its edges are those of the image."""
    half = max(2, round(0.5 * CLOSE_UM / done.pitch_um))
    change = np.abs(np.diff(np.nan_to_num(done.label_um), prepend=done.label_um[:1]))
    change[~np.isfinite(change) | ~np.isfinite(done.label_um)] = 0.0
    sums = np.convolve(change, np.ones(min(half, len(change))), mode="same")
    middle = int(sums.argmax())
    part = slice(max(0, middle - half), min(image.width, middle + half))
    axes.plot(x[part], done.label_um[part], lw=1.4, color=_HEIGHT, label="height")
    axes.set_ylabel("height [µm]")
    axes.set_xlabel("a part of it: along the scan [mm]")
    grey = axes.twinx()
    grey.plot(x[part], image.columns[part], lw=0.7, color=_GREY, label="mean grey of the columns")
    grey.set_ylabel("grey, 0..1")
    axes.set_xlim(x[part][0], x[part][-1])
    lines = [*axes.get_lines(), *grey.get_lines()]
    axes.legend(lines, [line.get_label() for line in lines], loc="lower right", fontsize=9, frameon=False)


def _title(done: Synced) -> str:
    report = done.report()
    words = [f"drift by whole pixels up to {report['drift_px']:.0f} px", f"{report['dropouts']} dropouts"]
    if report["offset_um"] is not None:
        words.insert(0, f"offset {report['offset_um']:.1f} µm" + ("" if report["separated"] else ", latency included"))
    if report["latency_samples"] is not None:
        words.insert(0, f"latency {report['latency_samples']} samples, lag {report['lag_um']:.0f} µm")
    return "; ".join(words)
