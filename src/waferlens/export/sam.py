"""A Segment Anything checkpoint becomes one graph, encoder and mask decoder, and the proof that it says the same."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from waferlens.bundle.sam import SamSession
from waferlens.errors import ParityError
from waferlens.export.onnx import OPSET, graph_of
from waferlens.models.sam_roi import SamRoiNet, load_sam

TOLERANCE_LOGIT = 0.01
"""Greatest difference between torch and ONNX Runtime that is let through; a mask is where its logit is above 0."""
PARITY_IMAGES = 2
"""Made images on which both are run."""


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


def export_sam(checkpoint: str | Path) -> tuple[bytes, dict[str, Any]]:
    """The graph of a checkpoint folder and its parity report.

    Raises:
        InputError: the folder holds no checkpoint of SAM or SAM 2.
        MissingExtraError: transformers is not installed.
        ParityError: the graph does not say what the network says.
    """
    network = load_sam(checkpoint)
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
