"""Makes the pictures of the README and the docs from the simulator and the shipped bundle.

Usage: python docs/pictures/make.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot

from waferlens.bundle.calibration import intervals
from waferlens.bundle.files import open_bundle
from waferlens.bundle.readout import read_out
from waferlens.bundle.session import Session
from waferlens.prepare.geometry import batch_input
from waferlens.simulate.hole.dataset import hole_world
from waferlens.simulate.hole.world import draw_pairs

HERE = Path(__file__).parent
INK = "#1d2733"


def hole() -> None:
    """One image, its depth map, sigma and a profile with its interval."""
    bundle = open_bundle("hole-fast")
    pair = draw_pairs(hole_world("sim"), 20_260_101, 3)[1]
    told = read_out(Session(bundle), bundle.calibration, batch_input(pair.images[:1]))
    heights = told.depth[0] - told.measurands["plateau"][0]
    truth = pair.heights - pair.plateau_nm
    found = intervals(bundle.calibration, told.measurands, told.features, 0.9)
    pyplot.rcParams.update({"font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": "#9aa7b0"})
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
    axes[3].fill_between(x, heights[row] - half, heights[row] + half, color="#7fb7c9", label="90 % interval", lw=0)
    axes[3].plot(x, truth[row], color=INK, lw=0.9, ls="--", label="truth")
    axes[3].plot(x, heights[row], color="#1f6f8b", lw=1.2, label="measured")
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


if __name__ == "__main__":
    hole()
