"""A Segment Anything checkpoint becomes one graph, encoder and mask decoder, and the proof that it says the same.

With a bundle of a detector that draws boxes, it becomes a bundle that finds packages.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from waferlens import __version__
from waferlens.bundle.files import Bundle, open_bundle, write_bundle
from waferlens.bundle.sam import SamSession
from waferlens.errors import BundleError, InputError, ParityError, UsageError
from waferlens.export.finished import Exported
from waferlens.export.onnx import OPSET, graph_of
from waferlens.models.sam_roi import SamRoiNet, load_sam
from waferlens.recipe import RoiRecipe, as_yaml, load_recipe
from waferlens.recipe.package_roi import BoxSam
from waferlens.records import RunCard
from waferlens.train import WEIGHTS

TOLERANCE_LOGIT = 0.01
"""Greatest difference between torch and ONNX Runtime that is let through; a mask is where its logit is above 0."""
PARITY_IMAGES = 2
"""Made images on which both are run."""
RECIPE = "roi-yolov5n-sam"
"""Recipe of the pair unless another is named."""
MOST_BYTES = 2_000_000_000
"""Of a graph: what a file of ONNX holds"""


@dataclass(frozen=True, slots=True)
class SamParity:
    """How far ONNX Runtime and torch agree."""

    images: int
    max_abs: float
    """Greatest difference of a logit of the mask."""
    max_abs_score: float
    """Greatest difference of the expected overlap."""
    tolerance: float
    """What is let through."""
    flipped: int
    """Positions inside the mask of the one and outside that of the other."""


def export_pair(boxes: str | Path, checkpoint: str | Path, out: Path, recipe: str = RECIPE) -> Exported:
    """Writes the bundle of a detector and a Segment Anything network that is prompted by its boxes.

    Args:
        boxes: Bundle of a detector of packages on whole images, such as one of `roi-yolov5n`.
        checkpoint: Folder of `transformers`: `config.json` and `model.safetensors`; nothing is fetched.
        out: Folder or `.zip` of the bundle.
        recipe: Of the pair; which detector and which network it holds is written into it.

    Raises:
        UsageError: the recipe is of another kind, or `boxes` is a run.
        BundleError: the detector's bundle cannot be used.
        InputError: the folder holds no checkpoint of SAM or SAM 2, or one that is too large.
        MissingExtraError: transformers is not installed.
        ParityError: the graph does not say what the network says.
    """
    if (Path(boxes) / WEIGHTS).exists():
        raise UsageError(f"{boxes}: is a run; export it first, and name its bundle")
    detector = open_bundle(boxes)
    _require_detector(detector)
    said = load_recipe(recipe)
    if not isinstance(said, RoiRecipe) or not isinstance(said.model, BoxSam):
        raise UsageError(f"{recipe}: is no recipe of kind box-sam, such as {RECIPE}")
    network = load_sam(checkpoint)
    model, parity = proven_graph(network, Path(checkpoint))
    family = "sam2" if network.stretched else "sam"
    resolved = load_recipe(
        recipe,
        [f"model.family={family}", f"model.side_px={network.side_px}", f"model.boxes={detector.recipe['name']}"],
    )
    made = RunCard(
        kind="pair of networks",
        recipe=resolved.model_dump(mode="json"),
        seeds={},
        versions={name: version(name) for name in ("torch", "transformers")} | {"waferlens": __version__},
        data={
            "boxes": {"recipe": detector.recipe["name"], "fingerprint": detector.fingerprint},
            "mask": {"checkpoint": Path(checkpoint).name, "parameters": _count(network),
                     "sha256": _weights_of(Path(checkpoint))},
        },
        sources=[said.source, *said.builds_on],
    )  # fmt: skip
    card = asdict(made)
    parts = {
        "model.onnx": model,
        "boxes.onnx": detector.model,
        "boxes.yaml": detector.files["recipe.yaml"],
        "recipe.yaml": as_yaml(resolved),
        "runcard.json": card,
        "parity.json": {**parity, "boxes": detector.parity},
        "CARD.md": _card(resolved, card, parity),
    }
    bundle = write_bundle(out, parts)
    size = sum(len(part) for part in bundle.files.values())
    return Exported(str(out), bundle.fingerprint, size, parity, 0)


def _require_detector(detector: Bundle) -> None:
    told = detector.recipe
    region = (told.get("input") or {}).get("region")
    if told.get("station") != "package" or region != "image":
        raise BundleError(
            f"{detector.path}: is a bundle of {told.get('name')}, which draws no boxes around packages; one of "
            "roi-yolov5n does"
        )


def _count(network: SamRoiNet) -> int:
    return sum(one.numel() for one in network.network.parameters())


def _weights_of(checkpoint: Path) -> dict[str, str]:
    """Sums of its files of weights."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(checkpoint.glob("*.safetensors"))
    }


