"""A run becomes a bundle: the graph, its parity, its calibration, its card."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from waferlens import __version__
from waferlens.bundle.calibration import Calibration, level_key
from waferlens.bundle.files import open_bundle, write_bundle
from waferlens.bundle.session import Session
from waferlens.errors import InputError
from waferlens.evaluate.calibrate import fit_calibration
from waferlens.export.finished import Exported, begun_lines, load_run
from waferlens.export.onnx import TOLERANCE_GREY, as_json, compare, require_parity, to_onnx
from waferlens.export.package import export_package
from waferlens.export.views import export_views
from waferlens.export.wafer import export_wafer
from waferlens.formats import challenge
from waferlens.load.challenge import SimArrays, load_sim, scan
from waferlens.models import build, describe
from waferlens.prepare.geometry import batch_input
from waferlens.prepare.splits import split_of
from waferlens.recipe import PackageRecipe, WaferRecipe, as_yaml
from waferlens.recipe.hole import HoleRecipe
from waferlens.train import WEIGHTS

PARITY_IMAGES = 5000


def export(
    run: Path,
    out: Path,
    *,
    data: Path | None = None,
    tolerance: float | None = None,
    show: Callable[[int, int], None] | None = None,
) -> Exported:
    """Exports a run, proves its parity, calibrates what was exported and writes the bundle.

    Args:
        run: Folder of a finished training run.
        out: Folder or `.zip` of the bundle.
        data: Folder to calibrate on; the one it was trained on if None. Only structures of its calibration split are
            used: they trained and validated nothing.
        tolerance: Greatest difference between torch and ONNX Runtime; of the station if None [grey, um, m, px]
        show: Called with how many fields of wafers, or images of packages, it has calibrated on, of how many.

    Raises:
        InputError: the run or its data cannot be used.
        ParityError: the exported graph does not say what the network says.
    """
    recipe, source, card = load_run(run, data)
    if isinstance(recipe, WaferRecipe):
        if recipe.input.scene == "nyu":
            return export_views(recipe, run, source, card, out, tolerance)
        return export_wafer(recipe, run, source, card, out, tolerance, show)
    if isinstance(recipe, PackageRecipe):
        return export_package(recipe, run, source, card, out, tolerance, show)
    network = build(recipe)
    network.load_state_dict(load_file(run / WEIGHTS))
    network.eval()
    tolerance = TOLERANCE_GREY if tolerance is None else tolerance
    held_out = _held_out(source)
    model = to_onnx(network, recipe.input.height_px, recipe.input.width_px)
    resolved = as_yaml(recipe)
    with tempfile.TemporaryDirectory() as folder:
        # The session that is compared and calibrated is the one a line will open: from a bundle.
        bare = write_bundle(Path(folder) / "bare", {"model.onnx": model, "recipe.yaml": resolved, "runcard.json": card})
        session = Session(bare, threads=2)
    grounds = {
        "folder": source.name,
        "world": _world_of(source),
        "images": len(held_out.sem),
        "structures": len(np.unique(held_out.structure)),
        "split": "calibration",
        "version": __version__,
    }
    spec = recipe.calibration
    calibration = fit_calibration(
        session, held_out.sem, held_out.depth, spec.levels, spec.out_of_domain_quantile, grounds
    )
    grey = batch_input(held_out.sem[:PARITY_IMAGES])
    parity = compare(network, session, grey, _half_widths(calibration, min(spec.levels)), tolerance)
    require_parity(parity)
    bundle = write_bundle(
        out,
        {
            "model.onnx": model,
            "recipe.yaml": resolved,
            "runcard.json": card,
            "calibration.json": calibration,
            "parity.json": as_json(parity),
            "CARD.md": bundle_card(recipe, card, as_json(parity), calibration),
        },
    )
    size = sum(len(part) for part in bundle.files.values())
    return Exported(str(out), open_bundle(out).fingerprint, size, as_json(parity), len(held_out.sem))


def bundle_card(recipe: HoleRecipe, card: dict[str, Any], parity: dict[str, Any], calibration: Calibration) -> str:
    """What the bundle is, for people."""
    network, results, grounds, told = describe(recipe), card["results"], calibration.data, card["data"]
    level = level_key(min(recipe.calibration.levels))
    lines = [
        f"# {recipe.name}",
        "",
        f"{recipe.summary[0].upper()}{recipe.summary[1:]}.",
        "",
        f"- input: grey image of {recipe.input.width_px} x {recipe.input.height_px} px (width x height), 8 or 16 bits",
        f"- network: {network['parameters_fused']:,} parameters as exported, {network['gflops']:.4f} GFLOPs an image",
        f"- trained on: {told.get('images', '?')} images of `{told.get('world', told['folder'])}`"
        f" in {results['cpu_seconds'] / 60:.1f} CPU-minutes, {results['epochs']} epochs",
        *begun_lines(results),
        f"- RMSE on its validation structures: {results['rmse_validation']:.3f} grey",
        f"- calibrated on: {grounds['images']} images of {grounds['structures']} structures of "
        f"`{grounds['world'] or grounds['folder']}`, which trained nothing",
        f"- torch against ONNX Runtime: {parity['max_abs']:.2g} grey at most on {parity['images']} images, "
        f"{parity['ok_ng_flips']} verdicts turned",
        f"- sources: {', '.join(card['sources'])}",
        "",
        "## Meant for",
        "",
        "Images like those it was calibrated on. What differs in brightness, contrast, sharpness or noise is answered",
        "with `review`; intervals hold inside the domain only.",
        "",
        f"## Intervals at {level}",
        "",
        "| measurand | factor on the predicted spread | bias corrected at |",
        "| --- | --- | --- |",
        *(
            f"| {name} | {part.quantiles[level]:.3f} | {len(part.bias_knots)} knots |"
            for name, part in calibration.measurands.items()
        ),
        "",
    ]
    return "\n".join(lines)


def _half_widths(calibration: Calibration, level: float) -> dict[str, float]:
    """Half-width of each measurand's interval at the mean of its features."""
    return {
        name: part.quantiles[level_key(level)] * float(np.exp(part.scale_coefficients[0]))
        for name, part in calibration.measurands.items()
    }


def _held_out(source: Path) -> SimArrays:
    """The images of the structures that neither trained nor validated anything."""
    holes = scan(source)
    structures = {hole.structure for hole in holes.sim if hole.depth is not None}
    if not any(split_of(structure) == "calibration" for structure in structures):
        raise InputError(
            source,
            f"none of its {len(structures)} structures falls into the calibration split; "
            "simulate more structures, or name another folder with --data",
        )
    return load_sim(holes, keep=lambda hole: split_of(hole.structure) == "calibration")


def _world_of(source: Path) -> str | None:
    manifest = challenge.manifest_path(source)
    return json.loads(manifest.read_text())["world"]["name"] if manifest.exists() else None
