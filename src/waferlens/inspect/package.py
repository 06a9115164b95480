"""The package station at work on a lot: of each image its light, the package, findings, the die's angle, a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from jaxtyping import UInt8

from waferlens.bundle.files import Bundle
from waferlens.bundle.package import PackageSession
from waferlens.bundle.verdict import NG, OK, REVIEW, VERDICTS
from waferlens.errors import FormatError, InputError, UsageError
from waferlens.inspect.decoded import printable
from waferlens.inspect.folder import OVERLAYS, overlay_name
from waferlens.inspect.overlay import CRITICAL, TOLERABLE, write_picture
from waferlens.inspect.plan import Item, Plan
from waferlens.load.package import read_pixels
from waferlens.prepare.package_part import ROTATE, PackagePart, asked_angle, examined
from waferlens.recipe.package import DieAngleSpec
from waferlens.records import Finding
from waferlens.store.rows import OK as MEASURED
from waferlens.store.rows import QUARANTINED, ImageResult, Number

COLUMNS = (
    *("findings", "score", "die_angle", "die_offset_x", "die_offset_y", "package_angle", "package_fit"),
    *("corner_sigma", "width", "height"),
)
RIM_PX = 6
"""Width of the rim around a finding that its brightness is compared with [px]"""
OUTLINE, DIE = (230, 160, 40), (90, 200, 90)
"""Of package and die in an overlay: blue, green, red."""


@dataclass(frozen=True)
class PackageWork:
    """What every chunk is worked on with; the threads share it."""

    session: PackageSession
    angle: DieAngleSpec | None
    out: Path
    pixel_um: float | None
    """Size of a pixel; lengths stay in px where it is not known [um]"""
    overlays: bool

    chunk: ClassVar[int] = 8
    finds: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = COLUMNS

    @property
    def folders(self) -> tuple[str, ...]:
        return (OVERLAYS,) if self.overlays else ()

    def options(self) -> dict[str, Any]:
        """What the results depend on besides bundle and images; a run is only resumed with the same."""
        return {"pixel_um": self.pixel_um, "overlays": self.overlays}

    def takes(self, path: str) -> bool:
        """Every image; a set's masks, which lie in its `truth`, are none."""
        return Path(path).parent.name != "truth"

    def require(self, plan: Plan) -> None:
        """Nothing: every image stands for itself."""

    def finish(self, plan: Plan) -> list[dict[str, Any]]:
        """Nothing: an image is done when its chunk is."""
        return []

    def results(self, chunk: int, first: int, items: Sequence[Item]) -> list[ImageResult]:
        """Inspects the images of one chunk.

        Args:
            chunk: its number.
            first: place of its first image in the lot.
            items: its images.

        Returns:
            One result an image, in order; images that cannot be read are quarantined with their reason, those without
            one clear package are `review`.

        Raises:
            InputError: an overlay cannot be written.
        """
        made = []
        for place, (path, page) in enumerate(items):
            result = ImageResult(first + place, printable(path), page, MEASURED, chunk=chunk)
            made.append(result)
            try:
                image = _colours(path, page)
            except InputError as wrong:
                result.status, result.reason = QUARANTINED, wrong.reason
                continue
            part = examined(self.session, image, self.angle, pixel_um=self.pixel_um)
            _tell(result, part, image, self)
            if self.overlays and part.placement is not None:
                picture = drawn(image, part, result.findings)
                write_picture(self.out / OVERLAYS / overlay_name(result.item, result.path), picture)
        return made


def package_work(bundle: Bundle, out: Path, *, overlays: bool, pitch_um: float | None = None) -> PackageWork:
    """The work of a package bundle, its options checked.

    Raises:
        UsageError: the pitch is none.
        BundleError: the bundle cannot be used.
    """
    if pitch_um is not None and not 0 < pitch_um < math.inf:
        raise UsageError(f"--pitch-um {pitch_um:g}: the size of a pixel is more than 0 um")
    return PackageWork(PackageSession(bundle), asked_angle(bundle), out, pitch_um, overlays)


