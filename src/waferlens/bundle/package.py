"""The network of a package bundle in ONNX Runtime: upright packages in, boxes with scores and classes out.

What the network is shown, and where its boxes lie in the image, is the affair of `prepare.package_findings`: here
everything is in pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from jaxtyping import Bool, Float, Float32, Float64, Int64

from waferlens.bundle.files import CALIBRATION, Bundle
from waferlens.bundle.package_calibration import PackageCalibration, lifted
from waferlens.bundle.session import session_options
from waferlens.errors import BundleError, UsageError
from waferlens.ops.nms import Kept, suppressed

LEAST_LIFTED = 0.001
"""Score of the network below which a box is not looked at, whatever it would be lifted to."""


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """Everything a network says of some inputs, before any box is dropped."""

    boxes: Float32[np.ndarray, "b n 4"]
    """[px]"""
    scores: Float32[np.ndarray, "b n k"]
    coefficients: Float32[np.ndarray, "b n m"] | None
    """Of the mask of each box; None where no masks are told."""
    prototypes: Float32[np.ndarray, "b m p q"] | None
    """A mask is where their sum, weighted by its coefficients, is above 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """What is found in one input, by falling score."""

    boxes: Float64[np.ndarray, "n 4"]
    """Outer edges, in pixels of the input [px]"""
    scores: Float64[np.ndarray, " n"]
    kinds: Int64[np.ndarray, " n"]
    """Numbers of the classes."""
    masks: Bool[np.ndarray, "n h w"] | None = None
    """Pixels of each at the input's size, inside its box; None where no masks are told."""

    def __len__(self) -> int:
        return len(self.boxes)


class PackageSession:
    """One detector, ready to run. Several threads may call one session at a time.

    Args:
        bundle: of the package station.
        threads: threads inside one call.

    Raises:
        BundleError: the bundle is of another station, or its model or calibration cannot be used.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        recipe = bundle.recipe
        if recipe.get("station") != "package":
            raise BundleError(f"{bundle.path}: its recipe is of station {recipe.get('station')}, not package")
        if "input" not in recipe:
            raise BundleError(
                f"{bundle.path}: {recipe.get('name')} masks packages and finds no defects; it is for "
                "`waferlens prepare roi --bundle`"
            )
        try:
            self._session = onnxruntime.InferenceSession(
                bundle.model, session_options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as wrong:  # onnxruntime raises classes of its own, without a common base
            raise BundleError(f"{bundle.path}: model.onnx cannot be loaded: {str(wrong).splitlines()[0]}") from wrong
        inputs = {one.name: one.shape for one in self._session.get_inputs()}
        self._outputs = [one.name for one in self._session.get_outputs()]
        if list(inputs) != ["image"] or self._outputs[:2] != ["boxes", "scores"]:
            raise BundleError(f"{bundle.path}: model.onnx has not the input `image` and the outputs `boxes`, `scores`")
        told = recipe["input"]
        self.channels, self.height_px, self.width_px = (
            int(told["channels"]), int(told["height_px"]), int(told["width_px"]),
        )  # fmt: skip
        if tuple(inputs["image"][1:]) != (self.channels, self.height_px, self.width_px):
            raise BundleError(
                f"{bundle.path}: model.onnx takes images of shape {inputs['image'][1:]}, recipe.yaml says "
                f"{[self.channels, self.height_px, self.width_px]}"
            )
        self.region: str = told["region"]
        """`roi`, the upright package, or `image`: what it is shown."""
        self.lights: tuple[str, ...] = tuple(told["lights"])
        """Lights it was trained on."""
        self.reference: str | None = told.get("reference")
        """How the name of an image gives that of the good part it is shown with; None where it is shown alone."""
        self.classes: tuple[str, ...] = tuple(recipe["target"]["classes"])
        """In the order of their numbers."""
        found = recipe["findings"]
        self.calibration = _calibration(bundle)
        """None where none was made: the recipe's least score then is the limit of NG, and none is review."""
        least = float(found["score"])
        limits = {} if self.calibration is None else self.calibration.limits
        self.score_ng = np.array([limits[kind].score_ng if kind in limits else least for kind in self.classes])
        """Score of each class from which a finding makes its part NG."""
        self.score_review = np.array([limits[kind].score_review if kind in limits else least for kind in self.classes])
        """Score of each class from which a finding makes its part review at the least; ask for findings down to it."""
        self.lift = np.array([limits[kind].lift if kind in limits else 0.0 for kind in self.classes])
        """What scores of each class are lifted by (`package_calibration`)."""
        self.nms_iou: float = float(found["nms_iou"])
        self.most: int = int(found["most"])
        self.tells_masks = "prototypes" in self._outputs

    def predict(self, image: Float32[np.ndarray, "b c h w"]) -> Said:
        """Every box of every position, with its scores.

        Args:
            image: 0..255, as `prepare.package_geometry.network_input` makes it [grey]

        Raises:
            UsageError: the images have another size or number of channels.
        """
        wanted = (self.channels, self.height_px, self.width_px)
        if image.ndim != 4 or image.shape[1:] != wanted:
            raise UsageError(f"images of shape {image.shape}; the network takes b x {' x '.join(map(str, wanted))}")
        told = self._session.run(self._outputs, {"image": np.ascontiguousarray(image, np.float32)})
        by_name = dict(zip(self._outputs, told, strict=True))
        return Said(by_name["boxes"], by_name["scores"], by_name.get("coefficients"), by_name.get("prototypes"))

    def findings(
        self, image: Float32[np.ndarray, "b c h w"], least: float | Sequence[float] | None = None
    ) -> list[Boxes]:
        """What is found in each image, the weaker of two that say the same dropped.

        Args:
            image: As in `predict` [grey]
            least: Score, or one a class, from which a box is a finding; `score_ng` if None.
        """
        return self.kept(self.predict(image), least)

    def kept(self, said: Said, least: float | Sequence[float] | None = None) -> list[Boxes]:
        """Of everything that was said, what is a finding; arguments as in `findings`."""
        limits = self.score_ng if least is None else np.asarray(least, np.float64)
        found = []
        for row in range(len(said.boxes)):
            floor = np.where(self.lift > 0, np.minimum(limits, LEAST_LIFTED), limits)
            one = suppressed(said.boxes[row], said.scores[row], least=floor, overlap=self.nms_iou, most=self.most)
            if self.lift.any():
                one = self._lifted(one, limits)
            masks = None
            if said.prototypes is not None and said.coefficients is not None:
                size = (self.height_px, self.width_px)
                masks = mixed_masks(one.boxes, said.coefficients[row][one.places], said.prototypes[row], size)
            found.append(Boxes(one.boxes, one.scores, one.kinds, masks))
        return found

    def _lifted(self, one: Kept, limits: Float64[np.ndarray, "..."]) -> Kept:
        """What is kept, with scores lifted for the size of their boxes, by falling score."""
        scores = np.where(self.lift[one.kinds] > 0, lifted(one.scores, one.boxes, self.lift[one.kinds]), one.scores)
        enough = np.flatnonzero(scores >= np.broadcast_to(limits, len(self.classes))[one.kinds])
        order = enough[np.argsort(-scores[enough], kind="stable")]
        return Kept(one.boxes[order], scores[order], one.kinds[order], one.places[order])


