"""Fits a golden recipe: a reference and its spread from some of the good images, a threshold from the others.

Nothing is learned by a network and no torch is needed. A run folder of such a fit is a bundle already.
"""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32

from waferlens import __version__
from waferlens.bundle.files import CALIBRATION, CARD, GOLDEN, RECIPE, RUNCARD, refuse_occupied, write_bundle
from waferlens.bundle.golden import MAD_TO_SD, GoldenSession, registered
from waferlens.bundle.reference import Reference, fitted_reference, smoothed
from waferlens.errors import FormatError, InputError, UsageError
from waferlens.ops.conformal import Guarantee, RiskGuarantee, conformal_threshold, risk_threshold
from waferlens.ops.displacement import displaced, laid_by
from waferlens.ops.photometry import gain_offset
from waferlens.ops.registration import warped
from waferlens.prepare.good import divided, first_of, sum_of, usable, what
from waferlens.recipe import as_yaml
from waferlens.recipe.golden import GoldenRecipe, Template
from waferlens.records import Image, RunCard

GOOD = "good"
"""If the data folder has a folder of this name, that one is read: what `simulate field` and users with defects have."""
STACK_BYTES = 512 * 2**20
"""Most memory the images of a template may take; larger images make templates of fewer [byte]"""
PRIOR_DEGREES = 8.0
"""Weight of the neighbourhood in a pixel's spread, in images: few images tell a single pixel's spread badly."""
PRIOR_PX = 7
"""Side of that neighbourhood [px]"""
FINDINGS_BOUND = 100
"""False findings of one image that are counted towards a rate per mm²; an image with more is told as a whole."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a fit came to."""

    run: str
    images: int
    """Good images that were used."""
    template_images: int
    calibration_images: int
    factor: float
    """The threshold, in units of what is tolerated."""
    guarantee: dict[str, Any] | None
    """What it promises; None if no rate is stated."""
    promise: str
    left_out: dict[str, str]
    """Images that were not used, with the reason of each."""
    not_compared: dict[str, str]
    """Images that count as alarms, because they could not be compared, with the reason of each."""
    seconds: float


def fit(recipe: GoldenRecipe, data: Path, out: Path, progress: Callable[[int, int], None] | None = None) -> Fitted:
    """Fits a golden recipe to a folder of good images and writes the bundle.

    Args:
        recipe: with a method that is fitted.
        data: folder of good images, or one with a folder `good` in it.
        out: the run's folder, which is the bundle; or a file that ends in `.zip`.
        progress: called with the images done and their total.

    Raises:
        UsageError: the method is not fitted, or there are too few good images for the stated rate.
        InputError: there are no images, none are alike, or they cannot be laid over one another.
        BundleError: something else stands at `out`.

    An image that cannot be read, is of another kind than most or there already is left out, and told.
    """
    began = time.perf_counter()
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    if recipe.method.kind == "die-to-die":
        raise UsageError(
            f"{recipe.name} compares neighbours and is fitted to nothing; use it as it is: "
            f"waferlens inspect DIES --bundle {recipe.name} --out DIR"
        )
    refuse_occupied(out)  # before the work, not after it
    folder = data / GOOD if (data / GOOD).is_dir() else data
    good, left_out = usable(folder)
    told_out = f" that can be used ({len(left_out)} cannot; the first: {first_of(left_out)})" if left_out else ""
    most = max(2, STACK_BYTES // (4 * good[0].size))
    for_template, for_threshold = divided(recipe, good, folder, told_out, most)
    total, done = len(for_template) + len(for_threshold), 0

    def advance(count: int = 1) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    not_compared: dict[str, str] = {}
    session, guarantee = _fitted(
        recipe,
        [one.read() for one in for_template],
        (one.read() for one in for_threshold),
        left_out,
        not_compared,
        advance,
    )
    factor, reference = session.factor, session.reference
    assert reference is not None
    told = None if guarantee is None else asdict(guarantee)
    promise = str(guarantee) if guarantee is not None else "no rate of false alarms is stated"
    seconds = round(time.perf_counter() - began, 2)
    facts = {
        "folder": folder.name,
        "images": len(good),
        "template": reference.images,
        "calibration": len(for_threshold),
        "not_compared": len(not_compared),
        "images_sha256": sum_of(good, folder),
    }
    card = RunCard(
        kind="fit",
        recipe=recipe.model_dump(mode="json"),
        seeds={"fit": recipe.fit.seed},
        versions={
            "waferlens": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("numpy", "opencv-python-headless")},
        },
        data=facts,
        sources=[recipe.source, *recipe.builds_on],
        results={"factor": factor, "guarantee": told, "left_out": left_out, "not_compared": not_compared},
        machine={"machine": platform.machine()},
        started=started,
        seconds=seconds,
    )
    write_bundle(
        out,
        {
            RECIPE: as_yaml(recipe),
            RUNCARD: asdict(card),
            GOLDEN: reference.to_bytes(),
            CALIBRATION: {"version": 1, "threshold": {"factor": factor, "guarantee": told}, "data": facts},
            CARD: _card(recipe, facts, factor, promise, left_out),
        },
    )
    return Fitted(
        str(out),
        len(good),
        reference.images,
        len(for_threshold),
        factor,
        told,
        promise,
        left_out,
        not_compared,
        seconds,
    )


