"""A run of the package station becomes a bundle: graph with its decoding, calibration and parity on held-out devices,
card.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from safetensors.torch import load_file

from waferlens.bundle.files import open_bundle, write_bundle
from waferlens.bundle.package import PackageSession, Said, best_scores
from waferlens.bundle.package_calibration import PackageCalibration
from waferlens.bundle.verdict import REVIEW, judge
from waferlens.errors import InputError, ParityError
from waferlens.export.finished import Exported, begun_lines
from waferlens.export.onnx import LIMIT_PERCENTILES, OPSET, graph_of
from waferlens.export.package_calibration import calibrated, calibration_lines, never_seen
from waferlens.models import build_detector, describe
from waferlens.models.detector import DetectorNet, ExportedDetector
from waferlens.prepare.beside_reference import shown_pixels
from waferlens.prepare.package_findings import prepared
from waferlens.prepare.package_sides import side_pictures
from waferlens.recipe import PackageRecipe, as_yaml
from waferlens.train import WEIGHTS

TOLERANCE_PX = 0.05
"""Greatest difference of an edge between torch and ONNX Runtime that is let through, where there is a box [px]"""
TOLERANCE_SCORE = 0.001
"""Greatest difference of a score that is let through."""
TOLERANCE_MASK = 0.01
"""Greatest difference of a prototype, or of a coefficient, of masks that is let through."""
SEEN_SCORE = 0.01
"""Boxes of a lower score are of nothing, and are not compared."""
PARITY_IMAGES = 24
"""Held-out images on which both are run."""


@dataclass(frozen=True, slots=True)
class PackageParity:
    """How far ONNX Runtime and torch agree, on images that trained nothing."""

    images: int
    max_abs: float
    """Greatest difference of an edge of a box that shows something [px]"""
    max_abs_score: float
    """Greatest difference of a score."""
    max_abs_mask: float
    """Greatest difference of a prototype or coefficient of masks; 0 where none are told."""
    tolerance: float
    """What is let through of an edge [px]"""
    tolerance_score: float
    ok_ng_flips: int
    """Images whose best score of a class is above a limit in one and below in the other, by more than the tolerance."""
    review_changes: int
    """Images that came or left within the tolerance of a limit."""
    findings_changed: int
    """Images on which the number of findings, or their classes, differ."""


def export_package(
    recipe: PackageRecipe,
    run: Path,
    source: Path,
    card: dict[str, Any],
    out: Path,
    tolerance: float | None,
    show: Callable[[int, int], None] | None = None,
) -> Exported:
    """Exports a run, calibrates what was exported, proves its parity and writes the bundle.

    Args:
        recipe: Of the run.
        run: Folder of a finished run.
        source: Images with truth; only devices that trained nothing are used, see `package_calibration`.
        card: The run card.
        out: Folder or `.zip` of the bundle.
        tolerance: Greatest difference of an edge between torch and ONNX Runtime; `TOLERANCE_PX` if None [px]
        show: Told how many images it has calibrated on, of how many.

    Raises:
        InputError: the data cannot be used.
        ParityError: the exported graph does not say what the network says.
    """
    network = build_detector(recipe)
    network.load_state_dict(load_file(run / WEIGHTS))
    network.eval()
    parts: dict[str, Any] = {
        "model.onnx": detector_graph(network, recipe), "recipe.yaml": as_yaml(recipe), "runcard.json": card,
    }  # fmt: skip
    threads, whole = torch.get_num_threads(), never_seen(source, card)
    with tempfile.TemporaryDirectory() as folder:
        bare = write_bundle(Path(folder) / "bare", parts)
        session = PackageSession(bare, threads)
        images = held_out(recipe, source, session, whole)
        told = calibrated(session, bare, source, whole, show)
        if isinstance(told, PackageCalibration):
            parts["calibration.json"] = told.to_json()
            session = PackageSession(write_bundle(Path(folder) / "calibrated", parts), threads)
    parity = package_parity(network, session, images, TOLERANCE_PX if tolerance is None else tolerance)
    require_package_parity(parity)
    report = {**asdict(parity), "limits_at_percentiles": list(LIMIT_PERCENTILES), "opset": OPSET}
    bundle = write_bundle(out, {**parts, "parity.json": report, "CARD.md": package_card(recipe, card, report, told)})
    size = sum(len(part) for part in bundle.files.values())
    count = told.data["images"] if isinstance(told, PackageCalibration) else 0
    return Exported(str(out), open_bundle(out).fingerprint, size, report, count)


def detector_graph(network: DetectorNet, recipe: PackageRecipe) -> bytes:
    """The network as an ONNX model of images `b c h w` in 0..255: boxes and scores out, of any number of images."""
    spec = recipe.input
    example = {"image": torch.zeros(2, spec.channels, spec.height_px, spec.width_px)}
    axes = {name: {0: "b"} for name in ["image", *network.outputs]}
    return graph_of(ExportedDetector(network), example, network.outputs, axes)


def held_out(
    recipe: PackageRecipe, source: Path, session: PackageSession, whole: bool = False
) -> Float32[np.ndarray, "b c h w"]:
    """Some images of devices that neither trained nor chose anything, as the network is shown them.

    Args:
        recipe: Of the run.
        source: Images with truth.
        session: Of the exported graph.
        whole: Whether none of its devices trained anything; else those of the calibration side are taken.

    Raises:
        InputError: there are none.
    """
    images = []
    for picture in islice(side_pictures(recipe, source, None if whole else "calibration"), PARITY_IMAGES):
        pixels, white = shown_pixels(picture, recipe.input.reference)
        images.append(prepared(session, pixels, picture.ic_quad, white)[0])
    if not images:
        raise InputError(
            source, "no image falls into the calibration split; there are too few devices, or name another --data"
        )
    return np.stack(images)


def package_parity(
    network: DetectorNet, session: PackageSession, images: Float32[np.ndarray, "b c h w"], tolerance_px: float
) -> PackageParity:
    """Runs both on the same images and counts what would have changed.

    Args:
        network: As trained, in evaluation mode.
        session: As exported.
        images: As the network is shown them [grey]
        tolerance_px: Greatest difference of an edge that counts as agreement [px]
    """
    edges, scores, masks, changed = 0.0, 0.0, 0.0, 0
    best: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for start in range(len(images)):
        ours, theirs = torch_says(network, images[start : start + 1]), session.predict(images[start : start + 1])
        seen = np.maximum(ours.scores.max(axis=2), theirs.scores.max(axis=2)) >= SEEN_SCORE
        edges = max(edges, _greatest(ours.boxes[seen], theirs.boxes[seen]))
        scores = max(scores, _greatest(ours.scores, theirs.scores))
        if ours.prototypes is not None and ours.coefficients is not None:
            masks = max(masks, _greatest(ours.prototypes, theirs.prototypes))
            masks = max(masks, _greatest(ours.coefficients[seen], theirs.coefficients[seen]))  # type: ignore[index]
        first, second = (session.kept(one)[0].kinds.tolist() for one in (ours, theirs))
        changed += sorted(first) != sorted(second)
        for kept, one in zip(best, (ours, theirs), strict=True):
            kept.append(best_scores(one.scores)[0])
    flips, reviews = _verdicts(np.stack(best[0]), np.stack(best[1]), session)
    return PackageParity(len(images), edges, scores, masks, tolerance_px, TOLERANCE_SCORE, flips, reviews, changed)


@torch.no_grad()
def torch_says(network: DetectorNet, images: Float32[np.ndarray, "b c h w"]) -> Said:
    """What the trained network itself says, unfused, in float32."""
    told = network.decoded(torch.from_numpy(images))
    return Said(*(None if part is None else part.numpy() for part in told))


def require_package_parity(parity: PackageParity) -> None:
    """Refuses an export that would not find what was trained.

    Raises:
        ParityError: a box or a score differs by more than the tolerance, or a verdict turned from OK to NG or back.
    """
    for what, difference, most, unit in (
        ("boxes", parity.max_abs, parity.tolerance, " px"),
        ("scores", parity.max_abs_score, parity.tolerance_score, ""),
        ("masks", parity.max_abs_mask, TOLERANCE_MASK, ""),
    ):
        if not difference <= most:
            raise ParityError(
                f"the {what} of ONNX Runtime and torch differ by up to {difference:.4g}{unit}, {most:g} is let "
                "through; not exported. Training with train.precision=f32, or a wider --tolerance, may help"
            )
    if parity.ok_ng_flips:
        raise ParityError(f"{parity.ok_ng_flips} verdicts turn between OK and NG after export; not exported")


def package_card(
    recipe: PackageRecipe, card: dict[str, Any], parity: dict[str, Any], calibration: PackageCalibration | str
) -> str:
    """What the bundle is, for people."""
    network, results, told = describe(recipe), card["results"], card["data"]
    shows = "upright package" if recipe.input.region == "roi" else "image"
    objects = ", ".join(f"{count} {kind}" for kind, count in told["objects"].items())
    lines = [
        f"# {recipe.name}",
        "",
        f"{recipe.summary[0].upper()}{recipe.summary[1:]}.",
        "",
        f"- input: {shows} in {recipe.input.width_px} x {recipe.input.height_px} px (width x height)",
        f"- lights: {', '.join(recipe.input.lights)}",
        f"- finds: {', '.join(recipe.target.classes)}"
        + ("" if recipe.angle is None else f"; turned dies by their angle, beyond {recipe.angle.limit_deg:g} deg"),
        f"- network: {network['parameters_fused']:,} parameters as exported, {network['gflops']:.2f} GFLOPs an image",
        f"- trained on: {told['images']} images of `{told.get('world', told['folder'])}` with {objects}, in "
        f"{results['cpu_seconds'] / 60:.1f} CPU-minutes, {results['epochs']} epochs",
        *begun_lines(results),
        f"- mAP50 on its validation devices: {1 - results['map50_error']:.3f}",
        *calibration_lines(calibration),
        f"- torch against ONNX Runtime: {parity['max_abs']:.2g} px and {parity['max_abs_score']:.2g} of a score at the "
        f"most on {parity['images']} images, {parity['ok_ng_flips']} verdicts turned",
        f"- sources: {', '.join(card['sources'])}",
        "",
        "## Meant for",
        "",
        "Images like those it was trained on, in the lights named above. What it promises of good devices holds for",
        "devices like those it was calibrated on.",
        "",
    ]
    return "\n".join(lines)


def _verdicts(ours: np.ndarray, theirs: np.ndarray, session: PackageSession) -> tuple[int, int]:
    """How many verdicts turn, and how many come or leave review, at the bundle's limits and in the thick of scores."""
    flips = changes = 0
    for kind in range(ours.shape[1]):
        own = (session.score_ng[kind], session.score_review[kind])
        for least in (*own, *np.percentile(ours[:, kind], LIMIT_PERCENTILES)):
            first, second = (
                judge(one[:, kind] - TOLERANCE_SCORE, one[:, kind] + TOLERANCE_SCORE, None, float(least))
                for one in (ours, theirs)
            )
            flips += int(np.sum((first != second) & (first != REVIEW) & (second != REVIEW)))
            changes += int(np.sum((first == REVIEW) != (second == REVIEW)))
    return flips, changes


def _greatest(ours: np.ndarray | None, theirs: np.ndarray | None) -> float:
    if ours is None or theirs is None or not ours.size:
        return 0.0
    return float(np.abs(ours - theirs).max())
