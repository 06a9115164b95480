"""A run on indoor views becomes a bundle: graph, parity on views that taught it nothing, card, and no intervals."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from waferlens.bundle.files import open_bundle, write_bundle
from waferlens.bundle.views import ViewSession
from waferlens.errors import InputError
from waferlens.export.finished import Exported, begun_lines
from waferlens.export.onnx import as_json, compare_maps, require_parity
from waferlens.export.wafer import wafer_graph
from waferlens.formats.nyu import entries, read_views
from waferlens.load.nyu import split
from waferlens.models import build_wafer, describe
from waferlens.prepare.views import colours_on_grid
from waferlens.recipe import WaferRecipe, as_yaml
from waferlens.train import WEIGHTS

TOLERANCE_M = 0.001
"""Greatest difference between torch and ONNX Runtime that is let through [m]"""
PARITY_VIEWS = 24
"""Views on which both are run."""
PARITY_STEP_PX = 5
"""Every so many pixels along each side are judged."""


def export_views(
    recipe: WaferRecipe, run: Path, source: Path, card: dict[str, Any], out: Path, tolerance: float | None
) -> Exported:
    """Exports a run, proves its parity and writes the bundle.

    Args:
        recipe: Of the run.
        run: Folder of a finished run.
        source: Views; those of the test side are used, or of the validation side where there is none.
        card: The run card.
        out: Folder or `.zip` of the bundle.
        tolerance: Greatest difference between torch and ONNX Runtime; `TOLERANCE_M` if None [m]

    Raises:
        InputError: the data cannot be used.
        ParityError: the exported graph does not say what the network says.
    """
    network = build_wafer(recipe)
    network.load_state_dict(load_file(run / WEIGHTS))
    network.eval()
    parts: dict[str, Any] = {
        "model.onnx": wafer_graph(network, recipe), "recipe.yaml": as_yaml(recipe), "runcard.json": card,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        session = ViewSession(write_bundle(Path(folder) / "bare", parts), threads=torch.get_num_threads())
    colours = _held_out(source, session)
    ours = [network.predict(torch.from_numpy(one[None]).float() / 255)[0][0, 0].numpy() for one in colours]
    theirs = [session.predict(one[None])[0] for one in colours]
    parity = compare_maps(ours, theirs, ((), ()), TOLERANCE_M if tolerance is None else tolerance, PARITY_STEP_PX)
    require_parity(parity, "m")
    told = as_json(parity)
    bundle = write_bundle(out, {**parts, "parity.json": told, "CARD.md": views_card(recipe, card, told)})
    size = sum(len(part) for part in bundle.files.values())
    return Exported(str(out), open_bundle(out).fingerprint, size, told, 0)


def _held_out(source: Path, session: ViewSession) -> list[np.ndarray]:
    sides = split(entries(source), source)
    listed = (sides["test"] or sides["validation"])[:PARITY_VIEWS]
    if not listed:
        raise InputError(source, "no view is on the test or validation side; there are too few rooms")
    return [colours_on_grid(view.rgb, *session.size_px, session.channels) for view in read_views(listed)]


def views_card(recipe: WaferRecipe, card: dict[str, Any], parity: dict[str, Any]) -> str:
    """What the bundle is, for people."""
    network, results, told = describe(recipe), card["results"], card["data"]
    lines = [
        f"# {recipe.name}",
        "",
        f"{recipe.summary[0].upper()}{recipe.summary[1:]}.",
        "",
        f"- input: colour view, scaled to {recipe.input.width_px} x {recipe.input.height_px} px",
        f"- network: {network['parameters_fused']:,} parameters as exported, {network['gflops']:.2f} GFLOPs a view",
        f"- trained on: {told['images']} views of `{told['folder']}` in {results['cpu_seconds'] / 60:.1f} CPU-minutes, "
        f"{results['epochs']} epochs",
        *begun_lines(results),
        f"- mean absolute error on its validation rooms: {results['mae_validation']:.3f} m",
        f"- torch against ONNX Runtime: {parity['max_abs']:.2g} m at most on {parity['images']} views",
        f"- sources: {', '.join(card['sources'])}",
        "",
        "## Meant for",
        "",
        "Comparing depth networks on indoor views with `waferlens evaluate`. It measures no wafers and tells no",
        "intervals.",
        "",
    ]
    return "\n".join(lines)
