"""The package station at work on a lot: of each image its light, the package, findings, the die's angle, a verdict.

What an image tells is stored with its chunk; what its device tells, of all its images, is worked out of the results
when all are there (`package_devices`), and so are the files of the line (`package_files`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from waferlens.bundle.files import Bundle
from waferlens.bundle.package import PackageSession
from waferlens.bundle.verdict import NG, OK, VERDICTS
from waferlens.errors import FormatError, InputError, UsageError
from waferlens.formats.klarf_record import rel_um
from waferlens.inspect.decoded import printable
from waferlens.inspect.folder import DEVICES, OVERLAYS, overlay_name
from waferlens.inspect.good_parts import Good, good_parts
from waferlens.inspect.overlay import CRITICAL, TOLERABLE, write_picture
from waferlens.inspect.package_devices import (
    UNCLEAR,
    Grouping,
    angle_reason,
    devices_of,
    machine_rows,
    worst_of,
    write_devices_csv,
)
from waferlens.inspect.package_files import LineFiles, line_files
from waferlens.inspect.plan import Item, Plan
from waferlens.load.package import read_pixels
from waferlens.ops.die_angle import DieAngle
from waferlens.ops.roi_record import Roi
from waferlens.prepare.beside_reference import UnlikeError
from waferlens.prepare.package_geometry import box_around
from waferlens.prepare.package_part import (
    ROTATE,
    PackagePart,
    asked_angle,
    examined,
    measures_angle,
    told_classes,
    unseen,
)
from waferlens.prepare.package_verdict import verdict_of
from waferlens.recipe.package import DieAngleSpec
from waferlens.records import Finding, Place
from waferlens.store.rows import OK as MEASURED
from waferlens.store.rows import QUARANTINED, ImageResult, Number

COLUMNS = (
    *("light", "upright", "findings", "score", "die_angle", "die_offset_x", "die_offset_y"),
    *("package_width", "package_height", "package_angle", "package_fit", "corner_sigma", "width", "height"),
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
    grouping: Grouping
    """Which images are of one device, and in which lights one is to be seen."""
    files: LineFiles
    """What is written for the line, if anything."""
    good: Good | None = None
    """Where the good part of each image is, for a network that is shown both; None where it is shown the image."""

    chunk: ClassVar[int] = 8
    finds: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = COLUMNS

    @property
    def folders(self) -> tuple[str, ...]:
        return (OVERLAYS,) if self.overlays else ()

    def options(self) -> dict[str, Any]:
        """What the results depend on besides bundle and images; a run is only resumed with the same."""
        told = {"pixel_um": self.pixel_um, "overlays": self.overlays, **self.grouping.options()}
        return told if self.good is None else told | self.good.options()

    def takes(self, path: str) -> bool:
        """Every image; a set's masks, which lie in its `truth`, are none, nor are references."""
        return Path(path).parent.name != "truth" and (self.good is None or self.good.takes(path))

    def require(self, plan: Plan) -> None:
        """Refuses a lot whose devices are not told by their names, or do not fit their strip.

        Raises:
            UsageError: they do not.
        """
        paths = (printable(path) for chunk in range(plan.chunks) for path, _ in plan.read(chunk))
        self.files.require(self.grouping.names(paths))

    def finish(self, plan: Plan, images: Iterable[ImageResult]) -> dict[str, list[dict[str, Any]]]:
        """Brings the images of each device together, and writes what is told of devices.

        Raises:
            InputError: a file cannot be written.
        """
        found = devices_of(images, self.grouping)
        write_devices_csv(self.out / DEVICES, found)
        return {"devices": machine_rows(found), "not_written": self.files.write(found, self.pixel_um)}

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
            try:
                shown = image if self.good is None else self.good.beside(path, image)
            except UnlikeError as wrong:
                part = unseen(wrong.reason)
            except InputError as wrong:
                result.status, result.reason = QUARANTINED, wrong.reason if wrong.path == path else str(wrong)
                continue
            else:
                least = self.session.score_review.tolist()
                part = examined(self.session, shown, self.angle, pixel_um=self.pixel_um, least=least)
            _tell(result, part, image, self)
            if self.overlays and (part.placement is not None or part.angle is not None):
                picture = drawn(image, part, result.findings)
                write_picture(self.out / OVERLAYS / overlay_name(result.item, result.path), picture)
        return made


