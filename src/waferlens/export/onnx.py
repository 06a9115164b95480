"""From a trained network to an ONNX graph with everything inside, and the proof that both say the same."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from waferlens.bundle.session import Session
from waferlens.bundle.verdict import REVIEW, judge
from waferlens.bundle.wafer_calibration import NORMAL_90
from waferlens.errors import ParityError
from waferlens.models import DepthNet, fuse
from waferlens.ops.hole import measure_holes

OPSET = 17
TOLERANCE_GREY = 0.01
"""Greatest difference between torch and ONNX Runtime that is let through [grey]"""
LIMIT_PERCENTILES = (10, 50, 90)
"""Where specification limits are put to see whether a verdict turns: in the thick of the measurand's values."""
BATCH = 64


@dataclass(frozen=True, slots=True)
class Parity:
    """How far ONNX Runtime and torch agree, on images that trained nothing."""

    images: int
    max_abs: float
    """Greatest difference of a pixel's depth [grey, m] or height [um]"""
    max_abs_sigma: float
    """Greatest difference of a pixel's sigma [grey, um]"""
    tolerance: float
    """What is let through [grey, um, m]"""
    ok_ng_flips: int
    """Values inside a limit in one and outside in the other, over all measurands and limits."""
    review_changes: int
    """Verdicts that changed to or from `review`."""


def to_onnx(network: DepthNet, height_px: int, width_px: int) -> bytes:
    """The network as an ONNX model of one image `b 1 h w` in 0..255; batch norms and branches are folded first."""
    names = ["depth", "sigma"] if network.sigma else ["depth"]
    axes = {name: {0: "b"} for name in ["grey", *names]}
    return graph_of(network, {"grey": torch.zeros(2, 1, height_px, width_px)}, names, axes)


def graph_of(
    network: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    outputs: Sequence[str],
    dynamic_axes: Mapping[str, Mapping[int, str]],
) -> bytes:
    """A network as an ONNX model, in float32, its batch norms and branches folded.

    Args:
        network: As trained.
        inputs: An example of each, by name, in the order of `forward`.
        outputs: Names, in the order of `forward`.
        dynamic_axes: Of each input and output, the axes that may have any length.
    """
    exported = fuse(network).float().to(memory_format=torch.contiguous_format).eval()
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The older exporter is chosen on purpose: seconds instead of minutes, and the same graph.
        warnings.simplefilter("ignore", DeprecationWarning)
        # It says where it leaves a constant to the runtime, which folds it when the model is loaded.
        warnings.filterwarnings("ignore", message="Constant folding", category=UserWarning)
        torch.onnx.export(
            exported,
            tuple(inputs.values()),
            buffer,
            dynamo=False,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: dict(axes) for name, axes in dynamic_axes.items()},
            opset_version=OPSET,
        )
    return buffer.getvalue()


def torch_predict(
    network: DepthNet, grey: Float32[np.ndarray, "b 1 h w"]
) -> tuple[Float32[np.ndarray, "b h w"], Float32[np.ndarray, "b h w"] | None]:
    """What the trained network itself says, unfused, in float32."""
    depths, sigmas = [], []
    for start in range(0, len(grey), BATCH):
        depth, *sigma = network.predict(torch.from_numpy(grey[start : start + BATCH]))
        depths.append(depth[:, 0].numpy())
        sigmas += [part[:, 0].numpy() for part in sigma]
    return np.concatenate(depths), np.concatenate(sigmas) if sigmas else None


def compare(
    network: DepthNet,
    session: Session,
    grey: Float32[np.ndarray, "b 1 h w"],
    half_widths: Mapping[str, float] | None = None,
    tolerance: float = TOLERANCE_GREY,
) -> Parity:
    """Runs both on the same images and counts what would have changed.

    Args:
        network: As trained.
        session: As exported.
        grey: Held-out images [grey]
        half_widths: Half-width of each measurand's interval, for verdicts; 0 where not given.
        tolerance: Greatest difference of a pixel that counts as agreement [grey]
    """
    ours, our_sigma = torch_predict(network, grey)
    theirs, their_sigma = session.predict(grey)
    max_sigma = 0.0 if our_sigma is None else float(np.abs(our_sigma - their_sigma).max())
    flips = changes = 0
    a, b = measure_holes(ours), measure_holes(theirs)
    for name in ("depth", "cd50_area", "wall_angle_deg"):
        if not np.isfinite(a[name]).any():
            continue  # nothing to judge: an untrained network makes no holes
        half = (half_widths or {}).get(name, 0.0)
        for percentile in LIMIT_PERCENTILES:
            limit = float(np.nanpercentile(a[name], percentile))
            first, second = (judge(values[name] - half, values[name] + half, limit, None) for values in (a, b))
            flips += int(np.sum((first != second) & (first != REVIEW) & (second != REVIEW)))
            changes += int(np.sum((first == REVIEW) != (second == REVIEW)))
    return Parity(len(grey), float(np.abs(ours - theirs).max()), max_sigma, tolerance, flips, changes)


def compare_maps(
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    sigmas: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
    tolerance: float,
    step_px: int = 1,
) -> Parity:
    """Counts what would have changed on maps of heights or depths.

    Verdicts are those of single pixels against limits at percentiles of the values, with their 90 % intervals. Where no
    sigma is told, the half-width is the tolerance: no verdict can be surer than what is let through.

    Args:
        ours: A map an image, as trained.
        theirs: As exported.
        sigmas: The same of the sigmas; both empty where none are told.
        tolerance: Greatest difference of a pixel that counts as agreement, in the unit of the maps.
        step_px: Every so many pixels along each side are judged [px]
    """
    step = (..., slice(None, None, step_px), slice(None, None, step_px))
    first, second = (np.concatenate([one[step].ravel() for one in maps]) for maps in (ours, theirs))
    halves = [
        NORMAL_90 * np.concatenate([one[step].ravel() for one in maps]) if maps else np.full_like(first, tolerance)
        for maps in sigmas
    ]
    flips = changes = 0
    for percentile in LIMIT_PERCENTILES:
        limit = float(np.percentile(first, percentile))
        a, b = (
            judge(value - half, value + half, limit, None) for value, half in zip((first, second), halves, strict=True)
        )
        flips += int(np.sum((a != b) & (a != REVIEW) & (b != REVIEW)))
        changes += int(np.sum((a == REVIEW) != (b == REVIEW)))
    return Parity(len(ours), _greatest(ours, theirs), _greatest(*sigmas), tolerance, flips, changes)


def _greatest(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    return max((float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True)), default=0.0)


def require_parity(parity: Parity, unit: str = "grey") -> None:
    """Refuses an export that would not measure what was trained.

    Raises:
        ParityError: depth or sigma of a pixel differs by more than the tolerance, or a verdict turned from OK to NG or
            back.
    """
    named = (("height" if unit == "um" else "depth", parity.max_abs), ("sigma", parity.max_abs_sigma))
    for what, difference in named:
        if not difference <= parity.tolerance:
            raise ParityError(
                f"the {what}s of ONNX Runtime and torch differ by up to {difference:.4g} {unit}, {parity.tolerance:g} "
                "is let through; not exported. Training with train.precision=f32, or a wider --tolerance, may help"
            )
    if parity.ok_ng_flips:
        raise ParityError(
            f"{parity.ok_ng_flips} verdicts turn between OK and NG after export; not exported. "
            "Training with train.precision=f32 may help"
        )


def as_json(parity: Parity) -> dict[str, Any]:
    """The report that is stored in the bundle."""
    return {**asdict(parity), "limits_at_percentiles": list(LIMIT_PERCENTILES), "opset": OPSET}