def _colours(path: str, page: int) -> UInt8[np.ndarray, "h w 3"]:
    """An image in three colours of 8 bits.

    Raises:
        InputError: it cannot be read.
        FormatError: it is of more bits, or one of several pages.
    """
    if page > 0:
        raise FormatError(path, f"page {page}: packages are inspected one a file; save the pages as files")
    pixels, _ = read_pixels(Path(path))
    if pixels.dtype != np.uint8:
        raise FormatError(path, f"has values of {pixels.dtype}; packages are inspected in 8 bits")
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def _tell(result: ImageResult, part: PackagePart, image: np.ndarray, work: PackageWork) -> None:
    """Fills in a result with what was seen."""
    h, w = image.shape[:2]
    told: list[Number] = [("width", float(w), "px", None, None), ("height", float(h), "px", None, None)]
    if part.located is not None:
        roi = part.located.roi
        told += [
            ("package_angle", roi.angle_deg, "deg", None, None),
            ("package_fit", roi.score, "1", None, None),
            ("corner_sigma", roi.corner_sigma_px, "px", None, None),
        ]
    result.measurements = told
    if part.reason:
        result.verdict, result.verdict_reason = VERDICTS[REVIEW], f"not inspected: {part.reason}"
        return
    grey = image.mean(axis=2, dtype=np.float32)
    result.findings = [
        finding_of(kind, score, box, grey)
        for kind, score, box in zip(part.kinds, part.scores, part.boxes, strict=True)
        if not (kind == ROTATE and part.angle is not None)  # the angle's own verdict says it, with its interval
    ]
    told.append(("findings", float(len(result.findings)), "1", None, None))
    told.append(("score", max((one.score for one in result.findings), default=0.0), "1", None, None))
    reasons = [f"{one.kind} {one.score:.2f} at ({_middle(one)}) px" for one in result.findings[:1]]
    verdict = NG if result.findings else OK
    if part.angle is not None and work.angle is not None:
        turned = part.angle
        told.append(("die_angle", turned.angle_deg, "deg", turned.low, turned.high))
        offset, unit = (turned.offset_px, "px") if turned.offset_um is None else (turned.offset_um, "um")
        if offset is not None:
            told += [("die_offset_x", offset[0], unit, None, None), ("die_offset_y", offset[1], unit, None, None)]
        says = turned.verdict(work.angle.limit_deg)
        if says != "OK":
            reasons.append(_angle_reason(turned.angle_deg, turned.low, turned.high, turned.reason, work.angle))
        if says == "NG" and turned.die_quad is not None:
            box = (*turned.die_quad.min(axis=0), *turned.die_quad.max(axis=0))
            result.findings.append(finding_of(ROTATE, 1.0, np.array(box), grey))
        verdict = max(verdict, {"OK": OK, "review": REVIEW, "NG": NG}[says])
    result.verdict, result.verdict_reason = VERDICTS[verdict], "; ".join(reasons)


def _angle_reason(
    angle_deg: float | None, low: float | None, high: float | None, reason: str, spec: DieAngleSpec
) -> str:
    if angle_deg is None or low is None or high is None:
        return f"die angle not measured: {reason}"
    return f"die angle {angle_deg:.2f} deg ({low:.2f} to {high:.2f}), limit {spec.limit_deg:g}"


def _middle(finding: Finding) -> str:
    x0, y0, x1, y1 = finding.box
    return f"{(x0 + x1) / 2:.0f}, {(y0 + y1) / 2:.0f}"


def finding_of(kind: str, score: float, box: np.ndarray, grey: np.ndarray) -> Finding:
    """A box as a finding; its area is the box's, its contrast the mean of the box less that of a rim around it."""
    x0, y0, x1, y1 = (float(edge) for edge in box)
    h, w = grey.shape
    left, top = max(0, round(x0 + 0.5)), max(0, round(y0 + 0.5))
    right, bottom = min(w, max(left + 1, round(x1 + 0.5))), min(h, max(top + 1, round(y1 + 0.5)))
    inner = grey[top:bottom, left:right]
    around = grey[max(0, top - RIM_PX) : bottom + RIM_PX, max(0, left - RIM_PX) : right + RIM_PX]
    rim = around.size - inner.size
    contrast = float(inner.mean() - (around.sum() - inner.sum()) / rim) if inner.size and rim else 0.0
    return Finding(
        kind=kind,
        box=(x0, y0, x1, y1),
        score=float(score),
        area_px=(x1 - x0) * (y1 - y0),
        contrast=contrast,
        light_or_dark="light" if contrast > 0 else "dark",
        critical=True,
        rule="angle beyond its limit" if kind == ROTATE else "score of the network",
    )


def drawn(image: UInt8[np.ndarray, "h w 3"], part: PackagePart, findings: Sequence[Finding]) -> np.ndarray:
    """The image with package, die and findings, in blue, green, red."""
    picture = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    quads = [
        (None if part.located is None else part.located.roi.quad, OUTLINE),
        (None if part.angle is None else part.angle.die_quad, DIE),
    ]
    for quad, colour in quads:
        if quad is not None:
            points = np.rint(16 * quad).astype(np.int32)  # four bits of fraction
            cv2.polylines(picture, [points], True, colour, 2, cv2.LINE_AA, 4)
    for finding in reversed(findings):
        x0, y0, x1, y1 = finding.box
        corners = (round(x0) - 4, round(y0) - 4), (round(x1) + 4, round(y1) + 4)
        cv2.rectangle(picture, *corners, CRITICAL if finding.critical else TOLERABLE, 2)
    return picture
