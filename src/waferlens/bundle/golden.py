"""An image against a good part: registered, its brightness matched, compared, and what deviates found and sorted.

The one path from image to findings: `train` sets thresholds with it, `evaluate` judges it, `inspect` runs it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32
from pydantic import ValidationError

from waferlens.bundle.files import GOLDEN, Bundle
from waferlens.bundle.reference import Reference, care_mask, read_reference, refuse_unusable, smoothed, tolerances
from waferlens.bundle.rules import sorted_finding
from waferlens.bundle.wavelet import wavelet_deviation
from waferlens.errors import BundleError, FormatError, UsageError
from waferlens.ops.blobs import blobs
from waferlens.ops.difference import deviation, opened
from waferlens.ops.displacement import displaced, laid_by
from waferlens.ops.photometry import gain_offset
from waferlens.ops.registration import Registration, register, warped
from waferlens.recipe.golden import Areas, DieToDie, GoldenRecipe, Template, Wavelet
from waferlens.records import Finding, Image

GRID = 1.05
"""Ratio of neighbouring thresholds at which alarms are looked for where rules sort findings: one by one, from above."""
FINE_GRID = 1.002
"""The same without rules: fine enough that good images hardly tie, for ties make alarms rarer than stated."""
LEAST_FACTOR = 0.1
"""Lowest threshold that is looked at or set: a tenth of what is tolerated is no deviation, whatever the rules say."""
LEAST_GAIN = 0.05
"""Contrast of an image over that of its reference, below which, or above whose inverse, nothing is compared."""
FARTHEST = 0.25
"""Greatest shift that is looked for where the recipe names none, as a share of the shorter side."""
MAD_TO_SD = 1.4826
"""Standard deviation of a normal distribution in units of its median absolute deviation."""


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """An image laid on its reference, or why it could not be."""

    deviation: Float32[np.ndarray, "h w"] | None
    """On the image's grid: how far it deviates in units of what is tolerated, positive where it is brighter; opened as
    the recipe says, 0 where nobody looks."""
    image: np.ndarray
    """The image's pixels, smoothed as the recipe says [grey]"""
    laid: Float32[np.ndarray, "h w"] | None
    """The reference on the image's grid, in its own brightness [grey]"""
    registration: Registration
    gain: float = 1.0
    offset_grey: float = 0.0
    reason: str = ""
    """Why it was not compared; empty if it was."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What was found on one image."""

    findings: list[Finding]
    """The greatest deviation first."""
    level: float
    """The greatest deviation anywhere, in units of the threshold; above 1 there is something to find."""
    compared: Compared