def _calibration(bundle: Bundle) -> PackageCalibration | None:
    if CALIBRATION not in bundle.files:
        return None
    try:
        return PackageCalibration.from_json(bundle.json(CALIBRATION))
    except (KeyError, TypeError, ValueError) as wrong:
        told = f"{type(wrong).__name__}: {wrong}"
        raise BundleError(f"{bundle.path}: {CALIBRATION} is not a calibration this version reads ({told})") from wrong


def mixed_masks(
    boxes: Float64[np.ndarray, "n 4"],
    coefficients: Float32[np.ndarray, "n m"],
    prototypes: Float32[np.ndarray, "m p q"],
    size_px: tuple[int, int],
) -> Bool[np.ndarray, "n h w"]:
    """Masks of prototypes at the size of the input, cut at their boxes.

    Args:
        boxes: Of each mask [px]
        coefficients: Of each mask.
        prototypes: Maps that cover the input.
        size_px: Rows and columns of the input [px]
    """
    import cv2  # only bundles with masks need it

    h, w = size_px
    logits = np.tensordot(coefficients, prototypes, 1)
    masks = np.zeros((len(boxes), h, w), bool)
    y, x = np.arange(h)[:, None], np.arange(w)
    for mask, logit, (x0, y0, x1, y1) in zip(masks, logits, boxes, strict=True):
        whole = cv2.resize(logit, (w, h), interpolation=cv2.INTER_LINEAR)
        mask[:] = (whole > 0) & (x > x0) & (x < x1) & (y > y0) & (y < y1)
    return masks


def best_scores(scores: Float[np.ndarray, "b n k"]) -> Float[np.ndarray, "b k"]:
    """The highest score of each class in each input: what decides whether it is good."""
    return scores.max(axis=1)