def fit_images(
    recipe: GoldenRecipe,
    template: Sequence[Image],
    calibration: Iterable[Image],
    advance: Callable[[], None] = lambda: None,
) -> tuple[GoldenSession, Guarantee | RiskGuarantee | None, int, dict[str, str]]:
    """The fit itself, of images in memory or read one by one; `divided` says which image is for what.

    Args:
        recipe: with a method that is fitted.
        template: good images that make the reference.
        calibration: other good images, which set the threshold.
        advance: called after each image.

    Returns:
        The session with its reference and threshold, what the threshold promises (None if no rate is stated), how many
        calibration images could not be compared, and the reasons why images were not used, by path.
    """
    left_out: dict[str, str] = {}
    not_compared: dict[str, str] = {}
    session, guarantee = _fitted(recipe, template, calibration, left_out, not_compared, advance)
    return session, guarantee, len(not_compared), left_out


def _fitted(
    recipe: GoldenRecipe,
    template: Sequence[Image],
    calibration: Iterable[Image],
    left_out: dict[str, str],
    not_compared: dict[str, str],
    advance: Callable[[], None],
) -> tuple[GoldenSession, Guarantee | RiskGuarantee | None]:
    reference = _template(recipe, template, left_out, advance)
    session = GoldenSession(recipe, recipe.threshold.factor, reference)
    factor, guarantee = _threshold(session, calibration, left_out, not_compared, advance)
    return GoldenSession(recipe, factor, reference), guarantee


def _template(
    recipe: GoldenRecipe, good: Sequence[Image], left_out: dict[str, str], advance: Callable[[], None]
) -> Reference:
    """The reference: good images laid over one another, twice, the second time over what the first gave."""
    first = good[0]
    for image in good:
        if image.pixels.shape != first.pixels.shape or image.full_scale != first.full_scale:
            raise InputError(
                image.path,
                f"is {what(image)}, {Path(first.path).name} is {what(first)}; a template needs images alike",
            )
    laid: list[np.ndarray] = []
    used: list[Image] = []
    for anchor in good[:3]:  # the first one may be the odd one out
        laid, used, refused = _laid(recipe, good, anchor.pixels.astype(np.float32))
        if len(laid) > len(good) / 2:
            break
    else:
        name, why = next(iter(refused.items()))
        raise InputError(
            Path(first.path).parent,
            f"only {len(laid)} of {len(good)} good images can be laid over one another ({Path(name).name}: {why}); "
            "are they of one product and one place on it?",
        )
    left_out |= refused
    centre = _centre(recipe, laid)
    laid, _, refused = _laid(recipe, used, centre)
    left_out |= refused
    centre = _centre(recipe, laid)
    for _ in good:
        advance()
    method = recipe.method
    robust = method.spread == "mad" if isinstance(method, Template) else True
    spread = _spread(np.stack(laid), centre, robust)
    return fitted_reference(recipe, centre, spread, first.full_scale, laid, Path(first.path).parent.name)


def _laid(
    recipe: GoldenRecipe, good: Sequence[Image], onto: Float32[np.ndarray, "h w"]
) -> tuple[list[np.ndarray], list[Image], dict[str, str]]:
    """Good images on the grid and in the brightness of a first reference, and those that cannot be laid there."""
    laid, used, refused = [], [], {}
    for image in good:
        found = registered(recipe, onto, image.pixels)
        if found.reason:
            refused[image.path] = found.reason
            continue
        grey = smoothed(recipe, image.pixels)
        pixels, seen = warped(grey, found, onto.shape)
        gain, offset = gain_offset(onto, pixels, seen) if recipe.photometry.gain_offset else (1.0, 0.0)
        if recipe.registration.local_px is not None:
            matched = np.float32(gain) * pixels + np.float32(offset)
            field = displaced(onto, matched, seen, spacing_px=recipe.registration.local_px).at(onto.shape)
            pixels = laid_by(grey, found.matrix, field)
        pixels = np.float32(gain) * pixels + np.float32(offset)
        pixels[~seen] = onto[~seen]
        laid.append(pixels)
        used.append(image)
    return laid, used, refused


