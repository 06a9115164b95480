"""Makes the pictures of the README and the docs from the simulator and the shipped bundle.

Usage: python docs/pictures/make.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
import PIL.Image
from matplotlib import pyplot

from waferlens.bundle.calibration import intervals
from waferlens.bundle.files import open_bundle
from waferlens.bundle.package import PackageSession
from waferlens.bundle.readout import read_out
from waferlens.bundle.session import Session
from waferlens.bundle.verdict import NG
from waferlens.inspect.package import drawn, finding_of
from waferlens.measure.flatness import measure_flatness
from waferlens.measure.flatness_figure import draw_flatness
from waferlens.prepare.geometry import batch_input
from waferlens.prepare.golden import fit_images
from waferlens.prepare.package_part import asked_angle, examined
from waferlens.prepare.package_verdict import verdict_of
from waferlens.recipe import load_recipe
from waferlens.records import HeightMap, Image
from waferlens.simulate.hole.dataset import hole_world
from waferlens.simulate.hole.defects import DefectSpec
from waferlens.simulate.hole.field import FieldSpec, Role
from waferlens.simulate.hole.twins import FieldImage, field_images
from waferlens.simulate.hole.world import draw_pairs
from waferlens.simulate.package import contact_sheet as package_sheet
from waferlens.simulate.package.dataset import package_world
from waferlens.simulate.package.device import draw_device
from waferlens.simulate.wafer.contact_sheet import world_sheet
from waferlens.simulate.wafer.dataset import wafer_world

HERE = Path(__file__).parent
INK, PALE, ACCENT, ALARM = "#1d2733", "#7fb7c9", "#1f6f8b", "#b5472f"
pyplot.rcParams.update({"font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": "#9aa7b0"})


def hole() -> None:
    """One image, its depth map, sigma and a profile with its interval."""
    bundle = open_bundle("hole-fast")
    pair = draw_pairs(hole_world("sim"), 20_260_101, 3)[1]
    told = read_out(Session(bundle), bundle.calibration, batch_input(pair.images[:1]))
    heights = told.depth[0] - told.measurands["plateau"][0]
    truth = pair.heights - pair.plateau_nm
    found = intervals(bundle.calibration, told.measurands, told.features, 0.9)
    figure, axes = pyplot.subplots(1, 4, figsize=(9.6, 3.2), width_ratios=(1, 1.25, 1.25, 1.9), layout="constrained")
    for axis in axes[:3]:
        axis.set(xticks=[], yticks=[])
    axes[0].imshow(pair.images[0], cmap="gray", vmin=0, vmax=255)
    axes[0].set_title("SEM image")
    shown = axes[1].imshow(heights, cmap="viridis")
    figure.colorbar(shown, ax=axes[1], label="height [nm]", shrink=0.9)
    axes[1].set_title("height map")
    shown = axes[2].imshow(told.sigma[0], cmap="magma", vmin=0)
    figure.colorbar(shown, ax=axes[2], label="sigma [nm]", shrink=0.9)
    axes[2].set_title("standard deviation")
    row = 36
    x = np.arange(heights.shape[1])
    half = bundle.calibration.pixel.quantiles["0.9"] * told.sigma[0, row]
    axes[3].fill_between(x, heights[row] - half, heights[row] + half, color=PALE, label="90 % interval", lw=0)
    axes[3].plot(x, truth[row], color=INK, lw=0.9, ls="--", label="truth")
    axes[3].plot(x, heights[row], color=ACCENT, lw=1.2, label="measured")
    axes[3].set(xlabel="x [px]", ylabel="height [nm]", title=f"profile of row {row}")
    axes[3].spines[["top", "right"]].set_visible(False)
    axes[3].legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0.9))
    depth, cd = found["depth"], found["cd50_area"]
    figure.suptitle(
        f"depth {depth.value[0]:.1f} nm [{depth.low[0]:.1f}, {depth.high[0]:.1f}]     "
        f"CD at half depth {cd.value[0]:.2f} px [{cd.low[0]:.2f}, {cd.high[0]:.2f}]     (90 % intervals)",
        fontsize=10,
    )
    figure.savefig(HERE / "hole.png", dpi=130)
    pyplot.close(figure)


def golden() -> None:
    """A template of good fields, a defect that deviates from it, and how good and defective fields deviate."""
    world, spec, seed = hole_world("sim"), FieldSpec(rows=2, columns=3), 20_260_102
    good = [_image(one) for one in field_images(world, seed, 439, spec=spec)]
    bad = list(
        field_images(
            world, seed, 60, spec=spec, role=Role.DEFECTIVE, defects=DefectSpec(size_px=(4, 16), contrast_grey=(25, 80))
        )
    )
    recipe = load_recipe("golden-template", ["threshold.false_alarm_rate=0.01"])
    session, _, _, _ = fit_images(recipe, good[:40], good[40:239])
    judged = [[session.find(one) for one in part] for part in (good[239:], [_image(one) for one in bad])]
    shown = next(
        place
        for place, (one, found) in enumerate(zip(bad, judged[1], strict=True))
        if one.planted[0].defect.kind == "particle" and found.findings
    )
    found = judged[1][shown]
    figure, axes = pyplot.subplots(1, 4, figsize=(9.6, 2.6), width_ratios=(1, 1, 1.22, 1.7), layout="constrained")
    for axis in axes[:3]:
        axis.set(xticks=[], yticks=[])
    axes[0].imshow(session.reference.pixels, cmap="gray", vmin=0, vmax=255)
    axes[0].set_title(f"template of {session.reference.images}")
    axes[1].imshow(bad[shown].pixels, cmap="gray", vmin=0, vmax=255)
    axes[1].set_title("a new image")
    deviation = found.compared.deviation / session.factor
    drawn = axes[2].imshow(deviation, cmap="RdBu_r", vmin=-3, vmax=3)
    figure.colorbar(drawn, ax=axes[2], shrink=0.85)
    axes[2].set_title("deviation [thresholds]")
    for finding in found.findings:
        x0, y0, x1, y1 = finding.box
        for axis in axes[1:3]:
            axis.add_patch(
                pyplot.Rectangle((x0 - 2, y0 - 2), x1 - x0 + 4, y1 - y0 + 4, fill=False, color=ALARM, lw=1.2)
            )
    levels = [[session.alarm_level(one.compared) / session.factor for one in part] for part in judged]
    edges = 1.15 ** np.arange(-7, 23)  # one of them is the threshold
    axes[3].hist(levels[0], edges, color=PALE, label=f"{len(levels[0])} good")
    axes[3].hist(levels[1], edges, histtype="step", color=ALARM, lw=1.4, label=f"{len(levels[1])} with a defect")
    axes[3].axvline(1, color=INK, lw=0.8, ls="--")
    axes[3].set(xscale="log", xlabel="greatest deviation that makes a finding", ylabel="images")
    axes[3].set_title("1 % of good images stated")
    axes[3].set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    axes[3].minorticks_off()
    axes[3].spines[["top", "right"]].set_visible(False)
    axes[3].legend(frameon=False)
    figure.savefig(HERE / "golden.png", dpi=100)
    pyplot.close(figure)


def flatness() -> None:
    """A free wafer of 300 mm: a bowl with a ripple, a place without data, and its sites of 25 x 25 mm."""
    y, x = np.mgrid[:600, :600]
    x, y = (x - 299.5) / 300, (y - 299.5) / 300
    heights = 40 * (x**2 + 0.6 * y**2) + 3 * x - 7 * y + 3 * np.sin(9 * x) * np.cos(7 * y)
    heights[(np.hypot(x, y) > 1) | (np.hypot(x - 0.4, y + 0.3) < 0.12)] = np.nan
    made = HeightMap(heights, np.isfinite(heights), "um", 0.5, 0.5, "mm")
    found = measure_flatness(made, site_mm=(25, 25), edge_exclusion_mm=3, chuck="free")
    path = HERE / "flatness.png"
    draw_flatness(path, found, "a bowl with a ripple, 300 mm")
    with PIL.Image.open(path) as drawn:
        small = drawn.convert("RGB").resize((1100, round(1100 * drawn.height / drawn.width)))
    colours = small.quantize(256, PIL.Image.Quantize.MAXCOVERAGE)
    small.quantize(palette=colours, dither=PIL.Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


def simulated_wafers() -> None:
    """Fields of four wafers, their heights, and what the auto-focus sensor says of them."""
    sheet = world_sheet(wafer_world("real"), 5, columns=4)[:, :, ::-1]
    made = PIL.Image.fromarray(np.ascontiguousarray(sheet)).quantize(96, PIL.Image.Quantize.MEDIANCUT)
    made.save(HERE / "simulated-wafers.png", optimize=True)


def simulated_packages() -> None:
    """Four devices in three lights, and their truth."""
    sheet = package_sheet.world_sheet(package_world("sim"), 1, columns=4, first=75)[:, :, ::-1]
    made = PIL.Image.fromarray(np.ascontiguousarray(sheet))
    small = made.resize((680, round(680 * made.height / made.width)), PIL.Image.Resampling.LANCZOS)
    # by coverage: purple films, gold wires and red boxes are few pixels among many green ones
    colours = small.quantize(256, PIL.Image.Quantize.MAXCOVERAGE)
    small.quantize(palette=colours, dither=PIL.Image.Dither.FLOYDSTEINBERG).save(
        HERE / "simulated-packages.png", optimize=True
    )


def package() -> None:
    """A cracked device in brightfield, in darkfield with what is found on it, and the crack in both."""
    device = draw_device(package_world("sim"), 7, 5)
    bundle = open_bundle("package-fast")
    session, angle = PackageSession(bundle), asked_angle(bundle)
    dark = device.images["dfw"]
    part = examined(session, dark, angle, least=session.score_review.tolist())
    says = verdict_of(part, session, angle)
    grey = dark.mean(axis=2, dtype=np.float32)
    found = [
        finding_of(kind, score, box, grey, None, critical=True)
        for kind, score, box, verdict in zip(part.kinds, part.scores, part.boxes, says.findings, strict=True)
        if verdict == NG
    ]
    x, y = ((found[0].box[side] + found[0].box[side + 2]) / 2 for side in (0, 1))
    seen = np.clip(1.8 * drawn(dark, part, found)[..., ::-1].astype(np.float32), 0, 255).astype(np.uint8)
    both = [PIL.Image.fromarray(one) for one in (device.images["bf"], seen)]
    whole, gap, near = (315, 520), 12, 254
    sheet = PIL.Image.new("RGB", (2 * whole[0] + 2 * gap + near, whole[1]), "white")
    for place, one in enumerate(both):
        sheet.paste(one.resize(whole, PIL.Image.Resampling.LANCZOS), (place * (whole[0] + gap), 0))
        close = one.crop((round(x) - 65, round(y) - 65, round(x) + 65, round(y) + 65)).resize((near, near))
        sheet.paste(close, (2 * (whole[0] + gap), place * (near + gap)))
    sheet.quantize(192, dither=PIL.Image.Dither.NONE).save(HERE / "package.png", optimize=True)


def _image(one: FieldImage) -> Image:
    return Image(one.pixels, 255.0, path=f"{one.role.name.lower()}/{one.index}")


if __name__ == "__main__":
    hole()
    golden()
    flatness()
    simulated_wafers()
    simulated_packages()
    package()