class GoldenSession:
    """Compares images with good parts. Threads may share one.

    Args:
        recipe: what is compared and how.
        factor: threshold in units of what is tolerated.
        reference: the good part the recipe was fitted to; None for direct mode, where each image brings its own.
    """

    def __init__(self, recipe: GoldenRecipe, factor: float, reference: Reference | None = None) -> None:
        self.recipe, self.factor, self.reference = recipe, factor, reference

    def find(self, image: Image, references: Sequence[Reference] = ()) -> Found:
        """What deviates on an image.

        Args:
            image: the image.
            references: what it is compared with, instead of what was fitted: one good part, or the two neighbours of
                `die-to-die`.

        Raises:
            FormatError: image and reference are of different kinds, or the image is constant.
            UsageError: there is no reference.
        """
        compared = self.compare(image, references)
        if compared.deviation is None:
            return Found([], math.nan, compared)
        level = float(np.abs(compared.deviation).max()) / self.factor
        return Found(self.findings_at(compared, self.factor), level, compared)

    def compare(self, image: Image, references: Sequence[Reference] = ()) -> Compared:
        """The image's deviation from its references, pixel by pixel; arguments and errors as those of `find`."""
        chosen = list(references) or ([] if self.reference is None else [self.reference])
        wanted = 2 if isinstance(self.recipe.method, DieToDie) else 1
        if len(chosen) != wanted:
            what = "two neighbours" if wanted == 2 else "a reference"
            raise UsageError(f"{self.recipe.name} compares with {what}, got {len(chosen)}; name --reference, or fit it")
        made = []
        for reference in chosen:
            one = self._against(image, reference)
            if one.deviation is None:
                return one
            made.append(one)
        signed = made[0].deviation if len(made) == 1 else _both(made[0].deviation, made[1].deviation)
        first = made[0]
        signed = opened(signed, self.recipe.findings.opening_px)
        return replace(first, deviation=signed)

    def findings_at(self, compared: Compared, threshold: float) -> list[Finding]:
        """The findings of a comparison at a threshold, the greatest deviation first.

        Args:
            compared: with a deviation.
            threshold: in units of what is tolerated.
        """
        rules = self.recipe.findings
        found = blobs(
            compared.deviation,
            threshold,
            merge_px=rules.merge_px,
            min_area_px=rules.min_area_px,
            image=compared.image,
            reference=compared.laid,
            gain=compared.gain,
            offset=compared.offset_grey,
        )
        shape, matrix = compared.image.shape, compared.registration.matrix
        return [
            sorted_finding(self.recipe, _with_margin(box, rules.margin_px, shape), *rest, matrix)
            for box, *rest in zip(
                found.box, found.peak / threshold, found.area_px, found.contrast, found.light, strict=True
            )
        ]

    def alarm_level(self, compared: Compared) -> float:
        """The greatest threshold at which an image alarms: has a critical finding. Infinite if it was not compared.

        Thresholds lie on a grid that is the same for all images. Without rules what deviates at one deviates at all
        below, and halving finds where alarms begin. Rules may let a large deviation pass and hold a small one for
        critical, so alarms need not grow with the threshold's fall: then thresholds are tried from above.
        """
        if compared.deviation is None:
            return math.inf
        peak = float(np.abs(compared.deviation).max())
        if peak <= LEAST_FACTOR:
            return LEAST_FACTOR
        if not self.recipe.rules:
            above = math.floor(math.log(peak, FINE_GRID)) + 1
            if self.recipe.findings.min_area_px <= self.recipe.findings.opening_px**2:
                return FINE_GRID**above  # every opened pixel is a finding
            below = math.ceil(math.log(LEAST_FACTOR, FINE_GRID)) - 1
            while above - below > 1:
                middle = (above + below) // 2
                if self.findings_at(compared, FINE_GRID**middle):
                    below = middle
                else:
                    above = middle
            return max(FINE_GRID**above, LEAST_FACTOR)
        step = math.floor(math.log(peak, GRID))
        while GRID**step > LEAST_FACTOR:
            if any(finding.critical for finding in self.findings_at(compared, GRID**step)):
                return GRID ** (step + 1)
            step -= 1
        return LEAST_FACTOR

    def _against(self, image: Image, reference: Reference) -> Compared:
        if image.full_scale != reference.full_scale:
            raise FormatError(
                image.path,
                f"white is {image.full_scale:g} here and {reference.full_scale:g} on the reference: "
                f"{_bits(image.full_scale)} against {_bits(reference.full_scale)}; save both alike",
            )
        refuse_unusable(image)
        spec = self.recipe.registration
        registration = registered(self.recipe, image.pixels, reference.pixels)
        reason = registration.reason
        if not reason and registration.overlap < spec.min_overlap:
            reason = f"the reference covers {registration.overlap:.0%} of the image, less than {spec.min_overlap:.0%}"
        if reason:
            return Compared(None, image.pixels, None, registration, reason=reason)
        shape, grey = image.pixels.shape, smoothed(self.recipe, image.pixels)
        laid, seen = warped(reference.pixels, registration, shape)
        inner = _without_rims(seen, self.recipe.areas.border_px)
        care = inner if reference.care.all() else inner & _on_image(reference.care, registration, shape)
        if not care.any():
            reason = "nothing of it lies where areas.care, areas.ignore and areas.border_px of the recipe leave to look"
            return Compared(None, image.pixels, None, registration, reason=reason)
        gain, offset = 1.0, 0.0
        if self.recipe.photometry.gain_offset:
            where = care
            if self.recipe.areas.care:  # a small area, or a plain one, tells no gain; the lamp shines on all
                lit = care_mask(Areas(ignore=self.recipe.areas.ignore), reference.pixels.shape)
                where = inner & _on_image(lit, registration, shape)
            gain, offset = gain_offset(grey, laid, where)
        if not LEAST_GAIN < gain < 1 / LEAST_GAIN:
            reason = f"its contrast is {gain:.2g} times that of the reference"
            return Compared(None, image.pixels, None, registration, gain, offset, reason)
        field = None
        if spec.local_px is not None:
            matched = np.float32(gain) * laid + np.float32(offset)
            field = displaced(grey, matched, care, spacing_px=spec.local_px).at(shape)
            laid = laid_by(reference.pixels, registration.matrix, field)
        difference = grey - (np.float32(gain) * laid + np.float32(offset))
        match self.recipe.method:
            case Template() as method:
                noise = _noise(difference, care) if reference.spread is None else 0.0
                template, contrast = method, abs(gain)
            case DieToDie() as method:
                noise, contrast = _noise(difference, care), 1.0
                template = Template(
                    kind="template",
                    sigmas_light=method.sigmas,
                    sigmas_dark=method.sigmas,
                    contrast_fraction=method.contrast_fraction,
                    position_px=method.position_px,
                )
            case Wavelet() as method:
                assert reference.wavelet is not None  # `reference_of` and `read_reference` have seen to it
                sharp = (grey - np.float32(offset)) / np.float32(gain)
                signed = wavelet_deviation(method, sharp, laid, reference.wavelet, registration)
                signed[~care] = 0
                return Compared(signed, grey, laid, registration, gain, offset)
        parts = tolerances(template, reference, noise / max(contrast, 1e-6))
        light = _laid(parts[0], registration, field, shape) * np.float32(contrast)
        dark = light  # most recipes tolerate both alike: laid once
        if parts[1] is not parts[0]:
            dark = _laid(parts[1], registration, field, shape) * np.float32(contrast)

        def against(edges: np.ndarray | float) -> Float32[np.ndarray, "h w"]:
            return deviation(grey, laid, light + edges, dark + edges, gain=gain, offset=offset, care=care)

        if reference.edges is None:
            return Compared(against(0.0), grey, laid, registration, gain, offset)
        signed = against(_laid(reference.edges, registration, field, shape) * np.float32(contrast))
        if template.compact_px is not None:
            compact = opened(against(0.0), template.compact_px)
            signed = np.where(np.abs(compact) > np.abs(signed), compact, signed)
        return Compared(signed, grey, laid, registration, gain, offset)


