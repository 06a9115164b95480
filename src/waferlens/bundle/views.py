"""A depth network of indoor views in ONNX Runtime: colours in, depths out."""

from __future__ import annotations

import numpy as np
import onnxruntime
from jaxtyping import Float32, UInt8

from waferlens.bundle.files import Bundle
from waferlens.bundle.session import session_options
from waferlens.errors import BundleError, UsageError


class ViewSession:
    """One network, ready to run.

    Args:
        bundle: Of a recipe whose `input.scene` is nyu.
        threads: Threads inside one call.

    Raises:
        BundleError: the bundle is of another kind, or its model cannot be used.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        told = bundle.recipe.get("input", {})
        if bundle.recipe.get("station") != "wafer" or told.get("scene") != "nyu":
            raise BundleError(f"{bundle.path}: its recipe learned no depths of indoor views")
        try:
            self._session = onnxruntime.InferenceSession(
                bundle.model, session_options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as wrong:  # onnxruntime raises classes of its own, without a common base
            raise BundleError(f"{bundle.path}: model.onnx cannot be loaded: {str(wrong).splitlines()[0]}") from wrong
        inputs, outputs = self._session.get_inputs(), [one.name for one in self._session.get_outputs()]
        shape = inputs[0].shape[1:]
        if len(inputs) != 1 or outputs[:1] != ["height"] or not all(isinstance(side, int) for side in shape):
            raise BundleError(f"{bundle.path}: model.onnx has other inputs and outputs than one `image` and `height`")
        self.channels: int = shape[0]
        self.size_px: tuple[int, int] = (shape[1], shape[2])
        """Rows and columns it takes [px]"""

    def predict(self, colours: UInt8[np.ndarray, "b c h w"]) -> Float32[np.ndarray, "b h w"]:
        """Depths of views on the network's grid, as `prepare.views.colours_on_grid` makes them [m]

        Raises:
            UsageError: the views have another size.
        """
        if colours.shape[1:] != (self.channels, *self.size_px):
            raise UsageError(f"the views are {colours.shape[1:]}, the network takes {(self.channels, *self.size_px)}")
        image = colours.astype(np.float32) * np.float32(1 / 255)
        return self._session.run(["height"], {"image": image})[0][:, 0]