def package_work(
    bundle: Bundle,
    out: Path,
    *,
    overlays: bool,
    pitch_um: float | None = None,
    device: str | None = None,
    lights: str | None = None,
    klarf: str | Path | None = None,
    e142: str | Path | None = None,
    strip: str | None = None,
    reference: str | Path | None = None,
    pair_by: str | None = None,
) -> PackageWork:
    """The work of a package bundle, its options checked.

    Args:
        bundle: opened.
        out: the run's folder.
        overlays: whether pictures are written beside the numbers.
        pitch_um: size of a pixel [um]
        device: regular expression that finds the device in the path of an image; by its name if None.
        lights: as `bf,dfw`: in which lights a device is to be seen; all that the bundle knows if None.
        klarf: file of the findings.
        e142: map of the strip.
        strip: as `4x10`: its rows and columns.
        reference: a good part, or a folder of them, for a network that is shown one beside the image.
        pair_by: how the name of an image gives that of its good part; as the recipe says if None.

    Raises:
        UsageError: an option is wrong.
        InputError: the reference does not exist.
        BundleError: the bundle cannot be used.
    """
    if pitch_um is not None and not 0 < pitch_um < math.inf:
        raise UsageError(f"--pitch-um {pitch_um:g}: the size of a pixel is more than 0 um")
    session, angle = PackageSession(bundle), asked_angle(bundle)
    told = session.lights if session.region == "roi" else None
    files = line_files(out, told_classes(session, angle), klarf=klarf, e142=e142, strip=strip, pixel_um=pitch_um)
    if klarf is not None and session.region != "roi":
        raise UsageError(
            f"--klarf {klarf}: {bundle.name} is shown whole images, and finds no package to tell places on"
        )
    limit_deg = angle.limit_deg if angle is not None and measures_angle(session, angle) else None
    grouping = Grouping.of(told, device, lights, limit_deg)
    good = good_parts(session, bundle.name, reference, pair_by)
    return PackageWork(session, angle, out, pitch_um, overlays, grouping, files, good)


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
    if part.light is not None:
        result.facts["light"] = part.light.light or UNCLEAR
    scale, unit = (1.0, "px") if work.pixel_um is None else (work.pixel_um, "um")
    roi = None if part.located is None else part.located.roi
    if roi is not None:
        if roi.quad is not None:
            result.facts["upright"] = roi.upright
            sides = sides_of(roi.quad) * scale
            told += [("package_width", sides[0], unit, None, None), ("package_height", sides[1], unit, None, None)]
        told += [
            ("package_angle", roi.angle_deg, "deg", None, None),
            ("package_fit", roi.score, "1", None, None),
            ("corner_sigma", roi.corner_sigma_px, "px", None, None),
        ]
    result.measurements = told
    grey = image.mean(axis=2, dtype=np.float32)
    judged = verdict_of(part, work.session, work.angle)
    result.findings = [
        finding_of(kind, score, box, grey, _placed(quad, roi, work.pixel_um), critical=says == NG)
        for kind, score, box, quad, says in zip(
            part.kinds, part.scores, part.boxes, part.quads, judged.findings, strict=True
        )
        if says != OK and not (kind == ROTATE and part.angle is not None)  # the angle's interval says it, below
    ]
    if part.reason:
        reasons = [f"not inspected: {part.reason}"]
    else:
        told.append(("findings", float(len(result.findings)), "1", None, None))
        told.append(("score", max((one.score for one in result.findings), default=0.0), "1", None, None))
        reasons = [worst_of(result.findings)] if result.findings else []
    if part.angle is not None and work.angle is not None:
        turned = part.angle
        told.append(("die_angle", turned.angle_deg, "deg", turned.low, turned.high))
        offset, unit = (turned.offset_px, "px") if turned.offset_um is None else (turned.offset_um, "um")
        if offset is not None:
            told += [("die_offset_x", offset[0], unit, None, None), ("die_offset_y", offset[1], unit, None, None)]
        if judged.angle != OK:
            reasons.append(_angle_reason(turned, work.angle))
        if judged.angle == NG and turned.die_quad is not None:
            box, at = box_around(turned.die_quad), _placed(turned.die_quad, roi, work.pixel_um)
            result.findings.append(finding_of(ROTATE, 1.0, box, grey, at, critical=True))
    result.verdict, result.verdict_reason = VERDICTS[judged.verdict], "; ".join(reasons)


def _angle_reason(turned: DieAngle, spec: DieAngleSpec) -> str:
    if turned.angle_deg is None or turned.low is None or turned.high is None:
        return f"die angle not measured: {turned.reason}"
    return angle_reason((turned.angle_deg, turned.low, turned.high), spec.limit_deg)


def sides_of(quad: Float[np.ndarray, "4 2"]) -> Float[np.ndarray, " 2"]:
    """Width and height of an upright part with these corners [px]"""
    upper, right, lower, left = np.hypot(*(np.roll(quad, -1, axis=0) - quad).T)
    return np.array([(upper + lower) / 2, (left + right) / 2])


def place_on(points: Float[np.ndarray, "n 2"], package: Float[np.ndarray, "4 2"], pixel_um: float | None) -> Place:
    """Where what points bound lies on a package, and how large it is there.

    Args:
        points: in the image [px]
        package: corners of its outline: upper left, upper right, lower right, lower left of the upright part [px]
        pixel_um: size of a pixel; px are told if None [um]
    """
    x, y = package[2] - package[3]
    angle_deg = math.degrees(math.atan2(-y, x))
    at = rel_um(points, (float(package[3, 0]), float(package[3, 1])), 1.0 if pixel_um is None else pixel_um, angle_deg)
    (x0, y0), (x1, y1) = at.min(axis=0).tolist(), at.max(axis=0).tolist()
    return Place((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, "px" if pixel_um is None else "um")


def _placed(points: np.ndarray, roi: Roi | None, pixel_um: float | None) -> Place | None:
    return None if roi is None or roi.quad is None else place_on(points, roi.quad, pixel_um)


def finding_of(
    kind: str, score: float, box: np.ndarray, grey: np.ndarray, place: Place | None, *, critical: bool
) -> Finding:
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
        critical=critical,
        rule="angle beyond its limit" if kind == ROTATE else "score of NG" if critical else "score of review",
        place=place,
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
