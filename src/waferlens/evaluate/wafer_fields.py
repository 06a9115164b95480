"""What a bundle says of a field, on the field's own grid, with as much told beside the image as is asked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Int64

from waferlens.bundle.wafer import WaferSession
from waferlens.bundle.wafer_calibration import group_of
from waferlens.load.wafer import Field
from waferlens.prepare.wafer_input import Shown, require_whole_field, shown


@dataclass(frozen=True, slots=True, eq=False)
class FieldPrediction:
    """A prediction beside its field."""

    height_um: Float32[np.ndarray, "h w"]
    raw_sigma_um: Float32[np.ndarray, "h w"] | None
    """As the network says it [um]"""
    half_width_um: Float32[np.ndarray, "h w"] | None
    """Of the calibrated interval that was asked for [um]"""
    brightness: Float32[np.ndarray, "h w"]
    """Of the image the network saw, 0 black .. 1 white."""
    kinds: Int64[np.ndarray, "h w"] | None
    """The most likely of `CLASSES`."""
    classes: Float32[np.ndarray, "3 h w"] | None
    shown: Shown
    told: int
    """What the network was told, as `bundle.wafer_calibration.told_of` numbers it."""

    @property
    def group(self) -> Int64[np.ndarray, "h w"] | None:
        """The group of each pixel in the calibration."""
        return group_of(self.kinds, self.told)


def predicted(
    session: WaferSession, field: Field, known: Collection[str], level: float | None = None
) -> FieldPrediction:
    """Runs a bundle on a field.

    Args:
        session: The bundle's network.
        field: The field.
        known: What it is told beside the image: `objective`, `product`, `track`.
        level: Coverage of the interval; None for none.

    Raises:
        UsageError: the network takes whole fields, and would see this one stretched.
    """
    if session.pitch_um is None:
        require_whole_field(field.name, field.image.shape, session.size_px)
    seen = shown(
        field.image, field.pitch_um, field.trace, network_pitch_um=session.pitch_um, size_px=session.size_px,
        full_scale=field.white,
    )  # fmt: skip
    told = session.predict(
        seen.image,
        objective_z_um=seen.objective_z_um if "objective" in known else None,
        track_z_um=seen.track_z_um if "track" in known else None,
        product=field.product if "product" in known else None,
        direction=seen.direction,
    )
    half = None
    if level is not None and told.raw_sigma_um is not None and session.calibration.quantiles:
        half = session.half_width_um(told, level)
    size = field.image.shape

    def back(part: np.ndarray | None) -> np.ndarray | None:
        """On the field's own grid; maps as they are where the grids agree."""
        if part is None or part.shape == size:
            return part
        return cv2.resize(part, size[::-1], interpolation=cv2.INTER_LINEAR)

    classes = told.classes
    if classes is not None and classes.shape[1:] != size:
        classes = np.stack([back(np.ascontiguousarray(share)) for share in classes])
    kinds = None if classes is None else classes.argmax(axis=0)
    height, sigma, half, brightness = map(back, (told.height_um, told.raw_sigma_um, half, told.brightness))
    return FieldPrediction(height, sigma, half, brightness, kinds, classes, seen, told.told)