def _card(recipe: RoiRecipe, card: dict[str, Any], parity: dict[str, Any]) -> str:
    """What the bundle is, for people."""
    mask, boxes, family = card["data"]["mask"], card["data"]["boxes"], card["recipe"]["model"]["family"]
    lines = [
        f"# {recipe.name}",
        "",
        f"{recipe.summary[0].upper()}{recipe.summary[1:]}.",
        "",
        f"- boxes: the bundle of {boxes['recipe']}, fingerprint {boxes['fingerprint'][:12]}…",
        f"- mask: checkpoint `{mask['checkpoint']}` ({family}), {mask['parameters']:,} parameters, shown a square of "
        f"{parity['side_px']} px",
        f"- torch against ONNX Runtime: {parity['max_abs']:.2g} of a logit at the most on {parity['images']} images, "
        f"{parity['flipped']} positions of masks changed sides",
        f"- sources: {', '.join(card['sources'])}",
        "",
        "## Meant for",
        "",
        "Finding packages: `waferlens prepare roi IMAGES --bundle …`. It finds no defects.",
        "",
    ]
    return "\n".join(lines)


def proven_graph(network: SamRoiNet, checkpoint: Path) -> tuple[bytes, dict[str, Any]]:
    """The graph of a network and its parity report.

    Args:
        network: Of `load_sam`.
        checkpoint: Where it came from, for what is said of it.

    Raises:
        InputError: it is too large for a graph.
        ParityError: the graph does not say what the network says.
    """
    size = sum(one.numel() * one.element_size() for one in network.parameters())
    if size > MOST_BYTES:
        raise InputError(
            checkpoint, f"has {size / 1e9:.1f} GB of weights; a graph holds {MOST_BYTES / 1e9:g}. Take a smaller one"
        )
    model = sam_graph(network)
    parity = sam_parity(network, model)
    require_sam_parity(parity)
    return model, {**asdict(parity), "opset": OPSET, "stretched": network.stretched, "side_px": network.side_px}


def sam_graph(network: SamRoiNet) -> bytes:
    """The network as an ONNX model: `image` 1 3 s s in 0..255, `box` 1 4 [px]; `mask` 1 1 m m, `score` 1 1."""
    side = network.side_px
    inputs = {"image": torch.zeros(1, 3, side, side), "box": torch.tensor([[0.2, 0.2, 0.8, 0.8]]) * side}
    with warnings.catch_warnings():
        # transformers computes sizes from shapes while it runs; here the size is fixed, so they are constants
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return graph_of(network, inputs, ["mask", "score"], {})


def sam_parity(network: SamRoiNet, model: bytes, tolerance: float = TOLERANCE_LOGIT) -> SamParity:
    """Runs both on made images: blurred noise with a bright block in it, and the block's box."""
    session = SamSession(model, stretched=network.stretched, threads=torch.get_num_threads())
    rng = np.random.default_rng(1)
    side, worst, worst_score, flipped = network.side_px, 0.0, 0.0, 0
    for _ in range(PARITY_IMAGES):
        image = np.repeat(np.repeat(rng.uniform(0, 120, (3, side // 8, side // 8)), 8, axis=1), 8, axis=2)
        x0, y0 = rng.integers(0, side // 2, 2)
        x1, y1 = x0 + side // 3, y0 + side // 4
        image[:, y0:y1, x0:x1] += 100.0
        box = np.array([[x0, y0, x1, y1]], np.float32) - np.float32(0.5)
        fed = np.ascontiguousarray(image[None], np.float32)
        with torch.no_grad():
            ours, our_score = network(torch.from_numpy(fed), torch.from_numpy(box))
        theirs, their_score = session.run(fed, box)
        worst = max(worst, float(np.abs(ours.numpy() - theirs).max()))
        worst_score = max(worst_score, float(np.abs(our_score.numpy() - their_score).max()))
        flipped += int(np.sum((ours.numpy() > 0) != (theirs > 0)))
    return SamParity(PARITY_IMAGES, worst, worst_score, tolerance, flipped)


def require_sam_parity(parity: SamParity) -> None:
    """Refuses a graph that would not mask what the network masks.

    Raises:
        ParityError: a logit or a score differs by more than the tolerance.
    """
    for what, difference in (("logits of the masks", parity.max_abs), ("scores", parity.max_abs_score)):
        if not difference <= parity.tolerance:
            raise ParityError(
                f"the {what} of ONNX Runtime and torch differ by up to {difference:.4g}, {parity.tolerance:g} is let "
                "through; not exported"
            )
