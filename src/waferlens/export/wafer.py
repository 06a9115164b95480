"""A run of the wafer station becomes a bundle: graph, parity on held-out fields, intervals by group, card."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from waferlens import __version__
from waferlens.bundle.files import open_bundle, write_bundle
from waferlens.bundle.wafer import MULTIPLE_PX, WaferSession, column_facts, product_facts
from waferlens.bundle.wafer_calibration import WaferCalibration
from waferlens.errors import InputError
from waferlens.evaluate.wafer_calibrate import fit_wafer_calibration
from waferlens.export.finished import Exported, begun_lines
from waferlens.export.onnx import Parity, as_json, compare_maps, graph_of, require_parity
from waferlens.load.wafer import Field, manifest, read_fields, wafers_of_fields
from waferlens.models import build_wafer, describe
from waferlens.models.height import HeightNet
from waferlens.prepare.splits import WAFER_FRACTIONS, split_of
from waferlens.prepare.wafer_input import shown
from waferlens.recipe import WaferRecipe, as_yaml
from waferlens.train import WEIGHTS

TOLERANCE_UM = 0.1
"""Greatest difference between torch and ONNX Runtime that is let through [um]"""
PARITY_FIELDS = 24
"""Held-out fields on which both are run."""
PARITY_STEP_PX = 5
"""Every so many pixels along each side are judged."""


def export_wafer(
    recipe: WaferRecipe,
    run: Path,
    source: Path,
    card: dict[str, Any],
    out: Path,
    tolerance: float | None,
    show: Callable[[int, int], None] | None = None,
) -> Exported:
    """Exports a run, proves its parity, calibrates what was exported and writes the bundle.

    Args:
        recipe: Of the run.
        run: Folder of a finished run.
        source: Fields to calibrate on; only wafers of its calibration split are used.
        card: The run card.
        out: Folder or `.zip` of the bundle.
        tolerance: Greatest difference between torch and ONNX Runtime; `TOLERANCE_UM` if None [um]
        show: Called with how many fields it has calibrated on, of how many.

    Raises:
        InputError: the data cannot be used.
        ParityError: the exported graph does not say what the network says.
    """
    network = build_wafer(recipe)
    network.load_state_dict(load_file(run / WEIGHTS))
    network.eval()
    model, resolved = wafer_graph(network, recipe), as_yaml(recipe)
    wafers = held_out(source)
    with tempfile.TemporaryDirectory() as folder:
        bare = write_bundle(Path(folder) / "bare", {"model.onnx": model, "recipe.yaml": resolved, "runcard.json": card})
        session = WaferSession(bare, threads=torch.get_num_threads())
    told = manifest(source)
    grounds = {
        "folder": source.name,
        "world": told["world"]["name"],
        "fields": len(wafers),
        "wafers": len(set(wafers)),
        "split": "calibration",
        "known": list(session.known),
        "version": __version__,
    }
    some = islice(read_fields(source, is_held_out), PARITY_FIELDS)
    parity = wafer_parity(network, session, some, TOLERANCE_UM if tolerance is None else tolerance)
    require_parity(parity, "um")
    fields = read_fields(source, is_held_out)  # one at a time: of a large set they do not fit into memory
    done = count(1)
    advance = None if show is None else lambda _: show(next(done), len(wafers))
    calibration = fit_wafer_calibration(session, fields, recipe.calibration.levels, grounds, advance)
    bundle = write_bundle(
        out,
        {
            "model.onnx": model,
            "recipe.yaml": resolved,
            "runcard.json": card,
            "calibration.json": json.dumps(calibration.to_json(), indent=1) + "\n",
            "parity.json": as_json(parity),
            "CARD.md": wafer_card(recipe, card, as_json(parity), calibration),
        },
    )
    size = sum(len(part) for part in bundle.files.values())
    return Exported(str(out), open_bundle(out).fingerprint, size, as_json(parity), len(wafers))


def is_held_out(wafer: str) -> bool:
    """Whether a wafer neither trained nor chose anything."""
    return split_of(wafer, WAFER_FRACTIONS) == "calibration"


def held_out(source: Path) -> list[str]:
    """The wafer of each field that is left to calibrate on.

    Raises:
        InputError: there is none.
    """
    wafers = wafers_of_fields(source, is_held_out)
    if not wafers:
        raise InputError(
            source, "no wafer falls into the calibration split; simulate more, or name another folder with --data"
        )
    return wafers


def wafer_graph(network: HeightNet, recipe: WaferRecipe) -> bytes:
    """The network as an ONNX model; one that takes any size has rows and columns in multiples of `MULTIPLE_PX`."""
    spec, free = recipe.input, network.facts
    h, w = (2 * MULTIPLE_PX, 3 * MULTIPLE_PX) if free else (spec.height_px, spec.width_px)
    inputs = {"image": torch.rand(1, spec.channels, h, w)}
    axes: dict[str, dict[int, str]] = {name: {0: "b"} for name in ("image", *network.outputs)}
    if free:
        inputs |= {"columns": torch.rand(1, 4, w), "product": torch.rand(1, 6)}
        axes |= {"columns": {0: "b", 2: "w"}, "product": {0: "b"}}
        axes["image"] |= {2: "h", 3: "w"}
        for name in network.outputs:
            axes[name] |= {2: "p", 3: "q"} if name == "classes" else {2: "h", 3: "w"}
    return graph_of(network, inputs, network.outputs, axes)


def wafer_parity(network: HeightNet, session: WaferSession, fields: Iterable[Field], tolerance: float) -> Parity:
    """Runs both on the same fields, on every other one with all that is known and else with the image alone."""
    ours, theirs, our_sigma, their_sigma = [], [], [], []
    for place, field in enumerate(fields):
        seen = shown(
            field.image,
            field.pitch_um,
            field.trace,
            network_pitch_um=session.pitch_um,
            size_px=session.size_px,
            full_scale=field.white,
        )
        told = place % 2 == 0
        known = {
            "objective_z_um": seen.objective_z_um if told else None,
            "track_z_um": seen.track_z_um if told else None,
        }
        found = session.predict(seen.image, product=field.product if told else None, direction=seen.direction, **known)
        h, w = seen.image.shape
        rows, columns = (0, 0) if session.size_px is not None else ((-h) % MULTIPLE_PX, (-w) % MULTIPLE_PX)
        image = torch.from_numpy(np.pad(seen.image, ((0, rows), (0, columns)), mode="edge"))
        inputs = [image.expand(1, session.channels, -1, -1)]
        if network.facts:
            facts = column_facts(
                w + columns,
                known["objective_z_um"] if "objective" in session.known else None,
                known["track_z_um"] if "track" in session.known else None,
                seen.direction,
            )
            stack = product_facts(field.product if told and "product" in session.known else None)
            inputs += [torch.from_numpy(facts)[None], torch.from_numpy(stack)[None]]
        said = network.predict(*inputs)
        ours.append(said[0][0, 0, :h, :w].numpy())
        theirs.append(found.height_um)
        if network.sigma:
            our_sigma.append(said[1][0, 0, :h, :w].numpy())
            their_sigma.append(found.raw_sigma_um)
    return compare_maps(ours, theirs, (our_sigma, their_sigma), tolerance, PARITY_STEP_PX)


def wafer_card(recipe: WaferRecipe, card: dict[str, Any], parity: dict[str, Any], calibration: WaferCalibration) -> str:
    """What the bundle is, for people."""
    network, results, grounds, told = describe(recipe), card["results"], calibration.data, card["data"]
    size = "any size" if recipe.model.kind == "wafer-fast" else f"{recipe.input.width_px} x {recipe.input.height_px} px"
    pitch = f"{recipe.input.pitch_um:g} um a pixel" if recipe.input.pitch_um else "the whole field"
    known = ", ".join(recipe.input.known) or "nothing"
    lines = [
        f"# {recipe.name}",
        "",
        f"{recipe.summary[0].upper()}{recipe.summary[1:]}.",
        "",
        f"- input: grey image of {size}, {pitch}; images of another pitch are averaged over areas",
        f"- it may be told beside the image: {known}",
        f"- network: {network['parameters_fused']:,} parameters as exported, {network['gflops']:.2f} GFLOPs for "
        f"{recipe.input.width_px} x {recipe.input.height_px} px",
        f"- trained on: {told['images']} fields of `{told.get('world', told['folder'])}` in "
        f"{results['cpu_seconds'] / 60:.1f} CPU-minutes, {results['epochs']} epochs, {recipe.loss.supervision} truth",
        *begun_lines(results),
        f"- mean absolute error on its validation wafers, all told: {results['mae_validation']:.2f} um"
        + (" of the track's reading, for no dense truth was told" if told.get("validated_on") == "track" else ""),
        f"- {'calibrated' if calibration.quantiles else 'compared'} on: {grounds.get('fields', 0)} fields of "
        f"{grounds.get('wafers', 0)} wafers of `{grounds.get('world')}`, which trained nothing"
        + ("" if calibration.quantiles else "; it tells no sigma, so there are no intervals"),
        f"- torch against ONNX Runtime: {parity['max_abs']:.2g} um at most on {parity['images']} fields, "
        f"{parity['ok_ng_flips']} verdicts of pixels turned",
        f"- sources: {', '.join(card['sources'])}",
        "",
        "## Meant for",
        "",
        "Scans like those it was trained on. Heights are above the carrier. Where the picture cannot tell a height,",
        "sigma says so, if it is told; what is known beside the image decides how often that is.",
        "",
    ]
    return "\n".join(lines)
