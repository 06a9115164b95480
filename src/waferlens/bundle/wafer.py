"""The network of a wafer bundle in ONNX Runtime: a picture and what the line knows in, heights and sigma out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime
from jaxtyping import Float32

from waferlens.bundle.files import CALIBRATION, Bundle
from waferlens.bundle.session import session_options
from waferlens.bundle.wafer_calibration import NORMAL_90, SIGMA_LEVEL, WaferCalibration, group_of, told_of
from waferlens.errors import BundleError, UsageError
from waferlens.records import Product

CLASSES = ("die", "street", "missing")
"""What a pixel shows: a die, the street beside it, or the site of a die that is not there."""
MULTIPLE_PX = 64
"""Rows and columns are filled up to a multiple of it: the coarsest scale folds as many pixels."""
PRODUCT_LEVELS = 4
"""Levels of a stack that a network is told of."""


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """What a network says of one picture."""

    height_um: Float32[np.ndarray, "h w"]
    """Above the carrier, positive up [um]"""
    sigma_um: Float32[np.ndarray, "h w"] | None
    """One standard deviation of a normal distribution with the calibrated 90 % interval; None if none is told [um]"""
    classes: Float32[np.ndarray, "3 h w"] | None
    """Shares of `CLASSES`; None if the network tells none."""
    raw_sigma_um: Float32[np.ndarray, "h w"] | None
    """As the network says it, before its calibration [um]"""
    brightness: Float32[np.ndarray, "h w"]
    """Of the image it saw, 0 black .. 1 white."""
    told: int
    """What the network was told beside the image, as `told_of` numbers it."""


class WaferSession:
    """One network, ready to run. Several threads may call one session at a time.

    Args:
        bundle: of the wafer station.
        threads: threads inside one call.

    Raises:
        BundleError: the bundle is of another station, or its model or calibration cannot be used.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        recipe = bundle.recipe
        if recipe.get("station") != "wafer":
            raise BundleError(f"{bundle.path}: its recipe is of station {recipe.get('station')}, not wafer")
        self.unit = recipe["target"]["unit"]
        """Unit of the network's map; a network that learned depths in m measures no wafer."""
        if self.unit != "um":
            raise BundleError(f"{bundle.path}: it tells depths in {self.unit} of indoor views, not heights of wafers")
        try:
            self._session = onnxruntime.InferenceSession(
                bundle.model, session_options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as wrong:  # onnxruntime raises classes of its own, without a common base
            raise BundleError(f"{bundle.path}: model.onnx cannot be loaded: {str(wrong).splitlines()[0]}") from wrong
        self._inputs = {one.name: one.shape for one in self._session.get_inputs()}
        self._outputs = [one.name for one in self._session.get_outputs()]
        if "image" not in self._inputs or "height" not in self._outputs:
            raise BundleError(f"{bundle.path}: model.onnx has no input `image` or no output `height`")
        told = recipe["input"]
        self.tells_sigma = "sigma" in self._outputs
        self.channels = int(told["channels"])
        self.pitch_um: float | None = told["pitch_um"]
        """Pitch of the images it is shown; None where the whole field is scaled to `size_px` [um]"""
        self.known: tuple[str, ...] = tuple(told["known"])
        """What it may be told beside the image."""
        shape = self._inputs["image"][2:]
        fixed = all(isinstance(side, int) for side in shape)
        self.size_px: tuple[int, int] | None = (shape[0], shape[1]) if fixed else None
        """Rows and columns it takes, where these are fixed [px]"""
        self.calibration = _calibration(bundle)

    def predict(
        self,
        image: Float32[np.ndarray, "h w"],
        *,
        objective_z_um: Float32[np.ndarray, " w"] | None = None,
        track_z_um: Float32[np.ndarray, " w"] | None = None,
        product: Product | None = None,
        direction: int = 1,
    ) -> Predicted:
        """The height map of a picture.

        Args:
            image: 0 black .. 1 white, at `pitch_um` (`prepare.wafer_geometry` makes it so).
            objective_z_um: Height of the plane of focus at each column; NaN where it is not known [um]
            track_z_um: Reading of the auto-focus at each column; NaN where it is not known [um]
            product: The nominal stack.
            direction: 1 where the scan ran along +x, -1 against it: to that side the track lags.

        Raises:
            UsageError: a size does not fit.
        """
        h, w = image.shape
        for name, values in (("objective_z_um", objective_z_um), ("track_z_um", track_z_um)):
            if values is not None and len(values) != w:
                raise UsageError(f"{name} has {len(values)} values for an image of {w} columns")
        if self.size_px is not None and (h, w) != self.size_px:
            rows, columns = self.size_px
            raise UsageError(f"the image is {w}x{h} px (width x height), the network takes {columns}x{rows} px")
        rows, columns = (0, 0) if self.size_px is not None else ((-h) % MULTIPLE_PX, (-w) % MULTIPLE_PX)
        padded = np.pad(image, ((0, rows), (0, columns)), mode="edge")
        fed = {"image": np.repeat(padded[np.newaxis, np.newaxis], self.channels, axis=1)}
        if "columns" in self._inputs:
            fed["columns"] = column_facts(
                w + columns,
                objective_z_um if "objective" in self.known else None,
                track_z_um if "track" in self.known else None,
                direction,
            )[np.newaxis]
            fed["product"] = product_facts(product if "product" in self.known else None)[np.newaxis]
        found = dict(zip(self._outputs, self._session.run(self._outputs, fed), strict=True))
        told = told_of(
            product=product is not None and "product" in self.known,
            track=track_z_um is not None and "track" in self.known and bool(np.isfinite(track_z_um).any()),
        )
        height, raw = found["height"][0, 0, :h, :w], None
        classes = None if "classes" not in found else _full_size(found["classes"][0], padded.shape[0], h, w)
        sigma = None
        if "sigma" in found:
            raw = np.ascontiguousarray(found["sigma"][0, 0, :h, :w])
            sigma = raw
            if self.calibration.quantiles:
                group = group_of(None if classes is None else classes.argmax(axis=0), told)
                half = self.calibration.half_width_um(raw, group, image, float(SIGMA_LEVEL))
                sigma = half / np.float32(NORMAL_90)
        return Predicted(np.ascontiguousarray(height), sigma, classes, raw, image, told)

    def half_width_um(self, predicted: Predicted, level: float) -> Float32[np.ndarray, "h w"]:
        """Half-width of the interval of every pixel [um].

        Raises:
            UsageError: the network tells no sigma, or the level is not calibrated.
        """
        if predicted.raw_sigma_um is None:
            raise UsageError("this network tells no sigma, so there are no intervals")
        group = group_of(None if predicted.classes is None else predicted.classes.argmax(axis=0), predicted.told)
        return self.calibration.half_width_um(predicted.raw_sigma_um, group, predicted.brightness, level)


def column_facts(
    width: int, objective_z_um: np.ndarray | None, track_z_um: np.ndarray | None, direction: int = 1
) -> Float32[np.ndarray, "4 w"]:
    """What is known of each column as the network takes it: height of focus, known or not, track, direction or 0.

    Args:
        width: Columns of the network's image; what is given may be shorter and is not known beyond its end.
        objective_z_um: NaN where not known; None if it is known nowhere [um]
        track_z_um: As `objective_z_um` [um]
        direction: 1 or -1, of the scan along x; it stands where the track is known.
    """
    facts = np.zeros((4, width), np.float32)
    for row, values, mark in ((0, objective_z_um, 1), (2, track_z_um, direction)):
        if values is not None:
            known = np.isfinite(values)
            facts[row, : len(values)] = np.where(known, values, 0.0)
            facts[row + 1, : len(values)] = mark * known
    return facts


def product_facts(product: Product | None) -> Float32[np.ndarray, " 6"]:
    """The nominal stack as the network takes it: known or not, thickness, tops of four levels, the last repeated.

    Raises:
        UsageError: the stack has no level, or more than four.
    """
    if product is None:
        return np.zeros(2 + PRODUCT_LEVELS, np.float32)
    tops = list(product.level_tops_um)
    if not 1 <= len(tops) <= PRODUCT_LEVELS:
        raise UsageError(f"a product has 1 to {PRODUCT_LEVELS} levels, this one {len(tops)}")
    tops += tops[-1:] * (PRODUCT_LEVELS - len(tops))
    return np.array([1.0, product.die_thickness_um, *tops], np.float32)


def _full_size(classes: Float32[np.ndarray, "3 p q"], filled: int, h: int, w: int) -> Float32[np.ndarray, "3 h w"]:
    """Shares of the folded positions at every pixel; `filled` are the rows that the network saw."""
    factor = filled // classes.shape[1]
    return classes.repeat(factor, axis=1).repeat(factor, axis=2)[:, :h, :w]


def _calibration(bundle: Bundle) -> WaferCalibration:
    if CALIBRATION not in bundle.files:
        return WaferCalibration()
    try:
        return WaferCalibration.from_json(bundle.json(CALIBRATION))
    except (KeyError, TypeError, ValueError) as wrong:
        told = f"{type(wrong).__name__}: {wrong}"
        raise BundleError(f"{bundle.path}: {CALIBRATION} is not a calibration this version reads ({told})") from wrong
