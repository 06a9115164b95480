"""A run becomes a bundle: the graph, its parity, its calibration, its card."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from waferlens import __version__
from waferlens.bundle.calibration import Calibration, level_key
from waferlens.bundle.files import open_bundle, write_bundle
from waferlens.bundle.session import Session
from waferlens.errors import InputError, UsageError
from waferlens.evaluate.calibrate import fit_calibration
from waferlens.export.onnx import TOLERANCE_GREY, as_json, compare, require_parity, to_onnx
from waferlens.formats import challenge
from waferlens.load.challenge import SimArrays, load_sim, scan
from waferlens.models import DepthNet, build, describe
from waferlens.prepare.geometry import batch_input
from waferlens.prepare.splits import split_of
from waferlens.recipe import as_yaml, load_recipe
from waferlens.recipe.hole import HoleRecipe
from waferlens.train import DATA, WEIGHTS

PARITY_IMAGES = 5000


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export came to."""

    bundle: str
    fingerprint: str
    bytes: int
    parity: dict[str, Any]
    calibrated_on: int
    """Images."""


def load_run(run: Path) -> tuple[HoleRecipe, DepthNet, dict[str, Any]]:
    """The recipe, the trained network and the run card of a run folder.

    Raises:
        InputError: the folder holds no finished run.
    """
    if not (run / WEIGHTS).exists():
        hint = "the run was interrupted: the same train command finishes it" if (run / "last.ckpt").exists() else ""
        raise InputError(run, f"holds no finished training run (no {WEIGHTS}){'; ' + hint if hint else ''}")
    recipe = load_recipe(run / "recipe.yaml")
    if not isinstance(recipe, HoleRecipe):
        raise InputError(run, f"recipe {recipe.name} is of station {recipe.station}; only hole runs are exported here")
    network = build(recipe)
    network.load_state_dict(load_file(run / WEIGHTS))
    return recipe, network.eval(), json.loads((run / "runcard.json").read_text())


def export(run: Path, out: Path, *, data: Path | None = None, tolerance: float = TOLERANCE_GREY) -> Exported:
    """Exports a run, proves its parity, calibrates what was exported and writes the bundle.

    Args:
        run: Folder of a finished training run.
        out: Folder or `.zip` of the bundle.
        data: Folder to calibrate on; the one it was trained on if None. Only structures of its calibration split are
            used: they trained and validated nothing.
        tolerance: Greatest difference of a pixel between torch and ONNX Runtime [grey]

    Raises:
        InputError: the run or its data cannot be used.
        ParityError: the exported graph does not say what the network says.
    """
    recipe, network, card = load_run(run)
    source = data if data is not None else _data_of(run)
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
    before = results.get("started_from")
    begun = (
        [f"- begun with: {before['recipe']}, {before['epochs']} epochs in {before['cpu_seconds'] / 60:.1f} CPU-minutes"]
        if before
        else []
    )
    lines = [
        f"# {recipe.name}",
        "",
        f"{recipe.summary[0].upper()}{recipe.summary[1:]}.",
        "",
        f"- input: grey image of {recipe.input.width_px} x {recipe.input.height_px} px (width x height), 8 or 16 bits",
        f"- network: {network['parameters_fused']:,} parameters as exported, {network['gflops']:.4f} GFLOPs an image",
        f"- trained on: {told.get('images', '?')} images of `{told.get('world', told['folder'])}`"
        f" in {results['cpu_seconds'] / 60:.1f} CPU-minutes, {results['epochs']} epochs",
        *begun,
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


def _data_of(run: Path) -> Path:
    told = json.loads((run / DATA).read_text())["folder"] if (run / DATA).exists() else None
    if told is None or not Path(told).is_dir():
        raise UsageError(
            f"{run}: the folder it was trained on ({told or 'not told'}) is not here; "
            "name one to calibrate on: --data DIR"
        )
    return Path(told)


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
