"""The good part that images are compared with: its grey, what is tolerated at each pixel, and where to look."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from waferlens.bundle.files import GOLDEN
from waferlens.bundle.wavelet import GoldenWavelet, learned
from waferlens.errors import BundleError, FormatError
from waferlens.ops.difference import edge_tolerance
from waferlens.ops.registration import SMALLEST_PX
from waferlens.recipe.golden import Areas, GoldenRecipe, Template, Wavelet
from waferlens.records import Image

RANGE = (1.0, 99.0)
"""Percentiles of the grey values between which a reference's range is taken; a few hot pixels do not widen it [%]"""


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A good part."""

    pixels: Float32[np.ndarray, "h w"]
    """Its grey values, smoothed as the recipe says, in the scale of the images it came from [grey]"""
    spread: Float32[np.ndarray, "h w"] | None
    """Standard deviation of good parts at each pixel; None where one image is all there is [grey]"""
    care: Bool[np.ndarray, "h w"]
    """Where to look."""
    full_scale: float
    """Grey value of white; an image of another full scale is not compared with it [grey]"""
    images: int
    """How many good images it was made from."""
    edges: Float32[np.ndarray, "h w"] | None
    """What is tolerated at edges beyond the rest, for edges that may move; None where they may not [grey]"""
    range_grey: float
    """From its dark to its bright [grey]"""
    wavelet: GoldenWavelet | None = None
    """What the wavelet method keeps of good parts; None for the others."""

    def to_bytes(self) -> bytes:
        """As the part `golden.npz` of a bundle; what the recipe says again is left out."""
        buffer = io.BytesIO()
        arrays = {"pixels": self.pixels, "full_scale": np.float64(self.full_scale), "images": np.int64(self.images)}
        if self.spread is not None:
            arrays["spread"] = self.spread
        if self.wavelet is not None:
            arrays |= {f"wavelet_{name}": getattr(self.wavelet, name) for name in ("mean", "sd", "known")}
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()


def smoothed(recipe: GoldenRecipe, pixels: np.ndarray) -> Float32[np.ndarray, "h w"]:
    """The grey values as they are compared: image and good part are smoothed alike."""
    sigma = getattr(recipe.method, "smoothing_px", 0.0)
    grey = np.ascontiguousarray(pixels, np.float32)
    return cv2.GaussianBlur(grey, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) if sigma > 0 else grey


def refuse_unusable(image: Image) -> None:
    """Refuses what can neither be compared nor be compared with.

    Raises:
        FormatError: the image is too small, or constant.
    """
    h, w = image.pixels.shape
    if min(h, w) < SMALLEST_PX:
        raise FormatError(image.path, f"is {w}x{h} px; what is compared needs at least {SMALLEST_PX} px each way")
    if image.pixels.min() == image.pixels.max():
        raise FormatError(image.path, f"every pixel is {image.pixels.flat[0]:g}: there is nothing to compare")


def reference_of(recipe: GoldenRecipe, image: Image) -> Reference:
    """One good image as a reference: direct mode.

    Raises:
        FormatError: the image is too small or constant; nothing can be compared with it.
    """
    refuse_unusable(image)
    made = _made(recipe, smoothed(recipe, image.pixels), None, image.full_scale, 1, image.path)
    if isinstance(recipe.method, Wavelet):
        return replace(made, wavelet=learned(recipe.method, [made.pixels], made.range_grey))
    return made


def fitted_reference(
    recipe: GoldenRecipe,
    pixels: Float32[np.ndarray, "h w"],
    spread: Float32[np.ndarray, "h w"],
    full_scale: float,
    laid: Sequence[Float32[np.ndarray, "h w"]],
    path: str,
) -> Reference:
    """Several good images as a reference, as `prepare.golden` has laid them over one another.

    Raises:
        FormatError: it is constant.
    """
    made = _made(recipe, pixels, spread, full_scale, len(laid), path)
    if isinstance(recipe.method, Wavelet):
        return replace(made, wavelet=learned(recipe.method, laid, made.range_grey))
    return made


def read_reference(recipe: GoldenRecipe, data: bytes, path: str) -> Reference:
    """The reference of a bundle.

    Raises:
        BundleError: the bytes are no `golden.npz`.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            spread = arrays.get("spread")
            told = arrays["pixels"], spread, float(arrays["full_scale"]), int(arrays["images"])
            wavelet = None
            if isinstance(recipe.method, Wavelet):
                wavelet = GoldenWavelet(*(arrays[f"wavelet_{name}"] for name in ("mean", "sd", "known")))
    except (ValueError, KeyError, OSError) as wrong:
        raise BundleError(f"{path}: {GOLDEN} cannot be read ({wrong}); fit the recipe again") from wrong
    return replace(_made(recipe, *told, path), wavelet=wavelet)


def care_mask(areas: Areas, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Where to look on the reference: inside the boxes of `care`, outside those of `ignore`."""
    care = np.full(shape, not areas.care)
    for boxes, value in ((areas.care, True), (areas.ignore, False)):
        for x0, y0, x1, y1 in boxes:
            # a pixel belongs to a box when its centre does
            rows = slice(max(0, int(np.ceil(y0))), max(0, int(np.floor(y1)) + 1))
            columns = slice(max(0, int(np.ceil(x0))), max(0, int(np.floor(x1)) + 1))
            care[rows, columns] = value
    return care


def _made(
    recipe: GoldenRecipe,
    pixels: Float32[np.ndarray, "h w"],
    spread: Float32[np.ndarray, "h w"] | None,
    full_scale: float,
    images: int,
    path: str,
) -> Reference:
    dark, bright = np.percentile(pixels, RANGE)
    if not bright > dark:  # a mask with one small feature
        dark, bright = float(pixels.min()), float(pixels.max())
    if not bright > dark:
        raise FormatError(path, f"every pixel is {dark:g}: a reference without structure compares with nothing")
    care = care_mask(recipe.areas, pixels.shape)  # type: ignore[arg-type]
    if not care.any():
        raise FormatError(path, "areas.care and areas.ignore of the recipe leave nothing of this image to look at")
    position = getattr(recipe.method, "position_px", 0.0)
    edges = edge_tolerance(pixels, position) if position > 0 else None
    return Reference(pixels, spread, care, full_scale, images, edges, float(bright - dark))


def tolerances(method: Template, reference: Reference, noise: float) -> tuple[np.ndarray | float, np.ndarray | float]:
    """What is tolerated where the image is brighter and where it is darker, on the reference's grid, edges apart.

    Args:
        method: of the recipe.
        reference: the good part.
        noise: standard deviation of image minus reference, for references that know no spread of their own [grey]
    """
    least = max(method.contrast_fraction * reference.range_grey, np.finfo(np.float32).tiny)
    spread = noise if reference.spread is None else reference.spread
    light = np.maximum(method.sigmas_light * spread, least)
    if method.sigmas_dark == method.sigmas_light:
        return light, light
    return light, np.maximum(method.sigmas_dark * spread, least)