def registered(recipe: GoldenRecipe, image: np.ndarray, reference: np.ndarray) -> Registration:
    """An image on its reference, looked for as the recipe says.

    A limit on the shift is more than a matter of speed: an array without one of its outer contacts fits best a pitch
    aside, where the gap lies off the reference and nobody looks at it.
    """
    spec = recipe.registration
    sides = (max(own, other) for own, other in zip(image.shape, reference.shape, strict=True))
    return register(
        image,
        reference,
        motion=spec.motion,
        max_shift_px=FARTHEST * min(sides) if spec.max_shift_px is None else spec.max_shift_px,
        max_angle_deg=spec.max_angle_deg,
        min_score=spec.min_score,
    )


def golden_session(bundle: Bundle) -> GoldenSession:
    """The session of a bundle, or of a recipe opened as one.

    Raises:
        BundleError: the bundle holds no golden recipe, or its parts do not fit together.
    """
    told = bundle.recipe
    if told.get("station") != "golden":
        raise BundleError(f"{bundle.path}: its recipe is of station {told.get('station')}, not golden")
    try:
        recipe = GoldenRecipe.model_validate(told)
    except ValidationError as wrong:
        raise BundleError(f"{bundle.path}: recipe.yaml is none of this version: {wrong}") from wrong
    if GOLDEN not in bundle.files:
        return GoldenSession(recipe, recipe.threshold.factor)
    return GoldenSession(recipe, _factor(bundle), read_reference(recipe, bundle.files[GOLDEN], str(bundle.path)))


def _factor(bundle: Bundle) -> float:
    told: dict[str, Any] = bundle.threshold
    factor = told.get("factor")
    if not isinstance(factor, float | int) or not factor > 0:
        raise BundleError(f"{bundle.path}: calibration.json says no threshold.factor; fit the recipe again")
    return float(factor)


def _both(a: Float32[np.ndarray, "h w"], b: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """What deviates from both neighbours in the same sense, by the smaller of the two."""
    light = np.minimum(np.maximum(a, 0), np.maximum(b, 0))
    dark = np.minimum(np.maximum(-a, 0), np.maximum(-b, 0))
    return light - dark


def _laid(
    part: np.ndarray | float,
    registration: Registration,
    field: Float32[np.ndarray, "2 h w"] | None,
    shape: tuple[int, int],
) -> np.ndarray | np.float32:
    """A tolerance on the image's grid; a number is the same everywhere."""
    if not (isinstance(part, np.ndarray) and part.ndim == 2):
        return np.float32(part)
    part = part.astype(np.float32, copy=False)
    laid = warped(part, registration, shape)[0] if field is None else laid_by(part, registration.matrix, field)
    return np.maximum(laid, np.float32(part.min()))


def _noise(difference: Float32[np.ndarray, "h w"], care: Bool[np.ndarray, "h w"]) -> float:
    """Robust standard deviation of what is cared for [grey]"""
    values = difference[care]
    if values.size == 0:
        return 0.0
    if values.size > 1 << 16:  # every so many pixels tell it as well
        values = values[:: values.size >> 16]
    return MAD_TO_SD * float(np.median(np.abs(values - np.median(values))))


def _on_image(
    part: Bool[np.ndarray, "h w"], registration: Registration, shape: tuple[int, int]
) -> Bool[np.ndarray, "h w"]:
    """A mask of the reference on the image's grid."""
    return warped(part.astype(np.float32), registration, shape)[0] > 0.5


def _without_rims(seen: Bool[np.ndarray, "h w"], rim_px: float) -> Bool[np.ndarray, "h w"]:
    """What of the image the reference covers, less the rims of both: near its rim, smoothing knows neither."""
    rim, (h, w) = math.ceil(rim_px), seen.shape
    inner = np.zeros_like(seen)
    square = np.ones((2 * rim + 1, 2 * rim + 1), np.uint8)
    covered = seen if seen.all() else cv2.erode(seen.view(np.uint8), square).view(np.bool_)
    inner[rim : h - rim, rim : w - rim] = covered[rim : h - rim, rim : w - rim]
    return inner


def _with_margin(box: np.ndarray, margin: float, shape: tuple[int, int]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (float(edge) for edge in box)
    h, w = shape
    return max(x0 - margin, -0.5), max(y0 - margin, -0.5), min(x1 + margin, w - 0.5), min(y1 + margin, h - 0.5)


def _bits(full_scale: float) -> str:
    return {255.0: "8 bits", 65535.0: "16 bits", 1.0: "float"}.get(full_scale, f"0..{full_scale:g}")
