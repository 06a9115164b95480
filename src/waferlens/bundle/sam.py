"""A Segment Anything network in ONNX Runtime: an image and a box in, the mask of what the box shows out.

A bundle of one holds two graphs: the network as `model.onnx`, and as `boxes.onnx` the detector that draws the box.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
from jaxtyping import Bool, Float, Float32, UInt8

from waferlens.bundle.files import BOXES, BOXES_RECIPE, MODEL, RECIPE, Bundle
from waferlens.bundle.session import session_options
from waferlens.errors import BundleError
from waferlens.ops.sam_frame import sam_frame


class SamSession:
    """One network, ready to run.

    Args:
        model: A graph of `export.sam`: `image` 1 3 s s in 0..255 and `box` 1 4 to `mask` 1 1 m m and `score` 1 1.
        stretched: Whether images are stretched to its square (SAM 2) or filled up (SAM).
        threads: Threads inside one call.

    Raises:
        BundleError: the graph cannot be loaded, or is another.
    """

    def __init__(self, model: bytes, *, stretched: bool, threads: int = 1) -> None:
        try:
            self._session = onnxruntime.InferenceSession(
                model, session_options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as wrong:  # onnxruntime raises classes of its own, made at run time, without a common base
            raise BundleError(f"the SAM graph cannot be loaded: {wrong}") from wrong
        inputs = {one.name: one.shape for one in self._session.get_inputs()}
        shape = inputs.get("image", [])
        if set(inputs) != {"image", "box"} or len(shape) != 4 or shape[2] != shape[3] or not isinstance(shape[2], int):
            raise BundleError(f"the SAM graph takes {inputs}; expected a square `image` and a `box`")
        self.side_px, self.stretched = shape[2], stretched

    def mask(
        self, rgb: UInt8[np.ndarray, "h w 3"], box: Float[np.ndarray, "4"]
    ) -> tuple[Bool[np.ndarray, "h w"], float]:
        """The mask of what a box shows, and the overlap with the truth that the network expects of it.

        Args:
            rgb: Image.
            box: x0 y0 x1 y1, outer edges, in the image's pixels [px]
        """
        frame = sam_frame(rgb, self.side_px, stretched=self.stretched)
        logits, score = self.run(frame.pixels[None], frame.box(box)[None])
        return frame.on_image(logits[0, 0]) > 0, float(score[0, 0])

    def run(
        self, image: Float32[np.ndarray, "1 3 s s"], box: Float32[np.ndarray, "1 4"]
    ) -> tuple[Float32[np.ndarray, "1 1 m m"], Float32[np.ndarray, "1 1"]]:
        """The graph itself: logits of the mask over the square, and the score."""
        logits, score = self._session.run(["mask", "score"], {"image": image, "box": box})
        return logits, score


def sam_of(bundle: Bundle, threads: int = 1) -> SamSession:
    """The network of a bundle that holds two.

    Args:
        bundle: its recipe is of kind `box-sam`.
        threads: threads inside one call.

    Raises:
        BundleError: it is another bundle, or its network cannot be used.
    """
    model = bundle.recipe.get("model") or {}
    if model.get("kind") != "box-sam":
        raise BundleError(f"{bundle.path}: holds a network of kind {model.get('kind')}, not box-sam")
    session = SamSession(bundle.model, stretched=model["family"] == "sam2", threads=threads)
    if session.side_px != model["side_px"]:
        raise BundleError(
            f"{bundle.path}: model.onnx looks at {session.side_px} px, recipe.yaml says {model['side_px']} px"
        )
    return session


def boxes_of(bundle: Bundle) -> Bundle:
    """The detector of a bundle that holds two networks, as a bundle of its own.

    Raises:
        BundleError: there is none in it.
    """
    for name in (BOXES, BOXES_RECIPE):
        if name not in bundle.files:
            raise BundleError(f"{bundle.path}: there is no {name} in this bundle, so nothing tells SAM where to look")
    files = {MODEL: bundle.files[BOXES], RECIPE: bundle.files[BOXES_RECIPE]}
    return Bundle(bundle.name, bundle.path, bundle.fingerprint, files)
