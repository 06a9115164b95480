"""The network of a bundle in ONNX Runtime: grey values in, depth and sigma out. No training framework is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from jaxtyping import Float32

from waferlens.bundle.files import Bundle
from waferlens.errors import BundleError, UsageError

SLICE = 32
"""Images run at a time; larger slices fall out of the cores' caches and run slower."""


class Session:
    """One network, ready to run. Several threads may call one session at a time.

    Args:
        bundle: with a `model.onnx` of one input `b 1 h w`, and one or two outputs of the same shape: depth, sigma.
        threads: threads inside one call; 1 where several calls run side by side.

    Raises:
        BundleError: the model cannot be loaded, or has other inputs and outputs.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        try:
            self._session = onnxruntime.InferenceSession(
                bundle.model, session_options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as wrong:  # onnxruntime raises classes of its own, made at run time, without a common base
            raise BundleError(f"{bundle.path}: model.onnx cannot be loaded: {_first_line(wrong)}") from wrong
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) not in (1, 2) or len(inputs[0].shape) != 4:
            raise BundleError(
                f"{bundle.path}: model.onnx has {len(inputs)} inputs and {len(outputs)} outputs; "
                "expected one image `b 1 h w`, and depth or depth and sigma"
            )
        self._input = inputs[0].name
        self._outputs = [output.name for output in outputs]
        self.has_sigma = len(outputs) == 2
        """Whether the network tells a standard deviation a pixel."""
        self.height_px, self.width_px = _size(bundle, inputs[0].shape)

    def predict(
        self, grey: Float32[np.ndarray, "b 1 h w"]
    ) -> tuple[Float32[np.ndarray, "b h w"], Float32[np.ndarray, "b h w"] | None]:
        """Depth maps and their standard deviations.

        Args:
            grey: images from `prepare.geometry`, 0..255 [grey]

        Returns:
            Depth as in the challenge's maps: an absolute level with the plateau at 135..175, deeper is smaller [grey];
            and sigma, or None if the network tells none [grey]

        Raises:
            UsageError: the images have another size than the bundle's.
        """
        b, _, h, w = grey.shape
        if (h, w) != (self.height_px, self.width_px):
            raise UsageError(
                f"the images are {w}x{h} px (width x height), the bundle was trained for "
                f"{self.width_px}x{self.height_px} px; use a bundle trained for this size"
            )
        depth = np.empty((b, h, w), np.float32)
        sigma = np.empty((b, h, w), np.float32) if self.has_sigma else None
        for at in range(0, b, SLICE):
            found = self._session.run(self._outputs, {self._input: np.ascontiguousarray(grey[at : at + SLICE])})
            depth[at : at + SLICE] = found[0].reshape(-1, h, w)
            if sigma is not None:
                sigma[at : at + SLICE] = found[1].reshape(-1, h, w)
        return depth, sigma


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """How ONNX Runtime runs every network of ours: in order, with so many threads inside one call."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # errors only: warnings about a graph are for whoever exports it
    # waiting threads that spin would take the core from the thread that decodes
    options.add_session_config_entry("session.intra_op.allow_spinning", "0" if threads == 1 else "1")
    return options


def _size(bundle: Bundle, shape: list[Any]) -> tuple[int, int]:
    """Rows and columns: as the graph says, and where it leaves them open, as the recipe says."""
    told = bundle.recipe.get("input", {})
    sizes = []
    for axis, name in ((2, "height_px"), (3, "width_px")):
        in_graph, in_recipe = shape[axis], told.get(name)
        if isinstance(in_graph, int) and in_recipe is not None and in_graph != in_recipe:
            raise BundleError(f"{bundle.path}: model.onnx takes {in_graph} for {name}, recipe.yaml says {in_recipe}")
        size = in_graph if isinstance(in_graph, int) else in_recipe
        if not isinstance(size, int):
            raise BundleError(f"{bundle.path}: neither model.onnx nor recipe.yaml (input.{name}) says the image size")
        sizes.append(size)
    return sizes[0], sizes[1]


def _first_line(wrong: Exception) -> str:
    return (str(wrong).strip() or type(wrong).__name__).splitlines()[0]
