"""What do the optics permit of a height, and what is reached? Draws docs/pictures/optical-limits.png, prints numbers.

    OMP_NUM_THREADS=1 python benchmarks/optical_limits.py [BUNDLE DATA] [--evaluation reached.json] [--trials 400]

Without a bundle the bounds are drawn alone, or beside what `--evaluation` holds from an earlier run. With BUNDLE and
DATA every surface of a field is judged, tops of dies, terraces of lower levels and sites of missing dies: its height is
the median over it less 60 um along its edges, its defocus the true distance from the objective's plane of focus. Of
each bin of defocus stands the error that 68 % of its surfaces do not exceed, which is the standard deviation where
errors are normal. `--trials` lets maximum likelihood loose on simulated patches, and tells how near the bound it comes.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
import PIL.Image
from matplotlib import pyplot
from scipy.optimize import brentq

from waferlens.bundle.files import open_bundle
from waferlens.bundle.wafer import WaferSession
from waferlens.evaluate.wafer import inputs_of
from waferlens.evaluate.wafer_fields import predicted
from waferlens.evaluate.wafer_truth import judged_fields
from waferlens.lab.bench import machine
from waferlens.load.wafer import Field
from waferlens.prepare.wafer_geometry import column_values
from waferlens.simulate.wafer.af import AfSensor
from waferlens.simulate.wafer.af_bound import track_height_bound_um
from waferlens.simulate.wafer.bound_trials import edge_estimates_um, texture_estimates_um
from waferlens.simulate.wafer.camera import Camera
from waferlens.simulate.wafer.height_bound import Edge, Texture, edge_height_bound_um, texture_height_bound_um
from waferlens.simulate.wafer.otf import Lens
from waferlens.simulate.wafer.scene import NATIVE_PX

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "optical-limits.png"
LENSES = {"5x / 0.14": Lens(5.0, 0.14), "10x / 0.28": Lens(10.0, 0.28), "20x / 0.42": Lens(20.0, 0.42)}
LENS, CAMERA = LENSES["5x / 0.14"], Camera()
GRID_UM, SEED_UM = LENS.pixel_um * NATIVE_PX / 684, LENS.pixel_um * NATIVE_PX / 228
DZ_UM = np.geomspace(0.5, 800.0, 36)
EDGE = Edge()
LOGIC = Texture()
TAPE, METAL = Texture(0.04, 0.08, 70.0, smooth=True), Texture(0.45, 0.08, 70.0, smooth=True)
"""0.08 from point to point of a wave is 0.06 over all places."""
BINS_UM = (0.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 400.0, 900.0)
RIM_UM = 60.0
LEAST_UM2 = 50_000.0
LEAST_SURFACES = 8
"""Of a bin that is shown."""
SHARE = 0.68
SURFACES = {"top": ("o", "die top"), "terrace": ("s", "lower level"), "missing": ("^", "missing site")}
INK, PALE, ACCENT, ALARM, SOIL = "#1d2733", "#7fb7c9", "#1f6f8b", "#b5472f", "#8a6d3b"


def edge(dz_um: float, length_um: float, lens: Lens = LENS, pitch_um: float | None = GRID_UM) -> float:
    return edge_height_bound_um(lens, CAMERA, dz_um, EDGE, length_um=length_um, pitch_um=pitch_um)


def texture(
    dz_um: float, area_mm2: float, drawn: Texture = LOGIC, lens: Lens = LENS, pitch_um: float | None = GRID_UM
) -> float:
    return texture_height_bound_um(lens, CAMERA, dz_um, drawn, area_um2=1e6 * area_mm2, pitch_um=pitch_um)


def dead_zone_um(bound: Callable[[float], float]) -> float:
    """Distance from focus at which the bound is as large as the distance."""
    return float(math.exp(brentq(lambda log: math.log(bound(math.exp(log))) - log, math.log(0.01), math.log(100.0))))


def bounds() -> dict[str, object]:
    """The numbers of the page."""
    at = (5.0, 20.0, 50.0, 100.0, 200.0, 400.0, 800.0)
    rows: dict[str, list[float]] = {}
    for grid, pitch in (("1.291 um", None), ("8.197 um", GRID_UM), ("24.59 um", SEED_UM)):
        rows[f"edge of 1 mm, {grid}"] = [edge(dz, 1000.0, pitch_um=pitch) for dz in at]
        rows[f"logic of 0.1 mm2, {grid}"] = [texture(dz, 0.1, pitch_um=pitch) for dz in at]
        rows[f"tape of 1 mm2, {grid}"] = [texture(dz, 1.0, TAPE, pitch_um=pitch) for dz in at]
        rows[f"ground metal of 1 mm2, {grid}"] = [texture(dz, 1.0, METAL, pitch_um=pitch) for dz in at]
    rows["edge of 1 mm along the scan, 8.197 um"] = [
        edge_height_bound_um(LENS, CAMERA, dz, EDGE, length_um=1000.0, pitch_um=GRID_UM, along_scan=True) for dz in at
    ]
    for name, lens in LENSES.items():
        rows[f"edge of 1 mm, {name}, camera's pixel"] = [edge(dz, 1000.0, lens, None) for dz in at]
    sensor = AfSensor()
    return {
        "dz_um": at,
        "bound_um": {name: [round(one, 4) for one in row] for name, row in rows.items()},
        "dead_zone_um": {
            "edge of 1 mm, 1.291 um": round(dead_zone_um(lambda dz: edge(dz, 1000.0, pitch_um=None)), 2),
            "edge of 1 mm, 8.197 um": round(dead_zone_um(lambda dz: edge(dz, 1000.0)), 2),
            "edge of 1 mm, 24.59 um": round(dead_zone_um(lambda dz: edge(dz, 1000.0, pitch_um=SEED_UM)), 2),
            "logic of 0.1 mm2, 1.291 um": round(dead_zone_um(lambda dz: texture(dz, 0.1, pitch_um=None)), 2),
            "logic of 0.1 mm2, 8.197 um": round(dead_zone_um(lambda dz: texture(dz, 0.1)), 2),
            "logic of 0.1 mm2, 24.59 um": round(dead_zone_um(lambda dz: texture(dz, 0.1, pitch_um=SEED_UM)), 2),
        },
        "track_um": {
            "top over 4 mm": round(track_height_bound_um(sensor, length_um=4000.0, signal=0.3), 3),
            "top over 0.5 mm": round(track_height_bound_um(sensor, length_um=500.0, signal=0.3), 3),
            "lower half of the column over 4 mm": round(
                track_height_bound_um(sensor, length_um=4000.0, signal=0.3, share=0.5, highest=False), 3
            ),
            "street of 300 um": round(track_height_bound_um(sensor, length_um=300.0, signal=0.04), 3),
        },
    }


def efficiencies(trials: int) -> list[dict[str, object]]:
    """Bound and scatter of maximum likelihood on simulated patches."""
    rows: list[dict[str, object]] = []
    for dz in (20.0, 50.0, 150.0):
        bound = edge_height_bound_um(LENS, CAMERA, dz, EDGE, length_um=200.0, window_um=60.0)
        found = edge_estimates_um(
            LENS, CAMERA, dz, EDGE, length_um=200.0, window_um=60.0, trials=trials, seed=20_251_126
        )
        rows.append(_efficiency("edge of 200 um", dz, bound, found))
        cells = Texture(cell_um=7 * LENS.pixel_um)
        bound = texture_height_bound_um(LENS, CAMERA, dz, cells, area_um2=(24 * cells.cell_um) ** 2)
        found = texture_estimates_um(LENS, CAMERA, dz, cells, cells=24, bound_um=bound, trials=trials, seed=20_251_126)
        rows.append(_efficiency("logic of 24 x 24 cells", dz, bound, found))
    return rows


def _efficiency(name: str, dz: float, bound: float, found: np.ndarray) -> dict[str, object]:
    spread = float(found.std(ddof=1))
    return {
        "patch": name,
        "dz_um": dz,
        "bound_um": round(bound, 4),
        "scatter_um": round(spread, 4),
        "bias_um": round(float(found.mean()) - dz, 4),
        "efficiency": round((bound / spread) ** 2, 3),
        "trials": len(found),
    }


def reached(bundle: str, data: Path, told: list[str], most: int | None) -> list[dict[str, object]]:
    """Errors of surfaces by kind, by what the network is told, and by bin of their distance from focus."""
    session = WaferSession(open_bundle(bundle))
    inputs = [inputs_of(one, session) for one in told] if told else [(), session.known]
    found: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for number, one in enumerate(judged_fields(data)):
        if most is not None and number == most:
            break
        if one.height_um is None:
            continue
        surfaces = _surfaces(one)
        for place, known in enumerate(inputs):
            height = predicted(session, one, known).height_um
            for kind, mask, dz in surfaces:
                error = abs(float(np.median(height[mask])) - float(np.median(one.height_um[mask])))
                found.setdefault((place, kind), []).append((dz, error))
    rows: list[dict[str, object]] = []
    for (place, kind), pairs in sorted(found.items()):
        dz, error = np.array(pairs).T
        for low, high in pairwise(BINS_UM):
            inside = (dz >= low) & (dz < high)
            if inside.any():
                rows.append(
                    {
                        "inputs": ["image", *inputs[place]],
                        "surface": kind,
                        "dz_um": [low, high],
                        "middle_um": round(float(np.median(dz[inside])), 3),
                        "p68_um": round(float(np.quantile(error[inside], SHARE)), 3),
                        "surfaces": int(inside.sum()),
                    }
                )
    return rows


def _surfaces(one: Field) -> list[tuple[str, np.ndarray, float]]:
    """Each surface of a field that is large enough: its kind, its pixels, its distance from focus [um]"""
    objective = column_values(one.trace, one.pitch_um, one.image.shape[1])[1]
    if objective is None:
        return []
    found = []
    for die in one.dies or ():
        if die.state == "missing":
            found.append(("missing", _box(one, die.box_um, RIM_UM)))
            continue
        boxes = [level[:4] for level in die.levels]
        for number, box in enumerate(boxes):
            inside = _box(one, box, RIM_UM)
            if number + 1 < len(boxes):
                inside &= ~_box(one, boxes[number + 1], -RIM_UM)
            found.append(("top" if number + 1 == len(boxes) else "terrace", inside))
    told = []
    for kind, mask in found:
        mask = mask & np.isfinite(one.height_um) & np.isfinite(objective)[np.newaxis]
        if mask.sum() * one.pitch_um**2 >= LEAST_UM2:
            away = (one.height_um - objective[np.newaxis])[mask]
            told.append((kind, mask, abs(float(np.median(away)))))
    return told


def _box(one: Field, box_um: tuple[float, ...], rim_um: float) -> np.ndarray:
    h, w = one.image.shape
    x, y = (one.pitch_um * (np.arange(count) + 0.5) for count in (w, h))
    x0, y0, x1, y1 = box_um
    columns = (x > x0 + rim_um) & (x < x1 - rim_um)
    return ((y > y0 + rim_um) & (y < y1 - rim_um))[:, np.newaxis] & columns


def draw(path: Path, rows: list[dict[str, object]]) -> None:
    """The figure."""
    pyplot.rcParams.update({"font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": "#9aa7b0"})
    figure, axes = pyplot.subplots(1, 3, figsize=(11.0, 5.0), sharey=True, layout="constrained")
    for axis in axes:
        axis.fill_between(DZ_UM, DZ_UM, 1e3, color="#eef1f3", lw=0)
        axis.set(
            xscale="log", yscale="log", xlim=(DZ_UM[0], DZ_UM[-1]), ylim=(2e-3, 7e2), xlabel="distance from focus [um]"
        )
        axis.spines[["top", "right"]].set_visible(False)
    axes[2].text(0.6, 1e2, "not told from focus", color="#7b8790", fontsize=8)
    axes[0].set_ylabel("standard deviation of a height [um]")

    axes[0].set_title("bound and what is reached: 5x / 0.14, 8.197 um", fontsize=9)
    for length, style in ((200.0, ":"), (1000.0, "-"), (5000.0, "--")):
        axes[0].plot(DZ_UM, [edge(dz, length) for dz in DZ_UM], style, color=ACCENT, label=f"edge, {length / 1e3:g} mm")
    for area, style in ((0.1, ":"), (1.0, "-")):
        axes[0].plot(DZ_UM, [texture(dz, area) for dz in DZ_UM], style, color=ALARM, label=f"logic, {area:g} mm²")
    axes[0].plot(DZ_UM, [texture(dz, 1.0, TAPE) for dz in DZ_UM], color=SOIL, label="tape, 1 mm²")
    track = track_height_bound_um(AfSensor(), length_um=4000.0, signal=0.3)
    axes[0].axhline(track, color=PALE, ls="-.", label="track, 4 mm of the highest")
    _draw_reached(axes[0], rows)

    axes[1].set_title("what pixels destroy: 5x / 0.14", fontsize=9)
    for pitch, style in ((None, "-"), (GRID_UM, "--"), (SEED_UM, ":")):
        name = f"{LENS.pixel_um if pitch is None else pitch:.2f} um"
        axes[1].plot(
            DZ_UM, [edge(dz, 1000.0, pitch_um=pitch) for dz in DZ_UM], style, color=ACCENT, label=f"edge, 1 mm, {name}"
        )
        axes[1].plot(
            DZ_UM,
            [texture(dz, 0.1, pitch_um=pitch) for dz in DZ_UM],
            style,
            color=ALARM,
            label=f"logic, 0.1 mm², {name}",
        )

    axes[2].set_title("objectives, each at its camera's pixel", fontsize=9)
    for (name, lens), style in zip(LENSES.items(), ("-", "--", ":"), strict=True):
        axes[2].plot(
            DZ_UM, [edge(dz, 1000.0, lens, None) for dz in DZ_UM], style, color=ACCENT, label=f"edge, 1 mm, {name}"
        )
        axes[2].plot(
            DZ_UM,
            [texture(dz, 0.1, LOGIC, lens, None) for dz in DZ_UM],
            style,
            color=ALARM,
            label=f"logic, 0.1 mm², {name}",
        )
    for axis in axes:
        axis.legend(frameon=False, fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    with PIL.Image.open(path) as drawn:
        drawn.convert("RGB").quantize(128, PIL.Image.Quantize.MAXCOVERAGE).save(path, optimize=True)


def _draw_reached(axis: pyplot.Axes, rows: list[dict[str, object]]) -> None:
    """One mark a bin: its shape is the surface, filled where the network was told more than the image."""
    told = list(dict.fromkeys(json.dumps(row["inputs"]) for row in rows))
    for place, words in enumerate(told):
        for kind, (mark, name) in SURFACES.items():
            chosen = [
                row
                for row in rows
                if json.dumps(row["inputs"]) == words and row["surface"] == kind and row["surfaces"] >= LEAST_SURFACES
            ]
            if chosen:
                known = ", ".join(json.loads(words)).replace("objective", "focus")
                axis.plot(
                    [max(row["middle_um"], DZ_UM[0]) for row in chosen],
                    [row["p68_um"] for row in chosen],
                    mark,
                    color=INK,
                    ms=4.5,
                    mfc=INK if place else "white",
                    label=f"{name}: {known}",
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?")
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--evaluation", type=Path, help="what is reached: read, or written where a bundle is given")
    parser.add_argument("--inputs", action="append", default=[], help="image,product,track; may be repeated")
    parser.add_argument("--fields", type=int, help="only so many")
    parser.add_argument("--trials", type=int, default=0)
    parser.add_argument("--out", type=Path, default=PICTURE)
    told = parser.parse_args()
    if (told.bundle is None) != (told.data is None):
        parser.error("BUNDLE and DATA go together")
    rows: list[dict[str, object]] = []
    if told.bundle is not None:
        rows = reached(told.bundle, told.data, told.inputs, told.fields)
        if told.evaluation is not None:
            told.evaluation.write_text(json.dumps(rows, indent=1) + "\n")
    elif told.evaluation is not None:
        rows = json.loads(told.evaluation.read_text())
    draw(told.out, rows)
    result = {"question": "what the optics permit of a height, and what is reached", **bounds(), "reached": rows}
    if told.trials:
        result["maximum_likelihood"] = efficiencies(told.trials)
    print(json.dumps({**result, "picture_kb": round(told.out.stat().st_size / 1e3, 1), **machine()}, indent=1))


if __name__ == "__main__":
    main()