def _centre(recipe: GoldenRecipe, laid: Sequence[np.ndarray]) -> Float32[np.ndarray, "h w"]:
    mean = isinstance(recipe.method, Template) and recipe.method.centre == "mean"
    stack = np.stack(laid)
    return (stack.mean(0) if mean else np.median(stack, axis=0)).astype(np.float32)


def _spread(
    stack: Float32[np.ndarray, "n h w"], centre: Float32[np.ndarray, "h w"], robust: bool
) -> Float32[np.ndarray, "h w"]:
    """Standard deviation of good images at each pixel, held by that of its neighbourhood.

    A pixel's own variance from n images has n - 1 degrees of freedom; the mean variance around it counts as some more.

    Source: G. K. Smyth, Stat. Appl. Genet. Mol. Biol. 3 (2004), the moderated variance.
    """
    degrees = len(stack) - 1
    if robust:
        own = np.square(MAD_TO_SD * np.median(np.abs(stack - centre), axis=0)) * len(stack) / max(degrees, 1)
    else:
        own = np.square(stack - centre).sum(0) / max(degrees, 1)
    around = cv2.blur(own.astype(np.float32), (PRIOR_PX, PRIOR_PX), borderType=cv2.BORDER_REFLECT)
    around = np.maximum(around, 0)  # running sums may come back from an edge to a hair below the 0 of saturated white
    return np.sqrt((degrees * own + PRIOR_DEGREES * around) / (degrees + PRIOR_DEGREES)).astype(np.float32)


def _threshold(
    session: GoldenSession,
    images: Iterable[Image],
    left_out: dict[str, str],
    not_compared: dict[str, str],
    advance: Callable[[], None],
) -> tuple[float, Guarantee | RiskGuarantee | None]:
    """The threshold in units of what is tolerated, and what it promises."""
    spec = session.recipe.threshold
    if spec.false_alarm_rate is None:
        return spec.factor, None
    levels, scores, areas = [], [], []
    for image in images:
        try:
            compared = session.compare(image)
        except FormatError as wrong:  # of another kind, or constant: no good image of this product
            left_out[image.path] = wrong.reason
            advance()
            continue
        if compared.reason:
            not_compared[f"{image.path} page {image.page}" if image.page else image.path] = compared.reason
        if spec.per == "image":
            levels.append(session.alarm_level(compared))
        elif compared.deviation is not None:
            pixel_um = session.recipe.input.pixel_um or (image.pixel_nm and image.pixel_nm / 1000)
            if not pixel_um:
                raise UsageError(
                    f"{image.path}: a rate per mm² needs a pixel size, and no tag says one; set input.pixel_um=…"
                )
            found = session.findings_at(compared, spec.factor)
            scores.append(np.array([one.score * spec.factor for one in found if one.critical]))
            areas.append(image.pixels.size * pixel_um**2 * 1e-6)
        advance()
    if spec.per == "image":
        try:
            threshold, guarantee = conformal_threshold(np.array(levels), spec.false_alarm_rate)
        except UsageError as wrong:
            if not not_compared:
                raise
            raise UsageError(
                f"{wrong}. Not compared with the template: {len(not_compared)}, the first {first_of(not_compared)}. "
                "Take away what is no good image, or look at the registration (registration.motion, .min_score)"
            ) from wrong
        return threshold, guarantee
    threshold, risk = risk_threshold(
        scores, np.array(areas), spec.false_alarm_rate, bound=FINDINGS_BOUND, floor=spec.factor
    )
    return threshold, risk


def _card(recipe: GoldenRecipe, facts: dict[str, Any], factor: float, promise: str, left_out: dict[str, str]) -> str:
    lines = [
        f"# {recipe.name}",
        "",
        f"{recipe.summary}.",
        "",
        f"* Template of {facts['template']} good images of {facts['images']} in `{facts['folder']}`.",
        f"* Threshold {factor:.4g} times what is tolerated, set by {facts['calibration']} other good images.",
        f"* Promise: {promise}.",
    ]
    if facts["not_compared"]:
        lines.append(f"* {facts['not_compared']} of them could not be registered; such images are `review`.")
    if left_out:
        lines.append(f"* {len(left_out)} images were left out; `runcard.json` says why.")
    lines += [
        "",
        "The promise holds for images taken like these: same product, tool and settings. After a change of any of",
        "them, fit again. It says nothing about which defects are found; where they are known, `evaluate` does.",
    ]
    return "\n".join(lines) + "\n"
